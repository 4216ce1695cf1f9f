"""Swin: attention inside small windows, shifted in every second block, and features at four strides as in a ResNet.

Paper: Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo, "Swin Transformer: Hierarchical Vision Transformer using Shifted
    Windows", ICCV 2021, arXiv 2103.14030.
Idea: If all tokens attend to all others, twice the side of an image costs sixteen times as much. Here a token attends
    only to the 7 x 7 tokens of its window, so the cost is proportional to the number of pixels. Every second block
    shifts the windows by half their side, so that information crosses the borders of windows. Between stages, four
    neighbouring tokens become one that is twice as wide. This gives fine and coarse features, on which a pyramid can be
    built.
Simplified: no dropout and no stochastic depth; the MLP is four times as wide as the tokens. The last normalisation
    belongs to the classifier, and is omitted with it. The authors published one form for classification, which is the
    default here and in torchvision, and one for detection and segmentation: `Swin(dense=True)`.
Shapes: images (B, C, H, W) -> a list of four features (B, D_i, h_i, w_i), D_i = 1, 2, 4, 8 times D, strides 4, 8, 16,
    32. Sizes are rounded up, but the first size is rounded down without `dense`, and then H and W are at least 4.
    Inside, channels are last: (B, H, W, D).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.vit import MLP
from segedu.layers.attention import attention_in_windows
from segedu.validation.images import check_images
from segedu.validation.numbers import check_integer, check_integers, check_multiple, check_stages

PATCH = 4  # side of a patch in pixels
MASKED = -100.0  # as in the authors' code: exp(-100) is an attention weight of almost 0


class PatchEmbed(nn.Module):
    """A linear map of each patch of 4 x 4 pixels, then a normalisation.

    Args:
        in_channels: C of the images.
        embed_dim: D of the tokens.
        pad: whether an image whose sides are not multiples of 4 is padded with zeros, at the right and the bottom. If
            not, the remaining columns and rows are ignored.
    """

    def __init__(self, in_channels: int, embed_dim: int, pad: bool = False) -> None:
        super().__init__()
        self.pad = pad
        self.proj = nn.Conv2d(in_channels, embed_dim, kernel_size=PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        if self.pad:
            H, W = images.shape[-2:]
            images = F.pad(images, (0, -W % PATCH, 0, -H % PATCH))
        return self.norm(self.proj(images).movedim(1, -1))  # (B, H / 4, W / 4, D)


class PatchMerging(nn.Module):
    """Four neighbouring tokens are concatenated, normalised and mapped to one of twice the width; odd sizes are padded.

    Args:
        embed_dim: D of the input tokens.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * embed_dim)
        self.reduction = nn.Linear(4 * embed_dim, 2 * embed_dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        _, H, W, _ = tokens.shape
        tokens = F.pad(tokens, (0, 0, 0, W % 2, 0, H % 2))
        # upper left, lower left, upper right, lower right: the order of the published weights
        neighbours = [tokens[:, y::2, x::2] for x in (0, 1) for y in (0, 1)]
        return self.reduction(self.norm(torch.cat(neighbours, dim=-1)))  # (B, H / 2, W / 2, 2 D)


class WindowAttention(nn.Module):
    """Self-attention inside windows of M x M tokens, with a learned relative position bias.

    To shift the windows, the tokens are rolled up and to the left, and reappear on the other side (figure 4 of the
    paper). A window at the border may then contain pieces from opposite sides of the image, which must not attend to
    each other. Sizes that are not multiples of M are padded with zeros at the bottom and the right, which take part as
    other tokens do.

    Args:
        embed_dim: D of the tokens, a multiple of num_heads.
        num_heads: number of heads, each with D / num_heads channels.
        window_size: M.
        shift: by how many tokens the windows are shifted.
        shift_single_window: whether the windows are shifted along an axis that has one window only. If they are, the
            tokens of this window are divided into two groups that do not attend to each other.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, window_size: int, shift: int, shift_single_window: bool = False
    ) -> None:
        super().__init__()
        check_multiple("embed_dim", embed_dim, num_heads, of="num_heads")
        check_integer("window_size", window_size)
        check_integer("shift", shift, 0, window_size - 1)
        self.num_heads, self.window_size, self.shift = num_heads, window_size, shift
        self.shift_single_window = shift_single_window
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        # one bias per head for every offset from (1 - M, 1 - M) to (M - 1, M - 1), row by row
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        (_, H, W, _), M = tokens.shape, self.window_size
        x = F.pad(tokens, (0, 0, 0, -W % M, 0, -H % M))
        height, width = x.shape[1:3]
        down, right = (self.shift if self.shift_single_window or size > M else 0 for size in (height, width))
        x = to_windows(x.roll((-down, -right), dims=(1, 2)), M)  # (B, windows, L, D), L = M^2
        bias = self.position_bias()  # (heads, L, L)
        if down or right:
            attn_mask = _shifted_window_mask(height, width, down, right, M, x.device)  # (windows, L, L)
            bias = bias + MASKED * attn_mask[:, None].to(bias)  # (windows, heads, L, L)
        # (3, B, windows, heads, L, D / heads)
        queries, keys, values = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)
        x = attention_in_windows(queries, keys, values, bias.to(queries.dtype))
        x = from_windows(self.proj(x.transpose(2, 3).flatten(3)), height, width)
        return x.roll((down, right), dims=(1, 2))[:, :H, :W]

    def position_bias(self) -> Tensor:
        """The bias B of the paper's equation 4, which is added to the products of queries and keys.

        Returns:
            (heads, L, L), row i for the query of token i; the tokens of a window are in row-major order.
        """
        M = self.window_size
        index = torch.arange(M**2, device=self.relative_position_bias_table.device)
        y, x = index // M, index % M
        dy, dx = (a[:, None] - a + M - 1 for a in (y, x))  # (L, L), 0 to 2 M - 2
        return self.relative_position_bias_table[(2 * M - 1) * dy + dx].permute(2, 0, 1)


class SwinBlock(nn.Module):
    """Attention in windows, then the MLP, each after a normalisation and with a residual connection: figure 3b.

    Args:
        embed_dim: D of the tokens.
        num_heads: number of heads of the attention.
        window_size: M, side of a window in tokens.
        shift: by how many tokens the windows are shifted.
        shift_single_window: as in `WindowAttention`.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, window_size: int, shift: int, shift_single_window: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim)
        self.attn = WindowAttention(embed_dim, num_heads, window_size, shift, shift_single_window)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.mlp = MLP(embed_dim, 4 * embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class Swin(nn.Module):
    """Patch embedding, then stages of blocks with a patch merging before each but the first.

    State dict keys are those of torchvision, but `proj`, `norm`, `fc1` and `fc2` in place of numbers. Torchvision's
    buffers `relative_position_index` are computed here, and not stored.

    Args:
        embed_dim: D of the first stage; each stage doubles it.
        depths: number of blocks of each stage; those with odd index have shifted windows.
        num_heads: number of heads of the attention in each stage.
        window_size: M, side of a window in tokens.
        in_channels: channels of the images.
        normalize: applied to the images first, such as `layers.normalize.Normalize`.
        dense: the authors' form for detection and segmentation, with which MaskFormer, Mask2Former and OneFormer were
            trained. It differs in three ways: images whose sides are not multiples of 4 are padded, not cropped; every
            second block shifts its windows even along an axis that has a single window; and a `LayerNorm`, with the
            keys `norms.i.*`, is applied to the output of each stage, but not to the input of the next one.
    """

    def __init__(
        self,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        *,
        window_size: int = 7,
        in_channels: int = 3,
        normalize: nn.Module | None = None,
        dense: bool = False,
    ) -> None:
        super().__init__()
        check_stages(depths=depths, num_heads=num_heads)
        check_integers(embed_dim=embed_dim, window_size=window_size, in_channels=in_channels)
        self.in_channels = in_channels
        self.channels = tuple(embed_dim * 2**i for i in range(len(depths)))
        self.strides = tuple(PATCH * 2**i for i in range(len(depths)))
        self.min_size = 1 if dense else PATCH
        self.normalize = nn.Identity() if normalize is None else normalize
        layers: list[nn.Module] = []
        for i, (width, depth, heads) in enumerate(zip(self.channels, depths, num_heads, strict=True)):
            layers.append(PatchMerging(width // 2) if i else PatchEmbed(in_channels, embed_dim, dense))
            shifts = ((j % 2) * (window_size // 2) for j in range(depth))
            layers.append(nn.Sequential(*(SwinBlock(width, heads, window_size, shift, dense) for shift in shifts)))
        self.features = nn.Sequential(*layers)
        self.norms = nn.ModuleList(nn.LayerNorm(width) if dense else nn.Identity() for width in self.channels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels, min_size=self.min_size)
        x, features = self.normalize(images), []
        for downsample, stage, norm in zip(self.features[::2], self.features[1::2], self.norms, strict=True):
            x = stage(downsample(x))  # (B, H / s, W / s, D)
            features.append(norm(x).movedim(-1, 1))
        return features


def swin_t(**options: Any) -> Swin:
    """Swin-T (section 3.3) with 27.5 million parameters and random weights, about the cost of a ResNet-50.

    `options` are those of `Swin`.
    """
    return Swin(96, (2, 2, 6, 2), (3, 6, 12, 24), **options)


def swin_s(**options: Any) -> Swin:
    """Swin-S (section 3.3) with random weights: the third stage three times as deep, about the cost of a ResNet-101."""
    return Swin(96, (2, 2, 18, 2), (3, 6, 12, 24), **options)


def swin_b(**options: Any) -> Swin:
    """Swin-B (section 3.3) with random weights: as deep as Swin-S, and a third wider; `options` are those of `Swin`."""
    return Swin(128, (2, 2, 18, 2), (4, 8, 16, 32), **options)


def to_windows(tokens: Tensor, window_size: int) -> Tensor:
    """Divide a map of tokens into windows; windows, and the tokens inside each, are in row-major order.

    Args:
        tokens: (B, H, W, D), H and W multiples of window_size.
        window_size: M.

    Returns:
        (B, windows, M^2, D).
    """
    windows = tokens.unflatten(2, (-1, window_size)).unflatten(1, (-1, window_size))  # (B, H / M, M, W / M, M, D)
    return windows.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Merge windows (B, windows, M^2, D) to a map of tokens (B, height, width, D): the inverse of `to_windows`."""
    M = math.isqrt(windows.shape[2])
    windows = windows.unflatten(2, (M, M)).unflatten(1, (height // M, width // M))  # (B, H / M, W / M, M, M, D)
    return windows.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _shifted_window_mask(
    height: int, width: int, down: int, right: int, window_size: int, device: torch.device
) -> Tensor:
    """(windows, L, L): whether two tokens of a window come from opposite sides of the image that was rolled."""
    wrapped_y = torch.arange(height, device=device) >= height - down
    wrapped_x = torch.arange(width, device=device) >= width - right
    region = 2 * wrapped_y[:, None].long() + wrapped_x.long()  # (H, W), 0 to 3
    region = to_windows(region[None, :, :, None], window_size)[0, :, :, 0]  # (windows, L)
    return region[:, :, None] != region[:, None, :]
