"""Bring a volume to another spacing: images by interpolation, labels never, thick slices as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

THICK = 3  # ratio of spacings from which the coarsest axis is not interpolated


def resample_spacing(volume: np.ndarray, spacing: list, new_spacing: list, is_labels: bool) -> np.ndarray:
    """Bring a volume to another spacing.

    The new size of an axis is size * spacing / new_spacing, to the nearest whole number, at least 1. Both grids
    cover the same millimetres: the centre of new voxel i lies at (i + 0.5) * size / new_size - 0.5 in old voxels.
    Images are interpolated linearly along each axis; beyond the first and the last centre the value stays. Labels
    take the nearest voxel. Where the coarsest spacing is more than 3 times the finest one, images too take the
    nearest voxel along the coarsest axis.

    Args:
        volume: (D, H, W), floats, or integers for labels.
        spacing: mm from voxel to voxel along D, H, W.
        new_spacing: the same after resampling.
        is_labels: whether the volume holds labels.

    Returns:
        (D', H', W'), floats for an image, integers for labels.
    """
    return _resample(volume, spacing, new_spacing, is_labels)


def _resample(
    volume: np.ndarray,
    spacing: list,
    new_spacing: list,
    is_labels: bool,
    size: Callable = lambda n, a, b: max(round(n * a / b), 1),
    places: Callable = lambda n, m: (np.arange(m) + 0.5) * n / m - 0.5,
    nearest: Callable = lambda axis, thick, is_labels: is_labels or axis == thick,
) -> np.ndarray:
    """The right answer, but for the size of an axis, the places of voxels, and where the nearest one is taken."""
    thick = int(np.argmax(spacing)) if max(spacing) / min(spacing) > THICK else None
    found = np.asarray(volume) if is_labels else np.asarray(volume, dtype=float)
    for axis in range(3):
        n = found.shape[axis]
        m = size(n, spacing[axis], new_spacing[axis])
        place = np.clip(places(n, m), 0, n - 1)
        if nearest(axis, thick, is_labels):
            found = found.take(np.floor(place + 0.5).astype(int), axis)
        else:
            low = np.minimum(np.floor(place).astype(int), max(n - 2, 0))
            part = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
            found = (1 - part) * found.take(low, axis) + part * found.take(np.minimum(low + 1, n - 1), axis)
    return found


def _interpolates_labels(volume, spacing, new_spacing, is_labels):
    found = _resample(volume, spacing, new_spacing, False)
    return np.round(found).astype(int) if is_labels else found


def _reversed_axes(volume, spacing, new_spacing, is_labels):
    return _resample(volume, spacing[::-1], new_spacing[::-1], is_labels)


def _cut_sizes(volume, spacing, new_spacing, is_labels):
    return _resample(volume, spacing, new_spacing, is_labels, size=lambda n, a, b: max(int(n * a / b), 1))


def _never_thick(volume, spacing, new_spacing, is_labels):
    return _resample(volume, spacing, new_spacing, is_labels, nearest=lambda axis, thick, is_labels: is_labels)


def _always_thick(volume, spacing, new_spacing, is_labels):
    coarsest = int(np.argmax(spacing))
    return _resample(
        volume, spacing, new_spacing, is_labels, nearest=lambda axis, _, is_labels: is_labels or axis == coarsest
    )


def _upside_down(volume, spacing, new_spacing, is_labels):
    return _resample(volume, spacing, new_spacing, is_labels, size=lambda n, a, b: max(round(n * b / a), 1))


def _corners_aligned(volume, spacing, new_spacing, is_labels):
    return _resample(volume, spacing, new_spacing, is_labels, places=lambda n, m: np.linspace(0, n - 1, m))


def _always_nearest(volume, spacing, new_spacing, is_labels):
    found = _resample(volume, spacing, new_spacing, is_labels, nearest=lambda axis, thick, is_labels: True)
    return found if is_labels else found.astype(float)


def _no_half(volume, spacing, new_spacing, is_labels):
    return _resample(volume, spacing, new_spacing, is_labels, places=lambda n, m: np.arange(m) * n / m)


def _by_spacing(volume, spacing, new_spacing, is_labels):
    """Steps of the asked spacing, though the size is rounded."""
    steps = iter([new / old for old, new in zip(spacing, new_spacing, strict=True)])
    return _resample(
        volume, spacing, new_spacing, is_labels, places=lambda n, m: (np.arange(m) + 0.5) * next(steps) - 0.5
    )


def _down(place: Callable) -> Callable:
    """Where the nearest voxel is asked for, another one that lies before."""

    def answer(volume, spacing, new_spacing, is_labels):
        thick = int(np.argmax(spacing)) if max(spacing) / min(spacing) > THICK else None
        found = np.asarray(volume)
        for axis in range(3):
            n = found.shape[axis]
            m = max(round(n * spacing[axis] / new_spacing[axis]), 1)
            if is_labels or axis == thick:
                found = found.take(np.clip(place(n, m), 0, n - 1).astype(int), axis)
            else:
                only = [n / m * spacing[axis] if a == axis else step for a, step in enumerate(spacing)]
                found = _resample(found, spacing, only, False)
        return found

    return answer


_rounded_down = _down(lambda n, m: (np.arange(m) + 0.5) * n / m - 0.5)
_torch_nearest = _down(lambda n, m: np.arange(m) * n / m)


def _thick_by_the_new(volume, spacing, new_spacing, is_labels):
    thick = int(np.argmax(new_spacing)) if max(new_spacing) / min(new_spacing) > THICK else None
    return _resample(
        volume, spacing, new_spacing, is_labels, nearest=lambda axis, _, is_labels: is_labels or axis == thick
    )


def _three_is_thick(volume, spacing, new_spacing, is_labels):
    thick = int(np.argmax(spacing)) if max(spacing) / min(spacing) >= THICK else None
    return _resample(
        volume, spacing, new_spacing, is_labels, nearest=lambda axis, _, is_labels: is_labels or axis == thick
    )


def _all_axes_thick(volume, spacing, new_spacing, is_labels):
    return _resample(
        volume, spacing, new_spacing, is_labels, nearest=lambda axis, thick, is_labels: is_labels or thick is not None
    )


def _zoomed(volume, spacing, new_spacing, is_labels):
    factors = [a / b for a, b in zip(spacing, new_spacing, strict=True)]
    return ndimage.zoom(volume, factors, order=0 if is_labels else 1)


def _case(
    rng: np.random.Generator, name: str, ratios: list, spacing: list, is_labels: bool, thin: bool = False
) -> Case:
    """A volume of odd sizes: so no new centre lies half way between two voxels, where "nearest" is undecided."""
    size = [int(n) for n in rng.permutation([5, 7, 9])]
    if thin:
        size[1] = 1
    if is_labels:
        volume = rng.permutation(np.resize([0, 3, 7, 12, 40], int(np.prod(size)))).reshape(size)
    else:
        volume = rng.uniform(-100, 100, size)
    # the new size is m + a fraction well away from a half: neither rounding error nor convention decides
    new = [s * n / max(round(n * r) + f, 0.3) for s, n, (r, f) in zip(spacing, size, ratios, strict=True)]
    return {"name": name, "args": [volume, list(map(float, spacing)), [float(x) for x in new], is_labels]}


def resample_spacing_cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Finer and coarser, images and labels, thick slices and others, one row, one slice, fractions above a half."""

    def scaled(*spacing: float) -> list[float]:
        return [s * float(rng.uniform(0.8, 1.2)) for s in spacing]

    below, above = float(rng.uniform(0.1, 0.3)), float(rng.uniform(-0.3, -0.1))  # above: 6.8 is 7 and not 6
    core = [
        _case(rng, "an image made finer", [(1.5, above), (1.3, below), (2.1, below)], scaled(1.5, 1, 0.8), False),
        _case(rng, "an image made coarser", [(0.7, above), (0.9, below), (0.6, below)], scaled(2, 1, 1.3), False),
        _case(rng, "labels", [(1.6, below), (0.7, above), (1.9, above)], scaled(1, 1.6, 1.2), True),
    ]
    finer = [(2.2, below), (1.4, below), (0.8, above)]
    unit = float(rng.uniform(0.2, 0.3))  # thick slices may be thin in millimetres; the finest axis decides
    edge = [
        _case(rng, "thick slices", finer, scaled(7, 1, 1.1), False),
        _case(rng, "thick along the last axis", finer[::-1], scaled(1, 0.9, 6), False),
        _case(rng, "labels in thick slices", finer, scaled(7, 1, 1.1), True),
        _case(rng, "just thick", finer, [3.5 * unit, unit, 2.0 * unit], False),
        _case(rng, "not quite thick", finer, [float(rng.uniform(4.2, 5.2)), 1.8, 1.9], False),
        _case(rng, "three times as thick", finer, [3.0, 1.0, 1.5], False),
        _case(rng, "one slice is left", [(0, below), (1.4, above), (0.8, below)], scaled(1.1, 1, 1.2), False),
        _case(rng, "a single row", [(1.6, below), (1.0, below), (0.7, above)], scaled(1, 1.5, 1.2), False, thin=True),
    ]
    return {"core": (2, core), "edge": (2, edge)}


exercise = Exercise(
    name="resample_spacing",
    points=4,
    cases=resample_spacing_cases,
    reference=resample_spacing,
    kind="shape",
    wrong=[
        Wrong(
            "labels interpolated",
            _interpolates_labels,
            "You interpolate between labels: half way from background to organ 12 lies organ 6.",
            hint="A label is a name, not an amount. Which voxel's name does a new voxel take?",
        ),
        Wrong(
            "axes reversed",
            _reversed_axes,
            "You take the spacing as (x, y, z), but it is given in the order of the array's axes.",
            hint="Array axis 0 is the slice. Print shape and spacing side by side, before and after.",
        ),
        Wrong(
            "sizes cut off",
            _cut_sizes,
            "You cut off the fraction of the new size where it has to be rounded: millimetres get lost.",
            hint="What do int(6.9) and round(6.9) give?",
        ),
        Wrong(
            "thick slices interpolated",
            _never_thick,
            "You interpolate between thick slices: where they are more than 3 times coarser, take the nearest one.",
            hint="Between two slices 7 mm apart the organ has moved on; their mean shows two faint organs.",
        ),
        Wrong(
            "coarsest axis never interpolated",
            _always_thick,
            "You always take the nearest voxel along the coarsest axis, and not only where it is over 3 times coarser.",
            hint="Divide the coarsest spacing by the finest before you decide.",
        ),
        Wrong(
            "factor upside down",
            _upside_down,
            "You have the factor upside down: a finer spacing needs more voxels.",
            hint="10 voxels of 5 mm are 50 mm. How many voxels of 2.5 mm is that?",
        ),
        Wrong(
            "corner voxels aligned",
            _corners_aligned,
            "You lay the first and the last centres upon each other; then the two grids cover different millimetres.",
            hint="A volume ends half a voxel beyond its last centre. Where is the centre of new voxel 0?",
        ),
        Wrong(
            "no half voxel",
            _no_half,
            "You leave out the half voxels: at i * n / n' new voxel i begins, its centre is half a voxel further.",
            hint="From edge to centre: i + 0.5. From centre to the number of an old voxel: - 0.5.",
        ),
        Wrong(
            "steps of the asked spacing",
            _by_spacing,
            "You step by new_spacing / spacing: the size was rounded, so the step is size / new size.",
            hint="Where is the last edge? Both grids end there.",
        ),
        Wrong(
            "rounded down",
            _rounded_down,
            "You round places down, as int() does: the nearest voxel may be the next one.",
            hint="Place 2.9 is nearest to voxel 3: floor(place + 0.5).",
        ),
        Wrong(
            "torch's nearest",
            _torch_nearest,
            "You take the voxel at i * n / n', rounded down, as torch's mode \"nearest\" does: it forgets the centres.",
            hint='Take floor(place + 0.5) of the centre; in torch that is "nearest-exact".',
        ),
        Wrong(
            "zoom as it comes",
            _zoomed,
            "You use zoom as it comes: it lays the outer centres upon each other, and interpolates thick slices.",
            hint="There are grid_mode=True and mode='nearest'. The thick axis needs an order of its own.",
        ),
        Wrong(
            "thick by the new spacing",
            _thick_by_the_new,
            "You look for thick slices in the new spacing: the scan's own spacing says how far its slices are apart.",
            hint="max(spacing) / min(spacing) > 3",
        ),
        Wrong(
            "three times is thick",
            _three_is_thick,
            "Three times as coarse is thick with you: more than 3 times is.",
            hint="max(spacing) / min(spacing) > 3",
        ),
        Wrong(
            "all axes thick",
            _all_axes_thick,
            "In thick volumes you take the nearest voxel along all axes: only along the coarsest one.",
            hint="Decide axis by axis.",
        ),
        Wrong(
            "nearest for images",
            _always_nearest,
            "You take the nearest voxel in images too; they are interpolated linearly.",
            hint="Grey values are amounts: half way between 0 and 100 lies 50.",
        ),
    ],
    hides=["segedu.semantic.nnunet.volume"],
)
