"""Anchors: boxes laid over the image beforehand, matched with the ground truth, and moved by what a network says.

Ren et al. 2015 (Faster R-CNN, arXiv 1506.01497), section 3.1: every place of a feature map has A anchors, of several
sizes and shapes. A network answers for each of them "is it an object" and "how far is it off".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from segedu.validation.boxes import check_boxes

BACKGROUND, NEITHER = -1, -2  # of `match_anchors`, where a ground truth has its row
LARGEST_LOG = math.log(
    1000 / 16
)  # a side grows to 62.5 times its anchor's at most: early in training exp would overflow


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float], rounded: bool = False) -> Tensor:
    """The anchors of one place, with the centre 0: of each ratio every size.

    Args:
        sizes: of the square of the same area, in pixels.
        ratios: height over width. An anchor of size s and ratio r is s √r high and s / √r wide.
        rounded: True: corners are whole numbers, as torchvision has them (and its weights expect them).

    Returns:
        (R * S, 4), xyxy, in the default float type: ratio by ratio, in each of them size by size.

    Raises:
        ValueError: there is no size or no ratio, or one is not a finite number above 0.

    Example:
        A square, and an anchor of the same area that is four times as high as wide.

        >>> cell_anchors([8], [1, 4])
        tensor([[-4., -4.,  4.,  4.],
                [-2., -8.,  2.,  8.]])
    """
    for name, numbers in (("sizes", sizes), ("ratios", ratios)):
        if not len(numbers) or not all(0 < number < math.inf for number in numbers):
            raise ValueError(f"{name} is {tuple(numbers)}, expected at least one, all finite and above 0")
    root = torch.tensor(ratios, dtype=torch.float64).sqrt()[:, None]  # (R, 1)
    size = torch.tensor(sizes, dtype=torch.float64)  # (S,)
    width, height = (size / root).flatten(), (size * root).flatten()
    cells = torch.stack([-width, -height, width, height], dim=1) / 2
    return (cells.round() if rounded else cells).to(torch.get_default_dtype())


def grid_anchors(cells: Tensor, size: tuple[int, int], stride: float | tuple[float, float]) -> Tensor:
    """The anchors of all places of a feature map: the place in row i and column j has its at (stride * j, stride * i).

    The first place is at the corner of the image, as torchvision has it. For anchors in the middle of the pixels
    that a feature stands for, give ``cells + stride / 2``.

    Args:
        cells: (A, 4), the anchors of one place, xyxy.
        size: (H, W) of the feature map.
        stride: pixels from one place to the next, or (down, right) where these differ.

    Returns:
        (H * W * A, 4), xyxy: row by row, in each place anchor by anchor. This is the order of
        ``head.permute(0, 2, 3, 1).reshape(B, H * W * A, -1)``.

    Raises:
        TypeError: ``cells`` is not a tensor of numbers.
        ValueError: ``cells`` are no boxes, or ``size`` or ``stride`` is not as expected.

    Example:
        >>> grid_anchors(torch.tensor([[-1.0, -1.0, 1.0, 1.0]]), (1, 2), stride=4)
        tensor([[-1., -1.,  1.,  1.],
                [ 3., -1.,  5.,  1.]])
    """
    cells = check_boxes("cells", cells)
    if len(size) != 2 or min(size) < 0:
        raise ValueError(f"size is {tuple(size)}, expected (H, W) of the feature map")
    down, right = stride if isinstance(stride, (tuple, list)) else (stride, stride)
    if not (0 < down < math.inf and 0 < right < math.inf):
        raise ValueError(f"stride is {stride}, expected a number of pixels above 0, or (down, right)")
    y = torch.arange(size[0], dtype=cells.dtype, device=cells.device) * down
    x = torch.arange(size[1], dtype=cells.dtype, device=cells.device) * right
    y, x = torch.meshgrid(y, x, indexing="ij")  # (H, W)
    places = torch.stack([x, y, x, y], dim=-1)  # (H, W, 4)
    return (places[:, :, None] + cells).reshape(-1, 4)


def encode_boxes(boxes: Tensor, anchors: Tensor, weights: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """How anchors must move to become boxes: what a network learns to say.

    Girshick et al. 2014 (R-CNN, arXiv 1311.2524), equations 6 to 9: the centre moves in units of the anchor's sides,
    and the sides grow by factors, of which the logarithm is taken. So the numbers are alike for small and large.

    Args:
        boxes: (N, 4), xyxy, the box of each anchor.
        anchors: (N, 4), xyxy.
        weights: of (x, y, width, height): the deltas are multiplied by them. 10, 10, 5, 5 bring them near 1.

    Returns:
        (N, 4) deltas (x, y, width, height).

    Raises:
        TypeError: an argument is not a tensor of numbers.
        ValueError: the shapes do not fit, a box or anchor has no area, or a weight is not above 0.

    Example:
        The centre is 1 to the right, a quarter of the width; the box is twice as wide: log 2 = 0.693.

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
    deltas: Tensor, anchors: Tensor, weights: Sequence[float] = (1, 1, 1, 1), largest: float = LARGEST_LOG
) -> Tensor:
    """Anchors moved by deltas: the inverse of `encode_boxes`.

    Args:
        deltas: (..., 4), what a network said.
        anchors: (..., 4), xyxy, of the same shape, or one that broadcasts to that of the deltas: (A, 4) for deltas
            (B, A, 4) of a batch, (N, 1, 4) for deltas (N, K, 4) of each class.
        weights: those of `encode_boxes`.
        largest: a larger logarithm of a side's growth is cut to this.

    Returns:
        (..., 4) boxes, xyxy, with the shape of the deltas, in at least float32; they may reach over the image.

    Raises:
        TypeError: an argument is not a tensor of numbers.
        ValueError: the shapes do not fit, an anchor is not ordered, or a weight is not above 0.

    Example:
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
    half = side * deltas[..., 2:].clamp(max=largest).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def match_anchors(iou: Tensor, low: float, high: float, force_best: bool = False) -> Tensor:
    """Which ground truth each anchor answers for: the one that it overlaps most, where it overlaps it enough.

    Ren et al. 2015, section 3.1.2. A step that takes both ends apart keeps anchors out of the loss that are neither
    object nor background.

    Args:
        iou: (N, A), of every ground truth with every anchor.
        low: an anchor whose best IoU is below this is background.
        high: an anchor whose best IoU reaches this is an object.
        force_best: True: the anchors with the largest IoU of a ground truth are an object too, however small that is,
            so that no object is left without an anchor. (They answer for the one that they overlap most themselves,
            which may be another.) An IoU of 0 forces nothing; in torchvision it makes an object of every anchor
            that is apart from that ground truth.

    Returns:
        (A,) int64: the row of the ground truth, -1 for background, -2 for neither. Without ground truth, all are -1.

    Raises:
        TypeError: ``iou`` is not a tensor of floating-point numbers.
        ValueError: the shape is not (N, A), a value is NaN, or not 0 <= low <= high <= 1.

    Example:
        One ground truth: the best anchor is too far off, but forced.

        >>> match_anchors(torch.tensor([[0.1, 0.4, 0.6]]), low=0.3, high=0.7)
        tensor([-1, -2, -2])
        >>> match_anchors(torch.tensor([[0.1, 0.4, 0.6]]), low=0.3, high=0.7, force_best=True)
        tensor([-1, -2,  0])
    """
    _check_iou(iou)
    if not 0 <= low <= high <= 1:
        raise ValueError(f"low and high are {low} and {high}, expected 0 <= low <= high <= 1")
    N, A = iou.shape
    if N == 0 or A == 0:
        return torch.full((A,), BACKGROUND, dtype=torch.int64, device=iou.device)
    best, row = iou.max(dim=0)  # (A,)
    matches = torch.where(best >= high, row, NEITHER)
    matches[best < low] = BACKGROUND
    if force_best:
        most = iou.max(dim=1, keepdim=True).values  # (N, 1): more than one anchor may have it
        forced = ((iou == most) & (most > 0)).any(dim=0)  # (A,)
        matches[forced] = row[forced]
    return matches


def sample_matches(
    matches: Tensor, count: int, positive_share: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A few anchors for the loss, drawn so that background, which is nearly everywhere, does not outvote the objects.

    Ren et al. 2015, section 3.1.3: 256 anchors of an image, at most half of them objects. If there are fewer
    objects, background takes their place.

    Args:
        matches: (A,) of `match_anchors`.
        count: how many to draw, if there are enough.
        positive_share: how much of `count` may be objects, in [0, 1].
        generator: what draws; None for torch's own. On the CPU it draws what torchvision's sampler draws.

    Returns:
        (P,) and (Q,) int64 indices of objects and of background, each in ascending order, P + Q <= count.

    Raises:
        TypeError: ``matches`` is not a tensor of int64.
        ValueError: the shape is not (A,), ``count`` is negative, or the share is outside [0, 1].

    Example:
        Half of four may be objects. There is one; so three are background.

        >>> sample_matches(torch.tensor([-1, 0, -1, -2, -1]), count=4, positive_share=0.5)
        (tensor([1]), tensor([0, 2, 4]))
    """
    if not isinstance(matches, Tensor) or matches.dtype != torch.int64:
        kind = f"dtype {matches.dtype}" if isinstance(matches, Tensor) else f"type {type(matches).__name__}"
        raise TypeError(f"matches has {kind}, expected a tensor of int64 of shape (A,)")
    if matches.ndim != 1:
        raise ValueError(f"matches has shape {tuple(matches.shape)}, expected (A,)")
    if count < 0:
        raise ValueError(f"count is {count}, expected at least 0")
    if not 0 <= positive_share <= 1:
        raise ValueError(f"positive_share is {positive_share}, expected a number in [0, 1]")
    positives = _draw(torch.nonzero(matches >= 0).flatten(), int(count * positive_share), generator)
    negatives = _draw(torch.nonzero(matches == BACKGROUND).flatten(), count - len(positives), generator)
    return positives, negatives


