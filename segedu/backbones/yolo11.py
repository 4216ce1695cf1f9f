"""The backbone and neck of YOLO11: split blocks, and a pyramid with a top-down and a bottom-up pathway.

Paper: none by the authors (Jocher, Qiu, "Ultralytics YOLO11", 2024, documentation). Written from descriptions: Khanam,
    Hussain, "YOLOv11: An Overview of the Key Architectural Enhancements", 2024, arXiv 2410.17725; Hidayatullah et al.,
    "YOLOv8 to YOLO11: A Comprehensive Architecture In-depth Comparative Review", 2025, arXiv 2501.13400. The ideas are
    older: cross-stage partial blocks (Wang et al. 2019, arXiv 1911.11929), spatial pyramid pooling (He et al. 2014,
    arXiv 1406.4729), path aggregation (Liu et al. 2018, arXiv 1803.01534).
Idea: A split block passes half of its channels through a chain of small blocks and keeps the output of each of them; a
    1x1 convolution combines all outputs. Attention is used only at the coarsest resolution, where it is inexpensive.
    Then a top-down and a bottom-up pathway combine fine and coarse features on each level.
Simplified: nothing; an optional test compares all features with the authors' program.
Shapes: images (B, 3, H, W), H and W multiples of 32 -> features (B, C_i, H / s, W / s) with s = 8, 16 and 32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segedu.validation.images import check_images
from segedu.validation.numbers import check_integer, check_integers, check_length


class Scale(NamedTuple):
    """The factors with which one list of blocks defines five networks.

    `depth`: multiplies the number of repeated blocks, which is two in the list. `width`: multiplies the number of
    channels in the list, after it was limited to `max_channels`. `deep`: whether all split blocks contain
    `SplitInside`; otherwise only those at strides 16 and 32 of the backbone do, and the last one.
    """

    depth: float
    width: float
    max_channels: int
    deep: bool

    def channels(self, base_channels: int) -> int:
        """Channels of a block at this scale, a multiple of 8, from its channels in the list."""
        return math.ceil(min(base_channels, self.max_channels) * self.width / 8) * 8

    def blocks(self) -> int:
        """Number of repeated blocks, at least 1."""
        return max(round(2 * self.depth), 1)


SCALES = {
    "n": Scale(0.5, 0.25, 1024, deep=False),
    "s": Scale(0.5, 0.5, 1024, deep=False),
    "m": Scale(0.5, 1.0, 512, deep=True),
    "l": Scale(1.0, 1.0, 512, deep=True),
    "x": Scale(1.0, 1.5, 512, deep=True),
}


class ConvBlock(nn.Module):
    """Convolution without bias, batch normalisation, SiLU (x times its sigmoid).

    The momentum of the running statistics is 3 % per step, as documented: after a short training they lag behind the
    weights, and a network in evaluation mode may predict nothing. More forward passes in training mode update them.

    Args:
        in_channels: C of the features.
        out_channels: C of the result.
        kernel_size: odd; the padding preserves the size.
        groups: number of groups of the convolution; with one group per channel it is depthwise.
        activation: whether the SiLU is applied.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.03)
        self.activation = nn.SiLU() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.bn(self.conv(x)))


