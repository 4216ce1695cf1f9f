"""Upsampling of features to the size of the image, with one of two rules for their positions in it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from segedu.validation.numbers import check_integer
from segedu.validation.tensors import check_tensor


def upsample_to(features: Tensor, images: Tensor, align_corners: bool = False) -> Tensor:
    """Interpolate features bilinearly to the height and width of images.

    Args:
        features: (B, C, h, w).
        images: (..., H, W); only their size is used.
        align_corners: False: each feature covers an area of the image, all of one size. True: features are points, and
            those in the corners lie on the corner pixels.

    Returns:
        (B, C, H, W).

    >>> upsample_to(Tensor([[[[0, 4]]]]), Tensor([[0, 0, 0, 0]]))
    tensor([[[[0., 1., 3., 4.]]]])
    """
    check_tensor("features", features, "B C h w")
    return F.interpolate(features, size=images.shape[-2:], mode="bilinear", align_corners=align_corners)


def upsample_from_corner(features: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Interpolate features bilinearly if the feature (i, j) lies on the pixel (stride * i, stride * j).

    These are the positions in networks whose strided layers all have an odd kernel k and padding k // 2. Below the last
    row and right of the last column, the last feature is repeated.

    Args:
        features: (B, C, h, w).
        stride: distance between two features in pixels.
        size: H and W, with h = ceil(H / stride) and w = ceil(W / stride).

    Returns:
        (B, C, H, W); its [..., ::stride, ::stride] are the features.

    >>> upsample_from_corner(Tensor([[[[0, 4]]]]), 2, (1, 4))
    tensor([[[[0., 2., 4., 4.]]]])
    """
    check_tensor("features", features, "B C h w")
    h, w = features.shape[-2:]
    if stride < 1 or (h, w) != tuple(-(-pixels // stride) for pixels in size):
        raise ValueError(
            f"features has shape {tuple(features.shape)}, expected one feature for each {stride} of {size} pixels"
        )
    padded = F.pad(features, (0, 1, 0, 1), mode="replicate")
    # with align_corners=True, two features are exactly `stride` pixels apart
    grid = F.interpolate(padded, size=(stride * h + 1, stride * w + 1), mode="bilinear", align_corners=True)
    return grid[..., : size[0], : size[1]]


def at_corners(logits: Tensor, target: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Take the rows and columns 0, stride, 2 stride, ... of logits and target, the inverse of `upsample_from_corner`.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W).
        stride: distance between two locations in pixels.

    Returns:
        Logits (B, K, h, w) and target (B, h, w).
    """
    check_integer("stride", stride)
    # Sizes are compared before subsampling: every eighth of 15 and of 16 rows are two rows each.
    if target.ndim < 2 or target.shape[-2:] != logits.shape[-2:]:
        size = tuple(logits.shape[-2:])
        raise ValueError(f"target has shape {tuple(target.shape)}, expected (B, H, W) with H, W = {size} as logits has")
    return logits[..., ::stride, ::stride], target[..., ::stride, ::stride]
