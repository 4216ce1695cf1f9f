"""Compare the predictions of a trained network with the ground truth of a folder, at the size of its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

from segedu.datasets.folder import ALL, MASKS, SegmentationFolder
from segedu.datasets.sample import VOID
from segedu.metrics.confusion import confusion_matrix
from segedu.metrics.instance import match_instances
from segedu.metrics.semantic import iou_per_class_from_confusion
from segedu.recipes.own_images import read_pair
from segedu.recipes.task import INSTANCE_IOUS
from segedu.recipes.trained_run import TrainedRun
from segedu.viz import overlay


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate_run`.

    Attributes:
        figures: name -> value. For masks: `mean_iou`, and `iou CLASS` of every class in the ground truth or a
            prediction, pixels of all images pooled. For label maps: `instance_accuracy` TP / (TP + FP + FN) at IoU 0.5,
            the mean over the images, and the same at higher thresholds.
        per_image: name of an image -> its mean IoU or its instance accuracy.
        picture: the worst, the middle and the best image with ground truth and prediction.
    """

    figures: dict[str, float]
    per_image: dict[str, float]
    picture: Figure


def evaluate_run(run: TrainedRun, root: str | Path, split: str = ALL, progress: bool = True) -> Evaluation:
    """Predict the images of a split and compare the predictions with their ground truth.

    Args:
        run: the trained network.
        root: folder of the images, see `segedu.datasets.folder`.
        split: name of a split; "all" for every image.
        progress: show a progress bar.

    Raises:
        FileNotFoundError, ValueError: a file cannot be used, or the folder has other classes than the run.
    """
    folder = SegmentationFolder(root, split)
    _check_classes(run, folder)
    compare = _compare_classes if run.kind == MASKS else _compare_instances
    compared = {}
    for name in tqdm(folder.names, desc="evaluate", unit="image", disable=not progress, leave=False):
        image, target = _read(run, folder, name)
        compared[name] = compare(run.predict(image), target, len(run.classes))
    summarize = _semantic_figures if run.kind == MASKS else _instance_figures
    per_image = {name: _score(value, run.kind) for name, value in compared.items()}
    figures = summarize(list(compared.values()), run.classes)
    return Evaluation(figures, per_image, draw_examples(run, folder, per_image))


def _read(run: TrainedRun, folder: SegmentationFolder, name: str) -> tuple[Tensor, Tensor]:
    """An image and its ground truth, in which the class that the run ignores is 255."""
    image, target = read_pair(folder, name)
    return image, target if run.preparation is None else run.preparation.target(target)


def _check_classes(run: TrainedRun, folder: SegmentationFolder) -> None:
    if folder.target_folder != run.kind:
        raise ValueError(f"{folder.root} has {folder.target_folder}, expected {run.kind}: the run predicts those")
    expected = folder.classes if run.preparation is None else folder.classes[: run.preparation.ignored]
    if run.kind == MASKS and folder.classes and expected != run.classes:
        raise ValueError(
            f"{folder.root} has the classes {', '.join(folder.classes)}, expected those of the run: "
            f"{', '.join(run.classes)}"
        )


def _compare_classes(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    highest = int(torch.where(target == VOID, 0, target).max())
    if highest >= num_classes:
        raise ValueError(f"a mask has the class {highest}, expected 0 to {num_classes - 1}, the classes of the run")
    return confusion_matrix(prediction, target, num_classes, ignore_index=VOID)


def _compare_instances(prediction: Tensor, target: Tensor, num_classes: int) -> list[tuple[int, int, int]]:
    return [match_instances(prediction, target, threshold) for threshold in INSTANCE_IOUS]


def _semantic_figures(matrices: list[Tensor], classes: tuple[str, ...]) -> dict[str, float]:
    ious = iou_per_class_from_confusion(torch.stack(matrices).sum(dim=0))
    known = {f"iou {name}": float(iou) for name, iou in zip(classes, ious, strict=True) if not iou.isnan()}
    return {"mean_iou": float(ious.nanmean()), **known}


def _instance_figures(counts: list[list[tuple[int, int, int]]], classes: tuple[str, ...]) -> dict[str, float]:
    accuracy = np.array([[_accuracy(*threshold) for threshold in image] for image in counts]).mean(axis=0)
    names = ["instance_accuracy", *(f"instance_accuracy at IoU {threshold}" for threshold in INSTANCE_IOUS[1:])]
    return dict(zip(names, accuracy.tolist(), strict=True))


def _accuracy(true_positives: int, false_positives: int, false_negatives: int) -> float:
    total = true_positives + false_positives + false_negatives
    return true_positives / total if total else 1.0  # an empty image that is predicted empty is correct


def _score(compared: Tensor | list[tuple[int, int, int]], kind: str) -> float:
    if kind == MASKS:
        return float(iou_per_class_from_confusion(compared).nanmean())
    return _accuracy(*compared[0])


def draw_examples(run: TrainedRun, folder: SegmentationFolder, per_image: dict[str, float]) -> Figure:
    """Draw the worst, the middle and the best image, one per row: image, ground truth and prediction."""
    order = sorted(per_image, key=per_image.__getitem__)
    chosen = list(dict.fromkeys([order[0], order[(len(order) - 1) // 2], order[-1]]))
    figure = Figure(figsize=(9, 3.1 * len(chosen)), layout="constrained")
    rows = figure.subplots(len(chosen), 3, squeeze=False)
    for axes, name in zip(rows, chosen, strict=True):
        image, target = _read(run, folder, name)
        target = torch.where(target == VOID, 0, target) if run.kind == MASKS else target
        axes[0].imshow(image.permute(1, 2, 0).numpy())
        axes[1].imshow(overlay(image, target))
        axes[2].imshow(overlay(image, run.predict(image)))
        measure = "mean IoU" if run.kind == MASKS else "instance accuracy"
        for axis, title in zip(axes, (name[:30], "ground truth", f"{measure} {per_image[name]:.2f}"), strict=True):
            axis.set_title(title, fontsize=10)
            axis.axis("off")
    return figure
