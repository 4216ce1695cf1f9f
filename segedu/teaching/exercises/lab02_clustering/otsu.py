"""otsu: the grey value threshold that maximises the variance between dark and bright pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

LEVELS_PER_BIN = 4  # so that many values lie on an edge between two bins


def otsu(image: Tensor, bins: int) -> float:
    """The centre of the last dark bin, at the first of the best splits.

    Args:
        image: (H, W) float.
        bins: of the histogram from the smallest value to the largest, at least 2.

    Returns:
        A grey value; if all pixels have the same value, that value.
    """
    low, high = float(image.min()), float(image.max())
    if low == high:
        return low
    counts, centres = _histogram(image, bins, low, high)
    return float(centres[_variance_between(counts, centres).argmax()])


def _histogram(image: Tensor, bins: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    counts, edges = np.histogram(image.numpy(), bins, (low, high))
    return counts, (edges[:-1] + edges[1:]) / 2


def _variance_between(counts: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """N^2 times the variance between dark and bright, for the split after each bin but the last."""
    dark, sums = counts.cumsum()[:-1], (counts * centres).cumsum()
    bright = counts.sum() - dark
    return dark * bright * (sums[:-1] / dark - (sums[-1] - sums[:-1]) / bright) ** 2


def _grey(levels: np.ndarray, low: float, step: float) -> Tensor:
    """Levels 0, 1, ... as grey values; low and step are sums of powers of two, so that nothing is rounded."""
    return torch.from_numpy(low + levels * step).float()


def _bimodal(rng: np.random.Generator, shape: tuple[int, int], bins: int, bright_share: float) -> np.ndarray:
    """Levels of an image with dark and bright pixels; the best split is clearly better than the next."""
    top = LEVELS_PER_BIN * bins
    while True:
        dark, bright = rng.normal(0.28, 0.1, shape), rng.normal(0.75, 0.08, shape)
        levels = np.where(rng.random(shape) < bright_share, bright, dark) * top
        levels = levels.round().clip(0, top)
        levels[0, :2] = 0, top
        variances = _variance_between(*_histogram(_grey(levels, 0, 1), bins, 0, top))
        if np.isin(variances[variances > 0.999 * variances.max()], variances.max()).all():
            return levels


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Groups of different size, negative values, two bins; equal splits at empty bins, a constant image.

    The numbers of pixels and of bins are powers of two: shares and edges are exact, and so are ties.
    """
    constant = float(rng.integers(3, 60)) / 64
    apart = np.where(rng.random((8, 16)) < 0.4, rng.integers(23, 33, (8, 16)), rng.integers(0, 10, (8, 16)))
    apart[0, :2] = 0, 8 * LEVELS_PER_BIN
    two = rng.permutation(np.repeat([0.125, 0.75], [40, 24])).reshape(8, 8)
    core = [
        case("a small bright object", _grey(_bimodal(rng, (16, 16), 16, 0.2), 0.0625, 1 / 128), 16),
        case("a small dark object", _grey(_bimodal(rng, (16, 8), 32, 0.8), 0.25, 1 / 256), 32),
        case("values below zero", _grey(_bimodal(rng, (8, 16), 8, 0.35), -24.0, 1.0), 8),
        case("two bins", _grey(_bimodal(rng, (8, 8), 2, 0.5), 0.125, 1 / 16), 2),
    ]
    last = rng.permutation(np.repeat([0, 2, 5, 9, 11, 16], [1, 1, 2, 6, 6, 48])).reshape(8, 8)
    edges = rng.permutation(np.repeat([0, 2, 5, 9, 12, 16], [1, 1, 2, 12, 47, 1])).reshape(8, 8)
    below = rng.permutation(np.repeat([-24, 2, 4, 8], [16, 16, 4, 28])).reshape(8, 8)
    edge = [
        case("empty bins between dark and bright", _grey(apart, 0.125, 1 / 64), 8),
        case("two values only", torch.from_numpy(two).float(), 16),
        case("the bright pixels in the last bin", _grey(last, 0.125, 1 / 64), 4),
        case("the bright pixels on the edge of the last bin", _grey(edges, 0.125, 1 / 64), 4),
        case("a dark group far below zero", torch.from_numpy(below).float(), 8),
        case("one value only", torch.full((8, 4), constant), 8),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(otsu)


def _threshold(choose: Callable[[np.ndarray, np.ndarray], float]) -> Callable:
    """An answer that chooses the threshold by bin centres and variances; right for a constant image."""

    def compute(a):
        low, high = float(a.image.min()), float(a.image.max())
        if low == high:
            return low
        counts, centres = _histogram(a.image, a.bins, low, high)
        return float(choose(centres, _variance_between(counts, centres)))

    return right.instead(compute)


def _if_constant(value: Callable) -> Callable:
    """An answer with another value for a constant image."""
    return right.then(lambda threshold, a: threshold if a.image.min() < a.image.max() else value(a))


def means_only(image: Tensor, bins: int) -> float:
    """Maximise the distance between the two means, whatever the sizes of the groups."""
    low, high = float(image.min()), float(image.max())
    if low == high:
        return low
    counts, centres = _histogram(image, bins, low, high)
    dark = counts.cumsum()[:-1]
    return float(centres[(_variance_between(counts, centres) / (dark * (counts.sum() - dark))).argmax()])


def from_zero(image: Tensor, bins: int) -> float:
    """Start the histogram at 0 instead of the smallest value."""
    high = float(image.max())
    if float(image.min()) == high:
        return high
    counts, centres = _histogram(image, bins, 0.0, high)
    with np.errstate(invalid="ignore"):
        return float(centres[np.nan_to_num(_variance_between(counts, centres)).argmax()])


def _fixed_range(image: Tensor, bins: int) -> float:
    """Let the histogram reach from 0 to 1."""
    low, high = float(image.min()), float(image.max())
    if low == high:
        return low
    counts, centres = _histogram(image, bins, 0.0, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(centres[np.nan_to_num(_variance_between(counts, centres)).argmax()])


def _from_zero_clamped(image: Tensor, bins: int) -> float:
    """Start the histogram at 0, and count what lies outside in the first or the last bin."""
    low, high = float(image.min()), float(image.max())
    if low == high:
        return low
    width = high / bins
    counts = np.bincount((image.numpy() / width).astype(int).clip(0, bins - 1).ravel(), minlength=bins)
    centres = (np.arange(bins) + 0.5) * width
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(centres[np.nan_to_num(_variance_between(counts, centres)).argmax()])


def _by_histogram(choose: Callable[[np.ndarray, np.ndarray], float]) -> Callable:
    """An answer that chooses the threshold by counts and bin centres; right for a constant image."""

    def compute(a):
        low, high = float(a.image.min()), float(a.image.max())
        return low if low == high else float(choose(*_histogram(a.image, a.bins, low, high)))

    return right.instead(compute)


def _unweighted_variances(counts: np.ndarray, centres: np.ndarray) -> float:
    def variance(n: np.ndarray, c: np.ndarray) -> float:
        mean = (n * c).sum() / n.sum()
        return (n * (c - mean) ** 2).sum() / n.sum()

    splits = range(1, len(counts))
    return centres[np.argmin([variance(counts[:t], centres[:t]) + variance(counts[t:], centres[t:]) for t in splits])]


def _unweighted_means(counts: np.ndarray, centres: np.ndarray) -> float:
    splits = range(1, len(counts))
    sizes = np.array([counts[:t].sum() * counts[t:].sum() for t in splits])
    return centres[(sizes * [(centres[:t].mean() - centres[t:].mean()) ** 2 for t in splits]).argmax()]


def _middle_of_means(counts: np.ndarray, centres: np.ndarray) -> float:
    t = _variance_between(counts, centres).argmax() + 1
    return (np.average(centres[:t], weights=counts[:t]) + np.average(centres[t:], weights=counts[t:])) / 2


def _not_squared(counts: np.ndarray, centres: np.ndarray) -> float:
    dark = counts.cumsum()[:-1]
    return centres[np.sqrt(_variance_between(counts, centres) * dark * (counts.sum() - dark)).argmax()]


def _edges_below(image: Tensor, bins: int) -> float:
    """Count a value on an edge in the lower of the two bins."""
    low, high = float(image.min()), float(image.max())
    if low == high:
        return low
    edges = np.linspace(low, high, bins + 1)
    indices = np.clip(np.searchsorted(edges, image.numpy().ravel(), side="left") - 1, 0, bins - 1)
    centres = (edges[:-1] + edges[1:]) / 2
    return float(centres[_variance_between(np.bincount(indices, minlength=bins), centres).argmax()])


CONSTANT_HINT = "Compare the smallest and the largest value before you compute the histogram."
EDGES_HINT = "With edges e, bin k reaches from e[k] to e[k + 1]."
SPLITS_HINT = "An empty bin changes neither group. Which of several equal values does `argmax` return?"

wrong = [
    Wrong(
        "smallest variance between",
        _threshold(lambda centres, variances: centres[variances.argmin()]),
        "You choose the split with the smallest variance between the groups. Choose the largest.",
        "The variance that should be small is the one within the groups.",
    ),
    Wrong(
        "upper edge",
        _threshold(lambda centres, variances: centres[variances.argmax()] + (centres[1] - centres[0]) / 2),
        "You return the upper edge of the bin. Return its centre.",
        EDGES_HINT,
    ),
    Wrong(
        "lower edge",
        _threshold(lambda centres, variances: centres[variances.argmax()] - (centres[1] - centres[0]) / 2),
        "You return the lower edge of the bin. Return its centre.",
        EDGES_HINT,
    ),
    Wrong(
        "next bin",
        _threshold(lambda centres, variances: centres[variances.argmax() + 1]),
        "You return the centre of the first bright bin. The threshold is the centre of the last dark bin.",
        "In a split after bin t, bins 0 to t are dark.",
    ),
    Wrong(
        "first split left out",
        _threshold(lambda centres, variances: centres[1 + variances[1:].argmax() if len(variances) > 1 else 0]),
        "You do not consider the split after the first bin. Compare all splits.",
        "b bins have b - 1 splits. After the first of them, only bin 0 is dark.",
    ),
    Wrong(
        "last of ties",
        _threshold(lambda centres, variances: centres[len(variances) - 1 - variances[::-1].argmax()]),
        "When several splits are equally good, you choose the last one. Choose the first.",
        SPLITS_HINT,
    ),
    Wrong(
        "middle of ties",
        _threshold(lambda centres, variances: centres[:-1][variances == variances.max()].mean()),
        "When several splits are equally good, you average their thresholds. Choose the first.",
        SPLITS_HINT,
    ),
    Wrong(
        "constant is NaN",
        _if_constant(lambda a: float("nan")),
        "You return NaN when all pixels have the same value. Return that value.",
        CONSTANT_HINT,
    ),
    Wrong(
        "constant by numpy",
        _if_constant(lambda a: float(a.image.min()) - 0.5 + 0.5 / a.bins),
        "If all pixels have the same value, you return a bin of the range that `np.histogram` makes up. Return the "
        "value itself.",
        CONSTANT_HINT,
    ),
    Wrong(
        "an empty class",
        _threshold(lambda centres, variances: centres[-1]),
        "You also split after the last bin, where the bright group is empty and you compute 0/0. Leave out this split.",
        "b bins have b - 1 splits, and `argmax` chooses a NaN if there is one.",
    ),
    Wrong(
        "means only",
        means_only,
        "You use only the difference of the two means. The variance between the groups also depends on their sizes.",
        "A single very dark pixel has a mean far from all others. How large is its group?",
    ),
    Wrong(
        "from zero",
        from_zero,
        "Your histogram starts at 0. It must reach from the smallest value of the image to the largest.",
        "Which range do you pass to the histogram?",
    ),
    Wrong(
        "number of the bin",
        _threshold(lambda centres, variances: variances.argmax()),
        "You return the index of a bin. The threshold is a grey value.",
        "Which grey value is the centre of that bin?",
    ),
    Wrong(
        "from 0 to 1",
        _fixed_range,
        "Your histogram reaches from 0 to 1. It must reach from the smallest value of the image to the largest.",
        "Values outside the range of a histogram are not counted.",
    ),
    Wrong(
        "from zero, clamped",
        _from_zero_clamped,
        "Your first bin starts at 0. The bins must reach from the smallest value of the image to the largest.",
        "Subtract the smallest value before you compute the index of a bin.",
    ),
    Wrong(
        "constant is 0",
        _if_constant(lambda a: 0.0),
        "You return 0 when all pixels have the same value. Return that value.",
        CONSTANT_HINT,
    ),
    Wrong(
        "variances not weighted",
        _by_histogram(_unweighted_variances),
        "You minimise the plain sum of the two variances. Weight each by the size of its group.",
        "A group of a few equal pixels has variance 0, however bad the split is.",
    ),
    Wrong(
        "means not weighted",
        _by_histogram(_unweighted_means),
        "Your means are plain means of the bin centres. Weight each centre by the count of its bin.",
        "The mean of a group is the sum of counts times centres, divided by the sum of the counts.",
    ),
    Wrong(
        "256 bins",
        right.given(bins=lambda a: 256),
        "You always use 256 bins. Use the argument `bins`.",
        "With 2 bins there is a single split.",
    ),
    Wrong(
        "one bin too few",
        right.given(bins=lambda a: a.bins - 1),
        "You use one bin too few. Between b + 1 edges there are b bins.",
        "How many edges does your `linspace` return?",
    ),
    Wrong(
        "middle of the means",
        _by_histogram(_middle_of_means),
        "You return the middle between the means of the two groups. Return the centre of the last dark bin.",
        "Otsu's method compares splits between bins.",
    ),
    Wrong(
        "difference not squared",
        _by_histogram(_not_squared),
        "You do not square the difference of the means. The variance between the groups is quadratic in it.",
        "A variance is a mean of squares.",
    ),
    Wrong(
        "edges in the lower bin",
        _edges_below,
        "You count a value on an edge between two bins in the lower one. It belongs to the upper one.",
        "A bin contains its lower edge; only the last bin contains its upper edge, too.",
    ),
]

exercise = Exercise(
    name="otsu",
    points=3,
    cases=cases,
    reference=otsu,
    wrong=wrong,
    kind="mask",
    hides=["segedu.unsupervised.thresholding"],
)
