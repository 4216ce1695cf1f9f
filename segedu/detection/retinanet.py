"""RetinaNet: a hundred thousand anchors are judged at once, and the easy ones do not drown the objects.

Paper: Lin, Goyal, Girshick, He, Dollar, "Focal Loss for Dense Object Detection", ICCV 2017, arXiv 1708.02002.
Idea: One network without proposals: at every place of a feature pyramid nine anchors get a score for each class and
    four numbers that move them onto their object. Nearly all anchors are background, and their many small losses
    would outweigh the few objects. The focal loss turns down what is already right, so that no sampling is needed.
Simplified: nothing of the network. Where the paper and torchvision differ, this is torchvision's, whose weights fit:
    the comments beginning `Paper:` say where.
Shapes: images (B, 3, H, W) -> dict of `logits` (B, A, K) and `deltas` (B, A, 4), all levels' anchors one behind the
    other, `anchors`, a list of (A_l, 4), one a level, and `sizes`, B pairs (h, w). `postprocess`: the dict -> B
    dicts of `boxes` (N, 4), `labels` (N,) and `scores` (N,). Sides of H and W that are multiples of 32 are best.
Quality: every stage, the detections, and both losses with their gradients equal torchvision's at the same weights; a
    tiny one learns two drawn scenes (its tests). From scratch on `shapes`: box AP50 at least 0.95 over three seeds, 39
    CPU-s.
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
from segedu.validation.tensors import check_keys, check_maps, check_no_nan

# Of P3 to P7: each level has three sizes, 2^(1/3) apart, so that the next level goes on where this one ends.
ANCHOR_SIZES = tuple(tuple(int(size * 2 ** (i / 3)) for i in range(3)) for size in (32, 64, 128, 256, 512))
RATIOS = (0.5, 1.0, 2.0)  # height over width
PRIOR = 0.01  # what an untrained network says of every anchor and class
IGNORED = 255
KEYS = ("logits", "deltas", "anchors", "sizes")


class ClassificationHead(nn.Module):
    """Four convolutions, and K scores for each anchor; the same weights on all levels: figure 3 c.

    Args:
        channels: of the features, and in between.
        num_anchors: at each place.
        num_classes: K, with the background. Paper: no column for it; torchvision's weights have one that is
            never asked to be 1.
        norm_groups: of group normalisations behind the convolutions; None: there are none.
    """

    def __init__(self, channels: int, num_anchors: int, num_classes: int, norm_groups: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv = _tower(channels, norm_groups)
        self.cls_logits = nn.Conv2d(channels, num_anchors * num_classes, kernel_size=3, padding=1)
        nn.init.normal_(self.cls_logits.weight, std=0.01)
        # sigmoid(bias) = PRIOR. With 1/2, all of the background would be half wrong at first, and drown the rest.
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, features: Tensor) -> Tensor:
        return _by_anchor(self.cls_logits(self.conv(features)), self.num_classes)


class RegressionHead(nn.Module):
    """Four convolutions of its own, and four deltas for each anchor, the same for all classes: figure 3 d.

    Args:
        channels: of the features, and in between.
        num_anchors: at each place.
        norm_groups: of group normalisations behind the convolutions; None: there are none.
    """

    def __init__(self, channels: int, num_anchors: int, norm_groups: int | None = None) -> None:
        super().__init__()
        self.conv = _tower(channels, norm_groups)
        self.bbox_reg = nn.Conv2d(channels, num_anchors * 4, kernel_size=3, padding=1)
        nn.init.normal_(self.bbox_reg.weight, std=0.01)
        nn.init.zeros_(self.bbox_reg.bias)

    def forward(self, features: Tensor) -> Tensor:
        return _by_anchor(self.bbox_reg(self.conv(features)), 4)


class RetinaNet(nn.Module):
    """A feature pyramid and the two heads; keys as torchvision's.

    Args:
        backbone: gives one feature map a level, all with the same channels.
        num_classes: K, with the background.
        anchor_sizes: for each level the sides of its square anchors in pixels, as many on all levels.
        ratios: height over width; every size comes in every ratio.
        norm_groups: of group normalisations in the heads, as torchvision's version 2 has; None: there are none.
            Narrow heads need them: the paper's start, a deviation of 0.01, lets little through few channels.
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
        levels = len(backbone.channels)
        if len(anchor_sizes) != levels or len({len(sizes) for sizes in anchor_sizes}) != 1:
            given = tuple(map(tuple, anchor_sizes))
            raise ValueError(f"anchor_sizes is {given}, expected as many sizes for each of {levels} levels")
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}, expected at least 2: the background and a class")
        self.backbone = backbone
        self.cells = [cell_anchors(sizes, ratios, rounded=True) for sizes in anchor_sizes]
        channels, count = backbone.channels[0], len(self.cells[0])
        self.head = nn.ModuleDict(
            {
                "classification_head": ClassificationHead(channels, count, num_classes, norm_groups),
                "regression_head": RegressionHead(channels, count, norm_groups),
            }
        )

    def forward(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> dict[str, Any]:
        features = self.backbone(images)
        outputs = {
            "logits": torch.cat([self.head["classification_head"](level) for level in features], dim=1),
            "deltas": torch.cat([self.head["regression_head"](level) for level in features], dim=1),
            "anchors": [self._anchors(*pair, images.shape[-2:]) for pair in zip(self.cells, features, strict=True)],
            "sizes": check_sizes(sizes, images),
        }
        return onnx_outputs(outputs)

    def _anchors(self, cells: Tensor, features: Tensor, image_size: tuple[int, int]) -> Tensor:
        """(A_l, 4) of one level."""
        (H, W), (h, w) = image_size, features.shape[-2:]
        # Paper: 8 to 128 pixels apart. Here, as in torchvision, as many as the image has for each place: the same,
        # but where a level is rounded up. 96 pixels are one and a half places of P6: two, 48 apart.
        return grid_anchors(cells.to(full_precision(features[:0])), (h, w), (H // h, W // w))


def retinanet_resnet50_fpn(num_classes: int = 91, **options: Any) -> RetinaNet:
    """The paper's network on ResNet-50, torchvision's version 1.

    The normalisations are frozen, with an eps of 0: so were those that torchvision's weights were trained with.

    Args:
        num_classes: K, with the background; 91 for COCO.
        **options: of `RetinaNet`.

    Returns:
        The network with random weights.
    """
    body = freeze_batch_norm(resnet50(normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD)), eps=0.0)
    # Paper: P6 from the last features of the ResNet. Version 1 takes P5, version 2 the paper's.
    fpn = FPN(body, levels=(2, 3, 4), extra=LevelsP6P7(256, 256, from_features=False))
    return RetinaNet(fpn, num_classes, **options)


def retinanet_resnet50_fpn_v2(num_classes: int = 91, **options: Any) -> RetinaNet:
    """The network of torchvision's version 2: group normalisation in the heads, batch normalisation that learns.

    Its weights were trained with the loss of `giou=True`.

    Args:
        num_classes: K, with the background; 91 for COCO.
        **options: of `RetinaNet`.

    Returns:
        The network with random weights.
    """
    body = resnet50(normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    fpn = FPN(body, levels=(2, 3, 4), extra=LevelsP6P7(2048, 256))
    return RetinaNet(fpn, num_classes, **{"norm_groups": 32, **options})


def retinanet_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    low: float = 0.4,
    high: float = 0.5,
    alpha: float = 0.25,
    gamma: float = 2.0,
    giou: bool = False,
) -> dict[str, Tensor]:
    """Focal loss of all anchors, and the distance of the deltas of those that have an object.

    Both are summed over the anchors of an image and divided by how many of them have an object (at least 1), then
    averaged over images. Anchors with an IoU in between belong to neither side, and only their scores are left out.

    Args:
        outputs: of `RetinaNet`.
        targets: B dicts of `boxes` (N, 4) and `labels` (N,) from 1 to K - 1; N may be 0.
        low: anchors whose best IoU is below are background.
        high: anchors whose best IoU reaches it have an object, and so has the best anchor of each object.
        alpha: of the focal loss.
        gamma: of the focal loss; 0 is cross-entropy.
        giou: generalised IoU of the boxes in place of the sum of four absolute differences of deltas.

    Returns:
        Scalars `classification`, `boxes` and `loss`, their sum.

    Raises:
        TypeError: outputs or targets are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, a box has no area, or a label is not 1 to K - 1.
    """
    anchors = torch.cat(_checked(outputs))
    targets = check_targets(targets, outputs["sizes"], outputs["logits"].shape[-1])
    scores, boxes = [], []
    for logits, deltas, target in zip(outputs["logits"], full_precision(outputs["deltas"]), targets, strict=True):
        true_boxes = target["boxes"].to(anchors)
        matches = match_anchors(box_iou(true_boxes, anchors), low, high, force_best=True)  # (A,)
        positive = torch.nonzero(matches >= 0).flatten()
        rows, count = matches[positive], max(1, len(positive))
        wanted = torch.zeros_like(logits)  # (A, K)
        wanted[matches == NEITHER] = IGNORED
        wanted[positive, target["labels"][rows]] = 1
        focal = sigmoid_focal_loss(logits, wanted, alpha=alpha, gamma=gamma, ignore_index=IGNORED, reduction="sum")
        scores.append(focal / count)
        boxes.append(_box_loss(deltas[positive], anchors[positive], true_boxes[rows], giou) / count)
    classification, box = torch.stack(scores).mean(), torch.stack(boxes).mean()
    return {"classification": classification, "boxes": box, "loss": classification + box}


def _box_loss(deltas: Tensor, anchors: Tensor, boxes: Tensor, giou: bool) -> Tensor:
    if giou:
        return generalized_iou_loss(decode_boxes(deltas, anchors), boxes, reduction="sum")
    # Paper: the smooth L1 of Fast R-CNN.
    return F.l1_loss(deltas, encode_boxes(boxes, anchors).to(deltas), reduction="sum")


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Any],
    *,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    candidates: int = 1000,
    max_detections: int = 300,
) -> list[dict[str, Tensor]]:
    """The best scores of each level, moved onto their boxes, and of boxes of a class that overlap the best.

    One anchor may be found as several classes. The background's column is treated as any other; trained, it stays
    below every threshold.

    Args:
        outputs: of `RetinaNet`.
        score_threshold: scores that are not above it are dropped.
        iou_threshold: a box with a larger IoU with a better one of its class is dropped.
        candidates: how many scores of a level are looked at.
        max_detections: how many boxes of an image are kept. Paper: 100.

    Returns:
        For each image `boxes` (N, 4), within the image, `labels` (N,) int64 and `scores` (N,), best first.

    Raises:
        TypeError: outputs are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, or a number is NaN.
    """
    anchors = _checked(outputs)
    check_no_nan("outputs", outputs, ("logits", "deltas"))
    counts, found = [len(level) for level in anchors], []
    for logits, deltas, size in zip(outputs["logits"], outputs["deltas"], outputs["sizes"], strict=True):
        levels = [
            _best(*level, score_threshold, candidates)
            for level in zip(logits.split(counts), deltas.split(counts), anchors, strict=True)
        ]
        boxes, labels, scores = (torch.cat(parts) for parts in zip(*levels, strict=True))
        boxes = clip_boxes(boxes, size)
        keep = batched_nms(boxes, scores, labels, iou_threshold)[:max_detections]
        found.append({"boxes": boxes[keep], "labels": labels[keep], "scores": scores[keep]})
    return found


