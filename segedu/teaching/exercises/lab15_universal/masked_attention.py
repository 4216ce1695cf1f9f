"""masked_attention: each query attends only inside the mask that it predicted."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab15_universal.attention_maps import cases

Size = tuple[int, int]


def masked_attention(queries: Tensor, keys: Tensor, values: Tensor, mask_logits: Tensor, size: Size) -> Tensor:
    """Compute cross-attention as Mask2Former does: each query attends only inside the mask that it predicted so far.

    1. The mask logits are resized to the feature map, bilinearly with align_corners=False, as by F.interpolate.
    2. A location is inside the mask if the sigmoid of its resized logit is at least 1/2. No gradient flows through this
       step.
    3. If a mask contains no location, its query attends to all locations.
    4. The scores are the dot products of query and keys, divided by the root of D. The weights are a softmax of the
       scores over the locations inside the mask; a location outside has weight 0. The result is the weighted sum of
       the values.

    There is one head and no projection. The query is not added to the result.

    Args:
        queries: (Q, D) floats.
        keys: (h * w, D) floats, the locations row by row.
        values: (h * w, D) floats.
        mask_logits: (Q, H, W) floats, the masks that the previous layer predicted.
        size: (h, w) of the feature map.

    Returns:
        (Q, D) floats, with finite gradients with respect to queries, keys and values.

    Example: two locations. The mask contains the second one.

        >>> keys, values = torch.tensor([[9.0], [1.0]]), torch.tensor([[5.0], [7.0]])
        >>> masked_attention(torch.ones(1, 1), keys, values, torch.tensor([[[-1.0, 1.0]]]), (1, 2))
        tensor([[7.]])
    """
    inside = _or_all(_inside(mask_logits, size))
    return _weights(_scores(queries, keys), inside) @ values


def _resized(maps: Tensor, size: Size, **options: object) -> Tensor:
    options = {"mode": "bilinear", "align_corners": False} | options
    return F.interpolate(maps[None], size, **options)[0]


def _inside(mask_logits: Tensor, size: Size) -> Tensor:
    """(Q, h * w) bool."""
    return _resized(mask_logits, size).flatten(1) >= 0


def _or_all(inside: Tensor) -> Tensor:
    """All locations for the rows that have none."""
    return inside | ~inside.any(dim=1, keepdim=True)


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    return queries @ keys.T / queries.shape[1] ** 0.5


def _weights(scores: Tensor, inside: Tensor) -> Tensor:
    return scores.masked_fill(~inside, -torch.inf).softmax(dim=1)


right = Variants(masked_attention)


def _steps(
    inside: Callable[[Tensor, Size], Tensor] = _inside,
    or_all: Callable[[Tensor], Tensor] = _or_all,
    scores: Callable[[Tensor, Tensor], Tensor] = _scores,
    weights: Callable[[Tensor, Tensor], Tensor] = _weights,
) -> Callable[..., Tensor]:
    """Other steps: `inside(mask logits, size)`, `scores(queries, keys)`, `weights(scores, inside)`, and `or_all`."""
    return right.instead(lambda a: weights(scores(a.queries, a.keys), or_all(inside(a.mask_logits, a.size))) @ a.values)


def _fraction(binary: Tensor, size: Size) -> Tensor:
    """(Q, h * w): the fraction of each location that is inside."""
    return _resized(binary.double(), size).flatten(1)


def _nan_replaced(scores: Tensor, inside: Tensor) -> Tensor:
    """The result has no nan, but its gradient has."""
    masked = (scores + torch.where(inside, 0.0, -torch.inf)).softmax(dim=1)
    return torch.where(masked.isnan(), scores.softmax(dim=1), masked)


def _nan_replaced_in_output(a: SimpleNamespace) -> Tensor:
    """The result has no nan, but its gradient with respect to the values has."""
    scores = _scores(a.queries, a.keys)
    out = _weights(scores, _inside(a.mask_logits, a.size)) @ a.values
    return torch.where(out.isnan(), scores.softmax(dim=1) @ a.values, out)


def _empty_before_resizing(a: SimpleNamespace) -> Tensor:
    empty = ~(a.mask_logits >= 0).flatten(1).any(dim=1, keepdim=True)
    return _weights(_scores(a.queries, a.keys), _inside(a.mask_logits, a.size) | empty) @ a.values


def _soft_mask(a: SimpleNamespace) -> Tensor:
    """The logarithm of the mask's probability is added to the scores."""
    soft = F.logsigmoid(_resized(a.mask_logits, a.size)).flatten(1)
    return (_scores(a.queries, a.keys) + soft).softmax(dim=1) @ a.values


