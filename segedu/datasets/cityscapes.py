"""Cityscapes: streets of 50 cities; 30 classes defined, 19 scored, of which 8 are things.

Cordts et al. 2016 (arXiv 1604.01685) and the authors' scripts for the numbers of classes. The folder holds
`leftImg8bit/<split>/<city>/<name>_leftImg8bit.png` and, beside it, `gtFine/<split>/<city>/` with
`<name>_gtFine_labelIds.png` and `<name>_gtFine_instanceIds.png`. An instance is 1000 * class + number; a class
number alone is stuff, or a group of things too dense to part.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import item_of, read_image, read_labels, require
from segedu.datasets.sample import compact, make_sample

# Scored classes in the order of their training numbers 0 to 18, with the numbers that the files hold.
LABEL_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26,
    "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
CLASSES = tuple(LABEL_IDS)
THINGS = tuple(range(11, 19))  # person to bicycle
VOID = 255
_LAST = 33  # of the numbers of classes in the files; a licence plate is -1, which is stored as the highest number
_LAYOUT = "leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_*Ids.png"


class Cityscapes(Dataset):
    """Streets with classes and instances.

    Args:
        root: the folder with `leftImg8bit` and `gtFine`.
        split: "train" or "val"; the truth of "test" is not public.
        transforms: called with the sample dict, see `segedu.datasets.transforms`.

    Raises:
        FileNotFoundError: if the folder or the split is missing; on reading, if a file is.
        ValueError: if the split has no image; on reading, if a file is no image, sizes differ, or a class is unknown.

    Each item has the keys of `segedu.datasets.sample`. `semantic` holds training numbers 0 to 18, and 255 where a
    pixel is not scored; `labels` are training numbers too (no class is background). Groups have no instance.
    """

    def __init__(self, root: str | Path, split: str = "train", transforms: Callable | None = None):
        self.root, self.transforms = Path(root), transforms
        folder = require(self.root / "leftImg8bit" / split, self.root, _LAYOUT)
        self.images = sorted(folder.glob("*/*_leftImg8bit.png"))
        if not self.images:
            raise ValueError(f"root is {str(root)!r}, which has no image for {split!r}; expected {_LAYOUT}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.images, index, self.transforms, self._read)

    def _read(self, path: Path) -> dict[str, Tensor]:
        image = read_image(path)
        truth = self.root / "gtFine" / path.parent.parent.name / path.parent.name
        name = path.name.removesuffix("_leftImg8bit.png")
        classes = read_labels(truth / f"{name}_gtFine_labelIds.png", image.shape[1:])
        numbers = read_labels(truth / f"{name}_gtFine_instanceIds.png", image.shape[1:])
        groups = torch.where(numbers < 1000, numbers, numbers // 1000)
        _check_classes(f"{name}_gtFine_labelIds.png", classes, classes == VOID)
        _check_classes(f"{name}_gtFine_instanceIds.png", groups, (numbers == VOID) | (numbers == 65535))
        training = torch.full((256,), VOID)
        training[list(LABEL_IDS.values())] = torch.arange(len(CLASSES))
        scored_thing = torch.isin(training[numbers // 1000], torch.tensor(THINGS)) & (numbers >= 1000)
        label_map, old = compact(torch.where(scored_thing, numbers, 0))
        return make_sample(image, label_map.numpy(), training[old // 1000]) | {"semantic": training[classes]}


def _check_classes(file: str, classes: Tensor, plates: Tensor) -> None:
    strange = classes[(classes > _LAST) & ~plates]
    if len(strange):
        raise ValueError(f"{file} has the class {int(strange[0])}, expected 0 to {_LAST}")
