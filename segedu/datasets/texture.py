"""Arguments and random fields that the synthetic scenes share: seeds, counts, smooth light, stripes."""

from __future__ import annotations

import numpy as np


def check_count(count: int | tuple[int, int]) -> tuple[int, int]:
    """Return `count` as (lowest, highest), two integers of at least 0; a single integer stands for both."""
    pair = count if isinstance(count, tuple | list) else (count, count)
    if len(pair) != 2 or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in pair):
        raise TypeError(f"count is {count!r}, expected an integer or (lowest, highest)")
    if pair[0] < 0 or pair[0] > pair[1]:
        raise ValueError(f"count is {count!r}, expected 0 <= lowest <= highest")
    return int(pair[0]), int(pair[1])


def scene_rng(seed: int | tuple[int, ...]) -> np.random.Generator:
    """Return a new random generator that depends only on `seed`.

    Args:
        seed: an integer of at least 0, or a tuple of them such as (seed, index).
    """
    parts = tuple(seed) if isinstance(seed, (tuple, list)) else (seed,)
    if not all(isinstance(part, (int, np.integer)) and not isinstance(part, bool) for part in parts):
        raise TypeError(f"seed is {seed!r}, expected an integer or a tuple of integers")
    if not parts or min(parts) < 0:
        raise ValueError(f"seed is {seed!r}, expected integers of at least 0")
    return np.random.default_rng([int(part) for part in parts])


def _interpolate(grid: np.ndarray, length: int) -> np.ndarray:
    """Interpolate the first axis of `grid` to `length` samples with cosine weights between knots."""
    position = (np.arange(length) + 0.5) / length * (len(grid) - 1)
    knot = np.minimum(position.astype(int), len(grid) - 2)
    weight = (0.5 - 0.5 * np.cos(np.pi * (position - knot)))[:, None]
    return grid[knot] * (1 - weight) + grid[knot + 1] * weight


def smooth_field(rng: np.random.Generator, size: tuple[int, int], cell: float) -> np.ndarray:
    """Value noise: uniform numbers in [-1, 1] on a grid of about `cell` pixels, smoothly interpolated.

    Args:
        size: (H, W).
        cell: distance between knots in pixels.

    Returns:
        float64 (H, W) in [-1, 1].
    """
    knots = [max(2, round(side / cell) + 1) for side in size]
    grid = rng.uniform(-1, 1, knots)
    return _interpolate(_interpolate(grid, size[0]).T, size[1]).T


def stripes(rng: np.random.Generator, size: tuple[int, int], period: float) -> np.ndarray:
    """Slightly bent waves in a random direction, float64 (H, W) in [-1, 1].

    Args:
        size: (H, W).
        period: period of the waves in pixels.

    Returns:
        The pattern.
    """
    rows, columns = np.mgrid[: size[0], : size[1]]
    angle = rng.uniform(0, np.pi)
    bend = 0.5 * period * smooth_field(rng, size, max(size) / 3)
    return np.sin(2 * np.pi * (columns * np.cos(angle) + rows * np.sin(angle) + bend) / period)
