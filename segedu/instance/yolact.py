"""YOLACT: masks in real time, each a mixture of prototypes that are made once for the whole image.

Paper: Bolya, Zhou, Xiao, Lee, "YOLACT: Real-time Instance Segmentation", ICCV 2019, arXiv 1904.02689.
Idea: One branch makes k prototype masks of the whole image, which know nothing of objects. Beside class and box, an
    anchor predicts k coefficients from -1 to 1. The mask of an object is the sigmoid of the prototypes mixed by its
    coefficients, one product of matrices for all objects, cut out by the box. Fast NMS decides which boxes stay in
    one step, without a loop.
Simplified: a cell's and class's score below the threshold is left out; the authors keep the other classes of an anchor
    that has one above it. All positive anchors enter the loss of the masks, not 100 drawn ones; no crowds.
Shapes: images (B, 3, H, W), any H and W of at least 32 -> dict of `class_logits` (B, A, K), class 0 is background,
    `deltas` (B, A, 4), `coefficients` (B, A, k), `prototypes` (B, k, h, w), about H / 4 x W / 4, `semantic_logits`
    (B, K - 1, H / 8, W / 8), `anchors` (A, 4), `image_size` and `sizes`. `postprocess`: the dict -> B dicts of
    `boxes`, `labels` from 1 to K - 1, `scores` and `masks`.
Quality: Fast NMS and the cutting of masks equal mmdet 3.3.0's (a record), losses numbers worked by hand; outputs made
    from drawn objects give the objects back; one batch of drawn scenes is learnt (its tests). Not compared as a whole
    network: only its number of weights, 31.16 million, is that of the authors'. From scratch on `shapes`: mask AP50 at
    least 0.75 over three seeds, 43 CPU-s. `shapes_yolact` are its small weights.
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
from segedu.validation.tensors import check_keys, check_no_nan

MEAN, STD = (123.68, 116.78, 103.94), (58.40, 57.12, 57.38)  # of red, green, blue in 0..255: the authors' digits
SCALES = (24.0, 48.0, 96.0, 192.0, 384.0)  # pixels, for P3 to P7
RATIOS = (1.0, 0.5, 2.0)
WEIGHTS = (10, 10, 5, 5)  # of the deltas, as in SSD
LOW, HIGH = 0.4, 0.5  # IoU of an anchor with an object: below LOW background, from HIGH on positive
NEGATIVES = 3  # for each positive, the hardest
BOX_WEIGHT, MASK_WEIGHT = 1.5, 6.125
KEYS = ("class_logits", "deltas", "coefficients", "prototypes", "semantic_logits", "anchors", "image_size", "sizes")


def _enlarge(features: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)


class Pyramid(nn.Module):
    """FPN as the authors have it: bilinear enlarging, a ReLU on P3 to P5, and P6 and P7 by convolutions from P5.

    Args:
        in_channels: of C3 to C5.
        out_channels: of each level.
        extra: levels by convolutions of stride 2.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, extra: int = 2) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(n, out_channels, 1) for n in in_channels)
        self.smooth = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in in_channels)
        self.extra = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, 2, padding=1) for _ in range(extra))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        merged = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for i in reversed(range(len(merged) - 1)):
            merged[i] = merged[i] + _enlarge(merged[i + 1], merged[i].shape[-2:])
        levels = [smooth(x).relu() for smooth, x in zip(self.smooth, merged, strict=True)]
        for convolution in self.extra:
            levels.append(convolution(levels[-1]))
        return levels


def _protonet(width: int, count: int) -> nn.Sequential:
    """Figure 3: three convolutions on P3, twice as large, one more, and 1x1 to the prototypes; ReLU throughout."""
    convolutions = [nn.Conv2d(width, width, 3, padding=1) for _ in range(4)]
    layers = [layer for convolution in convolutions for layer in (convolution, nn.ReLU())]
    # behind the enlarging the authors have another ReLU, which does nothing here
    enlarge = [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.Identity()]
    return nn.Sequential(*layers[:6], *enlarge, *layers[6:], nn.Conv2d(width, count, 1), nn.ReLU())


