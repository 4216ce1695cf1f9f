"""Normalized cut: split a graph where the cut is small relative to the total weight of each side.

Paper: Shi, Malik, "Normalized Cuts and Image Segmentation", TPAMI 2000. TokenCut: Wang, Shen, Hu, Yuan, Crowley,
    Vaufreydaz, "Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut", CVPR 2022,
    arXiv 2202.11539.
Idea: A minimum cut often separates single pixels. Divided by the total weight of the edges of each side, cut(A, B) /
    assoc(A, V) + cut(A, B) / assoc(B, V), a small side is expensive. The best split is NP-hard to find, but with real
    values instead of two labels it is the second eigenvector of (D - W) y = lambda D y, which is then thresholded.
Simplified: TokenCut's refinement from patches to pixels (a bilateral solver) and its box are not included.
Shapes: image (3, H, W) -> affinities (N, N) sparse -> labels (N,) int64. Features (h, w, D) -> mask (h, w) bool.
Quality: eigenvalues equal those of SciPy's dense solver up to 1e-6, and Ncut equals that of scikit-image's `ncut_cost`
    (see the tests).
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
from segedu.validation.numbers import check_integer, check_integers, check_number
from segedu.validation.tensors import check_finite, check_floats

DENSE_NODES = 200  # for smaller graphs, computing all eigenvectors is not slower and always converges
SHIFT = 1e-4  # the sparse solver looks for eigenvalues near -SHIFT
MIN_AFFINITY = 1e-10  # smaller affinities are below the rounding errors of the eigenvectors
WEAK_AFFINITY = 1e-5  # TokenCut: edge between dissimilar patches, which keeps the graph connected


def grid_affinities(
    image: Tensor, radius: float = 5.0, colour_sigma: float = 0.1, position_sigma: float = 4.0
) -> sparse.csr_array:
    """Compute the affinity of every pair of pixels from the distances of their colours and positions.

    It is exp(-|I_i - I_j|^2 / colour_sigma^2 - |p_i - p_j|^2 / position_sigma^2) if |p_i - p_j| < radius. Otherwise,
    and where this value is at most `MIN_AFFINITY`, it is 0.

    Args:
        image: (C, H, W) in [0, 1]; C is 3 for colours, 1 for grey values, or the number of any other features.
        radius: maximum distance of connected pixels, above 1. No pixel has an edge to itself.
        colour_sigma: scale of the colour distance, in the unit of the image.
        position_sigma: scale of the distance of positions, in pixels.

    Returns:
        Symmetric (H * W, H * W) float64, row by row.
    """
    check_floats("image", image, "C H W")
    check_finite("image", image)
    check_number("radius", radius, 1, exclusive=True)
    for name, sigma in (("colour_sigma", colour_sigma), ("position_sigma", position_sigma)):
        if not sigma > 0:  # inf is allowed: the term then has no effect
            raise ValueError(f"{name} is {sigma}, expected a number above 0")
    pixels = image.detach().cpu().double().numpy()
    _, height, width = pixels.shape
    index = np.arange(height * width).reshape(height, width)
    offsets = range(-int(radius), int(radius) + 1)
    starts, stops, weights = [], [], []
    for dy, dx in ((dy, dx) for dy in offsets for dx in offsets if (dy, dx) > (0, 0) and dy**2 + dx**2 < radius**2):
        if dy >= height or abs(dx) >= width:
            continue
        first = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
        second = (slice(dy, height), slice(max(0, dx), width + min(0, dx)))
        contrast = ((pixels[:, *first] - pixels[:, *second]) ** 2).sum(axis=0)
        starts.append(index[first].ravel())
        stops.append(index[second].ravel())
        weights.append(np.exp(-contrast / colour_sigma**2 - (dy**2 + dx**2) / position_sigma**2).ravel())
    empty = [np.zeros(0, np.int64)]  # a single pixel has no neighbour
    i, j, w = (np.concatenate(parts or empty) for parts in (starts, stops, weights))
    keep = w > MIN_AFFINITY
    half = sparse.csr_array((w[keep].astype(np.float64), (i[keep], j[keep])), shape=(height * width, height * width))
    return (half + half.T).tocsr()


def ncut_value(affinities: sparse.sparray | np.ndarray | Tensor, labels: np.ndarray | Tensor) -> float:
    """Sum over the segments A of cut(A, V - A) / assoc(A, V): equation 2 for two segments, its generalisation for more.

    assoc(A, V) is the weight of all edges from A; those inside A count from both ends. A segment without edges, such as
    an isolated node, has 0 / 0, which counts as 0: it costs nothing to separate.

    Args:
        affinities: symmetric (N, N), at least 0, sparse or dense.
        labels: (N,) or any shape of N integers, the segment of each node.

    Returns:
        A number from 0 to the number of segments.

    >>> chain = np.array([[0.0, 3, 0], [3, 0, 1], [0, 1, 0]])
    >>> ncut_value(chain, np.array([0, 0, 1]))  # 1 / 7 + 1 / 1
    1.1428571428571428
    """
    weights = _check_affinities(affinities)
    labels = np.asarray(labels).ravel()
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels has dtype {labels.dtype}, expected integers")
    if len(labels) != weights.shape[0]:
        raise ValueError(f"labels has {len(labels)} elements, expected {weights.shape[0]}, one for each node")
    segments, index = np.unique(labels, return_inverse=True)
    members = sparse.csr_array((np.ones(len(labels)), (index, np.arange(len(labels)))), (len(segments), len(labels)))
    between = (members @ weights @ members.T).toarray()
    assoc = between.sum(axis=1)
    cut = assoc - between.diagonal()
    return float((cut[assoc > 0] / assoc[assoc > 0]).sum())


def eigenvectors(affinities: sparse.sparray | np.ndarray | Tensor, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The `count` smallest solutions of (D - W) y = lambda D y: equation 6, computed from D^(-1/2) (D - W) D^(-1/2).

    Args:
        affinities: symmetric (N, N), at least 0. Each isolated node gets an eigenvalue 0 of its own.
        count: at most N.

    Returns:
        Eigenvalues (count,) in increasing order, and y (N, count), y^T D y = 1 (where D is 0, it counts as 1). The sign
        of y is arbitrary; here, the first element of largest absolute value is positive.
    """
    weights = _check_affinities(affinities)
    nodes = weights.shape[0]
    check_integer("count", count, 1, nodes)
    degree = np.asarray(weights.sum(axis=1)).ravel()
    root = np.sqrt(np.where(degree > 0, degree, 1))
    inverse = sparse.diags_array(1 / root)
    normalised = (inverse @ weights @ inverse + sparse.diags_array((degree == 0).astype(float))).tocsr()
    if nodes <= max(DENSE_NODES, count + 1):
        values, vectors = eigh(normalised.toarray())
    else:
        # Eigenvalues are dense near 0, where Lanczos is slow; those of the inverse, shifted slightly below 0, are far
        # apart. A fixed start makes the result deterministic.
        start = np.random.default_rng(0).standard_normal(nodes)
        laplacian = (sparse.eye_array(nodes) - normalised).tocsc()
        values, vectors = eigsh(laplacian, k=count, sigma=-SHIFT, which="LM", v0=start)
        values = 1 - values
    order = np.argsort(-values, kind="stable")[:count]
    y = vectors[:, order] / root[:, None]
    y *= np.where(y[np.abs(y).argmax(axis=0), np.arange(count)] < 0, -1, 1)
    return 1 - values[order], y


