"""resample_spacing: a volume at another spacing; linear for images, nearest for labels and across thick slices."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
from scipy import ndimage

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

THICK = 3  # ratio of spacings above which the coarsest axis is not interpolated


def resample_spacing(volume: np.ndarray, spacing: list, new_spacing: list, is_labels: bool) -> np.ndarray:
    """Resample a volume to another spacing.

    The new size of an axis is size * spacing / new_spacing, rounded to the nearest integer, at least 1. Both grids
    cover the same millimetres: the centre of new voxel i lies at (i + 0.5) * size / new_size - 0.5 in old voxels.
    Images are interpolated linearly along each axis; beyond the first and the last centre the value stays constant.
    Labels take the nearest voxel. If the coarsest spacing is more than 3 times the finest one, images too take the
    nearest voxel along the coarsest axis.

    Args:
        volume: (D, H, W), floats, or integers for labels.
        spacing: mm between neighbouring voxels along D, H, W.
        new_spacing: the same after resampling.
        is_labels: whether the volume holds labels.

    Returns:
        (D', H', W'), floats for an image, integers for labels.
    """
    return _resample(volume, spacing, new_spacing, is_labels)


def _centres(n: int, m: int, _: bool) -> np.ndarray:
    return (np.arange(m) + 0.5) * n / m - 0.5


def _is_thick(axis: int, spacing: list) -> bool:
    return axis == np.argmax(spacing) and max(spacing) / min(spacing) > THICK


def _resample(
    volume: np.ndarray,
    spacing: list,
    new_spacing: list,
    is_labels: bool,
    new_size: Callable = lambda n, a, b: max(round(n * a / b), 1),
    positions: Callable = _centres,
    nearest: Callable = _is_thick,
) -> np.ndarray:
    """Resample one axis after the other.

    Args:
        new_size: (size, spacing, new spacing) -> new size of an axis.
        positions: (size, new size, whether the nearest voxel is taken) -> positions of the new voxels in old ones.
        nearest: (axis, spacing) -> whether images take the nearest voxel along this axis.
    """
    out = np.asarray(volume) if is_labels else np.asarray(volume, dtype=float)
    for axis in range(3):
        n = out.shape[axis]
        m = new_size(n, spacing[axis], new_spacing[axis])
        take_nearest = is_labels or nearest(axis, spacing)
        position = np.clip(positions(n, m, take_nearest), 0, n - 1)
        if take_nearest:
            out = out.take(np.floor(position + 0.5).astype(int), axis)
        else:
            low = np.minimum(np.floor(position).astype(int), max(n - 2, 0))
            weight = (position - low).reshape([-1 if a == axis else 1 for a in range(3)])
            out = (1 - weight) * out.take(low, axis) + weight * out.take(np.minimum(low + 1, n - 1), axis)
    return out


def _case(
    rng: np.random.Generator, name: str, ratios: list, spacing: list, is_labels: bool, thin: bool = False
) -> Case:
    """A volume of odd sizes, so that no new centre lies halfway between two voxels, where "nearest" is ambiguous."""
    size = [int(n) for n in rng.permutation([5, 7, 9])]
    if thin:
        size[1] = 1
    if is_labels:
        volume = rng.permutation(np.resize([0, 3, 7, 12, 40], int(np.prod(size)))).reshape(size)
    else:
        volume = rng.uniform(-100, 100, size)
    # the fraction of the new size is well away from a half, so that neither rounding errors nor conventions matter
    new = [s * n / max(round(n * r) + f, 0.3) for s, n, (r, f) in zip(spacing, size, ratios, strict=True)]
    return case(name, volume, list(map(float, spacing)), [float(x) for x in new], is_labels)


def resample_spacing_cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Finer and coarser, images and labels, thick slices and others, one row, one slice, fractions above a half."""

    def scaled(*spacing: float) -> list[float]:
        return [s * float(rng.uniform(0.8, 1.2)) for s in spacing]

    below, above = float(rng.uniform(0.1, 0.3)), float(rng.uniform(-0.3, -0.1))  # above: 6.8 is rounded to 7, not 6
    core = [
        _case(rng, "an image made finer", [(1.5, above), (1.3, below), (2.1, below)], scaled(1.5, 1, 0.8), False),
        _case(rng, "an image made coarser", [(0.7, above), (0.9, below), (0.6, below)], scaled(2, 1, 1.3), False),
        _case(rng, "labels", [(1.6, below), (0.7, above), (1.9, above)], scaled(1, 1.6, 1.2), True),
    ]
    finer = [(2.2, below), (1.4, below), (0.8, above)]
    unit = float(rng.uniform(0.2, 0.3))  # thickness is relative to the finest axis, not in millimetres
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


right = Variants(resample_spacing)


def _with(**changes: Callable) -> Callable[..., np.ndarray]:
    """Another new size, other positions, or the nearest voxel along other axes."""
    return right.instead(lambda a: _resample(**vars(a), **changes))


def _steps_of_new_spacing(a: SimpleNamespace) -> np.ndarray:
    steps = (new / old for old, new in zip(a.spacing, a.new_spacing, strict=True))
    return _resample(**vars(a), positions=lambda n, m, _: (np.arange(m) + 0.5) * next(steps) - 0.5)


def _zoomed(a: SimpleNamespace) -> np.ndarray:
    factors = [old / new for old, new in zip(a.spacing, a.new_spacing, strict=True)]
    return ndimage.zoom(a.volume, factors, order=0 if a.is_labels else 1)


RATIO = "max(spacing) / min(spacing) > 3"

WRONG = [
    Wrong(
        "labels interpolated",
        Variants(right.given(is_labels=lambda a: False)).then(
            lambda out, a: np.round(out).astype(int) if a.is_labels else out
        ),
        "You interpolate labels: halfway from background, 0, to organ 12 you get the label of organ 6. Take "
        "the nearest voxel.",
        "A label is a name, not a quantity. Which voxel's label does a new voxel take?",
    ),
    Wrong(
        "axes reversed",
        right.given(spacing=lambda a: a.spacing[::-1], new_spacing=lambda a: a.new_spacing[::-1]),
        "You read the spacing as (x, y, z). It is in the order of the array's axes, (D, H, W).",
        "Axis 0 of the array is the slice. Print shape and spacing side by side, before and after.",
    ),
    Wrong(
        "sizes cut off",
        _with(new_size=lambda n, a, b: max(int(n * a / b), 1)),
        "You round the new size down. Round it to the nearest integer, or the volume loses millimetres.",
        "What do int(6.9) and round(6.9) return?",
    ),
    Wrong(
        "thick slices interpolated",
        _with(nearest=lambda axis, spacing: False),
        "You interpolate between thick slices. If the spacing of an axis is more than 3 times the finest "
        "one, take the nearest slice.",
        "Between two slices 7 mm apart an organ changes its outline. Their mean shows two faint outlines.",
    ),
    Wrong(
        "coarsest axis never interpolated",
        _with(nearest=lambda axis, spacing: axis == np.argmax(spacing)),
        "You always take the nearest voxel along the coarsest axis. Do so only if its spacing is more than 3 "
        "times the finest one.",
        "Divide the coarsest spacing by the finest one before you decide.",
    ),
    Wrong(
        "factor upside down",
        _with(new_size=lambda n, a, b: max(round(n * b / a), 1)),
        "Your scale factor is inverted. A finer spacing needs more voxels, so divide by the new spacing.",
        "10 voxels of 5 mm cover 50 mm. How many voxels of 2.5 mm cover 50 mm?",
    ),
    Wrong(
        "corner voxels aligned",
        _with(positions=lambda n, m, _: np.linspace(0, n - 1, m)),
        "You align the first and the last voxel centres of both grids. Align the outer edges of the two grids instead.",
        "A volume ends half a voxel beyond its last centre. Where is the centre of new voxel 0?",
    ),
    Wrong(
        "no half voxel",
        _with(positions=lambda n, m, _: np.arange(m) * n / m),
        "You leave out the half voxels. New voxel i begins at i * n / n'; its centre is half a new voxel further.",
        "From edge to centre: i + 0.5. From centre to the index of an old voxel: - 0.5.",
    ),
    Wrong(
        "steps of the asked spacing",
        right.instead(_steps_of_new_spacing),
        "Your step is new_spacing / spacing. The new size is rounded, so the step should be size / new size.",
        "Where is the last edge? Both grids end there.",
    ),
    Wrong(
        "rounded down",
        _with(positions=lambda n, m, nearest: _centres(n, m, nearest) - 0.5 * nearest),
        "You round positions down. Take the nearest voxel, which may be the next one.",
        "Position 2.9 is nearest to voxel 3: floor(position + 0.5).",
    ),
    Wrong(
        "torch's nearest",
        _with(positions=lambda n, m, nearest: np.arange(m) * n / m - 0.5 if nearest else _centres(n, m, nearest)),
        "You take the voxel at i * n / n', rounded down, as torch's mode \"nearest\" does. Take the voxel "
        "whose centre is nearest.",
        'Take floor(position + 0.5) of the centre. In torch this is "nearest-exact".',
    ),
    Wrong(
        "zoom as it comes",
        right.instead(_zoomed),
        "This looks like zoom with its default arguments. It aligns the outer centres, and interpolates "
        "between thick slices.",
        "There are grid_mode=True and mode='nearest'. The thick axis needs its own order.",
    ),
    Wrong(
        "thick by the new spacing",
        right.instead(lambda a: _resample(**vars(a), nearest=lambda axis, _: _is_thick(axis, a.new_spacing))),
        "You look for thick slices in new_spacing. Look for them in the spacing of the scan.",
        RATIO,
    ),
    Wrong(
        "three times is thick",
        _with(nearest=lambda axis, spacing: axis == np.argmax(spacing) and max(spacing) / min(spacing) >= THICK),
        "You treat slices that are exactly 3 times coarser as thick. They are thick only if they are more "
        "than 3 times coarser.",
        RATIO,
    ),
    Wrong(
        "all axes thick",
        _with(nearest=lambda axis, spacing: max(spacing) / min(spacing) > THICK),
        "If slices are thick, you take the nearest voxel along all axes. Do so only along the coarsest axis.",
        "Decide axis by axis.",
    ),
    Wrong(
        "nearest for images",
        _with(nearest=lambda axis, spacing: True),
        "You take the nearest voxel in images too. Images are interpolated linearly.",
        "Intensities are quantities: halfway between 0 and 100 lies 50.",
    ),
]

exercise = Exercise(
    name="resample_spacing",
    points=4,
    cases=resample_spacing_cases,
    reference=resample_spacing,
    kind="shape",
    hides=["segedu.semantic.nnunet.volume"],
    wrong=WRONG,
)
