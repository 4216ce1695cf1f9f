"""RoIAlign on a feature pyramid: each box is pooled from the level whose stride fits its size.

Lin, Dollár, Girshick, He, Hariharan, Belongie 2017 (Feature Pyramid Networks, arXiv 1612.03144), section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from segedu.ops.roi_align import roi_align
from segedu.validation.exporting import is_exporting

CANONICAL = (224, 16)  # an object as large as ImageNet's images is looked at with the stride 16 (FPN, equation 1)


def assign_levels(boxes: Tensor, strides: Sequence[int], canonical: tuple[float, float] = CANONICAL) -> Tensor:
    """The level of the pyramid that fits each box: FPN's equation 1, k = floor(k0 + log2(sqrt(w h) / 224)).

    Args:
        boxes: (P, 4), xyxy.
        strides: of the levels, each twice the one before.
        canonical: a box of this size (square root of its area) goes to the level of this stride.

    Returns:
        (P,) int64 indices of levels; what is too small or too large goes to the first or the last.

    >>> boxes = torch.tensor([[0.0, 0.0, 112.0, 112.0], [0.0, 0.0, 224.0, 224.0], [0.0, 0.0, 900.0, 900.0]])
    >>> assign_levels(boxes, (4, 8, 16, 32))
    tensor([1, 2, 3])
    """
    size, stride = canonical
    side = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
    octaves = torch.log2(side / size) + math.log2(stride / strides[0])
    return torch.floor(octaves + 1e-6).clamp(0, len(strides) - 1).long()  # 1e-6: as torchvision, for 224 itself


def pool_from_levels(
    features: Sequence[Tensor], boxes: Sequence[Tensor], output_size: int, strides: Sequence[int]
) -> Tensor:
    """RoIAlign of each box from the level that fits it.

    Args:
        features: (B, C, h, w) of each level, fine to coarse.
        boxes: B boxes (P_i, 4) in pixels of the images.
        output_size: height and width of the result.
        strides: of the levels; further levels are not pooled from.

    Returns:
        (P, C, output_size, output_size), in the order of the boxes.
    """
    level = [assign_levels(box, strides) for box in boxes]
    if is_exporting():  # how many boxes a level has is unknown then: each box is pooled from every level
        every = [roi_align(x, boxes, output_size, 1 / s, 2) for x, s in zip(features, strides, strict=False)]
        return torch.stack(every)[torch.cat(level), torch.arange(len(every[0]), device=every[0].device)]
    pooled, rows = [], []
    for i, stride in enumerate(strides):
        own = [box[k == i] for box, k in zip(boxes, level, strict=True)]
        pooled.append(roi_align(features[i], own, (output_size, output_size), 1 / stride, sampling_ratio=2))
        rows.append(torch.nonzero(torch.cat(level) == i).flatten())
    return torch.cat(pooled)[torch.cat(rows).argsort()]
