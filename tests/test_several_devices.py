"""Several processes train as one with the same global batch; killed, they go on to the same weights.

Each run is a script of its own: Fabric starts the other processes by running the same script again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from segedu.training import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import json, os, sys, time
from pathlib import Path
import torch
from torch import nn
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)  # else Fabric hands out logits in float32
from segedu.datasets.cells import Cells
from segedu.losses.cross_entropy import cross_entropy
from segedu.recipes.data import Pairs, pairs_of, flip
from segedu.semantic.unet import UNet
from segedu.training import fit, shuffled_loader, start_fabric

devices, batch, out, normalized, pause = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
fabric = start_fabric("cpu", devices, "64-true")
torch.manual_seed(0)
model = UNet(3, 2, base_channels=4, depth=2, padding=1)
if normalized:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=12)
pairs = [(image.double(), target) for image, target in pairs_of(Cells(16, seed=1, size=(32, 32)))]
loader = shuffled_loader(Pairs(pairs, flip), batch, seed=5)

def loss(logits, target):
    time.sleep(pause)
    return cross_entropy(logits, target)

done = fit(model, loader, loss, optimizer, steps=12, scheduler=schedule, clip_norm=1.0, fabric=fabric,
           checkpoint=out / "checkpoint.pt", checkpoint_every=3, progress=False)
if fabric.is_global_zero:
    (out / "losses.json").write_text(json.dumps({"losses": done.losses, "resumed_from": done.resumed_from}))
"""


def start(folder: Path, devices: int, batch: int, normalized: bool = False, pause: float = 0.0) -> subprocess.Popen:
    """Start a run of 12 steps in a session of its own, with all its processes."""
    folder.mkdir(exist_ok=True)
    script = folder / "run.py"
    script.write_text(SCRIPT)
    arguments = [str(n) for n in (devices, batch, folder, int(normalized), pause)]
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("LOCAL_RANK", "MASTER_", "NODE_RANK", "WORLD_"))
    }
    with open(folder / "log", "w") as log:
        return subprocess.Popen(
            [sys.executable, str(script), *arguments],
            cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, start_new_session=True, stdout=log, stderr=log,
        )  # fmt: skip


def finish(folder: Path, *run: object, **options: object) -> dict:
    process = start(folder, *run, **options)
    assert process.wait(timeout=300) == 0, (folder / "log").read_text()[-2000:]
    return json.loads((folder / "losses.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint.pt")["model"]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """One process, batches of four."""
    folder = tmp_path_factory.mktemp("one") / "run"
    return folder, finish(folder, 1, 4)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Two processes, batches of two each."""
    folder = tmp_path_factory.mktemp("two") / "run"
    return folder, finish(folder, 2, 2)


def test_two_processes_give_the_loss_curve_of_one(one: tuple[Path, dict], two: tuple[Path, dict]) -> None:
    """The gradient of a mean is the mean of the gradients: in float64 nothing but rounding remains."""
    (alone, expected), (together, got) = one, two
    assert len(expected["losses"]) == 12 and expected["losses"][-1] < expected["losses"][0]
    assert got["losses"] == pytest.approx(expected["losses"], abs=1e-8, rel=0)
    for name, value in weights(alone).items():
        assert value.dtype == torch.float64 and torch.allclose(weights(together)[name], value, atol=1e-8, rtol=0)


def test_the_comparison_sees_another_batch(one: tuple[Path, dict], tmp_path: Path) -> None:
    """Two processes with batches of four are another training."""
    other = finish(tmp_path / "run", 2, 4)["losses"]
    assert max(abs(a - b) for a, b in zip(other, one[1]["losses"], strict=True)) > 1e-3


def test_batch_normalisation_differs(tmp_path: Path) -> None:
    """Each process normalises by its own two images, one process by all four: no rounding, another function."""
    alone = finish(tmp_path / "one", 1, 4, normalized=True)["losses"]
    together = finish(tmp_path / "two", 2, 2, normalized=True)["losses"]
    assert max(abs(a - b) for a, b in zip(alone, together, strict=True)) > 1e-4


def test_two_killed_processes_go_on_to_the_same_weights(two: tuple[Path, dict], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, 2, 2, pause=0.3)
    deadline = time.monotonic() + 200
    while not (
        (folder / "checkpoint.pt").exists() and load_checkpoint(folder / "checkpoint.pt")["trained"]["step"] >= 6
    ):
        assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reached = load_checkpoint(folder / "checkpoint.pt")["trained"]["step"]
    assert 6 <= reached < 12
    resumed = finish(folder, 2, 2)
    assert resumed["resumed_from"] == reached and resumed["losses"] == two[1]["losses"]
    assert all(torch.equal(value, weights(two[0])[name]) for name, value in weights(folder).items())
