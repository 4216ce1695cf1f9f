"""Losses of boxes: how far each predicted box is from *its* true box, by overlap and not only by coordinates.

Boxes come in pairs: row i of ``boxes`` belongs to row i of ``target``, and matching them is done elsewhere. A box is
``(x1, y1, x2, y2)`` with ``x1 <= x2`` and ``y1 <= y2``. All losses but ``lp_iou_loss`` are ratios of areas or of
squared lengths: scale the picture, and they stay. Half precision is computed, and the loss returned, in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segedu.losses.reduction import reduce_loss
from segedu.ops.box_scale import without_overflow
from segedu.validation.numbers import check_number


def iou_box_loss(boxes: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """``1 - IoU`` of each pair.

    Boxes without a common area have loss 1 and gradient 0, near or far: there this loss teaches nothing, and the
    other losses of this file are the cures. (UnitBox, Yu et al. 2016, takes ``-log IoU``, with the same defect.)

    Args:
        boxes: (N, 4), xyxy floats, the predicted boxes; N may be 0.
        target: (N, 4), xyxy, the true box of each.
        reduction: "mean" over the pairs, "sum", or "none" for (N,) values.

    Returns:
        A scalar, or (N,) values in [0, 1] for "none". The mean over no pairs is 0. Two boxes of area 0 have IoU 0.

    Raises:
        TypeError: an argument is not a tensor of numbers, or ``boxes`` are no floats.
        ValueError: a shape is not (N, 4), the two differ, a coordinate is not finite, ``x2 < x1`` or ``y2 < y1``,
            or the reduction is not one of those above.

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
    """``1 - GIoU = 1 - IoU + (C - U) / C``, C the area of the smallest box around both (Rezatofighi et al. 2019).

    The penalty is the empty share of the enclosing box, so boxes apart still attract each other. If one box lies
    inside the other it is 0, and moving the inner box changes nothing.

    Args:
        boxes: (N, 4), xyxy floats, the predicted boxes; N may be 0.
        target: (N, 4), xyxy, the true box of each.
        reduction: "mean" over the pairs, "sum", or "none" for (N,) values.

    Returns:
        A scalar, or (N,) values in [0, 2] for "none". Where the enclosing box has area 0 the penalty is 0.

    Raises:
        TypeError: an argument is not a tensor of numbers, or ``boxes`` are no floats.
        ValueError: as ``iou_box_loss``.

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
    """``1 - IoU + d² / c²``: d between the centres, c the diagonal of the enclosing box (Zheng et al. 2020).

    Unlike GIoU it also moves a box that lies inside the other.

    Args:
        boxes: (N, 4), xyxy floats, the predicted boxes; N may be 0.
        target: (N, 4), xyxy, the true box of each.
        reduction: "mean" over the pairs, "sum", or "none" for (N,) values.

    Returns:
        A scalar, or (N,) values in [0, 2] for "none". Two equal points have loss 1.

    Raises:
        TypeError: an argument is not a tensor of numbers, or ``boxes`` are no floats.
        ValueError: as ``iou_box_loss``.

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
    """``1 - IoU + d² / c² + a v``: distance IoU and a term for the aspect ratio (Zheng et al. 2020).

    ``v = 4/π² (atan(w'/h') - atan(w/h))²`` and ``a = v / (1 - IoU + v)``, which is a constant for the gradient.

    Args:
        boxes: (N, 4), xyxy floats, the predicted boxes; N may be 0.
        target: (N, 4), xyxy, the true box of each.
        reduction: "mean" over the pairs, "sum", or "none" for (N,) values.

    Returns:
        A scalar, or (N,) values of at least 0 for "none". A point has no aspect ratio: v is 0.

    Raises:
        TypeError: an argument is not a tensor of numbers, or ``boxes`` are no floats.
        ValueError: as ``iou_box_loss``.

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
    a = _ratio(v, 1 - iou + v).detach()  # of the authors' code: a balances the terms and is not to be learnt from
    return _reduce((1 - iou + _centre_penalty(boxes, target) + a * v).to(dtype), reduction)


def lp_iou_loss(
    boxes: Tensor, target: Tensor, *, p: float = 1.0, weight: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """``weight Σ |b_i - t_i|^p + (1 - IoU)``: coordinates pull at any distance, the overlap makes errors relative.

    The sum is over the four coordinates of a pair. It grows with the size of the picture, so boxes are usually
    divided by height and width of the image before (DETR does so, with p = 1, and with GIoU in place of IoU).

    Args:
        boxes: (N, 4), xyxy floats, the predicted boxes; N may be 0.
        target: (N, 4), xyxy, the true box of each.
        p: the power of each difference, at least 1; there is no root.
        weight: of the sum, at least 0.
        reduction: "mean" over the pairs, "sum", or "none" for (N,) values.

    Returns:
        A scalar, or (N,) values of at least 0 for "none".

    Raises:
        TypeError: an argument is not a tensor of numbers, ``boxes`` are no floats, p or weight are no numbers.
        ValueError: as ``iou_box_loss``; p is below 1 or weight is negative.

    Example:
        1 + 1 + 1 + 2 and 8/9.

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
    # relu, because its gradient at 0 exactly, where boxes touch, is 0; torch.maximum(x, 0) would pass on half
    intersection = torch.relu(overlap).prod(dim=1)  # (N,)
    union = _sides(boxes).prod(dim=1) + _sides(target).prod(dim=1) - intersection
    return _ratio(intersection, union), union


