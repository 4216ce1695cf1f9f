"""lovasz_grad: how much each pixel's error counts in the Lovász loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def lovasz_grad(errors: Tensor, truth: Tensor) -> Tensor:
    """Say for each pixel what it costs in 1 - IoU when it turns wrong, after all pixels with larger errors did.

    Put the pixels in the order of their errors, largest first, and turn them wrong one after the other. With n true
    pixels in all, after k steps

        intersection = n - (true pixels among the first k)       a true pixel that is wrong is missing
        union        = n + (false pixels among the first k)      a false pixel that is wrong is too much
        cost         = 1 - intersection / union

    A pixel's weight is the cost after its step minus the cost before it; before the first step the cost is 0. The
    Lovász loss is then `(errors * weights).sum()`, and the weights are its gradient by the errors.

    Args:
        errors: (P,) floats, at least 0; no two are equal.
        truth: (P,) floats: 1 on the object, 0 off it. Perhaps 0 everywhere; the formula holds then too.

    Returns:
        (P,) floats: the weight of each pixel, in the order of the arguments, not in that of the errors.

    Example: errors 0.9, 0.5, 0.2 of a false, a true and a true pixel. Costs 1 - 2/3, 1 - 1/3, 1 - 0/3: each step 1/3.

        >>> lovasz_grad(torch.tensor([0.2, 0.9, 0.5]), torch.tensor([1.0, 0.0, 1.0]))
        tensor([0.3333, 0.3333, 0.3333])
    """
    order = errors.argsort(descending=True)
    weights = torch.zeros_like(truth)
    weights[order] = _steps(_costs(truth[order]))
    return weights


def _costs(truth: Tensor) -> Tensor:
    total = truth.sum()
    return 1 - (total - truth.cumsum(0)) / (total + (1 - truth).cumsum(0))


def _steps(costs: Tensor) -> Tensor:
    return torch.cat([costs[:1], costs[1:] - costs[:-1]])


def _back(errors: Tensor, sorted_weights: Tensor) -> Tensor:
    """From the order of the errors to that of the pixels."""
    weights = torch.zeros_like(sorted_weights)
    weights[errors.argsort(descending=True)] = sorted_weights
    return weights


def _sorted_truth(errors: Tensor, truth: Tensor) -> Tensor:
    return truth[errors.argsort(descending=True)]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """True and false pixels among small and large errors; all true, none true, one pixel, sorted already.

    Args:
        rng: of the errors, and of which pixels are true.

    Returns:
        The cases by group.
    """

    def case(name: str, ranked: list[int], in_order: bool = False) -> Case:
        """`ranked`: the truth in the order of the errors, so that what a draw holds is certain."""
        count = len(ranked)
        errors = np.sort(rng.choice(np.arange(1, 200), count, replace=False))[::-1] / 100
        places = np.arange(count) if in_order else rng.permutation(count)
        if not in_order and count > 1 and (places[:2] == [0, 1]).all():
            places = places[::-1]
        truth = np.array(ranked, dtype=np.float64)
        return {"name": name, "args": [torch.from_numpy(v[places]) for v in (errors, truth)]}

    more = [int(n) for n in rng.integers(0, 2, 5)]
    return {
        "core": (
            1,
            [
                case("nine pixels", [0, 1, 1, 0, *more]),
                case("a large error on the object", [1, 0, 0, 1, 0, 1, *more]),
            ],
        ),
        "edge": (
            1,
            [
                case("no object", [0] * 5),
                case("object everywhere", [1] * 6),
                case("sorted already", [0, 1, 0, 1, 1, 0], in_order=True),
                case("one pixel", [1]),
                case("one pixel, off the object", [0]),
            ],
        ),
    }


def not_sorted(errors: Tensor, truth: Tensor) -> Tensor:
    """The pixels in the order in which they came."""
    return _steps(_costs(truth))


def smallest_first(errors: Tensor, truth: Tensor) -> Tensor:
    """The least wrong pixel turns wrong first."""
    return lovasz_grad(-errors, truth)


def left_sorted(errors: Tensor, truth: Tensor) -> Tensor:
    """The weights in the order of the errors."""
    return _steps(_costs(_sorted_truth(errors, truth)))


def moved_twice(errors: Tensor, truth: Tensor) -> Tensor:
    """weights[order], which takes where it should put."""
    return left_sorted(errors, truth)[errors.argsort(descending=True)]


def without_the_first(errors: Tensor, truth: Tensor) -> Tensor:
    """Differences only: the first step costs nothing."""
    costs = _costs(_sorted_truth(errors, truth))
    return _back(errors, torch.cat([torch.zeros_like(costs[:1]), costs[1:] - costs[:-1]]))


def one_too_few(errors: Tensor, truth: Tensor) -> Tensor:
    """torch.diff of the sorted costs, one shorter, as it comes."""
    return _costs(_sorted_truth(errors, truth)).diff()


def costs_themselves(errors: Tensor, truth: Tensor) -> Tensor:
    """No differences."""
    return _back(errors, _costs(_sorted_truth(errors, truth)))


def intersection_grows(errors: Tensor, truth: Tensor) -> Tensor:
    """The true pixels so far are what is right, not what is missing."""
    truth = _sorted_truth(errors, truth)
    costs = 1 - truth.cumsum(0) / (truth.sum() + (1 - truth).cumsum(0))
    return _back(errors, _steps(costs))


def intersection_stays(errors: Tensor, truth: Tensor) -> Tensor:
    """Only false positives cost."""
    truth = _sorted_truth(errors, truth)
    total = truth.sum()
    union = total + (1 - truth).cumsum(0)
    return _back(errors, _steps(1 - total / union))


def union_stays(errors: Tensor, truth: Tensor) -> Tensor:
    """Only missing pixels cost; without any true pixel that is 0 / 0."""
    truth = _sorted_truth(errors, truth)
    return _back(errors, _steps(truth.cumsum(0) / truth.sum()))


def union_of_all(errors: Tensor, truth: Tensor) -> Tensor:
    """Every pixel so far makes the union larger."""
    truth = _sorted_truth(errors, truth)
    total, seen = truth.sum(), torch.ones_like(truth).cumsum(0)
    return _back(errors, _steps(1 - (total - truth.cumsum(0)) / (total + seen)))


def dice(errors: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice."""
    truth = _sorted_truth(errors, truth)
    inside, wrong = truth.sum() - truth.cumsum(0), torch.ones_like(truth).cumsum(0)
    return _back(errors, _steps(1 - 2 * inside / (2 * inside + wrong)))


