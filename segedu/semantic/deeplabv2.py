"""DeepLab v2: atrous convolutions with four rates, summed, at three scales of the image, followed by a CRF.

Paper: Chen, Papandreou, Kokkinos, Murphy, Yuille, "DeepLab: Semantic Image Segmentation with Deep Convolutional
    Nets, Atrous Convolution, and Fully Connected CRFs", TPAMI 2018, arXiv 1606.00915.
Idea: Objects come in many sizes. Four classifiers read the same features with 3x3 kernels of rates 6, 12, 18
    and 24, and their scores are added. The network also processes the image at 3/4 and at half of its size; at
    each position and for each class, the highest of the three scores counts. A fully connected CRF sharpens borders.
Simplified: torchvision's ResNet in place of Caffe's, so that the stride is in the 3x3 convolutions and poolings
    round as torch does.
    There is no packaged reference: tests compare the sum with four separate convolutions, the merging with three
    separate passes, and the learning rates with the paper's formula.
Shapes: images (B, 3, H, W) -> logits (B, K, H, W), any H and W. `postprocess`: logits, and images to apply the CRF
    -> labels (B, H, W).
Quality: street: a recipe that asks for mean IoU 0.70 in 120 CPU-s; not measured with three seeds so far.
Course: 08-context
Lab: 08_context
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.layers.resize import at_corners, upsample_from_corner
from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic.dense_crf import highest_class_after_crf
from segedu.validation.images import check_images
from segedu.validation.numbers import check_integer, check_integers, check_number
from segedu.validation.tensors import check_floats, check_keys


class SummedASPP(nn.Module):
    """Atrous spatial pyramid pooling: one classifier per rate, and the sum of their scores.

    Args:
        in_channels: C of the features.
        num_classes: K.
        rates: dilation of each branch; the paper's ASPP-L. Its ASPP-S has 2, 4, 8, 12.
        width: channels of two layers before the classifier of each branch, 1024 on VGG-16. None: each branch is
            one 3x3 convolution to the classes, as the authors have it on ResNet-101.
        dropout: dropout probability after these two layers.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        rates: Sequence[int] = (6, 12, 18, 24),
        width: int | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not rates:
            raise ValueError("rates is empty, expected one or more dilations")
        check_integers(num_classes=num_classes, rates=rates)
        if width is not None:
            check_integer("width", width)
        self.branches = nn.ModuleList()
        for rate in rates:
            first = nn.Conv2d(in_channels, width or num_classes, kernel_size=3, padding=rate, dilation=rate)
            self.branches.append(first if width is None else _fully_connected(first, num_classes, dropout))

    def forward(self, features: Tensor) -> Tensor:
        return sum(branch(features) for branch in self.branches)


