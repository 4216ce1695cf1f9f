"""From logits to labels: the last step of every network that classifies pixels."""

from __future__ import annotations

from torch import Tensor


def highest_class(logits: Tensor) -> Tensor:
    """Take the class with the highest logit at each pixel, the lowest such class where several are equal.

    Args:
        logits: (B, K, H, W), or (B, K, D, H, W) of volumes.

    Returns:
        Labels (B, H, W) or (B, D, H, W), int64.

    Raises:
        TypeError: not a tensor.
        ValueError: `logits` has another shape or no class.

    >>> import torch
    >>> highest_class(torch.tensor([[[[0.0, 2.0]], [[1.0, 2.0]]]]))
    tensor([[[1, 0]]])
    """
    if not isinstance(logits, Tensor):
        raise TypeError(f"logits has type {type(logits).__name__}, expected a Tensor")
    if logits.ndim not in (4, 5) or logits.shape[1] == 0:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)}, expected (B, K, H, W) or (B, K, D, H, W) with K >= 1"
        )
    return logits.argmax(dim=1)
