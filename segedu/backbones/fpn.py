"""FPN: a pyramid of features that are all of the same width, and as rich on the fine levels as on the coarse ones.

Paper: Lin, Dollár, Girshick, He, Hariharan, Belongie, "Feature Pyramid Networks for Object Detection", CVPR 2017,
    arXiv 1612.03144. Levels P6 and P7: Lin, Goyal, Girshick, He, Dollár, "Focal Loss for Dense Object Detection",
    ICCV 2017, arXiv 1708.02002.
Idea: A backbone's fine features know where, its coarse ones know what. So each level is enlarged and added to the
    next finer one, from the coarsest down: then small objects are found on fine features that know what they are.
Simplified: nothing.
Shapes: images (B, C, H, W) -> a list of features (B, out_channels, h_i, w_i), fine to coarse, of the sizes that the
    backbone's features have, and the extra levels, each half as large, rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class PoolLevel(nn.Module):
    """One more level: every second place of the coarsest one. Only boxes of very large objects are looked for there."""

    count = 1

    def forward(self, pyramid: list[Tensor], features: Tensor) -> list[Tensor]:
        return [pyramid[-1][..., ::2, ::2]]


class LevelsP6P7(nn.Module):
    """Two more levels by 3x3 convolutions of stride 2: section 4 of RetinaNet.

    Args:
        in_channels: C of what they start from.
        out_channels: of the pyramid.
        from_features: True: they start from the backbone's coarsest features, as in the paper; False: from the
            coarsest level of the pyramid, as later networks do.
    """

    count = 2

    def __init__(self, in_channels: int, out_channels: int, from_features: bool = True) -> None:
        super().__init__()
        if not from_features and in_channels != out_channels:
            raise ValueError(f"in_channels is {in_channels}, expected {out_channels} as out_channels: of the pyramid")
        self.from_features = from_features
        self.p6 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, kernel_size=3, stride=2, padding=1)
        _init(self)

    def forward(self, pyramid: list[Tensor], features: Tensor) -> list[Tensor]:
        p6 = self.p6(features if self.from_features else pyramid[-1])
        return [p6, self.p7(F.relu(p6))]


class TopDown(nn.Module):
    """The pyramid on features that are there already: figure 3 of the paper.

    Args:
        in_channels: C of each of the features, fine to coarse.
        out_channels: C of each level of the pyramid.
        extra: what makes more levels behind the coarsest one, or None.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, extra: nn.Module | None = None) -> None:
        super().__init__()
        # Each convolution in a Sequential of its own: torchvision's keys have a place for a normalisation behind it.
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(C, out_channels, 1)) for C in in_channels)
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(out_channels, out_channels, 3, padding=1)) for _ in in_channels
        )
        _init(self)
        self.extra_blocks = extra

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        merged = [inner(x) for inner, x in zip(self.inner_blocks, features, strict=True)]
        for i in reversed(range(len(merged) - 1)):
            # Paper: twice as large; of an odd size it is a bit less.
            merged[i] = merged[i] + F.interpolate(merged[i + 1], size=merged[i].shape[-2:], mode="nearest")
        # the 3x3 convolution smooths what the enlarging left as blocks
        pyramid = [layer(x) for layer, x in zip(self.layer_blocks, merged, strict=True)]
        return pyramid if self.extra_blocks is None else pyramid + self.extra_blocks(pyramid, features[-1])


class FPN(nn.Module):
    """A backbone and the pyramid on it; keys `body.*` and `fpn.*` as those of torchvision's detectors.

    Args:
        backbone: gives a list of features, fine to coarse, and has `channels` and `strides` of them.
        out_channels: C of each level of the pyramid.
        levels: which of the backbone's features the pyramid stands on, fine to coarse. (1, 2, 3, 4) of a ResNet are
            C2 to C5 of the paper.
        extra: `PoolLevel` or `LevelsP6P7`, or None.

    Attributes:
        channels: C of each level, as a backbone has them.
        strides: pixels from one place to the next, of each level.
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
        if out_channels < 1:
            raise ValueError(f"out_channels is {out_channels}, expected at least 1")
        self.levels = tuple(levels)
        self.body = backbone
        self.fpn = TopDown([backbone.channels[i] for i in levels], out_channels, extra)
        more = 0 if extra is None else extra.count
        coarsest = backbone.strides[levels[-1]]
        self.strides = (*(backbone.strides[i] for i in levels), *(coarsest * 2**i for i in range(1, more + 1)))
        self.channels = (out_channels,) * len(self.strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.body(images)
        return self.fpn([features[i] for i in self.levels])


def _init(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
