"""semantic_inference: class scores of each pixel, summed over all queries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab15_universal.class_columns import class_wrong_answers


def semantic_inference(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Combine the predictions of all queries into class scores of each pixel, as MaskFormer does.

    Query q assigns the probability p_q(c) to class c, by a softmax over its K + 1 columns. The last column is "no
    object" and is removed after the softmax. The probability that pixel (y, x) belongs to the mask of query q is
    m_q(y, x), the sigmoid of its mask logit. The score of class c at this pixel is

        the sum over all queries q of  p_q(c) m_q(y, x)

    The scores are not normalised: those of one pixel need not sum to 1.

    Args:
        class_logits: (Q, K + 1) floats.
        mask_logits: (Q, H, W) floats.

    Returns:
        (K, H, W) floats.

    Example: one query, for which two classes and "no object" are equally likely. Its mask contains the first pixel with
    probability 1/2, and certainly not the second one.

        >>> semantic_inference(torch.zeros(1, 3), torch.tensor([[[0.0, -100.0]]]))
        tensor([[[0.1667, 0.0000]],
        <BLANKLINE>
                [[0.1667, 0.0000]]])
    """
    return _sums(_classes(class_logits), mask_logits.sigmoid())


def _classes(class_logits: Tensor) -> Tensor:
    """(Q, K)."""
    return class_logits.softmax(dim=1)[:, :-1]


def _sums(p: Tensor, m: Tensor) -> Tensor:
    return torch.einsum("qk,qhw->khw", p, m)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Overlapping queries; one pixel, query or class; very confident queries; queries that predict "no object".

    The best column of a query is above its other columns by more than 1/2.
    """

    def drawn(
        name: str, queries: int, classes: int, size: tuple[int, int], no_object: int = 0, scale: float = 1.0
    ) -> Case:
        logits = rng.uniform(-1.0, 1.0, (queries, classes + 1))
        best = rng.permutation(np.resize(np.arange(classes), queries - no_object))
        best = rng.permutation(np.concatenate([best, np.full(no_object, classes)]))
        logits[np.arange(queries), best] = rng.uniform(1.5, 2.5, queries)
        masks = rng.uniform(0.3, 2.5, (queries, *size)) * rng.choice([-1, 1], (queries, *size))
        return case(name, *[torch.from_numpy(a * scale).float() for a in (logits, masks)])

    core = [
        drawn("four queries, three classes", 4, 3, (4, 6), no_object=1),
        drawn("as many queries as columns", 4, 3, (5, 3)),
        drawn("two queries of one class", 3, 2, (3, 4)),
    ]
    edge = [
        drawn("one query, one pixel", 1, 3, (1, 1)),
        drawn("one class", 3, 1, (2, 5), no_object=1),
        drawn("all queries predict no object", 3, 2, (3, 3), no_object=3),
        drawn("very confident queries", 4, 3, (3, 5), no_object=1, scale=200.0),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(semantic_inference)


def _steps(
    classes: Callable[[Tensor], Tensor] = _classes,
    masks: Callable[[Tensor], Tensor] = torch.sigmoid,
    sums: Callable[[Tensor, Tensor], Tensor] = _sums,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Other steps: p (Q, K), m (Q, H, W), and `sums(p, m)`."""
    return right.instead(lambda a: sums(classes(a.class_logits), masks(a.mask_logits)))


def _best_class(class_logits: Tensor) -> Tensor:
    """(Q, K): 1 for the best class, and only zeros if the best column is "no object"."""
    return F.one_hot(class_logits.argmax(dim=1), class_logits.shape[1]).to(class_logits)[:, :-1]


def _products(p: Tensor, m: Tensor) -> Tensor:
    """(Q, K, H, W)."""
    return torch.einsum("qk,qhw->qkhw", p, m)


def _best_query(p: Tensor, m: Tensor) -> Tensor:
    """Scores of the most confident query of each pixel."""
    query = (p.amax(dim=1)[:, None, None] * m).argmax(dim=0, keepdim=True)
    return _products(p, m).gather(0, query[:, None].expand(-1, p.shape[1], -1, -1))[0]


