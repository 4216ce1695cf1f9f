"""A run folder is of one run: other data, another recipe or an older checkpoint are refused, more steps extend it."""

from __future__ import annotations

import builtins
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from segedu.cli import app
from segedu.losses.cross_entropy import cross_entropy
from segedu.recipes import run as experiment
from segedu.recipes import run_plan
from segedu.recipes.baselines import Otsu
from segedu.recipes.data import Pairs, Sets, flip
from segedu.recipes.recipe import Recipe
from segedu.recipes.run import run_recipe
from segedu.recipes.task import SEMANTIC
from segedu.training import checkpoints
from segedu.training.checkpoints import Stopped, load_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[1]


def square(top: int, left: int, side: int = 9) -> tuple[Tensor, Tensor]:
    target = torch.zeros(24, 24, dtype=torch.int64)
    target[top : top + side, left : left + side] = 1
    return (0.2 + 0.6 * target).expand(3, -1, -1).clone(), target


def squares(seed: int, folder: Path | None, shift: int = 0, corrected: bool = False) -> Sets:
    train = [square(2 + i, 12 - i + shift) for i in range(6)]
    if corrected:
        train[3][1][0, 0] = 1
    return Sets(Pairs(train, flip), {"val": {"round": [square(8, 7)]}})


def network(dilation: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=dilation, dilation=dilation), nn.ReLU(), nn.Conv2d(4, 2, 1))


TINY = Recipe(
    method="unet",
    data="squares",
    task=SEMANTIC,
    classes=("background", "square"),
    build=network,
    loss=cross_entropy,
    sets=squares,
    baseline=Otsu,
    steps=12,
    batch_size=3,
    learning_rate=0.01,
    metric="foreground_iou",
    target=0.5,
    cpu_minutes=0.1,
    gpu_minutes=0.1,
)
WITH = partial(dataclasses.replace, TINY)


def run(out: Path, recipe: Recipe = TINY, **options: object) -> dict:
    return run_recipe(recipe, out, accelerator="cpu", progress=False, **options)


def weights(out: Path) -> dict[str, Tensor]:
    return load_checkpoint(out / "checkpoint.pt")["model"]


# --- what a checkpoint is of --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        (WITH(sets=partial(squares, shift=1)), "training_data"),
        (WITH(sets=partial(squares, corrected=True)), "training_data.*changed"),
        (WITH(method="res_unet"), "method 'unet', expected method 'res_unet'"),
        (WITH(classes=("background", "box")), "classes"),
        (WITH(learning_rate=0.02), "learning_rate 0.01, expected learning_rate 0.02"),
        (WITH(build=partial(network, 2)), "network"),
        (WITH(batch_size=2), "batch_size 3, expected batch_size 2"),
        (WITH(loss=nn.CrossEntropyLoss()), "loss"),
        (WITH(collate=torch.utils.data.default_collate), "preprocessing"),
    ],
    ids=["data", "a corrected mask", "method", "classes", "learning rate", "network", "batch", "loss", "preprocessing"],
)
def test_a_run_of_something_else_is_refused(tmp_path: Path, recipe: Recipe, named: str) -> None:
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"belongs to a run with {named}.*--fresh.*--out"):
        run(tmp_path, recipe)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    anew = run(tmp_path, recipe, fresh=True)
    assert anew["resumed_from"] == 0 and anew["training_data"] == run_plan.data_digest(recipe.sets(0, None).train.pairs)


def test_the_result_says_which_data_it_is_of(tmp_path: Path) -> None:
    result = run(tmp_path / "a", folder=tmp_path / "somewhere")
    other = run(tmp_path / "b", WITH(sets=partial(squares, corrected=True)))
    assert result["folder"] == str(tmp_path / "somewhere") and other["folder"] is None
    assert len(result["training_data"]) == 16 and result["training_data"] != other["training_data"]
    assert load_checkpoint(tmp_path / "a" / "checkpoint.pt")["about"]["classes"] == ["background", "square"]


def test_another_seed_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ValueError, match="belongs to a run with seed 0, expected seed 1"):
        run(tmp_path, seed=1)


