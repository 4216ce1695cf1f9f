"""FCOS: no anchors: every place inside an object says how far the four sides of its box are.

Paper: Tian, Shen, Chen, He, "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019, arXiv 1904.01355, with
    the changes of its journal version, arXiv 2006.09214: centre sampling, and centreness beside the box.
Idea: A detector can label places as a segmentation network labels pixels: a place gets a class and four distances, to
    the left, top, right and bottom side of its box. Which of several objects it means is mostly told by size, as each
    level of the pyramid has its range. Places near the edge of an object give bad boxes; one more number, the
    centreness, learns to say so and lowers their scores.
Simplified: nothing of the network. Where the paper and torchvision differ, this is torchvision's, whose weights fit:
    the comments beginning `Paper:` say where.
Shapes: images (B, 3, H, W) -> dict of `logits` (B, A, K), `distances` (B, A, 4), of at least 0 and in strides, and
    `centreness` (B, A), a logit, for the places of all levels one behind the other; `anchors`, a list of (A_l, 4), one
    a level: squares about the places, a stride wide; and `sizes`, B pairs (h, w). `postprocess`: the dict -> B dicts of
    `boxes` (N, 4), `labels` (N,) and `scores` (N,).
Quality: every stage, the detections, and the three losses with their gradients equal torchvision's at the same weights;
    a tiny one learns two drawn scenes (its tests). From scratch on `shapes`: box AP50 at least 0.90 over three seeds,
    24 CPU-s.
Course: 12-one-stage
Lab: 12_one_stage
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from segedu.backbones.fpn import FPN, LevelsP6P7
from segedu.backbones.resnet import resnet50
from segedu.layers.batch_norm import freeze_batch_norm
from segedu.layers.instance_targets import Size, check_targets
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.losses.boxes import generalized_iou_loss
from segedu.losses.focal import sigmoid_focal_loss
from segedu.losses.reduction import full_precision
from segedu.ops.anchors import BACKGROUND, grid_anchors
from segedu.ops.boxes import box_area, clip_boxes
from segedu.ops.nms import batched_nms
from segedu.validation.images import check_images, check_sizes
from segedu.validation.tensors import check_keys, check_maps, check_no_nan

STRIDES = (8, 16, 32, 64, 128)  # of P3 to P7
RADIUS = 1.5  # centre sampling: a place is at most so many strides from the middle of its box
RANGE = (4, 8)  # strides: the furthest side of a level's boxes; without an end for the finest and the coarsest level
PRIOR = 0.01  # what an untrained network says of every place and class
KEYS = ("logits", "distances", "centreness", "anchors", "sizes")


class ClassificationHead(nn.Module):
    """Four convolutions with group normalisation, and K scores for each place; the same weights on all levels.

    Args:
        channels: of the features, and in between.
        num_classes: K, with the background. Paper: no column for it; torchvision's weights have one that is
            never asked to be 1.
        groups: of the group normalisations.
        depth: number of convolutions.
    """

    def __init__(self, channels: int, num_classes: int, groups: int, depth: int) -> None:
        super().__init__()
        self.conv = _tower(channels, groups, depth)
        self.cls_logits = _conv(channels, num_classes)
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, features: Tensor) -> Tensor:
        return self.cls_logits(self.conv(features))


class RegressionHead(nn.Module):
    """Four convolutions of its own, four distances and the centreness for each place.

    Args:
        channels: of the features, and in between.
        groups: of the group normalisations.
        depth: number of convolutions.
    """

    def __init__(self, channels: int, groups: int, depth: int) -> None:
        super().__init__()
        self.conv = _tower(channels, groups, depth)
        self.bbox_reg, self.bbox_ctrness = _conv(channels, 4), _conv(channels, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tower = self.conv(features)
        # Paper: exp(s x), s learnt for each level. Journal version and torchvision: strides, and never below 0.
        return self.bbox_reg(tower).relu(), self.bbox_ctrness(tower), tower


class FCOS(nn.Module):
    """A feature pyramid and the two heads; keys as torchvision's.

    Args:
        backbone: gives one feature map a level, all with the same channels.
        num_classes: K, with the background.
        strides: for each level the side of its squares: the unit of its distances and ranges.
        offset: where in its square of pixels a place lies. Paper: 0.5, the middle; torchvision: 0, the corner.
        groups: of the group normalisations in the heads.
        depth: convolutions of each head.
    """

    def __init__(
        self,
        backbone: FPN,
        num_classes: int,
        strides: Sequence[float] = STRIDES,
        offset: float = 0.0,
        groups: int = 32,
        depth: int = 4,
    ) -> None:
        super().__init__()
        levels, channels = len(backbone.channels), backbone.channels[0]
        if len(strides) != levels or min(strides) <= 0:
            raise ValueError(f"strides is {tuple(strides)}, expected a number above 0 for each of {levels} levels")
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}, expected at least 2: the background and a class")
        self.backbone, self.strides, self.offset = backbone, tuple(strides), offset
        self.head = nn.ModuleDict(
            {
                "classification_head": ClassificationHead(channels, num_classes, groups, depth),
                "regression_head": RegressionHead(channels, groups, depth),
            }
        )

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> dict[str, Any]:
        check_images(images, self.backbone.body.in_channels)
        return onnx_outputs(self.detect(self.backbone(images), images, sizes)[0])

    def detect(
        self, features: Sequence[Tensor], images: Tensor, sizes: Sequence[Size] | None = None
    ) -> tuple[dict[str, Any], list[Tensor]]:
        """What the heads say of the features of a pyramid.

        Args:
            features: of each level.
            images: (B, C, H, W), that they come from; only the size is looked at.
            sizes: B pairs (h, w), the part of each image that is image; None: all of it.

        Returns:
            The outputs of `forward`, and of each level what goes into the last convolutions of the regression.
        """
        logits = [self.head["classification_head"](level) for level in features]
        distances, centreness, towers = zip(*map(self.head["regression_head"], features), strict=True)
        anchors = [self._anchors(level, images, side) for level, side in zip(features, self.strides, strict=True)]
        outputs = {"logits": by_place(logits), "distances": by_place(distances)}
        outputs |= {"centreness": by_place(centreness)[..., 0], "anchors": anchors}
        return {**outputs, "sizes": check_sizes(sizes, images)}, list(towers)

    def _anchors(self, features: Tensor, images: Tensor, side: float) -> Tensor:
        """(A_l, 4) of one level."""
        (H, W), (h, w) = images.shape[-2:], features.shape[-2:]
        down, right = H // h, W // w  # as torchvision: the stride, but where a level is rounded up
        half = side / 2
        square = full_precision(features[:0]).new_tensor([[-half, -half, half, half]])
        return grid_anchors(square + self.offset * square.new_tensor([right, down] * 2), (h, w), (down, right))


def fcos_resnet50_fpn(num_classes: int = 91, **options: Any) -> FCOS:
    """torchvision's network on ResNet-50; the normalisations are frozen, as when its weights were trained.

    Args:
        num_classes: K, with the background; 91 for COCO.
        **options: of `FCOS`.

    Returns:
        The network with random weights.
    """
    body = freeze_batch_norm(resnet50(normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD)))
    fpn = FPN(body, levels=(2, 3, 4), extra=LevelsP6P7(256, 256, from_features=False))
    return FCOS(fpn, num_classes, **options)


def encode_distances(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Distances of the middle of each square from the sides of its box, in sides of the square.

    Args:
        boxes: (N, 4).
        anchors: (N, 4), squares.

    Returns:
        (N, 4): left, top, right, bottom; negative where the middle is outside.

    >>> encode_distances(torch.tensor([[0.0, 2.0, 12.0, 6.0]]), torch.tensor([[0.0, 0.0, 8.0, 8.0]]))
    tensor([[0.5000, 0.2500, 1.0000, 0.2500]])
    """
    centre, side = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    return torch.cat([(centre - boxes[:, :2]) / side, (boxes[:, 2:] - centre) / side], dim=1)


