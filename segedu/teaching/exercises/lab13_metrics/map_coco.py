"""map_coco: the mean over classes and IoU thresholds, with COCO's rules for areas and numbers of detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.average_precision import average_precision_101_point, precision_recall_curve
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Class = dict[str, Tensor]
EVERYTHING = [0.0, 1e10]
MEDIUM = [1024.0, 9216.0]  # 32 x 32 and 96 x 96 pixels


def map_coco(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    """Mean average precision of matched detections.

    Args:
        classes: one dict per class: scores, ranks, areas (P,), matched (10, P), target_areas (N,).
        area_range: smallest and largest area of the objects that count.
        max_dets: number of detections of one class that count in one image.

    Returns:
        A number in [0, 1]; NaN if no class has an object that counts.
    """
    return _mean_of(classes, area_range, max_dets, _by_target)


def _mean_of(classes: Sequence[Class], area_range: Sequence[float], max_dets: int, judge: Callable) -> float:
    """`judge`: (matched (P,), counts (N,), inside (P,)) -> hits (P,), ignored (P,), number of objects."""
    values = []
    for c in classes:
        counts = (c["target_areas"] >= area_range[0]) & (c["target_areas"] <= area_range[1])
        if not counts.any():
            continue
        kept = c["ranks"] < max_dets
        inside = (c["areas"] >= area_range[0]) & (c["areas"] <= area_range[1])
        for matched in c["matched"]:
            hit, ignored, objects = judge(matched, counts, inside)
            curve = precision_recall_curve(c["scores"][kept], hit[kept], objects, ignored[kept])
            values.append(average_precision_101_point(*curve))
    return float(np.mean(values)) if values else float("nan")


def _by_target(matched: Tensor, counts: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, int]:
    """A matched detection counts if its object does, an unmatched one if its own area is inside."""
    hit = matched >= 0
    counted = torch.where(hit, counts[matched], inside)
    return hit & counted, ~counted, int(counts.sum())


def _class(rng: np.random.Generator, sizes: str, detections: list[tuple], first: int = 0) -> Class:
    """One class, its detections in random order.

    Args:
        rng: of areas and scores.
        sizes: of the ground-truth objects: m in the medium range, s below, l above.
        detections: by descending score: (object or -1, thresholds passed, own size, rank in its image).
        first: omits this many of the most confident.
    """
    detections = detections[first:]
    bounds = {"s": (100, 900), "m": (1200, 9000), "l": (10000, 20000)}

    def areas(of):
        return torch.tensor([float(rng.integers(*bounds[size])) for size in of], dtype=torch.float64)

    matched = np.full((10, len(detections)), -1)
    for p, (n, passed, _, _) in enumerate(detections):
        matched[:passed, p] = n
    order = rng.permutation(len(detections))
    scores = np.sort(rng.permutation(500)[: len(detections)] + 1)[::-1] / 512
    return {
        "scores": torch.from_numpy(scores[order]),
        "ranks": torch.tensor([rank for *_, rank in detections], dtype=torch.int64)[order],
        "areas": areas(size for _, _, size, _ in detections)[order],
        "matched": torch.from_numpy(matched[:, order]),
        "target_areas": areas(sizes),
    }


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Classes with all kinds of detections; a range of areas, a limit of detections, classes without an object."""
    some, many = (int(n) for n in (rng.integers(2, 5), rng.integers(6, 9)))
    one = [(-1, 0, "l", 0), (0, many, "s", 0), (-1, 0, "m", 1), (1, some, "m", 0), (2, 9, "m", 1), (3, many, "m", 2)]
    two = [(0, some, "m", 0), (-1, 0, "s", 1), (1, many, "l", 0), (-1, 0, "m", 2), (2, 10, "m", 3)]
    three = [(-1, 0, "m", 0), (0, 10, "m", 1), (1, some, "s", 0)]
    unmatched = [(-1, 0, "m", 0), (-1, 0, "s", 1)]
    a, b, c = _class(rng, "mmsm", one), _class(rng, "slmm", two), _class(rng, "mm", three)
    absent, small_only = _class(rng, "", unmatched), _class(rng, "ss", [(0, 9, "m", 0), (-1, 0, "m", 1)])
    missed = _class(rng, "m", unmatched, first=2)
    bounds = _class(rng, "mmm", [(-1, 0, "m", 0), (0, 8, "m", 0), (-1, 0, "m", 1), (1, 9, "m", 1), (2, some, "m", 2)])
    bounds["target_areas"][:2] = bounds["areas"][bounds["matched"][0] < 0] = torch.tensor(MEDIUM, dtype=torch.float64)
    core = [
        case("two classes, every size", [a, c], EVERYTHING, 100),
        case("three classes, one of them with no object", [b, absent, c], EVERYTHING, 100),
        case("a class without detections", [missed, a], EVERYTHING, 100),
    ]
    rules = [
        case("medium objects only", [a, b, small_only], MEDIUM, 100),
        case("areas of exactly the bounds", [bounds, b], MEDIUM, 100),
        case("two detections per image", [a, b], EVERYTHING, 2),
        case("no object of that size", [small_only, absent], MEDIUM, 100),
    ]
    return {"core": (2, core), "rules": (1, rules)}


