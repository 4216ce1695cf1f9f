"""Semantic recipes on medical images: slices of the prostate, and volumes of abdominal organs."""

from __future__ import annotations

from functools import partial

from segedu.datasets import prostate, volume
from segedu.datasets.scenes import Scenes
from segedu.losses.focal import focal_loss
from segedu.recipes.baselines import Thresholds
from segedu.recipes.data import Pair, Pairs, brighten, mirror_gamma, pairs_of, synthetic_sets
from segedu.recipes.loss import PixelsAndOverlap
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.task import SEMANTIC
from segedu.semantic.nnunet.nnunet import build_network
from segedu.semantic.nnunet.plan import fingerprint, make_plan
from segedu.semantic.unet import UNet
from segedu.semantic.unet3d import UNet3D

VOLUME_SIZE = (16, 32, 48)  # voxels
# Without weights, spleen and kidneys are learned late: each fills less than a hundredth of a volume.
ORGAN_WEIGHTS = (0.3, 0.6, 1.0, 6.0, 3.0, 2.0)


def volume_pairs(number: int, seed: int) -> list[Pair]:
    """Patients without tumours, 16 x 32 x 48 voxels, and their organs."""
    return pairs_of(Scenes(volume.draw_volume, number, seed=seed, size=VOLUME_SIZE, tumours=0))


def prostate_pairs(number: int, seed: int) -> list[Pair]:
    """Slices of 96 x 96 pixels."""
    return pairs_of(Scenes(prostate.draw_prostate, number, seed=seed))


def planned_unet() -> UNet3D:
    """The network that nnU-Net plans for such patients, with a width for CPUs. It pools the thick axis later."""
    patients = (volume.draw_volume((0, i), VOLUME_SIZE, tumours=0) for i in range(4))
    return build_network(make_plan(fingerprint(patients), 6, ct=(True,), base_width=8))


ORGANS = {
    "data": "volume",
    "task": SEMANTIC,
    "classes": volume.CLASSES[:6],  # no tumours
    "loss": PixelsAndOverlap(ORGAN_WEIGHTS),
    "sets": partial(synthetic_sets, draw=volume_pairs, train=24, held_out=12, dataset=partial(Pairs, change=brighten)),
    "baseline": Thresholds,
    "batch_size": 2,
    "learning_rate": 4e-3,
    "metric": "dice",
    "target": 0.80,
    "cpu_minutes": 2,
    "gpu_minutes": 1,
}
RECIPES = (
    Recipe(
        method="unet",
        data="prostate",
        task=SEMANTIC,
        classes=prostate.CLASSES,
        build=lambda: quick_layout(UNet(3, 2, base_channels=8, depth=3, padding=1)),
        loss=focal_loss,
        sets=partial(
            synthetic_sets, draw=prostate_pairs, train=96, held_out=40, dataset=partial(Pairs, change=mirror_gamma)
        ),
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
        build=lambda: UNet3D(1, 6, ((8, 8), (16, 16), (32, 32), (64, 64)), padding=True),
        steps=240,
        **ORGANS,
    ),
    Recipe(method="nnunet", build=planned_unet, steps=500, **ORGANS),
)
