"""Panoptic FPN: Mask R-CNN for things, a light semantic branch on the same pyramid for stuff, and a rule to merge them.

Paper: Kirillov, Girshick, He, Dollár, "Panoptic Feature Pyramid Networks", CVPR 2019, arXiv 1901.02446.
Idea: The feature pyramid that serves object detection can also classify pixels: each level is upsampled to a quarter
    of the image, the levels are added, and one convolution predicts the stuff class of each pixel. Both branches train
    jointly, with a weighted sum of their losses. Their predictions may contradict each other, so fixed rules merge them
    into one map.
Simplified: nothing in the network. Categories are numbered as in Mask R-CNN, with the background first.
Shapes: as Mask R-CNN, and `semantic_logits` (B, 1 + S, H, W): channel 0 is "other", any thing, and 1 to S are stuff.
    Targets have `semantic` (h, w) too, with these classes. `postprocess`: the dict -> B pairs of `panoptic_seg` (h, w)
    and `segments_info`, in the categories of the data set.
Quality: the branch equals a direct implementation of figure 3, and the rest Mask R-CNN with the same weights; merging
    equals worked examples; fits four synthetic streets (its tests). On the small VGG `street_vgg`, 800 steps, PQ 0.73,
    0.76 and 0.74 on new streets of 96 x 160, three seeds, 183 CPU-seconds; a forest on 5 x 5 windows 0.34 to 0.38.
Course: 15-panoptic
Lab: 15_universal
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.instance import mask_rcnn
from segedu.instance.mask_rcnn import MaskRCNN, Targets, mask_rcnn_loss, resnet50_fpn
from segedu.layers.instance_targets import Size
from segedu.layers.resize import upsample_to
from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.reduction import full_precision
from segedu.validation.boxes import check_labels, check_scores
from segedu.validation.numbers import check_integer, check_length, check_number
from segedu.validation.targets import check_categories
from segedu.validation.tensors import check_dtype, check_keys, check_no_nan

KEYS = (*mask_rcnn.KEYS, "semantic_logits")
VOID = 255  # of a semantic map: the pixel has no category
STUFF_AREA = 4096  # pixels, for photographs of 640 x 480; adapt it to images of other sizes


class SemanticBranch(nn.Module):
    """Upsample each level of the pyramid to the size of the finest, add them, and classify each location (figure 3).

    Args:
        channels: C of every level.
        num_classes: 1 + S.
        levels: number of levels, fine to coarse.
        width: D of the features that are added.
        groups: of the group normalisation.
    """

    def __init__(self, channels: int, num_classes: int, levels: int = 4, width: int = 128, groups: int = 32) -> None:
        super().__init__()
        # level i has i stages, each of which doubles the size; the finest has one stage that keeps the size
        self.levels = nn.ModuleList(
            nn.ModuleList(_stage(channels if j == 0 else width, width, groups) for j in range(max(i, 1)))
            for i in range(levels)
        )
        self.predictor = nn.Conv2d(width, num_classes, kernel_size=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.predictor.bias)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        sizes = [level.shape[-2:] for level in features]
        merged = []
        for i, (x, stages) in enumerate(zip(features, self.levels, strict=True)):
            for stage, size in zip(stages, reversed(sizes[: max(i, 1)]), strict=True):
                # Paper: always twice the size. If the finer level has an odd size, this is its size, as in the pyramid.
                x = F.interpolate(stage(x), size=size, mode="bilinear", align_corners=False)
            merged.append(x)  # (B, D, H / 4, W / 4)
        return self.predictor(sum(merged))  # (B, 1 + S, H / 4, W / 4)


def _stage(channels: int, width: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.GroupNorm(groups, width), nn.ReLU())


class PanopticFPN(MaskRCNN):
    """Mask R-CNN and the semantic branch, which uses the levels that boxes are pooled from.

    Args:
        backbone: as in `MaskRCNN`.
        num_classes: K, the things and the background.
        num_stuff: S, without "other".
        semantic_branch: pyramid -> logits (B, 1 + S, h, w); None: `SemanticBranch` with the paper's width.
        **options: arguments of `MaskRCNN`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        num_stuff: int,
        semantic_branch: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, num_classes, **options)
        check_integer("num_stuff", num_stuff)  # without stuff it is Mask R-CNN
        if semantic_branch is None:
            semantic_branch = SemanticBranch(backbone.channels[0], 1 + num_stuff, len(backbone.strides) - 1)
        self.semantic_branch = semantic_branch

    def forward(
        self,
        images: Tensor,
        sizes: Sequence[Size] | None = None,
        targets: Targets | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Any]:
        outputs = super().forward(images, sizes, targets, generator)
        # the last level only serves anchors of very large objects
        logits = self.semantic_branch(outputs["features"][:-1])
        return outputs | {"semantic_logits": upsample_to(logits, images)}  # four times as large: (B, 1 + S, H, W)


