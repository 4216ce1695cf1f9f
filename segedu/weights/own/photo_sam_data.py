"""Training images of `photo_sam`: photographs and micrographs with their objects, windows of them, and collages.

Every image has a label map: 0 for no object, and 1 to n for its objects. The data sets are folders of `$SEGEDU_DATA`.
Only images whose licence allows their use for published weights are read, and only of the splits train and val.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from segedu.datasets.cells import draw_cells
from segedu.datasets.data_folder import data_folder
from segedu.datasets.shapes import draw_shapes
from segedu.datasets.street import draw_street
from segedu.promptable.sam.sam import fitted_size

MEAN_COLOUR = (124, 116, 104)  # of ImageNet, with which SAM pads images
SMALLEST = 40  # pixels of an object in a training image
SMALLEST_REGION = 150  # pixels of a region of aerial images or of stuff, before resizing
LICENCES = {
    "pets": "Oxford-IIIT Pets, CC BY-SA 4.0",
    "coco_panoptic": "COCO 2017, annotations CC BY 4.0, images under CC BY 2.0, CC BY-SA 2.0 or free of restrictions",
    "nuclei_grouped": "2018 Data Science Bowl (BBBC038), CC0 1.0",
    "phase_cells": "Usiigaci, MIT",
    "aerial": "Humans in the Loop and MBRSC, semantic segmentation of aerial imagery, CC0 1.0",
    "synthetic": "scenes drawn by segedu.datasets, MIT",
}
SYNTHETIC = {"shapes": (draw_shapes, (96, 96)), "cells": (draw_cells, (96, 96)), "street": (draw_street, (96, 144))}


class Labelled(NamedTuple):
    """An image, uint8 (H, W, 3), and its objects, int32 (H, W)."""

    image: np.ndarray
    label_map: np.ndarray


def read_objects(data: str, split: str) -> list[Labelled]:
    """Read a split of `pets`, `coco_panoptic`, `aerial`, `nuclei_grouped` or `phase_cells`."""
    root, read = data_folder(data), READERS[data]
    listed = "_shippable" if data == "coco_panoptic" else ""
    names = (root / "splits" / f"{split}{listed}.txt").read_text(encoding="utf-8").split()
    return list(read(root, split, names))


def _pets(root: Path, split: str, names: Sequence[str]) -> list[Labelled]:
    return [Labelled(_pixels(root / "images", name), _pet(root, name)[0].astype(np.int32)) for name in names]


def _pet(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The mask of the animal and that of the unlabelled border, whose pixels belong to the nearest labelled side."""
    trimap = _labels(root / "masks", name)
    nearest = ndimage.distance_transform_edt(trimap == 2, return_distances=False, return_indices=True)
    return trimap[tuple(nearest)] == 1, trimap == 2


