"""Semantic recipes on street scenes: ten classes, and a small pretrained VGG as the encoder of most networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from segedu.backbones.densenet import DenseNet
from segedu.datasets.street import CLASSES
from segedu.recipes.baselines import WindowForest
from segedu.recipes.data import Pairs, crop_mirror, street_pairs, synthetic_sets
from segedu.recipes.loss import PixelsAndOverlap
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.street_vgg import street_vgg
from segedu.recipes.task import SEMANTIC
from segedu.semantic.deconvnet import DeconvNet
from segedu.semantic.deeplabv1 import AtrousVGG, DeepLabV1
from segedu.semantic.deeplabv2 import DeepLabV2
from segedu.semantic.deeplabv3 import DeepLabV3
from segedu.semantic.deeplabv3plus import DeepLabV3Plus
from segedu.semantic.dense_unet import DenseUNet
from segedu.semantic.encoder_unet import EncoderUNet
from segedu.semantic.fcn import FCN
from segedu.semantic.pspnet import PSPNet
from segedu.semantic.res_unet import res_unet
from segedu.semantic.segnet import SegNet
from segedu.semantic.unet import UNet

# scenes of 96 x 160, trained on in windows of 64 x 112
SETS = partial(synthetic_sets, draw=street_pairs, train=1024, held_out=64, dataset=partial(Pairs, change=crop_mirror))


def atrous_vgg() -> AtrousVGG:
    """The pretrained VGG with atrous convolutions instead of its last two strides: features of stride 8."""
    return AtrousVGG(street_vgg())


def on_street(method: str, build: Callable[[], nn.Module], steps: int, target: float = 0.70, **other: Any) -> Recipe:
    """A recipe on streets. All share data, loss and budget, so the table compares networks."""
    options = {"learning_rate": 3e-3, "batch_size": 8} | other
    return Recipe(
        method=method,
        data="street",
        task=SEMANTIC,
        classes=CLASSES,
        build=lambda: quick_layout(build()),
        loss=PixelsAndOverlap(background=True),  # people and boats weigh as much as road and sky
        sets=SETS,
        baseline=WindowForest,
        steps=steps,
        metric="mean_iou",
        target=target,
        cpu_minutes=2,
        gpu_minutes=1,
        **options,
    )


RECIPES = (
    on_street("fcn32", lambda: FCN(street_vgg(), 10, stride=32), 1100, target=0.55),
    on_street("fcn16", lambda: FCN(street_vgg(), 10, stride=16), 1100, target=0.55),
    on_street("fcn8", lambda: FCN(street_vgg(), 10, stride=8), 1100),
    on_street("segnet", lambda: SegNet(street_vgg(4), 10), 900, learning_rate=5e-3),
    on_street("deconvnet", lambda: DeconvNet(street_vgg(), 10, hidden=128, kernel_size=2), 650, target=0.50),
    on_street("unet", lambda: UNet(3, 10, base_channels=8, padding=1), 950, target=0.60),
    on_street("res_unet", lambda: res_unet(3, 10, (12, 24, 48, 96), stem_stride=2), 880, learning_rate=1e-2),
    on_street(
        "dense_unet", lambda: DenseUNet(DenseNet((2, 2, 4, 4), 16, 16), 10, (64, 48, 32)), 1000, learning_rate=5e-3
    ),
    on_street("encoder_unet", lambda: EncoderUNet(street_vgg(), 10, (64, 48, 32, 16)), 700),
    on_street("pspnet", lambda: PSPNet(atrous_vgg(), 10, width=64), 900),
    on_street("deeplabv1", lambda: DeepLabV1(atrous_vgg(), 10, 96, rate=4, dropout=0.1), 700),
    on_street("deeplabv2", lambda: DeepLabV2(atrous_vgg(), 10, (1, 2, 4, 6), scales=(1.0,), dropout=0.1), 700),
    on_street("deeplabv3", lambda: DeepLabV3(atrous_vgg(), 10, (2, 4, 6), width=64, dropout=0.1), 700),
    on_street("deeplabv3plus", lambda: DeepLabV3Plus(atrous_vgg(), 10, (2, 4, 6), 64, 16, dropout=0.1), 600),
)
