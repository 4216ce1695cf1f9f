"""Plan a U-Net as nnU-Net does: spacing, patch and poolings from nothing but shapes and spacings."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from segedu.semantic.nnunet.plan import topology
from segedu.semantic.nnunet.volume import new_shape
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def plan_unet(shapes: np.ndarray, spacings: np.ndarray, voxels: int) -> dict:
    """Plan a U-Net for volumes.

    Spacing: the median of each axis, in mm. Shape: every volume's at that spacing (size * spacing / new spacing, to
    the nearest whole number), then the median of each axis. Patch: a block of about `voxels` voxels that has the same
    millimetres along every axis, so that axis a has (voxels * product of spacings) ** (1/3) / spacing_a voxels, to the
    nearest whole number, at most those of the median shape. Poolings, level after level: of the axes with at least
    8 voxels left, halve (rounding up) those whose spacing is less than twice the finest spacing among them; halving
    doubles an axis's spacing. End where there is none to halve, or only one, and it has fewer than 12 voxels. Last,
    grow the patch to the next multiple of 2 ** poolings along each axis.

    Args:
        shapes: (N, 3) voxels of each training volume, N odd.
        spacings: (N, 3) mm.
        voxels: about so many fit into memory.

    Returns:
        Dict of `spacing`, three floats; `patch`, three ints; and `strides`, for each pooling three numbers, 2 where it
        halves the axis and else 1, the first pooling first.
    """
    spacing = np.median(spacings, axis=0)
    net = topology(spacing.tolist(), _patch(_median_shape(shapes, spacings, spacing), spacing, voxels))
    return {"spacing": spacing.tolist(), "patch": list(net.patch_size), "strides": list(map(list, net.strides[1:]))}


def _median_shape(shapes: np.ndarray, spacings: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    return np.median([new_shape(*one, spacing) for one in zip(shapes, spacings, strict=True)], axis=0)


def _patch(shape: np.ndarray, spacing: np.ndarray, voxels: int) -> list[int]:
    side = (voxels * spacing.prod()) ** (1 / 3)
    return [min(round(side / step), int(n)) for step, n in zip(spacing, shape, strict=True)]


def _planned(
    shapes: np.ndarray,
    spacings: np.ndarray,
    voxels: int,
    middle: Callable = np.median,
    shape_of: Callable = _median_shape,
    choose: Callable | None = None,
    grow: bool = True,
    cut: bool = True,
) -> dict:
    """The right answer, but for the middle, the shape, the axes to halve, the cut and the last step."""
    spacing = middle(spacings, axis=0)
    shape = shape_of(shapes, spacings, spacing) if cut else [10**9] * 3
    patch = _patch(shape, spacing, voxels)
    size, distance, strides = list(patch), spacing.tolist(), []
    choose = choose or _axes
    while axes := choose(size, distance):
        strides.append([2 if axis in axes else 1 for axis in range(3)])
        for axis in axes:
            size[axis], distance[axis] = math.ceil(size[axis] / 2), distance[axis] * 2
    if grow:
        steps = [math.prod(row[axis] for row in strides) for axis in range(3)]
        patch = [-(-n // step) * step for n, step in zip(patch, steps, strict=True)]
    return {"spacing": spacing.tolist(), "patch": patch, "strides": strides}


def _axes(size: list, distance: list, least: int = 8, alone: int = 12) -> list[int]:
    large = [axis for axis in range(3) if size[axis] >= least]
    found = [axis for axis in large if distance[axis] < 2 * min(distance[a] for a in large)]
    return [] if len(found) == 1 and size[found[0]] < alone else found


def _until_one(shapes, spacings, voxels):
    return _planned(shapes, spacings, voxels, choose=lambda size, distance: _axes(size, distance, 2, 2))


def _not_divisible(shapes, spacings, voxels):
    return _planned(shapes, spacings, voxels, grow=False)


def _same_on_all_axes(shapes, spacings, voxels):
    def choose(size: list, distance: list) -> list[int]:
        return [0, 1, 2] if min(size) >= 8 else []

    return _planned(shapes, spacings, voxels, choose=choose)


def _spacing_ignored(shapes, spacings, voxels):
    return _planned(shapes, spacings, voxels, choose=lambda size, _: _axes(size, [1.0] * 3))


def _median_of_voxels(shapes, spacings, voxels):
    return _planned(shapes, spacings, voxels, shape_of=lambda shapes, *_: np.median(shapes, axis=0))


def _mean_spacing(shapes, spacings, voxels):
    return _planned(shapes, spacings, voxels, middle=np.mean)


def _not_cut(shapes, spacings, voxels):
    return _planned(shapes, spacings, voxels, cut=False)


def _finest_of_all(shapes, spacings, voxels):
    def choose(size: list, distance: list) -> list[int]:
        found = [axis for axis in range(3) if size[axis] >= 8 and distance[axis] < 2 * min(distance)]
        return [] if len(found) == 1 and size[found[0]] < 12 else found

    return _planned(shapes, spacings, voxels, choose=choose)


def _never_coarser(shapes, spacings, voxels):
    first = np.median(spacings, axis=0).tolist()
    return _planned(shapes, spacings, voxels, choose=lambda size, _: _axes(size, first))


def _alone_among_large(shapes, spacings, voxels):
    def choose(size: list, distance: list) -> list[int]:
        large = [axis for axis in range(3) if size[axis] >= 8]
        return [] if len(large) == 1 and size[large[0]] < 12 else _axes(size, distance, alone=8)

    return _planned(shapes, spacings, voxels, choose=choose)


def _five_at_most(shapes, spacings, voxels):
    levels = iter(range(5))
    return _planned(
        shapes, spacings, voxels, choose=lambda *left: _axes(*left) if next(levels, None) is not None else []
    )


def _stride_for_level_0(shapes, spacings, voxels):
    plan = plan_unet(shapes, spacings, voxels)
    return {**plan, "strides": [[1, 1, 1], *plan["strides"]]}


def _grown_by_levels(shapes, spacings, voxels):
    plan = _planned(shapes, spacings, voxels, grow=False)
    step = 2 ** len(plan["strides"])
    return {**plan, "patch": [-(-n // step) * step for n in plan["patch"]]}


def _shrunk(shapes, spacings, voxels):
    plan = _planned(shapes, spacings, voxels, grow=False)
    steps = [math.prod(row[axis] for row in plan["strides"]) for axis in range(3)]
    return {**plan, "patch": [n // step * step for n, step in zip(plan["patch"], steps, strict=True)]}


def _alone_too_small(shapes, spacings, voxels):
    return _planned(shapes, spacings, voxels, choose=lambda size, distance: _axes(size, distance, alone=8))


WRONG = [
    Wrong(
        "pooled until 1",
        _until_one,
        "You pool until an axis has one voxel left; nnU-Net stops while 4 are left.",
        hint="An axis needs at least 8 voxels to be halved.",
    ),
    Wrong(
        "patch not divisible",
        _not_divisible,
        "Your patch is not a multiple of 2 ** poolings: on the way up, its levels would not fit upon each other.",
        hint="Halve your patch as your strides say. Is every step a whole number?",
    ),
    Wrong(
        "all axes pooled alike",
        _same_on_all_axes,
        "You pool all axes equally often: the thin axis ends the pooling of the long ones, or is pooled away.",
        hint="Decide axis by axis, level by level.",
    ),
    Wrong(
        "spacing ignored",
        _spacing_ignored,
        "You pool a thick axis from the first level on; it has to wait until the others are as coarse.",
        hint="Compare each axis's spacing with twice the finest one, and double it when you halve the axis.",
    ),
    Wrong(
        "median of voxels",
        _median_of_voxels,
        "You take the median of shapes in voxels; voxels of different volumes are of different size.",
        hint="Bring every shape to the new spacing first, then take the median.",
    ),
    Wrong(
        "mean spacing",
        _mean_spacing,
        "You take the mean of the spacings; one odd scanner moves it, and no median.",
        hint="The rule says median.",
    ),
    Wrong(
        "larger than the volumes",
        _not_cut,
        "Your patch may be larger than the median volume.",
        hint="Cut the block to the median shape, axis by axis, before you pool.",
    ),
    Wrong(
        "one axis alone",
        _alone_too_small,
        "You halve an axis of 8 to 11 voxels that is alone; alone it needs 12.",
        hint="What does the rule say where there is only one axis to halve?",
    ),
    Wrong(
        "alone among the large",
        _alone_among_large,
        "An axis is alone with you where no other is large enough; it is alone, too, where the others wait.",
        hint="First drop the axes that wait, then count.",
    ),
    Wrong(
        "finest of all axes",
        _finest_of_all,
        "You compare with the finest of all axes; one with fewer than 8 voxels has no say any more.",
        hint="The finest among those that could be halved.",
    ),
    Wrong(
        "spacing not doubled",
        _never_coarser,
        "You leave the spacings as they are, so a thick axis waits for ever; halving an axis doubles its spacing.",
        hint="Two lists change from level to level: voxels and spacings.",
    ),
    Wrong(
        "five levels at most",
        _five_at_most,
        "You stop after five poolings; the rule knows no such number.",
        hint="while, not for.",
    ),
    Wrong(
        "a stride for the first level",
        _stride_for_level_0,
        "You begin with strides of 1, as nnU-Net's own files do; here each row is a pooling.",
        hint="The first row is the first pooling.",
    ),
    Wrong(
        "grown by levels",
        _grown_by_levels,
        "You grow every axis to a multiple of 2 ** levels; each axis counts its own poolings.",
        hint="A thick axis was halved less often, so a smaller number has to divide it.",
    ),
    Wrong(
        "patch shrunk",
        _shrunk,
        "You shrink the patch to a multiple of 2 ** poolings; it grows.",
        hint="To the next multiple: -(-n // step) * step.",
    ),
]


def _volumes(rng: np.random.Generator, count: int, shape: list, spacing: list, spread: float = 0.3) -> tuple:
    """Volumes of about so many mm; a finer scanner has more voxels."""
    spacings = np.array(spacing) * rng.uniform(1 - spread, 1 + spread, (count, 3))
    whole = np.array(shape) * np.array(spacing) * rng.uniform(0.9, 1.1, (count, 3))
    return np.maximum(np.rint(whole / spacings), 1).astype(int), spacings.round(3)


def _refusing(rng: np.random.Generator, name: str, build: Callable, *names: str) -> Case:
    """Draw until the wrong answers of these names are wrong on the case, so that luck never hides them."""
    by_name = {wrong.name: wrong.function for wrong in WRONG}
    for _ in range(200):
        shapes, spacings, voxels = build(rng)
        right = plan_unet(shapes, spacings, voxels)
        if all(by_name[wrong](shapes, spacings, voxels) != right for wrong in names):
            return {"name": name, "args": [shapes, spacings, voxels]}
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
    """One volume; the factor of all its spacings changes nothing but the spacing."""
    return {"name": name, "args": [np.array([size]), np.array([spacing]) * rng.uniform(0.9, 1.1), voxels]}


def _limits(rng: np.random.Generator) -> list[Case]:
    """Each number of the rule met exactly, or passed by less than one."""
    # a side of 32.3 voxels is 32, which three poolings divide; 32.7 is 33, and grows to 40
    fractions = [1.0, 0.988, 1.1]
    block = round(32.3**3 / np.prod(fractions))
    # Along the first and the last axis 40 voxels of 0.82 are the median and 32.8 voxels of 1.0. Along the second the
    # median of voxels is 38, the right one 47; the least is 27, and who has the factor upside down finds 54.
    sizes = np.array([[30, 60, 30], [30, 32, 30], [40, 38, 40]])
    three = sizes, np.array([[1.0] * 3, [1.3, 1.48, 1.3], [0.82, 0.7, 0.82]])
    return [
        _one(rng, "axes of 15, 16 and 8 voxels", [15, 16, 8], [1.0, 1.0, 1.0], 60**3),
        _one(rng, "an axis of 24 voxels alone", [24, 7, 7], [1.0, 1.0, 1.0], 60**3),
        _one(rng, "an axis of 400 voxels", [20, 400, 20], [1.0, 1.0, 1.0], 400**3),
        _one(rng, "ten voxels beside an axis that waits", [40, 20, 14], [4.0, 1.0, 1.0], 100**3),
        _one(rng, "a spacing of exactly twice the finest", [40, 40, 40], [2.0, 1.0, 1.0], 100**3),
        _one(rng, "the shortest axis is the finest", [40, 40, 6], [2.2, 2.1, 0.5], 100**3),
        _one(rng, "thick slices of a microscope", [20, 60, 60], [1.5, 0.3, 0.3], 100**3),
        _one(rng, "a block with fractions of voxels", [200, 200, 200], fractions, block),
        {"name": "a median shape with a fraction", "args": [*three, 60**3]},
    ]


def plan_unet_cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Even and thick spacings, scanners that differ, volumes smaller than the patch; every limit of the rule."""
    core = [
        _refusing(rng, "spacings nearly even", _even, "pooled until 1", "patch not divisible", "mean spacing"),
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
