"""Mask R-CNN: Faster R-CNN with a third branch, which predicts the pixels of the object in each box.

Paper: He, Gkioxari, Dollár, Girshick, "Mask R-CNN", ICCV 2017, arXiv 1703.06870.
Idea: A small convolutional head predicts a mask of 28x28 for each class in each box. Classes do not compete: the mask
    loss uses only the mask of the ground-truth class, and the box head decides the class. RoIAlign pools without
    rounding, because a mask that is shifted by half a cell is a bad mask.
Simplified: only what is simplified in Faster R-CNN.
Shapes: as Faster R-CNN, and `instances`, for each image a dict of the `boxes` and `labels` that get a mask, with
    `mask_logits` (M, K, 28, 28). With targets these are the positive proposals; without, the detections, and
    the dicts have `scores`. `postprocess`: the dict -> B dicts of `boxes`, `labels`, `scores`, `masks` (N, H, W).
    A program exported by `torch.export` or ONNX has a fixed number of instances: those after the last detection have
    score 0, and `postprocess` drops them.
Quality: mask logits, the mask loss and its gradient, and detections equal torchvision's with the same weights; fits
    four synthetic scenes (its tests). Masks are pasted at the centres of pixels; torchvision rounds boxes first. From
    scratch on `shapes`: mask AP50 at least 0.84 over three seeds, 104 CPU-s. `shapes_mask_rcnn` are small weights of
    our own.
Course: 14-top-down
Lab: 14_top_down
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.detection import faster_rcnn
from segedu.detection.faster_rcnn import (
    RPN,
    ConvolutionalHead,
    FasterRCNN,
    Targets,
    faster_rcnn_loss,
    resnet50_fpn,
)
from segedu.layers.instance_targets import Size, check_targets
from segedu.losses.reduction import full_precision
from segedu.ops.boxes import box_iou
from segedu.ops.masks import paste_masks
from segedu.ops.roi_align import roi_align
from segedu.validation.images import check_sizes
from segedu.validation.tensors import check_keys

KEYS = (*faster_rcnn.KEYS, "instances", "mask_logits")


class MaskHead(nn.Sequential):
    """Four 3x3 convolutions on the pooled features of a box.

    Args:
        channels: C of the features, and width of the convolutions.
        size: height and width of the pooled grid; masks are twice as large.
        depth: number of convolutions.
        batch_norm: batch normalisation instead of biases, as in version 2 of torchvision. Paper: no.
    """

    def __init__(self, channels: int, size: int = 14, depth: int = 4, batch_norm: bool = False) -> None:
        super().__init__()
        for _ in range(depth):
            conv = nn.Conv2d(channels, channels, 3, padding=1, bias=not batch_norm)
            norm = [nn.BatchNorm2d(channels)] if batch_norm else []
            self.append(nn.Sequential(conv, *norm, nn.ReLU()))
        self.size, self.channels = size, channels
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.zeros_(layer.bias)


class MaskPredictor(nn.Module):
    """A transposed convolution that doubles the size, then one mask for each class.

    Args:
        channels: of the mask head.
        num_classes: K, with the background.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv5_mask = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        self.mask_fcn_logits = nn.Conv2d(channels, num_classes, kernel_size=1)
        for layer in (self.conv5_mask, self.mask_fcn_logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.mask_fcn_logits(self.conv5_mask(features).relu())  # (M, K, 28, 28)


class MaskRCNN(FasterRCNN):
    """Faster R-CNN with a mask branch; state-dict keys are torchvision's.

    Args:
        backbone: as in `FasterRCNN`.
        num_classes: K, with the background.
        mask_head: pooled features (M, C, size, size) -> (M, D, size, size), with `size` and `channels`; None:
            `MaskHead`.
        detection_options: options of Faster R-CNN's `postprocess`, which selects the detections that get a mask.
        **options: of `FasterRCNN`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        mask_head: nn.Module | None = None,
        detection_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, num_classes, **options)
        mask_head = MaskHead(backbone.channels[0]) if mask_head is None else mask_head
        self.detection_options = dict(detection_options or {})
        self.roi_heads["mask_head"] = mask_head
        self.roi_heads["mask_predictor"] = MaskPredictor(mask_head.channels, num_classes)

    def forward(
        self,
        images: Tensor,
        sizes: Sequence[Size] | None = None,
        targets: Targets | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Any]:
        sizes = check_sizes(sizes, images)
        outputs = super().forward(images, sizes, targets, generator)
        # in training both branches use the same proposals; at test time masks are predicted for the detected boxes
        if targets is None:
            instances = faster_rcnn.postprocess({**outputs, "sizes": sizes}, **self.detection_options)
        else:
            targets = check_targets(targets, sizes, self.num_classes, masks=True)
            instances = [positive_proposals(*pair) for pair in zip(outputs["proposals"], targets, strict=True)]
        head = self.roi_heads["mask_head"]
        pooled = self.pool(outputs["features"], [instance["boxes"] for instance in instances], head.size)
        return outputs | {"instances": instances, "mask_logits": self.roi_heads["mask_predictor"](head(pooled))}


def positive_proposals(proposals: Tensor, target: Mapping[str, Tensor], positive_iou: float = 0.5) -> dict[str, Tensor]:
    """The proposals (P, 4) of one image that overlap an object with IoU `positive_iou` or more.

    Args:
        proposals: (P, 4) of one image.
        target: its `boxes` (N, 4) and `labels` (N,).
        positive_iou: smallest IoU.

    Returns:
        `boxes` (M, 4) and the `labels` (M,) of their objects.
    """
    best, rows = _best_match(proposals, target)
    positive = best >= positive_iou
    return {"boxes": proposals[positive], "labels": target["labels"].to(rows.device)[rows[positive]]}


def _best_match(boxes: Tensor, target: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """IoU of each box with the object that it overlaps most, and the object's index; zeros if there is no object."""
    if not len(target["boxes"]):
        return boxes.new_zeros(len(boxes)), torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    best_iou = box_iou(target["boxes"].to(boxes), boxes).max(dim=0)
    return best_iou.values, best_iou.indices


def mask_targets(boxes: Tensor, target: Mapping[str, Tensor], size: int) -> Tensor:
    """The target mask of each box: RoIAlign of the ground-truth mask of the object that it overlaps most.

    Args:
        boxes: (M, 4) of one image.
        target: its `boxes` and `masks` (N, H, W) bool; N is at least 1 if M is.
        size: of the masks.

    Returns:
        (M, size, size) in [0, 1], in the dtype of the boxes: pixels on an edge have values in between.
    """
    if not len(boxes):
        return boxes.new_zeros(0, size, size)
    rows = _best_match(boxes, target)[1]
    # RoIAlign sees each ground-truth mask as an image
    mask_boxes = [boxes[rows == i] for i in range(len(target["masks"]))]
    crops = roi_align(target["masks"][:, None].to(boxes), mask_boxes, (size, size))[:, 0]
    return crops[rows.argsort(stable=True).argsort()]


def mask_rcnn_loss(
    outputs: Mapping[str, Any], targets: Targets, *, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """The loss of Faster R-CNN, and binary cross-entropy of the masks of the ground-truth classes.

    Args:
        outputs: of the network, called with these targets.
        targets: B dicts with `boxes`, `labels` and `masks`.
        generator: samples the anchors that count; None for torch's own.

    Returns:
        Scalars `objectness`, `anchor_box`, `classes`, `box`, `mask`, and `loss`, their sum. `mask` is the mean over
        the pixels of all masks, 0 if there is none.
    """
    check_keys("outputs", outputs, KEYS)
    logits = full_precision(outputs["mask_logits"])
    targets = check_targets(targets, outputs["sizes"], logits.shape[1], masks=True)
    losses = faster_rcnn_loss(outputs, targets, generator=generator)
    total = losses.pop("loss")
    pairs = list(zip(outputs["instances"], targets, strict=True))
    gt_masks = torch.cat([mask_targets(instance["boxes"], target, logits.shape[-1]) for instance, target in pairs])
    labels = torch.cat([instance["labels"] for instance in outputs["instances"]])
    class_logits = logits[torch.arange(len(labels), device=labels.device), labels]  # (M, 28, 28)
    entropy = F.binary_cross_entropy_with_logits(class_logits, gt_masks.to(class_logits), reduction="sum")
    mask = entropy / max(class_logits.numel(), 1)
    return {**losses, "mask": mask, "loss": total + mask}


def postprocess(
    outputs: Mapping[str, Any], *, score_threshold: float = 0.0, mask_threshold: float = 0.5
) -> list[dict[str, Tensor]]:
    """Detections with their masks: the channel of the predicted class, pasted into its box.

    Args:
        outputs: of the network without targets.
        score_threshold: detections have a score above this; the network has already dropped those below its own.
        mask_threshold: pixels with a larger probability belong to the object.

    Returns:
        B dicts of `boxes` (N, 4), `labels` (N,), `scores` (N,) and `masks` (N, h, w) bool, sorted by score; h and w are
        the size of the image without padding.

    Raises:
        ValueError: the outputs were made with targets: their boxes are proposals, not detections.
    """
    check_keys("outputs", outputs, KEYS)
    if any("scores" not in instance for instance in outputs["instances"]):
        raise ValueError("outputs['instances'] has no scores, expected the outputs of a call without targets")
    probability = class_masks(outputs)
    results, counts = [], [len(instance["boxes"]) for instance in outputs["instances"]]
    for instance, masks, size in zip(outputs["instances"], probability.split(counts), outputs["sizes"], strict=True):
        keep = torch.nonzero(instance["scores"] > score_threshold).flatten()
        # one at a time, because the probabilities of a hundred masks of a large image take half a gigabyte
        pasted = [paste_masks(masks[i, None], instance["boxes"][i, None], size) > mask_threshold for i in keep.tolist()]
        detections = {key: value[keep] for key, value in instance.items()}
        detections["masks"] = torch.cat([*pasted, masks.new_zeros(0, *size, dtype=torch.bool)])
        results.append(detections)
    return results


def class_masks(outputs: Mapping[str, Any]) -> Tensor:
    """The mask of the predicted class of each instance: probabilities (M, 28, 28), without a gradient."""
    labels = torch.cat([instance["labels"] for instance in outputs["instances"]])
    logits = full_precision(outputs["mask_logits"].detach())
    return logits[torch.arange(len(labels), device=labels.device), labels].sigmoid()


def mask_rcnn_resnet50_fpn(num_classes: int = 91, *, eps: float = 0.0, **options: Any) -> MaskRCNN:
    """torchvision's network `maskrcnn_resnet50_fpn` with random weights.

    Args:
        num_classes: K, with the background; 91 for COCO.
        eps: of `resnet50_fpn`.
        **options: of `MaskRCNN`.
    """
    return MaskRCNN(resnet50_fpn(eps), num_classes, **options)


def mask_rcnn_resnet50_fpn_v2(num_classes: int = 91, **options: Any) -> MaskRCNN:
    """torchvision's network `maskrcnn_resnet50_fpn_v2` with random weights.

    Args:
        num_classes: K, with the background; 91 for COCO.
        **options: of `MaskRCNN`.
    """
    parts = {"rpn": RPN(256, depth=2), "head": ConvolutionalHead(256), "mask_head": MaskHead(256, batch_norm=True)}
    return MaskRCNN(resnet50_fpn(None), num_classes, **{**parts, **options})
