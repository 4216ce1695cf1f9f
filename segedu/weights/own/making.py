"""The training loop of our small weights, and how a file and its log are written."""

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

SEED = 0  # of the initial weights and of the order of samples


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
    """Train with the one-cycle learning-rate schedule.

    Args:
        model: trained in place, and left in evaluation mode.
        loss: function (outputs, targets) -> scalar.
        samples: training set.
        batch: batch size.
        rate: highest learning rate.
        steps: number of training iterations.
        every: number of iterations over which each returned loss is averaged.
        collate: `collate_fn` of the data loader, for samples that cannot be stacked.
        watch: called after every `every` iterations with the number of iterations; the model is in evaluation mode.

    Returns:
        The mean loss of each `every` iterations.
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
    """Save the weights in `file`, and the log in a JSON file of the same name."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, file)
    file.with_suffix(".json").write_text(json.dumps(log | {"torch": torch.__version__}, indent=2) + "\n")
