"""Panoptic quality (Kirillov et al., CVPR 2019, arXiv 1801.00868, equations 1 and 2).

A panoptic segmentation is a dict with ``panoptic_seg``, (H, W) integers, 0 is void, and ``segments_info``, a list with
one ``{"id", "category_id", "isthing"}`` for each id in the map; a ground-truth segment may also have ``"iscrowd"``.

A predicted and a ground-truth segment of one class match if their IoU is above 1/2. Segments do not overlap, so each
has at most one such partner, and no assignment problem has to be solved. Per class, with the matched pairs TP,

    PQ = sum of IoU over TP / (|TP| + |FP|/2 + |FN|/2) = SQ * RQ
    SQ = sum of IoU over TP / |TP|        RQ = |TP| / (|TP| + |FP|/2 + |FN|/2)

and the mean over classes is the result. Three rules of the paper's section 4:

1. Pixels that are void in the ground truth are removed from the union.
2. An unmatched predicted segment is not an FP if more than half of it is void, or crowd of its own class.
3. A crowd segment is never matched, and is not an FN.

COCO's ``panopticapi`` does the same, with one exception: if an image has several crowds of one class, it keeps only the
last of them for rule 2, where this file adds up the pixels of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.confusion import label_overlaps
from segedu.validation.numbers import check_integer
from segedu.validation.tensors import check_keys

Panoptic = Mapping[str, Any]


def panoptic_quality(preds: Panoptic, target: Panoptic, num_classes: int) -> dict[str, Any]:
    """PQ, SQ and RQ of one image. For several images, use `PanopticQuality`.

    Args:
        preds: ``{"panoptic_seg": (H, W), "segments_info": [...]}``, predicted; void pixels (0) belong to no segment.
        target: the same for the ground truth. ``"iscrowd"`` is read here only.
        num_classes: K; each ``category_id`` is in [0, K). Segments of one stuff class count as one segment.

    Returns:
        See `PanopticQuality.compute`.

    Raises:
        TypeError: an argument is not of the type above.
        ValueError: the shapes are not both (H, W), an id of the map is not in ``segments_info`` or the reverse, an
            id occurs twice in the list, a class is out of range, or a class is both thing and stuff.

    Of a car of 4 pixels, 3 are predicted (IoU 3/4); a second car is missed; a road of 2 pixels is predicted exactly.

    >>> car, road = {"category_id": 1, "isthing": True}, {"category_id": 0, "isthing": False}
    >>> target = {"panoptic_seg": torch.tensor([[1, 1, 1, 1, 2, 2, 3, 3]]),
    ...           "segments_info": [{"id": 1, **car}, {"id": 2, **car}, {"id": 3, **road}]}
    >>> preds = {"panoptic_seg": torch.tensor([[5, 5, 5, 0, 0, 0, 9, 9]]),
    ...          "segments_info": [{"id": 5, **car}, {"id": 9, **road}]}
    >>> result = panoptic_quality(preds, target, num_classes=2)
    >>> result["pq"], result["things"]["pq"], result["stuff"]["pq"]
    (0.75, 0.5, 1.0)
    >>> result["per_class"]["sq"].tolist(), result["per_class"]["false_negative"].tolist()
    ([1.0, 0.75], [0, 1])
    """
    total = PanopticQuality(num_classes)
    total.update(preds, target)
    return total.compute()


class PanopticQuality:
    """Counts of panoptic quality, accumulated over images: sum of IoU, TP, FP, FN and thing or stuff for each class.

    >>> road = [{"id": 1, "category_id": 0, "isthing": False}]
    >>> total = PanopticQuality(num_classes=1)
    >>> for predicted in ([[1, 1, 1, 1]], [[1, 1, 0, 0]]):  # the second image has IoU 1/2, so its segments do not match
    ...     preds = {"panoptic_seg": np.array(predicted), "segments_info": road}
    ...     total.update(preds, {"panoptic_seg": np.array([[1, 1, 1, 1]]), "segments_info": road})
    >>> result = total.compute()
    >>> result["pq"], result["sq"], result["rq"]
    (0.5, 1.0, 0.5)
    """

    def __init__(self, num_classes: int):
        """Start without images, with K classes; every ``category_id`` is in [0, K)."""
        check_integer("num_classes", num_classes)
        self.num_classes = int(num_classes)
        self.reset()

    def update(self, preds: Panoptic, target: Panoptic) -> None:
        """Add one image. Arguments as for `panoptic_quality`."""
        counts, is_thing = _count(preds, target, self.num_classes)
        self._add(counts, is_thing)

    def compute(self) -> dict[str, Any]:
        """Compute PQ, SQ and RQ over all images so far.

        Returns:
            ``pq``, ``sq``, ``rq``: means over the classes with TP + FP + FN > 0, and ``num_classes``, the number of
            these classes; ``things`` and ``stuff``: the same four over thing or stuff classes; ``per_class``: ``pq``,
            ``sq``, ``rq``, (K,) float64, and ``true_positive``, ``false_positive``, ``false_negative``, (K,) int64.
            A class with TP + FP + FN = 0 is NaN, as is a mean over no class. SQ of a class without TP is 0.
        """
        iou, tp, fp, fn = self._counts
        total = tp + fp / 2 + fn / 2
        present = total > 0
        nan_if_absent = torch.where(present, 0.0, torch.nan)
        quality = {
            "pq": iou / total.clamp(min=0.5) + nan_if_absent,
            "sq": iou / tp.clamp(min=1) + nan_if_absent,
            "rq": tp / total.clamp(min=0.5) + nan_if_absent,
        }
        counts = zip(("true_positive", "false_positive", "false_negative"), (tp, fp, fn), strict=True)
        return {
            **_means(quality, present),
            "things": _means(quality, present & (self._is_thing == 1)),
            "stuff": _means(quality, present & (self._is_thing == 0)),
            "per_class": {**quality, **{name: count.long() for name, count in counts}},
        }

    def reset(self) -> None:
        """Remove all images."""
        self._counts = torch.zeros(4, self.num_classes, dtype=torch.float64)  # sum of IoU, TP, FP, FN
        self._is_thing = torch.full((self.num_classes,), -1)  # 1 thing, 0 stuff, -1 not seen yet

    def merge(self, other: PanopticQuality) -> None:
        """Add the images of another accumulator, for example of another process.

        Raises:
            TypeError: `other` is not a `PanopticQuality`.
            ValueError: `other` has a different number of classes, or a class is a thing in one and stuff in the other.
        """
        if not isinstance(other, PanopticQuality):
            raise TypeError(f"other has type {type(other).__name__}, expected a PanopticQuality")
        if other.num_classes != self.num_classes:
            raise ValueError(f"other has num_classes {other.num_classes}, expected {self.num_classes}")
        self._add(other._counts, other._is_thing)

    def _add(self, counts: Tensor, is_thing: Tensor) -> None:
        self._is_thing = _combine_is_thing(self._is_thing, is_thing)
        self._counts += counts


def _count(preds: Panoptic, target: Panoptic, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sum of IoU, TP, FP and FN of one image, (4, K), and thing or stuff, (K,)."""
    pred, gt = _segments(preds, "preds", num_classes), _segments(target, "target", num_classes)
    overlap = _overlap(pred, gt)  # (1 + T, 1 + P), row 0 and column 0 are void
    void, common = overlap[0, 1:], overlap[1:, 1:]  # (P,), (T, P)
    area = overlap[:, 1:].sum(axis=0)  # (P,)
    same_class = gt.category[:, None] == pred.category  # (T, P)
    union = overlap[1:].sum(axis=1, keepdims=True) + area - common - void
    match = same_class & ~gt.crowd[:, None] & (2 * common > union)  # IoU above 1/2, in integers
    ignored = void + (common * (same_class & gt.crowd[:, None])).sum(axis=0)
    false_positive = ~match.any(axis=0) & (2 * ignored <= area)
    false_negative = ~match.any(axis=1) & ~gt.crowd
    rows, columns = np.nonzero(match)
    matched = gt.category[rows]
    iou = common[rows, columns] / union[rows, columns]
    counts = [
        np.bincount(matched, weights=iou, minlength=num_classes),
        np.bincount(matched, minlength=num_classes),
        np.bincount(pred.category[false_positive], minlength=num_classes),
        np.bincount(gt.category[false_negative], minlength=num_classes),
    ]
    return torch.from_numpy(np.stack(counts)), _combine_is_thing(pred.is_thing, gt.is_thing)


