"""joint_augment: augment an image and its target together: interpolate the image, never the target."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Pair = tuple[Tensor, Tensor]


def joint_augment(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    """Flip, upsample, and add a border.

    Args:
        image: (3, H, W) floats.
        target: (H, W) int64.
        flip: whether to flip left and right.
        factor: of the upsampling.
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


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Each step alone; then all steps together, and none."""

    def pair(name: str, flip: bool, factor: int, border: int) -> Case:
        height, width = 4 + int(rng.integers(0, 2)), 6 + int(rng.integers(0, 2))
        image = torch.from_numpy(rng.integers(1, 257, (3, height, width)) / 256)
        target = rng.integers(1, 11, (height, width))
        target[0, 0], target[0, -1], target[-1, 0] = 1, 9, 4  # every flip changes the target
        target[1, 1:3] = 255, 3  # void next to a class: interpolation would invent a class between them
        return case(name, image, torch.from_numpy(target), flip, factor, border)

    core = [
        pair("flipped", True, 1, 0),
        pair("upsampled twice", False, 2, 0),
        pair("a border of 2 pixels", False, 1, 2),
    ]
    edge = [
        pair("flipped, upsampled three times, with a border", True, 3, 1),
        pair("upsampled twice, with a border", False, 2, 1),
        pair("nothing to do", False, 1, 0),
    ]
    return {"core": (1, core), "edge": (1, edge)}


right = Variants(joint_augment)


def _flipped(x: Tensor, a: SimpleNamespace, axis: int = -1) -> Tensor:
    return x.flip(axis) if a.flip else x


def _with_border(target: Tensor, a: SimpleNamespace) -> Tensor:
    return F.pad(target, [a.border] * 4, value=255)


def _interpolated_target(a: SimpleNamespace) -> Tensor:
    """The target upsampled bilinearly, as if it were an image; without a border."""
    return joint_augment(a.target[None].to(a.image), a.target, a.flip, a.factor, border=0)[0][0]


def _without_flip(target: Tensor, a: SimpleNamespace) -> Tensor:
    return joint_augment(a.image, target, False, a.factor, a.border)[1]


def _repeat_border_pixels(out: Pair, a: SimpleNamespace) -> Pair:
    inner, _ = joint_augment(a.image, a.target, a.flip, a.factor, border=0)
    return F.pad(inner, [a.border] * 4, mode="replicate"), out[1]


def _image_in_blocks(out: Pair, a: SimpleNamespace) -> Pair:
    image = _flipped(a.image, a).repeat_interleave(a.factor, 1).repeat_interleave(a.factor, 2)
    return F.pad(image, [a.border] * 4), out[1]


def _align_corners(out: Pair, a: SimpleNamespace) -> Pair:
    image = F.interpolate(_flipped(a.image, a)[None], scale_factor=a.factor, mode="bilinear", align_corners=True)[0]
    return F.pad(image, [a.border] * 4), out[1]


def _flip_in_place(image: Tensor, target: Tensor, flip: bool, factor: int, border: int) -> Pair:
    if flip:
        image.copy_(image.flip(-1).clone())
        target.copy_(target.flip(-1).clone())
    return joint_augment(image, target, False, factor, border)


def _border_at_the_sides(a: SimpleNamespace) -> Pair:
    image, target = joint_augment(a.image, a.target, a.flip, a.factor, border=0)
    return F.pad(image, [a.border] * 2), F.pad(target, [a.border] * 2, value=255)


NEVER_MIX = "Labels are repeated, never mixed."

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
            right.then(lambda out, a: (out[0], _with_border(_interpolated_target(a).round().long(), a))),
            "You interpolate the target. Between classes 2 and 8 this makes up a class 5, so repeat the labels "
            "instead.",
            NEVER_MIX,
        ),
        Wrong(
            "target bilinear, cut off",
            right.then(lambda out, a: (out[0], _with_border(_interpolated_target(a).long(), a))),
            "You interpolate the target and truncate the result, which makes up new classes. Repeat the labels "
            "instead.",
            NEVER_MIX,
        ),
        Wrong(
            "target not mirrored",
            right.then(lambda out, a: (out[0], _without_flip(a.target, a))),
            "You flip the image but not the target. Flip both, so that they stay aligned.",
            "Every change of position applies to both the image and the target.",
        ),
        Wrong(
            "target mirrored on another axis",
            right.then(lambda out, a: (out[0], _without_flip(_flipped(a.target, a, axis=0), a))),
            "You flip the image left and right, but the target upside down. Flip both left and right.",
            "The target has no channel axis. Count from the end: in both tensors the last axis holds the columns.",
        ),
        Wrong(
            "upside down",
            right.given(
                image=lambda a: _flipped(a.image, a, axis=1),
                target=lambda a: _flipped(a.target, a, axis=0),
                flip=lambda a: False,
            ),
            "You flip upside down. This exercise expects a flip from left to right.",
            "The columns are the last axis.",
        ),
        Wrong(
            "labels normalised",
            right.then(lambda out, a: (out[0], out[1] / 255)),
            "You divide the labels by 255, as if they were grey values. Labels are class indices.",
            "Only the image holds brightness.",
        ),
        Wrong(
            "labels as floats",
            right.then(lambda out, a: (out[0], out[1].to(a.image))),
            "Your target holds floats. Class indices have to stay integers, because the loss requires them.",
            "If you converted the target for a function, convert it back.",
        ),
        Wrong(
            "border of class 0",
            right.instead(lambda a: _augment(**vars(a), void=0)),
            "You fill the border of the target with class 0. Its class is unknown, so it has to be 255.",
            "With 0, the network learns that black means class 0.",
        ),
        Wrong(
            "border pixels repeated",
            right.then(_repeat_border_pixels),
            "You repeat the outermost pixels of the image. This exercise expects a border of 0.",
            "0 is the default of torch.nn.functional.pad.",
        ),
        Wrong(
            "image in blocks",
            right.then(_image_in_blocks),
            "You upsample the image by repeating pixels. Interpolate it bilinearly; only labels are repeated.",
            "torch.nn.functional.interpolate has an argument mode.",
        ),
        Wrong(
            "corners aligned",
            right.then(_align_corners),
            "You upsample the image with align_corners=True, which shifts it against the target. Do not align the "
            "corners.",
            "Look up align_corners. Which value treats pixels as little squares?",
        ),
        Wrong(
            "target tiled",
            right.then(lambda out, a: (out[0], _with_border(_flipped(a.target, a).repeat(a.factor, a.factor), a))),
            "You tile copies of the whole target. Each pixel has to be repeated at its own position.",
            "What does repeat make of the row (2, 8), and what does repeat_interleave make of it?",
        ),
        Wrong(
            "border before enlarging",
            right.instead(
                lambda a: joint_augment(*joint_augment(a.image, a.target, a.flip, 1, a.border), False, a.factor, 0)
            ),
            "You add the border before you upsample, so the border grows too. The order is flip, upsample, border.",
            "Compare the size of your result with factor * H + 2 * border.",
        ),
        Wrong(
            "border at the sides only",
            right.instead(_border_at_the_sides),
            "You add the border on the left and the right only. It belongs on all four sides.",
            "torch.nn.functional.pad takes two numbers per axis, the last axis first.",
        ),
        Wrong(
            "arguments flipped",
            _flip_in_place,
            "You write the flipped image and target into the arguments. The caller still needs them.",
            "flip returns a new tensor. Give it a name of its own.",
        ),
        Wrong(
            "axis 1 of both",
            right.given(image=lambda a: _flipped(_flipped(a.image, a, axis=1), a)),
            "You flip axis 1 of both. In the image these are the rows, in the target the columns.",
            "Count axes from the end: -1 holds the columns of both tensors.",
        ),
        Wrong(
            "channels flipped",
            right.given(image=lambda a: _flipped(_flipped(a.image, a, axis=0), a)),
            "Your flip reverses the colour channels of the image. Flip its columns.",
            "The image is (3, H, W), so axis 0 holds the colours.",
        ),
        Wrong(
            "never flipped",
            right.given(flip=lambda a: False),
            "You do not flip although flip is true. The argument says whether to flip, so nothing is drawn at random "
            "here.",
            "If flip is true, flip in every case.",
        ),
    ],
)
