"""TinyViT: convolutions at high resolution and attention in windows at low resolution, for mobile devices.

Paper: Wu, Zhang, Peng, Liu, Xiao, Fu, Yuan, "TinyViT: Fast Pretraining Distillation for Small Vision Transformers",
    ECCV 2022, arXiv 2207.10666. As the encoder of SAM: Zhang et al., "Faster Segment Anything", 2023, arXiv 2306.14289.
Idea: The paper asks how a network with 5 to 21 million weights can benefit from a data set from which only large
    networks learn well: it is trained to predict the outputs of a large network, which were computed once and stored.
    The network is a small Swin. Two convolutions make the first tokens, the first stage has convolutions only, since
    attention at that resolution is expensive and gains little, and windows are never shifted: a 3 x 3 convolution
    between attention and MLP connects neighbouring windows.
Simplified: the network, not its training; no dropout and no stochastic depth. The last normalisation belongs to the
    classifier, and is omitted with it.
Shapes: images (B, C, H, W) -> a list of four features (B, D_i, H / s_i, W / s_i), sizes rounded up, strides 4, 8, 16,
    32; or 4, 8, 16, 16 as in MobileSAM. Inside the attention, channels are last: (B, H, W, D).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.swin import from_windows, to_windows
from segedu.backbones.vit import MLP
from segedu.layers.attention import attention_in_windows
from segedu.validation.images import check_images
from segedu.validation.numbers import check_choice, check_integer, check_multiple, check_stages

EXPAND = 4  # expansion ratio of the inverted bottleneck and of the MLP


class ConvBN(nn.Sequential):
    """A convolution without bias, and batch normalisation.

    Args:
        in_channels: C of the features.
        out_channels: C of the result.
        kernel_size: 1 or 3; the padding preserves the size.
        groups: groups of channels of the convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)


class InvertedBottleneck(nn.Module):
    """1 x 1 to more channels, depthwise 3 x 3, 1 x 1 back, with a residual connection: MBConv of the paper.

    With `out_channels` nothing is added to the input, and the inside is as wide as the result: this is how the paper
    downsamples between two stages.

    Args:
        channels: C of the features.
        out_channels: C of the result; None for `channels`, with the residual connection.
        stride: stride of the convolution in the middle.
    """

    def __init__(self, channels: int, out_channels: int | None = None, stride: int = 1) -> None:
        super().__init__()
        self.adds = out_channels is None
        inside = EXPAND * channels if out_channels is None else out_channels
        self.conv1 = ConvBN(channels, inside)
        self.conv2 = ConvBN(inside, inside, kernel_size=3, stride=stride, groups=inside)
        self.conv3 = ConvBN(inside, channels if out_channels is None else out_channels)
        if self.adds:
            nn.init.zeros_(self.conv3.bn.weight)  # blocks start as the identity

    def forward(self, features: Tensor) -> Tensor:
        x = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(features)))))
        return F.gelu(features + x) if self.adds else x


