"""tconv2d: transposed convolution, one input pixel after the other."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.convolution import transposed_conv2d_scatter
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.exercises.lab03_convolution.conv2d_loops import lopsided, numbers


def tconv2d(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The library's `transposed_conv2d_scatter`, without bias, output padding and dilation."""
    return transposed_conv2d_scatter(images, weight, None, stride, padding)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """2x2 to 5x5, overlapping patches with several channels, padding; patches apart, one pixel, more channels out,
    a wide cut.

    Args:
        rng: of all values.

    Returns:
        The cases by group.
    """
    small = torch.tensor([[[[1.0, 2], [3, 4]]]], dtype=torch.float64) + float(rng.integers(0, 3))
    return {
        "core": (
            3,
            [
                {"name": "2x2 to 5x5", "args": [small, lopsided(rng, 1, 1, 3, 3), 2, 0]},
                {
                    "name": "2 images, 3 channels, stride 1",
                    "args": [numbers(rng, 2, 3, 3, 4), lopsided(rng, 3, 3, 3, 2), 1, 0],
                },
                {
                    "name": "stride 2, padding 1",
                    "args": [numbers(rng, 2, 2, 4, 3), lopsided(rng, 2, 2, 4, 4), 2, 1],
                },
            ],
        ),
        "edge": (
            1,
            [
                {"name": "2 channels to 4", "args": [numbers(rng, 1, 2, 3, 2), lopsided(rng, 2, 4, 3, 3), 2, 1]},
                {
                    "name": "a stride larger than the kernel",
                    "args": [numbers(rng, 1, 3, 2, 3), lopsided(rng, 3, 3, 2, 2), 4, 0],
                },
                {"name": "one pixel", "args": [numbers(rng, 2, 1, 1, 1), lopsided(rng, 1, 1, 3, 5), 3, 0]},
                {
                    "name": "stride 2, padding 3",
                    "args": [numbers(rng, 1, 2, 3, 4), lopsided(rng, 2, 1, 5, 6), 2, 3],
                },
            ],
        ),
    }


def _patches(images: Tensor, weight: Tensor, stride: int, add: bool, step: int | None = None) -> Tensor:
    """The canvas before the cut."""
    (B, _, H, W), (_, Cout, Kh, Kw) = images.shape, weight.shape
    canvas = images.new_zeros(B, Cout, (H - 1) * stride + Kh, (W - 1) * stride + Kw)
    step = stride if step is None else step
    for y in range(H):
        for x in range(W):
            rows, columns = slice(y * step, y * step + Kh), slice(x * step, x * step + Kw)
            patch = torch.einsum("bc,cohw->bohw", images[:, :, y, x], weight)
            canvas[:, :, rows, columns] = patch + canvas[:, :, rows, columns] * add
    return canvas


def _cut(canvas: Tensor, padding: int) -> Tensor:
    return canvas[:, :, padding : canvas.shape[2] - padding, padding : canvas.shape[3] - padding]


def overwrites(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Later patches replace earlier ones."""
    return _cut(_patches(images, weight, stride, add=False), padding)


def channels_swapped(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Reads the weight as (Cout, Cin, Kh, Kw)."""
    return F.conv_transpose2d(images, weight.transpose(0, 1), None, stride, padding)


def flipped(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Convolves the image with zeros in between, and the kernel as it lies."""
    return F.conv_transpose2d(images, weight.flip(2, 3), None, stride, padding)


def padded(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Adds zeros around in place of cutting."""
    return F.pad(_patches(images, weight, stride, add=True), [padding] * 4)


def cut_nothing(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """[P:-P], which is empty for P = 0."""
    return _patches(images, weight, stride, add=True)[:, :, padding:-padding, padding:-padding]


def not_cut(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Ignores the padding."""
    return _patches(images, weight, stride, add=True)


def cut_at_the_end(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Cuts 2P at the end, nothing in front."""
    canvas = _patches(images, weight, stride, add=True)
    return canvas[:, :, : canvas.shape[2] - 2 * padding, : canvas.shape[3] - 2 * padding]


def no_step(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Right size, but patches begin at the input's own coordinates."""
    return _cut(_patches(images, weight, stride, add=True, step=1), padding)


def atrous(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """A convolution whose kernel is dilated by the stride."""
    span = [stride * (k - 1) for k in weight.shape[2:]]
    wide = F.pad(images, [span[1], span[1], span[0], span[0]])
    return _cut(F.conv2d(wide, weight.transpose(0, 1), None, dilation=stride), padding)


exercise = Exercise(
    name="tconv2d",
    points=4,
    cases=cases,
    reference=tconv2d,
    kind="matrix",
    hides=["segedu.ops.convolution", "segedu.ops.pooling"],
    wrong=[
        Wrong(
            "overwrites",
            overwrites,
            "A later patch overwrites the earlier one: where patches overlap they add.",
            "= or +=?",
        ),
        Wrong(
            "channels swapped",
            channels_swapped,
            "You read the weight as (Cout, Cin, Kh, Kw): here the input channel comes first.",
            "It is the weight of the convolution that runs the other way, so its output is your input.",
        ),
        Wrong(
            "flipped kernel",
            flipped,
            "Your kernel is turned by 180 degrees: each input pixel puts down the kernel as it lies.",
            "One input pixel of value 1 must give the kernel itself. (Zeros in between and a convolution need a flip.)",
        ),
        Wrong(
            "padding added",
            padded,
            "You add a border of padding: in a transposed convolution P rows and columns are cut from each side.",
            "The result must have (H - 1)S + K - 2P rows.",
        ),
        Wrong(
            "cut of -0",
            cut_nothing,
            "You cut with [P:-P]: for P = 0 that is [0:0], and nothing is left.",
            "Count the end from the front: the size minus P.",
        ),
        Wrong(
            "padding ignored",
            not_cut,
            "You do not cut the padding off.",
            "P rows and columns go on each side, after all patches are down.",
        ),
        Wrong(
            "cut at the end",
            cut_at_the_end,
            "You cut 2P rows and columns at the end: P go on each side.",
            "The size is right, but everything has moved.",
        ),
        Wrong(
            "stride only in the size",
            no_step,
            "Your patches begin in every row: the patch of input row y begins in output row y * S.",
            "The size of your result is right. Look at where the second patch lies.",
        ),
        Wrong(
            "dilated in place of transposed",
            atrous,
            "You dilate the kernel: the stride of a transposed convolution moves patches apart, with a dense kernel.",
            "One input pixel must leave an unbroken patch of Kh by Kw.",
        ),
    ],
)
