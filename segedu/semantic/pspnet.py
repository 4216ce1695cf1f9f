"""PSPNet: the same features pooled into 1, 4, 9 and 36 parts of the image, so that context counts.

Paper: Zhao, Shi, Qi, Wang, Jia, "Pyramid Scene Parsing Network", CVPR 2017, arXiv 1612.01105.
Idea: FCN calls a boat a car where it does not see the water. The pyramid gives every place the mean of the whole
    image, of its quarter, its ninth and its 36th, each cut to a quarter of the channels by a 1x1 convolution,
    enlarged again and concatenated to the features themselves. An auxiliary loss at the last but one stage helps
    deep backbones to train.
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


class PyramidPooling(nn.Module):
    """The paper's figure 3 (c): features beside their means over bins x bins parts of the image.

    Args:
        in_channels: C of the features.
        bins: number of parts along each side, one number a level.
        width: channels of each level. None: C / number of levels, the paper's choice: the pyramid then weighs as
            much as the features beside it.
        align_corners: how levels are enlarged, see `PSPNet`.

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
        if not bins or min(bins) < 1:
            raise ValueError(f"bins is {tuple(bins)}, expected one or more numbers of at least 1")
        width = in_channels // len(bins) if width is None else width
        if width < 1:
            raise ValueError(f"width is {width}, expected at least 1; in_channels is {in_channels}")
        self.align_corners = align_corners
        self.out_channels = in_channels + len(bins) * width
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(parts),
                nn.Conv2d(in_channels, width, kernel_size=1, bias=False),
                PooledBatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for parts in bins
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
        backbone: gives a list of features, fine to coarse, and has `channels`. The last is used; the paper's
            backbone has output stride 8.
        num_classes: K, background included.
        bins: parts along each side, one number a level.
        width: channels of the 3x3 convolution behind the pyramid.
        level_width: channels of each level of the pyramid, None for the paper's.
        dropout: before the classifier.
        aux: whether there is an auxiliary head on the last but one features, see `forward_with_aux`.
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
        """Logits of both heads, for `pspnet_loss`.

        Args:
            images: (B, 3, H, W).

        Returns:
            `out` (B, K, H, W), which is what `forward` gives, and `aux` (B, K, H, W).

        Raises:
            ValueError: the model was made without an auxiliary head.
        """
        if self.aux_classifier is None:
            raise ValueError("the model has no auxiliary head, expected one made with aux=True")
        *_, middle, last = self.backbone(images)
        scores = {"out": self.classifier(self.pyramid(last)), "aux": self.aux_classifier(middle)}
        return {name: upsample_to(score, images, self.align_corners) for name, score in scores.items()}


def pspnet_loss(outputs: Mapping[str, Tensor], target: Tensor, aux_weight: float = 0.4) -> Tensor:
    """Cross-entropy of the main head and, with a smaller weight, of the auxiliary one: the paper's section 4.

    Args:
        outputs: `out` and `aux` (B, K, H, W), of `PSPNet.forward_with_aux`.
        target: (B, H, W) int64; 255 is ignored.
        aux_weight: weight of the auxiliary loss.

    Returns:
        A scalar.

    Raises:
        TypeError: `outputs` is no dict, such as what `forward` gives.
        ValueError: a head is missing, or `aux_weight` is negative.
    """
    if not isinstance(outputs, Mapping):
        raise TypeError(f"outputs has type {type(outputs).__name__}, expected the dict of `forward_with_aux`")
    if not {"out", "aux"} <= set(outputs):
        raise ValueError(f"outputs has the keys {sorted(outputs)}, expected out and aux")
    if not aux_weight >= 0:
        raise ValueError(f"aux_weight is {aux_weight}, expected at least 0")
    main, aux = (cross_entropy(outputs[name], target, ignore_index=255) for name in ("out", "aux"))
    return main + aux_weight * aux


postprocess = highest_class
