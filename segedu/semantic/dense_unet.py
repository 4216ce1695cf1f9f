"""Dense U-Net: dense blocks in the encoder, and skips that are added instead of concatenated in the decoder.

Paper: Li, Chen, Qi, Dou, Fu, Heng, "H-DenseUNet: Hybrid Densely Connected UNet for Liver and Tumor Segmentation
    from CT Volumes", IEEE TMI 2018, arXiv 1709.07330: its 2D DenseUNet.
Idea: In a dense block, each layer reads the features of all layers before it, which saves weights and shortens the
    paths of the gradient. The skips of the U restore the detail that the transitions pooled away. Three neighbouring
    slices of a volume are the channels of one image.
Simplified: no dropout, and no 3D part after it. A skip is the input of a transition's convolution: the features of its
    dense block after normalisation and ReLU; the paper takes them before.
Shapes: images (B, C, H, W) -> logits (B, K, H, W), any H and W that the backbone takes. `postprocess`: logits ->
    labels (B, H, W).
Quality: street: mean IoU 0.7147, the least of three seeds (forest 0.48), 89.3 CPU-s.
Course: 06-unet
Lab: 06_unet
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.densenet import DenseNet
from segedu.layers.conv import conv_bn_relu
from segedu.layers.labels import highest_class
from segedu.semantic.encoder_unet import EncoderUNet


class UpAdd(nn.Module):
    """One step of the decoder: nearest-neighbour upsampling, sum with the skip, convolution (table 1 of the paper).

    Args:
        in_channels: C of the coarser features.
        skip_channels: C of the skip, 0 for none; if it differs from `in_channels`, a 1x1 convolution projects the skip.
        out_channels: C of the result.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        fits = skip_channels in (0, in_channels)
        self.project = nn.Identity() if fits else nn.Conv2d(skip_channels, in_channels, kernel_size=1)
        self.conv = conv_bn_relu(in_channels, out_channels)

    def forward(self, features: Tensor, size: tuple[int, int], skip: Tensor | None = None) -> Tensor:
        up = F.interpolate(features, size=size, mode="nearest")
        return self.conv(up if skip is None else up + self.project(skip))


class DenseUNet(EncoderUNet):
    """A DenseNet, one step of the decoder for each of its features, and a 1x1 convolution.

    Args:
        backbone: returns a list of features from fine to coarse, of strides 2, 4, ..., and has `channels`.
        num_classes: K, background included, 3 in the paper.
        widths: channels of each step. None: those of the skip that the next step adds, so that only the first
            step projects, then those of the finest features, then 64: the paper's 768, 384, 96, 96, 64 for
            DenseNet-161. If there are fewer widths than features, the decoder ends early, as in `EncoderUNet`.
    """

    def __init__(self, backbone: nn.Module, num_classes: int = 3, widths: Sequence[int] | None = None) -> None:
        channels = list(backbone.channels)
        widths = [*channels[-3::-1], channels[0], 64] if widths is None else widths
        super().__init__(backbone, num_classes, widths, up=UpAdd, head_size=1)


def dense_unet_161(num_classes: int = 3) -> DenseUNet:
    """The paper's network with random weights: DenseNet-161 (growth rate 48) and the decoder of its table 1."""
    return DenseUNet(DenseNet((6, 12, 36, 24), growth_rate=48, width=96), num_classes)


postprocess = highest_class
