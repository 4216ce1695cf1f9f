"""What a run needs to go on exactly where it stopped: the order of samples, random states, and files.

The order of samples and the randomness inside each depend on (seed, epoch, index) only. A checkpoint is
written beside the old one and then renamed, so at every moment there is one whole checkpoint on the disk; it is
read without running any code that it may hold. A checkpoint says what it is of, and training goes on from it only
where that is what is trained now. Ctrl-C waits for the end of a step, so that no checkpoint holds half of one.
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
    """States of the random generators of torch, numpy and Python, as plain values and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda and torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` so that, whenever the process dies, `path` is the old file or the new one.

    Raises:
        OSError: the folder cannot be written or the disk is full; a checkpoint that was there is untouched.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.tmp")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # on the disk before the name points at it
        os.replace(beside, path)
    except OSError as error:
        kept = "the checkpoint written before it is untouched" if path.is_file() else "no checkpoint was there"
        with suppress(OSError):
            beside.unlink()
        raise OSError(error.errno, f"cannot write the checkpoint ({error.strerror}); {kept}", str(path)) from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, onto the CPU; no code in the file is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises many kinds on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a readable checkpoint ({reason}): delete it to begin anew") from error
    if not isinstance(state, dict) or not {"model", "run", "trained"} <= state.keys():
        raise ValueError(f"{path} is not a checkpoint of segedu.training.fit: it has no model, run and position")
    return state


def check_same_run(
    path: str | Path, state: dict[str, Any], run: dict[str, Any], about: dict[str, Any] | None, extend: bool
) -> None:
    """Refuse to go on from a checkpoint of something else.

    Args:
        path: of the checkpoint, for the message.
        state: what it holds.
        run: number of steps, seed, samples, batch size and processes of the run that wants to go on.
        about: what this run is of, as `fit` takes it.
        extend: whether the number of steps and `about["limits"]` may differ.

    Raises:
        ValueError: the checkpoint is of another run, or does not say of which, or has taken more steps.
    """
    anew = "begin anew (segedu train --fresh, or delete the checkpoint) or give another path (--out)"
    saved = state.get("about")
    if about is not None and saved is None:
        raise ValueError(
            f"checkpoint {path} was written by an earlier version and does not say which data and recipe it is of, "
            f"expected one that does: {anew}"
        )
    saved, now = {**state["run"], **(saved or {})}, {**run, **(about or {})}
    free = ("steps", "limits") if extend else ()
    names = [name for name in {**now, **saved} if saved.get(name) != now.get(name) and name not in free]
    if names:
        kept, wanted = (", ".join(f"{name} {of.get(name)!r}" for name in names) for of in (saved, now))
        why = " (images or masks are others, or were corrected)" if "training_data" in names else ""
        raise ValueError(f"checkpoint {path} is of the run with {kept}, expected {wanted}{why}: {anew}")
    taken, before = state["trained"]["step"], state["run"]["steps"]
    if run["steps"] != before and run["steps"] <= taken:
        raise ValueError(
            f"checkpoint {path} has already taken {taken} of {before} steps, and you ask for {run['steps']}: "
            f"give more than {taken} to extend the run, {before} to repeat its result, or {anew}"
        )


class Stopped(KeyboardInterrupt):
    """Training stopped between two steps, because of Ctrl-C or SIGTERM. The checkpoint holds all steps.

    `signal` is the number of the signal.
    """

    def __init__(self, path: str | Path, step: int, steps: int, number: int) -> None:
        super().__init__(
            f"Stopped after step {step} of {steps}. {path} holds them: the same command goes on from there."
        )
        self.signal = number


class StopRequest:
    """Inside `with`, the first Ctrl-C or SIGTERM is only noted, in `signal`; the second one acts as usual.

    Python lets only the main thread handle signals: in another thread nothing is noted.
    """

    def __init__(self, active: bool = True) -> None:
        self.signal = 0
        self._active = active and threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM) if self._active else ():
            before = signal.getsignal(number)
            if before not in (None, signal.SIG_IGN):  # a handler of another language, or a signal that nobody wants
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.signal = number
        self._put_back()

    def _put_back(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __exit__(self, *error: object) -> None:
        self._put_back()


class EpochSampler(Sampler):
    """The order of one epoch: a permutation drawn from (seed, epoch), from sample `first` on.

    Yields (epoch, index). With several processes, each takes every `world`-th entry, and the rest that does
    not fill a round is left out of this epoch.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed
        self.epoch, self.first = 0, 0
        self.rank, self.world = 0, 1

    def __len__(self) -> int:
        return self.length // self.world - self.first

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        own = order[: self.length // self.world * self.world][self.rank :: self.world]
        return ((self.epoch, int(index)) for index in own[self.first :])


class _SeededSamples(Dataset):
    """Sets every global random generator from (seed, epoch, index) around each sample, then puts them back.

    So a random crop is the same whichever process draws it, and after a restart.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        before = random_state(cuda=False)
        number = int(np.random.SeedSequence((self.seed, *key)).generate_state(1)[0])
        torch.random.default_generator.manual_seed(number)
        np.random.seed(number)
        random.seed(number)
        try:
            return self.dataset[key[1]]
        finally:
            set_random_state(before)


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

    Order and random transforms depend on (seed, epoch, index) only: not on the number of workers, and not on
    what was drawn before.

    Args:
        dataset: any map-style data set.
        batch_size: samples a batch, on each device.
        seed: of the order and of what the samples draw.
        collate_fn: makes a batch of samples, as in torch.
        num_workers: processes that load.
        drop_last: leave out a last batch that is not full.

    Returns:
        A DataLoader whose sampler is an `EpochSampler`.

    Raises:
        ValueError: the data set is empty or smaller than one batch, or a number is out of range.
    """
    if batch_size < 1 or seed < 0 or num_workers < 0:
        raise ValueError(
            f"batch_size is {batch_size}, seed {seed}, num_workers {num_workers}, expected at least 1, 0 and 0"
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
        generator=torch.Generator(),  # its own: a loader draws from the global one whenever it is started
    )
