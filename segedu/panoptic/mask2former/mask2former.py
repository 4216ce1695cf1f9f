"""Mask2Former: one network for classes, objects and both, whose queries look only where they believe to be.

Paper: Cheng, Misra, Schwing, Kirillov, Girdhar, "Masked-attention Mask Transformer for Universal Image Segmentation",
    CVPR 2022, arXiv 2112.01527.
Idea: As in MaskFormer, each of Q learnt queries becomes a class, or "no object", and a mask: its product with every
    pixel's features. New is that a query's attention is masked by the mask that it drew one layer before: it need not
    search the whole image, and learns several times faster. Layers look at strides 32, 16, 8 in turn, so that small
    objects are seen at a price that can be paid; and the loss looks at a few thousand points, not at all pixels.
Simplified: no dropout, as in the paper; padding is looked at as images are, as in the authors' code.
Shapes: images (B, 3, H, W) -> dict of `class_logits` (B, Q, K + 1), whose last column is "no object"; `mask_logits`
    (B, Q, h, w) at stride 4; `aux_outputs`, L dicts of the same two, of the queries before any layer and behind every
    layer but the last; `sizes`, B pairs (h, w), the part that is image; and `image_size`, (H, W). Categories are
    0 to K - 1. The loss is in mask2former_loss.py, the pixel decoder in mask2former_pixels.py, the three read-outs
    (semantic, instances, panoptic) in inference.py.
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


class DecoderLayer(nn.Module):
    """Queries look at the image where their masks were, then at each other, then each thinks alone: figure 2, right.

    Attention to the image comes first: the states of the first layer are the same for all images, and have nothing to
    tell each other yet.

    Args:
        embed_dim: D, a multiple of num_heads.
        num_heads: of both attentions.
        hidden: numbers between the two linear maps.
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
        self, states: Tensor, queries: Tensor, memory: Tensor, positions: Tensor, hidden: Tensor | None
    ) -> Tensor:
        gathered, _ = self.cross_attn(
            states + queries, memory + positions, memory, attn_mask=hidden, need_weights=False
        )  # (B, Q, D)
        states = self.norm1(states + gathered)
        asking = states + queries
        gathered, _ = self.self_attn(asking, asking, states, need_weights=False)
        states = self.norm2(states + gathered)
        return self.norm3(states + self.linear2(self.linear1(states).relu()))


