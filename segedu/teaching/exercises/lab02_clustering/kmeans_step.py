"""kmeans_step: give each point to the nearest centre, then move each centre to the mean of its points."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

GRID = 8  # coordinates are multiples of 1/8: squares and sums of them are exact, and so are ties


def kmeans_step(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Assign, then update; a centre without points stays where it is.

    Args:
        points: (N, D).
        centres: (K, D).

    Returns:
        Labels (N,), int64, and the new centres (K, D).
    """
    labels = _squared(points, centres).argmin(dim=1)
    return labels, _means(points, centres, labels)


def _squared(points: Tensor, centres: Tensor) -> Tensor:
    return ((points[:, None] - centres) ** 2).sum(dim=2)


def _means(points: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    moved = centres.clone()
    for k in labels.unique():
        moved[k] = points[labels == k].mean(dim=0)
    return moved


def _places(rng: np.random.Generator, *shape: int, reach: int = 24) -> Tensor:
    return torch.from_numpy(rng.integers(-reach, reach + 1, shape) / GRID)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Clusters of different spread; a point half-way between two centres, centres without points, one of each.

    Args:
        rng: of the points.

    Returns:
        The cases by group.
    """
    tall = _places(rng, 14, 2) * torch.tensor([0.25, 1.0])  # along one axis far, along the other near
    # the last one is of the second centre: only in the edge group may a centre be without points
    fixed = [[1.5, 1.5], [1.5, -1.5], [0.0, 2.0], [-2.75, 1.25], [-3.5, 0.5], [1.5, 3.5]]
    tall = torch.cat([tall, torch.tensor(fixed, dtype=torch.float64)])
    # from (1.5, 1.5) it is 1.5 + 1.5 to the first and 2.5 to the second centre: L1 and the largest step disagree
    middle = torch.tensor([[0.0, 0.0], [1.5, 4.0], [-3.0, 1.0]], dtype=torch.float64)
    ties = torch.cat([_places(rng, 6, 2), torch.tensor([[0.0, 0.5], [0.0, -1.0], [0.0, 2.5]])])
    sides = torch.tensor([[-2.0, 0.5], [2.0, 0.5], [0.0, 9.0]], dtype=torch.float64)
    far = torch.cat([_places(rng, 3, 3), torch.full((2, 3), 9.0).double() + _places(rng, 2, 3)])
    one = _places(rng, 1, 2)
    five = _places(rng, 5, 3, reach=16)
    five[:, 0] = torch.from_numpy(rng.permutation(5) - 2.0)  # no two are the same
    colours, line = torch.cat([_places(rng, 40, 3), five]), torch.tensor([[-1.0], [0.25]]).double()
    return {
        "core": (
            2,
            [
                {"name": "three centres in the plane", "args": [tall, middle]},
                {"name": "five centres in colour space", "args": [colours, five]},
                {"name": "points on a line", "args": [torch.cat([_places(rng, 12, 1), line]), line]},
            ],
        ),
        "edge": (
            2,
            [
                {"name": "points half-way between two centres", "args": [ties, sides]},
                {"name": "two centres without points", "args": [_places(rng, 9, 3), far]},
                {"name": "two centres at the same place", "args": [_places(rng, 8, 2), one.repeat(2, 1)]},
                {"name": "one point, one centre", "args": [_places(rng, 1, 4), _places(rng, 1, 4)]},
            ],
        ),
    }


def _with(points: Tensor, centres: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return labels, _means(points, centres, labels)


def by_l1(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """City blocks."""
    return _with(points, centres, (points[:, None] - centres).abs().sum(dim=2).argmin(dim=1))


def by_largest_step(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The largest difference of any coordinate."""
    return _with(points, centres, (points[:, None] - centres).abs().amax(dim=2).argmin(dim=1))


def unsquared(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Differences with their sign: they cancel."""
    return _with(points, centres, (points[:, None] - centres).sum(dim=2).argmin(dim=1))


def farthest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """argmax for argmin."""
    return _with(points, centres, _squared(points, centres).argmax(dim=1))


def last_of_ties(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The last of equally near centres."""
    distance = _squared(points, centres)
    return _with(points, centres, len(centres) - 1 - distance.flip(1).argmin(dim=1))


def empty_is_nan(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """0/0 for a centre without points."""
    labels, moved = kmeans_step(points, centres)
    moved[torch.bincount(labels, minlength=len(centres)) == 0] = torch.nan
    return labels, moved


def empty_is_zero(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """A centre without points jumps to the origin."""
    labels, moved = kmeans_step(points, centres)
    moved[torch.bincount(labels, minlength=len(centres)) == 0] = 0
    return labels, moved


def empty_is_dropped(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Fewer centres come back."""
    labels, moved = kmeans_step(points, centres)
    return labels, moved[labels.unique()]


def while_assigning(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Each point moves its centre before the next point is looked at."""
    moved, counts, labels = centres.clone(), [0] * len(centres), []
    for point in points:
        k = int(_squared(point[None], moved).argmin())
        counts[k] += 1
        moved[k] = point if counts[k] == 1 else moved[k] + (point - moved[k]) / counts[k]
        labels.append(k)
    return torch.tensor(labels), moved


def means_of_indices(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Averages the numbers of the points, not the points."""
    labels, moved = kmeans_step(points, centres)
    for k in labels.unique():
        moved[k] = (labels == k).nonzero().double().mean()
    return labels, moved


def sums(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Forgets to divide."""
    labels, moved = kmeans_step(points, centres)
    counts = torch.bincount(labels, minlength=len(centres))[:, None]
    return labels, torch.where(counts > 0, moved * counts, moved)


def medians(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """k-medians."""
    labels, moved = kmeans_step(points, centres)
    for k in labels.unique():
        moved[k] = torch.from_numpy(np.median(points[labels == k].numpy(), axis=0))
    return labels, moved


def labels_afterwards(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Assigns a second time, to the new centres."""
    _, moved = kmeans_step(points, centres)
    return _squared(points, moved).argmin(dim=1), moved


def centres_unmoved(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Half a step."""
    return kmeans_step(points, centres)[0], centres.clone()


EMPTY = "A mean over no points is 0/0. Change only the centres that have points."

exercise = Exercise(
    name="kmeans_step",
    points=4,
    cases=cases,
    reference=kmeans_step,
    kind="points",
    hides=["segedu.unsupervised.kmeans"],
    wrong=[
        Wrong("empty cluster is NaN", empty_is_nan, "A centre without points becomes NaN: it should stay.", EMPTY),
        Wrong("empty cluster is 0", empty_is_zero, "A centre without points jumps to 0: it should stay.", EMPTY),
        Wrong(
            "empty cluster dropped",
            empty_is_dropped,
            "You return fewer centres than you were given: one without points stays where it is.",
            EMPTY,
        ),
        Wrong(
            "L1 distance",
            by_l1,
            "You add absolute differences: the distance is the Euclidean one, of squared differences.",
            "Means minimise squared distances. City blocks belong to medians.",
        ),
        Wrong(
            "largest difference",
            by_largest_step,
            "You look at the largest difference of any coordinate: all of them count, squared and added.",
            "How far is (3, 4) from (0, 0)?",
        ),
        Wrong(
            "sign kept",
            unsquared,
            "You add differences with their sign: they cancel. Square them first.",
            "How far is (1, -1) from (0, 0)?",
        ),
        Wrong("farthest centre", farthest, "You give each point to the farthest centre.", "argmin, not argmax."),
        Wrong(
            "last of ties",
            last_of_ties,
            "A point that is as far from two centres goes to the last of them: the first is asked for.",
            "argmin finds the first of equal values. Do you need <= where < would do?",
        ),
        Wrong(
            "moved while assigning",
            while_assigning,
            "You move the centres while you still assign: all points are assigned to the old ones first.",
            "Two loops, one after the other. What you have is an online k-means, which depends on the order.",
        ),
        Wrong(
            "means of indices",
            means_of_indices,
            "You average the numbers of the points, not the points.",
            "nonzero() and where() give places in the list; the points are found there.",
        ),
        Wrong("sums", sums, "Your centres are sums: divide by the number of their points.", "The mean."),
        Wrong(
            "medians",
            medians,
            "Your centres are medians: k-means takes the mean.",
            "torch.median and torch.mean differ in more than a letter.",
        ),
        Wrong(
            "labels of the new centres",
            labels_afterwards,
            "Your labels belong to the new centres: they should be those that made them.",
            "One step assigns once.",
        ),
        Wrong(
            "centres unmoved",
            centres_unmoved,
            "You return the old centres: after assigning, move each to the mean of its points.",
            "A step has two halves.",
        ),
    ],
)
