"""segnet_decode: every maximum back to its place, then a convolution that fills the gaps; stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.pooling import max_pool_with_indices, max_unpool
from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Size = tuple[int, int]


def segnet_decode(
    features: Tensor, indices: Sequence[Tensor], sizes: Sequence[Size], weights: Sequence[Tensor]
) -> Tensor:
    """Unpool by the encoder's indices, convolve; from the last pooling back to the first.

    Args:
        features: (B, C, h, w), after the last pooling.
        indices: of each pooling, the first pooling first.
        sizes: (H, W) before each pooling, in the same order.
        weights: of the convolution that follows the unpooling of each pooling, in the same order.

    Returns:
        (B, K, H, W).
    """
    return _decode(features, indices, sizes, weights)


def _relu_but_last(features: Tensor, stage: int) -> Tensor:
    return features.relu() if stage else features


def _decode(
    features: Tensor,
    indices: Sequence[Tensor],
    sizes: Sequence[Size],
    weights: Sequence[Tensor],
    unpool: Callable = max_unpool,
    activate: Callable = _relu_but_last,
) -> Tensor:
    for stage in reversed(range(len(indices))):
        features = unpool(features, indices[stage], sizes[stage])
        features = activate(F.conv2d(features, weights[stage], padding=1), stage)
    return features


def _case(rng: np.random.Generator, name: str, shape: tuple[int, int, int], channels: Sequence[int]) -> Case:
    """An encoder of poolings alone writes the indices; channels from the logits to the bottom of the net."""
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
    features = torch.from_numpy(rng.normal(0, 2, values.shape))
    return {"name": name, "args": [features, indices, sizes, weights]}


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """One stage, two, three; then odd sizes: at the end, on the way, and everywhere.

    Args:
        rng: of features and weights.

    Returns:
        The cases by group.
    """
    return {
        "core": (
            3,
            [
                _case(rng, "one stage", (2, 4, 6), (3, 2)),
                _case(rng, "two stages", (2, 8, 12), (4, 2, 3)),
                _case(rng, "three stages", (1, 16, 8), (2, 3, 4, 5)),
            ],
        ),
        "edge": (
            1,
            [
                _case(rng, "one stage, odd sizes", (2, 5, 7), (3, 2)),
                _case(rng, "two stages, odd in the middle", (1, 10, 14), (3, 4, 2)),
                _case(rng, "three images, every size odd", (3, 7, 11), (2, 4, 3)),
            ],
        ),
    }


def first_pooling_first(features: Tensor, indices: Sequence, sizes: Sequence, weights: Sequence) -> Tensor:
    """Goes through the lists as they are."""
    for stage, (where, size, weight) in enumerate(zip(indices, sizes, weights, strict=True)):
        features = F.conv2d(F.max_unpool2d(features, where, 2, output_size=list(size)), weight, padding=1)
        features = features if stage == len(indices) - 1 else features.relu()
    return features


def _transposed(features: Tensor, indices: Sequence, sizes: Sequence, weights: Sequence) -> Tensor:
    """The given weights in a transposed convolution of stride 2; what an odd size lacks is filled with 0."""
    for stage in reversed(range(len(indices))):
        weight = weights[stage].transpose(0, 1)
        up = F.conv_transpose2d(features, weight, stride=2, padding=1, output_padding=1)
        short = [n - m for n, m in zip(sizes[stage], up.shape[2:], strict=True)]
        features = _relu_but_last(F.pad(up, [0, short[1], 0, short[0]]), stage)
    return features


def _without_size(features: Tensor, indices: Tensor, size: Size) -> Tensor:
    """Twice the size, odd or not; an index that counts in longer rows lands where it may."""
    return F.max_unpool2d(features, indices, 2)


def _repeated(features: Tensor, indices: Tensor, size: Size) -> Tensor:
    return F.interpolate(features, size=size)


def _bilinear(features: Tensor, indices: Tensor, size: Size) -> Tensor:
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def _top_left(features: Tensor, indices: Tensor, size: Size) -> Tensor:
    out = features.new_zeros(*features.shape[:2], *size)
    out[..., : 2 * features.shape[2] : 2, : 2 * features.shape[3] : 2] = features
    return out


def _first_image(features: Tensor, indices: Tensor, size: Size) -> Tensor:
    return max_unpool(features, indices[:1].expand_as(indices).contiguous(), size)


def _first_channel(features: Tensor, indices: Tensor, size: Size) -> Tensor:
    return max_unpool(features, indices[:, :1].expand_as(indices).contiguous(), size)


def _varied(**parts: Callable) -> Callable:
    """An answer that is right but for the parts given."""

    def answer(features: Tensor, indices: Sequence, sizes: Sequence, weights: Sequence) -> Tensor:
        return _decode(features, indices, sizes, weights, **parts)

    return answer


exercise = Exercise(
    name="segnet_decode",
    points=4,
    cases=cases,
    reference=segnet_decode,
    kind="map",
    wrong=[
        Wrong(
            "indices of the wrong stage",
            first_pooling_first,
            "You begin with the indices of the first pooling: the decoder undoes the last pooling first.",
            "Compare the shape of features with the shapes in the list.",
        ),
        Wrong(
            "transposed convolution",
            _transposed,
            "You upsample by a transposed convolution: SegNet learns no upsampling, it puts maxima back in place.",
            "The indices are not used at all. What are they for?",
        ),
        Wrong(
            "indices of image 0",
            _varied(unpool=_first_image),
            "You use the indices of the first image for the whole batch: each image had its maxima elsewhere.",
            "indices[i] has the shape of the features.",
        ),
        Wrong(
            "indices of channel 0",
            _varied(unpool=_first_channel),
            "You use the indices of the first channel for all: each channel had its maxima elsewhere.",
            "indices[i] has the shape of the features.",
        ),
        Wrong(
            "size not given",
            _varied(unpool=_without_size),
            "You unpool to twice the size: 2 rows may have been 4 or 5. That is why sizes is given.",
            "max_unpool2d takes an output_size.",
        ),
        Wrong(
            "nearest neighbour",
            _varied(unpool=_repeated),
            "You fill the whole window: only the place of the maximum gets the value, all others stay 0.",
            "The indices are not used at all. What are they for?",
        ),
        Wrong(
            "bilinear",
            _varied(unpool=_bilinear),
            "You interpolate: SegNet puts each value back where the maximum was.",
            "The indices are not used at all. What are they for?",
        ),
        Wrong(
            "top left",
            _varied(unpool=_top_left),
            "You put each value at the top left of its window: the index says where the maximum was.",
            "The index counts the pixels of the plane in reading order.",
        ),
        Wrong(
            "no ReLU",
            _varied(activate=lambda features, stage: features),
            "You leave out the ReLU between two stages.",
            "It follows each convolution but the last.",
        ),
        Wrong(
            "ReLU on the logits",
            _varied(activate=lambda features, stage: features.relu()),
            "You apply a ReLU to the logits as well: a class could never be less likely than 0.",
            "It follows each convolution but the last.",
        ),
    ],
)
