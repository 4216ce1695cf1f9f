"""torchvision's two-stage detectors at small width, ours with the same weights, and what both are given."""

from __future__ import annotations

import pytest
import torch
from randomise import randomise
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TheirFasterRCNN
from torchvision.models.detection import MaskRCNN as TheirMaskRCNN
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.resnet import BasicBlock as TheirBlock
from torchvision.models.resnet import ResNet as TheirResNet
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.detection import faster_rcnn
from segedu.detection.fast_rcnn import TwoLayerHead
from segedu.detection.faster_rcnn import RPN, ConvolutionalHead, FasterRCNN, normalize_pyramid
from segedu.instance.mask_rcnn import MaskHead, MaskRCNN
from segedu.layers import proposals
from segedu.layers.batch_norm import freeze_batch_norm
from segedu.layers.image_batch import resize_and_pad
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize

CHANNELS, HIDDEN, CLASSES = 8, 24, 4
SIZES, SHORTEST, LONGEST = ((8,), (16,), (32,), (64,), (128,)), 96, 150
IMAGES = [(96, 128), (101, 77), (60, 107)]  # the last one is limited by its longer side
# Sizes of images, and what the sides of the batch are multiples of: torchvision's 32, and with 1 any side, such as 125.
BATCHES = [*(([size], 32) for size in IMAGES), (IMAGES, 32), *(([size], 1) for size in IMAGES[1:]), (IMAGES, 1)]
DETECTIONS = 40
COUNT = 60  # proposals, so that the suppression and the limit both matter


def their_detector(masks: bool = False, v2: bool = False) -> nn.Module:
    norm = nn.BatchNorm2d if v2 else None
    body = TheirResNet(TheirBlock, [1, 1, 1, 1], norm_layer=norm or FrozenBatchNorm2d)
    del body.avgpool, body.fc
    layers, channels = {f"layer{i + 1}": str(i) for i in range(4)}, [64, 128, 256, 512]
    backbone = BackboneWithFPN(body, layers, channels, CHANNELS, LastLevelMaxPool(), norm)
    options = {
        "rpn_anchor_generator": AnchorGenerator(SIZES, ((0.5, 1.0, 2.0),) * 5),
        "rpn_head": RPNHead(CHANNELS, 3, conv_depth=2 if v2 else 1),
        "box_head": FastRCNNConvFCHead((CHANNELS, 7, 7), [CHANNELS] * 4, [HIDDEN], norm_layer=norm)
        if v2
        else TwoMLPHead(CHANNELS * 49, HIDDEN),
        "box_predictor": FastRCNNPredictor(HIDDEN, CLASSES),
        **{f"rpn_{when}_nms_top_n_{mode}": COUNT for when in ("pre", "post") for mode in ("train", "test")},
        "min_size": SHORTEST,
        "max_size": LONGEST,
        "box_detections_per_img": DETECTIONS,
    }
    if masks:
        heads = {
            "mask_head": MaskRCNNHeads(CHANNELS, (CHANNELS,) * 2, 1, norm_layer=norm),
            "mask_predictor": MaskRCNNPredictor(CHANNELS, CHANNELS, CLASSES),
        }
        return TheirMaskRCNN(backbone, **heads, **options)
    return TheirFasterRCNN(backbone, **options)


