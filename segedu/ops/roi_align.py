"""RoIAlign: the features of a box, in a fixed number of bins, without rounding the box to places of the feature map.

He, Gkioxari, Dollár, Girshick 2017 (Mask R-CNN, arXiv 1703.06870), section 3. A few points of each bin are read by
bilinear interpolation, and averaged. So the features move as the box moves; those of `roi_pool` jump.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from segedu.ops.exporting import is_exporting
from segedu.ops.roi_pool import check_regions


def roi_align(
    features: Tensor,
    boxes: Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """The average of some points in each bin of each box.

    A point up to one place outside of the feature map has the features of its edge; one further out counts as 0.

    Args:
        features: (B, C, H, W).
        boxes: of each of the B images (N_i, 4), xyxy, in pixels of the image. They get no gradient.
        output_size: number of bins, (h, w) or one number for both.
        spatial_scale: places of the feature map a pixel, such as 1 / 16 at a stride of 16.
        sampling_ratio: points of a bin in each direction; below 1: so many that they are at most one place apart.
        aligned: True: the first place has its middle at 0.5, as pixels have in boxes. False: at 0, which is half a
            place off, but what torchvision's detectors were trained with; and a box has sides of at least one place.

    Returns:
        (N, C, h, w), N the sum of all N_i: image by image, box by box. With `aligned`, and `sampling_ratio` below 1,
        a box without width or height has no points, and gives 0.

    Raises:
        TypeError: ``features`` is no floating-point tensor, ``boxes`` no list, one of them no tensor of numbers, or
            ``sampling_ratio`` no integer.
        ValueError: a shape is not as above, there is not one entry of ``boxes`` an image, a box is not ordered, or
            ``output_size`` or ``spatial_scale`` is not above 0.

    Example:
        The features are a ramp. Bins from 0 to 1.5 and from 1.5 to 3 have their middle at 0.75 and 2.25.

        >>> ramp = torch.arange(5.0).expand(1, 1, 5, 5)
        >>> roi_align(ramp, [torch.tensor([[0.0, 0.0, 3.0, 3.0]])], output_size=2)[0, 0]
        tensor([[0.7500, 2.2500],
                [0.7500, 2.2500]])
    """
    image, corners, (h, w) = check_regions(features, boxes, output_size, spatial_scale)
    if not isinstance(sampling_ratio, int):
        raise TypeError(f"sampling_ratio is {sampling_ratio!r}, expected an integer")
    if is_exporting():  # the sizes of the lists below depend on the boxes; ONNX knows this operator
        regions = torch.cat([image[:, None].to(corners), corners], dim=1)
        return torchvision.ops.roi_align(features, regions, (h, w), 1.0, sampling_ratio, aligned)
    C, H, W = features.shape[1:]
    table = features.to(corners.dtype).permute(0, 2, 3, 1).reshape(-1, C)  # (B * H * W, C)
    if not len(corners):
        return table[:0].reshape(0, C, 1, 1).expand(0, C, h, w).to(features.dtype)
    start, stop = (corners - (0.5 if aligned else 0.0)).split(2, dim=1)  # (N, 2): x, y
    side = stop - start if aligned else (stop - start).clamp(min=1)
    points = (side / side.new_tensor([w, h])).ceil().long()  # (N, 2), of a bin
    if sampling_ratio > 0:
        points = torch.full_like(points, sampling_ratio)

    # Which rows of the table a bin adds up, and with which weights. Boxes with as many points are one step.
    kinds, kind, counts = points.unique(dim=0, return_inverse=True, return_counts=True)
    order = kind.argsort(stable=True)
    index, weight = [], []
    for (points_x, points_y), n in zip(kinds.tolist(), order.split(counts.tolist()), strict=True):
        x, weight_x = _read(start[n, 0], side[n, 0], w, points_x, W)  # (n, w, 2 points)
        y, weight_y = _read(start[n, 1], side[n, 1], h, points_y, H)  # (n, h, 2 points)
        row = (image[n, None, None] * H + y) * W
        index.append((row[:, :, None, :, None] + x[:, None, :, None, :]).flatten())  # bin by bin
        weight.append((weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :]).flatten())
    length = (4 * points[order].prod(dim=1)).repeat_interleave(h * w)  # rows of each bin
    # Adds up rows without a copy of each. One call for all boxes: its gradient is as large as the table.
    bins = F.embedding_bag(
        torch.cat(index), table, length.cumsum(0) - length, per_sample_weights=torch.cat(weight), mode="sum"
    )
    bins = bins.reshape(-1, h, w, C)[order.argsort()]  # in the order of the boxes again
    return bins.permute(0, 3, 1, 2).contiguous().to(features.dtype)


def _read(start: Tensor, side: Tensor, bins: int, points: int, length: int) -> tuple[Tensor, Tensor]:
    """Where the points of each bin are read along one axis: each at the place before it and the one behind it.

    In the plane a point is read at four places, and the weight of each is the product of those in both axes.

    Returns:
        (N, bins, 2 * points) int64 places, and their weights: of a point inside of the feature map 1 / points.
    """
    bin_side = side[:, None, None] / bins
    b = torch.arange(bins, dtype=side.dtype, device=side.device)[:, None]
    p = torch.arange(points, dtype=side.dtype, device=side.device) + 0.5
    at = start[:, None, None] + b * bin_side + p * bin_side / max(points, 1)  # (N, bins, points)
    inside = (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    before = at.floor()
    share = inside.to(at.dtype) / max(points, 1)
    weights = torch.cat([(before + 1 - at) * share, (at - before) * share], dim=-1)
    return torch.cat([before, (before + 1).clamp(max=length - 1)], dim=-1).long(), weights