class DeepLabV2(nn.Module):
    """Backbone, summed ASPP, bilinear upsampling; at several scales of the image, merged by the maximum.

    Args:
        backbone: returns a list of features from fine to coarse, of which the last is used, and has `channels`,
            `strides` and `in_channels`. The paper's have output stride 8: `resnet101(output_stride=8)`, or `AtrousVGG`
            of DeepLab v1.
        num_classes: K, background included.
        rates: of the ASPP.
        width: channels of two more layers in each branch, or None, see `SummedASPP`.
        scales: scales of the image, the first of them 1. The cost of a pass grows with the square of the scale: all
            three of the paper's cost 1.8 passes.
        dropout: dropout probability in the branches, if they have more layers.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        rates: Sequence[int] = (6, 12, 18, 24),
        width: int | None = None,
        scales: Sequence[float] = (1.0, 0.75, 0.5),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not scales or scales[0] != 1 or min(scales) <= 0:
            raise ValueError(f"scales is {tuple(scales)}, expected 1 first and only numbers above 0")
        self.num_classes, self.scales, self.stride = num_classes, tuple(scales), backbone.strides[-1]
        self.backbone = backbone
        self.aspp = SummedASPP(backbone.channels[-1], num_classes, rates, width, dropout)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_with_scales(images)["out"]

    def forward_with_scales(self, images: Tensor) -> dict[str, Tensor]:
        """Merged logits, and the logits of each scale, for `deeplabv2_loss`.

        Returns:
            `out` (B, K, H, W), which `forward` returns, and `scales` (B, S, K, H, W), the logits of the S scales in the
            order of the argument `scales`.
        """
        check_images(images, self.backbone.in_channels)
        size = tuple(images.shape[-2:])
        scores = [self.aspp(self.backbone(_scaled(images, scale))[-1]) for scale in self.scales]
        shape = scores[0].shape[-2:]  # (h, w) at scale 1
        scores = [_resize(score, shape) for score in scores]
        merged = torch.stack(scores).amax(dim=0)  # (S, B, K, h, w) -> (B, K, h, w)
        out, *each = (upsample_from_corner(score, self.stride, size) for score in (merged, *scores))
        return {"out": out, "scales": torch.stack(each, dim=1)}


def deeplabv2_loss(outputs: Mapping[str, Tensor], target: Tensor, stride: int = 8) -> Tensor:
    """Sum of the cross-entropies of the merged scores and of each scale, at every eighth row and column.

    Args:
        outputs: `out` (B, K, H, W) and `scales` (B, S, K, H, W), of `DeepLabV2.forward_with_scales`.
        target: (B, H, W) int64; 255 is ignored.
        stride: of the backbone.
    """
    check_keys("outputs", outputs, ("out", "scales"))
    check_floats("outputs['scales']", outputs["scales"], "B S K H W")
    all_logits = [outputs["out"], *outputs["scales"].unbind(dim=1)]
    return sum(cross_entropy(*at_corners(logits, target, stride), ignore_index=255) for logits in all_logits)


def parameter_groups(model: DeepLabV2, learning_rate: float = 0.001, factor: float = 10) -> list[dict[str, Any]]:
    """Parameter groups for a torch optimiser: the new classifier has a higher learning rate than the backbone.

    Args:
        model: the network to train.
        learning_rate: of the backbone, 0.001 in the paper.
        factor: the classifier's learning rate is `factor` times that of the backbone, 10 in the paper.

    Returns:
        Two groups with `params` and `lr`, the backbone's first.
    """
    check_number("learning_rate", learning_rate, exclusive=True)
    check_number("factor", factor, exclusive=True)
    parts = (model.backbone, learning_rate), (model.aspp, learning_rate * factor)
    return [{"params": list(part.parameters()), "lr": rate} for part, rate in parts]


def poly_decay(step: int, steps: int, power: float = 0.9) -> float:
    """The poly policy: factor of the learning rate at a step, (1 - step / steps) ** power.

    Args:
        step: from 0 to `steps`.
        steps: length of the training.
        power: 0.9 in the paper; 1 is a straight line to 0.

    Returns:
        A factor from 1 to 0, for `torch.optim.lr_scheduler.LambdaLR`.

    >>> [round(poly_decay(step, 4), 3) for step in range(5)]
    [1.0, 0.772, 0.536, 0.287, 0.0]
    """
    check_integer("steps", steps)
    check_integer("step", step, 0, steps)
    check_number("power", power)
    return (1 - step / steps) ** power


postprocess = highest_class_after_crf


def _fully_connected(first: nn.Conv2d, num_classes: int, dropout: float) -> nn.Sequential:
    """fc6, fc7 and fc8 of VGG-16 as convolutions."""
    width = first.out_channels
    return nn.Sequential(
        first,
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(width, width, kernel_size=1),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(width, num_classes, kernel_size=1),
    )


def _scaled(images: Tensor, scale: float) -> Tensor:
    """Resize images so that pixel y of the result lies at y / scale of the image, as far as integer sizes allow."""
    return _resize(images, tuple(round(scale * (pixels - 1)) + 1 for pixels in images.shape[-2:]))


def _resize(values: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    return F.interpolate(values, size=tuple(size), mode="bilinear", align_corners=True)
