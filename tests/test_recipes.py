"""Recipes: the rows are whole, a run writes what it says, goes on after a stop, and reaches its quality."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
import tomllib
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from segedu.cli import app
from segedu.datasets.data_folder import REAL_DATA
from segedu.recipes import data as recipe_data
from segedu.recipes import run as experiment
from segedu.recipes.baselines import Otsu, Thresholds, WindowForest, gaussian_otsu
from segedu.recipes.data import Pairs, Sets, crop_flip_gamma, crop_mirror, flip, normalize_exposure
from segedu.recipes.loss import PixelsAndOverlap
from segedu.recipes.recipe import FAMILIES, NAMES, Recipe, find_recipe, load_recipe, quick_layout
from segedu.recipes.run import run_recipe
from segedu.recipes.run_table import summary
from segedu.recipes.street_vgg import street_vgg
from segedu.recipes.task import SEMANTIC, semantic_scores
from segedu.semantic.unet import UNet
from segedu.training import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
BASELINE = Otsu.name


def disc(row: float, column: float, radius: float = 5, size: int = 24) -> tuple[Tensor, Tensor]:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    target = ((rows - row) ** 2 + (columns - column) ** 2 < radius**2).long()
    return (0.2 + 0.6 * target).expand(3, -1, -1).clone(), target


def discs(seed: int, folder: Path | None) -> Sets:
    train = [disc(8 + i, 14 - i) for i in range(6)]
    return Sets(Pairs(train, flip), {"val": {"round": [disc(12, 11)], "none": [disc(0, 0, 0)]}})


TINY = Recipe(
    method="unet",
    data="discs",
    task=SEMANTIC,
    classes=("background", "disc"),
    build=lambda: UNet(3, 2, base_channels=4, depth=1, padding=1),
    loss=PixelsAndOverlap(),
    sets=discs,
    baseline=Otsu,
    steps=12,
    batch_size=3,
    learning_rate=0.01,
    metric="foreground_iou",
    target=0.5,
    cpu_minutes=0.1,
    gpu_minutes=0.1,
)


# --- a run --------------------------------------------------------------------------------------------------------


def test_a_run_writes_figures_picture_and_checkpoint(tmp_path: Path) -> None:
    result = run_recipe(TINY, tmp_path, accelerator="cpu", progress=False)
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert list(result["rows"]) == [BASELINE, "unet"]  # the plain baseline comes first
    assert set(result["rows"]["unet"]["val"]) == {"all", "round", "none"}
    assert result["rows"][BASELINE]["val"]["round"]["foreground_iou"] > 0.7
    assert result["steps"] == 12 and result["training_cpu_seconds"] > 0
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 300
    assert (tmp_path / "picture.png").stat().st_size < 150_000
    lines = (tmp_path / "losses.csv").read_text().splitlines()
    assert lines[0] == "step,loss" and len(lines) == 13 and lines[12].startswith("12,")
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "losses.csv", "result.json", "picture.png"}
    header, lines = summary(result)
    assert header[:2] == ["method", "val"] and [line[0] for line in lines] == [BASELINE, "unet"]


def test_a_stopped_run_goes_on_to_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = run_recipe(TINY, tmp_path / "a", accelerator="cpu", progress=False)
    real = experiment.fit

    def killed(*args, **options):
        options["checkpoint_every"] = 5
        taken = 0

        def loss(logits: Tensor, target: Tensor):
            nonlocal taken
            taken += 1
            if taken == 8:
                raise KeyboardInterrupt
            return TINY.loss(logits, target)

        return real(args[0], args[1], loss, args[3], **options)

    monkeypatch.setattr(experiment, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(TINY, tmp_path / "b", accelerator="cpu", progress=False)
    monkeypatch.setattr(experiment, "fit", real)
    resumed = run_recipe(TINY, tmp_path / "b", accelerator="cpu", progress=False)
    assert resumed["rows"]["unet"] == straight["rows"]["unet"]


def test_minutes_become_steps_and_a_restart_keeps_them(tmp_path: Path) -> None:
    first = run_recipe(TINY, tmp_path, minutes=0.01, accelerator="cpu", progress=False)
    again = run_recipe(TINY, tmp_path, minutes=0.01, accelerator="cpu", progress=False)
    assert first["steps"] >= 10 and again["steps"] == first["steps"]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = dataclasses.replace(TINY, data="shapes")
    monkeypatch.setattr("segedu.recipes.recipe.load_recipe", lambda method, data: tiny)
    outcome = CliRunner().invoke(app, ["train", "unet", "--steps", "3", "--seed", "1", "--out", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    table = outcome.output
    assert table.index(BASELINE) < table.index("│ unet")
    assert "target 0.5; seed 1, 3 steps" in table and (tmp_path / "result.json").is_file()
    claims = tomllib.loads((ROOT / "tests" / "claims.toml").read_text())["claim"]
    for figure in [claim["figure"] for claim in claims if claim["name"].startswith("U-Net on")]:
        assert len(re.search(figure, table, re.M).groups()) == 3
    again = CliRunner().invoke(app, ["train", "unet", "--steps", "4", "--fresh", "--out", str(tmp_path)])
    assert again.exit_code == 0 and "seed 0, 4 steps" in again.output


def test_the_command_names_what_there_is() -> None:
    outcome = CliRunner().invoke(app, ["train", "vnet", "--data", "shapes"], env={"COLUMNS": "300"})
    assert outcome.exit_code == 2 and "no recipe trains 'vnet' on 'shapes'" in outcome.output


def test_help_does_not_import_torch() -> None:
    code = "import sys; from segedu.cli import app; assert not {'torch', 'lightning_fabric'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --- rows and parts -----------------------------------------------------------------------------------------------


ROWS = [load_recipe(*name) for name in NAMES]
SEMANTIC_ROWS = [row for row in ROWS if row.task is SEMANTIC]


def test_every_name_leads_to_its_recipe() -> None:
    assert [(row.method, row.data) for row in ROWS] == list(NAMES)
    modules = [import_module(f"segedu.recipes.{family}") for family in FAMILIES]
    assert sum(len(module.RECIPES) for module in modules) == len(NAMES)  # no recipe without a name
    listed = [method for data_sets in FAMILIES.values() for methods in data_sets.values() for method in methods]
    assert len(listed) == len(NAMES)  # no name twice


LOOK_UP = """
import sys
from segedu.recipes.recipe import find_recipe
from segedu.recipes.run import run_recipe
find_recipe("unet", "shapes")[0].build()
print(*sorted(name for name in sys.modules if name.startswith("segedu.")))
"""


def test_the_recipe_of_unet_imports_no_other_method() -> None:
    """Neither Mask2Former nor SAM, in particular; in a fresh process."""
    output = subprocess.run([sys.executable, "-c", LOOK_UP], cwd=ROOT, check=True, capture_output=True, text=True)
    modules = set(output.stdout.split())
    assert {"segedu.semantic.unet", "segedu.recipes.run"} <= modules
    tasks = ("semantic", "detection", "instance", "panoptic", "promptable")
    methods = {name for name in modules if name.startswith(tuple(f"segedu.{task}." for task in tasks))}
    assert methods == {"segedu.semantic.unet"}
    assert not modules & {"segedu.panoptic.mask2former", "segedu.promptable"}


def test_help_of_train_imports_no_recipe() -> None:
    code = """
