"""Networks for objects in microscope images, applied to photographs that everybody has, as the pages show them.

The photographs of `segedu.datasets.photos` come with annotations of our own. A network knows objects of some sizes
only, so each trial resizes its photograph by a factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

from segedu.datasets.photos import Photos
from segedu.datasets.sample import VOID
from segedu.metrics.instance import match_instances
from segedu.recipes.recipe import load_recipe
from segedu.viz import gallery
from segedu.weights import load
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
    def title(self) -> str:
        """The photograph, its size, and the counts."""
        objects = self.correct + self.missed
        return f"{self.photo}, factor {self.factor:g}:\n{self.correct} of {objects} found, {self.false} false"


def segment_photos(network: str, photos: Sequence[tuple[str, float]]) -> list[Trial]:
    """Apply a network to photographs.

    Args:
        network: a key of `segedu.weights.own.microscopes.NETWORKS`.
        photos: names and factors by which the photographs are resized.
    """
    recipe, model = load_recipe(*NETWORKS[network]), load(network)
    trials = []
    for name, factor in photos:
        image, target = annotated_part(name)
        size = [max(1, round(side * factor)) for side in target.shape]
        image = interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        target = interpolate(target[None, None].double(), size, mode="nearest-exact")[0, 0].int()
        prediction = recipe.task.predict(model, image, recipe.postprocess)
        trials.append(Trial(name, factor, image, target, prediction, *match_instances(prediction, target, 0.5)))
    return trials


def annotated_part(name: str) -> tuple[Tensor, Tensor]:
    """A photograph (3, H, W) and its label map (H, W), cropped to the rows and columns that are annotated."""
    sample = Photos([name])[0]
    annotated = (sample["semantic"] != VOID).as_subclass(Tensor).nonzero()
    (top, left), (bottom, right) = annotated.amin(dim=0).tolist(), annotated.amax(dim=0).tolist()
    part = ..., slice(top, bottom + 1), slice(left, right + 1)
    return sample["image"].as_subclass(Tensor)[part], sample["label_map"].as_subclass(Tensor)[part]


def draw_trials(trials: Sequence[Trial]) -> Figure:
    """Ground truth in the first row and predictions in the second, one column per trial."""
    images = [trial.image for trial in trials] * 2
    label_maps = [trial.target for trial in trials] + [trial.prediction for trial in trials]
    titles = ["ground truth"] * len(trials) + [trial.title for trial in trials]
    return gallery(images, label_maps, titles=titles, columns=len(trials), width=2.1)
