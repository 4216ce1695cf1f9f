"""Recipes: how each method is trained, one row a method and data set.

`segedu train`, the labs and the tests read the same rows; `segedu.experiment` runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu.datasets.cells import Cells
from segedu.datasets.shapes import Shapes
from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.dice import dice_loss
from segedu.semantic.unet import UNet

Pair = tuple[Tensor, Tensor]  # image (3, H, W) and semantic target (H, W)


@dataclass(frozen=True)
class Sets:
    """What a run trains on, and groups of images to evaluate on: {"val": {"fluorescence": [pair, ...]}}."""

    train: Dataset
    held_out: dict[str, dict[str, list[Pair]]]


@dataclass(frozen=True)
class Recipe:
    """One row: everything that decides the result, apart from the seed.

    `target` is the pooled IoU of `metric` on the first held-out split that the run has to reach;
    `cpu_minutes` is what it may cost on a CPU (all threads together), `gpu_minutes` on a GPU.
    """

    method: str
    data: str
    classes: tuple[str, ...]
    build: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor | dict[str, Tensor]]
    sets: Callable[[int, Path | None], Sets]
    steps: int
    batch_size: int
    learning_rate: float
    metric: str
    target: float
    cpu_minutes: float
    gpu_minutes: float


class Pairs(Dataset):
    """Pairs in memory, with a change drawn anew each time one is taken."""

    def __init__(self, pairs: Sequence[Pair], change: Callable[[Tensor, Tensor], Pair]) -> None:
        self.pairs, self.change = list(pairs), change

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.change(*self.pairs[index])


def even_out(image: Tensor) -> Tensor:
    """Bring microscope images of any exposure and stain to bright nuclei on a dark ground in [0, 1].

    The 1st and 99.8th percentile of the image go to 0 and 1; if its median is then above 0.5, it is inverted.
    A constant image becomes 0.
    """
    low, high = np.percentile(image.numpy(), (1, 99.8))
    scaled = ((image - low) / max(high - low, 1e-3)).clamp(0, 1)
    return 1 - scaled if scaled.median() > 0.5 else scaled


def flip(image: Tensor, target: Tensor) -> Pair:
    """One of the eight rotations and mirrorings of a square, or of the four of an oblong, at random."""
    turns = torch.randint(0, 2, (3,)).tolist()
    axes = [axis for axis, turn in zip((-1, -2), turns, strict=False) if turn]
    image, target = image.flip(axes), target.flip(axes)
    if turns[2] and image.shape[-1] == image.shape[-2]:
        image, target = image.transpose(-1, -2), target.transpose(-1, -2)
    return image, target


def crop_flip_gamma(image: Tensor, target: Tensor, size: int = 128) -> Pair:
    """A random square of the image, flipped, its brightness bent by a power between 2/3 and 3/2."""
    top, left = (int(torch.randint(0, full - size + 1, ())) for full in image.shape[-2:])
    window = (..., slice(top, top + size), slice(left, left + size))
    image, target = flip(image[window], target[window])
    return image ** torch.empty(()).uniform_(-0.4, 0.4).exp(), target


def _pairs(samples: Dataset, change: Callable[[Tensor], Tensor] = lambda image: image) -> list[Pair]:
    taken = (samples[i] for i in range(len(samples)))
    plain = ((sample["image"].as_subclass(Tensor), sample["semantic"].as_subclass(Tensor)) for sample in taken)
    return [(change(image), target) for image, target in plain]


def shapes_sets(seed: int, folder: Path | None) -> Sets:
    """256 scenes to train on and 64 others, 64 x 64."""
    train = _pairs(Shapes(256, seed=2 * seed))
    return Sets(Pairs(train, flip), {"val": {"all": _pairs(Shapes(64, seed=2 * seed + 1))}})


def cells_sets(seed: int, folder: Path | None) -> Sets:
    """64 scenes to train on and 32 others, 128 x 128."""
    train = _pairs(Cells(64, seed=2 * seed))
    return Sets(Pairs(train, flip), {"val": {"all": _pairs(Cells(32, seed=2 * seed + 1))}})


def nuclei_sets(seed: int, folder: Path | None) -> Sets:
    """The split of the folder's index.csv. Near-duplicates across its splits are likely."""
    from segedu.datasets.nuclei import Nuclei

    if folder is None:
        raise ValueError("data is nuclei without a folder, expected --data PATH to the folder with index.csv")
    domains = ("fluorescence", "histology")
    held_out = {
        split: {domain: _pairs(Nuclei(folder, split, domain), even_out) for domain in domains}
        for split in ("val", "test")
    }
    return Sets(Pairs(_pairs(Nuclei(folder, "train"), even_out), crop_flip_gamma), held_out)


def cross_entropy_and_dice(logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Cross-entropy finds the classes pixel by pixel, Dice of the batch keeps small foreground from being lost."""
    pixels = cross_entropy(logits, target)
    regions = dice_loss(logits, target, per_image=False, include_background=False)
    return {"cross_entropy": pixels, "dice": regions, "loss": pixels + regions}


RECIPES = (
    Recipe(
        method="unet",
        data="shapes",
        classes=("background", "circle", "square", "triangle"),
        build=lambda: UNet(3, 4, base_channels=12, depth=3, padding=1),
        loss=cross_entropy_and_dice,
        sets=shapes_sets,
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
        loss=cross_entropy_and_dice,
        sets=cells_sets,
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
        loss=cross_entropy_and_dice,
        sets=nuclei_sets,
        steps=600,
        batch_size=8,
        learning_rate=2e-3,
        metric="foreground_iou",
        target=0.88,
        cpu_minutes=20,
        gpu_minutes=3,
    ),
)


def find_recipe(method: str, data: str) -> tuple[Recipe, Path | None]:
    """The row of a method and a data set, and the folder of the data if `data` is a path.

    Raises:
        ValueError: there is no such row; the message lists those that there are.
    """
    rows = {(recipe.method, recipe.data): recipe for recipe in RECIPES}
    folder = Path(data)
    if (method, data) in rows and data != "nuclei":
        return rows[method, data], None
    if (folder / "index.csv").is_file() and (method, "nuclei") in rows:
        return rows[method, "nuclei"], folder
    known = ", ".join(f"{name} on {where}" for name, where in rows)
    raise ValueError(
        f"no recipe trains {method!r} on {data!r}, expected one of: {known}; for nuclei, data is the path of a "
        f"folder that holds index.csv, images and labels"
    )
