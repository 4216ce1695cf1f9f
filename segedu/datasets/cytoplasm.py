"""Synthetic microscope images of whole cells in two stains: the body in green, its nucleus in blue; red is empty.

This is the input format of Cellpose: one channel shows the cytoplasm, another the nuclei. The cells of a sheet touch
each other, their outlines are irregular, and their brightness hardly indicates where one cell ends: a threshold
separates the sheet or the nuclei from the background, but not the cells from each other.

A scene depends only on its seed and its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.datasets.cells import Nucleus
from segedu.datasets.microscope import check_span, draw_count, expose, largest_parts, uneven_light
from segedu.datasets.sample import compact, make_sample
from segedu.datasets.scenes import Scenes
from segedu.datasets.texture import check_count, scene_rng, smooth_field
from segedu.validation.numbers import check_number, check_size

CYTOPLASM_VERSION = 1  # Increase it when a scene changes: every measured result must then be measured again.
CLASSES = ("background", "cell")
_MIN_SIZE = 16
_WAVES = (0.2, 0.16, 0.11)  # the largest w_k of a body: see `Nucleus`
_STRETCH = 1.35  # the longest half axis of a body, in mean radii
_CLOSEST = 0.72  # smallest distance of two centres, in sums of their mean radii


def _centre(rng: np.random.Generator, size: tuple, centres: np.ndarray, radius: float, touching: float) -> np.ndarray:
    """A random centre, with probability `touching` next to an existing cell; `centres` holds (row, column, radius)."""
    if rng.uniform() < touching and len(centres):
        other, direction = centres[rng.integers(len(centres))], rng.uniform(0, 2 * np.pi)
        gap = (radius + other[2]) * rng.uniform(0.75, 0.95)
        candidate = other[:2] + gap * np.array([np.sin(direction), np.cos(direction)])
        if ((candidate >= 0) & (candidate < size)).all():
            return candidate
    return rng.uniform(0, 1, 2) * size


def _arrange(rng: np.random.Generator, size, count, radius: tuple[float, float], touching: float) -> np.ndarray:
    """Centre and mean radius (N, 3) of as many cells as fit, up to a random number within `count`."""
    target_count = draw_count(rng, count, 0.8 * size[0] * size[1] / (np.pi * np.mean(radius) ** 2))
    centres = np.zeros((0, 3))
    for _ in range(30 * target_count):
        if len(centres) == target_count:
            break
        mean = rng.uniform(*radius)
        centre = _centre(rng, size, centres, mean, touching)
        if (np.hypot(*(centres[:, :2] - centre).T) >= _CLOSEST * (centres[:, 2] + mean)).all():
            centres = np.append(centres, [[*centre, mean]], axis=0)
    return centres


def _wavy(rng: np.random.Generator, row: float, column: float, mean: float, waves: tuple) -> Nucleus:
    stretch = rng.uniform(1.0, _STRETCH)
    wobble, phase = rng.uniform(0.3, 1.0, 3) * waves, rng.uniform(0, 2 * np.pi, 3)
    return Nucleus(row, column, mean * stretch, mean / stretch, rng.uniform(0, np.pi), tuple(wobble), tuple(phase))


def _draw_nucleus(rng: np.random.Generator, body: Nucleus) -> Nucleus:
    """A random nucleus of a cell body: at most a third of its area, off its centre, randomly stretched."""
    mean, direction, offset = np.sqrt(body.a * body.b), rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.22)
    row, column = body.row + offset * mean * np.sin(direction), body.column + offset * mean * np.cos(direction)
    return _wavy(rng, row, column, mean * rng.uniform(0.42, 0.55), (0.03, 0.03, 0.02))


class _CellLayer:
    """The cell of each pixel, its relative depth, and the mask of nuclei."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], centres: np.ndarray):
        shape = len(centres), *size
        self.owner, self.relative_depth = np.zeros(size, np.int32), np.ones(size)
        self.nuclei, self.core = np.zeros(size, np.int32), np.ones(size)
        scale = float(centres[:, 2].mean()) if shape[0] else 1.0
        grid = np.mgrid[: size[0], : size[1]] + 0.5
        # One deformation for all cells: borders between cells become wavy too, and no cell gets a hole.
        coarse, fine = (np.stack([smooth_field(rng, size, scale * cell) for _ in "yx"]) for cell in (1.0, 0.4))
        self.grid = grid + scale * (0.16 * coarse + 0.05 * fine)
        self.reach = 0.22 * scale + 2  # the largest deformation, and a pixel
        for number, (row, column, mean) in enumerate(centres, start=1):
            body = _wavy(rng, row, column, mean, _WAVES)
            self._claim(number, body, self.owner, self.relative_depth)
            self._claim(number, _draw_nucleus(rng, body), self.nuclei, self.core)
        self.owner = largest_parts(self.owner)
        self.nuclei = largest_parts(np.where(self.nuclei == self.owner, self.nuclei, 0))

    def _claim(self, number: int, shape: Nucleus, owner: np.ndarray, depth_map: np.ndarray) -> None:
        """Assign to a shape the pixels that lie deeper in it than in earlier shapes."""
        reach = shape.a * (1 + sum(shape.wobble)) + self.reach
        spans = zip((shape.row, shape.column), owner.shape, strict=True)
        window = tuple(slice(max(0, int(c - reach)), min(side, int(c + reach) + 2)) for c, side in spans)
        depth = shape.depth(*self.grid[(slice(None), *window)])
        wins = depth < depth_map[window]
        owner[window][wins], depth_map[window][wins] = number, depth[wins]


