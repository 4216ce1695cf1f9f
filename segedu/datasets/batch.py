"""Collate samples into batches for a DataLoader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def semantic_batch(samples: Sequence[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """Stack images and semantic targets: the `collate_fn` of semantic segmentation.

    Args:
        samples: dicts with `image` and `semantic`, all of one size.

    Returns:
        images (B, 3, H, W) float32 and target (B, H, W) int64, plain tensors; of volumes (B, C, D, H, W) and
        (B, D, H, W).
    """
    samples = list(samples)
    if not samples:
        raise ValueError("samples is empty, expected at least one sample")
    for key in ("image", "semantic"):
        if any(key not in sample for sample in samples):
            raise ValueError(f"samples have no {key!r}, expected the keys 'image' and 'semantic' in each")
        shapes = {tuple(sample[key].shape) for sample in samples}
        if len(shapes) > 1:
            raise ValueError(f"samples have {key}s of shapes {sorted(shapes)}, expected one shape: crop first")
    images = torch.stack([sample["image"].as_subclass(Tensor) for sample in samples])
    return images, torch.stack([sample["semantic"].as_subclass(Tensor) for sample in samples])


def instance_batch(samples: Sequence[dict[str, Tensor]]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """List images and instance targets: torchvision's form for detectors, which takes images of any size.

    Args:
        samples: dicts with `image`, `boxes`, `labels` and `masks`, of any size; `iscrowd` if they have it.

    Returns:
        images, each (3, H, W), and targets, each with `boxes`, `labels`, `masks` and, if the sample has it, `iscrowd`;
        N may be 0. The losses of this library drop crowds, and metrics ignore them. For a network of another
        library, call `segedu.ops.crowds.without_crowds` on each target first.
    """
    samples = list(samples)
    if not samples:
        raise ValueError("samples is empty, expected at least one sample")
    keys = ("boxes", "labels", "masks")
    for key in ("image", *keys):
        if any(key not in sample for sample in samples):
            raise ValueError(f"samples have no {key!r}, expected 'image', 'boxes', 'labels' and 'masks' in each")
    taken = [(*keys, "iscrowd") if "iscrowd" in sample else keys for sample in samples]
    targets = [{key: sample[key].as_subclass(Tensor) for key in t} for sample, t in zip(samples, taken, strict=True)]
    return [sample["image"].as_subclass(Tensor) for sample in samples], targets


def panoptic_batch(samples: Sequence[dict[str, Any]]) -> tuple[Tensor, list[dict[str, Any]]]:
    """Stack images and list panoptic targets, whose segments differ in number.

    Args:
        samples: dicts with `image`, `panoptic_seg` and `segments_info`, images all of one size.

    Returns:
        images (B, 3, H, W) and targets, each with `panoptic_seg` int32 (H, W) and `segments_info`.
    """
    samples = list(samples)
    if not samples:
        raise ValueError("samples is empty, expected at least one sample")
    keys = ("panoptic_seg", "segments_info")
    for key in ("image", *keys):
        if any(key not in sample for sample in samples):
            raise ValueError(f"samples have no {key!r}, expected 'image', 'panoptic_seg' and 'segments_info' in each")
    shapes = {tuple(sample["image"].shape) for sample in samples}
    if len(shapes) > 1:
        raise ValueError(f"samples have images of shapes {sorted(shapes)}, expected one shape: crop first")
    images = torch.stack([sample["image"].as_subclass(Tensor) for sample in samples])
    return images, [{key: sample[key] for key in keys} for sample in samples]
