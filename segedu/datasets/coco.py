"""COCO: 80 classes of things as polygons or run-length encodings, and panoptic targets as coloured images.

Lin et al. 2014 (arXiv 1405.0312); panoptic: Kirillov et al. 2019 (arXiv 1801.00868). The category ids
in the files have gaps (1 to 90 for 80 things; the panoptic task has 133 categories). `labels` are contiguous
from 1, in the order of the ids: `classes[label]` is the name, `category_ids[label]` the id in the files.
`to_coco` writes labelled masks in the same format.
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


def _classes_and_ids(categories: list[dict]) -> tuple[list[str], list[int]]:
    """Return the names and ids of the categories in the order of their ids, after an entry for background."""
    ordered = sorted(categories, key=lambda category: category["id"])
    return ["background", *(c["name"] for c in ordered)], [0, *(c["id"] for c in ordered)]


def _read_json(path: Path, keys: tuple[str, ...]) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"annotations is {str(path)!r}, expected a COCO JSON file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"annotations is {str(path)!r}, expected JSON: {error}") from error
    if not isinstance(content, dict) or any(key not in content for key in keys):
        raise ValueError(f"annotations is {str(path)!r}, expected the keys {', '.join(keys)}")
    return content


class CocoInstances(Dataset):
    """Images with instance masks, boxes and labels.

    Args:
        images: the folder of images, for example `val2017`.
        annotations: the file, for example `annotations/instances_val2017.json`.
        transforms: called with the sample dict.

    Each item has `image`, `boxes` (as annotated, not from the masks), `labels`, `masks`, `iscrowd` (N,) bool and, for
    evaluation, `area` (N,) float64 and `image_id`. Losses and metrics ignore crowds. Objects may
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
        self.classes, self.category_ids = _classes_and_ids(content["categories"])

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
        annotations = self.coco.imgToAnns.get(image_id, [])
        masks = [self._mask(annotation["segmentation"], size) for annotation in annotations]
        for annotation, mask in zip(annotations, masks, strict=True):
            if mask.shape != size:
                shape = tuple(mask.shape)
                raise ValueError(
                    f"annotation {annotation.get('id')} of {info['file_name']} is {shape}, expected {size}"
                )
        boxes = torch.tensor([annotation["bbox"] for annotation in annotations], dtype=torch.float32).reshape(-1, 4)
        return {
            "image": torch.from_numpy(image),
            "boxes": xywh_to_xyxy(boxes),
            "labels": torch.tensor(
                [self._label(annotation, info["file_name"]) for annotation in annotations], dtype=torch.int64
            ),
            "masks": torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool),
            "iscrowd": torch.tensor(
                [bool(annotation.get("iscrowd", 0)) for annotation in annotations], dtype=torch.bool
            ),
            "area": torch.tensor([annotation["area"] for annotation in annotations], dtype=torch.float64),
            "image_id": torch.tensor(image_id),
        }

    def _label(self, annotation: dict, file_name: str) -> int:
        category_ids = self.category_ids[1:]  # entry 0 is background, and in some files ids start at 0
        if annotation["category_id"] not in category_ids:
            problem = f"annotation {annotation.get('id')} of {file_name} has the category {annotation['category_id']}"
            raise ValueError(f"{problem}, expected one of the categories in the file: {category_ids}")
        return 1 + category_ids.index(annotation["category_id"])

    @staticmethod
    def _mask(shape: list | dict, size: tuple[int, int]) -> Tensor:
        return rle_decode(polygons_to_rle(shape, size) if isinstance(shape, list) else shape)


