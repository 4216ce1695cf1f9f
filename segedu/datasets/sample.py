"""One sample: an image and all its targets, computed from one label map.

The label map assigns each pixel to one instance, or to none (0). The semantic target, the masks, the boxes and, if
classes of stuff are given, the panoptic segments are all computed from this map and the class of each instance.
Therefore the targets always agree: an instance that has no pixel in the label map occurs in none of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.ops.masks import boxes_from_masks, masks_from_label_map

KEYS = ("image", "semantic", "label_map", "boxes", "labels", "masks")
PANOPTIC_KEYS = ("panoptic_seg", "segments_info")
VOID = 255  # the value of ignored pixels in a semantic target: losses and metrics skip them


def compact(label_map: Tensor) -> tuple[Tensor, Tensor]:
    """Renumber the instances of a label map to 1..N without gaps; 0, the background, stays 0.

    Args:
        label_map: (H, W) non-negative integers.

    Returns:
        The new label map (H, W) int32, and the old labels (N,) int64 in ascending order: new label i was `old[i - 1]`.
    """
    old_labels, inverse = label_map.long().unique(return_inverse=True)
    is_object = old_labels > 0
    return is_object.cumsum(0).to(torch.int32)[inverse], old_labels[is_object]


def panoptic_truth(label_map: Tensor, labels: Tensor, semantic: Tensor) -> tuple[Tensor, list[dict[str, int | bool]]]:
    """Return the panoptic target of a scene: one segment per thing instance and one per stuff class.

    Args:
        label_map: (H, W), 1..N for instances of things, 0 elsewhere.
        labels: (N,) class of each instance.
        semantic: (H, W) class of each pixel, 255 for void. Every class of a pixel outside all instances is stuff.

    Returns:
        `panoptic_seg` int32 (H, W), the segment id of each pixel: i for instance i, N + 1 and above for stuff, 0 for
        void. `segments_info` is a list with one dict of `id`, `category_id` and `isthing` per segment.
    """
    ids = label_map.to(torch.int32).clone()
    segments_info = [{"id": i, "category_id": c, "isthing": True} for i, c in enumerate(labels.tolist(), start=1)]
    stuff = torch.where(label_map == 0, semantic, torch.full_like(semantic, VOID))
    for category in stuff.unique().tolist():
        if category != VOID:
            segments_info.append({"id": len(segments_info) + 1, "category_id": category, "isthing": False})
            ids[stuff == category] = len(segments_info)
    return ids, segments_info


def make_sample(
    image: np.ndarray, label_map: np.ndarray, labels: np.ndarray, stuff: np.ndarray | None = None
) -> dict[str, Tensor | list]:
    """Build the sample dict from an image, a label map without gaps (see `compact`) and the class of each instance.

    Args:
        image: (3, H, W) in [0, 1].
        label_map: (H, W), 0 for the background and 1..N for the instances; each of these labels occurs.
        labels: (N,) class of each instance, at least 1.
        stuff: (H, W) class of each pixel, 255 for void. It is read only where `label_map` is 0. With None, these pixels
            get class 0, and the sample has no panoptic target.

    Returns:
        `image` float32 (3, H, W); `semantic` int64 (H, W); `label_map` int32 (H, W); `boxes` float32
        (N, 4); `labels` int64 (N,); `masks` bool (N, H, W). If `stuff` is given, also `panoptic_seg` int32
        (H, W) and `segments_info`, see `panoptic_truth`.
    """
    ids = torch.from_numpy(np.ascontiguousarray(label_map, dtype=np.int32))
    classes = torch.as_tensor(np.asarray(labels, dtype=np.int64))
    masks = masks_from_label_map(ids)
    semantic = torch.cat([torch.zeros(1, dtype=torch.int64), classes])[ids.long()]
    if stuff is not None:
        stuff_classes = torch.from_numpy(np.ascontiguousarray(stuff, dtype=np.int64))
        semantic = torch.where(ids == 0, stuff_classes, semantic)
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
