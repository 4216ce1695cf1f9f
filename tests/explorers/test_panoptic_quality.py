"""The explorer of split, merged and moved segments against the library's panoptic quality."""

from __future__ import annotations

import numpy as np
import pytest
from explorers.browser import assert_equal

from segedu.metrics.panoptic import panoptic_quality
from segedu.teaching.widgets import ranking

pytestmark = pytest.mark.browser


def label_maps(split_column: int, merge: bool, dx: int, dy: int) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and ground truth; without a vertical shift, those of the Python widget."""
    target, preds = (np.ones(ranking.SIZE, dtype=np.int32) for _ in range(2))
    for number, (top, left) in ranking.CARS.items():
        target[top : top + 3, left : left + 8] = number
        down, right = (dy, dx) if number == 4 else (0, 0)
        preds[top + down : top + down + 3, left + right : left + right + 8] = 3 if merge and number == 4 else number
    if split_column:
        preds[3:6, 3 + split_column : 11] = 5
    if dy == 0 and dx >= 0:
        scene = ranking.panoptic_scene(split_column, merge, dx)
        np.testing.assert_array_equal(preds, scene["preds"]["panoptic_seg"])
        np.testing.assert_array_equal(target, scene["target"]["panoptic_seg"])
    return preds, target


def test_equals_python(explorers) -> None:
    states = explorers.states("panoptic_quality", 80)
    states += [{"split_column": k, "merge": False, "dx": 0, "dy": 0} for k in range(8)]
    seen = set()
    for state, result in zip(states, explorers.compute("panoptic_quality", states), strict=True):
        preds, target = label_maps(**{name: int(value) for name, value in state.items()})
        sides = [ranking._with_segments_info(side) for side in (preds, target)]
        quality = panoptic_quality(*sides, num_classes=2)
        per_class = {name: values.tolist() for name, values in quality["per_class"].items()}
        expected = {"preds": preds, "target": target, "pq": quality["pq"], "per_class": per_class}
        assert_equal(result, expected, f"{state}")
        seen.add(tuple(per_class[name][1] for name in ("true_positive", "false_positive", "false_negative")))
    # all matched; one split or merged; and hardly any car matched
    assert {(3, 0, 0), (3, 1, 0), (2, 2, 1)} <= seen and min(tp for tp, _, _ in seen) == 0
