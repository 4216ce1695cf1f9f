"""Right answers of other kinds than the library's; every check and grading must accept them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage


def resample_scipy(volume, spacing, new_spacing, is_labels):
    """One axis after the other with scipy's zoom."""
    thick = max(spacing) > 3 * min(spacing)
    for axis, (a, b) in enumerate(zip(spacing, new_spacing, strict=True)):
        n = volume.shape[axis]
        factors = [1.0, 1.0, 1.0]
        factors[axis] = max(round(n * a / b), 1) / n
        order = 0 if is_labels or (thick and a == max(spacing)) else 1
        volume = ndimage.zoom(volume, factors, order=order, mode="nearest", grid_mode=True)
    return volume


def resample_torch(volume, spacing, new_spacing, is_labels):
    """torch's interpolation, along each axis as a batch of lines."""
    found = torch.as_tensor(volume).double()
    for axis in range(3):
        n = found.shape[axis]
        m = max(1, round(n * spacing[axis] / new_spacing[axis]))
        lines = found.movedim(axis, -1)
        flat = lines.reshape(1, -1, n)
        coarse = spacing[axis] == max(spacing) and max(spacing) / min(spacing) > 3
        if is_labels or coarse:
            flat = F.interpolate(flat, m, mode="nearest-exact")
        else:
            flat = F.interpolate(flat, m, mode="linear", align_corners=False)
        found = flat.reshape(*lines.shape[:-1], m).movedim(-1, axis)
    return found.long() if is_labels else found


def resample_loops(volume, spacing, new_spacing, is_labels):
    """Every voxel by itself, from its eight neighbours."""
    size = [max(1, round(n * a / b)) for n, a, b in zip(volume.shape, spacing, new_spacing, strict=True)]
    thick = spacing.index(max(spacing)) if max(spacing) / min(spacing) > 3 else -1
    found = np.zeros(size, dtype=volume.dtype)
    for index in np.ndindex(*size):
        corners = [((), 1.0)]
        for axis, i in enumerate(index):
            n = volume.shape[axis]
            if is_labels or axis == thick:
                ways = [((2 * i + 1) * n // (2 * size[axis]), 1.0)]
            else:
                place = min(max((i + 0.5) * n / size[axis] - 0.5, 0), n - 1)
                low = int(place)
                ways = [(low, 1 - place + low), (min(low + 1, n - 1), place - low)]
            corners = [((*where, j), share * part) for where, share in corners for j, part in ways]
        if is_labels:
            found[index] = volume[corners[0][0]]
        else:
            found[index] = sum(share * volume[where] for where, share in corners)
    return found


def plan_numpy(shapes, spacings, voxels):
    """Arrays and masks."""
    spacing = np.median(spacings, axis=0)
    shape = np.median(np.rint(np.asarray(shapes) * spacings / spacing), axis=0)
    patch = np.minimum(np.rint(np.cbrt(voxels * spacing.prod()) / spacing), shape)
    size, distance, strides = patch.copy(), spacing.copy(), np.ones((0, 3), dtype=int)
    while True:
        large = size >= 8
        if not large.any():
            break
        chosen = large & (distance / distance[large].min() < 2)
        if chosen.sum() == 1 and size[chosen][0] < 12:
            break
        strides = np.vstack([strides, 1 + chosen])
        size = np.where(chosen, np.ceil(size / 2), size)
        distance = np.where(chosen, 2 * distance, distance)
    step = strides.prod(axis=0)
    patch = (np.ceil(patch / step) * step).astype(int)
    return {"spacing": spacing, "patch": patch, "strides": list(strides)}


def plan_recursive(shapes, spacings, voxels):
    """Plain lists and recursion; sizes as fractions."""

    def middle(values):
        return sorted(values)[len(values) // 2]

    def walk(size, distance):
        large = [a for a in range(3) if size[a] >= 8]
        chosen = [a for a in large if distance[a] < 2 * min(distance[b] for b in large)]
        if not chosen or (len(chosen) == 1 and size[chosen[0]] < 12):
            return []
        size = [(n + 1) // 2 if a in chosen else n for a, n in enumerate(size)]
        deeper = walk(size, [d * 2 if a in chosen else d for a, d in enumerate(distance)])
        return [tuple(1 + (a in chosen) for a in range(3)), *deeper]

    shapes, spacings = np.asarray(shapes).tolist(), np.asarray(spacings).tolist()
    spacing = [middle(column) for column in zip(*spacings, strict=True)]
    sizes = [
        [round(n * s / t) for n, s, t in zip(row, steps, spacing, strict=True)]
        for row, steps in zip(shapes, spacings, strict=True)
    ]
    side = (voxels * spacing[0] * spacing[1] * spacing[2]) ** (1 / 3)
    patch = [min(round(side / t), middle(column)) for t, column in zip(spacing, zip(*sizes, strict=True), strict=True)]
    strides = walk(patch, spacing)
    pools = [sum(row[a] == 2 for row in strides) for a in range(3)]
    grown = [int(-(Fraction(-n, 2**p) // 1)) * 2**p for n, p in zip(patch, pools, strict=True)]
    return {"spacing": spacing, "patch": grown, "strides": strides}


ALTERNATIVES: dict[str, list[Callable]] = {
    "resample_spacing": [resample_scipy, resample_torch, resample_loops],
    "plan_unet": [plan_numpy, plan_recursive],
}
