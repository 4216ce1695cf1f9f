"""SOLOv2: targets and losses by hand, the mask features and the network stage by stage, decoding, published keys."""

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
from segedu.instance.solov2 import (
    SOLOv2,
    append_coordinates,
    point_nms,
    postprocess,
    responsible_cells,
    solov2_loss,
)
from segedu.ops.masks import boxes_from_masks

GRIDS, RANGES = (8, 6, 5, 4, 3), ((1, 24), (20, 48), (40, 96), (80, 192), (160, 999))
FEW_PIXELS = (1, 1, 1, 1, 1)


def tiny(num_classes: int = 4, **options: int) -> SOLOv2:
    torch.manual_seed(0)
    body = ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 8, 8))
    given = {"width": 16, "depth": 2, "mask_width": 8, "kernel_channels": 12, "groups": 4, **options}
    return SOLOv2(FPN(body, 8, (1, 2, 3, 4), PoolLevel()), num_classes, GRIDS, **given)


# --- targets ----------------------------------------------------------------------------------------------------


def test_coordinates() -> None:
    x, y = append_coordinates(torch.zeros(2, 3, 3, 5))[1, 3:]
    assert x[2].tolist() == [-1, -0.5, 0, 0.5, 1] and y[:, 4].tolist() == [-1, 0, 1]


def test_responsible_cells_by_hand() -> None:
    # rows 4..12, columns 8..24 of 32: centre (8, 16), a fifth of the box: rows 7.2..8.8, columns 14.4..17.6.
    # Cells of a grid of 8 are 4 pixels: rows 1..2, columns 3..4.
    owner = responsible_cells(target_of(block(4, 8, 12, 24)), (32, 32), 8, (1, 99))
    expected = torch.full((8, 8), -1)
    expected[1:3, 3:5] = 0
    assert owner.equal(expected)
    # a grid of 16: rows 3..4, columns 7..8; a middle twice as wide would reach column 9
    owner = responsible_cells(target_of(block(4, 8, 12, 24)), (32, 32), 16, (1, 99))
    assert (owner >= 0).nonzero().tolist() == [[3, 7], [3, 8], [4, 7], [4, 8]]
    # a grid of 3: cells of 10.67 pixels, all of the middle in row 0, column 1
    owner = responsible_cells(target_of(block(4, 8, 12, 24)), (32, 32), 3, (1, 99))
    assert (owner >= 0).nonzero().tolist() == [[0, 1]]


def test_the_grid_lies_over_the_padded_image() -> None:
    owner = responsible_cells(target_of(block(4, 8, 12, 24)), (64, 32), 8, (1, 99))
    assert (owner >= 0).nonzero().tolist() == [[0, 3], [0, 4], [1, 3], [1, 4]]  # rows are 8 pixels: 7.2..8.8


def test_at_most_three_by_three_cells_about_the_centre_of_mass() -> None:
    owner = responsible_cells(target_of(block(0, 0, 32, 32)), (32, 32), 32, (1, 99))
    assert (owner >= 0).nonzero().min(0).values.tolist() == [15, 15]
    assert (owner >= 0).sum() == 9
    shape = block(0, 0, 32, 4) | block(28, 0, 32, 32)  # an L: its mass lies at the left and the bottom of its box
    centre = shape.nonzero().double().mean(0)
    cells = (responsible_cells(target_of(shape), (32, 32), 8, (1, 99)) >= 0).nonzero()
    assert (cells.double().mean(0) - centre / 4).abs().max() < 1.1 and centre[0] > 20 and centre[1] < 12


def test_ranges_order_and_empty_masks() -> None:
    small, large = block(14, 14, 18, 18), block(0, 0, 32, 32)
    for target, wanted in ((target_of(small, large), 0), (target_of(large, small), 1)):  # the smaller one, in any order
        owner = responsible_cells(target, (32, 32), 8, (1, 99))
        assert owner[4, 4] == wanted
    assert (responsible_cells(target_of(small, large), (32, 32), 8, (32, 99)) == 1).any()
    assert not (responsible_cells(target_of(small, large), (32, 32), 8, (4.1, 31.9)) >= 0).any()
    unseen = {"boxes": torch.tensor([[2.0, 2.0, 9.0, 9.0]]), "masks": torch.zeros(1, 32, 32, dtype=torch.bool)}
    assert not (responsible_cells(unseen, (32, 32), 8, (1, 99)) >= 0).any()
    assert responsible_cells(nobody(), (32, 32), 8, (1, 99)).unique().tolist() == [-1]


