"""Active boundary loss: moves each pixel of the predicted boundary towards the ground-truth boundary.

Wang et al. 2021 (arXiv 2102.02696). Predicted boundaries are where the class probabilities of neighbours differ most.
Each boundary pixel should move to the neighbour with the smallest distance to the ground-truth boundary. This becomes
differentiable as a cross-entropy over the neighbours, whose logits are the KL divergences to each neighbour.
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
from segedu.validation.tensors import check_floats

NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def active_boundary_loss(
    logits: Tensor,
    target: Tensor,
    *,
    boundary_fraction: float = 0.01,
    max_distance: float = 20.0,
    smoothing: float = 0.2,
    detach_neighbours: bool = True,
    ignore_index: int | None = 255,
) -> Tensor:
    """Active boundary loss ``mean Λ(M_i) CE(D_p, D_g)`` over the pixels i of the predicted boundary (Wang et al. 2021).

    M is the distance to the ground-truth boundary; ``Λ(M) = min(M, θ)/θ`` is 0 for pixels on it. D_g points to the
    neighbour (of 8) with the smallest M, D_p is the softmax over neighbours j of ``KL(P_i, P_j)``. The loss is used in
    addition to cross-entropy (and Lovász): alone, it does not depend on what the classes are.

    Paper: a pixel is on the predicted boundary if its divergence to the right or lower neighbour exceeds a threshold
    that 1 % of the pixels pass. We take exactly that fraction of each image, at least one pixel, and no pixel of
    divergence 0. If several neighbours are equally near, the first is used. As in the paper, neighbours get no
    gradient, to avoid conflicts, and the direction is smoothed, because it is noisy.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax.
        target: (B, H, W) int64 classes.
        boundary_fraction: fraction of an image's pixels that form the predicted boundary, above 0 and at most 1.
        max_distance: θ in pixels, above 0.
        smoothing: label smoothing of the direction, in [0, 1].
        detach_neighbours: whether the neighbours of a boundary pixel get no gradient.
        ignore_index: pixels with this target are neither boundary nor neighbour.

    Returns:
        A scalar of at least 0. It is 0 without a gradient if there is no ground-truth or no predicted boundary.

    Example:
        The predicted boundary is pixel 1, whose divergence to the right is 0.3681 and to the left 0. The ground-truth
        boundary is 2 pixels to the right: Λ = 2/20, and the softmax of moving right is e^0.3681 / (1 + e^0.3681).

        >>> p = torch.tensor([0.9, 0.9, 0.5, 0.5, 0.5, 0.5])
        >>> logits = torch.stack([p, 1 - p]).log().reshape(1, 2, 1, 6)
        >>> active_boundary_loss(logits, torch.tensor([[[0, 0, 0, 0, 1, 1]]]), smoothing=0)
        tensor(0.0526)
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    check_number("boundary_fraction", boundary_fraction, maximum=1, exclusive=True)
    check_number("max_distance", max_distance, exclusive=True)
    check_number("smoothing", smoothing, maximum=1)
    check_floats("logits", logits, "B K H W")
    log_p = torch.log_softmax(full_precision(logits), dim=1)
    divergence, is_neighbour = neighbour_divergence(log_p, valid, detach_neighbours)  # (B, 8, H, W)
    distance = distance_to_boundary(target, valid)  # (B, H, W), infinite without a boundary
    valid_neighbours = is_neighbour & distance.isfinite()[:, None]
    on_boundary = predicted_boundary(divergence.detach(), valid, boundary_fraction) & valid_neighbours.any(1)
    weight = on_boundary * distance.clamp(max=max_distance).to(log_p.dtype) / max_distance
    neighbour_distance = torch.stack([_shift(distance, dy, dx, math.inf) for dy, dx in NEIGHBOURS], dim=1)
    direction = torch.where(valid_neighbours, neighbour_distance, math.inf).argmin(1, keepdim=True)  # (B, 1, H, W)
    log_q = torch.where(valid_neighbours, divergence, -1e30).log_softmax(1)
    nearest, total = log_q.gather(1, direction)[:, 0], torch.where(valid_neighbours, log_q, 0.0).sum(1)
    num_others = (valid_neighbours.sum(1) - 1).clamp(min=1)
    smooth = smoothing * (valid_neighbours.sum(1) > 1).to(log_p.dtype)  # a single neighbour cannot be smoothed
    loss = -((1 - smooth) * nearest + smooth / num_others * (total - nearest))
    return (weight * torch.where(on_boundary, loss, 0.0)).sum() / on_boundary.sum().clamp(min=1)


