"""One-to-one matching of predictions with targets at minimum total cost."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from segedu.validation.tensors import check_numeric


def hungarian_matching(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Match rows with columns one to one, so that the total cost is minimal (Kuhn 1955, computed by scipy).

    The result is not differentiable.

    Args:
        cost: (N, M) finite numbers; N or M may be 0. Give a forbidden pair a large cost, and drop it from the result.

    Returns:
        Rows and columns of the min(N, M) pairs, each int64, sorted by row.

    A greedy algorithm would take the 1 first, and then have to take the 9.

    >>> hungarian_matching(torch.tensor([[1.0, 2.0], [2.0, 9.0]]))
    (tensor([0, 1]), tensor([1, 0]))
    """
    check_numeric("cost", cost, "N? M?")
    values = cost.detach().double().cpu().numpy()
    if not np.isfinite(values).all():
        raise ValueError("cost contains NaN or infinity, expected finite values")
    rows, columns = linear_sum_assignment(values)
    return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)
