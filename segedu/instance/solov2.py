"""SOLOv2: each grid cell predicts a class and the 1x1 convolution that segments its object from shared features.

Paper: Wang, Zhang, Kong, Li, Shen, "SOLOv2: Dynamic and Fast Instance Segmentation", NeurIPS 2020, arXiv 2003.10152;
    the grids and their targets are those of SOLO, Wang et al., ECCV 2020, arXiv 1912.04488.
Idea: Lay a grid over the image; the cell that contains the centre of an object is responsible for it. There are no
    boxes, no anchors and no regions. One branch predicts the class of a cell, another a vector, which is the kernel of
    a 1x1 convolution over features that all objects share; the result is the mask. All masks of an image are computed
    by one matrix product, and Matrix NMS lowers the scores of duplicates in one step.
Simplified: kernels of 1x1 only (the paper's choice too), and no deformable convolutions.
Shapes: images (B, 3, H, W), any H and W -> dict of `class_logits` and `kernels`, lists with (B, K - 1, S, S) and
    (B, E, S, S) for each grid of S x S cells, `mask_features` (B, E, H / 4, W / 4), `image_size` and `sizes`.
    `postprocess`: the dict -> B dicts of `boxes`, `labels` from 1 to K - 1, `scores` and `masks`.
Quality: network, losses and detections equal mmdet 3.3.0's at the same weights (a record). From scratch on `shapes`:
    mask AP50 at least 0.88 over three seeds, 38 CPU-s.
Course: 14-top-down
Lab: 14_top_down
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.resnet import resnet50
from segedu.layers.instance_targets import Size, check_targets, resize_masks
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.losses.focal import sigmoid_focal_loss
from segedu.losses.masks import mask_dice_loss
from segedu.ops.masks import boxes_from_masks
from segedu.ops.nms import matrix_nms
from segedu.validation.images import check_images, check_sizes
from segedu.validation.numbers import check_integer, check_length
from segedu.validation.tensors import check_keys

GRIDS = (40, 36, 24, 16, 12)  # cells along each side, for P2 to P6
RANGES = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))  # square root of the area of a grid's boxes
CENTRE_FRACTION = 0.2  # part of an object's box, about its centre, whose cells are responsible
MASK_WEIGHT = 3.0  # lambda of equation 5 of SOLO
MIN_AREAS = (8, 8, 16, 32, 32)  # pixels of the mask features; smaller masks of a grid are dropped
KEYS = ("class_logits", "kernels", "mask_features", "image_size", "sizes")


def append_coordinates(features: Tensor) -> Tensor:
    """Append channels x and y from -1 to 1 to features (B, C, H, W), because a convolution alone ignores positions."""
    batch, _, *size = features.shape
    y, x = (torch.linspace(-1, 1, length, dtype=features.dtype, device=features.device) for length in size)
    xy = torch.stack([x.expand(size), y[:, None].expand(size)])
    return torch.cat([features, xy.expand(batch, 2, *size)], dim=1)  # (B, C + 2, H, W)


def _conv_norm(in_channels: int, out_channels: int, groups: int, kernel_size: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(groups, out_channels), nn.ReLU())


def _resize(features: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)


class MaskFeatures(nn.Module):
    """Features for the masks of all objects, large and small: the paper's unified representation (figure 2c).

    Each level of the pyramid is upsampled step by step, a convolution before each step, to the size of the finest; the
    sum of all goes through one more convolution. The coarsest level also gets the coordinates.

    Args:
        in_channels: of each level.
        levels: number of levels.
        width: channels inside.
        out_channels: E.
        groups: of the group normalisations.
    """

    def __init__(self, in_channels: int, levels: int, width: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for i in range(levels):
            first = in_channels + 2 * (i > 0 and i == levels - 1)
            inputs = (first, *[width] * (max(i, 1) - 1))
            self.levels.append(nn.ModuleList(_conv_norm(channels, width, groups) for channels in inputs))
        self.project = _conv_norm(width, out_channels, groups, kernel_size=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        total = self.levels[0][0](features[0])
        for i in range(1, len(self.levels)):
            x = append_coordinates(features[i]) if i == len(self.levels) - 1 else features[i]
            for step, convolution in enumerate(self.levels[i]):
                x = _resize(convolution(x), features[i - 1 - step].shape[-2:])
            total = total + x
        return self.project(total)  # (B, E, h, w)


class SOLOv2(nn.Module):
    """Category branch, kernel branch and mask features on a feature pyramid.

    Args:
        backbone: such as `FPN`; one grid for each of its levels.
        num_classes: K, with the background: the class logits have K - 1 channels.
        grids: cells along each side of each grid.
        width: channels of the category and the kernel branch.
        depth: convolutions of each branch.
        mask_width: channels inside the mask features.
        kernel_channels: E, channels of the mask features and of a kernel.
        groups: of the group normalisations.
    """

    def __init__(
        self,
        backbone: FPN,
        num_classes: int,
        grids: Sequence[int] = GRIDS,
        width: int = 512,
        depth: int = 4,
        mask_width: int = 128,
        kernel_channels: int = 256,
        groups: int = 32,
    ) -> None:
        super().__init__()
        levels, channels = len(backbone.strides), backbone.channels[0]
        check_integer("num_classes", num_classes, minimum=2)
        if len(grids) != levels or min(grids) < 1 or levels < 2:
            raise ValueError(
                f"grids is {tuple(grids)}, expected one integer of at least 1 for each of the "
                f"{levels} levels of the backbone, which needs at least 2"
            )
        self.backbone = backbone
        self.grids = tuple(grids)
        self.num_classes = num_classes
        deeper = [width] * (depth - 1)
        self.class_convs = nn.Sequential(*(_conv_norm(n, width, groups) for n in (channels, *deeper)))
        self.class_logits = nn.Conv2d(width, num_classes - 1, 3, padding=1)
        self.kernel_convs = nn.Sequential(*(_conv_norm(n, width, groups) for n in (channels + 2, *deeper)))
        self.kernels = nn.Conv2d(width, kernel_channels, 3, padding=1)
        # without P6, the last of five levels, which the masks of large objects do not need
        self.mask_features = MaskFeatures(channels, min(levels, 4), mask_width, kernel_channels, groups)
        for name, parameter in self.named_parameters():
            if not name.startswith("backbone.") and parameter.ndim == 4:
                nn.init.normal_(parameter, std=0.01)
        nn.init.zeros_(self.kernels.bias)
        nn.init.constant_(
            self.class_logits.bias, -math.log((1 - 0.01) / 0.01)
        )  # initially, every class has a probability of 0.01

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> dict[str, Any]:
        check_images(images, self.backbone.body.in_channels)
        sizes = check_sizes(sizes, images)
        features = self.backbone(images)
        # SOLO: P2 has far more pixels than its grid has cells, and P6 far fewer
        half = [max(length // 2, 1) for length in features[0].shape[-2:]]
        last = features[-2] if len(features) > 2 else features[-1]
        resized = [_resize(features[0], half), *features[1:-1], _resize(features[-1], last.shape[-2:])]
        logits, kernels = [], []
        for level, grid in zip(resized, self.grids, strict=True):
            grid_features = _resize(append_coordinates(level), (grid, grid))  # (B, C + 2, S, S)
            logits.append(self.class_logits(self.class_convs(grid_features[:, :-2])))
            kernels.append(self.kernels(self.kernel_convs(grid_features)))
        outputs = {"class_logits": logits, "kernels": kernels, "mask_features": self.mask_features(features)}
        return onnx_outputs({**outputs, "image_size": tuple(images.shape[-2:]), "sizes": sizes})


def solov2_resnet50(num_classes: int = 81, **options: Any) -> SOLOv2:
    """The paper's network with 50 layers, with random weights; `keys_of_mmdet` renames published ones.

    Args:
        num_classes: K, with the background; COCO has 80 classes of objects.
        **options: of `SOLOv2`.
    """
    body = resnet50(normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    return SOLOv2(FPN(body, extra=PoolLevel()), num_classes, **options)


def responsible_cells(
    target: Mapping[str, Tensor], image_size: Size, grid: int, scale_range: tuple[float, float]
) -> Tensor:
    """The object for which each cell of a grid is responsible.

    An object whose box has a side (square root of its area) within the range takes the cells of the middle of its
    box, a fifth of it along each axis about the centre of mass of the *mask*, and at most 3 x 3 cells.

    Args:
        target: `boxes` (N, 4) and `masks` (N, h, w) of one image.
        image_size: (H, W) of the padded image, which the grid covers.
        grid: S, cells along each side.
        scale_range: smallest and largest side of an object of this grid.

    Returns:
        (S, S) int64: the index of the object, or -1. Paper: silent about cells of two objects; here the smaller one
        gets them. Objects without a pixel get none.
    """
    boxes, masks = target["boxes"], target["masks"]
    owner = torch.full((grid, grid), -1, dtype=torch.int64, device=masks.device)
    sides = (boxes[:, 2:] - boxes[:, :2]).double()  # (N, 2): width, height
    scale = sides.prod(1).sqrt()
    in_range = (scale >= scale_range[0]) & (scale <= scale_range[1]) & masks.flatten(1).any(1)
    for n in scale.argsort(descending=True).tolist():  # the smaller ones overwrite
        if not in_range[n]:
            continue
        ranges = []
        for axis in (0, 1):  # y, x
            centre = masks[n].nonzero()[:, axis].double().mean().item() + 0.5
            half_side = CENTRE_FRACTION / 2 * sides[n, 1 - axis].item()
            first, middle, last = (
                math.floor(position / image_size[axis] * grid)
                for position in (centre - half_side, centre, centre + half_side)
            )
            ranges.append(slice(max(first, middle - 1, 0), min(last, middle + 1, grid - 1) + 1))
        owner[ranges[0], ranges[1]] = n
    return owner


def solov2_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    ranges: Sequence[tuple[float, float]] = RANGES,
    mask_weight: float = MASK_WEIGHT,
) -> dict[str, Tensor]:
    """Focal loss of all cells, and Dice loss of the masks of responsible cells.

    Args:
        outputs: of `SOLOv2`.
        targets: B dicts of `boxes` (N, 4), `labels` (N,) from 1 to K - 1 and `masks` (N, h, w); N may be 0.
        ranges: of the square root of the area of a box, for each grid; they overlap, so an object may have two grids.
        mask_weight: of the Dice loss.

    Returns:
        Scalars `class` (a sum over cells, divided by the number of responsible cells + 1), `mask` (weighted mean over
        responsible cells, 0 if there is none) and `loss`, their sum.
    """
    check_keys("outputs", outputs, KEYS)
    logits, features, kernels = outputs["class_logits"], outputs["mask_features"], outputs["kernels"]
    targets = check_targets(targets, outputs["sizes"], logits[0].shape[1] + 1, masks=True)
    check_length("ranges", ranges, len(logits), of="grid")
    class_sum, mask_sum, count = features.new_zeros(()), 0 * features.sum(), 0
    for b, target in enumerate(targets):
        gt_masks = resize_masks(target["masks"], outputs["image_size"], features.shape[-2:])
        for level_logits, level_kernels, scale_range in zip(logits, kernels, ranges, strict=True):
            owner = responsible_cells(target, outputs["image_size"], level_logits.shape[-1], scale_range)
            responsible = owner >= 0
            class_target = torch.zeros_like(level_logits[b])
            class_target[
                target["labels"][owner[responsible]] - 1, responsible.nonzero()[:, 0], responsible.nonzero()[:, 1]
            ] = 1
            class_sum = class_sum + sigmoid_focal_loss(
                level_logits[b], class_target, ignore_index=None, reduction="sum"
            )
            if responsible.any():
                masks = dynamic_masks(level_kernels[b][:, responsible].T, features[b])
                mask_sum = mask_sum + len(masks) * mask_dice_loss(masks, gt_masks[owner[responsible]])
                count += len(masks)
    class_loss, mask_loss = class_sum / (count + 1), mask_weight * mask_sum / max(count, 1)
    return {"class": class_loss, "mask": mask_loss, "loss": class_loss + mask_loss}


def dynamic_masks(kernels: Tensor, features: Tensor) -> Tensor:
    """Logits of masks (N, h, w): a 1x1 convolution of features (E, h, w) with each of the kernels (N, E).

    >>> dynamic_masks(torch.tensor([[1.0, 2.0]]), torch.tensor([[[3.0]], [[5.0]]]))
    tensor([[[13.]]])
    """
    return torch.einsum("ne,ehw->nhw", kernels, features)


def point_nms(scores: Tensor) -> Tensor:
    """Set scores (B, K, S, S) to 0 where the left, upper or upper left neighbour has a larger score."""
    return scores * (F.max_pool2d(scores, 2, stride=1, padding=1)[..., :-1, :-1] == scores)


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Any],
    score_threshold: float = 0.1,
    mask_threshold: float = 0.5,
    update_threshold: float = 0.05,
    *,
    sigma: float = 2.0,
    topk_candidates: int = 500,
    max_detections: int = 100,
    min_areas: Sequence[int] = MIN_AREAS,
) -> list[dict[str, Tensor]]:
    """Objects of each image: candidate cells, their masks, and Matrix NMS.

    Args:
        outputs: of `SOLOv2`.
        score_threshold: of the class of a cell.
        mask_threshold: of the pixels of a mask.
        update_threshold: of the score after Matrix NMS.
        sigma: of Matrix NMS.
        topk_candidates: maximum number that enter Matrix NMS, the best ones.
        max_detections: maximum number of objects per image.
        min_areas: for each grid, masks need more pixels than this, at the resolution of the mask features.

    Returns:
        B dicts of `boxes` (N, 4), `labels` (N,), `scores` (N,) and `masks` (N, h, w), best first; (h, w) as in `sizes`.
        The score is that of the class times the mean of the mask's probabilities within the mask, lowered by NMS.
    """
    check_keys("outputs", outputs, KEYS)
    if len(min_areas) < (grids := len(outputs["class_logits"])):
        raise ValueError(f"min_areas is {tuple(min_areas)}, expected at least {grids} numbers, one per grid")
    if any(bool(tensor.isnan().any()) for tensor in (*outputs["class_logits"], outputs["mask_features"])):
        raise ValueError("outputs contains NaN, expected finite values")
    results = []
    for b, size in enumerate(outputs["sizes"]):
        scores, labels, kernels, areas = _candidates(outputs, b, score_threshold, min_areas)
        probabilities = dynamic_masks(kernels, outputs["mask_features"][b]).sigmoid()
        masks = probabilities > mask_threshold
        area = masks.flatten(1).sum(1)
        scores = scores * (probabilities * masks).flatten(1).sum(1) / area.clamp(min=1)  # "maskness"
        keep = (area > areas).nonzero().flatten()
        keep = keep[scores[keep].argsort(descending=True, stable=True)[:topk_candidates]]
        scores, labels, probabilities = scores[keep], labels[keep], probabilities[keep]
        scores = matrix_nms(masks[keep], labels, scores, sigma)
        order = scores.argsort(descending=True, stable=True)[:max_detections]
        order = order[scores[order] >= update_threshold]
        resized = (
            _resize(probabilities[order][:, None], outputs["image_size"])[:, 0]
            if len(order)
            else probabilities.new_zeros(0, *size)
        )
        masks = resized[:, : size[0], : size[1]] > mask_threshold
        boxes = boxes_from_masks(masks).to(probabilities.dtype)
        results.append({"boxes": boxes, "labels": labels[order], "scores": scores[order], "masks": masks})
    return results


def _candidates(
    outputs: Mapping[str, Any], b: int, threshold: float, min_areas: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Score, label, kernel and minimum area of every cell and class above the threshold, of all grids."""
    parts = []
    for logits, kernels, area in zip(outputs["class_logits"], outputs["kernels"], min_areas, strict=False):
        scores = point_nms(logits[b : b + 1].sigmoid())[0]
        label, y, x = (scores > threshold).nonzero().unbind(1)
        parts.append((scores[label, y, x], label + 1, kernels[b][:, y, x].T, torch.full_like(label, area)))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


