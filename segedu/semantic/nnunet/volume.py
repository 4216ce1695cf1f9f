"""nnU-Net's preprocessing of volumes: crop, normalise and resample them, and resample predictions back.

Paper: Isensee, Jaeger, Kohl, Petersen, Maier-Hein, "nnU-Net: a self-configuring method for deep learning-based
    biomedical image segmentation", Nature Methods 2021, arXiv 1904.08128, with its supplement.
Idea: The receptive field of a convolution is measured in voxels, not in millimetres. Every volume is therefore
    resampled to one spacing before the network processes it. Values are interpolated by cubic splines, but across thick
    slices, the nearest slice is used. Labels are resampled as one map per class, never as values.
Simplified: resampling works on the whole volume in memory.
Shapes: image (C, D, H, W), semantic (D, H, W), spacing (3,) in mm, axes in one order.
Quality: equal to nnunetv2's resampling to 1e-8; see the tests.
Course: 16-promptable
Lab: 16_promptable
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

Window = tuple[slice, ...]
THICK = 3  # ratio of the coarsest spacing to the finest from which slices are resampled one by one


def crop_to_nonzero(image: np.ndarray) -> Window:
    """The smallest box that contains all voxels that are not 0 in some channel.

    Brain scans are mostly 0 after the skull has been removed. A CT scan is not cropped.

    Args:
        image: (C, D, H, W).

    Returns:
        One slice per axis; the whole volume if every voxel is 0.

    >>> crop_to_nonzero(np.array([[[[0, 0, 2, 3, 0]]]]))
    (slice(0, 1, None), slice(0, 1, None), slice(2, 4, None))
    """
    image = np.asarray(image)
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"image has shape {image.shape}, expected (C, D, H, W), no axis empty")
    inside = ndimage.find_objects((image != 0).any(axis=0).astype(np.uint8))
    return inside[0] if inside else tuple(slice(0, n) for n in image.shape[1:])


def new_shape(shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]) -> tuple[int, ...]:
    """Voxels along each axis after resampling to another spacing, rounded to the nearest integer, at least 1.

    Args:
        shape: voxels before.
        spacing: mm before.
        new_spacing: mm after.

    >>> new_shape([10, 100, 100], [5.0, 0.5, 0.5], [2.5, 1.0, 1.0])
    (20, 50, 50)
    """
    check_spacing(spacing, len(shape))
    check_spacing(new_spacing, len(shape), "new_spacing")
    return tuple(max(round(a / b * n), 1) for n, a, b in zip(shape, spacing, new_spacing, strict=True))


def thick_axis(spacing: Sequence[float], new_spacing: Sequence[float]) -> int | None:
    """The axis across which resampling does not interpolate.

    Args:
        spacing: mm before.
        new_spacing: mm after.

    Returns:
        The coarsest axis of the first of the two spacings whose axes differ by more than a factor of 3; None
        if neither does, or if two axes are equally coarse.

    >>> thick_axis([5.0, 1.0, 1.0], [2.0, 1.0, 1.0]), thick_axis([2.0, 1.0, 1.0], [2.0, 1.0, 1.0])
    (0, None)
    """
    check_spacing(spacing, len(spacing))
    check_spacing(new_spacing, len(spacing), "new_spacing")
    for distances in (np.asarray(spacing, dtype=float), np.asarray(new_spacing, dtype=float)):
        if distances.max() / distances.min() > THICK:
            coarsest = np.flatnonzero(distances == distances.max())
            return int(coarsest[0]) if len(coarsest) == 1 else None
    return None


def resample(volume: np.ndarray, shape: Sequence[int], thick: int | None = None, order: int = 3) -> np.ndarray:
    """Resample an image to another number of voxels; its extent in space does not change.

    The result is clipped to the original range of values, because a spline overshoots at edges.

    Args:
        volume: (D, H, W) floats.
        shape: (D', H', W').
        thick: axis across which the nearest slice is taken, see `thick_axis`.
        order: order of the spline: 3 for images, 1 for probabilities.

    Returns:
        (D', H', W'), float64.

    >>> resample(np.array([[[0.0, 4.0]]]), (1, 1, 4), order=1)
    array([[[0., 1., 3., 4.]]])
    """
    _check_volume(volume, shape)
    if thick not in (None, 0, 1, 2):
        raise ValueError(f"thick is {thick}, expected 0, 1, 2 or None")
    volume = volume.astype(np.float64)
    if thick is None:
        return _zoom(volume, shape, order)
    slices = np.moveaxis(volume, thick, 0)
    inside = tuple(n for axis, n in enumerate(shape) if axis != thick)
    resized = np.stack([_zoom(plane, inside, order) for plane in slices])
    # the slice whose extent contains the centre of the new slice
    centres = len(slices) / shape[thick] * (np.arange(shape[thick]) + 0.5)
    nearest = np.clip(np.floor(centres).astype(int), 0, len(slices) - 1)
    return np.moveaxis(resized[nearest], 0, thick)


def resample_labels(labels: np.ndarray, shape: Sequence[int], thick: int | None = None) -> np.ndarray:
    """Resample labels to another number of voxels, one map of 0 and 1 per class.

    Paper: linear interpolation of the one-hot maps, then argmax. Interpolating the labels themselves would create
    class 2 between classes 1 and 3.

    Args:
        labels: (D, H, W) integers.
        shape: (D', H', W').
        thick: as in `resample`.

    Returns:
        (D', H', W') of the same dtype. If two classes have equal values, the smaller label is chosen.

    >>> resample_labels(np.array([[[1, 3]]]), (1, 1, 4))
    array([[[1, 1, 3, 3]]])
    """
    if labels.dtype.kind not in "iub":
        raise TypeError(f"labels has dtype {labels.dtype}, expected integers")
    _check_volume(labels, shape, "labels")
    best = np.full(tuple(shape), -np.inf)
    resampled = np.zeros(tuple(shape), labels.dtype)
    for label in np.unique(labels):
        share = resample(labels == label, shape, thick, order=1)
        resampled[share > best] = label
        best = np.maximum(best, share)
    return resampled


def resample_classes(maps: np.ndarray, shape: Sequence[int], thick: int | None = None) -> np.ndarray:
    """Resample probabilities (K, D, H, W) to another number of voxels and take the most probable class.

    Args:
        maps: (K, D, H, W).
        shape: (D', H', W').
        thick: as in `resample`.

    Returns:
        Labels (D', H', W'), int64.
    """
    if maps.ndim != 4 or 0 in maps.shape:
        raise ValueError(f"maps has shape {maps.shape}, expected (K, D, H, W), no axis empty")
    best = np.full(tuple(shape), -np.inf)
    labels = np.zeros(tuple(shape), np.int64)
    for label, probability in enumerate(maps):  # one by one, because K resampled volumes may not fit into memory
        share = resample(probability, shape, thick, order=1)
        labels[share > best] = label
        best = np.maximum(best, share)
    return labels


def normalize_ct(channel: np.ndarray, mean: float, std: float, low: float, high: float) -> np.ndarray:
    """Clip and scale Hounsfield units by statistics of the training set, because they mean the same in every volume.

    Args:
        channel: (D, H, W).
        mean: mean over the foreground voxels of all training volumes.
        std: standard deviation of the same voxels.
        low: 0.5th percentile of the same voxels.
        high: 99.5th percentile of the same voxels.

    Returns:
        (D, H, W) float32.
    """
    return ((np.clip(channel, low, high) - mean) / max(std, 1e-8)).astype(np.float32)


def normalize_z(channel: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """The z-score of a volume, by its own mean and standard deviation, because MR intensities have no unit.

    Args:
        channel: (D, H, W).
        mask: voxels that count; all others become 0. None counts all. If no voxel counts, the result is 0 everywhere.

    Returns:
        (D, H, W) float32.
    """
    if mask is not None and not mask.any():
        return np.zeros(channel.shape, np.float32)
    inside = channel[mask] if mask is not None else channel
    scaled = (channel - inside.mean()) / max(float(inside.std()), 1e-8)
    return (scaled if mask is None else np.where(mask, scaled, 0)).astype(np.float32)


def check_spacing(spacing: Sequence[float], axes: int = 3, name: str = "spacing") -> None:
    """Check a spacing: `axes` finite distances above 0, in mm."""
    distances = np.asarray(spacing, dtype=float)
    if distances.shape != (axes,) or not (np.isfinite(distances) & (distances > 0)).all():
        raise ValueError(f"{name} is {distances.tolist()}, expected {axes} numbers above 0, in mm")


def _zoom(volume: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    if volume.shape == tuple(shape):
        return volume
    factors = [new / old for new, old in zip(shape, volume.shape, strict=True)]
    zoomed = ndimage.zoom(volume, factors, order=order, mode="nearest", grid_mode=True)
    return np.clip(zoomed, volume.min(), volume.max())


def _check_volume(volume: np.ndarray, shape: Sequence[int], name: str = "volume") -> None:
    if volume.ndim != 3 or 0 in volume.shape:
        raise ValueError(f"{name} has shape {volume.shape}, expected (D, H, W), no axis empty")
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape is {tuple(shape)}, expected (D, H, W), integers of at least 1")