class YOLACT(nn.Module):
    """Prototypes, and a head that all levels of the pyramid share (figures 2 and 4).

    Args:
        backbone: such as `ResNet`; of its features the last three, C3 to C5, are used.
        num_classes: K, the background counted.
        width: channels of the pyramid, the prototypes' branch and the head.
        prototypes: k.
        scales: of the anchors in pixels, for each level: three of the backbone and the extra ones.
        ratios: width over height, of the anchors of each place.
        square: True: an anchor of scale s and ratio r has two sides of s sqrt(r): a slip of the authors that their
            published weights have learnt with. False: s sqrt(r) wide and s / sqrt(r) high.
    """

    def __init__(
        self,
        backbone: ResNet,
        num_classes: int,
        width: int = 256,
        prototypes: int = 32,
        scales: Sequence[float] = SCALES,
        ratios: Sequence[float] = RATIOS,
        square: bool = True,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}, expected at least 2: background and an object")
        if len(scales) < 3 or not len(ratios) or min(*scales, *ratios) <= 0:
            raise ValueError(f"scales and ratios are {tuple(scales)}, {tuple(ratios)}, expected 3 and 1 numbers > 0")
        self.backbone, self.num_classes = backbone, num_classes
        self.scales, self.ratios, self.square = tuple(scales), tuple(ratios), square
        self.pyramid = Pyramid(backbone.channels[-3:], width, len(scales) - 3)
        self.protonet = _protonet(width, prototypes)
        self.shared = nn.Conv2d(width, width, 3, padding=1)
        self.class_logits = nn.Conv2d(width, len(ratios) * num_classes, 3, padding=1)
        self.deltas = nn.Conv2d(width, len(ratios) * 4, 3, padding=1)
        self.coefficients = nn.Conv2d(width, len(ratios) * prototypes, 3, padding=1)
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
        outputs["coefficients"] = outputs["coefficients"].tanh()  # prototypes may be subtracted, too
        outputs["prototypes"] = self.protonet(levels[0])
        outputs["semantic_logits"] = self.semantic(levels[0])
        anchors = [self._anchors(level, image_size, scale) for level, scale in zip(levels, self.scales, strict=True)]
        return onnx_outputs({**outputs, "anchors": torch.cat(anchors), "image_size": image_size, "sizes": sizes})

    def _anchors(self, level: Tensor, image_size: Size, scale: float) -> Tensor:
        """The anchors of a level, in the middle of what each place stands for."""
        size = tuple(level.shape[-2:])
        strides = tuple(pixels / places for pixels, places in zip(image_size, size, strict=True))
        roots = level.new_tensor(self.ratios).sqrt()
        sides = torch.stack([roots, roots if self.square else 1 / roots], dim=1) * scale  # (R, 2): width, height
        middle = level.new_tensor([strides[1], strides[0]]) / 2
        return grid_anchors(torch.cat([middle - sides / 2, middle + sides / 2], dim=1), size, strides)


def yolact_resnet50(num_classes: int = 81, **options: Any) -> YOLACT:
    """The authors' network with 50 layers, for images of 550 x 550; keys of their weights: `keys_of_authors`.

    They train it with the batch normalisations of the backbone frozen.

    Args:
        num_classes: K, the background counted; COCO has 80 kinds of things.
        **options: of `YOLACT`.

    Returns:
        The network with random weights.
    """
    mean, std = ([number / 255 for number in numbers] for numbers in (MEAN, STD))
    return YOLACT(resnet50(normalize=Normalize(mean, std)), num_classes, **options)


