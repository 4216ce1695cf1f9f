"""Synthetic laser scan of a city: the range image of a rotating scanner, with a label for each return.

A scan depends on its seed and its arguments only. Rays leave the scanner at fixed elevations (rows) while it
turns (columns), and each ends at the nearest of ground, houses, trees, poles, cars and people. A scan is an
image, so every network of the course can segment it, and it is also a set of points: `back_project` and
`range_image` convert between the two. Axes as in KITTI: x forward, y left, z up, in metres, from the scanner.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from segedu.datasets.rays import MISSED, box_hit, pole_hit
from segedu.datasets.sample import compact, make_sample
from segedu.datasets.texture import scene_rng, smooth_field
from segedu.validation.numbers import check_number, check_size
from segedu.validation.tensors import check_floats

LIDAR_VERSION = 1  # Increase it when a scene changes: every measured result must then be measured again.
CLASSES = ("road", "sidewalk", "building", "vegetation", "pole", "car", "person")
THINGS = (5, 6)
VOID = 255  # no return
FIELD_OF_VIEW = (8.0, -25.0)  # elevation of the upper and the lower edge of the image, in degrees
MAX_RANGE = 80.0  # metres
_ROAD, _SIDEWALK, _BUILDING, _VEGETATION, _POLE, _CAR, _PERSON = range(len(CLASSES))
_MIN_SIZE = 16
_HEIGHT = 1.8  # of the scanner above the ground
_REFLECTANCE = (0.18, 0.35, 0.45, 0.3, 0.6, 0.5, 0.4)  # fraction of the light that is reflected, by class


def _check_view(field_of_view: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(field_of_view, (tuple, list)) or len(field_of_view) != 2:
        raise TypeError(f"field_of_view is {field_of_view!r}, expected two elevations (upper, lower) in degrees")
    upper, lower = (check_number("field_of_view", angle, -90, 90) for angle in field_of_view)
    if upper <= lower:
        raise ValueError(f"field_of_view is {tuple(field_of_view)!r}, expected the upper elevation first")
    return upper, lower


def ray_directions(size: tuple[int, int], field_of_view: tuple[float, float] = FIELD_OF_VIEW) -> np.ndarray:
    """Return the unit vectors of the rays of a range image.

    Column 0 begins behind the scanner. Columns run from behind over left, ahead and right back to behind, rows from top
    to bottom.

    Args:
        size: height and width of the range image.
        field_of_view: elevation of its upper and lower edge, in degrees.

    Returns:
        (3, H, W): x, y, z of the middle of each pixel.
    """
    height, width = check_size("size", size, 1)
    upper, lower = np.radians(_check_view(field_of_view))
    pitch = upper - (np.arange(height) + 0.5) / height * (upper - lower)
    yaw = np.pi * (1 - 2 * (np.arange(width) + 0.5) / width)
    level = np.cos(pitch)[:, None]
    return np.stack([level * np.cos(yaw), level * np.sin(yaw), np.sin(pitch)[:, None] * np.ones(width)])


def back_project(ranges: Tensor, field_of_view: tuple[float, float] = FIELD_OF_VIEW) -> Tensor:
    """Points of a range image: each return lies at its range along the ray of its pixel.

    Args:
        ranges: (H, W) floats, metres; 0 for no return.
        field_of_view: elevation of the upper and the lower edge, in degrees.

    Returns:
        (P, 3) float64 x, y, z, one for each pixel with a return, row by row; `labels[ranges > 0]` are theirs.
    """
    _check_ranges(ranges)
    rays = torch.from_numpy(ray_directions(tuple(ranges.shape), field_of_view))
    has_return = ranges > 0
    return (ranges.double() * rays)[:, has_return].T.contiguous()


def range_image(points: Tensor, size: tuple[int, int], field_of_view: tuple[float, float] = FIELD_OF_VIEW) -> Tensor:
    """Spherical projection: the range of each point, in the pixel whose ray is closest to it.

    If several points fall into one pixel, the nearest one is kept. Points above or below the field of view, or at the
    scanner, are dropped. It is the inverse of `back_project`: range_image(back_project(r), r.shape) is r.

    Args:
        points: (P, 3) floats x, y, z; P may be 0.
        size: height and width of the range image.
        field_of_view: elevation of the upper and the lower edge, in degrees.

    Returns:
        (H, W) float64, metres, 0 where there is no point.
    """
    check_floats("points", points, "P? 3")
    if not points.isfinite().all():
        raise ValueError("points contains NaN or infinity, expected finite coordinates in metres")
    height, width = check_size("size", size, 1)
    upper, lower = np.radians(_check_view(field_of_view))
    distance = points.double().norm(dim=1)
    x, y, z = points.double()[distance > 0].T
    distance = distance[distance > 0]
    yaw, pitch = torch.atan2(y, x), torch.asin((z / distance).clamp(-1, 1))
    column = (0.5 * (1 - yaw / np.pi) * width).floor().long() % width
    row = ((upper - pitch) / (upper - lower) * height).floor().long()
    inside = (row >= 0) & (row < height)
    flat = torch.full((height * width,), torch.inf, dtype=torch.float64)
    flat.scatter_reduce_(0, (row * width + column)[inside], distance[inside], "amin")
    return torch.where(flat.isinf(), 0.0, flat).reshape(height, width)


def _check_ranges(ranges: Tensor) -> None:
    check_floats("ranges", ranges, "H W")
    if not ranges.isfinite().all() or (ranges < 0).any():
        raise ValueError("ranges contains negative or non-finite values, expected metres, 0 for no return")


@dataclass
class _City:
    """The nearest hit of each ray so far, and the occupied ground."""

    rays: np.ndarray
    ranges: np.ndarray
    category: np.ndarray
    instance: np.ndarray
    labels: list[int] = field(default_factory=list)
    occupied: list[tuple[float, float, float]] = field(default_factory=list)

    def claim(self, x: float, y: float, radius: float) -> bool:
        """Reserve a disc of the ground; False if it overlaps a reserved one."""
        if any(np.hypot(x - a, y - b) < radius + c for a, b, c in self.occupied):
            return False
        self.occupied.append((x, y, radius))
        return True

    def add_instance(self, category: int) -> int:
        self.labels.append(category)
        return len(self.labels)

    def columns_near(self, x: float, y: float, radius: float) -> slice | np.ndarray:
        """Columns of the rays that can meet a disc of ground."""
        distance, width = np.hypot(x, y), self.rays.shape[2]
        if distance <= 1.05 * radius:
            return np.arange(width)
        middle = 0.5 * (1 - np.arctan2(y, x) / np.pi) * width
        half = np.arcsin(radius / distance) / (2 * np.pi) * width + 1
        return np.arange(int(middle - half), int(middle + half) + 1) % width

    def put(self, columns: np.ndarray, hit: np.ndarray, category: int, instance: int = 0) -> None:
        nearer = hit < self.ranges[:, columns]
        for values, new in ((self.ranges, hit), (self.category, category), (self.instance, instance)):
            values[:, columns] = np.where(nearer, new, values[:, columns])

    def box(self, low: tuple, high: tuple, category: int, instance: int = 0) -> None:
        middle, half = (np.array(low) + high) / 2, np.hypot(high[0] - low[0], high[1] - low[1]) / 2
        columns = self.columns_near(middle[0], middle[1], half)
        hit, _ = box_hit(np.zeros(3), self.rays[:, :, columns], np.array(low), np.array(high))
        self.put(columns, hit, category, instance)

    def pole(self, x: float, y: float, radius: float, low: float, high: float, category: int, instance=0) -> None:
        columns = self.columns_near(x, y, radius)
        hit = pole_hit(self.rays[:, :, columns], (x, y), radius, (low, high))
        self.put(columns, hit, category, instance)


def _ground(rng: np.random.Generator, city: _City, road: tuple[float, float], kerb: float) -> None:
    """Place the road between its kerbs, sometimes a crossing street, and raised pavements on both sides."""
    down = city.rays[2] < 0
    flat = np.where(down, -_HEIGHT / np.where(down, city.rays[2], -1), MISSED)
    raised = np.where(down, (kerb - _HEIGHT) / np.where(down, city.rays[2], -1), MISSED)
    x, y = city.rays[0] * raised, city.rays[1] * raised
    with np.errstate(invalid="ignore"):
        start = rng.uniform(-35, 35)
        crossing = np.abs(x - start) < 4 if rng.uniform() < 0.6 else np.zeros(x.shape, bool)
        street = ((y > road[0]) & (y < road[1])) | crossing
    everywhere = np.arange(city.rays.shape[2])
    city.put(everywhere, np.where(street, flat, MISSED), _ROAD)
    city.put(everywhere, np.where(street, MISSED, raised), _SIDEWALK)


def _houses(rng: np.random.Generator, city: _City, road: tuple[float, float], pavement: tuple[float, float]) -> None:
    """Place rows of houses with gaps along both sides of the road."""
    for side, sign in enumerate((-1, 1)):
        front, x = road[side] + sign * pavement[side], -75.0
        while x < 75:
            width, height, deep = rng.uniform(6, 20), rng.uniform(4, 22), rng.uniform(6, 12)
            setback = rng.uniform(0, 2.5)
            near, far = sorted((front + sign * setback, front + sign * (setback + deep)))
            if rng.uniform() < 0.8:
                city.box((x, near, -_HEIGHT), (x + width, far, height - _HEIGHT), _BUILDING)
                for _ in range(int(rng.integers(0, 3))):  # a bay or a porch
                    at, out = x + rng.uniform(0.1, 0.7) * width, front + sign * (setback - rng.uniform(0.3, 1.0))
                    low, high = sorted((out, front + sign * (setback + 1)))
                    city.box((at, low, -_HEIGHT), (at + 2, high, rng.uniform(1, 6) - _HEIGHT), _BUILDING)
            x += width + (rng.uniform(2, 9) if rng.uniform() < 0.4 else 0)


def _place_cars(rng: np.random.Generator, city: _City, road: tuple[float, float]) -> None:
    """Place parked and moving cars; each has a body, a cabin and four wheels."""
    city.occupied.append((0.0, 0.0, 2.5))  # the car with the scanner
    for _ in range(int(rng.integers(5, 18))):
        x, y = rng.uniform(-38, 38), rng.uniform(road[0] + 1.1, road[1] - 1.1)
        long, wide, tall = rng.uniform((3.6, 1.6, 1.35), (5.0, 2.0, 1.9))
        if city.claim(x, y, 0.5 * long):
            number, base = city.add_instance(_CAR), 0.25 - _HEIGHT
            low, high = (x - long / 2, y - wide / 2), (x + long / 2, y + wide / 2)
            city.box((*low, base), (*high, base + 0.5 * tall), _CAR, number)
            inner = (low[0] + 0.2 * long, low[1] + 0.1, base), (high[0] - 0.15 * long, high[1] - 0.1, tall - _HEIGHT)
            city.box(*inner, _CAR, number)
            for wheel in ((0.2, 0), (0.2, 1), (0.8, 0), (0.8, 1)):
                centre = low[0] + wheel[0] * long, low[1] + 0.15 + wheel[1] * (wide - 0.3)
                city.box(
                    (centre[0] - 0.3, centre[1] - 0.12, -_HEIGHT),
                    (centre[0] + 0.3, centre[1] + 0.12, base),
                    _CAR,
                    number,
                )


def _place_people(rng: np.random.Generator, city: _City, road: tuple[float, float], pavement: tuple) -> None:
    """Place people on the pavement and on the road; each has two legs, a body and a head."""
    for _ in range(int(rng.integers(4, 16))):
        side = int(rng.integers(2))
        sign = 2 * side - 1
        y = road[side] + sign * rng.uniform(0.3, pavement[side]) if rng.uniform() < 0.85 else rng.uniform(*road)
        x, tall = rng.choice([-1, 1]) * rng.uniform(2, 24), rng.uniform(1.2, 1.95)
        if city.claim(x, y, 0.4):
            number = city.add_instance(_PERSON)
            for foot in (-0.12, 0.12):
                city.pole(x + foot, y, 0.09, -_HEIGHT, 0.5 * tall - _HEIGHT, _PERSON, number)
            city.pole(x, y, 0.22, 0.48 * tall - _HEIGHT, 0.84 * tall - _HEIGHT, _PERSON, number)
            city.pole(x, y, 0.1, 0.84 * tall - _HEIGHT, tall - _HEIGHT, _PERSON, number)


def _place_trees(rng: np.random.Generator, city: _City, road: tuple[float, float], pavement: tuple) -> None:
    """Place trees and poles along the road, and bushes in front of the houses."""
    for side, sign in enumerate((-1, 1)):
        edge = road[side] + sign * rng.uniform(0.4, 0.9)
        trees, step, offset = rng.uniform() < 0.6, rng.uniform(7, 14), rng.uniform(0, 7)
        for x in np.arange(-60 + offset, 60, step):
            if not city.claim(x, edge, 0.3):
                continue
            if trees and rng.uniform() < 0.75:
                tall, crown = rng.uniform(4, 9), rng.uniform(1.2, 2.4)
                city.pole(x, edge, rng.uniform(0.12, 0.25), -_HEIGHT, tall - _HEIGHT, _VEGETATION)
                for _ in range(5):
                    a, b, c = rng.uniform((-0.5, -0.5, 0.4), (0.5, 0.5, 0.85))
                    top = c * tall - _HEIGHT
                    city.pole(x + a * crown, edge + b * crown, 0.6 * crown, top, top + 0.3 * tall, _VEGETATION)
            else:
                city.pole(x, edge, rng.uniform(0.05, 0.12), -_HEIGHT, rng.uniform(3, 7) - _HEIGHT, _POLE)
    for _ in range(int(rng.integers(0, 10))):  # bushes
        side = int(rng.integers(2))
        x, y = rng.uniform(-40, 40), road[side] + (2 * side - 1) * (pavement[side] - rng.uniform(0, 0.8))
        if city.claim(x, y, 0.6):
            for _ in range(3):
                a, b = x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5)
                city.pole(a, b, rng.uniform(0.3, 0.7), -_HEIGHT, rng.uniform(0.5, 1.6) - _HEIGHT, _VEGETATION)


def _measure(rng: np.random.Generator, city: _City, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the ranges and intensities that the scanner measures: noisy, and with some returns missing."""
    shape = city.ranges.shape
    has_return = (city.ranges < MAX_RANGE) & (city.ranges > 0.5)
    reflectance = np.array(_REFLECTANCE)[city.category] * rng.uniform(0.6, 1.4, len(city.labels) + 1)[city.instance]
    bright = np.clip(reflectance * (1 + 0.3 * rng.standard_normal(shape)), 0.01, 1)
    loss = 0.02 + 0.25 * np.clip(np.where(has_return, city.ranges, 0) / MAX_RANGE, 0, 1) ** 2 / np.sqrt(bright)
    has_return &= rng.uniform(size=shape) > noise * loss
    blind = smooth_field(rng, shape, max(shape) / 12) > 0.9  # glass and wet surfaces return no light
    has_return &= ~(blind & np.isin(city.category, (_BUILDING, _CAR)) & (noise > 0))
    measured = np.where(has_return, city.ranges, 0) + 0.02 * noise * rng.standard_normal(shape)
    return np.where(has_return, np.clip(measured, 0.3, MAX_RANGE), 0), np.where(has_return, bright, 0)


