"""retina_prior: the biases that RetinaNet's heads begin with."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Biases = tuple[Tensor, Tensor]


def retina_prior(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """Give the last layers of the two heads the biases that the training begins with.

    At first the weights do nearly nothing, so that the outputs are the biases. Then

    - each anchor and each class has a sigmoid of `prior`: nearly everything is background, and nearly right;
    - no anchor moves: all deltas are 0.

    Each class has a sigmoid of its own, and there is no class for background.

    Args:
        num_anchors: A, at each place.
        num_classes: K, of objects.
        prior: in (0, 1): what the sigmoids give.

    Returns:
        (A * K,) floats for the classes and (4 * A,) floats for the deltas.

    Example: one anchor, two classes.

        >>> retina_prior(1, 2)
        (tensor([-4.5951, -4.5951]), tensor([0., 0., 0., 0.]))
    """
    return torch.full((num_anchors * num_classes,), -math.log((1 - prior) / prior)), torch.zeros(4 * num_anchors)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The paper's prior, others; one class, one anchor, 1/2, more than 1/2.

    Args:
        rng: of the numbers.

    Returns:
        The cases by group.
    """

    def some() -> tuple[int, int]:
        return int(rng.integers(3, 10)), int(rng.choice([2, 5, 6, 7, 8]))

    low, high = float(rng.uniform(0.02, 0.06)), float(rng.uniform(0.7, 0.9))
    return {
        "core": (
            1,
            [
                {"name": "the paper's prior", "args": [9, int(rng.integers(60, 90)), 0.01]},
                {"name": "the prior left out", "args": [*some()]},
                {"name": "a prior of 2 to 6 %", "args": [*some(), low]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "one class", "args": [int(rng.integers(2, 7)), 1, 0.01]},
                {"name": "one anchor", "args": [1, int(rng.integers(2, 7)), low]},
                {"name": "a prior of 1/2", "args": [*some(), 0.5]},
                {"name": "more than 1/2", "args": [*some(), high]},
                {"name": "one in a million", "args": [*some(), 1e-6]},
            ],
        ),
    }


def wrong_sign(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """log((1 - prior) / prior)."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return -classes, boxes


def no_bias(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """0 everywhere."""
    return torch.zeros(num_anchors * num_classes), torch.zeros(4 * num_anchors)


def box_head_too(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """The same bias in both heads."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return classes, boxes + classes[0]


def box_head_only(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """The bias in the other head."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return classes * 0, boxes + classes[0]


def shared_among_classes(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """prior / K for each class."""
    return retina_prior(num_anchors, num_classes, prior / num_classes)


def once_for_each_class(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """(K,)."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return classes[:num_classes], boxes


def once_for_each_anchor(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """(A,)."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return classes[:num_anchors], boxes


def four_for_all_anchors(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """(4,) deltas."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return classes, boxes[:4]


def four_for_each_class(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """(4 * A * K,) deltas."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return classes, boxes.repeat(num_classes)


def with_background(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """K + 1 classes."""
    return retina_prior(num_anchors, num_classes + 1, prior)


def tenth(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """0.1."""
    return retina_prior(num_anchors, num_classes, 0.1)


def always_the_papers(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """0.01."""
    return retina_prior(num_anchors, num_classes)


def the_prior_itself(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """The bias is the prior."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return classes * 0 + prior, boxes


def logarithm_only(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """log(prior), as for a softmax."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return classes * 0 + math.log(prior), boxes


def softmax_with_background(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """-log(K (1 - prior) / prior): the prior of all classes of a softmax together."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return classes - math.log(num_classes), boxes


def decadic(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """log10."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return classes / math.log(10), boxes


def no_logarithm(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """-(1 - prior) / prior."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return -(-classes).exp(), boxes


def sigmoid_of_it(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """What the sigmoid gives."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return torch.full_like(classes, 1 / (1 + math.exp(-prior))), boxes


def heads_swapped(num_anchors: int, num_classes: int, prior: float = 0.01) -> Biases:
    """Deltas first."""
    classes, boxes = retina_prior(num_anchors, num_classes, prior)
    return boxes, classes


def one_number(num_anchors: int, num_classes: int, prior: float = 0.01) -> tuple[float, float]:
    """A number for each head."""
    return -math.log((1 - prior) / prior), 0.0


SOLVE = "Solve sigmoid(b) = 1 / (1 + exp(-b)) = prior for b. For a prior of 0.01 b is about -4.6."
COUNT = "How many channels does the last layer have? One for each anchor and each class; four for each anchor."

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
            wrong_sign,
            "Your bias has the wrong sign: at first everything would be an object.",
            SOLVE,
        ),
        Wrong(
            "no bias",
            no_bias,
            "Your biases are all 0, so at first everything is half an object: the sigmoids should give the prior.",
            SOLVE,
        ),
        Wrong(
            "on the box head too",
            box_head_too,
            "You give the box head this bias too: its deltas begin with 0.",
            "The prior is about objects being rare. It says nothing of where they are.",
        ),
        Wrong(
            "on the box head only",
            box_head_only,
            "You give the bias to the box head: it belongs to that of the classes.",
            "The prior is about objects being rare. It says nothing of where they are.",
        ),
        Wrong(
            "shared among the classes",
            shared_among_classes,
            "You divide the prior by the number of classes: each class has a sigmoid of its own, and the whole prior.",
            "The sigmoids do not have to sum to anything.",
        ),
        Wrong(
            "once for each class",
            once_for_each_class,
            "You give one bias for each class: each anchor has all of them.",
            COUNT,
        ),
        Wrong(
            "once for each anchor",
            once_for_each_anchor,
            "You give one bias for each anchor: each class of it has its own.",
            COUNT,
        ),
        Wrong(
            "four for all anchors",
            four_for_all_anchors,
            "You give four deltas for a place: each of its anchors has four.",
            COUNT,
        ),
        Wrong(
            "four for each class",
            four_for_each_class,
            "You give four deltas for each class: an anchor has four, whatever its class is.",
            COUNT,
        ),
        Wrong(
            "with background",
            with_background,
            "You count a class for background: it is where all sigmoids are low.",
            COUNT,
        ),
        Wrong("a prior of 0.1", tenth, "Your prior is always 0.1: take the one that is given.", SOLVE),
        Wrong(
            "a prior of 0.01",
            always_the_papers,
            "Your prior is always 0.01: take the one that is given.",
            "0.01 is the paper's, and what prior is when nothing is said.",
        ),
        Wrong(
            "the prior itself",
            the_prior_itself,
            "You take the prior for the bias: it is what the sigmoid of the bias gives.",
            SOLVE,
        ),
        Wrong(
            "log of the prior",
            logarithm_only,
            "You take log(prior): that would be for an exp, and this is for a sigmoid.",
            SOLVE,
        ),
        Wrong(
            "for a softmax",
            softmax_with_background,
            "Your bias would fit a softmax over the classes and background: each class has a sigmoid.",
            SOLVE,
        ),
        Wrong("log10", decadic, "You take the decadic logarithm: the natural one is asked for.", "math.log"),
        Wrong("no logarithm", no_logarithm, "You leave out the logarithm.", SOLVE),
        Wrong(
            "sigmoid of the prior",
            sigmoid_of_it,
            "You take the sigmoid of the prior: its inverse is asked for.",
            SOLVE,
        ),
        Wrong(
            "heads swapped",
            heads_swapped,
            "You return the deltas first: the classes come first.",
            "(A * K,) and then (4 * A,).",
        ),
        Wrong(
            "one number for each head",
            one_number,
            "You return one number for each head: a bias for each of its channels is asked for.",
            COUNT,
        ),
    ],
)
