"""Mask R-CNN beside torchvision's: mask logits, masks, losses; its targets by hand; what it refuses; that it learns."""

from __future__ import annotations

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
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image

from segedu.detection.fast_rcnn import TwoLayerHead
from segedu.detection.faster_rcnn import RPN, faster_rcnn_loss
from segedu.instance.mask_rcnn import (
    KEYS,
    MaskHead,
    MaskRCNN,
    class_masks,
    mask_rcnn_loss,
    mask_rcnn_resnet50_fpn,
    mask_rcnn_resnet50_fpn_v2,
    mask_targets,
    positive_proposals,
    postprocess,
)
from segedu.layers.image_batch import resize_boxes

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
NONE = {
    "boxes": torch.zeros(0, 4),
    "labels": torch.zeros(0, dtype=torch.int64),
    "masks": torch.zeros(0, 64, 64, dtype=torch.bool),
}


@pytest.fixture(scope="module")
def pair():
    return twins(masks=True)


def forget_scales(theirs: torch.nn.Module) -> None:
    """torchvision's pooling remembers the scale of its first batch."""
    theirs.roi_heads.box_roi_pool.scales = theirs.roi_heads.mask_roi_pool.scales = None


@torch.no_grad()
@pytest.mark.parametrize(("sizes", "multiple"), BATCHES, ids=str)
def test_instances_and_masks_are_torchvisions(pair, sizes, multiple) -> None:
    theirs, ours = pair
    theirs.transform.size_divisible = multiple
    forget_scales(theirs)
    images = draw_images(sizes)
    batch, inside = batch_of(images, multiple)
    stack = theirs.transform(images)[0]
    features = theirs.backbone(stack.tensors)
    expected = theirs.roi_heads(features, theirs.rpn(stack, features)[0], stack.image_sizes)[0]
    outputs = ours(batch, inside)
    masks = class_masks(outputs)
    assert masks.shape == (DETECTIONS * len(sizes), 28, 28) and masks.std() > 0.05
    torch.testing.assert_close(masks, torch.cat([e["masks"][:, 0] for e in expected]), **CLOSE)
    for found, other, size in zip(postprocess(outputs), expected, inside, strict=True):
        assert torch.equal(found["labels"], other["labels"])
        for key in ("boxes", "scores"):
            torch.testing.assert_close(found[key], other[key], **CLOSE)
        assert found["masks"].shape == (DETECTIONS, *size) and found["masks"].dtype == torch.bool


def test_pasted_masks_are_torchvisions_but_for_a_pixel_at_the_edge() -> None:
    """torchvision rounds a box to whole pixels before it pastes, we do not."""
    size = (90, 120)
    boxes = draw_targets([size], [12])[0]["boxes"]
    labels, place = torch.ones(12, dtype=torch.int64), torch.linspace(-3, 3, 28, dtype=torch.float64)
    logits = (2 - (place[:, None] ** 2 + 0.5 * place**2)).expand(12, 2, 28, 28).contiguous()  # an ellipse
    instances = [{"boxes": boxes, "labels": labels, "scores": torch.linspace(1, 0.5, 12)}]
    outputs = dict.fromkeys(KEYS) | {"instances": instances, "mask_logits": logits, "sizes": [size]}
    ours = postprocess(outputs)[0]["masks"]
    theirs = paste_masks_in_image(logits[:, 1:].sigmoid(), boxes, size)[:, 0] > 0.5
    overlap = (ours & theirs).sum((1, 2)) / (ours | theirs).sum((1, 2))
    assert overlap.min() > 0.75 and overlap.mean() > 0.9
    inside = -torch.nn.functional.max_pool2d(-ours.float(), 3, 1, 1) > 0
    outside = torch.nn.functional.max_pool2d(ours.float(), 3, 1, 1) > 0
    assert theirs[inside].all() and not theirs[~outside].any()


