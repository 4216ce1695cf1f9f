"""Faster R-CNN: the network proposes its own boxes, and a feature pyramid pools each box at the scale that fits it.

Paper: Ren, He, Girshick, Sun, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
    NIPS 2015, arXiv 1506.01497. On a pyramid: Lin, Dollár, Girshick, He, Hariharan, Belongie, "Feature Pyramid Networks
    for Object Detection", CVPR 2017, arXiv 1612.03144. Its pooling, RoIAlign: He et al., arXiv 1703.06870.
Idea: A small convolution slides over the features and predicts for each anchor whether it contains an object, and how
    to move the anchor onto it. The best of these boxes are the proposals of a Fast R-CNN on the same features, so
    proposals add little computation. In a pyramid, small boxes are pooled from fine levels and large boxes from coarse
    levels.
Simplified: both parts are trained jointly, without a gradient through the coordinates of proposals (the paper
    alternates). Anchors that cross the border of the image are kept, as in torchvision.
Shapes: images (B, 3, H, W) -> dict of the heads `objectness` (B, A), `anchor_deltas` (B, A, 4), `class_logits` (P, K),
    `deltas` (P, K, 4), and of `anchors`, a list of (A_l, 4), `proposals`, `sizes` and `features`. `postprocess`: the
    dict -> B dicts of `boxes`, `labels` and `scores`.
    A program exported by `torch.export` or ONNX has `counts[1]` proposals for each image; if fewer remain after
    non-maximum suppression, the last rows of `proposals` are 0, and their `class_logits` predict the background.
Quality: features, heads, proposals, detections and losses with gradients equal torchvision's at the same weights. From
    scratch on `shapes`: box AP50 at least 0.90 over three seeds, 46 CPU-seconds of training.
Course: 11-detection
Lab: 11_detection
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.resnet import resnet50
from segedu.detection.fast_rcnn import BoxPredictor, TwoLayerHead, fast_rcnn_loss
from segedu.detection.fast_rcnn import postprocess as postprocess
from segedu.layers.batch_norm import freeze_batch_norm
from segedu.layers.best_boxes import best_proposals, drop_padding
from segedu.layers.instance_targets import Size, check_targets
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.layers.proposals import Sampling, Targets, sample_proposals
from segedu.layers.roi_levels import pool_from_levels
from segedu.losses.reduction import full_precision
from segedu.losses.regression import smooth_l1_loss
from segedu.ops.anchors import cell_anchors, decode_boxes, encode_boxes, grid_anchors, match_anchors, sample_matches
from segedu.ops.boxes import box_iou, clip_boxes
from segedu.ops.crowds import without_crowds
from segedu.validation.images import check_sizes
from segedu.validation.numbers import check_length
from segedu.validation.tensors import check_keys

KEYS = ("objectness", "anchor_deltas", "anchors", "class_logits", "deltas", "proposals", "sizes")
SIZES = (32, 64, 128, 256, 512)  # anchor sizes in pixels, one per level
RATIOS = (0.5, 1.0, 2.0)
PROPOSAL_SAMPLING = Sampling(count=512, positive_fraction=0.25, positive_iou=0.5)  # FPN's; the paper, on one level: 64
ANCHOR_SAMPLING = Sampling(count=256, positive_fraction=0.5, positive_iou=0.7, negative_iou=0.3)
MIN_SIZE = 1e-3  # shortest side of a proposal, in pixels
BETA = 1 / 9  # where smooth L1 changes from quadratic to linear


class RPNHead(nn.Module):
    """3x3 convolutions, then one objectness logit and four deltas for each anchor.

    Args:
        channels: C of every level.
        num_anchors: number of anchors at each location.
        depth: number of 3x3 convolutions.
    """

    def __init__(self, channels: int, num_anchors: int, depth: int = 1) -> None:
        super().__init__()
        convolutions = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth))
        self.conv = nn.Sequential(*(nn.Sequential(conv, nn.ReLU()) for conv in convolutions))
        self.cls_logits = nn.Conv2d(channels, num_anchors, kernel_size=1)
        self.bbox_pred = nn.Conv2d(channels, 4 * num_anchors, kernel_size=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        objectness, deltas = [], []
        for level in features:
            x = self.conv(level)
            # (B, A, H, W) -> (B, H * W * A): location by location, row by row, as in `grid_anchors`
            objectness.append(self.cls_logits(x).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.bbox_pred(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4))
        return torch.cat(objectness, 1), torch.cat(deltas, 1)  # (B, A), (B, A, 4) with A over all levels


class RPN(nn.Module):
    """The region proposal network: anchors on every level, with objectness and deltas.

    Args:
        channels: C of every level.
        sizes: for each level the size of its anchors in pixels, or a sequence of sizes.
        ratios: height over width of the anchors, the same on all levels.
        depth: number of convolutions in `RPNHead`.
    """

    def __init__(
        self,
        channels: int,
        sizes: Sequence[float | Sequence[float]] = SIZES,
        ratios: Sequence[float] = RATIOS,
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.sizes = tuple(tuple(size) if isinstance(size, Sequence) else (size,) for size in sizes)
        self.ratios = tuple(ratios)
        if len({len(size) for size in self.sizes}) != 1:
            raise ValueError(
                f"sizes is {tuple(sizes)}, expected the same number of sizes on every level: all levels share one head"
            )
        self.head = RPNHead(channels, len(self.sizes[0]) * len(self.ratios), depth)

    def anchors(self, features: Sequence[Tensor], size: Size) -> list[Tensor]:
        """The anchors (h * w * A, 4) of each level, xyxy.

        Args:
            features: (B, C, h, w) of each level.
            size: (H, W) of the batch.
        """
        check_length("features", features, len(self.sizes), of="level of anchors")
        anchors = []
        for level, sizes in zip(features, self.sizes, strict=True):
            h, w = level.shape[-2:]
            base_anchors = cell_anchors(sizes, self.ratios, rounded=True).to(level)
            # Paper: uses the stride of the level. torchvision divides sizes, which gives less if a level is rounded up.
            anchors.append(grid_anchors(base_anchors, (h, w), (size[0] // h, size[1] // w)))
        return anchors

    def forward(self, features: Sequence[Tensor], size: Size) -> dict[str, Any]:
        objectness, deltas = self.head(features)
        return {"objectness": objectness, "anchor_deltas": deltas, "anchors": self.anchors(features, size)}


@torch.no_grad()
def propose(
    outputs: Mapping[str, Any], sizes: Sequence[Size], max_proposals: int = 1000, iou_threshold: float = 0.7
) -> list[Tensor]:
    """Convert outputs to proposals: the most confident boxes per level, then non-maximum suppression in each level.

    Args:
        outputs: outputs of `RPN`.
        sizes: (h, w) of each image.
        max_proposals: maximum number of boxes per level before non-maximum suppression, and per image after it.
        iou_threshold: IoU threshold of non-maximum suppression.

    Returns:
        B tensors of boxes (P_i, 4) clipped to their images, highest objectness first.
    """
    levels = [len(anchors) for anchors in outputs["anchors"]]
    boxes = decode_boxes(full_precision(outputs["anchor_deltas"]), torch.cat(list(outputs["anchors"])))  # (B, A, 4)
    index = torch.arange(sum(levels), device=boxes.device).split(levels)
    proposals, topk_per_level = [], [min(max_proposals, n) for n in levels]
    for box, logits, size in zip(boxes, full_precision(outputs["objectness"]), sizes, strict=True):
        parts = zip(index, logits.split(levels), topk_per_level, strict=True)
        rows = torch.cat([level_rows[level_logits.topk(k).indices] for level_rows, level_logits, k in parts])
        box, score = clip_boxes(box[rows], size), logits[rows].sigmoid()
        proposals.append(best_proposals(box, score, topk_per_level, iou_threshold, max_proposals, MIN_SIZE))
    return proposals


class ConvolutionalHead(nn.Sequential):
    """Four 3x3 convolutions and one fully connected layer: torchvision's version 2 (Li et al. 2021, arXiv 2111.11429).

    Args:
        channels: C of the features and of the convolutions.
        size: height and width of the pooled grid.
        hidden: width of the fully connected layer.
        depth: number of convolutions.
    """

    def __init__(self, channels: int, size: int = 7, hidden: int = 1024, depth: int = 4) -> None:
        convolutions = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(depth))
        blocks = (nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU()) for conv in convolutions)
        super().__init__(*blocks, nn.Flatten(), nn.Linear(channels * size**2, hidden), nn.ReLU())
        self.size, self.channels = size, hidden


class FasterRCNN(nn.Module):
    """Feature pyramid, region proposal network, and a head applied to each proposal; state dict keys as in torchvision.

    Args:
        backbone: such as `FPN`: images -> levels fine to coarse, with `channels` and `strides`. The last level,
            `PoolLevel`, only has large anchors; no proposal is pooled from it.
        num_classes: K, including the background.
        rpn: the region proposal network; None for `RPN` with the paper's anchors.
        head: pooled features (P, C, size, size) -> (P, D), with `size` and `channels`; None for `TwoLayerHead` with
            1024 channels.
        sampling: how proposals are sampled if targets are given.
        max_proposals: maximum numbers of proposals per image: the first when targets are given, the second without
            targets.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        rpn: RPN | None = None,
        head: nn.Module | None = None,
        sampling: Sampling = PROPOSAL_SAMPLING,
        max_proposals: tuple[int, int] = (2000, 1000),
    ) -> None:
        super().__init__()
        self.num_classes, self.sampling, self.max_proposals = num_classes, sampling, max_proposals
        self.backbone, channels = backbone, backbone.channels[0]
        self.rpn = RPN(channels) if rpn is None else rpn
        head = TwoLayerHead(channels, size=7, hidden=1024) if head is None else head
        self.roi_heads = nn.ModuleDict({"box_head": head, "box_predictor": BoxPredictor(head.channels, num_classes)})

    def forward(
        self,
        images: Tensor,
        sizes: Sequence[Size] | None = None,
        targets: Targets | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Any]:
        features = self.backbone(images)
        sizes = check_sizes(sizes, images)
        outputs = self.rpn(features, images.shape[-2:])
        if targets is None:
            proposals = propose(outputs, sizes, self.max_proposals[1])
        else:
            targets = check_targets(targets, sizes, self.num_classes)
            proposals = propose(outputs, sizes, self.max_proposals[0])
            proposals = sample_proposals(proposals, targets, self.sampling, generator)
        head, predictor = self.roi_heads["box_head"], self.roi_heads["box_predictor"]
        class_logits, deltas = predictor(head(self.pool(features, proposals, head.size)))
        outputs |= {"class_logits": drop_padding(class_logits, proposals), "deltas": deltas, "proposals": proposals}
        return onnx_outputs(outputs | {"sizes": sizes, "features": features})

    def pool(self, features: Sequence[Tensor], boxes: Sequence[Tensor], output_size: int) -> Tensor:
        """Features (P, C, output_size, output_size) of B tensors of boxes (P_i, 4), from all levels but the last."""
        return pool_from_levels(features, boxes, output_size, self.backbone.strides[:-1])


