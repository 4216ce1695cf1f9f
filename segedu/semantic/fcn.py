"""FCN: a classifier made convolutional gives a coarse map of scores; finer layers sharpen it.

Paper: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
    arXiv 1411.4038.
Idea: A fully connected layer is a convolution whose kernel covers all of its input; on a larger image it gives a
    map of scores instead of one. Scores of finer layers are added to that coarse map on its way up (FCN-16s,
    FCN-8s). Up-sampling is a transposed convolution that begins as bilinear interpolation.
Simplified: the three nets are trained at once; the paper trains FCN-32s first, then FCN-16s, then FCN-8s. The score
    layer of the head begins at random, so that the backbone learns from the first step; the paper's begins at zero.
Shapes: images (B, C, H, W) -> logits (B, K, H, W), any H and W. `postprocess`: logits -> labels (B, H, W).
    `fcn_vgg16(21, stride=8)` is the paper's FCN-8s. For a small one that trains in minutes on a CPU:
    FCN(ResNet(BasicBlock, (1, 1, 1, 1), widths=(16, 32, 64, 128)), num_classes=10, stride=8).
Quality: street: mean IoU 0.7862 (FCN-8), the least of three seeds (forest 0.48), 93.8 CPU-s, from the small VGG.
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


def fc_to_conv(weight: Tensor, bias: Tensor, kernel_size: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Weights of a fully connected layer as those of a convolution that gives the same numbers.

    The layer reads features (C, h, w) flattened in this order; the convolution has a kernel of h x w.

    Args:
        weight: (O, C h w), as in `nn.Linear`.
        bias: (O,).
        kernel_size: (h, w) of the features that the layer reads, or one number for both.

    Returns:
        Weight (O, C, h, w) and bias (O,) for `nn.Conv2d`, without padding.

    Raises:
        ValueError: a wrong shape, or C h w is no multiple of h w.

    >>> weight, bias = fc_to_conv(torch.arange(8.0).reshape(1, 8), torch.tensor([5.0]), kernel_size=2)
    >>> weight
    tensor([[[[0., 1.],
              [2., 3.]],
    <BLANKLINE>
             [[4., 5.],
              [6., 7.]]]])
    """
    sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"kernel_size is {kernel_size}, expected a number of at least 1, or two for (h, w)")
    height, width = sides
    if weight.ndim != 2 or 0 in weight.shape or weight.shape[1] % (height * width):
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected (O, a multiple of {height * width})")
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}, expected ({len(weight)},)")
    return weight.reshape(len(weight), -1, height, width), bias


