"""polygon_nms: of polygons that overlap keep the best."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.exercises.lab09_distances.clipping import shared_areas


def polygon_nms(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """Go through polygons from the highest score down; keep each that does not overlap a kept one by too much.

    The overlap of two polygons is the area that they share over the area of the *smaller* of the two, as in StarDist:
    a small polygon inside of a large one overlaps it fully. A polygon without area overlaps nothing: 0.

    A polygon goes if its overlap with one that was kept before is above `overlap_threshold`; what has gone removes
    nobody. Of equal scores the polygon with the lower index comes first.

    Args:
        polygons: (N, R, 2) floats: the corners (y, x) of each polygon in order, one way round or the other.
        scores: (N,) floats.
        shared: (N, N) floats: `shared[i, j]` is the area that polygons i and j have in common, already computed; so
            `shared[i, i]` is the whole area of polygon i.
        overlap_threshold: in [0, 1].

    Returns:
        (K,) integers: the indices of the polygons that are kept, the highest score first.

    Example: polygon 1 is the best and lies inside of 0, so 0 goes; 2 is alone.

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
    """(N, N): the shared area over what `of_two` makes of both areas; 0 where that is 0."""
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


def _ellipse(middle: tuple[float, float], radii: tuple[float, float], turn: float = 0.0) -> np.ndarray:
    """(8, 2): corners of an ellipse, the first one turned by `turn`."""
    angles = np.arange(8) * np.pi / 4
    y, x = radii[0] * np.sin(angles), radii[1] * np.cos(angles)
    return np.stack([np.cos(turn) * y + np.sin(turn) * x, np.cos(turn) * x - np.sin(turn) * y], axis=1) + middle


def _box(top: float, left: float, height: float, width: float) -> np.ndarray:
    """(4, 2): corners of a rectangle."""
    return np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * [height, width] + [top, left]


