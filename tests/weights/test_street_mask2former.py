"""The small Mask2Former: by which script, on which streets, and what its three read-outs say of new ones."""

from __future__ import annotations

import json

import pooch
import pytest
import torch

from segedu.datasets.street import CLASSES, STREET_VERSION, THINGS, VOID, draw_street
from segedu.panoptic.inference import instance_inference, panoptic_inference, semantic_inference
from segedu.panoptic.mask2former.mask2former import Mask2Former
from segedu.weights import WEIGHTS, load
from segedu.weights.own import street_mask2former as script

LOG = json.loads(script.FILE.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def model() -> Mask2Former:
    return load("street_mask2former")


def test_the_log_is_of_these_scenes() -> None:
    """A new version of the streets asks for new weights: python -m segedu.weights.own.street_mask2former."""
    assert (LOG["street_version"], LOG["scenes"], LOG["steps"]) == (STREET_VERSION, script.SCENES, script.STEPS)
    losses, curve = LOG["losses_of_100_steps"], list(LOG["panoptic_quality_after_steps"].values())
    assert len(losses) == script.STEPS // 100 and losses[-1] < 0.5 * losses[0]
    assert len(curve) == script.STEPS // 500 and curve[-1] > curve[0]
    assert pooch.file_hash(script.FILE) == WEIGHTS["street_mask2former"].sha256
    size = script.FILE.stat().st_size
    assert size == pytest.approx(WEIGHTS["street_mask2former"].mebibytes * 2**20, rel=0.02) and size < 2 * 2**20


def test_the_numbers_in_the_log_are_those_of_the_file(model: Mask2Former) -> None:
    measured = script.measure(model, script.draw(*script.HELD_OUT))
    assert measured == pytest.approx(LOG["on_new_scenes"], abs=0.002)
    assert measured["panoptic_quality"] > 0.5 and measured["semantic_miou"] > 0.5
    assert measured["instance_mask_ap50"] > 0.5


@torch.no_grad()
def test_streets_of_other_sizes(model: Mask2Former) -> None:
    image = torch.rand(1, 3, 96, 160)
    image[0] = draw_street((11, 0))["image"]
    outputs = model(image)
    ((seg, info),) = panoptic_inference(outputs, THINGS, score_threshold=script.SURE)
    assert seg.shape == (96, 160) and len(info) > 3 and {one["category_id"] for one in info} <= set(range(len(CLASSES)))
    assert semantic_inference(outputs).shape == (1, len(CLASSES), 96, 160)
    (found,) = instance_inference(outputs, THINGS, score_threshold=script.SURE)
    assert set(found["labels"].tolist()) <= set(THINGS) and found["masks"].shape[1:] == (96, 160)


def test_segments_of_the_tasks() -> None:
    (scene,) = script.draw(3, 1)
    drawn = draw_street((3, 0), script.SIZE)
    assert torch.equal(script.semantic(scene), drawn["semantic"].as_subclass(torch.Tensor))
    panoptic, instance, semantic = (script.segments(scene, task) for task in ("panoptic", "instance", "semantic"))
    assert torch.equal(instance["masks"], drawn["masks"].as_subclass(torch.Tensor))
    assert torch.equal(instance["labels"], drawn["labels"])
    said = drawn["semantic"].as_subclass(torch.Tensor) != VOID
    for found in (panoptic, semantic):
        assert torch.equal(found["masks"].sum(dim=0), said.long())
    assert len(panoptic["labels"]) == len(drawn["segments_info"]) <= script.QUERIES
    assert len(semantic["labels"]) == len(set(semantic["labels"].tolist()))


def test_the_script_trains_and_again_to_the_same_bytes(model: Mask2Former) -> None:
    trained = []
    for _ in range(2):
        torch.manual_seed(0)
        small = script.street_mask2former()
        script.start_from_street_vgg(small.backbone)
        losses = script.train(small, script.Streets(script.draw(5, 16)), steps=4, every=2)
        assert len(losses) == 2 and losses[-1] < losses[0] and not small.training
        trained.append(small.state_dict())
    assert trained[0].keys() == model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in trained), strict=True))
