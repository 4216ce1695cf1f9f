"""FCN: a classification network made convolutional predicts a coarse score map, and finer layers refine it.

Paper: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
    arXiv 1411.4038.
Idea: A fully connected layer is a convolution whose kernel covers all of its input. On a larger image, this
    convolution gives a map of scores instead of one score. While the coarse map is upsampled, scores of finer layers
    are added to it (FCN-16s, FCN-8s). Upsampling is a transposed convolution, initialised to bilinear interpolation.
Simplified: the three networks are trained at once; the paper trains FCN-32s first, then FCN-16s, then FCN-8s. The
    score layer of the head is initialised at random, so that the backbone learns from the first iteration; the
    paper's is initialised to zero.
Shapes: images (B, C, H, W) -> logits (B, K, H, W), any H and W. `postprocess`: logits -> labels (B, H, W).
    `fcn_vgg16(21, stride=8)` is the paper's FCN-8s. For a small one that trains in minutes on a CPU:
    FCN(ResNet(BasicBlock, (1, 1, 1, 1), widths=(16, 32, 64, 128)), num_classes=10, stride=8).
Quality: street: mean IoU 0.7862 (FCN-8), the least of three seeds (forest 0.48), 93.8 CPU-s, from the small VGG.
    pets: mean IoU 0.8262 on test, 0.7704 on other breeds (FCN-8), one seed (forest 0.63, 0.58), 60 CPU-s in bfloat16,
    from the VGG of the encoder U-Net on pets.
Course: 05-fcn
Lab: 05_fcn
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.resnet import resnet50, resnet101
from segedu.backbones.vgg import VGG, VGG16_STAGES
from segedu.layers.conv import conv_head
from segedu.layers.labels import highest_class
from segedu.layers.resize import upsample_to
from segedu.validation.images import check_images
from segedu.validation.numbers import check_choice, check_integer, check_integers, check_length, check_size
from segedu.validation.tensors import check_tensor


def fc_to_conv(weight: Tensor, bias: Tensor, kernel_size: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Convert a fully connected layer to a convolution that computes the same values.

    The layer reads features (C, h, w) flattened in this order.

    Args:
        weight: (O, C h w), as in `nn.Linear`.
        bias: (O,).
        kernel_size: (h, w) of the features that the layer reads, or one integer for both.

    Returns:
        Weight (O, C, h, w) and bias (O,) for `nn.Conv2d`, without padding.

    >>> weight, bias = fc_to_conv(torch.arange(8.0).reshape(1, 8), torch.tensor([5.0]), kernel_size=2)
    >>> weight
    tensor([[[[0., 1.],
              [2., 3.]],
    <BLANKLINE>
             [[4., 5.],
              [6., 7.]]]])
    """
    sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    height, width = check_size("kernel_size", sides)
    check_tensor("weight", weight, "O I")
    if weight.shape[1] % (height * width):
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, expected (O, I) with I a multiple of {height * width}"
        )
    check_tensor("bias", bias, "O", {"O": len(weight)})
    return weight.reshape(len(weight), -1, height, width), bias


def bilinear_kernel(channels: int, kernel_size: int) -> Tensor:
    """Weight of a transposed convolution that interpolates each channel bilinearly.

    For stride f, use a kernel size of 2 f (or 2 f - 1). Along each axis, the kernel is the tent
    1 - |distance to the centre| / f; the centre of an even kernel lies between two pixels.

    Returns:
        (C, C, kernel_size, kernel_size), float32, with zeros between different channels.

    >>> bilinear_kernel(1, 3)
    tensor([[[[0.2500, 0.5000, 0.2500],
              [0.5000, 1.0000, 0.5000],
              [0.2500, 0.5000, 0.2500]]]])
    >>> bilinear_kernel(2, 4)[0, 0, 1], bilinear_kernel(2, 4)[0, 1].sum()
    (tensor([0.1875, 0.5625, 0.5625, 0.1875]), tensor(0.))
    """
    check_integers(channels=channels, kernel_size=kernel_size)
    factor = (kernel_size + 1) // 2
    centre = (kernel_size - 1) / 2
    tent = 1 - (torch.arange(kernel_size) - centre).abs() / factor
    return torch.eye(channels)[:, :, None, None] * torch.outer(tent, tent)


