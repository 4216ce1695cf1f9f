"""RetinaNet: a hundred thousand anchors are classified at once; the focal loss keeps easy anchors from dominating.

Paper: Lin, Goyal, Girshick, He, Dollar, "Focal Loss for Dense Object Detection", ICCV 2017, arXiv 1708.02002.
Idea: One network without proposals: at every location of a feature pyramid, nine anchors get a score for each class and
    four deltas that move them onto their object. Nearly all anchors are background, and their many small losses would
    outweigh the few objects. The focal loss down-weights anchors that are already classified correctly, so anchors do
    not need to be sampled.
Simplified: nothing in the network. Where the paper and torchvision differ, the code follows torchvision, so that
    torchvision's weights can be loaded. Comments that begin with `Paper:` mark these differences.
Shapes: images (B, 3, H, W) -> dict of `logits` (B, A, K) and `deltas` (B, A, 4) for the anchors of all levels,
    concatenated; `anchors`, a list of (A_l, 4), one per level; and `sizes`, B pairs (h, w). `postprocess`: the dict ->
    B dicts of `boxes` (N, 4), `labels` (N,) and `scores` (N,). H and W should be multiples of 32.
Quality: every stage, the detections, and both losses with their gradients equal torchvision's at the same weights; a
    tiny RetinaNet learns two synthetic scenes (tests/detection). From scratch on `shapes`: box AP50 at least 0.95 over
    three seeds, 39 CPU-seconds of training.
Course: 12-one-stage
Lab: 12_one_stage
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.fpn import FPN, LevelsP6P7
from segedu.backbones.resnet import resnet50
from segedu.layers.batch_norm import freeze_batch_norm
from segedu.layers.instance_targets import check_targets
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.losses.boxes import generalized_iou_loss
from segedu.losses.focal import sigmoid_focal_loss
from segedu.losses.reduction import full_precision
from segedu.ops.anchors import NEITHER, cell_anchors, decode_boxes, encode_boxes, grid_anchors, match_anchors
from segedu.ops.boxes import box_iou, clip_boxes
from segedu.ops.nms import batched_nms
from segedu.validation.images import check_sizes
from segedu.validation.numbers import check_integer, check_length
from segedu.validation.tensors import check_keys, check_no_nan, check_tensor_dict

# Of P3 to P7. The three sizes of a level differ by factors of 2^(1/3), and the next level continues the sequence.
ANCHOR_SIZES = tuple(tuple(int(size * 2 ** (i / 3)) for i in range(3)) for size in (32, 64, 128, 256, 512))
RATIOS = (0.5, 1.0, 2.0)  # height over width
PRIOR = 0.01  # probability that an untrained network predicts for every anchor and class
IGNORED = 255
KEYS = ("logits", "deltas", "anchors", "sizes")


class ClassificationHead(nn.Module):
    """Four convolutions, then K logits for each anchor; all levels share the weights (figure 3 c).

    Args:
        channels: C of the features and of the convolutions.
        num_anchors: number of anchors at each location.
        num_classes: K, including the background. Paper: has no channel for the background; torchvision's weights have
            one, whose target is always 0.
        norm_groups: groups of the group normalisation after each convolution; None for no normalisation.
    """

    def __init__(self, channels: int, num_anchors: int, num_classes: int, norm_groups: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv = _tower(channels, norm_groups)
        self.cls_logits = nn.Conv2d(channels, num_anchors * num_classes, kernel_size=3, padding=1)
        nn.init.normal_(self.cls_logits.weight, std=0.01)
        # sigmoid(bias) = PRIOR. With bias 0, the loss of the background would at first dominate that of the objects.
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, features: Tensor) -> Tensor:
        return _permute_and_flatten(self.cls_logits(self.conv(features)), self.num_classes)


class RegressionHead(nn.Module):
    """Four convolutions of its own, then four deltas for each anchor, which all classes share (figure 3 d).

    Args:
        channels: C of the features and of the convolutions.
        num_anchors: number of anchors at each location.
        norm_groups: groups of the group normalisation after each convolution; None for no normalisation.
    """

    def __init__(self, channels: int, num_anchors: int, norm_groups: int | None = None) -> None:
        super().__init__()
        self.conv = _tower(channels, norm_groups)
        self.bbox_reg = nn.Conv2d(channels, num_anchors * 4, kernel_size=3, padding=1)
        nn.init.normal_(self.bbox_reg.weight, std=0.01)
        nn.init.zeros_(self.bbox_reg.bias)

    def forward(self, features: Tensor) -> Tensor:
        return _permute_and_flatten(self.bbox_reg(self.conv(features)), 4)


class RetinaNet(nn.Module):
    """A feature pyramid and the two heads; state dict keys as in torchvision.

    Args:
        backbone: images -> one feature map per level, all with the same number of channels.
        num_classes: K, including the background.
        anchor_sizes: for each level the sides of its square anchors in pixels. All levels have the same number of
            sizes.
        ratios: height over width of the anchors. Each size is combined with each ratio.
        norm_groups: groups of the group normalisations in the heads, which torchvision's version 2 has; None for no
            normalisation. Heads with few channels need normalisation: with the paper's initialisation, a standard
            deviation of 0.01, their signal almost vanishes.
    """

    def __init__(
        self,
        backbone: FPN,
        num_classes: int,
        anchor_sizes: Sequence[Sequence[float]] = ANCHOR_SIZES,
        ratios: Sequence[float] = RATIOS,
        norm_groups: int | None = None,
    ) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, minimum=2)
        check_length("anchor_sizes", anchor_sizes, len(backbone.channels), of="level")
        for sizes in anchor_sizes:
            check_length("sizes of a level", sizes, len(anchor_sizes[0]))
        self.backbone = backbone
        self.base_anchors = [cell_anchors(sizes, ratios, rounded=True) for sizes in anchor_sizes]
        channels, num_anchors = backbone.channels[0], len(self.base_anchors[0])
        self.head = nn.ModuleDict(
            {
                "classification_head": ClassificationHead(channels, num_anchors, num_classes, norm_groups),
                "regression_head": RegressionHead(channels, num_anchors, norm_groups),
            }
        )

    def forward(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> dict[str, Any]:
        features = self.backbone(images)
        outputs = {
            "logits": torch.cat([self.head["classification_head"](level) for level in features], dim=1),
            "deltas": torch.cat([self.head["regression_head"](level) for level in features], dim=1),
            "anchors": [
                self._anchors(*pair, images.shape[-2:]) for pair in zip(self.base_anchors, features, strict=True)
            ],
            "sizes": check_sizes(sizes, images),
        }
        return onnx_outputs(outputs)

    def _anchors(self, base_anchors: Tensor, features: Tensor, image_size: tuple[int, int]) -> Tensor:
        """The anchors (A_l, 4) of one level."""
        (H, W), (h, w) = image_size, features.shape[-2:]
        # Paper: anchors are 8 to 128 pixels apart. Here, as in torchvision, they are H // h and W // w pixels apart,
        # which differs if the size of a level is rounded up: 96 pixels give 2 locations of P6, 48 pixels apart.
        return grid_anchors(base_anchors.to(full_precision(features[:0])), (h, w), (H // h, W // w))


def retinanet_resnet50_fpn(num_classes: int = 91, **options: Any) -> RetinaNet:
    """The paper's network with ResNet-50, which is version 1 of torchvision.

    As in the training of torchvision's weights, batch normalisation is frozen and its eps is 0.

    Args:
        num_classes: K, including the background; 91 for COCO.
        **options: arguments of `RetinaNet`.
    """
    body = freeze_batch_norm(resnet50(normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD)), eps=0.0)
    # Paper: computes P6 from the last features of the ResNet, as version 2 does. Version 1 computes P6 from P5.
    fpn = FPN(body, levels=(2, 3, 4), extra=LevelsP6P7(256, 256, from_features=False))
    return RetinaNet(fpn, num_classes, **options)


def retinanet_resnet50_fpn_v2(num_classes: int = 91, **options: Any) -> RetinaNet:
    """Version 2 of torchvision: group normalisation in the heads, and batch normalisation that is not frozen.

    Its weights were trained with `giou=True` in `retinanet_loss`.
    """
    body = resnet50(normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    fpn = FPN(body, levels=(2, 3, 4), extra=LevelsP6P7(2048, 256))
    return RetinaNet(fpn, num_classes, **{"norm_groups": 32, **options})


def retinanet_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    negative_iou: float = 0.4,
    positive_iou: float = 0.5,
    alpha: float = 0.25,
    gamma: float = 2.0,
    giou: bool = False,
) -> dict[str, Tensor]:
    """Focal loss of all anchors, and box regression loss of the positive anchors.

    Both losses are summed over the anchors of an image, divided by its number of positive anchors (at least 1), and
    then averaged over images. An anchor whose largest IoU lies between `negative_iou` and `positive_iou` has no loss.

    Args:
        outputs: outputs of `RetinaNet`.
        targets: B dicts of `boxes` (N, 4) and `labels` (N,) from 1 to K - 1; N may be 0.
        negative_iou: anchors whose largest IoU with an object is below this are background.
        positive_iou: anchors whose largest IoU is at least this are positive. So is the anchor with the largest IoU
            of each object.
        alpha: α of `sigmoid_focal_loss`, the weight of positives.
        gamma: γ of `sigmoid_focal_loss`; 0 gives α-weighted cross-entropy.
        giou: use the generalised IoU of the boxes instead of the sum of the four absolute differences of the deltas.

    Returns:
        Scalars `classification` and `boxes`, and their sum `loss`.
    """
    anchors = torch.cat(_check_outputs(outputs))
    targets = check_targets(targets, outputs["sizes"], outputs["logits"].shape[-1])
    class_losses, box_losses = [], []
    for logits, deltas, target in zip(outputs["logits"], full_precision(outputs["deltas"]), targets, strict=True):
        gt_boxes = target["boxes"].to(anchors)
        matches = match_anchors(box_iou(gt_boxes, anchors), negative_iou, positive_iou, force_best=True)  # (A,)
        positive = torch.nonzero(matches >= 0).flatten()
        matched_idxs, count = matches[positive], max(1, len(positive))
        gt_classes = torch.zeros_like(logits)  # (A, K), one-hot
        gt_classes[matches == NEITHER] = IGNORED
        gt_classes[positive, target["labels"][matched_idxs]] = 1
        focal = sigmoid_focal_loss(logits, gt_classes, alpha=alpha, gamma=gamma, ignore_index=IGNORED, reduction="sum")
        class_losses.append(focal / count)
        box_losses.append(_box_loss(deltas[positive], anchors[positive], gt_boxes[matched_idxs], giou) / count)
    classification, box = torch.stack(class_losses).mean(), torch.stack(box_losses).mean()
    return {"classification": classification, "boxes": box, "loss": classification + box}


def _box_loss(deltas: Tensor, anchors: Tensor, boxes: Tensor, giou: bool) -> Tensor:
    if giou:
        return generalized_iou_loss(decode_boxes(deltas, anchors), boxes, reduction="sum")
    # Paper: uses the smooth L1 loss of Fast R-CNN.
    return F.l1_loss(deltas, encode_boxes(boxes, anchors).to(deltas), reduction="sum")


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Any],
    *,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    topk_candidates: int = 1000,
    max_detections: int = 300,
) -> list[dict[str, Tensor]]:
    """Convert outputs to detections: the highest scores per level, then non-maximum suppression within each class.

    One anchor may be detected as several classes. The background channel is treated like the others; after training,
    its scores stay below every threshold.

    Args:
        outputs: outputs of `RetinaNet`.
        score_threshold: detections need a score above this.
        iou_threshold: a box is dropped if its IoU with a higher-scoring one of its class exceeds this.
        topk_candidates: maximum number of scores per level before non-maximum suppression.
        max_detections: maximum number of boxes per image. Paper: 100.

    Returns:
        For each image `boxes` (N, 4), clipped to the image, `labels` (N,) int64 and `scores` (N,), highest score first.
    """
    anchors = _check_outputs(outputs)
    check_no_nan("outputs", outputs, ("logits", "deltas"))
    counts, detections = [len(level) for level in anchors], []
    for logits, deltas, size in zip(outputs["logits"], outputs["deltas"], outputs["sizes"], strict=True):
        levels = [
            _topk_detections(*level, score_threshold, topk_candidates)
            for level in zip(logits.split(counts), deltas.split(counts), anchors, strict=True)
        ]
        boxes, labels, scores = (torch.cat(parts) for parts in zip(*levels, strict=True))
        boxes = clip_boxes(boxes, size)
        keep = batched_nms(boxes, scores, labels, iou_threshold)[:max_detections]
        detections.append({"boxes": boxes[keep], "labels": labels[keep], "scores": scores[keep]})
    return detections


def _topk_detections(
    logits: Tensor, deltas: Tensor, anchors: Tensor, threshold: float, topk_candidates: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, labels and scores of one level of one image, before non-maximum suppression."""
    scores = full_precision(logits).sigmoid().flatten()  # (A_l * K,)
    above_threshold = torch.nonzero(scores > threshold).flatten()
    scores, order = scores[above_threshold].topk(min(topk_candidates, len(above_threshold)))
    index, label = above_threshold[order] // logits.shape[1], above_threshold[order] % logits.shape[1]
    return decode_boxes(full_precision(deltas[index]), anchors[index]), label, scores


