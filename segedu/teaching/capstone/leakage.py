"""Find test images that are also training images: near copies have nearly the same fingerprint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

SAME = 0.9  # two images with a larger correlation are copies; tests/test_capstone.py measures it
GRID = {2: (8, 8), 3: (6, 6, 6)}  # grid cells of a fingerprint
_MAX_SIMILARITIES = 1 << 22  # held in memory at once


def fingerprint(image: Any) -> tuple[int, ...]:
    """Summarise an image in 64 integers: the means of a coarse grid, normalised for brightness and contrast.

    Noise, another exposure, another size or a border crop of one pixel change it little.

    Args:
        image: tensor or array (C, H, W), or of a volume (1, D, H, W), which has 216 integers.

    Returns:
        Integers from -127 to 127; all 0 for a uniform image.

    Raises:
        TypeError: if `image` is neither a tensor nor an array of numbers.
        ValueError: if it has another shape, is empty, not finite, or has its channels last.
    """
    values = _array(image)
    if values.ndim not in (3, 4) or not values.size or not np.isfinite(values).all():
        finite = "" if values.ndim not in (3, 4) or not values.size else " with NaN or infinite values"
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
    """Convert to float64, also a tensor with a gradient, on another device, or of a dtype that NumPy does not know."""
    try:
        plain = image.detach().cpu().double() if hasattr(image, "detach") else image
        return np.asarray(plain, dtype=np.float64)
    except (TypeError, ValueError):
        kind = type(image).__name__
        raise TypeError(
            f"image is {kind}, expected a tensor or an array of numbers (C, H, W) or (1, D, H, W)"
        ) from None


def _averaged(values: np.ndarray, axis: int, parts: int) -> np.ndarray:
    """Means of `parts` intervals along an axis; an interval without a full pixel takes the one in which it begins."""
    edges = np.linspace(0, values.shape[axis], parts + 1)
    first = np.floor(edges[:-1]).astype(int)
    last = np.maximum(np.ceil(edges[1:]).astype(int), first + 1)
    pieces = [values.take(range(a, b), axis).mean(axis, keepdims=True) for a, b in zip(first, last, strict=True)]
    return np.concatenate(pieces, axis)


def leaks(train: Sequence[Sequence[int]], test: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Find test images that are also in the training set: copied, with noise, or flipped and rotated.

    The part that all images have in common is subtracted first, so that two streets do not match because of their sky.
    A crop of a larger image is not found.

    Returns:
        Pairs (index in train, index in test), with the most similar training image of each leaking test image.

    Raises:
        ValueError: if the fingerprints are malformed, or are of images and of volumes.

    >>> stripes, square = fingerprint(np.eye(16)[None]), fingerprint(np.ones((1, 16, 16)).cumsum(1))
    >>> leaks([stripes, square], [fingerprint(np.eye(16)[None, ::-1] * 0.5)])
    [(0, 0)]
    """
    return _copies(train, test) if len(train) and len(test) else []


def repeated(prints: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Find images that a set of fingerprints contains twice: copied, with noise, or flipped and rotated; see `leaks`.

    Returns:
        Pairs (index of the image, index of its later copy).

    >>> stripes, square = fingerprint(np.eye(16)[None]), fingerprint(np.ones((1, 16, 16)).cumsum(1))
    >>> repeated([stripes, square, stripes])
    [(0, 2)]
    """
    pairs = _copies(prints, prints, match_self=False) if len(prints) else []
    return sorted({(min(pair), max(pair)) for pair in pairs}, key=lambda pair: pair[::-1])


def _copies(references: Sequence[Sequence[int]], queries: Sequence[Sequence[int]], match_self: bool = True) -> list:
    """For each query with a copy among the references: (index of the reference, index of the query)."""
    lengths = {len(one) for one in (*references, *queries)}
    if len(lengths) > 1 or not lengths <= set(map(math.prod, GRID.values())):
        raise ValueError(
            f"fingerprints have {sorted(lengths)} values, expected 64 for every image or 216 for every volume"
        )
    reference_prints, query_prints = np.array(references, np.float32), np.array(queries, np.float32)
    common = (reference_prints.sum(axis=0) + query_prints.sum(axis=0)) / (len(reference_prints) + len(query_prints))
    units, exact = (
        _unit(reference_prints - common).T,
        {row.tobytes(): i for i, row in reversed(list(enumerate(reference_prints)))},
    )
    pairs, step = [], max(1, _MAX_SIMILARITIES // len(reference_prints))
    for start in range(0, len(query_prints), step):
        best_similarity, where = np.zeros(len(query_prints[start : start + step]), np.float32), np.zeros(1, int)
        for transformed in _flips_and_rotations(query_prints[start : start + step]):
            similarity = _unit(transformed - common) @ units
            # identical images leave nothing after the subtraction, so compare them exactly
            for i, j in enumerate(exact.get(row.tobytes()) for row in transformed):
                if j is not None:
                    similarity[i, j] = 1.0
            if not match_self:
                similarity[np.arange(len(transformed)), start + np.arange(len(transformed))] = 0.0
            best = similarity.argmax(axis=1)
            value = similarity[np.arange(len(transformed)), best]
            where, best_similarity = np.where(value > best_similarity, best, where), np.maximum(value, best_similarity)
        pairs += [(int(where[i]), start + int(i)) for i in np.flatnonzero(best_similarity > SAME)]
    return pairs


def _flips_and_rotations(prints: np.ndarray) -> Iterator[np.ndarray]:
    """All eight flips and rotations of the fingerprints; of volumes also with the slices in reverse order."""
    grid = next(grid for grid in GRID.values() if math.prod(grid) == prints.shape[1])
    maps = prints.reshape(-1, *grid)
    for ordered in (maps,) if maps.ndim == 3 else (maps, np.flip(maps, 1)):
        for turn in range(4):
            rotated = np.rot90(ordered, turn, axes=(-2, -1))
            yield rotated.reshape(prints.shape)
            yield np.flip(rotated, -1).reshape(prints.shape)


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
