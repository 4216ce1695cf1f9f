"""Chapter 2 beside scikit-image, scikit-learn and OpenCV; each pair must first give the same results. `run.py` times them.

The CPU-seconds of each of our methods on a photograph of 512x512 pixels are printed too. To add a method, write a
function that yields `Pair`, and add its name to `METHODS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from skimage import data
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """Two functions without arguments that do the same work, and ours on 512x512 pixels if the pair uses a smaller image."""

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object]
    whole: Callable[[], object] | None = None


def photograph(size: int = 512, top: int = 0, left: int = 0) -> Tensor:
    """A part of the astronaut, (3, size, size) float32 in [0, 1]."""
    pixels = data.astronaut()[top : top + size, left : left + size]
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1).contiguous()


# --- pairs ------------------------------------------------------------------------------------------------------


def thresholds() -> Iterator[Pair]:
    """Otsu with two and with four classes."""
    from skimage.filters import threshold_multiotsu, threshold_otsu

    from segedu.unsupervised.thresholding import otsu_threshold, otsu_thresholds

    grey = photograph().mean(dim=0)
    theirs = grey.numpy()
    assert otsu_threshold(grey) == threshold_otsu(theirs)
    away = abs(otsu_thresholds(grey, 4).numpy() - threshold_multiotsu(theirs, 4))
    assert away.max() < 1.01 / 256, away  # a bin: theirs sums in float32 and takes a division slightly worse
    yield Pair("otsu_threshold / scikit-image", lambda: otsu_threshold(grey), lambda: threshold_otsu(theirs))
    ours, peer = lambda: otsu_thresholds(grey, 4), lambda: threshold_multiotsu(theirs, 4)
    yield Pair("otsu_thresholds, 4 classes / scikit-image", ours, peer)


def clusters() -> Iterator[Pair]:
    """Lab, k-means++ and 50 iterations of Lloyd's algorithm; scikit-learn from the same initial centres."""
    import sklearn.cluster
    from skimage.color import rgb2lab

    from segedu.ops.colour import rgb_to_lab
    from segedu.unsupervised.kmeans import colour_position_features, kmeans, kmeans_plus_plus

    image = photograph()
    theirs = image.permute(1, 2, 0).numpy()
    torch.testing.assert_close(rgb_to_lab(image).permute(1, 2, 0).numpy(), rgb2lab(theirs), rtol=0, atol=1e-3)
    yield Pair("rgb_to_lab / scikit-image", lambda: rgb_to_lab(image), lambda: rgb2lab(theirs))

    points = colour_position_features(rgb_to_lab(image), 100.0)
    rows = points.numpy()
    draw = lambda points=points: kmeans_plus_plus(points, 8, torch.Generator().manual_seed(0))  # noqa: E731
    peer = lambda rows=rows: sklearn.cluster.kmeans_plusplus(rows, 8, random_state=0, n_local_trials=1)  # noqa: E731
    yield Pair("kmeans_plus_plus, k = 8 / scikit-learn", draw, peer)

    whole_points, whole_first = points, draw()
    points = colour_position_features(rgb_to_lab(photograph(96)), 100.0)
    rows, first = points.numpy(), draw(points)
    model = sklearn.cluster.KMeans(8, init=first.numpy(), n_init=1, max_iter=50, tol=0, algorithm="lloyd")
    ours, inertia = kmeans(points, first, steps=50).inertia, model.fit(rows).inertia_
    assert abs(ours / inertia - 1) < 1e-3, (ours, inertia)  # in float32 the last labels differ
    ours, peer = lambda: kmeans(points, first, steps=50), lambda: model.fit(rows)
    whole = lambda: kmeans(whole_points, whole_first, steps=50)  # noqa: E731
    yield Pair("kmeans, 96x96, k = 8 / scikit-learn", ours, peer, whole)


