"""Cellpose's size model: how large cells are, from the style of an image, so that it can be resized to what was learnt.

Paper: Stringer, Wang, Michaelos, Pachitariu, "Cellpose: a generalist algorithm for cellular segmentation", Nature
    Methods 18, 2021, bioRxiv 2020.02.02.931238, Methods: "Size estimation". Numbers are those of version 3.
Idea: The network is made for cells of one diameter. The logarithm of the true one is a linear function of the style,
    found by ridge regression. Resized by that first guess, the network finds cells; their median diameter is the
    second, better guess.
Simplified: images are resized by bilinear interpolation, also down.
Shapes: styles (B, S) -> diameters (B,) in pixels; label map -> its median diameter.
Quality: the same diameters as cellpose 3.1.1.3 from the same numbers and styles (its tests).
Course: 09-distances
Lab: 09_distances
"""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib import format as npy
from torch import Tensor

from segedu.instance.cellpose.cellpose import Cellpose, postprocess
from segedu.validation.label_maps import check_label_map

SMALLEST = 5.0  # pixels: no guess is below
# What a dictionary of arrays is made of in a file of numpy, before and after its version 2.
HARMLESS = {
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


@dataclass(frozen=True)
class SizeModel:
    """log diameter = weights . (style - style_mean) + log_mean + log diam_mean.

    Attributes:
        weights: (S,) float64.
        style_mean: (S,) float64, of the training images.
        log_mean: of log(diameter / diam_mean) of the training images.
        diam_mean: pixels, the diameter for which the network is made.
    """

    weights: Tensor
    style_mean: Tensor
    log_mean: float
    diam_mean: float

    def diameters(self, styles: Tensor) -> Tensor:
        """Guess from styles.

        Args:
            styles: (B, S) of `Cellpose`.

        Returns:
            (B,) float64, pixels, at least 5.

        Raises:
            ValueError: `styles` has another shape.
        """
        if styles.ndim != 2 or styles.shape[1] != len(self.weights):
            raise ValueError(f"styles has shape {tuple(styles.shape)}, expected (B, {len(self.weights)})")
        logs = (styles.detach().cpu().double() - self.style_mean) @ self.weights + self.log_mean
        return (self.diam_mean * logs.exp()).clamp(min=SMALLEST)


def fit_size_model(styles: Tensor, diameters: Tensor, diam_mean: float = 30.0, ridge: float = 1.0) -> SizeModel:
    """Ridge regression from styles to the logarithm of diameters.

    Args:
        styles: (N, S), one a training image.
        diameters: (N,) pixels, above 0, such as `cell_diameter` gives.
        diam_mean: pixels, the diameter for which the network is made.
        ridge: added to each diagonal entry of the normal equations.

    Returns:
        The model.

    Raises:
        ValueError: shapes differ, there is no image, or a diameter is not above 0.
    """
    if styles.ndim != 2 or diameters.shape != styles.shape[:1] or not len(styles):
        shapes = tuple(styles.shape), tuple(diameters.shape)
        raise ValueError(f"styles and diameters have shapes {shapes[0]} and {shapes[1]}, expected (N, S) and (N,)")
    if not (diameters > 0).all():
        raise ValueError(f"diameters has {float(diameters.min())}, expected numbers above 0")
    styles, logs = styles.detach().cpu().double(), (diameters.cpu().double() / diam_mean).log()
    style_mean, log_mean = styles.mean(dim=0), logs.mean()
    centred = styles - style_mean
    normal = centred.T @ centred + ridge * torch.eye(styles.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(normal, centred.T @ (logs - log_mean))
    return SizeModel(weights, style_mean, float(log_mean), float(diam_mean))


class _Harmless(pickle.Unpickler):
    """Reads arrays and numbers, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_size_model(path: str | Path) -> SizeModel:
    """Read an official file, such as `size_cyto3.npy`: a pickled dictionary of `A`, `smean`, `ymean`, `diam_mean`.

    Args:
        path: of the file. Only arrays and numbers are read from it; a pickle that asks for more is refused.

    Returns:
        The model.

    Raises:
        ValueError: the file is none of these.
    """
    try:
        with open(path, "rb") as file:
            version = npy.read_magic(file)
            shape, _, dtype = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
            if shape != () or dtype.kind != "O":
                raise ValueError(f"it holds an array of shape {shape} and dtype {dtype}")
            given = _Harmless(file).load().item()
        weights, mean = (torch.from_numpy(np.array(given[key], np.float64).reshape(-1)) for key in ("A", "smean"))
        if len(weights) != len(mean):
            raise ValueError(f"A has {len(weights)} numbers and smean {len(mean)}")
        numbers = (float(np.asarray(given[key]).reshape(())) for key in ("ymean", "diam_mean"))
        return SizeModel(weights, mean, *numbers)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no size model of Cellpose ({type(error).__name__}: {error})") from None


def cell_diameter(label_map: Tensor) -> float:
    """The median over cells of the diameter of a disc as large.

    Args:
        label_map: (H, W) integers, 0 is background.

    Returns:
        Pixels; 0 where there is no cell.

    Raises:
        TypeError: `label_map` is not a tensor of integers.
        ValueError: it is not (H, W), is empty or has a negative label.

    >>> round(cell_diameter(torch.ones(10, 10, dtype=torch.int32)), 3)
    11.284
    """
    labels = check_label_map("label_map", label_map, (2,))
    counts = labels[labels > 0].unique(return_counts=True)[1].cpu().numpy()
    return float(np.median(np.sqrt(counts)) * 2 / math.sqrt(math.pi)) if len(counts) else 0.0


def run_at_diameter(model: Cellpose, images: Tensor, diameter: float) -> dict[str, Tensor]:
    """Resize images so that cells have the diameter that the network is made for, run it, and resize its maps back.

    Args:
        model: the network.
        images: (B, C, H, W).
        diameter: pixels, of cells in `images`.

    Returns:
        What the network gives, `flows` and `logits` as large as `images`, for `postprocess`.

    Raises:
        ValueError: `diameter` is not above 0.
    """
    height, width = images.shape[-2:]
    outputs = model(_resized(images, float(model.diam_mean), diameter))
    maps = torch.cat([outputs["flows"], outputs["logits"][:, None]], dim=1)
    maps = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
    return {**outputs, "flows": maps[:, :2], "logits": maps[:, 2]}


def _resized(images: Tensor, wanted: float, diameter: float) -> Tensor:
    if not 0 < diameter < math.inf:
        raise ValueError(f"diameter is {diameter}, expected pixels, above 0")
    size = [max(1, int(length * wanted / diameter)) for length in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


@torch.no_grad()
def estimate_diameter(model: Cellpose, size_model: SizeModel, image: Tensor) -> tuple[float, float]:
    """Both guesses: from the style, and from the cells that are found at the size of the first.

    Args:
        model: the network, in evaluation mode.
        size_model: made for it.
        image: (C, H, W).

    Returns:
        Pixels in the image: the median diameter of the cells found, `size_model.diam_mean` if none were; and the
        guess from the style alone.
    """
    images = image[None]
    guess = float(size_model.diameters(model(images)["style"])[0])
    guess = guess if math.isfinite(guess) else size_model.diam_mean
    resized = _resized(images, size_model.diam_mean, guess)
    (label_map,) = postprocess(model(resized))
    found = cell_diameter(label_map) * math.sqrt(image[0].numel() / resized[0, 0].numel())
    return found or size_model.diam_mean, guess