def _case(name: str, rng: np.random.Generator, parts: list, threshold: float, mixed: bool = True) -> Case:
    """`parts`: pairs (corners (R, 2), score); mixed: their order is drawn."""
    order = rng.permutation(len(parts)) if mixed else range(len(parts))
    polygons = np.stack([parts[i][0] for i in order])
    scores = torch.tensor([float(parts[i][1]) for i in order], dtype=torch.float64)
    args = [torch.from_numpy(polygons), scores, torch.from_numpy(shared_areas(polygons)), threshold]
    return {"name": name, "args": args}


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Crowds, small inside of large, slanting neighbours, chains; ties, limits met exactly, no area, nothing.

    Args:
        rng: of places, scores and the order of polygons.

    Returns:
        The cases by group.
    """
    d = float(rng.uniform(-0.2, 0.2))
    high = rng.permutation(np.linspace(0.71, 0.97, 6)) + rng.uniform(-0.02, 0.02, 6)
    low = rng.permutation(np.linspace(0.31, 0.57, 6)) + rng.uniform(-0.02, 0.02, 6)
    crowd = [
        (_ellipse((10, 10), (6, 6)), high[0]),
        (_ellipse((10 + d, 12), (6, 6)), low[0]),  # nearly the same
        (_ellipse((11, 7), (2, 2)), low[1]),  # inside of the first
        (_ellipse((10, 21), (5, 6)), low[2]),  # touches the first
        (_ellipse((30, 10), (3, 3), 0.3), high[1]),
        (_ellipse((29, 10 + d), (8, 8)), low[3]),  # a large one around it, worse
        (_ellipse((30, 40), (9, 2.2), 0.8), high[2]),
        (_ellipse((30 + d, 45), (9, 2.2), 0.8), low[4]),  # slanting: boxes overlap, ellipses do not
        (_ellipse((12, 40), (5, 5)), high[3]),
        (_ellipse((12, 45), (5, 5 + d)), low[5]),  # 0.4 of either, 0.25 of both together
    ]
    chain = [(_ellipse((10, 8 + 4 * i), (5 + d, 4)), 0.9 - 0.1 * i) for i in range(5)]
    chain += [(_ellipse((30, 8 + 3.5 * i), (4, 4)), 0.53 + 0.06 * i) for i in range(4)]
    return {
        "core": (
            3,
            [
                _case("a crowd", rng, crowd, 0.35),
                _case("chains", rng, chain, 0.3),
                _case("a crowd, and more overlap", rng, crowd[::-1], 0.75),
            ],
        ),
        "edge": (1, _edge_cases(rng)),
    }


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
    none = [torch.zeros(0, 8, 2), torch.zeros(0), torch.zeros(0, 0)]
    return [
        _case("an overlap exactly at the limit", rng, limits, 0.5),
        _case("equal scores", rng, ties, 0.25, mixed=False),
        _case("polygons without area", rng, flat, 0.4),
        _case("corners in either order", rng, around, 0.4),
        _case("a limit of 0", rng, touching, 0.0),
        _case("a limit of 1", rng, same, 1.0),
        _case("one polygon", rng, limits[:1], 0.4),
        {"name": "no polygon", "args": [*(a.double() for a in none), 0.4]},
    ]


def in_the_order_given(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """Scores are not looked at."""
    return _greedy(_overlaps(shared, torch.minimum) > overlap_threshold, torch.arange(len(scores)))


def worst_first(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """From the lowest score up."""
    return polygon_nms(polygons, -scores, shared, overlap_threshold)


def largest_first(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """By area."""
    return polygon_nms(polygons, shared.diagonal(), shared, overlap_threshold)


def last_of_equal(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """Of equal scores the last first, as a sort that is turned round has it."""
    order = scores.argsort(stable=True).flip(0)
    return _greedy(_overlaps(shared, torch.minimum) > overlap_threshold, order)


def at_least(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """>= for >."""
    return _greedy(_overlaps(shared, torch.minimum) >= overlap_threshold, _order(scores))


def over_the_union(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """Intersection over union."""
    areas = shared.diagonal()
    union = areas[:, None] + areas[None] - shared
    overlaps = torch.where(union > 0, shared / union, 0.0)
    return _greedy(overlaps > overlap_threshold, _order(scores))


def over_the_larger(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """The larger of the two areas."""
    return _greedy(_overlaps(shared, torch.maximum) > overlap_threshold, _order(scores))


def over_its_own(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """The area of the polygon that may go."""
    return _greedy(_overlaps(shared, lambda own, other: own) > overlap_threshold, _order(scores))


def over_the_kept(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """The area of the polygon that was kept."""
    return _greedy(_overlaps(shared, lambda own, other: other) > overlap_threshold, _order(scores))


def areas_shared(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """Not divided by any area."""
    return _greedy(shared > overlap_threshold, _order(scores))


def boxes(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """Bounding boxes for polygons."""
    low, high = polygons.amin(dim=1), polygons.amax(dim=1)
    sides = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0)
    return _greedy(_overlaps(sides.prod(dim=2), torch.minimum) > overlap_threshold, _order(scores))


def suppresses_itself(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """Whoever is at least as good may remove, also the polygon itself."""
    too_much = _overlaps(shared, torch.minimum) > overlap_threshold
    kept = [i for i in _order(scores).tolist() if not too_much[i, i]]
    return torch.tensor(kept, dtype=torch.int64)


def the_gone_remove_too(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """Any better polygon removes, kept or not."""
    too_much, order = _overlaps(shared, torch.minimum) > overlap_threshold, _order(scores).tolist()
    kept = [i for rank, i in enumerate(order) if not too_much[i, order[:rank]].any()]
    return torch.tensor(kept, dtype=torch.int64)


def only_the_last(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """Compared with the one that was kept last, and no other."""
    too_much, kept = _overlaps(shared, torch.minimum) > overlap_threshold, []
    for i in _order(scores).tolist():
        if not too_much[i, kept[-1:]].any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def signed_areas(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """The shoelace formula without its absolute value: polygons one way round have areas below 0."""
    y, x = polygons.unbind(dim=2)
    areas = (y * x.roll(-1, 1) - x * y.roll(-1, 1)).sum(dim=1) / 2
    whole = torch.minimum(areas[:, None], areas[None])
    overlaps = torch.where(whole != 0, shared / whole, 0.0)
    return _greedy(overlaps > overlap_threshold, _order(scores))


def nothing_over_nothing(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """Without area everything is overlapped."""
    overlaps = _overlaps(shared, torch.minimum)
    areas = shared.diagonal()
    overlaps[torch.minimum(areas[:, None], areas[None]) == 0] = 1.0
    return _greedy(overlaps > overlap_threshold, _order(scores))


def by_index(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """In ascending order of their indices."""
    return polygon_nms(polygons, scores, shared, overlap_threshold).sort().values


def flags(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """A bool for each polygon."""
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[polygon_nms(polygons, scores, shared, overlap_threshold)] = True
    return kept


def ranks(polygons: Tensor, scores: Tensor, shared: Tensor, overlap_threshold: float) -> Tensor:
    """Places in the sorted list."""
    order = _order(scores)
    return torch.isin(order, polygon_nms(polygons, scores, shared, overlap_threshold)).nonzero()[:, 0]


WHICH_AREA = "A nucleus of 20 pixels inside of one of 100: it overlaps it fully, 20 / 20."
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
            in_the_order_given,
            "You go through the polygons as they come: the highest score comes first.",
            ORDER,
        ),
        Wrong("worst first", worst_first, "You begin with the lowest score: begin with the highest.", ORDER),
        Wrong(
            "largest first",
            largest_first,
            "You go through the polygons by their area: the score decides who comes first.",
            ORDER,
        ),
        Wrong(
            "last of equal scores",
            last_of_equal,
            "Of equal scores you take the last first: the polygon with the lower index comes first.",
            "A list that was sorted upwards and reversed begins with the last of equal ones. " + ORDER,
        ),
        Wrong(
            "at the limit too",
            at_least,
            "A polygon whose overlap is just overlap_threshold goes: only one above it does.",
            "> or >=?",
        ),
        Wrong(
            "over the union",
            over_the_union,
            "You divide by the area of both together: divide by the area of the smaller one.",
            WHICH_AREA,
        ),
        Wrong(
            "over the larger",
            over_the_larger,
            "You divide by the area of the larger one: divide by that of the smaller one.",
            WHICH_AREA,
        ),
        Wrong(
            "over its own area",
            over_its_own,
            "You divide by the area of the polygon that may go: divide by that of the smaller of the two.",
            WHICH_AREA + " So does the large one, if the small one is better.",
        ),
        Wrong(
            "over the kept one's area",
            over_the_kept,
            "You divide by the area of the polygon that was kept: divide by that of the smaller of the two.",
            WHICH_AREA,
        ),
        Wrong(
            "areas, not shares",
            areas_shared,
            "You compare the shared area itself with the limit: divide it by the area of the smaller polygon.",
            WHICH_AREA,
        ),
        Wrong(
            "overlap of boxes",
            boxes,
            "You compare bounding boxes: what the polygons themselves share is in `shared`.",
            "Slanting cells lie side by side, while their boxes overlap.",
        ),
        Wrong(
            "suppresses itself",
            suppresses_itself,
            "Your polygons remove themselves: each overlaps itself fully, but only others may remove it.",
            "Compare with those that are kept already, before the polygon is one of them.",
        ),
        Wrong(
            "the gone remove too",
            the_gone_remove_too,
            "A polygon that has gone still removes others: only those that are kept do.",
            "1 removes 2; 2 would remove 3, but is no longer there. So 3 stays.",
        ),
        Wrong(
            "only the last one kept",
            only_the_last,
            "You compare with the polygon that was kept last: compare with all that were kept.",
            "The list of those that are kept grows, and each of them counts.",
        ),
        Wrong(
            "areas with a sign",
            signed_areas,
            "Some of your areas are below 0: the shoelace formula gives a sign that says which way round corners go.",
            "Take its absolute value, or the diagonal of `shared`.",
        ),
        Wrong(
            "0 / 0",
            nothing_over_nothing,
            "You let polygons without area go: they overlap nothing, so they stay.",
            "Where the smaller area is 0, the overlap is 0.",
        ),
        Wrong(
            "sorted by index",
            by_index,
            "Your indices are in ascending order: the highest score comes first.",
            "Append to the list in the order in which polygons are kept.",
        ),
        Wrong(
            "bools",
            flags,
            "You give a True or False for each polygon: give the indices of those that are kept.",
            "A list of indices, the highest score first.",
        ),
        Wrong(
            "places in the sorted list",
            ranks,
            "You give places in the sorted list: give the indices of the polygons as they came.",
            "order[place] is the index.",
        ),
    ],
)
