"""retina_prior: the initial biases of the two heads of RetinaNet."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Biases = tuple[Tensor, Tensor]


def retina_prior(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """Compute the initial biases of the last layers of the classification head and the box head.

    Before training, the weights of these layers are so small that their outputs are nearly equal to the biases. Choose
    the biases so that

    - the sigmoid of each class and anchor is `prior`: nearly everything is background, and this is nearly right;
    - all deltas are 0: the predicted boxes are the anchors.

    Each class has a sigmoid of its own, and there is no background class.

    Args:
        num_anchors: A, anchors per location.
        num_classes: K, classes of objects.
        prior: output of the sigmoids, in (0, 1).

    Returns:
        (A * K,) floats for the classes and (4 * A,) floats for the deltas.

    Example: one anchor, two classes.

        >>> retina_prior(1, 2)
        (tensor([-4.5951, -4.5951]), tensor([0., 0., 0., 0.]))
    """
    return torch.full((num_anchors * num_classes,), -math.log((1 - prior) / prior)), torch.zeros(4 * num_anchors)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The paper's prior and others, small and large; one class, one anchor."""

    def some() -> tuple[int, int]:
        return int(rng.integers(3, 10)), int(rng.choice([2, 5, 6, 7, 8]))

    low, high = float(rng.uniform(0.02, 0.06)), float(rng.uniform(0.7, 0.9))
    core = [
        case("the paper's prior", 9, int(rng.integers(60, 90)), 0.01),
        case("prior not given", *some()),
        case("a prior of 2 to 6 %", *some(), low),
    ]
    edge = [
        case("one class", int(rng.integers(2, 7)), 1, 0.01),
        case("one anchor", 1, int(rng.integers(2, 7)), low),
        case("a prior of 1/2", *some(), 0.5),
        case("a prior above 1/2", *some(), high),
        case("a prior of one in a million", *some(), 1e-6),
    ]
    return {"core": (1, core), "edge": (1, edge)}


right = Variants(retina_prior)


def _class_biases(change: Callable[[Tensor, SimpleNamespace], Tensor]) -> Callable[..., Biases]:
    """`change(right biases of the classes, arguments)`; the biases of the deltas are right."""
    return right.then(lambda out, a: (change(out[0], a), out[1]))


SOLVE = "Solve sigmoid(b) = 1 / (1 + exp(-b)) = prior for b. For a prior of 0.01, b is about -4.6."
COUNT = "How many channels does the last layer have? One per anchor and class; four per anchor for the deltas."
RARE = "The prior expresses that objects are rare. It says nothing about their positions."

exercise = Exercise(
    name="retina_prior",
    points=2,
    cases=cases,
    reference=retina_prior,
    tolerance=1e-5,
    hides=["segedu.detection.retinanet"],
    wrong=[
        Wrong(
            "wrong sign",
            _class_biases(lambda biases, a: -biases),
            "Your bias has the wrong sign. With it, the network would predict objects everywhere before training.",
            SOLVE,
        ),
        Wrong(
            "no bias",
            _class_biases(lambda biases, a: 0 * biases),
            "All your biases are 0, so all sigmoids are 1/2. Choose the biases of the classes so that the "
            "sigmoids are equal to the prior.",
            SOLVE,
        ),
        Wrong(
            "on the box head too",
            right.then(lambda out, a: (out[0], out[1] + out[0][0])),
            "You give the box head the same bias. Its biases should be 0, so that all initial deltas are 0.",
            RARE,
        ),
        Wrong(
            "on the box head only",
            right.then(lambda out, a: (0 * out[0], out[1] + out[0][0])),
            "You give the bias to the box head. It belongs to the classification head.",
            RARE,
        ),
        Wrong(
            "shared among the classes",
            right.given(prior=lambda a: a.prior / a.num_classes),
            "You divide the prior by the number of classes. Each class has its own sigmoid, which should be `prior`.",
            "The sigmoids do not have to sum to 1.",
        ),
        Wrong(
            "once for each class",
            _class_biases(lambda biases, a: biases[: a.num_classes]),
            "You return one bias per class. Every anchor has a bias for each class.",
            COUNT,
        ),
        Wrong(
            "once for each anchor",
            _class_biases(lambda biases, a: biases[: a.num_anchors]),
            "You return one bias per anchor. Every class of an anchor has its own.",
            COUNT,
        ),
        Wrong(
            "four for all anchors",
            right.then(lambda out, a: (out[0], out[1][:4])),
            "You return four deltas per location. Every anchor has four.",
            COUNT,
        ),
        Wrong(
            "four for each class",
            right.then(lambda out, a: (out[0], out[1].repeat(a.num_classes))),
            "You return four deltas per class. An anchor has four deltas, whatever its class.",
            COUNT,
        ),
        Wrong(
            "with background",
            right.given(num_classes=lambda a: a.num_classes + 1),
            "You count a background class. There is none here: an anchor is background if all its sigmoids are low.",
            COUNT,
        ),
        Wrong(
            "a prior of 0.1",
            right.given(prior=lambda a: 0.1),
            "Your prior is always 0.1. Use the argument `prior`.",
            SOLVE,
        ),
        Wrong(
            "a prior of 0.01",
            right.given(prior=lambda a: 0.01),
            "Your prior is always 0.01. Use the argument `prior`.",
            "0.01 is the value of the paper, and only the default.",
        ),
        Wrong(
            "the prior itself",
            _class_biases(lambda biases, a: 0 * biases + a.prior),
            "You use the prior as the bias. Choose the bias so that its sigmoid is the prior.",
            SOLVE,
        ),
        Wrong(
            "log of the prior",
            _class_biases(lambda biases, a: 0 * biases + math.log(a.prior)),
            "You use log(prior) as the bias, which inverts exp. Use the inverse of the sigmoid.",
            SOLVE,
        ),
        Wrong(
            "for a softmax",
            _class_biases(lambda biases, a: biases - math.log(a.num_classes)),
            "Your bias would be right for a softmax over the classes and background. In RetinaNet, each class "
            "has a sigmoid.",
            SOLVE,
        ),
        Wrong(
            "log10",
            _class_biases(lambda biases, a: biases / math.log(10)),
            "You use the logarithm to base 10. Use the natural logarithm.",
            "math.log",
        ),
        Wrong(
            "no logarithm",
            _class_biases(lambda biases, a: -(-biases).exp()),
            "You leave out the logarithm. The inverse of the sigmoid contains one.",
            SOLVE,
        ),
        Wrong(
            "sigmoid of the prior",
            _class_biases(lambda biases, a: torch.full_like(biases, 1 / (1 + math.exp(-a.prior)))),
            "You compute the sigmoid of the prior. Compute the inverse of the sigmoid.",
            SOLVE,
        ),
        Wrong(
            "heads swapped",
            right.then(lambda out, a: out[::-1]),
            "You return the biases of the deltas first. Return the biases of the classes first.",
            "(A * K,) and then (4 * A,).",
        ),
        Wrong(
            "one number for each head",
            right.instead(lambda a: (-math.log((1 - a.prior) / a.prior), 0.0)),
            "You return one number per head. Return one bias per channel.",
            COUNT,
        ),
    ],
)
