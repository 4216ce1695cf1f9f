"""A small U-Net in the page: the images to paint on, the brush, the figure without JavaScript, and its ONNX file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segedu_site import demonstration
from segedu_site.demonstration import FIGURE_WIDTH, Demonstration

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = "cells_unet"  # a key of segedu.weights.WEIGHTS
SOURCES = ("semantic/unet.py", "recipes/cells.py")
SIZE = 128  # pixels per side, as in training
LEVELS = {"bright": 200, "dim": 90, "dark": 30}  # grey values of the brush; the background has about 40
YELLOW, INK = "#f0e342", "#1b1b1b"


class Ground(NamedTuple):
    """An image of the page: a scene of `draw_cells`, with a seed that is not used in training."""

    name: str
    title: str
    seed: tuple[int, int]
    options: dict[str, Any]


GROUNDS = (
    Ground("few", "a few nuclei", (6, 57), {"touching": 0.4, "count": (10, 16)}),
    Ground("many", "many nuclei", (6, 8), {}),
    Ground("empty", "no nucleus", (6, 5), {"count": 0}),
)


class Stroke(NamedTuple):
    """A stroke of a round brush along points (x, y); (0, 0) is the centre of the first pixel."""

    points: Sequence[tuple[float, float]]
    radius: float
    level: int


# What the figure shows: a ground, strokes on it, and their name.
CIRCLE = [(64 + 20 * math.cos(math.tau * k / 24), 64 + 20 * math.sin(math.tau * k / 24)) for k in range(25)]
EXAMPLES = (
    ("few", [], "nothing is painted"),
    ("few", [Stroke([(64, 17), (88, 17)], 2.5, LEVELS["bright"])], "a bright bridge"),
    ("empty", [Stroke(CIRCLE, 4, LEVELS["bright"])], "a bright ring"),
    ("empty", [Stroke([(64, 64)], 30, LEVELS["dim"])], "a large dim disc"),
)


@cache
def grey(name: str) -> np.ndarray:
    """Bytes (H, W) of an image of the page; the network's three channels are equal."""
    from segedu.datasets.cells import draw_cells

    ground = next(ground for ground in GROUNDS if ground.name == name)
    image = draw_cells(ground.seed, (SIZE, SIZE), **ground.options)["image"]
    return (255 * image[0]).round().byte().numpy()


def painted(image: np.ndarray, stroke: Stroke) -> np.ndarray:
    """The bytes (H, W) with one stroke; a pixel on the edge of the stroke is mixed from both.

    The page computes the same in networks-unet.js.
    """
    import numpy as np

    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(float)
    cover = np.zeros(image.shape)
    for (x1, y1), (x2, y2) in zip([stroke.points[0], *stroke.points], stroke.points, strict=False):
        dx, dy = x2 - x1, y2 - y1
        length = dx * dx + dy * dy
        along = ((columns - x1) * dx + (rows - y1) * dy) / length if length else np.zeros(image.shape)
        along = along.clip(0, 1)
        right, down = columns - x1 - along * dx, rows - y1 - along * dy
        cover = np.maximum(cover, (stroke.radius + 0.5 - np.sqrt(right * right + down * down)).clip(0, 1))
    return np.floor(image + (stroke.level - image.astype(float)) * cover + 0.5).astype(np.uint8)


def contents_of_pictures() -> dict[str, Any]:
    """What the page receives: for each image its title, size and data address; and the levels of the brush."""
    import numpy as np

    rows = []
    for ground in GROUNDS:
        address = demonstration.data_address(np.repeat(grey(ground.name)[..., None], 3, axis=2))
        row = {"name": ground.name, "title": ground.title, "width": SIZE, "height": SIZE}
        rows.append(row | {"address": address})
    return {"pictures": rows, "levels": [{"name": name, "level": level} for name, level in LEVELS.items()]}


def network_version() -> str:
    """12 hex digits of everything that decides the ONNX file."""
    return demonstration.network_version(WEIGHTS, SOURCES)


def contents_of_network(folder: Path) -> dict[str, Any]:
    """What the page receives: the metadata and the ONNX file."""
    return demonstration.contents_of_network(WEIGHTS, folder, (SIZE, SIZE))


def draw_figure(out: Path) -> str:
    """Draw the figure that readers without JavaScript see, as a JPEG file; returns its alternative text."""
    import torch
    from matplotlib.figure import Figure
    from scipy import ndimage

    from segedu.weights import load

    model, words = load(WEIGHTS), []
    fig = Figure(figsize=(FIGURE_WIDTH / 96, 5.0), layout="constrained")
    axes = fig.subplots(2, len(EXAMPLES))
    for (above, below), (name, strokes, title) in zip(axes.T, EXAMPLES, strict=True):
        image = grey(name)
        for stroke in strokes:
            image = painted(image, stroke)
        with torch.no_grad():
            logits = model(torch.from_numpy(image)[None, None].expand(1, 3, -1, -1).float() / 255)
        probability = logits.softmax(dim=1)[0, 1].numpy()
        mask = probability > 0.5
        above.imshow(image, cmap="gray", vmin=0, vmax=255)
        below.imshow(probability, cmap="cividis", vmin=0, vmax=1)
        for ax, colour in ((above, YELLOW), (below, "white")):
            ax.contour(mask, levels=[0.5], colors=INK, linewidths=2.4)
            ax.contour(mask, levels=[0.5], colors=colour, linewidths=1.2)
            ax.set(xticks=[], yticks=[])
        number = f"{int(mask.sum())} pixels, {ndimage.label(mask)[1]} region{'s' * (ndimage.label(mask)[1] != 1)}"
        above.set_title(title, fontsize=10)
        below.set_title(number, fontsize=10)
        words.append(f"{title}: {number}")
    demonstration.save_figure(fig, out)
    return f"Four images with the predicted outlines, and maps of the probability below. {'; '.join(words)}."


UNET = Demonstration(
    scripts=("networks-unet.js", "networks-brush.js"),
    summary="Try it: paint on an image of nuclei. A U-Net runs in your browser and predicts a mask after every stroke.",
    version=lambda: demonstration.version(network_version(), __file__),
    network_version=network_version,
    weights=WEIGHTS,
    draw_figure=draw_figure,
    contents_of_pictures=contents_of_pictures,
    contents_of_network=contents_of_network,
)
