"""Exact resumption of training: checkpoint files, random states, the order of samples, and interruption by Ctrl-C.

The order of samples and the random transforms of each sample depend only on (seed, epoch, index). A checkpoint is
written to a temporary file that is then renamed, so there is a complete checkpoint on the disk at every moment. Loading
a checkpoint executes no code from the file. A checkpoint contains a description of its run, such as its data and batch
size, and a run with a different description refuses to resume from it. Ctrl-C takes effect at the end of a training
step, so a checkpoint never contains the state in the middle of a step.
"""

from __future__ import annotations

import io
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler


def random_state(cuda: bool = True) -> dict[str, Any]:
    """States of the random number generators of torch, numpy and Python, as plain values and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda and torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the states that `random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` atomically: after a crash, `path` is either the complete old or the complete new file.

    Raises:
        OSError: the folder cannot be written or the disk is full. An existing checkpoint is unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # the data must be on the disk before the file is renamed
        os.replace(temporary, path)
    except OSError as error:
        previous = "the previous checkpoint is unchanged" if path.is_file() else "there was no checkpoint before"
        with suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, f"cannot write the checkpoint ({error.strerror}); {previous}", str(path)) from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint that `save_checkpoint` wrote onto the CPU, without executing code from the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises many types of errors on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a readable checkpoint ({reason}): delete it to start again") from error
    if not isinstance(state, dict) or not {"model", "run", "trained"} <= state.keys():
        raise ValueError(f"{path} is not a checkpoint of segedu.training.fit, expected the keys model, run and trained")
    return state


def check_same_run(
    path: str | Path, state: dict[str, Any], run: dict[str, Any], metadata: dict[str, Any] | None, extend: bool
) -> None:
    """Raise a ValueError if a checkpoint belongs to another run, does not describe its run, or has taken more steps.

    Args:
        path: path of the checkpoint, for the message.
        state: content of the checkpoint.
        run: number of steps, seed, samples, batch size and processes of the run that resumes.
        metadata: description of the run that resumes, as in `fit`.
        extend: whether the number of steps and `metadata["limits"]` may differ.
    """
    advice = "start again (segedu train --fresh, or delete the checkpoint) or give another path (--out)"
    saved = state.get("about")
    if metadata is not None and saved is None:
        raise ValueError(
            f"checkpoint {path} was written by an earlier version and does not describe its data and recipe, "
            f"expected one that does: {advice}"
        )
    saved, current = {**state["run"], **(saved or {})}, {**run, **(metadata or {})}
    may_differ = ("steps", "limits") if extend else ()
    names = [name for name in {**current, **saved} if saved.get(name) != current.get(name) and name not in may_differ]
    if names:
        actual, expected = (", ".join(f"{name} {record.get(name)!r}" for name in names) for record in (saved, current))
        reason = " (images or masks were changed)" if "training_data" in names else ""
        raise ValueError(f"checkpoint {path} belongs to a run with {actual}, expected {expected}{reason}: {advice}")
    taken, planned = state["trained"]["step"], state["run"]["steps"]
    if run["steps"] != planned and run["steps"] <= taken:
        raise ValueError(
            f"checkpoint {path} contains {taken} of {planned} steps, but steps is {run['steps']}: "
            f"give more than {taken} to extend the run, {planned} to repeat its result, or {advice}"
        )


class Stopped(KeyboardInterrupt):
    """Training stopped between two steps because of Ctrl-C or SIGTERM, after its checkpoint was written.

    `signal` is the number of the signal.
    """

    def __init__(self, path: str | Path, step: int, steps: int, signal_number: int) -> None:
        super().__init__(
            f"Stopped after step {step} of {steps}. The checkpoint {path} is written: the same command resumes from it."
        )
        self.signal = signal_number


class StopRequest:
    """Context manager that only records the first Ctrl-C or SIGTERM, in `signal`; the second one acts as usual.

    Only the main thread of Python can handle signals, so nothing is recorded in another thread.
    """

    def __init__(self, active: bool = True) -> None:
        self.signal = 0
        self._active = active and threading.current_thread() is threading.main_thread()
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for signal_number in (signal.SIGINT, signal.SIGTERM) if self._active else ():
            handler = signal.getsignal(signal_number)
            if handler not in (None, signal.SIG_IGN):  # None: a handler that was not installed by Python
                self._handlers[signal_number] = signal.signal(signal_number, self._record)
        return self

    def _record(self, signal_number: int, frame: Any) -> None:
        self.signal = signal_number
        self._restore()

    def _restore(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def __exit__(self, *error: object) -> None:
        self._restore()


class EpochSampler(Sampler):
    """Sample the indices of one epoch in a random order that depends only on (seed, epoch).

    It yields pairs (epoch, index). With `world_size` processes, each process takes every `world_size`-th entry of the
    order. All processes take the same number of entries, and the remaining entries are dropped in this epoch. A process
    skips the first `first` of its entries, which it has used before a restart.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed
        self.epoch, self.first = 0, 0
        self.rank, self.world_size = 0, 1

    def __len__(self) -> int:
        return self.length // self.world_size - self.first

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        entries = order[: self.length // self.world_size * self.world_size][self.rank :: self.world_size]
        return ((self.epoch, int(index)) for index in entries[self.first :])


class _SeededSamples(Dataset):
    """Seed every global random number generator with (seed, epoch, index) for each sample, and restore it afterwards.

    Therefore a random crop is the same in every worker process, and after a restart.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        state_before = random_state(cuda=False)
        seed = int(np.random.SeedSequence((self.seed, *key)).generate_state(1)[0])
        torch.random.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            return self.dataset[key[1]]
        finally:
            set_random_state(state_before)


def shuffled_loader(
    dataset: Dataset,
    batch_size: int,
    *,
    seed: int = 0,
    collate_fn: Callable | None = None,
    num_workers: int = 0,
    drop_last: bool = True,
) -> DataLoader:
    """A loader that `fit` can resume in the middle of an epoch.

    The order and the random transforms depend only on (seed, epoch, index), and not on the number of workers or on
    random numbers that were drawn before.

    Args:
        dataset: any map-style data set.
        batch_size: samples per batch, on each device.
        seed: seed of the order and of the samples' random transforms.
        collate_fn: combines samples into a batch, as in torch.
        num_workers: number of processes that load samples.
        drop_last: drop the last batch of an epoch if it is incomplete.

    Returns:
        A DataLoader whose sampler is an `EpochSampler`.
    """
    if batch_size < 1 or seed < 0 or num_workers < 0:
        raise ValueError(
            f"batch_size is {batch_size}, seed is {seed} and num_workers is {num_workers}, expected at least 1, 0 and 0"
        )
    needed = batch_size if drop_last else 1
    if len(dataset) < needed:
        raise ValueError(f"dataset has {len(dataset)} samples, expected at least {needed} for one batch")
    return DataLoader(
        _SeededSamples(dataset, seed),
        batch_size=batch_size,
        sampler=EpochSampler(len(dataset), seed),
        collate_fn=collate_fn,
        num_workers=num_workers,
        drop_last=drop_last,
        generator=torch.Generator(),  # otherwise every pass over the loader would draw from the global generator
    )
