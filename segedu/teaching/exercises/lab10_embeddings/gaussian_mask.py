"""gaussian_mask: which pixels an object takes, by a Gaussian around its centre."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def gaussian_mask(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """Take into each object the pixels whose embedding lies near its centre: where its Gaussian is above 1/2.

    The Gaussian of an object is exp(-(dy^2 / (2 sigma_y^2) + dx^2 / (2 sigma_x^2))), where (dy, dx) is the way from
    its centre to the embedding; it is 1 at the centre. Each object has its own two sigmas. The network gives their
    logarithms, so that no sigma can be negative. Objects do not know of each other: a pixel may be in two masks.

    Args:
        embeddings: (2, H, W): where each pixel points, y before x.
        centres: (N, 2), y before x.
        log_sigmas: (N, 2): log(sigma_y) and log(sigma_x) of each object.

    Returns:
        (N, H, W) bool: one mask an object.

    Example: log(sigma) = 0, so sigma = 1, and the Gaussian at distance 1 is exp(-1/2) = 0.61; at distance 2 it is 0.14.

        >>> gaussian_mask(torch.tensor([[[0., 0., 0.]], [[0., 1., 2.]]]), torch.zeros(1, 2), torch.zeros(1, 2))
        tensor([[[ True,  True, False]]])
    """
    return _gaussians(embeddings, centres, log_sigmas.exp()) > 0.5


def _squares(embeddings: Tensor, centres: Tensor) -> Tensor:
    return (embeddings - centres[:, :, None, None]) ** 2  # (N, 2, H, W)


def _gaussians(embeddings: Tensor, centres: Tensor, sigmas: Tensor) -> Tensor:
    exponents = _squares(embeddings, centres) / (2 * sigmas[:, :, None, None] ** 2)
    return (-exponents.sum(dim=1)).exp()


def _pixels(shape: tuple[int, ...]) -> Tensor:
    axes = [torch.arange(n, dtype=torch.float64) for n in shape[-2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """A lattice of embeddings under long, small and overlapping Gaussians; one object, no object, sigma below 1.

    Args:
        rng: of embeddings, centres and sigmas.

    Returns:
        The cases by group.
    """

    def case(name: str, shape: tuple[int, int], step: float, centres: list, sigmas: list) -> Case:
        # a lattice, each embedding moved by less than half a step: near every centre some are in and some are out
        moved = torch.from_numpy(rng.uniform(-0.3, 0.3, (2, *shape)))
        embeddings = step * (_pixels(shape) + moved - torch.tensor(shape).reshape(2, 1, 1) / 2)
        places = torch.tensor(centres, dtype=torch.float64).reshape(-1, 2)
        places += torch.from_numpy(rng.uniform(-0.2, 0.2, tuple(places.shape))) * step
        spread = torch.tensor(sigmas, dtype=torch.float64).reshape(-1, 2)
        spread *= torch.from_numpy(rng.uniform(0.95, 1.05, tuple(spread.shape)))
        return {"name": name, "args": [embeddings, places, spread.log()]}

    return {
        "core": (
            3,
            [
                case("a round object", (11, 12), 1.0, [[0, 0.5]], [[2, 2]]),
                case("a tall one and a wide one", (16, 18), 1.0, [[-2, -4], [1, 3]], [[4, 1.6], [1.6, 3.2]]),
                case("a large one beside a small one", (15, 16), 0.5, [[0, -1.5], [0.5, 1.5]], [[1.6, 1.2], [0.7, 1]]),
            ],
        ),
        "edge": (
            1,
            [
                case("two masks that overlap", (12, 13), 1.0, [[0, -1.5], [0, 1.5]], [[2.2, 3], [3, 2.2]]),
                case("sigmas far below 1", (9, 14), 0.05, [[0, 0], [0, 0.1]], [[0.1, 0.14], [0.06, 0.1]]),
                case("no object", (6, 7), 1.0, [], []),
                case("a centre where nobody points", (8, 7), 0.5, [[40, 40], [0, 0]], [[1.5, 1], [0.8, 1.3]]),
            ],
        ),
    }


def not_exponentiated(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """The logarithms are taken as sigmas, negative ones and 0 too."""
    return _gaussians(embeddings, centres, log_sigmas) > 0.5


def without_two(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """exp(-d^2 / sigma^2)."""
    return _gaussians(embeddings, centres, log_sigmas.exp() / math.sqrt(2)) > 0.5


def one_for_all(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """The sigmas of the first object."""
    return gaussian_mask(embeddings, centres, log_sigmas[:1].expand_as(log_sigmas))


def one_for_both_axes(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """The first sigma along both axes: circles."""
    return gaussian_mask(embeddings, centres, log_sigmas[:, :1].expand_as(log_sigmas))


def axes_swapped(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """sigma_x along y."""
    return gaussian_mask(embeddings, centres, log_sigmas.flip(1))


def distance_below_half(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """The exponent, not the Gaussian, against 1/2."""
    sigmas = log_sigmas.exp()[:, :, None, None]
    return (_squares(embeddings, centres) / (2 * sigmas**2)).sum(dim=1) < 0.5


def within_one_sigma(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """An ellipse of half a sigma: d / sigma < 1/2."""
    sigmas = log_sigmas.exp()[:, :, None, None]
    return (_squares(embeddings, centres) / sigmas**2).sum(dim=1).sqrt() < 0.5


def sigma_not_squared(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """exp(-d^2 / (2 sigma))."""
    return gaussian_mask(embeddings, centres, log_sigmas / 2)


def times_sigma(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """d^2 / 2 * sigma^2, as Python reads it."""
    return gaussian_mask(embeddings, centres, -log_sigmas)


def distance_not_squared(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """exp(-d / (2 sigma^2))."""
    sigmas = log_sigmas.exp()[:, :, None, None]
    return (-(_squares(embeddings, centres).sqrt() / (2 * sigmas**2)).sum(dim=1)).exp() > 0.5


def density(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """Divided by 2 pi sigma_y sigma_x, as a density is."""
    volume = 2 * math.pi * log_sigmas.exp().prod(dim=1)[:, None, None]
    return _gaussians(embeddings, centres, log_sigmas.exp()) / volume > 0.5


def each_axis_alone(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """Above 1/2 along y and above 1/2 along x: a rectangle."""
    sigmas = log_sigmas.exp()[:, :, None, None]
    return ((-_squares(embeddings, centres) / (2 * sigmas**2)).exp() > 0.5).all(dim=1)


def pixels_themselves(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """Where a pixel is, not where it points."""
    return gaussian_mask(_pixels(embeddings.shape), centres, log_sigmas)


def one_object_each(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """Only the object with the greatest Gaussian gets a pixel."""
    values = _gaussians(embeddings, centres, log_sigmas.exp())
    return (values > 0.5) & (values == values.amax(dim=0)) if len(values) else values > 0.5


FORMULA = "Write the formula down term by term: two squares, each over 2 sigma^2 of its axis, added, minus, exp."

exercise = Exercise(
    name="gaussian_mask",
    points=4,
    cases=cases,
    reference=gaussian_mask,
    kind="map",
    hides=["segedu.instance.spatial_embedding"],
    wrong=[
        Wrong(
            "exp missing",
            not_exponentiated,
            "You use log(sigma) as sigma: take its exponential first.",
            "A sigma of 1 comes as 0: what happens to your division?",
        ),
        Wrong("no 2", without_two, "The 2 is missing: each square is divided by 2 sigma^2, not by sigma^2.", FORMULA),
        Wrong(
            "first object's sigma for all",
            one_for_all,
            "All your objects have the sigmas of the first: each object has its own.",
            "Row n of log_sigmas belongs to row n of centres.",
        ),
        Wrong(
            "one sigma for both axes",
            one_for_both_axes,
            "You use sigma_y along both axes: along x it is sigma_x.",
            "A wide object has a large sigma_x: its mask should be wide too.",
        ),
        Wrong(
            "sigmas swapped",
            axes_swapped,
            "You use sigma_x along y and sigma_y along x.",
            "Column 0 of log_sigmas belongs to y, as plane 0 of the embeddings does.",
        ),
        Wrong(
            "threshold on the exponent",
            distance_below_half,
            "You stop at one sigma, where the exponent is 1/2: compare the Gaussian, exp(-exponent), with 1/2.",
            "exp(-x) is above 1/2 where x is below log(2) = 0.69, so up to 1.18 sigma.",
        ),
        Wrong(
            "threshold on d",
            within_one_sigma,
            "You ask whether the distance is below half a sigma: ask whether the Gaussian is above 1/2.",
            "Solve exp(-d^2 / (2 sigma^2)) = 1/2 for d: it is 1.18 sigma.",
        ),
        Wrong("sigma not squared", sigma_not_squared, "Your sigma is not squared: divide by 2 sigma^2.", FORMULA),
        Wrong(
            "times sigma",
            times_sigma,
            "You multiply by sigma^2: divide by 2 sigma^2.",
            "d**2 / 2 * s**2 is (d**2 / 2) * s**2. Put brackets around 2 * s**2.",
        ),
        Wrong(
            "distance not squared",
            distance_not_squared,
            "Your distances are not squared: the exponent has dy^2 and dx^2.",
            FORMULA,
        ),
        Wrong(
            "a density",
            density,
            "You divide by the volume 2 pi sigma_y sigma_x: this Gaussian is 1 at its centre, however wide it is.",
            "A mask should not vanish because the object is large.",
        ),
        Wrong(
            "each axis alone",
            each_axis_alone,
            "Your masks are rectangles: add the two exponents, then compare once.",
            "A pixel at the corner is far along both axes, and both count together.",
        ),
        Wrong(
            "pixels, not embeddings",
            pixels_themselves,
            "You measure from where the pixels are: measure from where they point, which is in `embeddings`.",
            "A pixel at the rim of an object may point right at its centre.",
        ),
        Wrong(
            "one object a pixel",
            one_object_each,
            "You give each pixel to one object only: here masks may overlap.",
            "Who gets a pixel that two objects want is settled later, by the greedy clustering.",
        ),
    ],
)
