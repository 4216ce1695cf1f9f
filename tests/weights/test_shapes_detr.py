"""The small DETR: by which script, on which scenes, and what it finds on new ones."""

from __future__ import annotations

import json

import pooch
import pytest
import torch

from segedu.datasets.shapes import SHAPES_VERSION, Shapes
from segedu.detection.detr import postprocess
from segedu.ops.nms import batched_nms
from segedu.recipes.shapes import Examples, examples
from segedu.weights import WEIGHTS, load
from segedu.weights.own import shapes_detr
from segedu.weights.own.shapes_detr import EVERY, FILE, STEPS, new_scenes, precision
from segedu.weights.own.shapes_mask_rcnn import SCENES_SEED

LOG = json.loads(FILE.with_suffix(".json").read_text())


def test_the_log_is_of_these_scenes() -> None:
    """A new version of the scenes asks for new weights: python -m segedu.weights.own.shapes_detr."""
    assert (LOG["shapes_version"], LOG["steps"]) == (SHAPES_VERSION, STEPS)
    losses, curve = LOG["losses_of_250_steps"], LOG["curve"]
    assert len(losses) == len(curve) == STEPS // EVERY and losses[-1] < 0.6 * losses[0]
    assert [point["step"] for point in curve] == list(range(EVERY, STEPS + 1, EVERY))
    assert (
        curve[-1]["cpu_seconds"] == pytest.approx(LOG["cpu_seconds_of_training"], abs=2)
        and curve[-1]["cpu_seconds"] < 90 * 60
    )
    assert pooch.file_hash(FILE) == WEIGHTS["shapes_detr"].sha256
    size = FILE.stat().st_size
    assert size == pytest.approx(WEIGHTS["shapes_detr"].mebibytes * 2**20, rel=0.02) and size < 2 * 2**20


def test_the_numbers_in_the_log_are_those_of_the_file() -> None:
    net, scenes = load("shapes_detr"), new_scenes()
    measured = precision(net, scenes)
    assert measured == pytest.approx(LOG["on_new_scenes"], abs=0.002) and measured["box_ap50"] > 0.7

    def suppressed(model: torch.nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
        found = postprocess(model(image[None]))[0]
        kept = batched_nms(found["boxes"], found["scores"], found["labels"], 0.5)
        return {key: value[kept] for key, value in found.items()}

    gain = precision(net, scenes, suppressed)["box_ap50"] - measured["box_ap50"]
    assert gain < 0.02  # suppression has next to nothing to do


@torch.no_grad()
def test_scenes_of_other_sizes_and_empty_ones() -> None:
    net = load("shapes_detr")
    (found,) = postprocess(net(torch.zeros(1, 3, 64, 64)), score_threshold=0.5)
    assert len(found["boxes"]) <= 2
    assert net(torch.rand(1, 3, 80, 112))["boxes"].shape == (1, 12, 4)


def test_the_script_trains_and_again_to_the_same_bytes() -> None:
    trained = []
    for _ in range(2):
        torch.manual_seed(0)
        model, watched = shapes_detr.shapes_detr(), []
        samples = Examples(examples(Shapes(32, seed=SCENES_SEED)))
        losses = shapes_detr.train(model, samples, steps=4, every=2, watch=watched.append)
        assert len(losses) == 2 and losses[-1] < losses[0] and watched == [2, 4] and not model.training
        trained.append(model.state_dict())
    assert trained[0].keys() == load("shapes_detr").state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in trained), strict=True))
