"""Recipes: how each method is trained, one row a method and data set.

`segedu train`, the labs and the tests read the same rows; `segedu.recipes.run` runs them, `segedu.recipes.data`
holds what they train on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segedu.backbones.densenet import DenseNet
from segedu.backbones.vgg import VGG
from segedu.datasets import prostate, street, volume
from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.dice import dice_loss
from segedu.losses.focal import focal_loss
from segedu.recipes.baselines import Otsu, Thresholds, WindowForest
from segedu.recipes.cells import CELLS
from segedu.recipes.data import (
    VOLUME_SIZE,
    cells_sets,
    nuclei_sets,
    prostate_sets,
    shapes_sets,
    street_sets,
    volume_sets,
)
from segedu.recipes.panoptic import PANOPTIC
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.shapes import SHAPES
from segedu.semantic.deconvnet import DeconvNet
from segedu.semantic.deeplabv1 import AtrousVGG, DeepLabV1
from segedu.semantic.deeplabv2 import DeepLabV2
from segedu.semantic.deeplabv3 import DeepLabV3
from segedu.semantic.deeplabv3plus import DeepLabV3Plus
from segedu.semantic.dense_unet import DenseUNet
from segedu.semantic.encoder_unet import EncoderUNet
from segedu.semantic.fcn import FCN
from segedu.semantic.nnunet.nnunet import build_network
from segedu.semantic.nnunet.plan import fingerprint, make_plan
from segedu.semantic.pspnet import PSPNet
from segedu.semantic.res_unet import res_unet
from segedu.semantic.segnet import SegNet
from segedu.semantic.unet import UNet
from segedu.semantic.unet3d import UNet3D
from segedu.weights import load
from segedu.weights.catalogue import STREET_VGG_STAGES


@dataclass(frozen=True)
class PixelsAndOverlap:
    """Cross-entropy and Dice of the batch: the first learns from every pixel, the second weighs classes alike.

    `class_weights` (K,) are of the cross-entropy; `background` says whether Dice counts class 0 too. Called with
    logits (B, K, ...) and target (B, ...) int64, 255 ignored, it gives the scalars `cross_entropy`, `dice` and `loss`,
    their sum.
    """

    class_weights: tuple[float, ...] | None = None
    background: bool = False

    def __call__(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        pixels = cross_entropy(logits, target, class_weights=weights)
        overlap = dice_loss(logits, target, per_image=False, include_background=self.background)
        return {"cross_entropy": pixels, "dice": overlap, "loss": pixels + overlap}


def street_vgg(stages: int = 5) -> VGG:
    """The small VGG that named windows of other streets, as papers start from ImageNet's; its first stages."""
    whole = load("street_vgg").state_dict()
    encoder = VGG(STREET_VGG_STAGES[:stages], batch_norm=True)
    encoder.load_state_dict({name: whole[name] for name in encoder.state_dict()})
    return encoder


def street_atrous_vgg() -> AtrousVGG:
    """The same with holes in place of the last two strides: features of stride 8."""
    return AtrousVGG(street_vgg())


def on_street(method: str, build: Callable[[], nn.Module], steps: int, target: float = 0.70, **other: Any) -> Recipe:
    """A row for the street; all of them share data, loss and budget, so that the table compares nets."""
    options = {"learning_rate": 3e-3, "batch_size": 8} | other
    return Recipe(
        method=method,
        data="street",
        classes=street.CLASSES,
        build=lambda: quick_layout(build()),
        loss=PixelsAndOverlap(background=True),  # people and boats weigh as much as road and sky
        sets=street_sets,
        baseline=WindowForest,
        steps=steps,
        metric="mean_iou",
        target=target,
        cpu_minutes=2,
        gpu_minutes=1,
        **options,
    )


STREET = (
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
    on_street("pspnet", lambda: PSPNet(street_atrous_vgg(), 10, width=64), 900),
    on_street("deeplabv1", lambda: DeepLabV1(street_atrous_vgg(), 10, 96, rate=4, dropout=0.1), 700),
    on_street("deeplabv2", lambda: DeepLabV2(street_atrous_vgg(), 10, (1, 2, 4, 6), scales=(1.0,), dropout=0.1), 700),
    on_street("deeplabv3", lambda: DeepLabV3(street_atrous_vgg(), 10, (2, 4, 6), width=64, dropout=0.1), 700),
    on_street("deeplabv3plus", lambda: DeepLabV3Plus(street_atrous_vgg(), 10, (2, 4, 6), 64, 16, dropout=0.1), 600),
)

