"""The loop, the loader's order, and fit: resumed after SIGKILL it ends with the same bits."""

from __future__ import annotations

import builtins
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from segedu.losses.cross_entropy import cross_entropy
from segedu.training import (
    checkpoints,
    evaluate,
    fit,
    loop,
    shuffled_loader,
    start_fabric,
    to_device,
    train_one_epoch,
    train_steps,
)
from segedu.training.checkpoints import load_checkpoint, random_state, save_checkpoint, set_random_state

ROOT = Path(__file__).resolve().parents[1]


class Noisy(Dataset):
    """Samples that draw from every global generator; so does the net, by its drop-out."""

    def __init__(self, length: int = 11) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.rand(1, 6, 6) + float(np.random.rand()) + index
        return image, (image[0] > image.mean()).long()


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(4, 2, 1))


def train(checkpoint: Path | None = None, *, steps: int = 14, pause: float = 0.0, workers: int = 0, **options):
    """Train the same net in the same way; 5 batches an epoch, a checkpoint every 3 steps."""
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    loader = shuffled_loader(Noisy(), 2, seed=3, num_workers=workers)

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        time.sleep(pause)
        return cross_entropy(logits, target)

    options = {
        "checkpoint_every": 3,
        "progress": False,
        "scheduler": schedule,
        "fabric": start_fabric("cpu"),
        **options,
    }
    return model, fit(model, loader, loss, optimizer, steps=steps, checkpoint=checkpoint, **options)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


# --- resuming ---------------------------------------------------------------------------------------------------


def test_resumes_exactly_after_sigkill(tmp_path: Path) -> None:
    """The middle of an epoch, in another process, killed without warning."""
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    code = (
        "import sys, pathlib, torch; torch.set_num_threads(int(sys.argv[2])); sys.path.insert(0, 'tests')\n"
        "from test_training import train\n"
        "train(pathlib.Path(sys.argv[1]), pause=0.15)"
    )
    threads = str(torch.get_num_threads())  # another number of threads adds up in another order
    process = subprocess.Popen([sys.executable, "-c", code, str(checkpoint), threads], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not (checkpoint.exists() and load_checkpoint(checkpoint)["trained"]["step"] >= 6):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = load_checkpoint(checkpoint)["trained"]["step"]
    assert 6 <= reached < 14
    resumed, record = train(checkpoint)
    straight, expected = train()
    assert record.resumed_from == reached and record.step == 14
    assert record.losses == expected.losses
    assert same(resumed, straight)


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop", [0, 1, 5, 6, 13])
def test_resumes_exactly_wherever_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    straight, _ = train()
    real = loop.train_steps

    def until(*args, **kwargs) -> Iterator[float]:
        for loss in real(*args, **kwargs):
            until.left -= 1
            if until.left < 0:
                raise Stop
            yield loss

    until.left = stop
    monkeypatch.setattr(loop, "train_steps", until)
    with pytest.raises(Stop):
        train(tmp_path / "c.pt")
    monkeypatch.setattr(loop, "train_steps", real)
    resumed, record = train(tmp_path / "c.pt")
    assert record.resumed_from == stop // 3 * 3 and same(resumed, straight)
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    first, _ = train(tmp_path / "c.pt")
    second, record = train(tmp_path / "c.pt")
    assert record.resumed_from == record.step == 14 and same(first, second)


def test_workers_change_nothing() -> None:
    alone, _ = train(steps=7)
    helped, _ = train(steps=7, workers=2)
    assert same(alone, helped)


def test_the_seed_decides_the_order_and_each_epoch_has_its_own() -> None:
    def epoch(seed: int, number: int) -> list[int]:
        sampler = shuffled_loader(Noisy(), 2, seed=seed).sampler
        sampler.epoch = number
        return [index for _, index in sampler]

    assert sorted(epoch(0, 0)) == list(range(11))
    assert epoch(0, 0) == epoch(0, 0) and epoch(0, 0) != epoch(0, 1) and epoch(0, 0) != epoch(1, 0)


def test_two_processes_share_an_epoch_without_overlap() -> None:
    shares = []
    for rank in (0, 1):
        sampler = shuffled_loader(Noisy(), 2).sampler
        sampler.rank, sampler.world_size = rank, 2
        shares.append([index for _, index in sampler])
        assert len(sampler) == len(shares[-1]) == 5
    assert not set(shares[0]) & set(shares[1])


def test_a_sample_leaves_the_global_generators_alone() -> None:
    before = random_state(), np.random.rand()
    set_random_state(before[0])
    shuffled_loader(Noisy(), 2).dataset[0, 4]
    assert np.random.rand() == before[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"steps": 15}, "belongs to a run"), ({"scheduler": None}, "contains .*'scheduler'")],
    ids=["other steps", "no schedule"],
)
def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    train(tmp_path / "c.pt")
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "c.pt", **change)


def test_a_checkpoint_that_does_not_fit_the_model(tmp_path: Path) -> None:
    train(tmp_path / "c.pt")
    state = load_checkpoint(tmp_path / "c.pt")
    state["model"]["0.weight"] = torch.zeros(1)
    save_checkpoint(tmp_path / "c.pt", state)
    with pytest.raises(ValueError, match="does not fit this model"):
        train(tmp_path / "c.pt")


# --- files that cannot be written or read -----------------------------------------------------------------------


