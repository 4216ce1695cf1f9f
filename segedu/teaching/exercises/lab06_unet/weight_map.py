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
    ],
    tolerance=1e-5,
    kind="map",
    hides=["segedu.semantic.unet"],
)
