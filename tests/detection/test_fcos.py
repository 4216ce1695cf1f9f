"""FCOS against torchvision's with the same random weights: stages, detections, losses, keys; by hand; and it learns."""

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
from torchvision.models.detection import fcos as oracle
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from segedu.backbones.fpn import FPN, LevelsP6P7
from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.datasets.shapes import draw_shapes
from segedu.detection.fcos import (
    FCOS,
    STRIDES,
    decode_distances,
    encode_distances,
    fcos_loss,
    fcos_resnet50_fpn,
    match_locations,
    postprocess,
)
from segedu.layers.batch_norm import freeze_batch_norm
from segedu.layers.image_batch import resize_and_pad, resize_boxes
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.ops.boxes import box_iou

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
# resized to a short side of 64, padded to 64 x 96, 96 x 128 and 64 x 160: that is 3 places of P6, 53 pixels apart
SIZES = [[(60, 90)], [(45, 71), (64, 50)], [(33, 80)]]
NOTHING = {"boxes": torch.zeros(0, 4, dtype=torch.float64), "labels": torch.zeros(0, dtype=torch.int64)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def torchvision_net(**options: object) -> oracle.FCOS:
    """A ResNet of four blocks with frozen normalisation, heads of 16 channels in 4 groups."""
    body = tv_resnet.ResNet(tv_resnet.BasicBlock, [1, 1, 1, 1], norm_layer=torchvision.ops.FrozenBatchNorm2d)
    layers = {"layer2": "0", "layer3": "1", "layer4": "2"}
    backbone = BackboneWithFPN(body, layers, [128, 256, 512], 16, extra_blocks=LastLevelP6P7(16, 16))
    head, groups = oracle.FCOSHead(32, 1, 4), {"norm_layer": partial(nn.GroupNorm, 4)}
    head.classification_head = oracle.FCOSClassificationHead(16, 1, 4, **groups)
    head.regression_head = oracle.FCOSRegressionHead(16, 1, **groups)
    anchors = AnchorGenerator(tuple((side,) for side in STRIDES), ((1.0,),) * 5)
    mean, std = (torch.tensor(x).tolist() for x in (IMAGENET_MEAN, IMAGENET_STD))  # as float32 has them
    return randomise(oracle.FCOS(backbone, 4, 64, 160, mean, std, anchors, head, **options))


def our_net() -> FCOS:
    body = freeze_batch_norm(ResNet(BasicBlock, (1, 1, 1, 1), normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD)))
    fpn = FPN(body, 16, levels=(2, 3, 4), extra=LevelsP6P7(16, 16, from_features=False))
    return FCOS(fpn, 4, groups=4).double().eval()


