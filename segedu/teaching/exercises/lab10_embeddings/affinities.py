"""affinities: is the pixel a step away of the same object?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Offsets = Sequence[tuple[int, int]]
OUTSIDE = 255


def affinities(label_map: Tensor, offsets: Offsets) -> Tensor:
    """Ask for every pixel (y, x) and every offset (dy, dx): is pixel (y + dy, x + dx) of the same object?

    Args:
        label_map: (H, W) integers: 0 is background, which is no object; every other number is an object.
        offsets: A pairs (dy, dx) of whole numbers, positive or negative, perhaps larger than the image.

    Returns:
        (A, H, W) integers, one plane an offset:
        1 where both pixels belong to one object;
        0 where they do not, so also where one of them or both are background;
        255 where the other pixel lies outside the image: nobody knows, and the loss leaves the pair out.

    Example: the pixel to the left of each, dy = 0 and dx = -1. The first has none; the last two are background.

        >>> affinities(torch.tensor([[3, 3, 8, 0, 0]]), [(0, -1)])
        tensor([[[255,   1,   0,   0,   0]]])
    """
    planes = [_plane(label_map, offset) for offset in offsets]
    return torch.stack(planes)


def _plane(label_map: Tensor, offset: tuple[int, int]) -> Tensor:
    inside, other = _partners(label_map, offset)
    return torch.where(inside, ((other == label_map) & (label_map > 0)).long(), OUTSIDE)


def _partners(label_map: Tensor, offset: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Whether the other pixel is in the image (H, W), and its label (H, W), wherever it is."""
    sizes = torch.tensor(label_map.shape)[:, None, None]
    places = torch.stack(torch.meshgrid(*[torch.arange(n) for n in label_map.shape], indexing="ij"))
    places = places + torch.tensor(offset)[:, None, None]
    inside = ((places >= 0) & (places < sizes)).all(dim=0)
    return inside, label_map[tuple(places % sizes)]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Cells that touch, far offsets; objects on the border, one row, offsets beyond the image, nothing.

    Args:
        rng: of numbers, sizes and the background.

    Returns:
        The cases by group. Maps have at most 100 pixels, so that their pictures show numbers.
    """
    one, two, three = (int(n) for n in rng.permutation([1, 2, 5, 9, 30])[:3])
    width = int(rng.integers(3, 5))
    cells = torch.zeros(8, 12, dtype=torch.int64)
    cells[1:5, 1 : 1 + width] = one
    cells[2:7, 1 + width : 4 + width] = two  # touches the first
    cells[5:8, 1:3] = three
    cells[3, 9:11] = one + 40
    border = torch.zeros(7, 9, dtype=torch.int64)
    border[:3, :4] = one
    border[:3, 7:] = one  # the same object at the opposite border
    border[3 : 5 + int(rng.integers(2)), 2:8] = two
    border[5:, :2] = three
    border[6, 3:] = three
    border[0, 5] = border[4, 0] = two
    row = torch.tensor([[one] * width + [two] * 3 + [0] * 2 + [two] * 2])
    column = torch.tensor([0] + [two] * width + [one] * 4).reshape(-1, 1)
    whole = torch.ones(4, 5, dtype=torch.int64)
    return {
        "core": (
            2,
            [
                {"name": "direct neighbours", "args": [cells, [(-1, 0), (0, -1)]]},
                {"name": "down and right", "args": [cells, [(1, 0), (0, 1), (1, 1)]]},
                {"name": "two and three pixels away", "args": [cells, [(0, 2), (-3, 0), (2, -3)]]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "objects on the border", "args": [border, [(0, -1), (3, 1), (-2, 5)]]},
                {"name": "one row", "args": [row, [(0, -2), (1, 0), (0, 1)]]},
                {"name": "one column", "args": [column, [(2, 0), (0, -1)]]},
                {"name": "offsets beyond the image", "args": [whole, [(0, 5), (-4, 0), (0, -11), (9, 1), (3, -4)]]},
                {"name": "no object", "args": [torch.zeros(4, 6, dtype=torch.int64), [(-1, 0), (1, 2)]]},
            ],
        ),
    }


def the_other_way(label_map: Tensor, offsets: Offsets) -> Tensor:
    """Pixel (y - dy, x - dx)."""
    return affinities(label_map, [(-dy, -dx) for dy, dx in offsets])


def x_before_y(label_map: Tensor, offsets: Offsets) -> Tensor:
    """Offsets read as (dx, dy)."""
    return affinities(label_map, [(dy, dx) for dx, dy in offsets])


def wraps(label_map: Tensor, offsets: Offsets) -> Tensor:
    """torch.roll and nothing else."""
    others = [torch.roll(label_map, (-dy, -dx), (0, 1)) for dy, dx in offsets]
    return torch.stack([((other == label_map) & (label_map > 0)).long() for other in others])


def negative_wraps(label_map: Tensor, offsets: Offsets) -> Tensor:
    """Index -1 is the last row or column; only too large an index is an error."""
    found = affinities(label_map, offsets)
    height, width = label_map.shape
    for plane, (dy, dx) in zip(found, offsets, strict=True):
        for y in range(height):
            for x in range(width):
                j, i = y + dy, x + dx
                if -height <= j < height and -width <= i < width:
                    plane[y, x] = int(label_map[y, x] == label_map[j, i] and label_map[y, x] > 0)
    return found


def clamped(label_map: Tensor, offsets: Offsets) -> Tensor:
    """Beyond the border the pixel at the border counts."""
    height, width = label_map.shape
    y, x = (torch.arange(n) for n in (height, width))
    planes = []
    for dy, dx in offsets:
        other = label_map[(y + dy).clamp(0, height - 1)][:, (x + dx).clamp(0, width - 1)]
        planes.append(((other == label_map) & (label_map > 0)).long())
    return torch.stack(planes)


def outside_is_zero(label_map: Tensor, offsets: Offsets) -> Tensor:
    """Beyond the border is another object."""
    found = affinities(label_map, offsets)
    return torch.where(found == OUTSIDE, 0, found)


def background_is_alike(label_map: Tensor, offsets: Offsets) -> Tensor:
    """0 equals 0."""
    return affinities(label_map + 1, offsets)


def background_unknown(label_map: Tensor, offsets: Offsets) -> Tensor:
    """Pixels of the background are left out too."""
    return torch.where(label_map > 0, affinities(label_map, offsets), OUTSIDE)


def background_pairs_unknown(label_map: Tensor, offsets: Offsets) -> Tensor:
    """Pairs with one pixel of the background, or two, are left out too."""
    inside = affinities((label_map > 0).long(), offsets)
    return torch.where(inside == 0, OUTSIDE, affinities(label_map, offsets))


def both_foreground(label_map: Tensor, offsets: Offsets) -> Tensor:
    """Any two objects are one."""
    return affinities((label_map > 0).long(), offsets)


def boundaries(label_map: Tensor, offsets: Offsets) -> Tensor:
    """1 where the pixels differ."""
    found = affinities(label_map, offsets)
    return torch.where(found == OUTSIDE, found, 1 - found)


def one_step(label_map: Tensor, offsets: Offsets) -> Tensor:
    """The direct neighbour in the direction of the offset."""
    return affinities(label_map, [(int(np.sign(dy)), int(np.sign(dx))) for dy, dx in offsets])


def eight_neighbours(label_map: Tensor, offsets: Offsets) -> Tensor:
    """The eight pixels around, whatever the offsets are."""
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return affinities(label_map, around)


def planes_last(label_map: Tensor, offsets: Offsets) -> Tensor:
    """(H, W, A)."""
    return affinities(label_map, offsets).movedim(0, -1)


BORDER = "Try a pixel at each of the four borders: is (y + dy, x + dx) in the image?"

exercise = Exercise(
    name="affinities",
    points=3,
    cases=cases,
    reference=affinities,
    kind="matrix",
    hides=["segedu.instance.affinities"],
    wrong=[
        Wrong(
            "offset the other way",
            the_other_way,
            "You look at pixel (y - dy, x - dx): the other pixel is at (y + dy, x + dx).",
            "For the offset (0, -1) the other pixel lies to the left. torch.roll by +1 brings it here.",
        ),
        Wrong(
            "dx before dy",
            x_before_y,
            "You read the offsets as (dx, dy): they are (dy, dx).",
            "The first number goes along rows, as the first axis of the label map does.",
        ),
        Wrong(
            "wraps around",
            wraps,
            "Your borders wrap around: what leaves on one side comes back on the other. Outside it is 255.",
            "torch.roll and np.roll do that. " + BORDER,
        ),
        Wrong(
            "negative indices wrap",
            negative_wraps,
            "A negative index counts from the end: pixel -1 is the last one. Outside on any side it is 255.",
            BORDER,
        ),
        Wrong(
            "border repeated",
            clamped,
            "Beyond the border you take the pixel at the border: outside it is 255.",
            BORDER,
        ),
        Wrong(
            "outside is 0",
            outside_is_zero,
            "Outside the image you say 0, which means another object: it is 255.",
            BORDER,
        ),
        Wrong(
            "background is one object",
            background_is_alike,
            "Two background pixels get a 1: background is no object, so they get a 0.",
            "0 == 0 is True. What else must hold?",
        ),
        Wrong(
            "background unknown",
            background_unknown,
            "You leave background pixels out with 255: they get a 0, and 255 is for pixels outside the image.",
            "Of a pixel in the background it is known that it belongs to no object.",
        ),
        Wrong(
            "pairs with background unknown",
            background_pairs_unknown,
            "You leave pairs with a background pixel out with 255: they get a 0, and 255 is for outside the image.",
            "Of a pixel in the background it is known that it belongs to no object.",
        ),
        Wrong(
            "all objects are one",
            both_foreground,
            "Two objects that touch get a 1: it is not enough that both pixels are foreground.",
            "Compare the numbers.",
        ),
        Wrong(
            "boundaries",
            boundaries,
            "You give 1 where the pixels do not belong together: 1 is for pixels of one object.",
            "An affinity says how much two pixels belong together.",
        ),
        Wrong(
            "one step only",
            one_step,
            "You look at the next pixel in the direction of the offset: (-3, 0) is 3 rows away.",
            "Offsets are steps in pixels, not directions.",
        ),
        Wrong(
            "8 neighbours",
            eight_neighbours,
            "You compare with the eight pixels around: compare with those that the offsets name, and no others.",
            "One plane an offset.",
        ),
        Wrong(
            "planes last",
            planes_last,
            "Your planes are the last axis: the result has the shape (A, H, W).",
            "torch.stack puts the new axis first.",
        ),
    ],
)
