"""Anchors: reference boxes on a regular grid, their box deltas, and their matching with ground-truth boxes.

Ren et al. 2015 (Faster R-CNN, arXiv 1506.01497), section 3.1: every location of a feature map has A anchors of several
sizes and aspect ratios. For each anchor, a network predicts whether it is an object, and the deltas to its box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from segedu.validation.boxes import check_boxes
from segedu.validation.exporting import is_exporting
from segedu.validation.numbers import check_integer, check_number
from segedu.validation.tensors import check_dtype, check_floats

BACKGROUND, NEITHER = -1, -2  # values of `match_anchors` for anchors that are not matched with a ground truth
# A side becomes at most 62.5 times as long as that of its anchor: early in training, exp would overflow.
MAX_LOG_SCALE = math.log(1000 / 16)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float], rounded: bool = False) -> Tensor:
    """The anchors of one location, centred at 0: every combination of a size and an aspect ratio.

    Args:
        sizes: side in pixels of the square with the same area.
        ratios: height over width. An anchor of size s and ratio r is s √r high and s / √r wide.
        rounded: whether corners are rounded to integers, as in torchvision, whose weights expect them.

    Returns:
        (R * S, 4), xyxy, in the default float type: all sizes of the first ratio, then those of the next.

    A square, and an anchor of the same area that is four times as high as wide.

    >>> cell_anchors([8], [1, 4])
    tensor([[-4., -4.,  4.,  4.],
            [-2., -8.,  2.,  8.]])
    """
    for name, values in (("sizes", sizes), ("ratios", ratios)):
        if not len(values) or not all(0 < value < math.inf for value in values):
            raise ValueError(f"{name} is {tuple(values)}, expected at least one value, all finite and above 0")
    root = torch.tensor(ratios, dtype=torch.float64).sqrt()[:, None]  # (R, 1)
    size = torch.tensor(sizes, dtype=torch.float64)  # (S,)
    width, height = (size / root).flatten(), (size * root).flatten()
    anchors = torch.stack([-width, -height, width, height], dim=1) / 2
    return (anchors.round() if rounded else anchors).to(torch.get_default_dtype())


def grid_anchors(base_anchors: Tensor, size: tuple[int, int], stride: float | tuple[float, float]) -> Tensor:
    """The anchors of all locations of a feature map; those of row i, column j are shifted by (stride * j, stride * i).

    The first location is at the corner of the image, as in torchvision. To centre anchors on the pixels that a feature
    covers, pass ``base_anchors + stride / 2``.

    Args:
        base_anchors: (A, 4), xyxy, the anchors of one location.
        size: (H, W) of the feature map.
        stride: pixels between neighbouring locations, or (vertical, horizontal) if these differ.

    Returns:
        (H * W * A, 4), xyxy, in the order of ``head.permute(0, 2, 3, 1).reshape(B, H * W * A, -1)``: the anchors of one
        location follow each other, row by row.

    >>> grid_anchors(torch.tensor([[-1.0, -1.0, 1.0, 1.0]]), (1, 2), stride=4)
    tensor([[-1., -1.,  1.,  1.],
            [ 3., -1.,  5.,  1.]])
    """
    base_anchors = check_boxes("base_anchors", base_anchors)
    if len(size) != 2 or min(size) < 0:
        raise ValueError(f"size is {tuple(size)}, expected (H, W) of the feature map, integers of at least 0")
    down, right = stride if isinstance(stride, (tuple, list)) else (stride, stride)
    if not (0 < down < math.inf and 0 < right < math.inf):
        raise ValueError(f"stride is {stride}, expected a number of pixels above 0, or (vertical, horizontal)")
    y = torch.arange(size[0], dtype=base_anchors.dtype, device=base_anchors.device) * down
    x = torch.arange(size[1], dtype=base_anchors.dtype, device=base_anchors.device) * right
    y, x = torch.meshgrid(y, x, indexing="ij")  # (H, W)
    shifts = torch.stack([x, y, x, y], dim=-1)  # (H, W, 4)
    return (shifts[:, :, None] + base_anchors).reshape(-1, 4)


def encode_boxes(boxes: Tensor, anchors: Tensor, weights: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """Compute the deltas that turn anchors into boxes: the regression targets of a network.

    Girshick et al. 2014 (R-CNN, arXiv 1311.2524), equations 6 to 9: the shift of the centre is divided by the anchor's
    sides, and for the sides the logarithm of their ratio is used. So deltas do not depend on the size of an object.

    Args:
        boxes: (N, 4), xyxy, one box for each anchor, with an area.
        anchors: (N, 4), xyxy, with an area.
        weights: factors of the deltas (x, y, width, height), above 0. Factors of 10, 10, 5, 5 scale typical deltas to
            about 1.

    Returns:
        (N, 4) deltas (x, y, width, height).

    The centre shifts by a quarter of the width to the right; the box is twice as wide: log 2 = 0.693.

    >>> encode_boxes(torch.tensor([[-1.0, 0.0, 7.0, 2.0]]), torch.tensor([[0.0, 0.0, 4.0, 2.0]]))
    tensor([[0.2500, 0.0000, 0.6931, 0.0000]])
    """
    boxes, anchors = check_boxes("boxes", boxes), check_boxes("anchors", anchors)
    if boxes.shape != anchors.shape:
        raise ValueError(f"boxes has shape {tuple(boxes.shape)}, expected one for each of {len(anchors)} anchors")
    _check_weights(weights)
    centre, side = _centre_and_side(boxes, "boxes")
    anchor_centre, anchor_side = _centre_and_side(anchors, "anchors")
    deltas = torch.cat([(centre - anchor_centre) / anchor_side, torch.log(side / anchor_side)], dim=1)
    return deltas * deltas.new_tensor(weights)


def decode_boxes(
    deltas: Tensor, anchors: Tensor, weights: Sequence[float] = (1, 1, 1, 1), max_log_scale: float = MAX_LOG_SCALE
) -> Tensor:
    """Apply predicted deltas to anchors: the inverse of `encode_boxes`.

    Args:
        deltas: (..., 4).
        anchors: (..., 4), xyxy, of a shape that broadcasts to that of the deltas: for example (A, 4) for the deltas
            (B, A, 4) of a batch, or (N, 1, 4) for the deltas (N, K, 4) of each class.
        weights: those of `encode_boxes`.
        max_log_scale: the deltas of width and height, after division by the weights, are clamped to this maximum.

    Returns:
        (..., 4) boxes, xyxy, with the shape of the deltas, in at least float32. They may extend beyond the image.

    >>> decode_boxes(torch.tensor([[0.25, 0.0, math.log(2), 0.0]]), torch.tensor([[0.0, 0.0, 4.0, 2.0]]))
    tensor([[-1.,  0.,  7.,  2.]])
    """
    _check_deltas(deltas, anchors)
    _check_weights(weights)
    check_boxes("anchors", anchors.reshape(-1, 4))
    deltas = deltas.to(torch.promote_types(deltas.dtype, torch.float32))  # half precision has no pixel 2049
    anchors = anchors.to(deltas.dtype)
    side = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + side / 2
    deltas = deltas / deltas.new_tensor(weights)
    centre = centre + deltas[..., :2] * side
    half = side * deltas[..., 2:].clamp(max=max_log_scale).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def match_anchors(iou: Tensor, negative_iou: float, positive_iou: float, force_best: bool = False) -> Tensor:
    """Assign to each anchor the ground truth with the largest IoU, if that IoU is large enough.

    Ren et al. 2015, section 3.1.2. The gap between the two thresholds excludes anchors from the loss that are neither
    object nor background.

    Args:
        iou: (N, A), of every ground truth with every anchor.
        negative_iou: an anchor whose best IoU is below this threshold is background.
        positive_iou: an anchor whose best IoU is at least this threshold is an object.
        force_best: whether the anchors with the largest IoU of each ground truth are objects too, however small that
            IoU is. Each is assigned to the ground truth with which it has the largest IoU; where that is a different
            one, an object remains without an anchor. An IoU of 0 forces nothing; in torchvision it makes an object
            of every anchor that does not overlap that ground truth.

    Returns:
        (A,) int64: the row of the ground truth, -1 for background, -2 for neither. Without ground truth, all are -1.

    One ground truth: the IoU of its best anchor is too small, but the anchor is forced.

    >>> match_anchors(torch.tensor([[0.1, 0.4, 0.6]]), negative_iou=0.3, positive_iou=0.7)
    tensor([-1, -2, -2])
    >>> match_anchors(torch.tensor([[0.1, 0.4, 0.6]]), negative_iou=0.3, positive_iou=0.7, force_best=True)
    tensor([-1, -2,  0])
    """
    check_floats("iou", iou, "N? A?")
    if not is_exporting() and iou.isnan().any():
        raise ValueError("iou contains NaN, expected values in [0, 1]")
    if not 0 <= negative_iou <= positive_iou <= 1:
        raise ValueError(
            f"negative_iou and positive_iou are {negative_iou} and {positive_iou},"
            " expected 0 <= negative_iou <= positive_iou <= 1"
        )
    N, A = iou.shape
    if N == 0 or A == 0:
        return torch.full((A,), BACKGROUND, dtype=torch.int64, device=iou.device)
    best, row = iou.max(dim=0)  # (A,)
    matches = torch.where(best >= positive_iou, row, NEITHER)
    matches[best < negative_iou] = BACKGROUND
    if force_best:
        largest = iou.max(dim=1, keepdim=True).values  # (N, 1): several anchors may have it
        forced = ((iou == largest) & (largest > 0)).any(dim=0)  # (A,)
        matches[forced] = row[forced]
    return matches


def sample_matches(
    matches: Tensor, count: int, positive_fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Sample anchors for the loss, so that the background, which is nearly everywhere, does not outweigh the objects.

    Ren et al. 2015, section 3.1.3: 256 anchors of an image, at most half of them objects. If there are fewer
    objects, more background is sampled.

    Args:
        matches: (A,) int64, from `match_anchors`.
        count: number of samples, if there are enough anchors.
        positive_fraction: maximum fraction of positive samples (objects), in [0, 1].
        generator: random numbers; None for torch's own. On the CPU, the samples are those of torchvision's sampler.

    Returns:
        (P,) and (Q,) int64 indices of objects and of background, each in ascending order, P + Q <= count.

    Half of four samples may be objects. There is only one object, so three samples are background.

    >>> sample_matches(torch.tensor([-1, 0, -1, -2, -1]), count=4, positive_fraction=0.5)
    (tensor([1]), tensor([0, 2, 4]))
    """
    check_dtype("matches", matches, torch.int64, "A?")
    check_integer("count", count, 0)
    check_number("positive_fraction", positive_fraction, maximum=1)
    positives = _sample(torch.nonzero(matches >= 0).flatten(), int(count * positive_fraction), generator)
    negatives = _sample(torch.nonzero(matches == BACKGROUND).flatten(), count - len(positives), generator)
    return positives, negatives


