"""Segment everything: SAM is prompted with a grid of points, and its confident masks are kept.

Paper: Kirillov, Mintun, Ravi et al., "Segment Anything", ICCV 2023, arXiv 2304.02643, section 4, "Fully automatic
    stage", and appendix B.
Idea: 32 x 32 clicks with three masks each. A mask is kept if its predicted IoU is high, and if it is stable: it hardly
    changes when its logits are thresholded slightly higher or lower. Non-maximum suppression removes duplicates. For
    small objects the same is done on overlapping crops at a higher resolution; masks that may be cut off at the border
    of a crop are dropped. At the end, small holes are filled and small islands removed.
Simplified: as in the authors' code, masks of nearly the whole image are kept; the paper drops those of 95 % and more.
    Logits are upsampled only if the predicted IoU is high enough, which changes no result.
Shapes: an image (3, H, W) in [0, 1] -> dict of `boxes` (N, 4), `labels` (N,), all 1, because there are no classes,
    `scores` (N,), `masks` (N, H, W) bool; and for each mask `stability`, `point_coords` (N, 2), its click, and
    `crop_boxes` (N, 4).
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
from segedu.validation.numbers import check_integer, check_number

BATCH_SIZE = 8  # masks upsampled together: about as many as fit into a processor's cache
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Settings:
    """Prompts and thresholds; the defaults are the authors', chosen for ViT-H.

    The predicted IoU must be above `iou_threshold`, and the IoU of the masks thresholded at `stability_offset` above
    and below 0 at least `stability_threshold`. `nms_threshold` is for boxes of the same crop, `crop_nms_threshold` for
    boxes of different crops. Layer i of `crop_layers` has 2^i x 2^i crops, which overlap by `crop_overlap` of the
    image's shorter side in the first layer, with points_per_side / `crop_points_divisor`^i points per side. Masks whose
    box ends within `crop_edge` pixels of a crop's border are dropped. Holes and islands of less than `min_region_area`
    pixels are filled and removed; with 0 they are kept.
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
        for name in ("points_per_side", "points_per_batch", "crop_points_divisor"):
            check_integer(name, getattr(self, name))
        for name in ("crop_layers", "min_region_area"):
            check_integer(name, getattr(self, name), minimum=0)
        for name in ("stability_threshold", "nms_threshold", "crop_nms_threshold", "crop_overlap"):
            check_number(name, getattr(self, name), maximum=1)
        check_number("iou_threshold", self.iou_threshold, minimum=-math.inf, maximum=1)
        check_number("stability_offset", self.stability_offset)
        check_number("crop_edge", self.crop_edge)
        if self.points_per_side < self.crop_points_divisor**self.crop_layers:
            raise ValueError(
                f"points_per_side is {self.points_per_side}, expected at least "
                f"crop_points_divisor ** crop_layers = {self.crop_points_divisor**self.crop_layers}"
            )


@torch.no_grad()
def segment_everything(model: SAM, image: Tensor, settings: Settings | None = None) -> dict[str, Tensor]:
    """All masks of an image that SAM is confident about.

    Args:
        model: in evaluation mode.
        image: (3, H, W) in [0, 1].
        settings: None: the authors'.

    Returns:
        `boxes` (N, 4), `labels` (N,), `scores` (N,), `masks` (N, H, W), `stability` (N,), `point_coords` (N, 2) and
        `crop_boxes` (N, 4), xyxy. Highest score first, but with crops the smallest crops first. N may be 0.
    """
    settings = settings or Settings()
    check_images(image[None] if isinstance(image, Tensor) else image, 3)
    size = image.shape[-2:]
    crops = crop_boxes(size, settings.crop_layers, settings.crop_overlap)
    preds = _concatenate([_segment_crop(model, image, box, layer, settings) for box, layer in crops])
    if len(crops) > 1:
        smallest_first = 1 / box_area(preds["crop_boxes"].float())
        preds = _select(preds, nms(preds["nms_boxes"], smallest_first, settings.crop_nms_threshold))
    masks = _masks(model, preds, size)
    if settings.min_region_area:
        threshold = max(settings.nms_threshold, settings.crop_nms_threshold)
        masks, keep = postprocess_small_regions(masks, settings.min_region_area, threshold)
        preds = _select(preds, keep)
    names = ("scores", "stability", "point_coords", "crop_boxes")
    labels = torch.ones(len(masks), dtype=torch.int64, device=image.device)
    return {"boxes": boxes_from_masks(masks), "labels": labels, "masks": masks, **{name: preds[name] for name in names}}


