"""Detections as files: images with boxes, entries of a COCO file, and rows of a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from segedu.ops.boxes import xyxy_to_xywh
from segedu.ops.masks import compress_rle, rle_encode
from segedu.recipes.shapes import Instances
from segedu.recipes.task import DRAWN_SCORE
from segedu.viz import overlay, palette

BOX_COLUMNS = ("image", "class", "name", "objects", "mean_score", "mean_area")


def box_overlay(image: Tensor, detections: Instances, classes: tuple[str, ...]) -> np.ndarray:
    """An image (3, H, W) with the boxes, classes and scores of its detections with a score of at least 0.25.

    Returns:
        uint8 (H, W, 3), also with the masks if there are any.
    """
    found = confident(detections)
    pixels = image.permute(1, 2, 0).numpy()
    if len(found.get("masks", ())):
        pixels = overlay(image, found["masks"])
    picture = Image.fromarray((pixels * 255).round().astype(np.uint8))
    pen, colours = ImageDraw.Draw(picture), (palette(len(classes)) * 255).astype(int)
    width = max(1, round(max(image.shape[1:]) / 400))
    for i in found["scores"].argsort().tolist():
        left, top, right, bottom = found["boxes"][i].round().tolist()
        label = int(found["labels"][i])
        colour = tuple(colours[label - 1].tolist())
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=width)
        pen.text((left + 2, top + 1), f"{classes[label]} {float(found['scores'][i]):.2f}", fill=colour)
    return np.asarray(picture)


def confident(detections: Instances) -> Instances:
    """The detections with a score of at least 0.25."""
    keep = detections["scores"] >= DRAWN_SCORE
    return {key: value[keep] for key, value in detections.items()}


def box_rows(name: str, detections: Instances, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row per class: its number of detections with a score of at least 0.25, mean score and mean area in pixels."""
    found = confident(detections)
    rows = []
    for label, class_name in enumerate(classes[1:], start=1):
        chosen = found["labels"] == label
        areas = _areas({key: value[chosen] for key, value in found.items()})
        count = int(chosen.sum())
        score = round(float(found["scores"][chosen].mean()), 4) if count else ""
        area = round(float(areas.mean()), 1) if count else ""
        rows.append(dict(zip(BOX_COLUMNS, (name, label, class_name, count, score, area), strict=True)))
    return rows


def _areas(objects: Instances) -> Tensor:
    """Areas (N,) of the masks, or of the boxes where there are no masks."""
    if "masks" in objects:
        return objects["masks"].sum(dim=(1, 2)).double()
    return (objects["boxes"][:, 2:] - objects["boxes"][:, :2]).prod(dim=1).double()


def annotate_boxes(coco: dict[str, list], file_name: str, size: tuple[int, int], detections: Instances) -> None:
    """Add an image of that (height, width) and all its detections, with their scores, to the content of a COCO file."""
    image_id = len(coco["images"]) + 1
    coco["images"].append({"id": image_id, "file_name": file_name, "width": size[1], "height": size[0]})
    boxes = xyxy_to_xywh(detections["boxes"]) if len(detections["boxes"]) else torch.zeros(0, 4)
    for i, (box, area) in enumerate(zip(boxes.tolist(), _areas(detections).tolist(), strict=True)):
        entry = {"id": len(coco["annotations"]) + 1, "image_id": image_id, "iscrowd": 0, "area": area, "bbox": box}
        entry |= {"category_id": int(detections["labels"][i]), "score": float(detections["scores"][i])}
        if "masks" in detections:
            rle = compress_rle(rle_encode(detections["masks"][i]))
            counts = rle["counts"]
            entry["segmentation"] = {
                "size": list(size),
                "counts": counts.decode() if isinstance(counts, bytes) else counts,
            }
        coco["annotations"].append(entry)
