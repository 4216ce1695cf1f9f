"""Rays in label maps: the distance from a pixel or voxel to the end of its object."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segedu.ops.compiled import compiled
from segedu.ops.label_maps import relabel_sequential
from segedu.validation.tensors import check_floats


def ray_lengths(
    label_map: Tensor, directions: Tensor, grid: Sequence[int] | None = None, *, to_center: bool = False
) -> Tensor:
    """Distance along rays, in steps of length 1, until a step ends on another label or outside the map.

    The last step, which leaves the object, is included: in a line of 5 pixels, the distance from the middle pixel is 3.

    Args:
        label_map: (H, W) or (D, H, W) integers, 0 is background.
        directions: (R, 2) as (y, x), or (R, 3) as (z, y, x), of length 1.
        grid: spacing along each axis of the pixels that rays start from; the first is pixel 0. None: 1.
        to_center: measure to the centre of the pixel on which the last step ended (its offsets are rounded to
            integers), not to the end of the step.

    Returns:
        (R, h, w) or (R, d, h, w) float32, h = ceil(H / grid); 0 for rays that start in the background.

    >>> ray_lengths(torch.tensor([[0, 7, 7, 7, 7, 7]]), torch.tensor([[0.0, 1.0], [0.0, -1.0]]))[:, 0, 2]
    tensor([4., 2.])
    """
    relabelled = relabel_sequential(label_map)  # rays only compare labels, so large ones can be renumbered
    axes = label_map.ndim
    steps = (1,) * axes if grid is None else tuple(grid)
    _check_directions(directions, axes)
    if len(steps) != axes or min(steps) < 1:
        raise ValueError(f"grid is {steps}, expected {axes} integers of at least 1")
    labels = relabelled.numpy(force=True).reshape((1,) * (3 - axes) + label_map.shape)
    padded = np.zeros((len(directions), 3), np.float32)
    padded[:, 3 - axes :] = directions.detach().cpu().numpy()
    lengths = _walk(labels, padded, np.array((1,) * (3 - axes) + steps), to_center)
    return torch.from_numpy(lengths if axes == 3 else lengths[:, 0]).to(label_map.device)


def _check_directions(directions: Tensor, axes: int) -> None:
    check_floats("directions", directions, f"R {axes}")
    lengths = directions.norm(dim=1)
    if not torch.allclose(lengths, torch.ones_like(lengths), atol=1e-3):
        raise ValueError(f"directions has lengths from {lengths.min():.3g} to {lengths.max():.3g}, expected 1")


@compiled
def _walk(labels, directions, grid, to_center):
    depth, height, width = labels.shape
    d, h, w = (depth - 1) // grid[0] + 1, (height - 1) // grid[1] + 1, (width - 1) // grid[2] + 1
    lengths = np.zeros((len(directions), d, h, w), np.float32)
    for k in range(len(directions)):
        dz, dy, dx = directions[k]
        for start in range(d * h * w):
            a, b, c = start // (h * w), start // w % h, start % w
            z0, y0, x0 = a * grid[0], b * grid[1], c * grid[2]
            label = labels[z0, y0, x0]
            if label == 0:
                continue
            # Single precision throughout: if a step ends between two pixels, the last bit decides.
            z, y, x = np.float32(0), np.float32(0), np.float32(0)
            inside = True
            while inside:
                z, y, x = z + dz, y + dy, x + dx
                i, j, n = round(np.float32(z0) + z), round(np.float32(y0) + y), round(np.float32(x0) + x)
                inside = 0 <= i < depth and 0 <= j < height and 0 <= n < width and labels[i, j, n] == label
            if to_center:
                lengths[k, a, b, c] = math.sqrt(round(z) ** 2 + round(y) ** 2 + round(x) ** 2)
            else:
                lengths[k, a, b, c] = np.sqrt(z * z + y * y + x * x)
    return lengths
