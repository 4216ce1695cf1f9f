"""affinities: does the pixel at an offset belong to the same object?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Offsets = Sequence[tuple[int, int]]
OUTSIDE = 255


def affinities(label_map: Tensor, offsets: Offsets) -> Tensor:
    """Decide for every pixel (y, x) and every offset (dy, dx) if pixel (y + dy, x + dx) belongs to the same object.

    Args:
        label_map: (H, W) integers: 0 is background, which is not an object; every other label is one object.
        offsets: A pairs (dy, dx) of integers, positive or negative, possibly larger than the image.

    Returns:
        (A, H, W) integers, one plane per offset:
        1 where both pixels belong to one object;
        0 where they do not, also where one or both of them are background;
        255 where the other pixel lies outside the image. Its label is unknown, and the loss ignores the pair.

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
    """Whether the other pixel is in the image (H, W), and its label (H, W), wrapped around where it is not."""
    sizes = torch.tensor(label_map.shape)[:, None, None]
    positions = torch.stack(torch.meshgrid(*[torch.arange(n) for n in label_map.shape], indexing="ij"))
    positions = positions + torch.tensor(offset)[:, None, None]
    inside = ((positions >= 0) & (positions < sizes)).all(dim=0)
    return inside, label_map[tuple(positions % sizes)]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Label maps of at most 100 pixels, so that the figures show the values."""
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
    core = [
        case("direct neighbours", cells, [(-1, 0), (0, -1)]),
        case("down and right", cells, [(1, 0), (0, 1), (1, 1)]),
        case("two and three pixels away", cells, [(0, 2), (-3, 0), (2, -3)]),
    ]
    edge = [
        case("objects on the border", border, [(0, -1), (3, 1), (-2, 5)]),
        case("one row", row, [(0, -2), (1, 0), (0, 1)]),
        case("one column", column, [(2, 0), (0, -1)]),
        case(
            "offsets beyond the image",
            torch.ones(4, 5, dtype=torch.int64),
            [(0, 5), (-4, 0), (0, -11), (9, 1), (3, -4)],
        ),
        case("no object", torch.zeros(4, 6, dtype=torch.int64), [(-1, 0), (1, 2)]),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(affinities)


def _other_offsets(change: Callable[[int, int], tuple[int, int]]) -> Callable:
    return right.given(offsets=lambda a: [change(dy, dx) for dy, dx in a.offsets])


def wraps(label_map: Tensor, offsets: Offsets) -> Tensor:
    others = [torch.roll(label_map, (-dy, -dx), (0, 1)) for dy, dx in offsets]
    return torch.stack([((other == label_map) & (label_map > 0)).long() for other in others])


def negative_indices(label_map: Tensor, offsets: Offsets) -> Tensor:
    planes = affinities(label_map, offsets)
    H, W = label_map.shape
    for plane, (dy, dx) in zip(planes, offsets, strict=True):
        for y in range(H):
            for x in range(W):
                j, i = y + dy, x + dx
                if -H <= j < H and -W <= i < W:
                    plane[y, x] = int(label_map[y, x] == label_map[j, i] and label_map[y, x] > 0)
    return planes


def border_repeated(label_map: Tensor, offsets: Offsets) -> Tensor:
    H, W = label_map.shape
    planes = []
    for dy, dx in offsets:
        other = label_map[(torch.arange(H) + dy).clamp(0, H - 1)][:, (torch.arange(W) + dx).clamp(0, W - 1)]
        planes.append(((other == label_map) & (label_map > 0)).long())
    return torch.stack(planes)


def pairs_with_background_ignored(label_map: Tensor, offsets: Offsets) -> Tensor:
    both = affinities((label_map > 0).long(), offsets)
    return torch.where(both == 0, OUTSIDE, affinities(label_map, offsets))


def _plane_of(inside: Callable[[Tensor, Tensor, int, int, int, int], Tensor]) -> Callable:
    """An answer with another test for the border: (rows, columns, dy, dx, H, W) -> (H, W) bool."""

    def compute(label_map: Tensor, offsets: Offsets) -> Tensor:
        H, W = label_map.shape
        rows, columns = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
        planes = []
        for dy, dx in offsets:
            other = label_map[(rows + dy).clamp(0, H - 1), (columns + dx).clamp(0, W - 1)]
            same = ((other == label_map) & (label_map > 0)).long()
            planes.append(torch.where(inside(rows, columns, dy, dx, H, W), same, OUTSIDE))
        return torch.stack(planes)

    return compute


def _one_beyond(rows: Tensor, columns: Tensor, dy: int, dx: int, H: int, W: int) -> Tensor:
    y, x = rows + dy, columns + dx
    return (y >= 0) & (y <= H) & (x >= 0) & (x <= W)


def _both_sides(rows: Tensor, columns: Tensor, dy: int, dx: int, H: int, W: int) -> Tensor:
    ys, xs = (rows + dy, rows - dy), (columns + dx, columns - dx)
    return torch.stack([(y >= 0) & (y < H) for y in ys] + [(x >= 0) & (x < W) for x in xs]).all(dim=0)


def _columns_wrap(label_map: Tensor, offsets: Offsets) -> Tensor:
    H, W = label_map.shape
    rows, columns = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    planes = []
    for dy, dx in offsets:
        other = label_map[(rows + dy) % H, (columns + dx) % W]
        inside = (rows + dy >= 0) & (rows + dy < H)
        planes.append(torch.where(inside, ((other == label_map) & (label_map > 0)).long(), OUTSIDE))
    return torch.stack(planes)


def _shortened(a) -> list[tuple[int, int]]:
    H, W = a.label_map.shape
    return [(max(1 - H, min(H - 1, dy)), max(1 - W, min(W - 1, dx))) for dy, dx in a.offsets]


def _shifts_add_up(label_map: Tensor, offsets: Offsets) -> Tensor:
    """Apply each offset to the map that was already shifted by those before it."""
    shifted, planes = label_map, []
    for offset in offsets:
        inside, other = _partners(shifted, offset)
        shifted = torch.where(inside, other, -1)
        planes.append(torch.where(shifted < 0, OUTSIDE, ((shifted == label_map) & (label_map > 0)).long()))
    return torch.stack(planes)


BORDER = "Try a pixel at each of the four borders: is (y + dy, x + dx) in the image?"
KNOWN = "It is known that a background pixel does not belong to any object."

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
            _other_offsets(lambda dy, dx: (-dy, -dx)),
            "You compare with pixel (y - dy, x - dx). The other pixel is at (y + dy, x + dx).",
            "With the offset (0, -1) the other pixel is the left neighbour; torch.roll by +1 moves it here.",
        ),
        Wrong(
            "dx before dy",
            _other_offsets(lambda dy, dx: (dx, dy)),
            "You read the offsets as (dx, dy). They are (dy, dx).",
            "The first value belongs to y, like the first axis of the label map.",
        ),
        Wrong(
            "wraps around",
            wraps,
            "Your pixels wrap around to the opposite border. Outside the image the value is 255.",
            "torch.roll and np.roll wrap around. " + BORDER,
        ),
        Wrong(
            "negative indices wrap",
            negative_indices,
            "Your negative indices wrap around, because -1 is the last pixel. Outside the image the value is 255.",
            BORDER,
        ),
        Wrong(
            "border repeated",
            border_repeated,
            "Beyond the border you use the nearest pixel of the image. Outside the image the value is 255.",
            BORDER,
        ),
        Wrong(
            "outside is 0",
            right.then(lambda out, a: torch.where(out == OUTSIDE, 0, out)),
            "You return 0 outside the image, which means that the objects differ. The value there is 255.",
            BORDER,
        ),
        Wrong(
            "background is one object",
            right.given(label_map=lambda a: a.label_map + 1),
            "You return 1 for two background pixels. Background is not an object, so the value is 0.",
            "0 == 0 is True. Which other condition must hold?",
        ),
        Wrong(
            "background unknown",
            right.then(lambda out, a: torch.where(a.label_map > 0, out, OUTSIDE)),
            "You return 255 for background pixels. They get 0; 255 is for pixels outside the image.",
            KNOWN,
        ),
        Wrong(
            "pairs with background unknown",
            pairs_with_background_ignored,
            "You return 255 for pairs with a background pixel. They get 0; 255 is for pixels outside the image.",
            KNOWN,
        ),
        Wrong(
            "all objects are one",
            right.given(label_map=lambda a: (a.label_map > 0).long()),
            "You return 1 for pixels of two different objects. Return 1 only if both belong to the same object.",
            "Compare the two labels. It is not enough that both are above 0.",
        ),
        Wrong(
            "boundaries",
            right.then(lambda out, a: torch.where(out == OUTSIDE, out, 1 - out)),
            "You return 1 for pairs that do not belong together. 1 means that both pixels belong to one object.",
            "A large affinity means that two pixels belong to the same object.",
        ),
        Wrong(
            "one step only",
            _other_offsets(lambda dy, dx: (int(np.sign(dy)), int(np.sign(dx)))),
            "You compare with the next pixel in the direction of the offset. (-3, 0) is 3 rows away.",
            "Offsets are displacements in pixels, not directions.",
        ),
        Wrong(
            "8 neighbours",
            right.given(offsets=lambda a: [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]),
            "You compare with the 8 neighbours of each pixel. Compare only with the pixels at the given offsets.",
            "Your result has one plane per neighbour. How many planes does the exercise ask for?",
        ),
        Wrong(
            "planes last",
            right.then(lambda out, a: out.movedim(0, -1)),
            "The offsets are the last axis of your result. Its shape should be (A, H, W).",
            "torch.stack puts the new axis first.",
        ),
        Wrong(
            "background at the border is 0",
            right.then(lambda out, a: torch.where((out == OUTSIDE) & (a.label_map == 0), 0, out)),
            "At the border, you return 255 for object pixels only. It is 255 for background pixels as well.",
            "The other pixel is unknown, whatever this one is.",
        ),
        Wrong(
            "255 in int8",
            right.then(lambda out, a: out.to(torch.int8)),
            "Your result is int8, in which 255 becomes -1. Use a larger type.",
            "int8 ends at 127.",
        ),
        Wrong(
            "offsets shortened",
            right.given(offsets=_shortened),
            "You shorten offsets that are larger than the image. Their other pixels lie outside, so the value is 255.",
            BORDER,
        ),
        Wrong(
            "columns wrap around",
            _columns_wrap,
            "You test the border along y only, so columns wrap around. Outside the image the value is 255.",
            BORDER,
        ),
        Wrong(
            "sign lost",
            _other_offsets(lambda dy, dx: (abs(dy), abs(dx))),
            "Your negative offsets lose their sign. (-1, 0) is the pixel above.",
            "Offsets may point in any direction.",
        ),
        Wrong(
            "row H inside",
            _plane_of(_one_beyond),
            "You count row H and column W as inside the image. The last row is H - 1.",
            "Compare with < H, not with <= H.",
        ),
        Wrong(
            "both borders outside",
            _plane_of(_both_sides),
            "You return 255 at both borders of an axis. Only the border in the direction of the offset has unknown "
            "pixels.",
            "With the offset (0, -1), the last column has a left neighbour.",
        ),
        Wrong(
            "shifts add up",
            _shifts_add_up,
            "You apply each offset to the map that you have shifted already. Begin with the label map for each offset.",
            "The planes do not depend on each other.",
        ),
    ],
)
