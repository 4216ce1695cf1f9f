"""greedy_cluster: extract objects from the embeddings one by one, the best seed first."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab10_embeddings.scene import Scene, pixel_positions


def greedy_cluster(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """Extract objects one by one, each around the best remaining seed.

    Foreground are the pixels with a seed above 1/2; no other pixel ever joins an object. All of them are free at
    first. Then repeat:

    1. Start from the free pixel with the highest seed; of equal ones, the first in reading order. Only pixels with a
       seed above `seed_threshold` may start an object. If none is left, stop.
    2. Its members are all free pixels whose embedding lies in the Gaussian around the *embedding* of the start pixel:
       exp(-(dy^2 / (2 sigma_y^2) + dx^2 / (2 sigma_x^2))) > 1/2, with the sigmas of the start pixel.
    3. With at least `min_pixels` members they become the next object: 1, 2, ... They are no longer free.
       With fewer there is no object, and no number is used: the members stay free, so a later object may include them,
       but none of them may start an object any more.

    Args:
        embeddings: (2, H, W) floats: the position at which each pixel points, y before x, in any unit.
        sigma: (2, H, W) floats above 0: sigma_y and sigma_x of each pixel, in the same unit.
        seed: (H, W) floats in [0, 1].
        seed_threshold: in [0, 1].
        min_pixels: at least 1.

    Returns:
        (H, W) integers: 0 for background, 1 for the first object, and so on.

    Example: the last pixel has the best seed; the third points to the same position.

        >>> positions = torch.tensor([[[0.0, 0.0, 0.0, 0.0]], [[1.0, 1.5, 6.0, 6.0]]])
        >>> greedy_cluster(positions, torch.ones(2, 1, 4), torch.tensor([[0.8, 0.7, 0.6, 0.9]]), 0.75, 1)
        tensor([[2, 2, 1, 1]], dtype=torch.int32)
    """
    positions, widths, scores = embeddings.flatten(1), sigma.flatten(1), seed.flatten()
    labels = torch.zeros(len(scores), dtype=torch.int32)
    free, may_start = scores > 0.5, scores > seed_threshold
    for start in scores.argsort(descending=True, stable=True):
        if free[start] and may_start[start]:
            offsets = (positions - positions[:, start, None]) / widths[:, start, None]
            members = free & ((-(offsets**2).sum(0) / 2).exp() > 0.5)
            may_start &= ~members
            if members.sum() >= min_pixels:
                labels[members] = labels.max() + 1
                free &= ~members
    return labels.reshape(seed.shape)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Scenes with cells of several sizes, shared pixels, tiny clusters, and scattered embeddings; see `_edge_cases`."""
    scene = Scene(rng, (13, 19))
    scene.cell((1, 7), (1, 9), best=0.83, sigma=(1.1, 1.5))  # first in reading order and largest, not best
    scene.cell((9, 12), (2, 7), best=0.94, sigma=(0.9, 1.2))
    scene.cell((2, 9), (12, 17), best=0.89, sigma=(1.7, 0.8))
    scene.cell((10, 12), (12, 16), best=0.74, sigma=(1.0, 1.0))  # foreground, but no seed above 0.8
    scene.mislead()
    crowd = Scene(rng, (10, 18))
    one, other = crowd.cell((1, 8), (1, 7), 0.86, (1.4, 2.0)), crowd.cell((2, 9), (11, 17), 0.93, (1.2, 1.0))
    crowd.point((4, 8), torch.stack([one, other]).mean(0), 0.7)  # in neither
    crowd.point((1, 9), one)  # distant in the image, but in the first
    third = crowd.cell((0, 1), (3, 12), 0.81, (1.0, 3.0), centre=other + torch.tensor([0, -3.2]))
    for x in (1, 2):
        crowd.point((8, x), (other + third) / 2 + torch.tensor([0.1 * x, 0.55]))  # in the Gaussians of both
    tiny = Scene(rng, (11, 16))
    large = tiny.cell((1, 7), (6, 13), 0.87, (1.6, 1.9))
    for x, best in ((1, 0.98), (3, 0.85)):  # two pixels, before and after the cell around whose centre they are
        tiny.cell((2, 4), (x, x + 1), best, (0.05, 0.05), large + torch.tensor([0.3, 0.4 * x - 1]), spread=0.01)
    tiny.cell((8, 10), (1, 3), 0.95, (1, 1))  # 4 pixels: just enough
    rejected = tiny.cell((9, 10), (8, 11), 0.97, (1, 1))  # 3: not enough
    tiny.seed[9, 9], tiny.sigma[:, 9, 9] = 0.9, 3.0  # this one of them would have more members
    for x in (12, 14):
        tiny.point((9, x), rejected + torch.tensor([0.1 * x, 2.0]))
    scattered = Scene(rng, (10, 20))  # one start each; the extent of its Gaussian decides
    scattered.lattice_cell((1, 9), (1, 9), 0.87, (2.0, 0.7))
    scattered.lattice_cell((1, 9), (11, 19), 0.86, (0.6, 1.9))
    core = [
        scene.case("cells of several sizes", 0.8, 1),
        crowd.case("pixels in the Gaussians of two cells", 0.75, 1),
        tiny.case("tiny clusters, at least 4 pixels", 0.8, 4),
        scattered.case("scattered embeddings", 0.855, 1),
    ]
    return {"core": (3, core), "edge": (1, _edge_cases(rng))}


