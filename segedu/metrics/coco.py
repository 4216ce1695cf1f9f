"""COCO's evaluation of detected boxes, masks and boundaries: the twelve numbers.

AP is the mean over IoU thresholds 0.50, 0.55, ... 0.95 and over classes of the 101-point average precision, AR
the mean of the recall reached. Three files share the work: `coco_overlap` compares boxes and masks,
`coco_matching` matches and follows the curves, and this one keeps what both need from image to image.
`segedu.metrics.average_precision` shows the same steps for one class, to read; `coco_files` reads COCO's JSON.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.coco_matching import (
    DETECTION,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    TARGET,
    match_ranks,
    precision_and_recall,
)
from segedu.metrics.coco_overlap import PAIR, box_pairs, mask_pairs
from segedu.ops.masks import compress_rle, rle_area, rle_encode
from segedu.validation.boxes import check_boxes

IOU_TYPES = ("bbox", "segm", "boundary")
TWELVE = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class CocoEvaluation:
    """COCO's twelve numbers, from images that come one by one.

    Of an image it keeps the scores, classes and areas of its objects and the IoU of the pairs that overlap by half
    or more, never a mask: 32 bytes a detection, 17 a true object and 24 a pair, whatever the size of the images.

    1. Of an image and a class, the 100 most confident detections count.
    2. A detection that takes a crowd, or an object outside the area range, is ignored; so is one that takes
       nothing and is itself outside of it. The area of a mask is its pixels. (pycocotools takes the box's area
       where a result has a box beside its mask; then its numbers by area differ.)
    3. Equal scores: the image that came first comes first. pycocotools goes through images by rising id.
    4. A number for which there is no object to find is NaN. (pycocotools prints -1.)

    Example:
        Two cars, of which one is found, by a box with IoU 0.8: right at 7 of the 10 thresholds.

        >>> evaluation = CocoEvaluation()
        >>> predictions = {"boxes": torch.tensor([[0.0, 0.0, 8.0, 10.0]]), "labels": torch.tensor([3])}
        >>> predictions["scores"] = torch.tensor([0.9])
        >>> target = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0], [50, 50, 60, 60]]), "labels": torch.tensor([3, 3])}
        >>> evaluation.update(predictions, target)
        >>> result = evaluation.compute()
        >>> round(result["AP"], 4), round(result["AP50"], 4), round(result["AR100"], 4), result["APl"]
        (0.3535, 0.505, 0.35, nan)
    """

    def __init__(self, iou_type: str = "bbox", class_agnostic: bool = False):
        """Start with no image.

        Args:
            iou_type: "bbox", "segm" (masks), or "boundary" (the lesser of the IoU of masks and of boundaries).
            class_agnostic: a detection may match an object of any class, and 100 detections an image count
                (``useCats=0`` of pycocotools).

        Raises:
            ValueError: another ``iou_type``.
        """
        if iou_type not in IOU_TYPES:
            raise ValueError(f"iou_type is {iou_type!r}, expected one of {', '.join(IOU_TYPES)}")
        self.iou_type = iou_type
        self.class_agnostic = bool(class_agnostic)
        self.reset()

    def update(self, predictions: dict, target: dict) -> None:
        """Add an image.

        Args:
            predictions: ``labels`` (P,) integers, ``scores`` (P,), and ``boxes`` (P, 4) xyxy for boxes, else
                ``masks``: (P, H, W) bool, or a list of P run lengths. Other keys are left alone.
            target: ``labels`` (N,) and ``boxes`` or ``masks``; if given also ``iscrowd`` (N,) of 0 and 1 and
                ``area`` (N,), which takes the place of the area of the box or mask.

        Raises:
            TypeError: an argument is not a dict, or a value has the wrong kind.
            ValueError: a key is missing, a shape does not fit, or a score or area is not a finite number.
        """
        shapes = [
            _read_shapes(predictions, "predictions", self.iou_type),
            _read_shapes(target, "target", self.iou_type),
        ]
        if self.iou_type != "bbox":
            _check_same_size(*shapes)
        P, N = map(len, shapes)
        detections = {
            "image": np.zeros(P, np.int64),
            "label": _numbers(predictions, "predictions", "labels", P, integer=True),
            "score": _numbers(predictions, "predictions", "scores", P),
        }
        targets = {
            "image": np.zeros(N, np.int64),
            "label": _numbers(target, "target", "labels", N, integer=True),
            "area": _numbers(target, "target", "area", N) if "area" in target else self._areas(shapes[1]),
            "crowd": np.zeros(N, bool),
        }
        if "iscrowd" in target:
            crowd = _numbers(target, "target", "iscrowd", N, integer=True)
            if ((crowd != 0) & (crowd != 1)).any():
                raise ValueError(f"target['iscrowd'] has the values {np.unique(crowd)}, expected 0 and 1")
            targets["crowd"] = crowd.astype(bool)
        self.add_images(detections, shapes[0], targets, shapes[1])

    def add_images(
        self,
        detections: dict[str, np.ndarray],
        detected_shapes: np.ndarray | Sequence[dict],
        targets: dict[str, np.ndarray],
        true_shapes: np.ndarray | Sequence[dict],
    ) -> None:
        """Add many images at once; nothing is checked. `coco_files` calls it.

        Args:
            detections: arrays ``image`` (whole numbers that rise in the order of the images), ``label``, ``score``.
            detected_shapes: boxes (P, 4) float64, x, y, width, height; or a list of run lengths.
            targets: arrays ``image``, ``label``, ``area``, ``crowd`` (bool).
            true_shapes: boxes or run lengths.
        """
        group, true_group = self._groups(detections, targets)
        # Image by image, the most confident first; of equal scores the first, class by class if all classes mix.
        keys = [-detections["score"], detections["image"]]
        order = np.lexsort([detections["label"], *keys] if self.class_agnostic else keys)
        rank = _rank_in_group(group[order])
        order, rank = order[rank < MAX_DETECTIONS[-1]], rank[rank < MAX_DETECTIONS[-1]]
        true_order = np.lexsort([targets["label"], targets["image"]])
        shapes, true_shapes = _take(detected_shapes, order), _take(true_shapes, true_order)

        rows = np.empty(len(order), DETECTION)
        rows["label"], rows["rank"], rows["score"] = detections["label"][order], rank, detections["score"][order]
        rows["area"] = self._areas(shapes)
        true_rows = np.empty(len(true_order), TARGET)
        for name in ("label", "area", "crowd"):
            true_rows[name] = targets[name][true_order]
        if self.class_agnostic:
            rows["label"], true_rows["label"] = 0, 0
        overlap = (shapes, group[order], true_shapes, true_group[true_order], true_rows["crowd"], IOU_THRESHOLDS[0])
        if self.iou_type == "bbox":
            pairs = box_pairs(*overlap)
        else:
            pairs = mask_pairs(*overlap, boundary=self.iou_type == "boundary")
        self._append(rows, true_rows, pairs)

    def compute(self) -> dict:
        """The numbers of all images so far.

        Returns:
            The twelve as floats: ``AP``, ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl`` (small: up to 32² pixels,
            large: from 96²), ``AR1``, ``AR10``, ``AR100`` (detections an image and class), ``ARs``, ``ARm``,
            ``ARl``. ``AP_per_class``: the AP of each label that has a true object. And the arrays behind them:
            ``labels`` (K,), ``precision`` (T, R, K, A) and ``recall`` (T, K, A, M) of pycocotools, NaN for its -1.
        """
        detections, targets, pairs = (table.rows() for table in self._tables)
        matched, ignored = match_ranks(detections, targets, pairs)
        labels, precision, recall = precision_and_recall(detections, targets, matched, ignored)
        values = [precision[..., 0], precision[0, ..., 0], precision[5, ..., 0]]
        values += [precision[..., area] for area in (1, 2, 3)]
        values += [recall[:, :, 0, most] for most in range(len(MAX_DETECTIONS))]
        values += [recall[:, :, area, -1] for area in (1, 2, 3)]
        per_class = {int(label): _mean(precision[:, :, k, 0]) for k, label in enumerate(labels)}
        result = dict(zip(TWELVE, map(_mean, values), strict=True))
        return result | {"AP_per_class": per_class, "labels": labels, "precision": precision, "recall": recall}

    def reset(self) -> None:
        """Forget all images."""
        self._tables = (_Table(DETECTION), _Table(TARGET), _Table(PAIR))

    def merge(self, other: CocoEvaluation) -> None:
        """Add the images of another accumulator, for instance of another process, after those of this one.

        An image that both have seen counts twice. (PyTorch's ``DistributedSampler`` repeats images to fill up.)

        Args:
            other: it is left as it is.

        Raises:
            TypeError: ``other`` is not a ``CocoEvaluation``.
            ValueError: ``other`` compares other things.
        """
        if not isinstance(other, CocoEvaluation):
            raise TypeError(f"other has type {type(other).__name__}, expected a CocoEvaluation")
        ours, theirs = (self.iou_type, self.class_agnostic), (other.iou_type, other.class_agnostic)
        if ours != theirs:
            raise ValueError(f"other has (iou_type, class_agnostic) {theirs}, expected {ours}")
        self._append(*(table.rows() for table in other._tables))

    def _append(self, detections: np.ndarray, targets: np.ndarray, pairs: np.ndarray) -> None:
        pairs = pairs.copy()
        pairs["detection"] += len(self._tables[0])
        pairs["target"] += len(self._tables[1])
        for table, rows in zip(self._tables, (detections, targets, pairs), strict=True):
            table.append(rows)

    def _groups(self, detections: dict, targets: dict) -> tuple[np.ndarray, np.ndarray]:
        """A number for each image, or each image and class: only objects with the same number are compared."""
        if self.class_agnostic:
            return detections["image"], targets["image"]
        labels, place = np.unique(np.concatenate([detections["label"], targets["label"]]), return_inverse=True)
        images = np.concatenate([detections["image"], targets["image"]])
        return tuple(np.split(images * len(labels) + place, [len(detections["label"])]))

    def _areas(self, shapes: np.ndarray | Sequence[dict]) -> np.ndarray:
        if self.iou_type == "bbox":
            return shapes[:, 2] * shapes[:, 3]
        return np.array([rle_area(rle) for rle in shapes], dtype=np.float64)


class _Table:
    """Records in one array, which doubles when it is full."""

    def __init__(self, dtype: np.dtype):
        self._array, self._count = np.empty(0, dtype), 0

    def __len__(self) -> int:
        return self._count

    def rows(self) -> np.ndarray:
        return self._array[: self._count]

    def append(self, rows: np.ndarray) -> None:
        count = self._count + len(rows)
        if count > len(self._array):
            grown = np.empty(max(count, 2 * len(self._array)), self._array.dtype)
            grown[: self._count] = self.rows()
            self._array = grown
        self._array[self._count : count] = rows
        self._count = count


def _mean(values: np.ndarray) -> float:
    """Over what is defined; NaN where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _take(shapes: np.ndarray | Sequence[dict], order: np.ndarray) -> np.ndarray | list[dict]:
    return shapes[order] if isinstance(shapes, np.ndarray) else [shapes[i] for i in order]


def _rank_in_group(groups: np.ndarray) -> np.ndarray:
    """0, 1, ... for the members of each group, in the order in which they stand."""
    order = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[order], groups[order], side="left")
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - first
    return rank


