"""OneFormer against Hugging Face's transformers with the same random weights: stages, texts, losses, key layout."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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
    targets_of,
)  # fmt: skip
from randomise import randomise
from safetensors.torch import load_file
from torch import Tensor, nn

from segedu.panoptic.oneformer import OneFormer, oneformer_loss, oneformer_swin_tiny
from segedu.panoptic.oneformer_text import task_sentence
from segedu.weights import pretrained
from segedu.weights.catalogue import WEIGHTS
from segedu.weights.transformers_keys import ONEFORMER

transformers = pytest.importorskip("transformers")

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
ROW = WEIGHTS["oneformer_swin_tiny_ade20k"]
OLD_NAMES = {  # of Swin, before version 5; what save_pretrained writes
    ".encoder.swin.": ".encoder.", ".attention.q_proj.": ".attention.self.query.", ".attention.k_proj.": ".attention.self.key.",
    ".attention.v_proj.": ".attention.self.value.", ".attention.o_proj.": ".attention.output.dense.",
    ".attention.relative_position_bias.": ".attention.self.", ".mlp.fc1.": ".intermediate.dense.", ".mlp.fc2.": ".output.dense.",
}  # fmt: skip


def old(key: str) -> str:
    """A key of version 5 -> as files have it."""
    for new, name in OLD_NAMES.items():
        key = key.replace(new, name) if ".pixel_level_module.encoder." in key else key
    return key


def renamed(key: str) -> tuple[str, int | None]:
    """A key of version 5 -> our key, and which third of our tensor it is; the benchmarks fill theirs by it."""
    key = old(key)
    for pattern, replacement in ONEFORMER:
        key = re.sub(pattern, replacement, key)
    name, _, third = key.partition("#")
    return name, int(third) if third else None


def both(folder: Path, text: bool = True) -> tuple[OneFormer, nn.Module]:
    """Ours, filled strictly from a file that transformers wrote, and theirs."""
    body = transformers.SwinConfig(
        embed_dim=8, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 2], window_size=4, drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.OneFormerConfig(
        backbone_config=body, num_queries=QUERIES, num_labels=CLASSES, conv_dim=WIDTH, mask_dim=WIDTH, hidden_dim=WIDTH,
        encoder_feedforward_dim=24, encoder_layers=2, decoder_layers=4, dim_feedforward=20, num_attention_heads=2,
        text_encoder_width=64, text_encoder_context_length=TOKENIZE.length, text_encoder_num_layers=2,
        text_encoder_vocab_size=TOKENIZE.vocab_size, text_encoder_n_ctx=CONTEXT, task_seq_len=TOKENIZE.length,
        is_training=text, dropout=0.0, train_num_points=50,
    )  # fmt: skip
    theirs = randomise(transformers.OneFormerForUniversalSegmentation(config))
    theirs.criterion.empty_weight.fill_(1)[-1] = 0.1
    theirs.save_pretrained(folder)
    unused = ("model.pixel_level_module.encoder.swin.layernorm.", "criterion.empty_weight")
    row = replace(ROW, ignored_keys=unused if text else (*unused, "criterion."))
    state = pretrained._our_keys(load_file(folder / "model.safetensors"), row)
    ours = fresh(text).double().eval()
    ours.load_state_dict(state, strict=True)
    return ours, theirs


def task_inputs(tasks: tuple[str, ...]) -> Tensor:
    return torch.stack([TOKENIZE(task_sentence(task)) for task in tasks])


# Windows have 4 x 4 tokens: several in every stage, or one in some stages; and sides that are not multiples of 4.
@pytest.mark.parametrize("size", [(64, 96), (52, 76), (97, 131), (48, 130), (33, 41)])
@torch.no_grad()
def test_every_stage_equals_transformers(size: tuple[int, int], tmp_path: Path) -> None:
    ours, theirs = both(tmp_path)
    images = images_of(3, size)
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


@pytest.mark.parametrize("size", [(48, 40), (37, 41)])
@torch.no_grad()
def test_equals_transformers_without_text(size: tuple[int, int], tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, text=False)
    images = images_of(2, size)
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
@pytest.mark.parametrize("size", [(64, 96), (52, 76), (67, 101)])
def test_losses_and_gradients_equal_transformers(size: tuple[int, int], tmp_path: Path) -> None:
    ours, theirs = both(tmp_path)
    images = images_of(3, size)
    targets = targets_of(TASKS, size)
    sentences = sentences_of(targets, TASKS)
    outputs = ours(images, tasks=TASKS, sentences=sentences)
    torch.manual_seed(1)
    losses = oneformer_loss(outputs, targets, num_points=50)
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


def test_the_file_of_ade20k_has_these_keys_and_shapes() -> None:
    """Swin-T and all, as transformers makes it; its file of 2022 held tables of places besides, and no text."""
    with torch.device("meta"):
        theirs = transformers.OneFormerForUniversalSegmentation(transformers.OneFormerConfig(num_labels=150))
        ours = oneformer_swin_tiny()
    state = {old(key): tensor for key, tensor in theirs.state_dict().items()}
    start = "model.pixel_level_module.encoder.encoder.layers."
    for i, depth in enumerate((2, 2, 6, 2)):
        for j in range(depth):
            state[f"{start}{i}.blocks.{j}.attention.self.relative_position_index"] = torch.empty(49, 49, device="meta")
    assert state.pop("model.pixel_level_module.encoder.layernorm.weight").shape == (768,)
    del state["model.pixel_level_module.encoder.layernorm.bias"]
    ours.load_state_dict(pretrained._our_keys(state, ROW), strict=True, assign=True)
    assert ROW.file_name == "oneformer_ade20k_swin_tiny-pytorch_model.bin" and len(ROW.sha256) == 64
    assert sum(p.numel() for p in ours.parameters()) * 4 / 2**20 == pytest.approx(ROW.mebibytes, rel=0.01)
