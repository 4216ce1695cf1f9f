"""Widgets of chapter 11: anchors over an image and the thresholds that sort them; suppression, one step at a time."""

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
from segedu.teaching.widgets.explore import explore
from segedu.viz import palette, show

INK, KEPT, GOES, PALE = "#1b1b1b", "#0072B2", "#D55E00", "#8a8a8a"
SEED, SIDE = 40, 64  # a scene in which a small triangle stands before a large one
OBJECTS = ("upper triangle", "large triangle", "square", "small triangle in front", "circle")  # of that scene
PER_OBJECT = 4  # detections of each object in the second widget
SIZES = {"17": (17.0,), "12, 17, 24": (12.0, 17.0, 24.0)}  # in pixels
RATIOS = {"1": (1.0,), "0.5, 1, 2": (0.5, 1.0, 2.0)}  # height over width
FRAMES = [
    {"stride": 8, "sizes": "17", "ratios": "1", "high": 0.7, "forced": False},
    {"stride": 8, "sizes": "12, 17, 24", "ratios": "0.5, 1, 2", "high": 0.7, "forced": False},
    {"stride": 8, "sizes": "12, 17, 24", "ratios": "0.5, 1, 2", "high": 0.7, "forced": True},
    {"stride": 8, "sizes": "12, 17, 24", "ratios": "0.5, 1, 2", "high": 0.5, "forced": True},
    {"stride": 16, "sizes": "12, 17, 24", "ratios": "0.5, 1, 2", "high": 0.7, "forced": True},
]
NMS_FRAMES = [
    {"iou_threshold": 0.5, "step": 0},
    {"iou_threshold": 0.5, "step": 1},
    {"iou_threshold": 0.5, "step": 3},
    {"iou_threshold": 0.5, "step": 20},
    {"iou_threshold": 0.3, "step": 20},
    {"iou_threshold": 0.8, "step": 20},
]


class Detections(NamedTuple):
    """Boxes that a network could have given: around every object some, one better than the other."""

    boxes: Tensor  # (N, 4), best score first
    scores: Tensor  # (N,)


class Step(NamedTuple):
    """What suppression has decided after some steps; each is a list of rows of the detections."""

    kept: list[int]
    gone: list[int]  # in earlier steps
    goes: list[int]  # in this step, because of the last of `kept`
    waiting: list[int]


@lru_cache
def scene() -> tuple[np.ndarray, Tensor]:
    """Image (64, 64, 3) and the boxes (N, 4) of its objects, the same whenever it is asked for."""
    sample = draw_shapes(SEED, (SIDE, SIDE))
    return np.moveaxis(sample["image"].numpy(), 0, 2), sample["boxes"].as_subclass(Tensor)


def anchors(stride: int, sizes: str, ratios: str) -> Tensor:
    """The anchors of all places, around the middle of each.

    Args:
        stride: pixels from one place to the next.
        sizes: a key of `SIZES`.
        ratios: a key of `RATIOS`.

    Returns:
        (H * W * A, 4), xyxy.
    """
    places = SIDE // stride
    return grid_anchors(cell_anchors(SIZES[sizes], RATIOS[ratios]) + stride / 2, (places, places), stride)


@lru_cache
def detections() -> Detections:
    """`PER_OBJECT` boxes for each object, moved and stretched at random; the score follows the IoU, not quite."""
    rng = np.random.default_rng(1)
    objects = scene()[1].repeat_interleave(PER_OBJECT, dim=0)
    deltas = torch.from_numpy(rng.normal(0, (0.09, 0.09, 0.13, 0.13), (len(objects), 4))).float()
    boxes = decode_boxes(deltas, objects)
    iou = box_iou(boxes, objects).diagonal()
    scores = (iou + torch.from_numpy(rng.normal(0, 0.05, len(boxes))).float()).clamp(0, 0.99)
    order = scores.argsort(descending=True)
    return Detections(boxes[order], scores[order])


def suppress(iou_threshold: float, step: int) -> Step:
    """Greedy suppression of `detections`, stopped after some steps. A step keeps one box and removes its rivals.

    Args:
        iou_threshold: what overlaps a kept box by more than this goes.
        step: how many boxes are kept before it stops; it stops earlier if none is left.

    Returns:
        Who is kept, has gone, goes now, and waits.
    """
    overlaps = box_iou(detections().boxes, detections().boxes) > iou_threshold
    waiting, kept, gone, goes = list(range(len(overlaps))), [], [], []
    while waiting and len(kept) < step:
        best, *rest = waiting
        gone, goes = gone + goes, [i for i in rest if overlaps[best, i]]
        kept, waiting = [*kept, best], [i for i in rest if not overlaps[best, i]]
    return Step(kept, gone, goes, waiting)


