"""watershed_decode: from a distance map back to cells, one per peak."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from scipy import ndimage
from skimage.morphology import local_maxima
from skimage.segmentation import watershed
from torch import Tensor

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab09_distances.hills import cases


def watershed_decode(distance: Tensor, min_distance: float) -> Tensor:
    """Number the peaks of a distance map and flood the foreground from them.

    1. A pixel is foreground where its distance is above 0.
    2. A plateau is a set of foreground pixels of equal height that are connected by shared edges; a single pixel can be
       a plateau. A peak is a plateau without a higher pixel that shares an edge with it. Its position is its first
       pixel in reading order.
    3. Visit the peaks from the highest to the lowest, equally high ones in reading order. Drop a peak if it is nearer
       than `min_distance` to a peak that was kept before *in the same connected component* of the foreground (pixels
       are connected by shared edges). So each component has a cell, however small it is.
    4. The positions of the kept peaks are the markers: 1, 2, ... in the order in which they were kept. Flood the
       foreground from them: visit pixels from the highest to the lowest; each passes its label to the foreground pixels
       that share an edge with it and have no label yet. `skimage.segmentation.watershed` floods from low to high, so it
       does this for the negative map: `watershed(-distance, markers, mask=distance > 0)`.

    Args:
        distance: (H, W) floats, positive inside cells, as a network predicts them.
        min_distance: Euclidean, in pixels; 0 keeps all peaks.

    Returns:
        (H, W) integers: 0 in the background, else the number of the cell.

    Example: the peak at 2.5 on the right is only 1 away from a higher one.

        >>> watershed_decode(torch.tensor([[-1.0, 0.5, 2.5, 1.5, 0.5, 2.5, 3.5, -2.0]]), 2.0)
        tensor([[0, 2, 2, 2, 1, 1, 1, 0]], dtype=torch.int32)
    """
    heights = distance.numpy()
    return _flood(heights, _marker_positions(heights, min_distance))


Position = tuple[int, int]


def _marker_positions(heights: np.ndarray, min_distance: float) -> list[Position]:
    return _keep(_peaks(heights), _components(heights), min_distance)


def _peaks(heights: np.ndarray) -> list[Position]:
    return _positions(heights, ndimage.label(local_maxima(heights, connectivity=1) & (heights > 0))[0])


def _positions(heights: np.ndarray, plateaus: np.ndarray) -> list[Position]:
    """First pixels of numbered plateaus, the highest first."""
    firsts = [tuple(np.argwhere(plateaus == n)[0].tolist()) for n in range(1, plateaus.max() + 1)]
    return sorted(firsts, key=lambda p: (-heights[p], p))


def _components(heights: np.ndarray) -> np.ndarray:
    return ndimage.label(heights > 0)[0]


def _keep(peaks: list[Position], components: np.ndarray, min_distance: float, metric: Callable = math.dist) -> list:
    """The peaks that are not too near to one kept before in their component."""
    kept: list[Position] = []
    for peak in peaks:
        others = [other for other in kept if components[other] == components[peak]]
        if all(metric(peak, other) >= min_distance for other in others):
            kept.append(peak)
    return kept


def _markers(positions: list[Position], shape: tuple[int, ...]) -> np.ndarray:
    markers = np.zeros(shape, dtype=np.int32)
    for number, position in enumerate(positions, start=1):
        markers[position] = number
    return markers


def _flood(heights: np.ndarray, positions: list[Position]) -> Tensor:
    return torch.from_numpy(watershed(-heights, _markers(positions, heights.shape), mask=heights > 0))


right = Variants(watershed_decode)


def _decode(peaks: Callable = _peaks, components: Callable = _components, metric: Callable = math.dist) -> Callable:
    """`watershed_decode` with one part of the choice of markers replaced."""

    def decode(a: SimpleNamespace) -> Tensor:
        heights = a.distance.numpy()
        return _flood(heights, _keep(peaks(heights), components(heights), a.min_distance, metric))

    return right.instead(decode)


def _watershed(**changes: Callable) -> Callable:
    """`watershed_decode` with other arguments of `watershed`, each made from the distance map."""

    def decode(a: SimpleNamespace) -> Tensor:
        heights = a.distance.numpy()
        markers = _markers(_marker_positions(heights, a.min_distance), heights.shape)
        arguments = {"image": -heights, "markers": markers, "mask": heights > 0}
        return torch.from_numpy(watershed(**arguments | {name: change(heights) for name, change in changes.items()}))

    return right.instead(decode)


def _every_plateau_pixel(heights: np.ndarray) -> list[Position]:
    pixels = np.argwhere(local_maxima(heights, connectivity=1) & (heights > 0)).tolist()
    return sorted(map(tuple, pixels), key=lambda p: (-heights[p], p))


def _peaks_of_8_neighbours(heights: np.ndarray) -> list[Position]:
    maxima = local_maxima(heights, connectivity=2) & (heights > 0)
    return _positions(heights, ndimage.label(maxima, np.ones((3, 3)))[0])


def _inner_peaks(heights: np.ndarray) -> list[Position]:
    H, W = heights.shape
    return [(y, x) for y, x in _peaks(heights) if 0 < y < H - 1 and 0 < x < W - 1]


def markers_only(distance: Tensor, min_distance: float) -> Tensor:
    return torch.from_numpy(_markers(_marker_positions(distance.numpy(), min_distance), tuple(distance.shape)))


def numbered_in_reading_order(distance: Tensor, min_distance: float) -> Tensor:
    return _flood(distance.numpy(), sorted(_marker_positions(distance.numpy(), min_distance)))


def dropped_peaks_still_count(distance: Tensor, min_distance: float) -> Tensor:
    heights = distance.numpy()
    peaks, components = _peaks(heights), _components(heights)
    kept = [
        peak
        for i, peak in enumerate(peaks)
        if all(math.dist(peak, p) >= min_distance for p in peaks[:i] if components[p] == components[peak])
    ]
    return _flood(heights, kept)


def nearest_marker(distance: Tensor, min_distance: float) -> Tensor:
    heights, components = distance.numpy(), _components(distance.numpy())
    markers = _marker_positions(heights, min_distance)
    labels = np.zeros(heights.shape, np.int32)
    for y, x in np.argwhere(heights > 0):
        distances = [np.hypot(y - j, x - i) if components[j, i] == components[y, x] else np.inf for j, i in markers]
        labels[y, x] = 1 + int(np.argmin(distances))
    return torch.from_numpy(labels)


CALL = "watershed(-distance, markers, mask=distance > 0)"
STEP_2 = "Read step 2 of the exercise again: plateaus by shared edges, their position, no higher neighbour."
STEP_3 = "Read step 3 of the exercise again: in which order are peaks visited, and which of them are dropped?"

exercise = Exercise(
    name="watershed_decode",
    points=3,
    cases=cases,
    reference=watershed_decode,
    kind="map",
    hides=["segedu.instance.signed_distance", "segedu.unsupervised.watershed"],
    wrong=[
        Wrong(
            "not upside down",
            _watershed(image=lambda heights: heights),
            "You flood the map from low to high. Flood it from the peaks downwards.",
            "The watershed floods from minima, so the peaks have to become minima: -distance.",
        ),
        Wrong(
            "a seed for each pixel",
            _decode(peaks=_every_plateau_pixel),
            "Your plateaus get several markers. All pixels of a plateau are one peak, positioned at its first pixel.",
            STEP_2,
        ),
        Wrong(
            "no mask",
            _watershed(mask=lambda heights: None),
            "You flood the background too. Only pixels with a distance above 0 are foreground.",
            CALL,
        ),
        Wrong(
            "min_distance ignored",
            right.given(min_distance=lambda a: 0.0),
            "You keep all peaks. Drop a peak that is nearer than min_distance to a kept one in the same component.",
            STEP_3,
        ),
        Wrong(
            "pieces only",
            right.given(min_distance=lambda a: math.inf),
            "You number connected components. Touching cells are one component, but each of their peaks is a cell.",
            "The valley between two cells is above 0. Markers at the peaks separate them.",
        ),
        Wrong("seeds only", markers_only, "You return the markers. Flood the foreground from them.", CALL),
        Wrong(
            "distance in a square",
            _decode(metric=lambda p, q: max(abs(p[0] - q[0]), abs(p[1] - q[1]))),
            "You use the larger of |dy| and |dx| as the distance between peaks. Use the Euclidean distance.",
            "The Euclidean distance is sqrt(dy^2 + dx^2).",
        ),
        Wrong(
            "just min_distance away",
            right.given(min_distance=lambda a: a.min_distance + 1e-9 if a.min_distance else 0.0),
            "You drop peaks that are exactly min_distance away. Drop only those that are nearer.",
            "Does your comparison include equality?",
        ),
        Wrong(
            "across pieces",
            _decode(components=lambda heights: np.zeros(heights.shape)),
            "You drop peaks because of a peak in another connected component. Compare only within a component.",
            "scipy.ndimage.label(distance > 0) numbers the components.",
        ),
        Wrong(
            "pieces by corners",
            _decode(components=lambda heights: ndimage.label(heights > 0, np.ones((3, 3)))[0]),
            "Your components are connected across corners. Only shared edges connect pixels.",
            "scipy.ndimage.label uses shared edges unless you pass it a structure.",
        ),
        Wrong(
            "left out still count",
            dropped_peaks_still_count,
            "A dropped peak still suppresses others. Only peaks that were kept do so.",
            STEP_3,
        ),
        Wrong(
            "in reading order",
            _decode(peaks=lambda heights: sorted(_peaks(heights))),
            "You visit the peaks in reading order. Visit them from the highest to the lowest.",
            STEP_3,
        ),
        Wrong(
            "lowest first",
            _decode(peaks=lambda heights: sorted(_peaks(heights), key=lambda p: (heights[p], p))),
            "You visit the peaks from the lowest to the highest. Begin with the highest.",
            STEP_3,
        ),
        Wrong(
            "last of equal tops",
            _decode(peaks=lambda heights: sorted(_peaks(heights)[::-1], key=lambda p: -heights[p])),
            "Among equally high peaks, you visit the last one first. Visit them in reading order.",
            "Sorting in ascending order and reversing the list also reverses the order of equal elements.",
        ),
        Wrong(
            "numbered in reading order",
            numbered_in_reading_order,
            "You number the cells in reading order. The highest peak is 1, the next one 2, and so on.",
            STEP_3,
        ),
        Wrong(
            "nearest seed",
            nearest_marker,
            "You assign each pixel to the nearest marker. Flood from the markers, so that cells meet in the valleys.",
            CALL,
        ),
        Wrong(
            "water over corners",
            _watershed(connectivity=lambda heights: 2),
            "Your flood spreads across corners. Labels pass only between pixels that share an edge.",
            "skimage's watershed uses connectivity=1 by default.",
        ),
        Wrong(
            "plateaus by corners",
            _decode(peaks=_peaks_of_8_neighbours),
            "You use 8 neighbours to find plateaus and higher pixels. Use only the 4 that share an edge.",
            STEP_2,
        ),
        Wrong(
            "higher at a corner",
            _decode(peaks=lambda heights: _positions(heights, ndimage.label(local_maxima(heights) & (heights > 0))[0])),
            "You also look for higher pixels across corners. Use only the 4 neighbours that share an edge.",
            STEP_2,
        ),
        Wrong(
            "no tops on the border",
            _decode(peaks=_inner_peaks),
            "You miss peaks on the border of the image. There is nothing higher beyond the border.",
            STEP_2,
        ),
        Wrong(
            "0 is inside",
            right.given(distance=lambda a: torch.where(a.distance == 0, 1e-9, a.distance)),
            "You treat pixels with distance 0 as foreground. Only pixels with a distance above 0 are foreground.",
            "Does your comparison include 0?",
        ),
    ],
)