def assemble_masks(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """Logits of masks: M = P C^T of equation 1; its sigmoid comes after the sum, not before.

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
    """Where masks of another size lie in boxes, with one place more on each side, as the authors cut them.

    Args:
        boxes: (N, 4) pixels of the image.
        size: (h, w) of the masks.
        image_size: (H, W) of the image that they stand for.

    Returns:
        (N, h, w) bool.

    >>> inside_boxes(torch.tensor([[8.0, 0.0, 12.0, 4.0]]), (1, 6), (4, 24)).int()
    tensor([[[0, 1, 1, 1, 0, 0]]], dtype=torch.int32)
    """
    masks = []
    for length, pixels, first in ((size[0], image_size[0], 1), (size[1], image_size[1], 0)):
        places = torch.arange(length, device=boxes.device)
        start, end = (boxes[:, first + step, None] * (length / pixels) for step in (0, 2))
        masks.append((places >= start - 1) & (places < end + 1))  # Paper: cut at the box itself
    return masks[0][:, :, None] & masks[1][:, None, :]


def fast_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, candidates: int = 200) -> tuple[Tensor, Tensor]:
    """Fast NMS (section 4.1): a box goes if it overlaps *any* better one of its class, gone or not.

    Ordinary NMS lets the third of a chain live where the second, which the first suppresses, overlaps it. Here it
    goes; in exchange there is no loop: the upper triangle of the matrix of IoUs, and its largest value a column.

    Args:
        boxes: (A, 4).
        scores: (A, K - 1), of each class.
        iou_threshold: a box goes if its IoU is above it.
        candidates: at most so many boxes of a class, the best ones.

    Returns:
        (n,) indices of boxes and (n,) of classes from 0 on, best score first.

    >>> chain = torch.tensor([[0.0, 0.0, 4.0, 1.0], [1.0, 0.0, 5.0, 1.0], [2.0, 0.0, 6.0, 1.0]])
    >>> fast_nms(chain, torch.tensor([[0.9], [0.8], [0.7]]), 0.5)[0]
    tensor([0])
    """
    scores, order = scores.T.sort(dim=1, descending=True, stable=True)  # (K - 1, A)
    scores, order = scores[:, :candidates], order[:, :candidates]
    iou = torch.stack([box_iou(boxes[row], boxes[row]) for row in order]).triu(1)  # (K - 1, n, n)
    label, place = (iou.amax(dim=1) <= iou_threshold).nonzero().unbind(1) if iou.numel() else order.nonzero().unbind(1)
    best = scores[label, place].argsort(descending=True, stable=True)
    return order[label, place][best], label[best]


def yolact_loss(outputs: Mapping[str, Any], targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Class with the hardest negatives, box, mask within the true box, and a semantic map: section 3.3 and 4.2.

    Args:
        outputs: of `YOLACT`.
        targets: B dicts of `boxes` (N, 4), `labels` (N,) from 1 to K - 1 and `masks` (N, h, w); N may be 0.

    Returns:
        Scalars `class`, `box` and `mask`, weighted sums over the anchors of the batch divided by the number of
        positive ones, `semantic`, a mean over places and images, and `loss`, their sum. Without an object in the
        batch all but `semantic` are 0: negatives come three for each positive.

    Raises:
        TypeError: outputs or targets are not of the right kind.
        ValueError: a key is missing, a shape does not fit, or a label is out of range.
    """
    check_keys("outputs", outputs, KEYS)
    targets = check_targets(targets, outputs["sizes"], outputs["class_logits"].shape[-1], masks=True)
    parts = {"class": [], "box": [], "mask": [], "semantic": []}
    positives = 0
    for b, target in enumerate(targets):
        logits, deltas, coefficients, prototypes, semantic = (outputs[key][b] for key in KEYS[:5])
        boxes, labels = target["boxes"].to(deltas), target["labels"]
        matches = match_anchors(box_iou(boxes, outputs["anchors"]), LOW, HIGH, force_best=True)
        taken, row = matches >= 0, matches[matches >= 0]
        positives += len(row)
        parts["class"].append(_class_loss(logits, matches, labels))
        wanted = encode_boxes(boxes[row], outputs["anchors"][taken], WEIGHTS)
        parts["box"].append(BOX_WEIGHT * F.smooth_l1_loss(deltas[taken], wanted, reduction="sum"))
        masks = resize_masks(target["masks"], outputs["image_size"], prototypes.shape[-2:])
        predicted = assemble_masks(prototypes, coefficients[taken])
        parts["mask"].append(MASK_WEIGHT * _mask_loss(predicted, masks[row], boxes[row], outputs["image_size"]))
        parts["semantic"].append(_semantic_loss(semantic, target, outputs["image_size"]) / len(targets))
    losses = {key: torch.stack(values).sum() for key, values in parts.items()}
    losses = {key: value if key == "semantic" else value / max(positives, 1) for key, value in losses.items()}
    return {**losses, "loss": torch.stack(list(losses.values())).sum()}


def _class_loss(logits: Tensor, matches: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of positives and of the background anchors that look least like it, three for each positive."""
    positive = matches >= 0
    wanted = torch.zeros_like(matches)
    wanted[positive] = labels[matches[positive]]
    loss = F.cross_entropy(logits, wanted, reduction="none")  # (A,)
    background = (matches == BACKGROUND).nonzero().flatten()
    hardest = loss[background].detach().argsort(descending=True, stable=True)[: NEGATIVES * int(positive.sum())]
    return loss[positive].sum() + loss[background[hardest]].sum()


def _mask_loss(logits: Tensor, masks: Tensor, boxes: Tensor, image_size: Size) -> Tensor:
    """Sum over masks: cross-entropy within the true box over the box's area, so that small objects count as much."""
    size = tuple(logits.shape[-2:])
    loss = F.binary_cross_entropy_with_logits(logits, masks.to(logits), reduction="none")
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1) * (size[0] * size[1] / (image_size[0] * image_size[1]))
    return ((loss * inside_boxes(boxes, size, image_size)).flatten(1).sum(1) / area).sum()


def _semantic_loss(logits: Tensor, target: Mapping[str, Tensor], image_size: Size) -> Tensor:
    """Mean over places of the sum over kinds: a kind is yes or no at each place, so two may be there."""
    wanted = torch.zeros_like(logits)
    masks = resize_masks(target["masks"], image_size, logits.shape[-2:]).to(logits)
    for mask, label in zip(masks, target["labels"].tolist(), strict=True):
        wanted[label - 1] = torch.maximum(wanted[label - 1], mask)
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(0).mean()


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Any],
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    mask_threshold: float = 0.5,
    *,
    candidates: int = 200,
    max_detections: int = 100,
) -> list[dict[str, Tensor]]:
    """Objects of each image: Fast NMS, then masks, cut out by the boxes found, at the size of the image.

    Args:
        outputs: of `YOLACT`.
        score_threshold: of the probability of a class.
        iou_threshold: of Fast NMS.
        mask_threshold: of the pixels of a mask.
        candidates: of each class, that enter Fast NMS.
        max_detections: at most so many objects an image.

    Returns:
        B dicts of `boxes` (N, 4), `labels` (N,), `scores` (N,) and `masks` (N, h, w), best first; (h, w) as in `sizes`.

    Raises:
        TypeError: `outputs` is no dict.
        ValueError: a key is missing, or a number is NaN.
    """
    check_keys("outputs", outputs, KEYS)
    check_no_nan("outputs", outputs, KEYS[:4])
    results, image_size = [], outputs["image_size"]
    for b, size in enumerate(outputs["sizes"]):
        scores = outputs["class_logits"][b].softmax(-1)[:, 1:]  # (A, K - 1)
        some = (scores > score_threshold).any(1).nonzero().flatten()
        boxes = clip_boxes(decode_boxes(outputs["deltas"][b][some], outputs["anchors"][some], WEIGHTS), size)
        row, label = fast_nms(boxes, scores[some], iou_threshold, candidates)
        found = (scores[some][row, label] > score_threshold).nonzero().flatten()[:max_detections]
        row, label = row[found], label[found]
        boxes, scores = boxes[row], scores[some[row], label]
        prototypes = outputs["prototypes"][b]
        masks = assemble_masks(prototypes, outputs["coefficients"][b][some[row]]).sigmoid()
        masks = masks * inside_boxes(boxes, tuple(masks.shape[-2:]), image_size)
        whole = _enlarge(masks[:, None], image_size)[:, 0] if len(row) else masks.new_zeros(0, *image_size)
        masks = whole[:, : size[0], : size[1]] > mask_threshold
        results.append({"boxes": boxes, "labels": label + 1, "scores": scores, "masks": masks})
    return results


_LAYERS = {"proto_net": "protonet", "semantic_seg_conv": "semantic", "fpn.downsample_layers": "pyramid.extra"}
_HEAD = {"upfeature.0": "shared", "bbox_layer": "deltas", "conf_layer": "class_logits", "mask_layer": "coefficients"}


def keys_of_authors(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the authors' ResNet networks (yolact_resnet50, yolact_base) with the keys of `YOLACT`.

    The names are those of their source; the published files were not opened.

    Args:
        state_dict: what their files hold; they number the pyramid's layers from the coarsest on.

    Returns:
        The same tensors, renamed. Keys of no known part stay as they are, and a strict load will name them.
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
