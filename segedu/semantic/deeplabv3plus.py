"""DeepLabv3+: DeepLabv3 as the encoder, a small decoder for sharp borders, separable convolutions in both.

Paper: Chen, Zhu, Papandreou, Schroff, Adam, "Encoder-Decoder with Atrous Separable Convolution for Semantic
    Image Segmentation", ECCV 2018, arXiv 1802.02611.
Idea: The pyramid of DeepLabv3 knows what is in the picture, at 1/16 of its size. Features of 1/4 of the size know
    where borders are; a 1x1 convolution cuts them to 48 channels, so that they do not drown the others. The
    decoder concatenates both and convolves twice. All 3x3 convolutions are split into one in space for each
    channel and one over channels at each place.
Simplified: any backbone, not the paper's modified Xception. No batch normalisation between the two halves of a
    separable convolution.
Shapes: images (B, 3, H, W) -> logits (B, K, H, W), any H and W. `postprocess`: logits -> labels (B, H, W).
Quality: street: mean IoU 0.7884, the least of three seeds (forest 0.48), 76.2 CPU-s, from the small VGG.
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

__all__ = ["DeepLabV3Plus", "SeparableConv", "aspp_rates", "postprocess", "separable_bn_relu"]


class SeparableConv(nn.Sequential):
    """A convolution in two halves: each channel alone in space (key 0), then channels at each place (key 1).

    With kernel size k it has k * k * in_channels + in_channels * out_channels weights; the full convolution has
    k * k * in_channels * out_channels.

    Args:
        in_channels: C of the features.
        out_channels: C of the result.
        kernel_size: of the first half, odd.
        stride: of the first half.
        dilation: of the first half; the paper calls it then an atrous separable convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1
    ) -> None:
        given = dict(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        for name, value in {**given, "stride": stride, "dilation": dilation}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(in_channels, in_channels, kernel_size, stride, padding, dilation, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
        )


def separable_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """A separable convolution, batch normalisation and a ReLU; takes the place of `conv_bn_relu`.

    Args:
        in_channels: C of the features.
        out_channels: C of the result.
        kernel_size: height and width of the kernel, odd.
        stride: step of the kernel in pixels.
        dilation: distance of two taps of the kernel in pixels.

    Returns:
        A module (B, C, H, W) -> (B, C', H', W').
    """
    return nn.Sequential(
        SeparableConv(in_channels, out_channels, kernel_size, stride, dilation),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Decoder(nn.Module):
    """The lower half of figure 2: fine features reduced, coarse ones enlarged, concatenated, convolved.

    Args:
        low_channels: C of the features of stride 4.
        in_channels: C of the coarse features.
        low_width: channels that the fine features keep.
        width: channels of the result.
        refinements: number of 3x3 convolutions; the paper's table 2 compares 1, 2 and 3.
        align_corners: how features are enlarged, see `DeepLabV3Plus`.
    """

    def __init__(
        self,
        low_channels: int,
        in_channels: int,
        low_width: int = 48,
        width: int = 256,
        refinements: int = 2,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        for name, value in {"low_width": low_width, "width": width, "refinements": refinements}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        self.align_corners = align_corners
        self.reduce = conv_bn_relu(low_channels, low_width, kernel_size=1)
        before = [in_channels + low_width] + [width] * (refinements - 1)
        self.refine = nn.Sequential(*(separable_bn_relu(channels, width) for channels in before))

    def forward(self, low: Tensor, features: Tensor) -> Tensor:
        up = upsample_to(features, low, self.align_corners)  # not 4 h, 4 w: at odd sizes that is one off
        return self.refine(torch.cat([up, self.reduce(low)], dim=1))  # (B, width, H / 4, W / 4)


class DeepLabV3Plus(nn.Module):
    """The paper's figure 2: backbone, ASPP, decoder, classifier, bilinear upsampling.

    Args:
        backbone: gives a list of features, fine to coarse, and has `channels` and `strides`. Those of stride 4
            and the last are used.
        num_classes: K, background included.
        rates: of the ASPP. The default is for a backbone of output stride 16; `aspp_rates(8)` for one of 8.
        width: channels of the ASPP and of the decoder.
        low_width: channels that the features of stride 4 keep.
        refinements: number of 3x3 convolutions of the decoder.
        dropout: in the ASPP.
        align_corners: whether bilinear upsampling maps corner pixels onto corner pixels. True as in
            segmentation_models_pytorch; False as in torchvision's DeepLabv3. The paper does not say.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        rates: Sequence[int] = (6, 12, 18),
        width: int = 256,
        low_width: int = 48,
        *,
        refinements: int = 2,
        dropout: float = 0.5,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}, expected at least 1")
        if 4 not in backbone.strides:
            raise ValueError(f"backbone has strides {backbone.strides}, expected one of them to be 4")
        self.num_classes, self.align_corners = num_classes, align_corners
        self.backbone = backbone
        self.low = backbone.strides.index(4)
        self.aspp = ASPP(backbone.channels[-1], rates, width, dropout, convolution=separable_bn_relu)
        self.decoder = Decoder(backbone.channels[self.low], width, low_width, width, refinements, align_corners)
        self.classifier = nn.Conv2d(width, num_classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        decoded = self.decoder(features[self.low], self.aspp(features[-1]))
        logits = self.classifier(decoded)  # (B, K, H / 4, W / 4)
        return upsample_to(logits, images, self.align_corners)
