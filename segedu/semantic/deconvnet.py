"""DeconvNet: a classification network followed by its mirror image, which upsamples by unpooling and deconvolution.

Paper: Noh, Hong, Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015, arXiv 1505.04366.
Idea: FCN's bilinear upsampling is too simple for fine shapes. Here, a deep network learns it: unpooling writes
    values at the indices of the encoder's max pooling, and transposed convolutions with batch normalisation fill
    the gaps. Between the two halves are VGG's fully connected layers, as convolutions.
Simplified: the network reads the whole image. The paper crops boxes that probably contain an object, 50 per image,
    labels each crop and takes the highest score at each pixel; it trains in two stages, easy crops first.
Shapes: images (B, C, H, W) -> logits (B, K, H, W), H and W of at least 193 for five poolings and the kernel of 7;
    in general more than 2**poolings * (kernel - 1). `postprocess`: logits -> labels (B, H, W).
    `DeconvNet(vgg16_bn(), 21)` is the paper's network, for 224 x 224. For a small one that trains in minutes on a
    CPU: DeconvNet(VGG(((8,), (16,), (32,), (64,), (64,)), batch_norm=True), 10, hidden=128, kernel_size=3).
Quality: street: a recipe that asks for mean IoU 0.50 in 120 CPU-s; not measured with three seeds so far.
Course: 05-fcn
Lab: 05_fcn
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.vgg import VGG
from segedu.layers.labels import highest_class
from segedu.validation.images import check_images
from segedu.validation.numbers import check_integers


def deconv_bn_relu(in_channels: int, out_channels: int, kernel_size: int = 3, padding: int = 0) -> nn.Sequential:
    """A transposed convolution of stride 1, batch normalisation and a ReLU; H grows by kernel_size - 1 - 2 padding."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, kernel_size, padding=padding, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Bottleneck(nn.Sequential):
    """The middle of the paper's table: fc6 reads the whole map, fc7 mixes channels, deconv restores the size.

    Args:
        channels: C of the coarsest features, and of the result.
        hidden: channels of fc6 and fc7.
        kernel_size: of fc6 and of the deconvolution.
    """

    def __init__(self, channels: int, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.fc6 = _conv_bn_relu(channels, hidden, kernel_size)
        self.fc7 = _conv_bn_relu(hidden, hidden, kernel_size=1)
        self.deconv = deconv_bn_relu(hidden, channels, kernel_size)


class DeconvNet(nn.Module):
    """Figure 2 of the paper: convolutions and poolings, fc6 and fc7, unpoolings and transposed convolutions.

    Args:
        encoder: stages of convolutions with batch normalisation; its poolings are replaced by poolings with indices.
        num_classes: K, background included.
        hidden: channels of fc6 and fc7.
        kernel_size: of fc6 and its inverse. After the last pooling, the image must have at least this many rows and
            columns.
    """

    def __init__(self, encoder: VGG, num_classes: int, *, hidden: int = 4096, kernel_size: int = 7) -> None:
        super().__init__()
        check_integers(num_classes=num_classes, hidden=hidden, kernel_size=kernel_size)
        if (padding := encoder.stage(0)[0].padding) != (1, 1):
            raise ValueError(f"encoder has a first_padding of {padding[0]}, expected 1, which keeps the size")
        self.encoder = encoder
        self.bottleneck = Bottleneck(encoder.channels[-1], hidden, kernel_size)
        self.decoder = nn.ModuleList(_mirrored(encoder.stage(i)) for i in reversed(range(len(encoder.channels))))
        finest = encoder.stage(0)[0].out_channels
        # The last deconvolution keeps its channels, because it does not reconstruct an image.
        self.decoder[-1][-1] = deconv_bn_relu(finest, finest, padding=1)
        self.classifier = nn.Conv2d(finest, num_classes, kernel_size=1)
        self.min_size = encoder.strides[-1] * (kernel_size - 1) + 1

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.encoder.in_channels, self.min_size)
        x = self.encoder.normalize(images)
        pooled = []
        for i in range(len(self.decoder)):
            x = self.encoder.stage(i)(x)  # (B, C, h, w)
            size = x.shape[-2:]
            x, indices = F.max_pool2d(x, kernel_size=2, ceil_mode=True, return_indices=True)
            pooled.append((indices, size))
        x = self.bottleneck(x)  # 7 x 7 -> 1 x 1 -> 7 x 7 cells at the paper's size
        for stage in self.decoder:
            indices, size = pooled.pop()
            x = stage(F.max_unpool2d(x, indices, kernel_size=2, output_size=size))
        return self.classifier(x)


def _conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Unlike `layers.conv.conv_bn_relu` without padding: fc6 must not read cells outside the map."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _mirrored(stage: nn.Sequential) -> nn.Sequential:
    convolutions = [layer for layer in stage if isinstance(layer, nn.Conv2d)]
    return nn.Sequential(
        *(deconv_bn_relu(conv.out_channels, conv.in_channels, padding=1) for conv in reversed(convolutions))
    )


postprocess = highest_class
