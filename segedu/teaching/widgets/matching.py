"""Set matching (chapter 12): the cost of every prediction for every object, and three rules for choosing pairs."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from segedu.ops.boxes import cxcywh_to_xyxy, generalized_box_iou
from segedu.ops.matching import hungarian_matching
from segedu.teaching.widgets.explore import explore_in_browser
from segedu.viz import show

INK, OBJECT, PAIR = "#1b1b1b", "#0072B2", "#D55E00"
CLASSES = ("square", "circle", "nothing")
OBJECTS = {"A": 0, "B": 0, "C": 1}  # class of each object
BOXES = ((0.30, 0.40, 0.20, 0.40), (0.52, 0.40, 0.20, 0.40), (0.80, 0.65, 0.24, 0.30))  # cx, cy, w, h
# Predictions 2 to 5; the first one is moved. Boxes, then probabilities of `CLASSES`.
OTHERS = ((0.19, 0.40, 0.20, 0.40), (0.76, 0.62, 0.26, 0.34), (0.86, 0.70, 0.20, 0.20), (0.45, 0.85, 0.30, 0.20))
PROBABILITIES = ((0.70, 0.10, 0.20), (0.10, 0.80, 0.10), (0.05, 0.75, 0.20), (0.20, 0.20, 0.60))
CHEAPEST, GREEDY, LEAST = "cheapest prediction per object", "cheapest pair first", "smallest total cost"
RULES = (CHEAPEST, GREEDY, LEAST)
LABELS = {"x": "centre of prediction 1", "score": 'its probability of "square"', "rule": "rule"}
FRAMES = [{"x": 0.38, "score": 0.8, "rule": rule} for rule in RULES] + [{"x": 0.3, "score": 0.8, "rule": LEAST}]


def predictions(x: float, score: float) -> tuple[Tensor, Tensor]:
    """The five predictions; the first has its centre at x and the given probability of "square".

    Returns:
        Boxes (5, 4) as (cx, cy, w, h) relative to the image, and probabilities (5, 3).
    """
    rest = (1 - score) / 2
    return torch.tensor([(x, 0.40, 0.20, 0.40), *OTHERS]), torch.tensor([(score, rest, rest), *PROBABILITIES])


def costs(boxes: Tensor, probabilities: Tensor) -> Tensor:
    """DETR's cost -p + 5 |difference| - 2 GIoU of boxes (Q, 4), as (cx, cy, w, h), for each object: (Q, N)."""
    gt_boxes = torch.tensor(BOXES)
    l1 = (boxes[:, None] - gt_boxes).abs().sum(dim=2)
    giou = generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(gt_boxes))
    return -probabilities[:, list(OBJECTS.values())] + 5 * l1 - 2 * giou


def partners(cost: Tensor, rule: str) -> list[int]:
    """Choose the prediction of each object by one of `RULES`.

    Returns:
        N rows of `cost` (Q, N). Only with `CHEAPEST` may a row occur twice.

    >>> [partners(torch.tensor([[1.0, 2.0], [2.0, 9.0]]), rule) for rule in RULES]
    [[0, 0], [0, 1], [1, 0]]
    """
    if rule == CHEAPEST:
        return cost.argmin(dim=0).tolist()
    if rule == LEAST:
        rows, columns = hungarian_matching(cost)
        return rows[columns.argsort()].tolist()
    if rule != GREEDY:
        raise ValueError(f"rule is {rule!r}, expected one of {', '.join(RULES)}")
    remaining, chosen = cost.clone(), [0] * cost.shape[1]
    for _ in chosen:
        row, column = divmod(int(remaining.argmin()), cost.shape[1])
        chosen[column] = row
        remaining[row], remaining[:, column] = torch.inf, torch.inf
    return chosen


