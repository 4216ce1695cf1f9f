"""joint_augment: what is done to an image is done to its target, each in its own way."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Pair = tuple[Tensor, Tensor]


def joint_augment(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """Mirror, enlarge, put a border around.

    Args:
        image: (3, H, W) floats.
        target: (H, W) int64.
        flip: mirror left and right.
        factor: how many times as large.
        border: pixels on each side: 0 in the image, 255 in the target.

    Returns:
        Image and target.
    """
    return _augment(image, target, flip, factor, border)


def _augment(image: Tensor, target: Tensor, flip: bool, factor: int, border: int, void: int = 255) -> Pair:
    if flip:
        image, target = image.flip(-1), target.flip(-1)
    image = F.interpolate(image[None], scale_factor=factor, mode="bilinear", align_corners=False)[0]
    target = target.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    return F.pad(image, [border] * 4), F.pad(target, [border] * 4, value=void)


def _case(rng: np.random.Generator, name: str, flip: bool, factor: int, border: int) -> Case:
    height, width = 4 + int(rng.integers(0, 2)), 6 + int(rng.integers(0, 2))
    image = torch.from_numpy(rng.integers(1, 257, (3, height, width)) / 256)
    target = rng.integers(1, 11, (height, width))
    target[0, 0], target[0, -1], target[-1, 0] = 1, 9, 4  # no mirroring leaves it as it was
    target[1, 1:3] = 255, 3  # void beside a class: nothing may come to lie between them
    return {"name": name, "args": [image, torch.from_numpy(target), flip, factor, border]}


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Each step alone; then all together, and nothing at all.

    Args:
        rng: of image and target.

    Returns:
        The cases by group.
    """
    return {
        "core": (
            1,
            [
                _case(rng, "mirrored", True, 1, 0),
                _case(rng, "twice as large", False, 2, 0),
                _case(rng, "a border of 2 pixels", False, 1, 2),
            ],
        ),
        "edge": (
            1,
            [
                _case(rng, "mirrored, three times as large, with a border", True, 3, 1),
                _case(rng, "twice as large, with a border", False, 2, 1),
                _case(rng, "nothing to do", False, 1, 0),
            ],
        ),
    }


