"""Selective search: merge the two most similar neighbouring regions repeatedly, and propose a box for every region.

Paper: Uijlings, van de Sande, Gevers, Smeulders, "Selective Search for Object Recognition", IJCV 104, 2013.
Idea: An object may differ from its surroundings by its colour, its texture, or only by being enclosed, and it may have
    any size. Selective search starts from an over-segmentation, merges the most similar pair of neighbours until one
    region remains, and collects the boxes of all regions on the way. Different colour spaces, similarities and initial
    scales make different errors; together, their boxes miss few objects.
Simplified: of the colour spaces HSV and Lab, as in the paper's fast version. Gaussian derivatives are divided into 10
    bins between 0 and the largest of the image's channel; the paper does not give the range.
Shapes: image (3, H, W) in [0, 1] -> boxes (N, 4) float32 xyxy. `group`: image and labels -> (2 n - 1, 4) boxes.
Quality: OpenCV's boxes from its regions and pairs of neighbours, without texture. With texture and our pairs 192 in
    common of its 205 and our 201 (astronaut), 109 of 122 and 122 (chelsea), 117 of 121 and 122 (coffee).
    Shapes of 128x128, eight scenes, `FAST`: recall 1.00 at IoU 0.5 of 50 boxes, 379 boxes per scene (OpenCV's fast:
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
from segedu.validation.tensors import check_integers_tensor

COLOUR_BINS, TEXTURE_BINS, ORIENTATIONS = 25, 10, 8  # the paper's


class Weights(NamedTuple):
    """Weights of the four similarities of a pair of regions, each from 0 to 1 (equations 2 to 6)."""

    colour: float = 1.0
    texture: float = 1.0
    size: float = 1.0
    fill: float = 1.0


def unit_lab(image: Tensor) -> Tensor:
    """Convert an image (3, H, W) in [0, 1] to Lab in [0, 1]: L / 100, (a + 128) / 255, (b + 128) / 255."""
    lab = rgb_to_lab(image)
    return torch.stack([lab[0] / 100, (lab[1] + 128) / 255, (lab[2] + 128) / 255]).clamp(0, 1)


class Strategy(NamedTuple):
    """One run: a colour space (image -> image, in [0, 1]), the scale of the initial segmentation, and the weights.

    The defaults are the paper's single strategy.
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
    """Propose boxes that may contain objects, the most promising first.

    Every strategy ranks its regions from the last one merged, the whole image, to the first. The ranks times random
    numbers order the boxes of all strategies, so that large boxes come early, but not exclusively (section 4.4).

    Args:
        image: (3, H, W) floats in [0, 1].
        strategies: runs whose boxes are combined, such as `SINGLE` or `FAST`.
        sigma: of `felzenszwalb`.
        min_size: of `felzenszwalb`, None for a strategy's scale, as in the authors' program.
        generator: of the random numbers; None orders by rank, then by strategy, without random numbers.

    Returns:
        (N, 4) float32: x1, y1, x2, y2 with x2 and y2 just outside, without duplicates.
    """
    check_image(image)
    if not strategies:
        raise ValueError("strategies is empty, expected at least one")
    all_boxes, priorities, segmentations = [], [], {}
    for space, scale, weights in strategies:
        converted = space(image)
        if (space, scale) not in segmentations:
            smallest = round(scale) if min_size is None else min_size
            segmentations[space, scale] = felzenszwalb(converted, scale, sigma, smallest)
        boxes = group(converted, segmentations[space, scale], weights).flip(0)
        rank = torch.arange(1, len(boxes) + 1, dtype=torch.float64)
        all_boxes.append(boxes)
        priorities.append(rank if generator is None else rank * torch.rand(len(rank), generator=generator))
    boxes = torch.cat(all_boxes)[torch.cat(priorities).argsort(stable=True)].cpu().numpy()
    _, first = np.unique(boxes, axis=0, return_index=True)
    return torch.from_numpy(boxes[np.sort(first)]).to(image.device)


