"""mask_target: the training target of the mask head, a ground-truth mask that is sampled in a proposal's box."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.masks import boxes_from_masks
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def mask_target(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """Sample the mask of each proposal's object on a grid of size x size bins that fills the proposal's box.

    Divide the box into size x size bins of equal size, without rounding. Sample the mask at the centre of each bin by
    bilinear interpolation. The value of the pixel in row y and column x (1 on the object, 0 elsewhere) belongs to the
    centre of that pixel, the point (x + 0.5, y + 0.5). The target is True where the sampled value is at least 1/2.
    Between the border of the image and the outermost pixel centres, use the value of the outermost row or column.

    Args:
        masks: (N, H, W) bool, one per object.
        boxes: (P, 4) floats, xyxy in pixels: the proposals, within the image. P may be 0.
        matches: (P,) integers: the object of each proposal, a row of `masks`.
        size: M, number of bins along each axis.

    Returns:
        (P, M, M) bool.

    Example: the object covers the two columns on the left. The left half of a box from 1 to 3 is on the object.

        >>> masks = torch.tensor([[[True, True, False, False]] * 2])
        >>> mask_target(masks, torch.tensor([[1.0, 0.0, 3.0, 2.0]]), torch.tensor([0]), 2)
        tensor([[[ True, False],
                 [ True, False]]])
    """
    return _sampled(masks[matches], boxes - 0.5, size) >= 0.5


def _sampled(masks: Tensor, boxes: Tensor, size: int) -> Tensor:
    """(P, M, M) from 0 to 1: one box per mask, in coordinates where pixel centres are integers."""
    x1, y1, x2, y2 = boxes.T
    rows, columns = _weights(y1, y2, size, masks.shape[1]), _weights(x1, x2, size, masks.shape[2])
    return torch.einsum("phy,pyx,pwx->phw", rows, masks.float(), columns)


def _weights(low: Tensor, high: Tensor, size: int, pixels: int) -> Tensor:
    """(P, size, pixels): weight of each pixel in each bin, along one axis."""
    points = low[:, None] + (high - low)[:, None] * (torch.arange(size) + 0.5) / size
    distances = (points.clamp(0, pixels - 1)[..., None] - torch.arange(pixels)).abs()
    return (1 - distances).clamp(min=0)


def _ellipses(rng: np.random.Generator, shape: tuple[int, int], parameters: list) -> Tensor:
    """(N, H, W) bool: slanted ellipses, near the given (y, x, half the height, half the width, slant)."""
    y, x = torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    varied = np.array(parameters) + rng.uniform(-0.3, 0.3, (len(parameters), 5)) * [1, 1, 1, 1, 0.5]
    distances = [
        ((y - cy) / a) ** 2 + ((x - cx - slant * (y - cy)) / b) ** 2 for cy, cx, a, b, slant in varied.tolist()
    ]
    return torch.stack(distances) <= 1


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Overlapping objects with several proposals, coarse and fine grids; ties, the border of the image, no proposal."""

    def proposals(name: str, masks: Tensor, boxes: list, matches: list, size: int) -> Case:
        """Moves corners by a fraction of a pixel below 1/2, except at the border, until no sample is close to 1/2."""
        rows, corners = torch.tensor(matches), torch.tensor(boxes)
        inside = corners != torch.tensor([0, 0, *masks.shape[:0:-1]])
        while True:
            moved = corners + torch.from_numpy(rng.integers(2, 7, corners.shape) / 16).float() * inside
            samples = torch.stack([_sampled(masks[rows], moved - half, size) for half in (0.5, 0)])
            if (samples - 0.5).abs().min() > 1e-3:  # rounding errors change nothing, with or without the half pixel
                return case(name, masks, moved, rows, size)

    three = [(7, 8, 5, 4, 0.4), (12, 13, 6, 5, -0.5), (5, 17, 4, 4, 0.3)]
    overlapping, partly = [[6, 4, 18, 19], [2, 1, 13, 13], [7, 6, 20, 18]], [[9, 0, 16, 6], [3, 3, 12, 11]]
    tall = [(13, 9, 11, 5, 0.3), (20, 7, 5, 4, -0.3)]
    # L-shapes, one pixel thick, in two corners of the image, and bins of a quarter of a pixel
    thin, in_corners = torch.zeros(2, 17, 13, dtype=torch.bool), [[0, 0, 4, 5], [9, 12, 13, 17]]
    thin[0, 0, :6] = thin[0, :3, 0] = thin[1, -1, 6:] = thin[1, -4:, -1] = True
    ties = torch.zeros(2, 16, 16, dtype=torch.bool)
    ties[0, 5:12, 4 : 9 + int(rng.integers(3))] = True
    ties[1, 3:9, 2 : 7 + int(rng.integers(3))] = True
    on_edges = torch.tensor([[0.5, 2.5, 12.5, 14.5], [2.5, 0.5, 14.5, 12.5]])  # bin centres on the edges of pixels
    core = [
        proposals("three proposals, two objects", _ellipses(rng, (20, 23), three), overlapping, [1, 0, 1], 7),
        proposals("a fine grid", _ellipses(rng, (18, 21), three[:2]), [[6, 5, 17, 17], [4, 3, 13, 12]], [1, 0], 14),
        proposals("a coarse grid", _ellipses(rng, (28, 20), tall), [[2, 1, 15, 26], [1, 10, 14, 26]], [0, 1], 4),
    ]
    edge = [
        case("exactly one half", ties, on_edges, torch.tensor([0, 1]), 12),
        proposals("boxes in corners of the image", thin, in_corners, [0, 1], 18),
        proposals("proposals that cover the object partly", _ellipses(rng, (16, 18), three[:2]), partly, [0, 0], 6),
        case("no proposal", ties.clone(), on_edges[:0], torch.zeros(0, dtype=torch.int64), 5),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(mask_target)


def _right_samples(a: SimpleNamespace) -> Tensor:
    return _sampled(a.masks[a.matches], a.boxes - 0.5, a.size)


def _per_proposal(samples: Callable[..., Tensor], a: SimpleNamespace) -> Tensor:
    """(P, M, M): `samples(mask, box, size)` of each proposal."""
    masks = a.masks[a.matches].float()
    found = [samples(mask, box, a.size)[None] for mask, box in zip(masks, a.boxes, strict=True)]
    return torch.cat([torch.zeros(0, a.size, a.size), *found])


def _cropped(mode: str) -> Callable[..., Tensor]:
    """Crops whole pixels and resizes the crop."""

    def samples(mask: Tensor, box: Tensor, size: int) -> Tensor:
        x1, y1, x2, y2 = box.int().tolist()
        return F.interpolate(mask[None, None, y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)], size, mode=mode)[0, 0]

    return right.instead(lambda a: _per_proposal(samples, a) >= 0.5)


