"""The stored networks of recipes on real medical images: their cards, their size, and the figures of the cards."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pooch
import pytest
import torch
from safetensors.torch import load_file

from segedu.recipes.data import Sets
from segedu.recipes.recipe import load_recipe
from segedu.weights import WEIGHTS, load
from segedu.weights.catalogue_medical import MEDICAL_FILES
from segedu.weights.own import medical_recipes

each = pytest.mark.parametrize("name", MEDICAL_FILES)
BARS = {"hippocampus_unet3d": 0.86}  # on the test split


def log_of(name: str) -> dict:
    return json.loads((medical_recipes.FOLDER / f"{name}.json").read_text())


@each
def test_the_card_is_of_the_recipe_as_it_is(name: str) -> None:
    """A changed recipe asks for new weights, by the command and the script in the card."""
    log, file, row = log_of(name), medical_recipes.FOLDER / f"{name}.safetensors", MEDICAL_FILES[name]
    recipe = load_recipe(log["method"], log["data"])
    assert (f"{log['data']}_{log['method']}", log["steps"]) == (name, recipe.steps)
    assert pooch.file_hash(file) == row.sha256 == WEIGHTS[name].sha256
    assert file.stat().st_size == pytest.approx(row.mebibytes * 2**20, rel=0.02) and row.mebibytes <= 2
    assert (log["licence"], log["licence_of_the_images"]) == (row.licence, row.licence_of_the_images)
    assert WEIGHTS[name].licence == row.licence and log["images"] == WEIGHTS[name].trained_on == row.images
    assert f"segedu train {log['method']} --data {log['data']} " in log["command"] and log["split"] and log["seed"] == 0
    for split in ("val", "test"):
        plain, ours = (one[split]["all"][log["metric"]] for one in log["on_held_out_images"].values())
        assert ours > plain + 0.1
    assert ours >= BARS[name]


@each
def test_the_file_loads_in_full_precision(name: str) -> None:
    model = load(name)
    stored = load_file(medical_recipes.FOLDER / f"{name}.safetensors")
    assert {value.dtype for value in stored.values()} <= {torch.float16, torch.int64}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters()) and not model.training


@each
def test_the_file_reaches_the_figures_of_its_card(name: str, shared_data: Path) -> None:
    log = log_of(name)
    recipe = load_recipe(log["method"], log["data"])
    sets = recipe.sets(0, shared_data / log["data"])
    predict = partial(recipe.task.predict, load(name), postprocess=recipe.postprocess)
    test = Sets(sets.train, {"test": sets.held_out["test"]})
    measured = recipe.task.measure(predict, test, len(recipe.classes))["test"]["all"]
    logged = log["on_held_out_images"]["in half precision"]["test"]["all"]
    assert measured[log["metric"]] == pytest.approx(logged[log["metric"]], abs=0.005)


def test_another_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"data": "volume", "method": "unet3d"}')
    with pytest.raises(ValueError, match="of unet3d on volume, expected unet3d on hippocampus"):
        medical_recipes.store("hippocampus_unet3d", tmp_path)
    with pytest.raises(ValueError, match="name is 'bccd_detr', expected one of"):
        medical_recipes.store("bccd_detr", tmp_path)
