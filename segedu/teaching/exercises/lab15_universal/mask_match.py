"""mask_match: which query belongs to which target, by classes and masks at sampled points."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.outcomes import same_outcome
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.exercises.lab12_one_stage import choices
from segedu.teaching.exercises.lab15_universal import mask_terms as terms
from segedu.teaching.exercises.lab15_universal.match_scenes import match_cases, padded

Pair = tuple[Tensor, Tensor]


def mask_match(class_logits: Tensor, mask_logits: Tensor, labels: Tensor, masks: Tensor) -> Pair:
    """Find the query of each target, as Mask2Former does: one to one, so that the sum of the costs is least.

    The masks are compared at P points, which are the same for all. Query q and target n cost

        cost(q, n) = -2 p_q(label of n) + 5 bce(q, n) + 5 dice(q, n)

    - p_q: a softmax over the K + 1 columns of the query; the last one is "no object";
    - bce: the binary cross-entropy of the mask logits with the target's mask, the mean over the points;
    - dice: 1 - (2 s(p y) + 1) / (s(p) + s(y) + 1), where p are the sigmoids of the mask logits, y is 1 in the target's
      mask and 0 outside, and s is the sum over the points.

    A query that gets no target costs nothing, whatever it says. The logits may come with gradients: the match is
    chosen without any. scipy.optimize.linear_sum_assignment(cost) finds the least sum.

    Args:
        class_logits: (Q, K + 1) floats.
        mask_logits: (Q, P) floats, at the points.
        labels: (N,) integers from 0 to K - 1; N is at most Q, and may be 0.
        masks: (N, P) bool, at the points.

    Returns:
        The cost, (Q, N) floats; and (N,) integers, the query of each target.

    Example: one of two points is in the mask, and both queries are sure of everything. The second one is right.

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
    """(Q, N): of points inside softplus(-x), of points outside softplus(x)."""
    return 5 * (F.softplus(-x) @ y.T + F.softplus(x) @ (1 - y).T) / x.shape[1]


def _dice(x: Tensor, y: Tensor) -> Tensor:
    p = x.sigmoid()
    return 5 * (1 - (2 * p @ y.T + 1) / (p.sum(dim=1, keepdim=True) + y.sum(dim=1) + 1))


def _matched(cost: Tensor) -> Tensor:
    return torch.from_numpy(linear_sum_assignment(cost.detach().T)[1])


Term = Callable[[Tensor, Tensor], Tensor]


def _costs(classes: Term = _classes, bce: Term = _bce, dice: Term = _dice) -> Callable[..., Pair]:
    """The three terms, each replaced by another."""

    def answer(class_logits: Tensor, mask_logits: Tensor, labels: Tensor, masks: Tensor) -> Pair:
        y = masks.to(mask_logits)
        cost = classes(class_logits, labels) + bce(mask_logits, y) + dice(mask_logits, y)
        return cost, _matched(cost)

    return answer