def our_detector(masks: bool = False, v2: bool = False) -> FasterRCNN:
    body = ResNet(BasicBlock, (1, 1, 1, 1), normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    backbone = FPN(body if v2 else freeze_batch_norm(body), CHANNELS, extra=PoolLevel())
    if v2:
        normalize_pyramid(backbone)
    head = ConvolutionalHead(CHANNELS, 7, HIDDEN) if v2 else TwoLayerHead(CHANNELS, 7, HIDDEN)
    parts = {"rpn": RPN(CHANNELS, SIZES, depth=1 + v2), "head": head, "max_proposals": (COUNT, COUNT)}
    if masks:
        mask_head = MaskHead(CHANNELS, depth=2, batch_norm=v2)
        return MaskRCNN(backbone, CLASSES, mask_head, {"max_detections": DETECTIONS}, **parts)
    return FasterRCNN(backbone, CLASSES, **parts)


def twins(masks: bool = False, v2: bool = False) -> tuple[nn.Module, FasterRCNN]:
    """Theirs and ours with the same random weights, in float64 and evaluation mode."""
    theirs, ours = randomise(their_detector(masks, v2)), our_detector(masks, v2).double().eval()
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "bbox_pred" in name:  # boxes that move by a part of their sides, not by e to the fifth
                weight *= 0.3
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for name, numbers in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):  # not those of float32
        setattr(ours.backbone.body.normalize, name, torch.tensor(numbers, dtype=torch.float64).reshape(-1, 1, 1))
    with torch.no_grad():  # no class that wins everywhere
        mean = ours(*batch_of(draw_images(IMAGES)))["class_logits"].mean(0)
        for predictor in (theirs.roi_heads.box_predictor, ours.roi_heads["box_predictor"]):
            predictor.cls_score.bias -= mean
    return theirs, ours


def draw_images(sizes: list[tuple[int, int]], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, *size, generator=generator, dtype=torch.float64) for size in sizes]


def batch_of(images: list[Tensor], multiple: int = 32) -> tuple[Tensor, list[tuple[int, int]]]:
    return resize_and_pad(images, SHORTEST, LONGEST, multiple, fill=IMAGENET_MEAN)


def draw_targets(sizes: list[tuple[int, int]], counts: list[int], seed: int = 0) -> list[dict[str, Tensor]]:
    """Boxes of many sizes, with masks that fill them but for a corner."""
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for (height, width), count in zip(sizes, counts, strict=True):
        corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 0.5
        side = 0.1 + 0.4 * torch.rand(count, 2, generator=generator, dtype=torch.float64)
        boxes = torch.cat([corner, corner + side], 1) * torch.tensor([width, height, width, height])
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        x1, y1, x2, y2 = boxes[:, :, None, None].unbind(1)
        masks = (x > x1) & (x < x2) & (y > y1) & (y < y2) & (x - x1 > 0.3 * (y2 - y))
        labels = torch.randint(1, CLASSES, (count,), generator=generator)
        targets.append({"boxes": boxes, "labels": labels, "masks": masks})
    return targets


def fix_samplers(patch: pytest.MonkeyPatch) -> None:
    """The first positives and the first negatives, on both sides."""

    def theirs(self: BalancedPositiveNegativeSampler, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        chosen: tuple[list[Tensor], list[Tensor]] = ([], [])
        for label in labels:
            count = int(self.batch_size_per_image * self.positive_fraction)
            first = (label >= 1).nonzero().flatten()[:count]
            second = (label == 0).nonzero().flatten()[: self.batch_size_per_image - len(first)]
            for rows, out in zip((first, second), chosen, strict=True):
                out.append(torch.zeros_like(label, dtype=torch.uint8).index_fill(0, rows, 1))
        return chosen

    def ours(matches: Tensor, count: int, share: float, generator: object = None) -> tuple[Tensor, Tensor]:
        first = (matches >= 0).nonzero().flatten()[: int(count * share)]
        return first, (matches == -1).nonzero().flatten()[: count - len(first)]

    assign = RegionProposalNetwork.assign_targets_to_anchors

    def in_double(*given: object) -> tuple[list[Tensor], list[Tensor]]:
        labels, boxes = assign(*given)
        return [label.double() for label in labels], boxes  # theirs are float32, and so would the loss be

    patch.setattr(RegionProposalNetwork, "assign_targets_to_anchors", in_double)
    patch.setattr(BalancedPositiveNegativeSampler, "__call__", theirs)
    patch.setattr(proposals, "sample_matches", ours)
    patch.setattr(faster_rcnn, "sample_matches", ours)
