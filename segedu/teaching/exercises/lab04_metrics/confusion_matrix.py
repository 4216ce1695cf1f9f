"""confusion_matrix: count the pixels of each (true class, predicted class), without the ignored ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.confusion import confusion_matrix
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def _maps(rng: np.random.Generator, shape: tuple[int, ...], num_classes: int) -> tuple[Tensor, Tensor]:
    """Two maps that agree in about two thirds of the pixels; 0 is often taken for 1, 1 never for 0."""
    target = rng.integers(0, num_classes, shape)
    preds = np.where(rng.random(shape) < 0.6, target, rng.integers(0, num_classes, shape))
    flat_target, flat_preds = target.reshape(-1), preds.reshape(-1)
    flat_target[:3], flat_preds[:3] = 0, 1
    flat_target[3:5], flat_preds[3:5] = 1, 1
    flat_preds[(flat_target == 1) & (flat_preds == 0)] = 1
    return torch.from_numpy(preds), torch.from_numpy(target)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Batches and single images; ignored pixels, an ignored class, a class that does not occur.

    Args:
        rng: of the drawn maps.

    Returns:
        The cases by group.
    """
    batch = _maps(rng, (2, 5, 7), 4)
    single = _maps(rng, (6, 9), 3)
    preds, target = _maps(rng, (3, 4, 5), 3)
    # the first ignored pixels are predicted as 0, as 1 and as 2: each wrong way to treat them shows
    target.view(-1)[[5, 6, 7, 20, 33]] = 255
    preds.view(-1)[[5, 6, 7, 20, 33]] = torch.tensor([0, 1, 2, 2, 1])
    blank = target.clone()
    blank[1] = 255
    background = _maps(rng, (5, 8), 3)
    missing = _maps(rng, (2, 4, 7), 3)
    return {
        "core": (
            2,
            [
                {"name": "two images, four classes", "args": [*batch, 4, None]},
                {"name": "one image, three classes", "args": [*single, 3, None]},
            ],
        ),
        "ignored": (
            1,
            [
                {"name": "three images, label 255 ignored", "args": [preds, target, 3, 255]},
                {"name": "an image that is ignored whole", "args": [preds, blank, 3, 255]},
                {"name": "class 0 ignored", "args": [*background, 3, 0]},
            ],
        ),
        "absent": (1, [{"name": "classes 3 and 4 do not occur", "args": [*missing, 5, 255]}]),
    }


def _kept(preds: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    if ignore_index is None:
        return preds.flatten(), target.flatten()
    return preds[target != ignore_index], target[target != ignore_index]


def transposed(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Rows are the prediction."""
    return confusion_matrix(preds, target, num_classes, ignore_index).T


def void_as_background(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """The ignored pixels become class 0 and are counted."""
    if ignore_index is not None:
        target = torch.where(target == ignore_index, 0, target)
    return confusion_matrix(preds, target, num_classes, None)


def cut_off(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Everything is counted, and what lies beyond K x K is cut off."""
    counts = torch.bincount((num_classes * target + preds).flatten(), minlength=num_classes**2)
    return counts[: num_classes**2].reshape(num_classes, num_classes)


def ignored_by_prediction(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Leaves out the pixels whose prediction is the ignored label."""
    target, preds = _kept(target, preds, ignore_index)
    return torch.bincount(num_classes * target + preds, minlength=num_classes**2).reshape(num_classes, -1)


def no_minlength(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Forgets that bincount stops at the largest number that occurs."""
    preds, target = _kept(preds, target, ignore_index)
    return torch.bincount(num_classes * target + preds).reshape(num_classes, num_classes)


def no_minlength_numpy(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> np.ndarray:
    """The same with numpy, which raises another error."""
    preds, target = _kept(preds, target, ignore_index)
    return np.bincount((num_classes * target + preds).numpy()).reshape(num_classes, num_classes)


def classes_from_data(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Takes the number of classes from the maps."""
    preds, target = _kept(preds, target, ignore_index)
    return confusion_matrix(preds, target, int(torch.cat([preds, target]).max()) + 1, None)


def averaged(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """One matrix an image, then their mean."""
    images = zip(preds.reshape(-1, *preds.shape[-2:]), target.reshape(-1, *target.shape[-2:]), strict=True)
    return torch.stack([confusion_matrix(p, t, num_classes, ignore_index) for p, t in images]).double().mean(0)


def row_shares(preds: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Divides each row by its sum."""
    counts = confusion_matrix(preds, target, num_classes, ignore_index).double()
    return counts / counts.sum(1, keepdim=True)


exercise = Exercise(
    name="confusion_matrix",
    points=4,
    cases=cases,
    reference=confusion_matrix,
    kind="matrix",
    hides=["segedu.metrics.confusion", "segedu.metrics.semantic"],
    wrong=[
        Wrong(
            "transposed",
            transposed,
            "Your matrix is transposed: rows are the truth, columns the prediction.",
            "Entry [i, j] counts pixels of true class i. Which of the two maps picks the row in your code?",
        ),
        Wrong(
            "ignored as background",
            void_as_background,
            "You count the ignored pixels as class 0.",
            "A pixel whose target is ignore_index must be left out of both maps before anything is counted.",
        ),
        Wrong(
            "ignored cut off",
            cut_off,
            "You drop ignored pixels only because their number lies beyond the matrix.",
            "ignore_index may be one of the classes: 0, to leave out the background. Compare with it.",
        ),
        Wrong(
            "ignored by prediction",
            ignored_by_prediction,
            "You leave out pixels by their prediction: the ignored label is in the target.",
            "A network never predicts 255. Which map has to be compared with ignore_index?",
        ),
        Wrong(
            "no minlength",
            no_minlength,
            "Your bincount is too short when the last classes do not occur.",
            "bincount stops at the largest number it meets. It has an argument for the length you need.",
        ),
        Wrong(
            "no minlength, numpy",
            no_minlength_numpy,
            "Your np.bincount is too short when the last classes do not occur.",
            "bincount stops at the largest number it meets. It has an argument for the length you need.",
        ),
        Wrong(
            "classes from the data",
            classes_from_data,
            "You take the number of classes from the labels that occur.",
            "The matrix is (num_classes, num_classes) even if a class occurs nowhere.",
        ),
        Wrong(
            "averaged over images",
            averaged,
            "You average the matrices of the images: the matrix holds counts, added over all images.",
            "Each pixel adds one to one entry, whichever image it is in.",
        ),
        Wrong(
            "shares instead of counts",
            row_shares,
            "You return the share of each row: the matrix holds counts.",
            "Leave the division to the metrics: counts can be added over batches, shares cannot.",
        ),
    ],
)
