"""roi_align: a fixed number of values out of a feature map for each box, without rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.roi_pool import roi_pool
from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Size = tuple[int, int]


def roi_align(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """Cut h x w values out of a feature map for each box, without rounding anything.

    A box is given in pixels of the image; times `spatial_scale` it lies on the feature map. There, divide it into
    h x w bins of equal size, and each bin into samples x samples parts of equal size. Read the map at the centre of
    each part, and take the mean of what a bin's points read.

    The value of the cell in row y and column x belongs to the centre of that cell, the point (x + 0.5, y + 0.5).
    Between the centres of four cells the map is read by bilinear interpolation. Beyond the outermost centres the
    outermost row or column goes on for one more cell; a point that lies further out than that reads 0.

    Args:
        features: (C, H, W) floats.
        boxes: (N, 4) floats, xyxy in pixels of the image; a box may reach beyond the map. Perhaps no box.
        output_size: (h, w), rows and columns of bins.
        spatial_scale: cells in one pixel of the image, such as 1/4.
        samples: points in a bin along each axis.

    Returns:
        (N, C, h, w) floats.

    Example: a map of one row. The bins reach from 1.5 to 2.5 and from 2.5 to 3.5: their middles lie between two cells.

        >>> row = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
        >>> roi_align(row, torch.tensor([[1.5, 0.0, 3.5, 1.0]]), (1, 2), 1.0, 1)
        tensor([[[[1.5000, 2.5000]]]])
    """
    return _align(features, boxes * spatial_scale - 0.5, output_size, samples)


def _align(features: Tensor, boxes: Tensor, output_size: Size, samples: int) -> Tensor:
    """Boxes on the map, where the centres of cells have whole numbers."""
    ys, xs = _points(boxes, output_size, samples)
    return _read(features, ys, xs)


def _points(boxes: Tensor, output_size: Size, samples: int) -> tuple[Tensor, Tensor]:
    """Where the points are: ys (N, h, samples) and xs (N, w, samples)."""
    x1, y1, x2, y2 = boxes.T
    return _middles(y1, y2, output_size[0], samples), _middles(x1, x2, output_size[1], samples)


def _middles(low: Tensor, high: Tensor, bins: int, samples: int) -> Tensor:
    parts = bins * samples
    places = (torch.arange(parts) + 0.5) / parts
    return (low[:, None] + (high - low)[:, None] * places).unflatten(1, (bins, samples))


def _read(features: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Bilinear interpolation is linear along y and linear along x, and so is the mean over a bin."""
    rows, columns = _weights(ys, features.shape[1]), _weights(xs, features.shape[2])
    return torch.einsum("nhy,cyx,nwx->nchw", rows, features, columns)


