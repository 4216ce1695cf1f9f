"""Real images of one size, as the labs train on them: each sample is a dict with the keys of `segedu.datasets.sample`.

Every function reads the training images of a data set, or with `held_out` its test images, in a fixed random order.
Without a list of test images, those of another split are held out, see `segedu.recipes.own_images`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from tqdm.auto import tqdm

from segedu.datasets.files import read_image
from segedu.datasets.folder import SegmentationFolder
from segedu.datasets.sample import VOID, compact
from segedu.ops.boxes import xywh_to_xyxy
from segedu.ops.masks import boxes_from_masks, masks_from_label_map
from segedu.recipes.data import normalize_exposure
from segedu.recipes.own_images import read_pair, resize, split_names

PET_CLASSES = ("background", "pet")
PEDESTRIAN_CLASSES = ("background", "pedestrian")
BLOOD_CELL_CLASSES = ("background", "red cell", "white cell", "platelet")
HIPPOCAMPUS_CLASSES = ("background", "anterior", "posterior")
BORDER = 2  # value of a trimap between pet and background
LEAST_VISIBLE = 0.5  # an object of which a crop contains a smaller part of the box is dropped
ORDER = 3  # seed of the order of the images
LEAST_NUCLEI = 3  # windows with fewer nuclei are left out

Sample = dict[str, Any]


def pets(folder: Path, held_out: bool, size: int, number: int) -> list[Sample]:
    """Photographs of Oxford-IIIT Pet: the centre square, resized; the border of the trimap is ignored.

    Args:
        folder: in the layout of `segedu.datasets.folder`.
        held_out: read the test images.
        size: side of the square in pixels.
        number: of photographs, at most.

    Returns:
        Dicts of `image` (3, size, size) and `semantic` (size, size): 0 background, 1 pet, 255 ignored.
    """
    data = SegmentationFolder(folder)
    samples = []
    for name in tqdm(_names(data, held_out)[:number], "pets", unit="photo"):
        image, target = read_pair(data, name)
        rows, columns = _centre_square(image)
        semantic = target[rows, columns].long()
        semantic = semantic.where(semantic != BORDER, VOID)
        samples.append(
            {
                "image": resize(image[None, :, rows, columns], (size, size), "area")[0].clamp(0, 1),
                "semantic": resize(semantic[None, None], (size, size), "nearest")[0, 0],
            }
        )
    return samples


def nuclei(folder: Path, held_out: bool, size: tuple[int, int], number: int) -> list[Sample]:
    """Windows of microscope images, grey, with bright nuclei on a dark background.

    An image gives as many windows as fit side by side. Smaller images are left out, and windows with fewer than three
    nuclei.

    Args:
        folder: in the layout of `segedu.datasets.folder`, with label maps.
        held_out: read the test images.
        size: (height, width) of a window in pixels; nothing is resized.
        number: of windows, at most.

    Returns:
        Dicts of `image` (3, H, W), three equal channels, `semantic` (H, W), 1 in the nuclei, and `label_map` (H, W).
    """
    data, samples = SegmentationFolder(folder), []
    with tqdm(total=number, desc="nuclei", unit="window") as bar:
        for name in _names(data, held_out):
            image, label_map = read_pair(data, name)
            grey = normalize_exposure(image.mean(0, keepdim=True))
            for window in _windows(grey, size):
                labels, _ = compact(label_map[window[1:]])
                if labels.max() >= LEAST_NUCLEI:
                    image = grey[window].expand(3, -1, -1).contiguous()
                    samples.append({"image": image, "semantic": (labels > 0).long(), "label_map": labels})
                    bar.update()
                if len(samples) == number:
                    return samples
    return samples


def pedestrians(folder: Path, held_out: bool, size: int, number: int) -> list[Sample]:
    """Photographs of Penn-Fudan, resized to squares. Each training photograph is followed by its mirror image.

    Args:
        folder: in the layout of `segedu.datasets.folder`; label maps may also be in `masks`.
        held_out: read the test images.
        size: side of the square in pixels.
        number: of photographs, at most.

    Returns:
        Dicts of `image` (3, size, size), `boxes`, `labels` (all 1) and `masks` (N, size, size).
    """
    data = SegmentationFolder(folder)
    samples = []
    for name in tqdm(_names(data, held_out)[:number], "pedestrians", unit="photo"):
        image, label_map = read_pair(data, name)
        image = resize(image[None], (size, size), "area")[0].clamp(0, 1)
        label_map = compact(resize(label_map[None, None], (size, size), "nearest")[0, 0])[0]
        for mirrored in ([],) if held_out else ([], [-1]):
            masks = masks_from_label_map(label_map.flip(mirrored))
            labels = torch.ones(len(masks), dtype=torch.int64)
            boxes = boxes_from_masks(masks)
            samples.append({"image": image.flip(mirrored), "boxes": boxes, "labels": labels, "masks": masks})
    return samples


def blood_cells(folder: Path, held_out: bool, size: int, number: int) -> list[Sample]:
    """Blood smears of BCCD: the centre square, resized. Each training image is followed by its three mirror images.

    A cell of which less than half the box is in the square is left out; other boxes are clipped.

    Args:
        folder: with `images` and `boxes_<split>.json`.
        held_out: read the test images.
        size: side of the square in pixels.
        number: of smears, at most.

    Returns:
        Dicts of `image` (3, size, size), `boxes` and `labels`, which are indices into `BLOOD_CELL_CLASSES`.
    """
    split = "test" if held_out else "train"
    content = json.loads((folder / f"boxes_{split}.json").read_text(encoding="utf-8"))
    annotations: dict[int, list[dict]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    order = np.random.default_rng(ORDER).permutation(len(content["images"]))[:number]
    samples = []
    for record in tqdm([content["images"][i] for i in order], "blood cells", unit="smear"):
        image, own = torch.from_numpy(read_image(folder / "images" / record["file_name"])), annotations[record["id"]]
        rows, columns = _centre_square(image)
        boxes = xywh_to_xyxy(torch.tensor([annotation["bbox"] for annotation in own]).reshape(-1, 4).float())
        boxes, visible = _crop_boxes(boxes, rows, columns)
        labels = torch.tensor([annotation["category_id"] for annotation in own], dtype=torch.int64)[visible]
        square = resize(image[None, :, rows, columns], (size, size), "area")[0].clamp(0, 1)
        boxes = boxes * size / (rows.stop - rows.start)
        for mirrored in ([],) if held_out else ([], [-1], [-2], [-2, -1]):
            samples.append({"image": square.flip(mirrored), "boxes": _flip(boxes, mirrored, size), "labels": labels})
    return samples


def hippocampi(folder: Path, held_out: bool, number: int) -> list[Sample]:
    """Volumes around the hippocampus, in MR images of the Medical Segmentation Decathlon.

    Args:
        folder: with `train.npz` and `test.npz`, arrays `img_<name>` and `lab_<name>` with axes to the right, to the
            front and to the head.
        held_out: read the test volumes.
        number: of volumes, at most.

    Returns:
        Dicts of `mr` (D, H, W) in [0, 1], `semantic` (D, H, W), indices into `HIPPOCAMPUS_CLASSES`, and `spacing`, 1 mm
        along each axis. The axes run from the feet to the head, from the front to the back, and from the right to the
        left.
    """
    samples = []
    with np.load(folder / f"{'test' if held_out else 'train'}.npz") as arrays:
        names = sorted(key.removeprefix("img_") for key in arrays if key.startswith("img_"))
        for name in np.random.default_rng(ORDER).permutation(names)[:number]:
            image, labels = (
                torch.from_numpy(np.ascontiguousarray(arrays[f"{kind}_{name}"].transpose(2, 1, 0)[:, ::-1, ::-1]))
                for kind in ("img", "lab")
            )
            samples.append({"mr": image.float() / 255, "semantic": labels.long(), "spacing": (1.0, 1.0, 1.0)})
    return samples


def stack_volumes(volumes: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Pad volumes with 0 on both sides of each axis, or crop them there, to one shape (D, H, W); stack them."""
    stacked = []
    for volume in volumes:
        missing = [new - old for new, old in zip(shape, volume.shape, strict=True)]
        sides = [side for n in reversed(missing) for side in (n // 2, n - n // 2)]
        stacked.append(pad(volume, sides))  # a negative side is cropped
    return torch.stack(stacked)


def _names(data: SegmentationFolder, held_out: bool) -> list[str]:
    """The names of the training or of the held-out images, in a fixed random order."""
    splits = split_names(data)
    chosen = splits.pop("train")
    if held_out:
        chosen = splits.get("test") or next(iter(splits.values()))
    return np.random.default_rng(ORDER).permutation(sorted(chosen)).tolist()


def _centre_square(image: Tensor) -> tuple[slice, slice]:
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return slice(top, top + side), slice(left, left + side)


def _windows(image: Tensor, size: tuple[int, int]) -> list[tuple[slice, slice, slice]]:
    """Indices of the windows of an image (C, H, W) that fit side by side."""
    tops, lefts = (range(0, full - part + 1, part) for full, part in zip(image.shape[1:], size, strict=True))
    return [(slice(None), slice(y, y + size[0]), slice(x, x + size[1])) for y in tops for x in lefts]


def _crop_boxes(boxes: Tensor, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
    """Boxes (M, 4) of the crop, and which of the N boxes are visible enough, (N,) bool."""
    offset = torch.tensor([columns.start, rows.start] * 2)
    limits = torch.tensor([columns.stop, rows.stop] * 2) - offset
    cropped = (boxes - offset).clamp(min=0).minimum(limits.float())
    area, visible_area = ((b[:, 2:] - b[:, :2]).prod(dim=1) for b in (boxes, cropped))
    visible = visible_area >= LEAST_VISIBLE * area
    return cropped[visible], visible


def _flip(boxes: Tensor, axes: list[int], size: int) -> Tensor:
    """Boxes (N, 4) of an image that was flipped along these axes, -1 for left to right and -2 for upside down."""
    left, top, right, bottom = boxes.unbind(1)
    if -1 in axes:
        left, right = size - right, size - left
    if -2 in axes:
        top, bottom = size - bottom, size - top
    return torch.stack([left, top, right, bottom], dim=1)
