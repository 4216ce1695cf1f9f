"""Key maps for files of Hugging Face's transformers: pairs for `Weights.rename`.

A replacement that ends in `#0`, `#1` or `#2` makes the tensor a piece of one of ours: in transformers, queries, keys
and values have separate linear layers.
"""

from __future__ import annotations

Pairs = tuple[tuple[str, str], ...]


def _swin(theirs: str, ours: str) -> Pairs:
    """A Swin transformer with a normalisation of each stage's features."""
    stages = f"^{ours}encoder\\.layers\\."
    return (
        (rf"^{theirs}", ours),
        (rf"^{ours}embeddings\.patch_embeddings\.projection\.", f"{ours}features.0.proj."),
        (rf"^{ours}embeddings\.norm\.", f"{ours}features.0.norm."),
        *((rf"^{ours}hidden_states_norms\.stage{i + 1}\.", f"{ours}norms.{i}.") for i in range(4)),
        *((rf"{stages}{i}\.downsample\.", f"{ours}features.{2 * i + 2}.") for i in range(3)),
        *((rf"{stages}{i}\.blocks\.", f"{ours}features.{2 * i + 1}.") for i in range(4)),
        (r"\.attention\.self\.relative_position_bias_table$", ".attn.relative_position_bias_table"),
        *(
            (rf"\.attention\.self\.{name}\.(weight|bias)$", rf".attn.qkv.\1#{i}")
            for i, name in enumerate(("query", "key", "value"))
        ),
        (r"\.attention\.output\.dense\.", ".attn.proj."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (rf"^({ours}features\.\d\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    )


def _resnet(ours: str) -> Pairs:
    return (
        (rf"^{ours}embedder\.embedder\.convolution\.", f"{ours}conv1."),
        (rf"^{ours}embedder\.embedder\.normalization\.", f"{ours}bn1."),
        *((rf"^{ours}encoder\.stages\.{i}\.layers\.", f"{ours}layer{i + 1}.") for i in range(4)),
        *((rf"\.layer\.{i}\.convolution\.", f".conv{i + 1}.") for i in range(3)),
        *((rf"\.layer\.{i}\.normalization\.", f".bn{i + 1}.") for i in range(3)),
        (r"\.shortcut\.convolution\.", ".downsample.0."),
        (r"\.shortcut\.normalization\.", ".downsample.1."),
    )


# shared by Mask2Former and OneFormer
PIXELS: Pairs = (
    (r"^pixel_level_module\.decoder\.", "pixel_decoder."),
    (r"\.input_projections\.", ".input_proj."),
    (r"^pixel_decoder\.encoder\.", "pixel_decoder."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.final_layer_norm\.", ".norm2."),
    (r"^(pixel_decoder\.layers\.\d+\.)fc", r"\1linear"),
    (r"\.adapter_1\.", ".lateral."),
    (r"\.layer_1\.", ".output."),
    (r"\.mask_projection\.", ".mask_features."),
    (r"^transformer_module\.queries_embedder\.", "decoder.query_embed."),
    (r"^transformer_module\.level_embed\.", "decoder.level_embed."),
)
MASK2FORMER: Pairs = (
    (r"^model\.", ""),
    *_swin(r"pixel_level_module\.encoder\.", "backbone."),
    (r"^class_predictor\.", "decoder.class_embed."),
    (r"^transformer_module\.queries_features\.", "decoder.query_feat."),
    (r"^transformer_module\.decoder\.layernorm\.", "decoder.decoder_norm."),
    (r"^transformer_module\.decoder\.mask_predictor\.mask_embedder\.(\d)\.0\.", r"decoder.mask_embed.layers.\1."),
    (r"^transformer_module\.decoder\.", "decoder."),
    (r"^(decoder\.layers\.\d+\.)cross_attn_layer_norm\.", r"\1norm1."),
    (r"^(decoder\.layers\.\d+\.)self_attn_layer_norm\.", r"\1norm2."),
    (r"^(decoder\.layers\.\d+\.)final_layer_norm\.", r"\1norm3."),
    (r"^(decoder\.layers\.\d+\.)fc", r"\1linear"),
    *((rf"\.self_attn\.{x}_proj\.(weight|bias)$", rf".self_attn.in_proj_\1#{i}") for i, x in enumerate("qkv")),
    *PIXELS,
)
ONEFORMER: Pairs = (
    (r"^criterion\.logit_scale$", "text.logit_scale"),
    (r"^model\.", ""),
    *_swin(r"pixel_level_module\.encoder\.", "backbone."),
    *PIXELS,
    (r"^transformer_module\.decoder\.query_transformer\.decoder\.", "task_queries."),
    (r"^transformer_module\.decoder\.query_input_projection\.", "task_queries.input_proj."),
    (r"^transformer_module\.", ""),
    (r"\.cross_attn\.multihead_attn\.", ".cross_attn."),
    (r"\.cross_attn\.norm\.", ".norm1."),
    (r"\.self_attn\.norm\.", ".norm2."),
    (r"\.ffn\.norm\.", ".norm3."),
    (r"\.ffn\.linear", ".linear"),
    *(
        (rf"\.self_attn\.self_attn\.{x}_proj\.(weight|bias)$", rf".self_attn.in_proj_\1#{i}")
        for i, x in enumerate("qkv")
    ),
    (r"\.self_attn\.self_attn\.", ".self_attn."),
    (r"^(decoder\.mask_embed\.layers\.\d)\.0\.", r"\1."),
    *((rf"^task_encoder\.task_mlp\.layers\.{i}\.0\.", f"task_mlp.{2 * i}.") for i in range(2)),
    *((rf"^text_mapper\.text_projector\.layers\.{i}\.0\.", f"text.projector.{2 * i}.") for i in range(2)),
    (r"^text_mapper\.prompt_ctx\.weight$", "text.context"),
    (r"^text_mapper\.text_encoder\.(?:transformer\.)?", "text.encoder."),
    (r"^(text\.encoder\.layers\.\d+)\.mlp\.", r"\1."),
)

# Files of 2022 and today's transformers differ in two names of the decoder: out_proj, fc1 and o_proj, mlp.fc1.
MASKFORMER: Pairs = (
    (r"^class_predictor\.", "class_embed."),
    (r"^mask_embedder\.(\d)\.0\.", r"mask_embed.layers.\1."),
    (r"^model\.", ""),
    (r"^pixel_level_module\.decoder\.fpn\.stem\.", "pixel_decoder.start."),
    *(
        (rf"^pixel_level_module\.decoder\.fpn\.layers\.{i}\.proj\.", f"pixel_decoder.laterals.{2 - i}.")
        for i in range(3)
    ),
    *(
        (rf"^pixel_level_module\.decoder\.fpn\.layers\.{i}\.block\.", f"pixel_decoder.smooth.{2 - i}.")
        for i in range(3)
    ),
    (r"^pixel_level_module\.decoder\.mask_projection\.", "pixel_decoder.mask_features."),
    *_swin(r"pixel_level_module\.encoder\.(?:model\.)?", "backbone."),
    (r"^backbone\.hidden_states_norms\.", "backbone.norms."),
    *_resnet("backbone."),
    (r"^transformer_module\.queries_embedder\.", "query_embed."),
    (r"^transformer_module\.input_projection\.", "input_proj."),
    (r"^transformer_module\.decoder\.layernorm\.", "transformer.decoder.norm."),
    (r"^transformer_module\.", "transformer."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.encoder_attn_layer_norm\.", ".norm2."),
    (r"\.final_layer_norm\.", ".norm3."),
    (r"\.encoder_attn\.", ".multihead_attn."),
    *((rf"_attn\.{x}_proj\.(weight|bias)$", rf"_attn.in_proj_\1#{i}") for i, x in enumerate("qkv")),
    (r"_attn\.o_proj\.", "_attn.out_proj."),
    (r"^(transformer\.decoder\.layers\.\d+)\.(?:mlp\.)?fc", r"\1.linear"),
)
