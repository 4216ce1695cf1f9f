"""Robust T-loss: all errors of an image follow one Student-t distribution, whose heavy tails tolerate wrong labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segedu.losses.overlap import class_probabilities
from segedu.validation.numbers import check_number


def robust_t_loss(
    logits: Tensor,
    target: Tensor,
    nu: Tensor | float = 1.0,
    *,
    ignore_index: int | None = 255,
    include_background: bool = False,
) -> Tensor:
    """Negative log-likelihood of the errors ``δ = y - p`` of an image under a Student-t of D dimensions, Σ = I.

    Gonzalez-Jimenez et al. 2023 (arXiv 2306.00753):

        ``log Γ(ν/2) - log Γ((ν+D)/2) + (D/2) log(πν) + ((ν+D)/2) log(1 + |δ|²/ν)``

    The squared errors are inside a logarithm, so twice as many wrong labels cost far less than twice as much. A small ν
    means heavy tails; a large ν gives the squared error. ν is learnt with the network: pass a tensor that requires a
    gradient and stays above 0 (the paper learns its logarithm).

    Paper: two classes, so δ is of the foreground. For K classes we take the maps of classes 1 to K - 1 as one vector (D
    = pixels that are not ignored, times K - 1).

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        nu: ν, above 0: a number or a tensor with one element.
        ignore_index: pixels with this target are not part of δ.
        include_background: the map of class 0 is part of δ too.

    Returns:
        A scalar, mean over images, not divided by D. It can be negative, because it includes the constant of the
        density, which learning ν requires. An image that is ignored entirely has loss 0.

    Example:
        One pixel, δ = 1/2, ν = 1 (Cauchy): log π + log(1 + 1/4).

        >>> robust_t_loss(torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1).long())
        tensor(1.3679)
    """
    p, y = class_probabilities(logits, target, ignore_index)  # (B, K, P)
    first = 0 if include_background else 1
    if isinstance(nu, Tensor):
        check_number("nu", nu.item() if nu.numel() == 1 else math.nan, exclusive=True)
        nu = nu.reshape(())
    else:
        check_number("nu", nu, exclusive=True)
        nu = p.new_tensor(nu)
    nu = nu.double()  # in float32, log Γ of a million has no precision left
    squares = ((y - p)[:, first:] ** 2).sum((1, 2)).double()  # (B,)
    size = y.sum((1, 2)).double() * (p.shape[1] - first)  # (B,): D
    half = (nu + size) / 2
    normaliser = torch.lgamma(nu / 2) - torch.lgamma(half) + size / 2 * torch.log(math.pi * nu)
    return (normaliser + half * torch.log1p(squares / nu)).mean().to(p.dtype)
