"""The explorer of the ranked list against the library's precision-recall curve and three conventions of its area."""

from __future__ import annotations

import numpy as np
import pytest
from explorers.browser import assert_equal

from segedu.metrics.average_precision import (
    average_precision_11_point,
    average_precision_101_point,
    average_precision_area,
    precision_recall_curve,
)
from segedu.teaching.widgets import ranking

pytestmark = pytest.mark.browser
SCORES, HITS = ranking.SCORES.copy(), ranking.HITS.copy()


def expected(threshold: float, score: float, correct: bool, monkeypatch: pytest.MonkeyPatch) -> dict:
    scores, hits = np.append(SCORES[:-1], score), np.append(HITS[:-1], correct)
    curve = precision_recall_curve(scores, hits, ranking.NUM_TARGET)
    monkeypatch.setattr(ranking, "SCORES", scores)
    monkeypatch.setattr(ranking, "HITS", hits)
    precision, recall = (values.tolist() for values in curve)
    return {
        "precision": precision,
        "recall": recall,
        "envelope": np.maximum.accumulate(precision[::-1])[::-1],
        "area": average_precision_area(*curve),
        "ap_11": average_precision_11_point(*curve),
        "ap_101": average_precision_101_point(*curve),
        "counts": ranking.counts(threshold),
    }


def test_equals_python(explorers, monkeypatch) -> None:
    first, *states = explorers.states("average_precision", 80)
    assert (first["score"], first["correct"]) == (SCORES[-1], HITS[-1])  # the list of the Python widget
    states += [
        {**first, "score": score, "correct": correct} for score in SCORES[:4] for correct in (True, False)
    ]  # ties
    kept, recalls = set(), set()
    for state, result in zip([first, *states], explorers.compute("average_precision", [first, *states]), strict=True):
        target = expected(**state, monkeypatch=monkeypatch)
        assert_equal(result, target, f"{state}")
        kept.add(target["counts"]["true_positive"] + target["counts"]["false_positive"])
        recalls.add(target["recall"][-1])
    assert {0, 12} <= kept and recalls == {0.7, 0.8}
