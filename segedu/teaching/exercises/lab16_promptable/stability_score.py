"""stability_score: a mask that hardly changes when its threshold does is a good one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def stability_score(mask_logits: Tensor, mask_threshold: float, offset: float) -> Tensor:
    """Measure how little masks change with their threshold, as SAM does to choose among all that it finds.

    Each map of logits is cut twice: above mask_threshold + offset, and above mask_threshold - offset. The score is the
    IoU of these two masks. The first lies within the second, so the IoU is a ratio of two numbers of pixels. A logit
    that is exactly at a threshold is not above it. Where the second mask is empty too, the score is 0.

    Args:
        mask_logits: (N, H, W) floats. Perhaps N = 0.
        mask_threshold: a number; SAM's is 0.
        offset: a number above 0; SAM's is 1.

    Returns:
        (N,) floats from 0 to 1.

    Example: above 1 is one pixel, above -1 are two.

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
    """Thresholds other than 0, logits on the limits, an empty mask, a full one, one pixel, no mask.

    Args:
        rng: of the logits and of their places.

    Returns:
        The cases by group. No logit is within 1/100 of a limit, unless it is exactly there.
    """

    def case(name: str, counts: list[list[int]], size: tuple[int, int], threshold: float, offset: float) -> Case:
        """`counts`: for each mask how many pixels are above both limits, above the middle, above one, on the limits.

        Those on the limits are on the upper one, on the middle and on the lower one in turn; the rest is below.
        """
        maps = []
        for above, high, low, on in counts:
            near = [rng.uniform(1.2, 3.0, above), rng.uniform(0.3, 0.8, high), rng.uniform(-0.8, -0.3, low)]
            exact = np.resize([1.0, 0.0, -1.0], on)
            below = rng.uniform(-3.0, -1.2, size[0] * size[1] - above - high - low - on)
            maps.append(rng.permutation(np.concatenate([*near, exact, below])).reshape(size))
        logits = threshold + offset * np.array(maps).reshape(-1, *size)
        return {"name": name, "args": [torch.from_numpy(logits), threshold, offset]}

    several = [[7, 2, 1, 0], [4, 3, 5, 0], [0, 2, 4, 0]]
    return {
        "core": (
            2,
            [
                case("three masks", several, (4, 6), 0.0, 1.0),
                case("another threshold and offset", [[5, 1, 3, 0], [2, 4, 1, 0]], (3, 5), 1.5, 0.5),
                case("a threshold below 0", [[9, 2, 2, 0], [6, 5, 3, 0]], (5, 4), -2.0, 0.25),
            ],
        ),
        "edge": (
            1,
            [
                case("logits on the limits", [[4, 1, 2, 6], [2, 0, 0, 3]], (4, 5), 0.5, 2.0),
                case("an empty mask and a full one", [[0, 0, 0, 0], [6, 0, 0, 0], [3, 1, 0, 0]], (2, 3), 0.0, 1.5),
                case("one pixel", [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], (1, 1), 0.0, 1.0),
                case("no mask", [], (3, 4), 0.0, 1.0),
            ],
        ),
    }


def _ratio(inner: Tensor, outer: Tensor) -> Tensor:
    return inner / outer.clamp(min=1)


def _cut(
    high: Callable[[float, float], float] = lambda t, o: t + o,
    low: Callable[[float, float], float] = lambda t, o: t - o,
    ratio: Callable[[Tensor, Tensor], Tensor] = _ratio,
    maps: Callable[[Tensor], Tensor] = lambda x: x,
    count: Callable[[Tensor], Tensor] = _pixels,
) -> Callable[..., Tensor]:
    """The right answer, each step replaced by another."""

    def answer(mask_logits: Tensor, mask_threshold: float, offset: float) -> Tensor:
        x = maps(mask_logits)
        limits = high(mask_threshold, offset), low(mask_threshold, offset)
        return ratio(*(count(x > limit) for limit in limits))

    return answer


def _soft(x: Tensor, t: float, o: float) -> Tensor:
    return (x - t - o).sigmoid().sum(dim=(1, 2)) / (x - t + o).sigmoid().sum(dim=(1, 2))


def _at_least(x: Tensor, t: float, o: float) -> Tensor:
    return _ratio(_pixels(x >= t + o), _pixels(x >= t - o))


def _undecided(x: Tensor, t: float, o: float) -> Tensor:
    """Of all pixels, how many are on one side with both thresholds."""
    return 1 - ((x > t - o) & (x <= t + o)).double().mean(dim=(1, 2))


def _of_logits(x: Tensor, t: float, o: float) -> Tensor:
    inner, outer = ((x * (x > limit)).sum(dim=(1, 2)) for limit in (t + o, t - o))
    return inner / torch.where(outer == 0, 1.0, outer)


