"""OneFormer against Hugging Face's transformers with the same random weights: stages, texts, losses, key layout."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch
from panoptic.small_oneformer import (
    CLASSES,
    CONTEXT,
    QUERIES,
    TASKS,
    TOKENIZE,
    WIDTH,
    fresh,
    images_of,
    sentences_of,
    small,
    targets_of,
)  # fmt: skip
from torch import Tensor, nn

from segedu.panoptic.oneformer import OneFormer, oneformer_loss
from segedu.panoptic.oneformer_text import task_sentence

transformers = pytest.importorskip("transformers")

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
NAMES = (
    (r"^model\.", ""), (r"^pixel_level_module\.encoder\.", "backbone."), (r"^pixel_level_module\.decoder\.", "pixel_decoder."),
    (r"^backbone\.(swin\.)?embeddings\.patch_embeddings\.projection\.", "backbone.features.0.proj."),
    (r"^backbone\.(swin\.)?embeddings\.norm\.", "backbone.features.0.norm."),
    (r"^backbone\.hidden_states_norms\.stage(\d)\.", lambda m: f"backbone.norms.{int(m[1]) - 1}."),
    (r"^backbone\.(?:swin\.)?encoder\.layers\.(\d)\.downsample\.", lambda m: f"backbone.features.{2 * int(m[1]) + 2}."),
    (r"^backbone\.(?:swin\.)?encoder\.layers\.(\d)\.blocks\.", lambda m: f"backbone.features.{2 * int(m[1]) + 1}."),
    (r"\.attention\.relative_position_bias\.", ".attn."), (r"\.attention\.self\.", ".attn."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."), (r"\.attention\.([qkv]_proj)\.", r".attn.\1."),
    (r"\.(layernorm_before|layernorm1)\.", ".norm1."), (r"\.(layernorm_after|layernorm2)\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."), (r"(features\.\d\.\d)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.input_projections\.", ".input_proj."), (r"\.encoder\.layers\.", ".layers."),
    (r"self_attn_layer_norm", "norm1"), (r"final_layer_norm", "norm2"),
    (r"^(pixel_decoder\.layers\.\d\.)fc", r"\1linear"), (r"\.mask_projection\.", ".mask_features."),
    (r"\.adapter_1\.", ".lateral."), (r"\.layer_1\.", ".output."),
    (r"^transformer_module\.decoder\.query_transformer\.decoder\.", "task_queries."),
    (r"^transformer_module\.decoder\.query_input_projection\.", "task_queries.input_proj."),
    (r"^transformer_module\.queries_embedder\.", "decoder.query_embed."), (r"^transformer_module\.level_embed\.", "decoder.level_embed."),
    (r"^transformer_module\.decoder\.", "decoder."), (r"\.cross_attn\.multihead_attn\.", ".cross_attn."),
    (r"\.cross_attn\.norm\.", ".norm1."), (r"\.self_attn\.norm\.", ".norm2."), (r"\.self_attn\.self_attn\.", ".self_attn."),
    (r"\.ffn\.norm\.", ".norm3."), (r"\.ffn\.linear", ".linear"), (r"(mask_embed\.layers\.\d)\.0\.", r"\1."),
    (r"^task_encoder\.task_mlp\.layers\.(\d)\.0\.", lambda m: f"task_mlp.{2 * int(m[1])}."),
    (r"^text_mapper\.text_projector\.layers\.(\d)\.0\.", lambda m: f"text.projector.{2 * int(m[1])}."),
    (r"^text_mapper\.prompt_ctx\.weight", "text.context"), (r"^text_mapper\.text_encoder\.(transformer\.)?", "text.encoder."),
    (r"^text\.encoder\.(layers\.\d\.)mlp\.", r"text.encoder.\1"), (r"^criterion\.logit_scale", "text.logit_scale"),
)  # fmt: skip


def renamed(key: str) -> tuple[str, int | None]:
    """A key of transformers -> our key, and which third of a linear map to queries, keys and values it is."""
    for pattern, name in NAMES:
        key = re.sub(pattern, name, key)
    for pattern, whole in ((r"attn\.([qkv])_proj\.", "attn.qkv."), (r"attn\.(query|key|value)\.", "attn.qkv.")):
        if found := re.search(pattern, key):
            key = key.replace(found[0], whole if "features" in key else "attn.in_proj_")
            return key, "qkv".index(found[1][0])
    return key, None


LEFT_OUT = ("model.pixel_level_module.encoder.swin.layernorm.", "criterion.empty_weight")


def transformers_net(ours: OneFormer) -> nn.Module:
    body = transformers.SwinConfig(
        embed_dim=8, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 2], window_size=4, drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.OneFormerConfig(
        backbone_config=body, num_queries=QUERIES, num_labels=CLASSES, conv_dim=WIDTH, mask_dim=WIDTH, hidden_dim=WIDTH,
        encoder_feedforward_dim=24, encoder_layers=2, decoder_layers=4, dim_feedforward=20, num_attention_heads=2,
        text_encoder_width=64, text_encoder_context_length=TOKENIZE.length, text_encoder_num_layers=2,
        text_encoder_vocab_size=TOKENIZE.vocabulary, text_encoder_n_ctx=CONTEXT, task_seq_len=TOKENIZE.length,
        is_training=ours.text is not None, dropout=0.0, train_num_points=50,
    )  # fmt: skip
    theirs = transformers.OneFormerForUniversalSegmentation(config).double().eval()
    state, ready, used = ours.state_dict(), theirs.state_dict(), set()
    for key in ready:
        name, third = renamed(key)
        if not key.startswith(LEFT_OUT) and (name in state or ours.text is not None):
            used.add(name)
            ready[key] = state[name] if third is None else state[name].chunk(3)[third]
    assert used == set(state)
    theirs.load_state_dict(ready, strict=True)
    return theirs


def task_inputs(tasks: tuple[str, ...]) -> Tensor:
    return torch.stack([TOKENIZE(task_sentence(task)) for task in tasks])


@pytest.mark.parametrize("size", [(64, 96), (52, 76)])
@torch.no_grad()
def test_every_stage_equals_transformers(size: tuple[int, int]) -> None:
    ours = small()
    theirs, images = transformers_net(ours), images_of(3, size)
    targets = targets_of(TASKS, size)
    sentences = sentences_of(targets, TASKS)
    texts = torch.stack([torch.stack([TOKENIZE(line) for line in told]) for told in sentences])
    pixels = ours.backbone.normalize(images)
    expected = theirs(pixels, task_inputs(TASKS), text_inputs=texts, output_hidden_states=True)
    features = ours.backbone(images)
    for got, wanted in zip(features, expected.encoder_hidden_states, strict=True):
        torch.testing.assert_close(got, wanted, **CLOSE)
    mask_features, levels = ours.pixel_decoder(features)
    for got, wanted in zip((mask_features, *levels), expected.pixel_decoder_hidden_states, strict=True):
        assert wanted.std() > 0.01
        torch.testing.assert_close(got, wanted, **CLOSE)
    token = ours.task_mlp(task_inputs(TASKS).double())
    torch.testing.assert_close(token, expected.task_token, **CLOSE)
    outputs = ours(images, tasks=TASKS, sentences=sentences)
    contrastive = expected.transformer_decoder_contrastive_queries
    assert (contrastive[0] - contrastive[2]).abs().max() > 0.01
    torch.testing.assert_close(outputs["queries"], contrastive, **CLOSE)
    torch.testing.assert_close(outputs["text_queries"], expected.text_queries, **CLOSE)
    layers, wanted = [*outputs["aux_outputs"], outputs], expected.auxiliary_predictions
    assert len(layers) == 4 and len(wanted) == 3
    for got, aux in zip(layers, wanted, strict=False):
        torch.testing.assert_close(got["class_logits"], aux["class_queries_logits"], **CLOSE)
        torch.testing.assert_close(got["mask_logits"], aux["masks_queries_logits"], **CLOSE)
    torch.testing.assert_close(outputs["class_logits"], expected.class_queries_logits, **CLOSE)
    torch.testing.assert_close(outputs["mask_logits"], expected.masks_queries_logits, **CLOSE)


@torch.no_grad()
def test_equals_transformers_without_text() -> None:
    ours = small(text=False)
    theirs, images = transformers_net(ours), images_of(2, (48, 40))
    expected = theirs(ours.backbone.normalize(images), task_inputs(TASKS[:2]))
    outputs = ours(images, tasks=TASKS[:2])
    assert "text_queries" not in outputs and expected.text_queries is None
    torch.testing.assert_close(outputs["class_logits"], expected.class_queries_logits, **CLOSE)
    torch.testing.assert_close(outputs["mask_logits"], expected.masks_queries_logits, **CLOSE)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """transformers draws points of the default type, and makes queries and costs float32."""
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("size", [(64, 96), (52, 76)])
def test_losses_and_gradients_equal_transformers(size: tuple[int, int]) -> None:
    ours = small()
    theirs, images = transformers_net(ours), images_of(3, size)
    targets = targets_of(TASKS, size)
    sentences = sentences_of(targets, TASKS)
    outputs = ours(images, tasks=TASKS, sentences=sentences)
    torch.manual_seed(1)
    losses = oneformer_loss(outputs, targets, points=50)
    layers = [*outputs["aux_outputs"], outputs]
    leaves = [outputs["queries"], outputs["text_queries"], ours.text.logit_scale]
    leaves += [layer[key] for layer in layers for key in ("class_logits", "mask_logits")]
    aux = [
        {f"{n}_queries_logits": layer[k] for n, k in (("class", "class_logits"), ("masks", "mask_logits"))}
        for layer in layers[:-1]
    ]
    theirs.criterion.logit_scale = ours.text.logit_scale
    theirs.criterion.get_num_masks = lambda labels, device: max(1, sum(map(len, labels)))  # theirs is float32
    torch.manual_seed(1)
    terms = theirs.get_loss_dict(
        outputs["mask_logits"], outputs["class_logits"], outputs["queries"],
        [target["masks"].double() for target in targets], [target["labels"] for target in targets],
        outputs["text_queries"], aux, True,
    )  # fmt: skip
    keys = {"classification": "cross_entropy", "mask": "mask", "dice": "dice", "contrastive": "contrastive"}
    for name, key in keys.items():
        wanted = sum(value for term, value in terms.items() if key in term)
        torch.testing.assert_close(losses[name], wanted, **CLOSE)
    total = sum(terms.values())
    torch.testing.assert_close(losses["loss"], total, **CLOSE)
    for leaf in leaves:
        got, wanted = (torch.autograd.grad(loss.sum(), leaf, retain_graph=True)[0] for loss in (losses["loss"], total))
        assert wanted.abs().max() > 1e-4
        torch.testing.assert_close(got, wanted, **CLOSE)


@pytest.mark.parametrize("text", [True, False])
def test_the_layout_of_transformers_loads_strictly(text: bool) -> None:
    """Every key of theirs has its place, and every tensor of ours is filled."""
    ours, theirs = fresh(text), transformers_net(small(text))
    parts: dict[str, dict[int, Tensor]] = {}
    for key, tensor in theirs.state_dict().items():
        name, third = renamed(key)
        if not key.startswith(LEFT_OUT) and (text or name != "text.logit_scale"):
            parts.setdefault(name, {})[third or 0] = tensor
    state = {
        name: torch.cat([part[i] for i in range(3)]) if len(part) == 3 else part[0] for name, part in parts.items()
    }
    ours.double().load_state_dict(state, strict=True)
    for (name, got), (_, wanted) in zip(ours.state_dict().items(), small(text).state_dict().items(), strict=True):
        assert torch.equal(got, wanted), name