def bilinear_kernel(channels: int, kernel_size: int) -> Tensor:
    """Weight with which a transposed convolution is bilinear interpolation, each channel by itself.

    For stride f the kernel has 2 f pixels (or 2 f - 1): the tent 1 - |distance to the centre| / f along each axis.

    Args:
        channels: C of the features and of the result.
        kernel_size: height and width. An even kernel has its centre between two pixels.

    Returns:
        (C, C, kernel_size, kernel_size), float32; zeros where two channels differ.

    Raises:
        ValueError: a number is below 1.

    >>> bilinear_kernel(1, 3)
    tensor([[[[0.2500, 0.5000, 0.2500],
              [0.5000, 1.0000, 0.5000],
              [0.2500, 0.5000, 0.2500]]]])
    >>> bilinear_kernel(2, 4)[0, 0, 1], bilinear_kernel(2, 4)[0, 1].sum()
    (tensor([0.1875, 0.5625, 0.5625, 0.1875]), tensor(0.))
    """
    if channels < 1 or kernel_size < 1:
        raise ValueError(f"channels is {channels} and kernel_size {kernel_size}, expected at least 1")
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
        kernel_size: of fc6; it has no padding, so kernel_size - 1 rows and columns are lost.
    """

    def __init__(self, in_channels: int, num_classes: int, hidden: int = 4096, kernel_size: int = 7) -> None:
        super().__init__()
        numbers = dict(in_channels=in_channels, num_classes=num_classes, hidden=hidden, kernel_size=kernel_size)
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        self.fc6 = nn.Conv2d(in_channels, hidden, kernel_size)
        self.relu6 = nn.ReLU(inplace=True)
        self.drop6 = nn.Dropout(0.5)
        self.fc7 = nn.Conv2d(hidden, hidden, kernel_size=1)
        self.relu7 = nn.ReLU(inplace=True)
        self.drop7 = nn.Dropout(0.5)
        self.score = nn.Conv2d(hidden, num_classes, kernel_size=1)

    @torch.no_grad()
    def load_fully_connected(self, fc6: nn.Linear, fc7: nn.Linear) -> None:
        """Take over two layers of a classifier, such as `classifier[0]` and `[3]` of torchvision's VGG-16.

        Args:
            fc6: reads the flattened features.
            fc7: the layer after it.

        Raises:
            ValueError: a layer has no bias, or not as many weights as its convolution; nothing is taken over.
        """
        pairs = (("fc6", self.fc6, fc6), ("fc7", self.fc7, fc7))
        for name, conv, linear in pairs:
            expected = conv.out_channels, conv.weight[0].numel()
            if linear.weight.shape != expected or linear.bias is None:
                given = f"{'no' if linear.bias is None else 'a'} bias and weights of shape {tuple(linear.weight.shape)}"
                raise ValueError(f"{name} has {given}, expected a bias and {expected}")
        for _, conv, linear in pairs:
            weight, bias = fc_to_conv(linear.weight, linear.bias, conv.kernel_size)
            conv.weight.copy_(weight)
            conv.bias.copy_(bias)


class BilinearUpsample(nn.Module):
    """Bilinear up-sampling by an even factor: (B, K, h, w) -> (B, K, factor (h + 1), factor (w + 1)).

    The result reaches half a cell beyond the input on each side. Paper: this last step is fixed; so it is a
    buffer, which no optimiser sees and which the state dict leaves out.

    Args:
        channels: K.
        factor: the stride.
    """

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        if channels < 1 or factor < 2 or factor % 2:
            raise ValueError(f"channels is {channels} and factor {factor}, expected at least 1 and an even number")
        self.channels, self.factor = channels, factor
        self.register_buffer("weight", bilinear_kernel(1, 2 * factor).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        # by groups: the zeros between channels would cost K times the work
        return F.conv_transpose2d(logits, self.weight, stride=self.factor, groups=self.channels)


class FCN(nn.Module):
    """Scores of the coarsest features, up-sampled; scores of finer features are added on the way.

    One rule places all maps. A map of stride s begins at some pixel of the image, negative if it reaches beyond.
    The head loses cells and begins later; an up-sampled map begins half a cell earlier. Before two maps are
    added, both are cut to the cells that they share. With a border of 99 pixels, which is what padding 100 adds,
    this gives the numbers in the authors' files: crops at 19 for FCN-32s, 5 and 27 for 16s, 5, 9 and 31 for 8s.

    Args:
        backbone: gives features fine to coarse; has `in_channels`, and `channels` and `strides` of each feature.
        num_classes: K, background included.
        stride: of the finest features with scores, 32, 16 or 8 in the paper.
        head: the coarsest features (B, C, h, w) -> (B, K, h', w'). None: one 1x1 convolution.
        border: pixels that the backbone adds on each side of the image; a head that loses cells needs one, or the
            logits would not reach the border of the image (ValueError in `forward`).
        skip_scales: one factor for each finer feature, coarse to fine; None: 1. Small ones let all be trained at once.
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
        if num_classes < 1 or border < 0:
            raise ValueError(f"num_classes is {num_classes} and border {border}, expected at least 1 and at least 0")
        if stride not in strides or stride % 2:
            raise ValueError(f"stride is {stride}, expected an even one of the backbone's {tuple(strides)}")
        self.backbone, self.border = backbone, border
        self.head = nn.Conv2d(backbone.channels[-1], num_classes, kernel_size=1) if head is None else head
        # the last feature of each stride, coarse to fine, without the coarsest
        last = {s: level for level, s in enumerate(strides)}
        self.levels = [last[s] for s in sorted(last, reverse=True) if stride <= s < strides[-1]]
        self.skip_scales = [1.0] * len(self.levels) if skip_scales is None else list(skip_scales)
        if len(self.skip_scales) != len(self.levels):
            raise ValueError(f"skip_scales has {len(self.skip_scales)} numbers, expected {len(self.levels)}")
        self.skip_scores, self.upscores = nn.ModuleList(), nn.ModuleList()
        coarse = strides[-1]
        for level in self.levels:
            factor, coarse = coarse // strides[level], strides[level]
            self.upscores.append(_learned_upsample(num_classes, factor))
            self.skip_scores.append(nn.Conv2d(backbone.channels[level], num_classes, kernel_size=1))
        for score in self.skip_scores:  # Paper: from zero, training begins at the predictions of the coarser net.
            nn.init.zeros_(score.weight)
            nn.init.zeros_(score.bias)
        self.bilinear = BilinearUpsample(num_classes, stride)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.backbone.in_channels)
        strides = self.backbone.strides
        features = self.backbone(images if self.border else _fill(images, strides[-1]))
        logits = self.head(features[-1])
        lost = features[-1].shape[-1] - logits.shape[-1]
        stride, start = strides[-1], strides[-1] * lost // 2 - self.border
        steps = zip(self.levels, self.upscores, self.skip_scores, self.skip_scales, strict=True)
        for level, upscore, skip_score, scale in steps:
            logits = upscore(logits)
            start -= stride // 2
            stride = strides[level]
            skip = skip_score(scale * features[level])
            logits = _add_where_both_are(logits, skip, first=(start + self.border) // stride)
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


def _fill(images: Tensor, step: int) -> Tensor:
    """Grow images at the bottom and right to a multiple of `step`: a backbone that rounds down loses no pixel."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % step, 0, -height % step), mode="replicate")


def _learned_upsample(channels: int, factor: int) -> nn.ConvTranspose2d:
    layer = nn.ConvTranspose2d(channels, channels, 2 * factor, stride=factor, bias=False)
    with torch.no_grad():
        layer.weight.copy_(bilinear_kernel(channels, 2 * factor))
    return layer


def _add_where_both_are(logits: Tensor, skip: Tensor, first: int) -> Tensor:
    """Sum of two maps, cell 0 of `logits` lying on cell `first` of `skip`, which may be negative."""
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
    """The paper's nets on VGG-16: FCN-32s, FCN-16s and FCN-8s.

    Args:
        num_classes: K, background included.
        stride: 32, 16 or 8.
        at_once: pool4 times 0.01 and pool3 times 0.0001, whose values are large, to train FCN-8s in one stage.
        stages: widths of the backbone's five stages.
        hidden: channels of fc6 and fc7.
        **options: of `VGG`, such as `normalize=CaffeNormalize()` for weights made with Caffe.

    Returns:
        The net with random weights.

    Raises:
        ValueError: another stride, or a number below 1.
    """
    if stride not in (8, 16, 32):
        raise ValueError(f"stride is {stride}, expected 32, 16 or 8")
    backbone = VGG(stages, ceil_mode=True, first_padding=100, **options)
    scales = {16: (0.01,), 8: (0.01, 0.0001)}.get(stride) if at_once else None
    head = ClassifierHead(backbone.channels[-1], num_classes, hidden)
    # of the padding of 100, the first 3x3 convolution takes 1
    return FCN(backbone, num_classes, stride=stride, head=head, border=99, skip_scales=scales)


class FCNResNet(nn.Module):
    """FCN without skips on a ResNet of output stride 8, as torchvision has it; its files of weights load strictly.

    Paper: VGG, not ResNet; here dilation keeps the resolution that the paper wins back with skips.

    Args:
        backbone: gives features fine to coarse; has `in_channels` and `channels`.
        num_classes: K, background included.
        aux: whether to add a second head on the last feature but one, for training.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, aux: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = conv_head(backbone.channels[-1], None, num_classes)
        self.aux_classifier = conv_head(backbone.channels[-2], None, num_classes) if aux else None

    def forward(self, images: Tensor) -> Tensor:
        return upsample_to(self.classifier(self.backbone(images)[-1]), images)

    def forward_with_aux(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of both heads.

        Args:
            images: (B, C, H, W).

        Returns:
            `out` and `aux`, both (B, K, H, W).

        Raises:
            ValueError: the model has no second head.
        """
        if self.aux_classifier is None:
            raise ValueError("aux_classifier is None, expected a model built with aux=True")
        *_, before, last = self.backbone(images)
        return {
            "out": upsample_to(self.classifier(last), images),
            "aux": upsample_to(self.aux_classifier(before), images),
        }


def fcn_resnet50(num_classes: int = 21, aux: bool = False, **options: Any) -> FCNResNet:
    """torchvision's `fcn_resnet50`.

    Args:
        num_classes: K, background included.
        aux: whether to add the second head; torchvision's files of weights have it.
        **options: of `resnet50`, such as `normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD)`.

    Returns:
        The net with random weights.
    """
    return FCNResNet(resnet50(output_stride=8, **options), num_classes, aux)


def fcn_resnet101(num_classes: int = 21, aux: bool = False, **options: Any) -> FCNResNet:
    """torchvision's `fcn_resnet101`.

    Args:
        num_classes: K, background included.
        aux: whether to add the second head.
        **options: of `resnet101`.

    Returns:
        The net with random weights.
    """
    return FCNResNet(resnet101(output_stride=8, **options), num_classes, aux)


postprocess = highest_class
