"""What a trained network predicts on new scenes: the worst, the median and the best of twenty, beside the ground truth.

The pages show the networks of `segedu.weights.own.recipes` in this way, so no page shows only what went well:

    ranked = rank_predictions("street_fcn8")
    show(draw_predictions(ranked), alt=ranked.description)
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from scipy import ndimage
from torch import Tensor, nn

from segedu.metrics.confusion import confusion_matrix
from segedu.metrics.semantic import iou_per_class_from_confusion
from segedu.recipes.data import Sets
from segedu.recipes.recipe import Recipe, load_recipe
from segedu.recipes.task import DETECTION, SEMANTIC
from segedu.viz import palette
from segedu.weights.catalogue_recipes import FILES
from segedu.weights.own import recipes
from segedu.weights.pretrained import load

SEED = 31  # of the scenes; recipes are trained and evaluated with the seeds 0, 1 and 2
DPI = 200  # of the panels
PAGE_WIDTH = 700  # pixels of the text column of a page on a laptop; a wider figure is scaled to it
SMALLEST_TEXT = 10  # pixels at that size
STRIP_WIDTH, LABEL_WIDTH = 8.6, 0.5  # inches: of a scene's panels, and of the label beside them
LEGEND_COLUMNS = 5
METRICS = {
    "mean_iou": "mean IoU",
    "dice": "mean Dice",
    "foreground_iou": "foreground IoU",
    "instance_accuracy": "instance accuracy",
    "box_ap50": "box AP50",
    "mask_ap50": "mask AP50",
    "pq": "PQ",
}


@dataclass(frozen=True)
class Example:
    """One scene with the ground truth, the prediction, and the score of the prediction."""

    rank: str
    image: Tensor
    target: Any
    prediction: Any
    score: float


@dataclass(frozen=True)
class Ranked:
    """The worst, the median and the best of some new scenes.

    `mean` and `baseline` are the scores of the network and of the plain baseline on the recipe's held-out scenes, from
    the log of the weights; `baseline_name` names the baseline.
    """

    recipe: Recipe
    examples: tuple[Example, ...]
    number: int
    mean: float
    baseline: float
    baseline_name: str

    @property
    def metric(self) -> str:
        """The recipe's metric, as texts name it."""
        return METRICS[self.recipe.metric]

    @property
    def description(self) -> str:
        """The alternative text of the picture."""
        rows = "; ".join(f"the {one.rank}, with {self.metric} {one.score:.2f}" for one in self.examples)
        return f"Three of {self.number} new scenes below each other, each with ground truth and prediction: {rows}."


def rank_predictions(name: str, number: int = 20, seed: int = SEED) -> Ranked:
    """Apply a network to new scenes and keep the worst, the median and the best by the recipe's metric.

    Args:
        name: of the weights, a key of `segedu.weights.catalogue_recipes.FILES`.
        number: of scenes, at least 3.
        seed: of the scenes.

    Raises:
        ValueError: no recipe's network has this name, or there are fewer than three scenes.
    """
    if name not in FILES:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(FILES)}")
    if number < 3:
        raise ValueError(f"number is {number}, expected at least 3")
    log = json.loads((recipes.FOLDER / f"{name}.json").read_text())
    recipe, model = load_recipe(log["method"], log["data"]), load(name)
    scenes = _only_group(recipe.sets(seed, None, train=1, held_out=number))
    examples = score_scenes(recipe, model, scenes)
    baseline = next(iter(log["on_new_scenes"]))
    own, plain = (
        next(iter(log["on_new_scenes"][row].values()))["all"][recipe.metric] for row in ("in half precision", baseline)
    )
    return Ranked(recipe, worst_median_best(examples), len(examples), own, plain, baseline)


def score_scenes(recipe: Recipe, model: nn.Module, scenes: Sequence[tuple[Tensor, Any]]) -> list[Example]:
    """Apply a network to scenes, pairs of an image and its ground truth; the lowest score is first.

    Scenes for which the recipe's metric is undefined are left out.
    """
    examples = []
    for image, target in scenes:
        prediction = recipe.task.predict(model, image, postprocess=recipe.postprocess)
        score = _score(recipe, image, target, prediction)
        if score is not None:
            examples.append(Example("", image, target, prediction, score))
    return sorted(examples, key=lambda one: one.score)


