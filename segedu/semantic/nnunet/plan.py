"""nnU-Net's rules: they derive spacing, patch size, network and batch size from the fingerprint of a data set.

Paper: Isensee, Jaeger, Kohl, Petersen, Maier-Hein, "nnU-Net: a self-configuring method for deep learning-based
    biomedical image segmentation", Nature Methods 2021, arXiv 1904.08128, with its supplement.
Idea: The properties that an expert would examine are measured: spacings, shapes, intensities of the foreground. Rules
    derive a plan from them. The patch is as large as memory allows, and every axis is pooled until its features have 4
    voxels. An axis that is much coarser in millimetres is pooled only when the others have become as coarse.
Simplified: no cascade and no choice between trained configurations (`Plan.needs_cascade` is True where the paper
    would train one), all foreground voxels instead of a sample of them, and axes keep their order.
Shapes: volumes are dicts of `image` (C, D, H, W), `semantic` (D, H, W) and `spacing` (3,) in mm, axes in one order.
Quality: equal to nnunetv2's planner on random spacings, shapes and memories; see the tests.
Course: 16-promptable
Lab: 16_promptable
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segedu.semantic.nnunet.volume import check_spacing, crop_to_nonzero, new_shape
from segedu.validation.numbers import check_choice, check_integer, check_length

Size = tuple[int, ...]

ANISOTROPIC = 3  # an axis more than 3 times coarser than the others is thick
SMALLEST_FEATURES = 4  # voxels along an axis, in the lowest level
BASE_WIDTH, WIDEST = 32, {2: 512, 3: 320}
MIN_BATCH, MAX_DATA_FRACTION = 2, 0.05
# 8 GB hold this many values in the feature maps of a batch of this size.
REFERENCE_GB, REFERENCE_FEATURES, REFERENCE_BATCH = 8, {2: 85_000_000, 3: 560_000_000}, {2: 12, 3: 2}
FIRST_PATCH = {2: 2048**2, 3: 256**3}  # voxels, larger than any memory holds


@dataclass(frozen=True)
class Intensities:
    """Statistics of one channel over the foreground voxels of all training volumes."""

    mean: float
    std: float
    low: float  # percentile 0.5
    high: float  # percentile 99.5


@dataclass(frozen=True)
class Fingerprint:
    """Measurements of a training set.

    `spacings` in mm and `shapes` after the crop have one row per volume, `intensities` one entry per channel.
    `nonzero_fraction` is the median fraction of voxels that remain after the crop.
    """

    spacings: np.ndarray
    shapes: np.ndarray
    intensities: tuple[Intensities, ...]
    nonzero_fraction: float


@dataclass(frozen=True)
class Topology:
    """Strides and kernels of a U-Net for one patch size, one row per level, finest first."""

    patch_size: Size
    strides: tuple[Size, ...]
    kernels: tuple[Size, ...]

    @property
    def pools(self) -> Size:
        """Number of poolings along each axis."""
        return tuple(sum(step == 2 for step in steps) for steps in zip(*self.strides, strict=True))


@dataclass(frozen=True)
class Plan:
    """All settings of preprocessing, network, training and prediction.

    `spacing` has one value per axis of the patch. In a plan of two axes, the images are slices across `slice_axis`,
    along which the spacing does not change. `ct` is True for CT channels, and `masked` for channels whose z-score is
    computed only from nonzero voxels. `median_shape` is the median shape of the resampled training volumes.
    """

    spacing: tuple[float, ...]
    median_shape: tuple[float, ...]
    topology: Topology
    widths: tuple[int, ...]
    batch_size: int
    ct: tuple[bool, ...]
    masked: bool
    intensities: tuple[Intensities, ...]
    num_classes: int
    slice_axis: int | None = None

    @property
    def patch_size(self) -> Size:
        """Voxels along each axis."""
        return self.topology.patch_size

    @property
    def needs_cascade(self) -> bool:
        """Whether the patch covers less than a quarter of a volume: the paper adds a network on coarser volumes."""
        return self.slice_axis is None and math.prod(self.patch_size) < 0.25 * math.prod(self.median_shape)


def fingerprint(volumes: Iterable[Mapping[str, Any]]) -> Fingerprint:
    """Measure a training set.

    Args:
        volumes: dicts of `image` (C, D, H, W), `semantic` (D, H, W) with 0 for background and 255 for ignored, and
            `spacing` (3,) in mm; at least one volume has foreground. An iterator may read one file at a time.
    """
    spacings, shapes, nonzero_fraction, foreground = [], [], [], []
    for volume in volumes:
        image, semantic = np.asarray(volume["image"]), np.asarray(volume["semantic"])
        window = crop_to_nonzero(image)
        check_spacing(volume["spacing"])
        if semantic.shape != image.shape[1:]:
            raise ValueError(f"semantic has shape {semantic.shape}, expected {image.shape[1:]} as image has")
        if foreground and len(image) != len(foreground[0]):
            raise ValueError(f"image has {len(image)} channels, expected {len(foreground[0])} as in the first volume")
        cropped, labels = image[(slice(None), *window)], semantic[window]
        spacings.append(np.asarray(volume["spacing"], dtype=float))
        shapes.append(labels.shape)
        nonzero_fraction.append(labels.size / semantic.size)
        foreground.append(cropped[:, (labels > 0) & (labels != 255)])
        if not np.isfinite(foreground[-1]).all():
            raise ValueError("image has NaN or infinite foreground voxels, expected finite voxels")
    voxels = np.concatenate(foreground, axis=1).astype(float) if foreground else np.zeros((0, 0))
    if not voxels.size:
        raise ValueError(f"volumes has {len(shapes)} volumes without foreground, expected at least one with foreground")
    intensities = tuple(
        Intensities(float(v.mean()), float(v.std()), *map(float, np.percentile(v, (0.5, 99.5)))) for v in voxels
    )
    return Fingerprint(np.array(spacings), np.array(shapes), intensities, float(np.median(nonzero_fraction)))


def target_spacing(spacings: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """The spacing to which all volumes are resampled: the median of each axis, in mm.

    If one axis is thick (more than 3 times coarser and, in voxels, more than 3 times shorter than the others),
    resampling to its median would discard slices of half of the volumes. Its spacing is then the 10th percentile, but
    not finer than that of the other axes.

    Args:
        spacings: (N, 3) mm.
        shapes: (N, 3) voxels.

    Returns:
        (3,) mm.

    >>> target_spacing(np.array([[1.0, 1, 1], [3, 1, 1], [5, 1, 1]]), np.full((3, 3), 100))
    array([3., 1., 1.])
    """
    spacing, size = np.median(spacings, axis=0), np.median(shapes, axis=0)
    thick = int(np.argmax(spacing))
    coarsest = np.delete(spacing, thick).max()
    if spacing[thick] > ANISOTROPIC * coarsest and size[thick] * ANISOTROPIC < np.delete(size, thick).min():
        finer = np.percentile(spacings[:, thick], 10)
        spacing[thick] = finer if finer >= coarsest else coarsest + 1e-5
    return spacing


def topology(spacing: Sequence[float], patch_size: Sequence[float]) -> Topology:
    """Derive how often each axis is pooled, the kernel sizes, and the patch size that the poolings require.

    At each level, the axes of `axes_to_pool` are halved. A kernel has 1 voxel along an axis until the spacing there is
    within a factor of 2 of the finest, and 3 from then on; 3 everywhere on the lowest level.

    Args:
        spacing: mm along each axis.
        patch_size: voxels along each axis; the median of two shapes may be half an integer. It is rounded up to a
            multiple of 2 to the power of the number of poolings.

    >>> topology([5.0, 1.0, 1.0], [16, 32, 32]).strides
    ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2))
    """
    if not len(spacing) == len(patch_size) > 0 or not min(spacing) > 0 or min(patch_size) < 1:
        raise ValueError(
            f"spacing is {spacing} and patch_size {patch_size}, expected positive numbers, one per axis in each"
        )
    distance, size, axes = list(map(float, spacing)), list(patch_size), range(len(spacing))
    kernel_is_wide = [False for _ in axes]  # whether kernels have 3 voxels
    strides, kernels = [(1,) * len(size)], []
    while pooled := axes_to_pool(distance, size):
        kernel_is_wide = [
            was_wide or distance[axis] / min(distance) < 2 for axis, was_wide in enumerate(kernel_is_wide)
        ]
        kernels.append(tuple(3 if w else 1 for w in kernel_is_wide))
        strides.append(tuple(2 if axis in pooled else 1 for axis in axes))
        for axis in pooled:
            distance[axis], size[axis] = 2 * distance[axis], math.ceil(size[axis] / 2)
    kernels.append((3,) * len(size))
    steps = [math.prod(step) for step in zip(*strides, strict=True)]
    patch = tuple(math.ceil(n / step) * step for n, step in zip(patch_size, steps, strict=True))
    return Topology(patch, tuple(strides), tuple(kernels))


def axes_to_pool(spacing: Sequence[float], size: Sequence[float]) -> list[int]:
    """Select the axes that the next pooling halves.

    Args:
        spacing: mm along each axis, at this level.
        size: voxels along each axis, at this level.

    Returns:
        Of the axes with at least 8 voxels, those whose spacing is less than twice the finest of them; a single axis
        needs 12.

    >>> axes_to_pool([4.0, 1.0, 1.5], [64, 64, 64]), axes_to_pool([1.0, 1.0], [8, 7])
    ([1, 2], [])
    """
    large = [axis for axis, n in enumerate(size) if n >= 2 * SMALLEST_FEATURES]
    finest = min((spacing[axis] for axis in large), default=1.0)
    axes = [axis for axis in large if spacing[axis] / finest < 2]
    return [] if len(axes) == 1 and size[axes[0]] < 3 * SMALLEST_FEATURES else axes


def count_features(net: Topology, widths: Sequence[int], num_classes: int) -> int:
    """Number of values in the feature maps of one patch: nnU-Net's measure of memory.

    It counts the outputs of two convolutions on each level in the encoder and in the decoder, of the up-convolutions,
    and the logits.

    Args:
        net: strides and patch size.
        widths: channels of each level.
        num_classes: channels of the logits.
    """
    total, size = num_classes * math.prod(net.patch_size), list(net.patch_size)
    for level, (width, stride) in enumerate(zip(widths, net.strides, strict=True)):
        size = [n // step for n, step in zip(size, stride, strict=True)]
        is_lowest = level == len(widths) - 1
        total += (2 if is_lowest else 5) * width * math.prod(size)
    return total


def widths_of(net: Topology, base_width: int = BASE_WIDTH) -> tuple[int, ...]:
    """Channels of each level: doubled from level to level, up to 320 in volumes and 512 in slices."""
    widest = WIDEST[len(net.patch_size)]
    return tuple(min(widest, base_width * 2**level) for level in range(len(net.strides)))


def largest_patch(
    spacing: Sequence[float], median_shape: Sequence[float], num_classes: int, memory_gb: float, base_width: int
) -> tuple[Topology, int]:
    """The largest patch of which two fit into memory, and how many patches of this size fit.

    The first candidate is a block of the same millimetres along all axes, cropped to the median volume. It is then
    repeatedly reduced along the axis on which it covers the largest fraction of the volume.

    Args:
        spacing: target spacing in mm.
        median_shape: median shape of the resampled volumes in voxels.
        num_classes: K, background included.
        memory_gb: memory of the GPU in GB.
        base_width: channels of the first level.

    Returns:
        The topology and the batch size that memory allows.
    """
    axes = len(spacing)
    inverse_spacing = 1 / np.asarray(spacing, dtype=float)
    block = inverse_spacing * (FIRST_PATCH[axes] / inverse_spacing.prod()) ** (1 / axes)
    patch = [min(round(n), limit) for n, limit in zip(block, median_shape, strict=True)]
    net = topology(spacing, patch)
    budget = REFERENCE_FEATURES[axes] * memory_gb / REFERENCE_GB
    while (used := count_features(net, widths_of(net, base_width), num_classes)) / REFERENCE_BATCH[axes] * 2 > budget:
        size = list(net.patch_size)
        largest = int(np.argsort([n / median for n, median in zip(size, median_shape, strict=True)])[-1])
        step = 2 ** net.pools[largest]
        if size[largest] <= step:
            raise ValueError(f"memory_gb is {memory_gb}, expected enough for a patch larger than {size}")
        # Sizes must be multiples of 2 ** poolings. With six poolings, the next size below 256 is 192. But a smaller
        # patch has only five poolings, for which 224 is valid. The decrement is therefore that of the smaller patch.
        smaller = [n - step * (axis == largest) for axis, n in enumerate(size)]
        size[largest] -= 2 ** topology(spacing, smaller).pools[largest]
        net = topology(spacing, size)
    return net, round(budget / used * REFERENCE_BATCH[axes])


def make_plan(
    dataset_fingerprint: Fingerprint,
    num_classes: int,
    ct: Sequence[bool] = (False,),
    axes: int = 3,
    memory_gb: float = 8,
    base_width: int = BASE_WIDTH,
    spacing: Sequence[float] | None = None,
) -> Plan:
    """Derive a plan from a fingerprint.

    Args:
        dataset_fingerprint: fingerprint of the training set.
        num_classes: K, background included.
        ct: for each channel, whether it holds Hounsfield units. These mean the same in every volume, so all volumes are
            normalised by the statistics of the training set. Other channels get the z-score of their volume.
        axes: 3 plans on volumes, 2 on slices across the coarsest axis.
        memory_gb: memory of the GPU in GB. Lower values give smaller patches, which is useful on a CPU too.
        base_width: channels of the first level, 32 in the paper.
        spacing: (3,) mm, replaces the rule's target spacing. With a coarser spacing, a patch covers more of a volume,
            as in the low-resolution network of the paper's cascade.
    """
    check_integer("num_classes", num_classes, 2)
    check_integer("base_width", base_width)
    check_choice("axes", axes, (2, 3))
    check_length("ct", ct, len(dataset_fingerprint.intensities), of="channel")
    old_shapes, old_spacings = dataset_fingerprint.shapes, dataset_fingerprint.spacings
    spacing = target_spacing(old_spacings, old_shapes) if spacing is None else np.asarray(spacing, dtype=float)
    check_spacing(spacing)
    shapes = [new_shape(shape, old, spacing) for shape, old in zip(old_shapes, old_spacings, strict=True)]
    median = np.median(shapes, axis=0)
    slice_axis = int(np.argmax(spacing)) if axes == 2 else None
    inside = [axis for axis in range(3) if axis != slice_axis]
    net, batch = largest_patch(spacing[inside], median[inside], num_classes, memory_gb, base_width)
    # A batch must not contain more than a twentieth of the data: the network would overfit.
    largest_batch = round(float(median.prod()) * len(shapes) * MAX_DATA_FRACTION / math.prod(net.patch_size))
    return Plan(
        spacing=tuple(map(float, spacing[inside])),
        median_shape=tuple(map(float, median[inside])),
        topology=net,
        widths=widths_of(net, base_width),
        batch_size=max(min(batch, largest_batch), MIN_BATCH),
        ct=tuple(ct),
        masked=dataset_fingerprint.nonzero_fraction < 0.75,
        intensities=dataset_fingerprint.intensities,
        num_classes=num_classes,
        slice_axis=slice_axis,
    )
