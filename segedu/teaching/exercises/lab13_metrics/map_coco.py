"""map_coco: the mean over classes and IoU thresholds, with COCO's rules for areas and numbers of detections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.average_precision import average_precision_101_point, precision_recall_curve
from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Class = dict[str, Tensor]
EVERYTHING = [0.0, 1e10]
MEDIUM = [1024.0, 9216.0]  # 32 x 32 and 96 x 96 pixels


def map_coco(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """Mean average precision of matched detections.

    Args:
        classes: one dict a class: scores, ranks, areas (P,), matched (10, P), target_areas (N,).
        area_range: smallest and largest area of the objects that count.
        max_dets: detections of one class that count in one image.

    Returns:
        A number in [0, 1]; NaN where no class has an object that counts.
    """
    return _mean_of(classes, area_range, max_dets)


def _mean_of(classes, area_range, max_dets, *, absent=None, thresholds=slice(None), keep=None, judge=None):
    """The right answer with one part replaced."""
    values = []
    for c in classes:
        counts = (c["target_areas"] >= area_range[0]) & (c["target_areas"] <= area_range[1])
        if not counts.any():
            values += [] if absent is None else [absent] * 10
            continue
        kept = (keep or _rank_below)(c, max_dets)
        inside = (c["areas"] >= area_range[0]) & (c["areas"] <= area_range[1])
        for matched in c["matched"][thresholds]:
            hit, ignored, objects = (judge or _by_truth)(matched, counts, inside)
            curve = precision_recall_curve(c["scores"][kept], hit[kept], objects, ignored[kept])
            values.append(average_precision_101_point(*curve))
    return float(np.mean(values)) if values else float("nan")


def _rank_below(c: Class, max_dets: int) -> Tensor:
    return c["ranks"] < max_dets


def _by_truth(matched: Tensor, counts: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, int]:
    """A matched detection counts if its object does, another one if its own area is inside."""
    hit = matched >= 0
    counted = torch.where(hit, counts[matched], inside)
    return hit & counted, ~counted, int(counts.sum())


def _class(rng: np.random.Generator, sizes: str, found: list[tuple], first: int = 0) -> Class:
    """One class.

    Args:
        rng: of areas and scores.
        sizes: of the true objects: m in the medium range, s below, l above.
        found: by falling score (object or -1, thresholds passed, own size, rank in its image).
        first: leaves out this many of the most confident.

    Returns:
        The class, its detections listed in random order.
    """
    found = found[first:]
    bounds = {"s": (100, 900), "m": (1200, 9000), "l": (10000, 20000)}

    def areas(of):
        return torch.tensor([float(rng.integers(*bounds[size])) for size in of], dtype=torch.float64)

    matched = np.full((10, len(found)), -1)
    for p, (n, passed, _, _) in enumerate(found):
        matched[:passed, p] = n
    order = rng.permutation(len(found))
    scores = np.sort(rng.permutation(500)[: len(found)] + 1)[::-1] / 512
    return {
        "scores": torch.from_numpy(scores[order]),
        "ranks": torch.tensor([rank for *_, rank in found], dtype=torch.int64)[order],
        "areas": areas(size for _, _, size, _ in found)[order],
        "matched": torch.from_numpy(matched[:, order]),
        "target_areas": areas(sizes),
    }


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Four classes of every kind of detection; a range of areas, few detections, classes without an object.

    Args:
        rng: of areas, scores and how many thresholds each detection passes.

    Returns:
        The cases by group.
    """
    some, many = (int(n) for n in (rng.integers(2, 5), rng.integers(6, 9)))
    one = [(-1, 0, "l", 0), (0, many, "s", 0), (-1, 0, "m", 1), (1, some, "m", 0), (2, 9, "m", 1), (3, many, "m", 2)]
    two = [(0, some, "m", 0), (-1, 0, "s", 1), (1, many, "l", 0), (-1, 0, "m", 2), (2, 10, "m", 3)]
    three = [(-1, 0, "m", 0), (0, 10, "m", 1), (1, some, "s", 0)]
    nothing_true = [(-1, 0, "m", 0), (-1, 0, "s", 1)]
    a, b, c = _class(rng, "mmsm", one), _class(rng, "slmm", two), _class(rng, "mm", three)
    absent, small_only = _class(rng, "", nothing_true), _class(rng, "ss", [(0, 9, "m", 0), (-1, 0, "m", 1)])
    missed = _class(rng, "m", nothing_true, first=2)
    bounds = _class(rng, "mmm", [(-1, 0, "m", 0), (0, 8, "m", 0), (-1, 0, "m", 1), (1, 9, "m", 1), (2, some, "m", 2)])
    bounds["target_areas"][:2] = bounds["areas"][bounds["matched"][0] < 0] = torch.tensor(MEDIUM, dtype=torch.float64)
    return {
        "core": (
            2,
            [
                {"name": "two classes, every size", "args": [[a, c], EVERYTHING, 100]},
                {"name": "three classes, one of them with no object", "args": [[b, absent, c], EVERYTHING, 100]},
                {"name": "a class of which nothing is detected", "args": [[missed, a], EVERYTHING, 100]},
            ],
        ),
        "rules": (
            1,
            [
                {"name": "medium objects only", "args": [[a, b, small_only], MEDIUM, 100]},
                {"name": "areas of exactly the bounds", "args": [[bounds, b], MEDIUM, 100]},
                {"name": "two detections an image", "args": [[a, b], EVERYTHING, 2]},
                {"name": "no object of that size", "args": [[small_only, absent], MEDIUM, 100]},
            ],
        ),
    }


