"""Checks of boxes, and of the scores and labels that go with them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from segedu.validation.exporting import is_exporting
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_integer_tensor, check_list


def check_boxes(name: str, boxes: Tensor) -> Tensor:
    """Check boxes (N, 4), in (x1, y1, x2, y2), finite and with `x1 <= x2` and `y1 <= y2`.

    Returns:
        The boxes in a dtype in which areas can be computed: integers become the default float type, half precision
        becomes float32.

    >>> check_boxes("boxes", torch.tensor([[0, 0, 2, 3]]))
    tensor([[0., 0., 2., 3.]])
    """
    boxes = float_boxes(name, boxes)
    if is_exporting():
        return boxes
    smallest, largest, shortest_side = extent(boxes)
    if not (math.isfinite(smallest) and math.isfinite(largest) and shortest_side >= 0):
        finite = torch.isfinite(boxes).all(dim=1)
        ordered = (boxes[:, 2:] >= boxes[:, :2]).all(dim=1)
        row = int(torch.nonzero(~(finite & ordered))[0])
        expected = "x1 <= x2 and y1 <= y2" if finite[row] else "finite coordinates"
        raise ValueError(f"{name}[{row}] is {boxes[row].tolist()}, expected (x1, y1, x2, y2) with {expected}")
    return boxes


def float_boxes(name: str, boxes: Tensor) -> Tensor:
    """Check the dtype and shape of boxes (N, 4) in any format, and convert them as `check_boxes` does."""
    if not isinstance(boxes, Tensor):
        raise TypeError(f"{name} has type {type(boxes).__name__}, expected a tensor of shape (N, 4)")
    if boxes.dtype == torch.bool or boxes.is_complex():
        raise TypeError(f"{name} has dtype {boxes.dtype}, expected a floating-point or integer dtype")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} has shape {tuple(boxes.shape)}, expected (N, 4)")
    if not boxes.is_floating_point():
        return boxes.to(torch.get_default_dtype())
    # the area of a box of 300 x 300 pixels is more than float16 can hold
    return boxes.float() if boxes.dtype in (torch.float16, torch.bfloat16) else boxes


@torch.no_grad()
def extent(boxes: Tensor) -> tuple[float, float, float]:
    """The smallest coordinate, the largest coordinate and the shortest side of all boxes (N, 4), xyxy.

    The shortest side is negative if a box is inverted. All three are 0 without boxes; some are NaN if a coordinate is.

    >>> extent(torch.tensor([[0.0, -1.0, 2.0, 3.0]]))
    (-1.0, 3.0, 2.0)
    """
    if not boxes.numel():
        return 0.0, 0.0, 0.0
    smallest, largest = boxes.aminmax()
    return smallest.item(), largest.item(), (boxes[:, 2:] - boxes[:, :2]).amin().item()


def check_scores(name: str, scores: Tensor, count: int) -> None:
    """Check one score (N,) for each of `count` boxes, of any numeric dtype and without NaN.

    >>> check_scores("scores", torch.tensor([0.5, 1.0]), 2)
    """
    if not isinstance(scores, Tensor):
        raise TypeError(f"{name} has type {type(scores).__name__}, expected a tensor of shape ({count},)")
    if scores.dtype == torch.bool or scores.is_complex():
        raise TypeError(f"{name} has dtype {scores.dtype}, expected a floating-point or integer dtype")
    if scores.shape != (count,):
        raise ValueError(f"{name} has shape {tuple(scores.shape)}, expected ({count},)")
    if not is_exporting() and scores.isnan().any():
        raise ValueError(f"{name} contains NaN, expected finite values")


def check_labels(name: str, labels: Tensor, count: int) -> None:
    """Check one integer label (N,) for each of `count` boxes."""
    check_integer_tensor(name, labels)
    if labels.shape != (count,):
        raise ValueError(f"{name} has shape {tuple(labels.shape)}, expected ({count},)")


def check_iou_threshold(name: str, iou_threshold: float) -> None:
    """Check an IoU threshold in [0, 1]."""
    check_number(name, iou_threshold, maximum=1)


def check_proposals(proposals: Sequence[Tensor], images: Tensor) -> list[Tensor]:
    """Check proposals, one tensor of boxes (P_i, 4) for each image (B, C, H, W).

    Returns:
        The boxes without a gradient, on the device and in the dtype of the images.
    """
    check_list("proposals", proposals, len(images))
    return [check_boxes(f"proposals[{i}]", boxes).detach().to(images) for i, boxes in enumerate(proposals)]
