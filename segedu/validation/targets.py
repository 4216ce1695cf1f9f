"""Checks of logits against semantic targets, and of targets that are lists of objects or segments."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from segedu.validation.boxes import check_boxes
from segedu.validation.images import Size
from segedu.validation.numbers import check_integer
from segedu.validation.tensors import check_dtype, check_floats, check_keys, check_list, check_tensor

Targets = Sequence[Mapping[str, Tensor]]


def check_logits(logits: Tensor) -> None:
    """Check floating-point logits of any shape that is not empty."""
    check_floats("logits", logits)
    if logits.numel() == 0:
        raise ValueError(f"logits has shape {tuple(logits.shape)}, expected at least one image and one pixel")


def valid_pixels(target: Tensor, ignore_index: int | None) -> Tensor:
    """A bool mask of the pixels that are not ignored; with `ignore_index=None`, of all pixels.

    >>> valid_pixels(torch.tensor([0, 255]), 255)
    tensor([ True, False])
    """
    if ignore_index is None:
        return torch.ones_like(target, dtype=torch.bool)
    # compared as int64, because torch takes a uint8 of 255 to be equal to -1
    return (target if target.is_floating_point() else target.long()) != ignore_index


def check_logits_and_target(logits: Tensor, target: Tensor, ignore_index: int | None) -> Tensor:
    """Check logits (B, K, ...) with K >= 2 against a semantic target (B, ...) of int64.

    Args:
        ignore_index: pixels with this value do not count, and it may lie outside [0, K). None ignores no pixel.

    Returns:
        (B, ...) bool, True where a pixel counts.

    >>> check_logits_and_target(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 255]]]), ignore_index=255)
    tensor([[[ True, False]]])
    >>> check_logits_and_target(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 2]]]), ignore_index=255)
    Traceback (most recent call last):
    ValueError: target has the value 2, expected classes 0 to 1 or ignore_index=255
    """
    check_logits(logits)
    check_tensor("target", target)
    if target.dtype != torch.int64:
        raise TypeError(f"target has dtype {target.dtype}, expected torch.int64 (use .long())")
    if logits.ndim < 3 or logits.shape[1] < 2:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)}, expected (B, K, H, W) with at least K=2 classes"
            " (for a single logit per pixel see binary_cross_entropy)"
        )
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != expected:
        raise ValueError(
            f"target has shape {tuple(target.shape)}, expected {expected} for logits {tuple(logits.shape)}"
        )
    valid = valid_pixels(target, ignore_index)
    outside = valid & ((target < 0) | (target >= logits.shape[1]))
    if bool(outside.any()):
        raise ValueError(
            f"target has the value {int(target[outside][0])}, expected classes 0 to {logits.shape[1] - 1}"
            f" or ignore_index={ignore_index}"
        )
    return valid


def check_soft_target(logits: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Check one logit per pixel against a target of the same shape with values in [0, 1].

    Args:
        target: bools, integers 0 and 1, or floats in [0, 1].
        ignore_index: pixels with this target do not count.

    Returns:
        The target as floats, at least float32, with 0 where a pixel is ignored; and a bool mask that is True where a
        pixel counts.

    >>> check_soft_target(torch.zeros(2), torch.tensor([1, 255]), ignore_index=255)
    (tensor([1., 0.]), tensor([ True, False]))
    """
    check_logits(logits)
    check_tensor("target", target)
    if target.shape != logits.shape:
        raise ValueError(f"target has shape {tuple(target.shape)}, expected that of logits, {tuple(logits.shape)}")
    valid = valid_pixels(target, ignore_index)
    soft = torch.where(valid, target, 0).to(torch.promote_types(logits.dtype, torch.float32))
    if not (soft.min() >= 0 and soft.max() <= 1):  # NaN too
        outside = soft[~((soft >= 0) & (soft <= 1))]
        raise ValueError(f"target has the value {outside[0].item():g}, expected values in [0, 1]")
    return soft, valid


