"""Mask2Former: one network for semantic, instance and panoptic segmentation, with masked attention.

Paper: Cheng, Misra, Schwing, Kirillov, Girdhar, "Masked-attention Mask Transformer for Universal Image Segmentation",
    CVPR 2022, arXiv 2112.01527.
Idea: As in MaskFormer, each of Q learned queries predicts a class, or "no object", and a mask: its product with the
    features of every pixel. New is masked attention: each query attends only inside the mask that it predicted one
    layer earlier, so it need not search the whole image and learns several times faster. The layers attend to strides
    32, 16 and 8 in turn, so small objects are visible at moderate cost, and the loss uses a few thousand points, not
    all pixels.
Simplified: no dropout, as in the paper; padding is treated like the image, as in the authors' code.
Shapes: images (B, 3, H, W) -> dict of `class_logits` (B, Q, K + 1), whose last channel is "no object"; `mask_logits`
    (B, Q, h, w) at stride 4; `aux_outputs`, L dicts of the same two, before the first layer and after every layer but
    the last; `sizes`, B pairs (h, w) without padding; and `image_size`, (H, W). Categories are 0 to K - 1. The loss is
    in loss.py, the pixel decoder in pixel_decoder.py, semantic, instance and panoptic inference in
    panoptic/inference.py.
Quality: every stage, attention masks, costs and losses with their gradients equal those of Hugging Face's transformers
    at the same weights, on a ResNet and on Swin, for images of any size; a tiny one learns two synthetic streets (its
    tests). `street_mask2former`, small weights of our own, after 18 CPU-minutes: panoptic quality 0.74, mIoU 0.89, mask
    AP50 0.73 on new streets.
Course: 15-panoptic
Lab: 15_universal
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.resnet import ResNet, resnet50, resnet101
from segedu.backbones.swin import Swin, swin_b, swin_s, swin_t
from segedu.layers.batch_norm import freeze_batch_norm
from segedu.layers.instance_targets import Size
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.layers.relu_layers import ReLULayers
from segedu.panoptic.mask2former.pixel_decoder import LEVELS, PixelDecoder, position_of
from segedu.validation.images import check_images, check_sizes
from segedu.validation.numbers import check_choice, check_integers, check_multiple


class DecoderLayer(nn.Module):
    """Masked cross-attention to the image, self-attention of the queries, and an MLP per query (figure 2, right).

    Cross-attention comes first, because the queries of the first layer are the same for all images, so self-attention
    between them would not depend on the image.

    Args:
        embed_dim: D, a multiple of num_heads.
        num_heads: of both attentions.
        hidden: width of the hidden layer of the MLP.
    """

    def __init__(self, embed_dim: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.cross_attn = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)
        self.self_attn = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(embed_dim, hidden), nn.Linear(hidden, embed_dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(embed_dim) for _ in range(3))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, queries: Tensor, query_pos: Tensor, memory: Tensor, positions: Tensor, attn_mask: Tensor | None
    ) -> Tensor:
        attended, _ = self.cross_attn(
            queries + query_pos, memory + positions, memory, attn_mask=attn_mask, need_weights=False
        )  # (B, Q, D)
        queries = self.norm1(queries + attended)
        positioned = queries + query_pos
        attended, _ = self.self_attn(positioned, positioned, queries, need_weights=False)
        queries = self.norm2(queries + attended)
        return self.norm3(queries + self.linear2(self.linear1(queries).relu()))


class MaskedDecoder(nn.Module):
    """L layers with masked attention, and heads that are applied before the first layer and after every layer.

    Args:
        num_classes: K; "no object" is an additional class, number K.
        num_queries: Q, more than there are segments in any image.
        embed_dim: D, a multiple of num_heads and of 4.
        num_heads: of each attention.
        layers: L, at least 1. Paper: 9, three rounds over the three scales.
        hidden: width of the hidden layer of the MLPs.
        masked: False: queries attend everywhere, as in DETR; a comparison of the paper's table 4.

    Attributes:
        query_embed: (Q, D), positions of the queries, added in every attention.
        query_feat: (Q, D), initial content of the queries, unless `forward` is given another.
        level_embed: (3, D), added to the tokens of each scale, coarse to fine.
    """

    def __init__(
        self,
        num_classes: int,
        num_queries: int = 100,
        embed_dim: int = 256,
        num_heads: int = 8,
        layers: int = 9,
        hidden: int = 2048,
        masked: bool = True,
    ) -> None:
        super().__init__()
        check_integers(num_classes=num_classes, num_queries=num_queries, layers=layers)
        check_multiple("embed_dim", embed_dim, 4)
        check_multiple("embed_dim", embed_dim, num_heads, of="num_heads")
        self.embed_dim, self.num_heads, self.num_classes, self.masked = embed_dim, num_heads, num_classes, masked
        self.query_feat = nn.Embedding(num_queries, embed_dim)
        self.query_embed = nn.Embedding(num_queries, embed_dim)
        self.level_embed = nn.Embedding(LEVELS, embed_dim)
        self.layers = nn.ModuleList(DecoderLayer(embed_dim, num_heads, hidden) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(embed_dim)
        self.class_embed = nn.Linear(embed_dim, num_classes + 1)
        self.mask_embed = ReLULayers(embed_dim, embed_dim, embed_dim, embed_dim)

    def forward(
        self, mask_features: Tensor, levels: Sequence[Tensor], queries: Tensor | None = None
    ) -> list[dict[str, Tensor]]:
        """Decode the queries into L + 1 dicts of `class_logits` (B, Q, K + 1) and `mask_logits` (B, Q, h, w).

        Args:
            mask_features: (B, D, h, w).
            levels: three levels (B, D, h_i, w_i), coarse to fine.
            queries: (B, Q, D), their initial content; None: the learned one.
        """
        positions = [position_of(x) for x in levels]  # (1, S_i, D)
        memories = [x.flatten(2).mT + e for x, e in zip(levels, self.level_embed.weight, strict=True)]
        if queries is None:
            queries = self.query_feat.weight.expand(len(mask_features), -1, -1)
        query_pos = self.query_embed.weight  # (Q, D)
        outputs = [self.heads(queries, mask_features)]
        for i, layer in enumerate(self.layers):
            level = i % LEVELS
            size, masks = levels[level].shape[-2:], outputs[-1]["mask_logits"]
            attn_mask = attention_mask(masks, size, self.num_heads) if self.masked else None
            queries = layer(queries, query_pos, memories[level], positions[level], attn_mask)
            outputs.append(self.heads(queries, mask_features))
        return outputs

    def heads(self, queries: Tensor, mask_features: Tensor) -> dict[str, Tensor]:
        """Predict `class_logits` (B, Q, K + 1) and `mask_logits` (B, Q, h, w).

        Args:
            queries: (B, Q, D).
            mask_features: (B, D, h, w).
        """
        queries = self.decoder_norm(queries)
        masks = self.mask_embed(queries) @ mask_features.flatten(2)  # (B, Q, h w)
        return {"class_logits": self.class_embed(queries), "mask_logits": masks.unflatten(-1, mask_features.shape[-2:])}


@torch.no_grad()
def attention_mask(mask_logits: Tensor, size: Size, num_heads: int) -> Tensor:
    """Mask out attention where the masks of the queries, at the size of the features, are below 1/2 (equation 3).

    A query whose mask is below 1/2 everywhere attends everywhere, because a softmax over nothing is NaN.

    Args:
        mask_logits: (B, Q, h, w).
        size: of the features.
        num_heads: all heads of a query get the same mask.

    Returns:
        (B num_heads, Q, S) bool, True where there must be no attention, for S tokens row by row.

    >>> attention_mask(torch.tensor([[[[-1.0, 1.0]], [[-1.0, -2.0]]]]), (1, 2), num_heads=1)
    tensor([[[ True, False],
             [False, False]]])
    """
    attn_mask = F.interpolate(mask_logits, size=size, mode="bilinear", align_corners=False).flatten(2) < 0  # (B, Q, S)
    attn_mask &= ~attn_mask.all(dim=-1, keepdim=True)
    return attn_mask.repeat_interleave(num_heads, dim=0)


class Mask2Former(nn.Module):
    """Backbone, pixel decoder and masked decoder (figure 2).

    Args:
        backbone: images -> features fine to coarse, the last four of strides 4, 8, 16, 32; has their `channels`.
        pixel_decoder: applied to the last four features.
        decoder: with the same embed_dim as the pixel decoder.
    """

    def __init__(self, backbone: nn.Module, pixel_decoder: PixelDecoder, decoder: MaskedDecoder) -> None:
        super().__init__()
        check_choice("pixel_decoder.embed_dim", pixel_decoder.embed_dim, [decoder.embed_dim])
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.decoder = decoder

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> dict[str, Any]:
        check_images(images, self.backbone.in_channels)
        sizes = check_sizes(sizes, images)
        mask_features, levels = self.pixel_decoder(self.backbone(images)[-4:])
        *aux, last = self.decoder(mask_features, levels)
        return onnx_outputs({**last, "aux_outputs": aux, "sizes": sizes, "image_size": tuple(images.shape[-2:])})


def mask2former_resnet50(num_classes: int = 133, **options: Any) -> Mask2Former:
    """The paper's network on ResNet-50, 44 million parameters; the backbone's batch normalisations are frozen.

    Args:
        num_classes: K; 133 for COCO's things and stuff.
        **options: arguments of `MaskedDecoder`, such as `num_queries`.
    """
    return _with_backbone(freeze_batch_norm(resnet50(normalize=_normalize())), num_classes, **options)


def mask2former_resnet101(num_classes: int = 133, **options: Any) -> Mask2Former:
    """The paper's network on ResNet-101. Arguments as for `mask2former_resnet50`."""
    return _with_backbone(freeze_batch_norm(resnet101(normalize=_normalize())), num_classes, **options)


