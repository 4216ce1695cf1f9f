"""greedy_cluster: cut objects out of the embeddings, best seed first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.exercises.lab10_embeddings.scene import Scene, pixels_of


def greedy_cluster(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """Cut objects out one by one, each around the best seed that is left.

    Foreground are the pixels with a seed above 1/2; no other pixel ever joins an object. All of them are free at
    first. Then, again and again:

    1. Start from the free pixel with the highest seed, of equal ones the first in reading order. Only pixels with a
       seed above `seed_threshold` may start. If none is left, stop.
    2. Its members are all free pixels whose embedding lies in the Gaussian around the *embedding* of the start:
       exp(-(dy^2 / (2 sigma_y^2) + dx^2 / (2 sigma_x^2))) > 1/2, with the sigmas of the start.
    3. With `min_pixels` members or more they become the next object: 1, 2, ... They are free no longer.
       With fewer, no object arises and no number is used up: its members stay free, so that a later object may take
       them, but none of them may start any more.

    Args:
        embeddings: (2, H, W) floats: where each pixel points, y before x, in any unit.
        sigma: (2, H, W) floats above 0: sigma_y and sigma_x of each pixel, in the same unit.
        seed: (H, W) floats in [0, 1].
        seed_threshold: in [0, 1].
        min_pixels: at least 1.

    Returns:
        (H, W) integers: 0 for background, 1 for the first object, and so on.

    Example: the last pixel has the best seed; the third points to the same place as it.

        >>> places = torch.tensor([[[0.0, 0.0, 0.0, 0.0]], [[1.0, 1.5, 6.0, 6.0]]])
        >>> greedy_cluster(places, torch.ones(2, 1, 4), torch.tensor([[0.8, 0.7, 0.6, 0.9]]), 0.75, 1)
        tensor([[2, 2, 1, 1]], dtype=torch.int32)
    """
    places, widths, scores = embeddings.flatten(1), sigma.flatten(1), seed.flatten()
    labels = torch.zeros(len(scores), dtype=torch.int32)
    free, may_start = scores > 0.5, scores > seed_threshold
    for start in scores.argsort(descending=True, stable=True):
        if free[start] and may_start[start]:
            away = (places - places[:, start, None]) / widths[:, start, None]
            members = free & ((-(away**2).sum(0) / 2).exp() > 0.5)
            may_start &= ~members
            if members.sum() >= min_pixels:
                labels[members] = labels.max() + 1
                free &= ~members
    return labels.reshape(seed.shape)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Cells of several sizes or that want the same pixels, crumbs, misses; ties, limits met exactly, nothing to find.

    Args:
        rng: of embeddings, sigmas, seeds and their places.

    Returns:
        The cases by group.
    """
    scene = Scene(rng, (13, 19))
    scene.cell((1, 7), (1, 9), best=0.83, sigma=(1.1, 1.5))  # first in reading order and largest, not best
    scene.cell((9, 12), (2, 7), best=0.94, sigma=(0.9, 1.2))
    scene.cell((2, 9), (12, 17), best=0.89, sigma=(1.7, 0.8))
    scene.cell((10, 12), (12, 16), best=0.74, sigma=(1.0, 1.0))  # foreground, but no seed above 0.8
    scene.astray()
    crowd = Scene(rng, (10, 18))
    one, other = crowd.cell((1, 8), (1, 7), 0.86, (1.4, 2.0)), crowd.cell((2, 9), (11, 17), 0.93, (1.2, 1.0))
    crowd.point((4, 8), torch.stack([one, other]).mean(0), 0.7)  # in neither
    crowd.point((1, 9), one)  # far away on the image, but of the first
    third = crowd.cell((0, 1), (3, 12), 0.81, (1.0, 3.0), at=other + torch.tensor([0, -3.2]))
    for x in (1, 2):
        crowd.point((8, x), (other + third) / 2 + torch.tensor([0.1 * x, 0.55]))  # both want these
    crumbs = Scene(rng, (11, 16))
    large = crumbs.cell((1, 7), (6, 13), 0.87, (1.6, 1.9))
    for x, best in ((1, 0.98), (3, 0.85)):  # tiny, before and after the cell that has their place
        crumbs.cell((2, 4), (x, x + 1), best, (0.05, 0.05), at=large + torch.tensor([0.3, 0.4 * x - 1]), spread=0.01)
    crumbs.cell((8, 10), (1, 3), 0.95, (1, 1))  # 4 pixels: just enough
    lost = crumbs.cell((9, 10), (8, 11), 0.97, (1, 1))  # 3: not enough
    crumbs.seed[9, 9], crumbs.sigma[:, 9, 9] = 0.9, 3.0  # this one of them would gather more
    for x in (12, 14):
        crumbs.point((9, x), lost + torch.tensor([0.1 * x, 2.0]))
    rough = Scene(rng, (10, 20))  # one start each; how far it reaches is what counts
    rough.cell_that_misses((1, 9), (1, 9), 0.87, (2.0, 0.7))
    rough.cell_that_misses((1, 9), (11, 19), 0.86, (0.6, 1.9))
    return {
        "core": (
            3,
            [
                {"name": "cells of several sizes", "args": scene.arguments(0.8, 1)},
                {"name": "cells that want the same pixels", "args": crowd.arguments(0.75, 1)},
                {"name": "crumbs, and 4 pixels at least", "args": crumbs.arguments(0.8, 4)},
                {"name": "arrows that miss", "args": rough.arguments(0.855, 1)},
            ],
        ),
        "edge": (1, _edge_cases(rng)),
    }


