"""DeepLab v1, large field of view: VGG-16 with atrous (dilated) convolutions, followed by a fully connected CRF.

Paper: Chen, Papandreou, Kokkinos, Murphy, Yuille, "Semantic Image Segmentation with Deep Convolutional Nets and
    Fully Connected CRFs", ICLR 2015, arXiv 1412.7062.
Idea: A classification network pools five times, which is too coarse for dense labels. The last two poolings keep
    their maximum but lose their stride, and the filters after them are dilated, so that they keep their field of view
    and their trained weights: features at 1/8 of the image size instead of 1/32. The first fully connected layer
    becomes a 3x3 convolution with rate 12, and a fully connected CRF then moves borders to where colours change.
Simplified: no features of earlier layers are added to the score (the paper's multi-scale variant).
    There is no packaged reference: tests compare the parts with hand-written convolutions, with the same network at
    stride 32, and measure the field of view by gradients.
Shapes: images (B, 3, H, W) -> logits (B, K, H, W), any H and W. `postprocess`: logits, and images to apply the CRF
    -> labels (B, H, W).
Quality: street: a recipe that asks for mean IoU 0.70 in 120 CPU-s; not measured with three seeds so far.
Course: 08-context
Lab: 08_context
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from segedu.backbones.vgg import VGG
from segedu.layers.resize import at_corners, upsample_from_corner
from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic.dense_crf import highest_class_after_crf
from segedu.validation.images import check_images
from segedu.validation.numbers import check_integers


class AtrousVGG(nn.Module):
    """A VGG of output stride 8: strides 2, 4, 8, 8, 8 after its five stages.

    All poolings are 3x3 with padding 1, as in the authors' network, so that feature (i, j) is centred on pixel
    (8 i, 8 j). The poolings after the fourth and the fifth stage have stride 1, and the convolutions of the fifth stage
    have dilation 2.

    Args:
        vgg: five stages, with or without trained weights. Its layers are copied.
    """

    def __init__(self, vgg: VGG) -> None:
        super().__init__()
        if len(vgg.channels) != 5:
            raise ValueError(f"vgg has {len(vgg.channels)} stages, expected 5")
        self.in_channels, self.channels, self.strides = vgg.in_channels, vgg.channels, (2, 4, 8, 8, 8)
        self.normalize = copy.deepcopy(vgg.normalize)
        self.stages = nn.ModuleList(copy.deepcopy(vgg.stage(i)) for i in range(5))
        self.pools = nn.ModuleList(nn.MaxPool2d(kernel_size=3, stride=s, padding=1) for s in (2, 2, 2, 1, 1))
        for module in self.stages[0]:
            if isinstance(module, nn.Conv2d):
                module.padding = (1, 1)  # FCN's padding of 100 would shift every feature
        for module in self.stages[4]:
            if isinstance(module, nn.Conv2d):
                module.dilation = module.padding = (2, 2)

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels)
        features, x = [], self.normalize(images)
        for stage, pool in zip(self.stages, self.pools, strict=True):
            x = pool(stage(x))
            features.append(x)
        return features


class DeepLabV1(nn.Module):
    """Backbone of output stride 8, the three fully connected layers as convolutions, bilinear upsampling.

    Args:
        backbone: returns a list of features from fine to coarse, of which the last is used, and has `channels` and
            `strides`, such as `AtrousVGG`.
        num_classes: K, background included.
        width: channels of the first two of the three layers. 1024 in the paper, 4096 in VGG.
        rate: dilation of the first layer: the taps of its 3x3 kernel are `rate` features apart.
        dropout: dropout probability after the first two layers.
    """

    def __init__(
        self, backbone: nn.Module, num_classes: int, width: int = 1024, rate: int = 12, dropout: float = 0.5
    ) -> None:
        super().__init__()
        check_integers(num_classes=num_classes, width=width, rate=rate)
        self.num_classes, self.stride = num_classes, backbone.strides[-1]
        self.backbone = backbone
        self.average = nn.AvgPool2d(kernel_size=3, stride=1, padding=1)
        self.fc6 = nn.Conv2d(backbone.channels[-1], width, kernel_size=3, padding=rate, dilation=rate)
        self.fc7 = nn.Conv2d(width, width, kernel_size=1)
        self.fc8 = nn.Conv2d(width, num_classes, kernel_size=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> Tensor:
        x = self.average(self.backbone(images)[-1])
        x = self.dropout(torch.relu(self.fc6(x)))
        x = self.dropout(torch.relu(self.fc7(x)))
        scores = self.fc8(x)  # (B, K, ceil(H / 8), ceil(W / 8))
        return upsample_from_corner(scores, self.stride, tuple(images.shape[-2:]))


def deeplabv1_loss(logits: Tensor, target: Tensor, stride: int = 8) -> Tensor:
    """Cross-entropy at every eighth row and column: the positions of the network's scores before upsampling.

    Paper: the sum over these positions; ours is the mean, so that the learning rate does not depend on the size.

    Args:
        logits: (B, K, H, W), of `DeepLabV1.forward`.
        target: (B, H, W) int64; 255 is ignored.
        stride: of the backbone.
    """
    return cross_entropy(*at_corners(logits, target, stride), ignore_index=255)


postprocess = highest_class_after_crf
