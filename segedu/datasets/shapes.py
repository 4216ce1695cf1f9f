"""Synthetic scenes of balls, checked squares and striped triangles that occlude each other on an uneven background.

A scene depends only on its seed and its arguments, not on the order of calls or on global state. Light
and colours vary, each shape has two colours, brighter or darker than the background, and shapes overlap, so
no threshold separates them. The class follows from outline and texture, not from colour.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segedu.datasets.sample import make_sample
from segedu.datasets.scenes import Scenes
from segedu.datasets.texture import check_count, scene_rng, smooth_field, stripes
from segedu.validation.numbers import check_number, check_size

SHAPES_VERSION = 1  # Increase it when a scene changes: every measured result must then be measured again.
CLASSES = ("background", "circle", "square", "triangle")
_MIN_SIZE = 16
_PERIOD = 0.5  # of checks and stripes, half a wave in radii
_TRIANGLE = np.sqrt(4 * np.pi / np.sqrt(3))  # side of the triangle of area pi
_REACH = _TRIANGLE / np.sqrt(3)  # centre to corner: the furthest that any shape of radius 1 extends


@dataclass(frozen=True)
class _Shape:
    label: int
    radius: float
    distance: np.ndarray  # signed distance to the outline
    x: np.ndarray  # coordinates of the pixels in the frame of the shape
    y: np.ndarray

    def crop(self, frame: tuple[slice, slice]) -> _Shape:
        return _Shape(self.label, self.radius, self.distance[frame], self.x[frame], self.y[frame])


def shape_area(label: int, radius: float) -> float:
    """Area of a shape in pixels, by the closed formula of its class: pi times the squared radius for all classes.

    Args:
        label: 1 circle, 2 square, 3 triangle.
        radius: radius of the circle of equal area, in pixels.
    """
    sides = {1: np.pi * radius**2, 2: (np.sqrt(np.pi) * radius) ** 2}
    return float(sides[label] if label in sides else np.sqrt(3) / 4 * (_TRIANGLE * radius) ** 2)


def _signed_distance(label: int, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Distance to the outline of a shape at the origin, negative inside; a lower bound near corners."""
    if label == 1:
        return np.hypot(x, y) - radius
    if label == 2:
        return np.maximum(np.abs(x), np.abs(y)) - np.sqrt(np.pi) / 2 * radius
    inner = _TRIANGLE * radius / (2 * np.sqrt(3))
    slanted = np.abs(x) * np.sqrt(3) / 2 + y / 2
    return np.maximum(slanted, -y) - inner


