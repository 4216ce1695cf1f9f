"""Boundary-aware loss: masks are decoded from the predicted distance of each pixel to the object's edge.

Hayder et al. 2017 (arXiv 1612.03129). A mask that is predicted pixel by pixel inside a box ends where the box ends. A
truncated distance means "the object continues at least this far", so the mask can reach beyond a wrong box.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.distance_maps import distance_inside
from segedu.losses.reduction import full_precision, reduce_loss
from segedu.validation.numbers import check_integer
from segedu.validation.targets import check_soft_target
from segedu.validation.tensors import check_floats

EPS = 1e-30  # smallest probability in a logarithm; the smallest normal float32 is 1e-38


def boundary_aware_loss(logits: Tensor, target: Tensor, *, ignore_index: int | None = 255) -> Tensor:
    """Binary cross-entropy of the mask that is decoded from predicted distances, which are N + 1 classes.

    Class n of a pixel means that its truncated distance is n: 0 outside the object, n pixels from the nearest pixel
    outside it (rounded up), and N or more for the last class. The mask is the union of the discs of all pixels; the
    disc of distance n covers the pixels nearer than n.

    Paper: distances fall into K bins of the range 0 to R; here a bin is one pixel wide, so R = K = N. The paper joins
    the discs by a sum and a sigmoid, followed by a learnt residual network. We join probabilities as independent
    events, ``1 - Π (1 - b_n)``, which needs no weights and is exact where distances are certain. To train the distances
    themselves, use ``cross_entropy(logits, truncated_distance(target, N))``.

    Args:
        logits: (B, N + 1, H, W) with distances 0 to N, N >= 1, before the softmax.
        target: (B, H, W) masks: bools, or integers 0 and 1.
        ignore_index: pixels with this target are excluded and have no disc.

    Returns:
        A scalar of at least 0, mean over pixels. A pixel that no disc covers with a probability above 1e-30 costs at
        most 69. If every pixel is ignored, the loss and its gradient are 0.

    Example:
        Both pixels are in the object with p = 1/2 (distance 1), and discs of distance 1 cover their own pixel: log 2.

        >>> boundary_aware_loss(torch.zeros(1, 2, 1, 2), torch.ones(1, 1, 2).long())
        tensor(0.6931)
    """
    _check_distance_logits(logits)
    valid = check_soft_target(logits[:, 0], target, ignore_index)[1]
    log_outside = log_uncovered(logits, valid)  # (B, H, W)
    mask = torch.where(valid, target, 0).to(log_outside.dtype)
    inside = -torch.expm1(log_outside)
    loss = -(mask * inside.clamp(min=EPS).log() + (1 - mask) * log_outside)
    return reduce_loss(loss, valid.to(loss.dtype), "mean")


def decode_distances(logits: Tensor) -> Tensor:
    """Soft mask from distances: the probability that at least one disc covers a pixel.

    Args:
        logits: (B, N + 1, H, W) with distances 0 to N.

    Returns:
        (B, H, W) in [0, 1].

    Example:
        The middle pixel is at distance 2 from the edge, so its disc covers its neighbours.

        >>> logits = torch.tensor([[9e9, 0, 0], [9e9, 0, 0], [0, 0, 9e9], [9e9, 0, 0], [9e9, 0, 0]])
        >>> decode_distances(logits.T.reshape(1, 3, 1, 5))
        tensor([[[0., 1., 1., 1., 0.]]])
    """
    _check_distance_logits(logits)
    return 1 - log_uncovered(logits, torch.ones_like(logits[:, 0], dtype=torch.bool)).exp()


def truncated_distance(target: Tensor, max_distance: int) -> Tensor:
    """Distance of each pixel of a mask to the nearest pixel outside, rounded up and at most N.

    Args:
        target: (B, H, W) masks, 0 and 1.
        max_distance: N, at least 1.

    Returns:
        (B, H, W) int64, 0 outside the mask. A mask that fills its image is N everywhere, as if it continued outside.

    Example:
        >>> truncated_distance(torch.tensor([[[0, 1, 1, 1, 1]]]), max_distance=3)
        tensor([[[0, 1, 2, 3, 3]]])
    """
    check_integer("max_distance", max_distance)
    masks = target.bool()[:, None]
    distance = torch.where(masks & ~masks.all((2, 3), keepdim=True), distance_inside(masks), max_distance * masks)
    return distance[:, 0].ceil().clamp(max=max_distance).long()


def log_uncovered(logits: Tensor, valid: Tensor) -> Tensor:
    """Logarithm of the probability that no disc covers a pixel.

    Args:
        logits: (B, N + 1, H, W) with distances 0 to N.
        valid: (B, H, W) bool; other pixels have no disc.

    Returns:
        (B, H, W), at most 0.

    Example:
        >>> log_uncovered(torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1).bool())  # log 1/2
        tensor([[[-0.6931]]])
    """
    log_p = torch.log_softmax(full_precision(logits), dim=1)
    total = torch.zeros_like(log_p[:, 0])
    for n in range(1, logits.shape[1]):
        log_not_n = torch.cat([log_p[:, :n], log_p[:, n + 1 :]], dim=1).logsumexp(1)  # log(1 - b_n), (B, H, W)
        log_not_n = torch.where(valid, log_not_n.clamp(max=0), 0.0)
        offsets = torch.arange(1 - n, n, device=logits.device)
        disc = (offsets[:, None] ** 2 + offsets**2 < n * n).to(log_p.dtype)
        total = total + F.conv2d(log_not_n[:, None], disc[None, None], padding=n - 1)[:, 0]  # log Π = Σ log
    return total


def _check_distance_logits(logits: Tensor) -> None:
    check_floats("logits", logits)
    if logits.ndim != 4 or logits.shape[1] < 2:
        raise ValueError(f"logits has shape {tuple(logits.shape)}, expected (B, N + 1, H, W) with N of at least 1")