def best_threshold(affinities: sparse.csr_array, vector: np.ndarray, candidates: int = 40) -> tuple[np.ndarray, float]:
    """Threshold an eigenvector where Ncut is smallest: section 3, step 3.

    Args:
        affinities: (N, N).
        vector: (N,).
        candidates: number of thresholds to evaluate, at evenly spaced ranks of the values; all values if N is smaller.

    Returns:
        Mask (N,) bool and its Ncut. If all values are equal, an empty mask and inf.
    """
    levels = np.unique(vector)[:-1]
    best_mask, best_value = np.zeros(len(vector), bool), np.inf
    if len(levels) > candidates:
        ranks = np.linspace(0, len(vector) - 1, candidates + 2)[1:-1].astype(np.int64)
        levels = np.unique(np.append(np.sort(vector)[ranks], levels[0]))
    for level in levels:
        mask = vector > level
        if mask.any() and not mask.all():
            value = ncut_value(affinities, mask.astype(np.int64))
            if value < best_value:
                best_mask, best_value = mask, value
    return best_mask, best_value


def normalized_cut(
    affinities: sparse.sparray | np.ndarray | Tensor, limit: float = 0.1, segments: int = 64, smallest: int = 1
) -> np.ndarray:
    """Split a graph in two, and each part again, as long as the Ncut of a split is at most `limit`: section 3, step 5.

    Two-way: `limit=inf, segments=2`. Disconnected parts are split first: their Ncut is 0.

    Args:
        affinities: symmetric (N, N), at least 0.
        limit: a part is not split if its best split has a larger Ncut, computed within the part.
        segments: maximum number of segments.
        smallest: minimum number of nodes on each side of a split.

    Returns:
        (N,) int64, 0 for the first node's segment, numbered in the order of their first nodes.
    """
    weights = _check_affinities(affinities)
    if not limit >= 0:  # inf is allowed
        raise ValueError(f"limit is {limit}, expected a number of at least 0")
    check_integers(segments=segments, smallest=smallest)
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
    _, first, index = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[index]