def _read_shapes(objects: dict, name: str, iou_type: str) -> np.ndarray | list[dict]:
    """Boxes as (N, 4) float64 x, y, width, height, or masks as compressed run lengths."""
    if not isinstance(objects, dict):
        raise TypeError(f"{name} has type {type(objects).__name__}, expected a dict")
    key = "boxes" if iou_type == "bbox" else "masks"
    value = _value(objects, name, key)
    if iou_type == "bbox":
        boxes = check_boxes(f"{name}['boxes']", value).detach().cpu().double().numpy()
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    if isinstance(value, Tensor):
        if value.dtype != torch.bool:
            raise TypeError(f"{name}['masks'] has dtype {value.dtype}, expected bool (N, H, W)")
        if value.ndim != 3:
            raise ValueError(f"{name}['masks'] has shape {tuple(value.shape)}, expected (N, H, W)")
        value = [rle_encode(mask) for mask in value.cpu()]
    if not isinstance(value, list | tuple):
        raise TypeError(
            f"{name}['masks'] has type {type(value).__name__}, expected a bool tensor (N, H, W) or run lengths"
        )
    for index, rle in enumerate(value):
        if not isinstance(rle, dict):
            raise TypeError(f"{name}['masks'][{index}] has type {type(rle).__name__}, expected a dict of run lengths")
    return [compress_rle(rle) for rle in value]


