"""COCO's evaluation of detected boxes, masks and boundaries: the twelve metrics.

AP is the mean over IoU thresholds 0.50, 0.55, ... 0.95 and over classes of the 101-point average precision; AR is the
mean of the maximum recall. The work is divided between three files: `coco_overlap` compares boxes and masks,
`coco_matching` matches detections and computes the curves, and this file accumulates what both need over images.
`segedu.metrics.average_precision` has the same steps for one class in a readable form; `coco_files` reads COCO's JSON.
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
from segedu.validation.numbers import check_choice
from segedu.validation.tensors import check_dtype, check_integer_tensor, check_keys, check_numeric

IOU_TYPES = ("bbox", "segm", "boundary")
METRIC_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class CocoEvaluation:
    """COCO's twelve metrics, accumulated image by image.

    Per image, it stores the scores, classes and areas of the objects and the IoU of the pairs with an IoU of at least
    1/2, never a mask: 32 bytes per detection, 17 per ground-truth object and 24 per pair, whatever the image size.

    1. Per image and class, the 100 most confident detections count.
    2. A detection that is matched to a crowd, or to an object outside the area range, is ignored; so is an unmatched
       detection that is itself outside the range. The area of a mask is its number of pixels. (pycocotools uses the
       area of the box if a result has a box besides its mask; then its metrics per area range differ.)
    3. Detections with equal scores are ordered by image. pycocotools sorts images by id.
    4. A metric is NaN if there are no ground-truth objects for it. (pycocotools prints -1.)

    One of two cars is detected, by a box with IoU 0.8, which is enough at 7 of the 10 thresholds.

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
        """Start without images.

        Args:
            iou_type: "bbox", "segm" (masks), or "boundary" (the minimum of the IoU of masks and of boundaries).
            class_agnostic: a detection may match an object of any class, and 100 detections per image count
                (``useCats=0`` of pycocotools).
        """
        check_choice("iou_type", iou_type, IOU_TYPES)
        self.iou_type = iou_type
        self.class_agnostic = bool(class_agnostic)
        self.reset()

    def update(self, predictions: dict, target: dict) -> None:
        """Add an image.

        Args:
            predictions: ``labels`` (P,) integers, ``scores`` (P,), and ``boxes`` (P, 4) xyxy for boxes, otherwise
                ``masks``: (P, H, W) bool, or a list of P run lengths. Other keys are ignored.
            target: ``labels`` (N,) and ``boxes`` or ``masks``; optionally ``iscrowd`` (N,) of 0 and 1, and ``area``
                (N,), which replaces the area of the box or mask.
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
            "label": _values(predictions, "predictions", "labels", P, integer=True),
            "score": _values(predictions, "predictions", "scores", P),
        }
        targets = {
            "image": np.zeros(N, np.int64),
            "label": _values(target, "target", "labels", N, integer=True),
            "area": _values(target, "target", "area", N) if "area" in target else self._areas(shapes[1]),
            "crowd": np.zeros(N, bool),
        }
        if "iscrowd" in target:
            crowd = _values(target, "target", "iscrowd", N, integer=True)
            if ((crowd != 0) & (crowd != 1)).any():
                raise ValueError(f"target['iscrowd'] has the values {np.unique(crowd)}, expected 0 and 1")
            targets["crowd"] = crowd.astype(bool)
        self.add_images(detections, shapes[0], targets, shapes[1])

    def add_images(
        self,
        detections: dict[str, np.ndarray],
        pred_shapes: np.ndarray | Sequence[dict],
        targets: dict[str, np.ndarray],
        target_shapes: np.ndarray | Sequence[dict],
    ) -> None:
        """Add many images at once, without checks, for `coco_files`.

        Args:
            detections: arrays ``image`` (integers, ascending in the order of the images), ``label``, ``score``.
            pred_shapes: boxes (P, 4) float64, x, y, width, height; or a list of run lengths.
            targets: arrays ``image``, ``label``, ``area``, ``crowd`` (bool).
            target_shapes: boxes or run lengths.
        """
        group, target_group = self._groups(detections, targets)
        # Sort by image, then by score; equal scores keep their order, or are sorted by class if class-agnostic.
        keys = [-detections["score"], detections["image"]]
        order = np.lexsort([detections["label"], *keys] if self.class_agnostic else keys)
        rank = _rank_in_group(group[order])
        order, rank = order[rank < MAX_DETECTIONS[-1]], rank[rank < MAX_DETECTIONS[-1]]
        target_order = np.lexsort([targets["label"], targets["image"]])
        pred_shapes, target_shapes = _take(pred_shapes, order), _take(target_shapes, target_order)

        rows = np.empty(len(order), DETECTION)
        rows["label"], rows["rank"], rows["score"] = detections["label"][order], rank, detections["score"][order]
        rows["area"] = self._areas(pred_shapes)
        target_rows = np.empty(len(target_order), TARGET)
        for name in ("label", "area", "crowd"):
            target_rows[name] = targets[name][target_order]
        if self.class_agnostic:
            rows["label"], target_rows["label"] = 0, 0
        groups = group[order], target_group[target_order]
        objects = pred_shapes, groups[0], target_shapes, groups[1], target_rows["crowd"], IOU_THRESHOLDS[0]
        if self.iou_type == "bbox":
            pairs = box_pairs(*objects)
        else:
            pairs = mask_pairs(*objects, boundary=self.iou_type == "boundary")
        self._append(rows, target_rows, pairs)

    def compute(self) -> dict:
        """Compute the metrics over all images so far.

        Returns:
            The twelve metrics as floats: ``AP``, ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl`` (small: up to 32²
            pixels, large: from 96²), ``AR1``, ``AR10``, ``AR100`` (detections per image and class), ``ARs``, ``ARm``,
            ``ARl``. ``AP_per_class``: the AP of each label that has a ground-truth object. The arrays from which they
            are computed: ``labels`` (K,), ``precision`` (T, R, K, A) and ``recall`` (T, K, A, M) of pycocotools, with
            NaN instead of -1.
        """
        detections, targets, pairs = (table.rows() for table in self._tables)
        matched, ignored = match_ranks(detections, targets, pairs)
        labels, precision, recall = precision_and_recall(detections, targets, matched, ignored)
        values = [precision[..., 0], precision[0, ..., 0], precision[5, ..., 0]]
        values += [precision[..., area] for area in (1, 2, 3)]
        values += [recall[:, :, 0, m] for m in range(len(MAX_DETECTIONS))]
        values += [recall[:, :, area, -1] for area in (1, 2, 3)]
        per_class = {int(label): _mean(precision[:, :, k, 0]) for k, label in enumerate(labels)}
        result = dict(zip(METRIC_NAMES, map(_mean, values), strict=True))
        return result | {"AP_per_class": per_class, "labels": labels, "precision": precision, "recall": recall}

    def reset(self) -> None:
        """Remove all images."""
        self._tables = (_Table(DETECTION), _Table(TARGET), _Table(PAIR))

    def merge(self, other: CocoEvaluation) -> None:
        """Add the images of another accumulator, for example of another process, after those of this one.

        An image that both contain counts twice. (PyTorch's ``DistributedSampler`` repeats images to give every
        process the same number.)

        Raises:
            TypeError: `other` is not a `CocoEvaluation`.
            ValueError: `other` has a different ``iou_type`` or ``class_agnostic``.
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
        """The group of each detection and target (its image, or image and class); only equal groups are compared."""
        if self.class_agnostic:
            return detections["image"], targets["image"]
        labels, index = np.unique(np.concatenate([detections["label"], targets["label"]]), return_inverse=True)
        images = np.concatenate([detections["image"], targets["image"]])
        return tuple(np.split(images * len(labels) + index, [len(detections["label"])]))

    def _areas(self, shapes: np.ndarray | Sequence[dict]) -> np.ndarray:
        if self.iou_type == "bbox":
            return shapes[:, 2] * shapes[:, 3]
        return np.array([rle_area(rle) for rle in shapes], dtype=np.float64)


