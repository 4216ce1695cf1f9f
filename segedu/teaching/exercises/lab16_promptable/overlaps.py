"""How much a mask and a box have in common, and what students count in its place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Overlaps = Callable[[Tensor, Tensor], Tensor]  # of masks (M, H, W) and boxes (N, 4): (N, M)


def inside(boxes: Tensor, size: tuple[int, ...], centre: float = 0.5) -> Tensor:
    """(N, H, W) bool; `centre`: where in a pixel its point is."""
    y, x = (torch.arange(n) + centre for n in size)
    x1, y1, x2, y2 = boxes.T[..., None]
    rows, columns = (y1 <= y) & (y < y2), (x1 <= x) & (x < x2)
    return rows[:, :, None] & columns[:, None, :]


def shared(filled: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, M) pixels that both have, (N, 1) those of a box, (M,) those of a mask."""
    one, other = filled.flatten(1).double(), masks.flatten(1).double()
    return one @ other.T, one.sum(dim=1, keepdim=True), other.sum(dim=1)


def iou(filled: Tensor, masks: Tensor) -> Tensor:
    """(N, M), of the pixels of boxes with those of masks; 0 where both are empty."""
    both, box, mask = shared(filled, masks)
    return both / (box + mask - both).clamp(min=1)


def ious(masks: Tensor, boxes: Tensor) -> Tensor:
    """(N, M), of boxes with masks."""
    return iou(inside(boxes, masks.shape[1:]), masks)


def by_boxes(masks: Tensor, boxes: Tensor) -> Tensor:
    """IoU of a box with the box around a mask."""
    around = torch.zeros_like(masks)
    for filled, mask in zip(around, masks, strict=True):
        y, x = mask.nonzero().T
        if len(y):
            filled[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
    return ious(around, boxes)


def in_numbers(masks: Tensor, boxes: Tensor) -> Tensor:
    """The area of a box as width times height, not its pixels."""
    both, _, mask = shared(inside(boxes, masks.shape[1:]), masks)
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))[:, None]
    union = area + mask - both
    return both / torch.where(union == 0, 1.0, union)


def of_whole_pixels(masks: Tensor, boxes: Tensor) -> Tensor:
    """As slices of int() do."""
    return ious(masks, boxes.floor())


def ends_included(masks: Tensor, boxes: Tensor) -> Tensor:
    """One pixel more to the right and below."""
    return ious(masks, boxes + torch.tensor([0.0, 0.0, 1.0, 1.0]))


def dice(masks: Tensor, boxes: Tensor) -> Tensor:
    """Twice what both have, divided by the sum of their pixels."""
    both, box, mask = shared(inside(boxes, masks.shape[1:]), masks)
    return 2 * both / (box + mask).clamp(min=1)


def empty_is_one(masks: Tensor, boxes: Tensor) -> Tensor:
    """IoU; 1 where both are empty."""
    _, box, mask = shared(inside(boxes, masks.shape[1:]), masks)
    return torch.where(box + mask == 0, 1.0, ious(masks, boxes))


def part(which: int) -> Overlaps:
    """How much of the box (1) or of the mask (2) the other one has."""

    def overlaps(masks: Tensor, boxes: Tensor) -> Tensor:
        parts = shared(inside(boxes, masks.shape[1:]), masks)
        return parts[0] / parts[which].clamp(min=1)

    return overlaps
