"""ap_interp: average precision of a curve, by three conventions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.average_precision import (
    average_precision_11_point,
    average_precision_101_point,
    average_precision_area,
)
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

LIBRARY = {
    "11-point": average_precision_11_point,
    "area": average_precision_area,
    "101-point": average_precision_101_point,
}


def ap_interp(precision: Tensor, recall: Tensor, convention: str) -> float:
    """Average precision of a precision-recall curve.

    Args:
        precision: (P,) after each detection.
        recall: (P,) after each detection, never decreasing.
        convention: "11-point", "area" or "101-point".

    Returns:
        A number in [0, 1].
    """
    return LIBRARY[convention](precision, recall)


def _curve(hits: Sequence[int], num_target: int) -> list[Tensor]:
    tp = np.cumsum(hits)
    return [torch.from_numpy(tp / np.arange(1, len(tp) + 1)), torch.from_numpy(tp / num_target)]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Each curve with each convention. A recall equals a threshold exactly, or clearly does not."""

    def each_convention(name: str, curve: list[Tensor]) -> list[Case]:
        return [case(f"{name}, {convention}", *(a.clone() for a in curve), convention) for convention in LIBRARY]

    dips = np.concatenate([[0, 1, 0, 1, 1, 0, 0, 1], rng.permutation([0, 0, 1])])
    early = np.concatenate([[1, 0, 0, 1], rng.permutation([0, 1, 1])])
    exact = np.concatenate([[0, 1, 1, 0, 0], rng.permutation([0, 1]), [1]])
    core = each_convention("a curve with dips", _curve(dips, 7))
    core += each_convention("a curve that ends early", _curve(early, 7))
    edge = each_convention("recalls of exactly 1/4, 1/2, 3/4 and 1", _curve(exact, 4))
    edge += each_convention("no true positive", _curve([0, 0], 3))
    edge += each_convention("no detection", [torch.zeros(0, dtype=torch.float64)] * 2)
    return {"core": (3, core), "edge": (1, edge)}


right = Variants(ap_interp)


def _thresholds(convention: str) -> np.ndarray:
    return np.arange(11) / 10 if convention == "11-point" else np.linspace(0, 1, 101)


def _envelope(precision: np.ndarray) -> np.ndarray:
    return np.maximum.accumulate(precision[::-1])[::-1]


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    return np.sum(np.diff(recall, prepend=0) * precision)


def _average(
    a: SimpleNamespace,
    envelope: Callable = _envelope,
    thresholds: Callable = _thresholds,
    area: Callable = _area,
    side: str = "left",
) -> float:
    """`ap_interp` of the arguments `a` with one part replaced."""
    p, r = envelope(a.precision.numpy()), a.recall.numpy()
    if a.convention == "area":
        return float(area(r, p))
    return float(np.append(p, 0)[np.searchsorted(r, thresholds(a.convention), side=side)].mean())


def trapezoid(precision: Tensor, recall: Tensor, convention: str) -> float:
    """np.trapezoid(precision, recall). (On the envelope, from recall 0 on, trapezoids would be rectangles.)"""
    if convention != "area":
        return ap_interp(precision, recall, convention)
    r, p = recall.numpy(), precision.numpy()
    return float(np.sum(np.diff(r) * (p[1:] + p[:-1]) / 2))


def reached_recalls_only(a: SimpleNamespace) -> float:
    top = float(a.recall.max()) if len(a.recall) else 0.0
    if a.convention == "area":
        return _average(a) / top if top else 0.0
    return _average(a, thresholds=lambda c: _thresholds(c)[_thresholds(c) <= top])


def linear(a: SimpleNamespace) -> float:
    if a.convention == "area" or not len(a.recall):
        return _average(a)
    return float(np.interp(_thresholds(a.convention), a.recall.numpy(), a.precision.numpy(), right=0).mean())


ENVELOPE_HINT = "At each point take the highest precision of that point and all later ones: a maximum from the right."
THRESHOLD_HINT = "11 points are 0, 0.1, ... 1; 101 points are 0, 0.01, ... 1: both ends are included."
EMPTY_HINT = "Without detections no recall is reached, so every point counts 0, and so does the area."

exercise = Exercise(
    name="ap_interp",
    points=4,
    cases=cases,
    reference=ap_interp,
    hides=["segedu.metrics.average_precision", "segedu.metrics.coco", "segedu.metrics.coco_matching"],
    wrong=[
        Wrong(
            "no envelope",
            right.instead(lambda a: _average(a, envelope=lambda precision: precision)),
            "You use the precision as it is. All three conventions first take the envelope of the curve.",
            ENVELOPE_HINT,
        ),
        Wrong(
            "best so far",
            right.instead(lambda a: _average(a, envelope=np.maximum.accumulate)),
            "You use the highest precision so far. The envelope is the highest precision at this recall or above.",
            ENVELOPE_HINT,
        ),
        Wrong(
            "trapezoid",
            trapezoid,
            "You connect the points of the curve by straight lines. Sum rectangles under the envelope instead.",
            "The width is a step in recall; the height is the highest precision at the end of the step or later.",
        ),
        Wrong(
            "first step lost",
            right.instead(lambda a: _average(a, area=lambda r, p: np.sum(np.diff(r) * p[1:]))),
            "You omit the first rectangle, from recall 0 to the first recall. It belongs to the area.",
            "np.diff of P values has P - 1: put a 0 before the recalls.",
        ),
        Wrong(
            "no recall 0",
            right.instead(lambda a: _average(a, thresholds=lambda c: _thresholds(c)[1:])),
            "You omit the point at recall 0. The points go from recall 0 to recall 1, including both.",
            THRESHOLD_HINT,
        ),
        Wrong(
            "no recall 1",
            right.instead(lambda a: _average(a, thresholds=lambda c: _thresholds(c)[:-1])),
            "You omit the point at recall 1. The points go from recall 0 to recall 1, including both.",
            THRESHOLD_HINT,
        ),
        Wrong(
            "100 points",
            right.instead(lambda a: _average(a, thresholds=lambda c: np.linspace(0, 1, len(_thresholds(c)) - 1))),
            "You use one point too few, spread over the whole range. Use 11 or 101 points.",
            THRESHOLD_HINT,
        ),
        Wrong(
            "strictly above",
            right.instead(lambda a: _average(a, side="right")),
            "You require a recall above the threshold. A recall equal to the threshold is sufficient.",
            "Find the first point with recall >= threshold, for example with np.searchsorted.",
        ),
        Wrong(
            "reached recalls only",
            right.instead(reached_recalls_only),
            "You average only over the recalls that were reached. The others count as 0.",
            "A detector that finds a single easy object must not get 1.",
        ),
        Wrong(
            "linear interpolation",
            right.instead(linear),
            "You interpolate linearly between the points. Take the highest precision at that recall or above.",
            ENVELOPE_HINT,
        ),
        Wrong(
            "empty raises",
            right.given(precision=lambda a: a.precision + 0 * a.precision[0]),
            "Your function raises an error if there is no detection. The average precision is then 0.",
            EMPTY_HINT,
        ),
        Wrong(
            "empty is NaN",
            right.then(lambda out, a: out if len(a.precision) else float("nan")),
            "You return NaN if there is no detection. The average precision is then 0.",
            EMPTY_HINT,
        ),
    ],
)
