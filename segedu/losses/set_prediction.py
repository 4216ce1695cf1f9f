"""Classes of a set of predictions: each object is matched with one query, and all other queries predict "no object"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.reduction import full_precision
from segedu.ops.matching import hungarian_matching
from segedu.validation.numbers import check_number

Pairs = list[tuple[Tensor, Tensor]]


def matched_cross_entropy(
    class_logits: Tensor, labels: Sequence[Tensor], costs: Sequence[Tensor], no_object_weight: float = 0.1
) -> tuple[Tensor, Pairs]:
    """Match queries with objects, image by image, and compare the classes that all queries of the batch predict.

    Carion et al. 2020 (arXiv 2005.12872, equation 2); MaskFormer and Mask2Former do the same with masks. In an image
    with more objects than queries, the objects whose matching would cost most have no query.

    Args:
        class_logits: (B, Q, K + 1), "no object" last.
        labels: B tensors (N_i,) int64, from 0 to K - 1; N_i may be 0.
        costs: B tensors (Q, N_i): what each query costs for each object.
        no_object_weight: of a query without an object; all others weigh 1.

    Returns:
        The weighted mean of the cross-entropy, and for each image the indices of the matched queries and of their
        objects.

    Raises:
        TypeError: ``no_object_weight`` is not a number.
        ValueError: there are not B labels and B costs, a weight is negative, or a cost is not finite.

    Example:
        The second query matches the only object. Every logit is 0, so each of the K + 1 = 2 classes has p = 1/2.

        >>> loss, pairs = matched_cross_entropy(
        ...     torch.zeros(1, 2, 2), [torch.tensor([0])], [torch.tensor([[5.0], [1.0]])]
        ... )
        >>> loss, pairs
        (tensor(0.6931), [(tensor([1]), tensor([0]))])
    """
    check_number("no_object_weight", no_object_weight)
    for name, given in (("labels", labels), ("costs", costs)):
        if len(given) != len(class_logits):
            raise ValueError(f"{name} has {len(given)} entries, expected one for each of {len(class_logits)} images")
    logits = full_precision(class_logits)
    classes = logits.shape[-1]
    targets = torch.full(logits.shape[:2], classes - 1, device=logits.device)  # (B, Q): no object
    pairs = [hungarian_matching(cost) for cost in costs]
    for b, (queries, objects) in enumerate(pairs):
        targets[b, queries] = labels[b][objects]
    weights = logits.new_ones(classes)
    weights[-1] = no_object_weight
    # Paper: a sum over queries. The authors' code, and here: a mean that the weights divide.
    return cross_entropy(logits.mT, targets, ignore_index=None, class_weights=weights), pairs
