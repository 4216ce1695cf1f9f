"""SAM in the page: its pictures with example clicks, the figure without JavaScript, and its two ONNX files.

`WEIGHTS` is the only place that names the network.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segedu_site import demonstration
from segedu_site.demonstration import FIGURE_WIDTH, Demonstration

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = "photo_sam"  # a key of segedu.weights.WEIGHTS
# Files of segedu that decide the exported files, beside the weights themselves.
SOURCES = ("promptable/sam/*.py", "weights/own/*sam*.py")
LONGEST_SIDE = 512  # pixels of a photograph on the page
SCENE_SIZE = 96
YELLOW, BLUE, INK = (0.94, 0.89, 0.26), "#0072B2", "#1b1b1b"
ROWS_OF_THE_FIGURE = ("chelsea", "street")


class Picture(NamedTuple):
    """An image of the page, and an example click in pixels of the image; `kind` is synthetic or photograph."""

    name: str
    title: str
    kind: str
    click: tuple[int, int]


PICTURES = (
    Picture("chelsea", "cat", "photograph", (250, 130)),
    Picture("coffee", "coffee", "photograph", (430, 100)),
    Picture("astronaut", "astronaut", "photograph", (400, 420)),
    Picture("coins", "coins", "photograph", (180, 60)),
    Picture("shapes", "shapes", "synthetic", (55, 63)),
    Picture("cells", "cells", "synthetic", (33, 33)),
    Picture("street", "street", "synthetic", (81, 51)),
)


def _scene(name: str) -> np.ndarray:
    from segedu.datasets.cells import draw_cells
    from segedu.datasets.shapes import draw_shapes
    from segedu.datasets.street import draw_street

    draw, seed, size = {
        "shapes": (draw_shapes, (16, 4), (SCENE_SIZE, SCENE_SIZE)),
        "cells": (draw_cells, (16, 11), (64, 64)),
        "street": (draw_street, (16, 8), (64, SCENE_SIZE)),
    }[name]
    return (255 * draw(seed, size=size)["image"]).round().byte().permute(1, 2, 0).numpy()


@cache
def pixels(picture: Picture) -> np.ndarray:
    """The image (H, W, 3) as bytes; photographs are reduced to the size of the page."""
    import numpy as np
    import skimage.data
    from PIL import Image

    if picture.kind == "synthetic":
        return _scene(picture.name)
    image = Image.fromarray(getattr(skimage.data, picture.name)()).convert("RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def contents_of_pictures() -> dict[str, Any]:
    """What the page receives: for each picture its title, size, example click and data address."""
    rows = []
    for picture in PICTURES:
        height, width = pixels(picture).shape[:2]
        row = {"name": picture.name, "title": picture.title, "kind": picture.kind, "click": picture.click}
        address = demonstration.data_address(pixels(picture), picture.kind == "photograph")
        rows.append(row | {"width": width, "height": height, "address": address})
    return {"pictures": rows}


def network_version() -> str:
    """12 hex digits of everything that decides the ONNX files."""
    return demonstration.network_version(WEIGHTS, SOURCES)


def contents_of_network(folder: Path) -> dict[str, Any]:
    """What the page receives: the metadata and both ONNX files."""
    return demonstration.contents_of_network(WEIGHTS, folder, (SCENE_SIZE, SCENE_SIZE), ("encoder", "decoder"))


def draw_figure(out: Path) -> str:
    """Draw the figure that readers without JavaScript see, as a JPEG file; returns its alternative text."""
    import torch
    from matplotlib.figure import Figure

    from segedu.promptable.sam.sam import postprocess
    from segedu.weights import load

    model, words = load(WEIGHTS), []
    chosen = [picture for picture in PICTURES if picture.name in ROWS_OF_THE_FIGURE]
    heights = [pixels(picture).shape[0] / pixels(picture).shape[1] for picture in chosen]
    fig = Figure(figsize=(FIGURE_WIDTH / 96, 0.3 + 2.5 * sum(heights)), layout="constrained")
    for row, picture in zip(fig.subplots(len(chosen), 4, height_ratios=heights), chosen, strict=True):
        image = torch.from_numpy(pixels(picture).copy()).permute(2, 0, 1)[None].float() / 255
        points = torch.tensor([[picture.click]]).float()
        with torch.no_grad():
            outputs = model(image, point_coords=points, point_labels=torch.ones(1, 1))
        masks, scores = postprocess(outputs)[0].numpy(), outputs["iou_scores"][0].tolist()
        best = max(range(3), key=scores.__getitem__)
        row[0].imshow(pixels(picture))
        row[0].set_title("image and click", fontsize=10)
        for i, (ax, mask, score) in enumerate(zip(row[1:], masks, scores, strict=True)):
            ax.imshow(_overlay(pixels(picture), mask))
            title = f"mask {i + 1}: predicted IoU {score:.2f}"
            ax.set_title(title, fontsize=10, weight="bold" if i == best else "normal")
            words.append(f"{picture.title}, {title}, {100 * mask.mean():.0f} % of the image")
        for ax in row:
            ax.plot(*picture.click, "o", color=BLUE, ms=8, mec="white", mew=1.5)
            ax.set(xticks=[], yticks=[])
    demonstration.save_figure(fig, out)
    return f"A click on each of two images, and the three masks that SAM predicts for it. {'; '.join(words)}."


def _overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image, darkened outside the mask and yellow inside."""
    import numpy as np

    picture = image / 255 * 0.5
    picture[mask] = picture[mask] + 0.5 * np.array(YELLOW)
    return picture.clip(0, 1)


SAM = Demonstration(
    scripts=("networks-sam.js", "networks-prompts.js"),
    summary="Try it: click on an image, and SAM runs in your browser. Your own images never leave your computer.",
    version=lambda: demonstration.version(network_version(), __file__),
    network_version=network_version,
    weights=WEIGHTS,
    draw_figure=draw_figure,
    contents_of_pictures=contents_of_pictures,
    contents_of_network=contents_of_network,
)
