"""build_unet: the whole U-Net, padded, so that the logits are as large as the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.semantic.unet import UNet
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import module
from segedu.teaching.exercises.lab06_unet.double_conv import module_case


def build_unet(in_channels: int, num_classes: int, base_channels: int, depth: int) -> nn.Module:
    """A U-Net of padded convolutions.

    Args:
        in_channels: of the image.
        num_classes: channels of the logits.
        base_channels: at the full resolution; doubled at every pooling.
        depth: number of poolings.

    Returns:
        The network: (B, in_channels, H, W) -> (B, num_classes, H, W), for H and W divisible by 2**depth.
    """
    return UNet(in_channels, num_classes, base_channels, depth, padding=1)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Two and three poolings; then one, one input channel, one class, an odd number of base channels."""
    core = [
        module_case(rng, "3 channels, 4 classes, depth 2", [3, 4, 4, 2], (2, 12, 16)),
        module_case(rng, "1 channel, 2 classes, depth 3", [1, 2, 2, 3], (1, 24, 16)),
    ]
    edge = [
        module_case(rng, "one pooling", [2, 3, 5, 1], (3, 6, 4)),
        module_case(rng, "one class, as many channels as base_channels", [4, 1, 4, 2], (1, 8, 20)),
    ]
    return {"core": (3, core), "edge": (2, edge)}


def _block(before: int, after: int) -> nn.Module:
    first, second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


def _up_convolution(before: int, after: int) -> nn.Module:
    return nn.ConvTranspose2d(before, after, 2, stride=2)


def _max_pool(features: Tensor) -> Tensor:
    return F.max_pool2d(features, 2)


def _doubled(base_channels: int, depth: int) -> list[int]:
    return [base_channels * 2**level for level in range(depth + 1)]


def _pointwise(channels: int, num_classes: int) -> nn.Module:
    return nn.Conv2d(channels, num_classes, 1)


def _output_of_block(block: nn.Module, before: Tensor, after: Tensor) -> Tensor:
    return after


def _concatenate(skip: Tensor, up: Tensor) -> Tensor:
    return torch.cat([skip, up], dim=1)


@dataclass(frozen=True)
class _Parts:
    """The parts of a right network.

    Attributes:
        block: (channels before, channels after) -> two convolutions.
        up: (channels before, channels after) -> upsampling by 2.
        pool: features -> features of half the size.
        widths: (base_channels, depth) -> channels of each level.
        head: (channels, num_classes) -> last layer.
        channels: of the upsampled features and of the input of the block after them, divided by those of the level.
        skip: (block, its input, its output) -> skip.
        join: (skip, upsampled features) -> input of the block on the way up.
        end: logits -> output.
    """

    channels: tuple[int, int] = (1, 2)
    block: Callable = _block
    up: Callable = _up_convolution
    pool: Callable = _max_pool
    widths: Callable = _doubled
    head: Callable = _pointwise
    skip: Callable = _output_of_block
    join: Callable = _concatenate
    end: Callable = lambda logits: logits


class _Net(nn.Module):
    """A right network; wrong answers replace one of its parts."""

    def __init__(
        self, in_channels: int, num_classes: int, base_channels: int, depth: int, parts: _Parts = _Parts()
    ) -> None:
        super().__init__()
        self.skip, self.join, self.end, self.pool = parts.skip, parts.join, parts.end, parts.pool
        levels = parts.widths(base_channels, depth)
        self.down = nn.ModuleList(parts.block(a, b) for a, b in zip([in_channels, *levels], levels, strict=False))
        upsampled, joined = parts.channels
        pairs = list(zip(levels[:0:-1], levels[-2::-1], strict=True))
        self.up = nn.ModuleList(parts.up(below, upsampled * w) for below, w in pairs)
        self.merge = nn.ModuleList(parts.block(joined * w, w) for _, w in pairs)
        self.head = parts.head(base_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        skips, features = [], images
        for level, block in enumerate(self.down):
            before = self.pool(features) if level else features
            features = block(before)
            skips.append(self.skip(block, before, features))
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            features = merge(self.join(skip, up(features)))
        return self.end(self.head(features))


def _net_with(**parts: Any) -> Callable:
    """A network in which these parts are others."""
    return partial(_Net, parts=_Parts(**parts))


def _zeros_as_skip(skip: Tensor, up: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(skip), up], dim=1)


