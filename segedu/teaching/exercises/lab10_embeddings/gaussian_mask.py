"""gaussian_mask: which pixels belong to an object, by a Gaussian around its centre."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab10_embeddings.scene import pixel_positions


def gaussian_mask(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    """Assign to each object the pixels whose embedding lies near its centre: where its Gaussian is above 1/2.

    The Gaussian of an object is exp(-(dy^2 / (2 sigma_y^2) + dx^2 / (2 sigma_x^2))), where (dy, dx) is the offset from
    its centre to the embedding; it is 1 at the centre. Each object has its own two sigmas. The network predicts their
    logarithms, so that every sigma is positive. Objects are independent: a pixel may belong to two masks.

    Args:
        embeddings: (2, H, W): the position at which each pixel points, y before x.
        centres: (N, 2), y before x.
        log_sigmas: (N, 2): log(sigma_y) and log(sigma_x) of each object.

    Returns:
        (N, H, W) bool: one mask per object.

    Example: log(sigma) = 0, so sigma = 1, and the Gaussian at distance 1 is exp(-1/2) = 0.61; at distance 2 it is 0.14.

        >>> gaussian_mask(torch.tensor([[[0., 0., 0.]], [[0., 1., 2.]]]), torch.zeros(1, 2), torch.zeros(1, 2))
        tensor([[[ True,  True, False]]])
    """
    return _gaussians(embeddings, centres, log_sigmas.exp()) > 0.5


def _squares(embeddings: Tensor, centres: Tensor) -> Tensor:
    return (embeddings - centres[:, :, None, None]) ** 2  # (N, 2, H, W)


def _exponents(embeddings: Tensor, centres: Tensor, sigmas: Tensor) -> Tensor:
    return _squares(embeddings, centres) / (2 * sigmas[:, :, None, None] ** 2)  # (N, 2, H, W)


def _gaussians(embeddings: Tensor, centres: Tensor, sigmas: Tensor) -> Tensor:
    return (-_exponents(embeddings, centres, sigmas).sum(dim=1)).exp()


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Lattices of embeddings under Gaussians of several sizes: near each centre some are inside and some outside."""

    def lattice(name: str, shape: tuple[int, int], step: float, centres: list, sigmas: list) -> Case:
        jitter = torch.from_numpy(rng.uniform(-0.3, 0.3, (2, *shape)))
        embeddings = step * (pixel_positions(shape) + jitter - torch.tensor(shape).reshape(2, 1, 1) / 2)
        positions = torch.tensor(centres, dtype=torch.float64).reshape(-1, 2)
        positions += torch.from_numpy(rng.uniform(-0.2, 0.2, tuple(positions.shape))) * step
        widths = torch.tensor(sigmas, dtype=torch.float64).reshape(-1, 2)
        widths *= torch.from_numpy(rng.uniform(0.95, 1.05, tuple(widths.shape)))
        return case(name, embeddings, positions, widths.log())

    core = [
        lattice("a round object", (11, 12), 1.0, [[0, 0.5]], [[2, 2]]),
        lattice("a tall one and a wide one", (16, 18), 1.0, [[-2, -4], [1, 3]], [[4, 1.6], [1.6, 3.2]]),
        lattice("a large one beside a small one", (15, 16), 0.5, [[0, -1.5], [0.5, 1.5]], [[1.6, 1.2], [0.7, 1]]),
    ]
    edge = [
        lattice("two masks that overlap", (12, 13), 1.0, [[0, -1.5], [0, 1.5]], [[2.2, 3], [3, 2.2]]),
        lattice("sigmas far below 1", (9, 14), 0.05, [[0, 0], [0, 0.1]], [[0.1, 0.14], [0.06, 0.1]]),
        lattice("no object", (6, 7), 1.0, [], []),
        lattice("a centre without embeddings nearby", (8, 7), 0.5, [[40, 40], [0, 0]], [[1.5, 1], [0.8, 1.3]]),
    ]
    return {"core": (3, core), "edge": (1, edge)}


right = Variants(gaussian_mask)


def _with_exponents(compare: Callable[[Tensor], Tensor]) -> Callable:
    """Another comparison of the exponents (N, 2, H, W), squares divided by 2 sigma^2."""
    return right.instead(lambda a: compare(_exponents(a.embeddings, a.centres, a.log_sigmas.exp())))


