"""FCOS: no anchors; every location inside an object predicts the distances to the four sides of its box.

Paper: Tian, Shen, Chen, He, "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019, arXiv 1904.01355, with
    the changes of its journal version, arXiv 2006.09214: centre sampling, and centreness beside the box.
Idea: A detector can label locations as a segmentation network labels pixels: each location gets a class and four
    distances, to the left, top, right and bottom side of its box. If a location lies in several objects, their size
    usually decides between them, because each level of the pyramid is responsible for a range of sizes. Locations near
    the border of an object predict poor boxes, so one more output, the centreness, learns to lower their scores.
Simplified: nothing in the network. Where the paper and torchvision differ, the code follows torchvision, so that
    torchvision's weights can be loaded. Comments that begin with `Paper:` mark these differences.
Shapes: images (B, 3, H, W) -> dict of `logits` (B, A, K), `distances` (B, A, 4), at least 0 and in strides, and
    `centreness` (B, A), a logit, for the A locations of all levels, concatenated; `anchors`, a list of (A_l, 4), one
    per level: squares around the locations, one stride wide; and `sizes`, B pairs (h, w). `postprocess`: the dict -> B
    dicts of `boxes` (N, 4), `labels` (N,) and `scores` (N,).
Quality: every stage, the detections, and the three losses with their gradients equal torchvision's at the same weights;
    a tiny FCOS learns two synthetic scenes (tests/detection). From scratch on `shapes`: box AP50 at least 0.90 over
    three seeds, 24 CPU-seconds of training.
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
from segedu.validation.numbers import check_integer, check_length, check_number
from segedu.validation.tensors import check_keys, check_no_nan, check_tensor_dict

STRIDES = (8, 16, 32, 64, 128)  # strides of levels P3 to P7
RADIUS = 1.5  # centre sampling: largest distance of a location from the centre of its box, in strides
RANGE = (4, 8)  # strides: range of the distance to the furthest side; open for the finest and the coarsest level
PRIOR = 0.01  # probability that an untrained network predicts for every location and class
KEYS = ("logits", "distances", "centreness", "anchors", "sizes")


class ClassificationHead(nn.Module):
    """Four convolutions with group normalisation, and K logits for each location; all levels share the weights.

    Args:
        channels: C of the features and of the convolutions.
        num_classes: K, including the background. Paper: has no channel for the background; torchvision's weights have
            one, whose target is always 0.
        groups: number of groups of the group normalisations.
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
    """Four convolutions of its own, then four distances and the centreness of each location.

    Args:
        channels: C of the features and of the convolutions.
        groups: number of groups of the group normalisations.
        depth: number of convolutions.
    """

    def __init__(self, channels: int, groups: int, depth: int) -> None:
        super().__init__()
        self.conv = _tower(channels, groups, depth)
        self.bbox_reg, self.bbox_ctrness = _conv(channels, 4), _conv(channels, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tower = self.conv(features)
        # Paper: exp(s x), with s learned for each level. Journal version and torchvision: ReLU, in units of strides.
        return self.bbox_reg(tower).relu(), self.bbox_ctrness(tower), tower


class FCOS(nn.Module):
    """A feature pyramid and the two heads; state dict keys as in torchvision.

    Args:
        backbone: images -> one feature map per level, all with the same number of channels.
        num_classes: K, including the background.
        strides: for each level the side of its squares, which is the unit of its distances and ranges.
        offset: position of a location in its square of pixels. Paper: 0.5, the centre; torchvision: 0, the corner.
        groups: number of groups of the group normalisations in the heads.
        depth: number of convolutions in each head.
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
        check_integer("num_classes", num_classes, minimum=2)
        check_length("strides", strides, len(backbone.channels), of="level")
        for stride in strides:
            check_number("strides", stride, exclusive=True)
        channels = backbone.channels[0]
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
        """Apply the heads to the features of a pyramid.

        Args:
            features: features of each level.
            images: (B, C, H, W) that the features were computed from.
            sizes: B pairs (h, w), the size of each image without its padding; None means that no image is padded.

        Returns:
            The outputs of `forward`, and for each level the input of the last convolutions of the regression head.
        """
        logits = [self.head["classification_head"](level) for level in features]
        distances, centreness, towers = zip(*map(self.head["regression_head"], features), strict=True)
        anchors = [self._anchors(level, images, stride) for level, stride in zip(features, self.strides, strict=True)]
        outputs = {"logits": concat_levels(logits), "distances": concat_levels(distances)}
        outputs |= {"centreness": concat_levels(centreness)[..., 0], "anchors": anchors}
        return {**outputs, "sizes": check_sizes(sizes, images)}, list(towers)

    def _anchors(self, features: Tensor, images: Tensor, stride: float) -> Tensor:
        """The anchors (A_l, 4) of one level."""
        (H, W), (h, w) = images.shape[-2:], features.shape[-2:]
        down, right = H // h, W // w  # as torchvision: equal to the stride unless a level is rounded up
        half = stride / 2
        square = full_precision(features[:0]).new_tensor([[-half, -half, half, half]])
        return grid_anchors(square + self.offset * square.new_tensor([right, down] * 2), (h, w), (down, right))


def fcos_resnet50_fpn(num_classes: int = 91, **options: Any) -> FCOS:
    """torchvision's network with ResNet-50. Its batch normalisation is frozen, as in the training of its weights.

    Args:
        num_classes: K, including the background; 91 for COCO.
        **options: arguments of `FCOS`.
    """
    body = freeze_batch_norm(resnet50(normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD)))
    fpn = FPN(body, levels=(2, 3, 4), extra=LevelsP6P7(256, 256, from_features=False))
    return FCOS(fpn, num_classes, **options)


def encode_distances(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Distances from the centre of each square to the sides of its box, in sides of the square.

    Args:
        boxes: (N, 4).
        anchors: (N, 4), squares.

    Returns:
        (N, 4): left, top, right, bottom; negative where the centre is outside the box.

    >>> encode_distances(torch.tensor([[0.0, 2.0, 12.0, 6.0]]), torch.tensor([[0.0, 0.0, 8.0, 8.0]]))
    tensor([[0.5000, 0.2500, 1.0000, 0.2500]])
    """
    centre, side = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    return torch.cat([(centre - boxes[:, :2]) / side, (boxes[:, 2:] - centre) / side], dim=1)


def decode_distances(distances: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (N, 4) from distances (N, 4) of at least 0 and squares (N, 4): the inverse of `encode_distances`."""
    centre, side = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    return torch.cat([centre - distances[:, :2] * side, centre + distances[:, 2:] * side], dim=1)


def centreness_of(distances: Tensor) -> Tensor:
    """How close a location is to the centre of its box (equation 3).

    Args:
        distances: (N, 4): left, top, right, bottom, above 0.

    Returns:
        (N,): 1 at the centre, approaching 0 at a side.

    >>> centreness_of(torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 4.0, 2.0]]))
    tensor([1.0000, 0.5000])
    """
    across, down = distances[:, [0, 2]], distances[:, [1, 3]]
    return (across.amin(1) / across.amax(1) * (down.amin(1) / down.amax(1))).sqrt()


def match_locations(boxes: Tensor, anchors: Sequence[Tensor], radius: float = RADIUS) -> Tensor:
    """Assign each location to an object or to the background.

    A location is assigned to an object if it lies inside the object's box and near its centre, and the distance to the
    furthest side is in the range of the level: 4 to 8 strides, on the finest level from 0, on the coarsest level
    without upper limit. Of several objects, the smallest is chosen.

    Args:
        boxes: (N, 4) ground-truth boxes.
        anchors: for each level (A_l, 4) squares.
        radius: largest distance from the centre along each axis, in strides. Paper: also clips this square to the box.

    Returns:
        (A,) int64: the row of the object, or -1.
    """
    squares = torch.cat(list(anchors))
    if not len(boxes):
        return torch.full((len(squares),), BACKGROUND, dtype=torch.int64, device=squares.device)
    location = (squares[:, None, :2] + squares[:, None, 2:]) / 2  # (A, 1, 2)
    side = (squares[:, 2:] - squares[:, :2])[:, :1]  # (A, 1)
    near = (location - (boxes[:, :2] + boxes[:, 2:]) / 2).abs().amax(-1) < radius * side  # (A, N)
    sides = torch.cat([location - boxes[:, :2], boxes[:, 2:] - location], dim=-1)  # (A, N, 4)
    lower, upper = RANGE[0] * side, RANGE[1] * side  # (A, 1)
    lower[: len(anchors[0])], upper[len(squares) - len(anchors[-1]) :] = 0, math.inf
    furthest = sides.amax(-1)
    is_assigned = near & (sides.amin(-1) > 0) & (furthest > lower) & (furthest < upper)
    area, row = torch.where(is_assigned, box_area(boxes), math.inf).min(dim=1)
    return torch.where(area < math.inf, row, BACKGROUND)


def fcos_loss(
    outputs: Mapping[str, Any], targets: Sequence[Mapping[str, Tensor]], radius: float = RADIUS
) -> dict[str, Tensor]:
    """Focal loss of all locations; generalised IoU and centreness losses of the positive locations.

    All losses are summed over the locations of the batch and divided by the number of positive locations (at least 1).

    Args:
        outputs: outputs of `FCOS`.
        targets: B dicts of `boxes` (N, 4) and `labels` (N,) from 1 to K - 1; N may be 0.
        radius: as in `match_locations`.

    Returns:
        Scalars `classification`, `boxes` and `centreness`, and their sum `loss`.
    """
    anchors = _check_outputs(outputs)
    targets = check_targets(targets, outputs["sizes"], outputs["logits"].shape[-1])
    squares, num_positive, sums = torch.cat(anchors), 0, []
    for b, target in enumerate(targets):
        logits, distances, centreness = (full_precision(outputs[key][b]) for key in KEYS[:3])
        gt_boxes = target["boxes"].to(squares)
        matches = match_locations(gt_boxes, anchors, radius)
        positive = torch.nonzero(matches >= 0).flatten()
        matched_idxs = matches[positive]
        num_positive += len(matched_idxs)
        gt_classes = torch.zeros_like(logits)  # (A, K), one-hot
        gt_classes[positive, target["labels"][matched_idxs]] = 1
        focal = sigmoid_focal_loss(logits, gt_classes, ignore_index=None, reduction="sum")
        # Paper: -log IoU. Journal version and torchvision: 1 - GIoU
        preds = decode_distances(distances[positive], squares[positive])
        box = generalized_iou_loss(preds, gt_boxes[matched_idxs], reduction="sum")
        gt_centreness = centreness_of(encode_distances(gt_boxes[matched_idxs], squares[positive]))
        centre = binary_cross_entropy_with_logits(centreness[positive], gt_centreness, reduction="sum")
        sums.append([focal, box, centre])
    count = max(num_positive, 1)
    classification, box, centreness = (torch.stack(parts).sum() / count for parts in zip(*sums, strict=True))
    loss = classification + box + centreness
    return {"classification": classification, "boxes": box, "centreness": centreness, "loss": loss}


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Any],
    *,
    score_threshold: float = 0.2,
    iou_threshold: float = 0.6,
    topk_candidates: int = 1000,
    max_detections: int = 100,
) -> list[dict[str, Tensor]]:
    """Convert outputs to detections: the highest scores per level, then non-maximum suppression within each class.

    The score is the square root of class probability times centreness, which favours locations near the centre.

    Args:
        outputs: outputs of `FCOS`.
        score_threshold: detections need a score above this.
        iou_threshold: a box is dropped if its IoU with a higher-scoring one of its class exceeds this.
        topk_candidates: maximum number of scores per level before non-maximum suppression.
        max_detections: maximum number of boxes per image.

    Returns:
        For each image `boxes` (N, 4), clipped to the image, `labels` (N,), `scores` (N,) and `locations` (N,), the
        index of the location that predicted each box; highest score first.
    """
    anchors = _check_outputs(outputs)
    check_no_nan("outputs", outputs, KEYS[:3])
    counts, detections = [len(level) for level in anchors], []
    for b, size in enumerate(outputs["sizes"]):
        logits, distances, centreness = (full_precision(outputs[key][b]) for key in KEYS[:3])
        scores = (logits.sigmoid() * centreness.sigmoid()[:, None]).sqrt()
        parts, offset = [], 0
        for level in scores.split(counts):
            above_threshold = torch.nonzero(level.flatten() > score_threshold).flatten()
            best, order = level.flatten()[above_threshold].topk(min(topk_candidates, len(above_threshold)))
            location, label = above_threshold[order] // level.shape[1], above_threshold[order] % level.shape[1]
            parts.append((best, label, location + offset))
            offset += len(level)
        scores, labels, locations = (torch.cat(part) for part in zip(*parts, strict=True))
        boxes = clip_boxes(decode_distances(distances[locations], torch.cat(anchors)[locations]), size)
        keep = batched_nms(boxes, scores, labels, iou_threshold)[:max_detections]
        image_detections = {"boxes": boxes, "labels": labels, "scores": scores, "locations": locations}
        detections.append({key: value[keep] for key, value in image_detections.items()})
    return detections


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    nn.init.normal_(convolution.weight, std=0.01)
    nn.init.zeros_(convolution.bias)
    return convolution


def _tower(channels: int, groups: int, depth: int) -> nn.Sequential:
    blocks = [(_conv(channels, channels), nn.GroupNorm(groups, channels), nn.ReLU()) for _ in range(depth)]
    return nn.Sequential(*(layer for block in blocks for layer in block))


def concat_levels(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate the outputs (B, C, h, w) of all levels to (B, A, C), row by row."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)


def _check_outputs(outputs: Mapping[str, Any]) -> list[Tensor]:
    """Check that the outputs of the heads match the anchors, and return the anchors of each level."""
    check_keys("outputs", outputs, KEYS)
    lengths = {"A": sum(len(level) for level in outputs["anchors"])}
    lengths = check_tensor_dict("outputs", outputs, lengths, logits="B A K", distances="B A 4", centreness="B A")
    check_length("outputs['sizes']", outputs["sizes"], lengths["B"], of="image")
    return list(outputs["anchors"])
