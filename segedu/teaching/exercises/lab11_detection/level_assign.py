"""level_assign: which level of the pyramid a box is taken from."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def level_assign(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """Choose the level of the pyramid by the area of a box: large boxes from coarse levels, small ones from fine.

    With w and h the sides of a box, in pixels,

        k = floor(k0 + log2(sqrt(w * h) / canonical))

    and then no lower than `lowest`, no higher than `highest`. A box without area goes to the lowest level.

    Args:
        boxes: (N, 4) floats (x1, y1, x2, y2); N may be 0.
        k0: level of a box as large as `canonical` x `canonical`; 4 in the paper.
        canonical: the side that images had when the backbone was trained; 224 in the paper.
        lowest: the finest level that there is; 2 in the paper.
        highest: the coarsest, at least `lowest`; 5 in the paper.

    Returns:
        (N,) integers.

    Example: 224 x 224, half of it, and 112 x 448, whose area is that of the first.

        >>> boxes = torch.tensor([[0.0, 0.0, 224.0, 224.0], [0.0, 0.0, 112.0, 112.0], [5.0, 9.0, 117.0, 457.0]])
        >>> level_assign(boxes, 4, 224, 2, 5)
        tensor([4, 3, 4])
    """
    return _exact(boxes, k0, canonical).floor().clamp(lowest, highest).long()


def _exact(boxes: Tensor, k0: int, canonical: float) -> Tensor:
    """(N,) floats: the level before it is rounded down."""
    return k0 + (_area(boxes).sqrt() / canonical).log2()


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)


def _boxes(rng: np.random.Generator, sizes: np.ndarray, aspects: np.ndarray) -> Tensor:
    """Boxes somewhere, by the roots of their areas and by height over width."""
    corner = rng.uniform(0, 90, (len(sizes), 2))
    sides = np.stack([sizes / np.sqrt(aspects), sizes * np.sqrt(aspects)], axis=1)
    return torch.from_numpy(np.concatenate([corner, corner + sides], axis=1))


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The paper's pyramid and another one; sides at the limits, too small, too large, no area, one level, no box.

    Args:
        rng: of sizes, shapes and places.

    Returns:
        The cases by group. But where it is asked for, no size is so near a limit that rounding decides.
    """

    def case(name: str, k0: int, canonical: float, lowest: int, highest: int, levels: list[int], odd: int) -> Case:
        # by turns in the lower and in the upper half of a level, odd levels or even ones first
        upper = (np.arange(len(levels)) + odd) % 2
        places = np.array(levels) + 0.1 + 0.5 * upper + rng.uniform(0, 0.3, len(levels))
        aspects = 2.0 ** rng.choice([-4.0, -3.5, 3.0, 4.0], len(levels))
        aspects[rng.integers(len(levels))] = 1.0
        order = rng.permutation(len(levels))
        boxes = _boxes(rng, canonical * 2.0 ** (places - k0)[order], aspects)
        return {"name": name, "args": [boxes, k0, canonical, lowest, highest]}

    paper, again = (case("the pyramid of the paper", 4, 224, 2, 5, [2, 3, 4, 5], odd) for odd in (0, 1))
    limits = torch.tensor([[256, 256], [128, 512], [128, 128], [64, 64], [512, 512], [32, 32], [1024, 256], [64, 256]])
    corner = torch.from_numpy(rng.integers(0, 9, (len(limits), 2)))
    limits = torch.cat([corner, corner + limits], dim=1).double()[torch.from_numpy(rng.permutation(len(limits)))]
    canonical = torch.tensor([[3.0, 5.0, 227.0, 229.0], [0.0, 1.0, 112.0, 449.0], [0.0, 0.0, 223.0, 224.0]])
    flat = case("", 4, 224, 2, 5, [2, 3, 4, 5, 5], 0)["args"][0]
    flat[0, 2], flat[3, 3] = flat[0, 0], flat[3, 1]  # no width, no height
    flat[4, 2:] = flat[4, :2]
    return {
        "core": (
            2,
            [
                paper,
                again | {"name": "the pyramid of the paper, other boxes"},
                case("another pyramid", 3, float(rng.integers(60, 100)), 1, 5, [1, 2, 3, 4, 5], 0),
            ],
        ),
        "edge": (
            1,
            [
                {"name": "sides exactly at the limits", "args": [limits, 4, 256, 2, 5]},
                {"name": "exactly the canonical area", "args": [canonical.double(), 4, 224, 2, 5]},
                case("too small and too large", 4, 224, 2, 5, [-2, 0, 1, 3, 6, 8], 1),
                case("a pyramid from level 3 to 7", 5, 160, 3, 7, [1, 3, 4, 7, 9], 0),
                {"name": "boxes without area", "args": [flat, 4, 224, 2, 5]},
                case("one level", 4, 224, 3, 3, [1, 3, 4], 0),
                {"name": "no box", "args": [paper["args"][0][:0], 4, 224, 2, 5]},
            ],
        ),
    }


