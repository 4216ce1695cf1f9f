"""pq: panoptic, segmentation and recognition quality of one image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.panoptic import panoptic_quality
from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Three = tuple[float, float, float]
WIDTH = 16

# Rows of 16 pixels: (true segments, predicted segments), each a list of (class, first pixel, last pixel + 1).
# What no segment covers is void in the truth, and without an answer in the prediction.
FOUND = [(0, 0, 16)], [(0, 3, 16)]
HALVES = [(0, 0, 8), (0, 8, 16)], [(0, 0, 4), (0, 4, 8), (0, 8, 15)]
OTHER_CLASS = [(1, 0, 7), (2, 7, 16)], [(0, 0, 7), (2, 7, 14)]
LOOSE = [(2, 0, 10), (0, 10, 16)], [(2, 0, 5), (0, 9, 16)]
NO_MATCH = [(3, 0, 10), (1, 10, 16)], [(3, 4, 16)]
IN_VOID = [(2, 0, 6), (0, 13, 16)], [(2, 0, 11), (0, 11, 16)]  # IoU 1 and 1 without void, 6/11 and 3/5 with it
MORE_VOID = [(2, 0, 5)], [(2, 0, 12)]  # IoU 1 without void, 5/12 with it
FALSE_IN_VOID = [(1, 0, 8)], [(0, 5, 16)]  # 3 of 11 pixels are not void: no false positive
HALF_VOID = [(1, 0, 10)], [(0, 4, 16)]  # exactly half is void: a false positive


def pq(preds: Tensor, pred_classes: Tensor, target: Tensor, target_classes: Tensor) -> Three:
    """Mean PQ, SQ and RQ over the classes that occur.

    Args:
        preds: (H, W) int64, ids of the predicted segments, 0 is no answer.
        pred_classes: (1 + P,) class of each id; entry 0 is not used.
        target: (H, W) int64, ids of the true segments, 0 is void.
        target_classes: (1 + N,) class of each id.

    Returns:
        PQ, SQ, RQ; NaN where no class occurs.
    """
    sides = []
    for ids, classes in ((preds, pred_classes), (target, target_classes)):
        info = [{"id": i, "category_id": int(c), "isthing": True} for i, c in enumerate(classes.tolist()) if i]
        sides.append({"panoptic_seg": ids, "segments_info": info})
    result = panoptic_quality(*sides, num_classes=10)
    return result["pq"], result["sq"], result["rq"]


def _scene(rows: list[tuple], rng: np.random.Generator | None = None) -> list[Tensor]:
    """Stack rows to an image; with `rng`, in random order, height and direction, and with random ids."""
    rows = list(rows)
    if rng is not None:
        rows = [rows[i] for i in rng.permutation(len(rows))]
    heights = np.ones(len(rows), int) if rng is None else rng.integers(1, 4, len(rows))
    flips = np.zeros(len(rows), int) if rng is None else rng.integers(0, 2, len(rows))
    out = []
    for side in (1, 0):
        segments = [(r, *segment) for r, row in enumerate(rows) for segment in row[side]]
        ids = np.arange(len(segments)) + 1 if rng is None else rng.permutation(len(segments)) + 1
        label_map, classes = np.zeros((len(rows), WIDTH), np.int64), np.full(len(segments) + 1, -1)
        for i, (r, kind, low, high) in zip(ids, segments, strict=True):
            label_map[r, low:high], classes[i] = i, kind
        label_map = np.stack([row[::-1] if flip else row for row, flip in zip(label_map, flips, strict=True)])
        out += [torch.from_numpy(np.repeat(label_map, heights, axis=0)), torch.from_numpy(classes)]
    return out


def homework() -> list[Tensor]:
    """The scene that the lab works by hand: a road, two cars, a strip of void.

    Returns:
        The arguments of `pq`.
    """
    target = torch.tensor(
        [
            [1, 1, 1, 1, 1, 1, 1, 0],
            [1, 2, 2, 2, 2, 1, 1, 0],
            [1, 2, 2, 2, 2, 3, 3, 0],
            [1, 1, 1, 1, 1, 3, 3, 0],
        ]
    )
    preds = torch.tensor(
        [
            [1, 1, 1, 1, 1, 1, 1, 1],
            [1, 2, 2, 2, 1, 1, 1, 1],
            [1, 2, 2, 2, 1, 1, 3, 1],
            [1, 1, 1, 1, 1, 1, 3, 1],
        ]
    )
    return [preds, torch.tensor([-1, 0, 1, 1]), target, torch.tensor([-1, 0, 1, 1])]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The homework, scenes with every kind of pair; void; classes without a match, nothing predicted, nothing there.

    Args:
        rng: of order, heights, directions and ids.

    Returns:
        The cases by group.
    """
    nothing = torch.zeros(3, 5, dtype=torch.int64), torch.tensor([-1])
    only = _scene([FOUND, LOOSE], rng)
    pixel, only_class = torch.ones(1, 1, dtype=torch.int64), torch.tensor([-1, int(rng.integers(0, 4))])
    return {
        "core": (
            2,
            [
                {"name": "the scene of the homework", "args": homework()},
                {"name": "three classes", "args": _scene([FOUND, OTHER_CLASS, LOOSE, FOUND], rng)},
                {"name": "a segment predicted in two halves", "args": _scene([HALVES, FOUND, OTHER_CLASS], rng)},
            ],
        ),
        "void": (
            1,
            [
                {"name": "predictions that reach into void", "args": _scene([IN_VOID, MORE_VOID, FOUND], rng)},
                {"name": "false segments over void", "args": _scene([FALSE_IN_VOID, HALF_VOID, FOUND, LOOSE], rng)},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "a class without a match", "args": _scene([NO_MATCH, FOUND], rng)},
                {"name": "nothing predicted", "args": [torch.zeros_like(only[2]), torch.tensor([-1]), *only[2:]]},
                {"name": "an image of one pixel", "args": [pixel, only_class, pixel.clone(), only_class.clone()]},
                {"name": "nothing there and nothing predicted", "args": [*nothing, *(a.clone() for a in nothing)]},
            ],
        ),
    }


