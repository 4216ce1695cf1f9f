"""The explorer of set matching against the chapter's costs and rules, which use the library's Hungarian matching."""

from __future__ import annotations

import pytest
from explorers.browser import assert_equal

from segedu.teaching.widgets.matching import CHEAPEST, GREEDY, LEAST, costs, partners, predictions

pytestmark = pytest.mark.browser
NAMES = {"per object": CHEAPEST, "greedy": GREEDY, "smallest total": LEAST}


def test_equals_python(explorers) -> None:
    states = explorers.states("matching", 120)
    differ = {"conflict": 0, "greedy costs more": 0, "greedy is best": 0}
    for state, result in zip(states, explorers.compute("matching", states), strict=True):
        boxes, probabilities = predictions(state["x"], state["score"])
        boxes[0, 1] = state["y"]
        cost = costs(boxes.double(), probabilities.double())
        chosen = {rule: partners(cost, rule) for rule in NAMES.values()}
        totals = {rule: float(cost[rows, range(3)].sum()) for rule, rows in chosen.items()}
        named_totals = {name: totals[rule] for name, rule in NAMES.items()}
        target = {"cost": cost, "chosen": chosen[NAMES[state["rule"]]], "totals": named_totals}
        assert_equal(result, target, f"{state}")
        differ["conflict"] += len(set(chosen[CHEAPEST])) < 3
        differ["greedy costs more"] += totals[GREEDY] > totals[LEAST] + 0.01
        differ["greedy is best"] += chosen[GREEDY] == chosen[LEAST]
    assert min(differ.values()) >= 3, differ
