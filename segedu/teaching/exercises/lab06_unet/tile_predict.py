"""tile_predict: the overlap-tile strategy, which predicts a large image with a network for small tiles."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.semantic.unet import predict_tiles
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.fixtures import ValidFilter
from segedu.teaching.checks.variants import Variants, case


def tile_predict(model: Callable[[Tensor], Tensor], image: Tensor, tile_size: int, margin: int) -> Tensor:
    """Predict a whole image tile by tile; outside the image, its mirror image continues.

    Args:
        model: maps (1, C, tile_size, tile_size) to (1, K, s, s) with s = tile_size - 2 margin.
        image: (C, H, W), H and W at least tile_size.
        tile_size: height and width of a tile.
        margin: pixels that the model removes on each side.

    Returns:
        (K, H, W).
    """
    return predict_tiles(model, image, tile_size=tile_size)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """A last tile that extends beyond the image, sizes that fit exactly, one tile, one pixel too many."""

    def tiles(name: str, image: tuple[int, int, int], tile_size: int, margin: int, classes: int) -> Case:
        model = ValidFilter(margin=margin, num_classes=classes, seed=int(rng.integers(2**31)), size=tile_size)
        pixels = torch.from_numpy(rng.uniform(0.2, 1.0, image).astype(np.float32))
        return case(name, model, pixels, tile_size, margin)

    core = [
        tiles("a 17 x 22 image, tiles of 10, margin 2", (3, 17, 22), 10, 2, 2),
        tiles("a 19 x 15 image, tiles of 9, margin 1", (1, 19, 15), 9, 1, 3),
    ]
    edge = [
        tiles("an image that the tiles fill exactly", (2, 12, 18), 10, 2, 2),
        tiles("one pixel more than the tiles fill", (1, 13, 19), 10, 2, 1),
        tiles("an image of the size of one tile", (1, 8, 8), 8, 3, 2),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(tile_predict)


def _tiles(
    model: Callable,
    image: Tensor,
    tile_size: int,
    margin: int,
    starts: Callable[[int, int], Iterable[int]] = lambda size, valid: range(0, size, valid),
    pad_mode: str = "reflect",
) -> Tensor:
    """The right prediction, except for where the tiles start, given (image size, output size), and the padding."""
    _, height, width = image.shape
    valid, beyond = tile_size - 2 * margin, margin + 2 * tile_size
    padded = np.pad(image.numpy(), ((0, 0), (margin, beyond), (margin, beyond)), mode=pad_mode)
    out = None
    for top, left in itertools.product(starts(height, valid), starts(width, valid)):
        logits = model(torch.from_numpy(padded[None, :, top : top + tile_size, left : left + tile_size]))[0]
        out = torch.zeros(len(logits), height, width) if out is None else out
        part = out[:, top : top + valid, left : left + valid]
        part += logits[:, : part.shape[1], : part.shape[2]]
    return out


def _moved_back(size: int, valid: int) -> list[int]:
    """The last tile is moved back until it ends at the border."""
    return sorted({min(start, size - valid) for start in range(0, size, valid)})


def _sum_where_tiles_overlap(model: Callable, image: Tensor, tile_size: int, margin: int) -> Tensor:
    return _tiles(model, image, tile_size, margin, _moved_back)


def _whole_tiles_only(out: Tensor, image: Tensor, valid: int) -> Tensor:
    _, height, width = image.shape
    return out[:, : height // valid * valid, : width // valid * valid]


def _mirrored(model: Callable, image: Tensor, tile_size: int, margin: int, before: int) -> Tensor:
    """All tiles side by side, with `before` pixels of mirror image above and on the left; not cropped."""
    _, height, width = image.shape
    valid = tile_size - 2 * margin
    rows, columns = -(-height // valid), -(-width // valid)
    pad = [before, columns * valid - width + 2 * margin - before, before, rows * valid - height + 2 * margin - before]
    padded = F.pad(image[None], pad, mode="reflect")
    starts = itertools.product(range(0, rows * valid, valid), range(0, columns * valid, valid))
    tiles = [model(padded[:, :, y : y + tile_size, x : x + tile_size])[0] for y, x in starts]
    lines = [torch.cat(tiles[i : i + columns], dim=2) for i in range(0, len(tiles), columns)]
    return torch.cat(lines, dim=1)


def _shifted_by_margin(out: Tensor, a) -> Tensor:
    """Outputs at the positions of the input tiles in the padded image."""
    moved = torch.zeros_like(out)
    moved[:, a.margin :, a.margin :] = out[:, : out.shape[1] - a.margin, : out.shape[2] - a.margin]
    return moved


def _end_of_last_tile(a) -> Tensor:
    """Keep the end of the output where only a part of it lies in the image."""
    _, height, width = a.image.shape
    valid, whole = a.tile_size - 2 * a.margin, _mirrored(**vars(a), before=a.margin)
    parts = [_kept(height, valid), _kept(width, valid)]
    return whole[:, parts[0]][:, :, parts[1]]


def _kept(size: int, valid: int) -> list[int]:
    starts = range(0, size, valid)
    return [start + valid - min(valid, size - start) + i for start in starts for i in range(min(valid, size - start))]


SIDE_BY_SIDE = "The outputs have to lie side by side. How large is one output?"

exercise = Exercise(
    name="tile_predict",
    points=3,
    cases=cases,
    reference=tile_predict,
    wrong=[
        Wrong(
            "overlaps summed",
            _sum_where_tiles_overlap,
            "You add the logits where two output tiles overlap. Each pixel needs the logits of one tile, or their "
            "mean.",
            "If you moved the last tile back, some pixels are predicted twice.",
        ),
        Wrong(
            "zeros outside",
            right.instead(lambda a: _tiles(**vars(a), pad_mode="constant")),
            "You pad the image with zeros. This exercise expects its mirror image outside the border.",
            "Look at the first rows of your result: they depend on black pixels that are not in the image.",
        ),
        Wrong(
            "border pixel doubled",
            right.instead(lambda a: _tiles(**vars(a), pad_mode="symmetric")),
            "Your mirror image repeats the pixels at the border. Mirror the image without repeating them.",
            "In np.pad, this is the difference between the modes symmetric and reflect.",
        ),
        Wrong(
            "border repeated",
            right.instead(lambda a: _tiles(**vars(a), pad_mode="edge")),
            "You repeat the border pixels. This exercise expects the mirror image outside the border.",
            "The row above the first row has to be the second row.",
        ),
        Wrong(
            "last tile lost",
            right.instead(lambda a: _tiles(**vars(a), starts=lambda size, valid: range(0, size - valid + 1, valid))),
            "You leave zeros at the end of the image. Predict the last tile too, although it extends beyond the image.",
            "Compute the number of tiles with a division that rounds up.",
        ),
        Wrong(
            "result too small",
            right.then(lambda out, a: _whole_tiles_only(out, a.image, a.tile_size - 2 * a.margin)),
            "Your result is smaller than the image. Predict the last tile too, although it extends beyond the image.",
            "Compute the number of tiles with a division that rounds up, and crop the result at the end.",
        ),
        Wrong(
            "stride of the input tile",
            right.instead(lambda a: _tiles(**vars(a), starts=lambda size, valid: range(0, size, a.tile_size))),
            "Your stride is the size of the input tile, which leaves gaps. The output tiles are smaller.",
            SIDE_BY_SIDE,
        ),
        Wrong(
            "stride one margin too large",
            right.instead(lambda a: _tiles(**vars(a), starts=lambda size, valid: range(0, size, valid + a.margin))),
            "Your stride is the tile size minus one margin. The model removes the margin on both sides.",
            SIDE_BY_SIDE,
        ),
        Wrong(
            "no margin in front",
            right.instead(lambda a: _mirrored(**vars(a), before=0)[:, : a.image.shape[1], : a.image.shape[2]]),
            "Your input tile begins where its output begins. It has to begin one margin earlier.",
            "The model removes the margin on every side, so its first output pixel belongs to input pixel m.",
        ),
        Wrong(
            "not cropped",
            right.instead(lambda a: _mirrored(**vars(a), before=a.margin)),
            "Your result is larger than the image. Discard what the last tiles predict beyond the border.",
            "The result has H rows and W columns.",
        ),
        Wrong(
            "classes",
            right.then(lambda out, a: out.argmax(0)),
            "You return the predicted classes, (H, W). Return the output of the model, (K, H, W).",
            "Put the logits together as they are.",
        ),
        Wrong(
            "shifted by the margin",
            right.then(_shifted_by_margin),
            "Your result is shifted by the margin. The output of the first tile begins at row 0 and column 0.",
            "You place outputs at positions in the padded image. Subtract the margin.",
        ),
        Wrong(
            "end of the last tile",
            right.instead(_end_of_last_tile),
            "Of the last tiles, you keep the end. Their beginning lies in the image.",
            "A tile that extends beyond the border predicts its first rows for the image.",
        ),
    ],
    tolerance=1e-5,
    kind="map",
    hides=["segedu.semantic.unet"],
)
