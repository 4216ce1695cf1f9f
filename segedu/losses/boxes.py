"""Losses that compare each predicted box with its ground-truth box, by overlap rather than by coordinates alone.

Row i of ``boxes`` belongs to row i of ``target``; they are matched elsewhere. A box is ``(x1, y1, x2, y2)`` with ``x1
<= x2`` and ``y1 <= y2``. All losses except ``lp_iou_loss`` are ratios of areas or of squared lengths, and so do not
change if the image is scaled. Half-precision boxes are converted to float32 first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segedu.losses.reduction import reduce_loss
from segedu.ops.box_scale import without_overflow
from segedu.validation.boxes import check_boxes, float_boxes
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_floats, check_shape


def iou_box_loss(boxes: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """IoU loss of boxes, ``1 - IoU`` of each pair.

    Boxes that do not overlap have loss 1 and gradient 0 at any distance. The other losses of this file avoid this
    defect. (UnitBox, Yu et al. 2016, uses ``-log IoU``, with the same defect.)

    Args:
        boxes: (N, 4), xyxy floats, the predicted boxes; N may be 0.
        target: (N, 4), xyxy, the ground-truth box of each.
        reduction: "mean" over the pairs, "sum", or "none" for (N,) values.

    Returns:
        A scalar, or (N,) values in [0, 1] for "none". The mean over no pairs is 0. Two boxes of area 0 have IoU 0.

    Example:
        A 2x2 box and a 2x3 box with an overlap of 1: 1 - 1/9.

        >>> a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> b = torch.tensor([[1.0, 1.0, 3.0, 4.0]])
        >>> iou_box_loss(a, b)
        tensor(0.8889)
    """
    boxes, target, dtype = _scaled_pairs(boxes, target)
    iou, _ = _iou_and_union(boxes, target)
    return _reduce((1 - iou).to(dtype), reduction)


def generalized_iou_loss(boxes: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Generalised IoU loss ``1 - GIoU = 1 - IoU + (C - U) / C`` (Rezatofighi et al. 2019).

    C is the area of the smallest box that encloses both. The penalty is the empty fraction of this box, so boxes
    without overlap attract each other. If one box lies inside the other, the penalty is 0, and moving the inner box
    changes nothing.

    Args:
        boxes: (N, 4), xyxy floats, the predicted boxes; N may be 0.
        target: (N, 4), xyxy, the ground-truth box of each.
        reduction: "mean" over the pairs, "sum", or "none" for (N,) values.

    Returns:
        A scalar, or (N,) values in [0, 2] for "none". If the enclosing box has area 0, the penalty is 0.

    Example:
        GIoU = 1/9 - (12 - 9) / 12 = -5/36.

        >>> a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> b = torch.tensor([[1.0, 1.0, 3.0, 4.0]])
        >>> generalized_iou_loss(a, b)
        tensor(1.1389)
    """
    boxes, target, dtype = _scaled_pairs(boxes, target)
    iou, union = _iou_and_union(boxes, target)
    enclosing = _enclosing_sides(boxes, target).prod(dim=1)  # (N,)
    return _reduce((1 - iou + _ratio(enclosing - union, enclosing)).to(dtype), reduction)


