"""Widgets of chapter 11: anchors and the IoU thresholds that label them; non-maximum suppression step by step."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from segedu.datasets.shapes import draw_shapes
from segedu.ops.anchors import BACKGROUND, NEITHER, cell_anchors, decode_boxes, grid_anchors, match_anchors
from segedu.ops.boxes import box_iou
from segedu.teaching.widgets.explore import explore_in_browser
from segedu.viz import palette, show

INK, KEPT, REMOVED, PALE = "#1b1b1b", "#0072B2", "#D55E00", "#8a8a8a"
SEED, SIDE = 40, 64  # a scene with a small triangle in front of a large one
OBJECTS = ("upper triangle", "large triangle", "square", "small triangle in front", "circle")  # of that scene
PER_OBJECT = 4  # detections of each object in the second widget
SIZES = {"17": (17.0,), "12, 17, 24": (12.0, 17.0, 24.0)}  # in pixels
RATIOS = {"1": (1.0,), "0.5, 1, 2": (0.5, 1.0, 2.0)}  # height over width
FRAMES = [
    {"stride": 8, "sizes": "17", "ratios": "1", "positive_iou": 0.7, "force_best": False},
    {"stride": 8, "sizes": "12, 17, 24", "ratios": "0.5, 1, 2", "positive_iou": 0.7, "force_best": False},
    {"stride": 8, "sizes": "12, 17, 24", "ratios": "0.5, 1, 2", "positive_iou": 0.7, "force_best": True},
    {"stride": 8, "sizes": "12, 17, 24", "ratios": "0.5, 1, 2", "positive_iou": 0.5, "force_best": True},
    {"stride": 16, "sizes": "12, 17, 24", "ratios": "0.5, 1, 2", "positive_iou": 0.7, "force_best": True},
]
NMS_FRAMES = [
    {"iou_threshold": 0.5, "step": 0},
    {"iou_threshold": 0.5, "step": 1},
    {"iou_threshold": 0.5, "step": 3},
    {"iou_threshold": 0.5, "step": 6},  # the last step at each threshold: no detection waits any more
    {"iou_threshold": 0.3, "step": 4},
    {"iou_threshold": 0.8, "step": 19},
]


class Detections(NamedTuple):
    """Boxes as a network might predict them: several around every object, of different quality."""

    boxes: Tensor  # (N, 4), best score first
    scores: Tensor  # (N,)


class Step(NamedTuple):
    """State of non-maximum suppression after some steps; each field lists rows of the detections."""

    kept: list[int]
    removed_before: list[int]  # in earlier steps
    removed: list[int]  # in this step, because of the last kept box
    waiting: list[int]


@lru_cache
def scene() -> tuple[np.ndarray, Tensor]:
    """Image (64, 64, 3) and the boxes (N, 4) of its objects, always the same."""
    sample = draw_shapes(SEED, (SIDE, SIDE))
    return np.moveaxis(sample["image"].numpy(), 0, 2), sample["boxes"].as_subclass(Tensor)


def anchors(stride: int, sizes: str, ratios: str) -> Tensor:
    """Anchors (H * W * A, 4), xyxy, centred on the grid locations, for keys of `SIZES` and `RATIOS`."""
    locations = SIDE // stride
    return grid_anchors(cell_anchors(SIZES[sizes], RATIOS[ratios]) + stride / 2, (locations, locations), stride)


@lru_cache
def detections() -> Detections:
    """`PER_OBJECT` boxes per object, randomly shifted and scaled; the scores roughly follow the IoU."""
    rng = np.random.default_rng(1)
    objects = scene()[1].repeat_interleave(PER_OBJECT, dim=0)
    deltas = torch.from_numpy(rng.normal(0, (0.09, 0.09, 0.13, 0.13), (len(objects), 4))).float()
    boxes = decode_boxes(deltas, objects)
    iou = box_iou(boxes, objects).diagonal()
    scores = (iou + torch.from_numpy(rng.normal(0, 0.05, len(boxes))).float()).clamp(0, 0.99)
    order = scores.argsort(descending=True)
    return Detections(boxes[order], scores[order])


def suppress(iou_threshold: float, step: int) -> Step:
    """Run greedy non-maximum suppression on `detections`. Each step keeps one box and removes those that overlap it.

    Args:
        iou_threshold: boxes that overlap a kept box by more than this are removed.
        step: maximum number of kept boxes.
    """
    overlaps = box_iou(detections().boxes, detections().boxes) > iou_threshold
    waiting, kept, removed_before, removed = list(range(len(overlaps))), [], [], []
    while waiting and len(kept) < step:
        best, *others = waiting
        removed_before, removed = removed_before + removed, [i for i in others if overlaps[best, i]]
        kept, waiting = [*kept, best], [i for i in others if not overlaps[best, i]]
    return Step(kept, removed_before, removed, waiting)


def count_detected(kept: list[int], min_iou: float = 0.5) -> int:
    """Count the objects whose IoU with a kept box is at least `min_iou`; a box counts for its best object only."""
    if not kept:
        return 0
    best_iou, row = box_iou(scene()[1], detections().boxes[kept]).max(dim=0)
    return len(row[best_iou >= min_iou].unique())


def draw_anchors(
    stride: int = 8,
    sizes: str = "12, 17, 24",
    ratios: str = "0.5, 1, 2",
    positive_iou: float = 0.7,
    force_best: bool = True,
) -> None:
    """Show the grid locations with the anchors of one of them, the positive anchors, and the best IoU of all anchors.

    Args:
        stride: distance between locations in pixels.
        sizes: a key of `SIZES`.
        ratios: a key of `RATIOS`.
        positive_iou: an anchor is positive if its best IoU reaches this; below 0.3 it is background.
        force_best: whether the best anchor of each object is positive too.
    """
    negative_iou = min(0.3, positive_iou)
    image, objects = scene()
    boxes = anchors(stride, sizes, ratios)
    iou = box_iou(objects, boxes)
    matches = match_anchors(iou, negative_iou, positive_iou, force_best=force_best)
    fig = Figure(figsize=(8.6, 3.7), layout="constrained")
    axes = fig.subplots(1, 3, width_ratios=(1, 1, 1.05))
    _paint_grid(axes[0], boxes, stride)
    _paint_positives(axes[1], boxes, matches)
    _paint_thresholds(axes[2], iou.amax(dim=0), matches, (negative_iou, positive_iou))
    counts = [int((matches == row).sum()) for row in range(len(objects))]
    each = ", ".join(f"{name} {n}" for name, n in zip(OBJECTS, counts, strict=True))
    show(
        fig,
        f"{len(boxes)} anchors, {len(boxes) * stride**2 // SIDE**2} at each of {(SIDE // stride) ** 2} locations: "
        f"object {sum(counts)}, ignored {(matches == NEITHER).sum()}, background {(matches == BACKGROUND).sum()}. "
        f"Objects with an anchor: {sum(n > 0 for n in counts)} of {len(counts)}. Anchors of each: {each}.",
    )


def draw_nms(iou_threshold: float = 0.5, step: int = 1) -> None:
    """Show greedy suppression after some steps: boxes over the image, and the list of scores; see `suppress`."""
    state = suppress(iou_threshold, step)
    fig = Figure(figsize=(8.6, 4.8), layout="constrained")
    over, bars = fig.subplots(1, 2, width_ratios=(1, 1.25))
    _paint_boxes(over, state)
    _paint_scores(bars, state)
    action = f"keep {state.kept[-1] + 1}, remove {len(state.removed)}" if state.kept else "nothing is decided yet"
    over.set_title(f"step {len(state.kept)}: {action}", fontsize=10, color=INK)
    result = f"{len(state.kept)} kept, {count_detected(state.kept)} of {len(scene()[1])} objects detected"
    bars.set_title(f"{result}, {len(state.waiting)} waiting", fontsize=10, color=INK)
    show(
        fig,
        f"Non-maximum suppression at IoU {iou_threshold:g}, step {len(state.kept)}: {action}. Kept are detections "
        f"{[row + 1 for row in state.kept]}; {len(state.removed)} are removed now, {len(state.removed_before)} were "
        f"removed before, {len(state.waiting)} wait. Detected objects: {count_detected(state.kept)} of "
        f"{len(scene()[1])}.",
    )


def _paint_boxes(ax: Axes, state: Step) -> None:
    """Draw all detections over the image; kept ones have their number."""
    _show_image(ax)
    for name, style in _styles().items():
        for row in getattr(state, name):
            _box(ax, detections().boxes[row], **style)
    written: list[tuple[float, float]] = []
    for row in state.kept:
        x, y = _free_corner(detections().boxes[row].tolist(), written)
        written.append((x, y))
        ax.text(x, y, str(row + 1), fontsize=9, ha="center", va="center", bbox={"fc": "white", "pad": 1, "lw": 0})


def _free_corner(box: list[float], written: list[tuple[float, float]]) -> tuple[float, float]:
    """Choose a point on the edge of a box, in the image, that is not too close to numbers that are already written."""
    left, top, right, bottom = (min(max(value, 2.0), SIDE - 2.0) for value in box)
    corners = [(left, top), (right, top), (left, bottom), (right, bottom)]
    middles = [((left + right) / 2, top), (left, (top + bottom) / 2), (right, (top + bottom) / 2)]
    distances = [
        min((max(abs(x - a) / 5, abs(y - b) / 4) for a, b in written), default=1.0) for x, y in corners + middles
    ]
    free = [i for i, distance in enumerate(distances) if distance >= 1]
    return (corners + middles)[free[0] if free else distances.index(max(distances))]


def _paint_scores(ax: Axes, state: Step) -> None:
    """Draw the sorted list of detections that suppression processes, and the state of each."""
    words = {"kept": "kept", "removed": "removed now", "removed_before": "removed before", "waiting": "waiting"}
    handles, count = [], len(detections().boxes)
    for name, style in _styles().items():
        rows = getattr(state, name)
        fill, edge = KEPT if name == "kept" else "white", {"ec": style["color"], "lw": style["lw"], "ls": style["ls"]}
        ax.barh(rows, detections().scores[rows].numpy(), height=0.7, fc=fill, **edge)
        handles.append(Line2D([], [], **style, label=f"{words[name]}: {len(rows)}"))
    ax.set(yticks=range(count), yticklabels=range(1, count + 1), ylim=(count - 0.4, -0.6), xlim=(0, 1))
    ax.set(xlabel="score", ylabel="detection, best first")
    ax.tick_params(axis="y", labelsize=9)
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=9, frameon=False)


def _styles() -> dict[str, dict]:
    """Styles of boxes and bars; a line style repeats the meaning of each colour."""
    return {
        "waiting": {"color": INK, "lw": 0.9, "ls": "-"},
        "removed_before": {"color": PALE, "lw": 0.9, "ls": ":"},
        "removed": {"color": REMOVED, "lw": 1.5, "ls": "--"},
        "kept": {"color": KEPT, "lw": 2.5, "ls": "-"},
    }


def _show_image(ax: Axes) -> None:
    ax.imshow(scene()[0].clip(0, 1), extent=(0, SIDE, SIDE, 0), alpha=0.8)  # boxes begin at the edges of pixels
    ax.set(xticks=[], yticks=[], xlim=(-4, SIDE + 4), ylim=(SIDE + 4, -4))


def _box(ax: Axes, box: Tensor, **style) -> None:
    left, top, right, bottom = box.tolist()
    ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, **style))


def _paint_grid(ax: Axes, boxes: Tensor, stride: int) -> None:
    """Draw all locations, and the anchors of one near the middle."""
    _show_image(ax)
    locations = SIDE // stride
    middle = (torch.arange(locations) + 0.5) * stride
    x, y = torch.meshgrid(middle, middle, indexing="xy")
    ax.plot(x.flatten(), y.flatten(), ".", color="white", mec=INK, mew=0.4, ms=6)
    anchors_here = boxes.reshape(locations, locations, -1, 4)[locations // 2, locations // 2]
    for box in anchors_here:
        _box(ax, box, color=INK, lw=1.2)
    each = "1 anchor" if len(anchors_here) == 1 else f"{len(anchors_here)} anchors"
    ax.set_title(f"{locations} x {locations} locations,\n{each} each", fontsize=10, color=INK)


def _paint_positives(ax: Axes, boxes: Tensor, matches: Tensor) -> None:
    """Draw positive anchors in the colour of their object; an object without one is marked "none"."""
    _show_image(ax)
    for row, (box, colour) in enumerate(zip(scene()[1], palette(len(scene()[1])), strict=True)):
        positives = boxes[matches == row]
        for anchor in positives:
            _box(ax, anchor, color=colour, lw=1.4)
        _box(ax, box, color=INK, lw=1.4, ls="--")
        mark = str(len(positives)) if len(positives) else "none"
        ax.text(*box[:2].tolist(), mark, fontsize=9, va="top", bbox={"fc": "white", "pad": 1.5, "lw": 0})
    ax.set_title("objects (dashed),\nnumber of anchors each", fontsize=10, color=INK)


def _paint_thresholds(ax: Axes, best_iou: Tensor, matches: Tensor, limits: tuple[float, float]) -> None:
    """Plot the best IoU of every anchor, largest first, and its label."""
    order = best_iou.argsort(descending=True, stable=True)
    rank = np.arange(1, len(best_iou) + 1)
    labels = (("object", matches >= 0, KEPT, "o"), ("ignored", matches == NEITHER, PALE, "x"))
    for name, selected, colour, marker in (*labels, ("background", matches == BACKGROUND, REMOVED, ".")):
        is_selected = selected[order].numpy()
        ax.plot(
            rank[is_selected],
            best_iou[order][is_selected],
            marker,
            color=colour,
            ms=6,
            label=f"{name}: {is_selected.sum()}",
        )
    for limit in limits:
        ax.axhline(limit, color=INK, lw=1, ls="--")
    ax.set(xscale="log", xlabel="anchor, best first", ylabel="best IoU with an object", ylim=(-0.02, 1))
    ax.set_title(f"thresholds\n{limits[0]:g} and {limits[1]:g}", fontsize=10, color=INK)
    ax.legend(loc="upper right", fontsize=9)


def explorer() -> None:
    """Show the first widget of chapter 11, which labels anchors: an explorer in a notebook, else five frames."""
    explore_in_browser(
        draw_anchors,
        "anchors",
        static=FRAMES,
        labels={
            "positive_iou": "lowest IoU of a positive anchor",
            "force_best": "best anchor of each object is positive",
            "ratios": "height / width",
        },
    )


def nms_explorer() -> None:
    """Show the second widget of chapter 11, suppression step by step: an explorer in a notebook, else six frames."""
    explore_in_browser(
        draw_nms,
        "nms",
        static=NMS_FRAMES,
        labels={"iou_threshold": "IoU threshold", "step": "number of steps"},
    )
