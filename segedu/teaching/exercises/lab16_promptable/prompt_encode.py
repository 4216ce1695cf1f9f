"""prompt_encode: embeddings of clicks, from their positions and labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import itemgetter
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Size = tuple[int, int]


def prompt_encode(
    point_coords: Tensor, point_labels: Tensor, image_size: Size, side: int, frequencies: Tensor, embeddings: Tensor
) -> Tensor:
    """Compute one embedding per click, as SAM's prompt encoder does.

    SAM resizes the image so that its longer side has `side` pixels, and pads it to a square of side x side, with the
    image in the upper left corner.

    1. Multiply a point by side / longer side of the image. Add half a pixel to x and y, because an integer coordinate
       is the centre of a pixel. Divide by `side`: the coordinates are now relative to the square, from 0 to 1.
    2. Map them to 2 * relative - 1, from -1 to 1. The row (x, y) of these coordinates times `frequencies`, times 2 pi,
       is a row of F angles. The positional encoding consists of their F sines, followed by their F cosines.
    3. Add a learned vector for the label of the click: row 0 of `embeddings` for label 0 (background, "not this"), and
       row 1 for label 1 (foreground, "this"). Label -1 marks padding of a list of clicks: padding has no positional
       encoding, only row 2.

    Args:
        point_coords: (P, 2) floats, (x, y) in pixels of the image. P may be 0.
        point_labels: (P,) integers, 1, 0 or -1.
        image_size: (H, W) of the image in pixels.
        side: side of the square in pixels.
        frequencies: (2, F) floats, random and fixed.
        embeddings: (3, 2 F) floats.

    Returns:
        (P, 2 F) floats.

    Example: the middle of the square, and padding. sin(0) = 0 and cos(0) = 1.

        >>> coords, labels = torch.tensor([[1.5, 1.5], [0.0, 0.0]]), torch.tensor([1, -1])
        >>> rows = torch.tensor([[0.0, 0.0], [3.0, 5.0], [7.0, 7.0]])
        >>> prompt_encode(coords, labels, (4, 4), 4, torch.ones(2, 1), rows)
        tensor([[3., 6.],
                [7., 7.]])
    """
    angles = _angles(_relative(point_coords, image_size, side), frequencies)
    position = torch.cat([angles.sin(), angles.cos()], dim=1)
    return position * (point_labels >= 0)[:, None] + embeddings[point_labels]


def _relative(points: Tensor, image_size: Size, side: int) -> Tensor:
    """(P, 2), relative to the square."""
    return (points * side / max(image_size) + 0.5) / side


def _angles(relative: Tensor, frequencies: Tensor) -> Tensor:
    """(P, F)."""
    return 2 * math.pi * (2 * relative - 1) @ frequencies


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Wide and high images, larger and smaller than the square; padding among clicks, only padding, no click.

    Points are never in the middle of a side, and x and y differ clearly.
    """

    def clicks(labels: list[int], size: Size, side: int, width: int = 4, integers: bool = False) -> list:
        """The arguments, with F = width."""
        H, W = size
        x, y = rng.uniform(0.55, 0.9, len(labels)) * W, rng.uniform(0.05, 0.35, len(labels)) * H
        points = np.stack([x, y], axis=1)
        points = np.floor(points) if integers else points
        frequencies = rng.uniform(0.4, 1.6, (2, width)) * rng.choice([-1, 1], (2, width))
        embeddings = rng.uniform(0.5, 1.5, (3, 2 * width)) * rng.choice([-1, 1], (3, 2 * width))
        coords, kinds = torch.from_numpy(points.reshape(-1, 2)), torch.tensor(labels, dtype=torch.int64)
        return [coords, kinds, size, side, torch.from_numpy(frequencies), torch.from_numpy(embeddings)]

    wide, high = int(rng.integers(18, 24)), int(rng.integers(40, 50))
    core = [
        case("a wide image", *clicks([1, 0, 1], (wide, 48), 16)),
        case("a high image", *clicks([0, 1], (high, 20), 64, width=3)),
        case("integer coordinates", *clicks([1, 0, 0, 1], (12, 15), 30, integers=True)),
    ]
    edge = [
        case("padding among clicks", *clicks([1, -1, 0, -1], (24, 40), 32)),
        case("padding only", *clicks([-1, -1], (10, 8), 16, width=2)),
        case("an image of the square's size", *clicks([0], (8, 8), 8, width=1)),
        case("no click", *clicks([], (16, 20), 32, width=2)),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(prompt_encode)


def _with(
    relative: Callable[[Tensor, Size, int], Tensor] = _relative,
    angles: Callable[[Tensor, Tensor], Tensor] = _angles,
    join: Callable[[Tensor, Tensor], Tensor] = lambda sin, cos: torch.cat([sin, cos], dim=1),
    has_position: Callable[[Tensor], Tensor] = lambda labels: labels >= 0,
) -> Callable[..., Tensor]:
    """Another step of the positional encoding."""

    def encoded(a: SimpleNamespace) -> Tensor:
        theta = angles(relative(a.point_coords, a.image_size, a.side), a.frequencies)
        return join(theta.sin(), theta.cos()) * has_position(a.point_labels)[:, None] + a.embeddings[a.point_labels]

    return right.instead(encoded)


def _scaled_by(side: Callable[[Size], int]) -> Callable[..., Tensor]:
    """Another side than the longer one."""
    return right.given(image_size=lambda a: [side(a.image_size)])


def _rows(*rows: int) -> Callable[..., Tensor]:
    """Rows of `embeddings` for background, foreground and padding."""
    return right.given(embeddings=lambda a: a.embeddings[list(rows)])


SCALED = "(points * side / max(H, W) + 0.5) / side"
ANGLES = "angles = 2 * pi * (2 * relative - 1) @ frequencies; torch.cat([sin, cos], dim=1)."
PADDING = "Where the label is -1: the positional encoding times 0, plus embeddings[2]."
MEANING = "embeddings[label] is the row of labels 0 and 1; row -1 happens to be the last one."

WRONG = [
    Wrong(
        "y before x",
        right.given(point_coords=lambda a: a.point_coords.flip(1)),
        "You read points as (y, x). They are (x, y).",
        "The first coordinate belongs to W.",
    ),
    Wrong(
        "no scaling",
        right.given(image_size=lambda a: (a.side, a.side)),
        "You leave the points in pixels of the image. Scale them to the square that SAM processes.",
        SCALED,
    ),
    Wrong(
        "parts of the image",
        _with(relative=lambda points, size, side: (points + 0.5) / torch.tensor(size[::-1])),
        "You divide x by the width of the image and y by its height. Divide both by the side of the square.",
        "The rest of the square is padding. Positions are relative to the whole square.",
    ),
    Wrong(
        "stretched",
        _with(relative=lambda points, size, side: (points * side / torch.tensor(size[::-1]) + 0.5) / side),
        "You stretch the image to the square. Scale both axes by the same factor.",
        SCALED,
    ),
    Wrong("shorter side", _scaled_by(min), "You scale by the shorter side of the image. Use its longer side.", SCALED),
    Wrong(
        "always the height",
        _scaled_by(itemgetter(0)),
        "You always scale by the height of the image. Use its longer side.",
        SCALED,
    ),
    Wrong(
        "always the width",
        _scaled_by(itemgetter(1)),
        "You always scale by the width of the image. Use its longer side.",
        SCALED,
    ),
    Wrong(
        "no half",
        _with(relative=lambda points, size, side: _relative(points, size, side) - 0.5 / side),
        "You do not add half a pixel. Add it, because integer coordinates are the centres of pixels.",
        SCALED,
    ),
    Wrong(
        "half before scaling",
        _with(relative=lambda points, size, side: (points + 0.5) / max(size)),
        "You add half a pixel before you scale the points. Scale them first, then add half a pixel.",
        SCALED,
    ),
    Wrong(
        "whole pixels",
        _with(relative=lambda points, size, side: ((points * side / max(size)).floor() + 0.5) / side),
        "You round the coordinates down to integers. Keep their fractions.",
        SCALED,
    ),
    Wrong(
        "divided by the image",
        _with(relative=lambda points, size, side: (points * side / max(size) + 0.5) / max(size)),
        "You divide by the longer side of the image. Divide by the side of the square.",
        SCALED,
    ),
    Wrong(
        "from 0 to 1",
        _with(angles=lambda relative, frequencies: 2 * math.pi * relative @ frequencies),
        "Your relative coordinates are from 0 to 1. Map them to -1 to 1 first.",
        ANGLES,
    ),
    Wrong(
        "no 2 pi",
        right.given(frequencies=lambda a: a.frequencies / (2 * math.pi)),
        "You leave out the factor 2 pi. Multiply the angles by it.",
        ANGLES,
    ),
    Wrong(
        "half the angles",
        right.given(frequencies=lambda a: a.frequencies / 2),
        "Your angles are half as large as they should be. Map the coordinates to -1 to 1, and multiply by 2 pi.",
        ANGLES,
    ),
    Wrong(
        "frequencies reshaped",
        right.given(frequencies=lambda a: a.frequencies.reshape(-1, 2).T),
        "You reshape the frequencies to pairs. Keep their shape (2, F): the first row belongs to x, the "
        "second row to y.",
        "(P, 2) @ (2, F).",
    ),
    Wrong(
        "cosines first",
        _with(join=lambda sin, cos: torch.cat([cos, sin], dim=1)),
        "You put the cosines first. The sines come first.",
        ANGLES,
    ),
    Wrong(
        "in turn",
        _with(join=lambda sin, cos: torch.stack([sin, cos], dim=2).flatten(1)),
        "Your sines and cosines alternate. All sines come first, then all cosines.",
        ANGLES,
    ),
    Wrong(
        "sines only",
        _with(join=lambda sin, cos: torch.cat([sin, sin], dim=1)),
        "You use only sines, which are equal for an angle and pi minus this angle. Append the cosines.",
        ANGLES,
    ),
    Wrong(
        "label ignored",
        right.given(point_labels=lambda a: a.point_labels.where(a.point_labels < 0, 1)),
        "You encode all clicks as foreground. Clicks with label 0 are background.",
        MEANING,
    ),
    Wrong(
        "labels swapped",
        _rows(1, 0, 2),
        "You swap the two labels. Label 1 is foreground and belongs to row 1, label 0 is background and "
        "belongs to row 0.",
        MEANING,
    ),
    Wrong(
        "one row on",
        _rows(1, 2, 0),
        "You use row label + 1 of the embeddings. Label 0 belongs to row 0, label 1 to row 1, and padding to row 2.",
        MEANING,
    ),
    Wrong(
        "minus one vector",
        right.given(embeddings=lambda a: torch.stack([-a.embeddings[1], *a.embeddings[1:]])),
        "You subtract the foreground vector for background clicks. Add the background's own learned vector.",
        MEANING,
    ),
    Wrong(
        "nothing said",
        right.given(embeddings=lambda a: 0 * a.embeddings),
        "You leave out the embeddings of the labels. Add them to the positional encoding.",
        MEANING,
    ),
    Wrong(
        "padding has a position",
        _with(has_position=lambda labels: labels >= -1),
        "You add a positional encoding to padding. Use only the learned vector of padding.",
        PADDING,
    ),
    Wrong(
        "padding as background",
        _rows(0, 1, 0),
        "You encode padding as background. Use row 2 of the embeddings for padding.",
        PADDING,
    ),
    Wrong(
        "padding as foreground",
        _rows(0, 1, 1),
        "You encode padding as foreground. Use row 2 of the embeddings for padding.",
        PADDING,
    ),
    Wrong(
        "padding is 0",
        right.given(embeddings=lambda a: a.embeddings * torch.tensor([[1], [1], [0]])),
        "You encode padding as 0. Use its learned vector, row 2 of the embeddings.",
        PADDING,
    ),
    Wrong(
        "padding dropped",
        right.then(lambda out, a: out[a.point_labels >= 0]),
        "You drop the padding. Return one row per point, including padding.",
        "A batch has to remain rectangular.",
    ),
    Wrong(
        "background without position",
        _with(has_position=lambda labels: labels > 0),
        "You leave out the positional encoding of background clicks. Only padding has none.",
        PADDING,
    ),
    Wrong(
        "one more",
        right.then(lambda out, a: torch.cat([out, 0 * out[:1]])),
        "You append a point of padding. The arguments already contain the padding.",
        "P rows.",
    ),
    Wrong(
        "fails without clicks",
        right.then(lambda out, a: torch.stack(list(out))),
        "Your function fails if there are no clicks. It should then return shape (0, 2 F).",
        "torch.stack([]) is an error. Process all clicks at once, or begin with an empty tensor.",
    ),
    Wrong(
        "sum",
        right.then(lambda out, a: out.sum(dim=0)),
        "You sum over the clicks. Return one row per click.",
        "(P, 2 F).",
    ),
    Wrong(
        "side by side",
        Variants(right.given(embeddings=lambda a: 0 * a.embeddings)).then(
            lambda out, a: torch.cat([out, a.embeddings[a.point_labels]], dim=1)
        ),
        "You concatenate the positional encoding and the vector of the label. Add them.",
        "(P, 2 F).",
    ),
]

exercise = Exercise(
    name="prompt_encode",
    points=3,
    cases=cases,
    reference=prompt_encode,
    tolerance=1e-5,
    kind="matrix",
    hides=["segedu.promptable.sam.prompt_encoder", "segedu.promptable.sam.sam"],
    wrong=WRONG,
)
