"""YOLO11 with masks beside the authors' program, which is only run, never read: it is under AGPL-3.0.

Skips where that program is not installed, and no environment of this project installs it. To run these: make an
environment of its own, install this package there, pytest and `ultralytics`, and run this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from randomise import randomise
from torch import Tensor, nn

from segedu.backbones.yolo11 import SCALES, keys_of_ultralytics
from segedu.datasets.shapes import Shapes
from segedu.instance.yolo11_seg import YOLO11Seg, decode_distances, yolo11_seg, yolo11_seg_loss
from segedu.recipes.shapes import examples, stack

CONSTANTS = "model.23.dfl.conv.weight"  # the numbers 0 to 15, a parameter there


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The authors' program, which writes its settings where it may."""
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    return pytest.importorskip("ultralytics")


def twins(program: Any, scale: str) -> tuple[YOLO11Seg, nn.Module]:
    """Both networks with the same random weights, in float64 and evaluation mode."""
    theirs = program.YOLO(f"yolo11{scale}-seg.yaml").model.double()
    numbers = theirs.state_dict()[CONSTANTS].clone()
    randomise(theirs)
    theirs.load_state_dict({CONSTANTS: numbers}, strict=False)
    ours = yolo11_seg(scale).double().eval()
    ours.load_state_dict(keys_of_ultralytics(theirs.state_dict(), ours), strict=True)
    return ours, theirs


@pytest.mark.parametrize("scale", SCALES)
@torch.no_grad()
def test_features_heads_and_boxes_are_equal(program: Any, scale: str) -> None:
    ours, theirs = twins(program, scale)
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (predictions, _), raw = theirs(images)
    outputs = ours(images)
    for got, expected in zip(ours.pyramid(images), raw["feats"], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    boxes = decode_distances(outputs["box_logits"], outputs["points"], outputs["strides"])
    sides = [(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]]
    pairs = [
        (outputs["box_logits"].flatten(2), raw["boxes"]),
        (outputs["class_logits"], raw["scores"]),
        (outputs["coefficients"], raw["mask_coefficient"]),
        (torch.cat([*sides, outputs["class_logits"].sigmoid(), outputs["coefficients"]], dim=2), predictions),
    ]
    for got, expected in pairs:
        torch.testing.assert_close(got.mT, expected, rtol=1e-6, atol=1e-6)  # their strides are in float32
    torch.testing.assert_close(outputs["prototypes"], raw["proto"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(37, 61), (32, 70), (20, 9)])
@torch.no_grad()
def test_sides_that_are_no_multiples_of_32_are_filled_up_with_grey(program: Any, size: tuple[int, int]) -> None:
    """The authors' network takes multiples of 32 only; their program fills images up with 114 of 255."""
    ours, theirs = twins(program, "n")
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    filled = F.pad(images, (0, -size[1] % 32, 0, -size[0] % 32), value=114 / 255)
    raw, outputs = theirs(filled)[1], ours(images)
    pairs = [
        (outputs["box_logits"].flatten(2).mT, raw["boxes"]),
        (outputs["class_logits"].mT, raw["scores"]),
        (outputs["coefficients"].mT, raw["mask_coefficient"]),
        (outputs["prototypes"], raw["proto"]),
    ]
    for got, expected in pairs:
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert outputs["sizes"] == [size] * 2


def their_batch(images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Targets as their training wants them: one list for the batch, boxes as parts of the image, masks of stride 4."""
    boxes = torch.cat([target["boxes"] for target in targets]) / images.shape[-1]
    masks = torch.cat([target["masks"] for target in targets]).to(images)
    return {
        "img": images,
        "batch_idx": torch.cat([torch.full((len(target["labels"]),), i) for i, target in enumerate(targets)]).float(),
        "cls": torch.cat([target["labels"] for target in targets]).float()[:, None] - 1,
        "bboxes": torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1),
        "masks": F.interpolate(masks[None], scale_factor=0.25, mode="nearest")[0],
    }


def test_losses_are_near(program: Any) -> None:
    """Within a fiftieth: masks are made small in another way, and single places go to another object."""
    torch.manual_seed(0)
    theirs = program.YOLO("yolo11n-seg.yaml").model.float().train()
    theirs.args = program.cfg.get_cfg()
    theirs.args.overlap_mask = False
    ours = yolo11_seg("n").train()
    ours.load_state_dict(keys_of_ultralytics(theirs.state_dict(), ours), strict=True)
    images, targets = stack(examples(Shapes(2, seed=3, size=(128, 128))))
    _, found = theirs.loss(their_batch(images, targets))
    losses = yolo11_seg_loss(ours(images), targets)
    for name, its in (("box", "box_loss"), ("class", "cls_loss"), ("distance", "dfl_loss"), ("mask", "seg_loss")):
        assert float(losses[name].detach()) == pytest.approx(float(found[its]), rel=0.025), name
