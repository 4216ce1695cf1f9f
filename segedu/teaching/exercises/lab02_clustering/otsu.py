"""otsu: the threshold that parts dark from bright with the largest variance between the two."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

STEPS = 4  # values in a bin, so that many lie on an edge


def otsu(image: Tensor, bins: int) -> float:
    """The centre of the last dark bin, at the first of the best splits.

    Args:
        image: (H, W) float.
        bins: of the histogram from the smallest value to the largest, at least 2.

    Returns:
        A grey value; the image's own where all its pixels have the same.
    """
    low, high = float(image.min()), float(image.max())
    if low == high:
        return low
    counts, centres = _histogram(image, bins, low, high)
    return float(centres[_between(counts, centres).argmax()])


def _histogram(image: Tensor, bins: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    counts, edges = np.histogram(image.numpy(), bins, (low, high))
    return counts, (edges[:-1] + edges[1:]) / 2


def _between(counts: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """N^2 times the variance between the classes, of the split behind each bin but the last."""
    dark, sums = counts.cumsum()[:-1], (counts * centres).cumsum()
    bright = counts.sum() - dark
    return dark * bright * (sums[:-1] / dark - (sums[-1] - sums[:-1]) / bright) ** 2


def _grey(levels: np.ndarray, low: float, step: float) -> Tensor:
    """Levels 0, 1, ... as grey values; low and step are sums of powers of two, so that nothing is rounded."""
    return torch.from_numpy(low + levels * step).float()


def _two_humps(rng: np.random.Generator, shape: tuple[int, int], bins: int, share: float) -> np.ndarray:
    """Levels of a picture with a dark and a bright part; the best split is clearly better than the next."""
    top = STEPS * bins
    while True:
        dark, bright = rng.normal(0.28, 0.1, shape), rng.normal(0.75, 0.08, shape)
        levels = np.where(rng.random(shape) < share, bright, dark) * top
        levels = levels.round().clip(0, top)
        levels[0, :2] = 0, top
        between = _between(*_histogram(_grey(levels, 0, 1), bins, 0, top))
        if np.isin(between[between > 0.999 * between.max()], between.max()).all():
            return levels


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Humps of different size, negative values, two bins; equal splits at empty bins, a constant image.

    The numbers of pixels and of bins are powers of two: shares and edges are exact, and so are ties.

    Args:
        rng: of the pixels.

    Returns:
        The cases by group.
    """
    flat = float(rng.integers(3, 60)) / 64
    apart = np.where(rng.random((8, 16)) < 0.4, rng.integers(23, 33, (8, 16)), rng.integers(0, 10, (8, 16)))
    apart[0, :2] = 0, 8 * STEPS
    two = rng.permutation(np.repeat([0.125, 0.75], [40, 24])).reshape(8, 8)
    few = _two_humps(rng, (16, 16), 16, 0.2)
    return {
        "core": (
            2,
            [
                {"name": "a small bright object", "args": [_grey(few, 0.0625, 1 / 128), 16]},
                {"name": "a small dark object", "args": [_grey(_two_humps(rng, (16, 8), 32, 0.8), 0.25, 1 / 256), 32]},
                {"name": "values below zero", "args": [_grey(_two_humps(rng, (8, 16), 8, 0.35), -24.0, 1.0), 8]},
                {"name": "two bins", "args": [_grey(_two_humps(rng, (8, 8), 2, 0.5), 0.125, 1 / 16), 2]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "empty bins between dark and bright", "args": [_grey(apart, 0.125, 1 / 64), 8]},
                {"name": "two values only", "args": [torch.from_numpy(two).float(), 16]},
                {"name": "one value only", "args": [torch.full((8, 4), flat), 8]},
            ],
        ),
    }


