"""polygon_nms: of several overlapping polygons keep the one with the highest score."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab09_distances.clipping import shared_areas


def polygon_nms(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """Visit polygons in descending order of score; keep each that does not overlap a kept one by too much.

    The overlap of two polygons is the area of their intersection divided by the area of the *smaller* of the two, as in
    StarDist: a small polygon inside a large one overlaps it completely. A polygon without area has overlap 0.

    A polygon is suppressed if its overlap with a polygon that was kept before is above `overlap_threshold`. Suppressed
    polygons do not suppress others. Of equal scores the polygon with the lower index comes first.

    Args:
        polygons: (N, R, 2) floats: the corners (y, x) of each polygon in order, clockwise or not.
        scores: (N,) floats.
        shared: (N, N) floats: `shared[i, j]` is the area of the intersection of polygons i and j, already computed; so
            `shared[i, i]` is the area of polygon i.
        overlap_threshold: in [0, 1].

    Returns:
        (K,) integers: the indices of the kept polygons, in descending order of score.

    Example: polygon 1 has the highest score and lies inside polygon 0, which is suppressed; polygon 2 is alone.

        >>> corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
        >>> polygons = torch.stack([4 * corners, corners, corners + 9])
        >>> shared = torch.tensor([[16.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> polygon_nms(polygons, torch.tensor([0.8, 0.9, 0.5]), shared, 0.4)
        tensor([1, 2])
    """
    return _greedy(_overlaps(shared, torch.minimum) > overlap_threshold, _order(scores))


def _order(scores: Tensor) -> Tensor:
    return scores.argsort(descending=True, stable=True)


def _overlaps(shared: Tensor, of_two: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(N, N): shared area divided by what `of_two` makes of both areas; 0 where that is 0."""
    areas = shared.diagonal()
    whole = of_two(areas[:, None], areas[None])
    return torch.where(whole > 0, shared / whole, 0.0)


def _greedy(too_much: Tensor, order: Tensor) -> Tensor:
    """`too_much` (N, N) bool."""
    kept: list[int] = []
    for i in order.tolist():
        if not too_much[i, kept].any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def _ellipse(middle: tuple[float, float], radii: tuple[float, float], angle: float = 0.0) -> np.ndarray:
    """(8, 2): corners on an ellipse that is rotated by `angle`."""
    angles = np.arange(8) * np.pi / 4
    y, x = radii[0] * np.sin(angles), radii[1] * np.cos(angles)
    return np.stack([np.cos(angle) * y + np.sin(angle) * x, np.cos(angle) * x - np.sin(angle) * y], axis=1) + middle


def _box(top: float, left: float, height: float, width: float) -> np.ndarray:
    """(4, 2): corners of a rectangle."""
    return np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * [height, width] + [top, left]


def _case(name: str, rng: np.random.Generator, parts: list, threshold: float, shuffle: bool = True) -> Case:
    """`parts`: pairs (corners (R, 2), score)."""
    order = rng.permutation(len(parts)) if shuffle else range(len(parts))
    polygons = np.stack([parts[i][0] for i in order])
    scores = torch.tensor([float(parts[i][1]) for i in order], dtype=torch.float64)
    return case(name, torch.from_numpy(polygons), scores, torch.from_numpy(shared_areas(polygons)), threshold)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Polygons that overlap in many ways, and chains of overlaps; see `_edge_cases`."""
    d = float(rng.uniform(-0.2, 0.2))
    high = rng.permutation(np.linspace(0.71, 0.97, 6)) + rng.uniform(-0.02, 0.02, 6)
    low = rng.permutation(np.linspace(0.31, 0.57, 6)) + rng.uniform(-0.02, 0.02, 6)
    crowd = [
        (_ellipse((10, 10), (6, 6)), high[0]),
        (_ellipse((10 + d, 12), (6, 6)), low[0]),  # nearly the same
        (_ellipse((11, 7), (2, 2)), low[1]),  # inside the first
        (_ellipse((10, 21), (5, 6)), low[2]),  # touches the first
        (_ellipse((30, 10), (3, 3), 0.3), high[1]),
        (_ellipse((29, 10 + d), (8, 8)), low[3]),  # a large one around it, with a lower score
        (_ellipse((30, 40), (9, 2.2), 0.8), high[2]),
        (_ellipse((30 + d, 45), (9, 2.2), 0.8), low[4]),  # oblique: bounding boxes overlap, ellipses do not
        (_ellipse((12, 40), (5, 5)), high[3]),
        (_ellipse((12, 45), (5, 5 + d)), low[5]),  # intersection 0.4 of either, 0.25 of the union
    ]
    chain = [(_ellipse((10, 8 + 4 * i), (5 + d, 4)), 0.9 - 0.1 * i) for i in range(5)]
    chain += [(_ellipse((30, 8 + 3.5 * i), (4, 4)), 0.53 + 0.06 * i) for i in range(4)]
    core = [
        _case("a crowd", rng, crowd, 0.35),
        _case("chains", rng, chain, 0.3),
        _case("a crowd, and more overlap", rng, crowd[::-1], 0.75),
    ]
    return {"core": (3, core), "edge": (1, _edge_cases(rng))}


def _edge_cases(rng: np.random.Generator) -> list[Case]:
    top = float(rng.integers(1, 9))
    limits = [  # overlaps of exactly 1/2, and of more
        (_box(top, 0, 4, 8), 0.9),
        (_box(top + 2, 0, 4, 8), 0.8),
        (_box(top, 20, 4, 8), 0.7),
        (_box(top + 1, 21, 2, 4), 0.6),
        (_box(top + 1, 27, 4, 8), 0.5),
    ]
    ties = [(_box(top + 10 * (i // 3), 3 * (i % 3), 4, 6), 0.75 - 0.25 * (i // 6)) for i in range(9)]
    flat = [(_box(top, 0, 4, 8), 0.6), (_box(top + 1, 2, 0, 4), 0.9), (_box(top + 1, 3, 0, 4), 0.8)]
    around = [(_box(top, 0, 4, 8)[::-1], 0.6), (_box(top, 2, 4, 8), 0.9), (_box(top + 1, 4, 2, 2)[::-1], 0.5)]
    around += [(_box(top + 2, 5, 0.5, 1), 0.4), (_box(top + 9, 5, 0.5, 1), 0.3)]
    touching = [(_box(top, 8 * i, 4, 8), 0.5 + 0.1 * i) for i in range(3)] + [(_box(top, 23, 4, 8), 0.3)]
    same = [(_box(top, 3, 4, 6), 0.5), (_box(top, 3, 4, 6), 0.7), (_box(top + 1, 4, 2, 2), 0.6)]
    none = [torch.zeros(shape, dtype=torch.float64) for shape in ((0, 8, 2), 0, (0, 0))]
    return [
        _case("an overlap exactly at the limit", rng, limits, 0.5),
        _case("equal scores", rng, ties, 0.25, shuffle=False),
        _case("polygons without area", rng, flat, 0.4),
        _case("corners in either order", rng, around, 0.4),
        _case("a limit of 0", rng, touching, 0.0),
        _case("a limit of 1", rng, same, 1.0),
        _case("one polygon", rng, limits[:1], 0.4),
        case("no polygon", *none, 0.4),
    ]


right = Variants(polygon_nms)


def _with_overlaps(overlaps: Callable[[SimpleNamespace], Tensor]) -> Callable:
    """`polygon_nms` with other overlaps (N, N)."""
    return right.instead(lambda a: _greedy(overlaps(a) > a.overlap_threshold, _order(a.scores)))


def _of_boxes(a: SimpleNamespace) -> Tensor:
    low, high = a.polygons.amin(dim=1), a.polygons.amax(dim=1)
    sides = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0)
    return _overlaps(sides.prod(dim=2), torch.minimum)


def _with_signed_areas(a: SimpleNamespace) -> Tensor:
    y, x = a.polygons.unbind(dim=2)
    areas = (y * x.roll(-1, 1) - x * y.roll(-1, 1)).sum(dim=1) / 2
    whole = torch.minimum(areas[:, None], areas[None])
    return torch.where(whole != 0, a.shared / whole, 0.0)


def _one_without_area(a: SimpleNamespace) -> Tensor:
    areas = a.shared.diagonal()
    return torch.where(torch.minimum(areas[:, None], areas[None]) == 0, 1.0, _overlaps(a.shared, torch.minimum))


def _compared_with(others: Callable[[list[int], int, list[int]], list[int]]) -> Callable:
    """`polygon_nms` that compares each polygon with others than the kept ones: `others(order, rank, kept)`."""

    def nms(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
        too_much, order = _overlaps(shared, torch.minimum) > overlap_threshold, _order(scores).tolist()
        kept: list[int] = []
        for rank, i in enumerate(order):
            if not too_much[i, others(order, rank, kept)].any():
                kept.append(i)
        return torch.tensor(kept, dtype=torch.int64)

    return nms


WHICH_AREA = "A nucleus of 20 pixels inside one of 100 pixels overlaps it completely: 20 / 20."
ORDER = "scores.argsort(descending=True, stable=True)"

exercise = Exercise(
    name="polygon_nms",
    points=4,
    cases=cases,
    reference=polygon_nms,
    kind="polygons",
    hides=["segedu.instance.stardist", "segedu.ops.polygons"],
    wrong=[
        Wrong(
            "in the order given",
            right.given(scores=lambda a: torch.zeros_like(a.scores)),
            "You visit the polygons in the given order. Visit them in descending order of score.",
            ORDER,
        ),
        Wrong(
            "worst first",
            right.given(scores=lambda a: -a.scores),
            "You begin with the lowest score. Begin with the highest.",
            ORDER,
        ),
        Wrong(
            "largest first",
            right.given(scores=lambda a: a.shared.diagonal()),
            "You visit the polygons in descending order of area. Visit them in descending order of score.",
            ORDER,
        ),
        Wrong(
            "last of equal scores",
            right.given(scores=lambda a: a.scores.argsort(stable=True).argsort()),
            "Among equal scores, you visit the last polygon first. The polygon with the lower index comes first.",
            "Sorting in ascending order and reversing also reverses equal elements. " + ORDER,
        ),
        Wrong(
            "at the limit too",
            right.given(overlap_threshold=lambda a: math.nextafter(a.overlap_threshold, -1)),
            "You suppress a polygon whose overlap equals overlap_threshold. Suppress only above the threshold.",
            "Does your comparison include equality?",
        ),
        Wrong(
            "over the union",
            _with_overlaps(lambda a: _overlaps(a.shared, lambda one, other: one + other - a.shared)),
            "You divide by the area of the union. Divide by the area of the smaller polygon.",
            WHICH_AREA,
        ),
        Wrong(
            "over the larger",
            _with_overlaps(lambda a: _overlaps(a.shared, torch.maximum)),
            "You divide by the area of the larger polygon. Divide by the area of the smaller one.",
            WHICH_AREA,
        ),
        Wrong(
            "over its own area",
            _with_overlaps(lambda a: _overlaps(a.shared, lambda own, kept: own)),
            "You divide by the area of the polygon that may be suppressed. Divide by the smaller of the two areas.",
            WHICH_AREA + " A large polygon around a kept small one overlaps it completely, too.",
        ),
        Wrong(
            "over the kept one's area",
            _with_overlaps(lambda a: _overlaps(a.shared, lambda own, kept: kept)),
            "You divide by the area of the kept polygon. Divide by the smaller of the two areas.",
            WHICH_AREA,
        ),
        Wrong(
            "areas, not shares",
            _with_overlaps(lambda a: a.shared),
            "You compare the shared area itself with the threshold. Divide it by the area of the smaller polygon.",
            WHICH_AREA,
        ),
        Wrong(
            "overlap of boxes",
            _with_overlaps(_of_boxes),
            "You compare bounding boxes. Use the areas that the polygons themselves share, which are in `shared`.",
            "Oblique cells can lie side by side while their bounding boxes overlap.",
        ),
        Wrong(
            "suppresses itself",
            _compared_with(lambda order, rank, kept: order[rank : rank + 1]),
            "Your polygons suppress themselves. Each overlaps itself completely, but only others may suppress it.",
            "Compare a polygon with the kept ones before you add it to them.",
        ),
        Wrong(
            "the gone remove too",
            _compared_with(lambda order, rank, kept: order[:rank]),
            "A suppressed polygon still suppresses others. Only kept polygons do so.",
            "1 suppresses 2. 2 would suppress 3, but it is already suppressed, so 3 is kept.",
        ),
        Wrong(
            "only the last one kept",
            _compared_with(lambda order, rank, kept: kept[-1:]),
            "You compare only with the polygon that was kept last. Compare with all kept polygons.",
            "The list of kept polygons grows, and each of them counts.",
        ),
        Wrong(
            "areas with a sign",
            _with_overlaps(_with_signed_areas),
            "Some of your areas are negative. Areas are positive, whichever way round the corners are listed.",
            "The shoelace formula has a sign. Take its absolute value, or the diagonal of `shared`.",
        ),
        Wrong(
            "0 / 0",
            _with_overlaps(_one_without_area),
            "You suppress polygons without area. Their overlap is 0, so they are kept.",
            "Where the smaller area is 0, the overlap is 0.",
        ),
        Wrong(
            "sorted by index",
            right.then(lambda out, a: out.sort().values),
            "Your indices are in ascending order. Return them in descending order of score.",
            "Append each index to the list when its polygon is kept.",
        ),
        Wrong(
            "bools",
            right.then(lambda out, a: torch.isin(torch.arange(len(a.scores)), out)),
            "You return one bool per polygon. Return the indices of the kept polygons.",
            "A list of indices, the highest score first.",
        ),
        Wrong(
            "places in the sorted list",
            right.then(lambda out, a: torch.isin(_order(a.scores), out).nonzero()[:, 0]),
            "You return positions in the sorted list. Return indices into the arguments.",
            "order[position] is the index.",
        ),
    ],
)
