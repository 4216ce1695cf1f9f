"""Watershed: flood an image, interpreted as a landscape, from markers; segments meet where their waters meet.

Paper: Meyer, "Topographic distance and watershed lines", Signal Processing 38, 1994; the queue that orders the
    flood: Beucher, Meyer, "The morphological approach to segmentation: the watershed transformation", 1993.
Idea: Interpret an image as heights. For example, the gradient magnitude has walls around objects. Water rises from the
    markers, and always floods the lowest adjacent pixel next; a pixel is assigned to the water that reaches it first.
    To separate touching objects, the heights are the negative distance to the background, and the markers are the
    maxima of this distance, one per object.
Simplified: two dimensions. One queue per height replaces a single priority queue: as the water level never falls, the
    lowest queue is finished before the next one starts, and each queue is first in, first out.
Shapes: elevation and markers (H, W) -> label map (H, W) int32; mask (H, W) -> markers (H, W) int32.
Quality: identical to scikit-image's result if no two markers have the same height. Otherwise the order in which these
    markers are processed differs (see the tests). 512x512 pixels, 4 neighbours: 0.3 s of CPU time, 0.7 s with ridges.
Course: 02-clustering
Lab: 02_clustering
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage
from torch import Tensor

from segedu.validation.numbers import check_choice, check_number
from segedu.validation.tensors import check_dtype, check_integer_tensor, check_tensor

DRY, LAND = 0, -1  # states of a pixel without a label: not flooded yet, never flooded


def watershed(
    elevation: Tensor, markers: Tensor, mask: Tensor | None = None, ridge: bool = False, connectivity: int = 1
) -> Tensor:
    """Flood a landscape from markers.

    Pixels are processed in the order of their water level, then first in, first out; the pixels of the markers start
    in raster order. The neighbours of a pixel are added in raster order, the four nearest before the diagonal ones.
    Water that reaches a pixel below its level stays at its level there.

    Args:
        elevation: (H, W) heights, any real dtype.
        markers: (H, W) integers: 0 is unlabelled, every other value is the label of a marker.
        mask: (H, W) bool; pixels with False stay 0 and block the water. None: all True.
        ridge: whether pixels where two labels meet stay 0. Lines are one pixel wide; there is none between markers that
            touch.
        connectivity: 1 for four neighbours, 2 for eight.

    Returns:
        (H, W) int32: the label of each pixel, 0 if no water reaches it.

    >>> heights = torch.tensor([[0, 1, 5, 2, 0]])
    >>> watershed(heights, torch.tensor([[1, 0, 0, 0, 2]]))
    tensor([[1, 1, 1, 2, 2]], dtype=torch.int32)
    >>> watershed(heights, torch.tensor([[1, 0, 0, 0, 2]]), ridge=True)
    tensor([[1, 1, 0, 2, 2]], dtype=torch.int32)
    """
    _check_landscape(elevation, markers, mask, connectivity)
    height, width = elevation.shape
    wet = np.ones((height, width), dtype=bool) if mask is None else mask.numpy(force=True)
    # A border of land keeps all neighbours inside. Lists, because Python reads them faster than arrays.
    heights, levels = np.unique(elevation.numpy(force=True), return_inverse=True)
    levels = np.pad(levels.reshape(height, width), 1).ravel()
    state = np.pad(np.where(wet, markers.numpy(force=True), LAND), 1, constant_values=LAND).ravel()
    row = width + 2
    steps = [-row, -1, 1, row] + ([-row - 1, -row + 1, row - 1, row + 1] if connectivity == 2 else [])
    queues: list[list[int]] = [[] for _ in heights]
    for pixel in np.flatnonzero(state > 0).tolist():
        queues[levels[pixel]].append(pixel)
    flood = _flood_to_ridges if ridge else _flood
    flooded = flood(queues, levels.tolist(), state.tolist(), steps)
    flooded = np.array(flooded, dtype=np.int32).reshape(height + 2, row)[1:-1, 1:-1]
    return torch.from_numpy(flooded.clip(min=0)).to(markers.device)


def _flood(queues: list[list[int]], levels: list[int], state: list[int], steps: list[int]) -> list[int]:
    """Label a pixel when it is added to a queue, by the first neighbour that reaches it."""
    for level, queue in enumerate(queues):
        for pixel in queue:  # grows during the loop
            label = state[pixel]
            for step in steps:
                neighbour = pixel + step
                if state[neighbour] == DRY:
                    state[neighbour] = label
                    turn = levels[neighbour]
                    queues[turn if turn > level else level].append(neighbour)
    return state


def _flood_to_ridges(queues: list[list[int]], levels: list[int], state: list[int], steps: list[int]) -> list[int]:
    """Label a pixel when it is processed, or make it a ridge if it touches two labels; it may be in several queues.

    A ridge has no label, but passes on the label for which it was queued, because pixels after it may still be dry.
    """
    markers = {pixel: state[pixel] for queue in queues for pixel in queue}
    waters = [[state[pixel] for pixel in queue] for queue in queues]  # parallel to queues: the label of each entry
    settled = [False] * len(state)
    for level, (queue, water) in enumerate(zip(queues, waters, strict=True)):
        for pixel, label in zip(queue, water, strict=True):
            if settled[pixel]:
                continue
            meets = state[pixel] == LAND
            for step in steps:
                neighbour = pixel + step
                other = state[neighbour]
                if other == DRY:
                    turn = levels[neighbour]
                    turn = turn if turn > level else level
                    queues[turn].append(neighbour)
                    waters[turn].append(label)
                elif other != label and other != LAND:
                    meets = True
            state[pixel] = LAND if meets else label
            settled[pixel] = not meets
    for pixel, label in markers.items():  # markers that touch another marker
        state[pixel] = label
    return state


def distance_markers(mask: Tensor, min_distance: float = 1.0) -> Tensor:
    """One marker at each local maximum of the distance to the background.

    The distance is Euclidean, to the nearest pixel outside the mask. The outside of the image is not background, so the
    marker of an object at the border may lie on the border. A mask without background is one plateau. Of a plateau
    (connected pixels of equal distance, also diagonally, without a higher neighbour), the first pixel in raster order
    counts. Maxima are selected from the largest distance to the smallest, ties in raster order, if they are at least
    `min_distance` from all maxima selected before.

    Args:
        mask: (H, W) bool.
        min_distance: smallest Euclidean distance between two markers in pixels; up to 1 all are kept.

    Returns:
        (H, W) int32: 1 at the first marker selected, 2 at the second and so on, 0 elsewhere.

    >>> distance_markers(torch.tensor([[0, 1, 1, 0, 1]]).bool())  # distances 0 1 1 0 1
    tensor([[0, 1, 0, 0, 2]], dtype=torch.int32)
    """
    check_dtype("mask", mask, torch.bool, "H W")
    check_number("min_distance", min_distance)
    inside = mask.numpy(force=True)
    distance = inside.astype(float) if inside.all() else ndimage.distance_transform_edt(inside)
    around = sliding_window_view(np.pad(distance, 1), (3, 3))  # (H, W, 3, 3)
    top = inside & (distance == around.max(axis=(2, 3)))
    plateaus, _ = ndimage.label(top, np.ones((3, 3)))
    # A pixel of the same distance that is not on top has a higher neighbour, so that its whole plateau is a slope.
    below = ~sliding_window_view(np.pad(top, 1), (3, 3))
    slope = top & (below & (around == distance[:, :, None, None])).any(axis=(2, 3))
    plateaus[np.isin(plateaus, plateaus[slope])] = 0
    labels, first = np.unique(plateaus, return_index=True)
    maxima = np.sort(first[labels > 0])  # in raster order
    maxima = maxima[np.argsort(-distance.ravel()[maxima], kind="stable")]
    selected = np.empty((0, 2))
    for maximum in np.stack(np.unravel_index(maxima, inside.shape), axis=1):
        if (((selected - maximum) ** 2).sum(axis=1) >= min_distance**2).all():
            selected = np.vstack([selected, maximum])
    markers = np.zeros(inside.shape, dtype=np.int32)
    markers[tuple(selected.T.astype(int))] = np.arange(1, len(selected) + 1)
    return torch.from_numpy(markers).to(mask.device)


def _check_landscape(elevation: Tensor, markers: Tensor, mask: Tensor | None, connectivity: int) -> None:
    sizes = check_tensor("elevation", elevation, "H W")
    if elevation.is_complex() or elevation.dtype == torch.bool:
        raise TypeError(f"elevation has dtype {elevation.dtype}, expected real numbers")
    if bool(elevation.isnan().any()):
        raise ValueError("elevation contains NaN, expected finite values")
    check_integer_tensor("markers", markers, "H W", sizes)
    if markers.min() < 0:
        raise ValueError(f"markers has the value {int(markers.min())}, expected labels above 0, and 0 elsewhere")
    if mask is not None:
        check_dtype("mask", mask, torch.bool, "H W", sizes)
    check_choice("connectivity", connectivity, (1, 2))
