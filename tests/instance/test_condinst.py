"""CondInst: coordinates, weights and mask heads by hand and as grouped convolutions, losses, decoding, and it learns."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from instance.drawn_objects import assert_same_objects, block, nobody, target_of
from learning import detection_f1, fit
from torch import Tensor

from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.datasets.shapes import draw_shapes
from segedu.detection.fcos import FCOS, encode_distances, fcos_loss, match_locations
from segedu.instance.condinst import (
    NUM_WEIGHTS,
    CondInst,
    aligned_upsample,
    condinst_loss,
    condinst_resnet50,
    mask_heads,
    postprocess,
    relative_coordinates,
    split_weights,
)
from segedu.ops.boxes import box_iou
from segedu.weights import load


def tiny(channels: int = 16, body: tuple[int, ...] = (8, 8, 8, 8), **options: int) -> CondInst:
    torch.manual_seed(0)
    fpn = FPN(ResNet(BasicBlock, (1, 1, 1, 1), body), channels, (2, 3, 4), PoolLevel())
    detector = FCOS(fpn, 4, (8, 16, 32, 64), offset=0.5, groups=4, depth=2)
    return CondInst(detector, **{"width": 16, "depth": 2, **options})


def squares(*places: tuple[float, float], side: float = 8.0) -> Tensor:
    middle = torch.tensor(places, dtype=torch.float64).reshape(-1, 2)
    return torch.cat([middle - side / 2, middle + side / 2], 1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- mask heads -------------------------------------------------------------------------------------------------


def test_a_head_has_169_weights() -> None:
    assert NUM_WEIGHTS == 169 == (10 * 8 + 8) + (8 * 8 + 8) + (8 + 1)
    numbers = torch.arange(169.0)[None]
    (k1, b1), (k2, b2), (k3, b3) = split_weights(numbers)
    # kernels first, 80, 64 and 8 of them, row by row; then the biases, 8, 8 and 1
    assert [k1[0, 0, 0], k1[0, 1, 0], k2[0, 0, 0], k2[0, 7, 7], k3[0, 0, 0]] == [0, 10, 80, 143, 144]
    assert [b1[0, 0], b2[0, 0], b3[0, 0]] == [152, 160, 168]


def test_relative_coordinates_by_hand() -> None:
    both = torch.cat([squares((20, 12)), squares((20, 12), side=32)])
    got = relative_coordinates(both, (3, 4))
    for y in range(3):
        for x in range(4):
            right, down = 20 - (8 * x + 4), 12 - (8 * y + 4)
            assert got[0, :, y, x].tolist() == [right / 64, down / 64]
            assert got[1, :, y, x].tolist() == [right / 256, down / 256]  # of a level with larger objects


def test_mask_heads_are_a_convolution_in_groups() -> None:
    """All networks at once, a group each, as the paper's appendix would have it; the places in between by hand."""
    features, places, weights = random(8, 4, 5), squares((4, 4), (30, 17), (11, 2)), random(3, 169, seed=1)
    x = torch.cat([torch.cat([relative_coordinates(places, (4, 5))[n], features]) for n in range(3)])[None]
    start, bias_start = 0, 152
    for inputs, outputs in ((10, 8), (8, 8), (8, 1)):
        kernel = weights[:, start : start + inputs * outputs].reshape(3 * outputs, inputs, 1, 1)
        bias = weights[:, bias_start : bias_start + outputs].reshape(-1)
        x = F.conv2d(F.relu(x) if start else x, kernel, bias, groups=3)
        start, bias_start = start + inputs * outputs, bias_start + outputs
    got = mask_heads(features, places, weights)
    assert got.shape == (3, 8, 10)
    torch.testing.assert_close(got, aligned_upsample(x, 2)[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(got[:, 1::2, 1::2], x[0], rtol=0, atol=1e-12)  # places of the features themselves
    assert mask_heads(features, places[:0], weights[:0]).shape == (0, 8, 10)


def test_one_network_at_two_places_gives_two_masks() -> None:
    weights = torch.zeros(2, 169, dtype=torch.float64)
    weights[:, 0], weights[:, 80], weights[:, 144] = 64.0, 1.0, 1.0  # the relu of how far it is to the right
    masks = mask_heads(torch.zeros(8, 4, 8).double(), squares((20, 12), (52, 12)), weights)[:, 1::2, 1::2]
    assert masks[0, 0].tolist() == [16, 8, 0, 0, 0, 0, 0, 0]
    assert masks[1, 0].tolist() == [48, 40, 32, 24, 16, 8, 0, 0]


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_aligned_upsample_by_loops(factor: int) -> None:
    maps = random(2, 3, 3, 4)
    got = aligned_upsample(maps, factor)
    assert got.shape == (2, 3, 3 * factor, 4 * factor)
    for y in range(3 * factor):
        for x in range(4 * factor):
            v, u = max((y - factor // 2) / factor, 0), max((x - factor // 2) / factor, 0)
            rows, columns = (min(int(v), 2), min(int(v) + 1, 2)), (min(int(u), 3), min(int(u) + 1, 3))
            part_v, part_u = v - int(v), u - int(u)
            top, bottom = ((1 - part_u) * maps[..., r, columns[0]] + part_u * maps[..., r, columns[1]] for r in rows)
            torch.testing.assert_close(got[..., y, x], (1 - part_v) * top + part_v * bottom, rtol=0, atol=1e-12)


# --- the loss ---------------------------------------------------------------------------------------------------


def hand_outputs() -> dict[str, object]:
    """16 x 16 pixels, four places; mask features of 2 x 2 places, so masks of 4 x 4."""
    anchors = squares((4, 4), (12, 4), (4, 12), (12, 12))
    return {
        "logits": random(1, 4, 3),
        "distances": random(1, 4, 4).abs(),
        "centreness": random(1, 4),
        "anchors": [anchors],
        "weights": torch.zeros(1, 4, 169, dtype=torch.float64).requires_grad_(),
        "mask_features": random(1, 8, 2, 2).requires_grad_(),
        "image_size": (16, 16),
        "sizes": [(16, 16)],
    }


def test_loss_by_hand() -> None:
    outputs, target = hand_outputs(), target_of(block(0, 0, 9, 9, (16, 16)), labels=(2,))
    assert match_locations(target["boxes"].double(), outputs["anchors"]).tolist() == [0, -1, -1, -1]
    outputs["weights"].data[0, 0, 168] = math.log(3)  # a bias alone: p = 3/4 everywhere
    losses = condinst_loss(outputs, [target])
    # pixels 2, 6, 10 and 14 of each axis are looked at: 4 of 16 are in the mask
    dice = 1 - 2 * 4 * 0.75 / (16 * 0.5625 + 4)
    assert losses["mask"].item() == pytest.approx(dice, abs=1e-12)
    boxes = fcos_loss(outputs, [target])
    assert set(losses) == {*boxes, "mask"}
    assert all(losses[key] == boxes[key] for key in boxes if key != "loss")
    assert losses["loss"].item() == pytest.approx(boxes["loss"].item() + dice, abs=1e-12)
    losses["mask"].backward()
    # d dice / d p, 4 places in the mask and 12 not, times p (1 - p) = 3/16
    inside, total = 6.0, 13.0
    slope = (4 * (-2 / total) + 16 * 2 * 0.75 * inside / total**2) * 0.1875
    assert outputs["weights"].grad[0, 0, 168].item() == pytest.approx(slope, abs=1e-12)
    assert not outputs["weights"].grad[0, 1:].any()  # places that answer for nothing


def test_gradients() -> None:
    outputs = hand_outputs()
    target = target_of(block(0, 0, 9, 9, (16, 16)), block(2, 5, 16, 16, (16, 16)), labels=(2, 1))

    def loss(weights: Tensor, features: Tensor) -> Tensor:
        return condinst_loss({**outputs, "weights": weights, "mask_features": features}, [target])["mask"]

    tensors = (0.3 * random(1, 4, 169, seed=4), random(1, 8, 2, 2, seed=5))
    assert torch.autograd.gradcheck(loss, tuple(t.requires_grad_() for t in tensors), fast_mode=True)


def test_mean_over_places_of_the_batch_by_loops() -> None:
    net = tiny().double()
    scenes = [draw_shapes(seed, (64, 80)) for seed in (1, 2)]
    outputs = net(torch.stack([scene["image"] for scene in scenes]).double())
    anchors, values = torch.cat(outputs["anchors"]), []
    for b, scene in enumerate(scenes):
        matches = match_locations(scene["boxes"].double(), outputs["anchors"])
        for a in (matches >= 0).nonzero().flatten().tolist():
            p = mask_heads(outputs["mask_features"][b], anchors[a][None], outputs["weights"][b, a][None])[0].sigmoid()
            y = scene["masks"][matches[a]][2::4, 2::4].double()
            values.append(1 - 2 * (p * y).sum() / ((p * p).sum() + (y * y).sum()))
    assert len(values) > 20
    assert condinst_loss(outputs, scenes)["mask"].item() == pytest.approx(torch.stack(values).mean().item(), abs=1e-12)
    few = [condinst_loss(outputs, scenes, max_positives=5, generator=torch.Generator().manual_seed(s))["mask"].item() for s in (0, 0, 1)]  # fmt: skip
    assert few[0] == few[1] != few[2]
    drawn = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))[:5]
    assert few[0] == pytest.approx(torch.stack(values)[drawn].mean().item(), abs=1e-12)


def test_no_objects() -> None:
    net = tiny()
    images = torch.rand(2, 3, 64, 64)
    for targets in ([nobody((64, 64))] * 2, [nobody((64, 64)), target_of(block(4, 4, 40, 40, (64, 64)))]):
        losses = condinst_loss(net(images), targets)
        assert (losses["mask"] > 0) == (len(targets[1]["labels"]) > 0) and losses["classification"] > 0
        losses["loss"].backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


# --- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 96), (37, 45), (33, 70)])
def test_shapes(size: tuple[int, int]) -> None:
    outputs = tiny()(torch.rand(2, 3, *size), sizes=[size, (20, 30)])
    count = sum(len(level) for level in outputs["anchors"])
    assert outputs["weights"].shape == (2, count, 169) and outputs["logits"].shape == (2, count, 4)
    assert outputs["mask_features"].shape == (2, 8, -(-size[0] // 8), -(-size[1] // 8))
    assert outputs["image_size"] == size and outputs["sizes"] == [size, (20, 30)]
    found = postprocess(outputs, score_threshold=0.0)
    assert [tuple(x["masks"].shape[1:]) for x in found] == [size, (20, 30)]
    assert 0 < len(found[0]["boxes"]) <= 100 and (found[0]["scores"].diff() <= 0).all()
    assert list(found[0]) == ["boxes", "labels", "scores", "masks"]


@pytest.mark.parametrize("size", [(60, 70), (139, 176)])
def test_masks_have_the_size_of_the_image_if_the_backbone_rounds_down(size: tuple[int, int]) -> None:
    network = load("shapes_condinst")  # its poolings drop an odd last row or column
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (found,) = postprocess(network(image), score_threshold=0.0)
    assert len(found["masks"]) and found["masks"].shape[1:] == size


def test_stage_by_stage() -> None:
    net = tiny().double().eval()
    images = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    got, levels = net(images), net.detector.backbone(images)
    plain = net.detector(images)
    assert all(torch.equal(got[key], plain[key]) for key in ("logits", "distances", "centreness"))
    rows = []
    for level in levels:
        maps = net.controller(net.detector.head["regression_head"].conv(level))[0]  # on the tower of the boxes
        rows += [maps[:, y, x] for y in range(maps.shape[1]) for x in range(maps.shape[2])]
    torch.testing.assert_close(got["weights"][0], torch.stack(rows), rtol=0, atol=1e-12)
    torch.testing.assert_close(got["mask_features"], net.mask_branch(levels[0]), rtol=0, atol=1e-12)
    middles = (got["anchors"][1][:, :2] + got["anchors"][1][:, 2:]) / 2
    assert middles[:2].tolist() == [[8, 8], [24, 8]]


def test_size_of_the_paper() -> None:
    with torch.device("meta"):
        net = condinst_resnet50()
    branch = sum(p.numel() for p in net.mask_branch.parameters())
    assert branch == (256 + 3 * 128) * 128 * 9 + 4 * 2 * 128 + 128 * 8 + 8
    assert sum(p.numel() for p in net.controller.parameters()) == 256 * 9 * 169 + 169


def test_backward_reaches_every_parameter() -> None:
    net = tiny()
    targets = [target_of(block(4, 4, 18, 20, (128, 128)), block(0, 0, 120, 120, (128, 128)))]
    condinst_loss(net(torch.rand(1, 3, 128, 128)), targets)["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.learns
def test_learns_synthetic_scenes() -> None:
    torch.manual_seed(0)
    net = tiny(24, (16, 16, 24, 32), width=24)
    scenes = [draw_shapes(seed, (96, 96), count=(2, 3)) for seed in (3, 4)]
    images = torch.stack([scene["image"] for scene in scenes])
    fit(net, lambda: condinst_loss(net(images), scenes)["loss"], steps=120)
    preds = postprocess(net.train()(images), score_threshold=0.5, iou_threshold=0.4)  # with the batch's statistics
    assert detection_f1(preds, scenes, of="masks") > 0.6


# --- decoding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_targets_there_and_back(seed: int) -> None:
    """A mask feature for each object; the network of an object lets its own through."""
    size, target = (128, 160), draw_shapes(seed, (128, 160))
    net = tiny()
    outputs = {**net(target["image"][None])}
    anchors = torch.cat(outputs["anchors"])
    matches = match_locations(target["boxes"], outputs["anchors"])
    there = matches >= 0
    assert set(matches[there].tolist()) == set(range(len(target["labels"])))
    outputs["mask_features"] = torch.zeros(1, 8, 16, 20)
    # row i of the features is met in row 2 i + 1 of the masks, whose pixel is 8 i + 6: two below the middle
    shifted = F.pad(target["masks"][:, None, 2:, 2:].float(), (0, 2, 0, 2), mode="replicate")
    smooth = F.interpolate(shifted, scale_factor=1 / 8, mode="bilinear", antialias=True)
    outputs["mask_features"][0, : len(smooth)] = smooth[:, 0]
    outputs["logits"] = torch.full_like(outputs["logits"], -9.0)
    outputs["distances"] = torch.zeros_like(outputs["distances"])
    outputs["weights"] = torch.zeros_like(outputs["weights"])
    for a in there.nonzero().flatten().tolist():
        n = matches[a]
        outputs["logits"][0, a, target["labels"][n]] = 9.0
        outputs["distances"][0, a] = encode_distances(target["boxes"][n][None], anchors[a][None])[0]
        outputs["weights"][0, a, [2 + n, 80, 144, 168]] = torch.tensor([1.0, 1.0, 6.0, -3.0])
    found = postprocess(outputs)[0]
    assert_same_objects(found, target, least=0.65)  # of 16 x 20 places
    best = [int(box_iou(found["boxes"], box[None]).argmax()) for box in target["boxes"]]
    torch.testing.assert_close(found["boxes"][best], target["boxes"], rtol=0, atol=1e-3)
    assert tuple(found["masks"].shape[1:]) == size and found["masks"].dtype == torch.bool


def test_nothing_found() -> None:
    for found in postprocess(tiny()(torch.rand(2, 3, 40, 48)), score_threshold=0.99):
        assert [tuple(value.shape) for value in found.values()] == [(0, 4), (0,), (0,), (0, 40, 48)]


# --- what is refused --------------------------------------------------------------------------------------------


GOOD = hand_outputs()
TARGET = target_of(block(0, 0, 9, 9, (16, 16)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: condinst_loss(GOOD["weights"], [TARGET]), TypeError, "outputs has type Tensor, expected a dict"),
        (lambda: condinst_loss({"weights": 1}, [TARGET]), ValueError, "outputs has the keys .*expected logits"),
        (
            lambda: condinst_loss(GOOD, [TARGET] * 2),
            ValueError,
            "targets has 2 entries, expected 1, one for each image",
        ),
        (lambda: condinst_loss(GOOD, [{**TARGET, "labels": torch.tensor([3])}]), ValueError, "expected 1 to 2"),
        (lambda: condinst_loss(GOOD, [{**TARGET, "masks": TARGET["masks"][..., :7]}]), ValueError, r"\(1, 16, 16\)"),
        (lambda: condinst_loss(GOOD, [TARGET], max_positives=0), ValueError, "max_positives is 0"),
        (lambda: postprocess([GOOD]), TypeError, "outputs has type list"),
        (
            lambda: postprocess({**GOOD, "weights": GOOD["weights"] * math.nan}),
            ValueError,
            r"\['weights'\] contains NaN",
        ),
        (lambda: split_weights(torch.zeros(3, 168)), ValueError, r"weights has shape \(3, 168\), expected \(N, 169\)"),
        (lambda: tiny(depth=0), ValueError, "depth is 0"),
        (
            lambda: CondInst(FCOS(FPN(ResNet(BasicBlock, (1,) * 4), 8), 4, (4, 8, 16, 32), groups=4)),
            ValueError,
            "detector has a finest stride of 4, expected 8",
        ),
        (lambda: tiny()(torch.rand(1, 3, 32, 32), sizes=[(33, 3)]), ValueError, r"sizes\[0\] is \(33, 3\), expected"),
        (lambda: tiny()(torch.rand(1, 1, 8, 8)), ValueError, "images has shape"),
        (lambda: tiny()(torch.ones(1, 3, 8, 8).byte()), TypeError, "images has dtype"),
    ],
)
def test_bad_arguments(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