_MMDET = (
    (r"^backbone\.", "backbone.body."),
    (r"^neck\.lateral_convs\.(\d)\.conv\.", r"backbone.fpn.inner_blocks.\1.0."),
    (r"^neck\.fpn_convs\.(\d)\.conv\.", r"backbone.fpn.layer_blocks.\1.0."),
    (r"^mask_head\.mask_feature_head\.convs_all_levels\.(\d)\.conv(\d)\.", r"mask_features.levels.\1.\2."),
    (r"^mask_head\.mask_feature_head\.conv_pred\.", "mask_features.project."),
    (r"^mask_head\.cls_convs\.", "class_convs."),
    (r"^mask_head\.kernel_convs\.", "kernel_convs."),
    (r"^mask_head\.conv_cls\.", "class_logits."),
    (r"^mask_head\.conv_kernel\.", "kernels."),
    (r"^((mask_features|class_convs|kernel_convs)\..*)\.conv\.", r"\1.0."),
    (r"^((mask_features|class_convs|kernel_convs)\..*)\.gn\.", r"\1.1."),
)


def keys_of_mmdet(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of mmdet's SOLOv2 (without deformable convolutions) with the keys of `SOLOv2`.

    The names are those of the networks of mmdet 3.3.0; its published files were not opened. Unknown keys stay as they
    are, so that a strict load reports them.
    """
    renamed = {}
    for key, value in state_dict.items():
        for pattern, ours in _MMDET:
            key = re.sub(pattern, ours, key)
        renamed[key] = value
    return renamed
