"""The networks of the recipes that pages show: by which run, in half precision, and what they predict on new scenes."""

from __future__ import annotations

import json
from functools import partial

import pooch
import pytest
import torch
from safetensors.torch import load_file

from segedu.recipes.recipe import load_recipe
from segedu.weights import WEIGHTS, load
from segedu.weights.catalogue_recipes import FILES
from segedu.weights.own import making, recipes

# The recipe's target is 0.70, and its three seeds once ended at 0.716 to 0.719. Sources, data and half precision are
# not the cause of the lower value: seed 0 ends at 0.6902 also with the sources of that time, and before the weights are
# stored in half precision. The seed does not fix the result, because kernels for other instructions round differently:
# with those for AVX2 (ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2) the same seed ends at 0.7142, with those for
# AVX-512 at 0.6902.
BELOW_TARGET = {"street_res_unet"}
each = pytest.mark.parametrize("name", FILES)


def log_of(name: str) -> dict:
    return json.loads((recipes.FOLDER / f"{name}.json").read_text())


def score(log: dict, row: str) -> float:
    """The recipe's metric on its first held-out split."""
    return next(iter(log["on_new_scenes"][row].values()))["all"][log["metric"]]


@each
def test_the_log_is_of_the_recipe_as_it_is(name: str) -> None:
    """A changed recipe asks for new weights: python -m segedu.weights.own.recipes with the name."""
    log, file = log_of(name), recipes.FOLDER / f"{name}.safetensors"
    recipe = load_recipe(log["method"], log["data"])
    assert (f"{log['data']}_{log['method']}", log["steps"], log["seed"]) == (name, recipe.steps, making.SEED)
    assert pooch.file_hash(file) == WEIGHTS[name].sha256
    assert file.stat().st_size == pytest.approx(WEIGHTS[name].mebibytes * 2**20, rel=0.02)
    baseline = next(iter(log["on_new_scenes"]))
    assert score(log, "in half precision") > score(log, baseline) + 0.1
    assert (score(log, "in half precision") >= recipe.target) == (name not in BELOW_TARGET)


@each
@torch.no_grad()
def test_the_file_loads_in_full_precision_and_predicts(name: str) -> None:
    log, model = log_of(name), load(name)
    stored = load_file(recipes.FOLDER / f"{name}.safetensors")
    assert {value.dtype for value in stored.values()} <= {torch.float16, torch.int64}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters()) and not model.training
    recipe = load_recipe(log["method"], log["data"])
    shape = (1, 16, 32, 32) if log["data"] == "volume" else (3, 64, 96)
    prediction = recipe.task.predict(model, torch.rand(*shape), postprocess=recipe.postprocess)
    if isinstance(prediction, dict) and "boxes" in prediction:
        assert prediction["boxes"].shape == (len(prediction["scores"]), 4) and prediction["boxes"].isfinite().all()
    else:
        labels = prediction["panoptic_seg"] if isinstance(prediction, dict) else prediction
        assert labels.shape == shape[1:] and not labels.is_floating_point() and labels.min() >= 0


def test_a_short_run_writes_both_files(tmp_path) -> None:
    file = recipes.make("cells_signed_distance", tmp_path, steps=2)
    log = json.loads(file.with_suffix(".json").read_text())
    assert log["steps"] == 2 and 0 <= score(log, "in half precision") <= 1
    assert len(load_file(file)) == len(load_file(recipes.FOLDER / file.name))


@pytest.mark.prove
@each
def test_the_numbers_in_the_log_are_those_of_the_file(name: str) -> None:
    log = log_of(name)
    recipe = load_recipe(log["method"], log["data"])
    predict = partial(recipe.task.predict, load(name), postprocess=recipe.postprocess)
    measured = recipe.task.measure(predict, recipe.sets(making.SEED, None), len(recipe.classes))
    value = next(iter(measured.values()))["all"][log["metric"]]
    assert value == pytest.approx(score(log, "in half precision"), abs=0.005)
    print(f"{name}: {log['metric']} {value:.4f}")
