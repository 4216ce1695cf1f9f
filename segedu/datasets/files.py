"""Reading the files of data sets, with errors that name a missing or broken file and what is expected instead.

Ambiguous image files are errors too, because a wrong interpretation would not be noticed later: several pages, an EXIF
orientation, partly transparent pixels, colours of 16 bits, label maps with lossy compression.
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
_LOSSY = ("JPEG", "MPO", "WEBP")  # formats that change pixel values
_TO_COLOUR = ("P", "PA", "CMYK", "YCbCr")
_OTHER_COLOURS = ("LAB", "HSV", "RGBX", "RGBa", "La")
BINARY = (255, 65535)  # foreground values of a binary mask


def require(path: Path, root: Path, layout: str) -> Path:
    """Return `path`, a file or folder below `root`; if it is missing, raise an error with the expected layout."""
    if not path.exists():
        raise FileNotFoundError(f"root is {str(root)!r}, which has no {path.relative_to(root)}; expected {layout}")
    return path


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Write a temporary file and move it to `path` at the end, so that no reader sees an incomplete file.

    Yields:
        The temporary path, with the same suffix and in the same folder. After an error the old file remains.
    """
    temporary = path.with_name(f".part-{secrets.token_hex(4)}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_pixels(path: Path, photograph: bool = False) -> np.ndarray:
    """Read the pixels of an image file as they are stored; of a palette image, its indices.

    Args:
        path: PNG, JPEG or TIFF.
        photograph: convert palettes, CMYK and YCbCr to RGB.

    Returns:
        (H, W) or (H, W, channels).

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if the file is not an image, is truncated, or is ambiguous: several pages, an EXIF orientation,
            colours of 16 bits or, as a photograph, transparent pixels or another colour space.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, expected an image: the data set lists it")
    problem = ""
    try:
        with Image.open(path) as image:
            problem = _ambiguous(image) or (photograph and _not_opaque_colour(image))
            pixels = np.array(image.convert("RGB") if photograph and image.mode in _TO_COLOUR else image)
    except Exception as error:  # decoders raise many types on a damaged file
        if not problem:
            raise ValueError(f"{path} is not a readable image, expected PNG, JPEG or TIFF: {error}") from error
    if problem:
        raise ValueError(f"{path} {problem}")
    return pixels


def _ambiguous(image: Image.Image) -> str:
    """Return why the pixels of an opened, not yet loaded file are ambiguous; empty if they are not."""
    layouts = " ".join(str(tile[3]) for tile in image.tile)  # must come first: reading the EXIF of a PNG loads it
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":  # in an MPO the other pages are previews
        return f"has {pages} pages, expected one image: save each page as a separate file"
    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation not in (0, 1):
        return (
            f"has the EXIF orientation {orientation}, expected none: programs rotate it for display, but not its "
            "pixels, and masks may belong to either; save it upright (PIL.ImageOps.exif_transpose), and its masks too"
        )
    if ";16" in layouts and image.mode in ("RGB", "RGBA", "LA"):
        return "has colours of 16 bits, expected 8-bit grey or colour: rescale them to 8 bits"
    if image.mode == "L" and 2 in np.atleast_1d(getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, 1)):
        return "has signed 8-bit values, expected integers of at least 0"
    return ""


def _not_opaque_colour(image: Image.Image) -> str:
    """Return why an image does not have one opaque colour per pixel; empty if it has."""
    if image.mode in _OTHER_COLOURS:
        return f"has the colour mode {image.mode}, expected grey, RGB, CMYK or a palette"
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
        if lowest < 255:
            return (
                f"has transparent pixels (smallest alpha {lowest}), expected an opaque image: the colours of "
                "transparent pixels are undefined; paste it on a background"
            )
    return ""


def read_image(path: Path) -> np.ndarray:
    """Read an 8-bit image as float32 (3, H, W) in [0, 1].

    Grey images get three equal channels, and an opaque alpha channel is dropped.
    """
    pixels = read_pixels(path, photograph=True)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ValueError(f"{path} has dtype {pixels.dtype}, expected 8-bit grey or colour")
    grey = pixels.ndim == 2 or pixels.shape[2] < 3
    image = np.repeat(pixels.reshape(*pixels.shape[:2], -1)[None, ..., 0], 3, axis=0) if grey else pixels
    return (image if grey else np.moveaxis(pixels[..., :3], 2, 0)).astype(np.float32) / 255


def read_deep_image(path: Path) -> np.ndarray:
    """Read an image of 8 bits as `read_image`, or a grey one of 16 bits, as float32 (3, H, W) in [0, 1].

    A camera of 12 or 14 bits uses only a small part of the values of a file of 16 bits. So the 1st and 99.8th
    percentiles of such an image become 0 and 1, and what lies outside is clipped. A constant image becomes 0.
    """
    pixels = read_pixels(path, photograph=True)
    if pixels.dtype == np.uint8:
        return read_image(path)
    if pixels.ndim != 2 or pixels.dtype.kind != "u" or pixels.dtype.itemsize != 2:
        raise ValueError(f"{path} has dtype {pixels.dtype}, expected 8-bit grey or colour, or 16-bit grey from 0 on")
    low, high = np.percentile(pixels, (1, 99.8))
    scaled = ((pixels.astype(np.float64) - low) / max(high - low, 1.0)).clip(0, 1)
    return np.repeat(scaled[None].astype(np.float32), 3, axis=0)


def is_deep(path: Path) -> bool:
    """Whether a file that `read_deep_image` reads has 16 bits."""
    with Image.open(path) as image:
        return image.mode.startswith("I;16")


def read_labels(path: Path, size: tuple[int, int]) -> Tensor:
    """Read a map of integers, a PNG of 8 or 16 bits or with a palette, as int64 (H, W).

    Args:
        size: (H, W) of the image to which it belongs.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if the file is not a map of that size, is ambiguous (see `read_pixels`) or has lossy compression,
            or if a value is below 0.
    """
    labels = read_pixels(path)
    if labels.shape != tuple(size) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path} has shape {labels.shape} and dtype {labels.dtype}, expected integers of shape {tuple(size)}"
        )
    with Image.open(path) as image:
        if image.format in _LOSSY:
            raise ValueError(f"{path} is a {image.format}, which changes pixel values, expected PNG or TIFF for labels")
    if labels.min(initial=0) < 0:
        raise ValueError(f"{path} has the value {labels.min()}, expected integers of at least 0")
    return from_numpy(labels.astype(np.int64))


def check_label_map(labels: np.ndarray | Tensor, path: Path, binary: tuple[int, ...] = BINARY) -> None:
    """Check that a label map is not a binary mask of all objects, which would be one object in several pieces.

    Args:
        labels: (H, W) or (D, H, W), integers of at least 0.
        path: path of the file, for the message.
        binary: possible foreground values of a binary mask. If one of them is the only value above 0, its pixels
            must be connected.
    """
    labels = np.asarray(labels)
    values = np.unique(labels[labels > 0])
    if len(values) != 1 or int(values[0]) not in binary:
        return
    _, pieces = ndimage.label(labels > 0, structure=np.ones([3] * labels.ndim))
    if pieces > 1:
        raise ValueError(
            f"{path} has only the values 0 and {values[0]}, in {pieces} separate pieces: a mask of all objects, "
            f"expected a label map, in which each object has its own label (skimage.measure.label makes one)"
        )


def item_of(names: list, index: int, transforms: Callable | None, read: Callable) -> dict:
    """Read item `index` of a data set of n items, from -n to n - 1, and transform it.

    Args:
        names: names of the items.
        transforms: called with the sample, unless None.
        read: returns the sample of a name.
    """
    if not -len(names) <= index < len(names):
        raise IndexError(f"index is {index}, expected an index into {len(names)} images")
    sample = read(names[index])
    return transforms(sample) if transforms else sample
