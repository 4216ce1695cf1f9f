"""mask_match: the query of each target, by class probabilities and masks at sampled points."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.outcomes import same_outcome
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab12_one_stage import choices
from segedu.teaching.exercises.lab15_universal import mask_terms as terms
from segedu.teaching.exercises.lab15_universal.match_scenes import match_cases, padded

Match = tuple[Tensor, Tensor]
Term = Callable[[Tensor, Tensor], Tensor]


def mask_match(class_logits: Tensor, mask_logits: Tensor, labels: Tensor, masks: Tensor) -> Match:
    """Match each target with a query of its own so that the sum of the costs is least, as Mask2Former does.

    The masks are compared at P points, which are the same for all pairs. The cost of query q and target n is

        cost(q, n) = -2 p_q(label of n) + 5 bce(q, n) + 5 dice(q, n)

    - p_q: a softmax over the K + 1 columns of the query. The last column is "no object";
    - bce: the binary cross-entropy of the mask logits with the target's mask, averaged over the points;
    - dice: 1 - (2 s(p y) + 1) / (s(p) + s(y) + 1), where p is the sigmoid of the mask logits, y is 1 inside the
      target's mask and 0 outside, and s is the sum over the points.

    A query without a target adds no cost, whatever it predicts. The logits may require gradients, but the matching is
    computed without gradients. `scipy.optimize.linear_sum_assignment(cost)` finds the pairs with the least sum.

    Args:
        class_logits: (Q, K + 1) floats.
        mask_logits: (Q, P) floats, at the points.
        labels: (N,) integers from 0 to K - 1. N is at most Q, and may be 0.
        masks: (N, P) bool, at the points.

    Returns:
        The cost, (Q, N) floats, and the query that each target is matched with, (N,) integers.

    Example: one of two points is inside the mask. Both queries are very confident, but only the second one is right.

        >>> pixels, mask = torch.tensor([[-99.0, 99.0], [99.0, -99.0]]), torch.tensor([[True, False]])
        >>> mask_match(torch.tensor([[99.0, 0.0], [99.0, 0.0]]), pixels, torch.tensor([0]), mask)
        (tensor([[496.3333],
                [ -2.0000]]), tensor([1]))
    """
    y = masks.to(mask_logits)
    cost = _classes(class_logits, labels) + _bce(mask_logits, y) + _dice(mask_logits, y)
    return cost.detach(), _matched(cost)


def _classes(x: Tensor, labels: Tensor) -> Tensor:
    return -2 * x.softmax(dim=1)[:, labels]


def _bce(x: Tensor, y: Tensor) -> Tensor:
    """(Q, N): softplus(-x) at points inside the mask, softplus(x) outside."""
    return 5 * (F.softplus(-x) @ y.T + F.softplus(x) @ (1 - y).T) / x.shape[1]


def _dice(x: Tensor, y: Tensor) -> Tensor:
    p = x.sigmoid()
    return 5 * (1 - (2 * p @ y.T + 1) / (p.sum(dim=1, keepdim=True) + y.sum(dim=1) + 1))


def _matched(cost: Tensor) -> Tensor:
    return torch.from_numpy(linear_sum_assignment(cost.detach().T)[1])


right = Variants(mask_match)


def _costs(
    classes: Term = _classes, bce: Term = _bce, dice: Term = _dice, match: Callable[[Tensor], Tensor] = _matched
) -> Callable[..., Match]:
    """Other terms of the cost: `classes(class logits, labels)`, `bce` and `dice` of mask logits and targets."""

    def compute(a: SimpleNamespace) -> Match:
        y = a.masks.to(a.mask_logits)
        cost = classes(a.class_logits, a.labels) + bce(a.mask_logits, y) + dice(a.mask_logits, y)
        return cost, match(cost)

    return right.instead(compute)


def _scaled(classes: float = 1, bce: float = 1, dice: float = 1) -> Callable[..., Match]:
    """The terms of the cost, each times a factor."""
    return _costs(lambda x, k: classes * _classes(x, k), lambda x, y: bce * _bce(x, y), lambda x, y: dice * _dice(x, y))


def _choice(queries: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Match]:
    """The right cost, and `queries(cost, class probabilities)`."""
    return right.then(lambda out, a: (out[0], queries(out[0], a.class_logits.detach().softmax(dim=1))))


def _padded_targets(a: SimpleNamespace) -> Match:
    """Targets padded to Q with "no object" and empty masks, which have a cost."""
    cost, queries = mask_match(a.class_logits, a.mask_logits, *padded(list(vars(a).values())))
    return cost[:, : len(a.labels)], queries[: len(a.labels)]


def _fails_without_targets(out: Match, a: SimpleNamespace) -> Match:
    a.labels.max()
    return out


def same_mistake(case: Case, ours: dict, theirs: dict, tolerance: float) -> bool:
    """Whether both show the same mistake: a RuntimeError is one of gradients only if its message mentions them.

    Many other mistakes raise a RuntimeError, too. Grading does not keep the messages of a student's errors, so there
    this mistake is refused without a name.
    """
    of_gradients = ["grad" in str(outcome.get("_message", "")) for outcome in (ours, theirs)]
    return same_outcome(case, ours, theirs, tolerance) and of_gradients[0] == of_gradients[1]


columns = _choice(lambda cost, p: torch.from_numpy(linear_sum_assignment(cost)[1]))
one_minus_p = _costs(classes=lambda x, k: 2 + _classes(x, k))
logits_of_classes = _costs(classes=lambda x, k: -2 * x[:, k])
sigmoids = _costs(classes=lambda x, k: -2 * x.sigmoid()[:, k])
over_queries = _costs(classes=lambda x, k: -2 * x.softmax(dim=0)[:, k])
k_columns = _costs(classes=lambda x, k: -2 * x[:, :-1].softmax(dim=1)[:, k])
from_one = _costs(classes=lambda x, k: -2 * x.softmax(dim=1)[:, k - 1])
bce_sum = _costs(bce=lambda x, y: _bce(x, y) * x.shape[1])
inside_only = _costs(bce=lambda x, y: 5 * F.softplus(-x) @ y.T / x.shape[1])
by_area = _costs(bce=lambda x, y: _bce(x, y) * x.shape[1] / y.sum(dim=1).clamp(min=1))
sigmoid_twice = _costs(bce=lambda x, y: _bce(x.sigmoid(), y))
squares = _costs(bce=lambda x, y: 5 * ((x.sigmoid()[:, None] - y) ** 2).mean(dim=2))
differences = _costs(bce=lambda x, y: 5 * (x.sigmoid()[:, None] - y).abs().mean(dim=2))
dice_itself = _costs(dice=lambda x, y: _dice(x, y) - 5)
no_plus_1 = _costs(dice=lambda x, y: terms.dice(x.sigmoid(), y, 0.0))
hard_dice = _costs(dice=lambda x, y: terms.dice((x > 0).to(x), y))
squared = _costs(dice=terms.dice_of_squares)
without_2 = _costs(dice=terms.dice_without_the_2)
weights_missing = _costs(lambda x, k: _classes(x, k) / 2, lambda x, y: _bce(x, y) / 5, lambda x, y: _dice(x, y) / 5)
maskformer = _scaled(1 / 2, 4, 1 / 5)
argmin = _choice(lambda cost, p: cost.argmin(dim=0))
first_come = _choice(lambda cost, p: choices.one_after_the_other(cost, list(range(cost.shape[1]))))
cheapest_pair = _choice(choices.cheapest_pair_first)
largest = _choice(lambda cost, p: _matched(-cost))
of_queries = _choice(choices.for_queries)
first_queries = _choice(lambda cost, p: torch.arange(cost.shape[1]))
no_object_paid = _choice(choices.padded)
targets_by_queries = right.then(lambda out, a: (out[0].T, out[1]))

SIGN = "The assignment minimises the cost, so a good match must have a low cost."
TERMS = "cost = -2 p + 5 bce + 5 dice, and dice is 1 - Dice."
SOFTMAX = "Apply the softmax to all K + 1 columns of each query."
MEAN = "F.binary_cross_entropy_with_logits of each pair, averaged over the P points."
DICE = "1 - (2 s(p y) + 1) / (s(p) + s(y) + 1), where p is the sigmoid. s(p y) of all pairs is p @ y.T."
ALL = "The sum over all pairs must be least. linear_sum_assignment finds it."
NOTHING = "A query without a target adds no cost, whatever it predicts."
ORDER = "linear_sum_assignment returns rows and columns, sorted by row. The columns of cost.T are the queries."

exercise = Exercise(
    name="mask_match",
    points=4,
    cases=partial(match_cases, match=mask_match),
    reference=mask_match,
    tolerance=1e-6,
    kind="matches",
    probe=call_grad,
    alike=same_mistake,
    hides=[
        "segedu.ops.matching",
        "segedu.panoptic.maskformer",
        "segedu.panoptic.mask2former.loss",
        "segedu.losses.set_prediction",
    ],
    wrong=[
        Wrong(
            "class sign",
            _scaled(classes=-1),
            "Your class term has the wrong sign. A query that is confident of the target's class should have a "
            "lower cost.",
            SIGN,
        ),
        Wrong("1 - p", one_minus_p, "You use 2 (1 - p). The match is the same, but the class term is -2 p.", TERMS),
        Wrong(
            "class missing",
            _costs(classes=lambda x, k: 0),
            "You leave the class out of the cost. A query that is confident of the target's class should have a "
            "lower cost.",
            TERMS,
        ),
        Wrong(
            "log of the probability",
            _costs(classes=lambda x, k: -2 * x.log_softmax(dim=1)[:, k]),
            "You use the logarithm of the probability. The cost uses the probability itself.",
            "The logarithm belongs to the loss, which is computed after the matching.",
        ),
        Wrong("logits of classes", logits_of_classes, "You use the logit of the class. Use its probability.", SOFTMAX),
        Wrong(
            "sigmoid of classes",
            sigmoids,
            "You apply a sigmoid to the class logits. Apply a softmax over the columns of each query.",
            SOFTMAX,
        ),
        Wrong(
            "softmax over queries",
            over_queries,
            "Your softmax is over the queries. It should be over the columns of each query.",
            SOFTMAX,
        ),
        Wrong(
            "softmax without no object",
            k_columns,
            'You remove the column of "no object" before the softmax. Keep it in the softmax.',
            SOFTMAX,
        ),
        Wrong(
            "labels from 1",
            from_one,
            "You use column label - 1. Use column label.",
            "Labels and columns both begin with 0.",
        ),
        Wrong(
            "no object first",
            _costs(classes=lambda x, k: -2 * x.softmax(dim=1)[:, k + 1]),
            'You treat column 0 as "no object". The last column is "no object".',
            "Label 0 belongs to column 0.",
        ),
        Wrong(
            "cross-entropy missing",
            _costs(bce=lambda x, y: 0),
            "You leave the cross-entropy of the masks out of the cost. Add it with its weight, 5.",
            TERMS,
        ),
        Wrong(
            "cross-entropy sign",
            _scaled(bce=-1),
            "Your cross-entropy has the wrong sign. Masks that differ should have a higher cost.",
            SIGN,
        ),
        Wrong("cross-entropy summed", bce_sum, "You sum the cross-entropy over the points. Compute its mean.", MEAN),
        Wrong(
            "inside only",
            inside_only,
            "Your cross-entropy ignores the points outside the target. Average it over all points.",
            MEAN,
        ),
        Wrong(
            "divided by the target",
            by_area,
            "You divide the cross-entropy by the target's area. Divide it by P, the number of points.",
            MEAN,
        ),
        Wrong("sigmoid twice", sigmoid_twice, "You apply the sigmoid twice. This cross-entropy expects logits.", MEAN),
        Wrong("squares", squares, "You compare the masks by squared differences. Use the binary cross-entropy.", MEAN),
        Wrong("differences", differences, "You use absolute differences of the masks. Use the cross-entropy.", MEAN),
        Wrong(
            "focal",
            _costs(bce=terms.focal),
            "You use the focal loss, as MaskFormer does. Use the binary cross-entropy.",
            MEAN,
        ),
        Wrong(
            "mean over targets",
            _costs(bce=lambda x, y: _bce(x, y) / max(1, len(y)), dice=lambda x, y: _dice(x, y) / max(1, len(y))),
            "You divide the mask terms by the number of targets. The cost of a pair does not depend on this number.",
            "That division belongs to the loss. In the matching it changes the weight of masks against classes.",
        ),
        Wrong(
            "Dice missing",
            _costs(dice=lambda x, y: 0),
            "You leave the Dice term out of the cost. Add 1 - Dice with its weight, 5.",
            TERMS,
        ),
        Wrong(
            "Dice sign",
            _costs(dice=lambda x, y: 5 - _dice(x, y)),
            "Your Dice term has the wrong sign. Masks that overlap should have a lower cost.",
            SIGN,
        ),
        Wrong("Dice itself", dice_itself, "You use -Dice. The match is the same, but the term is 1 - Dice.", TERMS),
        Wrong(
            "Dice not smooth",
            no_plus_1,
            "You leave out the + 1 in the numerator and the denominator of Dice. Add it to both.",
            DICE,
        ),
        Wrong("Dice of logits", _costs(dice=terms.dice), "You compute Dice from the logits. Use their sigmoids.", DICE),
        Wrong(
            "Dice of hard masks",
            hard_dice,
            "You threshold the masks at 1/2 before you compute Dice. Use the sigmoids without a threshold.",
            DICE,
        ),
        Wrong(
            "squares below",
            squared,
            "You sum the squares of the sigmoids in the denominator of Dice. Sum the sigmoids.",
            DICE,
        ),
        Wrong("IoU for Dice", _costs(dice=terms.soft_iou), "You use the IoU. Use the Dice coefficient.", DICE),
        Wrong(
            "without the 2",
            without_2,
            "You leave out the factor 2 in the numerator of Dice, so even perfect masks have a cost. Multiply "
            "the intersection by 2.",
            DICE,
        ),
        Wrong(
            "weights missing",
            weights_missing,
            "You leave out the weights. They are 2 for the class, 5 for the cross-entropy, and 5 for Dice.",
            TERMS,
        ),
        Wrong(
            "weights swapped",
            _scaled(2.5, 0.4),
            "You swap the weights of class and cross-entropy. The weight of the class is 2, and that of the "
            "cross-entropy is 5.",
            TERMS,
        ),
        Wrong(
            "MaskFormer's weights",
            maskformer,
            "You use MaskFormer's weights, 1, 20 and 1. Use 2, 5 and 5, the weights of Mask2Former.",
            TERMS,
        ),
        Wrong("argmin", argmin, "You match each target with its cheapest query. Targets may then share a query.", ALL),
        Wrong("first come", first_come, "Your targets choose in turn. Late ones may get expensive queries.", ALL),
        Wrong("cheapest pair first", cheapest_pair, "You match the cheapest pair first. Others can be expensive.", ALL),
        Wrong(
            "dearest",
            largest,
            "You find the match with the largest sum of costs. Find the one with the least sum.",
            "linear_sum_assignment minimises by default.",
        ),
        Wrong(
            "in the order of queries",
            _choice(lambda cost, p: torch.from_numpy(linear_sum_assignment(cost)[0])),
            "You return the queries in increasing order. Return them in the order of the targets.",
            ORDER,
        ),
        Wrong("scipy's targets", columns, "You return scipy's targets. Return the query of each target.", ORDER),
        Wrong(
            "for each query",
            of_queries,
            "You return one target per query. Return one query per target.",
            "(N,), not (Q,).",
        ),
        Wrong("first queries", first_queries, "You return the first N queries in order. The costs should decide.", ALL),
        Wrong(
            "no-object left out",
            _choice(choices.only_with_objects),
            'You exclude queries that predict "no object". Include them: at first all queries may predict it, '
            "and none would be trained.",
            NOTHING,
        ),
        Wrong(
            "no-object matched",
            no_object_paid,
            'You give the other queries a cost for "no object". Match only the N targets.',
            NOTHING,
        ),
        Wrong(
            "padded targets",
            right.instead(_padded_targets),
            "You pad the targets with empty masks, whose cost changes the match of the other targets. Match only "
            "the N targets.",
            NOTHING,
        ),
        Wrong(
            "gradients to scipy",
            _costs(match=lambda cost: torch.from_numpy(linear_sum_assignment(cost.T)[1])),
            "Your function fails if the logits require gradients. Compute the matching without gradients.",
            "cost.detach(), or torch.no_grad(). The loss of the matched pairs is computed later, with gradients.",
        ),
        Wrong(
            "targets by queries",
            targets_by_queries,
            "Your cost has shape (N, Q). It should have shape (Q, N).",
            "p @ y.T",
        ),
        Wrong(
            "fails without targets",
            right.then(_fails_without_targets),
            "Your function fails if there are no targets. It should then return a cost of shape (Q, 0) and an "
            "empty match.",
            "An image without targets is normal.",
        ),
    ],
)
