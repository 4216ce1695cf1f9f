"""A query in the layers of Mask2Former (chapter 15): its mask, its next attention mask, and its class probabilities."""

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

INK, TARGET, MASK, OTHER = "#1b1b1b", "#0072B2", "#D55E00", "#b5b5b5"
SIZE = (64, 96)
STREETS = {
    "people and two cars": (15, 8),
    "a boat": (15, 7),
    "two buses": (15, 15),
}  # seeds that are not used in training
CLASS_NAMES = (*CLASSES, "no object")
LAYERS = 3
LABELS = {"query": "query", "layer": "layers passed", "street": "street"}
FRAMES = [
    {"query": 10, "layer": 0, "street": "people and two cars"},
    {"query": 10, "layer": 1, "street": "people and two cars"},
    {"query": 18, "layer": 1, "street": "people and two cars"},
    {"query": 7, "layer": 2, "street": "a boat"},
    {"query": 3, "layer": 3, "street": "two buses"},
]


class Predictions(NamedTuple):
    """A street, and the predictions of Q queries before the first layer and after each of L layers."""

    image: Tensor  # (3, H, W)
    class_logits: Tensor  # (L + 1, Q, K + 1)
    mask_logits: Tensor  # (L + 1, Q, h, w), at stride 2
    sizes: list[tuple[int, int]]  # (h, w) of the features that layers 1, 2, ... attend to
    labels: Tensor  # (N,) of the ground-truth segments
    masks: Tensor  # (N, H, W) bool
    matched: dict[int, int]  # query -> the segment that it is finally matched with


@lru_cache
def model() -> Mask2Former:
    """The small Mask2Former for synthetic streets."""
    return load("street_mask2former").eval()


@lru_cache
def predictions(street: str) -> Predictions:
    """Run the network once on a street, a key of `STREETS`, and match its queries; sliders only select results."""
    scene = draw_street(STREETS[street], SIZE)
    image = scene["image"].as_subclass(Tensor)
    target = panoptic_segments(scene["panoptic_seg"].as_subclass(Tensor), scene["segments_info"])
    with torch.no_grad():
        mask_features, levels = model().pixel_decoder(model().backbone(image[None])[-4:])
        outputs = model().decoder(mask_features, levels)
    class_logits, mask_logits = (torch.cat([x[key] for x in outputs]) for key in ("class_logits", "mask_logits"))
    sizes = [tuple(levels[i % LEVELS].shape[-2:]) for i in range(len(outputs) - 1)]
    cost = matching_cost(
        class_logits[-1], _upsampled(mask_logits[-1]).flatten(1), target["labels"], target["masks"].flatten(1).float()
    )
    queries, segments = hungarian_matching(cost)
    matched = dict(zip(queries.tolist(), segments.tolist(), strict=True))
    return Predictions(image, class_logits, mask_logits, sizes, target["labels"], target["masks"], matched)


def _upsampled(mask_logits: Tensor) -> Tensor:
    """Interpolate (N, h, w) to the size of the image."""
    return F.interpolate(mask_logits[None], size=SIZE, mode="bilinear", align_corners=False)[0]


def attended(street: str, query: int, layer: int) -> Tensor | None:
    """Locations (h, w) to which a query may attend after `layer` layers; None after the last layer."""
    shown = predictions(street)
    if layer == len(shown.sizes):
        return None
    attn_mask = attention_mask(shown.mask_logits[layer, None, query, None], shown.sizes[layer], num_heads=1)
    return ~attn_mask[0, 0].unflatten(0, shown.sizes[layer])


def ious(street: str, query: int) -> list[float] | None:
    """IoU of a query's mask with its final match, before the first layer and after each; None if it is unmatched."""
    shown = predictions(street)
    if query not in shown.matched:
        return None
    target, masks = shown.masks[shown.matched[query]], _upsampled(shown.mask_logits[:, query]) > 0
    union = (masks | target).flatten(1).sum(dim=1)
    return ((masks & target).flatten(1).sum(dim=1) / union.clamp(min=1)).tolist()


def draw_query(query: int = 10, layer: int = 0, street: str = "people and two cars") -> None:
    """Show a query's mask after some layers, its next attention mask, its classes, and its IoU per layer."""
    shown = predictions(street)
    fig = Figure(figsize=(10.6, 5.6), layout="constrained")
    axes = fig.subplot_mosaic([["image", "mask", "attended"], ["classes", "classes", "iou"]], height_ratios=(1, 1))
    _paint_image(axes["image"], shown, query)
    _paint_mask(axes["mask"], shown, query, layer)
    where = _paint_attended(axes["attended"], street, query, layer)
    class_text = _paint_classes(axes["classes"], shown, query, layer)
    overlap = _paint_ious(axes["iou"], street, query, layer)
    stage = "before the first layer" if layer == 0 else f"after layer {layer} of {len(shown.sizes)}"
    area = int((shown.mask_logits[layer, query] > 0).sum())
    locations = shown.mask_logits[0, 0].numel()
    description = f"Query {query} {stage}: {class_text}; its mask has {area} of {locations} locations at stride 2."
    show(fig, f"{description} {where} {overlap}")


