"""The whole net, padded, so that the logits are as large as the image: it is trained later in the lab."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.semantic.unet import UNet
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import module


def build_unet(in_channels: int, num_classes: int, base_channels: int, depth: int) -> nn.Module:
    """A U-Net of padded convolutions.

    Args:
        in_channels: of the image.
        num_classes: channels of the logits.
        base_channels: at the full resolution; doubled at every pooling.
        depth: number of poolings.

    Returns:
        The net: (B, in_channels, H, W) -> (B, num_classes, H, W), for H and W divisible by 2**depth.
    """
    return UNet(in_channels, num_classes, base_channels, depth, padding=1)


def _case(rng: np.random.Generator, name: str, args: list[int], size: tuple[int, int, int]) -> Case:
    batch, height, width = size
    images = torch.from_numpy(rng.standard_normal((batch, args[0], height, width)).astype(np.float32))
    return {"name": name, "args": args, "inputs": [images], "seed": int(rng.integers(1, 2**31))}


def build_unet_cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Two and three poolings, then one, one input channel, one class, an odd number of base channels."""
    return {
        "core": (
            3,
            [
                _case(rng, "3 channels, 4 classes, depth 2", [3, 4, 4, 2], (2, 12, 16)),
                _case(rng, "1 channel, 2 classes, depth 3", [1, 2, 2, 3], (1, 24, 16)),
            ],
        ),
        "edge": (
            2,
            [
                _case(rng, "one pooling", [2, 3, 5, 1], (3, 6, 4)),
                _case(rng, "one class, as many channels as base", [4, 1, 4, 2], (1, 8, 20)),
            ],
        ),
    }


def _block(before: int, after: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.Conv2d(after, after, 3, padding=1), nn.ReLU()
    )


class _Net(nn.Module):
    """A right net whose parts the wrong ones replace."""

    def __init__(self, in_channels: int, num_classes: int, base_channels: int, depth: int) -> None:
        super().__init__()
        widths = [base_channels * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([in_channels, *widths], widths, strict=False))
        self.up = nn.ModuleList(self.up_conv(2 * width) for width in widths[-2::-1])
        self.merge = nn.ModuleList(_block(self.joined(width), width) for width in widths[-2::-1])
        self.head = nn.Conv2d(base_channels, num_classes, 1)

    def up_conv(self, before: int) -> nn.Module:
        return nn.ConvTranspose2d(before, before // 2, 2, stride=2)

    def joined(self, width: int) -> int:
        return 2 * width

    def skip(self, block: nn.Module, before: Tensor, after: Tensor) -> Tensor:
        return after

    def join(self, skip: Tensor, up: Tensor) -> Tensor:
        return torch.cat([skip, up], dim=1)

    def end(self, logits: Tensor) -> Tensor:
        return logits

    def forward(self, images: Tensor) -> Tensor:
        skips, features = [], images
        for level, block in enumerate(self.down):
            before = F.max_pool2d(features, 2) if level else features
            features = block(before)
            skips.append(self.skip(block, before, features))
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            features = merge(self.join(skip, up(features)))
        return self.end(self.head(features))


class SkipAfterPooling(_Net):
    """Keeps what the pooling left and stretches it until it fits."""

    def skip(self, block: nn.Module, before: Tensor, after: Tensor) -> Tensor:
        return F.interpolate(F.max_pool2d(after, 2), scale_factor=2) if min(after.shape[2:]) > 1 else after


class SkipFromTheMiddle(_Net):
    """Keeps the features between the two convolutions of a block."""

    def skip(self, block: nn.Module, before: Tensor, after: Tensor) -> Tensor:
        return block[1](block[0](before))


class ChannelsNotHalved(_Net):
    """The up-convolution keeps its channels."""

    def up_conv(self, before: int) -> nn.Module:
        return nn.ConvTranspose2d(before, before, 2, stride=2)

    def joined(self, width: int) -> int:
        return 3 * width


class SoftmaxInside(_Net):
    """Probabilities come out, not logits."""

    def end(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=1)


class SkipsZeroed(_Net):
    """The U-Net without its skips: as many weights, but zeros come through the grey arrows."""

    def join(self, skip: Tensor, up: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(skip), up], dim=1)


class Adds(_Net):
    """Sums, as other nets do."""

    def joined(self, width: int) -> int:
        return width

    def join(self, skip: Tensor, up: Tensor) -> Tensor:
        return skip + up


class UpFirst(_Net):
    """Concatenates in the other order."""

    def join(self, skip: Tensor, up: Tensor) -> Tensor:
        return torch.cat([up, skip], dim=1)


class ReluAtTheEnd(_Net):
    """Treats the 1x1 convolution as one of the others."""

    def end(self, logits: Tensor) -> Tensor:
        return logits.relu()


WHERE = "Draw the U on paper and write at each grey arrow where it leaves and where it arrives."

exercise = Exercise(
    name="build_unet",
    points=5,
    cases=build_unet_cases,
    reference=build_unet,
    wrong=[
        Wrong(
            "skip after the pooling",
            SkipAfterPooling,
            "You take the skip after the pooling, where the fine detail is already gone.",
            hint=WHERE,
        ),
        Wrong(
            "skip from the middle of a block",
            SkipFromTheMiddle,
            "You take the skip between the two convolutions of a block, not at its end.",
            hint=WHERE,
        ),
        Wrong(
            "channels not halved",
            ChannelsNotHalved,
            "Your up-convolution keeps the number of channels; it has to halve it.",
            hint="How many channels does each half of the concatenated box have in figure 1 of the paper?",
        ),
        Wrong(
            "softmax inside",
            SoftmaxInside,
            "Your net ends with a softmax; it has to return logits.",
            hint="The loss takes the softmax itself. What does a second softmax do to the gradient?",
        ),
        Wrong(
            "skips zeroed",
            SkipsZeroed,
            "Nothing comes through your skips: the output is the same as with zeros in their place.",
            hint="Does the list that you fill on the way down reach the concatenation on the way up?",
        ),
        Wrong(
            "adds",
            Adds,
            "You add the skip to the up-sampled features; the U-Net concatenates them.",
            hint="How many channels go into the first convolution after the concatenation?",
        ),
        Wrong(
            "up first",
            UpFirst,
            "You concatenate the up-sampled features first and the skip second.",
            hint="The two orders need different weights, so the statement fixes one. Which one?",
        ),
        Wrong(
            "ReLU at the end",
            ReluAtTheEnd,
            "You put a ReLU after the last convolution: a logit must be able to be negative.",
            hint="What is special about the last arrow of the figure?",
        ),
    ],
    tolerance=1e-5,
    kind="shape",
    probe=module,
    hides=["segedu.semantic.unet"],
)
