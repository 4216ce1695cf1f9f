"""COCO's evaluation of files in COCO's format: `instances_*.json` and a file of results."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from segedu.metrics.coco import CocoEvaluation
from segedu.ops.masks import compress_rle, polygons_to_rle
from segedu.validation.tensors import check_keys


def evaluate_coco(
    annotations: dict | str | PathLike,
    results: Sequence[dict] | str | PathLike,
    iou_type: str = "bbox",
    class_agnostic: bool = False,
) -> dict:
    """Compute COCO's twelve metrics for results in COCO's format.

    Args:
        annotations: ``instances_*.json`` or its content: ``images`` (``id``, and for masks ``height`` and
            ``width``), ``categories`` (``id``), ``annotations`` (``image_id``, ``category_id``, ``bbox`` or
            ``segmentation``, ``area``; ``iscrowd`` if it is 1). Masks are polygons or run lengths, compressed or not.
        results: a list of ``{"image_id", "category_id", "score", "bbox" or "segmentation"}``, or the path of a
            JSON file with it. A box is x, y, width, height. Results of a category that is not in `annotations` are
            ignored.
        iou_type: "bbox", "segm" or "boundary".
        class_agnostic: compare objects of all classes with each other (``useCats=0``).

    Returns:
        As `CocoEvaluation.compute`; ``AP_per_class`` by category id.

    >>> car = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 10, 10]}
    >>> annotations = {"images": [{"id": 1}], "categories": [{"id": 3}], "annotations": [car | {"area": 80.0}]}
    >>> result = evaluate_coco(annotations, [car | {"score": 0.5, "bbox": [0, 0, 10, 8]}])
    >>> round(result["AP"], 4), round(result["APs"], 4), list(result["AP_per_class"])
    (0.7, 0.7, [3])
    """
    evaluation = CocoEvaluation(iou_type, class_agnostic)
    annotations, results = _read(annotations, dict, "annotations"), _read(results, list, "results")
    boxes = iou_type == "bbox"
    check_keys("annotations", annotations, ("images", "categories", "annotations"))
    images = _columns(annotations["images"], "annotations['images']", ["id"] if boxes else ["id", "height", "width"])
    categories = _columns(annotations["categories"], "annotations['categories']", ["id"])["id"]
    arguments = []
    for records, name, value_key in (
        (results, "results", "score"),
        (annotations["annotations"], "annotations", "area"),
    ):
        columns = _columns(records, name, ["image_id", "category_id", value_key])
        has_known_category = np.isin(columns["category_id"], categories)
        records = list(itertools.compress(records, has_known_category))
        columns = {key: values[has_known_category] for key, values in columns.items()}
        image = _image_indices(columns["image_id"], images["id"], name)
        objects = {"image": image, "label": columns["category_id"], value_key: columns[value_key]}
        arguments += [objects, _boxes(records, name) if boxes else _masks(records, image, images, name)]
    arguments[2]["crowd"] = np.array([bool(record.get("iscrowd", 0)) for record in records], dtype=bool)
    evaluation.add_images(*arguments)
    return evaluation.compute()


def _read(source: dict | list | str | PathLike, expected_type: type, name: str) -> dict | list:
    if isinstance(source, str | PathLike):
        source = json.loads(Path(source).read_text(encoding="utf-8"))
    if not isinstance(source, expected_type):
        raise TypeError(
            f"{name} has type {type(source).__name__}, expected a {expected_type.__name__} or the path of its JSON file"
        )
    return source


def _column(records: list[dict], name: str, key: str) -> list:
    try:
        return [record[key] for record in records]
    except (KeyError, TypeError):
        invalid = next(record for record in records if not isinstance(record, dict) or key not in record)
        raise ValueError(f"{name} has the entry {invalid!r:.60}, expected a dict with {key!r}") from None


def _columns(records: list[dict], name: str, keys: list[str]) -> dict[str, np.ndarray]:
    """Arrays of integers, and of floats for scores and areas, from a list of dicts; sorted by ``id`` if it is a key."""
    columns = {}
    for key in keys:
        dtype, dtype_kinds = (np.float64, "iuf") if key in ("score", "area") else (np.int64, "iu")
        values = np.array(_column(records, name, key) or np.empty(0, dtype))
        if values.ndim != 1 or values.dtype.kind not in dtype_kinds:
            expected = "numbers" if "f" in dtype_kinds else "integers"
            raise TypeError(f"{name} has {key} of dtype {values.dtype}, expected {expected}")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} has the {key} {values[~np.isfinite(values)][0]}, expected finite numbers")
        columns[key] = values.astype(dtype)
    order = np.argsort(columns["id"]) if "id" in columns else slice(None)
    return {key: values[order] for key, values in columns.items()}


def _image_indices(image_ids: np.ndarray, known_ids: np.ndarray, name: str) -> np.ndarray:
    """The index of each image among the sorted ids."""
    unknown = np.setdiff1d(image_ids, known_ids)
    if len(unknown):
        raise ValueError(f"{name} has the image_id {unknown[0]}, expected an id of annotations['images']")
    return np.searchsorted(known_ids, image_ids)


def _boxes(records: list[dict], name: str) -> np.ndarray:
    column = _column(records, name, "bbox")
    if any(len(box) != 4 for box in column):
        raise ValueError(f"{name} has a bbox of {next(len(b) for b in column if len(b) != 4)} values, expected 4")
    boxes = np.array(column, dtype=np.float64).reshape(-1, 4)
    invalid = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1)
    if invalid.any():
        raise ValueError(f"{name} has the bbox {boxes[invalid][0].tolist()}, expected finite x, y, width, height >= 0")
    return boxes


def _masks(records: list[dict], image_indices: np.ndarray, images: dict[str, np.ndarray], name: str) -> list[dict]:
    """Compressed run lengths of polygons, and of run lengths in any form."""
    sizes = list(zip(images["height"].tolist(), images["width"].tolist(), strict=True))
    masks = []
    for segmentation, index in zip(_column(records, name, "segmentation"), image_indices.tolist(), strict=True):
        if not isinstance(segmentation, dict):
            masks.append(polygons_to_rle(segmentation, sizes[index]))
            continue
        masks.append(compress_rle(segmentation))
        if tuple(masks[-1]["size"]) != sizes[index]:
            raise ValueError(f"{name} has a mask of size {masks[-1]['size']}, expected {sizes[index]}, as its image")
    return masks