class ClassifierHead(nn.Sequential):
    """The three fully connected layers of VGG as convolutions.

    Args:
        in_channels: C of the coarsest features.
        num_classes: K.
        hidden: channels of fc6 and fc7.
        kernel_size: of fc6, which has no padding: the map loses kernel_size - 1 rows and columns.
    """

    def __init__(self, in_channels: int, num_classes: int, hidden: int = 4096, kernel_size: int = 7) -> None:
        super().__init__()
        check_integers(in_channels=in_channels, num_classes=num_classes, hidden=hidden, kernel_size=kernel_size)
        self.fc6 = nn.Conv2d(in_channels, hidden, kernel_size)
        self.relu6 = nn.ReLU(inplace=True)
        self.drop6 = nn.Dropout(0.5)
        self.fc7 = nn.Conv2d(hidden, hidden, kernel_size=1)
        self.relu7 = nn.ReLU(inplace=True)
        self.drop7 = nn.Dropout(0.5)
        self.score = nn.Conv2d(hidden, num_classes, kernel_size=1)

    @torch.no_grad()
    def load_fully_connected(self, fc6: nn.Linear, fc7: nn.Linear) -> None:
        """Copy the weights of two fully connected layers, such as `classifier[0]` and `[3]` of torchvision's VGG-16.

        If a layer has no bias, or not as many weights as its convolution, neither is copied (ValueError).
        """
        pairs = (("fc6", self.fc6, fc6), ("fc7", self.fc7, fc7))
        for name, conv, linear in pairs:
            expected = conv.out_channels, conv.weight[0].numel()
            if linear.weight.shape != expected or linear.bias is None:
                article = "no" if linear.bias is None else "a"
                actual = f"{article} bias and weights of shape {tuple(linear.weight.shape)}"
                raise ValueError(f"{name} has {actual}, expected a bias and {expected}")
        for _, conv, linear in pairs:
            weight, bias = fc_to_conv(linear.weight, linear.bias, conv.kernel_size)
            conv.weight.copy_(weight)
            conv.bias.copy_(bias)


