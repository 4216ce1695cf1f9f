"""The size of the output of the unpadded U-Net, and the images that it cannot take."""

from __future__ import annotations

import numpy as np

from segedu.semantic.unet import unet_out_size
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def _legal(rng: np.random.Generator, depth: int) -> int:
    """A legal size: so many pixels at the bottom of the U that something is left at the end."""
    # the bottom has b pixels; after the two convolutions b - 4, doubled and less 4 for each level
    bottom = int(rng.integers(9, 40))
    size = bottom
    for _ in range(depth):
        size = 2 * size + 4
    return size


def _case(name: str, size: int, depth: int) -> Case:
    return {"name": f"{name}: size {size}, depth {depth}", "args": [size, depth]}


def unet_out_size_cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The paper's size, legal sizes at several depths; odd before each pooling, too small; no depth given."""
    core = [_case("the paper", 572, 4)]
    core += [_case("a legal size", _legal(rng, depth), depth) for depth in (1, 2, 3, 5)]
    third = _legal(rng, 4) + 4  # even before the first and the second pooling, odd before the third
    edge = [
        _case("odd before the first pooling", _legal(rng, 3) + 1, 3),
        _case("odd before the third pooling", third, 4),
        _case("odd before the last pooling", _legal(rng, 2) + 2, 2),
        _case("divisible by 16", 16 * int(rng.integers(20, 40)), 4),
        _case("nothing left", 16, 1),
        _case("less than nothing left", 14, 1),
        _case("nothing left before the expanding path", 12, 1),
        _case("the smallest legal size", 18, 1),
        _case("the smallest legal size", 188, 4),
        {"name": "a size without a depth", "args": [_legal(rng, 4)]},
    ]
    return {"core": (2, core), "edge": (1, edge)}


def _refuse_small(size: int) -> int:
    if size < 1:
        raise ValueError("too small")
    return size


def _walk(size: int, depth: int, down: int = 4, bottom: int = 4, up: int = 4, odd_ok: bool = False) -> int:
    """The right walk, but for how many pixels each kind of block takes and for odd sizes."""
    for _ in range(depth):
        size -= down
        if size % 2 and not odd_ok:
            raise ValueError("odd before a pooling")
        size //= 2
    size -= bottom
    for _ in range(depth):
        size = 2 * size - up
    return size


def _padded(size: int, depth: int = 4) -> int:
    return size


def _pool_floors(size: int, depth: int = 4) -> int:
    return _refuse_small(_walk(size, depth, odd_ok=True))


def _one_convolution(size: int, depth: int = 4) -> int:
    return _refuse_small(_walk(size, depth, down=2, bottom=2, up=2))


def _expanding_path_padded(size: int, depth: int = 4) -> int:
    return _refuse_small(_walk(size, depth, up=0))


def _no_bottom(size: int, depth: int = 4) -> int:
    return _refuse_small(_walk(size, depth, bottom=0))


def _too_small_accepted(size: int, depth: int = 4) -> int:
    return _walk(size, depth)


def _divisible_at_the_top(size: int, depth: int = 4) -> int:
    if size % 2**depth:
        raise ValueError("not divisible")
    return _refuse_small(_walk(size, depth, odd_ok=True))


def _always_184(size: int, depth: int = 4) -> int:
    return size - 184


def _nothing_rejected(size: int, depth: int = 4) -> int:
    return _walk(size, depth, odd_ok=True)


exercise = Exercise(
    name="unet_out_size",
    points=3,
    cases=unet_out_size_cases,
    reference=unet_out_size,
    wrong=[
        Wrong(
            "padding assumed",
            _padded,
            "You return the size of the input, as if the convolutions were padded.",
            hint="The paper's image has 572 pixels a side and its output 388. Where do 184 pixels go?",
        ),
        Wrong(
            "pooling rounds down",
            _pool_floors,
            "You round down where a pooling meets an odd size; such an image has to be refused.",
            hint="With a row left out, the up-convolution gives fewer pixels than the skip had: "
            "the two no longer lie on one another.",
        ),
        Wrong(
            "one convolution",
            _one_convolution,
            "You take 2 pixels for each block, but a block has two convolutions.",
            hint="Walk the first block of the paper: 572, 570, ...",
        ),
        Wrong(
            "expanding path padded",
            _expanding_path_padded,
            "You take off pixels on the way down only; the convolutions of the expanding path are unpadded too.",
            hint="Walk the right side of the figure upwards: 56, 54, 52, 104, ...",
        ),
        Wrong(
            "bottom forgotten",
            _no_bottom,
            "You forget the two convolutions at the bottom of the U.",
            hint="A U of depth 4 has 9 blocks: 4 down, 4 up, and one more.",
        ),
        Wrong(
            "too small accepted",
            _too_small_accepted,
            "You accept images that are so small that nothing is left.",
            hint="What does your function return for size 16 and depth 1?",
        ),
        Wrong(
            "divisible by 2**depth",
            _divisible_at_the_top,
            "You ask the size of the image to be divisible by 2**depth: that is the rule for padded convolutions.",
            hint="572 is not divisible by 16, and yet it is legal. What has to be even, and where?",
        ),
        Wrong(
            "184 at every depth",
            _always_184,
            "You take off 184 pixels at every depth: that is what a U of four poolings loses.",
            hint="Walk through a U of depth 1 with an image of 20 pixels.",
        ),
        Wrong(
            "nothing refused",
            _nothing_rejected,
            "You refuse no size at all: odd ones are rounded down, and too small ones give 0 or less.",
            hint="Raise ValueError where a pooling meets an odd size, and where nothing is left.",
        ),
    ],
    hides=["segedu.semantic.unet"],
)
