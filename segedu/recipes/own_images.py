"""A folder of your own images as the data of a training: how it is read, prepared, and split.

See `segedu.datasets.folder` for the layout, and `segedu.recipes.own_recipe` for what is trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from segedu.datasets.box_folder import BoxFolder, is_box_folder
from segedu.datasets.files import read_deep_image
from segedu.datasets.folder import ALL, LABELS, MASKS, SegmentationFolder, read_target
from segedu.datasets.sample import VOID, compact
from segedu.recipes.data import Pair, Pairs, Sets, resize

OWN = "own images"  # the data set's name in the description of a run
HELD_OUT = 0.2  # fraction of the images that are held out where the folder has no splits


@dataclass(frozen=True)
class Preparation:
    """What happens to an image before a network sees it. It is kept in the checkpoint, and `segedu predict` repeats it.

    Attributes:
        kind: "masks" for photographs with classes, "boxes" for those with annotated objects; "labels" for microscope
            images with label maps, of which the 1st and 99.8th percentiles of the values are mapped to 0 and 1. This
            is done with every image of 16 bits, see `segedu.datasets.files.read_deep_image`.
        longest_side: images with a longer side are reduced to it; None keeps every size.
        window: side of the random windows of the training, in pixels.
        ignored: class of masks whose pixels are ignored, as 255 is; None for none.
    """

    kind: str
    longest_side: int | None
    window: int
    ignored: int | None = None

    def __post_init__(self) -> None:
        if self.window < 32 or self.window % 32:
            raise ValueError(f"window is {self.window}, expected a multiple of 32, at least 32")
        if self.longest_side is not None and self.longest_side < 32:
            raise ValueError(f"longest_side is {self.longest_side}, expected at least 32 pixels")

    def __call__(self, image: Tensor) -> Tensor:
        """Prepare an image (3, H, W) in [0, 1]; the result (3, h, w) has 8 bits per channel."""
        image = resize(image[None].float(), self.size_of(image.shape[-2:]), "area")[0]
        if self.kind == LABELS:
            low, high = np.percentile(image.numpy(), (1, 99.8))
            image = (image - float(low)) / max(float(high - low), 1e-3)
        return (image.clamp(0, 1) * 255).round() / 255

    def target(self, target: Tensor) -> Tensor:
        """Mark the ignored class of a mask (H, W) as 255; a label map stays as it is."""
        return target if self.ignored is None else target.where(target != self.ignored, VOID)

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the prepared image, for that of the image."""
        return tuple(size) if self.longest_side is None else reduced_size(size, self.longest_side)


def reduced_size(size: tuple[int, int], longest_side: int) -> tuple[int, int]:
    """(height, width) of an image whose longer side is reduced to `longest_side`, if it is longer."""
    factor = min(1.0, longest_side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


class StoredPairs(Sequence[Pair]):
    """Prepared images, uint8 (3, h, w), and their targets, uint8 classes or int32 label maps (h, w), in memory.

    Each access returns an image float32 (3, h, w) in [0, 1] and its classes int64 or its label map int32 (h, w). A
    slice returns stored pairs.
    """

    def __init__(self, images: list[Tensor], targets: list[Tensor]) -> None:
        self.images, self.targets = images, targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice) -> Pair | StoredPairs:
        if isinstance(index, slice):
            return StoredPairs(self.images[index], self.targets[index])
        target = self.targets[index]
        return self.images[index].float() / 255, target.long() if target.dtype == torch.uint8 else target


class Windows(Pairs):
    """Random windows of stored images. `preparation` is that of the images."""

    def __init__(self, pairs: StoredPairs, change: Any, preparation: Preparation) -> None:
        self.pairs, self.change, self.preparation = pairs, change, preparation


def own_sets(
    seed: int,
    root: Path | None,
    *,
    preparation: Preparation,
    change: Any,
    train_images: int | None = None,
    held_out: Preparation | None = None,
) -> Sets:
    """Read all images of a folder: those of the split train to train on, and those of every other split apart.

    `train_images` is as in `own_recipe`. `held_out` is the preparation of the other splits; None for the same.
    """
    folder = SegmentationFolder(root)
    splits = split_names(folder)
    splits["train"] = np.random.default_rng(0).permutation(sorted(splits["train"])).tolist()[:train_images]
    total = sum(len(names) for names in splits.values())
    with tqdm(total=total, desc="read images", unit="image", leave=False) as bar:
        ways = {name: preparation if name == "train" else held_out or preparation for name in splits}
        pairs = {name: read_pairs(folder, names, ways[name], bar) for name, names in splits.items()}
    train = Windows(pairs.pop("train"), change, preparation)
    if preparation.kind == MASKS:
        _check_several_classes(folder.root, train.pairs)
    return Sets(train, {name: {"all": stored} for name, stored in pairs.items()})