def _surface(label: int, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Mixing weight of the two colours of a shape, in [0, 1]: a shaded ball, a checked square, a striped triangle."""
    if label == 1:
        return np.clip(1.15 - 0.9 * np.hypot(x + 0.35 * radius, y + 0.35 * radius) / radius, 0, 1)
    wave = np.pi / (_PERIOD * radius)
    waves = np.sin(wave * x) * np.sin(wave * y) if label == 2 else np.sin(wave * y)
    return 0.5 + 0.5 * np.clip(3 * waves, -1, 1)


def _outline(rng: np.random.Generator, size: tuple[int, int], margin: int) -> _Shape:
    """A random shape on a canvas that extends `margin` pixels beyond the image on every side."""
    height, width = size
    radius = min(height, width) * rng.uniform(0.12, 0.2)
    label = int(rng.integers(1, 4))
    angle = rng.uniform(0, 2 * np.pi)
    row, column = rng.uniform(0.06, 0.94, 2) * (height, width) + margin
    rows, columns = np.mgrid[: height + 2 * margin, : width + 2 * margin] + 0.5
    x = (columns - column) * np.cos(angle) + (rows - row) * np.sin(angle)
    y = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
    return _Shape(label, radius, _signed_distance(label, x, y, radius), x, y)


def _arrange(rng: np.random.Generator, size: tuple[int, int], count: tuple[int, int]):
    """Stack shapes from back to front, so that at least half of the pixels of each shape stay visible.

    A shape that breaks this rule is not drawn at all, so every object in the image has a label.

    Returns:
        The label map, the shapes from back to front, and the visible fraction of each.
    """
    target_count = int(rng.integers(count[0], count[1] + 1))
    margin = int(np.ceil(0.2 * min(size) * _REACH)) + 1
    canvas = np.zeros((size[0] + 2 * margin, size[1] + 2 * margin), np.int32)
    frame = (slice(margin, -margin), slice(margin, -margin))
    shapes: list[_Shape] = []
    areas: list[int] = []
    for _ in range(8 * target_count):
        if len(shapes) == target_count:
            break
        shape = _outline(rng, size, margin)
        attempt = np.where(shape.distance < 0, len(shapes) + 1, canvas)
        pixels = [*areas, int((shape.distance < 0).sum())]
        visible = np.bincount(attempt[frame].ravel(), minlength=len(pixels) + 1)[1:]
        if (visible >= 0.5 * np.array(pixels)).all():
            canvas, areas = attempt, pixels
            shapes.append(shape)
    visible = np.bincount(canvas[frame].ravel(), minlength=len(areas) + 1)[1:]
    return canvas[frame], [shape.crop(frame) for shape in shapes], visible / np.array(areas)


def _colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    """A random colour (3, 1)."""
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value)))[:, None]


def _ground(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Background (3, H, W): a smooth mixture of two colours, with stripes or blotches."""
    scale = min(size) / 64
    blend = 0.5 + 0.5 * smooth_field(rng, size, 24 * scale)
    ends = [_colour(rng, (0.0, 0.3), (0.35, 0.75))[..., None] for _ in range(2)]
    ground = blend * ends[0] + (1 - blend) * ends[1]
    if rng.uniform() < 0.5:
        pattern = stripes(rng, size, rng.uniform(5, 9) * scale)
    else:
        pattern = smooth_field(rng, size, rng.uniform(3, 6) * scale)
    return ground * (1 + 0.06 * pattern)


def _paint(rng: np.random.Generator, size: tuple[int, int], shapes: list, noise: float) -> np.ndarray:
    """Paint background and shapes with antialiased edges, then add light and noise; (3, H, W) in [0, 1]."""
    image = _ground(rng, size)
    for shape in shapes:
        second = _colour(rng, (0.0, 0.3), (0.75, 1.0))
        first = _colour(rng, (0.7, 1.0), (0.35, 0.9))
        cover = np.clip(0.5 - shape.distance, 0, 1)  # fraction of the pixel inside the shape: antialiasing
        on = cover > 0
        mix = _surface(shape.label, shape.x[on], shape.y[on], shape.radius)
        image[:, on] += cover[on] * (first + (second - first) * mix - image[:, on])
    light = 0.85 + 0.3 * smooth_field(rng, size, min(size) / 2)
    return np.clip(image * light + noise * rng.standard_normal((3, *size)), 0, 1)


def draw_shapes(
    seed: int | tuple[int, ...],
    size: tuple[int, int] = (64, 64),
    *,
    count: int | tuple[int, int] = (3, 7),
    noise: float = 0.03,
) -> dict[str, Tensor]:
    """Draw one scene.

    Args:
        seed: an integer, or a tuple such as (seed, index); the same seed gives the same scene.
        size: height and width, at least 16 each.
        count: number of shapes, or (lowest, highest); 0 is allowed. Fewer are drawn if they do not fit.
        noise: standard deviation of the pixel noise, 0 to 1.

    Returns:
        `image` float32 (3, H, W) in [0, 1]; `semantic` int64 (H, W), indices into `CLASSES`; `label_map`
        int32 (H, W), 0 for background and 1..N from back to front; `boxes` float32 (N, 4) xyxy; `labels`
        int64 (N,); `masks` bool (N, H, W), the visible pixels; `areas` float32 (N,), the closed-form
        area of the whole shape; `visible` float32 (N,), the fraction of it that is visible. N may be 0.
    """
    size = check_size("size", size, _MIN_SIZE)
    count = check_count(count)
    noise = check_number("noise", noise, 0, 1)
    rng = scene_rng(seed)
    label_map, shapes, visible = _arrange(rng, size, count)
    sample = make_sample(_paint(rng, size, shapes, noise), label_map, np.array([shape.label for shape in shapes]))
    areas = [shape_area(shape.label, shape.radius) for shape in shapes]
    return sample | {"areas": torch.tensor(areas), "visible": torch.as_tensor(visible, dtype=torch.float32)}


class Shapes(Scenes):
    """`length` scenes of `draw_shapes`; item i depends only on (seed, i), the size and the arguments of the scene.

    Args:
        length: number of scenes.
        seed: use different seeds for training and validation.
        size: (H, W).
        transforms: called with the sample dict, see `segedu.datasets.transforms`.
        scene: further arguments of `draw_shapes`.
    """

    def __init__(
        self,
        length: int,
        seed: int = 0,
        size: tuple[int, int] = (64, 64),
        transforms: Callable | None = None,
        **scene: Any,
    ):
        super().__init__(draw_shapes, length, seed, check_size("size", size, _MIN_SIZE), transforms, **scene)