def _several_points(mask: Tensor, box: Tensor, size: int) -> Tensor:
    """One point per pixel of a bin's side, rounded up, as in torchvision and detectron2; the mean of these points."""
    x1, y1, x2, y2 = (box - 0.5)[:, None]
    weights = []
    for low, high, pixels in ((y1, y2, mask.shape[0]), (x1, x2, mask.shape[1])):
        points = int(((high - low) / size).ceil())
        weights.append(_weights(low, high, size * points, pixels).unflatten(1, (size, points)).mean(dim=2)[0])
    return weights[0] @ mask @ weights[1].T


def _nearest_pixels(a: SimpleNamespace) -> Tensor:
    steps = (torch.arange(a.size) + 0.5) / a.size
    points = (a.boxes[:, :2, None] + (a.boxes[:, 2:] - a.boxes[:, :2])[:, :, None] * steps).floor().long()
    xs, ys = points.unbind(1)
    return a.masks[a.matches[:, None, None], ys[:, :, None], xs[:, None, :]]


def _at_image_size(a: SimpleNamespace) -> Tensor:
    y, x = (torch.arange(n) + 0.5 for n in a.masks.shape[1:])
    x1, y1, x2, y2 = a.boxes.T[..., None, None]
    return a.masks[a.matches] & (x1 <= x) & (x < x2) & (y1 <= y[:, None]) & (y[:, None] < y2)


def _upper_left_of_bins(a: SimpleNamespace) -> Tensor:
    """Boxes whose bins have their centres where the proposals' bins have their upper left corners."""
    half = (a.boxes[:, 2:] - a.boxes[:, :2]) / a.size / 2
    return a.boxes - half.repeat(1, 2)


def _corners_aligned(a: SimpleNamespace) -> Tensor:
    """Boxes whose outermost bins have their centres on the edges of the proposals."""
    half = (a.boxes[:, 2:] - a.boxes[:, :2]) / (a.size - 1) / 2
    return torch.cat([a.boxes[:, :2] - half, a.boxes[:, 2:] + half], dim=1)


BINS = "The centre of bin i is at x1 + (i + 0.5) * (x2 - x1) / size, which is not an integer in general."

