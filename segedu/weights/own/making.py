"""How the small weights of our own are made: one training loop, one file, one log beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from segedu.training import shuffled_loader, train_steps

SEED = 0  # of the weights at the start and of the order of samples


def train(
    model: nn.Module,
    loss: Callable,
    samples: Dataset,
    *,
    batch: int,
    rate: float,
    steps: int,
    every: int = 100,
    collate: Callable | None = None,
    watch: Callable[[int], Any] | None = None,
) -> list[float]:
    """Train with one cycle of the learning rate.

    Args:
        model: trained in place, and left in evaluation mode.
        loss: of outputs and targets.
        samples: what it learns from.
        batch: number of samples of a step.
        rate: the highest learning rate.
        steps: of the optimizer.
        every: steps for one number of the result.
        collate: makes a batch of samples that do not stack.
        watch: called after each `every` steps with the number of steps taken, the model in evaluation mode.

    Returns:
        The mean loss of each `every` steps.
    """
    loader = shuffled_loader(samples, batch, seed=SEED, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)

    def batches() -> Iterator[Any]:
        for loader.sampler.epoch in count():
            yield from loader

    steps_taken = train_steps(model, islice(batches(), steps), loss, optimizer, scheduler=schedule, clip_norm=1.0)
    losses = []
    for loss in tqdm(steps_taken, "train", steps):
        losses.append(loss)
        if watch is not None and len(losses) % every == 0:
            model.eval()
            watch(len(losses))
            model.train()
    losses = torch.tensor(losses)
    model.eval()
    return [round(float(part.mean()), 4) for part in losses.split(every)]


def write(model: nn.Module, file: Path, log: dict[str, Any]) -> None:
    """Save the weights, and the log beside them."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, file)
    file.with_suffix(".json").write_text(json.dumps(log | {"torch": torch.__version__}, indent=2) + "\n")
