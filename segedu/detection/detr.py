"""DETR: object detection as set prediction with a hundred learned queries; each object is predicted by one query.

Paper: Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko, "End-to-End Object Detection with Transformers",
    ECCV 2020, arXiv 2005.12872.
Idea: No anchors, no proposals, no non-maximum suppression. The coarse features of a ResNet go through a transformer:
    self-attention in the encoder, then Q learned queries attend to the encoded features and to each other. Each query
    predicts a class, or "no object", and a box. In training, objects and queries are matched one to one at the lowest
    cost. A query without an object learns to predict "no object", so duplicates are penalised.
Simplified: no segmentation. Where the paper and the authors' weights differ, the code does what the weights need.
Shapes: images (B, 3, H, W) -> dict of `class_logits` (B, Q, K + 1), whose last channel is "no object"; `boxes`
    (B, Q, 4), (cx, cy, w, h) relative to the image without its padding; `aux_outputs`, for every decoder layer but
    the last a dict of the same two; and `sizes`, B pairs (h, w). `postprocess`: the dict -> B dicts of `boxes` (N, 4)
    in pixels, `labels` (N,) and `scores` (N,). Labels are 1 to K - 1: no target is ever 0.
Quality: every stage, the costs of matching and the losses with their gradients equal those of Hugging Face's
    transformers at the same weights; a tiny DETR learns two synthetic scenes (tests/detection). A small DETR, trained
    for 362 CPU-seconds on synthetic scenes (`python -m segedu.weights.own.shapes_detr`), has a box AP50 of 0.963 on new
    scenes; the lab and the pages start from its weights, so there is no recipe.
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
from segedu.validation.numbers import check_integer, check_multiple, check_number
from segedu.validation.tensors import check_decoder_outputs, check_no_nan

AXES = {"class_logits": "B Q C", "boxes": "B Q 4"}  # axes of the outputs of a decoder layer


class BoxHead(ReLULayers):
    """Three linear layers with ReLU in between, and a sigmoid: a box relative to the image."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim, embed_dim, embed_dim, 4)

    def forward(self, states: Tensor) -> Tensor:
        return super().forward(states).sigmoid()


class DETR(nn.Module):
    """Backbone, transformer and two heads (figure 2); state dict keys as in the authors' files.

    Args:
        backbone: only its last features are used.
        transformer: encoder and decoder; its embed_dim D is a multiple of 4.
        num_classes: K, including the background 0, as in all detectors; 91 for COCO. "No object" is an additional
            class, number K, and not the background.
        num_queries: Q, more than there are objects in any image.
    """

    def __init__(self, backbone: ResNet, transformer: Transformer, num_classes: int, num_queries: int = 100) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, minimum=2)
        check_integer("num_queries", num_queries)
        embed_dim = transformer.embed_dim
        check_multiple("transformer.embed_dim", embed_dim, 4)
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
        padding = padding_mask(sizes, images, features)
        positions = sine_position(padding, features.shape[1], features.dtype)
        queries, _ = self.transformer(features, padding, positions, self.query_embed.weight)  # (L, B, Q, D)
        logits, boxes = self.class_embed(queries), self.bbox_embed(queries)
        *aux, last = ({"class_logits": k, "boxes": b} for k, b in zip(logits, boxes, strict=True))
        return onnx_outputs({**last, "aux_outputs": aux, "sizes": sizes})


def detr_resnet50(num_classes: int = 91, *, output_stride: int = 32, **options: Any) -> DETR:
    """The paper's network on ResNet-50, 41.5 million parameters; its batch normalisations are frozen, as in training.

    Args:
        num_classes: K, including the background; 91 for COCO.
        output_stride: 32, or 16, the paper's DC5: dilation instead of the last stride, and four times the tokens.
        **options: arguments of `Transformer`, and `num_queries`.
    """
    return _detr(resnet50, num_classes, output_stride, **options)


def detr_resnet101(num_classes: int = 91, *, output_stride: int = 32, **options: Any) -> DETR:
    """The paper's network on ResNet-101. Arguments as for `detr_resnet50`."""
    return _detr(resnet101, num_classes, output_stride, **options)