def _tower(channels: int, norm_groups: int | None) -> nn.Sequential:
    blocks = []
    for _ in range(4):
        conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=norm_groups is None)
        nn.init.normal_(conv.weight, std=0.01)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        norm = [] if norm_groups is None else [nn.GroupNorm(norm_groups, channels)]
        blocks.append(nn.Sequential(conv, *norm, nn.ReLU(inplace=True)))
    return nn.Sequential(*blocks)


def _permute_and_flatten(maps: Tensor, channels: int) -> Tensor:
    """Reshape (B, A * channels, h, w) to (B, h * w * A, channels), in the order of `grid_anchors`."""
    B, _, h, w = maps.shape
    return maps.unflatten(1, (-1, channels)).permute(0, 3, 4, 1, 2).reshape(B, -1, channels)


def _check_outputs(outputs: Mapping[str, Any]) -> list[Tensor]:
    """Check that the outputs of the heads match the anchors, and return the anchors of each level."""
    check_keys("outputs", outputs, KEYS)
    lengths = {"A": sum(len(level) for level in outputs["anchors"])}
    lengths = check_tensor_dict("outputs", outputs, lengths, logits="B A K", deltas="B A 4")
    check_length("outputs['sizes']", outputs["sizes"], lengths["B"], of="image")
    return list(outputs["anchors"])