def _weights(points: Tensor, cells: int) -> Tensor:
    """How much each cell counts in each bin: (N, bins, cells)."""
    inside = (points >= -1) & (points <= cells)
    away = (points.clamp(0, cells - 1)[..., None] - torch.arange(cells)).abs()
    return ((1 - away).clamp(min=0) * inside[..., None]).mean(dim=2)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Several boxes, scales and numbers of points; tiny and whole boxes, no box; boxes beyond the map.

    Args:
        rng: of features and corners.

    Returns:
        The cases by group. Corners lie off the grid: rounding moves each of them by 1/8 to 3/8 of a cell.
    """

    def case(name: str, shape: tuple, boxes: list, output: Size, scale: float, samples: int, off: bool = True) -> Case:
        features = torch.from_numpy(rng.uniform(-1, 1, shape)).float()
        corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        if off:
            corners += torch.from_numpy(rng.integers(4, 13, corners.shape) / 32).float()
        return {"name": name, "args": [features, corners / scale, output, scale, samples]}

    two = [[1, 2, 6, 8], [4, 1, 9, 5]]
    three = [[0, 1, 7, 5], [3, 0, 5, 6], [2, 3, 8, 7]]
    outside = [[-4, 1, 3, 6], [5, -5, 11, 12], [8, 9, 12, 12]]
    return {
        "core": (
            3,
            [
                case("one point a bin", (2, 9, 10), two[:1], (3, 2), 1.0, 1),
                case("2 x 2 points a bin", (2, 10, 11), two, (2, 3), 1.0, 2),
                case("a map of a quarter of the image", (3, 8, 10), three, (2, 2), 0.25, 2),
                case("3 x 3 points a bin, half the image", (1, 9, 9), three[:2], (3, 4), 0.5, 3),
            ],
        ),
        "edge": (
            1,
            [
                case("a box smaller than a cell", (2, 6, 7), [[3, 2, 3.25, 2.25], [4, 3, 4.5, 5]], (2, 2), 1.0, 2),
                case("one bin", (2, 8, 7), [[1, 2, 5, 6]], (1, 1), 0.5, 4),
                case("a box around the whole map", (2, 6, 5), [[0, 0, 5, 6]], (4, 3), 0.125, 2, off=False),
                case("no box", (2, 5, 6), [], (3, 2), 0.25, 2),
            ],
        ),
        "outside": (
            1,
            [
                case("boxes beyond the map", (2, 8, 9), outside, (4, 5), 0.5, 2),
                # points at -1, 3, 7 along x and at -1, 2, 5, 8 along y, counted from the first centre: all just inside
                case("points at the very end", (2, 8, 7), [[-2.5, -2, 9.5, 10]], (4, 3), 1.0, 1, off=False),
            ],
        ),
    }


def _on_cells(change: Callable[[Tensor], Tensor]) -> Callable:
    """The right answer for boxes that were changed after they were brought to the map."""

    def answer(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
        return _align(features, change(boxes * spatial_scale) - 0.5, output_size, samples)

    return answer


def _at_points(change: Callable[[Tensor], Tensor]) -> Callable:
    """The right answer at points that were changed."""

    def answer(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
        ys, xs = _points(boxes * spatial_scale - 0.5, output_size, samples)
        return _read(features, change(ys), change(xs))

    return answer


def rounded_and_largest(
    features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int
) -> Tensor:
    """Whole cells, whole bins, and the largest value of each: RoIPool."""
    return roi_pool(features[None], [boxes], output_size, spatial_scale)


def crop_and_resize(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """The cells that the box touches, resized by F.interpolate."""
    height, width = features.shape[1:]
    found = [features.new_zeros(0, len(features), *output_size)]
    for x1, y1, x2, y2 in (boxes * spatial_scale).tolist():
        rows = slice(min(max(int(y1), 0), height - 1), max(int(np.ceil(y2)), 1))
        columns = slice(min(max(int(x1), 0), width - 1), max(int(np.ceil(x2)), 1))
        found.append(F.interpolate(features[None, :, rows, columns], output_size, mode="bilinear"))
    return torch.cat(found)


def half_lost_early(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """Half a pixel of the image in place of half a cell."""
    return _align(features, (boxes - 0.5) * spatial_scale, output_size, samples)


def at_least_one_cell(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """torchvision's roi_align with aligned=False: no half cell, and boxes of at least one cell."""
    low, high = (boxes * spatial_scale).split(2, dim=1)
    return _align(features, torch.cat([low, low + (high - low).clamp(min=1)], dim=1), output_size, samples)


