"""Validation during a training: the best weights, early stopping, resuming, and the files of a run."""

from __future__ import annotations

import csv
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

from segedu.cli import app
from segedu.recipes.own_recipe import own_recipe, validations_of
from segedu.recipes.run import run_recipe
from segedu.recipes.run_validation import Watch
from segedu.recipes.trained_run import load_run
from segedu.training import Validation, fit, load_checkpoint, shuffled_loader
from segedu.training.checkpoints import Stopped


class Line(nn.Module):
    """Slope and offset, with a dropout that draws random numbers in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.dropout = nn.Linear(2, 1), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.dropout(x))


def train(steps: int, path: Path | None = None, validation: Validation | None = None, **options: object) -> tuple:
    torch.manual_seed(3)
    x = torch.randn(24, 2)
    loader = shuffled_loader(TensorDataset(x, x.sum(1, keepdim=True)), 4, seed=5)
    model = Line()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    options |= {"steps": steps, "checkpoint": path, "validation": validation, "progress": False}
    trained = fit(model, loader, lambda y, t: ((y - t) ** 2).mean(), optimizer, checkpoint_every=4, **options)
    return model, trained


def scores_in_turn(*values: float) -> Callable[[nn.Module], float]:
    left = list(values)
    return lambda model: left.pop(0)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_model_is_left_with_the_best_weights() -> None:
    kept: list[dict[str, Tensor]] = []

    def score(model: nn.Module) -> float:
        assert not model.training
        kept.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return (0.2, 0.7, 0.7, 0.1)[len(kept) - 1]

    validation = Validation(score, every=3)
    model, trained = train(10, validation=validation)
    assert validation.scores == {3: 0.2, 6: 0.7, 9: 0.7, 10: 0.1} and validation.best_step == 6
    assert same(model.state_dict(), kept[1]) and not same(kept[1], kept[2])
    assert trained.step == 10 and not validation.is_over


def test_a_validation_does_not_change_the_training() -> None:
    """Neither its random numbers nor the evaluation mode."""
    losses = train(12)[1].losses
    draws = Validation(lambda model: float(torch.rand(())), every=2)
    assert train(12, validation=draws)[1].losses == losses


def test_a_run_without_progress_ends_early_and_stays_ended(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    validation = Validation(scores_in_turn(0.1, 0.5, 0.4, 0.5, 0.9), every=2, patience=2)
    _, trained = train(30, path, validation)
    assert trained.step == 8 and validation.best_step == 4 and validation.is_over  # an equal score is no improvement
    again = Validation(scores_in_turn(), every=2, patience=2)
    model, trained = train(30, path, again)
    assert trained.step == 8 and same(model.state_dict(), validation.best)
    longer = Validation(scores_in_turn(0.3, 0.2), every=2, patience=4)
    assert train(30, path, longer)[1].step == 12


@pytest.mark.parametrize("stop_at", [3, 6, 7])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, stop_at: int) -> None:
    def score(model: nn.Module) -> float:
        return -float((model.layer.weight.detach().sum() - 1.3).abs())

    whole = Validation(score, every=3, patience=3)
    expected, course = train(20, tmp_path / "whole.pt", whole)

    def interrupt(name: str, value: float, step: int) -> None:
        if name == "loss" and step == stop_at:
            raise Stopped("", step, 20, 2)  # without a checkpoint at this step, as after a crash

    with pytest.raises(Stopped):
        train(20, tmp_path / "parts.pt", Validation(score, every=3, patience=3), log=interrupt)
    parts = Validation(score, every=3, patience=3)
    model, resumed = train(20, tmp_path / "parts.pt", parts)
    assert resumed.resumed_from == stop_at // 4 * 4 and resumed.losses == course.losses
    assert parts.scores == whole.scores and same(model.state_dict(), expected.state_dict())
    last, saved = (load_checkpoint(tmp_path / name) for name in ("whole.pt", "parts.pt"))
    assert same(last["model"], saved["model"]) and same(last["validation"]["best"], saved["validation"]["best"])


def test_wrong_arguments_and_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every is 0, expected at least 1 step"):
        Validation(lambda model: 1.0, 0)
    with pytest.raises(ValueError, match="patience is 0, expected at least 1 measurement"):
        Validation(lambda model: 1.0, 1, 0)
    for value in (float("nan"), None):
        with pytest.raises(ValueError, match="score after step 2 is (nan|None), expected a finite value"):
            train(4, validation=Validation(lambda model, value=value: value, 2))
    with pytest.raises(ValueError, match="patience is 5 and validations is 5, expected .* more validations"):
        Watch(5, 5)
    train(4, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="contains .*, expected .*'validation'"):
        train(8, tmp_path / "checkpoint.pt", Validation(lambda model: 1.0, 2), extend=True)


# --- own images ---------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight images with a bright left half of class 1."""
    rng = np.random.default_rng(0)
    for i in range(8):
        mask = np.zeros((40, 48), np.uint8)
        mask[:, : 16 + 2 * i] = 1
        pixels = (60 + 120 * mask[..., None] + rng.integers(0, 40, (40, 48, 3))).astype(np.uint8)
        for folder, array in (("images", pixels), ("masks", mask)):
            (tmp_path / "own" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "own" / folder / f"image_{i}.png")
    return tmp_path / "own"


