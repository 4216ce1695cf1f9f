"""YOLO11 with masks: each location of three grids predicts a class, distances to a box's sides, and mask coefficients.

Paper: none by the authors (Jocher, Qiu, "Ultralytics YOLO11", 2024, documentation); `segedu.backbones.yolo11` lists
    the sources. The parts have papers: anchor-free detection (Tian et al. 2019, FCOS, arXiv 1904.01355),
    distances as distributions (Li et al. 2020, generalised focal loss, arXiv 2006.04388), assignment of locations to
    objects (Feng et al. 2021, TOOD, arXiv 2108.07755), prototypes (Bolya et al. 2019, YOLACT, arXiv 1904.02689).
Idea: A location predicts each distance as a distribution over 0 to 15 strides, and the box uses its mean: the spread
    expresses uncertainty. An object is assigned to the locations that already predict it best, by class and by box. A
    mask is a sum of 32 prototypes that all objects share, with coefficients predicted at each location, cropped to the
    box.
Simplified: the loss is written from the papers above and the documented weights; in details it differs from that of
    the authors' program. No augmentation, no averaging of weights. The project ships no weights of the authors: theirs
    are under AGPL-3.0, which demands more of its users than this library does. `keys_of_ultralytics` in
    `segedu.backbones.yolo11` renames the weights that you supply as a plain state dict.
Shapes: images (B, 3, H, W) of any size, padded inside to multiples of 32 -> dict of `box_logits` (B, A, 4, 16),
    `class_logits` (B, A, K - 1), `coefficients` (B, A, 32), `prototypes` (B, 32, H' / 4, W' / 4), `points` (A, 2) as x
    and y, `strides` (A,), `image_size` (H', W') with the padding, and `sizes`. `postprocess`: the dict -> B dicts of
    `boxes`, `labels` from 1 to K - 1, `scores` and `masks`.
Quality: with the same random weights, features and prototypes of all five sizes equal those of the authors' program
    8.4.190 to 1e-9 in float64, heads and decoded boxes to 1e-6; its losses are within 2.5 % of ours (an optional test,
    in an environment of its own). Distances, assignment and loss equal worked examples; a small network overfits one
    batch.
Course: 14-top-down
Lab: 14_top_down
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.yolo11 import SCALES, ConvBlock, YOLO11Pyramid
from segedu.layers.instance_targets import Size, check_targets, resize_masks
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.losses.boxes import complete_iou_loss
from segedu.losses.reduction import full_precision
from segedu.ops.boxes import box_iou, clip_boxes
from segedu.ops.nms import batched_nms
from segedu.validation.images import check_images, check_sizes
from segedu.validation.numbers import check_choice, check_integers
from segedu.validation.tensors import check_keys, check_no_nan, check_tensor_dict

PADDING_VALUE = 114 / 255  # of the padding, as documented
PRIOR = 0.01  # of every class, before training (RetinaNet, section 4.1)
AXES = {
    "box_logits": "B A 4 R",
    "class_logits": "B A K",
    "coefficients": "B A P",
    "prototypes": "B P H W",
    "points": "A 2",
    "strides": "A",
}


class YOLO11Seg(nn.Module):
    """Pyramid, a head of three branches on each level, and the prototypes.

    Args:
        pyramid: returns features; has `in_channels`, `channels` and `strides`.
        num_classes: K, with the background: labels are 1..K - 1, and there are K - 1 columns of class logits.
        prototype_width: channels inside the prototype branch.
        num_prototypes: P, the number of prototypes.
        bins: R, distances in strides from 0 to R - 1.
    """

    def __init__(
        self,
        pyramid: nn.Module,
        num_classes: int = 81,
        prototype_width: int = 64,
        num_prototypes: int = 32,
        bins: int = 16,
    ) -> None:
        super().__init__()
        check_integers(2, num_classes=num_classes, bins=bins)
        check_integers(1, prototype_width=prototype_width, num_prototypes=num_prototypes)
        self.pyramid, self.bins = pyramid, bins
        fine, classes = pyramid.channels[0], num_classes - 1
        box_width = max(16, fine // 4, 4 * bins)
        class_width, mask_width = max(fine, min(classes, 100)), max(fine // 4, num_prototypes)
        self.boxes = nn.ModuleList(_branch(c, box_width, 4 * bins) for c in pyramid.channels)
        self.classes = nn.ModuleList(_light_branch(c, class_width, classes) for c in pyramid.channels)
        self.coefficients = nn.ModuleList(_branch(c, mask_width, num_prototypes) for c in pyramid.channels)
        self.prototypes = nn.Sequential(
            ConvBlock(fine, prototype_width, 3),
            nn.ConvTranspose2d(prototype_width, prototype_width, kernel_size=2, stride=2),
            ConvBlock(prototype_width, prototype_width, 3),
            ConvBlock(prototype_width, num_prototypes),
        )
        for branch in self.classes:  # otherwise the many negatives dominate the first iterations
            nn.init.constant_(branch[-1].bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> dict[str, Any]:
        check_images(images, self.pyramid.in_channels)
        sizes = check_sizes(sizes, images)
        coarsest = self.pyramid.strides[-1]
        right, below = (-images.shape[axis] % coarsest for axis in (-1, -2))
        images = F.pad(images, (0, right, 0, below), value=PADDING_VALUE)
        features = self.pyramid(images)

        def predict(branches: nn.ModuleList) -> Tensor:
            maps = [branch(level) for branch, level in zip(branches, features, strict=True)]
            return torch.cat([m.flatten(2) for m in maps], dim=2).mT  # (B, A, C), fine to coarse, row by row

        points, strides = _locations(features, self.pyramid.strides)
        outputs = {
            "box_logits": predict(self.boxes).unflatten(2, (4, self.bins)),
            "class_logits": predict(self.classes),
            "coefficients": predict(self.coefficients),
            "prototypes": self.prototypes(features[0]),
            "points": points,
            "strides": strides,
            "image_size": tuple(images.shape[-2:]),
            "sizes": sizes,
        }
        return onnx_outputs(outputs)


def _branch(in_channels: int, width: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        ConvBlock(in_channels, width, 3), ConvBlock(width, width, 3), nn.Conv2d(width, out_channels, kernel_size=1)
    )


def _light_branch(in_channels: int, width: int, out_channels: int) -> nn.Sequential:
    """As `_branch`, but each 3x3 convolution is depthwise, with a 1x1 convolution after it."""
    return nn.Sequential(
        nn.Sequential(ConvBlock(in_channels, in_channels, 3, groups=in_channels), ConvBlock(in_channels, width)),
        nn.Sequential(ConvBlock(width, width, 3, groups=width), ConvBlock(width, width)),
        nn.Conv2d(width, out_channels, kernel_size=1),
    )


def _locations(features: Sequence[Tensor], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The centre of each location in pixels (A, 2), x before y, and its stride (A,)."""
    points, point_strides = [], []
    for level, stride in zip(features, strides, strict=True):
        # not in bfloat16, which cannot represent 1028
        rows, columns = (torch.arange(n).to(full_precision(level[:0])) + 0.5 for n in level.shape[-2:])
        points.append(torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1) * stride)
        point_strides.append(points[-1].new_full((len(points[-1]),), stride))
    return torch.cat(points), torch.cat(point_strides)


