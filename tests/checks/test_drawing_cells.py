"""Pictures of chapter 9: polygons, rays, arrows and paths, with differences in vermilion."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from segedu.teaching.checks.drawing import COLOURS, draw_difference
from segedu.teaching.checks.judge import draw, outcomes_of
from segedu.teaching.exercises.lab09_distances import diffusion_flow, follow_flows, polygon_nms, star_distances

SQUARE = np.array([[0.0, 0], [0, 4], [4, 4], [4, 0]])
LABEL_MAP = np.array([[0, 7, 7, 7, 0]])


def picture(kind, args, expected, got):
    fig, alt = draw_difference(kind, {"name": "by hand", "args": args}, {"value": expected}, {"value": got})
    fig.canvas.draw()
    return fig.get_axes(), alt


def vermilion(lines):
    return [i for i, line in enumerate(lines) if to_hex(line.get_color()) == COLOURS[1]]


def test_polygons_that_are_kept_are_filled_and_those_that_differ_are_vermilion():
    args = [np.stack([SQUARE, SQUARE + 1, SQUARE + 9]), np.array([0.5, 0.9, 0.7])]
    axes, alt = picture("polygons", args, np.array([1, 2]), np.array([1, 0, 2]))
    for ax, filled in zip(axes, ([1, 2], [0, 1, 2]), strict=True):
        assert [i for i, p in enumerate(ax.patches) if p.get_facecolor()[3] > 0] == filled
        assert [to_hex(p.get_edgecolor()) for p in ax.patches] == [COLOURS[1], COLOURS[0], COLOURS[0]]
        assert [text.get_text() for text in ax.texts] == ["0: 0.50", "1: 0.90", "2: 0.70"]
    assert [ax.get_xlabel() for ax in axes] == ["[1, 2]", "[1, 0, 2]"] and "Filled: kept" in alt


@pytest.mark.parametrize("got", [np.ones(2, bool), np.array([0, 5]), np.array([0.5]), [], None, {"raises": "KeyError"}])
def test_answers_that_are_no_indices_are_named(got):
    args = [np.stack([SQUARE, SQUARE + 9]), np.array([0.5, 0.9])]
    axes, alt = picture("polygons", args, np.array([1, 0]), got)
    assert len(axes[0].patches) == 2 and len(axes[1].patches) == 0 and "cannot be drawn" in alt


def test_rays_are_those_of_the_first_pixel_that_differs():
    right = np.zeros((4, 1, 5))
    right[:, 0, 1:4] = 0.5
    right[0, 0, 1:4] = 2.5, 1.5, 0.5
    wrong = right.copy()
    wrong[0, 0, 2] = 3.5
    axes, alt = picture("stars", [LABEL_MAP, 4], right, wrong)
    assert "pixel (0, 2)" in alt and all(vermilion(ax.lines) == [0] for ax in axes)
    assert axes[0].lines[0].get_xdata()[1] == 3.5 and axes[1].lines[0].get_xdata()[1] == 5.5
    _, alt = picture("stars", [LABEL_MAP, 4], right, right.transpose(1, 2, 0))
    assert "yours, which cannot be drawn: a float array of shape (1, 5, 4)" in alt


def test_arrows_that_differ_are_apart_from_those_that_do_not():
    right = np.zeros((2, 1, 5))
    right[1, 0, 1:4] = 1, 0, -1
    wrong = right.copy()
    wrong[1, 0, 1:3] = np.nan, 1
    axes, _ = picture("arrows", [LABEL_MAP, 5], right, wrong)
    counts = [[quiver.N for quiver in ax.collections] for ax in axes]
    assert counts == [[1, 1], [1, 2]]  # blue, vermilion: 1 of the expected ones differs from an arrow, 1 from none
    assert any(line.get_marker() == "x" and len(line.get_xdata()) == 1 for line in axes[1].lines)


def test_ways_end_where_the_answers_say():
    foreground = LABEL_MAP > 0
    right = np.array([[0.0, 2], [0, 2], [0, 2]]), np.array([[0, 1, 1, 1, 0]])
    wrong = np.array([[0.0, 2], [0, 2], [0, 3]]), np.array([[0, 1, 1, 2, 0]])
    axes, _ = picture("drift", [np.zeros((2, 1, 5)), foreground, 3], right, wrong)
    assert all(vermilion(ax.lines) == [2] for ax in axes)
    assert [[text.get_text() for text in ax.texts] for ax in axes] == [["1"], ["1", "2"]]
    _, alt = picture("drift", [np.zeros((2, 1, 5)), foreground, 3], right, right[0])
    assert "cannot be drawn" in alt


@pytest.mark.parametrize("exercise", [star_distances, polygon_nms, diffusion_flow, follow_flows], ids=lambda e: e.name)
def test_every_wrong_answer_has_a_picture_of_its_first_failure(exercise):
    drawn = draw(exercise, 0)
    expected = outcomes_of(exercise, exercise.reference, drawn)
    for wrong in exercise.wrong:
        got = outcomes_of(exercise, wrong.function, drawn)
        i = next(
            i
            for i, ((*_, case), want, one) in enumerate(zip(drawn, expected, got, strict=True))
            if not exercise.accept(case, want, one, exercise.tolerance)
        )
        fig, alt = draw_difference(exercise.kind, drawn[i][2], expected[i], got[i])
        fig.canvas.draw()
        assert alt.startswith("Two drawings") and len(fig.get_axes()) == 2
