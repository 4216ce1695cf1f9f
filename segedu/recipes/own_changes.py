"""Random changes of your own images during a training: what `segedu train --augment` chooses between.

"none" takes random windows only, because the images of a batch have one size. "light" adds changes that hardly any data
set forbids. "strong" adds more, for few images: a network then rarely sees the same view of an image twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from segedu.datasets.folder import LABELS, MASKS
from segedu.datasets.sample import VOID
from segedu.recipes.cells import Targets
from segedu.recipes.data import (
    Pair,
    add_noise,
    brighten,
    flip,
    jitter_colours,
    mirror,
    padded,
    random_window,
    scaled_window,
)

LIGHT = "light"  # the default
PHOTO_SCALES = (0.6, 1.6)  # factors by which a photograph is resized
MICROSCOPE_SCALES = (0.75, 1.35)  # the magnification of a microscope is known, so sizes differ less


def plain_photo_window(image: Tensor, target: Tensor, window: int) -> Pair:
    """A random window of a photograph."""
    image, target = padded(image, target, window, VOID)
    index = random_window(image, (window, window))
    return image[index], target[index]


def photo_window(image: Tensor, target: Tensor, window: int) -> Pair:
    """A random window of a photograph, mirrored at random, never upside down, and brightened."""
    return brighten(*mirror(*plain_photo_window(image, target, window)))


def strong_photo_window(image: Tensor, target: Tensor, window: int) -> Pair:
    """A random window of random scale, mirrored, brightened, and with changed colours."""
    image, target = scaled_window(image, target, window, PHOTO_SCALES, VOID)
    return jitter_colours(*brighten(*mirror(image, target)))


def plain_label_map_window(image: Tensor, target: Tensor, window: int, targets: Targets) -> tuple:
    """A random window of a microscope image, and what the network learns of it."""
    image, target = padded(image, target, window, 0)
    index = random_window(image, (window, window))
    return image[index], targets(target[index])


def label_map_window(image: Tensor, target: Tensor, window: int, targets: Targets) -> tuple:
    """A random window of a microscope image, flipped, turned and brightened, and what the network learns of it."""
    image, target = padded(image, target, window, 0)
    index = random_window(image, (window, window))
    image, target = brighten(*flip(image[index], target[index]))
    return image, targets(target)


def strong_label_map_window(image: Tensor, target: Tensor, window: int, targets: Targets) -> tuple:
    """A random window of random scale, flipped, turned, brightened and noisy, and what the network learns of it."""
    image, target = scaled_window(image, target, window, MICROSCOPE_SCALES, 0)
    image, target = add_noise(*brighten(*flip(image, target)))
    return image, targets(target)


AUGMENTATIONS: dict[str, dict[str, Callable[..., tuple]]] = {  # kind of ground truth -> name -> random change
    MASKS: {"none": plain_photo_window, LIGHT: photo_window, "strong": strong_photo_window},
    LABELS: {"none": plain_label_map_window, LIGHT: label_map_window, "strong": strong_label_map_window},
}


def change_for(kind: str, augment: str, **arguments: Any) -> Callable[..., tuple]:
    """The random change of an image and its ground truth.

    Args:
        kind: "masks" or "labels".
        augment: "none", "light" or "strong".
        **arguments: of the change: `window`, and `targets` for label maps.
    """
    if augment not in AUGMENTATIONS[kind]:
        raise ValueError(f"augment is {augment!r}, expected one of {', '.join(AUGMENTATIONS[kind])}")
    return partial(AUGMENTATIONS[kind][augment], **arguments)