def panoptic_fpn_loss(
    outputs: Mapping[str, Any],
    targets: Targets,
    *,
    instance_weight: float = 1.0,
    semantic_weight: float = 0.5,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The weighted sum of the losses of both branches (section 3): L = λi (Lcls + Lbox + Lmask) + λs Ls.

    Args:
        outputs: of the network, called with these targets.
        targets: B dicts with `boxes`, `labels` and `masks` as for Mask R-CNN, and `semantic` (h, w) int64: 0 is any
            thing, 1 to S are stuff, 255 is ignored.
        instance_weight: λi. It also weights the losses of the proposals, which the paper does not mention.
        semantic_weight: λs. The losses have different scales, so equal weights harm one of the tasks. 0.5 is the value
            of the authors' code for COCO.
        generator: samples the anchors; None: torch's default generator.

    Returns:
        Scalars `objectness`, `anchor_box`, `classes`, `box`, `mask` and `semantic`, each times its weight, and `loss`,
        their sum. `semantic` is the mean over the pixels that are not ignored, 0 if there are none.
    """
    check_keys("outputs", outputs, KEYS)
    check_number("instance_weight", instance_weight)
    check_number("semantic_weight", semantic_weight)
    instance_losses = mask_rcnn_loss(outputs, targets, generator=generator)
    losses = {name: instance_weight * value for name, value in instance_losses.items() if name != "loss"}
    logits = full_precision(outputs["semantic_logits"])
    semantic = _pad_semantic(targets, outputs["sizes"], logits)
    losses["semantic"] = semantic_weight * cross_entropy(logits, semantic, ignore_index=VOID)
    return {**losses, "loss": sum(losses.values())}


def _pad_semantic(targets: Targets, sizes: Sequence[Size], logits: Tensor) -> Tensor:
    """Semantic targets (B, H, W); padding is ignored."""
    B, _, H, W = logits.shape
    semantic = torch.full((B, H, W), VOID, dtype=torch.int64, device=logits.device)
    for i, (target, (h, w)) in enumerate(zip(targets, sizes, strict=True)):
        check_keys(f"targets[{i}]", target, ("semantic",))
        check_dtype(f"targets[{i}]['semantic']", target["semantic"], torch.int64, "H W", {"H": h, "W": w})
        semantic[i, :h, :w] = target["semantic"]
    return semantic


def to_network_classes(target: Mapping[str, Tensor], things: Sequence[int], stuff: Sequence[int]) -> dict[str, Tensor]:
    """Map a target from the categories of a data set to the classes of the network.

    Args:
        target: `labels` (N,) and `semantic` (h, w), int64 categories, 255 for void; other entries are kept.
        things: T categories; the first becomes label 1, and so on.
        stuff: S categories; the first becomes class 1 of `semantic`; all things become class 0.

    >>> target = {"labels": torch.tensor([7, 5]), "semantic": torch.tensor([[7, 2, 5, 255, 1]])}
    >>> to_network_classes(target, things=(5, 7), stuff=(1, 2))
    {'labels': tensor([2, 1]), 'semantic': tensor([[  0,   2,   0, 255,   1]])}
    """
    check_keys("target", target, ("labels", "semantic"))
    _check_disjoint(things, stuff)
    labels = _map_categories("target['labels']", target["labels"], {c: i for i, c in enumerate(things, start=1)})
    classes = {c: i for i, c in enumerate(stuff, start=1)} | dict.fromkeys(things, 0) | {VOID: VOID}
    return {**target, "labels": labels, "semantic": _map_categories("target['semantic']", target["semantic"], classes)}


def _check_disjoint(things: Sequence[int], stuff: Sequence[int]) -> None:
    check_categories("things", things, VOID)
    check_categories("stuff", stuff, VOID)
    if len({*things, *stuff}) < len(things) + len(stuff):
        raise ValueError(f"things is {tuple(things)} and stuff {tuple(stuff)}, expected each category exactly once")


def _map_categories(name: str, categories: Tensor, classes: Mapping[int, int]) -> Tensor:
    """Replace each category by its class."""
    check_dtype(name, categories, torch.int64)
    unknown = set(categories.unique().tolist()) - set(classes)
    if unknown:
        raise ValueError(f"{name} has the value {min(unknown)}, expected one of {sorted(classes)}")
    table = torch.zeros(VOID + 1, dtype=torch.int64, device=categories.device)
    for category, index in classes.items():
        table[category] = index
    return table[categories]


def merge_panoptic(
    instances: Mapping[str, Tensor],
    semantic: Tensor,
    things: Collection[int],
    *,
    score_threshold: float = 0.5,
    overlap_threshold: float = 0.5,
    stuff_area: int = STUFF_AREA,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Merge instances and stuff into one map, in which each pixel has at most one segment (section 3).

    1. Instances take their pixels in the order of their scores; each takes what the earlier ones left. If too much of
       an instance is taken already, it is dropped. With equal scores, the earlier one in the list comes first.
    2. Pixels without an instance get their stuff category. Pixels with a thing category remain without a segment.
    3. Stuff with too few pixels is dropped.

    Args:
        instances: `labels` (N,) int64 in `things`, `scores` (N,) and `masks` (N, H, W) bool; N may be 0.
        semantic: (H, W) int64 categories, 255 for none.
        things: categories that have instances.
        score_threshold: instances with a lower score are dropped.
        overlap_threshold: an instance is dropped if more than this share of its pixels is taken.
        stuff_area: stuff with fewer pixels is dropped.

    Returns:
        `panoptic_seg` (H, W) int32, 0 without a segment, and `segments_info`: for each id in the map a dict of `id`,
        `category_id`, `isthing` and, for things, `score`. Things come first, in the order of their scores.

    >>> masks = torch.tensor([[[1, 1, 1, 0, 0, 0]], [[0, 0, 1, 1, 0, 0]]]).bool()
    >>> car = {"labels": torch.tensor([3, 3]), "scores": torch.tensor([0.6, 0.9]), "masks": masks}
    >>> seg, info = merge_panoptic(car, torch.tensor([[1, 1, 1, 1, 3, 2]]), things=[3], stuff_area=1)
    >>> seg.tolist(), [(segment["id"], segment["category_id"]) for segment in info]
    ([[2, 2, 1, 1, 0, 3]], [(1, 3), (2, 3), (3, 2)])
    """
    check_number("score_threshold", score_threshold, maximum=1)
    check_number("overlap_threshold", overlap_threshold, maximum=1)
    check_number("stuff_area", stuff_area)
    _check_merge(instances, semantic, things)
    panoptic_seg = torch.zeros_like(semantic, dtype=torch.int32)
    segments_info: list[dict[str, Any]] = []

    def add_segment(mask: Tensor, category: int, **more: Any) -> None:
        segments_info.append({"id": len(segments_info) + 1, "category_id": category, **more})
        panoptic_seg[mask] = len(segments_info)

    labels, scores, masks = (instances[key] for key in ("labels", "scores", "masks"))
    for i in scores.argsort(descending=True, stable=True).tolist():
        visible = masks[i] & (panoptic_seg == 0)  # (H, W): masks are compared, not boxes
        area = int(masks[i].sum())
        occluded_area = area - int(visible.sum())
        if scores[i] >= score_threshold and occluded_area < area and occluded_area <= overlap_threshold * area:
            add_segment(visible, int(labels[i]), isthing=True, score=float(scores[i]))
    remaining = semantic[panoptic_seg == 0]
    for category in remaining.unique().tolist():
        if category != VOID and category not in things and int((remaining == category).sum()) >= stuff_area:
            add_segment((semantic == category) & (panoptic_seg == 0), category, isthing=False)
    return panoptic_seg, segments_info


def _check_merge(instances: Mapping[str, Tensor], semantic: Tensor, things: Collection[int]) -> None:
    check_keys("instances", instances, ("labels", "scores", "masks"))
    lengths = check_dtype("semantic", semantic, torch.int64, "H W")
    if bool((semantic < 0).any()):
        raise ValueError(f"semantic has the value {int(semantic.min())}, expected categories from 0, or {VOID}")
    check_categories("things", things)
    check_dtype("instances['masks']", instances["masks"], torch.bool, "N? H W", lengths)
    check_scores("instances['scores']", instances["scores"], len(instances["masks"]))
    check_labels("instances['labels']", instances["labels"], len(instances["masks"]))
    _map_categories("instances['labels']", instances["labels"], dict.fromkeys(things, 0))


def postprocess(
    outputs: Mapping[str, Any], things: Sequence[int], stuff: Sequence[int], **options: Any
) -> list[tuple[Tensor, list[dict[str, Any]]]]:
    """Panoptic segmentations: the predictions of both branches, merged.

    Args:
        outputs: of the network, called without targets.
        things: T = K - 1 categories of the labels 1 to T.
        stuff: S categories of the classes 1 to S.
        **options: arguments of `merge_panoptic`.

    Returns:
        B pairs of `panoptic_seg` (h, w) int32 and `segments_info`, h and w those of the image without its padding.
    """
    check_keys("outputs", outputs, KEYS)
    check_no_nan("outputs", outputs, ["semantic_logits"])
    _check_disjoint(things, stuff)
    check_length("things", things, outputs["mask_logits"].shape[1] - 1, of="channel of mask_logits but the first")
    check_length("stuff", stuff, outputs["semantic_logits"].shape[1] - 1, of="channel of semantic_logits but the first")
    logits = outputs["semantic_logits"].detach()
    thing_categories = torch.tensor([VOID, *things], device=logits.device)
    stuff_categories = torch.tensor([VOID, *stuff], device=logits.device)
    merged = []
    for i, instances in enumerate(mask_rcnn.postprocess(outputs)):
        h, w = outputs["sizes"][i]
        semantic = stuff_categories[logits[i, :, :h, :w].argmax(dim=0)]  # (h, w): "other" has no category
        instances = {**instances, "labels": thing_categories[instances["labels"]]}
        merged.append(merge_panoptic(instances, semantic, things, **options))
    return merged


def panoptic_fpn_resnet50(num_classes: int = 81, num_stuff: int = 53, **options: Any) -> PanopticFPN:
    """The paper's network on ResNet-50, for COCO: 80 things and 53 stuff classes.

    Args:
        num_classes: K, the things and the background.
        num_stuff: S.
        **options: arguments of `PanopticFPN`.
    """
    return PanopticFPN(resnet50_fpn(1e-5), num_classes, num_stuff, **options)
