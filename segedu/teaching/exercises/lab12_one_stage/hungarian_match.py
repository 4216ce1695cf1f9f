"""hungarian_match: the one-to-one assignment of queries to objects with the least total cost."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from segedu.ops.boxes import cxcywh_to_xyxy, generalized_box_iou
from segedu.ops.matching import hungarian_matching
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab12_one_stage import choices, detr_terms
from segedu.teaching.exercises.lab12_one_stage.scenes import match_cases

Size, Pair, Matches = tuple[int, int], tuple[float, float], tuple[Tensor, Tensor]


def hungarian_match(
    pred_logits: Tensor, pred_boxes: Tensor, labels: Tensor, boxes: Tensor, image_size: Size
) -> Matches:
    """Match each object with a query of its own so that the sum of the costs is least, as DETR does.

    There are Q queries, at least as many as objects. Each query predicts a class and a box. The cost of matching query
    q with object n is

        cost = -p + 5 |b_q - b_n| - 2 GIoU

    - p: the probability that query q assigns to the class of object n, by a softmax over all C + 1 columns. The last
      column is "no object";
    - |b_q - b_n|: the sum of the four absolute differences of (cx, cy, w, h), where x and w are relative to the width
      of the image, y and h to its height;
    - GIoU: of the two boxes, both relative to the image.

    A query without an object adds no cost, whatever it predicts: "no object" is not matched.
    `scipy.optimize.linear_sum_assignment(cost)` finds the pairs with the least sum. From segedu.ops.boxes you may use
    `xyxy_to_cxcywh`, `cxcywh_to_xyxy` and `generalized_box_iou(boxes1, boxes2)`, which expects xyxy and returns (N, M).

    Args:
        pred_logits: (Q, C + 1) floats.
        pred_boxes: (Q, 4) floats (cx, cy, w, h), relative to the image.
        labels: (N,) integers from 0 to C - 1; N may be 0.
        boxes: (N, 4) floats (x1, y1, x2, y2) in pixels, the ground truth.
        image_size: (H, W) in pixels.

    Returns:
        The cost, (Q, N) floats, and the query that each object is matched with, (N,) integers.

    Example: one object, which fills the left half of the image. The second of two queries predicts exactly this box,
    so its cost is -1/3 + 0 - 2.

        >>> predicted = torch.tensor([[0.75, 0.5, 0.5, 1.0], [0.25, 0.5, 0.5, 1.0]])
        >>> hungarian_match(torch.zeros(2, 3), predicted, torch.tensor([1]), torch.tensor([[0.0, 0, 4, 6]]), (6, 8))
        (tensor([[ 2.1667],
                [-2.3333]]), tensor([1]))
    """
    gt_boxes = _relative(boxes, image_size)
    cost = _class_cost(pred_logits, labels) + 5 * _distance(pred_boxes, gt_boxes) + _shape_cost(pred_boxes, gt_boxes)
    return cost, _matched(cost)


def _relative(boxes: Tensor, image_size: Size) -> Tensor:
    """(N, 4): from pixels (x1, y1, x2, y2) to (cx, cy, w, h) relative to the image."""
    low, high = (boxes / boxes.new_tensor(image_size[::-1]).repeat(2)).split(2, dim=1)
    return torch.cat([(low + high) / 2, high - low], dim=1)


def _class_cost(pred_logits: Tensor, labels: Tensor) -> Tensor:
    return -pred_logits.softmax(dim=1)[:, labels]


def _distance(pred_boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    return (pred_boxes[:, None] - gt_boxes).abs().sum(dim=2)


def _shape_cost(pred_boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    return -2 * generalized_box_iou(cxcywh_to_xyxy(pred_boxes), cxcywh_to_xyxy(gt_boxes))


def _matched(cost: Tensor) -> Tensor:
    return hungarian_matching(cost.T)[1]


right = Variants(hungarian_match)


def _costs(
    classes: Callable = _class_cost,
    distance: Callable = detr_terms.l1,
    overlap: Callable = detr_terms.giou,
    weights: Pair = (5, 2),
) -> Callable[..., Matches]:
    """Other terms of the cost: `classes(logits, labels)`, and see `detr_terms`."""

    def match(a: SimpleNamespace) -> Matches:
        pred, gt = a.pred_boxes, _relative(a.boxes, a.image_size)
        cost = (
            classes(a.pred_logits, a.labels) + weights[0] * distance(pred[:, None], gt) - weights[1] * overlap(pred, gt)
        )
        return cost, _matched(cost)

    return right.instead(match)


def _choice(queries: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Matches]:
    """The right cost, and `queries(cost, class probabilities)`."""
    return right.then(lambda out, a: (out[0], queries(out[0], a.pred_logits.softmax(dim=1))))


def _fails_without_objects(out: Matches, a: SimpleNamespace) -> Matches:
    a.labels.max()
    return out


SIGN = "The assignment minimises the cost, so a good match must have a low cost."
TERMS = "cost = -p + 5 |b_q - b_n| - 2 GIoU."
ALL = "The sum over all pairs must be least. linear_sum_assignment finds it."
NOTHING = "The cost of matching an object has three terms. A query without an object has no cost."

exercise = Exercise(
    name="hungarian_match",
    points=4,
    cases=match_cases,
    reference=hungarian_match,
    tolerance=1e-5,
    kind="matches",
    hides=["segedu.ops.matching", "segedu.detection.detr", "segedu.losses.set_prediction"],
    wrong=[
        *detr_terms.shared_wrong_answers(right, _costs, TERMS),
        Wrong(
            "class sign",
            _costs(classes=lambda x, k: x.softmax(dim=1)[:, k]),
            "Your class term has the wrong sign. A query that is confident of the class should have a lower cost.",
            SIGN,
        ),
        Wrong(
            "class missing",
            _costs(classes=lambda x, k: 0),
            "You leave the class out of the cost. A query that is confident of the object's class should have a "
            "lower cost.",
            TERMS,
        ),
        Wrong(
            "logits",
            _costs(classes=lambda x, k: -x[:, k]),
            "You use the logit of the class. Use its probability, after a softmax.",
            "A softmax over the C + 1 columns.",
        ),
        Wrong(
            "log of the probability",
            _costs(classes=lambda x, k: -x.log_softmax(dim=1)[:, k]),
            "You use the logarithm of the probability. DETR matches by the probability itself.",
            "So no term is much larger than the others. The logarithm is used in the loss.",
        ),
        Wrong(
            "1 - p",
            _costs(classes=lambda x, k: 1 - x.softmax(dim=1)[:, k]),
            "You use 1 - p. The match is the same, but the class term of this exercise is -p.",
            TERMS,
        ),
        Wrong(
            "sigmoids",
            _costs(classes=lambda x, k: -x.sigmoid()[:, k]),
            "You apply a sigmoid. Apply a softmax over the C + 1 columns.",
            'The columns of a query compete, and one of them is "no object".',
        ),
        Wrong(
            "softmax over queries",
            _costs(classes=lambda x, k: -x.softmax(dim=0)[:, k]),
            "Your softmax is over the queries. It should be over the columns of each query.",
            "pred_logits is (Q, C + 1).",
        ),
        Wrong(
            "softmax without no object",
            _costs(classes=lambda x, k: -x[:, :-1].softmax(dim=1)[:, k]),
            'You remove the column of "no object" before the softmax. Keep it in the softmax.',
            'The probability that a query assigns to "no object" must be missing from the classes.',
        ),
        Wrong(
            "labels from 1",
            _costs(classes=lambda x, k: -x.softmax(dim=1)[:, k - 1]),
            "You use column label - 1. Here, labels and columns both begin with 0.",
            "In yolo_target, label 1 was the first class. Always check where labels begin.",
        ),
        Wrong(
            "box missing",
            _costs(weights=(0, 2)),
            "You leave the distance between the boxes out of the cost. Add it with its weight, 5.",
            TERMS,
        ),
        Wrong(
            "L2",
            _costs(distance=lambda pred, gt: (pred - gt).norm(dim=-1)),
            "You compute the Euclidean distance. Compute the sum of the four absolute differences.",
            "|b_q - b_n| is an L1 distance. The default of torch.cdist is p=2.",
        ),
        Wrong(
            "GIoU sign",
            _costs(overlap=lambda pred, gt: -detr_terms.giou(pred, gt)),
            "Your GIoU has the wrong sign. Boxes that overlap should have a lower cost.",
            SIGN,
        ),
        Wrong(
            "1 - GIoU",
            _costs(overlap=lambda pred, gt: detr_terms.giou(pred, gt) - 1),
            "You use 1 - GIoU. The match is the same, but the term of this exercise is -2 GIoU.",
            TERMS,
        ),
        Wrong(
            "GIoU of centres and sides",
            _costs(overlap=generalized_box_iou),
            "You pass (cx, cy, w, h) to the GIoU. It expects corners.",
            "cxcywh_to_xyxy.",
        ),
        Wrong(
            "distance in pixels",
            detr_terms.distance_in_pixels(right),
            "You measure the distance in pixels, so the class hardly matters. Measure it relative to the image.",
            detr_terms.RELATIVE,
        ),
        Wrong(
            "greedy",
            _choice(lambda cost, p: cost.argmin(dim=0)),
            "You match each object with the query of least cost, so two objects may share a query. Match each "
            "object with a query of its own.",
            ALL,
        ),
        Wrong(
            "first come",
            _choice(lambda cost, p: choices.one_after_the_other(cost, list(range(cost.shape[1])))),
            "Your objects choose one after the other, which can leave expensive queries to the last ones. "
            "Minimise the sum of all costs.",
            ALL,
        ),
        Wrong(
            "cheapest pair first",
            _choice(choices.cheapest_pair_first),
            "You match the pair with the least cost first, which can leave expensive pairs. Minimise the sum of "
            "all costs.",
            ALL,
        ),
        Wrong(
            "dearest",
            _choice(lambda cost, p: _matched(-cost)),
            "You find the match with the largest sum of costs. Find the one with the least sum.",
            "linear_sum_assignment minimises by default.",
        ),
        Wrong(
            "in the order of queries",
            _choice(lambda cost, p: _matched(cost).sort().values),
            "You return the queries in increasing order. Return them in the order of the objects.",
            "scipy returns pairs sorted by row. Pass cost.T, or sort the pairs by object.",
        ),
        Wrong(
            "turned round",
            _choice(lambda cost, p: choices.queries_by_objects(cost)),
            "You return queries[objects] of scipy's pairs, which is the inverse of the right order. Entry n "
            "should be the query of object n.",
            "queries[objects.argsort()], result[objects] = queries, or pass cost.T to scipy.",
        ),
        Wrong(
            "scipy's objects",
            _choice(lambda cost, p: hungarian_matching(cost)[1]),
            "You return scipy's indices of the objects. Return the query of each object.",
            "linear_sum_assignment(cost) returns rows, the queries, and columns, the objects. For cost.T it is the "
            "other way round.",
        ),
        Wrong(
            "an object for each query",
            _choice(lambda cost, p: cost.argmin(dim=1) if cost.shape[1] else torch.zeros(0)),
            "You choose an object for each query. Choose one query for each object.",
            "Queries without an object are normal.",
        ),
        Wrong(
            "for each query",
            _choice(choices.for_queries),
            "You return one object per query. Return one query per object.",
            "(N,), not (Q,).",
        ),
        Wrong(
            "the first queries",
            _choice(lambda cost, p: torch.arange(cost.shape[1])),
            "You return the first N queries, whatever the costs are. Return the queries with the least sum of costs.",
            ALL + " For cost.T, its first result is 0 to N - 1, and the second one has the queries.",
        ),
        Wrong(
            "no-object left out",
            _choice(choices.only_with_objects),
            'You exclude queries that predict "no object". Include them: at first all queries predict it, and '
            "none would ever be trained.",
            NOTHING,
        ),
        Wrong(
            "no-object matched",
            _choice(choices.padded),
            'You give the other queries a cost for "no object". A query without an object adds no cost, whatever '
            "it predicts.",
            NOTHING,
        ),
        Wrong(
            "objects by queries",
            right.then(lambda out, a: (out[0].T, out[1])),
            "Your cost has shape (N, Q). It should have shape (Q, N).",
            "pred_boxes[:, None] - boxes[None]",
        ),
        Wrong(
            "fails without objects",
            right.then(_fails_without_objects),
            "Your function fails if there are no objects. It should then return a cost of shape (Q, 0) and an "
            "empty match.",
            "An image without objects is normal.",
        ),
    ],
)
