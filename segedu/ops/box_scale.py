"""Very large and very small boxes, whose areas a floating-point type cannot hold although their ratio is ordinary.

The largest float32 is 3.4e38. Two boxes with sides of 2e19 pixels have areas of 4e38, which is infinite in float32.
The ratio of two areas does not change if all boxes are multiplied by the same factor. This module therefore chooses a
dtype, or a factor, for which the areas are finite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.validation.boxes import extent
from segedu.validation.exporting import is_exporting

# The square of a coordinate up to 2^60 is far from the largest float32, 2^128, and that of a side of at least 2^-60 far
# from the smallest, 2^-126.
EXPONENT = {torch.float32: 60, torch.float64: 500}


def without_overflow(*boxes: Tensor) -> tuple[Tensor, ...]:
    """Rescale boxes, if necessary, so that their areas and squared distances neither overflow nor become 0.

    Args:
        *boxes: sets of boxes that are compared with each other, each (N, 4), xyxy, float32 or float64, finite.

    Returns:
        The boxes unchanged if all sides and coordinates are ordinary. Otherwise float64; if even these are too large or
        too small, multiplied by a power of two that brings the largest coordinate of all sets to 1. Gradients flow
        through both. An exported program always contains the boxes unchanged.

    >>> large = torch.tensor([[0.0, 0.0, 2e19, 2e19]])
    >>> without_overflow(large)[0].dtype, without_overflow(large / 1e19)[0].dtype
    (torch.float64, torch.float32)
    """
    for tensor in boxes:
        if not isinstance(tensor, Tensor) or tensor.dtype not in EXPONENT:
            kind = f"dtype {tensor.dtype}" if isinstance(tensor, Tensor) else f"type {type(tensor).__name__}"
            raise TypeError(f"boxes has {kind}, expected a tensor of float32 or float64 of shape (N, 4)")
    if is_exporting() or all(map(_is_ordinary, boxes)):
        return boxes
    boxes = tuple(tensor.double() for tensor in boxes)
    if all(map(_is_ordinary, boxes)):
        return boxes
    largest = max(float(tensor.detach().abs().amax()) for tensor in boxes if tensor.numel())
    exponent = int(torch.frexp(torch.tensor(largest, dtype=torch.float64)).exponent)
    half = -exponent // 2, -exponent - -exponent // 2  # 2^1074 itself is infinite
    return tuple(tensor * 2.0 ** half[0] * 2.0 ** half[1] for tensor in boxes)


@torch.no_grad()
def _is_ordinary(boxes: Tensor) -> bool:
    limit = 2.0 ** EXPONENT[boxes.dtype]
    smallest, largest, shortest_side = extent(boxes)
    if max(-smallest, largest) >= limit:
        return False
    if shortest_side >= 1 / limit:
        return True
    sides = boxes[:, 2:] - boxes[:, :2]
    return not bool(((sides > 0) & (sides < 1 / limit)).any())
