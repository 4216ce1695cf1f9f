"""Real microscope images with a label map of all nuclei: a folder of PNG files and an index.

The folder holds `index.csv` (columns `file`, `split`, `domain` and more), `images/<file>.png` (8-bit, grey or
colour) and `labels/<file>.png` (16-bit label maps, 0 for background, 1..N). The tests of the
course use images of the 2018 Data Science Bowl (BBBC038, stage 1, CC0) in this layout: 490 of fluorescence and
40 of stained tissue. Many of them are crops of the same fields of view, and some of these crops are in different
splits. Such near-duplicates make validation and test results better than they would be on new experiments.
State this next to every result.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import BINARY, check_label_map, item_of, read_image, read_labels
from segedu.datasets.sample import compact, make_sample

CLASSES = ("background", "nucleus")
SPLITS = ("train", "val", "test")
_COLUMNS = ("file", "split", "domain")


def _read_index(root: Path) -> list[dict[str, str]]:
    """The rows of index.csv."""
    path = root / "index.csv"
    if not root.is_dir():
        raise FileNotFoundError(f"root is {str(root)!r}, expected a folder with index.csv, images/ and labels/")
    if not path.is_file():
        raise FileNotFoundError(f"root is {str(root)!r}, which has no index.csv; expected it next to images/")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is not a table, expected text with the columns {', '.join(_COLUMNS)}: {error}"
        ) from error
    missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}, expected at least {', '.join(_COLUMNS)}")
    if not rows:
        raise ValueError(f"{path} lists no images, expected one line per image")
    _check_rows(rows, path)
    return rows


def _check_rows(rows: list[dict[str, str]], path: Path) -> None:
    """Check that every image has a plain file name, a split and a domain, and is listed once."""
    seen: set[str] = set()
    for row in rows:
        name = row["file"]
        if not name or Path(name).name != name:
            raise ValueError(f"{path} names the file {name!r}, expected a plain name without a folder")
        if row["split"] not in SPLITS:
            raise ValueError(
                f"{path} assigns {name} to the split {row['split']!r}, expected one of {', '.join(SPLITS)}"
            )
        if not row["domain"]:
            raise ValueError(f"{path} gives {name} no domain, expected a word such as fluorescence")
        if name in seen:
            raise ValueError(f"{path} names {name} twice, expected each image once, in one split")
        seen.add(name)


def _choose(rows: list[dict[str, str]], column: str, value: str | None) -> list[dict[str, str]]:
    """Return the rows whose column is `value`, or all rows if it is None."""
    if value is None:
        return rows
    allowed = sorted({row[column] for row in rows})
    if value not in allowed:
        raise ValueError(f"{column} is {value!r}, expected one of {allowed} or None for all")
    return [row for row in rows if row[column] == value]


class Nuclei(Dataset):
    """The images of a folder, as the sample dicts of `segedu.datasets.sample`.

    Args:
        root: the folder.
        split: "train", "val" or "test"; None for all. Splits probably share near-duplicates (see above).
        domain: for example "fluorescence" or "histology"; None for all.
        transforms: called with the sample dict, see `segedu.datasets.transforms`.

    Raises:
        FileNotFoundError: if the folder or its index is missing; on reading, if an image or its labels are.
        ValueError: if the index is invalid, or has no such split or domain; on reading, if the labels are not integers,
            do not fit their image, or are a binary mask of all nuclei.

    Each item has `image` (grey images in three equal channels), `semantic`, `label_map` (compact), `boxes`,
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
        path = self.root / "labels" / name
        labels = read_labels(path, image.shape[1:])
        check_label_map(labels, path, (1, *BINARY))
        ids, old = compact(labels)
        return make_sample(image, ids.numpy(), np.ones(len(old)))
