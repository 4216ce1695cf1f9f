"""fcn8_fuse: scores of strides 32, 16 and 8, upsampled, aligned by a crop, and added."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Offsets = tuple[int, int]


def _upsample(scores: Tensor, kernel: Tensor) -> Tensor:
    return F.conv_transpose2d(scores, kernel, stride=2)


def _crop(scores: Tensor, offset: int, like: Tensor) -> Tensor:
    height, width = like.shape[-2:]
    return scores[..., offset : offset + height, offset : offset + width]


def _add_skip(
    scores: Tensor, skip: Tensor, kernel: Tensor, offset: int, upsample: Callable = _upsample, crop: Callable = _crop
) -> Tensor:
    """Upsample the scores and add the part of the skip that lies under them."""
    up = upsample(scores, kernel)
    return up + crop(skip, offset, up)


def fcn8_fuse(score32: Tensor, score16: Tensor, score8: Tensor, kernel: Tensor, offsets: Offsets) -> Tensor:
    """Upsample the coarsest scores and add the cropped finer ones, twice.

    Args:
        score32: (B, K, h, w), coarsest.
        score16: (B, K, H, W).
        score8: (B, K, H, W), finest.
        kernel: (K, K, 4, 4) of the transposed convolution.
        offsets: first row and column of the crops of score16 and of score8.

    Returns:
        (B, K, 4h + 6, 4w + 6).
    """
    return _add_skip(_add_skip(score32, score16, kernel, offsets[0]), score8, kernel, offsets[1])


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The paper's offsets, others; then nothing to crop, one class, coarse scores of one pixel."""

    def scores_of(name: str, shape: tuple, offsets: Offsets, rest: tuple[int, int], wider: int = 1) -> Case:
        """Random scores; `rest` rows remain below each crop, and `wider` columns more at its right, if any."""
        B, K, h, w = shape

        def scores(*size: int) -> Tensor:
            return torch.from_numpy(rng.normal(0, 2, (B, K, *size)))

        def skip(side: tuple[int, int], offset: int, more: int) -> Tensor:
            return scores(side[0] + offset + more, side[1] + offset + more + wider * (more > 0))

        middle, fine = (2 * h + 2, 2 * w + 2), (4 * h + 6, 4 * w + 6)
        kernel = torch.from_numpy(rng.uniform(0.2, 1, (K, K, 4, 4)))
        args = scores(h, w), skip(middle, offsets[0], rest[0]), skip(fine, offsets[1], rest[1]), kernel, offsets
        return case(name, *args)

    core = [
        scores_of("offsets 5 and 9 of the paper", (2, 3, 2, 4), (5, 9), (4, 9)),
        scores_of("offsets 2 and 1", (1, 4, 3, 2), (2, 1), (5, 4)),
        scores_of("as much to crop at both ends", (2, 2, 1, 2), (1, 3), (1, 3), wider=0),
    ]
    edge = [
        scores_of("nothing to crop", (2, 2, 2, 3), (0, 0), (0, 0)),
        scores_of("one class", (1, 1, 3, 2), (1, 3), (2, 0)),
        scores_of("coarse scores of one pixel", (1, 3, 1, 1), (3, 2), (0, 6)),
    ]
    return {"core": (3, core), "edge": (1, edge)}


right = Variants(fcn8_fuse)
without_score8 = right.given(score8=lambda a: torch.zeros_like(a.score8))


def _fuse(a: SimpleNamespace, **parts: Callable) -> Tensor:
    """The right fusion with another way to upsample or to crop."""
    scores = _add_skip(a.score32, a.score16, a.kernel, a.offsets[0], **parts)
    return _add_skip(scores, a.score8, a.kernel, a.offsets[1], **parts)


def _centre_crop(scores: Tensor, offset: int, like: Tensor) -> Tensor:
    top, left = (scores.shape[-2] - like.shape[-2]) // 2, (scores.shape[-1] - like.shape[-1]) // 2
    return scores[..., top : top + like.shape[-2], left : left + like.shape[-1]]


