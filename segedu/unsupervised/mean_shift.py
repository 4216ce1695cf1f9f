"""Mean shift: every point climbs to the mean of its surroundings, again and again, until it rests on a hill.

Paper: Comaniciu, Meer, "Mean Shift: A Robust Approach Toward Feature Space Analysis", IEEE TPAMI 2002.
Idea: The density of the points has hills, as many as it likes, of any shape; nobody has to name k. The mean of the
    points in a window around a place lies uphill of it, and so moving to the mean ends at the top (the mode). All
    points that reach one mode are one cluster. An image is filtered if every pixel takes the colour of the mode that
    it reaches in the joint space of place and colour, and segmented if neighbours with near modes are joined.
Simplified: flat kernels only, and one size of window for all points. Images: pixels are binned in joint space first
    (`cell`), which the paper does not do; neighbours are joined in the picture, not in all of the joint space.
Shapes: points (N, D) -> labels (N,), modes (M, D). Image (3, H, W) -> `joint_modes` (5, H, W), which holds row,
    column and colour, and `mean_shift_segmentation` (H, W).
Quality: labels and modes as scikit-learn's (its tests). 512x512 photograph, windows of 8 pixels and 8 units of
    L*a*b*, cells of half a window: 13 CPU-s. On a part of 96x96 the filter moves colours by 5.5 units on average;
    with cells it ends 1.4 from the exact filter (median 0.5), at 8 % of the pixels more than 4.
Course: 02-clustering
Lab: 02_clustering
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from torch import Tensor

CHUNK = 4096  # seeds whose neighbours are in memory at a time


def mean_shift(points: Tensor, bandwidth: float, steps: int = 300) -> tuple[Tensor, Tensor]:
    """Cluster points by the modes of their density, with a flat kernel: the mean of all within `bandwidth`.

    Every point is a seed and climbs until it moves by at most a thousandth of the bandwidth. Modes are then taken
    in order of the number of points in their window (of equal ones that with the larger first coordinate, then the
    second, ...), and each removes those that are not further than the bandwidth from it.

    Args:
        points: (N, D).
        bandwidth: radius of the window, in the unit of the points.
        steps: at most so many moves of a seed.

    Returns:
        Labels (N,) int64, the nearest mode, the first of equally near ones; and modes (M, D), dtype of `points`,
        those with the most points first.

    Raises:
        TypeError: `points` is not a floating point tensor.
        ValueError: `points` is not (N, D), is empty or not finite; `bandwidth` is not above 0, `steps` not above 0.

    >>> mean_shift(torch.tensor([[0.0], [1.0], [2.0], [9.0]]), bandwidth=2.0)
    (tensor([0, 0, 0, 1]), tensor([[1.],
            [9.]]))
    """
    _check_floating("points", points)
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(f"points has shape {tuple(points.shape)}, expected (N, D) with no empty axis")
    _check_numbers("points", points, bandwidth=bandwidth, steps=steps)
    x = points.detach().cpu().double().numpy()
    tops, mass = _climb(x, x, np.ones(len(x)), 0, float(bandwidth), 1e-3, steps)
    order = np.lexsort((*tops.T[::-1], mass))[::-1]
    tops = tops[order]
    free, modes = np.ones(len(tops), dtype=bool), []
    for i in range(len(tops)):
        if free[i]:
            modes.append(tops[i])
            free &= np.linalg.norm(tops - tops[i], axis=1) > bandwidth
    modes = np.stack(modes)
    labels = np.concatenate([cdist(x[i : i + CHUNK], modes).argmin(axis=1) for i in range(0, len(x), CHUNK)])
    return torch.from_numpy(labels).to(points.device), torch.from_numpy(modes).to(points)


def _climb(
    seeds: np.ndarray,
    points: np.ndarray,
    weights: np.ndarray,
    split: int,
    radius: float,
    tolerance: float,
    steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Where the seeds (S, D) come to rest among weighted points (N, D), and the weight (S,) in their window there.

    A point is in the window of a seed if it is not further than `radius`; with a `split`, if neither its first
    `split` coordinates nor the others are: place and colour have a window each, the paper's equation 35. A seed
    rests when it moves by at most `tolerance` radii, or when its window is empty.
    """
    tree, places, mass = cKDTree(points), seeds.copy(), np.zeros(len(seeds))
    reach = radius * 2**0.5 if split else radius  # the ball around the product of two windows
    climbing = np.arange(len(seeds))
    for _ in range(steps):
        moving = []
        for chunk in (climbing[i : i + CHUNK] for i in range(0, len(climbing), CHUNK)):
            start = places[chunk]
            pairs = cKDTree(start).sparse_distance_matrix(tree, reach, output_type="ndarray")
            i, j = pairs["i"], pairs["j"]
            if split:
                near = sum((points[j, column] - start[i, column]) ** 2 for column in range(split))
                inside = (near <= radius**2) & (pairs["v"] ** 2 - near <= radius**2)
                i, j = i[inside], j[inside]
            member = sparse.csr_array((weights[j], (i, j)), shape=(len(chunk), len(points)))
            mass[chunk] = member.sum(axis=1)
            heard = mass[chunk] > 0
            places[chunk[heard]] = (member @ points)[heard] / mass[chunk[heard], None]
            moving.append(chunk[np.linalg.norm(places[chunk] - start, axis=1) > tolerance * radius])
        climbing = np.concatenate(moving)
        if not len(climbing):
            break
    return places, mass


