"""Distances of pixels to the boundary of a class, as constant weights for losses; they carry no gradient."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor


def distance_inside(masks: Tensor, elsewhere: Tensor | None = None) -> Tensor:
    """Euclidean distance of each pixel of a mask to the nearest pixel outside it, 0 outside.

    Args:
        masks: (..., H, W) bool with at least two leading axes; (B, K, D, H, W) for volumes.
        elsewhere: the same shape, bool, the pixels outside; ``~masks`` by default. Pixels in neither (ignored ones)
            form no boundary: distances are measured across them.

    Returns:
        float64, the shape of ``masks``, on its device; 0 everywhere in a mask without an outside.

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
    """Signed distance to the boundary of a mask: positive outside, at most 0 inside, 0 on the pixels at the inner edge.

    Paper: the distance is between continuous contours. On pixels, Kervadec et al. (and MONAI) measure between pixel
    centres: the first pixel outside is at 1, the first inside at 0, the second inside at -1.

    Args:
        inside: (B, K, H, W) bool.
        outside: the same shape, bool, disjoint from ``inside``.

    Returns:
        float64, the shape of ``inside``; 0 for a mask that is empty or has no outside, and for pixels in neither mask.

    Example:
        >>> mask = torch.tensor([[[[False, False, True, True]]]])
        >>> signed_distance(mask, ~mask)
        tensor([[[[ 2.,  1.,  0., -1.]]]], dtype=torch.float64)
    """
    depth = distance_inside(inside, outside)
    return distance_inside(outside, inside) - torch.where(depth > 0, depth - 1, 0)