def mean_shifts() -> Iterator[Pair]:
    """Points beside scikit-learn; an image beside OpenCV, which uses a square spatial window and stops earlier."""
    import cv2
    from sklearn.cluster import MeanShift

    from segedu.ops.colour import rgb_to_lab
    from segedu.unsupervised.mean_shift import joint_modes, mean_shift, mean_shift_segmentation

    generator = torch.Generator().manual_seed(0)
    corners = 4 * torch.randint(0, 3, (150, 2), generator=generator)
    points = corners + torch.randn(150, 2, generator=generator, dtype=torch.float64)
    model = MeanShift(bandwidth=1.5)
    np.testing.assert_array_equal(mean_shift(points, 1.5)[0].numpy(), model.fit(points.numpy()).labels_)
    ours, peer = lambda: mean_shift(points, 1.5), lambda: model.fit(points.numpy())
    yield Pair("mean_shift, 150 points / scikit-learn", ours, peer)

    cv2.setNumThreads(1)
    part = photograph(64, 60, 180)
    pixels = np.ascontiguousarray((255 * part).round().byte().permute(1, 2, 0).numpy())
    filter_ours = lambda: joint_modes(255 * part, 8, 16)[2:]  # noqa: E731
    filter_peer = lambda: cv2.pyrMeanShiftFiltering(pixels, 8, 16, maxLevel=0)  # noqa: E731
    exact = joint_modes(255 * part, 8, 16, bin_size=0)[2:]
    theirs = torch.from_numpy(filter_peer()).permute(2, 0, 1)
    results = {"nothing done": 255 * part, "cells": filter_ours(), "OpenCV": theirs}
    for name, result in results.items():
        away = float((result - exact).norm(dim=0).mean())
        print(f"mean shift filter, 64x64, {name}: {away:.2f} grey levels from the exact filter on average")
    lab = rgb_to_lab(photograph())
    whole = lambda: mean_shift_segmentation(lab, 8, 8)  # noqa: E731
    yield Pair("joint_modes, 64x64 / OpenCV pyrMeanShiftFiltering", filter_ours, filter_peer, whole)


def cuts() -> Iterator[Pair]:
    """One cut beside PyMaxflow, graphs built by both, and GrabCut's loop beside OpenCV."""
    import cv2
    import maxflow

    from segedu.ops.max_flow import OFFSETS
    from segedu.unsupervised.grab_cut import grab_cut
    from segedu.unsupervised.graph_cut import contrast_weights, min_cut

    def problem(image: Tensor) -> tuple[Tensor, Tensor]:
        """A binary problem, near skin colour or not: a soft unary, and the pairwise weights of GrabCut."""
        away = 12 * (image - torch.tensor([0.85, 0.65, 0.55]).view(3, 1, 1)).norm(dim=0).double()
        return torch.stack([torch.full_like(away, 4.0), away]), contrast_weights(image, gamma=50.0)

    def peer_flow(unary: Tensor, pairwise: Tensor) -> float:
        """The peer's maximum flow, with terms rounded as ours; edges that leave the image have weight 0."""
        costs, weights = (1000 * unary).round().long().numpy(), (1000 * pairwise).round().long().numpy()
        graph = maxflow.GraphInt()
        nodes = graph.add_grid_nodes(costs.shape[1:])
        for weight, (dy, dx) in zip(weights, OFFSETS, strict=True):
            structure = np.zeros((3, 3))
            structure[1 + dy, 1 + dx] = 1
            graph.add_grid_edges(nodes, weights=weight, structure=structure, symmetric=True)
        graph.add_grid_tedges(nodes, costs[0], costs[1])
        return graph.maxflow() / 1000

    terms = problem(photograph())
    assert min_cut(*terms).flow == peer_flow(*terms)
    yield Pair("min_cut, 512x512 / PyMaxflow", lambda: min_cut(*terms), lambda: peer_flow(*terms))

    cv2.setNumThreads(1)
    image = photograph()
    pixels = np.ascontiguousarray((255 * image).round().byte().permute(1, 2, 0).numpy()[..., ::-1])

    def peer_mask() -> np.ndarray:
        mask = np.zeros(pixels.shape[:2], np.uint8)
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(pixels, mask, (160, 30, 140, 200), *models, 5, cv2.GC_INIT_WITH_RECT)
        return (mask & 1).astype(bool)

    ours = lambda: grab_cut(image, (160, 30, 300, 230))  # noqa: E731
    mask, theirs = ours().numpy(), peer_mask()
    assert (mask & theirs).sum() >= 0.95 * (mask | theirs).sum()
    yield Pair("grab_cut, 512x512, 5 iterations / OpenCV", ours, peer_mask)


