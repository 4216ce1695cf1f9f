"""Axis-aligned boxes: forms of writing them, area, intersection over union, and its relatives with a gradient.

A box is ``(x1, y1, x2, y2)`` in pixels with ``x1 <= x2`` and ``y1 <= y2``. Coordinates are continuous:
the box from 0 to 2 is 2 wide, not 3. N boxes are a tensor of shape (N, 4), and N may be 0.
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
        boxes: (N, 4), xyxy. Integers are converted to the default float type, half precision to float32.

    Returns:
        (N,) areas. A box without width or height has area 0. An area larger than the type can hold is infinite.

    Raises:
        TypeError: ``boxes`` is not a tensor of numbers.
        ValueError: the shape is not (N, 4), a coordinate is not finite, or ``x2 < x1`` or ``y2 < y1``.

    Example:
        >>> box_area(torch.tensor([[0.0, 0.0, 2.0, 3.0], [1.0, 1.0, 1.0, 5.0]]))
        tensor([6., 0.])
    """
    return _area(check_boxes("boxes", boxes))


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
    boxes1, boxes2, dtype = _check_pair(boxes1, boxes2)
    return _iou(boxes1, boxes2).to(dtype)  # (N, M)


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
    boxes1, boxes2, dtype = _check_pair(boxes1, boxes2)
    intersection, union = _intersection_and_union(boxes1, boxes2)
    top_left = torch.minimum(boxes1[:, None, :2], boxes2[None, :, :2])  # (N, M, 2)
    bottom_right = torch.maximum(boxes1[:, None, 2:], boxes2[None, :, 2:])  # (N, M, 2)
    enclosing = (bottom_right - top_left).prod(dim=-1)  # (N, M)
    return (_ratio(intersection, union) - _ratio(enclosing - union, enclosing)).to(dtype)


