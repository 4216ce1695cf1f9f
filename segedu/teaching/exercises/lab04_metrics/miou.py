"""miou: the mean IoU of a data set from the confusion matrices of its images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.semantic import mean_iou_from_confusion
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def miou(matrices: Tensor) -> float:
    """Mean IoU over the classes that occur, of all images together.

    Args:
        matrices: (B, K, K) int64 counts, one matrix an image, rows truth.

    Returns:
        A number in [0, 1]; NaN where nothing was counted.
    """
    return mean_iou_from_confusion(matrices.sum(dim=0))


def _matrices(rng: np.random.Generator, num_images: int, num_classes: int) -> Tensor:
    """A large, well segmented image and small, badly segmented ones; frequent classes are easier."""
    matrices = rng.integers(1, 4, (num_images, num_classes, num_classes))
    good = 60 // (1 + np.arange(num_classes)) + rng.integers(0, 4, num_classes)
    diagonal = np.arange(num_classes)
    matrices[0, diagonal, diagonal] = good
    matrices[0, 0, 1:] += 4
    return torch.from_numpy(matrices)


def _without(matrices: Tensor, classes: list[int], image: int | slice = slice(None)) -> Tensor:
    matrices = matrices.clone()
    matrices[image, classes, :] = 0
    matrices[image, :, classes] = 0
    return matrices


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Images of different sizes; classes absent from one image, from all, from the truth only; nothing at all.

    Args:
        rng: of the drawn counts.

    Returns:
        The cases by group.
    """
    invented = _matrices(rng, 2, 3)
    invented[:, 1, :] = 0
    invented[:, :, 1] += 1
    invented[:, 1, 1] = 0
    return {
        "core": (
            2,
            [
                {"name": "two images of different size", "args": [_matrices(rng, 2, 3)]},
                {"name": "three images, four classes", "args": [_matrices(rng, 3, 4)]},
                {"name": "one image", "args": [_matrices(rng, 1, 5)]},
            ],
        ),
        "absent": (
            2,
            [
                {"name": "a class in neither truth nor prediction", "args": [_without(_matrices(rng, 2, 4), [2])]},
                {"name": "a class absent from one image only", "args": [_without(_matrices(rng, 2, 3), [2], 1)]},
                {"name": "a class predicted but never true", "args": [invented]},
                {"name": "no counted pixel at all", "args": [torch.zeros(2, 3, 3, dtype=torch.int64)]},
            ],
        ),
    }


def _parts(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    total = matrices.sum(0).double()
    inter = total.diagonal()
    return total, inter, total.sum(0) + total.sum(1) - inter


def mean_of_images(matrices: Tensor) -> float:
    """Each image's mean IoU, then the mean of those."""
    return float(torch.tensor([mean_iou_from_confusion(m) for m in matrices]).double().nanmean())


def mean_of_class_means(matrices: Tensor) -> float:
    """Each class's IoU averaged over the images, then over the classes."""
    inter = matrices.diagonal(dim1=1, dim2=2).double()
    union = matrices.sum(1) + matrices.sum(2) - inter
    return float((inter / union).nanmean(0).nanmean())


def absent_is_zero(matrices: Tensor) -> float:
    """Absent classes count as 0."""
    _, inter, union = _parts(matrices)
    return float((inter / union.clamp(min=1)).mean())


def absent_is_one(matrices: Tensor) -> float:
    """Absent classes count as 1."""
    _, inter, union = _parts(matrices)
    return float(torch.where(union > 0, inter / union, 1.0).mean())


def absent_spoils(matrices: Tensor) -> float:
    """0/0 reaches the mean."""
    _, inter, union = _parts(matrices)
    return float((inter / union).mean())


def absent_by_truth(matrices: Tensor) -> float:
    """Skips classes without a true pixel, even where they are predicted."""
    total, inter, union = _parts(matrices)
    return float((inter / union)[total.sum(1) > 0].mean())


def frequency_weighted(matrices: Tensor) -> float:
    """Frequent classes weigh more."""
    total, inter, union = _parts(matrices)
    return float((total.sum(1) / total.sum() * (inter / union).nan_to_num()).sum())


def pixel_accuracy(matrices: Tensor) -> float:
    """The share of right pixels."""
    total, inter, _ = _parts(matrices)
    return float(inter.sum() / total.sum())


def mean_accuracy(matrices: Tensor) -> float:
    """Divides by the true pixels only."""
    total, inter, _ = _parts(matrices)
    return float((inter / total.sum(1)).nanmean())


def union_is_sum(matrices: Tensor) -> float:
    """Rows plus columns without taking the diagonal off."""
    _, inter, union = _parts(matrices)
    return float((inter / (union + inter)).nanmean())


ABSENT_HINT = "A class with union 0 has no IoU. Leave it out of the sum and out of the number of classes."

exercise = Exercise(
    name="miou",
    points=4,
    cases=cases,
    reference=miou,
    kind="numbers",
    hides=["segedu.metrics.semantic", "segedu.metrics.confusion"],
    wrong=[
        Wrong(
            "mean of image means",
            mean_of_images,
            "You average over images: the mean IoU of a data set comes from the counts of all images together.",
            "Add the matrices first. A small image must not weigh as much as a large one.",
        ),
        Wrong(
            "class means over images",
            mean_of_class_means,
            "You average each class over the images before you average over classes.",
            "Add the matrices first, then divide once for each class.",
        ),
        Wrong("absent is 0", absent_is_zero, "You count a class that occurs nowhere as IoU 0.", ABSENT_HINT),
        Wrong("absent is 1", absent_is_one, "You count a class that occurs nowhere as IoU 1.", ABSENT_HINT),
        Wrong(
            "absent is NaN", absent_spoils, "You let a class that occurs nowhere turn the mean into NaN.", ABSENT_HINT
        ),
        Wrong(
            "absent by truth",
            absent_by_truth,
            "You skip a class that is predicted but never true: it was invented, so its IoU is 0 and counts.",
            "Absent means in neither map: row and column are both 0.",
        ),
        Wrong(
            "frequency weighted",
            frequency_weighted,
            "You weight the classes by their pixels: every class weighs the same here.",
            "That number exists (frequency weighted IoU), but large classes dominate it.",
        ),
        Wrong(
            "pixel accuracy",
            pixel_accuracy,
            "You return the share of right pixels: that is pixel accuracy.",
            "IoU is computed class by class; the mean comes last.",
        ),
        Wrong(
            "class accuracy",
            mean_accuracy,
            "You divide by the true pixels of the class only: false positives cost nothing then.",
            "The union of class k is its row and its column. The row alone leaves something out.",
        ),
        Wrong(
            "union is the sum",
            union_is_sum,
            "You add row and column for the union: the true positives are in it twice.",
            "Even a perfect prediction has only 1/2 this way.",
        ),
    ],
)
