"""unet_out_size: the output size of the unpadded U-Net, and the image sizes that it cannot process."""

from __future__ import annotations

from collections.abc import Callable

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
    core += [image("a legal size, odd after the pooling", 30, 1)]
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


def _zero_accepted(size: int, depth: int = 4) -> int:
    out = _walk(size, depth, small_ok=True)
    if out < 0:
        raise ValueError("too small")
    return out


def _odd_after_pooling(size: int, depth: int = 4) -> int:
    for _ in range(depth):
        size = (size - 4) // 2
        if size % 2 or size < 1:
            raise ValueError("odd or too small")
    return _up(size - 4, depth)


def _up(size: int, depth: int) -> int:
    for _ in range(depth):
        size = 2 * size - 4
    if size < 1:
        raise ValueError("too small")
    return size


def _block_too_many(size: int, depth: int = 4) -> int:
    out = unet_out_size(size, depth) - 4
    if out < 1:
        raise ValueError("too small")
    return out


def _pooling_first(size: int, depth: int = 4) -> int:
    for _ in range(depth):
        if size % 2:
            raise ValueError("odd before a pooling")
        size = size // 2 - 4
    return _up(size - 4, depth)


def _first_pooling_only(size: int, depth: int = 4) -> int:
    if size % 2:
        raise ValueError("odd")
    return _walk(size, depth, odd_ok=True)


def _other_error(error: type[Exception]) -> Callable:
    def out_size(size: int, depth: int = 4) -> int:
        try:
            return unet_out_size(size, depth)
        except ValueError:
            raise error("illegal size") from None

    return out_size


def _or_none(size: int, depth: int = 4) -> int | None:
    try:
        return unet_out_size(size, depth)
    except ValueError:
        return None


def _divisible_formula(size: int, depth: int = 4) -> int:
    if size % 2**depth or size - 12 * 2**depth + 8 < 1:
        raise ValueError("not divisible or too small")
    return size - 12 * 2**depth + 8


def _only_way_down_checked(size: int, depth: int = 4) -> int:
    """Refuse sizes below 1 on the way down and at the bottom, but not on the way up."""
    for level in range(depth + 1):
        size -= 4
        if size < 1 or (level < depth and size % 2):
            raise ValueError("odd or too small")
        size = size // 2 if level < depth else size
    for _ in range(depth):
        size = 2 * size - 4
    return size


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
        Wrong(
            "an output of 0 accepted",
            _zero_accepted,
            "You accept an output of 0 pixels. Raise a ValueError if no output is left.",
            "What does your function return for size 16 and depth 1?",
        ),
        Wrong(
            "checked after the pooling",
            _odd_after_pooling,
            "You check whether the size is odd after the pooling. It has to be even before each pooling.",
            "572, 570, 568: only the last of these is pooled.",
        ),
        Wrong(
            "pooling before the block",
            _pooling_first,
            "On the way down, you pool before the block. Each block comes before its pooling.",
            "Follow the first block of the paper: 572, 570, 568, and then 284.",
        ),
        Wrong(
            "depth ignored",
            right.instead(lambda a: unet_out_size(a.size, 4)),
            "You always follow four poolings. Use the argument depth.",
            "4 is only its default.",
        ),
        Wrong(
            "floats",
            right.then(lambda out, a: float(out)),
            "You return a float. A size is an integer.",
            "Divide with //.",
        ),
        Wrong(
            "AssertionError",
            _other_error(AssertionError),
            "You raise an AssertionError for an illegal size. Raise a ValueError.",
            "assert is for errors of your own code: `raise ValueError(...)` is for those of the caller.",
        ),
        Wrong(
            "None for illegal sizes",
            _or_none,
            "You return None for an illegal size. Raise a ValueError.",
            "A caller that forgets to check would go on with None.",
        ),
        Wrong(
            "a block too many",
            _block_too_many,
            "You subtract one block too many. A U of depth 4 has 9 blocks.",
            "4 blocks on the way down, 4 on the way up, and one at the bottom.",
        ),
        Wrong(
            "first pooling only",
            _first_pooling_only,
            "You check only the size before the first pooling. It has to be even before each pooling.",
            "The size before the second pooling can be odd.",
        ),
        Wrong(
            "formula and divisibility",
            _divisible_formula,
            "You require the image size to be divisible by 2**depth. Here 572 is legal, although 16 does not divide "
            "it.",
            "Your rule is the one for padded convolutions.",
        ),
        Wrong(
            "only the way down checked",
            _only_way_down_checked,
            "You check the sizes on the way down only. On the way up, an image can become too small, too.",
            "What does your function return for size 16 and depth 1?",
        ),
    ],
    hides=["segedu.semantic.unet"],
)
