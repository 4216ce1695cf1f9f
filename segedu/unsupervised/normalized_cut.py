"""Normalized cut: split a graph where little crosses, measured against what each side holds.

Paper: Shi, Malik, "Normalized Cuts and Image Segmentation", TPAMI 2000. TokenCut: Wang, Shen, Hu, Yuan, Crowley,
    Vaufreydaz, "Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut", CVPR 2022,
    arXiv 2202.11539.
Idea: A cheapest cut likes to snip off single pixels. Divided by all the weight that leaves each side, cut(A, B) /
    assoc(A, V) + cut(A, B) / assoc(B, V), a small side is expensive. The best split is hard to find, but with real
    numbers for the two sides it is the second eigenvector of (D - W) y = lambda D y, which is then thresholded.
Simplified: TokenCut's step from the patches to pixels (a bilateral solver) and its box are left out.
Shapes: image (3, H, W) -> affinities (N, N) sparse -> labels (N,) int64. Features (h, w, D) -> mask (h, w) bool.
Quality: eigenvalues as scipy's dense solver to 1e-6, Ncut as scikit-image's `ncut_cost` (its tests).
Course: 02-clustering
Lab: 02_clustering
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.linalg import eigh
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh
from torch import Tensor
from torch.nn import functional as F

from segedu.validation.images import check_image

DENSE_NODES = 200  # up to here all eigenvectors are computed: no slower, and it cannot fail to converge
SHIFT = 1e-4  # how far below 0 the eigenvalues are sought
MIN_AFFINITY = 1e-10  # smaller affinities are none: eigenvectors could not tell them from rounding
WEAK_AFFINITY = 1e-5  # TokenCut: weight of an edge between patches that are not alike; it keeps the graph in one piece


def grid_affinities(
    image: Tensor, radius: float = 5.0, colour_sigma: float = 0.1, position_sigma: float = 4.0
) -> sparse.csr_array:
    """exp(-|I_i - I_j|^2 / colour_sigma^2 - |p_i - p_j|^2 / position_sigma^2) where |p_i - p_j| < radius, else 0.

    Values of at most `MIN_AFFINITY` are 0 too.

    Args:
        image: (C, H, W) in [0, 1]; C is 3 for colours, 1 for grey values, or the number of any other features.
        radius: in pixels, above 1. No pixel has an edge to itself.
        colour_sigma: in units of the image.
        position_sigma: in pixels.

    Returns:
        Symmetric (H * W, H * W) float64, row by row.

    Raises:
        TypeError: the image is not floating point.
        ValueError: another shape, NaN or inf, or a parameter out of its range.
    """
    if not image.is_floating_point():
        raise TypeError(f"image has dtype {image.dtype}, expected floating point in [0, 1]")
    if image.ndim != 3 or image.numel() == 0:
        raise ValueError(f"image has shape {tuple(image.shape)}, expected (C, H, W), each at least 1")
    if not image.isfinite().all():
        raise ValueError("image has NaN or inf, expected finite values")
    if not (radius > 1 and colour_sigma > 0 and position_sigma > 0):
        given = f"radius is {radius}, colour_sigma {colour_sigma}, position_sigma {position_sigma}"
        raise ValueError(f"{given}, expected radius above 1 and positive sigmas")
    pixels = image.detach().cpu().double().numpy()
    _, height, width = pixels.shape
    index = np.arange(height * width).reshape(height, width)
    reach = range(-int(radius), int(radius) + 1)
    starts, stops, weights = [], [], []
    for dy, dx in ((dy, dx) for dy in reach for dx in reach if (dy, dx) > (0, 0) and dy**2 + dx**2 < radius**2):
        if dy >= height or abs(dx) >= width:
            continue
        here = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
        there = (slice(dy, height), slice(max(0, dx), width + min(0, dx)))
        contrast = ((pixels[:, *here] - pixels[:, *there]) ** 2).sum(axis=0)
        starts.append(index[here].ravel())
        stops.append(index[there].ravel())
        weights.append(np.exp(-contrast / colour_sigma**2 - (dy**2 + dx**2) / position_sigma**2).ravel())
    empty = [np.zeros(0, np.int64)]  # one pixel has no neighbour
    i, j, w = (np.concatenate(parts or empty) for parts in (starts, stops, weights))
    seen = w > MIN_AFFINITY
    half = sparse.csr_array((w[seen].astype(np.float64), (i[seen], j[seen])), shape=(height * width, height * width))
    return (half + half.T).tocsr()


def ncut_value(affinities: sparse.sparray | np.ndarray | Tensor, labels: np.ndarray | Tensor) -> float:
    """Sum over the segments A of cut(A, V - A) / assoc(A, V): equation 2 for two, its sum for more.

    assoc(A, V) is the weight of all edges from A, those inside A counted from both ends. A segment without any
    edge, such as an isolated node, has 0 / 0: it costs nothing to cut off, and counts as 0.

    Args:
        affinities: symmetric (N, N), at least 0, sparse or dense.
        labels: (N,) or any shape of N integers, the segment of each node.

    Returns:
        A number from 0 to the number of segments.

    Raises:
        TypeError: the labels are not integers.
        ValueError: the affinities are not symmetric, negative, NaN or not square, or the number of labels differs.

    >>> chain = np.array([[0.0, 3, 0], [3, 0, 1], [0, 1, 0]])
    >>> ncut_value(chain, np.array([0, 0, 1]))  # 1 / 7 + 1 / 1
    1.1428571428571428
    """
    weights = _checked(affinities)
    labels = np.asarray(labels).ravel()
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels has dtype {labels.dtype}, expected integers")
    if len(labels) != weights.shape[0]:
        raise ValueError(f"labels has {len(labels)} elements, expected {weights.shape[0]}, one for each node")
    segments, place = np.unique(labels, return_inverse=True)
    members = sparse.csr_array((np.ones(len(labels)), (place, np.arange(len(labels)))), (len(segments), len(labels)))
    between = (members @ weights @ members.T).toarray()
    assoc = between.sum(axis=1)
    cut = assoc - between.diagonal()
    return float((cut[assoc > 0] / assoc[assoc > 0]).sum())


def eigenvectors(affinities: sparse.sparray | np.ndarray | Tensor, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The `count` smallest solutions of (D - W) y = lambda D y: equation 6, by way of D^(-1/2) (D - W) D^(-1/2).

    Args:
        affinities: symmetric (N, N), at least 0. Isolated nodes get an eigenvalue 0 of their own.
        count: at most N.

    Returns:
        Eigenvalues (count,) increasing, and y (N, count), y^T D y = 1 (where D is 0, it counts as 1). The first
        element of largest absolute value is positive: signs are free, and fixed so.

    Raises:
        ValueError: the affinities are none, or `count` is out of its range.
    """
    weights = _checked(affinities)
    nodes = weights.shape[0]
    if not 1 <= count <= nodes:
        raise ValueError(f"count is {count}, expected from 1 to {nodes}, the number of nodes")
    degree = np.asarray(weights.sum(axis=1)).ravel()
    root = np.sqrt(np.where(degree > 0, degree, 1))
    inverse = sparse.diags_array(1 / root)
    similar = (inverse @ weights @ inverse + sparse.diags_array((degree == 0).astype(float))).tocsr()
    if nodes <= max(DENSE_NODES, count + 1):
        values, vectors = eigh(similar.toarray())
    else:
        # Eigenvalues crowd at 0, where Lanczos is slow; those of the inverse, a little below 0, lie far apart. A
        # fixed start makes the result repeatable.
        start = np.random.default_rng(0).standard_normal(nodes)
        laplacian = (sparse.eye_array(nodes) - similar).tocsc()
        values, vectors = eigsh(laplacian, k=count, sigma=-SHIFT, which="LM", v0=start)
        values = 1 - values
    order = np.argsort(-values, kind="stable")[:count]
    y = vectors[:, order] / root[:, None]
    y *= np.where(y[np.abs(y).argmax(axis=0), np.arange(count)] < 0, -1, 1)
    return 1 - values[order], y


