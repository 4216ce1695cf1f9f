"""Classification loss of a set of predictions: each object has one query, and all other queries predict "no object"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.reduction import full_precision
from segedu.ops.matching import hungarian_matching
from segedu.validation.numbers import check_length, check_number

Pairs = list[tuple[Tensor, Tensor]]


def matched_cross_entropy(
    class_logits: Tensor, labels: Sequence[Tensor], costs: Sequence[Tensor], no_object_weight: float = 0.1
) -> tuple[Tensor, Pairs]:
    """Match queries with objects in each image, and compute the cross-entropy of all queries of the batch.

    Carion et al. 2020 (arXiv 2005.12872, equation 2); MaskFormer and Mask2Former do the same with masks. In an image
    with more objects than queries, the objects that are most expensive to match remain unmatched.

    Args:
        class_logits: (B, Q, K + 1), "no object" last.
        labels: B tensors (N_i,) int64, from 0 to K - 1; N_i may be 0.
        costs: B tensors (Q, N_i), finite: the cost of matching each query with each object.
        no_object_weight: weight of an unmatched query; matched queries have weight 1.

    Returns:
        The weighted mean of the cross-entropy, and for each image the indices of the matched queries and of their
        objects.

    Example:
        The second query matches the only object. Every logit is 0, so each of the K + 1 = 2 classes has p = 1/2.

        >>> loss, pairs = matched_cross_entropy(
        ...     torch.zeros(1, 2, 2), [torch.tensor([0])], [torch.tensor([[5.0], [1.0]])]
        ... )
        >>> loss, pairs
        (tensor(0.6931), [(tensor([1]), tensor([0]))])
    """
    check_number("no_object_weight", no_object_weight)
    check_length("labels", labels, len(class_logits), of="image")
    check_length("costs", costs, len(class_logits), of="image")
    logits = full_precision(class_logits)
    classes = logits.shape[-1]
    targets = torch.full(logits.shape[:2], classes - 1, device=logits.device)  # (B, Q): no object
    pairs = [hungarian_matching(cost) for cost in costs]
    for b, (queries, objects) in enumerate(pairs):
        targets[b, queries] = labels[b][objects]
    weights = logits.new_ones(classes)
    weights[-1] = no_object_weight
    # Paper: a sum over queries. The authors' code and ours divide it by the sum of the weights.
    return cross_entropy(logits.mT, targets, ignore_index=None, class_weights=weights), pairs
