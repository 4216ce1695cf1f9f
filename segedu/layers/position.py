"""Where a feature lies, as numbers that can be added to it: without them attention sees a bag of features."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_position(
    padding: Tensor, embed_dim: int, dtype: torch.dtype = torch.float32, temperature: float = 10000.0
) -> Tensor:
    """Sines and cosines of a place's row and column, from one wave over the image down to very long ones.

    The code of "Attention Is All You Need" (Vaswani et al. 2017, arXiv 1706.03762, section 3.5) for two axes, as in
    DETR (arXiv 2005.12872, appendix): half of the numbers say the row, half the column. Both are counted within
    the image, its padding left out, and divided by their last, so that an image's lower right end is always 2 pi.

    Args:
        padding: (B, h, w) bool, true for places that are no part of the image; those get numbers without a meaning.
        embed_dim: D, a multiple of 4: sine and cosine of rows and of columns.
        dtype: of the result. Half precision is computed in float32.
        temperature: the waves' lengths go from 1 towards this factor.

    Returns:
        (B, D, h, w): D / 2 numbers of the row, then as many of the column; sine and cosine in turn.

    Raises:
        TypeError: padding is not a tensor of bools.
        ValueError: padding is not (B, h, w), or embed_dim not a multiple of 4.

    Example:
        One row of two places: columns at pi and 2 pi; both are in the row at 2 pi.

        >>> sine_position(torch.zeros(1, 1, 2, dtype=torch.bool), 4)[0, :, 0].round(decimals=3).abs()
        tensor([[0., 0.],
                [1., 1.],
                [0., 0.],
                [1., 1.]])
    """
    if not isinstance(padding, Tensor) or padding.dtype != torch.bool:
        kind = f"dtype {padding.dtype}" if isinstance(padding, Tensor) else f"type {type(padding).__name__}"
        raise TypeError(f"padding has {kind}, expected a tensor of torch.bool")
    if padding.ndim != 3:
        raise ValueError(f"padding has shape {tuple(padding.shape)}, expected (B, h, w)")
    if embed_dim < 4 or embed_dim % 4:
        raise ValueError(f"embed_dim is {embed_dim}, expected a multiple of 4")
    inside = (~padding).to(torch.promote_types(dtype, torch.float32))
    half = embed_dim // 2
    lengths = temperature ** (torch.arange(0, half, 2, dtype=inside.dtype, device=inside.device) / half)  # (D / 4,)
    waves = []
    for axis in (1, 2):  # rows, columns
        place = inside.cumsum(axis)  # 1, 2, 3, ...
        last = place.narrow(axis, -1, 1)
        angle = (2 * math.pi * place / (last + 1e-6))[..., None] / lengths  # (B, h, w, D / 4)
        waves.append(torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(3))  # (B, h, w, D / 2)
    return torch.cat(waves, dim=-1).permute(0, 3, 1, 2).to(dtype)
