"""DeepLabv3+: DeepLabv3 as the encoder, a small decoder for sharp borders, separable convolutions in both.

Paper: Chen, Zhu, Papandreou, Schroff, Adam, "Encoder-Decoder with Atrous Separable Convolution for Semantic
    Image Segmentation", ECCV 2018, arXiv 1802.02611.
Idea: The pyramid of DeepLabv3 knows what is in the image, at 1/16 of its size. Features at 1/4 of the size know
    where borders are; a 1x1 convolution reduces them to 48 channels, so that they do not dominate. The decoder
    concatenates both and convolves twice. All 3x3 convolutions are depthwise separable: one convolution in space for
    each channel, then one across channels at each position.
Simplified: any backbone, not the paper's modified Xception. No batch normalisation between the depthwise and the 1x1
    convolution.
Shapes: images (B, 3, H, W) -> logits (B, K, H, W), any H and W. `postprocess`: logits -> labels (B, H, W).
Quality: street: mean IoU 0.7884, the least of three seeds (forest 0.48), 76.2 CPU-s, from the small VGG.
    pets: mean IoU 0.8693 on test, 0.7991 on other breeds, one seed (forest 0.63, 0.58), 122 CPU-s in bfloat16, from
    the VGG of the encoder U-Net on pets.
Course: 08-context
Lab: 08_context
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segedu.layers.conv import conv_bn_relu
from segedu.layers.resize import upsample_to
from segedu.semantic.deeplabv3 import ASPP, aspp_rates, postprocess
from segedu.validation.numbers import check_integers

__all__ = ["DeepLabV3Plus", "SeparableConv", "aspp_rates", "postprocess", "separable_bn_relu"]


class SeparableConv(nn.Sequential):
    """A depthwise separable convolution: each channel alone in space (key 0), then 1x1 across channels (key 1).

    With kernel size k it has k * k * in_channels + in_channels * out_channels weights; the full convolution has
    k * k * in_channels * out_channels.

    Args:
        in_channels: C of the features.
        out_channels: C of the result.
        kernel_size: of the depthwise convolution, odd.
        stride: of the depthwise convolution.
        dilation: of the depthwise convolution; the paper then calls it an atrous separable convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1
    ) -> None:
        check_integers(in_channels=in_channels, out_channels=out_channels)
        check_integers(kernel_size=kernel_size, stride=stride, dilation=dilation)
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(in_channels, in_channels, kernel_size, stride, padding, dilation, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
        )


def separable_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """A separable convolution, batch normalisation and a ReLU, with the arguments of `conv_bn_relu`."""
    return nn.Sequential(
        SeparableConv(in_channels, out_channels, kernel_size, stride, dilation),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Decoder(nn.Module):
    """The lower half of figure 2: reduced fine features and upsampled coarse features, concatenated and convolved.

    Args:
        low_level_channels: C of the features of stride 4.
        in_channels: C of the coarse features.
        low_level_width: channels to which the fine features are reduced.
        width: channels of the result.
        refinements: number of 3x3 convolutions; the paper's table 2 compares 1, 2 and 3.
        align_corners: of the upsampling, see `DeepLabV3Plus`.
    """

    def __init__(
        self,
        low_level_channels: int,
        in_channels: int,
        low_level_width: int = 48,
        width: int = 256,
        refinements: int = 2,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        check_integers(low_level_width=low_level_width, width=width, refinements=refinements)
        self.align_corners = align_corners
        self.reduce = conv_bn_relu(low_level_channels, low_level_width, kernel_size=1)
        inputs = [in_channels + low_level_width] + [width] * (refinements - 1)
        self.refine = nn.Sequential(*(separable_bn_relu(channels, width) for channels in inputs))

    def forward(self, low_level: Tensor, features: Tensor) -> Tensor:
        # not by a factor of 4, which is one pixel off at odd sizes
        up = upsample_to(features, low_level, self.align_corners)
        return self.refine(torch.cat([up, self.reduce(low_level)], dim=1))  # (B, width, H / 4, W / 4)


class DeepLabV3Plus(nn.Module):
    """The paper's figure 2: backbone, ASPP, decoder, classifier, bilinear upsampling.

    Args:
        backbone: returns a list of features from fine to coarse, and has `channels` and `strides`. The features of
            stride 4 and the last features are used.
        num_classes: K, background included.
        rates: of the ASPP. The default is for a backbone of output stride 16; `aspp_rates(8)` for one of 8.
        width: channels of the ASPP and of the decoder.
        low_level_width: channels to which the features of stride 4 are reduced.
        refinements: number of 3x3 convolutions of the decoder.
        dropout: dropout probability in the ASPP.
        align_corners: whether bilinear upsampling maps corner pixels onto corner pixels. True as in
            segmentation_models_pytorch; False as in torchvision's DeepLabv3. The paper does not say.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        rates: Sequence[int] = (6, 12, 18),
        width: int = 256,
        low_level_width: int = 48,
        *,
        refinements: int = 2,
        dropout: float = 0.5,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        check_integers(num_classes=num_classes)
        if 4 not in backbone.strides:
            raise ValueError(f"backbone has strides {backbone.strides}, expected one of them to be 4")
        self.num_classes, self.align_corners = num_classes, align_corners
        self.backbone = backbone
        self.low_level = backbone.strides.index(4)
        self.aspp = ASPP(backbone.channels[-1], rates, width, dropout, convolution=separable_bn_relu)
        self.decoder = Decoder(
            backbone.channels[self.low_level], width, low_level_width, width, refinements, align_corners
        )
        self.classifier = nn.Conv2d(width, num_classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        decoded = self.decoder(features[self.low_level], self.aspp(features[-1]))
        logits = self.classifier(decoded)  # (B, K, H / 4, W / 4)
        return upsample_to(logits, images, self.align_corners)