@torch.no_grad()
@pytest.mark.parametrize(("sizes", "multiple"), BATCHES, ids=str)
def test_whole_detector_is_torchvisions(pair, sizes, multiple) -> None:
    theirs, ours = pair
    theirs.transform.size_divisible = multiple
    forget_scales(theirs)
    images = draw_images(sizes)
    batch, inside = batch_of(images, multiple)
    for size, there, found, expected in zip(
        sizes, inside, postprocess(ours(batch, inside)), theirs(images), strict=True
    ):
        assert torch.equal(found["labels"], expected["labels"])
        torch.testing.assert_close(found["scores"], expected["scores"], **CLOSE)
        # their ratio of sizes is a float32
        torch.testing.assert_close(resize_boxes(found["boxes"], there, size), expected["boxes"], rtol=1e-6, atol=1e-6)
        assert expected["masks"].shape[-2:] == size


@torch.no_grad()
def test_another_weight_gives_other_masks() -> None:
    theirs, ours = twins(masks=True)
    images = draw_images(IMAGES[:1])
    before = class_masks(ours(*batch_of(images)))
    ours.state_dict()["roi_heads.mask_head.1.0.weight"] += 1e-4
    after = class_masks(ours(*batch_of(images)))
    assert before.shape == after.shape and not torch.allclose(before, after, **CLOSE)


@pytest.mark.parametrize("counts", [(3, 0, 5), (0, 0, 0)], ids=str)
def test_losses_and_gradients_are_torchvisions(monkeypatch, counts) -> None:
    fix_samplers(monkeypatch)
    theirs, ours = twins(masks=True)
    batch, inside = batch_of(draw_images(IMAGES))
    targets = draw_targets(inside, counts)
    theirs.train()
    stack = ImageList(ours.backbone.body.normalize(batch), inside)
    # each image's masks have its own size; torchvision's pooling takes them so
    features = theirs.backbone(stack.tensors)
    proposals, first = theirs.rpn(stack, features, targets)
    expected = {**theirs.roi_heads(features, proposals, inside, targets)[1], **first}
    losses = mask_rcnn_loss(ours(batch, inside, targets), targets)
    torch.testing.assert_close(losses["mask"], expected["loss_mask"], **CLOSE)
    assert (losses["mask"] > 0.1) == (sum(counts) > 0)
    torch.testing.assert_close(losses["loss"], sum(expected.values()), **CLOSE)
    assert set(losses) == {"objectness", "anchor_box", "classes", "box", "mask", "loss"}
    losses["loss"].backward()
    sum(expected.values()).backward()
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, **CLOSE)
    drawn = [p.grad.abs().sum() > 0 for name, p in ours.named_parameters() if "mask_" in name]
    assert all(drawn) if sum(counts) else not any(drawn)


@torch.no_grad()
def test_version_2_is_torchvisions() -> None:
    theirs, ours = twins(masks=True, v2=True)
    images = draw_images(IMAGES)
    stack = theirs.transform(images)[0]
    features = theirs.backbone(stack.tensors)
    expected = theirs.roi_heads(features, theirs.rpn(stack, features)[0], stack.image_sizes)[0]
    masks = class_masks(ours(*batch_of(images)))
    torch.testing.assert_close(masks, torch.cat([e["masks"][:, 0] for e in expected]), **CLOSE)


@pytest.mark.parametrize(
    ("their_build", "build"),
    [(maskrcnn_resnet50_fpn, mask_rcnn_resnet50_fpn), (maskrcnn_resnet50_fpn_v2, mask_rcnn_resnet50_fpn_v2)],
)
def test_state_dict_of_torchvisions_network_loads(their_build, build) -> None:
    with torch.device("meta"):
        theirs, ours = their_build(weights=None, weights_backbone=None), build()
    state = theirs.state_dict()
    ours.load_state_dict(state, strict=True)
    frozen = build is mask_rcnn_resnet50_fpn  # counts of batches are dropped where nothing is counted
    assert set(ours.state_dict()) == {key for key in state if not (frozen and key.endswith("num_batches_tracked"))}
    assert theirs.roi_heads.mask_roi_pool.output_size == (ours.roi_heads["mask_head"].size,) * 2


# --- by hand ----------------------------------------------------------------------------------------------------


