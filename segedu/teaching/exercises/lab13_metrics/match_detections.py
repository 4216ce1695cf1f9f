"""match_detections: which detections of an image are true positives, false positives, or not counted?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from segedu.metrics import average_precision
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def match_detections(iou: Tensor, scores: Tensor, iscrowd: Tensor, iou_threshold: float) -> Tensor:
    """Outcome of each detection of one image and one class, as COCO counts it.

    Args:
        iou: (P, N) IoU of each detection with each ground-truth object.
        scores: (P,) confidence, no two equal; in any order.
        iscrowd: (N,) bool.
        iou_threshold: an IoU of at least this is enough.

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
    """One image: large IoUs by row (object -> tenths), the others below 0.3; `ranks` of the scores.

    The objects are in random order, except that a crowd is in the given column.
    """
    iou = rng.integers(0, 19, (len(rows), objects)) / 64
    for p, large in enumerate(rows):
        for n, tenths in large.items():
            iou[p, n] = tenths / 10 + rng.integers(0, 5) / 64  # bands of 0.0625 that do not touch
    scores = np.sort(rng.permutation(90)[: len(rows)] + 10)[::-1] / 128
    columns = rng.permutation(objects)
    if crowd >= 0:
        columns = np.insert(columns[columns != crowd], column, crowd)
    iscrowd = np.arange(objects) == crowd
    return [torch.from_numpy(a) for a in (iou[:, columns], scores[np.array(ranks)].copy(), iscrowd[columns])]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Duplicates, detections in several orders, detections that overlap two objects; crowds; exact thresholds."""
    twice = _image(rng, [{0: 9}, {0: 7}, {1: 8}], [2, 0, 1], 3)
    orders = _image(rng, [{0: 6}, {0: 8}, {1: 6}, {1: 9}], [3, 0, 1, 2], 2)
    choices = _image(rng, [{0: 8, 1: 7}, {2: 9, 3: 5.5}, {0: 6}, {2: 8, 3: 6.5}], [1, 0, 3, 2], 5)
    crowd = _image(rng, [{2: 9}, {2: 8}, {0: 6, 2: 9}, {0: 7, 2: 6}, {1: 8}], [3, 2, 0, 1, 4], 3, crowd=2)
    last = _image(rng, [{}, {0: 7}, {2: 8}, {2: 6, 1: 8}, {2: 9}], [0, 4, 2, 3, 1], 3, crowd=2, column=2)
    exact = _image(rng, [{0: 6}, {1: 8}, {1: 6}], [0, 1, 2], 2)
    exact[0][exact[0] > 0.5] = torch.tensor([0.5, 0.75, 0.5], dtype=torch.float64)
    none = torch.zeros(2, 0, dtype=torch.float64), exact[1][:2].clone(), torch.zeros(0, dtype=torch.bool)
    core = [
        case("two detections of one object", *twice, 0.5),
        case("four detections in another order", *orders, 0.5),
        case("detections that overlap two objects", *choices, 0.5),
    ]
    crowds = [
        case("an image with a crowd", *crowd, 0.5),
        case("a crowd, and a detection without an object", *last, 0.5),
    ]
    edge = [
        case("an IoU of exactly the threshold", *exact, 0.5),
        case("a threshold of 0.75", *(a.clone() for a in exact), 0.75),
        case("no ground-truth object", *none, 0.5),
        case("no detection", exact[0][:0], exact[1][:0], exact[2], 0.5),
    ]
    return {"core": (2, core), "crowd": (1, crowds), "edge": (1, edge)}


right = Variants(match_detections)


def _greedy(
    a: SimpleNamespace,
    order: Iterable[int] | None = None,
    taken: Iterable[int] = (),
    reuse: bool = False,
    crowd_once: bool = False,
    prefer: bool = True,
    best_only: bool = False,
) -> Tensor:
    """Greedy matching of the arguments `a`; the last four options are misconceptions."""
    taken, outcome = set(taken), torch.zeros(len(a.iou), dtype=torch.int64)

    def free(n: int) -> bool:
        return n not in taken or reuse or (bool(a.iscrowd[n]) and not crowd_once)

    for p in torch.argsort(a.scores, descending=True).tolist() if order is None else order:
        able = [n for n in range(a.iou.shape[1]) if a.iou[p, n] >= a.iou_threshold and (best_only or free(n))]
        if not able:
            continue
        best = max(able, key=lambda n: (prefer and not a.iscrowd[n], float(a.iou[p, n])))
        if free(best):
            taken.add(best)
            outcome[p] = -1 if a.iscrowd[best] else 1
    return outcome


def hungarian(a: SimpleNamespace) -> Tensor:
    real = torch.nonzero(~a.iscrowd)[:, 0]
    enough = (a.iou[:, real] >= a.iou_threshold).numpy()
    rows, columns = linear_sum_assignment(enough, maximize=True)
    outcome = _greedy(a, range(len(a.iou)), taken=real.tolist())
    outcome[torch.as_tensor(rows[enough[rows, columns]], dtype=torch.int64)] = 1
    return outcome


CROWD_HINT = (
    "First compare with the free objects that are not crowds. Only if none of them has a sufficient IoU, compare with "
    "the crowds. A detection of a crowd is not counted, and the crowd stays free."
)
ORDER_HINT = "Sort by descending score, match in that order, and write each outcome to the index of its detection."

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
            right.instead(lambda a: _greedy(a, reuse=True)),
            "You match several detections with the same object. The second one is a false positive.",
            "Keep a list of the objects that are still free.",
        ),
        Wrong(
            "order by IoU",
            right.given(scores=lambda a: a.iou[:, ~a.iscrowd].amax(1) if (~a.iscrowd).any() else a.scores),
            "You let the detection with the largest IoU choose first. The most confident detection chooses first.",
            ORDER_HINT,
        ),
        Wrong(
            "answers in ranked order",
            right.then(lambda out, a: out[torch.argsort(a.scores, descending=True)]),
            "Your outcomes are in the order of the scores. Entry p of the result belongs to row p of iou.",
            "Write the outcome of detection p to index p, no matter when it is matched.",
        ),
        Wrong(
            "order as given",
            right.given(scores=lambda a: -torch.arange(len(a.scores))),
            "You match in the order of the rows. The most confident detection chooses first.",
            ORDER_HINT,
        ),
        Wrong(
            "least confident first",
            right.given(scores=lambda a: -a.scores),
            "You let the least confident detection choose first. The most confident one should choose first.",
            "argsort sorts in ascending order by default.",
        ),
        Wrong(
            "best object only",
            right.instead(lambda a: _greedy(a, best_only=True)),
            "You consider only the object with the largest IoU. If it is taken, another free one may be sufficient.",
            "Exclude taken objects before you search for the largest IoU. (The VOC code does it your way.)",
        ),
        Wrong(
            "argmax only",
            right.instead(lambda a: _greedy(a, prefer=False, best_only=True, crowd_once=True)),
            "You take the column with the largest IoU, even if it is a taken object or a crowd. A free object "
            "comes first.",
            "Exclude taken objects, compare with objects before crowds, and never mark a crowd as taken.",
        ),
        Wrong(
            "no matching",
            right.instead(lambda a: (a.iou >= a.iou_threshold).any(dim=1).long()),
            "You accept every detection with a sufficient IoU. An object matches only once, and crowds never count.",
            "Process the detections by descending score, and keep a list of the objects that are still free.",
        ),
        Wrong(
            "optimal matching",
            right.instead(hungarian),
            "You find the matching with the most pairs. AP matches greedily, one detection after the other.",
            "A confident detection may take the only object that a later one could match; this choice is final.",
        ),
        Wrong(
            "crowd as false positive",
            right.given(iou=lambda a: a.iou[:, ~a.iscrowd], iscrowd=lambda a: a.iscrowd[~a.iscrowd]),
            "You count detections of a crowd as false positives. They are not counted at all (-1).",
            CROWD_HINT,
        ),
        Wrong(
            "crowd as object",
            right.given(iscrowd=lambda a: torch.zeros_like(a.iscrowd)),
            "You treat a crowd like an object. A detection of a crowd is not counted, and the crowd is never taken.",
            CROWD_HINT,
        ),
        Wrong(
            "crowd taken once",
            right.instead(lambda a: _greedy(a, crowd_once=True)),
            "You mark a crowd as taken after its first match. It stands for many objects and is never taken.",
            CROWD_HINT,
        ),
        Wrong(
            "crowd competes",
            right.instead(lambda a: _greedy(a, prefer=False)),
            "You let crowds compete with objects. A free object with a sufficient IoU comes before any crowd.",
            CROWD_HINT,
        ),
        Wrong(
            "strictly above",
            right.given(iou_threshold=lambda a: math.nextafter(a.iou_threshold, 2)),
            "You require an IoU above the threshold. An IoU equal to the threshold is sufficient.",
            "Compare with >=. (Panoptic quality, later in this lab, requires more than one half.)",
        ),
    ],
)