def worst_median_best(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Pick the first, the middle and the last of the examples of `score_scenes`."""
    picked = {"worst": examples[0], "median": examples[len(examples) // 2], "best": examples[-1]}
    return tuple(replace(one, rank=rank) for rank, one in picked.items())


def _only_group(sets: Sets) -> list[tuple[Tensor, Any]]:
    return next(iter(next(iter(sets.held_out.values())).values()))


def _score(recipe: Recipe, image: Tensor, target: Any, prediction: Any) -> float | None:
    """The recipe's metric on one scene; None where it is undefined."""
    one = Sets(None, {"new": {"all": [(image, target)]}})
    return recipe.task.measure(lambda _: prediction, one, len(recipe.classes))["new"]["all"][recipe.metric]


def lowest_ious(example: Example, classes: Sequence[str], number: int = 4) -> str:
    """List the classes of a semantic scene with the lowest IoU, with their pixels in ground truth and prediction.

    Args:
        example: target and prediction are classes (H, W), 255 is ignored in the target.
        classes: names of the K classes.
        number: how many classes to list; classes that occur in neither map are left out.

    Returns:
        Text such as "boat 0.00 (120 / 0), car 0.31 (800 / 1210)".
    """
    matrix = confusion_matrix(example.prediction, example.target, len(classes), ignore_index=255)
    ious = iou_per_class_from_confusion(matrix).tolist()
    rows = zip(ious, classes, matrix.sum(dim=1).tolist(), matrix.sum(dim=0).tolist(), strict=True)
    lowest = sorted(row for row in rows if row[2] + row[3] > 0)[:number]
    return ", ".join(f"{name} {iou:.2f} ({target} / {predicted})" for iou, name, target, predicted in lowest)


def draw_predictions(ranked: Ranked) -> Figure:
    """Draw the examples below each other, each as `draw` of the recipe's task does, with its score beside it.

    A legend below names the colours where they stand for classes: of pixels, or of the frames of boxes.
    """
    strips = [
        _rendered(_legible(ranked.recipe.task.draw(one.image, one.target, one.prediction))) for one in ranked.examples
    ]
    heights = [STRIP_WIDTH * strip.shape[0] / strip.shape[1] for strip in strips]
    handles = _class_legend(ranked.recipe)
    height = sum(heights) + 0.1 + 0.25 * -(-len(handles) // LEGEND_COLUMNS)
    figure, axes = plt.subplots(
        len(strips), 1, figsize=(STRIP_WIDTH + LABEL_WIDTH, height), height_ratios=heights, layout="constrained"
    )
    for axis, strip, one in zip(axes, strips, ranked.examples, strict=True):
        axis.imshow(strip, interpolation="none")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_ylabel(f"{one.rank}\n{ranked.metric} {one.score:.2f}", fontsize=10)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=LEGEND_COLUMNS, fontsize=10, frameon=False)
    return figure


def _class_legend(recipe: Recipe) -> list[Patch]:
    """A patch for each class; none where colours stand for instances or segments, or there is one class only."""
    names = recipe.classes[1:]
    if recipe.task not in (SEMANTIC, DETECTION) or len(names) < 2:
        return []
    filled = recipe.task is SEMANTIC
    patches = [
        Patch(facecolor=(*colour, 0.6 if filled else 0), edgecolor=colour, linewidth=1.5, label=name)
        for colour, name in zip(palette(len(names)), names, strict=True)
    ]
    if filled:
        patches.insert(0, Patch(facecolor="none", edgecolor="none", label=f"without colour: {recipe.classes[0]}"))
    return patches


def _legible(figure: Figure) -> Figure:
    """Enlarge the text of a task's figure that would be too small as a strip on a page."""
    strip = PAGE_WIDTH * STRIP_WIDTH / (STRIP_WIDTH + LABEL_WIDTH)  # pixels
    points = 72 * SMALLEST_TEXT * figure.get_figwidth() / strip
    for text in figure.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), points))
    return figure


def _rendered(figure: Figure) -> np.ndarray:
    """The pixels of a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.05)
    plt.close(figure)
    buffer.seek(0)
    return _cropped((plt.imread(buffer)[..., :3] * 255).round().astype(np.uint8))


def _cropped(pixels: np.ndarray, margin: int = 8) -> np.ndarray:
    """Without the white border, and with at most `margin` white rows between two that are not white."""
    ink = (pixels < 250).any(axis=2)
    columns = np.flatnonzero(ink.any(axis=0))
    near = ndimage.binary_dilation(ink.any(axis=1), iterations=margin // 2)
    return pixels[near, max(columns[0] - margin, 0) : columns[-1] + margin + 1]