MICROSCOPE = (
    Recipe(
        method="unet",
        data="shapes",
        classes=("background", "circle", "square", "triangle"),
        build=lambda: UNet(3, 4, base_channels=12, depth=3, padding=1),
        loss=PixelsAndOverlap(),
        sets=shapes_sets,
        baseline=Otsu,
        steps=600,
        batch_size=16,
        learning_rate=3e-3,
        metric="mean_iou",
        target=0.80,
        cpu_minutes=5,
        gpu_minutes=0.5,
    ),
    Recipe(
        method="unet",
        data="cells",
        classes=("background", "nucleus"),
        build=lambda: UNet(3, 2, base_channels=8, depth=3, padding=1),
        loss=PixelsAndOverlap(),
        sets=cells_sets,
        baseline=Otsu,
        steps=150,
        batch_size=8,
        learning_rate=2e-3,
        metric="foreground_iou",
        target=0.80,
        cpu_minutes=2,
        gpu_minutes=0.5,
    ),
    Recipe(
        method="unet",
        data="nuclei",
        classes=("background", "nucleus"),
        build=lambda: UNet(3, 2, base_channels=16, padding=1),
        loss=PixelsAndOverlap(),
        sets=nuclei_sets,
        baseline=Otsu,
        steps=600,
        batch_size=8,
        learning_rate=2e-3,
        metric="foreground_iou",
        target=0.88,
        cpu_minutes=20,
        gpu_minutes=3,
    ),
    Recipe(
        method="res_unet",
        data="nuclei",
        classes=("background", "nucleus"),
        build=lambda: res_unet(3, 2, (16, 32, 64, 128)),
        loss=PixelsAndOverlap(),
        sets=nuclei_sets,
        baseline=Otsu,
        steps=600,
        batch_size=8,
        learning_rate=8e-3,
        metric="foreground_iou",
        target=0.88,
        cpu_minutes=20,
        gpu_minutes=3,
    ),
)


def planned_unet() -> UNet3D:
    """What nnU-Net plans for such patients, at a width for a CPU: the thick axis is pooled later than the others."""
    patients = (volume.draw_volume((0, i), VOLUME_SIZE, tumours=0) for i in range(4))
    return build_network(make_plan(fingerprint(patients), 6, ct=(True,), base_width=8))


# Unweighted, spleen and kidneys are found late: they fill less than a hundredth of a volume each.
ORGAN_WEIGHTS = (0.3, 0.6, 1.0, 6.0, 3.0, 2.0)

MEDICAL = (
    Recipe(
        method="unet",
        data="prostate",
        classes=prostate.CLASSES,
        build=lambda: quick_layout(UNet(3, 2, base_channels=8, depth=3, padding=1)),
        loss=focal_loss,
        sets=prostate_sets,
        baseline=Thresholds,
        steps=450,
        batch_size=8,
        learning_rate=3e-3,
        metric="dice",
        target=0.80,
        cpu_minutes=2,
        gpu_minutes=0.5,
    ),
    Recipe(
        method="unet3d",
        data="volume",
        classes=volume.CLASSES[:6],  # no tumours
        build=lambda: UNet3D(1, 6, ((8, 8), (16, 16), (32, 32), (64, 64)), padding=True),
        loss=PixelsAndOverlap(ORGAN_WEIGHTS),
        sets=volume_sets,
        baseline=Thresholds,
        steps=240,
        batch_size=2,
        learning_rate=4e-3,
        metric="dice",
        target=0.80,
        cpu_minutes=2,
        gpu_minutes=1,
    ),
    Recipe(
        method="nnunet",
        data="volume",
        classes=volume.CLASSES[:6],
        build=planned_unet,
        loss=PixelsAndOverlap(ORGAN_WEIGHTS),
        sets=volume_sets,
        baseline=Thresholds,
        steps=500,
        batch_size=2,
        learning_rate=4e-3,
        metric="dice",
        target=0.80,
        cpu_minutes=2,
        gpu_minutes=1,
    ),
)

RECIPES = (*MICROSCOPE, *STREET, *MEDICAL, *CELLS, *SHAPES, *PANOPTIC)


def find_recipe(method: str, data: str) -> tuple[Recipe, Path | None]:
    """The row of a method and a data set, and the folder of the data if `data` is a path.

    Raises:
        FileNotFoundError: `data` is a path, but not that of a folder with an index.
        ValueError: there is no such row; the message lists those that there are.
    """
    rows = {(recipe.method, recipe.data): recipe for recipe in RECIPES}
    folder = Path(data)
    if (method, data) in rows and data != "nuclei":
        return rows[method, data], None
    if (folder / "index.csv").is_file() and (method, "nuclei") in rows:
        return rows[method, "nuclei"], folder
    if (method, "nuclei") in rows and (folder.is_dir() or len(folder.parts) > 1):
        why = "has no index.csv" if folder.is_dir() else "is no folder"
        raise FileNotFoundError(f"data is {data!r}, which {why}, expected a folder with index.csv, images and labels")
    known = ", ".join(f"{name} on {where}" for name, where in rows)
    raise ValueError(
        f"no recipe trains {method!r} on {data!r}, expected one of: {known}; for nuclei, data is the path of a "
        f"folder that holds index.csv, images and labels"
    )
