"""The images of a real data set, wherever they are: downloaded by `fetch`, or in a folder of `$SEGEDU_DATA`.

`fetch` writes the layout of `segedu.datasets.folder`. A folder of `$SEGEDU_DATA` may differ from it: it may have
`train/images` and `val/images` instead of `images`, no `classes.txt`, label maps in `masks`, and splits of which the
images are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from segedu.datasets.data_folder import data_folder
from segedu.datasets.files import require
from segedu.datasets.folder import LABELS, MASKS, SegmentationFolder, find_images, find_targets, read_classes
from segedu.datasets.real_data import find_data

_LAYOUT = "images, masks or labels, and splits"


class RealImages(SegmentationFolder):
    """The images of a split, as the sample dicts of `segedu.datasets.folder.SegmentationFolder`.

    Args:
        name: a key of `segedu.datasets.real_data.DATA_SETS` with images and classes or label maps, such as "pets".
        split: name of a file in `splits`.
        transforms: called with the sample dict.

    Raises:
        FileNotFoundError: the data set is not on this machine, or a folder or list is missing.
        ValueError: there is no such data set, or no image of the split.
    """

    def __init__(self, name: str, split: str = "train", transforms: Callable | None = None):
        data = find_data(name)
        self.root, self.transforms, self.target_folder = data_folder(name), transforms, data.target_folder
        parts = [self.root] if (self.root / "images").is_dir() else [path.parent for path in self.root.glob("*/images")]
        require(self.root / "images", self.root, _LAYOUT) if not parts else None
        self.images, self.targets = {}, {}
        for part in parts:
            folder = LABELS if (part / LABELS).is_dir() else MASKS
            self.images |= find_images(part)
            self.targets |= find_targets(require(part / folder, self.root, _LAYOUT))
        self.classes = data.classes or read_classes(self.root, self.target_folder)
        path = require(self.root / "splits" / f"{split}.txt", self.root, _LAYOUT)
        self.names = [name for name in sorted(_names(path)) if name in self.images]
        if not self.names:
            raise ValueError(f"{path} lists no image of {self.root}, expected the names of files in images")


def _names(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split()
