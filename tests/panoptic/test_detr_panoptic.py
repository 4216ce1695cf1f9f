"""DETR's masks by hand, panoptic maps, keys, that it learns, and bad input; beside it ..._transformers.py."""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pooch
import pytest
import torch
import torch.nn.functional as F
from detection.small_detr import NOTHING, generator, official_state
from learning import fit
from panoptic.small_detr_panoptic import CLASSES, QUERIES, scene_with_masks, small, with_masks
from torch import Tensor, nn

from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.detection.detr import DETR, detr_loss
from segedu.layers.transformer import Transformer
from segedu.metrics.panoptic import panoptic_quality
from segedu.ops.masks import boxes_from_masks
from segedu.panoptic.detr_panoptic import (
    BoxAttention,
    DETRPanoptic,
    MaskHead,
    detr_panoptic_loss,
    detr_resnet50_panoptic,
    detr_resnet101_panoptic,
    postprocess,
)
from segedu.weights import WEIGHTS, load

THINGS = {1, 3}


def said(labels: list[int], masks: list) -> dict:
    """Queries that are sure of their labels, in an image as small as their masks."""
    masks = torch.tensor(masks, dtype=torch.float64)[None]
    logits = torch.zeros(1, len(labels), CLASSES + 1)
    for q, label in enumerate(labels):
        logits[0, q, label] = 9 + q
    size, boxes = tuple(masks.shape[-2:]), torch.full((1, len(labels), 4), 0.5)
    rest = {"boxes": boxes, "aux_outputs": [], "sizes": [size], "image_size": size}
    return {"class_logits": logits, "mask_logits": masks, **rest}


# --- panoptic map -----------------------------------------------------------------------------------------------


def looped(outputs: dict, b: int, score_threshold: float) -> tuple[Tensor, list[int]]:
    """The authors' rules, a pixel and a query at a time."""
    (h, w), K = outputs["sizes"][b], outputs["class_logits"].shape[-1] - 1
    masks = F.interpolate(outputs["mask_logits"], size=outputs["image_size"], mode="bilinear")[b, :, :h, :w]
    scores, labels = outputs["class_logits"][b].softmax(-1).max(-1)
    able = [q for q in range(len(labels)) if labels[q] != K and scores[q] > score_threshold]
    joined = True
    while True:
        if not able:
            return torch.zeros(h, w, dtype=torch.int32), []
        winner = masks[able].argmax(0)
        area = {}
        for q in able:
            same = [p for p in able if labels[p] == labels[q]] if joined and int(labels[q]) not in THINGS else [q]
            area[q] = sum(int((winner == able.index(p)).sum()) for p in same) if q == same[0] else 0
        joined = False
        if all(pixels > 4 for pixels in area.values()):
            return (winner + 1).to(torch.int32), [int(labels[q]) for q in able]
        able = [q for q in able if area[q] > 4]


@pytest.mark.parametrize("score_threshold", [0.0, 0.5, 0.85])
@pytest.mark.parametrize("seed", range(4))
def test_panoptic_maps_equal_a_loop(seed: int, score_threshold: float) -> None:
    outputs = with_masks()
    noise = torch.randn(3, 9, 7, 9, generator=generator(seed), dtype=torch.float64)
    outputs["mask_logits"] = F.interpolate(noise, (16, 24), mode="bicubic") + noise[:, :, :1, :1]
    outputs["class_logits"] = 3 * torch.randn(3, 9, CLASSES + 1, generator=generator(seed), dtype=torch.float64)
    found = postprocess(outputs, THINGS, score_threshold=score_threshold)
    for b, (seg, info) in enumerate(found):
        wanted, labels = looped(outputs, b, score_threshold)
        assert seg.dtype == torch.int32 and torch.equal(seg, wanted)
        assert [s["category_id"] for s in info] == labels
        assert [s["id"] for s in info] == list(range(1, len(info) + 1))
        assert seg.unique().tolist() == ([s["id"] for s in info] or [0])
        assert all(s["isthing"] == (s["category_id"] in THINGS) and s["score"] > score_threshold for s in info)
        stuff = [s["category_id"] for s in info if not s["isthing"]]
        assert len(stuff) == len(set(stuff))
        side = {"panoptic_seg": seg, "segments_info": info}
        assert not info or panoptic_quality(side, side, CLASSES)["pq"] == 1
    assert sum(len(info) for _, info in found) > 2