def _counts(preds, pred_classes, target, target_classes, *, least=None, same=True, void=True, excuse=0.5):
    """Class -> [IoUs of the matched pairs], false positives, false negatives; the options are misconceptions."""
    P, N = len(pred_classes), len(target_classes)
    overlap = torch.bincount((target * P + preds).flatten(), minlength=N * P).reshape(N, P).double().numpy()
    in_void, area = overlap[0], overlap.sum(0)
    union = overlap.sum(1, keepdims=True) + area - overlap - (in_void if void else 0)
    iou = overlap / np.maximum(union, 1)
    match = iou > 0.5 if least is None else iou >= least
    if same:
        match &= (target_classes[:, None] == pred_classes).numpy()
    match[0], match[:, 0] = False, False
    false = ~match.any(0) & (in_void <= excuse * area)
    missed = ~match.any(1)
    found = {}
    for k in sorted({*pred_classes.tolist()[1:], *target_classes.tolist()[1:]}):
        rows, columns = (target_classes == k).numpy(), (pred_classes == k).numpy()
        found[k] = iou[rows][match[rows]], int(false[columns].sum()), int(missed[rows].sum())
    return found


def _rates(ious: np.ndarray, false: int, missed: int, half: float = 0.5) -> np.ndarray | None:
    total = len(ious) + half * (false + missed)
    if total == 0:
        return None
    return np.array([ious.sum() / total, ious.mean() if len(ious) else 0.0, len(ious) / total])


def _mean(found: dict) -> Three:
    rates = [r for r in (_rates(*counts) for counts in found.values()) if r is not None]
    return tuple(np.mean(rates, axis=0).tolist()) if rates else (float("nan"),) * 3


def _variant(**options) -> Callable:
    def answer(preds: Tensor, pred_classes: Tensor, target: Tensor, target_classes: Tensor) -> Three:
        return _mean(_counts(preds, pred_classes, target, target_classes, **options))

    return answer


def no_match_nan(*scene: Tensor) -> Three:
    """SQ of a class without a match is 0/0, and so is its PQ = SQ * RQ; NaN reaches the mean."""
    found = _counts(*scene)
    value = _mean(found)
    lost = any(_rates(*c) is not None and not len(c[0]) for c in found.values())
    return (float("nan"), float("nan"), value[2]) if lost else value


