"""masked_attention: a query looks only at the places of its own mask."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.exercises.lab15_universal.attention_maps import cases

Size = tuple[int, int]


def masked_attention(queries: Tensor, keys: Tensor, values: Tensor, mask_logits: Tensor, size: Size) -> Tensor:
    """Cross-attention of Mask2Former: each query attends to the places of the mask that it has predicted so far.

    1. Its mask logits are resized to the features, bilinearly with align_corners=False as F.interpolate does.
    2. A place is inside where the sigmoid of the resized logit is at least 1/2. No gradient flows through this.
    3. Where a mask holds no place at all, its query looks at all places.
    4. Of the products of query and key, divided by the root of D, a softmax over the places inside is taken; a place
       outside has the weight 0. What comes out is the sum of the values with these weights.

    One head, no projections, and the query itself is not added.

    Args:
        queries: (Q, D) floats.
        keys: (h * w, D) floats, the places row by row.
        values: (h * w, D) floats.
        mask_logits: (Q, H, W) floats, the masks that were predicted by the layer before.
        size: (h, w), of the features.

    Returns:
        (Q, D) floats, with finite gradients by queries, keys and values.

    Example: two places, of which the mask holds the second.

        >>> keys, values = torch.tensor([[9.0], [1.0]]), torch.tensor([[5.0], [7.0]])
        >>> masked_attention(torch.ones(1, 1), keys, values, torch.tensor([[[-1.0, 1.0]]]), (1, 2))
        tensor([[7.]])
    """
    inside = _or_all(_inside(mask_logits, size))
    return _scores(queries, keys).masked_fill(~inside, -torch.inf).softmax(dim=1) @ values


def _resized(maps: Tensor, size: Size, **options: object) -> Tensor:
    options = {"mode": "bilinear", "align_corners": False} | options
    return F.interpolate(maps[None], size, **options)[0]


def _inside(mask_logits: Tensor, size: Size) -> Tensor:
    """(Q, h * w) bool."""
    return _resized(mask_logits, size).flatten(1) >= 0


def _or_all(inside: Tensor) -> Tensor:
    """A row without any place has all of them."""
    return inside | ~inside.any(dim=1, keepdim=True)


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    return queries @ keys.T / queries.shape[1] ** 0.5


def _weights(scores: Tensor, inside: Tensor) -> Tensor:
    return scores.masked_fill(~inside, -torch.inf).softmax(dim=1)


def _attend(
    inside: Callable[[Tensor, Size], Tensor] = _inside,
    or_all: Callable[[Tensor], Tensor] = _or_all,
    scores: Callable[[Tensor, Tensor], Tensor] = _scores,
    weights: Callable[[Tensor, Tensor], Tensor] = _weights,
) -> Callable[..., Tensor]:
    """The right answer, each step replaced by another."""

    def answer(queries: Tensor, keys: Tensor, values: Tensor, mask_logits: Tensor, size: Size) -> Tensor:
        return weights(scores(queries, keys), or_all(inside(mask_logits, size))) @ values

    return answer


def _shares(binary: Tensor, size: Size) -> Tensor:
    """Of each place, how much of it is in the mask."""
    return _resized(binary.double(), size).flatten(1)


def _patched(scores: Tensor, inside: Tensor) -> Tensor:
    """-inf is added, and nan replaced afterwards, but not its gradient."""
    masked = (scores + torch.where(inside, 0.0, -torch.inf)).softmax(dim=1)
    return torch.where(masked.isnan(), scores.softmax(dim=1), masked)


def _transposed(mask_logits: Tensor, size: Size) -> Tensor:
    """Places column by column."""
    return (_resized(mask_logits, size) >= 0).transpose(1, 2).flatten(1)


def _first_reshaped(mask_logits: Tensor, size: Size) -> Tensor:
    """The first h * w logits."""
    return mask_logits.flatten(1)[:, : size[0] * size[1]] >= 0


not_masked = _attend(inside=lambda x, size: torch.ones_like(_inside(x, size)))
inverted = _attend(inside=lambda x, size: ~_inside(x, size))
half_of_logits = _attend(inside=lambda x, size: _resized(x, size).flatten(1) >= 0.5)
above_half = _attend(inside=lambda x, size: _resized(x, size).flatten(1) > 0)
nearest = _attend(inside=lambda x, size: _resized(x, size, mode="nearest", align_corners=None).flatten(1) >= 0)
corners = _attend(inside=lambda x, size: _resized(x, size, align_corners=True).flatten(1) >= 0)
threshold_first = _attend(inside=lambda x, size: _shares(x >= 0, size) >= 0.5)
sigmoid_first = _attend(inside=lambda x, size: _resized(x.sigmoid(), size).flatten(1) >= 0.5)
any_pixel = _attend(inside=lambda x, size: _shares(x >= 0, size) > 0)
column_by_column = _attend(inside=_transposed)
not_resized = _attend(inside=_first_reshaped)
one_mask = _attend(inside=lambda x, size: _inside(x, size).any(dim=0, keepdim=True).expand(len(x), -1))
nothing_is_nan = _attend(or_all=lambda inside: inside)
all_look_everywhere = _attend(or_all=lambda inside: inside | ~inside.any(dim=1).all())
if_all_are_empty = _attend(or_all=lambda inside: inside | ~inside.any())
mean_where_empty = _attend(
    or_all=lambda inside: inside, weights=lambda s, inside: s.masked_fill(~inside, -1e30).softmax(dim=1)
)
large_number_added = _attend(
    or_all=lambda inside: inside, weights=lambda s, inside: (s - 1e9 * (~inside).to(s)).softmax(dim=1)
)
patched = _attend(or_all=lambda inside: inside, weights=_patched)
after_softmax = _attend(weights=lambda s, inside: s.softmax(dim=1) * inside)
scores_times_mask = _attend(weights=lambda s, inside: (s * inside).softmax(dim=1))
mask_added = _attend(weights=lambda s, inside: (s + inside).softmax(dim=1))
over_queries = _attend(weights=lambda s, inside: s.masked_fill(~inside, -torch.inf).softmax(dim=0))
no_softmax = _attend(weights=lambda s, inside: s * inside)
mean_inside = _attend(weights=lambda s, inside: inside / inside.sum(dim=1, keepdim=True) + 0 * s)
no_root = _attend(scores=lambda q, k: q @ k.T)
by_width = _attend(scores=lambda q, k: q @ k.T / q.shape[1])
by_places = _attend(scores=lambda q, k: q @ k.T / len(k) ** 0.5)


def zeros_for_nan(queries: Tensor, keys: Tensor, values: Tensor, mask_logits: Tensor, size: Size) -> Tensor:
    """A query that sees nothing learns nothing: 0."""
    seen = _inside(mask_logits, size)
    return masked_attention(queries, keys, values, mask_logits, size) * seen.any(dim=1, keepdim=True)


def output_patched(queries: Tensor, keys: Tensor, values: Tensor, mask_logits: Tensor, size: Size) -> Tensor:
    """What is nan at the end is replaced by the answer without a mask; the gradient by the values is nan."""
    scores, inside = _scores(queries, keys), _inside(mask_logits, size)
    found = _weights(scores, inside) @ values
    return torch.where(found.isnan(), scores.softmax(dim=1) @ values, found)


def empty_before(queries: Tensor, keys: Tensor, values: Tensor, mask_logits: Tensor, size: Size) -> Tensor:
    """Rows are opened where the mask was empty before it was resized."""
    empty = ~(mask_logits >= 0).flatten(1).any(dim=1, keepdim=True)
    return _weights(_scores(queries, keys), _inside(mask_logits, size) | empty) @ values


def soft_mask(queries: Tensor, keys: Tensor, values: Tensor, mask_logits: Tensor, size: Size) -> Tensor:
    """The logarithm of the mask's probability is added."""
    soft = F.logsigmoid(_resized(mask_logits, size)).flatten(1)
    return (_scores(queries, keys) + soft).softmax(dim=1) @ values


