"""Graph cut: the best labelling into foreground and background is the cheapest cut of a graph, found exactly.

Paper: Boykov, Jolly, "Interactive Graph Cuts for Optimal Boundary & Region Segmentation of Objects in N-D Images",
    ICCV 2001. Sweep of a bias: Carreira, Sminchisescu, "CPMC: Automatic Object Segmentation Using Constrained
    Parametric Min-Cuts", TPAMI 2012. Bands: Lombaert, Sun, Grady, Xu, "A Multilevel Banded Graph Cuts Method for
    Fast Image Segmentation", ICCV 2005.
Idea: Every pixel pays for its label, and every pair of neighbours that differ pays more the more alike they look.
    Source and sink stand for the two labels and each term is the capacity of an edge, so that a cut between them
    costs as much as its labelling. The cheapest cut equals the largest flow, which is found in polynomial time.
Simplified: two labels; the flow itself is left to `scipy.sparse.csgraph.maximum_flow`, which wants integers: terms
    are rounded to 1 / `scale`. CPMC's seeds and its ranking of the cuts are left out.
Shapes: unary (2, H, W) and pairwise (4, H, W) or (2, H, W) -> mask (H, W) bool and the value of the flow.
Quality: flow equal to PyMaxflow's, to the last digit, on the rounded terms (its tests).
Course: 02-clustering
Lab: 02_clustering
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage, sparse
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from torch import Tensor

OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1))  # (dy, dx) of the neighbours right, down, down right and down left
LARGEST = 2**31 - 1  # scipy's flow counts in int32
SMALLEST_SIDE = 48  # of the image at which the bands begin


class Cut(NamedTuple):
    """What a cut gives: mask (H, W) bool, True for foreground, and the value of the flow, its energy."""

    mask: Tensor
    flow: float


def contrast_weights(image: Tensor, gamma: float = 50.0, neighbours: int = 8) -> Tensor:
    """gamma / |p - q| exp(-beta |I_p - I_q|^2) with 1 / beta twice the mean of |I_p - I_q|^2 over all pairs.

    Args:
        image: (3, H, W) or (1, H, W) in [0, 1].
        gamma: cost of a border between two pixels of the same colour, side by side.
        neighbours: 8 or 4.

    Returns:
        (4, H, W) or (2, H, W) float64: weight of the edge to the right, down, down right and down left of each
        pixel; 0 where it leads out of the image.

    Raises:
        TypeError: the image is not floating point.
        ValueError: another shape, a value that is not in [0, 1], or a parameter out of its range.
    """
    if not image.is_floating_point():
        raise TypeError(f"image has dtype {image.dtype}, expected floating point in [0, 1]")
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise ValueError(f"image has shape {tuple(image.shape)}, expected (3, H, W) or (1, H, W)")
    if not (image.min() >= 0 and image.max() <= 1):
        raise ValueError("image has values outside [0, 1] or NaN, expected [0, 1]")
    if neighbours not in (4, 8):
        raise ValueError(f"neighbours is {neighbours}, expected 4 or 8")
    if not 0 <= gamma < float("inf"):
        raise ValueError(f"gamma is {gamma}, expected a finite number of at least 0")
    pixels = image.detach().cpu().double()
    _, height, width = pixels.shape
    offsets = OFFSETS[: neighbours // 2]
    contrasts = []
    for dy, dx in offsets:
        here, there = _ends(height, width, dy, dx)
        contrasts.append((pixels[:, *here] - pixels[:, *there]).square().sum(dim=0))
    pairs = sum(contrast.numel() for contrast in contrasts)
    mean = sum(float(contrast.sum()) for contrast in contrasts) / max(pairs, 1)
    beta = 1 / (2 * mean) if mean > 0 else 0.0  # one colour everywhere: every border costs the same
    weights = torch.zeros(len(offsets), height, width, dtype=torch.float64)
    for k, (dy, dx) in enumerate(offsets):
        here, _ = _ends(height, width, dy, dx)
        weights[k, *here] = gamma / (dy * dy + dx * dx) ** 0.5 * torch.exp(-beta * contrasts[k])
    return weights


def _ends(height: int, width: int, dy: int, dx: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Both ends of all edges of one direction: slices of the pixels and of their neighbours."""
    here = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
    there = (slice(dy, height), slice(max(0, dx), width + min(0, dx)))
    return here, there


