"""kmeans_step: assign each point to the nearest centre, then move each centre to the mean of its points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

GRID = 8  # coordinates are multiples of 1/8: their squares and sums are exact, and so are ties
Step = tuple[Tensor, Tensor]


def kmeans_step(points: Tensor, centres: Tensor) -> Step:
    """Assign all points, then move the centres; a centre without points keeps its position.

    Args:
        points: (N, D).
        centres: (K, D).

    Returns:
        Labels (N,), int64, and the new centres (K, D).
    """
    labels = _squared_distances(points, centres).argmin(dim=1)
    return labels, _means(points, centres, labels)


def _squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    return ((points[:, None] - centres) ** 2).sum(dim=2)


def _means(points: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    moved = centres.clone()
    for k in labels.unique():
        moved[k] = points[labels == k].mean(dim=0)
    return moved


def _points(rng: np.random.Generator, *shape: int, reach: int = 24) -> Tensor:
    return torch.from_numpy(rng.integers(-reach, reach + 1, shape) / GRID)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Clusters of different spread; points halfway between two centres, centres without points, one of each."""
    tall = _points(rng, 14, 2) * torch.tensor([0.25, 1.0])  # narrow along one axis, wide along the other
    # the last one is nearest to the second centre: only in the edge group may a centre be without points
    fixed = [[1.5, 1.5], [1.5, -1.5], [0.0, 2.0], [-2.75, 1.25], [-3.5, 0.5], [1.5, 3.5]]
    tall = torch.cat([tall, torch.tensor(fixed, dtype=torch.float64)])
    # (1.5, 1.5) is nearer to the first centre by Euclidean and maximum distance, nearer to the second by L1
    middle = torch.tensor([[0.0, 0.0], [1.5, 4.0], [-3.0, 1.0]], dtype=torch.float64)
    ties = torch.cat([_points(rng, 6, 2), torch.tensor([[0.0, 0.5], [0.0, -1.0], [0.0, 2.5]])])
    sides = torch.tensor([[-2.0, 0.5], [2.0, 0.5], [0.0, 9.0]], dtype=torch.float64)
    far = torch.cat([_points(rng, 3, 3), torch.full((2, 3), 9.0).double() + _points(rng, 2, 3)])
    one = _points(rng, 1, 2)
    five = _points(rng, 5, 3, reach=16)
    five[:, 0] = torch.from_numpy(rng.permutation(5) - 2.0)  # no two are the same
    colours, line = torch.cat([_points(rng, 40, 3), five]), torch.tensor([[-1.0], [0.25]]).double()
    core = [
        case("three centres in the plane", tall, middle),
        case("five centres in colour space", colours, five),
        case("points on a line", torch.cat([_points(rng, 12, 1), line]), line),
    ]
    edge = [
        case("points halfway between two centres", ties, sides),
        case("two centres without points", _points(rng, 9, 3), far),
        case("two centres at the same position", _points(rng, 8, 2), one.repeat(2, 1)),
        case("one point, one centre", _points(rng, 1, 4), _points(rng, 1, 4)),
    ]
    return {"core": (2, core), "edge": (2, edge)}


right = Variants(kmeans_step)


def _assigned(choose: Callable[[Tensor], Tensor]) -> Callable:
    """An answer that chooses the labels (N,) by the differences between points and centres, (N, K, D)."""

    def compute(a):
        labels = choose(a.points[:, None] - a.centres)
        return labels, _means(a.points, a.centres, labels)

    return right.instead(compute)


def _empty_becomes(value: float) -> Callable:
    """An answer that writes this value into every centre without points."""

    def change(out, a):
        labels, moved = out
        empty = torch.bincount(labels, minlength=len(a.centres)) == 0
        return labels, torch.where(empty[:, None], value, moved)

    return right.then(change)


def while_assigning(points: Tensor, centres: Tensor) -> Step:
    """Let each point move its centre before the next point is assigned."""
    moved, counts, labels = centres.clone(), [0] * len(centres), []
    for point in points:
        k = int(_squared_distances(point[None], moved).argmin())
        counts[k] += 1
        moved[k] = point if counts[k] == 1 else moved[k] + (point - moved[k]) / counts[k]
        labels.append(k)
    return torch.tensor(labels), moved


