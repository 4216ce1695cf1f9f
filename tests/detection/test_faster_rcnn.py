"""Faster R-CNN beside torchvision's: stages, detections, losses; what it refuses; that it learns."""

from __future__ import annotations

import inspect

import pytest
import torch
from detection.scenes import scenes, small_pyramid
from detection.torchvision_twins import (
    BATCHES,
    DETECTIONS,
    IMAGES,
    batch_of,
    draw_images,
    draw_targets,
    fix_samplers,
    twins,
)
from learning import detection_f1, fit
from torch import Tensor
from torchvision.models.detection import fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign

from segedu.detection.fast_rcnn import WEIGHTS, TwoLayerHead
from segedu.detection.faster_rcnn import (
    ANCHOR_SAMPLING,
    MIN_SIZE,
    RPN,
    FasterRCNN,
    faster_rcnn_loss,
    faster_rcnn_resnet50_fpn,
    faster_rcnn_resnet50_fpn_v2,
    postprocess,
    propose,
)
from segedu.layers.image_batch import resize_boxes
from segedu.layers.roi_levels import assign_levels, pool_from_levels

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
KEYS = {"objectness", "anchor_deltas", "anchors", "class_logits", "deltas", "proposals", "sizes", "features"}


@pytest.fixture(scope="module")
def pair():
    return twins()


def their_stages(theirs: torch.nn.Module, images: list[Tensor]) -> dict[str, object]:
    """What torchvision's detector has on its way, in evaluation."""
    batch = theirs.transform(images)[0]
    features = theirs.backbone(batch.tensors)
    logits, deltas = concat_box_prediction_layers(*theirs.rpn.head(list(features.values())))
    anchors = theirs.rpn.anchor_generator(batch, list(features.values()))
    proposals = theirs.rpn(batch, features)[0]
    heads = theirs.roi_heads
    vectors = heads.box_head(heads.box_roi_pool(features, proposals, batch.image_sizes))
    class_logits, moves = heads.box_predictor(vectors)
    return {
        "images": batch,
        "features": list(features.values()),
        "objectness": logits.reshape(len(images), -1),
        "anchor_deltas": deltas.reshape(len(images), -1, 4),
        "anchors": anchors[0],
        "proposals": proposals,
        "class_logits": class_logits,
        "deltas": moves.reshape(len(moves), -1, 4),
    }


