"""Distances of pixels to the boundary of a class, as fixed weights for losses (no gradient flows through them)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor


def distance_inside(masks: Tensor, elsewhere: Tensor | None = None) -> Tensor:
    """Euclidean distance of each pixel of a mask to the nearest pixel outside it, 0 outside.

    Args:
        masks: (..., H, W) bool; (B, K, D, H, W) for volumes: ``masks`` has at least two leading axes.
        elsewhere: the same shape, bool: what counts as outside; ``~masks`` by default. Pixels in neither (ignored
            ones) are no boundary: the distance goes past them.

    Returns:
        float64, the shape of ``masks``, on its device; 0 everywhere in a mask that has no outside.

    Example:
        >>> distance_inside(torch.tensor([[[[False, True, True, True]]]]))
        tensor([[[[0., 1., 2., 3.]]]], dtype=torch.float64)
    """
    inside = masks.detach().cpu().numpy()
    outside = ~inside if elsewhere is None else elsewhere.detach().cpu().numpy()
    distance = np.zeros(inside.shape)
    for image in np.ndindex(inside.shape[:2]):
        if inside[image].any() and outside[image].any():
            distance[image] = np.where(inside[image], distance_transform_edt(~outside[image]), 0)
    return torch.from_numpy(distance).to(masks.device)


def signed_distance(inside: Tensor, outside: Tensor) -> Tensor:
    """Distance to the boundary of a mask: above 0 outside, at most 0 inside, 0 on the pixels at the inner edge.

    Paper: the distance is between continuous contours. On pixels Kervadec et al. (and MONAI) measure between the
    centres of pixels: the first pixel outside is at 1, the first inside at 0, the second inside at -1.

    Args:
        inside: (B, K, H, W) bool.
        outside: the same shape, bool, disjoint from ``inside``.

    Returns:
        float64, the shape of ``inside``; 0 for a mask that is empty or has no outside, and in neither mask.

    Example:
        >>> mask = torch.tensor([[[[False, False, True, True]]]])
        >>> signed_distance(mask, ~mask)
        tensor([[[[ 2.,  1.,  0., -1.]]]], dtype=torch.float64)
    """
    within = distance_inside(inside, outside)
    return distance_inside(outside, inside) - torch.where(within > 0, within - 1, 0)