def _edge_cases(rng: np.random.Generator) -> list[Case]:
    ties = Scene(rng, (6, 15))
    left, right = ties.cell((1, 5), (1, 5), 0.875, (1.1, 1.6)), ties.cell((0, 4), (9, 13), 0.875, (1.3, 1.8))
    shift = torch.tensor([0.0, 2.5]) + left - right  # they reach into each other, none to the other's middle
    ties.embeddings[:, :4, 9:13] += shift[:, None, None]
    for x in range(0, 15, 2):  # and objects of one pixel each: a sort that is not stable mixes them up
        ties.point((5, x), torch.tensor([50.0, 10 * x]), 0.875)
    limits = Scene(rng, (5, 12))
    limits.cell((0, 4), (1, 5), 0.75, (1, 1))  # its best seed is the limit, which is not above it
    limits.cell((1, 4), (7, 11), 0.8125, (1, 1))
    limits.seed[1, 8] = limits.seed[0, 2] = 0.5  # just background
    low = Scene(rng, (4, 9))
    low.cell((0, 3), (1, 4), 0.71, (1, 1))
    low.seed[:, 6:] = 0.45  # above the limit, but background
    for x in range(3):  # three crumbs, which a start in the background would gather
        low.point((3, x + 2), torch.tensor([2, 14 + 0.4 * x]), 0.6 - 0.01 * x)
        low.sigma[:, 3, x + 2] = 0.1
    low.point((0, 7), torch.tensor([2, 14.4]), 0.45)
    weak = Scene(rng, (5, 7))
    weak.cell((1, 4), (1, 5), 0.8, (1, 1))
    row = Scene(rng, (1, 14))
    row.cell((0, 1), (1, 5), 0.7, (0.5, 1.4))
    row.cell((0, 1), (7, 13), 0.9, (0.4, 2.1))
    return [
        {"name": "equal seeds", "args": ties.arguments(0.7, 1)},
        {"name": "seeds exactly at the limits", "args": limits.arguments(0.75, 3)},
        {"name": "a low limit", "args": low.arguments(0.25, 3)},
        {"name": "no seed above the limit", "args": weak.arguments(0.9, 1)},
        {"name": "no foreground", "args": Scene(rng, (4, 6)).arguments(0.8, 1)},
        {"name": "one row", "args": row.arguments(0.6, 3)},
        {"name": "no object is large enough", "args": row.arguments(0.6, 7)},
    ]


