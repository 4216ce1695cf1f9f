"""RetinaNet against torchvision's with the same random weights: stages, detections, losses, keys; and it learns."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torchvision
from learning import detection_f1, fit
from randomise import randomise
from torch import Tensor, nn
from torchvision.models import resnet as tv_resnet
from torchvision.models.detection import retinanet as oracle
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from segedu.backbones.fpn import FPN, LevelsP6P7
from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.datasets.shapes import draw_shapes
from segedu.detection.retinanet import (
    ANCHOR_SIZES,
    RATIOS,
    RetinaNet,
    postprocess,
    retinanet_loss,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)
from segedu.layers.batch_norm import freeze_batch_norm
from segedu.layers.image_batch import resize_and_pad, resize_boxes
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.ops.boxes import box_iou

SMALL = ((8, 10, 12), (16, 20, 25), (32, 40, 50), (64, 80, 101), (128, 161, 203))
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
# resized to a short side of 64, padded to 64 x 96, 96 x 128 and 64 x 160: that is 3 places of P6, 53 pixels apart
SIZES = [[(60, 90)], [(45, 71), (64, 50)], [(33, 80)]]
VERSIONS = pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(sizes: list[tuple[int, int]]) -> list[Tensor]:
    return [torch.rand(3, *size, generator=generator(i), dtype=torch.float64) for i, size in enumerate(sizes)]


def torchvision_net(v2: bool, **options: object) -> oracle.RetinaNet:
    """A ResNet of four blocks; v1: frozen normalisation with eps 0, P6 from P5. v2: P6 from C5, groups of 4."""
    norm = nn.BatchNorm2d if v2 else partial(torchvision.ops.FrozenBatchNorm2d, eps=0.0)
    body = tv_resnet.ResNet(tv_resnet.BasicBlock, [1, 1, 1, 1], norm_layer=norm)
    layers = {"layer2": "0", "layer3": "1", "layer4": "2"}
    extra = LastLevelP6P7(512 if v2 else 16, 16)
    backbone = BackboneWithFPN(body, layers, [128, 256, 512], 16, extra_blocks=extra)
    head = oracle.RetinaNetHead(16, 9, 4, norm_layer=partial(nn.GroupNorm, 4) if v2 else None)
    if v2:
        head.regression_head._loss_type = "giou"
    anchors = AnchorGenerator(SMALL, (RATIOS,) * 5)
    mean, std = (torch.tensor(x).tolist() for x in (IMAGENET_MEAN, IMAGENET_STD))  # as float32 has them
    net = oracle.RetinaNet(backbone, 4, 64, 160, mean, std, anchors, head, **options)
    return randomise(net)


def our_net(v2: bool) -> RetinaNet:
    body = ResNet(BasicBlock, (1, 1, 1, 1), normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    if not v2:
        freeze_batch_norm(body, eps=0.0)
    extra = LevelsP6P7(512 if v2 else 16, 16, from_features=v2)
    fpn = FPN(body, 16, levels=(2, 3, 4), extra=extra)
    return RetinaNet(fpn, 4, SMALL, norm_groups=4 if v2 else None).double().eval()


def both(v2: bool, **options: object) -> tuple[RetinaNet, oracle.RetinaNet]:
    ours, theirs = our_net(v2), torchvision_net(v2, **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def batch_of(images: list[Tensor], multiple: int = 32) -> tuple[Tensor, list[tuple[int, int]]]:
    return resize_and_pad(images, 64, 160, multiple, fill=torch.tensor(IMAGENET_MEAN).tolist())


# --- parity -----------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("multiple", [32, 1])  # torchvision pads to 32; with 1 a side may be 65 or 101
@torch.no_grad()
def test_every_stage_equals_torchvision(v2: bool, sizes: list[tuple[int, int]], multiple: int) -> None:
    ours, theirs = both(v2)
    images = random_images(sizes)
    theirs.transform.size_divisible = multiple
    batch, got_sizes = batch_of(images, multiple)
    image_list, _ = theirs.transform(images)
    features = list(theirs.backbone(image_list.tensors).values())
    expected = theirs.head(features)
    assert got_sizes == image_list.image_sizes
    for got, wanted in zip(ours.backbone(batch), features, strict=True):
        assert wanted.std() > 0.01  # the weights are such that an error would show
        torch.testing.assert_close(got, wanted, **CLOSE)
    outputs = ours(batch, got_sizes)
    assert list(outputs) == ["logits", "deltas", "anchors", "sizes"]
    torch.testing.assert_close(outputs["logits"], expected["cls_logits"], **CLOSE)
    torch.testing.assert_close(outputs["deltas"], expected["bbox_regression"], **CLOSE)
    assert torch.equal(torch.cat(outputs["anchors"]), theirs.anchor_generator(image_list, features)[0])


@VERSIONS
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("multiple", [32, 1])  # torchvision pads to 32; with 1 a side may be 65 or 101
@torch.no_grad()
def test_detections_equal_torchvision(v2: bool, sizes: list[tuple[int, int]], multiple: int) -> None:
    ours, theirs = both(v2, score_thresh=0.7, topk_candidates=50, detections_per_img=500)
    images = random_images(sizes)
    theirs.transform.size_divisible = multiple
    batch, inside = batch_of(images, multiple)
    options = {"score_threshold": 0.7, "topk_candidates": 50, "max_detections": 500}
    found, expected = postprocess(ours(batch, inside), **options), theirs(images)
    for got, wanted, image, size in zip(found, expected, images, inside, strict=True):
        assert 50 < len(wanted["boxes"]) < 200  # some are dropped for their score, some as no candidates
        boxes = resize_boxes(got["boxes"], size, image.shape[-2:])
        torch.testing.assert_close(boxes, wanted["boxes"], rtol=0, atol=1e-4)
        torch.testing.assert_close(got["scores"], wanted["scores"], **CLOSE)
        assert torch.equal(got["labels"], wanted["labels"])
    ours.head["regression_head"].bbox_reg.bias += 0.01  # a weight that differs is noticed
    moved = postprocess(ours(batch, inside), **options)[0]["boxes"]
    assert moved.shape != found[0]["boxes"].shape or (moved - found[0]["boxes"]).abs().max() > 1e-3


def test_detections_with_the_defaults_equal_torchvision() -> None:
    ours, theirs = both(False)
    images = random_images([(50, 64)])
    batch, sizes = batch_of(images)
    got, wanted = postprocess(ours(batch, sizes))[0], theirs(images)[0]
    assert len(wanted["boxes"]) == 300
    torch.testing.assert_close(got["scores"], wanted["scores"].detach(), **CLOSE)
    assert torch.equal(got["labels"], wanted["labels"])


# --- loss -------------------------------------------------------------------------------------------------------


def scene(anchors: Tensor, seed: int, objects: int = 5) -> dict[str, Tensor]:
    """Boxes near some anchors of the finer levels, and so objects, background and what lies in between."""
    rows = torch.randint(0, len(anchors), (objects,), generator=generator(seed))
    shift = 2 * torch.randn(objects, 4, generator=generator(seed + 1), dtype=torch.float64)
    labels = torch.randint(1, 4, (objects,), generator=generator(seed + 2))
    boxes = anchors[rows] + shift.cumsum(1) * torch.tensor([1.0, 1.0, 0.5, 0.5])
    return {"boxes": boxes, "labels": labels}


def random_outputs(size: tuple[int, int], batch: int = 3, dtype: torch.dtype = torch.float64) -> dict:
    with torch.no_grad():
        outputs = our_net(False)(torch.rand(batch, 3, *size, generator=generator(), dtype=torch.float64))
    count = outputs["logits"].shape[1]
    outputs["logits"] = torch.randn(batch, count, 4, generator=generator(1), dtype=torch.float64).to(dtype)
    outputs["deltas"] = (0.5 * torch.randn(batch, count, 4, generator=generator(2), dtype=torch.float64)).to(dtype)
    outputs["anchors"] = [level.to(dtype) for level in outputs["anchors"]]
    return outputs


NOTHING = {"boxes": torch.zeros(0, 4, dtype=torch.float64), "labels": torch.zeros(0, dtype=torch.int64)}


@VERSIONS
@pytest.mark.parametrize("size", [(64, 96), (96, 128), (53, 71)])
def test_losses_and_gradients_equal_torchvision(v2: bool, size: tuple[int, int]) -> None:
    outputs, theirs = random_outputs(size), torchvision_net(v2)
    anchors = torch.cat(outputs["anchors"])
    targets = [scene(anchors[:800], 0), NOTHING, scene(anchors[:800], 5, 9)]
    heads = {"cls_logits": outputs["logits"], "bbox_regression": outputs["deltas"]}
    matches = theirs.proposal_matcher(torchvision.ops.box_iou(targets[0]["boxes"], anchors))
    assert set(matches.tolist()) >= {-2, -1, 0}
    leaves = [value.clone().requires_grad_() for value in heads.values()]
    expected = theirs.compute_loss(targets, dict(zip(heads, leaves, strict=True)), [anchors] * 3)
    wanted = torch.autograd.grad(expected["classification"] + expected["bbox_regression"], leaves)
    mine = [outputs[key].clone().requires_grad_() for key in ("logits", "deltas")]
    losses = retinanet_loss({**outputs, "logits": mine[0], "deltas": mine[1]}, targets, giou=v2)
    assert list(losses) == ["classification", "boxes", "loss"]
    torch.testing.assert_close(losses["classification"], expected["classification"], **CLOSE)
    torch.testing.assert_close(losses["boxes"], expected["bbox_regression"], rtol=1e-7, atol=1e-7)
    assert losses["loss"] == losses["classification"] + losses["boxes"]
    for got, grad in zip(torch.autograd.grad(losses["loss"], mine), wanted, strict=True):
        assert grad.abs().max() > 1e-3
        torch.testing.assert_close(got, grad, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "change", [{"alpha": 0.26}, {"gamma": 2.01}, {"negative_iou": 0.3}, {"positive_iou": 0.6}, {"giou": True}]
)
def test_every_option_of_the_loss_is_seen(change: dict[str, float]) -> None:
    outputs = random_outputs((64, 96), 1)
    targets = [scene(torch.cat(outputs["anchors"])[:800], 0, 9)]
    usual, changed = retinanet_loss(outputs, targets)["loss"], retinanet_loss(outputs, targets, **change)["loss"]
    assert abs(usual - changed) > 1e-5


def test_loss_by_hand() -> None:
    # One anchor of 10 x 10 with an object 20 wide and 10 high around the same centre, one far off, one in between:
    # IoUs 1/2, 0, 0.45. Deltas 0: the object's differ by log 2. Logits 0: p = 1/2.
    anchors = torch.tensor([[5.0, 0.0, 15.0, 10.0], [50.0, 50.0, 60.0, 60.0], [0.0, 0.0, 9.0, 10.0]])
    outputs = {
        "logits": torch.zeros(1, 3, 3),
        "deltas": torch.zeros(1, 3, 4),
        "anchors": [anchors[:2], anchors[2:]],
        "sizes": [(64, 64)],
    }
    targets = [{"boxes": torch.tensor([[0.0, 0.0, 20.0, 10.0]]), "labels": torch.tensor([2])}]
    losses = retinanet_loss(outputs, targets)
    # the true class with alpha 1/4, two others and the three of the background with 3/4; each 1/4 log 2
    expected = (0.25 + 5 * 0.75) * 0.25 * math.log(2)
    assert losses["classification"].item() == pytest.approx(expected, rel=1e-6)
    assert losses["boxes"].item() == pytest.approx(math.log(2), rel=1e-6)
    half = {**outputs, "logits": outputs["logits"].half(), "deltas": outputs["deltas"].half()}
    assert retinanet_loss(half, targets)["loss"].item() == pytest.approx(expected + math.log(2), rel=1e-6)


def test_no_object_at_all() -> None:
    outputs = random_outputs((64, 64), 2)
    outputs["logits"].requires_grad_()
    losses = retinanet_loss(outputs, [NOTHING, NOTHING])
    assert losses["boxes"] == 0 and losses["classification"] > 0
    losses["loss"].backward()
    assert (outputs["logits"].grad > 0).all()  # every score shall fall
    nothing = postprocess({**outputs, "logits": outputs["logits"] - 100})
    assert [tuple(value.shape) for found in nothing for value in found.values()] == [(0, 4), (0,), (0,)] * 2
    assert nothing[0]["labels"].dtype == torch.int64


# --- postprocess and network ------------------------------------------------------------------------------------


def test_boxes_end_where_the_image_ends() -> None:
    outputs = random_outputs((64, 96), 2) | {"sizes": [(40, 96), (64, 50)]}
    for found, (h, w) in zip(postprocess(outputs), outputs["sizes"], strict=True):
        boxes, scores = found["boxes"], found["scores"]
        assert boxes.amin() >= 0 and boxes[:, 2].amax() == w and boxes[:, 3].amax() == h
        assert torch.equal(scores, scores.sort(descending=True).values)
        iou = box_iou(boxes, boxes).triu(1) * (found["labels"][:, None] == found["labels"])
        assert iou.max() <= 0.5


def test_half_precision() -> None:
    single = random_outputs((64, 96), 1, torch.float32)
    half = {**single, "logits": single["logits"].half(), "deltas": single["deltas"].half()}
    rounded = {**single, "logits": half["logits"].float(), "deltas": half["deltas"].float()}
    for got, wanted in zip(postprocess(half)[0].values(), postprocess(rounded)[0].values(), strict=True):
        assert torch.equal(got, wanted)
    net = our_net(False).to(torch.bfloat16)
    outputs = net(torch.rand(1, 3, 64, 96).to(torch.bfloat16))
    assert outputs["logits"].dtype == torch.bfloat16 and outputs["anchors"][0].dtype == torch.float32


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_devices(device: str) -> None:
    net = our_net(False).to(device)
    outputs = net(torch.rand(1, 3, 64, 96, generator=generator(), dtype=torch.float64).to(device))
    target = {
        "boxes": torch.tensor([[4.0, 5.0, 20.0, 18.0]], device=device),
        "labels": torch.tensor([2], device=device),
    }
    tensors = [*retinanet_loss(outputs, [target]).values(), *postprocess(outputs)[0].values(), *outputs["anchors"]]
    assert {tensor.device.type for tensor in tensors} == {device}


def test_untrained_scores_are_the_prior() -> None:
    torch.manual_seed(0)
    body = ResNet(BasicBlock, (1, 1, 1, 1), (4, 4, 4, 4))
    net = RetinaNet(FPN(body, 8, levels=(1, 2)), 3, ((8,), (16,)), norm_groups=2).eval()
    scores = net(torch.rand(1, 3, 32, 32))["logits"].sigmoid()
    assert scores.mean().item() == pytest.approx(0.01, rel=0.1)
    assert postprocess(net(torch.rand(1, 3, 32, 32)))[0]["boxes"].shape == (0, 4)


@torch.no_grad()
def test_padding_is_no_part_of_an_image() -> None:
    # An image alone, and with black in place of the padding: the anchors lie where they lay.
    net = our_net(False)
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    outputs = net(torch.cat([image, torch.zeros(1, 3, 64, 64, dtype=torch.float64)], dim=3), [(64, 64)])
    outputs["logits"] = outputs["logits"] + 5
    assert postprocess(outputs)[0]["boxes"].amax() == 64
    assert [len(level) for level in outputs["anchors"]] == [9 * 8 * 16, 9 * 4 * 8, 9 * 2 * 4, 9 * 2, 9]


@pytest.mark.parametrize(
    ("builder", "name"),
    [
        (retinanet_resnet50_fpn, "RetinaNet_ResNet50_FPN_Weights"),
        (retinanet_resnet50_fpn_v2, "RetinaNet_ResNet50_FPN_V2_Weights"),
    ],
    ids=["v1", "v2"],
)
def test_official_state_dict_loads_strictly(builder: object, name: str) -> None:
    meta = getattr(oracle, name).COCO_V1.meta
    with torch.device("meta"):
        ours = builder()
        theirs = getattr(oracle, builder.__name__)(weights=None, weights_backbone=None)
    state = theirs.state_dict()
    if builder is retinanet_resnet50_fpn:  # its file has no counters, for it was trained frozen
        state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert {key: value.shape for key, value in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
    ours.load_state_dict(state, strict=True, assign=True)
    assert sum(p.numel() for p in ours.parameters()) == meta["num_params"]
    assert ours.backbone.fpn.extra_blocks.from_features != theirs.backbone.fpn.extra_blocks.use_P5
    norms = [module.eps for module in ours.modules() if hasattr(module, "eps")]
    assert set(norms) == ({0.0} if builder is retinanet_resnet50_fpn else {1e-5})
    assert ANCHOR_SIZES == oracle._default_anchorgen().sizes
    kept = theirs.score_thresh, theirs.nms_thresh, theirs.topk_candidates, theirs.detections_per_img
    assert tuple(postprocess.__wrapped__.__kwdefaults__.values()) == kept
    matcher = theirs.proposal_matcher
    assert tuple(retinanet_loss.__kwdefaults__.values())[:2] == (matcher.low_threshold, matcher.high_threshold)


@pytest.mark.parametrize("key", ["head.classification_head.cls_logits.weight", "backbone.fpn.extra_blocks.p7.bias"])
def test_a_missing_key_is_noticed(key: str) -> None:
    state = torchvision_net(False).state_dict()
    del state[key]
    with pytest.raises(RuntimeError, match="Missing key"):
        our_net(False).load_state_dict(state, strict=True)


@pytest.mark.learns
def test_learns_two_scenes() -> None:
    scenes = [draw_shapes((7, i)) for i in range(2)]
    images = torch.stack([sample["image"] for sample in scenes])
    torch.manual_seed(0)
    body = ResNet(BasicBlock, (1, 1, 1, 1), (16, 24, 32, 32))
    net = RetinaNet(FPN(body, 32, levels=(1, 2, 3)), 4, SMALL[:3], norm_groups=8)
    fit(net, lambda: retinanet_loss(net(images), scenes)["loss"], steps=100)
    assert detection_f1(postprocess(net(images), score_threshold=0.5), scenes) > 0.6


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda o: [o], TypeError, "outputs has type list, expected a dict with the keys logits, deltas"),
        (lambda o: {"logits": o["logits"]}, ValueError, "outputs has the keys ['logits'], expected"),
        (lambda o: {**o, "logits": o["logits"][0]}, ValueError, "outputs['logits'] has shape"),
        (lambda o: {**o, "deltas": o["deltas"][:, 1:]}, ValueError, "outputs['deltas'] has shape"),
        (lambda o: {**o, "deltas": o["deltas"].long()}, TypeError, "outputs['deltas'] has dtype torch.int64"),
        (lambda o: {**o, "anchors": o["anchors"][1:]}, ValueError, "outputs['logits'] has shape"),
        (
            lambda o: {**o, "sizes": o["sizes"][1:]},
            ValueError,
            "outputs['sizes'] has 0 entries, expected 1, one for each",
        ),
    ],
)
def test_bad_outputs(change: object, error: type[Exception], words: str) -> None:
    outputs = change(random_outputs((64, 64), 1))
    for function in (postprocess, lambda bad: retinanet_loss(bad, [NOTHING])):
        with pytest.raises(error) as caught:
            function(outputs)
        assert str(caught.value).startswith(words)


def test_bad_input() -> None:
    outputs = random_outputs((64, 64), 1)
    broken = {**outputs, "logits": outputs["logits"] * torch.nan}
    with pytest.raises(ValueError, match="contains NaN, expected finite values"):
        postprocess(broken)
    with pytest.raises(ValueError, match="targets has 2 entries, expected 1, one for each image"):
        retinanet_loss(outputs, [NOTHING] * 2)
    wrong = {"boxes": torch.tensor([[0.0, 0.0, 1.0, 1.0]]), "labels": torch.tensor([4])}
    with pytest.raises(ValueError, match="expected 1 to 3"):
        retinanet_loss(outputs, [wrong])
    net = our_net(False)
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"images has shape \(3, 64, 64\), expected"):
        net(images[0])
    with pytest.raises(ValueError, match=r"sizes\[0\] is \(65, 64\), expected"):
        net(images, [(65, 64)])
    with pytest.raises(ValueError, match="anchor_sizes has 3 entries, expected 5, one for each level"):
        RetinaNet(net.backbone, 4, SMALL[:3])
    with pytest.raises(ValueError, match="num_classes is 1, expected an integer of at least 2"):
        RetinaNet(net.backbone, 1)
