"""The meaning of a click (chapter 16): SAM predicts masks from clicks and a box, and the IoU of each mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from segedu.datasets.cells import draw_cells
from segedu.datasets.shapes import draw_shapes
from segedu.datasets.street import draw_street
from segedu.ops.boxes import box_iou
from segedu.ops.masks import boxes_from_masks
from segedu.promptable.sam.interactive import mask_iou
from segedu.promptable.sam.sam import SAM, postprocess
from segedu.teaching.widgets.explore import is_live, show_frames
from segedu.viz import show
from segedu.weights import load
from segedu.weights.own.shapes_sam import readings

INK, POSITIVE, NEGATIVE, MASK = "#1b1b1b", "#0072B2", "#D55E00", (0.94, 0.89, 0.26)
SCENES: dict[str, tuple[Callable, tuple[int, int], tuple[int, int]]] = {  # generator, seed and size
    "shapes": (draw_shapes, (16, 4), (96, 96)),
    "cells": (draw_cells, (16, 11), (64, 64)),
    "street": (draw_street, (16, 8), (64, 96)),
}
NAMES = ("fourth mask", "mask 1", "mask 2", "mask 3")
CLICKS = ["this", "not this"]
LABELS = {
    "x": "click: distance from the left, in %",
    "y": "click: distance from the top, in %",
    "click": "the click means",
    "box": "a box around the object under the click",
    "second": "a second click means",
    "x2": "second click: distance from the left, in %",
    "y2": "second click: distance from the top, in %",
}
FRAMES = [
    {"x": 58, "y": 66, "scene": "shapes"},
    {"x": 52, "y": 52, "scene": "cells"},
    {"x": 52, "y": 52, "scene": "cells", "second": "not this", "x2": 36, "y2": 28},
    {"x": 85, "y": 81, "scene": "street"},
    {"x": 85, "y": 81, "scene": "street", "box": True},
]


class Scene(NamedTuple):
    """An image (3, H, W) and the masks that a click on it may mean: objects and clumps of them, (N, H, W) bool."""

    image: Tensor
    targets: dict[str, Tensor]


class Prediction(NamedTuple):
    """Prompts and SAM's masks: the fourth mask, for clear prompts, then the three masks for an ambiguous prompt."""

    points: np.ndarray  # (P, 2), x and y in pixels
    clicks: list[str]  # of each point, one of `CLICKS`
    box: np.ndarray | None  # (4,), xyxy
    targets: dict[str, np.ndarray]  # by name, masks (H, W) that the prompts may mean
    masks: np.ndarray  # (4, H, W) bool
    predicted_ious: np.ndarray  # (4,)
    chosen: int  # index of the shown answer


@lru_cache
def model() -> SAM:
    """The small SAM for synthetic scenes."""
    return load("shapes_sam")


@lru_cache
def scene(name: str) -> Scene:
    """A scene, a key of `SCENES`, and the masks that a click on it may refer to; always the same."""
    draw, seed, size = SCENES[name]
    sample = draw(seed, size=size)
    objects, clumps = readings(sample)
    return Scene(sample["image"].as_subclass(Tensor), {"object": objects, "clump": clumps})


@lru_cache
def embedding(name: str) -> Tensor:
    """Compute the image embeddings of a scene, the slow part, once: every further click needs only the decoder."""
    with torch.no_grad():
        return model().encode(scene(name).image[None])


def predict(
    name: str, x: int, y: int, click: str = "this", second: str = "none", x2: int = 50, y2: int = 50, box: bool = False
) -> Prediction:
    """Run SAM on one or two clicks and an optional box, on a scene of `SCENES`.

    Args:
        x: x of the click in percent of the width.
        y: y of the click in percent of the height.
        click: one of `CLICKS`.
        second: type of a second click at (x2, y2), or "none".
        box: whether to add the box of the object under the first click, if there is one.
    """
    H, W = scene(name).image.shape[1:]
    positions = [(x, y), (x2, y2)][: 1 if second == "none" else 2]
    points = torch.tensor(positions) * torch.tensor([W - 1, H - 1]) / 100
    under = _under(scene(name).targets["object"], points[0])
    box_prompt = boxes_from_masks(under[:1])[0] if box and len(under) else None
    return segment(name, points, [click, second][: len(positions)], box_prompt)


