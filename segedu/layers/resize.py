"""Enlarging features whose places are known in the image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def upsample_from_corner(features: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation where the feature in row i and column j belongs to the pixel (stride * i, stride * j).

    That is where networks have them whose strided layers all have an odd kernel k and padding k // 2. Below the
    last row and right of the last column the last feature is repeated.

    Args:
        features: (B, C, h, w).
        stride: distance of two features in pixels.
        size: H and W, such as h = ceil(H / stride) and w = ceil(W / stride).

    Returns:
        (B, C, H, W); its [..., ::stride, ::stride] are the features.

    Raises:
        ValueError: `size` and `stride` do not fit the features.

    >>> upsample_from_corner(Tensor([[[[0, 4]]]]), 2, (1, 4))
    tensor([[[[0., 2., 4., 4.]]]])
    """
    h, w = features.shape[-2:]
    if stride < 1 or (h, w) != tuple(-(-pixels // stride) for pixels in size):
        raise ValueError(
            f"features has shape {tuple(features.shape)}, expected one feature for each {stride} of {size} pixels"
        )
    padded = F.pad(features, (0, 1, 0, 1), mode="replicate")
    # with the corners on the corners, two features are exactly `stride` pixels apart
    grid = F.interpolate(padded, size=(stride * h + 1, stride * w + 1), mode="bilinear", align_corners=True)
    return grid[..., : size[0], : size[1]]
