"""pr_curve: precision and recall after each detection of a data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.average_precision import precision_recall_curve
from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Curve = tuple[Tensor, Tensor]


def pr_curve(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    """Precision and recall, the most confident detection first.

    Args:
        scores: (P,) of all images, image after image.
        matched: (P,) bool, the true positives.
        num_target: true objects of the data set.

    Returns:
        Two (P,) float tensors.
    """
    return precision_recall_curve(scores, matched, num_target)


def _ranking(rng: np.random.Generator, hits: list[int], order: list[int]) -> list[Tensor]:
    """Hits by rank, the most confident first, listed in another order."""
    scores = np.sort(rng.permutation(100)[: len(hits)] + 1)[::-1] / 128
    place = np.array(order)
    return [torch.from_numpy(scores[place]), torch.tensor(hits, dtype=torch.bool)[place]]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Rankings of several images; equal scores; no true object; no detection.

    Args:
        rng: of the scores.

    Returns:
        The cases by group.
    """
    images = _ranking(rng, [1, 0, 1, 1, 0, 1], [1, 2, 4, 0, 3, 5])  # each image in falling order
    more = _ranking(rng, [0, 1, 1, 0, 0, 1, 0, 1, 0], [3, 8, 0, 2, 6, 1, 4, 7, 5])
    high, low = (np.sort(rng.permutation(60)[:2] + 1)[::-1] / 64).tolist()
    equal = torch.tensor([low, high, low, high, high, low, low], dtype=torch.float64)
    equal_hits = torch.tensor([0, 0, 1, 1, 0, 0, 1], dtype=torch.bool)
    # torch keeps the order of up to 16 equal scores even where it does not promise to
    many = torch.from_numpy(rng.integers(1, 4, 40) / 4), torch.from_numpy(rng.permutation(np.arange(40) % 3 == 0))
    none = torch.zeros(3, dtype=torch.bool)
    return {
        "core": (
            2,
            [
                {"name": "six detections of three images", "args": [*images, 4 + int(rng.integers(1, 4))]},
                {"name": "nine detections, one object missed", "args": [*more, 5]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "equal scores", "args": [equal, equal_hits, 5]},
                {"name": "forty detections, three scores", "args": [*many, 20]},
                {"name": "no true object", "args": [images[0][:3], none, 0]},
                {"name": "no detection", "args": [images[0][:0], none[:0], 3]},
            ],
        ),
    }


def _curve(hits: Tensor, num_target: int) -> Curve:
    found = hits.double().cumsum(0)
    return found / torch.arange(1, len(hits) + 1), found / num_target


def _sorted(scores: Tensor, matched: Tensor) -> Tensor:
    return matched[torch.argsort(scores, descending=True, stable=True)]


def as_given(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    """Image after image."""
    return _curve(matched, num_target)


def upwards(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    """The least confident first."""
    return _curve(_sorted(-scores, matched), num_target)


def ties_reversed(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    """argsort()[::-1] turns equal scores round."""
    return _curve(matched[torch.argsort(scores, stable=True).flip(0)], num_target)


def hits_first(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    """sorted(zip(scores, matched), reverse=True)."""
    pairs = sorted(zip(scores.tolist(), matched.tolist(), strict=True), reverse=True)
    return _curve(torch.tensor([hit for _, hit in pairs], dtype=torch.bool), num_target)


def one_a_threshold(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    """Equal scores give one point, as in scikit-learn."""
    precision, recall = _curve(_sorted(scores, matched), num_target)
    ranked = scores.sort(descending=True).values
    last = torch.ones(len(ranked), dtype=torch.bool)
    last[:-1] = ranked[1:] != ranked[:-1]
    return precision[last], recall[last]


def recall_by_detections(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    """Divides by what was predicted."""
    precision, _ = _curve(_sorted(scores, matched), num_target)
    return precision, _sorted(scores, matched).double().cumsum(0) / len(scores)


def recall_by_found(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    """Divides by the objects that were found, so that recall ends at 1."""
    hits = _sorted(scores, matched)
    return _curve(hits, num_target)[0], hits.double().cumsum(0) / hits.sum()


def not_cumulative(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    """Each detection for itself."""
    hits = _sorted(scores, matched).double()
    return hits, hits.cumsum(0) / num_target


def by_all(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    """Divides by all detections at every point."""
    found = _sorted(scores, matched).double().cumsum(0)
    return found / len(scores), found / num_target


def counts_from_zero(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    """Divides the first by 0, the second by 1."""
    found = _sorted(scores, matched).double().cumsum(0)
    return found / torch.arange(len(found)), found / num_target


def _without_objects(value: float) -> Callable:
    def answer(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
        precision, recall = pr_curve(scores, matched, num_target)
        return precision, recall if num_target else torch.full_like(recall, value)

    return answer


def no_object_raises(scores: Tensor, matched: Tensor, num_target: int) -> Curve:
    """Divides plain numbers by 0."""
    precision, _ = pr_curve(scores, matched, max(num_target, 1))
    found = _sorted(scores, matched).long().cumsum(0).tolist()
    return precision, torch.tensor([f / num_target for f in found])


NO_OBJECT_HINT = "With no true object recall is 0/0: float('nan'). A mean over classes then leaves the class out."
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
            as_given,
            "You take the detections as they come, image after image: rank those of all images together.",
            "One threshold holds for the whole data set. Sort by score first.",
        ),
        Wrong(
            "least confident first",
            upwards,
            "You begin with the least confident detection.",
            "argsort sorts upwards unless you say otherwise.",
        ),
        Wrong(
            "ties reversed",
            ties_reversed,
            "You turn the order of equal scores round: they keep the order in which they are given.",
            TIE_HINT,
        ),
        Wrong(
            "ties: hits first",
            hits_first,
            "You put the hits first among equal scores: that flatters the curve.",
            "sorted() on pairs compares the second entry where the first ones are equal. " + TIE_HINT,
        ),
        Wrong(
            "one point a threshold",
            one_a_threshold,
            "You give one point for each score: here each detection gives one, equal scores too.",
            "P detections, P points. (scikit-learn does as you did.)",
        ),
        Wrong(
            "recall by detections",
            recall_by_detections,
            "You divide by the number of detections for recall: divide by the number of true objects.",
            "Recall is the share of the true objects that were found.",
        ),
        Wrong(
            "recall ends at 1",
            recall_by_found,
            "You divide by the objects that were found for recall: those that were missed count too.",
            "num_target is given: use it.",
        ),
        Wrong(
            "precision not cumulative",
            not_cumulative,
            "You give precision detection by detection: it is the share of right ones among all so far.",
            "After k detections: TP / k. A cumulative sum counts the TP.",
        ),
        Wrong(
            "divided by all",
            by_all,
            "You divide by all detections at every point: after k of them precision is TP / k.",
            "The number of detections so far is 1, 2, 3, ...",
        ),
        Wrong(
            "counts from zero",
            counts_from_zero,
            "You count the detections from 0: after the first one there is 1.",
            "torch.arange(1, P + 1)",
        ),
        Wrong(
            "no object raises", no_object_raises, "You divide by zero where there is no true object.", NO_OBJECT_HINT
        ),
        Wrong(
            "no object is 0",
            _without_objects(0.0),
            "You call recall 0 where there is no true object: there was nothing to find.",
            NO_OBJECT_HINT,
        ),
        Wrong(
            "no object is 1",
            _without_objects(1.0),
            "You call recall 1 where there is no true object: there was nothing to find.",
            NO_OBJECT_HINT,
        ),
    ],
)
