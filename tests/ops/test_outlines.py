"""Outlines of masks: pycocotools fills them and gives the same pixels; pieces, holes, cuts, direction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from segedu.ops.masks import connected_components, polygons_to_rle, rle_decode
from segedu.ops.outlines import mask_outlines


def random_mask(seed: int) -> Tensor:
    """Dust, a sieve, or blobs."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 24, size=2)
    if seed % 3 == 2:
        return torch.from_numpy(gaussian_filter(rng.standard_normal(size), 1.5) > 0)
    return torch.from_numpy(rng.random(size) < (0.5, 0.85)[seed % 3])


@pytest.mark.parametrize("start", range(0, 300, 100))
def test_filled_again_they_are_the_same_pixels(start: int) -> None:
    for seed in range(start, start + 100):
        mask = random_mask(seed)
        polygons = mask_outlines(mask)
        assert torch.equal(rle_decode(polygons_to_rle(polygons, tuple(mask.shape))), mask), seed
        assert len(polygons) == connected_components(mask)[1]


def test_corners_run_clockwise_from_the_left() -> None:
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[1:3, 2:5] = True
    assert mask_outlines(mask) == [[2, 1, 5, 1, 5, 3, 2, 3]]
    assert mask_outlines(torch.ones(1, 1, dtype=torch.bool)) == [[0, 0, 1, 0, 1, 1, 0, 1]]


def test_a_hole_hangs_on_a_cut() -> None:
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1:3, 2:4] = False
    (polygon,) = mask_outlines(mask)
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    assert points.count((0, 1)) == 2  # where the cut begins, and where it ends
    assert set(points) == {(0, 0), (5, 0), (5, 4), (0, 4), (0, 1), (2, 1), (2, 3), (4, 3), (4, 1)}


def test_holes_beside_each_other_and_one_in_another_piece() -> None:
    mask = torch.ones(9, 12, dtype=torch.bool)
    mask[1:8, 1:8] = False
    mask[3:6, 3:6] = True  # an island in a hole
    mask[4, 4] = mask[4, 9] = mask[6, 10] = False
    polygons = mask_outlines(mask)
    assert len(polygons) == 2
    for part in polygons:
        assert rle_decode(polygons_to_rle([part], (9, 12))).sum() in (int(mask.sum()) - 8, 8)


def test_nothing() -> None:
    for size in ((3, 4), (0, 4), (3, 0)):
        assert mask_outlines(torch.zeros(size, dtype=torch.bool)) == []
