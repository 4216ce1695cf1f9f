"""yolo_target: the training target of each cell of YOLO's grid."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from segedu.ops.boxes import box_area, cxcywh_to_xyxy, xyxy_to_cxcywh
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab12_one_stage.grid_objects import cases

Size = tuple[int, int]


def yolo_target(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """Write the objects of an image into a grid, as in YOLOv1.

    The grid has S x S cells, each H / S pixels high and W / S pixels wide. The cell that contains the centre of a box
    is responsible for the object. A centre on a line between two cells belongs to the right or lower cell. The target
    of a responsible cell is, in this order,

    - x and y: the position of the centre within the cell, 0 at its left or upper line and 1 at the opposite line;
    - the square roots of the width and the height, both relative to the image;
    - the confidence, 1;
    - the classes: 1 in column `label - 1` of these, 0 in the others.

    If several objects have their centres in one cell, the cell is responsible for the first of them. The target of a
    cell without an object is 0 everywhere.

    Args:
        boxes: (N, 4) floats (x1, y1, x2, y2) in pixels, within the image. N may be 0.
        labels: (N,) integers from 1 to C.
        cells: S.
        image_size: (H, W) in pixels.
        classes: C.

    Returns:
        (S, S, 5 + C) floats: row, column, target of the cell.

    Example: a box of 40 x 40 in an image of 80 x 80. Its centre (30, 50) lies in row 1, column 0.

        >>> yolo_target(torch.tensor([[10.0, 30, 50, 70]]), torch.tensor([2]), 2, (80, 80), 3)[1, 0]
        tensor([0.7500, 0.2500, 0.7071, 0.7071, 1.0000, 0.0000, 1.0000, 0.0000])
    """
    centres, sides = _relative(boxes, image_size)
    positions = (centres * cells).floor()
    return _written(positions, centres * cells - positions, sides.sqrt(), labels, (cells, classes))


def _relative(boxes: Tensor, image_size: Size) -> tuple[Tensor, Tensor]:
    """Centres (N, 2) and sides (N, 2) relative to the image, x before y."""
    scale = torch.tensor([image_size[1], image_size[0]])
    return (boxes[:, :2] + boxes[:, 2:]) / 2 / scale, (boxes[:, 2:] - boxes[:, :2]) / scale


def _written(positions: Tensor, offsets: Tensor, sides: Tensor, labels: Tensor, counts: Size) -> Tensor:
    """The grid with objects in the cells at `positions` (N, 2), column before row; `counts` are S and C."""
    cells, classes = counts
    target = torch.zeros(cells, cells, 5 + classes)
    for i in reversed(range(len(positions))):  # the first object overwrites the others
        x, y = positions[i].long()
        target[y, x] = 0
        target[y, x, :5] = torch.cat([offsets[i], sides[i], torch.ones(1)])
        target[y, x, 4 + labels[i]] = 1
    return target


right = Variants(yolo_target)


def _written_as(
    cell: Callable = lambda a: (a.centres * a.cells).floor(),
    offset: Callable = lambda a: a.centres * a.cells - a.cell,
    sides: Callable = lambda a: a.sides.sqrt(),
) -> Callable[..., Tensor]:
    """Another cell, offset within the cell, or sides, each a function of the arguments.

    The arguments are extended by `centres` and `sides`, relative to the image, and `cell`, column before row.
    """

    def target(a: SimpleNamespace) -> Tensor:
        a.centres, a.sides = _relative(a.boxes, a.image_size)
        a.cell = cell(a)
        return _written(a.cell, offset(a), sides(a), a.labels, (a.cells, a.classes))

    return right.instead(target)


def _cell_size(a: SimpleNamespace) -> Tensor:
    return torch.tensor([a.image_size[1], a.image_size[0]]) / a.cells


def _in_cells_of_whole_pixels(a: SimpleNamespace) -> Tensor:
    return xyxy_to_cxcywh(a.boxes)[:, :2] / torch.tensor([a.image_size[1] // a.cells, a.image_size[0] // a.cells])


def _sorted_by_area(descending: bool) -> Callable[..., Tensor]:
    def order(a: SimpleNamespace) -> Tensor:
        return box_area(a.boxes).argsort(descending=descending, stable=True)

    return right.given(boxes=lambda a: a.boxes[order(a)], labels=lambda a: a.labels[order(a)])


def _sum_of_objects(a: SimpleNamespace) -> Tensor:
    target = torch.zeros(a.cells, a.cells, 5 + a.classes)
    for box, label in zip(a.boxes, a.labels, strict=True):
        target += yolo_target(box[None], label[None], a.cells, a.image_size, a.classes)
    return target


def _classes_of_all_objects(target: Tensor, a: SimpleNamespace) -> Tensor:
    return torch.cat([target[..., :5], _sum_of_objects(a)[..., 5:].clamp(max=1)], dim=2)


def _every_cell_of_the_box(a: SimpleNamespace) -> Tensor:
    centres, sides = _relative(a.boxes, a.image_size)
    low, high = ((centres - sides / 2) * a.cells).floor().long(), ((centres + sides / 2) * a.cells).ceil().long()
    target = torch.zeros(a.cells, a.cells, 5 + a.classes)
    for i, (first, last) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        covered = torch.tensor([[x, y] for y in range(first[1], last[1]) for x in range(first[0], last[0])])
        many, labels = [i] * len(covered), a.labels[i].expand(len(covered))
        one = _written(covered, centres[many] * a.cells - covered, sides[many].sqrt(), labels, (a.cells, a.classes))
        target = torch.where(target[..., 4:5] == 0, one, target)
    return target


def _changes_boxes(target: Tensor, a: SimpleNamespace) -> Tensor:
    a.boxes /= torch.tensor([a.image_size[1], a.image_size[0]] * 2)
    return target


CELL = (
    "The centre is at (x / W * S, y / H * S) in cells. The integer part is the cell, the rest the position within it."
)
ROOT = "An error of one pixel matters more for a small box than for a large one. The root of w / W expresses this."
OWNER = "In YOLOv1 a cell is responsible for one object, and one cell for an object. Further objects are lost."
INDEX = "target[row, column, channel]"

exercise = Exercise(
    name="yolo_target",
    points=4,
    cases=cases,
    reference=yolo_target,
    tolerance=1e-5,
    kind="grid",
    hides=["segedu.detection.yolov1"],
    wrong=[
        Wrong(
            "cell of the corner",
            _written_as(cell=lambda a: ((a.centres - a.sides / 2) * a.cells).floor()),
            "You use the cell of the upper left corner. The cell that contains the centre is responsible.",
            CELL,
        ),
        Wrong(
            "corner for the centre",
            right.given(boxes=lambda a: a.boxes - xyxy_to_cxcywh(a.boxes)[:, 2:].repeat(1, 2) / 2),
            "You use the upper left corner of a box as its centre. The centre is the mean of two opposite corners.",
            CELL,
        ),
        Wrong(
            "nearest line",
            _written_as(cell=lambda a: (a.centres * a.cells).round()),
            "You round the centre to the nearest line of the grid. Round down: the cell begins at the line "
            "before its centre.",
            "Use floor, not round.",
        ),
        Wrong(
            "to the left of a line",
            _written_as(cell=lambda a: (a.centres * a.cells).ceil() - 1),
            "You assign a centre on a line between two cells to the left or upper cell. Use the right or lower one.",
            "floor returns the right cell.",
        ),
        Wrong(
            "parts of the image",
            _written_as(offset=lambda a: a.centres),
            "Your x and y are relative to the image. They should be positions within the cell.",
            CELL,
        ),
        Wrong(
            "from the corner in pixels",
            _written_as(offset=lambda a: xyxy_to_cxcywh(a.boxes)[:, :2] % _cell_size(a)),
            "You measure x and y within the cell in pixels. They should be relative to the sides of the cell.",
            CELL,
        ),
        Wrong(
            "from the middle",
            _written_as(offset=lambda a: (a.centres * a.cells) % 1 - 0.5),
            "You measure x and y from the middle of the cell. Measure them from its left and its upper line.",
            CELL,
        ),
        Wrong(
            "no root",
            _written_as(sides=lambda a: a.sides),
            "You leave out the square roots. Write the square roots of the relative width and height.",
            ROOT,
        ),
        Wrong(
            "roots of pixels",
            _written_as(sides=lambda a: xyxy_to_cxcywh(a.boxes)[:, 2:].sqrt()),
            "You take the roots of width and height in pixels. They should be relative to the image.",
            ROOT,
        ),
        Wrong(
            "roots of cells",
            _written_as(sides=lambda a: (a.sides * a.cells).sqrt()),
            "You measure width and height in cells. They should be relative to the image.",
            "Objects are often larger than a cell.",
        ),
        Wrong(
            "logarithms",
            _written_as(sides=lambda a: a.sides.log()),
            "You take the logarithms of width and height. YOLOv1 takes the square roots.",
            "YOLOv2 uses logarithms, relative to an anchor.",
        ),
        Wrong(
            "last object",
            right.given(boxes=lambda a: a.boxes.flip(0), labels=lambda a: a.labels.flip(0)),
            "A later object overwrites an earlier one in your cell. The first one in the list keeps the cell.",
            OWNER,
        ),
        Wrong(
            "largest object",
            _sorted_by_area(descending=True),
            "You give the cell to its largest object. The first one in the list keeps the cell.",
            OWNER,
        ),
        Wrong(
            "smallest object",
            _sorted_by_area(descending=False),
            "You give the cell to its smallest object. The first one in the list keeps the cell.",
            OWNER,
        ),
        Wrong(
            "cells of whole pixels",
            _written_as(
                cell=lambda a: _in_cells_of_whole_pixels(a).floor(), offset=lambda a: _in_cells_of_whole_pixels(a) % 1
            ),
            "You round the side of a cell down to an integer. Do not round: in 100 pixels, each of three cells "
            "has 33.3 pixels.",
            "Divide with / instead of //.",
        ),
        Wrong(
            "objects added",
            right.instead(_sum_of_objects),
            "You add the values of several objects in one cell. The cell keeps the values of the first object in "
            "the list.",
            OWNER,
        ),
        Wrong(
            "classes of all",
            right.then(_classes_of_all_objects),
            "Your cell has the classes of all its objects. It should have the class of the first one only.",
            OWNER,
        ),
        Wrong(
            "every cell of the box",
            right.instead(_every_cell_of_the_box),
            "You write an object into every cell that its box covers. Only the cell of its centre is responsible.",
            OWNER,
        ),
        Wrong(
            "rows and columns",
            right.then(lambda out, a: out.transpose(0, 1)),
            "You swap the rows and columns of the grid. y determines the row, x the column.",
            INDEX,
        ),
        Wrong(
            "y before x",
            right.then(lambda out, a: out[..., [1, 0, 3, 2, *range(4, 5 + a.classes)]]),
            "You write y before x and height before width. The order is x, y, width, height.",
            "x, y, then width, height.",
        ),
        Wrong(
            "height for width",
            right.given(image_size=lambda a: a.image_size[::-1]),
            "You use the height of the image as its width. Divide x by the width of the image and y by its height.",
            "image_size is (H, W).",
        ),
        Wrong(
            "confidence first",
            right.then(lambda out, a: out[..., [4, 0, 1, 2, 3, *range(5, 5 + a.classes)]]),
            "You write the confidence before the box. It comes after the box.",
            "x, y, width, height, confidence, classes.",
        ),
        Wrong(
            "labels from 0",
            right.given(labels=lambda a: a.labels + 1),
            "You use the label as the column. Labels begin with 1, columns with 0.",
            "Label 1 belongs to the first of the C columns.",
        ),
        Wrong(
            "with background",
            right.given(labels=lambda a: a.labels + 1, classes=lambda a: a.classes + 1),
            "You have a column for background. There should be C class columns, and none for background.",
            "Where there is no object, the confidence is 0.",
        ),
        Wrong(
            "channels first",
            right.then(lambda out, a: out.permute(2, 0, 1)),
            "You return (5 + C, S, S). The shape should be (S, S, 5 + C).",
            INDEX,
        ),
        Wrong(
            "read as centre and sides",
            right.given(boxes=lambda a: cxcywh_to_xyxy(a.boxes)),
            "You read boxes as (x, y, w, h). They are (x1, y1, x2, y2).",
            CELL,
        ),
        Wrong(
            "changes the boxes",
            right.then(_changes_boxes),
            "You change the argument `boxes` in place. The caller still needs the original boxes.",
            "`boxes /= ...` works in place; `boxes = boxes / ...` makes a new tensor.",
        ),
    ],
)
