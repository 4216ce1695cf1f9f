"""The recipe that a folder of your own images makes of a method.

A folder of masks (classes) trains the networks of `segedu.recipes.photo_networks`, a folder of label maps those of
`segedu.recipes.cell_instances`, and a folder of boxes those of `segedu.recipes.own_detectors`.
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

from segedu.datasets.box_folder import BOXES, BoxFolder
from segedu.datasets.folder import LABELS, MASKS, SegmentationFolder
from segedu.datasets.sample import VOID
from segedu.recipes import cell_instances
from segedu.recipes.data import Pair
from segedu.recipes.loss import PixelsAndOverlap
from segedu.recipes.own_changes import LIGHT, change_for
from segedu.recipes.own_detectors import box_recipe, own_box_recipe
from segedu.recipes.own_images import OWN, Preparation, open_folder, own_sets, read_pair, split_names
from segedu.recipes.photo_networks import NETWORKS, build_for_photos
from segedu.recipes.recipe import Recipe, load_recipe
from segedu.recipes.run_validation import VAL
from segedu.recipes.task import SEMANTIC

STEPS = 1000
BATCH = 8
LONGEST_SIDE = {MASKS: 512, LABELS: None}  # pixels: photographs are reduced, microscope images keep their resolution
WINDOW = {MASKS: 160, LABELS: 128}  # pixels: the side of the windows of the training
VALIDATIONS = 10  # per run


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


def own_recipe(
    method: str,
    root: Path,
    *,
    window: int | None = None,
    longest_side: int | None = None,
    ignored: int | None = None,
    train_images: int | None = None,
    augment: str | None = None,
    **changes: Any,
) -> Recipe:
    """The recipe of a method on a folder of your own.

    Args:
        method: a network of `segedu.recipes.photo_networks` for masks, of `cell_instances` for label maps, of
            `own_detectors` for boxes.
        root: the folder.
        window: side of the training windows in pixels. Default: 160 for masks, 128 for label maps, 256 for boxes.
        longest_side: images with a longer side are reduced. Default: 512 for masks and boxes, no limit for label maps;
            0 is none.
        ignored: last class of the masks, whose pixels are ignored, such as an unclear border.
        train_images: train on so many images of the split train, taken from a fixed random order, to see how the score
            depends on their number; None takes all.
        augment: random changes of the images, see `segedu.recipes.own_changes`: "none", "light" (default) or "strong".
        **changes: other fields of the recipe, such as `steps`, `batch_size` or `learning_rate`; None is left out.

    Raises:
        FileNotFoundError, ValueError: the folder cannot be used, see `SegmentationFolder`, or the method does not
            learn from its kind of ground truth.
    """
    folder = open_folder(root)
    if isinstance(folder, BoxFolder):
        if ignored is not None:
            raise ValueError(f"ignored is {ignored}, expected a folder of masks; {root} is a folder of boxes")
        recipe = own_box_recipe(method, folder, window=window, longest_side=longest_side, augment=augment or LIGHT)
    else:
        recipe = _pixel_recipe(method, folder, window, longest_side, ignored, augment or LIGHT)
    available = len(split_names(folder)["train"])
    if train_images is not None and not 1 <= train_images <= available:
        raise ValueError(f"train_images is {train_images}, expected 1 to {available}, the images of the split train")
    recipe = replace(recipe, sets=partial(recipe.sets, train_images=train_images))
    changes = {"batch_size": min(recipe.batch_size, train_images or available)} | {
        k: v for k, v in changes.items() if v is not None
    }
    return replace(recipe, **changes)


def _pixel_recipe(
    method: str,
    folder: SegmentationFolder,
    window: int | None,
    longest_side: int | None,
    ignored: int | None,
    augment: str,
) -> Recipe:
    """The recipe on a folder of masks or label maps."""
    kind = folder.target_folder
    side = LONGEST_SIDE[kind] if longest_side is None else longest_side or None
    classes = folder.classes or _numbered_classes(folder)
    if ignored is not None and (kind == LABELS or ignored != len(classes) - 1 or ignored < 2):
        raise ValueError(
            f"ignored is {ignored}, expected the number of the last of at least three classes of a folder of masks; "
            f"this folder has {len(classes)} classes: set the pixels of other classes to 255 in the masks"
        )
    classes = classes if ignored is None else classes[:ignored]
    return recipe_for(method, classes, Preparation(kind, side, window or WINDOW[kind], ignored), augment)


def recipe_for(method: str, classes: tuple[str, ...], preparation: Preparation, augment: str = LIGHT) -> Recipe:
    """The recipe of a method for images of this preparation, and these classes."""
    kind = preparation.kind
    if kind == BOXES:
        return box_recipe(method, classes, preparation, augment)
    methods = tuple(NETWORKS) if kind == MASKS else tuple(cell_instances.TARGETS)
    if method not in methods:
        raise ValueError(
            f"method is {method!r}, which does not learn from a folder of {kind}, expected one of {', '.join(methods)}"
        )
    if kind == LABELS:
        recipe = load_recipe(method, "nuclei_grouped")
        change = change_for(kind, augment, window=preparation.window, targets=cell_instances.TARGETS[method])
        sets = partial(own_sets, preparation=preparation, change=change)
        return replace(recipe, data=OWN, classes=classes, sets=sets, batch_size=BATCH, steps=STEPS, target=0.0)
    return Recipe(
        method=method,
        data=OWN,
        task=SEMANTIC,
        classes=classes,
        build=partial(build_for_photos, method, len(classes)),
        loss=PixelsAndOverlap(background=True),
        sets=partial(own_sets, preparation=preparation, change=change_for(kind, augment, window=preparation.window)),
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


def validations_of(root: Path, validations: int | None, patience: int | None) -> int:
    """The number of validations of a run: `validations`, or ten if the folder has a split val, or none.

    Raises:
        ValueError: there is no split val to validate on.
    """
    splits = split_names(open_folder(root))
    if VAL in splits:
        return VALIDATIONS if validations is None else validations
    if validations or patience:
        raise ValueError(
            f"{root} has the splits {', '.join(splits)}, expected val for validations: move some names from "
            f"splits/train.txt to splits/val.txt"
        )
    return 0
