"""What is special about lab 15: its references agree with the library and the papers, and its statements hold."""

from __future__ import annotations

import importlib.util
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from exercises import drawn
from torch import nn

from segedu.losses.reduction import full_precision
from segedu.ops.matching import hungarian_matching
from segedu.panoptic.inference import semantic_inference
from segedu.panoptic.panoptic_fpn import merge_panoptic
from segedu.teaching.checks.judge import draw, judge, outcomes_of
from segedu.teaching.exercises import lab15_universal as lab
from segedu.teaching.exercises.lab15_universal.match_scenes import MARGIN, second_best

BY_NAME = {exercise.name: exercise for exercise in lab.exercises}
named_cases, all_cases = (partial(cases, "15_universal") for cases in (drawn.named_cases, drawn.all_cases))


def reference(name):
    return BY_NAME[name].reference


def in_double_precision(name, seeds=4):
    """The arguments of all cases; beside other implementations nothing is to be rounded away."""
    return [
        [a.double() if torch.is_tensor(a) and a.is_floating_point() else a for a in args]
        for args in all_cases(name, seeds)
    ]


def test_points():
    assert {e.name: e.points for e in lab.exercises} == {
        "merge_panoptic": 4, "query_masks": 3, "masked_attention": 4, "mask_match": 4, "semantic_inference": 3,
        "task_token": 2,
    }  # fmt: skip


def test_hidden_modules_exist():
    hidden = {name for exercise in lab.exercises for name in exercise.hides}
    assert all(exercise.hides for exercise in lab.exercises) and all(importlib.util.find_spec(name) for name in hidden)
    assert {"segedu.panoptic.mask2former.loss", "segedu.layers.segments"} <= hidden  # the cost, and targets of tasks


def test_merge_panoptic_is_the_librarys():
    for masks, labels, scores, semantic, things, *limits in all_cases("merge_panoptic", seeds=12):
        seg, found = reference("merge_panoptic")(masks, labels, scores, semantic, things, *limits)
        names = ("score_threshold", "overlap_threshold", "stuff_area")
        instances = {"masks": masks, "labels": labels, "scores": scores}
        theirs, info = merge_panoptic(instances, semantic, things, **dict(zip(names, limits, strict=True)))
        assert torch.equal(seg, theirs.long())
        assert found == [{key: s[key] for key in ("id", "category_id", "isthing")} for s in info]


def test_merging_meets_its_features_in_every_draw():
    for seed in range(12):
        cases = {case["name"]: case["args"] for _, _, case in draw(BY_NAME["merge_panoptic"], seed)}
        kept = {name: reference("merge_panoptic")(*args) for name, args in cases.items()}
        count = {name: sum(s["isthing"] for s in found) for name, (_, found) in kept.items()}
        assert count["instances that overlap"] == 2 and count["boxes overlap, masks do not"] == 2
        assert count["the same thing twice"] == 2 and count["one between two others"] == 2
        assert count["small and large"] == 3 and count["equal scores, half is taken"] == 3
        assert count["three quarters may be taken"] == 3
        assert count["scores at and below the threshold"] == 1 and count["hidden and empty instances"] == 2
        scores = cases["equal scores, half is taken"][2]
        assert scores[0] == scores[1]
        masks, _, _, _, _, _, share, _ = cases["equal scores, half is taken"]
        assert (masks[0] & masks[1]).sum() == share * masks[1].sum()  # exactly
        stuff = {s["category_id"] for s in kept["no instance, category 0 is stuff"][1]}
        assert 0 in stuff and 255 in cases["instances that overlap"][3]


def test_query_masks_is_maskformers_head():
    """A product of vectors with features, torch's interpolation."""
    for logits, embed, features, size in in_double_precision("query_masks"):
        p, masks = reference("query_masks")(logits, embed, features, size)
        head = nn.Conv2d(len(features), len(embed), 1, bias=False).double()
        head.weight.data = embed[:, :, None, None]
        large = F.interpolate(head(features[None]).detach(), size, mode="bilinear")[0]
        torch.testing.assert_close(masks, large.sigmoid())
        torch.testing.assert_close(p, logits.softmax(-1)[:, :-1])
        assert not torch.isclose(p.sum(dim=1), torch.ones(1).double()).any()


