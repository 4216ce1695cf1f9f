"""Synthetic microscope images of fluorescent nuclei that touch and differ in brightness, with uneven light and noise.

A scene depends only on its seed and its arguments, not on the order of calls or on global state. Dim and
bright nuclei lie side by side, light and haze vary across the field, and nuclei touch: a single threshold
misses the dim nuclei and merges the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.datasets.microscope import check_span, draw_count, expose, uneven_light
from segedu.datasets.sample import make_sample
from segedu.datasets.scenes import Scenes
from segedu.datasets.texture import check_count, scene_rng, smooth_field
from segedu.validation.numbers import check_number, check_size

CELLS_VERSION = 1  # Increase it when a scene changes: every measured result must then be measured again.
CLASSES = ("background", "nucleus")
_MIN_SIZE = 16
_WAVES = (0.06, 0.06, 0.04)  # the largest w_k
_REACH = 1 + sum(_WAVES)  # the furthest that an outline can be from the centre, in long half axes
_STRETCH = 1.3  # the longest half axis, in mean radii
_OVERLAP = 0.15  # the largest fraction of a nucleus that another may cover


@dataclass(frozen=True)
class Nucleus:
    """An ellipse with a wavy outline, of relative radius 1 + sum of w_k cos(k t + p_k), k = 2, 3, 4."""

    row: float
    column: float
    a: float
    b: float
    angle: float
    wobble: tuple[float, ...]
    phase: tuple[float, ...]

    @property
    def area(self) -> float:
        """Area in closed form, half the integral of the squared radius: pi a b (1 + sum of w_k^2 / 2)."""
        return float(np.pi * self.a * self.b * (1 + 0.5 * np.square(self.wobble).sum()))

    def depth(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Distance from the centre relative to the distance to the outline; below 1 is inside.

        Args:
            rows: vertical positions in pixels; the centre of the first pixel is 0.5.
            columns: horizontal positions, of the same shape.
        """
        y, x = rows - self.row, columns - self.column
        u = (x * np.cos(self.angle) + y * np.sin(self.angle)) / self.a
        v = (y * np.cos(self.angle) - x * np.sin(self.angle)) / self.b
        theta = np.arctan2(v, u)
        waves = zip((2, 3, 4), self.wobble, self.phase, strict=True)
        return np.hypot(u, v) / (1 + sum(w * np.cos(k * theta + p) for k, w, p in waves))


class _Field:
    """A canvas that extends `margin` pixels beyond the image: the nucleus of each pixel, and its relative depth."""

    def __init__(self, size: tuple[int, int], margin: int):
        self.size, self.margin = size, margin
        shape = (size[0] + 2 * margin, size[1] + 2 * margin)
        self.owner, self.relative_depth = np.zeros(shape, np.int32), np.full(shape, np.inf)
        self.nuclei: list[Nucleus] = []
        self.depths: list[np.ndarray] = []  # of each nucleus, on its window
        self.areas = self.visible = np.zeros(0, np.int64)  # pixels of each nucleus: drawn, and owned within the image
        self.frame = (slice(margin, margin + size[0]), slice(margin, margin + size[1]))
        self.framed = np.zeros(shape, bool)
        self.framed[self.frame] = True

    def window(self, nucleus: Nucleus) -> tuple[slice, slice]:
        """A square of the canvas that contains the nucleus completely."""
        reach = int(np.ceil(nucleus.a * _REACH)) + 1
        row, column = int(nucleus.row) + self.margin, int(nucleus.column) + self.margin
        return slice(row - reach, row + reach + 1), slice(column - reach, column + reach + 1)

    def depth(self, nucleus: Nucleus) -> np.ndarray:
        """Relative depth of a nucleus on its window."""
        rows, columns = self.window(nucleus)
        grid = np.mgrid[rows, columns] + 0.5 - self.margin
        return nucleus.depth(*grid)

    def add(self, nucleus: Nucleus) -> bool:
        """Add a nucleus, or return False if it overlaps another too much.

        A pixel inside two nuclei belongs to the one in which its relative depth is smaller.
        """
        window = self.window(nucleus)
        owner, relative_depth, depth = self.owner[window], self.relative_depth[window], self.depth(nucleus)
        inside = depth < 1
        pixels = int(inside.sum())
        shared = np.bincount(owner[inside], minlength=len(self.areas) + 1)[1:]
        if (shared > _OVERLAP * np.minimum(pixels, self.areas)).any() or shared.sum() > 2 * _OVERLAP * pixels:
            return False
        wins = inside & (depth < relative_depth)
        framed = self.framed[window]
        if (wins & framed).sum() < max(4, 0.2 * pixels):
            return False
        lost = np.bincount(owner[wins & framed], minlength=len(self.areas) + 1)[1:]
        if len(self.visible) and (self.visible - lost < 1).any():
            return False
        self.visible = np.append(self.visible - lost, (wins & framed).sum())
        self.areas = np.append(self.areas, pixels)
        owner[wins] = len(self.areas)
        relative_depth[wins] = depth[wins]
        self.nuclei.append(nucleus)
        self.depths.append(depth)
        return True


