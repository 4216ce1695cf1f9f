"""Terms of DETR's matching cost and loss, and the wrong answers that `hungarian_match` and `set_loss` share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from segedu.ops.boxes import box_iou, cxcywh_to_xyxy, generalized_box_iou
from segedu.teaching.checks.exercise import Wrong
from segedu.teaching.checks.variants import Variants

RELATIVE = "Divide x by the width and y by the height, then compute centre and sides, in the format of the predictions."


def l1(pred: Tensor, gt: Tensor) -> Tensor:
    """Sum of the absolute differences of boxes (..., 4)."""
    return (pred - gt).abs().sum(dim=-1)


def giou(pred: Tensor, gt: Tensor) -> Tensor:
    """(N, M): GIoU of all pairs of boxes (cx, cy, w, h)."""
    return generalized_box_iou(cxcywh_to_xyxy(pred), cxcywh_to_xyxy(gt))


def _corners(boxes: Tensor) -> Tensor:
    """(..., 4)."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], dim=-1)


def distance_in_pixels(right: Variants) -> Callable:
    """Predictions and objects both in pixels. The GIoU is the same in pixels."""
    return right.given(
        pred_boxes=lambda a: a.pred_boxes * torch.tensor(a.image_size[::-1] * 2), image_size=lambda a: (1, 1)
    )


def shared_wrong_answers(right: Variants, terms: Callable[..., Callable], formula: str) -> list[Wrong]:
    """Wrong answers about boxes, the image size and the last column.

    Args:
        right: variants of the reference.
        terms: makes a wrong answer by other terms: `distance(pred, gt)` of boxes (..., 4), `overlap(pred, gt)` of all
            pairs, and the `weights` of distance and shape.
        formula: the right cost or loss.
    """
    return [
        Wrong(
            "no object first",
            right.given(pred_logits=lambda a: a.pred_logits.roll(-1, dims=1)),
            'You treat column 0 as "no object". The last column is "no object".',
            "Label 0 belongs to column 0.",
        ),
        Wrong(
            "mean of four",
            terms(distance=lambda pred, gt: l1(pred, gt) / 4),
            "You compute the mean of the four absolute differences. Compute their sum.",
            "Sum over the last dimension. F.l1_loss computes a mean by default.",
        ),
        Wrong(
            "squares",
            terms(distance=lambda pred, gt: ((pred - gt) ** 2).sum(dim=-1)),
            "You square the differences. Use their absolute values.",
            "|b_q - b_n| is an L1 distance.",
        ),
        Wrong(
            "corners",
            terms(distance=lambda pred, gt: l1(_corners(pred), _corners(gt))),
            "You compare the corners of the boxes. Compare (cx, cy, w, h), their centres and sides.",
            RELATIVE,
        ),
        Wrong(
            "corners of the objects",
            terms(distance=lambda pred, gt: l1(pred, _corners(gt))),
            "You compare (cx, cy, w, h) of the predictions with (x1, y1, x2, y2) of the objects. Convert the "
            "objects to (cx, cy, w, h).",
            RELATIVE,
        ),
        Wrong(
            "GIoU missing",
            terms(weights=(5, 0)),
            "You leave out the term of the GIoU. Boxes are compared by their distance and by their GIoU.",
            formula,
        ),
        Wrong(
            "IoU for GIoU",
            terms(overlap=lambda pred, gt: box_iou(_corners(pred), _corners(gt))),
            "You use the IoU, which is 0 for all boxes that do not overlap, however far apart they are. Use the GIoU.",
            "The GIoU decreases further with the distance, so it has a gradient.",
        ),
        Wrong(
            "weights swapped",
            terms(weights=(2, 5)),
            "You swap the weights of the two box terms. The weight of the distance is 5, and that of the GIoU is 2.",
            formula,
        ),
        Wrong(
            "weights missing",
            terms(weights=(1, 1)),
            "You leave out the weights of the two box terms. The weight of the distance is 5, and that of the "
            "GIoU is 2.",
            formula,
        ),
        Wrong(
            "objects in pixels",
            right.given(image_size=lambda a: (1, 1)),
            "Your objects are in pixels, but the predictions are relative to the image. Make the objects relative too.",
            RELATIVE,
        ),
        Wrong(
            "height for width",
            right.given(image_size=lambda a: a.image_size[::-1]),
            "You divide x by the height of the image and y by its width. It should be the other way round.",
            "image_size is (H, W).",
        ),
    ]
