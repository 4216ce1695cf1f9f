"""Laser scans: geometry by hand, the projection and its inverse, ranges that agree with the truth, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from segedu.datasets import lidar
from segedu.datasets.lidar import (
    CLASSES,
    FIELD_OF_VIEW,
    MAX_RANGE,
    back_project,
    draw_lidar,
    range_image,
    ray_directions,
)


def test_directions_by_hand() -> None:
    rays = ray_directions((2, 4), (45.0, -45.0))  # elevations 22.5 and -22.5, azimuths 135, 45, -45, -135 degrees
    level, up = math.cos(math.pi / 8), math.sin(math.pi / 8)
    assert rays[:, 0, 1] == pytest.approx([level * math.sqrt(0.5), level * math.sqrt(0.5), up])  # ahead, left
    assert rays[:, 1, 3] == pytest.approx([-level * math.sqrt(0.5), -level * math.sqrt(0.5), -up])  # behind, right
    assert np.linalg.norm(ray_directions((7, 33)), axis=0) == pytest.approx(1)


def test_points_by_hand() -> None:
    ranges = torch.tensor([[0.0, 2.0], [5.0, 0.0]])
    points = back_project(ranges, (60.0, -60.0))  # elevations 30, -30; azimuths 90 (left), -90 (right)
    expected = [[0, -2 * math.sqrt(0.75), 1], [0, 5 * math.sqrt(0.75), -2.5]]
    assert points.numpy() == pytest.approx(np.array(expected))
    assert torch.allclose(range_image(points, (2, 2), (60.0, -60.0)), ranges.double())


@pytest.mark.parametrize("size", [(16, 16), (17, 95), (32, 256), (1, 1), (64, 31)])
@pytest.mark.parametrize("view", [FIELD_OF_VIEW, (90.0, -90.0), (2.0, 1.0)])
def test_projection_is_the_inverse(size: tuple[int, int], view: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    ranges = torch.from_numpy(rng.uniform(0.1, 80, size) * (rng.uniform(size=size) < 0.7))
    points = back_project(ranges, view)
    assert points.shape == (int((ranges > 0).sum()), 3) and points.dtype == torch.float64
    again = range_image(points, size, view)
    assert torch.equal(again > 0, ranges > 0) and torch.allclose(again, ranges, rtol=1e-12, atol=0)
    assert torch.allclose(back_project(again, view), points, rtol=1e-9, atol=1e-12)
    order = torch.from_numpy(rng.permutation(len(points)))
    assert torch.equal(range_image(points[order], size, view), again)


def test_a_drawn_scan_goes_to_points_and_back() -> None:
    scan = draw_lidar(4)
    points = back_project(scan["ranges"])
    assert torch.allclose(range_image(points, (32, 256)), scan["ranges"].double(), rtol=1e-12)
    labels = scan["semantic"][scan["ranges"] > 0]
    assert len(labels) == len(points)
    road = points[labels == CLASSES.index("road")]
    assert road[:, 2].mean() == pytest.approx(-1.8, abs=0.02)  # the scanner is 1.8 m above the road
    houses = points[labels == CLASSES.index("building")]
    assert houses[:, 2].max() > 0 and houses.shape[0] > 100


def test_the_nearest_point_stays_and_others_are_left_out() -> None:
    points = torch.tensor([[8.0, 0, 0], [3.0, 0, 0], [5.0, 0, 0], [0.0, 0, 0], [0, 0, 9.0], [0, 0, -9.0]])
    image = range_image(points, (3, 1), (30.0, -30.0))
    assert image.flatten().tolist() == [0, 3, 0]
    assert range_image(torch.zeros(0, 3), (2, 3)).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert back_project(torch.zeros(4, 5)).shape == (0, 3)
    behind = torch.tensor([[-4.0, -0.0, 0], [-4.0, 0.0, 0]])  # azimuth -180 and 180: the first column is both
    assert (range_image(behind, (1, 8), (30.0, -30.0)) > 0).sum() == 1


def test_ranges_agree_with_the_truth() -> None:
    for seed in range(5):
        scan = draw_lidar(seed)
        ranges, here = scan["ranges"], scan["ranges"] > 0
        assert ranges.dtype == torch.float32 and scan["intensity"].dtype == torch.float32
        assert torch.equal(here, scan["semantic"] != 255) and torch.equal(here, scan["intensity"] > 0)
        assert ranges[here].min() >= 0.3 and ranges.max() <= MAX_RANGE
        assert (scan["image"][:, ~here] == 0).all()
        assert torch.allclose(scan["image"][0][here], 1 - ranges[here] / MAX_RANGE)
    clean = draw_lidar(1, noise=0)
    assert torch.equal(clean["ranges"], draw_lidar(1, noise=0)["ranges"])
    down = torch.from_numpy(ray_directions((32, 256))[2])
    road = clean["semantic"] == CLASSES.index("road")
    assert torch.allclose(clean["ranges"][road].double(), -1.8 / down[road], rtol=1e-5)  # closed form of the plane


def test_version_is_bumped_when_scenes_change() -> None:
    """If this fails, the scenes changed: raise LIDAR_VERSION and measure again whatever was trained on them."""
    scan = draw_lidar((0, 0))
    assert lidar.LIDAR_VERSION == 1
    assert scan["labels"].tolist() == GOLDEN["labels"]
    assert scan["ranges"].mean().item() == pytest.approx(GOLDEN["mean"], abs=1e-3)


GOLDEN = {"labels": [5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6], "mean": 9.2703}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: back_project(np.zeros((2, 2))), TypeError, "ranges has type ndarray"),
        (lambda: back_project(torch.zeros(2, 2, dtype=torch.int64)), TypeError, "ranges has dtype torch.int64"),
        (lambda: back_project(torch.zeros(2)), ValueError, "ranges has shape"),
        (lambda: back_project(-torch.ones(2, 2)), ValueError, "ranges contains"),
        (lambda: back_project(torch.full((2, 2), math.inf)), ValueError, "ranges contains"),
        (lambda: back_project(torch.ones(2, 2), (0.0, 10.0)), ValueError, "field_of_view is"),
        (lambda: back_project(torch.ones(2, 2), 30), TypeError, "field_of_view is 30"),
        (lambda: back_project(torch.ones(2, 2), (100.0, 0.0)), ValueError, "field_of_view is 100"),
        (lambda: range_image([[1, 2, 3]], (2, 2)), TypeError, "points has type list"),
        (lambda: range_image(torch.ones(3, 2), (2, 2)), ValueError, "points has shape"),
        (lambda: range_image(torch.full((1, 3), math.nan), (2, 2)), ValueError, "points contains"),
        (lambda: range_image(torch.ones(1, 3), (0, 2)), ValueError, "at least 1"),
        (lambda: range_image(torch.ones(1, 3), 5), TypeError, "size is 5"),
        (lambda: ray_directions((2.0, 2)), TypeError, "size is"),
    ],
)
def test_bad_input(call, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
