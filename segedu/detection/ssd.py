"""SSD: boxes of every size in one pass, small ones found on fine feature maps and large ones on coarse.

Paper: Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg, "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv 1512.02325.
Idea: Six feature maps, from 38 x 38 places to one. At each place lie four or six default boxes, the size that this
    map is for in several shapes; a 3x3 convolution gives each a score for every class and four numbers that move it.
    Nearly all default boxes are background: for each with an object, only the three most wrong of those are learned.
Simplified: nothing of the network; images are brought to 300 x 300 pixels beforehand, without keeping their shape.
    Where the paper and torchvision differ, this is torchvision's, whose weights fit: see `Paper:`.
Shapes: images (B, 3, H, W), H and W of at least 268 -> dict of `logits` (B, A, K), `deltas` (B, A, 4), `anchors`
    (A, 4), and `sizes`, B pairs (h, w). A is 8732 at 300 x 300. `postprocess`: the dict -> B dicts of `boxes`
    (N, 4), `labels` (N,) and `scores` (N,).
Quality: every stage, the detections, and both losses with their gradients equal torchvision's at the same weights; a
    tiny one learns two drawn scenes (its tests). From scratch on `shapes`: box AP50 at least 0.75 over three seeds, 21
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

from segedu.backbones.vgg import VGG, vgg16
from segedu.layers.instance_targets import check_targets
from segedu.layers.normalize import Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.losses.reduction import full_precision
from segedu.ops.anchors import decode_boxes, encode_boxes, grid_anchors, match_anchors
from segedu.ops.boxes import box_iou, clip_boxes
from segedu.ops.nms import batched_nms
from segedu.validation.images import check_images, check_sizes
from segedu.validation.tensors import check_keys, check_maps, check_no_nan

MEAN, STD = (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)  # Caffe's: a mean taken off, 0 to 255
# Side of the square boxes of the six maps, as a part of the image's, and one more. These are the paper's for COCO.
# Paper: for Pascal VOC 0.1 on the first map, and 0.2 to 0.9 on the others.
SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))  # of each map, width over height, and turned round
STEPS = (8, 16, 32, 64, 100, 300)  # pixels from place to place
# channels inside and outside of conv8 to conv11, and the stride: with 1 there is no padding, and 5 places become 3
EXTRAS = ((256, 512, 2), (128, 256, 2), (128, 256, 1), (128, 256, 1))
WEIGHTS = (10, 10, 5, 5)  # of deltas; the authors' code divides by "variances" of 0.1 and 0.2
KEYS = ("logits", "deltas", "anchors", "sizes")


class SSDFeatures(nn.Module):
    """VGG to conv5, its fully connected layers as convolutions, and ever smaller maps behind: figure 2.

    Args:
        vgg: five stages; its first four poolings are used.
        hidden: channels of fc6 and fc7.
        extras: of each block behind: channels inside, channels, and stride 2 (padded) or 1 (not padded).
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
        self.channels, self.smallest = [vgg.channels[3], hidden], 1
        for inside, channels, stride in extras:
            blocks.append(_extra(self.channels[-1], inside, channels, stride))
            self.channels.append(channels)
        for _, _, stride in reversed(extras):  # what leaves one place at the end
            self.smallest = 2 * self.smallest - 1 if stride == 2 else self.smallest + 2
        self.smallest = 4 * (2 * (2 * self.smallest) - 1)  # back through four poolings, the third of which rounds up
        self.extra = nn.ModuleList(blocks)

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels, self.smallest)
        x = self.features(self.normalize(images))
        # conv4_3 has larger numbers than the maps behind it: each place gets length 1, then a learned scale, from 20
        features = [self.scale_weight[:, None, None] * F.normalize(x, dim=1)]
        for block in self.extra:
            x = block(x)
            features.append(x)
        return features