def both(**options: object) -> tuple[FCOS, oracle.FCOS]:
    ours, theirs = our_net(), torchvision_net(**options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def random_images(sizes: list[tuple[int, int]]) -> list[Tensor]:
    return [torch.rand(3, *size, generator=generator(i), dtype=torch.float64) for i, size in enumerate(sizes)]


def batch_of(images: list[Tensor], multiple: int = 32) -> tuple[Tensor, list[tuple[int, int]]]:
    return resize_and_pad(images, 64, 160, multiple, fill=torch.tensor(IMAGENET_MEAN).tolist())


# --- parity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("multiple", [32, 1])  # torchvision pads to 32; with 1 a side may be 65 or 101
@torch.no_grad()
def test_every_stage_equals_torchvision(sizes: list[tuple[int, int]], multiple: int) -> None:
    ours, theirs = both()
    images = random_images(sizes)
    theirs.transform.size_divisible = multiple
    batch, got_sizes = batch_of(images, multiple)
    image_list, _ = theirs.transform(images)
    features = list(theirs.backbone(image_list.tensors).values())
    expected = theirs.head(features)
    for got, wanted in zip(ours.backbone(batch), features, strict=True):
        assert wanted.std() > 0.01  # the weights are such that an error would show
        torch.testing.assert_close(got, wanted, **CLOSE)
    outputs = ours(batch, got_sizes)
    assert list(outputs) == ["logits", "distances", "centreness", "anchors", "sizes"]
    assert outputs["sizes"] == image_list.image_sizes
    torch.testing.assert_close(outputs["logits"], expected["cls_logits"], **CLOSE)
    torch.testing.assert_close(outputs["distances"], expected["bbox_regression"], **CLOSE)
    torch.testing.assert_close(outputs["centreness"], expected["bbox_ctrness"][..., 0], **CLOSE)
    assert expected["bbox_regression"].count_nonzero() > 0.1 * expected["bbox_regression"].numel()
    assert torch.equal(torch.cat(outputs["anchors"]), theirs.anchor_generator(image_list, features)[0])


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("multiple", [32, 1])  # torchvision pads to 32; with 1 a side may be 65 or 101
@torch.no_grad()
def test_detections_equal_torchvision(sizes: list[tuple[int, int]], multiple: int) -> None:
    ours, theirs = both(score_thresh=0.1, topk_candidates=100, detections_per_img=30)
    images = random_images(sizes)
    theirs.transform.size_divisible = multiple
    batch, inside = batch_of(images, multiple)
    options = {"score_threshold": 0.1, "topk_candidates": 100, "max_detections": 30}
    found, expected = postprocess(ours(batch, inside), **options), theirs(images)
    for got, wanted, image, size in zip(found, expected, images, inside, strict=True):
        assert len(wanted["boxes"]) > 10
        boxes = resize_boxes(got["boxes"], size, image.shape[-2:])
        torch.testing.assert_close(boxes, wanted["boxes"], rtol=0, atol=1e-4)
        torch.testing.assert_close(got["scores"], wanted["scores"], **CLOSE)
        assert torch.equal(got["labels"], wanted["labels"])
    ours.head["regression_head"].bbox_ctrness.bias += 0.01  # a weight that differs is noticed
    moved = postprocess(ours(batch, inside), **options)[0]["scores"]
    assert moved.shape != found[0]["scores"].shape or (moved - found[0]["scores"]).abs().max() > 1e-4


def random_outputs(size: tuple[int, int], batch: int = 3) -> dict:
    with torch.no_grad():
        outputs = our_net()(torch.rand(batch, 3, *size, generator=generator(), dtype=torch.float64))
    shape = {"logits": outputs["logits"].shape, "distances": outputs["distances"].shape, "centreness": (batch, -1)}
    for seed, (key, wanted) in enumerate(shape.items()):
        numbers = torch.randn(outputs[key].shape, generator=generator(seed), dtype=torch.float64)
        outputs[key] = numbers.reshape(wanted).abs() if key == "distances" else numbers.reshape(wanted)
    return outputs


def scene(seed: int, size: tuple[int, int], objects: int) -> dict[str, Tensor]:
    """Boxes of all sizes, so that several levels have some."""
    height, width = size
    corner = torch.rand(objects, 2, generator=generator(seed), dtype=torch.float64)
    side = 0.05 + torch.rand(objects, 2, generator=generator(seed + 1), dtype=torch.float64)
    boxes = torch.cat([corner * 0.7, (corner * 0.7 + side).clamp(max=1)], 1) * torch.tensor([width, height] * 2)
    return {"boxes": boxes, "labels": torch.randint(1, 4, (objects,), generator=generator(seed + 2))}


@pytest.mark.parametrize("size", [(64, 96), (192, 160), (53, 71)])
def test_losses_and_gradients_equal_torchvision(size: tuple[int, int]) -> None:
    outputs, theirs = random_outputs(size), torchvision_net()
    targets = [scene(0, size, 6), NOTHING, scene(5, size, 12)]
    anchors, counts = torch.cat(outputs["anchors"]), [len(level) for level in outputs["anchors"]]
    keys = ("logits", "distances", "centreness")
    leaves = [outputs[key].clone().requires_grad_() for key in keys]
    names = ("cls_logits", "bbox_regression", "bbox_ctrness")
    heads = dict(zip(names, [*leaves[:2], leaves[2][..., None]], strict=True))
    expected = theirs.compute_loss(targets, heads, [anchors] * 3, counts)
    wanted = torch.autograd.grad(sum(expected.values()), leaves)
    mine = [outputs[key].clone().requires_grad_() for key in keys]
    losses = fcos_loss({**outputs, **dict(zip(keys, mine, strict=True))}, targets)
    assert list(losses) == ["classification", "boxes", "centreness", "loss"]
    names = {"classification": "classification", "boxes": "bbox_regression", "centreness": "bbox_ctrness"}
    for ours, name in names.items():
        assert expected[name] > 0.01
        torch.testing.assert_close(losses[ours], expected[name], rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(losses["loss"], sum(losses[key] for key in names), rtol=1e-12, atol=0)
    for got, grad in zip(torch.autograd.grad(losses["loss"], mine), wanted, strict=True):
        assert grad.abs().max() > 1e-3
        torch.testing.assert_close(got, grad, rtol=1e-6, atol=1e-7)
    changed = fcos_loss(outputs, targets, radius=1.0)["loss"]
    assert abs(changed - losses["loss"]) > 1e-4


def test_official_state_dict_loads_strictly() -> None:
    with torch.device("meta"):
        ours, theirs = fcos_resnet50_fpn(), oracle.fcos_resnet50_fpn(weights=None, weights_backbone=None)
    state = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert {key: value.shape for key, value in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
    ours.load_state_dict(state, strict=True, assign=True)
    assert sum(p.numel() for p in ours.parameters()) == oracle.FCOS_ResNet50_FPN_Weights.COCO_V1.meta["num_params"]
    assert {module.eps for module in ours.modules() if hasattr(module, "eps")} == {1e-5}
    del state["head.regression_head.bbox_ctrness.bias"]
    with pytest.raises(RuntimeError, match="Missing key"):
        ours.load_state_dict(state, strict=True)


# --- by hand ----------------------------------------------------------------------------------------------------


def squares(*places: tuple[float, float], side: float) -> Tensor:
    middle = torch.tensor(places, dtype=torch.float64).reshape(-1, 2)
    return torch.cat([middle - side / 2, middle + side / 2], 1)


def test_distances_there_and_back() -> None:
    anchors = squares((4, 4), (12, 20), side=8)
    boxes = torch.tensor([[1.0, 2.0, 9.0, 5.0], [0.0, 3.0, 30.0, 21.0]], dtype=torch.float64)
    distances = encode_distances(boxes, anchors)
    assert (8 * distances).tolist() == [[3, 2, 5, 1], [12, 17, 18, 1]]
    torch.testing.assert_close(decode_distances(distances, anchors), boxes)


def test_matches_by_hand() -> None:
    fine = squares((4, 4), (20, 20), (28, 20), (36, 20), side=8)
    coarse = squares((24, 24), (104, 104), side=16)
    boxes = torch.tensor([[10.0, 10, 40, 40], [16.0, 12, 30, 27], [2.0, 2, 5, 5]], dtype=torch.float64)
    # (4, 4) is in the third. (20, 20) is in the first and the smaller second. (28, 20) in both, 5 from the middle of
    # the second. (36, 20) is in the first alone, 11 < 12 from its middle. On the coarse level the first fits, for
    # without a third level it has no end, but 4 x 16 pixels are its least: no side is as far. (104, 104) is in none.
    assert match_locations(boxes, [fine, coarse]).tolist() == [2, 1, 1, 0, -1, -1]
    assert match_locations(boxes, [fine, coarse], radius=1.0).tolist() == [2, 1, 1, -1, -1, -1]
    # its right side is 86, 70, 62 and 54 from the fine places, which have it up to 64 pixels, and 66 from (24, 24)
    large = torch.tensor([[0.0, 0, 90, 60]], dtype=torch.float64)
    assert match_locations(large, [fine, coarse], radius=9).tolist() == [-1, -1, 0, 0, 0, -1]
    assert match_locations(boxes[:0], [fine, coarse]).tolist() == [-1] * 6


def hand_outputs() -> dict:
    """Two places of one level, 8 apart; the first is the middle of the object's left half."""
    return {
        "logits": torch.zeros(1, 2, 3, dtype=torch.float64),
        "distances": torch.full((1, 2, 4), 0.5, dtype=torch.float64),
        "centreness": torch.tensor([[math.log(3), 5.0]], dtype=torch.float64),
        "anchors": [squares((4, 4), (12, 100), side=8)],
        "sizes": [(128, 128)],
    }


def test_loss_by_hand() -> None:
    target = {"boxes": torch.tensor([[0.0, 0.0, 16.0, 8.0]]), "labels": torch.tensor([2])}
    losses = fcos_loss(hand_outputs(), [target])
    # p = 1/2: the true class with alpha 1/4, five others with 3/4
    assert losses["classification"].item() == pytest.approx((0.25 + 5 * 0.75) / 4 * math.log(2))
    # found is 8 x 8 in the box of 16 x 8: IoU and GIoU 1/2
    assert losses["boxes"].item() == pytest.approx(0.5)
    # distances 4, 4, 12, 4: the root of 1/3, against p = 3/4
    middle = math.sqrt(1 / 3)
    expected = -(middle * math.log(0.75) + (1 - middle) * math.log(0.25))
    assert losses["centreness"].item() == pytest.approx(expected)


def test_score_is_the_root_of_class_times_centreness() -> None:
    found = postprocess(hand_outputs(), score_threshold=0.61)[0]
    assert found["scores"].tolist() == pytest.approx(
        [math.sqrt(0.5 / (1 + math.exp(-5)))] * 3 + [math.sqrt(0.5 * 0.75)] * 3
    )
    assert found["locations"].tolist() == [1, 1, 1, 0, 0, 0] and sorted(found["labels"].tolist()) == [0, 0, 1, 1, 2, 2]
    assert found["boxes"][5].tolist() == [0, 0, 8, 8]


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_targets_there_and_back(seed: int, offset: float) -> None:
    torch.manual_seed(0)
    body = ResNet(BasicBlock, (1, 1, 1, 1), (4, 4, 4, 4))
    net = FCOS(FPN(body, 8, levels=(1, 2, 3)), 4, (4, 8, 16), offset, groups=4)
    target = draw_shapes(seed)
    outputs = net(target["image"][None])
    anchors = torch.cat(outputs["anchors"])
    matches = match_locations(target["boxes"], outputs["anchors"], radius=3.0)
    there = matches >= 0
    assert set(matches.tolist()) == {-1, *range(len(target["boxes"]))}
    middles = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert middles[1].tolist() == [4 + 4 * offset, 4 * offset]
    logits, distances = torch.full_like(outputs["logits"], -9), torch.zeros_like(outputs["distances"])
    logits[0, there, target["labels"][matches[there]]] = 9.0
    distances[0, there] = encode_distances(target["boxes"][matches[there]], anchors[there])
    found = postprocess({**outputs, "logits": logits, "distances": distances})[0]
    order = [int(box_iou(found["boxes"], box[None]).argmax()) for box in target["boxes"]]
    assert sorted(order) == list(range(len(found["boxes"])))
    torch.testing.assert_close(found["boxes"][order], target["boxes"], rtol=0, atol=1e-4)
    assert torch.equal(found["labels"][order], target["labels"])


def test_no_object_at_all() -> None:
    outputs = random_outputs((64, 64), 2)
    outputs["logits"].requires_grad_()
    losses = fcos_loss(outputs, [NOTHING, NOTHING])
    assert losses["boxes"] == losses["centreness"] == 0 and losses["classification"] > 0
    losses["loss"].backward()
    assert (outputs["logits"].grad > 0).all()  # every score shall fall
    nothing = postprocess({**outputs, "logits": outputs["logits"] - 100})
    assert [tuple(value.shape) for found in nothing for value in found.values()] == [(0, 4), (0,), (0,), (0,)] * 2


def test_boxes_end_where_the_image_ends() -> None:
    outputs = random_outputs((64, 96), 2) | {"sizes": [(40, 96), (64, 50)]}
    for found, (h, w) in zip(postprocess(outputs), outputs["sizes"], strict=True):
        boxes, scores = found["boxes"], found["scores"]
        assert boxes.amin() == 0 and boxes[:, 2].amax() == w and h - 5 < boxes[:, 3].amax() <= h
        assert torch.equal(scores, scores.sort(descending=True).values)


def test_half_precision() -> None:
    net = our_net().to(torch.bfloat16)
    outputs = net(torch.rand(1, 3, 64, 96).to(torch.bfloat16))
    assert outputs["logits"].dtype == torch.bfloat16 and outputs["anchors"][0].dtype == torch.float32
    losses = fcos_loss(outputs, [{"boxes": torch.tensor([[4.0, 4.0, 30.0, 40.0]]), "labels": torch.tensor([1])}])
    assert losses["loss"].dtype == torch.float32 and losses["boxes"] > 0
    assert postprocess(outputs)[0]["boxes"].dtype == torch.float32


@pytest.mark.learns
def test_learns_two_scenes() -> None:
    scenes = [draw_shapes((7, i)) for i in range(2)]
    images = torch.stack([sample["image"] for sample in scenes])
    torch.manual_seed(0)
    body = ResNet(BasicBlock, (1, 1, 1, 1), (16, 24, 32, 32))
    net = FCOS(FPN(body, 32, levels=(1, 2, 3)), 4, (4, 8, 16), groups=8, depth=2)
    assert net(images)["logits"].sigmoid().mean().item() == pytest.approx(0.01, rel=0.1)
    fit(net, lambda: fcos_loss(net(images), scenes)["loss"], steps=100)
    parts = [*net.head.parameters(), *net.backbone.fpn.parameters()]
    assert all(p.grad.abs().sum() > 0 for p in parts)
    assert detection_f1(postprocess(net(images), score_threshold=0.5), scenes) > 0.6


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda o: [o], TypeError, "outputs has type list, expected a dict with the keys logits, distances"),
        (lambda o: {"logits": o["logits"]}, ValueError, r"outputs has the keys \['logits'\], expected"),
        (lambda o: {**o, "logits": o["logits"][0]}, ValueError, r"outputs\['logits'\] has shape"),
        (lambda o: {**o, "centreness": o["centreness"][:, 1:]}, ValueError, r"outputs\['centreness'\] has shape"),
        (lambda o: {**o, "anchors": [o["anchors"][0][:1]]}, ValueError, r"outputs\['logits'\] has shape"),
        (lambda o: {**o, "sizes": []}, ValueError, r"outputs\['sizes'\] has 0 entries, expected 1, one for each image"),
        (lambda o: {**o, "distances": o["distances"] * math.nan}, ValueError, r"\['distances'\] contains NaN"),
    ],
)
def test_bad_outputs(change: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        postprocess(change(hand_outputs()))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: fcos_loss(hand_outputs(), [{**NOTHING, "labels": torch.tensor([1])}]), ValueError, "labels"),
        (lambda: fcos_loss(hand_outputs(), NOTHING), TypeError, "targets has type dict, expected a list"),
        (lambda: FCOS(our_net().backbone, 1), ValueError, "num_classes is 1, expected an integer of at least 2"),
        (
            lambda: FCOS(our_net().backbone, 4, (8, 16)),
            ValueError,
            "strides has 2 entries, expected 5, one for each level",
        ),
        (lambda: our_net()(torch.rand(1, 1, 64, 64).double()), ValueError, "images has shape"),
        (lambda: our_net()(torch.ones(1, 3, 64, 64).byte()), TypeError, "images has dtype"),
    ],
)
def test_bad_arguments(call: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
