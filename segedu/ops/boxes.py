"""Axis-aligned boxes: their formats, their area, and intersection over union with its variants.

A box is ``(x1, y1, x2, y2)`` in pixels with ``x1 <= x2`` and ``y1 <= y2``, called xyxy. Coordinates are continuous:
the box from 0 to 2 is 2 wide, not 3. N boxes are a tensor of shape (N, 4), and N may be 0. All functions convert
integers to the default float type, and half precision to float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segedu.ops.box_scale import without_overflow
from segedu.validation.boxes import check_boxes, float_boxes
from segedu.validation.exporting import is_exporting


def box_area(boxes: Tensor) -> Tensor:
    """Area of each box, ``(x2 - x1) * (y2 - y1)``.

    Args:
        boxes: (N, 4), xyxy.

    Returns:
        (N,) areas. A box without width or height has area 0. An area larger than the type can hold is infinite.

    >>> box_area(torch.tensor([[0.0, 0.0, 2.0, 3.0], [1.0, 1.0, 1.0, 5.0]]))
    tensor([6., 0.])
    """
    return _area(check_boxes("boxes", boxes))


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair of boxes from two sets.

    Gradients flow to both sets. They are exactly zero for a pair that does not overlap; `generalized_box_iou` has a
    gradient there.

    Args:
        boxes1: (N, 4), xyxy.
        boxes2: (M, 4), xyxy.

    Returns:
        (N, M) values in [0, 1]. A pair whose union has area 0 has IoU 0, never NaN.

    A 2x2 box and a 2x3 box with an intersection of 1 have IoU 1 / (4 + 6 - 1).

    >>> box_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.0, 3.0, 4.0]]))
    tensor([[0.1111]])
    """
    boxes1, boxes2, dtype = _check_pair(boxes1, boxes2)
    return _iou(boxes1, boxes2).to(dtype)  # (N, M)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalised IoU of every pair: ``IoU - (C - U) / C``, with the union U and the area C of the enclosing box.

    Rezatofighi et al. 2019 (arXiv 1902.09630) define the measure for convex shapes; this is the closed form
    for axis-aligned boxes. Unlike the IoU, it decreases as disjoint boxes move apart, so it has a gradient there.

    Args:
        boxes1: (N, 4), xyxy.
        boxes2: (M, 4), xyxy.

    Returns:
        (N, M) values in [-1, 1]. The value is 0 if the enclosing box has area 0: for two equal points, or two segments
        on the same horizontal or vertical line. Two different points that are not on such a line have value -1.

    The boxes of `box_iou` have a 3x4 enclosing box, so the value is 1/9 - (12 - 9) / 12 = -5/36.

    >>> generalized_box_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.0, 3.0, 4.0]]))
    tensor([[-0.1389]])
    """
    boxes1, boxes2, dtype = _check_pair(boxes1, boxes2)
    intersection, union = _intersection_and_union(boxes1, boxes2)
    top_left = torch.minimum(boxes1[:, None, :2], boxes2[None, :, :2])  # (N, M, 2)
    bottom_right = torch.maximum(boxes1[:, None, 2:], boxes2[None, :, 2:])  # (N, M, 2)
    enclosing = (bottom_right - top_left).prod(dim=-1)  # (N, M)
    return (_divide(intersection, union) - _divide(enclosing - union, enclosing)).to(dtype)


def distance_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Distance IoU of every pair: ``IoU - d² / c²``, with the distance d of the centres.

    c is the diagonal of the enclosing box. Zheng et al. 2020 (arXiv 1911.08287), equation 7.

    Args:
        boxes1: (N, 4), xyxy.
        boxes2: (M, 4), xyxy.

    Returns:
        (N, M) values in [-1, 1]. Two equal points have value 0.

    The boxes of `box_iou` have centres (1, 1) and (2, 2.5) and a 3x4 enclosing box: 1/9 - 3.25 / 25.

    >>> distance_box_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.0, 3.0, 4.0]]))
    tensor([[-0.0189]])
    """
    boxes1, boxes2, dtype = _check_pair(boxes1, boxes2)
    return (_iou(boxes1, boxes2) - _centre_distance(boxes1, boxes2)).to(dtype)


