"""DETR with a mask head: the attention maps of each query become its mask, and the masks a panoptic segmentation.

Paper: Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko, "End-to-End Object Detection with Transformers",
    ECCV 2020, arXiv 2005.12872, section 4.4 and figure 8.
Idea: DETR detects boxes of stuff as well as of things. Each query then computes one attention map per head over the
    encoded image, at stride 32. A small convolutional pyramid turns these maps, together with the image's features,
    into one mask per query, at stride 4. Each pixel is assigned to the query with the largest mask logit, so segments
    never overlap, and no rule has to decide between them.
Simplified: the head is trained on whatever DETR it is given; freezing DETR first, as the paper does, is for the caller.
Shapes: images (B, 3, H, W) -> DETR's dict of `class_logits` (B, Q, K + 1), "no object" last, `boxes` (B, Q, 4),
    `aux_outputs` and `sizes`, with `mask_logits` (B, Q, h, w) at stride 4 and `image_size` (H, W). `postprocess`: the
    dict -> B pairs of `panoptic_seg` int32 (h, w), 0 without a segment, and `segments_info`. Labels are 1 to K - 1, of
    things and stuff.
Quality: attention maps, masks, losses and their gradients equal those of Hugging Face's transformers at the same
    weights, the panoptic maps a loop over queries; a tiny one learns two synthetic scenes (its tests).
Course: 15-panoptic
Lab: 15_universal
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.detection.detr import DETR, detr_loss, detr_resnet50, detr_resnet101, matching_cost, padding_mask
from segedu.layers.instance_targets import Size, check_targets
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.layers.position import sine_position
from segedu.layers.segments import pad_masks
from segedu.losses.masks import mask_losses
from segedu.losses.reduction import full_precision
from segedu.ops.boxes import xyxy_to_cxcywh
from segedu.ops.matching import hungarian_matching
from segedu.validation.images import check_images, check_padded_sizes, check_sizes
from segedu.validation.numbers import check_length, check_multiple, check_number
from segedu.validation.targets import check_categories
from segedu.validation.tensors import check_keys, check_no_nan, check_tensor_dict

KEYS = ("class_logits", "boxes", "mask_logits", "sizes", "image_size")
SMALL_AREA = 4  # pixels; segments of at most this area are removed


class BoxAttention(nn.Module):
    """Attention maps of each query over the image: multi-head attention of which only the weights are used.

    Args:
        embed_dim: D of queries and memory, a multiple of num_heads.
        num_heads: number of maps per query.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        check_multiple("embed_dim", embed_dim, num_heads, of="num_heads")
        self.num_heads = num_heads
        self.q_linear, self.k_linear = nn.Linear(embed_dim, embed_dim), nn.Linear(embed_dim, embed_dim)
        for layer in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, memory: Tensor, padding: Tensor) -> Tensor:
        """Queries (B, Q, D), memory (B, D, h, w), padding (B, h, w) bool -> (B, Q, heads, h, w)."""
        queries = self.q_linear(queries).unflatten(-1, (self.num_heads, -1))  # (B, Q, heads, D / heads)
        keys = self.k_linear(memory.movedim(1, -1)).unflatten(-1, (self.num_heads, -1))  # (B, h, w, heads, D / heads)
        logits = torch.einsum("bqnd,bhwnd->bqnhw", queries * queries.shape[-1] ** -0.5, keys)
        logits = logits.masked_fill(padding[:, None, None], -torch.inf)
        # Paper: a softmax for each head. The authors' code, and here: one over all heads of a query together.
        return logits.flatten(2).softmax(dim=-1).unflatten(2, logits.shape[2:])


