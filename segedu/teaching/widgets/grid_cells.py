"""Grid cells of chapter 12: which cell of YOLO's grid predicts an object, and what if two objects share one cell?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyBboxPatch, Polygon, Rectangle
from torch import Tensor

from segedu.detection.yolov1 import yolo_depth, yolov1_targets
from segedu.ops.anchors import encode_boxes
from segedu.ops.boxes import box_iou
from segedu.teaching.widgets.explore import explore_in_browser
from segedu.viz import show

SIZE = 64  # side of the image in pixels
# Name, colour, height and width. The objects are encoded in this order, so the bus comes last.
TREE, BALL, BUS = "tree", "ball", "bus"
COLOURS = {TREE: "#009E73", BALL: "#E69F00", BUS: "#56B4E9"}
SIDES = {TREE: (36.0, 16.0), BALL: (14.0, 14.0), BUS: (16.0, 34.0)}
CENTRES = {TREE: (27.0, 30.0), BALL: (50.0, 13.0)}  # y and x of the objects that do not move
ANCHORS = {"tall": (36.0, 14.0), "wide": (14.0, 36.0), "square": (16.0, 16.0)}  # height and width
ONCE, EACH = "once per cell (YOLO v1)", "per anchor (YOLO v2)"
INK, LOST, GRID = "#1b1b1b", "#D55E00", "#8a8a8a"
LABELS = {"cells": "S, cells per side", "x": "x of the bus", "y": "y of the bus", "classes": "class scores"}
FRAMES = [
    {"cells": 7, "x": 40, "y": 38, "classes": ONCE},
    {"cells": 3, "x": 40, "y": 38, "classes": ONCE},
    {"cells": 3, "x": 40, "y": 38, "classes": EACH},
    {"cells": 3, "x": 45, "y": 38, "classes": ONCE},
]


class Slot(NamedTuple):
    """Where an object is encoded: its cell, the index of its anchor or None, and whether the slot was free."""

    row: int
    column: int
    anchor: int | None
    kept: bool


def scene_boxes(x: float, y: float) -> dict[str, Tensor]:
    """Box (4,) xyxy of each object by name, in encoding order, with the centre of the bus at (x, y) in pixels."""
    boxes = {}
    for name, (row, column) in {**CENTRES, BUS: (y, x)}.items():
        height, width = SIDES[name]
        boxes[name] = torch.tensor([column - width / 2, row - height / 2, column + width / 2, row + height / 2])
    return boxes


def best_anchor(box: Tensor) -> int:
    """Index in `ANCHORS` of the anchor with the largest IoU with a box (4,) xyxy around the same centre."""
    return int(box_iou(box[None], _anchors_at(box)).argmax())


def slots(boxes: dict[str, Tensor], cells: int, classes: str) -> dict[str, Slot]:
    """Encode the objects in order; an object whose slot is occupied is not kept.

    Args:
        boxes: name -> (4,) xyxy, as `scene_boxes` gives them.
        cells: S.
        classes: `ONCE`: a cell holds one object. `EACH`: a cell holds one object per anchor.
    """
    occupied, result = set(), {}
    for name, box in boxes.items():
        objects = yolov1_targets(box[None], torch.tensor([1]), cells, (SIZE, SIZE), 2)["objects"]
        row, column = objects.nonzero()[0].tolist()
        slot = (row, column, best_anchor(box) if classes == EACH else None)
        result[name] = Slot(*slot, kept=slot not in occupied)
        occupied.add(slot)
    return result


def depth(classes: str) -> int:
    """Values per cell for three boxes and three classes: 5 * 3 + 3 for `ONCE`, 3 * (5 + 3) for `EACH`."""
    boxes, num_classes = len(ANCHORS), len(COLOURS)
    return yolo_depth(boxes, num_classes) if classes == ONCE else boxes * (5 + num_classes)


def cell_rows(cells: int, x: float, y: float, classes: str) -> list[list[str]]:
    """Target of the bus's cell as text: one row per box, and one for the classes if they are shared.

    Returns:
        Rows of values; "" where the target is undefined, "0" for the confidence of a box without an object.
    """
    boxes = scene_boxes(x, y)
    object_slots = slots(boxes, cells, classes)
    objects = [name for name, slot in object_slots.items() if slot.kept and slot[:2] == object_slots[BUS][:2]]
    if classes == ONCE:
        target = yolov1_targets(boxes[objects[0]][None], torch.tensor([1]), cells, (SIZE, SIZE), 2)
        values = [f"{value:.2f}" for value in target["coordinates"][object_slots[BUS][:2]].tolist()]
        return [[*values, "IoU"] for _ in ANCHORS] + [_one_hot(objects[0])]
    rows = [["", "", "", "", "0", "", "", ""] for _ in ANCHORS]
    for name in objects:
        target = yolov1_targets(boxes[name][None], torch.tensor([1]), cells, (SIZE, SIZE), 2)
        anchor = _anchors_at(boxes[name])[object_slots[name].anchor][None]
        sides = encode_boxes(boxes[name][None], anchor)[0, 2:].tolist()  # log of the sides, relative to the anchor
        values = target["coordinates"][object_slots[name][:2]].tolist()[:2] + sides
        rows[object_slots[name].anchor] = [*(f"{value:.2f}" for value in values), "IoU", *_one_hot(name)]
    return rows


def draw_grid_cells(cells: int = 7, x: int = 40, y: int = 38, classes: str = ONCE) -> None:
    """Show the cell that predicts each object, and the target of the bus's cell; see `slots`."""
    boxes = scene_boxes(x, y)
    object_slots = slots(boxes, cells, classes)
    fig = Figure(figsize=(10.2, 4.3), layout="constrained")
    image, vector = fig.subplots(1, 2, width_ratios=(1, 1.35))
    _paint_image(image, boxes, object_slots, cells)
    _paint_vector(vector, cell_rows(cells, x, y, classes), classes, object_slots)
    lost = [name for name, slot in object_slots.items() if not slot.kept]
    summary = f"the {lost[0]} is lost: its slot is occupied" if lost else "every object has its own slot"
    image.set_title(f"{cells} x {cells} cells: {summary}", fontsize=10, color=INK)
    locations = "; ".join(
        f"{name}: row {slot.row}, column {slot.column}{_anchor(slot)}" for name, slot in object_slots.items()
    )
    volume = f"{cells} x {cells} x {depth(classes)}"
    show(
        fig,
        f"A grid of {cells} x {cells} cells over a tree, a ball and a bus, each with its box, its centre and the cell "
        f"of the centre. {locations}; {summary}. Class scores {classes}: the output has {volume} values.",
    )


