"""Networks for objects in microscope images, applied to photographs that everybody has, as the pages show them.

The photographs of `segedu.datasets.photos` come with annotations of our own. A network knows objects of some sizes
only, so each trial resizes its photograph by a factor. `factor_for` computes the factor from the size of the objects in
training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

from segedu.datasets.photos import Photos
from segedu.datasets.sample import VOID
from segedu.metrics.instance import match_instances
from segedu.recipes.recipe import load_recipe
from segedu.viz import gallery
from segedu.weights import load
from segedu.weights.catalogue_recipes import data_and_method
from segedu.weights.own.microscopes import NETWORKS


@dataclass(frozen=True)
class Trial:
    """A photograph at one size, its annotation, the predicted label map, and the counts at IoU 0.5."""

    photo: str
    factor: float
    image: Tensor
    target: Tensor
    prediction: Tensor
    correct: int
    false: int
    missed: int

    @property
    def accuracy(self) -> float:
        """Instance accuracy TP / (TP + FP + FN)."""
        return self.correct / (self.correct + self.false + self.missed)

    @property
    def counts(self) -> str:
        """Matched objects, all objects, and false predictions."""
        return f"{self.correct} of {self.correct + self.missed} found, {self.false} false"

    @property
    def title(self) -> str:
        """The photograph, its size, and the counts."""
        return f"{self.photo}, factor {self.factor:g}:\n{self.counts}"


def segment_photos(network: str, photos: Sequence[tuple[str, float]]) -> list[Trial]:
    """Apply a network to photographs.

    Args:
        network: a key of `segedu.weights.own.microscopes.NETWORKS`, or the weights of a recipe on synthetic cells.
        photos: names and factors by which the photographs are resized.
    """
    return [segment_view(network, name, factor, *resized_part(name, factor)) for name, factor in photos]


def segment_view(network: str, name: str, factor: float, image: Tensor, target: Tensor) -> Trial:
    """Apply a network to an image (3, H, W), and compare the prediction with a label map (H, W).

    `network` is as in `segment_photos`; `name` and `factor` only name the image.
    """
    method, data = NETWORKS[network] if network in NETWORKS else reversed(data_and_method(network))
    recipe = load_recipe(method, data)
    prediction = recipe.task.predict(load(network), image, recipe.postprocess)
    return Trial(name, factor, image, target, prediction, *match_instances(prediction, target, 0.5))


def factor_for(name: str, diameter: float) -> float:
    """The factor by which a photograph is resized, so that its objects have this median diameter in pixels."""
    return diameter / median_diameter(annotated_part(name)[1])


def median_diameter(label_map: Tensor) -> float:
    """The median diameter of the objects of a label map (H, W): of circles of equal area, in pixels."""
    areas = label_map.flatten().bincount()[1:].double()
    return float((2 * (areas[areas > 0] / torch.pi).sqrt()).quantile(0.5))


def resized_part(name: str, factor: float) -> tuple[Tensor, Tensor]:
    """`annotated_part`, resized by a factor."""
    image, target = annotated_part(name)
    size = [max(1, round(side * factor)) for side in target.shape]
    image = interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return image, interpolate(target[None, None].double(), size, mode="nearest-exact")[0, 0].int()


def annotated_part(name: str) -> tuple[Tensor, Tensor]:
    """A photograph (3, H, W) and its label map (H, W), cropped to the rows and columns that are annotated."""
    sample = Photos([name])[0]
    annotated = (sample["semantic"] != VOID).as_subclass(Tensor).nonzero()
    (top, left), (bottom, right) = annotated.amin(dim=0).tolist(), annotated.amax(dim=0).tolist()
    part = ..., slice(top, bottom + 1), slice(left, right + 1)
    return sample["image"].as_subclass(Tensor)[part], sample["label_map"].as_subclass(Tensor)[part]


def spread(vectors: Tensor, label_map: Tensor) -> float:
    """Mean distance of the vectors of an object's pixels from their mean, over the pixels of all objects.

    Args:
        vectors: (D, H, W), such as embeddings.
        label_map: (H, W), 0 for background.
    """
    parts = [vectors[:, label_map == label] for label in label_map.unique() if label > 0]
    return float(torch.cat([(part - part.mean(dim=1, keepdim=True)).norm(dim=0) for part in parts]).mean())


def draw_trials(trials: Sequence[Trial]) -> Figure:
    """Ground truth in the first row and predictions in the second, one column per trial."""
    images = [trial.image for trial in trials] * 2
    label_maps = [trial.target for trial in trials] + [trial.prediction for trial in trials]
    titles = ["ground truth"] * len(trials) + [trial.title for trial in trials]
    return gallery(images, label_maps, titles=titles, columns=len(trials), width=2.1)
