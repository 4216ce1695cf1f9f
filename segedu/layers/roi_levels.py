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

CANONICAL = (224, 16)  # an object of the size of ImageNet's images belongs to the level of stride 16 (FPN, equation 1)


def assign_levels(boxes: Tensor, strides: Sequence[int], canonical: tuple[float, float] = CANONICAL) -> Tensor:
    """The pyramid level of each box by its size: FPN's equation 1, k = floor(k0 + log2(sqrt(w h) / 224)).

    Args:
        boxes: (P, 4), xyxy.
        strides: of the levels, each twice the previous one.
        canonical: a box of this size (square root of its area) belongs to the level of this stride.

    Returns:
        (P,) int64 indices of levels. Boxes that are too small or too large get the first or the last level.

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
    """RoIAlign of each box from the level that fits its size.

    Args:
        features: (B, C, h, w) of each level, fine to coarse.
        boxes: B tensors of boxes (P_i, 4) in pixels of the images.
        output_size: height and width of the result.
        strides: of the levels; further levels are not used.

    Returns:
        (P, C, output_size, output_size), in the order of the boxes.
    """
    levels = [assign_levels(box, strides) for box in boxes]
    if is_exporting():  # the number of boxes per level is unknown then, so each box is pooled from every level
        pooled = [roi_align(x, boxes, output_size, 1 / s, 2) for x, s in zip(features, strides, strict=False)]
        return torch.stack(pooled)[torch.cat(levels), torch.arange(len(pooled[0]), device=pooled[0].device)]
    pooled, rows = [], []
    for i, stride in enumerate(strides):
        boxes_of_level = [box[level == i] for box, level in zip(boxes, levels, strict=True)]
        pooled.append(roi_align(features[i], boxes_of_level, (output_size, output_size), 1 / stride, sampling_ratio=2))
        rows.append(torch.nonzero(torch.cat(levels) == i).flatten())
    return torch.cat(pooled)[torch.cat(rows).argsort()]
