"""Metrics of the contours of masks: boundary F1, boundary IoU, and distances between surfaces.

The papers define a contour in different ways, so the values of their metrics differ:

- `boundary_f1` (Csurka et al., BMVC 2013; Martin et al., 2004): pixels with a neighbour outside the mask; the edge of
  the image is not a boundary, because it is unknown what lies beyond it.
- `boundary_iou` (Cheng et al., CVPR 2021): a band inside the mask; positions beyond the image count as
  outside the mask.
- `hausdorff_distance_95`, `average_surface_distance` (Heimann et al., IEEE TMI 2009): the pixels of `boundary_f1`, but
  positions beyond the image count as outside the mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import binary_erosion, distance_transform_cdt, distance_transform_edt
from torch import Tensor

from segedu.metrics.confusion import as_mask, mask_pair
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_tensor


def boundary_f1(preds: Tensor | np.ndarray, target: Tensor | np.ndarray, tolerance: float) -> float:
    """F1 of the boundary pixels of two masks.

    1. The boundary of a mask consists of its pixels that have a pixel outside the mask above, below, left or right. The
       edge of the image is not a boundary.
    2. Precision is the fraction of predicted boundary pixels whose Euclidean distance to a ground-truth boundary pixel
       is at most `tolerance`. Recall is the same with the roles exchanged.
    3. F1 is ``2 P R / (P + R)``, and 0 if P and R are 0.
    4. If neither mask has a boundary, the result is 1; if only one has, it is 0.

    Args:
        preds: (H, W) predicted mask, bool (or 0 and 1).
        target: (H, W) ground-truth mask.
        tolerance: pixels, at least 0; may be infinite.

    Returns:
        A number in [0, 1]. Neither an empty mask nor a mask that fills the image has a boundary.

    Two 2x2 squares, shifted by one column: one column of each is 1 pixel away from the other square, and one is 0.

    >>> a, b = torch.zeros(6, 6, dtype=torch.bool), torch.zeros(6, 6, dtype=torch.bool)
    >>> a[2:4, 1:3] = True
    >>> b[2:4, 2:4] = True
    >>> boundary_f1(a, b, tolerance=0), boundary_f1(a, b, tolerance=1)
    (0.5, 1.0)
    """
    preds, target = mask_pair(preds, target)
    check_tensor("target", target, "H? W?")
    _check_tolerance(tolerance)
    pred_boundary, gt_boundary = mask_boundary(preds).numpy(), mask_boundary(target).numpy()
    if not pred_boundary.any() or not gt_boundary.any():
        return 1.0 if pred_boundary.any() == gt_boundary.any() else 0.0
    precision = (_distance_to(gt_boundary)[pred_boundary] <= tolerance).mean()
    recall = (_distance_to(pred_boundary)[gt_boundary] <= tolerance).mean()
    total = precision + recall
    return float(2 * precision * recall / total) if total else 0.0


def boundary_iou(preds: Tensor | np.ndarray, target: Tensor | np.ndarray, dilation_ratio: float = 0.02) -> float:
    """IoU of the inner bands along the contours of two masks (Cheng et al., CVPR 2021, arXiv 2103.16562, eq. 2).

    The band of a mask is its pixels at most d steps away from the outside; a step goes to any of the 8 neighbours.
    The mask IoU of a large object hardly depends on its contour. The boundary IoU depends only on the contour.

    Args:
        preds: (H, W) predicted mask, bool (or 0 and 1).
        target: (H, W) ground-truth mask.
        dilation_ratio: d relative to the image's diagonal; d is rounded, and at least 1 pixel.

    Returns:
        A number in [0, 1]; 1 if both masks are empty.

    A 5x5 and a 5x4 square: d is 1, the bands have 16 and 14 pixels, and 5 + 3 + 3 of them in common.

    >>> a = torch.zeros(8, 8, dtype=torch.bool)
    >>> a[1:6, 1:6] = True
    >>> b = a.clone()
    >>> b[:, 5] = False
    >>> boundary_iou(a, b) == 11 / 19
    True
    """
    preds, target = mask_pair(preds, target)
    check_tensor("target", target, "H? W?")
    check_number("dilation_ratio", dilation_ratio, exclusive=True)
    width = max(1, round(dilation_ratio * math.hypot(*target.shape)))
    bands = [_band(mask.cpu().numpy(), width) for mask in (preds, target)]
    union = int((bands[0] | bands[1]).sum())
    return int((bands[0] & bands[1]).sum()) / union if union else 1.0


def hausdorff_distance_95(
    preds: Tensor | np.ndarray, target: Tensor | np.ndarray, spacing: float | Sequence[float] = 1.0
) -> float:
    """95th percentile of the distances between two surfaces.

    Compute the distance of every surface pixel of one mask to the nearest surface pixel of the other, and the 95th
    percentile (linear interpolation) of these distances; do the same with the roles exchanged; take the larger one.
    With the maximum instead of the percentile, this is the Hausdorff distance, which a single outlier can determine.

    Args:
        preds: (H, W) or (D, H, W) predicted mask, bool (or 0 and 1).
        target: ground-truth mask, the same shape.
        spacing: size of a pixel, one value for all axes or one per axis.

    Returns:
        A number of at least 0 in the units of `spacing`; 0 if both masks are empty, infinity if only one is.

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
    """Mean distance of the surface pixels of both masks to the other surface (symmetric, Heimann et al.).

    Arguments as for `hausdorff_distance_95`.

    Returns:
        A number of at least 0 in the units of `spacing`; 0 if both masks are empty, infinity if only one is.

    The two pixels of b are 0 and 2 away from the pixel of a, which is 0 away from b.

    >>> a, b = torch.zeros(3, 5, dtype=torch.bool), torch.zeros(3, 5, dtype=torch.bool)
    >>> a[1, 1], b[1, 1], b[1, 3] = True, True, True
    >>> round(average_surface_distance(a, b), 4)
    0.6667
    """
    distances = _surface_distances(preds, target, spacing)
    return 0.0 if distances is None else float(np.concatenate(distances).mean())


