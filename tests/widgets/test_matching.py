"""The matching widget uses DETR's costs, as in lab 12, and its third rule is the best of all assignments."""

from __future__ import annotations

import itertools

import pytest
import torch

from segedu.ops.boxes import cxcywh_to_xyxy
from segedu.teaching.exercises.lab12_one_stage.hungarian_match import hungarian_match
from segedu.teaching.widgets import matching as widget

PLACES = list(itertools.product((0.2, 0.38, 0.46, 0.8), (0.0, 0.5, 1.0)))


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: calls.append((fig, alt)))
    return calls


@pytest.mark.parametrize(("x", "sure"), PLACES)
def test_costs_and_pairs_are_those_of_the_exercise(x, sure):
    boxes, probabilities = widget.predictions(x, sure)
    truth = cxcywh_to_xyxy(torch.tensor(widget.BOXES)) * 100
    labels = torch.tensor(list(widget.OBJECTS.values()))
    logits = probabilities.clamp(min=1e-30).log()  # the softmax of a logarithm is the probability
    cost, queries = hungarian_match(logits, boxes, labels, truth, (100, 100))
    ours = widget.costs(boxes, probabilities)
    assert torch.allclose(ours, cost, atol=1e-5)
    assert widget.partners(ours, widget.LEAST) == queries.tolist()


@pytest.mark.parametrize(("x", "sure"), PLACES)
def test_no_pairing_costs_less_than_the_third_rule(x, sure):
    cost = widget.costs(*widget.predictions(x, sure))
    sums = {rule: float(cost[widget.partners(cost, rule), range(3)].sum()) for rule in widget.RULES}
    best = min(float(cost[list(rows), range(3)].sum()) for rows in itertools.permutations(range(5), 3))
    assert sums[widget.LEAST] == pytest.approx(best)
    assert sums[widget.CHEAPEST] <= sums[widget.LEAST] <= sums[widget.GREEDY]
    assert len(set(widget.partners(cost, widget.GREEDY))) == 3


def test_probabilities_add_up():
    for _, sure in PLACES:
        assert torch.allclose(widget.predictions(0.4, sure)[1].sum(dim=1), torch.ones(5))


def test_the_first_frames_show_three_different_pairings():
    cost = widget.costs(*widget.predictions(0.38, 0.8))
    cheapest, greedy, least = (widget.partners(cost, rule) for rule in widget.RULES)
    assert cheapest == [0, 0, 2] and greedy[0] == 0 and greedy[1] != 0 and least == [1, 0, 2]


def test_without_the_class_another_prediction_is_taken():
    cost = widget.costs(*widget.predictions(0.38, 0.0))
    assert cost[0, 0] - widget.costs(*widget.predictions(0.38, 0.8))[0, 0] == pytest.approx(0.8)


def test_another_rule_is_refused():
    with pytest.raises(ValueError, match="rule is 'best', expected one of"):
        widget.partners(torch.zeros(2, 2), "best")


def test_the_picture_says_what_it_shows(shown):
    widget.draw_matching(x=0.38, score=0.8, rule=widget.CHEAPEST)
    widget.draw_matching(x=0.38, score=0.8, rule=widget.LEAST)
    (first, alt), (_, other) = shown
    assert "prediction 1 is matched twice" in alt and "matched twice" not in other
    assert "A with prediction 2, B with prediction 1, C with prediction 3" in other
    assert "prediction 1 is matched twice" in first.axes[1].get_title()


def test_static_frames_are_drawn(monkeypatch, shown):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    widget.explorer()
    assert len({alt for _, alt in shown}) == len(widget.FRAMES)
