"""miou: the mean IoU of a data set from the confusion matrices of its images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.semantic import mean_iou_from_confusion
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def miou(matrices: Tensor) -> float:
    """Mean IoU over the classes that occur, of all images together.

    Args:
        matrices: (B, K, K) int64 counts, one matrix per image, rows ground truth.

    Returns:
        A number in [0, 1]; NaN if nothing was counted.
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
    """Images of different sizes; classes absent from one image, from all, from the ground truth only; no counts."""
    only_predicted = _matrices(rng, 2, 3)
    only_predicted[:, 1, :] = 0
    only_predicted[:, :, 1] += 1
    only_predicted[:, 1, 1] = 0
    core = [
        case("two images of different size", _matrices(rng, 2, 3)),
        case("three images, four classes", _matrices(rng, 3, 4)),
        case("one image", _matrices(rng, 1, 5)),
    ]
    absent = [
        case("a class in neither ground truth nor prediction", _without(_matrices(rng, 2, 4), [2])),
        case("a class absent from one image only", _without(_matrices(rng, 2, 3), [2], 1)),
        case("a class predicted but never true", only_predicted),
        case("no counted pixel at all", torch.zeros(2, 3, 3, dtype=torch.int64)),
    ]
    return {"core": (2, core), "absent": (2, absent)}


right = Variants(miou)


