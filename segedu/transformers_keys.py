"""What tensors are called in files of Hugging Face's transformers: pairs for `published.Weights.rename`.

In a replacement `#0`, `#1`, `#2` at the end says which piece of one of our tensors it is: there queries, keys and
values have linear maps of their own.
"""

from __future__ import annotations

Pairs = tuple[tuple[str, str], ...]


def _swin(theirs: str, ours: str) -> Pairs:
    """A Swin with a normalisation of each stage's features."""
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


ONEFORMER: Pairs = (
    (r"^criterion\.logit_scale$", "text.logit_scale"),
    (r"^model\.", ""),
    *_swin(r"pixel_level_module\.encoder\.", "backbone."),
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