def draw_matching(x: float = 0.38, score: float = 0.8, rule: str = LEAST) -> None:
    """Show objects and predictions with the pairs of a rule, and the cost matrix; see `predictions`."""
    boxes, probabilities = predictions(x, score)
    cost = costs(boxes, probabilities)
    chosen = partners(cost, rule)
    total = float(cost[chosen, range(len(chosen))].sum())
    fig = Figure(figsize=(9.6, 3.9), layout="constrained")
    image, matrix = fig.subplots(1, 2, width_ratios=(1.15, 1))
    _paint_image(image, boxes, chosen)
    _paint_matrix(matrix, cost, chosen)
    repeated = sorted({row + 1 for row in chosen if chosen.count(row) > 1})
    conflict = f"; prediction {repeated[0]} is matched twice" if repeated else ""
    image.set_title(f"rule: {rule}", fontsize=10, color=INK)
    matrix.set_title(f"sum {total:.2f}{conflict}", fontsize=10, color=INK)
    pairs = ", ".join(f"{name} with prediction {row + 1}" for name, row in zip(OBJECTS, chosen, strict=True))
    unmatched = [str(row + 1) for row in range(len(cost)) if row not in chosen]
    show(
        fig,
        f"Three objects A, B and C and five predicted boxes, and the cost of every pair. With the rule "
        f"'{rule}': {pairs}; sum {total:.2f}{conflict}. Unmatched predictions: {', '.join(unmatched)}.",
    )


def _paint_image(ax: Axes, boxes: Tensor, chosen: list[int]) -> None:
    for (name, label), (cx, cy, w, h) in zip(OBJECTS.items(), BOXES, strict=True):
        ax.add_patch(Rectangle((cx - w / 2, cy - h / 2), w, h, fc=OBJECT, alpha=0.15, lw=0))
        ax.add_patch(Rectangle((cx - w / 2, cy - h / 2), w, h, fill=False, ec=OBJECT, ls="--", lw=2))
        style = {"color": OBJECT, "fontsize": 10, "ha": "center", "va": "bottom"}
        ax.text(cx, cy - h / 2 - 0.01, f"{name}: {CLASSES[label]}", **style)
    for row, (cx, cy, w, h) in enumerate(boxes.tolist()):
        width = 2 if row in chosen else 1
        ax.add_patch(Rectangle((cx - w / 2, cy - h / 2), w, h, fill=False, ec=INK, lw=width))
        card = {"fc": "white", "ec": INK, "pad": 1.5, "lw": 0.6}
        # at the lower right corner it hides no label and no centre
        ax.text(cx + w / 2, cy + h / 2, str(row + 1), fontsize=9, ha="right", va="bottom", bbox=card)
    for row, (cx, cy, _, _) in zip(chosen, BOXES, strict=True):
        start = boxes[row, :2].tolist()
        ax.plot([start[0], cx], [start[1], cy], "-", color=PAIR, lw=2.5)
        ax.plot(*start, "o", color=PAIR, ms=8)
        ax.plot(cx, cy, "D", color="white", mec=PAIR, mew=2, ms=8)
    ax.set(xlim=(0, 1), ylim=(1, 0.1), xticks=[], yticks=[])


def _paint_matrix(ax: Axes, cost: Tensor, chosen: list[int]) -> None:
    # pale colours, so that dark numbers are legible
    ax.imshow(cost, cmap="cividis_r", vmin=-3, vmax=5, aspect="auto", alpha=0.55)
    for row, line in enumerate(cost.tolist()):
        for column, value in enumerate(line):
            picked = chosen[column] == row
            weight = "bold" if picked else "normal"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=INK, fontsize=10, weight=weight)
            if picked:
                ax.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, ec=PAIR, lw=3))
    ax.set_xticks(range(len(OBJECTS)), OBJECTS, fontsize=10)
    ax.set_yticks(range(len(cost)), [f"prediction {row + 1}" for row in range(len(cost))], fontsize=10)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)


def explorer() -> None:
    """Show the chapter's widget: an explorer in a notebook, four static frames elsewhere."""
    explore_in_browser(draw_matching, "matching", static=FRAMES, labels=LABELS)
