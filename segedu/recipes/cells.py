"""Synthetic cells for recipes: data for pixels and for instances, and the semantic recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from segedu.datasets.cells import Cells
from segedu.ops.masks import boxes_from_masks, masks_from_label_map
from segedu.recipes.baselines import Otsu
from segedu.recipes.data import Pair, Pairs, crop_flip_gamma, flip, pairs_of, synthetic_sets
from segedu.recipes.loss import PixelsAndOverlap
from segedu.recipes.recipe import Recipe
from segedu.recipes.task import SEMANTIC
from segedu.semantic.unet import UNet

Targets = Callable[[Tensor], dict[str, Tensor]]  # label map (H, W) -> what a network learns to predict
MIN_PIXELS = 8  # of an object; smaller ones are left at the border of a window
CLASSES = ("background", "nucleus")
RADIUS = 7.0  # pixels: about the mean distance from inside a nucleus to its border


class Objects(Pairs):
    """Images and label maps in memory. The targets are computed after the random change."""

    def __init__(self, pairs: Sequence[Pair], change: Callable[[Tensor, Tensor], Pair], targets: Targets) -> None:
        super().__init__(pairs, change)
        self.targets = targets

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, label_map = super().__getitem__(index)
        return image, self.targets(label_map)


def draw_pairs(number: int, seed: int) -> list[Pair]:
    """Scenes of 128 x 128 pixels with their classes."""
    return pairs_of(Cells(number, seed=seed))


def draw_label_maps(number: int, seed: int) -> list[Pair]:
    """Scenes of 128 x 128 pixels with their label maps."""
    return pairs_of(Cells(number, seed=seed), "label_map")


def cells_instance_sets(targets: Targets) -> partial:
    """Sets of 64 scenes, trained on in windows of 64 x 64 that cost a quarter of a scene, and of 32 held-out scenes."""
    windows = partial(Objects, change=partial(crop_flip_gamma, size=64), targets=targets)
    return partial(synthetic_sets, draw=draw_label_maps, train=64, held_out=32, dataset=windows)


def boxes_and_masks(label_map: Tensor) -> dict[str, Tensor]:
    """The objects of a label map as targets of class 1, without the slivers that a window leaves of an object."""
    masks = masks_from_label_map(label_map)
    masks = masks[masks.sum(dim=(1, 2)) >= MIN_PIXELS]
    return {"boxes": boxes_from_masks(masks), "labels": torch.ones(len(masks), dtype=torch.int64), "masks": masks}


RECIPES = (
    Recipe(
        method="unet",
        data="cells",
        task=SEMANTIC,
        classes=CLASSES,
        build=lambda: UNet(3, 2, base_channels=8, depth=3, padding=1),
        loss=PixelsAndOverlap(),
        sets=partial(synthetic_sets, draw=draw_pairs, train=64, held_out=32, dataset=partial(Pairs, change=flip)),
        baseline=Otsu,
        steps=150,
        batch_size=8,
        learning_rate=2e-3,
        metric="foreground_iou",
        target=0.80,
        cpu_minutes=2,
        gpu_minutes=0.5,
    ),
)
