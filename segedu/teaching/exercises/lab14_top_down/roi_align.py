"""roi_align: a fixed number of features from a feature map for each box, without rounding."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.roi_pool import roi_pool
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Size = tuple[int, int]


def roi_align(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """Extract h x w features from a feature map for each box, without rounding anything.

    A box is given in pixels of the image. Multiplied by `spatial_scale`, it lies on the feature map. There, divide it
    into h x w bins of equal size, and each bin into samples x samples parts of equal size. Sample the map at the centre
    of each part. The output of a bin is the mean of its samples.

    The value of the cell in row y and column x belongs to the centre of that cell, the point (x + 0.5, y + 0.5).
    Between the centres of four cells, interpolate bilinearly. Beyond the outermost centres, the value of the outermost
    row or column continues for one more cell. A point further outside than that has the value 0.

    Args:
        features: (C, H, W) floats.
        boxes: (N, 4) floats, xyxy in pixels of the image. A box may extend beyond the map, and N may be 0.
        output_size: (h, w), rows and columns of bins.
        spatial_scale: cells per pixel of the image, such as 1/4.
        samples: number of points per bin along each axis.

    Returns:
        (N, C, h, w) floats.

    Example: a map of one row. The bins are 1.5 to 2.5 and 2.5 to 3.5, so their centres lie between two cell centres.

        >>> row = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
        >>> roi_align(row, torch.tensor([[1.5, 0.0, 3.5, 1.0]]), (1, 2), 1.0, 1)
        tensor([[[[1.5000, 2.5000]]]])
    """
    return _align(features, boxes * spatial_scale - 0.5, output_size, samples)


def _align(features: Tensor, boxes: Tensor, output_size: Size, samples: int) -> Tensor:
    """The result for boxes in coordinates where the centres of cells are integers."""
    return _sampled(features, *_points(boxes, output_size, samples))


def _points(boxes: Tensor, output_size: Size, samples: int) -> tuple[Tensor, Tensor]:
    """Coordinates of the points: ys (N, h, samples) and xs (N, w, samples)."""
    x1, y1, x2, y2 = boxes.T
    return _centres(y1, y2, output_size[0], samples), _centres(x1, x2, output_size[1], samples)


def _centres(low: Tensor, high: Tensor, bins: int, samples: int) -> Tensor:
    parts = bins * samples
    fractions = (torch.arange(parts) + 0.5) / parts
    return (low[:, None] + (high - low)[:, None] * fractions).unflatten(1, (bins, samples))


def _sampled(features: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Bilinear interpolation is linear along y and linear along x, and so is the mean over a bin."""
    rows, columns = _weights(ys, features.shape[1]), _weights(xs, features.shape[2])
    return torch.einsum("nhy,cyx,nwx->nchw", rows, features, columns)


def _weights(points: Tensor, cells: int) -> Tensor:
    """(N, bins, cells): weight of each cell in each bin, along one axis."""
    inside = (points >= -1) & (points <= cells)
    distances = (points.clamp(0, cells - 1)[..., None] - torch.arange(cells)).abs()
    return ((1 - distances).clamp(min=0) * inside[..., None]).mean(dim=2)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Several boxes, scales and numbers of points; a tiny box, the whole map, no box; boxes beyond the map."""

    def rois(name: str, shape: tuple, boxes: list, size: Size, scale: float, samples: int, shift: bool = True) -> Case:
        features = torch.from_numpy(rng.uniform(-1, 1, shape)).float()
        corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        if shift:  # rounding moves each edge by 1/8 to 3/8 of a cell
            corners += torch.from_numpy(rng.integers(4, 13, corners.shape) / 32).float()
        return case(name, features, corners / scale, size, scale, samples)

    two = [[1, 2, 6, 8], [4, 1, 9, 5]]
    three = [[0, 1, 7, 5], [3, 0, 5, 6], [2, 3, 8, 7]]
    beyond = [[-4, 1, 3, 6], [5, -5, 11, 12], [8, 9, 12, 12]]
    core = [
        rois("one point per bin", (2, 9, 10), two[:1], (3, 2), 1.0, 1),
        rois("2 x 2 points per bin", (2, 10, 11), two, (2, 3), 1.0, 2),
        rois("a map of a quarter of the image's size", (3, 8, 10), three, (2, 2), 0.25, 2),
        rois("3 x 3 points per bin, half the image's size", (1, 9, 9), three[:2], (3, 4), 0.5, 3),
    ]
    edge = [
        rois("a box smaller than a cell", (2, 6, 7), [[3, 2, 3.25, 2.25], [4, 3, 4.5, 5]], (2, 2), 1.0, 2),
        rois("one bin", (2, 8, 7), [[1, 2, 5, 6]], (1, 1), 0.5, 4),
        rois("a box around the whole map", (2, 6, 5), [[0, 0, 5, 6]], (4, 3), 0.125, 2, shift=False),
        rois("no box", (2, 5, 6), [], (3, 2), 0.25, 2),
    ]
    outside = [
        rois("boxes beyond the map", (2, 8, 9), beyond, (4, 5), 0.5, 2),
        # points at -1, 3, 7 along x and at -1, 2, 5, 8 along y, counted from the first centre: all just inside
        rois("points exactly one cell outside", (2, 8, 7), [[-2.5, -2, 9.5, 10]], (4, 3), 1.0, 1, shift=False),
    ]
    return {"core": (3, core), "edge": (1, edge), "outside": (1, outside)}


right = Variants(roi_align)


def _at_points(change: Callable[[Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """The right answer at other points: `change(points along an axis, cells along it)`."""

    def sampled(a: SimpleNamespace) -> Tensor:
        points = _points(a.boxes * a.spatial_scale - 0.5, a.output_size, a.samples)
        return _sampled(a.features, *(change(p, n) for p, n in zip(points, a.features.shape[1:], strict=True)))

    return right.instead(sampled)


def _crop_and_resize(a: SimpleNamespace) -> Tensor:
    height, width = a.features.shape[1:]
    crops = [a.features.new_zeros(0, len(a.features), *a.output_size)]
    for x1, y1, x2, y2 in (a.boxes * a.spatial_scale).tolist():
        rows = slice(min(max(int(y1), 0), height - 1), max(int(np.ceil(y2)), 1))
        columns = slice(min(max(int(x1), 0), width - 1), max(int(np.ceil(x2)), 1))
        crops.append(F.interpolate(a.features[None, :, rows, columns], a.output_size, mode="bilinear"))
    return torch.cat(crops)


def _at_least_one_cell(a: SimpleNamespace) -> Tensor:
    """Boxes for which the right answer is that of torchvision's roi_align with aligned=False."""
    low, high = a.boxes.split(2, dim=1)
    cell = 1 / a.spatial_scale
    return torch.cat([low, low + (high - low).clamp(min=cell)], dim=1) + cell / 2