class MaskHead(nn.Module):
    """A small FPN on the features and the attention maps of each query (figure 8); keys as in the authors' files.

    Args:
        embed_dim: D of the features at stride 32, a multiple of 16.
        num_heads: of the attention maps.
        channels: C of the backbone's features at strides 16, 8 and 4.
        groups: of the group normalisations.
    """

    def __init__(self, embed_dim: int, num_heads: int, channels: Sequence[int], groups: int = 8) -> None:
        super().__init__()
        widths = (embed_dim + num_heads, *(embed_dim // 2**i for i in (1, 2, 3, 4)))
        check_length("channels", channels, 3, of="stride")
        if embed_dim % 16 or any(width % groups for width in widths):
            raise ValueError(
                f"embed_dim and num_heads give the widths {widths}, expected multiples of {groups} (groups)"
            )
        for i, (in_width, width) in enumerate(zip((widths[0], *widths), widths, strict=False), start=1):
            self.add_module(f"lay{i}", nn.Conv2d(in_width, width, 3, padding=1))
            self.add_module(f"gn{i}", nn.GroupNorm(groups, width))
        for i, (in_width, width) in enumerate(zip(channels, widths[1:], strict=False), start=1):
            self.add_module(f"adapter{i}", nn.Conv2d(in_width, width, 1))
        self.out_lay = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)

    def forward(self, coarsest: Tensor, attention: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Features (B, D, h, w), maps (B, Q, heads, h, w), features of strides 16, 8, 4 -> (B, Q, H / 4, W / 4)."""
        B, Q = attention.shape[:2]
        x = torch.cat([coarsest[:, None].expand(-1, Q, -1, -1, -1), attention], dim=2).flatten(0, 1)  # (B Q, C, h, w)
        x = self.gn1(self.lay1(x)).relu()
        x = self.gn2(self.lay2(x)).relu()
        levels = (
            (self.adapter1, self.lay3, self.gn3),
            (self.adapter2, self.lay4, self.gn4),
            (self.adapter3, self.lay5, self.gn5),
        )
        for (adapter, convolve, norm), finer in zip(levels, features, strict=True):
            lateral = adapter(finer)  # (B, C, h, w): once for all queries of the image
            x = F.interpolate(x, size=lateral.shape[-2:], mode="nearest").unflatten(0, (B, Q)) + lateral[:, None]
            x = norm(convolve(x.flatten(0, 1))).relu()
        return self.out_lay(x).view(B, Q, *x.shape[-2:])


class DETRPanoptic(nn.Module):
    """DETR, attention maps of its queries, and the mask head; keys as in the authors' files.

    Args:
        detr: its labels are things and stuff; its backbone is a ResNet.
        num_heads: attention maps per query.
        groups: of the group normalisations.
    """

    def __init__(self, detr: DETR, num_heads: int = 8, groups: int = 8) -> None:
        super().__init__()
        self.detr = detr
        embed_dim = detr.transformer.embed_dim
        self.bbox_attention = BoxAttention(embed_dim, num_heads)
        self.mask_head = MaskHead(embed_dim, num_heads, detr.backbone[0]["body"].channels[3:0:-1], groups)

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> dict[str, Any]:
        detr, body = self.detr, self.detr.backbone[0]["body"]
        check_images(images, body.in_channels)
        sizes = check_sizes(sizes, images)
        features = body(images)  # strides 2, 4, 8, 16, 32
        coarsest = detr.input_proj(features[-1])  # (B, D, h, w)
        padding = padding_mask(sizes, images, coarsest)
        positions = sine_position(padding, coarsest.shape[1], coarsest.dtype)
        queries, memory = detr.transformer(coarsest, padding, positions, detr.query_embed.weight)  # (L, B, Q, D)
        logits, boxes = detr.class_embed(queries), detr.bbox_embed(queries)
        *aux, last = ({"class_logits": k, "boxes": b} for k, b in zip(logits, boxes, strict=True))
        # attention maps are computed from the encoder's output, masks from the features before the encoder
        attention = self.bbox_attention(queries[-1], memory, padding)
        masks = self.mask_head(coarsest, attention, features[3:0:-1])
        rest = {"aux_outputs": aux, "sizes": sizes, "image_size": tuple(images.shape[-2:])}
        return onnx_outputs({**last, "mask_logits": masks, **rest})


def detr_resnet50_panoptic(num_classes: int = 250, *, output_stride: int = 32, **options: Any) -> DETRPanoptic:
    """The paper's panoptic network on ResNet-50, 42.9 million parameters.

    Args:
        num_classes: K; 250 in the authors' files, because COCO's category ids go up to 90 for things and 200 for stuff.
        output_stride: 32, or 16, the paper's DC5.
        **options: arguments of `Transformer`, and `num_queries`.
    """
    return DETRPanoptic(detr_resnet50(num_classes, output_stride=output_stride, **options))


def detr_resnet101_panoptic(num_classes: int = 250, *, output_stride: int = 32, **options: Any) -> DETRPanoptic:
    """The paper's panoptic network on ResNet-101. Arguments as for `detr_resnet50_panoptic`."""
    return DETRPanoptic(detr_resnet101(num_classes, output_stride=output_stride, **options))


def detr_panoptic_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    focal_weight: float = 1.0,
    dice_weight: float = 1.0,
    **weights: float,
) -> dict[str, Tensor]:
    """DETR's losses of all decoder layers, and focal and Dice losses of the masks of the last layer.

    Queries and objects are matched as in DETR, by classes and boxes. Masks are upsampled to the size of the batch;
    their losses are summed over the matched queries of the batch and divided by its number of objects (at least 1).

    Args:
        outputs: of `DETRPanoptic`.
        targets: B dicts of `boxes` (N, 4) in pixels, `labels` (N,) from 1 to K - 1 and `masks` (N, h, w) bool of the
            image without its padding: things, and one for each class of stuff; N may be 0.
        focal_weight: of the mean over pixels of the focal loss.
        dice_weight: of the Dice loss.
        **weights: of `detr_loss`.

    Returns:
        Scalars `classification`, `l1`, `giou`, `focal` and `dice`, weighted, and `loss`, their sum.
    """
    check_number("focal_weight", focal_weight)
    check_number("dice_weight", dice_weight)
    _check(outputs)
    targets = check_targets(targets, outputs["sizes"], outputs["class_logits"].shape[-1] - 1, masks=True)
    parts = detr_loss(outputs, targets, **weights)
    del parts["loss"]
    costs = {name: weight for name, weight in weights.items() if name != "no_object_weight"}
    matched, gt_masks = [], []
    for b, (target, (h, w)) in enumerate(zip(targets, outputs["sizes"], strict=True)):
        boxes = target["boxes"].to(full_precision(outputs["boxes"]))
        boxes = xyxy_to_cxcywh(boxes / boxes.new_tensor([w, h, w, h]))
        cost = matching_cost(outputs["class_logits"][b], outputs["boxes"][b], target["labels"], boxes, **costs)
        queries, objects = hungarian_matching(cost)
        matched.append(outputs["mask_logits"][b, queries])
        gt_masks.append(pad_masks(target["masks"], outputs["image_size"])[objects])
    count = max(1, sum(len(target["labels"]) for target in targets))
    focal, dice = mask_losses(torch.cat(matched), torch.cat(gt_masks), count)
    parts |= {"focal": focal_weight * focal, "dice": dice_weight * dice}
    return {**parts, "loss": sum(parts.values())}


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Any], things: Collection[int], *, score_threshold: float = 0.85
) -> list[tuple[Tensor, list[dict[str, Any]]]]:
    """A panoptic segmentation: each pixel goes to the query with the largest mask logit there.

    Queries that win 4 pixels or fewer are removed and their pixels assigned again, until no such query is left. Queries
    of the same stuff class count as one: the first gets the pixels of all, so the others are removed. If any query
    remains, every pixel has a segment.

    Args:
        outputs: of `DETRPanoptic`.
        things: labels that have instances; the others are stuff.
        score_threshold: queries take part if their most probable class is not "no object" and scores above this.

    Returns:
        For each image `panoptic_seg` int32 (h, w), 0 without a segment, and `segments_info`: for each id in the map a
        dict of `id`, `category_id`, `isthing` and `score`.
    """
    _check(outputs)
    check_no_nan("outputs", outputs, KEYS[:3])
    check_number("score_threshold", score_threshold)
    check_categories("things", things)
    segmentations = []
    for logits, mask_logits, (h, w) in zip(
        outputs["class_logits"], outputs["mask_logits"], outputs["sizes"], strict=True
    ):
        scores, labels = full_precision(logits).softmax(dim=-1).max(dim=-1)  # (Q,)
        keep = (labels < logits.shape[-1] - 1) & (scores > score_threshold)
        if not bool(keep.any()):
            segmentations.append((torch.zeros(h, w, dtype=torch.int32, device=logits.device), []))
            continue
        masks = F.interpolate(
            full_precision(mask_logits[keep])[None], size=outputs["image_size"], mode="bilinear", align_corners=False
        )[0, :, :h, :w]
        segmentations.append(_panoptic(scores[keep], labels[keep], masks, things))
    return segmentations