def _levels(exact: Tensor, lowest: int, highest: int) -> Tensor:
    return exact.floor().clamp(lowest, highest).long()


def no_root(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """log2(w h / 224)."""
    return _levels(k0 + (_area(boxes) / canonical).log2(), lowest, highest)


def area_over_area(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """log2(w h / 224²)."""
    return _levels(k0 + (_area(boxes) / canonical**2).log2(), lowest, highest)


def root_of_the_quotient(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """log2(sqrt(w h / 224))."""
    return _levels(k0 + (_area(boxes) / canonical).sqrt().log2(), lowest, highest)


def not_rounded(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """Fractions of levels."""
    return _exact(boxes, k0, canonical).clamp(lowest, highest)


def floats(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """4.0 for 4."""
    return level_assign(boxes, k0, canonical, lowest, highest).double()


def to_the_nearest(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """round."""
    return _exact(boxes, k0, canonical).round().clamp(lowest, highest).long()


def up(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """ceil."""
    return _exact(boxes, k0, canonical).ceil().clamp(lowest, highest).long()


def towards_zero(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """int() before k0 is added cuts -0.4 to 0."""
    steps = (_area(boxes).sqrt() / canonical).log2().clamp(min=-99).long()
    return (k0 + steps).clamp(lowest, highest)


def not_clamped(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """Levels that do not exist."""
    return _exact(boxes, k0, canonical).floor().long()


def only_from_above(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """min alone."""
    return _exact(boxes, k0, canonical).floor().clamp(max=highest).long()


def only_from_below(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """max alone."""
    return _exact(boxes, k0, canonical).floor().clamp(min=lowest).long()


def _by(boxes: Tensor, k0: int, canonical: float, limits: tuple[int, int], size: Callable[[Tensor], Tensor]) -> Tensor:
    """`size` (N,) of the sides (N, 2)."""
    return _levels(k0 + (size(boxes[:, 2:] - boxes[:, :2]) / canonical).log2(), *limits)


def longer_side(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """max(w, h)."""
    return _by(boxes, k0, canonical, (lowest, highest), lambda sides: sides.amax(dim=1))


def width(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """Any box is taken for a square."""
    return _by(boxes, k0, canonical, (lowest, highest), lambda sides: sides[:, 0])


def mean_side(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """(w + h) / 2."""
    return _by(boxes, k0, canonical, (lowest, highest), lambda sides: sides.mean(dim=1))


def read_as_sides(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """The last two numbers are width and height."""
    return _levels(k0 + (boxes[:, 2:].prod(dim=1).sqrt() / canonical).log2(), lowest, highest)


def decadic(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """log10."""
    return _levels(k0 + (_area(boxes).sqrt() / canonical).log10(), lowest, highest)


def natural(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """log."""
    return _levels(k0 + (_area(boxes).sqrt() / canonical).log(), lowest, highest)


def upside_down(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """canonical / sqrt(w h)."""
    return _levels(k0 + (canonical / _area(boxes).sqrt()).log2(), lowest, highest)


def canonical_forgotten(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """log2(sqrt(w h))."""
    return _levels(k0 + _area(boxes).sqrt().log2(), lowest, highest)


def k0_forgotten(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """Counted from 0."""
    return _levels(_exact(boxes, 0, canonical), lowest, highest)


def of_the_paper(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """4, 224, 2 and 5, whatever is asked for."""
    return level_assign(boxes, 4, 224, 2, 5)


def from_the_lowest(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """0 is the lowest level, as torchvision has it."""
    return level_assign(boxes, k0, canonical, lowest, highest) - lowest


def fails_without_area(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """math.log2(0)."""
    exact = [k0 + math.log2(math.sqrt(area) / canonical) for area in _area(boxes).tolist()]
    return torch.tensor([min(max(math.floor(k), lowest), highest) for k in exact], dtype=torch.int64)


def without_area_to_the_top(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """An infinity that was made finite the wrong way."""
    found = level_assign(boxes, k0, canonical, lowest, highest)
    return torch.where(_area(boxes) > 0, found, highest)


FLOOR = "floor rounds down: 3.9 to 3, and -0.4 to -1."
SIZE = "A box of 112 x 448 has the area of 224 x 224, and the same level."
LIMITS = "A pyramid has levels from `lowest` to `highest`, and no others."

exercise = Exercise(
    name="level_assign",
    points=3,
    cases=cases,
    reference=level_assign,
    kind="mask",
    hides=["segedu.detection.faster_rcnn", "segedu.layers.roi_levels"],
    wrong=[
        Wrong(
            "area, not its root",
            no_root,
            "You divide the area by `canonical`: its root is divided, which is a length too.",
            SIZE,
        ),
        Wrong(
            "area over area",
            area_over_area,
            "You divide areas: a box of twice the side then rises by two levels, not by one.",
            "log2 of a square is twice log2. Take the root of the area first.",
        ),
        Wrong(
            "root of the quotient",
            root_of_the_quotient,
            "Your root goes over `canonical` too: it is the root of the area that is divided.",
            "sqrt(w * h) / canonical. " + SIZE,
        ),
        Wrong("no floor", not_rounded, "Your levels have fractions: floor makes whole ones of them.", FLOOR),
        Wrong(
            "floats", floats, "Your levels are floats: they pick a map from a list, so they are integers.", ".long()"
        ),
        Wrong("rounded", to_the_nearest, "You round to the nearest level: floor rounds down.", FLOOR),
        Wrong("rounded up", up, "You round up: floor rounds down.", FLOOR),
        Wrong(
            "rounded towards 0",
            towards_zero,
            "You round log2 towards 0 before you add k0: boxes a little smaller than `canonical` stay at level k0.",
            "int() and .long() cut the fraction off: -0.4 becomes 0. " + FLOOR,
        ),
        Wrong("no clamp", not_clamped, "You return levels that do not exist.", LIMITS),
        Wrong("no lower limit", only_from_above, "You return levels below `lowest`: small boxes stay there.", LIMITS),
        Wrong("no upper limit", only_from_below, "You return levels above `highest`: large boxes stay there.", LIMITS),
        Wrong("longer side", longer_side, "You go by the longer side: the root of the area decides.", SIZE),
        Wrong("width", width, "You go by the width: the root of the area decides.", SIZE),
        Wrong("mean of the sides", mean_side, "You go by the mean of the sides: the root of the area decides.", SIZE),
        Wrong(
            "read as sides",
            read_as_sides,
            "You take the last two numbers for width and height: boxes are (x1, y1, x2, y2).",
            "The last two numbers are the lower right corner.",
        ),
        Wrong(
            "log10",
            decadic,
            "You take the decadic logarithm: from one level to the next sides double, so log2.",
            "A box of twice the side lies one level higher.",
        ),
        Wrong(
            "natural logarithm",
            natural,
            "You take the natural logarithm: from one level to the next sides double, so log2.",
            "A box of twice the side lies one level higher.",
        ),
        Wrong(
            "upside down",
            upside_down,
            "Your large boxes go to fine levels: large ones belong to coarse levels, small ones to fine ones.",
            "What is divided by what?",
        ),
        Wrong(
            "canonical forgotten",
            canonical_forgotten,
            "You do not divide by `canonical`: a box of one pixel would lie at level k0.",
            "log2(1) is 0: for which box should it be?",
        ),
        Wrong("k0 forgotten", k0_forgotten, "You do not add k0: a box of canonical size lies at level k0.", SIZE),
        Wrong(
            "the paper's numbers",
            of_the_paper,
            "You compute with 4, 224, 2 and 5 whatever is asked for: take the arguments.",
            "Another backbone, another pyramid.",
        ),
        Wrong(
            "counted from the lowest",
            from_the_lowest,
            "You count from the lowest level: return the level itself.",
            "torchvision returns places in its list of maps. Here level 2 is 2.",
        ),
        Wrong(
            "fails without area",
            fails_without_area,
            "Your function fails on a box without area: it goes to the lowest level.",
            "math.log2(0) raises; torch.log2 and np.log2 give minus infinity, which a clamp can take.",
        ),
        Wrong(
            "no area to the highest",
            without_area_to_the_top,
            "Boxes without area go to your highest level: the smallest of all belong to the lowest.",
            "log2(0) is minus infinity.",
        ),
    ],
)