def _sample(indices: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else indices.device
    order = torch.randperm(len(indices), generator=generator, device=device)
    return indices[order[:count].to(indices.device)].sort().values


def _centre_and_side(boxes: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Centres (N, 2) and sides (N, 2) of boxes that must have an area."""
    side = boxes[:, 2:] - boxes[:, :2]
    without_area = torch.nonzero((side == 0).any(dim=1)).flatten()
    if len(without_area):
        row = int(without_area[0])
        raise ValueError(f"{name}[{row}] is {boxes[row].tolist()}, expected width and height above 0")
    return boxes[:, :2] + side / 2, side


def _check_weights(weights: Sequence[float]) -> None:
    if len(weights) != 4 or not all(0 < weight < math.inf for weight in weights):
        raise ValueError(f"weights is {tuple(weights)}, expected four values above 0: of x, y, width, height")


def _check_deltas(deltas: Tensor, anchors: Tensor) -> None:
    for name, value in (("deltas", deltas), ("anchors", anchors)):
        check_floats(name, value)
        if not value.ndim or value.shape[-1] != 4:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, expected (..., 4)")
    try:
        fits = torch.broadcast_shapes(deltas.shape, anchors.shape) == deltas.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"deltas has shape {tuple(deltas.shape)}, expected one for anchors {tuple(anchors.shape)}")