def _means(quality: dict[str, Tensor], selected: Tensor) -> dict[str, float | int]:
    means = {name: float(values[selected].mean()) for name, values in quality.items()}  # NaN without classes
    return {**means, "num_classes": int(selected.sum())}


def _combine_is_thing(first: Tensor, second: Tensor) -> Tensor:
    """Combine two records of each class: 1 thing, 0 stuff, -1 unknown."""
    conflict = torch.nonzero((first != second) & (first >= 0) & (second >= 0))
    if len(conflict):
        raise ValueError(
            f"isthing of class {int(conflict[0])} differs between segments, expected one value for each class"
        )
    return torch.maximum(first, second)


@dataclass
class _Segments:
    """One segmentation of an image: its map, and its segments in the order of the list."""

    name: str
    pixels: Any  # (H, W)
    index: dict[int, int]  # id -> index, from 1; void is 0
    category: np.ndarray  # (S,)
    crowd: np.ndarray  # (S,) bool
    is_thing: Tensor  # (K,)


def _segments(segmentation: Panoptic, name: str, num_classes: int) -> _Segments:
    check_keys(name, segmentation, ("panoptic_seg", "segments_info"))
    if not isinstance(segmentation["segments_info"], list | tuple):
        kind = type(segmentation["segments_info"]).__name__
        raise TypeError(f"{name}['segments_info'] has type {kind}, expected a list of dicts")
    index: dict[int, int] = {0: 0}
    groups: dict[tuple, int] = {}  # each thing is a group of its own; all segments of a stuff class are one group
    is_thing = np.full(num_classes, -1)
    for info in segmentation["segments_info"]:
        _check_info(info, name, num_classes)
        key, category, thing = int(info["id"]), int(info["category_id"]), int(bool(info["isthing"]))
        if key in index or key < 0:
            repeated = " twice" if key in index and key else ""
            raise ValueError(f"{name}['segments_info'] has the id {key}{repeated}, expected ids above 0, each once")
        if is_thing[category] == 1 - thing:
            raise ValueError(f"{name} has thing and stuff segments of class {category}, expected one isthing per class")
        is_thing[category] = thing
        crowd = name == "target" and bool(info.get("iscrowd", 0))
        index[key] = groups.setdefault((category, crowd, key if thing else None), len(groups) + 1)
    category, crowd = (np.array([group[i] for group in groups], dtype=kind) for i, kind in ((0, np.int64), (1, bool)))
    return _Segments(name, segmentation["panoptic_seg"], index, category, crowd, torch.from_numpy(is_thing))


