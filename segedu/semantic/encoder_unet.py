"""U-Net on an encoder: the contracting path is a network pretrained to classify photographs.

Paper: Iglovikov, Shvets, "TernausNet: U-Net with VGG11 Encoder Pre-Trained on ImageNet for Image Segmentation",
    2018, arXiv 1801.05746.
Idea: The features that a classification network has learned from a million photographs are a good initialisation for
    the contracting path, above all if few images are labelled. The expanding path is new and small: upsample by 2,
    concatenate the skip, two convolutions. Any backbone that returns a list of features fits: VGG, ResNet, DenseNet.
Simplified: nearest-neighbour upsampling with batch normalisation instead of up-convolutions, as in
    segmentation_models.pytorch; its weights fit.
Shapes: images (B, C, H, W) -> logits (B, K, H, W), any H and W that the backbone takes. `postprocess`: logits ->
    labels (B, H, W).
Quality: street: mean IoU 0.8208, the least of three seeds (forest 0.48), 79.2 CPU-s, from the small VGG.
    pets: mean IoU 0.8488 on test, 0.7994 on other breeds, one seed (forest 0.63, 0.58), 275 CPU-s in bfloat16.
Course: 06-unet
Lab: 06_unet
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.layers.conv import conv_bn_relu
from segedu.layers.labels import highest_class
from segedu.layers.resize import upsample_to
from segedu.validation.numbers import check_integers


class Up(nn.Module):
    """One step of the expanding path: nearest-neighbour upsampling, concatenation with the skip, two convolutions.

    Args:
        in_channels: C of the coarser features.
        skip_channels: C of the skip, 0 for none.
        out_channels: C of the result.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(in_channels + skip_channels, out_channels)
        self.conv2 = conv_bn_relu(out_channels, out_channels)

    def forward(self, features: Tensor, size: tuple[int, int], skip: Tensor | None = None) -> Tensor:
        up = F.interpolate(features, size=size, mode="nearest")
        merged = up if skip is None else torch.cat([up, skip], dim=1)
        return self.conv2(self.conv1(merged))


class EncoderUNet(nn.Module):
    """A backbone as the contracting path, and one step of the expanding path for each of its features.

    Args:
        backbone: returns a list of features from fine to coarse, of strides 2, 4, ..., and has `channels`.
        num_classes: K, background included.
        widths: channels of each step; the fifth, to full resolution, has no skip. If there are fewer widths than
            features, the expanding path ends early, which is inexpensive, and the logits are upsampled bilinearly.
        up: makes one step from the channels of the coarser features, of the skip (0 for none) and of the result.
        head_size: kernel size of the last convolution, odd.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        widths: Sequence[int] = (256, 128, 64, 32, 16),
        up: Callable[[int, int, int], nn.Module] = Up,
        head_size: int = 3,
    ) -> None:
        super().__init__()
        channels = list(backbone.channels)
        if not 1 <= len(widths) <= len(channels):
            raise ValueError(f"widths is {tuple(widths)}, expected 1 to {len(channels)} integers, one for each step up")
        check_integers(num_classes=num_classes, widths=widths)
        self.num_classes = num_classes
        self.backbone = backbone
        in_channels = [channels[-1], *widths[:-1]]
        skip_channels = [*channels[-2::-1], 0][: len(widths)]
        self.expanding = nn.ModuleList(map(up, in_channels, skip_channels, widths))
        self.head = nn.Conv2d(widths[-1], num_classes, head_size, padding=head_size // 2)
        for module in [*self.expanding.modules(), self.head]:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        *skips, x = self.backbone(images)
        for up in self.expanding:
            skip = skips.pop() if skips else None
            x = up(x, images.shape[-2:] if skip is None else skip.shape[-2:], skip)
        logits = self.head(x)  # (B, K, h, w)
        return logits if logits.shape[-2:] == images.shape[-2:] else upsample_to(logits, images)


postprocess = highest_class
