"""Penn-Fudan: 170 photographs of streets with 345 upright pedestrians, with one mask per pedestrian.

Wang et al. 2007, "Object Detection Combining Recognition and Segmentation" (ACCV). The folder is `PennFudanPed`:
`PNGImages/FudanPed00001.png` is an image, `PedMasks/FudanPed00001_mask.png` numbers its pedestrians from 1, with 0 for
the background. `Annotation/`, boxes as text, is not read: boxes follow from the masks. The set has no split of its
own; `torch.utils.data.Subset` makes one. The authors offer it as one zip file, of about 50 megabytes, at
https://www.cis.upenn.edu/~jshi/ped_html/.

A reduced copy with a split has `images/FudanPed00001.jpg`, `masks/FudanPed00001.png` and `splits/train.txt`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import check_label_map, item_of, read_image, read_labels, require
from segedu.datasets.sample import compact, make_sample

CLASSES = ("background", "pedestrian")
_LAYOUT = "the folder PennFudanPed with PNGImages/<name>.png and PedMasks/<name>_mask.png"
_REDUCED = "a folder with images/<name>.jpg, masks/<name>.png and splits/<split>.txt"


class PennFudan(Dataset):
    """The images in the order of their names, as the sample dicts of `segedu.datasets.sample`.

    Args:
        root: the folder `PennFudanPed`, or that of a reduced copy.
        transforms: called with the sample dict, see `segedu.datasets.transforms`.
        split: name of a file in `splits` of a reduced copy; None: all images of `PennFudanPed`.

    Raises:
        FileNotFoundError: if a folder or the file of the split is missing; on reading, if an image has no file of
            masks.
        ValueError: if there are no images; on reading, if a file is not an image, sizes differ, or a file is a binary
            mask of all pedestrians.

    Each item has `image`, `semantic`, `label_map` (1..N), `boxes`, `labels` (all 1) and `masks` (N, H, W), disjoint.
    Labels are renumbered without gaps, and an image without pedestrians has N = 0. Images
    differ in size: `segedu.datasets.batch.instance_batch` keeps them in a list. `names` are the images' names.
    """

    def __init__(self, root: str | Path, transforms: Callable | None = None, split: str | None = None):
        self.root, self.transforms = Path(root), transforms
        layout = _LAYOUT if split is None else _REDUCED
        self._images, self._masks = (
            require(self.root / name, self.root, layout)
            for name in (("PNGImages", "PedMasks") if split is None else ("images", "masks"))
        )
        self._endings = (".png", "_mask.png") if split is None else (".jpg", ".png")
        if split is None:
            self.names = sorted(path.stem for path in self._images.glob("[!.]*.png"))
        else:
            self.names = require(self.root / "splits" / f"{split}.txt", self.root, layout).read_text().split()
        if not self.names:
            raise ValueError(f"root is {str(root)!r}, whose {self._images.name} holds no image; expected {layout}")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.names, index, self.transforms, self._read)

    def _read(self, name: str) -> dict[str, Tensor]:
        image = read_image(self._images / (name + self._endings[0]))
        path = self._masks / (name + self._endings[1])
        numbers = read_labels(path, image.shape[1:])
        check_label_map(numbers, path)
        label_map, old = compact(numbers)
        return make_sample(image, label_map.numpy(), np.ones(len(old)))
