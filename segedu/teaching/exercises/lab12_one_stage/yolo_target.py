"""yolo_target: what each cell of YOLO's grid should say."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.exercises.lab12_one_stage.grid_objects import cases

Size = tuple[int, int]


def yolo_target(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """Write the objects of an image into the grid, as in YOLOv1.

    The grid has S x S cells, each H / S pixels high and W / S wide. An object belongs to the cell in which the centre
    of its box lies; on a line between cells to the right or lower one. This cell says, in this order,

    - x and y: where in the cell the centre lies, 0 at its left or upper line and 1 at the other;
    - the square roots of the width and of the height, each as a part of the image's;
    - 1, the confidence;
    - the classes: 1 in column `label - 1` of these, 0 in the others.

    Of several objects in one cell it takes the first one of the list. Cells without an object are 0 everywhere.

    Args:
        boxes: (N, 4) floats (x1, y1, x2, y2) in pixels, within the image; N may be 0.
        labels: (N,) integers from 1 to C.
        cells: S.
        image_size: (H, W) in pixels.
        classes: C.

    Returns:
        (S, S, 5 + C) floats: row, column, and what the cell says.

    Example: a box of 40 x 40 in an image of 80 x 80. Its centre (30, 50) lies in row 1, column 0.

        >>> yolo_target(torch.tensor([[10.0, 30, 50, 70]]), torch.tensor([2]), 2, (80, 80), 3)[1, 0]
        tensor([0.7500, 0.2500, 0.7071, 0.7071, 1.0000, 0.0000, 1.0000, 0.0000])
    """
    centres, sides = _relative(boxes, image_size)
    places = (centres * cells).floor()
    return _written(places, centres * cells - places, sides.sqrt(), labels, (cells, classes))


def _relative(boxes: Tensor, image_size: Size) -> tuple[Tensor, Tensor]:
    """Centres (N, 2) and sides (N, 2), x before y, as parts of the image."""
    scale = torch.tensor([image_size[1], image_size[0]])
    return (boxes[:, :2] + boxes[:, 2:]) / 2 / scale, (boxes[:, 2:] - boxes[:, :2]) / scale


def _written(places: Tensor, offsets: Tensor, sides: Tensor, labels: Tensor, counts: Size) -> Tensor:
    """The grid of objects at `places` (N, 2), column before row; `counts`: S and C."""
    cells, classes = counts
    target = torch.zeros(cells, cells, 5 + classes)
    for i in reversed(range(len(places))):  # the first object has the last word
        x, y = places[i].long()
        target[y, x] = 0
        target[y, x, :5] = torch.cat([offsets[i], sides[i], torch.ones(1)])
        target[y, x, 4 + labels[i]] = 1
    return target


def cell_of_the_corner(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """The cell of (x1, y1), and the centre measured from there."""
    centres, sides = _relative(boxes, image_size)
    places = ((centres - sides / 2) * cells).floor()
    return _written(places, centres * cells - places, sides.sqrt(), labels, (cells, classes))


def corner_for_centre(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """Cell and offset of (x1, y1)."""
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    return yolo_target(boxes - half.repeat(1, 2), labels, cells, image_size, classes)


def nearest_line(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """round for floor."""
    centres, sides = _relative(boxes, image_size)
    places = (centres * cells).round()
    return _written(places, centres * cells - places, sides.sqrt(), labels, (cells, classes))


def left_of_a_line(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """On a line to the left or upper cell."""
    centres, sides = _relative(boxes, image_size)
    places = (centres * cells).ceil() - 1
    return _written(places, centres * cells - places, sides.sqrt(), labels, (cells, classes))


def _sides_as(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int, sides: Tensor) -> Tensor:
    """Other numbers (N, 2) for the sides."""
    centres, _ = _relative(boxes, image_size)
    places = (centres * cells).floor()
    return _written(places, centres * cells - places, sides, labels, (cells, classes))


def _offsets_as(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int, offsets: Tensor) -> Tensor:
    """Other numbers (N, 2) for x and y."""
    centres, sides = _relative(boxes, image_size)
    return _written((centres * cells).floor(), offsets, sides.sqrt(), labels, (cells, classes))


def parts_of_the_image(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """x and y as parts of the image."""
    return _offsets_as(boxes, labels, cells, image_size, classes, _relative(boxes, image_size)[0])


def offsets_in_pixels(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """x and y from the corner of the cell, in pixels."""
    one = torch.tensor([image_size[1], image_size[0]]) / cells
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return _offsets_as(boxes, labels, cells, image_size, classes, centres % one)


def from_the_middle(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """x and y from the middle of the cell."""
    return _offsets_as(boxes, labels, cells, image_size, classes, (_relative(boxes, image_size)[0] * cells) % 1 - 0.5)


def no_root(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """Width and height themselves."""
    return _sides_as(boxes, labels, cells, image_size, classes, _relative(boxes, image_size)[1])


def root_of_pixels(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """Roots of pixels."""
    return _sides_as(boxes, labels, cells, image_size, classes, (boxes[:, 2:] - boxes[:, :2]).sqrt())


def root_of_cells(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """Roots of sides in cells."""
    return _sides_as(boxes, labels, cells, image_size, classes, (_relative(boxes, image_size)[1] * cells).sqrt())


def logarithms(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """Logarithms of the sides, as since YOLOv2."""
    return _sides_as(boxes, labels, cells, image_size, classes, _relative(boxes, image_size)[1].log())


def last_object(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """A later object overwrites the cell."""
    return yolo_target(boxes.flip(0), labels.flip(0), cells, image_size, classes)


def largest_object(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """The largest object keeps the cell."""
    order = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).argsort(descending=True, stable=True)
    return yolo_target(boxes[order], labels[order], cells, image_size, classes)


def smallest_object(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """The smallest object keeps the cell."""
    order = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).argsort(stable=True)
    return yolo_target(boxes[order], labels[order], cells, image_size, classes)


def cells_of_whole_pixels(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """W // S for W / S."""
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, _relative(boxes, image_size)[1]
    places = centres / torch.tensor([image_size[1] // cells, image_size[0] // cells])
    return _written(places.floor(), places % 1, sides.sqrt(), labels, (cells, classes))


def added(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """Objects of one cell are added."""
    target = torch.zeros(cells, cells, 5 + classes)
    for i in range(len(boxes)):
        target += yolo_target(boxes[i : i + 1], labels[i : i + 1], cells, image_size, classes)
    return target


def classes_of_all(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """The first box, but the classes of all objects of the cell."""
    target = yolo_target(boxes, labels, cells, image_size, classes)
    every = added(boxes, labels, cells, image_size, classes)
    return torch.cat([target[..., :5], every[..., 5:].clamp(max=1)], dim=2)


def all_cells_of_the_box(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """Each cell that the box covers says it."""
    centres, sides = _relative(boxes, image_size)
    low, high = ((centres - sides / 2) * cells).floor().long(), ((centres + sides / 2) * cells).ceil().long()
    target = torch.zeros(cells, cells, 5 + classes)
    for i, (first, last) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        places = torch.tensor([[x, y] for y in range(first[1], last[1]) for x in range(first[0], last[0])])
        many, kinds = [i] * len(places), labels[i].expand(len(places))
        one = _written(places, centres[many] * cells - places, sides[many].sqrt(), kinds, (cells, classes))
        target = torch.where(target[..., 4:5] == 0, one, target)
    return target


def column_for_row(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """target[column, row]."""
    return yolo_target(boxes, labels, cells, image_size, classes).transpose(0, 1)


def y_before_x(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """(y, x, height, width)."""
    return yolo_target(boxes, labels, cells, image_size, classes)[..., [1, 0, 3, 2, *range(4, 5 + classes)]]


def height_for_width(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """H and W swapped."""
    return yolo_target(boxes, labels, cells, image_size[::-1], classes)


def confidence_first(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """Confidence, then the box."""
    return yolo_target(boxes, labels, cells, image_size, classes)[..., [4, 0, 1, 2, 3, *range(5, 5 + classes)]]


def labels_from_zero(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """Column `label` for `label - 1`."""
    return yolo_target(boxes, labels + 1, cells, image_size, classes)


def with_background(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """A column more, for label 0."""
    return yolo_target(boxes, labels + 1, cells, image_size, classes + 1)


def channels_first(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """(5 + C, S, S)."""
    return yolo_target(boxes, labels, cells, image_size, classes).permute(2, 0, 1)


def read_as_centre_and_sides(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """The four numbers of a box are x, y, w, h."""
    half = boxes[:, 2:] / 2
    read = torch.cat([boxes[:, :2] - half, boxes[:, :2] + half], dim=1)
    return yolo_target(read, labels, cells, image_size, classes)


def changes_boxes(boxes: Tensor, labels: Tensor, cells: int, image_size: Size, classes: int) -> Tensor:
    """Divides in place."""
    target = yolo_target(boxes, labels, cells, image_size, classes)
    boxes /= torch.tensor([image_size[1], image_size[0]] * 2)
    return target


CELL = "The centre in cells is (x / W * S, y / H * S): its whole part says the cell, the rest where in the cell."
ROOT = "A pixel more matters for a small box, and hardly for a large one. The root of w / W sees it so."
OWNER = "YOLOv1 has one object for a cell, and one cell for an object. A second one is lost: a limit of the method."

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
            cell_of_the_corner,
            "You take the cell of the upper left corner: the cell of the centre is asked for.",
            CELL,
        ),
        Wrong(
            "corner for the centre",
            corner_for_centre,
            "You take the upper left corner for the centre of the box.",
            CELL,
        ),
        Wrong(
            "nearest line",
            nearest_line,
            "You round the centre to the nearest line: the cell in which it lies begins at the line before it.",
            "floor, not round.",
        ),
        Wrong(
            "to the left of a line",
            left_of_a_line,
            "A centre on a line between two cells belongs to the right or lower one.",
            "floor does this by itself.",
        ),
        Wrong(
            "parts of the image",
            parts_of_the_image,
            "Your x and y are parts of the image: they say where in the cell the centre lies.",
            CELL,
        ),
        Wrong(
            "from the corner in pixels",
            offsets_in_pixels,
            "Your x and y are pixels from the corner of the cell: they are parts of the cell.",
            CELL,
        ),
        Wrong(
            "from the middle",
            from_the_middle,
            "Your x and y are measured from the middle of the cell: 0 is its left or upper line.",
            CELL,
        ),
        Wrong("no root", no_root, "You leave out the square roots of width and height.", ROOT),
        Wrong(
            "roots of pixels",
            root_of_pixels,
            "You take the roots of pixels: width and height are parts of the image's.",
            ROOT,
        ),
        Wrong(
            "roots of cells",
            root_of_cells,
            "You measure width and height in cells: they are parts of the image's.",
            "Objects are often larger than a cell.",
        ),
        Wrong(
            "logarithms",
            logarithms,
            "You take the logarithm of width and height: YOLOv1 takes the square root.",
            "YOLOv2 takes logarithms, against an anchor.",
        ),
        Wrong(
            "last object",
            last_object,
            "A later object overwrites an earlier one in your cell: the first one of the list keeps it.",
            OWNER,
        ),
        Wrong(
            "largest object",
            largest_object,
            "Your cell belongs to its largest object: the first one of the list keeps it.",
            OWNER,
        ),
        Wrong("smallest object", smallest_object, "Your smallest object has the cell: the first one keeps it.", OWNER),
        Wrong(
            "cells of whole pixels",
            cells_of_whole_pixels,
            "Your cells are whole pixels wide: of 100 pixels three cells have 33.3 each.",
            "/ for //.",
        ),
        Wrong("objects added", added, "You add the objects of one cell: the first one of the list keeps it.", OWNER),
        Wrong(
            "classes of all",
            classes_of_all,
            "Your cell has the classes of all its objects: only that of the first one counts.",
            OWNER,
        ),
        Wrong(
            "every cell of the box",
            all_cells_of_the_box,
            "You write an object into every cell that its box covers: only the cell of its centre is responsible.",
            OWNER,
        ),
        Wrong(
            "rows and columns",
            column_for_row,
            "You have rows and columns of the grid swapped: target[row, column], and y says the row.",
            "target[row, column, what].",
        ),
        Wrong("y before x", y_before_x, "You write y before x, and height before width.", "x, y, then width, height."),
        Wrong(
            "height for width", height_for_width, "You take the image's height for its width.", "image_size is (H, W)."
        ),
        Wrong(
            "confidence first",
            confidence_first,
            "Your confidence comes before the box: it comes behind it.",
            "x, y, width, height, confidence, classes.",
        ),
        Wrong(
            "labels from 0",
            labels_from_zero,
            "You take the label for the column: labels begin with 1, columns with 0.",
            "Label 1 has the first of the C columns.",
        ),
        Wrong(
            "with background",
            with_background,
            "You have a column for background: C columns are asked for.",
            "Where no object is, the confidence is 0.",
        ),
        Wrong(
            "channels first",
            channels_first,
            "You put the grid last: the shape is (S, S, 5 + C).",
            "target[row, column, what].",
        ),
        Wrong(
            "read as centre and sides",
            read_as_centre_and_sides,
            "You read boxes as (x, y, w, h): they are (x1, y1, x2, y2).",
            CELL,
        ),
        Wrong(
            "changes the boxes",
            changes_boxes,
            "You change the boxes that you were given: whoever called you still needs them.",
            "`boxes /= ...` works in place; `boxes = boxes / ...` makes new ones.",
        ),
    ],
)