class Predictors(nn.Module):
    """A 3x3 convolution on each map, with as many columns for each default box.

    Args:
        channels: of each map.
        counts: default boxes at a place of each map.
        columns: numbers for each default box.
    """

    def __init__(self, channels: Sequence[int], counts: Sequence[int], columns: int) -> None:
        super().__init__()
        self.columns = columns
        convs = [nn.Conv2d(c, n * columns, kernel_size=3, padding=1) for c, n in zip(channels, counts, strict=True)]
        self.module_list = _xavier(nn.ModuleList(convs))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        maps = [conv(x) for conv, x in zip(self.module_list, features, strict=True)]
        rows = [x.unflatten(1, (-1, self.columns)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in maps]
        return torch.cat(rows, dim=1)  # (B, A, columns)


class SSD(nn.Module):
    """Feature maps, default boxes, and the two predictors; keys as torchvision's.

    Args:
        backbone: gives the feature maps, fine to coarse.
        num_classes: K, with the background, which is 0.
        scales: side of the square boxes of each map as a part of the image's, and one number more.
        ratios: for each map the further shapes of its boxes, each also turned round.
        steps: for each map the pixels from one place to the next; None: the image's size over the map's.
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
        if len(scales) != maps + 1 or len(ratios) != maps or (steps is not None and len(steps) != maps):
            given = f"{len(scales)} scales, {len(ratios)} ratios and {'no' if steps is None else len(steps)} steps"
            raise ValueError(f"there are {given}, expected {maps + 1}, {maps} and {maps} (or None) for {maps} maps")
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}, expected at least 2: the background and a class")
        self.backbone, self.scales, self.ratios, self.steps = backbone, scales, ratios, steps
        counts = [2 + 2 * len(shapes) for shapes in ratios]
        self.head = nn.ModuleDict(
            {
                "classification_head": Predictors(backbone.channels, counts, num_classes),
                "regression_head": Predictors(backbone.channels, counts, 4),
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
        num_classes: K, with the background; 91 for COCO, 21 for Pascal VOC.
        **options: of `SSD`.

    Returns:
        The network with random weights.
    """
    return SSD(SSDFeatures(vgg16(normalize=Normalize(MEAN, STD))), num_classes, **options)


def default_boxes(
    grids: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
    scales: Sequence[float] = SCALES,
    ratios: Sequence[Sequence[float]] = RATIOS,
    steps: Sequence[float] | None = None,
) -> Tensor:
    """Section 2.2: a square of this map's scale s, one of sqrt(s s'), half-way to the next, and pairs of rectangles.

    Args:
        grids: (h, w) of each map.
        image_size: (H, W) in pixels.
        scales: of each map, and one more; parts of W for widths and of H for heights.
        ratios: r of each map: a box sqrt(r) s wide and s / sqrt(r) high, and one turned round.
        steps: pixels from one place to the next; None: H / h and W / w.

    Returns:
        (A, 4) xyxy in pixels, map by map, row by row; some reach over the image. No side is longer than the image's.

    One map of one place, of half the image:

    >>> default_boxes([(1, 1)], (8, 8), (0.5, 0.5), ((4,),))
    tensor([[2., 2., 6., 6.],
            [2., 2., 6., 6.],
            [0., 3., 8., 5.],
            [3., 0., 5., 8.]])
    """
    (H, W), boxes = image_size, []
    for k, (h, w) in enumerate(grids):
        s, between = scales[k], math.sqrt(scales[k] * scales[k + 1])
        sides = [(s, s), (between, between)]
        for ratio in ratios[k]:
            root = math.sqrt(ratio)
            sides += [(s * root, s / root), (s / root, s * root)]
        half = torch.tensor(sides).clamp(max=1) * torch.tensor([W, H]) / 2  # (A_k, 2)
        down, right = (H / h, W / w) if steps is None else (steps[k], steps[k])
        centre = torch.tensor([right / 2, down / 2])
        boxes.append(grid_anchors(torch.cat([centre - half, centre + half], dim=1), (h, w), (down, right)))
    return torch.cat(boxes)


def match_default_boxes(iou: Tensor, threshold: float = 0.5) -> Tensor:
    """Section 2.2: every object takes its best default box, and all with an IoU of at least the threshold.

    Args:
        iou: (N, A), of every object with every default box.
        threshold: in [0, 1].

    Returns:
        (A,) int64, the row of the object, or -1 for background. Where two objects have the same best box, the later
        one takes it.

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
    negatives: float = 3.0,
) -> dict[str, Tensor]:
    """Cross-entropy of default boxes with an object and of the hardest without, and smooth L1 of the former's deltas.

    Both are sums over the batch, divided by the number of default boxes with an object (at least 1). An image
    without objects adds nothing.

    Args:
        outputs: of `SSD`.
        targets: B dicts of `boxes` (N, 4) and `labels` (N,) from 1 to K - 1; N may be 0.
        iou_threshold: default boxes whose IoU with an object reaches it have that object.
        negatives: for each default box of an image with an object, so many without count: those with the largest
            loss.

    Returns:
        Scalars `classification`, `boxes` and `loss`, their sum.

    Raises:
        TypeError: outputs or targets are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, a box has no area, or a label is not 1 to K - 1.
    """
    anchors = _checked(outputs)
    targets = check_targets(targets, outputs["sizes"], outputs["logits"].shape[-1])
    scores, boxes, count = [], [], 0
    for logits, deltas, target in zip(*(full_precision(outputs[key]) for key in KEYS[:2]), targets, strict=True):
        true_boxes = target["boxes"].to(anchors)
        matches = match_default_boxes(box_iou(true_boxes, anchors), iou_threshold)  # (A,)
        positive = torch.nonzero(matches >= 0).flatten()
        wanted = torch.zeros_like(matches)
        wanted[positive] = target["labels"][matches[positive]]
        entropy = F.cross_entropy(logits, wanted, reduction="none")  # (A,)
        rest = entropy[matches < 0]
        hardest = rest.topk(min(int(negatives * len(positive)), len(rest))).values
        scores.append(entropy[positive].sum() + hardest.sum())
        moves = encode_boxes(true_boxes[matches[positive]], anchors[positive], WEIGHTS).to(deltas)
        boxes.append(F.smooth_l1_loss(deltas[positive], moves, reduction="sum"))
        count += len(positive)
    classification, box = (torch.stack(sums).sum() / max(1, count) for sums in (scores, boxes))
    return {"classification": classification, "boxes": box, "loss": classification + box}


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Any],
    *,
    score_threshold: float = 0.01,
    iou_threshold: float = 0.45,
    candidates: int = 400,
    max_detections: int = 200,
) -> list[dict[str, Tensor]]:
    """The best scores of each class, moved onto their boxes, without those that overlap a better one of the class.

    Args:
        outputs: of `SSD`.
        score_threshold: scores, a softmax over the classes, that are not above it are dropped.
        iou_threshold: a box with a larger IoU with a better one of its class is dropped.
        candidates: how many scores of a class are looked at.
        max_detections: how many boxes of an image are kept.

    Returns:
        For each image `boxes` (N, 4), within the image, `labels` (N,) int64 from 1 on and `scores` (N,), best first.

    Raises:
        TypeError: outputs are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, or a number is NaN.
    """
    anchors = _checked(outputs)
    check_no_nan("outputs", outputs, ("logits", "deltas"))
    logits, deltas = (full_precision(outputs[key]) for key in KEYS[:2])
    found = []
    boxes_of = decode_boxes(deltas, anchors, WEIGHTS)  # (B, A, 4)
    for scores, boxes, size in zip(logits.softmax(-1), boxes_of, outputs["sizes"], strict=True):
        scores, index = scores[:, 1:].topk(min(candidates, len(anchors)), dim=0)  # (candidates, K - 1)
        row, column = torch.nonzero(scores > score_threshold, as_tuple=True)
        labels, scores, boxes = column + 1, scores[row, column], clip_boxes(boxes[index[row, column]], size)
        keep = batched_nms(boxes, scores, labels, iou_threshold)[:max_detections]
        found.append({"boxes": boxes[keep], "labels": labels[keep], "scores": scores[keep]})
    return found


def _fully_connected(in_channels: int, hidden: int) -> nn.Sequential:
    """fc6 and fc7. The pooling keeps the size, and so fc6 is dilated: it sees what VGG's 7x7 kernel saw."""
    return nn.Sequential(
        nn.MaxPool2d(kernel_size=3, stride=1, padding=1),
        _xavier(nn.Conv2d(in_channels, hidden, kernel_size=3, padding=6, dilation=6)),
        nn.ReLU(inplace=True),
        _xavier(nn.Conv2d(hidden, hidden, kernel_size=1)),
        nn.ReLU(inplace=True),
    )


def _extra(in_channels: int, inside: int, channels: int, stride: int) -> nn.Sequential:
    first = _xavier(nn.Conv2d(in_channels, inside, kernel_size=1))
    second = _xavier(nn.Conv2d(inside, channels, kernel_size=3, stride=stride, padding=stride - 1))
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))


def _xavier(module: nn.Module) -> nn.Module:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return module


def _checked(outputs: Mapping[str, Any]) -> Tensor:
    """The default boxes, of outputs that fit each other."""
    check_keys("outputs", outputs, KEYS)
    check_maps("outputs", outputs, logits="B A K", deltas="B A 4", anchors="A 4")
    if len(outputs["sizes"]) != len(outputs["logits"]):
        given, batch = len(outputs["sizes"]), len(outputs["logits"])
        raise ValueError(f"outputs['sizes'] has {given} pairs, expected one for each of {batch} images")
    return outputs["anchors"]
