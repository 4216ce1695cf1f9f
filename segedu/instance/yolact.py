"""YOLACT: real-time instance masks, each a linear combination of prototypes that are computed once per image.

Paper: Bolya, Zhou, Xiao, Lee, "YOLACT: Real-time Instance Segmentation", ICCV 2019, arXiv 1904.02689.
Idea: One branch predicts k prototype masks for the whole image, which do not depend on objects. Besides class and box,
    each anchor predicts k coefficients from -1 to 1. The mask of an object is the sigmoid of the prototypes combined
    with its coefficients, one matrix product for all objects, cropped to the box. Fast NMS selects the boxes in one
    step, without a loop.
Simplified: only scores of an anchor and class above the threshold are kept; the authors keep all classes of an anchor
    that has one score above it. All positive anchors enter the mask loss, not 100 sampled ones; no crowds.
Shapes: images (B, 3, H, W), any H and W of at least 32 -> dict of `class_logits` (B, A, K), class 0 is background,
    `deltas` (B, A, 4), `coefficients` (B, A, k), `prototypes` (B, k, h, w), about H / 4 x W / 4, `semantic_logits`
    (B, K - 1, H / 8, W / 8), `anchors` (A, 4), `image_size` and `sizes`. `postprocess`: the dict -> B dicts of
    `boxes`, `labels` from 1 to K - 1, `scores` and `masks`.
Quality: Fast NMS and the cropping of masks equal mmdet 3.3.0's (a record), losses equal worked examples; outputs made
    from synthetic objects give the objects back; one batch of synthetic scenes is learnt (its tests). Not compared as a
    whole network: only its number of weights, 31.16 million, is that of the authors'. From scratch on `shapes`: mask
    AP50 at least 0.75 over three seeds, 43 CPU-s. `shapes_yolact` are its small weights.
Course: 14-top-down
Lab: 14_top_down
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.resnet import ResNet, resnet50
from segedu.layers.instance_targets import Size, check_targets, resize_masks
from segedu.layers.normalize import Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.ops.anchors import BACKGROUND, decode_boxes, encode_boxes, grid_anchors, match_anchors
from segedu.ops.boxes import box_iou, clip_boxes
from segedu.validation.images import check_images, check_sizes
from segedu.validation.numbers import check_integer
from segedu.validation.tensors import check_keys, check_no_nan

MEAN, STD = (123.68, 116.78, 103.94), (58.40, 57.12, 57.38)  # of red, green, blue in 0..255, as in the authors' code
SCALES = (24.0, 48.0, 96.0, 192.0, 384.0)  # pixels, for P3 to P7
RATIOS = (1.0, 0.5, 2.0)
WEIGHTS = (10, 10, 5, 5)  # of the deltas, as in SSD
NEGATIVE_IOU, POSITIVE_IOU = 0.4, 0.5  # anchors below the first are background, from the second on positive
NEG_TO_POS_RATIO = 3  # for each positive, the hardest
BOX_WEIGHT, MASK_WEIGHT = 1.5, 6.125
KEYS = ("class_logits", "deltas", "coefficients", "prototypes", "semantic_logits", "anchors", "image_size", "sizes")


def _resize(features: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)


class Pyramid(nn.Module):
    """FPN as the authors have it: bilinear upsampling, a ReLU on P3 to P5, and P6 and P7 by convolutions from P5.

    Args:
        in_channels: of C3 to C5.
        out_channels: of each level.
        extra: number of levels computed by convolutions of stride 2.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, extra: int = 2) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(n, out_channels, 1) for n in in_channels)
        self.smooth = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in in_channels)
        self.extra = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, 2, padding=1) for _ in range(extra))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        merged = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for i in reversed(range(len(merged) - 1)):
            merged[i] = merged[i] + _resize(merged[i + 1], merged[i].shape[-2:])
        levels = [smooth(x).relu() for smooth, x in zip(self.smooth, merged, strict=True)]
        for convolution in self.extra:
            levels.append(convolution(levels[-1]))
        return levels