def _bare(ax: Axes, title: str) -> None:
    ax.set(xticks=[], yticks=[], xlim=(0, SIZE[1]), ylim=(SIZE[0], 0))
    ax.set_title(title, fontsize=10, color=INK)


def _backdrop(ax: Axes, image: Tensor, opacity: float = 1.0) -> None:
    ax.imshow(image.permute(1, 2, 0), extent=(0, SIZE[1], SIZE[0], 0), alpha=opacity)


def _edge(ax: Axes, mask: Tensor, colour: str, style: str = "-") -> None:
    """Draw the outline of a mask (h, w) over the full image."""
    if not mask.any():
        return
    h, w = mask.shape
    fine = np.pad(
        mask.numpy().repeat(SIZE[0] // h, 0).repeat(SIZE[1] // w, 1), 1
    )  # padded, so that outlines close at the border
    x, y = np.arange(SIZE[1] + 2) - 0.5, np.arange(SIZE[0] + 2) - 0.5
    ax.contour(x, y, fine, levels=[0.5], colors="white", linewidths=3.2)
    ax.contour(x, y, fine, levels=[0.5], colors=colour, linewidths=1.8, linestyles=style)


def _paint_image(ax: Axes, shown: Predictions, query: int) -> None:
    _backdrop(ax, shown.image)
    if query in shown.matched:
        segment = shown.matched[query]
        _edge(ax, shown.masks[segment], TARGET)
        _bare(ax, f"finally matched with: {CLASSES[shown.labels[segment]]}")
    else:
        _bare(ax, "finally unmatched")


def _paint_mask(ax: Axes, shown: Predictions, query: int, layer: int) -> None:
    logits = shown.mask_logits[layer, query]
    ax.imshow(logits.sigmoid(), cmap="cividis", vmin=0, vmax=1, extent=(0, SIZE[1], SIZE[0], 0))
    _edge(ax, logits > 0, MASK, "--")
    _bare(ax, f"mask of query {query}; outline at 1/2" if (logits > 0).any() else "mask: below 1/2 everywhere")


def _paint_attended(ax: Axes, street: str, query: int, layer: int) -> str:
    """Draw the locations to which the next layer may attend; returns a description."""
    shown, where = predictions(street), attended(street, query, layer)
    _backdrop(ax, shown.image, 1.0 if where is not None else 0.3)
    if where is None:
        _bare(ax, "no further layer")
        return "There is no further layer."
    shade = np.zeros((*where.shape, 4))
    shade[~where.numpy()] = (0.05, 0.05, 0.05, 0.82)
    ax.imshow(shade, extent=(0, SIZE[1], SIZE[0], 0))
    _bare(ax, f"layer {layer + 1} may attend to {where.sum()} of {where.numel()}")
    reason = ", because its mask is below 1/2 everywhere" if where.all() else ""
    return f"Layer {layer + 1} may attend to {where.sum()} of {where.numel()} locations{reason}."


def _paint_classes(ax: Axes, shown: Predictions, query: int, layer: int) -> str:
    """Plot the class probabilities; returns a description of the most probable class."""
    probabilities = shown.class_logits[layer, query].softmax(dim=0)
    best = int(probabilities.argmax())
    bars = ax.bar(
        range(len(CLASS_NAMES)),
        probabilities.tolist(),
        color=[MASK if k == best else OTHER for k in range(len(CLASS_NAMES))],
    )
    ax.bar_label(bars, [f"{p:.2f}" if p >= 0.005 else "" for p in probabilities.tolist()], fontsize=9)
    ax.set_xticks(range(len(CLASS_NAMES)), CLASS_NAMES, rotation=35, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set(ylim=(0, 1.12), ylabel="probability")
    ax.set_title(f"class: {CLASS_NAMES[best]}", fontsize=10, color=INK)
    return f"{CLASS_NAMES[best]} with probability {probabilities[best]:.2f}"


def _paint_ious(ax: Axes, street: str, query: int, layer: int) -> str:
    """Plot the IoU of all matched queries per layer, that of `query` as a thick line; returns a description of it."""
    for other in predictions(street).matched:
        ax.plot(ious(street, other), color=OTHER, linewidth=1)
    values = ious(street, query)
    ax.axvline(layer, color=INK, linewidth=0.8, linestyle=":")
    ax.set(xlabel="layers passed", ylabel="IoU", ylim=(-0.03, 1.03))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if values is None:
        ax.set_title("unmatched (grey: other queries)", fontsize=10, color=INK)
        return "It is not matched with a segment."
    ax.plot(values, "o-", color=TARGET, linewidth=2.5)
    ax.plot(layer, values[layer], "o", color=MASK, markersize=11, zorder=3)
    ax.set_title(f"IoU with its segment: {values[layer]:.2f}\n(grey: other queries)", fontsize=10, color=INK)
    name = CLASSES[predictions(street).labels[predictions(street).matched[query]]]
    return f"IoU with the segment of its final match ({name}), by layer: {', '.join(f'{v:.2f}' for v in values)}."


def explorer() -> None:
    """Show the page's widget: live controls in a notebook, five static frames elsewhere."""
    explore(
        draw_query,
        static=FRAMES,
        labels=LABELS,
        query=(0, 19, 1),
        layer=(0, LAYERS, 1),
        street=list(STREETS),
    )
