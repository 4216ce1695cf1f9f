"""merge_panoptic: one map from the instances of one branch and the classes of another."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.exercises.lab15_universal import merge_steps as steps
from segedu.teaching.exercises.lab15_universal.panoptic_scenes import cases

VOID = 255
Merged = tuple[Tensor, list[dict]]


def merge_panoptic(
    masks: Tensor,
    labels: Tensor,
    scores: Tensor,
    semantic: Tensor,
    things: list[int],
    score_threshold: float,
    overlap_threshold: float,
    stuff_area: int,
) -> Merged:
    """Merge instances and a map of classes into one map, in which each pixel has one segment or none.

    1. Things, by falling score; of equal scores the one that comes first in the list. An instance whose score is
       below `score_threshold` is left out. So is one of which more than the share `overlap_threshold` of its pixels
       is taken already, and one of which no pixel is left. Any other takes what is left of its pixels.
    2. Stuff, by rising category. Each category of `semantic` that is neither a thing nor 255 ("nothing known") takes
       its pixels that are not taken yet, if they are at least `stuff_area`.

    All other pixels are 0. The segments have the numbers 1, 2, 3 ... in the order in which they were made.

    Args:
        masks: (N, H, W) bool. Perhaps N = 0.
        labels: (N,) integers, the category of each instance.
        scores: (N,) floats.
        semantic: (H, W) integers, the category of each pixel.
        things: the categories that are things.
        score_threshold: from 0 to 1.
        overlap_threshold: from 0 to 1.
        stuff_area: pixels, at least 1.

    Returns:
        (H, W) integers, the number of each pixel's segment; and for each segment, in order of the numbers, a dict
        `{"id": number, "category_id": category, "isthing": True or False}`.

    Example: of four pixels the instance takes two, one is stuff of category 1, and one is a thing that nobody found.

        >>> mask, row = torch.tensor([[[True, True, False, False]]]), torch.tensor([[1, 3, 1, 3]])
        >>> seg, found = merge_panoptic(mask, torch.tensor([3]), torch.tensor([0.9]), row, [3], 0.5, 0.5, 1)
        >>> seg.tolist(), [(segment["id"], segment["category_id"]) for segment in found]
        ([[1, 1, 2, 0]], [(1, 3), (2, 1)])
    """
    seg, found = torch.zeros(semantic.shape, dtype=torch.int64), []

    def add(mask: Tensor, category: int, isthing: bool) -> None:
        found.append({"id": len(found) + 1, "category_id": category, "isthing": isthing})
        seg[mask] = len(found)

    for n in scores.argsort(descending=True, stable=True).tolist():
        free = masks[n] & (seg == 0)
        area, left = int(masks[n].sum()), int(free.sum())
        if scores[n] >= score_threshold and left > 0 and area - left <= overlap_threshold * area:
            add(free, int(labels[n]), True)
    for category in semantic.unique().tolist():
        free = (semantic == category) & (seg == 0)
        if category not in [*things, VOID] and free.sum() >= stuff_area:
            add(free, category, False)
    return seg, found


RULE = "An instance goes if more than overlap_threshold of its own pixels are taken, by whichever others."
ORDER = "scores.argsort(descending=True, stable=True)."
STUFF = "Stuff takes what is left: (semantic == category) & (seg == 0). Count those pixels."
NUMBERS = "1, 2, 3 ... for all segments together, in the order in which they are made."

exercise = Exercise(
    name="merge_panoptic",
    points=4,
    cases=cases,
    reference=merge_panoptic,
    kind="matrix",
    hides=["segedu.panoptic.panoptic_fpn"],
    wrong=[
        Wrong(
            "box not mask overlap",
            steps.by_boxes,
            "You compare boxes: masks are compared, pixel by pixel.",
            "Boxes of things that stand close together overlap, their masks do not.",
        ),
        Wrong(
            "unsorted",
            steps.unsorted,
            "You take the instances in the order of the list: the surest comes first.",
            ORDER,
        ),
        Wrong(
            "lowest score first",
            steps.lowest_first,
            "Your least sure instance comes first: sort by falling score.",
            ORDER,
        ),
        Wrong(
            "last of equals first",
            steps.last_of_equals,
            "Of equal scores you take the last one first: the first of the list comes first.",
            "argsort gives no promise without stable=True, and a flipped order turns equal scores round.",
        ),
        Wrong("largest first", steps.largest_first, "Your largest instance comes first: the surest does.", ORDER),
        Wrong(
            "every score",
            steps.every_score,
            "You keep instances whose score is below score_threshold.",
            "scores[n] >= score_threshold",
        ),
        Wrong(
            "score at the threshold",
            steps.above_the_score,
            "You drop an instance whose score is exactly score_threshold: it is not below.",
            "scores[n] >= score_threshold",
        ),
        Wrong(
            "any overlap",
            steps.any_overlap,
            "You drop every instance that is touched by another: it may lose up to overlap_threshold.",
            RULE,
        ),
        Wrong(
            "overlaps never drop",
            steps.never_dropped,
            "You keep what is left of every instance: if too much is taken, it was the same thing twice.",
            RULE,
        ),
        Wrong(
            "exactly the share",
            steps.below_the_share,
            "You drop an instance of which exactly overlap_threshold is taken: more than that is too much.",
            RULE,
        ),
        Wrong(
            "IoU",
            steps.intersection_over_union,
            "You compare IoUs: the share of the instance's own pixels counts.",
            "A small thing within a large one has a small IoU, and yet nothing of its own.",
        ),
        Wrong(
            "pair by pair",
            steps.pair_by_pair,
            "You compare the instance with one other at a time: what all others have taken counts together.",
            RULE,
        ),
        Wrong(
            "share of the other",
            steps.share_of_the_others,
            "You divide by the pixels of the other instance: divide by those of this one.",
            RULE,
        ),
        Wrong(
            "own class only",
            steps.own_class_only,
            "You look at instances of the same class only: a pixel that any segment took is taken.",
            RULE,
        ),
        Wrong(
            "divided by all that is taken",
            steps.over_the_union,
            "You divide by the union with everything that is taken: divide by the instance's own pixels.",
            RULE,
        ),
        Wrong(
            "share that is left",
            steps.free_share,
            "You compare the share that is left: the share that is taken must not be above overlap_threshold.",
            RULE,
        ),
        Wrong(
            "share that must be left",
            steps.left_at_least,
            "You ask that at least overlap_threshold is left: at most overlap_threshold may be taken.",
            "With 1/2 that is the same, with any other share it is not. " + RULE,
        ),
        Wrong(
            "always one half",
            steps.half_fixed,
            "You always let one half be taken: the share is overlap_threshold.",
            RULE,
        ),
        Wrong(
            "dropped ones keep pixels",
            steps.dropped_blocks,
            "Your instances keep pixels although they were dropped: those are free for others.",
            "Mark pixels as taken once the instance has its number, not before.",
        ),
        Wrong(
            "later overwrites",
            steps.later_overwrites,
            "Your later instances overwrite the surer ones: they take what is left.",
            "seg[mask & (seg == 0)]",
        ),
        Wrong(
            "small things dropped",
            steps.small_things_dropped,
            "You drop small things: stuff_area is for stuff.",
            "One pixel of a thing is a thing.",
        ),
        Wrong(
            "empty instances kept",
            steps.empty_kept,
            "You keep instances that have no pixel left: they would be segments that nobody sees.",
            "Check that something is left before you give out a number.",
        ),
        Wrong(
            "stuff overwrites",
            steps.stuff_overwrites,
            "Your stuff overwrites things: things come first, and stuff takes what is left.",
            STUFF,
        ),
        Wrong("small stuff kept", steps.small_kept, "You keep stuff of fewer pixels than stuff_area.", STUFF),
        Wrong(
            "area before things",
            steps.area_before,
            "You count the pixels of stuff before things take theirs: count what is left.",
            STUFF,
        ),
        Wrong(
            "area exactly",
            steps.above_the_area,
            "You drop stuff of exactly stuff_area pixels: only fewer are too few.",
            STUFF,
        ),
        Wrong(
            "things as stuff",
            steps.things_as_stuff,
            "You make stuff of pixels that the map calls a thing: without an instance they stay 0.",
            "category not in things",
        ),
        Wrong(
            "nothing known as stuff",
            steps.void_as_stuff,
            "You make a segment of 255, which says that nothing is known.",
            "category != 255",
        ),
        Wrong(
            "category 0 left out",
            steps.zero_is_nothing,
            "You leave out category 0: it is a category like any other, 0 means nothing in the result only.",
            "Only things and 255 are left out.",
        ),
        Wrong("no stuff", steps.no_stuff, "You leave out the stuff.", STUFF),
        Wrong(
            "categories for numbers",
            steps.category_for_number,
            "Your map holds categories: it holds the numbers of the segments.",
            NUMBERS,
        ),
        Wrong(
            "one number a class",
            steps.one_number_a_class,
            "Things of one class share a number with you: each has its own.",
            NUMBERS,
        ),
        Wrong(
            "numbers from 0",
            steps.from_zero,
            "Your numbers begin with 0: that is for pixels without a segment.",
            NUMBERS,
        ),
        Wrong(
            "dropped ones counted",
            steps.with_gaps,
            "Your numbers have gaps: an instance that is dropped has none.",
            NUMBERS,
        ),
        Wrong("stuff first", steps.stuff_first, "Your stuff has the first numbers: things come first.", NUMBERS),
        Wrong(
            "everything is a thing",
            steps.all_things,
            "You call stuff a thing: its isthing is False.",
            "isthing says which of the two steps made the segment.",
        ),
        Wrong(
            "map only",
            steps.map_only,
            "You return the map only: the list of segments belongs to it.",
            "return seg, segments",
        ),
    ],
)