def no_match_raises(*scene: Tensor) -> Three:
    """Divides plain numbers by 0."""
    for ious, false, missed in _counts(*scene).values():
        sum(ious.tolist()) / len(ious) if false + missed else 0
    return _mean(_counts(*scene))


def no_match_left_out(*scene: Tensor) -> Three:
    """A class without a match is not in the mean."""
    return _mean({k: c for k, c in _counts(*scene).items() if len(c[0])})


def pooled(*scene: Tensor) -> Three:
    """One count for all classes."""
    found = list(_counts(*scene).values())
    if not found:
        return _mean({})
    return _mean({0: (np.concatenate([f[0] for f in found]), sum(f[1] for f in found), sum(f[2] for f in found))})


def full_weight(*scene: Tensor) -> Three:
    """FP and FN weigh 1."""
    rates = [r for r in (_rates(*c, half=1.0) for c in _counts(*scene).values()) if r is not None]
    return tuple(np.mean(rates, axis=0).tolist()) if rates else (float("nan"),) * 3


def product_of_means(*scene: Tensor) -> Three:
    """Mean SQ times mean RQ."""
    _, sq, rq = _mean(_counts(*scene))
    return sq * rq, sq, rq


def nothing_is_zero(*scene: Tensor) -> Three:
    """0 where no class occurs."""
    return tuple(np.nan_to_num(_mean(_counts(*scene))).tolist())


MATCH_HINT = "A pair matches if its IoU is above 1/2 and its classes are equal. Then no segment has two partners."
VOID_HINT = "Void pixels (target 0) are taken out of every union. Areas of predicted segments still count them."
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
            _variant(least=0.5),
            "You match at an IoU of exactly 1/2: two halves of a segment then both match it. It must be above 1/2.",
            MATCH_HINT,
        ),
        Wrong("classes ignored", _variant(same=False), "You match segments of different classes.", MATCH_HINT),
        Wrong("any overlap", _variant(least=1e-9), "You match every pair that overlaps.", MATCH_HINT),
        Wrong("void in the union", _variant(void=False), "You count void pixels in the union.", VOID_HINT),
        Wrong(
            "void not treated",
            _variant(void=False, excuse=1.0),
            "You do not treat void at all: its pixels leave the unions, and false segments mostly on it are no FP.",
            VOID_HINT,
        ),
        Wrong(
            "false over void",
            _variant(excuse=1.0),
            "You count a false segment that lies mostly on void as a false positive: nobody knows what is there.",
            "More than half of its pixels void, and no match: it is left out.",
        ),
        Wrong(
            "excused too easily",
            _variant(excuse=0.0),
            "You excuse every false segment that touches void: more than half of it must be void.",
            "Exactly half is not more than half.",
        ),
        Wrong("no match is NaN", no_match_nan, "You let a class without a match turn the means into NaN.", EMPTY_HINT),
        Wrong("no match raises", no_match_raises, "You divide by zero in a class without a match.", EMPTY_HINT),
        Wrong(
            "no match left out",
            no_match_left_out,
            "You leave out a class without a match: its segments were missed or invented, so it counts, as 0.",
            EMPTY_HINT,
        ),
        Wrong(
            "classes pooled",
            pooled,
            "You count all classes together: PQ is computed class by class, and the mean comes last.",
            "TP, FP, FN and the sum of IoUs, once for each class.",
        ),
        Wrong(
            "full weight",
            full_weight,
            "You give false positives and false negatives full weight: each counts one half.",
            "RQ is the F1 score: TP / (TP + FP/2 + FN/2).",
        ),
        Wrong(
            "product of means",
            product_of_means,
            "You multiply mean SQ by mean RQ: PQ = SQ * RQ holds for each class, not for the means.",
            "Compute PQ for each class, then take its mean.",
        ),
        Wrong(
            "nothing is 0",
            nothing_is_zero,
            "You return 0 where no class occurs: there is nothing to have a mean of, so NaN.",
            "float('nan') for all three.",
        ),
    ],
)