def means_of_indices(points: Tensor, centres: Tensor) -> Step:
    """Average the indices of the points."""
    labels, moved = kmeans_step(points, centres)
    for k in labels.unique():
        moved[k] = (labels == k).nonzero().double().mean()
    return labels, moved


def medians(points: Tensor, centres: Tensor) -> Step:
    """Move each centre to the median of its points (k-medians)."""
    labels, moved = kmeans_step(points, centres)
    for k in labels.unique():
        moved[k] = torch.from_numpy(np.median(points[labels == k].numpy(), axis=0))
    return labels, moved


def overwritten(points: Tensor, centres: Tensor) -> Step:
    """Write the new centres into the argument."""
    labels, moved = kmeans_step(points, centres)
    centres.copy_(moved)
    return labels, centres


def _farthest_point(out: Step, a) -> Step:
    """Move a centre without points to the point that is farthest from its own centre."""
    labels, moved = out
    nearest = _squared_distances(a.points, a.centres).amin(dim=1)
    empty = torch.bincount(labels, minlength=len(a.centres)) == 0
    return labels, torch.where(empty[:, None], a.points[nearest.argmax()], moved)


def _each_centre(change: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """An answer that computes each centre that has points from them and from its old position."""

    def compute(a):
        labels, moved = kmeans_step(a.points, a.centres)
        for k in labels.unique():
            moved[k] = change(a.points[labels == k], a.centres[k])
        return labels, moved

    return right.instead(compute)


def _old_centre_included(out: Step, a) -> Step:
    labels, _ = out
    counts = torch.bincount(labels, minlength=len(a.centres))
    sums = a.centres.clone().index_add_(0, labels, a.points.to(a.centres))
    return labels, sums / (counts[:, None] + 1)


def _largest_product(a) -> Step:
    labels = (a.points @ a.centres.to(a.points).T).argmax(dim=1)
    return labels, _means(a.points, a.centres, labels)


EMPTY_HINT = "The mean of no points is 0/0. Change only the centres that have points."

wrong = [
    Wrong(
        "empty cluster is NaN",
        _empty_becomes(torch.nan),
        "A centre without points becomes NaN. It should keep its position.",
        EMPTY_HINT,
    ),
    Wrong(
        "empty cluster is 0",
        _empty_becomes(0.0),
        "A centre without points moves to 0. It should keep its position.",
        EMPTY_HINT,
    ),
    Wrong(
        "empty cluster dropped",
        right.then(lambda out, a: (out[0], out[1][out[0].unique()])),
        "You return fewer centres than you were given. A centre without points keeps its position.",
        EMPTY_HINT,
    ),
    Wrong(
        "L1 distance",
        _assigned(lambda differences: differences.abs().sum(dim=2).argmin(dim=1)),
        "You add absolute differences, which gives the L1 distance. The distance should be Euclidean.",
        "Means minimise squared distances. The L1 distance belongs to medians.",
    ),
    Wrong(
        "largest difference",
        _assigned(lambda differences: differences.abs().amax(dim=2).argmin(dim=1)),
        "You use only the largest difference of any coordinate. The distance should be Euclidean.",
        "How far is (3, 4) from (0, 0)?",
    ),
    Wrong(
        "sign kept",
        _assigned(lambda differences: differences.sum(dim=2).argmin(dim=1)),
        "You add signed differences, which can cancel. The Euclidean distance squares them first.",
        "How far is (1, -1) from (0, 0)?",
    ),
    Wrong(
        "farthest centre",
        _assigned(lambda differences: (differences**2).sum(dim=2).argmax(dim=1)),
        "You assign each point to the farthest centre. It belongs to the nearest.",
        "You need argmin, not argmax.",
    ),
    Wrong(
        "last of ties",
        _assigned(lambda differences: differences.shape[1] - 1 - (differences**2).sum(dim=2).flip(1).argmin(dim=1)),
        "When several centres are equally near to a point, you choose the last one. Choose the first.",
        "`argmin` returns the first of several equal values. In a loop, compare with <, not with <=.",
    ),
    Wrong(
        "moved while assigning",
        while_assigning,
        "You move the centres while you are still assigning points. First assign all points to the old centres.",
        "Use two loops, one after the other. Yours is online k-means, which depends on the order of the points.",
    ),
    Wrong(
        "means of indices",
        means_of_indices,
        "You average the indices of the points. Average the points themselves.",
        "`nonzero()` and `where()` return indices into the list of points.",
    ),
    Wrong(
        "sums",
        right.then(lambda out, a: (out[0], out[1] * out[0].bincount(minlength=len(a.centres)).clamp(min=1)[:, None])),
        "Your centres are the sums of their points. Divide each by its number of points.",
        "A centre moves to the mean of its points.",
    ),
    Wrong(
        "medians",
        medians,
        "Your centres are the medians of their points. k-means uses the mean.",
        "Which function do you apply to the points of one centre?",
    ),
    Wrong(
        "labels of the new centres",
        right.then(lambda out, a: (_squared_distances(a.points, out[1]).argmin(dim=1), out[1])),
        "Your labels belong to the new centres. Return the labels from which the new centres were computed.",
        "One step assigns the points once.",
    ),
    Wrong(
        "centres unmoved",
        right.then(lambda out, a: (out[0], a.centres.clone())),
        "You return the old centres. After assigning the points, move each centre to the mean of its points.",
        "A step has two halves: assign and update.",
    ),
    Wrong(
        "centres overwritten",
        overwritten,
        "You write the new centres into the argument `centres`. Copy it first, because the caller still needs it.",
        "`clone()` makes a copy.",
    ),
    Wrong(
        "divided by all points",
        right.then(
            lambda out, a: (
                out[0],
                torch.where(
                    (out[0].bincount(minlength=len(a.centres)) > 0)[:, None],
                    out[1] * out[0].bincount(minlength=len(a.centres))[:, None] / len(a.points),
                    out[1],
                ),
            )
        ),
        "You divide the sum of a centre's points by the number of all points. Divide by the number of its own points.",
        "A centre moves to the mean of its points.",
    ),
    Wrong(
        "first coordinate only",
        _assigned(lambda differences: differences[:, :, 0].abs().argmin(dim=1)),
        "You compare only the first coordinate of points and centres. The Euclidean distance uses all of them.",
        "How far is (0, 5) from (0, 0)?",
    ),
    Wrong(
        "largest dot product",
        right.instead(_largest_product),
        "You assign each point to the centre with the largest dot product. It belongs to the nearest centre.",
        "|x - c|^2 = |x|^2 - 2 x c + |c|^2. Which of the terms differ between centres?",
    ),
    Wrong(
        "old centre included",
        right.then(_old_centre_included),
        "You include the old centre in the mean, like one more point. Average only the points.",
        "A centre without points is the only one that its old position determines.",
    ),
    Wrong(
        "results exchanged",
        right.then(lambda out, a: (out[1], out[0])),
        "You return the centres first. Return the labels first, then the centres.",
        "Read the last lines of the docstring again.",
    ),
    Wrong(
        "empty cluster to the farthest point",
        right.then(_farthest_point),
        "You move a centre without points to the point that is farthest from its centre. It should keep its position.",
        EMPTY_HINT,
    ),
    Wrong(
        "lower medians",
        _each_centre(lambda points, centre: points.median(dim=0).values),
        "Your centres are the lower medians of their points. k-means uses the mean.",
        "Which function do you apply to the points of one centre?",
    ),
    Wrong(
        "one mean for all coordinates",
        _each_centre(lambda points, centre: points.mean().expand(points.shape[1])),
        "You average over the points and the coordinates, so all coordinates of a centre are equal. Average each "
        "coordinate by itself.",
        "`mean(dim=0)` averages over the points only.",
    ),
]

exercise = Exercise(
    name="kmeans_step",
    points=4,
    cases=cases,
    reference=kmeans_step,
    wrong=wrong,
    kind="points",
    hides=["segedu.unsupervised.kmeans"],
)
