"""The four tasks of the recipes: what a network predicts for an image, how it is measured, how it is drawn.

A recipe names one of `SEMANTIC`, `INSTANCES`, `DETECTION` and `PANOPTIC`. Their ground truth and predictions are:

- semantic: a class per pixel, int64 (H, W), or (D, H, W) for a volume;
- instances: a label map, int32 (H, W), 0 is background;
- detection: a dict of `boxes`, `labels` and often `masks`; predictions also have `scores`;
- panoptic: a dict of `panoptic_seg` and `segments_info`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from segedu.metrics.boundary import boundary_f1
from segedu.metrics.coco import CocoEvaluation
from segedu.metrics.confusion import confusion_matrix
from segedu.metrics.instance import match_instances
from segedu.metrics.panoptic import PanopticQuality
from segedu.metrics.semantic import dice_per_class_from_confusion, mean_iou_from_confusion
from segedu.recipes.data import Sets
from segedu.training.devices import device_of, to_device
from segedu.viz import compare, gallery, palette

INSTANCE_IOUS = (0.5, 0.6, 0.7, 0.8, 0.9)  # thresholds from which a predicted instance counts as correct
DRAWN_SCORE = 0.25  # detections with a lower score are not drawn

Predict = Callable[[Tensor], Any]  # image (C, ...) -> prediction
Postprocess = Callable[[Any, tuple[int, int]], list]  # outputs of a batch and the images' (H, W) -> predictions
Figures = dict[str, float | None]  # a metric's name -> its value; None where it is undefined
Table = dict[str, dict[str, Figures]]  # split -> group of images, or "all" of them -> figures


@dataclass(frozen=True)
class Task:
    """What all recipes of a task share.

    `predict(model, image, postprocess)` applies a network to one image and returns the prediction on the CPU. Without
    `postprocess`, the outputs of an instance, detection or panoptic model already are predictions, as a baseline's are.
    `measure(predict, sets, num_classes)` compares predictions with the ground truth of the held-out images.
    `draw(image, target, prediction)` shows the three side by side.
    """

    predict: Callable[..., Any]
    measure: Callable[[Predict, Sets, int], Table]
    draw: Callable[[Tensor, Any, Any], Figure]


# --- predict ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _outputs(model: nn.Module, image: Tensor) -> Any:
    model.eval()
    return model(image[None].to(device_of(model)))


def predict_classes(model: nn.Module, image: Tensor, postprocess: Postprocess | None = None) -> Tensor:
    """The class with the highest logit per pixel; logits need no `postprocess`."""
    return _outputs(model, image).argmax(dim=1)[0].cpu()


@torch.no_grad()
def predict_objects(model: nn.Module, image: Tensor, postprocess: Postprocess | None = None) -> Any:
    """A label map, detections or a panoptic segmentation, by the method's own `postprocess`."""
    outputs = _outputs(model, image)
    predictions = outputs if postprocess is None else postprocess(outputs, tuple(image.shape[-2:]))
    return to_device(predictions[0], torch.device("cpu"))


# --- measure ------------------------------------------------------------------------------------------------------


def _measure(
    predict: Predict, sets: Sets, compare_image: Callable[[Any, Any], Any], summarize: Callable[[list], Figures]
) -> Table:
    """Compare each prediction with its target, and summarize the comparisons per group and of all groups together."""
    table = {}
    for split, groups in sets.held_out.items():
        compared = {
            name: [compare_image(predict(image), target) for image, target in pairs] for name, pairs in groups.items()
        }
        compared = {"all": sum(compared.values(), []), **compared}
        table[split] = {name: summarize(values) for name, values in compared.items()}
    return table


def _none_for_nan(figures: dict[str, float]) -> Figures:
    """JSON has no NaN."""
    return {name: None if np.isnan(value) else float(value) for name, value in figures.items()}


