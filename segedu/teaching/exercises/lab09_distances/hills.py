"""Distance maps for `watershed_decode`: hills as noisy as predictions, and rare configurations of peaks."""

from __future__ import annotations

import numpy as np
import torch

from segedu.teaching.checks.exercise import Case
from segedu.teaching.checks.variants import case


def _hills(rng: np.random.Generator, shape: tuple[int, int], hills: list[tuple[float, float, float]]) -> np.ndarray:
    """(H, W): noisy cones (y, x, height), negative between them; no two heights are equal."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    cones = [height - np.hypot(y - row, x - column) for row, column, height in hills]
    return np.max([*cones, np.full(shape, -2.0)], axis=0) + rng.uniform(-0.04, 0.04, shape)


def _case(name: str, heights: np.ndarray, min_distance: float) -> Case:
    return case(name, torch.from_numpy(heights), min_distance)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Cells that touch, and cells with several peaks; see `_edge_cases`."""
    r, c = (float(n) for n in rng.uniform(-0.4, 0.4, 2))
    touching = _hills(rng, (14, 22), [(5 + r, 5, 4.3), (7, 11 + c, 5.1), (5, 18, 3.2), (12, 2, 1.4)])
    touching[10:12, 17:20] = rng.uniform(0.1, 0.3, (2, 3))  # a low cell, connected with no other
    waves = _hills(rng, (13, 20), [(6, 5, 4.5), (6 + r, 14, 5.2)])
    for row, column in ((4, 4), (8, 6), (9, 8), (5, 13), (8, 15), (6, 16)):
        waves[row, column] += 1.5 + float(rng.uniform(0, 0.2))  # peaks on the slopes of others
    core = [_case("cells that touch", touching, 3.0), _case("waves", waves, 4.0)]
    return {"core": (2, core), "edge": (1, _edge_cases(rng))}


def _edge_cases(rng: np.random.Generator) -> list[Case]:
    shift = int(rng.integers(2))
    waves = _hills(rng, (9, 14), [(4, 4, 3.5), (4, 9.5, 3.1)])
    waves[2, 3] += 1.5
    waves[6, 7], waves[7, 8] = 2.1, 2.6  # touch at a corner: two peaks
    plateaus = _hills(rng, (10, 20), [(4, 4, 3.4), (4, 15, 3.9)])
    plateaus[3:5, 1 + shift : 8] = 4.0  # longer than min_distance, and all one peak
    plateaus[6, 6] = 2.0  # near the middle of the plateau and its end, but not near its first pixel
    plateaus[range(2, 6), range(12, 16)] = 4.5  # touch at corners only: four peaks
    equal = _hills(rng, (9, 22), [(4, 4, 3.3), (4, 11, 3.4), (4, 18, 3.2)])
    equal[2 + shift, 5] = equal[5, 10] = equal[4, 18] = equal[6 - shift, 16] = 5.0
    limits = _hills(rng, (12, 18), [(5, 5, 4), (6, 12, 3.5)])
    limits[3, 3], limits[6, 7], limits[6, 12], limits[9, 12] = 6.0, 5.0, 4.75, 4.5  # 3-4-5 triangles, 5 in a row
    limits[1, 5], limits[0, 5] = 0.0, 0.25  # 0 is background, so it does not connect two components
    components = _hills(rng, (9, 14), [(4, 4, 3.6)])
    gap = int(np.flatnonzero(components[4] > 0)[-1]) + 1
    components[:, gap], components[3:6, gap + 1 : gap + 3] = -0.3, rng.uniform(0.3, 0.8, (3, 2))
    components[2, gap], components[1, gap + 1] = -0.2, 0.6
    corner = np.full((6, 9 + shift), -0.5)
    corner[1:3, 1:4], corner[3:5, 4:7] = rng.uniform(0.3, 0.8, (2, 2, 3))  # two components that touch at a corner
    corner[2, 3], corner[3, 4] = 0.9, 1.1
    border = _hills(rng, (8, 13), [(0, 3 + shift, 3.2), (7, 12, 4.2), (3, 9, 2.0)])
    border[6, 0] = 0.7
    row = _hills(rng, (1, 17), [(0, 3, 3.1), (0, 8 + shift, 3.8), (0, 14, 2.2)])
    nothing = -rng.uniform(0.1, 3, (5, 7 + shift))
    return [
        _case("all peaks", waves, 0.0),
        _case("plateaus", plateaus, 4.0),
        _case("equal peaks", equal, 4.0),
        _case("peaks exactly min_distance apart", limits, 5.0),
        _case("components near each other", components, 6.0),
        _case("components that touch at a corner", corner, 6.0),
        _case("peaks on the border", border, 3.0),
        _case("one row", row, 4.0),
        _case("no cell", nothing, 3.0),
    ]