def draw_lidar(
    seed: int | tuple[int, ...], size: tuple[int, int] = (32, 256), *, noise: float = 1.0
) -> dict[str, Tensor | list]:
    """Draw one rotation of the laser scanner.

    Args:
        seed: an integer, or a tuple such as (seed, index); the same seed gives the same scan.
        size: (H, W), number of elevations and of directions around the scanner, at least 16 each.
        noise: strength of the range noise and of the loss of returns, 0 (none) to 3.

    Returns:
        `ranges` float32 (H, W), metres, 0 where there is no return; `intensity` float32 (H, W) in [0, 1];
        `image` float32 (3, H, W) in [0, 1]: nearness 1 - ranges / 80, intensity, and height above ground over
        8 m, all 0 without return; `semantic` int64 (H, W), indices into `CLASSES`, 255 without return;
        `label_map` int32 (H, W), 1..N for cars and people; `boxes` float32 (N, 4) xyxy (a thing behind the
        scanner may lie at both ends of the image); `labels` int64 (N,); `masks` bool (N, H, W);
        `panoptic_seg` and `segments_info`. N may be 0.
    """
    size = check_size("size", size, _MIN_SIZE)
    noise = check_number("noise", noise, 0, 3)
    rng = scene_rng(seed)
    rays = ray_directions(size)
    rays[rays == 0] = 1e-9
    city = _City(rays, np.full(size, MISSED), np.zeros(size, np.int64), np.zeros(size, np.int32))
    middle, half = rng.uniform(-2, 2), rng.uniform(3.5, 7.5)
    road, pavement = (middle - half, middle + half), tuple(rng.uniform(1.5, 5, 2))
    _ground(rng, city, road, rng.uniform(0.1, 0.2))
    _houses(rng, city, road, pavement)
    _place_cars(rng, city, road)
    _place_people(rng, city, road, pavement)
    _place_trees(rng, city, road, pavement)
    ranges, bright = _measure(rng, city, noise)
    has_return = ranges > 0
    label_map, old_labels = compact(torch.from_numpy(np.where(has_return, city.instance, 0)))
    labels = np.array(city.labels, np.int64)[old_labels.numpy() - 1]
    height = np.clip((ranges * rays[2] + _HEIGHT) / 8, 0, 1)
    image = np.stack([np.where(has_return, 1 - ranges / MAX_RANGE, 0), bright, np.where(has_return, height, 0)])
    sample = make_sample(image, label_map.numpy(), labels, stuff=np.where(has_return, city.category, VOID))
    extra = {"ranges": ranges, "intensity": bright}
    return sample | {key: torch.from_numpy(value.astype(np.float32)) for key, value in extra.items()}
