"""What a recipe is: a method, the data it trains on, for how long, and the score that it has to reach.

`segedu train`, the labs and the tests use the same recipes. `NAMES` lists them; the module of a recipe is imported when
the recipe is looked up, so that training U-Net does not import the detectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segedu.datasets.data_folder import REAL_DATA, data_folder
from segedu.recipes.data import Sets
from segedu.recipes.task import Postprocess, Task

# Module of `segedu.recipes` -> data set -> methods. The module has a recipe for each of them in `RECIPES`.
# fmt: off
FAMILIES = {
    "shapes": {"shapes": ("unet",)},
    "cells": {"cells": ("unet",)},
    "streets": {"street": (
        "fcn32", "fcn16", "fcn8", "segnet", "deconvnet", "unet", "res_unet", "dense_unet", "encoder_unet", "pspnet",
        "deeplabv1", "deeplabv2", "deeplabv3", "deeplabv3plus",
    )},
    "photos": {
        "pets": ("encoder_unet", "deeplabv3plus", "fcn8", "unet"),
        "aerial": ("encoder_unet", "deeplabv3plus", "pspnet"),
        "camvid": ("encoder_unet", "deeplabv3plus", "pspnet"),
    },
    "volumes": {"prostate": ("unet",), "volume": ("unet3d", "nnunet")},
    "hippocampus": {"hippocampus": ("unet3d", "nnunet")},
    "cell_instances": {"cells": ("signed_distance", "stardist", "cellpose", "spatial_embedding")},
    "microscopes": {
        "nuclei_grouped": (
            "unet", "res_unet", "signed_distance", "stardist", "cellpose", "spatial_embedding", "mask_rcnn",
        ),
        "phase_cells": ("cellpose", "omnipose", "stardist", "spatial_embedding"),
    },
    "bacteria": {"bacteria": ("cellpose", "omnipose")},
    "noisy_cells": {"noisy_cells": ("denoiseg", "denoiseg_alpha_0", "three_classes")},
    "embeddings": {"cells": ("discriminative", "affinities")},
    "detectors": {"shapes": (
        "rcnn", "fast_rcnn", "yolov1", "ssd", "retinanet", "fcos", "faster_rcnn", "mask_rcnn", "yolact", "condinst",
        "solov2",
    )},
    "blood_cells": {"bccd": ("retinanet", "fcos")},
    "pedestrians": {"pennfudan": ("faster_rcnn", "mask_rcnn", "yolact", "condinst")},
    "panoptic": {"street": ("panoptic_fpn",)},
}
# fmt: on
NAMES = {  # (method, data set) -> module
    (method, data): f"segedu.recipes.{module}"
    for module, data_sets in FAMILIES.items()
    for data, methods in data_sets.items()
    for method in methods
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a run, apart from the seed.

    `loss` maps outputs and targets to a scalar, or to a dict of scalars whose `loss` is minimised. `sets` maps the seed
    and the folder of the data, if there is one, to the images. `baseline` is the first row of the table of results.
    `metric`, on the first held-out split, has to reach `target`. `cpu_minutes` and `gpu_minutes` limit the cost of
    training; the times of all threads of a CPU are added. `postprocess` turns outputs into predictions of the task;
    semantic recipes have none. `collate` makes a batch of samples that cannot be stacked. `finish` fits what is not
    trained by gradients, after the last step.
    """

    method: str
    data: str
    task: Task
    classes: tuple[str, ...]
    build: Callable[[], nn.Module]
    loss: Callable[[Any, Any], Tensor | dict[str, Tensor]]
    sets: Callable[[int, Path | None], Sets]
    baseline: type[nn.Module]
    steps: int
    batch_size: int
    learning_rate: float
    metric: str
    target: float
    cpu_minutes: float
    gpu_minutes: float
    postprocess: Postprocess | None = None
    collate: Callable[[list], tuple[Any, Any]] | None = None
    finish: Callable[[Any, Sets], None] | None = None


def load_recipe(method: str, data: str) -> Recipe:
    """Import the recipe of a name in `NAMES`."""
    recipes = import_module(NAMES[method, data]).RECIPES
    return next(recipe for recipe in recipes if (recipe.method, recipe.data) == (method, data))


def find_recipe(method: str, data: str) -> tuple[Recipe, Path | None]:
    """The recipe of a method on a data set, and the folder of the data if it is real.

    Raises:
        FileNotFoundError: the folder of a real data set is missing.
        ValueError: there is no such recipe; the message lists the existing ones.
    """
    if (method, data) in NAMES:
        return load_recipe(method, data), data_folder(data) if data in REAL_DATA else None
    available = ", ".join(f"{name} on {data_set}" for name, data_set in NAMES)
    raise ValueError(f"no recipe trains {method!r} on {data!r}, expected one of: {available}")


def quick_layout(model: nn.Module) -> nn.Module:
    """Use the channels-last layout, in which convolutions on a CPU are a quarter quicker, where that is safe.

    PyTorch 2.15 on a CPU corrupts memory in the backward pass of a strided 1x1 convolution with few channels in this
    layout, so networks with such residual shortcuts are returned unchanged.
    """
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    if any(layer.kernel_size == (1, 1) and layer.stride != (1, 1) for layer in convolutions):
        return model
    return model.to(memory_format=torch.channels_last)
