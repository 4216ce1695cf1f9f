"""TinyViT: convolutions where images are large, attention in windows where they are small, for the pace of a phone.

Paper: Wu, Zhang, Peng, Liu, Xiao, Fu, Yuan, "TinyViT: Fast Pretraining Distillation for Small Vision Transformers",
    ECCV 2022, arXiv 2207.10666. As the encoder of SAM: Zhang et al., "Faster Segment Anything", 2023, arXiv 2306.14289.
Idea: The paper asks how a network with 5 to 21 million weights can learn from a data set that only large networks
    use well: it learns to give the answers of a large one, which were computed once and stored. The network is a
    Swin made small: two convolutions make the first tokens, the first stage has convolutions only, since attention
    at that size costs time and gains little, and windows are never shifted: a 3 x 3 convolution between attention
    and MLP lets neighbouring windows meet.
Simplified: the network, not its training; no dropout and no stochastic depth. The last normalisation belongs to the
    classifier, and is left out with it.
Shapes: images (B, C, H, W) -> a list of four features (B, D_i, H / s_i, W / s_i), sizes rounded up, strides 4, 8, 16,
    32; or 4, 8, 16, 16 as MobileSAM has it. Inside the attention, channels stand last: (B, H, W, D).
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

EXPAND = 4  # how much wider the inside of a block is: of the inverted bottleneck and of the MLP


class ConvBN(nn.Sequential):
    """A convolution without bias, and batch normalisation.

    Args:
        in_channels: C of the features.
        out_channels: C of the result.
        kernel_size: 1 or 3; the padding keeps the size.
        stride: step in pixels.
        groups: of channels that do not meet.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)


class InvertedBottleneck(nn.Module):
    """1 x 1 to more channels, 3 x 3 on each channel alone, 1 x 1 back, added to the input: MBConv of the paper.

    With `channels != out_channels` or a stride nothing is added, and the inside is as wide as the result: so the
    paper makes features small between two stages.

    Args:
        channels: C of the features.
        out_channels: C of the result; None: as many, and the input is added.
        stride: of the convolution in the middle.
    """

    def __init__(self, channels: int, out_channels: int | None = None, stride: int = 1) -> None:
        super().__init__()
        self.adds = out_channels is None
        inside = EXPAND * channels if out_channels is None else out_channels
        self.conv1 = ConvBN(channels, inside)
        self.conv2 = ConvBN(inside, inside, kernel_size=3, stride=stride, groups=inside)
        self.conv3 = ConvBN(inside, channels if out_channels is None else out_channels)
        if self.adds:
            nn.init.zeros_(self.conv3.bn.weight)  # at the start a block passes on what it was given

    def forward(self, features: Tensor) -> Tensor:
        x = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(features)))))
        return F.gelu(features + x) if self.adds else x


