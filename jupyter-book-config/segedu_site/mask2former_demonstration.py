"""A small Mask2Former in the page: its streets, the figure without JavaScript, and its ONNX file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segedu_site import demonstration
from segedu_site.demonstration import FIGURE_WIDTH, Demonstration

if TYPE_CHECKING:
    import numpy as np
    import torch

WEIGHTS = "street_mask2former"  # a key of segedu.weights.WEIGHTS
SOURCES = (
    "panoptic/mask2former/*.py",
    "layers/deformable_attention.py",
    "backbones/vgg.py",
    "weights/own/street_mask2former.py",
)
# Colours of the classes of stuff, as on the pages about Mask2Former; the classes of things are grey.
STUFF = ((128, 64, 128), (244, 190, 210), (70, 130, 180), (150, 140, 130), (107, 142, 35), (190, 215, 235))
GREYS = ((51, 51, 51), (89, 89, 89), (128, 128, 128), (166, 166, 166))
INK = "#1b1b1b"


class Street(NamedTuple):
    """A scene of `draw_street` with a seed that is not used in training, and the query that is shown first."""

    name: str
    title: str
    seed: tuple[int, int]
    query: int
    layer: int


STREETS = (
    Street("cars", "people and two cars", (15, 8), 10, 1),
    Street("boat", "a boat", (15, 7), 7, 1),
    Street("buses", "two buses", (15, 15), 10, 1),
    Street("crowd", "a crowd", (15, 26), 10, 1),
)


@cache
def pixels(street: Street) -> np.ndarray:
    """The image (H, W, 3) as bytes."""
    from segedu.datasets.street import draw_street
    from segedu.weights.own.street_mask2former import SIZE

    return (255 * draw_street(street.seed, SIZE)["image"]).round().byte().permute(1, 2, 0).numpy()


def thing_colours() -> list[list[int]]:
    """Colours of the things of one image, one after another."""
    from segedu.viz import palette

    return (255 * palette(12)).round().astype(int).tolist()


def contents_of_pictures() -> dict[str, Any]:
    """What the page receives: for each street its title, size, first query and data address; and the classes."""
    from segedu.datasets.street import CLASSES, THINGS
    from segedu.weights.own.street_mask2former import SURE

    rows = []
    for street in STREETS:
        height, width = pixels(street).shape[:2]
        row = {"name": street.name, "title": street.title, "query": street.query, "layer": street.layer}
        address = demonstration.data_address(pixels(street))
        rows.append(row | {"width": width, "height": height, "address": address})
    colours = {"class_colours": [*STUFF, *GREYS], "thing_colours": thing_colours()}
    return {"pictures": rows, "classes": CLASSES, "things": THINGS, "threshold": SURE, **colours}


def network_version() -> str:
    """12 hex digits of everything that decides the ONNX file."""
    return demonstration.network_version(WEIGHTS, SOURCES)


def contents_of_network(folder: Path) -> dict[str, Any]:
    """What the page receives: the metadata and the ONNX file."""
    from segedu.weights.own.street_mask2former import SIZE

    return demonstration.contents_of_network(WEIGHTS, folder, SIZE)


def predictions(image: np.ndarray) -> tuple[torch.Tensor, ...]:
    """The outputs of `ExportedMask2Former` for an image (H, W, 3) of bytes."""
    import torch

    from segedu.recipes.export_mask2former import ExportedMask2Former
    from segedu.weights import load

    with torch.no_grad():
        images = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        return ExportedMask2Former(load(WEIGHTS).eval())(images)


def draw_figure(out: Path) -> str:
    """Draw the figure that readers without JavaScript see, as a JPEG file; returns its alternative text."""
    import numpy as np
    from matplotlib.figure import Figure

    from segedu.datasets.street import CLASSES

    street = STREETS[0]
    image, query = pixels(street), street.query
    class_logits, mask_logits, *attention = predictions(image)
    chances, classes = class_logits[:, query].softmax(dim=-1), (*CLASSES, "no object")
    height, width = image.shape[:2]
    extent = (0, width, height, 0)
    fig = Figure(figsize=(FIGURE_WIDTH / 96, 3.7), layout="constrained")
    (first, *above), below = fig.subplots(2, len(attention) + 1)
    first.imshow(image, extent=extent)
    first.set_title("image", fontsize=10)
    words = []
    for layer, (ax, weights) in enumerate(zip(above, attention, strict=True), 1):
        values = weights[query].numpy()
        ax.imshow(image, extent=extent)
        ax.imshow(np.dstack([np.zeros((*values.shape, 3)), np.full(values.shape, 0.75)]), extent=extent)
        ax.imshow(np.where(values > 0, values, np.nan), cmap="cividis", vmin=0, extent=extent)
        title = f"layer {layer}: {int((values > 0).sum())} of {values.size}"
        ax.set_title(title, fontsize=10)
        words.append(f"attention in {title} positions")
    for layer, ax in enumerate(below):
        probability, best = mask_logits[layer, query].sigmoid().numpy(), int(chances[layer].argmax())
        ax.imshow(probability, cmap="cividis", vmin=0, vmax=1, extent=extent)
        title = f"{'before' if layer == 0 else f'after layer {layer}'}: {classes[best]} {chances[layer, best]:.2f}"
        ax.set_title(title, fontsize=10)
        words.append(f"mask {title}")
    for ax in (first, *above, *below):
        ax.set(xticks=[], yticks=[])
    demonstration.save_figure(fig, out)
    return f"A street, and query {query} in three layers: {'; '.join(words)}."


MASK2FORMER = Demonstration(
    scripts=("networks-mask2former.js", "networks-queries.js"),
    summary="Try it: Mask2Former runs in your browser. Select a query to see its masks and its attention.",
    version=lambda: demonstration.version(network_version(), __file__),
    network_version=network_version,
    weights=WEIGHTS,
    draw_figure=draw_figure,
    contents_of_pictures=contents_of_pictures,
    contents_of_network=contents_of_network,
)
