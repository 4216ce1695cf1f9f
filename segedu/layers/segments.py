"""Segments: the targets of mask classification, each with one class and one mask, made from ground truth of any task.

What a segment is depends on the task. Semantic: all pixels of a class. Instance: a thing. Panoptic: a thing, or all
pixels of a class of stuff. One network with one loss learns any of the three tasks; only the list of segments differs.
Categories are 0 to K - 1. The segments of an image are a dict of `labels` (N,) int64 and `masks` (N, H, W) bool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.crowds import without_crowds
from segedu.validation.images import Size
from segedu.validation.targets import check_segment_targets
from segedu.validation.tensors import check_dtype, check_integer_tensor, check_keys

Segments = dict[str, Tensor]


def semantic_segments(semantic: Tensor, ignore_index: int = 255) -> Segments:
    """One segment for each class of a semantic target.

    Args:
        semantic: (H, W) int64.
        ignore_index: pixels with this value belong to no segment.

    Returns:
        `labels` (N,), ascending, and `masks` (N, H, W); N may be 0.

    >>> segments = semantic_segments(torch.tensor([[3, 3, 255, 0]]))
    >>> segments["labels"].tolist(), segments["masks"][:, 0].int().tolist()
    ([0, 3], [[0, 0, 0, 1], [1, 1, 0, 0]])
    """
    check_dtype("semantic", semantic, torch.int64, "H? W?")
    labels = semantic.unique()
    labels = labels[labels != ignore_index]
    if len(labels) and labels[0] < 0:
        raise ValueError(f"semantic has the class {int(labels[0])}, expected at least 0 or ignore_index={ignore_index}")
    return {"labels": labels, "masks": semantic == labels[:, None, None]}


def panoptic_segments(panoptic_seg: Tensor, segments_info: Sequence[Mapping[str, Any]]) -> Segments:
    """One segment for each thing, and one for each class of stuff, even if the map divides it into several segments.

    Args:
        panoptic_seg: (H, W) int32 or int64, 0 for unlabelled pixels.
        segments_info: a dict with `id`, `category_id` and `isthing` for each id in the map. Crowds (`iscrowd`), which
            are several things in one mask, are left out.

    Returns:
        `labels` (N,) and `masks` (N, H, W), in the order of segments_info; N may be 0.

    >>> road, car = {"category_id": 4, "isthing": False}, {"category_id": 7, "isthing": True}
    >>> info = [{"id": 1, **road}, {"id": 2, **car}, {"id": 3, **road}, {"id": 4, **car}]
    >>> segments = panoptic_segments(torch.tensor([[1, 2, 3, 0, 4]]), info)
    >>> segments["labels"].tolist(), segments["masks"][:, 0].int().tolist()
    ([4, 7, 7], [[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1]])
    """
    check_integer_tensor("panoptic_seg", panoptic_seg, "H? W?")
    masks: dict[tuple[int, int], Tensor] = {}
    for info in _checked_info(segments_info):
        mask = panoptic_seg == info["id"]
        if not bool(mask.any()):
            raise ValueError(f"segments_info has the id {info['id']}, expected ids that occur in panoptic_seg")
        key = info["category_id"], info["id"] if info["isthing"] else 0
        if not info.get("iscrowd"):
            masks[key] = masks[key] | mask if key in masks else mask
    labels = torch.tensor([category for category, _ in masks], dtype=torch.int64, device=panoptic_seg.device)
    no_masks = panoptic_seg.new_zeros((0, *panoptic_seg.shape), dtype=torch.bool)
    return {"labels": labels, "masks": torch.stack(list(masks.values())) if masks else no_masks}


def instance_segments(panoptic_seg: Tensor, segments_info: Sequence[Mapping[str, Any]]) -> Segments:
    """The things of a panoptic map. `labels` and `masks` of instances can be used as segments directly.

    Args:
        panoptic_seg: (H, W) int32 or int64, 0 for unlabelled pixels.
        segments_info: as for `panoptic_segments`.

    Returns:
        `labels` (N,) and `masks` (N, H, W), in the order of segments_info; N may be 0.

    >>> info = [{"id": 1, "category_id": 4, "isthing": False}, {"id": 2, "category_id": 7, "isthing": True}]
    >>> instance_segments(torch.tensor([[1, 2, 0]]), info)["labels"]
    tensor([7])
    """
    return panoptic_segments(panoptic_seg, [info for info in _checked_info(segments_info) if info["isthing"]])


def check_segments(targets: Sequence[Mapping[str, Tensor]], sizes: Sequence[Size], num_classes: int) -> list[Segments]:
    """Check the targets of mask classification and remove crowds.

    Args:
        targets: B dicts of `labels` (N,) int64 from 0 to K - 1 and `masks` (N, h, w) bool; N may be 0. If a dict also
            has `iscrowd` (N,), its crowds are removed, as in every detector: see `segedu.ops.crowds`.
        sizes: (h, w) of each image, without its padding.
        num_classes: K, without "no object".

    Returns:
        The targets without their crowds.

    >>> target = {"labels": torch.tensor([1]), "masks": torch.ones(1, 4, 4).bool()}
    >>> check_segments([target], [(4, 4)], num_classes=2)[0]["labels"]
    tensor([1])
    """
    check_segment_targets(targets, sizes, num_classes)
    return [without_crowds(target, f"targets[{i}]") for i, target in enumerate(targets)]


def pad_masks(masks: Tensor, image_size: Size) -> Tensor:
    """Pad masks (N, h, w) at the right and the bottom with False to the size (H, W) of the batch.

    >>> pad_masks(torch.ones(1, 1, 2).bool(), (1, 3))
    tensor([[[ True,  True, False]]])
    """
    return F.pad(masks, (0, image_size[1] - masks.shape[2], 0, image_size[0] - masks.shape[1]))


def _checked_info(segments_info: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    if not isinstance(segments_info, list | tuple):
        raise TypeError(f"segments_info has type {type(segments_info).__name__}, expected a list of dicts")
    for i, info in enumerate(segments_info):
        check_keys(f"segments_info[{i}]", info, ("id", "category_id", "isthing"))
    return segments_info
