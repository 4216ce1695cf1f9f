"""What is special about lab 16: its exercises agree with the library's SAM and nnU-Net, and no seed hides a mistake."""

from __future__ import annotations

import importlib.util
import inspect

import numpy as np
import pytest
import torch
import torchvision.ops as ops
from exercises.drawn import all_cases, named_cases

from segedu.promptable.everything import stability_score
from segedu.promptable.sam.interactive import mask_iou, sam_loss
from segedu.promptable.sam.prompt_encoder import PromptEncoder
from segedu.semantic.nnunet.volume import new_shape, resample, thick_axis
from segedu.teaching.checks.judge import Answers, draw, judge
from segedu.teaching.exercises import lab16_promptable as lab
from segedu.teaching.mutants.wrong_answers import mutant_row

LAB = "16_promptable"
BY_NAME = {exercise.name: exercise for exercise in lab.exercises}


def test_points():
    assert {e.name: e.points for e in lab.exercises} == {
        "prompt_encode": 3, "best_of_three": 3, "stability_score": 3, "label_by_detector": 3, "resample_spacing": 4,
        "plan_unet": 4,
    }  # fmt: skip


def test_hidden_modules_exist():
    hidden = {name for exercise in lab.exercises for name in exercise.hides}
    assert all(exercise.hides for exercise in lab.exercises) and all(importlib.util.find_spec(name) for name in hidden)


def test_prompt_encode_is_sams() -> None:
    """Which gets points in pixels of the square."""
    for points, labels, size, side, frequencies, embeddings in all_cases(LAB, "prompt_encode"):
        net = PromptEncoder(embeddings.shape[1], 4, side).double()
        net.pe_layer.positional_encoding_gaussian_matrix = frequencies
        for kind, row in zip([*net.point_embeddings[:2], net.not_a_point_embed], embeddings, strict=True):
            kind.weight.data = row[None]
        theirs = net.embed_points(points[None] * side / max(size), labels[None])[0].detach()
        ours = BY_NAME["prompt_encode"].reference(points, labels, size, side, frequencies, embeddings)
        torch.testing.assert_close(ours, theirs)


def test_best_of_three_is_the_loss_of_sam() -> None:
    """At the size of its square images."""
    tried = 0
    for logits, guess, targets in all_cases(LAB, "best_of_three", seeds=8):
        if targets.shape[1] == targets.shape[2]:  # SAM's logits are of a square
            outputs = {"mask_logits": logits, "iou_scores": guess, "size": targets.shape[1:]}
            theirs = sam_loss(outputs | {"image_size": targets.shape[1]}, targets)["loss"]
            ours = BY_NAME["best_of_three"].reference(logits, guess, targets)
            torch.testing.assert_close(ours, theirs, check_dtype=False)
            tried += 1
    assert tried == 8 * 5


def test_the_best_mask_is_neither_that_of_the_guess_nor_that_of_the_iou_in_every_draw() -> None:
    for name, (logits, guess, targets) in named_cases(LAB, "best_of_three", seeds=12):
        if "differ" in name:
            y = targets[:, None].expand_as(logits).double()
            focal = ops.sigmoid_focal_loss(logits, y).mean((2, 3))
            p = logits.sigmoid()
            losses = 20 * focal + 1 - (2 * (p * y).sum((2, 3)) + 1) / ((p + y).sum((2, 3)) + 1)
            best, iou = losses.argmin(1), mask_iou(logits > 0, y > 0)
            for other in (guess.argmax(1), iou.argmax(1), focal.argmin(1)):
                assert not torch.equal(best, other)
            least = losses.sort(dim=1).values
            assert (least[:, 1] - least[:, 0] > 0.019).all()


def test_wrong_masks_and_a_logit_of_0_are_named_in_draws_that_once_hid_them() -> None:
    """Draw 13 accepted a logit of 0 inside the mask; draw 14 did not tell the first mask from one mask per batch."""
    wrong = mutant_row(LAB, BY_NAME["best_of_three"], [], seeds=(13, 14)).wrong
    assert len(wrong) > 30 and [name for name, _, refused, named in wrong if not (refused and named)] == []


def test_stability_score_is_the_librarys() -> None:
    for logits, threshold, offset in all_cases(LAB, "stability_score", seeds=8):
        ours = BY_NAME["stability_score"].reference(logits, threshold, offset)
        # in double precision logits on a limit may leave it by the shift
        exact = ((logits - threshold) / offset * 1e9).round() / 1e9
        torch.testing.assert_close(ours.float(), stability_score(exact, 1.0).float())
    names = {name for name, _ in named_cases(LAB, "stability_score", 1)}
    assert {"logits on the limits", "an empty mask and a full one", "no mask"} <= names


