"""The small Cellpose that learnt from drawn nuclei: on the scenes, and in the way, of `cells_stardist`.

`python -m segedu.weights.own.cells_cellpose` makes cells_cellpose.safetensors and its log, cells_cellpose.json, anew:
three levels of 8, 16 and 32 channels, where the authors have four of 32 to 256. Their network takes two channels, cells
and nuclei; this one takes the three of an image in colour. Cells of 12 to 20 pixels across are what it knows.
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
DIAMETER = 16.0  # pixels, of the drawn nuclei


def cells_cellpose(normalize: nn.Module | None = None) -> Cellpose:
    """The network of the file, which `segedu.weights.load("cells_cellpose")` fills.

    Args:
        normalize: applied to images first. None: `PercentileNormalize`, with which it was trained.

    Returns:
        The network, with weights drawn at random.
    """
    normalize = PercentileNormalize() if normalize is None else normalize
    return Cellpose(3, (8, 16, 32), diam_mean=DIAMETER, normalize=normalize)


def label_map_of(model: nn.Module, image: Tensor) -> Tensor:
    """What the model finds in an image (3, H, W)."""
    return postprocess(model(image[None]))[0]


if __name__ == "__main__":
    make(cells_cellpose, cellpose_loss, cellpose_targets, label_map_of, FILE)
