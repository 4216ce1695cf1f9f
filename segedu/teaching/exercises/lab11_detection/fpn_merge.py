"""fpn_merge: a feature pyramid, which adds the features of coarse levels to those of fine levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Maps = list[Tensor]
Upsample = Callable[[Tensor, Sequence[int]], Tensor]  # (map, size of the finer map) -> map of this size


def fpn_merge(features: Maps, lateral: Maps, smooth: Maps) -> Maps:
    """Merge the feature maps of a backbone from the coarsest to the finest, as in a feature pyramid network.

    Coarse maps carry more meaning, fine maps are more precise in position; a merged map has both.

    1. A 1x1 convolution brings each level to D channels.
    2. The coarsest map is its own merged map. Each merged map is upsampled to the size of the next finer level by
       nearest neighbour (pixel (i, j) gets the value of (i // 2, j // 2)) and added to that level. The sum is the
       merged map of that level, and is upsampled in the same way.
    3. A 3x3 convolution with zero padding is applied to each merged map. Its results are returned; they are not
       upsampled.

    There is no bias and no ReLU.

    Args:
        features: L maps (B, C_l, H_l, W_l), from fine to coarse. Each level has half the height and width of the
            previous one, rounded up.
        lateral: L weights (D, C_l, 1, 1) of the 1x1 convolutions.
        smooth: L weights (D, D, 3, 3) of the 3x3 convolutions.

    Returns:
        L maps (B, D, H_l, W_l), from fine to coarse.

    Example: one channel, and convolutions that change nothing.

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


def _merged(levels: Maps, upsample: Upsample = _nearest) -> Maps:
    merged = [levels[-1]]
    for fine in levels[-2::-1]:
        merged.insert(0, fine + upsample(merged[0], fine.shape[2:]))
    return merged


def _smoothed(merged: Maps, smooth: Maps) -> Maps:
    return [F.conv2d(x, weight, padding=1) for x, weight in zip(merged, smooth, strict=True)]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """One to four levels, a batch, odd sizes, a map of one pixel."""

    def numbers(*shape: int) -> Tensor:  # quarters without 0, so that sums are exact
        return torch.from_numpy(rng.integers(1, 9, shape) / 4 * rng.choice([-1, 1], shape))

    def pyramid(batch: int, out: int, levels: list[tuple[int, int, int]]) -> list[Maps]:
        """Features and weights; a level is (channels, height, width)."""
        features = [numbers(batch, *level) for level in levels]
        lateral = [numbers(out, level[0], 1, 1) for level in levels]
        for weight in lateral:
            weight[0, 0], weight[-1, 0] = 3.0, -3.0  # both signs before any ReLU, in every draw
        return [features, lateral, [numbers(out, out, 3, 3) for _ in levels]]

    core = [
        case("two levels", *pyramid(1, 2, [(3, 4, 6), (5, 2, 3)])),
        case("three levels", *pyramid(1, 3, [(2, 8, 8), (4, 4, 4), (6, 2, 2)])),
        case("four levels of a batch", *pyramid(2, 2, [(2, 16, 8), (3, 8, 4), (4, 4, 2), (5, 2, 1)])),
    ]
    edge = [
        case("odd sizes", *pyramid(1, 2, [(2, 9, 13), (3, 5, 7), (4, 3, 4)])),
        case("D input channels at every level", *pyramid(2, 3, [(3, 5, 6), (3, 3, 3), (3, 2, 2)])),
        case("down to one pixel", *pyramid(1, 2, [(2, 3, 4), (3, 2, 2), (2, 1, 1)])),
        case("one level", *pyramid(1, 2, [(3, 5, 4)])),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(fpn_merge)


def _merging(merge: Callable[[Maps], Maps]) -> Callable[..., Maps]:
    """`merge(results of the 1x1 convolutions)` in place of the right merged maps."""
    return right.instead(lambda a: _smoothed(merge(_reduced(a.features, a.lateral)), a.smooth))


def _upsampling(upsample: Upsample) -> Callable[..., Maps]:
    return _merging(lambda levels: _merged(levels, upsample))


def _smoothing(smoothed: Callable[[Maps, Maps], Maps]) -> Callable[..., Maps]:
    """`smoothed(right merged maps, weights)` in place of the 3x3 convolutions."""
    return right.instead(lambda a: smoothed(_merged(_reduced(a.features, a.lateral)), a.smooth))


def _joining(join: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Maps]:
    """`join(fine map, upsampled map)` in place of their sum."""

    def merge(levels: Maps) -> Maps:
        merged = [levels[-1]]
        for fine in levels[-2::-1]:
            merged.insert(0, join(fine, _nearest(merged[0], fine.shape[2:])))
        return merged

    return _merging(merge)


def _upsamples_smoothed_maps(a: SimpleNamespace) -> Maps:
    levels = _reduced(a.features, a.lateral)
    done = _smoothed(levels[-1:], a.smooth[-1:])
    for fine, weight in zip(levels[-2::-1], a.smooth[-2::-1], strict=True):
        done = _smoothed([fine + _nearest(done[0], fine.shape[2:])], [weight]) + done
    return done


def _next_level_only(levels: Maps) -> Maps:
    sums = [fine + _nearest(coarse, fine.shape[2:]) for fine, coarse in zip(levels, levels[1:], strict=False)]
    return [*sums, levels[-1]]


def _with_zeros(coarse: Tensor, size: Sequence[int]) -> Tensor:
    large = coarse.new_zeros(*coarse.shape[:2], *size)
    large[:, :, ::2, ::2] = coarse
    return large


def _without_padding(merged: Maps, smooth: Maps) -> Maps:
    """Maps of fewer than 3 pixels are padded to 3, so that there is a result."""
    padded = [F.pad(x, (0, max(0, 3 - x.shape[3]), 0, max(0, 3 - x.shape[2]))) for x in merged]
    return [F.conv2d(x, weight) for x, weight in zip(padded, smooth, strict=True)]


def _border_repeated(merged: Maps, smooth: Maps) -> Maps:
    padded = [F.pad(x, (1, 1, 1, 1), mode="replicate") for x in merged]
    return [F.conv2d(x, weight) for x, weight in zip(padded, smooth, strict=True)]


TOP_DOWN = "Begin with the last level. Compute merged = fine + upsample(merged) until you reach the first level."
SIZE = "F.interpolate also takes a size: use that of the map to which the result is added."
STEP_3 = "Step 3: a 3x3 convolution of each merged map at the very end. Its results are not upsampled."
REPEAT = "Each pixel becomes 2x2 pixels of the same value."

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
            _joining(lambda fine, coarse: torch.cat([fine, coarse], dim=1)),
            "You concatenate the maps. They should be added, so that each merged map has D channels.",
            "U-Net concatenates, FPN adds. The 1x1 convolutions make this possible.",
        ),
        Wrong(
            "no 3x3",
            _smoothing(lambda merged, smooth: merged),
            "You return the merged maps. Apply a 3x3 convolution to each of them first.",
            STEP_3,
        ),
        Wrong(
            "coarsest not smoothed",
            _smoothing(lambda merged, smooth: [*_smoothed(merged, smooth)[:-1], merged[-1]]),
            "You do not apply the 3x3 convolution to the coarsest map. Every level has one.",
            STEP_3,
        ),
        Wrong(
            "only the finest smoothed",
            _smoothing(lambda merged, smooth: [_smoothed(merged, smooth)[0], *merged[1:]]),
            "You apply the 3x3 convolution to the finest map only. Every level has one.",
            STEP_3,
        ),
        Wrong(
            "smoothed maps go on",
            right.instead(_upsamples_smoothed_maps),
            "You upsample the results of the 3x3 convolutions. Upsample the merged maps before this convolution.",
            "Keep two lists: the merged maps, and the maps that you return.",
        ),
        Wrong(
            "smoothed before the sum",
            right.instead(lambda a: _merged(_smoothed(_reduced(a.features, a.lateral), a.smooth))),
            "You apply the 3x3 convolutions before you add the maps. Apply them to the merged maps.",
            STEP_3,
        ),
        Wrong(
            "no way down",
            _merging(lambda levels: levels),
            "You process each level independently. Upsample each coarse level and add it to the next finer one.",
            TOP_DOWN,
        ),
        Wrong(
            "bottom-up",
            _merging(lambda levels: _merged(levels[::-1])[::-1]),
            "You add fine levels to coarse ones. Upsample the coarse levels and add them to the fine ones.",
            "The backbone was the bottom-up path. " + TOP_DOWN,
        ),
        Wrong(
            "neighbour only",
            _merging(_next_level_only),
            "To each level you add the 1x1 convolution of the next coarser level. Add the merged map of that "
            "level instead.",
            TOP_DOWN,
        ),
        Wrong(
            "nearest-exact",
            _upsampling(partial(F.interpolate, mode="nearest-exact")),
            "You upsample with mode 'nearest-exact'. Pixel i should get the value of pixel i // 2.",
            SIZE,
        ),
        Wrong(
            "bilinear",
            _upsampling(partial(F.interpolate, mode="bilinear", align_corners=False)),
            "You upsample bilinearly. Use the nearest neighbour.",
            SIZE,
        ),
        Wrong(
            "corners aligned",
            _upsampling(partial(F.interpolate, mode="bilinear", align_corners=True)),
            "You upsample bilinearly with align_corners=True. Use the nearest neighbour.",
            REPEAT,
        ),
        Wrong(
            "zeros between",
            _upsampling(_with_zeros),
            "You put zeros between the pixels when you upsample. The nearest neighbour repeats each value.",
            REPEAT,
        ),
        Wrong(
            "always twice",
            _upsampling(lambda x, size: F.interpolate(x, scale_factor=2)),
            "You always upsample by a factor of 2, which is too large if the finer map has an odd side. Upsample "
            "to the size of the finer map.",
            SIZE,
        ),
        Wrong(
            "cut at the top",
            _upsampling(lambda x, size: F.interpolate(x, scale_factor=2)[:, :, -size[0] :, -size[1] :]),
            "If the upsampled map is too large, you remove its first row or column. Remove the last one.",
            "Pixel (0, 0) of both maps begins at the same position. " + SIZE,
        ),
        Wrong(
            "coarse first",
            right.then(lambda out, a: out[::-1]),
            "You return the coarsest map first. Return the maps from fine to coarse, in the order of the features.",
            "insert(0, ...) adds to the front of a list, append to its end.",
        ),
        Wrong(
            "3x3 weights reversed",
            right.given(smooth=lambda a: a.smooth[::-1]),
            "You apply the 3x3 weights of the coarsest level to the finest map. Weight l belongs to level l.",
            "Bring the merged maps into the order of the features before you zip them with the weights.",
        ),
        Wrong(
            "one 3x3 for all",
            right.given(smooth=lambda a: a.smooth[:1] * len(a.smooth)),
            "You use the first 3x3 weight for all levels. Each level has its own.",
            "zip(merged, smooth)",
        ),
        Wrong(
            "ReLU after 1x1",
            _merging(lambda levels: _merged([x.relu() for x in levels])),
            "You apply a ReLU after the 1x1 convolutions. There is no ReLU in this exercise.",
            "A negative value can become positive when a coarser map is added.",
        ),
        Wrong(
            "ReLU at the end",
            right.then(lambda out, a: [x.relu() for x in out]),
            "You apply a ReLU to the final maps. There is no ReLU in this exercise.",
            "The heads after the pyramid have their own.",
        ),
        Wrong(
            "no padding",
            _smoothing(_without_padding),
            "Your 3x3 convolutions make the maps smaller. Zero padding keeps their size.",
            "padding=1",
        ),
        Wrong(
            "border repeated",
            _smoothing(_border_repeated),
            "You repeat the border of your maps before the 3x3 convolution. Pad with zeros.",
            "padding=1",
        ),
        Wrong(
            "averaged",
            _joining(lambda fine, coarse: (fine + coarse) / 2),
            "You compute the mean of the two maps. Compute their sum.",
            TOP_DOWN,
        ),
        Wrong(
            "finest only",
            right.then(lambda out, a: out[:1]),
            "You return the finest map only. Return all levels of the pyramid.",
            "Large objects are detected on coarse levels, small ones on fine levels.",
        ),
    ],
)
