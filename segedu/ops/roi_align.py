"""RoIAlign: sample the features of a box in a fixed number of bins, without rounding the box to cells.

He, Gkioxari, Dollár, Girshick 2017 (Mask R-CNN, arXiv 1703.06870), section 3. Each bin is the mean of a few points,
read by bilinear interpolation. So the features change continuously as the box moves; those of `roi_pool` jump.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from segedu.ops.roi_pool import check_regions
from segedu.validation.exporting import is_exporting

Size = tuple[int, int]
MIN_SEPARABLE_POINTS = 4096  # boxes with at most this many points are always read point by point
MAX_BATCH_POINTS = 2**23  # points of the boxes that are pooled at once: their indices and weights take 0.4 GB


def roi_align(
    features: Tensor,
    boxes: Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Mean of sampled points in each bin of each box.

    A point up to one cell outside the feature map has the features of its edge; points further out count as 0.

    Args:
        features: (B, C, H, W) floats.
        boxes: for each of the B images (N_i, 4), xyxy, in pixels of the image. They get no gradient.
        output_size: number of bins, (h, w) or one number for both.
        spatial_scale: cells of the feature map per pixel, such as 1 / 16 at a stride of 16.
        sampling_ratio: points of a bin in each direction; below 1: as many as are at most one cell apart.
        aligned: whether the first cell has its centre at 0.5, like pixels in box coordinates. If False, its centre is
            at 0, which shifts the samples by half a cell, and boxes have sides of at least one cell. torchvision's
            detectors were trained with False.

    Returns:
        (N, C, h, w), with the boxes of all images in order, N = sum of N_i. With `aligned` and `sampling_ratio` below
        1, a box without width or height has no points, and its features are 0.

    The features are a ramp. The bins from 0 to 1.5 and from 1.5 to 3 have their centres at 0.75 and 2.25.

    >>> ramp = torch.arange(5.0).expand(1, 1, 5, 5)
    >>> roi_align(ramp, [torch.tensor([[0.0, 0.0, 3.0, 3.0]])], output_size=2)[0, 0]
    tensor([[0.7500, 2.2500],
            [0.7500, 2.2500]])
    """
    image, corners, (h, w) = check_regions(features, boxes, output_size, spatial_scale)
    if not isinstance(sampling_ratio, int):
        raise TypeError(f"sampling_ratio is {sampling_ratio!r}, expected an integer")
    if is_exporting():  # the shapes below depend on the boxes; ONNX has this operator
        regions = torch.cat([image[:, None].to(corners), corners], dim=1)
        return torchvision.ops.roi_align(features, regions, (h, w), 1.0, sampling_ratio, aligned)
    C, H, W = features.shape[1:]
    table = features.to(corners.dtype).permute(0, 2, 3, 1).reshape(-1, C)  # (B * H * W, C)
    if not len(corners):
        return table[:0].reshape(0, C, 1, 1).expand(0, C, h, w).to(features.dtype)
    start, stop = (corners - (0.5 if aligned else 0.0)).split(2, dim=1)  # (N, 2): x, y
    side = (stop - start).clamp(0 if aligned else 1, torch.finfo(start.dtype).max)
    points = (side / side.new_tensor([w, h])).ceil()  # (N, 2), in each bin
    if sampling_ratio > 0:
        points = torch.full_like(points, sampling_ratio)
    regions = _Regions(image, start, side, points)

    # A box as large as the feature map has at most this many points. Most points of larger boxes lie outside the map.
    is_separable = h * w * points.prod(dim=1) > max(MIN_SEPARABLE_POINTS, (2 * W + w) * (2 * H + h))
    rows, bins = [], []
    for batch in _split_into_batches(torch.nonzero(~is_separable).flatten(), h * w * points.prod(dim=1)):
        rows.append(batch)
        bins.append(_pool_gathered(table, regions.select(batch), (h, w), (H, W)))
    for row in torch.nonzero(is_separable):  # (1,)
        rows.append(row)
        bins.append(_pool_separable(table, regions.select(row), (h, w), (H, W)))
    # Restore the order of the boxes, which a single part has already.
    bins = bins[0] if len(bins) == 1 else torch.cat(bins)[torch.cat(rows).argsort()]
    return bins.permute(0, 3, 1, 2).contiguous().to(features.dtype)


class _Regions(NamedTuple):
    """N boxes on feature maps: the image of each, and (x, y) of its corner, its sides and the points of its bins."""

    image: Tensor
    start: Tensor
    side: Tensor
    points: Tensor

    def select(self, rows: Tensor) -> _Regions:
        """The boxes with the indices `rows` (M,) int64."""
        return _Regions(*(values[rows] for values in self))