import sys
from typer.testing import CliRunner
from segedu.cli import app
outcome = CliRunner().invoke(app, ["train", "unet", "--help"])
assert outcome.exit_code == 0, outcome.output
assert not {"torch", "segedu.panoptic", "segedu.promptable"} & set(sys.modules)
recipes = {name for name in sys.modules if name.startswith("segedu.recipes.")}
assert recipes == {"segedu.recipes.commands", "segedu.recipes.data_command"}, recipes
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("row", SEMANTIC_ROWS, ids=lambda row: f"{row.method} on {row.data}")
def test_semantic_rows_are_complete(row: Recipe) -> None:
    """The others are in test_cell_recipes.py, test_shape_recipes.py and test_panoptic_recipes.py."""
    assert row.metric in ("mean_iou", "foreground_iou", "dice", "foreground_dice") and 0 < row.target < 1
    is_volume = row.data in ("volume", "hippocampus")
    images = torch.rand(2, 1, 8, 16, 24) if is_volume else torch.rand(2, 3, 64, 112)
    target = torch.zeros(2, *images.shape[2:], dtype=torch.int64)
    logits = row.build()(images)
    assert logits.shape == (2, len(row.classes), *images.shape[2:])
    loss = row.loss(logits, target)
    assert torch.isfinite(loss["loss"] if isinstance(loss, dict) else loss)


def test_loss_by_hand() -> None:
    """Two pixels, logits 0: cross-entropy log 2, Dice of a class with one of them 2 * 0.5 / (2 * 0.5**2 + 1)."""
    logits, target = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    parts = PixelsAndOverlap(background=True)(logits, target)
    assert parts["cross_entropy"].item() == pytest.approx(math.log(2))
    assert parts["dice"].item() == pytest.approx(1 / 3, abs=1e-4)
    assert parts["loss"].item() == pytest.approx(math.log(2) + 1 / 3, abs=1e-4)
    logits[:, 1, 0, 1] = 2.0
    plain, heavy = (PixelsAndOverlap(weights)(logits, target)["cross_entropy"] for weights in (None, (1.0, 9.0)))
    assert heavy < plain  # the class that is right counts more


