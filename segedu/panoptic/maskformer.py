"""MaskFormer: Q masks with one class each, instead of one class for each pixel: one network for three tasks.

Paper: Cheng, Schwing, Kirillov, "Per-Pixel Classification is Not All You Need for Semantic Segmentation", NeurIPS
    2021, arXiv 2107.06278.
Idea: One class per pixel cannot separate two cars, and boxes cannot describe "sky". Masks can do both. A transformer
    decoder turns Q learned queries into Q segments, with attention to the coarsest features; a pixel decoder turns the
    features into one embedding per pixel, at stride 4. The mask logits of a query are the products of its embedding
    with those of the pixels, and its class is predicted once, for the whole mask. Queries and ground-truth segments are
    matched as in DETR.
Simplified: the pixel decoder is the paper's FPN; the transformer encoder in it, which the paper adds for panoptic
    segmentation with ResNets (table 3), is left out.
Shapes: images (B, 3, H, W) -> dict of `class_logits` (B, Q, K + 1), whose last channel is "no object"; `mask_logits`
    (B, Q, h, w), h and w those of the finest features, a quarter of H and W; `aux_outputs`, for every decoder layer
    but the last a dict of the same two; `sizes`, B pairs (h, w), the size of each image without its padding; and
    `image_size` (H, W). `segedu.panoptic.inference` computes semantic, instance and panoptic segmentations from it.
Quality: every stage, the costs of matching and the losses with their gradients equal those of Hugging Face's
    transformers at the same weights, with ResNet and Swin, for images of any size; a tiny one learns two synthetic
    scenes (its tests).
Course: 15-panoptic
Lab: 15_universal
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.resnet import resnet50, resnet101
from segedu.backbones.swin import swin_b, swin_s, swin_t
from segedu.layers.instance_targets import Size
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.layers.position import sine_position
from segedu.layers.relu_layers import ReLULayers
from segedu.layers.segments import check_segments, pad_masks
from segedu.layers.transformer import Transformer
from segedu.losses.masks import mask_losses
from segedu.losses.reduction import full_precision
from segedu.losses.set_prediction import matched_cross_entropy
from segedu.validation.images import check_images, check_sizes
from segedu.validation.numbers import check_integers, check_multiple, check_number
from segedu.validation.tensors import check_decoder_outputs

AXES = {"class_logits": "B Q C", "mask_logits": "B Q h w"}  # of a decoder layer's outputs
LEVELS = 4  # features at strides 4, 8, 16 and 32
ALPHA, GAMMA = 0.25, 2.0  # of the focal loss of masks


class PixelDecoder(nn.Module):
    """An FPN that smooths each level before upsampling it, then a convolution to the pixel embeddings.

    Args:
        channels: C of the backbone's features, fine to coarse.
        width: channels of the levels, a multiple of groups.
        mask_dim: M, length of a pixel embedding.
        groups: of the group normalisations.
    """

    def __init__(self, channels: Sequence[int], width: int = 256, mask_dim: int = 256, groups: int = 32) -> None:
        super().__init__()
        check_multiple("width", width, groups, of="groups")
        *fine, coarsest = channels
        self.start = _conv_norm(coarsest, width, 3, groups)
        self.laterals = nn.ModuleList(_conv_norm(C, width, 1, groups) for C in fine)
        self.smooth = nn.ModuleList(_conv_norm(width, width, 3, groups) for _ in fine)
        self.mask_features = nn.Conv2d(width, mask_dim, kernel_size=3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features (B, C_i, h_i, w_i), fine to coarse -> (B, M, h_0, w_0)."""
        x = self.start(features[-1]).relu()
        for i in reversed(range(len(self.laterals))):
            lateral = self.laterals[i](features[i])
            x = lateral + F.interpolate(x, size=lateral.shape[-2:], mode="nearest")
            x = self.smooth[i](x).relu()
        return self.mask_features(x)


