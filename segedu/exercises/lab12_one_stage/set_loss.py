"""set_loss: the loss of a set of predictions that are matched with the objects, one to one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.checks.exercise import Exercise, Wrong
from segedu.checks.probes import call_grad
from segedu.exercises.lab12_one_stage.scenes import loss_cases
from segedu.ops.boxes import box_iou, cxcywh_to_xyxy, generalized_box_iou, xyxy_to_cxcywh

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


class _Parts(NamedTuple):
    """What the loss is made of: logits (Q, C + 1), wanted (Q,), weights (C + 1,), given and true boxes (N, 4)."""

    logits: Tensor
    wanted: Tensor
    weights: Tensor
    given: Tensor
    truth: Tensor

    @property
    def count(self) -> int:
        return max(1, len(self.truth))


def _classes(parts: _Parts) -> Tensor:
    return F.cross_entropy(parts.logits, parts.wanted, parts.weights)


def _distance(parts: _Parts) -> Tensor:
    return 5 * (parts.given - parts.truth).abs().sum() / parts.count


def _shape(parts: _Parts) -> Tensor:
    return 2 * (1 - _giou(parts.given, parts.truth)).sum() / parts.count


Term = Callable[[_Parts], Tensor]


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
        parts = _Parts(
            pred_logits,
            _wanted(pred_logits, labels, queries),
            _weights(pred_logits, no_object_weight),
            pred_boxes[queries],
            _relative(boxes, image_size),
        )
        return classes(parts) + distance(parts) + shape(parts)

    return answer


def _matched_only(p: _Parts) -> Tensor:
    keep = p.wanted < p.logits.shape[1] - 1
    return F.cross_entropy(p.logits[keep], p.wanted[keep]) if keep.any() else p.logits.sum() * 0


def _sum_of_classes(p: _Parts) -> Tensor:
    return F.cross_entropy(p.logits, p.wanted, p.weights, reduction="sum")


def _yes_or_no(p: _Parts) -> Tensor:
    """A sigmoid of each class, and 0 everywhere where no object is."""
    truth = F.one_hot(p.wanted, p.logits.shape[1])[:, :-1].to(p.logits)
    return F.binary_cross_entropy_with_logits(p.logits[:, :-1], truth)


def _no_object_first(p: _Parts) -> Tensor:
    last = p.logits.shape[1] - 1
    return F.cross_entropy(p.logits, torch.where(p.wanted == last, 0, p.wanted + 1), p.weights.roll(1))


def _of_corners(p: _Parts) -> Tensor:
    return 5 * (cxcywh_to_xyxy(p.given) - cxcywh_to_xyxy(p.truth)).abs().sum() / p.count


def _plain_iou(p: _Parts) -> Tensor:
    return 2 * (1 - box_iou(cxcywh_to_xyxy(p.given), cxcywh_to_xyxy(p.truth)).diagonal()).sum() / p.count


def _all_pairs(p: _Parts) -> Tensor:
    return 2 * (1 - generalized_box_iou(cxcywh_to_xyxy(p.given), cxcywh_to_xyxy(p.truth))).sum() / p.count


same_weight = _loss(classes=lambda p: F.cross_entropy(p.logits, p.wanted))
always_a_tenth = _loss(classes=lambda p: F.cross_entropy(p.logits, p.wanted, _weights(p.logits, 0.1)))
weight_of_objects = _loss(classes=lambda p: F.cross_entropy(p.logits, p.wanted, p.weights[-1] / p.weights))
unmatched_dropped = _loss(classes=_matched_only)
classes_over_queries = _loss(classes=lambda p: _sum_of_classes(p) / len(p.logits))
classes_over_objects = _loss(classes=lambda p: _sum_of_classes(p) / p.count)
classes_summed = _loss(classes=_sum_of_classes)
classes_as_in_the_match = _loss(
    classes=lambda p: (
        (-p.logits.softmax(dim=1).gather(1, p.wanted[:, None])[:, 0] * p.weights[p.wanted]).sum()
        / p.weights[p.wanted].sum()
    )
)
softmax_twice = _loss(classes=lambda p: F.cross_entropy(p.logits.softmax(dim=1), p.wanted, p.weights))
sigmoids = _loss(classes=_yes_or_no)
no_object_first = _loss(classes=_no_object_first)
boxes_over_queries = _loss(
    distance=lambda p: _distance(p) * p.count / len(p.logits), shape=lambda p: _shape(p) * p.count / len(p.logits)
)
boxes_summed = _loss(distance=lambda p: _distance(p) * p.count, shape=lambda p: _shape(p) * p.count)
mean_of_four = _loss(distance=lambda p: _distance(p) / 4)
distance_missing = _loss(distance=lambda p: 0 * p.given.sum())
squares = _loss(distance=lambda p: 5 * ((p.given - p.truth) ** 2).sum() / p.count)
of_corners = _loss(distance=_of_corners)
giou_missing = _loss(shape=lambda p: 0 * p.given.sum())
giou_itself = _loss(shape=lambda p: _shape(p) - 2 * len(p.truth) / p.count)
giou_sign = _loss(shape=lambda p: 2 * _giou(p.given, p.truth).sum() / p.count)
plain_iou = _loss(shape=_plain_iou)
all_pairs = _loss(shape=_all_pairs)
not_weighted = _loss(distance=lambda p: _distance(p) / 5, shape=lambda p: _shape(p) / 2)
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
    hides=["segedu.ops.matching"],
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
        Wrong("distance missing", distance_missing, "You leave out the distance.", THREE),
        Wrong("squares", squares, "You square the differences: take their absolute values.", "An L1 distance."),
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
            "boxes without a gradient",
            boxes_without_gradient,
            "Your loss has no gradient by pred_boxes: they would never move.",
            "detach(), item() and numpy cut it.",
        ),
    ],
)
