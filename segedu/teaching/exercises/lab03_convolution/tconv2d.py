"""tconv2d: transposed convolution, one input pixel at a time."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.convolution import transposed_conv2d_scatter
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab03_convolution.conv2d_loops import lopsided, numbers


def tconv2d(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The library's `transposed_conv2d_scatter`, without bias, output padding and dilation."""
    return transposed_conv2d_scatter(images, weight, None, stride, padding)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """2x2 to 5x5, overlapping patches with several channels, padding; separate patches, one pixel, a large crop."""
    small = torch.tensor([[[[1.0, 2], [3, 4]]]], dtype=torch.float64) + float(rng.integers(0, 3))

    def drawn(name: str, images: tuple, weight: tuple, stride: int, padding: int) -> Case:
        return case(name, numbers(rng, *images), lopsided(rng, *weight), stride, padding)

    core = [
        case("2x2 to 5x5", small, lopsided(rng, 1, 1, 3, 3), 2, 0),
        drawn("2 images, 3 channels, stride 1", (2, 3, 3, 4), (3, 3, 3, 2), 1, 0),
        drawn("stride 2, padding 1", (2, 2, 4, 3), (2, 2, 4, 4), 2, 1),
    ]
    edge = [
        drawn("2 channels to 4", (1, 2, 3, 2), (2, 4, 3, 3), 2, 1),
        drawn("a stride larger than the kernel", (1, 3, 2, 3), (3, 3, 2, 2), 4, 0),
        drawn("one pixel", (2, 1, 1, 1), (1, 1, 3, 5), 3, 0),
        drawn("stride 2, padding 3", (1, 2, 3, 4), (2, 1, 5, 6), 2, 3),
    ]
    return {"core": (3, core), "edge": (1, edge)}


def _cropped(canvas: Tensor, padding: int) -> Tensor:
    return F.pad(canvas, [-padding] * 4)


