"""DETR: an image's objects as a set: a hundred learnt queries, and each object is said by one of them.

Paper: Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko, "End-to-End Object Detection with Transformers",
    ECCV 2020, arXiv 2005.12872.
Idea: No anchors, no proposals, no suppression of what is said twice. A ResNet's coarse features go through a
    transformer: places look at each other, then Q learnt queries look at the places and at each other, and each
    becomes a class, or "no object", and a box. In training, objects and queries are matched one to one at the least
    cost; a query without an object learns to say "no object", so repeating another does not pay.
Simplified: no segmentation. Where the paper and the authors' weights differ, this is what their weights need.
Shapes: images (B, 3, H, W) -> dict of `class_logits` (B, Q, K + 1), whose last column is "no object"; `boxes`
    (B, Q, 4), (cx, cy, w, h) as parts of the image without its padding; `aux_outputs`, for every decoder layer but
    the last a dict of the same two; and `sizes`, B pairs (h, w). `postprocess`: the dict -> B dicts of `boxes` (N, 4)
    in pixels, `labels` (N,) and `scores` (N,). Labels are 1 to K - 1: nothing is ever asked to be 0.
Quality: every stage, the costs of matching and the losses with their gradients equal those of Hugging Face's
    transformers at the same weights; a tiny one learns two drawn scenes (its tests). A small one, trained for
    362 CPU-seconds on drawn scenes (`python -m segedu.weights.own.shapes_detr`), has a box AP50 of 0.963 on new ones;
    lab and pages start from its weights, so that there is no recipe.
Course: 12-one-stage
Lab: 12_one_stage
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.resnet import ResNet, resnet50, resnet101
from segedu.layers.batch_norm import freeze_batch_norm
from segedu.layers.instance_targets import Size, check_targets
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.layers.position import sine_position
from segedu.layers.relu_layers import ReLULayers
from segedu.layers.transformer import Transformer
from segedu.losses.boxes import generalized_iou_loss
from segedu.losses.reduction import full_precision
from segedu.losses.set_prediction import matched_cross_entropy
from segedu.ops.boxes import clip_boxes, cxcywh_to_xyxy, generalized_box_iou, xyxy_to_cxcywh
from segedu.validation.images import check_images, check_sizes
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_layers, check_no_nan

AXES = {"class_logits": "B Q C", "boxes": "B Q 4"}  # of a decoder layer's outputs


class BoxHead(ReLULayers):
    """Three linear maps with ReLU in between, and a sigmoid: a box as parts of the image.

    Args:
        embed_dim: D of the states.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim, embed_dim, embed_dim, 4)

    def forward(self, states: Tensor) -> Tensor:
        return super().forward(states).sigmoid()


class DETR(nn.Module):
    """Backbone, transformer and two heads: figure 2; keys as in the authors' files.

    Args:
        backbone: only its last features are looked at.
        transformer: encoder and decoder; its embed_dim D a multiple of 4.
        num_classes: K, with the background 0, so that labels are as everywhere; 91 for COCO. "No object" comes
            behind these, in column K: a class of its own, which is not the background's.
        num_queries: Q, more than there are objects in any image.
    """

    def __init__(self, backbone: ResNet, transformer: Transformer, num_classes: int, num_queries: int = 100) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}, expected at least 2: the background and a class")
        if num_queries < 1:
            raise ValueError(f"num_queries is {num_queries}, expected at least 1")
        embed_dim = transformer.embed_dim
        if embed_dim % 4:
            raise ValueError(f"transformer has embed_dim {embed_dim}, expected a multiple of 4, for the positions")
        self.backbone = nn.ModuleList([nn.ModuleDict({"body": backbone})])  # the authors' keys
        self.input_proj = nn.Conv2d(backbone.channels[-1], embed_dim, kernel_size=1)
        self.transformer = transformer
        self.query_embed = nn.Embedding(num_queries, embed_dim)
        self.class_embed = nn.Linear(embed_dim, num_classes + 1)
        self.bbox_embed = BoxHead(embed_dim)

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> dict[str, Any]:
        body = self.backbone[0]["body"]
        check_images(images, body.in_channels)
        sizes = check_sizes(sizes, images)
        features = self.input_proj(body(images)[-1])  # (B, D, h, w)
        padding = padding_of(sizes, images, features)
        positions = sine_position(padding, features.shape[1], features.dtype)
        states, _ = self.transformer(features, padding, positions, self.query_embed.weight)  # (L, B, Q, D)
        logits, boxes = self.class_embed(states), self.bbox_embed(states)
        *aux, last = ({"class_logits": k, "boxes": b} for k, b in zip(logits, boxes, strict=True))
        return onnx_outputs({**last, "aux_outputs": aux, "sizes": sizes})