def _segment_crop(model: SAM, image: Tensor, box: Box, layer: int, settings: Settings) -> dict[str, Tensor]:
    """Masks of one crop, as logits, with the other results of `segment_everything` and `nms_boxes` to compare."""
    x1, y1, x2, y2 = box
    size = (y2 - y1, x2 - x1)
    image_embeddings = model.encode(image[None, :, y1:y2, x1:x2])
    points = point_grid(int(settings.points_per_side / settings.crop_points_divisor**layer)).to(image.device)
    points = points * points.new_tensor([size[1], size[0]])
    batches = []
    for batch in points.split(settings.points_per_batch):
        labels = torch.ones(1, len(batch), 1, device=batch.device)
        outputs = model.decode(image_embeddings, size, point_coords=batch[None, :, None], point_labels=labels)
        logits, scores = outputs["mask_logits"][0], outputs["iou_scores"][0]  # (n, M, h, w), (n, M)
        preds = {
            "mask_logits": logits.flatten(0, 1),
            "scores": scores.flatten(),
            "point_coords": batch.repeat_interleave(scores.shape[1], dim=0),
        }
        if settings.iou_threshold > 0:
            preds = _select(preds, preds["scores"] > settings.iou_threshold)
        batches.append(_filter_stable(model, preds, size, settings))
    preds = _concatenate(batches)
    corner = points.new_tensor([x1, y1])
    preds["nms_boxes"] = preds["nms_boxes"] + corner.repeat(2).to(preds["nms_boxes"])
    preds["point_coords"] = preds["point_coords"] + corner
    preds["crop_boxes"] = torch.tensor(box, device=image.device).expand(len(preds["scores"]), 4)
    preds = _select(preds, ~near_crop_edge(preds["nms_boxes"], box, image.shape[-2:], settings.crop_edge))
    return _select(preds, nms(preds["nms_boxes"], preds["scores"], settings.nms_threshold))


def _filter_stable(
    model: SAM, preds: dict[str, Tensor], size: tuple[int, int], settings: Settings
) -> dict[str, Tensor]:
    """Keep the stable ones of the masks with a high predicted IoU, and compute their boxes."""
    stability, boxes = [], []
    for logits in preds["mask_logits"].split(BATCH_SIZE):
        logits = full_size(logits[:, None], model.image_size, size)[:, 0] - model.mask_threshold  # (n, H, W)
        stability.append(stability_score(logits, settings.stability_offset))
        # Paper: in the authors' code, boxes for comparisons end at the last pixel, not after it.
        boxes.append((boxes_from_masks(logits > 0) - logits.new_tensor([0, 0, 1, 1])).clamp(min=0))
    scores = preds["scores"]
    preds = preds | {
        "stability": torch.cat([scores.new_zeros(0), *stability]),
        "nms_boxes": torch.cat([scores.new_zeros(0, 4), *boxes]),
    }
    if settings.stability_threshold > 0:
        preds = _select(preds, preds["stability"] >= settings.stability_threshold)
    return preds