def overwrites(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Let later patches replace earlier ones."""
    (B, _, H, W), (_, Cout, Kh, Kw) = images.shape, weight.shape
    canvas = images.new_zeros(B, Cout, (H - 1) * stride + Kh, (W - 1) * stride + Kw)
    for y in range(H):
        for x in range(W):
            patch = torch.einsum("bc,cohw->bohw", images[:, :, y, x], weight)
            canvas[:, :, y * stride : y * stride + Kh, x * stride : x * stride + Kw] = patch
    return _cropped(canvas, padding)


def dense_patches(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The right size, but the patch of input row y starts at output row y."""
    canvas, dense = (tconv2d(images, weight, s, 0) for s in (stride, 1))
    missing = [whole - part for whole, part in zip(canvas.shape[2:], dense.shape[2:], strict=True)]
    return _cropped(F.pad(dense, [0, missing[1], 0, missing[0]]), padding)


def atrous(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """A convolution whose kernel is dilated by the stride."""
    span = [stride * (k - 1) for k in weight.shape[2:]]
    wide = F.pad(images, [span[1], span[1], span[0], span[0]])
    return _cropped(F.conv2d(wide, weight.transpose(0, 1), None, dilation=stride), padding)


right = Variants(tconv2d)
canvas = Variants(right.given(padding=lambda a: 0))


def _patches(images: Tensor, weight: Tensor, stride: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Sums of the patches and how many meet at each pixel, on a canvas of this size."""
    sums, count = images.new_zeros(len(images), weight.shape[1], *size), images.new_zeros(size)
    Kh, Kw = weight.shape[2:]
    for y, x in np.ndindex(*images.shape[2:]):
        rows, columns = slice(y * stride[0], y * stride[0] + Kh), slice(x * stride[1], x * stride[1] + Kw)
        sums[:, :, rows, columns] += torch.einsum("bc,cohw->bohw", images[:, :, y, x], weight)
        count[rows, columns] += 1
    return sums, count


def overlap_averaged(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Divide by the number of patches that meet."""
    size = [(n - 1) * stride + k for n, k in zip(images.shape[2:], weight.shape[2:], strict=True)]
    sums, count = _patches(images, weight, (stride, stride), size)
    return _cropped(sums / count.clamp(min=1), padding)


def side_by_side(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Place patches a kernel apart, on a canvas of the right size."""
    whole = [n * k for n, k in zip(images.shape[2:], weight.shape[2:], strict=True)]
    size = [(n - 1) * stride + k for n, k in zip(images.shape[2:], weight.shape[2:], strict=True)]
    canvas_size = [max(pair) for pair in zip(whole, size, strict=True)]
    sums, _ = _patches(images, weight, tuple(weight.shape[2:]), canvas_size)
    return _cropped(sums[:, :, : size[0], : size[1]], padding)


def spread_kernel(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Spread the taps of the kernel by the stride, and add one patch per pixel."""
    (H, W), (Kh, Kw) = images.shape[2:], weight.shape[2:]
    out = images.new_zeros(len(images), weight.shape[1], H + (Kh - 1) * stride, W + (Kw - 1) * stride)
    for u, v in np.ndindex(Kh, Kw):
        part = torch.einsum("bcij,co->boij", images, weight[:, :, u, v])
        out[:, :, u * stride : u * stride + H, v * stride : v * stride + W] += part
    return _cropped(out, padding)


def outputs_first(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Sum over the second axis of the weight, and make as many outputs as its first has."""
    size = [(n - 1) * stride + k for n, k in zip(images.shape[2:], weight.shape[2:], strict=True)]
    out = images.new_zeros(len(images), weight.shape[1], *size)
    for c, o in np.ndindex(images.shape[1], weight.shape[1]):
        plane, _ = _patches(images[:, c : c + 1], weight[o, c][None, None], (stride, stride), size)
        out[:, o] += plane[:, 0]
    return _cropped(out, padding)


def kernel_overwritten(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Multiply pixels into the kernel in place; the last product of each input channel remains."""
    out = tconv2d(images, weight, stride, padding)
    weight.mul_(images[-1, :, -1, -1][:, None, None, None])
    return out


wrong = [
    Wrong(
        "overwrites",
        overwrites,
        "Your later patches overwrite earlier ones. Where patches overlap, they add up.",
        "Do you use = or +=?",
    ),
    Wrong(
        "channels swapped",
        right.instead(lambda a: F.conv_transpose2d(a.images, a.weight.transpose(0, 1), None, a.stride, a.padding)),
        "You read the weight as (Cout, Cin, Kh, Kw). Here the input channel comes first.",
        "It is the weight of the convolution in the other direction, whose output is your input.",
    ),
    Wrong(
        "flipped kernel",
        right.given(weight=lambda a: a.weight.flip(2, 3)),
        "Your kernel is rotated by 180 degrees. Each input pixel adds the kernel as it is.",
        "One input pixel of value 1 must give the kernel itself. (Inserting zeros and convolving needs a flip.)",
    ),
    Wrong(
        "padding added",
        canvas.then(lambda out, a: F.pad(out, [a.padding] * 4)),
        "You add a border of padding. A transposed convolution crops P rows and columns from each side.",
        "The result must have (H - 1)S + K - 2P rows.",
    ),
    Wrong(
        "cut of -0",
        canvas.then(lambda out, a: out[:, :, a.padding : -a.padding, a.padding : -a.padding]),
        "If P is 0, your result is empty. This looks like the slice [P:-P], which is then [0:0]. Crop nothing if P "
        "is 0.",
        "Count the end of the slice from the front: the size minus P.",
    ),
    Wrong(
        "padding ignored",
        right.given(padding=lambda a: 0),
        "You do not crop the padding. Crop P rows and columns from each side of the result.",
        "Crop after all patches are added.",
    ),
    Wrong(
        "cut at the end",
        canvas.then(lambda out, a: F.pad(out, [0, -2 * a.padding, 0, -2 * a.padding])),
        "You crop 2P rows and columns at the end. Crop P from each side.",
        "The size of your result is right, but its content is shifted.",
    ),
    Wrong(
        "stride only in the size",
        dense_patches,
        "Your patches start at every row. The patch of input row y starts at output row y * S.",
        "The size of your result is right. Look at where the second patch starts.",
    ),
    Wrong(
        "dilated in place of transposed",
        atrous,
        "You dilate the kernel. The stride of a transposed convolution moves patches apart; the kernel stays dense.",
        "One input pixel must give a patch of Kh by Kw pixels without gaps.",
    ),
    Wrong(
        "padding cropped in front only",
        canvas.then(lambda out, a: out[:, :, a.padding :, a.padding :]),
        "You crop the padding above and on the left only. Crop P rows and columns from each side.",
        "The result must have (H - 1)S + K - 2P rows.",
    ),
    Wrong(
        "twice the padding cropped",
        canvas.then(
            lambda out, a: out[
                :, :, 2 * a.padding : out.shape[2] - 2 * a.padding, 2 * a.padding : out.shape[3] - 2 * a.padding
            ]
        ),
        "You crop 2P rows and columns from each side. Crop P.",
        "The result must have (H - 1)S + K - 2P rows.",
    ),
    Wrong(
        "input cropped",
        canvas.given(
            images=lambda a: a.images[
                :, :, a.padding : a.images.shape[2] - a.padding, a.padding : a.images.shape[3] - a.padding
            ]
        ),
        "You crop the padding from the input. Crop it from the result.",
        "Crop after all patches are added.",
    ),
    Wrong(
        "input padded",
        canvas.given(images=lambda a: F.pad(a.images, [a.padding] * 4)),
        "You pad the input, as a convolution does. A transposed convolution crops its result.",
        "The result must have (H - 1)S + K - 2P rows.",
    ),
    Wrong(
        "border set to 0",
        right.then(lambda out, a: F.pad(out, [a.padding] * 4)),
        "You set the border of P pixels to 0. Crop it.",
        "The result must have (H - 1)S + K - 2P rows.",
    ),
    Wrong(
        "last channel only",
        right.given(images=lambda a: a.images[:, -1:], weight=lambda a: a.weight[-1:]),
        "Only the last input channel counts in your result. Sum over all input channels.",
        "Do not make the result anew for each channel.",
    ),
    Wrong(
        "mean over the channels",
        right.then(lambda out, a: out / a.images.shape[1]),
        "You average over the input channels. Sum over them.",
        "Use sum, not mean.",
    ),
    Wrong(
        "first image only",
        right.then(lambda out, a: torch.cat([out[:1], torch.zeros_like(out[1:])])),
        "You process the first image only. Every image of the batch has a result.",
        "The first axis of images is the batch.",
    ),
    Wrong(
        "batch summed",
        right.then(lambda out, a: out.sum(0, keepdim=True).expand_as(out)),
        "You add all images of the batch into one map. Each image has its own result.",
        "The first axis of images is the batch.",
    ),
    Wrong(
        "overlap averaged",
        overlap_averaged,
        "Where patches overlap, you take their mean. They add up.",
        "A transposed convolution is linear: twice the input gives twice the output.",
    ),
    Wrong(
        "patches side by side",
        side_by_side,
        "You place the patches a kernel size apart. The patch of input row y starts at output row y * S.",
        "With a stride smaller than the kernel, patches overlap.",
    ),
    Wrong(
        "kernel spread by the stride",
        spread_kernel,
        "You spread the taps of the kernel by the stride. The stride moves patches apart; the kernel stays dense.",
        "One input pixel must give a patch of Kh by Kw pixels without gaps.",
    ),
    Wrong(
        "a step too many",
        canvas.then(
            lambda out, a: F.pad(out, [0, a.stride, 0, a.stride])[
                :, :, a.padding : out.shape[2] + a.stride - a.padding, a.padding : out.shape[3] + a.stride - a.padding
            ]
        ),
        "Your result has S rows and columns too many: you count H steps between H pixels. There are only H - 1.",
        "One input pixel gives one kernel and no step.",
    ),
    Wrong(
        "outputs first",
        outputs_first,
        "You index the weight as [output, input]. Here the input channel comes first.",
        "It is the weight of the convolution in the other direction, whose output is your input.",
    ),
    Wrong(
        "kernel overwritten",
        kernel_overwritten,
        "You multiply into the kernel in place, which changes the argument. Write the product into a new tensor.",
        "`a * b` makes a new tensor, and `a.mul_(b)` or `a *= b` does not.",
    ),
]

exercise = Exercise(
    name="tconv2d",
    points=4,
    cases=cases,
    reference=tconv2d,
    wrong=wrong,
    kind="matrix",
    hides=["segedu.ops.convolution", "segedu.ops.pooling"],
)
