"""Active boundary loss: each pixel of the predicted boundary is told which of its neighbours to move to.

Wang et al. 2021 (arXiv 2102.02696). Predicted boundaries are where neighbours differ most in their probabilities. The
true boundary has a distance map; the neighbour where it is smallest is the direction. As cross-entropy over the
neighbours, with the difference (KL divergence) to each as its score, this is differentiable.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.distance_maps import distance_inside
from segedu.losses.reduction import full_precision
from segedu.validation.numbers import check_number
from segedu.validation.targets import check_logits_and_target

NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def active_boundary_loss(
    logits: Tensor,
    target: Tensor,
    *,
    share: float = 0.01,
    farthest: float = 20.0,
    smoothing: float = 0.2,
    detach_neighbours: bool = True,
    ignore_index: int | None = 255,
) -> Tensor:
    """``mean Λ(M_i) CE(D_p, D_g)`` over pixels i of the predicted boundary (Wang et al. 2021).

    M is the distance to the true boundary and ``Λ(M) = min(M, θ)/θ``: pixels already there are left alone. D_g points
    to the neighbour (of 8) with the smallest M, D_p is the softmax over neighbours j of ``KL(P_i, P_j)``. The loss is
    an addition to cross-entropy (and Lovász): alone it does not know what the classes are.

    Paper: a pixel is on the predicted boundary if its divergence to the right or lower neighbour is above a threshold
    that lets 1 % of pixels pass; we take exactly that share of each image, one pixel at least, and no pixel of
    divergence 0. Of several nearest neighbours the first counts. The neighbours' gradients are cut, as the paper does
    against conflicts, and the direction is smoothed as it does against noise.

    Args:
        logits: (B, K, H, W) scores of K >= 2 classes, before the softmax.
        target: (B, H, W) int64 true classes.
        share: part of an image's pixels that form the predicted boundary, above 0 and at most 1.
        farthest: θ in pixels, above 0.
        smoothing: what the direction gives up to the other neighbours, in [0, 1].
        detach_neighbours: no gradient to the neighbours of a boundary pixel.
        ignore_index: pixels with this target are no boundary and no neighbour.

    Returns:
        A scalar of at least 0. 0 with no gradient where a true or a predicted boundary is missing.

    Raises:
        TypeError: an argument is not of the right kind.
        ValueError: a shape, a class, ``share``, θ or the smoothing is not one of those above; an empty batch.

    Example:
        Predicted boundary: pixel 1, whose divergence to the right is 0.3681 and to the left 0. The true one is 2
        pixels to the right: Λ = 2/20, and the softmax of going right is e^0.3681 / (1 + e^0.3681).

        >>> p = torch.tensor([0.9, 0.9, 0.5, 0.5, 0.5, 0.5])
        >>> logits = torch.stack([p, 1 - p]).log().reshape(1, 2, 1, 6)
        >>> active_boundary_loss(logits, torch.tensor([[[0, 0, 0, 0, 1, 1]]]), smoothing=0)
        tensor(0.0526)
    """
    counted = check_logits_and_target(logits, target, ignore_index)
    check_number("share", share, maximum=1, exclusive=True)
    check_number("farthest", farthest, exclusive=True)
    check_number("smoothing", smoothing, maximum=1)
    if logits.ndim != 4:
        raise ValueError(f"logits has shape {tuple(logits.shape)}, expected (B, K, H, W)")
    log_p = torch.log_softmax(full_precision(logits), dim=1)
    divergence, is_there = neighbour_divergence(log_p, counted, detach_neighbours)  # (B, 8, H, W)
    distance = distance_to_boundary(target, counted)  # (B, H, W), infinite without a boundary
    there = is_there & distance.isfinite()[:, None]
    on_boundary = predicted_boundary(divergence.detach(), counted, share) & there.any(1)
    weight = on_boundary * distance.clamp(max=farthest).to(log_p.dtype) / farthest
    around = torch.stack([_shift(distance, dy, dx, math.inf) for dy, dx in NEIGHBOURS], dim=1)
    direction = torch.where(there, around, math.inf).argmin(1, keepdim=True)  # (B, 1, H, W)
    log_q = torch.where(there, divergence, -1e30).log_softmax(1)
    chosen, others = log_q.gather(1, direction)[:, 0], torch.where(there, log_q, 0.0).sum(1)
    num_others = (there.sum(1) - 1).clamp(min=1)
    smooth = smoothing * (there.sum(1) > 1).to(log_p.dtype)  # a lone neighbour has no others to give to
    each = -((1 - smooth) * chosen + smooth / num_others * (others - chosen))
    return (weight * torch.where(on_boundary, each, 0.0)).sum() / on_boundary.sum().clamp(min=1)


def neighbour_divergence(log_p: Tensor, counted: Tensor, detach_neighbours: bool = False) -> tuple[Tensor, Tensor]:
    """``KL(P_i, P_j)`` of each pixel to its 8 neighbours.

    Args:
        log_p: (B, K, H, W) log-probabilities.
        counted: (B, H, W) bool: other pixels are no neighbours.
        detach_neighbours: no gradient to P_j.

    Returns:
        (B, 8, H, W) divergences, 0 where there is no neighbour, and a bool map that says where there is one. Order:
        ``NEIGHBOURS``, row by row.

    Example:
        KL of (0.9, 0.1) to (0.5, 0.5), its right neighbour.

        >>> log_p = torch.tensor([[0.9, 0.5], [0.1, 0.5]]).log().reshape(1, 2, 1, 2)
        >>> neighbour_divergence(log_p, torch.ones(1, 1, 2).bool())[0][0, 4]
        tensor([[0.3681, 0.0000]])
    """
    p, other = log_p.exp(), log_p.detach() if detach_neighbours else log_p
    divergences, there = [], []
    for dy, dx in NEIGHBOURS:
        is_there = _shift(counted, dy, dx, False) & counted
        difference = torch.where(is_there[:, None], log_p - _shift(other, dy, dx, 0.0), 0.0)
        divergences.append((p * difference).sum(1))
        there.append(is_there)
    return torch.stack(divergences, dim=1), torch.stack(there, dim=1)


def predicted_boundary(divergence: Tensor, counted: Tensor, share: float) -> Tensor:
    """The pixels of each image that differ most from their right or lower neighbour.

    Args:
        divergence: (B, 8, H, W) of ``neighbour_divergence``.
        counted: (B, H, W) bool.
        share: part of the pixels that count; rounded down, at least one.

    Returns:
        (B, H, W) bool. No pixel of divergence 0 is on it; ties with the last pixel are.

    Example:
        >>> divergence = torch.zeros(1, 8, 1, 3)
        >>> divergence[0, 4, 0, 1] = 0.7  # the middle pixel to its right neighbour
        >>> predicted_boundary(divergence, torch.ones(1, 1, 3).bool(), share=0.5)
        tensor([[[False,  True, False]]])
    """
    right, below = (divergence[:, NEIGHBOURS.index(step)] for step in ((0, 1), (1, 0)))
    largest = torch.where(counted, torch.maximum(right, below), 0.0).flatten(1)
    kept = (counted.flatten(1).sum(1) * share).long().clamp(min=1)
    threshold = largest.sort(dim=1, descending=True).values.gather(1, kept[:, None] - 1)
    return ((largest >= threshold) & (largest > 0)).reshape(counted.shape)


def distance_to_boundary(target: Tensor, counted: Tensor) -> Tensor:
    """Distance of each pixel to the nearest pixel whose right or lower neighbour is of another class.

    Args:
        target: (B, H, W) int64.
        counted: (B, H, W) bool: other pixels are of no class.

    Returns:
        (B, H, W) float64, infinite in an image without a boundary.

    Example:
        >>> distance_to_boundary(torch.tensor([[[0, 0, 1, 1]]]), torch.ones(1, 1, 4).bool())
        tensor([[[1., 0., 1., 2.]]], dtype=torch.float64)
    """
    edge = torch.zeros_like(counted)
    for dy, dx in ((0, 1), (1, 0)):
        both = counted & _shift(counted, dy, dx, False)
        edge |= both & (target != _shift(target, dy, dx, 0))
    distance = distance_inside(~edge[:, None])[:, 0]
    return torch.where(edge.any((1, 2), keepdim=True), distance, math.inf)


def _shift(maps: Tensor, dy: int, dx: int, fill: float) -> Tensor:
    """The value of the neighbour at (dy, dx), ``fill`` outside the image."""
    H, W = maps.shape[-2:]
    return F.pad(maps, (1, 1, 1, 1), value=fill)[..., 1 + dy : 1 + dy + H, 1 + dx : 1 + dx + W]
