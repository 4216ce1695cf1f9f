"""k-means on photographs (chapter 2): number of clusters, colour space, and weight of the pixel position."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy import ndimage
from torch import Tensor

from segedu.ops.colour import rgb_to_lab
from segedu.teaching.widgets.explore import explore
from segedu.unsupervised.kmeans import colour_position_features, kmeans, kmeans_plus_plus
from segedu.viz import palette, show

DOWNSAMPLING = 4  # factor along each axis
ITERATIONS = 30
# Each maps (3, H, W) in [0, 1] to channels in about the same range, so that distances are comparable.
COLOURS: dict[str, Callable[[Tensor], Tensor]] = {
    "RGB": lambda image: image,
    "Lab": lambda image: rgb_to_lab(image) / 100,
    "grey": lambda image: image.mean(dim=0, keepdim=True),
}
FRAMES = [
    {"photo": "coffee", "k": 4, "position_weight": 0.0, "colours": "RGB"},
    {"photo": "coffee", "k": 4, "position_weight": 0.8, "colours": "RGB"},
    {"photo": "china", "k": 6, "position_weight": 0.0, "colours": "Lab"},
    {"photo": "china", "k": 6, "position_weight": 0.8, "colours": "Lab"},
]
LABELS = {"k": "clusters k", "colours": "colour space"}


def _coffee() -> np.ndarray:
    from skimage.data import coffee

    return coffee()


def _china() -> np.ndarray:
    from sklearn.datasets import load_sample_image

    return load_sample_image("china.jpg")


PHOTOS: dict[str, Callable[[], np.ndarray]] = {"coffee": _coffee, "china": _china}


@lru_cache
def photograph(photo: str) -> Tensor:
    """Load a photograph of scikit-image or scikit-learn, a key of `PHOTOS`, downsampled: (3, H, W) in [0, 1]."""
    image = torch.from_numpy(PHOTOS[photo]().copy()).permute(2, 0, 1).float() / 255
    return F.avg_pool2d(image[None], DOWNSAMPLING)[0]


@lru_cache(maxsize=64)
def clusters(photo: str, k: int, position_weight: float, colours: str) -> Tensor:
    """Cluster the pixels of a photograph into k clusters by colour and position, always from the same initial centres.

    Args:
        photo: a key of `PHOTOS`.
        k: number of clusters.
        position_weight: scale of the positions: length of the image's longer side, where colours span about 1.
        colours: a key of `COLOURS`.

    Returns:
        (H, W) int64; clusters are sorted by size, 0 is the largest.
    """
    image = photograph(photo)
    points = colour_position_features(COLOURS[colours](image), position_weight)
    centres = kmeans_plus_plus(points, k, torch.Generator().manual_seed(0))
    labels = kmeans(points, centres, ITERATIONS).labels
    order = torch.bincount(labels, minlength=k).argsort(descending=True, stable=True)
    return order.argsort()[labels].reshape(image.shape[1:])


def count_regions(labels: Tensor) -> int:
    """Count the connected regions (4-neighbours) of all labels of a label map (H, W).

    >>> count_regions(torch.tensor([[0, 1, 0], [0, 1, 1]]))
    3
    """
    array = labels.numpy()
    return sum(ndimage.label(array == label)[1] for label in np.unique(array))


def draw_clusters(photo: str = "coffee", k: int = 4, position_weight: float = 0.0, colours: str = "RGB") -> None:
    """Show a photograph, its clusters, and each cluster in its mean colour; for the arguments see `clusters`."""
    image, labels = photograph(photo), clusters(photo, k, position_weight, colours)
    regions = count_regions(labels)
    fig = _panels(image, labels, f"{k} clusters, {regions} connected regions")
    show(
        fig,
        f"The photograph {photo}, its {k} clusters by colour ({colours}) and position (weight {position_weight:g}) in "
        f"{regions} connected regions, and the same clusters in their mean colours.",
    )


def _panels(image: Tensor, labels: Tensor, title: str) -> Figure:
    flat = image.flatten(1).T
    means = torch.stack([flat[labels.flatten() == label].mean(dim=0) for label in labels.unique()])
    painted = palette(int(labels.max()) + 1)[labels.numpy()]
    pictures = {
        "photograph": image.permute(1, 2, 0).numpy(),
        title: painted,
        "mean colours": means[torch.unique(labels, return_inverse=True)[1]].numpy(),
    }
    fig, axes = plt.subplots(1, 3, figsize=(10.5, 2.7), layout="constrained")
    for ax, (name, picture) in zip(axes, pictures.items(), strict=True):
        ax.imshow(picture)
        ax.set_title(name, fontsize=10)
        ax.set(xticks=[], yticks=[])
    return fig


def explorer() -> None:
    """Show the chapter's widget: live controls in a notebook, four static frames elsewhere."""
    explore(
        draw_clusters,
        static=FRAMES,
        labels=LABELS,
        k=(2, 12, 1),
        position_weight=(0.0, 2.0, 0.1),
        photo=list(PHOTOS),
        colours=list(COLOURS),
    )
