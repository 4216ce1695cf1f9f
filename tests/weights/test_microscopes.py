"""The small networks of real microscope images: files, cards, exposure, and the figures of the cards."""

from __future__ import annotations

import json
from pathlib import Path

import pooch
import pytest
import torch
from safetensors.torch import load_file

from segedu.datasets.folder import SegmentationFolder
from segedu.recipes.data import Sets, normalize_exposure
from segedu.recipes.microscope_data import read_kinds
from segedu.recipes.own_images import read_pair, split_names
from segedu.recipes.recipe import load_recipe
from segedu.weights import WEIGHTS, load
from segedu.weights.catalogue_microscopes import FILES
from segedu.weights.own import microscopes

each = pytest.mark.parametrize("name", FILES)
KINDS = {"nuclei_grouped": ("val", "fluo_other")}  # a few images, which are quick


def card_of(name: str) -> dict:
    return json.loads((microscopes.FOLDER / f"{name}.json").read_text())


@each
def test_the_card_is_of_the_recipe_and_says_where_the_data_are_from(name: str) -> None:
    card, file = card_of(name), microscopes.FOLDER / f"{name}.safetensors"
    method, data = microscopes.NETWORKS[name]
    recipe = load_recipe(method, data)
    assert (card["method"], card["steps"], card["seed"]) == (method, recipe.steps, 0)
    assert f"segedu train {method} --data {data}" in card["command"] and card["data"] and card["licence_of_data"]
    assert pooch.file_hash(file) == WEIGHTS[name].sha256 and file.stat().st_size <= 2 * 2**20
    assert file.stat().st_size == pytest.approx(WEIGHTS[name].mebibytes * 2**20, rel=0.02)
    baseline, own = card["on_held_out_images"].values()
    assert own["test"]["all"]["instance_accuracy"] > baseline["test"]["all"]["instance_accuracy"] + 0.05


@each
@torch.no_grad()
def test_the_network_normalises_any_exposure(name: str) -> None:
    """A bright image, the same one much darker, and its negative give almost the same outputs."""
    model = load(name)
    stored = load_file(microscopes.FOLDER / f"{name}.safetensors")
    assert {value.dtype for value in stored.values()} <= {torch.float16, torch.int64} and not model.training
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 48) ** 3
    key = "logits" if microscopes.NETWORKS[name][0] == "stardist" else "flows"
    outputs, darker, negative, other = (model(one)[key] for one in (image, 0.2 * image, 1 - image, image.flip(-1)))
    changed = (outputs - other).abs().mean()
    assert torch.allclose(outputs, darker, atol=1e-3) and changed > 0.1
    assert (outputs - negative).abs().mean() < 0.5 * changed  # its percentiles are not exactly the same pixels


@each
def test_the_figure_of_the_card_is_that_of_the_file(name: str, shared_data: Path) -> None:
    method, data = microscopes.NETWORKS[name]
    split, kind = KINDS[data]
    recipe, folder = load_recipe(method, data), SegmentationFolder(shared_data / data)
    kinds = read_kinds(shared_data / data)
    names = [one for one in split_names(folder)[split] if kinds.get(one, "all") == kind]
    pairs = [read_pair(folder, one) for one in names]
    pairs = [((normalize_exposure(image) * 255).round() / 255, target) for image, target in pairs]
    measured = microscopes.measure(load(name), recipe, Sets(None, {split: {"all": pairs}}))
    value = measured[split]["all"]["instance_accuracy"]
    expected = card_of(name)["on_held_out_images"]["in half precision"][split][kind]["instance_accuracy"]
    assert len(pairs) >= 4 and value == pytest.approx(expected, abs=0.01)


def test_only_the_run_of_the_recipe_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microscopes, "find_recipe", lambda method, data: (load_recipe(method, data), None))
    (tmp_path / "result.json").write_text(json.dumps({"method": "cellpose", "data": "nuclei_grouped"}))
    with pytest.raises(ValueError, match="run is of cellpose on nuclei_grouped, expected stardist on nuclei_grouped"):
        microscopes.store("nuclei_stardist", tmp_path, tmp_path)