def _resize(scores: Tensor, offset: int, like: Tensor) -> Tensor:
    return F.interpolate(scores, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _interpolate(scores: Tensor, kernel: Tensor) -> Tensor:
    size = [2 * side + 2 for side in scores.shape[-2:]]
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def _concatenate(a: SimpleNamespace) -> Tensor:
    up = _upsample(a.score32, a.kernel)
    middle = _upsample(_crop(a.score16, a.offsets[0], up), a.kernel)
    up = _upsample(up, a.kernel)
    return torch.cat([up, middle, _crop(a.score8, a.offsets[1], up)], dim=1)


def _sum_before_upsampling(a: SimpleNamespace) -> Tensor:
    """Pool each skip to the size of the coarser scores, add there, upsample afterwards."""
    B, K, h, w = a.score32.shape
    middle, fine = torch.empty(2 * h + 2, 2 * w + 2), torch.empty(4 * h + 6, 4 * w + 6)
    first = F.avg_pool2d(_crop(a.score16, a.offsets[0], middle), 4, stride=2)
    second = F.avg_pool2d(_crop(a.score8, a.offsets[1], fine), 4, stride=2)
    return _upsample(_upsample(a.score32 + first, a.kernel) + second, a.kernel)


def _softmax_first(a: SimpleNamespace) -> Tensor:
    return fcn8_fuse(*(scores.softmax(1) for scores in (a.score32, a.score16, a.score8)), a.kernel, a.offsets)


def _swap_offsets(a: SimpleNamespace) -> Tensor:
    score16, score8 = F.pad(a.score16, [0, 32, 0, 32]), F.pad(a.score8, [0, 32, 0, 32])  # large enough for any offset
    return fcn8_fuse(a.score32, score16, score8, a.kernel, a.offsets[::-1])


def _same_at_the_end(skip: Tensor, offset: int, like: Tensor) -> Tensor:
    return skip[..., offset : skip.shape[-2] - offset, offset : skip.shape[-1] - offset]


def _rows_only(skip: Tensor, offset: int, like: Tensor) -> Tensor:
    return skip[..., offset : offset + like.shape[-2], : like.shape[-1]]


def _row_and_column(a: SimpleNamespace) -> Tensor:
    top, left = a.offsets

    def crop(skip: Tensor, offset: int, like: Tensor) -> Tensor:
        return skip[..., top : top + like.shape[-2], left : left + like.shape[-1]]

    return _fuse(a, crop=crop)


def _each_class_alone(scores: Tensor, kernel: Tensor) -> Tensor:
    own = kernel.diagonal().permute(2, 0, 1)[:, None]
    return F.conv_transpose2d(scores, own, stride=2, groups=len(kernel))


def _with_relu(after_last: bool) -> Callable:
    def compute(a: SimpleNamespace) -> Tensor:
        scores = _add_skip(a.score32, a.score16, a.kernel, a.offsets[0]).relu()
        scores = _add_skip(scores, a.score8, a.kernel, a.offsets[1])
        return scores.relu() if after_last else scores

    return right.instead(compute)


def _softmax_after_upsampling(a: SimpleNamespace) -> Tensor:
    return _fuse(
        a,
        upsample=lambda scores, kernel: _upsample(scores, kernel).softmax(1),
        crop=lambda skip, offset, like: _crop(skip, offset, like).softmax(1),
    )


def _adds_in_place(score32: Tensor, score16: Tensor, score8: Tensor, kernel: Tensor, offsets: Offsets) -> Tensor:
    scores = score32
    for skip, offset in ((score16, offsets[0]), (score8, offsets[1])):
        up = _upsample(scores, kernel)
        scores = _crop(skip, offset, up)
        scores += up
    return scores


def _late_crop(skip: Tensor, offset: int, like: Tensor) -> Tensor:
    """Begin no later than the map allows."""
    top, left = min(offset, skip.shape[-2] - like.shape[-2]), min(offset, skip.shape[-1] - like.shape[-1])
    return skip[..., top : top + like.shape[-2], left : left + like.shape[-1]]


def _swapped(crop: Callable) -> Callable:
    def compute(a: SimpleNamespace) -> Tensor:
        scores = _add_skip(a.score32, a.score16, a.kernel, a.offsets[1], crop=crop)
        return _add_skip(scores, a.score8, a.kernel, a.offsets[0], crop=crop)

    return right.instead(compute)


TWO_SKIPS = "There are two skips, so there are two additions."

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
            right.instead(_concatenate),
            "You concatenate the scores of the three strides. FCN adds them, class by class.",
            "How many channels does your result have? The sum of scores for K classes has K channels.",
        ),
        Wrong(
            "concatenates the last",
            Variants(without_score8).then(lambda out, a: torch.cat([out, _crop(a.score8, a.offsets[1], out)], dim=1)),
            "You concatenate score8 with the other scores. FCN adds them, class by class.",
            "How many channels does your result have?",
        ),
        Wrong(
            "cut at the top left",
            right.given(offsets=lambda a: (0, 0)),
            "You begin each crop at row 0 and column 0. It has to begin at the offset of the skip.",
            "The first offsets[0] rows and columns of score16 lie outside the crop.",
        ),
        Wrong(
            "centre cut",
            right.instead(lambda a: _fuse(a, crop=_centre_crop)),
            "You crop the centre of each skip. The crop has to begin at the offset, which need not be in the centre.",
            "The offset follows from the paddings and strides of the network. Use the one that is given.",
        ),
        Wrong(
            "offset on both sides",
            right.instead(
                lambda a: _fuse(a, crop=lambda skip, offset, like: skip[..., offset:-offset, offset:-offset])
            ),
            "You remove `offset` rows and columns at both ends. The crop begins at the offset and is as large as the "
            "upsampled scores.",
            "At the far end, more rows than `offset` may be left over, or none.",
        ),
        Wrong(
            "offsets swapped",
            right.instead(_swap_offsets),
            "You swap the offsets. The first one belongs to score16, the second one to score8.",
            "In the network of the paper they are 5 and 9.",
        ),
        Wrong(
            "skip resized",
            right.instead(lambda a: _fuse(a, crop=_resize)),
            "You resize the skips to fit, which moves every pixel. Crop them, so that each pixel keeps its position.",
            "Crop from the offset on, as many rows and columns as the upsampled scores have.",
        ),
        Wrong(
            "sums before upsampling",
            right.instead(_sum_before_upsampling),
            "You downsample the fine scores before you add, which loses their detail. Upsample the coarse scores "
            "instead.",
            "Which of the two resolutions should the sum have?",
        ),
        Wrong(
            "softmax before the sum",
            right.instead(_softmax_first),
            "You apply the softmax before you add. FCN adds scores; the softmax is applied once, in the loss.",
            "With scores, a confident layer can outvote an uncertain one. Probabilities lie between 0 and 1.",
        ),
        Wrong(
            "finest scores left out",
            without_score8,
            "You do not add score8. Upsample the sum once more, and add score8 to it.",
            TWO_SKIPS,
        ),
        Wrong(
            "one step only",
            right.instead(lambda a: _add_skip(a.score32, a.score16, a.kernel, a.offsets[0])),
            "You stop after score16, at stride 16. The sum has to be upsampled once more and added to score8.",
            TWO_SKIPS,
        ),
        Wrong(
            "middle scores left out",
            right.given(score16=lambda a: torch.zeros_like(a.score16)),
            "You do not add score16. It belongs to the sum after the first upsampling.",
            TWO_SKIPS,
        ),
        Wrong(
            "mean in place of the sum",
            right.instead(lambda a: fcn8_fuse(a.score32 / 4, a.score16 / 4, a.score8 / 2, a.kernel, a.offsets)),
            "You take the mean of the upsampled scores and the skip. FCN takes their sum.",
            "With a mean, the coarse scores count half as much after each addition.",
        ),
        Wrong(
            "padded transposed convolution",
            right.instead(lambda a: _fuse(a, upsample=lambda s, k: F.conv_transpose2d(s, k, stride=2, padding=1))),
            "You pad the transposed convolution, so h rows become 2h. They have to become 2h + 2.",
            "Padding a transposed convolution crops its output. This exercise uses no padding.",
        ),
        Wrong(
            "kernel unused",
            right.instead(lambda a: _fuse(a, upsample=_interpolate)),
            "You interpolate without the kernel. Upsample with a transposed convolution, whose weight is the given "
            "kernel.",
            "In FCN, the weights of this upsampling are learned. Look at torch.nn.functional.conv_transpose2d.",
        ),
        Wrong(
            "kernel's channels swapped",
            right.given(kernel=lambda a: a.kernel.transpose(0, 1)),
            "You swap the channels of the kernel. In a transposed convolution the input channels come first.",
            "Pass the kernel to conv_transpose2d as it is.",
        ),
        Wrong(
            "same at the end",
            right.instead(lambda a: _fuse(a, crop=_same_at_the_end)),
            "You remove as many rows and columns at the end as at the beginning. The crop is as large as the upsampled "
            "scores.",
            "At the far end, more rows than the offset may be left over, or none.",
        ),
        Wrong(
            "offset of rows only",
            right.instead(lambda a: _fuse(a, crop=_rows_only)),
            "Your crop begins at the offset in the rows, but at 0 in the columns. The offset holds for both.",
            "Each offset is the first row and the first column of a crop.",
        ),
        Wrong(
            "offsets as row and column",
            right.instead(_row_and_column),
            "You use the two offsets as the row and the column of both crops. The first belongs to score16, the second "
            "to score8.",
            "Each offset is the first row and the first column of a crop.",
        ),
        Wrong(
            "offsets swapped, as given",
            _swapped(_crop),
            "You use the two offsets in the wrong order. The first one belongs to score16, the second one to score8.",
            "In the network of the paper they are 5 and 9.",
        ),
        Wrong(
            "offsets swapped, limited",
            _swapped(_late_crop),
            "You exchange the two offsets. The first one belongs to score16, the second one to score8.",
            "In the network of the paper they are 5 and 9.",
        ),
        Wrong(
            "classes upsampled alone",
            right.instead(lambda a: _fuse(a, upsample=_each_class_alone)),
            "You upsample each class by its own kernel only. The kernel also has weights between different classes.",
            "Pass the whole kernel to conv_transpose2d, without groups.",
        ),
        Wrong(
            "kernel not flipped",
            right.given(kernel=lambda a: a.kernel.flip(2, 3)),
            "Your transposed convolution does not flip the kernel where it needs to. Each score places the kernel as "
            "it is.",
            "A single score of 1 must give the kernel itself.",
        ),
        Wrong(
            "ReLU after the first sum",
            _with_relu(after_last=False),
            "You apply a ReLU to the first sum. Scores are logits, so they may be negative.",
            "FCN adds scores without an activation.",
        ),
        Wrong(
            "ReLU after each sum",
            _with_relu(after_last=True),
            "You apply a ReLU to each sum. Scores are logits, so they may be negative.",
            "FCN adds scores without an activation.",
        ),
        Wrong(
            "softmax after upsampling",
            right.instead(_softmax_after_upsampling),
            "You apply the softmax to both maps before you add them. FCN adds scores; the softmax is applied once, in "
            "the loss.",
            "With scores, a confident layer can outvote an uncertain one. Probabilities lie between 0 and 1.",
        ),
        Wrong(
            "adds in place",
            _adds_in_place,
            "You add into a crop of score16 and score8, which changes the arguments. Write the sum into a new tensor.",
            "A slice shares its memory with the tensor; `a + b` makes a new one, and `a += b` does not.",
        ),
    ],
)
