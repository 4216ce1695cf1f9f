"""What the generic tests of the exercises cannot know about lab 1."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from segedu.teaching.checks.drawing import draw_difference
from segedu.teaching.checks.judge import Answers, draw, judge, outcomes_of
from segedu.teaching.exercises import load

EXERCISES = {exercise.name: exercise for exercise in load("01_tasks").exercises}


def verdict_of(name: str, function) -> object:
    exercise = EXERCISES[name]
    drawn = draw(exercise, 0)
    return judge(exercise, drawn, outcomes_of(exercise, function, drawn))


def test_points_add_up_to_twenty():
    assert [e.points for e in EXERCISES.values()] == [3, 3, 4, 3, 3, 4]


def test_run_lengths_equal_cocos():
    mask_tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(1)
    for case in range(20):
        size = tuple(rng.integers(1, 9, 2).tolist())
        mask = rng.random(size) < rng.choice([0.0, 0.3, 0.7, 1.0])
        counts, back = EXERCISES["rle_roundtrip"].reference(torch.from_numpy(mask), [size[0] * size[1]], size)
        theirs = mask_tools.frPyObjects({"size": list(size), "counts": counts}, *size)
        assert (mask_tools.decode(theirs).astype(bool) == mask).all(), case
        assert mask_tools.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] == theirs["counts"]
        assert not back.any()


def test_every_mask_of_two_by_three_survives():
    rle = EXERCISES["rle_roundtrip"].reference
    for bits in itertools.product([False, True], repeat=6):
        mask = torch.tensor(bits).reshape(2, 3)
        counts, _ = rle(mask, [1], (1, 1))
        assert sum(counts) == 6 and torch.equal(rle(mask, counts, (2, 3))[1], mask)


def test_boxes_equal_torchvisions():
    boxes = pytest.importorskip("torchvision.ops")
    masks = torch.rand(20, 7, 9, generator=torch.Generator().manual_seed(0)) < 0.1
    for mask in masks[masks.flatten(1).any(1)]:
        x1, y1, x2, y2 = boxes.masks_to_boxes(mask[None])[0].tolist()  # torchvision names the last pixel
        assert list(EXERCISES["mask_to_box"].reference(mask)) == [x1, y1, x2 + 1, y2 + 1]


def test_the_panoptic_code_of_the_page():
    category = torch.tensor([[7, 11, 11, 255]], dtype=torch.uint8)
    instance = torch.tensor([[4, 1, 2, 9]], dtype=torch.int32)
    encode = EXERCISES["panoptic_roundtrip"].reference
    code, back, number = encode(category, instance, [11], torch.tensor([[11002]]))
    assert code.tolist() == [[7000, 11001, 11002, 255000]]
    assert (back.item(), number.item()) == (11, 2)


def test_a_half_right_answer_earns_its_group():
    def no_empty_case(mask):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]

    verdict = verdict_of("mask_to_box", no_empty_case)
    assert verdict.points == 2 and verdict.named[0].name == "empty raises"


def test_right_encoding_alone_earns_nothing():
    def encodes_only(category, instance, things, codes):
        right = EXERCISES["panoptic_roundtrip"].reference(category, instance, things, codes)
        return right[0], torch.zeros_like(codes), torch.zeros_like(codes)

    assert verdict_of("panoptic_roundtrip", encodes_only).points == 0


def test_many_seeds_name_every_wrong_answer():
    for exercise in EXERCISES.values():
        for seed in range(4, 24):
            answers = Answers(exercise, draw(exercise, seed))
            for wrong in exercise.wrong:
                named = judge(exercise, answers.drawn, answers.wrong(wrong), answers).named
                assert [w.name for w in named] == [wrong.name], (exercise.name, seed)


@pytest.mark.parametrize("name", EXERCISES)
def test_a_wrong_answer_gets_a_picture(name):
    exercise = EXERCISES[name]
    for _, _, case in draw(exercise, 0):
        want, got = (outcomes_of(exercise, f, [("", 0, case)])[0] for f in (exercise.reference, lambda *a: 0))
        fig, alt = draw_difference(exercise.kind, case, want, got)
        assert fig.axes and len(alt) > 20
