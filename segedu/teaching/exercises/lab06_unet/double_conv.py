"""double_conv: the block of the U-Net, two unpadded 3x3 convolutions, each followed by a ReLU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from segedu.semantic.unet import DoubleConv
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import module
from segedu.teaching.checks.variants import case


def module_case(rng: np.random.Generator, name: str, args: list[int], size: tuple[int, int, int]) -> Case:
    """A case of a function that returns a module, with random images of args[0] channels; size is (B, H, W)."""
    batch, height, width = size
    images = torch.from_numpy(rng.standard_normal((batch, args[0], height, width)).astype(np.float32))
    return case(name, *args, inputs=[images], seed=int(rng.integers(1, 2**31)))


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """More channels out than in and fewer, images that are not square, the smallest possible image."""
    core = [
        module_case(rng, "3 channels in, 5 out", [3, 5], (2, 9, 11)),
        module_case(rng, "1 channel in, 4 out", [1, 4], (1, 8, 7)),
    ]
    edge = [
        module_case(rng, "6 channels in, 2 out", [6, 2], (3, 7, 10)),
        module_case(rng, "a 5 x 5 image", [2, 7], (1, 5, 5)),
    ]
    return {"core": (1, core), "edge": (1, edge)}


def _block(in_channels: int, middle: int, out_channels: int, padding: int = 0) -> nn.Sequential:
    first = nn.Conv2d(in_channels, middle, 3, padding=padding)
    second = nn.Conv2d(middle, out_channels, 3, padding=padding)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


def _no_relu_between(in_channels: int, out_channels: int) -> nn.Module:
    first, _, second, relu = _block(in_channels, out_channels, out_channels)
    return nn.Sequential(first, second, relu)


def _batch_norm(in_channels: int, out_channels: int) -> nn.Module:
    first, relu, second, last = _block(in_channels, out_channels, out_channels)
    return nn.Sequential(first, nn.BatchNorm2d(out_channels), relu, second, nn.BatchNorm2d(out_channels), last)


class _Residual(nn.Module):
    """Add the input of the second convolution to its output."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first, _, self.second, _ = _block(in_channels, out_channels, out_channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.first(images).relu()
        return (self.second(features) + features[:, :, 1:-1, 1:-1]).relu()


def _without_bias(in_channels: int, out_channels: int) -> nn.Module:
    first, second = (
        nn.Conv2d(in_channels, out_channels, 3, bias=False),
        nn.Conv2d(out_channels, out_channels, 3, bias=False),
    )
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


def _leaky(in_channels: int, out_channels: int) -> nn.Module:
    first, _, second, _ = _block(in_channels, out_channels, out_channels)
    return nn.Sequential(first, nn.LeakyReLU(0.1), second, nn.LeakyReLU(0.1))


def _relu_first(in_channels: int, out_channels: int) -> nn.Module:
    first, relu, second, _ = _block(in_channels, out_channels, out_channels)
    return nn.Sequential(nn.ReLU(), first, relu, second)


def _second(kernel_size: int, padding: int) -> Callable:
    """A block with another second convolution."""

    def block(in_channels: int, out_channels: int) -> nn.Module:
        first, second = (
            nn.Conv2d(in_channels, out_channels, 3),
            nn.Conv2d(out_channels, out_channels, kernel_size, padding=padding),
        )
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())

    return block


exercise = Exercise(
    name="double_conv",
    points=2,
    cases=cases,
    reference=DoubleConv,
    wrong=[
        Wrong(
            "no ReLU between",
            _no_relu_between,
            "You have no ReLU after the first convolution, so both together are one linear map. Each needs its own "
            "ReLU.",
            "Count the ReLUs in figure 1 of the paper: each blue arrow is a convolution and a ReLU.",
        ),
        Wrong(
            "no ReLU at the end",
            lambda in_channels, out_channels: _block(in_channels, out_channels, out_channels)[:-1],
            "You have no ReLU after the second convolution. Each of the two convolutions needs its own ReLU.",
            "Each blue arrow in the figure is a convolution and a ReLU, including the second one.",
        ),
        Wrong(
            "batch normalisation",
            _batch_norm,
            "You add batch normalisation. The U-Net of 2015 has none, and this block follows it.",
            "The block has four layers. Which of your layers have parameters?",
        ),
        Wrong(
            "middle channels",
            lambda in_channels, out_channels: _block(in_channels, in_channels, out_channels),
            "Your second convolution changes the number of channels. The first one has to do so.",
            "For an image of 1 channel, how many channels does the first box after it have in the figure?",
        ),
        Wrong(
            "padding",
            lambda in_channels, out_channels: _block(in_channels, out_channels, out_channels, padding=1),
            "You pad the convolutions, so the output is as large as the input. This block is unpadded.",
            "By how many pixels does one 3x3 convolution without padding reduce the height?",
        ),
        Wrong(
            "one convolution",
            lambda in_channels, out_channels: _block(in_channels, out_channels, out_channels)[:2],
            "Your block has only one convolution. It should have two, each followed by a ReLU.",
            "How many blue arrows are there between two poolings?",
        ),
        Wrong(
            "no bias",
            _without_bias,
            "Your convolutions have no bias. They have one, as by default.",
            "Leave the argument bias as it is.",
        ),
        Wrong(
            "one 5x5 convolution",
            lambda in_channels, out_channels: nn.Sequential(nn.Conv2d(in_channels, out_channels, 5), nn.ReLU()),
            "You use one 5x5 convolution, which sees as many pixels. The block has two 3x3 convolutions.",
            "Two of them have fewer weights, and a ReLU between them.",
        ),
        Wrong(
            "leaky ReLU",
            _leaky,
            "You use leaky ReLUs. The U-Net uses ReLUs.",
            "What does a ReLU return for -1?",
        ),
        Wrong(
            "pooling in the block",
            lambda in_channels, out_channels: nn.Sequential(
                *_block(in_channels, out_channels, out_channels), nn.MaxPool2d(2)
            ),
            "Your block ends with a pooling. The pooling comes after the block, because the skip is taken in between.",
            "The block removes 4 rows and 4 columns, nothing more.",
        ),
        Wrong(
            "ReLU first",
            _relu_first,
            "You apply each ReLU before its convolution. It follows its convolution.",
            "Each blue arrow in the figure is a convolution and a ReLU, in this order.",
        ),
        Wrong(
            "second convolution 1x1",
            _second(1, 0),
            "Your second convolution is 1x1. Both are 3x3.",
            "By how many pixels do two 3x3 convolutions without padding reduce the height?",
        ),
        Wrong(
            "second convolution padded",
            _second(3, 1),
            "Your second convolution is padded. Both are unpadded, so that 4 rows and 4 columns are removed.",
            "By how many pixels do two 3x3 convolutions without padding reduce the height?",
        ),
        Wrong(
            "residual connection",
            _Residual,
            "You add the input of the second convolution to its output, as a residual block does. This block has no "
            "such connection.",
            "The block has four layers in a row.",
        ),
    ],
    tolerance=1e-5,
    kind="shape",
    probe=module,
    hides=["segedu.semantic.unet"],
)