def test_a_few_pixels_are_given_out_again() -> None:
    """Query 1 has 4 pixels in the middle: they go to query 2, which is second there."""
    masks = torch.zeros(3, 3, 8)
    masks[0], masks[1, 1:, 4:6], masks[2, :, 4:] = 1.0, 3.0, 2.0
    ((seg, info),) = postprocess(said([1, 1, 3], masks.tolist()), THINGS)
    assert seg.tolist() == [[1, 1, 1, 1, 2, 2, 2, 2]] * 3
    assert [s["category_id"] for s in info] == [1, 3] and info[0]["score"] < info[1]["score"]
    masks[1, 0, 4] = 3.0  # a fifth pixel: it stays
    ((seg, info),) = postprocess(said([1, 1, 3], masks.tolist()), THINGS)
    assert [s["category_id"] for s in info] == [1, 1, 3] and seg[0].tolist() == [1, 1, 1, 1, 2, 3, 3, 3]


def test_stuff_said_twice_is_one_segment() -> None:
    """Two halves of label 2, each more than 4 pixels."""
    masks = torch.zeros(2, 3, 6)
    masks[0, :, :3], masks[1, :, 3:] = 1.0, 1.0
    for label, count in ((2, 1), (1, 2)):
        ((seg, info),) = postprocess(said([label, label], masks.tolist()), THINGS)
        assert len(info) == count and len(seg.unique()) == count and seg.min() == 1
    # 3 and 3 pixels: together they are enough
    ((seg, info),) = postprocess(said([2, 2], masks[:, :1].tolist()), THINGS)
    assert seg.tolist() == [[1] * 6] and len(info) == 1


def test_nothing_is_said() -> None:
    outputs = said([CLASSES, CLASSES], [[[1.0, 2.0]], [[2.0, 1.0]]])
    assert [(seg.tolist(), info) for seg, info in postprocess(outputs, THINGS)] == [([[0, 0]], [])]
    # an image of 4 pixels has no segment of more than 4
    for labels in ([1, 3], [2, 2]):
        seg, info = postprocess(said(labels, [[[1.0, 2.0, 1.0, 2.0]], [[2.0, 1.0, 2.0, 1.0]]]), THINGS)[0]
        assert not seg.any() and info == []


# --- loss -------------------------------------------------------------------------------------------------------


def test_losses_of_masks_beside_those_of_detr() -> None:
    outputs = with_masks()
    targets = [scene_with_masks(size, 3, 7) for size in outputs["sizes"]]
    losses, plain = detr_panoptic_loss(outputs, targets), detr_loss(outputs, targets)
    assert all(torch.equal(losses[key], plain[key]) for key in ("classification", "l1", "giou"))
    assert losses["loss"].item() == pytest.approx((plain["loss"] + losses["focal"] + losses["dice"]).item())
    heavier = detr_panoptic_loss(outputs, targets, focal_weight=3.0, dice_weight=2.0, no_object_weight=0.5)
    assert heavier["focal"].item() == pytest.approx(3 * losses["focal"].item())
    assert heavier["dice"].item() == pytest.approx(2 * losses["dice"].item())
    assert heavier["classification"] != losses["classification"]
    with pytest.raises(ValueError, match="focal_weight is -1"):
        detr_panoptic_loss(outputs, targets, focal_weight=-1)


def test_no_object_at_all() -> None:
    outputs = with_masks()
    outputs["mask_logits"].requires_grad_()
    targets = [{**NOTHING, "masks": torch.zeros(0, *size, dtype=torch.bool)} for size in outputs["sizes"]]
    losses = detr_panoptic_loss(outputs, targets)
    assert losses["focal"] == 0 and losses["dice"] == 0
    losses["loss"].backward()
    assert not outputs["mask_logits"].grad.any()


# --- network and keys -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_padding_gets_no_attention() -> None:
    attention = BoxAttention(8, 2).double()
    states, memory = (
        torch.randn(2, *shape, generator=generator(), dtype=torch.float64) for shape in ((3, 8), (8, 2, 5))
    )
    padding = torch.zeros(2, 2, 5, dtype=torch.bool)
    padding[1, :, 3:] = True
    maps = attention(states, memory, padding)
    assert maps.shape == (2, 3, 2, 2, 5) and not maps[1, ..., 3:].any() and maps[0].min() > 0
    alone = attention(states[1:], memory[1:, :, :, :3], padding[1:, :, :3])
    torch.testing.assert_close(maps[1:, ..., :3], alone)


