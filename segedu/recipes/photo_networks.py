"""Semantic networks for photographs, for any number of classes: wider than those of the street scenes."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from segedu.backbones.vgg import VGG
from segedu.recipes.recipe import quick_layout
from segedu.recipes.street_vgg import street_vgg
from segedu.semantic.deeplabv1 import AtrousVGG
from segedu.semantic.deeplabv3plus import DeepLabV3Plus
from segedu.semantic.encoder_unet import EncoderUNet
from segedu.semantic.fcn import FCN
from segedu.semantic.pspnet import PSPNet
from segedu.semantic.res_unet import res_unet
from segedu.semantic.segnet import SegNet
from segedu.semantic.unet import UNet

Encoder = Callable[[], VGG]

# method -> (network for a number of classes and a VGG, learning rate); unet and res_unet start from random weights
NETWORKS: dict[str, tuple[Callable[[int, Encoder], nn.Module], float]] = {
    "unet": (lambda num_classes, vgg: UNet(3, num_classes, base_channels=16, padding=1), 2e-3),
    "res_unet": (lambda num_classes, vgg: res_unet(3, num_classes, (16, 32, 64, 128)), 5e-3),
    "encoder_unet": (lambda num_classes, vgg: EncoderUNet(vgg(), num_classes, (64, 48, 32, 16)), 3e-3),
    "fcn8": (lambda num_classes, vgg: FCN(vgg(), num_classes, stride=8), 3e-3),
    "segnet": (lambda num_classes, vgg: SegNet(street_vgg(4), num_classes), 5e-3),
    "pspnet": (lambda num_classes, vgg: PSPNet(AtrousVGG(vgg()), num_classes, width=64), 3e-3),
    "deeplabv3plus": (
        lambda num_classes, vgg: DeepLabV3Plus(AtrousVGG(vgg()), num_classes, (2, 4, 6), 64, 16, dropout=0.1),
        3e-3,
    ),
}


def build_for_photos(method: str, num_classes: int) -> nn.Module:
    """The network of a method for images (B, 3, H, W), with logits (B, num_classes, H, W)."""
    return quick_layout(NETWORKS[method][0](num_classes, street_vgg))
