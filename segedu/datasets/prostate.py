"""Synthetic slices through the male pelvis, as T2-weighted magnetic resonance shows them, with the prostate.

A scene depends only on its seed and its arguments. The gland varies in size, position and composition. Its border is
faint where it meets bladder, rectum and fat: the peripheral zone is nearly as bright as fat, the central gland has the
grey of marrow and of the rectum's wall, and coils make one side of the image brighter than the other. So no threshold
segments it; a network needs its position relative to the other organs. No result measured on these images allows a
medical conclusion.

Rows go from the front to the back, columns from the patient's right to the left, as radiologists see a slice.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.datasets.mr_slice import MRSlice
from segedu.datasets.sample import make_sample
from segedu.datasets.texture import scene_rng
from segedu.validation.numbers import check_number, check_size

PROSTATE_VERSION = 1  # Increase it when a scene changes: every measured result must then be measured again.
CLASSES = ("background", "prostate")
ZONES = ("background", "central gland", "peripheral zone")
_CENTRAL, _PERIPHERAL = 1, 2
_MIN_SIZE = 32


def _bone(scan: MRSlice, centre: tuple, half: tuple, marrow: float, tilt: float = 0.0) -> None:
    """Draw a bone: marrow in a dark shell."""
    scan.draw_ellipse(centre, half, 0.05, tilt=tilt)
    scan.draw_ellipse(centre, (half[0] - 3, half[1] - 3), marrow, tilt=tilt)


def _draw_pelvis(scan: MRSlice, rng: np.random.Generator) -> None:
    """Skin and fat, muscles, hip joints, the pubic bones in front."""
    fat, muscle, marrow = rng.uniform(0.55, 0.75), rng.uniform(0.14, 0.24), rng.uniform(0.38, 0.55)
    scan.signal[:] = 0.01
    scan.draw_ellipse((0, 0), (rng.uniform(108, 128), rng.uniform(165, 190)), fat)
    flesh = muscle * (1 + 0.35 * scan.grain(rng, 7))
    for side in (-1, 1):
        hip = (rng.uniform(-22, -10), side * rng.uniform(82, 92))
        scan.fill(scan.depth((68, 66 * side), (36, 62), 0.35 * side) < 1, flesh)  # of the buttock
        scan.fill(scan.depth((-52, 84 * side), (30, 42), -0.4 * side) < 1, flesh)  # of the thigh
        _bone(scan, (hip[0] + 4, hip[1] - 12 * side), (42, 27), marrow, tilt=0.3 * side)  # socket
        scan.draw_ellipse(hip, (30, 30), 0.05)
        _bone(scan, hip, (27, 27), marrow * rng.uniform(0.95, 1.2))
        scan.fill(scan.depth((8, 52 * side), (42, 11), -0.12 * side) < 1, flesh)  # lines the inner wall
        _bone(scan, (-60, 20 * side), (12, 25), marrow, tilt=-0.5 * side)  # pubic bone
    scan.draw_ellipse((rng.uniform(88, 98), 0), (9, 14), 0.4)  # coccyx
    spots = np.abs(scan.grain(rng, 5)) > rng.uniform(0.72, 0.8)  # vessels and strands
    inner = scan.depth((5, 0), (52, 46)) < 1
    scan.fill(spots & inner & (scan.signal > 0.5), rng.uniform(0.1, 0.35))


def _draw_bladder(scan: MRSlice, rng: np.random.Generator, top: float) -> None:
    """Draw the bladder, bright urine in a dark wall, in front of the prostate, which begins at `top`."""
    half = (rng.uniform(12, 24), rng.uniform(22, 38))
    centre = (top - half[0] * rng.uniform(0.3, 0.9), rng.uniform(-5, 5))
    scan.draw_ellipse(centre, half, rng.uniform(0.15, 0.25))
    scan.draw_ellipse(centre, (half[0] - 3, half[1] - 3), rng.uniform(0.75, 1.0))


def _draw_prostate(scan: MRSlice, rng: np.random.Generator, centre: tuple, half: tuple) -> None:
    """Draw the prostate: the peripheral zone surrounds the central gland, which has nodules, at the back."""
    waves = np.stack([rng.uniform(0, (0.05, 0.07, 0.04)), rng.uniform(0, 2 * np.pi, 3)])
    tilt = rng.uniform(-0.15, 0.15)
    gland = scan.depth(centre, half, tilt, waves)
    inside = gland < 1
    scan.fill(scan.depth(centre, (half[0] + 1.3, half[1] + 1.3), tilt, waves) < 1, rng.uniform(0.25, 0.45))  # capsule
    peripheral, central = rng.uniform(0.45, 0.72), rng.uniform(0.27, 0.42)
    scan.fill(inside, peripheral * (1 + 0.15 * scan.grain(rng, 4)), _PERIPHERAL)
    share = rng.uniform(0.62, 0.86)
    middle = (centre[0] - half[0] * (1 - share) * rng.uniform(0.7, 1.2), centre[1])
    core = inside & (scan.depth(middle, (share * half[0], share * half[1] * rng.uniform(0.95, 1.1)), tilt) < 1)
    tone = central * (1 + rng.uniform(0.2, 0.6) * scan.grain(rng, rng.uniform(5, 9)))
    scan.fill(core, tone, _CENTRAL)
    if rng.uniform() < 0.35:  # a suspicious focus: dark where the zone should be bright
        focus = (centre[0] + 0.6 * half[0], centre[1] + rng.uniform(-0.6, 0.6) * half[1])
        spot = inside & ~core & (scan.depth(focus, (5, rng.uniform(5, 9))) < 1)
        scan.fill(spot, rng.uniform(0.22, 0.32), _PERIPHERAL)


def _draw_rectum(scan: MRSlice, rng: np.random.Generator, bottom: float, middle: float) -> None:
    """Draw the rectum, a wall around gas or stool, behind the prostate at `bottom`, with muscles on both sides."""
    half = (rng.uniform(11, 18), rng.uniform(12, 20))
    centre = (bottom + half[0] * rng.uniform(0.75, 1.0), middle + rng.uniform(-5, 5))
    for side in (-1, 1):
        band = scan.depth((centre[0] - 8, centre[1] + side * (half[1] + 9)), (30, 3.5), 0.25 * side) < 1
        scan.fill(band & (scan.label == 0), rng.uniform(0.15, 0.25))
    scan.draw_ellipse(centre, half, rng.uniform(0.25, 0.42))
    gas = rng.uniform() < 0.5
    tone = rng.uniform(0.01, 0.05) if gas else rng.uniform(0.35, 0.6)
    inner = scan.depth(centre, (half[0] - 4, half[1] - 4)) < 1
    scan.fill(inner, tone if gas else tone * (1 + 0.5 * scan.grain(rng, 4)))


def draw_prostate(
    seed: int | tuple[int, ...], size: tuple[int, int] = (96, 96), *, noise: float = 0.035, bias: float = 1.0
) -> dict[str, Tensor]:
    """Draw one transversal slice of the pelvis at the height of the prostate.

    Args:
        seed: an integer, or a tuple such as (seed, index); the same seed gives the same scene.
        size: height and width, at least 32 each; the shorter side covers 190 to 240 mm.
        noise: strength of the scanner noise, 0 to 1.
        bias: strength of the bias field, 0 (none) to 2.

    Returns:
        `image` float32 (3, H, W) in [0, 1], three equal grey channels; `semantic` int64 (H, W), indices into
        `CLASSES`; `zones` int64 (H, W), indices into `ZONES`; `label_map`, `boxes`, `labels` and `masks` of the
        prostate as one instance, see `segedu.datasets.sample`; `spacing`, mm from pixel to pixel down and across.
    """
    size = check_size("size", size, _MIN_SIZE)
    noise, bias = check_number("noise", noise, 0, 1), check_number("bias", bias, 0, 2)
    rng = scene_rng(seed)
    scan = MRSlice(size, rng.uniform(190, 240), rng)
    scan.y, scan.x = scan.y + rng.uniform(-10, 10), scan.x + rng.uniform(-10, 10)  # how the patient lies
    centre, half = (rng.uniform(-8, 6), rng.uniform(-4, 4)), (rng.uniform(15, 25), rng.uniform(19, 32))
    _draw_pelvis(scan, rng)
    if rng.uniform() < 0.6:
        _draw_bladder(scan, rng, centre[0] - half[0])
    _draw_prostate(scan, rng, centre, half)
    _draw_rectum(scan, rng, centre[0] + half[0], centre[1])
    image, zones = scan.photograph(rng, noise, bias), scan.classes()
    sample = make_sample(image, zones > 0, np.ones(1, np.int64))
    spacing = torch.full((2,), scan.pixel, dtype=torch.float32)
    return sample | {"zones": torch.from_numpy(zones), "spacing": spacing}