def semantic_scores(matrix: Tensor) -> Figures:
    """Mean IoU of all classes, mean Dice and IoU of the foreground, from a confusion matrix (K, K).

    `foreground_iou` and `foreground_dice` merge all foreground classes into one. `dice` is the mean over the foreground
    classes. With more than one of them, `dice_1` is the Dice of class 1, and so on.
    """
    matrix = matrix.double()
    union = float(matrix.sum() - matrix[0, 0])  # pixels that are foreground in the ground truth or the prediction
    foreground = float(matrix[1:, 1:].sum()) / union if union else None
    mean_iou, dice = mean_iou_from_confusion(matrix), dice_per_class_from_confusion(matrix)[1:]
    figures = _none_for_nan({"mean_iou": float(mean_iou), "dice": float(dice.nanmean())})
    figures |= {"foreground_iou": foreground, "foreground_dice": None if foreground is None else _dice(foreground)}
    per_class = {f"dice_{k}": value for k, value in enumerate(dice.tolist(), 1)} if len(dice) > 1 else {}
    return figures | _none_for_nan(per_class)


def _dice(iou: float) -> float:
    """Dice of the regions with this IoU."""
    return 2 * iou / (1 + iou)


def measure_semantic(predict: Predict, sets: Sets, num_classes: int) -> Table:
    """`semantic_scores` of all pixels of a group; with two classes also `boundary_f1`.

    `boundary_f1` is the mean over the images; boundaries up to 2 pixels apart count as the same.
    """

    def compare_image(labels: Tensor, target: Tensor) -> tuple[Tensor, float | None]:
        matrix = confusion_matrix(labels, target, num_classes, ignore_index=255)
        return matrix, boundary_f1(labels == 1, target == 1, tolerance=2) if num_classes == 2 else None

    def summarize(compared: list[tuple[Tensor, float | None]]) -> Figures:
        empty = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        figures = semantic_scores(sum((matrix for matrix, _ in compared), empty))
        if num_classes == 2:
            figures["boundary_f1"] = float(np.mean([f1 for _, f1 in compared])) if compared else None
        return figures

    return _measure(predict, sets, compare_image, summarize)


def measure_instances(predict: Predict, sets: Sets, num_classes: int = 2) -> Table:
    """Instance accuracy TP / (TP + FP + FN).

    `instance_accuracy` is the mean over images at IoU 0.5, `instance_accuracy_0.7` the same at 0.7, and so on.
    `pooled_accuracy` adds the counts of all images first, at IoU 0.5. An image with neither ground-truth nor predicted
    instances counts as 1 in the mean. A group without images has None.
    """

    def compare_image(label_map: Tensor, target: Tensor) -> list[tuple[int, int, int]]:
        return [match_instances(label_map, target, threshold) for threshold in INSTANCE_IOUS]

    return _measure(predict, sets, compare_image, _instance_accuracies)


def _instance_accuracies(compared: list[list[tuple[int, int, int]]]) -> Figures:
    names = ["instance_accuracy", *(f"instance_accuracy_{threshold}" for threshold in INSTANCE_IOUS[1:])]
    if not compared:
        return dict.fromkeys([*names, "pooled_accuracy"])
    counts = np.array(compared)  # (images, thresholds, 3): TP, FP, FN
    totals = counts.sum(axis=2)
    accuracy = np.where(totals > 0, counts[..., 0] / np.maximum(totals, 1), 1.0).mean(axis=0)
    pooled = counts[:, 0, 0].sum() / max(totals[:, 0].sum(), 1)
    return dict(zip(names, accuracy.tolist(), strict=True)) | {"pooled_accuracy": float(pooled)}


def _pair(prediction: Any, target: Any) -> tuple[Any, Any]:
    return prediction, target


def measure_detections(predict: Predict, sets: Sets, num_classes: int = 2) -> Table:
    """COCO's average precision: `box_ap`, `box_ap50`, `mask_ap` and `mask_ap50`; None without masks.

    With several classes in the ground truth, `box_ap50_1` is the AP50 of class 1, and so on.
    """
    return _measure(predict, sets, _pair, _average_precisions)


