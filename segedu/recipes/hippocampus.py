"""Recipes on real MR volumes: the anterior and the posterior part of the hippocampus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.datasets.hippocampus import CLASSES, Hippocampus
from segedu.recipes.data import Pair, Pairs, Sets, mirror, pairs_of
from segedu.recipes.loss import PixelsAndOverlap
from segedu.recipes.recipe import Recipe
from segedu.recipes.task import SEMANTIC
from segedu.semantic.nnunet.nnunet import build_network, nnunet_loss
from segedu.semantic.nnunet.plan import Fingerprint, Intensities, make_plan
from segedu.semantic.unet3d import UNet3D

PATCH = (56, 40, 40)  # voxels: nnU-Net's plan for these volumes; it contains almost all of them
VOID = 255


def usual_fingerprint() -> Fingerprint:
    """What nnU-Net's rules need of the training volumes: 1 mm along each axis, the median shape (voxels), no crop.

    Intensities are not used, because MR is normalised by the mean and deviation of each volume. A function, because
    lab 16 hides the classes while it is graded, and importing this module must not need them.
    """
    return Fingerprint(np.ones((1, 3)), np.array([[50, 35, 35]]), (Intensities(0.5, 0.1, 0.0, 1.0),), 1.0)


def normalize(image: Tensor) -> Tensor:
    """Map the mean of a volume to 0.5, and three standard deviations below and above it to 0 and 1.

    nnU-Net normalises MR in the same way, apart from the constants. Values outside [0, 1] are clipped.
    """
    return ((image - image.mean()) / (6 * image.std()).clamp(min=1e-3) + 0.5).clamp(0, 1)


class PositionPrior(nn.Module):
    """The most frequent class at each relative position in the training volumes, without a look at the image."""

    name = "Position prior"

    def __init__(self, train: Sequence[Pair], num_classes: int, grid: tuple[int, int, int] = (48, 48, 48)) -> None:
        super().__init__()
        frequency = torch.zeros(num_classes, *grid)
        for _, target in train:
            one_hot = F.one_hot(target, num_classes).movedim(-1, 0).float()
            frequency += F.interpolate(one_hot[None], grid, mode="trilinear")[0]
        self.frequency = frequency / max(len(train), 1)

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(self.frequency[None], images.shape[2:], mode="trilinear").expand(
            len(images), -1, -1, -1, -1
        )


def random_patch(image: Tensor, target: Tensor) -> Pair:
    """A volume of `PATCH` voxels, in which the image lies at a random position, scaled by a random factor.

    The factor, 0.85 to 1.15 along each axis, changes the size of the volume. What then lies outside the patch is
    cropped, and what is missing has the mean value, 0.5, and is ignored as a target. The image is mirrored from left
    to right at random: the volumes show left and right hippocampi.
    """
    size = [round(n * float(torch.empty(()).uniform_(0.85, 1.15))) for n in target.shape]
    image = F.interpolate(image[None], size, mode="trilinear")[0]
    target = F.interpolate(target[None, None].float(), size, mode="nearest-exact")[0, 0].long()
    new_image, new_target = image.new_full((1, *PATCH), 0.5), target.new_full(PATCH, VOID)
    source, destination = [], []
    for full, patch in zip(size, PATCH, strict=True):
        shift = int(torch.randint(min(full - patch, 0), max(full - patch, 0) + 1, ()))  # of the patch in the volume
        low, high = max(shift, 0), min(shift + patch, full)
        source.append(slice(low, high))
        destination.append(slice(low - shift, high - shift))
    new_image[(slice(None), *destination)] = image[(slice(None), *source)]
    new_target[tuple(destination)] = target[tuple(source)]
    return mirror(*change_intensity(new_image, new_target))


def change_intensity(image: Tensor, target: Tensor) -> Pair:
    """Multiply the image by a random contrast, and add a random brightness and noise."""
    contrast, brightness = torch.empty(()).uniform_(0.75, 1.25), torch.empty(()).uniform_(-0.05, 0.05)
    noise = torch.randn_like(image) * torch.empty(()).uniform_(0, 0.02)
    return ((image - 0.5) * contrast + 0.5 + brightness + noise).clamp(0, 1), target


def hippocampus_sets(seed: int, folder: Path | None) -> Sets:
    """The splits of the folder; they do not depend on the seed."""
    pairs = {split: pairs_of(Hippocampus(folder, split), transform=normalize) for split in ("train", "val", "test")}
    held_out = {split: {"all": pairs[split]} for split in ("val", "test")}
    return Sets(Pairs(pairs["train"], change=random_patch), held_out)


def planned_unet() -> UNet3D:
    """The network of nnU-Net's plan, with 16 channels at first, and 64 at the lowest level to keep its file small."""
    plan = make_plan(usual_fingerprint(), len(CLASSES), base_width=16)
    return build_network(replace(plan, widths=(*plan.widths[:-1], plan.widths[-2])))


def small_unet3d() -> UNet3D:
    """A 3D U-Net with four levels. The channels-last layout almost halves its time on a CPU."""
    model = UNet3D(1, len(CLASSES), ((8, 8), (16, 16), (32, 32), (64, 64)), padding=True)
    return model.to(memory_format=torch.channels_last_3d)


SHARED = {
    "data": "hippocampus",
    "task": SEMANTIC,
    "classes": CLASSES,
    "sets": hippocampus_sets,
    "baseline": PositionPrior,
    "batch_size": 2,
    "metric": "foreground_dice",
    "cpu_minutes": 15,
    "gpu_minutes": 3,
}
RECIPES = (
    Recipe(
        method="unet3d",
        build=small_unet3d,
        loss=PixelsAndOverlap(),
        steps=600,
        learning_rate=4e-3,
        target=0.86,
        **SHARED,
    ),
    Recipe(method="nnunet", build=planned_unet, loss=nnunet_loss, steps=600, learning_rate=4e-3, target=0.88, **SHARED),
)
