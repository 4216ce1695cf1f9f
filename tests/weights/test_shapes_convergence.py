"""The race of three networks on drawn scenes: its log, and that each of them runs."""

from __future__ import annotations

import json

import pytest

from segedu.datasets.shapes import SHAPES_VERSION, Shapes
from segedu.recipes.shapes import Examples, examples
from segedu.weights.own import shapes_convergence
from segedu.weights.own.shapes_mask_rcnn import SCENES_SEED


def test_the_race_is_of_these_scenes_and_networks() -> None:
    """What changes asks for a new race: python -m segedu.weights.own.shapes_convergence."""
    log = json.loads(shapes_convergence.LOG.read_text())
    assert (log["shapes_version"], log["every"]) == (SHAPES_VERSION, shapes_convergence.EVERY)
    assert list(log["curves"]) == list(shapes_convergence.NETS)
    for curve in log["curves"].values():
        assert len(curve["box_ap50"]) == shapes_convergence.STEPS // shapes_convergence.EVERY


@pytest.mark.parametrize("name", shapes_convergence.NETS)
def test_every_network_of_the_race_runs(name: str) -> None:
    pairs = examples(Shapes(16, seed=SCENES_SEED))
    result = shapes_convergence.curve(name, Examples(pairs), pairs[:2], steps=3, every=3)
    assert len(result["box_ap50"]) == 1 and result["cpu_seconds"] < 60
