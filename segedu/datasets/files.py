"""Files of data sets: what is missing or broken is named, with what was expected in its place.

What an image file may mean in two ways is refused too, because nobody sees afterwards which of them was taken: several
pages, an EXIF orientation, pixels that are partly transparent, colours of 16 bits, label maps with lossy compression.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from torch import Tensor, from_numpy

_ORIENTATION = 0x0112  # tag of EXIF and TIFF; 1 is upright
_SAMPLE_FORMAT = 339  # tag of TIFF; 2 is a signed integer
_LOSSY = ("JPEG", "MPO", "WEBP")  # formats that change numbers
_TO_COLOUR = ("P", "PA", "CMYK", "YCbCr")
_OTHER_COLOURS = ("LAB", "HSV", "RGBX", "RGBa", "La")
BINARY = (255, 65535)  # what a mask of all objects together has in them


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


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file beside its place and move it there at the end: nobody reads half a file.

    Args:
        path: of the file; its folder exists.

    Yields:
        Where to write it, a name with the same ending. After an error in the block the old file stays.
    """
    part = path.with_name(f".part-{secrets.token_hex(4)}.{path.name}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_pixels(path: Path, photograph: bool = False) -> np.ndarray:
    """Pixels of an image file as they are stored; a palette image gives its indexes.

    Args:
        path: PNG, JPEG or TIFF.
        photograph: colours instead of indexes, of printers' inks (CMYK) and of luma and chroma, as RGB.

    Returns:
        (H, W) or (H, W, channels).

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is no image, or cut short; if it has several pages, an EXIF orientation, colours of 16 bits
            or, as a photograph, transparent pixels or colours of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, expected an image: the data set names it")
    why = ""
    try:
        with Image.open(path) as image:
            why = _ambiguous(image) or (photograph and _no_photograph(image))
            pixels = np.array(image.convert("RGB") if photograph and image.mode in _TO_COLOUR else image)
    except Exception as error:  # decoders raise many kinds on a damaged file
        if not why:
            raise ValueError(f"{path} is no readable image, expected PNG, JPEG or TIFF: {error}") from error
    if why:
        raise ValueError(f"{path} {why}")
    return pixels


def _ambiguous(image: Image.Image) -> str:
    """Why the pixels of a file that was opened, but not loaded, are not all that it shows; empty if they are."""
    layouts = " ".join(str(tile[3]) for tile in image.tile)  # first of all: to read the EXIF of a PNG loads it
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":  # what a camera adds there is a preview
        return f"has {pages} pages, expected one image: save each page as a separate file"
    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation not in (0, 1):
        return (
            f"has the EXIF orientation {orientation}, expected none: programs show it turned, but its pixels are not, "
            "and masks may belong to either; save it upright (PIL.ImageOps.exif_transpose), and its masks to fit"
        )
    if ";16" in layouts and image.mode in ("RGB", "RGBA", "LA"):
        return "has colours of 16 bits, expected 8-bit grey or colour: scale them by a range that you choose"
    if image.mode == "L" and 2 in np.atleast_1d(getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, 1)):
        return "has signed numbers of 8 bits, expected whole numbers of at least 0"
    return ""


def _no_photograph(image: Image.Image) -> str:
    """Why an image does not have one opaque colour in each pixel; empty if it has."""
    if image.mode in _OTHER_COLOURS:
        return f"has colours of the kind {image.mode}, expected grey, RGB, CMYK or a palette"
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
        if lowest < 255:
            return (
                f"is transparent in places (alpha of {lowest}), expected an opaque image: nobody sees the colours that "
                "lie there; put it on a background"
            )
    return ""


def read_image(path: Path) -> np.ndarray:
    """A photograph as the library's images are: grey in three equal channels, an opaque alpha channel left out.

    Args:
        path: an 8-bit image.

    Returns:
        (3, H, W) float32 in [0, 1].

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is no image, not of 8 bits, or ambiguous, see `read_pixels`.
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
        ValueError: if it is no image, or no map of that size, ambiguous (see `read_pixels`), compressed with losses,
            or a number is below 0.
    """
    labels = read_pixels(path)
    if labels.shape != tuple(size) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path} has shape {labels.shape} and dtype {labels.dtype}, expected whole numbers of shape {tuple(size)}"
        )
    with Image.open(path) as image:
        if image.format in _LOSSY:
            raise ValueError(f"{path} is a {image.format}, which changes numbers, expected PNG or TIFF for labels")
    if labels.min(initial=0) < 0:
        raise ValueError(f"{path} has the number {labels.min()}, expected whole numbers of at least 0")
    return from_numpy(labels.astype(np.int64))


def check_label_map(labels: np.ndarray | Tensor, path: Path, binary: tuple[int, ...] = BINARY) -> None:
    """Refuse a mask of all objects together in the place of a label map: it would be one object in several pieces.

    Args:
        labels: (H, W) or (D, H, W), whole numbers of at least 0.
        path: of the file, for the message.
        binary: numbers that a mask may have in its objects.

    Raises:
        ValueError: if one of these is the only number above 0, and its pixels are not connected.
    """
    labels = np.asarray(labels)
    numbers = np.unique(labels[labels > 0])
    if len(numbers) != 1 or int(numbers[0]) not in binary:
        return
    _, pieces = ndimage.label(labels > 0, structure=np.ones([3] * labels.ndim))
    if pieces > 1:
        raise ValueError(
            f"{path} has only the numbers 0 and {numbers[0]}, on {pieces} separate pieces: a mask of all objects, "
            f"expected a label map, in which each object has a different number (skimage.measure.label makes one)"
        )


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
