"""Synthetic phase-contrast images of rod-shaped bacteria: dark in a bright halo, bent, long and short, side by side.

A long bent rod is not star-convex: from no point inside it is the whole outline visible. In a colony, rods lie side by
side over their whole length, separated only by a thin bright seam, so a threshold merges them. In phase contrast,
objects with a higher refractive index are dark and have a bright halo, and the inside of a colony fades to the grey of
the background.

A scene depends only on its seed and its arguments.
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
from segedu.datasets.sample import make_sample
from segedu.datasets.scenes import Scenes
from segedu.datasets.texture import check_count, scene_rng, smooth_field
from segedu.validation.numbers import check_number, check_size

BACTERIA_VERSION = 1  # Increase it when a scene changes: every measured result must then be measured again.
CLASSES = ("background", "bacterium")
_MIN_SIZE = 16
_STEP = 0.5  # pixels between the points of a centre line
_SPARSE = 4  # collisions are tested with one point in four
_CLOSEST = 0.95  # smallest distance of two centre lines, in sums of their radii
_MARGIN = 16  # pixels around the image whose bacteria cast halos into it


@dataclass(frozen=True)
class Rod:
    """All positions within `radius` of a centre line; `points` (n, 2) of (row, column) are `_STEP` apart."""

    points: np.ndarray
    radius: float

    @property
    def area(self) -> float:
        """Area in closed form, for a line with radius of curvature above r: 2 r times length, and two half discs."""
        length = np.hypot(*np.diff(self.points, axis=0).T).sum()
        return float(2 * self.radius * length + np.pi * self.radius**2)

    def depth(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Distance from the centre line in radii: below 1 is inside.

        Args:
            rows: vertical positions in pixels; the centre of the first pixel is 0.5.
            columns: horizontal positions, of the same shape.

        Returns:
            An array of that shape.
        """
        middle = self.points.mean(0)
        pixels, line = np.stack([rows.ravel(), columns.ravel()], 1) - middle, self.points - middle
        nearest = (np.square(line).sum(1) - 2 * pixels @ line.T).min(1)
        squared = np.square(pixels).sum(1) + nearest
        return np.sqrt(np.clip(squared, 0, None)).reshape(rows.shape) / self.radius


def _resample_line(points: np.ndarray) -> np.ndarray:
    """Resample a line to points `_STEP` apart."""
    along = np.append(0, np.cumsum(np.hypot(*np.diff(points, axis=0).T)))
    steps = np.linspace(0, along[-1], max(2, round(along[-1] / _STEP) + 1))
    return np.stack([np.interp(steps, along, coordinate) for coordinate in points.T], 1)


def _free_line(rng: np.random.Generator, start: np.ndarray, heading: float, length: float, radius: float) -> np.ndarray:
    """A line from `start` in C or S shape, whose radius of curvature stays above 1.5 times `radius`."""
    positions = np.linspace(0, 1, max(2, round(length / _STEP) + 1))
    bend = rng.choice((-1, 1)) * min(4.0, length / (3 * radius)) * rng.uniform() ** 0.7
    wave = min(1.2, length / (20 * radius)) * rng.uniform(-1, 1)
    angle = heading + bend * positions + wave * np.sin(2 * np.pi * positions)
    steps = length / (len(positions) - 1) * np.stack([np.sin(angle), np.cos(angle)], 1)[1:]
    return start + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])


def _parallel_line(rng: np.random.Generator, other: Rod, radius: float, length: float) -> np.ndarray | None:
    """A shifted parallel curve of another line, cut to a length; None if it folds."""
    straight = np.arange(1, round(length / _STEP) + 1)[:, None]
    first, last = other.points[0] - other.points[1], other.points[-1] - other.points[-2]
    longer = np.concatenate(
        [(other.points[0] + straight * first)[::-1], other.points, other.points[-1] + straight * last]
    )
    tangent = np.gradient(longer, axis=0)
    normal = tangent[:, ::-1] * (1, -1) / np.hypot(*tangent.T)[:, None]
    shifted = longer + rng.choice((-1, 1)) * rng.uniform(0.97, 1.06) * (radius + other.radius) * normal
    steps = np.diff(shifted, axis=0)
    if ((steps * np.diff(longer, axis=0)).sum(1) < 0.4 * _STEP**2).any():
        return None
    shifted, points = _resample_line(shifted), round(length / _STEP) + 1
    # At least half of the shorter rod lies beside the other.
    beside = min(points, len(other.points)) // 2
    lowest, highest = len(straight) + beside - points, len(straight) + len(other.points) - beside
    start = int(np.clip(rng.integers(lowest, max(lowest, highest) + 1), 0, max(0, len(shifted) - points)))
    return shifted[start : start + points]


