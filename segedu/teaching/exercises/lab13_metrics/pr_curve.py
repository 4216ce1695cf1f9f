"""pr_curve: precision and recall after each detection of a data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.average_precision import precision_recall_curve
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Curve = tuple[Tensor, Tensor]


def pr_curve(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    """Precision and recall, in descending order of score.

    Args:
        scores: (P,) of all images, image after image.
        matched: (P,) bool, the true positives.
        num_target: number of ground-truth objects in the data set.

    Returns:
        Two (P,) float tensors.
    """
    return precision_recall_curve(scores, matched, num_target)


def _ranking(rng: np.random.Generator, hits: list[int], order: list[int]) -> list[Tensor]:
    """Scores, and hits given by rank, listed in another order."""
    scores = np.sort(rng.permutation(100)[: len(hits)] + 1)[::-1] / 128
    indices = np.array(order)
    return [torch.from_numpy(scores[indices]), torch.tensor(hits, dtype=torch.bool)[indices]]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Rankings of several images; equal scores; no ground-truth object; no detection."""
    images = _ranking(rng, [1, 0, 1, 1, 0, 1], [1, 2, 4, 0, 3, 5])  # each image in descending order
    more = _ranking(rng, [0, 1, 1, 0, 0, 1, 0, 1, 0], [3, 8, 0, 2, 6, 1, 4, 7, 5])
    high, low = (np.sort(rng.permutation(60)[:2] + 1)[::-1] / 64).tolist()
    equal = torch.tensor([low, high, low, high, high, low, low], dtype=torch.float64)
    equal_hits = torch.tensor([0, 0, 1, 1, 0, 0, 1], dtype=torch.bool)
    # an unstable sort of torch keeps the order of up to 16 equal scores, too
    many = torch.from_numpy(rng.integers(1, 4, 40) / 4), torch.from_numpy(rng.permutation(np.arange(40) % 3 == 0))
    none = torch.zeros(3, dtype=torch.bool)
    core = [
        case("six detections of three images", *images, 4 + int(rng.integers(1, 4))),
        case("nine detections, one object missed", *more, 5),
    ]
    edge = [
        case("equal scores", equal, equal_hits, 5),
        case("forty detections, three scores", *many, 20),
        case("no ground-truth object", images[0][:3], none, 0),
        case("no detection", images[0][:0], none[:0], 3),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(pr_curve)


def _sorted(scores: Tensor, matched: Tensor) -> Tensor:
    return matched[torch.argsort(scores, descending=True, stable=True)]


def _from_hits(curve: Callable[[Tensor, int], Curve]) -> Callable:
    """`pr_curve` by another formula of the sorted hits (P,) and the number of objects."""
    return right.instead(lambda a: curve(_sorted(a.scores, a.matched).double(), a.num_target))


def _recall(recall: Callable[[Tensor, int], Tensor]) -> Callable:
    """`pr_curve` with another recall."""
    return right.then(lambda out, a: (out[0], recall(_sorted(a.scores, a.matched).double(), a.num_target)))


def _without_objects(value: float) -> Callable:
    return right.then(lambda out, a: (out[0], out[1] if a.num_target else torch.full_like(out[1], value)))


def hits_first(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    pairs = sorted(zip(scores.tolist(), matched.tolist(), strict=True), reverse=True)
    order = torch.arange(len(pairs), 0, -1)
    return pr_curve(order, torch.tensor([hit for _, hit in pairs], dtype=torch.bool), num_target)


def one_point_per_score(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    precision, recall = pr_curve(scores, matched, num_target)
    ranked = scores.sort(descending=True).values
    last = torch.ones(len(ranked), dtype=torch.bool)
    last[:-1] = ranked[1:] != ranked[:-1]
    return precision[last], recall[last]


def no_object_raises(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    precision, _ = pr_curve(scores, matched, max(num_target, 1))
    tp = _sorted(scores, matched).long().cumsum(0).tolist()
    return precision, torch.tensor([n / num_target for n in tp])


NO_OBJECT_HINT = "Without ground-truth objects recall is 0/0: float('nan'). A mean over classes then ignores the class."
TIE_HINT = "torch.argsort(scores, descending=True, stable=True) keeps the order of equal scores."

exercise = Exercise(
    name="pr_curve",
    points=3,
    cases=cases,
    reference=pr_curve,
    hides=["segedu.metrics.average_precision", "segedu.metrics.coco", "segedu.metrics.coco_matching"],
    wrong=[
        Wrong(
            "image by image",
            right.given(scores=lambda a: torch.zeros_like(a.scores)),
            "You process the detections in the given order, image after image. Rank those of all images together.",
            "One threshold applies to the whole data set. Sort by score first.",
        ),
        Wrong(
            "least confident first",
            right.given(scores=lambda a: -a.scores),
            "You begin with the least confident detection. Begin with the most confident one.",
            "argsort sorts in ascending order by default.",
        ),
        Wrong(
            "ties reversed",
            right.given(scores=lambda a: a.scores.argsort(stable=True).argsort()),
            "You reverse the order of equal scores. Keep the order in which they are given.",
            TIE_HINT,
        ),
        Wrong(
            "ties: hits first",
            hits_first,
            "Among equal scores you put the true positives first, which makes the curve too good. Keep the given "
            "order.",
            "sorted() on pairs compares the second entries if the first ones are equal. " + TIE_HINT,
        ),
        Wrong(
            "one point a threshold",
            one_point_per_score,
            "You return one point per distinct score. Return one point per detection, even for equal scores.",
            "P detections, P points. (scikit-learn does it your way.)",
        ),
        Wrong(
            "recall by detections",
            _recall(lambda hits, num_target: hits.cumsum(0) / len(hits)),
            "For recall you divide by the number of detections. Divide by the number of ground-truth objects.",
            "Recall is the fraction of the ground-truth objects that are detected.",
        ),
        Wrong(
            "recall ends at 1",
            _recall(lambda hits, num_target: hits.cumsum(0) / hits.sum()),
            "For recall you divide by the number of detected objects. Missed objects count too.",
            "Use num_target.",
        ),
        Wrong(
            "precision not cumulative",
            _from_hits(lambda hits, num_target: (hits, hits.cumsum(0) / num_target)),
            "You use each detection alone for its precision. Precision is the fraction of true positives so far.",
            "After k detections: TP / k. A cumulative sum counts the TP.",
        ),
        Wrong(
            "divided by all",
            _from_hits(lambda hits, num_target: (hits.cumsum(0) / len(hits), hits.cumsum(0) / num_target)),
            "For precision you divide by the number of all detections. After k of them precision is TP / k.",
            "The number of detections so far is 1, 2, 3, ...",
        ),
        Wrong(
            "counts from zero",
            _from_hits(
                lambda hits, num_target: (hits.cumsum(0) / torch.arange(len(hits)), hits.cumsum(0) / num_target)
            ),
            "You count the detections from 0. After the first detection, the count is 1.",
            "torch.arange(1, P + 1)",
        ),
        Wrong(
            "no object raises",
            no_object_raises,
            "You divide by zero if there is no ground-truth object. Recall is undefined in this case, so return NaN.",
            NO_OBJECT_HINT,
        ),
        Wrong(
            "no object is 0",
            _without_objects(0.0),
            "You return recall 0 if there is no ground-truth object. Recall is undefined in this case, so return NaN.",
            NO_OBJECT_HINT,
        ),
        Wrong(
            "no object is 1",
            _without_objects(1.0),
            "You return recall 1 if there is no ground-truth object. Recall is undefined in this case, so return NaN.",
            NO_OBJECT_HINT,
        ),
    ],
)
