"""Distances between surfaces against MONAI, boundary IoU against repeated erosion, and both by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy.ndimage import binary_erosion

from segedu.metrics.boundary import average_surface_distance, boundary_iou, hausdorff_distance_95

SHAPES = [(24, 32), (17, 23), (9, 14, 12)]


def random_mask(shape, seed):
    """Balls, some of them cut by the edge of the image, and a stray pixel."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, dtype=bool)
    for _ in range(3):
        centre, radius = rng.uniform(0, shape), rng.uniform(2, 6)
        away = np.indices(shape) - centre.reshape(-1, *[1] * len(shape))
        mask |= (away**2).sum(axis=0) <= radius**2
    mask[tuple(rng.integers(0, shape))] = True
    return mask


def by_monai(metric, preds, target, spacing, **options):
    one, two = (torch.from_numpy(mask)[None, None] for mask in (preds, target))
    return float(metric(one, two, include_background=True, spacing=list(spacing), **options))


def compare(name, ours):
    peer, options = {
        "hausdorff": (compute_hausdorff_distance, {"percentile": 95}),
        "average": (compute_average_surface_distance, {"symmetric": True}),
    }[name]
    for shape in SHAPES:
        for seed in range(4):
            preds, target = random_mask(shape, seed), random_mask(shape, seed + 50)
            for spacing in ([1.0] * len(shape), [2.5, 0.5, 1.25][: len(shape)]):
                expected = by_monai(peer, preds, target, spacing, **options)
                assert ours(preds, target, spacing) == pytest.approx(expected, rel=2e-6)  # MONAI: float32


OURS = {"hausdorff": hausdorff_distance_95, "average": average_surface_distance}


@pytest.mark.parametrize("name", OURS)
def test_equals_monai(name):
    compare(name, OURS[name])


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("perturb", ["scaled", "no spacing", "filled", "edge of the image is no surface"])
def test_comparison_refuses_a_perturbed_function(name, perturb):
    metric = OURS[name]
    perturbed = {
        "scaled": lambda p, t, s: metric(p, t, s) * (1 + 1e-5),
        "no spacing": lambda p, t, s: metric(p, t),
        "filled": lambda p, t, s: metric(~p, ~t, s),
        "edge of the image is no surface": lambda p, t, s: metric(*(np.pad(m, 1, mode="edge") for m in (p, t)), s),
    }[perturb]
    with pytest.raises(AssertionError):
        compare(name, perturbed)


def by_erosion(preds, target, ratio=0.02):
    """As Cheng et al. describe it: pad with 0, erode d times by a 3x3 square, subtract."""
    d = max(1, round(ratio * math.hypot(*target.shape)))
    bands = []
    for mask in (preds, target):
        padded = np.pad(mask, 1)
        inner = binary_erosion(padded, np.ones((3, 3)), iterations=d)[1:-1, 1:-1]
        bands.append(mask & ~inner)
    return (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()


def compare_bands(ours):
    for shape in [(24, 32), (17, 23), (90, 140)]:
        for seed in range(3):
            preds, target = random_mask(shape, seed), random_mask(shape, seed + 50) | random_mask(shape, seed)
            for ratio in (0.02, 0.05, 0.1):
                assert ours(preds, target, ratio) == by_erosion(preds, target, ratio)


def test_boundary_iou_equals_repeated_erosion():
    compare_bands(boundary_iou)


PERTURBED = {
    "one pixel": lambda p, t, ratio: boundary_iou(p, t, 1e-6),
    "masks": lambda p, t, ratio: boundary_iou(p, t, 9.0),
    "edge of the image is no boundary": lambda p, t, ratio: boundary_iou(
        *(np.pad(m, 20, mode="edge") for m in (p, t)), ratio * math.hypot(*p.shape) / math.hypot(*np.add(p.shape, 40))
    ),
    "scaled": lambda p, t, ratio: boundary_iou(p, t, ratio) * (1 + 1e-12),
}


@pytest.mark.parametrize("name", PERTURBED)
def test_comparison_refuses_other_bands(name):
    with pytest.raises(AssertionError):
        compare_bands(PERTURBED[name])


def disc(radius, shift=0.0, size=120):
    y, x = np.indices((size, size)) - size / 2
    return y**2 + (x - shift) ** 2 <= radius**2


def test_boundary_iou_sees_the_contour_of_a_large_object():
    """Discs of radius 40 and 36: the IoU is near 0.81; the bands, 3 pixels wide, do not meet at all."""
    large, small = disc(40), disc(36)
    assert (large & small).sum() / (large | small).sum() == pytest.approx(0.81, abs=0.005)
    assert boundary_iou(large, small) == 0


def test_a_concentric_pair_has_the_difference_of_the_radii():
    for metric in OURS.values():
        assert metric(disc(40), disc(30)) == pytest.approx(10, abs=0.6)


def test_one_stray_pixel_moves_the_maximum_not_the_percentile():
    truth, preds = disc(30), disc(30)
    preds[0, 0] = True
    assert hausdorff_distance_95(preds, truth) == 0
    assert average_surface_distance(preds, truth) > 0.1


def test_percentile_interpolates():
    """Two pixels, 0 and 10 away: the 95th percentile is 9.5, and the other way round everything is 0."""
    preds, target = np.zeros((1, 11), dtype=bool), np.zeros((1, 11), dtype=bool)
    preds[0, [0, 10]], target[0, 0] = True, True
    assert hausdorff_distance_95(preds, target) == hausdorff_distance_95(target, preds) == 9.5


def test_empty_cases():
    empty, full = torch.zeros(5, 6).bool(), torch.ones(5, 6).bool()
    for metric in OURS.values():
        assert metric(empty, empty) == 0
        assert metric(empty, full) == metric(full, empty) == math.inf
        assert metric(full, full) == 0
        assert metric(torch.zeros(0, 4).bool(), torch.zeros(0, 4).bool()) == 0
    assert boundary_iou(empty, empty) == boundary_iou(full, full) == 1
    assert boundary_iou(empty, full) == boundary_iou(full, empty) == 0
    assert boundary_iou(torch.zeros(0, 4).bool(), torch.zeros(0, 4).bool()) == 1


MASKS = arrays(bool, (2, 6, 7))


@given(MASKS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_symmetry_bounds_and_shifts(masks):
    preds, target = masks
    for metric in (*OURS.values(), boundary_iou):
        value = metric(preds, target)
        assert metric(target, preds) == pytest.approx(value, rel=1e-14)
        assert metric(preds[::-1, ::-1].copy(), target[::-1, ::-1].copy()) == pytest.approx(value, rel=1e-14)
        assert metric(preds, preds) == (1 if metric is boundary_iou else 0)
    assert 0 <= boundary_iou(preds, target) <= 1
    for metric in OURS.values():
        value = metric(preds, target)
        assert value >= 0
        # a frame of background changes nothing, pixels of size 3 triple the distance
        assert metric(np.pad(preds, 3), np.pad(target, 3)) == value
        assert metric(preds, target, 3.0) == pytest.approx(3 * value, rel=1e-12)
