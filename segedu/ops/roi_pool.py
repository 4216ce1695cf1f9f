"""RoIPool: the features of a box, in a fixed number of bins, whatever the size of the box.

Girshick 2015 (Fast R-CNN, arXiv 1504.08083), section 2.1. The box is rounded to whole places of the feature map, and
divided into bins that are rounded too; of each, the largest value is kept. What the rounding costs: `roi_align`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from segedu.validation.boxes import check_boxes
from segedu.validation.exporting import is_exporting


def roi_pool(
    features: Tensor, boxes: Sequence[Tensor], output_size: int | tuple[int, int], spatial_scale: float = 1.0
) -> Tensor:
    """The largest value in each bin of each box.

    Both corners of the rounded box are inside of it: a box is at least one place wide, and bins overlap where there
    are more of them than places.

    Args:
        features: (B, C, H, W).
        boxes: of each of the B images (N_i, 4), xyxy, in pixels of the image. They get no gradient.
        output_size: number of bins, (h, w) or one number for both.
        spatial_scale: places of the feature map a pixel, such as 1 / 16 at a stride of 16.

    Returns:
        (N, C, h, w), N the sum of all N_i: image by image, box by box. A bin outside of the feature map is 0.

    Raises:
        TypeError: ``features`` is no floating-point tensor, ``boxes`` no list, or one of them no tensor of numbers.
        ValueError: a shape is not as above, there is not one entry of ``boxes`` an image, a box is not ordered, or
            ``output_size`` or ``spatial_scale`` is not above 0.

    Example:
        From 0 to 3.4 are the places 0 to 3; the second bin has the places 2 and 3.

        >>> ramp = torch.arange(5.0).expand(1, 1, 5, 5)
        >>> roi_pool(ramp, [torch.tensor([[0.0, 0.0, 3.4, 3.4]])], output_size=2)[0, 0]
        tensor([[1., 3.],
                [1., 3.]])
    """
    image, corners, (h, w) = check_regions(features, boxes, output_size, spatial_scale)
    if is_exporting():
        return _recorded(features, torch.cat([image[:, None].to(corners), corners], dim=1), (h, w))
    C, H, W = features.shape[1:]
    # half away from zero: torch.round would take 0.5 to 0
    corners = torch.sign(corners) * torch.floor(corners.abs() + 0.5)
    top, rows = _bins(corners[:, 1], corners[:, 3], h, H)  # (N, h): the first place of each bin, and how many
    left, columns = _bins(corners[:, 0], corners[:, 2], w, W)  # (N, w)
    count = (rows[:, :, None] * columns[:, None, :]).flatten()  # (N * h * w,)
    bag = torch.arange(len(count), device=count.device).repeat_interleave(count)  # of each place that is looked at
    end = count.cumsum(0)
    place = torch.arange(len(bag), device=bag.device) - (end - count)[bag]  # its number in the bin
    box, i, j = bag // (h * w), bag // w % h, bag % w
    y = top[box, i] + place // columns[box, j]
    x = left[box, j] + place % columns[box, j]
    index = (image[box] * H + y) * W + x
    table = features.permute(0, 2, 3, 1).reshape(-1, C)  # (B * H * W, C)
    pooled = F.embedding_bag(index, table, end - count, mode="max")  # an empty bin gives 0
    return pooled.reshape(-1, h, w, C).permute(0, 3, 1, 2).contiguous()


def check_regions(
    features: Tensor, boxes: Sequence[Tensor], output_size: int | tuple[int, int], spatial_scale: float
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Refuse what are no boxes on features, and bring them into one form.

    Args:
        features: (B, C, H, W).
        boxes: of each of the B images (N_i, 4), xyxy, in pixels of the image.
        output_size: (h, w) or one number for both.
        spatial_scale: places of the feature map a pixel.

    Returns:
        The image of each box (N,) int64, the boxes (N, 4) in places of the feature map, in the type of the features
        and at least float32, without a gradient; and (h, w).

    Raises:
        TypeError: ``features`` is no floating-point tensor, ``boxes`` no list, or one of them no tensor of numbers.
        ValueError: a shape is not as above, there is not one entry of ``boxes`` an image, a box is not ordered, or
            ``output_size`` or ``spatial_scale`` is not above 0.

    Example:
        >>> check_regions(torch.zeros(2, 3, 5, 5), [torch.zeros(0, 4), torch.tensor([[0, 2, 4, 6]])], 7, 0.5)
        (tensor([1]), tensor([[0., 1., 2., 3.]]), (7, 7))
    """
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = f"dtype {features.dtype}" if isinstance(features, Tensor) else f"type {type(features).__name__}"
        raise TypeError(f"features has {kind}, expected a tensor of floating-point numbers (B, C, H, W)")
    if features.ndim != 4 or 0 in features.shape:
        raise ValueError(f"features has shape {tuple(features.shape)}, expected (B, C, H, W), no axis empty")
    if not isinstance(boxes, (list, tuple)):
        raise TypeError(f"boxes has type {type(boxes).__name__}, expected a list of a tensor (N, 4) for each image")
    if len(boxes) != len(features):
        raise ValueError(f"boxes has {len(boxes)} entries, expected one for each of {len(features)} images")
    size = tuple(output_size) if isinstance(output_size, (list, tuple)) else (output_size, output_size)
    if len(size) != 2 or not all(isinstance(bins, int) and bins > 0 for bins in size):
        raise ValueError(f"output_size is {output_size}, expected (h, w) or one number, integers above 0")
    if not 0 < spatial_scale < math.inf:
        raise ValueError(f"spatial_scale is {spatial_scale}, expected a number above 0")
    corners = torch.cat([check_boxes(f"boxes[{i}]", b).detach() for i, b in enumerate(boxes)])
    image = torch.arange(len(boxes), device=features.device)
    image = image.repeat_interleave(torch.tensor([len(b) for b in boxes], device=features.device))
    return image, corners.to(torch.promote_types(features.dtype, torch.float32)) * spatial_scale, size


def _recorded(features: Tensor, regions: Tensor, size: tuple[int, int]) -> Tensor:
    """Of regions (N, 5), image and box, as an operator of an exported program: above, shapes depend on the boxes."""
    if torch.onnx.is_in_onnx_export():  # torchvision's has no translation
        shape = (len(regions), features.shape[1], *size)
        attributes = {"pooled_shape": list(size), "spatial_scale": 1.0}
        return torch.onnx.ops.symbolic("MaxRoiPool", (features, regions), attributes, dtype=features.dtype, shape=shape)
    return torchvision.ops.roi_pool(features, regions, size)


def _bins(start: Tensor, stop: Tensor, bins: int, length: int) -> tuple[Tensor, Tensor]:
    """(N, bins) and (N, bins) int64: first place and number of places of each bin along one axis."""
    step = (stop - start + 1).clamp(min=1)[:, None] / bins  # both ends are inside
    k = torch.arange(bins, dtype=step.dtype, device=step.device)
    first = (torch.floor(k * step) + start[:, None]).clamp(0, length)
    last = (torch.ceil((k + 1) * step) + start[:, None]).clamp(0, length)
    return first.long(), (last - first).clamp(min=0).long()