def neighbour_divergence(log_p: Tensor, valid: Tensor, detach_neighbours: bool = False) -> tuple[Tensor, Tensor]:
    """``KL(P_i, P_j)`` of each pixel to its 8 neighbours.

    Args:
        log_p: (B, K, H, W) log-probabilities.
        valid: (B, H, W) bool; other pixels are not neighbours.
        detach_neighbours: whether P_j gets no gradient.

    Returns:
        (B, 8, H, W) divergences in the order of ``NEIGHBOURS``, and a bool mask of that shape that is False where there
        is no neighbour. Divergences are 0 there.

    Example:
        The KL divergence of (0.9, 0.1) to (0.5, 0.5), its right neighbour.

        >>> log_p = torch.tensor([[0.9, 0.5], [0.1, 0.5]]).log().reshape(1, 2, 1, 2)
        >>> neighbour_divergence(log_p, torch.ones(1, 1, 2).bool())[0][0, 4]
        tensor([[0.3681, 0.0000]])
    """
    p, log_p_neighbours = log_p.exp(), log_p.detach() if detach_neighbours else log_p
    divergences, valid_neighbours = [], []
    for dy, dx in NEIGHBOURS:
        is_neighbour = _shift(valid, dy, dx, False) & valid
        difference = torch.where(is_neighbour[:, None], log_p - _shift(log_p_neighbours, dy, dx, 0.0), 0.0)
        divergences.append((p * difference).sum(1))
        valid_neighbours.append(is_neighbour)
    return torch.stack(divergences, dim=1), torch.stack(valid_neighbours, dim=1)


def predicted_boundary(divergence: Tensor, valid: Tensor, boundary_fraction: float) -> Tensor:
    """The pixels of each image that differ most from their right or lower neighbour.

    Args:
        divergence: (B, 8, H, W) of ``neighbour_divergence``.
        valid: (B, H, W) bool, False where ignored.
        boundary_fraction: fraction of the pixels that are not ignored; rounded down, at least one.

    Returns:
        (B, H, W) bool. Pixels of divergence 0 are excluded; ties with the last pixel are included.

    Example:
        >>> divergence = torch.zeros(1, 8, 1, 3)
        >>> divergence[0, 4, 0, 1] = 0.7  # the middle pixel to its right neighbour
        >>> predicted_boundary(divergence, torch.ones(1, 1, 3).bool(), boundary_fraction=0.5)
        tensor([[[False,  True, False]]])
    """
    right, below = (divergence[:, NEIGHBOURS.index(step)] for step in ((0, 1), (1, 0)))
    largest = torch.where(valid, torch.maximum(right, below), 0.0).flatten(1)
    num_kept = (valid.flatten(1).sum(1) * boundary_fraction).long().clamp(min=1)
    threshold = largest.sort(dim=1, descending=True).values.gather(1, num_kept[:, None] - 1)
    return ((largest >= threshold) & (largest > 0)).reshape(valid.shape)


def distance_to_boundary(target: Tensor, valid: Tensor) -> Tensor:
    """Distance of each pixel to the nearest pixel whose right or lower neighbour is of another class.

    Args:
        target: (B, H, W) int64.
        valid: (B, H, W) bool, False where ignored; ignored pixels form no boundary.

    Returns:
        (B, H, W) float64, infinite in an image without a boundary.

    Example:
        >>> distance_to_boundary(torch.tensor([[[0, 0, 1, 1]]]), torch.ones(1, 1, 4).bool())
        tensor([[[1., 0., 1., 2.]]], dtype=torch.float64)
    """
    edge = torch.zeros_like(valid)
    for dy, dx in ((0, 1), (1, 0)):
        both = valid & _shift(valid, dy, dx, False)
        edge |= both & (target != _shift(target, dy, dx, 0))
    distance = distance_inside(~edge[:, None])[:, 0]
    return torch.where(edge.any((1, 2), keepdim=True), distance, math.inf)


def _shift(maps: Tensor, dy: int, dx: int, fill: float) -> Tensor:
    """The value of the neighbour at (dy, dx), ``fill`` outside the image."""
    H, W = maps.shape[-2:]
    return F.pad(maps, (1, 1, 1, 1), value=fill)[..., 1 + dy : 1 + dy + H, 1 + dx : 1 + dx + W]