def test_masked_attention_is_torchs_multihead_attention_of_one_head():
    """With identities for projections; its mask says what is left out."""
    for queries, keys, values, mask_logits, size in in_double_precision("masked_attention"):
        D = queries.shape[1]
        net = nn.MultiheadAttention(D, 1, bias=False, batch_first=True).double()
        net.in_proj_weight.data = torch.eye(D).double().repeat(3, 1)
        net.out_proj.weight.data = torch.eye(D).double()
        small = F.interpolate(mask_logits[None], size, mode="bilinear", align_corners=False)[0]
        outside = (small.sigmoid() < 0.5).flatten(1)
        outside[outside.all(dim=1)] = False
        theirs = net(queries[None], keys[None], values[None], attn_mask=outside)[0][0]
        torch.testing.assert_close(reference("masked_attention")(queries, keys, values, mask_logits, size), theirs)


def test_masks_are_undecided_only_where_they_should_be():
    for name, (_, _, _, mask_logits, size) in named_cases("masked_attention", seeds=20):
        small = F.interpolate(mask_logits[None], size, mode="bilinear", align_corners=False)[0].abs()
        assert ((small == 0) | (small > 0.05)).all()
        assert (small == 0).any() == ("exactly 0" in name)
        inside = reference_inside(mask_logits, size)
        if name == "one mask is empty":
            assert inside.any(dim=1).tolist().count(False) == 1


def reference_inside(mask_logits, size):
    return F.interpolate(mask_logits[None], size, mode="bilinear")[0].flatten(1) >= 0


def named(name, function):
    """What the visible check would call an answer's mistakes."""
    drawn_cases = draw(BY_NAME[name], 0)
    return [w.name for w in judge(BY_NAME[name], drawn_cases, outcomes_of(BY_NAME[name], function, drawn_cases)).named]


def test_a_large_number_added_swallows_the_products():
    """In single precision, which networks have: -1e9 in place of -inf makes all places of an empty mask equal."""

    def added(queries, keys, values, mask_logits, size):
        outside = ~reference_inside(mask_logits, size)
        return (queries @ keys.T / queries.shape[1] ** 0.5 - 1e9 * outside).softmax(dim=1) @ values

    def filled(queries, keys, values, mask_logits, size):
        outside = ~reference_inside(mask_logits, size)
        return (queries @ keys.T / queries.shape[1] ** 0.5).masked_fill(outside, -1e9).softmax(dim=1) @ values

    assert named("masked_attention", added) == ["large number added"]
    assert named("masked_attention", filled) == ["all-masked row is the mean"]


def test_not_every_error_is_called_one_of_gradients():
    """Products of shapes that do not fit raise a RuntimeError, too."""

    def not_transposed(class_logits, mask_logits, labels, masks):
        return mask_logits.detach().sigmoid() @ masks.float(), labels

    def with_gradients(class_logits, mask_logits, labels, masks):
        return (mask_logits @ masks.float().T).numpy(), labels

    assert named("mask_match", not_transposed) == []
    assert named("mask_match", with_gradients) == ["gradients to scipy"]


def test_an_empty_mask_leaves_finite_gradients():
    for name, args in named_cases("masked_attention", seeds=2):
        leaves = [a.clone().requires_grad_() for a in args[:4]]
        out = reference("masked_attention")(*leaves, args[4])
        *slopes, of_masks = torch.autograd.grad(out.sum(), leaves, allow_unused=True)
        assert of_masks is None and all(slope.isfinite().all() for slope in slopes), name


def test_the_match_is_the_best_of_all_and_the_second_best_is_further_than_rounding():
    for args in all_cases("mask_match", seeds=12):
        cost, queries = reference("mask_match")(*args)
        assert second_best(cost) >= MARGIN
        rows, columns = hungarian_matching(cost)
        assert dict(zip(columns.tolist(), rows.tolist(), strict=True)) == dict(enumerate(queries.tolist()))


