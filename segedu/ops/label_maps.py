"""Renumbering of the objects in label maps, and removal of small objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segedu.validation.label_maps import check_label_map


def relabel_sequential(label_map: Tensor, axes: Sequence[int] = (2, 3)) -> Tensor:
    """Renumber objects to 1, 2, ... in the order of their labels; the background remains 0.

    Args:
        label_map: (H, W) or (D, H, W) integers, 0 is background.
        axes: the allowed numbers of axes.

    Returns:
        The same shape, int32.

    >>> relabel_sequential(torch.tensor([[7, 0, 2147483647, 2]]))
    tensor([[2, 0, 3, 1]], dtype=torch.int32)
    """
    labels = check_label_map("label_map", label_map, axes).numpy(force=True)
    if labels.max() < labels.size:  # usually true, and then nothing has to be sorted
        present = np.bincount(labels.ravel()) > 0
        present[0] = False
        relabelled = (np.cumsum(present) * present)[labels]
    else:
        unique, index = np.unique(labels, return_inverse=True)
        relabelled = index.reshape(labels.shape) + int(unique[0] > 0)
    return torch.from_numpy(relabelled.astype(np.int32, order="C")).to(label_map.device)


def relabel_by_occurrence(labels: Tensor) -> Tensor:
    """Renumber objects to 1, 2, ... in the order of their first occurrence; the background remains 0.

    Args:
        labels: integers of any shape, at least 0, 0 is background; may be empty.

    Returns:
        The same shape, int32.

    >>> relabel_by_occurrence(torch.tensor([7, 7, 0, 2]))
    tensor([1, 1, 0, 2], dtype=torch.int32)
    """
    if isinstance(labels, Tensor) and labels.numel() == 0:
        return labels.int()
    check_label_map("labels", labels, shape=getattr(labels, "shape", None))
    unique, first, index = np.unique(labels.numpy(force=True), return_index=True, return_inverse=True)
    rank = np.empty(len(unique), np.int32)
    rank[np.where(unique == 0, -1, first).argsort()] = np.arange(len(unique)) + int(unique[0] > 0)
    return torch.from_numpy(rank[index].reshape(tuple(labels.shape))).to(labels.device)


def drop_small_objects(label_map: Tensor, min_size: int) -> Tensor:
    """Remove small objects, and renumber the others to 1, 2, ... in the order of their labels.

    Args:
        label_map: (H, W) or (D, H, W) integers, 0 is background.
        min_size: pixels; smaller objects become background.

    Returns:
        The same shape, int32.

    >>> drop_small_objects(torch.tensor([[9, 4, 0, 4, 12, 12]]), 2)
    tensor([[0, 1, 0, 1, 2, 2]], dtype=torch.int32)
    """
    labels = relabel_sequential(label_map).long()
    large = labels.flatten().bincount() >= min_size
    large[0] = False
    return (large.cumsum(0) * large)[labels].int()
