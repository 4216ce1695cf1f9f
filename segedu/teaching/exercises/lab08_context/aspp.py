"""aspp: the atrous spatial pyramid pooling of DeepLab v3, with given weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab08_context.dilate_conv import pointwise, random_kernel, random_quarters

Weights = dict


def aspp(features: Tensor, weights: Weights, rates: Sequence[int], output_stride: int) -> Tensor:
    """Concatenate a 1x1 branch, one atrous branch per rate, and the mean of the whole map.

    Args:
        features: (B, C, H, W).
        weights: "one" (c, C), "atrous" (one (c, C, 3, 3) per rate), "image" (c, C).
        rates: for an output stride of 16.
        output_stride: of the features: 8, 16 or 32.

    Returns:
        (B, (2 + len(rates)) c, H, W).
    """
    return _linear_branches(features, weights, rates, output_stride).relu()


def _linear_branches(
    features: Tensor,
    weights: Weights,
    rates: Sequence[int],
    output_stride: int,
    pad: Callable[[int], int] = lambda rate: rate,
    pool: Callable = torch.mean,
) -> Tensor:
    """The concatenated branches without their ReLU; wrong answers replace the padding or the pooling."""
    scaled = [rate * 16 // output_stride for rate in rates]
    pairs = zip(weights["atrous"], scaled, strict=True)
    atrous = [F.conv2d(features, weight, padding=pad(rate), dilation=rate) for weight, rate in pairs]
    image = pointwise(pool(features, dim=(2, 3), keepdim=True), weights["image"])
    return torch.cat([pointwise(features, weights["one"]), *atrous, image.expand(-1, -1, *features.shape[2:])], dim=1)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Output stride 16 and 8; output stride 32, rates of 1, a large rate, a map that is smaller than the rates."""

    def pyramid(name: str, shape: tuple[int, ...], out: int, rates: list[int], output_stride: int) -> Case:
        channels = shape[1]
        weights = {
            "one": random_quarters(rng, out, channels),
            "atrous": [random_kernel(rng, out, channels, 3, 3) for _ in rates],
            "image": random_quarters(rng, out, channels),
        }
        features = random_quarters(rng, *shape)
        features[:, 0] += 1  # a mean that is clearly not 0; its largest value is 3
        signs = torch.where(torch.arange(out) % 2 == 0, 1.0, -1.0).double()
        weights["image"] *= 0.125
        weights["image"][:, 0] = 3 * signs  # some channels of the image branch are positive, others negative
        weights["one"][:, 0] = 2 * signs
        return case(name, features, weights, rates, output_stride)

    core = [
        pyramid("rates 2, 4, 6 at output stride 16", (2, 4, 11, 13), 3, [2, 4, 6], 16),
        pyramid("output stride 8", (1, 3, 12, 17), 2, [1, 2, 3], 8),
    ]
    edge = [
        pyramid("output stride 32, two rates", (2, 2, 9, 10), 2, [2, 6], 32),
        pyramid("rates of 1", (1, 3, 6, 7), 2, [1, 1, 1], 16),
        pyramid("a rate of 8 at output stride 8", (1, 2, 18, 19), 1, [8], 8),
        pyramid("a map smaller than the rates 6, 12, 18", (2, 3, 5, 4), 3, [6, 12, 18], 16),
    ]
    return {"core": (3, core), "edge": (2, edge)}


right = Variants(aspp)


def _branches(out: Tensor, a: SimpleNamespace) -> list[Tensor]:
    """The branches in the result: 1x1, atrous, image."""
    return list(out.split(len(a.weights["one"]), dim=1))


def _image_of_one_pixel(out: Tensor, a: SimpleNamespace) -> Tensor:
    """torch.cat refuses the image feature next to the other branches."""
    *others, image = _branches(out, a)
    return torch.cat([*others, image[..., :1, :1]], dim=1)


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
            right.then(lambda out, a: torch.cat(_branches(out, a)[:-1], dim=1)),
            "The image-level branch is missing. DeepLab v3 has one after the atrous branches; v2 did not.",
            COUNT,
        ),
        Wrong(
            "1x1 missing",
            right.then(lambda out, a: torch.cat(_branches(out, a)[1:], dim=1)),
            "The 1x1 branch is missing. It has to come before the atrous branches.",
            COUNT,
        ),
        Wrong(
            "padding is not the rate",
            right.instead(lambda a: _linear_branches(**vars(a), pad=lambda rate: 1).relu()),
            "Your branches have different sizes. A 3x3 kernel of rate r needs a padding of r, not of 1.",
            "How far from its centre does the dilated kernel reach?",
        ),
        Wrong(
            "summed",
            right.then(lambda out, a: sum(_branches(out, a))),
            "You sum the branches, as DeepLab v2 does. DeepLab v3 concatenates them.",
            "How many channels should the result have?",
        ),
        Wrong(
            "rates not scaled",
            right.given(output_stride=lambda a: 16),
            "You use the rates as given for every output stride. They are meant for 16, so scale them for the others.",
            "On a map that is twice as dense, how far apart are two positions that were 6 pixels apart?",
        ),
        Wrong(
            "rates scaled the other way",
            right.given(
                rates=lambda a: [max(1, r * a.output_stride // 16) for r in a.rates], output_stride=lambda a: 16
            ),
            "You reduce the rates on a denser map. They have to increase.",
            "A rate counts pixels of the map. On a denser map, more pixels lie between the same two positions.",
        ),
        Wrong(
            "maximum of the image",
            right.instead(lambda a: _linear_branches(**vars(a), pool=torch.amax).relu()),
            "Your image-level branch takes the maximum of each channel. It has to take the mean.",
            "It should describe the whole map, not its most striking pixel.",
        ),
        Wrong(
            "image feature of one pixel",
            right.then(_image_of_one_pixel),
            "Your image feature has one pixel. Every pixel of the map needs a copy of it.",
            "Tensor.expand repeats an axis of length 1.",
        ),
        Wrong(
            "no ReLU",
            right.instead(lambda a: _linear_branches(**vars(a))),
            "Your branches have negative values. Each of them has to end with a ReLU.",
            "Which operation ends every branch in the exercise?",
        ),
        Wrong(
            "image first",
            right.then(lambda out, a: torch.cat([_branches(out, a)[-1], *_branches(out, a)[:-1]], dim=1)),
            "You concatenate the image-level branch first. It has to come last.",
            "The order determines which weights of the next layer are applied to which branch.",
        ),
        Wrong(
            "weights shared",
            right.given(weights=lambda a: {**a.weights, "atrous": a.weights["atrous"][:1] * len(a.rates)}),
            "All your atrous branches use the first kernel. Each rate has its own kernel.",
            'How long is the list weights["atrous"]?',
        ),
    ],
)
