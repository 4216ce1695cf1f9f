"""Enlarging features to the size of the image, by one of the two rules for where they lie in it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def upsample_to(features: Tensor, images: Tensor, align_corners: bool = False) -> Tensor:
    """Bilinear interpolation to the height and width of images.

    Args:
        features: (B, C, h, w).
        images: (..., H, W); only their size is looked at.
        align_corners: False: each feature is an area of the image, all of one size. True: features are points, and
            those in the corners lie on the corner pixels.

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: `features` has another number of axes, or an empty one.

    >>> upsample_to(Tensor([[[[0, 4]]]]), Tensor([[0, 0, 0, 0]]))
    tensor([[[[0., 1., 3., 4.]]]])
    """
    _check_features(features)
    return F.interpolate(features, size=images.shape[-2:], mode="bilinear", align_corners=align_corners)


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
    _check_features(features)
    h, w = features.shape[-2:]
    if stride < 1 or (h, w) != tuple(-(-pixels // stride) for pixels in size):
        raise ValueError(
            f"features has shape {tuple(features.shape)}, expected one feature for each {stride} of {size} pixels"
        )
    padded = F.pad(features, (0, 1, 0, 1), mode="replicate")
    # with the corners on the corners, two features are exactly `stride` pixels apart
    grid = F.interpolate(padded, size=(stride * h + 1, stride * w + 1), mode="bilinear", align_corners=True)
    return grid[..., : size[0], : size[1]]


def at_corners(logits: Tensor, target: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Every so many rows and columns of both: the places of the features that `upsample_from_corner` enlarged.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W).
        stride: distance of two places in pixels.

    Returns:
        Logits (B, K, h, w) and target (B, h, w).

    Raises:
        ValueError: `stride` is below 1, or the sizes differ.
    """
    if stride < 1:
        raise ValueError(f"stride is {stride}, expected at least 1")
    # of 15 and of 16 rows every eighth are two: later, nobody would see that they differ
    if target.ndim < 2 or target.shape[-2:] != logits.shape[-2:]:
        size = tuple(logits.shape[-2:])
        raise ValueError(f"target has shape {tuple(target.shape)}, expected (B, H, W) with H, W = {size} as logits has")
    return logits[..., ::stride, ::stride], target[..., ::stride, ::stride]


def _check_features(features: Tensor) -> None:
    if features.ndim != 4 or 0 in features.shape:
        raise ValueError(f"features has shape {tuple(features.shape)}, expected (B, C, h, w) with no empty axis")
