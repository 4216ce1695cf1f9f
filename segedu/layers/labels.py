"""From logits to labels: the last step of every network that classifies pixels."""

from __future__ import annotations

from torch import Tensor

from segedu.validation.tensors import check_tensor


def highest_class(logits: Tensor) -> Tensor:
    """The class with the highest logit of each pixel; of equal logits, the lowest class.

    Args:
        logits: (B, K, H, W), or (B, K, D, H, W) for volumes.

    Returns:
        Labels (B, H, W) or (B, D, H, W), int64.

    >>> import torch
    >>> highest_class(torch.tensor([[[[0.0, 2.0]], [[1.0, 2.0]]]]))
    tensor([[[1, 0]]])
    """
    check_tensor("logits", logits)
    if logits.ndim not in (4, 5) or logits.shape[1] == 0:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)}, expected (B, K, H, W) or (B, K, D, H, W) with K >= 1"
        )
    return logits.argmax(dim=1)
