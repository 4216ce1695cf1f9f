"""Signed distance maps: predict how far each pixel is from the edge of its cell, then flood the map from its tops.

Paper: Naylor, Laé, Reyal, Walter, "Segmentation of Nuclei in Histopathology Images by Deep Regression of the Distance
    Map", IEEE TMI 38(2), 2019: regression, watershed from tops of a given depth. The sign: Xue et al., "Shape-aware
    organ segmentation by predicting signed distance maps", AAAI 2020, arXiv 1912.03849. Flooding a learnt landscape:
    Bai, Urtasun, "Deep Watershed Transform for Instance Segmentation", CVPR 2017, arXiv 1611.08303.
Idea: A map of classes melts cells that touch into one. In a map of distances there is still a valley between them,
    for the distance is that to the edge of the pixel's own cell. So a network regresses the distance, positive inside
    and negative outside; each top of the prediction is one cell, and a watershed gives it its pixels.
Simplified: one network and one output, injected. It learns scale * tanh(distance / scale) by L1: far from all edges,
    where the exact number is of no use and hard to know, there is little left to learn. Naylor et al. square the error,
    but have 0 outside; Xue et al. predict the tanh with a tanh.
Shapes: images (B, C, H, W) -> {"distance": (B, H, W)} in pixels. `postprocess`: outputs -> B label maps (H, W) int32.
Quality: from the true maps of 30 `cells` scenes the decoding finds 925 of 925 cells at IoU 0.75, and no other.
Course: 09-distances
Lab: 09_distances
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage
from torch import Tensor, nn

from segedu.losses.reduction import full_precision
from segedu.losses.regression import l1_loss
from segedu.ops.label_maps import relabel_sequential
from segedu.unsupervised.watershed import watershed
from segedu.validation.tensors import check_floats, check_maps


def signed_distance(label_map: Tensor) -> Tensor:
    """Euclidean distance of each pixel's centre to the edge of its cell, positive inside cells and negative outside.

    The edge lies half-way between the centres of two pixels: the last pixel inside is at +0.5, the first one outside
    at -0.5. Each cell is measured by itself, so where two touch, both are at +0.5 beside the edge between them. The
    border of the image is no edge: the distance of a cell that it cuts goes on growing towards it.

    Args:
        label_map: (H, W) integers, 0 is background, every other number is one cell.

    Returns:
        (H, W) float32, in pixels. Without any edge in the image (no cell, or one that fills it) the distance is the
        diagonal of the image, which no other can reach.

    Raises:
        TypeError: `label_map` is not a tensor of integers.
        ValueError: it is not (H, W), is empty, or has a negative label.

    >>> signed_distance(torch.tensor([[0, 0, 7, 7, 7, 4, 4]]))
    tensor([[-1.5000, -0.5000,  0.5000,  1.5000,  0.5000,  0.5000,  1.5000]])
    """
    # Numbers without gaps: `find_objects` makes a list as long as the largest of them.
    numbered = relabel_sequential(label_map, (2,)).numpy(force=True)
    diagonal = float(np.hypot(*numbered.shape))
    if not numbered.any():
        return torch.full(numbered.shape, -diagonal, device=label_map.device)
    distance = 0.5 - ndimage.distance_transform_edt(numbered == 0)
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
        # The nearest pixel outside a cell lies in its box or one step from it. Beyond the image there is none.
        box = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in (rows, columns))
        inside = numbered[box] == number
        depth = np.full(inside.shape, diagonal) if inside.all() else ndimage.distance_transform_edt(inside) - 0.5
        distance[box][inside] = depth[inside]
    return torch.from_numpy(distance.astype(np.float32)).to(label_map.device)


class SignedDistance(nn.Module):
    """A network with one output channel, whose output is read as a distance.

    Args:
        network: maps images (B, C, H, W) to (B, 1, H, W), such as `UNet(3, 1, padding=1)`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (B, C, H, W) to `distance` (B, H, W) in pixels, positive inside cells.

        Raises:
            ValueError: the network has more or fewer output channels than one.
        """
        distance = self.network(images)
        if distance.ndim != 4 or distance.shape[1] != 1:
            raise ValueError(f"network gives shape {tuple(distance.shape)}, expected (B, 1, H, W): a single channel")
        return {"distance": distance[:, 0]}


def signed_distance_targets(label_map: Tensor) -> dict[str, Tensor]:
    """What the network is to predict for one image.

    Args:
        label_map: (H, W) integers, 0 is background.

    Returns:
        `distance` (H, W) float32: `signed_distance(label_map)`.

    Raises:
        TypeError: as `signed_distance`.
        ValueError: as `signed_distance`.
    """
    return {"distance": signed_distance(label_map)}


def signed_distance_loss(
    outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], scale: float = 8.0
) -> dict[str, Tensor]:
    """Mean of |predicted / scale - tanh(true / scale)|.

    Near an edge the tanh is its argument, and the loss is the error in units of `scale`. At twice the scale and more
    it is nearly 1: a pixel far outside or deep inside has only to know that it is far from an edge. There is no tanh
    of the prediction, which would be flat there too: a network that is far off would get no gradient and stay there.

    Args:
        outputs: `distance` (B, H, W) of the network.
        targets: `distance` (B, H, W), of `signed_distance_targets`.
        scale: pixels; about the radius of a cell.

    Returns:
        `distance`, a scalar, and `loss`, the same.

    Raises:
        TypeError: a map is not a tensor of floats.
        ValueError: a map is missing, the shapes differ, or `scale` is not above 0.

    >>> maps = {"distance": torch.zeros(1, 2, 2)}, {"distance": torch.full((1, 2, 2), 8.0)}
    >>> signed_distance_loss(*maps)["loss"]
    tensor(0.7616)
    """
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale is {scale}, expected a finite number of pixels above 0")
    sizes = check_maps("outputs", outputs, distance="B H W")
    check_maps("targets", targets, sizes, distance="B H W")
    predicted, true = outputs["distance"], targets["distance"].to(outputs["distance"])
    error = l1_loss(predicted / scale, torch.tanh(true / scale))
    return {"distance": error, "loss": error}


def watershed_decode(distance: Tensor, threshold: float = 0.0, min_distance: float = 2.0, depth: float = 1.0) -> Tensor:
    """Cells of a distance map: one for each of its tops, which water fills from there.

    A top is a plateau (pixels of one height that share edges) with nothing higher beside it. Waves on the way to a
    top are none: whatever rises no more than `depth` above the pass to a higher top is levelled first. Tops are taken
    from the highest down, equal ones in raster order; one nearer than `min_distance` to a top taken before in the
    same connected piece of the mask is left out. So every piece of the mask has a cell.

    Args:
        distance: (H, W) floats, positive inside cells.
        threshold: pixels above it are inside a cell. A prediction that lies too deep asks for a lower one.
        min_distance: pixels, Euclidean, between the tops of two cells that touch.
        depth: units of `distance`; 0 keeps every top.

    Returns:
        (H, W) int32 label map, cells numbered from 1 in the order in which their tops are taken.

    Raises:
        TypeError: `distance` is not a tensor of floats.
        ValueError: it is not (H, W), is empty or has a NaN; `threshold` is NaN, or `min_distance` or
            `depth` is negative or no number.

    >>> watershed_decode(torch.tensor([[-1.0, 0.5, 2.5, 1.5, 0.5, 2.5, 3.5, -2.0]]))
    tensor([[0, 2, 2, 2, 1, 1, 1, 0]], dtype=torch.int32)
    """
    _check_decode(distance, threshold, min_distance, depth)
    distance = full_precision(distance.detach())
    inside = distance > threshold
    if not inside.any():
        return torch.zeros(distance.shape, dtype=torch.int32, device=distance.device)
    land = torch.where(inside, distance, distance.new_tensor(-torch.inf))
    markers = _tops(land.numpy(force=True), _level(land, depth).numpy(force=True), min_distance)
    return watershed(-distance, torch.from_numpy(markers).to(distance.device), inside)


def _level(land: Tensor, depth: float) -> Tensor:
    """The land with every hill of up to `depth` cut to the height of its pass: a reconstruction by dilation."""
    if depth == 0:
        return land
    level = land - depth
    while True:
        # the highest of the pixel and its four neighbours, as far as there is land
        higher = torch.maximum(
            F.max_pool2d(level[None, None], (3, 1), 1, (1, 0)), F.max_pool2d(level[None, None], (1, 3), 1, (0, 1))
        )
        higher = torch.minimum(higher[0, 0], land)
        if torch.equal(higher, level):
            return level
        level = higher


def _tops(land: np.ndarray, level: np.ndarray, min_distance: float) -> np.ndarray:
    """(H, W) int32, a number from 1 at the highest pixel of each top that is taken."""
    tops = ndimage.label(_regional_maxima(level) & (land > -np.inf))[0].ravel()
    pixels = np.flatnonzero(tops)
    pixels = pixels[np.argsort(-land.ravel()[pixels], kind="stable")]  # from the highest down, in raster order
    pixels = pixels[np.sort(np.unique(tops[pixels], return_index=True)[1])]  # the first of each top
    pieces = ndimage.label(land > -np.inf)[0].ravel()[pixels].tolist()
    markers, taken = np.zeros(land.shape, np.int32), {}
    for place, piece in zip(np.stack(np.unravel_index(pixels, land.shape), axis=1), pieces, strict=True):
        others = taken.setdefault(piece, [])
        if all(((place - other) ** 2).sum() >= min_distance**2 for other in others):
            others.append(place)
            markers[tuple(place)] = markers.max() + 1
    return markers


def _regional_maxima(level: np.ndarray) -> np.ndarray:
    """(H, W) bool: plateaus that share no edge with anything higher."""
    around = sliding_window_view(np.pad(level, 1, constant_values=-np.inf), (3, 3)).reshape(*level.shape, 9)
    around = around[..., 1::2]  # (H, W, 4): those that share an edge
    highest = level >= around.max(axis=-1)
    beside = sliding_window_view(np.pad(highest, 1), (3, 3)).reshape(*level.shape, 9)[..., 1::2]
    # A pixel as high as its neighbour, which itself has a higher one: their whole plateau is a slope.
    slope = highest & (~beside & (around == level[..., None])).any(axis=-1)
    plateaus, _ = ndimage.label(highest)
    return highest & ~np.isin(plateaus, plateaus[slope])


def postprocess(
    outputs: Mapping[str, Tensor], threshold: float = 0.0, min_distance: float = 2.0, depth: float = 1.0
) -> list[Tensor]:
    """Label maps of a batch, each by `watershed_decode`.

    Args:
        outputs: `distance` (B, H, W) of the network.
        threshold: as there.
        min_distance: as there.
        depth: as there.

    Returns:
        B label maps (H, W) int32, on the device of the outputs.

    Raises:
        TypeError: as `watershed_decode`.
        ValueError: `distance` is missing or is not (B, H, W), or as `watershed_decode`.
    """
    check_maps("outputs", outputs, distance="B H W")
    return [watershed_decode(distance, threshold, min_distance, depth) for distance in outputs["distance"]]


def _check_decode(distance: Tensor, threshold: float, min_distance: float, depth: float) -> None:
    check_floats("distance", distance, "H W")
    if bool(distance.isnan().any()):
        raise ValueError("distance has a NaN, expected numbers")
    if threshold != threshold:
        raise ValueError(f"threshold is {threshold}, expected a number")
    for name, value in (("min_distance", min_distance), ("depth", depth)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}, expected a finite number of at least 0")
