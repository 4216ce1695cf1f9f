"""ResNet: residual blocks, which add a learned correction to their input and can be stacked to deep networks.

Paper: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385. Dilation in
    place of stride: Chen, Papandreou, Schroff, Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation",
    2017, arXiv 1706.05587.
Idea: A block learns F(x) and outputs F(x) + x. The sum passes the gradient on unchanged, so 101 layers train as well as
    18. For dense prediction, the last strides are removed and the following convolutions are dilated: they have the
    same receptive field as before, at a higher resolution.
Simplified: the global pooling and the classifier are omitted.
Shapes: images (B, C, H, W) -> a list of five features (B, C_i, H / s_i, W / s_i), sizes rounded up, strides 2, 4, 8,
    16, 32 (output_stride 32), 2, 4, 8, 16, 16 or 2, 4, 8, 8, 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from segedu.validation.images import check_images
from segedu.validation.numbers import check_choice, check_integer, check_length, check_stages


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with an identity shortcut: figure 5 of the paper, left.

    Args:
        in_channels: C of the features.
        width: channels inside; the output has expansion * width channels.
        stride: stride of the first convolution.
        dilation: dilation of the second convolution.
        first_dilation: dilation of the first convolution, which has the stride, or had it before dilation replaced it.
    """

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, dilation: int = 1, first_dilation: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, width, stride, first_dilation)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, 1, dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, features: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(features)))
        x = self.bn2(self.conv2(x))
        x += features if self.downsample is None else self.downsample(features)
        return self.relu(x)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with an identity shortcut, the 3x3 on a quarter of the channels: figure 5, right.

    Paper: the stride is in the first 1x1 convolution, which ignores three quarters of the pixels. Here it is in the 3x3
    convolution, as in torchvision and its weights (ResNet v1.5).

    Args:
        in_channels: C of the features.
        width: channels inside; the output has expansion * width channels.
        stride: stride of the 3x3 convolution.
        dilation: unused here, because only a 1x1 convolution follows the stride.
        first_dilation: dilation of the 3x3 convolution.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, dilation: int = 1, first_dilation: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride, first_dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, width * self.expansion, stride)

    def forward(self, features: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(features)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += features if self.downsample is None else self.downsample(features)
        return self.relu(x)


class ResNet(nn.Module):
    """A 7x7 convolution, max pooling and four stages of blocks; state dict keys as in torchvision, without `fc`.

    Args:
        block: BasicBlock or Bottleneck.
        layers: number of blocks of each of the four stages.
        widths: width of the blocks of each stage; the first is also that of the 7x7 convolution.
        in_channels: channels of the images.
        output_stride: 32, or 16 or 8: dilation replaces the stride of the last stage, or of the last two.
        normalize: applied to the images first, such as `layers.normalize.Normalize`.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        *,
        in_channels: int = 3,
        output_stride: int = 32,
        normalize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_length("layers", layers, 4, of="stage")
        check_stages(layers=layers, widths=widths)
        check_integer("in_channels", in_channels)
        check_choice("output_stride", output_stride, (8, 16, 32))
        self.in_channels = in_channels
        self.channels = (widths[0], *(width * block.expansion for width in widths))
        self.strides = tuple(min(stride, output_stride) for stride in (2, 4, 8, 16, 32))
        self.normalize = nn.Identity() if normalize is None else normalize
        self.conv1 = nn.Conv2d(in_channels, widths[0], kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        dilation, previous_dilation = 1, 1  # of this stage and of the previous one
        for i in range(4):
            stride = 1 if i == 0 else self.strides[i + 1] // self.strides[i]
            if i and stride == 1:
                dilation *= 2
            first = block(self.channels[i], widths[i], stride, dilation, first_dilation=previous_dilation)
            rest = (
                block(self.channels[i + 1], widths[i], 1, dilation, first_dilation=dilation)
                for _ in range(1, layers[i])
            )
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *rest))
            previous_dilation = dilation
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels)
        features = [self.relu(self.bn1(self.conv1(self.normalize(images))))]  # (B, C, H / 2, W / 2)
        x = self.maxpool(features[0])
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features


def resnet18(**options: Any) -> ResNet:
    """ResNet with 18 layers (table 1 of the paper) and random weights; `options` are those of `ResNet`."""
    return ResNet(BasicBlock, (2, 2, 2, 2), **options)


def resnet34(**options: Any) -> ResNet:
    """ResNet with 34 layers (table 1 of the paper) and random weights; `options` are those of `ResNet`."""
    return ResNet(BasicBlock, (3, 4, 6, 3), **options)


def resnet50(**options: Any) -> ResNet:
    """ResNet with 50 layers (table 1 of the paper) and random weights; `options` are those of `ResNet`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **options)


def resnet101(**options: Any) -> ResNet:
    """ResNet with 101 layers (table 1 of the paper) and random weights; `options` are those of `ResNet`."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **options)


def _conv3x3(in_channels: int, out_channels: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """None for the identity, or a 1x1 convolution if the shape changes: option B of the paper."""
    if stride == 1 and in_channels == out_channels:
        return None
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
