"""R-CNN: proposals from elsewhere, each warped to one size and put through a network made for whole images.

Paper: Girshick, Donahue, Darrell, Malik, "Rich Feature Hierarchies for Accurate Object Detection and Semantic
    Segmentation", CVPR 2014, arXiv 1311.2524.
Idea: Selective search says where objects may be; a network that learnt to name images says what is there. It is
    tuned to warped proposals with a softmax, then one linear support vector machine a class judges its features, and
    a ridge regression a class moves the box. Every proposal is computed anew, two thousand times an image.
Simplified: features for the machines and for the boxes are the same (the paper takes fc7 and pool5). All features
    of the training images are in memory at once, so negatives are mined from them and not image by image.
Shapes: images (B, 3, H, W) and B proposals (P_i, 4) -> dict of `features` (P, D), `class_logits` (P, K) of the
    softmax, `svm_scores` (P, K - 1), `deltas` (P, K - 1, 4), with `proposals` and `sizes`. `postprocess`: the dict ->
    B dicts of `boxes`, `labels` and `scores`.
Quality: crops are those of a loop over their pixels; the machines reach the objective of scikit-learn's fitted to all
    negatives at once within 1 %, the boxes are its ridge regression. Finds three quarters of the objects of four drawn
    scenes that it learnt from, and more (its tests). From scratch on `shapes`: box AP50 at least 0.83 over three seeds,
    45 CPU-s.
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
from segedu.validation.tensors import check_keys

Targets = Sequence[Mapping[str, Tensor]]
KEYS = ("features", "class_logits", "svm_scores", "deltas", "proposals", "sizes")
NORM = 20.0  # the machines see features scaled to this mean length, as in the authors' program
RIDGE = 1000.0  # the paper's lambda
NEAR = 0.6  # IoU from which a proposal says something about the box of its object (appendix C)


SAMPLING = Sampling()


class CropFeatures(nn.Module):
    """The last features of a backbone, averaged in a grid of cells, as one vector.

    Args:
        backbone: images -> list of features, with `channels`, such as `VGG` or `ResNet`.
        cells: along each side of the grid.
    """

    def __init__(self, backbone: nn.Module, cells: int = 2) -> None:
        super().__init__()
        self.backbone, self.cells = backbone, cells
        self.channels = backbone.channels[-1] * cells**2

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.backbone(images)[-1], self.cells).flatten(1)  # (N, D)


class RCNN(nn.Module):
    """Features of warped proposals, and three linear layers that read them.

    `classifier` is trained by gradient descent with the features (`rcnn_loss`); `svm` and `box` are set by
    `fit_heads` when the features stand.

    Args:
        features: crops (N, 3, S, S) -> (N, D), with `channels`, which is D, such as `CropFeatures`.
        num_classes: K, with the background.
        crop_size: S. The paper's network takes 227.
        context: pixels of a crop on every side that show what is around the box. The paper has 16.
        sampling: of proposals, when targets are given.
        strategies: of the selective search where no proposals are given.
        max_proposals: the first so many of those are taken.
        fill: what a crop has outside of the image: the mean of the images, one number a channel.
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
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}, expected at least 2, of which one is the background")
        self.num_classes, self.crop_size, self.context = num_classes, crop_size, context
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
    """What the features are tuned by: cross-entropy of K classes over the proposals (section 2.3).

    Args:
        outputs: of `RCNN`, called with these targets.
        targets: B dicts with `boxes` and `labels`.

    Returns:
        Scalars `classes` and `loss`, which are equal; 0 if there is no proposal.

    Raises:
        TypeError: outputs or targets are no dicts of tensors.
        ValueError: a key is missing, or a shape or label does not fit.
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
    """Set the support vector machines and the box regressions of a model to what its features ask for.

    Args:
        model: whose `svm` and `box` are changed.
        outputs: of the model in evaluation, without targets, but with the ground truth among the proposals
            (`add_ground_truth`): only true boxes are objects to the machines.
        targets: B dicts with `boxes` and `labels`.
        cost: C of the machines, what a wrong answer costs against wide margins.

    Raises:
        TypeError: outputs or targets are no dicts of tensors.
        ValueError: a key is missing, or a shape or label does not fit.
    """
    check_keys("outputs", outputs, KEYS)
    targets = check_targets(targets, outputs["sizes"], model.num_classes)
    features = full_precision(outputs["features"])
    judged, labels, wanted = [], [], []
    for boxes, target in zip(outputs["proposals"], targets, strict=True):
        judged.append(svm_labels(boxes, target, model.num_classes))
        label, deltas = label_proposals(boxes, target, NEAR)
        labels.append(label)
        wanted.append(deltas)
    judged, labels, wanted = torch.cat(judged), torch.cat(labels), torch.cat(wanted).to(features)
    for c in range(model.num_classes - 1):
        model.svm.weight[c], model.svm.bias[c] = fit_svm(features, judged[:, c], cost)
        own = labels == c + 1
        weight, bias = fit_ridge(features[own], wanted[own], RIDGE)
        model.box.weight[4 * c : 4 * c + 4], model.box.bias[4 * c : 4 * c + 4] = weight, bias


def svm_labels(proposals: Tensor, target: Mapping[str, Tensor], num_classes: int, low: float = 0.3) -> Tensor:
    """What a proposal is to the machine of each class. The loose fits that tuned the features would blur it.

    Args:
        proposals: (P, 4) of one image.
        target: its `boxes` and `labels`.
        num_classes: K, with the background.
        low: the paper found this number by a grid search.

    Returns:
        (P, K - 1) int64: 1 for a true box of the class, -1 where the IoU with every object of the class is below
        `low`, 0 where neither: not learnt from.

    >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 4.0, 4.0]]), "labels": torch.tensor([2])}
    >>> svm_labels(torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0]]), truth, num_classes=3)
    tensor([[-1,  1],
            [-1,  0]])
    """
    iou = box_iou(proposals, target["boxes"].to(proposals))  # (P, N)
    own = target["labels"].to(proposals.device)[:, None] == torch.arange(
        1, num_classes, device=proposals.device
    )  # (N, K - 1)
    best = torch.cat([torch.where(own, iou[..., None], 0), iou.new_zeros(len(iou), 1, num_classes - 1)], 1).amax(1)
    return (best > 1 - 1e-6).long() - (best < low).long()


def fit_svm(features: Tensor, labels: Tensor, cost: float = 1e-3, passes: int = 3) -> tuple[Tensor, Tensor]:
    """One linear support vector machine, with hard negatives: only negatives that it gets wrong are added.

    Args:
        features: (P, D).
        labels: (P,) 1, -1 or 0, which is left out.
        cost: C; a positive counts twice.
        passes: at most so many times over the negatives.

    Returns:
        Weights (D,) and bias () such that features @ weights + bias is above 0 for objects of the class. A class
        without a positive or without a negative has the weight 0 and the bias -1 or 1.
    """
    positive, negative = labels == 1, labels == -1
    if not (positive.any() and negative.any()):
        return torch.zeros_like(features[:0].sum(0)), features.new_tensor(1.0 if positive.any() else -1.0)
    scale = NORM / features.norm(dim=1).mean().clamp(min=1e-12)
    points, answers = (scale * features).cpu().numpy(), labels.cpu().numpy()
    chosen = positive | (negative & (negative.cumsum(0) <= 10 * positive.sum()))  # to begin with
    for _ in range(passes):
        machine = LinearSVC(
            C=cost, loss="hinge", class_weight={1: 2.0}, intercept_scaling=10.0, max_iter=20000, random_state=0
        )
        rows = chosen.cpu().numpy()
        machine.fit(points[rows], answers[rows])
        weight = scale * torch.as_tensor(machine.coef_[0]).to(features)
        bias = torch.as_tensor(machine.intercept_[0]).to(features)
        hard = negative & (features @ weight + bias > -1) & ~chosen
        if not hard.any():
            break
        chosen = chosen | hard
    return weight, bias


def fit_ridge(features: Tensor, wanted: Tensor, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Linear regression with a penalty on the squared weights, in closed form (equation 5); the bias has none.

    Args:
        features: (P, D).
        wanted: (P, T).
        ridge: lambda of the penalty, above 0.

    Returns:
        Weights (T, D) and biases (T,), all 0 if P is 0.

    >>> fit_ridge(torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0], [4.0]]), ridge=2.0)
    (tensor([[1.]]), tensor([2.]))
    """
    if not len(features):
        return features.new_zeros(wanted.shape[1], features.shape[1]), features.new_zeros(wanted.shape[1])
    mean, centre = features.mean(0), wanted.mean(0)
    x = features - mean
    gram = x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(gram, x.T @ (wanted - centre)).T  # (T, D)
    return weight, centre - weight @ mean


def postprocess(
    outputs: Mapping[str, Any], *, score_threshold: float = 0.0, iou_threshold: float = 0.3, count: int = 100
) -> list[dict[str, Tensor]]:
    """Detections: what a machine takes for its class, moved by the regression of the class, then suppression.

    Args:
        outputs: of `RCNN` without targets.
        score_threshold: least score of a machine; 0 is its own decision.
        iou_threshold: a detection goes if its IoU with a better one of its class is above this.
        count: of an image at most.

    Returns:
        B dicts of `boxes` (N, 4), `labels` (N,) and `scores` (N,), the best first.

    Raises:
        TypeError: outputs are no dict.
        ValueError: a key is missing.
    """
    check_keys("outputs", outputs, KEYS)
    boxes = decode_boxes(outputs["deltas"].detach(), torch.cat(list(outputs["proposals"]))[:, None])
    return detections(boxes, outputs["svm_scores"].detach(), outputs, score_threshold, iou_threshold, count)