def read_pets_with_border(split: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Images of pets, the masks of the pixels that certainly are the animal, and the masks of the border."""
    root = data_folder("pets")
    names = (root / "splits" / f"{split}.txt").read_text(encoding="utf-8").split()
    trimaps = [_labels(root / "masks", name) for name in names]
    return [(_pixels(root / "images", n), trimap == 1, trimap == 2) for n, trimap in zip(names, trimaps, strict=True)]


def _coco(root: Path, split: str, names: Sequence[str]) -> list[Labelled]:
    """Things, and connected regions of stuff, of photographs that may be shipped."""
    content = json.loads((root / f"panoptic_{split}.json").read_text(encoding="utf-8"))
    is_thing = {category["id"]: category["isthing"] for category in content["categories"]}
    segments_of = {Path(one["file_name"]).stem: one["segments_info"] for one in content["annotations"]}
    images = []
    for name in names:
        ids, label_map = _labels(root / "panoptic" / split, name), None
        label_map = np.zeros(ids.shape, np.int32)
        for segment in segments_of[name]:
            mask = ids == segment["id"]
            if is_thing[segment["category_id"]] and not segment["iscrowd"]:
                label_map[mask] = label_map.max() + 1
            elif not segment["iscrowd"]:
                _add_regions(label_map, mask)
        images.append(Labelled(_pixels(root / "images" / split, name), label_map))
    return images


def _aerial(root: Path, split: str, names: Sequence[str]) -> list[Labelled]:
    """Connected regions of each class."""
    images = []
    for name in names:
        classes = _labels(root / "masks", name)
        label_map = np.zeros(classes.shape, np.int32)
        for index in np.unique(classes[classes != 255]):
            _add_regions(label_map, classes == index)
        images.append(Labelled(_pixels(root / "images", name), label_map))
    return images


def _cells(root: Path, split: str, names: Sequence[str]) -> list[Labelled]:
    return [Labelled(_pixels(root / "images", n), _labels(root / "labels", n).astype(np.int32)) for n in names]


READERS: dict[str, Callable] = {
    "pets": _pets, "coco_panoptic": _coco, "aerial": _aerial, "nuclei_grouped": _cells, "phase_cells": _cells,
}  # fmt: skip


def draw_objects(kind: str, seed: tuple[int, int]) -> Labelled:
    """A synthetic scene of `SYNTHETIC`, whose objects are the things and the connected regions of stuff."""
    draw, size = SYNTHETIC[kind]
    scene = draw(seed, size=size)
    label_map = scene["label_map"].numpy().astype(np.int32)
    for segment in scene.get("segments_info", ()):
        if not segment["isthing"]:
            _add_regions(label_map, (scene["panoptic_seg"] == segment["id"]).numpy())
    return Labelled((scene["image"].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), label_map)


def _add_regions(label_map: np.ndarray, mask: np.ndarray) -> None:
    """Add the large connected regions of a mask to a label map as new objects."""
    regions, count = ndimage.label(mask)
    for index in range(1, count + 1):
        region = regions == index
        if region.sum() >= SMALLEST_REGION:
            label_map[region] = label_map.max() + 1


def _pixels(folder: Path, name: str) -> np.ndarray:
    path = next(path for path in (folder / f"{Path(name).stem}{end}" for end in (".jpg", ".png")) if path.exists())
    return np.asarray(Image.open(path).convert("RGB"))


def _labels(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / f"{Path(name).stem}.png"))


def resize(labelled: Labelled, size: int) -> Labelled:
    """Resize an image as `SAM.encode` does, so that its longer side has `size` pixels."""
    h, w = fitted_size(labelled.label_map.shape, size)
    image = np.asarray(Image.fromarray(labelled.image).resize((w, h), Image.Resampling.BILINEAR))
    return Labelled(image, np.asarray(Image.fromarray(labelled.label_map).resize((w, h), Image.Resampling.NEAREST)))


def pad(labelled: Labelled, size: int) -> Labelled:
    """Pad an image to a square at the right and the bottom with the mean colour, as `SAM.encode` does."""
    h, w = labelled.label_map.shape
    image = np.full((size, size, 3), MEAN_COLOUR, np.uint8)
    image[:h, :w] = labelled.image
    return Labelled(image, np.pad(labelled.label_map, ((0, size - h), (0, size - w))))


def window(labelled: Labelled, rng: np.random.Generator, smallest: float = 0.2, largest: float = 1.3) -> Labelled:
    """A random window around a random object.

    Args:
        labelled: an image with at least one object.
        rng: random number generator.
        smallest: lowest ratio of the longer side of the object to the longer side of the window.
        largest: highest ratio.
    """
    H, W = labelled.label_map.shape
    boxes = [(i, box) for i, box in enumerate(ndimage.find_objects(labelled.label_map), 1) if box is not None]
    _, (rows, columns) = boxes[rng.integers(len(boxes))]
    longer = max(rows.stop - rows.start, columns.stop - columns.start, 8)
    side = longer / np.exp(rng.uniform(np.log(smallest), np.log(largest)))
    h, w = side * np.array([1.0, rng.uniform(0.65, 1)])[rng.permutation(2)]
    y0, y1 = _interval(rows, h, H, rng)
    x0, x1 = _interval(columns, w, W, rng)
    return Labelled(labelled.image[y0:y1, x0:x1], labelled.label_map[y0:y1, x0:x1])


def _interval(part: slice, length: float, full: int, rng: np.random.Generator) -> tuple[int, int]:
    """An interval of an axis, which contains most of the part if it is long enough."""
    length = int(np.clip(length, min(16, full), full))
    low, high = sorted((part.start, part.stop - length))
    start = int(np.clip(rng.integers(low, high + 1), 0, full - length))
    return start, start + length


def change_colours(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Change brightness, contrast, gamma and colour balance at random, or remove the colours."""
    pixels = image.astype(np.float32) / 255
    pixels = pixels ** np.exp(strength * rng.normal(0, 0.25))
    mean = pixels.mean()
    gain = np.exp(strength * (rng.normal(0, 0.2) + rng.normal(0, 0.1, 3))).astype(np.float32)
    pixels = (pixels - mean) * gain + mean + np.float32(strength * 0.08) * rng.normal(size=3).astype(np.float32)
    if rng.random() < 0.2:
        pixels = pixels.mean(2, keepdims=True).repeat(3, 2)
    return (pixels.clip(0, 1) * 255).astype(np.uint8)


def collage(base: Labelled, others: Sequence[Labelled], rng: np.random.Generator) -> Labelled:
    """Paste objects of other images, and random shapes with their textures, onto an image.

    Args:
        base: an image, whose own objects stay objects if most of them remains visible.
        others: images with objects, from which objects and textures are taken.
        rng: random number generator.
    """
    h, w = base.label_map.shape
    image, label_map = base.image.astype(np.float32), base.label_map.copy()
    areas = np.bincount(label_map.ravel())
    for _ in range(rng.integers(1, 5)):
        other = others[rng.integers(len(others))]
        if rng.random() < 0.4:
            mask, texture = _cutout(other, max(h, w), rng)
        else:
            mask, texture = random_shape(max(h, w), rng), _texture(other.image, max(h, w), rng)
        mask, texture = mask[:h, :w], texture[:h, :w]
        if mask.sum() >= SMALLEST:
            alpha = ndimage.gaussian_filter(mask.astype(np.float32), rng.uniform(0.4, 1.2))[..., None]
            image = image * (1 - alpha) + alpha * change_colours(texture, rng)
            label_map[mask] = label_map.max() + 1
    visible = np.bincount(label_map.ravel(), minlength=len(areas))
    hidden = np.flatnonzero(visible[: len(areas)] < 0.7 * areas)
    label_map[np.isin(label_map, hidden)] = 0
    return Labelled(image.clip(0, 255).astype(np.uint8), label_map)


def _cutout(labelled: Labelled, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The mask of a random object at a random position, and the pixels that belong to it."""
    view = pad(resize(window(labelled, rng, 0.3, 1.0), size), size)
    ids = np.unique(view.label_map[view.label_map > 0])
    mask = view.label_map == (rng.choice(ids) if len(ids) else -1)
    shift = rng.integers(-size // 3, size // 3 + 1, 2)
    inside = np.all([(0 <= i - s) & (i - s < size) for i, s in zip(np.indices(mask.shape), shift, strict=True)], axis=0)
    return np.roll(mask, shift, (0, 1)) & inside, np.roll(view.image, shift, (0, 1))


def _texture(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A window of an image, or a plain colour with a gradient and noise."""
    if rng.random() < 0.35:
        y, x = np.mgrid[:size, :size] / size - 0.5
        slope = rng.normal(0, 40, (2, 1, 1, 3))
        plain = rng.uniform(20, 235, 3) + slope[0] * y[..., None] + slope[1] * x[..., None]
        return (plain + rng.normal(0, rng.uniform(0, 12), (size, size, 1))).clip(0, 255).astype(np.uint8)
    side = int(rng.uniform(0.15, 0.8) * min(image.shape[:2]))
    y, x = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
    part = Image.fromarray(image[y : y + side, x : x + side])
    return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))


def random_shape(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random mask (size, size): an ellipse, a bar, a polygon, or a region with a wavy outline."""
    y, x = np.mgrid[:size, :size] - rng.uniform(0.1, 0.9, 2)[:, None, None] * size
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    a = size * np.exp(rng.uniform(np.log(0.06), np.log(0.4)))
    b = a * rng.uniform(0.5, 1)
    kind = rng.integers(4)
    if kind == 0:
        return (u / a) ** 2 + (v / b) ** 2 < 1
    if kind == 1:
        b = a * rng.uniform(0.12, 1)
        return (abs(u) < a) & (abs(v) < b)
    if kind == 2:
        normals = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
        limits = rng.uniform(0.5, 1, len(normals)) * a
        sides = zip(normals, limits, strict=True)
        inside = np.all([u * np.cos(n) + v * np.sin(n) < limit for n, limit in sides], axis=0)
        return inside & (np.hypot(u, v) < 1.5 * a)
    phi, radius = np.arctan2(v, u), 1.0
    for k in range(2, 7):
        radius = radius + rng.normal(0, 0.35 / k) * np.cos(k * phi + rng.uniform(0, 2 * np.pi))
    return np.hypot(u, v * a / b) < a * np.clip(radius, 0.2, 2)
