"""Panoptic FPN: its branch beside figure 3, its rest beside Mask R-CNN, losses by hand, what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detection.scenes import small_pyramid
from learning import fit
from torch import Tensor

from segedu.datasets.street import THINGS, draw_street
from segedu.detection.fast_rcnn import TwoLayerHead
from segedu.detection.faster_rcnn import RPN
from segedu.instance.mask_rcnn import MaskHead, MaskRCNN, mask_rcnn_loss
from segedu.metrics.panoptic import PanopticQuality
from segedu.panoptic.panoptic_fpn import (
    KEYS,
    PanopticFPN,
    SemanticBranch,
    panoptic_fpn_loss,
    panoptic_fpn_resnet50,
    postprocess,
    to_network_classes,
)

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
STUFF = tuple(range(6))  # of `street`


# --- the branch, beside figure 3 ----------------------------------------------------------------------------------


def figure_3(features: list[Tensor], weights: dict[str, Tensor], groups: int) -> Tensor:
    """The figure written out: 3x3 convolution, group norm, ReLU, x2; once for 1/8, twice for 1/16, ...; sum; 1x1."""
    total = 0
    for i, x in enumerate(features):
        for j in range(max(i, 1)):
            name = f"levels.{i}.{j}"
            x = F.conv2d(x, weights[f"{name}.0.weight"], padding=1)
            B, C, H, W = x.shape
            parts = x.reshape(B, groups, -1)
            mean, variance = parts.mean(2, keepdim=True), parts.var(2, unbiased=False, keepdim=True)
            x = ((parts - mean) / (variance + 1e-5).sqrt()).reshape(B, C, H, W)
            x = x * weights[f"{name}.1.weight"][:, None, None] + weights[f"{name}.1.bias"][:, None, None]
            x = x.clamp(min=0)
            if i > 0:
                x = doubled(doubled(x, features[i - 1 - j].shape[2]).mT, features[i - 1 - j].shape[3]).mT
        total = total + x
    return (
        torch.einsum("bchw,kc->bkhw", total, weights["predictor.weight"][:, :, 0, 0])
        + weights["predictor.bias"][:, None, None]
    )


def doubled(x: Tensor, length: int) -> Tensor:
    """Linear interpolation of the rows to `length`, at the centres of cells."""
    place = ((torch.arange(length, dtype=x.dtype) + 0.5) * x.shape[2] / length - 0.5).clamp(0, x.shape[2] - 1)
    low = place.floor().long()
    high, share = (low + 1).clamp(max=x.shape[2] - 1), (place - low)[:, None]
    return x[:, :, low] * (1 - share) + x[:, :, high] * share


def branch_and_levels(size: tuple[int, int]) -> tuple[SemanticBranch, list[Tensor]]:
    torch.manual_seed(0)
    branch = SemanticBranch(6, 5, levels=4, width=8, groups=4).double()
    for parameter in branch.parameters():
        torch.nn.init.normal_(parameter)
    levels, (h, w) = [], size
    for _ in range(4):
        levels.append(torch.randn(2, 6, h, w, dtype=torch.float64))
        h, w = -(-h // 2), -(-w // 2)
    return branch, levels


@pytest.mark.parametrize("size", [(16, 24), (17, 19)], ids=str)
def test_branch_is_figure_3(size) -> None:
    branch, levels = branch_and_levels(size)
    weights = {name: value.detach().clone().requires_grad_() for name, value in branch.state_dict().items()}
    ours, expected = branch(levels), figure_3(levels, weights, groups=4)
    assert ours.shape == (2, 5, *size)
    torch.testing.assert_close(ours, expected, **CLOSE)
    direction = torch.randn_like(ours)
    (ours * direction).sum().backward()
    (expected * direction).sum().backward()
    for name, parameter in branch.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, **CLOSE)


def test_another_weight_gives_another_branch() -> None:
    branch, levels = branch_and_levels((16, 24))
    weights = {name: value.clone() for name, value in branch.state_dict().items()}
    weights["levels.3.2.0.weight"] += 1e-4
    assert not torch.allclose(branch(levels), figure_3(levels, weights, groups=4), **CLOSE)


def test_paper_network_has_as_many_parameters_as_the_authors() -> None:
    """Theirs: 45.97 million. They have no background in boxes and masks; ours are counted without it."""
    with torch.device("meta"):
        net = panoptic_fpn_resnet50()
    background = 4 * (1024 + 1) + (256 + 1)
    assert round((sum(p.numel() for p in net.parameters()) - background) / 1e6, 2) == 45.97
    shapes = {name: tuple(p.shape) for name, p in net.semantic_branch.named_parameters()}
    assert shapes["levels.3.0.0.weight"] == (128, 256, 3, 3) and shapes["levels.3.2.0.weight"] == (128, 128, 3, 3)
    assert [len(stages) for stages in net.semantic_branch.levels] == [1, 1, 2, 3]
    assert shapes["predictor.weight"] == (54, 128, 1, 1)


# --- the rest, beside Mask R-CNN ----------------------------------------------------------------------------------


def small(**options: object) -> PanopticFPN:
    torch.manual_seed(0)
    parts = {"rpn": RPN(16, (8, 12, 16, 24, 32)), "head": TwoLayerHead(16, 5, 32), "max_proposals": (100, 50)}
    branch = SemanticBranch(16, 7, width=16, groups=4)
    return PanopticFPN(small_pyramid(16), 5, 6, branch, mask_head=MaskHead(16, 7, 2), **{**parts, **options})


def streets(count: int, size: tuple[int, int] = (64, 96)) -> tuple[Tensor, list[dict], list[dict]]:
    drawn = [draw_street((4, i), size, variety=0.0, noise=0.0) for i in range(count)]
    targets = [
        to_network_classes({k: s[k] for k in ("boxes", "labels", "masks", "semantic")}, THINGS, STUFF) for s in drawn
    ]
    return torch.stack([s["image"] for s in drawn]), targets, drawn


def test_rest_is_mask_rcnn() -> None:
    ours = small(detection_options={"max_detections": 3, "score_threshold": 0.0}).double().eval()
    images, targets, _ = streets(2)
    images, targets = images.double(), [{**t, "boxes": t["boxes"].double()} for t in targets]
    parts = {"rpn": RPN(16, (8, 12, 16, 24, 32)), "head": TwoLayerHead(16, 5, 32), "max_proposals": (100, 50)}
    theirs = (
        MaskRCNN(small_pyramid(16), 5, MaskHead(16, 7, 2), detection_options=ours.detection_options, **parts)
        .double()
        .eval()
    )
    state = {key: value for key, value in ours.state_dict().items() if not key.startswith("semantic_branch.")}
    theirs.load_state_dict(state, strict=True)
    sizes = [(64, 96), (50, 80)]
    outputs, expected = ours(images, sizes), theirs(images, sizes)
    assert set(outputs) - set(expected) == {"semantic_logits"} and outputs["semantic_logits"].shape == (2, 7, 64, 96)
    for key in ("objectness", "class_logits", "deltas", "mask_logits"):
        assert torch.equal(outputs[key], expected[key])

    def with_seed(net, loss, **options):
        found = net(images, targets=targets, generator=torch.Generator().manual_seed(1))
        return loss(found, targets, generator=torch.Generator().manual_seed(2), **options)

    of_things = with_seed(theirs, mask_rcnn_loss)
    weighted = with_seed(ours, panoptic_fpn_loss, instance_weight=0.75, semantic_weight=0.25)
    assert set(weighted) == {"objectness", "anchor_box", "classes", "box", "mask", "semantic", "loss"}
    for name in set(of_things) - {"loss"}:
        torch.testing.assert_close(weighted[name], 0.75 * of_things[name])
    torch.testing.assert_close(weighted["loss"], 0.75 * of_things["loss"] + weighted["semantic"])
    plain = with_seed(ours, panoptic_fpn_loss)
    torch.testing.assert_close(plain["semantic"], 2 * weighted["semantic"])
    torch.testing.assert_close(plain["loss"], of_things["loss"] + plain["semantic"])


def test_semantic_loss_by_hand() -> None:
    """Two images, one of them padded: the mean is over the pixels of both that count."""
    net, (images, targets, _) = small(), streets(2)
    target = {
        key: value[..., :50, :80] if value.ndim > 1 and key != "boxes" else value for key, value in targets[1].items()
    }
    target = {**target, "boxes": torch.zeros(0, 4), "labels": target["labels"][:0], "masks": target["masks"][:0]}
    given = [targets[0], target]
    outputs = net(images, [(64, 96), (50, 80)], given)
    log_p = outputs["semantic_logits"].log_softmax(1)
    picked = []
    for log_probability, truth in zip(log_p, given, strict=True):
        rows, columns = (truth["semantic"] != 255).nonzero(as_tuple=True)
        picked.append(-log_probability[truth["semantic"][rows, columns], rows, columns])
    expected = 0.5 * torch.cat(picked).mean()
    torch.testing.assert_close(panoptic_fpn_loss(outputs, given)["semantic"], expected)


def test_backward_reaches_every_parameter_and_nothing_at_all_is_no_trouble() -> None:
    net, (images, targets, _) = small(), streets(2)
    void = torch.full((64, 96), 255)
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "semantic": void}
    none["masks"] = torch.zeros(0, 64, 96, dtype=torch.bool)
    panoptic_fpn_loss(net(images, targets=targets), targets)["loss"].backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    net.zero_grad()
    losses = panoptic_fpn_loss(net(images, targets=[none, none]), [none, none])
    losses["loss"].backward()
    assert losses["semantic"] == 0 and losses["mask"] == 0 and losses["loss"].isfinite()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in net.semantic_branch.parameters())


def test_categories_and_own_numbers() -> None:
    _, (target,), (scene,) = streets(1)
    assert torch.equal(target["labels"], scene["labels"] - 5)
    assert torch.equal(target["semantic"] == 0, torch.isin(scene["semantic"], torch.tensor(THINGS)))
    stuff = scene["semantic"] < 6
    assert torch.equal(target["semantic"][stuff], scene["semantic"][stuff] + 1)
    assert torch.equal(target["semantic"] == 255, scene["semantic"] == 255)


# --- what both branches say ---------------------------------------------------------------------------------------


def by_hand(size: tuple[int, int], boxes: Tensor, labels: Tensor, scores: Tensor, semantic: Tensor) -> dict:
    """Outputs whose masks fill their boxes; semantic (H, W) in the network's numbers, of the padded image."""
    masks = torch.full((len(boxes), 3, 28, 28), -9.0)
    masks[torch.arange(len(boxes)), labels] = 9.0
    logits = F.one_hot(semantic, 3).permute(2, 0, 1)[None] * 5.0
    instances = [{"boxes": boxes, "labels": labels, "scores": scores}]
    return dict.fromkeys(KEYS) | {
        "instances": instances, "mask_logits": masks, "semantic_logits": logits, "sizes": [size]
    }  # fmt: skip