def _split_into_batches(rows: Tensor, counts: Tensor) -> list[Tensor]:
    """Split boxes into batches. All boxes of a batch but the last have fewer than `MAX_BATCH_POINTS` points."""
    batch = ((counts[rows].double().cumsum(0) - counts[rows]) / MAX_BATCH_POINTS).long()
    return list(rows.split(batch.unique_consecutive(return_counts=True)[1].tolist())) if len(rows) else []


def _pool_gathered(table: Tensor, regions: _Regions, bins: Size, size: Size) -> Tensor:
    """(N, h, w, C): weighted sums of rows of the table, whose indices and weights are listed bin by bin."""
    (h, w), (H, W) = bins, size
    # All boxes with the same number of points are processed at once.
    unique_points, group, counts = regions.points.long().unique(dim=0, return_inverse=True, return_counts=True)
    order = group.argsort(stable=True)
    index, weight = [], []
    for (points_x, points_y), n in zip(unique_points.tolist(), order.split(counts.tolist()), strict=True):
        image, start, side, _ = regions.select(n)
        x, weight_x = _gather_indices(start[:, 0], side[:, 0], w, points_x, W)  # (n, w, 2 points)
        y, weight_y = _gather_indices(start[:, 1], side[:, 1], h, points_y, H)  # (n, h, 2 points)
        row = (image[:, None, None] * H + y) * W
        index.append((row[:, :, None, :, None] + x[:, None, :, None, :]).flatten())  # bin by bin
        weight.append((weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :]).flatten())
    length = (4 * unique_points.prod(dim=1))[group[order]].repeat_interleave(h * w)  # rows of each bin
    # embedding_bag sums rows without copying them. There is one call for all boxes, because its gradient is as large as
    # the table.
    pooled = F.embedding_bag(
        torch.cat(index), table, length.cumsum(0) - length, per_sample_weights=torch.cat(weight), mode="sum"
    )
    return pooled.reshape(-1, h, w, table.shape[1])[order.argsort()]


def _pool_separable(table: Tensor, region: _Regions, bins: Size, size: Size) -> Tensor:
    """(1, h, w, C) of one box: the weight of a cell is that of its row times that of its column, each summed first."""
    features = table.reshape(-1, *size, table.shape[1])[region.image[0]]  # (H, W, C)
    x, y = (
        _axis_weights(*(float(values[0, axis]) for values in region[1:]), bins[1 - axis], size[1 - axis])
        for axis in (0, 1)
    )
    return torch.einsum("iy,jx,yxc->ijc", y.to(table), x.to(table), features)[None]


def _axis_weights(start: float, side: float, points: float, bins: int, length: int) -> Tensor:
    """(bins, length) float64: weight of each cell in each bin along one axis. Only points on the map are computed."""
    step = side / bins / points
    inside = math.ceil((length + 1) / step) + 3  # at most this many points of a bin lie from -1 to length
    b = torch.arange(bins, dtype=torch.float64)[:, None]
    begin = start + b * (side / bins)
    first = ((-1 - begin) / step - 1.5).floor().clamp(0, points)
    p = first + torch.arange(min(inside, int(min(points, 2**53))), dtype=torch.float64)  # (bins, n)
    position = begin + (p + 0.5) * step
    share = ((position >= -1) & (position <= length) & (p < points)).double() / points
    position = position.clamp(0, length - 1)
    lower = position.floor()
    line = torch.zeros(bins, length, dtype=torch.float64)
    line.scatter_add_(1, lower.long(), (lower + 1 - position) * share)
    return line.scatter_add_(1, (lower + 1).clamp(max=length - 1).long(), (position - lower) * share)


def _gather_indices(start: Tensor, side: Tensor, bins: int, points: int, length: int) -> tuple[Tensor, Tensor]:
    """Indices and weights of the cells that the points of each bin read along one axis: two neighbours per point.

    In two dimensions, a point reads four cells, and the weight of each is the product of its weights along both axes.

    Returns:
        (N, bins, 2 * points) int64 indices, and their weights: those of a point on the feature map sum to 1 / points.
    """
    bin_side = side[:, None, None] / bins
    b = torch.arange(bins, dtype=side.dtype, device=side.device)[:, None]
    p = torch.arange(points, dtype=side.dtype, device=side.device) + 0.5
    position = start[:, None, None] + b * bin_side + p * bin_side / max(points, 1)  # (N, bins, points)
    inside = (position >= -1) & (position <= length)
    position = position.clamp(0, length - 1)
    lower = position.floor()
    share = inside.to(position.dtype) / max(points, 1)
    weights = torch.cat([(lower + 1 - position) * share, (position - lower) * share], dim=-1)
    return torch.cat([lower, (lower + 1).clamp(max=length - 1)], dim=-1).long(), weights
