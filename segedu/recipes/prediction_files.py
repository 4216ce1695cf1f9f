"""Write predictions: masks, label maps or detections, overlays, a COCO file, and a table of counts and areas."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from segedu.datasets.box_folder import BOXES
from segedu.datasets.files import atomic_path, read_deep_image
from segedu.datasets.folder import LABELS, SUFFIXES
from segedu.ops.masks import compress_rle, rle_encode
from segedu.recipes.own_box_files import BOX_COLUMNS, annotate_boxes, box_overlay, box_rows
from segedu.recipes.trained_run import TrainedRun
from segedu.viz import overlay

MOST_LABELS = 65535  # of a PNG of 16 bits
COLUMNS = {
    "masks": ("image", "class", "name", "pixels", "percent"),
    "labels": ("image", "objects", "mean_area", "median_area", "percent_covered"),
    BOXES: BOX_COLUMNS,
}


def images_in(source: Path) -> dict[str, Path]:
    """The images to predict: name without suffix -> path; `source` is an image, or a folder of them or with `images`.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: there is no image in it, or two have the same name.
    """
    if source.is_file():
        return {source.stem: source}
    if not source.is_dir():
        raise FileNotFoundError(f"images is {str(source)!r}, which does not exist, expected an image or a folder")
    inner = (source / name for name in ("images", "JPEGImages"))
    folder = next((path for path in inner if path.is_dir()), source)
    paths: dict[str, Path] = {}
    for path in sorted(folder.glob("[!.]*")):
        if path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in paths:
            raise ValueError(f"{path} and {paths[path.stem].name} have the same name, expected one file per image")
        paths[path.stem] = path
    if not paths:
        raise ValueError(f"{folder} contains no image, expected files that end in {', '.join(SUFFIXES)}")
    return paths


def write_predictions(
    run: TrainedRun, images: dict[str, Path], out: Path, *, overwrite: bool = False, progress: bool = True
) -> list[str]:
    """Predict images one after the other and write everything about them below `out`.

    `masks/NAME.png` has the class of each pixel (8 bits) or `labels/NAME.png` a label map (16 bits), at the size of the
    image. `overlays/NAME.png` shows it over the image. `annotations.json` is a COCO file with one annotation per
    object, or per class of an image; `counts.csv` has numbers of objects, or pixels of each class, with areas in
    pixels. The last two are written after all images. Detections have scores in the COCO file, which has all of them;
    the overlays and the table have those with a score of at least 0.25.

    Args:
        run: the trained network.
        images: name -> file.
        out: folder, which is created.
        overwrite: replace existing files.
        progress: show a progress bar.

    Returns:
        One sentence per image that could not be read; all others are written.

    Raises:
        FileExistsError: a file to write exists, and `overwrite` is False.
        ValueError: `out` is the folder of the ground truth of these images.
    """
    _check_out(run.kind, images, out, overwrite)
    problems: list[str] = []
    rows: list[dict[str, Any]] = []
    coco = {"images": [], "annotations": [], "categories": _categories(run)}
    for name, path in tqdm(images.items(), desc="predict", unit="image", disable=not progress, leave=False):
        try:
            image = torch.from_numpy(read_deep_image(path))
        except (ValueError, OSError) as error:
            problems.append(f"{error}.")
            continue
        prediction = run.predict(image)
        if run.kind == BOXES:
            _save(out / "overlays" / f"{name}.png", box_overlay(image, prediction, run.classes))
            rows += box_rows(name, prediction, run.classes)
            annotate_boxes(coco, path.name, tuple(image.shape[1:]), prediction)
            continue
        _save(out / run.kind / f"{name}.png", to_pixels(prediction, run.kind))
        _save(out / "overlays" / f"{name}.png", (overlay(image, prediction) * 255).round().astype(np.uint8))
        rows += _objects(name, prediction) if run.kind == LABELS else _classes(name, prediction, run.classes)
        _annotate(coco, path.name, prediction, run.kind)
    _write_table(out / "counts.csv", COLUMNS[run.kind], rows)
    with atomic_path(out / "annotations.json") as part:
        part.write_text(json.dumps(coco))
    return problems


def to_pixels(prediction: Tensor, kind: str) -> np.ndarray:
    """A prediction (H, W) as the pixels of a file: uint8 classes, or a uint16 label map."""
    if kind == LABELS and int(prediction.max()) > MOST_LABELS:
        raise ValueError(f"the image has {int(prediction.max())} objects, expected at most {MOST_LABELS} for a PNG")
    return prediction.numpy().astype(np.uint16 if kind == LABELS else np.uint8)


def _check_out(kind: str, images: dict[str, Path], out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"out is {str(out)!r}, which is a file, expected a folder")
    roots = {path.resolve().parent.parent for path in images.values()}
    truth = next((name for name in (kind, "annotations.json") if (out / name).exists()), None)
    if out.resolve() in roots and truth is not None:
        raise ValueError(
            f"out is {str(out)!r}, whose {truth} are the ground truth of the images, expected another folder"
        )
    folders = ("overlays",) if kind == BOXES else (kind, "overlays")
    files = [out / folders[0] / f"{name}.png" for name in images] + [out / "counts.csv", out / "annotations.json"]
    existing = [path for path in files if path.exists()]
    if existing and not overwrite:
        raise FileExistsError(
            f"{existing[0]} exists already, as {len(existing) - 1} others do: give another --out, or --overwrite"
        )
    for folder in folders:
        (out / folder).mkdir(parents=True, exist_ok=True)


def _save(path: Path, pixels: np.ndarray) -> None:
    with atomic_path(path) as part:
        Image.fromarray(pixels).save(part)


def _write_table(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)


def _objects(name: str, label_map: Tensor) -> list[dict[str, Any]]:
    areas = label_map.flatten().long().bincount()[1:]
    areas = areas[areas > 0].double().numpy()
    mean, median = (round(float(f(areas)), 1) if len(areas) else "" for f in (np.mean, np.median))
    percent = round(100 * float(areas.sum()) / label_map.numel(), 2)
    return [dict(zip(COLUMNS["labels"], (name, len(areas), mean, median, percent), strict=True))]


def _classes(name: str, classes: Tensor, names: tuple[str, ...]) -> list[dict[str, Any]]:
    counts = classes.flatten().bincount(minlength=len(names)).tolist()
    rows = [(name, k, names[k], counts[k], round(100 * counts[k] / classes.numel(), 2)) for k in range(len(names))]
    return [dict(zip(COLUMNS["masks"], row, strict=True)) for row in rows]


def _categories(run: TrainedRun) -> list[dict[str, Any]]:
    """Classes from 1 on: the background is no category in COCO's format."""
    return [{"id": k, "name": name} for k, name in enumerate(run.classes) if k]


def _annotate(coco: dict[str, list], file_name: str, prediction: Tensor, kind: str) -> None:
    """Add an image and one annotation per object, or per class without the first, to the content of a COCO file."""
    height, width = prediction.shape
    image_id = len(coco["images"]) + 1
    coco["images"].append({"id": image_id, "file_name": file_name, "width": width, "height": height})
    for value in prediction.unique().tolist():
        if value == 0:
            continue
        mask = prediction == value
        rle = compress_rle(rle_encode(mask))
        counts = rle["counts"].decode() if isinstance(rle["counts"], bytes) else rle["counts"]
        rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        top, left = int(rows[0]), int(columns[0])
        coco["annotations"].append(
            {
                "id": len(coco["annotations"]) + 1,
                "image_id": image_id,
                "category_id": 1 if kind == LABELS else value,
                "segmentation": {"size": [height, width], "counts": counts},
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
        )
