"""Random fields that the synthetic scenes are painted with: smooth light, blotches, stripes."""

from __future__ import annotations

import numpy as np


def check_size(size: tuple[int, ...], minimum: int, axes: int = 2) -> tuple[int, ...]:
    """Return `size` as integers.

    Args:
        size: height and width; depth, height and width of a volume.
        minimum: the smallest side allowed.
        axes: 2 for images, 3 for volumes.

    Returns:
        (height, width) or (depth, height, width).

    Raises:
        TypeError: if `size` is not so many whole numbers.
        ValueError: if a side is below `minimum`.
    """
    whole = (int, np.integer)
    row = isinstance(size, (tuple, list)) and len(size) == axes
    if not row or not all(isinstance(side, whole) and not isinstance(side, bool) for side in size):
        expected = "three whole numbers (depth, height, width)" if axes == 3 else "two whole numbers (height, width)"
        raise TypeError(f"size is {size!r}, expected {expected}")
    if min(size) < minimum:
        unit = "voxels along each axis" if axes == 3 else "pixels on each side"
        raise ValueError(f"size is {tuple(size)}, expected at least {minimum} {unit}")
    return tuple(int(side) for side in size)


def check_count(count: int | tuple[int, int]) -> tuple[int, int]:
    """Return `count` as (lowest, highest); one number stands for both.

    Args:
        count: a number, or (lowest, highest).

    Returns:
        (lowest, highest).

    Raises:
        TypeError: if `count` is not one or two whole numbers.
        ValueError: if it is negative or the lowest exceeds the highest.
    """
    pair = (count, count) if isinstance(count, (int, np.integer)) else count
    whole = (int, np.integer)
    if isinstance(count, bool) or not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"count is {count!r}, expected a whole number or (lowest, highest)")
    if not all(isinstance(part, whole) and not isinstance(part, bool) for part in pair):
        raise TypeError(f"count is {count!r}, expected a whole number or (lowest, highest)")
    if pair[0] < 0 or pair[0] > pair[1]:
        raise ValueError(f"count is {count!r}, expected 0 <= lowest <= highest")
    return int(pair[0]), int(pair[1])


def check_amount(name: str, value: float, lowest: float, highest: float) -> float:
    """Return `value` as a float if it lies in [lowest, highest].

    Args:
        name: of the argument, for the message.
        value: what was given.
        lowest: the smallest value allowed.
        highest: the largest value allowed.

    Returns:
        The number.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is outside the range or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} is {value!r}, expected a number from {lowest} to {highest}")
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value!r}, expected a number from {lowest} to {highest}")
    return float(value)


def scene_rng(seed: int | tuple[int, ...]) -> np.random.Generator:
    """A generator that depends on nothing but `seed`, one number or several such as (seed, index).

    Args:
        seed: one number of at least 0, or several.

    Returns:
        A fresh generator.

    Raises:
        TypeError: if a part is not a whole number.
        ValueError: if a part is negative, or there is none.
    """
    parts = tuple(seed) if isinstance(seed, (tuple, list)) else (seed,)
    if not all(isinstance(part, (int, np.integer)) and not isinstance(part, bool) for part in parts):
        raise TypeError(f"seed is {seed!r}, expected a whole number or a tuple of them")
    if not parts or min(parts) < 0:
        raise ValueError(f"seed is {seed!r}, expected numbers of at least 0")
    return np.random.default_rng([int(part) for part in parts])


def _fill_in(grid: np.ndarray, length: int) -> np.ndarray:
    """Stretch the first axis of `grid` to `length` samples with a smooth (cosine) step between knots."""
    place = (np.arange(length) + 0.5) / length * (len(grid) - 1)
    left = np.minimum(place.astype(int), len(grid) - 2)
    step = (0.5 - 0.5 * np.cos(np.pi * (place - left)))[:, None]
    return grid[left] * (1 - step) + grid[left + 1] * step


def smooth_field(rng: np.random.Generator, size: tuple[int, int], cell: float) -> np.ndarray:
    """Value noise: uniform numbers in [-1, 1] on a grid of about `cell` pixels, smoothly filled in.

    Args:
        rng: where the numbers are drawn from.
        size: height and width.
        cell: distance of the knots in pixels.

    Returns:
        float64 (H, W) in [-1, 1].
    """
    knots = [max(2, round(side / cell) + 1) for side in size]
    grid = rng.uniform(-1, 1, knots)
    return _fill_in(_fill_in(grid, size[0]).T, size[1]).T


def stripes(rng: np.random.Generator, size: tuple[int, int], period: float) -> np.ndarray:
    """Slightly bent waves in a random direction, float64 (H, W) in [-1, 1].

    Args:
        rng: where direction and bends are drawn from.
        size: height and width.
        period: of the waves in pixels.

    Returns:
        The pattern.
    """
    rows, columns = np.mgrid[: size[0], : size[1]]
    angle = rng.uniform(0, np.pi)
    bend = 0.5 * period * smooth_field(rng, size, max(size) / 3)
    return np.sin(2 * np.pi * (columns * np.cos(angle) + rows * np.sin(angle) + bend) / period)
