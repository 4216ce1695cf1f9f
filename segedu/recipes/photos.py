"""Recipes on three sets of real photographs: pets, aerial images of a city, and streets seen from a car.

The recipes train on random views of reduced photographs. A photograph to be predicted is reduced in the same way, and
its logits are upsampled, so scores are those of the original pixels. The VGG of all networks but the first learned from
the photographs of pets; that of the first, from synthetic streets; `unet` starts from random weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from segedu.datasets.camvid import CLASSES as CAMVID_CLASSES
from segedu.datasets.folder import MASKS, SegmentationFolder
from segedu.recipes.baselines import WindowForest
from segedu.recipes.data import Pair, Sets
from segedu.recipes.loss import PixelsAndOverlap
from segedu.recipes.own_images import Preparation, Windows, own_sets, read_pairs, reduced_size, resize
from segedu.recipes.photo_changes import hide_rectangle, jitter_colours, random_view
from segedu.recipes.photo_networks import NETWORKS, Encoder
from segedu.recipes.photo_vgg import photo_vgg
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.reduced_network import Reduced
from segedu.recipes.street_vgg import street_vgg
from segedu.recipes.task import SEMANTIC


class ReducedForest(nn.Module):
    """`WindowForest` on images reduced to `longest_side`, which makes its windows larger and its predictions quick."""

    def __init__(self, train: Sequence[Pair], num_classes: int, *, longest_side: int) -> None:
        super().__init__()
        self.name = f"{WindowForest.name}, longest side {longest_side}"
        small = [_reduced_pair(image, target, longest_side) for image, target in train[:90]]
        self.forest = Reduced(WindowForest(small, num_classes), longest_side, mirrored=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.forest(images)


def _reduced_pair(image: Tensor, target: Tensor, longest_side: int) -> Pair:
    size = reduced_size(image.shape[-2:], longest_side)
    return resize(image[None], size, "area")[0], resize(target[None, None], size, "nearest")[0, 0]


# --- random views -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Views:
    """What a recipe learns from: random views of a photograph, see `segedu.recipes.photo_changes`.

    Attributes:
        window: side of the views in pixels.
        scales: lowest and highest factor by which a stored photograph is resized.
        upright: whether the photographs have a top.
        degrees: highest rotation.
        colours: strength of the change of colours.
        hidden: highest side of the hidden rectangle of every second view, as a fraction of the view.
    """

    window: int
    scales: tuple[float, float]
    upright: bool = True
    degrees: float = 15.0
    colours: float = 0.4
    hidden: float = 0.5

    def __call__(self, image: Tensor, target: Tensor) -> Pair:
        image, target = random_view(image, target, self.window, self.scales, self.degrees, self.upright)
        image = jitter_colours(image, self.colours)
        return hide_rectangle(image, self.hidden) if torch.rand(()) < 0.5 else image, target


def photo_sets(seed: int, folder: Path | None, *, stored_side: int, ignored: int | None, views: Views) -> Sets:
    """Photographs to train on, reduced to `stored_side`, and held-out ones in their own size; `seed` is not used."""
    train = Preparation(MASKS, stored_side, views.window, ignored)
    return own_sets(
        seed, folder, preparation=train, change=views, held_out=Preparation(MASKS, None, views.window, ignored)
    )


def camvid_sets(seed: int, folder: Path | None, *, stored_side: int, views: Views) -> Sets:
    """Frames of CamVid to train on, reduced to `stored_side`, and seven frames one second apart in their own size.

    The split val is a clip of 15 frames per second, whose frames are near copies; `val_spaced` lists the seven. `seed`
    is not used.
    """
    void = len(CAMVID_CLASSES)
    ways = {side: Preparation(MASKS, side, views.window, void) for side in (stored_side, None)}
    pairs = {}
    with tqdm(desc="read images", unit="image", leave=False) as bar:
        for split, subfolder, side in (("train", "train", stored_side), ("val_spaced", "val", None)):
            names = (folder / "splits" / f"{split}.txt").read_text(encoding="utf-8").split()
            pairs[split] = read_pairs(SegmentationFolder(folder / subfolder), names, ways[side], bar)
    return Sets(Windows(pairs["train"], views, ways[stored_side]), {"val_spaced": {"all": pairs["val_spaced"]}})


# --- recipes ------------------------------------------------------------------------------------------------------

PETS = ("background", "pet")
AERIAL = ("building", "land", "road", "vegetation", "water")


def _on_photos(
    data: str,
    classes: tuple[str, ...],
    sets: Callable[[int, Path | None], Sets],
    sides: tuple[int, int],
    method: str,
    steps: int,
    target: float,
    vgg: Encoder = photo_vgg,
) -> Recipe:
    """A recipe on photographs. `sides` are the longest sides for the network and for the forest."""
    side, forest_side = sides
    return Recipe(
        method=method,
        data=data,
        task=SEMANTIC,
        classes=classes,
        build=lambda: quick_layout(Reduced(NETWORKS[method][0](len(classes), vgg), side)),
        loss=PixelsAndOverlap(background=True),
        sets=sets,
        baseline=partial(ReducedForest, longest_side=forest_side),
        steps=steps,
        batch_size=8,
        learning_rate=NETWORKS[method][1],
        metric="mean_iou",
        target=target,
        cpu_minutes=30,
        gpu_minutes=5,
    )


# an animal fills much of its photograph: 128 pixels show it, and a view shows most of it
PET_SETS = partial(photo_sets, stored_side=160, ignored=2, views=Views(96, (0.45, 1.2)))
# houses and roads are a few pixels wide, so aerial images keep their size; their colours tell water from vegetation
AERIAL_VIEWS = Views(96, (0.5, 1.3), upright=False, colours=0.25, hidden=0.0)
AERIAL_SETS = partial(photo_sets, stored_side=512, ignored=None, views=AERIAL_VIEWS)
CAMVID_SETS = partial(camvid_sets, stored_side=320, views=Views(128, (0.5, 1.2), degrees=5))
on_pets = partial(_on_photos, "pets", PETS, PET_SETS, (128, 64))
on_aerial = partial(_on_photos, "aerial", AERIAL, AERIAL_SETS, (512, 128))
on_camvid = partial(_on_photos, "camvid", CAMVID_CLASSES, CAMVID_SETS, (320, 320))

RECIPES = (
    on_pets("encoder_unet", 4500, 0.75, street_vgg),
    on_pets("deeplabv3plus", 1500, 0.75),
    on_pets("fcn8", 1200, 0.75),
    on_pets("unet", 800, 0.75),
    on_aerial("encoder_unet", 2400, 0.45),
    on_aerial("deeplabv3plus", 1500, 0.45),
    on_aerial("pspnet", 1500, 0.45),
    on_camvid("encoder_unet", 900, 0.45),
    on_camvid("deeplabv3plus", 900, 0.45),
    on_camvid("pspnet", 900, 0.45),
)
