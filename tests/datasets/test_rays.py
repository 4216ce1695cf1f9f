"""Rays against boxes and cylinders: by hand, and against small steps along the ray."""

from __future__ import annotations

import numpy as np
import pytest

from segedu.datasets.rays import MISSED, box_hit, pole_hit


def test_box_by_hand() -> None:
    rays = np.array([[1.0, 1e-9, 1e-9], [1e-9, 1.0, 1e-9], [-1.0, 1e-9, 1e-9], [1.0, 0.3, 1e-9]]).T
    distance, axis = box_hit(np.zeros(3), rays, np.array([2.0, -1, -1]), np.array([5.0, 1, 1]))
    assert distance == pytest.approx([2, MISSED, MISSED, 2]) and axis[0] == 0 and axis[3] == 0
    distance, axis = box_hit(np.array([3.0, 0, -4]), np.array([[1e-9], [1e-9], [2.0]]), np.zeros(3) - 1, np.ones(3) * 4)
    assert distance == pytest.approx([1.5]) and axis[0] == 2  # in lengths of the direction


def test_pole_by_hand() -> None:
    rays = np.array([[1.0, 0, 0], [1.0, 0, 0.6], [0, 1.0, 0], [-1.0, 0, 0]]).T
    assert pole_hit(rays, (5.0, 0.0), 1.0, (-2, 2)) == pytest.approx([4, MISSED, MISSED, MISSED])


@pytest.mark.parametrize("shape", ["box", "pole"])
def test_against_small_steps(shape: str) -> None:
    rng = np.random.default_rng(3)
    rays = rng.standard_normal((3, 400))
    rays /= np.linalg.norm(rays, axis=0)
    steps = np.arange(0.005, 8, 0.01)
    points = rays[:, :, None] * steps
    low, high = np.array([0.5, -1.0, -0.6]), np.array([2.0, 1.5, 0.9])
    if shape == "box":
        found, _ = box_hit(np.zeros(3), rays, low, high)
        inside = ((points > low[:, None, None]) & (points < high[:, None, None])).all(axis=0)
    else:
        found = pole_hit(rays, (1.6, 0.4), 0.8, (-1.0, 1.2))
        inside = (np.hypot(points[0] - 1.6, points[1] - 0.4) < 0.8) & (points[2] > -1.0) & (points[2] < 1.2)
    first = np.where(inside.any(axis=1), steps[inside.argmax(axis=1)], MISSED)
    if shape == "pole":  # a ray that enters through an end does not meet the mantle
        height = np.where(np.isfinite(first), first, 0) * rays[2]
        first = np.where((height > -0.97) & (height < 1.17), first, found)
    both = np.isfinite(found) & np.isfinite(first)
    assert both.sum() > 20 and np.abs(found[both] - first[both]).max() <= 0.0101
    assert (np.isfinite(found) != np.isfinite(first)).mean() < 0.02  # rays that graze an edge