def all_may_start(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """The threshold of seeds is ignored."""
    return greedy_cluster(embeddings, sigma, seed, 0.0, min_pixels)


def only_seeds_join(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """What may not start may not join either."""
    return greedy_cluster(embeddings, sigma, torch.where(seed > seed_threshold, seed, 0.0), seed_threshold, min_pixels)


def background_joins(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """All pixels are free at first."""
    return greedy_cluster(embeddings, sigma, 0.5 + seed / 2, 0.5 + seed_threshold / 2, min_pixels)


def any_size(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """min_pixels is ignored."""
    return greedy_cluster(embeddings, sigma, seed, seed_threshold, 1)


def where_pixels_are(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """Places of pixels for embeddings."""
    return greedy_cluster(pixels_of(tuple(seed.shape)), sigma, seed, seed_threshold, min_pixels)


Maps = tuple[Tensor, Tensor, Tensor]  # embeddings (2, P), sigma (2, P), seed (P,)


def _best(maps: Maps, may: Tensor, joins: Callable) -> Tensor:
    return (maps[2] * may).argmax()


def _first(maps: Maps, may: Tensor, joins: Callable) -> Tensor:
    return may.int().argmax()


def _last_of_the_best(maps: Maps, may: Tensor, joins: Callable) -> Tensor:
    return len(may) - 1 - (maps[2] * may).flip(0).argmax()


def _most_members(maps: Maps, may: Tensor, joins: Callable) -> Tensor:
    return max(may.nonzero()[:, 0], key=lambda start: int(joins(start).sum()))


def _around(maps: Maps, start: Tensor) -> Tensor:
    return _within(maps[0], maps[0][:, start], maps[1][:, start])


def _own_sigma(maps: Maps, start: Tensor) -> Tensor:
    return _within(maps[0], maps[0][:, start], maps[1])


def _within(places: Tensor, centre: Tensor, sigma: Tensor) -> Tensor:
    away = (places - centre[:, None]) / sigma.reshape(2, -1)
    return (-(away**2).sum(0) / 2).exp() > 0.5


class _Cut:
    """The same algorithm in pieces, for the mistakes in how it goes on: whoever reads clusters marks what is taken."""

    def __init__(self, embeddings: Tensor, sigma: Tensor, seed: Tensor) -> None:
        self.maps = (embeddings.flatten(1), sigma.flatten(1), seed.flatten())
        self.free = self.maps[2] > 0.5
        self.labels = torch.zeros(seed.numel(), dtype=torch.int32)
        self.shape = seed.shape

    def clusters(self, seed_threshold: float, pick: Callable = _best, around: Callable = _around) -> Iterator[Tensor]:
        may_start = self.maps[2] > seed_threshold
        while (self.free & may_start).any():
            start = pick(self.maps, self.free & may_start, lambda i: self.free & around(self.maps, i))
            members = self.free & around(self.maps, start)
            may_start &= ~members
            may_start[start] = False
            yield members

    def take(self, members: Tensor, number: int) -> None:
        self.labels[members] = number
        self.free &= ~members

    def all(self, seed_threshold: float, min_pixels: int, **habits: Callable) -> Tensor:
        for members in self.clusters(seed_threshold, **habits):
            if members.sum() >= min_pixels:
                self.take(members, int(self.labels.max()) + 1)
        return self.labels.reshape(self.shape)


def reading_order(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """Any seed above the threshold, as they come."""
    return _Cut(embeddings, sigma, seed).all(seed_threshold, min_pixels, pick=_first)


def last_of_equal(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """Of equal seeds the last, as a sort that is turned round has it."""
    return _Cut(embeddings, sigma, seed).all(seed_threshold, min_pixels, pick=_last_of_the_best)


def largest_first(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """The start that gathers most pixels."""
    return _Cut(embeddings, sigma, seed).all(seed_threshold, min_pixels, pick=_most_members)


def sigma_of_each(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """Each pixel judges by its own sigma whether it belongs to the start."""
    return _Cut(embeddings, sigma, seed).all(seed_threshold, min_pixels, around=_own_sigma)


def around_its_own(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """Around the pixel of the start, not around where it points."""
    pixels = pixels_of(tuple(seed.shape)).flatten(1)

    def around(maps: Maps, start: Tensor) -> Tensor:
        return _within(maps[0], pixels[:, start], maps[1][:, start])

    return _Cut(embeddings, sigma, seed).all(seed_threshold, min_pixels, around=around)


def taken_again(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """No pixel is marked as used: a later object takes those of an earlier one."""
    cut, count = _Cut(embeddings, sigma, seed), 0
    for members in cut.clusters(seed_threshold):
        if members.sum() >= min_pixels:
            count += 1
            cut.labels[members] = count
    return cut.labels.reshape(seed.shape)


def crumbs_lost(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """Members of what is too small are used up."""
    cut = _Cut(embeddings, sigma, seed)
    for members in cut.clusters(seed_threshold):
        cut.take(members, int(cut.labels.max()) + 1 if members.sum() >= min_pixels else 0)
    return cut.labels.reshape(seed.shape)


def numbers_used_up(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """What is too small has a number too."""
    cut = _Cut(embeddings, sigma, seed)
    for number, members in enumerate(cut.clusters(seed_threshold), start=1):
        if members.sum() >= min_pixels:
            cut.take(members, number)
    return cut.labels.reshape(seed.shape)


def start_again(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """Members of what is too small start clusters themselves."""
    cut = _Cut(embeddings, sigma, seed)
    for start in cut.maps[2].argsort(descending=True, stable=True):
        members = cut.free & _around(cut.maps, start)
        if cut.free[start] and cut.maps[2][start] > seed_threshold and members.sum() >= min_pixels:
            cut.take(members, int(cut.labels.max()) + 1)
    return cut.labels.reshape(seed.shape)


def stops_at_a_crumb(embeddings: Tensor, sigma: Tensor, seed: Tensor, seed_threshold: float, min_pixels: int) -> Tensor:
    """The first cluster that is too small ends it."""
    cut = _Cut(embeddings, sigma, seed)
    for members in cut.clusters(seed_threshold):
        if members.sum() < min_pixels:
            break
        cut.take(members, int(cut.labels.max()) + 1)
    return cut.labels.reshape(seed.shape)


TWO_LIMITS = "There are two limits: above 1/2 a pixel may join, above seed_threshold it may also start."
STEP_3 = "Read step 3 of the statement again: what happens to the members, to the number, to the loop?"

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
            taken_again,
            "A later object takes pixels of an earlier one: what belongs to an object is free no longer.",
            "Members are free pixels: both conditions, joined by &.",
        ),
        Wrong(
            "seed threshold ignored",
            all_may_start,
            "Objects start from seeds that are too low: only those above seed_threshold may start one.",
            TWO_LIMITS,
        ),
        Wrong(
            "only seeds join",
            only_seeds_join,
            "Only pixels above seed_threshold join your objects: all foreground pixels, above 1/2, may.",
            TWO_LIMITS,
        ),
        Wrong(
            "background joins",
            background_joins,
            "Background joins your objects: pixels with a seed of 1/2 or less never do, wherever they point.",
            TWO_LIMITS,
        ),
        Wrong(
            "in reading order",
            reading_order,
            "You start from the seeds in reading order: start from the highest that is left.",
            "The surest pixels should decide first.",
        ),
        Wrong(
            "by area",
            largest_first,
            "You cut the largest object out first: the one with the highest seed comes first.",
            "What decides is the value of the seed, not how many pixels it gathers.",
        ),
        Wrong(
            "last of equal seeds",
            last_of_equal,
            "Of equal seeds you start from the last: start from the first in reading order.",
            "argmax gives the first of equal values; a list that was sorted upwards and reversed gives the last.",
        ),
        Wrong("min_pixels ignored", any_size, "You keep objects with fewer than min_pixels members.", STEP_3),
        Wrong(
            "small ones use up their pixels",
            crumbs_lost,
            "Pixels of a cluster that was too small are lost: they stay free, and a later object may take them.",
            STEP_3,
        ),
        Wrong(
            "small ones start again",
            start_again,
            "Pixels of a cluster that was too small start one themselves: they stay free, but may not start any more.",
            STEP_3,
        ),
        Wrong("numbers with gaps", numbers_used_up, "Your numbers have gaps: what is too small gets none.", STEP_3),
        Wrong(
            "stops at a small one",
            stops_at_a_crumb,
            "You stop at the first cluster that is too small: lower seeds may still start large objects.",
            STEP_3,
        ),
        Wrong(
            "sigma of each pixel",
            sigma_of_each,
            "Each pixel is judged by its own sigma: take the sigmas of the start for all of them.",
            "There is one Gaussian an object, and the start says how wide it is.",
        ),
        Wrong(
            "pixels, not embeddings",
            where_pixels_are,
            "You measure between pixels: measure between the places that they point at, the embeddings.",
            "Pixels of one object lie far apart, but their embeddings lie together.",
        ),
        Wrong(
            "around the start's own place",
            around_its_own,
            "Your Gaussian stands where the start is: it belongs where the start points, at its embedding.",
            "Column `start` of the embeddings is the centre.",
        ),
    ],
)
