"""Selective search: join the two most alike neighbours again and again, and propose a box for every region met.

Paper: Uijlings, van de Sande, Gevers, Smeulders, "Selective Search for Object Recognition", IJCV 104, 2013.
Idea: An object may be told apart by its colour, its texture, or only by being enclosed, and it may have any size.
    So start from a graph segmentation that is too fine, merge the most similar pair of neighbours until one region
    is left, and take the boxes of all regions on the way. Different colour spaces, similarities and starting scales
    make different mistakes; their boxes together miss little.
Simplified: of the colour spaces HSV and Lab, as in the paper's fast version. Gaussian derivatives are split into 10
    bins between 0 and the largest of the image's channel; the paper does not say which range it splits.
Shapes: image (3, H, W) in [0, 1] -> boxes (N, 4) float32 xyxy. `group`: image and labels -> (2 n - 1, 4) boxes.
Quality: OpenCV's boxes from its regions and pairs of neighbours, without texture. With texture and our pairs 192 in
    common of its 205 and our 201 (astronaut), 109 of 122 and 122 (chelsea), 117 of 121 and 122 (coffee).
    Shapes of 128x128, eight scenes, `FAST`: recall 1.00 at IoU 0.5 of 50 boxes, 379 boxes a scene (OpenCV's fast:
    1.00, 163). 512x512 pixels, one strategy: 0.7 CPU-s.
Course: 02-clustering
Lab: 02_clustering
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.ops.colour import rgb_to_hsv, rgb_to_lab
from segedu.unsupervised.felzenszwalb import felzenszwalb
from segedu.validation.images import check_image

COLOUR_BINS, TEXTURE_BINS, ORIENTATIONS = 25, 10, 8  # the paper's


class Weights(NamedTuple):
    """Of the four similarities of a pair of regions, each from 0 to 1 (equations 2 to 6)."""

    colour: float = 1.0
    texture: float = 1.0
    size: float = 1.0
    fill: float = 1.0


def unit_lab(image: Tensor) -> Tensor:
    """Lab, moved and scaled into [0, 1], where histograms have their bins.

    Args:
        image: (3, H, W) in [0, 1].

    Returns:
        (3, H, W): L / 100, (a + 128) / 255, (b + 128) / 255.
    """
    lab = rgb_to_lab(image)
    return torch.stack([lab[0] / 100, (lab[1] + 128) / 255, (lab[2] + 128) / 255]).clamp(0, 1)


class Strategy(NamedTuple):
    """One run: a colour space (image -> image, in [0, 1]), the scale of the first segmentation, and the weights.

    Its defaults are the paper's single strategy.
    """

    space: Callable[[Tensor], Tensor] = rgb_to_hsv
    scale: float = 100.0
    weights: Weights = Weights()


SINGLE = (Strategy(),)
# The paper's fast version: two colour spaces, with and without colour similarity, two scales.
FAST = tuple(Strategy(*p) for p in product((rgb_to_hsv, unit_lab), (50.0, 100.0), (Weights(), Weights(colour=0.0))))


def selective_search(
    image: Tensor,
    strategies: Sequence[Strategy] = SINGLE,
    sigma: float = 0.8,
    min_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Boxes that may hold objects, the likeliest first.

    Every strategy ranks its regions from the last one made, the whole image, to the first. A rank times a random
    number orders the boxes of all strategies, so that large ones come early, but not only they (section 4.4).

    Args:
        image: (3, H, W) floats in [0, 1].
        strategies: runs whose boxes are put together, such as `SINGLE` or `FAST`.
        sigma: of `felzenszwalb`.
        min_size: of `felzenszwalb`, None for a strategy's scale, as in the authors' program.
        generator: of the random numbers; None leaves them out: the order is by rank, then by strategy.

    Returns:
        (N, 4) float32: x1, y1, x2, y2 with x2 and y2 just outside, no two equal.

    Raises:
        TypeError: `image` is not a tensor of floats.
        ValueError: `image` has another shape or range, there is no strategy, or a weight is negative.
    """
    check_image(image)
    if not strategies:
        raise ValueError("strategies is empty, expected at least one")
    found, order, starts = [], [], {}
    for space, scale, weights in strategies:
        seen = space(image)
        if (space, scale) not in starts:
            least = round(scale) if min_size is None else min_size
            starts[space, scale] = felzenszwalb(seen, scale, sigma, least)
        boxes = group(seen, starts[space, scale], weights).flip(0)
        rank = torch.arange(1, len(boxes) + 1, dtype=torch.float64)
        found.append(boxes)
        order.append(rank if generator is None else rank * torch.rand(len(rank), generator=generator))
    boxes = torch.cat(found)[torch.cat(order).argsort(stable=True)].cpu().numpy()
    _, first = np.unique(boxes, axis=0, return_index=True)
    return torch.from_numpy(boxes[np.sort(first)]).to(image.device)


