"""SLIC superpixels: k-means in colour and position, where a pixel is compared only with the centres near it.

Paper: Achanta, Shaji, Smith, Lucchi, Fua, Süsstrunk, "SLIC Superpixels Compared to State-of-the-Art Superpixel
    Methods", IEEE TPAMI 34(11), 2012.
Idea: Centres start on a grid of step S, and each one competes for the pixels at most S away from it. The distance is
    that of Lab colours plus that of positions, the latter divided by S and weighted by the compactness m. As no centre
    is compared with the whole image, an iteration takes the same time for few superpixels as for many. At the end,
    pieces that are disconnected from their superpixel are merged into a neighbour.
Simplified: the number of iterations is fixed. A piece is merged if it is smaller than a quarter of S x S, as in the
    authors' code, and it joins the neighbour with which it shares the longest border.
Shapes: image (3, H, W) in [0, 1] -> label map (H, W) int32, 1 to n.
Quality: on four synthetic streets with 150 requested superpixels, boundary recall is 0.984 and under-segmentation error
    0.060 (scikit-image's SLIC with as many superpixels: 0.987 and 0.080). 512x512 pixels, 400 superpixels: 0.6 s of CPU
    time.
Course: 02-clustering
Lab: 02_clustering
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from segedu.ops.colour import rgb_to_lab
from segedu.validation.images import check_image
from segedu.validation.numbers import check_integers, check_number


def slic(image: Tensor, n_segments: int, compactness: float = 10.0, iterations: int = 10) -> Tensor:
    """Divide an image into about `n_segments` superpixels of about equal size that follow its edges.

    Args:
        image: (3, H, W) floats in [0, 1].
        n_segments: approximate number of superpixels.
        compactness: m of the paper, in units of Lab: large values give squares, small values follow colours.
        iterations: number of iterations, each an assignment and an update; the paper uses 10.

    Returns:
        (H, W) int32: superpixels, each 4-connected, numbered from 1 in the raster order of their first pixels.
    """
    check_image(image)
    check_integers(n_segments=n_segments, iterations=iterations)
    check_number("compactness", compactness, exclusive=True)
    lab = rgb_to_lab(image.double()).permute(1, 2, 0).numpy(force=True)  # (H, W, 3)
    height, width, _ = lab.shape
    step = max(1.0, np.sqrt(height * width / n_segments))
    # The paper's D squared is the squared Euclidean distance of these features.
    rows, columns = np.indices((height, width)) * (compactness / step)
    features = np.concatenate([lab, rows[..., None], columns[..., None]], axis=2)  # (H, W, 5)
    positions = initial_positions(lab, step)
    centres = features[tuple(positions.T)]
    labels = np.zeros((height, width), dtype=np.int64)
    for _ in range(iterations):
        labels = nearest_centres(features, centres, positions, step)
        count = np.bincount(labels.ravel(), minlength=len(centres))
        filled = count > 0  # a centre without pixels does not move
        for axis in range(features.shape[2]):
            total = np.bincount(labels.ravel(), features[..., axis].ravel(), minlength=len(centres))
            centres[filled, axis] = total[filled] / count[filled]
        for axis, coordinates in enumerate(np.indices((height, width))):
            total = np.bincount(labels.ravel(), coordinates.ravel(), minlength=len(centres))
            positions[filled, axis] = np.rint(total[filled] / count[filled])
    joined = enforce_connectivity(labels, min_size=step**2 / 4)
    return torch.from_numpy(joined).to(image.device)


def initial_positions(lab: np.ndarray, step: float) -> np.ndarray:
    """A grid of centres, each moved to the smallest gradient of the 3 x 3 pixels around it, away from edges and noise.

    Args:
        lab: (H, W, 3).
        step: distance of the grid's points in pixels; rows and columns are evenly spaced.

    Returns:
        (K, 2) rows and columns.
    """
    height, width, _ = lab.shape
    tall, wide = np.pad(lab, ((1, 1), (0, 0), (0, 0)), mode="edge"), np.pad(lab, ((0, 0), (1, 1), (0, 0)), "edge")
    gradient = ((tall[2:] - tall[:-2]) ** 2).sum(axis=2) + ((wide[:, 2:] - wide[:, :-2]) ** 2).sum(axis=2)
    gradient = np.pad(gradient, 1, constant_values=np.inf)
    counts = (max(1, round(height / step)), max(1, round(width / step)))
    grid = [
        np.floor((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(counts, (height, width), strict=True)
    ]
    positions = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, 2)
    # The position itself comes first, so that it does not change if all nine gradients are equal.
    offsets = np.array([(0, 0), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])
    around = positions[:, None] + offsets  # (K, 9, 2)
    best = gradient[around[..., 0] + 1, around[..., 1] + 1].argmin(axis=1)
    return positions + offsets[best]


def nearest_centres(features: np.ndarray, centres: np.ndarray, positions: np.ndarray, step: float) -> np.ndarray:
    """Assign each pixel to the nearest of the centres around it: the inner loop of the paper's algorithm 1.

    Args:
        features: (H, W, D).
        centres: (K, D).
        positions: (K, 2) rows and columns of the centres.
        step: S; a centre competes for the pixels at most S away in rows and in columns.

    Returns:
        (H, W) indices from 0 to K - 1; of equally near centres the first. A pixel out of reach of all centres gets the
        centre whose position is nearest.

    >>> values = np.array([[[0.0], [1.0], [5.0], [6.0]]])
    >>> nearest_centres(values, np.array([[0.0], [6.0]]), np.array([[0, 0], [0, 3]]), step=2)
    array([[0, 0, 1, 1]])
    """
    height, width, _ = features.shape
    reach = int(np.ceil(step))
    best = np.full((height, width), np.inf)
    labels = np.full((height, width), -1)
    for index, (centre, (row, column)) in enumerate(zip(centres, positions.tolist(), strict=True)):
        window = (slice(max(row - reach, 0), row + reach + 1), slice(max(column - reach, 0), column + reach + 1))
        offsets = features[window] - centre
        distance = np.einsum("hwd,hwd->hw", offsets, offsets)
        nearer = distance < best[window]
        best[window][nearer] = distance[nearer]
        labels[window][nearer] = index
    unassigned = np.argwhere(labels < 0)
    for start in range(0, len(unassigned), 1024):
        pixels = unassigned[start : start + 1024]
        distance = ((pixels[:, None] - positions) ** 2).sum(axis=2)
        labels[tuple(pixels.T)] = distance.argmin(axis=1)
    return labels


def enforce_connectivity(labels: np.ndarray, min_size: float) -> np.ndarray:
    """Give every connected piece its own label, and merge small pieces into a neighbour.

    Pieces are processed from the smallest to the largest; a piece of fewer than `min_size` pixels joins the neighbour
    with the longest common border, the first in raster order if several are equal.

    Args:
        labels: (H, W) integers.
        min_size: pixels.

    Returns:
        (H, W) int32, 4-connected labels from 1 to n in the raster order of their first pixels.

    >>> enforce_connectivity(np.array([[3, 3, 3, 5], [3, 3, 7, 5]]), min_size=2)
    array([[1, 1, 1, 2],
           [1, 1, 1, 2]], dtype=int32)
    """
    pixels = np.arange(labels.size).reshape(labels.shape)
    neighbours = [(pixels[:, :-1], pixels[:, 1:]), (pixels[:-1], pixels[1:])]
    one, other = (np.concatenate([pair[i].ravel() for pair in neighbours]) for i in (0, 1))
    flat = labels.ravel()
    same = flat[one] == flat[other]
    graph = sparse.coo_array((np.ones(same.sum(), dtype=bool), (one[same], other[same])), shape=(flat.size,) * 2)
    count, piece = connected_components(graph, directed=False)
    borders: list[dict[int, int]] = [{} for _ in range(count)]  # for each piece: neighbour -> length
    codes, lengths = np.unique(piece[one[~same]] * count + piece[other[~same]], return_counts=True)
    for a, b, length in zip(*np.divmod(codes, count), lengths, strict=True):
        for source, target in ((int(a), int(b)), (int(b), int(a))):
            borders[source][target] = borders[source].get(target, 0) + int(length)
    sizes = np.bincount(piece, minlength=count)
    into = np.arange(count)
    for small in np.argsort(sizes, kind="stable").tolist():
        if sizes[small] >= min_size or not borders[small]:  # the piece may have grown
            continue
        host = min(borders[small], key=lambda n: (-borders[small][n], n))
        into[small] = host
        sizes[host] += sizes[small]
        for neighbour, length in borders[small].items():
            del borders[neighbour][small]
            if neighbour != host:
                borders[host][neighbour] = borders[host].get(neighbour, 0) + length
                borders[neighbour][host] = borders[host][neighbour]
    while (into != into[into]).any():
        into = into[into]
    _, first, region = np.unique(into[piece], return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int32)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1)
    return rank[region].reshape(labels.shape)
