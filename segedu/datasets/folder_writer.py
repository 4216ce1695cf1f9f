"""Write images and their ground truth in the layout of `segedu.datasets.folder`, one image after the other."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from segedu.datasets.folder import LABELS, MASKS

MOST_LEFT_OUT = 0.01  # fraction of the images that may be unreadable
QUALITY = 92  # of JPEG files


class FolderWriter:
    """A folder with `images`, `masks` or `labels`, `classes.txt` and `splits`.

    Args:
        root: an existing, empty folder.
        target_folder: "masks" if the values are classes, "labels" if they number objects.
        classes: names of the classes.

    Images are counted in `written`, and `left_out` has a sentence for each that could not be read.
    """

    def __init__(self, root: Path, target_folder: str, classes: Sequence[str]):
        if target_folder not in (MASKS, LABELS):
            raise ValueError(f"target_folder is {target_folder!r}, expected {MASKS!r} or {LABELS!r}")
        self.root, self.target_folder, self.classes = root, target_folder, tuple(classes)
        self.written: list[str] = []
        self.left_out: list[str] = []
        self.splits: dict[str, list[str]] = {}
        for name in ("images", target_folder, "splits"):
            (root / name).mkdir()

    def add(
        self, name: str, image: np.ndarray, target: np.ndarray, splits: Iterable[str], *, lossless: bool = False
    ) -> None:
        """Write an image and its ground truth.

        Args:
            name: name of the files, without suffix.
            image: (H, W) or (H, W, 3) uint8.
            target: (H, W) classes or numbers of objects.
            splits: names of the splits that the image belongs to.
            lossless: write the image as PNG instead of JPEG.
        """
        _check_size(name, image.shape[:2], target)
        picture = Image.fromarray(np.ascontiguousarray(image))
        if lossless:
            picture.save(self.root / "images" / f"{name}.png")
        else:
            picture.save(self.root / "images" / f"{name}.jpg", quality=QUALITY, subsampling=0)
        self._add_target(name, target, splits)

    def add_copy(self, name: str, image: Path, target: np.ndarray, splits: Iterable[str]) -> None:
        """Copy an image file as it is, and write its ground truth; the arguments are those of `add`."""
        with Image.open(image) as picture:
            _check_size(name, picture.size[::-1], target)
        shutil.copyfile(image, self.root / "images" / f"{name}{image.suffix.lower()}")
        self._add_target(name, target, splits)

    def _add_target(self, name: str, target: np.ndarray, splits: Iterable[str]) -> None:
        dtype = np.uint8 if target.max(initial=0) < 256 else np.uint16
        Image.fromarray(target.astype(dtype)).save(self.root / self.target_folder / f"{name}.png")
        self.written.append(name)
        for split in splits:
            self.splits.setdefault(split, []).append(name)

    def close(self) -> None:
        """Write the classes and the splits.

        Raises:
            ValueError: no image was written, or too many were left out.
        """
        total = len(self.written) + len(self.left_out)
        if not self.written or len(self.left_out) > MOST_LEFT_OUT * total:
            reasons = f", such as: {self.left_out[0]}" if self.left_out else ""
            raise ValueError(f"{len(self.left_out)} of {total} images could not be read{reasons}")
        write_names(self.root / "classes.txt", self.classes)
        for split, names in self.splits.items():
            write_names(self.root / "splits" / f"{split}.txt", sorted(names))


def _check_size(name: str, size: tuple[int, int], target: np.ndarray) -> None:
    if tuple(size) != target.shape:
        raise ValueError(f"target of {name} has shape {target.shape}, expected {tuple(size)} as its image")


def write_names(path: Path, names: Iterable[str]) -> None:
    """Write a text file with one name per line."""
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Convert a float image (3, H, W) in [0, 1] to uint8: (H, W, 3), or (H, W) if all channels are equal."""
    pixels = np.moveaxis(np.rint(np.asarray(image) * 255).astype(np.uint8), 0, 2)
    is_grey = (pixels == pixels[..., :1]).all()
    return pixels[..., 0] if is_grey else pixels


def stretch(values: np.ndarray, low: float = 0.1, high: float = 99.9) -> np.ndarray:
    """Map two percentiles of an image's values to 0 and 255, and what is outside to the nearer of both."""
    lowest, highest = np.percentile(values, (low, high))
    scaled = (values.astype(np.float64) - lowest) / max(highest - lowest, 1e-9)
    return np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)


def reduce(
    image: np.ndarray, target: np.ndarray, size: tuple[int, int], method: Image.Resampling = Image.Resampling.LANCZOS
) -> tuple[np.ndarray, np.ndarray]:
    """Resize an image with a filter, and its ground truth to the nearest pixel.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        target: (H, W).
        size: (height, width) of the result.
        method: filter of Pillow.
    """
    if image.shape[:2] == tuple(size):
        return image, target
    small = Image.fromarray(image).resize(size[::-1], method)
    nearest = Image.fromarray(target.astype(np.int32)).resize(size[::-1], Image.Resampling.NEAREST)
    return np.asarray(small), np.asarray(nearest).astype(target.dtype)


def size_of_short_side(size: tuple[int, int], shortest: int) -> tuple[int, int]:
    """(height, width) after a reduction of the shorter side to at most `shortest` pixels."""
    factor = min(1.0, shortest / min(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def counted(items: Iterable, progress: bool, total: int) -> tqdm:
    """A progress bar over images."""
    return tqdm(items, desc="arrange", unit="image", total=total, disable=not progress)