def _average_precisions(pairs: list[tuple[dict[str, Tensor], dict[str, Tensor]]]) -> Figures:
    figures: Figures = {}
    for kind, iou_type, key in (("box", "bbox", "boxes"), ("mask", "segm", "masks")):
        evaluation = CocoEvaluation(iou_type)
        for detections, target in pairs if all(key in detections for detections, _ in pairs) else ():
            evaluation.update(detections, target)
        result = evaluation.compute()
        figures |= _none_for_nan({f"{kind}_ap50": result["AP50"], f"{kind}_ap": result["AP"]})
        if len(result["labels"]) > 1:  # precision has the axes threshold, recall, class and area
            per_class = result["precision"][0, :, :, 0].mean(axis=0)
            named = zip(result["labels"].tolist(), per_class, strict=True)
            figures |= _none_for_nan({f"{kind}_ap50_{label}": ap for label, ap in named})
    return figures


def measure_panoptic(predict: Predict, sets: Sets, num_classes: int) -> Table:
    """Panoptic quality: `pq`, `sq`, `rq` are means over all classes, `pq_things` and `pq_stuff` over those classes."""

    def summarize(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> Figures:
        quality = PanopticQuality(num_classes)
        for prediction, target in pairs:
            quality.update(prediction, target)
        result = quality.compute()
        figures = {name: result[name] for name in ("pq", "sq", "rq")}
        return _none_for_nan(figures | {f"pq_{kind}": result[kind]["pq"] for kind in ("things", "stuff")})

    return _measure(predict, sets, _pair, summarize)


# --- draw ---------------------------------------------------------------------------------------------------------


def draw_classes(image: Tensor, target: Tensor, prediction: Tensor) -> Figure:
    """Of a volume (D, H, W), the slice with the most foreground."""
    if target.ndim == 3:
        depth = int((target > 0).sum(dim=(1, 2)).argmax())
        image, target, prediction = image[:, depth].expand(3, -1, -1), target[depth], prediction[depth]
    return compare(image, target, prediction)


def draw_instances(image: Tensor, target: Tensor, prediction: Tensor) -> Figure:
    """Label maps, each titled with its number of instances."""
    counts = [int((labels.unique() > 0).sum()) for labels in (target, prediction)]
    return _draw_side_by_side(image, target, prediction, counts)


def draw_panoptic(image: Tensor, target: dict[str, Any], prediction: dict[str, Any]) -> Figure:
    """Segment maps. Ids are arbitrary, so a correct segment may have another colour than in the ground truth."""
    counts = [len(segmentation["segments_info"]) for segmentation in (target, prediction)]
    return _draw_side_by_side(image, target["panoptic_seg"], prediction["panoptic_seg"], counts)


def draw_detections(image: Tensor, target: dict[str, Tensor], prediction: dict[str, Tensor]) -> Figure:
    """Boxes in the colours of their classes, and masks where there are any; the most confident are drawn last."""
    rising = prediction["scores"].argsort()
    rising = rising[prediction["scores"][rising] >= DRAWN_SCORE]
    drawn = {key: value[rising] for key, value in prediction.items()}
    counts = [len(target["labels"]), len(drawn["labels"])]
    figure = _draw_side_by_side(image, target.get("masks"), drawn.get("masks"), counts)
    colours = palette(max([1, *target["labels"].tolist(), *drawn["labels"].tolist()]))
    for axis, objects in zip(figure.axes[1:3], (target, drawn), strict=True):
        for (left, top, right, bottom), label in zip(
            objects["boxes"].tolist(), objects["labels"].tolist(), strict=True
        ):
            corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
            axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colours[label - 1], linewidth=1.6))
    return figure


def _draw_side_by_side(image: Tensor, target: Any, prediction: Any, counts: list[int]) -> Figure:
    titles = ("image", f"ground truth: {counts[0]}", f"predicted: {counts[1]}")
    return gallery([image] * 3, [None, target, prediction], titles=titles, columns=3, width=3.2)


SEMANTIC = Task(predict_classes, measure_semantic, draw_classes)
INSTANCES = Task(predict_objects, measure_instances, draw_instances)
DETECTION = Task(predict_objects, measure_detections, draw_detections)
PANOPTIC = Task(predict_objects, measure_panoptic, draw_panoptic)
