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


def _with_image(image: Callable[[SimpleNamespace], Tensor], relu: bool = True) -> Callable:
    """A wrong answer with another image-level branch, (B, c, 1 or H, 1 or W), before its ReLU."""

    def compute(a: SimpleNamespace) -> Tensor:
        *others, expected = _branches(aspp(**vars(a)), a)
        branch = image(a).expand_as(expected)
        return torch.cat([*others, branch.relu() if relu else branch], dim=1)

    return right.instead(compute)


def _image(a: SimpleNamespace, dim: tuple[int, ...] = (2, 3)) -> Tensor:
    return pointwise(a.features.mean(dim, keepdim=True), a.weights["image"])


def _scaled_by(scale: Callable[[int, int], int]) -> Callable:
    """A wrong answer with other rates, by the rate and the output stride."""
    return right.given(rates=lambda a: [scale(r, a.output_stride) for r in a.rates], output_stride=lambda a: 16)


def _border_repeated(a: SimpleNamespace) -> Tensor:
    parts = [pointwise(a.features, a.weights["one"])]
    for weight, rate in zip(a.weights["atrous"], a.rates, strict=True):
        scaled = rate * 16 // a.output_stride
        parts.append(F.conv2d(F.pad(a.features, [scaled] * 4, mode="replicate"), weight, dilation=scaled))
    return torch.cat([*parts, _image(a).expand(-1, -1, *a.features.shape[2:])], dim=1).relu()


def _image_second(out: Tensor, a: SimpleNamespace) -> Tensor:
    one, *atrous, image = _branches(out, a)
    return torch.cat([one, image, *atrous], dim=1)


def _limited_rates(a: SimpleNamespace) -> Tensor:
    largest = max(1, min(a.features.shape[2:]) - 1)
    rates = [min(rate * 16 // a.output_stride, largest) for rate in a.rates]
    return aspp(a.features, a.weights, rates, 16)


def _paper_rates(a: SimpleNamespace) -> Tensor:
    """6, 12 and 18, as many of them as there are kernels."""
    pairs = list(zip(a.weights["atrous"], (6, 12, 18), strict=False))
    weights = {**a.weights, "atrous": [weight for weight, _ in pairs]}
    return aspp(a.features, weights, [rate for _, rate in pairs], a.output_stride)


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
        Wrong(
            "no ReLU after the image branch",
            _with_image(_image, relu=False),
            "Your image-level branch has no ReLU. Each branch ends with one.",
            "Which operation ends every branch in the exercise?",
        ),
        Wrong(
            "ReLU before the image convolution",
            _with_image(
                lambda a: pointwise(a.features.mean((2, 3), keepdim=True).relu(), a.weights["image"]), relu=False
            ),
            "In the image-level branch, you apply the ReLU before the convolution. It follows the convolution.",
            "Which operation ends every branch in the exercise?",
        ),
        Wrong(
            "ReLU before all convolutions",
            right.instead(lambda a: _linear_branches(**{**vars(a), "features": a.features.relu()})),
            "You apply the ReLU to the features, before the convolutions. It ends every branch.",
            "A branch that ends with a convolution has negative values.",
        ),
        Wrong(
            "image second",
            right.then(_image_second),
            "You put the image-level branch after the 1x1 branch. It has to come last.",
            "The order determines which weights of the next layer are applied to which branch.",
        ),
        Wrong(
            "mean over the batch",
            _with_image(lambda a: _image(a, dim=(0, 2, 3))),
            "Your image-level branch averages over the batch, too. Each image has its own mean.",
            "Average over rows and columns only.",
        ),
        Wrong(
            "mean of each row",
            _with_image(lambda a: _image(a, dim=(3,))),
            "Your image-level branch averages each row. It has to average the whole map.",
            "Average over rows and columns.",
        ),
        Wrong(
            "sum of the image",
            _with_image(lambda a: pointwise(a.features.sum((2, 3), keepdim=True), a.weights["image"])),
            "Your image-level branch takes the sum over the map. It has to take the mean.",
            "A larger map must not give larger features.",
        ),
        Wrong(
            "mean after the convolution and ReLU",
            _with_image(lambda a: pointwise(a.features, a.weights["image"]).relu().mean((2, 3), keepdim=True)),
            "Your image-level branch averages after the convolution and the ReLU. The mean comes first.",
            "Read the steps of this branch again.",
        ),
        Wrong(
            "weights of 1x1 and image exchanged",
            right.given(weights=lambda a: {**a.weights, "one": a.weights["image"], "image": a.weights["one"]}),
            'You exchange the weights of the 1x1 branch and of the image-level branch. "one" belongs to the former.',
            "Look at the names in the docstring.",
        ),
        Wrong(
            "factor of integers",
            _scaled_by(lambda rate, stride: rate * (16 // stride)),
            "You compute 16 // output_stride first, which is 0 at output stride 32. Multiply before you divide.",
            "6 * 16 // 32 is 3, and 6 * (16 // 32) is 0.",
        ),
        Wrong(
            "factor of integers, at least 1",
            _scaled_by(lambda rate, stride: max(1, rate * (16 // stride))),
            "At output stride 32, all your rates are 1, because 16 // 32 is 0. Multiply before you divide.",
            "6 * 16 // 32 is 3, and 6 * (16 // 32) is 0.",
        ),
        Wrong(
            "not halved at 32",
            _scaled_by(lambda rate, stride: 2 * rate if stride == 8 else rate),
            "You double the rates at output stride 8, but do not halve them at output stride 32.",
            "The rates are meant for output stride 16. Scale them for all others.",
        ),
        Wrong(
            "scaled the other way, unlimited",
            _scaled_by(lambda rate, stride: rate * stride // 16),
            "You scale the rates by output_stride / 16. It is 16 / output_stride: on a denser map they increase.",
            "A rate counts pixels of the map. On a denser map, more pixels lie between the same two positions.",
        ),
        Wrong(
            "scaled the other way, rounded",
            _scaled_by(lambda rate, stride: max(1, round(rate * stride / 16))),
            "You multiply the rates by output_stride / 16 and round. They increase on a denser map.",
            "A rate counts pixels of the map. On a denser map, more pixels lie between the same two positions.",
        ),
        Wrong(
            "rates of the paper",
            right.instead(_paper_rates),
            "You always use the rates 6, 12 and 18. Use the argument `rates`.",
            "There may be one rate, or five.",
        ),
        Wrong(
            "rates limited to the map",
            right.instead(_limited_rates),
            "You limit the rates to the size of the map. Use them as they are: taps outside the map read zeros.",
            "If a rate is larger than the map, only the centre tap is left, as the paper describes.",
        ),
        Wrong(
            "border repeated",
            right.instead(_border_repeated),
            "Your atrous branches repeat the border pixels outside the map. Outside the map are zeros.",
            "The argument padding of conv2d adds zeros.",
        ),
    ],
)