def _panoptic(
    scores: Tensor, labels: Tensor, masks: Tensor, things: Collection[int]
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Segments of one image from the N queries that take part; masks (N, h, w) are logits."""
    first_of_stuff: dict[int, int] = {}
    # each thing is a segment of its own, stuff belongs to the first query of its class
    segment_of = [
        i if label in things else first_of_stuff.setdefault(label, i) for i, label in enumerate(labels.tolist())
    ]
    owner = masks.argmax(dim=0)
    area = torch.tensor(segment_of, device=masks.device)[owner].flatten().bincount(minlength=len(labels))
    while bool((area <= SMALL_AREA).any()):
        keep = area > SMALL_AREA
        scores, labels, masks = scores[keep], labels[keep], masks[keep]
        if not len(labels):
            return torch.zeros(masks.shape[1:], dtype=torch.int32, device=masks.device), []
        owner = masks.argmax(dim=0)
        area = owner.flatten().bincount(minlength=len(labels))
    info = [
        {"id": i, "category_id": label, "isthing": label in things, "score": score}
        for i, (label, score) in enumerate(zip(labels.tolist(), scores.tolist(), strict=True), start=1)
    ]
    return (owner + 1).to(torch.int32), info


def _check(outputs: Mapping[str, Any]) -> None:
    check_keys("outputs", outputs, KEYS)
    check_tensor_dict("outputs", outputs, class_logits="B Q C", boxes="B Q 4", mask_logits="B Q h w")
    check_padded_sizes("outputs['sizes']", outputs["sizes"], outputs["image_size"], len(outputs["boxes"]))
