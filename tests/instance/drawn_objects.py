"""Objects for the tests of methods that find instances: blocks, none at all, and whether those found are the true ones."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.ops.masks import boxes_from_masks


def target_of(*masks: Tensor, labels: tuple[int, ...] = ()) -> dict[str, Tensor]:
    stack = torch.stack(masks)
    return {"boxes": boxes_from_masks(stack), "labels": torch.tensor(labels or [1] * len(masks)), "masks": stack}


def block(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = (32, 32)) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def nobody(size: tuple[int, int] = (32, 32)) -> dict[str, Tensor]:
    return {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, *size, dtype=torch.bool),
    }


def assert_same_objects(found: dict[str, Tensor], target: dict[str, Tensor], least: float) -> None:
    assert sorted(found["labels"].tolist()) == sorted(target["labels"].tolist())
    for mask, label in zip(target["masks"], target["labels"], strict=True):
        iou = (found["masks"] & mask).flatten(1).sum(1) / (found["masks"] | mask).flatten(1).sum(1)
        assert iou.max() > least and found["labels"][iou.argmax()] == label