def _best(image: Tensor, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres and the values of all splits; a constant image has one bin and no split."""
    low, high = float(image.min()), float(image.max())
    if low == high:
        return np.array([low]), np.zeros(0)
    counts, centres = _histogram(image, bins, low, high)
    return centres, _between(counts, centres)


def smallest_variance(image: Tensor, bins: int) -> float:
    """The worst split."""
    centres, between = _best(image, bins)
    return float(centres[between.argmin() if len(between) else 0])


def upper_edge(image: Tensor, bins: int) -> float:
    """Half a bin too high."""
    centres, between = _best(image, bins)
    return float(centres[between.argmax()] + (centres[1] - centres[0]) / 2) if len(between) else float(centres[0])


def lower_edge(image: Tensor, bins: int) -> float:
    """Half a bin too low, as with the edges that numpy.histogram returns."""
    centres, between = _best(image, bins)
    return float(centres[between.argmax()] - (centres[1] - centres[0]) / 2) if len(between) else float(centres[0])


def next_bin(image: Tensor, bins: int) -> float:
    """The first bright bin."""
    centres, between = _best(image, bins)
    return float(centres[between.argmax() + 1]) if len(between) else float(centres[0])


def last_of_ties(image: Tensor, bins: int) -> float:
    """The last of equal splits."""
    centres, between = _best(image, bins)
    return float(centres[len(between) - 1 - between[::-1].argmax()]) if len(between) else float(centres[0])


def middle_of_ties(image: Tensor, bins: int) -> float:
    """The mean over equal splits, as some libraries do."""
    centres, between = _best(image, bins)
    return float(centres[:-1][between == between.max()].mean()) if len(between) else float(centres[0])


def constant_is_nan(image: Tensor, bins: int) -> float:
    """0/0 where all pixels are equal."""
    return otsu(image, bins) if image.min() < image.max() else float("nan")


def constant_by_numpy(image: Tensor, bins: int) -> float:
    """numpy.histogram makes a range of its own, half a unit to each side."""
    return otsu(image, bins) if image.min() < image.max() else float(image.min()) - 0.5 + 0.5 / bins


def empty_class(image: Tensor, bins: int) -> float:
    """Splits behind the last bin too; 0/0 is NaN, and numpy's argmax takes NaN for the largest."""
    centres, _ = _best(image, bins)
    return float(centres[-1])


def unweighted(image: Tensor, bins: int) -> float:
    """The distance of the two means alone."""
    low, high = float(image.min()), float(image.max())
    if low == high:
        return low
    counts, centres = _histogram(image, bins, low, high)
    dark = counts.cumsum()[:-1]
    return float(centres[(_between(counts, centres) / (dark * (counts.sum() - dark))).argmax()])


def from_zero(image: Tensor, bins: int) -> float:
    """The histogram begins at 0, whatever the smallest value is."""
    high = float(image.max())
    if float(image.min()) == high:
        return high
    counts, centres = _histogram(image, bins, 0.0, high)
    with np.errstate(invalid="ignore"):
        return float(centres[np.nan_to_num(_between(counts, centres)).argmax()])


def number_of_the_bin(image: Tensor, bins: int) -> float:
    """An index, not a grey value."""
    centres, between = _best(image, bins)
    return float(between.argmax()) if len(between) else float(centres[0])


FLAT = "Look at the smallest and the largest value before you make a histogram of them."
CENTRE = "With edges e, bin k reaches from e[k] to e[k + 1]."

exercise = Exercise(
    name="otsu",
    points=3,
    cases=cases,
    reference=otsu,
    kind="mask",
    hides=["segedu.unsupervised.thresholding"],
    wrong=[
        Wrong(
            "smallest variance between",
            smallest_variance,
            "You take the split with the smallest variance between the classes: you want them far apart.",
            "It is the variance within the classes that should be small.",
        ),
        Wrong("upper edge", upper_edge, "You return the upper edge of the bin, not its centre.", CENTRE),
        Wrong("lower edge", lower_edge, "You return the lower edge of the bin, not its centre.", CENTRE),
        Wrong(
            "next bin",
            next_bin,
            "You return the first bright bin: the threshold is the centre of the last dark one.",
            "In a split behind bin t, bins 0 to t are dark.",
        ),
        Wrong(
            "last of ties",
            last_of_ties,
            "Where several splits are equally good, you take the last: the statement asks for the first.",
            "An empty bin changes neither class. Which of two equal values does argmax find?",
        ),
        Wrong(
            "middle of ties",
            middle_of_ties,
            "Where several splits are equally good, you average over them: the statement asks for the first.",
            "An empty bin changes neither class.",
        ),
        Wrong("constant is NaN", constant_is_nan, "You return NaN where all pixels have the same value.", FLAT),
        Wrong(
            "constant by numpy",
            constant_by_numpy,
            "Where all pixels are equal, numpy.histogram makes up a range, and you return one of its bins.",
            FLAT,
        ),
        Wrong(
            "an empty class",
            empty_class,
            "You also split behind the last bin, where nothing is bright: 0/0 is NaN, and argmax takes it for largest.",
            "With b bins there are b - 1 splits.",
        ),
        Wrong(
            "means only",
            unweighted,
            "You compare the two means only: the variance between the classes also weighs them by their pixels.",
            "A single very dark pixel has a mean far from the rest. How many pixels would change their place?",
        ),
        Wrong(
            "from zero",
            from_zero,
            "Your histogram begins at 0: it should reach from the smallest value to the largest.",
            "Which range have you given to the histogram?",
        ),
        Wrong(
            "number of the bin",
            number_of_the_bin,
            "You return the number of a bin: the threshold is a grey value.",
            "Which grey value is the centre of that bin?",
        ),
    ],
)
