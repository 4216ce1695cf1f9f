"""Mask2Formers at tiny width."""

from __future__ import annotations

from randomise import randomise

from segedu.backbones.resnet import Bottleneck, ResNet
from segedu.backbones.swin import Swin
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.panoptic.mask2former.mask2former import Mask2Former, MaskedDecoder
from segedu.panoptic.mask2former.pixel_decoder import PixelDecoder

QUERIES, CLASSES, WIDTH, HEADS, ENCODER, DECODER, PIXEL_LAYERS, LAYERS = 6, 4, 32, 4, 24, 20, 2, 4
RESNET = (2, 2, 3, 4)  # a quarter of the channels
SWIN = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4), "window_size": 3}


def small(kind: str = "resnet") -> Mask2Former:
    normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
    if kind == "swin":
        body = Swin(**SWIN, normalize=normalize, dense=True)
    else:
        body = ResNet(Bottleneck, (1, 1, 1, 1), RESNET, normalize=normalize)
    pixels = PixelDecoder(body.channels[-4:], WIDTH, HEADS, PIXEL_LAYERS, ENCODER)
    return randomise(Mask2Former(body, pixels, MaskedDecoder(CLASSES, QUERIES, WIDTH, HEADS, LAYERS, DECODER)))