def _numbers(objects: dict, name: str, key: str, count: int, integer: bool = False) -> np.ndarray:
    """The tensor `key`, (count,), as int64 or float64; finite."""
    value = _value(objects, name, key)
    kind = "integers" if integer else "numbers"
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}['{key}'] has type {type(value).__name__}, expected a tensor of {kind}")
    if value.is_complex() or (integer and value.is_floating_point()) or (not integer and value.dtype == torch.bool):
        raise TypeError(f"{name}['{key}'] has dtype {value.dtype}, expected {kind}")
    if value.shape != (count,):
        raise ValueError(f"{name}['{key}'] has shape {tuple(value.shape)}, expected ({count},): one for each object")
    numbers = value.detach().cpu().to(torch.int64 if integer else torch.float64).numpy()
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name}['{key}'] has the value {numbers[~np.isfinite(numbers)][0]}, expected finite numbers")
    if key == "area" and (numbers < 0).any():
        raise ValueError(f"{name}['area'] has the value {numbers.min()}, expected numbers of at least 0")
    return numbers


def _value(objects: dict, name: str, key: str) -> object:
    if key not in objects:
        raise ValueError(f"{name} has the keys {sorted(map(str, objects))}, expected also {key!r}")
    return objects[key]


def _check_same_size(preds: list[dict], target: list[dict]) -> None:
    sizes = [tuple(rle["size"]) for rle in [*target, *preds]]
    for size in sizes:
        if size != sizes[0]:
            raise ValueError(f"masks have the sizes {sizes[0]} and {size}, expected one size (H, W) in an image")