def group(image: Tensor, labels: Tensor, weights: Weights | Sequence[float] = SINGLE[0].weights) -> Tensor:
    """The paper's algorithm 1: merge the most similar neighbours until no two are left.

    Args:
        image: (3, H, W) floats in [0, 1], in the colour space of the strategy.
        labels: (H, W) integers; pixels of one number are one region, whatever the number is.
        weights: of the similarities. Of equal pairs that of the older regions goes first.

    Returns:
        (2 n - 1, 4) float32 boxes xyxy: of the n regions given, in the order of their numbers, then of those made.

    Raises:
        TypeError: `image` is not a tensor of floats, or `labels` not one of integers.
        ValueError: `image` has another shape or range, `labels` another shape, or a weight is negative.

    >>> image = torch.tensor([[0.0, 0.5, 0.5]]).expand(3, 1, 3)
    >>> group(image, torch.tensor([[1, 2, 3]]))[3:]  # the two greys, then all
    tensor([[1., 0., 3., 1.],
            [0., 0., 3., 1.]])
    """
    check_image(image)
    _check_labels(labels, image)
    weights = Weights(*weights)
    if not min(weights) >= 0:
        raise ValueError(f"weights is {tuple(weights)}, expected numbers of at least 0")
    numbers, region = np.unique(labels.numpy(force=True), return_inverse=True)
    region = region.reshape(labels.shape)
    regions = _Regions(image.double().numpy(force=True), region, len(numbers), weights)
    near: list[set[int]] = [set() for _ in numbers]
    pairs = _touching(region)
    for one, other in pairs.tolist():
        near[one].add(other)
        near[other].add(one)
    alike = regions.similarity(pairs[:, 0], pairs[:, 1])
    heap = [(-s, one, other) for s, (one, other) in zip(alike.tolist(), pairs.tolist(), strict=True)]
    heapq.heapify(heap)
    alive = [True] * len(numbers)
    while heap:
        _, one, other = heapq.heappop(heap)
        if not (alive[one] and alive[other]):  # merged since
            continue
        made = regions.merge(one, other)
        alive[one] = alive[other] = False
        alive.append(True)
        near.append({n for n in near[one] | near[other] if alive[n]})
        neighbours = sorted(near[made])
        for neighbour, s in zip(neighbours, regions.similarity(np.array(neighbours, dtype=int), made), strict=True):
            near[neighbour].add(made)
            heapq.heappush(heap, (-float(s), neighbour, made))
    return torch.from_numpy(regions.boxes[: regions.count].astype(np.float32)).to(image.device)