def _detr(
    resnet: Callable[..., ResNet], num_classes: int, output_stride: int, num_queries: int = 100, **options: Any
) -> DETR:
    body = resnet(output_stride=output_stride, normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    return DETR(freeze_batch_norm(body), Transformer(**options), num_classes, num_queries)


def padding_mask(sizes: Sequence[Size], images: Tensor, features: Tensor) -> Tensor:
    """The padding mask of features: a location belongs to the padding if the pixel in its upper left corner does.

    Args:
        sizes: B pairs (h, w), the size of each image without its padding.
        images: (B, C, H, W), of which only the size is used.
        features: (B, D, h, w), likewise.

    Returns:
        (B, h, w) bool, True for padding; never True in the first row and column.

    >>> padding_mask([(2, 5)], torch.zeros(1, 3, 4, 8), torch.zeros(1, 8, 2, 4))
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
    gt_boxes: Tensor,
    *,
    class_weight: float = 1.0,
    l1_weight: float = 5.0,
    giou_weight: float = 2.0,
) -> Tensor:
    """The cost of matching each query to each object: -p + 5 |b - b'| - 2 GIoU (section 3.1).

    The cost uses the probability, not its logarithm, so that it has the magnitude of the other terms.

    Args:
        class_logits: (Q, K + 1), "no object" last.
        boxes: (Q, 4), (cx, cy, w, h) relative to the image.
        labels: (N,) int64.
        gt_boxes: (N, 4), in the format of `boxes`.
        class_weight: weight of the probability of the object's class.
        l1_weight: weight of the sum of the four absolute differences.
        giou_weight: weight of the generalised IoU.

    Returns:
        (Q, N), without a gradient.

    >>> left, right = torch.tensor([[0.25, 0.5, 0.5, 1.0]]), torch.tensor([[0.75, 0.5, 0.5, 1.0]])
    >>> matching_cost(torch.zeros(2, 3), torch.cat([right, left]), torch.tensor([1]), left)  # 5/2 - 1/3, and -2 - 1/3
    tensor([[ 2.1667],
            [-2.3333]])
    """
    probability = full_precision(class_logits).softmax(dim=-1)[:, labels]  # (Q, N)
    boxes = full_precision(boxes)
    gt_boxes = gt_boxes.to(boxes)
    distance = (boxes[:, None] - gt_boxes).abs().sum(dim=-1)
    giou = generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(gt_boxes))
    return -class_weight * probability + l1_weight * distance - giou_weight * giou


def detr_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    no_object_weight: float = 0.1,
    class_weight: float = 1.0,
    l1_weight: float = 5.0,
    giou_weight: float = 2.0,
) -> dict[str, Tensor]:
    """Equation 2, summed over the decoder layers, each of which has its own matching.

    Cross-entropy is a weighted mean over all queries of the batch. Both box losses are summed over the matched queries
    of the batch and divided by its number of objects (at least 1). If an image has more objects than queries, the
    objects with the highest matching cost remain unmatched.

    Args:
        outputs: outputs of `DETR`.
        targets: B dicts of `boxes` (N, 4) in pixels and `labels` (N,) from 1 to K - 1; N may be 0.
        no_object_weight: weight of unmatched queries in the cross-entropy; matched queries have weight 1.
        class_weight: weight of the cross-entropy, and of the class probability in the matching cost.
        l1_weight: weight of the L1 loss of the boxes, and of the L1 distance in the matching cost.
        giou_weight: weight of 1 - GIoU, and of GIoU in the matching cost.

    Returns:
        Scalars `classification`, `l1` and `giou`, all weighted, and their sum `loss`.
    """
    weights = {"class_weight": class_weight, "l1_weight": l1_weight, "giou_weight": giou_weight}
    for name, weight in {**weights, "no_object_weight": no_object_weight}.items():
        check_number(name, weight)
    layers = check_decoder_outputs(outputs, **AXES)
    targets = check_targets(targets, outputs["sizes"], outputs["class_logits"].shape[-1] - 1)
    labels = [target["labels"] for target in targets]
    pairs = zip(targets, outputs["sizes"], strict=True)
    boxes = [_relative_boxes(target["boxes"], size, outputs["boxes"]) for target, size in pairs]
    terms = [_layer_loss(layer, labels, boxes, no_object_weight, weights) for layer in layers]
    classification, l1, giou = (torch.stack(term).sum() for term in zip(*terms, strict=True))
    parts = {"classification": class_weight * classification, "l1": l1_weight * l1, "giou": giou_weight * giou}
    return {**parts, "loss": sum(parts.values())}


def _relative_boxes(boxes: Tensor, size: Size, like: Tensor) -> Tensor:
    """Convert (x1, y1, x2, y2) in pixels to (cx, cy, w, h) relative to the image."""
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
    """Cross-entropy, L1 and 1 - GIoU of one decoder layer, without weights."""
    logits, preds = full_precision(layer["class_logits"]), full_precision(layer["boxes"])
    costs = [matching_cost(*image, **weights) for image in zip(logits, preds, labels, boxes, strict=True)]
    classification, pairs = matched_cross_entropy(logits, labels, costs, no_object_weight)
    matched = torch.cat([preds[b, queries] for b, (queries, _) in enumerate(pairs)])
    gt_boxes = torch.cat([boxes[b][objects] for b, (_, objects) in enumerate(pairs)])
    count = max(1, sum(map(len, boxes)))
    giou = generalized_iou_loss(cxcywh_to_xyxy(matched), cxcywh_to_xyxy(gt_boxes), reduction="sum")
    return classification, (matched - gt_boxes).abs().sum() / count, giou / count


@torch.no_grad()
def postprocess(outputs: Mapping[str, Any], *, score_threshold: float = 0.0) -> list[dict[str, Tensor]]:
    """Convert outputs to detections: for each query its most probable class except "no object", and its box.

    Non-maximum suppression is not necessary.

    Args:
        outputs: outputs of `DETR`.
        score_threshold: detections need a score above this. 0 keeps all Q, for average precision; for display, use
            about 0.7.

    Returns:
        For each image `boxes` (N, 4), clipped to the image, `labels` (N,) int64, `scores` (N,) and `queries` (N,), the
        index of the query that predicted each box; highest score first.
    """
    check_decoder_outputs(outputs, **AXES)
    check_no_nan("outputs", outputs, AXES)
    detections = []
    for logits, boxes, (h, w) in zip(outputs["class_logits"], outputs["boxes"], outputs["sizes"], strict=True):
        scores, labels = full_precision(logits).softmax(dim=-1)[:, :-1].max(dim=-1)  # (Q,)
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] > score_threshold]
        boxes = cxcywh_to_xyxy(full_precision(boxes[order]))
        # the authors' code does not clip boxes to the image
        boxes = clip_boxes(boxes * boxes.new_tensor([w, h, w, h]), (h, w))
        detections.append({"boxes": boxes, "labels": labels[order], "scores": scores[order], "queries": order})
    return detections