def _adaptive_samples(a: SimpleNamespace) -> Tensor:
    """One point per cell of a bin's side, rounded up, as in torchvision by default."""
    (h, w), outputs = a.output_size, [roi_align(a.features, a.boxes[:0], a.output_size, a.spatial_scale, 1)]
    for x1, y1, x2, y2 in (a.boxes * a.spatial_scale - 0.5)[..., None]:
        down, across = int(((y2 - y1) / h).ceil()), int(((x2 - x1) / w).ceil())
        outputs.append(_sampled(a.features, _centres(y1, y2, h, down), _centres(x1, x2, w, across)))
    return torch.cat(outputs)


def _largest(a: SimpleNamespace) -> Tensor:
    h, w = a.output_size
    fine = roi_align(a.features, a.boxes, (h * a.samples, w * a.samples), a.spatial_scale, 1)
    return fine.unflatten(2, (h, a.samples)).unflatten(4, (w, a.samples)).amax((3, 5))


def _corners_of_parts(a: SimpleNamespace) -> Tensor:
    """The right answer for boxes that are shifted by half a part."""
    boxes = a.boxes * a.spatial_scale
    sides = boxes[:, 2:] - boxes[:, :2]
    half_parts = sides / torch.tensor(a.output_size[::-1]) / a.samples / 2
    return _align(a.features, boxes - 0.5 - half_parts.repeat(1, 2), a.output_size, a.samples)


def _clipped(a: SimpleNamespace) -> Tensor:
    limits = torch.tensor(a.features.shape[:0:-1]).repeat(2)
    return (a.boxes * a.spatial_scale).clamp(min=0).minimum(limits) / a.spatial_scale


ROUNDING = "RoIAlign uses no round(), no int(), and no floor() except that of the interpolation."
HALF = "If the centres of the cells are numbered 0, 1, 2, the border of the map is half a cell before 0."
SCALE = "A map of a quarter of the image's size has a spatial_scale of 1/4: pixel 8 of the image is at cell 2."
OUTSIDE = "Along each axis, a point beyond -1 or beyond H (or W) has value 0. Move other points to between 0 and H - 1."

