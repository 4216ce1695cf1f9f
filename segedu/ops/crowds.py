"""Crowds: regions of many objects of one class that the annotators could not separate (COCO's `iscrowd`).

Lin et al. 2014, arXiv 1405.0312. The box of a crowd is not the box of an object. So every loss of this library drops
crowds from its targets, as torchvision's reference for training on COCO does, and every metric of COCO ignores
predictions inside them, as pycocotools and panopticapi do.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from segedu.validation.tensors import check_tensor

OBJECT_KEYS = ("boxes", "labels", "masks", "area", "iscrowd")  # entries of a target with one row for each object


def without_crowds(target: Mapping[str, Tensor], name: str = "target") -> dict[str, Tensor]:
    """Copy the target of one image without its crowds, because no detector should learn from them.

    The loss of a detector then counts a prediction inside a crowd as background, although metrics ignore it.

    Args:
        target: if it has `iscrowd`, (N,) bool or integers 0 and 1, the marked rows of `boxes`, `labels`, `masks`,
            `area` and `iscrowd` are dropped.
        name: the argument's name in errors.

    Returns:
        A new dict with all keys of the target.

    >>> without_crowds({"labels": torch.tensor([3, 1]), "iscrowd": torch.tensor([1, 0])})
    {'labels': tensor([1]), 'iscrowd': tensor([0])}
    """
    if "iscrowd" not in target:
        return dict(target)
    crowd = target["iscrowd"]
    check_tensor(f"{name}['iscrowd']", crowd)
    if crowd.is_floating_point() or crowd.is_complex():
        raise TypeError(f"{name}['iscrowd'] has dtype {crowd.dtype}, expected torch.bool, or the integers 0 and 1")
    object_keys = [key for key in OBJECT_KEYS if key in target]
    for key in object_keys:
        if crowd.shape != target[key].shape[:1]:
            shape, count = tuple(crowd.shape), len(target[key])
            raise ValueError(f"{name}['iscrowd'] has shape {shape}, expected ({count},), one for each of {key}")
    if bool(((crowd != 0) & (crowd != 1)).any()):
        raise ValueError(f"{name}['iscrowd'] has the values {crowd.unique().tolist()}, expected 0 and 1")
    keep = torch.nonzero(crowd == 0).flatten()
    return {**target, **{key: target[key][keep.to(target[key].device)] for key in object_keys}}