def complete_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Complete IoU of every pair: the distance IoU minus a penalty ``a v`` for different aspect ratios.

    ``v = 4/π² (atan(w2/h2) - atan(w1/h1))²`` and ``a = v / (1 - IoU + v)``, which is treated as a constant: it has no
    gradient. Zheng et al. 2020 (arXiv 1911.08287), equations 8 to 11.

    Args:
        boxes1: (N, 4), xyxy.
        boxes2: (M, 4), xyxy.

    Returns:
        (N, M) values of at most 1. The angle of a box without width is 0, that of a box without height is π/2.

    A square in the middle of a box twice as wide: IoU 1/2, distance 0, and angles of 45 and 63.4 degrees.

    >>> complete_box_iou(torch.tensor([[1.0, 0.0, 3.0, 2.0]]), torch.tensor([[0.0, 0.0, 4.0, 2.0]]))
    tensor([[0.4968]])
    """
    boxes1, boxes2, dtype = _check_pair(boxes1, boxes2)
    iou = _iou(boxes1, boxes2)
    angle1, angle2 = _angle(boxes1), _angle(boxes2)
    v = 4 / torch.pi**2 * (angle2[None, :] - angle1[:, None]) ** 2  # (N, M)
    with torch.no_grad():
        a = _divide(v, 1 - iou + v)
    return (iou - _centre_distance(boxes1, boxes2) - a * v).to(dtype)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Convert boxes (N, 4) from corners to (left, top, width, height), the format of COCO.

    >>> xyxy_to_xywh(torch.tensor([[1.0, 2.0, 4.0, 6.0]]))
    tensor([[1., 2., 3., 4.]])
    """
    boxes = check_boxes("boxes", boxes)
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert boxes (N, 4) from (left, top, width, height) to corners.

    >>> xywh_to_xyxy(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    tensor([[1., 2., 4., 6.]])
    """
    boxes = _check_sides(boxes)
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert boxes (N, 4) from corners to (centre x, centre y, width, height), the format of DETR.

    >>> xyxy_to_cxcywh(torch.tensor([[1.0, 2.0, 4.0, 6.0]]))
    tensor([[2.5000, 4.0000, 3.0000, 4.0000]])
    """
    boxes = check_boxes("boxes", boxes)
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert boxes (N, 4) from (centre x, centre y, width, height) to corners.

    >>> cxcywh_to_xyxy(torch.tensor([[2.5, 4.0, 3.0, 4.0]]))
    tensor([[1., 2., 4., 6.]])
    """
    boxes = _check_sides(boxes)
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=1)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip boxes to an image.

    Args:
        boxes: (N, 4), xyxy.
        size: (H, W) of the image.

    Returns:
        (N, 4), xyxy. A box that lies outside the image has area 0.

    >>> clip_boxes(torch.tensor([[-1.0, 2.0, 4.0, 9.0]]), (6, 3))
    tensor([[0., 2., 3., 6.]])
    """
    boxes = check_boxes("boxes", boxes)
    if len(size) != 2 or min(size) < 0:
        raise ValueError(f"size is {tuple(size)}, expected (H, W), integers of at least 0")
    H, W = size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([W, H, W, H]))


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)  # (N,)


def _intersection_and_union(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    top_left = torch.maximum(boxes1[:, None, :2], boxes2[None, :, :2])  # (N, M, 2)
    bottom_right = torch.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:])  # (N, M, 2)
    # Without the clamp, boxes that are disjoint in both directions would have a positive intersection.
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=-1)  # (N, M)
    union = _area(boxes1)[:, None] + _area(boxes2)[None, :] - intersection
    return intersection, union


def _iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    return _divide(*_intersection_and_union(boxes1, boxes2))  # (N, M)


def _centre_distance(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """(N, M): squared distance of the centres over the squared diagonal of the enclosing box."""
    centre1, centre2 = (boxes1[:, :2] + boxes1[:, 2:]) / 2, (boxes2[:, :2] + boxes2[:, 2:]) / 2
    distance = ((centre1[:, None] - centre2[None, :]) ** 2).sum(dim=-1)
    top_left = torch.minimum(boxes1[:, None, :2], boxes2[None, :, :2])
    bottom_right = torch.maximum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    return _divide(distance, ((bottom_right - top_left) ** 2).sum(dim=-1))


def _angle(boxes: Tensor) -> Tensor:
    """(N,): the arc tangent of width over height; 0, without a gradient, where both are 0."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(dim=1)
    point = (width == 0) & (height == 0)
    return torch.atan2(width, torch.where(point, 1.0, height))


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, or 0 where the denominator is 0, without a NaN in the gradient."""
    positive = denominator > 0
    return torch.where(positive, numerator / torch.where(positive, denominator, 1.0), 0.0)


def _check_pair(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Two sets of boxes whose areas can be computed, and the dtype of the result."""
    boxes1, boxes2 = check_boxes("boxes1", boxes1), check_boxes("boxes2", boxes2)
    return *without_overflow(boxes1, boxes2), torch.promote_types(boxes1.dtype, boxes2.dtype)


def _check_sides(boxes: Tensor) -> Tensor:
    """Check boxes (N, 4) whose last two values are width and height."""
    boxes = float_boxes("boxes", boxes)
    if is_exporting():
        return boxes
    for row, values in enumerate(boxes.detach().tolist()):
        if not all(map(math.isfinite, values)) or min(values[2:]) < 0:
            raise ValueError(f"boxes[{row}] is {values}, expected finite values, width and height of at least 0")
    return boxes