def check_weights(name: str, weights: Tensor | None, shape: tuple[int, ...]) -> None:
    """Check finite weights of at least 0, of classes or pixels; None stands for weights of 1.

    >>> check_weights("class_weights", torch.ones(2), (2,))
    """
    if weights is None:
        return
    check_tensor(name, weights)
    if tuple(weights.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(weights.shape)}, expected {shape}")
    if not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError(f"{name} has a negative, infinite or NaN value, expected finite weights of at least 0")


def check_instance_targets(targets: Targets, sizes: Sequence[Size], num_classes: int, masks: bool = False) -> None:
    """Check the targets of detectors: for each image a dict of the objects, in torchvision's format.

    Args:
        targets: B dicts with `boxes` (N, 4), each with an area, `labels` (N,) int64 from 1 to K - 1 and, if `masks` is
            True, `masks` (N, h, w) bool. N may be 0.
        sizes: (h, w) of each image, without padding.
        num_classes: K, including the background.
    """
    keys = ("boxes", "labels", "masks") if masks else ("boxes", "labels")
    check_list("targets", targets, len(sizes))
    for i, (target, size) in enumerate(zip(targets, sizes, strict=True)):
        name = f"targets[{i}]"
        check_keys(name, target, keys)
        boxes = check_boxes(f"{name}['boxes']", target["boxes"])
        without_area = (boxes[:, 2:] <= boxes[:, :2]).any(1).nonzero().flatten()
        if len(without_area):
            row = int(without_area[0])
            raise ValueError(f"{name}['boxes'][{row}] is {boxes[row].tolist()}, expected a box with an area")
        check_rows(name, target, len(boxes), 1, num_classes, size if masks else None, of="box")


def check_segment_targets(targets: Targets, sizes: Sequence[Size], num_classes: int) -> None:
    """Check the targets of mask classification: for each image a dict of the segments.

    Args:
        targets: B dicts with `labels` (N,) int64 from 0 to K - 1 and `masks` (N, h, w) bool. N may be 0.
        sizes: (h, w) of each image, without padding.
        num_classes: K, without "no object".
    """
    check_list("targets", targets, len(sizes))
    for i, (target, size) in enumerate(zip(targets, sizes, strict=True)):
        name = f"targets[{i}]"
        check_keys(name, target, ("labels", "masks"))
        check_dtype(f"{name}['labels']", target["labels"], torch.int64, "N?")
        check_rows(name, target, len(target["labels"]), 0, num_classes, size, of="segment")


def check_rows(
    name: str, target: Mapping[str, Tensor], count: int, min_label: int, num_classes: int, size: Size | None, of: str
) -> None:
    """Check `labels` (N,) from `min_label` to K - 1 and, if a size is given, `masks` (N, h, w) of one image.

    Args:
        count: N.
        of: what has one row each, for the message.
    """
    labels, masks = target["labels"], target.get("masks")
    check_dtype(f"{name}['labels']", labels, torch.int64)
    if labels.shape != (count,):
        raise ValueError(f"{name}['labels'] has shape {tuple(labels.shape)}, expected ({count},), one for each {of}")
    if size is not None:
        check_dtype(f"{name}['masks']", masks, torch.bool)
        if masks.shape != (count, *size):
            shape = tuple(masks.shape)
            raise ValueError(f"{name}['masks'] has shape {shape}, expected {(count, *size)}, one mask for each {of}")
    if count and not min_label <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f"{name}['labels'] has the values {labels.tolist()}, expected {min_label} to {num_classes - 1}"
        )


def check_categories(name: str, categories: Collection[int], num_classes: int | None = None) -> None:
    """Check a collection of categories, integers from 0, or from 0 to K - 1 if K is given.

    >>> check_categories("things", {1, 2}, num_classes=3)
    """
    if not isinstance(categories, Collection) or isinstance(categories, str | bytes):
        raise TypeError(f"{name} has type {type(categories).__name__}, expected a collection of categories")
    for category in categories:
        check_integer(f"{name} has a category that", category, 0, None if num_classes is None else num_classes - 1)
