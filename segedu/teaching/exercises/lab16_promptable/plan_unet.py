"""plan_unet: spacing, patch and strides of a U-Net from the shapes and spacings of the volumes, as in nnU-Net."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np

from segedu.semantic.nnunet.plan import topology
from segedu.semantic.nnunet.volume import new_shape
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def plan_unet(shapes: np.ndarray, spacings: np.ndarray, voxels: int) -> dict:
    """Plan a U-Net for volumes.

    - Spacing: the median of each axis, in mm.
    - Median shape: compute the shape of every volume at that spacing (size * spacing / new spacing, rounded to the
      nearest integer), then the median of each axis.
    - Patch: a block of about `voxels` voxels that covers the same millimetres along every axis. Therefore axis a has
      (voxels * product of spacings) ** (1/3) / spacing_a voxels, rounded to the nearest integer, and at most those of
      the median shape.
    - Poolings, level after level: of the axes with at least 8 voxels left, halve (rounding up) those whose spacing is
      less than twice the finest spacing among them. Halving doubles the spacing of an axis. Stop if there is no axis
      to halve, or only one, and it has fewer than 12 voxels.
    - Last, enlarge the patch to the next multiple of 2 ** poolings along each axis.

    Args:
        shapes: (N, 3) voxels of each training volume, N odd.
        spacings: (N, 3) mm.
        voxels: approximate number of voxels that fit into memory.

    Returns:
        Dict of `spacing`, three floats; `patch`, three ints; and `strides`, for each pooling three values, 2 where it
        halves the axis and 1 elsewhere, from the first pooling to the last.
    """
    spacing = np.median(spacings, axis=0)
    net = topology(spacing.tolist(), _patch(_median_shape(shapes, spacings, spacing), spacing, voxels))
    return {"spacing": spacing.tolist(), "patch": list(net.patch_size), "strides": list(map(list, net.strides[1:]))}


def _median_shape(shapes: np.ndarray, spacings: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    return np.median([new_shape(*one, spacing) for one in zip(shapes, spacings, strict=True)], axis=0)


def _patch(shape: np.ndarray, spacing: np.ndarray, voxels: int) -> list[int]:
    side = (voxels * spacing.prod()) ** (1 / 3)
    return [min(round(side / step), int(n)) for step, n in zip(spacing, shape, strict=True)]


right = Variants(plan_unet)


def _axes(size: list, spacing: list, least: int = 8, alone: int = 12, compared: list | None = None) -> list[int]:
    """The axes to halve.

    Args:
        least: voxels that an axis needs.
        alone: voxels that an axis needs if no other is halved.
        compared: axes whose finest spacing counts; by default those with at least `least` voxels.
    """
    large = [axis for axis in range(3) if size[axis] >= least]
    axes = [axis for axis in large if spacing[axis] < 2 * min(spacing[a] for a in compared or large)]
    return [] if len(axes) == 1 and size[axes[0]] < alone else axes


def _steps(strides: list) -> list[int]:
    return [math.prod(row[axis] for row in strides) for axis in range(3)]


def _multiples(patch: list, steps: list) -> list[int]:
    """Rounded up."""
    return [-(-n // step) * step for n, step in zip(patch, steps, strict=True)]


def _planned(
    a: SimpleNamespace,
    median: Callable = np.median,
    median_shape: Callable = _median_shape,
    axes_to_halve: Callable[[list, list], list[int]] = _axes,
    enlarged: Callable[[list, list], list[int]] = lambda patch, strides: _multiples(patch, _steps(strides)),
) -> dict:
    """The plan, with some steps replaced."""
    spacing = median(a.spacings, axis=0)
    patch = _patch(median_shape(a.shapes, a.spacings, spacing), spacing, a.voxels)
    size, distance, strides = list(patch), spacing.tolist(), []
    while axes := axes_to_halve(size, distance):
        strides.append([2 if axis in axes else 1 for axis in range(3)])
        for axis in axes:
            size[axis], distance[axis] = math.ceil(size[axis] / 2), distance[axis] * 2
    return {"spacing": spacing.tolist(), "patch": enlarged(patch, strides), "strides": strides}


def _with(**changes: Callable) -> Callable[..., dict]:
    return right.instead(lambda a: _planned(a, **changes))


def _alone_among_large(size: list, spacing: list) -> list[int]:
    large = [axis for axis in range(3) if size[axis] >= 8]
    return [] if len(large) == 1 and size[large[0]] < 12 else _axes(size, spacing, alone=8)


def _five_at_most(a: SimpleNamespace) -> dict:
    levels = iter(range(5))
    return _planned(a, axes_to_halve=lambda *left: [] if next(levels, None) is None else _axes(*left))


def _never_coarser(a: SimpleNamespace) -> dict:
    spacing = np.median(a.spacings, axis=0).tolist()
    return _planned(a, axes_to_halve=lambda size, _: _axes(size, spacing))


def _shrunk(patch: list, strides: list) -> list[int]:
    return [n // step * step for n, step in zip(patch, _steps(strides), strict=True)]


WRONG = [
    Wrong(
        "pooled until 1",
        _with(axes_to_halve=partial(_axes, least=2, alone=2)),
        "You halve axes until one voxel is left. Halve only axes with at least 8 voxels, so that at least 4 are left.",
        "An axis needs at least 8 voxels to be halved.",
    ),
    Wrong(
        "patch not divisible",
        _with(enlarged=lambda patch, strides: patch),
        "Your patch is not a multiple of 2 ** poolings. Enlarge it, or the feature maps of decoder and "
        "encoder do not match.",
        "Halve your patch as your strides say. Is the size an integer at every level?",
    ),
    Wrong(
        "all axes pooled alike",
        _with(axes_to_halve=lambda size, spacing: [0, 1, 2] if min(size) >= 8 else []),
        "You halve all axes equally often. Decide for each axis on its own.",
        "Decide axis by axis, level by level.",
    ),
    Wrong(
        "spacing ignored",
        _with(axes_to_halve=lambda size, spacing: _axes(size, [1.0] * 3)),
        "You halve an axis with thick slices from the first level on. It should wait until the others are as coarse.",
        "Compare the spacing of each axis with twice the finest one, and double it when you halve the axis.",
    ),
    Wrong(
        "median of voxels",
        _with(median_shape=lambda shapes, spacings, spacing: np.median(shapes, axis=0)),
        "You compute the median of shapes in the volumes' own voxels, which differ in size. Convert the "
        "shapes to the new spacing first.",
        "Convert every shape to the new spacing first, then compute the median.",
    ),
    Wrong(
        "mean spacing",
        _with(median=np.mean),
        "You use the mean of the spacings, which one unusual scanner can change. Use the median.",
        "The rule says median.",
    ),
    Wrong(
        "larger than the volumes",
        _with(median_shape=lambda shapes, spacings, spacing: [10**9] * 3),
        "Your patch may be larger than the median shape. Limit it to the median shape along each axis.",
        "Limit the block to the median shape, axis by axis, before you pool.",
    ),
    Wrong(
        "one axis alone",
        _with(axes_to_halve=partial(_axes, alone=8)),
        "You halve a single axis of 8 to 11 voxels. If no other axis is halved, an axis needs at least 12 voxels.",
        "What does the rule say if there is only one axis to halve?",
    ),
    Wrong(
        "alone among the large",
        _with(axes_to_halve=_alone_among_large),
        "You require 12 voxels only if no other axis has 8. Axes that have to wait do not count: 12 are also "
        "required if all others wait.",
        "First drop the axes that wait, then count.",
    ),
    Wrong(
        "finest of all axes",
        _with(axes_to_halve=partial(_axes, compared=[0, 1, 2])),
        "You compare the spacing with the finest of all axes. Compare only axes that have at least 8 voxels left.",
        "Take the finest spacing among the axes that could be halved.",
    ),
    Wrong(
        "spacing not doubled",
        right.instead(_never_coarser),
        "You do not change the spacings, so a thick axis is never halved. Double the spacing of each axis "
        "that you halve.",
        "Two lists change from level to level: voxels and spacings.",
    ),
    Wrong(
        "five levels at most",
        right.instead(_five_at_most),
        "You stop after five poolings. Continue until the rule says stop.",
        "Use while instead of for.",
    ),
    Wrong(
        "a stride for the first level",
        right.then(lambda out, a: {**out, "strides": [[1, 1, 1], *out["strides"]]}),
        "Your strides begin with a row of 1, as in nnU-Net's own files. Here, the first row belongs to the "
        "first pooling.",
        "The first row is the first pooling.",
    ),
    Wrong(
        "grown by levels",
        _with(enlarged=lambda patch, strides: _multiples(patch, [2 ** len(strides)] * 3)),
        "You enlarge every axis to a multiple of 2 ** levels. Use the number of poolings of each axis instead.",
        "A thick axis is halved less often, so a smaller number has to divide it.",
    ),
    Wrong(
        "patch shrunk",
        _with(enlarged=_shrunk),
        "You shrink the patch to a multiple of 2 ** poolings. Enlarge it to the next multiple.",
        "To the next multiple: -(-n // step) * step.",
    ),
]


def _volumes(rng: np.random.Generator, count: int, shape: list, spacing: list, spread: float = 0.3) -> tuple:
    """Shapes and spacings of volumes of similar size in mm; a finer scanner has more voxels."""
    spacings = np.array(spacing) * rng.uniform(1 - spread, 1 + spread, (count, 3))
    whole = np.array(shape) * np.array(spacing) * rng.uniform(0.9, 1.1, (count, 3))
    return np.maximum(np.rint(whole / spacings), 1).astype(int), spacings.round(3)


def _refusing(rng: np.random.Generator, name: str, build: Callable, *names: str) -> Case:
    """Draw until the wrong answers with these names give another plan, so that every seed refuses them."""
    by_name = {wrong.name: wrong.function for wrong in WRONG}
    for _ in range(200):
        shapes, spacings, voxels = build(rng)
        plan = plan_unet(shapes, spacings, voxels)
        if all(by_name[wrong](shapes, spacings, voxels) != plan for wrong in names):
            return case(name, shapes, spacings, voxels)
    raise ValueError(f"name is {name!r}, expected a case that can refuse {names}")


def _even(rng: np.random.Generator) -> tuple:
    shapes, spacings = _volumes(rng, 5, [180, 220, 200], [1.2, 1.0, 1.1])
    return shapes, spacings, int(rng.integers(60, 100)) ** 3


def _thick(rng: np.random.Generator) -> tuple:
    shapes, spacings = _volumes(rng, 7, [30, 250, 250], [6.0, 1.0, 1.0], 0.1)
    return shapes, spacings, int(rng.integers(70, 100)) ** 3


def _small(rng: np.random.Generator) -> tuple:
    shapes, spacings = _volumes(rng, 3, [60, 40, 6], [1.0, 1.1, 2.5], 0.05)
    return shapes, spacings, 128**3


def _alone(rng: np.random.Generator) -> tuple:
    n = int(rng.integers(8, 12))
    spacing = rng.uniform(0.9, 1.1, 3).round(3)
    return np.array([[2 * n, 14, 14]]), spacing[None], int(rng.integers(30, 60)) ** 3


def _one(rng: np.random.Generator, name: str, size: list, spacing: list, voxels: int) -> Case:
    """One volume. A common factor of its spacings changes only the spacing of the plan."""
    return case(name, np.array([size]), np.array([spacing]) * rng.uniform(0.9, 1.1), voxels)


def _limits(rng: np.random.Generator) -> list[Case]:
    """Each number of the rule, reached exactly or missed by less than one."""
    # a side of 32.3 voxels is rounded to 32, which three poolings divide; 32.7 is rounded to 33 and enlarged to 40
    fractions = [1.0, 0.988, 1.1]
    block = round(32.3**3 / np.prod(fractions))
    # Along the first and the last axis the median is 40 voxels of 0.82, which are 32.8 voxels of 1.0. Along the second
    # axis the median in voxels is 38, the right one 47, the minimum 27; with an inverted factor it is 54.
    sizes = np.array([[30, 60, 30], [30, 32, 30], [40, 38, 40]])
    three = sizes, np.array([[1.0] * 3, [1.3, 1.48, 1.3], [0.82, 0.7, 0.82]])
    return [
        _one(rng, "axes of 15, 16 and 8 voxels", [15, 16, 8], [1.0, 1.0, 1.0], 60**3),
        _one(rng, "an axis of 24 voxels alone", [24, 7, 7], [1.0, 1.0, 1.0], 60**3),
        _one(rng, "an axis of 400 voxels", [20, 400, 20], [1.0, 1.0, 1.0], 400**3),
        _one(rng, "ten voxels next to an axis that waits", [40, 20, 14], [4.0, 1.0, 1.0], 100**3),
        _one(rng, "a spacing of exactly twice the finest", [40, 40, 40], [2.0, 1.0, 1.0], 100**3),
        _one(rng, "the shortest axis is the finest", [40, 40, 6], [2.2, 2.1, 0.5], 100**3),
        _one(rng, "thick slices of a microscope", [20, 60, 60], [1.5, 0.3, 0.3], 100**3),
        _one(rng, "a block with fractions of voxels", [200, 200, 200], fractions, block),
        case("a median shape with a fraction", *three, 60**3),
    ]


def plan_unet_cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Similar spacings, thick slices, different scanners, volumes smaller than the block; every limit of the rule."""
    core = [
        _refusing(rng, "nearly equal spacings", _even, "pooled until 1", "patch not divisible", "mean spacing"),
        _refusing(rng, "thick slices", _thick, "spacing ignored", "all axes pooled alike", "patch not divisible"),
    ]
    edge = [
        _refusing(rng, "volumes smaller than the block", _small, "larger than the volumes", "median of voxels"),
        _refusing(rng, "one axis long enough", _alone, "one axis alone"),
        *_limits(rng),
    ]
    return {"core": (3, core), "edge": (1, edge)}


exercise = Exercise(
    name="plan_unet",
    points=4,
    cases=plan_unet_cases,
    reference=plan_unet,
    wrong=WRONG,
    hides=["segedu.semantic.nnunet.plan", "segedu.semantic.nnunet.volume"],
)
