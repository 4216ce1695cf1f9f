"""One-to-one matching of predictions with targets at the least total cost."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def hungarian_matching(cost: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs (row, column) whose costs have the least sum, each row and column used at most once.

    ``min(N, M)`` pairs come back. No gradient flows through the choice. Kuhn 1955; the algorithm is scipy's.

    Args:
        cost: (N, M) finite numbers; N or M may be 0. A pair that must not be made gets a large cost and is
            dropped by the caller.

    Returns:
        rows and columns, each (min(N, M),) int64, rows in order.

    Raises:
        TypeError: ``cost`` is not a tensor of numbers.
        ValueError: the shape is not (N, M), or a cost is not finite.

    Example:
        Greedy would take the 1 first and then pay 9.

        >>> hungarian_matching(torch.tensor([[1.0, 2.0], [2.0, 9.0]]))
        (tensor([0, 1]), tensor([1, 0]))
    """
    if not isinstance(cost, Tensor) or cost.dtype == torch.bool or cost.is_complex():
        kind = f"dtype {cost.dtype}" if isinstance(cost, Tensor) else f"type {type(cost).__name__}"
        raise TypeError(f"cost has {kind}, expected a tensor of numbers of shape (N, M)")
    if cost.ndim != 2:
        raise ValueError(f"cost has shape {tuple(cost.shape)}, expected (N, M)")
    values = cost.detach().double().cpu().numpy()
    if not np.isfinite(values).all():
        raise ValueError("cost has a NaN or an infinity, expected finite numbers")
    rows, columns = linear_sum_assignment(values)
    return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)