def distance_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Distance IoU of every pair: ``IoU - d² / c²``, d between the centres, c the diagonal of the box around both.

    Zheng et al. 2020 (arXiv 1911.08287), equation 7.

    Args:
        boxes1: (N, 4), xyxy. Integers are converted to the default float type, half precision to float32.
        boxes2: (M, 4), xyxy.

    Returns:
        (N, M) values in [-1, 1]. Two equal points have value 0.

    Raises:
        TypeError: an argument is not a tensor of numbers.
        ValueError: a shape is not (N, 4), a coordinate is not finite, or ``x2 < x1`` or ``y2 < y1``.

    Example:
        The boxes of ``box_iou``: centres (1, 1) and (2, 2.5), enclosing box 3x4: 1/9 - 3.25 / 25.

        >>> a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> b = torch.tensor([[1.0, 1.0, 3.0, 4.0]])
        >>> distance_box_iou(a, b)
        tensor([[-0.0189]])
    """
    boxes1, boxes2, dtype = _check_pair(boxes1, boxes2)
    return (_iou(boxes1, boxes2) - _centre_distance(boxes1, boxes2)).to(dtype)


def complete_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Complete IoU of every pair: the distance IoU less ``a v``, a penalty for another ratio of sides.

    ``v = 4/π² (atan(w2/h2) - atan(w1/h1))²`` and ``a = v / (1 - IoU + v)``, a number without a gradient.
    Zheng et al. 2020 (arXiv 1911.08287), equations 8 to 11.

    Args:
        boxes1: (N, 4), xyxy. Integers are converted to the default float type, half precision to float32.
        boxes2: (M, 4), xyxy.

    Returns:
        (N, M) values of at most 1. A box without width has the angle 0, one without height π/2.

    Raises:
        TypeError: an argument is not a tensor of numbers.
        ValueError: a shape is not (N, 4), a coordinate is not finite, or ``x2 < x1`` or ``y2 < y1``.

    Example:
        A square in the middle of a box twice as wide: IoU 1/2, no distance, and angles of 45 and 63.4 degrees.

        >>> complete_box_iou(torch.tensor([[1.0, 0.0, 3.0, 2.0]]), torch.tensor([[0.0, 0.0, 4.0, 2.0]]))
        tensor([[0.4968]])
    """
    boxes1, boxes2, dtype = _check_pair(boxes1, boxes2)
    iou = _iou(boxes1, boxes2)
    angle1, angle2 = _angle(boxes1), _angle(boxes2)
    v = 4 / torch.pi**2 * (angle2[None, :] - angle1[:, None]) ** 2  # (N, M)
    with torch.no_grad():
        a = _ratio(v, 1 - iou + v)
    return (iou - _centre_distance(boxes1, boxes2) - a * v).to(dtype)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """From corners to (left, top, width, height), COCO's form.

    Args:
        boxes: (N, 4), xyxy. Integers are converted to the default float type, half precision to float32.

    Returns:
        (N, 4).

    Raises:
        TypeError: ``boxes`` is not a tensor of numbers.
        ValueError: the shape is not (N, 4), a coordinate is not finite, or ``x2 < x1`` or ``y2 < y1``.

    Example:
        >>> xyxy_to_xywh(torch.tensor([[1.0, 2.0, 4.0, 6.0]]))
        tensor([[1., 2., 3., 4.]])
    """
    boxes = check_boxes("boxes", boxes)
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """From (left, top, width, height) to corners.

    Args:
        boxes: (N, 4), width and height at least 0.

    Returns:
        (N, 4), xyxy.

    Raises:
        TypeError: ``boxes`` is not a tensor of numbers.
        ValueError: the shape is not (N, 4), a value is not finite, or a width or height is negative.

    Example:
        >>> xywh_to_xyxy(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        tensor([[1., 2., 4., 6.]])
    """
    boxes = _check_sides(boxes)
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """From corners to (centre x, centre y, width, height), DETR's form.

    Args:
        boxes: (N, 4), xyxy. Integers are converted to the default float type, half precision to float32.

    Returns:
        (N, 4).

    Raises:
        TypeError: ``boxes`` is not a tensor of numbers.
        ValueError: the shape is not (N, 4), a coordinate is not finite, or ``x2 < x1`` or ``y2 < y1``.

    Example:
        >>> xyxy_to_cxcywh(torch.tensor([[1.0, 2.0, 4.0, 6.0]]))
        tensor([[2.5000, 4.0000, 3.0000, 4.0000]])
    """
    boxes = check_boxes("boxes", boxes)
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """From (centre x, centre y, width, height) to corners.

    Args:
        boxes: (N, 4), width and height at least 0.

    Returns:
        (N, 4), xyxy.

    Raises:
        TypeError: ``boxes`` is not a tensor of numbers.
        ValueError: the shape is not (N, 4), a value is not finite, or a width or height is negative.

    Example:
        >>> cxcywh_to_xyxy(torch.tensor([[2.5, 4.0, 3.0, 4.0]]))
        tensor([[1., 2., 4., 6.]])
    """
    boxes = _check_sides(boxes)
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=1)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut boxes at the edges of an image.

    Args:
        boxes: (N, 4), xyxy. Integers are converted to the default float type, half precision to float32.
        size: (H, W) of the image.

    Returns:
        (N, 4). A box outside of the image has no area.

    Raises:
        TypeError: ``boxes`` is not a tensor of numbers.
        ValueError: the shape is not (N, 4), a coordinate is not finite, or ``x2 < x1`` or ``y2 < y1``.

    Example:
        >>> clip_boxes(torch.tensor([[-1.0, 2.0, 4.0, 9.0]]), (6, 3))
        tensor([[0., 2., 3., 6.]])
    """
    boxes = check_boxes("boxes", boxes)
    if len(size) != 2 or min(size) < 0:
        raise ValueError(f"size is {tuple(size)}, expected (H, W)")
    H, W = size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([W, H, W, H]))


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)  # (N,)


def _intersection_and_union(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    top_left = torch.maximum(boxes1[:, None, :2], boxes2[None, :, :2])  # (N, M, 2)
    bottom_right = torch.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:])  # (N, M, 2)
    # Without the clamp two boxes that are apart in both directions would have a positive "overlap".
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=-1)  # (N, M)
    union = _area(boxes1)[:, None] + _area(boxes2)[None, :] - intersection
    return intersection, union


def _iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    return _ratio(*_intersection_and_union(boxes1, boxes2))  # (N, M)


def _centre_distance(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """(N, M): squared distance of the centres over the squared diagonal of the box around both."""
    centre1, centre2 = (boxes1[:, :2] + boxes1[:, 2:]) / 2, (boxes2[:, :2] + boxes2[:, 2:]) / 2
    distance = ((centre1[:, None] - centre2[None, :]) ** 2).sum(dim=-1)
    top_left = torch.minimum(boxes1[:, None, :2], boxes2[None, :, :2])
    bottom_right = torch.maximum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    return _ratio(distance, ((bottom_right - top_left) ** 2).sum(dim=-1))


def _angle(boxes: Tensor) -> Tensor:
    """(N,): the arc tangent of width over height; 0, without a gradient, where both are 0."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(dim=1)
    point = (width == 0) & (height == 0)
    return torch.atan2(width, torch.where(point, 1.0, height))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where whole is 0, without a NaN in the gradient."""
    positive = whole > 0
    return torch.where(positive, part / torch.where(positive, whole, 1.0), 0.0)


def _check_pair(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Two sets whose areas can be computed, and the type of the result."""
    boxes1, boxes2 = check_boxes("boxes1", boxes1), check_boxes("boxes2", boxes2)
    return *without_overflow(boxes1, boxes2), torch.promote_types(boxes1.dtype, boxes2.dtype)


def _check_sides(boxes: Tensor) -> Tensor:
    """Boxes that end in width and height."""
    boxes = float_boxes("boxes", boxes)
    if is_exporting():
        return boxes
    for row, (*place, width, height) in enumerate(boxes.detach().tolist()):
        if not all(map(math.isfinite, (*place, width, height))):
            raise ValueError(f"boxes[{row}] is {[*place, width, height]}, expected finite numbers")
        if width < 0 or height < 0:
            raise ValueError(f"boxes[{row}] has the size {[width, height]}, expected width and height of at least 0")
    return boxes
