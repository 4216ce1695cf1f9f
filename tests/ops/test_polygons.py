"""Star polygons against triangles clipped one by one, closed forms, scikit-image and StarDist's C++."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchmarks.cells import crowd
from skimage.draw import polygon as skimage_polygon

from segedu.ops.polygons import (
    polygon_areas,
    polygon_intersections,
    polygon_iou,
    rasterize_polygons,
    star_polygons,
    star_rays,
    suppress_polygons,
)


def stars(rng: np.random.Generator, count: int, n_rays: int, size: float = 20.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Far from convex: distances of neighbouring rays have nothing in common."""
    distances = rng.uniform(1, 20, (count, n_rays))
    return torch.from_numpy(distances), torch.from_numpy(rng.uniform(0, size, (count, 2)))


def clipped_area(triangle: list, window: list) -> float:
    """Area that two triangles share, by Sutherland and Hodgman; points are (x, y), both run the same way round."""
    corners = triangle
    for a in range(3):
        p, q = window[a], window[(a + 1) % 3]
        sides = [(q[0] - p[0]) * (c[1] - p[1]) - (q[1] - p[1]) * (c[0] - p[0]) for c in corners]
        left = []
        for i in range(len(corners)):
            if (sides[i - 1] >= 0) != (sides[i] >= 0):
                t = sides[i - 1] / (sides[i - 1] - sides[i])
                left.append(corners[i - 1] + t * (corners[i] - corners[i - 1]))
            if sides[i] >= 0:
                left.append(corners[i])
        corners = left
        if not corners:
            return 0.0
    x, y = np.array(corners).T
    return 0.5 * float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())


def shared_area(first: np.ndarray, a: np.ndarray, second: np.ndarray, b: np.ndarray) -> float:
    """Of two star polygons (R, 2) around a and b, as a sum over all pairs of their triangles."""
    total = 0.0
    for i in range(len(first)):
        for j in range(len(second)):
            one, other = [a, first[i - 1], first[i]], [b, second[j - 1], second[j]]
            total += clipped_area(one, other)
    return total


def test_intersections_equal_the_sum_over_clipped_triangles() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        (one, a), (other, b) = stars(rng, 1, rng.integers(3, 12)), stars(rng, 1, rng.integers(3, 12))
        got = polygon_intersections(one, a, other, b).item()
        corners = [star_polygons(one, a)[0].numpy(), star_polygons(other, b)[0].numpy()]
        expected = shared_area(*(v[..., ::-1] for v in (corners[0], a[0].numpy(), corners[1], b[0].numpy())))
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_intersections_of_known_shapes() -> None:
    diamond, nowhere = torch.full((1, 4), 2.0), torch.zeros(1, 2)
    for shift, expected in ((0.0, 8.0), (1.0, 4.5), (3.0, 0.5), (4.0, 0.0), (9.0, 0.0)):
        moved = torch.tensor([[0.0, shift]])
        assert polygon_intersections(diamond, nowhere, diamond, moved).item() == pytest.approx(expected, abs=1e-12)
    # Side by side, with an edge in common.
    assert polygon_intersections(diamond, nowhere, diamond, torch.tensor([[2.0, 2.0]])).item() == pytest.approx(0)
    # One inside the other, around a point that is outside of it.
    small = torch.full((1, 9), 0.3)
    inside = polygon_intersections(diamond, nowhere, small, torch.tensor([[0.9, -0.4]])).item()
    assert inside == pytest.approx(9 / 2 * 0.3**2 * math.sin(2 * math.pi / 9))


