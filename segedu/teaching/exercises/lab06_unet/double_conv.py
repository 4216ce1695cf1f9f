"""The block of the U-Net: two unpadded 3x3 convolutions, each with its ReLU."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from segedu.semantic.unet import DoubleConv
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import module


def _case(rng: np.random.Generator, name: str, channels: tuple[int, int], size: tuple[int, int, int]) -> Case:
    batch, height, width = size
    images = rng.standard_normal((batch, channels[0], height, width)).astype(np.float32)
    seed = int(rng.integers(1, 2**31))
    return {"name": name, "args": list(channels), "inputs": [torch.from_numpy(images)], "seed": seed}


def double_conv_cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Growing and shrinking channels, non-square images, the smallest image of all."""
    return {
        "core": (
            1,
            [
                _case(rng, "3 channels in, 5 out", (3, 5), (2, 9, 11)),
                _case(rng, "1 channel in, 4 out", (1, 4), (1, 8, 7)),
            ],
        ),
        "edge": (
            1,
            [
                _case(rng, "6 channels in, 2 out", (6, 2), (3, 7, 10)),
                _case(rng, "a 5 x 5 image", (2, 7), (1, 5, 5)),
            ],
        ),
    }


def _conv(before: int, after: int, padding: int = 0) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel_size=3, padding=padding)


def _no_relu_between(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(_conv(in_channels, out_channels), _conv(out_channels, out_channels), nn.ReLU())


def _no_relu_at_the_end(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(_conv(in_channels, out_channels), nn.ReLU(), _conv(out_channels, out_channels))


def _batch_norm(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        _conv(in_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU(),
        _conv(out_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU(),
    )  # fmt: skip


def _middle_as_input(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(_conv(in_channels, in_channels), nn.ReLU(), _conv(in_channels, out_channels), nn.ReLU())


def _padded(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        _conv(in_channels, out_channels, 1), nn.ReLU(), _conv(out_channels, out_channels, 1), nn.ReLU()
    )


def _one_convolution(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(_conv(in_channels, out_channels), nn.ReLU())


exercise = Exercise(
    name="double_conv",
    points=2,
    cases=double_conv_cases,
    reference=DoubleConv,
    wrong=[
        Wrong(
            "no ReLU between",
            _no_relu_between,
            "You have no ReLU between the two convolutions: together they are then one linear map.",
            hint="Count the ReLUs in figure 1 of the paper: every blue arrow is a convolution and a ReLU.",
        ),
        Wrong(
            "no ReLU at the end",
            _no_relu_at_the_end,
            "You leave out the ReLU after the second convolution.",
            hint="Every blue arrow of the figure is a convolution and a ReLU, the second one too.",
        ),
        Wrong(
            "batch normalisation",
            _batch_norm,
            "You add batch normalisation: the U-Net of 2015 has none, "
            "and the bias of a convolution before it would be there twice.",
            hint="The block has four layers. Which of yours hold parameters?",
        ),
        Wrong(
            "middle channels",
            _middle_as_input,
            "Your first convolution keeps the number of channels and the second one changes it.",
            hint="How many channels does the first white box after an image of 1 channel have in the figure?",
        ),
        Wrong(
            "padding",
            _padded,
            "You pad the convolutions, so the output is as large as the input; this block is unpadded.",
            hint="How many pixels does one 3x3 convolution without padding take off the height?",
        ),
        Wrong(
            "one convolution",
            _one_convolution,
            "Your block has only one convolution.",
            hint="It is called double_conv: how many blue arrows are there between two poolings?",
        ),
    ],
    tolerance=1e-5,
    kind="shape",
    probe=module,
    hides=["segedu.semantic.unet"],
)