# --- the loss ---------------------------------------------------------------------------------------------------


def hand_outputs() -> dict[str, object]:
    """One grid of 2 x 2 over 8 x 8 pixels, two kinds, mask features of 2 channels and 2 x 2 places."""
    features = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    kernels = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    kernels[0, :, 0, 0] = torch.tensor([math.log(3), 0.0], dtype=torch.float64)
    return {
        "class_logits": [torch.zeros(1, 2, 2, 2, dtype=torch.float64).requires_grad_()],
        "kernels": [kernels.requires_grad_()],
        "mask_features": features[None].requires_grad_(),
        "image_size": (8, 8),
        "sizes": [(8, 8)],
    }


def test_loss_by_hand() -> None:
    outputs = hand_outputs()
    target = target_of(block(0, 0, 4, 4, (8, 8)), labels=(2,))  # its centre (2, 2) lies in cell (0, 0)
    losses = solov2_loss(outputs, [target], ranges=[(1, 99)])
    # p = 1/2 in 8 places: 7 negatives 3/4 (1/2)^2 log 2, one positive 1/4 (1/2)^2 log 2; one cell: divide by 2
    wanted_class = (7 * 0.75 + 0.25) / 4 * math.log(2) / 2
    assert losses["class"].item() == pytest.approx(wanted_class, abs=1e-12)
    # logits log 3, 0, 0, 2 log 3: p = 3/4, 1/2, 1/2, 9/10; only the first place is in the mask
    dice = 1 - 2 * 0.75 / (1 + 0.5625 + 0.25 + 0.25 + 0.81)
    assert losses["mask"].item() == pytest.approx(3 * dice, abs=1e-12)
    assert losses["loss"].item() == pytest.approx(wanted_class + 3 * dice, abs=1e-12)
    assert set(losses) == {"class", "mask", "loss"}
    losses["loss"].backward()
    # positive, p = 1/2: -alpha (1-p)^2 (1-p) + 2 alpha (1-p)^2 p log p, alpha = 1/4
    slope = 0.25 * (-0.125 + 2 * 0.125 * math.log(0.5)) / 2
    assert outputs["class_logits"][0].grad[0, 1, 0, 0].item() == pytest.approx(slope, abs=1e-12)
    # d dice / d p of the first place: -2/S + 2 * 0.75 * 2 p / S^2, times p (1 - p); the kernel's first entry also
    # moves the last place, with feature 2: 2 * 0.75 * 2 * 0.9 / S^2 * 0.09 * 2
    total = 2.8725
    first = (-2 / total + 1.5 * 1.5 / total**2) * 0.1875
    last = 1.5 * 1.8 / total**2 * 0.09 * 2
    assert outputs["kernels"][0].grad[0, 0, 0, 0].item() == pytest.approx(3 * (first + last), abs=1e-12)
    assert not outputs["kernels"][0].grad[0, :, 1:].any()  # cells without an object


def test_loss_by_loops() -> None:
    torch.manual_seed(3)
    net = tiny().double()
    scenes = [draw_shapes(seed, (48, 64)) for seed in (1, 2)]
    outputs = net(torch.stack([scene["image"] for scene in scenes]).double())
    outputs = {**outputs, "class_logits": [torch.randn_like(x) for x in outputs["class_logits"]]}
    losses = solov2_loss(outputs, scenes, ranges=RANGES)
    focal, dice = 0.0, []
    for b, scene in enumerate(scenes):
        for logits, kernels, bounds in zip(outputs["class_logits"], outputs["kernels"], RANGES, strict=True):
            owner = responsible_cells(scene, (48, 64), logits.shape[-1], bounds)
            for y in range(len(owner)):
                for x in range(len(owner)):
                    n = int(owner[y, x])
                    for k in range(3):
                        p, yes = float(logits[b, k, y, x].sigmoid()), n >= 0 and int(scene["labels"][n]) == k + 1
                        focal -= 0.25 * (1 - p) ** 2 * math.log(p) if yes else 0.75 * p**2 * math.log(1 - p)
                    if n >= 0:
                        small = F.interpolate(scene["masks"][n][None, None].double(), (12, 16), mode="bilinear")[0, 0]
                        q = (small > 0.5).double()
                        kernel = kernels[b, :, y, x].reshape(1, -1, 1, 1)
                        p = F.conv2d(outputs["mask_features"][b : b + 1], kernel)[0, 0].sigmoid()
                        dice.append(1 - 2 * (p * q).sum() / ((p * p).sum() + (q * q).sum()))
    assert len(dice) > 10
    assert losses["class"].item() == pytest.approx(focal / (len(dice) + 1), rel=1e-9)
    assert losses["mask"].item() == pytest.approx(3 * float(sum(dice).detach()) / len(dice), rel=1e-9)


