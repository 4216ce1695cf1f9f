"""Region mutual information: how well a 3x3 patch of the prediction explains the same patch of the ground truth.

Zhao et al. 2019 (arXiv 1910.12037). Pixels depend on their neighbours, so each pixel becomes the vector of its region
(9 values). Under a Gaussian model, ``½ log det`` of the covariance of the ground truth that the prediction does not
explain bounds the mutual information from below. It is minimised in addition to the cross-entropy of each class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.overlap import class_masks
from segedu.losses.reduction import full_precision
from segedu.validation.numbers import check_integers, check_number
from segedu.validation.targets import check_logits_and_target


def rmi_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: float = 0.5,
    region: int = 3,
    pool: int = 3,
    ignore_index: int | None = 255,
    eps: float = 1e-6,
) -> Tensor:
    """RMI loss ``λ · BCE + (1 - λ) · Σ_k ½ log det(M_k + ε I) / d``, mean over images (Zhao et al. 2019).

    As in the paper, the classes are independent: ``p = sigmoid(logits)``. BCE is the mean over pixels of the sum over
    classes, maps are first downsampled by average pooling, and d is the length of a region's vector.

    Paper: covariances are means over regions here; a sum instead would add the constant ½ log N. An ignored pixel is 0
    in prediction and target.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the sigmoid.
        target: (B, H, W) int64 classes.
        weight: λ of cross-entropy, in [0, 1].
        region: side of a region, at least 1: d = region².
        pool: size and stride of the average pooling, at least 1 (1: no pooling).
        ignore_index: pixels with this target are excluded.
        eps: ε, added to the diagonals, above 0.

    Returns:
        A scalar. It is negative where the ground truth is explained well: a perfect prediction has ``(1 - λ) K ½ log
        2ε`` (ε is added twice; less where regions hardly vary). If every pixel is ignored, it is ``(1 - λ) K ½ log ε``,
        and its gradient is 0.

    Example:
        The prediction explains nothing: 1x1 regions of variance 1/4 in both classes, ½ log 1/4 each.

        >>> target = torch.tensor([[[0, 1], [1, 0]]])
        >>> rmi_loss(torch.zeros(1, 2, 2, 2), target, weight=0, region=1, pool=1)
        tensor(-1.3863)
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    check_number("weight", weight, maximum=1)
    check_number("eps", eps, exclusive=True)
    check_integers(region=region, pool=pool)
    if logits.ndim != 4 or min(logits.shape[2:]) // pool < region:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)}, expected (B, K, H, W) with H and W of at least"
            f" pool x region = {pool * region}"
        )
    z = full_precision(logits)
    y = class_masks(target, z.shape[1], valid)[0].to(z.dtype)  # (B, K, H, W)
    ce = -(y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z)) * valid[:, None]
    ce = ce.sum() / valid.sum().clamp(min=1)
    p = torch.sigmoid(z) * valid[:, None]
    target_vectors, pred_vectors = (region_vectors(F.avg_pool2d(x, pool), region) for x in (y, p))
    unexplained = half_log_det_unexplained(target_vectors, pred_vectors, eps).to(z.dtype)  # (B, K)
    return weight * ce + (1 - weight) * unexplained.sum(1).mean() / region**2


def region_vectors(maps: Tensor, region: int) -> Tensor:
    """The region x region neighbourhood of each pixel, without padding, as a vector.

    Args:
        maps: (B, K, H, W).
        region: side of a region.

    Returns:
        (B, K, region², N) with N = (H - region + 1)(W - region + 1).

    Example:
        >>> region_vectors(torch.arange(6.0).reshape(1, 1, 2, 3), 2)[0, 0].T
        tensor([[0., 1., 3., 4.],
                [1., 2., 4., 5.]])
    """
    B, K = maps.shape[:2]
    return F.unfold(maps, region).reshape(B, K, region**2, -1)


def half_log_det_unexplained(target: Tensor, preds: Tensor, eps: float) -> Tensor:
    """``½ log det(Σ_Y - Σ_YP (Σ_P + ε I)⁻¹ Σ_YPᵀ + ε I)``, with covariances over N vectors.

    It is computed in float64, because the determinant is a product of tiny values where the ground truth is explained
    well.

    Args:
        target: (..., d, N).
        preds: the same shape.
        eps: ε, above 0.

    Returns:
        (...,) float64, at least ``d · ½ log ε``.

    Example:
        The prediction explains all but ε.

        >>> target = torch.tensor([[0.0, 1.0]])
        >>> half_log_det_unexplained(target, 3 * target, eps=1e-9)  # ½ log(1e-9 (1 + 1/9))
        tensor(-10.3090, dtype=torch.float64)
    """
    y, p = (x.double() - x.double().mean(-1, keepdim=True) for x in (target, preds))
    N, identity = y.shape[-1], torch.eye(y.shape[-2], dtype=torch.float64, device=y.device)
    cov_y, cov_p, cov_py = y @ y.mT / N, p @ p.mT / N, p @ y.mT / N
    root = torch.linalg.cholesky(cov_p + eps * identity)
    explained = torch.linalg.solve_triangular(root, cov_py, upper=False)  # its square is what P explains of Y
    unexplained_root = torch.linalg.cholesky(cov_y - explained.mT @ explained + eps * identity)
    return unexplained_root.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # ½ log det: sum of logs of the root's diagonal
