"""What a click means (chapter 16): clicks and a box go in, SAM answers with masks and guesses how good each is."""

from __future__ import annotations

from collections.abc import Callable
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
from segedu.ops.masks import boxes_from_masks
from segedu.promptable.sam.interactive import mask_iou
from segedu.promptable.sam.sam import SAM, postprocess
from segedu.teaching.widgets.explore import explore
from segedu.viz import show
from segedu.weights import load
from segedu.weights.own.shapes_sam import readings

INK, THIS, OTHER, MASK = "#1b1b1b", "#0072B2", "#D55E00", (0.94, 0.89, 0.26)
SCENES: dict[str, tuple[Callable, tuple[int, int], tuple[int, int]]] = {  # how it is drawn, its seed and its size
    "shapes": (draw_shapes, (16, 4), (96, 96)),
    "cells": (draw_cells, (16, 11), (64, 64)),
    "street": (draw_street, (16, 8), (64, 96)),
}
NAMES = ("fourth mask", "mask 1", "mask 2", "mask 3")
CLICKS = ["this", "not this"]
LABELS = {
    "x": "click: from the left, in %",
    "y": "click: from the top, in %",
    "click": "the click says",
    "box": "a box around the object under the click",
    "second": "a second click says",
    "x2": "second click: from the left, in %",
    "y2": "second click: from the top, in %",
}
FRAMES = [
    {"x": 58, "y": 66, "scene": "shapes"},
    {"x": 52, "y": 52, "scene": "cells"},
    {"x": 52, "y": 52, "scene": "cells", "second": "not this", "x2": 36, "y2": 28},
    {"x": 85, "y": 81, "scene": "street"},
    {"x": 85, "y": 81, "scene": "street", "box": True},
]


class Scene(NamedTuple):
    """An image (3, H, W), and what a click on it may mean: objects and clumps of them, (N, H, W) bool each."""

    image: Tensor
    meanings: dict[str, Tensor]


class Answer(NamedTuple):
    """What was asked and what SAM says: the fourth mask, for clear prompts, then the three for a prompt that is not."""

    points: np.ndarray  # (P, 2), x and y in pixels
    said: list[str]  # of each point, one of `CLICKS`
    box: np.ndarray | None  # (4,), xyxy
    meant: dict[str, np.ndarray]  # by name, masks (H, W) that the first click may mean
    masks: np.ndarray  # (4, H, W) bool
    guesses: np.ndarray  # (4,): what IoU SAM thinks that each has
    chosen: int  # of the four


@lru_cache
def model() -> SAM:
    """The small SAM of drawn scenes."""
    return load("shapes_sam")


@lru_cache
def scene(name: str) -> Scene:
    """A scene, the same whenever it is asked for.

    Args:
        name: a key of `SCENES`.

    Returns:
        The image and what can be meant on it.
    """
    draw, seed, size = SCENES[name]
    sample = draw(seed, size=size)
    objects, clumps = readings(sample)
    return Scene(sample["image"].as_subclass(Tensor), {"object": objects, "clump": clumps})


@lru_cache
def embedding(name: str) -> Tensor:
    """The slow part, once for each scene: every further click needs the decoder only."""
    with torch.no_grad():
        return model().encode(scene(name).image[None])


@torch.no_grad()
def ask(
    name: str, x: int, y: int, click: str = "this", second: str = "none", x2: int = 50, y2: int = 50, box: bool = False
) -> Answer:
    """Ask SAM.

    Args:
        name: a key of `SCENES`.
        x: of the click, in per cent of the width.
        y: in per cent of the height.
        click: what it says, one of `CLICKS`.
        second: what a second click says, or "none".
        x2: of the second click.
        y2: of the second click.
        box: whether the box of the object under the first click goes in too, where there is an object.

    Returns:
        Prompts and answers.
    """
    shown = scene(name)
    H, W = shown.image.shape[1:]
    places = [(x, y), (x2, y2)][: 1 if second == "none" else 2]
    points = torch.tensor(places) * torch.tensor([W - 1, H - 1]) / 100
    said = [click, second][: len(places)]
    column, row = points[0].round().int().tolist()
    meant = {kind: masks[masks[:, row, column]] for kind, masks in shown.meanings.items()}
    meant = {kind: masks[0] for kind, masks in meant.items() if len(masks)}
    around = boxes_from_masks(meant["object"][None]) if box and "object" in meant else None
    outputs = _in_turn(name, points, torch.tensor([int(word == "this") for word in said]), around)
    guesses = outputs["iou_scores"][0]
    clear = len(places) > 1 or around is not None  # one click may mean several things
    return Answer(
        points=points.numpy(),
        said=said,
        box=None if around is None else around[0].numpy(),
        meant={kind: mask.numpy() for kind, mask in meant.items()} if click == "this" else {},
        masks=postprocess(outputs)[0].numpy(),
        guesses=guesses.numpy(),
        chosen=0 if clear else 1 + int(guesses[1:].argmax()),
    )


