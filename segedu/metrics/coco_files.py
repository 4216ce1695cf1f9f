"""COCO's evaluation of its own files: `instances_*.json` and a file of results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from segedu.metrics.coco import CocoEvaluation
from segedu.ops.masks import compress_rle, polygons_to_rle


def evaluate_coco(
    annotations: dict | str | PathLike,
    results: Sequence[dict] | str | PathLike,
    iou_type: str = "bbox",
    class_agnostic: bool = False,
) -> dict:
    """COCO's twelve numbers for results in COCO's format.

    Args:
        annotations: ``instances_*.json`` or what it holds: ``images`` (``id``, and for masks ``height`` and
            ``width``), ``categories`` (``id``), ``annotations`` (``image_id``, ``category_id``, ``bbox`` or
            ``segmentation``, ``area``; ``iscrowd`` if it is 1). Polygons, run lengths and compressed ones are fine.
        results: a list of ``{"image_id", "category_id", "score", "bbox" or "segmentation"}``, or its file. A box is
            x, y, width, height. Results of a category that is not in ``annotations`` are left out.
        iou_type: "bbox", "segm" or "boundary".
        class_agnostic: compare objects of all classes with each other (``useCats=0``).

    Returns:
        As `CocoEvaluation.compute`; ``AP_per_class`` by category id.

    Raises:
        TypeError: ``annotations`` is no dict or ``results`` no list.
        ValueError: a key is missing, a result names an unknown image, or a number is not finite.

    Example:
        >>> car = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 10, 10]}
        >>> annotations = {"images": [{"id": 1}], "categories": [{"id": 3}], "annotations": [car | {"area": 80.0}]}
        >>> result = evaluate_coco(annotations, [car | {"score": 0.5, "bbox": [0, 0, 10, 8]}])
        >>> round(result["AP"], 4), round(result["APs"], 4), list(result["AP_per_class"])
        (0.7, 0.7, [3])
    """
    evaluation = CocoEvaluation(iou_type, class_agnostic)
    annotations, results = _read(annotations, dict, "annotations"), _read(results, list, "results")
    images = {image["id"]: image for image in _field(annotations, "annotations", "images")}
    categories = {category["id"] for category in _field(annotations, "annotations", "categories")}
    truth = [a for a in _field(annotations, "annotations", "annotations") if a.get("category_id") in categories]
    results = [result for result in results if result.get("category_id") in categories]
    key = "bbox" if iou_type == "bbox" else "segmentation"
    detections = _columns(results, "results", ("image_id", "category_id", "score", key))
    targets = _columns(truth, "annotations['annotations']", ("image_id", "category_id", "area", key))
    targets["crowd"] = np.array([bool(a.get("iscrowd", 0)) for a in truth], dtype=bool)
    _check_images(detections["image"], images, "results")
    _check_images(targets["image"], images, "annotations['annotations']")
    shapes = []
    for objects, name in ((detections, "results"), (targets, "annotations['annotations']")):
        column, image_ids = objects.pop("shapes"), objects["image"].tolist()
        shapes.append(_boxes(column, name) if iou_type == "bbox" else _masks(column, image_ids, images, name))
    evaluation.add_images(detections, shapes[0], targets, shapes[1])
    return evaluation.compute()


def _read(source: dict | list | str | PathLike, kind: type, name: str) -> dict | list:
    if isinstance(source, str | PathLike):
        source = json.loads(Path(source).read_text(encoding="utf-8"))
    if not isinstance(source, kind):
        raise TypeError(f"{name} is a {type(source).__name__}, expected a {kind.__name__} or the path of its JSON file")
    return source


def _field(record: dict, name: str, key: str) -> object:
    if key not in record:
        raise ValueError(f"{name} has the keys {sorted(record)}, expected also {key!r}")
    return record[key]


COLUMNS = {"image_id": ("image", np.int64), "category_id": ("label", np.int64)}
COLUMNS |= {name: (name, np.float64) for name in ("score", "area")}


def _columns(records: list[dict], name: str, keys: Sequence[str]) -> dict:
    """Lists of dicts to arrays; the last key is the shape and stays a list."""
    try:
        columns = [[record[key] for record in records] for key in keys]
    except KeyError as missing:
        raise ValueError(f"an entry of {name} has no {missing}, expected {', '.join(keys)} in each") from None
    arrays = {COLUMNS[key][0]: np.array(c, COLUMNS[key][1]) for key, c in zip(keys[:-1], columns[:-1], strict=True)}
    for key, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} has the {key} {values[~np.isfinite(values)][0]}, expected finite numbers")
    return arrays | {"shapes": columns[-1]}


def _check_images(image_ids: np.ndarray, images: dict, name: str) -> None:
    unknown = set(image_ids.tolist()) - images.keys()
    if unknown:
        raise ValueError(f"{name} names image {min(unknown)}, expected images of annotations['images']")


def _boxes(column: list, name: str) -> np.ndarray:
    if any(len(box) != 4 for box in column):
        raise ValueError(f"{name} has a bbox of {next(len(b) for b in column if len(b) != 4)} numbers, expected 4")
    boxes = np.array(column, dtype=np.float64).reshape(-1, 4)
    wrong = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1)
    if wrong.any():
        raise ValueError(f"{name} has the bbox {boxes[wrong][0].tolist()}, expected finite x, y, width, height >= 0")
    return boxes


def _masks(column: list, image_ids: list[int], images: dict, name: str) -> list[dict]:
    masks = []
    for segmentation, image_id in zip(column, image_ids, strict=True):
        size = (images[image_id]["height"], images[image_id]["width"])
        if isinstance(segmentation, dict):
            rle = compress_rle(segmentation)
            if tuple(rle["size"]) != size:
                raise ValueError(f"{name} has a mask of size {rle['size']} in image {image_id}, expected {size}")
        else:
            rle = polygons_to_rle(segmentation, size)
        masks.append(rle)
    return masks
