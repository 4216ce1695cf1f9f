"""CVAT: labelled masks as the annotation tool writes and reads them, "CVAT for images 1.1".

The format: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/. An `<image>` has shapes. A `<mask>` is
run lengths inside the rectangle `left`, `top`, `width`, `height`, **row by row**, zeros first; COCO's go column by
column over all of the image. A `<polygon>` is one outline; shapes with the same `group_id` are one object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import torch
from torch import Tensor

from segedu.datasets.coco import check_annotated
from segedu.ops.masks import boxes_from_masks, polygons_to_rle, rle_decode, rle_encode
from segedu.ops.outlines import mask_outlines

Size = tuple[int, int]
DECLARATION = '<?xml version="1.0" encoding="utf-8"?>\n'


def to_cvat(
    annotated: Mapping[str, Mapping[str, Tensor]],
    classes: Sequence[str],
    *,
    polygons: bool = False,
    task: str = "segedu",
) -> str:
    """Convert labelled masks to CVAT XML, for "Upload annotations" of a task whose images have the same names.

    Args:
        annotated: instances by image file name: `labels` (N,) int64 and `masks` (N, H, W) bool. N may be 0; the shape
            of the masks still gives the size of the image.
        classes: `classes[label]` is the name; the first is the background, which is not a label of CVAT.
        polygons: write outlines instead of masks; the pieces of an object are polygons of the same group.
        task: name of the task.

    Returns:
        The XML text, with the images in the order of their names, as in CVAT.

    Example:
        >>> mask = torch.tensor([[[0, 1, 1], [0, 1, 0]]]).bool()
        >>> text = to_cvat({"a.png": {"labels": torch.tensor([1]), "masks": mask}}, ["background", "cat"])
        >>> print(text[text.index("<image") : text.index(" />")])
        <image id="0" name="a.png" width="3" height="2">
            <mask label="cat" source="auto" occluded="0" rle="0, 3, 1" left="1" top="0" width="2" height="2" z_order="0"
    """
    check_annotated(annotated, classes)
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    about = SubElement(SubElement(root, "meta"), "task")
    for key, value in (("name", task), ("size", str(len(annotated))), ("mode", "annotation")):
        SubElement(about, key).text = value
    names = SubElement(about, "labels")
    for name in classes[1:]:
        label = SubElement(names, "label")
        SubElement(label, "name").text = name
        SubElement(label, "type").text = "any"
    for image_id, (name, instances) in enumerate(sorted(annotated.items())):
        height, width = instances["masks"].shape[1:]
        image = SubElement(root, "image", id=str(image_id), name=name, width=str(width), height=str(height))
        for i, (mask, label) in enumerate(zip(instances["masks"], instances["labels"].tolist(), strict=True)):
            for tag, shape in _polygons(mask, i + 1) if polygons else [("mask", _rle_attributes(mask))]:
                common = {"label": classes[label], "source": "auto", "occluded": "0"}
                SubElement(image, tag, common | shape | {"z_order": "0"})
    ElementTree.indent(root)
    return DECLARATION + ElementTree.tostring(root, encoding="unicode") + "\n"


def from_cvat(text: str) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Convert the text of a file in the format "CVAT for images 1.1" to labelled masks.

    Returns:
        Instances by the name of the image: `boxes` (N, 4) float32, tight, `labels` (N,) int64 and `masks` (N, H, W)
        bool; and the class names, "background" first. Polygons of one image, label and group are one object; an object
        that covers no pixel is absent.
    """
    if not isinstance(text, str):
        raise TypeError(f"text has type {type(text).__name__}, expected the content of the file, as str")
    try:
        root = ElementTree.fromstring(text.encode("utf-8"))
    except ElementTree.ParseError as error:
        raise ValueError(f"text is not XML, expected a file of CVAT for images 1.1: {error}") from None
    if root.tag != "annotations" or root.find("track") is not None:
        actual = "of a video" if root.tag == "annotations" else f"<{root.tag}>"
        raise ValueError(f"text is {actual}, expected a file of CVAT for images 1.1, <annotations> of <image>")
    classes = ["background", *(name.text or "" for name in root.findall("./meta//labels/label/name"))]
    return {image.get("name", ""): _instances(image, classes) for image in root.findall("image")}, classes


