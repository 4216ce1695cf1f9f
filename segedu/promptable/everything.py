"""Segment everything: SAM is clicked on a whole grid of points, and what it is sure of remains.

Paper: Kirillov, Mintun, Ravi et al., "Segment Anything", ICCV 2023, arXiv 2304.02643, section 4, "Fully automatic
    stage", and appendix B.
Idea: 32 x 32 clicks with three masks each. A mask stays if SAM guesses that its IoU is high, and if it is stable: if
    it hardly changes when its logits are cut a little higher or lower. Of masks whose boxes nearly agree the best one
    stays. For small objects the same is done on overlapping crops, enlarged; masks that a crop's edge may have cut are
    dropped. Small holes are filled at the end, and small islands removed.
Simplified: as in the authors' code, masks of nearly the whole image stay; the paper drops those of 95 % and more.
    Logits are enlarged only where SAM's guess is high enough, which changes no result.
Shapes: an image (3, H, W) in [0, 1] -> dict of `boxes` (N, 4), `labels` (N,), all 1, for it says nothing of classes,
    `scores` (N,), `masks` (N, H, W) bool; and for each mask `stability`, `point_coords` (N, 2), the click that it
    answers, and `crop_boxes` (N, 4).
Quality: the same masks as Meta's segment-anything at the same weights, with crops too (tests/promptable).
Course: 16-promptable
Lab: 16_promptable
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from segedu.losses.overlap import ratio_or_one
from segedu.ops.boxes import box_area
from segedu.ops.masks import boxes_from_masks, connected_components
from segedu.ops.nms import nms
from segedu.promptable.sam.sam import SAM, full_size
from segedu.validation.images import check_images
from segedu.validation.numbers import check_number

AT_A_TIME = 8  # masks at the size of the image: as many as a processor's cache may hold
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Settings:
    """What is asked, and what remains; the authors' numbers, made for ViT-H.

    `iou_threshold` is for SAM's own guess, which must be above it; `stability_threshold` for the IoU of the masks cut
    at `stability_offset` above and below 0. `nms_threshold`: of two masks of a crop whose boxes have a higher IoU, one
    goes; `crop_nms_threshold`: likewise of different crops. Layer i of `crop_layers` has 2^i x 2^i crops, which
    overlap by `crop_overlap` of the image's shorter side in the first layer, with points_per_side /
    `crop_points_divisor`^i points a side; masks whose box ends within `crop_edge` pixels of a crop's edge are dropped.
    Holes and islands of less than `min_region_area` pixels are filled and removed; with 0 they stay.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    iou_threshold: float = 0.88
    stability_threshold: float = 0.95
    stability_offset: float = 1.0
    nms_threshold: float = 0.7
    crop_layers: int = 0
    crop_nms_threshold: float = 0.7
    crop_overlap: float = 512 / 1500
    crop_points_divisor: int = 1
    crop_edge: float = 20.0
    min_region_area: int = 0

    def __post_init__(self) -> None:
        least = {"points_per_side": 1, "points_per_batch": 1, "crop_layers": 0, "crop_points_divisor": 1}
        for name, low in {**least, "min_region_area": 0}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is {value!r}, expected a whole number")
            if value < low:
                raise ValueError(f"{name} is {value}, expected at least {low}")
        for name in ("iou_threshold", "stability_threshold", "nms_threshold", "crop_nms_threshold"):
            check_number(name, getattr(self, name), minimum=-math.inf if name == "iou_threshold" else 0.0, maximum=1)
        check_number("stability_offset", self.stability_offset)
        check_number("crop_edge", self.crop_edge)
        check_number("crop_overlap", self.crop_overlap, maximum=1)
        if self.points_per_side < self.crop_points_divisor**self.crop_layers:
            raise ValueError(
                f"points_per_side is {self.points_per_side}, expected at least one point a side in the last of "
                f"{self.crop_layers} crop_layers, with crop_points_divisor {self.crop_points_divisor}"
            )


@torch.no_grad()
def segment_everything(model: SAM, image: Tensor, settings: Settings | None = None) -> dict[str, Tensor]:
    """All masks that SAM is sure of.

    Args:
        model: in evaluation mode.
        image: (3, H, W) in [0, 1].
        settings: by default the authors'.

    Returns:
        `boxes` (N, 4), `labels` (N,), `scores` (N,), `masks` (N, H, W), `stability` (N,), `point_coords` (N, 2) and
        `crop_boxes` (N, 4), xyxy. Best first, but with crops the smallest crops first. N may be 0.

    Raises:
        TypeError: image is no tensor of floating-point numbers.
        ValueError: image has another shape.
    """
    settings = settings or Settings()
    check_images(image[None] if isinstance(image, Tensor) else image, 3)
    size = image.shape[-2:]
    crops = crop_boxes(size, settings.crop_layers, settings.crop_overlap)
    found = _joined([_segment_crop(model, image, box, layer, settings) for box, layer in crops])
    if len(crops) > 1:
        smallest = 1 / box_area(found["crop_boxes"].float())
        found = _chosen(found, nms(found["ends"], smallest, settings.crop_nms_threshold))
    masks = _masks(model, found, size)
    if settings.min_region_area:
        threshold = max(settings.nms_threshold, settings.crop_nms_threshold)
        masks, kept = without_small_regions(masks, settings.min_region_area, threshold)
        found = _chosen(found, kept)
    names = ("scores", "stability", "point_coords", "crop_boxes")
    labels = torch.ones(len(masks), dtype=torch.int64, device=image.device)
    return {"boxes": boxes_from_masks(masks), "labels": labels, "masks": masks, **{name: found[name] for name in names}}


