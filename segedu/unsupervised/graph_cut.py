"""Graph cut: the optimal labelling into foreground and background is a minimum cut of a graph, computed exactly.

Paper: Boykov, Jolly, "Interactive Graph Cuts for Optimal Boundary & Region Segmentation of Objects in N-D Images",
    ICCV 2001. Sweep of a bias: Carreira, Sminchisescu, "CPMC: Automatic Object Segmentation Using Constrained
    Parametric Min-Cuts", TPAMI 2012.
Idea: The energy of a labelling has a cost for the label of each pixel, and a cost for each pair of neighbours with
    different labels, which is higher the more similar they are. Source and sink represent the two labels and each term
    is the capacity of an edge, so that the capacity of a cut is the energy of its labelling. The minimum cut equals the
    maximum flow, which can be computed in polynomial time.
Simplified: two labels. The flow, `segedu.ops.max_flow`, uses integers, because only then is it exact: terms are rounded
    to 1 / `scale`. The seeds and the ranking of CPMC are not included.
Shapes: unary (2, H, W) and pairwise (4, H, W) or (2, H, W) -> mask (H, W) bool and the value of the flow.
Quality: on the rounded terms, the flow equals PyMaxflow's to the last digit (see the tests). 512x512 pixels, eight
    neighbours: 0.43 s of CPU time (PyMaxflow: 1.19 s).
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
from segedu.validation.numbers import check_choice, check_number
from segedu.validation.tensors import check_floats

LARGEST = 2**53  # a float64 represents all integers up to here, so that a flow / scale is exact


class Cut(NamedTuple):
    """A cut: mask (H, W) bool, True for foreground, and the value of the flow, its energy."""

    mask: Tensor
    flow: float


def contrast_weights(image: Tensor, gamma: float = 50.0, neighbours: int = 8) -> Tensor:
    """Compute edge weights that are small where neighbouring colours differ, so that a cut follows edges of the image.

    The weight of pixels p and q is gamma / |p - q| exp(-beta |I_p - I_q|^2), where 1 / beta is twice the mean of
    |I_p - I_q|^2 over all pairs of neighbours.

    Args:
        image: (3, H, W) or (1, H, W) in [0, 1].
        gamma: cost of a border between two pixels of the same colour, side by side.
        neighbours: 8 or 4.

    Returns:
        (4, H, W) or (2, H, W) float64: weight of the edge to the right, down, down right and down left of each
        pixel; 0 where it leads out of the image.
    """
    check_image(image, channels=(1, 3))
    check_choice("neighbours", neighbours, (4, 8))
    check_number("gamma", gamma)
    pixels = image.detach().cpu().double()
    _, height, width = pixels.shape
    offsets = OFFSETS[: neighbours // 2]
    contrasts = []
    for dy, dx in offsets:
        first, second = pair_slices(height, width, dy, dx)
        contrasts.append((pixels[:, *first] - pixels[:, *second]).square().sum(dim=0))
    pairs = sum(contrast.numel() for contrast in contrasts)
    mean = sum(float(contrast.sum()) for contrast in contrasts) / max(pairs, 1)
    beta = 1 / (2 * mean) if mean > 0 else 0.0  # an image of one colour: all borders have the same cost
    weights = torch.zeros(len(offsets), height, width, dtype=torch.float64)
    for k, (dy, dx) in enumerate(offsets):
        first, _ = pair_slices(height, width, dy, dx)
        weights[k, *first] = gamma / (dy * dy + dx * dx) ** 0.5 * torch.exp(-beta * contrasts[k])
    return weights


def min_cut(unary: Tensor, pairwise: Tensor, scale: float = 1000.0) -> Cut:
    """Find the labelling x of minimum energy: sum of unary[x_p, p] over pixels + sum of pairwise where x_p != x_q.

    If several are minimal, it is the one with the smallest foreground, which is unique.

    Args:
        unary: (2, H, W), the cost of the labels background (0) and foreground (1) at each pixel. `inf` forbids a label.
        pairwise: (4, H, W) or (2, H, W), at least 0: the cost of a label that differs from that of the neighbour to the
            right, below, below right and below left, see `contrast_weights`. Edges out of the image do not count.
        scale: the terms are rounded to multiples of 1 / scale; the cut is exact for the rounded terms.

    Returns:
        Mask and flow. The flow is the energy of the mask, a multiple of 1 / scale.

    Raises:
        ValueError: the terms together exceed 2^53 / scale, or both labels of a pixel are forbidden.

    >>> unary = torch.tensor([[[5.0, 0.0, 2.0]], [[0.0, 1.0, 3.0]]])  # alone, the middle would be background
    >>> chain = torch.tensor([[[2.0, 0.5, 0.0]], [[0.0, 0.0, 0.0]]])
    >>> cut = min_cut(unary, chain)
    >>> cut.mask, cut.flow  # 0 + 1 + 2, and 0.5 for the border
    (tensor([[ True,  True, False]]), 3.5)
    """
    return parametric_cuts(unary, pairwise, [0.0], scale)[0]


def parametric_cuts(unary: Tensor, pairwise: Tensor, biases: Sequence[float], scale: float = 1000.0) -> list[Cut]:
    """CPMC's sweep: one cut for each of several increasing biases towards foreground; each cut contains the one before.

    A larger bias only increases capacities from the source, so that the previous flow remains valid and the next one
    starts from it.

    Args:
        unary: (2, H, W), see `min_cut`.
        pairwise: (4, H, W) or (2, H, W), see `min_cut`.
        biases: increasing; each is subtracted from the cost of foreground at every pixel where it is not forbidden.
        scale: see `min_cut`.

    Returns:
        One cut for each bias; its flow is the energy with that bias, which may be negative.
    """
    biases = [float(bias) for bias in biases]
    if not biases or not np.isfinite(biases).all() or any(a > b for a, b in zip(biases, biases[1:], strict=False)):
        raise ValueError(f"biases is {biases}, expected one or more finite numbers in increasing order")
    _check(unary, pairwise, scale)
    costs, weights = _rounded(unary, pairwise, scale, max(abs(biases[0]), abs(biases[-1])))
    forbidden = unary.isinf().numpy(force=True)
    prohibitive = 2 * len(weights) * int(weights.max()) + 1  # more than all edges of a pixel together
    gain = np.where(forbidden.any(axis=0), prohibitive * (forbidden[0] - 1 * forbidden[1]), costs[0] - costs[1])
    grid, previous, cuts = empty_grid(gain, weights), 0, []
    for bias in biases:
        step, previous = round(bias * scale) - previous, round(bias * scale)
        costs[1] -= step * ~forbidden[1]
        grid.terminals[1:-1, 1:-1] += step * ~forbidden.any(axis=0)
        foreground = source_side(grid)
        energy = int(np.where(foreground, costs[1], costs[0]).sum()) + _border(foreground, weights)
        cuts.append(Cut(torch.from_numpy(foreground), energy / scale))
    return cuts


def _border(foreground: np.ndarray, weights: np.ndarray) -> int:
    """Total cost of the edges between foreground and background."""
    cost = 0
    for weight, (dy, dx) in zip(weights, OFFSETS, strict=False):
        first, second = pair_slices(*foreground.shape, dy, dx)
        cost += int(weight[first][foreground[first] != foreground[second]].sum())
    return cost


def _rounded(unary: Tensor, pairwise: Tensor, scale: float, bias: float) -> tuple[np.ndarray, np.ndarray]:
    """Costs (2, H, W), 0 for a forbidden label, and weights (D, H, W), 0 out of the image: int64, times `scale`."""
    costs = (scale * unary.detach().cpu().double().masked_fill(unary.cpu().isinf(), 0)).round()
    weights = torch.zeros(tuple(pairwise.shape), dtype=torch.float64)
    for k, (dy, dx) in enumerate(OFFSETS[: len(weights)]):
        first, _ = pair_slices(*costs.shape[1:], dy, dx)
        weights[k, *first] = (scale * pairwise[k, *first].detach().cpu().double()).round()
    total = float(costs.abs().sum() + weights.sum()) + scale * bias * costs[0].numel()
    if not total <= LARGEST:
        raise ValueError(
            f"unary and pairwise add up to {total / scale:g}, expected at most 2^53 / scale, {LARGEST / scale:g}"
        )
    return costs.long().numpy(), weights.long().numpy()


def _check(unary: Tensor, pairwise: Tensor, scale: float) -> None:
    sizes = check_floats("unary", unary, "2 H W")
    check_floats("pairwise", pairwise, "2|4 H W", sizes)
    check_number("scale", scale, exclusive=True)
    if not (pairwise.isfinite().all() and pairwise.min() >= 0):
        raise ValueError("pairwise contains negative values, infinity or NaN, expected finite numbers of at least 0")
    if unary.isnan().any() or unary.isneginf().any() or unary.isposinf().all(dim=0).any():
        raise ValueError("unary has NaN, -inf or a pixel whose two labels are inf, expected at least one finite cost")
