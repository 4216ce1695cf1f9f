"""Crowds: regions of many objects of one class that the annotators could not separate (COCO's `iscrowd`).

Lin et al. 2014, arXiv 1405.0312. The box of a crowd is not the box of an object. So every loss of this library leaves
crowds out of its targets, as torchvision's reference for training on COCO does, and every metric of COCO ignores what
is predicted inside them, as pycocotools and panopticapi do.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

OF_OBJECTS = ("boxes", "labels", "masks", "area", "iscrowd")  # entries of a target with one row for each object


def without_crowds(target: Mapping[str, Tensor], name: str = "target") -> dict[str, Tensor]:
    """The target of one image without its crowds, from which no detector learns.

    A prediction inside a crowd then counts as background in the loss of a detector, though metrics ignore it.

    Args:
        target: of one image; with `iscrowd` (N,) bool, or integers 0 and 1, the marked rows of `boxes`, `labels`,
            `masks`, `area` and `iscrowd` are left out. Without this key nothing is left out.
        name: of the target, for errors.

    Returns:
        A new dict with all keys of the target.

    Raises:
        TypeError: `iscrowd` is not a tensor of bool or integers.
        ValueError: `iscrowd` does not have one entry for each object, or has other values than 0 and 1.

    >>> without_crowds({"labels": torch.tensor([3, 1]), "iscrowd": torch.tensor([1, 0])})
    {'labels': tensor([1]), 'iscrowd': tensor([0])}
    """
    if "iscrowd" not in target:
        return dict(target)
    crowd, of_objects = target["iscrowd"], [key for key in OF_OBJECTS if key in target]
    if not isinstance(crowd, Tensor) or crowd.is_floating_point() or crowd.is_complex():
        kind = f"dtype {crowd.dtype}" if isinstance(crowd, Tensor) else f"type {type(crowd).__name__}"
        raise TypeError(f"{name}['iscrowd'] has {kind}, expected a tensor of torch.bool, or of the integers 0 and 1")
    for key in of_objects:
        if crowd.shape != target[key].shape[:1]:
            shape, count = tuple(crowd.shape), len(target[key])
            raise ValueError(f"{name}['iscrowd'] has shape {shape}, expected ({count},): one for each of {key}")
    if bool(((crowd != 0) & (crowd != 1)).any()):
        raise ValueError(f"{name}['iscrowd'] has the values {crowd.unique().tolist()}, expected 0 and 1")
    kept = torch.nonzero(crowd == 0).flatten()
    return {**target, **{key: target[key][kept.to(target[key].device)] for key in of_objects}}
