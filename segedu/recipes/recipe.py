"""What a recipe is: a method, what it trains on, for how long, and what it has to reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segedu.recipes.data import Sets


@dataclass(frozen=True)
class Recipe:
    """One row: everything that decides the result, apart from the seed.

    `target` is what `metric`, of the first held-out split, has to reach; `cpu_minutes` is what
    training may cost on a CPU (all threads together), `gpu_minutes` on a GPU. `baseline` is the first row of the
    table of results. `collate` makes a batch of samples that do not stack.

    Where a network finds objects, `label_maps` turns its outputs and the size (H, W) of the images into label maps;
    held-out targets are then label maps too, and objects are counted in place of pixels. Where it finds objects that
    have a class and a score, `detections` turns the same into dicts of `boxes`, `labels`, `scores` and maybe `masks`;
    held-out targets are dicts without scores, and COCO's average precision is measured. `panoptic` turns them into
    dicts of `panoptic_seg` and `segments_info`, as held-out targets have them, and panoptic quality is measured.

    `finish` is what follows the steps of training: parts of a model that are not fitted by gradients.
    """

    method: str
    data: str
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
    label_maps: Callable[[Any, tuple[int, int]], list[Tensor]] | None = None
    detections: Callable[[Any, tuple[int, int]], list[dict[str, Tensor]]] | None = None
    panoptic: Callable[[Any, tuple[int, int]], list[dict[str, Any]]] | None = None
    collate: Callable[[list], tuple[Any, Any]] | None = None
    finish: Callable[[Any, Sets], None] | None = None


def quick_layout(model: nn.Module) -> nn.Module:
    """Channels last, the layout in which convolutions on a CPU are a quarter quicker, where that is safe.

    PyTorch 2.15 on a CPU damages memory in the backward pass of a strided 1x1 convolution of few channels in this
    layout, so that nets with residual shortcuts stay as they are.
    """
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    if any(part.kernel_size == (1, 1) and part.stride != (1, 1) for part in convolutions):
        return model
    return model.to(memory_format=torch.channels_last)
