"""Terms of a set loss as students write them: each takes the parts of the loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.boxes import box_iou, cxcywh_to_xyxy, generalized_box_iou


class Parts(NamedTuple):
    """What the loss is made of: logits (Q, C + 1), wanted (Q,), weights (C + 1,), given and true boxes (N, 4)."""

    logits: Tensor
    wanted: Tensor
    weights: Tensor
    given: Tensor
    truth: Tensor

    @property
    def count(self) -> int:
        """N, at least 1."""
        return max(1, len(self.truth))


def matched_only(p: Parts) -> Tensor:
    """Predictions without an object are left out."""
    keep = p.wanted < p.logits.shape[1] - 1
    return F.cross_entropy(p.logits[keep], p.wanted[keep]) if keep.any() else p.logits.sum() * 0


def sum_of_classes(p: Parts) -> Tensor:
    """Weighted, divided by nothing."""
    return F.cross_entropy(p.logits, p.wanted, p.weights, reduction="sum")


def yes_or_no(p: Parts) -> Tensor:
    """A sigmoid of each class, and 0 everywhere where no object is."""
    truth = F.one_hot(p.wanted, p.logits.shape[1])[:, :-1].to(p.logits)
    return F.binary_cross_entropy_with_logits(p.logits[:, :-1], truth)


def no_object_first(p: Parts) -> Tensor:
    """Column 0 for no object."""
    last = p.logits.shape[1] - 1
    return F.cross_entropy(p.logits, torch.where(p.wanted == last, 0, p.wanted + 1), p.weights.roll(1))


def one_less(p: Parts) -> Tensor:
    """The columns where labels begin with 1."""
    return torch.where(p.wanted < p.logits.shape[1] - 1, p.wanted - 1, p.wanted)


def of_corners(p: Parts) -> Tensor:
    """The distance of (x1, y1, x2, y2)."""
    return 5 * (cxcywh_to_xyxy(p.given) - cxcywh_to_xyxy(p.truth)).abs().sum() / p.count


def plain_iou(p: Parts) -> Tensor:
    """IoU for GIoU."""
    return 2 * (1 - box_iou(cxcywh_to_xyxy(p.given), cxcywh_to_xyxy(p.truth)).diagonal()).sum() / p.count


def all_pairs(p: Parts) -> Tensor:
    """The whole matrix for its diagonal."""
    return 2 * (1 - generalized_box_iou(cxcywh_to_xyxy(p.given), cxcywh_to_xyxy(p.truth))).sum() / p.count
