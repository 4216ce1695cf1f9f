"""set_loss: the loss of a set of predictions, each matched with one object or with no object."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.boxes import cxcywh_to_xyxy, generalized_box_iou, xyxy_to_cxcywh
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab12_one_stage import detr_terms
from segedu.teaching.exercises.lab12_one_stage.scenes import loss_cases

Size = tuple[int, int]


def set_loss(
    pred_logits: Tensor,
    pred_boxes: Tensor,
    labels: Tensor,
    boxes: Tensor,
    image_size: Size,
    queries: Tensor,
    no_object_weight: float = 0.1,
) -> Tensor:
    """Compare each object with the query that it is matched with, and all other queries with "no object".

        loss = classes + 5 * distance + 2 * shape

    - classes: cross-entropy of *all* Q queries. The target of a matched query is the label of its object; the target
      of the others is "no object", the last column. A query whose target is "no object" has the weight
      `no_object_weight`, the others have weight 1. The weighted sum is divided by the sum of the weights;
    - distance: |b_q - b_n|, the sum of the four absolute differences of (cx, cy, w, h) relative to the image, for
      matched pairs only;
    - shape: 1 - GIoU of the matched pairs.

    Distance and shape are summed over the pairs and divided by the number of objects N. Without objects they are 0.
    From segedu.ops.boxes you may use `xyxy_to_cxcywh`, `cxcywh_to_xyxy` and `generalized_box_iou(boxes1, boxes2)`,
    which returns the GIoU of all pairs, (N, M).

    Args:
        pred_logits: (Q, C + 1) floats.
        pred_boxes: (Q, 4) floats (cx, cy, w, h), relative to the image.
        labels: (N,) integers from 0 to C - 1; N may be 0.
        boxes: (N, 4) floats (x1, y1, x2, y2) in pixels, the ground truth.
        image_size: (H, W) in pixels.
        queries: (N,) integers: object n is matched with query queries[n]. No two are equal.
        no_object_weight: above 0.

    Returns:
        A scalar tensor, with gradients with respect to pred_logits and pred_boxes.

    Example: the predicted box is right. Both queries assign 1/3 to every class, which costs log(3) = 1.0986 with any
    weights.

        >>> predicted = torch.tensor([[0.75, 0.5, 0.5, 1.0], [0.25, 0.5, 0.5, 1.0]])
        >>> box = torch.tensor([[0.0, 0, 4, 6]])
        >>> set_loss(torch.zeros(2, 3), predicted, torch.tensor([1]), box, (6, 8), torch.tensor([1]))
        tensor(1.0986)
    """
    targets = _targets(pred_logits, labels, queries)
    weights = _weights(pred_logits, no_object_weight)
    pred, gt = pred_boxes[queries], _relative(boxes, image_size)
    count = max(1, len(boxes))
    distance = (pred - gt).abs().sum() / count
    shape = (1 - _giou(pred, gt)).sum() / count
    return F.cross_entropy(pred_logits, targets, weights) + 5 * distance + 2 * shape


def _targets(pred_logits: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """(Q,): the target column of each query."""
    targets = torch.full((len(pred_logits),), pred_logits.shape[1] - 1)
    targets[queries] = labels
    return targets


def _weights(pred_logits: Tensor, no_object_weight: float) -> Tensor:
    """(C + 1,)."""
    weights = torch.ones_like(pred_logits[0])
    weights[-1] = no_object_weight
    return weights


def _relative(boxes: Tensor, image_size: Size) -> Tensor:
    """(N, 4): from pixels (x1, y1, x2, y2) to (cx, cy, w, h) relative to the image."""
    return xyxy_to_cxcywh(boxes / boxes.new_tensor(image_size[::-1]).repeat(2))


def _giou(pred: Tensor, gt: Tensor) -> Tensor:
    """(N,), pair by pair."""
    return generalized_box_iou(cxcywh_to_xyxy(pred), cxcywh_to_xyxy(gt)).diagonal()


right = Variants(set_loss)


def _classes(a: SimpleNamespace, **how: str) -> Tensor:
    return F.cross_entropy(a.pred_logits, a.targets, a.weights, **how)


def _number_of_objects(a: SimpleNamespace) -> int:
    return max(1, len(a.boxes))


def _loss(
    classes: Callable = _classes,
    distance: Callable = detr_terms.l1,
    overlap: Callable = detr_terms.giou,
    weights: tuple[float, float] = (5, 2),
    count: Callable = _number_of_objects,
    pairs: Callable = torch.diagonal,
) -> Callable[..., Tensor]:
    """Other terms of the loss, see also `detr_terms`.

    Args:
        classes: of the arguments, extended by `targets` (Q,) and `weights` (C + 1,).
        count: of the arguments; what the sums of distance and shape are divided by.
        pairs: selects those that count among the overlaps of all pairs (N, N).
    """

    def loss(a: SimpleNamespace) -> Tensor:
        a.targets, a.weights = _targets(a.pred_logits, a.labels, a.queries), _weights(a.pred_logits, a.no_object_weight)
        pred, gt = a.pred_boxes[a.queries], _relative(a.boxes, a.image_size)
        boxes = weights[0] * distance(pred, gt).sum() + weights[1] * (1 - pairs(overlap(pred, gt))).sum()
        return classes(a) + boxes / count(a)

    return right.instead(loss)


def _matched_only(a: SimpleNamespace) -> Tensor:
    keep = a.targets < a.pred_logits.shape[1] - 1
    return F.cross_entropy(a.pred_logits[keep], a.targets[keep]) if keep.any() else a.pred_logits.sum() * 0


def _minus_probability(a: SimpleNamespace) -> Tensor:
    weights = a.weights[a.targets]
    return -(a.pred_logits.softmax(dim=1).gather(1, a.targets[:, None])[:, 0] * weights).sum() / weights.sum()


def _binary_cross_entropy(a: SimpleNamespace) -> Tensor:
    targets = F.one_hot(a.targets, a.pred_logits.shape[1])[:, :-1].to(a.pred_logits)
    return F.binary_cross_entropy_with_logits(a.pred_logits[:, :-1], targets)


def _labels_from_one(a: SimpleNamespace) -> Tensor:
    targets = torch.where(a.targets < a.pred_logits.shape[1] - 1, a.targets - 1, a.targets)
    return F.cross_entropy(a.pred_logits, targets, a.weights)


MANY = "Most queries have no object. With weight 1 they would dominate the loss."
MEAN = "F.cross_entropy with `weight` does this by default."
TERMS = "loss = classes + 5 * distance + 2 * shape, and shape is 1 - GIoU."

exercise = Exercise(
    name="set_loss",
    points=4,
    cases=loss_cases,
    reference=set_loss,
    tolerance=1e-5,
    kind="pairs",
    probe=call_grad,
    hides=["segedu.ops.matching", "segedu.detection.detr", "segedu.losses.set_prediction"],
    wrong=[
        *detr_terms.shared_wrong_answers(right, _loss, TERMS),
        Wrong(
            "no-object weight 1",
            _loss(classes=lambda a: F.cross_entropy(a.pred_logits, a.targets)),
            "Your queries without an object have weight 1. Give them the weight no_object_weight.",
            MANY,
        ),
        Wrong(
            "always 0.1",
            right.given(no_object_weight=lambda a: 0.1),
            'Your weight of "no object" is always 0.1. Use the argument no_object_weight.',
            "0.1 is only the default of no_object_weight.",
        ),
        Wrong(
            "weight of the objects",
            _loss(classes=lambda a: F.cross_entropy(a.pred_logits, a.targets, a.weights[-1] / a.weights)),
            "You give no_object_weight to the queries with an object. Give it to the queries without one.",
            MANY,
        ),
        Wrong(
            "unmatched dropped",
            _loss(classes=_matched_only),
            'You leave out queries without an object. Include them, because they must learn to predict "no object".',
            "Cross-entropy of all Q queries.",
        ),
        Wrong(
            "classes over queries",
            _loss(classes=lambda a: _classes(a, reduction="sum") / len(a.pred_logits)),
            "You divide the class term by the number of queries. Divide it by the sum of their weights.",
            MEAN,
        ),
        Wrong(
            "classes over objects",
            _loss(classes=lambda a: _classes(a, reduction="sum") / _number_of_objects(a)),
            "You divide the class term by the number of objects. Divide it by the sum of the weights.",
            MEAN,
        ),
        Wrong(
            "all over objects",
            _loss(classes=lambda a: _classes(a) / _number_of_objects(a)),
            "You divide the whole loss by the number of objects. Divide only distance and shape by it.",
            "The class term is divided by the sum of its own weights.",
        ),
        Wrong(
            "classes summed",
            _loss(classes=lambda a: _classes(a, reduction="sum")),
            "You sum the class term over the queries. Divide it by the sum of the weights.",
            MEAN,
        ),
        Wrong(
            "-p",
            _loss(classes=_minus_probability),
            "You use -p, as in the matching cost. The loss is the cross-entropy, -log p.",
            "Matching uses p, training uses log p.",
        ),
        Wrong(
            "softmax twice",
            _loss(classes=lambda a: F.cross_entropy(a.pred_logits.softmax(dim=1), a.targets, a.weights)),
            "You apply the softmax twice. F.cross_entropy contains one.",
            "F.cross_entropy expects logits.",
        ),
        Wrong(
            "sigmoids",
            _loss(classes=_binary_cross_entropy),
            'You apply a sigmoid to each class. Apply a softmax over all columns, including "no object".',
            "RetinaNet applies sigmoids, but DETR does not.",
        ),
        Wrong(
            "labels from 1",
            _loss(classes=_labels_from_one),
            "You use column label - 1. Here, labels and columns both begin with 0.",
            "In yolo_target, label 1 was the first class. Always check where labels begin.",
        ),
        Wrong(
            "boxes over queries",
            _loss(count=lambda a: len(a.pred_logits)),
            "You divide the box terms by the number of queries. Divide them by the number of objects.",
            "With 100 queries and 2 objects, the boxes would hardly count.",
        ),
        Wrong(
            "boxes summed",
            _loss(count=lambda a: 1),
            "You sum the box terms over the pairs. Divide them by the number of objects.",
            "Both distance and shape.",
        ),
        Wrong(
            "the mean of l1_loss",
            _loss(distance=lambda pred, gt: F.l1_loss(pred, gt) * max(1, len(gt))),
            "You compute the mean of all differences. Compute their sum and divide it by the number of objects.",
            'F.l1_loss(..., reduction="sum") / max(1, N).',
        ),
        Wrong(
            "distance missing",
            _loss(weights=(0, 2)),
            "You leave out the distance between the boxes. Boxes are compared by their distance and by their GIoU.",
            TERMS,
        ),
        Wrong(
            "smooth L1",
            _loss(distance=partial(F.smooth_l1_loss, reduction="sum")),
            "You use the smooth L1 loss of Fast R-CNN. Use the sum of the absolute differences.",
            "F.l1_loss",
        ),
        Wrong(
            "GIoU itself",
            _loss(overlap=lambda pred, gt: 1 + detr_terms.giou(pred, gt)),
            "You use -GIoU. Use 1 - GIoU, which is 0 if the box is right.",
            "The gradient is the same, but a loss of 0 should mean that the prediction is perfect.",
        ),
        Wrong(
            "GIoU sign",
            _loss(overlap=lambda pred, gt: 1 - detr_terms.giou(pred, gt)),
            "Your loss is least if boxes do not overlap. Use 1 - GIoU.",
            TERMS,
        ),
        Wrong(
            "all pairs",
            _loss(pairs=lambda overlaps: overlaps),
            "You sum the GIoU of all pairs. Only matched pairs count.",
            "generalized_box_iou returns (N, N). The matched pairs are on its diagonal.",
        ),
        Wrong(
            "fails without objects",
            _loss(count=lambda a: len(a.boxes)),
            "Your loss is not a number if there are no objects. Distance and shape should then be 0.",
            "The mean of an empty tensor is NaN. Divide by max(1, N).",
        ),
        Wrong(
            "the first queries",
            right.given(queries=lambda a: torch.arange(len(a.queries))),
            "You compare object n with query n. Compare it with query queries[n].",
            "pred_boxes[queries]",
        ),
        Wrong(
            "order lost",
            right.given(queries=lambda a: a.queries.sort().values),
            "You compare the objects with the matched queries in increasing order. Compare object n with query "
            "queries[n].",
            "A boolean mask shows which queries are matched, but not with which object.",
        ),
        Wrong(
            "in pixels",
            detr_terms.distance_in_pixels(right),
            "You measure the distance in pixels, so the classes hardly matter. Measure it relative to the image.",
            detr_terms.RELATIVE,
        ),
        Wrong(
            "no gradient",
            right.then(lambda loss, a: loss.detach()),
            "Your loss has no gradient. It needs one with respect to pred_logits and pred_boxes.",
            "detach() and numpy stop the gradient.",
        ),
        Wrong(
            "a plain number",
            right.then(lambda loss, a: loss.item()),
            "You return a plain number, which has no gradient. Return a scalar tensor.",
            "Return the tensor.",
        ),
        Wrong(
            "boxes without a gradient",
            right.given(pred_boxes=lambda a: a.pred_boxes.detach()),
            "Your loss has no gradient with respect to pred_boxes, so the boxes would never improve.",
            "detach(), item() and numpy stop the gradient.",
        ),
    ],
)
