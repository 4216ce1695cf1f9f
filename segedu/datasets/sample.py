"""One sample: an image and every kind of truth about it, all derived from one label map.

The label map says who owns each pixel; semantic target, masks and boxes are computed from it. So the
four can never disagree, and an object without a pixel is absent from all of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

KEYS = ("image", "semantic", "label_map", "boxes", "labels", "masks")


def masks_from_label_map(label_map: Tensor) -> Tensor:
    """Split a compact label map (H, W) with labels 0..N into masks (N, H, W) bool; N may be 0.

    Args:
        label_map: integers (H, W), 0 for background.

    Returns:
        The masks in order of their labels.
    """
    count = int(label_map.max()) if label_map.numel() else 0
    ids = np.arange(1, count + 1, dtype=np.int32)
    return torch.from_numpy(label_map.numpy()[None] == ids[:, None, None])


def boxes_from_masks(masks: Tensor) -> Tensor:
    """Tight boxes (N, 4), float32 xyxy, of masks (N, H, W) bool.

    The edges of pixels count: the mask of one pixel at row 2, column 3 has the box (3, 2, 4, 3) of area 1.

    Args:
        masks: (N, H, W) bool, none of them empty; N may be 0.

    Returns:
        x1, y1, x2, y2 of each mask.

    Raises:
        ValueError: if `masks` is not of three dimensions or a mask is empty.
    """
    if masks.ndim != 3:
        raise ValueError(f"masks have shape {tuple(masks.shape)}, expected (N, H, W)")
    if not len(masks):
        return torch.zeros(0, 4)
    columns, rows = (masks.numpy().any(axis=axis) for axis in (1, 2))  # (N, W), (N, H)
    if not columns.any(axis=1).all():
        raise ValueError("masks hold an empty mask, expected at least one pixel in each: it has no box")
    first = [line.argmax(axis=1) for line in (columns, rows)]  # argmax finds the first maximum
    last = [line.shape[1] - line[:, ::-1].argmax(axis=1) for line in (columns, rows)]
    return torch.from_numpy(np.stack([*first, *last], axis=1).astype(np.float32))


def compact(label_map: Tensor) -> tuple[Tensor, Tensor]:
    """Renumber the labels of a map to 1..N without gaps.

    Args:
        label_map: integers (H, W) of at least 0.

    Returns:
        The new label map (int32) and the old numbers (N,) int64, in order.
    """
    old = label_map.unique()
    old = old[old > 0].long()
    table = torch.zeros(int(old.max()) + 1 if len(old) else 1, dtype=torch.int32)
    table[old] = torch.arange(1, len(old) + 1, dtype=torch.int32)
    return table[label_map.long()], old


def make_sample(image: np.ndarray, label_map: np.ndarray, labels: np.ndarray) -> dict[str, Tensor]:
    """Build the sample dict from an image, a compact label map and the class of each instance.

    Args:
        image: (3, H, W) in [0, 1].
        label_map: (H, W), 0 for background, 1..N.
        labels: (N,) class of instance 1..N; classes start at 1.

    Returns:
        `image` float32 (3, H, W); `semantic` int64 (H, W); `label_map` int32 (H, W); `boxes` float32
        (N, 4); `labels` int64 (N,); `masks` bool (N, H, W).
    """
    ids = torch.from_numpy(np.ascontiguousarray(label_map, dtype=np.int32))
    classes = torch.as_tensor(np.asarray(labels, dtype=np.int64))
    masks = masks_from_label_map(ids)
    return {
        "image": torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)),
        "semantic": torch.cat([torch.zeros(1, dtype=torch.int64), classes])[ids.long()],
        "label_map": ids,
        "boxes": boxes_from_masks(masks),
        "labels": classes,
        "masks": masks,
    }
