"""Files of annotated boxes: COCO JSON and VOC XML, read into one form, with a sentence for each entry that is wrong.

`CocoInstances` and `VOCDetection` read the published data sets and stop at the first mistake. These functions read
files that people and annotation tools write: classes of any name, missing masks, boxes that extend beyond the image.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Annotation:
    """One object as it is annotated.

    Attributes:
        box: left, top, right and bottom edge in pixels, not clipped to the image.
        label: from 1 on.
        is_crowd: a region of many objects (COCO's iscrowd) or a difficult object (VOC): losses and metrics ignore it.
        segmentation: COCO's polygons or run lengths; None without a mask.
    """

    box: tuple[float, float, float, float]
    label: int
    is_crowd: bool = False
    segmentation: list | dict | None = None


@dataclass
class AnnotatedImages:
    """What files of annotations say.

    Attributes:
        classes: their names; the first is "background".
        annotations: file name of each image -> its objects.
        sizes: file name -> (height, width), where the annotations have it.
        problems: a sentence for each entry that cannot be used.
    """

    classes: tuple[str, ...]
    annotations: dict[str, list[Annotation]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


# --- COCO ---------------------------------------------------------------------------------------------------------


def read_coco(path: Path) -> AnnotatedImages:
    """Read a COCO file of boxes, with or without masks.

    Raises:
        ValueError: the file is not JSON, or is not laid out as COCO.
    """
    return _read_coco(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)  # a training reads its folder several times, and a COCO file may have 400 MB
def _read_coco(path: Path, changed: int) -> AnnotatedImages:
    content = _json_with(path, ("images", "annotations", "categories"))
    names, ids = _categories(path, content["categories"])
    found = AnnotatedImages(("background", *names))
    files: dict[Any, str] = {}
    for image in content["images"]:
        if not isinstance(image, dict) or "id" not in image or not isinstance(image.get("file_name"), str):
            raise ValueError(f"{path} has the image {str(image)[:80]}, expected the keys id and file_name")
        files[image["id"]] = image["file_name"]
        found.annotations[image["file_name"]] = []
        if "height" in image and "width" in image:
            found.sizes[image["file_name"]] = (image["height"], image["width"])
    if len(files) < len(content["images"]) or len(found.annotations) < len(files):
        raise ValueError(f"{path} has an image id or a file_name more than once, expected one entry per image")
    for number, entry in enumerate(content["annotations"]):
        which = f"{path}: annotation {entry.get('id', number) if isinstance(entry, dict) else number}"
        problem, annotation = _coco_annotation(entry, files, ids)
        if annotation is None:
            found.problems.append(f"{which} {problem}.")
        else:
            found.annotations[files[entry["image_id"]]].append(annotation)
    return found


def _json_with(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON, expected a COCO file: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        raise ValueError(f"{path} is not a COCO file, expected the lists {', '.join(keys)}")
    return content


def _categories(path: Path, categories: list[Any]) -> tuple[list[str], dict[int, int]]:
    """The names of the categories in the order of their ids, and id -> label."""
    if not all(isinstance(one, dict) and {"id", "name"} <= one.keys() for one in categories) or not categories:
        raise ValueError(f"{path} has the categories {str(categories)[:80]}, expected at least one with id and name")
    ordered = sorted(categories, key=lambda category: category["id"])
    names = [str(category["name"]) for category in ordered]
    if len(set(names)) < len(names) or len({category["id"] for category in ordered}) < len(ordered):
        raise ValueError(f"{path} has the categories {', '.join(names)}, expected different names and different ids")
    return names, {category["id"]: label for label, category in enumerate(ordered, start=1)}


def _coco_annotation(entry: Any, files: dict[Any, str], ids: dict[int, int]) -> tuple[str, Annotation | None]:
    """The object of an entry; or what is wrong with the entry, and None."""
    if not isinstance(entry, dict) or "image_id" not in entry or "category_id" not in entry:
        return "has no image_id or no category_id", None
    if entry["image_id"] not in files:
        return f"is of the image {entry['image_id']}, expected an id of the list images", None
    if entry["category_id"] not in ids:
        return f"has the category {entry['category_id']}, expected one of {', '.join(map(str, ids))}", None
    box = entry.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box))):
        return f"has the bbox {box}, expected x, y, width and height in pixels", None
    x, y, width, height = map(float, box)
    segmentation = entry.get("segmentation") or None
    crowd = bool(entry.get("iscrowd", 0))
    return "", Annotation((x, y, x + width, y + height), ids[entry["category_id"]], crowd, segmentation)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


# --- VOC ----------------------------------------------------------------------------------------------------------


def read_voc(files: Sequence[Path], classes: Sequence[str] = ()) -> AnnotatedImages:
    """Read VOC's XML files, one per image.

    In the files a box is its first and last pixel, counted from 1: 1, 1, 10, 10 is 10 wide. Here it is 0, 0, 10, 10.

    Args:
        files: the XML files. The name of an image is that of its XML file, without suffix.
        classes: names of the classes without the background; with none, all names that occur, in alphabetical order.
    """
    objects: dict[str, list[tuple]] = {}
    problems, sizes = [], {}
    for path in files:
        try:
            root = _xml_root(path)
            objects[path.stem] = [_voc_object(element, path) for element in root.findall("object")]
        except ValueError as error:
            problems.append(f"{error}.")
            continue
        width, height = (_number(root.findtext(f"size/{key}")) for key in ("width", "height"))
        if width and height:
            sizes[path.stem] = (int(height), int(width))
    counts = Counter(name for image in objects.values() for name, *_ in image)
    names = list(classes) or sorted(counts)
    problems += [
        f"The XML files have {counts[name]} objects of the class {name!r}, expected one of {', '.join(names)}, the "
        f"lines of classes.txt."
        for name in sorted(counts.keys() - set(names))
    ]
    annotations = {
        image: [Annotation(box, 1 + names.index(name), difficult) for name, box, difficult in found if name in names]
        for image, found in objects.items()
    }
    return AnnotatedImages(("background", *names), annotations, sizes, problems)


def _xml_root(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: an encoding that is none
        raise ValueError(f"{path} is not XML, expected an annotation of VOC: {error}") from None
    if root.tag != "annotation":
        raise ValueError(f"{path} has the root <{root.tag}>, expected <annotation>")
    return root


def _voc_object(element: ElementTree.Element, path: Path) -> tuple[str, tuple[float, float, float, float], bool]:
    name = (element.findtext("name") or "").strip()
    values = [_number(element.findtext(f"bndbox/{corner}")) for corner in VOC_CORNERS]
    if not name or None in values:
        raise ValueError(f"{path} has an object of the class {name!r} with the corners {values}, expected numbers")
    left, top, right, bottom = values
    return name, (left - 1, top - 1, right, bottom), (element.findtext("difficult") or "0").strip() == "1"


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