class Residual(nn.Module):
    """Two 3x3 convolutions with a residual connection.

    Args:
        channels: C of input and output.
        hidden: channels between the two convolutions.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.first = ConvBlock(channels, hidden, 3)
        self.second = ConvBlock(hidden, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class SplitInside(nn.Module):
    """The block called C3k: half of the channels through two residual blocks, half through a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.main = ConvBlock(channels, half)
        self.beside = ConvBlock(channels, half)
        self.blocks = nn.Sequential(*(Residual(half, half) for _ in range(2)))
        self.merge = ConvBlock(2 * half, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(torch.cat([self.blocks(self.main(x)), self.beside(x)], dim=1))


class SplitBlock(nn.Module):
    """C3k2: two halves, a chain of blocks after the second, and a 1x1 convolution that merges all outputs.

    Args:
        in_channels: C of the features.
        out_channels: C of the result.
        blocks: length of the chain.
        deep: a chain of `SplitInside` instead of `Residual`.
        share: channels of a half, as a fraction of `out_channels`.
    """

    def __init__(self, in_channels: int, out_channels: int, blocks: int, deep: bool, share: float = 0.5) -> None:
        super().__init__()
        half = int(out_channels * share)
        self.split = ConvBlock(in_channels, 2 * half)
        self.blocks = nn.ModuleList(SplitInside(half) if deep else Residual(half, half // 2) for _ in range(blocks))
        self.merge = ConvBlock((2 + blocks) * half, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.split(x).chunk(2, dim=1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.merge(torch.cat(parts, dim=1))


class PyramidPooling(nn.Module):
    """SPPF: three 5x5 max pooling layers in sequence, equivalent to kernels of 5, 9 and 13 in parallel but faster."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = ConvBlock(channels, half)
        self.pool = nn.MaxPool2d(kernel_size=5, stride=1, padding=2)
        self.merge = ConvBlock(4 * half, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.merge(torch.cat(parts, dim=1))


class PixelAttention(nn.Module):
    """Self-attention over all locations of a feature map; keys and queries are half as wide as values.

    A depthwise 3x3 convolution of the values replaces a position encoding.

    Args:
        channels: C of input and output.
        heads: number of heads, a divisor of C.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.value = heads, channels // heads
        self.key = self.value // 2
        self.qkv = ConvBlock(channels, channels + 2 * self.key * heads, activation=False)
        self.proj = ConvBlock(channels, channels, activation=False)
        self.position = ConvBlock(channels, channels, 3, groups=channels, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        # the queries, keys and values of one head are adjacent
        query, key, value = (
            self.qkv(x).flatten(2).unflatten(1, (self.heads, -1)).split([self.key, self.key, self.value], dim=2)
        )  # (B, heads, key or value, L)
        weights = (query.transpose(-2, -1) @ key * self.key**-0.5).softmax(dim=-1)  # (B, heads, L, L)
        attended = (value @ weights.transpose(-2, -1)).flatten(1, 2).unflatten(2, (H, W))  # (B, C, H, W)
        return self.proj(attended + self.position(value.flatten(1, 2).unflatten(2, (H, W))))


class AttentionLayer(nn.Module):
    """Attention, then two 1x1 convolutions, each with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = PixelAttention(channels, max(channels // 64, 1))
        self.feed_forward = nn.Sequential(
            ConvBlock(channels, 2 * channels), ConvBlock(2 * channels, channels, activation=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.feed_forward(x)


class SplitAttention(nn.Module):
    """C2PSA: half of the channels through `blocks` layers of attention, the other half unchanged."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        half = channels // 2
        self.split = ConvBlock(channels, 2 * half)
        self.blocks = nn.Sequential(*(AttentionLayer(half) for _ in range(blocks)))
        self.merge = ConvBlock(2 * half, channels)

    def forward(self, x: Tensor) -> Tensor:
        unchanged, attended = self.split(x).chunk(2, dim=1)
        return self.merge(torch.cat([unchanged, self.blocks(attended)], dim=1))


class YOLO11Pyramid(nn.Module):
    """Backbone and neck of YOLO11.

    Args:
        scale: one of `SCALES`, or another `Scale`.
        in_channels: channels of the images.
        base_channels: channels of the list at strides 2, 4, 8, 16 and 32.
    """

    def __init__(
        self, scale: Scale, in_channels: int = 3, base_channels: Sequence[int] = (64, 128, 256, 512, 1024)
    ) -> None:
        super().__init__()
        check_integer("in_channels", in_channels)
        check_length("base_channels", base_channels, 5)
        check_integers(8, base_channels=base_channels)
        self.in_channels, self.strides = in_channels, (8, 16, 32)
        half, quarter, fine, middle, coarse = (scale.channels(c) for c in base_channels)
        blocks, deep = scale.blocks(), scale.deep
        # the first two stages already output the channels of the next resolution, so their halves are narrow
        self.stem = ConvBlock(in_channels, half, 3, stride=2)
        self.down = nn.ModuleList(
            ConvBlock(a, b, 3, stride=2) for a, b in ((half, quarter), (fine, fine), (middle, middle), (middle, coarse))
        )
        self.stages = nn.ModuleList(
            [
                SplitBlock(quarter, fine, blocks, deep, 0.25),
                SplitBlock(fine, middle, blocks, deep, 0.25),
                SplitBlock(middle, middle, blocks, True),
                SplitBlock(coarse, coarse, blocks, True),
            ]
        )
        self.pooling = PyramidPooling(coarse)
        self.attention = SplitAttention(coarse, blocks)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.top_down = nn.ModuleList(
            [SplitBlock(coarse + middle, middle, blocks, deep), SplitBlock(2 * middle, fine, blocks, deep)]
        )
        self.down_again = nn.ModuleList(ConvBlock(c, c, 3, stride=2) for c in (fine, middle))
        self.bottom_up = nn.ModuleList(
            [SplitBlock(fine + middle, middle, blocks, deep), SplitBlock(middle + coarse, coarse, blocks, True)]
        )
        self.channels = (fine, middle, coarse)

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels)
        if images.shape[-2] % 32 or images.shape[-1] % 32:
            raise ValueError(f"images has shape {tuple(images.shape)}, expected H and W that are multiples of 32")
        features, x = [], self.stem(images)
        for down, stage in zip(self.down, self.stages, strict=True):
            x = stage(down(x))
            features.append(x)
        _, fine, middle, _ = features  # strides 8 and 16
        coarse = self.attention(self.pooling(x))
        middle = self.top_down[0](torch.cat([self.upsample(coarse), middle], dim=1))
        fine = self.top_down[1](torch.cat([self.upsample(middle), fine], dim=1))
        middle = self.bottom_up[0](torch.cat([self.down_again[0](fine), middle], dim=1))
        coarse = self.bottom_up[1](torch.cat([self.down_again[1](middle), coarse], dim=1))
        return [fine, middle, coarse]


# The entry of each part of a network in the authors' list. Some entries, such as concatenations, have no tensors.
_ENTRIES = {
    "pyramid.stem": "0",
    **{f"pyramid.{part}.{i}": f"{2 * i + n}" for n, part in ((1, "down"), (2, "stages")) for i in range(4)},
    **{"pyramid.pooling": "9", "pyramid.attention": "10", "pyramid.top_down.0": "13", "pyramid.top_down.1": "16"},
    **{f"pyramid.{part}.{i}": f"{3 * i + n}" for n, part in ((17, "down_again"), (19, "bottom_up")) for i in range(2)},
    **{"boxes": "23.cv2", "classes": "23.cv3", "coefficients": "23.cv4"},
    **{f"prototypes.{i}": f"23.proto.{name}" for i, name in enumerate(("cv1", "upsample", "cv2", "cv3"))},
}
_CONSTANTS = "model.23.dfl.conv.weight"
# The authors' names of the parts of a block.
_PARTS = {
    Residual: {"first": "cv1", "second": "cv2"},
    SplitInside: {"main": "cv1", "beside": "cv2", "merge": "cv3", "blocks": "m"},
    SplitBlock: {"split": "cv1", "merge": "cv2", "blocks": "m"},
    PyramidPooling: {"reduce": "cv1", "merge": "cv2"},
    SplitAttention: {"split": "cv1", "merge": "cv2", "blocks": "m"},
    AttentionLayer: {"attention": "attn", "feed_forward": "ffn"},
    PixelAttention: {"position": "pe"},
}


def keys_of_ultralytics(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Convert a state dict with the public names of YOLO11-seg to the keys of `YOLO11Seg`.

    The authors' files hold whole pickled objects: save the `state_dict()` of the float model in the authors' own
    program, and load that. The weights are under AGPL-3.0, with whatever program they are read. An optional test
    compares names, shapes and outputs with that program; no published file was loaded.

    Args:
        state_dict: keys such as `model.0.conv.weight`.
        model: a `YOLO11Seg` of the same scale.

    Returns:
        The same tensors under our names. The constants 0 to 15 from which distances are computed are omitted, because
        they are not parameters here. Unknown keys are unchanged, so that a strict load names them.

    Raises:
        ValueError: those constants are different.
    """
    constants = state_dict.get(_CONSTANTS, torch.zeros(1)).flatten().tolist()
    if constants != list(range(len(constants))):
        raise ValueError(f"{_CONSTANTS} is {constants}, expected 0, 1, 2, ...")
    our_keys = {_their_key(key, model): key for key in model.state_dict()}
    return {our_keys.get(key, key): value for key, value in state_dict.items() if key != _CONSTANTS}


def _their_key(key: str, model: nn.Module) -> str:
    """The authors' name of the tensor with our `key`."""
    start = next((start for start in _ENTRIES if key.startswith(start + ".")), None)
    if start is None:
        return key
    names, module = ["model", _ENTRIES[start]], model.get_submodule(start)
    for part in key[len(start) + 1 :].split("."):
        names.append(_PARTS.get(type(module), {}).get(part, part))
        module = getattr(module, part)
    return ".".join(names)
