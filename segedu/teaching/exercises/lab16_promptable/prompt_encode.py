"""prompt_encode: clicks as vectors, by where they are and what they say."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Size = tuple[int, int]


def prompt_encode(
    point_coords: Tensor, point_labels: Tensor, image_size: Size, side: int, frequencies: Tensor, embeddings: Tensor
) -> Tensor:
    """Make a vector of each click, as SAM's prompt encoder does.

    SAM sees the image enlarged or reduced so that its longer side has `side` pixels, in the upper left corner of a
    square of side x side.

    1. A point is multiplied by side / longer side of the image. Half a pixel is added to x and y, since a whole number
       means the middle of a pixel. Divided by `side` they are parts of the square, from 0 to 1.
    2. 2 * part - 1 is from -1 to 1. The row (x, y) of these numbers times `frequencies`, times 2 pi, are F angles. The
       position is F sines, and after them F cosines.
    3. A learnt vector is added that says what the click means: row 0 of `embeddings` for label 0, "not this", and row
       1 for label 1, "this". A label of -1 fills up a list of clicks: such a point has no position, only row 2.

    Args:
        point_coords: (P, 2) floats, (x, y) in pixels of the image. Perhaps P = 0.
        point_labels: (P,) integers, 1, 0 or -1.
        image_size: (H, W) of the image in pixels.
        side: of the square, in pixels.
        frequencies: (2, F) floats, drawn once at random.
        embeddings: (3, 2 F) floats.

    Returns:
        (P, 2 F) floats.

    Example: the middle of the square, and a point that is only there to fill up. sin(0) = 0 and cos(0) = 1.

        >>> coords, labels = torch.tensor([[1.5, 1.5], [0.0, 0.0]]), torch.tensor([1, -1])
        >>> rows = torch.tensor([[0.0, 0.0], [3.0, 5.0], [7.0, 7.0]])
        >>> prompt_encode(coords, labels, (4, 4), 4, torch.ones(2, 1), rows)
        tensor([[3., 6.],
                [7., 7.]])
    """
    position = _waves(_parts(point_coords, image_size, side), frequencies)
    return position * (point_labels >= 0)[:, None] + _said(point_labels, embeddings)


def _parts(points: Tensor, image_size: Size, side: int) -> Tensor:
    """(P, 2), parts of the square."""
    return (points * side / max(image_size) + 0.5) / side


def _waves(parts: Tensor, frequencies: Tensor) -> Tensor:
    """(P, 2 F)."""
    angles = 2 * math.pi * (2 * parts - 1) @ frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _said(labels: Tensor, embeddings: Tensor) -> Tensor:
    """(P, 2 F); -1 is the last row."""
    return embeddings[labels]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Wide and high images, larger and smaller than the square; padding among clicks, nothing else, and no click.

    Args:
        rng: of points, labels, frequencies and learnt vectors.

    Returns:
        The cases by group. Points are never at the middle of a side, and x and y are apart.
    """

    def case(name: str, labels: list[int], size: Size, side: int, width: int = 4, on_whole: bool = False) -> Case:
        H, W = size
        x, y = rng.uniform(0.55, 0.9, len(labels)) * W, rng.uniform(0.05, 0.35, len(labels)) * H
        points = np.stack([x, y], axis=1)
        points = np.floor(points) if on_whole else points
        frequencies = rng.uniform(0.4, 1.6, (2, width)) * rng.choice([-1, 1], (2, width))
        embeddings = rng.uniform(0.5, 1.5, (3, 2 * width)) * rng.choice([-1, 1], (3, 2 * width))
        arrays = points.reshape(-1, 2), np.array(labels, dtype=np.int64)
        return {
            "name": name,
            "args": [*map(torch.from_numpy, arrays), size, side, *map(torch.from_numpy, (frequencies, embeddings))],
        }

    wide, high = int(rng.integers(18, 24)), int(rng.integers(40, 50))
    return {
        "core": (
            2,
            [
                case("a wide image", [1, 0, 1], (wide, 48), 16),
                case("a high image", [0, 1], (high, 20), 64, width=3),
                case("whole pixels", [1, 0, 0, 1], (12, 15), 30, on_whole=True),
            ],
        ),
        "edge": (
            1,
            [
                case("padding among clicks", [1, -1, 0, -1], (24, 40), 32),
                case("padding only", [-1, -1], (10, 8), 16, width=2),
                case("an image of the square's size", [0], (8, 8), 8, width=1),
                case("no click", [], (16, 20), 32, width=2),
            ],
        ),
    }


