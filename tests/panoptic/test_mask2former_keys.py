"""Files of Mask2Former load strictly: the authors' names, rebuilt from torch's own layers, and those of transformers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from panoptic.small_mask2former import small
from panoptic.test_mask2former_transformers import transformers_net
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import resnet50 as tv_resnet50
from torchvision.models import swin_t as tv_swin_t

from segedu.panoptic.mask2former import mask2former
from segedu.panoptic.mask2former.mask2former import Mask2Former, mask2former_resnet50, mask2former_swin_tiny
from segedu.weights import pretrained
from segedu.weights.catalogue import WEIGHTS
from segedu.weights.transformers_keys import MASK2FORMER

OFFICIAL = (
    (r"^sem_seg_head\.pixel_decoder\.transformer\.(encoder\.)?", "pixel_decoder."),
    (r"^sem_seg_head\.pixel_decoder\.adapter_1\.norm\.", "pixel_decoder.lateral.1."),
    (r"^sem_seg_head\.pixel_decoder\.adapter_1\.", "pixel_decoder.lateral.0."),
    (r"^sem_seg_head\.pixel_decoder\.layer_1\.norm\.", "pixel_decoder.output.1."),
    (r"^sem_seg_head\.pixel_decoder\.layer_1\.", "pixel_decoder.output.0."),
    (r"^sem_seg_head\.pixel_decoder\.", "pixel_decoder."),
    (r"^sem_seg_head\.predictor\.transformer_cross_attention_layers\.(\d)\.multihead_attn\.", r"decoder.layers.\1.cross_attn."),
    (r"^sem_seg_head\.predictor\.transformer_cross_attention_layers\.(\d)\.norm\.", r"decoder.layers.\1.norm1."),
    (r"^sem_seg_head\.predictor\.transformer_self_attention_layers\.(\d)\.norm\.", r"decoder.layers.\1.norm2."),
    (r"^sem_seg_head\.predictor\.transformer_ffn_layers\.(\d)\.norm\.", r"decoder.layers.\1.norm3."),
    (r"^sem_seg_head\.predictor\.transformer_(self_attention|ffn)_layers\.", "decoder.layers."),
    (r"^sem_seg_head\.predictor\.", "decoder."),
    # ResNet
    (r"^backbone\.stem\.conv1\.norm\.", "backbone.bn1."),
    (r"^backbone\.stem\.", "backbone."),
    (r"^backbone\.res(\d)\.", lambda match: f"backbone.layer{int(match[1]) - 1}."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.shortcut\.", ".downsample.0."),
    (r"\.conv(\d)\.norm\.", r".bn\1."),
    # Swin
    (r"^backbone\.patch_embed\.", "backbone.features.0."),
    (r"^backbone\.layers\.(\d)\.blocks\.", lambda match: f"backbone.features.{2 * int(match[1]) + 1}."),
    (r"^backbone\.layers\.(\d)\.downsample\.", lambda match: f"backbone.features.{2 * int(match[1]) + 2}."),
    (r"^backbone\.norm(\d)\.", r"backbone.norms.\1."),
)  # fmt: skip
LEFT_OUT = ("criterion.", "relative_position_index")


def official_head(channels: tuple[int, ...], classes: int) -> dict[str, Tensor]:
    """The part of the authors' files that all backbones share, from torch's own layers, without values."""
    linear, norm = nn.Linear(256, 256), nn.LayerNorm(256)
    modules: dict[str, nn.Module] = {}
    for i, C in enumerate(reversed(channels[1:])):
        modules[f"pixel_decoder.input_proj.{i}"] = nn.Sequential(nn.Conv2d(C, 256, 1), nn.GroupNorm(32, 256))
    for i in range(6):
        layer = {"self_attn.sampling_offsets": nn.Linear(256, 8 * 3 * 4 * 2), "linear1": nn.Linear(256, 1024)}
        layer |= {"self_attn.attention_weights": nn.Linear(256, 8 * 3 * 4), "linear2": nn.Linear(1024, 256)}
        layer |= {"self_attn.value_proj": linear, "self_attn.output_proj": linear, "norm1": norm, "norm2": norm}
        modules |= {f"pixel_decoder.transformer.encoder.layers.{i}.{name}": part for name, part in layer.items()}
    for name, conv in (
        ("adapter_1", nn.Conv2d(channels[0], 256, 1, bias=False)),
        ("layer_1", nn.Conv2d(256, 256, 3, bias=False)),
    ):
        modules |= {f"pixel_decoder.{name}": conv, f"pixel_decoder.{name}.norm": norm}
    modules["pixel_decoder.mask_features"] = nn.Conv2d(256, 256, 1)
    for i in range(9):
        attention = nn.MultiheadAttention(256, 8)
        for kind, inner in (("self_attention", "self_attn"), ("cross_attention", "multihead_attn")):
            modules |= {
                f"predictor.transformer_{kind}_layers.{i}.{name}": part
                for name, part in ((inner, attention), ("norm", norm))
            }
        ffn = {"linear1": nn.Linear(256, 2048), "linear2": nn.Linear(2048, 256), "norm": norm}
        modules |= {f"predictor.transformer_ffn_layers.{i}.{name}": part for name, part in ffn.items()}
    for name, count in (("query_feat", 100), ("query_embed", 100), ("level_embed", 3)):
        modules[f"predictor.{name}"] = nn.Embedding(count, 256)
    modules |= {"predictor.decoder_norm": norm, "predictor.class_embed": nn.Linear(256, classes + 1)}
    modules |= {f"predictor.mask_embed.layers.{i}": linear for i in range(3)}
    state = {f"{name}.{key}": value for name, part in modules.items() for key, value in part.state_dict().items()}
    state["pixel_decoder.transformer.level_embed"] = torch.empty(3, 256)
    return {f"sem_seg_head.{key}": value for key, value in state.items()} | {"criterion.empty_weight": torch.empty(134)}


def official_resnet() -> dict[str, Tensor]:
    state = {}
    for key, value in tv_resnet50().state_dict().items():
        key = (
            re.sub(r"bn(\d)\.", r"conv\1.norm.", key)
            .replace("downsample.0", "shortcut")
            .replace("downsample.1", "shortcut.norm")
        )
        key = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", key)
        if not key.startswith("fc.") and "num_batches" not in key:
            state["backbone." + (key if key.startswith("res") else f"stem.{key}")] = value
    return state


def official_swin() -> dict[str, Tensor]:
    state = {}
    for key, value in tv_swin_t().state_dict().items():
        if key.startswith(("norm.", "head.")):
            continue
        key = key.replace("features.0.0.", "patch_embed.proj.").replace("features.0.2.", "patch_embed.norm.")
        key = key.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
        key = re.sub(r"^features\.([1357])\.", lambda match: f"layers.{int(match[1]) // 2}.blocks.", key)
        key = re.sub(r"^features\.([246])\.", lambda match: f"layers.{int(match[1]) // 2 - 1}.downsample.", key)
        state[f"backbone.{key}"] = value
    norms = {f"backbone.norm{i}": nn.LayerNorm(96 * 2**i) for i in range(4)}
    return state | {f"{name}.{key}": value for name, part in norms.items() for key, value in part.state_dict().items()}


@pytest.mark.parametrize(
    ("builder", "body", "channels", "count"),
    [
        (mask2former_resnet50, official_resnet, (256, 512, 1024, 2048), 558),
        (mask2former_swin_tiny, official_swin, (96, 192, 384, 768), None),
    ],
)
def test_official_state_dict_loads_strictly(
    builder: Callable[..., Mask2Former], body: Callable, channels: tuple[int, ...], count: int | None
) -> None:
    with torch.device("meta"):
        ours, state = builder(), body() | official_head(channels, 133)
    assert count in (None, len(state))  # 558 keys, as the authors' file has
    renamed = {}
    for key, value in state.items():
        for pattern, name in OFFICIAL:
            key = re.sub(pattern, name, key)
        if not key.startswith(LEFT_OUT) and not key.endswith(LEFT_OUT):
            renamed[key] = value
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    assert shapes == {key: value.shape for key, value in renamed.items()}
    ours.load_state_dict(renamed, strict=True, assign=True)
    if count:
        assert sum(parameter.numel() for parameter in ours.parameters()) == 43_983_878


ROWS = {name: row for name, row in WEIGHTS.items() if row.rename == MASK2FORMER}
OF_NO_WEIGHT = ("model.pixel_level_module.encoder.swin.layernorm.",)  # version 5 writes a norm that it never uses


def test_a_file_that_transformers_writes_loads_strictly(tmp_path: Path) -> None:
    ours = small("swin")
    transformers_net(ours, "swin").save_pretrained(tmp_path)
    row = ROWS["mask2former_swin_tiny_cityscapes"]
    file = {k: v for k, v in load_file(tmp_path / "model.safetensors").items() if not k.startswith(OF_NO_WEIGHT)}
    assert "model.pixel_level_module.encoder.encoder.layers.2.blocks.1.attention.self.query.weight" in file
    state = pretrained._our_keys(file, row)
    assert state.keys() == ours.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("name", ROWS)
def test_every_row_fits_its_builder(name: str) -> None:
    """By names and shapes that transformers gives the whole network, with the tables that files of 2023 hold, too."""
    transformers = pytest.importorskip("transformers")
    row = ROWS[name]
    swin = {"tiny": mask2former.swin_t, "small": mask2former.swin_s, "base": mask2former.swin_b}[
        row.builder.split("_")[-1]
    ]
    with torch.device("meta"):
        ours, body = getattr(mask2former, row.builder.split(":")[1])(**row.options), swin()
        stages = [stage for stage in body.features if isinstance(stage, nn.Sequential)]
        window = ours.backbone.features[1][0].attn.window_size
        config = transformers.SwinConfig(
            embed_dim=body.channels[0], depths=[len(stage) for stage in stages], window_size=window,
            num_heads=[stage[0].attn.num_heads for stage in stages],
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )  # fmt: skip
        labels = row.options["num_classes"]
        whole = transformers.Mask2FormerConfig(backbone_config=config, num_labels=labels)
        theirs = transformers.Mask2FormerForUniversalSegmentation(whole).state_dict()
    file = {}
    for key, value in theirs.items():
        if key.startswith(OF_NO_WEIGHT):
            continue
        if "pixel_level_module.encoder" in key:  # as files have it
            key = re.sub(
                r"\.attention\.([qkv])_proj\.", lambda m: f".attention.self.{LONG[m[1]]}.", key.replace(".swin.", ".")
            )
            key = key.replace(".attention.o_proj.", ".attention.output.dense.")
            key = key.replace(".attention.relative_position_bias.", ".attention.self.")
            key = key.replace(".mlp.fc1.", ".intermediate.dense.").replace(".mlp.fc2.", ".output.dense.")
            file[key.replace("bias_table", "index")] = value
        file[key] = value
    state = pretrained._our_keys(file, row)
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert row.non_commercial and len(row.sha256) == 64


LONG = {"q": "query", "k": "key", "v": "value"}