def mask_bilinear(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """Interpolates the classes and rounds."""
    image, _ = _augment(image, target, flip, factor, border)
    target = (target.flip(-1) if flip else target)[None, None].to(image)
    target = F.interpolate(target, scale_factor=factor, mode="bilinear", align_corners=False)[0, 0]
    return image, F.pad(target.round().long(), [border] * 4, value=255)


def mask_bilinear_cut_off(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """Interpolates the classes and cuts off what follows the point."""
    image, _ = _augment(image, target, flip, factor, border)
    target = (target.flip(-1) if flip else target)[None, None].to(image)
    target = F.interpolate(target, scale_factor=factor, mode="bilinear", align_corners=False)[0, 0]
    return image, F.pad(target.long(), [border] * 4, value=255)


def target_not_flipped(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """Mirrors the image only."""
    return joint_augment(image, target, flip, factor, border)[0], joint_augment(image, target, False, factor, border)[1]


def target_upside_down(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """Mirrors the image left and right, the target up and down."""
    turned = target.flip(0) if flip else target
    return joint_augment(image, target, flip, factor, border)[0], joint_augment(image, turned, False, factor, border)[1]


def both_upside_down(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """Mirrors up and down."""
    if flip:
        image, target = image.flip(1), target.flip(0)
    return joint_augment(image, target, False, factor, border)


def target_tiled(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """Repeats the target as a whole, side by side."""
    image, _ = joint_augment(image, target, flip, factor, border)
    tiles = (target.flip(-1) if flip else target).repeat(factor, factor)
    return image, F.pad(tiles, [border] * 4, value=255)


def label_normalised(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """Divides the labels by 255, as if they were grey values."""
    image, target = joint_augment(image, target, flip, factor, border)
    return image, target / 255


def label_float(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """Labels as floats."""
    image, target = joint_augment(image, target, flip, factor, border)
    return image, target.to(image)


def border_of_background(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """0 around the target too."""
    return _augment(image, target, flip, factor, border, void=0)


def border_repeated(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """Repeats the outermost pixels of the image."""
    inner, target = _augment(image, target, flip, factor, 0)
    return F.pad(inner, [border] * 4, mode="replicate"), F.pad(target, [border] * 4, value=255)


def image_nearest(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """Blocks in the image."""
    _, target = joint_augment(image, target, flip, factor, border)
    image = image.flip(-1) if flip else image
    image = image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return F.pad(image, [border] * 4), target


def corners_aligned(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """align_corners=True."""
    _, target = joint_augment(image, target, flip, factor, border)
    image = (image.flip(-1) if flip else image)[None]
    image = F.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=True)[0]
    return F.pad(image, [border] * 4), target


def border_enlarged(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """The border before enlarging."""
    return joint_augment(*joint_augment(image, target, flip, 1, border), False, factor, 0)


exercise = Exercise(
    name="joint_augment",
    points=2,
    cases=cases,
    reference=joint_augment,
    tolerance=1e-5,
    kind="map",
    hides=["segedu.datasets.transforms"],
    wrong=[
        Wrong(
            "target bilinear",
            mask_bilinear,
            "You interpolate the target: between class 2 and class 8 you invent a class 5 that is not there.",
            "Repeat labels, never mix them.",
        ),
        Wrong(
            "target bilinear, cut off",
            mask_bilinear_cut_off,
            "You interpolate the target and cut off the fraction: there is no class between class 2 and class 8.",
            "Repeat labels, never mix them.",
        ),
        Wrong(
            "target not mirrored",
            target_not_flipped,
            "You mirror the image and leave the target: they no longer lie on one another.",
            "What happens to places happens to both.",
        ),
        Wrong(
            "target mirrored on another axis",
            target_upside_down,
            "You mirror the image left and right, and the target up and down: the target has no channel axis.",
            "Count the axes from the end: the columns are the last one in both.",
        ),
        Wrong(
            "upside down",
            both_upside_down,
            "You mirror up and down: left and right is asked for.",
            "The columns are the last axis.",
        ),
        Wrong(
            "labels normalised",
            label_normalised,
            "You divide the labels by 255 as if they were grey values: they are names of classes.",
            "Only the image holds brightness.",
        ),
        Wrong(
            "labels as floats",
            label_float,
            "Your target holds floats: classes stay whole numbers, or no loss takes them.",
            "If you had to convert for a function, convert back.",
        ),
        Wrong(
            "border of class 0",
            border_of_background,
            "You put class 0 around the target: nobody knows what is there, and 255 says so.",
            "With 0, the net learns that black means class 0.",
        ),
        Wrong(
            "border pixels repeated",
            border_repeated,
            "You repeat the outermost pixels of the image: the statement asks for 0.",
            "The default of torch.nn.functional.pad will do.",
        ),
        Wrong(
            "image in blocks",
            image_nearest,
            "You enlarge the image by repeating pixels: bilinear is asked for, and only labels are repeated.",
            "torch.nn.functional.interpolate has a mode.",
        ),
        Wrong(
            "corners aligned",
            corners_aligned,
            "You align the corners: the image is then stretched by less than the target.",
            "Look up align_corners. Which value keeps pixels as little squares?",
        ),
        Wrong(
            "target tiled",
            target_tiled,
            "You lay copies of the whole target side by side: each pixel has to be repeated where it is.",
            "What does repeat make of the row (2, 8), and what does repeat_interleave?",
        ),
        Wrong(
            "border before enlarging",
            border_enlarged,
            "You put the border on first and enlarge it too: the order is mirror, enlarge, border.",
            "Compare the sizes.",
        ),
    ],
)