best_only = _steps(classes=lambda x: _best_class(x) * _classes(x))
all_k = _steps(classes=lambda x: x.softmax(dim=1))
product_of_logits = _steps(classes=lambda x: x[:, :-1], masks=lambda x: x)
logits_of_masks = _steps(masks=lambda x: x)
over_pixels = _steps(masks=lambda x: x.flatten(1).softmax(dim=1).reshape(x.shape))
hard_masks = _steps(masks=lambda x: (x > 0).to(x))
largest = _steps(sums=lambda p, m: _products(p, m).amax(dim=0))
mean = _steps(sums=lambda p, m: _sums(p, m) / len(p))
normalised = right.then(lambda out, a: out / out.sum(dim=0))
by_masks = _steps(sums=lambda p, m: _sums(p, m) / m.sum(dim=0))
softmax_again = right.then(lambda out, a: out.softmax(dim=0))
label_map = right.then(lambda out, a: out.argmax(dim=0))
classes_last = right.then(lambda out, a: out.movedim(0, -1))

FACTORS = "p is a softmax over the columns of a query, without the last one. m is a sigmoid of each mask logit."
SUM = 'torch.einsum("qk,qhw->khw", p, m).'
NO_OBJECT = 'Probability that a query assigns to "no object" must be missing from its classes.'
NORMALISED = "The class with the largest score is the same, but this exercise returns the sums."

exercise = Exercise(
    name="semantic_inference",
    points=3,
    cases=cases,
    reference=semantic_inference,
    tolerance=1e-6,
    kind="map",
    hides=["segedu.panoptic.inference", "segedu.panoptic.maskformer"],
    wrong=[
        Wrong(
            "argmax first",
            _steps(classes=_best_class),
            "You replace the class probabilities of each query by 1 for its best class. Use all K probabilities.",
            "Two queries, both unsure of their class, may be right together.",
        ),
        Wrong(
            "only the best class",
            best_only,
            "You use only the probability of the best class of each query. Use the probabilities of all K classes.",
            SUM,
        ),
        Wrong(
            "no-object kept",
            all_k,
            'You keep the column of "no object". Remove it after the softmax, so that the result has K classes.',
            NO_OBJECT,
        ),
        *class_wrong_answers(_steps),
        Wrong(
            "silent queries dropped",
            _steps(classes=lambda x: _classes(x) * (x.argmax(dim=1, keepdim=True) < x.shape[1] - 1)),
            'You drop queries that predict "no object". Their small contribution belongs to the sum, too.',
            "They are dropped for panoptic segmentation, not here.",
        ),
        Wrong(
            "product of logits", product_of_logits, "You multiply logits. Convert them to probabilities first.", FACTORS
        ),
        Wrong(
            "logits of masks", logits_of_masks, "You use the mask logits as they are. Apply a sigmoid to them.", FACTORS
        ),
        Wrong(
            "softmax of masks over queries",
            _steps(masks=lambda x: x.softmax(dim=0)),
            "You apply a softmax over the queries, so they compete for each pixel. Apply a sigmoid to each mask.",
            "So a pixel may belong to no mask, and the sums of a pixel need not be 1.",
        ),
        Wrong(
            "softmax over pixels",
            over_pixels,
            "You apply a softmax over the pixels of each mask. Apply a sigmoid to each pixel.",
            FACTORS,
        ),
        Wrong(
            "hard masks",
            hard_masks,
            "You threshold the masks at 1/2. Use their probabilities without a threshold.",
            FACTORS,
        ),
        Wrong("largest", largest, "You compute the maximum over the queries. Compute the sum.", SUM),
        Wrong("mean", mean, "You compute the mean over the queries. Compute the sum.", SUM),
        Wrong(
            "one query a pixel",
            _steps(sums=_best_query),
            "You use only the most confident query of each pixel. Sum over all queries.",
            "For panoptic segmentation, each pixel is assigned to its best query. Here, all of them contribute.",
        ),
        Wrong(
            "normalised", normalised, "You divide by the sum over the classes. Do not normalise the scores.", NORMALISED
        ),
        Wrong(
            "divided by the masks",
            by_masks,
            "You divide by the sum of the masks. Do not normalise the scores.",
            NORMALISED,
        ),
        Wrong(
            "softmax again",
            softmax_again,
            "You apply a softmax to the sums over the queries. Return the sums, which are not normalised.",
            SUM,
        ),
        Wrong(
            "label map",
            label_map,
            "You return the best class of each pixel. Return the scores of all K classes.",
            "(K, H, W), not (H, W).",
        ),
        Wrong("classes last", classes_last, "Your result has shape (H, W, K). It should have shape (K, H, W).", SUM),
        Wrong(
            "not summed",
            _steps(sums=_products),
            "You return the scores of each query, (Q, K, H, W). Sum them over the queries.",
            SUM,
        ),
    ],
)
