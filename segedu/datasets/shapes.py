"""Synthetic scenes of balls, checked squares and striped triangles that hide each other on an uneven ground.

A scene depends on its seed and its arguments only: never on the order of calls or on global state. Light
and colours vary, shapes have two colours each, brighter or darker than what is behind them, and they
overlap: no threshold finds them. Outline and surface tell what they are, colour does not.
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
from segedu.datasets.texture import check_amount, check_count, check_size, scene_rng, smooth_field, stripes

SHAPES_VERSION = 1  # A scene that changes gets a new number: every measured result then has to be redone.
CLASSES = ("background", "circle", "square", "triangle")
_MIN_SIZE = 16
_PERIOD = 0.5  # of checks and stripes, half a wave in radii
_TRIANGLE = np.sqrt(4 * np.pi / np.sqrt(3))  # side of the triangle of area pi
_REACH = _TRIANGLE / np.sqrt(3)  # centre to corner: the furthest that any shape of radius 1 extends


@dataclass(frozen=True)
class _Shape:
    label: int
    radius: float
    distance: np.ndarray  # signed, to the outline
    x: np.ndarray  # its own coordinates
    y: np.ndarray

    def crop(self, frame: tuple[slice, slice]) -> _Shape:
        return _Shape(self.label, self.radius, self.distance[frame], self.x[frame], self.y[frame])


def shape_area(label: int, radius: float) -> float:
    """Closed-form area in pixels; the three kinds of one `radius` are equal in area.

    Args:
        label: 1 circle, 2 square, 3 triangle.
        radius: of the circle of equal area, in pixels.

    Returns:
        pi times the squared radius, by the formula of each kind.
    """
    sides = {1: np.pi * radius**2, 2: (np.sqrt(np.pi) * radius) ** 2}
    return float(sides[label] if label in sides else np.sqrt(3) / 4 * (_TRIANGLE * radius) ** 2)


def _signed_distance(label: int, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Distance to the outline of a shape at the origin, negative inside (near corners a lower bound)."""
    if label == 1:
        return np.hypot(x, y) - radius
    if label == 2:
        return np.maximum(np.abs(x), np.abs(y)) - np.sqrt(np.pi) / 2 * radius
    inner = _TRIANGLE * radius / (2 * np.sqrt(3))
    slanted = np.abs(x) * np.sqrt(3) / 2 + y / 2
    return np.maximum(slanted, -y) - inner


def _surface(label: int, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """How the two colours of a shape mix, in [0, 1]: a ball with a shine, a checked square, a striped triangle."""
    if label == 1:
        return np.clip(1.15 - 0.9 * np.hypot(x + 0.35 * radius, y + 0.35 * radius) / radius, 0, 1)
    wave = np.pi / (_PERIOD * radius)
    waves = np.sin(wave * x) * np.sin(wave * y) if label == 2 else np.sin(wave * y)
    return 0.5 + 0.5 * np.clip(3 * waves, -1, 1)


def _outline(rng: np.random.Generator, size: tuple[int, int], margin: int) -> _Shape:
    """A random shape on the canvas, which is `margin` wider than the image all round."""
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
    """Stack shapes from back to front; each keeps at least half of its pixels in sight.

    A shape that would hide another is not put down at all, so no sliver of an unlabelled one remains.

    Returns:
        The label map, the shapes from back to front, and the share of each that is in sight.
    """
    wanted = int(rng.integers(count[0], count[1] + 1))
    margin = int(np.ceil(0.2 * min(size) * _REACH)) + 1
    canvas = np.zeros((size[0] + 2 * margin, size[1] + 2 * margin), np.int32)
    frame = (slice(margin, -margin), slice(margin, -margin))
    put: list[_Shape] = []
    whole: list[int] = []
    for _ in range(8 * wanted):
        if len(put) == wanted:
            break
        shape = _outline(rng, size, margin)
        attempt = np.where(shape.distance < 0, len(put) + 1, canvas)
        pixels = [*whole, int((shape.distance < 0).sum())]
        seen = np.bincount(attempt[frame].ravel(), minlength=len(pixels) + 1)[1:]
        if (seen >= 0.5 * np.array(pixels)).all():
            canvas, whole = attempt, pixels
            put.append(shape)
    seen = np.bincount(canvas[frame].ravel(), minlength=len(whole) + 1)[1:]
    return canvas[frame], [shape.crop(frame) for shape in put], seen / np.array(whole)


def _colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    """A random colour (3, 1)."""
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value)))[:, None]


def _ground(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Two colours that flow into each other, under a pattern of stripes or blotches; (3, H, W)."""
    scale = min(size) / 64
    blend = 0.5 + 0.5 * smooth_field(rng, size, 24 * scale)
    ends = [_colour(rng, (0.0, 0.3), (0.35, 0.75))[..., None] for _ in range(2)]
    ground = blend * ends[0] + (1 - blend) * ends[1]
    if rng.uniform() < 0.5:
        pattern = stripes(rng, size, rng.uniform(5, 9) * scale)
    else:
        pattern = smooth_field(rng, size, rng.uniform(3, 6) * scale)
    return ground * (1 + 0.06 * pattern)


def _paint(rng: np.random.Generator, size: tuple[int, int], put: list, noise: float) -> np.ndarray:
    """Paint ground and shapes with soft edges, then light and noise; (3, H, W) in [0, 1]."""
    image = _ground(rng, size)
    for shape in put:
        second = _colour(rng, (0.0, 0.3), (0.75, 1.0))
        first = _colour(rng, (0.7, 1.0), (0.35, 0.9))
        cover = np.clip(0.5 - shape.distance, 0, 1)  # share of the pixel inside: a smooth edge
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
        seed: one number, or several such as (seed, index); the same seed gives the same scene.
        size: height and width, at least 16 each.
        count: how many shapes, or (lowest, highest); 0 is allowed. Fewer are drawn where they do not fit.
        noise: standard deviation of the pixel noise, 0 to 1.

    Returns:
        `image` float32 (3, H, W) in [0, 1]; `semantic` int64 (H, W), indexes of `CLASSES`; `label_map`
        int32 (H, W), 0 for background and 1..N from back to front; `boxes` float32 (N, 4) xyxy; `labels`
        int64 (N,); `masks` bool (N, H, W), the pixels in sight; `areas` float32 (N,), the closed-form
        area of the whole shape; `visible` float32 (N,), the share of it in sight. N may be 0.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if `size` is too small, or `count`, `noise` or `seed` is out of range.
    """
    size = check_size(size, _MIN_SIZE)
    count = check_count(count)
    noise = check_amount("noise", noise, 0, 1)
    rng = scene_rng(seed)
    label_map, put, visible = _arrange(rng, size, count)
    sample = make_sample(_paint(rng, size, put, noise), label_map, np.array([shape.label for shape in put]))
    areas = [shape_area(shape.label, shape.radius) for shape in put]
    return sample | {"areas": torch.tensor(areas), "visible": torch.as_tensor(visible, dtype=torch.float32)}


class Shapes(Scenes):
    """`length` scenes of `draw_shapes`; number i depends only on (seed, i), the size and the scene's arguments.

    Args:
        length: number of scenes.
        seed: take different seeds for training and validation.
        size: height and width.
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
        super().__init__(draw_shapes, length, seed, check_size(size, _MIN_SIZE), transforms, **scene)
