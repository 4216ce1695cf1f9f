"""What is special about lab 11: its references agree with torchvision and the library, and its statements hold."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.ops as ops
from torch import nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops.poolers import LevelMapper

from segedu.backbones.fpn import TopDown
from segedu.ops.anchors import cell_anchors, decode_boxes, encode_boxes, grid_anchors, match_anchors
from segedu.ops.boxes import box_iou
from segedu.ops.nms import batched_nms
from segedu.teaching.checks.judge import draw
from segedu.teaching.exercises import lab11_detection as lab

BY_NAME = {exercise.name: exercise for exercise in lab.exercises}


def reference(name):
    return BY_NAME[name].reference


def named_cases(name, seeds=4):
    return [case for seed in range(seeds) for _, _, case in draw(BY_NAME[name], seed)]


def all_cases(name, seeds=4):
    return [case["args"] for case in named_cases(name, seeds)]


def test_points():
    assert {e.name: e.points for e in lab.exercises} == {
        "make_anchors": 3, "encode_decode": 4, "assign_targets": 4, "nms": 3, "fpn_merge": 3, "level_assign": 3,
    }  # fmt: skip


def test_make_anchors_is_torchvisions_moved_by_half_a_stride_where_it_does_not_round():
    """Sizes and ratios whose halves are whole numbers."""
    shape, stride, sizes, ratios = (3, 5), 8, [16, 32, 48], [0.25, 1.0, 4.0]
    generator = AnchorGenerator((tuple(sizes),), (tuple(ratios),))
    generator.set_cell_anchors(torch.float64, torch.device("cpu"))
    theirs = generator.grid_anchors([list(shape)], [[torch.tensor(stride)] * 2])[0] + stride / 2
    assert torch.equal(reference("make_anchors")(shape, stride, sizes, ratios), theirs)


def test_make_anchors_is_the_librarys_moved_by_half_a_stride():
    for shape, stride, sizes, ratios in all_cases("make_anchors"):
        theirs = grid_anchors(cell_anchors(sizes, ratios).double() + stride / 2, shape, stride)
        torch.testing.assert_close(reference("make_anchors")(shape, stride, sizes, ratios), theirs, atol=1e-4, rtol=0)


def test_anchors_have_the_area_the_ratio_and_the_middle_that_the_statement_says():
    for (H, W), stride, sizes, ratios in all_cases("make_anchors"):
        anchors = reference("make_anchors")((H, W), stride, sizes, ratios).reshape(H, W, len(ratios), len(sizes), 4)
        width, height = (anchors[..., 2:] - anchors[..., :2]).unbind(-1)
        middle = (anchors[..., 2:] + anchors[..., :2]) / 2
        for r, ratio in enumerate(ratios):
            for s, size in enumerate(sizes):
                assert torch.allclose((width * height)[:, :, r, s], torch.tensor(size**2).double())
                assert torch.allclose((height / width)[:, :, r, s], torch.tensor(ratio).double())
        assert torch.allclose(middle[-1, -1], torch.tensor([W - 0.5, H - 0.5]).double() * stride)


def test_encode_decode_is_torchvisions_and_the_librarys():
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    for boxes, anchors, deltas in all_cases("encode_decode"):
        encoded, decoded = reference("encode_decode")(boxes, anchors, deltas)
        torch.testing.assert_close(encoded, coder.encode_single(boxes, anchors))
        torch.testing.assert_close(decoded, coder.decode_single(deltas, anchors))
        torch.testing.assert_close(encoded, encode_boxes(boxes, anchors))
        torch.testing.assert_close(decoded, decode_boxes(deltas, anchors))


def test_decoding_is_the_inverse_of_encoding():
    for boxes, anchors, deltas in all_cases("encode_decode"):
        encoded, decoded = reference("encode_decode")(boxes, anchors, deltas)
        torch.testing.assert_close(reference("encode_decode")(boxes, anchors, encoded)[1], boxes)
        torch.testing.assert_close(reference("encode_decode")(decoded, anchors, deltas)[0], deltas)
        torch.testing.assert_close(reference("encode_decode")(boxes * 3 + 7, anchors * 3 + 7, deltas)[0], encoded)


def test_no_side_is_so_near_its_anchors_that_the_logarithm_hardly_differs_from_the_growth():
    for boxes, anchors, deltas in all_cases("encode_decode", seeds=20):
        encoded, _ = reference("encode_decode")(boxes, anchors, deltas)
        for logs in (encoded[:, 2:], deltas[:, 2:]):
            assert ((logs == 0) | (logs.abs() > 0.3)).all()
            assert not logs.numel() or (logs > 0.3).any() and (logs < -0.3).any()


def test_assign_targets_is_the_librarys():
    for iou, low, high in all_cases("assign_targets", seeds=8):
        theirs = match_anchors(iou, low, high, force_best=True)
        assert torch.equal(reference("assign_targets")(iou, low, high), theirs)


def test_assign_targets_is_torchvisions_where_every_object_overlaps_an_anchor():
    compared = 0
    for iou, low, high in all_cases("assign_targets", seeds=8):
        if len(iou) and (iou.amax(1) > 0).all():
            theirs = Matcher(high, low, allow_low_quality_matches=True)(iou)
            assert torch.equal(reference("assign_targets")(iou, low, high), theirs)
            compared += 1
    assert compared == 8 * 7


def test_assign_targets_by_hand():
    iou = torch.tensor([[0.8, 0.5, 0.1, 0.0], [0.4, 0.0, 0.2, 0.0], [0.0, 0.0, 0.0, 0.0]])
    # object 1 likes anchor 0 best, which lies on object 0; object 2 is apart
    assert reference("assign_targets")(iou, 0.3, 0.7).tolist() == [0, -2, -1, -1]
    assert reference("assign_targets")(iou[1:], 0.3, 0.7).tolist() == [0, -1, -1, -1]


def test_only_ious_that_are_said_to_be_at_a_limit_are_at_one():
    for case in named_cases("assign_targets", seeds=8):
        iou, low, high = case["args"]
        assert torch.equal(iou.float().double(), iou.double())  # single precision sees the same ties
        near = min((iou - limit).abs().min().item() for limit in (low, high)) if len(iou) else 1
        if case["name"] in ("IoUs exactly at the limits", "equally good objects"):
            assert near == 0
        else:
            assert near > 1e-3


def test_nms_is_torchvisions_and_the_librarys():
    for args in all_cases("nms", seeds=8):
        kept = reference("nms")(*args)
        assert torch.equal(kept, ops.batched_nms(*args))
        assert torch.equal(kept, batched_nms(*args))


def test_no_iou_is_near_the_limit_unless_it_is_exactly_there():
    for boxes, _, _, limit in all_cases("nms", seeds=20):
        gap = (box_iou(boxes, boxes) - limit).abs()
        assert ((gap == 0) | (gap > 1e-3)).all()
        single = box_iou(boxes.float(), boxes.float())
        assert torch.equal(single > limit, box_iou(boxes, boxes) > limit)


def test_nms_meets_its_features_in_every_draw():
    for seed in range(8):
        cases = {case["name"]: case["args"] for _, _, case in draw(BY_NAME["nms"], seed)}
        boxes, scores, labels, limit = cases["equal scores"]
        assert len(scores.unique()) < len(scores)
        boxes, scores, labels, limit = cases["IoUs exactly at the limit"]
        assert (box_iou(boxes, boxes) == limit).any()
        boxes, scores, labels, limit = cases["two overlapping classes"]
        other = labels[:, None] != labels
        assert (box_iou(boxes, boxes)[other] > limit).any()
        chain = box_iou(*cases["chains"][:1] * 2) > cases["chains"][3]
        assert len(reference("nms")(*cases["chains"])) > 2 and (chain.sum(1) <= 3).all()  # itself and two neighbours


def _filled(blocks, weights):
    for block, weight in zip(blocks, weights, strict=True):
        convolution = next(part for part in block.modules() if isinstance(part, nn.Conv2d))
        with torch.no_grad():
            convolution.weight.copy_(weight)
            convolution.bias.zero_()


@pytest.mark.parametrize("pyramid", [ops.FeaturePyramidNetwork, TopDown])
def test_fpn_merge_is_torchvisions_and_the_librarys(pyramid):
    for features, lateral, smooth in all_cases("fpn_merge"):
        net = pyramid([x.shape[1] for x in features], len(lateral[0])).double()
        _filled(net.inner_blocks, lateral)
        _filled(net.layer_blocks, smooth)
        theirs = net({str(i): x for i, x in enumerate(features)} if pyramid is ops.FeaturePyramidNetwork else features)
        theirs = theirs.values() if isinstance(theirs, dict) else theirs
        ours = reference("fpn_merge")(features, lateral, smooth)
        assert [x.shape[2:] for x in ours] == [x.shape[2:] for x in features]
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other)


def test_levels_of_the_pyramid_are_halves_rounded_up():
    for features, _, _ in all_cases("fpn_merge"):
        for fine, coarse in zip(features, features[1:], strict=False):
            assert [math.ceil(n / 2) for n in fine.shape[2:]] == list(coarse.shape[2:])
    assert any(n % 2 for features, _, _ in all_cases("fpn_merge", seeds=1) for x in features[:-1] for n in x.shape[2:])


def test_level_assign_is_torchvisions():
    for boxes, k0, canonical, lowest, highest in all_cases("level_assign"):
        theirs = LevelMapper(lowest, highest, canonical, k0)([boxes]) + lowest
        assert torch.equal(reference("level_assign")(boxes, k0, canonical, lowest, highest), theirs)


def test_level_assign_by_hand():
    """The paper's numbers: 224 -> P4, 112 -> P3; one pixel less than 448 is still P4."""
    sides = torch.tensor([[224.0, 224], [112, 112], [447, 447], [448, 448], [7, 7], [2000, 2000], [56, 896], [9, 0]])
    boxes = torch.cat([torch.zeros_like(sides) + 3, sides + 3], dim=1)
    assert reference("level_assign")(boxes, 4, 224, 2, 5).tolist() == [4, 3, 4, 5, 2, 5, 4, 2]