def found(kept: list[int], least: float = 0.5) -> int:
    """How many objects have a kept box of at least this IoU, where a box stands for the object that it fits best.

    Args:
        kept: rows of the detections.
        least: IoU.

    Returns:
        A number of objects.
    """
    if not kept:
        return 0
    best, row = box_iou(scene()[1], detections().boxes[kept]).max(dim=0)
    return len(row[best >= least].unique())


def draw_anchors(
    stride: int = 8, sizes: str = "12, 17, 24", ratios: str = "0.5, 1, 2", high: float = 0.7, forced: bool = True
) -> None:
    """Show the places, the anchors of one of them, those that are an object, and the best IoU of all.

    Args:
        stride: pixels from one place to the next.
        sizes: a key of `SIZES`.
        ratios: a key of `RATIOS`.
        high: an anchor whose best IoU reaches this is an object; below 0.3 it is background.
        forced: whether the best anchor of each object is one too.
    """
    low = min(0.3, high)
    image, objects = scene()
    boxes = anchors(stride, sizes, ratios)
    iou = box_iou(objects, boxes)
    matches = match_anchors(iou, low, high, force_best=forced)
    fig = Figure(figsize=(10.6, 3.9), layout="constrained")
    axes = fig.subplots(1, 3, width_ratios=(1, 1, 1.05))
    _paint_grid(axes[0], boxes, stride)
    _paint_positives(axes[1], boxes, matches)
    _paint_thresholds(axes[2], iou.amax(dim=0), matches, (low, high))
    counts = [int((matches == row).sum()) for row in range(len(objects))]
    each = ", ".join(f"{name} {n}" for name, n in zip(OBJECTS, counts, strict=True))
    show(
        fig,
        f"{len(boxes)} anchors, {len(boxes) * stride**2 // SIDE**2} at each of {(SIDE // stride) ** 2} places: "
        f"object {sum(counts)}, neither {(matches == NEITHER).sum()}, background {(matches == BACKGROUND).sum()}. "
        f"Objects with an anchor: {sum(n > 0 for n in counts)} of {len(counts)}. Anchors of each: {each}.",
    )


def draw_nms(iou_threshold: float = 0.5, step: int = 1) -> None:
    """Show greedy suppression after some steps: boxes over the image, and the list of scores.

    Args:
        iou_threshold: what overlaps a kept box by more than this goes.
        step: how many boxes are kept before it stops.
    """
    state = suppress(iou_threshold, step)
    fig = Figure(figsize=(9.6, 4.2), layout="constrained")
    over, bars = fig.subplots(1, 2, width_ratios=(1, 1.25))
    _paint_boxes(over, state)
    _paint_scores(bars, state)
    told = f"keep {state.kept[-1] + 1}, remove {len(state.goes)}" if state.kept else "nothing is decided"
    over.set_title(f"step {len(state.kept)}: {told}", fontsize=10, color=INK)
    result = f"{len(state.kept)} kept, {found(state.kept)} of {len(scene()[1])} objects found"
    bars.set_title(f"{result}, {len(state.waiting)} wait", fontsize=10, color=INK)
    show(
        fig,
        f"Suppression at IoU {iou_threshold:g}, step {len(state.kept)}: {told}. Kept are detections "
        f"{[row + 1 for row in state.kept]}; {len(state.goes)} go now, {len(state.gone)} have gone, "
        f"{len(state.waiting)} wait. {found(state.kept)} of {len(scene()[1])} objects are found.",
    )


def _paint_boxes(ax: Axes, state: Step) -> None:
    """All detections over the image; those that are kept have their number."""
    _show_image(ax)
    for name, style in _styles().items():
        for row in getattr(state, name):
            _box(ax, detections().boxes[row], **style)
    for row in state.kept:
        left, top = detections().boxes[row, :2].tolist()
        ax.text(left, top, str(row + 1), fontsize=9, va="bottom", bbox={"fc": "white", "pad": 1, "lw": 0})


def _paint_scores(ax: Axes, state: Step) -> None:
    """The list that suppression goes down, and what has become of each detection."""
    words = {"kept": "kept", "goes": "goes now", "gone": "gone", "waiting": "waits"}
    handles, count = [], len(detections().boxes)
    for name, style in _styles().items():
        rows = getattr(state, name)
        fill, edge = KEPT if name == "kept" else "white", {"ec": style["color"], "lw": style["lw"], "ls": style["ls"]}
        ax.barh(rows, detections().scores[rows].numpy(), height=0.7, fc=fill, **edge)
        handles.append(Line2D([], [], **style, label=f"{words[name]}: {len(rows)}"))
    ax.set(yticks=range(count), yticklabels=range(1, count + 1), ylim=(count - 0.4, -0.6), xlim=(0, 1))
    ax.set(xlabel="score", ylabel="detection, best first")
    ax.tick_params(axis="y", labelsize=7)
    ax.legend(handles=handles, loc="lower right", fontsize=8)


