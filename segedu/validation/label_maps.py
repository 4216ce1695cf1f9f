"""Checks of label maps: (H, W) or (D, H, W) integers, 0 for the background and 1, 2, ... for objects."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from segedu.validation.numbers import AXES
from segedu.validation.tensors import check_integer_tensor


def check_label_map(
    name: str, label_map: Tensor, axes: Sequence[int] = (2, 3), shape: Sequence[int] | None = None
) -> Tensor:
    """Check a label map, which must not be empty.

    Args:
        axes: the allowed numbers of axes.
        shape: the expected shape, if it is known; `axes` is then ignored.

    Returns:
        The labels as int64, because torch cannot compare uint16.

    >>> import torch
    >>> check_label_map("label_map", torch.tensor([[0, 3]], dtype=torch.uint16))
    tensor([[0, 3]])
    """
    check_integer_tensor(name, label_map)
    fits = label_map.ndim in axes if shape is None else label_map.shape == tuple(shape)
    if not fits or 0 in label_map.shape:
        expected = " or ".join(AXES[n] for n in axes) if shape is None else tuple(shape)
        raise ValueError(f"{name} has shape {tuple(label_map.shape)}, expected {expected}, no axis empty")
    labels = label_map.long()
    if labels.min() < 0:
        raise ValueError(f"{name} has the label {int(labels.min())}, expected 0 for background and more for objects")
    return labels