def min_cut(unary: Tensor, pairwise: Tensor, scale: float = 1000.0, band: int | None = None) -> Cut:
    """The labelling x of least energy: sum of unary[x_p, p] over pixels + sum of pairwise where x_p != x_q.

    Among several it is the one of the smallest foreground, which is unique.

    Args:
        unary: (2, H, W), what background (0) and foreground (1) cost at each pixel. `inf` forbids a label.
        pairwise: (4, H, W) or (2, H, W), at least 0: what it costs if a pixel differs from the neighbour to its
            right, below, below right and below left, see `contrast_weights`. Edges out of the image do not count.
        scale: the terms are rounded to multiples of 1 / scale; the cut is exact for the rounded terms.
        band: None for the exact cut. A number cuts an image of half the size first, and then moves the border by
            at most about so many pixels: much faster, but thin parts and small objects may be
            lost, and the energy be higher.

    Returns:
        Mask and flow. The flow is the energy of the mask, a multiple of 1 / scale.

    Raises:
        TypeError: a tensor is not floating point.
        ValueError: a shape or a value is not one of those above, or the rounded terms do not fit into int32.

    >>> unary = torch.tensor([[[5.0, 0.0, 2.0]], [[0.0, 1.0, 3.0]]])  # the middle alone would be background
    >>> chain = torch.tensor([[[2.0, 0.5, 0.0]], [[0.0, 0.0, 0.0]]])
    >>> cut = min_cut(unary, chain)
    >>> cut.mask, cut.flow  # 0 + 1 + 2, and 0.5 for the border
    (tensor([[ True,  True, False]]), 3.5)
    """
    costs, edges = _rounded(unary, pairwise, scale)
    if band is not None and not band >= 1:
        raise ValueError(f"band is {band}, expected at least 1, or None")
    shape = tuple(unary.shape[1:])
    gain = costs[0] - costs[1]
    foreground = _cut(edges, gain, np.zeros(len(gain), np.int8)) if band is None else _banded(edges, gain, shape, band)
    return _result(foreground, costs, edges, shape, scale)


def parametric_cuts(unary: Tensor, pairwise: Tensor, biases: Sequence[float], scale: float = 1000.0) -> list[Cut]:
    """CPMC's sweep: foreground becomes cheaper by one bias after the other, and the cuts grow, each in the next.

    What a smaller bias has made foreground stays so (the cuts are nested), so that every cut begins where the one
    before has ended.

    Args:
        unary: (2, H, W), see `min_cut`.
        pairwise: (4, H, W) or (2, H, W), see `min_cut`.
        biases: increasing; each is taken off the cost of foreground at every pixel.
        scale: see `min_cut`.

    Returns:
        One cut for each bias; its flow is the energy with that bias, which may be negative.

    Raises:
        TypeError: a tensor is not floating point.
        ValueError: the biases do not increase, or one of the errors of `min_cut`.
    """
    biases = [float(bias) for bias in biases]
    if not biases or not np.isfinite(biases).all() or any(a > b for a, b in zip(biases, biases[1:], strict=False)):
        raise ValueError(f"biases is {biases}, expected one or more finite numbers that increase")
    costs, edges = _rounded(unary, pairwise, scale)
    known = np.zeros(costs.shape[1], np.int8)
    cuts = []
    for bias in biases:
        shifted = costs - np.array([[0], [round(bias * scale)]])
        foreground = _cut(edges, shifted[0] - shifted[1], known)
        known = foreground.astype(np.int8)  # 1: foreground for good; 0: open
        cuts.append(_result(foreground, shifted, edges, tuple(unary.shape[1:]), scale))
    return cuts


def _rounded(unary: Tensor, pairwise: Tensor, scale: float) -> tuple[np.ndarray, sparse.csr_array]:
    """Costs (2, N) int64 and the symmetric matrix (N, N) of the edges, both in units of 1 / scale."""
    _check(unary, pairwise, scale)
    _, height, width = unary.shape
    index = np.arange(height * width).reshape(height, width)
    starts, stops, weights = [], [], []
    for weight, (dy, dx) in zip(pairwise.detach().cpu().double().numpy(), OFFSETS, strict=False):
        here, there = _ends(height, width, dy, dx)
        starts.append(index[here].ravel())
        stops.append(index[there].ravel())
        weights.append(np.rint(scale * weight[here].ravel()))
    i, j, w = (np.concatenate(parts) for parts in (starts, stops, weights))
    if w.max(initial=0) > LARGEST // 16:  # a pixel has eight edges, and every edge two directions
        most = LARGEST // 16 / scale
        raise ValueError(f"pairwise reaches {w.max() / scale:g}, expected at most {most:g} at this scale")
    size = (height * width, height * width)
    half = sparse.csr_array((w.astype(np.int64), (i, j)), shape=size)
    edges = (half + half.T).tocsr()
    costs = scale * unary.detach().cpu().double().numpy().reshape(2, -1)
    # A forbidden label costs more than all edges of its pixel: none pays that
    forbidden = np.isinf(costs)
    dearer = np.where(forbidden, 0, costs)[::-1] + edges.sum(axis=1) + 1
    return np.rint(np.where(forbidden, dearer, costs)).astype(np.int64), edges


