"""Cellpose's flows: from cells to the direction in which each pixel should go, and from directions to cells.

Paper: Stringer, Wang, Michaelos, Pachitariu, "Cellpose: a generalist algorithm for cellular segmentation", Nature
    Methods 18, 2021, bioRxiv 2020.02.02.931238, Methods. Numbers are those of the authors' version 3.
Idea: Heat spreads in a cell from its middle, and the flow is the direction in which heat rises. The way back: all
    pixels go with the flow for a while; how many ended at each pixel is counted; around each peak of the counts the
    pixels on which more than two ended are one cell's meeting place, and who ended there belongs to the cell.
Simplified: two dimensions; see segedu/instance/cellpose/cellpose3d.py for three.
Shapes: label map (H, W) -> flows (2, H, W), dy and dx, of length 1. Flows (2, H, W) and foreground (H, W) -> ends
    (2, H, W), label map (H, W) int32.
Quality: of 1167 cells on 100 random label maps 1165 come back, mean IoU 0.9996; flows are those of cellpose 3.1.1.3 on
    the CPU, and so are label maps from the same flows with `flow_threshold=0`. At the default threshold a few small
    cells differ: see `masks_from_flows`. 1024x1024 with 500 cells take 0.35 of its CPU time (2.1 s of 6.1).
Course: 09-distances
Lab: 09_distances
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from segedu.ops.flows import drift, spread_heat
from segedu.ops.label_maps import relabel_by_occurrence, relabel_sequential
from segedu.validation.tensors import check_dtype, check_floats

# Of a meeting place: more pixels than this end on its peak, more than this on each other pixel; it reaches this far,
# and in a square of this side it has the only peak.
PEAK, FLOOR, REACH, APART = 10, 2, 5, 5


def diffusion_flow(label_map: Tensor) -> Tensor:
    """The flow that each pixel should have: where heat rises that starts in the middle of its cell.

    The source is the pixel of the cell that is nearest to the mean of all its pixels, so that it lies inside
    crescents too. Each of 2 (h + w + 4) steps, with h and w the sides of the cell's box, adds 1 there and then
    averages 3x3 pixels; outside the cell heat is 0. The flow is the central difference, divided by its length.

    Args:
        label_map: (H, W) integers, 0 is background; numbers may be left out.

    Returns:
        (2, H, W) float32, dy and dx, of length 1 inside cells and 0 outside. Where heat has no slope, as in a cell of
        one pixel, it is 0. In the middle of a symmetric cell rounding decides the direction.

    Raises:
        TypeError: `label_map` is not a tensor of integers.
        ValueError: it is not (H, W), is empty or has a negative label.

    >>> diffusion_flow(torch.tensor([[4, 4, 4, 4, 0, 2]]))[1]
    tensor([[ 1.,  1., -1., -1.,  0.,  0.]])
    """
    labels = relabel_sequential(label_map, (2,)).numpy(force=True)
    return torch.from_numpy(_diffuse(labels).astype(np.float32)).to(label_map.device)


def _diffuse(labels: np.ndarray) -> np.ndarray:
    """`diffusion_flow` of labels 1, 2, ... without gaps, in float64."""
    flows = np.zeros((2, *labels.shape))
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        inside = np.pad(labels[rows, columns] == number, 1)
        y, x = inside.nonzero()
        # Paper: the median; the authors' code has taken the mean since.
        middle = ((y - y.mean()) ** 2 + (x - x.mean()) ** 2).argmin()
        source = int(y[middle]), int(x[middle])
        heat = spread_heat(torch.from_numpy(inside), source, 2 * sum(inside.shape)).numpy()
        slope = np.stack([heat[y + 1, x] - heat[y - 1, x], heat[y, x + 1] - heat[y, x - 1]])
        flows[:, y + rows.start - 1, x + columns.start - 1] = slope / (1e-60 + np.sqrt((slope**2).sum(axis=0)))
    return flows


def follow_flows(flows: Tensor, foreground: Tensor, steps: int = 200) -> Tensor:
    """Move the pixels of the foreground along the flow: Euler's method, a step as long as the flow is at the place.

    Between pixels the flow is bilinear, and 0 in the background. Nobody leaves the image.

    Args:
        flows: (2, H, W) floating-point, dy and dx in pixels a step; length 1 is what `diffusion_flow` gives.
        foreground: (H, W) bool.
        steps: how many, at least 0.

    Returns:
        (2, H, W) float32, row and column where each pixel is in the end; pixels of the background have not moved.

    Raises:
        TypeError: `flows` is not floating-point, or `foreground` not bool.
        ValueError: a shape is another one, `flows` is not finite, or `steps` is negative.

    >>> right = torch.tensor([[[0.0, 0.0, 0.0, 0.0]], [[1.0, 1.0, 0.0, 1.0]]])
    >>> follow_flows(right, torch.tensor([[True, True, True, False]]), steps=5)[1]
    tensor([[2., 2., 2., 3.]])
    """
    check_flows(flows, foreground)
    starts = foreground.nonzero().T  # (2, N)
    ends = torch.stack(torch.meshgrid(*map(torch.arange, foreground.shape), indexing="ij")).to(flows.device).float()
    ends[:, foreground] = drift(flows.float() * foreground, starts, steps)
    return ends


def masks_from_flows(
    flows: Tensor,
    foreground: Tensor,
    *,
    steps: int = 200,
    flow_threshold: float = 0.4,
    min_size: int = 15,
    max_share: float = 0.4,
) -> Tensor:
    """Cells from flows: follow them, group pixels by where they end, drop doubtful cells, fill holes.

    Cellpose 3.1.1.3 gives the same cells, with one exception. Its filter of doubtful cells leaves gaps between the
    labels, and its `fill_holes_and_remove_small_masks` assumes that there are none. After the filter has dropped a
    cell, it therefore drops other cells than the small ones: on 30 maps with many small cells, 13 of 864 cells are in
    only one of the two results (its tests). If its labels are renumbered first, the results are equal.

    Args:
        flows: (2, H, W) floating-point, dy and dx; length 1 is one pixel a step. A fifth of what the network gives.
        foreground: (H, W) bool.
        steps: how often pixels move.
        flow_threshold: cells with a larger `flow_error` are dropped; 0 drops none.
        min_size: pixels, smaller cells are dropped, before holes are filled and after.
        max_share: of the image; a larger cell is taken for background.

    Returns:
        (H, W) int32 label map: 1, 2, ... without gaps; all 0 where there is no cell. A cell whose meeting place has
        no pixel on which more than 10 end is not found: of 3x3 pixels, say.

    Raises:
        TypeError: `flows` is not floating-point, or `foreground` not bool.
        ValueError: a shape is another one, `flows` is not finite, or a number is out of its range.
    """
    if not flow_threshold >= 0 or not 0 < max_share <= 1:
        raise ValueError(
            f"flow_threshold is {flow_threshold} and max_share {max_share}, expected at least 0 and within (0, 1]"
        )
    ends = follow_flows(flows, foreground, steps)
    labels = torch.zeros(foreground.shape, dtype=torch.int32)
    labels[foreground.cpu()] = group_ends(ends[:, foreground].cpu(), foreground.shape, max_share)
    if flow_threshold > 0 and labels.any():
        bad = flow_error(labels, flows.cpu()) > flow_threshold
        labels = torch.where(F.pad(bad, (1, 0))[labels.long()], 0, labels)
    return tidy(labels, min_size).to(flows.device)


def group_ends(ends: Tensor, size: tuple[int, ...], max_share: float) -> Tensor:
    """Who ends near whom: the meeting places are the peaks of a histogram, one bin a pixel.

    A peak has more than 10 pixels and as many as any bin in the 5x5 around it. From it a meeting place grows five
    times by the neighbours, also at corners, on which more than 2 pixels ended. Where two overlap, the higher peak
    has the bin.

    Args:
        ends: (A, N) places in an image or volume of A axes.
        size: (H, W), or (D, H, W).
        max_share: of the image; larger groups get 0.

    Returns:
        (N,) int32: 1, 2, ... in the order in which groups occur; 0 for those that ended at no meeting place.
    """
    pool, ones = (F.max_pool2d, (1, 1)) if len(size) == 2 else (F.max_pool3d, (1, 1, 1))
    padded = [length + 2 * REACH for length in size]  # so that all of a meeting place's surroundings are there
    strides = torch.tensor(np.cumprod((1, *padded[:0:-1]))[::-1].copy())
    bins = strides @ (ends.long() + REACH)  # (N,): their number in the flattened image
    counts = torch.bincount(bins, minlength=int(np.prod(padded))).float()
    grid = counts.reshape(1, *padded)
    peaks = ((counts > PEAK) & (grid == pool(grid, APART, 1, APART // 2)).flatten()).nonzero()
    peaks = peaks[counts[peaks[:, 0]].argsort(stable=True)]  # (S, 1), the lowest first
    if not len(peaks):
        return torch.zeros(len(bins), dtype=torch.int32)
    offsets = torch.meshgrid(*[torch.arange(-REACH, REACH + 1)] * len(size), indexing="ij")  # A of 11x11
    window = sum(stride * offset for stride, offset in zip(strides, offsets, strict=True))
    places = peaks.reshape(-1, *ones) + window  # (S, 11, 11)
    able = counts[places] > FLOOR
    grown = (window == 0).float().expand(places.shape)
    for _ in range(REACH):
        grown = pool(grown, 3, 1, 1) * able
    chosen = grown > 0
    owner = torch.zeros(len(counts), dtype=torch.long)
    owner.scatter_reduce_(0, places[chosen], chosen.nonzero()[:, 0] + 1, "amax")
    labels = owner[bins]
    labels[(torch.bincount(labels) > max_share * np.prod(size))[labels]] = 0
    return relabel_by_occurrence(labels)


def flow_error(label_map: Tensor, flows: Tensor) -> Tensor:
    """How far the flow that a cell should have is from the one it has: the mean of the squared differences.

    Args:
        label_map: (H, W) integers, 0 is background.
        flows: (2, H, W) floating-point, dy and dx, of length 1 where they are right.

    Returns:
        (N,) float64, a number for each label that occurs, in ascending order.

    Raises:
        TypeError: a dtype is another one.
        ValueError: a shape is another one, `flows` is not finite, or a label is negative.

    >>> cell = torch.tensor([[7, 7, 7, 7]])
    >>> flow_error(cell, diffusion_flow(cell)), flow_error(cell, torch.zeros(2, 1, 4))
    (tensor([0.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    labels = relabel_sequential(label_map, (2,)).numpy(force=True)
    check_flows(flows, torch.from_numpy(labels > 0))
    wanted, cells = _diffuse(labels), labels > 0
    squares = ((wanted[:, cells] - flows.detach().float().numpy(force=True)[:, cells]) ** 2).sum(axis=0)
    sums = np.bincount(labels[cells], squares)[1:]
    return torch.from_numpy(sums / np.bincount(labels[cells])[1:]).to(label_map.device)


def tidy(label_map: Tensor, min_size: int) -> Tensor:
    """Drop small cells, fill the holes of the others, and number them without gaps.

    What lies in a hole belongs to the cell around it afterwards, also if it was another cell.

    Args:
        label_map: (H, W), or (D, H, W), integers, 0 is background.
        min_size: pixels, smaller cells are dropped.

    Returns:
        int32, as large.
    """
    labels = relabel_sequential(label_map).numpy(force=True)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        cell = labels[box] == number
        if cell.sum() < min_size:
            labels[box][cell] = 0
        else:
            labels[box][ndimage.binary_fill_holes(cell)] = number
    small = np.bincount(labels.ravel()) < min_size  # another cell may have taken some of it
    small[0] = False
    return relabel_by_occurrence(torch.from_numpy(np.where(small[labels], 0, labels))).to(label_map.device)


def check_flows(flows: Tensor, foreground: Tensor, axes: int = 2) -> None:
    """Refuse what are no flows of an image, or of a volume, and its foreground.

    Args:
        flows: (A, ...) floating-point, finite, with A axes behind.
        foreground: bool, the same axes.
        axes: A, 2 or 3.

    Raises:
        TypeError: a dtype is another one.
        ValueError: a shape is another one, or `flows` is not finite.
    """
    shape = "H W" if axes == 2 else "D H W"
    check_floats("flows", flows, f"{axes} {shape}", check_dtype("foreground", foreground, torch.bool, shape))
    if not torch.isfinite(flows).all():
        raise ValueError("flows has NaN or infinite numbers, expected finite ones")
