"""aspp: atrous spatial pyramid pooling of DeepLab v3, with given weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.exercises.lab08_context.dilate_conv import lopsided, numbers

Weights = dict


def aspp(features: Tensor, weights: Weights, rates: Sequence[int], output_stride: int) -> Tensor:
    """A 1x1 branch, one atrous branch a rate, and the mean of the whole map, side by side.

    Args:
        features: (B, C, H, W).
        weights: "one" (c, C), "atrous" (one (c, C, 3, 3) a rate), "image" (c, C).
        rates: for an output stride of 16.
        output_stride: of the features: 8, 16 or 32.

    Returns:
        (B, (2 + len(rates)) c, H, W).
    """
    return torch.cat(_branches(features, weights, _scaled(rates, output_stride)), dim=1)


def _scaled(rates: Sequence[int], output_stride: int) -> list[int]:
    return [rate * 16 // output_stride for rate in rates]


def _dot(features: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("oc,bchw->bohw", weight, features)


def _image(features: Tensor, weight: Tensor) -> Tensor:
    return _dot(features.mean(dim=(2, 3), keepdim=True), weight).relu().expand(-1, -1, *features.shape[2:])


def _branches(features: Tensor, weights: Weights, rates: Sequence[int], image: Callable = _image) -> list[Tensor]:
    """The right branches, at rates that fit the map."""
    atrous = [
        F.conv2d(features, w, padding=r, dilation=r).relu() for w, r in zip(weights["atrous"], rates, strict=True)
    ]
    return [_dot(features, weights["one"]).relu(), *atrous, image(features, weights["image"])]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Output stride 16 and 8; output stride 32, rates of 1, a large rate, a map that is smaller than the rates.

    Args:
        rng: of all values.

    Returns:
        The cases by group.
    """

    def case(name: str, shape: tuple[int, ...], out: int, rates: list[int], output_stride: int) -> Case:
        channels = shape[1]
        weights = {
            "one": numbers(rng, out, channels),
            "atrous": [lopsided(rng, out, channels, 3, 3) for _ in rates],
            "image": numbers(rng, out, channels),
        }
        features = numbers(rng, *shape)
        features[:, 0] += 1  # a mean that is clearly not 0; its largest value is 3
        signs = torch.where(torch.arange(out) % 2 == 0, 1.0, -1.0).double()
        weights["image"] *= 0.125
        weights["image"][:, 0] = 3 * signs  # some channels of the image branch pass the ReLU, others do not
        weights["one"][:, 0] = 2 * signs
        return {"name": name, "args": [features, weights, rates, output_stride]}

    return {
        "core": (
            3,
            [
                case("rates 2, 4, 6 at output stride 16", (2, 4, 11, 13), 3, [2, 4, 6], 16),
                case("output stride 8", (1, 3, 12, 17), 2, [1, 2, 3], 8),
            ],
        ),
        "edge": (
            2,
            [
                case("output stride 32, two rates", (2, 2, 9, 10), 2, [2, 6], 32),
                case("rates of 1", (1, 3, 6, 7), 2, [1, 1, 1], 16),
                case("a rate of 8 at output stride 8", (1, 2, 18, 19), 1, [8], 8),
                case("a map smaller than the rates 6, 12, 18", (2, 3, 5, 4), 3, [6, 12, 18], 16),
            ],
        ),
    }


def no_image_branch(features: Tensor, weights: Weights, rates: Sequence[int], output_stride: int) -> Tensor:
    """As in DeepLab v2, which had none."""
    return torch.cat(_branches(features, weights, _scaled(rates, output_stride))[:-1], dim=1)


def no_1x1_branch(features: Tensor, weights: Weights, rates: Sequence[int], output_stride: int) -> Tensor:
    """Forgets the branch without holes."""
    return torch.cat(_branches(features, weights, _scaled(rates, output_stride))[1:], dim=1)


def image_first(features: Tensor, weights: Weights, rates: Sequence[int], output_stride: int) -> Tensor:
    """Another order."""
    branches = _branches(features, weights, _scaled(rates, output_stride))
    return torch.cat([branches[-1], *branches[:-1]], dim=1)


def padding_of_one(features: Tensor, weights: Weights, rates: Sequence[int], output_stride: int) -> Tensor:
    """The branches have different sizes, which torch.cat refuses unless all rates are 1."""
    right = _branches(features, weights, _scaled(rates, output_stride))
    pairs = zip(weights["atrous"], _scaled(rates, output_stride), strict=True)
    atrous = [F.conv2d(features, w, padding=1, dilation=r).relu() for w, r in pairs]
    return torch.cat([right[0], *atrous, right[-1]], dim=1)


def summed(features: Tensor, weights: Weights, rates: Sequence[int], output_stride: int) -> Tensor:
    """As in DeepLab v2, which summed the branches."""
    return sum(_branches(features, weights, _scaled(rates, output_stride)))