class WindowAttention(nn.Module):
    """Self-attention inside windows of M x M tokens, with a learnt bias for how far one token lies from the other.

    The distance has no sign: left and right, above and below share a number, so there are M x M of a head. The
    tokens' map is filled up to a multiple of M with zeros, which the normalisation makes tokens like others.

    Args:
        embed_dim: D of the tokens.
        num_heads: a divisor of D.
        window_size: M.
    """

    def __init__(self, embed_dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim is {embed_dim}, expected a multiple of num_heads, which is {num_heads}")
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
        # head by head its query, key and value: (B, windows, heads, L, 3 D / heads)
        each = self.qkv(x).unflatten(-1, (self.num_heads, -1)).transpose(2, 3)
        queries, keys, values = each.chunk(3, dim=-1)
        x = attention_in_windows(queries, keys, values, self.position_bias().to(queries.dtype))
        return from_windows(self.proj(x.transpose(2, 3).flatten(3)), height, width)[:, :H, :W]

    def position_bias(self) -> Tensor:
        """What is added to the product of query and key.

        The authors' code keeps this table when it is put to evaluation, and so a network that was put to evaluation
        first and given weights later computes with the old one. Here it is made from the weights each time.

        Returns:
            (heads, L, L), row i for the query of token i; the tokens of a window stand row by row.
        """
        M = self.window_size
        places = torch.arange(M**2, device=self.attention_biases.device)
        dy, dx = ((a[:, None] - a).abs() for a in (places // M, places % M))  # (L, L), 0 to M - 1
        return self.attention_biases[:, M * dy + dx]


class TinyViTBlock(nn.Module):
    """Attention in windows, a 3 x 3 convolution that lets them meet, and the MLP: section 3.2 of the paper.

    Args:
        embed_dim: D of the tokens.
        num_heads: of the attention.
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
        tokens = self.local_conv(tokens.movedim(-1, 1)).movedim(1, -1)  # nothing is added to its input
        tokens = tokens + self.mlp(self.norm(tokens))
        return tokens.movedim(-1, 1)  # (B, D, H, W)


class Stage(nn.Module):
    """Blocks at one size, then the way to the next size, which is `None` behind the last.

    Args:
        blocks: (B, D, H, W) -> the same shape.
        downsample: to the width and size of the next stage.
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        return self.blocks(features)


class TinyViT(nn.Module):
    """Two convolutions with stride 2, a stage of convolutions, then stages of attention.

    Keys as in the authors' file, but `patch_embed.0`, `conv` and `norm` for their `patch_embed.seq.0`, `c` and
    `mlp.norm`.

    Args:
        embed_dims: D of each stage.
        depths: number of blocks of each stage.
        num_heads: of the attention in each stage; the first number is not used.
        window_sizes: M, side of a window in tokens, of each stage; the first number is not used.
        last_stride: of the step to the last stage. 1, as in MobileSAM, leaves its features as fine as those before.
        in_channels: channels of the images.
        normalize: what is applied to the images first, such as `layers.normalize.Normalize`.
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
        _check_numbers(embed_dims, depths, num_heads, window_sizes, last_stride, in_channels)
        self.in_channels = in_channels
        self.channels = tuple(embed_dims)
        steps = [2] * (len(depths) - 2) + [last_stride] * (len(depths) > 1)  # between stages
        self.strides = tuple(4 * 2 ** sum(step == 2 for step in steps[:i]) for i in range(len(depths)))
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
            last = i == len(depths) - 1
            stages.append(Stage(blocks, None if last else InvertedBottleneck(width, embed_dims[i + 1], steps[i])))
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
    """TinyViT-5M of the paper's section 3.2, the encoder of MobileSAM; 5.1 million weights without the classifier.

    Args:
        **options: of `TinyViT`.

    Returns:
        The backbone with random weights.
    """
    return TinyViT((64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), **options)


def tiny_vit_11m(**options: Any) -> TinyViT:
    """TinyViT-11M of the paper's section 3.2: as deep, wider where features are coarse.

    Args:
        **options: of `TinyViT`.

    Returns:
        The backbone with random weights.
    """
    return TinyViT((64, 128, 256, 448), (2, 2, 6, 2), (2, 4, 8, 14), **options)


def tiny_vit_21m(**options: Any) -> TinyViT:
    """TinyViT-21M of the paper's section 3.2: as deep, wider everywhere.

    Args:
        **options: of `TinyViT`.

    Returns:
        The backbone with random weights.
    """
    return TinyViT((96, 192, 384, 576), (2, 2, 6, 2), (3, 6, 12, 18), **options)


def _check_numbers(
    embed_dims: Sequence[int],
    depths: Sequence[int],
    num_heads: Sequence[int],
    window_sizes: Sequence[int],
    last_stride: int,
    in_channels: int,
) -> None:
    if not len(depths) or min(depths) < 1:
        raise ValueError(f"depths is {tuple(depths)}, expected a number of at least 1 for every stage")
    given = {"embed_dims": embed_dims, "num_heads": num_heads, "window_sizes": window_sizes}
    for name, numbers in given.items():
        if len(numbers) != len(depths) or min(numbers) < 1:
            raise ValueError(f"{name} is {tuple(numbers)}, expected {len(depths)} numbers of at least 1, as in depths")
    if embed_dims[0] < 2:
        raise ValueError(
            f"embed_dims is {tuple(embed_dims)}, expected at least 2 first: half of it is the stem's width"
        )
    if last_stride not in (1, 2):
        raise ValueError(f"last_stride is {last_stride}, expected 1 or 2")
    if in_channels < 1:
        raise ValueError(f"in_channels is {in_channels}, expected at least 1")