def test_the_cost_is_of_torchs_terms():
    """Weights 2, 5 and 5, as in Mask2Former's paper."""
    for logits, pixels, labels, masks in in_double_precision("mask_match"):
        cost, _ = reference("mask_match")(logits, pixels, labels, masks)
        for q, n in torch.cartesian_prod(torch.arange(len(pixels)), torch.arange(len(labels))).tolist():
            y, p = masks[n].double(), pixels[q].sigmoid()
            dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
            entropy = F.binary_cross_entropy_with_logits(pixels[q], y)
            torch.testing.assert_close(cost[q, n], 5 * entropy + 5 * dice - 2 * logits[q].softmax(0)[labels[n]])


def test_the_match_meets_its_features_in_every_draw():
    for seed in range(12):
        cases = {case["name"]: case["args"] for _, _, case in draw(BY_NAME["mask_match"], seed)}
        cost, queries = reference("mask_match")(*cases["several targets prefer one query"])
        assert len(cost.argmin(dim=0).unique()) < len(queries)
        args = cases["some queries predict no object"]
        silent = args[0].argmax(dim=1) == args[0].shape[1] - 1
        assert silent[reference("mask_match")(*args)[1]].any()
        _, _, _, masks = cases["an empty mask and a full one"]
        assert not masks[0].any() and masks[1].all()


def test_semantic_inference_is_the_librarys():
    for class_logits, mask_logits in in_double_precision("semantic_inference", seeds=8):
        ours = reference("semantic_inference")(class_logits, mask_logits)
        size = tuple(mask_logits.shape[1:])
        outputs = {"class_logits": class_logits[None], "mask_logits": mask_logits[None], "sizes": [size]}
        theirs = semantic_inference(outputs | {"image_size": size})[0]
        torch.testing.assert_close(full_precision(ours), theirs, check_dtype=False)


def test_sums_of_a_pixel_need_not_be_one():
    sums = [reference("semantic_inference")(*args).sum(dim=0) for args in all_cases("semantic_inference")]
    assert any((s > 1.01).any() for s in sums) and any((s < 0.5).any() for s in sums)


@pytest.mark.parametrize("seed", range(4))
def test_tasks_of_one_annotation_fit_together(seed):
    """Things are the same in panoptic and instance; the masks of panoptic make those of semantic."""
    args = next(
        args for name, args in named_cases("task_token", seed + 1)[::-1] if name == "things and stuff, semantic"
    )
    panoptic, instance, semantic = (
        reference("task_token")(*args[:2], task) for task in ("panoptic", "instance", "semantic")
    )
    things = {s["category_id"] for s in args[1] if s["isthing"]}
    chosen = [i for i, category in enumerate(panoptic[1].tolist()) if category in things]
    assert torch.equal(panoptic[2][chosen], instance[2]) and torch.equal(panoptic[1][chosen], instance[1])
    for category, mask in zip(semantic[1], semantic[2], strict=True):
        assert torch.equal(panoptic[2][panoptic[1] == category].any(dim=0), mask)
    assert len(semantic[1]) < len(panoptic[1]) and semantic[1].tolist() == sorted(semantic[1].tolist())


def test_a_message_for_each_of_the_misconceptions_of_the_syllabus():
    """Where one of its items can be read in two ways, both are here."""
    names = {wrong.name for exercise in lab.exercises for wrong in exercise.wrong}
    assert {"box not mask overlap", "unsorted", "stuff overwrites", "small stuff kept"} <= names
    assert {"softmax over pixels", "transposed", "no upsample", "class incl. no-object"} <= names
    assert {"multiplies after softmax", "inverted mask", "all-masked row is nan", "threshold on logits 0.5"} <= names
    assert {"argmin", "mean over targets", "divided by the target", "padded targets", "gradients to scipy"} <= names
    assert {"argmax first", "no-object kept", "product of logits", "softmax of masks over queries"} <= names
    assert {"semantic merges nothing", "instance keeps stuff", "panoptic = union", "fixed text"} <= names