def not_exponentiated(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    return _gaussians(embeddings, centres, log_sigmas) > 0.5


def distance_not_squared(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    sigmas = log_sigmas.exp()[:, :, None, None]
    return (-(_squares(embeddings, centres).sqrt() / (2 * sigmas**2)).sum(dim=1)).exp() > 0.5


def density(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    volume = 2 * math.pi * log_sigmas.exp().prod(dim=1)[:, None, None]
    return _gaussians(embeddings, centres, log_sigmas.exp()) / volume > 0.5


def one_object_per_pixel(embeddings: Tensor, centres: Tensor, log_sigmas: Tensor) -> Tensor:
    values = _gaussians(embeddings, centres, log_sigmas.exp())
    return (values > 0.5) & (values == values.amax(dim=0)) if len(values) else values > 0.5


def _fails_without_objects(a) -> Tensor:
    if not len(a.centres):
        raise RuntimeError("stack expects a non-empty TensorList")
    return gaussian_mask(a.embeddings, a.centres, a.log_sigmas)


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
            "You use log(sigma) as sigma. Take its exponential first.",
            "log_sigmas contains 0 for a sigma of 1. What happens to your division?",
        ),
        Wrong(
            "no 2",
            right.given(log_sigmas=lambda a: a.log_sigmas - math.log(2) / 2),
            "The factor 2 is missing. Divide each square by 2 sigma^2, not by sigma^2.",
            FORMULA,
        ),
        Wrong(
            "first object's sigma for all",
            right.given(log_sigmas=lambda a: a.log_sigmas[:1].expand_as(a.log_sigmas)),
            "You use the sigmas of the first object for all objects. Each object has its own.",
            "Row n of log_sigmas belongs to row n of centres.",
        ),
        Wrong(
            "one sigma for both axes",
            right.given(log_sigmas=lambda a: a.log_sigmas[:, :1].expand_as(a.log_sigmas)),
            "You use sigma_y along both axes. Along x it is sigma_x.",
            "A wide object has a large sigma_x, and its mask should be wide too.",
        ),
        Wrong(
            "sigmas swapped",
            right.given(log_sigmas=lambda a: a.log_sigmas.flip(1)),
            "You use sigma_x along y and sigma_y along x. The first of the two sigmas belongs to y.",
            "Column 0 of log_sigmas belongs to y, like plane 0 of the embeddings.",
        ),
        Wrong(
            "threshold on the exponent",
            _with_exponents(lambda exponents: exponents.sum(dim=1) < 0.5),
            "You compare the exponent with 1/2. Compare the Gaussian itself, exp(-exponent), with 1/2.",
            "exp(-x) is above 1/2 where x is below log(2) = 0.69, so up to 1.18 sigma.",
        ),
        Wrong(
            "threshold on d",
            _with_exponents(lambda exponents: (2 * exponents).sum(dim=1).sqrt() < 0.5),
            "You check whether the distance is below half a sigma. Check whether the Gaussian is above 1/2.",
            "Solve exp(-d^2 / (2 sigma^2)) = 1/2 for d: it is 1.18 sigma.",
        ),
        Wrong(
            "sigma not squared",
            right.given(log_sigmas=lambda a: a.log_sigmas / 2),
            "You do not square sigma. Divide by 2 sigma^2.",
            FORMULA,
        ),
        Wrong(
            "times sigma",
            right.given(log_sigmas=lambda a: -a.log_sigmas),
            "You multiply by sigma^2. Divide by 2 sigma^2.",
            "d**2 / 2 * s**2 is (d**2 / 2) * s**2. Put parentheses around 2 * s**2.",
        ),
        Wrong(
            "distance not squared",
            distance_not_squared,
            "You do not square the distances. The exponent contains dy^2 and dx^2.",
            FORMULA,
        ),
        Wrong(
            "a density",
            density,
            "You divide by 2 pi sigma_y sigma_x, as for a density. This Gaussian is 1 at its centre for every sigma.",
            "The mask of a large object should not vanish.",
        ),
        Wrong(
            "each axis alone",
            _with_exponents(lambda exponents: ((-exponents).exp() > 0.5).all(dim=1)),
            "Your masks are rectangles. Add the exponents of both axes before you compare.",
            "At the corner of a rectangle both distances are large, and they count together.",
        ),
        Wrong(
            "pixels, not embeddings",
            right.given(embeddings=lambda a: pixel_positions(a.embeddings.shape)),
            "You measure distances from the positions of the pixels. Measure them from the embeddings.",
            "An embedding is where a pixel points. A pixel at the edge of an object may point at its centre.",
        ),
        Wrong(
            "one object a pixel",
            one_object_per_pixel,
            "You assign each pixel to only one object. In this exercise masks may overlap.",
            "The greedy clustering decides later which of two objects gets a pixel.",
        ),
        Wrong(
            "centres x before y",
            right.given(centres=lambda a: a.centres.flip(1)),
            "You read the centres as x before y. They are y before x, like the embeddings.",
            "Column 0 of centres belongs to y.",
        ),
        Wrong(
            "objects last",
            right.then(lambda out, a: out.permute(1, 2, 0)),
            "Your objects are the last axis, (H, W, N). They come first, (N, H, W).",
            "One mask per object.",
        ),
        Wrong(
            "no object fails",
            right.instead(_fails_without_objects),
            "Your function fails without objects, because an empty list cannot be stacked. Return a tensor (0, H, W).",
            "Start with torch.zeros(N, H, W, dtype=torch.bool).",
        ),
        Wrong(
            "Gaussians returned",
            right.instead(lambda a: _gaussians(a.embeddings, a.centres, a.log_sigmas.exp())),
            "You return the Gaussians. Return masks: where the Gaussian is above 1/2.",
            "Compare with 0.5 at the end.",
        ),
        Wrong(
            "pixel positions added",
            right.given(embeddings=lambda a: a.embeddings + pixel_positions(a.embeddings.shape)),
            "You add the positions of the pixels to the embeddings. An embedding is a position already.",
            "The exercise before returned offsets; here they have been added.",
        ),
        Wrong(
            "mean of the sigmas",
            right.given(log_sigmas=lambda a: a.log_sigmas.exp().mean(1, keepdim=True).log().expand_as(a.log_sigmas)),
            "You use the mean of the two sigmas along both axes. Each axis has its own.",
            "A wide object has a large sigma_x, and its mask should be wide too.",
        ),
        Wrong(
            "exponents averaged",
            _with_exponents(lambda exponents: (-exponents.mean(dim=1)).exp() > 0.5),
            "You average the exponents of the two axes. Add them.",
            FORMULA,
        ),
        Wrong(
            "base 10",
            right.given(log_sigmas=lambda a: a.log_sigmas * math.log(10)),
            "You take 10 to the power of log(sigma). The logarithm is the natural one: use exp.",
            "log_sigmas.exp().",
        ),
    ],
)
