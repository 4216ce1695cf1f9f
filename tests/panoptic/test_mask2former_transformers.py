"""Mask2Former against Hugging Face's transformers with the same random weights: stages, costs, losses, gradients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from panoptic.small_mask2former import (
    CLASSES,
    DECODER,
    ENCODER,
    HEADS,
    LAYERS,
    PIXEL_LAYERS,
    QUERIES,
    RESNET,
    SWIN,
    WIDTH,
    small,
)
from panoptic.small_maskformer import batch_of, random_outputs, segments
from torch import Tensor, nn

from segedu.layers.segments import pad_masks
from segedu.panoptic.mask2former import mask2former
from segedu.panoptic.mask2former.loss import mask2former_loss, matching_cost, sample_points
from segedu.panoptic.mask2former.mask2former import Mask2Former

transformers = pytest.importorskip("transformers")

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
# Windows have 3 x 3 tokens. Sizes: several windows in every stage; one window in some stages, on one axis or on both;
# and sides that are not multiples of 4, 8, 16 or 32.
BATCHES = [
    ("resnet", [(64, 96), (41, 50)], 32),
    ("resnet", [(53, 71)], 1),
    ("swin", [(68, 108), (64, 90)], 4),
    ("swin", [(33, 41)], 1),
]
NAMES = (
    (r"^model\.pixel_level_module\.encoder\.(hidden_states_norms\.|swin\.encoder\.|swin\.)?", r"backbone."),
    (r"^model\.pixel_level_module\.decoder\.", "pixel_decoder."),
    (r"^model\.transformer_module\.decoder\.", "decoder."),
    (r"^model\.transformer_module\.queries_embedder\.", "decoder.query_embed."),
    (r"^model\.transformer_module\.queries_features\.", "decoder.query_feat."),
    (r"^model\.transformer_module\.level_embed\.", "decoder.level_embed."),
    (r"^class_predictor\.", "decoder.class_embed."),
    (r"^decoder\.layernorm\.", "decoder.decoder_norm."),
    (r"mask_predictor\.mask_embedder\.(\d)\.0\.", r"mask_embed.layers.\1."),
    (r"^(pixel_decoder)\.encoder\.", r"\1."),
    (r"input_projections\.", "input_proj."),
    (r"mask_projection\.", "mask_features."),
    (r"adapter_1\.", "lateral."),
    (r"(pixel_decoder)\.layer_1\.", r"\1.output."),
    (r"(pixel_decoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"(pixel_decoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm2."),
    (r"\.cross_attn_layer_norm\.", ".norm1."),
    (r"\.self_attn_layer_norm\.", ".norm2."),
    (r"\.final_layer_norm\.", ".norm3."),
    (r"(decoder\.layers\.\d+)\.fc([12])\.", r"\1.linear\2."),
    # ResNet
    (r"embedder\.embedder\.convolution\.", "conv1."),
    (r"embedder\.embedder\.normalization\.", "bn1."),
    (r"shortcut\.convolution\.", "downsample.0."),
    (r"shortcut\.normalization\.", "downsample.1."),
    # Swin
    (r"embeddings\.patch_embeddings\.projection\.", "features.0.proj."),
    (r"embeddings\.norm\.", "features.0.norm."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.relative_position_bias\.", ".attn."),
    (r"\.attention\.", ".attn."),
)  # fmt: skip
COUNTED = (
    (r"backbone\.stage(\d)\.", lambda i: f"backbone.norms.{i - 1}."),
    (r"encoder\.stages\.(\d)\.layers\.", lambda i: f"layer{i + 1}."),
    (r"\.layer\.(\d)\.convolution\.", lambda i: f".conv{i + 1}."),
    (r"\.layer\.(\d)\.normalization\.", lambda i: f".bn{i + 1}."),
    (r"backbone\.layers\.(\d)\.blocks\.", lambda i: f"backbone.features.{2 * i + 1}."),
    (r"backbone\.layers\.(\d)\.downsample\.", lambda i: f"backbone.features.{2 * i + 2}."),
)  # fmt: skip
LEFT_OUT = r"(num_batches_tracked|relative_position_index|swin\.layernorm\.\w+|criterion\.empty_weight)$"


def renamed(key: str) -> tuple[str, int | None]:
    """A key of transformers -> our key, and which third of it, where queries, keys and values are one tensor."""
    for pattern, ours in NAMES:
        key = re.sub(pattern, ours, key)
    for pattern, counted in COUNTED:
        key = re.sub(pattern, lambda match, counted=counted: counted(int(match[1])), key)
    for third, name in enumerate(("q_proj.", "k_proj.", "v_proj.")):
        if name in key:
            return key.replace(name, "qkv." if "backbone" in key else "in_proj_"), third
    return key, None


def transformers_net(ours: Mask2Former, kind: str) -> nn.Module:
    stages = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    if kind == "swin":
        body = transformers.SwinConfig(**{**SWIN, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4]}, **stages)
    else:
        widths = [4 * width for width in RESNET]
        body = transformers.ResNetConfig(embedding_size=2, hidden_sizes=widths, depths=[1] * 4, **stages)
    config = transformers.Mask2FormerConfig(
        backbone_config=body, num_labels=CLASSES, feature_size=WIDTH, mask_feature_size=WIDTH, hidden_dim=WIDTH,
        encoder_feedforward_dim=ENCODER, dim_feedforward=DECODER, encoder_layers=PIXEL_LAYERS,
        decoder_layers=LAYERS + 1, num_attention_heads=HEADS, num_queries=QUERIES,
    )  # fmt: skip
    theirs = transformers.Mask2FormerForUniversalSegmentation(config).double().eval()
    state, ready, used = ours.state_dict(), {}, set()
    for key, tensor in theirs.state_dict().items():
        if re.search(LEFT_OUT, key):
            ready[key] = tensor
            continue
        name, third = renamed(key)
        used.add(name)
        ready[key] = state[name] if third is None else state[name].chunk(3)[third]
    assert {key for key in set(state) - used if not key.endswith("num_batches_tracked")} == set()
    theirs.load_state_dict(ready, strict=True)
    return theirs


def recorded(module: nn.Module, seen: list[Any], **options: bool) -> None:
    if options:
        module.register_forward_pre_hook(lambda _, args, named: seen.append(named["encoder_attention_mask"]), **options)
    else:
        module.register_forward_hook(lambda _, args, output: seen.append(output))


@pytest.mark.parametrize(("kind", "sizes", "multiple"), BATCHES)
@torch.no_grad()
def test_every_stage_equals_transformers(
    kind: str, sizes: list[tuple[int, int]], multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = small(kind)
    theirs = transformers_net(ours, kind)
    images, _ = batch_of(sizes, multiple)
    states: list[Tensor] = []
    masks: list[Tensor] = []
    wanted_masks: list[Tensor] = []
    fallen: list[Tensor] = []
    recorded(ours.decoder.decoder_norm, states)
    for layer in theirs.model.transformer_module.decoder.layers:
        recorded(layer, wanted_masks, with_kwargs=True)
    attention_mask = mask2former.attention_mask

    def watched(mask_logits: Tensor, size: tuple[int, int], num_heads: int) -> Tensor:
        small_masks = torch.nn.functional.interpolate(mask_logits, size=size, mode="bilinear", align_corners=False)
        fallen.append((small_masks.flatten(2) < 0).all(dim=-1))
        masks.append(attention_mask(mask_logits, size, num_heads))
        return masks[-1]

    monkeypatch.setattr(mask2former, "attention_mask", watched)
    outputs = ours(images, sizes)
    pixels = ours.backbone.normalize(images)
    inner = theirs.model(pixel_values=pixels, output_hidden_states=True)
    expected = theirs(pixel_values=pixels, output_auxiliary_logits=True)
    features = ours.backbone(images)[-4:]
    mask_features, levels = ours.pixel_decoder(features)
    for got, wanted in (
        (features, inner.encoder_hidden_states),
        ([mask_features], [inner.pixel_decoder_last_hidden_state]),
        (levels, inner.pixel_decoder_hidden_states),
        (states, [state.transpose(0, 1) for state in inner.transformer_decoder_intermediate_states]),
    ):
        for one, other in zip(got, wanted, strict=True):
            assert other.std() > 0.01
            torch.testing.assert_close(one, other, **CLOSE)
    assert any(rows.any() for rows in fallen) and not all(rows.all() for rows in fallen)
    assert len(masks) == LAYERS and all(0.05 < mask.double().mean() < 0.95 for mask in masks)
    for mask, wanted in zip(masks, wanted_masks, strict=False):
        assert torch.equal(mask, wanted.bool())
    for layer, wanted in zip(outputs["aux_outputs"], expected.auxiliary_logits, strict=True):
        torch.testing.assert_close(layer["class_logits"], wanted["class_queries_logits"], **CLOSE)
        torch.testing.assert_close(layer["mask_logits"], wanted["masks_queries_logits"], **CLOSE)
    torch.testing.assert_close(outputs["class_logits"], expected.class_queries_logits, **CLOSE)
    torch.testing.assert_close(outputs["mask_logits"], expected.masks_queries_logits, **CLOSE)
    assert (expected.masks_queries_logits[:, 1:] - expected.masks_queries_logits[:, :-1]).abs().amax(
        (1, 2, 3)
    ).min() > 0.1


@pytest.mark.parametrize(
    ("kind", "size"), [("swin", (97, 131)), ("swin", (48, 130)), ("swin", (12, 41)), ("resnet", (33, 9))]
)
@torch.no_grad()
def test_features_and_outputs_equal_transformers_at_any_size(kind: str, size: tuple[int, int]) -> None:
    """A single window on one axis or on both, and sides that are not multiples of 4."""
    ours = small(kind)
    theirs = transformers_net(ours, kind)
    images, _ = batch_of([size], 1)
    expected = theirs(pixel_values=ours.backbone.normalize(images), output_hidden_states=True)
    for got, wanted in zip(ours.backbone(images)[-4:], expected.encoder_hidden_states, strict=True):
        torch.testing.assert_close(got, wanted, **CLOSE)
    outputs = ours(images)
    assert outputs["mask_logits"].shape[-2:] == tuple(-(-side // 4) for side in size)
    torch.testing.assert_close(outputs["class_logits"], expected.class_queries_logits, **CLOSE)
    torch.testing.assert_close(outputs["mask_logits"], expected.masks_queries_logits, **CLOSE)


@pytest.fixture
def double() -> Iterator[None]:
    """transformers draws points and weights in torch's default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("counts", [(3, 0, 7), (1, 9, 12)])  # of nine queries
