"""Proposals: boxes of each image that may hold objects, for a network to judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from segedu.ops.boxes import check_boxes
from segedu.ops.crowds import without_crowds


def check_proposals(proposals: Sequence[Tensor], images: Tensor) -> list[Tensor]:
    """Refuse what is not a set of boxes for each image.

    Args:
        proposals: B boxes (P_i, 4), xyxy; P_i may be 0.
        images: (B, C, H, W).

    Returns:
        The boxes with the type of the images, and on their device.

    Raises:
        TypeError: not a sequence of tensors of numbers.
        ValueError: another number of sets than of images, or what is no box.
    """
    if isinstance(proposals, Mapping) or not isinstance(proposals, Sequence):
        raise TypeError(f"proposals has type {type(proposals).__name__}, expected a list of tensors (P, 4)")
    if len(proposals) != len(images):
        raise ValueError(f"proposals has {len(proposals)} entries, expected boxes for each of {len(images)} images")
    return [check_boxes(boxes, f"proposals[{i}]").detach().to(images) for i, boxes in enumerate(proposals)]


def add_ground_truth(proposals: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
    """Proposals, followed by the ground-truth boxes: each object then has one that fits it.

    Args:
        proposals: B boxes (P_i, 4).
        targets: B dicts with `boxes` (N_i, 4). If a dict has `iscrowd` (N_i,), the boxes of crowds are not added.

    Returns:
        B boxes (P_i + N_i, 4).
    """
    true_boxes = [without_crowds(target)["boxes"] for target in targets]
    return [torch.cat([boxes, true.to(boxes)]) for boxes, true in zip(proposals, true_boxes, strict=True)]