class SkipsZeroed(_Net):
    """The U-Net without its skips: the same weights, but each skip is a tensor of zeros."""

    def __init__(self, in_channels: int, num_classes: int, base_channels: int, depth: int) -> None:
        super().__init__(in_channels, num_classes, base_channels, depth, _Parts(join=_zeros_as_skip))


def _pooled_and_resized(block: nn.Module, before: Tensor, after: Tensor) -> Tensor:
    return F.interpolate(F.max_pool2d(after, 2), scale_factor=2) if min(after.shape[2:]) > 1 else after


def _normalised_block(before: int, after: int) -> nn.Module:
    first, relu, second, last = _block(before, after)
    return nn.Sequential(first, nn.BatchNorm2d(after), relu, second, nn.BatchNorm2d(after), last)


def _late_reduction(before: int, after: int) -> nn.Module:
    """On the way up, the second convolution reduces the channels."""
    if before != 2 * after:
        return _block(before, after)
    first, second = nn.Conv2d(before, before, 3, padding=1), nn.Conv2d(before, after, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


def _interpolated(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(before, after, 1))


class _SkipsInOrder(_Net):
    """Take the first skip first, which has another size at every depth but 1."""

    def forward(self, images: Tensor) -> Tensor:
        skips, features = [], images
        for level, block in enumerate(self.down):
            features = block(self.pool(features) if level else features)
            skips.append(features)
        for up, merge, skip in zip(self.up, self.merge, skips[:-1], strict=True):
            features = merge(self.join(skip, up(features)))
        return self.end(self.head(features))


WHERE = "Draw the U on paper and write at each grey arrow where it starts and where it ends."

exercise = Exercise(
    name="build_unet",
    points=5,
    cases=cases,
    reference=build_unet,
    wrong=[
        Wrong(
            "skip after the pooling",
            _net_with(skip=_pooled_and_resized),
            "You take the skip after the pooling, where the fine detail is lost. Take it before the pooling.",
            WHERE,
        ),
        Wrong(
            "skip from the middle of a block",
            _net_with(skip=lambda block, before, after: block[1](block[0](before))),
            "You take the skip between the two convolutions of a block. It has to be the output of the block.",
            WHERE,
        ),
        Wrong(
            "channels not halved",
            _net_with(channels=(2, 3)),
            "Your up-convolution keeps the number of channels. It has to halve the number.",
            "How many channels does each half of a concatenation have in figure 1 of the paper?",
        ),
        Wrong(
            "softmax inside",
            _net_with(end=lambda logits: logits.softmax(dim=1)),
            "Your network ends with a softmax. It has to return logits.",
            "The loss applies the softmax itself. What does a second softmax do to the gradient?",
        ),
        Wrong(
            "skips zeroed",
            SkipsZeroed,
            "Your skips have no effect on the output. They have to be concatenated with the upsampled features.",
            "Is the list that you fill on the way down used in the concatenation on the way up?",
        ),
        Wrong(
            "adds",
            _net_with(channels=(1, 1), join=torch.add),
            "You add the skip to the upsampled features. The U-Net concatenates them.",
            "How many channels does the first convolution after the concatenation expect?",
        ),
        Wrong(
            "up first",
            _net_with(join=lambda skip, up: torch.cat([up, skip], dim=1)),
            "You concatenate the upsampled features first and the skip second. The skip has to come first.",
            "The two orders need different weights in the next layer, so the exercise fixes one of them.",
        ),
        Wrong(
            "ReLU at the end",
            _net_with(end=torch.relu),
            "You apply a ReLU after the last convolution. Leave it out, because logits can be negative.",
            "How does the last arrow of the figure differ from the others?",
        ),
        Wrong(
            "no second ReLU",
            _net_with(block=lambda before, after: _block(before, after)[:-1]),
            "Your blocks have no ReLU after their second convolution. Each of the two convolutions needs its own ReLU.",
            "Each blue arrow in the figure is a convolution and a ReLU, including the second one.",
        ),
        Wrong(
            "batch normalisation",
            _net_with(block=_normalised_block),
            "Your blocks have batch normalisation. The U-Net of 2015 has none.",
            "Which of your layers have parameters?",
        ),
        Wrong(
            "channels reduced late",
            _net_with(block=_late_reduction),
            "On the way up, the second convolution of your blocks reduces the channels. The first one has to do so.",
            "How many channels does the box after the first arrow have in the figure?",
        ),
        Wrong(
            "interpolation and 1x1 convolution",
            _net_with(up=_interpolated),
            "You upsample by interpolation and a 1x1 convolution. This U-Net has a 2x2 transposed convolution there.",
            "torch.nn.ConvTranspose2d with a stride of 2.",
        ),
        Wrong(
            "ReLU after the up-convolution",
            _net_with(up=lambda before, after: nn.Sequential(_up_convolution(before, after), nn.ReLU())),
            "You apply a ReLU after each up-convolution. It has none.",
            "Only the blue arrows of the figure have a ReLU.",
        ),
        Wrong(
            "up-convolution without bias",
            _net_with(up=lambda before, after: nn.ConvTranspose2d(before, after, 2, stride=2, bias=False)),
            "Your up-convolutions have no bias. They have one, as by default.",
            "Leave the argument bias as it is.",
        ),
        Wrong(
            "3x3 up-convolution",
            _net_with(
                up=lambda before, after: nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1),
            ),
            "Your up-convolution has a 3x3 kernel. It has to be 2x2 with a stride of 2.",
            "Each pixel becomes four pixels that do not overlap with those of its neighbours.",
        ),
        Wrong(
            "average pooling",
            _net_with(pool=lambda features: F.avg_pool2d(features, 2)),
            "You pool by the mean. The U-Net takes the maximum.",
            "Which pooling do the red arrows of the figure stand for?",
        ),
        Wrong(
            "3x3 head",
            _net_with(head=lambda channels, classes: nn.Conv2d(channels, classes, 3, padding=1)),
            "Your last convolution is 3x3. It has to be 1x1.",
            "It classifies each pixel by its own features.",
        ),
        Wrong(
            "bottom not doubled",
            _net_with(widths=lambda base, depth: [base * 2 ** min(level, depth - 1) for level in range(depth + 1)]),
            "The block at the bottom does not double the channels. Every level has twice as many as the one above.",
            "In the figure, the bottom has 1,024 channels, and the level above has 512.",
        ),
        Wrong(
            "channels added",
            _net_with(widths=lambda base, depth: [base * (level + 1) for level in range(depth + 1)]),
            "Your channels grow by base_channels per level. They double.",
            "64, 128, 256, 512, 1,024.",
        ),
        Wrong(
            "a level too few",
            lambda in_channels, num_classes, base_channels, depth: _Net(
                in_channels, num_classes, base_channels, depth - 1
            ),
            "Your network has one pooling too few. depth is the number of poolings.",
            "With depth 1, there is one pooling and one up-convolution.",
        ),
        Wrong(
            "skips in the wrong order",
            _SkipsInOrder,
            "You use the skips in the order in which they were made. The last one is needed first.",
            "pop() returns the last entry of a list.",
        ),
    ],
    tolerance=1e-5,
    kind="shape",
    probe=module,
    hides=["segedu.semantic.unet"],
)