def _anchor(slot: Slot) -> str:
    return "" if slot.anchor is None else f", {list(ANCHORS)[slot.anchor]} anchor"


def _anchors_at(box: Tensor) -> Tensor:
    """Anchors (3, 4) around the centre of a box."""
    centre = (box[:2] + box[2:]) / 2
    half = torch.tensor(list(ANCHORS.values())).flip(1) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _one_hot(name: str) -> list[str]:
    return [str(int(other == name)) for other in COLOURS]


def _paint_image(ax: Axes, boxes: dict[str, Tensor], object_slots: dict[str, Slot], cells: int) -> None:
    side = SIZE / cells
    for name, slot in object_slots.items():
        hatch = {TREE: "////", BALL: "....", BUS: "\\\\\\\\"}[name]
        corner = (slot.column * side, slot.row * side)
        ax.add_patch(Rectangle(corner, side, side, fc=COLOURS[name], alpha=0.25, lw=0))
        if slot.kept:  # in a shared cell the hatch of the first object stays visible
            ax.add_patch(Rectangle(corner, side, side, fill=False, ec=INK, hatch=hatch, lw=2, zorder=3))
    for line in range(cells + 1):
        ax.axhline(line * side, color=GRID, lw=0.7)
        ax.axvline(line * side, color=GRID, lw=0.7)
    for name, box in boxes.items():
        x1, y1, x2, y2 = box.tolist()
        style = {"fc": COLOURS[name], "ec": INK, "lw": 0.8, "alpha": 0.75}
        ax.add_patch(_shape(name, x1, y1, x2, y2, style))
        kept = object_slots[name].kept
        colour, dashes = (INK, "-") if kept else (LOST, "--")
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, ls=dashes, lw=1.8, zorder=4))
        ax.plot((x1 + x2) / 2, (y1 + y2) / 2, "o" if kept else "X", color=colour, mec="white", ms=9, zorder=5)
        text = name if kept else f"{name}: lost"
        paper = {"fc": "white", "pad": 1, "lw": 0}
        ax.text(x1 + 0.8, y1 + 0.6, text, fontsize=9, va="top", color=colour, bbox=paper, zorder=5)
    ax.set(xlim=(0, SIZE), ylim=(SIZE, 0), xticks=[], yticks=[], aspect="equal")