def test_intersections_do_not_depend_on_order_or_place() -> None:
    rng = np.random.default_rng(1)
    (one, a), (other, b) = stars(rng, 12, 32), stars(rng, 9, 17)
    shared = polygon_intersections(one, a, other, b)
    torch.testing.assert_close(polygon_intersections(other, b, one, a).T, shared, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(polygon_intersections(one, a + 1e4, other, b + 1e4), shared, rtol=1e-7, atol=1e-7)
    itself = polygon_intersections(one, a, one, a).diagonal()
    torch.testing.assert_close(itself, polygon_areas(star_polygons(one, a)), rtol=1e-12, atol=0)
    assert torch.equal(polygon_iou(one, a, one, a).diagonal().round(decimals=9), torch.ones(12).double())


def test_area_of_many_rays_is_that_of_a_disc() -> None:
    disc = star_polygons(torch.full((1, 2000), 3.0, dtype=torch.float64), torch.tensor([[1e3, -1e3]]))
    assert polygon_areas(disc).item() == pytest.approx(9 * math.pi, rel=1e-5)
    assert polygon_areas(disc.flip(1)).item() == pytest.approx(9 * math.pi, rel=1e-5)


def test_rays_turn_from_right_to_down() -> None:
    rays = star_rays(32)
    assert rays[0].tolist() == [0, 1] and rays[8].tolist() == pytest.approx([1, 0])
    torch.testing.assert_close(rays.norm(dim=1), torch.ones(32).double())


def test_rasterize_equals_scikit_image() -> None:
    rng = np.random.default_rng(2)
    distances, points = stars(rng, 30, 32, 60.0)
    expected = np.zeros((61, 47), np.int32)
    for n, corners in enumerate(star_polygons(distances, points).numpy(), start=1):
        expected[skimage_polygon(*corners.T, expected.shape)] = n
    assert torch.equal(rasterize_polygons(distances, points, (61, 47)), torch.from_numpy(expected))


def all_pairs(distances: torch.Tensor, points: torch.Tensor, threshold: float) -> list[bool]:
    """Greedy suppression as it is told, from all intersections."""
    areas = polygon_areas(star_polygons(distances.double(), points))
    shared = polygon_intersections(distances, points, distances, points)
    overlap, kept = shared / torch.minimum(areas[:, None], areas), []
    for n in range(len(distances)):
        kept.append(not any(kept[m] and overlap[m, n] > threshold + 1e-10 for m in range(n)))
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_suppression_without_short_cuts(threshold: float) -> None:
    rng = np.random.default_rng(3)
    distances, points = stars(rng, 250, 16, 120.0)
    distances[::40] *= 6  # buckets are made for the others
    distances[1::40] *= 0.01
    kept = suppress_polygons(distances, points, threshold).tolist()
    assert kept == all_pairs(distances, points, threshold)
    assert 5 < sum(kept) < 245


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_suppression_equals_stardist(threshold: float) -> None:
    nms = pytest.importorskip("stardist.nms")
    distances, points = crowd(3000)
    kept = suppress_polygons(torch.from_numpy(distances), torch.from_numpy(points), threshold).numpy()
    # StarDist's C++ cuts corners down to whole numbers; 64 times as large, that is no longer seen.
    theirs = nms.non_maximum_suppression_inds(64 * distances, 64 * points, None, threshold, verbose=0)
    assert (kept == theirs).all() and 100 < kept.sum() < 1000


def test_a_polygon_of_any_size_paints_what_it_covers() -> None:
    """1e25 pixels are more than an int64 can count."""
    for reach in (10.0, 1e25):
        painted = rasterize_polygons(torch.full((1, 8), reach), torch.tensor([[2.0, 3.0]]), (4, 5))
        assert painted.tolist() == [[1] * 5] * 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    distances, points = torch.tensor([[4.0] * 8, [3.0] * 8, [2.0] * 8]), torch.tensor([[8, 8], [8, 9], [8, 30]])
    half, places = distances.to(dtype), points.to(dtype)
    assert suppress_polygons(half, places, 0.5).tolist() == [True, False, True]
    assert rasterize_polygons(half, places, (20, 40)).equal(rasterize_polygons(distances, points, (20, 40)))
    assert polygon_iou(half, places, half, places).allclose(polygon_iou(distances, points, distances, points))