def _draw(indices: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else indices.device
    order = torch.randperm(len(indices), generator=generator, device=device)
    return indices[order[:count].to(indices.device)].sort().values


def _centre_and_side(boxes: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """(N, 2) and (N, 2), of boxes that have an area."""
    side = boxes[:, 2:] - boxes[:, :2]
    flat = torch.nonzero((side == 0).any(dim=1)).flatten()
    if len(flat):
        row = int(flat[0])
        raise ValueError(f"{name}[{row}] is {boxes[row].tolist()}, expected width and height above 0")
    return boxes[:, :2] + side / 2, side


def _check_weights(weights: Sequence[float]) -> None:
    if len(weights) != 4 or not all(0 < weight < math.inf for weight in weights):
        raise ValueError(f"weights is {tuple(weights)}, expected four numbers above 0: of x, y, width, height")


def _check_deltas(deltas: Tensor, anchors: Tensor) -> None:
    for name, value in (("deltas", deltas), ("anchors", anchors)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = f"dtype {value.dtype}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
            raise TypeError(f"{name} has {kind}, expected a tensor of floating-point numbers of shape (..., 4)")
        if not value.ndim or value.shape[-1] != 4:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, expected (..., 4)")
    try:
        fits = torch.broadcast_shapes(deltas.shape, anchors.shape) == deltas.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"deltas has shape {tuple(deltas.shape)}, expected one for anchors {tuple(anchors.shape)}")


def _check_iou(iou: Tensor) -> None:
    if not isinstance(iou, Tensor) or not iou.is_floating_point():
        kind = f"dtype {iou.dtype}" if isinstance(iou, Tensor) else f"type {type(iou).__name__}"
        raise TypeError(f"iou has {kind}, expected a tensor of floating-point numbers of shape (N, A)")
    if iou.ndim != 2:
        raise ValueError(f"iou has shape {tuple(iou.shape)}, expected (N ground truths, A anchors)")
    if iou.isnan().any():
        raise ValueError("iou has a NaN, expected numbers in [0, 1]")
