"""What is special about lab 12: its references agree with torchvision and the library, and its statements hold."""

from __future__ import annotations

import importlib.util
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.ops as ops
from torch import nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.ssd import SSDScoringHead

from segedu.detection import retinanet, ssd, yolov1
from segedu.ops.anchors import decode_boxes
from segedu.ops.boxes import clip_boxes
from segedu.ops.matching import hungarian_matching
from segedu.teaching.checks.judge import draw
from segedu.teaching.exercises import lab12_one_stage as lab
from segedu.teaching.exercises.lab12_one_stage.scenes import scene

BY_NAME = {exercise.name: exercise for exercise in lab.exercises}


def reference(name):
    return BY_NAME[name].reference


def named_cases(name, seeds=4):
    return [(case["name"], case["args"]) for seed in range(seeds) for _, _, case in draw(BY_NAME[name], seed)]


def all_cases(name, seeds=4):
    return [args for _, args in named_cases(name, seeds)]


def test_points():
    assert {e.name: e.points for e in lab.exercises} == {
        "yolo_depth": 3, "yolo_target": 4, "decode_ssd": 3, "retina_prior": 2, "hungarian_match": 4, "set_loss": 4,
    }  # fmt: skip


def test_hidden_modules_exist():
    hidden = {name for exercise in lab.exercises for name in exercise.hides}
    assert all(exercise.hides for exercise in lab.exercises) and all(importlib.util.find_spec(name) for name in hidden)


def test_the_homework_has_two_answers_and_each_its_convention():
    depth = reference("yolo_depth")
    assert depth(19, 5, 20) == depth(19, 5, 20, False) == 45
    assert depth(19, 5, 20, True) == 125
    assert depth(7, 2, 20) == yolov1.yolo_depth(2, 20) == 30  # the paper's


def test_no_two_conventions_agree_by_chance_in_a_drawn_case():
    """With one box they do: that is why it is asked for."""
    for cells, boxes, classes, *_ in all_cases("yolo_depth", seeds=20):
        both = [reference("yolo_depth")(cells, boxes, classes, way) for way in (False, True)]
        assert (both[0] == both[1]) == (boxes == 1)


def test_yolo_target_is_the_librarys():
    for boxes, labels, cells, image_size, classes in all_cases("yolo_target", seeds=12):
        ours = reference("yolo_target")(boxes, labels, cells, image_size, classes)
        theirs = yolov1.yolov1_targets(boxes, labels, cells, image_size, classes + 1)
        assert torch.equal(ours[..., 4] == 1, theirs["objects"])
        torch.testing.assert_close(ours[..., :4], theirs["coordinates"].float())
        torch.testing.assert_close(ours[..., 5:], theirs["classes"].float())


def test_yolo_target_can_be_read_back():
    """Each object that kept its cell, to the pixel."""
    for boxes, labels, cells, image_size, classes in all_cases("yolo_target"):
        target = reference("yolo_target")(boxes, labels, cells, image_size, classes)
        rows, columns = target[..., 4].nonzero().T
        read = yolov1.decode_cells(target[:, :, None, :4], image_size)[rows, columns, 0]
        kinds = target[rows, columns, 5:].argmax(dim=1) + 1
        for box, label in zip(read, kinds, strict=True):
            assert any(
                label == k and torch.allclose(box, b.float(), atol=1e-3) for b, k in zip(boxes, labels, strict=True)
            )
    assert sum(len(args[0]) for args in all_cases("yolo_target", seeds=1)) == 3 + 5 + 2 + 3 + 2 + 1


def test_centres_are_on_lines_in_one_case_and_far_from_them_in_the_others():
    for name, (boxes, _, cells, (H, W), _) in named_cases("yolo_target", seeds=20):
        x = (boxes[:, :2] + boxes[:, 2:]) / 2 / torch.tensor([W, H]) * cells
        off = (x - x.round()).abs()
        assert (boxes >= 0).all() and (boxes <= torch.tensor([W, H, W, H])).all()
        if "on lines" in name:
            assert (off.amin(dim=1) == 0).all()
        else:
            assert (off > 0.05).all() if len(off) else name == "no object"


def test_of_several_objects_in_a_cell_first_and_last_are_neither_the_largest_nor_the_smallest():
    for name, (boxes, *_) in named_cases("yolo_target", seeds=20):
        if name == "several objects in one cell":
            first, largest, smallest, last = ops.box_area(boxes[:4])
            assert smallest < 0.95 * min(first, last) and max(first, last) < 0.95 * largest


def test_in_one_case_cells_are_no_whole_number_of_pixels():
    """Neither wide nor high: so `W // cells` is found out in every draw."""
    for name, (_, _, cells, size, _) in named_cases("yolo_target", seeds=20):
        assert all((side % cells > 0) == (name == "a high image") for side in size)