def mask_boundary(mask: Tensor | np.ndarray) -> Tensor:
    """Find the boundary pixels of a mask: those with a pixel outside the mask above, below, left or right.

    Args:
        mask: (H, W), bool (or 0 and 1).

    Returns:
        (H, W) bool on the CPU. The edge of the image is not a boundary.

    >>> mask_boundary(torch.tensor([[1, 1, 1], [1, 1, 1], [0, 0, 0]])).int().tolist()
    [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    """
    mask = as_mask(mask)
    check_tensor("mask", mask, "H? W?")
    pixels = mask.cpu().numpy()
    # border_value=1: positions beyond the image count as inside, so the edge of the image is not a boundary
    inner = binary_erosion(pixels, border_value=1) if pixels.size else pixels
    return torch.from_numpy(pixels & ~inner)


def _distance_to(boundary: np.ndarray, sizes: Sequence[float] | None = None) -> np.ndarray:
    """Euclidean distance of every pixel to the nearest boundary pixel."""
    return distance_transform_edt(~boundary, sampling=sizes)


def _band(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of the mask at most `width` steps from the outside: the mask minus its erosion by `width` steps."""
    padded = np.pad(mask, 1)  # positions beyond the image count as outside the mask
    return mask & (distance_transform_cdt(padded, "chessboard")[1:-1, 1:-1] <= width)


def _surface_distances(
    preds: Tensor | np.ndarray, target: Tensor | np.ndarray, spacing: float | Sequence[float]
) -> list[np.ndarray] | None:
    """Distances of the surface pixels of each mask to the other surface; None if both masks are empty."""
    preds, target = (mask.cpu().numpy() for mask in mask_pair(preds, target))
    if target.ndim not in (2, 3):
        raise ValueError(f"target has shape {target.shape}, expected (H, W) or (D, H, W)")
    sizes = _sizes(spacing, target.ndim)
    if not preds.any() and not target.any():
        return None
    # Crop both masks to their common bounding box, outside which there is no surface.
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in np.nonzero(preds | target))
    surfaces = [mask[box] & ~binary_erosion(mask[box]) for mask in (preds, target)]
    distances = []
    for surface, other in (surfaces, surfaces[::-1]):
        distance = _distance_to(other, sizes) if other.any() else np.full(other.shape, np.inf)
        distances.append(distance[surface])
    return distances


def _sizes(spacing: float | Sequence[float], axes: int) -> list[float]:
    is_sequence = isinstance(spacing, list | tuple | np.ndarray)
    if is_sequence and len(spacing) != axes:
        raise ValueError(f"spacing is {spacing}, expected one number, or {axes}")
    return [check_number("spacing", value, exclusive=True) for value in (spacing if is_sequence else [spacing] * axes)]


def _check_tolerance(tolerance: float) -> None:
    if tolerance != math.inf:
        check_number("tolerance", tolerance)
