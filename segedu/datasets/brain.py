"""Synthetic axial slices of a head, as T1-weighted magnetic resonance shows them after a contrast agent.

A scene depends only on its seed and its arguments. Most heads have a tumour, which displaces what is around it: a
bright rim that takes up contrast agent, a dark necrotic core, and oedema in the white matter. Some heads have none.
Scalp, vessels and the choroid plexus are as bright as the rim, ventricles and sulci are as dark as the core, and
oedematous white matter is as grey as grey matter. No result measured on these images allows a medical conclusion.

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

BRAIN_VERSION = 1  # Increase it when a scene changes: every measured result must then be measured again.
CLASSES = ("background", "skull", "fluid", "grey matter", "white matter", "oedema", "rim", "core")
THINGS = ()
# The nested regions of the BraTS benchmark, each with its classes; a pixel may belong to several regions.
REGIONS = {"whole tumour": (5, 6, 7), "tumour core": (6, 7), "active rim": (6,)}
_SKULL, _FLUID, _GREY, _WHITE, _OEDEMA, _RIM, _CORE = range(1, len(CLASSES))
_MIN_SIZE = 32


def _draw_skull(scan: MRSlice, rng: np.random.Generator) -> np.ndarray:
    """Draw scalp, skull with marrow, and fluid; return the relative depth of points in the brain, 1 at its surface."""
    half = (rng.uniform(84, 92), rng.uniform(66, 74))
    waves = np.stack([rng.uniform(0, (0.02, 0.025, 0.01)), rng.uniform(0, 2 * np.pi, 3)])

    def within(shrink: float) -> np.ndarray:
        return scan.depth((0, 0), (half[0] - shrink, half[1] - shrink), 0.0, waves) < 1

    scan.signal[:] = 0.01
    thick = rng.uniform(4, 7)
    scan.fill(within(0), rng.uniform(0.7, 0.95))  # fat of the scalp
    scan.fill(within(thick), 0.06, _SKULL)
    scan.fill(within(thick + 2.2), rng.uniform(0.25, 0.5), _SKULL)
    scan.fill(within(thick + 4.5), 0.06, _SKULL)
    scan.fill(within(thick + 6.5), rng.uniform(0.1, 0.16), _FLUID)
    shrink = thick + rng.uniform(8, 10)
    return scan.depth((0, 0), (half[0] - shrink, half[1] - shrink), 0.0, waves)


def _displace(scan: MRSlice, centre: tuple[float, float], radius: float, amount: float) -> None:
    """Displace tissue away from a growing mass; tissue that is drawn later bends around it."""
    y, x = scan.y - centre[0], scan.x - centre[1]
    distance = np.hypot(y, x) + 1e-6
    shift = amount * np.exp(-0.5 * (distance / (1.6 * radius)) ** 2) * np.minimum(distance / radius, 1)
    scan.y, scan.x = scan.y - shift * y / distance, scan.x - shift * x / distance


def _draw_matter(scan: MRSlice, rng: np.random.Generator, brain_depth: np.ndarray, tones: dict[str, float]) -> None:
    """Draw white matter, the folded cortex with its sulci, grey nuclei, and the fissure between the hemispheres."""
    inside = brain_depth < 1
    grain = 1 + 0.06 * scan.grain(rng, 6)
    fold = scan.grain(rng, 7) + 0.6 * scan.grain(rng, 4)
    scan.fill(inside, tones["white"] * grain, _WHITE)
    ribbon = inside & (brain_depth > 0.84 + 0.13 * fold)
    gap = np.abs(scan.x + 2 * scan.grain(rng, 25))
    ribbon |= inside & (gap < 4 + 1.5 * fold) & (np.abs(scan.y) > 28)
    scan.fill(ribbon, tones["grey"] * grain, _GREY)
    furrow = ribbon & (np.abs(scan.grain(rng, 9)) < 0.14) & (brain_depth > 0.8)
    scan.fill(furrow | (inside & (gap < 0.9) & (np.abs(scan.y) > 30)), tones["fluid"], _FLUID)
    for side in (-1, 1):
        for y, x, tall, wide, tilt in ((-12, 17, 15, 6, 0.35), (8, 13, 10, 8, 0.0), (-8, 27, 15, 4.5, 0.2)):
            nucleus = scan.depth((y, x * side), (tall, wide), -tilt * side) < 1
            scan.fill(nucleus & inside, tones["grey"] * rng.uniform(0.95, 1.1) * grain, _GREY)


def _draw_ventricles(scan: MRSlice, rng: np.random.Generator, tones: dict[str, float]) -> None:
    """Draw the anterior and posterior horns, of random width, with bright plexus, and bright vessels and sinus."""
    wide, bright = rng.uniform(3.0, 7.5), rng.uniform(0.65, 0.9)
    scan.draw_ellipse((3, 0), (8, rng.uniform(1.2, 2.5)), tones["fluid"], _FLUID)
    for side in (-1, 1):
        scan.draw_ellipse((-20, (4 + wide) * side), (15, wide), tones["fluid"], _FLUID, tilt=0.3 * side)
        scan.draw_ellipse((24, (13 + wide) * side), (16, wide), tones["fluid"], _FLUID, tilt=-0.35 * side)
        if rng.uniform() < 0.7:
            scan.draw_ellipse((22, (12 + wide) * side), (5, 2.2), bright, _FLUID, tilt=-0.35 * side)
    edge = np.abs(scan.y[:, scan.y.shape[1] // 2])
    length = edge[scan.label[:, scan.y.shape[1] // 2] > _FLUID].max(initial=60)
    scan.draw_ellipse(
        (length, 0), (3.5, 4.5), rng.uniform(0.8, 1.0), _FLUID
    )  # the sinus behind, filled with contrast agent
    for _ in range(int(rng.integers(2, 7))):  # vessels in the sulci
        turn, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.86, 1.0)
        scan.draw_ellipse((far * length * np.sin(turn), 0.78 * far * length * np.cos(turn)), (1.6, 1.6), bright, _FLUID)


def _draw_tumour(scan: MRSlice, rng: np.random.Generator, centre: tuple, radius: float, depth: np.ndarray) -> None:
    """Draw the oedema, which follows the white matter, the rim, and the necrotic core."""
    waves = np.stack([rng.uniform(0.02, (0.14, 0.14, 0.1)), rng.uniform(0, 2 * np.pi, 3)])
    mass = scan.depth(centre, (radius, radius * rng.uniform(0.8, 1.2)), rng.uniform(0, np.pi), waves)
    white = scan.label == _WHITE
    reach = 1 + rng.uniform(4, 16) / radius * (1 + 0.5 * scan.grain(rng, 12))
    tone = np.median(scan.signal[white]) * rng.uniform(0.62, 0.8) if white.any() else 0.4
    scan.fill(white & (mass < reach), tone * (1 + 0.08 * scan.grain(rng, 5)), _OEDEMA)
    inside = (mass < 1) & (depth < 1)
    rim = rng.uniform(0.7, 0.95) * (1 + 0.2 * scan.grain(rng, 8))
    scan.fill(inside, rim, _RIM)
    thickness = np.clip(rng.uniform(3.5, 6.5) / radius * (1 + 0.45 * scan.grain(rng, 10)), 0.1, 0.75)
    scan.fill(inside & (mass < 1 - thickness), rng.uniform(0.14, 0.3) * (1 + 0.3 * scan.grain(rng, 6)), _CORE)


def draw_brain(
    seed: int | tuple[int, ...],
    size: tuple[int, int] = (96, 96),
    *,
    noise: float = 0.025,
    bias: float = 0.6,
    tumour: float = 0.8,
) -> dict[str, Tensor | list]:
    """Draw one axial slice of a head.

    Args:
        seed: an integer, or a tuple such as (seed, index); the same seed gives the same scene.
        size: height and width, at least 32 each; the shorter side covers 195 to 225 mm.
        noise: strength of the scanner noise, 0 to 1.
        bias: strength of the bias field, 0 (none) to 2.
        tumour: probability of a tumour, 0 to 1.

    Returns:
        `image` float32 (3, H, W) in [0, 1], three equal grey channels; `semantic` int64 (H, W), indices into
        `CLASSES`; `regions` bool (3, H, W), the nested regions of `REGIONS` in their order; `panoptic_seg` and
        `segments_info`, all of stuff; `label_map`, `boxes`, `labels` and `masks` of no instance; `spacing`, mm from
        pixel to pixel down and across.
    """
    size = check_size("size", size, _MIN_SIZE)
    noise, bias = check_number("noise", noise, 0, 1), check_number("bias", bias, 0, 2)
    tumour = check_number("tumour", tumour, 0, 1)
    rng = scene_rng(seed)
    scan = MRSlice(size, rng.uniform(195, 225), rng, bend=2.5)
    rotation, shift = rng.uniform(-0.12, 0.12), rng.uniform(-5, 5, 2)
    y, x = scan.y + shift[0], scan.x + shift[1]
    scan.y, scan.x = y * np.cos(rotation) - x * np.sin(rotation), x * np.cos(rotation) + y * np.sin(rotation)
    tones = {"white": rng.uniform(0.52, 0.66), "grey": rng.uniform(0.36, 0.46), "fluid": rng.uniform(0.1, 0.18)}
    has_tumour, radius = rng.uniform() < tumour, rng.uniform(9, 22)
    direction, eccentricity = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.62)
    centre = (eccentricity * 72 * np.sin(direction), eccentricity * 56 * np.cos(direction))
    brain_depth = _draw_skull(scan, rng)
    undeformed = scan.y, scan.x
    if has_tumour:
        _displace(scan, centre, radius, rng.uniform(0.3, 0.6) * radius)
    _draw_matter(scan, rng, brain_depth, tones)
    _draw_ventricles(scan, rng, tones)
    scan.y, scan.x = undeformed
    if has_tumour:
        _draw_tumour(scan, rng, centre, radius, brain_depth)
    image, semantic = scan.photograph(rng, noise, bias), scan.classes()
    sample = make_sample(image, np.zeros(size, np.int32), np.zeros(0, np.int64), stuff=semantic)
    regions = torch.stack([torch.isin(sample["semantic"], torch.tensor(classes)) for classes in REGIONS.values()])
    return sample | {"regions": regions, "spacing": torch.full((2,), scan.pixel, dtype=torch.float32)}
