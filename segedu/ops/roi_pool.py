"""RoIPool: pool the features of a box to a fixed number of bins, whatever the size of the box.

Girshick 2015 (Fast R-CNN, arXiv 1504.08083), section 2.1. The box is rounded to cells of the feature map, and divided
into bins that are rounded too; the maximum of each bin is kept. `roi_align` avoids both roundings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from segedu.validation.boxes import check_boxes
from segedu.validation.exporting import is_exporting
from segedu.validation.numbers import check_number, check_size
from segedu.validation.tensors import check_floats, check_list


def roi_pool(
    features: Tensor, boxes: Sequence[Tensor], output_size: int | tuple[int, int], spatial_scale: float = 1.0
) -> Tensor:
    """Maximum of the features in each bin of each box.

    Both corners of the rounded box are inside it: a box is at least one cell wide, and bins overlap if there are more
    bins than cells.

    Args:
        features: (B, C, H, W) floats.
        boxes: for each of the B images (N_i, 4), xyxy, in pixels of the image. They get no gradient.
        output_size: number of bins, (h, w) or one number for both.
        spatial_scale: cells of the feature map per pixel, such as 1 / 16 at a stride of 16.

    Returns:
        (N, C, h, w), with the boxes of all images in order, N = sum of N_i. A bin outside the feature map is 0.

    The box from 0 to 3.4 covers the cells 0 to 3; its second bin covers the cells 2 and 3.

    >>> ramp = torch.arange(5.0).expand(1, 1, 5, 5)
    >>> roi_pool(ramp, [torch.tensor([[0.0, 0.0, 3.4, 3.4]])], output_size=2)[0, 0]
    tensor([[1., 3.],
            [1., 3.]])
    """
    image, corners, (h, w) = check_regions(features, boxes, output_size, spatial_scale)
    if is_exporting():
        return _exported(features, torch.cat([image[:, None].to(corners), corners], dim=1), (h, w))
    C, H, W = features.shape[1:]
    # Halves are rounded away from zero: torch.round would round 0.5 to 0.
    corners = torch.sign(corners) * torch.floor(corners.abs() + 0.5)
    top, rows = _bins(corners[:, 1], corners[:, 3], h, H)  # (N, h): first cell and number of cells of each bin
    left, columns = _bins(corners[:, 0], corners[:, 2], w, W)  # (N, w)
    count = (rows[:, :, None] * columns[:, None, :]).flatten()  # (N * h * w,)
    bag = torch.arange(len(count), device=count.device).repeat_interleave(count)  # the bin of each cell that is read
    end = count.cumsum(0)
    cell = torch.arange(len(bag), device=bag.device) - (end - count)[bag]  # index of the cell within its bin
    box, i, j = bag // (h * w), bag // w % h, bag % w
    y = top[box, i] + cell // columns[box, j]
    x = left[box, j] + cell % columns[box, j]
    index = (image[box] * H + y) * W + x
    table = features.permute(0, 2, 3, 1).reshape(-1, C)  # (B * H * W, C)
    pooled = F.embedding_bag(index, table, end - count, mode="max")  # an empty bin gives 0
    return pooled.reshape(-1, h, w, C).permute(0, 3, 1, 2).contiguous()


def check_regions(
    features: Tensor, boxes: Sequence[Tensor], output_size: int | tuple[int, int], spatial_scale: float
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Check boxes on features, and convert them to the cells of the feature map.

    Args:
        features: (B, C, H, W) floats.
        boxes: for each of the B images (N_i, 4), xyxy, in pixels of the image.
        output_size: (h, w) or one number for both.
        spatial_scale: cells of the feature map per pixel.

    Returns:
        The image of each box (N,) int64; the boxes (N, 4) in cells of the feature map, in the dtype of the features
        and at least float32, without a gradient; and (h, w).

    >>> check_regions(torch.zeros(2, 3, 5, 5), [torch.zeros(0, 4), torch.tensor([[0, 2, 4, 6]])], 7, 0.5)
    (tensor([1]), tensor([[0., 1., 2., 3.]]), (7, 7))
    """
    check_floats("features", features, "B C H W")
    check_list("boxes", boxes, len(features))
    several = isinstance(output_size, (list, tuple))
    size = check_size("output_size", output_size if several else (output_size, output_size))
    check_number("spatial_scale", spatial_scale, exclusive=True)
    corners = torch.cat([check_boxes(f"boxes[{i}]", b).detach() for i, b in enumerate(boxes)])
    image = torch.arange(len(boxes), device=features.device)
    image = image.repeat_interleave(torch.tensor([len(b) for b in boxes], device=features.device))
    return image, corners.to(torch.promote_types(features.dtype, torch.float32)) * spatial_scale, size


def _exported(features: Tensor, regions: Tensor, size: tuple[int, int]) -> Tensor:
    """RoIPool of regions (N, 5), image and box, as one operator: shapes in `roi_pool` depend on the boxes."""
    if torch.onnx.is_in_onnx_export():  # torchvision's operator has no translation
        shape = (len(regions), features.shape[1], *size)
        attributes = {"pooled_shape": list(size), "spatial_scale": 1.0}
        return torch.onnx.ops.symbolic("MaxRoiPool", (features, regions), attributes, dtype=features.dtype, shape=shape)
    return torchvision.ops.roi_pool(features, regions, size)


def _bins(start: Tensor, stop: Tensor, bins: int, length: int) -> tuple[Tensor, Tensor]:
    """(N, bins) and (N, bins) int64: first cell and number of cells of each bin along one axis."""
    step = (stop - start + 1).clamp(min=1)[:, None] / bins  # both ends are inside
    k = torch.arange(bins, dtype=step.dtype, device=step.device)
    first = (torch.floor(k * step) + start[:, None]).clamp(0, length)
    last = (torch.ceil((k + 1) * step) + start[:, None]).clamp(0, length)
    return first.long(), (last - first).clamp(min=0).long()
