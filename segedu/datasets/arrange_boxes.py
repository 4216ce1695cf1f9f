"""Convert BCCD, blood cells with boxes, to images of half the size and COCO files `boxes_<split>.json`."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from segedu.datasets.files import read_pixels, require
from segedu.datasets.folder_writer import QUALITY, counted, write_names
from segedu.datasets.real_data import BCCD

CLASSES = BCCD.classes[1:]  # with the category ids 1, 2 and 3
LEFT_OUT = "BloodImage_00037"  # nearly equal to an image of test
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def arrange_bccd(source: Path, target: Path, progress: bool) -> list[str]:
    """Convert the folder `BCCD` of the repository."""
    root = next(iter(source.glob("*/BCCD")), source / "BCCD")
    for folder in ("images", "splits"):
        (target / folder).mkdir()
    for split in ("train", "val", "test"):
        path = require(root / "ImageSets" / "Main" / f"{split}.txt", root, "BCCD/ImageSets/Main with three lists")
        names = [name for name in path.read_text(encoding="utf-8").split() if name != LEFT_OUT]
        write_names(target / "splits" / f"{split}.txt", names)
        images, annotations = [], []
        for name in counted(names, progress, len(names)):
            width, height = _write_image(root / "JPEGImages" / f"{name}.jpg", target / "images" / f"{name}.jpg")
            images.append({"id": len(images) + 1, "file_name": f"{name}.jpg", "width": width, "height": height})
            for category, box in read_boxes(root / "Annotations" / f"{name}.xml", (width, height)):
                annotation = {"id": len(annotations) + 1, "image_id": len(images), "category_id": category}
                annotations.append(annotation | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0})
        categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
        content = {"info": {"description": "BCCD, half the size"}, "images": images, "annotations": annotations}
        (target / f"boxes_{split}.json").write_text(json.dumps(content | {"categories": categories}))
    return []


def read_boxes(path: Path, size: tuple[int, int]) -> list[tuple[int, list[float]]]:
    """Category and box (x, y, width, height) of each cell, with half the coordinates of the XML file.

    Boxes without area are left out.

    Args:
        path: annotation in the format of PASCAL VOC.
        size: (width, height) of the reduced image, at which boxes are clipped.

    Raises:
        ValueError: the file is not XML, or an object has another class or no box.
    """
    try:
        objects = ElementTree.parse(path).getroot().findall("object")
        named = [(one.findtext("name"), [float(one.findtext(f"bndbox/{key}")) for key in _CORNERS]) for one in objects]
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not an annotation of PASCAL VOC, expected objects with boxes: {error}") from None
    boxes = []
    for name, corners in named:
        if name not in CLASSES:
            raise ValueError(f"{path} has an object {name!r}, expected one of {', '.join(CLASSES)}")
        left, top, right, bottom = (min(max(value / 2, 0), size[i % 2]) for i, value in enumerate(corners))
        if left < right and top < bottom:
            boxes.append((CLASSES.index(name) + 1, [left, top, right - left, bottom - top]))
    return boxes


def _write_image(source: Path, target: Path) -> tuple[int, int]:
    """Write an image at half its size; (width, height) of the result."""
    image = Image.fromarray(read_pixels(source, photograph=True))
    small = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
    small.save(target, quality=QUALITY)
    return small.size
