"""The picture of points: one scale for both answers, rings where labels differ, text for what cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest

from segedu.teaching.checks.drawing import COLOURS, draw_difference
from segedu.teaching.checks.judge import draw, outcomes_of
from segedu.teaching.checks.outcomes import first_difference
from segedu.teaching.exercises.lab02_clustering import kmeans_step, pca_project

POINTS = np.array([[0.0, 0], [1, 0], [4, 0], [5, 0]])
CASE = {"name": "by hand", "args": [POINTS, np.array([[0.0, 1], [5, 1]])]}
RIGHT = (np.array([0, 0, 1, 1]), np.array([[0.5, 0], [4.5, 0]]))


def picture(expected, got, case=CASE):
    fig, alt = draw_difference("points", case, {"value": expected}, {"value": got})
    fig.canvas.draw()
    return fig, alt


def rings(ax):
    """Positions of the points with a ring."""
    ringed = [m for m in ax.get_lines() if m.get_marker() == "o" and m.get_markeredgecolor() == COLOURS[1]]
    return [(float(m.get_xdata()[0]), float(m.get_ydata()[0])) for m in ringed]


def squares(ax):
    found = [m for m in ax.get_lines() if m.get_marker() == "s"]
    return [(float(m.get_xdata()[0]), float(m.get_ydata()[0])) for m in found]


def same_limits(fig):
    one, other = fig.get_axes()
    return one.get_xlim() == other.get_xlim() and one.get_ylim() == other.get_ylim()


def test_labels_that_differ_have_rings_and_are_counted():
    fig, alt = picture(RIGHT, (np.array([0, 1, 1, 1]), np.array([[0.0, 0], [10 / 3, 0]])))
    assert all(rings(ax) == [(1.0, 0.0)] for ax in fig.get_axes())
    assert "1 of 4 labels wrong, centres 0, 1 wrong" in fig.get_axes()[1].get_title() and "1 of 4" in alt
    fig, _ = picture(RIGHT, (RIGHT[0], np.array([[0.5, 0], [9, 0]])))
    assert rings(fig.get_axes()[1]) == [] and same_limits(fig)
    assert "0 of 4 labels wrong, centre 1 wrong" in fig.get_axes()[1].get_title()


def test_a_centre_that_is_nan_or_missing_is_told():
    fig, alt = picture(RIGHT, (RIGHT[0], np.array([[0.5, 0], [np.nan, np.nan]])))
    yours = fig.get_axes()[1]
    assert squares(yours) == [(0.5, 0.0)] and "centre 1 is NaN" in [text.get_text() for text in yours.texts]
    assert squares(fig.get_axes()[0]) == [(0.5, 0.0), (4.5, 0.0)] and "centre 1 wrong" in alt
    fig, _ = picture(RIGHT, (RIGHT[0], RIGHT[1][:1]))
    assert "1 centres instead of 2" in fig.get_axes()[1].get_title()


def test_scores_lie_to_one_scale_with_their_shapes_and_mirrored_where_only_signs_differ():
    scores = np.array([[-3.0, 1], [3, 1], [0, -2]])
    fig, alt = picture(scores, scores * [-1, 0.1])
    titles = [ax.get_title() for ax in fig.get_axes()]
    assert titles == ["expected (3, 2), signs flipped to match yours", "yours (3, 2)"] and same_limits(fig)
    places = [
        [(m.get_xdata()[0], m.get_ydata()[0]) for m in ax.get_lines() if m.get_marker() == "o"] for ax in fig.get_axes()
    ]
    np.testing.assert_allclose(places[0], scores * [-1, 1])
    np.testing.assert_allclose(places[1], scores * [-1, 0.1])
    fig, _ = picture(scores, np.pad(scores, ((0, 0), (0, 3))))
    assert [ax.get_title() for ax in fig.get_axes()] == ["expected (3, 2)", "yours (3, 5)"]


@pytest.mark.parametrize("answer", [None, 3.0, (np.zeros(3), np.zeros((2, 2))), RIGHT[1]])
def test_what_is_no_answer_of_points_is_said_in_words(answer):
    fig, alt = picture(RIGHT, answer)
    assert squares(fig.get_axes()[0]) and not fig.get_axes()[1].axison and len(alt) > 20


@pytest.mark.parametrize("exercise", [kmeans_step, pca_project], ids=lambda exercise: exercise.name)
def test_every_wrong_answer_looks_wrong(exercise):
    """The two panels differ in a position, a ring or a title, in the visible case."""
    drawn = draw(exercise, 0)
    right = outcomes_of(exercise, exercise.reference, drawn)
    for wrong in exercise.wrong:
        given = outcomes_of(exercise, wrong.function, drawn)
        for (*_, case), want, got in zip(drawn, right, given, strict=True):
            if exercise.accept(case, want, got, exercise.tolerance):
                continue
            pictured = draw_difference("points", case, want, got)
            if first_difference(want, got, exercise.tolerance).where == "arguments":
                assert pictured is None, wrong.name  # both answers are equal: only words can tell what is wrong
                break
            fig, _ = pictured
            seen = []
            for ax in fig.get_axes():
                drawn_at = [np.concatenate([m.get_xdata(), m.get_ydata()]).tolist() for m in ax.get_lines()]
                seen.append(([t.get_text() for t in ax.texts], drawn_at))
            words = fig.get_axes()[1].get_title().removeprefix("yours ")
            assert seen[0] != seen[1] or words not in fig.get_axes()[0].get_title(), (wrong.name, case["name"])
            break
