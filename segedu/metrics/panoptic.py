"""Panoptic quality (Kirillov et al., CVPR 2019, arXiv 1801.00868, equations 1 and 2).

A panoptic segmentation is a dict with ``panoptic_seg``, (H, W) integers, 0 is void, and ``segments_info``, a list
with one ``{"id", "category_id", "isthing"}`` for each id in the map; a true segment may also have ``"iscrowd"``.

A predicted and a true segment of one class match if their IoU is above 1/2. Segments do not overlap, so each has
at most one such partner: no assignment problem is left. Per class, with the matched pairs TP,

    PQ = sum of IoU over TP / (|TP| + |FP|/2 + |FN|/2) = SQ * RQ
    SQ = sum of IoU over TP / |TP|        RQ = |TP| / (|TP| + |FP|/2 + |FN|/2)

and the mean over classes is the result. Three rules of the paper's section 4:

1. Pixels that are void in the truth are taken out of the union.
2. A predicted segment without a partner is no FP if more than half of it is void, or crowd of its own class.
3. A crowd segment matches nothing, and is no FN.

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

from segedu.metrics.confusion import check_num_classes, label_overlaps

Panoptic = Mapping[str, Any]


def panoptic_quality(preds: Panoptic, target: Panoptic, num_classes: int) -> dict[str, Any]:
    """PQ, SQ and RQ of one image; for many images add them up with ``PanopticQuality``.

    Args:
        preds: ``{"panoptic_seg": (H, W), "segments_info": [...]}``, predicted; void pixels (0) belong to no segment.
        target: the same, true. ``"iscrowd"`` is read here only.
        num_classes: K; each ``category_id`` is in [0, K). Segments of one stuff class count as one segment.

    Returns:
        See ``PanopticQuality.compute``.

    Raises:
        TypeError: an argument is not of the type above.
        ValueError: the shapes are not both (H, W), an id of the map is not in ``segments_info`` or the reverse, an
            id is listed twice, a class is out of range, or a class is thing in one segment and stuff in another.

    Example:
        A car of 4 pixels of which 3 are found (IoU 3/4), a second that is missed, and a road of 2 that is found.

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
    """Counts of panoptic quality that grow image by image: four numbers and a flag for each class.

    Example:
        >>> road = [{"id": 1, "category_id": 0, "isthing": False}]
        >>> total = PanopticQuality(num_classes=1)
        >>> for predicted in ([[1, 1, 1, 1]], [[1, 1, 0, 0]]):  # the second has IoU 1/2: no match
        ...     preds = {"panoptic_seg": np.array(predicted), "segments_info": road}
        ...     total.update(preds, {"panoptic_seg": np.array([[1, 1, 1, 1]]), "segments_info": road})
        >>> result = total.compute()
        >>> result["pq"], result["sq"], result["rq"]
        (0.5, 1.0, 0.5)
    """

    def __init__(self, num_classes: int):
        """Start with no image.

        Args:
            num_classes: K. Every ``category_id`` is in [0, K).

        Raises:
            TypeError: ``num_classes`` is not an integer.
            ValueError: ``num_classes`` is below 1.
        """
        check_num_classes(num_classes)
        self.num_classes = int(num_classes)
        self.reset()

    def update(self, preds: Panoptic, target: Panoptic) -> None:
        """Add one image. Arguments and errors are those of ``panoptic_quality``.

        Args:
            preds: predicted segmentation of the image.
            target: true segmentation.
        """
        counts, is_thing = _count(preds, target, self.num_classes)
        self._add(counts, is_thing)

    def compute(self) -> dict[str, Any]:
        """The qualities of all images so far.

        Returns:
            ``pq``, ``sq``, ``rq``: means over the classes with TP + FP + FN > 0, and ``num_classes``, how many
            these are; ``things`` and ``stuff``: the same four over those classes; ``per_class``: ``pq``, ``sq``,
            ``rq``, (K,) float64, and ``true_positive``, ``false_positive``, ``false_negative``, (K,) int64.
            A class with TP + FP + FN = 0 is NaN, a mean over no class too. SQ of a class without TP is 0.
        """
        iou, hits, extra, missed = self._counts
        total = hits + extra / 2 + missed / 2
        present = total > 0
        nowhere = torch.where(present, 0.0, torch.nan)
        quality = {
            "pq": iou / total.clamp(min=0.5) + nowhere,
            "sq": iou / hits.clamp(min=1) + nowhere,
            "rq": hits / total.clamp(min=0.5) + nowhere,
        }
        counts = zip(("true_positive", "false_positive", "false_negative"), (hits, extra, missed), strict=True)
        return {
            **_means(quality, present),
            "things": _means(quality, present & (self._is_thing == 1)),
            "stuff": _means(quality, present & (self._is_thing == 0)),
            "per_class": {**quality, **{name: count.long() for name, count in counts}},
        }

    def reset(self) -> None:
        """Forget all images."""
        self._counts = torch.zeros(4, self.num_classes, dtype=torch.float64)  # sum of IoU, TP, FP, FN
        self._is_thing = torch.full((self.num_classes,), -1)  # 1 thing, 0 stuff, -1 not seen yet

    def merge(self, other: PanopticQuality) -> None:
        """Add the images of another accumulator, for instance of another process.

        Args:
            other: it is left as it is.

        Raises:
            TypeError: ``other`` is not a ``PanopticQuality``.
            ValueError: ``other`` has other classes, or a thing class is stuff there.
        """
        if not isinstance(other, PanopticQuality):
            raise TypeError(f"other has type {type(other).__name__}, expected a PanopticQuality")
        if other.num_classes != self.num_classes:
            raise ValueError(f"other has num_classes {other.num_classes}, expected {self.num_classes}")
        self._add(other._counts, other._is_thing)

    def _add(self, counts: Tensor, is_thing: Tensor) -> None:
        self._is_thing = _agreed(self._is_thing, is_thing)
        self._counts += counts