def command(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, " ".join(done.output.split())


def test_the_command_keeps_the_best_weights_and_writes_the_scores(root: Path, tmp_path: Path) -> None:
    words = ("train", "unet", "--data", root, "--window", 32, "--accelerator", "cpu", "--out", tmp_path / "run")
    status, text = command(*words, "--steps", 6, "--validations", 3, "--patience", 1)
    assert status == 0 and "Validation: " in text and "The weights of that step are used." in text, text
    with (tmp_path / "run" / "validation.csv").open() as file:
        rows = {int(row["step"]): float(row["mean_iou"]) for row in csv.DictReader(file)}
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    best = result["validation"]["best_step"]
    assert set(rows) <= {2, 4, 6} and rows[best] == max(rows.values())
    assert result["rows"]["unet"]["val"]["all"]["mean_iou"] == pytest.approx(rows[best], abs=1e-6)
    run = load_run(tmp_path / "run")
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert run.steps == best and same(run.model.state_dict(), state["validation"]["best"])
    status, text = command(*words, "--steps", 6, "--validations", 2)
    assert status != 0 and "validations 3, expected validations 2" in text


def test_a_large_split_is_measured_in_part_and_without_val_nothing_is(root: Path, tmp_path: Path) -> None:
    (root / "splits").mkdir()
    (root / "splits" / "test.txt").write_text("image_0\n")
    assert validations_of(root, None, None) == 0
    for validations, patience in ((3, None), (None, 2)):
        with pytest.raises(ValueError, match="has the splits train, test, expected val for validations"):
            validations_of(root, validations, patience)
    status, text = command("train", "unet", "--data", root, "--patience", 2, "--out", tmp_path / "run")
    assert status != 0 and "expected val for validations" in text and not (tmp_path / "run").exists()
    (root / "splits" / "val.txt").write_text("image_1\n")
    assert validations_of(root, None, None) == 10 and validations_of(root, 0, None) == 0
    status, text = command("train", "unet", "--data", "cells", "--validations", 2)
    assert status != 0 and "are for a folder of your own, not for cells" in text.replace("│ ", "")


def test_tensorboard_is_optional(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[tuple[str, int], float] = {}
    places: list[str] = []

    class SummaryWriter:
        """Records what it is told to write."""

        def __init__(self, folder: str) -> None:
            places.append(folder)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written[name, step] = value

        def close(self) -> None:
            places.append("closed")

    monkeypatch.setattr("segedu.recipes.tensorboard_log.find_spec", lambda name: None)
    status, text = command("train", "unet", "--data", root, "--tensorboard", "--out", tmp_path / "run")
    assert status != 0 and "tensorboard is not installed: pip install tensorboard" in text
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr("segedu.recipes.tensorboard_log.find_spec", lambda name: "installed")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    watch = Watch(validations=2, tensorboard=True)
    recipe = own_recipe("unet", root, window=32)
    run_recipe(recipe, tmp_path / "run", folder=root, steps=2, accelerator="cpu", progress=False, watch=watch)
    assert set(written) == {("loss", 1), ("loss", 2), ("validation", 1), ("validation", 2)}
    assert places == [str(tmp_path / "run" / "tensorboard"), "closed"]