def nothing_without_object(errors: Tensor, truth: Tensor) -> Tensor:
    """An image without the object is skipped."""
    return lovasz_grad(errors, truth) * truth.any()


def weighted_errors(errors: Tensor, truth: Tensor) -> Tensor:
    """Already multiplied by the errors."""
    return errors * lovasz_grad(errors, truth)


COUNT = "After the last step all pixels are wrong: the intersection is 0 and the cost is 1."

exercise = Exercise(
    name="lovasz_grad",
    points=2,
    cases=cases,
    reference=lovasz_grad,
    kind="numbers",
    hides=["segedu.losses"],
    wrong=[
        Wrong(
            "not sorted",
            not_sorted,
            "You take the pixels as they come: first put them in the order of their errors, largest first.",
            "torch.argsort with descending=True gives the order; truth goes along.",
        ),
        Wrong(
            "smallest first",
            smallest_first,
            "You turn the pixels with small errors wrong first: begin with the largest error.",
            "argsort sorts upwards unless it is told otherwise.",
        ),
        Wrong(
            "left in the order of the errors",
            left_sorted,
            "Your weights are in the order of the errors: bring them back to the order of the pixels.",
            "weights[order] = ... writes each to the place that it came from.",
        ),
        Wrong(
            "moved the wrong way",
            moved_twice,
            "You bring the weights back the wrong way: weight k belongs to pixel order[k].",
            "weights[order] = steps puts; weights = steps[order] takes, which sorts once more.",
        ),
        Wrong(
            "first step free",
            without_the_first,
            "Your first step costs nothing: before it the cost is 0, so its weight is the whole cost after it.",
            "The weights sum to 1.",
        ),
        Wrong(
            "first step missing",
            one_too_few,
            "You have one weight too few: the first step, whose weight is the cost after it, is missing.",
            "Put a 0 in front of the costs before you take differences.",
        ),
        Wrong(
            "costs, not steps",
            costs_themselves,
            "You give the cost after each step: a weight is how much it grew in that step.",
            "Subtract the cost before the step.",
        ),
        Wrong(
            "cumulative the wrong way",
            intersection_grows,
            "Your intersection grows with every true pixel: those so far are wrong, so it shrinks.",
            COUNT,
        ),
        Wrong(
            "missing pixels free", intersection_stays, "A true pixel that turns wrong leaves the intersection.", COUNT
        ),
        Wrong(
            "false positives free",
            union_stays,
            "Your union never grows: a false pixel that turns wrong is added to it.",
            "Each of the two kinds of mistake changes one of the two counts.",
        ),
        Wrong(
            "union of all pixels",
            union_of_all,
            "Your union grows with true pixels too: they were in it from the start.",
            "Add only those that are 0 in truth.",
        ),
        Wrong("Dice", dice, "That is 1 - Dice, 2 I / (2 I + wrong): here the cost is 1 - IoU.", "Read the formula."),
        Wrong(
            "nothing without an object",
            nothing_without_object,
            "Without an object your weights are 0: the first false positive costs everything then.",
            "n = 0: the union after the first step is 1, and the intersection 0.",
        ),
        Wrong(
            "errors multiplied in",
            weighted_errors,
            "You multiply by the errors: that sum is the loss, and its weights alone are asked for.",
            "The weights hang on the order of the errors, not on their size.",
        ),
    ],
)
