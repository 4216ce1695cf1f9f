"""The overlap-tile strategy: an image of any size through a net that takes tiles of one size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.semantic.unet import predict_tiles
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.fixtures import ValidFilter


def tile_predict(model: Callable[[Tensor], Tensor], image: Tensor, tile_size: int, margin: int) -> Tensor:
    """Predict a whole image tile by tile; what is outside the image is its mirror image.

    Args:
        model: maps (1, C, tile_size, tile_size) to (1, K, s, s) with s = tile_size - 2 margin.
        image: (C, H, W), H and W at least tile_size.
        tile_size: height and width of a tile.
        margin: pixels that the model takes off each side.

    Returns:
        (K, H, W).
    """
    return predict_tiles(model, image, tile_size=tile_size)


def _case(
    rng: np.random.Generator, name: str, image: tuple[int, int, int], tile_size: int, margin: int, classes: int
) -> Case:
    model = ValidFilter(margin=margin, num_classes=classes, seed=int(rng.integers(2**31)), size=tile_size)
    pixels = torch.from_numpy(rng.uniform(0.2, 1.0, image).astype(np.float32))
    return {"name": name, "args": [model, pixels, tile_size, margin]}


def tile_predict_cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """A last tile that hangs over, sizes that fit exactly, one tile, one pixel too many."""
    return {
        "core": (
            2,
            [
                _case(rng, "a 17 x 22 image, tiles of 10, margin 2", (3, 17, 22), 10, 2, 2),
                _case(rng, "a 19 x 15 image, tiles of 9, margin 1", (1, 19, 15), 9, 1, 3),
            ],
        ),
        "edge": (
            1,
            [
                _case(rng, "an image that the tiles fill exactly", (2, 12, 18), 10, 2, 2),
                _case(rng, "one pixel more than the tiles fill", (1, 13, 19), 10, 2, 1),
                _case(rng, "an image of the size of one tile", (1, 8, 8), 8, 3, 2),
            ],
        ),
    }


def _tiles(
    pad_mode: str = "reflect", stride: int = 0, lose_last: bool = False, starts: Callable | None = None
) -> Callable:
    """A tiler that is right but for the parts given; `stride` is a multiple of the margin to add."""

    def answer(model: Callable, image: Tensor, tile_size: int, margin: int) -> Tensor:
        _, height, width = image.shape
        valid = tile_size - 2 * margin
        step = valid + stride * margin
        beyond = margin + 2 * tile_size
        padded = np.pad(image.numpy(), ((0, 0), (margin, beyond), (margin, beyond)), mode=pad_mode)
        out = None
        for top in _starts(height, valid, step, lose_last):
            for left in _starts(width, valid, step, lose_last):
                tile = torch.from_numpy(padded[:, top : top + tile_size, left : left + tile_size])
                logits = model(tile[None])[0]
                out = torch.zeros(len(logits), height, width) if out is None else out
                part = out[:, top : top + valid, left : left + valid]
                part += logits[:, : part.shape[1], : part.shape[2]]
        return out

    return answer


def _starts(size: int, valid: int, step: int, lose_last: bool) -> range:
    return range(0, size - valid + 1, step) if lose_last else range(0, size, step)


def _sum_where_tiles_overlap(model: Callable, image: Tensor, tile_size: int, margin: int) -> Tensor:
    _, height, width = image.shape
    valid = tile_size - 2 * margin
    padded = np.pad(image.numpy(), ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    out = None
    for top in range(0, height + valid - 1, valid):
        for left in range(0, width + valid - 1, valid):
            # the last tile is moved back until it ends at the border
            y, x = min(top, height - valid), min(left, width - valid)
            logits = model(torch.from_numpy(padded[None, :, y : y + tile_size, x : x + tile_size]))[0]
            out = torch.zeros(len(logits), height, width) if out is None else out
            out[:, y : y + valid, x : x + valid] += logits
            if left >= width - valid:
                break
        if top >= height - valid:
            break
    return out


def _whole_tiles_only(model: Callable, image: Tensor, tile_size: int, margin: int) -> Tensor:
    _, height, width = image.shape
    valid = tile_size - 2 * margin
    return predict_tiles(model, image, tile_size)[:, : height // valid * valid, : width // valid * valid]


exercise = Exercise(
    name="tile_predict",
    points=3,
    cases=tile_predict_cases,
    reference=tile_predict,
    wrong=[
        Wrong(
            "overlaps summed",
            _sum_where_tiles_overlap,
            "You add up the logits where two output tiles overlap, without dividing by how many there are.",
            hint="Where your last tile was moved back, some pixels are predicted twice.",
        ),
        Wrong(
            "zeros outside",
            _tiles(pad_mode="constant"),
            "You pad with zeros; what is missing at the border has to be mirrored.",
            hint="Look at the first rows of your result: they see black pixels that are not in the image.",
        ),
        Wrong(
            "border pixel doubled",
            _tiles(pad_mode="symmetric"),
            "Your mirror repeats the border pixel itself.",
            hint="In np.pad this is the difference between the modes symmetric and reflect.",
        ),
        Wrong(
            "border repeated",
            _tiles(pad_mode="edge"),
            "You repeat the border pixels instead of mirroring the image.",
            hint="The row above the first one has to be the second row.",
        ),
        Wrong(
            "last tile lost",
            _tiles(lose_last=True),
            "You leave zeros where the last tile, the one that hangs over, should be.",
            hint="Count the tiles with a division that rounds up.",
        ),
        Wrong(
            "result too small",
            _whole_tiles_only,
            "Your result is smaller than the image: the last tile, the one that hangs over, is missing.",
            hint="Count the tiles with a division that rounds up, and cut off at the end what is too much.",
        ),
        Wrong(
            "stride of the input tile",
            _tiles(stride=2),
            "You step by the size of the input tile: the output tiles are smaller and leave holes.",
            hint="The outputs have to lie side by side. How large is one output?",
        ),
        Wrong(
            "stride one margin too large",
            _tiles(stride=1),
            "You step by the tile size less one margin, but the model takes the margin off both sides.",
            hint="The outputs have to lie side by side. How large is one output?",
        ),
    ],
    tolerance=1e-5,
    kind="map",
    hides=["segedu.semantic.unet"],
)
