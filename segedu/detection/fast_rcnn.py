"""Fast R-CNN: one pass of the network over the image, then every proposal is pooled from the shared features.

Paper: Girshick, "Fast R-CNN", ICCV 2015, arXiv 1504.08083.
Idea: A convolution computes the same features wherever it is applied, so the features of a proposal can be cropped from
    those of the image. RoI pooling resizes the features of every box to one small grid, and two fully connected layers
    process this grid. One loss trains everything together: softmax for the class, and smooth L1 for the box of the
    ground-truth class. No support vector machines, and no features on disk.
Simplified: the two layers are not compressed by a singular value decomposition (section 3.1). Deltas are scaled by
    constants instead of by their standard deviation in the training set.
Shapes: images (B, 3, H, W) and B proposals (P_i, 4) -> dict of `class_logits` (P, K), 0 is background, `deltas`
    (P, K, 4), with `proposals` and `sizes`. `postprocess`: the dict -> B dicts of `boxes`, `labels` and `scores`.
Quality: head, losses and detections equal torchvision's with the same weights; a small Fast R-CNN fits four synthetic
    scenes (tests/detection). From scratch on `shapes`: box AP50 at least 0.86 over three seeds, 30 CPU-seconds of
    training.
Course: 11-detection
Lab: 11_detection
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.vgg import VGG, vgg16
from segedu.layers.instance_targets import Size, check_targets
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.layers.proposals import Sampling, Targets, detections, label_proposals, sample_proposals
from segedu.losses.reduction import full_precision
from segedu.losses.regression import smooth_l1_loss
from segedu.ops.anchors import decode_boxes
from segedu.ops.roi_pool import roi_pool
from segedu.validation.boxes import check_proposals
from segedu.validation.images import check_sizes
from segedu.validation.numbers import check_integer
from segedu.validation.tensors import check_keys, check_tensor_dict

KEYS = ("class_logits", "deltas", "proposals", "sizes")
WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # weights of the deltas: about 1 over their standard deviation
SAMPLING = Sampling(count=64, positive_fraction=0.25, positive_iou=0.5, negative_iou=0.1)  # section 2.3


class LastConvolutions(nn.Module):
    """A VGG without its last pooling, which RoI pooling replaces: one feature map of stride 16.

    The layers are those of the given VGG, not copies.
    """

    def __init__(self, vgg: VGG) -> None:
        super().__init__()
        self.normalize, self.features = vgg.normalize, vgg.features[:-1]
        self.in_channels, self.channels, self.strides = vgg.in_channels, vgg.channels[-1:], vgg.strides[-2:-1]

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.features(self.normalize(images))]


class TwoLayerHead(nn.Module):
    """Two fully connected layers applied to the pooled features of each proposal.

    Args:
        in_channels: C of the features.
        size: height and width of the pooled grid.
        hidden: width of both layers.
        dropout: dropout probability after each layer. Paper: 0.5, as in VGG.
    """

    def __init__(self, in_channels: int, size: int = 7, hidden: int = 4096, dropout: float = 0.0) -> None:
        super().__init__()
        self.size, self.channels = size, hidden
        self.fc6 = nn.Linear(in_channels * size**2, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pooled: Tensor) -> Tensor:
        x = self.dropout(self.fc6(pooled.flatten(1)).relu())
        return self.dropout(self.fc7(x).relu())  # (P, hidden)


class BoxPredictor(nn.Module):
    """Two parallel linear layers: class logits, and four box deltas for each class.

    Args:
        in_channels: length of the vector of a proposal.
        num_classes: K, including the background.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = check_integer("num_classes", num_classes, minimum=2)
        self.cls_score = nn.Linear(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, 4 * num_classes)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(vectors), self.bbox_pred(vectors).unflatten(1, (-1, 4))  # (P, K), (P, K, 4)


