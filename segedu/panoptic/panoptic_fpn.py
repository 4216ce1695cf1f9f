"""Panoptic FPN: Mask R-CNN for things, a light branch on the same pyramid for stuff, and a rule that merges the two.

Paper: Kirillov, Girshick, He, Dollár, "Panoptic Feature Pyramid Networks", CVPR 2019, arXiv 1901.02446.
Idea: The pyramid that finds objects is rich on every level, so pixels can be classified on it too: each level goes
    up to a quarter of the image, there all are added, and one convolution says which stuff a pixel is. Both branches
    train at once, by a weighted sum of their losses. What they say may contradict, so fixed rules make one map of it.
Simplified: nothing in the network. Categories are numbered as Mask R-CNN does, with the background first.
Shapes: as Mask R-CNN, and `semantic_logits` (B, 1 + S, H, W): channel 0 is "other", any thing, and 1 to S are stuff.
    Targets have `semantic` (h, w) too, in these numbers. `postprocess`: the dict -> B pairs of `panoptic_seg` (h, w)
    and `segments_info`, in the categories of the data set.
Quality: the branch equals figure 3 written out by hand, and the rest Mask R-CNN with the same weights; merging by hand
    on small pictures; fits four drawn streets (its tests). On the small VGG `street_vgg`, 800 steps, PQ 0.73, 0.76 and
    0.74 on new streets of 96 x 160, three seeds, 183 CPU-seconds; a forest on 5 x 5 windows 0.34 to 0.38.
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
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_keys, check_no_nan

KEYS = (*mask_rcnn.KEYS, "semantic_logits")
VOID = 255  # of a semantic map: the pixel has no category
STUFF_AREA = 4096  # pixels, for photographs of 640 x 480; an image of another size wants another number


class SemanticBranch(nn.Module):
    """Figure 3 of the paper: each level of the pyramid goes up to the size of the finest, and all are added.

    Args:
        channels: C of every level.
        num_classes: 1 + S.
        levels: number of levels, fine to coarse.
        width: D of the features that are added.
        groups: of the normalisation.
    """

    def __init__(self, channels: int, num_classes: int, levels: int = 4, width: int = 128, groups: int = 32) -> None:
        super().__init__()
        # level i needs i doublings, and a stage for each; the finest has one stage too, which doubles nothing
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
                # Paper: twice as large; of an odd size it is a bit less, as in the pyramid.
                x = F.interpolate(stage(x), size=size, mode="bilinear", align_corners=False)
            merged.append(x)  # (B, D, H / 4, W / 4)
        return self.predictor(sum(merged))  # (B, 1 + S, H / 4, W / 4)


def _stage(channels: int, width: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.GroupNorm(groups, width), nn.ReLU())


class PanopticFPN(MaskRCNN):
    """Mask R-CNN and the semantic branch, which looks at the levels that boxes are pooled from.

    Args:
        backbone: as in `MaskRCNN`.
        num_classes: K, the things and the background.
        num_stuff: S, without "other".
        semantic_branch: pyramid -> logits (B, 1 + S, h, w); None: `SemanticBranch` with the paper's width.
        **options: of `MaskRCNN`.
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
        if num_stuff < 1:
            raise ValueError(f"num_stuff is {num_stuff}, expected at least 1: without stuff it is Mask R-CNN")
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
        # the last level is for anchors of very large objects only
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
    """Section 3: L = λi (Lcls + Lbox + Lmask) + λs Ls.

    Args:
        outputs: of the network, called with these targets.
        targets: B dicts with `boxes`, `labels` and `masks` as for Mask R-CNN, and `semantic` (h, w) int64: 0 is any
            thing, 1 to S are stuff, 255 does not count.
        instance_weight: λi. It weighs the proposals' losses too, of which the paper does not speak.
        semantic_weight: λs. Losses of different scales are added, so that one of the tasks suffers from equal weights.
            0.5 is what the authors' program takes on COCO.
        generator: draws the anchors that count; None for torch's own.

    Returns:
        Scalars `objectness`, `anchor_box`, `classes`, `box`, `mask` and `semantic`, each times its weight, and `loss`,
        their sum. `semantic` is the mean over the pixels that count, 0 where there is none.

    Raises:
        TypeError: outputs or targets are no dicts of tensors, or a map has another type than int64.
        ValueError: a key is missing, a shape or label does not fit, or a weight is negative.
    """
    check_keys("outputs", outputs, KEYS)
    check_number("instance_weight", instance_weight)
    check_number("semantic_weight", semantic_weight)
    of_instances = mask_rcnn_loss(outputs, targets, generator=generator)
    losses = {name: instance_weight * value for name, value in of_instances.items() if name != "loss"}
    logits = full_precision(outputs["semantic_logits"])
    truth = _padded(targets, outputs["sizes"], logits)
    losses["semantic"] = semantic_weight * cross_entropy(logits, truth, ignore_index=VOID)
    return {**losses, "loss": sum(losses.values())}


