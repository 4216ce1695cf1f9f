"""yolo_depth: how many values a YOLO head predicts per grid cell, by two conventions."""

from __future__ import annotations

import numpy as np

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def yolo_depth(cells: int, boxes: int, classes: int, per_anchor: bool = False) -> int:
    """Count the values that the network predicts for one cell of the grid.

    For each box of a cell, it predicts four coordinates and a confidence. It predicts the class scores

    - once per cell, shared by the boxes of the cell, as in YOLOv1 (`per_anchor` False);
    - once per box, as since YOLOv2, where the boxes are anchors (`per_anchor` True).

    The confidence says whether there is an object, so there is no background class. A single class has a score too.

    Args:
        cells: S; the grid has S x S cells.
        boxes: B, boxes per cell, at least 1.
        classes: C, classes of objects, at least 1.
        per_anchor: which of the two conventions.

    Returns:
        An int: the depth of the output, which has the shape (S, S, depth).

    Example: YOLOv1 has 7 x 7 cells, 2 boxes per cell and 20 classes.

        >>> yolo_depth(7, 2, 20)
        30
    """
    if per_anchor:
        return boxes * (5 + classes)
    return boxes * 5 + classes


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The homework, random numbers, ones; in the ranges of these numbers no two of the wrong formulas agree."""

    def numbered(name: str, *args: int | bool) -> Case:
        return case(f"{name}: {', '.join(map(str, args))}", *args)

    def some() -> tuple[int, ...]:
        return int(rng.integers(6, 40)), int(rng.integers(2, 5)) * 2 + 1, int(rng.integers(11, 91))

    S, B, C = some()
    shared = [
        numbered("the homework, shared classes", 19, 5, 20, False),
        numbered("shared classes", *some(), False),
        numbered("per_anchor not given", *some()),
    ]
    per_anchor = [
        numbered("the homework, classes per anchor", 19, 5, 20, True),
        numbered("classes per anchor", *some(), True),
    ]
    edge = [
        numbered("one box", S, 1, C, False),
        numbered("one class", S, B, 1, False),
        numbered("one class, per anchor", S, B, 1, True),
        numbered("one cell", 1, B, C, True),
    ]
    return {"shared": (1, shared), "per_anchor": (1, per_anchor), "edge": (1, edge)}


right = Variants(yolo_depth)
FIVE = "x, y, width, height and the confidence: five values per box."
WHICH = (
    "YOLOv1 predicts the class per cell, so C is counted once. YOLOv2 predicts it per anchor, so C is counted B times."
)
GRID = "The output has the shape (S, S, depth). Return the depth."

exercise = Exercise(
    name="yolo_depth",
    points=3,
    cases=cases,
    reference=yolo_depth,
    hides=["segedu.detection.yolov1"],
    wrong=[
        Wrong(
            "all multiplied",
            right.instead(lambda a: a.boxes * 5 * a.classes),
            "You multiply all three numbers, B * 5 * C. Boxes and class scores are separate values, so add their "
            "numbers.",
            "Values that are predicted side by side are added. " + FIVE,
        ),
        Wrong(
            "no confidence",
            right.then(lambda out, a: out - a.boxes),
            "You count 4 values per box. Each box has 5: four coordinates and a confidence.",
            FIVE,
        ),
        Wrong(
            "with background",
            right.given(classes=lambda a: a.classes + 1),
            "You add a background class. YOLO has none: the confidence is low where there is no object.",
            "SSD has a background class and no confidence. In YOLO it is the other way round.",
        ),
        Wrong(
            "the whole grid",
            right.then(lambda out, a: a.cells * a.cells * out),
            "You count the values of the whole grid. Count those of one cell.",
            GRID,
        ),
        Wrong(
            "shape",
            right.then(lambda out, a: (a.cells, a.cells, out)),
            "You return the shape of the output. Return its depth, an integer.",
            GRID,
        ),
        Wrong(
            "always shared",
            right.given(per_anchor=lambda a: False),
            "You always count the class scores once per cell. If per_anchor is True, count them once per box.",
            WHICH,
        ),
        Wrong(
            "always of each anchor",
            right.given(per_anchor=lambda a: True),
            "You always count the class scores once per box. If per_anchor is False, count them once per cell.",
            WHICH,
        ),
        Wrong(
            "swapped",
            right.given(per_anchor=lambda a: not a.per_anchor),
            "You swap the two conventions. Count the class scores once per box if per_anchor is True, and once "
            "per cell otherwise.",
            WHICH,
        ),
        Wrong(
            "one confidence for the cell",
            right.then(lambda out, a: out - a.boxes + 1),
            "You count one confidence per cell. Each box has its own.",
            FIVE,
        ),
        Wrong(
            "no classes",
            right.instead(lambda a: a.boxes * 5),
            "You do not count the class scores. There are C of them, for each cell or for each box.",
            WHICH,
        ),
        Wrong(
            "the class as a number",
            right.given(classes=lambda a: 1),
            "You count a single value for the class. Each class has a score of its own.",
            "Class numbers have no order: class 7 is not more than class 3. So networks predict a score per class.",
        ),
        Wrong(
            "one class without a score",
            right.given(classes=lambda a: a.classes if a.classes > 1 else 0),
            "You do not count a class score if there is only one class. A single class has a score too.",
            "The score would not be necessary, but the formula makes no exception.",
        ),
        Wrong(
            "one box",
            right.instead(lambda a: 5 + a.classes),
            "You count one box per cell. Each cell has B boxes.",
            FIVE,
        ),
        Wrong(
            "boxes added",
            right.instead(lambda a: a.boxes + 5 + a.classes),
            "You add the number of boxes. Multiply by it, because each box has five values.",
            FIVE,
        ),
        Wrong(
            "a confidence for each class",
            right.then(lambda out, a: out + a.boxes * (a.classes - 1)),
            "You count a confidence per class for each box. A box has one confidence.",
            FIVE,
        ),
        Wrong(
            "a box for each class",
            right.then(lambda out, a: out + 4 * a.boxes * (a.classes - 1)),
            "You count four coordinates per class. A box has four coordinates, whatever its class.",
            FIVE + " In Fast R-CNN, each class has coordinates of its own.",
        ),
    ],
)
