"""pq: panoptic, segmentation and recognition quality of one image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.panoptic import panoptic_quality
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Three = tuple[float, float, float]
WIDTH = 16

# Rows of 16 pixels: (target segments, predicted segments), each a list of (class, first pixel, last pixel + 1).
# Pixels of no segment are void in the target, and unlabelled in the prediction.
MATCHED = [(0, 0, 16)], [(0, 3, 16)]
HALVES = [(0, 0, 8), (0, 8, 16)], [(0, 0, 4), (0, 4, 8), (0, 8, 15)]
OTHER_CLASS = [(1, 0, 7), (2, 7, 16)], [(0, 0, 7), (2, 7, 14)]
LOOSE = [(2, 0, 10), (0, 10, 16)], [(2, 0, 5), (0, 9, 16)]
NO_MATCH = [(3, 0, 10), (1, 10, 16)], [(3, 4, 16)]
IN_VOID = [(2, 0, 6), (0, 13, 16)], [(2, 0, 11), (0, 11, 16)]  # IoU 1 and 1 without void, 6/11 and 3/5 with it
MORE_VOID = [(2, 0, 5)], [(2, 0, 12)]  # IoU 1 without void, 5/12 with it
FALSE_IN_VOID = [(1, 0, 8)], [(0, 5, 16)]  # 3 of 11 pixels are not void: not a false positive
HALF_VOID = [(1, 0, 10)], [(0, 4, 16)]  # exactly half is void: a false positive


def pq(preds: Tensor, pred_classes: Tensor, target: Tensor, target_classes: Tensor) -> Three:
    """Mean PQ, SQ and RQ over the classes that occur.

    Args:
        preds: (H, W) int64, ids of the predicted segments, 0 is unlabelled.
        pred_classes: (1 + P,) class of each id; entry 0 is not used.
        target: (H, W) int64, ids of the ground-truth segments, 0 is void.
        target_classes: (1 + N,) class of each id.

    Returns:
        PQ, SQ, RQ; NaN if no class occurs.
    """
    sides = []
    for ids, classes in ((preds, pred_classes), (target, target_classes)):
        info = [{"id": i, "category_id": int(c), "isthing": True} for i, c in enumerate(classes.tolist()) if i]
        sides.append({"panoptic_seg": ids, "segments_info": info})
    result = panoptic_quality(*sides, num_classes=10)
    return result["pq"], result["sq"], result["rq"]


def _scene(rows: list[tuple], rng: np.random.Generator) -> list[Tensor]:
    """Stack rows to an image, with random order, heights, directions and ids."""
    rows = [rows[i] for i in rng.permutation(len(rows))]
    heights, flips = rng.integers(1, 4, len(rows)), rng.integers(0, 2, len(rows))
    out = []
    for side in (1, 0):
        segments = [(r, *segment) for r, row in enumerate(rows) for segment in row[side]]
        ids = rng.permutation(len(segments)) + 1
        label_map, classes = np.zeros((len(rows), WIDTH), np.int64), np.full(len(segments) + 1, -1)
        for i, (r, category, low, high) in zip(ids, segments, strict=True):
            label_map[r, low:high], classes[i] = i, category
        label_map = np.stack([row[::-1] if flip else row for row, flip in zip(label_map, flips, strict=True)])
        out += [torch.from_numpy(np.repeat(label_map, heights, axis=0)), torch.from_numpy(classes)]
    return out


def homework() -> list[Tensor]:
    """Arguments of `pq` for the worked example of the lab: a road, two cars, a strip of void."""
    target = [[1, 1, 1, 1, 1, 1, 1, 0], [1, 2, 2, 2, 2, 1, 1, 0], [1, 2, 2, 2, 2, 3, 3, 0], [1, 1, 1, 1, 1, 3, 3, 0]]
    preds = [[1, 1, 1, 1, 1, 1, 1, 1], [1, 2, 2, 2, 1, 1, 1, 1], [1, 2, 2, 2, 1, 1, 3, 1], [1, 1, 1, 1, 1, 1, 3, 1]]
    return [torch.tensor(values) for values in (preds, [-1, 0, 1, 1], target, [-1, 0, 1, 1])]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Scenes with all kinds of pairs; predictions in void; classes and images without matches or segments."""
    nothing = torch.zeros(3, 5, dtype=torch.int64), torch.tensor([-1])
    target = _scene([MATCHED, LOOSE], rng)[2:]
    pixel, only_class = torch.ones(1, 1, dtype=torch.int64), torch.tensor([-1, int(rng.integers(0, 4))])
    core = [
        case("the scene of the homework", *homework()),
        case("three classes", *_scene([MATCHED, OTHER_CLASS, LOOSE, MATCHED], rng)),
        case("a segment predicted in two halves", *_scene([HALVES, MATCHED, OTHER_CLASS], rng)),
    ]
    void = [
        case("predictions that extend into void", *_scene([IN_VOID, MORE_VOID, MATCHED], rng)),
        case("false segments over void", *_scene([FALSE_IN_VOID, HALF_VOID, MATCHED, LOOSE], rng)),
    ]
    edge = [
        case("a class without a match", *_scene([NO_MATCH, MATCHED], rng)),
        case("nothing predicted", torch.zeros_like(target[0]), torch.tensor([-1]), *target),
        case("an image of one pixel", pixel, only_class, pixel.clone(), only_class.clone()),
        case("no segment in either map", *nothing, *(a.clone() for a in nothing)),
    ]
    return {"core": (2, core), "void": (1, void), "edge": (1, edge)}


