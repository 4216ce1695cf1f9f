"""Boundary-aware loss: a network says how far each pixel is from the edge, and discs of that size are the mask.

Hayder et al. 2017 (arXiv 1612.03129). A mask that is predicted pixel by pixel ends where its box ends. A truncated
distance says of a pixel "the object goes on at least so far", so that the mask can reach beyond a wrong box.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.distance_maps import distance_inside
from segedu.losses.reduction import full_precision, reduce_loss
from segedu.validation.targets import check_logits, check_soft_target

SMALLEST = 1e-30  # of a probability in a logarithm; float32 ends at 1e-38


def boundary_aware_loss(logits: Tensor, target: Tensor, *, ignore_index: int | None = 255) -> Tensor:
    """Binary cross-entropy of the mask decoded from distances, which are N + 1 classes.

    Class n of a pixel says that its truncated distance is n: 0 outside the object, n pixels from the nearest pixel
    outside it (rounded up), and N or more for the last. The mask is the union of the discs of all pixels; a disc of
    distance n covers the pixels nearer than n.

    Paper: distances fall into K bins of the range 0 to R; here a bin is one pixel wide, so R = K = N. The paper joins
    the discs by a sum and a sigmoid, with a learnt residual network behind; we join probabilities as independent
    events, ``1 - Π (1 - b_n)``, which needs no weights and is exact where distances are certain. For the bins
    themselves take ``cross_entropy(logits, truncated_distance(target, N))``.

    Args:
        logits: (B, N + 1, H, W) scores of distances 0 to N, N >= 1, before the softmax.
        target: (B, H, W) true masks: 0 and 1 as bools or integers.
        ignore_index: pixels with this target do not count and cast no disc.

    Returns:
        A scalar of at least 0, mean over pixels. A pixel in no disc of a probability above 1e-30 costs 69 at most. If
        no pixel counts it is 0 and so is its gradient.

    Raises:
        TypeError: an argument is not a tensor of the right kind.
        ValueError: the shapes do not fit, a target is not in [0, 1], or the batch is empty.

    Example:
        Both pixels are in the object with p = 1/2 (distance 1), and discs of distance 1 cover their own pixel: log 2.

        >>> boundary_aware_loss(torch.zeros(1, 2, 1, 2), torch.ones(1, 1, 2).long())
        tensor(0.6931)
    """
    counted = check_distance_logits(logits, target, ignore_index)
    log_outside = log_uncovered(logits, counted)  # (B, H, W)
    mask = torch.where(counted, target, 0).to(log_outside.dtype)
    inside = -torch.expm1(log_outside)
    loss = -(mask * inside.clamp(min=SMALLEST).log() + (1 - mask) * log_outside)
    return reduce_loss(loss, counted.to(loss.dtype), "mean")


def decode_distances(logits: Tensor) -> Tensor:
    """Soft mask of distances: the probability that a pixel is in the disc of at least one pixel.

    Args:
        logits: (B, N + 1, H, W) scores of distances 0 to N.

    Returns:
        (B, H, W) in [0, 1].

    Raises:
        TypeError: ``logits`` are no floats.
        ValueError: there are not two classes at least, or no pixel.

    Example:
        Only the middle pixel is sure to be 2 from the edge: its disc covers its neighbours.

        >>> logits = torch.tensor([[9e9, 0, 0], [9e9, 0, 0], [0, 0, 9e9], [9e9, 0, 0], [9e9, 0, 0]])
        >>> decode_distances(logits.T.reshape(1, 3, 1, 5))
        tensor([[[0., 1., 1., 1., 0.]]])
    """
    check_distance_logits(logits, logits.detach()[:, 0] * 0 if isinstance(logits, Tensor) else logits, None)
    return 1 - log_uncovered(logits, torch.ones_like(logits[:, 0], dtype=torch.bool)).exp()


def truncated_distance(target: Tensor, largest: int) -> Tensor:
    """Distance of each pixel of a mask to the nearest pixel outside, rounded up, N at most.

    Args:
        target: (B, H, W) masks, 0 and 1.
        largest: N, at least 1.

    Returns:
        (B, H, W) int64, 0 outside the mask. A mask that fills its image is N everywhere: it is taken to go on.

    Raises:
        ValueError: N is below 1.

    Example:
        >>> truncated_distance(torch.tensor([[[0, 1, 1, 1, 1]]]), largest=3)
        tensor([[[0, 1, 2, 3, 3]]])
    """
    if largest < 1:
        raise ValueError(f"largest is {largest}, expected at least 1")
    masks = target.bool()[:, None]
    distance = torch.where(masks & ~masks.all((2, 3), keepdim=True), distance_inside(masks), largest * masks)
    return distance[:, 0].ceil().clamp(max=largest).long()


def log_uncovered(logits: Tensor, counted: Tensor) -> Tensor:
    """Logarithm of the probability that no disc covers a pixel.

    Args:
        logits: (B, N + 1, H, W) scores of distances 0 to N.
        counted: (B, H, W) bool; other pixels cast no disc.

    Returns:
        (B, H, W), at most 0.

    Example:
        >>> log_uncovered(torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1).bool())  # log 1/2
        tensor([[[-0.6931]]])
    """
    log_p = torch.log_softmax(full_precision(logits), dim=1)
    total = torch.zeros_like(log_p[:, 0])
    for n in range(1, logits.shape[1]):
        others = torch.cat([log_p[:, :n], log_p[:, n + 1 :]], dim=1).logsumexp(1)  # log(1 - b_n), (B, H, W)
        others = torch.where(counted, others.clamp(max=0), 0.0)
        reach = torch.arange(1 - n, n, device=logits.device)
        disc = (reach[:, None] ** 2 + reach**2 < n * n).to(log_p.dtype)
        total = total + F.conv2d(others[:, None], disc[None, None], padding=n - 1)[:, 0]  # Π becomes Σ
    return total


def check_distance_logits(logits: Tensor, target: Tensor, ignore_index: int | None) -> Tensor:
    """Check scores of distances against masks, and find the pixels that count.

    Args:
        logits: (B, N + 1, H, W), N >= 1.
        target: (B, H, W), 0 to 1.
        ignore_index: pixels with this target do not count.

    Returns:
        (B, H, W) bool.

    Raises:
        TypeError: an argument is not a tensor of the right kind.
        ValueError: the shapes do not fit, a target is not in [0, 1], or the batch is empty.

    Example:
        >>> check_distance_logits(torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 255]]]), 255)
        tensor([[[ True, False]]])
    """
    check_logits(logits)
    if logits.ndim != 4 or logits.shape[1] < 2:
        raise ValueError(f"logits has shape {tuple(logits.shape)}, expected (B, N + 1, H, W) with N of at least 1")
    return check_soft_target(logits[:, 0], target, ignore_index)[1]
