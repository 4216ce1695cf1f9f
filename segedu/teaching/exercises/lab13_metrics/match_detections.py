"""match_detections: which detections of an image are right, wrong, or not counted?"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from segedu.metrics import average_precision
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def match_detections(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """Outcome of each detection of one image and one class, as COCO counts it.

    Args:
        iou: (P, N) IoU of each detection with each true object.
        scores: (P,) confidence, no two equal; in any order.
        iscrowd: (N,) bool.
        iou_threshold: at least this is enough.

    Returns:
        (P,) int64: 1 true positive, 0 false positive, -1 not counted.
    """
    order = torch.argsort(scores, descending=True)
    matched, ignored = average_precision.match_detections(iou[order], iscrowd, iou_threshold)
    outcome = torch.zeros(len(scores), dtype=torch.int64)
    outcome[order] = torch.where(ignored, -1, (matched >= 0).long())
    return outcome


def _image(
    rng: np.random.Generator, rows: list[dict], ranks: list[int], objects: int, crowd: int = -1, column: int = 0
) -> list:
    """One image: strong overlaps by row (object -> tenths of IoU), confidence by rank, the rest below 0.3.

    The objects come in any order, but a crowd in the given column.
    """
    iou = rng.integers(0, 19, (len(rows), objects)) / 64
    for p, strong in enumerate(rows):
        for n, tenths in strong.items():
            iou[p, n] = tenths / 10 + rng.integers(0, 5) / 64  # bands of 0.0625 that do not touch
    scores = np.sort(rng.permutation(90)[: len(rows)] + 10)[::-1] / 128
    columns = rng.permutation(objects)
    if crowd >= 0:
        columns = np.insert(columns[columns != crowd], column, crowd)
    iscrowd = np.arange(objects) == crowd
    arrays = iou[:, columns], scores[np.array(ranks)].copy(), iscrowd[columns]
    return [torch.from_numpy(a) for a in arrays]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Duplicates, orders of every kind, second choices; crowds; an IoU at the threshold, no object, no detection.

    Args:
        rng: of overlaps, scores and the order of objects.

    Returns:
        The cases by group.
    """
    twice = _image(rng, [{0: 9}, {0: 7}, {1: 8}], [2, 0, 1], 3)
    orders = _image(rng, [{0: 6}, {0: 8}, {1: 6}, {1: 9}], [3, 0, 1, 2], 2)
    choices = _image(rng, [{0: 8, 1: 7}, {2: 9, 3: 5.5}, {0: 6}, {2: 8, 3: 6.5}], [1, 0, 3, 2], 5)
    crowd = _image(rng, [{2: 9}, {2: 8}, {0: 6, 2: 9}, {0: 7, 2: 6}, {1: 8}], [3, 2, 0, 1, 4], 3, crowd=2)
    last = _image(rng, [{}, {0: 7}, {2: 8}, {2: 6, 1: 8}, {2: 9}], [0, 4, 2, 3, 1], 3, crowd=2, column=2)
    exact = _image(rng, [{0: 6}, {1: 8}, {1: 6}], [0, 1, 2], 2)
    exact[0][exact[0] > 0.5] = torch.tensor([0.5, 0.75, 0.5], dtype=torch.float64)
    none = torch.zeros(2, 0, dtype=torch.float64), exact[1][:2].clone(), torch.zeros(0, dtype=torch.bool)
    return {
        "core": (
            2,
            [
                {"name": "two detections of one object", "args": [*twice, 0.5]},
                {"name": "four detections in another order", "args": [*orders, 0.5]},
                {"name": "detections that overlap two objects", "args": [*choices, 0.5]},
            ],
        ),
        "crowd": (
            1,
            [
                {"name": "an image with a crowd", "args": [*crowd, 0.5]},
                {"name": "a crowd, and a detection of nothing", "args": [*last, 0.5]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "an IoU of exactly the threshold", "args": [*exact, 0.5]},
                {"name": "a threshold of 0.75", "args": [*(a.clone() for a in exact), 0.75]},
                {"name": "no true object", "args": [*none, 0.5]},
                {"name": "no detection", "args": [exact[0][:0], exact[1][:0], exact[2], 0.5]},
            ],
        ),
    }


def _greedy(iou, order, iscrowd, least, *, reuse=False, crowd_once=False, prefer=True, best_only=False, first=()):
    """Matches one after the other; the options are the misconceptions."""
    taken, outcome = set(first), torch.zeros(len(iou), dtype=torch.int64)
    for p in order:

        def open_to(n):
            return n not in taken or reuse or (bool(iscrowd[n]) and not crowd_once)

        able = [n for n in range(iou.shape[1]) if iou[p, n] >= least and (best_only or open_to(n))]
        if not able:
            continue
        best = max(able, key=lambda n: (prefer and not iscrowd[n], float(iou[p, n])))
        if open_to(best):
            taken.add(best)
            outcome[p] = -1 if iscrowd[best] else 1
    return outcome


def _by_score(scores: Tensor) -> list[int]:
    return torch.argsort(scores, descending=True).tolist()