right = Variants(map_coco)


def _absent(value: float) -> Callable:
    """`map_coco` with this AP for classes without an object that counts."""

    def answer(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
        values = [map_coco([c], area_range, max_dets) for c in classes]
        return float(np.nan_to_num(values, nan=value).mean())

    return answer


def _judged(judge: Callable) -> Callable:
    """`map_coco` with another rule for areas."""
    return right.instead(lambda a: _mean_of(a.classes, a.area_range, a.max_dets, judge))


def _with_entries(change: Callable[[Class], dict[str, Tensor]]) -> Callable:
    """`map_coco` with other entries of each class."""
    return right.given(classes=lambda a: [c | change(c) for c in a.classes])


def own_area(matched: Tensor, counts: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, int]:
    hit = (matched >= 0) & inside
    return hit, ~inside, max(int(counts.sum()), int(hit.sum()))  # recall is at most 1


def unmatched_always_count(matched: Tensor, counts: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, int]:
    return _by_target(matched, counts, torch.ones_like(inside))


def matched_always_count(matched: Tensor, counts: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, int]:
    return (matched >= 0) & counts[matched], (matched < 0) & ~inside, int(counts.sum())


def pooled(classes: Sequence[Class], area_range: Sequence[float], max_dets: int) -> float:
    joined = {name: torch.cat([c[name] for c in classes]) for name in ("scores", "ranks", "areas", "target_areas")}
    shifts = np.cumsum([0] + [len(c["target_areas"]) for c in classes])
    moved = [torch.where(c["matched"] >= 0, c["matched"] + int(s), -1) for c, s in zip(classes, shifts, strict=False)]
    return map_coco([{**joined, "matched": torch.cat(moved, dim=1)}], area_range, max_dets)


ABSENT = "Exclude classes without an object that counts from the sum and from the number of classes."
AREA = "A matched detection counts if its object is in the range, an unmatched one if its own area is."
DETS = "ranks is the rank of a detection in its image, 0 for the most confident: keep ranks < max_dets."

exercise = Exercise(
    name="map_coco",
    points=3,
    cases=cases,
    reference=map_coco,
    hides=["segedu.metrics.average_precision", "segedu.metrics.coco", "segedu.metrics.coco_matching"],
    wrong=[
        Wrong(
            "absent is 0",
            _absent(0.0),
            "You use AP 0 for a class without objects. Its AP is undefined, so exclude the class from the mean.",
            ABSENT,
        ),
        Wrong(
            "absent is -1",
            _absent(-1.0),
            "You use AP -1 for a class without objects. Its AP is undefined, so exclude the class from the mean.",
            ABSENT,
        ),
        Wrong(
            "absent is 1",
            _absent(1.0),
            "You use AP 1 for a class without objects. Its AP is undefined, so exclude the class from the mean.",
            ABSENT,
        ),
        Wrong(
            "only 0.5",
            _with_entries(lambda c: {"matched": c["matched"][:1]}),
            "You use only the IoU threshold 0.5, which gives AP50. COCO's AP is the mean over ten thresholds.",
            "matched has ten rows, for the IoU thresholds 0.50, 0.55, ... 0.95.",
        ),
        Wrong(
            "area of the detection",
            _judged(own_area),
            "For a matched detection you check its own area. Check the area of the object that it matches instead.",
            AREA,
        ),
        Wrong(
            "unmatched of other sizes",
            _judged(unmatched_always_count),
            "You count unmatched detections of other sizes as false positives. They should be ignored.",
            AREA,
        ),
        Wrong(
            "matched of other sizes",
            _judged(matched_always_count),
            "You count detections matched with objects of other sizes as false positives. They should be ignored.",
            AREA,
        ),
        Wrong(
            "every size",
            right.given(area_range=lambda a: EVERYTHING),
            "You ignore area_range. Only objects in this range count.",
            AREA,
        ),
        Wrong(
            "all detections",
            right.given(max_dets=lambda a: 10**6),
            "You count more than max_dets detections of an image. Keep only the max_dets most confident ones.",
            DETS,
        ),
        Wrong(
            "max_dets of the data set",
            _with_entries(lambda c: {"ranks": c["scores"].argsort(descending=True).argsort()}),
            "You keep max_dets detections of the whole class. Keep max_dets detections of each image.",
            DETS,
        ),
        Wrong(
            "one too many",
            right.given(max_dets=lambda a: a.max_dets + 1),
            "You keep one detection too many of each image. Keep at most max_dets detections.",
            DETS,
        ),
        Wrong(
            "classes pooled",
            pooled,
            "You rank the detections of all classes together. Compute AP for each class, then average over the "
            "classes.",
            "One AP for each class and threshold, then one mean over all of them.",
        ),
    ],
)