def test_postprocess_by_hand() -> None:
    semantic = torch.tensor([[1, 1, 0, 0, 2, 2]] * 4)
    boxes, labels = torch.tensor([[0.0, 0, 2, 2], [2.0, 0, 4, 3]]), torch.tensor([2, 1])
    outputs = by_hand((3, 5), boxes, labels, torch.tensor([0.75, 0.875]), semantic)
    ((seg, info),) = postprocess(outputs, things=(7, 9), stuff=(4, 0), stuff_area=1)
    assert seg.tolist() == [[2, 2, 1, 1, 3], [2, 2, 1, 1, 3], [4, 4, 1, 1, 3]]  # the padding is gone
    assert [s["category_id"] for s in info] == [7, 9, 0, 4]
    assert [s["isthing"] for s in info] == [True, True, False, False]
    ((seg, info),) = postprocess(outputs, things=(7, 9), stuff=(4, 0), stuff_area=1, score_threshold=0.9)
    assert seg.tolist()[0] == [2, 2, 0, 0, 1] and [s["category_id"] for s in info] == [0, 4]
    nobody = by_hand((3, 5), boxes[:0], labels[:0], torch.zeros(0), semantic)
    assert [s["category_id"] for s in postprocess(nobody, (7, 9), (4, 0), stuff_area=1)[0][1]] == [0, 4]