def faster_rcnn_loss(
    outputs: Mapping[str, Any], targets: Targets, *, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Losses of the region proposal network, and the loss of Fast R-CNN on the proposals.

    Args:
        outputs: outputs of the network when it was called with these targets.
        targets: B dicts with `boxes` and `labels`.
        generator: random number generator for sampling anchors; None for torch's default generator.

    Returns:
        Scalars `objectness`, `anchor_box`, `classes` and `box`, and their sum `loss`.
    """
    check_keys("outputs", outputs, KEYS)
    head_losses, rpn_losses = fast_rcnn_loss(outputs, targets, beta=BETA), rpn_loss(outputs, targets, generator)
    return {**rpn_losses, **head_losses, "loss": sum(rpn_losses.values()) + head_losses["loss"]}


def rpn_loss(
    outputs: Mapping[str, Any],
    targets: Targets,
    generator: torch.Generator | None = None,
    sampling: Sampling = ANCHOR_SAMPLING,
) -> dict[str, Tensor]:
    """Equation 1: means over the sampled anchors of the whole batch. Only positive anchors have a box loss.

    Args:
        outputs: outputs of `RPN`.
        targets: B dicts with `boxes`.
        generator: random number generator for sampling anchors.
        sampling: how many per image, and which IoU makes an anchor positive (`positive_iou`) or negative (below
            `negative_iou`).

    Returns:
        Scalars `objectness` (binary cross-entropy) and `anchor_box` (smooth L1).
    """
    anchors = torch.cat(list(outputs["anchors"]))
    logits, labels, preds, target_deltas = [], [], [], []
    pairs = zip(full_precision(outputs["objectness"]), full_precision(outputs["anchor_deltas"]), targets, strict=True)
    for objectness, deltas, target in pairs:
        gt_boxes = without_crowds(target)["boxes"].to(anchors)
        matches = match_anchors(
            box_iou(gt_boxes, anchors), sampling.negative_iou, sampling.positive_iou, force_best=True
        )
        positive, negative = sample_matches(matches, sampling.count, sampling.positive_fraction, generator)
        logits += [objectness[positive], objectness[negative]]
        labels += [torch.ones_like(logits[-2]), torch.zeros_like(logits[-1])]
        preds.append(deltas[positive])
        target_deltas.append(encode_boxes(gt_boxes[matches[positive]], anchors[positive]).to(deltas))
    logits, preds, target_deltas = torch.cat(logits), torch.cat(preds), torch.cat(target_deltas)
    count = max(len(logits), 1)
    objectness = F.binary_cross_entropy_with_logits(logits, torch.cat(labels), reduction="sum") / count
    box = preds.sum() * 0
    if len(preds):
        box = smooth_l1_loss(preds, target_deltas, beta=BETA, reduction="sum") / count
    return {"objectness": objectness, "anchor_box": box}


def normalize_pyramid(backbone: FPN) -> FPN:
    """Replace the biases of a pyramid's convolutions by batch normalisation after them, in place."""
    for block in (*backbone.fpn.inner_blocks, *backbone.fpn.layer_blocks):
        block[0].register_parameter("bias", None)
        block.append(nn.BatchNorm2d(block[0].out_channels))
    return backbone


def resnet50_fpn(eps: float | None = 0.0) -> FPN:
    """ResNet-50 with a feature pyramid of 256 channels and one pooled level.

    Args:
        eps: eps of the frozen batch normalisation. torchvision's weights for COCO need 0, those for ImageNet 1e-5. With
            None, batch normalisation is not frozen, and the pyramid has it too, as in torchvision's version 2.
    """
    body = resnet50(normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    if eps is None:
        return normalize_pyramid(FPN(body, 256, extra=PoolLevel()))
    return FPN(freeze_batch_norm(body, eps), 256, extra=PoolLevel())


def faster_rcnn_resnet50_fpn(num_classes: int = 91, *, eps: float = 0.0, **options: Any) -> FasterRCNN:
    """torchvision's network `fasterrcnn_resnet50_fpn`.

    Args:
        num_classes: K, including the background; 91 for COCO.
        eps: as in `resnet50_fpn`.
        **options: arguments of `FasterRCNN`.
    """
    return FasterRCNN(resnet50_fpn(eps), num_classes, **options)


def faster_rcnn_resnet50_fpn_v2(num_classes: int = 91, **options: Any) -> FasterRCNN:
    """torchvision's network `fasterrcnn_resnet50_fpn_v2`: an RPN with two convolutions, and `ConvolutionalHead`."""
    parts = {"rpn": RPN(256, depth=2), "head": ConvolutionalHead(256), **options}
    return FasterRCNN(resnet50_fpn(None), num_classes, **parts)