def mask2former_swin_tiny(num_classes: int = 133, **options: Any) -> Mask2Former:
    """The paper's network on Swin-T, 47 million parameters. Arguments as for `mask2former_resnet50`."""
    return _with_backbone(swin_t(normalize=_normalize(), dense=True), num_classes, **options)


def mask2former_swin_small(num_classes: int = 133, **options: Any) -> Mask2Former:
    """The paper's network on Swin-S, 69 million parameters. Arguments as for `mask2former_resnet50`."""
    return _with_backbone(swin_s(normalize=_normalize(), dense=True), num_classes, **options)


def mask2former_swin_base(num_classes: int = 133, **options: Any) -> Mask2Former:
    """The paper's network on Swin-B with windows of 12 x 12 tokens, as trained on images of 384 pixels."""
    return _with_backbone(swin_b(window_size=12, normalize=_normalize(), dense=True), num_classes, **options)


def mask2former_swin_large(num_classes: int = 133, *, num_queries: int = 200, **options: Any) -> Mask2Former:
    """The paper's largest network, on Swin-L with windows of 12 x 12 tokens, with twice as many queries."""
    sizes: Any = (192, (2, 2, 18, 2), (6, 12, 24, 48))
    backbone = Swin(*sizes, window_size=12, normalize=_normalize(), dense=True)
    return _with_backbone(backbone, num_classes, num_queries=num_queries, **options)


def _normalize() -> Normalize:
    return Normalize(IMAGENET_MEAN, IMAGENET_STD)


def _with_backbone(backbone: ResNet | Swin, num_classes: int, **options: Any) -> Mask2Former:
    return Mask2Former(backbone, PixelDecoder(backbone.channels[-4:]), MaskedDecoder(num_classes, **options))