class MaskedDecoder(nn.Module):
    """L layers with masked attention, and the heads, which are asked before the first and behind each of them.

    Args:
        num_classes: K; "no object" comes behind these.
        num_queries: Q, more than there are segments in any image.
        embed_dim: D, a multiple of num_heads and of 4.
        num_heads: of each attention.
        layers: L, at least 1. Paper: 9, three rounds over the three scales.
        hidden: numbers between the two linear maps of a layer.
        masked: False lets every query look everywhere, as in DETR: a comparison of the paper's table 4.

    Attributes:
        query_embed: (Q, D), where a query stands, added to its state in every attention.
        query_feat: (Q, D), its state at the start, unless others are given.
        level_embed: (3, D), which scale a place is of; from coarse to fine.
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
        if num_classes < 1 or num_queries < 1 or layers < 1:
            given = f"{num_classes}, {num_queries} and {layers}"
            raise ValueError(f"num_classes, num_queries and layers are {given}, expected at least 1 each")
        if num_heads < 1 or embed_dim < 4 or embed_dim % num_heads or embed_dim % 4:
            raise ValueError(f"embed_dim is {embed_dim}, expected a multiple of 4 and of num_heads, {num_heads}")
        self.embed_dim, self.num_heads, self.num_classes, self.masked = embed_dim, num_heads, num_classes, masked
        self.query_feat = nn.Embedding(num_queries, embed_dim)
        self.query_embed = nn.Embedding(num_queries, embed_dim)
        self.level_embed = nn.Embedding(LEVELS, embed_dim)
        self.layers = nn.ModuleList(DecoderLayer(embed_dim, num_heads, hidden) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(embed_dim)
        self.class_embed = nn.Linear(embed_dim, num_classes + 1)
        self.mask_embed = ReLULayers(embed_dim, embed_dim, embed_dim, embed_dim)

    def forward(
        self, mask_features: Tensor, levels: Sequence[Tensor], states: Tensor | None = None
    ) -> list[dict[str, Tensor]]:
        """Mask features (B, D, h, w), three levels (B, D, h_i, w_i) coarse to fine, and, if not the learnt ones,
        the states (B, Q, D) to start from, to L + 1 dicts of `class_logits` (B, Q, K + 1) and `mask_logits`."""
        positions = [position_of(x) for x in levels]  # (1, S_i, D)
        memories = [x.flatten(2).mT + e for x, e in zip(levels, self.level_embed.weight, strict=True)]
        if states is None:
            states = self.query_feat.weight.expand(len(mask_features), -1, -1)
        queries = self.query_embed.weight  # (Q, D)
        outputs = [self.heads(states, mask_features)]
        for i, layer in enumerate(self.layers):
            level = i % LEVELS
            size, masks = levels[level].shape[-2:], outputs[-1]["mask_logits"]
            hidden = attention_mask(masks, size, self.num_heads) if self.masked else None
            states = layer(states, queries, memories[level], positions[level], hidden)
            outputs.append(self.heads(states, mask_features))
        return outputs

    def heads(self, states: Tensor, mask_features: Tensor) -> dict[str, Tensor]:
        """What queries say.

        Args:
            states: (B, Q, D).
            mask_features: (B, D, h, w).

        Returns:
            `class_logits` (B, Q, K + 1) and `mask_logits` (B, Q, h, w).
        """
        states = self.decoder_norm(states)
        masks = self.mask_embed(states) @ mask_features.flatten(2)  # (B, Q, h w)
        return {"class_logits": self.class_embed(states), "mask_logits": masks.unflatten(-1, mask_features.shape[-2:])}


@torch.no_grad()
def attention_mask(mask_logits: Tensor, size: Size, num_heads: int) -> Tensor:
    """Where queries may not look: where their masks, at the size of the features, are below 1/2. Equation 3.

    A query whose mask is below 1/2 everywhere may look everywhere: a softmax over nothing is no number.

    Args:
        mask_logits: (B, Q, h, w).
        size: of the features.
        num_heads: all heads of a query get the same.

    Returns:
        (B num_heads, Q, S) bool, true where there must be no attention, S places row by row.

    >>> attention_mask(torch.tensor([[[[-1.0, 1.0]], [[-1.0, -2.0]]]]), (1, 2), num_heads=1)
    tensor([[[ True, False],
             [False, False]]])
    """
    hidden = F.interpolate(mask_logits, size=size, mode="bilinear", align_corners=False).flatten(2) < 0  # (B, Q, S)
    hidden &= ~hidden.all(dim=-1, keepdim=True)
    return hidden.repeat_interleave(num_heads, dim=0)


class Mask2Former(nn.Module):
    """Backbone, pixel decoder and masked decoder: figure 2.

    Args:
        backbone: gives features fine to coarse, the last four of strides 4, 8, 16, 32; has `channels` of them.
        pixel_decoder: on the last four features.
        decoder: of as many numbers D.
    """

    def __init__(self, backbone: nn.Module, pixel_decoder: PixelDecoder, decoder: MaskedDecoder) -> None:
        super().__init__()
        if pixel_decoder.embed_dim != decoder.embed_dim:
            given = f"{pixel_decoder.embed_dim} and {decoder.embed_dim}"
            raise ValueError(f"pixel_decoder and decoder have embed_dim {given}, expected the same")
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
    """The paper's network on ResNet-50, 44 million weights; the backbone's normalisations are frozen.

    Args:
        num_classes: K; 133 for COCO's things and stuff.
        **options: of `MaskedDecoder`, such as `num_queries`.

    Returns:
        The network with random weights.
    """
    return _on(freeze_batch_norm(resnet50(normalize=_normalize())), num_classes, **options)


def mask2former_resnet101(num_classes: int = 133, **options: Any) -> Mask2Former:
    """The paper's network on ResNet-101.

    Args:
        num_classes: K.
        **options: of `MaskedDecoder`.

    Returns:
        The network with random weights.
    """
    return _on(freeze_batch_norm(resnet101(normalize=_normalize())), num_classes, **options)


def mask2former_swin_tiny(num_classes: int = 133, **options: Any) -> Mask2Former:
    """The paper's network on Swin-T, 47 million weights.

    Args:
        num_classes: K.
        **options: of `MaskedDecoder`.

    Returns:
        The network with random weights.
    """
    return _on(swin_t(normalize=_normalize(), dense=True), num_classes, **options)


def mask2former_swin_small(num_classes: int = 133, **options: Any) -> Mask2Former:
    """The paper's network on Swin-S, 69 million weights.

    Args:
        num_classes: K.
        **options: of `MaskedDecoder`.

    Returns:
        The network with random weights.
    """
    return _on(swin_s(normalize=_normalize(), dense=True), num_classes, **options)


def mask2former_swin_base(num_classes: int = 133, **options: Any) -> Mask2Former:
    """The paper's network on Swin-B with windows of 12 x 12 tokens, as trained on images of 384 pixels.

    Args:
        num_classes: K.
        **options: of `MaskedDecoder`.

    Returns:
        The network with random weights.
    """
    return _on(swin_b(window_size=12, normalize=_normalize(), dense=True), num_classes, **options)


def mask2former_swin_large(num_classes: int = 133, *, num_queries: int = 200, **options: Any) -> Mask2Former:
    """The paper's largest network, on Swin-L with windows of 12 x 12 tokens; twice as many queries.

    Args:
        num_classes: K.
        num_queries: Q.
        **options: of `MaskedDecoder`.

    Returns:
        The network with random weights.
    """
    sizes: Any = (192, (2, 2, 18, 2), (6, 12, 24, 48))
    backbone = Swin(*sizes, window_size=12, normalize=_normalize(), dense=True)
    return _on(backbone, num_classes, num_queries=num_queries, **options)


def _normalize() -> Normalize:
    return Normalize(IMAGENET_MEAN, IMAGENET_STD)


def _on(backbone: ResNet | Swin, num_classes: int, **options: Any) -> Mask2Former:
    return Mask2Former(backbone, PixelDecoder(backbone.channels[-4:]), MaskedDecoder(num_classes, **options))
