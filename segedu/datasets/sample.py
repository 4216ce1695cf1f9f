"""One sample: an image and all its targets, derived from one label map.

The label map assigns each pixel to an instance. Semantic target, masks, boxes and, with stuff, panoptic segments are
computed from it, so they always agree, and an object without a pixel is absent from all of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.ops.masks import boxes_from_masks, masks_from_label_map

KEYS = ("image", "semantic", "label_map", "boxes", "labels", "masks")
PANOPTIC_KEYS = ("panoptic_seg", "segments_info")
VOID = 255  # value in a semantic target of pixels that losses and metrics ignore


def compact(label_map: Tensor) -> tuple[Tensor, Tensor]:
    """Renumber the labels of a map to 1..N without gaps.

    Args:
        label_map: integers (H, W) of at least 0.

    Returns:
        The new label map (int32) and the old labels (N,) int64, in ascending order.
    """
    old, inverse = label_map.long().unique(return_inverse=True)
    things = old > 0
    return things.cumsum(0).to(torch.int32)[inverse], old[things]


def panoptic_truth(label_map: Tensor, labels: Tensor, semantic: Tensor) -> tuple[Tensor, list[dict[str, int | bool]]]:
    """Return the panoptic target of a scene: one segment per instance, then one per class of the remaining pixels.

    Args:
        label_map: (H, W), 1..N for things, 0 elsewhere.
        labels: (N,) class of each thing.
        semantic: (H, W), 255 for void; where `label_map` is 0 its classes are stuff.

    Returns:
        `panoptic_seg` int32 (H, W), 0 for void, in which thing i has the id i, and `segments_info`: a dict with
        `id`, `category_id` and `isthing` for each id that occurs.
    """
    ids = label_map.to(torch.int32).clone()
    info = [{"id": i, "category_id": c, "isthing": True} for i, c in enumerate(labels.tolist(), start=1)]
    stuff = torch.where(label_map == 0, semantic, torch.full_like(semantic, VOID))
    for category in stuff.unique().tolist():
        if category != VOID:
            info.append({"id": len(info) + 1, "category_id": category, "isthing": False})
            ids[stuff == category] = len(info)
    return ids, info


def make_sample(
    image: np.ndarray, label_map: np.ndarray, labels: np.ndarray, stuff: np.ndarray | None = None
) -> dict[str, Tensor | list]:
    """Build the sample dict from an image, a compact label map and the class of each instance.

    Args:
        image: (3, H, W) in [0, 1].
        label_map: (H, W), 0 for background, 1..N.
        labels: (N,) class of instance 1..N; classes start at 1.
        stuff: (H, W) classes of the pixels that belong to no instance, 255 for void; None is 0 everywhere.

    Returns:
        `image` float32 (3, H, W); `semantic` int64 (H, W); `label_map` int32 (H, W); `boxes` float32
        (N, 4); `labels` int64 (N,); `masks` bool (N, H, W). With `stuff` also `panoptic_seg` int32 (H, W) and
        `segments_info`, see `panoptic_truth`.
    """
    ids = torch.from_numpy(np.ascontiguousarray(label_map, dtype=np.int32))
    classes = torch.as_tensor(np.asarray(labels, dtype=np.int64))
    masks = masks_from_label_map(ids)
    semantic = torch.cat([torch.zeros(1, dtype=torch.int64), classes])[ids.long()]
    if stuff is not None:
        rest = torch.from_numpy(np.ascontiguousarray(stuff, dtype=np.int64))
        semantic = torch.where(ids == 0, rest, semantic)
    sample = {
        "image": torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)),
        "semantic": semantic,
        "label_map": ids,
        "boxes": boxes_from_masks(masks),
        "labels": classes,
        "masks": masks,
    }
    if stuff is not None:
        sample["panoptic_seg"], sample["segments_info"] = panoptic_truth(ids, classes, semantic)
    return sample
