"""Res U-Net: a U-Net of residual units, which add a correction to their input.

Paper: Zhang, Liu, Wang, "Road Extraction by Deep Residual U-Net", IEEE GRSL 2018, arXiv 1711.10684 (`res_unet`).
    Kerfoot et al., "Left-Ventricle Quantification Using Residual U-Net", STACOM 2018 (`strided_res_unet`).
    Isensee et al., "nnU-Net Revisited", MICCAI 2024, arXiv 2404.09556 (`residual_encoder_unet`).
Idea: Residual units make deep networks trainable, and the skips of the U preserve detail. Together they reach the
    accuracy of a U-Net with far fewer channels. A convolution of stride 2 replaces pooling.
Simplified: no deep supervision, no dropout. Every size is allowed: the image is padded at the bottom and at the right
    to the next multiple of the coarsest stride by repeating its last row and column; the logits are cropped. Only
    instance normalisation needs more than one such multiple along one axis: it sets a single value to 0.
Shapes: images (B, C, H, W) -> logits (B, K, H, W). `postprocess`: logits -> labels (B, H, W).
Quality: street: mean IoU 0.7155, the least of three seeds (forest 0.48), 108.1 CPU-s.
Course: 06-unet
Lab: 06_unet
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.layers.labels import highest_class
from segedu.validation.images import check_images
from segedu.validation.numbers import check_integers, check_length

Norm = Callable[[int], nn.Module]  # channels -> layer
Activation = Callable[[], nn.Module]


class ResidualUnit(nn.Module):
    """The paper's unit (figure 1 b): normalisation and ReLU come before each of two 3x3 convolutions.

    Args:
        in_channels: C of the features.
        out_channels: C of the result.
        stride: of the first convolution.
        first: whether the features are an image; the first normalisation and ReLU are then omitted.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, first: bool = False) -> None:
        super().__init__()
        pre_activation = [] if first else [nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True)]
        self.residual = nn.Sequential(
            *pre_activation,
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        # Paper: every shortcut is an identity mapping. If the number of channels or the size changes, there is none;
        # a 1x1 convolution replaces it, as in ResNet.
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        return self.shortcut(features) + self.residual(features)


class ResUNet(nn.Module):
    """The U: stages from fine to coarse, then back up, concatenating the output of each stage.

    Args:
        in_channels: channels of the image.
        step: the coarsest stride; H and W are padded to a multiple of it.
        stages: from fine to coarse, each applied to the output of the one before.
        ups: from coarse to fine, one fewer than stages: upsample features to the size of the next finer stage.
        merges: one for each of `ups`: applied to the stage's and the upsampled features, concatenated in this order.
        head: outputs the logits in the size of the image.
    """

    def __init__(
        self,
        in_channels: int,
        step: int,
        stages: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        merges: Sequence[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        if not len(stages) == len(ups) + 1 == len(merges) + 1:
            counts = (len(stages), len(ups), len(merges))
            raise ValueError(f"stages, ups and merges have {counts} modules, expected n + 1, n and n")
        self.in_channels, self.step = in_channels, step
        self.stages, self.ups, self.merges = (nn.ModuleList(part) for part in (stages, ups, merges))
        self.head = head
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.in_channels)
        height, width = images.shape[-2:]
        if max(height, width) <= self.step and any(isinstance(m, nn.InstanceNorm2d) for m in self.modules()):
            raise ValueError(
                f"images has shape {tuple(images.shape)}, expected H or W above {self.step}: instance normalisation "
                f"needs more than one value per channel"
            )
        x = F.pad(images, (0, -width % self.step, 0, -height % self.step), mode="replicate")
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        x = skips.pop()
        for up, merge in zip(self.ups, self.merges, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], dim=1))
        return self.head(x)[..., :height, :width]


def res_unet(
    in_channels: int = 3, num_classes: int = 2, widths: Sequence[int] = (64, 128, 256, 512), stem_stride: int = 1
) -> ResUNet:
    """The paper's network (its table 1): three units down, a bridge, three units up, a 1x1 convolution.

    Paper: one class and a sigmoid, for road. Here, a softmax over K classes follows.

    Args:
        in_channels: channels of the image.
        num_classes: K, background included.
        widths: channels at each resolution, finest first; the coarsest stride is stem_stride * 2^(len(widths) - 1).
        stem_stride: stride of the first unit, 1 in the paper. With 2, the whole network works at half the resolution
            and a quarter of the cost, and the logits are upsampled bilinearly.
    """
    _check_widths(widths, in_channels=in_channels, num_classes=num_classes, stem_stride=stem_stride)
    stages = [ResidualUnit(in_channels, widths[0], stem_stride, first=True)]
    stages += [ResidualUnit(fine, coarse, stride=2) for fine, coarse in pairwise(widths)]
    pairs = list(pairwise(widths))[::-1]
    ups = [nn.Upsample(scale_factor=2, mode="nearest") for _ in pairs]
    merges = [ResidualUnit(fine + coarse, fine) for fine, coarse in pairs]
    head: nn.Module = nn.Conv2d(widths[0], num_classes, kernel_size=1)
    if stem_stride > 1:
        head = nn.Sequential(head, nn.Upsample(scale_factor=stem_stride, mode="bilinear"))
    return ResUNet(in_channels, stem_stride * 2 ** len(pairs), stages, ups, merges, head)


# --- the network of Kerfoot et al. -------------------------------------------------------------------------------