def _conv_norm(in_channels: int, width: int, kernel_size: int, groups: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, width, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.xavier_uniform_(convolution.weight)
    return nn.Sequential(convolution, nn.GroupNorm(groups, width))


class MaskFormer(nn.Module):
    """Backbone, pixel decoder, transformer decoder and two heads (figure 2).

    Args:
        backbone: its last four features are used; has `in_channels` and `channels`.
        pixel_decoder: features to pixel embeddings of length M; has `mask_features`.
        transformer: without encoder layers in the paper; its embed_dim D is a multiple of 4.
        num_classes: K; "no object" is an additional class, number K.
        num_queries: Q, more than there are segments in any image.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pixel_decoder: nn.Module,
        transformer: Transformer,
        num_classes: int,
        num_queries: int = 100,
    ) -> None:
        super().__init__()
        check_integers(num_classes=num_classes, num_queries=num_queries)
        embed_dim = transformer.embed_dim
        check_multiple("transformer.embed_dim", embed_dim, 4)
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.input_proj = nn.Conv2d(backbone.channels[-1], embed_dim, kernel_size=1)
        self.transformer = transformer
        self.query_embed = nn.Embedding(num_queries, embed_dim)
        self.class_embed = nn.Linear(embed_dim, num_classes + 1)
        self.mask_embed = ReLULayers(embed_dim, embed_dim, embed_dim, pixel_decoder.mask_features.out_channels)

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> dict[str, Any]:
        check_images(images, self.backbone.in_channels)
        sizes = check_sizes(sizes, images)
        features = self.backbone(images)[-LEVELS:]
        mask_features = self.pixel_decoder(features)  # (B, M, h, w)
        coarsest = self.input_proj(features[-1])  # (B, D, h / 8, w / 8)
        # Paper: does not mention padding. In the authors' code queries attend to it, and positions count it.
        padding = torch.zeros_like(coarsest[:, 0], dtype=torch.bool)
        positions = sine_position(padding, coarsest.shape[1], coarsest.dtype)
        queries, _ = self.transformer(coarsest, padding, positions, self.query_embed.weight)  # (L, B, Q, D)
        classes = self.class_embed(queries)
        masks = torch.einsum("lbqm,bmhw->lbqhw", self.mask_embed(queries), mask_features)
        *aux, last = ({"class_logits": c, "mask_logits": m} for c, m in zip(classes, masks, strict=True))
        return onnx_outputs({**last, "aux_outputs": aux, "sizes": sizes, "image_size": tuple(images.shape[-2:])})


def maskformer_resnet50(num_classes: int = 150, **options: Any) -> MaskFormer:
    """The paper's network on ResNet-50, 41 million parameters.

    Args:
        num_classes: K; 150 for ADE20K.
        **options: arguments of `Transformer`, and `num_queries`.
    """
    return _with_backbone(resnet50(normalize=_normalize()), num_classes, **options)


def maskformer_resnet101(num_classes: int = 150, **options: Any) -> MaskFormer:
    """The paper's network on ResNet-101. Arguments as for `maskformer_resnet50`."""
    return _with_backbone(resnet101(normalize=_normalize()), num_classes, **options)


def maskformer_swin_tiny(num_classes: int = 150, **options: Any) -> MaskFormer:
    """The paper's network on Swin-T, 42 million parameters. Arguments as for `maskformer_resnet50`."""
    return _with_backbone(swin_t(normalize=_normalize(), dense=True), num_classes, **options)


def maskformer_swin_small(num_classes: int = 150, **options: Any) -> MaskFormer:
    """The paper's network on Swin-S. Arguments as for `maskformer_resnet50`."""
    return _with_backbone(swin_s(normalize=_normalize(), dense=True), num_classes, **options)


def maskformer_swin_base(num_classes: int = 150, **options: Any) -> MaskFormer:
    """The paper's network on Swin-B with windows of 12 x 12 tokens. Arguments as for `maskformer_resnet50`."""
    return _with_backbone(swin_b(window_size=12, normalize=_normalize(), dense=True), num_classes, **options)


def _normalize() -> Normalize:
    return Normalize(IMAGENET_MEAN, IMAGENET_STD)


def _with_backbone(backbone: nn.Module, num_classes: int, num_queries: int = 100, **options: Any) -> MaskFormer:
    pixel_decoder = PixelDecoder(backbone.channels[-LEVELS:])
    transformer = Transformer(**{"encoder_layers": 0, **options})
    return MaskFormer(backbone, pixel_decoder, transformer, num_classes, num_queries)


@torch.no_grad()
def matching_cost(
    class_logits: Tensor,
    mask_logits: Tensor,
    labels: Tensor,
    masks: Tensor,
    *,
    class_weight: float = 1.0,
    focal_weight: float = 20.0,
    dice_weight: float = 1.0,
) -> Tensor:
    """The cost of matching each query to each segment: -p + 20 focal loss + Dice loss, at the size of the logits.

    Args:
        class_logits: (Q, K + 1), "no object" last.
        mask_logits: (Q, h, w).
        labels: (N,) int64.
        masks: (N, H, W) bool, ground-truth masks of the same image; they are resized with nearest neighbour.
        class_weight: of the probability of the segment's class.
        focal_weight: of the mean of the focal loss of all pixels.
        dice_weight: of the Dice loss.

    Returns:
        (Q, N), without a gradient.

    >>> logits, masks = torch.zeros(1, 1, 2), torch.tensor([[[True, False]]])  # p = 1/3
    >>> matching_cost(torch.zeros(1, 3), logits, torch.tensor([0]), masks)  # -1/3 + 20 log(2) / 8 + 1/3
    tensor([[1.7329]])
    """
    if not len(labels):
        return full_precision(class_logits).new_zeros(len(class_logits), 0)
    probability = full_precision(class_logits).softmax(dim=-1)[:, labels]  # (Q, N)
    logits = full_precision(mask_logits).flatten(1)  # (Q, P)
    target = F.interpolate(masks[:, None].to(logits), size=mask_logits.shape[-2:], mode="nearest").flatten(1)  # (N, P)
    p, complement = logits.sigmoid(), (-logits).sigmoid()
    positive = ALPHA * complement**GAMMA * F.softplus(-logits)  # loss of a pixel whose target is 1
    negative = (1 - ALPHA) * p**GAMMA * F.softplus(logits)
    focal = (positive @ target.T + negative @ (1 - target).T) / logits.shape[1]
    dice = 1 - (2 * p @ target.T + 1) / (p.sum(dim=1, keepdim=True) + target.sum(dim=1) + 1)
    return -class_weight * probability + focal_weight * focal + dice_weight * dice


def maskformer_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    no_object_weight: float = 0.1,
    class_weight: float = 1.0,
    focal_weight: float = 20.0,
    dice_weight: float = 1.0,
) -> dict[str, Tensor]:
    """Equation 1, summed over the decoder layers, each of which has its own matching.

    Cross-entropy is a weighted mean over all queries of the batch. Focal and Dice losses of masks, which are upsampled
    to the size of the batch, are summed over its matched queries and divided by its number of segments (at least 1). If
    an image has more segments than queries, the segments with the highest matching cost remain unmatched.

    Args:
        outputs: of `MaskFormer`.
        targets: B dicts of `labels` (N,) from 0 to K - 1 and `masks` (N, h, w) bool, of the image without its padding;
            N may be 0. `segedu.layers.segments` makes them for each task.
        no_object_weight: weight of unmatched queries in the cross-entropy; matched queries have weight 1.
        class_weight: of the cross-entropy, and of the class in the matching cost.
        focal_weight: of the mean over pixels of the focal loss, here and in the matching cost.
        dice_weight: of the Dice loss, here and in the matching cost.

    Returns:
        Scalars `classification`, `focal` and `dice`, weighted, and `loss`, their sum.
    """
    weights = {"class_weight": class_weight, "focal_weight": focal_weight, "dice_weight": dice_weight}
    for name, weight in {**weights, "no_object_weight": no_object_weight}.items():
        check_number(name, weight)
    layers = check_decoder_outputs(outputs, "image_size", **AXES)
    targets = check_segments(targets, outputs["sizes"], outputs["class_logits"].shape[-1] - 1)
    device = outputs["class_logits"].device
    labels = [target["labels"].to(device) for target in targets]
    masks = [pad_masks(target["masks"].to(device), outputs["image_size"]) for target in targets]
    terms = [_layer_loss(layer, labels, masks, no_object_weight, weights) for layer in layers]
    classification, focal, dice = (torch.stack(term).sum() for term in zip(*terms, strict=True))
    parts = {"classification": class_weight * classification, "focal": focal_weight * focal, "dice": dice_weight * dice}
    return {**parts, "loss": sum(parts.values())}


def _layer_loss(
    layer: Mapping[str, Tensor],
    labels: Sequence[Tensor],
    masks: Sequence[Tensor],
    no_object_weight: float,
    weights: Mapping[str, float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy, focal and Dice loss of one decoder layer, without weights."""
    logits, preds = full_precision(layer["class_logits"]), full_precision(layer["mask_logits"])
    costs = [matching_cost(*image, **weights) for image in zip(logits, preds, labels, masks, strict=True)]
    classification, pairs = matched_cross_entropy(logits, labels, costs, no_object_weight)
    matched = torch.cat([preds[b, queries] for b, (queries, _) in enumerate(pairs)])
    gt_masks = torch.cat([masks[b][segments] for b, (_, segments) in enumerate(pairs)])
    return classification, *mask_losses(matched, gt_masks, max(1, sum(map(len, labels))))