right = Variants(pq)


def _counts(preds, pred_classes, target, target_classes, least=None, same=True, void=True, tolerated=0.5):
    """Class -> IoUs of the matched pairs, false positives, false negatives; the options are misconceptions."""
    P, N = len(pred_classes), len(target_classes)
    overlap = torch.bincount((target * P + preds).flatten(), minlength=N * P).reshape(N, P).double().numpy()
    in_void, area = overlap[0], overlap.sum(0)
    union = overlap.sum(1, keepdims=True) + area - overlap - (in_void if void else 0)
    iou = overlap / np.maximum(union, 1)
    match = iou > 0.5 if least is None else iou >= least
    if same:
        match &= (target_classes[:, None] == pred_classes).numpy()
    match[0], match[:, 0] = False, False
    false = ~match.any(0) & (in_void <= tolerated * area)
    missed = ~match.any(1)
    counts = {}
    for k in sorted({*pred_classes.tolist()[1:], *target_classes.tolist()[1:]}):
        rows, columns = (target_classes == k).numpy(), (pred_classes == k).numpy()
        counts[k] = iou[rows][match[rows]], int(false[columns].sum()), int(missed[rows].sum())
    return counts


def _mean(counts: dict, half: float = 0.5) -> Three:
    """PQ, SQ and RQ, averaged over the classes that occur."""
    rates = []
    for ious, false, missed in counts.values():
        if total := len(ious) + half * (false + missed):
            rates.append([ious.sum() / total, ious.mean() if len(ious) else 0.0, len(ious) / total])
    return tuple(np.mean(rates, axis=0).tolist()) if rates else (float("nan"),) * 3


def _counted(**options) -> Callable:
    """`pq` with other counts."""
    return right.instead(lambda a: _mean(_counts(**vars(a), **options)))


def _from_counts(mean: Callable[[dict], Three]) -> Callable:
    """`pq` with another result of the right counts."""
    return right.instead(lambda a: mean(_counts(**vars(a))))


def no_match_nan(counts: dict) -> Three:
    pq, sq, rq = _mean(counts)
    unmatched = any(not len(ious) and false + missed for ious, false, missed in counts.values())
    return (float("nan"), float("nan"), rq) if unmatched else (pq, sq, rq)


def no_match_raises(counts: dict) -> Three:
    for ious, false, missed in counts.values():
        sum(ious.tolist()) / len(ious) if false + missed else 0
    return _mean(counts)


