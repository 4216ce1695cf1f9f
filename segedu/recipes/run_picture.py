"""The picture of a run: image, ground truth and prediction of three held-out images in one small PNG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from segedu.datasets.files import atomic_path
from segedu.recipes.data import Pair, Sets
from segedu.recipes.task import Predict


def write(path: Path, write_file: Callable[[Path], Any]) -> None:
    """Let `write_file` write a temporary file and rename it to `path`, so that `path` is never incomplete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        write_file(temporary)


def three_images(sets: Sets) -> list[Pair]:
    """Three images of the last split: the first of each group, then the second of each, and so on."""
    groups = list(list(sets.held_out.values())[-1].values())
    in_turn = [pairs[i] for i in range(3) for pairs in groups if i < len(pairs)]
    return in_turn[:3]


def save_picture(path: Path, predict: Predict, sets: Sets, draw: Callable[[Tensor, Any, Any], Figure]) -> None:
    """Draw three held-out images as `draw` of a task does, and write them below each other as a PNG."""
    strips = []
    for image, target in three_images(sets):
        figure = draw(image, target, predict(image))
        figure.set_dpi(72)
        figure.tight_layout(pad=0.6)  # at this resolution, titles are wider than the layout of `draw` allows for
        figure.canvas.draw()
        strips.append(np.asarray(figure.canvas.buffer_rgba())[..., :3])
        plt.close(figure)
    width = min(strip.shape[1] for strip in strips)
    picture = Image.fromarray(np.concatenate([strip[:, :width] for strip in strips]))
    # 64 colours are enough for tinted grey images, and a third of the bytes.
    write(path, lambda part: picture.quantize(64).save(part, format="PNG", optimize=True))
