"""weight_map: pixel weights of the U-Net's loss, which make errors in the gaps between cells expensive."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
from scipy import ndimage

from segedu.semantic.unet import border_weight_map
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def weight_map(label_map: np.ndarray, class_weights: tuple[float, float], w0: float, sigma: float) -> np.ndarray:
    """Equation 2 of the paper, with its second term on the background only.

    Args:
        label_map: (H, W) integers, 0 is background, every other number is one cell.
        class_weights: w_c of background and of cells.
        w0: height of the second term.
        sigma: width of the second term in pixels.

    Returns:
        (H, W) floats.
    """
    return border_weight_map(label_map, w0=w0, sigma=sigma, class_weights=class_weights).numpy()


def _random_cells(rng: np.random.Generator, size: tuple[int, int], labels: list[int]) -> np.ndarray:
    """One rectangle per label, each in its own band of columns, at least one pixel apart."""
    height, width = size
    label_map = np.zeros(size, dtype=np.int32)
    band = width // len(labels)
    for i, label in enumerate(labels):
        top, bottom = int(rng.integers(0, height // 2)), int(rng.integers(height // 2 + 1, height + 1))
        left = i * band + int(rng.integers(1, 3))
        label_map[top:bottom, left : (i + 1) * band] = label
    return label_map


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Two and four cells, then cells that touch, one cell, no cell, no background."""

    def weighted(name: str, label_map: np.ndarray) -> Case:
        # the parameters differ enough from each other and from 1 that every term changes the result
        weights = (float(rng.uniform(0.4, 0.8)), float(rng.uniform(1.5, 2.5)))
        return case(name, label_map, weights, float(rng.uniform(5, 12)), float(rng.uniform(2.5, 4)))

    touching = np.zeros((9, 12), dtype=np.int32)
    touching[2:8, 1:5], touching[3:6, 5:8], touching[1:7, 10:12] = 4, 2, 9
    one = np.zeros((8, 11), dtype=np.int32)
    one[2:6, 3 : 5 + int(rng.integers(1, 4))] = 3
    full = np.ones((6, 7), dtype=np.int32)
    full[:, 4:] = 2
    core = [
        weighted("two cells", _random_cells(rng, (9, 12), [1, 2])),
        weighted("four cells, not numbered 1 to 4", _random_cells(rng, (10, 21), [7, 3, 12, 5])),
        weighted("cells that touch", touching),
    ]
    edge = [
        weighted("one cell", one),
        weighted("no cell", np.zeros((7, 5), dtype=np.int32)),
        weighted("two cells and no background", full),
    ]
    return {"core": (3, core), "edge": (1, edge)}


right = Variants(weight_map)


def _distances(label_map: np.ndarray, inside: bool = False) -> np.ndarray:
    """Sorted distances to the cells, (2 or more, H, W), infinite where there are fewer than two cells."""
    masks = [label_map == label for label in np.unique(label_map[label_map > 0])]
    maps = [ndimage.distance_transform_edt(mask if inside else ~mask) for mask in masks]
    maps += [np.full(label_map.shape, np.inf)] * 2
    return np.sort(np.stack(maps), axis=0)


def _distances_or_zero(label_map: np.ndarray) -> np.ndarray:
    """The distance to a missing second cell taken as 0."""
    d = _distances(label_map)
    return np.where(np.isfinite(d), d, 0.0) if np.isfinite(d[0]).all() else d


def _weights(
    a: SimpleNamespace,
    exponent: Callable = lambda d1, d2: (d1 + d2) ** 2,
    distances: Callable = _distances,
    everywhere: bool = False,
    class_term: bool = True,
) -> np.ndarray:
    """The right weights, except for the parts that are given."""
    d1, d2 = distances(a.label_map)[:2]
    w_c = np.where(a.label_map == 0, *a.class_weights) if class_term else np.zeros(a.label_map.shape)
    where = np.ones(a.label_map.shape) if everywhere else a.label_map == 0
    return w_c + where * a.w0 * np.exp(-exponent(d1, d2) / (2 * a.sigma**2))


def _single_cell_crash(
    label_map: np.ndarray, class_weights: tuple[float, float], w0: float, sigma: float
) -> np.ndarray:
    labels = np.unique(label_map[label_map > 0])
    d = np.sort([ndimage.distance_transform_edt(label_map != label) for label in labels], axis=0)
    border = w0 * np.exp(-((d[0] + d[1]) ** 2) / (2 * sigma**2))
    return np.where(label_map == 0, class_weights[0] + border, class_weights[1])