def _polygons(mask: Tensor, group_id: int) -> Iterator[tuple[str, dict[str, str]]]:
    outlines = mask_outlines(mask)
    for outline in outlines:
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in zip(outline[::2], outline[1::2], strict=True))
        yield "polygon", {"points": points} | ({"group_id": str(group_id)} if len(outlines) > 1 else {})


def _rle_attributes(mask: Tensor) -> dict[str, str]:
    left, top, right, bottom = boxes_from_masks(mask[None])[0].int().tolist()
    # of the transposed mask COCO's run lengths, column by column, are row by row
    counts = rle_encode(mask[top:bottom, left:right].T)["counts"]
    window = {"left": left, "top": top, "width": right - left, "height": bottom - top}
    return {"rle": ", ".join(map(str, counts)), **{key: str(value) for key, value in window.items()}}


def _instances(image: Element, classes: Sequence[str]) -> dict[str, Tensor]:
    height, width = (_integer_attribute(image, key) for key in ("height", "width"))
    labels, masks, groups = [], [], {}
    for shape in image:
        if shape.tag == "tag":  # of the whole image
            continue
        name = shape.get("label", "")
        if name not in classes[1:]:
            raise ValueError(f"{_name(image)} has the label {name!r}, expected one of {', '.join(classes[1:])}")
        mask = _mask(shape, image, (height, width))
        object_key = (name, shape.get("group_id", "0"))
        if shape.tag == "polygon" and object_key in groups:
            masks[groups[object_key]] |= mask
            continue
        if shape.tag == "polygon" and object_key[1] != "0":
            groups[object_key] = len(masks)
        labels.append(classes.index(name, 1))
        masks.append(mask)
    stacked = torch.stack(masks) if masks else torch.zeros(0, height, width, dtype=torch.bool)
    not_empty = stacked.flatten(1).any(dim=1)
    stacked, labels = stacked[not_empty], torch.tensor(labels, dtype=torch.int64)[not_empty]
    return {"boxes": boxes_from_masks(stacked), "labels": labels, "masks": stacked}


def _mask(shape: Element, image: Element, size: Size) -> Tensor:
    if shape.tag == "polygon":
        pairs = re.split("[;,]", shape.get("points", ""))
        try:
            return rle_decode(polygons_to_rle([[float(value) for value in pairs]], size))
        except ValueError:
            points = shape.get("points", "")
            raise ValueError(f"{_name(image)} has the points {points!r:.60}, expected x,y;x,y;x,y...") from None
    if shape.tag != "mask":
        raise ValueError(f"{_name(image)} has a <{shape.tag}>, expected <mask> and <polygon> only")
    left, top, width, height = (_integer_attribute(shape, key, image) for key in ("left", "top", "width", "height"))
    rle = shape.get("rle", "")
    if not re.fullmatch(r"[\s,\d]*", rle):
        raise ValueError(f"{_name(image)} has the runs {rle!r:.60}, expected integers with commas between them")
    counts = [int(count) for count in re.findall(r"\d+", rle)]
    if sum(counts) != width * height:
        raise ValueError(f"{_name(image)} has runs of {sum(counts)} pixels, expected {width} * {height}")
    if left + width > size[1] or top + height > size[0]:
        raise ValueError(
            f"{_name(image)} has a mask from ({left}, {top}), {width} wide and {height} high, expected one inside"
        )
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top : top + height, left : left + width] = rle_decode({"size": [width, height], "counts": counts}).T
    return mask


def _integer_attribute(element: Element, key: str, image: Element | None = None) -> int:
    text = element.get(key, "")
    if not text.isdigit():
        image_name = _name(element if image is None else image)
        raise ValueError(f"{image_name} has the {key} {text!r} of <{element.tag}>, expected an integer")
    return int(text)


def _name(image: Element) -> str:
    return f"image {image.get('name', '')!r}"