def _segment_crop(model: SAM, image: Tensor, box: Box, layer: int, settings: Settings) -> dict[str, Tensor]:
    """The masks of one crop, as logits, with what `segment_everything` returns; `ends` as boxes are compared."""
    x1, y1, x2, y2 = box
    size = (y2 - y1, x2 - x1)
    embeddings = model.encode(image[None, :, y1:y2, x1:x2])
    points = point_grid(int(settings.points_per_side / settings.crop_points_divisor**layer)).to(image.device)
    points = points * points.new_tensor([size[1], size[0]])
    found = []
    for some in points.split(settings.points_per_batch):
        clicks = {"point_coords": some[None, :, None], "point_labels": torch.ones(1, len(some), 1, device=some.device)}
        outputs = model.decode(embeddings, size, **clicks)
        logits, scores = outputs["mask_logits"][0], outputs["iou_scores"][0]  # (n, M, h, w), (n, M)
        answers = {
            "mask_logits": logits.flatten(0, 1),
            "scores": scores.flatten(),
            "point_coords": some.repeat_interleave(scores.shape[1], dim=0),
        }
        if settings.iou_threshold > 0:
            answers = _chosen(answers, answers["scores"] > settings.iou_threshold)
        found.append(_stable(model, answers, size, settings))
    found = _joined(found)
    corner = points.new_tensor([x1, y1])
    found["ends"] = found["ends"] + corner.repeat(2).to(found["ends"])
    found["point_coords"] = found["point_coords"] + corner
    found["crop_boxes"] = torch.tensor(box, device=image.device).expand(len(found["scores"]), 4)
    found = _chosen(found, ~near_crop_edge(found["ends"], box, image.shape[-2:], settings.crop_edge))
    return _chosen(found, nms(found["ends"], found["scores"], settings.nms_threshold))


def _stable(model: SAM, answers: dict[str, Tensor], size: tuple[int, int], settings: Settings) -> dict[str, Tensor]:
    """Of masks that SAM thinks well of, those that are stable; with their boxes."""
    stability, ends = [], []
    for logits in answers["mask_logits"].split(AT_A_TIME):
        logits = full_size(logits[:, None], model.image_size, size)[:, 0] - model.mask_threshold  # (n, H, W)
        stability.append(stability_score(logits, settings.stability_offset))
        # Paper: the authors' boxes end with the last pixel, not behind it, and boxes are compared so.
        ends.append((boxes_from_masks(logits > 0) - logits.new_tensor([0, 0, 1, 1])).clamp(min=0))
    scores = answers["scores"]
    answers = answers | {
        "stability": torch.cat([scores.new_zeros(0), *stability]),
        "ends": torch.cat([scores.new_zeros(0, 4), *ends]),
    }
    if settings.stability_threshold > 0:
        answers = _chosen(answers, answers["stability"] >= settings.stability_threshold)
    return answers


