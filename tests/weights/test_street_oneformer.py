"""The small OneFormer: by which script, on which streets, and what it says of new ones when it is told each task."""

from __future__ import annotations

import json

import pooch
import pytest
import torch

from segedu.datasets.street import CLASSES, STREET_VERSION, THINGS
from segedu.panoptic.inference import instance_inference, panoptic_inference, semantic_inference
from segedu.panoptic.oneformer_text import TASKS
from segedu.weights import WEIGHTS, load
from segedu.weights.own import street_mask2former, street_oneformer
from segedu.weights.own.street_mask2former import HELD_OUT, draw
from segedu.weights.own.street_oneformer import FILE, STEPS, StreetsWithTasks, measure, reader, train

LOG = json.loads(FILE.with_suffix(".json").read_text())


def test_the_log_is_of_these_scenes() -> None:
    """A new version of the scenes asks for new weights: python -m segedu.weights.own.street_oneformer."""
    assert (LOG["street_version"], LOG["steps"]) == (STREET_VERSION, STEPS)
    losses = LOG["losses_of_100_steps"]
    assert len(losses) == STEPS // 100 and losses[-1] < 0.7 * losses[0]
    assert pooch.file_hash(FILE) == WEIGHTS["street_oneformer"].sha256
    size = FILE.stat().st_size
    assert size == pytest.approx(WEIGHTS["street_oneformer"].mebibytes * 2**20, rel=0.02) and size < 2 * 2**20


def test_each_task_is_within_three_hundredths_of_mask2formers() -> None:
    scenes = draw(*HELD_OUT)
    measured = measure(load("street_oneformer"), scenes)
    assert measured == pytest.approx(LOG["on_new_scenes"], abs=0.002)
    alone = json.loads(street_mask2former.FILE.with_suffix(".json").read_text())["on_new_scenes"]
    for name, number in measured.items():
        assert number > alone[name] - 0.03, name


@torch.no_grad()
def test_it_does_what_it_is_told() -> None:
    """Told to find instances it says next to no stuff; told to say classes it says each once, not each car."""
    model, scenes = load("street_oneformer"), draw(123, 8)
    said = {task: torch.zeros(len(CLASSES)) for task in TASKS}
    for scene in scenes:
        for task in TASKS:
            logits = model(scene["image"][None].float() / 255, tasks=task)["class_logits"][0]
            said[task] += logits.softmax(dim=-1)[:, :-1].sum(dim=0) / len(scenes)  # of each class so many queries
    stuff = [k for k in range(len(CLASSES)) if k not in THINGS]
    assert said["instance"][stuff].sum() < 0.1 * said["panoptic"][stuff].sum()
    assert said["semantic"][list(THINGS)].sum() < 0.6 * said["panoptic"][list(THINGS)].sum()


@torch.no_grad()
def test_streets_of_other_sizes() -> None:
    outputs = load("street_oneformer")(torch.rand(1, 3, 80, 112, generator=torch.Generator().manual_seed(0)))
    assert semantic_inference(outputs).shape == (1, len(CLASSES), 80, 112)
    assert instance_inference(outputs, THINGS)[0]["masks"].shape[1:] == (80, 112)
    assert panoptic_inference(outputs, THINGS)[0][0].shape == (80, 112)


def test_the_script_trains_and_again_to_the_same_bytes() -> None:
    trained, samples = [], StreetsWithTasks(draw(1, 16))
    for _ in range(2):
        torch.manual_seed(0)
        model = street_oneformer.street_oneformer(reader())
        losses = train(model, samples, steps=4, every=2)
        assert len(losses) == 2 and not model.training
        trained.append(model.state_dict())
    assert {key for key in trained[0] if not key.startswith("text.")} == set(load("street_oneformer").state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in trained), strict=True))
