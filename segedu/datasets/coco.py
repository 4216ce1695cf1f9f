"""COCO: objects in context, with 80 things as polygons or run lengths, and panoptic truth as coloured images.

Lin et al. 2014 (arXiv 1405.0312); panoptic: Kirillov et al. 2019 (arXiv 1801.00868). The files name categories
by numbers with gaps (1 to 90 for 80 things; the panoptic task has 133 categories). `labels` number them
without gaps from 1, in the order of the file: `classes[label]` is the name, `category_ids[label]` COCO's number.
`to_coco` writes labelled masks the same way.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from pycocotools.coco import COCO
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import item_of, read_image, read_pixels
from segedu.ops.boxes import xywh_to_xyxy, xyxy_to_xywh
from segedu.ops.masks import boxes_from_masks, compress_rle, polygons_to_rle, rle_decode, rle_encode
from segedu.ops.outlines import mask_outlines


def _number(categories: list[dict]) -> tuple[list[str], list[int]]:
    """Names and COCO's numbers, with a place for background in front."""
    ordered = sorted(categories, key=lambda category: category["id"])
    return ["background", *(c["name"] for c in ordered)], [0, *(c["id"] for c in ordered)]


def _read_json(path: Path, keys: tuple[str, ...]) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"annotations is {str(path)!r}, expected a JSON file of COCO")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"annotations is {str(path)!r}, expected JSON: {error}") from error
    if not isinstance(content, dict) or any(key not in content for key in keys):
        raise ValueError(f"annotations is {str(path)!r}, expected the keys {', '.join(keys)}")
    return content


class CocoInstances(Dataset):
    """Images with instances.

    Args:
        images: the folder of images, such as `val2017`.
        annotations: the file, such as `annotations/instances_val2017.json`.
        transforms: called with the sample dict.

    Raises:
        FileNotFoundError: if the file or, on reading, an image is missing.
        ValueError: if the file is not COCO's; on reading, if an image is broken, an image or a mask is
            not of the size annotated, or a category is unknown.

    Each item has `image`, `boxes` (as annotated, not from the masks), `labels`, `masks`, `iscrowd` (N,) bool and, for
    evaluation, `area` (N,) float64 and `image_id`. Losses leave crowds out, and metrics ignore them. Objects may
    overlap, so there is no label map. An image without objects has N = 0.
    """

    def __init__(self, images: str | Path, annotations: str | Path, transforms: Callable | None = None):
        self.images, self.transforms = Path(images), transforms
        content = _read_json(Path(annotations), ("images", "annotations", "categories"))
        self.coco = COCO()
        self.coco.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports on the terminal
            self.coco.createIndex()
        self.ids = sorted(self.coco.imgs)
        self.classes, self.category_ids = _number(content["categories"])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.ids, index, self.transforms, self._read)

    def _read(self, image_id: int) -> dict[str, Tensor]:
        info = self.coco.imgs[image_id]
        size = (info["height"], info["width"])
        image = read_image(self.images / info["file_name"])
        if image.shape[1:] != size:
            raise ValueError(f"{info['file_name']} has the size {image.shape[1:]}, expected {size}, as annotated")
        truths = self.coco.imgToAnns.get(image_id, [])
        masks = [self._mask(truth["segmentation"], size) for truth in truths]
        for truth, mask in zip(truths, masks, strict=True):
            if mask.shape != size:
                shape = tuple(mask.shape)
                raise ValueError(f"annotation {truth.get('id')} of {info['file_name']} is {shape}, expected {size}")
        boxes = torch.tensor([truth["bbox"] for truth in truths], dtype=torch.float32).reshape(-1, 4)
        return {
            "image": torch.from_numpy(image),
            "boxes": xywh_to_xyxy(boxes),
            "labels": torch.tensor([self._label(truth, info["file_name"]) for truth in truths], dtype=torch.int64),
            "masks": torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool),
            "iscrowd": torch.tensor([bool(truth.get("iscrowd", 0)) for truth in truths], dtype=torch.bool),
            "area": torch.tensor([truth["area"] for truth in truths], dtype=torch.float64),
            "image_id": torch.tensor(image_id),
        }

    def _label(self, truth: dict, file_name: str) -> int:
        known = self.category_ids[1:]  # place 0 is background, and some files number from 0
        if truth["category_id"] not in known:
            given = f"annotation {truth.get('id')} of {file_name} has the category {truth['category_id']}"
            raise ValueError(f"{given}, expected one of the categories of the file: {known}")
        return 1 + known.index(truth["category_id"])

    @staticmethod
    def _mask(shape: list | dict, size: tuple[int, int]) -> Tensor:
        return rle_decode(polygons_to_rle(shape, size) if isinstance(shape, list) else shape)


