"""Conditional boundary loss: at an edge, features go to the centre of their own class nearby, away from the other's.

Wu et al. 2023 (IEEE Transactions on Image Processing 32). It works on features, not on scores, and each pixel at a
true boundary has a goal of its own, made from the pixels around it that are classified right.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.reduction import full_precision
from segedu.validation.numbers import check_number
from segedu.validation.targets import check_logits_and_target


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
    """``pull · mean |f_i - c_i|² + push · mean contrast_i`` over pixels i at true boundaries, with |f| = 1.

    Around each boundary pixel i (one whose window holds another class) lie its positives j (same class) and its
    negatives n (other classes), in a window, and of both only those classified right. ``c_i`` is the mean of
    the positives' features (the local class centre); the contrast is the mean over positives of
    ``-log(e^{f_i·f_j/τ} / (e^{f_i·f_j/τ} + Σ_n e^{f_i·f_n/τ}))``.

    Paper: the terms are its A2C (anchor to centre) and A2P&N (anchor to positives and negatives). What its summary
    leaves open we chose: features of length 1, the squared distance for the first term and the contrast with a
    temperature for the second, means over the boundary pixels that have what a term needs (a positive; a positive and
    a negative). The pixel itself is none of its positives. No gradient flows into centres: they are the goal. Weights
    of both terms are 1.

    Args:
        features: (B, D, H, W) floats, from which the logits are made, at their size.
        logits: (B, K, H, W) scores of K >= 2 classes: they decide which pixels are right, and get no gradient.
        target: (B, H, W) int64 true classes.
        window: side of the window, odd, at least 3.
        temperature: τ, above 0.
        pull: weight of the first term, at least 0.
        push: weight of the second term, at least 0.
        ignore_index: pixels with this target are no anchors, positives or negatives.

    Returns:
        A scalar of at least 0; 0 with no gradient where no boundary pixel has a right neighbour.

    Raises:
        TypeError: an argument is not of the right kind.
        ValueError: a shape, a class or a number is not one of those above; an empty batch.

    Example:
        Four pixels in a row, all right, features of each class equal, at a right angle: pulled fully; each of the two
        pixels at the edge (window 3) has one positive and one negative: log(1 + e^-1).

        >>> target = torch.tensor([[[0, 0, 1, 1]]])
        >>> features = torch.stack([1 - target, target], dim=1).float()
        >>> conditional_boundary_loss(features, features, target, window=3, temperature=1.0)
        tensor(0.3133)
    """
    counted = check_logits_and_target(logits, target, ignore_index)
    for value, name, above in ((temperature, "temperature", True), (pull, "pull", False), (push, "push", False)):
        check_number(name, value, exclusive=above)
    _check_features(features, logits, window)
    f = F.normalize(full_precision(features), dim=1)  # (B, D, H, W)
    right = counted & (logits.argmax(1) == target)
    around = _windows(f, window)  # (B, D, W², P)
    labels, usable, in_image = (_windows(x[:, None].to(f.dtype), window)[:, 0] for x in (target, right, counted))
    own = target.flatten(1)[:, None]
    same, other = labels == own, (labels != own) & in_image.bool()
    anchors = counted.flatten(1) & other.any(1)  # (B, P): true boundary
    itself = torch.arange(window**2, device=target.device).reshape(1, -1, 1) == window**2 // 2
    positive = same & usable.bool() & ~itself & anchors[:, None]  # (B, W², P)
    negative = other & usable.bool() & anchors[:, None]
    f = f.flatten(2)  # (B, D, P)
    centre = (around.detach() * positive[:, None]).sum(2) / positive.sum(1)[:, None].clamp(min=1)
    has_centre = positive.any(1)
    distance = ((f - centre) ** 2).sum(1)
    similarity = (f[:, :, None] * around).sum(1) / temperature  # (B, W², P)
    contrast, has_both = _contrast(similarity, positive, negative)
    pulled = (distance * has_centre).sum() / has_centre.sum().clamp(min=1)
    return pull * pulled + push * (contrast * has_both).sum() / has_both.sum().clamp(min=1)


def _contrast(similarity: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over positives of -log softmax against all negatives, and where there are both; (B, P) each."""
    against = torch.where(negative, similarity, -1e30).logsumexp(1, keepdim=True)
    each = F.softplus(against - torch.where(positive, similarity, 0.0))
    has_both = positive.any(1) & negative.any(1)
    return torch.where(positive, each, 0.0).sum(1) / positive.sum(1).clamp(min=1), has_both


def _windows(maps: Tensor, window: int) -> Tensor:
    """(B, C, H, W) -> (B, C, window², P): the surroundings of each pixel, 0 outside the image."""
    B, C = maps.shape[:2]
    return F.unfold(maps, window, padding=window // 2).reshape(B, C, window**2, -1)


def _check_features(features: Tensor, logits: Tensor, window: int) -> None:
    if not isinstance(features, Tensor) or not features.is_floating_point():
        raise TypeError(f"features has type {type(features).__name__}, expected a torch.Tensor of floats")
    same_maps = features.shape[:1] == logits.shape[:1] and features.shape[2:] == logits.shape[2:]
    if logits.ndim != 4 or features.ndim != 4 or features.shape[1] == 0 or not same_maps:
        raise ValueError(
            f"features has shape {tuple(features.shape)}, expected (B, D, H, W) for logits {tuple(logits.shape)}"
        )
    if isinstance(window, bool) or not isinstance(window, int):
        raise TypeError(f"window has type {type(window).__name__}, expected an int")
    if window < 3 or window % 2 == 0:
        raise ValueError(f"window is {window}, expected an odd number of at least 3")
