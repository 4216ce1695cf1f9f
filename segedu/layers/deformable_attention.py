"""Multi-scale deformable attention: each query samples a few learnt locations on every scale.

Zhu, Su, Lu, Li, Wang, Dai, "Deformable DETR", ICLR 2021, arXiv 2010.04159, section 4.1 and equation 3. The cost of
attention among all locations of three scales grows with the square of their number. Here a linear map of the query
predicts P sampling offsets around a reference point on each scale, and an attention weight for each; there are no keys.
Written in plain torch, without a kernel of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.validation.images import Size
from segedu.validation.numbers import check_integers, check_multiple


class DeformableAttention(nn.Module):
    """Attention to `points` sampling locations per head and scale; keys of the state dict are the authors'.

    Args:
        embed_dim: D of the queries, a multiple of num_heads.
        num_heads: number of heads, each with D / num_heads channels and its own sampling locations.
        levels: number of scales.
        points: P, sampling locations per head and scale.
    """

    def __init__(self, embed_dim: int, num_heads: int, levels: int, points: int = 4) -> None:
        super().__init__()
        check_multiple("embed_dim", embed_dim, num_heads, of="num_heads")
        check_integers(levels=levels, points=points)
        self.num_heads, self.levels, self.points = num_heads, levels, points
        self.sampling_offsets = nn.Linear(embed_dim, num_heads * levels * points * 2)
        self.attention_weights = nn.Linear(embed_dim, num_heads * levels * points)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self._init()

    def _init(self) -> None:
        """Head m starts with offsets of 1, 2, ..., P cells in direction 2 pi m / heads, all with the same weight."""
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)  # (heads, 2)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)  # on the border of a square
        offsets = directions[:, None, None] * torch.arange(1, self.points + 1)[:, None]  # (heads, 1, P, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, references: Tensor, tokens: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Sample the tokens around the reference point of each query.

        Args:
            queries: (B, L, D).
            references: (L, 2), (x, y) in [0, 1].
            tokens: (B, S, D) of all scales one after another, each row by row.
            sizes: (h, w) of each scale.
        """
        axes = (self.num_heads, self.levels, self.points)
        offsets = self.sampling_offsets(queries).unflatten(-1, (*axes, 2))  # (B, L, heads, levels, P, 2), in cells
        weights = self.attention_weights(queries).unflatten(-1, (self.num_heads, -1)).softmax(dim=-1)
        widths_heights = offsets.new_tensor([(w, h) for h, w in sizes])  # (levels, 2)
        locations = references[:, None, None, None] + offsets / widths_heights[:, None]
        values = self.value_proj(tokens).unflatten(-1, (self.num_heads, -1))  # (B, S, heads, D / heads)
        return self.output_proj(gather(values, sizes, locations, weights.unflatten(-1, axes[1:])))


def gather(values: Tensor, sizes: Sequence[Size], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of bilinearly sampled values: equation 3 without its linear maps.

    Args:
        values: (B, S, heads, d), all scales one after another, each row by row.
        sizes: (h, w) of each scale.
        locations: (B, L, heads, levels, P, 2), (x, y) in [0, 1]; values outside are 0.
        weights: (B, L, heads, levels, P).

    Returns:
        (B, L, heads d).

    >>> values = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1)  # one row of two cells, at 1/4 and 3/4
    >>> locations = torch.tensor([0.5, 0.5, 0.75, 0.5]).reshape(1, 1, 1, 1, 2, 2)
    >>> gather(values, [(1, 2)], locations, torch.tensor([0.5, 0.5]).reshape(1, 1, 1, 1, 2))  # half of 2 and of 3
    tensor([[[2.5000]]])
    """
    heads = values.shape[2]
    maps = values.permute(0, 2, 3, 1).flatten(0, 1)  # (B heads, d, S)
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B heads, L, levels, P, 2), from -1 to 1
    weights = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (B heads, 1, L, levels, P)
    total: Tensor | float = 0.0
    for i, (level, size) in enumerate(zip(maps.split([h * w for h, w in sizes], dim=-1), sizes, strict=True)):
        sampled = F.grid_sample(level.unflatten(-1, size), grids[:, :, i], align_corners=False)  # (B heads, d, L, P)
        total = total + (sampled * weights[:, :, :, i]).sum(dim=-1)
    return total.unflatten(0, (-1, heads)).flatten(1, 2).transpose(1, 2)


def reference_points(sizes: Sequence[Size], like: Tensor) -> Tensor:
    """Centres of the cells of several feature maps.

    Args:
        sizes: (h, w) of each scale.
        like: tensor whose dtype and device the result has.

    Returns:
        (S, 2), (x, y) in [0, 1], scale after scale, row by row.

    >>> reference_points([(1, 2), (1, 1)], torch.zeros(1))
    tensor([[0.2500, 0.5000],
            [0.7500, 0.5000],
            [0.5000, 0.5000]])
    """
    points = []
    for h, w in sizes:
        y, x = ((torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) / n for n in (h, w))
        points.append(torch.stack([x.expand(h, w), y[:, None].expand(h, w)], dim=-1).flatten(0, 1))
    return torch.cat(points)