def _best(
    logits: Tensor, deltas: Tensor, anchors: Tensor, threshold: float, candidates: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, labels and scores of one level of one image."""
    scores = full_precision(logits).sigmoid().flatten()  # (A_l * K,)
    above = torch.nonzero(scores > threshold).flatten()
    scores, order = scores[above].topk(min(candidates, len(above)))
    index, label = above[order] // logits.shape[1], above[order] % logits.shape[1]
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


def _by_anchor(maps: Tensor, columns: int) -> Tensor:
    """(B, A * columns, h, w) -> (B, h * w * A, columns), the order of `grid_anchors`."""
    B, _, h, w = maps.shape
    return maps.unflatten(1, (-1, columns)).permute(0, 3, 4, 1, 2).reshape(B, -1, columns)


def _checked(outputs: Mapping[str, Any]) -> list[Tensor]:
    """The anchors of each level of outputs that fit each other."""
    check_keys("outputs", outputs, KEYS)
    check_maps("outputs", outputs, logits="B A K", deltas="B A 4")
    logits, anchors, sizes = outputs["logits"], outputs["anchors"], outputs["sizes"]
    count = sum(len(level) for level in anchors)
    if count != logits.shape[1]:
        raise ValueError(f"outputs['anchors'] has {count} boxes, expected {logits.shape[1]}, as outputs['logits']")
    if len(sizes) != len(logits):
        raise ValueError(f"outputs['sizes'] has {len(sizes)} pairs, expected one for each of {len(logits)} images")
    return list(anchors)
