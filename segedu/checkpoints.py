"""Checkpoints that survive a kill and a full disk, and the state of every random generator.

A checkpoint is written beside the old one and then renamed, so at every moment there is one whole checkpoint
on the disk. It is read without running any code that it may hold.
"""

from __future__ import annotations

import io
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch


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
