"""pq_unique: below an IoU of one half a segment can have two partners. Show it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Example = tuple[Tensor, Tensor, list[int]]


def pq_unique(iou_threshold: float) -> Example | None:
    """A true segment and two predicted ones of its class that both have a larger IoU than the threshold.

    Args:
        iou_threshold: in (0, 1).

    Returns:
        Target (H, W) bool, predictions (2, H, W) bool without a common pixel, the three classes; or None where
        there is no such example.
    """
    return _halves() if iou_threshold < 0.5 else None


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Thresholds below, at and above one half.

    Args:
        rng: of the thresholds.

    Returns:
        The cases by group.
    """
    low, near, above = rng.uniform(0.1, 0.3), rng.uniform(0.4, 0.49), rng.uniform(0.55, 0.9)
    return {
        "core": (
            1,
            [{"name": f"a threshold of {value:.3f}", "args": [float(value)]} for value in (low, near)],
        ),
        "half": (
            1,
            [{"name": f"a threshold of {value:.4g}", "args": [float(value)]} for value in (0.4999, 0.5, above)],
        ),
    }


def fault(case: Case, outcome: dict) -> str:
    """What is wrong with an answer, in one word, or "".

    Args:
        case: with the threshold.
        outcome: of `segedu.teaching.checks.probes.call`; its value may be anything plain.

    Returns:
        "" for a right answer.
    """
    if "value" not in outcome or outcome.get("mutated"):
        return "error"
    threshold, value = case["args"][0], outcome["value"]
    if value is None:
        return "none" if threshold < 0.5 else ""
    if threshold >= 0.5:
        return "impossible"
    if not isinstance(value, list | tuple) or len(value) != 3:
        return "form"
    target, preds, classes = _mask(value[0]), _mask(value[1]), _classes(value[2])
    if target is None or preds is None or classes is None or target.ndim != 2 or preds.shape != (2, *target.shape):
        return "form"
    if not target.any() or not preds.any((1, 2)).all():
        return "empty"
    if (preds[0] & preds[1]).any():
        return "overlap"
    if len(set(classes)) > 1:
        return "class"
    iou = (preds & target).sum((1, 2)) / (preds | target).sum((1, 2))
    return "" if (iou > threshold).all() else "low"


def _mask(value: Any) -> np.ndarray | None:
    """Bool, or integers 0 and 1; nothing else."""
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    if array.dtype.kind not in "biu" or not np.isin(array, (0, 1)).all():
        return None
    return array.astype(bool)


def _classes(value: Any) -> list[int] | None:
    array = np.asarray(value) if isinstance(value, np.ndarray | list | tuple) and len(value) == 3 else np.zeros(0)
    return array.tolist() if array.dtype.kind in "iu" and array.shape == (3,) else None


def accept(case: Case, expected: dict, got: dict, tolerance: float) -> bool:
    """Any example will do that has the properties asked for.

    Args:
        case: with the threshold.
        expected: of the reference, not used.
        got: of the student.
        tolerance: not used: areas are whole numbers.

    Returns:
        Whether nothing is wrong with it.
    """
    return fault(case, got) == ""


def alike(case: Case, ours: dict, theirs: dict, tolerance: float) -> bool:
    """Two answers show the same mistake if the same is wrong with them.

    Args:
        case: with the threshold.
        ours: of a wrong answer.
        theirs: of the student.
        tolerance: not used.

    Returns:
        Whether the faults are equal.
    """
    return fault(case, ours) == fault(case, theirs)


def _halves(width: int = 4, cut: int = 2) -> Example:
    target = torch.ones(1, width, dtype=torch.bool)
    preds = torch.zeros(2, 1, width, dtype=torch.bool)
    preds[0, 0, :cut], preds[1, 0, cut:] = True, True
    return target, preds, [1, 1, 1]


def equal_half(iou_threshold: float) -> Example:
    """Takes 0.5 > 0.5 for true, and has an answer for everything."""
    return _halves()


def up_to_half(iou_threshold: float) -> Example | None:
    """An answer at exactly 0.5 too."""
    return _halves() if iou_threshold <= 0.5 else None


def overlapping(iou_threshold: float) -> Example | None:
    """Two predictions that share pixels."""
    if iou_threshold >= 0.5:
        return None
    target, preds, classes = _halves()
    preds[:, 0, 1:3] = True
    return target, preds, classes


def always_overlapping(iou_threshold: float) -> Example:
    """Overlap makes an example for every threshold."""
    target, preds, classes = _halves()
    return target, torch.ones_like(preds), classes


def other_class(iou_threshold: float) -> Example | None:
    """The second prediction is of another class."""
    return (*_halves()[:2], [1, 1, 2]) if iou_threshold < 0.5 else None


def empty(iou_threshold: float) -> Example | None:
    """0/0 taken for an IoU."""
    target, preds, classes = _halves()
    return (target & False, preds & False, classes) if iou_threshold < 0.5 else None


def uneven(iou_threshold: float) -> Example | None:
    """Two thirds and one third: enough for thresholds below 1/3."""
    return _halves(width=3, cut=2) if iou_threshold < 0.5 else None


def floats(iou_threshold: float) -> tuple | None:
    """Masks of floats, which could be anything."""
    target, preds, classes = _halves()
    return (target.double() / 2, preds.double(), classes) if iou_threshold < 0.5 else None


def never(iou_threshold: float) -> None:
    """Believes that matches are always unique."""
    return None


SPLIT_HINT = "Cut one true segment into parts. How large can the smaller of two parts be, as a share of the whole?"

exercise = Exercise(
    name="pq_unique",
    points=2,
    cases=cases,
    reference=pq_unique,
    accept=accept,
    alike=alike,
    hides=["segedu.metrics.panoptic", "segedu.metrics.instance"],
    wrong=[
        Wrong(
            "answers everything",
            equal_half,
            "You give an example where none exists: at 1/2 and above return None.",
            "Two IoUs above 1/2 with one segment: the shared pixels would be more than the segment has.",
        ),
        Wrong(
            "equal to one half",
            up_to_half,
            "You take an IoU of exactly 1/2 for above 1/2: at the threshold 1/2 there is no example.",
            "Both IoUs must be larger than the threshold. Equal is not larger.",
        ),
        Wrong(
            "overlap",
            overlapping,
            "You let the two predicted segments overlap: in a panoptic segmentation a pixel has one segment.",
            SPLIT_HINT,
        ),
        Wrong(
            "overlap at any threshold",
            always_overlapping,
            "You find examples at every threshold by letting the predicted segments overlap: a pixel has one segment.",
            SPLIT_HINT,
        ),
        Wrong(
            "another class",
            other_class,
            "You use segments of different classes: they never match, so they prove nothing.",
            "All three classes must be the same.",
        ),
        Wrong(
            "an empty segment",
            empty,
            "You use a segment without pixels: its IoU is 0/0, and a segment has at least one pixel.",
            SPLIT_HINT,
        ),
        Wrong(
            "one too small",
            uneven,
            "One of your two IoUs is not above the threshold.",
            SPLIT_HINT,
        ),
        Wrong(
            "another form",
            floats,
            "Your answer is not of the form asked for: a bool mask (H, W), bool masks (2, H, W), three whole numbers.",
            "torch.zeros(2, H, W, dtype=torch.bool) makes two empty masks.",
        ),
        Wrong(
            "no example",
            never,
            "You say that there is no example: below 1/2 there is one.",
            SPLIT_HINT,
        ),
    ],
)
