"""Boundary F1: how well the contours of two masks agree (Csurka et al., BMVC 2013; Martin et al., 2004)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor

from segedu.metrics.confusion import as_mask, mask_pair


def boundary_f1(preds: Tensor | np.ndarray, target: Tensor | np.ndarray, tolerance: float) -> float:
    """F1 of the boundary pixels of two masks.

    1. The boundary of a mask is its pixels that have an outside pixel above, below, left or right. The edge
       of the image is no boundary: what lies beyond it is unknown.
    2. Precision is the share of predicted boundary pixels at most ``tolerance`` pixels away, in a straight
       line, from a true one. Recall is the same with the roles exchanged.
    3. F1 is ``2 P R / (P + R)``, and 0 where P and R are 0.
    4. Neither mask has a boundary: 1. Only one has: 0.

    Args:
        preds: (H, W) predicted mask, bool (or 0 and 1).
        target: (H, W) true mask.
        tolerance: radius in pixels, at least 0.

    Returns:
        A number in [0, 1]. An empty mask has no boundary, and a mask that fills the image has none either.

    Raises:
        TypeError: a mask is not an array of bools or integers, or ``tolerance`` is not a number.
        ValueError: the shapes differ or are not (H, W), a mask has other values than 0 and 1, or
            ``tolerance`` is negative or NaN.

    Example:
        Two 2x2 squares, one column apart: the two columns of each are 1 and 0, or 0 and 1 pixels away.

        >>> a, b = torch.zeros(6, 6, dtype=torch.bool), torch.zeros(6, 6, dtype=torch.bool)
        >>> a[2:4, 1:3] = True
        >>> b[2:4, 2:4] = True
        >>> boundary_f1(a, b, tolerance=0), boundary_f1(a, b, tolerance=1)
        (0.5, 1.0)
    """
    preds, target = mask_pair(preds, target)
    if target.ndim != 2:
        raise ValueError(f"target has shape {tuple(target.shape)}, expected (H, W)")
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float | np.number):
        raise TypeError(f"tolerance is a {type(tolerance).__name__}, expected a number of pixels")
    if not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance}, expected at least 0 pixels")
    predicted, true = mask_boundary(preds).numpy(), mask_boundary(target).numpy()
    if not predicted.any() or not true.any():
        return 1.0 if predicted.any() == true.any() else 0.0
    precision = (_distance_to(true)[predicted] <= tolerance).mean()
    recall = (_distance_to(predicted)[true] <= tolerance).mean()
    total = precision + recall
    return float(2 * precision * recall / total) if total else 0.0


def mask_boundary(mask: Tensor | np.ndarray) -> Tensor:
    """The pixels of a mask that have an outside pixel above, below, left or right.

    Args:
        mask: (H, W), bool (or 0 and 1).

    Returns:
        (H, W) bool on the CPU. Beyond the edge of the image nothing counts as outside.

    Raises:
        TypeError: the mask is not an array of bools or integers.
        ValueError: the shape is not (H, W), or there are other values than 0 and 1.

    Example:
        >>> mask_boundary(torch.tensor([[1, 1, 1], [1, 1, 1], [0, 0, 0]])).int().tolist()
        [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    """
    mask = as_mask(mask)
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, expected (H, W)")
    pixels = mask.cpu().numpy()
    # border_value=1: beyond the image counts as inside, so the edge of the image is no boundary
    inner = binary_erosion(pixels, border_value=1) if pixels.size else pixels
    return torch.from_numpy(pixels & ~inner)


def _distance_to(boundary: np.ndarray) -> np.ndarray:
    """Straight distance of every pixel to the nearest boundary pixel."""
    return distance_transform_edt(~boundary)