def normalized_cuts() -> Iterator[Pair]:
    """The second eigenvector beside scikit-learn."""
    from sklearn.manifold import spectral_embedding

    from segedu.unsupervised.normalized_cut import eigenvectors, grid_affinities, segment_image

    weights = grid_affinities(photograph()[:, 60:252:6, 150:342:6])
    weights.indices, weights.indptr = (
        weights.indices.astype(np.int32),
        weights.indptr.astype(np.int32),
    )  # scikit-learn's
    ours = lambda: eigenvectors(weights, 2)[1][:, 1]  # noqa: E731
    peer = lambda: spectral_embedding(weights, n_components=1, random_state=0)[:, 0]  # noqa: E731
    assert abs(np.corrcoef(ours(), peer())[0, 1]) > 0.999
    yield Pair("eigenvectors, 32x32 / scikit-learn", ours, peer, lambda: segment_image(photograph()))


def basins() -> Iterator[Pair]:
    """The watershed of a gradient, with and without ridges."""
    from skimage.filters import sobel
    from skimage.segmentation import watershed as peer_watershed

    from segedu.unsupervised.watershed import watershed

    heights = sobel(data.camera().astype(float))
    markers = np.zeros(heights.shape, dtype=np.int64)
    markers[10::25, 10::25] = np.arange(1, 442).reshape(21, 21)
    heights[markers > 0] += 1e-6 * np.arange(441)  # no two markers at one height
    given = torch.from_numpy(heights), torch.from_numpy(markers)
    for ridge, name in ((False, "watershed"), (True, "watershed, ridges")):
        ours = lambda ridge=ridge: watershed(*given, ridge=ridge)  # noqa: E731
        peer = lambda ridge=ridge: peer_watershed(heights, markers, watershed_line=ridge)  # noqa: E731
        np.testing.assert_array_equal(ours(), peer())
        yield Pair(f"{name}, 512x512 / scikit-image", ours, peer)


def regions() -> Iterator[Pair]:
    """Superpixels, graph segmentation and its grouping; scikit-image's SLIC gives fewer regions than requested."""
    import cv2
    from skimage.segmentation import felzenszwalb as peer_felzenszwalb
    from skimage.segmentation import slic as peer_slic

    from segedu.unsupervised.felzenszwalb import felzenszwalb
    from segedu.unsupervised.selective_search import selective_search
    from segedu.unsupervised.superpixels import slic

    image = photograph().double()
    pixels = image.permute(1, 2, 0).numpy()
    yield Pair("slic, 512x512, 400 / scikit-image", lambda: slic(image, 400), lambda: peer_slic(pixels, 550))
    ours, peer = lambda: felzenszwalb(image, 100, 0.8, 20), lambda: peer_felzenszwalb(pixels, 100, 0.8, 20)
    pairs = np.unique(np.stack([ours().numpy().ravel(), peer().ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))
    yield Pair("felzenszwalb, 512x512 / scikit-image", ours, peer)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray((255 * pixels).round().astype(np.uint8)[..., ::-1]))

    def peer_boxes() -> np.ndarray:
        search.switchToSingleStrategy(100, 0.8)
        return search.process()

    yield Pair("selective_search, 512x512, one strategy / OpenCV", lambda: selective_search(image), peer_boxes)


METHODS = [thresholds, clusters, mean_shifts, cuts, normalized_cuts, basins, regions]


# --- what is timed ----------------------------------------------------------------------------------------------


def cpu_seconds(function: Callable[[], object]) -> float:
    """CPU-seconds of one call, summed over all threads."""
    start = time.process_time()
    function()
    return time.process_time() - start


def pairs():
    """Yield name, ours, peer, as in `run.py`; print our CPU-seconds."""
    for pair in (pair for method in METHODS for pair in method()):
        print(f"{pair.name}: ours, 512x512 where it is an image: {cpu_seconds(pair.whole or pair.ours):.3f} CPU-s")
        yield pair.name, pair.ours, pair.peer