def test_quick_layout_leaves_nets_with_strided_1x1_convolutions_alone() -> None:
    def layout(net: nn.Module) -> bool:
        return net[0].weight.is_contiguous(memory_format=torch.channels_last)

    assert layout(quick_layout(nn.Sequential(nn.Conv2d(4, 4, 3, stride=2), nn.Conv2d(4, 4, 1))))
    assert not layout(quick_layout(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, stride=2))))


def test_the_encoder_comes_with_its_weights() -> None:
    whole, first = street_vgg().state_dict(), street_vgg(3).state_dict()
    assert len(first) < len(whole) and all(torch.equal(tensor, whole[name]) for name, tensor in first.items())
    assert whole["features.1.running_var"].std() > 0  # it has seen images


SYNTHETIC = {row.data: row for row in SEMANTIC_ROWS if row.data not in REAL_DATA}


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache folder of the test's own."""
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path))
    recipe_data.street_pairs.cache_clear()
    yield
    recipe_data.street_pairs.cache_clear()


@pytest.mark.parametrize("row", SYNTHETIC.values(), ids=SYNTHETIC)
def test_synthetic_sets_are_seeded_and_apart(row: Recipe, own_cache: None) -> None:
    three = partial(row.sets, train=3, held_out=3)
    sets, again, other = three(0, None), three(0, None), three(1, None)
    image, held_out = sets.train.pairs[0][0], sets.held_out["val"]["all"][0][0]
    assert torch.equal(image, again.train.pairs[0][0])
    assert not torch.equal(image, held_out) and not torch.equal(image, other.train.pairs[0][0])
    assert not torch.equal(held_out, other.train.pairs[0][0])


def test_streets_are_kept_and_a_damaged_file_is_drawn_anew(own_cache: None, tmp_path: Path) -> None:
    images, targets = recipe_data.cached_streets(3, 5)
    (file,) = tmp_path.glob("street-*")
    first = file.read_bytes()
    for damaged in (first[: len(first) // 2], b"", b"no tensors"):
        file.write_bytes(damaged)
        again = recipe_data.cached_streets(3, 5)
        assert torch.equal(again[0], images) and torch.equal(again[1], targets) and file.read_bytes() == first
    kept = recipe_data.cached_streets(3, 5)
    assert torch.equal(kept[0], images) and not list(tmp_path.glob("*.part"))
    scene = recipe_data.draw_street((5, 0))
    assert (images[0] / 255 - scene["image"]).abs().max() <= 0.5001 / 255 and torch.equal(
        targets[0], scene["semantic"].byte()
    )


def test_streets_come_without_a_folder_to_keep_them(
    own_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path / "file"))
    assert recipe_data.cached_streets(3, 6)[0].shape == (3, 3, 96, 160)


def test_streets_are_cropped_and_mirrored_but_never_turned() -> None:
    rows = torch.arange(96.0)[:, None].expand(96, 160)
    image, target = rows.expand(3, -1, -1) / 96, torch.arange(160).expand(96, 160)
    mirrored = set()
    for seed in range(20):
        torch.manual_seed(seed)
        part, truth = crop_mirror(image, target)
        assert part.shape == (3, 64, 112) and truth.shape == (64, 112)
        assert (part[0, 1:] > part[0, :-1]).all()  # up stays up
        mirrored.add(bool(truth[0, 0] > truth[0, -1]))
    assert mirrored == {False, True}


def test_baselines_by_hand() -> None:
    """Thresholds find bright discs; the forest also one whose place alone tells it."""
    pairs = [disc(8 + i, 14 - i) for i in range(4)]
    image, target = disc(11, 11)
    for baseline in (Otsu, Thresholds, WindowForest):
        labels = baseline(pairs, 2)(image[None]).argmax(dim=1)[0]
        assert (labels == target).float().mean() > 0.9, baseline.name
    halves = torch.zeros(24, 24, dtype=torch.int64)
    halves[12:] = 1
    noise = [(torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(i)), halves) for i in range(3)]
    right = [
        (make(noise[:2], 2)(noise[2][0][None]).argmax(dim=1)[0] == halves).float().mean()
        for make in (Thresholds, WindowForest)
    ]
    assert right[0] < 0.7 and right[1] > 0.85


