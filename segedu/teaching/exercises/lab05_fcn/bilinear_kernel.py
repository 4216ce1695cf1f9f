"""bilinear_kernel: the initial weights with which a transposed convolution interpolates bilinearly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.semantic.fcn import bilinear_kernel
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Even and odd kernels, one channel and several; then a kernel of one pixel, and kernels as large as FCN's."""

    def kernel(channels: int, size: int) -> Case:
        return case(f"channels = {channels}, kernel_size = {size}", channels, size)

    even, odd = 2 * int(rng.integers(3, 6)), 2 * int(rng.integers(3, 6)) + 1
    many = int(rng.integers(3, 6))
    core = [kernel(1, 4), kernel(1, 5), kernel(2, even), kernel(2, odd)]
    edge = [kernel(many, 1), kernel(many, 3), kernel(many, 2 * int(rng.integers(6, 9)))]
    return {"core": (2, core), "edge": (1, edge)}


def _tent(k: int, centre: float | None = None, half_width: float | None = None) -> Tensor:
    """1 at the centre, falling linearly to 0 over `half_width` pixels; both are right unless given."""
    centre = (k - 1) / 2 if centre is None else centre
    half_width = (k + 1) // 2 if half_width is None else half_width
    return 1 - (torch.arange(k) - centre).abs() / half_width


