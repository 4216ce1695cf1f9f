"""Reading the files of data sets: what is missing or broken is named, with what was expected in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor, from_numpy


def require(path: Path, root: Path, layout: str) -> Path:
    """Give a file or folder of a data set, or say what the folder should look like.

    Args:
        path: what is needed.
        root: the folder that the caller gave.
        layout: the tree that was expected, in a few words.

    Returns:
        The path.

    Raises:
        FileNotFoundError: if it is missing.
    """
    if not path.exists():
        raise FileNotFoundError(f"root is {str(root)!r}, which has no {path.relative_to(root)}; expected {layout}")
    return path


def read_pixels(path: Path, photograph: bool = False) -> np.ndarray:
    """Pixels of an image file as they are stored; a palette image gives its indexes.

    Args:
        path: PNG, JPEG or TIFF.
        photograph: colours instead of indexes, and of printers' inks (CMYK), as RGB.

    Returns:
        (H, W) or (H, W, channels).

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is no image, or cut short.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, expected an image: the data set names it")
    try:
        with Image.open(path) as image:
            inks = photograph and image.mode in ("P", "CMYK")
            return np.array(image.convert("RGB") if inks else image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} is no readable image, expected PNG, JPEG or TIFF: {error}") from error


def read_image(path: Path) -> np.ndarray:
    """A photograph as the library's images are: grey in three equal channels, transparency left out.

    Args:
        path: an 8-bit image.

    Returns:
        (3, H, W) float32 in [0, 1].

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is no image, or not of 8 bits.
    """
    pixels = read_pixels(path, photograph=True)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ValueError(f"{path} has dtype {pixels.dtype}, expected 8-bit grey or colour")
    grey = pixels.ndim == 2 or pixels.shape[2] < 3
    image = np.repeat(pixels.reshape(*pixels.shape[:2], -1)[None, ..., 0], 3, axis=0) if grey else pixels
    return (image if grey else np.moveaxis(pixels[..., :3], 2, 0)).astype(np.float32) / 255


def read_labels(path: Path, size: tuple[int, int]) -> Tensor:
    """A map of whole numbers that belongs to an image.

    Args:
        path: a PNG of 8 or 16 bits, or with a palette.
        size: (H, W) of the image.

    Returns:
        (H, W) int64.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is no image, or no map of that size.
    """
    labels = read_pixels(path)
    if labels.shape != tuple(size) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path} has shape {labels.shape} and dtype {labels.dtype}, expected whole numbers of shape {tuple(size)}"
        )
    return from_numpy(labels.astype(np.int64))


def item_of(names: list, index: int, transforms: Callable | None, read: Callable) -> dict:
    """Item `index` of a data set: read, then transformed.

    Args:
        names: of the items.
        index: from -n to n - 1.
        transforms: called with the sample, if not None.
        read: makes the sample of a name.

    Returns:
        The sample.

    Raises:
        IndexError: if there is no such item.
    """
    if not -len(names) <= index < len(names):
        raise IndexError(f"index is {index}, expected one of {len(names)} images")
    sample = read(names[index])
    return transforms(sample) if transforms else sample