class _Regions:
    """Histograms, sizes and boxes of all regions, with room for those that merging will make."""

    def __init__(self, image: np.ndarray, region: np.ndarray, count: int, weights: Weights) -> None:
        room = 2 * count - 1
        self.count, self.weights, self.pixels = count, weights, region.size
        self.sizes, self.boxes = np.zeros(room), np.zeros((room, 4))
        self.sizes[:count] = np.bincount(region.ravel())
        for i, (rows, columns) in enumerate(ndimage.find_objects(region + 1)):
            self.boxes[i] = columns.start, rows.start, columns.stop, rows.stop
        # A histogram counts for nothing where its weight is 0: it is left empty.
        colour = colour_histograms(image, region) if weights.colour else np.zeros((count, 0))
        texture = texture_histograms(image, region) if weights.texture else np.zeros((count, 0))
        self.split = colour.shape[1]
        self.histograms = np.zeros((room, self.split + texture.shape[1]))
        self.histograms[:count] = np.hstack([colour, texture])

    def similarity(self, one: np.ndarray, other: np.ndarray | int) -> np.ndarray:
        """Equations 2, 4, 5 and 6, for pairs of regions."""
        common = np.minimum(self.histograms[one], self.histograms[other])
        size = self.sizes[one] + self.sizes[other]
        low = np.minimum(self.boxes[one], self.boxes[other])[..., :2]
        high = np.maximum(self.boxes[one], self.boxes[other])[..., 2:]
        gap = (high - low).prod(axis=-1) - size
        w = self.weights
        histograms = w.colour * common[..., : self.split].sum(axis=-1) + w.texture * common[..., self.split :].sum(-1)
        return histograms + w.size * (1 - size / self.pixels) + w.fill * (1 - gap / self.pixels)

    def merge(self, one: int, other: int) -> int:
        """Equation 3 and its like: what a merged region has follows from its parts, without a look at pixels."""
        made, pair = self.count, [one, other]
        self.count += 1
        self.sizes[made] = self.sizes[pair].sum()
        self.histograms[made] = self.sizes[pair] @ self.histograms[pair] / self.sizes[made]
        self.boxes[made, :2] = self.boxes[pair, :2].min(axis=0)
        self.boxes[made, 2:] = self.boxes[pair, 2:].max(axis=0)
        return made


def colour_histograms(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """25 bins a channel, all channels of a region together of sum 1.

    Args:
        image: (C, H, W) in [0, 1].
        region: (H, W) numbers from 0 to n - 1.

    Returns:
        (n, C * 25).
    """
    return _histograms([channel * COLOUR_BINS for channel in image], COLOUR_BINS, region)


def texture_histograms(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """10 bins for the Gaussian derivative (sigma 1) of each channel in each of 8 directions, where it rises.

    Args:
        image: (C, H, W).
        region: (H, W) numbers from 0 to n - 1.

    Returns:
        (n, C * 8 * 10), rows of sum 1.
    """
    values = []
    for channel in image:
        down, right = (ndimage.gaussian_filter(channel, 1.0, order) for order in ((1, 0), (0, 1)))
        scale = TEXTURE_BINS / max(np.hypot(down, right).max(), 1e-12)
        for angle in np.arange(ORIENTATIONS) * 2 * np.pi / ORIENTATIONS:
            values.append(scale * np.maximum(np.cos(angle) * right + np.sin(angle) * down, 0))
    return _histograms(values, TEXTURE_BINS, region)


def _histograms(values: Sequence[np.ndarray], bins: int, region: np.ndarray) -> np.ndarray:
    """Of values in units of bins; the last bin has its upper end."""
    count = region.max() + 1
    start = region.ravel() * bins
    each = []
    for value in values:
        places = start + np.minimum(value.ravel().astype(int), bins - 1)
        each.append(np.bincount(places, minlength=count * bins).reshape(count, bins))
    histograms = np.hstack(each)
    return histograms / histograms.sum(axis=1, keepdims=True)


def _touching(region: np.ndarray) -> np.ndarray:
    """(P, 2) pairs of regions with pixels next to each other, also at corners; the smaller number first."""
    count = region.max() + 1
    sides = ((region[:, :-1], region[:, 1:]), (region[:-1], region[1:]))
    corners = ((region[:-1, :-1], region[1:, 1:]), (region[1:, :-1], region[:-1, 1:]))
    codes = [np.minimum(a, b).ravel() * count + np.maximum(a, b).ravel() for a, b in (*sides, *corners)]
    pairs = np.stack(np.divmod(np.unique(np.concatenate(codes)), count), axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _check_labels(labels: Tensor, image: Tensor) -> None:
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels has type {type(labels).__name__}, expected a torch.Tensor of shape (H, W)")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels has dtype {labels.dtype}, expected integers")
    if labels.shape != image.shape[1:]:
        raise ValueError(f"labels has shape {tuple(labels.shape)}, expected {tuple(image.shape[1:])} as image has")
