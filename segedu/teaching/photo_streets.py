"""Networks that were trained on synthetic streets, applied to photographs, as the pages show them.

Some classes of the annotated photographs are classes of the streets too, possibly under another name. All other pixels
are void. A photograph is resized to 96 rows, the height of a street in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor
from torch.nn.functional import interpolate

from segedu.datasets.photos import Photos
from segedu.datasets.sample import VOID
from segedu.datasets.street import CLASSES, draw_street
from segedu.metrics.confusion import confusion_matrix
from segedu.metrics.semantic import iou_per_class_from_confusion
from segedu.recipes.task import predict_classes
from segedu.viz import overlay, palette
from segedu.weights import load

HEIGHT = 96  # rows of a street in training
SAME = {  # class of a photograph -> class of the streets
    "sky": "sky",
    "tree": "vegetation",
    "grass": "vegetation",
    "building": "building",
    "buildings": "building",
    "person": "person",
}
SEED = 31  # of the streets; recipes use the seeds 0 to 5


@dataclass(frozen=True)
class StreetTrial:
    """An image (3, H, W), its annotated and its predicted classes (H, W), and a name."""

    name: str
    image: Tensor
    target: Tensor
    prediction: Tensor

    @property
    def ious(self) -> dict[str, float]:
        """The IoU of each annotated class. Void pixels do not count."""
        matrix = confusion_matrix(self.prediction, self.target, len(CLASSES), ignore_index=VOID)
        ious = iou_per_class_from_confusion(matrix).tolist()
        return {CLASSES[k]: ious[k] for k in matrix.sum(dim=1).nonzero()[:, 0].tolist()}

    def region(self, annotated: str) -> Tensor:
        """The pixels (H, W) of an annotated class."""
        return self.target == CLASSES.index(annotated)

    def share(self, predicted: str, annotated: str) -> float:
        """The fraction of the pixels of an annotated class that are predicted as a class."""
        return float((self.prediction[self.region(annotated)] == CLASSES.index(predicted)).double().mean())

    def recoloured(self, annotated: str, colour: Tensor) -> Tensor:
        """The image with the colours of an annotated class shifted to another mean (3,).

        The texture stays as it is, apart from clipping to [0, 1].
        """
        image, region = self.image.clone(), self.region(annotated)
        pixels = self.image[:, region]
        image[:, region] = (pixels + (colour - pixels.mean(dim=1))[:, None]).clamp(0, 1)
        return image


def street_view(name: str) -> tuple[Tensor, Tensor]:
    """A photograph (3, 96, W) and its classes (96, W): those of the streets, or void."""
    photos = Photos([name])
    sample = photos[0]
    image, semantic = sample["image"].as_subclass(Tensor), sample["semantic"].as_subclass(Tensor)
    target = torch.full_like(semantic, VOID)
    for label, own in enumerate(photos.classes):
        if own in SAME:
            target[semantic == label] = CLASSES.index(SAME[own])
    size = HEIGHT, round(HEIGHT * image.shape[2] / image.shape[1])
    image = interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    return image, interpolate(target[None, None].double(), size, mode="nearest-exact")[0, 0].long()


def segment_street(network: str, name: str, image: Tensor | None = None, target: Tensor | None = None) -> StreetTrial:
    """Apply a network such as "street_fcn8" to a photograph, or to an image (3, H, W) with its classes (H, W)."""
    if image is None or target is None:
        image, target = street_view(name)
    return StreetTrial(name, image, target, predict_classes(load(network), image))


@cache
def _streets(number: int = 20) -> list[tuple[Tensor, Tensor]]:
    """Synthetic streets (3, 96, 160) and their classes (96, 160)."""
    scenes = [draw_street((SEED, index)) for index in range(number)]
    return [(scene["image"].as_subclass(Tensor), scene["semantic"].as_subclass(Tensor)) for scene in scenes]


def street_colour(name: str) -> Tensor:
    """The mean colour (3,) of a class in 20 synthetic streets."""
    pixels = [image[:, semantic == CLASSES.index(name)] for image, semantic in _streets()]
    return torch.cat(pixels, dim=1).mean(dim=1)


def largest_share(name: str) -> float:
    """The largest fraction of the pixels that a class has in one of 20 synthetic streets."""
    return max(float((semantic == CLASSES.index(name)).double().mean()) for _, semantic in _streets())


def draw_street_trials(trials: Sequence[StreetTrial], width: float = 8.4) -> Figure:
    """Annotation above, prediction below, one column per trial; a legend names the colours of the classes."""
    aspects = [trial.image.shape[2] / trial.image.shape[1] for trial in trials]
    figure = Figure(figsize=(width, 2 * ((width - 0.4) / sum(aspects) + 0.45) + 0.6), layout="constrained")
    axes = figure.subplots(2, len(trials), width_ratios=aspects, squeeze=False)
    present = set()
    for (above, below), trial in zip(axes.T, trials, strict=True):
        shown = torch.where(trial.target == VOID, 0, trial.target)
        present |= {*shown.unique().tolist(), *trial.prediction.unique().tolist()}
        above.imshow(overlay(trial.image, shown, opacity=0.55), interpolation="nearest")
        below.imshow(overlay(trial.image, trial.prediction, opacity=0.55), interpolation="nearest")
        above.set_title(trial.name, fontsize=10)
        ious = [f"{name} {iou:.2f}" for name, iou in trial.ious.items()]
        below.set_title("IoU: " + ", ".join(ious[:2]) + "".join(f",\n{one}" for one in ious[2:]), fontsize=10)
    for axis, name in zip(axes[:, 0], ("annotation", "prediction"), strict=True):
        axis.set_ylabel(name, fontsize=11)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    colours = palette(len(CLASSES) - 1)
    handles = [Patch(facecolor=colours[k - 1], label=CLASSES[k]) for k in sorted(present - {0})]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=10, frameon=False)
    return figure