def _edge_cases(rng: np.random.Generator) -> list[Case]:
    ties = Scene(rng, (6, 15))
    left, right = ties.cell((1, 5), (1, 5), 0.875, (1.1, 1.6)), ties.cell((0, 4), (9, 13), 0.875, (1.3, 1.8))
    shift = torch.tensor([0.0, 2.5]) + left - right  # they overlap, but neither contains the centre of the other
    ties.embeddings[:, :4, 9:13] += shift[:, None, None]
    for x in range(0, 15, 2):  # and objects of one pixel each, which an unstable sort mixes up
        ties.point((5, x), torch.tensor([50.0, 10 * x]), 0.875)
    limits = Scene(rng, (5, 12))
    limits.cell((0, 4), (1, 5), 0.75, (1, 1))  # its best seed is the threshold, which is not above it
    limits.cell((1, 4), (7, 11), 0.8125, (1, 1))
    limits.seed[1, 8] = limits.seed[0, 2] = 0.5  # just background
    low = Scene(rng, (4, 9))
    low.cell((0, 3), (1, 4), 0.71, (1, 1))
    low.seed[:, 6:] = 0.45  # above the threshold, but background
    for x in range(3):  # three single pixels, which a start in the background would join
        low.point((3, x + 2), torch.tensor([2, 14 + 0.4 * x]), 0.6 - 0.01 * x)
        low.sigma[:, 3, x + 2] = 0.1
    low.point((0, 7), torch.tensor([2, 14.4]), 0.45)
    weak = Scene(rng, (5, 7))
    weak.cell((1, 4), (1, 5), 0.8, (1, 1))
    row = Scene(rng, (1, 14))
    row.cell((0, 1), (1, 5), 0.7, (0.5, 1.4))
    row.cell((0, 1), (7, 13), 0.9, (0.4, 2.1))
    return [
        ties.case("equal seeds", 0.7, 1),
        limits.case("seeds exactly at the limits", 0.75, 3),
        low.case("a low threshold", 0.25, 3),
        weak.case("no seed above the threshold", 0.9, 1),
        Scene(rng, (4, 6)).case("no foreground", 0.8, 1),
        row.case("one row", 0.6, 3),
        row.case("no object is large enough", 0.6, 7),
    ]


right = Variants(greedy_cluster)


def _best(seed: Tensor, candidates: Tensor, members_of: Callable) -> Tensor:
    return (seed * candidates).argmax()


def _last_of_the_best(seed: Tensor, candidates: Tensor, members_of: Callable) -> Tensor:
    return len(seed) - 1 - (seed * candidates).flip(0).argmax()


def _most_members(seed: Tensor, candidates: Tensor, members_of: Callable) -> Tensor:
    return max(candidates.nonzero()[:, 0], key=lambda start: int(members_of(start).sum()))