def _padded(targets: Targets, sizes: Sequence[Size], logits: Tensor) -> Tensor:
    """Semantic targets (B, H, W); what the images were padded with does not count."""
    B, _, H, W = logits.shape
    truth = torch.full((B, H, W), VOID, dtype=torch.int64, device=logits.device)
    for i, (target, (h, w)) in enumerate(zip(targets, sizes, strict=True)):
        check_keys(f"targets[{i}]", target, ("semantic",))
        _check_map(f"targets[{i}]['semantic']", target["semantic"], (h, w))
        truth[i, :h, :w] = target["semantic"]
    return truth


def own_numbers(target: Mapping[str, Tensor], things: Sequence[int], stuff: Sequence[int]) -> dict[str, Tensor]:
    """A target in the categories of a data set, brought to the numbers of the network.

    Args:
        target: `labels` (N,) and `semantic` (h, w), int64 categories, 255 for void, and anything else.
        things: T categories; the first becomes label 1, and so on.
        stuff: S categories; the first becomes class 1 of `semantic`; all things become class 0.

    Returns:
        The target with other `labels` and `semantic`.

    Raises:
        TypeError: a map or the labels have another type than int64.
        ValueError: a key is missing, or a category is neither thing nor stuff, or both.

    >>> target = {"labels": torch.tensor([7, 5]), "semantic": torch.tensor([[7, 2, 5, 255, 1]])}
    >>> own_numbers(target, things=(5, 7), stuff=(1, 2))
    {'labels': tensor([2, 1]), 'semantic': tensor([[  0,   2,   0, 255,   1]])}
    """
    check_keys("target", target, ("labels", "semantic"))
    _check_categories(things, stuff)
    labels = _look_up("target['labels']", target["labels"], {c: i for i, c in enumerate(things, start=1)})
    numbers = {c: i for i, c in enumerate(stuff, start=1)} | dict.fromkeys(things, 0) | {VOID: VOID}
    return {**target, "labels": labels, "semantic": _look_up("target['semantic']", target["semantic"], numbers)}


def _check_categories(things: Collection[int], stuff: Collection[int]) -> None:
    listed = [*things, *stuff]
    if len(set(listed)) < len(listed) or not all(0 <= category < VOID for category in listed):
        raise ValueError(
            f"things is {tuple(things)} and stuff {tuple(stuff)}, expected each category once, from 0 to {VOID - 1}"
        )


def _look_up(name: str, categories: Tensor, numbers: Mapping[int, int]) -> Tensor:
    if not isinstance(categories, Tensor) or categories.dtype != torch.int64:
        kind = f"dtype {categories.dtype}" if isinstance(categories, Tensor) else f"type {type(categories).__name__}"
        raise TypeError(f"{name} has {kind}, expected a tensor of torch.int64")
    strange = set(categories.unique().tolist()) - set(numbers)
    if strange:
        raise ValueError(f"{name} has the value {min(strange)}, expected one of {sorted(numbers)}")
    table = torch.zeros(VOID + 1, dtype=torch.int64, device=categories.device)
    for category, number in numbers.items():
        table[category] = number
    return table[categories]