def pooled(counts: dict) -> Three:
    if not counts:
        return _mean({})
    ious, false, missed = zip(*counts.values(), strict=True)
    return _mean({0: (np.concatenate(ious), sum(false), sum(missed))})


MATCH_HINT = (
    "A pair matches if its IoU is above 1/2 and its classes are equal. Then each segment has at most one match."
)
VOID_HINT = "Exclude void pixels (target 0) from every union. They still count in the areas of predicted segments."
EMPTY_HINT = "A class with segments but without a match has PQ, SQ and RQ 0, and counts in all three means."

exercise = Exercise(
    name="pq",
    points=4,
    cases=cases,
    reference=pq,
    kind="mask",
    hides=["segedu.metrics.panoptic", "segedu.metrics.instance"],
    wrong=[
        Wrong(
            "duplicates at one half",
            _counted(least=0.5),
            "You match at an IoU of exactly 1/2, so two halves of a segment both match it. It must be above 1/2.",
            MATCH_HINT,
        ),
        Wrong(
            "classes ignored",
            _counted(same=False),
            "You match segments of different classes. Match only segments of the same class.",
            MATCH_HINT,
        ),
        Wrong(
            "any overlap",
            _counted(least=1e-9),
            "You match every pair of segments that overlap. Their IoU must be above 1/2.",
            MATCH_HINT,
        ),
        Wrong(
            "void in the union",
            _counted(void=False),
            "You count void pixels in the union. Exclude them from it.",
            VOID_HINT,
        ),
        Wrong(
            "void not treated",
            _counted(void=False, tolerated=1.0),
            "You do not handle void. Exclude it from unions, and ignore false segments that lie mostly on it.",
            VOID_HINT,
        ),
        Wrong(
            "false over void",
            _counted(tolerated=1.0),
            "You count a false segment that lies mostly on void as a false positive. Ignore it: its content is "
            "unknown.",
            "Ignore a predicted segment without a match if more than half of its pixels are void.",
        ),
        Wrong(
            "excused too easily",
            _counted(tolerated=0.0),
            "You ignore every false segment that touches void. More than half of its pixels must be void.",
            "Exactly half is not more than half.",
        ),
        Wrong(
            "no match is NaN",
            _from_counts(no_match_nan),
            "Your means are NaN if a class has no match. Its PQ, SQ and RQ should count as 0.",
            EMPTY_HINT,
        ),
        Wrong(
            "no match raises",
            _from_counts(no_match_raises),
            "You divide by zero if a class has no match. Its PQ, SQ and RQ should count as 0.",
            EMPTY_HINT,
        ),
        Wrong(
            "no match left out",
            _from_counts(lambda counts: _mean({k: c for k, c in counts.items() if len(c[0])})),
            "You exclude classes without a match. Their segments are false positives or negatives, so they count as 0.",
            EMPTY_HINT,
        ),
        Wrong(
            "classes pooled",
            _from_counts(pooled),
            "You count the segments of all classes together. Compute PQ for each class, then average over the classes.",
            "TP, FP, FN and the sum of IoUs, once for each class.",
        ),
        Wrong(
            "full weight",
            _from_counts(lambda counts: _mean(counts, half=1.0)),
            "You give false positives and false negatives full weight. Each counts one half.",
            "RQ is the F1 score: TP / (TP + FP/2 + FN/2).",
        ),
        Wrong(
            "product of means",
            right.then(lambda out, a: (out[1] * out[2], out[1], out[2])),
            "You multiply the mean SQ by the mean RQ. PQ = SQ * RQ holds for each class, not for the means.",
            "Compute PQ for each class, then take its mean.",
        ),
        Wrong(
            "nothing is 0",
            right.then(lambda out, a: tuple(np.nan_to_num(out).tolist())),
            "You return 0 if no class occurs. There is no value to average, so return NaN.",
            "float('nan') for all three.",
        ),
    ],
)
