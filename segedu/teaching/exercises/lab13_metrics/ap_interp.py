"""ap_interp: one number from a curve, by three conventions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.average_precision import (
    average_precision_11_point,
    average_precision_101_point,
    average_precision_area,
)
from segedu.teaching.checks.exercise import Case, Exercise, Wrong

CONVENTIONS = ("11-point", "area", "101-point")
LIBRARY = dict(
    zip(
        CONVENTIONS, (average_precision_11_point, average_precision_area, average_precision_101_point), strict=True
    )
)  # fmt: skip


def ap_interp(precision: Tensor, recall: Tensor, convention: str) -> float:
    """Average precision of a curve.

    Args:
        precision: (P,) after each detection.
        recall: (P,) after each detection, rising.
        convention: "11-point", "area" or "101-point".

    Returns:
        A number in [0, 1].
    """
    return LIBRARY[convention](precision, recall)


def _curve(hits: list[int] | np.ndarray, num_target: int) -> list[Tensor]:
    found = np.cumsum(hits)
    return [torch.from_numpy(found / np.arange(1, len(found) + 1)), torch.from_numpy(found / num_target)]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Curves with dips that end early, by each convention; recalls on thresholds; nothing found; no detection.

    The numbers of true objects are such that a recall is exactly a threshold, or clearly none.

    Args:
        rng: of the rankings.

    Returns:
        The cases by group.
    """
    dips = np.concatenate([[0, 1, 0, 1, 1, 0, 0, 1], rng.permutation([0, 0, 1])])
    early = np.concatenate([[1, 0, 0, 1], rng.permutation([0, 1, 1])])
    exact = np.concatenate([[0, 1, 1, 0, 0], rng.permutation([0, 1]), [1]])
    curves = {
        "core": (3, {"a curve with dips": _curve(dips, 7), "a curve that ends early": _curve(early, 7)}),
        "edge": (
            1,
            {
                "recalls of exactly 1/4, 1/2, 3/4 and 1": _curve(exact, 4),
                "nothing found": _curve([0, 0], 3),
                "no detection": [torch.zeros(0, dtype=torch.float64)] * 2,
            },
        ),
    }
    return {
        group: (
            points,
            [
                {"name": f"{name}, {convention}", "args": [*(a.clone() for a in curve), convention]}
                for name, curve in named.items()
                for convention in CONVENTIONS
            ],
        )
        for group, (points, named) in curves.items()
    }


def _thresholds(convention: str) -> np.ndarray:
    return np.arange(11) / 10 if convention == "11-point" else np.linspace(0, 1, 101)


def _answer(precision, recall, convention, *, envelope=True, thresholds=_thresholds, side="left", area=None):
    """The right answer with one part replaced."""
    p, r = precision.numpy(), recall.numpy()
    best = np.maximum.accumulate(p[::-1])[::-1] if envelope else p
    if convention == "area":
        return float((area or (lambda r, p: np.sum(np.diff(r, prepend=0) * p)))(r, best))
    points = np.searchsorted(r, thresholds(convention), side=side)
    return float(np.append(best, 0)[points].mean())


def no_envelope(precision: Tensor, recall: Tensor, convention: str) -> float:
    """Precision at the first point that reaches the recall."""
    return _answer(precision, recall, convention, envelope=False)


def best_so_far(precision: Tensor, recall: Tensor, convention: str) -> float:
    """The running maximum from the left."""
    return _answer(
        torch.cummax(precision, 0).values if len(precision) else precision, recall, convention, envelope=False
    )


def trapezoid(precision: Tensor, recall: Tensor, convention: str) -> float:
    """np.trapezoid(precision, recall). (On the envelope, from recall 0 on, straight lines would change nothing.)"""
    if convention != "area":
        return _answer(precision, recall, convention)
    r, p = recall.numpy(), precision.numpy()
    return float(np.sum(np.diff(r) * (p[1:] + p[:-1]) / 2))


def first_step_lost(precision: Tensor, recall: Tensor, convention: str) -> float:
    """np.diff(recall) without the step from 0."""
    return _answer(precision, recall, convention, area=lambda r, p: np.sum(np.diff(r) * p[1:]))


def no_recall_0(precision: Tensor, recall: Tensor, convention: str) -> float:
    """Thresholds from 0.1, or 0.01."""
    return _answer(precision, recall, convention, thresholds=lambda c: _thresholds(c)[1:])


