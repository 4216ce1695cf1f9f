"""Recipes of chapter 10 on synthetic cells: the discriminative loss, and affinities."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segedu.instance import affinities, discriminative
from segedu.recipes.baselines import OtsuWatershed
from segedu.recipes.cells import CLASSES, Objects, cells_instance_sets, draw_label_maps
from segedu.recipes.data import Sets, crop_flip_gamma, synthetic_sets
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.task import INSTANCES
from segedu.semantic.res_unet import res_unet

MIN_PIXELS = 15  # smaller objects become background
SCENE = 128  # pixels of a scene's side
UNIT = 16.0  # pixels: a step of 1 in the coordinates, so that they are not much larger than the grey values


class WithCoordinates(nn.Module):
    """A network that also receives y and x, in units of 16 pixels.

    From the image alone, distant nuclei that look the same get the same embedding, and are clustered as one object.

    Args:
        network: maps (B, C + 2, H, W) to its outputs.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Append y and x to images (B, C, H, W), and apply the network."""
        axes = (torch.arange(size, device=images.device) for size in images.shape[2:])
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).to(images) / UNIT
        return self.network(torch.cat([images, grid.expand(len(images), -1, -1, -1)], dim=1))


def network(in_channels: int, out_channels: int) -> nn.Module:
    """A Res U-Net, because a short training needs batch normalisation, which the plain U-Net does not have."""
    return quick_layout(res_unet(in_channels, out_channels, [8, 16, 32, 64]))


def whole_scenes(seed: int, folder: object, *, train: int = 64, held_out: int = 32) -> Sets:
    """The scenes of `cells_instance_sets`, without windows: far apart, objects have to be separated too."""
    change = partial(crop_flip_gamma, size=SCENE)
    dataset = partial(Objects, change=change, targets=discriminative.discriminative_targets)
    return synthetic_sets(seed, None, draw=draw_label_maps, train=train, held_out=held_out, dataset=dataset)


def _recipe(method: str, **others: Any) -> Recipe:
    return Recipe(
        method=method,
        data="cells",
        task=INSTANCES,
        classes=CLASSES,
        baseline=OtsuWatershed,
        learning_rate=1e-2,
        metric="instance_accuracy",
        **others,
    )


RECIPES = (
    _recipe(
        "discriminative",
        build=lambda: discriminative.DiscriminativeEmbedding(WithCoordinates(network(5, 9))),
        loss=discriminative.discriminative_loss,
        postprocess=lambda outputs, size: discriminative.postprocess(outputs, min_pixels=MIN_PIXELS),
        sets=whole_scenes,
        steps=300,
        batch_size=4,
        target=0.7,
        cpu_minutes=2,
        gpu_minutes=0.5,
    ),
    _recipe(
        "affinities",
        build=lambda: affinities.AffinityNet(network(3, len(affinities.OFFSETS) + 1)),
        loss=affinities.affinity_loss,
        postprocess=lambda outputs, size: affinities.postprocess(outputs, min_pixels=MIN_PIXELS),
        sets=cells_instance_sets(affinities.affinity_targets),
        steps=200,
        batch_size=8,
        target=0.7,
        cpu_minutes=1,
        gpu_minutes=0.5,
    ),
)