class CocoPanoptic(Dataset):
    """Images with panoptic truth.

    Args:
        images: the folder of images.
        segments: the folder of coloured images, such as `panoptic_val2017`.
        annotations: the file, such as `annotations/panoptic_val2017.json`.
        transforms: called with the sample dict.

    Raises:
        FileNotFoundError: if the file or, on reading, an image is missing.
        ValueError: if the file is not COCO's; on reading, if an image is broken, a segment has no pixel, or a
            pixel or a category is of none that the file names.

    Each item has `image`, `panoptic_seg` int32 (H, W), 0 for void, and `segments_info`, dicts with `id`,
    `category_id` (COCO's number), `isthing`, `iscrowd`. In the files a segment's number is its colour,
    R + 256 G + 65536 B.
    """

    def __init__(
        self,
        images: str | Path,
        segments: str | Path,
        annotations: str | Path,
        transforms: Callable | None = None,
    ):
        self.images, self.segments, self.transforms = Path(images), Path(segments), transforms
        content = _read_json(Path(annotations), ("images", "annotations", "categories"))
        self.truths = content["annotations"]
        self.files = {image["id"]: image["file_name"] for image in content["images"]}
        lost = [truth["image_id"] for truth in self.truths if truth["image_id"] not in self.files]
        if lost:
            raise ValueError(
                f"annotations is {str(annotations)!r}, which lists no image {lost[0]}, expected all annotated"
            )
        self.isthing = {category["id"]: bool(category["isthing"]) for category in content["categories"]}
        self.classes, self.category_ids = _number(content["categories"])

    def __len__(self) -> int:
        return len(self.truths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.truths, index, self.transforms, self._read)

    def _read(self, truth: dict) -> dict[str, Tensor]:
        image = read_image(self.images / self.files[truth["image_id"]])
        path = self.segments / truth["file_name"]
        colours = read_pixels(path)
        if colours.ndim != 3 or colours.shape[:2] != image.shape[1:]:
            raise ValueError(f"{path} has shape {colours.shape}, expected {(*image.shape[1:], 3)}")
        numbers = colours[..., :3].astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        self._check_segments(path, truth["segments_info"], numbers)
        segments = [
            {
                "id": segment["id"],
                "category_id": segment["category_id"],
                "isthing": self.isthing[segment["category_id"]],
                "iscrowd": bool(segment.get("iscrowd", 0)),
            }
            for segment in truth["segments_info"]
        ]
        return {
            "image": torch.from_numpy(image),
            "panoptic_seg": torch.from_numpy(numbers),
            "segments_info": segments,
            "image_id": torch.tensor(truth["image_id"]),
        }

    def _check_segments(self, path: Path, segments: list[dict], numbers: np.ndarray) -> None:
        named, seen = {segment["id"] for segment in segments}, set(np.unique(numbers).tolist()) - {0}
        for absent in named - seen:
            raise ValueError(f"{path} has no pixel of segment {absent}, expected all that the annotations name")
        for unnamed in seen - named:
            raise ValueError(f"{path} has pixels of segment {unnamed}, expected only those that the annotations name")
        for segment in segments:
            if segment["category_id"] not in self.isthing:
                given = f"{path} has a segment {segment['id']} of category {segment['category_id']}"
                raise ValueError(f"{given}, expected one of the categories of the file: {sorted(self.isthing)}")