def test_flip_moves_image_and_target_together() -> None:
    image = torch.arange(12.0).reshape(1, 3, 4)
    seen = set()
    for size in (3, 4):
        for seed in range(60):
            torch.manual_seed(seed)
            flipped, target = flip(image[..., :size], image[0, :, :size].long())
            assert torch.equal(flipped[0].long(), target) and target.unique().numel() == 3 * size
            seen.add((size, *target.flatten().tolist()))
    assert sum(key[0] == 3 for key in seen) == 8 and sum(key[0] == 4 for key in seen) == 4


def test_crops_keep_image_and_target_together() -> None:
    torch.manual_seed(0)
    image, target = disc(20, 30, radius=9, size=48)
    for _ in range(10):
        part, truth = crop_flip_gamma(image, target, size=32)
        assert part.shape == (3, 32, 32) and truth.shape == (32, 32) and 0 <= part.min() and part.max() <= 1
        assert torch.equal(part[0] > part[0].min(), truth.bool()) or truth.unique().numel() == 1


def test_normalize_exposure_makes_nuclei_bright_whatever_the_stain() -> None:
    image, target = disc(12, 11)
    dim, inverted = normalize_exposure(0.1 * image), normalize_exposure(1 - image)
    for evened in (dim, inverted):
        assert torch.equal(evened[0] > 0.5, target.bool()) and evened.min() == 0 and evened.max() == 1
    assert torch.equal(normalize_exposure(torch.full((3, 4, 4), 0.3)), torch.zeros(3, 4, 4))


def test_scores_by_hand() -> None:
    matrix = torch.tensor([[5, 1, 0], [1, 2, 1], [0, 0, 2]])
    assert semantic_scores(matrix)["foreground_iou"] == pytest.approx(5 / 7)  # a wrong foreground class is foreground
    assert semantic_scores(matrix)["dice"] == pytest.approx((4 / 7 + 4 / 5) / 2)
    assert semantic_scores(matrix)["mean_iou"] == pytest.approx((5 / 7 + 2 / 5 + 2 / 3) / 3)
    assert semantic_scores(matrix)["foreground_dice"] == pytest.approx(10 / 12)  # 5 of 6 and 6 voxels agree
    assert semantic_scores(matrix)["dice_1"] == pytest.approx(4 / 7)
    assert semantic_scores(matrix)["dice_2"] == pytest.approx(4 / 5)
    undefined = {"dice": None, "foreground_iou": None, "foreground_dice": None}  # two classes have no dice_1
    assert semantic_scores(torch.tensor([[4, 0], [0, 0]])) == undefined | {"mean_iou": 1.0}
    assert semantic_scores(torch.zeros(2, 2)) == undefined | {"mean_iou": None}


def test_gaussian_otsu() -> None:
    image, target = disc(12, 11)
    assert (gaussian_otsu(image) == target.bool()).float().mean() > 0.97
    assert torch.equal(gaussian_otsu(1 - image), gaussian_otsu(image))  # the smaller side is foreground
    assert not gaussian_otsu(torch.full((3, 8, 8), 0.5)).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_recipe("vnet", "shapes"), "no recipe trains 'vnet'"),
        (lambda: find_recipe("vnet", "street"), "expected one of: unet on shapes"),
        (lambda: find_recipe("unet", "nuclei"), "no recipe trains 'unet' on 'nuclei'"),
        (lambda: load_recipe("unet", "nuclei_grouped").sets(0, None), "folder is None"),
        (lambda: gaussian_otsu(torch.rand(8, 8)), "image has shape"),
        (lambda: gaussian_otsu(torch.rand(3, 0, 8)), "image has shape"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- quality ------------------------------------------------------------------------------------------------------


@pytest.mark.prove
@pytest.mark.parametrize("data", ["shapes", "cells"])
def test_a_recipe_reaches_its_target_within_its_budget(tmp_path: Path, data: str) -> None:
    recipe, _ = find_recipe("unet", data)
    result = run_recipe(recipe, tmp_path, accelerator="cpu", progress=False)
    rows = result["rows"]
    assert rows["unet"]["val"]["all"][recipe.metric] >= recipe.target
    assert rows["unet"]["val"]["all"][recipe.metric] > rows[BASELINE]["val"]["all"][recipe.metric]
    assert result["training_cpu_seconds"] <= 60 * recipe.cpu_minutes


@pytest.mark.learns
def test_the_shapes_recipe_begins_to_learn_within_seconds(tmp_path: Path) -> None:
    """The quick sister of the test above."""
    recipe, _ = find_recipe("unet", "shapes")
    run_recipe(recipe, tmp_path, steps=40, accelerator="cpu", progress=False)
    losses = load_checkpoint(tmp_path / "checkpoint.pt")["trained"]["losses"]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
