"""Synthetic CT of the upper abdomen: organs in Hounsfield units, thick slices, partial volume, noise.

A scene depends only on its seed and its arguments. The anatomy is defined in millimetres, independently of the
voxels: the same seed at another size or spacing is the same patient in another scanner. Grey values do not determine
the organ: ribs are as bright as the spine, gas in the bowel is as dark as the lung, vessels and the heart are as bright
as kidney and spleen. All of these are background, so a network needs position and shape. No result measured on these
volumes allows a medical conclusion.

Axes: 0 from the feet to the head, 1 from the front to the back, 2 from the patient's right to the left. Slices
therefore look as radiologists see them, and the axes are those of `segedu.datasets.nifti` for real volumes.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.datasets.texture import check_count, scene_rng
from segedu.validation.numbers import check_number, check_size

VOLUME_VERSION = 1  # Increase it when a scene changes: every measured result must then be measured again.
CLASSES = ("background", "lung", "liver", "spleen", "kidney", "spine", "tumour")
WINDOW = (-160.0, 240.0)  # Hounsfield units that become 0 and 1 in the image: the usual window for soft tissue
EXTENT = (288.0, 264.0, 352.0)  # mm that contain the organs; lungs and spine extend further
_BACKGROUND, _LUNG, _LIVER, _SPLEEN, _KIDNEY, _SPINE, _TUMOUR = range(len(CLASSES))
_AIR, _FAT, _MUSCLE = -1000.0, -100.0, 55.0
_FINE = (3, 2, 2)  # points per voxel along each axis, averaged for partial volume
_MIN_SIZE = 8
_FINEST = 0.2  # mm between voxels
_SLACK = 20.0  # largest displacement by the warp, in mm


class _Torso:
    """Grid points in the coordinates of one patient, with their Hounsfield units and organ labels."""

    def __init__(self, axes: list[np.ndarray], rng: np.random.Generator):
        self.axes = axes
        z, y, x = (axis.astype(np.float32) for axis in np.ix_(*axes))
        # Smooth shifts along each axis deform the ellipsoids; they are analytic, so they are the same on any grid.
        self.z = z + self._bend(rng, y) + self._bend(rng, x)
        self.y = y + self._bend(rng, x) + self._bend(rng, z)
        self.x = x + self._bend(rng, y) + self._bend(rng, z)
        shape = tuple(len(axis) for axis in axes)
        self.hu = np.full(shape, _AIR, np.float32)
        self.label = np.zeros(shape, np.uint8)

    @staticmethod
    def _bend(rng: np.random.Generator, along: np.ndarray) -> np.ndarray:
        amount, length, phase = rng.uniform(1, 5), rng.uniform(18, 45), rng.uniform(0, 2 * np.pi)
        return (amount * np.sin(along / length + phase)).astype(np.float32)

    def box(self, centre: tuple, half: tuple) -> tuple[slice, ...]:
        """Slices along each axis that contain a shape with these half axes."""
        spans = zip(self.axes, centre, half, strict=True)
        return tuple(slice(*np.searchsorted(a, (c - h - _SLACK, c + h + _SLACK))) for a, c, h in spans)

    def depth(self, box: tuple[slice, ...], centre: tuple, half: tuple, tilt: float = 0.0) -> np.ndarray:
        """Squared distance from the centre in half axes; below 1 is inside. `tilt` rotates it within the slice."""
        z, y, x = self.z[box] - centre[0], self.y[box] - centre[1], self.x[box] - centre[2]
        if tilt:
            y, x = y * np.cos(tilt) - x * np.sin(tilt), x * np.cos(tilt) + y * np.sin(tilt)
        return (z / half[0]) ** 2 + (y / half[1]) ** 2 + (x / half[2]) ** 2

    def draw_ellipsoid(self, centre: tuple, half: tuple, hu: float, label: int = 0, tilt: float = 0.0) -> None:
        """Draw an ellipsoid, (z, y, x) in mm; an infinite half axis makes a tube."""
        box = self.box(centre, half)
        self.fill(box, self.depth(box, centre, half, tilt) < 1, hu, label)

    def fill(self, box: tuple[slice, ...], inside: np.ndarray, hu: float, label: int = 0) -> None:
        """Set Hounsfield units and label of the points inside, overwriting earlier ones."""
        self.hu[box][inside] = hu
        self.label[box][inside] = label


_ALL = (slice(None),) * 3


def _draw_trunk(torso: _Torso, rng: np.random.Generator) -> tuple[float, float, float, np.ndarray]:
    """Draw skin, fat, wall, ribs and table.

    Returns the half axes of the cavity, the height of the dome, and the height of each point above the diaphragm.
    """
    wide, deep, fat, wall = rng.uniform(138, 162), rng.uniform(92, 112), rng.uniform(8, 24), rng.uniform(9, 15)
    radius = np.hypot(torso.x / wide, torso.y / deep)
    table = deep + rng.uniform(4, 8)
    under = torso.y - 0.0008 * torso.x**2 - table
    torso.fill(_ALL, (np.abs(under) < 5) & (np.abs(torso.x) < 170), rng.uniform(-300, 0))
    torso.fill(_ALL, radius < 1, _FAT + rng.uniform(-10, 10))
    wide, deep = wide - fat, deep - fat
    radius = np.hypot(torso.x / wide, torso.y / deep)
    torso.fill(_ALL, radius < 1, _MUSCLE + rng.uniform(-8, 8))
    gap, slope = rng.uniform(26, 34), rng.uniform(0.15, 0.4)
    band = np.mod(torso.z + slope * torso.y + 0.12 * np.abs(torso.x) + rng.uniform(0, 30), gap) < 0.36 * gap
    ribs = band & (np.abs(radius - 0.95) < 0.045) & (torso.z > -70 + 0.9 * (deep - torso.y) * 0.5)
    torso.fill(_ALL, ribs, rng.uniform(250, 500))
    wide, deep = wide - wall, deep - wall
    cavity = np.hypot(torso.x / wide, torso.y / deep) < 1
    torso.fill(_ALL, cavity, _FAT + rng.uniform(-10, 15))
    dome = rng.uniform(45, 75)
    hill = np.exp(-(((torso.x + 70) / 60) ** 2)) + 0.8 * np.exp(-(((torso.x - 75) / 55) ** 2))
    above = torso.z - (dome - 45 + 45 * hill - 0.006 * (torso.y + 15) ** 2)  # mm above the diaphragm
    chest = cavity & (above > 0)
    torso.fill(_ALL, chest, rng.uniform(-870, -750), _LUNG)
    middle = np.hypot(torso.x / rng.uniform(28, 36), (torso.y - 5) / (1.02 * deep)) < 1
    torso.fill(_ALL, chest & middle, _MUSCLE - 20)
    return wide, deep, dome, above


def _draw_back(torso: _Torso, rng: np.random.Generator, deep: float) -> None:
    """Draw muscles of the back, spine with discs, canal and arch, and aorta and vena cava in front of it."""
    spine_y, tall = deep - rng.uniform(24, 32), np.inf
    for side in (-1, 1):
        torso.draw_ellipsoid((0, spine_y + 26, 30 * side), (tall, 22, 25), _MUSCLE + rng.uniform(-8, 8))
        torso.draw_ellipsoid((-130, spine_y, 34 * side), (110, 18, 17), _MUSCLE + rng.uniform(-8, 8))
    bone, wide = rng.uniform(180, 320), rng.uniform(19, 24)
    torso.draw_ellipsoid((0, spine_y + 26, 0), (tall, 20, 13), bone + rng.uniform(50, 150), _SPINE)
    torso.draw_ellipsoid((0, spine_y, 0), (tall, 0.85 * wide, wide), bone, _SPINE)
    gap, start = rng.uniform(30, 38), rng.uniform(0, 30)
    torso.hu[(np.mod(torso.z + start, gap) < 6) & (torso.label == _SPINE) & (torso.y < spine_y + 15)] = rng.uniform(
        80, 120
    )
    torso.draw_ellipsoid((0, spine_y + 24, 0), (tall, 7.5, 9), rng.uniform(10, 35))
    blood = rng.uniform(110, 200)
    torso.draw_ellipsoid((0, spine_y - wide - 8, rng.uniform(8, 16)), (tall, 11, 11), blood)
    torso.draw_ellipsoid((0, spine_y - wide - 12, -rng.uniform(17, 24)), (tall, 11, 13), blood - rng.uniform(0, 40))


def _draw_bowel(torso: _Torso, rng: np.random.Generator, dome: float, inside: np.ndarray) -> None:
    """Draw loops in front and below, filled with fluid, contrast agent or gas, which is as dark as the lung."""
    for _ in range(int(rng.integers(14, 24))):
        centre = (dome - rng.uniform(110, 230), rng.uniform(-75, 15), rng.uniform(-95, 95))
        half = tuple(rng.uniform(11, 24, 3))
        draw = rng.uniform()
        box, content = torso.box(centre, half), rng.uniform(-20, 150) if draw < 0.85 else rng.uniform(200, 350)
        loop = torso.depth(box, centre, half)
        torso.fill(box, (loop < 1) & inside[box], content)
        if draw > 0.6:  # the patient lies on the back: gas collects in front
            torso.fill(box, (loop < 0.7) & inside[box] & (torso.y[box] < centre[1]), -900)


def _draw_liver(
    torso: _Torso, rng: np.random.Generator, dome: float, inside: np.ndarray, tumours: tuple[int, int]
) -> None:
    """Draw the liver under the right dome of the diaphragm, sometimes with slightly darker tumours."""
    hu, centre, half = rng.uniform(85, 125), (dome - 55, -12 + rng.uniform(-6, 6), -62), rng.uniform(0.88, 1.1, 3)
    half = tuple(half * (95, 92, 88))
    box = torso.box(centre, half)
    floor = dome - rng.uniform(110, 140) + rng.uniform(0.35, 0.6) * (torso.x[box] + 110)
    is_behind = torso.y[box] < 45 - 0.5 * (torso.x[box] + 40)
    shape = (torso.depth(box, centre, half) < 1) & (torso.z[box] > floor) & is_behind & inside[box]
    torso.fill(box, shape, hu, _LIVER)
    darker, share = rng.uniform(45, 75), rng.uniform(0, 1)
    tumour_rng = np.random.default_rng(
        rng.integers(2**32)
    )  # a separate generator, so that the number of tumours changes nothing else
    for _ in range(tumours[0] + int(share * (tumours[1] - tumours[0] + 1))):
        z, y, x = tumour_rng.uniform((-75, -55, -115), (-15, 25, -10))
        radius = tumour_rng.uniform(15, 32)
        centre, half = (dome + z, y, x), (radius, radius, radius * tumour_rng.uniform(0.8, 1.2))
        box = torso.box(centre, half)
        mine = (torso.depth(box, centre, half) < 1) & np.isin(torso.label[box], (_LIVER, _TUMOUR))
        torso.fill(box, mine, hu - darker, _TUMOUR)


def _draw_left_organs(torso: _Torso, rng: np.random.Generator, wide: float, dome: float, inside: np.ndarray) -> None:
    """Draw the stomach with gas at its front, then the spleen behind it."""
    centre, half = (dome - 60, -30 + rng.uniform(-10, 10), 62), tuple(rng.uniform(0.8, 1.1, 3) * (45, 36, 38))
    box, content = torso.box(centre, half), rng.uniform(0, 140)
    shape = (torso.depth(box, centre, half) < 1) & inside[box] & (torso.label[box] != _LIVER)
    torso.fill(box, shape, content)
    torso.fill(box, shape & (torso.y[box] < centre[1] - rng.uniform(2, 22)), -900)
    centre, half = (dome - 55, 32 + rng.uniform(-8, 8), wide - 34), tuple(rng.uniform(0.8, 1.15, 3) * (46, 42, 24))
    box = torso.box(centre, half)
    shape = (torso.depth(box, centre, half, tilt=-0.45) < 1) & inside[box]
    torso.fill(box, shape, rng.uniform(100, 140), _SPLEEN)


def _draw_kidneys(torso: _Torso, rng: np.random.Generator, deep: float, dome: float) -> None:
    """Draw a kidney on each side of the spine, the right one lower, with fat where the vessels enter."""
    hu = rng.uniform(120, 200)
    for side, drop in ((-1, rng.uniform(122, 142)), (1, rng.uniform(108, 130))):
        centre, half = (dome - drop, deep - rng.uniform(36, 44), 64 * side), rng.uniform(0.85, 1.12, 3) * (52, 27, 29)
        torso.draw_ellipsoid(centre, tuple(half), hu, _KIDNEY, tilt=0.5 * side)
        torso.draw_ellipsoid((centre[0], centre[1] - 8, centre[2] - 18 * side), tuple(half * (0.45, 0.45, 0.5)), _FAT)


def _draw_patient(axes: list[np.ndarray], rng: np.random.Generator, tumours: tuple[int, int]) -> _Torso:
    """Draw the patient on one grid; the order of random numbers does not depend on the grid."""
    torso = _Torso(axes, rng)
    wide, deep, dome, above = _draw_trunk(torso, rng)
    centre = (dome + rng.uniform(15, 30), -28, 22)
    torso.draw_ellipsoid(centre, (rng.uniform(35, 45), rng.uniform(38, 46), rng.uniform(46, 58)), rng.uniform(90, 170))
    inside = (above < -4) & (np.hypot(torso.x / (wide - 3), torso.y / (deep - 3)) < 1)
    _draw_bowel(torso, rng, dome, inside)
    _draw_liver(torso, rng, dome, inside, tumours)
    _draw_left_organs(torso, rng, wide, dome, inside)
    _draw_kidneys(torso, rng, deep, dome)
    _draw_back(torso, rng, deep)
    return torso


def _centres(length: int, spacing: float) -> np.ndarray:
    """Positions of voxel centres in mm; 0 is the centre of the volume."""
    return (np.arange(length) - (length - 1) / 2) * spacing


def _check_volume(size: tuple, spacing: tuple | None) -> tuple[tuple[int, ...], tuple[float, ...]]:
    size = check_size("size", size, _MIN_SIZE, axes=3)
    if spacing is None:
        plane = max(EXTENT[1] / size[1], EXTENT[2] / size[2])
        spacing = (EXTENT[0] / size[0], plane, plane)
        if min(spacing) < _FINEST:
            raise ValueError(
                f"size is {size}, expected fewer voxels, or a spacing: the default spacing would be below {_FINEST} mm"
            )
    if not isinstance(spacing, (tuple, list)) or len(spacing) != 3:
        raise TypeError(f"spacing is {spacing!r}, expected three numbers in mm, in the order of the axes, or None")
    return size, tuple(check_number("spacing", part, _FINEST, 50) for part in spacing)


def draw_volume(
    seed: int | tuple[int, ...],
    size: tuple[int, int, int] = (24, 48, 64),
    spacing: tuple[float, float, float] | None = None,
    *,
    noise: float = 1.0,
    tumours: int | tuple[int, int] = (0, 3),
) -> dict[str, Tensor | tuple[float, ...]]:
    """Draw one CT volume.

    Args:
        seed: an integer, or a tuple such as (seed, index); the same seed gives the same patient.
        size: depth, height and width in voxels, at least 8 each.
        spacing: distance between voxels along each axis in mm, 0.2 to 50. None: the abdomen fills the volume,
            (12, 5.5, 5.5) for the default size. A smaller spacing shows only the middle of the patient.
        noise: scanner noise, 0 (none) to 10; 1 is a standard deviation of 22 Hounsfield units.
        tumours: number of tumours in the liver, or (lowest, highest); the patient is the same without them.

    Returns:
        `image` float32 (1, D, H, W) in [0, 1], the window `WINDOW` of the Hounsfield units; `hu` float32
        (D, H, W); `semantic` int64 (D, H, W), indices into `CLASSES` at the voxel centres;
        `spacing`, three floats in mm, in the order of the axes.
    """
    size, spacing = _check_volume(size, spacing)
    noise, tumours = check_number("noise", noise, 0, 10), check_count(tumours)
    rng = scene_rng(seed)
    patient = rng.integers(2**32)
    voxels = [_centres(length, step) for length, step in zip(size, spacing, strict=True)]
    axes = zip(size, spacing, _FINE, strict=True)
    points = [_centres(length * fine, step / fine) for length, step, fine in axes]
    semantic = _draw_patient(voxels, np.random.default_rng(patient), tumours).label
    fine = _draw_patient(points, np.random.default_rng(patient), tumours).hu
    (depth, height, width), (a, b, c) = size, _FINE
    hu = fine.reshape(depth, a, height, b, width, c).mean(axis=(1, 3, 5))
    hu = ndimage.gaussian_filter(hu, (0, *[rng.uniform(0.3, 0.6)] * 2))
    grain = ndimage.gaussian_filter(rng.standard_normal(size), (0, 0.5, 0.5))
    hu = np.clip(hu + 22 * noise * grain / grain.std(), -1024, 3071).astype(np.float32)
    low, high = WINDOW
    return {
        "image": torch.from_numpy(np.clip((hu - low) / (high - low), 0, 1))[None],
        "hu": torch.from_numpy(hu),
        "semantic": torch.from_numpy(semantic.astype(np.int64)),
        "spacing": spacing,
    }