class _Table:
    """Records in one array, whose capacity doubles when it is full."""

    def __init__(self, dtype: np.dtype):
        self._array, self._count = np.empty(0, dtype), 0

    def __len__(self) -> int:
        return self._count

    def rows(self) -> np.ndarray:
        return self._array[: self._count]

    def append(self, rows: np.ndarray) -> None:
        count = self._count + len(rows)
        if count > len(self._array):
            new_array = np.empty(max(count, 2 * len(self._array)), self._array.dtype)
            new_array[: self._count] = self.rows()
            self._array = new_array
        self._array[self._count : count] = rows
        self._count = count


def _mean(values: np.ndarray) -> float:
    """Mean over all values but NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _take(shapes: np.ndarray | Sequence[dict], order: np.ndarray) -> np.ndarray | list[dict]:
    return shapes[order] if isinstance(shapes, np.ndarray) else [shapes[i] for i in order]


def _rank_in_group(groups: np.ndarray) -> np.ndarray:
    """0, 1, ... for the members of each group, in their order."""
    order = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[order], groups[order], side="left")
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - first
    return rank


def _read_shapes(objects: dict, name: str, iou_type: str) -> np.ndarray | list[dict]:
    """Boxes as (N, 4) float64 x, y, width, height, or masks as compressed run lengths."""
    key = "boxes" if iou_type == "bbox" else "masks"
    check_keys(name, objects, (key,))
    value = objects[key]
    if iou_type == "bbox":
        boxes = check_boxes(f"{name}['boxes']", value).detach().cpu().double().numpy()
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    if isinstance(value, Tensor):
        check_dtype(f"{name}['masks']", value, torch.bool, "N? H? W?")
        value = [rle_encode(mask) for mask in value.cpu()]
    if not isinstance(value, list | tuple):
        raise TypeError(
            f"{name}['masks'] has type {type(value).__name__}, expected a bool tensor (N, H, W) or run lengths"
        )
    for index, rle in enumerate(value):
        if not isinstance(rle, dict):
            raise TypeError(f"{name}['masks'][{index}] has type {type(rle).__name__}, expected a dict of run lengths")
    return [compress_rle(rle) for rle in value]


def _values(objects: dict, name: str, key: str, count: int, integer: bool = False) -> np.ndarray:
    """The tensor `key`, (count,), as int64 or float64; finite."""
    check_keys(name, objects, (key,))
    name, tensor = f"{name}['{key}']", objects[key]
    if key == "iscrowd" and isinstance(tensor, Tensor) and tensor.dtype == torch.bool:
        tensor = tensor.int()
    check = check_integer_tensor if integer else check_numeric
    check(name, tensor)
    if tensor.shape != (count,):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected ({count},), one for each object")
    values = tensor.detach().cpu().to(torch.int64 if integer else torch.float64).numpy()
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has the value {values[~np.isfinite(values)][0]}, expected finite values")
    if key == "area" and (values < 0).any():
        raise ValueError(f"{name} has the value {values.min()}, expected values of at least 0")
    return values


def _check_same_size(preds: list[dict], target: list[dict]) -> None:
    sizes = [tuple(rle["size"]) for rle in [*target, *preds]]
    for size in sizes:
        if size != sizes[0]:
            raise ValueError(f"masks have the sizes {sizes[0]} and {size}, expected one size (H, W) in an image")