@torch.no_grad()
@pytest.mark.parametrize(("sizes", "multiple"), BATCHES, ids=str)
def test_every_stage_is_torchvisions(pair, sizes, multiple) -> None:
    theirs, ours = pair
    theirs.transform.size_divisible = multiple
    theirs.roi_heads.box_roi_pool.scales = None  # it remembers the scale of the first batch
    images = draw_images(sizes)
    batch, inside = batch_of(images, multiple)
    expected, outputs = their_stages(theirs, images), ours(batch, inside)
    assert set(outputs) == KEYS
    assert inside == [tuple(size) for size in expected["images"].image_sizes]
    for level, their_level in zip(outputs["features"], expected["features"], strict=True):
        torch.testing.assert_close(level, their_level, **CLOSE)
    for key in ("objectness", "anchor_deltas", "class_logits", "deltas"):
        torch.testing.assert_close(outputs[key], expected[key], **CLOSE)
    assert torch.equal(torch.cat(outputs["anchors"]), expected["anchors"])
    for boxes, their_boxes in zip(outputs["proposals"], expected["proposals"], strict=True):
        assert 20 < len(boxes) <= 60
        torch.testing.assert_close(boxes, their_boxes, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize(("sizes", "multiple"), BATCHES, ids=str)
def test_detections_are_torchvisions(pair, sizes, multiple) -> None:
    theirs, ours = pair
    theirs.transform.size_divisible = multiple
    theirs.roi_heads.box_roi_pool.scales = None
    images = draw_images(sizes)
    batch, inside = batch_of(images, multiple)
    for size, there, expected, found in zip(
        sizes, inside, theirs(images), postprocess(ours(batch, inside), max_detections=DETECTIONS), strict=True
    ):
        assert len(found["scores"]) == DETECTIONS and len(found["labels"].unique()) > 1
        assert torch.equal(found["labels"], expected["labels"])
        torch.testing.assert_close(found["scores"], expected["scores"], **CLOSE)
        # their ratio of sizes is a float32
        torch.testing.assert_close(resize_boxes(found["boxes"], there, size), expected["boxes"], rtol=1e-6, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["rpn.head.bbox_pred.weight", "roi_heads.box_head.fc6.weight", "backbone.body.conv1.weight"]
)
def test_another_weight_gives_other_detections(name) -> None:
    theirs, ours = twins()
    images = draw_images(IMAGES[:1])
    batch, inside = batch_of(images)
    ours.state_dict()[name] += 0.001
    found, expected = postprocess(ours(batch, inside), max_detections=DETECTIONS)[0], theirs(images)[0]
    same = found["scores"].shape == expected["scores"].shape
    assert not (same and torch.allclose(found["scores"], expected["scores"], **CLOSE))


@pytest.mark.parametrize("counts", [(3, 0, 5), (1, 1, 2), (0, 0, 0)], ids=str)
def test_losses_and_gradients_are_torchvisions(monkeypatch, counts) -> None:
    fix_samplers(monkeypatch)
    theirs, ours = twins()
    images = draw_images(IMAGES)
    batch, inside = batch_of(images)
    targets = draw_targets(inside, counts)
    theirs.train()
    # their transform would resize the targets too; ours are those of the batch already
    stack = ImageList(ours.backbone.body.normalize(batch), inside)
    features = theirs.backbone(stack.tensors)
    proposals, first = theirs.rpn(stack, features, targets)
    expected = {**theirs.roi_heads(features, proposals, inside, targets)[1], **first}
    losses = faster_rcnn_loss(ours(batch, inside, targets), targets)
    names = ("objectness", "anchor_box", "classes", "box")
    their_names = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
    for name, their_name in zip(names, their_names, strict=True):
        torch.testing.assert_close(losses[name], expected[their_name], **CLOSE)
        assert (losses[name] > 1e-4) == (sum(counts) > 0 or "box" not in name)
    torch.testing.assert_close(losses["loss"], sum(losses[name] for name in names), **CLOSE)
    losses["loss"].backward()
    sum(expected.values()).backward()
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, **CLOSE)
    assert all((p.grad != 0).any() for name, p in ours.named_parameters() if "body" in name or "cls" in name)


@torch.no_grad()
def test_version_2_is_torchvisions() -> None:
    theirs, ours = twins(v2=True)
    images = draw_images(IMAGES)
    batch, inside = batch_of(images)
    expected, outputs = their_stages(theirs, images), ours(batch, inside)
    for key in ("objectness", "anchor_deltas", "class_logits", "deltas"):
        torch.testing.assert_close(outputs[key], expected[key], **CLOSE)
    for found, other in zip(postprocess(outputs, max_detections=DETECTIONS), theirs(images), strict=True):
        torch.testing.assert_close(found["scores"], other["scores"], **CLOSE)


@pytest.mark.parametrize(
    ("their_build", "build"),
    [
        (fasterrcnn_resnet50_fpn, faster_rcnn_resnet50_fpn),
        (fasterrcnn_resnet50_fpn_v2, faster_rcnn_resnet50_fpn_v2),
    ],
)
def test_state_dict_of_torchvisions_network_loads(their_build, build) -> None:
    with torch.device("meta"):
        theirs, ours = their_build(weights=None, weights_backbone=None), build()
    state = theirs.state_dict()
    ours.load_state_dict(state, strict=True)
    frozen = build is faster_rcnn_resnet50_fpn  # counts of batches are dropped where nothing is counted
    assert set(ours.state_dict()) == {key for key in state if not (frozen and key.endswith("num_batches_tracked"))}