def to_coco(
    annotated: Mapping[str, Mapping[str, Tensor]], classes: Sequence[str], *, polygons: bool = False
) -> dict[str, list[dict]]:
    """Labelled masks as COCO's `instances_*.json`: `json.dump` it, and pycocotools and `CocoInstances` read it.

    Args:
        annotated: instances by the name of the image's file: `labels` (N,) int64, `masks` (N, H, W) bool and, of
            predictions, `scores` (N,); N may be 0, the masks say how large the image is even then.
        classes: `classes[label]` is the name; the first is the background's, which is no category.
        polygons: outlines in place of run lengths: longer, but what people can edit.

    Returns:
        `images`, `annotations` and `categories`, numbered from 1, categories by their labels. Boxes are tight.

    Raises:
        TypeError: something is of the wrong kind.
        ValueError: there is no image, a key is missing, shapes do not fit, a label has no name, or a mask no pixel.

    Example:
        >>> cat = {"labels": torch.tensor([1]), "masks": torch.tensor([[[0, 1, 1], [0, 1, 1]]]).bool()}
        >>> coco = to_coco({"a.png": cat}, ["background", "cat"], polygons=True)
        >>> coco["images"], coco["categories"]
        ([{'id': 1, 'file_name': 'a.png', 'height': 2, 'width': 3}], [{'id': 1, 'name': 'cat'}])
        >>> coco["annotations"][0]["bbox"], coco["annotations"][0]["segmentation"]
        ([1.0, 0.0, 2.0, 2.0], [[1, 0, 3, 0, 3, 2, 1, 2]])
    """
    check_annotated(annotated, classes)
    images, annotations = [], []
    for image_id, (name, instances) in enumerate(annotated.items(), start=1):
        height, width = instances["masks"].shape[1:]
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for i, label in enumerate(instances["labels"].tolist()):
            truth = coco_annotation(instances["masks"][i], label, polygons=polygons)
            if "scores" in instances:
                truth["score"] = float(instances["scores"][i])
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **truth})
    categories = [{"id": label, "name": name} for label, name in enumerate(classes) if label]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_annotation(mask: Tensor, label: int, *, crowd: bool = False, polygons: bool = False) -> dict:
    """What COCO says about one object.

    Args:
        mask: (H, W) bool.
        label: `category_id`.
        crowd: whether it is a region of many, which COCO writes as a list of run lengths.
        polygons: outlines in place of packed run lengths.

    Returns:
        `category_id`, `iscrowd`, `area` in pixels, `bbox` x, y, width, height, and `segmentation`.

    Raises:
        TypeError: mask is no bool tensor.
        ValueError: mask is not (H, W).
    """
    runs = rle_encode(mask)
    if polygons and not crowd:
        runs = mask_outlines(mask)
    elif not crowd:
        runs = compress_rle(runs)
        runs["counts"] = runs["counts"].decode()
    box = xyxy_to_xywh(boxes_from_masks(mask[None]))[0].tolist()
    about = {"category_id": int(label), "iscrowd": int(crowd), "area": float(mask.sum())}
    return {**about, "bbox": box, "segmentation": runs}


def check_annotated(annotated: Mapping[str, Mapping[str, Tensor]], classes: Sequence[str]) -> None:
    """Refuse what no file of annotations can hold.

    Args:
        annotated: as `to_coco`.
        classes: likewise.

    Raises:
        TypeError: something is of the wrong kind.
        ValueError: there is no image, a key is missing, shapes do not fit, a label has no name, or a mask no pixel.
    """
    if isinstance(classes, str) or not all(isinstance(name, str) and name.isprintable() for name in classes):
        raise TypeError(f"classes is {classes!r:.80}, expected a list of names, one for each label")
    if len(classes) < 2 or len(set(classes)) < len(classes) or not all(classes):
        raise ValueError(f"classes is {list(classes)!r:.80}, expected the background and other names, no two the same")
    if not isinstance(annotated, Mapping):
        raise TypeError(f"annotated has type {type(annotated).__name__}, expected a dict of instances by image name")
    if not annotated:
        raise ValueError("annotated is empty, expected the instances of at least one image")
    for name, instances in annotated.items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ValueError(f"annotated has the key {name!r}, expected the name of an image's file")
        if not isinstance(instances, Mapping) or not {"labels", "masks"} <= set(instances):
            keys = list(instances) if isinstance(instances, Mapping) else type(instances).__name__
            raise ValueError(f"annotated[{name!r}] has the keys {keys}, expected labels and masks")
        _check_instances(f"annotated[{name!r}]", instances, classes)


def _check_instances(name: str, instances: Mapping[str, Tensor], classes: Sequence[str]) -> None:
    labels, masks = instances["labels"], instances["masks"]
    for key, tensor, dtype in (("labels", labels, torch.int64), ("masks", masks, torch.bool)):
        if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name}[{key!r}] is of the kind {kind}, expected a tensor of {dtype}")
    if masks.ndim != 3 or 0 in masks.shape[1:]:
        raise ValueError(f"{name}['masks'] has shape {tuple(masks.shape)}, expected (N, H, W), H and W at least 1")
    for key in ("labels", "scores"):
        if key in instances and instances[key].shape != (len(masks),):
            raise ValueError(f"{name}[{key!r}] has shape {tuple(instances[key].shape)}, expected ({len(masks)},)")
    unnamed = [label for label in labels.tolist() if not 0 < label < len(classes)]
    if unnamed:
        known = ", ".join(f"{label} {name}" for label, name in enumerate(classes) if label)
        raise ValueError(f"{name}['labels'] has {unnamed[0]}, expected labels with a name in classes: {known:.200}")
    empty = (~masks.flatten(1).any(dim=1)).nonzero().flatten()
    if len(empty):
        raise ValueError(f"{name}['masks'][{int(empty[0])}] has no pixel, expected at least one")