def detr_resnet50(num_classes: int = 91, *, output_stride: int = 32, **options: Any) -> DETR:
    """The paper's network on ResNet-50, 41.5 million weights; its normalisations are frozen, as in training.

    Args:
        num_classes: K, with the background; 91 for COCO.
        output_stride: 32, or 16, the paper's DC5: dilation in place of the last stride, and four times the places.
        **options: of `Transformer`, and `num_queries`.

    Returns:
        The network with random weights.
    """
    return _detr(resnet50, num_classes, output_stride, **options)


def detr_resnet101(num_classes: int = 91, *, output_stride: int = 32, **options: Any) -> DETR:
    """The paper's network on ResNet-101.

    Args:
        num_classes: K, with the background; 91 for COCO.
        output_stride: 32, or 16, the paper's DC5.
        **options: of `Transformer`, and `num_queries`.

    Returns:
        The network with random weights.
    """
    return _detr(resnet101, num_classes, output_stride, **options)


def _detr(
    resnet: Callable[..., ResNet], num_classes: int, output_stride: int, num_queries: int = 100, **options: Any
) -> DETR:
    body = resnet(output_stride=output_stride, normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    return DETR(freeze_batch_norm(body), Transformer(**options), num_classes, num_queries)


def padding_of(sizes: Sequence[Size], images: Tensor, features: Tensor) -> Tensor:
    """Which places of features are no part of their image: the pixel in their upper left corner decides.

    Args:
        sizes: B pairs (h, w), the part of each image that is image.
        images: (B, C, H, W), only the size is looked at.
        features: (B, D, h, w), likewise.

    Returns:
        (B, h, w) bool, never true for the first row and column.

    >>> padding_of([(2, 5)], torch.zeros(1, 3, 4, 8), torch.zeros(1, 8, 2, 4))
    tensor([[[False, False, False,  True],
             [ True,  True,  True,  True]]])
    """
    padding = torch.ones(len(images), 1, *images.shape[-2:], device=images.device)
    for mask, (h, w) in zip(padding, sizes, strict=True):
        mask[:, :h, :w] = 0
    return F.interpolate(padding, size=features.shape[-2:], mode="nearest")[:, 0].bool()


@torch.no_grad()
def matching_cost(
    class_logits: Tensor,
    boxes: Tensor,
    labels: Tensor,
    true_boxes: Tensor,
    *,
    class_weight: float = 1.0,
    l1_weight: float = 5.0,
    giou_weight: float = 2.0,
) -> Tensor:
    """What it costs that a query answers for an object: -p + 5 |b - b'| - 2 GIoU.

    The probability itself, not its logarithm, is of the size of the other terms: section 3.1.

    Args:
        class_logits: (Q, K + 1), "no object" last.
        boxes: (Q, 4), (cx, cy, w, h) as parts of the image.
        labels: (N,) int64.
        true_boxes: (N, 4), as `boxes`.
        class_weight: of the probability of the object's class.
        l1_weight: of the sum of four absolute differences.
        giou_weight: of the generalised IoU.

    Returns:
        (Q, N), without a gradient.

    >>> left, right = torch.tensor([[0.25, 0.5, 0.5, 1.0]]), torch.tensor([[0.75, 0.5, 0.5, 1.0]])
    >>> matching_cost(torch.zeros(2, 3), torch.cat([right, left]), torch.tensor([1]), left)  # 5/2 - 1/3, and -2 - 1/3
    tensor([[ 2.1667],
            [-2.3333]])
    """
    probability = full_precision(class_logits).softmax(dim=-1)[:, labels]  # (Q, N)
    boxes = full_precision(boxes)
    true_boxes = true_boxes.to(boxes)
    away = (boxes[:, None] - true_boxes).abs().sum(dim=-1)
    overlap = generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(true_boxes))
    return -class_weight * probability + l1_weight * away - giou_weight * overlap