def test_costs_losses_and_gradients_equal_transformers(counts: tuple[int, ...]) -> None:
    from transformers.models.mask2former import modeling_mask2former as oracle

    outputs = random_outputs()
    size = outputs["image_size"]
    targets = [segments(part, n, 20 * n) for part, n in zip(outputs["sizes"], counts, strict=True)]
    labels, masks = [t["labels"] for t in targets], [pad_masks(t["masks"], size).double() for t in targets]
    logits, drawn = (
        torch.stack([layer[key] for layer in (*outputs["aux_outputs"], outputs)]).requires_grad_()
        for key in ("class_logits", "mask_logits")
    )
    config = transformers.Mask2FormerConfig(num_labels=CLASSES, train_num_points=200)
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    criterion = oracle.Mask2FormerLoss(config, weights)
    aux = [{"class_queries_logits": k, "masks_queries_logits": m} for k, m in zip(logits[:-1], drawn[:-1], strict=True)]
    torch.manual_seed(5)
    terms = criterion(drawn[-1], logits[-1], masks, labels, aux)
    layers = [{"class_logits": k, "mask_logits": m} for k, m in zip(logits, drawn, strict=True)]
    given = {**layers[-1], "aux_outputs": layers[:-1], "sizes": outputs["sizes"], "image_size": size}
    losses = mask2former_loss(given, targets, num_points=200, generator=torch.Generator().manual_seed(5))
    assert list(losses) == ["classification", "mask", "dice", "loss"]
    totals = {key: sum(value for name, value in terms.items() if name.startswith(key)) for key in weights}
    for name, key in zip(losses, weights, strict=False):
        torch.testing.assert_close(losses[name], weights[key] * totals[key], **CLOSE)
    total = sum(weights[key] * totals[key] for key in weights)
    torch.testing.assert_close(losses["loss"], total, **CLOSE)
    for leaf in (logits, drawn):
        got, wanted = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in (losses["loss"], total))
        assert wanted.abs().flatten(1).amax(1).min() > 1e-3
        torch.testing.assert_close(got, wanted, **CLOSE)
    points = torch.rand(1, 50, 2)
    for b in (0, 2):
        seen, true = (sample_points(maps, points.expand(len(maps), -1, -1)) for maps in (drawn[0, b], masks[b]))
        wanted_points = oracle.sample_point(drawn[0, b][:, None], points.expand(9, -1, -1), align_corners=False)
        torch.testing.assert_close(seen, wanted_points[:, 0], **CLOSE)
        cost = matching_cost(logits[0, b], seen, labels[b], true)
        wanted = 5 * oracle.pair_wise_sigmoid_cross_entropy_loss(seen, true) + 5 * oracle.pair_wise_dice_loss(
            seen, true
        )
        torch.testing.assert_close(cost, wanted - 2 * logits[0, b].softmax(-1)[:, labels[b]], **CLOSE)