def no_recall_1(precision: Tensor, recall: Tensor, convention: str) -> float:
    """np.arange(0, 1, 0.1) stops before 1."""
    return _answer(precision, recall, convention, thresholds=lambda c: _thresholds(c)[:-1])


def hundred_points(precision: Tensor, recall: Tensor, convention: str) -> float:
    """np.linspace(0, 1, 100) and np.linspace(0, 1, 10)."""
    return _answer(precision, recall, convention, thresholds=lambda c: np.linspace(0, 1, len(_thresholds(c)) - 1))


def strictly_above(precision: Tensor, recall: Tensor, convention: str) -> float:
    """A recall equal to the threshold does not reach it."""
    return _answer(precision, recall, convention, side="right")


def reached_only(precision: Tensor, recall: Tensor, convention: str) -> float:
    """Averages over the recalls that were reached."""
    top = float(recall.max()) if len(recall) else 0.0
    if convention == "area":
        return _answer(precision, recall, convention) / top if top else 0.0
    return _answer(precision, recall, convention, thresholds=lambda c: _thresholds(c)[_thresholds(c) <= top])


def linear(precision: Tensor, recall: Tensor, convention: str) -> float:
    """np.interp between the points."""
    if convention == "area" or not len(recall):
        return _answer(precision, recall, convention)
    return float(np.interp(_thresholds(convention), recall.numpy(), precision.numpy(), right=0).mean())


def empty_raises(precision: Tensor, recall: Tensor, convention: str) -> float:
    """Takes the maximum of nothing."""
    precision[0] + 0
    return _answer(precision, recall, convention)


def empty_nan(precision: Tensor, recall: Tensor, convention: str) -> float:
    """The mean of nothing."""
    return _answer(precision, recall, convention) if len(precision) else float("nan")


ENVELOPE_HINT = "At each point take the best precision of that point and all later ones: a maximum from the right."
THRESHOLD_HINT = "11 points are 0, 0.1, ... 1; 101 points are 0, 0.01, ... 1: both ends belong to them."
EMPTY_HINT = "No detection: no recall is reached, so every point counts 0, and so does the area."

exercise = Exercise(
    name="ap_interp",
    points=4,
    cases=cases,
    reference=ap_interp,
    hides=["segedu.metrics.average_precision", "segedu.metrics.coco", "segedu.metrics.coco_matching"],
    wrong=[
        Wrong(
            "no envelope",
            no_envelope,
            "You take the precision as it is: all three conventions take the envelope of the curve first.",
            ENVELOPE_HINT,
        ),
        Wrong(
            "best so far",
            best_so_far,
            "You take the best precision so far: the envelope is the best precision at this recall or above.",
            ENVELOPE_HINT,
        ),
        Wrong(
            "trapezoid",
            trapezoid,
            "You join the points of the curve by straight lines: the area is a sum of rectangles under the envelope.",
            "Each step in recall, times the best precision at the end of the step or later.",
        ),
        Wrong(
            "first step lost",
            first_step_lost,
            "You leave out the first rectangle, from recall 0 to the first recall.",
            "np.diff of P numbers has P - 1: put a 0 before the recalls.",
        ),
        Wrong("no recall 0", no_recall_0, "You leave out the point at recall 0.", THRESHOLD_HINT),
        Wrong("no recall 1", no_recall_1, "You leave out the point at recall 1.", THRESHOLD_HINT),
        Wrong(
            "100 points",
            hundred_points,
            "You take one point too few, spread over the whole range: it is 11 and 101 points.",
            THRESHOLD_HINT,
        ),
        Wrong(
            "strictly above",
            strictly_above,
            "You ask for a recall above the threshold: a recall equal to it reaches it.",
            "The first point with recall >= threshold. np.searchsorted finds it.",
        ),
        Wrong(
            "reached recalls only",
            reached_only,
            "You leave out the recalls that were never reached: they count 0.",
            "A detector that finds one easy object must not get 1.",
        ),
        Wrong(
            "linear interpolation",
            linear,
            "You interpolate between the points by straight lines: take the best precision at that recall or above.",
            ENVELOPE_HINT,
        ),
        Wrong("empty raises", empty_raises, "You get an error where there is no detection.", EMPTY_HINT),
        Wrong("empty is NaN", empty_nan, "You give NaN where there is no detection.", EMPTY_HINT),
    ],
)
