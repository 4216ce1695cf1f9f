"""Real microscope images with the outline of every nucleus: a folder of PNG files and an index.

The folder holds `index.csv` (columns `file`, `split`, `domain` and more), `images/<file>.png` (8-bit, grey or
colour) and `labels/<file>.png` (16-bit label maps, 0 for background, 1..N). That is the layout of the
images of the 2018 Data Science Bowl (BBBC038, stage 1, CC0) that the course's tests use: 490 of fluorescence
and 40 of stained tissue. Many of those images are crops of the same fields of view and some of these crops
lie in different splits: near-duplicates across splits make validation and test figures look better than
they would be on new experiments. Say so beside every number.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import item_of, read_image, read_labels
from segedu.datasets.sample import compact, make_sample

CLASSES = ("background", "nucleus")
_COLUMNS = ("file", "split", "domain")


def _read_index(root: Path) -> list[dict[str, str]]:
    """The rows of index.csv."""
    path = root / "index.csv"
    if not root.is_dir():
        raise FileNotFoundError(f"root is {str(root)!r}, expected a folder with index.csv, images/ and labels/")
    if not path.is_file():
        raise FileNotFoundError(f"root is {str(root)!r}, which has no index.csv; expected it beside images/")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    absent = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
    if absent:
        raise ValueError(f"{path} has no column {absent[0]!r}, expected at least {', '.join(_COLUMNS)}")
    for row in rows:
        if not row["file"] or Path(row["file"]).name != row["file"]:
            raise ValueError(f"{path} names the file {row['file']!r}, expected a plain name without a folder")
    return rows


def _choose(rows: list[dict[str, str]], column: str, wanted: str | None) -> list[dict[str, str]]:
    """The rows whose column is `wanted`; all where it is None."""
    if wanted is None:
        return rows
    known = sorted({row[column] for row in rows})
    if wanted not in known:
        raise ValueError(f"{column} is {wanted!r}, expected one of {known} or None for all")
    return [row for row in rows if row[column] == wanted]


class Nuclei(Dataset):
    """The images of a folder, as the sample dicts of `segedu.datasets.sample`.

    Args:
        root: the folder.
        split: "train", "val" or "test"; None for all. Near-duplicates across splits are likely (see above).
        domain: "fluorescence" or "histology"; None for all.
        transforms: called with the sample dict, see `segedu.datasets.transforms`.

    Raises:
        FileNotFoundError: if the folder or its index is missing; on reading, if an image or its labels are.
        ValueError: if the index lacks a column or has no such split or domain; on reading, if a file is no
            image, the sizes of image and labels differ, or labels are not whole numbers.

    Each item has `image` (grey stored in three equal channels), `semantic`, `label_map` (compact), `boxes`,
    `labels` (all 1) and `masks`. Images differ in size: crop them (`RandomCrop`) before making batches.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = "train",
        domain: str | None = None,
        transforms: Callable | None = None,
    ):
        self.root, self.transforms = Path(root), transforms
        self.rows = _choose(_choose(_read_index(self.root), "split", split), "domain", domain)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.rows, index, self.transforms, self._read)

    def _read(self, row: dict[str, str]) -> dict[str, Tensor]:
        name = row["file"] if row["file"].lower().endswith(".png") else f"{row['file']}.png"
        image = read_image(self.root / "images" / name)
        ids, old = compact(read_labels(self.root / "labels" / name, image.shape[1:]))
        return make_sample(image, ids.numpy(), np.ones(len(old)))
