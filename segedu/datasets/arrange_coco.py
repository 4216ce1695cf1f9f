"""Choose photographs of COCO val2017 that may be changed and shared, and convert them to classes per pixel."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from segedu.datasets.files import require
from segedu.datasets.folder import MASKS
from segedu.datasets.folder_writer import FolderWriter, counted
from segedu.datasets.real_data import RemoteFile
from segedu.datasets.sample import VOID

CHOSEN = 300
LICENCES = {4: "CC BY 2.0", 5: "CC BY-SA 2.0", 7: "no known copyright restrictions", 8: "United States Government Work"}
SPLITS = ("train", "train", "train", "train", "val", "test")  # of images one after the other
_SIZE = 165_000  # bytes of a photograph on average
_SERVER = "http://images.cocodataset.org/val2017"
_LAYOUT = "annotations/instances_val2017.json"


def image_files(source: Path) -> tuple[RemoteFile, ...]:
    """The photographs to download, after the annotations are unpacked."""
    return tuple(RemoteFile(f"{_SERVER}/{_name(image)}.jpg", _SIZE) for image in _chosen(_read(source)))


def arrange_coco(source: Path, target: Path, progress: bool) -> list[str]:
    """Convert the chosen photographs, which lie beside the folder of annotations."""
    content = _read(source)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    classes = {category["id"]: number for number, category in enumerate(categories, start=1)}
    images = _chosen(content)
    chosen = {image["id"] for image in images}
    annotations = [annotation for annotation in content["annotations"] if annotation["image_id"] in chosen]
    by_image: dict[int, list[dict]] = {number: [] for number in chosen}
    for annotation in annotations:
        by_image[annotation["image_id"]].append(annotation)
    writer = FolderWriter(target, MASKS, ("background", *(category["name"] for category in categories)))
    rows = [("name", "licence", "page")]
    for number, image in enumerate(counted(images, progress, len(images))):
        name = _name(image)
        mask = class_mask(by_image[image["id"]], (image["height"], image["width"]), classes)
        writer.add_copy(name, source / f"{name}.jpg", mask, [SPLITS[number % len(SPLITS)]])
        rows.append((name, LICENCES[image["license"]], image["flickr_url"]))
    writer.close()
    with (target / "licences.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    kept = {
        "images": [image | {"file_name": f"{_name(image)}.jpg"} for image in images],
        "annotations": annotations,
        "categories": categories,
    }
    (target / "instances.json").write_text(json.dumps(kept))
    return writer.left_out


def class_mask(annotations: list[dict], size: tuple[int, int], classes: dict[int, int]) -> np.ndarray:
    """Classes of an image: where objects overlap, that of the smaller one; 255 in crowds without object.

    Args:
        annotations: of the image, in COCO's format.
        size: (height, width) of the image.
        classes: category id -> class.

    Returns:
        (H, W) uint8.
    """
    decoder = COCO()
    decoder.imgs = {
        annotation["image_id"]: dict(zip(("height", "width"), size, strict=True)) for annotation in annotations
    }
    mask = np.zeros(size, np.uint8)
    for annotation in sorted(annotations, key=lambda one: (not one["iscrowd"], -one["area"])):
        mask[decoder.annToMask(annotation) > 0] = VOID if annotation["iscrowd"] else classes[annotation["category_id"]]
    return mask


def _read(source: Path) -> dict[str, Any]:
    return json.loads(require(source / _LAYOUT, source, _LAYOUT).read_text(encoding="utf-8"))


def _chosen(content: dict[str, Any]) -> list[dict]:
    """The first images by number that may be changed and show at least one object outside a crowd."""
    with_object = {annotation["image_id"] for annotation in content["annotations"] if not annotation["iscrowd"]}
    allowed = [one for one in content["images"] if one["license"] in LICENCES and one["id"] in with_object]
    return sorted(allowed, key=lambda image: image["id"])[:CHOSEN]


def _name(image: dict) -> str:
    """Name of an image's file without suffix; it is computed, because the annotations come from the network."""
    return f"{int(image['id']):012}"