def _check_map(name: str, semantic: Tensor, size: Size | None = None) -> None:
    if not isinstance(semantic, Tensor) or semantic.dtype != torch.int64:
        kind = f"dtype {semantic.dtype}" if isinstance(semantic, Tensor) else f"type {type(semantic).__name__}"
        raise TypeError(f"{name} has {kind}, expected a tensor of torch.int64")
    if semantic.ndim != 2 or 0 in semantic.shape or size not in (None, tuple(semantic.shape)):
        raise ValueError(f"{name} has shape {tuple(semantic.shape)}, expected {size or '(H, W), no axis empty'}")


def merge_panoptic(
    instances: Mapping[str, Tensor],
    semantic: Tensor,
    things: Collection[int],
    *,
    score_threshold: float = 0.5,
    overlap_threshold: float = 0.5,
    stuff_area: int = STUFF_AREA,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Section 3: one map, in which each pixel has one segment or none.

    1. The surest instance comes first and takes its pixels; each further one takes what is left of its own. If too
       much of it is taken already, it takes nothing. Of equal scores, the one that comes first in the list.
    2. What no instance took belongs to its stuff. Pixels that the map calls a thing stay without a segment.
    3. Stuff that has too few pixels then is dropped.

    Args:
        instances: `labels` (N,) int64 in `things`, `scores` (N,) and `masks` (N, H, W) bool; N may be 0.
        semantic: (H, W) int64 categories, 255 where there is none.
        things: which categories are things.
        score_threshold: instances below this go.
        overlap_threshold: an instance goes if more than this share of its pixels is taken.
        stuff_area: stuff of fewer pixels goes.

    Returns:
        `panoptic_seg` (H, W) int32, 0 where nothing is said, and `segments_info`: of each number in the map a dict
        of `id`, `category_id`, `isthing` and, of things, `score`. Things come first, the surest first.

    Raises:
        TypeError: an argument is no tensor of the type above, or a number is none.
        ValueError: a key is missing, a shape does not fit, a label is no thing, a score is NaN, or a threshold is
            out of range.

    >>> masks = torch.tensor([[[1, 1, 1, 0, 0, 0]], [[0, 0, 1, 1, 0, 0]]]).bool()
    >>> car = {"labels": torch.tensor([3, 3]), "scores": torch.tensor([0.6, 0.9]), "masks": masks}
    >>> seg, info = merge_panoptic(car, torch.tensor([[1, 1, 1, 1, 3, 2]]), things=[3], stuff_area=1)
    >>> seg.tolist(), [(segment["id"], segment["category_id"]) for segment in info]
    ([[2, 2, 1, 1, 0, 3]], [(1, 3), (2, 3), (3, 2)])
    """
    _check_merge(instances, semantic, things, (score_threshold, overlap_threshold, stuff_area))
    panoptic_seg = torch.zeros_like(semantic, dtype=torch.int32)
    segments_info: list[dict[str, Any]] = []

    def add(mask: Tensor, category: int, **more: Any) -> None:
        segments_info.append({"id": len(segments_info) + 1, "category_id": category, **more})
        panoptic_seg[mask] = len(segments_info)

    labels, scores, masks = (instances[key] for key in ("labels", "scores", "masks"))
    for i in scores.argsort(descending=True, stable=True).tolist():
        free = masks[i] & (panoptic_seg == 0)  # (H, W): masks are compared, not boxes
        area = int(masks[i].sum())
        taken = area - int(free.sum())
        if scores[i] >= score_threshold and taken < area and taken <= overlap_threshold * area:
            add(free, int(labels[i]), isthing=True, score=float(scores[i]))
    left = semantic[panoptic_seg == 0]
    for category in left.unique().tolist():
        if category != VOID and category not in things and int((left == category).sum()) >= stuff_area:
            add((semantic == category) & (panoptic_seg == 0), category, isthing=False)
    return panoptic_seg, segments_info


def _check_merge(
    instances: Mapping[str, Tensor], semantic: Tensor, things: Collection[int], limits: tuple[float, float, float]
) -> None:
    check_keys("instances", instances, ("labels", "scores", "masks"))
    _check_map("semantic", semantic)
    if bool((semantic < 0).any()):
        raise ValueError(f"semantic has the value {int(semantic.min())}, expected categories from 0, or {VOID}")
    for name, limit, high in zip(("score_threshold", "overlap_threshold"), limits, (1, 1), strict=False):
        check_number(name, limit, maximum=high)
    check_number("stuff_area", limits[2])
    if not isinstance(things, Collection) or isinstance(things, str | bytes):
        raise TypeError(f"things has type {type(things).__name__}, expected a set of categories")
    labels, scores, masks = (instances[key] for key in ("labels", "scores", "masks"))
    for key, tensor in (("scores", scores), ("masks", masks)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"instances[{key!r}] has type {type(tensor).__name__}, expected a tensor")
    _look_up("instances['labels']", labels, dict.fromkeys(things, 0))
    for key, tensor, shape in (
        ("labels", labels, (len(masks),)),
        ("scores", scores, (len(masks),)),
        ("masks", masks, (len(masks), *semantic.shape)),
    ):
        if tuple(tensor.shape) != shape:
            raise ValueError(f"instances[{key!r}] has shape {tuple(tensor.shape)}, expected {shape}")
    if masks.dtype != torch.bool:
        raise TypeError(f"instances['masks'] has dtype {masks.dtype}, expected torch.bool")
    if bool(scores.isnan().any()):
        raise ValueError(f"instances['scores'] is {scores.tolist()}, expected numbers that are not NaN")


def postprocess(
    outputs: Mapping[str, Any], things: Sequence[int], stuff: Sequence[int], **options: Any
) -> list[tuple[Tensor, list[dict[str, Any]]]]:
    """What both branches say, merged.

    Args:
        outputs: of the network without targets.
        things: T = K - 1 categories of the labels 1 to T.
        stuff: S categories of the classes 1 to S.
        **options: of `merge_panoptic`.

    Returns:
        B pairs of `panoptic_seg` (h, w) int32 and `segments_info`, h and w those of the image without its padding.

    Raises:
        TypeError: outputs are no dict.
        ValueError: a key is missing, a number is NaN, there are more or fewer categories than channels, or the
            outputs were made with targets.
    """
    check_keys("outputs", outputs, KEYS)
    check_no_nan("outputs", outputs, ["semantic_logits"])
    _check_categories(things, stuff)
    channels = outputs["mask_logits"].shape[1], outputs["semantic_logits"].shape[1]
    if channels != (1 + len(things), 1 + len(stuff)):
        raise ValueError(
            f"things has {len(things)} and stuff {len(stuff)} categories, expected {channels[0] - 1} and"
            f" {channels[1] - 1}, one less than mask_logits and semantic_logits have channels"
        )
    logits = outputs["semantic_logits"].detach()
    names = [torch.tensor(row, device=logits.device) for row in ([VOID, *things], [VOID, *stuff])]
    merged = []
    for i, instances in enumerate(mask_rcnn.postprocess(outputs)):
        h, w = outputs["sizes"][i]
        semantic = names[1][logits[i, :, :h, :w].argmax(dim=0)]  # (h, w): "other" has no category
        instances = {**instances, "labels": names[0][instances["labels"]]}
        merged.append(merge_panoptic(instances, semantic, things, **options))
    return merged


def panoptic_fpn_resnet50(num_classes: int = 81, num_stuff: int = 53, **options: Any) -> PanopticFPN:
    """The paper's network on ResNet-50, for COCO: 80 things and 53 kinds of stuff.

    Args:
        num_classes: K, the things and the background.
        num_stuff: S.
        **options: of `PanopticFPN`.

    Returns:
        The network with random weights.
    """
    return PanopticFPN(resnet50_fpn(1e-5), num_classes, num_stuff, **options)
