"""Boundary F1 against scikit-image (the boundary) and a k-d tree (the distances), and its edge cases."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from skimage.segmentation import find_boundaries

from segedu.metrics.boundary import boundary_f1, mask_boundary


def random_mask(shape, seed):
    """Blobs, some of them cut by the edge of the image."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    mask = np.zeros(shape, dtype=bool)
    for _ in range(3):
        y, x, radius = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(2, 7)
        mask |= (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return mask


SHAPES = [(24, 32), (17, 23)]


def by_kd_tree(preds, target, tolerance):
    first, second = (np.argwhere(find_boundaries(m, connectivity=1, mode="inner")) for m in (preds, target))
    precision = (cKDTree(second).query(first)[0] <= tolerance).mean()
    recall = (cKDTree(first).query(second)[0] <= tolerance).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def compare(ours):
    for shape in SHAPES:
        for seed in range(4):
            preds, target = random_mask(shape, seed), random_mask(shape, seed + 50)
            for tolerance in (0, 1, math.sqrt(2), 2, 2.5, 5):
                assert ours(preds, target, tolerance) == by_kd_tree(preds, target, tolerance)


def test_equals_scikit_image_and_kd_tree():
    compare(boundary_f1)


PERTURBED = {
    "precision alone": lambda p, t, tolerance: _precision(p, t, tolerance),
    "edge of the image is boundary": lambda p, t, tolerance: boundary_f1(np.pad(p, 1), np.pad(t, 1), tolerance),
    "smaller tolerance": lambda p, t, tolerance: boundary_f1(p, t, tolerance * 0.999),
    "filled masks": lambda p, t, tolerance: boundary_f1(~p, ~t, tolerance),
    "scaled": lambda p, t, tolerance: boundary_f1(p, t, tolerance) * (1 + 1e-12),
}


def _precision(preds, target, tolerance):
    first, second = (np.argwhere(mask_boundary(m).numpy()) for m in (preds, target))
    return (cKDTree(second).query(first)[0] <= tolerance).mean()


@pytest.mark.parametrize("name", PERTURBED)
def test_comparison_refuses_a_perturbed_function(name):
    with pytest.raises(AssertionError):
        compare(PERTURBED[name])


def square(top, left, size=2, shape=(12, 12)):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[top : top + size, left : left + size] = True
    return mask


def test_tolerance_is_a_radius_not_a_window():
    a, b = square(2, 2, size=1), square(4, 4, size=1)  # one pixel each, 2 down and 2 right: 2.83 away
    assert boundary_f1(a, b, 2) == 0  # a 5x5 window would say 1
    assert boundary_f1(a, b, math.sqrt(8)) == 1
    c = square(5, 6, size=1)  # 3 down and 4 right of a: exactly 5
    assert boundary_f1(a, c, 5) == 1
    assert boundary_f1(a, c, 4.999) == 0


def test_edge_of_the_image_is_no_boundary():
    half = torch.zeros(6, 6, dtype=torch.bool)
    half[:, :3] = True
    assert torch.nonzero(mask_boundary(half))[:, 1].tolist() == [2] * 6


def test_precision_and_recall_are_symmetric():
    one, two = square(2, 2), square(2, 2) | square(8, 8)
    # precision 1, recall 4 of 8: F1 2/3, and the same with the roles exchanged
    assert boundary_f1(one, two, 1) == boundary_f1(two, one, 1) == pytest.approx(2 / 3)


def test_empty_cases():
    empty, full, some = torch.zeros(5, 6).bool(), torch.ones(5, 6).bool(), square(1, 1, shape=(5, 6))
    assert boundary_f1(empty, empty, 1) == 1
    assert boundary_f1(empty, some, 1) == boundary_f1(some, empty, 1) == 0
    assert boundary_f1(full, full, 1) == 1
    assert boundary_f1(full, some, 1) == 0
    assert boundary_f1(full, empty, 1) == 1  # neither has a contour inside the image
    assert boundary_f1(torch.zeros(0, 4).bool(), torch.zeros(0, 4).bool(), 1) == 1


def test_one_pixel_object_and_infinite_tolerance():
    dot, other = square(3, 3, size=1), square(9, 0, size=1)
    assert boundary_f1(dot, dot, 0) == 1
    assert boundary_f1(dot, other, 0) == 0
    assert boundary_f1(dot, other, math.inf) == 1
