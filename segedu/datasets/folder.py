"""A folder of your own images and masks, as a data set.

The folder holds `images/<name>.<suffix>` and, with the same names, one of two kinds of ground truth:

- `masks/<name>.png`, the class of each pixel: 0 is the first class, usually background, and 255 is ignored. A mask with
  the values 0 and 255 alone is refused, because it is usually a binary mask;
- `labels/<name>.png`, a label map: 0 is background, and each object has a number from 1 on.

Images have 8 bits per channel, or are grey with 16 bits: then the 1st and 99.8th percentiles of their values become 0
and 1. Two kinds of file are optional. `classes.txt` names one class per line, in the order of their numbers.
`splits/<split>.txt` lists the names of the images of a split, one per line. The split "all" always exists. A list
such as `train_strict` or `val_spaced` has some of the images of `train` or `val`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import check_label_map, item_of, read_deep_image, read_labels, require
from segedu.datasets.sample import VOID, compact, make_sample

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
TARGET_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
MASKS, LABELS = "masks", "labels"
ALL = "all"
_LAYOUT = "images/<name>.png with masks/<name>.png (classes) or labels/<name>.png (label maps)"


class SegmentationFolder(Dataset):
    """The images of a split in the order of their names, as the sample dicts of `segedu.datasets.sample`.

    Args:
        root: the folder with `images`, and `masks` or `labels`.
        split: name of a file in `splits`; "all" for every image.
        transforms: called with the sample dict, see `segedu.datasets.transforms`.

    Raises:
        FileNotFoundError: if a folder is missing; on reading, if an image has no ground truth.
        ValueError: if there are no images, two images have the same name, there is no such split, a split lists
            an unknown name, or both `masks` and `labels` exist; on reading, if a file is not an image, sizes differ, or
            a file of ground truth cannot be used, see `read_target`.

    Each item has `image`, `semantic`, `label_map`, `boxes`, `labels` and `masks`. With `masks`, there are no instances.
    With `labels`, `semantic` is 1 in every object. `classes` are the names of the classes, `names` those of the images,
    `splits` maps each split to names, and `target_folder` is "masks" or "labels".
    """

    def __init__(self, root: str | Path, split: str = ALL, transforms: Callable | None = None):
        self.root, self.transforms = Path(root), transforms
        self.images = find_images(self.root)
        self.target_folder = find_target_folder(self.root)
        self.targets = find_targets(self.root / self.target_folder)
        self.classes = read_classes(self.root, self.target_folder)
        self.splits = read_splits(self.root, self.images)
        if split not in self.splits:
            raise ValueError(f"split is {split!r}, expected one of {', '.join(self.splits)}: the files in splits")
        self.names = sorted(self.splits[split])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.names, index, self.transforms, self._read)

    def _read(self, name: str) -> dict[str, Tensor]:
        image = read_deep_image(self.images[name])
        if name not in self.targets:
            expected = self.root / self.target_folder / f"{name}.png"
            raise FileNotFoundError(f"{self.images[name]} has no ground truth, expected {expected}")
        pixels = read_target(self.targets[name], image.shape[1:], self.target_folder, self.classes)
        if self.target_folder == LABELS:
            label_map, old = compact(pixels)
            return make_sample(image, label_map.numpy(), np.ones(len(old)))
        sample = make_sample(image, np.zeros(image.shape[1:], np.int32), np.zeros(0))
        return {**sample, "semantic": pixels.long()}


def find_images(root: Path) -> dict[str, Path]:
    """The images of a folder: name without suffix -> path. Hidden files are left out."""
    if not root.is_dir():
        raise FileNotFoundError(f"root is {str(root)!r}, which is not a folder; expected a folder that holds {_LAYOUT}")
    images = find_by_name(require(root / "images", root, _LAYOUT), SUFFIXES)
    if not images:
        raise ValueError(f"{root / 'images'} contains no image, expected files such as <name>.png or <name>.jpg")
    return images


def find_target_folder(root: Path) -> str:
    """The folder of the ground truth: "masks", whose values are classes, or "labels", whose values number objects."""
    found = [name for name in (MASKS, LABELS) if (root / name).is_dir()]
    if not found:
        raise FileNotFoundError(f"root is {str(root)!r}, which has neither masks nor labels; expected {_LAYOUT}")
    if len(found) > 1:
        raise ValueError(f"root is {str(root)!r}, which has both masks and labels; expected one: rename the other")
    return found[0]


def find_targets(folder: Path) -> dict[str, Path]:
    """The files of ground truth: name without suffix -> path."""
    return find_by_name(folder, TARGET_SUFFIXES)


def read_classes(root: Path, target_folder: str) -> tuple[str, ...]:
    """The names in `classes.txt`. Without the file: "background" and "object" for label maps, and none for masks.

    Raises:
        ValueError: the file is not a UTF-8 text, or two classes have the same name.
    """
    path = root / "classes.txt"
    if not path.is_file():
        return ("background", "object") if target_folder == LABELS else ()
    names = read_lines(path)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has the class {twice[0]!r} more than once, expected one line per class")
    return tuple(names)


def read_splits(root: Path, images: dict[str, Path]) -> dict[str, list[str]]:
    """The names of the images of each split; "all" alone where the folder has no `splits`.

    Raises:
        ValueError: a list is called all.txt, is not a UTF-8 text, is empty, or has a name without image.
    """
    splits = {ALL: sorted(images)}
    for path in sorted((root / "splits").glob("[!.]*.txt")):
        if path.stem == ALL:
            raise ValueError(f"{path} has the name of all images together, expected another, such as train.txt")
        names = [_without_suffix(name) for name in read_lines(path)]
        unknown = [name for name in names if name not in images]
        if not names:
            raise ValueError(f"{path} is empty, expected one name of an image per line")
        if unknown:
            raise ValueError(f"{path} lists {unknown[0]!r}, expected the name of a file in {root / 'images'}")
        splits[path.stem] = names
    return splits


def read_target(path: Path, size: tuple[int, int], target_folder: str, classes: tuple[str, ...]) -> Tensor:
    """Read a label map or a mask of classes.

    Args:
        path: PNG, TIFF or BMP.
        size: (height, width) of the image.
        target_folder: "masks" or "labels".
        classes: names of the classes; with none, masks may have every class.

    Returns:
        (H, W) integers: numbers of objects, or classes and 255.

    Raises:
        ValueError: the file is not an image of integers of this size, a label map is a mask of all objects, a mask has
            a class beyond the list, or it has the values 0 and 255 alone.
    """
    pixels = read_labels(path, size)
    if target_folder == LABELS:
        check_label_map(pixels, path)
        return pixels
    values = pixels.unique().tolist()
    if values == [0, VOID]:
        raise ValueError(
            f"{path} has only the values 0 and {VOID}, and {VOID} means that a pixel is ignored, expected classes: "
            f"divide a binary mask by {VOID}; or leave out an image that has class 0 only"
        )
    highest = max([value for value in values if value != VOID], default=0)
    if classes and highest >= len(classes):
        raise ValueError(
            f"{path} has the class {highest}, expected 0 to {len(classes) - 1}, the lines of classes.txt, "
            f"or {VOID} for pixels to ignore"
        )
    return pixels


def find_by_name(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The files of a folder with one of these suffixes: name without suffix -> path. Hidden files are left out.

    Raises:
        ValueError: two files have the same name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("[!.]*")):
        if path.suffix.lower() not in suffixes:
            continue
        if path.stem in found:
            raise ValueError(f"{path} and {found[path.stem].name} have the same name, expected one file per image")
        found[path.stem] = path
    return found


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty, without spaces around them."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a UTF-8 text, expected one name per line: save it again ({error})") from None
    return [line.strip() for line in lines if line.strip()]


def listed(names: list[str], most: int = 5) -> str:
    """The first names of a list, and the number of the others."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _without_suffix(name: str) -> str:
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name
