"""Real microscope images with label maps as the data of a recipe: reading, balancing, and random changes.

A folder is laid out as in `segedu.datasets.folder`. Its `items.csv` may have a column `kind`; the images of each kind
are then a group of their own in the results, and each kind has a fair share of the training.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import gaussian_blur
from tqdm.auto import tqdm

from segedu.datasets.folder import SegmentationFolder
from segedu.datasets.sample import compact
from segedu.recipes.cells import Objects, Targets
from segedu.recipes.data import Pair, Sets, flip, normalize_exposure, random_window
from segedu.recipes.own_images import StoredPairs, read_pair, split_names

MOST_COPIES = 3  # of an image of a rare kind in one epoch: with more, the network learns single images by heart
SCALES = (0.7, 1.4)  # smallest and largest factor by which a window is resized
EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


class Windows(Objects):
    """Random windows of stored images, and what a network learns of them. Images stay in memory with 8 bits."""

    def __init__(self, pairs: StoredPairs, change: Callable[[Tensor, Tensor], Pair], targets: Targets) -> None:
        self.pairs, self.change, self.targets = pairs, change, targets


def microscope_sets(
    seed: int,
    folder: Path | None,
    *,
    dataset: Callable[[StoredPairs], Dataset],
    train_target: Callable[[Tensor], Tensor] = lambda label_map: label_map,
    target: Callable[[Tensor], Tensor] = lambda label_map: label_map,
) -> Sets:
    """Read a folder: the split train to train on, and every other split, grouped by the kind of image.

    Args:
        seed: not used; every recipe's `sets` takes one.
        folder: of the images, label maps and splits.
        dataset: stored images with their ground truth -> the training set.
        train_target: changes a label map (H, W) of the training images, such as `largest_pieces`.
        target: label map (H, W) -> ground truth of all images.
    """
    if folder is None:
        raise ValueError("folder is None, expected the path of a folder with images, labels and splits")
    images = SegmentationFolder(folder)
    splits, kinds = split_names(images), read_kinds(Path(folder))
    with tqdm(total=sum(map(len, splits.values())), desc="read images", unit="image", leave=False) as bar:

        def read(names: Sequence[str], change: Callable[[Tensor], Tensor]) -> dict[str, StoredPairs]:
            groups: dict[str, tuple[list, list]] = {}
            for name in sorted(names, key=lambda name: (kinds.get(name, "all"), name)):
                image, label_map = read_pair(images, name)
                group = groups.setdefault(kinds.get(name, "all"), ([], []))
                group[0].append((normalize_exposure(image) * 255).round().to(torch.uint8))
                group[1].append(change(compact(label_map)[0]))
                bar.update()
            return {kind: StoredPairs(*group) for kind, group in groups.items()}

        train = read(splits.pop("train"), lambda label_map: target(train_target(label_map)))
        held_out = {split: read(names, target) for split, names in splits.items()}
    return Sets(dataset(balanced(train)), held_out)


def read_kinds(folder: Path) -> dict[str, str]:
    """The kind of each image, from the columns `name` and `kind` of `items.csv`; empty if there are none."""
    path = folder / "items.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        return {row["name"]: row["kind"] for row in csv.DictReader(file) if row.get("kind")}


def balanced(groups: dict[str, StoredPairs]) -> StoredPairs:
    """All images in one sequence, those of a rare kind up to `MOST_COPIES` times, so that no kind dominates."""
    largest = max(len(pairs) for pairs in groups.values())
    images, targets = [], []
    for pairs in groups.values():
        copies = min(MOST_COPIES, round(largest / len(pairs)))
        images += pairs.images * copies
        targets += pairs.targets * copies
    return StoredPairs(images, targets)


def largest_pieces(label_map: Tensor) -> Tensor:
    """Keep the largest connected piece of each object (H, W); the others become background.

    Resizing a label map cuts thin necks, so that an object falls into pieces. A flow towards the middle of an object
    cannot leave a piece, and a star polygon cannot cover two.
    """
    labels = compact(label_map)[0].numpy().copy()
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        pieces, count = ndimage.label(labels[box] == label, EIGHT_NEIGHBOURS)
        if count > 1:
            largest = np.bincount(pieces.ravel())[1:].argmax() + 1
            labels[box][(pieces > 0) & (pieces != largest)] = 0
    return torch.from_numpy(labels)


# --- random changes -----------------------------------------------------------------------------------------------


def microscope_window(image: Tensor, target: Tensor, size: int = 128) -> Pair:
    """A random window, resized by a random factor of `SCALES` to `size`, flipped or turned, with another exposure."""
    low, high = SCALES
    factor = float(torch.empty(()).uniform_(np.log(low), np.log(high)).exp())
    side = min(round(size / factor), *image.shape[-2:])
    index = random_window(image, (side, side))
    image = interpolate(image[index][None], (size, size), mode="bilinear", antialias=factor < 1)[0]
    target = interpolate(target[index][None, None].double(), (size, size), mode="nearest-exact")[0, 0].to(target.dtype)
    image, target = flip(image, target)
    return expose(image), target


def expose(image: Tensor) -> Tensor:
    """Change the exposure and the quality of an image (3, H, W) in [0, 1] at random, as another microscope would.

    Gamma, contrast and offset always change, and the gain of each channel a little, which changes the stain of a
    colour image. One image in five is blurred, and one in three is noisy.
    """
    gamma = float(torch.empty(()).uniform_(-0.5, 0.5).exp())
    gain = torch.empty(()).uniform_(0.7, 1.2) * torch.empty(3, 1, 1).uniform_(0.9, 1.1)
    image = (image**gamma * gain + torch.empty(()).uniform_(-0.05, 0.1)).clamp(0, 1)
    if torch.rand(()) < 0.2:
        image = gaussian_blur(image, [7, 7], [float(torch.empty(()).uniform_(0.4, 1.3))] * 2)
    if torch.rand(()) < 1 / 3:
        image = image + float(torch.empty(()).uniform_(0.01, 0.06)) * torch.randn(image.shape)
    return image.clamp(0, 1)
