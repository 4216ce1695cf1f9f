"""A small Cellpose for synthetic nuclei, trained on the scenes of `cells_stardist` and in the same way.

`python -m segedu.weights.own.cells_cellpose` makes cells_cellpose.safetensors and its log, cells_cellpose.json, again.
It has three levels of 8, 16 and 32 channels; the authors have four, of 32 to 256. Their network takes two channels,
cells and nuclei; this one takes the three of a colour image. It has learned cells of 12 to 20 pixels across.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from segedu.instance.cellpose.cellpose import (
    Cellpose,
    PercentileNormalize,
    cellpose_loss,
    cellpose_targets,
    postprocess,
)
from segedu.weights.own.cells_stardist import make

FILE = Path(__file__).with_suffix(".safetensors")
DIAMETER = 16.0  # pixels, of the synthetic nuclei


def cells_cellpose(normalize: nn.Module | None = None) -> Cellpose:
    """Build the network whose weights `segedu.weights.load("cells_cellpose")` loads.

    `normalize` is applied to the images. None: `PercentileNormalize`, as in training.
    """
    normalize = PercentileNormalize() if normalize is None else normalize
    return Cellpose(3, (8, 16, 32), diam_mean=DIAMETER, normalize=normalize)


def label_map_of(model: nn.Module, image: Tensor) -> Tensor:
    """The predicted label map (H, W) of an image (3, H, W)."""
    return postprocess(model(image[None]))[0]


if __name__ == "__main__":
    make(cells_cellpose, cellpose_loss, cellpose_targets, label_map_of, FILE)