def yolo11_seg(scale: str = "n", num_classes: int = 81) -> YOLO11Seg:
    """One of the five documented networks, with random weights.

    Args:
        scale: "n", "s", "m", "l" or "x".
        num_classes: K, with the background; the documented ones have 80 classes of objects.
    """
    check_choice("scale", scale, SCALES)
    return YOLO11Seg(YOLO11Pyramid(SCALES[scale]), num_classes, SCALES[scale].channels(256))


def decode_distances(box_logits: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Boxes of locations: each distance is the mean of its distribution, in strides.

    Args:
        box_logits: (..., A, 4, R), of left, top, right and bottom.
        points: (A, 2).
        strides: (A,).

    Returns:
        (..., A, 4), xyxy pixels.

    >>> box_logits = torch.tensor([[0.0, 9, 0], [9, 0, 0], [0, 0, 9], [9, 0, 9]]) * 9
    >>> decode_distances(box_logits[None], torch.tensor([[20.0, 20.0]]), torch.tensor([8.0]))
    tensor([[12., 20., 36., 28.]])
    """
    bins = torch.arange(box_logits.shape[-1]).to(box_logits)
    distances = (box_logits.softmax(dim=-1) @ bins) * strides[:, None]  # (..., A, 4)
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def distribution_focal_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Cross-entropy with the two integers next to a distance, each weighted by how near it is.

    Args:
        logits: (..., R).
        distances: (...), in [0, R - 1]; larger ones are clamped to almost R - 1.

    Returns:
        (...).

    >>> distribution_focal_loss(torch.tensor([[0.0, 2.0, 0.0, 0.0]]), torch.tensor([1.25]))
    tensor([0.8408])
    """
    distances = distances.clamp(0, logits.shape[-1] - 1 - 0.01)
    lower = distances.floor()
    log_p = logits.log_softmax(dim=-1)
    log_p_lower, log_p_upper = (log_p.gather(-1, n.long()[..., None])[..., 0] for n in (lower, lower + 1))
    return -((lower + 1 - distances) * log_p_lower + (distances - lower) * log_p_upper)


@torch.no_grad()
def assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    target: Mapping[str, Tensor],
    *,
    topk: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> tuple[Tensor, Tensor]:
    """Assign objects to locations: TOOD, section 3.2, with YOLO11's three parameters.

    Of the locations within an object's box, the `topk` ones with the largest t = score^alpha IoU^beta are assigned to
    it, where score is that of its class. A location chosen by several objects goes to the one with the largest IoU.
    Paper: a box that contains no location takes the nearest one, otherwise the smallest objects would never be learned.

    Args:
        scores: (A, K - 1) probabilities.
        boxes: (A, 4), the predicted boxes.
        points: (A, 2).
        target: `boxes` (N, 4) and `labels` (N,).
        topk: number of locations per object.
        alpha: exponent of the score.
        beta: exponent of the IoU.

    Returns:
        (A,) int64 the object of each location, -1 for none; (A,) its target score: t as a share of the object's
        largest, times the object's largest IoU. 0 without an object.
    """
    gt_boxes, labels = target["boxes"].to(boxes), target["labels"]
    if not len(gt_boxes):
        return points.new_full((len(points),), -1, dtype=torch.int64), boxes.new_zeros(len(points))
    sides = torch.cat([points - gt_boxes[:, None, :2], gt_boxes[:, None, 2:] - points], dim=-1)  # (N, A, 4)
    inside = (sides > 0).all(dim=-1)
    centres = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
    nearest = F.one_hot(torch.cdist(centres, points).argmin(dim=1), len(points)).bool()
    inside = torch.where(inside.any(dim=1, keepdim=True), inside, nearest)
    iou = box_iou(gt_boxes, boxes).to(scores)  # (N, A)
    t = scores[:, labels - 1].mT ** alpha * iou**beta
    best = torch.where(inside, t, -1).topk(min(topk, len(points)), dim=1).indices
    chosen = torch.zeros_like(inside).scatter_(1, best, True) & inside
    owner = torch.where(chosen.any(dim=0), torch.where(chosen, iou, -1).argmax(dim=0), -1)  # (A,)
    is_owner = owner == torch.arange(len(gt_boxes), device=owner.device)[:, None]
    max_t, max_iou = ((values * is_owner).amax(dim=1, keepdim=True) for values in (t, iou))
    return owner, (is_owner * t / max_t.clamp(min=torch.finfo(t.dtype).tiny) * max_iou).sum(dim=0)


def yolo11_seg_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    box_weight: float = 7.5,
    class_weight: float = 0.5,
    distance_weight: float = 1.5,
    mask_weight: float = 7.5,
) -> dict[str, Tensor]:
    """Boxes, classes and distances weighted by the target scores of their locations, and masks; over the whole batch.

    Args:
        outputs: of `YOLO11Seg`.
        targets: B dicts of `boxes`, `labels` and `masks` (N, h, w), (h, w) as in `sizes`; N may be 0.
        box_weight: of 1 - CIoU, as documented.
        class_weight: of the binary cross-entropy of all locations and classes, as documented.
        distance_weight: of the distribution focal loss, the mean over the sides, as documented.
        mask_weight: of the binary cross-entropy of mask pixels within the ground-truth box, the mean over pixels and
            locations.

    Returns:
        Scalars `box`, `class`, `distance` and `mask`, weighted, and `loss`, their sum. The first three are sums divided
        by that of the target scores, at least 1. Without objects all but `class` are 0.
    """
    outputs = _full_precision_outputs(outputs)
    logits, points, strides = outputs["class_logits"], outputs["points"], outputs["strides"]
    targets = check_targets(targets, outputs["sizes"], logits.shape[-1] + 1, masks=True)
    boxes = decode_distances(outputs["box_logits"], points, strides)
    sums = dict.fromkeys(("box", "class", "distance", "mask"), 0 * outputs["prototypes"].sum())
    score_sum, positives = 0.0, 0
    for i, target in enumerate(targets):
        owner, target_scores = assign(logits[i].detach().sigmoid(), boxes[i].detach(), points, target)
        positive = (owner >= 0).nonzero().flatten()
        owner, quality = owner[positive], target_scores[positive]
        gt_boxes = target["boxes"].to(boxes)[owner]
        classes = torch.zeros_like(logits[i])
        classes[positive, target["labels"][owner] - 1] = quality
        sums["class"] = sums["class"] + F.binary_cross_entropy_with_logits(logits[i], classes, reduction="sum")
        sums["box"] = sums["box"] + (complete_iou_loss(boxes[i, positive], gt_boxes, reduction="none") * quality).sum()
        sides = (
            torch.cat([points[positive] - gt_boxes[:, :2], gt_boxes[:, 2:] - points[positive]], dim=1)
            / strides[positive, None]
        )
        distance = distribution_focal_loss(outputs["box_logits"][i, positive], sides).mean(dim=1)
        sums["distance"] = sums["distance"] + (distance * quality).sum()
        sums["mask"] = sums["mask"] + _mask_loss(outputs, i, positive, owner, target)
        score_sum, positives = score_sum + quality.sum(), positives + len(positive)
    scale = 1 / torch.as_tensor(score_sum).clamp(min=1)
    losses = {
        "box": box_weight * scale * sums["box"],
        "class": class_weight * scale * sums["class"],
        "distance": distance_weight * scale * sums["distance"],
        "mask": mask_weight * sums["mask"] / max(positives, 1),
    }
    return losses | {"loss": sum(losses.values())}