def test_logits_are_exactly_on_the_limits_in_every_draw() -> None:
    for name, (logits, threshold, offset) in named_cases(LAB, "stability_score", seeds=12):
        on = sum(bool((logits == limit).any()) for limit in (threshold + offset, threshold, threshold - offset))
        assert on == 3 if name == "logits on the limits" else on <= (name == "one pixel")


def test_labels_follow_detections_and_no_mask_is_taken_twice() -> None:
    for masks, boxes, labels, scores, threshold in all_cases(LAB, "label_by_detector", seeds=8):
        taken, named, sure = BY_NAME["label_by_detector"].reference(masks, boxes, labels, scores, threshold)
        assert len(taken.unique()) == len(taken) and (sure.diff() <= 0).all()
        for m, label, score in zip(taken, named, sure, strict=True):
            n = int((labels == label).nonzero())
            assert scores[n] == score
            x1, y1, x2, y2 = boxes[n].tolist()
            y, x = torch.meshgrid(*(torch.arange(s) + 0.5 for s in masks.shape[1:]), indexing="ij")
            box = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
            assert mask_iou(masks[m], box) >= threshold - 1e-6


def test_detections_meet_their_features_in_every_draw() -> None:
    for seed in range(8):
        cases = {case["name"]: case["args"] for _, _, case in draw(BY_NAME["label_by_detector"], seed)}
        found = {name: BY_NAME["label_by_detector"].reference(*args) for name, args in cases.items()}
        assert [part.tolist() for part in found["boxes that want one mask"]][0] == [4, 5, 2, 3]
        assert len(found["masks that are not good enough"][0]) == 1 and not len(found["no mask"][0])
        tie = "equal IoUs, equal scores, exactly the threshold"
        assert found[tie][0].tolist() == [1, 2] and found[tie][1].tolist() == cases[tie][2].tolist()


@pytest.mark.parametrize("spacing", [(1.0, 1.5, 2.0), (6.0, 1.0, 1.1), (1.0, 0.9, 4.0)])
def test_images_are_resampled_as_the_library_does_with_linear_splines(spacing: tuple[float, ...]) -> None:
    volume, new = np.random.default_rng(0).normal(size=(5, 7, 9)), (spacing[0] / 1.7, 1.2, spacing[2] * 1.3)
    found = BY_NAME["resample_spacing"].reference(volume, list(spacing), list(new), False)
    thick = int(np.argmax(spacing)) if max(spacing) > 3 * min(spacing) else None
    expected = resample(volume, new_shape(volume.shape, spacing, new), thick, order=1)
    assert thick == thick_axis(spacing, spacing)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["resample_spacing", "plan_unet"])
def test_twenty_seeds_refuse_every_wrong_answer(name: str) -> None:
    exercise = BY_NAME[name]
    for seed in range(20):
        answers = Answers(exercise, draw(exercise, seed))
        for wrong in exercise.wrong:
            verdict = judge(exercise, answers.drawn, answers.wrong(wrong), answers)
            assert verdict.points < verdict.max_points, (wrong.name, seed)


def test_no_new_centre_lies_half_way_between_two_voxels() -> None:
    for seed in range(20):
        for _, _, case in draw(BY_NAME["resample_spacing"], seed):
            volume, spacing, new, _ = case["args"]
            for n, a, b in zip(volume.shape, spacing, new, strict=True):
                m, exact = max(round(n * a / b), 1), n * a / b
                assert n % 2 == 1 and abs(exact - np.floor(exact) - 0.5) > 0.1
                assert not any((2 * i + 1) * n % (2 * m) == 0 for i in range(m))


def test_a_solution_has_at_most_thirty_lines() -> None:
    from importlib import util
    from pathlib import Path

    spec = util.spec_from_file_location("alternatives_16", Path(__file__).with_name("alternatives.py"))
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for function in (module.resample_scipy, module.plan_numpy):
        assert len(inspect.getsource(function).splitlines()) <= 30


def test_a_message_for_each_of_the_misconceptions_of_the_syllabus() -> None:
    """Where one of its items can be read in two ways, both are here."""
    names = {wrong.name for exercise in lab.exercises for wrong in exercise.wrong}
    assert {"y before x", "no scaling", "label ignored", "minus one vector", "padding has a position"} <= names
    assert {"mean", "argmax IoU at training", "per batch", "IoU head untrained"} <= names
    assert {"ratio inverted", "threshold not offset", "on sigmoid", "empty is nan"} <= names
    assert {"box IoU", "class of other", "duplicates", "order by area", "sorted by area"} <= names
    assert {"labels interpolated", "axes reversed", "sizes cut off", "thick slices interpolated"} <= names
    assert {"pooled until 1", "patch not divisible", "all axes pooled alike", "median of voxels"} <= names
