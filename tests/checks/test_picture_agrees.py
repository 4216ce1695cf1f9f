"""The picture of a failed check shows the difference that the message names.

The drawn arrays are compared with what the sentence says, read back from its text: the location and the values.
"""

from __future__ import annotations

import ast
import inspect
import re

import numpy as np

from segedu.teaching import exercises
from segedu.teaching.checks.drawing import draw_difference
from segedu.teaching.checks.exercise import Exercise
from segedu.teaching.checks.judge import draw, outcomes_of
from segedu.teaching.checks.outcomes import first_difference

SENTENCE = re.compile(
    r"the (?P<word>result|gradient)(?P<steps>(?:\[[^]]*\])*) is (?P<yours>\S+), expected (?P<right>\S+)"
)
COUNT = re.compile(r"\((\d+) of (\d+) values differ\)")
PANELS = ("expected", "yours", "difference")


def drawn_arrays(fig):
    """The arrays in the panels for the two answers and their difference, by title."""
    images = {ax.get_title(): ax.get_images() for ax in fig.get_axes()}
    arrays = {
        title: np.ma.filled(images[title][0].get_array().astype(float), np.nan) for title in images if images[title]
    }
    return {title: array for title, array in arrays.items() if title in PANELS and array.ndim == 2}


def named_array(outcome, sentence):
    """The array of an outcome that a sentence names, and the index in it."""
    part = outcome["value" if sentence["word"] == "result" else "grads"]
    steps = [ast.literal_eval(f"({step},)") for step in re.findall(r"\[([^]]*)\]", sentence["steps"])]
    while len(steps) > 1 or (steps and isinstance(part, tuple | dict)):
        part, steps = part[steps[0][0]], steps[1:]
    return np.asarray(part, dtype=float), steps[0] if steps else ()


def first_failure(exercise: Exercise, wrong):
    drawn = draw(exercise, 0)
    for one in drawn:
        expected, got = (outcomes_of(exercise, f, [one])[0] for f in (exercise.reference, wrong.function))
        if not exercise.accept(one[2], expected, got, exercise.tolerance):
            return one[2], expected, got
    raise AssertionError(f"{wrong.name} passes {exercise.name}")


def compare(fig, difference, expected, got, tolerance):
    """Hold the drawn arrays against the sentence; returns whether there were planes to compare."""
    sentence, arrays = SENTENCE.search(difference.text), drawn_arrays(fig)
    if set(arrays) != set(PANELS):
        assert "difference" not in arrays
        return False
    (target, index), (yours, _) = (named_array(outcome, sentence) for outcome in (expected, got))
    row_and_column = (0, *index)[-2:]
    planes = [np.atleast_2d(array[index[:-2]]) for array in (target, yours)]
    np.testing.assert_array_equal(arrays["expected"], planes[0])
    np.testing.assert_array_equal(arrays["yours"], planes[1])
    for title, word in (("expected", "right"), ("yours", "yours")):
        value = {"True": 1.0, "False": 0.0}.get(sentence[word]) if sentence[word] in ("True", "False") else None
        value = float(sentence[word]) if value is None else value
        np.testing.assert_allclose(arrays[title][row_and_column], value, rtol=1e-5)
    bound = tolerance * (1 + np.where(np.isfinite(target), np.abs(target), 0))
    with np.errstate(invalid="ignore"):
        same = (target == yours) | (np.isnan(target) & np.isnan(yours)) | (np.abs(target - yours) <= bound)
    assert int(COUNT.search(difference.text)[1]) == (~same).sum() if same.size > 1 else not same
    np.testing.assert_array_equal(arrays["difference"] > 0, ~np.atleast_2d(same[index[:-2]]))
    assert np.argwhere(arrays["difference"] > 0)[0].tolist() == list(row_and_column)
    for ax in fig.get_axes():
        (ring,) = ax.patches
        assert (ring.get_y() + 0.5, ring.get_x() + 0.5) == row_and_column
    return True


def test_the_drawn_arrays_differ_where_the_message_says():
    every = [(e, w) for lab in exercises.names() for e in exercises.load(lab).exercises for w in e.wrong]
    chosen = np.random.default_rng(6).choice(len(every), 200, replace=False)
    drawn = compared = 0
    for exercise, wrong in (every[i] for i in sorted(chosen)):
        case, expected, got = first_failure(exercise, wrong)
        difference = first_difference(expected, got, exercise.tolerance)
        names = list(inspect.signature(exercise.reference).parameters)
        picture = draw_difference(exercise.kind, case, expected, got, difference, exercise.tolerance, names)
        if picture:
            drawn += 1
            try:
                compared += compare(picture[0], difference, expected, got, exercise.tolerance)
            except AssertionError as error:
                raise AssertionError(f"{exercise.name}, {wrong.name}: {difference.text}") from error
    assert drawn > 130 and compared > 60, (drawn, compared)


def outcome(value):
    return {"value": value, "mutated": []}


def test_the_picture_shows_the_element_and_the_plane_of_the_difference():
    target = (np.zeros(3), np.zeros((2, 3, 4, 5)))
    yours = (np.zeros(3), target[1].copy())
    yours[1][1, 2, 3, 4] = yours[1][1, 2, 0, 0] = 7
    fig, alt = draw_difference("map", {"args": []}, outcome(target), outcome(yours))
    assert "result[1][1, 2] of result[1] with shape (2, 3, 4, 5)" in fig.get_supxlabel() and "[1, 2, 0, 0]" in alt
    assert "2 of 20 values differ here, 2 of 120 in all" in alt
    assert np.argwhere(drawn_arrays(fig)["yours"] == 7).tolist() == [[0, 0], [3, 4]]


def test_what_no_array_shows_has_no_picture_and_another_shape_only_shapes():
    right = np.arange(6.0).reshape(1, 2, 3)
    for kind in ("map", "matrix", "shape"):
        assert draw_difference(kind, {"args": []}, outcome(right), outcome(right.astype(int))) is None
        changed = {"value": right, "mutated": [0]}
        assert draw_difference(kind, {"args": []}, outcome(right), changed) is None
        fig, _ = draw_difference(kind, {"args": []}, outcome(right), outcome(right.reshape(2, 1, 3)))
        assert not drawn_arrays(fig) and "only shapes are drawn" in fig.get_supxlabel()
        fig, alt = draw_difference(kind, {"args": []}, outcome(right), {"raises": "KeyError"})
        assert set(drawn_arrays(fig)) == {"expected"} and "KeyError" in alt
