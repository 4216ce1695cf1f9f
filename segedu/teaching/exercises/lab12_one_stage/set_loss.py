"""set_loss: the loss of a set of predictions that are matched with the objects, one to one."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.boxes import cxcywh_to_xyxy, generalized_box_iou, xyxy_to_cxcywh
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.exercises.lab12_one_stage import set_terms as terms
from segedu.teaching.exercises.lab12_one_stage.scenes import loss_cases
from segedu.teaching.exercises.lab12_one_stage.set_terms import Parts

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
    """Compare each object with the prediction that it is matched with, and all other predictions with "no object".

        loss = classes + 5 * distance + 2 * shape

    - classes: cross-entropy of *all* Q predictions ("queries"). A matched one should say the label of its object, all
      others "no object", which is the last column. A prediction that should say "no object" has the weight
      `no_object_weight`, the others 1: the weighted sum is divided by the sum of the weights;
    - distance: |b_q - b_n|, the sum of the four absolute differences of (cx, cy, w, h) as parts of the image, of the
      matched pairs only;
    - shape: 1 - GIoU of the matched pairs.

    Distance and shape are summed over the pairs and divided by the number of objects N. Without objects they are 0.
    From segedu.ops.boxes you may take `xyxy_to_cxcywh`, `cxcywh_to_xyxy` and `generalized_box_iou(boxes1, boxes2)`,
    which gives all pairs, (N, M).

    Args:
        pred_logits: (Q, C + 1) floats.
        pred_boxes: (Q, 4) floats (cx, cy, w, h), parts of the image.
        labels: (N,) integers from 0 to C - 1; N may be 0.
        boxes: (N, 4) floats (x1, y1, x2, y2) in pixels.
        image_size: (H, W) in pixels.
        queries: (N,) integers: object n is matched with prediction queries[n]. No two are equal.
        no_object_weight: above 0.

    Returns:
        A tensor of one number, with gradients by pred_logits and pred_boxes.

    Example: the box is right. Both say everything with 1/3, which costs log(3) = 1.0986 whatever the weights are.

        >>> predicted = torch.tensor([[0.75, 0.5, 0.5, 1.0], [0.25, 0.5, 0.5, 1.0]])
        >>> box = torch.tensor([[0.0, 0, 4, 6]])
        >>> set_loss(torch.zeros(2, 3), predicted, torch.tensor([1]), box, (6, 8), torch.tensor([1]))
        tensor(1.0986)
    """
    wanted = _wanted(pred_logits, labels, queries)
    weights = _weights(pred_logits, no_object_weight)
    given, truth = pred_boxes[queries], _relative(boxes, image_size)
    count = max(1, len(boxes))
    distance = (given - truth).abs().sum() / count
    shape = (1 - _giou(given, truth)).sum() / count
    return F.cross_entropy(pred_logits, wanted, weights) + 5 * distance + 2 * shape


def _wanted(pred_logits: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """(Q,): the column that each prediction should say."""
    wanted = torch.full((len(pred_logits),), pred_logits.shape[1] - 1)
    wanted[queries] = labels
    return wanted


def _weights(pred_logits: Tensor, no_object_weight: float) -> Tensor:
    """(C + 1,)."""
    weights = torch.ones_like(pred_logits[0])
    weights[-1] = no_object_weight
    return weights


def _relative(boxes: Tensor, image_size: Size) -> Tensor:
    """(N, 4): pixels (x1, y1, x2, y2) to parts of the image (cx, cy, w, h)."""
    return xyxy_to_cxcywh(boxes / boxes.new_tensor(image_size[::-1]).repeat(2))


def _giou(given: Tensor, truth: Tensor) -> Tensor:
    """(N,), pair by pair."""
    return generalized_box_iou(cxcywh_to_xyxy(given), cxcywh_to_xyxy(truth)).diagonal()


def _classes(parts: Parts) -> Tensor:
    return F.cross_entropy(parts.logits, parts.wanted, parts.weights)


def _distance(parts: Parts) -> Tensor:
    return 5 * (parts.given - parts.truth).abs().sum() / parts.count


def _shape(parts: Parts) -> Tensor:
    return 2 * (1 - _giou(parts.given, parts.truth)).sum() / parts.count


Term = Callable[[Parts], Tensor]


def _loss(classes: Term = _classes, distance: Term = _distance, shape: Term = _shape) -> Callable[..., Tensor]:
    """The three terms with their weights, each replaced by another one."""

    def answer(
        pred_logits: Tensor,
        pred_boxes: Tensor,
        labels: Tensor,
        boxes: Tensor,
        image_size: Size,
        queries: Tensor,
        no_object_weight: float = 0.1,
    ) -> Tensor:
        parts = Parts(
            pred_logits,
            _wanted(pred_logits, labels, queries),
            _weights(pred_logits, no_object_weight),
            pred_boxes[queries],
            _relative(boxes, image_size),
        )
        return classes(parts) + distance(parts) + shape(parts)

    return answer


same_weight = _loss(classes=lambda p: F.cross_entropy(p.logits, p.wanted))
always_a_tenth = _loss(classes=lambda p: F.cross_entropy(p.logits, p.wanted, _weights(p.logits, 0.1)))
weight_of_objects = _loss(classes=lambda p: F.cross_entropy(p.logits, p.wanted, p.weights[-1] / p.weights))
unmatched_dropped = _loss(classes=terms.matched_only)
classes_over_queries = _loss(classes=lambda p: terms.sum_of_classes(p) / len(p.logits))
classes_over_objects = _loss(classes=lambda p: terms.sum_of_classes(p) / p.count)
classes_summed = _loss(classes=terms.sum_of_classes)
classes_as_in_the_match = _loss(
    classes=lambda p: (
        (-p.logits.softmax(dim=1).gather(1, p.wanted[:, None])[:, 0] * p.weights[p.wanted]).sum()
        / p.weights[p.wanted].sum()
    )
)
softmax_twice = _loss(classes=lambda p: F.cross_entropy(p.logits.softmax(dim=1), p.wanted, p.weights))
sigmoids = _loss(classes=terms.yes_or_no)
no_object_first = _loss(classes=terms.no_object_first)
labels_from_one = _loss(classes=lambda p: F.cross_entropy(p.logits, terms.one_less(p), p.weights))
boxes_over_queries = _loss(
    distance=lambda p: _distance(p) * p.count / len(p.logits), shape=lambda p: _shape(p) * p.count / len(p.logits)
)
boxes_summed = _loss(distance=lambda p: _distance(p) * p.count, shape=lambda p: _shape(p) * p.count)
mean_of_four = _loss(distance=lambda p: _distance(p) / 4)
distance_missing = _loss(distance=lambda p: 0 * p.given.sum())
squares = _loss(distance=lambda p: 5 * ((p.given - p.truth) ** 2).sum() / p.count)
smooth = _loss(distance=lambda p: 5 * F.smooth_l1_loss(p.given, p.truth, reduction="sum") / p.count)
mean_of_all = _loss(distance=lambda p: 5 * F.l1_loss(p.given, p.truth))
corners_of_objects = _loss(distance=lambda p: 5 * (p.given - cxcywh_to_xyxy(p.truth)).abs().sum() / p.count)
of_corners = _loss(distance=terms.of_corners)
giou_missing = _loss(shape=lambda p: 0 * p.given.sum())
giou_itself = _loss(shape=lambda p: _shape(p) - 2 * len(p.truth) / p.count)
giou_sign = _loss(shape=lambda p: 2 * _giou(p.given, p.truth).sum() / p.count)
plain_iou = _loss(shape=terms.plain_iou)
all_pairs = _loss(shape=terms.all_pairs)
not_weighted = _loss(distance=lambda p: _distance(p) / 5, shape=lambda p: _shape(p) / 2)
weights_swapped = _loss(distance=lambda p: _distance(p) * 2 / 5, shape=lambda p: _shape(p) * 5 / 2)
all_over_objects = _loss(classes=lambda p: _classes(p) / p.count)
fails_without_objects = _loss(
    distance=lambda p: 5 * (p.given - p.truth).abs().sum(dim=1).mean(),
    shape=lambda p: 2 * (1 - _giou(p.given, p.truth)).mean(),
)


def _moved(pick: Callable[..., tuple]) -> Callable[..., Tensor]:
    """The right loss of other arguments: `pick(all seven)`."""

    def answer(*args: object) -> Tensor:
        return set_loss(*pick(*args, *[0.1] * (7 - len(args))))

    return answer


first_queries = _moved(lambda x, b, k, t, size, q, w: (x, b, k, t, size, torch.arange(len(q)), w))
sorted_queries = _moved(lambda x, b, k, t, size, q, w: (x, b, k, t, size, q.sort().values, w))
height_for_width = _moved(lambda x, b, k, t, size, q, w: (x, b, k, t, size[::-1], q, w))
in_pixels = _moved(lambda x, b, k, t, size, q, w: (x, b * b.new_tensor(size[::-1]).repeat(2), k, t, (1, 1), q, w))
pixels_for_parts = _moved(lambda x, b, k, t, size, q, w: (x, b, k, t, (1, 1), q, w))
boxes_without_gradient = _moved(lambda x, b, k, t, size, q, w: (x, b.detach(), k, t, size, q, w))


def _cut(cut: Callable[[Tensor], object]) -> Callable[..., object]:
    """The right loss, of which `cut` leaves the number."""
    return lambda *args: cut(set_loss(*args).detach())


plain_number, without_gradient = _cut(float), _cut(lambda loss: loss)


MANY = "Most predictions have no object. With the weight 1 they would drown the others."
THREE = "loss = classes + 5 * distance + 2 * shape, and shape is 1 - GIoU."
PARTS = "Divide x by the width and y by the height, then take centre and sides: as the predictions are."

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
        Wrong(
            "no-object weight 1",
            same_weight,
            "Your predictions without an object have the weight 1: they have no_object_weight.",
            MANY,
        ),
        Wrong(
            "always 0.1",
            always_a_tenth,
            "Your weight of no object is always 0.1: take the one that is given.",
            "no_object_weight=0.1 is only what it is when nothing is said.",
        ),
        Wrong(
            "weight of the objects",
            weight_of_objects,
            "You give no_object_weight to the predictions with an object: it belongs to the others.",
            MANY,
        ),
        Wrong(
            "unmatched dropped",
            unmatched_dropped,
            "You leave out predictions without an object: nothing would teach them to be silent.",
            "Cross-entropy of all Q predictions.",
        ),
        Wrong(
            "classes over queries",
            classes_over_queries,
            "You divide the classes by the number of predictions: divide by the sum of their weights.",
            "F.cross_entropy with `weight` does so by itself.",
        ),
        Wrong(
            "classes over objects",
            classes_over_objects,
            "You divide the classes by the number of objects: divide by the sum of the weights.",
            "F.cross_entropy with `weight` does so by itself.",
        ),
        Wrong(
            "all over objects",
            all_over_objects,
            "You divide the whole loss by the number of objects: only distance and shape are divided by it.",
            "The classes have the sum of their own weights below them.",
        ),
        Wrong(
            "classes summed",
            classes_summed,
            "You sum up the classes: divide by the sum of the weights.",
            "F.cross_entropy with `weight` does so by itself.",
        ),
        Wrong(
            "-p",
            classes_as_in_the_match,
            "You take -p as in the match: the loss is cross-entropy, -log p.",
            "The match is chosen by p, and learned by log p.",
        ),
        Wrong(
            "softmax twice",
            softmax_twice,
            "Your softmax is applied twice: cross_entropy has one inside.",
            "It wants logits.",
        ),
        Wrong(
            "sigmoids",
            sigmoids,
            "You take a sigmoid for each class: it is a softmax with a column for no object.",
            "RetinaNet does as you did.",
        ),
        Wrong(
            "labels from 1",
            labels_from_one,
            "You take column label - 1: here labels begin with 0, as the columns do.",
            "In yolo_target label 1 was the first class. Always look where labels begin.",
        ),
        Wrong(
            "no object first",
            no_object_first,
            "You take column 0 for no object: it is the last one.",
            "Label 0 has column 0.",
        ),
        Wrong(
            "boxes over queries",
            boxes_over_queries,
            "You divide the boxes by the number of predictions: divide by the number of objects.",
            "With 100 predictions and 2 objects the boxes would hardly count.",
        ),
        Wrong(
            "boxes summed",
            boxes_summed,
            "You sum up the boxes: divide by the number of objects.",
            "Both distance and shape.",
        ),
        Wrong(
            "mean of four",
            mean_of_four,
            "You take the mean of the four differences: take their sum.",
            "F.l1_loss takes the mean by itself.",
        ),
        Wrong(
            "the mean of l1_loss",
            mean_of_all,
            "You take the mean of all differences: take their sum, and divide it by the number of objects.",
            'F.l1_loss(..., reduction="sum") / max(1, N).',
        ),
        Wrong("distance missing", distance_missing, "You leave out the distance.", THREE),
        Wrong("squares", squares, "You square the differences: take their absolute values.", "An L1 distance."),
        Wrong("smooth L1", smooth, "You take the smooth L1 of Fast R-CNN: take the absolute differences.", "F.l1_loss"),
        Wrong(
            "corners of the objects",
            corners_of_objects,
            "You compare (cx, cy, w, h) of predictions with (x1, y1, x2, y2) of objects.",
            PARTS,
        ),
        Wrong("corners", of_corners, "You compare corners: the distance is that of (cx, cy, w, h).", PARTS),
        Wrong("GIoU missing", giou_missing, "You leave out the GIoU.", THREE),
        Wrong(
            "GIoU itself",
            giou_itself,
            "You take -GIoU: take 1 - GIoU, which is 0 where the box is right.",
            "The gradient is the same. A loss of 0 says that nothing is wrong.",
        ),
        Wrong("GIoU sign", giou_sign, "Your loss is least where boxes do not overlap: take 1 - GIoU.", THREE),
        Wrong(
            "IoU for GIoU",
            plain_iou,
            "You take the IoU: for boxes that are apart it has no gradient.",
            "The GIoU has one.",
        ),
        Wrong(
            "all pairs",
            all_pairs,
            "You sum up the GIoU of all pairs: only those of matched pairs count.",
            "generalized_box_iou gives (N, N). The pairs are on its diagonal.",
        ),
        Wrong("weights swapped", weights_swapped, "You have the weights swapped: 5 goes with the distance.", THREE),
        Wrong("weights missing", not_weighted, "You leave out the weights, 5 and 2.", THREE),
        Wrong(
            "fails without objects",
            fails_without_objects,
            "Without objects your loss is not a number: distance and shape are 0 then.",
            "The mean of nothing is nan. Divide by max(1, N).",
        ),
        Wrong(
            "the first queries",
            first_queries,
            "You compare object n with prediction n: it is matched with queries[n].",
            "pred_boxes[queries]",
        ),
        Wrong(
            "order lost",
            sorted_queries,
            "You lose the order of the pairs: object n belongs to queries[n], in this order.",
            "A mask of True and False knows which predictions, but not whose.",
        ),
        Wrong(
            "height for width",
            height_for_width,
            "You divide x by the height and y by the width.",
            "image_size is (H, W).",
        ),
        Wrong(
            "in pixels",
            in_pixels,
            "You measure the distance in pixels: the classes would hardly count beside it.",
            PARTS,
        ),
        Wrong(
            "objects in pixels",
            pixels_for_parts,
            "Your objects are in pixels and your predictions in parts of the image.",
            PARTS,
        ),
        Wrong(
            "no gradient", without_gradient, "Your loss has no gradient: something cuts it.", "detach() and numpy do."
        ),
        Wrong("a plain number", plain_number, "You return a plain number: it has no gradient.", "Return the tensor."),
        Wrong(
            "boxes without a gradient",
            boxes_without_gradient,
            "Your loss has no gradient by pred_boxes: they would never move.",
            "detach(), item() and numpy cut it.",
        ),
    ],
)
