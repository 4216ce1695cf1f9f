"""Compare the detections of a trained network with the annotations of a folder, at the size of its images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from segedu.datasets.box_folder import BoxFolder
from segedu.datasets.folder import ALL
from segedu.metrics.coco import CocoEvaluation
from segedu.recipes.evaluation import Evaluation
from segedu.recipes.own_box_files import confident
from segedu.recipes.own_boxes import draw_boxes, read_example
from segedu.recipes.shapes import Example, Instances
from segedu.recipes.trained_run import TrainedRun


def evaluate_boxes(run: TrainedRun, root: str | Path, split: str = ALL, progress: bool = True) -> Evaluation:
    """Detect the objects of the images of a split and compare them with their annotations.

    The figures are COCO's average precision: `AP50` at an IoU of 0.5 and `AP` as the mean over IoU thresholds from 0.5
    to 0.95, both as means over the classes and for each class. A network that predicts masks also has `mask AP50` and
    so on. The score of an image is its AP50.

    Args:
        run: the trained network.
        root: folder of the images, see `segedu.datasets.box_folder`.
        split: name of a split; "all" for every image.
        progress: show a progress bar.

    Raises:
        FileNotFoundError, ValueError: a file cannot be used, or the folder has classes that the run does not know.
    """
    folder = BoxFolder(root)
    folder.check()
    if split not in folder.splits:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(folder.splits)}")
    to_run = _labels_of_run(run, folder)
    with_masks = run.recipe.metric.startswith("mask")
    if with_masks and not folder.has_masks:
        raise ValueError(f"{folder.root} has objects without a segmentation, expected masks: the run predicts them")
    kinds = {"": "bbox", "mask ": "segm"} if with_masks else {"": "bbox"}
    total = {name: CocoEvaluation(kind) for name, kind in kinds.items()}
    per_image = {}
    for name in tqdm(folder.splits[split], desc="evaluate", unit="image", disable=not progress, leave=False):
        image, target = _example(folder, name, with_masks, to_run)
        detections = run.predict(image)
        for evaluation in total.values():
            evaluation.update(detections, target)
        per_image[name] = _score(detections, target)
    figures: dict[str, float] = {}
    for name, evaluation in total.items():
        figures |= {f"{name}{key}": value for key, value in _figures(evaluation, run.classes).items()}
    return Evaluation(figures, per_image, draw_examples(run, folder, per_image, to_run))


def _labels_of_run(run: TrainedRun, folder: BoxFolder) -> torch.Tensor:
    """The label of the run (K,) for each label of the folder, by the names of the classes."""
    unknown = [name for name in folder.classes if name not in run.classes]
    if unknown:
        raise ValueError(
            f"{folder.root} has the class {unknown[0]!r}, expected the classes of the run: {', '.join(run.classes[1:])}"
        )
    return torch.tensor([run.classes.index(name) for name in folder.classes])


def _example(folder: BoxFolder, name: str, masks: bool, to_run: torch.Tensor) -> Example:
    image, target = read_example(folder, name, masks)
    return image, target | {"labels": to_run[target["labels"]]}


def _score(detections: Instances, target: Instances) -> float:
    """The AP50 of the boxes of an image; of an image without objects, 1 if nothing is detected confidently."""
    evaluation = CocoEvaluation("bbox")
    evaluation.update(detections, target)
    value = evaluation.compute()["AP50"]
    return float(not len(confident(detections)["scores"])) if np.isnan(value) else float(value)


def _figures(evaluation: CocoEvaluation, classes: tuple[str, ...]) -> dict[str, float]:
    result = evaluation.compute()
    figures = {"AP50": result["AP50"], "AP": result["AP"]}
    for k, label in enumerate(result["labels"]):
        precision = result["precision"][0, :, k, 0]
        if not np.isnan(precision).all():
            figures[f"AP50 {classes[int(label)]}"] = float(np.nanmean(precision))
            figures[f"AP {classes[int(label)]}"] = result["AP_per_class"][int(label)]
    return figures


def draw_examples(run: TrainedRun, folder: BoxFolder, per_image: dict[str, float], to_run: torch.Tensor) -> Figure:
    """Draw the worst, the middle and the best image, one per row: image, annotations and detections."""
    order = sorted(per_image, key=per_image.__getitem__)
    chosen = list(dict.fromkeys([order[0], order[(len(order) - 1) // 2], order[-1]]))
    figure = Figure(figsize=(9, 3.1 * len(chosen)), layout="constrained")
    rows = figure.subplots(len(chosen), 3, squeeze=False)
    for axes, name in zip(rows, chosen, strict=True):
        image, target = _example(folder, name, False, to_run)
        found = confident(run.predict(image))
        counts = [len(objects["labels"]) for objects in (target, found)]
        titles = (name[:30], f"annotated: {counts[0]}", f"detected: {counts[1]}, AP50 {per_image[name]:.2f}")
        for axis, title, objects in zip(axes, titles, (None, target, found), strict=True):
            axis.imshow(image.permute(1, 2, 0).numpy())
            if objects is not None:
                draw_boxes(axis, objects["boxes"], objects["labels"], len(run.classes))
            axis.set_title(title, fontsize=10)
            axis.axis("off")
    return figure
