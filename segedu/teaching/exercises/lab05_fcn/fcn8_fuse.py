"""fcn8_fuse: scores of three strides, each brought up, laid on the next finer one, and added."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Offsets = tuple[int, int]


def _double(scores: Tensor, kernel: Tensor) -> Tensor:
    return F.conv_transpose2d(scores, kernel, stride=2)


def _cut(scores: Tensor, offset: int, like: Tensor) -> Tensor:
    height, width = like.shape[-2:]
    return scores[..., offset : offset + height, offset : offset + width]


def fcn8_fuse(score32: Tensor, score16: Tensor, score8: Tensor, kernel: Tensor, offsets: Offsets) -> Tensor:
    """Bring up, lay on, add; twice.

    Args:
        score32: (B, K, h, w), coarsest.
        score16: (B, K, H, W).
        score8: (B, K, H, W), finest.
        kernel: (K, K, 4, 4) of the transposed convolution.
        offsets: where the cut begins in score16 and in score8.

    Returns:
        (B, K, 4h + 6, 4w + 6).
    """
    up = _double(score32, kernel)
    up = _double(up + _cut(score16, offsets[0], up), kernel)
    return up + _cut(score8, offsets[1], up)


def _case(
    rng: np.random.Generator, name: str, shape: tuple, offsets: Offsets, rest: tuple[int, int], wider: int = 1
) -> Case:
    """Random scores; below the cuts `rest` rows are left, and `wider` columns more at the right, if any."""
    B, K, h, w = shape

    def scores(*size: int) -> Tensor:
        return torch.from_numpy(rng.normal(0, 2, (B, K, *size)))

    def skip(side: tuple[int, int], offset: int, more: int) -> Tensor:
        return scores(side[0] + offset + more, side[1] + offset + more + wider * (more > 0))

    middle, fine = (2 * h + 2, 2 * w + 2), (4 * h + 6, 4 * w + 6)
    kernel = torch.from_numpy(rng.uniform(0.2, 1, (K, K, 4, 4)))
    args = [scores(h, w), skip(middle, offsets[0], rest[0]), skip(fine, offsets[1], rest[1]), kernel, offsets]
    return {"name": name, "args": args}


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The paper's offsets, others; then nothing to cut, one class, coarse scores of one pixel.

    Args:
        rng: of scores and kernels.

    Returns:
        The cases by group.
    """
    return {
        "core": (
            3,
            [
                _case(rng, "offsets 5 and 9 of the paper", (2, 3, 2, 4), (5, 9), (4, 9)),
                _case(rng, "offsets 2 and 1", (1, 4, 3, 2), (2, 1), (5, 4)),
                _case(rng, "as much to cut at both ends", (2, 2, 1, 2), (1, 3), (1, 3), wider=0),
            ],
        ),
        "edge": (
            1,
            [
                _case(rng, "nothing to cut", (2, 2, 2, 3), (0, 0), (0, 0)),
                _case(rng, "one class", (1, 1, 3, 2), (1, 3), (2, 0)),
                _case(rng, "coarse scores of one pixel", (1, 3, 1, 1), (3, 2), (0, 6)),
            ],
        ),
    }


def _variant(
    cut: Callable = _cut, double: Callable = _double, before: Callable = lambda s: s, swap: bool = False
) -> Callable:
    """An answer that is right but for the parts given."""

    def answer(score32: Tensor, score16: Tensor, score8: Tensor, kernel: Tensor, offsets: Offsets) -> Tensor:
        first, second = offsets[::-1] if swap else offsets
        up = double(before(score32), kernel)
        up = double(up + cut(before(score16), first, up), kernel)
        return up + cut(before(score8), second, up)

    return answer


def _centre(scores: Tensor, offset: int, like: Tensor) -> Tensor:
    top, left = (scores.shape[-2] - like.shape[-2]) // 2, (scores.shape[-1] - like.shape[-1]) // 2
    return scores[..., top : top + like.shape[-2], left : left + like.shape[-1]]