class BilinearUpsample(nn.Module):
    """Bilinear upsampling by an even factor: (B, K, h, w) -> (B, K, factor (h + 1), factor (w + 1)).

    The result extends half a cell beyond the input on each side. Paper: this last layer is fixed. Its weight is
    therefore a buffer, which the optimiser does not see and the state dict does not contain.
    """

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        check_integers(channels=channels, factor=factor)
        if factor % 2:
            raise ValueError(f"factor is {factor}, expected an even integer")
        self.channels, self.factor = channels, factor
        self.register_buffer("weight", bilinear_kernel(1, 2 * factor).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        # grouped, because the zeros between channels would cost K times the work
        return F.conv_transpose2d(logits, self.weight, stride=self.factor, groups=self.channels)


class FCN(nn.Module):
    """Upsample the scores of the coarsest features, and add the scores of finer features on the way.

    All maps are aligned by one rule. A map of stride s starts at some pixel of the image, negative if the map extends
    beyond the image. The head loses cells, so its map starts later; an upsampled map starts half a cell earlier. Two
    maps are cropped to the cells that both have before they are added. With a border of 99 pixels, which is what
    padding 100 adds, this gives the crops in the authors' files: 19 for FCN-32s, 5 and 27 for 16s, 5, 9 and 31 for 8s.

    Args:
        backbone: returns features from fine to coarse; has `in_channels`, and `channels` and `strides` of each feature.
        num_classes: K, background included.
        stride: of the finest features with scores, 32, 16 or 8 in the paper.
        head: maps the coarsest features (B, C, h, w) to (B, K, h', w'). None: one 1x1 convolution.
        border: pixels that the backbone adds on each side of the image. A head that loses cells needs a border, or the
            logits do not reach the border of the image (ValueError in `forward`).
        skip_scales: one factor for each finer feature, coarse to fine; None: 1. Small factors allow training at once.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        stride: int = 8,
        head: nn.Module | None = None,
        border: int = 0,
        skip_scales: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        strides = backbone.strides
        check_integers(num_classes=num_classes)
        check_integer("border", border, 0)
        if stride not in strides or stride % 2:
            raise ValueError(f"stride is {stride}, expected an even one of the backbone's {tuple(strides)}")
        self.backbone, self.border = backbone, border
        self.head = nn.Conv2d(backbone.channels[-1], num_classes, kernel_size=1) if head is None else head
        # the last feature of each stride, coarse to fine, without the coarsest
        level_of_stride = {s: level for level, s in enumerate(strides)}
        self.levels = [level_of_stride[s] for s in sorted(level_of_stride, reverse=True) if stride <= s < strides[-1]]
        self.skip_scales = [1.0] * len(self.levels) if skip_scales is None else list(skip_scales)
        check_length("skip_scales", self.skip_scales, len(self.levels), of="finer feature")
        self.skip_scores, self.upscores = nn.ModuleList(), nn.ModuleList()
        coarse = strides[-1]
        for level in self.levels:
            factor, coarse = coarse // strides[level], strides[level]
            self.upscores.append(_learned_upsample(num_classes, factor))
            self.skip_scores.append(nn.Conv2d(backbone.channels[level], num_classes, kernel_size=1))
        for score in self.skip_scores:  # Paper: with zeros, training starts at the predictions of the coarser network.
            nn.init.zeros_(score.weight)
            nn.init.zeros_(score.bias)
        self.bilinear = BilinearUpsample(num_classes, stride)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.backbone.in_channels)
        strides = self.backbone.strides
        features = self.backbone(images if self.border else _pad_to_multiple(images, strides[-1]))
        logits = self.head(features[-1])
        lost = features[-1].shape[-1] - logits.shape[-1]
        stride, start = strides[-1], strides[-1] * lost // 2 - self.border
        steps = zip(self.levels, self.upscores, self.skip_scores, self.skip_scales, strict=True)
        for level, upscore, skip_score, scale in steps:
            logits = upscore(logits)
            start -= stride // 2
            stride = strides[level]
            skip = skip_score(scale * features[level])
            logits = _add_overlap(logits, skip, first=(start + self.border) // stride)
            start = max(start, -self.border)
        logits = self.bilinear(logits)
        start -= stride // 2
        height, width = images.shape[-2:]
        if start > 0 or any(start + n < m for n, m in zip(logits.shape[-2:], (height, width), strict=True)):
            raise ValueError(
                f"border is {self.border}, expected more: the head loses {lost} cells of {strides[-1]} pixels, and "
                f"the logits do not cover images of shape {tuple(images.shape)}"
            )
        return logits[..., -start : height - start, -start : width - start]


def _pad_to_multiple(images: Tensor, step: int) -> Tensor:
    """Pad images at the bottom and right to a multiple of `step`: a backbone that rounds down then loses no pixel."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % step, 0, -height % step), mode="replicate")


def _learned_upsample(channels: int, factor: int) -> nn.ConvTranspose2d:
    layer = nn.ConvTranspose2d(channels, channels, 2 * factor, stride=factor, bias=False)
    with torch.no_grad():
        layer.weight.copy_(bilinear_kernel(channels, 2 * factor))
    return layer


def _add_overlap(logits: Tensor, skip: Tensor, first: int) -> Tensor:
    """Add two maps where they overlap; cell 0 of `logits` lies on cell `first` of `skip`, which may be negative."""
    logits = logits[..., max(-first, 0) :, max(-first, 0) :]
    skip = skip[..., max(first, 0) :, max(first, 0) :]
    height, width = (min(a, b) for a, b in zip(logits.shape[-2:], skip.shape[-2:], strict=True))
    return logits[..., :height, :width] + skip[..., :height, :width]


def fcn_vgg16(
    num_classes: int = 21,
    *,
    stride: int = 8,
    at_once: bool = False,
    stages: Sequence[Sequence[int]] = VGG16_STAGES,
    hidden: int = 4096,
    **options: Any,
) -> FCN:
    """The paper's networks on VGG-16 with random weights: FCN-32s, FCN-16s and FCN-8s.

    Args:
        num_classes: K, background included.
        stride: 32, 16 or 8.
        at_once: whether pool4 is scaled by 0.01 and pool3 by 0.0001, because their values are large, to train FCN-8s
            in one stage.
        stages: widths of the backbone's five stages.
        hidden: channels of fc6 and fc7.
        **options: of `VGG`, such as `normalize=CaffeNormalize()` for weights trained with Caffe.
    """
    check_choice("stride", stride, (32, 16, 8))
    backbone = VGG(stages, ceil_mode=True, first_padding=100, **options)
    scales = {16: (0.01,), 8: (0.01, 0.0001)}.get(stride) if at_once else None
    head = ClassifierHead(backbone.channels[-1], num_classes, hidden)
    # of the padding of 100, the first 3x3 convolution takes 1
    return FCN(backbone, num_classes, stride=stride, head=head, border=99, skip_scales=scales)


class FCNResNet(nn.Module):
    """FCN without skips on a ResNet of output stride 8, as in torchvision; its weight files load strictly.

    Paper: VGG, not ResNet. Here, dilation keeps the resolution that the paper recovers with skips.

    Args:
        backbone: returns features from fine to coarse; has `in_channels` and `channels`.
        num_classes: K, background included.
        aux: whether to add a second head on the last but one feature, for training.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, aux: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = conv_head(backbone.channels[-1], None, num_classes)
        self.aux_classifier = conv_head(backbone.channels[-2], None, num_classes) if aux else None

    def forward(self, images: Tensor) -> Tensor:
        return upsample_to(self.classifier(self.backbone(images)[-1]), images)

    def forward_with_aux(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of both heads: `out` and `aux`, both (B, K, H, W). The model must be built with `aux=True`."""
        if self.aux_classifier is None:
            raise ValueError("aux_classifier is None, expected a model built with aux=True")
        *_, penultimate, last = self.backbone(images)
        return {
            "out": upsample_to(self.classifier(last), images),
            "aux": upsample_to(self.aux_classifier(penultimate), images),
        }


def fcn_resnet50(num_classes: int = 21, aux: bool = False, **options: Any) -> FCNResNet:
    """torchvision's `fcn_resnet50` with random weights.

    Args:
        num_classes: K, background included.
        aux: whether to add the second head; torchvision's weight files have it.
        **options: of `resnet50`, such as `normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD)`.
    """
    return FCNResNet(resnet50(output_stride=8, **options), num_classes, aux)


def fcn_resnet101(num_classes: int = 21, aux: bool = False, **options: Any) -> FCNResNet:
    """torchvision's `fcn_resnet101` with random weights. Arguments as for `fcn_resnet50`."""
    return FCNResNet(resnet101(output_stride=8, **options), num_classes, aux)


postprocess = highest_class
