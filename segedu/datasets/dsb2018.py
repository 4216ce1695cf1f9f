"""The 2018 Data Science Bowl in its original layout: one folder per image, which contains one mask per nucleus.

Caicedo et al. 2019 (Nature Methods 16), BBBC038. `stage1_train/<id>/images/<id>.png` is an image; most images
have an alpha channel that is opaque everywhere. `stage1_train/<id>/masks/*.png` holds one nucleus per file. Masks
should not overlap, but a few do: a pixel of several masks is assigned to the first of them in alphabetical order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import item_of, read_image, read_pixels, require
from segedu.datasets.sample import make_sample

CLASSES = ("background", "nucleus")
_OTHER_IMAGES = (".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_LAYOUT = "stage1_train/<id>/images/<id>.png and stage1_train/<id>/masks/*.png"


class DataScienceBowl(Dataset):
    """The images of one stage, in the order of their names, as the sample dicts of `segedu.datasets.sample`.

    Args:
        root: the folder that holds `stage1_train`.
        stage: name of the folder of images; every image in it must have masks.
        transforms: called with the sample dict, see `segedu.datasets.transforms`.

    Raises:
        FileNotFoundError: if the stage folder or the folder `images` of an id is missing; on reading, if an image or
            its folder of masks is missing.
        ValueError: if the stage has no images; on reading, if an image is not an 8-bit image, a mask is not an image,
            or the size of a mask differs from that of its image.

    Each item has `image` (grey in three equal channels), `semantic`, `label_map` (1..N), `boxes`, `labels` (all 1) and
    `masks` (N, H, W), disjoint. An empty folder of masks is an image without nuclei; a mask whose pixels
    all belong to earlier masks is absent. Images differ in size: crop them (`RandomCrop`) before making batches.
    `names` are the ids.
    """

    def __init__(self, root: str | Path, stage: str = "stage1_train", transforms: Callable | None = None):
        self.root, self.transforms = Path(root), transforms
        self.folder = require(self.root / stage, self.root, _LAYOUT)
        self.names = sorted(path.name for path in self.folder.glob("[!._]*") if path.is_dir())
        for name in self.names:
            require(self.folder / name / "images", self.root, _LAYOUT)
        if not self.names:
            raise ValueError(f"root is {str(root)!r}, whose {stage} holds no image; expected {_LAYOUT}")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.names, index, self.transforms, self._read)

    def _read(self, name: str) -> dict[str, Tensor]:
        image = read_image(self.folder / name / "images" / f"{name}.png")
        masks = require(self.folder / name / "masks", self.root, _LAYOUT)
        label_map, number = np.zeros(image.shape[1:], np.int32), 0
        for path in sorted(masks.glob("[!.]*")):
            if path.suffix.lower() in _OTHER_IMAGES:
                raise ValueError(f"{path} is not a PNG file, expected a mask of one nucleus: {_LAYOUT}")
            if path.suffix.lower() != ".png":
                continue
            free = _read_mask(path, label_map.shape) & (label_map == 0)
            if free.any():
                number += 1
                label_map[free] = number
        return make_sample(image, label_map, np.ones(number))


def _read_mask(path: Path, size: tuple[int, ...]) -> np.ndarray:
    """Read a mask (H, W) bool: True where any colour is above 0. A second or fourth channel is alpha and ignored."""
    pixels = read_pixels(path, photograph=True)
    if pixels.shape[:2] != tuple(size):
        raise ValueError(f"{path} has shape {pixels.shape}, expected {tuple(size)} as its image")
    if pixels.ndim == 2:
        return pixels > 0
    return (pixels[..., : 1 if pixels.shape[2] < 3 else 3] > 0).any(-1)