def _protonet(width: int, num_prototypes: int) -> nn.Sequential:
    """Figure 3: three convolutions on P3, 2x upsampling, one more, and 1x1 to the prototypes; ReLU throughout."""
    convolutions = [nn.Conv2d(width, width, 3, padding=1) for _ in range(4)]
    layers = [layer for convolution in convolutions for layer in (convolution, nn.ReLU())]
    # the authors have another ReLU after the upsampling, which has no effect here; Identity keeps the numbering
    upsample = [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.Identity()]
    return nn.Sequential(*layers[:6], *upsample, *layers[6:], nn.Conv2d(width, num_prototypes, 1), nn.ReLU())


class YOLACT(nn.Module):
    """Prototypes, and a head that all levels of the pyramid share (figures 2 and 4).

    Args:
        backbone: such as `ResNet`; its last three features, C3 to C5, are used.
        num_classes: K, with the background.
        width: channels of the pyramid, the prototypes' branch and the head.
        num_prototypes: k.
        scales: of the anchors in pixels, for each level: three of the backbone and the extra ones.
        ratios: width over height, of the anchors at each position.
        use_square_anchors: True: an anchor of scale s and ratio r has two sides of s sqrt(r): an error in the authors'
            code with which their published weights were trained. False: s sqrt(r) wide and s / sqrt(r) high.
    """

    def __init__(
        self,
        backbone: ResNet,
        num_classes: int,
        width: int = 256,
        num_prototypes: int = 32,
        scales: Sequence[float] = SCALES,
        ratios: Sequence[float] = RATIOS,
        use_square_anchors: bool = True,
    ) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, minimum=2)
        if len(scales) < 3 or not len(ratios) or min(*scales, *ratios) <= 0:
            raise ValueError(
                f"scales and ratios are {tuple(scales)}, {tuple(ratios)}, expected at least 3 and 1, above 0"
            )
        self.backbone, self.num_classes = backbone, num_classes
        self.scales, self.ratios, self.use_square_anchors = tuple(scales), tuple(ratios), use_square_anchors
        self.pyramid = Pyramid(backbone.channels[-3:], width, len(scales) - 3)
        self.protonet = _protonet(width, num_prototypes)
        self.shared = nn.Conv2d(width, width, 3, padding=1)
        self.class_logits = nn.Conv2d(width, len(ratios) * num_classes, 3, padding=1)
        self.deltas = nn.Conv2d(width, len(ratios) * 4, 3, padding=1)
        self.coefficients = nn.Conv2d(width, len(ratios) * num_prototypes, 3, padding=1)
        self.semantic = nn.Conv2d(width, num_classes - 1, 1)
        for name, parameter in self.named_parameters():
            if not name.startswith("backbone."):
                nn.init.xavier_uniform_(parameter) if parameter.ndim == 4 else nn.init.zeros_(parameter)

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> dict[str, Any]:
        check_images(images, self.backbone.in_channels)
        sizes, image_size = check_sizes(sizes, images), tuple(images.shape[-2:])
        levels = self.pyramid(self.backbone(images)[-3:])
        shared = [self.shared(level).relu() for level in levels]
        heads = {"class_logits": self.class_logits, "deltas": self.deltas, "coefficients": self.coefficients}
        outputs = {}
        for name, head in heads.items():
            per_anchor = head.out_channels // len(self.ratios)
            maps = [head(x).permute(0, 2, 3, 1).reshape(len(images), -1, per_anchor) for x in shared]
            outputs[name] = torch.cat(maps, dim=1)  # (B, A, ...): level by level, row by row, anchor by anchor
        outputs["coefficients"] = outputs["coefficients"].tanh()  # so prototypes can also be subtracted
        outputs["prototypes"] = self.protonet(levels[0])
        outputs["semantic_logits"] = self.semantic(levels[0])
        anchors = [self._anchors(level, image_size, scale) for level, scale in zip(levels, self.scales, strict=True)]
        return onnx_outputs({**outputs, "anchors": torch.cat(anchors), "image_size": image_size, "sizes": sizes})

    def _anchors(self, level: Tensor, image_size: Size, scale: float) -> Tensor:
        """The anchors of a level, centred on its grid cells."""
        size = tuple(level.shape[-2:])
        strides = tuple(pixels / cells for pixels, cells in zip(image_size, size, strict=True))
        roots = level.new_tensor(self.ratios).sqrt()
        sides = (
            torch.stack([roots, roots if self.use_square_anchors else 1 / roots], dim=1) * scale
        )  # (R, 2): width, height
        middle = level.new_tensor([strides[1], strides[0]]) / 2
        return grid_anchors(torch.cat([middle - sides / 2, middle + sides / 2], dim=1), size, strides)


