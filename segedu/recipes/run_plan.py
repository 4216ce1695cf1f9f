"""The plan of a run: the description kept in its checkpoint, the number of steps, and the learning rates."""

from __future__ import annotations

import copy
import hashlib
import math
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segedu.recipes.data import Sets
from segedu.recipes.recipe import Recipe
from segedu.training import load_checkpoint, shuffled_loader, train_steps

WARM_UP = 0.1  # fraction of the steps in which the learning rate rises


def describe(recipe: Recipe, model: nn.Module, sets: Sets) -> dict[str, Any]:
    """Everything that decides what a network learns, apart from the seed and the number of steps, as plain values.

    It is kept in the checkpoint, and a run whose description differs refuses to resume. So renaming a loss, a `collate`
    function or a random change invalidates older checkpoints. `preprocessing` names the random changes of a sample.
    `training_data` is a digest of the images and targets before these changes: it detects a corrected mask.
    """
    augmentation = {name: _name(value) for name, value in vars(sets.train).items() if name != "pairs"}
    preparation = getattr(sets.train, "preparation", None)
    own = {} if preparation is None else {"preparation": asdict(preparation)}  # plain values, to prepare new images
    return {
        "method": recipe.method,
        "data": recipe.data,
        "classes": list(recipe.classes),
        "network": network_digest(model),
        "loss": _name(recipe.loss),
        "learning_rate": recipe.learning_rate,
        "preprocessing": {"samples": type(sets.train).__name__, **augmentation, "collate": _name(recipe.collate)},
        "training_data": data_digest(sets.train.pairs),
        **own,
    }


def network_digest(model: nn.Module) -> str:
    """Sixteen hexadecimal digits of SHA-256 over the layers of a network, without its weights."""
    return _short(hashlib.sha256(_without_addresses(str(model)).encode()))


def data_digest(values: Any) -> str:
    """Sixteen hexadecimal digits of SHA-256 over nested sequences and dicts of tensors and plain values."""
    digest = hashlib.sha256()
    _add(digest, values)
    return _short(digest)


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        array = np.ascontiguousarray(value.detach().cpu().numpy())
        digest.update(f"tensor {array.dtype} {array.shape}".encode())
        digest.update(array.data if array.size else b"")
    elif isinstance(value, dict):
        digest.update(f"dict {len(value)}".encode())
        for key in sorted(value):
            digest.update(repr(key).encode())
            _add(digest, value[key])
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        digest.update(f"list {len(value)}".encode())
        for item in value:
            _add(digest, item)
    else:
        digest.update(repr(value).encode())


def _short(digest: Any) -> str:
    return digest.hexdigest()[:16]


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _name(value: Any) -> str:
    """The qualified name of a function, and the `repr` of any other value."""
    if isinstance(value, partial):
        arguments = [*map(_name, value.args), *(f"{key}={_name(argument)}" for key, argument in value.keywords.items())]
        return f"{_name(value.func)}({', '.join(arguments)})"
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return _without_addresses(repr(value))


def check_limits(steps: int | None, minutes: float | None, seed: int) -> None:
    """Check the limits and the seed of a run."""
    if steps is not None and minutes is not None:
        raise ValueError(f"steps is {steps} and minutes is {minutes:g}, expected only one of the two")
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}, expected at least 1")
    if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
        raise ValueError(f"minutes is {minutes:g}, expected a number above 0")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}, expected 0 to {2**32 - 1}")


def planned_steps(
    recipe: Recipe, model: nn.Module, sets: Sets, steps: int | None, minutes: float | None, checkpoint: Path
) -> int:
    """The total number of steps of a run: `steps`, or as many as fit into `minutes`, or the recipe's.

    A run that resumes with the same `minutes` takes the number from its checkpoint, because measuring the speed again
    would give a slightly different one.
    """
    if minutes is None:
        return steps or recipe.steps
    saved = load_checkpoint(checkpoint) if checkpoint.exists() else {}
    if ((saved.get("about") or {}).get("limits") or {}).get("minutes") == minutes:
        return saved["run"]["steps"]
    return steps_in(minutes, recipe, model, sets)


def steps_in(minutes: float, recipe: Recipe, model: nn.Module, sets: Sets) -> int:
    """Number of steps that fit into `minutes` of CPU time, at least ten, estimated from three steps of a copy."""
    trial = copy.deepcopy(model)
    loader = shuffled_loader(sets.train, recipe.batch_size, collate_fn=recipe.collate)
    batches = islice(chain.from_iterable(repeat(loader)), 4)  # an epoch may have fewer
    steps = train_steps(trial, batches, recipe.loss, torch.optim.AdamW(trial.parameters()))
    next(steps)
    start = time.process_time()
    num_steps = sum(1 for _ in steps)
    return max(10, int(minutes * 60 * num_steps / max(time.process_time() - start, 1e-6)))


def one_cycle(optimizer: torch.optim.Optimizer, highest: float, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """Raise the learning rate to `highest` in the first tenth of the steps, then lower it to almost 0."""
    # PyTorch divides by the number of rising steps minus one, which is 0 if a tenth of the steps is one step
    fraction = WARM_UP if WARM_UP * steps != 1 else 2 * WARM_UP
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, total_steps=steps, pct_start=fraction)