def best_threshold(affinities: sparse.csr_array, vector: np.ndarray, candidates: int = 40) -> tuple[np.ndarray, float]:
    """Cut the eigenvector where Ncut is least: section 3, step 3.

    Args:
        affinities: (N, N).
        vector: (N,).
        candidates: thresholds tried, at evenly spaced places in the order of the values; all where N is smaller.

    Returns:
        Mask (N,) bool and its Ncut. Where all values are equal, an empty mask and inf.
    """
    levels = np.unique(vector)[:-1]
    best, least = np.zeros(len(vector), bool), np.inf
    if len(levels) > candidates:
        places = np.linspace(0, len(vector) - 1, candidates + 2)[1:-1].astype(np.int64)
        levels = np.unique(np.append(np.sort(vector)[places], levels[0]))
    for level in levels:
        mask = vector > level
        if mask.any() and not mask.all():
            value = ncut_value(affinities, mask.astype(np.int64))
            if value < least:
                best, least = mask, value
    return best, least


def normalized_cut(
    affinities: sparse.sparray | np.ndarray | Tensor, limit: float = 0.1, segments: int = 64, smallest: int = 1
) -> np.ndarray:
    """Split in two, and each part again, as long as the Ncut of a split stays below a limit: section 3, step 5.

    Two-way: `limit=inf, segments=2`. Parts that no edge connects are split first: their Ncut is 0.

    Args:
        affinities: symmetric (N, N), at least 0.
        limit: a part whose best split has a larger Ncut, within the part, stays whole.
        segments: splitting ends when there are so many.
        smallest: nodes that each side of a split needs.

    Returns:
        (N,) int64, 0 for the first node's segment, numbered in the order of their first nodes.

    Raises:
        ValueError: the affinities are none, or a parameter is out of its range.
    """
    weights = _checked(affinities)
    if not limit >= 0 or segments < 1 or smallest < 1:
        raise ValueError(f"limit {limit}, segments {segments}, smallest {smallest}: expected at least 0, 1 and 1")
    labels = np.zeros(weights.shape[0], np.int64)
    splits = {0: _split(weights, np.arange(len(labels)), smallest)}
    while len(splits) < segments:
        part = min(splits, key=lambda part: splits[part][1])
        side, value = splits[part]
        if not value <= limit or np.isinf(value):
            break
        new = len(splits)
        labels[side] = new
        for k in (part, new):
            splits[k] = _split(weights, np.flatnonzero(labels == k), smallest)
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place]