def yolact_resnet50(num_classes: int = 81, **options: Any) -> YOLACT:
    """The authors' network with 50 layers, with random weights, for images of 550 x 550.

    `keys_of_authors` renames their weights. They train with frozen batch normalisation in the backbone.

    Args:
        num_classes: K, with the background; COCO has 80 classes of objects.
        **options: of `YOLACT`.
    """
    mean, std = ([number / 255 for number in numbers] for numbers in (MEAN, STD))
    return YOLACT(resnet50(normalize=Normalize(mean, std)), num_classes, **options)


def assemble_masks(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """Logits of masks: M = P C^T of equation 1; the sigmoid comes after the sum.

    Args:
        prototypes: (k, h, w).
        coefficients: (N, k).

    Returns:
        (N, h, w).

    >>> assemble_masks(torch.tensor([[[2.0, 0.0]], [[2.0, 4.0]]]), torch.tensor([[1.0, -0.5]]))
    tensor([[[ 1., -2.]]])
    """
    return torch.einsum("khw,nk->nhw", prototypes, coefficients)


def inside_boxes(boxes: Tensor, size: Size, image_size: Size) -> Tensor:
    """Which pixels of masks at another resolution lie in boxes, enlarged by one pixel per side as in the authors' code.

    Args:
        boxes: (N, 4) pixels of the image.
        size: (h, w) of the masks.
        image_size: (H, W) of the image that the masks cover.

    Returns:
        (N, h, w) bool.

    >>> inside_boxes(torch.tensor([[8.0, 0.0, 12.0, 4.0]]), (1, 6), (4, 24)).int()
    tensor([[[0, 1, 1, 1, 0, 0]]], dtype=torch.int32)
    """
    masks = []
    for length, pixels, first in ((size[0], image_size[0], 1), (size[1], image_size[1], 0)):
        positions = torch.arange(length, device=boxes.device)
        start, end = (boxes[:, first + step, None] * (length / pixels) for step in (0, 2))
        masks.append((positions >= start - 1) & (positions < end + 1))  # Paper: cropped to the box itself
    return masks[0][:, :, None] & masks[1][:, None, :]


def fast_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, topk_candidates: int = 200) -> tuple[Tensor, Tensor]:
    """Fast NMS (section 4.1): a box is removed if it overlaps *any* better box of its class, removed or not.

    In ordinary NMS, a box that the first box suppresses cannot suppress a third one. Here it does; in exchange no loop
    is needed: the upper triangle of the matrix of IoUs, and the maximum of each column.

    Args:
        boxes: (A, 4).
        scores: (A, K - 1), of each class.
        iou_threshold: a box is removed if its IoU is above it.
        topk_candidates: maximum number of boxes of a class, the best ones.

    Returns:
        (n,) indices of boxes and (n,) of classes from 0 on, best score first.

    >>> chain = torch.tensor([[0.0, 0.0, 4.0, 1.0], [1.0, 0.0, 5.0, 1.0], [2.0, 0.0, 6.0, 1.0]])
    >>> fast_nms(chain, torch.tensor([[0.9], [0.8], [0.7]]), 0.5)[0]
    tensor([0])
    """
    scores, order = scores.T.sort(dim=1, descending=True, stable=True)  # (K - 1, A)
    scores, order = scores[:, :topk_candidates], order[:, :topk_candidates]
    iou = torch.stack([box_iou(boxes[row], boxes[row]) for row in order]).triu(1)  # (K - 1, n, n)
    label, rank = (iou.amax(dim=1) <= iou_threshold).nonzero().unbind(1) if iou.numel() else order.nonzero().unbind(1)
    best = scores[label, rank].argsort(descending=True, stable=True)
    return order[label, rank][best], label[best]