@torch.no_grad()
def segment(name: str, points: Tensor, clicks: Sequence[str], box: Tensor | None = None) -> Prediction:
    """Run SAM on any clicks and an optional box, on a scene of `SCENES`.

    Args:
        points: (P, 2), x and y in pixels; P is at least 1 if there is no box.
        clicks: type of each point, one of `CLICKS`.
        box: (4,), xyxy in pixels, where the first pixel covers 0 to 1.
    """
    targets = _targets(name, points, clicks, box)
    labels = torch.tensor([int(word == "this") for word in clicks])
    outputs = _decode_in_turn(name, points, labels, None if box is None else box[None])
    predicted_ious = outputs["iou_scores"][0]
    clear = len(points) > 1 or box is not None  # one click may mean several things
    return Prediction(
        points=points.numpy(),
        clicks=list(clicks),
        box=None if box is None else box.numpy(),
        targets={kind: mask.numpy() for kind, mask in targets.items()},
        masks=postprocess(outputs)[0].numpy(),
        predicted_ious=predicted_ious.numpy(),
        chosen=0 if clear else 1 + int(predicted_ious[1:].argmax()),
    )


def _targets(name: str, points: Tensor, clicks: Sequence[str], box: Tensor | None) -> dict[str, Tensor]:
    """The object and the clump under the first "this" click. Without such a click: those that fit the box best."""
    targets = {}
    for kind, masks in scene(name).targets.items():
        if "this" in clicks:
            meant = _under(masks, points[list(clicks).index("this")])
        elif box is not None and len(masks):
            overlaps = box_iou(boxes_from_masks(masks), box[None])[:, 0]
            meant = masks[overlaps.argsort(descending=True)[: int(overlaps.max() > 0.5)]]
        else:
            meant = masks[:0]
        if len(meant):
            targets[kind] = meant[0]
    return targets


def _under(masks: Tensor, point: Tensor) -> Tensor:
    """Those of the masks (N, H, W) that contain a point (2,), x and y in pixels."""
    height, width = masks.shape[1:]
    column, row = point.round().long().tolist()
    return masks[masks[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]]


def _decode_in_turn(name: str, points: Tensor, labels: Tensor, box: Tensor | None) -> dict[str, Any]:
    """SAM's outputs for the last prompt: first the box, then click by click, each with the previous mask as a prompt.

    This is how SAM is trained.
    """
    size, mask, boxes = scene(name).image.shape[1:], {}, {} if box is None else {"boxes": box}
    for count in range(int(box is None), len(points) + 1):
        clicks = {"point_coords": points[None, :count], "point_labels": labels[None, :count]} if count else {}
        outputs = model().decode(embedding(name), size, **clicks, **boxes, **mask, multimask_output=None)
        candidates = slice(0, 1) if mask else slice(1, None)  # three for the first prompt, one after it
        best = outputs["iou_scores"][0, candidates].argmax()
        mask = {"mask_inputs": outputs["mask_logits"][:, candidates][:, best]}
    return outputs


def best_overlap(prediction: Prediction, index: int) -> tuple[float, str] | None:
    """Best IoU of mask `index` (0 to 3) with the masks that the click may mean.

    Returns:
        The IoU and the name of the best target; None if no object is under the click, or the click is "not this".
    """
    mask = torch.from_numpy(prediction.masks[index])
    overlaps = [(float(mask_iou(mask, torch.from_numpy(target))), kind) for kind, target in prediction.targets.items()]
    return max(overlaps, default=None)