def decode_distances(distances: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of `encode_distances`.

    Args:
        distances: (N, 4) of at least 0.
        anchors: (N, 4), squares.

    Returns:
        (N, 4) boxes.
    """
    centre, side = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    return torch.cat([centre - distances[:, :2] * side, centre + distances[:, 2:] * side], dim=1)


def centreness_of(distances: Tensor) -> Tensor:
    """How near the middle of its box a place is: equation 3.

    Args:
        distances: (N, 4): left, top, right, bottom, above 0.

    Returns:
        (N,): 1 in the middle, towards 0 at a side.

    >>> centreness_of(torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 4.0, 2.0]]))
    tensor([1.0000, 0.5000])
    """
    across, down = distances[:, [0, 2]], distances[:, [1, 3]]
    return (across.amin(1) / across.amax(1) * (down.amin(1) / down.amax(1))).sqrt()


def match_places(boxes: Tensor, anchors: Sequence[Tensor], radius: float = RADIUS) -> Tensor:
    """Which object each place answers for.

    A place answers for an object if it lies inside its box, near its middle, and its furthest side is in the range of
    the level: 4 to 8 strides, for the finest level from 0 on, for the coarsest without end. Of several the smallest.

    Args:
        boxes: (N, 4) true boxes.
        anchors: for each level (A_l, 4) squares.
        radius: how far from the middle, in strides, along each axis. Paper: besides, in a square cut at the box.

    Returns:
        (A,) int64: the row of the object, or -1.
    """
    squares = torch.cat(list(anchors))
    if not len(boxes):
        return torch.full((len(squares),), BACKGROUND, dtype=torch.int64, device=squares.device)
    place, side = (squares[:, None, :2] + squares[:, None, 2:]) / 2, (squares[:, 2:] - squares[:, :2])[:, :1]  # (A, 1)
    near = (place - (boxes[:, :2] + boxes[:, 2:]) / 2).abs().amax(-1) < radius * side  # (A, N)
    sides = torch.cat([place - boxes[:, :2], boxes[:, 2:] - place], dim=-1)  # (A, N, 4)
    low, high = RANGE[0] * side, RANGE[1] * side  # (A, 1)
    low[: len(anchors[0])], high[len(squares) - len(anchors[-1]) :] = 0, math.inf
    furthest = sides.amax(-1)
    fits = near & (sides.amin(-1) > 0) & (furthest > low) & (furthest < high)
    area, row = torch.where(fits, box_area(boxes), math.inf).min(dim=1)
    return torch.where(area < math.inf, row, BACKGROUND)


def fcos_loss(
    outputs: Mapping[str, Any], targets: Sequence[Mapping[str, Tensor]], radius: float = RADIUS
) -> dict[str, Tensor]:
    """Focal loss of all places; generalised IoU and centreness of those that answer for an object.

    All are summed over the places of the batch and divided by how many of them answer for an object (at least 1).

    Args:
        outputs: of `FCOS`.
        targets: B dicts of `boxes` (N, 4) and `labels` (N,) from 1 to K - 1; N may be 0.
        radius: of `match_places`.

    Returns:
        Scalars `classification`, `boxes`, `centreness` and `loss`, their sum.

    Raises:
        TypeError: outputs or targets are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, a box has no area, or a label is not 1 to K - 1.
    """
    anchors = _checked(outputs)
    targets = check_targets(targets, outputs["sizes"], outputs["logits"].shape[-1])
    squares, total, sums = torch.cat(anchors), 0, []
    for b, target in enumerate(targets):
        logits, distances, centreness = (full_precision(outputs[key][b]) for key in KEYS[:3])
        boxes = target["boxes"].to(squares)
        matches = match_places(boxes, anchors, radius)
        positive = torch.nonzero(matches >= 0).flatten()
        rows = matches[positive]
        total += len(rows)
        wanted = torch.zeros_like(logits)  # (A, K)
        wanted[positive, target["labels"][rows]] = 1
        focal = sigmoid_focal_loss(logits, wanted, ignore_index=None, reduction="sum")
        # Paper: -log IoU. Journal version and torchvision: 1 - GIoU
        found = decode_distances(distances[positive], squares[positive])
        box = generalized_iou_loss(found, boxes[rows], reduction="sum")
        middle = centreness_of(encode_distances(boxes[rows], squares[positive]))
        sums.append([focal, box, binary_cross_entropy_with_logits(centreness[positive], middle, reduction="sum")])
    classification, box, centreness = (torch.stack(parts).sum() / max(total, 1) for parts in zip(*sums, strict=True))
    loss = classification + box + centreness
    return {"classification": classification, "boxes": box, "centreness": centreness, "loss": loss}


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Any],
    *,
    score_threshold: float = 0.2,
    iou_threshold: float = 0.6,
    candidates: int = 1000,
    max_detections: int = 100,
) -> list[dict[str, Tensor]]:
    """The best scores of each level, their boxes, and of boxes of a class that overlap the best.

    The score is the root of class times centreness: a place off the middle loses against one in it.

    Args:
        outputs: of `FCOS`.
        score_threshold: scores that are not above it are dropped.
        iou_threshold: a box with a larger IoU with a better one of its class is dropped.
        candidates: how many scores of a level are looked at.
        max_detections: how many boxes of an image are kept.

    Returns:
        For each image `boxes` (N, 4), within the image, `labels` (N,), `scores` (N,) and `places` (N,), rows of the
        places they come from, best first.

    Raises:
        TypeError: outputs are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, or a number is NaN.
    """
    anchors = _checked(outputs)
    check_no_nan("outputs", outputs, KEYS[:3])
    counts, found = [len(level) for level in anchors], []
    for b, size in enumerate(outputs["sizes"]):
        logits, distances, centreness = (full_precision(outputs[key][b]) for key in KEYS[:3])
        scores = (logits.sigmoid() * centreness.sigmoid()[:, None]).sqrt()
        parts, start = [], 0
        for level in scores.split(counts):
            above = torch.nonzero(level.flatten() > score_threshold).flatten()
            best, order = level.flatten()[above].topk(min(candidates, len(above)))
            place, label = above[order] // level.shape[1], above[order] % level.shape[1]
            parts.append((best, label, place + start))
            start += len(level)
        scores, labels, places = (torch.cat(part) for part in zip(*parts, strict=True))
        boxes = clip_boxes(decode_distances(distances[places], torch.cat(anchors)[places]), size)
        keep = batched_nms(boxes, scores, labels, iou_threshold)[:max_detections]
        kept = {"boxes": boxes, "labels": labels, "scores": scores, "places": places}
        found.append({key: value[keep] for key, value in kept.items()})
    return found


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    nn.init.normal_(convolution.weight, std=0.01)
    nn.init.zeros_(convolution.bias)
    return convolution


def _tower(channels: int, groups: int, depth: int) -> nn.Sequential:
    blocks = [(_conv(channels, channels), nn.GroupNorm(groups, channels), nn.ReLU()) for _ in range(depth)]
    return nn.Sequential(*(layer for block in blocks for layer in block))


def by_place(maps: Sequence[Tensor]) -> Tensor:
    """What heads say of all places, level by level, row by row.

    Args:
        maps: for each level (B, C, h, w).

    Returns:
        (B, A, C).
    """
    return torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)


def _checked(outputs: Mapping[str, Any]) -> list[Tensor]:
    """The anchors of each level of outputs that fit each other."""
    check_keys("outputs", outputs, KEYS)
    check_maps("outputs", outputs, logits="B A K", distances="B A 4", centreness="B A")
    anchors, (batch, places) = list(outputs["anchors"]), outputs["centreness"].shape
    if (count := sum(map(len, anchors))) != places:
        raise ValueError(f"outputs['anchors'] has {count} squares, expected {places}, as outputs['logits']")
    if len(outputs["sizes"]) != batch:
        raise ValueError(f"outputs['sizes'] has {len(outputs['sizes'])} pairs, expected one for each of {batch} images")
    return anchors
