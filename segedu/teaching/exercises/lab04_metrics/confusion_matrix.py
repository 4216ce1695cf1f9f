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