def rates_as_given(features: Tensor, weights: Weights, rates: Sequence[int], output_stride: int) -> Tensor:
    """The same rates on a map that is twice as dense."""
    return torch.cat(_branches(features, weights, rates), dim=1)


def rates_the_other_way(features: Tensor, weights: Weights, rates: Sequence[int], output_stride: int) -> Tensor:
    """Halves the rates on a denser map; never below 1."""
    return torch.cat(_branches(features, weights, [max(1, r * output_stride // 16) for r in rates]), dim=1)


def image_maximum(features: Tensor, weights: Weights, rates: Sequence[int], output_stride: int) -> Tensor:
    """The largest value of each channel."""

    def image(features: Tensor, weight: Tensor) -> Tensor:
        return _dot(features.amax(dim=(2, 3), keepdim=True), weight).relu().expand(-1, -1, *features.shape[2:])

    return torch.cat(_branches(features, weights, _scaled(rates, output_stride), image), dim=1)


def image_not_spread(features: Tensor, weights: Weights, rates: Sequence[int], output_stride: int) -> Tensor:
    """The image branch has one pixel, which torch.cat refuses beside the others."""

    def image(features: Tensor, weight: Tensor) -> Tensor:
        return _dot(features.mean(dim=(2, 3), keepdim=True), weight).relu()

    return torch.cat(_branches(features, weights, _scaled(rates, output_stride), image), dim=1)


def no_relu(features: Tensor, weights: Weights, rates: Sequence[int], output_stride: int) -> Tensor:
    """Linear branches."""
    pairs = zip(weights["atrous"], _scaled(rates, output_stride), strict=True)
    atrous = [F.conv2d(features, w, padding=r, dilation=r) for w, r in pairs]
    image = _dot(features.mean(dim=(2, 3), keepdim=True), weights["image"]).expand(-1, -1, *features.shape[2:])
    return torch.cat([_dot(features, weights["one"]), *atrous, image], dim=1)


def shared_kernel(features: Tensor, weights: Weights, rates: Sequence[int], output_stride: int) -> Tensor:
    """One kernel at all rates."""
    rates = _scaled(rates, output_stride)
    atrous = [F.conv2d(features, weights["atrous"][0], padding=r, dilation=r).relu() for r in rates]
    right = _branches(features, weights, rates)
    return torch.cat([right[0], *atrous, right[-1]], dim=1)


COUNT = "Count the branches: 1x1, one for each rate, and one for the whole image."

exercise = Exercise(
    name="aspp",
    points=5,
    cases=cases,
    reference=aspp,
    kind="shape",
    hides=["segedu.semantic.deeplabv2", "segedu.semantic.deeplabv3", "segedu.semantic.deeplabv3plus"],
    wrong=[
        Wrong(
            "image pooling missing",
            no_image_branch,
            "The branch of the whole image is missing: version 2 had none, version 3 has one.",
            COUNT,
        ),
        Wrong("1x1 missing", no_1x1_branch, "The 1x1 branch is missing.", COUNT),
        Wrong(
            "padding is not the rate",
            padding_of_one,
            "Your branches have different sizes: a 3x3 kernel of rate r needs a padding of r, not of 1.",
            "How far from its middle does the dilated kernel reach?",
        ),
        Wrong(
            "summed",
            summed,
            "You sum the branches, as DeepLab v2 did; version 3 concatenates them.",
            "How many channels should come out?",
        ),
        Wrong(
            "rates not scaled",
            rates_as_given,
            "You use the rates as given at every output stride: they are meant for 16.",
            "On a map that is twice as dense, how far apart are two places that were 6 pixels apart?",
        ),
        Wrong(
            "rates scaled the other way",
            rates_the_other_way,
            "You make the rates smaller where the map is denser.",
            "A rate counts pixels of the map. Between the same two places a denser map has more of them.",
        ),
        Wrong(
            "maximum of the image",
            image_maximum,
            "Your image branch takes the largest value of each channel, not the mean.",
            "It should say what the whole map is like, not what its most striking pixel is like.",
        ),
        Wrong(
            "image feature of one pixel",
            image_not_spread,
            "Your image feature is one pixel: every pixel of the map gets a copy of it.",
            "Tensor.expand repeats an axis of length 1.",
        ),
        Wrong(
            "no ReLU",
            no_relu,
            "Your branches have negative values: each of them ends with a ReLU.",
            "Read what follows each convolution.",
        ),
        Wrong(
            "image first",
            image_first,
            "You put the branch of the whole image first; the statement puts it last.",
            "The order decides which weights of the next layer meet which branch.",
        ),
        Wrong(
            "weights shared",
            shared_kernel,
            "All your atrous branches use the first kernel: each rate has its own.",
            'How long is the list weights["atrous"]?',
        ),
    ],
)
