"""confusion_matrix: count the pixels of each (true class, predicted class), without the ignored ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.confusion import confusion_matrix
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def _maps(rng: np.random.Generator, shape: tuple[int, ...], num_classes: int) -> list[Tensor]:
    """Prediction and target, equal in about two thirds of the pixels; 0 is often predicted as 1, 1 never as 0."""
    target = rng.integers(0, num_classes, shape)
    preds = np.where(rng.random(shape) < 0.6, target, rng.integers(0, num_classes, shape))
    flat_target, flat_preds = target.reshape(-1), preds.reshape(-1)
    flat_target[:3], flat_preds[:3] = 0, 1
    flat_target[3:5], flat_preds[3:5] = 1, 1
    flat_preds[(flat_target == 1) & (flat_preds == 0)] = 1
    return [torch.from_numpy(preds), torch.from_numpy(target)]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Batches and single images; ignored pixels, an ignored class, a class that does not occur."""
    core = [
        case("two images, four classes", *_maps(rng, (2, 5, 7), 4), 4, None),
        case("one image, three classes", *_maps(rng, (6, 9), 3), 3, None),
    ]
    preds, target = _maps(rng, (3, 4, 5), 3)
    # the first ignored pixels are predicted as 0, as 1 and as 2: each wrong way to treat them shows
    target.view(-1)[[5, 6, 7, 20, 33]] = 255
    preds.view(-1)[[5, 6, 7, 20, 33]] = torch.tensor([0, 1, 2, 2, 1])
    blank = target.clone()
    blank[1] = 255
    ignored = [
        case("three images, label 255 ignored", preds, target, 3, 255),
        case("one of the images completely ignored", preds, blank, 3, 255),
        case("class 0 ignored", *_maps(rng, (5, 8), 3), 3, 0),
        case("class 2 ignored", *_maps(rng, (4, 9), 4), 4, 2),
    ]
    absent = [case("classes 3 and 4 do not occur", *_maps(rng, (2, 4, 7), 3), 5, 255)]
    return {"core": (2, core), "ignored": (1, ignored), "absent": (1, absent)}


def _pairs(a, labels: Tensor) -> Tensor:
    """K * target + prediction of every pixel whose label is not the ignored one."""
    pairs = a.num_classes * a.target + a.preds
    return pairs.flatten() if a.ignore_index is None else pairs[labels != a.ignore_index]


