"""Hippocampus: MR volumes of one hippocampus each, with its anterior and posterior part.

Antonelli et al. 2022, "The Medical Segmentation Decathlon" (Nature Communications 13), task 4. The folder holds
`train.npz`, `val.npz` and `test.npz`. Each has the arrays `img_NAME` and `lab_NAME`, uint8 (x, y, z), of about
35 x 50 x 36 voxels of 1 mm, x from left to right, y from back to front, z from bottom to top. The volumes differ in
size. The original files, in NIfTI, are at http://medicaldecathlon.com under CC BY-SA 4.0.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor, from_numpy
from torch.utils.data import Dataset

from segedu.datasets.files import item_of, require

CLASSES = ("background", "anterior", "posterior")
SPLITS = ("train", "val", "test")
_LAYOUT = "a folder with train.npz, val.npz and test.npz"


class Hippocampus(Dataset):
    """The volumes of a split, in the order of their names.

    Args:
        root: the folder.
        split: "train", "val" or "test". No person is in two of them, unless both sides of one were scanned.
        transforms: called with the sample dict.

    Raises:
        FileNotFoundError: the file of the split is missing.
        ValueError: the split is not one of the three; a volume has no labels, other labels, or labels of another shape.

    Each item has `image`, float32 (1, D, H, W) in [0, 1], and `semantic`, int64 (D, H, W) with the indices of
    `CLASSES`. D goes from back to front, so image[0, d] is a coronal slice, which stands upright. `names` are the names
    of the volumes.
    """

    def __init__(self, root: str | Path, split: str, transforms: Callable | None = None) -> None:
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
        self.root, self.transforms = Path(root), transforms
        self.path = require(self.root / f"{split}.npz", self.root, _LAYOUT)
        with np.load(self.path) as file:  # arrays only: allow_pickle is off
            self._arrays = {key: file[key] for key in file.files}
        self.names = sorted(key.removeprefix("img_") for key in self._arrays if key.startswith("img_"))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.names, index, self.transforms, self._read)

    def _read(self, name: str) -> dict[str, Tensor]:
        image, labels = self._arrays[f"img_{name}"], self._arrays.get(f"lab_{name}")
        shape = None if labels is None else labels.shape
        if image.ndim != 3 or image.dtype != np.uint8 or shape != image.shape or labels.max(initial=0) >= len(CLASSES):
            raise ValueError(
                f"{self.path} has img_{name} of {image.dtype} {image.shape} and lab_{name} of shape {shape}, expected "
                f"uint8 (x, y, z) and labels 0 to {len(CLASSES) - 1} of that shape"
            )
        grey, classes = (coronal(array) for array in (image, labels))
        return {"image": from_numpy(grey.astype(np.float32) / 255)[None], "semantic": from_numpy(classes.astype(int))}


def coronal(volume: np.ndarray) -> np.ndarray:
    """Reorder (x, y, z) to upright coronal slices (y, z from the top, x)."""
    return np.ascontiguousarray(volume.transpose(1, 2, 0)[:, ::-1])