def detr_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    no_object_weight: float = 0.1,
    class_weight: float = 1.0,
    l1_weight: float = 5.0,
    giou_weight: float = 2.0,
) -> dict[str, Tensor]:
    """Equation 2, summed over the decoder layers, each with a matching of its own.

    Cross-entropy is a weighted mean over all queries of the batch. Both losses of boxes are summed over the matched
    queries of the batch and divided by its number of objects (at least 1). In an image with more objects than
    queries, those whose matching would cost most have no query.

    Args:
        outputs: of `DETR`.
        targets: B dicts of `boxes` (N, 4) in pixels and `labels` (N,) from 1 to K - 1; N may be 0.
        no_object_weight: of a query without an object, in the cross-entropy; all others weigh 1.
        class_weight: of the cross-entropy, and of the class in the cost of matching.
        l1_weight: of the absolute differences of boxes, here and in the cost.
        giou_weight: of 1 - GIoU, and of GIoU in the cost.

    Returns:
        Scalars `classification`, `l1` and `giou`, weighted, and `loss`, their sum.

    Raises:
        TypeError: outputs, targets or a weight are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, a box has no area, a label is not 1 to K - 1, a weight is
            negative, or a box or the cost of a pair is not finite.
    """
    check_number("no_object_weight", no_object_weight)
    weights = {"class_weight": class_weight, "l1_weight": l1_weight, "giou_weight": giou_weight}
    for name, weight in weights.items():
        check_number(name, weight)
    layers = check_layers(outputs, **AXES)
    targets = check_targets(targets, outputs["sizes"], outputs["class_logits"].shape[-1] - 1)
    labels = [target["labels"] for target in targets]
    boxes = [
        _as_parts(target["boxes"], size, outputs["boxes"])
        for target, size in zip(targets, outputs["sizes"], strict=True)
    ]
    terms = [_layer_loss(layer, labels, boxes, no_object_weight, weights) for layer in layers]
    classification, l1, giou = (torch.stack(term).sum() for term in zip(*terms, strict=True))
    parts = {"classification": class_weight * classification, "l1": l1_weight * l1, "giou": giou_weight * giou}
    return {**parts, "loss": sum(parts.values())}


def _as_parts(boxes: Tensor, size: Size, like: Tensor) -> Tensor:
    """Pixels (x1, y1, x2, y2) to parts (cx, cy, w, h) of the image."""
    h, w = size
    boxes = boxes.to(full_precision(like))
    return xyxy_to_cxcywh(boxes / boxes.new_tensor([w, h, w, h]))


def _layer_loss(
    layer: Mapping[str, Tensor],
    labels: Sequence[Tensor],
    boxes: Sequence[Tensor],
    no_object_weight: float,
    weights: Mapping[str, float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy, L1 and 1 - GIoU of one decoder layer, not yet weighted."""
    logits, preds = full_precision(layer["class_logits"]), full_precision(layer["boxes"])
    inputs = zip(logits, preds, labels, boxes, strict=True)
    costs = [matching_cost(*given, **weights) for given in inputs]
    classification, pairs = matched_cross_entropy(logits, labels, costs, no_object_weight)
    matched = torch.cat([preds[b, queries] for b, (queries, _) in enumerate(pairs)])
    truth = torch.cat([boxes[b][objects] for b, (_, objects) in enumerate(pairs)])
    count = max(1, sum(map(len, boxes)))
    giou = generalized_iou_loss(cxcywh_to_xyxy(matched), cxcywh_to_xyxy(truth), reduction="sum")
    return classification, (matched - truth).abs().sum() / count, giou / count


@torch.no_grad()
def postprocess(outputs: Mapping[str, Any], *, score_threshold: float = 0.0) -> list[dict[str, Tensor]]:
    """Of each query its likeliest class but "no object", and its box in pixels. Nothing is suppressed.

    Args:
        outputs: of `DETR`.
        score_threshold: scores that are not above it are dropped. 0 keeps all Q, as for average precision; to look
            at, 0.7 or so.

    Returns:
        For each image `boxes` (N, 4), within the image, `labels` (N,) int64, `scores` (N,) and `queries` (N,), which
        they come from, best first.

    Raises:
        TypeError: outputs are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, or a number is NaN.
    """
    check_layers(outputs, **AXES)
    check_no_nan("outputs", outputs, AXES)
    found = []
    for logits, boxes, (h, w) in zip(outputs["class_logits"], outputs["boxes"], outputs["sizes"], strict=True):
        scores, labels = full_precision(logits).softmax(dim=-1)[:, :-1].max(dim=-1)  # (Q,)
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] > score_threshold]
        boxes = cxcywh_to_xyxy(full_precision(boxes[order]))
        # the authors' code does not cut boxes at the edges of the image
        boxes = clip_boxes(boxes * boxes.new_tensor([w, h, w, h]), (h, w))
        found.append({"boxes": boxes, "labels": labels[order], "scores": scores[order], "queries": order})
    return found