def _check_several_classes(root: Path, pairs: StoredPairs) -> None:
    classes = {value for target in pairs.targets for value in target.unique().tolist()} - {VOID}
    if len(classes) < 2:
        which = f"only class {classes.pop()}" if classes else "only ignored pixels"
        raise ValueError(
            f"{root} has masks with {which} in its training images, expected at least two classes: "
            f"segedu inspect {root} prints the values of the masks"
        )


def split_names(folder: SegmentationFolder | BoxFolder) -> dict[str, list[str]]:
    """The images of each split. `train` comes first, then `val` if there is one, then the others.

    Lists such as `train_small` name some of the training images; a network is not evaluated on them.

    Without a split to evaluate on, every fifth image of a fixed random order is held out as `val`; without a split to
    train on, all images are used that are in no other.
    """
    splits = {name: names for name, names in folder.splits.items() if name != ALL and not name.startswith("train_")}
    others = set().union(*splits.values())
    train = splits.pop("train", [name for name in sorted(folder.images) if name not in others])
    if not splits:
        order = np.random.default_rng(0).permutation(sorted(train)).tolist()
        count = max(1, round(HELD_OUT * len(order)))
        splits, train = {"val": sorted(order[:count])}, sorted(order[count:])
    _check_apart(folder.root, {"train": train} | splits)
    if not train:
        raise ValueError(
            f"{folder.root} has no image to train on, expected at least two images, one of them not held out"
        )
    return {"train": train} | dict(sorted(splits.items(), key=lambda item: (item[0] != "val", item[0])))


def _check_apart(root: Path, splits: dict[str, list[str]]) -> None:
    """Raise a ValueError if an image to train on is also in another split."""
    for name, names in splits.items():
        twice = sorted(set(names) & set(splits["train"])) if name != "train" else []
        if twice:
            raise ValueError(
                f"{root} has {twice[0]} and {len(twice) - 1} other images both in train and in {name}, expected each "
                f"in one split: a network that has seen an image is too good on it"
            )


def open_folder(root: Path) -> SegmentationFolder | BoxFolder:
    """A folder of boxes in COCO's or VOC's format, or of masks or label maps.

    Raises:
        FileNotFoundError, ValueError: the folder cannot be used.
    """
    if not is_box_folder(Path(root)):
        return SegmentationFolder(root)
    folder = BoxFolder(root)
    folder.check()
    return folder


def split_note(root: Path) -> str:
    """A sentence about the number of images of each split, and where the splits come from."""
    folder = open_folder(root)
    counts = ", ".join(f"{name} {len(names)}" for name, names in split_names(folder).items())
    if len(folder.splits) > 1:
        return f"Images of {folder.root}: {counts}."
    return (
        f"Images of {folder.root}: {counts}. The folder has no splits, so random images are held out. If several "
        f"images show the same scene, patient or specimen, write splits/train.txt and splits/val.txt yourself."
    )


def read_pairs(folder: SegmentationFolder, names: list[str], preparation: Preparation, bar: tqdm) -> StoredPairs:
    """Read and prepare the images of these names, and their ground truth; `bar` advances with every image."""
    images, targets = [], []
    for name in names:
        try:
            image, target = read_pair(folder, name)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"{error}; segedu inspect {folder.root} names every such file") from None
        images.append((preparation(image) * 255).round().to(torch.uint8))
        target = preparation.target(target)
        small = resize(target[None, None], preparation.size_of(target.shape), "nearest")[0, 0]
        targets.append(small.to(torch.uint8) if folder.target_folder == MASKS else compact(small)[0])
        bar.update()
    return StoredPairs(images, targets)


def read_pair(folder: SegmentationFolder, name: str) -> Pair:
    """An image (3, H, W) of a folder, and its classes or label map int64 (H, W), as they are on the disk.

    Raises:
        FileNotFoundError, ValueError: a file is missing or cannot be used.
    """
    image = torch.from_numpy(read_deep_image(folder.images[name]))
    if name not in folder.targets:
        expected = folder.root / folder.target_folder / f"{name}.png"
        raise FileNotFoundError(f"{folder.images[name]} has no ground truth, expected {expected}")
    return image, read_target(folder.targets[name], image.shape[1:], folder.target_folder, folder.classes)