def transposed(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Let rows be the prediction."""
    return confusion_matrix(preds, target, num_classes, ignore_index).T


def void_as_background(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Count the ignored pixels as class 0."""
    if ignore_index is not None:
        target = torch.where(target == ignore_index, 0, target)
    return confusion_matrix(preds, target, num_classes, None)


def cut_off(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Count everything, and drop what lies beyond K x K."""
    counts = torch.bincount((num_classes * target + preds).flatten(), minlength=num_classes**2)
    return counts[: num_classes**2].reshape(num_classes, num_classes)


def classes_from_data(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Take the number of classes from the maps."""
    if ignore_index is not None:
        preds, target = preds[target != ignore_index], target[target != ignore_index]
    return confusion_matrix(preds, target, int(torch.maximum(preds, target).max()) + 1, None)


def averaged(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Average the matrices of the images."""
    images = zip(preds.reshape(-1, *preds.shape[-2:]), target.reshape(-1, *target.shape[-2:]), strict=True)
    return torch.stack([confusion_matrix(p, t, num_classes, ignore_index) for p, t in images]).double().mean(0)


def _ignores(a) -> bool:
    return a.ignore_index is not None


def _from_one(a) -> Tensor:
    """Count classes 1 to K."""
    keep = (a.preds > 0) & (a.target > 0) & (a.preds <= a.num_classes) & (a.target <= a.num_classes)
    keep = keep & (a.target != a.ignore_index) if _ignores(a) else keep
    return confusion_matrix(a.preds[keep] - 1, a.target[keep] - 1, a.num_classes, None)


def _ignores_predicted(a) -> Tensor:
    keep = a.target < a.num_classes
    keep = keep & (a.preds != a.ignore_index) if _ignores(a) else keep
    return confusion_matrix(a.preds[keep], a.target[keep], a.num_classes, None)


def _rows(labels: Tensor) -> int:
    height, _ = labels.shape
    return height


def _overwritten(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    matrix = confusion_matrix(preds, target, num_classes, ignore_index)
    if ignore_index is not None:
        target[target == ignore_index] = num_classes
    return matrix


BINCOUNT_HINT = "`bincount` stops at the largest value that occurs. It has an argument for the length that you need."
right = Variants(confusion_matrix)

wrong = [
    Wrong(
        "transposed",
        transposed,
        "Your matrix is transposed. Rows must be the ground truth, columns the prediction.",
        "Entry [i, j] counts pixels of true class i. Which of the two maps selects the row in your code?",
    ),
    Wrong(
        "ignored as background",
        void_as_background,
        "You count the ignored pixels as class 0. They must not be counted.",
        "Leave out a pixel whose target is ignore_index from both maps before you count anything.",
    ),
    Wrong(
        "ignored cut off",
        cut_off,
        "You drop ignored pixels only because their label lies beyond the matrix. Compare the target with "
        "ignore_index.",
        "ignore_index can also be one of the classes, such as 0 to leave out the background.",
    ),
    Wrong(
        "ignored by prediction",
        right.instead(
            lambda a: torch.bincount(_pairs(a, a.preds), minlength=a.num_classes**2).reshape(a.num_classes, -1)
        ),
        "You leave out pixels whose prediction is ignore_index. Leave out those whose target is ignore_index.",
        "A network never predicts 255. Which map has to be compared with ignore_index?",
    ),
    Wrong(
        "no minlength",
        right.instead(lambda a: torch.bincount(_pairs(a, a.target)).reshape(a.num_classes, a.num_classes)),
        "Your function raises an error if the last classes do not occur. This looks like a bincount that is too short.",
        BINCOUNT_HINT,
    ),
    Wrong(
        "no minlength, numpy",
        right.instead(lambda a: np.bincount(_pairs(a, a.target).numpy()).reshape(a.num_classes, a.num_classes)),
        "Your function raises an error if the last classes do not occur. This looks like an np.bincount that is too "
        "short.",
        BINCOUNT_HINT,
    ),
    Wrong(
        "classes from the data",
        classes_from_data,
        "You take the number of classes from the labels that occur. Use the argument num_classes.",
        "The matrix is (num_classes, num_classes), even if a class occurs nowhere.",
    ),
    Wrong(
        "averaged over images",
        averaged,
        "You average the matrices of the images. The matrix holds counts, summed over all images.",
        "Each pixel adds 1 to one entry, whichever image it belongs to.",
    ),
    Wrong(
        "shares instead of counts",
        right.then(lambda matrix, a: matrix.double() / matrix.double().sum(1, keepdim=True)),
        "You divide each row by its sum. Return the counts themselves.",
        "Leave the division to the metrics: counts can be added over batches, fractions cannot.",
    ),
    Wrong(
        "ignore_index 0 as None",
        right.given(ignore_index=lambda a: a.ignore_index or None),
        "You use ignore_index as a condition, so you do not ignore class 0. Compare ignore_index with None.",
        "`if ignore_index:` is false for None and for 0.",
    ),
    Wrong(
        "each pair once",
        right.then(lambda matrix, a: matrix.clamp(max=1)),
        "You count each pair of classes at most once. Count all its pixels.",
        "`matrix[target, preds] += 1` adds 1 only once to an entry whose index is repeated. Use bincount or np.add.at.",
    ),
    Wrong(
        "classes from 1",
        right.instead(_from_one),
        "You let the classes start at 1. They are 0 to num_classes - 1.",
        "Row 0 belongs to class 0.",
    ),
    Wrong(
        "ignored are correct",
        right.given(
            target=lambda a: torch.where(a.target == a.ignore_index, a.preds, a.target) if _ignores(a) else a.target
        ),
        "You count ignored pixels as correct pixels of their predicted class. They must not be counted.",
        "Remove these pixels from both maps before you count anything.",
    ),
    Wrong(
        "ignored in the prediction only",
        right.instead(_ignores_predicted),
        "You compare the prediction with ignore_index, and the target only with the classes. Compare the target with "
        "ignore_index.",
        "A network never predicts 255, but ignore_index can also be a class. Which map has to be compared with it?",
    ),
    Wrong(
        "target overwritten",
        _overwritten,
        "You overwrite the ignored pixels in the argument `target`. The caller still needs the map.",
        "Index with a mask, which makes a new tensor, or work on `target.clone()`.",
    ),
    Wrong(
        "two axes only",
        right.instead(
            lambda a: confusion_matrix(a.preds, a.target, a.num_classes, a.ignore_index) + 0 * _rows(a.target)
        ),
        "Your function fails if the maps do not have exactly two axes. They can have any shape.",
        "Flatten both maps first.",
    ),
    Wrong(
        "fractions of rows",
        right.then(lambda matrix, a: matrix / matrix.sum(1, keepdim=True).clamp(min=1)),
        "You divide each row by its sum. Return the counts themselves, also in rows that are not empty.",
        "Leave the division to the metrics: counts can be added over batches, fractions cannot.",
    ),
]

exercise = Exercise(
    name="confusion_matrix",
    points=4,
    cases=cases,
    reference=confusion_matrix,
    wrong=wrong,
    kind="matrix",
    hides=["segedu.metrics.confusion", "segedu.metrics.semantic"],
)
