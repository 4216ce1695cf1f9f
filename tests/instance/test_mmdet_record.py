"""SOLOv2, CondInst's mask heads, YOLACT's cutting and Fast NMS against the record of mmdet 3.3.0: see mmdet_record.py."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from instance import mmdet_record as record

from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.instance import condinst, solov2, yolact
from segedu.ops.masks import boxes_from_masks

RECORDED = json.loads(record.RECORD.read_text(encoding="utf-8"))
CLOSE = {"rtol": 0, "atol": 1e-6}  # mmdet has coordinates in float32
SIZES = pytest.mark.parametrize("size", record.SIZES)


def solov2_net() -> solov2.SOLOv2:
    """The network of the record: the same number for each name in mmdet, by the key map that users load files with."""
    backbone = FPN(ResNet(BasicBlock, (2, 2, 2, 2), (8, 16, 32, 64)), 8, extra=PoolLevel())
    net = solov2.SOLOv2(backbone, record.CLASSES, record.GRIDS, **record.SOLO).double().eval()
    names = RECORDED["solov2"]["{}x{}".format(*record.SIZES[0])]["keys"]
    ours = solov2.keys_of_mmdet({name: name for name in names})
    state = net.state_dict()
    assert set(ours) == set(state)
    record.fill({theirs: state[key] for key, theirs in ours.items()})
    return net


def expected(size: tuple[int, int]) -> dict[str, Any]:
    return RECORDED["solov2"]["{}x{}".format(*size)]


def sampled(tensor: torch.Tensor) -> torch.Tensor:
    return torch.tensor(record.sample(tensor), dtype=torch.float64)


@SIZES
@torch.no_grad()
def test_solov2_network(size: tuple[int, int]) -> None:
    net = solov2_net()
    outputs, wanted = net(record.images(size)), expected(size)
    for key in ("kernels", "class_logits"):
        for got, numbers in zip(outputs[key], wanted[key], strict=True):
            assert len(numbers) > 2 and max(numbers) - min(numbers) > 0.1
            torch.testing.assert_close(sampled(got), torch.tensor(numbers, dtype=torch.float64), **CLOSE)
    masks = torch.tensor(wanted["mask_features"], dtype=torch.float64)
    torch.testing.assert_close(sampled(outputs["mask_features"]), masks, **CLOSE)
    net.mask_features.levels[2][1][0].weight[0, 0, 0, 0] += 0.1  # a weight that differs is noticed
    changed = sampled(net(record.images(size))["mask_features"])
    assert (changed - masks).abs().max() > 1e-4


@SIZES
@torch.no_grad()
def test_solov2_losses(size: tuple[int, int]) -> None:
    targets = [
        {"boxes": boxes_from_masks(masks), "labels": torch.tensor(labels), "masks": masks}
        for masks, labels in zip(record.masks_of(size), record.LABELS, strict=True)
    ]
    losses = solov2.solov2_loss(solov2_net()(record.images(size)), targets, record.RANGES)
    assert losses["class"].item() == pytest.approx(expected(size)["losses"]["loss_cls"], rel=1e-6)
    assert losses["mask"].item() == pytest.approx(expected(size)["losses"]["loss_mask"], rel=1e-6)


@SIZES
@torch.no_grad()
def test_solov2_objects(size: tuple[int, int]) -> None:
    found = solov2.postprocess(solov2_net()(record.images(size)))
    for got, (scores, labels, areas) in zip(found, expected(size)["found"], strict=True):
        assert len(scores) > 20
        torch.testing.assert_close(got["scores"], torch.tensor(scores, dtype=torch.float64), **CLOSE)
        assert got["labels"].tolist() == labels
        assert got["masks"].flatten(1).sum(1).tolist() == areas


def test_mask_heads_of_condinst() -> None:
    given = record.head_inputs()
    half = given["strides"][:, None] / 2
    squares = torch.cat([given["places"] - half, given["places"] + half], dim=1)
    masks = condinst.mask_heads(given["features"], squares, given["weights"])
    wanted = torch.tensor(RECORDED["condinst"]["masks"], dtype=torch.float64)
    assert wanted.std() > 1
    torch.testing.assert_close(sampled(masks), wanted, rtol=1e-5, atol=1e-5)


def test_fast_nms_and_cutting_of_yolact() -> None:
    boxes, scores = record.nms_inputs()
    row, label = yolact.fast_nms(boxes, scores, 0.3, topk_candidates=40)
    values, labels = RECORDED["yolact"]["fast_nms"]
    assert 5 < len(values) < 60
    torch.testing.assert_close(scores[row, label], torch.tensor(values, dtype=torch.float64))
    assert label.tolist() == labels
    inside = yolact.inside_boxes(boxes, (9, 12), (45, 60))
    assert inside.flatten(1).sum(1).tolist() == RECORDED["yolact"]["inside"]