def _other_term(term: Callable[[SimpleNamespace, np.ndarray], np.ndarray]) -> Callable:
    """A wrong answer with another second term, computed from the distances to each cell, (N, H, W), N at least 2."""

    def compute(a: SimpleNamespace) -> np.ndarray:
        w_c = np.where(a.label_map == 0, *a.class_weights)
        labels = np.unique(a.label_map[a.label_map > 0])
        if len(labels) < 2:
            return w_c
        distances = np.stack([ndimage.distance_transform_edt(a.label_map != label) for label in labels])
        return w_c + np.where(a.label_map == 0, term(a, distances), 0.0)

    return right.instead(compute)


def _gaussian(a: SimpleNamespace, total: np.ndarray) -> np.ndarray:
    return a.w0 * np.exp(-(total**2) / (2 * a.sigma**2))


def _numbered_from_1(numbers: Callable[[np.ndarray], int]) -> Callable:
    """A wrong answer that takes the labels 1 to `numbers(label_map)`."""

    def compute(a: SimpleNamespace) -> np.ndarray:
        count, w_c = numbers(a.label_map), np.where(a.label_map == 0, *a.class_weights)
        if count < 2:
            return w_c
        maps = np.sort([ndimage.distance_transform_edt(a.label_map != k) for k in range(1, count + 1)], axis=0)
        return w_c + np.where(a.label_map == 0, _gaussian(a, maps[0] + maps[1]), 0.0)

    return right.instead(compute)


def _same_cell_twice(a: SimpleNamespace) -> np.ndarray:
    """A single cell counts as the second one, too."""
    d = _distances(a.label_map)
    second = np.where(np.isfinite(d[1]), d[1], d[0])
    return _weights(a, distances=lambda label_map: np.stack([d[0], second]))


def _city_block(label_map: np.ndarray) -> np.ndarray:
    masks = [label_map == label for label in np.unique(label_map[label_map > 0])]
    maps = [ndimage.distance_transform_cdt(~mask, "taxicab").astype(float) for mask in masks]
    return np.sort(np.stack([*maps, *[np.full(label_map.shape, np.inf)] * 2]), axis=0)


def _multiplied(out: np.ndarray, a: SimpleNamespace) -> np.ndarray:
    if len(np.unique(a.label_map[a.label_map > 0])) < 2:
        return out
    background = a.class_weights[0]
    return np.where(a.label_map == 0, background * (out - background), out)


