"""What the generic tests of the exercises cannot know about lab 3."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segedu.teaching.checks.judge import draw, judge, outcomes_of
from segedu.teaching.exercises import load

EXERCISES = {exercise.name: exercise for exercise in load("03_convolution").exercises}


def verdict_of(name: str, function) -> object:
    exercise = EXERCISES[name]
    drawn = draw(exercise, 0)
    return judge(exercise, drawn, outcomes_of(exercise, function, drawn))


def test_points_are_those_of_the_syllabus():
    points = {"conv_out": 3, "conv2d_loops": 4, "max_unpool": 3, "tconv_out": 3, "tconv2d": 4, "receptive_field": 3}
    assert {e.name: e.points for e in EXERCISES.values()} == points


def test_homework_numbers():
    assert [EXERCISES["conv_out"].reference(h, 3, 2, 1, 1) for h in (7, 8)] == [4, 4]
    assert [EXERCISES["tconv_out"].reference(4, 3, 2, 1, extra, 1) for extra in (0, 1)] == [7, 8]
    names = [case["name"] for _, _, case in draw(EXERCISES["conv_out"], 3)]
    assert "the homework: 7 pixels" in names and "the homework: 8 pixels" in names


@pytest.mark.parametrize(
    ("name", "slip", "misconception"),
    [
        ("conv_out", lambda h, k, s, p, d: (h - k + 2 * p) / s + 1, "as often printed"),
        ("conv_out", lambda h, k, s, p, d: (h - k + 2 * p) // s + 1, "no dilation"),
        ("conv_out", lambda h, k, s, p, d: round((h + 2 * p - d * (k - 1) - 1) / s) + 1, "rounded to the nearest"),
        ("tconv_out", lambda h, k, s, p, e, d: (h - 1) * s + (k - 1) - 2 * p + 1, "as often printed"),
        ("conv2d_loops", lambda x, w, b, s, p: F.conv2d(x, w.flip(-1, -2), b, s, p), "flipped kernel"),
        ("tconv2d", lambda x, w, s, p: F.conv_transpose2d(x, w.flip(2), None, s, p), None),
        ("tconv2d", lambda x, w, s, p: F.conv_transpose2d(x, w.flip(2, 3), None, s, p), "flipped kernel"),
        ("max_unpool", lambda v, i, size: F.interpolate(v, size), "nearest neighbour"),
    ],
)
def test_what_students_type_is_refused_and_named_where_it_is_one_slip(name, slip, misconception):
    verdict = verdict_of(name, slip)
    assert not verdict.passed
    assert [w.name for w in verdict.named] == ([misconception] if misconception else [])


def test_a_half_right_answer_earns_its_group():
    def no_shared_maxima(values, indices, size):
        flat = torch.zeros(*values.shape[:2], size[0] * size[1], dtype=values.dtype)
        flat.scatter_add_(2, indices.flatten(2), values.flatten(2))
        return flat.reshape(*values.shape[:2], *size)

    verdict = verdict_of("max_unpool", no_shared_maxima)
    assert verdict.points == 2 and verdict.named[0].name == "shared maxima added"


def test_padding_the_argument_in_place_is_refused():
    def careless(images, weight, stride, padding):
        out = F.conv_transpose2d(images, weight, None, stride, padding)
        images.zero_()
        return out

    assert "changed its argument `images`" in verdict_of("tconv2d", careless).first_line
