"""The weight map of the U-Net: the thin background between two cells is worth more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from segedu.semantic.unet import border_weight_map
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def weight_map(label_map: np.ndarray, class_weights: tuple[float, float], w0: float, sigma: float) -> np.ndarray:
    """Equation 2 of the paper, its second term on the background only.

    Args:
        label_map: (H, W) integers, 0 is background, every other number is one cell.
        class_weights: w_c of background and of cells.
        w0: height of the second term.
        sigma: its reach in pixels.

    Returns:
        (H, W) floats.
    """
    return border_weight_map(label_map, w0=w0, sigma=sigma, class_weights=class_weights).numpy()


def _random_cells(rng: np.random.Generator, size: tuple[int, int], labels: list[int]) -> np.ndarray:
    """Rectangles whose numbers leave gaps; each lies in a column band of its own, one pixel apart or more."""
    height, width = size
    label_map = np.zeros(size, dtype=np.int32)
    band = width // len(labels)
    for i, label in enumerate(labels):
        top, bottom = int(rng.integers(0, height // 2)), int(rng.integers(height // 2 + 1, height + 1))
        left = i * band + int(rng.integers(1, 3))
        label_map[top:bottom, left : (i + 1) * band] = label
    return label_map


def _case(rng: np.random.Generator, name: str, label_map: np.ndarray) -> Case:
    # parameters far enough from each other and from 1 that no term hides behind another
    weights = (float(rng.uniform(0.4, 0.8)), float(rng.uniform(1.5, 2.5)))
    w0, sigma = float(rng.uniform(5, 12)), float(rng.uniform(2.5, 4))
    return {"name": name, "args": [label_map, weights, w0, sigma]}


def weight_map_cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Two and four cells, then cells that touch, one cell, no cell, no background."""
    touching = np.zeros((9, 12), dtype=np.int32)
    touching[2:8, 1:5], touching[3:6, 5:8], touching[1:7, 10:12] = 4, 2, 9
    one = np.zeros((8, 11), dtype=np.int32)
    one[2:6, 3 : 5 + int(rng.integers(1, 4))] = 3
    full = np.ones((6, 7), dtype=np.int32)
    full[:, 4:] = 2
    return {
        "core": (
            3,
            [
                _case(rng, "two cells", _random_cells(rng, (9, 12), [1, 2])),
                _case(rng, "four cells, not numbered 1 to 4", _random_cells(rng, (10, 21), [7, 3, 12, 5])),
                _case(rng, "cells that touch", touching),
            ],
        ),
        "edge": (
            1,
            [
                _case(rng, "one cell", one),
                _case(rng, "no cell", np.zeros((7, 5), dtype=np.int32)),
                _case(rng, "two cells and no background", full),
            ],
        ),
    }


def _distances(label_map: np.ndarray, inverted: bool = False) -> np.ndarray:
    """Sorted distances to the cells, (2 or more, H, W), infinite where there are fewer than two cells."""
    labels = np.unique(label_map[label_map > 0])
    inside = [label_map == label for label in labels]
    maps = [ndimage.distance_transform_edt(mask if inverted else ~mask) for mask in inside]
    maps += [np.full(label_map.shape, np.inf)] * 2
    return np.sort(np.stack(maps), axis=0)


def _variant(
    border: Callable = lambda d1, d2, sigma: np.exp(-((d1 + d2) ** 2) / (2 * sigma**2)),
    everywhere: bool = False,
    class_term: bool = True,
    distances: Callable = _distances,
) -> Callable:
    """A weight map that is right but for the parts given."""

    def answer(label_map: np.ndarray, class_weights: tuple[float, float], w0: float, sigma: float) -> np.ndarray:
        d1, d2 = distances(label_map)[:2]
        w_c = np.where(label_map == 0, *class_weights) if class_term else np.zeros(label_map.shape)
        where = np.ones(label_map.shape) if everywhere else label_map == 0
        return w_c + where * w0 * border(d1, d2, sigma)

    return answer


def _single_cell_crash(
    label_map: np.ndarray, class_weights: tuple[float, float], w0: float, sigma: float
) -> np.ndarray:
    labels = np.unique(label_map[label_map > 0])
    d = np.sort([ndimage.distance_transform_edt(label_map != label) for label in labels], axis=0)
    border = w0 * np.exp(-((d[0] + d[1]) ** 2) / (2 * sigma**2))
    return np.where(label_map == 0, class_weights[0] + border, class_weights[1])


def _halo_round_one_cell(label_map: np.ndarray) -> np.ndarray:
    d = _distances(label_map)
    return np.where(np.isfinite(d), d, 0.0) if np.isfinite(d[0]).all() else d


def _components(label_map: np.ndarray) -> np.ndarray:
    return _distances(ndimage.label(label_map > 0)[0])


exercise = Exercise(
    name="weight_map",
    points=4,
    cases=weight_map_cases,
    reference=weight_map,
    wrong=[
        Wrong(
            "d1 only",
            _variant(lambda d1, d2, sigma: np.exp(-(d1**2) / (2 * sigma**2))),
            "You use the distance to the nearest cell only, so every cell gets a bright rim.",
            hint="Which pixels have both the nearest and the second nearest cell close by?",
        ),
        Wrong(
            "on the cells too",
            _variant(everywhere=True),
            "You add the second term on the cells too; it belongs to the background.",
            hint="It is meant for the gap between two cells. Is a pixel of a cell in the gap?",
        ),
        Wrong(
            "class weight lost",
            _variant(class_term=False),
            "You leave out the class weight w_c: far from all cells your weight falls to 0.",
            hint="What does the loss learn from a pixel of weight 0?",
        ),
        Wrong(
            "single cell crashes",
            _single_cell_crash,
            "You take a second nearest cell for granted; with one cell, or none, there is none.",
            hint="Think of the second term when the second nearest cell is infinitely far away.",
        ),
        Wrong(
            "halo round a single cell",
            _variant(distances=_halo_round_one_cell),
            "You take 0 for the distance to a second cell that does not exist.",
            hint="A cell that is not there is not near. What does the formula give for a distance without end?",
        ),
        Wrong(
            "squares added",
            _variant(lambda d1, d2, sigma: np.exp(-(d1**2 + d2**2) / (2 * sigma**2))),
            "You add the squares of the distances; the formula squares their sum.",
            hint="Compare (d1 + d2)**2 with d1**2 + d2**2 for d1 = d2 = 1.",
        ),
        Wrong(
            "distance inside the cells",
            _variant(distances=lambda label_map: _distances(label_map, inverted=True)),
            "You measure distances inside the cells: on the background yours are all 0.",
            hint="distance_transform_edt gives the distance to the nearest False. Which mask did you pass?",
        ),
        Wrong(
            "touching cells merged",
            _variant(distances=_components),
            "You take cells that touch for one cell: the label map already says which is which.",
            hint="Do you label the connected parts of label_map > 0? Two cells that touch are one part.",
        ),
        Wrong(
            "no square",
            _variant(lambda d1, d2, sigma: np.exp(-(d1 + d2) / (2 * sigma**2))),
            "You do not square the sum of the distances.",
            hint="Two cells with 5 pixels between them: what does the exponent say for the pixel in the middle?",
        ),
    ],
    tolerance=1e-5,
    kind="map",
    hides=["segedu.semantic.unet"],
)