inverted = _cut(ratio=lambda a, b: b / a.clamp(min=1))
inverted_by_zero = _cut(ratio=lambda a, b: b / a)
one_more_below = _cut(ratio=lambda a, b: a / (b + 1))
sams_numbers = _cut(high=lambda t, o: 1.0, low=lambda t, o: -1.0)
around_one_half = _cut(maps=torch.sigmoid, high=lambda t, o: 0.5 + o, low=lambda t, o: 0.5 - o)
not_offset = _cut(high=lambda t, o: t, low=lambda t, o: t)
upper_half = _cut(low=lambda t, o: t)
lower_half = _cut(high=lambda t, o: t)
on_sigmoid = _cut(maps=torch.sigmoid)
threshold_left_out = _cut(high=lambda t, o: o, low=lambda t, o: -o)
always_one = _cut(high=lambda t, o: t + 1.0, low=lambda t, o: t - 1.0)
half_offset = _cut(high=lambda t, o: t + o / 2, low=lambda t, o: t - o / 2)
factors = _cut(high=lambda t, o: t * (1 + o), low=lambda t, o: t * (1 - o))
empty_is_nan = _cut(ratio=lambda a, b: a / b)
empty_is_one = _cut(ratio=lambda a, b: torch.where(b == 0, 1.0, _ratio(a, b)))
dice = _cut(ratio=lambda a, b: 2 * a / (a + b).clamp(min=1))
whole_numbers = _cut(ratio=lambda a, b: a // b.clamp(min=1))
what_is_lost = _cut(ratio=lambda a, b: (b - a) / b.clamp(min=1))
percent = _cut(ratio=lambda a, b: 100 * _ratio(a, b))
all_together = _cut(count=lambda masks: masks.sum())
column_by_column = _cut(count=lambda masks: masks.sum(dim=1))
average = _cut(ratio=lambda a, b: _ratio(a, b).mean())

TWO = "(logits > mask_threshold + offset) and (logits > mask_threshold - offset)."
RATIO = "The smaller mask lies within the larger one: it is the intersection, and the larger one is the union."
EMPTY = "Divide by at least 1: (larger).clamp(min=1)."

exercise = Exercise(
    name="stability_score",
    points=3,
    cases=cases,
    reference=stability_score,
    tolerance=1e-6,
    kind="mask",
    hides=["segedu.promptable.everything"],
    wrong=[
        Wrong(
            "ratio inverted", inverted, "Your ratio is inverted: the smaller mask is divided by the larger one.", RATIO
        ),
        Wrong(
            "ratio inverted, by 0",
            inverted_by_zero,
            "You divide the larger mask by the smaller one, which may be empty: divide the smaller by the larger.",
            RATIO,
        ),
        Wrong(
            "threshold not offset",
            not_offset,
            "You cut twice at the same threshold: then every mask is stable.",
            TWO,
        ),
        Wrong("upper half", upper_half, "You compare with the mask at the threshold itself: take the one below.", TWO),
        Wrong("lower half", lower_half, "You begin at the threshold itself: take the one above.", TWO),
        Wrong(
            "on sigmoid",
            on_sigmoid,
            "You take a sigmoid first: the thresholds are those of logits.",
            "No sigmoid is above 1 or below -1.",
        ),
        Wrong(
            "sigmoid around 1/2",
            around_one_half,
            "You cut sigmoids at 1/2 plus and minus the offset: cut the logits, around mask_threshold.",
            TWO,
        ),
        Wrong(
            "threshold left out",
            threshold_left_out,
            "You cut at plus and minus the offset: the threshold is not always 0.",
            TWO,
        ),
        Wrong("offset of 1", always_one, "Your offset is always 1: take the one that is given.", TWO),
        Wrong("SAM's numbers", sams_numbers, "You cut at 1 and -1, as SAM does: take the two numbers given.", TWO),
        Wrong("half the offset", half_offset, "You go half the offset to each side: go all of it.", TWO),
        Wrong("offset as a factor", factors, "You multiply the threshold by 1 + offset: add the offset.", TWO),
        Wrong(
            "at the limit",
            _at_least,
            "You count logits that are exactly at a threshold: only those above it count.",
            "> and not >=.",
        ),
        Wrong("empty is nan", empty_is_nan, "The score of an empty mask is not a number: it is 0.", EMPTY),
        Wrong(
            "empty is 1",
            empty_is_one,
            "The score of an empty mask is 1 with you: it is 0, so that nobody keeps it.",
            EMPTY,
        ),
        Wrong("one more below", one_more_below, "You add 1 to what you divide by: then no score is 1.", EMPTY),
        Wrong("Dice", dice, "You take the Dice coefficient: take the IoU.", RATIO),
        Wrong(
            "whole numbers", whole_numbers, "You divide whole numbers with //: nearly all scores are 0 then.", "a / b"
        ),
        Wrong(
            "what is lost", what_is_lost, "You return the share that is lost: the share that stays is asked for.", RATIO
        ),
        Wrong("percent", percent, "You return percents: numbers from 0 to 1 are asked for.", RATIO),
        Wrong(
            "share of all pixels",
            _undecided,
            "You divide by all pixels: a small mask would always be stable.",
            RATIO,
        ),
        Wrong(
            "soft",
            _soft,
            "You add up sigmoids: pixels are counted.",
            TWO,
        ),
        Wrong("sums of logits", _of_logits, "You add up logits: pixels are counted.", TWO),
        Wrong(
            "all masks together", all_together, "You count the pixels of all masks together: each has a score.", "(N,)."
        ),
        Wrong(
            "columns", column_by_column, "You count each column by itself: count all pixels of a mask.", "dim=(1, 2)."
        ),
        Wrong("mean of the scores", average, "You return the mean of the scores: each mask has its own.", "(N,)."),
    ],
)
