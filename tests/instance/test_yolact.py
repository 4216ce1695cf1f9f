"""YOLACT: anchors, masks and Fast NMS by hand, losses by hand and by loops, the network stage by stage, decoding."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from instance.drawn_objects import assert_same_objects, block, nobody, target_of
from learning import detection_f1, fit
from torch import Tensor

from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.datasets.shapes import draw_shapes
from segedu.instance.yolact import YOLACT, assemble_masks, fast_nms, inside_boxes, postprocess, yolact_loss
from segedu.ops.anchors import encode_boxes
from segedu.ops.boxes import box_iou
from segedu.ops.nms import nms

SCALES = (12.0, 24.0, 48.0, 96.0)


def tiny(num_classes: int = 4, width: int = 8, prototypes: int = 6, **options: object) -> YOLACT:
    torch.manual_seed(0)
    body = ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 8, 8))
    return YOLACT(body, num_classes, width, prototypes, **{"scales": SCALES, **options})


# --- masks, boxes, NMS ------------------------------------------------------------------------------------------


def test_masks_are_mixed_before_the_sigmoid() -> None:
    generator = torch.Generator().manual_seed(0)
    prototypes, coefficients = torch.rand(3, 4, 5, generator=generator), torch.randn(2, 3, generator=generator)
    got = assemble_masks(prototypes, coefficients)
    for n in range(2):
        for y in range(4):
            for x in range(5):
                expected = sum(float(prototypes[k, y, x] * coefficients[n, k]) for k in range(3))
                assert got[n, y, x].item() == pytest.approx(expected, abs=1e-6)
    assert assemble_masks(prototypes, coefficients[:0]).shape == (0, 4, 5)


def test_masks_are_cut_a_place_beyond_the_box() -> None:
    # 4 pixels a place: rows 1..2, columns 1.5..3; then one more: rows 0..2, columns 0.5..3.99
    mask = inside_boxes(torch.tensor([[6.0, 4.0, 12.0, 8.0]]), (8, 8), (32, 32))[0]
    assert mask.any(1).nonzero().flatten().tolist() == [0, 1, 2]
    assert mask.any(0).nonzero().flatten().tolist() == [1, 2, 3]
    assert inside_boxes(torch.zeros(0, 4), (3, 4), (9, 9)).shape == (0, 3, 4)
    everything = inside_boxes(torch.tensor([[0.0, 0.0, 24.0, 9.0]]), (3, 4), (9, 24))
    assert everything.all()


def test_fast_nms_is_harder_than_nms() -> None:
    # 1 overlaps 2, 2 overlaps 3, 1 and 3 do not: ordinary NMS keeps 3 once 2 is gone
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10], [40, 0, 50, 10]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    assert nms(boxes, scores, 0.4).tolist() == [0, 2, 3]
    row, label = fast_nms(boxes, scores[:, None], 0.4)
    assert row.tolist() == [0, 3] and label.tolist() == [0, 0]
    assert fast_nms(boxes, scores[:, None], 1.0)[0].tolist() == [0, 1, 2, 3]


def test_fast_nms_by_loops() -> None:
    generator = torch.Generator().manual_seed(1)
    corner = 20 * torch.rand(40, 2, generator=generator)
    boxes = torch.cat([corner, corner + 5 + 10 * torch.rand(40, 2, generator=generator)], 1)
    scores = torch.rand(40, 3, generator=generator)
    kept = []
    for k in range(3):
        order = sorted(range(40), key=lambda i, k=k: -scores[i, k])[:25]
        for place, i in enumerate(order):
            if all(box_iou(boxes[j][None], boxes[i][None]) <= 0.3 for j in order[:place]):
                kept.append((scores[i, k].item(), i, k))
    row, label = fast_nms(boxes, scores, 0.3, topk_candidates=25)
    assert list(zip(row.tolist(), label.tolist(), strict=True)) == [(i, k) for _, i, k in sorted(kept, reverse=True)]
    assert [x.shape for x in fast_nms(boxes[:0], scores[:0], 0.3)] == [(0,), (0,)]


# --- the loss ---------------------------------------------------------------------------------------------------


def hand_outputs() -> dict[str, object]:
    """8 x 8 pixels, two kinds, five anchors, two prototypes of 2 x 2 places."""
    deltas = torch.zeros(1, 5, 4, dtype=torch.float64)
    deltas[0, 0] = torch.tensor([0.5, 0.0, 0.0, 2.0])
    logits = torch.zeros(1, 5, 3, dtype=torch.float64)
    logits[0, 3, 0] = logits[0, 4, 0] = math.log(2)
    coefficients = torch.zeros(1, 5, 2, dtype=torch.float64)
    coefficients[0, 0] = torch.tensor([1.0, -1.0])
    prototypes = torch.tensor([[[[0.0, 1.0], [2.0, 0.0]], [[1.0, 1.0], [0.0, 3.0]]]], dtype=torch.float64)
    anchors = [[0.0, 0, 4, 4], [4.0, 4, 8, 8], [0, 4, 4, 8], [4, 0, 8, 4], [0.0, 0, 4, 8.5]]  # the last: IoU 0.47
    return {
        "class_logits": logits.requires_grad_(),
        "deltas": deltas.requires_grad_(),
        "coefficients": coefficients.requires_grad_(),
        "prototypes": prototypes.requires_grad_(),
        "semantic_logits": torch.zeros(1, 2, 1, 1, dtype=torch.float64).requires_grad_(),
        "anchors": torch.tensor(anchors, dtype=torch.float64),
        "image_size": (8, 8),
        "sizes": [(8, 8)],
    }


def test_loss_by_hand() -> None:
    outputs, target = hand_outputs(), target_of(block(0, 0, 4, 4, (8, 8)), labels=(2,))
    losses = yolact_loss(outputs, [target])
    # Anchor 0 is the object, the last overlaps it by 16 / 34 and is neither; three negatives for one positive:
    # log 3 where all logits are 0, -log(2/4) where background has log 2
    wanted = {"class": 3 * math.log(3) + math.log(2)}
    # smooth L1 of 0.5 and of 2
    wanted["box"] = 1.5 * (0.125 + 1.5)
    # logits p1 - p2: -1, 0, 2, -3. The box is one place; with one more to each side it has all four. Area 1 place.
    mask = sum(math.log(1 + math.exp(x)) for x in (0, 2, -3)) + math.log(1 + math.exp(1))
    wanted["mask"] = 6.125 * mask
    # one place for the image: a quarter of it is the object, no more than a half; two kinds at 1/2
    wanted["semantic"] = 2 * math.log(2)
    for key, value in wanted.items():
        assert losses[key].item() == pytest.approx(value, abs=1e-12), key
    assert losses["loss"].item() == pytest.approx(sum(wanted.values()), abs=1e-12)
    assert set(losses) == {*wanted, "loss"}
    losses["loss"].backward()
    assert outputs["deltas"].grad[0, 0].tolist() == pytest.approx([0.75, 0, 0, 1.5])  # 0.5 and at most 1, times 1.5
    assert outputs["class_logits"].grad[0, 0].tolist() == pytest.approx([1 / 3, 1 / 3, -2 / 3])
    assert not outputs["class_logits"].grad[0, 4].any()  # neither object nor background
    # sigmoid less mask, times the first prototype 0, 1, 2, 0
    expected = 6.125 * (0.5 * 1 + 2 / (1 + math.exp(-2)))
    assert outputs["coefficients"].grad[0, 0, 0].item() == pytest.approx(expected, abs=1e-12)


def test_loss_by_loops() -> None:
    net = tiny().double()
    scenes = [draw_shapes(seed, (48, 64)) for seed in (1, 2)]
    outputs = net(torch.stack([scene["image"] for scene in scenes]).double())
    outputs = {k: v.detach() if isinstance(v, Tensor) else v for k, v in outputs.items()}
    outputs["class_logits"] = torch.randn(outputs["class_logits"].shape).double()
    losses, sums, count = yolact_loss(outputs, scenes), dict.fromkeys(("class", "box", "mask", "semantic"), 0.0), 0
    for b, scene in enumerate(scenes):
        boxes, labels = scene["boxes"].double(), scene["labels"]
        iou = box_iou(boxes, outputs["anchors"])
        log_p = outputs["class_logits"][b].log_softmax(-1)
        best = {int(iou[n].argmax()) for n in range(len(boxes))}
        background = []
        small = F.interpolate(scene["masks"][:, None].double(), outputs["prototypes"].shape[-2:], mode="bilinear") > 0.5
        start = count
        for a in range(len(outputs["anchors"])):
            n = int(iou[:, a].argmax())
            if iou[n, a] < 0.4 and a not in best:
                background.append(-float(log_p[a, 0]))
            if iou[n, a] < 0.5 and a not in best:
                continue
            count += 1
            sums["class"] -= float(log_p[a, labels[n]])
            delta = encode_boxes(boxes[n : n + 1], outputs["anchors"][a : a + 1], (10, 10, 5, 5))[0]
            sums["box"] += 1.5 * float(F.smooth_l1_loss(outputs["deltas"][b, a], delta, reduction="sum"))
            p = torch.einsum("khw,k->hw", outputs["prototypes"][b], outputs["coefficients"][b, a]).sigmoid()
            x1, y1, x2, y2 = (boxes[n] / 4).tolist()  # prototypes have a place for 4 pixels
            total = 0.0
            for y in range(p.shape[0]):
                for x in range(p.shape[1]):
                    if y1 - 1 <= y < y2 + 1 and x1 - 1 <= x < x2 + 1:
                        total -= math.log(float(p[y, x] if small[n, 0, y, x] else 1 - p[y, x]))
            sums["mask"] += 6.125 * total / ((x2 - x1) * (y2 - y1))
        sums["class"] += sum(sorted(background, reverse=True)[: 3 * (count - start)])
        for k in range(3):
            chosen = F.interpolate(scene["masks"][:, None].double(), (6, 8), mode="bilinear")[labels == k + 1, 0] > 0.5
            there = chosen.any(0).double()
            logits = outputs["semantic_logits"][b, k]
            sums["semantic"] += float(F.binary_cross_entropy_with_logits(logits, there)) / 2
    assert count > 10
    for key, value in sums.items():
        expected = value if key == "semantic" else value / count
        assert losses[key].item() == pytest.approx(expected, rel=1e-9), key


def test_gradients() -> None:
    outputs = hand_outputs()
    torch.manual_seed(0)
    keys = ("class_logits", "deltas", "coefficients", "prototypes", "semantic_logits")
    tensors = tuple(torch.randn_like(outputs[key]).requires_grad_() for key in keys)
    target = target_of(block(0, 0, 4, 4, (8, 8)), block(3, 4, 8, 8, (8, 8)), labels=(2, 1))

    def loss(*given: Tensor) -> Tensor:
        return yolact_loss({**outputs, **dict(zip(keys, given, strict=True))}, [target])["loss"]

    assert torch.autograd.gradcheck(loss, tensors)


def test_small_objects_count_as_much_as_large_ones() -> None:
    values = []
    for side in (8, 32):
        mask, size = block(0, 0, side, side, (64, 64)), (64, 64)
        outputs = {**hand_outputs(), "image_size": size, "sizes": [size]}
        outputs["anchors"] = torch.tensor([[0.0, 0, side, side], *[[50.0, 50, 60, 60]] * 4], dtype=torch.float64)
        outputs["prototypes"] = torch.ones(1, 2, 64, 64, dtype=torch.float64)
        values.append(yolact_loss(outputs, [target_of(mask)])["mask"].item())
    # logits 0: log 2 a place, of (side + 1)^2 places over the area of the box
    expected = [6.125 * math.log(2) * (side + 1) ** 2 / side**2 for side in (8, 32)]
    assert values == pytest.approx(expected)


def test_no_objects() -> None:
    net = tiny()
    images = torch.rand(2, 3, 32, 32)
    for targets in ([nobody(), nobody()], [nobody(), target_of(block(4, 4, 20, 20))]):
        losses = yolact_loss(net(images), targets)
        several = sum(len(target["labels"]) for target in targets) > 0
        assert all((losses[key] > 0) == several for key in ("class", "box", "mask")) and losses["semantic"] > 0
        losses["loss"].backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


# --- the network ------------------------------------------------------------------------------------------------


def test_anchors() -> None:
    anchors = tiny(use_square_anchors=False)(torch.rand(1, 3, 64, 96))["anchors"]
    assert len(anchors) == 3 * (8 * 12 + 4 * 6 + 2 * 3 + 1 * 2)
    wide = 12 * math.sqrt(2) / 2
    # the second place of the first row: its middle is at (12, 4); width over height 1, 1/2, 2
    expected = [[6, -2, 18, 10], [12 - wide / 2, 4 - wide, 12 + wide / 2, 4 + wide], [12 - wide, 4 - wide / 2, 12 + wide, 4 + wide / 2]]  # fmt: skip
    torch.testing.assert_close(anchors[3:6], torch.tensor(expected))
    assert anchors[-1].tolist()[0] == pytest.approx(72 - 96 / math.sqrt(0.5) / 2 * 1.0, abs=1e-3)
    square = tiny()(torch.rand(1, 3, 64, 96))["anchors"]
    sides = square[:, 2:] - square[:, :2]
    torch.testing.assert_close(sides[:, 0], sides[:, 1])
    assert sides[:3, 0].tolist() == pytest.approx([12, 12 * math.sqrt(0.5), 12 * math.sqrt(2)])
    # of a size that no stride divides the places share the image evenly, as the authors' (j + 1/2) / w
    odd = tiny()(torch.rand(1, 3, 50, 70))["anchors"]
    assert odd[0, [0, 2]].mean().item() == pytest.approx(70 / 9 / 2)


@pytest.mark.parametrize("size", [(64, 96), (37, 45), (33, 70)])
def test_shapes(size: tuple[int, int]) -> None:
    outputs = tiny()(torch.rand(2, 3, *size), sizes=[size, (20, 30)])
    h, w = -(-size[0] // 8), -(-size[1] // 8)
    count = outputs["anchors"].shape[0]
    expected = {
        "class_logits": (2, count, 4),
        "deltas": (2, count, 4),
        "coefficients": (2, count, 6),
        "prototypes": (2, 6, 2 * h, 2 * w),
        "semantic_logits": (2, 3, h, w),
        "anchors": (count, 4),
    }
    assert {key: tuple(outputs[key].shape) for key in expected} == expected
    assert outputs["coefficients"].abs().max() < 1 and outputs["prototypes"].min() >= 0
    found = postprocess(outputs, score_threshold=0.0)
    assert [tuple(x["masks"].shape[1:]) for x in found] == [size, (20, 30)]
    assert 0 < len(found[0]["boxes"]) <= 100 and (found[0]["scores"].diff() <= 0).all()
    assert (found[1]["boxes"] <= torch.tensor([30, 20, 30, 20])).all() and (found[1]["boxes"] >= 0).all()


def test_stage_by_stage() -> None:
    net = tiny().double().eval()
    images = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    got, (c3, c4, c5) = net(images), net.backbone(images)[-3:]
    grow = lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")  # noqa: E731
    (l3, l4, l5), (s3, s4, s5), (down,) = net.pyramid.lateral, net.pyramid.smooth, net.pyramid.extra
    m5 = l5(c5)
    m4 = l4(c4) + grow(m5)
    levels = [F.relu(s3(l3(c3) + grow(m4))), F.relu(s4(m4)), F.relu(s5(m5))]
    levels.append(down(levels[-1]))
    convs = [layer for layer in net.protonet if hasattr(layer, "weight")]
    x = levels[0]
    for convolution in convs[:3]:
        x = F.relu(convolution(x))
    prototypes = F.relu(convs[4](F.relu(convs[3](grow(x)))))
    torch.testing.assert_close(got["prototypes"], prototypes, rtol=0, atol=1e-12)
    torch.testing.assert_close(got["semantic_logits"], net.semantic(levels[0]), rtol=0, atol=1e-12)
    coefficients = []
    for level in levels:
        maps = torch.tanh(net.coefficients(F.relu(net.shared(level))))[0]
        coefficients += [maps[6 * a : 6 * a + 6, y, x] for y in range(maps.shape[1]) for x in range(maps.shape[2]) for a in range(3)]  # fmt: skip
    torch.testing.assert_close(got["coefficients"][0], torch.stack(coefficients), rtol=0, atol=1e-12)


def test_backward_reaches_every_parameter() -> None:
    net = tiny()
    targets = [target_of(block(4, 4, 18, 20, (64, 64)), block(0, 0, 60, 60, (64, 64)), block(9, 9, 38, 38, (64, 64)))]
    yolact_loss(net(torch.rand(1, 3, 64, 64)), targets)["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.learns
def test_learns_synthetic_scenes() -> None:
    torch.manual_seed(0)
    body = ResNet(BasicBlock, (1, 1, 1, 1), (16, 16, 24, 32))
    net = YOLACT(body, 4, 24, 8, scales=(20.0, 40.0, 60.0), ratios=(1.0,))
    scenes = [draw_shapes(seed, (64, 64), count=(2, 3)) for seed in (3, 4)]
    images = torch.stack([scene["image"] for scene in scenes])
    fit(net, lambda: yolact_loss(net(images), scenes)["loss"], steps=150)
    preds = postprocess(net.train()(images), score_threshold=0.5, iou_threshold=0.3)  # with the batch's statistics
    assert detection_f1(preds, scenes, of="masks") > 0.6


# --- decoding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_targets_there_and_back(seed: int) -> None:
    """A prototype for each object; the best anchor of each says what and where it is, and mixes plus and minus."""
    size, target = (64, 80), draw_shapes(seed, (64, 80))
    count = len(target["labels"])
    outputs = {k: v.detach() if isinstance(v, Tensor) else v for k, v in tiny().double()(torch.rand(1, 3, *size).double()).items()}  # fmt: skip
    best = box_iou(target["boxes"].double(), outputs["anchors"]).argmax(1)
    assert len(best.unique()) == count
    small = F.interpolate(target["masks"][:, None].double(), (16, 20), mode="bilinear")[:, 0]
    outputs["prototypes"] = torch.cat([4 * small, torch.full((1, 16, 20), 2.0)])[None]
    outputs["coefficients"] = torch.zeros(1, len(outputs["anchors"]), count + 1, dtype=torch.float64)
    outputs["class_logits"] = 9.0 * F.one_hot(torch.zeros(1, len(outputs["anchors"]), dtype=torch.int64), 4).double()
    for n, anchor in enumerate(best.tolist()):
        outputs["coefficients"][0, anchor, [n, count]] = torch.tensor([1.0, -1.0], dtype=torch.float64)
        outputs["class_logits"][0, anchor] = 9.0 * F.one_hot(target["labels"][n], 4)
    outputs["deltas"][0, best] = encode_boxes(target["boxes"].double(), outputs["anchors"][best], (10, 10, 5, 5))
    found = postprocess(outputs)[0]
    assert_same_objects(found, target, least=0.7)  # masks of 16 x 20 places
    order = [int(box_iou(found["boxes"], box[None].double()).argmax()) for box in target["boxes"]]
    torch.testing.assert_close(found["boxes"][order], target["boxes"].double(), rtol=0, atol=1e-4)
    assert found["scores"].dtype == torch.float64 and found["masks"].dtype == torch.bool


def test_masks_are_cut_out_by_the_box_found() -> None:
    outputs = hand_outputs()
    logits = torch.tensor([9.0, 0.0, 0.0]).repeat(1, 5, 1)
    logits[0, 1] = torch.tensor([0.0, 9.0, 0.0])
    small = {"deltas": torch.zeros(1, 5, 4), "anchors": outputs["anchors"].float(), "class_logits": logits}
    everywhere = {"prototypes": torch.ones(1, 2, 8, 8), "coefficients": torch.ones(1, 5, 2)}
    found = postprocess({**outputs, **small, **everywhere})[0]
    assert found["labels"].tolist() == [1] and found["boxes"].tolist() == [[4, 4, 8, 8]]
    assert found["masks"][0].equal(block(3, 3, 8, 8, (8, 8)))  # the box, and a place more


def test_nothing_found() -> None:
    for found in postprocess(tiny()(torch.rand(2, 3, 40, 48)), score_threshold=0.999):
        assert [tuple(value.shape) for value in found.values()] == [(0, 4), (0,), (0,), (0, 40, 48)]


# --- what is refused --------------------------------------------------------------------------------------------


GOOD = hand_outputs()
TARGET = target_of(block(0, 0, 4, 4, (8, 8)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: yolact_loss(GOOD["anchors"], [TARGET]), TypeError, "outputs has type Tensor, expected a dict"),
        (lambda: yolact_loss({"anchors": 1}, [TARGET]), ValueError, "outputs has the keys .*expected class_logits"),
        (lambda: yolact_loss(GOOD, [TARGET] * 2), ValueError, "targets has 2 entries, expected 1, one for each image"),
        (lambda: yolact_loss(GOOD, [{**TARGET, "labels": torch.tensor([3])}]), ValueError, "expected 1 to 2"),
        (lambda: yolact_loss(GOOD, [{**TARGET, "masks": TARGET["masks"][..., :7]}]), ValueError, r"\(1, 8, 8\)"),
        (lambda: postprocess([GOOD]), TypeError, "outputs has type list"),
        (lambda: postprocess({**GOOD, "deltas": GOOD["deltas"] * math.nan}), ValueError, r"\['deltas'\] contains NaN"),
        (lambda: tiny(1), ValueError, "num_classes is 1"),
        (lambda: tiny(scales=(4.0, 8.0)), ValueError, "scales and ratios are"),
        (lambda: tiny()(torch.rand(1, 3, 32, 32), sizes=[(33, 3)]), ValueError, r"sizes\[0\] is \(33, 3\), expected"),
        (lambda: tiny()(torch.rand(1, 1, 8, 8)), ValueError, "images has shape"),
        (lambda: tiny()(torch.ones(1, 3, 8, 8).byte()), TypeError, "images has dtype"),
    ],
)
def test_bad_arguments(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