def _unless_empty(weights: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Other weights, without the rule for empty masks."""
    return _steps(or_all=lambda inside: inside, weights=weights)


no_mask = right.given(mask_logits=lambda a: torch.ones_like(a.mask_logits))
zero_scores = _steps(weights=lambda s, inside: (s * inside).softmax(dim=1))
mask_added = _steps(weights=lambda s, inside: (s + inside).softmax(dim=1))
zeros = right.then(lambda out, a: out * _inside(a.mask_logits, a.size).any(dim=1, keepdim=True))
all_rows = _steps(or_all=lambda inside: inside | ~inside.any(dim=1).all())
half = _steps(inside=lambda x, size: _resized(x, size).flatten(1) >= 0.5)
above_half = _steps(inside=lambda x, size: _resized(x, size).flatten(1) > 0)
nearest = _steps(inside=lambda x, size: _resized(x, size, mode="nearest", align_corners=None).flatten(1) >= 0)
corners = _steps(inside=lambda x, size: _resized(x, size, align_corners=True).flatten(1) >= 0)
sigmoid_first = _steps(inside=lambda x, size: _resized(x.sigmoid(), size).flatten(1) >= 0.5)
any_pixel = _steps(inside=lambda x, size: _fraction(x >= 0, size) > 0)
cut = _steps(inside=lambda x, size: x.flatten(1)[:, : size[0] * size[1]] >= 0)
shared = _steps(inside=lambda x, size: _inside(x, size).any(dim=0, keepdim=True).expand(len(x), -1))
over_dim_0 = _steps(weights=lambda s, inside: s.masked_fill(~inside, -torch.inf).softmax(dim=0))
mean = _steps(weights=lambda s, inside: inside / inside.sum(dim=1, keepdim=True) + 0 * s)
by_hw = _steps(scores=lambda q, k: q @ k.T / len(k) ** 0.5)
plus_query = right.then(lambda out, a: a.queries + out)
keys_for_values = right.given(values=lambda a: a.keys)
by_d = _steps(scores=lambda q, k: q @ k.T / q.shape[1])

BEFORE = "Set the score of a location outside to -inf before the softmax. The weights inside then sum to 1."
EMPTY = "inside | ~inside.any(dim=1, keepdim=True), before the softmax."
EACH_ROW = "Decide for each row: any(dim=1, keepdim=True)."
RESIZED = 'F.interpolate(mask_logits[None], size, mode="bilinear", align_corners=False)[0], then >= 0.'
HALF = "The sigmoid is at least 1/2 where the logit is at least 0."
ROOT = "queries @ keys.T / D ** 0.5"

exercise = Exercise(
    name="masked_attention",
    points=4,
    cases=cases,
    reference=masked_attention,
    tolerance=1e-6,
    kind="matrix",
    probe=call_grad,
    hides=["segedu.panoptic.mask2former.mask2former", "segedu.layers.attention"],
    wrong=[
        Wrong(
            "no mask",
            no_mask,
            "You do not use the masks, so your queries attend to all locations. Each query should attend only "
            "inside its mask.",
            BEFORE,
        ),
        Wrong(
            "multiplies after softmax",
            _steps(weights=lambda s, inside: s.softmax(dim=1) * inside),
            "You multiply by the mask after the softmax, so the weights do not sum to 1. Exclude the locations "
            "outside before the softmax.",
            BEFORE,
        ),
        Wrong(
            "scores times mask",
            zero_scores,
            "You set the scores of locations outside to 0, so these locations still have a weight. Their weight "
            "should be 0.",
            BEFORE,
        ),
        Wrong(
            "mask added",
            mask_added,
            "You add the mask as 0 and 1 to the scores, so locations outside still have a weight. Their weight "
            "should be 0.",
            BEFORE,
        ),
        Wrong(
            "inverted mask",
            _steps(inside=lambda x, size: ~_inside(x, size)),
            "Your queries attend to the locations outside their masks. They should attend to those inside.",
            "masked_fill, and the attn_mask of nn.MultiheadAttention, expect True at locations to mask out.",
        ),
        Wrong(
            "all-masked row is nan",
            _steps(or_all=lambda inside: inside),
            "Your result is not a number (NaN) if a mask is empty. The query should then attend to all locations.",
            EMPTY,
        ),
        Wrong(
            "empty before resizing",
            right.instead(_empty_before_resizing),
            "You test for empty masks before you resize them. Test afterwards, because a small mask can become "
            "empty by resizing.",
            EMPTY,
        ),
        Wrong(
            "all-masked row is 0",
            zeros,
            "Your result is 0 if a mask is empty. The query should then attend to all locations.",
            EMPTY,
        ),
        Wrong(
            "all-masked row is the mean",
            _unless_empty(lambda s, inside: s.masked_fill(~inside, -1e30).softmax(dim=1)),
            "If a mask is empty, one large negative number replaces all scores, so your result is the mean of "
            "all values. Attend to all locations with their own scores.",
            EMPTY,
        ),
        Wrong(
            "large number added",
            _unless_empty(lambda s, inside: (s - 1e9 * (~inside).to(s)).softmax(dim=1)),
            "You add a large negative number outside. If a mask is empty, rounding in single precision removes the "
            "scores, and your result is the mean of all values.",
            EMPTY,
        ),
        Wrong(
            "patched afterwards",
            _unless_empty(_nan_replaced),
            "You replace NaN after the softmax, but the gradients are still not finite. Treat empty masks before "
            "the softmax.",
            EMPTY + " torch.where does not stop the gradient of the branch that is not selected: 0 times NaN is NaN.",
        ),
        Wrong(
            "output patched",
            right.instead(_nan_replaced_in_output),
            "You replace NaN in the output, but the gradient with respect to the values is still not finite. "
            "Treat empty masks before the softmax.",
            EMPTY + " One weight that is NaN makes the gradients of all values NaN.",
        ),
        Wrong(
            "all rows opened",
            all_rows,
            "If one mask is empty, all your queries ignore their masks. Only the query with the empty mask "
            "should attend to all locations.",
            EACH_ROW,
        ),
        Wrong(
            "opened if all are empty",
            _steps(or_all=lambda inside: inside | ~inside.any()),
            "A query with an empty mask attends to all locations only if all masks are empty. Decide for each "
            "query on its own.",
            EACH_ROW,
        ),
        Wrong(
            "threshold on logits 0.5",
            half,
            "You compare the mask logits with 1/2. Compare their sigmoids with 1/2.",
            HALF,
        ),
        Wrong(
            "above 1/2",
            above_half,
            "You exclude locations where the sigmoid is exactly 1/2. They are inside the mask.",
            HALF,
        ),
        Wrong(
            "soft mask",
            right.instead(_soft_mask),
            "You weight the locations by the mask's probability. Each location is either inside or outside, with "
            "a threshold of 1/2.",
            "A soft mask would pass gradients to the mask logits. No gradient flows through this mask.",
        ),
        Wrong("nearest", nearest, "You resize with the nearest neighbour. Resize bilinearly.", RESIZED),
        Wrong("corners", corners, "You resize with align_corners=True. Use align_corners=False.", RESIZED),
        Wrong(
            "threshold first",
            _steps(inside=lambda x, size: _fraction(x >= 0, size) >= 0.5),
            "You threshold the masks before you resize them. Resize the logits first.",
            RESIZED,
        ),
        Wrong(
            "sigmoid first", sigmoid_first, "You resize the sigmoids of the masks. Resize the logits first.", RESIZED
        ),
        Wrong(
            "any pixel",
            any_pixel,
            "You count a location as inside if any of its pixels is. Resize the logits, then apply the threshold.",
            RESIZED,
        ),
        Wrong(
            "column by column",
            _steps(inside=lambda x, size: (_resized(x, size) >= 0).mT.flatten(1)),
            "You flatten the masks column by column. The locations of the keys are row by row.",
            "flatten(1) of (Q, h, w), not of (Q, w, h).",
        ),
        Wrong(
            "not resized",
            cut,
            "You use the first h * w logits of each mask. Resize the mask to the feature map.",
            RESIZED,
        ),
        Wrong(
            "one mask for all",
            shared,
            "You use one mask for all queries. Each query has its own mask.",
            "The mask is (Q, h * w).",
        ),
        Wrong(
            "softmax over queries",
            over_dim_0,
            "Your softmax is over the queries. It should be over the locations.",
            "dim=1 of (Q, hw).",
        ),
        Wrong(
            "no softmax",
            _steps(weights=lambda s, inside: s * inside),
            "You use the scores as weights. Apply a softmax to the scores.",
            BEFORE,
        ),
        Wrong(
            "mean inside",
            mean,
            "You compute the mean of the values inside the mask. Weight the values by a softmax of the scores.",
            ROOT,
        ),
        Wrong(
            "no root",
            _steps(scores=lambda q, k: q @ k.T),
            "You use the dot products as scores. Divide them by the square root of D.",
            ROOT,
        ),
        Wrong("divided by D", by_d, "You divide the scores by D. Divide them by the square root of D.", ROOT),
        Wrong(
            "root of the places",
            by_hw,
            "You divide the scores by the square root of h * w. Divide them by the square root of D.",
            ROOT,
        ),
        Wrong(
            "query added",
            plus_query,
            "You add the query to the result. Return only the weighted sum of the values.",
            "The layer adds it afterwards.",
        ),
        Wrong(
            "keys for values",
            keys_for_values,
            "You compute the weighted sum of the keys. Compute that of the values.",
            "weights @ values",
        ),
        Wrong(
            "without gradient",
            right.then(lambda out, a: out.detach()),
            "Your result has no gradient. Stop the gradient only at the mask.",
            "detach() or no_grad() for the mask, not for the rest.",
        ),
    ],
)
