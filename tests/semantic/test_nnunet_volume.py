"""Crop, resampling and normalisation against nnunetv2 where it is installed, scikit-image, and closed forms."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from skimage.transform import resize

from segedu.semantic.nnunet import volume as nnunet_volume
from segedu.semantic.nnunet.volume import (
    crop_to_nonzero,
    new_shape,
    normalize_ct,
    normalize_z,
    resample,
    resample_classes,
    resample_labels,
    thick_axis,
)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


SPACINGS = [
    ((1.0, 1.0, 1.0), (0.7, 1.3, 2.0)),
    ((5.0, 1.0, 0.9), (2.5, 0.8, 1.1)),
    ((0.8, 4.0, 1.0), (1.0, 4.0, 1.3)),
    ((1.0, 1.0, 2.0), (1.0, 1.0, 6.0)),
    ((0.2, 1.3, 1.3), (0.5, 1.0, 1.0)),
]


@pytest.mark.parametrize(("old", "new"), SPACINGS)
def test_resampling_is_that_of_nnunetv2(old: tuple, new: tuple) -> None:
    theirs = pytest.importorskip("nnunetv2.preprocessing.resampling.default_resampling")
    volume = random(1, 9, 11, 13)
    shape, thick = new_shape(volume.shape[1:], old, new), thick_axis(old, new)
    assert (thick is not None, thick) == theirs.determine_do_sep_z_and_axis(None, old, new)
    np.testing.assert_array_equal(shape, theirs.compute_new_shape(volume.shape[1:], old, new))
    for order in (3, 1):
        expected = theirs.resample_data_or_seg_to_shape(
            volume, shape, old, new, order=order, order_z=0, force_separate_z=None
        )
        np.testing.assert_allclose(resample(volume[0], shape, thick, order), expected[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize(("old", "new"), SPACINGS[:3])
def test_labels_are_those_of_nnunetv2(old: tuple, new: tuple) -> None:
    """Of two classes: with more, nnunetv2 leaves a voxel empty where no class has half, and the largest wins here."""
    theirs = pytest.importorskip("nnunetv2.preprocessing.resampling.default_resampling")
    labels = (random(1, 9, 11, 13, seed=2) > 0.3).astype(np.int16)
    shape, thick = new_shape(labels.shape[1:], old, new), thick_axis(old, new)
    expected = theirs.resample_data_or_seg_to_shape(
        labels, shape, old, new, is_seg=True, order=1, force_separate_z=None
    )
    share = resample(labels[0], shape, thick, order=1)
    clear = np.abs(share - 0.5) > 1e-6
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(resample_labels(labels[0], shape, thick)[clear], expected[0][clear])


@pytest.mark.parametrize("shape", [(5, 20, 8), (14, 7, 9), (9, 11, 13), (1, 1, 1)])
def test_resampling_is_that_of_scikit_image(shape: tuple[int, ...]) -> None:
    volume = random(9, 11, 13)
    for order in (1, 3):
        expected = resize(volume, shape, order, mode="edge", anti_aliasing=False, clip=True)
        np.testing.assert_allclose(resample(volume, shape, order=order), expected, rtol=0, atol=1e-10)


def test_the_comparison_notices_another_border(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, zoom = random(9, 11, 13), nnunet_volume.ndimage.zoom
    expected = resize(volume, (5, 20, 8), 3, mode="edge", anti_aliasing=False, clip=True)
    monkeypatch.setattr(nnunet_volume.ndimage, "zoom", lambda *a, **k: zoom(*a, **(k | {"mode": "reflect"})))
    assert np.abs(resample(volume, (5, 20, 8)) - expected).max() > 1e-3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_across_a_thick_axis_nothing_is_invented(axis: int) -> None:
    volume = np.moveaxis(np.arange(4.0)[:, None, None] * np.ones((4, 3, 3)), 0, axis)
    shape = [3, 3, 3]
    shape[axis] = 7
    found = np.moveaxis(resample(volume, shape, thick=axis), axis, 0)[:, 0, 0]
    assert set(found) == {0, 1, 2, 3} and (np.diff(found) >= 0).all()


def test_labels_between_one_and_three_are_never_two() -> None:
    labels = np.where(np.arange(10) < 5, 1, 3).reshape(1, 1, 10)
    found = resample_labels(labels, (1, 1, 23))
    assert set(np.unique(found)) == {1, 3} and found.dtype == labels.dtype
    maps = np.stack([np.zeros(10), labels[0, 0] == 1, np.zeros(10), labels[0, 0] == 3]).reshape(4, 1, 1, 10)
    np.testing.assert_array_equal(resample_classes(maps, (1, 1, 23)), found)


def test_there_and_back() -> None:
    grid = np.ix_(*[np.linspace(0, 3, n) for n in (12, 30, 32)])
    volume = np.sin(grid[0]) + np.cos(grid[1]) * grid[2]
    shape = new_shape(volume.shape, (2.5, 1, 1), (1.5, 0.8, 0.9))
    assert shape == (20, 38, 36)
    np.testing.assert_allclose(resample(resample(volume, shape), volume.shape), volume, atol=0.02)


def test_crop() -> None:
    image = np.zeros((2, 5, 6, 7))
    image[0, 2, 3, 4], image[1, 3, 1, 4] = -1, 2
    assert crop_to_nonzero(image) == (slice(2, 4), slice(1, 4), slice(4, 5))
    assert crop_to_nonzero(np.zeros((1, 2, 3, 4))) == (slice(0, 2), slice(0, 3), slice(0, 4))


def test_normalisation() -> None:
    channel = random(4, 5, 6) * 100
    expected = (np.clip(channel, -80, 120) - 20) / 50
    np.testing.assert_allclose(normalize_ct(channel, 20, 50, -80, 120), expected, rtol=1e-6)
    scaled = normalize_z(channel)
    assert abs(scaled.mean()) < 1e-5 and abs(scaled.std() - 1) < 1e-5 and scaled.dtype == np.float32
    mask = channel > 0
    inside = normalize_z(channel, mask)
    assert abs(inside[mask].mean()) < 1e-5 and not inside[~mask].any()
    assert not normalize_z(np.full((2, 2, 2), 7.0)).any()  # constant: 0, not NaN


@pytest.mark.parametrize(
    "call",
    [
        lambda: crop_to_nonzero(np.zeros((5, 6, 7))),
        lambda: resample(np.zeros((5, 6)), (3, 3, 3)),
        lambda: resample(np.zeros((5, 6, 7)), (3, 3)),
        lambda: resample(np.zeros((5, 6, 7)), (3, 3, 0)),
        lambda: resample_labels(np.zeros((5, 0, 7), int), (3, 3, 3)),
        lambda: resample(np.zeros((5, 6, 7)), (3, 3, 3), thick=-1),
        lambda: resample(np.zeros((5, 6, 7)), (3, 3, 3), thick=3),
        lambda: resample_classes(np.zeros((5, 6, 7)), (3, 3, 3)),
        lambda: resample_classes(np.zeros((0, 5, 6, 7)), (3, 3, 3)),
    ],
)
def test_bad_input(call) -> None:
    with pytest.raises(ValueError, match="expected"):
        call()


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, -1, 1), (1, 1, math.nan), (math.inf, 1, 1), (1, 1)])
def test_spacings_that_are_none(wrong: tuple) -> None:
    for call in (lambda a, b: new_shape((4, 5, 6), a, b), thick_axis):
        with pytest.raises(ValueError, match="^(new_)?spacing is .* expected 3 numbers above 0, in mm"):
            call((1, 1, 1), wrong)
    with pytest.raises(ValueError, match="^spacing is .* expected 3 numbers above 0, in mm"):
        new_shape((4, 5, 6), wrong, (1, 1, 1))


def test_labels_are_whole_numbers() -> None:
    with pytest.raises(TypeError, match="labels has dtype float64, expected integers"):
        resample_labels(np.zeros((2, 2, 2)), (3, 3, 3))


def test_a_mask_of_nothing_gives_zeros() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled = normalize_z(random(2, 3, 4), np.zeros((2, 3, 4), bool))
    assert not scaled.any() and scaled.dtype == np.float32
