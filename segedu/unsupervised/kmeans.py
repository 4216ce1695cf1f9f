"""k-means: every pixel joins the nearest of k centres, every centre moves to the mean of its pixels, until all rest.

Paper: Lloyd, "Least Squares Quantization in PCM", IEEE Transactions on Information Theory 1982 (written in 1957).
    First centres: Arthur, Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007.
Idea: A pixel is a point, of its colour and perhaps its place; clusters of points are segments. Both steps lower the
    sum of squared distances (the inertia), so that the steps end, in a minimum near the first centres. k-means++
    draws the first centres far from each other: each with probability proportional to the squared distance to the
    nearest of those drawn before.
Simplified: an empty cluster keeps its centre (scikit-learn moves it to the point that is furthest from its own).
Shapes: points (N, D), centres (k, D) -> labels (N,) int64, centres (k, D), inertia. Image (3, H, W) -> points
    (H * W, 5) by `colour_position_features`.
Quality: inertia as scikit-learn's to 1e-9 (its tests); 512x512 photograph, k = 8, 50 steps: 1.2 CPU-s.
Course: 02-clustering
Lab: 02_clustering
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 2**20  # distances in memory at a time


class KMeans(NamedTuple):
    """The result of `kmeans`: labels (N,) int64, centres (k, D), and the inertia, a float."""

    labels: Tensor
    centres: Tensor
    inertia: float


def kmeans_plus_plus(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draw k of the points as first centres (Arthur and Vassilvitskii, section 2.2).

    If there are fewer than k distinct points, the centres left over repeat points: uniformly drawn, once all
    distances are 0.

    Args:
        points: (N, D), float32 or float64.
        k: number of centres.
        generator: of random numbers; the same one gives the same centres.

    Returns:
        Centres (k, D), dtype of `points`.

    Raises:
        TypeError: `points` is not a float32 or float64 tensor, or `generator` is no generator.
        ValueError: `points` is not (N, D) with N and D of at least 1 or is not finite, or `k` is below 1.
    """
    _check_points("points", points)
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ValueError(f"k is {k!r}, expected a whole number of at least 1")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator has type {type(generator).__name__}, expected a torch.Generator")
    square = torch.ones(len(points), dtype=torch.float64)  # the first one: uniform
    drawn = []
    for _ in range(k):
        weight = square if square.any() else torch.ones_like(square)
        sums = weight.cumsum(0)
        place = torch.rand(1, generator=generator, dtype=torch.float64, device=generator.device).cpu() * sums[-1]
        drawn.append(points[int(torch.searchsorted(sums, place, right=True).clamp(max=len(points) - 1))])
        distance = (points - drawn[-1]).double().square().sum(dim=1).cpu()
        square = distance if len(drawn) == 1 else square.minimum(distance)
    return torch.stack(drawn)