def taken_twice(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """Every detection that overlaps enough is right."""
    return _greedy(iou, _by_score(scores), iscrowd, iou_threshold, reuse=True)


def by_iou(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """The best overlap chooses first."""
    real = iou[:, ~iscrowd].max(1).values if (~iscrowd).any() else scores
    return _greedy(iou, _by_score(real), iscrowd, iou_threshold)


def as_given(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """The scores are not used."""
    return _greedy(iou, range(len(iou)), iscrowd, iou_threshold)


def in_ranked_order(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """The outcomes by falling score."""
    return match_detections(iou, scores, iscrowd, iou_threshold)[_by_score(scores)]


def least_confident(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """Sorted the wrong way round."""
    return _greedy(iou, _by_score(-scores), iscrowd, iou_threshold)


def best_only(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """Looks at the object of largest IoU only, taken or not."""
    return _greedy(iou, _by_score(scores), iscrowd, iou_threshold, best_only=True)


def argmax_only(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """iou[p].argmax(), crowd or not, taken or not."""
    return _greedy(iou, _by_score(scores), iscrowd, iou_threshold, prefer=False, best_only=True, crowd_once=True)


def overlap_is_enough(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """(iou >= t).any(1): no matching at all."""
    return (iou >= iou_threshold).any(dim=1).long()


def assigned(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """As many pairs as possible, by the Hungarian algorithm."""
    real = torch.nonzero(~iscrowd)[:, 0]
    enough = (iou[:, real] >= iou_threshold).numpy()
    rows, columns = linear_sum_assignment(enough, maximize=True)
    hits = rows[enough[rows, columns]]
    outcome = _greedy(iou, range(len(iou)), iscrowd, iou_threshold, first=real.tolist())
    outcome[torch.as_tensor(hits, dtype=torch.int64)] = 1
    return outcome


def crowd_is_wrong(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """Throws the crowds away: what lies on them is false."""
    return _greedy(iou[:, ~iscrowd], _by_score(scores), iscrowd[~iscrowd], iou_threshold)


def crowd_is_right(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """A crowd is an object like any other."""
    return _greedy(iou, _by_score(scores), torch.zeros_like(iscrowd), iou_threshold)


def crowd_once(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """A crowd can be taken once."""
    return _greedy(iou, _by_score(scores), iscrowd, iou_threshold, crowd_once=True)


def crowd_competes(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """Takes the largest IoU, be it of a crowd."""
    return _greedy(iou, _by_score(scores), iscrowd, iou_threshold, prefer=False)


def strictly_above(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """> in place of >=."""
    return _greedy(iou, _by_score(scores), iscrowd, np.nextafter(iou_threshold, 2))


CROWD_HINT = (
    "First look among the real objects that are free. Only if none is good enough look at the crowds; who finds one "
    "there is not counted, and the crowd stays free."
)
ORDER_HINT = "Sort by falling score, match in that order, and write each outcome to the place of its detection."

exercise = Exercise(
    name="match_detections",
    points=4,
    cases=cases,
    reference=match_detections,
    kind="mask",
    hides=["segedu.metrics.average_precision", "segedu.metrics.coco", "segedu.metrics.coco_matching"],
    wrong=[
        Wrong(
            "taken twice",
            taken_twice,
            "You let several detections take the same object: the second one is a false positive.",
            "Keep a list of the objects that are still free.",
        ),
        Wrong(
            "order by IoU",
            by_iou,
            "You let the detection with the largest IoU choose first: the most confident one chooses first.",
            ORDER_HINT,
        ),
        Wrong(
            "answers in ranked order",
            in_ranked_order,
            "Your outcomes stand in the order of the scores: entry p belongs to row p.",
            "Write the outcome of detection p to place p, whenever its turn comes.",
        ),
        Wrong(
            "order as given",
            as_given,
            "You match in the order of the rows: the most confident detection chooses first.",
            ORDER_HINT,
        ),
        Wrong(
            "least confident first",
            least_confident,
            "You let the least confident detection choose first.",
            "argsort sorts upwards unless you say otherwise.",
        ),
        Wrong(
            "best object only",
            best_only,
            "You look only at the object of largest IoU: if it is taken, another free one may be good enough.",
            "Leave out the taken objects before you look for the largest IoU. (VOC's own program does as you did.)",
        ),
        Wrong(
            "argmax only",
            argmax_only,
            "You take the column of largest IoU as it is: taken objects and crowds must be looked at apart.",
            "Leave out what is taken, look among real objects first, and let a crowd never be taken.",
        ),
        Wrong(
            "no matching",
            overlap_is_enough,
            "You call every detection right that overlaps enough: an object is taken once, a crowd never counts.",
            "Go through the detections by falling score, and keep a list of the objects that are still free.",
        ),
        Wrong(
            "optimal matching",
            assigned,
            "You look for the matching with the most pairs: AP matches greedily, one detection after the other.",
            "A confident detection may take the only object that a later one could have had. It stays that way.",
        ),
        Wrong(
            "crowd as false positive",
            crowd_is_wrong,
            "You count detections on a crowd as false positives: they are not counted at all.",
            CROWD_HINT,
        ),
        Wrong(
            "crowd as object",
            crowd_is_right,
            "You treat a crowd as an object to be found: a detection on it is not counted, and it is never taken.",
            CROWD_HINT,
        ),
        Wrong(
            "crowd taken once",
            crowd_once,
            "You let a crowd be taken once: it stands for many objects and never counts as taken.",
            CROWD_HINT,
        ),
        Wrong(
            "crowd competes",
            crowd_competes,
            "You let a crowd compete with real objects: a free real object that is good enough comes first.",
            CROWD_HINT,
        ),
        Wrong(
            "strictly above",
            strictly_above,
            "You ask for an IoU above the threshold: an IoU equal to it is enough.",
            "Compare with >=. (Panoptic quality, later in this lab, asks for more than one half.)",
        ),
    ],
)  # fmt: skip