def _encoded(
    parts: Callable[[Tensor, Size, int], Tensor] = _parts,
    waves: Callable[[Tensor, Tensor], Tensor] = _waves,
    said: Callable[[Tensor, Tensor], Tensor] = _said,
    placed: Callable[[Tensor], Tensor] = lambda labels: labels >= 0,
    end: Callable[[Tensor, Tensor], Tensor] = lambda vectors, labels: vectors,
) -> Callable[..., Tensor]:
    """The right answer, each step replaced by another."""

    def answer(
        point_coords: Tensor, point_labels: Tensor, image_size: Size, side: int, frequencies: Tensor, embeddings: Tensor
    ) -> Tensor:
        position = waves(parts(point_coords, image_size, side), frequencies)
        return end(position * placed(point_labels)[:, None] + said(point_labels, embeddings), point_labels)

    return answer


def _by(angles: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Sines and cosines of other angles."""

    def waves(parts: Tensor, frequencies: Tensor) -> Tensor:
        found = angles(parts, frequencies)
        return torch.cat([found.sin(), found.cos()], dim=1)

    return _encoded(waves=waves)


def _joined(waves: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Sines and cosines put together otherwise."""

    def both(parts: Tensor, frequencies: Tensor) -> Tensor:
        angles = 2 * math.pi * (2 * parts - 1) @ frequencies
        return waves(angles.sin(), angles.cos())

    return _encoded(waves=both)


def concatenated(
    point_coords: Tensor, point_labels: Tensor, image_size: Size, side: int, frequencies: Tensor, embeddings: Tensor
) -> Tensor:
    """Position and meaning side by side."""
    position = _waves(_parts(point_coords, image_size, side), frequencies) * (point_labels >= 0)[:, None]
    return torch.cat([position, embeddings[point_labels]], dim=1)


y_before_x = _encoded(parts=lambda p, size, side: _parts(p.flip(1), size, side))
not_scaled = _encoded(parts=lambda p, size, side: (p + 0.5) / side)
parts_of_the_image = _encoded(parts=lambda p, size, side: (p + 0.5) / torch.tensor(size[::-1]))
stretched = _encoded(parts=lambda p, size, side: (p * side / torch.tensor(size[::-1]) + 0.5) / side)
shorter_side = _encoded(parts=lambda p, size, side: _parts(p, (min(size),) * 2, side))
height_as_side = _encoded(parts=lambda p, size, side: _parts(p, (size[0],) * 2, side))
width_as_side = _encoded(parts=lambda p, size, side: _parts(p, (size[1],) * 2, side))
no_half = _encoded(parts=lambda p, size, side: _parts(p, size, side) - 0.5 / side)
half_before = _encoded(parts=lambda p, size, side: (p + 0.5) / max(size))
whole_pixels = _encoded(parts=lambda p, size, side: ((p * side / max(size)).floor() + 0.5) / side)
divided_by_image = _encoded(parts=lambda p, size, side: (p * side / max(size) + 0.5) / max(size))
from_zero = _by(lambda parts, f: 2 * math.pi * parts @ f)
no_pi = _by(lambda parts, f: (2 * parts - 1) @ f)
one_pi = _by(lambda parts, f: math.pi * (2 * parts - 1) @ f)
frequencies_reshaped = _by(lambda parts, f: 2 * math.pi * (2 * parts - 1) @ f.reshape(-1, 2).T)
cosines_first = _joined(lambda s, c: torch.cat([c, s], dim=1))
in_turn = _joined(lambda s, c: torch.stack([s, c], dim=2).flatten(1))
sines_only = _joined(lambda s, c: torch.cat([s, s], dim=1))
label_ignored = _encoded(said=lambda k, e: e[k.clamp(max=0) + 1 * (k >= 0)])
labels_swapped = _encoded(said=lambda k, e: e[[1, 0, 2]][k])
one_row_on = _encoded(said=lambda k, e: e[k + 1])
sign_of_one = _encoded(said=lambda k, e: torch.where(k[:, None] == 0, -e[1], e[k]))
nothing_said = _encoded(said=lambda k, e: 0 * e[k])
padding_placed = _encoded(placed=lambda k: k >= -1)
padding_as_background = _encoded(said=lambda k, e: e[k.clamp(min=0)])
padding_as_foreground = _encoded(said=lambda k, e: e[k.abs()])
padding_is_zero = _encoded(said=lambda k, e: e[k] * (k >= 0)[:, None])
padding_dropped = _encoded(end=lambda vectors, k: vectors[k >= 0])
background_not_placed = _encoded(placed=lambda k: k > 0)
one_more = _encoded(end=lambda vectors, k: torch.cat([vectors, 0 * vectors[:1]]))
needs_a_click = _encoded(end=lambda vectors, k: torch.stack(list(vectors)))
summed = _encoded(end=lambda vectors, k: vectors.sum(dim=0))

SCALED = "(points * side / max(H, W) + 0.5) / side"
ANGLES = "angles = 2 * pi * (2 * parts - 1) @ frequencies; torch.cat([sin, cos], dim=1)."
PADDING = "Where the label is -1: the position times 0, plus embeddings[2]."
MEANING = "embeddings[label] is the row of 0 and of 1; row -1 happens to be the last one."

exercise = Exercise(
    name="prompt_encode",
    points=3,
    cases=cases,
    reference=prompt_encode,
    tolerance=1e-5,
    kind="matrix",
    hides=["segedu.promptable.sam.prompt_encoder", "segedu.promptable.sam.sam"],
    wrong=[
        Wrong("y before x", y_before_x, "You read points as (y, x): they are (x, y).", "The first number goes with W."),
        Wrong(
            "no scaling",
            not_scaled,
            "You leave the points in pixels of the image: bring them to the square that SAM sees.",
            SCALED,
        ),
        Wrong(
            "parts of the image",
            parts_of_the_image,
            "You divide x by the width and y by the height: the square is as wide as it is high.",
            "What is beside the image in the square is padding. Positions count it, too.",
        ),
        Wrong(
            "stretched",
            stretched,
            "You stretch the image to the square: both axes are scaled by the same number.",
            SCALED,
        ),
        Wrong("shorter side", shorter_side, "You scale the shorter side to the square: the longer one fits.", SCALED),
        Wrong("always the height", height_as_side, "You always scale by the height: take the longer side.", SCALED),
        Wrong("always the width", width_as_side, "You always scale by the width: take the longer side.", SCALED),
        Wrong("no half", no_half, "You leave out half a pixel: whole numbers are the middles of pixels.", SCALED),
        Wrong(
            "half before scaling",
            half_before,
            "You add half a pixel before you scale: it is half a pixel of the square.",
            SCALED,
        ),
        Wrong("whole pixels", whole_pixels, "You round down to whole pixels: keep the fractions.", SCALED),
        Wrong(
            "divided by the image",
            divided_by_image,
            "You divide by the longer side of the image: by that of the square.",
            SCALED,
        ),
        Wrong("from 0 to 1", from_zero, "Your parts are from 0 to 1: bring them to -1 to 1 first.", ANGLES),
        Wrong("no 2 pi", no_pi, "You leave out 2 pi.", ANGLES),
        Wrong(
            "half the angles",
            one_pi,
            "Your angles are half as large: it is 2 pi, and 2 * part - 1.",
            ANGLES,
        ),
        Wrong(
            "frequencies reshaped",
            frequencies_reshaped,
            "You reshape the frequencies to pairs: their first row belongs to x and their second to y.",
            "(P, 2) @ (2, F).",
        ),
        Wrong("cosines first", cosines_first, "Your cosines come first: sines do.", ANGLES),
        Wrong("in turn", in_turn, "Your sines and cosines come in turn: all sines come first.", ANGLES),
        Wrong("sines only", sines_only, "You take sines only: a sine cannot tell x from half a turn minus x.", ANGLES),
        Wrong(
            "label ignored",
            label_ignored,
            'All your clicks say "this": label 0 says "not this".',
            MEANING,
        ),
        Wrong("labels swapped", labels_swapped, 'You swap the labels: 1 says "this", in row 1.', MEANING),
        Wrong(
            "one row on",
            one_row_on,
            "You take row label + 1: row 0 belongs to label 0, row 1 to label 1, and row 2 to padding.",
            MEANING,
        ),
        Wrong(
            "minus one vector",
            sign_of_one,
            'You take minus the vector of "this" for "not this": both are learnt, each for itself.',
            MEANING,
        ),
        Wrong("nothing said", nothing_said, "You leave out what the clicks say.", MEANING),
        Wrong("padding has a position", padding_placed, "Your padding has a position: it is nowhere.", PADDING),
        Wrong(
            "padding as background", padding_as_background, 'Your padding says "not this": it says nothing.', PADDING
        ),
        Wrong("padding as foreground", padding_as_foreground, 'Your padding says "this": it says nothing.', PADDING),
        Wrong("padding is 0", padding_is_zero, "Your padding is 0: it has a learnt vector of its own.", PADDING),
        Wrong(
            "padding dropped",
            padding_dropped,
            "You drop the padding: it keeps its rows.",
            "A batch has to stay a rectangle.",
        ),
        Wrong(
            "background without position",
            background_not_placed,
            'Your clicks that say "not this" have no position: only padding has none.',
            PADDING,
        ),
        Wrong("one more", one_more, "You add a point: here padding is given, and none is added.", "P rows."),
        Wrong(
            "fails without clicks",
            needs_a_click,
            "Your function fails where there is no click: then it returns (0, 2 F), no rows.",
            "torch.stack([]) is an error. Work on all clicks at once, or begin with an empty tensor.",
        ),
        Wrong("sum", summed, "You add up all clicks: each stays a vector of its own.", "(P, 2 F)."),
        Wrong("side by side", concatenated, "You put position and meaning side by side: they are added.", "(P, 2 F)."),
    ],
)