@pytest.mark.learns
def test_learns_four_streets() -> None:
    images, targets, drawn = streets(4)
    torch.manual_seed(0)
    net = small(detection_options={"iou_threshold": 0.5})
    fit(net, lambda: panoptic_fpn_loss(net(images, targets=targets), targets)["loss"], steps=120)
    quality = PanopticQuality(10)
    with torch.no_grad():
        results = postprocess(net(images), THINGS, STUFF, stuff_area=16)
    for (seg, info), scene in zip(results, drawn, strict=True):
        quality.update({"panoptic_seg": seg, "segments_info": info}, scene)
    result = quality.compute()
    assert result["things"]["pq"] > 0.4 and result["stuff"]["pq"] > 0.6


# --- what it refuses ----------------------------------------------------------------------------------------------


def test_bad_input() -> None:
    net, (images, targets, _) = small(), streets(1)
    outputs = net(images, targets=targets)
    without = net.eval()(images)
    no_map = [{key: value for key, value in targets[0].items() if key != "semantic"}]
    for error, words, call in (
        (ValueError, "num_stuff is 0, expected an integer of at least 1", lambda: PanopticFPN(small_pyramid(16), 5, 0)),
        (ValueError, "outputs has the keys", lambda: panoptic_fpn_loss({}, targets)),
        (TypeError, "outputs has type list", lambda: postprocess([], THINGS, STUFF)),
        (ValueError, r"targets\[0\] has the keys .*, expected semantic", lambda: panoptic_fpn_loss(outputs, no_map)),
        (
            ValueError,
            r"targets\[0\]\['semantic'\] has shape \(64, 95\), expected \(H, W\) with H = 64, W = 96",
            lambda: panoptic_fpn_loss(outputs, [{**targets[0], "semantic": targets[0]["semantic"][:, 1:]}]),
        ),
        (
            TypeError,
            r"targets\[0\]\['semantic'\] has dtype torch.int32",
            lambda: panoptic_fpn_loss(outputs, [{**targets[0], "semantic": targets[0]["semantic"].int()}]),
        ),
        (
            ValueError,
            "target has the value 7",
            lambda: panoptic_fpn_loss(outputs, [{**targets[0], "semantic": torch.full((64, 96), 7)}]),
        ),
        (ValueError, "semantic_weight is -1", lambda: panoptic_fpn_loss(outputs, targets, semantic_weight=-1.0)),
        (ValueError, "has no scores", lambda: postprocess(outputs, THINGS, STUFF)),
        (
            ValueError,
            "things has 3 entries, expected 4, one for each channel of mask_logits",
            lambda: postprocess(without, (6, 7, 8), STUFF),
        ),
        (ValueError, "expected each category exactly once", lambda: postprocess(without, (6, 7, 8, 5), STUFF)),
        (ValueError, "has the value 6, expected one of", lambda: to_network_classes(draw_street(0), (7, 8, 9), STUFF)),
        (
            TypeError,
            "dtype torch.int32",
            lambda: to_network_classes({**targets[0], "labels": torch.ones(1).int()}, [1], [2]),
        ),
    ):
        with pytest.raises(error, match=words):
            call()