def official_panoptic(depth: int) -> dict[str, Tensor]:
    """Keys and shapes of the authors' files."""
    state = {f"detr.{key}": value for key, value in official_state(depth).items()}
    state["detr.class_embed.weight"], state["detr.class_embed.bias"] = torch.zeros(251, 256), torch.zeros(251)
    for name in ("q_linear", "k_linear"):
        state |= {f"bbox_attention.{name}.{key}": value for key, value in nn.Linear(256, 256).state_dict().items()}
    before = 264
    for i, width in enumerate((264, 128, 64, 32, 16), start=1):
        convolution, norm = nn.Conv2d(before, width, 3), nn.GroupNorm(8, width)
        state |= {f"mask_head.lay{i}.{key}": value for key, value in convolution.state_dict().items()}
        state |= {f"mask_head.gn{i}.{key}": value for key, value in norm.state_dict().items()}
        before = width
    for name, convolution in {
        "out_lay": nn.Conv2d(16, 1, 3), "adapter1": nn.Conv2d(1024, 128, 1), "adapter2": nn.Conv2d(512, 64, 1),
        "adapter3": nn.Conv2d(256, 32, 1),
    }.items():  # fmt: skip
        state |= {f"mask_head.{name}.{key}": value for key, value in convolution.state_dict().items()}
    return state


@pytest.mark.parametrize(("builder", "depth"), [(detr_resnet50_panoptic, 50), (detr_resnet101_panoptic, 101)])
def test_official_state_dict_loads_strictly(builder, depth: int) -> None:
    with torch.device("meta"):
        ours, state = builder(), official_panoptic(depth)
    assert {key: value.shape for key, value in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
    ours.load_state_dict(state, strict=True, assign=True)
    if depth == 50:  # 42.9 million, as the authors count; a few are the frozen normalisations
        assert sum(p.numel() for p in ours.parameters()) / 1e6 == pytest.approx(42.8, abs=0.1)


FILES = {
    "detr_resnet50_panoptic": "detr-r50-panoptic-00ce5173",
    "detr_resnet50_dc5_panoptic": "detr-r50-dc5-panoptic-da08f1b1",
    "detr_resnet101_panoptic": "detr-r101-panoptic-40021d53",
}


def test_rows_of_official_files() -> None:
    for name, file in FILES.items():
        row = WEIGHTS[name]
        assert row.url == f"https://dl.fbaipublicfiles.com/detr/{file}.pth"
        assert file.endswith(f"-{row.sha256}") and len(row.sha256) == 8 and row.licence == "Apache-2.0"
        with torch.device("meta"):
            net = pkgutil.resolve_name(row.builder)(**row.options)
        assert net.detr.backbone[0]["body"].strides[-1] == (16 if "dc5" in name else 32)


def test_official_file_loads_strictly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "detr_resnet50_panoptic"
    file = tmp_path / f"{FILES[name]}.pth"
    with torch.device("meta"):
        state = official_panoptic(50)
    # one number each, however large the tensor: the file is small then
    state = {key: torch.tensor(float(i)).expand(meta.shape) for i, (key, meta) in enumerate(state.items())}
    torch.save({"model": state}, file)
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path))
    monkeypatch.setitem(WEIGHTS, name, replace(WEIGHTS[name], sha256=pooch.file_hash(file)))
    with mock.patch.object(nn.init, "xavier_uniform_"), mock.patch.object(nn.init, "kaiming_normal_"):
        net = load(name, progress=False)
    loaded = net.state_dict()
    assert not net.training and loaded.keys() == state.keys()
    assert all(float(loaded[key].flatten()[-1]) == float(value.flatten()[-1]) for key, value in state.items())


def two_rectangles(first: tuple[slice, slice], second: tuple[slice, slice]) -> dict[str, Tensor]:
    """Things of labels 1 and 3, and all else as stuff of label 2."""
    image, masks = torch.full((3, 32, 48), 0.2), torch.zeros(3, 32, 48, dtype=torch.bool)
    image[0][first], image[1][second] = 0.9, 0.8
    masks[0][first], masks[1][second] = True, True
    masks[2] = ~masks.any(0)
    return {"image": image, "labels": torch.tensor([1, 3, 2]), "masks": masks, "boxes": boxes_from_masks(masks)}


