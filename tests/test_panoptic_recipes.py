"""Recipes on streets: mirrored truth stays truth, quality by hand, the plain baseline, a step, a run and its picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from segedu.datasets.street import CLASSES, THINGS
from segedu.ops.masks import boxes_from_masks
from segedu.recipes.data import Sets
from segedu.recipes.panoptic import RECIPES, ForestComponents, Mirrored, stack_with_targets, street_examples
from segedu.recipes.run import run_recipe
from segedu.recipes.task import PANOPTIC, measure_panoptic
from segedu.training import shuffled_loader

ROAD, CAR = {"category_id": 0, "isthing": False}, {"category_id": 7, "isthing": True}


@pytest.fixture(scope="module")
def pairs():
    return street_examples(6, seed=5)


def test_mirrored_things_keep_their_masks(pairs) -> None:
    data, seen = Mirrored(pairs[:1]), set()
    image, truth = pairs[0]
    means = torch.stack([image[:, mask].mean(dim=1) for mask in truth["masks"]])
    torch.manual_seed(0)
    for _ in range(12):
        turned, found = data[0]
        assert torch.equal(found["boxes"], boxes_from_masks(found["masks"]))
        things = torch.isin(found["semantic"], torch.tensor(THINGS))
        assert torch.equal(things, found["masks"].any(dim=0))
        torch.testing.assert_close(torch.stack([turned[:, mask].mean(dim=1) for mask in found["masks"]]), means)
        seen.add(turned.numpy().tobytes())
    assert len(seen) == 2


def test_quality_by_hand() -> None:
    """The road is found whole; of two cars one is found, with an IoU of 3/4."""
    truth = {
        "panoptic_seg": torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2, 3, 3]]),
        "segments_info": [{"id": 1, **ROAD}, {"id": 2, **CAR}, {"id": 3, **CAR}],
    }
    found = {
        "panoptic_seg": torch.tensor([[1, 1, 1, 1, 0, 2, 2, 2, 0, 0]]),
        "segments_info": [{"id": 1, **ROAD}, {"id": 2, **CAR}],
    }
    sets = Sets(None, {"val": {"day": [(torch.zeros(3, 1, 10), truth)], "night": []}})
    table = measure_panoptic(lambda _: found, sets, 10)["val"]
    assert (
        table["all"]
        == table["day"]
        == pytest.approx({"pq": 0.75, "sq": 0.875, "rq": (1 + 2 / 3) / 2, "pq_things": 0.5, "pq_stuff": 1.0})
    )
    assert set(table["night"].values()) == {None}


def test_the_baseline_gives_each_pixel_to_one_segment(pairs) -> None:
    baseline = ForestComponents(pairs, len(CLASSES))
    (found,) = baseline(pairs[0][0][None])
    ids = [segment["id"] for segment in found["segments_info"]]
    assert ids == list(range(1, len(ids) + 1)) == [i for i in found["panoptic_seg"].unique().tolist() if i]
    stuff = [segment["category_id"] for segment in found["segments_info"] if not segment["isthing"]]
    assert stuff and len(set(stuff)) == len(stuff)
    sets = Sets(None, {"val": {"all": pairs[:2]}})
    assert measure_panoptic(lambda image: baseline(image[None])[0], sets, 10)["val"]["all"]["pq"] > 0


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.method)
def test_a_run_takes_steps_and_writes_figures_and_picture(recipe, pairs, tmp_path: Path) -> None:
    assert recipe.task is PANOPTIC and recipe.baseline is ForestComponents
    batch, targets = next(iter(shuffled_loader(Mirrored(pairs), 2, collate_fn=recipe.collate)))
    torch.manual_seed(0)
    losses = recipe.loss(recipe.build()(batch), targets)
    assert losses["loss"].isfinite()
    sets = Sets(Mirrored(pairs[:3]), {"val": {"all": pairs[3:]}})
    row = replace(recipe, sets=lambda seed, folder: sets, batch_size=2)
    run_recipe(row, tmp_path, steps=2, accelerator="cpu", progress=False)
    table = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert set(table) == {ForestComponents.name, recipe.method}
    assert 0 <= table[recipe.method]["val"]["all"]["pq"] <= 1
    assert Image.open(tmp_path / "picture.png").width > 300


def test_a_batch_has_targets_in_the_networks_numbers(pairs) -> None:
    batch, targets = stack_with_targets(pairs[:2])
    assert batch["images"].shape == (2, 3, 96, 160) and batch["targets"] is targets
    for (_, truth), target in zip(pairs, targets, strict=False):
        assert torch.equal(target["labels"], truth["labels"] - 5)
        assert set(target["semantic"].unique().tolist()) <= {0, 1, 2, 3, 4, 5, 6, 255}
