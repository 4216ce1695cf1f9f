"""The recipe that a folder of your own images makes of a method.

A folder of masks (classes) trains the networks of `segedu.recipes.photos`, and a folder of label maps those of
`segedu.recipes.cell_instances`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from segedu.datasets.folder import LABELS, MASKS, SegmentationFolder
from segedu.datasets.sample import VOID
from segedu.recipes import cell_instances
from segedu.recipes.data import Pair, brighten, flip, mirror, random_window
from segedu.recipes.loss import PixelsAndOverlap
from segedu.recipes.own_images import Preparation, own_sets, read_pair, split_names
from segedu.recipes.photos import NETWORKS, build_for_photos
from segedu.recipes.recipe import Recipe, load_recipe
from segedu.recipes.task import SEMANTIC

STEPS = 1000
BATCH = 8
LONGEST_SIDE = {MASKS: 512, LABELS: None}  # pixels: photographs are reduced, microscope images keep their resolution
WINDOW = {MASKS: 160, LABELS: 128}  # pixels: the side of the windows of the training
OWN = "own images"  # the data set's name in the description of a run


class MostFrequentClass(nn.Module):
    """The most frequent class of the training images, for every pixel."""

    name = "most frequent class"

    def __init__(self, train: Sequence[Pair], num_classes: int) -> None:
        super().__init__()
        counts: Counter = Counter()
        for _, target in train:
            values, pixels = target[target != VOID].unique(return_counts=True)
            counts.update(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
        self.num_classes, self.most_frequent = num_classes, max(counts, key=counts.__getitem__, default=0)

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), self.num_classes, *images.shape[-2:])
        logits[:, self.most_frequent] = 1
        return logits


# --- random changes -----------------------------------------------------------------------------------------------


def padded(image: Tensor, target: Tensor, window: int, fill: int) -> Pair:
    """Pad an image that is smaller than a window with black at the right and the bottom, its target with `fill`."""
    missing = (0, max(0, window - image.shape[-1]), 0, max(0, window - image.shape[-2]))
    return pad(image, missing), pad(target, missing, value=fill)


def photo_window(image: Tensor, target: Tensor, window: int) -> Pair:
    """A random window of a photograph, mirrored at random, never upside down, and brightened."""
    image, target = padded(image, target, window, VOID)
    index = random_window(image, (window, window))
    return brighten(*mirror(image[index], target[index]))


def label_map_window(image: Tensor, target: Tensor, window: int, targets: cell_instances.Targets) -> tuple:
    """A random window of a microscope image, flipped, turned and brightened, and what the network learns of it."""
    image, target = padded(image, target, window, 0)
    index = random_window(image, (window, window))
    image, target = brighten(*flip(image[index], target[index]))
    return image, targets(target)


# --- from a folder to a recipe ------------------------------------------------------------------------------------


def own_recipe(
    method: str,
    root: Path,
    *,
    window: int | None = None,
    longest_side: int | None = None,
    ignored: int | None = None,
    train_images: int | None = None,
    **changes: Any,
) -> Recipe:
    """The recipe of a method on a folder of your own.

    Args:
        method: a network of `segedu.recipes.photos` for masks, of `segedu.recipes.cell_instances` for label maps.
        root: the folder.
        window: side of the training windows in pixels. Default: 160 for masks, 128 for label maps.
        longest_side: images with a longer side are reduced. Default: 512 for masks, no limit for label maps; 0 is none.
        ignored: last class of the masks, whose pixels are ignored, such as an unclear border.
        train_images: train on so many images of the split train, taken from a fixed random order, to see how the score
            depends on their number; None takes all.
        **changes: other fields of the recipe, such as `steps`, `batch_size` or `learning_rate`; None is left out.

    Raises:
        FileNotFoundError, ValueError: the folder cannot be used, see `SegmentationFolder`, or the method does not
            learn from its kind of ground truth.
    """
    folder = SegmentationFolder(root)
    kind = folder.target_folder
    side = LONGEST_SIDE[kind] if longest_side is None else longest_side or None
    classes = folder.classes or _numbered_classes(folder)
    if ignored is not None and (kind == LABELS or ignored != len(classes) - 1 or ignored < 2):
        raise ValueError(
            f"ignored is {ignored}, expected the number of the last of at least three classes of a folder of masks; "
            f"this folder has {len(classes)} classes: set the pixels of other classes to 255 in the masks"
        )
    classes = classes if ignored is None else classes[:ignored]
    recipe = recipe_for(method, classes, Preparation(kind, side, window or WINDOW[kind], ignored))
    available = len(split_names(folder)["train"])
    if train_images is not None and not 1 <= train_images <= available:
        raise ValueError(f"train_images is {train_images}, expected 1 to {available}, the images of the split train")
    recipe = replace(recipe, sets=partial(recipe.sets, train_images=train_images))
    changes = {"batch_size": min(recipe.batch_size, train_images or available)} | {
        k: v for k, v in changes.items() if v is not None
    }
    return replace(recipe, **changes)


def recipe_for(method: str, classes: tuple[str, ...], preparation: Preparation) -> Recipe:
    """The recipe of a method for images of this preparation, and these classes."""
    kind = preparation.kind
    methods = tuple(NETWORKS) if kind == MASKS else tuple(cell_instances.TARGETS)
    if method not in methods:
        raise ValueError(
            f"method is {method!r}, which does not learn from a folder of {kind}, expected one of {', '.join(methods)}"
        )
    if kind == LABELS:
        recipe = load_recipe(method, "nuclei_grouped")
        change = partial(label_map_window, window=preparation.window, targets=cell_instances.TARGETS[method])
        sets = partial(own_sets, preparation=preparation, change=change)
        return replace(recipe, data=OWN, classes=classes, sets=sets, batch_size=BATCH, steps=STEPS, target=0.0)
    return Recipe(
        method=method,
        data=OWN,
        task=SEMANTIC,
        classes=classes,
        build=partial(build_for_photos, method, len(classes)),
        loss=PixelsAndOverlap(background=True),
        sets=partial(own_sets, preparation=preparation, change=partial(photo_window, window=preparation.window)),
        baseline=MostFrequentClass,
        steps=STEPS,
        batch_size=BATCH,
        learning_rate=NETWORKS[method][1],
        metric="mean_iou",
        target=0.0,
        cpu_minutes=30,
        gpu_minutes=5,
    )


def _numbered_classes(folder: SegmentationFolder) -> tuple[str, ...]:
    """Names for the classes of masks without `classes.txt`: as many as the highest class of all masks needs."""
    highest = 1
    for name in folder.names:
        _, target = read_pair(folder, name)
        highest = max(highest, int(torch.where(target == VOID, 0, target).max()))
    return tuple(f"class {number}" for number in range(highest + 1))
