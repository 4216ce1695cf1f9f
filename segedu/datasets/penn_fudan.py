"""Penn-Fudan: 170 photographs of streets with 345 upright pedestrians, with one mask per pedestrian.

Wang et al. 2007, "Object Detection Combining Recognition and Segmentation" (ACCV). The folder is `PennFudanPed`:
`PNGImages/FudanPed00001.png` is an image, `PedMasks/FudanPed00001_mask.png` numbers its pedestrians from 1, with 0 for
the background. `Annotation/`, boxes as text, is not read: boxes follow from the masks. The set has no split of its
own; `torch.utils.data.Subset` makes one. The authors offer it as one zip file, of about 50 megabytes, at
https://www.cis.upenn.edu/~jshi/ped_html/.
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


class PennFudan(Dataset):
    """The images in the order of their names, as the sample dicts of `segedu.datasets.sample`.

    Args:
        root: the folder `PennFudanPed`.
        transforms: called with the sample dict, see `segedu.datasets.transforms`.

    Raises:
        FileNotFoundError: if a folder is missing; on reading, if an image has no file of masks.
        ValueError: if there are no images; on reading, if a file is not an image, sizes differ, or a file is a binary
            mask of all pedestrians.

    Each item has `image`, `semantic`, `label_map` (1..N), `boxes`, `labels` (all 1) and `masks` (N, H, W), disjoint.
    Labels are renumbered without gaps, and an image without pedestrians has N = 0. Images
    differ in size: `segedu.datasets.batch.instance_batch` keeps them in a list. `names` are the images' names.
    """

    def __init__(self, root: str | Path, transforms: Callable | None = None):
        self.root, self.transforms = Path(root), transforms
        images = require(self.root / "PNGImages", self.root, _LAYOUT)
        require(self.root / "PedMasks", self.root, _LAYOUT)
        self.names = sorted(path.stem for path in images.glob("[!.]*.png"))
        if not self.names:
            raise ValueError(f"root is {str(root)!r}, whose PNGImages holds no image; expected {_LAYOUT}")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.names, index, self.transforms, self._read)

    def _read(self, name: str) -> dict[str, Tensor]:
        image = read_image(self.root / "PNGImages" / f"{name}.png")
        path = self.root / "PedMasks" / f"{name}_mask.png"
        numbers = read_labels(path, image.shape[1:])
        check_label_map(numbers, path)
        label_map, old = compact(numbers)
        return make_sample(image, label_map.numpy(), np.ones(len(old)))