def _count(preds: Panoptic, target: Panoptic, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sum of IoU, TP, FP and FN of one image, (4, K), and thing or stuff, (K,)."""
    found, true = _segments(preds, "preds", num_classes), _segments(target, "target", num_classes)
    overlap = _overlap(found, true)  # (1 + T, 1 + P), row 0 and column 0 are void
    void, common = overlap[0, 1:], overlap[1:, 1:]  # (P,), (T, P)
    area = overlap[:, 1:].sum(axis=0)  # (P,)
    same_class = true.category[:, None] == found.category  # (T, P)
    union = overlap[1:].sum(axis=1, keepdims=True) + area - common - void
    match = same_class & ~true.crowd[:, None] & (2 * common > union)  # IoU above 1/2, in integers
    excused = void + (common * (same_class & true.crowd[:, None])).sum(axis=0)
    extra = ~match.any(axis=0) & (2 * excused <= area)
    missed = ~match.any(axis=1) & ~true.crowd
    rows, columns = np.nonzero(match)
    matched = true.category[rows]
    ratio = common[rows, columns] / union[rows, columns]
    counts = [
        np.bincount(matched, weights=ratio, minlength=num_classes),
        np.bincount(matched, minlength=num_classes),
        np.bincount(found.category[extra], minlength=num_classes),
        np.bincount(true.category[missed], minlength=num_classes),
    ]
    return torch.from_numpy(np.stack(counts)), _agreed(found.is_thing, true.is_thing)


def _means(quality: dict[str, Tensor], chosen: Tensor) -> dict[str, float | int]:
    means = {name: float(values[chosen].mean()) for name, values in quality.items()}  # of no class: NaN
    return {**means, "num_classes": int(chosen.sum())}


def _agreed(first: Tensor, second: Tensor) -> Tensor:
    """What is known of each class: 1 thing, 0 stuff, -1 nothing."""
    conflict = torch.nonzero((first != second) & (first >= 0) & (second >= 0))
    if len(conflict):
        raise ValueError(f"isthing of class {int(conflict[0])} differs between segments, expected one value a class")
    return torch.maximum(first, second)


@dataclass
class _Segments:
    """One side of one image: its map, and its segments in the order of their first place in the list."""

    name: str
    pixels: Any  # (H, W)
    place: dict[int, int]  # id -> place, from 1; void is 0
    category: np.ndarray  # (S,)
    crowd: np.ndarray  # (S,) bool
    is_thing: Tensor  # (K,)


def _segments(side: Panoptic, name: str, num_classes: int) -> _Segments:
    if not isinstance(side, Mapping) or not {"panoptic_seg", "segments_info"} <= set(side):
        given = f"the keys {sorted(map(str, side))}" if isinstance(side, Mapping) else f"type {type(side).__name__}"
        raise TypeError(f"{name} has {given}, expected a dict with panoptic_seg and segments_info")
    if not isinstance(side["segments_info"], list | tuple):
        given = type(side["segments_info"]).__name__
        raise TypeError(f"{name}'s segments_info has type {given}, expected a list of dicts")
    place: dict[int, int] = {0: 0}
    groups: dict[tuple, int] = {}  # a thing is a group by itself, a stuff class is one group
    is_thing = np.full(num_classes, -1)
    for info in side["segments_info"]:
        _check_info(info, name, num_classes)
        key, category, thing = int(info["id"]), int(info["category_id"]), int(bool(info["isthing"]))
        if key in place or key < 0:
            again = " twice" if key in place and key else ""
            raise ValueError(f"{name}'s segments_info has the id {key}{again}, expected ids above 0, each once")
        if is_thing[category] == 1 - thing:
            raise ValueError(f"{name}'s class {category} is thing and stuff, expected one isthing for a class")
        is_thing[category] = thing
        crowd = name == "target" and bool(info.get("iscrowd", 0))
        place[key] = groups.setdefault((category, crowd, key if thing else None), len(groups) + 1)
    category, crowd = (np.array([group[i] for group in groups], dtype=kind) for i, kind in ((0, np.int64), (1, bool)))
    return _Segments(name, side["panoptic_seg"], place, category, crowd, torch.from_numpy(is_thing))


def _check_info(info: Any, name: str, num_classes: int) -> None:
    if not isinstance(info, Mapping) or not {"id", "category_id", "isthing"} <= set(info):
        raise ValueError(f"{name}'s segments_info has the entry {info!r}, expected keys id, category_id and isthing")
    for key in ("id", "category_id"):
        if not isinstance(info[key], int | np.integer):
            raise TypeError(f"{name}'s segments_info has a {type(info[key]).__name__} as {key}, expected an int")
    if not 0 <= info["category_id"] < num_classes:
        given = f"segment {info['id']} has category_id {info['category_id']}"
        raise ValueError(f"{name}'s {given}, expected 0 to {num_classes - 1} (num_classes={num_classes})")


def _overlap(found: _Segments, true: _Segments) -> np.ndarray:
    """Pixels in common of every true segment (rows) and every predicted one (columns); first void."""
    if len(np.shape(true.pixels)) != 2:
        raise ValueError(f"target's panoptic_seg has shape {tuple(np.shape(true.pixels))}, expected (H, W)")
    pred_ids, true_ids, counts = (values.cpu().numpy() for values in label_overlaps(found.pixels, true.pixels))
    overlap = np.zeros((len(true.category) + 1, len(found.category) + 1), dtype=np.int64)
    np.add.at(overlap, (_places(true_ids, true), _places(pred_ids, found)), counts)
    return overlap


def _places(ids: np.ndarray, segments: _Segments) -> np.ndarray:
    """The places of the segments with these ids; every segment of the list must occur among them."""
    unlisted, absent = set(ids.tolist()) - set(segments.place), set(segments.place) - {0, *ids.tolist()}
    if unlisted:
        given = f"panoptic_seg has the id {min(unlisted)}"
        raise ValueError(f"{segments.name}'s {given}, expected 0 or an id of segments_info")
    if absent:
        raise ValueError(f"{segments.name}'s segment {min(absent)} has no pixel, expected at least one")
    return np.array([segments.place[i] for i in ids.tolist()], dtype=np.intp)
