"""Boxes cut out of an image and stretched to one size, whatever their shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.validation.boxes import check_boxes


def warp_boxes(image: Tensor, boxes: Tensor, crop_size: int, context: int, fill: Sequence[float]) -> Tensor:
    """Cut boxes out and stretch each to a square, whatever its shape.

    Girshick et al. 2014 (R-CNN, arXiv 1311.2524), appendix A, "warp". Bilinear, at the centres of pixels. The box
    fills the crop but for `context` pixels on every side.

    Args:
        image: (C, H, W).
        boxes: (P, 4), xyxy.
        crop_size: S, pixels of a crop's side.
        context: pixels around the box, at the scale of the crop.
        fill: C numbers, of what lies outside of the image.

    Returns:
        (P, C, S, S).

    Raises:
        TypeError: `image` is not a tensor of floats, or `boxes` not one of numbers.
        ValueError: a shape is not as above, a box is not ordered, the context leaves no pixel to the box, or `fill`
            has another length than the channels.

    Example:
        A box of 2 pixels in a crop of 4, with 1 pixel of context: each pixel of the crop is one of the image.

        >>> warp_boxes(torch.arange(4.0).expand(1, 3, 4), torch.tensor([[1.0, 0.0, 3.0, 2.0]]), 4, 1, [9.0])[0, 0, 1]
        tensor([0., 1., 2., 3.])
    """
    if not isinstance(image, Tensor) or not image.is_floating_point():
        kind = f"dtype {image.dtype}" if isinstance(image, Tensor) else f"type {type(image).__name__}"
        raise TypeError(f"image has {kind}, expected a tensor of floating-point numbers (C, H, W)")
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"image has shape {tuple(image.shape)}, expected (C, H, W), no axis empty")
    C, H, W = image.shape
    if len(fill) != C:
        raise ValueError(f"fill has {len(fill)} numbers, expected {C}, one for each channel of the image")
    inner = crop_size - 2 * context
    if inner < 1 or context < 0:
        raise ValueError(f"crop_size is {crop_size} and context {context}, expected a crop of more than twice that")
    boxes = check_boxes("boxes", boxes).to(image)
    place = (torch.arange(crop_size, dtype=image.dtype, device=image.device) + 0.5 - context) / inner
    x, y = (boxes[:, i, None] + place * (boxes[:, i + 2] - boxes[:, i])[:, None] for i in (0, 1))  # (P, S)
    grid = torch.stack(torch.broadcast_tensors((2 * x / W - 1)[:, None], (2 * y / H - 1)[..., None]), dim=-1)
    mean = image.new_tensor(fill)[:, None, None]
    # all crops in one column, so that the image is not copied for each; zeros outside are the mean
    column = F.grid_sample((image - mean)[None], grid.reshape(1, -1, crop_size, 2), align_corners=False)[0] + mean
    return column.reshape(C, len(boxes), crop_size, crop_size).transpose(0, 1)