class_sign = _costs(classes=lambda x, k: -_classes(x, k))
one_minus = _costs(classes=lambda x, k: 2 + _classes(x, k))
class_missing = _costs(classes=lambda x, k: 0)
logarithm = _costs(classes=lambda x, k: -2 * x.log_softmax(dim=1)[:, k])
logits_as_they_are = _costs(classes=lambda x, k: -2 * x[:, k])
sigmoids = _costs(classes=lambda x, k: -2 * x.sigmoid()[:, k])
over_queries = _costs(classes=lambda x, k: -2 * x.softmax(dim=0)[:, k])
without_no_object = _costs(classes=lambda x, k: -2 * x[:, :-1].softmax(dim=1)[:, k])
labels_from_one = _costs(classes=lambda x, k: -2 * x.softmax(dim=1)[:, k - 1])
no_object_first = _costs(classes=lambda x, k: -2 * x.softmax(dim=1)[:, k + 1])
bce_missing = _costs(bce=lambda x, y: 0)
bce_sign = _costs(bce=lambda x, y: -_bce(x, y))
bce_summed = _costs(bce=lambda x, y: _bce(x, y) * x.shape[1])
bce_inside_only = _costs(bce=lambda x, y: 5 * F.softplus(-x) @ y.T / x.shape[1])
over_the_target = _costs(bce=lambda x, y: _bce(x, y) * x.shape[1] / y.sum(dim=1).clamp(min=1))
bce_of_probabilities = _costs(bce=lambda x, y: _bce(x.sigmoid(), y))
squares = _costs(bce=lambda x, y: 5 * ((x.sigmoid()[:, None] - y) ** 2).mean(dim=2))
differences = _costs(bce=lambda x, y: 5 * (x.sigmoid()[:, None] - y).abs().mean(dim=2))
focal = _costs(bce=terms.focal)
mean_over_targets = _costs(bce=lambda x, y: _bce(x, y) / max(1, len(y)), dice=lambda x, y: _dice(x, y) / max(1, len(y)))
dice_missing = _costs(dice=lambda x, y: 0)
dice_sign = _costs(dice=lambda x, y: 5 - _dice(x, y))
dice_itself = _costs(dice=lambda x, y: _dice(x, y) - 5)
dice_not_smooth = _costs(dice=lambda x, y: terms.dice_of(x.sigmoid(), y, 0.0))
dice_of_logits = _costs(dice=terms.dice_of)
dice_of_hard_masks = _costs(dice=lambda x, y: terms.dice_of((x > 0).to(x), y))
dice_squared = _costs(dice=terms.squared)
iou_for_dice = _costs(dice=terms.soft_iou)
no_two = _costs(dice=lambda x, y: 5 - (5 - _dice(x, y)) / 2 - 2.5 / (x.sigmoid().sum(1, keepdim=True) + y.sum(1) + 1))
not_weighted = _costs(lambda x, k: _classes(x, k) / 2, lambda x, y: _bce(x, y) / 5, lambda x, y: _dice(x, y) / 5)
swapped = _costs(lambda x, k: _classes(x, k) * 2.5, lambda x, y: _bce(x, y) * 0.4)
maskformers = _costs(lambda x, k: _classes(x, k) / 2, lambda x, y: _bce(x, y) * 4, lambda x, y: _dice(x, y) / 5)


def _choice(pick: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Pair]:
    """The right cost, and `pick(cost, probabilities)`."""

    def answer(class_logits: Tensor, mask_logits: Tensor, labels: Tensor, masks: Tensor) -> Pair:
        cost, _ = mask_match(class_logits, mask_logits, labels, masks)
        return cost, pick(cost, class_logits.detach().softmax(dim=1))

    return answer


cheapest = _choice(lambda cost, p: cost.argmin(dim=0))
first_come = _choice(lambda cost, p: choices.one_after_the_other(cost, list(range(cost.shape[1]))))
cheapest_pair = _choice(choices.cheapest_pair_first)
dearest = _choice(lambda cost, p: _matched(-cost))
in_order_of_queries = _choice(lambda cost, p: torch.from_numpy(linear_sum_assignment(cost)[0]))
targets_of_scipy = _choice(lambda cost, p: torch.from_numpy(linear_sum_assignment(cost)[1]))
for_each_query = _choice(choices.for_queries)
only_with_objects = _choice(choices.only_with_objects)
paid_by_class = _choice(choices.padded)
first_queries = _choice(lambda cost, p: torch.arange(cost.shape[1]))


def padded_masks(class_logits: Tensor, mask_logits: Tensor, labels: Tensor, masks: Tensor) -> Pair:
    """Targets filled up to Q with "no object" and empty masks, with the cost of both."""
    cost, queries = mask_match(class_logits, mask_logits, *padded([class_logits, mask_logits, labels, masks]))
    return cost[:, : len(labels)], queries[: len(labels)]


def gradients_to_scipy(class_logits: Tensor, mask_logits: Tensor, labels: Tensor, masks: Tensor) -> Pair:
    """scipy refuses a tensor that requires a gradient."""
    y = masks.to(mask_logits)
    cost = _classes(class_logits, labels) + _bce(mask_logits, y) + _dice(mask_logits, y)
    return cost, torch.from_numpy(linear_sum_assignment(cost.T)[1])


def targets_by_queries(class_logits: Tensor, mask_logits: Tensor, labels: Tensor, masks: Tensor) -> Pair:
    """(N, Q)."""
    cost, queries = mask_match(class_logits, mask_logits, labels, masks)
    return cost.T, queries