def test_sizes_lie_in_both_halves_of_levels_and_near_no_limit_by_chance():
    for case in named_cases("level_assign", seeds=20):
        boxes, k0, canonical, _, _ = case["args"]
        if not len(boxes) or "exactly" in case["name"] or "area" in case["name"]:
            continue
        exact = k0 + (ops.box_area(boxes).sqrt() / canonical).log2()
        part = exact - exact.floor()
        assert ((part > 0.09) & (part < 0.91)).all() and (part < 0.45).any() and (part > 0.55).any()


def test_a_message_for_each_of_the_misconceptions_of_the_syllabus():
    """Where one of its items can be read in two ways, both are here."""
    names = {wrong.name for exercise in lab.exercises for wrong in exercise.wrong}
    assert {"width over height", "width is the size", "height is the size", "no root"} <= names
    assert {"centre at the corner", "column by column", "size by size", "cells inside"} <= names
    assert {"no log", "divided by the box", "corner by corner", "no exp", "moved by pixels"} <= names
    assert {"best not forced", "middle as background", "best of each object only", "fails without objects"} <= names
    assert {"at the limit too", "not sorted", "across classes", "kept boxes grow", "changes the boxes"} <= names
    assert {"concatenated", "no 3x3", "bottom-up", "corners aligned", "cut at the top"} <= names
    assert {"area, not its root", "no floor", "no clamp", "log10"} <= names
