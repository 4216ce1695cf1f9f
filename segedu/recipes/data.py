"""What recipes train on and are measured on: synthetic scenes or images of a folder, and random changes of both.

Synthetic scenes are drawn from the seed of a run: training scenes with twice the seed, held-out scenes with
twice the seed plus 1. So no two sets of scenes have a seed in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torch.utils.data import Dataset
from torchvision.transforms import v2
from tqdm.auto import tqdm

from segedu.datasets.download import cache_folder
from segedu.datasets.files import atomic_path
from segedu.datasets.street import STREET_VERSION, draw_street

COLOURS = v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.04)
WINDOW = 128  # pixels: the side of the windows of a microscope image
Pair = tuple[Tensor, Tensor]  # image (C, ...) and its classes or label map (...)


@dataclass(frozen=True)
class Sets:
    """What a run trains on, and groups of images to evaluate on: {"val": {"fluorescence": [pair, ...]}}."""

    train: Dataset
    held_out: dict[str, dict[str, list[Pair]]]


class Pairs(Dataset):
    """Pairs in memory. Each access applies `change` to the pair, with new random numbers."""

    def __init__(self, pairs: Sequence[Pair], change: Callable[[Tensor, Tensor], Pair]) -> None:
        self.pairs, self.change = list(pairs), change

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.change(*self.pairs[index])


def pairs_of(
    samples: Dataset, target: str = "semantic", transform: Callable[[Tensor], Tensor] = lambda image: image
) -> list[Pair]:
    """The images of all samples, each changed once, with the target of that key, as plain tensors."""
    all_samples = (samples[i] for i in range(len(samples)))
    return [(transform(s["image"].as_subclass(Tensor)), s[target].as_subclass(Tensor)) for s in all_samples]


def synthetic_sets(
    seed: int,
    folder: Path | None,
    *,
    draw: Callable[[int, int], list],
    train: int,
    held_out: int,
    dataset: Callable[[list], Dataset],
) -> Sets:
    """`train` synthetic scenes to train on and `held_out` others.

    Args:
        seed: of the run.
        folder: not used; every recipe's `sets` takes one.
        draw: (number, seed) -> images with their ground truth.
        train: number of scenes to train on.
        held_out: number of scenes to evaluate on.
        dataset: images with their ground truth -> the training set.
    """
    return Sets(dataset(draw(train, 2 * seed)), {"val": {"all": draw(held_out, 2 * seed + 1)}})


# --- streets ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)  # training and held-out scenes of a seed serve all methods that a process trains
def street_pairs(number: int, seed: int) -> list[Pair]:
    """Street scenes and their classes, with the 8 bits per channel of a camera."""
    return [(image.float() / 255, target.long()) for image, target in zip(*cached_streets(number, seed), strict=True)]


def cached_streets(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) and classes (N, H, W), uint8; drawn once, which takes a minute, and kept in the cache folder.

    A file that cannot be read is drawn again. If the folder cannot be written, the scenes are drawn in every process.
    """
    path = cache_folder() / f"street-{STREET_VERSION}-{seed}-{number}.safetensors"
    with suppress(OSError, SafetensorError, KeyError):
        cached = load_file(path)
        return cached["images"], cached["targets"]
    images, targets = draw_streets(number, seed)
    with suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            save_file({"images": images, "targets": targets}, temporary)
    return images, targets