class WindowAttention(nn.Module):
    """Self-attention inside windows of M x M tokens, with a learned bias for the distance between two tokens.

    The distance has no sign: left and right share a bias, as do above and below, so there are M x M values per head.
    The map of tokens is padded to a multiple of M with zeros, which take part as other tokens do.

    Args:
        embed_dim: D of the tokens.
        num_heads: a divisor of D.
        window_size: M.
    """

    def __init__(self, embed_dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        check_multiple("embed_dim", embed_dim, num_heads, of="num_heads")
        self.num_heads, self.window_size = num_heads, window_size
        self.norm = nn.LayerNorm(embed_dim)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window_size**2))

    def forward(self, tokens: Tensor) -> Tensor:
        (_, H, W, _), M = tokens.shape, self.window_size
        x = F.pad(tokens, (0, 0, 0, -W % M, 0, -H % M))
        height, width = x.shape[1:3]
        x = self.norm(to_windows(x, M))  # (B, windows, L, D), L = M^2
        # query, key and value of each head: (B, windows, heads, L, 3 D / heads)
        qkv = self.qkv(x).unflatten(-1, (self.num_heads, -1)).transpose(2, 3)
        queries, keys, values = qkv.chunk(3, dim=-1)
        x = attention_in_windows(queries, keys, values, self.position_bias().to(queries.dtype))
        return from_windows(self.proj(x.transpose(2, 3).flatten(3)), height, width)[:, :H, :W]

    def position_bias(self) -> Tensor:
        """The bias that is added to the products of queries and keys.

        The authors' code caches this table in evaluation mode. A network that was put into evaluation mode first and
        loaded weights later then computes with an outdated table. Here it is made from the weights each time.

        Returns:
            (heads, L, L), row i for the query of token i; the tokens of a window are in row-major order.
        """
        M = self.window_size
        index = torch.arange(M**2, device=self.attention_biases.device)
        dy, dx = ((a[:, None] - a).abs() for a in (index // M, index % M))  # (L, L), 0 to M - 1
        return self.attention_biases[:, M * dy + dx]


class TinyViTBlock(nn.Module):
    """Attention in windows, a 3 x 3 convolution that connects them, and the MLP: section 3.2 of the paper.

    Args:
        embed_dim: D of the tokens.
        num_heads: number of heads of the attention.
        window_size: M, side of a window in tokens.
    """

    def __init__(self, embed_dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.attn = WindowAttention(embed_dim, num_heads, window_size)
        self.local_conv = ConvBN(embed_dim, embed_dim, kernel_size=3, groups=embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.mlp = MLP(embed_dim, EXPAND * embed_dim)

    def forward(self, features: Tensor) -> Tensor:
        tokens = features.movedim(1, -1)  # (B, H, W, D)
        tokens = tokens + self.attn(tokens)
        tokens = self.local_conv(tokens.movedim(-1, 1)).movedim(1, -1)  # without a residual connection
        tokens = tokens + self.mlp(self.norm(tokens))
        return tokens.movedim(-1, 1)  # (B, D, H, W)


class Stage(nn.Module):
    """Blocks at one resolution, followed by a separate downsampling.

    Args:
        blocks: (B, D, H, W) -> the same shape.
        downsample: changes to the width and resolution of the next stage; None after the last stage.
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        return self.blocks(features)


class TinyViT(nn.Module):
    """Two convolutions with stride 2, a stage of convolutions, then stages of attention.

    State dict keys are those of the authors' file, but `patch_embed.0`, `conv` and `norm` for their
    `patch_embed.seq.0`, `c` and `mlp.norm`.

    Args:
        embed_dims: D of each stage.
        depths: number of blocks of each stage.
        num_heads: number of heads of the attention in each stage; the first value is not used.
        window_sizes: M, side of a window in tokens, of each stage; the first value is not used.
        last_stride: stride of the downsampling before the last stage. 1, as in MobileSAM, preserves the resolution.
        in_channels: channels of the images.
        normalize: applied to the images first, such as `layers.normalize.Normalize`.
    """

    def __init__(
        self,
        embed_dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_sizes: Sequence[int] = (7, 7, 14, 7),
        *,
        last_stride: int = 2,
        in_channels: int = 3,
        normalize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_stages(depths=depths, embed_dims=embed_dims, num_heads=num_heads, window_sizes=window_sizes)
        check_integer("embed_dims[0]", embed_dims[0], minimum=2)  # the stem has half as many channels
        check_choice("last_stride", last_stride, (1, 2))
        check_integer("in_channels", in_channels)
        self.in_channels = in_channels
        self.channels = tuple(embed_dims)
        strides = [2] * (len(depths) - 2) + [last_stride] * (len(depths) > 1)  # between stages
        self.strides = tuple(4 * 2 ** sum(stride == 2 for stride in strides[:i]) for i in range(len(depths)))
        self.normalize = nn.Identity() if normalize is None else normalize
        first = embed_dims[0]
        self.patch_embed = nn.Sequential(
            ConvBN(in_channels, first // 2, kernel_size=3, stride=2),
            nn.GELU(),
            ConvBN(first // 2, first, kernel_size=3, stride=2),
        )
        stages = []
        for i, (width, depth) in enumerate(zip(embed_dims, depths, strict=True)):
            if i == 0:
                blocks = [InvertedBottleneck(width) for _ in range(depth)]
            else:
                blocks = [TinyViTBlock(width, num_heads[i], window_sizes[i]) for _ in range(depth)]
            is_last = i == len(depths) - 1
            stages.append(Stage(blocks, None if is_last else InvertedBottleneck(width, embed_dims[i + 1], strides[i])))
        self.layers = nn.ModuleList(stages)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels)
        x, features = self.patch_embed(self.normalize(images)), []  # (B, D, H / 4, W / 4)
        for stage in self.layers:
            features.append(stage(x))
            x = features[-1] if stage.downsample is None else stage.downsample(features[-1])
        return features


def tiny_vit_5m(**options: Any) -> TinyViT:
    """TinyViT-5M (section 3.2), the encoder of MobileSAM, with 5.1 million parameters and random weights.

    `options` are those of `TinyViT`.
    """
    return TinyViT((64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), **options)


def tiny_vit_11m(**options: Any) -> TinyViT:
    """TinyViT-11M (section 3.2) with random weights: as deep, wider where features are coarse.

    `options` are those of `TinyViT`.
    """
    return TinyViT((64, 128, 256, 448), (2, 2, 6, 2), (2, 4, 8, 14), **options)


def tiny_vit_21m(**options: Any) -> TinyViT:
    """TinyViT-21M (section 3.2) with random weights: as deep, wider everywhere; `options` are those of `TinyViT`."""
    return TinyViT((96, 192, 384, 576), (2, 2, 6, 2), (3, 6, 12, 18), **options)
