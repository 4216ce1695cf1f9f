"""semantic_inference: what queries say together of each pixel, by a sum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def semantic_inference(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Let all queries say of each pixel which class it has: MaskFormer's reading for semantic segmentation.

    Query q gives class c the probability p_q(c), a softmax over its K + 1 columns; the last one is "no object" and is
    left out afterwards. To pixel (y, x) it gives the probability m_q(y, x) that it belongs to the query's mask, a
    sigmoid. The score of class c there is

        the sum over all queries q of  p_q(c) m_q(y, x)

    The sums are left as they are: those of one pixel need not add up to 1.

    Args:
        class_logits: (Q, K + 1) floats.
        mask_logits: (Q, H, W) floats.

    Returns:
        (K, H, W) floats.

    Example: one query, two classes and "no object" equally likely; the second pixel is surely not in its mask.

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
    """Queries that overlap, as many queries as columns; one pixel, one query, one class, sure queries, silent ones.

    Args:
        rng: of the logits.

    Returns:
        The cases by group. The best column of a query is above the others by more than 1/2.
    """

    def case(name: str, queries: int, classes: int, size: tuple[int, int], silent: int = 0, times: float = 1.0) -> Case:
        columns = classes + 1
        logits = rng.uniform(-1.0, 1.0, (queries, columns))
        best = rng.permutation(np.resize(np.arange(classes), queries - silent))
        best = rng.permutation(np.concatenate([best, np.full(silent, classes)]))
        logits[np.arange(queries), best] = rng.uniform(1.5, 2.5, queries)
        masks = rng.uniform(0.3, 2.5, (queries, *size)) * rng.choice([-1, 1], (queries, *size))
        return {"name": name, "args": [torch.from_numpy(a * times).float() for a in (logits, masks)]}

    return {
        "core": (
            2,
            [
                case("four queries, three classes", 4, 3, (4, 6), silent=1),
                case("as many queries as columns", 4, 3, (5, 3)),
                case("two queries of one class", 3, 2, (3, 4), silent=0),
            ],
        ),
        "edge": (
            1,
            [
                case("one query, one pixel", 1, 3, (1, 1)),
                case("one class", 3, 1, (2, 5), silent=1),
                case("all say no object", 3, 2, (3, 3), silent=3),
                case("queries that are sure", 4, 3, (3, 5), silent=1, times=200.0),
            ],
        ),
    }


def _read(
    classes: Callable[[Tensor], Tensor] = _classes,
    masks: Callable[[Tensor], Tensor] = torch.sigmoid,
    sums: Callable[[Tensor, Tensor], Tensor] = _sums,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The right answer, each of its three steps replaced by another."""
    return lambda class_logits, mask_logits: sums(classes(class_logits), masks(mask_logits))


def _best_class(class_logits: Tensor) -> Tensor:
    """1 for the best column; "no object" gives nothing."""
    return torch.nn.functional.one_hot(class_logits.argmax(dim=1), class_logits.shape[1]).to(class_logits)[:, :-1]


def _best_pixelwise(p: Tensor, m: Tensor) -> Tensor:
    """Each pixel listens to the query that is most sure of it."""
    sure = (p.amax(dim=1)[:, None, None] * m).argmax(dim=0, keepdim=True)
    return (torch.einsum("qk,qhw->qkhw", p, m)).gather(0, sure[:, None].expand(-1, p.shape[1], -1, -1))[0]


argmax_first = _read(classes=_best_class)
best_with_probability = _read(classes=lambda x: _best_class(x) * _classes(x))
no_object_kept = _read(classes=lambda x: x.softmax(dim=1))
first_left_out = _read(classes=lambda x: x.softmax(dim=1)[:, 1:])
left_out_before = _read(classes=lambda x: x[:, :-1].softmax(dim=1))
classes_by_sigmoid = _read(classes=lambda x: x.sigmoid()[:, :-1])
softmax_over_queries = _read(classes=lambda x: x.softmax(dim=0)[:, :-1])
silent_dropped = _read(classes=lambda x: _classes(x) * (x.argmax(dim=1, keepdim=True) < x.shape[1] - 1))
product_of_logits = _read(classes=lambda x: x[:, :-1], masks=lambda x: x)
logits_of_classes = _read(classes=lambda x: x[:, :-1])
logits_of_masks = _read(masks=lambda x: x)
masks_compete = _read(masks=lambda x: x.softmax(dim=0))
pixels_compete = _read(masks=lambda x: x.flatten(1).softmax(dim=1).reshape(x.shape))
hard_masks = _read(masks=lambda x: (x > 0).to(x))
largest = _read(sums=lambda p, m: torch.einsum("qk,qhw->qkhw", p, m).amax(dim=0))
mean = _read(sums=lambda p, m: _sums(p, m) / len(p))
one_query_a_pixel = _read(sums=_best_pixelwise)
normalised = _read(sums=lambda p, m: _sums(p, m) / _sums(p, m).sum(dim=0))
softmax_again = _read(sums=lambda p, m: _sums(p, m).softmax(dim=0))
by_sum_of_masks = _read(sums=lambda p, m: _sums(p, m) / m.sum(dim=0))
label_map = _read(sums=lambda p, m: _sums(p, m).argmax(dim=0))
classes_last = _read(sums=lambda p, m: _sums(p, m).movedim(0, -1))
not_summed = _read(sums=lambda p, m: torch.einsum("qk,qhw->qkhw", p, m))