def _shape(name: str, x1: float, y1: float, x2: float, y2: float, style: dict) -> Polygon | Ellipse | FancyBboxPatch:
    if name == TREE:
        middle, crown = (x1 + x2) / 2, y1 + 0.75 * (y2 - y1)
        trunk = [(middle + 2, crown), (middle + 2, y2), (middle - 2, y2), (middle - 2, crown)]
        return Polygon([(middle, y1), (x2, crown), *trunk, (x1, crown)], **style)
    if name == BALL:
        return Ellipse(((x1 + x2) / 2, (y1 + y2) / 2), x2 - x1, y2 - y1, **style)
    return FancyBboxPatch((x1 + 2, y1 + 2), x2 - x1 - 4, y2 - y1 - 4, boxstyle="round,pad=2", **style)


def _paint_vector(ax: Axes, rows: list[list[str]], classes: str, object_slots: dict[str, Slot]) -> None:
    """Draw the values of one cell as squares, filled where the target is defined."""
    sizes = ("√w", "√h") if classes == ONCE else ("log w", "log h")
    heads, shared = ["x", "y", *sizes, "conf.", *COLOURS], classes == ONCE
    names = ["box 1", "box 2", "box 3", "classes"] if shared else list(ANCHORS)
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        first = 5 if shared and i == len(ANCHORS) else 0
        ax.text(-0.15, i + 0.5, name, ha="right", va="center", fontsize=10, color=INK)
        for j, word in enumerate(row, start=first):
            pale = shared and i < len(ANCHORS)
            face = "white" if word in ("", "0") else "#dddddd" if pale or j < 5 else list(COLOURS.values())[j - 5]
            ax.add_patch(Rectangle((j, i + 0.08), 0.94, 0.84, fc=face, ec=INK, lw=0.8))
            ax.text(j + 0.47, i + 0.5, word, ha="center", va="center", fontsize=9, color=INK)
    for j, head in enumerate(heads):
        ax.text(j + 0.47, -0.12, head, ha="center", va="bottom", fontsize=9, color=INK)
    formula = f"3 x 5 + 3 = {depth(classes)}" if shared else f"3 x (5 + 3) = {depth(classes)}"
    ax.set_title(f"target of the bus's cell: {formula} values", fontsize=10, color=INK)
    note = (
        "the box with the largest IoU gets this target,\nthe other two only confidence 0"
        if shared
        else "an object is assigned to the anchor with the most\nsimilar shape; empty: no target, only confidence 0"
    )
    ax.text(0, len(rows) + 0.25, note, va="top", fontsize=9, color=INK)
    if not object_slots[BUS].kept:
        words = f"the bus is lost: this is the target of the {_owner(object_slots)}"
        ax.text(0, len(rows) + 1.05, words, va="top", fontsize=9, color=LOST)
    ax.set(xlim=(-1.5, 8.1), ylim=(len(rows) + 1.6, -0.6))
    ax.set_axis_off()


def _owner(object_slots: dict[str, Slot]) -> str:
    """Name of the object in the slot of the bus."""
    return next(name for name, slot in object_slots.items() if slot.kept and slot[:3] == object_slots[BUS][:3])


def explorer() -> None:
    """Show the chapter's widget: an explorer in a notebook, four static frames elsewhere."""
    explore_in_browser(draw_grid_cells, "grid_cells", static=FRAMES, labels=LABELS)