class CocoPanoptic(Dataset):
    """Images with panoptic targets.

    Args:
        images: the folder of images.
        segments: the folder of coloured images, for example `panoptic_val2017`.
        annotations: the file, for example `annotations/panoptic_val2017.json`.
        transforms: called with the sample dict.

    Each item has `image`, `panoptic_seg` int32 (H, W), 0 for void, and `segments_info`, dicts with `id`,
    `category_id` (as in the file), `isthing`, `iscrowd`. The files encode the id of a segment as its colour:
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
        self.annotations = content["annotations"]
        self.files = {image["id"]: image["file_name"] for image in content["images"]}
        image_ids = [annotation["image_id"] for annotation in self.annotations]
        missing = [image_id for image_id in image_ids if image_id not in self.files]
        if missing:
            raise ValueError(
                f"annotations is {str(annotations)!r}, which lists no image {missing[0]}, expected all annotated images"
            )
        self.isthing = {category["id"]: bool(category["isthing"]) for category in content["categories"]}
        self.classes, self.category_ids = _classes_and_ids(content["categories"])

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.annotations, index, self.transforms, self._read)

    def _read(self, annotation: dict) -> dict[str, Tensor]:
        image = read_image(self.images / self.files[annotation["image_id"]])
        path = self.segments / annotation["file_name"]
        colours = read_pixels(path)
        if colours.ndim != 3 or colours.shape[:2] != image.shape[1:]:
            raise ValueError(f"{path} has shape {colours.shape}, expected {(*image.shape[1:], 3)}")
        ids = colours[..., :3].astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        self._check_segments(path, annotation["segments_info"], ids)
        segments = [
            {
                "id": segment["id"],
                "category_id": segment["category_id"],
                "isthing": self.isthing[segment["category_id"]],
                "iscrowd": bool(segment.get("iscrowd", 0)),
            }
            for segment in annotation["segments_info"]
        ]
        return {
            "image": torch.from_numpy(image),
            "panoptic_seg": torch.from_numpy(ids),
            "segments_info": segments,
            "image_id": torch.tensor(annotation["image_id"]),
        }

    def _check_segments(self, path: Path, segments: list[dict], ids: np.ndarray) -> None:
        annotated, present = {segment["id"] for segment in segments}, set(np.unique(ids).tolist()) - {0}
        for missing in annotated - present:
            raise ValueError(
                f"{path} has no pixel of segment {missing}, expected all segments that the annotations list"
            )
        for extra in present - annotated:
            raise ValueError(f"{path} has pixels of segment {extra}, expected only segments that the annotations list")
        for segment in segments:
            if segment["category_id"] not in self.isthing:
                problem = f"{path} has a segment {segment['id']} of category {segment['category_id']}"
                raise ValueError(f"{problem}, expected one of the categories in the file: {sorted(self.isthing)}")


def to_coco(
    annotated: Mapping[str, Mapping[str, Tensor]], classes: Sequence[str], *, polygons: bool = False
) -> dict[str, list[dict]]:
    """Convert labelled masks to the content of a COCO `instances_*.json` file.

    Written with `json.dump`, pycocotools and `CocoInstances` can read it.

    Args:
        annotated: instances by image file name: `labels` (N,) int64, `masks` (N, H, W) bool and, for predictions,
            `scores` (N,). N may be 0; the shape of the masks still gives the size of the image.
        classes: `classes[label]` is the name of a class; the first is the background, which is not a category.
        polygons: write outlines, which are longer but editable, instead of run-length encodings.

    Returns:
        `images`, `annotations` and `categories`, with ids from 1; category ids are the labels. Boxes are tight.

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
            annotation = coco_annotation(instances["masks"][i], label, polygons=polygons)
            if "scores" in instances:
                annotation["score"] = float(instances["scores"][i])
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    categories = [{"id": label, "name": name} for label, name in enumerate(classes) if label]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_annotation(mask: Tensor, label: int, *, crowd: bool = False, polygons: bool = False) -> dict:
    """Return the COCO annotation of one object.

    Args:
        mask: (H, W) bool.
        label: `category_id`.
        crowd: whether the mask is a region of many objects, which COCO writes as uncompressed run lengths.
        polygons: write outlines instead of compressed run lengths.

    Returns:
        `category_id`, `iscrowd`, `area` in pixels, `bbox` (x, y, width, height), and `segmentation`.
    """
    segmentation = rle_encode(mask)
    if polygons and not crowd:
        segmentation = mask_outlines(mask)
    elif not crowd:
        segmentation = compress_rle(segmentation)
        segmentation["counts"] = segmentation["counts"].decode()
    box = xyxy_to_xywh(boxes_from_masks(mask[None]))[0].tolist()
    attributes = {"category_id": int(label), "iscrowd": int(crowd), "area": float(mask.sum())}
    return {**attributes, "bbox": box, "segmentation": segmentation}


def check_annotated(annotated: Mapping[str, Mapping[str, Tensor]], classes: Sequence[str]) -> None:
    """Check that `annotated` and `classes`, as in `to_coco`, can be written to a file of annotations."""
    if isinstance(classes, str) or not all(isinstance(name, str) and name.isprintable() for name in classes):
        raise TypeError(f"classes is {classes!r:.80}, expected a list of names, one for each label")
    if len(classes) < 2 or len(set(classes)) < len(classes) or not all(classes):
        raise ValueError(
            f"classes is {list(classes)!r:.80}, expected the background and at least one class, all names different"
        )
    if not isinstance(annotated, Mapping):
        raise TypeError(f"annotated has type {type(annotated).__name__}, expected a dict of instances by image name")
    if not annotated:
        raise ValueError("annotated is empty, expected the instances of at least one image")
    for name, instances in annotated.items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ValueError(f"annotated has the key {name!r}, expected the name of an image file")
        if not isinstance(instances, Mapping) or not {"labels", "masks"} <= set(instances):
            keys = list(instances) if isinstance(instances, Mapping) else type(instances).__name__
            raise ValueError(f"annotated[{name!r}] has the keys {keys}, expected labels and masks")
        _check_instances(f"annotated[{name!r}]", instances, classes)


def _check_instances(name: str, instances: Mapping[str, Tensor], classes: Sequence[str]) -> None:
    labels, masks = instances["labels"], instances["masks"]
    for key, tensor, dtype in (("labels", labels, torch.int64), ("masks", masks, torch.bool)):
        if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
            actual = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name}[{key!r}] is {actual}, expected a tensor of {dtype}")
    if masks.ndim != 3 or 0 in masks.shape[1:]:
        raise ValueError(f"{name}['masks'] has shape {tuple(masks.shape)}, expected (N, H, W), H and W at least 1")
    for key in ("labels", "scores"):
        if key in instances and instances[key].shape != (len(masks),):
            raise ValueError(f"{name}[{key!r}] has shape {tuple(instances[key].shape)}, expected ({len(masks)},)")
    unknown = [label for label in labels.tolist() if not 0 < label < len(classes)]
    if unknown:
        expected = ", ".join(f"{label} {name}" for label, name in enumerate(classes) if label)
        raise ValueError(f"{name}['labels'] has {unknown[0]}, expected labels with a name in classes: {expected:.200}")
    empty = (~masks.flatten(1).any(dim=1)).nonzero().flatten()
    if len(empty):
        raise ValueError(f"{name}['masks'][{int(empty[0])}] has no pixel, expected at least one")