def distance_iou_loss(boxes: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Distance IoU loss ``1 - IoU + d² / c²`` (Zheng et al. 2020).

    d is the distance of the centres, c the diagonal of the smallest box that encloses both. Unlike GIoU it also moves a
    box that lies inside the other.

    Args:
        boxes: (N, 4), xyxy floats, the predicted boxes; N may be 0.
        target: (N, 4), xyxy, the ground-truth box of each.
        reduction: "mean" over the pairs, "sum", or "none" for (N,) values.

    Returns:
        A scalar, or (N,) values in [0, 2] for "none". Two equal points have loss 1.

    Example:
        Centres (1, 1) and (2, 2.5), enclosing box 3x4: 8/9 + 3.25 / 25.

        >>> a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> b = torch.tensor([[1.0, 1.0, 3.0, 4.0]])
        >>> distance_iou_loss(a, b)
        tensor(1.0189)
    """
    boxes, target, dtype = _scaled_pairs(boxes, target)
    iou, _ = _iou_and_union(boxes, target)
    return _reduce((1 - iou + _centre_penalty(boxes, target)).to(dtype), reduction)


def complete_iou_loss(boxes: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Complete IoU loss ``1 - IoU + d² / c² + a v``: distance IoU with an aspect ratio term (Zheng et al. 2020).

    ``v = 4/π² (atan(w'/h') - atan(w/h))²`` and ``a = v / (1 - IoU + v)``, which has no gradient.

    Args:
        boxes: (N, 4), xyxy floats, the predicted boxes; N may be 0.
        target: (N, 4), xyxy, the ground-truth box of each.
        reduction: "mean" over the pairs, "sum", or "none" for (N,) values.

    Returns:
        A scalar, or (N,) values of at least 0 for "none". A point has no aspect ratio: v is 0.

    Example:
        Sides 2 x 2 against 2 x 3: v = 4/π² (atan(2/3) - atan(1))² = 0.0158, a v = 0.0003.

        >>> a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> b = torch.tensor([[1.0, 1.0, 3.0, 4.0]])
        >>> complete_iou_loss(a, b)
        tensor(1.0192)
    """
    boxes, target, dtype = _scaled_pairs(boxes, target)
    iou, _ = _iou_and_union(boxes, target)
    v = _aspect_difference(boxes, target)
    a = _ratio(v, 1 - iou + v).detach()  # as in the authors' code: a only balances the terms
    return _reduce((1 - iou + _centre_penalty(boxes, target) + a * v).to(dtype), reduction)


def lp_iou_loss(
    boxes: Tensor, target: Tensor, *, p: float = 1.0, weight: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Sum of an Lp loss and the IoU loss, ``weight Σ |b_i - t_i|^p + (1 - IoU)``.

    The sum is over the four coordinates of a pair, and has a gradient at any distance. It grows with the size of the
    image, so boxes are usually divided by the height and width of the image first (DETR does so, with p = 1, and with
    GIoU in place of IoU).

    Args:
        boxes: (N, 4), xyxy floats, the predicted boxes; N may be 0.
        target: (N, 4), xyxy, the ground-truth box of each.
        p: the power of each difference, at least 1; no root is taken.
        weight: of the sum, at least 0.
        reduction: "mean" over the pairs, "sum", or "none" for (N,) values.

    Returns:
        A scalar, or (N,) values of at least 0 for "none".

    Example:
        The Lp loss is 1 + 1 + 1 + 2, the IoU loss 8/9.

        >>> a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> b = torch.tensor([[1.0, 1.0, 3.0, 4.0]])
        >>> lp_iou_loss(a, b)
        tensor(5.8889)
    """
    check_number("p", p, minimum=1)
    check_number("weight", weight)
    boxes, target = _check_pairs(boxes, target)
    iou, _ = _iou_and_union(*without_overflow(boxes, target))
    distance = (boxes - target).abs().pow(p).sum(dim=1)  # (N,)
    return _reduce(weight * distance + 1 - iou.to(boxes), reduction)


def _sides(boxes: Tensor) -> Tensor:
    return boxes[:, 2:] - boxes[:, :2]  # (N, 2): width, height


def _iou_and_union(boxes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    overlap = torch.minimum(boxes[:, 2:], target[:, 2:]) - torch.maximum(boxes[:, :2], target[:, :2])  # (N, 2)
    # relu, because its gradient is 0 where boxes touch; that of torch.maximum(x, 0) is 1/2 there
    intersection = torch.relu(overlap).prod(dim=1)  # (N,)
    union = _sides(boxes).prod(dim=1) + _sides(target).prod(dim=1) - intersection
    return _ratio(intersection, union), union


def _enclosing_sides(boxes: Tensor, target: Tensor) -> Tensor:
    return torch.maximum(boxes[:, 2:], target[:, 2:]) - torch.minimum(boxes[:, :2], target[:, :2])  # (N, 2)


def _centre_penalty(boxes: Tensor, target: Tensor) -> Tensor:
    offsets = (boxes[:, :2] + boxes[:, 2:] - target[:, :2] - target[:, 2:]) / 2  # (N, 2), between the centres
    return _ratio(offsets.square().sum(dim=1), _enclosing_sides(boxes, target).square().sum(dim=1))


def _aspect_difference(boxes: Tensor, target: Tensor) -> Tensor:
    all_sides = (_sides(boxes), _sides(target))
    not_a_point = (all_sides[0].amax(dim=1) > 0) & (all_sides[1].amax(dim=1) > 0)  # a point's angle has gradient NaN
    angles = []
    for sides in all_sides:
        width, height = torch.where(not_a_point[:, None], sides, 1.0).unbind(dim=1)
        angles.append(torch.atan2(width, height))
    return 4 / math.pi**2 * (angles[1] - angles[0]).square()


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """``numerator / denominator``, and 0 where the denominator is 0, without a NaN in the gradient."""
    positive = denominator > 0
    return torch.where(positive, numerator / torch.where(positive, denominator, 1.0), 0.0)


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    return reduce_loss(loss, torch.ones_like(loss), reduction)


def _scaled_pairs(boxes: Tensor, target: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Boxes and target, scaled so that their areas do not overflow, and the dtype of the loss."""
    boxes, target = _check_pairs(boxes, target)
    return *without_overflow(boxes, target), boxes.dtype


def _check_pairs(boxes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    float_boxes("target", target)  # checks the type: integers are allowed
    check_shape("target", target.shape, "N? 4", check_floats("boxes", boxes, "N? 4"))
    boxes = check_boxes("boxes", boxes)
    return boxes, check_boxes("target", target.to(boxes))