def _metric(compute: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable:
    """An answer computed from the summed matrix, and the intersections and unions of its classes."""

    def answer(a):
        matrix = a.matrices.sum(0).double()
        inter = matrix.diagonal()
        return float(compute(matrix, inter, matrix.sum(0) + matrix.sum(1) - inter))

    return right.instead(answer)


def _unless_nothing(compute: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """An answer that is NaN if nothing was counted."""
    return _metric(lambda matrix, inter, union: compute(inter, union) if matrix.any() else torch.tensor(float("nan")))


def mean_of_images(matrices: Tensor) -> float:
    """Average the mean IoU of the images."""
    return float(torch.tensor([mean_iou_from_confusion(m) for m in matrices]).double().nanmean())


def mean_of_class_means(matrices: Tensor) -> float:
    """Average the IoU of each class over the images, then over the classes."""
    inter = matrices.diagonal(dim1=1, dim2=2).double()
    union = matrices.sum(1) + matrices.sum(2) - inter
    return float((inter / union).nanmean(0).nanmean())


ABSENT_HINT = "A class with union 0 has no IoU. Leave it out of the sum and out of the number of classes."

wrong = [
    Wrong(
        "mean of image means",
        mean_of_images,
        "You average the mean IoU of the images. It must come from the counts of all images together.",
        "Add the matrices first. A small image must not weigh as much as a large one.",
    ),
    Wrong(
        "class means over images",
        mean_of_class_means,
        "You average the IoU of each class over the images. It must come from the counts of all images together.",
        "Add the matrices first, then divide once per class.",
    ),
    Wrong(
        "absent is 0",
        _metric(lambda matrix, inter, union: (inter / union.clamp(min=1)).mean()),
        "You count a class that occurs nowhere as IoU 0. Leave it out of the mean.",
        ABSENT_HINT,
    ),
    Wrong(
        "absent is 1",
        _metric(lambda matrix, inter, union: torch.where(union > 0, inter / union, 1.0).mean()),
        "You count a class that occurs nowhere as IoU 1. Leave it out of the mean.",
        ABSENT_HINT,
    ),
    Wrong(
        "absent is NaN",
        _metric(lambda matrix, inter, union: (inter / union).mean()),
        "A class that occurs nowhere turns your mean into NaN. Leave it out of the mean.",
        ABSENT_HINT,
    ),
    Wrong(
        "absent by truth",
        _metric(lambda matrix, inter, union: (inter / union)[matrix.sum(1) > 0].mean()),
        "You skip a class that is predicted but not in the ground truth. Its IoU is 0, and it counts.",
        "A class is absent if both its row and its column are 0.",
    ),
    Wrong(
        "frequency weighted",
        _metric(lambda matrix, inter, union: (matrix.sum(1) / matrix.sum() * (inter / union).nan_to_num()).sum()),
        "You weight the classes by their numbers of pixels. Here every class has the same weight.",
        "This metric exists (frequency-weighted IoU), but large classes dominate it.",
    ),
    Wrong(
        "pixel accuracy",
        _metric(lambda matrix, inter, union: inter.sum() / matrix.sum()),
        "You return the fraction of correct pixels, which is the pixel accuracy. Return the mean IoU.",
        "IoU is computed class by class. The mean comes last.",
    ),
    Wrong(
        "class accuracy",
        _metric(lambda matrix, inter, union: (inter / matrix.sum(1)).nanmean()),
        "You divide by the ground-truth pixels of each class. Divide by the union, which includes false positives.",
        "The union of class k is its row and its column. The row alone leaves something out.",
    ),
    Wrong(
        "union is the sum",
        _metric(lambda matrix, inter, union: (inter / (union + inter)).nanmean()),
        "You use the sum of row and column as the union. It counts the true positives twice.",
        "Even a perfect prediction gets only 1/2 this way.",
    ),
    Wrong(
        "mean precision",
        _metric(lambda matrix, inter, union: (inter / matrix.sum(0).clamp(min=1))[union > 0].mean()),
        "You divide by the predicted pixels of each class, which gives the precision. Divide by the union, which "
        "includes false negatives.",
        "The union of class k is its row and its column. The column alone leaves something out.",
    ),
    Wrong(
        "mean recall",
        _metric(lambda matrix, inter, union: (inter / matrix.sum(1).clamp(min=1))[union > 0].mean()),
        "You divide by the ground-truth pixels of each class, which gives the recall. Divide by the union, which "
        "includes false positives.",
        "The union of class k is its row and its column. The row alone leaves something out.",
    ),
    Wrong(
        "mean Dice",
        _metric(lambda matrix, inter, union: (2 * inter / (union + inter))[union > 0].mean()),
        "You average the Dice coefficients of the classes. Average their IoUs.",
        "IoU has the intersection once in the numerator, and the union in the denominator.",
    ),
    Wrong(
        "one division for all",
        _metric(lambda matrix, inter, union: inter.sum() / union.sum()),
        "You add the intersections and the unions of all classes before you divide. Divide once per class.",
        "The mean over the classes comes last.",
    ),
    Wrong(
        "background left out",
        _metric(lambda matrix, inter, union: (inter / union)[1:][union[1:] > 0].mean()),
        "You leave out class 0. Here it counts like any other class.",
        "The mean is over all classes that occur.",
    ),
    Wrong(
        "0 if nothing counts",
        right.then(lambda out, a: out if a.matrices.any() else 0.0),
        "You return 0 if nothing is counted. Return NaN: there is no class to average.",
        "The mean of an empty set is not defined.",
    ),
    Wrong(
        "nothing raises",
        right.then(lambda out, a: out + 0 / int(a.matrices.sum())),
        "Your function raises an error if nothing is counted. Return NaN.",
        "The mean of an empty set is not defined. Check how many classes occur before you divide.",
    ),
    Wrong(
        "absent is 0, except if all are",
        _unless_nothing(lambda inter, union: (inter / union.clamp(min=1)).mean()),
        "You count a class that occurs nowhere as IoU 0, unless no class occurs. Leave it out of the mean.",
        ABSENT_HINT,
    ),
    Wrong(
        "absent is 1, except if all are",
        _unless_nothing(lambda inter, union: torch.where(union > 0, inter / union, 1.0).mean()),
        "You count a class that occurs nowhere as IoU 1, unless no class occurs. Leave it out of the mean.",
        ABSENT_HINT,
    ),
]

exercise = Exercise(
    name="miou",
    points=4,
    cases=cases,
    reference=miou,
    wrong=wrong,
    kind="numbers",
    hides=["segedu.metrics.semantic", "segedu.metrics.confusion"],
)
