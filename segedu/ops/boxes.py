"""Axis-aligned boxes: area, intersection over union, and its generalised form.

A box is ``(x1, y1, x2, y2)`` in pixels with ``x1 <= x2`` and ``y1 <= y2``. Coordinates are continuous:
the box from 0 to 2 is 2 wide, not 3. N boxes are a tensor of shape (N, 4), and N may be 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def box_area(boxes: Tensor) -> Tensor:
    """Area of each box, ``(x2 - x1) * (y2 - y1)``.

    Args:
        boxes: (N, 4), xyxy. Integers are converted to the default float type, half precision to float32.

    Returns:
        (N,) areas. A box without width or height has area 0.

    Raises:
        TypeError: ``boxes`` is not a tensor of numbers.
        ValueError: the shape is not (N, 4), a coordinate is not finite, or ``x2 < x1`` or ``y2 < y1``.

    Example:
        >>> box_area(torch.tensor([[0.0, 0.0, 2.0, 3.0], [1.0, 1.0, 1.0, 5.0]]))
        tensor([6., 0.])
    """
    return _area(_check_boxes(boxes, "boxes"))


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every box of one set with every box of another.

    Gradients flow to both sets. They are exactly zero for a pair that does not overlap:
    ``generalized_box_iou`` is the cure.

    Args:
        boxes1: (N, 4), xyxy. Integers are converted to the default float type, half precision to float32.
        boxes2: (M, 4), xyxy.

    Returns:
        (N, M) values in [0, 1]. A pair whose union has area 0 has IoU 0, never NaN.

    Raises:
        TypeError: an argument is not a tensor of numbers.
        ValueError: a shape is not (N, 4), a coordinate is not finite, or ``x2 < x1`` or ``y2 < y1``.

    Example:
        A 2x2 box and a 2x3 box with an overlap of 1: 1 / (4 + 6 - 1).

        >>> a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> b = torch.tensor([[1.0, 1.0, 3.0, 4.0]])
        >>> box_iou(a, b)
        tensor([[0.1111]])
    """
    boxes1, boxes2 = _check_boxes(boxes1, "boxes1"), _check_boxes(boxes2, "boxes2")
    intersection, union = _intersection_and_union(boxes1, boxes2)
    return _ratio(intersection, union)  # (N, M)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalised IoU of every pair: ``IoU - (C - U) / C``, C the area of the smallest box around both.

    Rezatofighi et al. 2019 (arXiv 1902.09630) define the measure for convex shapes; this is the closed form
    for axis-aligned boxes. Unlike the IoU it falls as disjoint boxes move apart, so it has a gradient there.

    Args:
        boxes1: (N, 4), xyxy. Integers are converted to the default float type, half precision to float32.
        boxes2: (M, 4), xyxy.

    Returns:
        (N, M) values in [-1, 1]. Where the enclosing box has area 0 (two equal points, or two segments on
        one line along an axis) the IoU is 0 and there is nothing to enclose: the value is 0. Two different
        points, not on one such line, have value -1.

    Raises:
        TypeError: an argument is not a tensor of numbers.
        ValueError: a shape is not (N, 4), a coordinate is not finite, or ``x2 < x1`` or ``y2 < y1``.

    Example:
        The boxes of ``box_iou``: the enclosing box is 3x4, so 1/9 - (12 - 9) / 12 = -5/36.

        >>> a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> b = torch.tensor([[1.0, 1.0, 3.0, 4.0]])
        >>> generalized_box_iou(a, b)
        tensor([[-0.1389]])
    """
    boxes1, boxes2 = _check_boxes(boxes1, "boxes1"), _check_boxes(boxes2, "boxes2")
    intersection, union = _intersection_and_union(boxes1, boxes2)
    top_left = torch.minimum(boxes1[:, None, :2], boxes2[None, :, :2])  # (N, M, 2)
    bottom_right = torch.maximum(boxes1[:, None, 2:], boxes2[None, :, 2:])  # (N, M, 2)
    enclosing = (bottom_right - top_left).prod(dim=-1)  # (N, M)
    return _ratio(intersection, union) - _ratio(enclosing - union, enclosing)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)  # (N,)


def _intersection_and_union(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    top_left = torch.maximum(boxes1[:, None, :2], boxes2[None, :, :2])  # (N, M, 2)
    bottom_right = torch.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:])  # (N, M, 2)
    # Without the clamp two boxes that are apart in both directions would have a positive "overlap".
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=-1)  # (N, M)
    union = _area(boxes1)[:, None] + _area(boxes2)[None, :] - intersection
    return intersection, union


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where whole is 0, without a NaN in the gradient."""
    positive = whole > 0
    return torch.where(positive, part / torch.where(positive, whole, 1.0), 0.0)


def _check_boxes(boxes: Tensor, name: str) -> Tensor:
    if not isinstance(boxes, Tensor):
        raise TypeError(f"{name} is a {type(boxes).__name__}, expected a torch.Tensor of shape (N, 4)")
    if boxes.dtype == torch.bool or boxes.is_complex():
        raise TypeError(f"{name} has dtype {boxes.dtype}, expected floats (or integers)")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} has shape {tuple(boxes.shape)}, expected (N, 4)")
    if not boxes.is_floating_point():
        boxes = boxes.to(torch.get_default_dtype())
    elif boxes.dtype in (torch.float16, torch.bfloat16):
        boxes = boxes.float()  # the area of a 300x300 box is more than float16 can hold
    _check_corners(boxes.detach(), name)
    return boxes


def _check_corners(boxes: Tensor, name: str) -> None:
    finite = torch.isfinite(boxes).all(dim=1)
    ordered = (boxes[:, 2:] >= boxes[:, :2]).all(dim=1)
    bad = torch.nonzero(~(finite & ordered)).flatten()
    if len(bad) == 0:
        return
    row = int(bad[0])
    expected = "x1 <= x2 and y1 <= y2" if finite[row] else "finite coordinates"
    raise ValueError(f"{name}[{row}] is {boxes[row].tolist()}, expected (x1, y1, x2, y2) with {expected}")