def as_many_as_cells(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """A point for each cell that a bin is wide, rounded up: what torchvision does by default."""
    found = [roi_align(features, boxes[:0], output_size, spatial_scale, 1)]
    for x1, y1, x2, y2 in (boxes * spatial_scale - 0.5)[..., None]:
        down, across = int(((y2 - y1) / output_size[0]).ceil()), int(((x2 - x1) / output_size[1]).ceil())
        found.append(_read(features, _middles(y1, y2, output_size[0], down), _middles(x1, x2, output_size[1], across)))
    return torch.cat(found)


def largest(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """The maximum of a bin's points."""
    fine = roi_align(features, boxes, (output_size[0] * samples, output_size[1] * samples), spatial_scale, 1)
    return F.max_pool2d(fine, samples) if len(boxes) else roi_align(features, boxes, output_size, spatial_scale, 1)


def summed(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """The mean forgotten."""
    return roi_align(features, boxes, output_size, spatial_scale, samples) * samples**2


def upper_left(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """The first corner of each part, not its centre."""
    x1, y1, x2, y2 = (boxes * spatial_scale).T
    parts = (x2 - x1) / output_size[1] / samples, (y2 - y1) / output_size[0] / samples
    shift = torch.stack([*parts, *parts], dim=1) / 2
    return _align(features, boxes * spatial_scale - 0.5 - shift, output_size, samples)


def width_first(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """(w, h)."""
    return roi_align(features, boxes, (output_size[1], output_size[0]), spatial_scale, samples)


def border_for_ever(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """Every point is moved into the map."""
    ys, xs = _points(boxes * spatial_scale - 0.5, output_size, samples)
    height, width = features.shape[1:]
    return _read(features, ys.clamp(0, height - 1), xs.clamp(0, width - 1))


def box_clipped(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """The box is cut at the border of the map."""
    limits = torch.tensor(features.shape[:0:-1]).repeat(2)
    return _align(features, (boxes * spatial_scale).clamp(min=0).minimum(limits) - 0.5, output_size, samples)


def zeros_around(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """Cells of 0 around the map, interpolated with: grid_sample's padding_mode="zeros"."""
    padded = F.pad(features, (2, 2, 2, 2))
    return _align(padded, boxes * spatial_scale + 1.5, output_size, samples)


def nothing_outside(features: Tensor, boxes: Tensor, output_size: Size, spatial_scale: float, samples: int) -> Tensor:
    """0 as soon as a point leaves the outermost centres."""
    ys, xs = _points(boxes * spatial_scale - 0.5, output_size, samples)

    def gone(points: Tensor, cells: int) -> Tensor:
        return torch.where((points < 0) | (points > cells - 1), torch.tensor(-9.0), points)

    return _read(features, gone(ys, features.shape[1]), gone(xs, features.shape[2]))


ROUNDING = "RoIAlign has no round(), no int(), no floor() but that of the interpolation."
HALF = "With cells counted 0, 1, 2 the first centre is at 0, but it lies half a cell from the border of the map."
OUTSIDE = "Along each axis: beyond -1 and beyond H (or W) it is 0; else move the point to between 0 and H - 1."

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
            _on_cells(torch.round),
            "You round the box to whole cells: leave its corners where they are.",
            ROUNDING,
        ),
        Wrong(
            "box cut to whole cells",
            _on_cells(torch.floor),
            "You cut the corners of the box to whole cells, as int() and // do: leave them where they are.",
            ROUNDING,
        ),
        Wrong(
            "points rounded",
            _at_points(torch.round),
            "You read the cell that is nearest to a point: interpolate between the four around it.",
            ROUNDING,
        ),
        Wrong(
            "points cut",
            _at_points(torch.floor),
            "You read the cell above and to the left of a point: interpolate between the four around it.",
            ROUNDING,
        ),
        Wrong(
            "RoIPool",
            rounded_and_largest,
            "This is RoIPool: whole cells, and the largest value of a bin. Keep fractions, interpolate, take the mean.",
            ROUNDING,
        ),
        Wrong(
            "crop and resize",
            crop_and_resize,
            "You cut whole cells out and resize them: divide the box itself, with its fractions, into bins.",
            ROUNDING,
        ),
        Wrong(
            "no half cell",
            _on_cells(lambda boxes: boxes + 0.5),
            "You are half a cell off: the value of cell 0 belongs to the point 0.5, its centre.",
            HALF,
        ),
        Wrong(
            "no half cell, at least one cell",
            at_least_one_cell,
            "You are half a cell off and make small boxes one cell wide: that is aligned=False, the older convention.",
            HALF,
        ),
        Wrong(
            "half a cell twice",
            _on_cells(lambda boxes: boxes + 1),
            "You move the points by half a cell in the wrong direction.",
            HALF,
        ),
        Wrong(
            "half a pixel",
            half_lost_early,
            "You take half a pixel off before you scale: it is half a cell, after scaling.",
            HALF,
        ),
        Wrong(
            "not scaled",
            lambda maps, boxes, size, scale, n: roi_align(maps, boxes, size, 1.0, n),
            "You take pixels of the image for cells of the map: multiply the boxes by spatial_scale.",
            "A map of a quarter of the image has a spatial_scale of 1/4.",
        ),
        Wrong(
            "divided by the scale",
            lambda maps, boxes, size, scale, n: roi_align(maps, boxes, size, 1 / scale, n),
            "You divide by spatial_scale: multiply the boxes by it.",
            "A map of a quarter of the image has a spatial_scale of 1/4: pixel 8 is cell 2.",
        ),
        Wrong(
            "one point a bin",
            lambda maps, boxes, size, scale, n: roi_align(maps, boxes, size, scale, 1),
            "You read one point a bin: read samples x samples of them and take their mean.",
            "With samples = 2 the points lie at 1/4 and 3/4 of the bin, along each axis.",
        ),
        Wrong(
            "as many points as cells",
            as_many_as_cells,
            "The number of your points depends on the size of the box: it is samples x samples in every bin.",
            "sampling_ratio=-1 chooses by the size; sampling_ratio=samples does not.",
        ),
        Wrong(
            "corner of a part",
            upper_left,
            "You read at the upper left corner of each part: read at its centre.",
            "The centre of part i = 0, 1, 2 ... is at i + 0.5 parts.",
        ),
        Wrong("largest point", largest, "You take the largest of a bin's points: take their mean.", "amax or mean?"),
        Wrong("summed", summed, "You add a bin's points up: take their mean.", "Divide by samples * samples."),
        Wrong(
            "y before x",
            _on_cells(lambda boxes: boxes[:, [1, 0, 3, 2]]),
            "You read boxes as (y1, x1, y2, x2): they are (x1, y1, x2, y2).",
            "xyxy.",
        ),
        Wrong(
            "corner and size",
            _on_cells(lambda boxes: torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)),
            "You read boxes as (x, y, width, height): they are (x1, y1, x2, y2).",
            "The size of a bin is (x2 - x1) / w.",
        ),
        Wrong(
            "columns before rows",
            width_first,
            "You read output_size as (w, h): it is (h, w), rows first.",
            "The result has the shape (N, C, h, w).",
        ),
        Wrong(
            "weights swapped",
            _at_points(lambda points: 2 * points.floor() + 1 - points),  # the fraction on the lower cell
            "Your interpolation gives the nearer cell the smaller weight.",
            "At y = 2.25 row 2 counts 0.75 and row 3 counts 0.25.",
        ),
        Wrong(
            "border without end",
            border_for_ever,
            "Far outside the map you go on with its border: more than a cell beyond the last centre it is 0.",
            OUTSIDE,
        ),
        Wrong(
            "box cut at the border",
            box_clipped,
            "You cut the box at the border of the map: its bins get smaller. Leave it, and ask where each point is.",
            OUTSIDE,
        ),
        Wrong(
            "zeros around",
            zeros_around,
            "You interpolate between the border and 0: for one more cell the border goes on, then it is 0 at once.",
            OUTSIDE,
        ),
        Wrong(
            "nothing beyond the last centre",
            nothing_outside,
            "Beyond the outermost centres you read 0 at once: for one more cell the border goes on.",
            OUTSIDE,
        ),
    ],
)