def _split(weights: sparse.csr_array, nodes: np.ndarray, smallest: int) -> tuple[np.ndarray, float]:
    """Nodes of one side of the best split of a part, and its Ncut, which is inf if there is no split."""
    if len(nodes) < 2 * smallest:
        return nodes[:0], np.inf
    inside = weights[nodes][:, nodes]
    count, component = connected_components(inside, directed=False)
    if count > 1:
        side, value = component != component[0], 0.0
    else:
        side, value = best_threshold(inside, eigenvectors(inside, 2)[1][:, 1])
    if min(side.sum(), (~side).sum()) < smallest:
        return nodes[:0], np.inf
    return nodes[side], value


def segment_image(image: Tensor, segments: int = 8, limit: float = 0.1, longest: int = 64, **affinity: float) -> Tensor:
    """Normalized cuts of a photograph at a reduced resolution: eigenvectors of 512 x 512 pixels take minutes.

    Args:
        image: (3, H, W) in [0, 1].
        segments: see `normalized_cut`.
        limit: see `normalized_cut`.
        longest: maximum length of the longer side after downsampling. Afterwards, each pixel takes the segment with the
            largest share among the four coarse pixels around it (bilinear).
        affinity: `radius`, `colour_sigma`, `position_sigma` of `grid_affinities`, in coarse pixels.

    Returns:
        (H, W) int64 labels, from 0.
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
    """TokenCut: segment the object among the patches of a self-supervised transformer.

    Two patches are similar if the cosine of their features is above tau; all other edges have `WEAK_AFFINITY`. The
    second eigenvector is thresholded at its mean, and the side of its largest absolute value is the object.

    Args:
        features: (h, w, D), such as the keys of DINO's last attention. A patch of zeros is similar to no other.
        tau: threshold of the cosine similarity, from -1 to 1.

    Returns:
        (h, w) bool, True for the object. All False if the eigenvector is constant, or if there is one patch.
    """
    check_floats("features", features, "h w D")
    check_finite("features", features)
    check_number("tau", tau, -1, 1)
    height, width, dims = features.shape
    if height * width == 1:
        return torch.zeros(1, 1, dtype=torch.bool)
    tokens = F.normalize(features.detach().cpu().double().reshape(-1, dims), dim=1)
    weights = torch.where(tokens @ tokens.T > tau, 1.0, WEAK_AFFINITY).double().numpy()
    degree = weights.sum(axis=1)
    if (degree == degree[0]).all() and (weights == weights[0]).all():  # all patches are equally similar
        return torch.zeros(height, width, dtype=torch.bool)
    second = eigh(np.diag(degree) - weights, np.diag(degree), subset_by_index=[1, 1])[1][:, 0]
    mask = second > second.mean()
    if not mask[np.abs(second).argmax()]:
        mask = ~mask
    return torch.from_numpy(mask.reshape(height, width))


def _check_affinities(affinities: sparse.sparray | np.ndarray | Tensor) -> sparse.csr_array:
    weights = sparse.csr_array(affinities, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or weights.shape[0] == 0:
        raise ValueError(f"affinities has shape {weights.shape}, expected (N, N) with N at least 1")
    if weights.nnz and not (np.isfinite(weights.data).all() and weights.data.min() >= 0):
        raise ValueError("affinities has negative values, NaN or inf, expected finite numbers of at least 0")
    skew = abs(weights - weights.T)
    if skew.nnz and skew.max() > 1e-9 * weights.max():
        raise ValueError(f"affinities is not symmetric: W and its transpose differ by {skew.max():g}, expected 0")
    return weights
