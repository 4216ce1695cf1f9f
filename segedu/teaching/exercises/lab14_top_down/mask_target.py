"""mask_target: what the mask head should say for a proposal: the mask of its object, seen through the box."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def mask_target(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """Draw the mask of each proposal's object on a grid of size x size bins that fills the proposal's box.

    Divide the box into size x size bins of equal size, fractions of pixels included. Read the mask at the centre of
    each bin by bilinear interpolation, where the value of the pixel in row y and column x (1 on the object, 0 off it)
    belongs to the centre of that pixel, the point (x + 0.5, y + 0.5). The target is True where at least 1/2 was read.
    Between the border of the image and the outermost centres the outermost row or column counts.

    Args:
        masks: (N, H, W) bool, one an object.
        boxes: (P, 4) floats, xyxy in pixels: the proposals, within the image. Perhaps none.
        matches: (P,) integers: the object of each proposal, a row of `masks`.
        size: M, bins along each axis.

    Returns:
        (P, M, M) bool.

    Example: an object of the two columns on the left, and a box from 1 to 3: its left half is on the object.

        >>> masks = torch.tensor([[[True, True, False, False]] * 2])
        >>> mask_target(masks, torch.tensor([[1.0, 0.0, 3.0, 2.0]]), torch.tensor([0]), 2)
        tensor([[[ True, False],
                 [ True, False]]])
    """
    return _seen(masks[matches], boxes - 0.5, size) >= 0.5


def _seen(masks: Tensor, boxes: Tensor, size: int) -> Tensor:
    """What is read, 0 to 1: (P, M, M). Boxes where centres of pixels have whole numbers, one a mask."""
    x1, y1, x2, y2 = boxes.T
    rows, columns = _weights(y1, y2, size, masks.shape[1]), _weights(x1, x2, size, masks.shape[2])
    return torch.einsum("phy,pyx,pwx->phw", rows, masks.float(), columns)


def _weights(low: Tensor, high: Tensor, size: int, pixels: int) -> Tensor:
    """How much each pixel counts for each bin: (P, size, pixels)."""
    points = low[:, None] + (high - low)[:, None] * (torch.arange(size) + 0.5) / size
    away = (points.clamp(0, pixels - 1)[..., None] - torch.arange(pixels)).abs()
    return (1 - away).clamp(min=0)


def tilted(rng: np.random.Generator, shape: tuple[int, int], places: list) -> Tensor:
    """Tilted ellipses, about where they should be: outlines without straight parts.

    Args:
        rng: moves them and changes their sizes.
        shape: (H, W).
        places: (y, x, half height, half width, slant) of each.

    Returns:
        (N, H, W) bool.
    """
    y, x = torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    moved = np.array(places) + rng.uniform(-0.3, 0.3, (len(places), 5)) * [1, 1, 1, 1, 0.5]
    found = [
        ((y - cy) / a) ** 2 + ((x - cx - slant * (y - cy)) / b) ** 2 <= 1 for cy, cx, a, b, slant in moved.tolist()
    ]
    return torch.stack(found)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Overlapping objects under several proposals, coarse and fine grids; ties, the image's border, no proposal.

    Args:
        rng: of objects and boxes. Boxes are drawn again while something that is read lies near 1/2.

    Returns:
        The cases by group. Corners of boxes lie off the grid, except where a tie or the border is asked for; int() and
        round() of a corner are the same.
    """

    def case(name: str, masks: Tensor, boxes: list, matches: list, size: int) -> Case:
        numbers, given = torch.tensor(matches), torch.tensor(boxes)
        at_border = given == torch.tensor([0, 0, *masks.shape[:0:-1]])
        while True:
            corners = given + torch.from_numpy(rng.integers(2, 7, given.shape) / 16).float() * ~at_border
            read = torch.stack([_seen(masks[numbers], corners - half, size) for half in (0.5, 0)])
            if (read - 0.5).abs().min() > 1e-3:  # with the half pixel and without: rounding decides nothing
                return {"name": name, "args": [masks, corners, numbers, size]}

    three = [(7, 8, 5, 4, 0.4), (12, 13, 6, 5, -0.5), (5, 17, 4, 4, 0.3)]
    proposals, partly = [[6, 4, 18, 19], [2, 1, 13, 13], [7, 6, 20, 18]], [[9, 0, 16, 6], [3, 3, 12, 11]]
    tall = [(13, 9, 11, 5, 0.3), (20, 7, 5, 4, -0.3)]
    # hooks of one pixel's width in two corners of the image, and bins of a quarter of a pixel
    hooks, in_corners = torch.zeros(2, 17, 13, dtype=torch.bool), [[0, 0, 4, 5], [9, 12, 13, 17]]
    hooks[0, 0, :6] = hooks[0, :3, 0] = hooks[1, -1, 6:] = hooks[1, -4:, -1] = True
    ties = torch.zeros(2, 16, 16, dtype=torch.bool)
    ties[0, 5:12, 4 : 9 + int(rng.integers(3))] = True
    ties[1, 3:9, 2 : 7 + int(rng.integers(3))] = True
    lattice = torch.tensor([[0.5, 2.5, 12.5, 14.5], [2.5, 0.5, 14.5, 12.5]])  # centres of bins on borders of pixels
    empty = [ties.clone(), lattice[:0], torch.zeros(0, dtype=torch.int64), 5]
    return {
        "core": (
            2,
            [
                case("three proposals, two objects", tilted(rng, (20, 23), three), proposals, [1, 0, 1], 7),
                case("a fine grid", tilted(rng, (18, 21), three[:2]), [[6, 5, 17, 17], [4, 3, 13, 12]], [1, 0], 14),
                case("a coarse grid", tilted(rng, (28, 20), tall), [[2, 1, 15, 26], [1, 10, 14, 26]], [0, 1], 4),
            ],
        ),
        "edge": (
            1,
            [
                {"name": "exactly one half", "args": [ties, lattice, torch.tensor([0, 1]), 12]},
                case("boxes in corners of the image", hooks, in_corners, [0, 1], 18),
                case("proposals beside the object", tilted(rng, (16, 18), three[:2]), partly, [0, 0], 6),
                {"name": "no proposal", "args": empty},
            ],
        ),
    }


