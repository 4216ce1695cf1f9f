"""DETR's mask head against Hugging Face's transformers with the same random weights: maps, masks, losses."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from detection.small_detr import batch_of
from panoptic.small_detr_panoptic import CHANNELS, CLASSES, EMBED, HEADS, QUERIES, scene_with_masks, small, with_masks
from torch import nn

from segedu.layers.segments import pad_masks
from segedu.panoptic.detr_panoptic import DETRPanoptic, detr_panoptic_loss

transformers = pytest.importorskip("transformers")
from detection.test_detr_transformers import parts, renamed  # noqa: E402

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
# padded to 64 x 96, and, with no multiple of 32, to 53 x 71
BATCHES = [([(64, 96), (41, 50)], 32), ([(53, 71), (33, 20)], 1)]
HEAD = (
    (r"^mask_head\.conv(\d)\.conv\.", r"mask_head.lay\1."), (r"^mask_head\.conv(\d)\.norm\.", r"mask_head.gn\1."),
    (r"^mask_head\.output_conv\.", "mask_head.out_lay."), (r"^bbox_attention\.([qk])_proj\.", r"bbox_attention.\1_linear."),
)  # fmt: skip
STAGES = (("fpn_adapter", "adapter", 1), ("refine.conv", "lay", 3), ("refine.norm", "gn", 3))


def renamed_head(key: str) -> tuple[str, int | None]:
    """A key of transformers -> our key, and which third of `in_proj` it is."""
    if key.startswith("detr."):
        name, third = renamed(key.removeprefix("detr."))
        return f"detr.{name}", third
    for pattern, ours in HEAD:
        key = re.sub(pattern, ours, key)
    for theirs, ours, first in STAGES:
        pattern = rf"^mask_head\.fpn_stages\.(\d)\.{re.escape(theirs)}\."
        key = re.sub(pattern, lambda m, o=ours, f=first: f"mask_head.{o}{int(m[1]) + f}.", key)
    return key, None


def config(**more: object) -> object:
    body = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=list(CHANNELS), depths=[1] * 4, layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    return transformers.DetrConfig(
        backbone_config=body, num_queries=QUERIES, d_model=EMBED, num_labels=CLASSES, encoder_layers=2,
        decoder_layers=3, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=20,
        decoder_ffn_dim=20, **more,
    )  # fmt: skip


def transformers_net(ours: DETRPanoptic) -> nn.Module:
    theirs = transformers.DetrForSegmentation(config()).double().eval()
    state, ready, used = ours.state_dict(), {}, set()
    for key in theirs.state_dict():
        name, third = renamed_head(key)
        used.add(name)
        ready[key] = state[name] if third is None else state[name].chunk(3)[third]
    assert used == set(state)
    theirs.load_state_dict(ready, strict=True)
    return theirs


@pytest.fixture(scope="module")
def pair() -> tuple[DETRPanoptic, nn.Module]:
    """transformers makes numbers of its own, and would make them float32."""
    torch.set_default_dtype(torch.float64)
    ours = small()
    yield ours, transformers_net(ours)
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("sizes", "multiple"), BATCHES)
@torch.no_grad()
def test_maps_and_masks_equal_transformers(pair, sizes: list[tuple[int, int]], multiple: int) -> None:
    ours, theirs = pair
    images, _ = batch_of(sizes, multiple)
    mask = torch.zeros(len(images), *images.shape[2:])
    for row, (h, w) in zip(mask, sizes, strict=True):
        row[:h, :w] = 1
    maps: dict[str, list] = {"ours": [], "theirs": []}
    hooks = [
        net.bbox_attention.register_forward_hook(lambda module, given, made, name=name: maps[name].append(made))
        for name, net in (("ours", ours), ("theirs", theirs))
    ]
    expected = theirs(ours.detr.backbone[0]["body"].normalize(images), mask)
    outputs = ours(images, sizes)
    for hook in hooks:
        hook.remove()
    (attention,), (wanted,) = maps["ours"], maps["theirs"]
    assert attention.shape[:3] == (2, QUERIES, HEADS) and attention.std() > 1e-4
    torch.testing.assert_close(attention, wanted, **CLOSE)
    torch.testing.assert_close(attention.sum((2, 3, 4)), torch.ones(2, QUERIES), **CLOSE)
    torch.testing.assert_close(outputs["class_logits"], expected.logits, **CLOSE)
    torch.testing.assert_close(outputs["boxes"], expected.pred_boxes, **CLOSE)
    assert expected.pred_masks.std() > 0.05
    torch.testing.assert_close(outputs["mask_logits"], expected.pred_masks, **CLOSE)
    names = ["class_logits", "boxes", "mask_logits", "aux_outputs", "sizes", "image_size"]
    assert list(outputs) == names and outputs["image_size"] == tuple(images.shape[2:])
    plain = ours.detr(images, sizes)
    for mine, same in zip(outputs["aux_outputs"], plain["aux_outputs"], strict=True):
        assert all(torch.equal(mine[key], same[key]) for key in ("class_logits", "boxes"))


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("counts", [(3, 0, 7), (1, 9, 12)])  # of nine queries
def test_losses_and_gradients_equal_transformers(counts: tuple[int, ...]) -> None:
    from transformers.loss import loss_for_object_detection as oracle

    outputs = with_masks()
    targets = [scene_with_masks(size, n, 20 * n) for size, n in zip(outputs["sizes"], counts, strict=True)]
    theirs = [
        {**parts(target, size), "masks": pad_masks(target["masks"], outputs["image_size"])}
        for target, size in zip(targets, outputs["sizes"], strict=True)
    ]
    logits, boxes = (
        torch.stack([layer[key] for layer in (*outputs["aux_outputs"], outputs)]).requires_grad_()
        for key in ("class_logits", "boxes")
    )
    masks = outputs["mask_logits"].requires_grad_()
    settings = SimpleNamespace(
        class_cost=1, bbox_cost=5, giou_cost=2, num_labels=CLASSES, eos_coefficient=0.1, auxiliary_loss=True,
        bbox_loss_coefficient=5, giou_loss_coefficient=2, mask_loss_coefficient=1, dice_loss_coefficient=1,
        decoder_layers=3,
    )  # fmt: skip
    total, terms, _ = oracle.ForSegmentationLoss(logits[-1], theirs, "cpu", boxes[-1], masks, settings, logits, boxes)
    layers = [{"class_logits": k, "boxes": b} for k, b in zip(logits, boxes, strict=True)]
    losses = detr_panoptic_loss({**outputs, **layers[-1], "aux_outputs": layers[:-1]}, targets)
    assert list(losses) == ["classification", "l1", "giou", "focal", "dice", "loss"]
    for name, key in (("focal", "mask"), ("dice", "dice")):
        assert terms[f"loss_{key}"] > 0.01
        torch.testing.assert_close(losses[name], terms[f"loss_{key}"], **CLOSE)
    torch.testing.assert_close(losses["loss"], total, **CLOSE)
    for leaf in (logits, boxes, masks):
        got, wanted = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in (losses["loss"], total))
        assert wanted.abs().max() > 1e-4
        torch.testing.assert_close(got, wanted, **CLOSE)