def absent_is_zero(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """A class without an object counts 0."""
    return _mean_of(classes, area_range, max_dets, absent=0.0)


def absent_is_minus_one(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """pycocotools' mark for "no object" goes into the mean."""
    return _mean_of(classes, area_range, max_dets, absent=-1.0)


def absent_is_one(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """A class without an object counts 1."""
    return _mean_of(classes, area_range, max_dets, absent=1.0)


def half_only(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """The first threshold."""
    return _mean_of(classes, area_range, max_dets, thresholds=slice(0, 1))


def own_area(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """Every detection counts by its own area."""

    def by_own(matched, counts, inside):
        return (matched >= 0) & inside, ~inside, max(int(counts.sum()), int(((matched >= 0) & inside).sum()))

    return _mean_of(classes, area_range, max_dets, judge=by_own)


def large_is_wrong(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """Unmatched detections outside of the range are false positives."""

    def strict(matched, counts, inside):
        return _by_truth(matched, counts, torch.ones_like(inside))

    return _mean_of(classes, area_range, max_dets, judge=strict)


def other_sizes_are_wrong(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """A detection of an object outside of the range is a false positive."""

    def strict(matched, counts, inside):
        hit = (matched >= 0) & counts[matched]
        return hit, ~hit & (matched < 0) & ~inside, int(counts.sum())

    return _mean_of(classes, area_range, max_dets, judge=strict)


def every_size(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """The range of areas is not used."""
    return _mean_of(classes, EVERYTHING, max_dets)


def all_detections(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """max_dets is not used."""
    return _mean_of(classes, area_range, 10**6)


def best_of_data_set(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """The first max_dets of the class, not of each image."""

    def top(c, count):
        place = torch.argsort(torch.argsort(c["scores"], descending=True))
        return place < count

    return _mean_of(classes, area_range, max_dets, keep=top)


def one_too_many(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """<= where ranks begin with 0."""
    return _mean_of(classes, area_range, max_dets + 1)


def pooled(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """One ranking for all classes."""
    joined = {name: torch.cat([c[name] for c in classes]) for name in ("scores", "ranks", "areas", "target_areas")}
    shifts = np.cumsum([0] + [len(c["target_areas"]) for c in classes])
    moved = [torch.where(c["matched"] >= 0, c["matched"] + int(s), -1) for c, s in zip(classes, shifts, strict=False)]
    return _mean_of([{**joined, "matched": torch.cat(moved, dim=1)}], area_range, max_dets)


ABSENT_HINT = "A class without an object that counts has no AP: it is in neither the sum nor the number of classes."
AREA_HINT = "A matched detection counts if its object is in the range; an unmatched one if its own area is."
DETS_HINT = "ranks is the place in the own image, 0 for the most confident: keep ranks < max_dets."

exercise = Exercise(
    name="map_coco",
    points=3,
    cases=cases,
    reference=map_coco,
    hides=["segedu.metrics.average_precision", "segedu.metrics.coco", "segedu.metrics.coco_matching"],
    wrong=[
        Wrong("absent is 0", absent_is_zero, "You count a class without an object as AP 0.", ABSENT_HINT),
        Wrong("absent is -1", absent_is_minus_one, "You count a class without an object as AP -1.", ABSENT_HINT),
        Wrong("absent is 1", absent_is_one, "You count a class without an object as AP 1.", ABSENT_HINT),
        Wrong(
            "only 0.5",
            half_only,
            "You use the IoU threshold 0.5 only: that is AP50. COCO's AP is the mean over ten thresholds.",
            "matched has ten rows, for the IoU thresholds 0.50, 0.55, ... 0.95.",
        ),
        Wrong(
            "area of the detection",
            own_area,
            "You choose by the area of the detection: whether a match counts depends on the area of its object.",
            AREA_HINT,
        ),
        Wrong(
            "unmatched of other sizes",
            large_is_wrong,
            "You count unmatched detections of other sizes as false positives: they are left out.",
            AREA_HINT,
        ),
        Wrong(
            "matched of other sizes",
            other_sizes_are_wrong,
            "You count a detection of an object of another size as a false positive: it is left out.",
            AREA_HINT,
        ),
        Wrong("every size", every_size, "You do not use the range of areas.", AREA_HINT),
        Wrong("all detections", all_detections, "You count more than max_dets detections of an image.", DETS_HINT),
        Wrong(
            "max_dets of the data set",
            best_of_data_set,
            "You keep max_dets detections of the whole class: it is so many in each image.",
            DETS_HINT,
        ),
        Wrong("one too many", one_too_many, "You keep one detection too many of each image.", DETS_HINT),
        Wrong(
            "classes pooled",
            pooled,
            "You rank the detections of all classes together: each class has its own curve, and the mean comes last.",
            "One AP for each class and threshold, then one mean over all of them.",
        ),
    ],
)
