"""Mask2Former for ONNX: the predictions before the first decoder layer and after every layer, and all attention."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segedu.panoptic.mask2former.mask2former import Mask2Former, attention_mask
from segedu.panoptic.mask2former.pixel_decoder import LEVELS, position_of
from segedu.recipes.export import write_program


class ExportedMask2Former(nn.Module):
    """Mask2Former for one image, which also returns the weights of its masked attention.

    `Mask2Former` does not compute these weights, because a fused kernel of PyTorch is faster without them.

    Args:
        model: Mask2Former, whose parts are called in the order of `MaskedDecoder.forward`.
    """

    def __init__(self, model: Mask2Former) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Predict one image.

        Args:
            images: (1, 3, H, W).

        Returns:
            Class logits (L + 1, Q, K + 1) and mask logits (L + 1, Q, h, w), before the first layer and after each of L
            layers; then for each layer the attention weights (Q, h_l, w_l) of its queries, averaged over the heads.
        """
        decoder = self.model.decoder
        mask_features, levels = self.model.pixel_decoder(self.model.backbone(images)[-4:])
        queries, query_pos = decoder.query_feat.weight[None], decoder.query_embed.weight
        outputs, attention = [decoder.heads(queries, mask_features)], []
        for i, layer in enumerate(decoder.layers):
            level = levels[i % LEVELS]
            memory, positions = level.flatten(2).mT + decoder.level_embed.weight[i % LEVELS], position_of(level)
            size, masks = level.shape[-2:], outputs[-1]["mask_logits"]
            attn_mask = attention_mask(masks, size, decoder.num_heads) if decoder.masked else None
            _, weights = layer.cross_attn(queries + query_pos, memory + positions, memory, attn_mask=attn_mask)
            attention.append(weights[0].unflatten(-1, size))
            queries = layer(queries, query_pos, memory, positions, attn_mask)
            outputs.append(decoder.heads(queries, mask_features))
        predictions = (torch.cat([output[key] for output in outputs]) for key in ("class_logits", "mask_logits"))
        return (*predictions, *attention)


def export_mask2former(
    model: Mask2Former, out: Path, size: tuple[int, int], about: Mapping[str, Any]
) -> dict[Path, str]:
    """Write Mask2Former as one ONNX file with the outputs of `ExportedMask2Former`.

    Args:
        model: the network.
        out: path of the file; an existing one is replaced.
        size: (height, width) of the image.
        about: metadata.

    Returns:
        For the written file, a sentence about its input and its outputs.
    """
    layers = len(model.decoder.layers)
    names = [f"attention_{i + 1}" for i in range(layers)]
    write_program(
        ExportedMask2Former(model),
        {"images": torch.zeros(1, 3, *size)},
        out,
        about,
        ["class_logits", "mask_logits", *names],
    )
    return {
        out: f"Its input `images` has the shape (1, 3, {size[0]}, {size[1]}), with values in [0, 1]. The outputs "
        f"`class_logits` and `mask_logits` hold {layers + 1} predictions, before the first layer and after each layer. "
        f"`{names[0]}` to `{names[-1]}` hold the attention weights of the layers."
    }