def test_targets_by_hand() -> None:
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :, :4] = True
    masks[1, 4:, 4:] = True
    target = {"boxes": torch.tensor([[0.0, 0, 4, 8], [4, 4, 8, 8]]), "labels": torch.tensor([3, 1]), "masks": masks}
    boxes = torch.tensor([[4.0, 4, 8, 8], [0, 0, 4, 8], [4, 4, 8, 7], [5, 0, 8, 2], [0, 0, 5, 8]])
    found = positive_proposals(boxes, target)
    assert found["boxes"].tolist() == boxes[[0, 1, 2, 4]].tolist() and found["labels"].tolist() == [1, 3, 1, 3]
    drawn = mask_targets(found["boxes"], target, 4)
    assert drawn.shape == (4, 4, 4)
    # RoIAlign with its half-pixel offset reads at 4.5, 5.5, ...: inside; and at 3.5, between the last column and 0
    torch.testing.assert_close(drawn[0], torch.ones(4, 4))
    torch.testing.assert_close(drawn[1], torch.tensor([1.0, 1, 1, 0.5]).expand(4, 4))
    assert positive_proposals(boxes, NONE)["boxes"].shape == (0, 4) and mask_targets(boxes[:0], NONE, 4).shape == (
        0,
        4,
        4,
    )


def small(**options: object) -> MaskRCNN:
    torch.manual_seed(0)
    parts = {"rpn": RPN(16, (8, 12, 16, 24, 32)), "head": TwoLayerHead(16, 5, 32), "max_proposals": (100, 50)}
    return MaskRCNN(small_pyramid(16), 4, MaskHead(16, depth=2), **{**parts, **options})


def test_keys_are_the_same_with_and_without_targets() -> None:
    model, (images, targets) = small(detection_options={"max_detections": 3, "score_threshold": 0.0}).eval(), scenes(2)
    without, with_them = model(images), model(images, targets=targets)
    assert without.keys() == with_them.keys()
    assert [len(instance["boxes"]) for instance in without["instances"]] == [3, 3]
    assert without["mask_logits"].shape == (6, 4, 28, 28)
    with pytest.raises(ValueError, match="has no scores, expected the outputs of a call without targets"):
        postprocess(with_them)
    found = postprocess(without, score_threshold=1.0)
    assert [tuple(f["masks"].shape) for f in found] == [(0, 64, 64)] * 2
    with torch.no_grad():  # a mask for each image in its own size
        found = postprocess(model(images, [(64, 64), (40, 50)]))
    assert [tuple(f["masks"].shape) for f in found] == [(3, 64, 64), (3, 40, 50)]


def test_backward_reaches_every_parameter_and_no_object_is_no_trouble() -> None:
    model, (images, targets) = small(), scenes(2)
    for given in ([targets[0], NONE], [NONE, NONE]):
        model.zero_grad()
        losses = mask_rcnn_loss(model(images, targets=given), given)
        losses["loss"].backward()
        assert losses["loss"].isfinite()
        if given[0] is not NONE:
            assert not [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
            rest = faster_rcnn_loss(model(images, targets=given), given)
            assert set(losses) - set(rest) == {"mask"}
    assert losses["mask"] == 0


def test_bad_input() -> None:
    model, (images, targets) = small(), scenes(2)
    outputs = model(images, targets=targets)
    no_masks = [{key: target[key] for key in ("boxes", "labels")} for target in targets]
    small_masks = [target | {"masks": target["masks"][..., :60]} for target in targets]
    for error, words, call in (
        (
            ValueError,
            r"targets\[0\] has the keys .*, expected boxes, labels, masks",
            lambda: model(images, targets=no_masks),
        ),
        (ValueError, r"targets\[0\]\['masks'\] has shape", lambda: model(images, targets=small_masks)),
        (ValueError, r"targets\[0\]\['masks'\] has shape", lambda: mask_rcnn_loss(outputs, small_masks)),
        (ValueError, "outputs has the keys", lambda: mask_rcnn_loss({}, targets)),
        (ValueError, "outputs has the keys", lambda: postprocess({})),
        (TypeError, "outputs has type", lambda: postprocess([])),
    ):
        with pytest.raises(error, match=words):
            call()


@pytest.mark.learns
def test_learns_four_scenes() -> None:
    images, targets = scenes(4)
    torch.manual_seed(0)
    model = small()
    fit(model, lambda: mask_rcnn_loss(model(images, targets=targets), targets)["loss"], steps=120)
    with torch.no_grad():
        found = postprocess(model(images))
    assert detection_f1(found, targets) > 0.6 and detection_f1(found, targets, of="masks") > 0.6
