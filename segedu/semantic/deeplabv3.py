"""DeepLabv3: atrous spatial pyramid pooling with batch normalisation and one feature of the whole image.

Paper: Chen, Papandreou, Schroff, Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
    arXiv 1706.05587.
Idea: The last strides of the backbone become dilations, so that features stay at 1/8 or 1/16 of the image size. Five
    parallel branches read them: a 1x1 convolution, three atrous convolutions with growing rates, and the mean of
    the whole image. The mean is necessary because a 3x3 kernel with a large rate has most taps in the padding
    and degenerates to 1x1.
Simplified: no multi-grid (the paper also gives the three convolutions of the last stage rates of their own) and
    no bootstrapping, as in torchvision, whose layer keys these are. The auxiliary head is torchvision's too.
Shapes: images (B, 3, H, W) -> logits (B, K, H, W), any H and W. `postprocess`: logits -> labels (B, H, W).
Quality: street: a recipe that asks for mean IoU 0.70 in 120 CPU-s; not measured with three seeds so far.
Course: 08-context
Lab: 08_context
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from segedu.backbones.resnet import resnet50, resnet101
from segedu.layers.batch_norm import PooledBatchNorm2d
from segedu.layers.conv import conv_bn_relu, conv_head
from segedu.layers.labels import highest_class
from segedu.layers.resize import upsample_to
from segedu.validation.numbers import check_choice, check_integers


class ImagePooling(nn.Sequential):
    """The mean of each channel over the image and a 1x1 convolution, copied to every position: figure 5 (b)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
            PooledBatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, features: Tensor) -> Tensor:
        context = super().forward(features)  # (B, C, 1, 1)
        # Paper: bilinear upsampling, which copies a single value to every position.
        return context.expand(-1, -1, *features.shape[-2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: five parallel branches, concatenated and projected to `width` channels.

    Args:
        in_channels: C of the features.
        rates: dilation of each 3x3 branch; see `aspp_rates`.
        width: channels of each branch and of the result.
        dropout: dropout probability of the result.
        convolution: makes a 3x3 branch, with the arguments of `conv_bn_relu`. DeepLabv3+ passes a separable one.
    """

    def __init__(
        self,
        in_channels: int,
        rates: Sequence[int] = (6, 12, 18),
        width: int = 256,
        dropout: float = 0.5,
        convolution: Callable[..., nn.Module] = conv_bn_relu,
    ) -> None:
        super().__init__()
        if not rates:
            raise ValueError("rates is empty, expected one or more dilations")
        check_integers(width=width, rates=rates)
        self.convs = nn.ModuleList(
            [
                conv_bn_relu(in_channels, width, kernel_size=1),
                *(convolution(in_channels, width, dilation=rate) for rate in rates),
                ImagePooling(in_channels, width),
            ]
        )
        self.project = nn.Sequential(*conv_bn_relu(len(self.convs) * width, width, kernel_size=1), nn.Dropout(dropout))

    def forward(self, features: Tensor) -> Tensor:
        branches = [branch(features) for branch in self.convs]  # each (B, width, h, w)
        return self.project(torch.cat(branches, dim=1))  # (B, 5 width, h, w) -> (B, width, h, w)


class DeepLabV3(nn.Module):
    """A backbone with dilation in place of stride, ASPP, a 3x3 convolution, a classifier, bilinear upsampling.

    Args:
        backbone: returns a list of features from fine to coarse, of which the last is used, and has `channels`.
        num_classes: K, background included.
        rates: of the ASPP. The default is for a backbone of output stride 8; `aspp_rates(16)` for one of 16.
        width: channels of the ASPP and after it.
        dropout: dropout probability in the ASPP.
        aux: whether to add an auxiliary head on the last but one features, see `forward_with_aux`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        rates: Sequence[int] = (12, 24, 36),
        width: int = 256,
        *,
        dropout: float = 0.5,
        aux: bool = False,
    ) -> None:
        super().__init__()
        check_integers(num_classes=num_classes)
        self.num_classes = num_classes
        self.backbone = backbone
        self.classifier = nn.Sequential(
            ASPP(backbone.channels[-1], rates, width, dropout),
            *conv_bn_relu(width, width),
            nn.Conv2d(width, num_classes, kernel_size=1),
        )
        self.aux_classifier = conv_head(backbone.channels[-2], None, num_classes) if aux else None

    def forward(self, images: Tensor) -> Tensor:
        return upsample_to(self.classifier(self.backbone(images)[-1]), images)

    def forward_with_aux(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of both heads, for training. The model must be built with `aux=True`.

        Returns:
            `out` (B, K, H, W), which `forward` returns, and `aux` (B, K, H, W).
        """
        if self.aux_classifier is None:
            raise ValueError("aux_classifier is None, expected a model built with aux=True")
        *_, penultimate, last = self.backbone(images)
        logits = {"out": self.classifier(last), "aux": self.aux_classifier(penultimate)}
        return {name: upsample_to(scores, images) for name, scores in logits.items()}


def aspp_rates(output_stride: int) -> tuple[int, int, int]:
    """Rates of the ASPP: 6, 12, 18 at output stride 16, and twice these at 8, where features are half as far apart.

    Args:
        output_stride: 8, 16 or 32.

    >>> aspp_rates(16), aspp_rates(8)
    ((6, 12, 18), (12, 24, 36))
    """
    check_choice("output_stride", output_stride, (8, 16, 32))
    return tuple(rate * 16 // output_stride for rate in (6, 12, 18))


def deeplabv3_resnet50(num_classes: int = 21, *, aux: bool = False, **options: object) -> DeepLabV3:
    """DeepLabv3 on ResNet-50 with output stride 8 and random weights; with aux=True, torchvision's weights fit.

    Args:
        num_classes: K, 21 for Pascal VOC.
        aux: whether to add an auxiliary head.
        **options: of the backbone, such as `normalize`.
    """
    return DeepLabV3(resnet50(output_stride=8, **options), num_classes, aux=aux)


def deeplabv3_resnet101(num_classes: int = 21, *, aux: bool = False, **options: object) -> DeepLabV3:
    """DeepLabv3 on ResNet-101 with output stride 8. Arguments as for `deeplabv3_resnet50`."""
    return DeepLabV3(resnet101(output_stride=8, **options), num_classes, aux=aux)


postprocess = highest_class
