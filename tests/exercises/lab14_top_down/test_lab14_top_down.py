"""What is special about lab 14: its references agree with torchvision and the library, and its statements hold."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.ops
from torchvision.models.detection.roi_heads import maskrcnn_loss

from segedu.instance.condinst import relative_coordinates, split_weights
from segedu.instance.yolact import assemble_masks
from segedu.ops.nms import matrix_nms
from segedu.ops.roi_align import roi_align
from segedu.teaching.checks.judge import draw
from segedu.teaching.exercises import lab14_top_down as lab

BY_NAME = {exercise.name: exercise for exercise in lab.exercises}


def reference(name):
    return BY_NAME[name].reference


def all_cases(name, seeds=4):
    return [case["args"] for seed in range(seeds) for _, _, case in draw(BY_NAME[name], seed)]


def test_points():
    assert {e.name: e.points for e in lab.exercises} == {
        "roi_align": 5, "mask_target": 3, "mask_loss": 3, "yolact_masks": 3, "dynamic_conv": 4, "matrix_nms": 2,
    }  # fmt: skip


def test_hidden_modules_exist():
    hidden = {name for exercise in lab.exercises for name in exercise.hides}
    assert all(exercise.hides for exercise in lab.exercises) and all(importlib.util.find_spec(name) for name in hidden)


@pytest.mark.parametrize("align", [torchvision.ops.roi_align, roi_align], ids=["torchvision", "library"])
def test_roi_align_is_torchvisions_and_the_librarys(align):
    for features, boxes, size, scale, samples in all_cases("roi_align", seeds=12):
        theirs = align(features[None], [boxes], size, scale, samples, aligned=True)
        torch.testing.assert_close(reference("roi_align")(features, boxes, size, scale, samples), theirs)


def test_roi_align_by_hand():
    """A map x + 10 y, read at its centres: the mean of a bin is the value of its centre."""
    y, x = torch.meshgrid(torch.arange(6) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    found = reference("roi_align")((x + 10 * y)[None], torch.tensor([[2.0, 4.0, 14.0, 8.0]]), (2, 3), 0.5, 2)
    torch.testing.assert_close(found, torch.tensor([[[[27.0, 29.0, 31.0], [37.0, 39.0, 41.0]]]]))


def test_points_lie_exactly_one_cell_outside_in_every_draw():
    """-1 and H: the last that read the border. A hair further it is 0."""
    features, boxes, size, scale, samples = all_cases("roi_align", seeds=1)[-1]
    assert (boxes * scale - 0.5).tolist() == [[-3.0, -2.5, 9.0, 9.5]] and (scale, samples) == (1.0, 1)
    found = reference("roi_align")(features, boxes, size, scale, samples)
    torch.testing.assert_close(found[0, :, 0, 0], features[:, 0, 0])
    torch.testing.assert_close(found[0, :, 3, 2], features[:, -1, -1])
    further = boxes + torch.tensor([0.0, 0.0, 0.01, 0.01])
    assert (reference("roi_align")(features, further, size, scale, samples)[0, :, 3, 2] == 0).all()


def test_rounding_moves_every_corner_of_the_core_cases():
    for features, boxes, _, scale, _ in all_cases("roi_align"):
        cells = boxes * scale
        if len(boxes) and features.shape[1:] not in ((6, 5), (8, 7)):
            assert ((cells - cells.round()).abs() >= 0.1).all()


def test_mask_target_is_torchvisions_above_one_half():
    for masks, boxes, matches, size in all_cases("mask_target", seeds=12):
        rois = torch.cat([matches[:, None].double(), boxes.double()], dim=1)
        read = torchvision.ops.roi_align(masks[:, None].double(), rois, size, 1.0, 1, aligned=True)[:, 0]
        assert torch.equal(reference("mask_target")(masks, boxes, matches, size), read >= 0.5)
        ties = (read - 0.5).abs() < 1e-6
        assert size == 12 or not ties.any()  # the case of ties is the only one that has some
        assert size != 12 or ((read == 0.5) == ties).all() and ties.flatten(1).any(1).all()


def test_proposals_are_within_the_image_and_one_object_has_two():
    for masks, boxes, _, _ in all_cases("mask_target", seeds=12):
        height, width = masks.shape[1:]
        assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height, width, height])).all()
        assert masks.flatten(1).any(1).all()
    assert any(len(matches) > len(matches.unique()) for _, _, matches, _ in all_cases("mask_target", seeds=1))


def test_mask_loss_is_torchvisions_of_the_positives():
    """Theirs takes no negatives, and draws its targets from masks: the same ones are given to ours."""
    for logits, labels, targets in all_cases("mask_loss"):
        keep, size = labels > 0, logits.shape[-1]
        if not keep.any():
            assert float(reference("mask_loss")(logits, labels, targets)) == 0
            continue
        count = int(keep.sum())
        boxes = torch.tensor([[0.0, 0.0, size, size]]).expand(count, 4)
        theirs = maskrcnn_loss(logits[keep], [boxes], [targets[keep]], [labels[keep]], [torch.arange(count)])
        rois = torch.cat([torch.arange(len(labels))[:, None], boxes[:1].expand(len(labels), 4)], dim=1)
        drawn = torchvision.ops.roi_align(targets[:, None], rois, size)[:, 0]
        torch.testing.assert_close(reference("mask_loss")(logits, labels, drawn), theirs)


def test_mask_loss_of_two_classes_by_hand():
    logits = torch.zeros(2, 3, 1, 2)
    logits[0, 2] = torch.tensor([math.log(3.0), -math.log(3.0)])  # sigmoids 3/4 and 1/4
    loss = reference("mask_loss")(logits, torch.tensor([2, 0]), torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]))
    assert float(loss) == pytest.approx(-math.log(0.75))


def test_the_other_channels_get_no_gradient():
    for logits, labels, targets in all_cases("mask_loss", seeds=2):
        leaf = logits.clone().requires_grad_()
        (slope,) = torch.autograd.grad(reference("mask_loss")(leaf, labels, targets), leaf)
        used = F.one_hot(labels, logits.shape[1]).bool() & (labels > 0)[:, None]
        assert (slope[~used] == 0).all()


def test_yolact_masks_by_hand():
    """One prototype minus another, in a box of two pixels."""
    prototypes = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]])
    coefficients = torch.atanh(torch.tensor([[0.5, -0.5]]))
    found = reference("yolact_masks")(prototypes, coefficients, torch.tensor([[0.5, 0.0, 2.5, 0.6]]))
    torch.testing.assert_close(found[0, 0], torch.tensor([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1)), 0.0]))


def test_yolact_masks_are_the_librarys_within_the_box():
    """The library cuts one place further out on each side, as the authors do."""
    for prototypes, coefficients, boxes in all_cases("yolact_masks"):
        found = reference("yolact_masks")(prototypes, coefficients, boxes)
        theirs = assemble_masks(prototypes.movedim(-1, 0), coefficients.tanh()).sigmoid()
        assert ((found == 0) | torch.isclose(found, theirs)).all()
        for mask, (x1, y1, x2, y2) in zip(found, boxes.tolist(), strict=True):
            spots = [(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1])]
            inside = [p for p in spots if x1 <= p[1] + 0.5 < x2 and y1 <= p[0] + 0.5 < y2]
            assert {tuple(p) for p in mask.nonzero().tolist()} == set(inside)


def test_some_boxes_end_at_centres_in_every_draw():
    for seed in range(4):
        boxes = [case["args"][2] for _, _, case in draw(BY_NAME["yolact_masks"], seed)]
        assert any((b[:, i] % 1 == 0.5).any() for b in boxes for i in (0, 1))
        assert any((b[:, i] % 1 == 0.5).any() for b in boxes for i in (2, 3))


def test_dynamic_conv_is_a_network_of_three_convolutions():
    for features, parameters, locations, unit, hidden in all_cases("dynamic_conv"):
        found = reference("dynamic_conv")(features, parameters, locations, unit, hidden)
        assert found.shape == (len(parameters), *features.shape[1:])
        inputs = len(features) + 2
        for mask, numbers, (x, y) in zip(found, parameters, locations, strict=True):
            net = torch.nn.Sequential(
                torch.nn.Conv2d(inputs, hidden, 1), torch.nn.ReLU(),
                torch.nn.Conv2d(hidden, hidden, 1), torch.nn.ReLU(), torch.nn.Conv2d(hidden, 1, 1),
            )  # fmt: skip
            weights = [net[i].weight for i in (0, 2, 4)] + [net[i].bias for i in (0, 2, 4)]
            assert sum(w.numel() for w in weights) == len(numbers)
            torch.nn.utils.vector_to_parameters(numbers, weights)
            columns, rows = torch.arange(features.shape[2]) + 0.5, torch.arange(features.shape[1]) + 0.5
            ways = torch.stack([(x - columns).expand(len(rows), -1), (y - rows)[:, None].expand(-1, len(columns))])
            torch.testing.assert_close(mask, net(torch.cat([ways / unit, features])[None])[0, 0])


def test_condinst_has_169_parameters():
    """What the page says: 8 features and 8 channels."""
    assert (8 + 2) * 8 + 8 * 8 + 8 + 8 + 8 + 1 == 169
    found = reference("dynamic_conv")(torch.zeros(8, 2, 2), torch.ones(1, 169), torch.zeros(1, 2), 8.0, 8)
    assert found.shape == (1, 2, 2)


def test_dynamic_conv_reads_weights_and_places_as_the_librarys_condinst():
    """A place of its features is 8 pixels; 8 of them are the unit of an object of their level."""
    generator = torch.Generator().manual_seed(0)
    features, parameters = torch.randn(8, 5, 6, generator=generator), torch.randn(3, 169, generator=generator)
    locations = torch.tensor([[1.5, 0.5], [4.5, 3.5], [0.5, 2.5]])
    squares = torch.cat([8 * locations - 4, 8 * locations + 4], dim=1)
    x = torch.cat([relative_coordinates(squares, (5, 6)), features.expand(3, -1, -1, -1)], dim=1)
    for layer, (kernel, bias) in enumerate(split_weights(parameters)):
        x = torch.einsum("noi,nihw->nohw", kernel, x.relu() if layer else x) + bias[:, :, None, None]
    torch.testing.assert_close(reference("dynamic_conv")(features, parameters, locations, 8.0, 8), x[:, 0])


def test_matrix_nms_is_the_librarys():
    for masks, labels, scores, sigma in all_cases("matrix_nms", seeds=12):
        ours = reference("matrix_nms")(masks, labels, scores, sigma)
        torch.testing.assert_close(ours, matrix_nms(masks, labels, scores, sigma))
        assert len(scores.unique()) == len(scores)


def test_a_covered_mask_lowers_less_in_every_draw():
    for seed in range(8):
        masks, labels, scores, sigma = draw(BY_NAME["matrix_nms"], seed)[0][2]["args"]
        lowered = reference("matrix_nms")(masks, labels, scores, sigma) / scores
        third = lowered[scores.argsort(descending=True)[2]]
        assert third < 0.99 and (scores.argsort(descending=True) != torch.arange(5)).any()
        alone = reference("matrix_nms")(
            *[a[scores.argsort(descending=True)[1:3]] for a in (masks, labels, scores)], sigma
        )
        assert alone[1] / scores[scores.argsort(descending=True)[2]] < third - 0.05


def test_a_message_for_each_of_the_misconceptions_of_the_syllabus():
    """Where one of its items can be read in two ways, both are here."""
    names = {wrong.name for exercise in lab.exercises for wrong in exercise.wrong}
    assert {"box rounded", "points rounded", "RoIPool", "no half cell", "not scaled", "one point a bin"} <= names
    assert {"crops, then nearest", "size of the image", "whole image", "wrong object"} <= names
    assert {"threshold before the interpolation", "no threshold", "anything above 0"} <= names
    assert {"every channel", "other channels empty", "softmax over classes", "predicted class"} <= names
    assert {"negatives included", "negatives should be empty"} <= names
    assert {"no crop", "P C", "sigmoid before the product", "tanh lost"} <= names
    assert {"groups=1", "instances mixed", "layer by layer", "bias along the width", "no coordinates"} <= names
    assert {"hard", "no compensation", "wrong triangle", "nothing lowered", "boxes"} <= names
