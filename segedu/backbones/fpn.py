"""FPN: a feature pyramid with the same number of channels on each level, and semantic features on the fine levels too.

Paper: Lin, Dollár, Girshick, He, Hariharan, Belongie, "Feature Pyramid Networks for Object Detection", CVPR 2017, arXiv
    1612.03144. Levels P6 and P7: Lin, Goyal, Girshick, He, Dollár, "Focal Loss for Dense Object Detection", ICCV 2017,
    arXiv 1708.02002.
Idea: The fine features of a backbone localise well, the coarse ones classify well. From the coarsest level down, each
    level is upsampled and added to the next finer one. Small objects are then detected on fine features that have the
    semantics of coarse ones.
Simplified: nothing.
Shapes: images (B, C, H, W) -> a list of features (B, out_channels, h_i, w_i), fine to coarse, with the sizes of the
    backbone's features, followed by the extra levels, each half as large, rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from segedu.validation.numbers import check_integer


class PoolLevel(nn.Module):
    """One more level, for very large objects: every second row and column of the coarsest level."""

    count = 1

    def forward(self, pyramid: list[Tensor], features: Tensor) -> list[Tensor]:
        return [pyramid[-1][..., ::2, ::2]]


class LevelsP6P7(nn.Module):
    """Two more levels by 3x3 convolutions of stride 2: section 4 of RetinaNet.

    Args:
        in_channels: C of their input.
        out_channels: C of the pyramid.
        from_features: True: the input is the backbone's coarsest feature map, as in the paper. False: the coarsest
            level of the pyramid, as in later networks.
    """

    count = 2

    def __init__(self, in_channels: int, out_channels: int, from_features: bool = True) -> None:
        super().__init__()
        if not from_features and in_channels != out_channels:
            raise ValueError(f"in_channels is {in_channels}, expected {out_channels}, the out_channels of the pyramid")
        self.from_features = from_features
        self.p6 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, kernel_size=3, stride=2, padding=1)
        _init(self)

    def forward(self, pyramid: list[Tensor], features: Tensor) -> list[Tensor]:
        p6 = self.p6(features if self.from_features else pyramid[-1])
        return [p6, self.p7(F.relu(p6))]


class TopDown(nn.Module):
    """The top-down pathway on existing features: figure 3 of the paper.

    Args:
        in_channels: C of each of the features, fine to coarse.
        out_channels: C of each level of the pyramid.
        extra: adds levels after the coarsest one, or None.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, extra: nn.Module | None = None) -> None:
        super().__init__()
        # Each convolution is in a Sequential, as in torchvision, where a normalisation may follow it.
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(C, out_channels, 1)) for C in in_channels)
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(out_channels, out_channels, 3, padding=1)) for _ in in_channels
        )
        _init(self)
        self.extra_blocks = extra

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        merged = [inner(x) for inner, x in zip(self.inner_blocks, features, strict=True)]
        for i in reversed(range(len(merged) - 1)):
            # Paper: upsampling by 2; for odd sizes it is slightly less.
            merged[i] = merged[i] + F.interpolate(merged[i + 1], size=merged[i].shape[-2:], mode="nearest")
        # the 3x3 convolution removes the aliasing of nearest upsampling
        pyramid = [layer(x) for layer, x in zip(self.layer_blocks, merged, strict=True)]
        return pyramid if self.extra_blocks is None else pyramid + self.extra_blocks(pyramid, features[-1])


class FPN(nn.Module):
    """A backbone with a feature pyramid; state dict keys `body.*` and `fpn.*` as in torchvision's detectors.

    Args:
        backbone: returns a list of features, fine to coarse, and has their `channels` and `strides`.
        out_channels: C of each level of the pyramid.
        levels: the backbone's features that are used, fine to coarse. (1, 2, 3, 4) of a ResNet are C2 to C5 of the
            paper.
        extra: `PoolLevel` or `LevelsP6P7`, or None.

    Attributes:
        channels: C of each level.
        strides: stride of each level in pixels.
    """

    def __init__(
        self,
        backbone: nn.Module,
        out_channels: int = 256,
        levels: Sequence[int] = (1, 2, 3, 4),
        extra: nn.Module | None = None,
    ) -> None:
        super().__init__()
        last = len(backbone.channels) - 1
        if not len(levels) or list(levels) != sorted(set(levels)) or not 0 <= levels[0] <= levels[-1] <= last:
            raise ValueError(f"levels is {tuple(levels)}, expected ascending indices of the features 0 to {last}")
        check_integer("out_channels", out_channels)
        self.levels = tuple(levels)
        self.body = backbone
        self.fpn = TopDown([backbone.channels[i] for i in levels], out_channels, extra)
        num_extra = 0 if extra is None else extra.count
        coarsest = backbone.strides[levels[-1]]
        self.strides = (*(backbone.strides[i] for i in levels), *(coarsest * 2**i for i in range(1, num_extra + 1)))
        self.channels = (out_channels,) * len(self.strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.body(images)
        return self.fpn([features[i] for i in self.levels])


def _init(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