class _Field:
    """A canvas that extends beyond the image: the rod of each pixel, and its relative depth."""

    def __init__(self, size: tuple[int, int]):
        self.size = size
        shape = tuple(side + 2 * _MARGIN for side in size)
        self.owner, self.relative_depth = np.zeros(shape, np.int32), np.ones(shape)
        self.rods: list[Rod] = []
        self.lines = np.zeros((0, 3))  # points of all rods, each with the radius of its rod
        self.frame = tuple(slice(_MARGIN, _MARGIN + side) for side in size)
        self.framed = np.zeros(shape, bool)
        self.framed[self.frame] = True

    def collides(self, rod: Rod) -> bool:
        """Whether a rod would overlap another one or itself."""
        sparse = rod.points[::_SPARSE]
        is_near = np.square(sparse[:, None] - sparse[None]).sum(2) < (2.2 * rod.radius) ** 2
        # Points nearer along the line than this are not tested: even a sharp bend keeps farther ones apart.
        min_gap = round(5 * rod.radius / (_STEP * _SPARSE))
        if np.triu(is_near, min_gap).any():
            return True
        squared = np.square(sparse[:, None] - self.lines[None, :, :2]).sum(2)
        return bool((squared < (_CLOSEST * (self.lines[:, 2] + rod.radius)) ** 2).any())

    def add(self, rod: Rod) -> bool:
        """Add a rod, or return False if it overlaps another, or its visible part is disconnected or below a fifth."""
        if self.collides(rod):
            return False
        lower_corner = np.floor(rod.points.min(0) - rod.radius) + _MARGIN
        upper_corner = np.ceil(rod.points.max(0) + rod.radius) + _MARGIN
        ends = np.clip([lower_corner, upper_corner], 0, self.owner.shape).astype(int)
        window = tuple(slice(*pair) for pair in ends.T)
        depth = rod.depth(*(np.mgrid[window] + 0.5 - _MARGIN))
        wins = depth < self.relative_depth[window]
        visible = wins & self.framed[window]
        if visible.sum() < max(4, 0.2 * rod.area) or ndimage.label(visible)[1] != 1:
            return False
        self.rods.append(rod)
        self.owner[window][wins] = len(self.rods)
        self.relative_depth[window] = np.minimum(self.relative_depth[window], depth)
        sparse = rod.points[::_SPARSE]
        self.lines = np.concatenate([self.lines, np.insert(sparse, 2, rod.radius, axis=1)])
        return True


def _rod(rng: np.random.Generator, field: _Field, width: tuple, length: tuple, touching: float) -> Rod | None:
    """A random rod, with probability `touching` next to or in line with an existing one; None if it would fold."""
    radius, line_length = 0.5 * rng.uniform(*width), np.exp(rng.uniform(*np.log(length)))
    line_length = max(_STEP, line_length - 2 * radius)  # length of the centre line, without the round tips
    centre, heading, draw = rng.uniform(0, 1, 2) * field.size, rng.uniform(0, 2 * np.pi), rng.uniform()
    if field.rods and draw < touching:
        other = field.rods[rng.integers(len(field.rods))]
        if draw < 0.75 * touching:
            points = _parallel_line(rng, other, radius, line_length)
            return None if points is None else Rod(points, radius)
        tip, previous = other.points[-1], other.points[-2]
        heading = np.arctan2(*(tip - previous)) + rng.uniform(-0.5, 0.5)
        start = tip + 0.99 * (radius + other.radius) * np.array([np.sin(heading), np.cos(heading)])
        return Rod(_resample_line(_free_line(rng, start, heading, line_length, radius)), radius)
    points = _resample_line(_free_line(rng, np.zeros(2), heading, line_length, radius))
    return Rod(points - points.mean(0) + centre, radius)


def _arrange(rng: np.random.Generator, size, count, width: tuple, length: tuple, touching: float) -> _Field:
    """Add as many rods as fit, up to a random number within `count`."""
    usual = np.mean(width) * (length[1] - length[0]) / np.log(length[1] / length[0]) if length[0] < length[1] else 0
    target_count = draw_count(rng, count, 0.36 * size[0] * size[1] / (usual or np.mean(width) * length[0]))
    field = _Field(size)
    for _ in range(6 * target_count + 10):
        if len(field.rods) == target_count:
            break
        rod = _rod(rng, field, width, length, touching)
        if rod is not None:
            field.add(rod)
    return field