def draw_streets(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) and classes (N, H, W), uint8."""
    short = number < 50  # a bar is for what takes more than a few seconds
    seeds = tqdm(range(number), desc="draw streets", unit="scene", leave=False, disable=short)
    scenes = [draw_street((seed, i)) for i in seeds]
    images = torch.stack([(scene["image"] * 255).round().to(torch.uint8) for scene in scenes])
    return images, torch.stack([scene["semantic"].to(torch.uint8) for scene in scenes])


# --- microscope images ----------------------------------------------------------------------------------------------


def normalize_exposure(image: Tensor) -> Tensor:
    """Map a microscope image of any exposure and stain to bright nuclei on a dark background in [0, 1].

    The 1st and 99.8th percentiles of the image become 0 and 1. An image whose median is then above 0.5 is inverted.
    A constant image becomes 0.
    """
    low, high = np.percentile(image.numpy(), (1, 99.8))
    scaled = ((image - low) / max(high - low, 1e-3)).clamp(0, 1)
    return 1 - scaled if scaled.median() > 0.5 else scaled


# --- random changes of an image and its target --------------------------------------------------------------------


def flip(image: Tensor, target: Tensor) -> Pair:
    """Apply one of the eight symmetries of a square, or of the four of an oblong, at random."""
    draws = torch.randint(0, 2, (3,)).tolist()
    axes = [axis for axis, is_flipped in zip((-1, -2), draws, strict=False) if is_flipped]
    image, target = image.flip(axes), target.flip(axes)
    if draws[2] and image.shape[-1] == image.shape[-2]:
        image, target = image.transpose(-1, -2), target.transpose(-1, -2)
    return image, target


def random_window(image: Tensor, size: tuple[int, int]) -> tuple:
    """An index that crops a random window of `size` (height, width) out of the last two axes of an image."""
    height, width = image.shape[-2:]
    if height < size[0] or width < size[1]:
        raise ValueError(f"image has {height} x {width} pixels, expected at least {size[0]} x {size[1]} to crop")
    top, left = (int(torch.randint(0, full - part + 1, ())) for full, part in zip((height, width), size, strict=True))
    return ..., slice(top, top + size[0]), slice(left, left + size[1])


def crop_flip_gamma(image: Tensor, target: Tensor, size: int = WINDOW) -> Pair:
    """A random square of the image, flipped, with the gamma of `brighten`."""
    window = random_window(image, (size, size))
    return brighten(*flip(image[window], target[window]))


def crop_mirror(image: Tensor, target: Tensor, size: tuple[int, int] = (64, 112)) -> Pair:
    """A random window of the image, mirrored left to right at random, never upside down: a street stays upright.

    A window costs less than half of a scene, so the same training time covers more than twice as many.
    """
    window = random_window(image, size)
    return mirror(image[window], target[window])


def mirror(image: Tensor, target: Tensor) -> Pair:
    """Mirror left to right with probability 1/2."""
    return (image.flip(-1), target.flip(-1)) if torch.rand(()) < 0.5 else (image, target)


def brighten(image: Tensor, target: Tensor) -> Pair:
    """Raise the image to a random power between 2/3 and 3/2; the target stays as it is."""
    return image ** torch.empty(()).uniform_(-0.4, 0.4).exp(), target


def mirror_gamma(image: Tensor, target: Tensor) -> Pair:
    """`mirror`, then `brighten`: a pelvis looks much the same in a mirror."""
    return brighten(*mirror(image, target))


def padded(image: Tensor, target: Tensor, window: int, fill: int) -> Pair:
    """Pad an image that is smaller than a window with black at the right and the bottom, its target with `fill`."""
    missing = (0, max(0, window - image.shape[-1]), 0, max(0, window - image.shape[-2]))
    return pad(image, missing), pad(target, missing, value=fill)


def resize(maps: Tensor, size: tuple[int, int], method: str) -> Tensor:
    """Resize (B, C, H, W) to (height, width).

    `method` is "area" for images, which filters before it reduces, or "nearest" for targets.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if method == "nearest":
        return interpolate(maps.double(), size, mode="nearest-exact").to(maps.dtype)
    return interpolate(maps, size, mode="bilinear", antialias=True, align_corners=False)


def scaled_window(image: Tensor, target: Tensor, window: int, limits: tuple[float, float], fill: int) -> Pair:
    """A random square of the image, resized to a window: objects become larger or smaller by a random factor.

    Args:
        image: (3, H, W).
        target: (H, W).
        window: side of the result in pixels.
        limits: smallest and largest factor. Half as large is as likely as twice as large.
        fill: the target outside the image.
    """
    factor = float(torch.empty(()).uniform_(*np.log(limits)).exp())
    side = round(window / factor)
    image, target = padded(image, target, side, fill)
    index, size = random_window(image, (side, side)), (window, window)
    image = resize(image[index][None], size, "area")[0].clamp(0, 1)
    return image, resize(target[index][None, None], size, "nearest")[0, 0]


def jitter_colours(image: Tensor, target: Tensor) -> Pair:
    """Change brightness, contrast and saturation by up to 30 %, and the hue a little; the target stays as it is."""
    return COLOURS(image), target


def add_noise(image: Tensor, target: Tensor) -> Pair:
    """Add Gaussian noise, the same in each channel, with a random standard deviation up to 0.05."""
    noise = torch.randn(image.shape[-2:]) * torch.empty(()).uniform_(0, 0.05)
    return (image + noise).clamp(0, 1), target
