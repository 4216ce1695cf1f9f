"""R-CNN: every proposal is warped to a fixed size and classified by a network made for whole images.

Paper: Girshick, Donahue, Darrell, Malik, "Rich Feature Hierarchies for Accurate Object Detection and Semantic
    Segmentation", CVPR 2014, arXiv 1311.2524.
Idea: Selective search proposes boxes, and a network pre-trained for image classification classifies them. The network
    is fine-tuned on warped proposals with a softmax. Then one linear support vector machine (SVM) per class scores its
    features, and one ridge regression per class refines the box. Every proposal is computed separately, two thousand
    per image.
Simplified: the SVMs and the box regressions use the same features (the paper uses fc7 and pool5). All features of the
    training images are in memory at once, so hard negatives are mined from them and not image by image.
Shapes: images (B, 3, H, W) and B proposals (P_i, 4) -> dict of `features` (P, D), `class_logits` (P, K) of the
    softmax, `svm_scores` (P, K - 1), `deltas` (P, K - 1, 4), with `proposals` and `sizes`. `postprocess`: the dict ->
    B dicts of `boxes`, `labels` and `scores`.
Quality: crops equal those of a loop over their pixels; the SVMs reach the objective of scikit-learn's fitted to all
    negatives at once within 1 %, the box regressions are scikit-learn's ridge regression. Detects at least three
    quarters of the objects of four synthetic scenes that it was trained on (tests/detection). From scratch on `shapes`:
    box AP50 at least 0.83 over three seeds, 45 CPU-seconds of training.
Course: 11-detection
Lab: 11_detection
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from segedu.layers.instance_targets import Size, check_targets
from segedu.layers.normalize import IMAGENET_MEAN
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.layers.proposals import Sampling, detections, label_proposals, sample_proposals
from segedu.losses.reduction import full_precision
from segedu.ops.anchors import decode_boxes
from segedu.ops.boxes import box_iou
from segedu.ops.warp_boxes import warp_boxes
from segedu.unsupervised.selective_search import FAST, Strategy, selective_search
from segedu.validation.boxes import check_proposals
from segedu.validation.images import check_images, check_sizes
from segedu.validation.numbers import check_integer
from segedu.validation.tensors import check_keys

Targets = Sequence[Mapping[str, Tensor]]
KEYS = ("features", "class_logits", "svm_scores", "deltas", "proposals", "sizes")
FEATURE_NORM = 20.0  # features are scaled to this mean length for the SVMs, as in the authors' program
RIDGE = 1000.0  # the paper's lambda
MIN_REGRESSION_IOU = 0.6  # smallest IoU of proposals that the box regressions are fitted to (appendix C)
SAMPLING = Sampling()


class CropFeatures(nn.Module):
    """The last features of a backbone, average-pooled to a grid and flattened to one vector.

    Args:
        backbone: images -> list of features, with `channels`, such as `VGG` or `ResNet`.
        grid_size: number of cells along each side of the grid.
    """

    def __init__(self, backbone: nn.Module, grid_size: int = 2) -> None:
        super().__init__()
        self.backbone, self.grid_size = backbone, grid_size
        self.channels = backbone.channels[-1] * grid_size**2

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.backbone(images)[-1], self.grid_size).flatten(1)  # (N, D)


class RCNN(nn.Module):
    """Features of warped proposals, and three linear layers applied to them.

    `classifier` is trained by gradient descent together with the features (`rcnn_loss`). Then, with the features fixed,
    `fit_heads` sets `svm` and `box`.

    Args:
        features: crops (N, 3, S, S) -> (N, D), with `channels`, which is D, such as `CropFeatures`.
        num_classes: K, including the background.
        crop_size: S. The paper's network takes 227.
        context: pixels on every side of a crop that show the surroundings of the box. The paper has 16.
        sampling: how proposals are sampled if targets are given.
        strategies: strategies of the selective search, which runs if no proposals are given.
        max_proposals: how many boxes of the selective search are used.
        fill: values of a crop outside the image: the mean of the images, one value per channel.
    """

    def __init__(
        self,
        features: nn.Module,
        num_classes: int,
        crop_size: int = 227,
        context: int = 16,
        sampling: Sampling = SAMPLING,
        strategies: Sequence[Strategy] = FAST,
        max_proposals: int = 2000,
        fill: Sequence[float] = IMAGENET_MEAN,
    ) -> None:
        super().__init__()
        self.num_classes = check_integer("num_classes", num_classes, minimum=2)
        self.crop_size, self.context = crop_size, context
        self.sampling, self.strategies, self.max_proposals = sampling, strategies, max_proposals
        self.fill = tuple(fill)
        self.features = features
        self.classifier = nn.Linear(features.channels, num_classes)
        self.svm = nn.Linear(features.channels, num_classes - 1)
        self.box = nn.Linear(features.channels, 4 * (num_classes - 1))

    def forward(
        self,
        images: Tensor,
        sizes: Sequence[Size] | None = None,
        targets: Targets | None = None,
        proposals: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Any]:
        check_images(images, len(self.fill))
        sizes = check_sizes(sizes, images)
        views = [image[:, :height, :width] for image, (height, width) in zip(images, sizes, strict=True)]
        if proposals is None:
            proposals = [selective_search(view, self.strategies)[: self.max_proposals] for view in views]
        proposals = check_proposals(proposals, images)
        if targets is not None:
            targets = check_targets(targets, sizes, self.num_classes)
            proposals = sample_proposals(proposals, targets, self.sampling, generator)
        pairs = zip(views, proposals, strict=True)
        crops = torch.cat([warp_boxes(view, boxes, self.crop_size, self.context, self.fill) for view, boxes in pairs])
        features = self.features(crops) if len(crops) else images.new_zeros(0, self.svm.in_features)  # (P, D)
        outputs = {
            "features": features,
            "class_logits": self.classifier(features),
            "svm_scores": self.svm(features),
            "deltas": self.box(features).unflatten(1, (-1, 4)),
            "proposals": proposals,
            "sizes": sizes,
        }
        return onnx_outputs(outputs)


def rcnn_loss(outputs: Mapping[str, Any], targets: Targets) -> dict[str, Tensor]:
    """The loss for fine-tuning the features: cross-entropy of K classes over the proposals (section 2.3).

    Args:
        outputs: outputs of `RCNN` when it was called with these targets.
        targets: B dicts with `boxes` and `labels`.

    Returns:
        Scalars `classes` and `loss`, which are equal; 0 if there is no proposal.
    """
    check_keys("outputs", outputs, KEYS)
    logits = full_precision(outputs["class_logits"])
    targets = check_targets(targets, outputs["sizes"], logits.shape[1])
    pairs = zip(outputs["proposals"], targets, strict=True)
    labels = torch.cat([label_proposals(boxes, target)[0] for boxes, target in pairs])
    loss = F.cross_entropy(logits, labels, reduction="sum") / max(len(labels), 1)
    return {"classes": loss, "loss": loss}


@torch.no_grad()
def fit_heads(model: RCNN, outputs: Mapping[str, Any], targets: Targets, *, cost: float = 1e-3) -> None:
    """Fit the support vector machines and the box regressions of a model to its features, in place.

    Args:
        model: the network, whose layers `svm` and `box` are changed.
        outputs: outputs of the model in evaluation mode, without targets, but with the ground-truth boxes among the
            proposals (`add_ground_truth`): the SVMs count only these as objects.
        targets: B dicts with `boxes` and `labels`.
        cost: C of the SVMs, the weight of misclassifications relative to wide margins.
    """
    check_keys("outputs", outputs, KEYS)
    targets = check_targets(targets, outputs["sizes"], model.num_classes)
    features = full_precision(outputs["features"])
    signs, labels, deltas = [], [], []
    for boxes, target in zip(outputs["proposals"], targets, strict=True):
        signs.append(svm_labels(boxes, target, model.num_classes))
        box_labels, box_deltas = label_proposals(boxes, target, MIN_REGRESSION_IOU)
        labels.append(box_labels)
        deltas.append(box_deltas)
    signs, labels, deltas = torch.cat(signs), torch.cat(labels), torch.cat(deltas).to(features)
    for c in range(model.num_classes - 1):
        model.svm.weight[c], model.svm.bias[c] = fit_svm(features, signs[:, c], cost)
        of_class = labels == c + 1
        weight, bias = fit_ridge(features[of_class], deltas[of_class], RIDGE)
        model.box.weight[4 * c : 4 * c + 4], model.box.bias[4 * c : 4 * c + 4] = weight, bias


def svm_labels(proposals: Tensor, target: Mapping[str, Tensor], num_classes: int, negative_iou: float = 0.3) -> Tensor:
    """Labels of proposals for the SVM of each class, stricter than the labels for fine-tuning.

    Args:
        proposals: (P, 4) of one image.
        target: `boxes` and `labels` of the image.
        num_classes: K, including the background.
        negative_iou: proposals whose IoU with every object of the class is below this are negatives. Paper: found by
            a grid search.

    Returns:
        (P, K - 1) int64: 1 for a ground-truth box of the class, -1 if the IoU with every object of the class is below
        `negative_iou`, otherwise 0: the proposal is ignored.

    >>> target = {"boxes": torch.tensor([[0.0, 0.0, 4.0, 4.0]]), "labels": torch.tensor([2])}
    >>> svm_labels(torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0]]), target, num_classes=3)
    tensor([[-1,  1],
            [-1,  0]])
    """
    iou = box_iou(proposals, target["boxes"].to(proposals))  # (P, N)
    classes = torch.arange(1, num_classes, device=proposals.device)
    of_class = target["labels"].to(proposals.device)[:, None] == classes  # (N, K - 1)
    best = torch.cat([torch.where(of_class, iou[..., None], 0), iou.new_zeros(len(iou), 1, num_classes - 1)], 1).amax(1)
    return (best > 1 - 1e-6).long() - (best < negative_iou).long()


def fit_svm(features: Tensor, labels: Tensor, cost: float = 1e-3, passes: int = 3) -> tuple[Tensor, Tensor]:
    """Fit one linear support vector machine with hard-negative mining: only misclassified negatives are added.

    Args:
        features: (P, D).
        labels: (P,) 1, -1 or 0, which is ignored.
        cost: C; a positive counts twice.
        passes: maximum number of passes over the negatives.

    Returns:
        Weights (D,) and bias () such that features @ weights + bias is above 0 for objects of the class. A class
        without a positive or without a negative has the weight 0 and the bias -1 or 1.
    """
    positive, negative = labels == 1, labels == -1
    if not (positive.any() and negative.any()):
        return torch.zeros_like(features[:0].sum(0)), features.new_tensor(1.0 if positive.any() else -1.0)
    scale = FEATURE_NORM / features.norm(dim=1).mean().clamp(min=1e-12)
    points, signs = (scale * features).cpu().numpy(), labels.cpu().numpy()
    selected = positive | (negative & (negative.cumsum(0) <= 10 * positive.sum()))
    for _ in range(passes):
        svm = LinearSVC(
            C=cost, loss="hinge", class_weight={1: 2.0}, intercept_scaling=10.0, max_iter=20000, random_state=0
        )
        rows = selected.cpu().numpy()
        svm.fit(points[rows], signs[rows])
        weight = scale * torch.as_tensor(svm.coef_[0]).to(features)
        bias = torch.as_tensor(svm.intercept_[0]).to(features)
        hard_negative = negative & (features @ weight + bias > -1) & ~selected
        if not hard_negative.any():
            break
        selected = selected | hard_negative
    return weight, bias


def fit_ridge(features: Tensor, targets: Tensor, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Ridge regression in closed form (equation 5); the bias is not penalised.

    Args:
        features: (P, D).
        targets: (P, T).
        ridge: lambda of the penalty, above 0.

    Returns:
        Weights (T, D) and biases (T,), all 0 if P is 0.

    >>> fit_ridge(torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0], [4.0]]), ridge=2.0)
    (tensor([[1.]]), tensor([2.]))
    """
    if not len(features):
        return features.new_zeros(targets.shape[1], features.shape[1]), features.new_zeros(targets.shape[1])
    mean, centre = features.mean(0), targets.mean(0)
    x = features - mean
    gram = x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(gram, x.T @ (targets - centre)).T  # (T, D)
    return weight, centre - weight @ mean


def postprocess(
    outputs: Mapping[str, Any], *, score_threshold: float = 0.0, iou_threshold: float = 0.3, max_detections: int = 100
) -> list[dict[str, Tensor]]:
    """Convert outputs to detections: refined boxes, then non-maximum suppression within each class.

    Args:
        outputs: outputs of `RCNN` when it was called without targets.
        score_threshold: detections need an SVM score above this; 0 is the decision boundary of the SVM.
        iou_threshold: a detection is dropped if its IoU with a higher-scoring one of its class exceeds this.
        max_detections: maximum number of detections per image.

    Returns:
        B dicts of `boxes` (N, 4), `labels` (N,) and `scores` (N,), highest score first.
    """
    check_keys("outputs", outputs, KEYS)
    boxes = decode_boxes(outputs["deltas"].detach(), torch.cat(list(outputs["proposals"]))[:, None])
    return detections(boxes, outputs["svm_scores"].detach(), outputs, score_threshold, iou_threshold, max_detections)
