"""unet_out_size: the output size of the unpadded U-Net, and the image sizes that it cannot process."""

from __future__ import annotations

import numpy as np

from segedu.semantic.unet import unet_out_size
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def _legal(rng: np.random.Generator, depth: int) -> int:
    """A legal size, computed upwards from a random size at the bottom of the U."""
    size = int(rng.integers(9, 40))
    for _ in range(depth):
        size = 2 * size + 4
    return size


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The paper's size, legal sizes at several depths; odd before each pooling, too small; no depth given."""

    def image(name: str, size: int, depth: int) -> Case:
        return case(f"{name}: size {size}, depth {depth}", size, depth)

    core = [image("the paper", 572, 4)]
    core += [image("a legal size", _legal(rng, depth), depth) for depth in (1, 2, 3, 5)]
    third = _legal(rng, 4) + 4  # even before the first and the second pooling, odd before the third
    edge = [
        image("odd before the first pooling", _legal(rng, 3) + 1, 3),
        image("odd before the third pooling", third, 4),
        image("odd before the last pooling", _legal(rng, 2) + 2, 2),
        image("divisible by 16", 16 * int(rng.integers(20, 40)), 4),
        image("an output of size 0", 16, 1),
        image("an output of negative size", 14, 1),
        image("size 0 before the expanding path", 12, 1),
        image("the smallest legal size", 18, 1),
        image("the smallest legal size", 188, 4),
        case("a size without a depth", _legal(rng, 4)),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(unet_out_size)


def _walk(
    size: int, depth: int, down: int = 4, bottom: int = 4, up: int = 4, odd_ok: bool = False, small_ok: bool = False
) -> int:
    """The right computation, with the pixels that each kind of block removes, and the sizes that are accepted."""
    for _ in range(depth):
        size -= down
        if size % 2 and not odd_ok:
            raise ValueError("odd before a pooling")
        size //= 2
    size -= bottom
    for _ in range(depth):
        size = 2 * size - up
    if size < 1 and not small_ok:
        raise ValueError("too small")
    return size


def _divisible_at_the_top(size: int, depth: int = 4) -> int:
    if size % 2**depth:
        raise ValueError("not divisible")
    return _walk(size, depth, odd_ok=True)


exercise = Exercise(
    name="unet_out_size",
    points=3,
    cases=cases,
    reference=unet_out_size,
    wrong=[
        Wrong(
            "padding assumed",
            right.instead(lambda a: a.size),
            "You return the size of the input, as if the convolutions were padded. Without padding each loses 2 "
            "pixels.",
            "The image of the paper has 572 pixels per side and its output 388. Where are 184 pixels lost?",
        ),
        Wrong(
            "pooling rounds down",
            right.instead(lambda a: _walk(a.size, a.depth, odd_ok=True)),
            "You round down if the size before a pooling is odd. Raise a ValueError for such an image.",
            "The pooling drops a row, so the upsampled features are no longer aligned with the skip.",
        ),
        Wrong(
            "one convolution",
            right.instead(lambda a: _walk(a.size, a.depth, down=2, bottom=2, up=2)),
            "You subtract 2 pixels per block. A block has two convolutions, and each loses 2 pixels.",
            "Follow the first block of the paper: 572, 570, ...",
        ),
        Wrong(
            "expanding path padded",
            right.instead(lambda a: _walk(a.size, a.depth, up=0)),
            "You subtract pixels in the contracting path only. The expanding path is unpadded, too.",
            "Follow the right side of the figure upwards: 56, 54, 52, 104, ...",
        ),
        Wrong(
            "bottom forgotten",
            right.instead(lambda a: _walk(a.size, a.depth, bottom=0)),
            "You leave out the two convolutions at the bottom of the U. They lose pixels, too.",
            "A U of depth 4 has 9 blocks: 4 on the way down, 4 on the way up, and one more.",
        ),
        Wrong(
            "too small accepted",
            right.instead(lambda a: _walk(a.size, a.depth, small_ok=True)),
            "You accept images that are so small that no output is left. Raise a ValueError for them.",
            "What does your function return for size 16 and depth 1?",
        ),
        Wrong(
            "divisible by 2**depth",
            _divisible_at_the_top,
            "You require the image size to be divisible by 2**depth. Only the size before each pooling has to be even.",
            "Your rule is the one for padded convolutions. Here 572 is legal, although 16 does not divide it.",
        ),
        Wrong(
            "184 at every depth",
            right.instead(lambda a: a.size - 184),
            "You subtract 184 pixels at every depth. That is the loss of a U with four poolings; other depths differ.",
            "Follow an image of 20 pixels through a U of depth 1.",
        ),
        Wrong(
            "nothing refused",
            right.instead(lambda a: _walk(a.size, a.depth, odd_ok=True, small_ok=True)),
            "You accept every size. Raise a ValueError for an odd size before a pooling, and if no output is left.",
            "What does your function return for size 16 and depth 1, and for size 573?",
        ),
    ],
    hides=["segedu.semantic.unet"],
)