def test_constants_are_torchvisions() -> None:
    with torch.device("meta"):
        theirs, ours = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None), faster_rcnn_resnet50_fpn()
    rpn, heads = theirs.rpn, theirs.roi_heads
    assert rpn.anchor_generator.sizes == ours.rpn.sizes and rpn.anchor_generator.aspect_ratios[0] == ours.rpn.ratios
    assert (rpn._post_nms_top_n, rpn._pre_nms_top_n) == ({"training": 2000, "testing": 1000},) * 2
    assert ours.max_proposals == (2000, 1000)
    defaults = {name: p.default for name, p in inspect.signature(propose).parameters.items()}
    assert (rpn.nms_thresh, rpn.min_size, rpn.score_thresh) == (defaults["iou_threshold"], MIN_SIZE, 0)
    for matcher, sampler, sampling in (
        (rpn.proposal_matcher, rpn.fg_bg_sampler, ANCHOR_SAMPLING),
        (heads.proposal_matcher, heads.fg_bg_sampler, ours.sampling),
    ):
        assert (sampler.batch_size_per_image, sampler.positive_fraction) == (sampling.count, sampling.positive_fraction)
        assert matcher.high_threshold == sampling.positive_iou and matcher.low_threshold == (
            sampling.negative_iou or sampling.positive_iou
        )
    defaults = {name: p.default for name, p in inspect.signature(postprocess).parameters.items()}
    assert heads.score_thresh == defaults["score_threshold"] and heads.nms_thresh == defaults["iou_threshold"]
    assert heads.detections_per_img == defaults["max_detections"] and heads.box_coder.weights == WEIGHTS
    assert heads.box_roi_pool.output_size == (ours.roi_heads["box_head"].size,) * 2


# --- parts by hand ----------------------------------------------------------------------------------------------


def test_levels_by_the_equation_and_as_torchvision() -> None:
    sides = torch.tensor([1.0, 55.9, 56, 111.9, 112, 223.9, 224, 447.9, 448, 5000], dtype=torch.float64)
    boxes = torch.stack([0 * sides, 0 * sides, 2 * sides, sides / 2], 1)
    assert assign_levels(boxes, (4, 8, 16, 32)).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert assign_levels(boxes[:0], (4, 8)).shape == (0,)
    features = [torch.rand(2, 3, 128 // s, 160 // s, dtype=torch.float64) for s in (1, 2, 4)]
    drawn = [torch.rand(n, 4, dtype=torch.float64) * 300 for n in (40, 0)]
    drawn = [torch.cat([b[:, :2], b[:, :2] + 1 + 2 * b[:, 2:]], 1) for b in drawn]
    pool = MultiScaleRoIAlign(["0", "1", "2"], 5, 2)
    expected = pool({str(i): x for i, x in enumerate(features)}, drawn, [(512, 640), (500, 600)])
    assert len(assign_levels(drawn[0], (4, 8, 16)).unique()) == 3
    torch.testing.assert_close(pool_from_levels(features, drawn, 5, (4, 8, 16)), expected, **CLOSE)


def test_proposals_by_hand() -> None:
    anchors = [torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 7], [20, 20, 20.0005, 28]]), torch.tensor([[0.0, 0, 8, 8.5]])]
    outputs = {
        "objectness": torch.tensor([[2.0, 1.0, 3.0, 0.0]]),
        "anchor_deltas": torch.zeros(1, 4, 4),
        "anchors": anchors,
    }
    # the second overlaps the first by 7/8, the third is too thin, the fourth is on another level
    assert propose(outputs, [(6, 30)])[0].tolist() == [[0, 0, 8, 6], [0, 0, 8, 6]]
    assert propose(outputs, [(30, 30)], max_proposals=1)[0].tolist() == [[0, 0, 8, 8.5]]  # the best was too thin


# --- what is no matter of parity --------------------------------------------------------------------------------


