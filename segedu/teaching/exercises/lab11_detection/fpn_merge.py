"""fpn_merge: a feature pyramid, its coarse levels brought to the fine ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Maps = list[Tensor]


def fpn_merge(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """Merge the features of a backbone from the coarsest down: what is coarse knows what, what is fine knows where.

    1. A 1x1 convolution brings each level to D channels.
    2. From the coarsest level on, which stays as it is, each merged map is enlarged to the size of the next finer
       level, nearest neighbour (pixel (i, j) takes the value of (i // 2, j // 2)), and added to it. The sum is that
       level's merged map, and goes on in the same way.
    3. A 3x3 convolution, with zeros around, goes over each merged map. Its results do not go on: they are returned.

    No bias, no ReLU.

    Args:
        features: L maps (B, C_l, H_l, W_l), fine to coarse. A level has half the height and width of the one before
            it, rounded up.
        lateral: L weights (D, C_l, 1, 1) of the 1x1 convolutions.
        smooth: L weights (D, D, 3, 3) of the 3x3 convolutions.

    Returns:
        L maps (B, D, H_l, W_l), fine to coarse.

    Example: one channel, and weights that change nothing.

        >>> one = torch.ones(1, 1, 1, 1)
        >>> middle = torch.nn.functional.pad(one, (1, 1, 1, 1))
        >>> features = [torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[[[10.0, 20.0]]]])]
        >>> [level.tolist() for level in fpn_merge(features, [one, one], [middle, middle])]
        [[[[[11.0, 12.0, 23.0]]]], [[[[10.0, 20.0]]]]]
    """
    return _smoothed(_merged(_reduced(features, lateral)), smooth)


def _reduced(features: Maps, lateral: Maps) -> Maps:
    return [F.conv2d(x, weight) for x, weight in zip(features, lateral, strict=True)]


def _nearest(coarse: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(coarse, size, mode="nearest")


def _merged(levels: Maps, enlarge: Callable[[Tensor, Sequence[int]], Tensor] = _nearest) -> Maps:
    merged = [levels[-1]]
    for fine in levels[-2::-1]:
        merged.insert(0, fine + enlarge(merged[0], fine.shape[2:]))
    return merged


def _smoothed(merged: Maps, smooth: Maps) -> Maps:
    return [F.conv2d(x, weight, padding=1) for x, weight in zip(merged, smooth, strict=True)]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Two and three levels, a batch; odd sizes, maps of one pixel, one level.

    Args:
        rng: of all values.

    Returns:
        The cases by group.
    """

    def numbers(*shape: int) -> Tensor:  # quarters without 0, so that sums are exact
        return torch.from_numpy(rng.integers(1, 9, shape) / 4 * rng.choice([-1, 1], shape))

    def case(name: str, batch: int, out: int, levels: list[tuple[int, int, int]]) -> Case:
        features = [numbers(batch, *level) for level in levels]
        lateral = [numbers(out, level[0], 1, 1) for level in levels]
        for weight in lateral:
            weight[0, 0], weight[-1, 0] = 3.0, -3.0  # both signs before any ReLU, in every draw
        return {"name": name, "args": [features, lateral, [numbers(out, out, 3, 3) for _ in levels]]}

    return {
        "core": (
            2,
            [
                case("two levels", 1, 2, [(3, 4, 6), (5, 2, 3)]),
                case("three levels", 1, 3, [(2, 8, 8), (4, 4, 4), (6, 2, 2)]),
                case("four levels of a batch", 2, 2, [(2, 16, 8), (3, 8, 4), (4, 4, 2), (5, 2, 1)]),
            ],
        ),
        "edge": (
            1,
            [
                case("odd sizes", 1, 2, [(2, 9, 13), (3, 5, 7), (4, 3, 4)]),
                case("as many channels as come out", 2, 3, [(3, 5, 6), (3, 3, 3), (3, 2, 2)]),
                case("down to one pixel", 1, 2, [(2, 3, 4), (3, 2, 2), (2, 1, 1)]),
                case("one level", 1, 2, [(3, 5, 4)]),
            ],
        ),
    }