def test_a_checkpoint_of_an_earlier_version_is_refused_and_readable(tmp_path: Path) -> None:
    run(tmp_path)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    del state["about"], state["trained"]["extended"]  # as they were written before
    save_checkpoint(tmp_path / "checkpoint.pt", state)
    with pytest.raises(ValueError, match="an earlier version and does not describe its data and recipe.*--fresh"):
        run(tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["trained"]["step"] == 12


def test_the_digest_sees_values_shapes_kinds_and_order() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    digests = [
        run_plan.data_digest(values)
        for values in (
            [(a, b)], [(b, a)], [(a,), (b,)], [(a.double(), b)], [(a[None], b)], [(a, {"boxes": b})],
            [(a, {"masks": b})], [(a, torch.zeros(0))], [(a, [{"id": 1}])], [(a, [{"id": 2}])],
        )
    ]  # fmt: skip
    assert len(set(digests)) == len(digests)
    assert run_plan.data_digest([(a.clone(), b)]) == digests[0] == run_plan.data_digest(((a, b),))


# --- longer and shorter runs --------------------------------------------------------------------------------------


def test_more_steps_extend_a_run(tmp_path: Path) -> None:
    """The rates are those of a run of 20 steps from step 12 on, with the optimizer's moments of the first 12."""
    run(tmp_path / "straight", steps=20)
    first = weights_after(tmp_path, 12)
    longer = run(tmp_path / "run", steps=20)
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    straight = load_checkpoint(tmp_path / "straight" / "checkpoint.pt")
    assert longer["steps"] == 20 and longer["resumed_from"] == 12 and longer["extended"] == [[12, 12]]
    assert state["scheduler"]["_last_lr"] == straight["scheduler"]["_last_lr"]
    assert state["optimizer"]["param_groups"] == straight["optimizer"]["param_groups"]
    assert not torch.equal(state["model"]["0.weight"], first["0.weight"])
    assert len(state["trained"]["losses"]) == 20


def weights_after(tmp_path: Path, steps: int) -> dict[str, Tensor]:
    run(tmp_path / "run", steps=steps)
    return weights(tmp_path / "run")


def test_the_learning_rates_of_an_extended_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step those of the schedule of all steps, as a straight run has them."""
    used: list[float] = []
    real = torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        used.append(self.param_groups[0]["lr"])
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    run(tmp_path / "straight", steps=20)
    straight, used[:] = list(used), []
    run(tmp_path / "run", steps=12)
    used.clear()
    run(tmp_path / "run", steps=20)
    assert used == pytest.approx(straight[12:], abs=0)


def test_the_recipe_s_steps_extend_a_shorter_run(tmp_path: Path) -> None:
    run(tmp_path, steps=4)
    assert run(tmp_path)["steps"] == 12


def test_fewer_steps_than_were_taken_are_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ValueError, match="contains 12 of 12 steps, but steps is 5"):
        run(tmp_path, steps=5)


def test_more_minutes_extend_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_plan, "steps_in", lambda minutes, *others: int(100 * minutes))
    assert run(tmp_path, minutes=0.13)["steps"] == 13
    monkeypatch.setattr(run_plan, "steps_in", lambda minutes, *others: int(110 * minutes))  # as fast as it is today
    assert run(tmp_path, minutes=0.13)["steps"] == 13  # the same limit is the same run
    longer = run(tmp_path, minutes=0.2)
    assert longer["steps"] == 22 and longer["resumed_from"] == 13
    with pytest.raises(ValueError, match="contains 22 of 22 steps, but steps is 14"):
        run(tmp_path, minutes=0.13)


def test_minutes_are_measured_where_an_epoch_has_one_batch() -> None:
    sets = squares(0, None)
    sets.train.pairs = sets.train.pairs[:3]
    assert run_plan.steps_in(0.001, TINY, network(), sets) >= 10


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 20])
def test_any_number_of_steps(tmp_path: Path, steps: int) -> None:
    assert run(tmp_path, steps=steps)["steps"] == steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3, "minutes": 1.0}, "only one of the two"),
        ({"steps": 0}, "steps is 0"),
        ({"minutes": 0.0}, "minutes is 0, expected a number above 0"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"minutes": float("inf")}, "minutes is inf"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**70}, "seed is"),
    ],
)
def test_limits_that_no_run_can_have(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_the_table_says_from_where_a_run_went_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segedu.recipes.recipe.load_recipe", lambda method, data: WITH(data="shapes"))

    def printed(*words: str) -> str:
        outcome = CliRunner().invoke(app, ["train", "unet", "--accelerator", "cpu", "--out", str(tmp_path), *words])
        assert outcome.exit_code == 0, outcome.output
        return " ".join(outcome.output.split())

    assert "--fresh" not in printed("--steps", "3")
    assert "All steps were already taken" in printed("--steps", "3")
    assert "This run was planned with 3 steps and now has 5: from step 3 on" in printed("--steps", "5")


# --- stopped, killed, no room -------------------------------------------------------------------------------------


SCRIPT = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores Ctrl-C
sys.path.insert(0, "tests")
import test_run_identity as t
def slow(logits, target):
    time.sleep(0.1)
    return t.cross_entropy(logits, target)
slow.__module__, slow.__qualname__ = t.cross_entropy.__module__, t.cross_entropy.__qualname__
t.run(Path(sys.argv[1]), t.WITH(loss=slow), steps=40)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_process_writes_all_its_steps(tmp_path: Path, number: int) -> None:
    """Every step is in the checkpoint, also those since the last hundred, and the end is that of a straight run."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "run")]
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, cwd=ROOT, env=threads, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    taken = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["trained"]["step"]
    assert process.returncode != 0 and 0 < taken < 40 and f"Stopped after step {taken} of 40" in said
    resumed, straight = run(tmp_path / "run", steps=40), run(tmp_path / "straight", steps=40)
    assert resumed["resumed_from"] == taken and resumed["rows"] == straight["rows"]
    assert all(
        torch.equal(value, weights(tmp_path / "straight")[key]) for key, value in weights(tmp_path / "run").items()
    )


def interrupted_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process Ctrl-C in the middle of a step, before the optimizer moves."""
    taken = []

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        taken.append(0)
        if len(taken) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return cross_entropy(logits, target)

    monkeypatch.setattr(experiment, "fit", lambda m, l, _, o, fit=experiment.fit, **given: fit(m, l, loss, o, **given))


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C works as usual, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_step_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupted_at(7, patch)
        with pytest.raises(Stopped, match="after step 7 of 12"):
            run(tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before
    assert run(tmp_path / "run")["resumed_from"] == 7
    run(tmp_path / "straight")
    assert all(
        torch.equal(value, weights(tmp_path / "run")[key]) for key, value in weights(tmp_path / "straight").items()
    )


@pytest.mark.usefixtures("ctrl_c")
def test_the_command_says_that_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segedu.recipes.recipe.load_recipe", lambda method, data: WITH(data="shapes"))
    interrupted_at(4, monkeypatch)
    outcome = CliRunner().invoke(app, ["train", "unet", "--accelerator", "cpu", "--out", str(tmp_path)])
    assert outcome.exit_code == 128 + signal.SIGINT
    said = outcome.stderr.splitlines()[-1]
    assert said.startswith("Stopped after step 4 of 12.") and said.endswith("the same command resumes from it.")


class FullDisk(io.BytesIO):
    def __init__(self, file) -> None:
        super().__init__()
        self.file = file

    def write(self, data) -> int:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        self.file.close()


def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segedu.recipes.recipe.load_recipe", lambda method, data: WITH(data="shapes"))
    train = ["train", "unet", "--accelerator", "cpu", "--out", str(tmp_path)]
    assert CliRunner().invoke(app, [*train, "--steps", "3"]).exit_code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "open", lambda *args: FullDisk(builtins.open(*args)), raising=False)
        outcome = CliRunner().invoke(app, [*train, "--steps", "5"])
    assert outcome.exit_code == 1 and "No space left on device" in outcome.stderr.splitlines()[-1]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert CliRunner().invoke(app, [*train, "--steps", "5"]).exit_code == 0
    assert json.loads((tmp_path / "result.json").read_text())["steps"] == 5


def test_fresh_keeps_the_run_until_the_data_are_known_to_be_right(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def broken(seed: int, folder: Path | None) -> Sets:
        raise ValueError("a.png is no readable image")

    with pytest.raises(ValueError, match="no readable image"):
        run(tmp_path, WITH(sets=broken), fresh=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
