"""Is a test image also one to train on? Images become fingerprints, and near copies of one have nearly the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

SAME = 0.9  # correlation of two fingerprints from which on two images count as one; tests/test_capstone.py measures it
GRID = {2: (8, 8), 3: (6, 6, 6)}  # parts of an image that are averaged for its fingerprint
_AT_A_TIME = 1 << 22  # correlations held in memory


def fingerprint(image: Any) -> tuple[int, ...]:
    """An image in 64 numbers: the mean of each part of a coarse grid, brightness and contrast taken out.

    Noise, another exposure, another size or a pixel cut off change it little.

    Args:
        image: tensor or array (C, H, W), or of a volume (1, D, H, W): 216 numbers.

    Returns:
        Integers from -127 to 127; all 0 for an even image.

    Raises:
        TypeError: no tensor, and no array of numbers.
        ValueError: not of these shapes, empty, not finite, or with its channels last.
    """
    values = _array(image)
    if values.ndim not in (3, 4) or not values.size or not np.isfinite(values).all():
        finite = "" if values.ndim not in (3, 4) or not values.size else " with NaN or infinity in it"
        raise ValueError(f"image has shape {values.shape}{finite}, expected finite values (C, H, W) or (1, D, H, W)")
    if values.shape[-1] in (3, 4) and values.shape[0] > 4:
        raise ValueError(f"image has shape {values.shape}, channels last, expected (C, H, W): permute it first")
    grey = (values / max(np.abs(values).max(), 1e-300)).mean(axis=0)
    for axis, parts in enumerate(GRID[grey.ndim]):
        grey = _averaged(grey, axis, parts)
    spread = grey.std()
    grey = (grey - grey.mean()) / spread if spread > 1e-9 else np.zeros_like(grey)
    return tuple(int(v) for v in np.clip(np.rint(grey * 40), -127, 127).ravel())


def _array(image: Any) -> np.ndarray:
    """Of a tensor also where it has a gradient, or lies on another device, or is of a kind that NumPy does not know."""
    try:
        plain = image.detach().cpu().double() if hasattr(image, "detach") else image
        return np.asarray(plain, dtype=np.float64)
    except (TypeError, ValueError):
        given = type(image).__name__
        raise TypeError(
            f"image is {given}, expected a tensor or an array of numbers (C, H, W) or (1, D, H, W)"
        ) from None


def _averaged(values: np.ndarray, axis: int, parts: int) -> np.ndarray:
    """Means of `parts` stretches along an axis; a stretch that holds no whole pixel takes the one it begins in."""
    edges = np.linspace(0, values.shape[axis], parts + 1)
    first = np.floor(edges[:-1]).astype(int)
    last = np.maximum(np.ceil(edges[1:]).astype(int), first + 1)
    pieces = [values.take(range(a, b), axis).mean(axis, keepdims=True) for a, b in zip(first, last, strict=True)]
    return np.concatenate(pieces, axis)


def leaks(train: Sequence[Sequence[int]], test: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Which images of the test are also trained on, as they are, noisy, or mirrored and turned.

    What all images have in common is taken out first, so that two streets are not one for their common sky. A window
    that was cut out of a larger image is not found.

    Args:
        train: fingerprints.
        test: fingerprints of the same length.

    Returns:
        Pairs (number in train, number in test), the likest training image of each leaking test image.

    Raises:
        ValueError: not all are fingerprints, or of images here and of volumes there.

    >>> stripes, square = fingerprint(np.eye(16)[None]), fingerprint(np.ones((1, 16, 16)).cumsum(1))
    >>> leaks([stripes, square], [fingerprint(np.eye(16)[None, ::-1] * 0.5)])
    [(0, 0)]
    """
    return _copies(train, test) if len(train) and len(test) else []


def repeated(prints: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Which images a set holds again, as they are, noisy, or mirrored and turned.

    Args:
        prints: fingerprints.

    Returns:
        Pairs (number of the image, number of its copy, the later of the two).

    Raises:
        ValueError: not all are fingerprints, or of images here and of volumes there.

    >>> stripes, square = fingerprint(np.eye(16)[None]), fingerprint(np.ones((1, 16, 16)).cumsum(1))
    >>> repeated([stripes, square, stripes])
    [(0, 2)]
    """
    pairs = _copies(prints, prints, itself=False) if len(prints) else []
    return sorted({(min(pair), max(pair)) for pair in pairs}, key=lambda pair: pair[::-1])


def _copies(known: Sequence[Sequence[int]], asked: Sequence[Sequence[int]], itself: bool = True) -> list:
    """For each image that was asked for and has a copy among the known: (number of the known, its own)."""
    lengths = {len(one) for one in (*known, *asked)}
    if len(lengths) > 1 or not lengths <= set(map(math.prod, GRID.values())):
        raise ValueError(
            f"fingerprints have {sorted(lengths)} numbers, expected 64 of every image or 216 of every volume"
        )
    old, new = np.array(known, np.float32), np.array(asked, np.float32)
    common = (old.sum(axis=0) + new.sum(axis=0)) / (len(old) + len(new))
    units, exact = _unit(old - common).T, {row.tobytes(): i for i, row in reversed(list(enumerate(old)))}
    found, step = [], max(1, _AT_A_TIME // len(old))
    for start in range(0, len(new), step):
        likest, where = np.zeros(len(new[start : start + step]), np.float32), np.zeros(1, int)
        for turned in _turned(new[start : start + step]):
            likeness = _unit(turned - common) @ units
            # Where all images are one, nothing is left of them but what they share.
            for i, j in enumerate(exact.get(row.tobytes()) for row in turned):
                if j is not None:
                    likeness[i, j] = 1.0
            if not itself:
                likeness[np.arange(len(turned)), start + np.arange(len(turned))] = 0.0
            best = likeness.argmax(axis=1)
            value = likeness[np.arange(len(turned)), best]
            where, likest = np.where(value > likest, best, where), np.maximum(value, likest)
        found += [(int(where[i]), start + int(i)) for i in np.flatnonzero(likest > SAME)]
    return found


def _turned(prints: np.ndarray) -> Iterator[np.ndarray]:
    """All fingerprints in the eight ways of a square; a volume in those of its slices, their order turned round too."""
    grid = next(grid for grid in GRID.values() if math.prod(grid) == prints.shape[1])
    maps = prints.reshape(-1, *grid)
    for ordered in (maps,) if maps.ndim == 3 else (maps, np.flip(maps, 1)):
        for turn in range(4):
            rotated = np.rot90(ordered, turn, axes=(-2, -1))
            yield rotated.reshape(prints.shape)
            yield np.flip(rotated, -1).reshape(prints.shape)


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
