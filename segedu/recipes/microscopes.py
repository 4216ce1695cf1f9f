"""Recipes on real microscope images: nuclei under many kinds of microscopes, and whole cells in phase contrast.

The networks are narrow, so that their weights take at most 2 MiB in half precision. On a CPU that multiplies bfloat16
matrices, `segedu train --precision bf16-mixed` takes half of the time.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from segedu.instance import mask_rcnn, omnipose, signed_distance, stardist
from segedu.instance.cellpose import cellpose
from segedu.recipes.baselines import Otsu, OtsuWatershed
from segedu.recipes.cell_instances import (
    TARGETS,
    embedding_functions,
    embedding_network,
    label_maps_of_mask_rcnn,
    nuclei_mask_rcnn,
    small_stardist,
)
from segedu.recipes.cells import CLASSES, Targets
from segedu.recipes.loss import PixelsAndOverlap
from segedu.recipes.microscope_data import Windows, largest_pieces, microscope_sets, microscope_window
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.shapes import stack_with_targets
from segedu.recipes.task import INSTANCES, SEMANTIC
from segedu.semantic.res_unet import res_unet
from segedu.semantic.unet import UNet

CELLPOSE_WIDTHS = [16, 32, 64, 88]  # channels of the levels
PHASE_WINDOW = 160  # pixels: the longest cells have more than 100


def foreground(label_map: Tensor) -> Tensor:
    """The classes of the pixels: 1 in every object, 0 in the background."""
    return (label_map > 0).long()


COMMON = {"cpu_minutes": 30, "gpu_minutes": 5}
OBJECTS = COMMON | {"task": INSTANCES, "baseline": OtsuWatershed, "batch_size": 4, "metric": "instance_accuracy"}
PIXELS = COMMON | {"task": SEMANTIC, "baseline": Otsu, "batch_size": 8, "metric": "foreground_iou"}


def on_nuclei(method: str, targets: Targets, **fields: Any) -> Recipe:
    """The recipe of an instance method on `nuclei_grouped`."""
    sets = partial(microscope_sets, dataset=partial(Windows, change=microscope_window, targets=targets))
    return Recipe(method=method, data="nuclei_grouped", classes=CLASSES, sets=sets, **OBJECTS | fields)


def on_pixels_of_nuclei(method: str, **fields: Any) -> Recipe:
    """The recipe of a semantic method on `nuclei_grouped`."""
    windows = partial(Windows, change=microscope_window, targets=foreground)
    sets, loss = partial(microscope_sets, dataset=windows, target=foreground), PixelsAndOverlap()
    return Recipe(method=method, data="nuclei_grouped", classes=CLASSES, sets=sets, loss=loss, **PIXELS | fields)


def on_phase_cells(method: str, targets: Targets, **fields: Any) -> Recipe:
    """The recipe of an instance method on `phase_cells`."""
    windows = partial(Windows, change=partial(microscope_window, size=PHASE_WINDOW), targets=targets)
    sets = partial(microscope_sets, dataset=windows, train_target=largest_pieces)
    return Recipe(method=method, data="phase_cells", classes=("background", "cell"), sets=sets, **OBJECTS | fields)


RECIPES = (
    on_pixels_of_nuclei(
        "unet",
        build=lambda: UNet(3, 2, base_channels=16, padding=1),
        steps=600,
        learning_rate=2e-3,
        target=0.75,
    ),
    on_pixels_of_nuclei(
        "res_unet",
        build=lambda: res_unet(3, 2, (16, 32, 64, 128)),
        steps=600,
        learning_rate=8e-3,
        target=0.75,
    ),
    on_nuclei(
        "signed_distance",
        TARGETS["signed_distance"],
        build=lambda: quick_layout(signed_distance.SignedDistance(res_unet(3, 1, [16, 32, 64, 128]))),
        loss=signed_distance.signed_distance_loss,
        postprocess=lambda outputs, size: signed_distance.postprocess(outputs),
        steps=1800,
        learning_rate=5e-3,
        target=0.62,
    ),
    on_nuclei(
        "stardist",
        TARGETS["stardist"],
        build=lambda: quick_layout(small_stardist(24, radius=8.0)),
        loss=stardist.stardist_loss,
        postprocess=stardist.postprocess,
        steps=2400,
        learning_rate=3e-3,
        target=0.65,
    ),
    on_nuclei(
        "cellpose",
        TARGETS["cellpose"],
        build=lambda: quick_layout(cellpose.Cellpose(3, CELLPOSE_WIDTHS)),
        loss=cellpose.cellpose_loss,
        postprocess=lambda outputs, size: cellpose.postprocess(outputs),
        steps=1200,
        learning_rate=3e-3,
        target=0.72,
    ),
    on_nuclei(
        "spatial_embedding",
        TARGETS["spatial_embedding"],
        build=lambda: quick_layout(embedding_network((16, 64, 128), ((1, 1, 1), (2, 4, 8, 2)), unit=64.0)),
        **embedding_functions(64.0),
        steps=1500,
        learning_rate=3e-3,
        target=0.62,
    ),
    on_nuclei(
        "mask_rcnn",
        TARGETS["mask_rcnn"],
        build=nuclei_mask_rcnn,
        loss=mask_rcnn.mask_rcnn_loss,
        postprocess=label_maps_of_mask_rcnn,
        collate=stack_with_targets,
        steps=1600,
        learning_rate=3e-3,
        target=0.62,
    ),
    on_phase_cells(
        "cellpose",
        TARGETS["cellpose"],
        build=lambda: quick_layout(cellpose.Cellpose(3, CELLPOSE_WIDTHS)),
        loss=cellpose.cellpose_loss,
        postprocess=lambda outputs, size: cellpose.postprocess(outputs),
        steps=800,
        learning_rate=3e-3,
        target=0.65,
    ),
    on_phase_cells(
        "omnipose",
        omnipose.omnipose_targets,
        build=lambda: quick_layout(omnipose.Omnipose(3, CELLPOSE_WIDTHS)),
        loss=omnipose.omnipose_loss,
        # Predicted flows have errors, so five steps leave fragments. These values were chosen on images of the split
        # val. Of the cells of the training, 97 % have at least 100 pixels.
        postprocess=lambda outputs, size: omnipose.postprocess(outputs, threshold=1.0, steps=300, min_size=100),
        steps=800,
        learning_rate=3e-3,
        target=0.5,
    ),
    on_phase_cells(
        "stardist",
        TARGETS["stardist"],
        build=lambda: quick_layout(small_stardist(24, radius=10.0)),
        loss=stardist.stardist_loss,
        postprocess=stardist.postprocess,
        steps=800,
        learning_rate=3e-3,
        target=0.25,
    ),
    on_phase_cells(
        "spatial_embedding",
        TARGETS["spatial_embedding"],
        build=lambda: quick_layout(embedding_network((16, 64, 128), ((1, 1, 1), (2, 4, 8, 2)), unit=64.0)),
        **embedding_functions(64.0),
        steps=800,
        learning_rate=3e-3,
        target=0.25,
    ),
)