@pytest.mark.learns
def test_learns_two_scenes() -> None:
    scenes = [
        two_rectangles(np.s_[6:20, 4:18], np.s_[12:28, 28:44]),
        two_rectangles(np.s_[14:30, 2:14], np.s_[3:16, 22:40]),
    ]
    images = torch.stack([sample["image"] for sample in scenes])
    torch.manual_seed(2)
    body = ResNet(BasicBlock, (1, 1, 1, 1), (16, 24, 32, 32), output_stride=16)
    net = DETRPanoptic(DETR(body, Transformer(64, 4, 1, 2, 64, 0.0), CLASSES, 8), 4, groups=4)
    weights = {"no_object_weight": 0.5, "focal_weight": 20.0, "dice_weight": 5.0}  # masks are learnt last
    loss_of = lambda: detr_panoptic_loss(net(images), scenes, **weights)["loss"]  # noqa: E731
    first, last = fit(net, loss_of, steps=200, lr=3e-3, max_norm=5.0)
    assert last < first / 4
    overlaps = []
    for (seg, info), scene in zip(postprocess(net(images), THINGS), scenes, strict=True):
        preds = {s["category_id"]: seg == s["id"] for s in info}
        for label, mask in zip(scene["labels"].tolist(), scene["masks"], strict=True):
            pred = preds.get(label, torch.zeros_like(mask))
            overlaps.append((pred & mask).sum() / (pred | mask).sum())
    assert torch.stack(overlaps).mean() > 0.4, overlaps


# --- bad input --------------------------------------------------------------------------------------------------

OUTPUTS = with_masks()


@pytest.mark.parametrize(
    ("outputs", "error", "says"),
    [
        ([], TypeError, "outputs has type list"),
        ({"boxes": OUTPUTS["boxes"]}, ValueError, "outputs has the keys"),
        ({**OUTPUTS, "mask_logits": OUTPUTS["mask_logits"][:, 1:]}, ValueError, "mask_logits"),
        ({**OUTPUTS, "mask_logits": OUTPUTS["mask_logits"].long()}, TypeError, "torch.int64"),
        ({**OUTPUTS, "mask_logits": OUTPUTS["mask_logits"] * torch.nan}, ValueError, "NaN"),
        ({**OUTPUTS, "sizes": OUTPUTS["sizes"][1:]}, ValueError, r"sizes'\] has 2 entries, expected 3, one for each"),
        ({**OUTPUTS, "sizes": [(65, 1)] * 3}, ValueError, r"sizes'\]\[0\] is \(65, 1\), expected"),
    ],
)
def test_bad_outputs(outputs, error, says) -> None:
    with pytest.raises(error, match=says):
        postprocess(outputs, THINGS)
    if says != "NaN":
        with pytest.raises(error, match=says):
            detr_panoptic_loss(outputs, [scene_with_masks(size, 1, 1) for size in OUTPUTS["sizes"]])


def test_bad_targets_parts_and_images() -> None:
    targets = [scene_with_masks(size, 2, 1) for size in OUTPUTS["sizes"]]
    del targets[0]["masks"]
    with pytest.raises(ValueError, match=r"targets\[0\] has the keys \['boxes', 'labels'\], expected"):
        detr_panoptic_loss(OUTPUTS, targets)
    with pytest.raises(ValueError, match="score_threshold is -1"):
        postprocess(OUTPUTS, THINGS, score_threshold=-1)
    with pytest.raises(TypeError, match="things has type int"):
        postprocess(OUTPUTS, 3)
    with pytest.raises(ValueError, match="embed_dim is 8, expected a multiple of num_heads, which is 3"):
        BoxAttention(8, 3)
    with pytest.raises(ValueError, match="channels has 2 entries, expected 3"):
        MaskHead(128, 8, (4, 4))
    with pytest.raises(ValueError, match=r"widths \(36, 16, 8, 4, 2\), expected multiples of 8"):
        MaskHead(32, 4, (4, 4, 4))
    net = small()
    with pytest.raises(TypeError, match="images has dtype torch.uint8"):
        net(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    outputs = net(torch.zeros(1, 3, 1, 9, dtype=torch.float64))
    assert outputs["mask_logits"].shape == (1, QUERIES, 1, 3)
    assert [seg.shape for seg, _ in postprocess(outputs, THINGS, score_threshold=0)] == [(1, 9)]