def _styles() -> dict[str, dict]:
    """Of boxes and bars; a line style repeats each colour."""
    return {
        "waiting": {"color": PALE, "lw": 0.9, "ls": "-"},
        "gone": {"color": PALE, "lw": 0.9, "ls": ":"},
        "goes": {"color": GOES, "lw": 1.5, "ls": "--"},
        "kept": {"color": KEPT, "lw": 2.5, "ls": "-"},
    }


def _show_image(ax: Axes) -> None:
    ax.imshow(scene()[0].clip(0, 1), extent=(0, SIDE, SIDE, 0), alpha=0.8)  # boxes begin at the edges of pixels
    ax.set(xticks=[], yticks=[], xlim=(-4, SIDE + 4), ylim=(SIDE + 4, -4))


def _box(ax: Axes, box: Tensor, **style) -> None:
    left, top, right, bottom = box.tolist()
    ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, **style))


def _paint_grid(ax: Axes, boxes: Tensor, stride: int) -> None:
    """All places, and the anchors of one near the middle."""
    _show_image(ax)
    places = SIDE // stride
    middle = (torch.arange(places) + 0.5) * stride
    x, y = torch.meshgrid(middle, middle, indexing="xy")
    ax.plot(x.flatten(), y.flatten(), ".", color="white", mec=INK, mew=0.4, ms=6)
    own = boxes.reshape(places, places, -1, 4)[places // 2, places // 2]
    for box in own:
        _box(ax, box, color=INK, lw=1.2)
    each = "1 anchor" if len(own) == 1 else f"{len(own)} anchors"
    ax.set_title(f"{places} x {places} places, {each} each", fontsize=10, color=INK)


def _paint_positives(ax: Axes, boxes: Tensor, matches: Tensor) -> None:
    """Anchors that are an object, in the colour of the object; an object without one is crossed out."""
    _show_image(ax)
    for row, (box, colour) in enumerate(zip(scene()[1], palette(len(scene()[1])), strict=True)):
        own = boxes[matches == row]
        for anchor in own:
            _box(ax, anchor, color=colour, lw=1.4)
        _box(ax, box, color=INK, lw=1.4, ls="--")
        mark = str(len(own)) if len(own) else "none"
        ax.text(*box[:2].tolist(), mark, fontsize=9, va="top", bbox={"fc": "white", "pad": 1.5, "lw": 0})
    ax.set_title("objects (dashed), how many anchors each", fontsize=10, color=INK)


def _paint_thresholds(ax: Axes, best: Tensor, matches: Tensor, limits: tuple[float, float]) -> None:
    """The best IoU of every anchor, largest first, and what becomes of it."""
    order = best.argsort(descending=True, stable=True)
    rank = np.arange(1, len(best) + 1)
    kinds = (("object", matches >= 0, KEPT, "o"), ("neither", matches == NEITHER, PALE, "x"))
    for name, where, colour, marker in (*kinds, ("background", matches == BACKGROUND, GOES, ".")):
        shown = where[order].numpy()
        ax.plot(rank[shown], best[order][shown], marker, color=colour, ms=6, label=f"{name}: {shown.sum()}")
    for limit in limits:
        ax.axhline(limit, color=INK, lw=1, ls="--")
    ax.set(xscale="log", xlabel="anchor, best first", ylabel="best IoU with an object", ylim=(-0.02, 1))
    ax.set_title(f"thresholds {limits[0]:g} and {limits[1]:g}", fontsize=10, color=INK)
    ax.legend(loc="upper right", fontsize=8)


def explorer() -> None:
    """The first widget of chapter 11: which anchors are an object?"""
    explore(
        draw_anchors,
        static=FRAMES,
        labels={
            "high": "an object from IoU",
            "forced": "best anchor of each object forced",
            "ratios": "height / width",
        },
        high=(0.3, 0.9, 0.05),
        stride=[4, 8, 16],
        sizes=list(SIZES),
        ratios=list(RATIOS),
        forced=True,
    )


def nms_explorer() -> None:
    """The second widget of chapter 11: suppression step by step, at a threshold of your choice."""
    explore(
        draw_nms,
        static=NMS_FRAMES,
        labels={"iou_threshold": "IoU threshold", "step": "steps at most"},
        iou_threshold=(0.1, 0.9, 0.05),
        step=(0, len(detections().boxes), 1),
    )
