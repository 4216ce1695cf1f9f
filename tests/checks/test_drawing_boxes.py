"""Pictures of chapter 12: cells, decoded boxes, matches and pairs, with differences in vermilion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from segedu.teaching.checks.drawing import COLOURS, draw_difference
from segedu.teaching.checks.judge import draw, outcomes_of
from segedu.teaching.exercises.lab12_one_stage import decode_ssd, hungarian_match, set_loss, yolo_target


def picture(kind, args, expected, got):
    fig, alt = draw_difference(kind, {"name": "by hand", "args": args}, {"value": expected}, {"value": got})
    fig.canvas.draw()
    return fig.get_axes(), alt


def edges(ax):
    return [to_hex(patch.get_edgecolor()) for patch in ax.patches]


def test_cells_that_differ_are_vermilion():
    args = [torch.tensor([[10.0, 30, 50, 70]]), torch.tensor([2]), 2, (80, 80), 3]
    right = yolo_target.reference(*args).numpy()
    axes, alt = picture("grid", args, right, right.transpose(1, 0, 2))
    for ax, own in zip(axes, ((1, 0), (0, 1)), strict=True):
        assert len(ax.patches) == 2 and to_hex(ax.patches[0].get_facecolor()) == COLOURS[1]
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        assert [tuple(line.get_xydata()[0]) for line in dots] == [((own[1] + 0.75) * 40, (own[0] + 0.25) * 40)]
    _, alt = picture("grid", args, right, right[..., :-1])
    assert "yours, which cannot be drawn: a float array of shape (2, 2, 7)" in alt


def test_decoded_boxes_that_differ_are_vermilion_and_scores_are_counted():
    anchors = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8]])
    right = (np.array([[1.0, 1, 8, 8], [8, 0, 16, 8]]), np.array([[0.5], [0.25]]))
    wrong = (np.array([[1.0, 1, 8, 8], [8, 0, 16, 9]]), np.array([[0.25], [0.5]]))
    axes, alt = picture("decoded", [None, None, anchors, (8, 16), (0.1, 0.2)], right, wrong)
    assert all(edges(ax)[2:4] == [COLOURS[0], COLOURS[1]] for ax in axes) and "Scores: 2 rows differ" in alt
    _, alt = picture("decoded", [None, None, anchors, (8, 16), (0.1, 0.2)], right, right[0])
    assert "cannot be drawn" in alt


def test_pairs_that_differ_have_vermilion_rings_and_costs_that_differ_a_mark():
    right = (np.array([[1.0, 2.0], [2.0, 9.0]]), np.array([1, 0]))
    axes, alt = picture("matches", [], right, (np.array([[1.0, 2.0], [2.0, 8.0]]), np.array([0, 1])))
    assert [to_hex(line.get_markeredgecolor()) for ax in axes for line in ax.lines] == [COLOURS[1]] * 4
    assert [text.get_text() for text in axes[1].texts] == ["1.00", "2.00", "2.00", "8.00!"]
    axes, alt = picture("matches", [], right, (right[0], np.array([0.5])))
    assert "cannot be drawn" in alt and len(axes[0].lines) == 2


def test_a_line_leads_from_an_object_to_its_prediction():
    predicted = torch.tensor([[0.5, 0.5, 0.5, 1.0], [0.25, 0.5, 0.5, 1.0]])
    args = [torch.zeros(2, 3), predicted, torch.tensor([1]), torch.tensor([[0.0, 0, 4, 6]]), (6, 8), torch.tensor([0])]
    (ax,), alt = picture("pairs", args, np.array(3.0), np.array(4.0))
    assert ax.lines[0].get_xydata().tolist() == [[2.0, 3.0], [4.0, 3.0]]
    assert "1 objects and 2 predictions; expected 3" in alt and "yours 4" in alt


@pytest.mark.parametrize("exercise", [yolo_target, decode_ssd, hungarian_match, set_loss], ids=lambda e: e.name)
def test_every_wrong_answer_has_a_picture_of_its_first_failure(exercise):
    drawn = draw(exercise, 0)
    expected = outcomes_of(exercise, exercise.reference, drawn)
    for wrong in exercise.wrong:
        got = outcomes_of(exercise, wrong.function, drawn)
        right = [
            exercise.accept(c, a, b, exercise.tolerance) for (_, _, c), a, b in zip(drawn, expected, got, strict=True)
        ]
        i = right.index(False)
        picture_and_alt = draw_difference(exercise.kind, drawn[i][2], expected[i], got[i])
        if picture_and_alt is None:  # nothing to draw where there is no object or an argument was changed
            no_object = exercise is hungarian_match and not expected[i]["value"][0].size
            assert no_object or got[i]["mutated"]
        else:
            assert len(picture_and_alt[1]) > 40
