"""The small Mask R-CNN and the small YOLACT: by which script, on which scenes, and what they find on new ones."""

from __future__ import annotations

import json

import pooch
import pytest
import torch

from segedu.datasets.shapes import SHAPES_VERSION, Shapes
from segedu.recipes.shapes import Examples, examples
from segedu.weights import WEIGHTS, load
from segedu.weights.own import shapes_mask_rcnn, shapes_yolact
from segedu.weights.own.shapes_mask_rcnn import SCENES_SEED, STEPS, precision

SCRIPTS = {"shapes_mask_rcnn": shapes_mask_rcnn, "shapes_yolact": shapes_yolact}
each = pytest.mark.parametrize("name", SCRIPTS)


def log_of(name: str) -> dict:
    return json.loads(SCRIPTS[name].FILE.with_suffix(".json").read_text())


@each
def test_the_log_is_of_these_scenes(name: str) -> None:
    """A new version of the scenes asks for new weights: python -m segedu.weights.own.shapes_mask_rcnn, and _yolact."""
    file, log = SCRIPTS[name].FILE, log_of(name)
    assert (log["shapes_version"], log["steps"]) == (SHAPES_VERSION, STEPS)
    losses = log["losses_of_100_steps"]
    assert len(losses) == STEPS // 100 and losses[-1] < 0.6 * losses[0]
    assert pooch.file_hash(file) == WEIGHTS[name].sha256
    size = file.stat().st_size
    assert size == pytest.approx(WEIGHTS[name].mebibytes * 2**20, rel=0.02) and size < 1.5 * 2**20


@each
def test_the_numbers_in_the_log_are_those_of_the_file(name: str) -> None:
    measured = precision(load(name), SCRIPTS[name].detect)
    assert measured == pytest.approx(log_of(name)["on_new_scenes"], abs=0.002) and measured["mask_ap50"] > 0.85


@each
@torch.no_grad()
def test_scenes_of_other_sizes_and_empty_ones(name: str) -> None:
    model = load(name)
    image = examples(Shapes(1, seed=7, size=(80, 112)))[0][0]
    found = SCRIPTS[name].detect(model, image)
    assert len(found["boxes"]) > 0 and found["masks"].shape[1:] == (80, 112)
    assert (SCRIPTS[name].detect(model, torch.zeros(3, 64, 64))["scores"] < 0.9).all()


@each
def test_the_script_trains_and_again_to_the_same_bytes(name: str) -> None:
    trained = []
    for _ in range(2):
        torch.manual_seed(0)
        model = getattr(SCRIPTS[name], name)()
        losses = SCRIPTS[name].train(model, Examples(examples(Shapes(32, seed=SCENES_SEED))), steps=4, every=2)
        assert len(losses) == 2 and losses[-1] < losses[0] and not model.training
        trained.append(model.state_dict())
    assert trained[0].keys() == load(name).state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in trained), strict=True))