class FullDisk(io.BytesIO):
    def __init__(self, file) -> None:
        super().__init__()
        self.file = file

    def write(self, data) -> int:
        self.file.write(bytes(data)[: len(data) // 2])
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        self.file.close()


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.pt"
    train(path, steps=3)
    old = path.read_bytes()
    monkeypatch.setattr(checkpoints, "open", lambda *args: FullDisk(builtins.open(*args)), raising=False)
    with pytest.raises(
        OSError, match=r"cannot write the checkpoint \(No space left on device\); the previous checkpoint is unch"
    ):
        save_checkpoint(path, {"model": {}})
    assert path.read_bytes() == old and [file.name for file in tmp_path.iterdir()] == ["c.pt"]


def test_a_folder_that_is_a_file_shows_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    start = time.monotonic()
    with pytest.raises(OSError, match="cannot write the checkpoint"):
        train(tmp_path / "file" / "c.pt", pause=60)
    assert time.monotonic() - start < 50


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="Permission denied"):
        train(tmp_path / "c.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.pt is not a readable checkpoint"):
        train(tmp_path / "c.pt")
    assert (tmp_path / "c.pt").read_bytes() == content


class Evil:
    def __reduce__(self):
        return os.system, ("echo evil",)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    torch.save({"model": Evil(), "run": {}, "trained": {}}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "c.pt")


# --- the loop and evaluation ------------------------------------------------------------------------------------


def test_one_epoch_is_plain_gradient_descent() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    batches = [(torch.tensor([[1.0]]), torch.tensor([[0.0]]))] * 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    mean = train_one_epoch(model, batches, lambda out, y: ((out - y) ** 2).sum(), optimizer, progress=False)
    assert model.weight.item() == 0.25  # w <- w - 0.25 * 2 w, twice
    assert mean == (1 + 0.25) / 2


def test_named_losses_schedule_and_clipping() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    halve = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    batches = [(torch.tensor([[1.0]]), None)] * 2
    steps = train_steps(
        model, batches, lambda out, _: {"a": out, "loss": 100 * out.sum()}, optimizer, scheduler=halve, clip_norm=0.5
    )
    assert list(steps) == [100.0, 50.0]
    assert model.weight.item() == pytest.approx(1 - 0.5 - 0.25)


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_lost() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batches = [(torch.ones(1, 1, 4, 4), None)]
    with pytest.raises(ValueError, match="the loss is nan"):
        train_one_epoch(model, batches, lambda out, _: out.sum() * float("nan"), optimizer, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_evaluate_pools_pixels_over_images_of_any_size() -> None:
    model = nn.Identity().train()
    logits = torch.tensor([[[[0.0, 0.0, 0.0]], [[1.0, -1.0, 1.0]]]])  # labels 1 0 1
    batches = [(logits, torch.tensor([[[1, 0, 0]]])), (logits[..., :1], torch.tensor([[[1]]]))]
    result = evaluate(model, batches, 2)
    assert result["confusion"].tolist() == [[1, 1], [0, 2]]
    assert result["iou_per_class"] == pytest.approx([1 / 2, 2 / 3])
    assert result["mean_iou"] == pytest.approx(7 / 12) and result["pixel_accuracy"] == 0.75
    assert model.training  # left as it came
    ignored = evaluate(model, [(logits, torch.full((1, 1, 3), 255))], 2)
    assert np.isnan(ignored["mean_iou"])


def test_batches_move_with_their_structure() -> None:
    batch = [{"boxes": torch.zeros(1, 4), "name": "a"}, (torch.ones(2),)]
    moved = to_device(batch, torch.device("meta"))
    assert moved[0]["boxes"].device.type == moved[1][0].device.type == "meta" and moved[0]["name"] == "a"


def test_progress_shows_the_time_left(capfd: pytest.CaptureFixture) -> None:
    train(steps=2, progress=True)
    assert "2/2" in (shown := capfd.readouterr().err) and "loss=" in shown and "<" in shown


def test_float64_precision() -> None:
    model, record = train(steps=2, fabric=start_fabric("cpu", precision="64-true"))
    assert model[0].weight.dtype == torch.float64 and record.step == 2


# --- bad input --------------------------------------------------------------------------------------------------


def plain(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


MODEL = nn.Conv2d(1, 2, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shuffled_loader(Noisy(0), 1), "dataset has 0 samples"),
        (lambda: shuffled_loader(Noisy(3), 4), "dataset has 3 samples, expected at least 4"),
        (lambda: shuffled_loader(Noisy(), 0), "batch_size is 0"),
        (lambda: shuffled_loader(Noisy(), 2, seed=-1), "seed is -1"),
        (lambda: shuffled_loader(Noisy(), 2, num_workers=-1), "num_workers is -1"),
        (lambda: fit(MODEL, DataLoader(Noisy()), cross_entropy, plain(MODEL), steps=1), "expected a loader from"),
        (lambda: fit(MODEL, [], cross_entropy, plain(MODEL), steps=1), "sampler NoneType"),
        (lambda: fit(MODEL, shuffled_loader(Noisy(), 2), cross_entropy, plain(MODEL), steps=0), "steps is 0"),
        (
            lambda: fit(MODEL, shuffled_loader(Noisy(), 2), cross_entropy, plain(MODEL), steps=1, checkpoint_every=0),
            "checkpoint_every is 0",
        ),
        (lambda: train_one_epoch(MODEL, [], cross_entropy, plain(MODEL)), "loader has no batch"),
        (lambda: evaluate(MODEL, [], 2), "loader has no batch"),
        (lambda: evaluate(MODEL, [(torch.rand(1, 1, 4, 4), torch.zeros(1, 5, 5).long())], 2), "shape"),
        (lambda: evaluate(MODEL, [(torch.rand(1, 1, 4, 4), torch.full((1, 4, 4), 7))], 2), "7"),
        (lambda: load_checkpoint(ROOT / "no" / "such"), "No such file"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        call()


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="is not a checkpoint of segedu"):
        load_checkpoint(tmp_path / "c.pt")