class FastRCNN(nn.Module):
    """Fast R-CNN on one feature map: RoI pooling, a head, and predictions of class and box.

    Args:
        backbone: images -> list of features, with `channels` and `strides`, such as `LastConvolutions` or `ResNet`.
        num_classes: K, including the background.
        level: index of the features that proposals are pooled from.
        head: pooled features (P, C, size, size) -> (P, D), with `size` and `channels`; None for `TwoLayerHead`.
        sampling: how proposals are sampled if targets are given.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        level: int = -1,
        head: nn.Module | None = None,
        sampling: Sampling = SAMPLING,
    ) -> None:
        super().__init__()
        self.backbone, self.level, self.sampling = backbone, level, sampling
        self.box_head = TwoLayerHead(backbone.channels[level]) if head is None else head
        self.box_predictor = BoxPredictor(self.box_head.channels, num_classes)

    def forward(
        self,
        images: Tensor,
        proposals: Sequence[Tensor],
        sizes: Sequence[Size] | None = None,
        targets: Targets | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Any]:
        features = self.backbone(images)[self.level]
        sizes, proposals = check_sizes(sizes, images), check_proposals(proposals, images)
        if targets is not None:
            targets = check_targets(targets, sizes, self.box_predictor.num_classes)
            proposals = sample_proposals(proposals, targets, self.sampling, generator)
        size = (self.box_head.size, self.box_head.size)
        pooled = roi_pool(features, proposals, size, 1 / self.backbone.strides[self.level])  # (P, C, 7, 7)
        class_logits, deltas = self.box_predictor(self.box_head(pooled))
        return onnx_outputs({"class_logits": class_logits, "deltas": deltas, "proposals": proposals, "sizes": sizes})


def fast_rcnn_vgg16(num_classes: int = 21, **options: Any) -> FastRCNN:
    """The paper's network L: VGG16 with RoI pooling to 7x7 in place of its last pooling, and its layers fc6 and fc7.

    Args:
        num_classes: K, including the background; 21 for Pascal VOC.
        **options: arguments of `FastRCNN`.
    """
    backbone = LastConvolutions(vgg16(normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD)))
    head = TwoLayerHead(backbone.channels[-1], size=7, hidden=4096, dropout=0.5)
    return FastRCNN(backbone, num_classes, **{"head": head, **options})


def fast_rcnn_loss(
    outputs: Mapping[str, Any], targets: Targets, *, box_weight: float = 1.0, beta: float = 1.0
) -> dict[str, Tensor]:
    """The multi-task loss (equation 1), a mean over proposals. Background proposals have only a classification loss.

    Args:
        outputs: outputs of the network when it was called with these targets.
        targets: B dicts with `boxes` and `labels`.
        box_weight: lambda in the paper.
        beta: as in `smooth_l1_loss`.

    Returns:
        Scalars `classes` (cross-entropy), `box` (smooth L1 of the deltas of the ground-truth class), and their sum
        `loss`; all are 0 if there is no proposal.
    """
    logits, deltas = _check_outputs(outputs)
    targets = check_targets(targets, outputs["sizes"], logits.shape[1])
    pairs = zip(outputs["proposals"], targets, strict=True)
    matched = (label_proposals(boxes, target, weights=WEIGHTS) for boxes, target in pairs)
    labels, target_deltas = (torch.cat(parts) for parts in zip(*matched, strict=True))
    count, positive = max(len(labels), 1), torch.nonzero(labels).flatten()
    classes = F.cross_entropy(logits, labels, reduction="sum") / count
    box = deltas.sum() * 0
    if len(positive):
        preds = deltas[positive, labels[positive]]
        box = smooth_l1_loss(preds, target_deltas.to(deltas)[positive], beta=beta, reduction="sum")
        box = box_weight * box / count
    return {"classes": classes, "box": box, "loss": classes + box}


def postprocess(
    outputs: Mapping[str, Any], *, score_threshold: float = 0.05, iou_threshold: float = 0.5, max_detections: int = 100
) -> list[dict[str, Tensor]]:
    """Convert outputs to detections, with non-maximum suppression. A proposal may be detected as several classes.

    Args:
        outputs: outputs of the network when it was called without targets.
        score_threshold: detections need a softmax score above this.
        iou_threshold: a detection is dropped if its IoU with a higher-scoring one of its class exceeds this. Paper:
            R-CNN's, 0.3.
        max_detections: maximum number of detections per image.

    Returns:
        B dicts of `boxes` (N, 4), `labels` (N,) and `scores` (N,), highest score first.
    """
    logits, deltas = (tensor.detach() for tensor in _check_outputs(outputs))
    scores = logits.softmax(1)[:, 1:]
    boxes = decode_boxes(deltas[:, 1:], torch.cat(list(outputs["proposals"]))[:, None], WEIGHTS)
    return detections(boxes, scores, outputs, score_threshold, iou_threshold, max_detections)


def _check_outputs(outputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Class logits (P, K) and deltas (P, K, 4) in full precision, for as many proposals as the outputs have."""
    check_keys("outputs", outputs, KEYS)
    lengths = {"P": sum(len(boxes) for boxes in outputs["proposals"])}
    check_tensor_dict("outputs", outputs, lengths, class_logits="P? K", deltas="P? K 4")
    return full_precision(outputs["class_logits"]), full_precision(outputs["deltas"])