def _in_turn(name: str, points: Tensor, labels: Tensor, box: Tensor | None) -> dict[str, Any]:
    """SAM's outputs to the last prompt: the box comes first, then click by click, each with the mask so far.

    As in training: what was answered before is part of what is asked.
    """
    size, mask, boxes = scene(name).image.shape[1:], {}, {} if box is None else {"boxes": box}
    for count in range(int(box is None), len(points) + 1):
        clicks = {"point_coords": points[None, :count], "point_labels": labels[None, :count]} if count else {}
        outputs = model().decode(embedding(name), size, **clicks, **boxes, **mask, multimask_output=None)
        kinds = slice(0, 1) if mask else slice(1, None)  # three for the first prompt, one for those behind it
        best = outputs["iou_scores"][0, kinds].argmax()
        mask = {"mask_inputs": outputs["mask_logits"][:, kinds][:, best]}
    return outputs


def truth(answer: Answer, index: int) -> tuple[float, str] | None:
    """The best IoU of one of the four masks with what the click may mean.

    Args:
        answer: of `ask`.
        index: 0 to 3.

    Returns:
        The IoU and which meaning it is; None where nothing is under the click, or it says "not this".
    """
    mask = torch.from_numpy(answer.masks[index])
    found = [(float(mask_iou(mask, torch.from_numpy(meant))), kind) for kind, meant in answer.meant.items()]
    return max(found, default=None)


def draw_answers(
    x: int = 58,
    y: int = 66,
    scene: str = "shapes",
    click: str = "this",
    box: bool = False,
    second: str = "none",
    x2: int = 50,
    y2: int = 50,
) -> None:
    """Show prompts on a scene, the fourth mask and the three, SAM's guess of the IoU of each, and the IoU itself.

    Args:
        x: of the click, in per cent of the width.
        y: in per cent of the height.
        scene: a key of `SCENES`.
        click: what the click says, one of `CLICKS`.
        box: whether the box of the object under the click goes in too.
        second: what a second click says, or "none".
        x2: of the second click.
        y2: of the second click.
    """
    answer = ask(scene, x, y, click, second, x2, y2, box)
    H, W = SCENES[scene][2]
    fig = Figure(figsize=(11, 0.8 + 2.1 * H / W), layout="constrained")
    first, *others = fig.subplots(1, 5)
    _paint_prompts(first, scene, answer)
    words = [_paint_mask(ax, scene, answer, index) for index, ax in enumerate(others)]
    pairs = zip(answer.said, answer.points, strict=True)
    clicks = " and ".join(f'"{word}" at ({px:.0f}, {py:.0f})' for word, (px, py) in pairs)
    around = ", with a box around the object there" if answer.box is not None else ""
    show(fig, f"A scene of {scene}, clicked {clicks}{around}: {'; '.join(words)}. Taken: {NAMES[answer.chosen]}.")


def _paint_prompts(ax: Axes, name: str, answer: Answer) -> None:
    ax.imshow(np.moveaxis(scene(name).image.numpy(), 0, 2))
    _paint_points(ax, answer)
    ax.set(xticks=[], yticks=[])
    nothing = answer.said[0] == "this" and not answer.meant
    ax.set_title("what is asked\n" + ("nothing is meant there" if nothing else ""), fontsize=10, color=INK)


def _paint_points(ax: Axes, answer: Answer) -> None:
    """A disc says "this", a cross "not this"."""
    for word, (px, py) in zip(answer.said, answer.points, strict=True):
        marker, colour = ("o", THIS) if word == "this" else ("X", OTHER)
        ax.plot(px, py, marker, color=colour, ms=9, mec="white", mew=1.5)
    if answer.box is not None:
        x1, y1, x2, y2 = answer.box - 0.5
        for width, colour in ((4, "white"), (2, THIS)):
            ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=width))


def _paint_mask(ax: Axes, name: str, answer: Answer, index: int) -> str:
    """One mask, bright on a darker image, with the outline of what it fits best; gives it in words."""
    mask, fits = answer.masks[index], truth(answer, index)
    picture = 0.45 * np.moveaxis(scene(name).image.numpy(), 0, 2)
    picture[mask] = 0.5 * picture[mask] / 0.45 + 0.5 * np.array(MASK)
    ax.imshow(picture.clip(0, 1))
    real = "" if fits is None else f"IoU {fits[0]:.2f}, {fits[1]}"
    if fits is not None:
        ax.contour(answer.meant[fits[1]], levels=[0.5], colors="white", linewidths=1.2, linestyles=":")
    _paint_points(ax, answer)
    taken = index == answer.chosen
    title = f"{NAMES[index]}: guess {answer.guesses[index]:.2f}\n{real}"
    ax.set_title(title, fontsize=10, color=INK, weight="bold" if taken else "normal")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(linewidth=3.5 if taken else 0.5, color=THIS if taken else INK)
    said = f"{NAMES[index]} has {mask.sum()} pixels, guess {answer.guesses[index]:.2f}"
    return said + (f", {real} in truth" if real else "")


def explorer() -> None:
    """The chapter's widget: sliders where somebody can move them, five frames elsewhere."""
    explore(
        draw_answers,
        static=FRAMES,
        labels=LABELS,
        x=(0, 100, 1),
        y=(0, 100, 1),
        scene=list(SCENES),
        click=CLICKS,
        box=False,
        second=["none", *CLICKS],
        x2=(0, 100, 1),
        y2=(0, 100, 1),
    )
