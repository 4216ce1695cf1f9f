"""COCO: objects in context, with 80 things as polygons or run lengths, and panoptic truth as coloured images.

Lin et al. 2014 (arXiv 1405.0312); panoptic: Kirillov et al. 2019 (arXiv 1801.00868). The files name categories
by numbers with gaps (1 to 90 for 80 things; the panoptic task has 133 categories). `labels` number them
without gaps from 1, in the order of the file: `classes[label]` is the name, `category_ids[label]` COCO's number.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pycocotools.coco import COCO
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import item_of, read_image, read_pixels
from segedu.ops.boxes import xywh_to_xyxy
from segedu.ops.masks import polygons_to_rle, rle_decode


def _number(categories: list[dict]) -> tuple[list[str], list[int]]:
    """Names and COCO's numbers, with a place for background in front."""
    ordered = sorted(categories, key=lambda category: category["id"])
    return ["background", *(c["name"] for c in ordered)], [0, *(c["id"] for c in ordered)]


def _read_json(path: Path, keys: tuple[str, ...]) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"annotations is {str(path)!r}, expected a JSON file of COCO")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"annotations is {str(path)!r}, expected JSON: {error}") from error
    if not isinstance(content, dict) or any(key not in content for key in keys):
        raise ValueError(f"annotations is {str(path)!r}, expected the keys {', '.join(keys)}")
    return content


class CocoInstances(Dataset):
    """Images with instances.

    Args:
        images: the folder of images, such as `val2017`.
        annotations: the file, such as `annotations/instances_val2017.json`.
        transforms: called with the sample dict.

    Raises:
        FileNotFoundError: if the file or, on reading, an image is missing.
        ValueError: if the file is not COCO's; on reading, if an image is broken or not of the size annotated.

    Each item has `image`, `boxes` (as annotated, not from the masks), `labels`, `masks` and, for evaluation,
    `iscrowd` (N,) bool, `area` (N,) float64, `image_id`. Objects may overlap, so there is no label map. An image
    without objects has N = 0.
    """

    def __init__(self, images: str | Path, annotations: str | Path, transforms: Callable | None = None):
        self.images, self.transforms = Path(images), transforms
        content = _read_json(Path(annotations), ("images", "annotations", "categories"))
        self.coco = COCO()
        self.coco.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports on the terminal
            self.coco.createIndex()
        self.ids = sorted(self.coco.imgs)
        self.classes, self.category_ids = _number(content["categories"])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.ids, index, self.transforms, self._read)

    def _read(self, image_id: int) -> dict[str, Tensor]:
        info = self.coco.imgs[image_id]
        size = (info["height"], info["width"])
        image = read_image(self.images / info["file_name"])
        if image.shape[1:] != size:
            raise ValueError(f"{info['file_name']} has the size {image.shape[1:]}, expected {size}, as annotated")
        truths = self.coco.imgToAnns.get(image_id, [])
        masks = [self._mask(truth["segmentation"], size) for truth in truths]
        boxes = torch.tensor([truth["bbox"] for truth in truths], dtype=torch.float32).reshape(-1, 4)
        return {
            "image": torch.from_numpy(image),
            "boxes": xywh_to_xyxy(boxes),
            "labels": torch.tensor([self._label(truth["category_id"]) for truth in truths], dtype=torch.int64),
            "masks": torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool),
            "iscrowd": torch.tensor([bool(truth.get("iscrowd", 0)) for truth in truths], dtype=torch.bool),
            "area": torch.tensor([truth["area"] for truth in truths], dtype=torch.float64),
            "image_id": torch.tensor(image_id),
        }

    def _label(self, category_id: int) -> int:
        return self.category_ids.index(category_id, 1)  # place 0 is background, and some files number from 0

    @staticmethod
    def _mask(shape: list | dict, size: tuple[int, int]) -> Tensor:
        return rle_decode(polygons_to_rle(shape, size) if isinstance(shape, list) else shape)


class CocoPanoptic(Dataset):
    """Images with panoptic truth.

    Args:
        images: the folder of images.
        segments: the folder of coloured images, such as `panoptic_val2017`.
        annotations: the file, such as `annotations/panoptic_val2017.json`.
        transforms: called with the sample dict.

    Raises:
        FileNotFoundError: if the file or, on reading, an image is missing.
        ValueError: if the file is not COCO's; on reading, if an image is broken or a segment has no pixel.

    Each item has `image`, `panoptic_seg` int32 (H, W), 0 for void, and `segments_info`, dicts with `id`,
    `category_id` (COCO's number), `isthing`, `iscrowd`. In the files a segment's number is its colour,
    R + 256 G + 65536 B.
    """

    def __init__(
        self,
        images: str | Path,
        segments: str | Path,
        annotations: str | Path,
        transforms: Callable | None = None,
    ):
        self.images, self.segments, self.transforms = Path(images), Path(segments), transforms
        content = _read_json(Path(annotations), ("images", "annotations", "categories"))
        self.truths = content["annotations"]
        self.files = {image["id"]: image["file_name"] for image in content["images"]}
        self.isthing = {category["id"]: bool(category["isthing"]) for category in content["categories"]}
        self.classes, self.category_ids = _number(content["categories"])

    def __len__(self) -> int:
        return len(self.truths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.truths, index, self.transforms, self._read)

    def _read(self, truth: dict) -> dict[str, Tensor]:
        image = read_image(self.images / self.files[truth["image_id"]])
        path = self.segments / truth["file_name"]
        colours = read_pixels(path)
        if colours.ndim != 3 or colours.shape[:2] != image.shape[1:]:
            raise ValueError(f"{path} has shape {colours.shape}, expected {(*image.shape[1:], 3)}")
        numbers = colours[..., :3].astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        segments = [
            {
                "id": segment["id"],
                "category_id": segment["category_id"],
                "isthing": self.isthing[segment["category_id"]],
                "iscrowd": bool(segment.get("iscrowd", 0)),
            }
            for segment in truth["segments_info"]
        ]
        for absent in {segment["id"] for segment in segments} - set(np.unique(numbers).tolist()):
            raise ValueError(f"{path} has no pixel of segment {absent}, expected all that the annotations name")
        return {
            "image": torch.from_numpy(image),
            "panoptic_seg": torch.from_numpy(numbers),
            "segments_info": segments,
            "image_id": torch.tensor(truth["image_id"]),
        }