def _own_gaussian(embeddings: Tensor, sigma: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    return embeddings[:, start, None], sigma[:, start, None]


def _cluster(
    a: SimpleNamespace,
    pick: Callable = _best,
    gaussian: Callable = _own_gaussian,
    reuse: bool = False,
    discard: bool = False,
    restart: bool = False,
    number_all: bool = False,
    stop: bool = False,
) -> Tensor:
    """`greedy_cluster` of the arguments `a`; the options are misconceptions.

    Args:
        pick: (seeds, candidates, members of a start) -> the next start.
        gaussian: (embeddings, sigmas, start) -> centre and sigmas of the Gaussian.
        reuse: members of objects stay free.
        discard: members of a cluster that is too small are no longer free.
        restart: they may start another one.
        number_all: such a cluster uses up a number.
        stop: it ends the loop.
    """
    embeddings, sigma, seed = a.embeddings.flatten(1), a.sigma.flatten(1), a.seed.flatten()
    labels, number = torch.zeros(len(seed), dtype=torch.int32), 0
    free, may_start = seed > 0.5, seed > a.seed_threshold

    def members_of(start: Tensor) -> Tensor:
        centre, width = gaussian(embeddings, sigma, start)
        return free & ((-(((embeddings - centre) / width) ** 2).sum(0) / 2).exp() > 0.5)

    while (free & may_start).any():
        start = pick(seed, free & may_start, members_of)
        members = members_of(start)
        large = bool(members.sum() >= a.min_pixels)
        may_start[start] = False
        may_start[members] &= restart
        if stop and not large:
            break
        number += large or number_all
        if large:
            labels[members] = number
        free[members] &= not (discard or (large and not reuse))
    return labels.reshape(a.seed.shape)


def around_the_pixel(a: SimpleNamespace) -> Tensor:
    pixels = pixel_positions(a.seed.shape).flatten(1)
    return _cluster(a, gaussian=lambda _, sigma, start: (pixels[:, start, None], sigma[:, start, None]))


def _next_below(value: float) -> float:
    return float(np.nextafter(np.float64(value), -1.0))


def _mean_of_members(a: SimpleNamespace) -> Tensor:
    """Select the members once more, around the mean embedding of the first selection."""
    labels, number = torch.zeros(a.seed.shape, dtype=torch.int32), 0
    free, may_start = a.seed > 0.5, a.seed > a.seed_threshold

    def near(centre: Tensor, width: Tensor) -> Tensor:
        squares = ((a.embeddings - centre[:, None, None]) / width[:, None, None]) ** 2
        return free & ((-squares.sum(0) / 2).exp() > 0.5)

    while (free & may_start).any():
        start = divmod(int(torch.where(free & may_start, a.seed, -1.0).argmax()), a.seed.shape[1])
        width = a.sigma[:, start[0], start[1]]
        members = near(a.embeddings[:, start[0], start[1]], width)
        members |= near(a.embeddings[:, members].mean(1), width)
        if members.sum() >= a.min_pixels:
            number += 1
            labels[members] = number
            free = free & ~members
        else:
            may_start = may_start & ~members
    return labels


def _threshold_for_both(a: SimpleNamespace) -> Tensor:
    """Foreground are the pixels above seed_threshold, also where it is below 1/2."""
    seed = torch.where(a.seed > a.seed_threshold, 0.5 + a.seed / 2, 0.0)
    return _cluster(SimpleNamespace(**{**vars(a), "seed": seed, "seed_threshold": 0.5}))


def _either_limit(a: SimpleNamespace) -> Tensor:
    """Pixels above either limit are free."""
    low = min(0.5, a.seed_threshold)
    seed = torch.where(a.seed > low, 0.5 + a.seed / 2, 0.0)
    return _cluster(SimpleNamespace(**{**vars(a), "seed": seed, "seed_threshold": 0.5 + a.seed_threshold / 2}))


TWO_LIMITS = "There are two limits: above 1/2 a pixel may join an object, above seed_threshold it may also start one."
STEP_3 = "Read step 3 of the exercise again: what happens to the members, to the number, to the loop?"

exercise = Exercise(
    name="greedy_cluster",
    points=4,
    cases=cases,
    reference=greedy_cluster,
    kind="map",
    hides=["segedu.instance.spatial_embedding"],
    wrong=[
        Wrong(
            "never marked as used",
            right.instead(lambda a: _cluster(a, reuse=True)),
            "A later object takes pixels of an earlier one. Pixels of an object are no longer free.",
            "Members are free pixels in the Gaussian: both conditions, joined by &.",
        ),
        Wrong(
            "seed threshold ignored",
            right.given(seed_threshold=lambda a: 0.0),
            "Your objects start from seeds that are too low. Only pixels above seed_threshold may start one.",
            TWO_LIMITS,
        ),
        Wrong(
            "only seeds join",
            right.given(seed=lambda a: torch.where(a.seed > a.seed_threshold, a.seed, 0.0)),
            "Only pixels above seed_threshold join your objects. All foreground pixels, above 1/2, may join.",
            TWO_LIMITS,
        ),
        Wrong(
            "background joins",
            right.given(seed=lambda a: 0.5 + a.seed / 2, seed_threshold=lambda a: 0.5 + a.seed_threshold / 2),
            "Background pixels join your objects. Pixels with a seed of at most 1/2 never do, wherever they point.",
            TWO_LIMITS,
        ),
        Wrong(
            "in reading order",
            right.instead(lambda a: _cluster(a, pick=lambda seed, candidates, _: candidates.int().argmax())),
            "You visit the seeds in reading order. Start from the highest remaining seed.",
            "The most confident pixels should decide first.",
        ),
        Wrong(
            "by area",
            right.instead(lambda a: _cluster(a, pick=_most_members)),
            "You extract the largest object first. Extract the one with the highest seed first.",
            "The value of the seed decides, not the number of members.",
        ),
        Wrong(
            "last of equal seeds",
            right.instead(lambda a: _cluster(a, pick=_last_of_the_best)),
            "Among equal seeds, you start from the last one. Start from the first in reading order.",
            "argmax returns the first of equal values; sorting in ascending order and reversing gives the last.",
        ),
        Wrong(
            "min_pixels ignored",
            right.given(min_pixels=lambda a: 1),
            "You keep clusters with fewer than min_pixels members. They must not become objects.",
            STEP_3,
        ),
        Wrong(
            "small ones use up their pixels",
            right.instead(lambda a: _cluster(a, discard=True)),
            "You discard the pixels of a cluster that is too small. They stay free, and a later object may use them.",
            STEP_3,
        ),
        Wrong(
            "small ones start again",
            right.instead(lambda a: _cluster(a, restart=True)),
            "Pixels of a cluster that was too small start another one. They stay free, but must not start any.",
            STEP_3,
        ),
        Wrong(
            "numbers with gaps",
            right.instead(lambda a: _cluster(a, number_all=True)),
            "Your labels have gaps. A cluster that is too small does not use up a number.",
            STEP_3,
        ),
        Wrong(
            "stops at a small one",
            right.instead(lambda a: _cluster(a, stop=True)),
            "You stop at the first cluster that is too small. Lower seeds may still start large objects.",
            STEP_3,
        ),
        Wrong(
            "sigma of each pixel",
            right.instead(lambda a: _cluster(a, gaussian=lambda at, sigma, start: (at[:, start, None], sigma))),
            "You use each pixel's own sigma. Use the sigmas of the start pixel for all pixels.",
            "There is one Gaussian per object, and the start pixel gives its width.",
        ),
        Wrong(
            "pixels, not embeddings",
            right.given(embeddings=lambda a: pixel_positions(a.seed.shape)),
            "You measure distances between the positions of pixels. Measure them between their embeddings.",
            "Pixels of one object lie far apart, but their embeddings lie close together.",
        ),
        Wrong(
            "around the start's own place",
            right.instead(around_the_pixel),
            "You centre the Gaussian on the start pixel. Centre it on the embedding of the start pixel.",
            "Column `start` of the embeddings is the centre.",
        ),
        Wrong(
            "more than min_pixels",
            right.given(min_pixels=lambda a: a.min_pixels + 1),
            "Your objects need more than min_pixels members. Exactly min_pixels are enough.",
            "Compare with >=, not with >.",
        ),
        Wrong(
            "seed equal to the threshold starts",
            right.given(seed_threshold=lambda a: _next_below(a.seed_threshold)),
            "Your objects start from seeds that equal seed_threshold. A start has to be above it.",
            "Compare with >, not with >=.",
        ),
        Wrong(
            "a seed of 1/2 is foreground",
            right.given(seed=lambda a: torch.where(a.seed == 0.5, 0.5 + 1e-9, a.seed)),
            "You count pixels with a seed of exactly 1/2 as foreground. Foreground is above 1/2.",
            "Compare with >, not with >=.",
        ),
        Wrong(
            "one limit for both",
            right.instead(_threshold_for_both),
            "You use seed_threshold for the foreground, too. All pixels above 1/2 may join an object, and no other.",
            TWO_LIMITS,
        ),
        Wrong(
            "either limit",
            right.instead(_either_limit),
            "With a threshold below 1/2, background pixels start and join your objects. Only pixels above 1/2 ever do.",
            TWO_LIMITS,
        ),
        Wrong(
            "no 2",
            right.given(sigma=lambda a: a.sigma / 2**0.5),
            "The factor 2 is missing. Divide each square by 2 sigma^2, not by sigma^2.",
            "Write the formula down term by term.",
        ),
        Wrong(
            "sigma exponentiated",
            right.given(sigma=lambda a: a.sigma.exp()),
            "You take the exponential of sigma. Here sigma is given as it is, not as a logarithm.",
            "It is above 0 already.",
        ),
        Wrong(
            "members selected again",
            right.instead(_mean_of_members),
            "You select members a second time, around their mean. The centre is the embedding of the start pixel.",
            "There is one Gaussian per object.",
        ),
    ],
)
