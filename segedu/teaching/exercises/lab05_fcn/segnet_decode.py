"""segnet_decode: unpool by the encoder's indices, then fill the gaps by a convolution, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.pooling import max_pool_with_indices, max_unpool
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Size = tuple[int, int]


def segnet_decode(
    features: Tensor, indices: Sequence[Tensor], sizes: Sequence[Size], weights: Sequence[Tensor]
) -> Tensor:
    """Unpool by the encoder's indices and convolve, from the last pooling back to the first.

    Args:
        features: (B, C, h, w), after the last pooling.
        indices: of each pooling, the first pooling first.
        sizes: (H, W) before each pooling, in the same order.
        weights: of the convolution after the unpooling of each pooling, in the same order.

    Returns:
        (B, K, H, W).
    """
    return _decode(features, indices, sizes, weights)


def _relu_except_last(features: Tensor, stage: int) -> Tensor:
    return features.relu() if stage else features


def _decode(
    features: Tensor,
    indices: Sequence[Tensor],
    sizes: Sequence[Size],
    weights: Sequence[Tensor],
    unpool: Callable = max_unpool,
    activate: Callable = _relu_except_last,
) -> Tensor:
    for stage in reversed(range(len(indices))):
        features = unpool(features, indices[stage], sizes[stage])
        features = activate(F.conv2d(features, weights[stage], padding=1), stage)
    return features


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """One stage, two, three; then odd sizes in one stage, in the middle, and everywhere."""

    def decoder(name: str, shape: tuple[int, int, int], channels: Sequence[int]) -> Case:
        """Indices of an encoder of poolings only; `channels` go from the logits to the last pooling."""
        B, *size = shape
        indices, sizes = [], []
        for channel in channels[1:]:
            count = B * channel * size[0] * size[1]
            plane = torch.from_numpy(rng.permutation(count).reshape(B, channel, *size) / count)
            plane[..., 1, 1] = 2.0  # the first maximum is at the end of its window, in every plane
            sizes.append(tuple(size))
            values, where = max_pool_with_indices(plane, 2)
            indices.append(where)
            size = list(values.shape[2:])
        pairs = zip(channels[:-1], channels[1:], strict=True)
        weights = [torch.from_numpy(rng.normal(0, 1, (after, before, 3, 3))) for after, before in pairs]
        return case(name, torch.from_numpy(rng.normal(0, 2, values.shape)), indices, sizes, weights)

    core = [
        decoder("one stage", (2, 4, 6), (3, 2)),
        decoder("two stages", (2, 8, 12), (4, 2, 3)),
        decoder("three stages", (1, 16, 8), (2, 3, 4, 5)),
    ]
    edge = [
        decoder("one stage, odd sizes", (2, 5, 7), (3, 2)),
        decoder("two stages, odd in the middle", (1, 10, 14), (3, 4, 2)),
        decoder("three images, every size odd", (3, 7, 11), (2, 4, 3)),
    ]
    return {"core": (3, core), "edge": (1, edge)}


right = Variants(segnet_decode)


def _decode_with(**parts: Callable) -> Callable:
    """A wrong answer with another unpooling or another activation."""
    return right.instead(lambda a: _decode(**vars(a), **parts))


def _transposed(features: Tensor, indices: Sequence, sizes: Sequence, weights: Sequence) -> Tensor:
    """The weights in a transposed convolution with a stride of 2, padded with zeros up to an odd size."""
    for stage in reversed(range(len(indices))):
        weight = weights[stage].transpose(0, 1)
        up = F.conv_transpose2d(features, weight, stride=2, padding=1, output_padding=1)
        short = [n - m for n, m in zip(sizes[stage], up.shape[2:], strict=True)]
        features = _relu_except_last(F.pad(up, [0, short[1], 0, short[0]]), stage)
    return features


def _top_left(features: Tensor, indices: Tensor, size: Size) -> Tensor:
    out = features.new_zeros(*features.shape[:2], *size)
    out[..., : 2 * features.shape[2] : 2, : 2 * features.shape[3] : 2] = features
    return out


def _bilinear(features: Tensor, indices: Tensor, size: Size) -> Tensor:
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def _unpool_at(position: Callable[[Tensor, Tensor, Size], tuple[Tensor, Tensor]]) -> Callable:
    """An unpooling with other rows and columns of the maxima."""

    def unpool(features: Tensor, indices: Tensor, size: Size) -> Tensor:
        out = features.new_zeros(*features.shape[:2], *size)
        rows, columns = position(features, indices, size)
        rows, columns = rows.clamp(max=size[0] - 1), columns.clamp(max=size[1] - 1)
        images, channels = torch.arange(len(features)), torch.arange(features.shape[1])
        out[images[:, None, None, None], channels[None, :, None, None], rows, columns] = features
        return out

    return _decode_with(unpool=unpool)


def _column_first(features: Tensor, indices: Tensor, size: Size) -> Tensor:
    """Read an index as column * height + row."""
    flat = features.new_zeros(*features.shape[:2], size[0] * size[1])
    return flat.scatter(2, indices.flatten(2), features.flatten(2)).unflatten(2, size[::-1]).transpose(2, 3)


def _within_window(features: Tensor, indices: Tensor, size: Size) -> Tensor:
    """Read an index as a position in the window, 0 to 3."""
    out, position = features.new_zeros(*features.shape[:2], *size), indices % 4
    height, width = (2 * side for side in features.shape[2:])
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        out[..., dy:height:2, dx:width:2] = torch.where(position == 2 * dy + dx, features, 0.0)
    return out


def _weights_in_order(a: SimpleNamespace) -> Tensor:
    features, count = a.features, len(a.indices)
    for stage in reversed(range(count)):
        features = max_unpool(features, a.indices[stage], a.sizes[stage])
        features = _relu_except_last(F.conv2d(features, a.weights[count - 1 - stage], padding=1), stage)
    return features


def _relu_before(a: SimpleNamespace) -> Tensor:
    features = a.features
    for stage in reversed(range(len(a.indices))):
        features = max_unpool(features, a.indices[stage], a.sizes[stage])
        features = F.conv2d(features.relu(), a.weights[stage], padding=1)
    return features


def _first_stage_missing(a: SimpleNamespace) -> Tensor:
    features = a.features
    for stage in range(len(a.indices) - 1, 0, -1):
        features = max_unpool(features, a.indices[stage], a.sizes[stage])
        features = F.conv2d(features, a.weights[stage], padding=1).relu()
    return F.conv2d(features, a.weights[0], padding=1)


UNUSED = "Your code does not use the indices. What are they for?"
SHAPE = "indices[i] has the same shape as the features."
RELU = "The ReLU follows every convolution except the last."

exercise = Exercise(
    name="segnet_decode",
    points=4,
    cases=cases,
    reference=segnet_decode,
    kind="map",
    wrong=[
        Wrong(
            "indices of the wrong stage",
            right.given(
                indices=lambda a: a.indices[::-1], sizes=lambda a: a.sizes[::-1], weights=lambda a: a.weights[::-1]
            ),
            "You begin with the indices of the first pooling. The decoder undoes the last pooling first.",
            "Compare the shape of features with the shapes in the list.",
        ),
        Wrong(
            "transposed convolution",
            _transposed,
            "You upsample by a transposed convolution. SegNet instead puts each maximum back at its position.",
            UNUSED,
        ),
        Wrong(
            "indices of image 0",
            right.given(indices=lambda a: [where[:1].expand_as(where) for where in a.indices]),
            "You use the indices of the first image for the whole batch. Each image has its own maxima.",
            SHAPE,
        ),
        Wrong(
            "indices of channel 0",
            right.given(indices=lambda a: [where[:, :1].expand_as(where) for where in a.indices]),
            "You use the indices of the first channel for all channels. Each channel has its own maxima.",
            SHAPE,
        ),
        Wrong(
            "size not given",
            _decode_with(unpool=lambda features, indices, size: F.max_unpool2d(features, indices, 2)),
            "You always unpool to twice the size. Use the given sizes: 2 rows may come from 4 rows or from 5.",
            "max_unpool2d has an argument output_size.",
        ),
        Wrong(
            "nearest neighbour",
            _decode_with(unpool=lambda features, indices, size: F.interpolate(features, size=size)),
            "You fill the whole window with the value. Only the position of the maximum gets it; all others stay 0.",
            UNUSED,
        ),
        Wrong(
            "bilinear",
            _decode_with(unpool=_bilinear),
            "You interpolate the features. SegNet puts each value back at the position of the maximum.",
            UNUSED,
        ),
        Wrong(
            "top left",
            _decode_with(unpool=_top_left),
            "You put each value at the top left of its window. The index says where in the window the maximum was.",
            "The index counts the pixels of the plane, row by row.",
        ),
        Wrong(
            "no ReLU",
            _decode_with(activate=lambda features, stage: features),
            "You do not apply a ReLU between the stages. Every convolution except the last needs one.",
            RELU,
        ),
        Wrong(
            "ReLU on the logits",
            _decode_with(activate=lambda features, stage: features.relu()),
            "You apply a ReLU to the logits too. The last convolution has none, because logits can be negative.",
            RELU,
        ),
        Wrong(
            "ReLU on the logits only",
            _decode_with(activate=lambda features, stage: features if stage else features.relu()),
            "You apply a ReLU after the last convolution only. Every convolution except the last has one.",
            RELU,
        ),
        Wrong(
            "no ReLU after the first convolution",
            right.instead(
                lambda a: _decode(
                    **vars(a),
                    activate=lambda features, stage: features if stage == len(a.indices) - 1 else features.relu(),
                )
            ),
            "You leave out the ReLU after the convolution that is applied first. The one that is applied last has "
            "none.",
            RELU,
        ),
        Wrong(
            "ReLU before the convolutions",
            right.instead(_relu_before),
            "You apply the ReLU before each convolution. It follows every convolution except the last.",
            RELU,
        ),
        Wrong(
            "weights in order of use",
            right.instead(_weights_in_order),
            "You use weights[0] first. The lists begin with the first pooling, which the decoder undoes last.",
            "weights[i] belongs to indices[i].",
        ),
        Wrong(
            "width of 2 w",
            _unpool_at(
                lambda features, indices, size: (indices // (2 * features.shape[3]), indices % (2 * features.shape[3]))
            ),
            "You read the indices with the width 2 w. They count in the map before the pooling, whose width may be "
            "odd.",
            "The width is sizes[i][1].",
        ),
        Wrong(
            "height in place of the width",
            _unpool_at(lambda features, indices, size: (indices // size[0], indices % size[0])),
            "You divide an index by the height to get its row. Divide by the width.",
            "An index is row * width + column.",
        ),
        Wrong(
            "column first",
            _decode_with(unpool=_column_first),
            "You read an index as column * height + row. It is row * width + column.",
            "The index counts the pixels of the plane, row by row.",
        ),
        Wrong(
            "index within the window",
            _decode_with(unpool=_within_window),
            "You read an index as a position within the 2x2 window. It counts the pixels of the whole plane.",
            "The largest index is H * W - 1.",
        ),
        Wrong(
            "kernels flipped",
            right.given(weights=lambda a: [weight.flip(2, 3) for weight in a.weights]),
            "Your kernels are flipped, as in a transposed convolution. Use a convolution, which does not flip them.",
            "torch.nn.functional.conv2d takes the weights as they are.",
        ),
        Wrong(
            "softmax at the end",
            right.then(lambda out, a: out.softmax(1)),
            "You return probabilities. Return the logits, as the last convolution gives them.",
            "The softmax is part of the loss.",
        ),
        Wrong(
            "first pooling not undone",
            right.instead(_first_stage_missing),
            "Your loop ends before pooling 0, so your result has half the size. Undo that pooling, too.",
            "range(n - 1, 0, -1) does not contain 0.",
        ),
    ],
)