class ConvolutionalUnit(nn.Module):
    """`subunits` times convolution, normalisation, activation; the shortcut is one convolution with the stride.

    Args:
        in_channels: C of the features.
        out_channels: C of the result.
        stride: of the first convolution and of the shortcut.
        subunits: number of convolutions.
        norm: makes a normalisation.
        activation: makes an activation.
        last: whether the unit ends the network: no normalisation and activation after the last convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        subunits: int = 2,
        norm: Norm = nn.InstanceNorm2d,
        activation: Activation = nn.PReLU,
        last: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(subunits):
            channels, step = (in_channels, stride) if i == 0 else (out_channels, 1)
            layers += [nn.Conv2d(channels, out_channels, 3, step, padding=1), norm(out_channels), activation()]
        self.residual = nn.Sequential(*(layers[:-2] if last else layers))
        if stride > 1:  # 3x3, so that no pixel is skipped
            self.shortcut = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
        else:
            same = in_channels == out_channels
            self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.shortcut(features) + self.residual(features)


def strided_res_unet(
    in_channels: int = 1,
    num_classes: int = 2,
    widths: Sequence[int] = (16, 32, 64, 128, 256),
    norm: Norm = nn.InstanceNorm2d,
    activation: Activation = nn.PReLU,
) -> ResUNet:
    """A U with stride 2 in its first layer: only the last step, to K channels, works at full resolution.

    The last stage keeps the size of the one before, and features are concatenated before they are upsampled. MONAI's
    `UNet` with `num_res_units=2` is this network.

    Args:
        in_channels: channels of the image.
        num_classes: K, background included.
        widths: channels of each stage; all but the last have stride 2, so that the coarsest stride is
            2^(len(widths) - 1).
        norm: makes a normalisation.
        activation: makes an activation.
    """
    _check_widths(widths, in_channels=in_channels, num_classes=num_classes)
    parts = {"norm": norm, "activation": activation}
    stages = [ConvolutionalUnit(a, b, 2, **parts) for a, b in pairwise([in_channels, *widths[:-1]])]
    stages.append(ConvolutionalUnit(widths[-2], widths[-1], **parts))
    merges = []
    for i in reversed(range(len(widths) - 1)):
        coarse = widths[-1] if i == len(widths) - 2 else widths[i]
        out = widths[i - 1] if i else num_classes
        up = nn.ConvTranspose2d(widths[i] + coarse, out, 3, stride=2, padding=1, output_padding=1)
        unit = ConvolutionalUnit(out, out, subunits=1, **parts, last=i == 0)
        merges.append(nn.Sequential(up, norm(out), activation(), unit))
    ups = [nn.Identity() for _ in merges]
    return ResUNet(in_channels, 2 ** len(merges), stages, ups, merges, nn.Identity())


# --- the network of Isensee et al. -------------------------------------------------------------------------------


class PostActivationUnit(nn.Module):
    """Convolution, normalisation, activation, convolution, normalisation; the activation follows the sum.

    Args:
        in_channels: C of the features.
        out_channels: C of the result.
        stride: of the first convolution. The shortcut averages stride x stride pixels.
        norm: makes a normalisation.
        activation: makes an activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, norm: Norm = nn.BatchNorm2d, activation=nn.ReLU
    ) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            norm(out_channels),
            activation(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            norm(out_channels),
        )
        pool = [nn.AvgPool2d(stride, stride)] if stride > 1 else []
        project = [nn.Conv2d(in_channels, out_channels, 1, bias=False), norm(out_channels)]
        self.shortcut = nn.Sequential(*pool, *(project if in_channels != out_channels else []))
        self.activation = activation()

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(self.residual(features) + self.shortcut(features))


def residual_encoder_unet(
    in_channels: int = 1,
    num_classes: int = 2,
    widths: Sequence[int] = (32, 64, 128, 256, 512, 512),
    blocks: Sequence[int] = (1, 3, 4, 6, 6, 6),
    norm: Norm = nn.BatchNorm2d,
    activation: Activation = nn.ReLU,
) -> ResUNet:
    """nnU-Net's "ResEnc": the encoder is deep; a step of the decoder is one transposed and one ordinary convolution.

    Args:
        in_channels: channels of the image.
        num_classes: K, background included.
        widths: channels at each resolution, finest first; the coarsest stride is 2^(len(widths) - 1).
        blocks: units at each resolution.
        norm: makes a normalisation. nnU-Net has `nn.InstanceNorm2d` with affine weights.
        activation: makes an activation. nnU-Net has a leaky ReLU.
    """
    _check_widths(widths, in_channels=in_channels, num_classes=num_classes)
    check_length("blocks", blocks, len(widths), of="width")
    check_integers(blocks=blocks)

    def convolution(channels: int, width: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), norm(width), activation())

    stages = []
    for i, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        first = PostActivationUnit(widths[max(i - 1, 0)], width, 2 if i else 1, norm, activation)
        rest = (PostActivationUnit(width, width, 1, norm, activation) for _ in range(1, count))
        stages.append(nn.Sequential(first, *rest))
    stages[0].insert(0, convolution(in_channels, widths[0]))
    pairs = list(pairwise(widths))[::-1]
    ups = [nn.ConvTranspose2d(coarse, fine, 2, stride=2, bias=False) for fine, coarse in pairs]
    merges = [convolution(2 * fine, fine) for fine, _ in pairs]
    head = nn.Conv2d(widths[0], num_classes, kernel_size=1)
    return ResUNet(in_channels, 2 ** len(pairs), stages, ups, merges, head)


def _check_widths(widths: Sequence[int], **counts: int) -> None:
    if len(widths) < 2:
        raise ValueError(f"widths is {tuple(widths)}, expected at least two integers")
    check_integers(**counts, widths=widths)


postprocess = highest_class