def group(image: Tensor, labels: Tensor, weights: Weights | Sequence[float] = SINGLE[0].weights) -> Tensor:
    """The paper's algorithm 1: merge the most similar neighbours until none are left.

    Args:
        image: (3, H, W) floats in [0, 1], in the colour space of the strategy.
        labels: (H, W) integers; the pixels of one label are one region.
        weights: of the similarities. Ties are resolved in favour of the older regions.

    Returns:
        (2 n - 1, 4) float32 boxes xyxy: of the n initial regions in the order of their labels, then of merged regions.

    >>> image = torch.tensor([[0.0, 0.5, 0.5]]).expand(3, 1, 3)
    >>> group(image, torch.tensor([[1, 2, 3]]))[3:]  # the two greys, then all
    tensor([[1., 0., 3., 1.],
            [0., 0., 3., 1.]])
    """
    check_image(image)
    check_integers_tensor("labels", labels, "H W", {"H": image.shape[1], "W": image.shape[2]})
    weights = Weights(*weights)
    if not min(weights) >= 0:
        raise ValueError(f"weights is {tuple(weights)}, expected numbers of at least 0")
    unique_labels, region = np.unique(labels.numpy(force=True), return_inverse=True)
    region = region.reshape(labels.shape)
    regions = _Regions(image.double().numpy(force=True), region, len(unique_labels), weights)
    neighbours: list[set[int]] = [set() for _ in unique_labels]
    pairs = _touching(region)
    for one, other in pairs.tolist():
        neighbours[one].add(other)
        neighbours[other].add(one)
    similarities = regions.similarity(pairs[:, 0], pairs[:, 1])
    heap = [(-s, one, other) for s, (one, other) in zip(similarities.tolist(), pairs.tolist(), strict=True)]
    heapq.heapify(heap)
    alive = [True] * len(unique_labels)
    while heap:
        _, one, other = heapq.heappop(heap)
        if not (alive[one] and alive[other]):  # one of them has been merged
            continue
        merged = regions.merge(one, other)
        alive[one] = alive[other] = False
        alive.append(True)
        neighbours.append({n for n in neighbours[one] | neighbours[other] if alive[n]})
        adjacent = sorted(neighbours[merged])
        for neighbour, s in zip(adjacent, regions.similarity(np.array(adjacent, dtype=int), merged), strict=True):
            neighbours[neighbour].add(merged)
            heapq.heappush(heap, (-float(s), neighbour, merged))
    return torch.from_numpy(regions.boxes[: regions.count].astype(np.float32)).to(image.device)


class _Regions:
    """Histograms, sizes and boxes of all regions, with space for those that merging creates."""

    def __init__(self, image: np.ndarray, region: np.ndarray, count: int, weights: Weights) -> None:
        capacity = 2 * count - 1
        self.count, self.weights, self.pixels = count, weights, region.size
        self.sizes, self.boxes = np.zeros(capacity), np.zeros((capacity, 4))
        self.sizes[:count] = np.bincount(region.ravel())
        for i, (rows, columns) in enumerate(ndimage.find_objects(region + 1)):
            self.boxes[i] = columns.start, rows.start, columns.stop, rows.stop
        # A histogram of weight 0 is not needed and stays empty.
        colour = colour_histograms(image, region) if weights.colour else np.zeros((count, 0))
        texture = texture_histograms(image, region) if weights.texture else np.zeros((count, 0))
        self.split = colour.shape[1]
        self.histograms = np.zeros((capacity, self.split + texture.shape[1]))
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
        """Equation 3: the histogram, size and box of a merged region follow from those of its parts."""
        merged, pair = self.count, [one, other]
        self.count += 1
        self.sizes[merged] = self.sizes[pair].sum()
        self.histograms[merged] = self.sizes[pair] @ self.histograms[pair] / self.sizes[merged]
        self.boxes[merged, :2] = self.boxes[pair, :2].min(axis=0)
        self.boxes[merged, 2:] = self.boxes[pair, 2:].max(axis=0)
        return merged


def colour_histograms(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Histograms of 25 bins per channel; the sum over all channels of a region is 1.

    Args:
        image: (C, H, W) in [0, 1].
        region: (H, W), indices from 0 to n - 1.

    Returns:
        (n, C * 25).
    """
    return _histograms([channel * COLOUR_BINS for channel in image], COLOUR_BINS, region)


def texture_histograms(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Histograms of 10 bins for the positive part of the Gaussian derivative (sigma 1) of each channel in 8 directions.

    Args:
        image: (C, H, W).
        region: (H, W), indices from 0 to n - 1.

    Returns:
        (n, C * 8 * 10), rows with a sum of 1.
    """
    values = []
    for channel in image:
        down, right = (ndimage.gaussian_filter(channel, 1.0, order) for order in ((1, 0), (0, 1)))
        scale = TEXTURE_BINS / max(np.hypot(down, right).max(), 1e-12)
        for angle in np.arange(ORIENTATIONS) * 2 * np.pi / ORIENTATIONS:
            values.append(scale * np.maximum(np.cos(angle) * right + np.sin(angle) * down, 0))
    return _histograms(values, TEXTURE_BINS, region)


def _histograms(values: Sequence[np.ndarray], bins: int, region: np.ndarray) -> np.ndarray:
    """Histograms of values in units of bins; the last bin includes its upper end."""
    count = region.max() + 1
    start = region.ravel() * bins
    channels = []
    for value in values:
        codes = start + np.minimum(value.ravel().astype(int), bins - 1)
        channels.append(np.bincount(codes, minlength=count * bins).reshape(count, bins))
    histograms = np.hstack(channels)
    return histograms / histograms.sum(axis=1, keepdims=True)


def _touching(region: np.ndarray) -> np.ndarray:
    """(P, 2) pairs of regions with adjacent pixels, also diagonally; the smaller index first."""
    count = region.max() + 1
    sides = ((region[:, :-1], region[:, 1:]), (region[:-1], region[1:]))
    corners = ((region[:-1, :-1], region[1:, 1:]), (region[1:, :-1], region[:-1, 1:]))
    codes = [np.minimum(a, b).ravel() * count + np.maximum(a, b).ravel() for a, b in (*sides, *corners)]
    pairs = np.stack(np.divmod(np.unique(np.concatenate(codes)), count), axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]