exercise = Exercise(
    name="mask_target",
    points=3,
    cases=cases,
    reference=mask_target,
    kind="map",
    hides=["segedu.ops.roi_align", "segedu.instance.mask_rcnn"],
    wrong=[
        Wrong(
            "crops, then nearest",
            _cropped("nearest"),
            "You crop whole pixels and take the nearest one for each bin. Divide the box itself, and interpolate.",
            BINS,
        ),
        Wrong(
            "crops, then interpolates",
            _cropped("bilinear"),
            "You crop whole pixels of the mask. Divide the box itself into bins, without rounding.",
            BINS,
        ),
        Wrong(
            "threshold before the interpolation",
            right.instead(_nearest_pixels),
            "You take the pixel that contains the centre of a bin. Interpolate first, then compare with 1/2.",
            "At the outline of an object, the four pixels around a point have different values.",
        ),
        Wrong(
            "whole image",
            right.given(boxes=lambda a: torch.tensor([[0.0, 0.0, *a.masks.shape[:0:-1]]]).expand_as(a.boxes)),
            "You resize the mask of the whole image. The grid should fill the box of the proposal.",
            "The mask head sees only the features in the box.",
        ),
        Wrong(
            "size of the image",
            right.instead(_at_image_size),
            "Your target has the size of the image. It should have size x size bins, however large the box is.",
            BINS,
        ),
        Wrong(
            "no threshold",
            right.instead(_right_samples),
            "You return the sampled values, from 0 to 1. The target is True where they are at least 1/2.",
            ">= 0.5 is the last step.",
        ),
        Wrong(
            "zeros around the image",
            right.given(masks=lambda a: F.pad(a.masks, (1, 1, 1, 1)), boxes=lambda a: a.boxes + 1),
            "At the border of the image you interpolate with 0. Use only the outermost row or column there.",
            'grid_sample pads with zeros by default. Use padding_mode="border".',
        ),
        Wrong(
            "anything above 0",
            right.instead(lambda a: _right_samples(a) > 0),
            "Your target is True wherever the sampled value is above 0. It should be True from 1/2 on.",
            ".bool() turns every value except 0 into True.",
        ),
        Wrong(
            "above one half",
            right.instead(lambda a: _right_samples(a) > 0.5),
            "Your target is False where the sampled value is exactly 1/2. It should be True there.",
            "> or >=?",
        ),
        Wrong(
            "several points a bin",
            right.instead(lambda a: _per_proposal(_several_points, a) >= 0.5),
            "You average several points per bin if the bins are large. Sample one point, the centre of the bin.",
            "sampling_ratio=1",
        ),
        Wrong(
            "wrong object",
            right.given(matches=lambda a: torch.arange(len(a.boxes))),
            "You use mask p for proposal p. The object of proposal p is matches[p].",
            "Two proposals may have the same object.",
        ),
        Wrong(
            "all objects",
            right.given(masks=lambda a: a.masks.any(0, keepdim=True), matches=lambda a: torch.zeros_like(a.matches)),
            "Your target contains every object in the box. It should contain only the object of the proposal.",
            "matches[p] is the object of proposal p.",
        ),
        Wrong(
            "box of the object",
            right.given(boxes=lambda a: boxes_from_masks(a.masks[a.matches])),
            "You use the bounding box of the object. The grid should fill the box of the proposal.",
            "The proposal may cover only a part of the object. The mask head does not see the rest.",
        ),
        Wrong(
            "no half pixel",
            right.given(boxes=lambda a: a.boxes + 0.5),
            "Your samples are shifted by half a pixel. The value of pixel 0 belongs to the point 0.5, its centre.",
            "Pixel 0 extends from 0 to 1.",
        ),
        Wrong(
            "ends of the box",
            right.given(boxes=_corners_aligned),
            "You sample the first and the last bin on the edges of the box. Sample each bin at its centre.",
            BINS + " linspace from x1 to x2 and align_corners=True use other points.",
        ),
        Wrong(
            "upper left corner of the bins",
            right.given(boxes=_upper_left_of_bins),
            "You sample each bin at its upper left corner. Sample it at its centre.",
            BINS,
        ),
        Wrong(
            "one pixel larger",
            right.given(boxes=lambda a: a.boxes + torch.tensor([0.0, 0.0, 1.0, 1.0])),
            "Your boxes are one pixel too wide and too high. x2 is where the box ends, so its width is x2 - x1.",
            BINS,
        ),
        Wrong(
            "y before x",
            right.given(boxes=lambda a: a.boxes[:, [1, 0, 3, 2]]),
            "You read boxes as (y1, x1, y2, x2). They are (x1, y1, x2, y2).",
            "The format is xyxy.",
        ),
    ],
)
