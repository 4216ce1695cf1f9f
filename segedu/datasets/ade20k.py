"""ADE20K, the scene parsing benchmark: 150 classes of things and stuff, indoors and outdoors.

Zhou et al. 2017 (CVPR; arXiv 1608.05442). The folder `ADEChallengeData2016` holds
`images/<training|validation>/*.jpg`, `annotations/<training|validation>/*.png` and `objectInfo150.txt`. In the files
0 means "other", and 1 to 150 the classes: here they become 0 to 149, and other becomes 255, which no metric counts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import item_of, read_image, read_labels, require

NUM_CLASSES = 150
VOID = 255
_LAYOUT = "ADEChallengeData2016 with images/<split> and annotations/<split>, split training or validation"


class ADE20K(Dataset):
    """Scenes with classes.

    Args:
        root: the folder ADEChallengeData2016.
        split: "training" or "validation".
        transforms: called with the sample dict.

    Each item has `image` and `semantic` (0 to 149, 255 for other). `classes` are the names of objectInfo150.txt, or
    empty where that file is missing.
    """

    def __init__(self, root: str | Path, split: str = "training", transforms: Callable | None = None):
        self.root, self.split, self.transforms = Path(root), split, transforms
        folder = require(self.root / "images" / split, self.root, _LAYOUT)
        self.names = sorted(path.stem for path in folder.glob("*.jpg"))
        if not self.names:
            raise ValueError(f"root is {str(root)!r}, which has no images for {split!r}; expected {_LAYOUT}")
        self.classes = _names(self.root / "objectInfo150.txt")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.names, index, self.transforms, self._read)

    def _read(self, name: str) -> dict[str, Tensor]:
        image = read_image(self.root / "images" / self.split / f"{name}.jpg")
        labels = read_labels(self.root / "annotations" / self.split / f"{name}.png", image.shape[1:])
        if int(labels.max()) > NUM_CLASSES:
            raise ValueError(
                f"annotations/{self.split}/{name}.png has the class {int(labels.max())}, expected 0 to 150"
            )
        return {"image": torch.from_numpy(image), "semantic": torch.where(labels == 0, VOID, labels - 1)}


def _names(path: Path) -> list[str]:
    """Read the class names: the first name in the last column of each row after the header."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t")[-1].split(",")[0].strip() for line in lines if line.strip()]