def draw_masks(
    x: int = 58,
    y: int = 66,
    scene: str = "shapes",
    click: str = "this",
    box: bool = False,
    second: str = "none",
    x2: int = 50,
    y2: int = 50,
) -> None:
    """Show prompts on a scene and the four masks, each with its predicted and its actual IoU; see `predict`."""
    prediction = predict(scene, x, y, click, second, x2, y2, box)
    H, W = SCENES[scene][2]
    fig = Figure(figsize=(11, 0.8 + 2.1 * H / W), layout="constrained")
    first, *others = fig.subplots(1, 5)
    _paint_prompts(first, scene, prediction)
    descriptions = [_paint_mask(ax, scene, prediction, index) for index, ax in enumerate(others)]
    pairs = zip(prediction.clicks, prediction.points, strict=True)
    clicks = " and ".join(f'"{click_type}" at ({px:.0f}, {py:.0f})' for click_type, (px, py) in pairs)
    box_text = ", with a box around the object there" if prediction.box is not None else ""
    show(
        fig,
        f"Scene: {scene}. Clicks: {clicks}{box_text}. {'; '.join(descriptions)}. Chosen: {NAMES[prediction.chosen]}.",
    )


def _paint_prompts(ax: Axes, name: str, prediction: Prediction) -> None:
    ax.imshow(np.moveaxis(scene(name).image.numpy(), 0, 2))
    _paint_points(ax, prediction)
    ax.set(xticks=[], yticks=[])
    no_target = prediction.clicks[0] == "this" and not prediction.targets
    ax.set_title("prompts\n" + ("no object at the click" if no_target else ""), fontsize=10, color=INK)


def _paint_points(ax: Axes, prediction: Prediction) -> None:
    """Draw a disc for "this" and a cross for "not this"."""
    for word, (px, py) in zip(prediction.clicks, prediction.points, strict=True):
        marker, colour = ("o", POSITIVE) if word == "this" else ("X", NEGATIVE)
        ax.plot(px, py, marker, color=colour, ms=9, mec="white", mew=1.5)
    if prediction.box is not None:
        x1, y1, x2, y2 = prediction.box - 0.5
        for width, colour in ((4, "white"), (2, POSITIVE)):
            ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=width))


def _paint_mask(ax: Axes, name: str, prediction: Prediction, index: int) -> str:
    """Draw one mask, bright on the darkened image, with the outline of the best target; returns a description."""
    mask, overlap = prediction.masks[index], best_overlap(prediction, index)
    picture = 0.45 * np.moveaxis(scene(name).image.numpy(), 0, 2)
    picture[mask] = 0.5 * picture[mask] / 0.45 + 0.5 * np.array(MASK)
    ax.imshow(picture.clip(0, 1))
    iou_text = "" if overlap is None else f"true IoU {overlap[0]:.2f}, {overlap[1]}"
    if overlap is not None:
        ax.contour(prediction.targets[overlap[1]], levels=[0.5], colors="white", linewidths=1.2, linestyles=":")
    _paint_points(ax, prediction)
    chosen = index == prediction.chosen
    title = f"{NAMES[index]}: predicted {prediction.predicted_ious[index]:.2f}\n{iou_text}"
    ax.set_title(title, fontsize=10, color=INK, weight="bold" if chosen else "normal")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(linewidth=3.5 if chosen else 0.5, color=POSITIVE if chosen else INK)
    description = f"{NAMES[index]} has {mask.sum()} pixels, predicted IoU {prediction.predicted_ious[index]:.2f}"
    return description + (f", {iou_text}" if iou_text else "")


def explorer() -> None:
    """Show the chapter's widget: a picture to click on in a notebook, five static frames elsewhere."""
    if is_live():
        from IPython.display import display

        from segedu.teaching.widgets.prompt_sam import PromptSAM

        display(PromptSAM())
    else:
        show_frames(draw_masks, FRAMES, LABELS)
