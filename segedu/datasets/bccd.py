"""BCCD: 363 microscope images of stained blood, with the boxes of red cells, white cells and platelets.

The images and the boxes are those of github.com/Shenggan/BCCD_Dataset (MIT licence), at half the size, 320 x 240
pixels. `images/NAME.jpg` is an image, and `boxes_SPLIT.json` has the boxes of a split in the COCO format, without
masks. The boxes are incomplete: many red cells at the border or in clumps have none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import item_of, read_image, require
from segedu.ops.boxes import xywh_to_xyxy

CLASSES = ("background", "red cell", "white cell", "platelet")
SPLITS = ("train", "val", "test")
_LAYOUT = "a folder with images/<name>.jpg and boxes_train.json, boxes_val.json and boxes_test.json"


class BCCD(Dataset):
    """The images of a split, in the order of its file.

    Args:
        root: the folder.
        split: "train", "val" or "test".
        transforms: called with the sample dict.

    Raises:
        FileNotFoundError: the file of the split or the folder of the images is missing; on reading, an image is.
        ValueError: the split is not one of the three, or its file is not a COCO file of boxes of the three classes; on
            reading, an image has another size than the file states.

    Each item has `image`, float32 (3, H, W), `boxes`, float32 (N, 4) as xyxy pixels, and `labels`, int64 (N,) with the
    indices of `CLASSES`. `names` are the file names of the images.
    """

    def __init__(self, root: str | Path, split: str, transforms: Callable | None = None) -> None:
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
        self.root, self.transforms = Path(root), transforms
        require(self.root / "images", self.root, _LAYOUT)
        self.path = require(self.root / f"boxes_{split}.json", self.root, _LAYOUT)
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self._images = {image["file_name"]: image for image in content["images"]}
            self._boxes: dict[int, list] = {image["id"]: [] for image in content["images"]}
            for annotation in content["annotations"]:
                self._boxes[annotation["image_id"]].append([*annotation["bbox"], annotation["category_id"]])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} cannot be read, expected boxes in the COCO format: {error!r}") from error
        highest = max((box[-1] for boxes in self._boxes.values() for box in boxes), default=0)
        if highest >= len(CLASSES):
            raise ValueError(f"{self.path} has the category {highest}, expected 1 to {len(CLASSES) - 1}")
        self.names = list(self._images)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.names, index, self.transforms, self._read)

    def _read(self, name: str) -> dict[str, Tensor]:
        described, path = self._images[name], self.root / "images" / name
        image, size = torch.from_numpy(read_image(path)), (described["height"], described["width"])
        if image.shape[1:] != size:
            raise ValueError(f"{path} has {tuple(image.shape[1:])} pixels, expected {size}, as {self.path.name} states")
        boxes = torch.tensor(self._boxes[described["id"]], dtype=torch.float32).reshape(-1, 5)
        return {"image": image, "boxes": xywh_to_xyxy(boxes[:, :4]), "labels": boxes[:, 4].long()}