def kmeans_step(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """One step of Lloyd: assign every point to its nearest centre, then move every centre to the mean of its points.

    Args:
        points: (N, D), float32 or float64.
        centres: (k, D), same dtype.

    Returns:
        Labels (N,) int64 by the centres given, the first of equally near ones; and the new centres (k, D), where
        one without points stays where it was.

    Raises:
        TypeError: `points` or `centres` is not a float32 or float64 tensor, or their dtypes differ.
        ValueError: `points` is not (N, D), `centres` not (k, D), one is empty or not finite.

    >>> kmeans_step(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.0], [4.0], [9.0]]))
    (tensor([0, 0, 1]), tensor([[0.5000],
            [5.0000],
            [9.0000]]))
    """
    _check(points, centres)
    labels = _nearest(points, centres)
    return labels, _means(points, labels, centres)


def kmeans(points: Tensor, centres: Tensor, steps: int = 50) -> KMeans:
    """Repeat `kmeans_step` until no label changes, at most `steps` times.

    Args:
        points: (N, D), float32 or float64.
        centres: (k, D), the first centres, of `kmeans_plus_plus` or by hand; same dtype.
        steps: at most so many; 0 only assigns.

    Returns:
        Labels that belong to the centres returned, the centres, and the inertia, the sum over all points of the
        squared distance to their centre.

    Raises:
        TypeError: as `kmeans_step`.
        ValueError: as `kmeans_step`, or `steps` is negative.

    >>> kmeans(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.0], [1.0]]))
    KMeans(labels=tensor([0, 0, 1]), centres=tensor([[0.5000],
            [5.0000]]), inertia=0.5)
    """
    _check(points, centres)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
        raise ValueError(f"steps is {steps!r}, expected a whole number of at least 0")
    labels = _nearest(points, centres)
    for _ in range(steps):
        centres = _means(points, labels, centres)
        before, labels = labels, _nearest(points, centres)
        if torch.equal(before, labels):
            break
    parts = zip(points.split(CHUNK), labels.split(CHUNK), strict=True)
    inertia = sum(float((part - centres[label]).double().square().sum()) for part, label in parts)
    return KMeans(labels, centres, inertia)


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    # The differences themselves, not |p|^2 - 2 p c + |c|^2, which loses the digits of near ties.
    exact = "donot_use_mm_for_euclid_dist"
    parts = points.split(max(1, CHUNK // len(centres)))
    return torch.cat([torch.cdist(part, centres, compute_mode=exact).argmin(dim=1) for part in parts])


def _means(points: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    counts = torch.bincount(labels, minlength=len(centres))[:, None]
    sums = torch.zeros(centres.shape, dtype=torch.float64, device=points.device)
    sums.index_add_(0, labels, points.double())
    return torch.where(counts > 0, (sums / counts).to(centres), centres)


def colour_position_features(image: Tensor, position_weight: float) -> Tensor:
    """A point for every pixel: its colour, and its row and column as parts of the image's larger side.

    Args:
        image: (C, H, W), in any colour space; L*a*b* (`segedu.ops.colour.rgb_to_lab`) is a good one.
        position_weight: the distance, in the unit of `image`, that the larger side of the image counts for. Row and
            column both become position_weight * index / max(H, W), from 0 to just below `position_weight`: a pixel
            is as long as it is wide.

    Returns:
        (H * W, C + 2): channels, row, column; pixel (row, column) is point row * W + column. Dtype of `image`.

    Raises:
        TypeError: `image` is not a floating point tensor.
        ValueError: `image` is not (C, H, W), or `position_weight` is negative or not finite.

    >>> colour_position_features(torch.zeros(1, 2, 2), position_weight=4.0)
    tensor([[0., 0., 0.],
            [0., 0., 2.],
            [0., 2., 0.],
            [0., 2., 2.]])
    """
    _check_image(image)
    if not 0 <= position_weight < float("inf"):
        raise ValueError(f"position_weight is {position_weight}, expected a finite number of at least 0")
    _, height, width = image.shape
    scale = position_weight / max(height, width)
    rows, columns = (scale * torch.arange(side).to(image) for side in (height, width))
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))  # (2, H, W)
    return torch.cat([image, places]).flatten(1).T.contiguous()


def _check_image(image: Tensor) -> None:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(f"image has {_kind(image)}, expected a floating point tensor")
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"image has shape {tuple(image.shape)}, expected (C, H, W) with no empty axis")


def _check_points(name: str, points: Tensor) -> None:
    if not isinstance(points, Tensor) or points.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} has {_kind(points)}, expected a float32 or float64 tensor")
    if points.ndim != 2 or 0 in points.shape:
        rows = "(N, D)" if name == "points" else "(k, D)"
        raise ValueError(f"{name} has shape {tuple(points.shape)}, expected {rows} with no empty axis")
    if not bool(points.isfinite().all()):
        raise ValueError(f"{name} has values that are no number or infinite, expected finite ones")


def _check(points: Tensor, centres: Tensor) -> None:
    _check_points("points", points)
    _check_points("centres", centres)
    if centres.dtype != points.dtype:
        raise TypeError(f"centres has dtype {centres.dtype}, expected {points.dtype} as points has")
    if centres.shape[1] != points.shape[1]:
        expected = f"(k, {points.shape[1]}) as points has {tuple(points.shape)}"
        raise ValueError(f"centres has shape {tuple(centres.shape)}, expected {expected}")


def _kind(given: object) -> str:
    return f"dtype {given.dtype}" if isinstance(given, Tensor) else f"type {type(given).__name__}"