def yolact_loss(outputs: Mapping[str, Any], targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Losses of classes (with the hardest negatives), boxes, masks and the semantic map: sections 3.3 and 4.2.

    Args:
        outputs: of `YOLACT`.
        targets: B dicts of `boxes` (N, 4), `labels` (N,) from 1 to K - 1 and `masks` (N, h, w); N may be 0.

    Returns:
        Scalars `class`, `box` and `mask`, weighted sums over the anchors of the batch divided by the number of
        positive ones, `semantic`, a mean over pixels and images, and `loss`, their sum. Without an object in the
        batch all but `semantic` are 0, because the loss has three negatives for each positive.
    """
    check_keys("outputs", outputs, KEYS)
    targets = check_targets(targets, outputs["sizes"], outputs["class_logits"].shape[-1], masks=True)
    parts = {"class": [], "box": [], "mask": [], "semantic": []}
    positives = 0
    for b, target in enumerate(targets):
        logits, deltas, coefficients, prototypes, semantic = (outputs[key][b] for key in KEYS[:5])
        boxes, labels = target["boxes"].to(deltas), target["labels"]
        matches = match_anchors(box_iou(boxes, outputs["anchors"]), NEGATIVE_IOU, POSITIVE_IOU, force_best=True)
        positive, row = matches >= 0, matches[matches >= 0]
        positives += len(row)
        parts["class"].append(_class_loss(logits, matches, labels))
        target_deltas = encode_boxes(boxes[row], outputs["anchors"][positive], WEIGHTS)
        parts["box"].append(BOX_WEIGHT * F.smooth_l1_loss(deltas[positive], target_deltas, reduction="sum"))
        masks = resize_masks(target["masks"], outputs["image_size"], prototypes.shape[-2:])
        predicted = assemble_masks(prototypes, coefficients[positive])
        parts["mask"].append(MASK_WEIGHT * _mask_loss(predicted, masks[row], boxes[row], outputs["image_size"]))
        parts["semantic"].append(_semantic_loss(semantic, target, outputs["image_size"]) / len(targets))
    losses = {key: torch.stack(values).sum() for key, values in parts.items()}
    losses = {key: value if key == "semantic" else value / max(positives, 1) for key, value in losses.items()}
    return {**losses, "loss": torch.stack(list(losses.values())).sum()}


def _class_loss(logits: Tensor, matches: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of positives and of the hardest background anchors, three for each positive."""
    positive = matches >= 0
    target = torch.zeros_like(matches)
    target[positive] = labels[matches[positive]]
    loss = F.cross_entropy(logits, target, reduction="none")  # (A,)
    background = (matches == BACKGROUND).nonzero().flatten()
    hardest = loss[background].detach().argsort(descending=True, stable=True)[: NEG_TO_POS_RATIO * int(positive.sum())]
    return loss[positive].sum() + loss[background[hardest]].sum()


def _mask_loss(logits: Tensor, masks: Tensor, boxes: Tensor, image_size: Size) -> Tensor:
    """Sum over masks of the cross-entropy within the ground-truth box, divided by the area of the box."""
    size = tuple(logits.shape[-2:])
    loss = F.binary_cross_entropy_with_logits(logits, masks.to(logits), reduction="none")
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1) * (size[0] * size[1] / (image_size[0] * image_size[1]))
    return ((loss * inside_boxes(boxes, size, image_size)).flatten(1).sum(1) / area).sum()


