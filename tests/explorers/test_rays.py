"""The explorer of StarDist's rays against the library's ray distances, polygons and their rasterisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from explorers.browser import assert_equal

from segedu.instance.stardist import star_distances
from segedu.ops.polygons import rasterize_polygons, star_polygons
from segedu.teaching.widgets.rays import CELLS, MAX_RAYS, MIN_RAYS, cell_mask, middle_pixel, star_fit

pytestmark = pytest.mark.browser


def expected(n_rays: int, cell: str, dx: int, dy: int) -> dict:
    mask = cell_mask(cell)
    y, x = (middle_pixel(mask) + torch.tensor([dy, dx])).clamp(0, 63).tolist()
    distances = star_distances(mask.int(), n_rays)[:, y, x][None]
    points = torch.tensor([[y, x]])
    covered = rasterize_polygons(distances, points, tuple(mask.shape)) > 0
    return {
        "pixel": [y, x],
        "area": int(mask.sum()),
        "distances": distances[0],
        "corners": star_polygons(distances, points)[0],
        "covered": covered.nonzero(),
        "iou": float((covered & mask).sum() / (covered | mask).sum()),
        "missed": int((mask & ~covered).sum()),
        "outside": int((covered & ~mask).sum()),
    }


def test_equals_python(explorers) -> None:
    first, *states = explorers.states("rays", 60)
    near = np.random.default_rng(0).integers(-9, 10, (40, 2)).tolist()  # most of the random pixels are background
    states += [{**state, "dx": dx, "dy": dy} for state, (dx, dy) in zip(states, near, strict=False)]
    ious = set()
    for state, result in zip([first, *states], explorers.compute("rays", [first, *states]), strict=True):
        target = expected(int(state["n_rays"]), state["cell"], int(state["dx"]), int(state["dy"]))
        assert_equal(result, target, f"{state}")
        ious.add(target["iou"])
    assert max(ious) > 0.9 and min(ious) < 0.01 and sum(0.1 < iou < 0.6 for iou in ious) >= 5


@pytest.mark.parametrize("cell", CELLS)
def test_the_curve_of_the_middle_pixel_is_that_of_the_python_widget(explorers, cell: str) -> None:
    state = {"n_rays": 8, "cell": cell, "dx": 0, "dy": 0}
    target = [star_fit(cell, n_rays)[2] for n_rays in range(MIN_RAYS, MAX_RAYS + 1)]
    assert_equal(explorers.compute("rays", [state])[0], {"ious": target}, cell)