def joint_modes(image: Tensor, spatial: float, colour: float, cell: float = 0.5, steps: int = 100) -> Tensor:
    """The mode of every pixel in the joint space of place and colour; its colours are the filtered image.

    For speed the pixels of one cell of a 5-dimensional grid act as one point at their mean, with their number as its
    weight, and climb as one seed. A seed rests when it moves by at most 0.01 windows, as in the paper.

    Args:
        image: (3, H, W), in any colour space; L*a*b* (`segedu.ops.colour.rgb_to_lab`) suits best.
        spatial: h_s, radius of the window in pixels.
        colour: h_r, radius of the window in the unit of `image`.
        cell: side of a cell of the grid, as a part of each radius. 0: every pixel on its own, the exact method.
        steps: at most so many moves of a seed.

    Returns:
        (5, H, W): row and column of the mode, in pixels, and its colour; dtype of `image`.

    Raises:
        TypeError: `image` is not a floating point tensor.
        ValueError: `image` is not (3, H, W), is empty or not finite; a parameter is out of range.
    """
    _check_floating("image", image)
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(f"image has shape {tuple(image.shape)}, expected (3, H, W) with no empty axis")
    _check_numbers("image", image, spatial=spatial, colour=colour, steps=steps)
    if not 0 <= cell <= 1:
        raise ValueError(f"cell is {cell}, expected a number from 0 to 1")
    _, height, width = image.shape
    places = torch.from_numpy(np.indices((height, width)))
    scale = np.array([spatial, spatial, colour, colour, colour])
    pixels = torch.cat([places.double(), image.detach().cpu().double()]).flatten(1).T.numpy() / scale  # (H * W, 5)
    if cell:
        points, weights, index = _binned(pixels, cell)
    else:
        points, weights, index = pixels, np.ones(len(pixels)), np.arange(len(pixels))
    modes, _ = _climb(points, points, weights, 2, 1.0, 1e-2, steps)
    return torch.from_numpy((modes[index] * scale).T.reshape(5, height, width)).to(image)


