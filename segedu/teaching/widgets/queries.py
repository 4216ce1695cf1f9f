"""A query on its way through Mask2Former (chapter 15): its mask, where that lets it look next, and what it says."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from segedu.datasets.street import CLASSES, draw_street
from segedu.layers.segments import panoptic_segments
from segedu.ops.matching import hungarian_matching
from segedu.panoptic.mask2former.loss import matching_cost
from segedu.panoptic.mask2former.mask2former import Mask2Former, attention_mask
from segedu.panoptic.mask2former.pixel_decoder import LEVELS
from segedu.teaching.widgets.explore import explore
from segedu.viz import show
from segedu.weights import load

INK, TRUTH, MASK, OTHER = "#1b1b1b", "#0072B2", "#D55E00", "#b5b5b5"
SIZE = (64, 96)
STREETS = {"people and a car": (15, 8), "a boat": (15, 7), "two buses": (15, 15)}  # seeds that training never saw
SAYS = (*CLASSES, "no object")
LAYERS = 3
LABELS = {"query": "query", "layer": "layers that it went through", "street": "street"}
FRAMES = [
    {"query": 10, "layer": 0, "street": "people and a car"},
    {"query": 10, "layer": 1, "street": "people and a car"},
    {"query": 18, "layer": 1, "street": "people and a car"},
    {"query": 7, "layer": 2, "street": "a boat"},
    {"query": 3, "layer": 3, "street": "two buses"},
]


class Answers(NamedTuple):
    """A street, and what Q queries say of it before any layer and behind each of L."""

    image: Tensor  # (3, H, W)
    class_logits: Tensor  # (L + 1, Q, K + 1)
    mask_logits: Tensor  # (L + 1, Q, h, w), at stride 2
    sizes: list[tuple[int, int]]  # (h, w) of the features that layers 1, 2, ... look at
    labels: Tensor  # (N,) of the true segments
    masks: Tensor  # (N, H, W) bool
    matched: dict[int, int]  # query -> the segment that it answers for at the end


@lru_cache
def model() -> Mask2Former:
    """The small Mask2Former of drawn streets."""
    return load("street_mask2former").eval()


@lru_cache
def answers(street: str) -> Answers:
    """Ask the network once; sliders only choose among what it said.

    Args:
        street: a key of `STREETS`.

    Returns:
        What all queries say at all layers, and the truth.
    """
    scene = draw_street(STREETS[street], SIZE)
    image = scene["image"].as_subclass(Tensor)
    truth = panoptic_segments(scene["panoptic_seg"].as_subclass(Tensor), scene["segments_info"])
    with torch.no_grad():
        mask_features, levels = model().pixel_decoder(model().backbone(image[None])[-4:])
        said = model().decoder(mask_features, levels)
    class_logits, mask_logits = (torch.cat([x[key] for x in said]) for key in ("class_logits", "mask_logits"))
    sizes = [tuple(levels[i % LEVELS].shape[-2:]) for i in range(len(said) - 1)]
    cost = matching_cost(
        class_logits[-1], _enlarged(mask_logits[-1]).flatten(1), truth["labels"], truth["masks"].flatten(1).float()
    )
    queries, segments = hungarian_matching(cost)
    matched = dict(zip(queries.tolist(), segments.tolist(), strict=True))
    return Answers(image, class_logits, mask_logits, sizes, truth["labels"], truth["masks"], matched)


def _enlarged(mask_logits: Tensor) -> Tensor:
    """(N, h, w) at the size of the image."""
    return F.interpolate(mask_logits[None], size=SIZE, mode="bilinear", align_corners=False)[0]


def looks(street: str, query: int, layer: int) -> Tensor | None:
    """Where a query may look in the next layer.

    Args:
        street: a key of `STREETS`.
        query: its number.
        layer: how many layers it went through.

    Returns:
        (h, w) bool at the stride of the next layer's features; None behind the last layer.
    """
    shown = answers(street)
    if layer == len(shown.sizes):
        return None
    hidden = attention_mask(shown.mask_logits[layer, None, query, None], shown.sizes[layer], num_heads=1)
    return ~hidden[0, 0].unflatten(0, shown.sizes[layer])


def ious(street: str, query: int) -> list[float] | None:
    """IoU of a query's mask, at each layer, with the segment that it answers for at the end.

    Args:
        street: a key of `STREETS`.
        query: its number.

    Returns:
        L + 1 numbers; None if it answers for nothing.
    """
    shown = answers(street)
    if query not in shown.matched:
        return None
    truth, masks = shown.masks[shown.matched[query]], _enlarged(shown.mask_logits[:, query]) > 0
    union = (masks | truth).flatten(1).sum(dim=1)
    return ((masks & truth).flatten(1).sum(dim=1) / union.clamp(min=1)).tolist()


def draw_query(query: int = 10, layer: int = 0, street: str = "people and a car") -> None:
    """Show a query's mask at a layer, where the next layer may look, its classes, and its IoU by layer.

    Args:
        query: its number.
        layer: how many layers it went through.
        street: a key of `STREETS`.
    """
    shown = answers(street)
    fig = Figure(figsize=(10.6, 5.6), layout="constrained")
    axes = fig.subplot_mosaic([["image", "mask", "looks"], ["classes", "classes", "iou"]], height_ratios=(1, 1))
    _paint_image(axes["image"], shown, query)
    _paint_mask(axes["mask"], shown, query, layer)
    where = _paint_looks(axes["looks"], street, query, layer)
    said = _paint_classes(axes["classes"], shown, query, layer)
    overlap = _paint_ious(axes["iou"], street, query, layer)
    at = "before any layer" if layer == 0 else f"behind layer {layer} of {len(shown.sizes)}"
    area = int((shown.mask_logits[layer, query] > 0).sum())
    parts = f"Query {query} {at}: {said}; its mask has {area} of {shown.mask_logits[0, 0].numel()} places at stride 2."
    show(fig, f"{parts} {where} {overlap}")


def _bare(ax: Axes, title: str) -> None:
    ax.set(xticks=[], yticks=[], xlim=(0, SIZE[1]), ylim=(SIZE[0], 0))
    ax.set_title(title, fontsize=10, color=INK)


def _backdrop(ax: Axes, image: Tensor, opacity: float = 1.0) -> None:
    ax.imshow(image.permute(1, 2, 0), extent=(0, SIZE[1], SIZE[0], 0), alpha=opacity)


def _edge(ax: Axes, mask: Tensor, colour: str, style: str = "-") -> None:
    """The outline of a mask (h, w) over the whole picture."""
    if not mask.any():
        return
    h, w = mask.shape
    fine = np.pad(mask.numpy().repeat(SIZE[0] // h, 0).repeat(SIZE[1] // w, 1), 1)  # a rim: closed at the border too
    x, y = np.arange(SIZE[1] + 2) - 0.5, np.arange(SIZE[0] + 2) - 0.5
    ax.contour(x, y, fine, levels=[0.5], colors="white", linewidths=3.2)
    ax.contour(x, y, fine, levels=[0.5], colors=colour, linewidths=1.8, linestyles=style)


def _paint_image(ax: Axes, shown: Answers, query: int) -> None:
    _backdrop(ax, shown.image)
    if query in shown.matched:
        segment = shown.matched[query]
        _edge(ax, shown.masks[segment], TRUTH)
        _bare(ax, f"at the end it answers for: {CLASSES[shown.labels[segment]]}")
    else:
        _bare(ax, "at the end it answers for nothing")


def _paint_mask(ax: Axes, shown: Answers, query: int, layer: int) -> None:
    logits = shown.mask_logits[layer, query]
    ax.imshow(logits.sigmoid(), cmap="cividis", vmin=0, vmax=1, extent=(0, SIZE[1], SIZE[0], 0))
    _edge(ax, logits > 0, MASK, "--")
    _bare(
        ax, f"mask of query {query}, bright near 1; edge: 1/2" if (logits > 0).any() else "mask: below 1/2 everywhere"
    )


def _paint_looks(ax: Axes, street: str, query: int, layer: int) -> str:
    """Where the next layer may look; gives it in words."""
    shown, where = answers(street), looks(street, query, layer)
    _backdrop(ax, shown.image, 1.0 if where is not None else 0.3)
    if where is None:
        _bare(ax, "no further layer")
        return "There is no further layer."
    shade = np.zeros((*where.shape, 4))
    shade[~where.numpy()] = (0.05, 0.05, 0.05, 0.82)
    ax.imshow(shade, extent=(0, SIZE[1], SIZE[0], 0))
    _bare(ax, f"layer {layer + 1} may look at {where.sum()} of {where.numel()} places")
    reason = ", for on these places its mask is below 1/2 everywhere" if where.all() else ""
    return f"Layer {layer + 1} may look at {where.sum()} of {where.numel()} places{reason}."


def _paint_classes(ax: Axes, shown: Answers, query: int, layer: int) -> str:
    """Probabilities of classes; gives the likeliest in words."""
    chance = shown.class_logits[layer, query].softmax(dim=0)
    best = int(chance.argmax())
    bars = ax.bar(range(len(SAYS)), chance.tolist(), color=[MASK if k == best else OTHER for k in range(len(SAYS))])
    ax.bar_label(bars, [f"{p:.2f}" if p >= 0.005 else "" for p in chance.tolist()], fontsize=9)
    ax.set_xticks(range(len(SAYS)), SAYS, rotation=35, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set(ylim=(0, 1.12), ylabel="probability")
    ax.set_title(f"class: {SAYS[best]}", fontsize=10, color=INK)
    return f"{SAYS[best]} with probability {chance[best]:.2f}"


def _paint_ious(ax: Axes, street: str, query: int, layer: int) -> str:
    """IoU of all matched queries by layer, this one thick; gives its own in words."""
    for other in answers(street).matched:
        ax.plot(ious(street, other), color=OTHER, linewidth=1)
    values = ious(street, query)
    ax.axvline(layer, color=INK, linewidth=0.8, linestyle=":")
    ax.set(xlabel="layers that it went through", ylabel="IoU", ylim=(-0.03, 1.03))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if values is None:
        ax.set_title("matched with no segment (grey: others)", fontsize=10, color=INK)
        return "No segment is matched with it."
    ax.plot(values, "o-", color=TRUTH, linewidth=2.5)
    ax.plot(layer, values[layer], "o", color=MASK, markersize=11, zorder=3)
    ax.set_title(f"IoU with its segment: {values[layer]:.2f} (grey: others)", fontsize=10, color=INK)
    name = CLASSES[answers(street).labels[answers(street).matched[query]]]
    return f"IoU with the segment that it ends up with ({name}), by layer: {', '.join(f'{v:.2f}' for v in values)}."


def explorer() -> None:
    """The page's widget: sliders where somebody can move them, five frames elsewhere."""
    explore(
        draw_query,
        static=FRAMES,
        labels=LABELS,
        query=(0, 19, 1),
        layer=(0, LAYERS, 1),
        street=list(STREETS),
    )
