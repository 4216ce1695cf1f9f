"""hungarian_match: which prediction answers for which object, one to one, at the least cost in all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from segedu.ops.boxes import box_iou, cxcywh_to_xyxy, generalized_box_iou
from segedu.ops.matching import hungarian_matching
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.exercises.lab12_one_stage import choices
from segedu.teaching.exercises.lab12_one_stage.scenes import match_cases

Size, Pair = tuple[int, int], tuple[Tensor, Tensor]


def hungarian_match(pred_logits: Tensor, pred_boxes: Tensor, labels: Tensor, boxes: Tensor, image_size: Size) -> Pair:
    """Match each object with a prediction of its own, so that the sum of the costs is least, as DETR does.

    There are Q predictions ("queries"), more than objects, or as many. What query q and object n cost together is

        cost = -p + 5 |b_q - b_n| - 2 GIoU

    - p: the probability that query q gives to the class of object n, a softmax over all C + 1 columns. The last
      column is "no object";
    - |b_q - b_n|: the sum of the four absolute differences of (cx, cy, w, h), where x and w are parts of the image's
      width, y and h of its height;
    - GIoU: of the two boxes, both as parts of the image.

    A query without an object costs nothing, whatever it says: no-object is no partner.
    `scipy.optimize.linear_sum_assignment(cost)` finds the pairs with the least sum. From segedu.ops.boxes you may take
    `xyxy_to_cxcywh`, `cxcywh_to_xyxy` and `generalized_box_iou(boxes1, boxes2)`, which is (N, M) and wants xyxy.

    Args:
        pred_logits: (Q, C + 1) floats.
        pred_boxes: (Q, 4) floats (cx, cy, w, h), parts of the image.
        labels: (N,) integers from 0 to C - 1; N may be 0.
        boxes: (N, 4) floats (x1, y1, x2, y2) in pixels.
        image_size: (H, W) in pixels.

    Returns:
        The cost, (Q, N) floats, and (N,) integers: for each object the query that it is matched with.

    Example: one object, which fills the left half. The second of two queries has it exactly: -1/3 + 0 - 2.

        >>> predicted = torch.tensor([[0.75, 0.5, 0.5, 1.0], [0.25, 0.5, 0.5, 1.0]])
        >>> hungarian_match(torch.zeros(2, 3), predicted, torch.tensor([1]), torch.tensor([[0.0, 0, 4, 6]]), (6, 8))
        (tensor([[ 2.1667],
                [-2.3333]]), tensor([1]))
    """
    truth = _relative(boxes, image_size)
    cost = _class_cost(pred_logits, labels) + 5 * _away(pred_boxes, truth) + _shape_cost(pred_boxes, truth)
    return cost, _matched(cost)


def _relative(boxes: Tensor, image_size: Size) -> Tensor:
    """(N, 4): pixels (x1, y1, x2, y2) to parts of the image (cx, cy, w, h)."""
    low, high = (boxes / boxes.new_tensor(image_size[::-1]).repeat(2)).split(2, dim=1)
    return torch.cat([(low + high) / 2, high - low], dim=1)


def _class_cost(pred_logits: Tensor, labels: Tensor) -> Tensor:
    return -pred_logits.softmax(dim=1)[:, labels]


def _away(one: Tensor, other: Tensor) -> Tensor:
    return (one[:, None] - other).abs().sum(dim=2)


def _shape_cost(pred_boxes: Tensor, truth: Tensor) -> Tensor:
    return -2 * generalized_box_iou(cxcywh_to_xyxy(pred_boxes), cxcywh_to_xyxy(truth))


def _matched(cost: Tensor) -> Tensor:
    return hungarian_matching(cost.T)[1]


def _costs(
    classes: Callable = _class_cost, away: Callable = _away, shape: Callable = _shape_cost
) -> Callable[..., Pair]:
    """The three terms, each replaced by another function; `away` and `shape` of boxes as parts of the image."""

    def answer(pred_logits: Tensor, pred_boxes: Tensor, labels: Tensor, boxes: Tensor, image_size: Size) -> Pair:
        truth = _relative(boxes, image_size)
        cost = classes(pred_logits, labels) + 5 * away(pred_boxes, truth) + shape(pred_boxes, truth)
        return cost, _matched(cost)

    return answer


def _corners(boxes: Tensor) -> Tensor:
    return cxcywh_to_xyxy(boxes)


class_sign = _costs(classes=lambda x, k: x.softmax(dim=1)[:, k])
class_missing = _costs(classes=lambda x, k: 0)
logits_as_they_are = _costs(classes=lambda x, k: -x[:, k])
logarithm = _costs(classes=lambda x, k: -x.log_softmax(dim=1)[:, k])
one_minus = _costs(classes=lambda x, k: 1 - x.softmax(dim=1)[:, k])
sigmoids = _costs(classes=lambda x, k: -x.sigmoid()[:, k])
softmax_over_queries = _costs(classes=lambda x, k: -x.softmax(dim=0)[:, k])
softmax_of_objects = _costs(classes=lambda x, k: -x[:, :-1].softmax(dim=1)[:, k])
labels_from_one = _costs(classes=lambda x, k: -x.softmax(dim=1)[:, k - 1])
no_object_first = _costs(classes=lambda x, k: -x.softmax(dim=1)[:, k + 1])
box_missing = _costs(away=lambda a, b: 0)
box_mean = _costs(away=lambda a, b: _away(a, b) / 4)
corners_away = _costs(away=lambda a, b: _away(_corners(a), _corners(b)))
squared = _costs(away=lambda a, b: ((a[:, None] - b) ** 2).sum(dim=2))
not_weighted = _costs(away=lambda a, b: _away(a, b) / 5, shape=lambda a, b: _shape_cost(a, b) / 2)
euclidean = _costs(away=lambda a, b: torch.cdist(a, b))
corners_of_objects = _costs(away=lambda a, b: _away(a, _corners(b)))
weights_swapped = _costs(away=lambda a, b: _away(a, b) * 2 / 5, shape=lambda a, b: _shape_cost(a, b) * 5 / 2)
shape_missing = _costs(shape=lambda a, b: 0)
shape_sign = _costs(shape=lambda a, b: -_shape_cost(a, b))
shape_loss = _costs(shape=lambda a, b: 2 + _shape_cost(a, b))
plain_iou = _costs(shape=lambda a, b: -2 * box_iou(_corners(a), _corners(b)))
not_in_corners = _costs(shape=lambda a, b: -2 * generalized_box_iou(a, b))


def away_in_pixels(pred_logits: Tensor, pred_boxes: Tensor, labels: Tensor, boxes: Tensor, image_size: Size) -> Pair:
    """The distance in pixels."""
    unit = torch.tensor(image_size[::-1]).repeat(2)
    return _costs(away=lambda a, b: _away(a * unit, b * unit))(pred_logits, pred_boxes, labels, boxes, image_size)


def pixels_for_parts(pred_logits: Tensor, pred_boxes: Tensor, labels: Tensor, boxes: Tensor, image_size: Size) -> Pair:
    """Objects left in pixels, predictions in parts of the image."""
    return hungarian_match(pred_logits, pred_boxes, labels, boxes, (1, 1))


def height_for_width(pred_logits: Tensor, pred_boxes: Tensor, labels: Tensor, boxes: Tensor, image_size: Size) -> Pair:
    """H and W swapped."""
    return hungarian_match(pred_logits, pred_boxes, labels, boxes, image_size[::-1])


def _choice(pick: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Pair]:
    """The right cost, and `pick(cost, probability of no object)`."""

    def answer(pred_logits: Tensor, pred_boxes: Tensor, labels: Tensor, boxes: Tensor, image_size: Size) -> Pair:
        cost, _ = hungarian_match(pred_logits, pred_boxes, labels, boxes, image_size)
        return cost, pick(cost, pred_logits.softmax(dim=1))

    return answer


cheapest = _choice(lambda cost, p: cost.argmin(dim=0))
first_come = _choice(lambda cost, p: choices.one_after_the_other(cost, list(range(cost.shape[1]))))
cheapest_pair = _choice(choices.cheapest_pair_first)
dearest = _choice(lambda cost, p: _matched(-cost))
in_order_of_queries = _choice(lambda cost, p: _matched(cost).sort().values)
object_of_each_query = _choice(lambda cost, p: cost.argmin(dim=1) if cost.shape[1] else torch.zeros(0))
turned_round = _choice(lambda cost, p: choices.queries_by_objects(cost))
objects_of_scipy = _choice(lambda cost, p: hungarian_matching(cost)[1])
first_queries = _choice(lambda cost, p: torch.arange(cost.shape[1]))
only_with_objects = _choice(choices.only_with_objects)
padded = _choice(choices.padded)


for_each_query = _choice(choices.for_queries)


def objects_by_queries(
    pred_logits: Tensor, pred_boxes: Tensor, labels: Tensor, boxes: Tensor, image_size: Size
) -> Pair:
    """(N, Q)."""
    cost, queries = hungarian_match(pred_logits, pred_boxes, labels, boxes, image_size)
    return cost.T, queries


def fails_without_objects(
    pred_logits: Tensor, pred_boxes: Tensor, labels: Tensor, boxes: Tensor, image_size: Size
) -> Pair:
    """The largest of no numbers."""
    labels.max()
    return hungarian_match(pred_logits, pred_boxes, labels, boxes, image_size)


SIGN = "The least sum is searched for. What is good must be negative."
THREE = "cost = -p + 5 |b_q - b_n| - 2 GIoU."
PARTS = "Divide x by the width and y by the height, then take centre and sides: as the predictions are."
ALL = "The sum over all pairs must be least; linear_sum_assignment finds it."
NOTHING = "The cost of an object has three terms, and that of no object none."

exercise = Exercise(
    name="hungarian_match",
    points=4,
    cases=match_cases,
    reference=hungarian_match,
    tolerance=1e-5,
    kind="matches",
    hides=["segedu.ops.matching", "segedu.detection.detr", "segedu.losses.set_prediction"],
    wrong=[
        Wrong(
            "class sign",
            class_sign,
            "Your class term has the wrong sign: a query that is sure of the class must cost less.",
            SIGN,
        ),
        Wrong("class missing", class_missing, "You leave the class out of the cost.", THREE),
        Wrong(
            "logits",
            logits_as_they_are,
            "You take the logit of the class: take its probability.",
            "A softmax over the C + 1 columns.",
        ),
        Wrong(
            "log of the probability",
            logarithm,
            "You take the logarithm of the probability: DETR takes the probability itself.",
            "So no term is much larger than the others. The logarithm comes in the loss.",
        ),
        Wrong("1 - p", one_minus, "You take 1 - p: the match is the same, but the cost asked for is -p.", THREE),
        Wrong(
            "sigmoids",
            sigmoids,
            "You take a sigmoid: it is a softmax over the C + 1 columns.",
            "The columns of one query compete; one of them is no object.",
        ),
        Wrong(
            "softmax over queries",
            softmax_over_queries,
            "Your softmax goes over the queries: it goes over the columns of each query.",
            "pred_logits is (Q, C + 1).",
        ),
        Wrong(
            "softmax without no object",
            softmax_of_objects,
            "You leave out the column of no object before the softmax.",
            "What a query gives to no object is missing for the classes. That is what it is for.",
        ),
        Wrong(
            "no object first",
            no_object_first,
            "You take column 0 for no object: it is the last one.",
            "Label 0 has column 0.",
        ),
        Wrong(
            "labels from 1",
            labels_from_one,
            "You take column label - 1: here labels begin with 0, as the columns do.",
            "In yolo_target label 1 was the first class. Always look where labels begin.",
        ),
        Wrong("box missing", box_missing, "You leave the distance of the boxes out of the cost.", THREE),
        Wrong(
            "mean of four",
            box_mean,
            "You take the mean of the four differences: take their sum.",
            "sum over the last dimension.",
        ),
        Wrong("corners", corners_away, "You compare corners: the distance is that of (cx, cy, w, h).", PARTS),
        Wrong(
            "squares",
            squared,
            "You square the differences: take their absolute values.",
            "|b_q - b_n| is an L1 distance.",
        ),
        Wrong(
            "corners of the objects",
            corners_of_objects,
            "You compare (cx, cy, w, h) of predictions with (x1, y1, x2, y2) of objects.",
            PARTS,
        ),
        Wrong(
            "L2",
            euclidean,
            "You take the Euclidean distance: the sum of the four absolute differences is asked for.",
            "|b_q - b_n| is an L1 distance; torch.cdist has p=2 if nothing is said.",
        ),
        Wrong("weights swapped", weights_swapped, "You have the weights swapped: 5 goes with the distance.", THREE),
        Wrong("weights missing", not_weighted, "You leave out the weights, 5 and 2.", THREE),
        Wrong("GIoU missing", shape_missing, "You leave the GIoU out of the cost.", THREE),
        Wrong("GIoU sign", shape_sign, "Your GIoU has the wrong sign: boxes that overlap must cost less.", SIGN),
        Wrong(
            "1 - GIoU",
            shape_loss,
            "You take 1 - GIoU: the match is the same, but the cost asked for is -2 GIoU.",
            THREE,
        ),
        Wrong(
            "IoU for GIoU",
            plain_iou,
            "You take the IoU: it is 0 for all boxes that are apart, however far.",
            "The GIoU goes on falling.",
        ),
        Wrong(
            "GIoU of centres and sides",
            not_in_corners,
            "You give (cx, cy, w, h) to the GIoU: it wants corners.",
            "cxcywh_to_xyxy.",
        ),
        Wrong(
            "distance in pixels",
            away_in_pixels,
            "You measure the distance in pixels: the class would hardly count beside it.",
            PARTS,
        ),
        Wrong(
            "objects in pixels",
            pixels_for_parts,
            "Your objects are in pixels and your predictions in parts of the image.",
            PARTS,
        ),
        Wrong(
            "height for width",
            height_for_width,
            "You divide x by the height and y by the width.",
            "image_size is (H, W).",
        ),
        Wrong("greedy", cheapest, "Each of your objects takes its cheapest query: two objects may take the same.", ALL),
        Wrong(
            "first come",
            first_come,
            "Your objects choose one after the other: the first ones leave the others too much to pay.",
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
            "Your queries are sorted: they must stand in the order of the objects.",
            "scipy gives pairs sorted by row. Give it cost.T, or sort the pairs by object.",
        ),
        Wrong(
            "turned round",
            turned_round,
            "You take queries[objects] of the pairs: that is the inverse of the right order.",
            "queries[objects.argsort()], found[objects] = queries, or give scipy cost.T.",
        ),
        Wrong(
            "scipy's objects",
            objects_of_scipy,
            "You return the objects of scipy's pairs: for each object its query is asked for.",
            "linear_sum_assignment(cost) gives rows, the queries, and columns, the objects; give it cost.T, and it is "
            "the other way.",
        ),
        Wrong(
            "an object for each query",
            object_of_each_query,
            "You choose an object for each query: each object gets one query.",
            "Queries without an object are no mistake.",
        ),
        Wrong(
            "for each query",
            for_each_query,
            "You return the object of each query: the query of each object is asked for.",
            "(N,), not (Q,).",
        ),
        Wrong(
            "the first queries",
            first_queries,
            "You take the first queries, one after the other: no cost was asked.",
            ALL + " Of cost.T its first list is 0 to N - 1, and the second one has the queries.",
        ),
        Wrong(
            "no-object left out",
            only_with_objects,
            "You leave out queries that say no object: at first all of them do, and none would ever learn.",
            NOTHING,
        ),
        Wrong(
            "no-object matched",
            padded,
            "You match the other queries with no object, at a cost: they cost nothing, whatever they say.",
            NOTHING,
        ),
        Wrong(
            "objects by queries",
            objects_by_queries,
            "Your cost is (N, Q): it is (Q, N).",
            "pred_boxes[:, None] - boxes[None]",
        ),
        Wrong(
            "fails without objects",
            fails_without_objects,
            "Your function fails where there is no object: then the cost is (Q, 0), and nothing is matched.",
            "An image without objects is normal.",
        ),
    ],
)