def _binned(pixels: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means (S, 5) and numbers (S,) of the pixels in each cell of the grid, and the cell (N,) of each pixel."""
    keys = np.floor((pixels - pixels.min(axis=0)) / cell)
    _, index, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(index, column) for column in pixels.T], axis=1)
    return sums / counts[:, None], counts.astype(np.float64), index


def mean_shift_segmentation(
    image: Tensor, spatial: float, colour: float, min_size: int = 20, cell: float = 0.5, steps: int = 100
) -> Tensor:
    """Segment an image: the paper's section 4.2.

    Pixels that touch along a side are joined if their modes are not further apart than `spatial` in place and
    `colour` in colour. Then every region below `min_size` pixels joins the touching region of the nearest mean
    colour, until there is none.

    Args:
        image: (3, H, W), see `joint_modes`.
        spatial: h_s in pixels.
        colour: h_r in the unit of `image`.
        min_size: M of the paper, pixels; 1 keeps all regions.
        cell: see `joint_modes`.
        steps: see `joint_modes`.

    Returns:
        Labels (H, W) int64 from 0, in the order of the regions' first pixels; each region is connected.

    Raises:
        TypeError: as `joint_modes`.
        ValueError: as `joint_modes`, or `min_size` is below 1.
    """
    if not isinstance(min_size, int) or isinstance(min_size, bool) or min_size < 1:
        raise ValueError(f"min_size is {min_size!r}, expected a whole number of at least 1")
    modes = joint_modes(image, spatial, colour, cell, steps).cpu().double().flatten(1).T.numpy()  # (N, 5)
    numbers = np.arange(len(modes)).reshape(image.shape[1:])
    sides = [(numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])]
    i, j = (np.concatenate([pair[end].ravel() for pair in sides]) for end in (0, 1))  # pixels that touch
    away = np.abs(modes[i] - modes[j]) / np.array([spatial, spatial, colour, colour, colour])
    near = ((away[:, :2] ** 2).sum(axis=1) <= 1) & ((away[:, 2:] ** 2).sum(axis=1) <= 1)
    labels = _joined(i[near], j[near], len(modes))
    labels = _without_small(labels, i, j, modes[:, 2:], min_size)
    return torch.from_numpy(labels.reshape(image.shape[1:])).to(image.device)


def _joined(i: np.ndarray, j: np.ndarray, n: int) -> np.ndarray:
    """Connected components (n,) of a graph with edges i - j, numbered by their first node."""
    graph = sparse.coo_array((np.ones(len(i), dtype=bool), (i, j)), shape=(n, n))
    _, first, labels = np.unique(connected_components(graph)[1], return_index=True, return_inverse=True)
    return first.argsort().argsort()[labels]


def _without_small(labels: np.ndarray, i: np.ndarray, j: np.ndarray, colours: np.ndarray, least: int) -> np.ndarray:
    """Regions of fewer than `least` pixels joined to the neighbour of the nearest mean colour."""
    while True:
        counts = np.bincount(labels)
        a, b = np.concatenate([labels[i], labels[j]]), np.concatenate([labels[j], labels[i]])
        small = (a != b) & (counts[a] < least)
        if not small.any():
            return labels
        a, b = np.unique(np.stack([a[small], b[small]]), axis=1)  # small region, one of its neighbours
        means = np.stack([np.bincount(labels, c) for c in colours.T], axis=1) / counts[:, None]
        order = np.lexsort((b, np.linalg.norm(means[a] - means[b], axis=1), a))
        region, at = np.unique(a[order], return_index=True)
        labels = _joined(region, b[order][at], len(counts))[labels]


def _check_floating(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        given = f"dtype {tensor.dtype}" if isinstance(tensor, Tensor) else f"type {type(tensor).__name__}"
        raise TypeError(f"{name} has {given}, expected a floating point tensor")


def _check_numbers(name: str, tensor: Tensor, steps: int, **radii: float) -> None:
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} has values that are no number or infinite, expected finite ones")
    for argument, radius in radii.items():
        if not 0 < radius < float("inf"):
            raise ValueError(f"{argument} is {radius}, expected a finite number above 0")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps is {steps!r}, expected a whole number of at least 1")