def _cone(k: int) -> Tensor:
    offsets = torch.arange(k) - (k - 1) / 2
    return (1 - torch.hypot(offsets[:, None], offsets) / ((k + 1) // 2)).clamp(min=0)


right = Variants(bilinear_kernel)


def _from_plane(plane: Callable[[int], Tensor]) -> Callable:
    """A wrong answer with another (k, k) plane in each channel."""
    return right.instead(lambda a: torch.eye(a.channels)[:, :, None, None] * plane(a.kernel_size))


def _from_tent(tent: Callable[[int], Tensor]) -> Callable:
    """A wrong answer with another tent along both axes."""
    return _from_plane(lambda k: torch.outer(tent(k), tent(k)))


def _exchanged_centres(k: int) -> Tensor:
    return _tent(k, centre=(k + 1) // 2 - (1 if k % 2 == 0 else 0.5))


PRODUCT = "Compare a corner of the 4x4 kernel with the worked example."
DIAGONAL = "Only weight[c, c] is not zero."

exercise = Exercise(
    name="bilinear_kernel",
    points=3,
    cases=cases,
    reference=bilinear_kernel,
    tolerance=1e-5,
    kind="matrix",
    hides=["segedu.semantic.fcn"],
    wrong=[
        Wrong(
            "round cone",
            _from_plane(_cone),
            "Your kernel is a round cone. A bilinear kernel is the product of two tents, one along each axis.",
            "Compute the tent of one axis first. Then multiply each value of a column by each value of a row.",
        ),
        Wrong(
            "smaller of two tents",
            _from_plane(lambda k: torch.minimum(_tent(k)[:, None], _tent(k))),
            "You take the minimum of the two tents. The bilinear kernel is their product.",
            PRODUCT,
        ),
        Wrong(
            "tents averaged",
            _from_plane(lambda k: (_tent(k)[:, None] + _tent(k)) / 2),
            "You average the two tents. The bilinear kernel is their product.",
            PRODUCT,
        ),
        Wrong(
            "centre of an odd kernel",
            _from_tent(lambda k: _tent(k, centre=(k - 1) // 2)),
            "Your centre lies on a pixel for every size. In an even kernel it lies between the two middle pixels.",
            "Where is the middle of the pixels 0, 1, 2, 3?",
        ),
        Wrong(
            "centre of an even kernel",
            _from_tent(lambda k: _tent(k, centre=(k + 1) // 2 - 0.5)),
            "Your centre lies between two pixels for every size. In an odd kernel it lies on the middle pixel.",
            "Where is the middle of the pixels 0, 1, 2?",
        ),
        Wrong(
            "centre at k // 2",
            _from_tent(lambda k: _tent(k, centre=k // 2)),
            "Your centre is pixel k // 2. In an even kernel it lies between the two middle pixels.",
            "Where is the middle of the pixels 0, 1, 2, 3?",
        ),
        Wrong(
            "centre at k // 2, width k / 2",
            _from_tent(lambda k: _tent(k, centre=k // 2, half_width=k / 2)),
            "For even k, your centre lies half a pixel too far to the right and down. For odd k, your tent is too "
            "narrow.",
            "For k = 4 the tent is 1/4, 3/4, 3/4, 1/4; for k = 3 it is 1/2, 1, 1/2.",
        ),
        Wrong(
            "half width not rounded up",
            _from_tent(lambda k: _tent(k, half_width=k / 2)),
            "In an odd kernel your tent is half a pixel too narrow. It falls to 0 over k / 2 pixels, rounded up.",
            "For k = 3 the tent is 1/2, 1, 1/2.",
        ),
        Wrong(
            "half width rounded down",
            _from_tent(lambda k: _tent(k, half_width=k // 2)),
            "You round k / 2 down when k is odd. The tent falls to 0 over k / 2 pixels, rounded up.",
            "For k = 3 the tent is 1/2, 1, 1/2, and for k = 1 it is 1.",
        ),
        Wrong(
            "0 at the border",
            _from_tent(lambda k: _tent(k, half_width=max((k - 1) / 2, 1e-9))),
            "Your tent is 0 on the outermost pixels. It has to reach 0 outside the kernel.",
            "For k = 4 the tent is 1/4, 3/4, 3/4, 1/4.",
        ),
        Wrong(
            "sums to 1",
            right.then(lambda out, a: out / out[0, 0].sum()),
            "Your kernel sums to 1. Do not normalise it: with stride 2, each output pixel receives only a part of "
            "the sum.",
            "Upsample a map of ones. Which value should the middle have, and which kernel values are added there?",
        ),
        Wrong(
            "peak of 1",
            right.then(lambda out, a: out / out.max()),
            "You scale the largest value to 1. In an even kernel no pixel lies at the centre, so all values are "
            "below 1.",
            "For k = 4 the largest value is 9/16.",
        ),
        Wrong(
            "mixes channels",
            right.then(lambda out, a: out[:1, :1].expand_as(out)),
            "You fill the kernel for every pair of channels. It has to be 0 where the two channels differ.",
            DIAGONAL,
        ),
        Wrong(
            "mean of all channels",
            right.then(lambda out, a: out[:1, :1].expand_as(out) / a.channels),
            "You fill the kernel for every pair of channels and divide it by C. It has to be 0 where the channels "
            "differ.",
            DIAGONAL,
        ),
        Wrong(
            "one plane a channel",
            right.then(lambda out, a: out[:1, :1].expand(a.channels, -1, -1, -1)),
            "You return (C, 1, k, k), the layout of a grouped convolution. This exercise expects (C, C, k, k).",
            "The first axis is the input channel, the second axis the output channel.",
        ),
        Wrong(
            "centre at k / 2",
            _from_tent(lambda k: _tent(k, centre=k / 2)),
            "Your centre is k / 2. The pixels 0 to k - 1 have their centre at (k - 1) / 2.",
            "Where is the middle of the pixels 0, 1, 2?",
        ),
        Wrong(
            "half width rounded down, at least 1",
            _from_tent(lambda k: _tent(k, half_width=max(k // 2, 1))),
            "You round k / 2 down when k is odd, so those tents are too narrow. It falls to 0 over k / 2 pixels, "
            "rounded up.",
            "For k = 3 the tent is 1/2, 1, 1/2.",
        ),
        Wrong(
            "centres of even and odd exchanged",
            _from_tent(_exchanged_centres),
            "You exchange the centres of even and odd kernels. It lies on a pixel only in an odd kernel.",
            "Where is the middle of the pixels 0, 1, 2, 3?",
        ),
        Wrong(
            "first channel only",
            right.then(
                lambda out, a: out * torch.eye(a.channels)[:1, :, None, None] * torch.eye(a.channels)[:, :1, None, None]
            ),
            "Only the first channel gets the kernel. Each channel gets it, from itself to itself.",
            DIAGONAL,
        ),
    ],
)
