"""Parts that the synthetic microscope images share: uneven light, photon and camera noise, connected objects.

Unless stated otherwise, the functions accept two or three axes.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from segedu.datasets.texture import smooth_field
from segedu.validation.numbers import check_number


def check_span(name: str, span: tuple[float, float], lowest: float, highest: float) -> tuple[float, float]:
    """Return `span` as (smallest, largest), two floats from `lowest` to `highest`."""
    if not isinstance(span, (tuple, list)) or len(span) != 2:
        raise TypeError(f"{name} is {span!r}, expected two numbers (smallest, largest) in pixels")
    smallest, largest = (check_number(name, part, lowest, highest) for part in span)
    if smallest > largest:
        raise ValueError(f"{name} is {tuple(span)!r}, expected (smallest, largest)")
    return smallest, largest


def draw_count(rng: np.random.Generator, count: tuple[int, int] | None, expected: float) -> int:
    """Draw the number of objects of a scene.

    Args:
        count: (lowest, highest); None means 0.6 to 1.4 times `expected`, with a highest number of at least 1.
        expected: number of objects that cover the usual fraction of the image.
    """
    lowest, highest = count or (round(0.6 * expected), max(1, round(1.4 * expected)))
    return int(rng.integers(lowest, highest + 1))


def uneven_light(rng: np.random.Generator, size: tuple[int, int], unevenness: float) -> tuple[np.ndarray, np.ndarray]:
    """Return illumination that varies across the field, and stray light from out of focus.

    Args:
        size: (H, W).
        unevenness: 0 (none) to 1.

    Returns:
        A factor and a summand for the image, each (H, W).
    """
    light = 1 + unevenness * (0.55 * smooth_field(rng, size, max(size) / 1.5) - 0.2)
    stray = 0.04 + unevenness * 0.12 * (1 + smooth_field(rng, size, max(size) / 2))
    return light, stray


def expose(rng: np.random.Generator, image: np.ndarray, noise: float) -> np.ndarray:
    """Simulate photon counts and the readout noise of a camera.

    Args:
        image: brightness, of any shape.
        noise: 0 (none) upwards; 1 is a typical exposure, 250 photons at brightness 1.

    Returns:
        The image, of the same shape, in [0, 1].
    """
    photons = 250 / max(noise, 1e-3) ** 2
    image = rng.poisson(np.clip(image, 0, None) * photons) / photons
    return np.clip(image + 0.02 * noise * rng.standard_normal(image.shape), 0, 1)


def largest_parts(label_map: np.ndarray) -> np.ndarray:
    """Keep the largest connected component of each label; the others become background.

    Args:
        label_map: integers, 0 for background.

    Returns:
        A label map of the same shape and type; pixels that share an edge (voxels: a face) are connected.
    """
    result = np.zeros_like(label_map)
    for label, window in enumerate(ndimage.find_objects(label_map), start=1):
        if window is not None:
            components, count = ndimage.label(label_map[window] == label)
            largest = 1 if count == 1 else 1 + np.bincount(components.ravel())[1:].argmax()
            result[window][components == largest] = label
    return result
