"""Recipes on real photographs: on miniature folders of each layout, and the stored weights on the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from segedu.metrics.confusion import confusion_matrix
from segedu.metrics.semantic import mean_iou_from_confusion
from segedu.recipes.evaluation import evaluate_run
from segedu.recipes.photos import RECIPES, ReducedForest
from segedu.recipes.recipe import Recipe, find_recipe, load_recipe
from segedu.recipes.reduced_network import Reduced
from segedu.recipes.run import run_recipe
from segedu.recipes.starting_weights import Start, names_as_in
from segedu.recipes.trained_run import load_run
from segedu.semantic.unet import UNet
from segedu.weights import WEIGHTS, load
from segedu.weights.catalogue_recipes import PHOTO_FILES
from segedu.weights.own import photo_recipes

SIZE = (72, 100)


def write_pair(images: Path, masks: Path, name: str, classes: tuple[int, ...]) -> None:
    """A photograph of stripes, one for each class, from left to right."""
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    target = np.resize(np.repeat(classes, -(-SIZE[1] // len(classes)))[: SIZE[1]], SIZE).astype(np.uint8)
    noise = np.random.default_rng(len(name)).integers(0, 30, (*SIZE, 3))
    Image.fromarray((20 * target[..., None] % 200 + noise).astype(np.uint8)).save(images / f"{name}.jpg", quality=95)
    Image.fromarray(target).save(masks / f"{name}.png")


def miniature(root: Path, data: str) -> Path:
    """A folder with the layout of a real data set."""
    folder = root / data
    (folder / "splits").mkdir(parents=True)
    splits = {"train": [f"a{i}" for i in range(9)], "val": ["b0", "b1"], "test": ["c0"]}
    classes = {"pets": (0, 1, 2), "aerial": (0, 1, 2, 3, 4, 255), "camvid": tuple(range(12))}[data]
    if data == "camvid":
        splits = {"train": splits["train"], "val_spaced": ["b0"], "test": ["c0"]}
    for split, names in splits.items():
        (folder / "splits" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names if (data, split) != ("camvid", "test") else ():  # the test frames are not in the folder
            place = folder if data != "camvid" else folder / {"train": "train", "val_spaced": "val"}[split]
            write_pair(place / "images", place / "masks", name, classes)
    return folder


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.method} on {recipe.data}")
def test_a_recipe_trains_a_step_and_is_measured_on_original_pixels(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = miniature(tmp_path, recipe.data)
    monkeypatch.setenv("SEGEDU_DATA", str(tmp_path))
    assert find_recipe(recipe.method, recipe.data) == (recipe, folder)
    sets = recipe.sets(0, folder)
    images, targets = zip(*(sets.train[i] for i in range(len(sets.train))), strict=True)
    assert {image.shape[1:] for image in images} == {target.shape for target in targets} and len(images) == 9
    classes = set(torch.stack(targets).unique().tolist())
    assert classes <= {*range(len(recipe.classes)), 255} and len(classes) > 2  # the ignored class is void
    result = run_recipe(recipe, tmp_path / "run", folder=folder, steps=1, accelerator="cpu", progress=False)
    expected = {"val_spaced"} if recipe.data == "camvid" else {"val", "test"}
    assert [set(rows) for rows in result["rows"].values()] == [expected, expected]
    for groups in sets.held_out.values():
        assert all(image.shape[1:] == target.shape == SIZE for image, target in groups["all"])


def test_the_seed_decides_the_views_and_not_the_photographs(tmp_path: Path) -> None:
    recipe, folder = load_recipe("fcn8", "pets"), miniature(tmp_path, "pets")
    first, second = (recipe.sets(seed, folder).train for seed in (0, 1))
    assert torch.equal(first.pairs[0][0], second.pairs[0][0])
    assert not torch.equal(first[0][0], first[0][0])  # every access gives another view


class Colours(nn.Module):
    """Logits are the first two channels of the image, and the width of the image as it arrived is kept."""

    def forward(self, images: Tensor) -> Tensor:
        self.size = tuple(images.shape[-2:])
        return torch.stack([images[:, 0], images[:, 1] * torch.linspace(0, 1, images.shape[-1])], dim=1)


def test_a_reduced_network_sees_reduced_images_and_their_mirror_images() -> None:
    network = Reduced(Colours(), longest_side=40).eval()
    assert network(torch.rand(2, 3, 61, 90)).shape == (2, 2, 61, 90) and network.network.size == (27, 40)
    small = torch.rand(1, 3, 20, 30)
    plain = network.network(small).softmax(dim=1)
    mirrored = network.network(small.flip(-1)).softmax(dim=1).flip(-1)
    assert torch.allclose(network(small).softmax(dim=1), (plain + mirrored) / 2, atol=1e-6)
    assert torch.equal(network.train()(small), network.network(small))  # not in training


def test_the_forest_learns_from_reduced_images() -> None:
    halves = torch.zeros(120, 160, dtype=torch.int64)
    halves[:, 80:] = 1
    pairs = [(0.2 + 0.5 * halves.expand(3, -1, -1) + 0.02 * torch.rand(3, 120, 160), halves) for _ in range(3)]
    forest = ReducedForest(pairs, 2, longest_side=40)
    assert (forest(pairs[0][0][None]).argmax(dim=1)[0] == halves).float().mean() > 0.97
    assert forest.name == "Forest on 5x5 windows, longest side 40"


def test_a_large_photograph_is_reduced_as_a_whole(tmp_path: Path) -> None:
    recipe, folder = load_recipe("fcn8", "pets"), miniature(tmp_path, "pets")
    run_recipe(recipe, tmp_path / "run", folder=folder, steps=1, accelerator="cpu", progress=False)
    run = load_run(tmp_path / "run")
    sizes = []
    run.model.network.register_forward_pre_hook(lambda module, args: sizes.append(tuple(args[0].shape[-2:])))
    assert run.predict(torch.rand(3, 700, 1400)).shape == (700, 1400)
    assert set(sizes) == {(64, 128)}


def test_the_evaluation_of_a_run_gives_the_figure_of_its_training(tmp_path: Path) -> None:
    recipe, folder = load_recipe("fcn8", "pets"), miniature(tmp_path, "pets")
    result = run_recipe(recipe, tmp_path / "run", folder=folder, steps=3, accelerator="cpu", progress=False)
    for split in ("val", "test"):
        figures = evaluate_run(load_run(tmp_path / "run"), folder, split, progress=False).figures
        assert figures["mean_iou"] == pytest.approx(result["rows"]["fcn8"][split]["all"]["mean_iou"], abs=1e-6)


def test_weights_move_between_a_network_and_a_reduced_one() -> None:
    plain = UNet(3, 2, base_channels=4, depth=1, padding=1)
    reduced = Reduced(UNet(3, 2, base_channels=4, depth=1, padding=1), 64)
    assert names_as_in(plain, reduced.state_dict()).keys() == plain.state_dict().keys()
    assert names_as_in(reduced, plain.state_dict()).keys() == reduced.state_dict().keys()
    assert names_as_in(plain, plain.state_dict()).keys() == plain.state_dict().keys()


# --- stored weights -----------------------------------------------------------------------------------------------

each = pytest.mark.parametrize("name", PHOTO_FILES)


def log_of(name: str) -> dict:
    return json.loads((photo_recipes.FOLDER / f"{name}.json").read_text())


@each
def test_the_card_is_of_the_recipe_as_it_is(name: str) -> None:
    log, file = log_of(name), photo_recipes.FOLDER / f"{name}.safetensors"
    recipe = load_recipe(log["method"], log["data"])
    assert (f"{log['data']}_{log['method']}", log["steps"]) == (name, recipe.steps)
    assert pooch.file_hash(file) == WEIGHTS[name].sha256 and file.stat().st_size < 2e6
    assert file.stat().st_size == pytest.approx(WEIGHTS[name].mebibytes * 2**20, rel=0.02)
    assert {"licence_of_the_images", "split", "command", "script", "seed"} <= log.keys()
    assert log["command"].startswith(f"segedu train {log['method']} --data {log['data']}")
    assert log["data"] != "camvid"  # whose images have no licence
    model = load(name)
    with torch.no_grad():
        assert model(torch.rand(1, 3, 90, 140)).shape == (1, len(recipe.classes), 90, 140)


@each
def test_the_weights_reach_the_figure_of_their_card(name: str, shared_data: Path) -> None:
    log = log_of(name)
    recipe = load_recipe(log["method"], log["data"])
    pairs = recipe.sets(0, shared_data / log["data"]).held_out["test"]["all"]
    model = load(name)
    size = len(recipe.classes)
    matrices = [
        confusion_matrix(recipe.task.predict(model, image), target, size, ignore_index=255) for image, target in pairs
    ]
    figures = log["on_held_out_photographs"]
    expected = figures["in half precision"]["test"]["all"]["mean_iou"]
    assert float(mean_iou_from_confusion(sum(matrices))) == pytest.approx(expected, abs=0.003)
    gain = expected - next(iter(figures.values()))["test"]["all"]["mean_iou"]
    assert gain > 0.2


def test_a_run_of_another_recipe_is_not_stored(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"data": "pets", "method": "fcn8"}))
    with pytest.raises(ValueError, match="of fcn8 on pets, expected encoder_unet on pets"):
        photo_recipes.store("pets_encoder_unet", tmp_path, tmp_path)


def test_own_images_can_start_from_the_pets() -> None:
    from segedu.recipes.photo_networks import build_for_photos

    model = build_for_photos("encoder_unet", 3)  # another number of classes
    about = Start("pets_encoder_unet").apply(model)
    stored = load("pets_encoder_unet").state_dict()
    assert about["copied"] == len(stored) - 2  # all but the weight and the bias of the last layer
    name = "backbone.features.0.weight"
    assert torch.equal(model.state_dict()[name], stored[f"network.{name}"])
