"""Synthetic shapes in the COCO format: boxes as x, y, width, height, masks as run lengths, and crowds.

COCO marks objects that are too close to be separated as one region, a crowd (Lin et al. 2014, arXiv 1405.0312,
section 4.3); a detection inside a crowd is neither right nor wrong. Here three or more touching shapes of one class
are a crowd.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_dilation, label
from torch import Tensor

from segedu.datasets.coco import coco_annotation
from segedu.datasets.files import atomic_path
from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.datasets.texture import check_count
from segedu.ops.masks import boxes_from_masks


def merge_crowds(sample: Mapping[str, Tensor], smallest: int = 3) -> dict[str, Tensor]:
    """Merge touching objects of one class into crowd regions.

    Args:
        sample: `labels` (N,) and `masks` (N, H, W) bool; other keys are dropped.
        smallest: smallest number of objects of a crowd; fewer stay separate.

    Returns:
        `boxes` (M, 4) float32 xyxy, `labels` (M,), `masks` (M, H, W) bool and `iscrowd` (M,) bool: the single
        objects in their order, then the crowds.

    Example:
        >>> rows = torch.eye(4).bool()[:, None].expand(4, 2, 4)  # four objects, each a column of the image
        >>> merged = merge_crowds({"masks": rows, "labels": torch.tensor([1, 1, 2, 1])}, smallest=2)
        >>> merged["labels"].tolist(), merged["iscrowd"].tolist(), merged["boxes"][2].tolist()
        ([2, 1, 1], [False, False, True], [0.0, 0.0, 2.0, 2.0])
    """
    if smallest < 2:
        raise ValueError(f"smallest is {smallest}, expected at least 2 objects")
    masks, labels, crowds = sample["masks"], sample["labels"], []
    is_single = torch.ones(len(labels), dtype=torch.bool)
    for category in labels.unique().tolist():
        indices = torch.nonzero(labels == category).flatten()
        regions = _regions(masks[indices].numpy())
        for region in np.unique(regions):
            members = indices[torch.from_numpy(regions == region)]
            if len(members) >= smallest:
                crowds.append((category, masks[members].any(dim=0)))
                is_single[members] = False
    crowd_labels = torch.tensor([category for category, _ in crowds], dtype=torch.int64)
    merged = torch.cat([masks[is_single], torch.stack([mask for _, mask in crowds]) if crowds else masks[:0]])
    return {
        "boxes": boxes_from_masks(merged),
        "labels": torch.cat([labels[is_single], crowd_labels]),
        "masks": merged,
        "iscrowd": torch.arange(len(merged)) >= int(is_single.sum()),
    }


def _regions(masks: np.ndarray) -> np.ndarray:
    """Index (N,) of the connected region (8-connectivity) of each of the masks (N, H, W)."""
    components, _ = label(masks.any(axis=0), structure=np.ones((3, 3)))
    dilated = [binary_dilation(mask) for mask in masks]  # connects the parts of an object that others cut in two
    parents = list(range(len(masks)))
    for i in range(len(masks)):
        for j in range(i):
            if (dilated[i] & masks[j]).any() or np.intersect1d(components[masks[i]], components[masks[j]]).size:
                parents = [parents[j] if parent == parents[i] else parent for parent in parents]
    return np.array(parents)


def write_shapes_coco(
    folder: str | Path,
    length: int,
    seed: int = 0,
    size: tuple[int, int] = (96, 96),
    count: int | tuple[int, int] = (6, 16),
    smallest: int = 3,
) -> Path:
    """Write scenes as COCO files; read them with `CocoInstances(folder / "images", folder / "instances.json")`.

    Args:
        folder: created if it does not exist.
        length: number of scenes.
        seed: scene i depends only on (seed, i), `size` and `count`.
        size: (H, W).
        count: number of shapes, or (lowest, highest).
        smallest: smallest number of objects of a crowd.

    Returns:
        The path of instances.json. It is written last, so an interrupted run leaves no incomplete file.
    """
    folder, (length, _) = Path(folder), check_count(length)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in range(length):
        sample = draw_shapes((seed, index), size, count=count)
        name = f"{index + 1:012}.png"
        pixels = (255 * sample["image"]).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append({"id": index + 1, "file_name": name, "height": size[0], "width": size[1]})
        annotations += [
            {"id": len(annotations) + i + 1, "image_id": index + 1, **annotation}
            for i, annotation in enumerate(_annotations(merge_crowds(sample, smallest)))
        ]
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES) if number]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = folder / "instances.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
    return path


def _annotations(objects: Mapping[str, Tensor]) -> list[dict]:
    rows = zip(objects["masks"], objects["labels"].tolist(), objects["iscrowd"].tolist(), strict=True)
    return [coco_annotation(mask, label, crowd=crowd) for mask, label, crowd in rows]
