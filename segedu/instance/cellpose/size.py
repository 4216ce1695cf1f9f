"""Cellpose's size model: estimate the diameter of cells from the style of an image, to resize the image accordingly.

Paper: Stringer, Wang, Michaelos, Pachitariu, "Cellpose: a generalist algorithm for cellular segmentation", Nature
    Methods 18, 2021, bioRxiv 2020.02.02.931238, Methods: "Size estimation". Numbers are those of version 3.
Idea: The network expects cells of one diameter. The logarithm of the actual diameter is modelled as a linear function
    of the style, fitted by ridge regression. The image is resized by this first estimate, the network segments it, and
    the median diameter of the segmented cells is the second, better estimate.
Simplified: images are resized by bilinear interpolation, also when they are downsampled.
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
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_tensor

MIN_DIAMETER = 5.0  # pixels, lower bound of estimates
# The classes in a pickled dictionary of arrays, before and after NumPy 2.
ARRAY_CLASSES = {
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
        diam_mean: pixels, the diameter that the network expects.
    """

    weights: Tensor
    style_mean: Tensor
    log_mean: float
    diam_mean: float

    def diameters(self, styles: Tensor) -> Tensor:
        """Estimate diameters (B,), float64 in pixels and at least 5, from the styles (B, S) of `Cellpose`."""
        check_tensor("styles", styles, f"B? {len(self.weights)}")
        logs = (styles.detach().cpu().double() - self.style_mean) @ self.weights + self.log_mean
        return (self.diam_mean * logs.exp()).clamp(min=MIN_DIAMETER)


def fit_size_model(styles: Tensor, diameters: Tensor, diam_mean: float = 30.0, ridge: float = 1.0) -> SizeModel:
    """Ridge regression from styles to the logarithm of diameters.

    Args:
        styles: (N, S), one per training image.
        diameters: (N,) pixels, above 0, such as `cell_diameter` returns.
        diam_mean: pixels, the diameter that the network expects.
        ridge: added to each diagonal entry of the normal equations.
    """
    if styles.ndim != 2 or diameters.shape != styles.shape[:1] or not len(styles):
        shapes = tuple(styles.shape), tuple(diameters.shape)
        raise ValueError(f"styles and diameters have shapes {shapes[0]} and {shapes[1]}, expected (N, S) and (N,)")
    if not (diameters > 0).all():
        raise ValueError(f"diameters has the value {float(diameters.min())}, expected values above 0")
    styles, logs = styles.detach().cpu().double(), (diameters.cpu().double() / diam_mean).log()
    style_mean, log_mean = styles.mean(dim=0), logs.mean()
    centred = styles - style_mean
    gram = centred.T @ centred + ridge * torch.eye(styles.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, centred.T @ (logs - log_mean))
    return SizeModel(weights, style_mean, float(log_mean), float(diam_mean))


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays and numbers only, so that no code in the file can run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_CLASSES:
            raise pickle.UnpicklingError(f"it contains {module}.{name}")
        return super().find_class(module, name)


def read_size_model(path: str | Path) -> SizeModel:
    """Read an official file, such as `size_cyto3.npy`: a pickled dictionary of `A`, `smean`, `ymean`, `diam_mean`.

    Only arrays and scalars are read; a pickle that contains anything else raises a `ValueError`.
    """
    try:
        with open(path, "rb") as file:
            version = npy.read_magic(file)
            shape, _, dtype = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
            if shape != () or dtype.kind != "O":
                raise ValueError(f"it contains an array of shape {shape} and dtype {dtype}")
            values = _ArrayUnpickler(file).load().item()
        weights, mean = (torch.from_numpy(np.array(values[key], np.float64).reshape(-1)) for key in ("A", "smean"))
        if len(weights) != len(mean):
            raise ValueError(f"A has {len(weights)} values and smean {len(mean)}, expected equal lengths")
        scalars = (float(np.asarray(values[key]).reshape(())) for key in ("ymean", "diam_mean"))
        return SizeModel(weights, mean, *scalars)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is not a size model of Cellpose ({type(error).__name__}: {error})") from None


def cell_diameter(label_map: Tensor) -> float:
    """The median, over the cells of a label map (H, W), of the diameter of a disc of equal area.

    Returns:
        Pixels; 0 if there is no cell.

    >>> round(cell_diameter(torch.ones(10, 10, dtype=torch.int32)), 3)
    11.284
    """
    labels = check_label_map("label_map", label_map, (2,))
    counts = labels[labels > 0].unique(return_counts=True)[1].cpu().numpy()
    return float(np.median(np.sqrt(counts)) * 2 / math.sqrt(math.pi)) if len(counts) else 0.0


def run_at_diameter(model: Cellpose, images: Tensor, diameter: float) -> dict[str, Tensor]:
    """Resize images so that cells have the diameter that the network expects, run it, and resize its maps back.

    Args:
        model: the network.
        images: (B, C, H, W).
        diameter: pixels, of cells in `images`.

    Returns:
        The outputs of the network, `flows` and `logits` with the size of `images`, for `postprocess`.
    """
    height, width = images.shape[-2:]
    outputs = model(_resize_to_diameter(images, float(model.diam_mean), diameter))
    maps = torch.cat([outputs["flows"], outputs["logits"][:, None]], dim=1)
    maps = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
    return {**outputs, "flows": maps[:, :2], "logits": maps[:, 2]}


def _resize_to_diameter(images: Tensor, diam_mean: float, diameter: float) -> Tensor:
    check_number("diameter", diameter, exclusive=True)
    size = [max(1, int(length * diam_mean / diameter)) for length in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


@torch.no_grad()
def estimate_diameter(model: Cellpose, size_model: SizeModel, image: Tensor) -> tuple[float, float]:
    """Both estimates: from the style, and from the cells segmented at the size of the first estimate.

    Args:
        model: the network, in evaluation mode.
        size_model: fitted for this network.
        image: (C, H, W).

    Returns:
        In pixels of the image: the median diameter of the segmented cells, or `size_model.diam_mean` without cells; and
        the estimate from the style alone.
    """
    images = image[None]
    style_estimate = float(size_model.diameters(model(images)["style"])[0])
    style_estimate = style_estimate if math.isfinite(style_estimate) else size_model.diam_mean
    resized = _resize_to_diameter(images, size_model.diam_mean, style_estimate)
    (label_map,) = postprocess(model(resized))
    estimate = cell_diameter(label_map) * math.sqrt(image[0].numel() / resized[0, 0].numel())
    return estimate or size_model.diam_mean, style_estimate