exercise = Exercise(
    name="weight_map",
    points=4,
    cases=cases,
    reference=weight_map,
    wrong=[
        Wrong(
            "d1 only",
            right.instead(lambda a: _weights(a, lambda d1, d2: d1**2)),
            "You use only the distance to the nearest cell. The formula adds the distance to the second nearest cell.",
            "With d1 alone, weights are large all around every cell. Which pixels are close to two cells?",
        ),
        Wrong(
            "on the cells too",
            right.instead(lambda a: _weights(a, everywhere=True)),
            "You add the second term on the cells too. It belongs to the background only.",
            "The term is meant for the gap between two cells. Does a pixel of a cell belong to a gap?",
        ),
        Wrong(
            "class weight lost",
            right.instead(lambda a: _weights(a, class_term=False)),
            "You omit the class weight w_c. Every pixel has it, also far away from all cells.",
            "What does the network learn from a pixel of weight 0?",
        ),
        Wrong(
            "single cell crashes",
            _single_cell_crash,
            "Your function raises an error if there are fewer than two cells. Leave out the second term then.",
            "Consider the second term when the second nearest cell is infinitely far away.",
        ),
        Wrong(
            "halo round a single cell",
            right.instead(lambda a: _weights(a, distances=_distances_or_zero)),
            "You use 0 as the distance to a second cell that does not exist. Leave out the second term then.",
            "A missing cell is not close. What does the formula give for an infinite distance?",
        ),
        Wrong(
            "squares added",
            right.instead(lambda a: _weights(a, lambda d1, d2: d1**2 + d2**2)),
            "You add the squares of the distances. The formula squares their sum.",
            "Compare (d1 + d2)**2 with d1**2 + d2**2 for d1 = d2 = 1.",
        ),
        Wrong(
            "distance inside the cells",
            right.instead(lambda a: _weights(a, distances=lambda label_map: _distances(label_map, inside=True))),
            "Your distances are 0 on the background: you measure inside the cells. Measure from each pixel to the "
            "cells.",
            "distance_transform_edt returns the distance to the nearest False. Which mask did you pass?",
        ),
        Wrong(
            "touching cells merged",
            right.instead(lambda a: _weights(a, distances=lambda labels: _distances(ndimage.label(labels > 0)[0]))),
            "You merge cells that touch into one cell. Each label of the label map is its own cell.",
            "Do you label the connected components of label_map > 0? Two cells that touch form one component.",
        ),
        Wrong(
            "no square",
            right.instead(lambda a: _weights(a, lambda d1, d2: d1 + d2)),
            "You do not square the sum of the distances. The exponent contains (d1 + d2)^2.",
            "For two cells with 5 pixels between them, which exponent does the pixel in the middle have?",
        ),
        Wrong(
            "no factor 2",
            _other_term(lambda a, d: a.w0 * np.exp(-(np.sort(d, axis=0)[:2].sum(0) ** 2) / a.sigma**2)),
            "You divide by sigma squared. The formula divides by 2 sigma squared.",
            "Look at the denominator of the exponent.",
        ),
        Wrong(
            "nearest distance twice",
            _other_term(lambda a, d: _gaussian(a, 2 * d.min(0))),
            "You use the distance to the nearest cell twice. The formula adds the distance to the second nearest cell.",
            "Sort the distances of each pixel, and use the first two.",
        ),
        Wrong(
            "largest distances",
            _other_term(lambda a, d: _gaussian(a, np.sort(d, axis=0)[-2:].sum(0))),
            "You add the two largest distances. The formula adds the two smallest.",
            "np.sort sorts in ascending order.",
        ),
        Wrong(
            "first two cells",
            _other_term(lambda a, d: _gaussian(a, d[0] + d[1])),
            "You add the distances to the first two cells. Add those to the two nearest cells of each pixel.",
            "Sort the distances of each pixel over the cells.",
        ),
        Wrong(
            "sorted along the image",
            _other_term(lambda a, d: _gaussian(a, np.sort(d)[:2].sum(0))),
            "You sort along the columns of the image. Sort over the cells, separately at each pixel.",
            "np.sort sorts the last axis unless you give another one.",
        ),
        Wrong(
            "edges of the pixels",
            _other_term(lambda a, d: _gaussian(a, np.sort(d - 0.5, axis=0)[:2].sum(0))),
            "You subtract half a pixel from each distance. Use the distances as distance_transform_edt returns them.",
            "It measures from pixel to pixel.",
        ),
        Wrong(
            "city blocks",
            right.instead(lambda a: _weights(a, distances=_city_block)),
            "You measure distances in horizontal and vertical steps. Use the Euclidean distance.",
            "A diagonal neighbour is at distance sqrt(2).",
        ),
        Wrong(
            "labels counted",
            _numbered_from_1(lambda labels: len(np.unique(labels[labels > 0]))),
            "You use the labels 1, 2, 3, ..., as many as there are cells. The cells may have other numbers.",
            "np.unique returns the numbers that occur.",
        ),
        Wrong(
            "labels up to the largest",
            _numbered_from_1(lambda labels: int(labels.max())),
            "You use all labels up to the largest, although some may be missing. Use those that occur.",
            "A missing label has a mask without a pixel. What is the distance to it?",
        ),
        Wrong(
            "class weights exchanged",
            right.given(class_weights=lambda a: a.class_weights[::-1]),
            "You exchange the two class weights. The first one belongs to the background.",
            "class_weights[0] is the weight of label 0.",
        ),
        Wrong(
            "a single cell twice",
            right.instead(_same_cell_twice),
            "If there is one cell, you use its distance twice. Leave out the second term then.",
            "The term is meant for the gap between two cells.",
        ),
        Wrong(
            "terms multiplied",
            right.then(_multiplied),
            "You multiply the class weight by the second term. Add them.",
            "Far away from all cells, the second term is 0. Which weight should a pixel have there?",
        ),
        Wrong(
            "integers",
            right.then(lambda out, a: out.astype(a.label_map.dtype)),
            "Your weights are integers. They have to be floats.",
            "np.zeros_like(label_map) has the dtype of the label map.",
        ),
    ],
    tolerance=1e-5,
    kind="map",
    hides=["segedu.semantic.unet"],
)