def _nucleus(rng: np.random.Generator, field: _Field, radius: tuple[float, float], touching: float) -> Nucleus:
    """A random nucleus, with probability `touching` next to an existing one, otherwise anywhere."""
    mean, stretch = rng.uniform(*radius), rng.uniform(1.0, _STRETCH)
    a, b, angle = mean * stretch, mean / stretch, rng.uniform(0, np.pi)
    centre = rng.uniform(0, 1, 2) * field.size
    if rng.uniform() < touching and field.nuclei:
        other, angle_to_other = field.nuclei[rng.integers(len(field.nuclei))], rng.uniform(0, 2 * np.pi)
        gap = (mean + np.sqrt(other.a * other.b)) * rng.uniform(0.85, 1.0)
        candidate = np.array([other.row + gap * np.sin(angle_to_other), other.column + gap * np.cos(angle_to_other)])
        centre = np.clip(candidate, 0, np.array(field.size) - 1e-6)
    wobble = rng.uniform(0, _WAVES)
    return Nucleus(*centre, a, b, angle, tuple(wobble), tuple(rng.uniform(0, 2 * np.pi, 3)))


def _arrange(rng: np.random.Generator, size, count, radius: tuple[float, float], touching: float) -> _Field:
    """Add as many nuclei as fit, up to a random number within `count`."""
    target_count = draw_count(rng, count, 0.36 * size[0] * size[1] / (np.pi * np.mean(radius) ** 2))
    field = _Field(size, int(np.ceil(radius[1] * _STRETCH * _REACH)) + 2)
    for _ in range(8 * target_count):
        if len(field.nuclei) == target_count:
            break
        field.add(_nucleus(rng, field, radius, touching))
    return field


def _signal(rng: np.random.Generator, field: _Field) -> np.ndarray:
    """Light emitted on the canvas: each nucleus has its own brightness and chromatin texture, and overlaps add up."""
    signal = np.zeros(field.owner.shape)
    grain = smooth_field(rng, signal.shape, 3.5) + 0.6 * smooth_field(rng, signal.shape, 1.8)
    for nucleus, depth in zip(field.nuclei, field.depths, strict=True):
        brightness = 0.18 + 0.92 * rng.uniform() ** 1.6
        window = field.window(nucleus)
        thickness = np.sqrt(np.clip(1 - 0.75 * depth**2, 0, None)) * np.clip((1 - depth) * 6 + 0.5, 0, 1)
        signal[window] += brightness * thickness * (1 + 0.22 * grain[window])
    return signal


def _photograph(rng, field: _Field, radius: tuple[float, float], noise: float, unevenness: float) -> np.ndarray:
    """Apply blur, haze, uneven light and stray light, then photon and camera noise; (H, W) in [0, 1]."""
    size = field.size
    signal = _signal(rng, field)
    haze = ndimage.gaussian_filter(signal, 1.5 * np.mean(radius), truncate=2.5)[field.frame]
    blurred = ndimage.gaussian_filter(signal, 0.8)[field.frame]
    light, stray = uneven_light(rng, size, unevenness)
    return expose(rng, light * (0.9 * blurred + 0.4 * haze) + stray, noise)


def draw_cells(
    seed: int | tuple[int, ...],
    size: tuple[int, int] = (128, 128),
    *,
    count: int | tuple[int, int] | None = None,
    radius: tuple[float, float] = (6.0, 10.0),
    touching: float = 0.6,
    noise: float = 1.0,
    unevenness: float = 1.0,
) -> dict[str, Tensor]:
    """Draw one image of nuclei.

    Args:
        seed: an integer, or a tuple such as (seed, index); the same seed gives the same scene.
        size: height and width, at least 16 each.
        count: number of nuclei, or (lowest, highest); 0 is allowed. The default covers about a third of the
            area. Fewer are drawn if they do not fit.
        radius: smallest and largest mean radius in pixels, 1 to 200.
        touching: probability that a nucleus is placed next to another, 0 to 1.
        noise: strength of photon and camera noise, 0 (none) to 10; 1 is a typical exposure.
        unevenness: strength of uneven and stray light, 0 (none) to 1.

    Returns:
        `image` float32 (3, H, W) in [0, 1], three equal grey channels; `semantic` int64 (H, W), indices into
        `CLASSES`; `label_map` int32 (H, W), 0 for background, 1..N; `boxes` float32 (N, 4) xyxy; `labels`
        int64 (N,), all 1; `masks` bool (N, H, W); `areas` float32 (N,), the closed-form area of the complete
        nucleus; `visible` float32 (N,), the fraction of its pixels that are in its mask. N may be 0.
    """
    size = check_size("size", size, _MIN_SIZE)
    count = None if count is None else check_count(count)
    radius = check_span("radius", radius, 1, 200)
    touching = check_number("touching", touching, 0, 1)
    noise = check_number("noise", noise, 0, 10)
    unevenness = check_number("unevenness", unevenness, 0, 1)
    rng = scene_rng(seed)
    field = _arrange(rng, size, count, radius, touching)
    intensity = _photograph(rng, field, radius, noise, unevenness)
    owner = field.owner[field.frame]
    sample = make_sample(np.repeat(intensity[None], 3, axis=0), owner, np.ones(len(field.areas)))
    areas = torch.tensor([nucleus.area for nucleus in field.nuclei])
    return sample | {"areas": areas, "visible": torch.tensor(field.visible / field.areas, dtype=torch.float32)}


class Cells(Scenes):
    """`length` images of `draw_cells`; item i depends only on (seed, i), the size and the arguments of the scene.

    Args:
        length: number of images.
        seed: use different seeds for training and validation.
        size: (H, W).
        transforms: called with the sample dict, see `segedu.datasets.transforms`.
        scene: further arguments of `draw_cells`.
    """

    def __init__(
        self,
        length: int,
        seed: int = 0,
        size: tuple[int, int] = (128, 128),
        transforms: Callable | None = None,
        **scene: Any,
    ):
        super().__init__(draw_cells, length, seed, check_size("size", size, _MIN_SIZE), transforms, **scene)
