"""level_assign: the pyramid level from which the features of a box are pooled."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def level_assign(boxes: Tensor, k0: int, canonical: float, lowest: int, highest: int) -> Tensor:
    """Choose the pyramid level of each box by its area: coarse levels for large boxes, fine levels for small ones.

    With w and h the sides of a box, in pixels, the level is

        k = floor(k0 + log2(sqrt(w * h) / canonical))

    clamped to the range from `lowest` to `highest`. A box without area belongs to the lowest level.

    Args:
        boxes: (N, 4) floats (x1, y1, x2, y2). N may be 0.
        k0: level of a box of `canonical` x `canonical` pixels; 4 in the paper.
        canonical: side of the images on which the backbone was trained; 224 in the paper.
        lowest: the finest level; 2 in the paper.
        highest: the coarsest level, at least `lowest`; 5 in the paper.

    Returns:
        (N,) integers.

    Example: a box of 224 x 224, one with half these sides, and one of 112 x 448, which has the area of the first.

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


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Two pyramids, sizes in and out of range, one level, no area; only two cases have sizes near a threshold."""

    def boxes_of(levels: list[int], odd: int, k0: int, canonical: float) -> Tensor:
        """One box on each level."""
        # alternately in the lower and in the upper half of a level, odd levels or even ones first
        upper = (np.arange(len(levels)) + odd) % 2
        exact = np.array(levels) + 0.1 + 0.5 * upper + rng.uniform(0, 0.3, len(levels))
        aspects = 2.0 ** rng.choice([-4.0, -3.5, 3.0, 4.0], len(levels))
        aspects[rng.integers(len(levels))] = 1.0
        order = rng.permutation(len(levels))
        return _boxes(rng, canonical * 2.0 ** (exact - k0)[order], aspects)

    paper, again = (boxes_of([2, 3, 4, 5], odd, 4, 224) for odd in (0, 1))
    limits = torch.tensor([[256, 256], [128, 512], [128, 128], [64, 64], [512, 512], [32, 32], [1024, 256], [64, 256]])
    corner = torch.from_numpy(rng.integers(0, 9, (len(limits), 2)))
    limits = torch.cat([corner, corner + limits], dim=1).double()[torch.from_numpy(rng.permutation(len(limits)))]
    canonical = torch.tensor([[3.0, 5.0, 227.0, 229.0], [0.0, 1.0, 112.0, 449.0], [0.0, 0.0, 223.0, 224.0]])
    flat = boxes_of([2, 3, 4, 5, 5], 0, 4, 224)
    flat[0, 2], flat[3, 3] = flat[0, 0], flat[3, 1]  # no width, no height
    flat[4, 2:] = flat[4, :2]
    side = float(rng.integers(60, 100))
    core = [
        case("the pyramid of the paper", paper, 4, 224, 2, 5),
        case("the pyramid of the paper, other boxes", again, 4, 224, 2, 5),
        case("another pyramid", boxes_of([1, 2, 3, 4, 5], 0, 3, side), 3, side, 1, 5),
    ]
    edge = [
        case("sides exactly at the limits", limits, 4, 256, 2, 5),
        case("exactly the canonical area", canonical.double(), 4, 224, 2, 5),
        case("too small and too large", boxes_of([-2, 0, 1, 3, 6, 8], 1, 4, 224), 4, 224, 2, 5),
        case("a pyramid from level 3 to 7", boxes_of([1, 3, 4, 7, 9], 0, 5, 160), 5, 160, 3, 7),
        case("boxes without area", flat, 4, 224, 2, 5),
        case("one level", boxes_of([1, 3, 4], 0, 4, 224), 4, 224, 3, 3),
        case("no box", paper[:0], 4, 224, 2, 5),
    ]
    return {"core": (2, core), "edge": (1, edge)}


def _boxes(rng: np.random.Generator, sizes: np.ndarray, aspects: np.ndarray) -> Tensor:
    """Boxes at random positions, given the roots of their areas and height / width."""
    corner = rng.uniform(0, 90, (len(sizes), 2))
    sides = np.stack([sizes / np.sqrt(aspects), sizes * np.sqrt(aspects)], axis=1)
    return torch.from_numpy(np.concatenate([corner, corner + sides], axis=1))


right = Variants(level_assign)


def _before_rounding(exact: Callable[[SimpleNamespace], Tensor]) -> Callable[..., Tensor]:
    """`exact(arguments)` in place of the right level before it is rounded down."""
    return right.instead(lambda a: exact(a).floor().clamp(a.lowest, a.highest).long())


def _by_size(size: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """`size(width and height of the boxes (N, 2))` in place of the root of the area."""
    return _before_rounding(lambda a: a.k0 + (size(a.boxes[:, 2:] - a.boxes[:, :2]) / a.canonical).log2())


def _rounding(rounded: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return right.instead(lambda a: rounded(_exact(a.boxes, a.k0, a.canonical)).clamp(a.lowest, a.highest).long())


def _floor(a: SimpleNamespace) -> Tensor:
    return _exact(a.boxes, a.k0, a.canonical).floor()


def _towards_zero(a: SimpleNamespace) -> Tensor:
    difference = (_area(a.boxes).sqrt() / a.canonical).log2().clamp(min=-99).long()
    return (a.k0 + difference).clamp(a.lowest, a.highest)


def _fails_without_area(a: SimpleNamespace) -> Tensor:
    exact = [a.k0 + math.log2(math.sqrt(area) / a.canonical) for area in _area(a.boxes).tolist()]
    return torch.tensor([min(max(math.floor(k), a.lowest), a.highest) for k in exact], dtype=torch.int64)


FLOOR = "floor rounds down: 3.9 to 3, and -0.4 to -1."
SIZE = "A box of 112 x 448 has the same area as 224 x 224, and belongs to the same level."
LIMITS = "The levels of the pyramid are those from `lowest` to `highest`."
BASE = "A box with twice the side belongs one level higher."

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
            _by_size(lambda sides: sides.prod(dim=1)),
            "You divide the area by `canonical`, which is a length. Divide the square root of the area.",
            SIZE,
        ),
        Wrong(
            "area over area",
            _before_rounding(lambda a: a.k0 + (_area(a.boxes) / a.canonical**2).log2()),
            "You divide the area by the square of `canonical`, so a box with twice the side is two levels "
            "higher. It should be one level higher.",
            "The log2 of a square is twice the log2. Take the root of the area first.",
        ),
        Wrong(
            "root of the quotient",
            _before_rounding(lambda a: a.k0 + (_area(a.boxes) / a.canonical).sqrt().log2()),
            "You take the square root of the quotient. Take the root of the area, then divide by `canonical`.",
            "sqrt(w * h) / canonical. " + SIZE,
        ),
        Wrong(
            "no floor",
            right.instead(lambda a: _exact(a.boxes, a.k0, a.canonical).clamp(a.lowest, a.highest)),
            "Your levels are fractional. Round them down to integers.",
            FLOOR,
        ),
        Wrong(
            "floats",
            right.then(lambda out, a: out.double()),
            "Your levels are floats. They should be integers, because they are used as indices.",
            ".long()",
        ),
        Wrong("rounded", _rounding(torch.round), "You round to the nearest level. Round down instead.", FLOOR),
        Wrong("rounded up", _rounding(torch.ceil), "You round up to the next level. Round down instead.", FLOOR),
        Wrong(
            "rounded towards 0",
            right.instead(_towards_zero),
            "You round log2 towards 0, so boxes a little smaller than `canonical` stay at level k0. Round down, "
            "also below 0.",
            "int() and .long() cut off the fraction: -0.4 becomes 0. " + FLOOR,
        ),
        Wrong(
            "no clamp",
            right.instead(lambda a: _floor(a).long()),
            "You return levels that do not exist in the pyramid. Clamp them to its range.",
            LIMITS,
        ),
        Wrong(
            "no lower limit",
            right.instead(lambda a: _floor(a).clamp(max=a.highest).long()),
            "You return levels below `lowest`. Small boxes belong to the lowest level.",
            LIMITS,
        ),
        Wrong(
            "no upper limit",
            right.instead(lambda a: _floor(a).clamp(min=a.lowest).long()),
            "You return levels above `highest`. Large boxes belong to the highest level.",
            LIMITS,
        ),
        Wrong(
            "longer side",
            _by_size(lambda sides: sides.amax(dim=1)),
            "You use the longer side of a box. Use the square root of its area.",
            SIZE,
        ),
        Wrong(
            "width",
            _by_size(lambda sides: sides[:, 0]),
            "You use the width of a box. Use the square root of its area.",
            SIZE,
        ),
        Wrong(
            "mean of the sides",
            _by_size(lambda sides: sides.mean(dim=1)),
            "You use the mean of width and height. Use the square root of the area.",
            SIZE,
        ),
        Wrong(
            "read as sides",
            _before_rounding(lambda a: a.k0 + (a.boxes[:, 2:].prod(dim=1).sqrt() / a.canonical).log2()),
            "You read the last two values of a box as width and height. Boxes are (x1, y1, x2, y2).",
            "The last two values are the lower right corner.",
        ),
        Wrong(
            "log10",
            _before_rounding(lambda a: a.k0 + (_area(a.boxes).sqrt() / a.canonical).log10()),
            "You use the logarithm to base 10. The side doubles from one level to the next, so use log2.",
            BASE,
        ),
        Wrong(
            "natural logarithm",
            _before_rounding(lambda a: a.k0 + (_area(a.boxes).sqrt() / a.canonical).log()),
            "You use the natural logarithm. The side doubles from one level to the next, so use log2.",
            BASE,
        ),
        Wrong(
            "upside down",
            _before_rounding(lambda a: a.k0 + (a.canonical / _area(a.boxes).sqrt()).log2()),
            "You assign large boxes to fine levels. Large boxes belong to coarse levels, small ones to fine levels.",
            "Which length is the numerator?",
        ),
        Wrong(
            "canonical forgotten",
            right.given(canonical=lambda a: 1),
            "You do not divide by `canonical`, so a box of 1 x 1 pixels is at level k0. A box of that area "
            "should be at a lower level.",
            "log2(1) is 0. For which box should this be the case?",
        ),
        Wrong(
            "k0 forgotten",
            right.given(k0=lambda a: 0),
            "You do not add k0, the level of a box with the side `canonical`. Add it before you clamp the level.",
            SIZE,
        ),
        Wrong(
            "the paper's numbers",
            right.instead(lambda a: level_assign(a.boxes, 4, 224, 2, 5)),
            "You always use 4, 224, 2 and 5, the values of the paper. Use the arguments.",
            "Another backbone may have another pyramid.",
        ),
        Wrong(
            "counted from the lowest",
            right.then(lambda out, a: out - a.lowest),
            "You count the levels from 0, the lowest level of the pyramid. Return the number of the level itself.",
            "torchvision returns the index in its list of maps. Here, level 2 is 2.",
        ),
        Wrong(
            "fails without area",
            right.instead(_fails_without_area),
            "Your function fails on a box without area. Such a box belongs to the lowest level.",
            "math.log2(0) raises an error. torch.log2 and np.log2 return minus infinity, which clamp accepts.",
        ),
        Wrong(
            "no area to the highest",
            right.then(lambda out, a: torch.where(_area(a.boxes) > 0, out, a.highest)),
            "You assign boxes without area to the highest level. They belong to the lowest.",
            "log2(0) is minus infinity.",
        ),
    ],
)
