"""Measures of the contour of a mask: boundary F1, boundary IoU, and distances between surfaces.

The papers differ in what a contour is, and the numbers follow:

- ``boundary_f1`` (Csurka et al., BMVC 2013; Martin et al., 2004): pixels with a neighbour outside; the edge of the
  image is no boundary, as nobody knows what lies beyond it.
- ``boundary_iou`` (Cheng et al., CVPR 2021): a band inside the mask; beyond the image counts as outside.
- ``hausdorff_distance_95``, ``average_surface_distance`` (Heimann et al., IEEE TMI 2009): the pixels of
  ``boundary_f1``, but beyond the image counts as outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import binary_erosion, distance_transform_cdt, distance_transform_edt
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
    _check_number(tolerance, "tolerance", "pixels")
    if not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance}, expected at least 0 pixels")
    predicted, true = mask_boundary(preds).numpy(), mask_boundary(target).numpy()
    if not predicted.any() or not true.any():
        return 1.0 if predicted.any() == true.any() else 0.0
    precision = (_distance_to(true)[predicted] <= tolerance).mean()
    recall = (_distance_to(predicted)[true] <= tolerance).mean()
    total = precision + recall
    return float(2 * precision * recall / total) if total else 0.0


def boundary_iou(preds: Tensor | np.ndarray, target: Tensor | np.ndarray, dilation_ratio: float = 0.02) -> float:
    """IoU of the inner bands along the contours of two masks (Cheng et al., CVPR 2021, arXiv 2103.16562, eq. 2).

    The band of a mask is its pixels at most d steps away from the outside, a step going to any of the 8 neighbours.
    For large objects the IoU hardly sees the contour; this measure sees nothing else.

    Args:
        preds: (H, W) predicted mask, bool (or 0 and 1).
        target: (H, W) true mask.
        dilation_ratio: d as a part of the image's diagonal, rounded, at least 1 pixel.

    Returns:
        A number in [0, 1]. Two empty masks agree: 1.

    Raises:
        TypeError: a mask is not an array of bools or integers, or ``dilation_ratio`` is not a number.
        ValueError: the shapes differ or are not (H, W), a mask has other values than 0 and 1, or
            ``dilation_ratio`` is not positive and finite.

    Example:
        A 5x5 and a 5x4 square: d is 1, the bands have 16 and 14 pixels, and 5 + 3 + 3 of them in common.

        >>> a = torch.zeros(8, 8, dtype=torch.bool)
        >>> a[1:6, 1:6] = True
        >>> b = a.clone()
        >>> b[:, 5] = False
        >>> boundary_iou(a, b) == 11 / 19
        True
    """
    preds, target = mask_pair(preds, target)
    if target.ndim != 2:
        raise ValueError(f"target has shape {tuple(target.shape)}, expected (H, W)")
    _check_number(dilation_ratio, "dilation_ratio", "a part of the diagonal")
    if not 0 < dilation_ratio < math.inf:
        raise ValueError(f"dilation_ratio is {dilation_ratio}, expected a positive number")
    width = max(1, round(dilation_ratio * math.hypot(*target.shape)))
    bands = [_band(mask.cpu().numpy(), width) for mask in (preds, target)]
    union = int((bands[0] | bands[1]).sum())
    return int((bands[0] & bands[1]).sum()) / union if union else 1.0


def hausdorff_distance_95(
    preds: Tensor | np.ndarray, target: Tensor | np.ndarray, spacing: float | Sequence[float] = 1.0
) -> float:
    """The distance within which 95 % of each surface lies from the other.

    From every surface pixel of one mask the distance to the nearest one of the other; the 95th percentile (linear
    interpolation) of these, and the same with the roles exchanged; the larger of the two. The maximum in place of
    the percentile would be the Hausdorff distance, which a single stray pixel decides.

    Args:
        preds: (H, W) or (D, H, W) predicted mask, bool (or 0 and 1).
        target: true mask, the same shape.
        spacing: size of a pixel, one number or one for each axis.

    Returns:
        A number of at least 0 in the units of ``spacing``. Two empty masks: 0. Only one is empty: infinity.

    Raises:
        TypeError: a mask is not an array of bools or integers, or ``spacing`` is not a number or numbers.
        ValueError: the shapes differ or are not (H, W) or (D, H, W), a mask has other values than 0 and 1, or
            ``spacing`` is not one positive number for each axis.

    Example:
        >>> a, b = torch.zeros(5, 9, dtype=torch.bool), torch.zeros(5, 9, dtype=torch.bool)
        >>> a[1, 1], b[1, 4] = True, True
        >>> hausdorff_distance_95(a, b), hausdorff_distance_95(a, b, spacing=(1.0, 0.5))
        (3.0, 1.5)
    """
    distances = _surface_distances(preds, target, spacing)
    if distances is None:
        return 0.0
    return float(max(np.percentile(d, 95) if len(d) and np.isfinite(d).all() else math.inf for d in distances))


def average_surface_distance(
    preds: Tensor | np.ndarray, target: Tensor | np.ndarray, spacing: float | Sequence[float] = 1.0
) -> float:
    """The mean distance of the surface pixels of both masks to the other surface (symmetric, Heimann et al.).

    Args:
        preds: (H, W) or (D, H, W) predicted mask, bool (or 0 and 1).
        target: true mask, the same shape.
        spacing: size of a pixel, one number or one for each axis.

    Returns:
        A number of at least 0 in the units of ``spacing``. Two empty masks: 0. Only one is empty: infinity.

    Raises:
        TypeError: see ``hausdorff_distance_95``.
        ValueError: see ``hausdorff_distance_95``.

    Example:
        The two pixels of b are 0 and 2 away from that of a, and that of a is 0 away from b.

        >>> a, b = torch.zeros(3, 5, dtype=torch.bool), torch.zeros(3, 5, dtype=torch.bool)
        >>> a[1, 1], b[1, 1], b[1, 3] = True, True, True
        >>> round(average_surface_distance(a, b), 4)
        0.6667
    """
    distances = _surface_distances(preds, target, spacing)
    return 0.0 if distances is None else float(np.concatenate(distances).mean())


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


def _distance_to(boundary: np.ndarray, sizes: Sequence[float] | None = None) -> np.ndarray:
    """Straight distance of every pixel to the nearest boundary pixel."""
    return distance_transform_edt(~boundary, sampling=sizes)


def _band(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of the mask at most ``width`` steps from the outside: the mask without its ``width`` times erosion."""
    padded = np.pad(mask, 1)  # beyond the image is outside
    return mask & (distance_transform_cdt(padded, "chessboard")[1:-1, 1:-1] <= width)