def test_gradients() -> None:
    outputs = hand_outputs()
    tensors = (outputs["class_logits"][0], outputs["kernels"][0], outputs["mask_features"])
    torch.manual_seed(0)
    tensors = tuple(torch.randn_like(t).requires_grad_() for t in tensors)
    target = target_of(block(0, 0, 4, 4, (8, 8)), block(3, 1, 8, 8, (8, 8)), labels=(2, 1))

    def loss(logits: Tensor, kernels: Tensor, features: Tensor) -> Tensor:
        given = {**outputs, "class_logits": [logits], "kernels": [kernels], "mask_features": features}
        return solov2_loss(given, [target], ranges=[(1, 99)])["loss"]

    assert torch.autograd.gradcheck(loss, tensors)


def test_no_objects() -> None:
    net = tiny()
    images = torch.rand(2, 3, 32, 32)
    with_one = [nobody(), target_of(block(4, 4, 20, 20))]
    for targets in ([nobody(), nobody()], with_one):
        losses = solov2_loss(net(images), targets, ranges=RANGES)
        assert (losses["mask"] > 0) == (targets is with_one) and losses["class"] > 0
        losses["loss"].backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


# --- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 96), (37, 45), (33, 70)])
def test_shapes(size: tuple[int, int]) -> None:
    outputs = tiny()(torch.rand(2, 3, *size), sizes=[size, (20, 30)])
    assert [tuple(x.shape) for x in outputs["class_logits"]] == [(2, 3, n, n) for n in GRIDS]
    assert [tuple(x.shape) for x in outputs["kernels"]] == [(2, 12, n, n) for n in GRIDS]
    assert tuple(outputs["mask_features"].shape) == (2, 12, -(-size[0] // 4), -(-size[1] // 4))
    assert outputs["image_size"] == size and outputs["sizes"] == [size, (20, 30)]
    found = postprocess(outputs, score_threshold=0.0, update_threshold=0.0, min_areas=(0,) * 5)
    assert [tuple(x["masks"].shape[1:]) for x in found] == [size, (20, 30)]
    assert 0 < len(found[0]["boxes"]) <= 100 and (found[0]["scores"].diff() <= 0).all()


def test_stage_by_stage() -> None:
    """The same weights, with the network's stages written out again in plain steps."""
    net = tiny().double().eval()
    images = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    got, levels = net(images), net.backbone(images)
    grow = lambda x, n: F.interpolate(x, scale_factor=n, mode="bilinear")  # noqa: E731
    m = net.mask_features.levels
    y, x = torch.meshgrid(torch.linspace(-1, 1, 2).double(), torch.linspace(-1, 1, 3).double(), indexing="ij")
    p5 = torch.cat([levels[3], torch.stack([x, y])[None]], 1)
    total = m[0][0](levels[0]) + grow(m[1][0](levels[1]), 2)
    total = total + grow(m[2][1](grow(m[2][0](levels[2]), 2)), 2)
    total = total + grow(m[3][2](grow(m[3][1](grow(m[3][0](p5), 2)), 2)), 2)
    torch.testing.assert_close(got["mask_features"], net.mask_features.project(total), rtol=0, atol=1e-12)
    assert not any("Conv" in type(layer).__name__ and layer.bias is not None for layer in m.modules())

    levels = [grow(levels[0], 0.5), *levels[1:4], F.interpolate(levels[4], size=levels[3].shape[-2:], mode="bilinear")]
    for level, grid, logits, kernels in zip(levels, GRIDS, got["class_logits"], got["kernels"], strict=True):
        cells = F.interpolate(level, size=(grid, grid), mode="bilinear")
        torch.testing.assert_close(logits, net.class_logits(net.class_convs(cells)), rtol=0, atol=1e-12)
        places = F.interpolate(append_coordinates(level)[:, -2:], size=(grid, grid), mode="bilinear")
        expected = net.kernels(net.kernel_convs(torch.cat([cells, places], 1)))
        torch.testing.assert_close(kernels, expected, rtol=0, atol=1e-12)


def test_first_scores_are_one_in_a_hundred() -> None:
    for logits in tiny()(torch.rand(1, 3, 64, 64))["class_logits"]:
        assert 0.005 < logits.sigmoid().mean() < 0.02


def test_backward_reaches_every_parameter() -> None:
    net = tiny()
    outputs = net(torch.rand(1, 3, 64, 64))
    targets = [target_of(block(4, 4, 18, 20, (64, 64)), block(0, 0, 60, 60, (64, 64)))]
    every = [(1, 99)] * 5  # all grids
    solov2_loss(outputs, targets, ranges=every)["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.learns
def test_learns_synthetic_scenes() -> None:
    torch.manual_seed(0)
    body = ResNet(BasicBlock, (1, 1, 1, 1), (16, 16, 24, 32))
    net = SOLOv2(FPN(body, 24, (1, 2, 3)), 4, (12, 10, 6), 24, 1, 16, 24, groups=4)
    scenes = [draw_shapes(seed, (64, 64), count=(2, 3)) for seed in (3, 4)]
    images, bounds = torch.stack([scene["image"] for scene in scenes]), [(1, 20), (16, 99), (40, 99)]
    fit(net, lambda: solov2_loss(net(images), scenes, ranges=bounds)["loss"], steps=120, lr=5e-3)
    preds = postprocess(net.train()(images), min_areas=(1, 1, 1))  # with the batch's statistics
    assert detection_f1(preds, scenes, of="masks", min_score=0.4) > 0.6


# --- decoding ---------------------------------------------------------------------------------------------------


def perfect_outputs(target: dict[str, Tensor], size: tuple[int, int]) -> dict[str, object]:
    """One channel of the mask features for each object; a responsible cell's kernel picks its channel."""
    count, height, width = len(target["labels"]), *size
    small = F.interpolate(target["masks"][:, None].double(), (height // 2, width // 2), mode="bilinear")[:, 0]
    logits, kernels = [], []
    for grid, bounds in zip(GRIDS, RANGES, strict=True):
        owner = responsible_cells(target, size, grid, bounds)
        wanted = torch.full((1, 3, grid, grid), -9.0, dtype=torch.float64)
        kernel = torch.zeros(1, count, grid, grid, dtype=torch.float64)
        for y, x in (owner >= 0).nonzero().tolist():
            wanted[0, target["labels"][owner[y, x]] - 1, y, x] = 9.0 - 0.01 * (y + x)
            kernel[0, owner[y, x], y, x] = 1.0
        logits.append(wanted)
        kernels.append(kernel)
    features = 20 * (2 * small[None] - 1)
    return {
        "class_logits": logits,
        "kernels": kernels,
        "mask_features": features,
        "image_size": size,
        "sizes": [size],
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_targets_there_and_back(seed: int) -> None:
    target = draw_shapes(seed, (64, 80))
    outputs = perfect_outputs(target, (64, 80))
    found = postprocess(outputs, score_threshold=0.5, update_threshold=0.5, min_areas=FEW_PIXELS)[0]
    assert_same_objects(found, target, least=0.85)
    assert found["boxes"].equal(boxes_from_masks(found["masks"]).double())
    assert found["scores"].dtype == torch.float64 and found["masks"].dtype == torch.bool
    # doubles of a mask are lowered by Matrix NMS and not gone: exp(-2) of a score is left
    doubles = postprocess(outputs, min_areas=FEW_PIXELS)[0]["scores"][len(found["scores"]) :]
    assert all(score == pytest.approx(math.exp(-2), abs=0.03) for score in doubles.tolist())


def test_score_is_class_times_mean_of_the_mask() -> None:
    outputs = hand_outputs()
    outputs["class_logits"] = [torch.full((1, 2, 2, 2), -9.0)]
    outputs["class_logits"][0][0, 0, 0, 0] = math.log(4)  # 4/5
    outputs["kernels"][0].data[0, :, 0, 0] = torch.tensor([math.log(3), -9.0])
    # logits log 3, -9, -9, 2 log 3: the mean of 3/4 and 9/10
    found = postprocess(outputs, min_areas=(1,))[0]
    assert found["scores"].tolist() == pytest.approx([0.8 * 0.825]) and found["labels"].tolist() == [1]
    assert postprocess(outputs, min_areas=(2,))[0]["labels"].tolist() == []  # two pixels are not more than two
    assert postprocess(outputs, 0.81, min_areas=(1,))[0]["labels"].tolist() == []
    assert postprocess(outputs, update_threshold=0.67, min_areas=(1,))[0]["labels"].tolist() == []
    assert postprocess(outputs, mask_threshold=0.8, min_areas=(0,))[0]["scores"].tolist() == pytest.approx([0.8 * 0.9])


def test_point_nms() -> None:
    scores = torch.tensor([[[[0.5, 0.6, 0.1], [0.2, 0.3, 0.4], [0.9, 0.1, 0.3]]]])
    # each against the left, the upper and the upper left one
    assert point_nms(scores)[0, 0].equal(torch.tensor([[0.5, 0.6, 0.0], [0.0, 0.0, 0.0], [0.9, 0.0, 0.0]]))


def test_nothing_found() -> None:
    outputs = tiny()(torch.rand(2, 3, 40, 48))
    for found in postprocess(outputs, score_threshold=0.9):
        assert {key: tuple(value.shape) for key, value in found.items()} == {
            "boxes": (0, 4), "labels": (0,), "scores": (0,), "masks": (0, 40, 48)
        }  # fmt: skip


# --- what is refused --------------------------------------------------------------------------------------------


GOOD = hand_outputs()
TARGET = target_of(block(0, 0, 4, 4, (8, 8)))
FLAT = {**TARGET, "boxes": torch.tensor([[1.0, 1.0, 1.0, 4.0]])}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: solov2_loss(GOOD["kernels"], [TARGET]), TypeError, "outputs has type list, expected a dict"),
        (lambda: solov2_loss({"kernels": 1}, [TARGET]), ValueError, "outputs has the keys .*expected class_logits"),
        (lambda: solov2_loss(GOOD, TARGET), TypeError, "targets has type dict, expected a list with one entry"),
        (lambda: solov2_loss(GOOD, [TARGET] * 2), ValueError, "targets has 2 entries, expected 1, one for each image"),
        (lambda: solov2_loss(GOOD, [TARGET["boxes"]]), TypeError, r"targets\[0\] has type Tensor, expected a dict"),
        (lambda: solov2_loss(GOOD, [{"boxes": TARGET["boxes"]}]), ValueError, r"targets\[0\] has the keys"),
        (lambda: solov2_loss(GOOD, [FLAT]), ValueError, r"\['boxes'\]\[0\] is \[1.0, 1.0, 1.0, 4.0\], expected a box"),
        (lambda: solov2_loss(GOOD, [{**TARGET, "labels": torch.tensor([3])}]), ValueError, "expected 1 to 2"),
        (lambda: solov2_loss(GOOD, [{**TARGET, "labels": torch.tensor([1, 1])}]), ValueError, r"expected \(1,\)"),
        (
            lambda: solov2_loss(GOOD, [{**TARGET, "labels": torch.ones(1)}]),
            TypeError,
            "has dtype torch.float32, expected torch.int64",
        ),
        (lambda: solov2_loss(GOOD, [{**TARGET, "masks": TARGET["masks"].float()}]), TypeError, "torch.bool"),
        (lambda: solov2_loss(GOOD, [{**TARGET, "masks": TARGET["masks"][..., :7]}]), ValueError, r"\(1, 8, 8\)"),
        (lambda: solov2_loss(GOOD, [TARGET]), ValueError, "ranges has 5 entries, expected 1, one for each grid"),
        (lambda: postprocess([GOOD]), TypeError, "outputs has type list"),
        (
            lambda: postprocess(GOOD, min_areas=()),
            ValueError,
            "min_areas is .*, expected at least 1 numbers, one per grid",
        ),
        (
            lambda: postprocess({**GOOD, "mask_features": GOOD["mask_features"] * math.nan}),
            ValueError,
            "outputs contains NaN",
        ),
        (lambda: tiny(1), ValueError, "num_classes is 1"),
        (lambda: SOLOv2(tiny().backbone, 3, (4, 4)), ValueError, r"grids is \(4, 4\), expected one integer .* 5"),
        (lambda: tiny()(torch.rand(1, 3, 32, 32), sizes=[(33, 3)]), ValueError, r"sizes\[0\] is \(33, 3\), expected"),
        (
            lambda: tiny()(torch.rand(1, 3, 32, 32), sizes=[]),
            ValueError,
            "sizes has 0 entries, expected 1, one for each image",
        ),
        (lambda: tiny()(torch.rand(1, 1, 8, 8)), ValueError, "images has shape"),
        (lambda: tiny()(torch.ones(1, 3, 8, 8).byte()), TypeError, "images has dtype"),
    ],
)
def test_bad_arguments(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
