"""PSPNet: pooling the features over 1, 4, 9 and 36 regions of the image adds context to every position.

Paper: Zhao, Shi, Qi, Wang, Jia, "Pyramid Scene Parsing Network", CVPR 2017, arXiv 1612.01105.
Idea: FCN labels a boat as a car if it does not see the water. The pyramid adds to every position the mean over the
    whole image and over its region of 2x2, 3x3 and 6x6 grids. A 1x1 convolution reduces each mean to a quarter of the
    channels before it is upsampled and concatenated to the features. An auxiliary loss at the last but one stage
    helps deep backbones to train.
Simplified: the backbone is injected; the paper's ResNet has three 3x3 convolutions in place of the first 7x7.
Shapes: images (B, 3, H, W) -> logits (B, K, H, W), any H and W. `postprocess`: logits -> labels (B, H, W).
Quality: street: mean IoU 0.7213, the least of three seeds (forest 0.48), 114.5 CPU-s, from the small VGG.
Course: 08-context
Lab: 08_context
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from segedu.layers.batch_norm import PooledBatchNorm2d
from segedu.layers.conv import conv_head
from segedu.layers.labels import highest_class
from segedu.layers.resize import upsample_to
from segedu.losses.cross_entropy import cross_entropy
from segedu.validation.numbers import check_integers, check_number
from segedu.validation.tensors import check_keys


class PyramidPooling(nn.Module):
    """The paper's figure 3 (c): features, concatenated with their means over bins x bins regions of the image.

    Args:
        in_channels: C of the features.
        bins: number of regions along each side, one integer per level.
        width: channels of each level. None: C / number of levels, the paper's choice, so that the levels together have
            as many channels as the features.
        align_corners: of the upsampling, see `PSPNet`.

    Attributes:
        out_channels: C + number of levels * width.
    """

    def __init__(
        self,
        in_channels: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        width: int | None = None,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        if not bins:
            raise ValueError("bins is empty, expected one or more integers")
        width = in_channels // len(bins) if width is None else width
        check_integers(bins=bins, width=width)
        self.align_corners = align_corners
        self.out_channels = in_channels + len(bins) * width
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(regions),
                nn.Conv2d(in_channels, width, kernel_size=1, bias=False),
                PooledBatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for regions in bins
        )

    def forward(self, features: Tensor) -> Tensor:
        joined = [features]
        for level in self.levels:
            means = level(features)  # (B, width, bins, bins)
            joined.append(upsample_to(means, features, self.align_corners))
        return torch.cat(joined, dim=1)  # (B, C + levels * width, h, w)


class PSPNet(nn.Module):
    """The paper's figure 3: backbone, pyramid, 3x3 convolution, classifier, bilinear upsampling.

    Args:
        backbone: returns a list of features from fine to coarse, of which the last is used, and has `channels`. The
            paper's backbone has output stride 8.
        num_classes: K, background included.
        bins: regions along each side, one integer per level.
        width: channels of the 3x3 convolution after the pyramid.
        level_width: channels of each level of the pyramid, None for the paper's.
        dropout: dropout probability before the classifier.
        aux: whether to add an auxiliary head on the last but one features, see `forward_with_aux`.
        align_corners: whether bilinear upsampling maps corner pixels onto corner pixels, as the authors' code
            and segmentation_models_pytorch do. With strides that keep the first pixel it is exact where H and W
            are 8 n + 1.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        width: int = 512,
        *,
        level_width: int | None = None,
        dropout: float = 0.1,
        aux: bool = False,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.num_classes, self.align_corners = num_classes, align_corners
        self.backbone = backbone
        self.pyramid = PyramidPooling(backbone.channels[-1], bins, level_width, align_corners)
        self.classifier = conv_head(self.pyramid.out_channels, width, num_classes, dropout)
        self.aux_classifier = conv_head(backbone.channels[-2], None, num_classes, dropout) if aux else None

    def forward(self, images: Tensor) -> Tensor:
        return upsample_to(self.classifier(self.pyramid(self.backbone(images)[-1])), images, self.align_corners)

    def forward_with_aux(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of both heads, for `pspnet_loss`. The model must be built with `aux=True`.

        Returns:
            `out` (B, K, H, W), which `forward` returns, and `aux` (B, K, H, W).
        """
        if self.aux_classifier is None:
            raise ValueError("aux_classifier is None, expected a model built with aux=True")
        *_, penultimate, last = self.backbone(images)
        logits = {"out": self.classifier(self.pyramid(last)), "aux": self.aux_classifier(penultimate)}
        return {name: upsample_to(scores, images, self.align_corners) for name, scores in logits.items()}


def pspnet_loss(outputs: Mapping[str, Tensor], target: Tensor, aux_weight: float = 0.4) -> Tensor:
    """Cross-entropy of the main head and, with a smaller weight, of the auxiliary head: the paper's section 4.

    Args:
        outputs: `out` and `aux` (B, K, H, W), of `PSPNet.forward_with_aux`.
        target: (B, H, W) int64; 255 is ignored.
        aux_weight: weight of the auxiliary loss.
    """
    check_keys("outputs", outputs, ("out", "aux"))
    check_number("aux_weight", aux_weight)
    main, aux = (cross_entropy(outputs[name], target, ignore_index=255) for name in ("out", "aux"))
    return main + aux_weight * aux


postprocess = highest_class