def _photograph(rng: np.random.Generator, field: _Field, noise: float, unevenness: float) -> np.ndarray:
    """Phase-contrast image (H, W) in [0, 1]: dark rods with bright halos, in uneven light, with noise."""
    shape, owner = field.owner.shape, field.owner
    dense = np.append(0, rng.uniform(0.55, 1.0, len(field.rods)))[owner]
    texture = 1 + 0.25 * smooth_field(rng, shape, 3.0)
    delay = dense * texture * np.sqrt(np.clip(1 - 0.85 * field.relative_depth**2, 0, None)) * (owner > 0)
    delay = ndimage.gaussian_filter(delay, 0.8)
    near, far = (ndimage.gaussian_filter(delay, sigma, truncate=3)[field.frame] for sigma in (3.5, 9.0))
    light, stray = uneven_light(rng, field.size, 0.6 * unevenness)
    blotches = 0.04 * unevenness * smooth_field(rng, field.size, 6.0)
    picture = 0.48 - 0.52 * (delay[field.frame] - 0.65 * near - 0.25 * far) + blotches
    return expose(rng, light * picture + 0.5 * stray, noise)


def draw_bacteria(
    seed: int | tuple[int, ...],
    size: tuple[int, int] = (128, 128),
    *,
    count: int | tuple[int, int] | None = None,
    rod_width: tuple[float, float] = (5.0, 7.0),
    rod_length: tuple[float, float] = (20.0, 100.0),
    touching: float = 0.8,
    noise: float = 1.0,
    unevenness: float = 1.0,
) -> dict[str, Tensor]:
    """Draw one image of bacteria.

    Args:
        seed: an integer, or a tuple such as (seed, index); the same seed gives the same scene.
        size: height and width, at least 16 each.
        count: how many bacteria, or (lowest, highest); 0 is allowed; by default about a third of the area is
            covered. Fewer are drawn if they do not fit.
        rod_width: smallest and largest width in pixels, 3 to 40.
        rod_length: smallest and largest length from end to end in pixels, 3 to 400; short ones are more frequent.
        touching: probability that a bacterium is put beside or behind another, 0 to 1.
        noise: strength of photon and camera noise, 0 (none) to 10; 1 is a typical exposure.
        unevenness: strength of the uneven light and background, 0 (none) to 1.

    Returns:
        `image` float32 (3, H, W) in [0, 1], three equal grey channels; `semantic` int64 (H, W), indices into
        `CLASSES`; `label_map` int32 (H, W), 0 for background, 1..N, each in one piece; `boxes` float32 (N, 4) xyxy;
        `labels` int64 (N,), all 1; `masks` bool (N, H, W); `areas` float32 (N,), the closed-form area of the whole
        bacterium; `visible` float32 (N,), the fraction of this area that its mask covers. N may be 0.
    """
    size = check_size("size", size, _MIN_SIZE)
    count = None if count is None else check_count(count)
    width, length = check_span("rod_width", rod_width, 3, 40), check_span("rod_length", rod_length, 3, 400)
    touching = check_number("touching", touching, 0, 1)
    noise = check_number("noise", noise, 0, 10)
    unevenness = check_number("unevenness", unevenness, 0, 1)
    rng = scene_rng(seed)
    field = _arrange(rng, size, count, width, length, touching)
    grey = _photograph(rng, field, noise, unevenness)
    ids = largest_parts(field.owner[field.frame])
    sample = make_sample(np.repeat(grey[None], 3, axis=0), ids, np.ones(len(field.rods)))
    areas = torch.tensor([rod.area for rod in field.rods])
    visible = (sample["masks"].sum((1, 2)) / areas).clamp(max=1)
    return sample | {"areas": areas, "visible": visible}


class Bacteria(Scenes):
    """`length` images of `draw_bacteria`; item i depends only on (seed, i), the size and the arguments of the scene.

    Args:
        length: number of images.
        seed: use different seeds for training and validation.
        size: (H, W).
        transforms: called with the sample dict, see `segedu.datasets.transforms`.
        scene: further arguments of `draw_bacteria`.
    """

    def __init__(
        self,
        length: int,
        seed: int = 0,
        size: tuple[int, int] = (128, 128),
        transforms: Callable | None = None,
        **scene: Any,
    ):
        super().__init__(draw_bacteria, length, seed, check_size("size", size, _MIN_SIZE), transforms, **scene)
