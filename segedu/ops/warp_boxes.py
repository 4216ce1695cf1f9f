"""Crops of boxes from an image, each warped to a square of one size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.validation.boxes import check_boxes
from segedu.validation.numbers import check_length
from segedu.validation.tensors import check_floats


def warp_boxes(image: Tensor, boxes: Tensor, crop_size: int, context: int, fill: Sequence[float]) -> Tensor:
    """Crop boxes from an image and warp each to a square, whatever its aspect ratio.

    Girshick et al. 2014 (R-CNN, arXiv 1311.2524), appendix A, "warp". Bilinear, at the centres of pixels. The box
    fills the crop except for `context` pixels on every side.

    Args:
        image: (C, H, W) floats.
        boxes: (P, 4), xyxy.
        crop_size: S, the side of a crop in pixels.
        context: pixels around the box, at the scale of the crop.
        fill: C values for pixels outside the image.

    Returns:
        (P, C, S, S).

    A box of 2 pixels in a crop of 4, with 1 pixel of context: each pixel of the crop is a pixel of the image.

    >>> warp_boxes(torch.arange(4.0).expand(1, 3, 4), torch.tensor([[1.0, 0.0, 3.0, 2.0]]), 4, 1, [9.0])[0, 0, 1]
    tensor([0., 1., 2., 3.])
    """
    check_floats("image", image, "C H W")
    C, H, W = image.shape
    check_length("fill", fill, C, of="channel")
    inner = crop_size - 2 * context
    if inner < 1 or context < 0:
        raise ValueError(f"crop_size is {crop_size} and context {context}, expected crop_size > 2 * context >= 0")
    boxes = check_boxes("boxes", boxes).to(image)
    position = (torch.arange(crop_size, dtype=image.dtype, device=image.device) + 0.5 - context) / inner
    x, y = (boxes[:, i, None] + position * (boxes[:, i + 2] - boxes[:, i])[:, None] for i in (0, 1))  # (P, S)
    grid = torch.stack(torch.broadcast_tensors((2 * x / W - 1)[:, None], (2 * y / H - 1)[..., None]), dim=-1)
    offset = image.new_tensor(fill)[:, None, None]
    # All crops in one column, so that the image is not copied for each. Zeros outside the image become `fill`.
    column = F.grid_sample((image - offset)[None], grid.reshape(1, -1, crop_size, 2), align_corners=False)[0] + offset
    return column.reshape(C, len(boxes), crop_size, crop_size).transpose(0, 1)