def concatenated(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """U-Net's way: 2 D channels, which the 3x3 convolutions refuse."""
    levels = _reduced(features, lateral)
    merged = [levels[-1]]
    for fine in levels[-2::-1]:
        merged.insert(0, torch.cat([fine, _nearest(merged[0], fine.shape[2:])], dim=1))
    return _smoothed(merged, smooth)


def not_smoothed(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """The merged maps."""
    return _merged(_reduced(features, lateral))


def coarsest_not_smoothed(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """What was not added to is not smoothed either."""
    merged = _merged(_reduced(features, lateral))
    return [*_smoothed(merged, smooth)[:-1], merged[-1]]


def only_finest_smoothed(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """3x3 at the end of the way."""
    merged = _merged(_reduced(features, lateral))
    return [_smoothed(merged, smooth)[0], *merged[1:]]


def smoothed_goes_on(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """The 3x3 convolution is part of the way down."""
    levels = _reduced(features, lateral)
    done = _smoothed(levels[-1:], smooth[-1:])
    for fine, weight in zip(levels[-2::-1], smooth[-2::-1], strict=True):
        done = _smoothed([fine + _nearest(done[0], fine.shape[2:])], [weight]) + done
    return done


def smoothed_before(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """1x1, 3x3, then the sums."""
    return _merged(_smoothed(_reduced(features, lateral), smooth))


def no_way_down(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """Each level by itself."""
    return _smoothed(_reduced(features, lateral), smooth)


def bottom_up(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """Fine maps made small and added to coarse ones."""
    merged = _merged(_reduced(features, lateral)[::-1])
    return _smoothed(merged[::-1], smooth)


def neighbour_only(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """The next coarser level as it was before anything was added to it."""
    levels = _reduced(features, lateral)
    merged = [fine + _nearest(coarse, fine.shape[2:]) for fine, coarse in zip(levels, levels[1:], strict=False)]
    return _smoothed([*merged, levels[-1]], smooth)


def _interpolated(features: Maps, lateral: Maps, smooth: Maps, **how: object) -> Maps:
    return _smoothed(_merged(_reduced(features, lateral), lambda x, size: F.interpolate(x, size, **how)), smooth)


def nearest_exact(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """Differs only where the finer map is not just twice as large."""
    return _interpolated(features, lateral, smooth, mode="nearest-exact")


def bilinear(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """Smooth enlargement."""
    return _interpolated(features, lateral, smooth, mode="bilinear", align_corners=False)


def corners_aligned(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """Bilinear, from corner pixel to corner pixel."""
    return _interpolated(features, lateral, smooth, mode="bilinear", align_corners=True)


def with_zeros(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """One pixel in four gets the value."""

    def enlarge(coarse: Tensor, size: Sequence[int]) -> Tensor:
        large = coarse.new_zeros(*coarse.shape[:2], *size)
        large[:, :, ::2, ::2] = coarse
        return large

    return _smoothed(_merged(_reduced(features, lateral), enlarge), smooth)


def always_twice(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """By the factor 2; what is a pixel too large cannot be added."""
    return _smoothed(_merged(_reduced(features, lateral), lambda x, size: F.interpolate(x, scale_factor=2)), smooth)


def cut_at_the_top(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """Twice as large, and the first row and column cut where that is too much."""

    def enlarge(coarse: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(coarse, scale_factor=2)[:, :, -size[0] :, -size[1] :]

    return _smoothed(_merged(_reduced(features, lateral), enlarge), smooth)


def coarse_first(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """In the order in which they are made."""
    return fpn_merge(features, lateral, smooth)[::-1]


def smooth_reversed(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """A list made from coarse to fine meets weights from fine to coarse."""
    return fpn_merge(features, lateral, smooth[::-1])


def first_smooth_for_all(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """One weight for all levels."""
    return fpn_merge(features, lateral, smooth[:1] * len(smooth))


def rectified(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """A ReLU after the 1x1 convolution."""
    return _smoothed(_merged([x.relu() for x in _reduced(features, lateral)]), smooth)


def rectified_at_the_end(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """A ReLU after the 3x3 convolution."""
    return [x.relu() for x in fpn_merge(features, lateral, smooth)]


def no_padding(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """A border of one pixel is lost; nothing is left of the smallest maps."""
    merged = _merged(_reduced(features, lateral))
    padded = [F.pad(x, (0, max(0, 3 - x.shape[3]), 0, max(0, 3 - x.shape[2]))) for x in merged]
    return [F.conv2d(x, weight) for x, weight in zip(padded, smooth, strict=True)]


def border_repeated(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """The outermost pixels are repeated, in place of zeros."""
    merged = _merged(_reduced(features, lateral))
    padded = [F.pad(x, (1, 1, 1, 1), mode="replicate") for x in merged]
    return [F.conv2d(x, weight) for x, weight in zip(padded, smooth, strict=True)]


def averaged(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """The mean of the two maps."""
    levels = _reduced(features, lateral)
    merged = [levels[-1]]
    for fine in levels[-2::-1]:
        merged.insert(0, (fine + _nearest(merged[0], fine.shape[2:])) / 2)
    return _smoothed(merged, smooth)


def finest_only(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """U-Net's end."""
    return fpn_merge(features, lateral, smooth)[:1]


WAY = "Begin with the last level. merged = fine + enlarge(merged), again and again, until the first one is reached."
SIZE = "F.interpolate takes a size too: that of the map to which the result is added."
STEP_3 = "Step 3: a 3x3 convolution over each merged map, at the very end. Nothing goes on from there."

exercise = Exercise(
    name="fpn_merge",
    points=3,
    cases=cases,
    reference=fpn_merge,
    kind="map",
    hides=["segedu.backbones.fpn"],
    wrong=[
        Wrong(
            "concatenated",
            concatenated,
            "You concatenate the maps: here they are added, so each merged map has D channels.",
            "U-Net concatenates, FPN adds. That is what the 1x1 convolutions are for.",
        ),
        Wrong("no 3x3", not_smoothed, "You return the merged maps: a 3x3 convolution goes over each of them.", STEP_3),
        Wrong(
            "coarsest not smoothed",
            coarsest_not_smoothed,
            "You leave the coarsest map without its 3x3 convolution: each level has one.",
            STEP_3,
        ),
        Wrong(
            "only the finest smoothed",
            only_finest_smoothed,
            "Only your finest map has its 3x3 convolution: each level has one.",
            STEP_3,
        ),
        Wrong(
            "smoothed maps go on",
            smoothed_goes_on,
            "You enlarge the results of the 3x3 convolutions: the merged maps go on, as they were before it.",
            "Keep two lists: the merged maps, and at the end what comes of them.",
        ),
        Wrong(
            "smoothed before the sum",
            smoothed_before,
            "Your 3x3 convolutions come before the sums: they go over the merged maps.",
            STEP_3,
        ),
        Wrong(
            "no way down",
            no_way_down,
            "Your levels do not know of each other: the coarser one is enlarged and added to the finer one.",
            WAY,
        ),
        Wrong(
            "bottom-up",
            bottom_up,
            "You go from fine to coarse: what the coarse levels know is to be brought to the fine ones.",
            "The backbone went up already. " + WAY,
        ),
        Wrong(
            "neighbour only",
            neighbour_only,
            "You add the next level as it came from the 1x1 convolution: add its merged map.",
            WAY,
        ),
        Wrong("nearest-exact", nearest_exact, "You enlarge by 'nearest-exact': pixel i takes from pixel i // 2.", SIZE),
        Wrong("bilinear", bilinear, "You enlarge bilinearly: the statement asks for the nearest neighbour.", SIZE),
        Wrong(
            "corners aligned",
            corners_aligned,
            "You enlarge bilinearly with align_corners=True: the statement asks for the nearest neighbour.",
            "Each pixel becomes 2x2 pixels of the same value.",
        ),
        Wrong(
            "zeros between",
            with_zeros,
            "You enlarge with zeros between the pixels: the nearest neighbour repeats each value.",
            "Each pixel becomes 2x2 pixels of the same value.",
        ),
        Wrong(
            "always twice",
            always_twice,
            "You enlarge by the factor 2: where the finer map has an odd size, a row or column is too much.",
            SIZE,
        ),
        Wrong(
            "cut at the top",
            cut_at_the_top,
            "Where twice is too much you cut the first row or column: the last one goes.",
            "Pixel (0, 0) of both maps begins at the same place. " + SIZE,
        ),
        Wrong(
            "coarse first",
            coarse_first,
            "You return the coarsest map first: fine to coarse, as the features came.",
            "insert(0, ...) puts to the front, append to the end.",
        ),
        Wrong(
            "3x3 weights reversed",
            smooth_reversed,
            "Your finest map gets the 3x3 weights of the coarsest: weight l belongs to level l.",
            "Bring the merged maps into the order of the features before you zip them with the weights.",
        ),
        Wrong(
            "one 3x3 for all",
            first_smooth_for_all,
            "You use the first 3x3 weight for all levels: each has its own.",
            "zip(merged, smooth)",
        ),
        Wrong(
            "ReLU after 1x1",
            rectified,
            "You have a ReLU after the 1x1 convolutions: there is none here.",
            "What is negative may be made positive by what is added later.",
        ),
        Wrong(
            "ReLU at the end",
            rectified_at_the_end,
            "Your maps have no negative values: there is no ReLU here.",
            "The heads that come after the pyramid have their own.",
        ),
        Wrong(
            "no padding",
            no_padding,
            "Your 3x3 convolutions make the maps smaller: zeros around them keep their size.",
            "padding=1",
        ),
        Wrong(
            "border repeated",
            border_repeated,
            "You repeat the border around your maps: the 3x3 convolution has zeros there.",
            "padding=1",
        ),
        Wrong("averaged", averaged, "You take the mean of the two maps: their sum is asked for.", WAY),
        Wrong(
            "finest only",
            finest_only,
            "You return the finest map alone: a pyramid has all of its levels.",
            "Large objects are found on coarse levels, small ones on fine levels.",
        ),
    ],
)