def _check_info(info: Any, name: str, num_classes: int) -> None:
    if not isinstance(info, Mapping) or not {"id", "category_id", "isthing"} <= set(info):
        raise ValueError(f"{name}['segments_info'] has the entry {info!r}, expected keys id, category_id and isthing")
    for key in ("id", "category_id"):
        if not isinstance(info[key], int | np.integer):
            raise TypeError(f"{name}['segments_info'] has the {key} {info[key]!r}, expected an integer")
    if not 0 <= info["category_id"] < num_classes:
        wrong = f"segment {info['id']} with category_id {info['category_id']}"
        raise ValueError(f"{name} has a {wrong}, expected 0 to {num_classes - 1} (num_classes={num_classes})")


def _overlap(pred: _Segments, gt: _Segments) -> np.ndarray:
    """Intersection in pixels of every ground-truth segment (rows) and predicted segment (columns); index 0 is void."""
    if len(np.shape(gt.pixels)) != 2:
        raise ValueError(f"target['panoptic_seg'] has shape {tuple(np.shape(gt.pixels))}, expected (H, W)")
    pred_ids, gt_ids, counts = (values.cpu().numpy() for values in label_overlaps(pred.pixels, gt.pixels))
    overlap = np.zeros((len(gt.category) + 1, len(pred.category) + 1), dtype=np.int64)
    np.add.at(overlap, (_indices(gt_ids, gt), _indices(pred_ids, pred)), counts)
    return overlap


def _indices(ids: np.ndarray, segments: _Segments) -> np.ndarray:
    """The indices of the segments with these ids; every segment of the list must occur among them."""
    unlisted, absent = set(ids.tolist()) - set(segments.index), set(segments.index) - {0, *ids.tolist()}
    name = segments.name
    if unlisted:
        raise ValueError(f"{name}['panoptic_seg'] has the id {min(unlisted)}, expected 0 or an id of segments_info")
    if absent:
        raise ValueError(f"{name} has the segment {min(absent)} without pixels, expected at least one pixel")
    return np.array([segments.index[i] for i in ids.tolist()], dtype=np.intp)