def _stain(rng: np.random.Generator, layer: _CellLayer) -> tuple[np.ndarray, np.ndarray]:
    """Light of the two dyes, (H, W) each; every cell has its own random uptake."""
    size, num_labels = layer.owner.shape, int(layer.owner.max()) + 1
    grain = 0.6 * smooth_field(rng, size, 4.5) + 0.6 * smooth_field(rng, size, 2.0)
    bright = np.append(0, 0.3 + 0.7 * rng.uniform(size=num_labels - 1) ** 1.3)[layer.owner]
    flat = 0.55 + 0.45 * np.sqrt(np.clip(1 - layer.relative_depth**2, 0, None))  # thick in the middle, thin at the rim
    body = bright * flat * (1 + 0.3 * grain)
    rim = ndimage.maximum_filter(layer.owner, 3) != ndimage.minimum_filter(layer.owner, 3)
    body = np.where(rim, 0.72 * body, body) * np.where(layer.nuclei > 0, 0.4, 1)
    dye = np.append(0, 0.25 + 0.75 * rng.uniform(size=num_labels - 1))[layer.nuclei]
    nuclei = dye * np.sqrt(np.clip(1 - 0.7 * layer.core**2, 0, None)) * (1 + 0.25 * grain[::-1])
    return body, nuclei


def _photograph(rng: np.random.Generator, layer: _CellLayer, noise: float, unevenness: float) -> np.ndarray:
    """Image (3, H, W) in [0, 1]: blur, haze, bleed-through of the dyes, uneven light, photon and camera noise."""
    size = layer.owner.shape
    blurred = [ndimage.gaussian_filter(dye, 0.8) for dye in _stain(rng, layer)]
    haze = [ndimage.gaussian_filter(dye, 10, truncate=2.5) for dye in blurred]
    body, nuclei = (0.85 * a + 0.15 * b for a, b in zip(blurred, haze, strict=True))
    picture = np.zeros((3, *size))
    for channel, dye in ((1, body + 0.06 * nuclei), (2, 0.9 * nuclei + 0.06 * body)):
        light, stray = uneven_light(rng, size, unevenness)
        picture[channel] = expose(rng, light * dye + 0.6 * stray, noise)
    return picture


def draw_cytoplasm(
    seed: int | tuple[int, ...],
    size: tuple[int, int] = (128, 128),
    *,
    count: int | tuple[int, int] | None = None,
    radius: tuple[float, float] = (10.0, 16.0),
    touching: float = 0.8,
    noise: float = 1.0,
    unevenness: float = 1.0,
) -> dict[str, Tensor]:
    """Draw one image of cells with their nuclei.

    Args:
        seed: an integer, or a tuple such as (seed, index); the same seed gives the same scene.
        size: height and width, at least 16 each.
        count: how many cells, or (lowest, highest); 0 is allowed; by default half of the area or more is covered.
            Fewer are drawn if they do not fit.
        radius: smallest and largest mean radius of a cell in pixels, 3 to 200.
        touching: probability that a cell is put against another, 0 to 1.
        noise: strength of photon and camera noise, 0 (none) to 10; 1 is a typical exposure.
        unevenness: strength of uneven and stray light, 0 (none) to 1.

    Returns:
        `image` float32 (3, H, W) in [0, 1]: red is 0, green shows cell bodies, blue nuclei; `semantic` int64 (H, W),
        indices into `CLASSES`; `label_map` int32 (H, W) of whole cells, 0 for background, 1..N, each in one piece;
        `nuclei_map` int32 (H, W): nucleus k lies in cell k, in one piece, and is absent where the border of the image
        cuts it off; `boxes` float32 (N, 4) xyxy; `labels` int64 (N,), all 1; `masks` bool (N, H, W). N may be 0.
    """
    size = check_size("size", size, _MIN_SIZE)
    count = None if count is None else check_count(count)
    radius = check_span("radius", radius, 3, 200)
    touching = check_number("touching", touching, 0, 1)
    noise = check_number("noise", noise, 0, 10)
    unevenness = check_number("unevenness", unevenness, 0, 1)
    rng = scene_rng(seed)
    layer = _CellLayer(rng, size, _arrange(rng, size, count, radius, touching))
    image = _photograph(rng, layer, noise, unevenness)
    ids, old_labels = compact(torch.from_numpy(layer.owner))
    renumber = torch.zeros(int(layer.owner.max()) + 1, dtype=torch.int32)
    renumber[old_labels] = torch.arange(1, len(old_labels) + 1, dtype=torch.int32)
    nuclei = renumber[torch.from_numpy(layer.nuclei).long()]
    return make_sample(image, ids.numpy(), np.ones(len(old_labels))) | {"nuclei_map": nuclei}


class Cytoplasm(Scenes):
    """`length` images of `draw_cytoplasm`; item i depends only on (seed, i), the size and the arguments of the scene.

    Args:
        length: number of images.
        seed: use different seeds for training and validation.
        size: (H, W).
        transforms: called with the sample dict, see `segedu.datasets.transforms`.
        scene: further arguments of `draw_cytoplasm`.
    """

    def __init__(
        self,
        length: int,
        seed: int = 0,
        size: tuple[int, int] = (128, 128),
        transforms: Callable | None = None,
        **scene: Any,
    ):
        super().__init__(draw_cytoplasm, length, seed, check_size("size", size, _MIN_SIZE), transforms, **scene)
