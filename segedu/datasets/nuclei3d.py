"""Synthetic fluorescence volumes: ellipsoidal nuclei that touch, in a microscope with lower resolution in depth.

Along the first axis sections are further apart than pixels are, light is smeared over neighbouring sections, and
deep sections are darker. Nuclei that lie above each other appear connected, and dim nuclei lie next to bright ones: a
single threshold for the volume merges some nuclei and misses others.

A scene depends only on its seed and its arguments. Lengths are in pixels of a section; a section is `step` of them
from the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.datasets.microscope import check_span, draw_count, expose, largest_parts, uneven_light
from segedu.datasets.sample import compact
from segedu.datasets.scenes import Scenes
from segedu.datasets.texture import check_count, scene_rng
from segedu.validation.numbers import check_number, check_size

NUCLEI3D_VERSION = 1  # Increase it when a scene changes: every measured result must then be measured again.
CLASSES = ("background", "nucleus")
_MIN_SIZE = 8
_STRETCH = 1.3  # the longest half axis, in mean radii
_OVERLAP = 0.12  # the largest fraction of a nucleus that others may cover
_SMEAR = (2.2, 0.9)  # standard deviation of the blur along and across the depth, in pixels


@dataclass(frozen=True)
class Ellipsoid:
    """Centre (z, y, x), three half axes, and the rotation (3, 3) whose rows are their directions."""

    centre: np.ndarray
    axes: np.ndarray
    rotation: np.ndarray

    @property
    def volume(self) -> float:
        """Volume in closed form, in cubic pixels: 4/3 pi a b c."""
        return float(4 / 3 * np.pi * self.axes.prod())

    def depth(self, points: np.ndarray) -> np.ndarray:
        """Distance from the centre relative to the distance to the surface; below 1 is inside.

        Args:
            points: (3, ...) of (z, y, x) in pixels.

        Returns:
            An array of shape (...).
        """
        offset = points - self.centre.reshape(3, *[1] * (points.ndim - 1))
        return np.linalg.norm(np.tensordot(self.rotation / self.axes[:, None], offset, 1), axis=0)


class _Block:
    """A canvas that extends beyond the volume: the nucleus of each voxel, and its relative depth."""

    def __init__(self, size: tuple[int, ...], step: float, reach: float):
        self.size, self.scale = size, np.array([step, 1.0, 1.0])
        self.margin = np.ceil(reach / self.scale).astype(int) + 1
        shape = tuple(np.array(size) + 2 * self.margin)
        self.owner, self.relative_depth = np.zeros(shape, np.int32), np.ones(shape)
        self.nuclei: list[Ellipsoid] = []
        self.voxel_counts = np.zeros(0, np.int64)  # number of voxels of each nucleus, including those that others cover
        self.frame = tuple(slice(m, m + side) for m, side in zip(self.margin, size, strict=True))

    def add(self, nucleus: Ellipsoid) -> bool:
        """Add a nucleus, or return False if it overlaps others too much or too little of it is in the volume.

        A voxel inside two nuclei belongs to the one in which its relative depth is smaller.
        """
        middle = nucleus.centre / self.scale + self.margin
        reach = nucleus.axes.max() / self.scale
        spans = np.clip([np.floor(middle - reach), np.ceil(middle + reach)], 0, np.reshape(self.owner.shape, (1, 3)))
        window = tuple(slice(*pair) for pair in spans.astype(int).T)
        positions = np.mgrid[window] + (0.5 - self.margin).reshape(3, 1, 1, 1)
        depth = nucleus.depth(positions * self.scale.reshape(3, 1, 1, 1))
        owner, inside = self.owner[window], depth < 1
        voxels = int(inside.sum())
        shared = np.bincount(owner[inside], minlength=len(self.voxel_counts) + 1)[1:]
        if (shared > _OVERLAP * np.minimum(voxels, self.voxel_counts)).any() or shared.sum() > 2 * _OVERLAP * voxels:
            return False
        number = len(self.voxel_counts) + 1
        claimed = np.where(depth < self.relative_depth[window], number, owner)
        before, self.owner[window] = owner.copy(), claimed
        if (self.owner[self.frame] == number).sum() < max(4, 0.2 * voxels) or self._hides(number):
            self.owner[window] = before
            return False
        self.relative_depth[window] = np.minimum(self.relative_depth[window], depth)
        self.nuclei.append(nucleus)
        self.voxel_counts = np.append(self.voxel_counts, voxels)
        return True

    def _hides(self, number: int) -> bool:
        """Whether one of the labels up to `number` has no voxel in the volume."""
        return bool((np.bincount(self.owner[self.frame].ravel(), minlength=number + 1) == 0)[1:].any())


def _nucleus(rng: np.random.Generator, block: _Block, radius: tuple[float, float], touching: float) -> Ellipsoid:
    """A random nucleus, with probability `touching` next to an existing one, otherwise anywhere."""
    mean, stretch = rng.uniform(*radius), rng.uniform(1 / _STRETCH, _STRETCH, 3)
    axes = mean * np.clip(stretch / np.cbrt(stretch.prod()), 1 / _STRETCH, _STRETCH)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    extent = np.array(block.size) * block.scale
    centre = rng.uniform(0, 1, 3) * extent
    if rng.uniform() < touching and block.nuclei:
        other, towards = block.nuclei[rng.integers(len(block.nuclei))], rng.standard_normal(3)
        gap = (mean + np.cbrt(other.axes.prod())) * rng.uniform(0.85, 1.0)
        centre = np.clip(other.centre + gap * towards / np.linalg.norm(towards), 0, extent - 1e-6)
    return Ellipsoid(centre, axes, turn)


def _arrange(rng: np.random.Generator, block: _Block, count, radius: tuple[float, float], touching: float) -> None:
    """Add as many nuclei as fit, up to a random number within `count`."""
    space = np.prod(block.size) * block.scale[0]
    target_count = draw_count(rng, count, 0.24 * space / (4 / 3 * np.pi * np.mean(radius) ** 3))
    for _ in range(8 * target_count):
        if len(block.nuclei) == target_count:
            break
        block.add(_nucleus(rng, block, radius, touching))


def _photograph(rng: np.random.Generator, block: _Block, noise: float, unevenness: float) -> np.ndarray:
    """Image (D, H, W) in [0, 1]: chromatin, anisotropic blur, haze, light that fades with depth, noise."""
    step, shape = block.scale[0], block.owner.shape
    grain = ndimage.gaussian_filter(rng.standard_normal(shape), 1.6 / block.scale)
    bright = np.append(0, 0.35 + 0.75 * rng.uniform(size=len(block.nuclei)) ** 1.4)[block.owner]
    thick = np.sqrt(np.clip(1 - 0.6 * block.relative_depth**2, 0, None))
    signal = bright * thick * np.clip(1 + 0.22 * grain / grain.std(), 0.2, None)
    axial_sigma, lateral_sigma = _SMEAR
    blurred = ndimage.gaussian_filter(signal, (axial_sigma / step, lateral_sigma, lateral_sigma))[block.frame]
    haze = ndimage.gaussian_filter(blurred, (6 / step, 6, 6), truncate=2.5)
    light, stray = uneven_light(rng, block.size[1:], unevenness)
    fade = np.exp(-0.6 * unevenness * np.linspace(0, 1, block.size[0]))[:, None, None]
    return expose(rng, fade * light * (0.9 * blurred + 0.35 * haze) + 0.6 * stray, noise)


def draw_nuclei3d(
    seed: int | tuple[int, ...],
    size: tuple[int, int, int] = (16, 64, 64),
    *,
    count: int | tuple[int, int] | None = None,
    radius: tuple[float, float] = (6.0, 8.5),
    step: float = 2.0,
    touching: float = 0.7,
    noise: float = 1.0,
    unevenness: float = 1.0,
) -> dict[str, Tensor | tuple[float, ...]]:
    """Draw one volume of nuclei.

    Args:
        seed: an integer, or a tuple such as (seed, index); the same seed gives the same scene.
        size: depth, height and width in voxels, at least 8 each.
        count: how many nuclei, or (lowest, highest); 0 is allowed; by default about a quarter of the volume is
            filled. Fewer are drawn if they do not fit.
        radius: smallest and largest mean radius in pixels of a section, 2 to 100.
        step: distance of neighbouring sections in pixels of a section, 0.5 to 10; at 1, only the blur is anisotropic.
        touching: probability that a nucleus is placed next to another, 0 to 1.
        noise: strength of photon and camera noise, 0 (none) to 10; 1 is a typical exposure.
        unevenness: strength of uneven light, stray light and the fading of deep sections, 0 (none) to 1.

    Returns:
        `image` float32 (1, D, H, W) in [0, 1]; `semantic` int64 (D, H, W), indices into `CLASSES`; `label_map` int32
        (D, H, W), 0 for background, 1..N, each in one piece; `labels` int64 (N,), all 1; `volumes` float32 (N,), the
        closed-form number of voxels of the whole nucleus; `visible` float32 (N,), the fraction of its voxels
        that have its label in the volume; `spacing` (step, 1.0, 1.0), in pixels, in the order of the axes. N may be 0.
    """
    size = check_size("size", size, _MIN_SIZE, axes=3)
    count = None if count is None else check_count(count)
    radius, step = check_span("radius", radius, 2, 100), check_number("step", step, 0.5, 10)
    touching = check_number("touching", touching, 0, 1)
    noise = check_number("noise", noise, 0, 10)
    unevenness = check_number("unevenness", unevenness, 0, 1)
    rng = scene_rng(seed)
    block = _Block(size, step, radius[1] * _STRETCH)
    _arrange(rng, block, count, radius, touching)
    image = _photograph(rng, block, noise, unevenness)
    label_map, _ = compact(torch.from_numpy(largest_parts(block.owner[block.frame])))
    visible = torch.bincount(label_map.flatten(), minlength=len(block.nuclei) + 1)[1:]
    return {
        "image": torch.from_numpy(image.astype(np.float32))[None],
        "semantic": (label_map > 0).long(),
        "label_map": label_map,
        "labels": torch.ones(len(block.nuclei), dtype=torch.int64),
        "volumes": torch.tensor([nucleus.volume / step for nucleus in block.nuclei], dtype=torch.float32),
        "visible": (visible / torch.from_numpy(block.voxel_counts)).float(),
        "spacing": (step, 1.0, 1.0),
    }


class Nuclei3d(Scenes):
    """`length` volumes of `draw_nuclei3d`; item i depends only on (seed, i), the size and the arguments of the scene.

    Args:
        length: number of volumes.
        seed: use different seeds for training and validation.
        size: depth, height and width.
        transforms: called with the sample dict.
        scene: further arguments of `draw_nuclei3d`.
    """

    def __init__(
        self,
        length: int,
        seed: int = 0,
        size: tuple[int, int, int] = (16, 64, 64),
        transforms: Callable | None = None,
        **scene: Any,
    ):
        super().__init__(draw_nuclei3d, length, seed, check_size("size", size, _MIN_SIZE, axes=3), transforms, **scene)