def _resized(scores: Tensor, offset: int, like: Tensor) -> Tensor:
    return F.interpolate(scores, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _both_ends(scores: Tensor, offset: int, like: Tensor) -> Tensor:
    return scores[..., offset:-offset, offset:-offset]


def concatenates(score32: Tensor, score16: Tensor, score8: Tensor, kernel: Tensor, offsets: Offsets) -> Tensor:
    """Everything at stride 8, side by side."""
    up = _double(score32, kernel)
    middle = _double(_cut(score16, offsets[0], up), kernel)
    up = _double(up, kernel)
    return torch.cat([up, middle, _cut(score8, offsets[1], up)], dim=1)


def concatenates_last(score32: Tensor, score16: Tensor, score8: Tensor, kernel: Tensor, offsets: Offsets) -> Tensor:
    """Adds the first skip, concatenates the second."""
    up = _double(score32, kernel)
    up = _double(up + _cut(score16, offsets[0], up), kernel)
    return torch.cat([up, _cut(score8, offsets[1], up)], dim=1)


def sums_before(score32: Tensor, score16: Tensor, score8: Tensor, kernel: Tensor, offsets: Offsets) -> Tensor:
    """Shrinks each skip to the coarser scores, adds there, brings up afterwards."""
    B, K, h, w = score32.shape
    middle, fine = score32.new_empty(2 * h + 2, 2 * w + 2), score32.new_empty(4 * h + 6, 4 * w + 6)
    first = F.avg_pool2d(_cut(score16, offsets[0], middle), 4, stride=2)
    second = F.avg_pool2d(_cut(score8, offsets[1], fine), 4, stride=2)
    return _double(_double(score32 + first, kernel) + second, kernel)


def no_finest(score32: Tensor, score16: Tensor, score8: Tensor, kernel: Tensor, offsets: Offsets) -> Tensor:
    """FCN-16 at stride 8."""
    up = _double(score32, kernel)
    return _double(up + _cut(score16, offsets[0], up), kernel)


def one_step(score32: Tensor, score16: Tensor, score8: Tensor, kernel: Tensor, offsets: Offsets) -> Tensor:
    """FCN-16 at stride 16."""
    up = _double(score32, kernel)
    return up + _cut(score16, offsets[0], up)


def no_middle(score32: Tensor, score16: Tensor, score8: Tensor, kernel: Tensor, offsets: Offsets) -> Tensor:
    """Straight from stride 32 to stride 8."""
    up = _double(_double(score32, kernel), kernel)
    return up + _cut(score8, offsets[1], up)


def averages(score32: Tensor, score16: Tensor, score8: Tensor, kernel: Tensor, offsets: Offsets) -> Tensor:
    """The mean of two in place of the sum."""
    up = _double(score32, kernel)
    up = _double((up + _cut(score16, offsets[0], up)) / 2, kernel)
    return (up + _cut(score8, offsets[1], up)) / 2


def _padded(scores: Tensor, kernel: Tensor) -> Tensor:
    """Padding 1: twice the size exactly."""
    return F.conv_transpose2d(scores, kernel, stride=2, padding=1)


def _interpolated(scores: Tensor, kernel: Tensor) -> Tensor:
    """Bilinear to the right size, the kernel unused."""
    size = [2 * side + 2 for side in scores.shape[-2:]]
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def _argument_order(scores: Tensor, kernel: Tensor) -> Tensor:
    """Input and output channels of the kernel swapped."""
    return F.conv_transpose2d(scores, kernel.transpose(0, 1), stride=2)


exercise = Exercise(
    name="fcn8_fuse",
    points=4,
    cases=cases,
    reference=fcn8_fuse,
    kind="shape",
    hides=["segedu.semantic.fcn"],
    wrong=[
        Wrong(
            "concatenates",
            concatenates,
            "You concatenate the scores of three strides: FCN adds them, class by class.",
            "How many channels has the result? Three opinions about K classes add up to K numbers.",
        ),
        Wrong(
            "concatenates the last",
            concatenates_last,
            "You concatenate the finest scores: FCN adds them, class by class.",
            "How many channels has the result?",
        ),
        Wrong(
            "cut at the top left",
            _variant(cut=lambda scores, offset, like: _cut(scores, 0, like)),
            "You cut the skips at the top left corner: their offset says which pixel lies under the first of yours.",
            "offsets[0] rows and columns of score16 lie outside.",
        ),
        Wrong(
            "centre cut",
            _variant(cut=_centre),
            "You cut the centre out of the skips: what is left over at the two ends need not be the same.",
            "The offset is a fact of the paddings and strides. Use the one that is given.",
        ),
        Wrong(
            "offset on both sides",
            _variant(cut=_both_ends),
            "You cut the offset off at both ends: at the end there may be more, or nothing, to cut.",
            "Where the cut begins is given, and how large it is you see from what was brought up.",
        ),
        Wrong(
            "offsets swapped",
            _variant(swap=True, cut=lambda scores, offset, like: _cut(F.pad(scores, [0, 32, 0, 32]), offset, like)),
            "You swap the offsets: the first belongs to score16, the second to score8.",
            "In the paper's network they are 5 and 9.",
        ),
        Wrong(
            "skip resized",
            _variant(cut=_resized),
            "You resize the skips to fit: that moves every pixel, where a cut leaves them in place.",
            "Cut from the offset on, as many rows and columns as were brought up.",
        ),
        Wrong(
            "sums before upsampling",
            sums_before,
            "You shrink the fine scores and add before you bring up: what made them worth having is lost.",
            "Bring the coarse ones up to the fine ones, not the fine ones down.",
        ),
        Wrong(
            "softmax before the sum",
            _variant(before=lambda scores: scores.softmax(1)),
            "You take the softmax before you add: FCN adds scores; the softmax comes once, in the loss.",
            "A probability says how sure one layer is. Scores let a sure layer outvote an unsure one.",
        ),
        Wrong(
            "finest scores left out",
            no_finest,
            "You leave score8 out: that is FCN-16.",
            "Two skips, two additions.",
        ),
        Wrong(
            "one step only",
            one_step,
            "You stop after score16, at stride 16: the sum has to be brought up once more, and score8 added.",
            "Two skips, two additions.",
        ),
        Wrong(
            "middle scores left out",
            no_middle,
            "You leave score16 out.",
            "Two skips, two additions.",
        ),
        Wrong(
            "mean in place of the sum",
            averages,
            "You take the mean of the two: FCN adds.",
            "The next scores would count half as much at each step.",
        ),
        Wrong(
            "padded transposed convolution",
            _variant(double=_padded),
            "You pad the transposed convolution: h rows must become 2h + 2, and yours become 2h.",
            "Padding cuts the border off. The statement asks for none.",
        ),
        Wrong(
            "kernel unused",
            _variant(double=_interpolated),
            "You interpolate and leave the kernel unused: in FCN these weights are learnt.",
            "torch.nn.functional.conv_transpose2d(scores, kernel, stride=2).",
        ),
        Wrong(
            "kernel's channels swapped",
            _variant(double=_argument_order),
            "You swap input and output channels of the kernel: in a transposed convolution the input comes first.",
            "Give conv_transpose2d the kernel as it is.",
        ),
    ],
)