def _mask_loss(
    outputs: Mapping[str, Any], i: int, positive: Tensor, owner: Tensor, target: Mapping[str, Tensor]
) -> Tensor:
    """Sum over locations of the mean cross-entropy within the ground-truth box (YOLACT crops there too)."""
    prototypes = outputs["prototypes"][i]
    masks = resize_masks(target["masks"], outputs["image_size"], prototypes.shape[-2:]).to(prototypes)
    logits = mix_masks(outputs["coefficients"][i, positive], prototypes)  # (P, h, w)
    inside = _inside_boxes(target["boxes"].to(prototypes), outputs["image_size"], prototypes.shape[-2:]).to(prototypes)[
        owner
    ]
    pixels = F.binary_cross_entropy_with_logits(logits, masks[owner], weight=inside, reduction="none")
    return (pixels.sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)).sum()


def mix_masks(coefficients: Tensor, prototypes: Tensor) -> Tensor:
    """Logits of masks (N, h, w): prototypes (P, h, w) weighted by coefficients (N, P)."""
    return torch.einsum("np,phw->nhw", coefficients, prototypes)


def _inside_boxes(boxes: Tensor, image_size: Size, size: Size) -> Tensor:
    """(N, *size) bool: whether the centre of a pixel lies in the box, where `size` pixels cover the image."""
    y, x = ((torch.arange(n).to(boxes) + 0.5) * (length / n) for n, length in zip(size, image_size, strict=True))
    x1, y1, x2, y2 = boxes[:, :, None].unbind(dim=1)  # (N, 1) each
    return ((y > y1) & (y < y2))[:, :, None] & ((x > x1) & (x < x2))[:, None, :]


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Any], score_threshold: float = 0.25, iou_threshold: float = 0.7, max_detections: int = 300
) -> list[dict[str, Tensor]]:
    """The best class of each location, non-maximum suppression within each class, and the masks of the remaining boxes.

    Args:
        outputs: of `YOLO11Seg`.
        score_threshold: of the class; this and the next two as documented.
        iou_threshold: of the suppression.
        max_detections: maximum number of objects per image.

    Returns:
        B dicts of `boxes` (N, 4) clipped to the image, `labels` (N,), `scores` (N,) and `masks` (N, h, w) bool within
        the boxes, best first; (h, w) as in `sizes`.
    """
    outputs = _full_precision_outputs(outputs)
    all_boxes = decode_distances(outputs["box_logits"], outputs["points"], outputs["strides"])
    results = []
    for i, (h, w) in enumerate(outputs["sizes"]):
        boxes = clip_boxes(all_boxes[i], (h, w))
        scores, labels = outputs["class_logits"][i].sigmoid().max(dim=-1)
        candidates = ((boxes[:, 2:] > boxes[:, :2]).all(dim=1) & (scores > score_threshold)).nonzero().flatten()
        keep = candidates[
            batched_nms(boxes[candidates], scores[candidates], labels[candidates], iou_threshold)[:max_detections]
        ]
        masks = [torch.zeros(0, h, w, dtype=torch.bool, device=boxes.device)]
        for part in keep.split(32):  # logits of 300 masks of a large image would take much memory
            logits = mix_masks(outputs["coefficients"][i, part], outputs["prototypes"][i])[:, None]
            logits = F.interpolate(logits, size=outputs["image_size"], mode="bilinear", align_corners=False)[
                :, 0, :h, :w
            ]
            masks.append((logits > 0) & _inside_boxes(boxes[part], (h, w), (h, w)))
        detections = {
            "boxes": boxes[keep],
            "labels": labels[keep] + 1,
            "scores": scores[keep],
            "masks": torch.cat(masks),
        }
        results.append(detections)
    return results


def _full_precision_outputs(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs in full precision."""
    check_keys("outputs", outputs, (*AXES, "image_size", "sizes"))
    check_tensor_dict("outputs", outputs, **AXES)
    check_no_nan("outputs", outputs, tuple(AXES))
    return {**outputs, **{key: full_precision(outputs[key]) for key in AXES}}
