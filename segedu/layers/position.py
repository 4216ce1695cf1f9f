"""Position encodings, without which attention treats features as an unordered set."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segedu.validation.tensors import check_dtype


def sine_position(
    padding: Tensor, embed_dim: int, dtype: torch.dtype = torch.float32, temperature: float = 10000.0
) -> Tensor:
    """Sine and cosine encoding of the row and column of each location.

    The code of "Attention Is All You Need" (Vaswani et al. 2017, arXiv 1706.03762, section 3.5) for two axes, as in
    DETR (arXiv 2005.12872, appendix): half of the channels encode the row, half the column. Both are counted inside the
    image, without its padding, and divided by the last row and column, so the lower right corner of an image is always
    at 2 pi.

    Args:
        padding: (B, h, w) bool, True for padding, whose encoding has no meaning.
        embed_dim: D, a multiple of 4: sine and cosine of rows and of columns.
        dtype: of the result. Half precision is computed in float32.
        temperature: the wavelengths increase from 1 towards this factor.

    Returns:
        (B, D, h, w): D / 2 channels of the row, then as many of the column, alternating sine and cosine.

    Example:
        One row of two locations: the columns are at pi and 2 pi, the row is at 2 pi.

        >>> sine_position(torch.zeros(1, 1, 2, dtype=torch.bool), 4)[0, :, 0].round(decimals=3).abs()
        tensor([[0., 0.],
                [1., 1.],
                [0., 0.],
                [1., 1.]])
    """
    check_dtype("padding", padding, torch.bool, "B? h? w?")
    if embed_dim < 4 or embed_dim % 4:  # not check_multiple: while a program is traced, a shape is not an integer
        raise ValueError(f"embed_dim is {embed_dim}, expected a multiple of 4")
    inside = (~padding).to(torch.promote_types(dtype, torch.float32))
    half = embed_dim // 2
    wavelengths = temperature ** (torch.arange(0, half, 2, dtype=inside.dtype, device=inside.device) / half)  # (D / 4,)
    waves = []
    for axis in (1, 2):  # rows, columns
        index = inside.cumsum(axis)  # 1, 2, 3, ...
        last = index.narrow(axis, -1, 1)
        angle = (2 * math.pi * index / (last + 1e-6))[..., None] / wavelengths  # (B, h, w, D / 4)
        waves.append(torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(3))  # (B, h, w, D / 2)
    return torch.cat(waves, dim=-1).permute(0, 3, 1, 2).to(dtype)
