"""Mask2Former's pixel decoder: three scales that exchange information, and features at stride 4 for the masks.

Paper: Cheng, Misra, Schwing, Kirillov, Girdhar, "Masked-attention Mask Transformer for Universal Image Segmentation",
    CVPR 2022, arXiv 2112.01527, section 4.1; its attention: Zhu et al., "Deformable DETR", ICLR 2021, arXiv 2010.04159.
Idea: Objects are large and small, and masks have fine edges. In six layers of deformable attention, every token of
    strides 8, 16 and 32 attends to tokens of all three, at a cost that is linear in the number of tokens. Then the
    finest level is upsampled and added to the backbone's features at stride 4, as in a feature pyramid.
Simplified: padding is treated like the image, as in the authors' code.
Shapes: four features (B, C_i, h_i, w_i) of strides 4, 8, 16, 32 -> `mask_features` (B, D, h_0, w_0), and the levels
    (B, D, h_i, w_i), coarse to fine: strides 32, 16, 8.
Quality: all four maps equal those of Hugging Face's transformers at the same weights (tests of mask2former).
Course: 15-panoptic
Lab: 15_universal
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.layers.deformable_attention import DeformableAttention, Size, reference_points
from segedu.layers.position import sine_position
from segedu.validation.numbers import check_integer, check_length, check_multiple

GROUPS = 32  # of each normalisation
LEVELS = 3  # strides 32, 16, 8


class EncoderLayer(nn.Module):
    """Deformable self-attention over the tokens of all scales, followed by an MLP applied to each token.

    Args:
        embed_dim: D of the tokens, a multiple of num_heads.
        num_heads: of the attention.
        hidden: width of the hidden layer of the MLP.
    """

    def __init__(self, embed_dim: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(embed_dim, num_heads, LEVELS)
        self.norm1, self.norm2 = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)
        self.linear1, self.linear2 = nn.Linear(embed_dim, hidden), nn.Linear(hidden, embed_dim)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, tokens: Tensor, positions: Tensor, references: Tensor, sizes: Sequence[Size]) -> Tensor:
        tokens = self.norm1(tokens + self.self_attn(tokens + positions, references, tokens, sizes))  # (B, S, D)
        return self.norm2(tokens + self.linear2(self.linear1(tokens).relu()))


class PixelDecoder(nn.Module):
    """Projections of three scales to one width, the encoder over them, and one level of a feature pyramid.

    Args:
        channels: C of the four features, fine to coarse.
        embed_dim: D of all outputs, a multiple of 32.
        num_heads: of the attention.
        layers: number of encoder layers.
        hidden: width of the hidden layer of the MLPs.
    """

    def __init__(
        self, channels: Sequence[int], embed_dim: int = 256, num_heads: int = 8, layers: int = 6, hidden: int = 1024
    ) -> None:
        super().__init__()
        check_length("channels", channels, LEVELS + 1, of="stride, 4 to 32")
        check_multiple("embed_dim", embed_dim, GROUPS)
        check_integer("layers", layers, minimum=0)
        self.embed_dim = embed_dim
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(C, embed_dim, kernel_size=1), nn.GroupNorm(GROUPS, embed_dim))
            for C in reversed(channels[1:])
        )
        self.level_embed = nn.Parameter(torch.randn(LEVELS, embed_dim))
        self.layers = nn.ModuleList(EncoderLayer(embed_dim, num_heads, hidden) for _ in range(layers))
        self.lateral = nn.Sequential(
            nn.Conv2d(channels[0], embed_dim, kernel_size=1, bias=False), nn.GroupNorm(GROUPS, embed_dim)
        )
        self.output = nn.Sequential(
            nn.Conv2d(embed_dim, embed_dim, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, embed_dim), nn.ReLU()
        )
        self.mask_features = nn.Conv2d(embed_dim, embed_dim, kernel_size=1)
        for layer in (module for module in self.modules() if isinstance(module, nn.Conv2d)):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        finest, *rest = features
        maps = [project(x) for project, x in zip(self.input_proj, reversed(rest), strict=True)]  # strides 32, 16, 8
        sizes = [tuple(x.shape[-2:]) for x in maps]
        tokens = torch.cat([x.flatten(2).mT for x in maps], dim=1)  # (B, S, D)
        positions = torch.cat([position_of(x) + e for x, e in zip(maps, self.level_embed, strict=True)], dim=1)
        references = reference_points(sizes, tokens)
        for layer in self.layers:
            tokens = layer(tokens, positions, references, sizes)
        parts = tokens.mT.split([h * w for h, w in sizes], dim=-1)
        levels = [part.unflatten(-1, size) for part, size in zip(parts, sizes, strict=True)]
        lateral = self.lateral(finest)  # (B, D, h, w)
        # Paper: not specified; the authors' code upsamples bilinearly, a feature pyramid with nearest neighbour.
        upsampled = F.interpolate(levels[-1], size=lateral.shape[-2:], mode="bilinear", align_corners=False)
        return self.mask_features(self.output(lateral + upsampled)), levels


def position_of(features: Tensor) -> Tensor:
    """Sine position encoding (1, h w, D) of features (B, D, h, w), the same for all images of the batch."""
    padding = torch.zeros(1, *features.shape[-2:], dtype=torch.bool, device=features.device)
    return sine_position(padding, features.shape[1], features.dtype).flatten(2).mT