def residual_added(queries: Tensor, keys: Tensor, values: Tensor, mask_logits: Tensor, size: Size) -> Tensor:
    """What the layer does next."""
    return queries + masked_attention(queries, keys, values, mask_logits, size)


def keys_for_values(queries: Tensor, keys: Tensor, values: Tensor, mask_logits: Tensor, size: Size) -> Tensor:
    """The keys are summed."""
    return masked_attention(queries, keys, keys, mask_logits, size)


def without_gradient(queries: Tensor, keys: Tensor, values: Tensor, mask_logits: Tensor, size: Size) -> Tensor:
    """All of it under no_grad."""
    return masked_attention(queries, keys, values, mask_logits, size).detach()


BEFORE = "Put -inf where a place is outside, then take the softmax: what is left adds up to 1."
EMPTY = "inside | ~inside.any(dim=1, keepdim=True), before the softmax."
RESIZED = 'F.interpolate(mask_logits[None], size, mode="bilinear", align_corners=False)[0], then ask: >= 0?'
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
        Wrong("no mask", not_masked, "You never use the masks: your queries look at all places.", BEFORE),
        Wrong(
            "multiplies after softmax",
            after_softmax,
            "You multiply by the mask after the softmax: then the weights no longer add up to 1.",
            BEFORE,
        ),
        Wrong(
            "scores times mask",
            scores_times_mask,
            "You set the products outside to 0: their softmax is not 0. Set them to -inf.",
            BEFORE,
        ),
        Wrong(
            "mask added", mask_added, "You add the mask as 0 and 1: a place outside has to lose all its weight.", BEFORE
        ),
        Wrong(
            "inverted mask",
            inverted,
            "Your mask is inverted: queries look at the places outside.",
            "True means inside here; masked_fill wants to know what is outside, and so does nn.MultiheadAttention.",
        ),
        Wrong(
            "all-masked row is nan",
            nothing_is_nan,
            "Where a mask holds nothing your answer is not a number: the query looks at all places then.",
            EMPTY,
        ),
        Wrong(
            "empty before resizing",
            empty_before,
            "You ask whether a mask is empty before you resize it: a speck may be gone afterwards.",
            EMPTY,
        ),
        Wrong(
            "all-masked row is 0",
            zeros_for_nan,
            "Where a mask holds nothing your answer is 0: the query looks at all places then.",
            EMPTY,
        ),
        Wrong(
            "all-masked row is the mean",
            mean_where_empty,
            "Where a mask holds nothing your answer is the mean of all values: a large negative number makes all "
            "places equal, and the products are lost.",
            EMPTY,
        ),
        Wrong(
            "large number added",
            large_number_added,
            "You add a large negative number where a place is outside: where all places are, single precision has no "
            "digits left for the products, and your answer is the mean of all values.",
            EMPTY,
        ),
        Wrong(
            "patched afterwards",
            patched,
            "You replace the numbers that are not a number after the softmax: the gradients stay broken.",
            EMPTY + " torch.where does not stop the gradient of the branch that it leaves out: 0 times nan is nan.",
        ),
        Wrong(
            "output patched",
            output_patched,
            "You replace what is not a number in the output: the gradient by the values stays broken.",
            EMPTY + " A weight that is not a number spoils the gradients of all values.",
        ),
        Wrong(
            "all rows opened",
            all_look_everywhere,
            "Where one mask is empty all your queries look everywhere: only the query of the empty mask does.",
            "Each row decides for itself: any(dim=1, keepdim=True).",
        ),
        Wrong(
            "opened if all are empty",
            if_all_are_empty,
            "Your query with an empty mask looks at all places only if all other masks are empty, too.",
            "Each row decides for itself: any(dim=1, keepdim=True).",
        ),
        Wrong("threshold on logits 0.5", half_of_logits, "You compare logits with 1/2: the sigmoid is.", HALF),
        Wrong("above 1/2", above_half, "You leave out places of exactly 1/2: at least 1/2 is inside.", HALF),
        Wrong(
            "soft mask",
            soft_mask,
            "You weigh places by the mask's probability: a place is inside or outside.",
            "A soft mask would pass gradients to the masks. Here none flows.",
        ),
        Wrong("nearest", nearest, "You take the nearest logit: resize bilinearly.", RESIZED),
        Wrong("corners", corners, "You resize with align_corners=True: it is False.", RESIZED),
        Wrong(
            "threshold first",
            threshold_first,
            "You ask for inside or outside before you resize: resize the logits.",
            RESIZED,
        ),
        Wrong("sigmoid first", sigmoid_first, "You resize the sigmoids: resize the logits.", RESIZED),
        Wrong(
            "any pixel",
            any_pixel,
            "A place is inside with you if any of its pixels is: resize the logits, then ask once.",
            RESIZED,
        ),
        Wrong(
            "column by column",
            column_by_column,
            "Your places go column by column: the keys go row by row.",
            "flatten(1) of (Q, h, w), not of (Q, w, h).",
        ),
        Wrong(
            "not resized",
            not_resized,
            "You take the first h * w logits of the mask: resize it to the features.",
            RESIZED,
        ),
        Wrong(
            "one mask for all",
            one_mask,
            "Your queries share one mask: each has its own.",
            "The mask is (Q, h * w), as the products are.",
        ),
        Wrong(
            "softmax over queries",
            over_queries,
            "Your softmax goes over the queries: it goes over the places.",
            "dim=1 of (Q, h * w).",
        ),
        Wrong("no softmax", no_softmax, "You leave out the softmax.", BEFORE),
        Wrong(
            "mean inside",
            mean_inside,
            "You take the mean of the values inside: query and key decide how much each counts.",
            ROOT,
        ),
        Wrong("no root", no_root, "You do not divide by the root of D.", ROOT),
        Wrong("divided by D", by_width, "You divide by D: divide by its root.", ROOT),
        Wrong("root of the places", by_places, "You divide by the root of the number of places: of D.", ROOT),
        Wrong(
            "query added",
            residual_added,
            "You add the query: what is to be added to it is asked for.",
            "The layer adds it afterwards.",
        ),
        Wrong("keys for values", keys_for_values, "You sum up the keys: sum up the values.", "weights @ values"),
        Wrong(
            "without gradient",
            without_gradient,
            "Your answer has no gradient: only the mask has none.",
            "detach() or no_grad() around the mask, not around the rest.",
        ),
    ],
)
