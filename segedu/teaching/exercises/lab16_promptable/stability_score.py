"""stability_score: how little a mask changes when its threshold does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def stability_score(mask_logits: Tensor, mask_threshold: float, offset: float) -> Tensor:
    """Measure how little each mask changes with its threshold. SAM keeps only stable masks in automatic segmentation.

    Threshold each map of logits twice: above mask_threshold + offset, and above mask_threshold - offset. The score is
    the IoU of these two masks. The first mask lies within the second, so the IoU is a ratio of two pixel counts. A
    logit that equals a threshold is not above it. If the second mask is empty too, the score is 0.

    Args:
        mask_logits: (N, H, W) floats. N may be 0.
        mask_threshold: a number; SAM's is 0.
        offset: a number above 0; SAM's is 1.

    Returns:
        (N,) floats from 0 to 1.

    Example: one pixel is above 1, and two are above -1.

        >>> stability_score(torch.tensor([[[5.0, 0.5, -5.0]]]), 0.0, 1.0)
        tensor([0.5000])
    """
    inner = _pixels(mask_logits > mask_threshold + offset)
    outer = _pixels(mask_logits > mask_threshold - offset)
    return inner / outer.clamp(min=1)


def _pixels(masks: Tensor) -> Tensor:
    """(N,)."""
    return masks.sum(dim=(1, 2))


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Thresholds other than 0, logits at the limits, an empty and a full mask, one pixel, no mask.

    No logit is within 1/100 of a limit, unless it equals the limit.
    """

    def maps(counts: list[list[int]], size: tuple[int, int], threshold: float, offset: float) -> list:
        """The arguments.

        Args:
            counts: numbers of pixels of each mask: above both limits, above mask_threshold, above the lower limit only,
                and exactly at the upper limit, mask_threshold and the lower limit in turn. The rest is below both.
        """
        maps = []
        for above, high, low, exact in counts:
            near = [rng.uniform(1.2, 3.0, above), rng.uniform(0.3, 0.8, high), rng.uniform(-0.8, -0.3, low)]
            below = rng.uniform(-3.0, -1.2, size[0] * size[1] - above - high - low - exact)
            values = np.concatenate([*near, np.resize([1.0, 0.0, -1.0], exact), below])
            maps.append(rng.permutation(values).reshape(size))
        logits = threshold + offset * np.array(maps).reshape(-1, *size)
        return [torch.from_numpy(logits), threshold, offset]

    several = [[7, 2, 1, 0], [4, 3, 5, 0], [0, 2, 4, 0]]
    core = [
        case("three masks", *maps(several, (4, 6), 0.0, 1.0)),
        case("another threshold and offset", *maps([[5, 1, 3, 0], [2, 4, 1, 0]], (3, 5), 1.5, 0.5)),
        case("a threshold below 0", *maps([[9, 2, 2, 0], [6, 5, 3, 0]], (5, 4), -2.0, 0.25)),
    ]
    edge = [
        case("logits on the limits", *maps([[4, 1, 2, 6], [2, 0, 0, 3]], (4, 5), 0.5, 2.0)),
        case("an empty mask and a full one", *maps([[0, 0, 0, 0], [6, 0, 0, 0], [3, 1, 0, 0]], (2, 3), 0.0, 1.5)),
        case("one pixel", *maps([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], (1, 1), 0.0, 1.0)),
        case("no mask", *maps([], (3, 4), 0.0, 1.0)),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(stability_score)
Count = Callable[[Tensor], Tensor]


def _ratio(inner: Tensor, outer: Tensor) -> Tensor:
    return inner / outer.clamp(min=1)


def _dividing(ratio: Callable[[Tensor, Tensor], Tensor], count: Count = _pixels) -> Callable[..., Tensor]:
    """`ratio(pixels of the smaller mask, pixels of the larger mask)` in place of the right one."""
    return right.instead(lambda a: ratio(*(count(a.mask_logits > a.mask_threshold + o) for o in (a.offset, -a.offset))))


def _with_limits(high: Callable, low: Callable) -> Callable[..., Tensor]:
    return right.instead(lambda a: _ratio(_pixels(a.mask_logits > high(a)), _pixels(a.mask_logits > low(a))))


def soft(mask_logits: Tensor, mask_threshold: float, offset: float) -> Tensor:
    x = mask_logits - mask_threshold
    return _pixels((x - offset).sigmoid()) / _pixels((x + offset).sigmoid())


def at_least(mask_logits: Tensor, mask_threshold: float, offset: float) -> Tensor:
    x, t = mask_logits, mask_threshold
    return _ratio(_pixels(x >= t + offset), _pixels(x >= t - offset))


def share_of_all_pixels(mask_logits: Tensor, mask_threshold: float, offset: float) -> Tensor:
    x, t = mask_logits, mask_threshold
    return 1 - ((x > t - offset) & (x <= t + offset)).double().mean(dim=(1, 2))


def sums_of_logits(mask_logits: Tensor, mask_threshold: float, offset: float) -> Tensor:
    x, t = mask_logits, mask_threshold
    inner, outer = (_pixels(x * (x > limit)) for limit in (t + offset, t - offset))
    return inner / torch.where(outer == 0, 1.0, outer)


TWO = "(logits > mask_threshold + offset) and (logits > mask_threshold - offset)."
RATIO = "The smaller mask lies within the larger one, so it is their intersection. The larger one is their union."
EMPTY = "Divide by at least 1: (larger).clamp(min=1)."

WRONG = [
    Wrong(
        "ratio inverted",
        _dividing(lambda small, large: large / small.clamp(min=1)),
        "Your ratio is inverted. Divide the smaller mask by the larger mask.",
        RATIO,
    ),
    Wrong(
        "ratio inverted, by 0",
        _dividing(lambda small, large: large / small),
        "You divide by the smaller mask, which may be empty. Divide by the larger mask.",
        RATIO,
    ),
    Wrong(
        "threshold not offset",
        right.given(offset=lambda a: 0.0),
        "You use the same threshold twice, so every mask is stable. Add the offset to one and subtract it "
        "from the other.",
        TWO,
    ),
    Wrong(
        "upper half",
        _with_limits(lambda a: a.mask_threshold + a.offset, lambda a: a.mask_threshold),
        "You use the mask at mask_threshold as the larger mask. Use the mask at mask_threshold - offset.",
        TWO,
    ),
    Wrong(
        "lower half",
        _with_limits(lambda a: a.mask_threshold, lambda a: a.mask_threshold - a.offset),
        "You use the mask at mask_threshold as the smaller mask. Use the mask at mask_threshold + offset.",
        TWO,
    ),
    Wrong(
        "on sigmoid",
        right.given(mask_logits=lambda a: a.mask_logits.sigmoid()),
        "You apply a sigmoid first. Compare the logits themselves with the thresholds.",
        "No sigmoid is above 1 or below -1.",
    ),
    Wrong(
        "sigmoid around 1/2",
        right.given(mask_logits=lambda a: a.mask_logits.sigmoid(), mask_threshold=lambda a: 0.5),
        "You compare sigmoids with 1/2 plus and minus the offset. Compare the logits with mask_threshold "
        "plus and minus the offset.",
        TWO,
    ),
    Wrong(
        "threshold left out",
        right.given(mask_threshold=lambda a: 0.0),
        "You leave out mask_threshold. Add the offset to it, and subtract the offset from it.",
        TWO,
    ),
    Wrong("offset of 1", right.given(offset=lambda a: 1.0), "Your offset is always 1. Use the argument `offset`.", TWO),
    Wrong(
        "SAM's numbers",
        right.given(mask_threshold=lambda a: 0.0, offset=lambda a: 1.0),
        "Your thresholds are always 1 and -1, as in SAM. Compute them from the two arguments.",
        TWO,
    ),
    Wrong(
        "half the offset",
        right.given(offset=lambda a: a.offset / 2),
        "Your thresholds are half the offset away from mask_threshold. They should be the whole offset away from it.",
        TWO,
    ),
    Wrong(
        "offset as a factor",
        right.given(offset=lambda a: a.mask_threshold * a.offset),
        "You multiply mask_threshold by 1 + offset and 1 - offset. Add and subtract the offset.",
        TWO,
    ),
    Wrong(
        "at the limit",
        at_least,
        "You count logits that are equal to a threshold. Count only those above it.",
        "> instead of >=.",
    ),
    Wrong(
        "empty is nan",
        _dividing(lambda small, large: small / large),
        "Your score of an empty mask is not a number. It should be 0.",
        EMPTY,
    ),
    Wrong(
        "empty is 1",
        _dividing(lambda small, large: torch.where(large == 0, 1.0, _ratio(small, large))),
        "Your score of an empty mask is 1. It should be 0, so that the mask is discarded.",
        EMPTY,
    ),
    Wrong(
        "one more below",
        _dividing(lambda small, large: small / (large + 1)),
        "You add 1 to the denominator, so no score is 1. Divide by the number of pixels of the larger mask.",
        EMPTY,
    ),
    Wrong(
        "Dice",
        _dividing(lambda small, large: 2 * small / (small + large).clamp(min=1)),
        "You compute the Dice coefficient of the two masks. Compute their IoU.",
        RATIO,
    ),
    Wrong(
        "whole numbers",
        _dividing(lambda small, large: small // large.clamp(min=1)),
        "You use integer division, so most scores are 0. Divide without rounding.",
        "a / b",
    ),
    Wrong(
        "what is lost",
        _dividing(lambda small, large: (large - small) / large.clamp(min=1)),
        "You return the fraction of the larger mask that is lost. Return the fraction that remains.",
        RATIO,
    ),
    Wrong(
        "percent", right.then(lambda out, a: 100 * out), "You return percentages. Return fractions from 0 to 1.", RATIO
    ),
    Wrong(
        "share of all pixels",
        share_of_all_pixels,
        "You divide by the number of all pixels, so every small mask is stable. Divide by the pixels of the "
        "larger mask.",
        RATIO,
    ),
    Wrong("soft", soft, "You sum the sigmoids of the logits. Count the pixels above each threshold.", TWO),
    Wrong("sums of logits", sums_of_logits, "You sum the logits above each threshold. Count the pixels above it.", TWO),
    Wrong(
        "all masks together",
        _dividing(_ratio, count=lambda masks: masks.sum()),
        "You count the pixels of all masks together. Compute one score per mask.",
        "(N,).",
    ),
    Wrong(
        "columns",
        _dividing(_ratio, count=lambda masks: masks.sum(dim=1)),
        "You count the pixels of each column separately. Count all pixels of a mask.",
        "dim=(1, 2).",
    ),
    Wrong(
        "mean of the scores",
        right.then(lambda out, a: out.mean()),
        "You return the mean of the scores. Return one score per mask.",
        "(N,).",
    ),
]

exercise = Exercise(
    name="stability_score",
    points=3,
    cases=cases,
    reference=stability_score,
    tolerance=1e-6,
    kind="mask",
    hides=["segedu.promptable.everything"],
    wrong=WRONG,
)