def _semantic_loss(logits: Tensor, target: Mapping[str, Tensor], image_size: Size) -> Tensor:
    """Mean over pixels of the sum over classes; each class is binary, so that classes may overlap."""
    semantic_target = torch.zeros_like(logits)
    masks = resize_masks(target["masks"], image_size, logits.shape[-2:]).to(logits)
    for mask, label in zip(masks, target["labels"].tolist(), strict=True):
        semantic_target[label - 1] = torch.maximum(semantic_target[label - 1], mask)
    return F.binary_cross_entropy_with_logits(logits, semantic_target, reduction="none").sum(0).mean()


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Any],
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    mask_threshold: float = 0.5,
    *,
    topk_candidates: int = 200,
    max_detections: int = 100,
) -> list[dict[str, Tensor]]:
    """Objects of each image: Fast NMS, then masks, cropped to the predicted boxes, at the size of the image.

    Args:
        outputs: of `YOLACT`.
        score_threshold: of the probability of a class.
        iou_threshold: of Fast NMS.
        mask_threshold: of the pixels of a mask.
        topk_candidates: maximum number per class that enter Fast NMS.
        max_detections: maximum number of objects per image.

    Returns:
        B dicts of `boxes` (N, 4), `labels` (N,), `scores` (N,) and `masks` (N, h, w), best first; (h, w) as in `sizes`.
    """
    check_keys("outputs", outputs, KEYS)
    check_no_nan("outputs", outputs, KEYS[:4])
    results, image_size = [], outputs["image_size"]
    for b, size in enumerate(outputs["sizes"]):
        scores = outputs["class_logits"][b].softmax(-1)[:, 1:]  # (A, K - 1)
        candidates = (scores > score_threshold).any(1).nonzero().flatten()
        boxes = clip_boxes(
            decode_boxes(outputs["deltas"][b][candidates], outputs["anchors"][candidates], WEIGHTS), size
        )
        row, label = fast_nms(boxes, scores[candidates], iou_threshold, topk_candidates)
        keep = (scores[candidates][row, label] > score_threshold).nonzero().flatten()[:max_detections]
        row, label = row[keep], label[keep]
        boxes, scores = boxes[row], scores[candidates[row], label]
        prototypes = outputs["prototypes"][b]
        masks = assemble_masks(prototypes, outputs["coefficients"][b][candidates[row]]).sigmoid()
        masks = masks * inside_boxes(boxes, tuple(masks.shape[-2:]), image_size)
        resized = _resize(masks[:, None], image_size)[:, 0] if len(row) else masks.new_zeros(0, *image_size)
        masks = resized[:, : size[0], : size[1]] > mask_threshold
        results.append({"boxes": boxes, "labels": label + 1, "scores": scores, "masks": masks})
    return results


_LAYERS = {"proto_net": "protonet", "semantic_seg_conv": "semantic", "fpn.downsample_layers": "pyramid.extra"}
_HEAD = {"upfeature.0": "shared", "bbox_layer": "deltas", "conf_layer": "class_logits", "mask_layer": "coefficients"}


def keys_of_authors(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the authors' ResNet networks (yolact_resnet50, yolact_base) with the keys of `YOLACT`.

    The names are those of their source; the published files were not opened. Their pyramid is numbered from the
    coarsest level. Unknown keys stay as they are, so that a strict load reports them.
    """
    renamed = {}
    for key, value in state_dict.items():
        key = re.sub(r"^backbone\.layers\.(\d)\.", lambda match: f"backbone.layer{int(match[1]) + 1}.", key)
        key = re.sub(r"^fpn\.lat_layers\.(\d)\.", lambda match: f"pyramid.lateral.{2 - int(match[1])}.", key)
        key = re.sub(r"^fpn\.pred_layers\.(\d)\.", lambda match: f"pyramid.smooth.{2 - int(match[1])}.", key)
        for theirs, ours in (*_LAYERS.items(), *((f"prediction_layers.0.{a}", b) for a, b in _HEAD.items())):
            key = re.sub(rf"^{re.escape(theirs)}\.", f"{ours}.", key)
        renamed[key] = value
    return renamed