def fails_without_targets(class_logits: Tensor, mask_logits: Tensor, labels: Tensor, masks: Tensor) -> Pair:
    """The largest of no numbers."""
    labels.max()
    return mask_match(class_logits, mask_logits, labels, masks)


def same_mistake(case: Case, ours: dict, theirs: dict, tolerance: float) -> bool:
    """Many a slip ends in a RuntimeError: it is only called one of gradients if the error speaks of them.

    Grading keeps no words of a student's errors, so there this one is refused without a name.
    """
    of_gradients = ["grad" in str(outcome.get("_message", "")) for outcome in (ours, theirs)]
    return same_outcome(case, ours, theirs, tolerance) and of_gradients[0] == of_gradients[1]


SIGN = "The least sum is searched for. What is good must be negative."
THREE = "cost = -2 p + 5 bce + 5 dice, and dice is 1 - Dice."
MEAN = "F.binary_cross_entropy_with_logits of each pair, the mean over the P points."
DICE = "1 - (2 s(p y) + 1) / (s(p) + s(y) + 1), p the sigmoids; s(p y) of all pairs is p @ y.T."
ALL = "The sum over all pairs must be least; linear_sum_assignment finds it."
NOTHING = "A query without a target costs nothing, whatever it says."
ORDER = (
    "linear_sum_assignment(cost) gives rows and columns, sorted by row. Give it cost.T: its columns are the queries."
)

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
            class_sign,
            "Your class term has the wrong sign: a query that is sure of the class must cost less.",
            SIGN,
        ),
        Wrong(
            "1 - p",
            one_minus,
            "You take 2 (1 - p) for the class: the match is the same, but -2 p is asked for.",
            THREE,
        ),
        Wrong("class missing", class_missing, "You leave the class out of the cost.", THREE),
        Wrong(
            "log of the probability",
            logarithm,
            "You take the logarithm of the probability: the match takes the probability itself.",
            "The cross-entropy comes in the loss, when the match is chosen.",
        ),
        Wrong(
            "logits of classes",
            logits_as_they_are,
            "You take the logit of the class: take its probability.",
            "A softmax over the K + 1 columns.",
        ),
        Wrong(
            "sigmoid of classes",
            sigmoids,
            "You take a sigmoid of the classes: take a softmax over the K + 1 columns.",
            'The columns of one query compete; one of them is "no object".',
        ),
        Wrong(
            "softmax over queries",
            over_queries,
            "Your softmax goes over the queries: it goes over the columns of each query.",
            "class_logits is (Q, K + 1).",
        ),
        Wrong(
            "softmax without no object",
            without_no_object,
            'You leave out the column of "no object" before the softmax.',
            'What a query gives to "no object" is missing for the classes.',
        ),
        Wrong(
            "labels from 1",
            labels_from_one,
            "You take column label - 1: here labels begin with 0, as the columns do.",
            "Always look where labels begin.",
        ),
        Wrong(
            "no object first",
            no_object_first,
            'You take column 0 for "no object": it is the last one.',
            "Label 0 has column 0.",
        ),
        Wrong("cross-entropy missing", bce_missing, "You leave the cross-entropy of the masks out of the cost.", THREE),
        Wrong(
            "cross-entropy sign",
            bce_sign,
            "Your cross-entropy has the wrong sign: masks that differ must cost more.",
            THREE,
        ),
        Wrong("cross-entropy summed", bce_summed, "You sum the cross-entropy over the points: take the mean.", MEAN),
        Wrong(
            "inside only",
            bce_inside_only,
            "Your cross-entropy has the points inside the target only: those outside must be silent.",
            MEAN,
        ),
        Wrong(
            "divided by the target",
            over_the_target,
            "You divide the cross-entropy by the points of the target: divide by all P.",
            MEAN,
        ),
        Wrong(
            "sigmoid twice",
            bce_of_probabilities,
            "Your sigmoid is applied twice in the cross-entropy: it wants logits.",
            MEAN,
        ),
        Wrong("squares", squares, "You take squared differences of the masks: take the binary cross-entropy.", MEAN),
        Wrong("differences", differences, "You take differences of the masks: take the binary cross-entropy.", MEAN),
        Wrong("focal", focal, "You take the focal loss: that was MaskFormer's. Here it is the cross-entropy.", MEAN),
        Wrong(
            "mean over targets",
            mean_over_targets,
            "You divide the mask terms by the number of targets: each pair has its own cost.",
            "The number of targets is for the loss. In the match it would change what counts beside the class.",
        ),
        Wrong("Dice missing", dice_missing, "You leave Dice out of the cost.", THREE),
        Wrong("Dice sign", dice_sign, "Your Dice has the wrong sign: masks that overlap must cost less.", SIGN),
        Wrong(
            "Dice itself",
            dice_itself,
            "You take minus the Dice coefficient: the match is the same, but 1 - Dice is asked for.",
            THREE,
        ),
        Wrong("Dice not smooth", dice_not_smooth, "You leave out the + 1 of Dice, above and below.", DICE),
        Wrong("Dice of logits", dice_of_logits, "You take Dice of logits: take the sigmoids.", DICE),
        Wrong("Dice of hard masks", dice_of_hard_masks, "You cut the masks at 1/2 for Dice: take the sigmoids.", DICE),
        Wrong("squares below", dice_squared, "You square the sigmoids below the line: sum them up as they are.", DICE),
        Wrong("IoU for Dice", iou_for_dice, "You take the IoU: take Dice.", DICE),
        Wrong(
            "without the 2",
            no_two,
            "You leave out the 2 of Dice: two equal masks would cost as if they were half wrong.",
            DICE,
        ),
        Wrong("weights missing", not_weighted, "You leave out the weights, 2, 5 and 5.", THREE),
        Wrong(
            "weights swapped",
            swapped,
            "You give 5 to the class and 2 to the cross-entropy: it is the other way.",
            THREE,
        ),
        Wrong(
            "MaskFormer's weights",
            maskformers,
            "You take 1, 20 and 1, MaskFormer's weights: here they are 2, 5 and 5.",
            THREE,
        ),
        Wrong("argmin", cheapest, "Each of your targets takes its cheapest query: two targets may take the same.", ALL),
        Wrong(
            "first come",
            first_come,
            "Your targets choose one after the other: the first ones leave the others too much to pay.",
            ALL,
        ),
        Wrong("cheapest pair first", cheapest_pair, "You take the cheapest pair first: what is left may be dear.", ALL),
        Wrong(
            "dearest",
            dearest,
            "You find the largest sum: the least is asked for.",
            "linear_sum_assignment takes the least by itself.",
        ),
        Wrong(
            "in the order of queries",
            in_order_of_queries,
            "You return scipy's rows, the queries in rising order: they must stand in the order of the targets.",
            ORDER,
        ),
        Wrong(
            "scipy's targets",
            targets_of_scipy,
            "You return the targets of scipy's pairs: for each target its query is asked for.",
            ORDER,
        ),
        Wrong(
            "for each query",
            for_each_query,
            "You return the target of each query: the query of each target is asked for.",
            "(N,), not (Q,).",
        ),
        Wrong(
            "first queries", first_queries, "You take the first queries, one after the other: no cost was asked.", ALL
        ),
        Wrong(
            "no-object left out",
            only_with_objects,
            'You leave out queries that say "no object": at first all of them do, and none would ever learn.',
            NOTHING,
        ),
        Wrong(
            "no-object matched",
            paid_by_class,
            'You match the other queries with "no object", at the price of its class: they cost nothing.',
            NOTHING,
        ),
        Wrong(
            "padded targets",
            padded_masks,
            "You fill the targets up with empty masks, and pay for them: they change the match of the others.",
            NOTHING,
        ),
        Wrong(
            "gradients to scipy",
            gradients_to_scipy,
            "Your function fails where the logits require gradients: the match is chosen without any.",
            "cost.detach(), or torch.no_grad(). The loss is computed afterwards, with gradients, of the matched pairs.",
        ),
        Wrong("targets by queries", targets_by_queries, "Your cost is (N, Q): it is (Q, N).", "p @ y.T"),
        Wrong(
            "fails without targets",
            fails_without_targets,
            "Your function fails where there is no target: then the cost is (Q, 0), and nothing is matched.",
            "An image without targets is normal.",
        ),
    ],
)