def _check(unary: Tensor, pairwise: Tensor, scale: float) -> None:
    for name, tensor in (("unary", unary), ("pairwise", pairwise)):
        if not tensor.is_floating_point():
            raise TypeError(f"{name} has dtype {tensor.dtype}, expected floating point")
    if unary.ndim != 3 or unary.shape[0] != 2 or unary.numel() == 0:
        raise ValueError(f"unary has shape {tuple(unary.shape)}, expected (2, H, W) with H and W at least 1")
    if pairwise.ndim != 3 or pairwise.shape[0] not in (2, 4) or pairwise.shape[1:] != unary.shape[1:]:
        height, width = unary.shape[1:]
        raise ValueError(
            f"pairwise has shape {tuple(pairwise.shape)}, expected (4, {height}, {width}) or (2, {height}, {width})"
        )
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale is {scale}, expected a positive finite number")
    if not (pairwise.isfinite().all() and pairwise.min() >= 0):
        raise ValueError("pairwise has negative values, inf or NaN, expected finite numbers of at least 0")
    if unary.isnan().any() or unary.isneginf().any() or unary.isposinf().all(dim=0).any():
        raise ValueError("unary has NaN, -inf or a pixel whose two labels are inf, expected one finite cost at least")
    finite = unary[unary.isfinite()].abs().max()
    if finite * scale > 2**53:
        raise ValueError(f"unary reaches {finite:g}, expected at most {2**53 / scale:g} at this scale")


def _cut(edges: sparse.csr_array, gain: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The minimal foreground (N,) bool; gain: cost of background - cost of foreground; known: 1, -1, or 0 if open."""
    # A pixel that gains more than all its edges cost is decided whatever the others are: it leaves the graph, and
    # its edges become part of what its neighbours gain.
    label = known.copy()
    degree = np.asarray(edges.sum(axis=1)).ravel()
    label[(label == 0) & (gain > degree)] = 1
    label[(label == 0) & (gain <= -degree)] = -1
    free = np.flatnonzero(label == 0)
    if len(free):
        rows = edges[free]
        gain = gain[free] + rows @ label.astype(np.int64)
        label[free] = np.where(_source_side(rows[:, free], gain), 1, -1)
    return label > 0


def _source_side(edges: sparse.csr_array, gain: np.ndarray) -> np.ndarray:
    """The maximum flow, and which nodes (N,) the source still reaches when nothing more can flow."""
    nodes = len(gain)
    total = min(gain.clip(0, None).sum(), (-gain).clip(0, None).sum())
    if max(total, np.abs(gain).max()) > LARGEST:
        raise ValueError(f"the flow may reach {total}, expected at most {LARGEST}: take a smaller scale")
    sources, sinks = np.flatnonzero(gain > 0), np.flatnonzero(gain < 0)
    pairs = edges.tocoo()
    tails = np.concatenate([pairs.row, np.full(len(sources), nodes), sinks])
    heads = np.concatenate([pairs.col, sources, np.full(len(sinks), nodes + 1)])
    values = np.concatenate([pairs.data, gain[sources], -gain[sinks]]).astype(np.int32)
    capacity = sparse.csr_matrix((values, (tails, heads)), shape=(nodes + 2, nodes + 2))
    flow = maximum_flow(capacity, nodes, nodes + 1).flow
    residual = (capacity - flow).tocsr()
    residual.eliminate_zeros()
    reached = np.zeros(nodes + 2, bool)
    reached[breadth_first_order(residual, nodes, return_predecessors=False)] = True
    return reached[:nodes]


def _banded(edges: sparse.csr_array, gain: np.ndarray, shape: tuple[int, int], band: int) -> np.ndarray:
    """Lombaert's recursion: cut the image of half the size, enlarge, cut again near the border only."""
    height, width = shape
    if min(shape) <= SMALLEST_SIDE:
        return _cut(edges, gain, np.zeros(len(gain), np.int8))
    half = (-(-height // 2), -(-width // 2))
    rows, columns = np.indices(shape) // 2
    parent = (rows * half[1] + columns).ravel()
    merge = sparse.csr_array((np.ones(len(gain), np.int64), (np.arange(len(gain)), parent)))
    coarse = (merge.T @ edges @ merge).tocsr()  # capacities between two blocks add up
    coarse.setdiag(0)
    coarse.eliminate_zeros()
    guess = _banded(coarse, merge.T @ gain, half, band)[parent].reshape(shape)
    square = np.ones((3, 3), bool)
    sure = ndimage.binary_erosion(guess, square, band, border_value=1).astype(np.int8)
    sure -= ndimage.binary_erosion(~guess, square, band, border_value=1)
    return _cut(edges, gain, sure.ravel())


def _result(
    foreground: np.ndarray, costs: np.ndarray, edges: sparse.csr_array, shape: tuple[int, int], scale: float
) -> Cut:
    border = foreground.astype(np.int64) @ (edges @ (~foreground).astype(np.int64))
    energy = int(np.where(foreground, costs[1], costs[0]).sum()) + int(border)
    return Cut(torch.from_numpy(foreground.reshape(shape)), energy / scale)