exercise = Exercise(
    name="roi_align",
    points=5,
    cases=cases,
    reference=roi_align,
    tolerance=1e-5,
    kind="matrix",
    hides=["segedu.ops.roi_align"],
    wrong=[
        Wrong(
            "box rounded",
            right.given(boxes=lambda a: (a.boxes * a.spatial_scale).round() / a.spatial_scale),
            "You round the corners of the box to the nearest integers. Do not round them.",
            ROUNDING,
        ),
        Wrong(
            "box cut to whole cells",
            right.given(boxes=lambda a: (a.boxes * a.spatial_scale).floor() / a.spatial_scale),
            "You round the corners of the box down to integers, as int() and // do. Do not round them.",
            ROUNDING,
        ),
        Wrong(
            "points rounded",
            _at_points(lambda points, cells: points.round()),
            "You use the value of the cell that is nearest to a point. Interpolate between the four around it.",
            ROUNDING,
        ),
        Wrong(
            "points cut",
            _at_points(lambda points, cells: points.floor()),
            "You use the value of the cell above and to the left of a point. Interpolate between the four around it.",
            ROUNDING,
        ),
        Wrong(
            "RoIPool",
            right.instead(lambda a: roi_pool(a.features[None], [a.boxes], a.output_size, a.spatial_scale)),
            "This is RoIPool, which rounds and takes the maximum of a bin. Do not round, interpolate, take the mean.",
            ROUNDING,
        ),
        Wrong(
            "crop and resize",
            right.instead(_crop_and_resize),
            "You crop whole cells and resize them. Divide the box itself into bins, without rounding.",
            ROUNDING,
        ),
        Wrong(
            "no half cell",
            right.given(boxes=lambda a: a.boxes + 0.5 / a.spatial_scale),
            "Your points are shifted by half a cell. The value of cell 0 belongs to the point 0.5, its centre.",
            HALF,
        ),
        Wrong(
            "no half cell, at least one cell",
            right.given(boxes=_at_least_one_cell),
            "Your points are shifted by half a cell and small boxes are enlarged to one cell, as with aligned=False.",
            HALF,
        ),
        Wrong(
            "half a cell twice",
            right.given(boxes=lambda a: a.boxes + 1 / a.spatial_scale),
            "You shift the points by half a cell in the wrong direction. Subtract half a cell after scaling.",
            HALF,
        ),
        Wrong(
            "half a pixel",
            right.given(boxes=lambda a: a.boxes + 0.5 / a.spatial_scale - 0.5),
            "You subtract half a pixel before scaling. Subtract half a cell after scaling.",
            HALF,
        ),
        Wrong(
            "not scaled",
            right.given(spatial_scale=lambda a: 1.0),
            "You use pixels of the image as cells of the map. Multiply the boxes by spatial_scale.",
            SCALE,
        ),
        Wrong(
            "divided by the scale",
            right.given(spatial_scale=lambda a: 1 / a.spatial_scale),
            "You divide the boxes by spatial_scale. Multiply them by it.",
            SCALE,
        ),
        Wrong(
            "one point a bin",
            right.given(samples=lambda a: 1),
            "You sample one point per bin. Sample samples x samples points and take their mean.",
            "With samples = 2, the points are at 1/4 and 3/4 of the bin along each axis.",
        ),
        Wrong(
            "as many points as cells",
            right.instead(_adaptive_samples),
            "You choose the number of points by the size of the box. Use samples x samples points in every bin.",
            "sampling_ratio=-1 chooses the number by the size of the box. sampling_ratio=samples does not.",
        ),
        Wrong(
            "corner of a part",
            right.instead(_corners_of_parts),
            "You sample at the upper left corner of each part. Sample at its centre.",
            "The centre of part i = 0, 1, 2, ... is i + 0.5 parts from the edge of the box.",
        ),
        Wrong(
            "largest point",
            right.instead(_largest),
            "You take the maximum of the samples of a bin. Take their mean.",
            "amax or mean?",
        ),
        Wrong(
            "summed",
            right.then(lambda out, a: out * a.samples**2),
            "You sum the samples of a bin. Take their mean.",
            "Divide by samples * samples.",
        ),
        Wrong(
            "y before x",
            right.given(boxes=lambda a: a.boxes[:, [1, 0, 3, 2]]),
            "You read boxes as (y1, x1, y2, x2). They are (x1, y1, x2, y2).",
            "The format is xyxy.",
        ),
        Wrong(
            "corner and size",
            right.given(boxes=lambda a: torch.cat([a.boxes[:, :2], a.boxes[:, :2] + a.boxes[:, 2:]], dim=1)),
            "You read boxes as (x, y, width, height). They are (x1, y1, x2, y2).",
            "The width of a bin is (x2 - x1) / w.",
        ),
        Wrong(
            "columns before rows",
            right.given(output_size=lambda a: a.output_size[::-1]),
            "You read output_size as (w, h). It is (h, w).",
            "The result has shape (N, C, h, w).",
        ),
        Wrong(
            "weights swapped",
            _at_points(lambda points, cells: 2 * points.floor() + 1 - points),  # the point mirrored between two cells
            "Your interpolation gives the nearer cell the smaller weight. Give it the larger weight.",
            "At y = 2.25 the weight of row 2 is 0.75, and that of row 3 is 0.25.",
        ),
        Wrong(
            "border without end",
            _at_points(lambda points, cells: points.clamp(0, cells - 1)),
            "You continue the border of the map without end. Points more than one cell beyond the last centre "
            "have the value 0.",
            OUTSIDE,
        ),
        Wrong(
            "box cut at the border",
            right.given(boxes=_clipped),
            "You clip the box to the map, so its bins get smaller. Keep the box, and test where each point is.",
            OUTSIDE,
        ),
        Wrong(
            "zeros around",
            right.given(
                features=lambda a: F.pad(a.features, (2, 2, 2, 2)), boxes=lambda a: a.boxes + 2 / a.spatial_scale
            ),
            "You interpolate between the border and 0. The border's value continues for one cell and then drops to 0.",
            OUTSIDE,
        ),
        Wrong(
            "nothing beyond the last centre",
            _at_points(lambda points, cells: points.where((points >= 0) & (points <= cells - 1), -9.0)),
            "Your values are 0 directly beyond the outermost centres. The value of the border should continue "
            "for one more cell.",
            OUTSIDE,
        ),
    ],
)
