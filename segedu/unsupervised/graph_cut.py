"""Graph cut: the best labelling into foreground and background is the cheapest cut of a graph, found exactly.

Paper: Boykov, Jolly, "Interactive Graph Cuts for Optimal Boundary & Region Segmentation of Objects in N-D Images",
    ICCV 2001. Sweep of a bias: Carreira, Sminchisescu, "CPMC: Automatic Object Segmentation Using Constrained
    Parametric Min-Cuts", TPAMI 2012.
Idea: Every pixel pays for its label, and every pair of neighbours that differ pays more the more alike they look.
    Source and sink stand for the two labels and each term is the capacity of an edge, so that a cut between them
    costs as much as its labelling. The cheapest cut equals the largest flow, which is found in polynomial time.
Simplified: two labels. The flow, `segedu.ops.max_flow`, counts in integers, and can only so be exact: terms are rounded
    to 1 / `scale`. CPMC's seeds and its ranking of the cuts are left out.
Shapes: unary (2, H, W) and pairwise (4, H, W) or (2, H, W) -> mask (H, W) bool and the value of the flow.
Quality: flow equal to PyMaxflow's, to the last digit, on the rounded terms (its tests).
    512x512 pixels, eight neighbours: 0.43 CPU-s (PyMaxflow's 1.19).
Course: 02-clustering
Lab: 02_clustering
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from segedu.ops.max_flow import OFFSETS, empty_grid, pair_slices, source_side
from segedu.validation.images import check_image

LARGEST = 2**53  # up to here a float64 has all integers, so that a flow / scale is exact


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
        TypeError: `image` is not a tensor of floats.
        ValueError: `image` has another shape or range, or a parameter is out of its range.
    """
    check_image(image, channels=(1, 3))
    if neighbours not in (4, 8):
        raise ValueError(f"neighbours is {neighbours}, expected 4 or 8")
    if not 0 <= gamma < float("inf"):
        raise ValueError(f"gamma is {gamma}, expected a finite number of at least 0")
    pixels = image.detach().cpu().double()
    _, height, width = pixels.shape
    offsets = OFFSETS[: neighbours // 2]
    contrasts = []
    for dy, dx in offsets:
        here, there = pair_slices(height, width, dy, dx)
        contrasts.append((pixels[:, *here] - pixels[:, *there]).square().sum(dim=0))
    pairs = sum(contrast.numel() for contrast in contrasts)
    mean = sum(float(contrast.sum()) for contrast in contrasts) / max(pairs, 1)
    beta = 1 / (2 * mean) if mean > 0 else 0.0  # one colour everywhere: every border costs the same
    weights = torch.zeros(len(offsets), height, width, dtype=torch.float64)
    for k, (dy, dx) in enumerate(offsets):
        here, _ = pair_slices(height, width, dy, dx)
        weights[k, *here] = gamma / (dy * dy + dx * dx) ** 0.5 * torch.exp(-beta * contrasts[k])
    return weights


def min_cut(unary: Tensor, pairwise: Tensor, scale: float = 1000.0) -> Cut:
    """The labelling x of least energy: sum of unary[x_p, p] over pixels + sum of pairwise where x_p != x_q.

    Among several it is the one of the smallest foreground, which is unique.

    Args:
        unary: (2, H, W), what background (0) and foreground (1) cost at each pixel. `inf` forbids a label.
        pairwise: (4, H, W) or (2, H, W), at least 0: what it costs if a pixel differs from the neighbour to its
            right, below, below right and below left, see `contrast_weights`. Edges out of the image do not count.
        scale: the terms are rounded to multiples of 1 / scale; the cut is exact for the rounded terms.

    Returns:
        Mask and flow. The flow is the energy of the mask, a multiple of 1 / scale.

    Raises:
        TypeError: a tensor is not floating point.
        ValueError: a shape or a value is not one of those above, or the terms together exceed 2^53 / scale.

    >>> unary = torch.tensor([[[5.0, 0.0, 2.0]], [[0.0, 1.0, 3.0]]])  # the middle alone would be background
    >>> chain = torch.tensor([[[2.0, 0.5, 0.0]], [[0.0, 0.0, 0.0]]])
    >>> cut = min_cut(unary, chain)
    >>> cut.mask, cut.flow  # 0 + 1 + 2, and 0.5 for the border
    (tensor([[ True,  True, False]]), 3.5)
    """
    return parametric_cuts(unary, pairwise, [0.0], scale)[0]


def parametric_cuts(unary: Tensor, pairwise: Tensor, biases: Sequence[float], scale: float = 1000.0) -> list[Cut]:
    """CPMC's sweep: foreground becomes cheaper by one bias after the other, and the cuts grow, each in the next.

    A larger bias only widens edges from the source, so that what flows already may flow on: every cut begins where
    the one before has ended.

    Args:
        unary: (2, H, W), see `min_cut`.
        pairwise: (4, H, W) or (2, H, W), see `min_cut`.
        biases: increasing; each is taken off the cost of foreground at every pixel where it is not forbidden.
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
    _check(unary, pairwise, scale)
    costs, weights = _rounded(unary, pairwise, scale, max(abs(biases[0]), abs(biases[-1])))
    forbidden = unary.isinf().numpy(force=True)
    most = 2 * len(weights) * int(weights.max()) + 1  # above all edges of a pixel: none pays that for a forbidden label
    gain = np.where(forbidden.any(axis=0), most * (forbidden[0] - 1 * forbidden[1]), costs[0] - costs[1])
    grid, last, cuts = empty_grid(gain, weights), 0, []
    for bias in biases:
        step, last = round(bias * scale) - last, round(bias * scale)
        costs[1] -= step * ~forbidden[1]
        grid.terminals[1:-1, 1:-1] += step * ~forbidden.any(axis=0)
        foreground = source_side(grid)
        energy = int(np.where(foreground, costs[1], costs[0]).sum()) + _border(foreground, weights)
        cuts.append(Cut(torch.from_numpy(foreground), energy / scale))
    return cuts


def _border(foreground: np.ndarray, weights: np.ndarray) -> int:
    """What the edges between foreground and background cost together."""
    cost = 0
    for weight, (dy, dx) in zip(weights, OFFSETS, strict=False):
        here, there = pair_slices(*foreground.shape, dy, dx)
        cost += int(weight[here][foreground[here] != foreground[there]].sum())
    return cost


def _rounded(unary: Tensor, pairwise: Tensor, scale: float, bias: float) -> tuple[np.ndarray, np.ndarray]:
    """Costs (2, H, W), 0 for a forbidden label, and weights (D, H, W), 0 out of the image: int64, times `scale`."""
    costs = (scale * unary.detach().cpu().double().masked_fill(unary.cpu().isinf(), 0)).round()
    weights = torch.zeros(tuple(pairwise.shape), dtype=torch.float64)
    for k, (dy, dx) in enumerate(OFFSETS[: len(weights)]):
        here, _ = pair_slices(*costs.shape[1:], dy, dx)
        weights[k, *here] = (scale * pairwise[k, *here].detach().cpu().double()).round()
    total = float(costs.abs().sum() + weights.sum()) + scale * bias * costs[0].numel()
    if not total <= LARGEST:
        raise ValueError(
            f"all terms together are {total / scale:g}, expected at most 2^53 / scale, {LARGEST / scale:g}"
        )
    return costs.long().numpy(), weights.long().numpy()


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