def small(max_proposals: tuple[int, int] = (40, 20), num_classes: int = 4) -> FasterRCNN:
    torch.manual_seed(0)
    rpn = RPN(16, (8, 12, 16, 24, 32))
    return FasterRCNN(small_pyramid(16), num_classes, rpn, TwoLayerHead(16, 5, 32), max_proposals=max_proposals)


def test_the_generator_draws() -> None:
    model, (images, targets) = small(), scenes(2)
    losses = []
    for seed in (1, 1, 2):
        generator = torch.Generator().manual_seed(seed)
        losses.append(faster_rcnn_loss(model(images, None, targets, generator), targets, generator=generator)["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_targets_only_choose_the_proposals() -> None:
    model, (images, targets) = small().eval(), scenes(2)
    without, with_them = model(images), model(images, targets=targets)
    assert without.keys() == with_them.keys()
    assert torch.equal(without["objectness"], with_them["objectness"])
    for boxes, target in zip(with_them["proposals"], targets, strict=True):
        assert all(any(torch.equal(box, other) for other in boxes) for box in target["boxes"])


def test_backward_reaches_every_parameter_and_no_object_is_no_trouble() -> None:
    model, (images, targets) = small(), scenes(2)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    faster_rcnn_loss(model(images, targets=[targets[0], empty]), [targets[0], empty])["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    losses = faster_rcnn_loss(model(images, targets=[empty, empty]), [empty, empty])
    assert losses["box"] == losses["anchor_box"] == 0 and losses["loss"].isfinite()
    losses["loss"].backward()


def test_nothing_found_is_empty() -> None:
    found = postprocess(small().eval()(scenes(2)[0]), score_threshold=1.0)
    assert [{key: tuple(value.shape) for key, value in f.items()} for f in found] == [
        {"boxes": (0, 4), "labels": (0,), "scores": (0,)}
    ] * 2


def test_bad_input() -> None:
    model, (images, targets) = small(), scenes(2)
    outputs = model(images, targets=targets)
    bad = [targets[0], {**targets[1], "labels": targets[1]["labels"] + 3}]
    for error, words, call in (
        (ValueError, "images has shape", lambda: model(images[0])),
        (TypeError, "images has dtype torch.uint8", lambda: model((255 * images).byte())),
        (ValueError, "sizes has 1 entries", lambda: model(images, [(64, 64)])),
        (ValueError, r"sizes\[1\] is \(65, 64\)", lambda: model(images, [(64, 64), (65, 64)])),
        (TypeError, "targets has type dict", lambda: model(images, targets=targets[0])),
        (ValueError, "targets has 1 entries", lambda: model(images, targets=targets[:1])),
        (ValueError, r"targets\[1\]\['labels'\] has the values", lambda: model(images, targets=bad)),
        (ValueError, r"targets\[1\]\['labels'\] has the values", lambda: faster_rcnn_loss(outputs, bad)),
        (ValueError, "outputs has the keys", lambda: faster_rcnn_loss({"objectness": 0}, targets)),
        (TypeError, "outputs has type list", lambda: postprocess([outputs])),
        (ValueError, "NaN", lambda: postprocess(outputs | {"class_logits": outputs["class_logits"] * torch.nan})),
        (
            ValueError,
            "features has 5 entries, expected 3, one for each level of anchors",
            lambda: FasterRCNN(model.backbone, 4, RPN(16, (8, 16, 32)))(images),
        ),
        (ValueError, "sizes is", lambda: RPN(16, (8, (16, 24)))),
        (ValueError, "num_classes is 1", lambda: FasterRCNN(model.backbone, 1)),
    ):
        with pytest.raises(error, match=words):
            call()


@pytest.mark.learns
def test_learns_four_scenes() -> None:
    images, targets = scenes(4)
    torch.manual_seed(0)
    model = small((100, 50))
    fit(model, lambda: faster_rcnn_loss(model(images, targets=targets), targets)["loss"], steps=120)
    assert detection_f1(postprocess(model(images)), targets) > 0.6
