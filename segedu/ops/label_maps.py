"""Label maps: what one is, and numbers without gaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segedu.validation.label_maps import check_label_map


def relabel_sequential(label_map: Tensor, axes: Sequence[int] = (2, 3)) -> Tensor:
    """Give objects the numbers 1, 2, ... in the order of their labels; the background stays 0.

    Args:
        label_map: (H, W) or (D, H, W) integers, 0 is background.
        axes: the numbers of axes that are allowed.

    Returns:
        The same shape, int32.

    Raises:
        TypeError: as `check_label_map`.
        ValueError: as `check_label_map`.

    >>> relabel_sequential(torch.tensor([[7, 0, 2147483647, 2]]))
    tensor([[2, 0, 3, 1]], dtype=torch.int32)
    """
    labels = check_label_map("label_map", label_map, axes).numpy(force=True)
    if labels.max() < labels.size:  # the common case: no sorting
        present = np.bincount(labels.ravel()) > 0
        present[0] = False
        numbers = (np.cumsum(present) * present)[labels]
    else:
        names, index = np.unique(labels, return_inverse=True)
        numbers = index.reshape(labels.shape) + int(names[0] > 0)
    return torch.from_numpy(numbers.astype(np.int32, order="C")).to(label_map.device)


def relabel_by_place(labels: Tensor) -> Tensor:
    """Give objects the numbers 1, 2, ... in the order in which they occur; the background stays 0.

    Args:
        labels: integers of any shape, at least 0, 0 is background; may be empty.

    Returns:
        The same shape, int32.

    Raises:
        TypeError: not a tensor of integers.
        ValueError: a negative label.

    >>> relabel_by_place(torch.tensor([7, 7, 0, 2]))
    tensor([1, 1, 0, 2], dtype=torch.int32)
    """
    if isinstance(labels, Tensor) and labels.numel() == 0:
        return labels.int()
    check_label_map("labels", labels, shape=getattr(labels, "shape", None))
    names, first, index = np.unique(labels.numpy(force=True), return_index=True, return_inverse=True)
    rank = np.empty(len(names), np.int32)
    rank[np.where(names == 0, -1, first).argsort()] = np.arange(len(names)) + int(names[0] > 0)
    return torch.from_numpy(rank[index].reshape(tuple(labels.shape))).to(labels.device)


def drop_small_objects(label_map: Tensor, min_size: int) -> Tensor:
    """Make small objects background, and number the others 1, 2, ... in the order of their labels.

    Args:
        label_map: (H, W) or (D, H, W) integers, 0 is background.
        min_size: pixels; objects of fewer are dropped.

    Returns:
        The same shape, int32.

    Raises:
        TypeError: as `check_label_map`.
        ValueError: as `check_label_map`.

    >>> drop_small_objects(torch.tensor([[9, 4, 0, 4, 12, 12]]), 2)
    tensor([[0, 1, 0, 1, 2, 2]], dtype=torch.int32)
    """
    numbers = relabel_sequential(label_map).long()
    large = numbers.flatten().bincount() >= min_size
    large[0] = False
    return (large.cumsum(0) * large)[numbers].int()
