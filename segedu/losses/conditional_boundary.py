"""Conditional boundary loss: at boundaries, pulls features towards their own class and pushes them away from others.

Wu et al. 2023 (IEEE Transactions on Image Processing 32). The loss is applied to features, not to logits. Each pixel at
a ground-truth boundary has its own goal, computed from the correctly classified pixels around it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.reduction import full_precision
from segedu.validation.numbers import check_integer, check_number
from segedu.validation.targets import check_logits_and_target
from segedu.validation.tensors import check_floats


def conditional_boundary_loss(
    features: Tensor,
    logits: Tensor,
    target: Tensor,
    *,
    window: int = 5,
    temperature: float = 0.1,
    pull: float = 1.0,
    push: float = 1.0,
    ignore_index: int | None = 255,
) -> Tensor:
    """Conditional boundary loss ``pull · mean |f_i - c_i|² + push · mean contrast_i`` with |f| = 1.

    The means are over boundary pixels i. A boundary pixel i has another class in the window around it. The correctly
    classified pixels in its window are its positives j (same class) and its negatives n (other classes). ``c_i`` is the
    mean of the positives' features (the local class centre). The contrast is the mean over positives of
    ``-log(e^{f_i·f_j/τ} / (e^{f_i·f_j/τ} + Σ_n e^{f_i·f_n/τ}))``.

    Paper: the terms are its A2C (anchor to centre) and A2P&N (anchor to positives and negatives). Its summary leaves
    some details open, which we chose: features of length 1, the squared distance for the first term and the contrast
    with a temperature for the second, and means over the boundary pixels that have what a term needs (a positive; a
    positive and a negative). A pixel is not its own positive. Centres get no gradient, because they are the goal. Both
    terms have weight 1.

    Args:
        features: (B, D, H, W) floats, from which the logits are computed.
        logits: (B, K, H, W) with K >= 2 classes; they only select the correctly classified pixels, and get no gradient.
        target: (B, H, W) int64 classes.
        window: side of the window, odd, at least 3.
        temperature: τ, above 0.
        pull: weight of the first term, at least 0.
        push: weight of the second term, at least 0.
        ignore_index: pixels with this target are not anchors, positives or negatives.

    Returns:
        A scalar of at least 0; 0 without a gradient if no boundary pixel has a positive.

    Example:
        Four pixels in a row, all classified correctly, with equal features in each class, orthogonal between classes.
        The first term is 0. Each of the two boundary pixels (window 3) has one positive and one negative:
        log(1 + e^-1).

        >>> target = torch.tensor([[[0, 0, 1, 1]]])
        >>> features = torch.stack([1 - target, target], dim=1).float()
        >>> conditional_boundary_loss(features, features, target, window=3, temperature=1.0)
        tensor(0.3133)
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    check_number("temperature", temperature, exclusive=True)
    check_number("pull", pull)
    check_number("push", push)
    check_floats("features", features, "B D H W", check_floats("logits", logits, "B K H W"))
    check_integer("window", window, minimum=3)
    if window % 2 == 0:
        raise ValueError(f"window is {window}, expected an odd integer")
    f = F.normalize(full_precision(features), dim=1)  # (B, D, H, W)
    correct = valid & (logits.argmax(1) == target)
    neighbours = _windows(f, window)  # (B, D, W², P)
    labels, usable, in_image = (_windows(x[:, None].to(f.dtype), window)[:, 0] for x in (target, correct, valid))
    own_label = target.flatten(1)[:, None]
    same, other = labels == own_label, (labels != own_label) & in_image.bool()
    anchors = valid.flatten(1) & other.any(1)  # (B, P): ground-truth boundary
    is_self = torch.arange(window**2, device=target.device).reshape(1, -1, 1) == window**2 // 2
    positive = same & usable.bool() & ~is_self & anchors[:, None]  # (B, W², P)
    negative = other & usable.bool() & anchors[:, None]
    f = f.flatten(2)  # (B, D, P)
    centre = (neighbours.detach() * positive[:, None]).sum(2) / positive.sum(1)[:, None].clamp(min=1)
    has_centre = positive.any(1)
    distance = ((f - centre) ** 2).sum(1)
    similarity = (f[:, :, None] * neighbours).sum(1) / temperature  # (B, W², P)
    contrast, has_both = _contrast(similarity, positive, negative)
    mean_distance = (distance * has_centre).sum() / has_centre.sum().clamp(min=1)
    return pull * mean_distance + push * (contrast * has_both).sum() / has_both.sum().clamp(min=1)


def _contrast(similarity: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over positives of -log softmax against all negatives, and where both exist; (B, P) each."""
    negatives = torch.where(negative, similarity, -1e30).logsumexp(1, keepdim=True)
    loss = F.softplus(negatives - torch.where(positive, similarity, 0.0))
    has_both = positive.any(1) & negative.any(1)
    return torch.where(positive, loss, 0.0).sum(1) / positive.sum(1).clamp(min=1), has_both


def _windows(maps: Tensor, window: int) -> Tensor:
    """(B, C, H, W) -> (B, C, window², P): the window around each pixel, 0 outside the image."""
    B, C = maps.shape[:2]
    return F.unfold(maps, window, padding=window // 2).reshape(B, C, window**2, -1)