def _masks(model: SAM, found: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
    """Masks (N, H, W) at the size of the image, each where its crop lies."""
    logits, boxes = found["mask_logits"], found["crop_boxes"].tolist()
    masks = torch.zeros(len(logits), *size, dtype=torch.bool, device=logits.device)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        enlarged = full_size(logits[i][None, None], model.image_size, (y2 - y1, x2 - x1))[0, 0]
        masks[i, y1:y2, x1:x2] = enlarged - model.mask_threshold > 0
    return masks


def _chosen(found: Mapping[str, Tensor], which: Tensor) -> dict[str, Tensor]:
    return {name: value[which] for name, value in found.items()}


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def point_grid(points_per_side: int) -> Tensor:
    """Middles of equal squares, row by row.

    Args:
        points_per_side: n.

    Returns:
        (n * n, 2) float64, (x, y) in [0, 1].

    >>> point_grid(2)
    tensor([[0.2500, 0.2500],
            [0.7500, 0.2500],
            [0.2500, 0.7500],
            [0.7500, 0.7500]], dtype=torch.float64)
    """
    line = (torch.arange(points_per_side, dtype=torch.float64) + 0.5) / points_per_side
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def crop_boxes(size: tuple[int, int], layers: int, overlap: float) -> list[tuple[Box, int]]:
    """The whole image, and for each layer i from 1 a grid of 2^i x 2^i crops that overlap.

    Args:
        size: H and W.
        layers: of crops.
        overlap: of the first layer's crops, as a part of the image's shorter side; half of it in the next layer.

    Returns:
        Pairs of a box, xyxy in whole pixels, and its layer.

    >>> crop_boxes((10, 20), 1, 0.2)
    [((0, 0, 20, 10), 0), ((0, 0, 11, 6), 1), ((0, 4, 11, 10), 1), ((9, 0, 20, 6), 1), ((9, 4, 20, 10), 1)]
    """
    height, width = size
    boxes = [((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        shared = int(overlap * min(size) * 2 / count)
        h, w = (math.ceil((shared * (count - 1) + side) / count) for side in size)
        for column, row in product(range(count), repeat=2):
            x, y = (w - shared) * column, (h - shared) * row
            boxes.append(((x, y, min(x + w, width), min(y + h, height)), layer))
    return boxes


def stability_score(mask_logits: Tensor, offset: float = 1.0) -> Tensor:
    """IoU of the mask cut at `offset` above 0 with the one cut at `offset` below 0: one contains the other.

    Args:
        mask_logits: (..., H, W).
        offset: at least 0.

    Returns:
        (...) float32 in [0, 1]; 0 where the larger one is empty too.

    >>> stability_score(torch.tensor([[[5.0, 0.5, -5.0]], [[-5.0, -5.0, -5.0]]]))
    tensor([0.5000, 0.0000])
    """
    inner = (mask_logits > offset).sum((-2, -1)).float()
    outer = (mask_logits > -offset).sum((-2, -1)).float()
    return torch.where(outer > 0, ratio_or_one(inner, outer), 0.0)


def near_crop_edge(boxes: Tensor, crop: Box, size: tuple[int, int], distance: float) -> Tensor:
    """Which boxes end near an edge of their crop that is no edge of the image: there the object may go on.

    Args:
        boxes: (N, 4), xyxy in pixels of the image.
        crop: xyxy.
        size: H and W of the image.
        distance: up to which is near, in pixels.

    Returns:
        (N,) bool.

    >>> near_crop_edge(torch.tensor([[2.0, 2.0, 49.0, 30.0], [2.0, 2.0, 30.0, 30.0]]), (0, 0, 50, 50), (50, 100), 10)
    tensor([ True, False])
    """
    ends = boxes.new_tensor([crop, (0, 0, size[1], size[0])])
    of_crop, of_image = ((boxes - end).abs() <= distance for end in ends)
    return (of_crop & ~of_image).any(dim=1)


def without_small_regions(masks: Tensor, min_area: int, nms_threshold: float) -> tuple[Tensor, Tensor]:
    """Masks with small holes filled and small islands removed, and no two that have become alike.

    Args:
        masks: (N, H, W) bool.
        min_area: pixels; smaller holes and islands go.
        nms_threshold: of two masks whose boxes have a higher IoU one goes, rather one that was changed.

    Returns:
        The masks that remain (n, H, W), those that were not changed first; and their indexes (n,).
    """
    pairs = [remove_small_regions(mask, min_area) for mask in masks]
    if not pairs:
        return masks, torch.zeros(0, dtype=torch.int64, device=masks.device)
    masks = torch.stack([mask for mask, _ in pairs])
    unchanged = torch.tensor([float(not changed) for _, changed in pairs], device=masks.device)
    ends = (boxes_from_masks(masks) - torch.tensor([0, 0, 1, 1], device=masks.device)).clamp(min=0)
    kept = nms(ends, unchanged, nms_threshold)
    return masks[kept], kept


def remove_small_regions(mask: Tensor, min_area: int) -> tuple[Tensor, bool]:
    """Fill small holes, then remove small islands; of islands that are all small the largest stays.

    Args:
        mask: (H, W) bool.
        min_area: pixels; what is smaller goes. Pixels that touch by a corner are of one region.

    Returns:
        The mask, and whether there was a small region.

    >>> mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 0, 1], [1, 1, 1, 0, 0]]).bool()
    >>> remove_small_regions(mask, 2)[0].int()
    tensor([[1, 1, 1, 0, 0],
            [1, 1, 1, 0, 0],
            [1, 1, 1, 0, 0]], dtype=torch.int32)
    """
    holes, areas = _regions(~mask)
    small_holes = areas < min_area
    islands, areas = _regions(mask | small_holes[holes])
    small_islands = areas < min_area
    kept = ~small_islands
    kept[0] = False  # where no island is
    if len(areas) > 1 and not bool(kept.any()):
        kept[1 + areas[1:].argmax()] = True
    return kept[islands], bool(small_holes.any() | small_islands.any())


def _regions(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Regions of a mask, numbered from 1, and their areas; what is no region has the number 0, and is never small."""
    regions, count = connected_components(mask, connectivity=8)
    areas = regions.flatten().long().bincount(minlength=count + 1)
    areas[0] = mask.numel()
    return regions.long(), areas
