"""SSD: boxes of every size in one pass, small objects on fine feature maps and large objects on coarse ones.

Paper: Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg, "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv 1512.02325.
Idea: Six feature maps have from 38 x 38 locations down to one. Each location has four or six default boxes, of the size
    that this map is responsible for, in several shapes. A 3x3 convolution predicts a score for every class and four
    deltas for each of them. Nearly all default boxes are background, so the loss uses only the three negatives with the
    largest loss per positive.
Simplified: nothing of the network; images are resized to 300 x 300 pixels beforehand, which changes their aspect ratio.
    Where the paper and torchvision differ, the code follows torchvision, so that torchvision's weights can be loaded.
    Comments that begin with `Paper:` mark these differences.
Shapes: images (B, 3, H, W), H and W of at least 268 -> dict of `logits` (B, A, K), `deltas` (B, A, 4), `anchors`
    (A, 4), and `sizes`, B pairs (h, w). A is 8732 at 300 x 300. `postprocess`: the dict -> B dicts of `boxes`
    (N, 4), `labels` (N,) and `scores` (N,).
Quality: every stage, the detections, and both losses with their gradients equal torchvision's at the same weights; a
    tiny SSD learns two synthetic scenes (tests/detection). From scratch on `shapes`: box AP50 at least 0.75 over three
    seeds, 21 CPU-seconds of training.
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

from segedu.backbones.vgg import VGG, vgg16
from segedu.layers.instance_targets import check_targets
from segedu.layers.normalize import Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.losses.reduction import full_precision
from segedu.ops.anchors import decode_boxes, encode_boxes, grid_anchors, match_anchors
from segedu.ops.boxes import box_iou, clip_boxes
from segedu.ops.nms import batched_nms
from segedu.validation.images import check_images, check_sizes
from segedu.validation.numbers import check_integer, check_length
from segedu.validation.tensors import check_keys, check_no_nan, check_tensor_dict

MEAN, STD = (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)  # Caffe's: 0 to 255, with the mean subtracted
# Sides of the square boxes of the six maps relative to the image, and one more scale, as in the paper for COCO.
# Paper: uses 0.1 on the first map and 0.2 to 0.9 on the others for Pascal VOC.
SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))  # for each map, the longer side over the shorter side
STEPS = (8, 16, 32, 64, 100, 300)  # pixels between neighbouring locations
# inner channels, output channels and stride of conv8 to conv11: stride 1 has no padding, so 5 locations become 3
EXTRAS = ((256, 512, 2), (128, 256, 2), (128, 256, 1), (128, 256, 1))
WEIGHTS = (10, 10, 5, 5)  # weights of the deltas; the authors' code divides by "variances" of 0.1 and 0.2
KEYS = ("logits", "deltas", "anchors", "sizes")


class SSDFeatures(nn.Module):
    """VGG to conv5, its fully connected layers as convolutions, and then ever smaller feature maps (figure 2).

    Args:
        vgg: a VGG with five stages; its first four pooling layers are used.
        hidden: channels of fc6 and fc7.
        extras: for each further block: inner channels, output channels, and stride 2 (padded) or 1 (not padded).
    """

    def __init__(self, vgg: VGG, hidden: int = 1024, extras: Sequence[tuple[int, int, int]] = EXTRAS) -> None:
        super().__init__()
        pools = [i for i, layer in enumerate(vgg.features) if isinstance(layer, nn.MaxPool2d)]
        if len(pools) != 5 or vgg.features[0].padding != (1, 1):
            raise ValueError(f"vgg has {len(pools)} stages, expected 5, and a first convolution with a padding of 1")
        self.in_channels, self.normalize = vgg.in_channels, vgg.normalize
        self.scale_weight = nn.Parameter(torch.full((vgg.channels[3],), 20.0))
        self.features = nn.Sequential(*vgg.features[: pools[3]])  # to conv4_3
        self.features[pools[2]] = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)  # 75 becomes 38
        blocks = [nn.Sequential(*vgg.features[pools[3] : pools[4]], _fully_connected(vgg.channels[4], hidden))]
        self.channels, self.min_size = [vgg.channels[3], hidden], 1
        for inner_channels, channels, stride in extras:
            blocks.append(_extra(self.channels[-1], inner_channels, channels, stride))
            self.channels.append(channels)
        for _, _, stride in reversed(extras):  # the smallest input that leaves one location at the end
            self.min_size = 2 * self.min_size - 1 if stride == 2 else self.min_size + 2
        self.min_size = 4 * (2 * (2 * self.min_size) - 1)  # back through four pooling layers; the third rounds up
        self.extra = nn.ModuleList(blocks)

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels, self.min_size)
        x = self.features(self.normalize(images))
        # conv4_3 has larger values than the other maps: vectors are normalised, then scaled by weights that start at 20
        features = [self.scale_weight[:, None, None] * F.normalize(x, dim=1)]
        for block in self.extra:
            x = block(x)
            features.append(x)
        return features


class Predictors(nn.Module):
    """A 3x3 convolution on each feature map that predicts a vector for each default box.

    Args:
        channels: number of channels of each map.
        num_anchors: number of default boxes per location of each map.
        num_columns: length of the vector.
    """

    def __init__(self, channels: Sequence[int], num_anchors: Sequence[int], num_columns: int) -> None:
        super().__init__()
        self.num_columns = num_columns
        convs = [
            nn.Conv2d(c, n * num_columns, kernel_size=3, padding=1) for c, n in zip(channels, num_anchors, strict=True)
        ]
        self.module_list = _xavier(nn.ModuleList(convs))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        maps = [conv(x) for conv, x in zip(self.module_list, features, strict=True)]
        rows = [x.unflatten(1, (-1, self.num_columns)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in maps]
        return torch.cat(rows, dim=1)  # (B, A, num_columns)


class SSD(nn.Module):
    """Feature maps, default boxes, and the two predictors; state dict keys as in torchvision.

    Args:
        backbone: images -> feature maps, fine to coarse.
        num_classes: K, including the background, which is 0.
        scales: for each map the side of its square boxes relative to the image, and one more scale at the end.
        ratios: for each map the aspect ratios of its other boxes; each is used twice, wide and tall.
        steps: for each map the distance between neighbouring locations in pixels; None for the size of the image
            divided by the size of the map.
    """

    def __init__(
        self,
        backbone: SSDFeatures,
        num_classes: int,
        scales: Sequence[float] = SCALES,
        ratios: Sequence[Sequence[float]] = RATIOS,
        steps: Sequence[float] | None = STEPS,
    ) -> None:
        super().__init__()
        maps = len(backbone.channels)
        check_length("scales", scales, maps + 1)
        check_length("ratios", ratios, maps, of="feature map")
        if steps is not None:
            check_length("steps", steps, maps, of="feature map")
        check_integer("num_classes", num_classes, minimum=2)
        self.backbone, self.scales, self.ratios, self.steps = backbone, scales, ratios, steps
        num_anchors = [2 + 2 * len(map_ratios) for map_ratios in ratios]
        self.head = nn.ModuleDict(
            {
                "classification_head": Predictors(backbone.channels, num_anchors, num_classes),
                "regression_head": Predictors(backbone.channels, num_anchors, 4),
            }
        )

    def forward(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> dict[str, Any]:
        features = self.backbone(images)
        grids = [tuple(x.shape[-2:]) for x in features]
        boxes = default_boxes(grids, tuple(images.shape[-2:]), self.scales, self.ratios, self.steps)
        outputs = {
            "logits": self.head["classification_head"](features),
            "deltas": self.head["regression_head"](features),
            "anchors": boxes.to(full_precision(images[:0])),
            "sizes": check_sizes(sizes, images),
        }
        return onnx_outputs(outputs)


def ssd300_vgg16(num_classes: int = 91, **options: Any) -> SSD:
    """The paper's network for images of 300 x 300 pixels.

    Args:
        num_classes: K, including the background; 91 for COCO, 21 for Pascal VOC.
        **options: arguments of `SSD`.
    """
    return SSD(SSDFeatures(vgg16(normalize=Normalize(MEAN, STD))), num_classes, **options)


def default_boxes(
    grids: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
    scales: Sequence[float] = SCALES,
    ratios: Sequence[Sequence[float]] = RATIOS,
    steps: Sequence[float] | None = None,
) -> Tensor:
    """Default boxes (section 2.2): squares of scale s and sqrt(s s'), s' the next scale, and pairs of rectangles.

    Args:
        grids: (h, w) of each map.
        image_size: (H, W) in pixels.
        scales: one scale per map, and one more at the end; relative to W for widths and to H for heights.
        ratios: for each map its aspect ratios r: one box is sqrt(r) s wide and s / sqrt(r) high, one has the sides
            exchanged.
        steps: distance between neighbouring locations in pixels; None for H / h and W / w.

    Returns:
        (A, 4) xyxy in pixels, map by map, row by row; some extend beyond the image. No side is longer than the image's.

    One map with one location, for half the image:

    >>> default_boxes([(1, 1)], (8, 8), (0.5, 0.5), ((4,),))
    tensor([[2., 2., 6., 6.],
            [2., 2., 6., 6.],
            [0., 3., 8., 5.],
            [3., 0., 5., 8.]])
    """
    (H, W), boxes = image_size, []
    for k, (h, w) in enumerate(grids):
        s, larger = scales[k], math.sqrt(scales[k] * scales[k + 1])
        sides = [(s, s), (larger, larger)]
        for ratio in ratios[k]:
            root = math.sqrt(ratio)
            sides += [(s * root, s / root), (s / root, s * root)]
        half = torch.tensor(sides).clamp(max=1) * torch.tensor([W, H]) / 2  # (A_k, 2)
        down, right = (H / h, W / w) if steps is None else (steps[k], steps[k])
        centre = torch.tensor([right / 2, down / 2])
        boxes.append(grid_anchors(torch.cat([centre - half, centre + half], dim=1), (h, w), (down, right)))
    return torch.cat(boxes)


def match_default_boxes(iou: Tensor, threshold: float = 0.5) -> Tensor:
    """Match every object to its best default box and to all others with an IoU of at least the threshold (section 2.2).

    Args:
        iou: (N, A), of every object with every default box.
        threshold: in [0, 1].

    Returns:
        (A,) int64, the row of the object, or -1 for background. If two objects have the same best box, the later object
        gets it.

    An object that is far smaller than the default boxes lies inside several boxes of the same size and has the same IoU
    with all of them. Rounding then decides which of them is its best box. torchvision's default boxes differ from those
    of `default_boxes` by up to 1e-4 pixels, so it may choose another box, with another loss. With equal default boxes
    the losses are equal.

    >>> match_default_boxes(torch.tensor([[0.6, 0.7, 0.1], [0.3, 0.6, 0.2]]))
    tensor([ 0,  1, -1])
    """
    matches = match_anchors(iou, threshold, threshold)
    if len(iou):
        # Paper: after MultiBox, where two objects never share a best box. With thousands of boxes they rarely do.
        best = iou.argmax(dim=1)
        matches.scatter_reduce_(0, best, torch.arange(len(iou), device=iou.device), "amax", include_self=False)
    return matches


def ssd_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    iou_threshold: float = 0.5,
    neg_to_pos_ratio: float = 3.0,
) -> dict[str, Tensor]:
    """Cross-entropy of the positive default boxes and of the hardest negatives, and smooth L1 of the positives' deltas.

    Both are sums over the batch, divided by the number of positives (at least 1). An image without objects adds
    nothing.

    Args:
        outputs: outputs of `SSD`.
        targets: B dicts of `boxes` (N, 4) and `labels` (N,) from 1 to K - 1; N may be 0.
        iou_threshold: default boxes with an IoU of at least this with an object are positive.
        neg_to_pos_ratio: number of negatives per positive of an image; those with the largest loss are used.

    Returns:
        Scalars `classification` and `boxes`, and their sum `loss`.
    """
    anchors = _check_outputs(outputs)
    targets = check_targets(targets, outputs["sizes"], outputs["logits"].shape[-1])
    class_losses, box_losses, num_positive = [], [], 0
    for logits, deltas, target in zip(*(full_precision(outputs[key]) for key in KEYS[:2]), targets, strict=True):
        gt_boxes = target["boxes"].to(anchors)
        matches = match_default_boxes(box_iou(gt_boxes, anchors), iou_threshold)  # (A,)
        positive = torch.nonzero(matches >= 0).flatten()
        gt_labels = torch.zeros_like(matches)
        gt_labels[positive] = target["labels"][matches[positive]]
        entropy = F.cross_entropy(logits, gt_labels, reduction="none")  # (A,)
        negative = entropy[matches < 0]
        hardest = negative.topk(min(int(neg_to_pos_ratio * len(positive)), len(negative))).values
        class_losses.append(entropy[positive].sum() + hardest.sum())
        target_deltas = encode_boxes(gt_boxes[matches[positive]], anchors[positive], WEIGHTS).to(deltas)
        box_losses.append(F.smooth_l1_loss(deltas[positive], target_deltas, reduction="sum"))
        num_positive += len(positive)
    classification, box = (torch.stack(sums).sum() / max(1, num_positive) for sums in (class_losses, box_losses))
    return {"classification": classification, "boxes": box, "loss": classification + box}


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Any],
    *,
    score_threshold: float = 0.01,
    iou_threshold: float = 0.45,
    topk_candidates: int = 400,
    max_detections: int = 200,
) -> list[dict[str, Tensor]]:
    """Convert outputs to detections: the highest scores per class, then non-maximum suppression within each class.

    Args:
        outputs: outputs of `SSD`.
        score_threshold: detections need a score, a softmax over the classes, above this.
        iou_threshold: a box is dropped if its IoU with a higher-scoring one of its class exceeds this.
        topk_candidates: maximum number of scores per class before non-maximum suppression.
        max_detections: maximum number of boxes per image.

    Returns:
        For each image `boxes` (N, 4), clipped to the image, `labels` (N,) int64 from 1 and `scores` (N,), highest score
        first.
    """
    anchors = _check_outputs(outputs)
    check_no_nan("outputs", outputs, ("logits", "deltas"))
    logits, deltas = (full_precision(outputs[key]) for key in KEYS[:2])
    detections = []
    all_boxes = decode_boxes(deltas, anchors, WEIGHTS)  # (B, A, 4)
    for scores, boxes, size in zip(logits.softmax(-1), all_boxes, outputs["sizes"], strict=True):
        scores, index = scores[:, 1:].topk(min(topk_candidates, len(anchors)), dim=0)  # (topk_candidates, K - 1)
        row, column = torch.nonzero(scores > score_threshold, as_tuple=True)
        labels, scores, boxes = column + 1, scores[row, column], clip_boxes(boxes[index[row, column]], size)
        keep = batched_nms(boxes, scores, labels, iou_threshold)[:max_detections]
        detections.append({"boxes": boxes[keep], "labels": labels[keep], "scores": scores[keep]})
    return detections


def _fully_connected(in_channels: int, hidden: int) -> nn.Sequential:
    """fc6 and fc7 as convolutions. The pooling has stride 1, so fc6 is dilated to keep VGG's field of view."""
    return nn.Sequential(
        nn.MaxPool2d(kernel_size=3, stride=1, padding=1),
        _xavier(nn.Conv2d(in_channels, hidden, kernel_size=3, padding=6, dilation=6)),
        nn.ReLU(inplace=True),
        _xavier(nn.Conv2d(hidden, hidden, kernel_size=1)),
        nn.ReLU(inplace=True),
    )


def _extra(in_channels: int, inner_channels: int, channels: int, stride: int) -> nn.Sequential:
    first = _xavier(nn.Conv2d(in_channels, inner_channels, kernel_size=1))
    second = _xavier(nn.Conv2d(inner_channels, channels, kernel_size=3, stride=stride, padding=stride - 1))
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))


def _xavier(module: nn.Module) -> nn.Module:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return module


def _check_outputs(outputs: Mapping[str, Any]) -> Tensor:
    """Check that the outputs of the predictors match the default boxes, and return the default boxes."""
    check_keys("outputs", outputs, KEYS)
    check_tensor_dict("outputs", outputs, logits="B A K", deltas="B A 4", anchors="A 4")
    check_length("outputs['sizes']", outputs["sizes"], len(outputs["logits"]), of="image")
    return outputs["anchors"]