def _masks(model: SAM, preds: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
    """Masks (N, H, W) at the size of the image, each at the position of its crop."""
    logits, boxes = preds["mask_logits"], preds["crop_boxes"].tolist()
    masks = torch.zeros(len(logits), *size, dtype=torch.bool, device=logits.device)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        upsampled = full_size(logits[i][None, None], model.image_size, (y2 - y1, x2 - x1))[0, 0]
        masks[i, y1:y2, x1:x2] = upsampled - model.mask_threshold > 0
    return masks


def _select(preds: Mapping[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    return {name: value[index] for name, value in preds.items()}


def _concatenate(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def point_grid(points_per_side: int) -> Tensor:
    """Centres (n * n, 2) of n x n equal squares, row by row: float64, (x, y) in [0, 1].

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
    """The whole image, and for each layer i from 1 a grid of 2^i x 2^i overlapping crops.

    Args:
        size: H and W.
        layers: number of layers of crops.
        overlap: of the first layer's crops, relative to the image's shorter side; halved in every further layer.

    Returns:
        Pairs of a box, xyxy in integer pixels, and its layer.

    >>> crop_boxes((10, 20), 1, 0.2)
    [((0, 0, 20, 10), 0), ((0, 0, 11, 6), 1), ((0, 4, 11, 10), 1), ((9, 0, 20, 6), 1), ((9, 4, 20, 10), 1)]
    """
    height, width = size
    boxes = [((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap_pixels = int(overlap * min(size) * 2 / count)
        h, w = (math.ceil((overlap_pixels * (count - 1) + side) / count) for side in size)
        for column, row in product(range(count), repeat=2):
            x, y = (w - overlap_pixels) * column, (h - overlap_pixels) * row
            boxes.append(((x, y, min(x + w, width), min(y + h, height)), layer))
    return boxes


def stability_score(mask_logits: Tensor, offset: float = 1.0) -> Tensor:
    """IoU of the masks thresholded at `offset` above and below 0, of which one contains the other.

    Args:
        mask_logits: (..., H, W).
        offset: at least 0.

    Returns:
        (...) float32 in [0, 1]; 0 if both masks are empty.

    >>> stability_score(torch.tensor([[[5.0, 0.5, -5.0]], [[-5.0, -5.0, -5.0]]]))
    tensor([0.5000, 0.0000])
    """
    inner = (mask_logits > offset).sum((-2, -1)).float()
    outer = (mask_logits > -offset).sum((-2, -1)).float()
    return torch.where(outer > 0, ratio_or_one(inner, outer), 0.0)


def near_crop_edge(boxes: Tensor, crop: Box, size: tuple[int, int], distance: float) -> Tensor:
    """Whether boxes end near an edge of their crop that is not an edge of the image, where the object may be cut off.

    Args:
        boxes: (N, 4), xyxy in pixels of the image.
        crop: xyxy.
        size: H and W of the image.
        distance: largest distance from an edge, in pixels.

    Returns:
        (N,) bool.

    >>> near_crop_edge(torch.tensor([[2.0, 2.0, 49.0, 30.0], [2.0, 2.0, 30.0, 30.0]]), (0, 0, 50, 50), (50, 100), 10)
    tensor([ True, False])
    """
    near_crop, near_image = (
        (boxes - boxes.new_tensor(edges)).abs() <= distance for edges in (crop, (0, 0, size[1], size[0]))
    )
    return (near_crop & ~near_image).any(dim=1)


def postprocess_small_regions(masks: Tensor, min_area: int, nms_threshold: float) -> tuple[Tensor, Tensor]:
    """Fill small holes, remove small islands, and drop masks that have become duplicates.

    Args:
        masks: (N, H, W) bool.
        min_area: pixels; smaller holes and islands are removed.
        nms_threshold: of masks whose boxes have a higher IoU one is dropped, preferably one that was changed.

    Returns:
        The remaining masks (n, H, W), unchanged ones first, and their indices (n,).
    """
    pairs = [remove_small_regions(mask, min_area) for mask in masks]
    if not pairs:
        return masks, torch.zeros(0, dtype=torch.int64, device=masks.device)
    masks = torch.stack([mask for mask, _ in pairs])
    unchanged = torch.tensor([float(not changed) for _, changed in pairs], device=masks.device)
    boxes = (boxes_from_masks(masks) - torch.tensor([0, 0, 1, 1], device=masks.device)).clamp(min=0)
    keep = nms(boxes, unchanged, nms_threshold)
    return masks[keep], keep


def remove_small_regions(mask: Tensor, min_area: int) -> tuple[Tensor, bool]:
    """Fill small holes, then remove small islands; if all islands are small, the largest is kept.

    Args:
        mask: (H, W) bool.
        min_area: pixels; smaller regions are removed. Pixels that touch at a corner belong to one region.

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
    keep = ~small_islands
    keep[0] = False  # outside all islands
    if len(areas) > 1 and not bool(keep.any()):
        keep[1 + areas[1:].argmax()] = True
    return keep[islands], bool(small_holes.any() | small_islands.any())


def _regions(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Label the regions of a mask from 1 and measure their areas; the label 0, outside, counts as large."""
    regions, count = connected_components(mask, connectivity=8)
    areas = regions.flatten().long().bincount(minlength=count + 1)
    areas[0] = mask.numel()
    return regions.long(), areas
