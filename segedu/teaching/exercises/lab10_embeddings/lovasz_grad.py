"""lovasz_grad: how much the error of each pixel counts in the Lovász loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def lovasz_grad(errors: Tensor, truth: Tensor) -> Tensor:
    """Compute for each pixel by how much 1 - IoU grows when it becomes wrong, after all pixels with larger errors.

    Sort the pixels by their errors in descending order, and let them become wrong one after the other. With n object
    pixels in total, after k steps

        intersection = n - (object pixels among the first k)         a wrong object pixel is missing
        union        = n + (background pixels among the first k)     a wrong background pixel is a false positive
        cost         = 1 - intersection / union

    The weight of a pixel is the cost after its step minus the cost before it; before the first step the cost is 0. The
    Lovász loss is then `(errors * weights).sum()`, and the weights are its gradient with respect to the errors.

    Args:
        errors: (P,) floats, at least 0; no two are equal.
        truth: (P,) floats: 1 on the object, 0 in the background. May be 0 everywhere; the formula still holds.

    Returns:
        (P,) floats: the weight of each pixel, in the order of the arguments, not of the sorted errors.

    Example: errors 0.9, 0.5, 0.2 of a background pixel and two object pixels. The costs are 1 - 2/3, 1 - 1/3 and
    1 - 0/3, so each step adds 1/3.

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


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Object and background pixels with large and small errors."""

    def ranked(name: str, truth: list[int], in_order: bool = False) -> Case:
        """`truth` is in descending order of the errors, so that each draw has these steps."""
        count = len(truth)
        errors = np.sort(rng.choice(np.arange(1, 200), count, replace=False))[::-1] / 100
        order = np.arange(count) if in_order else rng.permutation(count)
        if not in_order and count > 1 and (order[:2] == [0, 1]).all():
            order = order[::-1]
        return case(name, *(torch.from_numpy(v[order]) for v in (errors, np.array(truth, dtype=np.float64))))

    more = [int(n) for n in rng.integers(0, 2, 5)]
    core = [
        ranked("nine pixels", [0, 1, 1, 0, *more]),
        ranked("a large error on the object", [1, 0, 0, 1, 0, 1, *more]),
    ]
    edge = [
        ranked("no object", [0] * 5),
        ranked("object everywhere", [1] * 6),
        ranked("sorted already", [0, 1, 0, 1, 1, 0], in_order=True),
        ranked("one pixel", [1]),
        ranked("one background pixel", [0]),
    ]
    return {"core": (1, core), "edge": (1, edge)}


right = Variants(lovasz_grad)


def _with_costs(costs: Callable[[Tensor], Tensor], steps: Callable[[Tensor], Tensor] = _steps) -> Callable:
    """`lovasz_grad` with other costs of the sorted truth, or another way from costs to weights."""

    def grad(errors: Tensor, truth: Tensor) -> Tensor:
        order = errors.argsort(descending=True)
        weights = torch.zeros_like(truth)
        weights[order] = steps(costs(truth[order]))
        return weights

    return grad


def left_sorted(errors: Tensor, truth: Tensor) -> Tensor:
    return _steps(_costs(truth[errors.argsort(descending=True)]))


def one_too_few(errors: Tensor, truth: Tensor) -> Tensor:
    return _costs(truth[errors.argsort(descending=True)]).diff()


def intersection_grows(truth: Tensor) -> Tensor:
    return 1 - truth.cumsum(0) / (truth.sum() + (1 - truth).cumsum(0))


def intersection_constant(truth: Tensor) -> Tensor:
    return 1 - truth.sum() / (truth.sum() + (1 - truth).cumsum(0))


def union_of_all(truth: Tensor) -> Tensor:
    return 1 - (truth.sum() - truth.cumsum(0)) / (truth.sum() + torch.ones_like(truth).cumsum(0))


def dice(truth: Tensor) -> Tensor:
    intersection, wrong = truth.sum() - truth.cumsum(0), torch.ones_like(truth).cumsum(0)
    return 1 - 2 * intersection / (2 * intersection + wrong)


def _smoothed(truth: Tensor) -> Tensor:
    total = truth.sum()
    return 1 - (total - truth.cumsum(0) + 1) / (total + (1 - truth).cumsum(0) + 1)


def _all_pixels(truth: Tensor) -> Tensor:
    return 1 - (len(truth) - truth.cumsum(0)) / (len(truth) + (1 - truth).cumsum(0))


def _exchanged(truth: Tensor) -> Tensor:
    total = truth.sum()
    return 1 - (total - (1 - truth).cumsum(0)) / (total + truth.cumsum(0)).clamp(min=1)


def _in_place(costs: Tensor) -> Tensor:
    """Subtract the difference before, not the cost before."""
    steps = [costs[0]]
    for cost in costs[1:]:
        steps.append(cost - steps[-1])
    return torch.stack(steps)


def _differences_in_pixel_order(errors: Tensor, truth: Tensor) -> Tensor:
    order = errors.argsort(descending=True)
    costs = torch.zeros_like(truth)
    costs[order] = _costs(truth[order])
    return _steps(costs)


def _truth_unsorted(errors: Tensor, truth: Tensor) -> Tensor:
    weights = torch.zeros_like(truth)
    weights[errors.argsort(descending=True)] = _steps(_costs(truth))
    return weights


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
            right.instead(lambda a: _steps(_costs(a.truth))),
            "You process the pixels in the given order. Sort them by their errors first, the largest first.",
            "torch.argsort with descending=True returns the order; apply it to truth as well.",
        ),
        Wrong(
            "smallest first",
            right.given(errors=lambda a: -a.errors),
            "You begin with the smallest error. Begin with the largest.",
            "argsort sorts in ascending order by default.",
        ),
        Wrong(
            "left in the order of the errors",
            left_sorted,
            "Your weights are in the order of the sorted errors. Return them in the order of the pixels.",
            "weights[order] = ... writes each value to the index that it came from.",
        ),
        Wrong(
            "moved the wrong way",
            right.instead(lambda a: left_sorted(a.errors, a.truth)[a.errors.argsort(descending=True)]),
            "You undo the sorting the wrong way. The weight of step k belongs to the pixel with the k-th largest "
            "error.",
            "weights[order] = steps undoes the sorting; weights = steps[order] sorts once more.",
        ),
        Wrong(
            "first step free",
            _with_costs(_costs, lambda costs: torch.cat([0 * costs[:1], costs[1:] - costs[:-1]])),
            "Your first weight is 0. It should be the cost after the first step, because the cost before it is 0.",
            "The weights sum to 1.",
        ),
        Wrong(
            "first step missing",
            one_too_few,
            "You return one weight too few. The first step needs a weight too: the cost after it.",
            "Put a 0 before the costs and then take differences.",
        ),
        Wrong(
            "costs, not steps",
            _with_costs(_costs, lambda costs: costs),
            "You return the cost after each step. A weight is the increase of the cost in that step.",
            "Subtract the cost before the step.",
        ),
        Wrong(
            "cumulative the wrong way",
            _with_costs(intersection_grows),
            "Your intersection grows with every object pixel. It should shrink, because each of them becomes wrong.",
            COUNT,
        ),
        Wrong(
            "missing pixels free",
            _with_costs(intersection_constant),
            "Your intersection does not change. An object pixel that becomes wrong leaves the intersection.",
            COUNT,
        ),
        Wrong(
            "false positives free",
            _with_costs(lambda truth: truth.cumsum(0) / truth.sum()),
            "Your union does not grow. A background pixel that becomes wrong is added to it.",
            "False negatives change the intersection, false positives the union.",
        ),
        Wrong(
            "union of all pixels",
            _with_costs(union_of_all),
            "Your union also grows with object pixels. Only background pixels that become wrong are added to it.",
            "Add only pixels with truth 0.",
        ),
        Wrong(
            "Dice",
            _with_costs(dice),
            "Your cost is 1 - Dice, with Dice = 2 I / (2 I + wrong). It should be 1 - IoU.",
            "Read the formula of the cost again.",
        ),
        Wrong(
            "nothing without an object",
            right.then(lambda out, a: out * a.truth.any()),
            "Without an object, all your weights are 0. The first false positive should then have the weight 1.",
            "n = 0: after the first step the union is 1 and the intersection 0.",
        ),
        Wrong(
            "errors multiplied in",
            right.then(lambda out, a: a.errors * out),
            "You multiply the weights by the errors. The sum of these products is the loss; return only the weights.",
            "The weights depend on the order of the errors, not on their values.",
        ),
        Wrong(
            "smoothed by 1",
            _with_costs(_smoothed),
            "You add 1 to the intersection and to the union. Here the IoU is not smoothed.",
            COUNT,
        ),
        Wrong(
            "next cost minus this one",
            _with_costs(_costs, lambda costs: torch.cat([costs[1:] - costs[:-1], 0 * costs[:1]])),
            "You subtract this cost from the next one. A weight is the cost after a step minus the cost before it.",
            "Put a 0 before the costs and then take differences.",
        ),
        Wrong(
            "differences in the order of the pixels",
            _differences_in_pixel_order,
            "You take the differences after the costs are back in the order of the pixels. Take them in sorted order.",
            "A step and the one before it are neighbours in the order of the errors.",
        ),
        Wrong(
            "divided by the pixels",
            right.then(lambda out, a: out / len(a.errors)),
            "You divide the weights by the number of pixels. They sum to 1 as they are.",
            COUNT,
        ),
        Wrong(
            "n of all pixels",
            _with_costs(_all_pixels),
            "Your n is the number of all pixels. It is the number of object pixels.",
            "Before the first step, intersection and union are the object.",
        ),
        Wrong(
            "object and background exchanged",
            _with_costs(_exchanged),
            "You exchange object and background. A wrong object pixel leaves the intersection, a wrong background "
            "pixel joins the union.",
            COUNT,
        ),
        Wrong(
            "differences of differences",
            _with_costs(_costs, _in_place),
            "You subtract the weight before, not the cost before. This looks like differences that are taken in place.",
            "Take the differences of a copy.",
        ),
        Wrong(
            "truth not sorted",
            _truth_unsorted,
            "You sort the errors, but not `truth`. Both have to be in the same order.",
            "Write truth[order].",
        ),
    ],
)
