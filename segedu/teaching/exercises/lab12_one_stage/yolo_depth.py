"""yolo_depth: how many numbers a YOLO head gives at each cell of its grid, by two conventions."""

from __future__ import annotations

import numpy as np

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def yolo_depth(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """Count the numbers that the output has at one cell of the grid.

    Each box of a cell has four coordinates and a confidence. The scores of the classes come

    - once for the whole cell, shared by its boxes, as in YOLOv1 (`per_anchor` False);
    - once for each box, as since YOLOv2, where boxes are anchors (`per_anchor` True).

    The confidence says "here is an object"; so there is no class for background. One class has a score too.

    Args:
        cells: S; the grid has S x S cells.
        boxes: B, boxes of each cell, at least 1.
        classes: C, of objects, at least 1.
        per_anchor: which of the two.

    Returns:
        An int: the depth of the output, which has the shape (S, S, depth).

    Example: YOLOv1 has 7 x 7 cells, 2 boxes and 20 classes.

        >>> yolo_depth(7, 2, 20)
        30
    """
    if per_anchor:
        return boxes * (5 + classes)
    return boxes * 5 + classes


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The homework, and drawn numbers; one box, one class, a single cell.

    Args:
        rng: of cells, boxes and classes.

    Returns:
        The cases by group. Boxes and classes are drawn from ranges where no two of the wrong formulas agree.
    """

    def case(name: str, per_anchor: bool | None, *numbers: int) -> Case:
        args = [*numbers] if per_anchor is None else [*numbers, per_anchor]
        return {"name": f"{name}: {', '.join(map(str, args))}", "args": args}

    def some() -> tuple[int, ...]:
        return int(rng.integers(6, 40)), int(rng.integers(2, 5)) * 2 + 1, int(rng.integers(11, 91))

    S, B, C = some()
    return {
        "shared": (
            1,
            [
                case("the homework, classes shared", False, 19, 5, 20),
                case("classes shared", False, *some()),
                case("per_anchor left out", None, *some()),
            ],
        ),
        "per_anchor": (
            1,
            [
                case("the homework, classes of each anchor", True, 19, 5, 20),
                case("classes of each anchor", True, *some()),
            ],
        ),
        "edge": (
            1,
            [
                case("one box", False, S, 1, C),
                case("one class", False, S, B, 1),
                case("one class of each anchor", True, S, B, 1),
                case("one cell", True, 1, B, C),
            ],
        ),
    }


def multiplied(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """B * 5 * C."""
    return boxes * 5 * classes


def no_confidence(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """4 for 5."""
    return yolo_depth(cells, boxes, classes, per_anchor) - boxes


def with_background(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """C + 1 classes."""
    return yolo_depth(cells, boxes, classes + 1, per_anchor)


def whole_grid(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """S * S * depth."""
    return cells * cells * yolo_depth(cells, boxes, classes, per_anchor)


def shape(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> tuple[int, int, int]:
    """(S, S, depth)."""
    return cells, cells, yolo_depth(cells, boxes, classes, per_anchor)


def always_shared(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """45."""
    return yolo_depth(cells, boxes, classes)


def always_per_anchor(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """125."""
    return yolo_depth(cells, boxes, classes, True)


def conventions_swapped(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """125 for 45 and 45 for 125."""
    return yolo_depth(cells, boxes, classes, not per_anchor)


def confidence_of_the_cell(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """4 B + 1."""
    return no_confidence(cells, boxes, classes, per_anchor) + 1


def no_classes(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """5 B."""
    return boxes * 5


def class_as_a_number(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """One number says which class it is."""
    return yolo_depth(cells, boxes, 1, per_anchor)


def one_class_without_score(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """The confidence is enough for one class."""
    return yolo_depth(cells, boxes, classes if classes > 1 else 0, per_anchor)


def one_box(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """5 + C."""
    return 5 + classes


def one_box_more(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """B + 5 + C."""
    return boxes + 5 + classes


def confidence_of_each_class(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """4 coordinates, and a confidence and a score for each class."""
    return boxes * (4 + 2 * classes) if per_anchor else boxes * (4 + classes) + classes


def coordinates_of_each_class(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """A box for each class, as in Fast R-CNN."""
    return boxes * (1 + 5 * classes) if per_anchor else boxes * (1 + 4 * classes) + classes


FIVE = "x, y, width, height and the confidence: five numbers a box."
WHICH = "YOLOv1 asks each cell for its class, so C comes once. Since YOLOv2 each anchor is asked, so C comes B times."

exercise = Exercise(
    name="yolo_depth",
    points=3,
    cases=cases,
    reference=yolo_depth,
    hides=["segedu.detection.yolov1"],
    wrong=[
        Wrong(
            "all multiplied",
            multiplied,
            "You multiply all three, B * 5 * C: coordinates and classes stand one behind the other.",
            "What stands side by side is added. " + FIVE,
        ),
        Wrong("no confidence", no_confidence, "You count four numbers for a box: it has five.", FIVE),
        Wrong(
            "with background",
            with_background,
            "You add a class for background: where no object is, the confidence is low.",
            "SSD has a column for background, and no confidence. YOLO has it the other way.",
        ),
        Wrong(
            "the whole grid",
            whole_grid,
            "You count the numbers of the whole grid: only those of one cell are asked for.",
            "The output has the shape (S, S, depth). Return the depth.",
        ),
        Wrong("shape", shape, "You return the shape of the output: return its depth only.", "The last of the three."),
        Wrong(
            "always shared",
            always_shared,
            "You share the classes among the boxes, whatever per_anchor says.",
            WHICH,
        ),
        Wrong(
            "always of each anchor",
            always_per_anchor,
            "You give each box classes of its own, whatever per_anchor says.",
            WHICH,
        ),
        Wrong("swapped", conventions_swapped, "You have the two conventions swapped.", WHICH),
        Wrong(
            "one confidence for the cell",
            confidence_of_the_cell,
            "You count one confidence for the cell: each box has its own.",
            FIVE,
        ),
        Wrong("no classes", no_classes, "You leave out the scores of the classes.", WHICH),
        Wrong(
            "the class as a number",
            class_as_a_number,
            "You count one number for the class: each class has a score of its own.",
            "Class 7 is no more than class 3. So networks give a score for each.",
        ),
        Wrong(
            "one class without a score",
            one_class_without_score,
            "You leave out the score where there is one class only: here it has one too.",
            "One could do without it. The formula does not make an exception.",
        ),
        Wrong("one box", one_box, "You count one box for each cell: there are B.", FIVE),
        Wrong(
            "boxes added",
            one_box_more,
            "You add the number of boxes: each of them has five numbers.",
            FIVE,
        ),
        Wrong(
            "a confidence for each class",
            confidence_of_each_class,
            "You give each box a confidence for each class: it has one.",
            FIVE,
        ),
        Wrong(
            "a box for each class",
            coordinates_of_each_class,
            "You give each class coordinates of its own: a box has four, whatever it holds.",
            FIVE + " Fast R-CNN has a box for each class.",
        ),
    ],
)