def test_decode_ssd_is_torchvisions():
    """Its head brings maps into the list, its coder moves boxes, its softmax gives scores."""
    for deltas, logits, anchors, size, variances in all_cases("decode_ssd", seeds=8):
        boxes, scores = reference("decode_ssd")(deltas, logits, anchors, size, variances)
        count = len(anchors) // deltas[0].numel()
        lists = [by_torchvision(x, len(x) // count) for x in (deltas, logits)]
        coder = BoxCoder(weights=(1 / variances[0],) * 2 + (1 / variances[1],) * 2)
        theirs = ops.clip_boxes_to_image(coder.decode_single(lists[0], anchors), size)
        torch.testing.assert_close(boxes, theirs)
        torch.testing.assert_close(scores, F.softmax(lists[1], dim=-1)[:, 1:])


def by_torchvision(channels, columns):
    """The list of what its predictors give; here each gives what it is given."""
    return SSDScoringHead(nn.ModuleList([nn.Identity()]), columns)([channels[None]])[0]


def test_decode_ssd_is_the_librarys():
    for deltas, logits, anchors, size, variances in all_cases("decode_ssd", seeds=8):
        boxes, scores = reference("decode_ssd")(deltas, logits, anchors, size, variances)
        count = len(anchors) // deltas[0].numel()
        lists = [x.unflatten(0, (count, -1)).permute(2, 3, 0, 1).flatten(0, 2) for x in (deltas, logits)]
        weights = [1 / variances[0]] * 2 + [1 / variances[1]] * 2
        theirs = decode_boxes(lists[0], anchors, weights, max_log_scale=math.inf)
        torch.testing.assert_close(boxes, clip_boxes(theirs, size))
        torch.testing.assert_close(scores, lists[1].softmax(1)[:, 1:])
    assert ssd.WEIGHTS == (1 / 0.1, 1 / 0.1, 1 / 0.2, 1 / 0.2)


def test_boxes_of_one_case_are_cut_at_all_four_borders():
    for name, args in named_cases("decode_ssd"):
        if name == "boxes partly outside of the image":
            boxes, _ = reference("decode_ssd")(*args)
            height, width = args[3]
            low, high = (boxes == 0).any(dim=0), (boxes == torch.tensor([width, height] * 2)).any(dim=0)
            assert low[:2].all() and high[2:].all()
            assert (args[2] < 0).any()  # default boxes too


def test_retina_prior_is_what_the_librarys_heads_begin_with():
    head = retinanet.ClassificationHead(4, 9, 20)
    classes, boxes = reference("retina_prior")(9, 20)
    torch.testing.assert_close(head.cls_logits.bias.detach(), classes)
    assert torch.equal(retinanet.RegressionHead(4, 9).bbox_reg.bias.detach(), boxes)


def test_the_sigmoid_of_the_prior_is_the_prior():
    for num_anchors, num_classes, *prior in all_cases("retina_prior"):
        classes, boxes = reference("retina_prior")(num_anchors, num_classes, *prior)
        torch.testing.assert_close(classes.sigmoid(), torch.full_like(classes, (prior or [0.01])[0]))
        assert len(classes) == num_anchors * num_classes and len(boxes) == 4 * num_anchors


def test_the_match_is_the_best_of_all_and_the_second_best_is_further_than_rounding():
    tried = 0
    for args in all_cases("hungarian_match", seeds=12):
        cost, queries = reference("hungarian_match")(*args)
        if cost.shape[1] == 0 or len(cost) == 1:
            continue
        ways = torch.tensor(list(itertools.permutations(range(len(cost)), cost.shape[1])))
        sums = cost[ways, torch.arange(cost.shape[1])].sum(dim=1)
        assert ways[sums.argmin()].tolist() == queries.tolist()
        least = sums.topk(2, largest=False).values
        assert least[1] - least[0] >= 0.05
        tried += 1
    assert tried >= 12 * 7


def test_hungarian_match_is_the_librarys_of_its_own_cost():
    for args in all_cases("hungarian_match"):
        cost, queries = reference("hungarian_match")(*args)
        rows, columns = hungarian_matching(cost)
        assert dict(zip(columns.tolist(), rows.tolist(), strict=True)) == dict(enumerate(queries.tolist()))


def test_the_cost_is_detrs():
    """As in its paper: class, L1 of normalised boxes, generalised IoU by torchvision; weights 1, 5, 2."""
    for logits, predicted, labels, boxes, (H, W) in all_cases("hungarian_match"):
        cost, _ = reference("hungarian_match")(logits, predicted, labels, boxes, (H, W))
        truth = ops.box_convert(boxes / torch.tensor([W, H, W, H]), "xyxy", "cxcywh")
        giou = ops.generalized_box_iou(*(ops.box_convert(b, "cxcywh", "xyxy") for b in (predicted, truth)))
        theirs = 5 * torch.cdist(predicted, truth, p=1) - logits.softmax(-1)[:, labels] - 2 * giou
        torch.testing.assert_close(cost, theirs)


def test_the_match_meets_its_features_in_every_draw():
    for seed in range(12):
        cases = {case["name"]: case["args"] for _, _, case in draw(BY_NAME["hungarian_match"], seed)}
        cost, queries = reference("hungarian_match")(*cases["two objects compete for a prediction"])
        assert len(cost.argmin(dim=0).unique()) == 2  # four objects, two wishes
        says = cases["a prediction of no object"][0].argmax(dim=1) == 3
        _, queries = reference("hungarian_match")(*cases["a prediction of no object"])
        assert says[queries].all()
        logits, predicted, labels, boxes, size = cases["the class decides"]
        _, queries = reference("hungarian_match")(logits, predicted, labels, boxes, size)
        _, without = reference("hungarian_match")(0 * logits, predicted, labels, boxes, size)
        assert sorted(queries.tolist()) == sorted(without.tolist()) and queries.tolist() != without.tolist()


def test_set_loss_is_the_sum_of_torchs_and_torchvisions_terms():
    for logits, predicted, labels, boxes, (H, W), queries, *weight in all_cases("set_loss", seeds=8):
        loss = reference("set_loss")(logits, predicted, labels, boxes, (H, W), queries, *weight)
        wanted, weights = torch.full((len(logits),), 3), torch.ones(4).double()
        wanted[queries], weights[3] = labels, (weight or [0.1])[0]
        truth, given = boxes / torch.tensor([W, H, W, H]), predicted[queries]
        away = F.l1_loss(given, ops.box_convert(truth, "xyxy", "cxcywh"), reduction="sum")
        shape = ops.generalized_box_iou_loss(ops.box_convert(given, "cxcywh", "xyxy"), truth, reduction="sum")
        boxes_loss = (5 * away + 2 * shape) / max(1, len(boxes))
        torch.testing.assert_close(loss, F.cross_entropy(logits, wanted, weights) + boxes_loss, atol=1e-5, rtol=1e-5)


def test_set_loss_by_hand():
    """One of two predictions, moved by a quarter of the width: 5 * 0.25, GIoU 1/3 - 0; the other one says nothing."""
    logits = torch.log(torch.tensor([[1.0, 1.0, 2.0], [2.0, 1.0, 1.0]]))
    predicted = torch.tensor([[0.5, 0.5, 0.1, 0.1], [0.5, 0.5, 0.5, 1.0]])
    box = torch.tensor([[0.0, 0.0, 4.0, 6.0]])  # the left half
    loss = reference("set_loss")(logits, predicted, torch.tensor([0]), box, (6, 8), torch.tensor([1]), 0.5)
    assert float(loss) == pytest.approx(math.log(2) + 5 * 0.25 + 2 * (1 - 1 / 3), abs=1e-5)


def test_the_loss_falls_to_nothing_where_all_is_right():
    logits, predicted = torch.tensor([[0.0, 40, 0, 0], [0, 0, 0, 40.0]]), torch.tensor([[0.5, 0.25, 1.0, 0.5]] * 2)
    args = (torch.tensor([1]), torch.tensor([[0.0, 0, 8, 3]]), (6, 8), torch.tensor([0]))
    assert float(reference("set_loss")(logits, predicted, *args)) == pytest.approx(0.0, abs=1e-6)


def test_the_query_of_the_first_object_is_above_that_of_the_second_with_the_third_between():
    for seed in range(20):
        objects = [[50, 50, 9, 9], [20, 20, 9, 9], [70, 20, 9, 9]]
        args, places = scene(np.random.default_rng(seed), objects, [0, 1, 0], [[9] * 4] * 5, [(0, 1)])
        assert places[0] > places[2] > places[1] and args[1].shape == (5, 4) and len(args[0]) == 5


def test_a_message_for_each_of_the_misconceptions_of_the_syllabus():
    """Where one of its items can be read in two ways, both are here."""
    names = {wrong.name for exercise in lab.exercises for wrong in exercise.wrong}
    assert {"all multiplied", "no confidence", "with background", "the whole grid"} <= names
    assert {"cell of the corner", "corner for the centre", "parts of the image"} <= names
    assert {"last object", "smallest object", "objects added", "no root"} <= names
    assert {"no variances", "variances swapped", "divided by variances", "always 0.1 and 0.2"} <= names
    assert {"not permuted", "default box by default box", "not cut", "cut at 1", "softmax over boxes"} <= names
    assert {"wrong sign", "on the box head too", "on the box head only", "a prior of 0.1"} <= names
    assert {"shared among the classes", "once for each class"} <= names
    assert {"greedy", "first come", "cheapest pair first", "class sign", "GIoU sign", "dearest"} <= names
    assert {"distance in pixels", "objects in pixels", "no-object matched", "no-object left out"} <= names
    assert {"no-object weight 1", "unmatched dropped", "boxes over queries", "classes over queries"} <= names
    assert {"GIoU missing", "GIoU sign", "GIoU itself"} <= names
