"""Detectors that were trained on synthetic shapes, applied to photographs, as the pages show them.

The scenes of `segedu.datasets.shapes` have 64 x 64 pixels, and each shape is as large as a circle 15 to 26 pixels wide.
A view is a photograph, or its middle window, resized so that the median diameter of its annotated objects is 20 pixels,
the middle of this range:

    views = [photo_view("coins"), photo_view("coins", window=64)]
    rows = {"RetinaNet": [detect("shapes_retinanet", view) for view in views]}
    show(draw_detections(rows), alt=...)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn.functional import pad

from segedu.metrics.average_precision import match_detections
from segedu.ops.boxes import box_area, box_iou
from segedu.ops.masks import boxes_from_masks, masks_from_label_map
from segedu.promptable.sam.interactive import mask_iou
from segedu.recipes.recipe import load_recipe
from segedu.recipes.task import DRAWN_SCORE
from segedu.teaching.photo_objects import factor_for, resized_part
from segedu.weights import load
from segedu.weights.catalogue_recipes import FILES, data_and_method
from segedu.weights.own import shapes_detr, shapes_mask_rcnn

DIAMETER = 20.0  # pixels: the middle of the diameters of shapes in training
WINDOW = 64  # pixels: the side of a scene in training
SMALLEST_PART = 0.5  # of an object at the border of a window: as in the scenes, at least half of it is visible
STYLES = {  # outcome -> colour and line style
    "annotated": ("#1b1b1b", "-"),
    "correct": ("#009E73", "-"),
    "false": ("#D55E00", "--"),
    "missed": ("#0072B2", ":"),
}
_TRAINED_APART = {"shapes_mask_rcnn": shapes_mask_rcnn.detect, "shapes_detr": shapes_detr.detect}  # without a recipe


@dataclass(frozen=True)
class View:
    """A photograph or a window of it, resized: the image (3, H, W), and the masks (N, H, W) of its objects."""

    name: str
    image: Tensor
    masks: Tensor

    @property
    def boxes(self) -> Tensor:
        """The boxes (N, 4) of the objects."""
        return boxes_from_masks(self.masks)


@dataclass(frozen=True)
class Detections:
    """What a detector predicts in a view: boxes (P, 4), labels (P,) and scores (P,), the most confident first.

    `masks` (P, H, W) is None for a detector of boxes. `iou` (P, N) is that of each prediction with each object, of
    boxes or of masks, and `matched` (P,) is the object that a prediction matches at an IoU of 0.5, -1 for none.
    """

    view: View
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor | None
    iou: Tensor
    matched: Tensor

    @property
    def correct(self) -> int:
        """Predictions that match an object."""
        return int((self.matched >= 0).sum())

    @property
    def false(self) -> int:
        """Predictions that match no object."""
        return len(self.matched) - self.correct

    @property
    def missed(self) -> Tensor:
        """The objects (N,) that no prediction matches, as a mask."""
        return ~torch.isin(torch.arange(len(self.view.masks)), self.matched)

    @property
    def diameters(self) -> Tensor:
        """The diameters (N,) of the objects: of circles of equal area, in pixels."""
        return 2 * (self.view.masks.sum(dim=(1, 2)) / torch.pi).sqrt()

    @property
    def mean_side(self) -> float:
        """The mean side of the predicted boxes: of squares of equal area, in pixels."""
        return float(box_area(self.boxes).sqrt().mean())

    @property
    def title(self) -> str:
        """The counts."""
        return f"{self.correct} of {len(self.view.masks)} found, {self.false} false"


def photo_view(name: str, diameter: float = DIAMETER, window: int | None = None) -> View:
    """A photograph, resized so that the median diameter of its annotated objects is `diameter`.

    With `window`, only the square of this side in the middle, and the objects with at least half of their pixels in it.
    """
    image, label_map = resized_part(name, factor_for(name, diameter))
    if window is None:
        return View(name, image, masks_from_label_map(label_map))
    top, left = ((side - window) // 2 for side in label_map.shape)
    part = ..., slice(top, top + window), slice(left, left + window)
    masks = masks_from_label_map(label_map)
    enough = masks[part].sum(dim=(1, 2)) >= SMALLEST_PART * masks.sum(dim=(1, 2))
    return View(f"{name}, middle", image[part], masks[part][enough])


def detect(network: str, view: View, score: float = DRAWN_SCORE, by_masks: bool = False) -> Detections:
    """Apply a detector to a view, and match its predictions with the objects at an IoU of 0.5, whatever their class.

    Args:
        network: weights such as "shapes_faster_rcnn".
        view: of `photo_view`.
        score: the lowest score of a prediction.
        by_masks: whether to match masks instead of boxes.
    """
    found = _apply(network, view.image)
    best = found["scores"].argsort(descending=True)
    best = best[found["scores"][best] >= score]
    found = {key: found[key][best] for key in ("boxes", "labels", "scores", "masks") if key in found}
    iou = mask_iou(found["masks"][:, None], view.masks[None]) if by_masks else box_iou(found["boxes"], view.boxes)
    matched, _ = match_detections(iou)
    return Detections(view, *(found[key] for key in ("boxes", "labels", "scores")), found.get("masks"), iou, matched)


@torch.no_grad()
def _apply(network: str, image: Tensor) -> dict[str, Tensor]:
    if network in _TRAINED_APART:
        return _TRAINED_APART[network](load(network), image)
    if network not in FILES or not network.startswith("shapes_"):
        raise ValueError(f"network is {network!r}, expected the weights of a detector of shapes")
    data, method = data_and_method(network)
    recipe = load_recipe(method, data)
    return recipe.task.predict(load(network), image, recipe.postprocess)


# --- draw ---------------------------------------------------------------------------------------------------------


def draw_detections(rows: Mapping[str, Sequence[Detections]], width: float = 8.4) -> Figure:
    """Draw the annotated objects in the first row, and the predictions of each detector in a further row.

    Masks are drawn if the detectors predict masks, otherwise boxes.

    Args:
        rows: name of a detector -> its detections in the same views.
        width: of the figure in inches.
    """
    columns = list(zip(*rows.values(), strict=True))
    views = [column[0].view for column in columns]
    aspects = [view.image.shape[2] / view.image.shape[1] for view in views]
    height = (1 + len(rows)) * ((width - 0.5) / sum(aspects) + 0.25) + 0.3
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(1 + len(rows), len(views), width_ratios=aspects, squeeze=False)
    for axes, view, column in zip(grid.T, views, columns, strict=True):
        shapes = view.boxes if column[0].masks is None else view.masks
        _draw(axes[0], view, [(shapes, "annotated")], view.name)
        for axis, one in zip(axes[1:], column, strict=True):
            _draw(axis, view, _outcomes(one), one.title)
    for axis, name in zip(grid[:, 0], ("annotation", *rows), strict=True):
        axis.set_ylabel(name, fontsize=11)
    handles = [Line2D([], [], color=colour, ls=dashes, lw=2, label=name) for name, (colour, dashes) in STYLES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=11, frameon=False)
    return figure


def _outcomes(one: Detections) -> list[tuple[Tensor, str]]:
    """The boxes or the masks of each outcome, the correct ones last, over the others."""
    preds, objects = (one.boxes, one.view.boxes) if one.masks is None else (one.masks, one.view.masks)
    of_object = one.matched >= 0
    return [(objects[one.missed], "missed"), (preds[~of_object], "false"), (preds[of_object], "correct")]


def _draw(axis: Axes, view: View, outcomes: Sequence[tuple[Tensor, str]], title: str) -> None:
    """Draw an image with boxes (N, 4), or with the outlines of masks (N, H, W)."""
    height, width = view.image.shape[1:]
    axis.imshow(view.image.permute(1, 2, 0).clamp(0, 1), extent=(0, width, height, 0))
    casing = [patheffects.withStroke(linewidth=3.4, foreground="white")]  # visible on every photograph
    for shapes, name in outcomes:
        colour, dashes = STYLES[name]
        for shape in shapes:
            if shape.ndim == 1:
                left, top, right, bottom = shape.tolist()
                style = {"fill": False, "ec": colour, "ls": dashes, "lw": 1.8, "path_effects": casing}
                axis.add_patch(Rectangle((left, top), right - left, bottom - top, **style))
            else:
                padded = pad(shape.float(), (1, 1, 1, 1))
                corners = torch.arange(width + 2) - 0.5, torch.arange(height + 2) - 0.5
                lines = axis.contour(*corners, padded, levels=[0.5], colors=colour, linestyles=dashes, linewidths=1.8)
                lines.set_path_effects(casing)
    axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axis.set_title(title, fontsize=10)
