"""Overlaps of boxes (N, 4) with masks (M, H, W): the IoU, and other measures that students compute."""

from __future__ import annotations

import torch
from torch import Tensor


def inside(boxes: Tensor, size: tuple[int, ...]) -> Tensor:
    """(N, H, W) bool: the pixels whose centre is in a box."""
    y, x = (torch.arange(n) + 0.5 for n in size)
    x1, y1, x2, y2 = boxes.T[..., None]
    rows, columns = (y1 <= y) & (y < y2), (x1 <= x) & (x < x2)
    return rows[:, :, None] & columns[:, None, :]


def areas(masks: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel counts: (N, M) of the intersections, (N, 1) of the boxes, (M,) of the masks."""
    in_box, in_mask = inside(boxes, masks.shape[1:]).flatten(1).double(), masks.flatten(1).double()
    return in_box @ in_mask.T, in_box.sum(dim=1, keepdim=True), in_mask.sum(dim=1)


def ious(masks: Tensor, boxes: Tensor) -> Tensor:
    """(N, M); 0 where both are empty."""
    both, box, mask = areas(masks, boxes)
    return both / (box + mask - both).clamp(min=1)


def with_empty_as_one(masks: Tensor, boxes: Tensor) -> Tensor:
    """IoU; 1 where both are empty."""
    _, box, mask = areas(masks, boxes)
    return torch.where(box + mask == 0, 1.0, ious(masks, boxes))


def with_width_times_height(masks: Tensor, boxes: Tensor) -> Tensor:
    """IoU with width times height as the area of a box."""
    both, _, mask = areas(masks, boxes)
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))[:, None]
    union = area + mask - both
    return both / torch.where(union == 0, 1.0, union)


def share_of_box(masks: Tensor, boxes: Tensor) -> Tensor:
    both, box, _ = areas(masks, boxes)
    return both / box.clamp(min=1)


def share_of_mask(masks: Tensor, boxes: Tensor) -> Tensor:
    both, _, mask = areas(masks, boxes)
    return both / mask.clamp(min=1)


def dice(masks: Tensor, boxes: Tensor) -> Tensor:
    both, box, mask = areas(masks, boxes)
    return 2 * both / (box + mask).clamp(min=1)


def filled_boxes(masks: Tensor) -> Tensor:
    """The bounding box of each mask, as a mask."""
    filled = torch.zeros_like(masks)
    for box, mask in zip(filled, masks, strict=True):
        y, x = mask.nonzero().T
        if len(y):
            box[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
    return filled
