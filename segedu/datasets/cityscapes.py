"""Cityscapes: streets of 50 cities; 30 classes defined, 19 scored, of which 8 are things.

Cordts et al. 2016 (arXiv 1604.01685) and the authors' scripts for the class ids. The folder holds
`leftImg8bit/<split>/<city>/<name>_leftImg8bit.png` and, beside it, `gtFine/<split>/<city>/` with
`<name>_gtFine_labelIds.png` and `<name>_gtFine_instanceIds.png`. An instance has the id 1000 * class + number;
a class id alone is stuff, or a group of things too dense to separate.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import item_of, read_image, read_labels, require
from segedu.datasets.sample import compact, make_sample

# Evaluated classes in the order of their training ids 0 to 18, with the ids in the files.
LABEL_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26,
    "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
CLASSES = tuple(LABEL_IDS)
THINGS = tuple(range(11, 19))  # person to bicycle
VOID = 255
_LAST = 33  # highest class id in the files; a licence plate is -1, stored as the highest value of the dtype
_LAYOUT = "leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_*Ids.png"


class Cityscapes(Dataset):
    """Street images with semantic classes and instances.

    Args:
        root: the folder with `leftImg8bit` and `gtFine`.
        split: "train" or "val"; the ground truth of "test" is not public.
        transforms: called with the sample dict, see `segedu.datasets.transforms`.

    Each item has the keys of `segedu.datasets.sample`. `semantic` holds training ids 0 to 18, and 255 for pixels
    that are not evaluated. `labels` are training ids too (no class is background). Groups have no instance.
    """

    def __init__(self, root: str | Path, split: str = "train", transforms: Callable | None = None):
        self.root, self.transforms = Path(root), transforms
        folder = require(self.root / "leftImg8bit" / split, self.root, _LAYOUT)
        self.images = sorted(folder.glob("*/*_leftImg8bit.png"))
        if not self.images:
            raise ValueError(f"root is {str(root)!r}, which has no images for {split!r}; expected {_LAYOUT}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.images, index, self.transforms, self._read)

    def _read(self, path: Path) -> dict[str, Tensor]:
        image = read_image(path)
        folder = self.root / "gtFine" / path.parent.parent.name / path.parent.name
        name = path.name.removesuffix("_leftImg8bit.png")
        classes = read_labels(folder / f"{name}_gtFine_labelIds.png", image.shape[1:])
        ids = read_labels(folder / f"{name}_gtFine_instanceIds.png", image.shape[1:])
        groups = torch.where(ids < 1000, ids, ids // 1000)
        _check_classes(f"{name}_gtFine_labelIds.png", classes, classes == VOID)
        _check_classes(f"{name}_gtFine_instanceIds.png", groups, (ids == VOID) | (ids == 65535))
        training = torch.full((256,), VOID)
        training[list(LABEL_IDS.values())] = torch.arange(len(CLASSES))
        scored_thing = torch.isin(training[ids // 1000], torch.tensor(THINGS)) & (ids >= 1000)
        label_map, old = compact(torch.where(scored_thing, ids, 0))
        return make_sample(image, label_map.numpy(), training[old // 1000]) | {"semantic": training[classes]}


def _check_classes(file: str, classes: Tensor, plates: Tensor) -> None:
    unknown = classes[(classes > _LAST) & ~plates]
    if len(unknown):
        raise ValueError(f"{file} has the class {int(unknown[0])}, expected 0 to {_LAST}")