def _with_boxes(change: Callable[[Tensor], Tensor]) -> Callable:
    """The right answer with other boxes."""

    def answer(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
        return mask_target(masks, change(boxes), matches, size)

    return answer


def cropped_then_nearest(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """Whole pixels cut out, then the nearest one for each bin."""
    return _crops(masks, boxes, matches, size, "nearest") > 0


def cropped_then_bilinear(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """Whole pixels cut out, then interpolation, then the threshold."""
    return _crops(masks, boxes, matches, size, "bilinear") >= 0.5


def _crops(masks: Tensor, boxes: Tensor, matches: Tensor, size: int, mode: str) -> Tensor:
    found = [torch.zeros(0, size, size)]
    for mask, (x1, y1, x2, y2) in zip(masks[matches].float(), boxes.int().tolist(), strict=True):
        found.append(F.interpolate(mask[None, None, y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)], size, mode=mode)[0])
    return torch.cat(found)


def nearest(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """The pixel that each centre lies in: a threshold before the interpolation."""
    steps = (torch.arange(size) + 0.5) / size
    points = (boxes[:, :2, None] + (boxes[:, 2:] - boxes[:, :2])[:, :, None] * steps).floor().long()
    xs, ys = points.unbind(1)
    return masks[matches[:, None, None], ys[:, :, None], xs[:, None, :]]


def whole_image(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """The mask of the image resized, without the box."""
    height, width = masks.shape[1:]
    everything = torch.tensor([0.0, 0.0, width, height]).expand(len(boxes), 4)
    return mask_target(masks, everything, matches, size)


def at_image_size(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """The mask within the box, at the size of the image."""
    height, width = masks.shape[1:]
    y, x = torch.arange(height)[None, :, None] + 0.5, torch.arange(width) + 0.5
    x1, y1, x2, y2 = boxes.T[..., None, None]
    return masks[matches] & (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)


def not_thresholded(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """What was read, between 0 and 1."""
    return _seen(masks[matches], boxes - 0.5, size)


def zeros_around(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """Interpolates with 0 beyond the image: grid_sample's padding_mode="zeros"."""
    return mask_target(F.pad(masks, (1, 1, 1, 1)), boxes + 1, matches, size)


def any_touch(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """.bool() of what was read: True above 0."""
    return _seen(masks[matches], boxes - 0.5, size) > 0


def above_half(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """> 1/2."""
    return _seen(masks[matches], boxes - 0.5, size) > 0.5


def in_order(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """Proposal p gets mask p."""
    return mask_target(masks, boxes, torch.arange(len(boxes)), size)


def all_objects(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """Every object in the box."""
    return mask_target(masks.any(0, keepdim=True), boxes, torch.zeros_like(matches), size)


def several_points(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """The mean of a point for each pixel that a bin is wide, rounded up: what torchvision and detectron2 do."""
    found = [torch.zeros(0, size, size)]
    for mask, box in zip(masks[matches].float(), boxes - 0.5, strict=True):
        x1, y1, x2, y2 = box[:, None]
        parts = []
        for low, high, pixels in ((y1, y2, mask.shape[0]), (x1, x2, mask.shape[1])):
            points = int(((high - low) / size).ceil())
            parts.append(_weights(low, high, size * points, pixels).unflatten(1, (size, points)).mean(dim=2)[0])
        found.append((parts[0] @ mask @ parts[1].T)[None])
    return torch.cat(found) >= 0.5


def own_box(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """The box of the object in place of the proposal's."""
    found = []
    for mask in masks[matches]:
        y, x = mask.nonzero().T.float()
        found.append(torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]))
    return mask_target(masks, torch.stack(found) if found else boxes, matches, size)


def corners_aligned(masks: Tensor, boxes: Tensor, matches: Tensor, size: int) -> Tensor:
    """The first and the last bin are read at the border of the box: align_corners=True, linspace."""
    half = (boxes[:, 2:] - boxes[:, :2]) / (size - 1) / 2
    return mask_target(masks, torch.cat([boxes[:, :2] - half, boxes[:, 2:] + half], dim=1), matches, size)


BINS = "The centre of bin i lies at x1 + (i + 0.5) * (x2 - x1) / size, a fraction of a pixel."
HALF = "Pixel 0 reaches from 0 to 1: its centre is at 0.5."

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
            cropped_then_nearest,
            "You cut whole pixels out and take the nearest one for each bin: divide the box itself, and interpolate.",
            BINS,
        ),
        Wrong(
            "crops, then interpolates",
            cropped_then_bilinear,
            "You cut whole pixels out of the mask: divide the box itself into bins, with its fractions.",
            BINS,
        ),
        Wrong(
            "threshold before the interpolation",
            nearest,
            "You read the pixel that a centre lies in: interpolate first, then ask for at least 1/2.",
            "At the outline of an object the four pixels around a point do not agree.",
        ),
        Wrong(
            "whole image",
            whole_image,
            "You resize the mask of the whole image: the grid fills the box of the proposal.",
            "The mask head sees what lies in the box, and nothing else.",
        ),
        Wrong(
            "size of the image",
            at_image_size,
            "Your target has the size of the image: it has size x size bins, however large the box is.",
            BINS,
        ),
        Wrong(
            "no threshold",
            not_thresholded,
            "You return what you read, between 0 and 1: the target is True where it is at least 1/2.",
            ">= 0.5 comes last.",
        ),
        Wrong(
            "zeros around the image",
            zeros_around,
            "At the border of the image you interpolate with 0: there the outermost row or column counts alone.",
            'grid_sample fills with zeros by default: padding_mode="border".',
        ),
        Wrong(
            "anything above 0",
            any_touch,
            "Your target is True wherever something was read: it has to be at least 1/2.",
            ".bool() makes True of everything but 0.",
        ),
        Wrong(
            "above one half",
            above_half,
            "Exactly 1/2 gives False: at least 1/2 gives True.",
            "> or >=?",
        ),
        Wrong(
            "several points a bin",
            several_points,
            "You read several points in a large bin and take their mean: read one, at the centre of the bin.",
            "sampling_ratio=1.",
        ),
        Wrong(
            "wrong object",
            in_order,
            "You give proposal p the mask number p: its object is number matches[p].",
            "Two proposals may have one object.",
        ),
        Wrong(
            "all objects",
            all_objects,
            "Every object in the box is in your target: only that of the proposal belongs there.",
            "matches[p] says which.",
        ),
        Wrong(
            "box of the object",
            own_box,
            "You use the box around the object: the grid fills the box of the proposal, which is another one.",
            "The proposal may cut the object; the mask head never sees the rest.",
        ),
        Wrong(
            "no half pixel",
            _with_boxes(lambda boxes: boxes + 0.5),
            "You are half a pixel off: the value of pixel 0 belongs to the point 0.5, its centre.",
            HALF,
        ),
        Wrong(
            "ends of the box",
            corners_aligned,
            "You read the first and the last bin at the ends of the box: read each at its centre.",
            BINS + " linspace from x1 to x2 and align_corners=True do something else.",
        ),
        Wrong(
            "one pixel larger",
            _with_boxes(lambda boxes: boxes + torch.tensor([0.0, 0.0, 1.0, 1.0])),
            "Your boxes are one pixel too wide and too high: x2 is where the box ends, and its width is x2 - x1.",
            BINS,
        ),
        Wrong(
            "y before x",
            _with_boxes(lambda boxes: boxes[:, [1, 0, 3, 2]]),
            "You read boxes as (y1, x1, y2, x2): they are (x1, y1, x2, y2).",
            "xyxy.",
        ),
    ],
)
