"""Omnipose and Cellpose on the same synthetic bacteria: long rods that lie side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from segedu.datasets.bacteria import CLASSES, Bacteria
from segedu.instance import omnipose
from segedu.instance.cellpose import cellpose
from segedu.recipes.baselines import OtsuWatershed
from segedu.recipes.cells import Objects, Targets
from segedu.recipes.data import Pair, crop_flip_gamma, pairs_of, synthetic_sets
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.task import INSTANCES

WIDTHS = [8, 16, 32, 64]


def draw_label_maps(number: int, seed: int) -> list[Pair]:
    """Scenes of 128 x 128 pixels with their label maps."""
    return pairs_of(Bacteria(number, seed=seed), "label_map")


def _recipe(
    method: str, build: Callable[[], nn.Module], targets: Targets, target: float, **functions: Callable[..., Any]
) -> Recipe:
    windows = partial(Objects, change=partial(crop_flip_gamma, size=64), targets=targets)
    return Recipe(
        method=method,
        data="bacteria",
        task=INSTANCES,
        classes=CLASSES,
        build=build,
        sets=partial(synthetic_sets, draw=draw_label_maps, train=64, held_out=32, dataset=windows),
        baseline=OtsuWatershed,
        steps=200,
        batch_size=8,
        learning_rate=1e-2,
        metric="instance_accuracy",
        target=target,
        cpu_minutes=1,
        gpu_minutes=0.5,
        **functions,
    )


RECIPES = (
    _recipe(
        "cellpose",
        lambda: quick_layout(cellpose.Cellpose(3, WIDTHS)),
        cellpose.cellpose_targets,
        target=0.3,
        loss=cellpose.cellpose_loss,
        postprocess=lambda outputs, size: cellpose.postprocess(outputs),
    ),
    _recipe(
        "omnipose",
        lambda: quick_layout(omnipose.Omnipose(3, WIDTHS)),
        omnipose.omnipose_targets,
        target=0.3,
        loss=omnipose.omnipose_loss,
        postprocess=lambda outputs, size: omnipose.postprocess(outputs),
    ),
)