def _surface_distances(
    preds: Tensor | np.ndarray, target: Tensor | np.ndarray, spacing: float | Sequence[float]
) -> list[np.ndarray] | None:
    """From each surface pixel of one mask to the other surface, both ways; None if both masks are empty."""
    preds, target = (mask.cpu().numpy() for mask in mask_pair(preds, target))
    if target.ndim not in (2, 3):
        raise ValueError(f"target has shape {target.shape}, expected (H, W) or (D, H, W)")
    sizes = _sizes(spacing, target.ndim)
    if not preds.any() and not target.any():
        return None
    # Nothing outside the box around both masks is near a surface: leave it out.
    places = np.nonzero(preds | target)
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in places)
    surfaces = [mask[box] & ~binary_erosion(mask[box]) for mask in (preds, target)]
    distances = []
    for here, there in (surfaces, surfaces[::-1]):
        far = _distance_to(there, sizes) if there.any() else np.full(there.shape, np.inf)
        distances.append(far[here])
    return distances


def _sizes(spacing: float | Sequence[float], axes: int) -> list[float]:
    several = isinstance(spacing, list | tuple | np.ndarray)
    values = list(spacing) if several else [spacing] * axes
    for value in values:
        _check_number(value, "spacing", "the size of a pixel")
    if len(values) != axes or not all(0 < value < math.inf for value in values):
        raise ValueError(f"spacing is {spacing}, expected one positive number, or {axes}")
    return [float(value) for value in values]


def _check_number(value: float, name: str, of_what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} has type {type(value).__name__}, expected a number ({of_what})")
