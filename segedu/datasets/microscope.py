"""What the drawn microscope images have in common: uneven light, photons and a camera, connected truth.

Two or three axes alike where nothing else is said.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from segedu.datasets.texture import check_amount, smooth_field


def check_span(name: str, span: tuple[float, float], lowest: float, highest: float) -> tuple[float, float]:
    """Return (smallest, largest) as floats.

    Args:
        name: of the argument, for the message.
        span: what was given.
        lowest: the smallest value allowed.
        highest: the largest value allowed.

    Returns:
        (smallest, largest).

    Raises:
        TypeError: if it is not two numbers.
        ValueError: if one is out of range, or the smallest exceeds the largest.
    """
    if not isinstance(span, (tuple, list)) or len(span) != 2:
        raise TypeError(f"{name} is {span!r}, expected two numbers (smallest, largest) in pixels")
    smallest, largest = (check_amount(name, part, lowest, highest) for part in span)
    if smallest > largest:
        raise ValueError(f"{name} is {tuple(span)!r}, expected (smallest, largest)")
    return smallest, largest


def number_wanted(rng: np.random.Generator, count: tuple[int, int] | None, expected: float) -> int:
    """How many objects a scene is to have.

    Args:
        rng: where the number is drawn from.
        count: (lowest, highest); None takes 0.6 to 1.4 times what is expected, and at least the chance of one.
        expected: number of objects that cover the share of the image that they usually cover.

    Returns:
        The number.
    """
    lowest, highest = count or (round(0.6 * expected), max(1, round(1.4 * expected)))
    return int(rng.integers(lowest, highest + 1))


def uneven_light(rng: np.random.Generator, size: tuple[int, int], unevenness: float) -> tuple[np.ndarray, np.ndarray]:
    """Light that varies across the field, and stray light that comes from nothing in focus.

    Args:
        rng: where both are drawn from.
        size: height and width.
        unevenness: 0 (none) to 1.

    Returns:
        Factor and summand, each (H, W).
    """
    light = 1 + unevenness * (0.55 * smooth_field(rng, size, max(size) / 1.5) - 0.2)
    stray = 0.04 + unevenness * 0.12 * (1 + smooth_field(rng, size, max(size) / 2))
    return light, stray


def expose(rng: np.random.Generator, image: np.ndarray, noise: float) -> np.ndarray:
    """Count photons, then read them out with a camera.

    Args:
        rng: where the noise is drawn from.
        image: brightness, of any shape.
        noise: 0 (none) upwards; 1 is an ordinary exposure, 250 photons at brightness 1.

    Returns:
        The picture, of the same shape, in [0, 1].
    """
    photons = 250 / max(noise, 1e-3) ** 2
    image = rng.poisson(np.clip(image, 0, None) * photons) / photons
    return np.clip(image + 0.02 * noise * rng.standard_normal(image.shape), 0, 1)


def largest_parts(label_map: np.ndarray) -> np.ndarray:
    """Leave of each label its largest connected part; the crumbs become background.

    Args:
        label_map: integers, 0 for background.

    Returns:
        A label map of the same shape and type; parts that touch along an edge (a face) are connected.
    """
    kept = np.zeros_like(label_map)
    for label, window in enumerate(ndimage.find_objects(label_map), start=1):
        if window is not None:
            parts, number = ndimage.label(label_map[window] == label)
            largest = 1 if number == 1 else 1 + np.bincount(parts.ravel())[1:].argmax()
            kept[window][parts == largest] = label
    return kept