TWO = "p is a softmax over the columns of a query, without the last one; m is a sigmoid, pixel by pixel."
SUM = 'torch.einsum("qk,qhw->khw", p, m).'
NO_OBJECT = 'What a query gives to "no object" is missing for the classes: that is how it keeps silent.'

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
            argmax_first,
            "Your queries decide for their best class first: let each give a part to every class.",
            "Two queries that are half sure may be right together.",
        ),
        Wrong(
            "only the best class",
            best_with_probability,
            "Your queries speak for their best class only: each gives a part to every class.",
            SUM,
        ),
        Wrong("no-object kept", no_object_kept, 'You keep the column of "no object": there are K classes.', NO_OBJECT),
        Wrong("first left out", first_left_out, 'You leave out the first column: "no object" is the last.', NO_OBJECT),
        Wrong(
            "left out before",
            left_out_before,
            'You leave out the column of "no object" before the softmax: then every query seems sure of an object.',
            NO_OBJECT,
        ),
        Wrong("sigmoid of classes", classes_by_sigmoid, "You take a sigmoid of the classes: take their softmax.", TWO),
        Wrong(
            "softmax over queries",
            softmax_over_queries,
            "Your softmax of the classes goes over the queries: it goes over the columns of each query.",
            TWO,
        ),
        Wrong(
            "silent queries dropped",
            silent_dropped,
            'You drop queries that say "no object": their small part counts, too.',
            "They are dropped for panoptic segmentation, not here.",
        ),
        Wrong("product of logits", product_of_logits, "You multiply logits: multiply probabilities.", TWO),
        Wrong("logits of classes", logits_of_classes, "You take the logits of the classes: take their softmax.", TWO),
        Wrong("logits of masks", logits_of_masks, "You take the logits of the masks: take their sigmoid.", TWO),
        Wrong(
            "softmax of masks over queries",
            masks_compete,
            "Your queries compete for each pixel in a softmax: each mask has a sigmoid of its own.",
            "So a pixel may belong to no mask, and the sums of a pixel need not be 1.",
        ),
        Wrong(
            "softmax over pixels",
            pixels_compete,
            "Your softmax goes over the pixels: each pixel has a sigmoid of its own.",
            TWO,
        ),
        Wrong("hard masks", hard_masks, "You cut the masks at 1/2: the probabilities themselves are summed.", TWO),
        Wrong("largest", largest, "You take the largest part of all queries: take the sum.", SUM),
        Wrong("mean", mean, "You take the mean over the queries: take the sum.", SUM),
        Wrong(
            "one query a pixel",
            one_query_a_pixel,
            "Each of your pixels listens to its best query only: all of them are summed.",
            "The best query alone is the reading for panoptic segmentation.",
        ),
        Wrong(
            "normalised",
            normalised,
            "You divide by the sum over the classes: the sums are left as they are.",
            "The largest class is the same. The sums are asked for.",
        ),
        Wrong(
            "divided by the masks",
            by_sum_of_masks,
            "You divide by the sum of the masks: the sums are left as they are.",
            "The largest class is the same. The sums are asked for.",
        ),
        Wrong("softmax again", softmax_again, "You take a softmax of the sums: they are left as they are.", SUM),
        Wrong(
            "label map",
            label_map,
            "You return the best class of each pixel: the scores of all classes are asked for.",
            "(K, H, W), not (H, W).",
        ),
        Wrong("classes last", classes_last, "Your shape is (H, W, K): it is (K, H, W).", SUM),
        Wrong("not summed", not_summed, "You return (Q, K, H, W): sum over the queries.", SUM),
    ],
)
