"""pq_unique: below an IoU of one half a segment can match two others. Construct an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Example = tuple[Tensor, Tensor, list[int]]


def pq_unique(iou_threshold: float) -> Example | None:
    """A ground-truth segment and two predicted ones of its class whose IoUs are both above the threshold.

    Args:
        iou_threshold: in (0, 1).

    Returns:
        Target (H, W) bool, disjoint predictions (2, H, W) bool, the three classes; or None if there is no such example.
    """
    return _halves() if iou_threshold < 0.5 else None


def _halves(width: int = 4, cut: int = 2) -> Example:
    target = torch.ones(1, width, dtype=torch.bool)
    preds = torch.zeros(2, 1, width, dtype=torch.bool)
    preds[0, 0, :cut], preds[1, 0, cut:] = True, True
    return target, preds, [1, 1, 1]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Thresholds below, at and above one half."""
    low, near, above = rng.uniform(0.1, 0.3), rng.uniform(0.4, 0.49), rng.uniform(0.55, 0.9)
    core = [case(f"a threshold of {value:.3f}", float(value)) for value in (low, near)]
    half = [case(f"a threshold of {value:.4g}", float(value)) for value in (0.4999, 0.5, above)]
    return {"core": (1, core), "half": (1, half)}


def fault(case: Case, outcome: dict) -> str:
    """What is wrong with an answer, in one word.

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
    """Whether an answer is a valid example, whatever the reference's is."""
    return fault(case, got) == ""


def alike(case: Case, ours: dict, theirs: dict, tolerance: float) -> bool:
    """Whether two answers have the same fault."""
    return fault(case, ours) == fault(case, theirs)


right = Variants(pq_unique)


def _below_half(example: Callable[[Tensor, Tensor, list[int]], tuple]) -> Callable:
    """Another example, made from the right one."""
    return right.then(lambda out, a: out and example(*out))


SPLIT_HINT = "Split the ground-truth segment. How large can the smaller of two parts be, as a fraction of the whole?"

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
            right.instead(lambda a: _halves()),
            "You return an example where none exists. For thresholds of 1/2 and above, return None.",
            "If two IoUs with one segment were above 1/2, the shared pixels would be more than the segment has.",
        ),
        Wrong(
            "equal to one half",
            right.instead(lambda a: _halves() if a.iou_threshold <= 0.5 else None),
            "You return an example at the threshold 1/2. There is none, because both IoUs must be above 1/2.",
            "Both IoUs must be larger than the threshold. Equal is not larger.",
        ),
        Wrong(
            "overlap",
            _below_half(
                lambda target, preds, classes: (target, preds | torch.tensor([False, True, True, False]), classes)
            ),
            "Your two predicted segments overlap. In a panoptic segmentation a pixel belongs to one segment.",
            SPLIT_HINT,
        ),
        Wrong(
            "overlap at any threshold",
            right.instead(lambda a: (_halves()[0], torch.ones(2, 1, 4, dtype=torch.bool), [1, 1, 1])),
            "You return overlapping segments, and an example at every threshold. A pixel belongs to one segment.",
            SPLIT_HINT,
        ),
        Wrong(
            "another class",
            _below_half(lambda target, preds, classes: (target, preds, [1, 1, 2])),
            "You use segments of different classes. They never match, so they are not a counterexample.",
            "All three classes must be the same.",
        ),
        Wrong(
            "an empty segment",
            _below_half(lambda target, preds, classes: (target & False, preds & False, classes)),
            "You use a segment without pixels. Its IoU is 0/0, and a segment has at least one pixel.",
            SPLIT_HINT,
        ),
        Wrong(
            "one too small",
            _below_half(lambda *example: _halves(width=3, cut=2)),
            "At least one of your two IoUs is not above the threshold. Both must be above it.",
            SPLIT_HINT,
        ),
        Wrong(
            "another form",
            _below_half(lambda target, preds, classes: (target.double() / 2, preds.double(), classes)),
            "Your answer does not have the required form: a bool mask (H, W), bool masks (2, H, W), three integers.",
            "torch.zeros(2, H, W, dtype=torch.bool) makes two empty masks.",
        ),
        Wrong(
            "no example",
            right.instead(lambda a: None),
            "You return None for a threshold below 1/2. An example exists there: return one.",
            SPLIT_HINT,
        ),
    ],
)