def _enclosing_sides(boxes: Tensor, target: Tensor) -> Tensor:
    return torch.maximum(boxes[:, 2:], target[:, 2:]) - torch.minimum(boxes[:, :2], target[:, :2])  # (N, 2)


def _centre_penalty(boxes: Tensor, target: Tensor) -> Tensor:
    between = (boxes[:, :2] + boxes[:, 2:] - target[:, :2] - target[:, 2:]) / 2  # (N, 2)
    return _ratio(between.square().sum(dim=1), _enclosing_sides(boxes, target).square().sum(dim=1))


def _aspect_difference(boxes: Tensor, target: Tensor) -> Tensor:
    sides, true_sides = _sides(boxes), _sides(target)
    shaped = (sides.amax(dim=1) > 0) & (true_sides.amax(dim=1) > 0)  # not a point, whose angle has a NaN for gradient
    angles = []
    for pair in (sides, true_sides):
        width, height = torch.where(shaped[:, None], pair, 1.0).unbind(dim=1)
        angles.append(torch.atan2(width, height))
    return 4 / math.pi**2 * (angles[1] - angles[0]).square()


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where whole is 0, without a NaN in the gradient."""
    positive = whole > 0
    return torch.where(positive, part / torch.where(positive, whole, 1.0), 0.0)


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    return reduce_loss(loss, torch.ones_like(loss), reduction)


def _scaled_pairs(boxes: Tensor, target: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Pairs whose areas can be computed, and the type of the loss."""
    boxes, target = _check_pairs(boxes, target)
    return *without_overflow(boxes, target), boxes.dtype


def _check_pairs(boxes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    for given, name in ((boxes, "boxes"), (target, "target")):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} has type {type(given).__name__}, expected a torch.Tensor of shape (N, 4)")
        if given.dtype == torch.bool or given.is_complex():
            raise TypeError(f"{name} has dtype {given.dtype}, expected floats")
        if given.ndim != 2 or given.shape[1] != 4:
            raise ValueError(f"{name} has shape {tuple(given.shape)}, expected (N, 4)")
    if not boxes.is_floating_point():
        raise TypeError(f"boxes has dtype {boxes.dtype}, expected floats: whole numbers have no gradient")
    if boxes.shape != target.shape:
        raise ValueError(
            f"target has shape {tuple(target.shape)}, expected {tuple(boxes.shape)}, one true box for each of boxes"
        )
    if boxes.dtype in (torch.float16, torch.bfloat16):
        boxes = boxes.float()  # the area of a 300x300 box is more than float16 can hold
    target = target.to(boxes)
    for given, name in ((boxes, "boxes"), (target, "target")):
        _check_corners(given.detach(), name)
    return boxes, target


def _check_corners(boxes: Tensor, name: str) -> None:
    finite = torch.isfinite(boxes).all(dim=1)
    ordered = (boxes[:, 2:] >= boxes[:, :2]).all(dim=1)
    bad = torch.nonzero(~(finite & ordered)).flatten()
    if len(bad):
        row = int(bad[0])
        expected = "x1 <= x2 and y1 <= y2" if finite[row] else "finite coordinates"
        raise ValueError(f"{name}[{row}] is {boxes[row].tolist()}, expected (x1, y1, x2, y2) with {expected}")