def _split(weights: sparse.csr_array, nodes: np.ndarray, smallest: int) -> tuple[np.ndarray, float]:
    """Nodes of one side of the best split of a part, and its Ncut; inf if there is none."""
    if len(nodes) < 2 * smallest:
        return nodes[:0], np.inf
    inside = weights[nodes][:, nodes]
    pieces, piece = connected_components(inside, directed=False)
    if pieces > 1:
        side, value = piece != piece[0], 0.0
    else:
        side, value = best_threshold(inside, eigenvectors(inside, 2)[1][:, 1])
    if min(side.sum(), (~side).sum()) < smallest:
        return nodes[:0], np.inf
    return nodes[side], value


def segment_image(image: Tensor, segments: int = 8, limit: float = 0.1, longest: int = 64, **affinity: float) -> Tensor:
    """Normalized cuts of a photograph, computed on a coarser grid: eigenvectors of 512 x 512 pixels take minutes.

    Args:
        image: (3, H, W) in [0, 1].
        segments: see `normalized_cut`.
        limit: see `normalized_cut`.
        longest: the image is averaged down until its longer side has so many pixels at most. Afterwards each pixel
            takes the segment whose share is largest among the four coarse pixels around it (bilinear).
        affinity: `radius`, `colour_sigma`, `position_sigma` of `grid_affinities`, in coarse pixels.

    Returns:
        (H, W) int64 labels, from 0.

    Raises:
        TypeError: `image` is not a tensor of floats.
        ValueError: `image` has another shape or range, or one of the errors of `grid_affinities`, `normalized_cut`.
    """
    check_image(image)
    height, width = image.shape[1:]
    factor = max(height, width) / longest
    small = (max(1, round(height / factor)), max(1, round(width / factor))) if factor > 1 else (height, width)
    coarse = F.interpolate(image[None].double(), small, mode="area")[0]
    labels = normalized_cut(grid_affinities(coarse, **affinity), limit, segments)
    shares = F.one_hot(torch.from_numpy(labels)).T.reshape(1, -1, *small).double()
    return F.interpolate(shares, (height, width), mode="bilinear").argmax(dim=1)[0]


def token_cut(features: Tensor, tau: float = 0.2) -> Tensor:
    """TokenCut: the object among the patches of a self-supervised transformer.

    Two patches are alike where the cosine of their features is above tau; all others hang together by `WEAK_AFFINITY`.
    The second eigenvector is cut at its mean, and the side of its largest absolute value is the object.

    Args:
        features: (h, w, D), such as the keys of DINO's last attention. A patch of zeros is like no other.
        tau: from -1 to 1.

    Returns:
        (h, w) bool, True for the object. All False where the eigenvector is constant, or there is one patch.

    Raises:
        TypeError: the features are not floating point.
        ValueError: another shape, NaN or inf, or tau out of its range.
    """
    if not features.is_floating_point():
        raise TypeError(f"features has dtype {features.dtype}, expected floating point")
    if features.ndim != 3 or features.numel() == 0:
        raise ValueError(f"features has shape {tuple(features.shape)}, expected (h, w, D), each at least 1")
    if not features.isfinite().all():
        raise ValueError("features has NaN or inf, expected finite values")
    if not -1 <= tau <= 1:
        raise ValueError(f"tau is {tau}, expected from -1 to 1")
    height, width, dims = features.shape
    if height * width == 1:
        return torch.zeros(1, 1, dtype=torch.bool)
    tokens = F.normalize(features.detach().cpu().double().reshape(-1, dims), dim=1)
    weights = torch.where(tokens @ tokens.T > tau, 1.0, WEAK_AFFINITY).double().numpy()
    degree = weights.sum(axis=1)
    if (degree == degree[0]).all() and (weights == weights[0]).all():  # all alike: no second side
        return torch.zeros(height, width, dtype=torch.bool)
    second = eigh(np.diag(degree) - weights, np.diag(degree), subset_by_index=[1, 1])[1][:, 0]
    mask = second > second.mean()
    if not mask[np.abs(second).argmax()]:
        mask = ~mask
    return torch.from_numpy(mask.reshape(height, width))


def _checked(affinities: sparse.sparray | np.ndarray | Tensor) -> sparse.csr_array:
    weights = sparse.csr_array(affinities, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or weights.shape[0] == 0:
        raise ValueError(f"affinities has shape {weights.shape}, expected (N, N) with N at least 1")
    if weights.nnz and not (np.isfinite(weights.data).all() and weights.data.min() >= 0):
        raise ValueError("affinities has negative values, NaN or inf, expected finite numbers of at least 0")
    skew = abs(weights - weights.T)
    if skew.nnz and skew.max() > 1e-9 * weights.max():
        raise ValueError(f"affinities is not symmetric: W and its transpose differ by {skew.max():g}, expected 0")
    return weights
