"""Multi-scale deformable attention: each token looks at a few places that it chooses itself, on every scale.

Zhu, Su, Lu, Li, Wang, Dai, "Deformable DETR", ICLR 2021, arXiv 2010.04159, section 4.1 and equation 3. Attention among
all places of three scales costs the square of their number. Here a token names, by a linear map of itself, P places
around its own on each scale, and how much of each it takes; keys are not needed. In plain torch: no kernel of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]


class DeformableAttention(nn.Module):
    """Each token gathers from `points` places a head on each scale; keys of the state dict are the authors'.

    Args:
        embed_dim: D of the tokens, a multiple of num_heads.
        num_heads: each gathers D / num_heads numbers, from places of its own.
        levels: number of scales.
        points: P, places a head looks at on a scale.
    """

    def __init__(self, embed_dim: int, num_heads: int, levels: int, points: int = 4) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim is {embed_dim}, expected a multiple of num_heads, which is {num_heads}")
        if levels < 1 or points < 1:
            raise ValueError(f"levels and points are {levels} and {points}, expected at least 1 each")
        self.num_heads, self.levels, self.points = num_heads, levels, points
        self.sampling_offsets = nn.Linear(embed_dim, num_heads * levels * points * 2)
        self.attention_weights = nn.Linear(embed_dim, num_heads * levels * points)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self._init()

    def _init(self) -> None:
        """At first head m looks in direction 2 pi m / heads, 1, 2, ... P places far, and takes the same of each."""
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)  # (heads, 2)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)  # onto a square
        offsets = directions[:, None, None] * torch.arange(1, self.points + 1)[:, None]  # (heads, 1, P, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, references: Tensor, tokens: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Queries (B, L, D) around their references (L, 2), (x, y) as parts of the image, gather from tokens (B, S, D).

        The tokens are those of the scales one after the other, each row by row; sizes says (h, w) of each.
        """
        axes = (self.num_heads, self.levels, self.points)
        offsets = self.sampling_offsets(queries).unflatten(-1, (*axes, 2))  # (B, L, heads, levels, P, 2), in places
        weights = self.attention_weights(queries).unflatten(-1, (self.num_heads, -1)).softmax(dim=-1)
        lengths = offsets.new_tensor([(w, h) for h, w in sizes])  # (levels, 2)
        locations = references[:, None, None, None] + offsets / lengths[:, None]
        values = self.value_proj(tokens).unflatten(-1, (self.num_heads, -1))  # (B, S, heads, D / heads)
        return self.output_proj(gather(values, sizes, locations, weights.unflatten(-1, axes[1:])))


def gather(values: Tensor, sizes: Sequence[Size], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of values between places: equation 3 without its linear maps.

    Args:
        values: (B, S, heads, d), S places of all scales one after the other, each scale row by row.
        sizes: (h, w) of each scale.
        locations: (B, L, heads, levels, P, 2), (x, y) as parts of the image; outside of it all values are 0.
        weights: (B, L, heads, levels, P).

    Returns:
        (B, L, heads d).

    >>> values = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1)  # one row of two places, at 1/4 and 3/4
    >>> locations = torch.tensor([0.5, 0.5, 0.75, 0.5]).reshape(1, 1, 1, 1, 2, 2)
    >>> gather(values, [(1, 2)], locations, torch.tensor([0.5, 0.5]).reshape(1, 1, 1, 1, 2))  # half of 2 and of 3
    tensor([[[2.5000]]])
    """
    heads = values.shape[2]
    maps = values.permute(0, 2, 3, 1).flatten(0, 1)  # (B heads, d, S)
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B heads, L, levels, P, 2), from -1 to 1
    weights = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (B heads, 1, L, levels, P)
    total: Tensor | float = 0.0
    for level, (part, size) in enumerate(zip(maps.split([h * w for h, w in sizes], dim=-1), sizes, strict=True)):
        seen = F.grid_sample(part.unflatten(-1, size), grids[:, :, level], align_corners=False)  # (B heads, d, L, P)
        total = total + (seen * weights[:, :, :, level]).sum(dim=-1)
    return total.unflatten(0, (-1, heads)).flatten(1, 2).transpose(1, 2)


def places(sizes: Sequence[Size], like: Tensor) -> Tensor:
    """Where the places of several scales lie, their centres.

    Args:
        sizes: (h, w) of each scale.
        like: whose dtype and device the result has.

    Returns:
        (S, 2), (x, y) as parts of the image, scale after scale, row by row.

    >>> places([(1, 2), (1, 1)], torch.zeros(1))
    tensor([[0.2500, 0.5000],
            [0.7500, 0.5000],
            [0.5000, 0.5000]])
    """
    points = []
    for h, w in sizes:
        y, x = ((torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) / n for n in (h, w))
        points.append(torch.stack([x.expand(h, w), y[:, None].expand(h, w)], dim=-1).flatten(0, 1))
    return torch.cat(points)
