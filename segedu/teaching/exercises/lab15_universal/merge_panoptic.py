"""merge_panoptic: one map from the instances of one branch and the semantic map of another."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab15_universal import merge_steps as steps
from segedu.teaching.exercises.lab15_universal.merge_steps import VOID, Merged, free, merge_by, taken
from segedu.teaching.exercises.lab15_universal.panoptic_scenes import cases


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
    """Merge instances and a semantic map into a panoptic map, in which each pixel belongs to one segment or to none.

    1. Things, by decreasing score. Of equal scores, the first one in the list comes first. An instance is dropped if
       its score is below `score_threshold`, if more than the fraction `overlap_threshold` of its pixels is already
       taken, or if none of its pixels is left. Any other instance takes its pixels that are left.
    2. Stuff, by increasing category. Each category of `semantic` that is neither a thing nor 255 ("unknown") takes its
       pixels that are left, if there are at least `stuff_area` of them.

    All other pixels are 0. The segments are numbered 1, 2, 3 ... in the order in which they are added.

    Args:
        masks: (N, H, W) bool. N may be 0.
        labels: (N,) integers, the category of each instance.
        scores: (N,) floats.
        semantic: (H, W) integers, the category of each pixel.
        things: the categories that are things.
        score_threshold: from 0 to 1.
        overlap_threshold: from 0 to 1.
        stuff_area: in pixels, at least 1.

    Returns:
        (H, W) integers, the number of each pixel's segment, and a list of one dict per segment,
        `{"id": number, "category_id": category, "isthing": True or False}`, in the order of the numbers.

    Example: four pixels. The instance takes two. One is stuff of category 1. One is a thing without an instance.

        >>> mask, row = torch.tensor([[[True, True, False, False]]]), torch.tensor([[1, 3, 1, 3]])
        >>> seg, segments = merge_panoptic(mask, torch.tensor([3]), torch.tensor([0.9]), row, [3], 0.5, 0.5, 1)
        >>> seg.tolist(), [(segment["id"], segment["category_id"]) for segment in segments]
        ([[1, 1, 2, 0]], [(1, 3), (2, 1)])
    """
    seg, segments = torch.zeros(semantic.shape, dtype=torch.int64), []

    def add(mask: Tensor, category: int, isthing: bool) -> None:
        segments.append({"id": len(segments) + 1, "category_id": category, "isthing": isthing})
        seg[mask] = len(segments)

    for n in scores.argsort(descending=True, stable=True).tolist():
        free = masks[n] & (seg == 0)
        area, left = int(masks[n].sum()), int(free.sum())
        if scores[n] >= score_threshold and left > 0 and area - left <= overlap_threshold * area:
            add(free, int(labels[n]), True)
    for category in semantic.unique().tolist():
        free = (semantic == category) & (seg == 0)
        if category not in [*things, VOID] and free.sum() >= stuff_area:
            add(free, category, False)
    return seg, segments


right = Variants(merge_panoptic)


def _first_of_class(segment: dict, segments: list[dict]) -> int:
    return next(s["id"] for s in segments if s["category_id"] == segment["category_id"])


unsorted = merge_by(order=lambda m: list(range(len(m.scores))))
lowest_score_first = merge_by(order=lambda m: m.scores.argsort(stable=True).tolist())
last_of_equals_first = merge_by(order=lambda m: m.scores.argsort(stable=True).flip(0).tolist())
largest_first = merge_by(order=lambda m: m.masks.flatten(1).sum(1).argsort(descending=True, stable=True).tolist())
every_score = right.given(score_threshold=lambda a: 0.0)
above = right.given(score_threshold=lambda a: a.score_threshold + 1e-9)
any_overlap = right.given(overlap_threshold=lambda a: 0.0)
overlaps_never_drop = right.given(overlap_threshold=lambda a: 1.0)
below = right.given(overlap_threshold=lambda a: a.overlap_threshold - 1e-9)
pair_by_pair = merge_by(fits=steps.fits_by_pairs(lambda mask, other: mask))
by_others = merge_by(fits=steps.fits_by_pairs(lambda mask, other: other))
own_class = merge_by(fits=steps.fits_by_own_class)
left_over = merge_by(fits=lambda m, n: 1 - taken(m, n) <= m.overlap_threshold)
always_one_half = right.given(overlap_threshold=lambda a: 0.5)
no_small = merge_by(takes=lambda m, mask: free(m, mask) & (free(m, mask).sum() >= m.stuff_area))
empty_kept = merge_by(keep_empty=True)
stuff_overwrites = merge_by(counted=lambda m, mask: mask, stuff_takes=lambda m, mask: mask)
small_stuff_kept = right.given(stuff_area=lambda a: 1)
area_before = merge_by(counted=lambda m, mask: mask)
area_exactly = right.given(stuff_area=lambda a: a.stuff_area + 1)
things_as_stuff = right.given(things=lambda a: [])
without_zero = right.given(semantic=lambda a: a.semantic.where(a.semantic > 0, VOID))
no_stuff = right.given(semantic=lambda a: torch.full_like(a.semantic, VOID))
categories = right.then(steps.renumbered(lambda segment, segments: segment["category_id"]))
per_class = right.then(steps.renumbered(_first_of_class))
numbers_from_0 = right.then(lambda out, a: (out[0] - 1, [s | {"id": s["id"] - 1} for s in out[1]]))
gaps = merge_by(end=steps.numbered_with_gaps)
seg_only = right.then(lambda out, a: out[0])

RULE = "Drop an instance if other segments together have more than overlap_threshold of its pixels."
ORDER = "scores.argsort(descending=True, stable=True)."
STABLE = "Without stable=True, argsort promises no order of equal scores, and flip reverses it."
SCORE = "scores[n] >= score_threshold"
STUFF = "Stuff takes what is left: (semantic == category) & (seg == 0). Count those pixels."
ONLY = "Only things and 255 are excluded."
NUMBERS = "1, 2, 3 ... for all segments together, in the order in which they are added."

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
            merge_by(fits=steps.fits_by_boxes),
            "You compare bounding boxes. Compare the masks, pixel by pixel.",
            "Boxes of adjacent things overlap, but their masks do not.",
        ),
        Wrong(
            "unsorted",
            unsorted,
            "You process the instances in the order of the list. Process them by decreasing score.",
            ORDER,
        ),
        Wrong(
            "lowest score first",
            lowest_score_first,
            "You begin with the least confident instance. Begin with the most confident one.",
            ORDER,
        ),
        Wrong(
            "last of equals first",
            last_of_equals_first,
            "Of instances with equal scores you take the last one first. The first one in the list should come first.",
            STABLE,
        ),
        Wrong("largest first", largest_first, "You sort the instances by area. Sort them by decreasing score.", ORDER),
        Wrong("every score", every_score, "You keep instances whose score is below score_threshold. Drop them.", SCORE),
        Wrong(
            "score at the threshold",
            above,
            "You drop instances whose score is exactly score_threshold. Keep them.",
            SCORE,
        ),
        Wrong(
            "any overlap",
            any_overlap,
            "You drop every instance that overlaps another segment. Drop it only if more than overlap_threshold "
            "of its pixels are taken.",
            RULE,
        ),
        Wrong(
            "overlaps never drop",
            overlaps_never_drop,
            "You keep instances that overlap other segments too much. Drop those that overlap by more than "
            "overlap_threshold.",
            RULE,
        ),
        Wrong(
            "exactly the share",
            below,
            "You drop instances that overlap other segments by exactly overlap_threshold. Keep them.",
            RULE,
        ),
        Wrong(
            "IoU",
            merge_by(fits=steps.fits_by_pairs(torch.logical_or)),
            "You compare IoUs with overlap_threshold. Divide the number of taken pixels by the instance's own area.",
            "A small thing inside a large one has a small IoU, although none of its pixels is left.",
        ),
        Wrong(
            "pair by pair",
            pair_by_pair,
            "You compare an instance with one other instance at a time. Count the pixels that all segments "
            "together have taken.",
            RULE,
        ),
        Wrong(
            "share of the other",
            by_others,
            "You divide the overlap by the area of the other instance. Divide by the area of this instance.",
            RULE,
        ),
        Wrong(
            "own class only",
            own_class,
            "You count only the overlap with segments of the same class. Count the overlap with all segments.",
            RULE,
        ),
        Wrong(
            "divided by all that is taken",
            merge_by(fits=steps.fits_by_union),
            "You divide the overlap by the union with all taken pixels. Divide by the instance's own area.",
            RULE,
        ),
        Wrong(
            "share that is left",
            left_over,
            "You compare the fraction of pixels that is left with overlap_threshold. Compare the fraction that "
            "is taken.",
            RULE,
        ),
        Wrong(
            "share that must be left",
            right.given(overlap_threshold=lambda a: 1 - a.overlap_threshold),
            "You require that at least the fraction overlap_threshold is left. Require that at most this "
            "fraction is taken.",
            "Both rules are the same for 1/2, but not for other thresholds. " + RULE,
        ),
        Wrong(
            "always one half",
            always_one_half,
            "Your overlap threshold is always 1/2. Use the argument overlap_threshold.",
            RULE,
        ),
        Wrong(
            "dropped ones keep pixels",
            merge_by(fits=steps.fits_and_blocks, end=lambda m: (m.seg.clamp(min=0), m.segments)),
            "Your dropped instances still block their pixels. These pixels should stay free for other segments.",
            "Mark pixels as taken only after the instance has got its number.",
        ),
        Wrong(
            "later overwrites",
            merge_by(takes=steps.free_or_overwritten),
            "Your later instances overwrite more confident ones. An instance should take only pixels that are left.",
            "seg[mask & (seg == 0)]",
        ),
        Wrong(
            "small things dropped",
            no_small,
            "You drop things with few pixels. Keep small things.",
            "stuff_area applies to stuff only.",
        ),
        Wrong(
            "empty instances kept",
            empty_kept,
            "You keep instances that have no pixel left. Drop them.",
            "Test whether any pixel is left before you add the segment.",
        ),
        Wrong(
            "stuff overwrites",
            stuff_overwrites,
            "Your stuff overwrites things. It should take only pixels that are left.",
            STUFF,
        ),
        Wrong(
            "small stuff kept", small_stuff_kept, "You keep stuff with fewer pixels than stuff_area. Drop it.", STUFF
        ),
        Wrong(
            "area before things",
            area_before,
            "You count the pixels of stuff before the things take theirs. Count only the pixels that are left.",
            STUFF,
        ),
        Wrong("area exactly", area_exactly, "You drop stuff with exactly stuff_area pixels. Keep it.", STUFF),
        Wrong(
            "things as stuff",
            things_as_stuff,
            "You add thing categories of the semantic map as stuff. Exclude them: a thing needs an instance.",
            ONLY,
        ),
        Wrong(
            "nothing known as stuff",
            merge_by(void=None),
            "You add a segment for the value 255. Exclude it, because 255 means unknown.",
            ONLY,
        ),
        Wrong(
            "category 0 left out",
            without_zero,
            "You exclude category 0 of the semantic map. It is a category like any other.",
            ONLY,
        ),
        Wrong(
            "no stuff",
            no_stuff,
            "You leave out the stuff. After the things, the stuff of the semantic map takes the pixels that are left.",
            STUFF,
        ),
        Wrong(
            "categories for numbers",
            categories,
            "Your map contains categories. It should contain the numbers of the segments.",
            NUMBERS,
        ),
        Wrong(
            "one number a class",
            per_class,
            "Your things of one class share a segment number. Each thing should have its own number.",
            NUMBERS,
        ),
        Wrong(
            "numbers from 0",
            numbers_from_0,
            "Your segment numbers begin with 0, which means no segment. They should begin with 1.",
            NUMBERS,
        ),
        Wrong(
            "dropped ones counted",
            gaps,
            "Your segment numbers have gaps, because dropped instances have a number too. Number only the "
            "segments that you keep.",
            NUMBERS,
        ),
        Wrong(
            "stuff first",
            right.then(steps.stuff_first),
            "You give the first segment numbers to stuff. Number the things first.",
            NUMBERS,
        ),
        Wrong(
            "everything is a thing",
            right.then(lambda out, a: (out[0], [s | {"isthing": True} for s in out[1]])),
            'You mark stuff as things. The entry "isthing" of stuff should be False.',
            "isthing is True for segments of the first step only.",
        ),
        Wrong(
            "map only", seg_only, "You return only the map. Return the list of segments too.", "return seg, segments"
        ),
    ],
)
