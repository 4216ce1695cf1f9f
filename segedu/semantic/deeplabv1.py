"""DeepLab v1, large field of view: VGG-16 with holes in its filters, and a CRF behind it.

Paper: Chen, Papandreou, Kokkinos, Murphy, Yuille, "Semantic Image Segmentation with Deep Convolutional Nets and
    Fully Connected CRFs", ICLR 2015, arXiv 1412.7062.
Idea: A classifier pools five times, which is too coarse for labels. The last two poolings keep their maximum but
    lose their stride, and the filters behind them get holes, so that they see what they saw before: features at
    1/8 of the image instead of 1/32, with the trained weights. The first fully connected layer becomes a 3x3
    convolution with rate 12. A fully connected CRF then moves the borders to where colours change.
Simplified: no features of earlier layers are added to the score (the paper's multi-scale variant).
    There is no packaged reference: tests compare the parts with hand-written convolutions, with the same net at
    stride 32, and measure the field of view by gradients.
Shapes: images (B, 3, H, W) -> logits (B, K, H, W), any H and W. `postprocess`: logits, and images if the CRF is
    wanted -> labels (B, H, W).
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


class AtrousVGG(nn.Module):
    """A VGG of output stride 8: strides 2, 4, 8, 8, 8 after its five stages.

    All poolings are 3x3 with padding 1, as in the authors' net: a feature then belongs to the pixel in the centre
    of what it sees, (8 i, 8 j). Those behind the fourth and the fifth stage have stride 1, and the convolutions
    of the fifth dilation 2.

    Args:
        vgg: five stages, with trained weights or not. Its layers are copied.
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
                module.padding = (1, 1)  # FCN's 100 would move every feature
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
        backbone: gives a list of features, fine to coarse, and has `channels` and `strides`, such as `AtrousVGG`.
            The last features are used.
        num_classes: K, background included.
        width: channels of the first two of the three layers. 1024 in the paper, 4096 in VGG.
        rate: dilation of the first; its 3x3 kernel looks at places `rate` features apart.
        dropout: behind the first two layers.
    """

    def __init__(
        self, backbone: nn.Module, num_classes: int, width: int = 1024, rate: int = 12, dropout: float = 0.5
    ) -> None:
        super().__init__()
        for name, value in {"num_classes": num_classes, "width": width, "rate": rate}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
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
    """Cross-entropy at every eighth row and column, the places of the net's scores before upsampling.

    Paper: the sum over these places; ours is the mean, so that the learning rate does not depend on the size.

    Args:
        logits: (B, K, H, W), of `DeepLabV1.forward`.
        target: (B, H, W) int64; 255 is ignored.
        stride: that of the backbone.

    Returns:
        A scalar.

    Raises:
        ValueError: `stride` is below 1, or the shapes do not fit.
    """
    return cross_entropy(*at_corners(logits, target, stride), ignore_index=255)


postprocess = highest_class_after_crf
