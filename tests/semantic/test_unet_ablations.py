"""What two ideas of the U-Net's paper are worth on drawn cells: the weight map, and elastic deformation.

Both arms of a comparison have the same initial weights, images, order and number of steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from segedu.datasets.cells import Cells
from segedu.datasets.transforms import ElasticDeformation, Joint, RandomRot90
from segedu.losses.cross_entropy import cross_entropy
from segedu.metrics.confusion import ConfusionMatrix
from segedu.metrics.instance import instance_accuracy
from segedu.semantic.unet import UNet, border_weight_map, separate_cells, unet_loss
from segedu.training import train_steps

Sample = dict[str, Tensor]


def train(seed: int, batches: Callable[[Tensor], Iterator], length: int, steps: int, loss: Callable) -> UNet:
    """A small padded U-Net after `steps` steps; `batches` gets the picked numbers (steps, 8) of the images."""
    torch.manual_seed(seed)
    net = UNet(3, 2, base_channels=8, depth=3, padding=1).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    picks = torch.randint(length, (steps, 8), generator=torch.Generator().manual_seed(seed))
    for _ in train_steps(net, batches(picks), loss, optimizer, scheduler=schedule, clip_norm=1.0):
        pass
    return net.eval()


@torch.no_grad()
def predict(net: UNet, samples: list[Sample]) -> Tensor:
    """Labels (N, H, W)."""
    images = torch.stack([sample["image"] for sample in samples])
    return torch.cat([net(part).argmax(dim=1) for part in images.split(8)])


# --- the weight map on touching cells ----------------------------------------------------------------------------


def merged(components: np.ndarray, label_map: np.ndarray) -> int:
    """Cells that lie, by more than half, in a component in which another cell lies so too."""
    homes = []
    for cell in range(1, int(label_map.max()) + 1):
        inside = components[label_map == cell]
        numbers, counts = np.unique(inside[inside > 0], return_counts=True)
        homes += [numbers[counts > len(inside) / 2]]
    taken = np.concatenate(homes) if homes else np.zeros(0)
    numbers, counts = np.unique(taken, return_counts=True)
    return int(counts[counts > 1].sum())


def touching_cells(length: int, seed: int) -> list[Sample]:
    cells = Cells(length, seed, (96, 96), touching=0.9)
    return [cells[i] for i in range(length)]


def with_weight_map(seed: int, w0: float) -> dict[str, float]:
    """Train on cells one line apart, count what connected components find on new images."""
    samples, others = touching_cells(64, 2 * seed), touching_cells(32, 2 * seed + 1)
    images = torch.stack([sample["image"] for sample in samples])
    apart = [separate_cells(sample["label_map"]) for sample in samples]
    target = torch.stack([torch.from_numpy(label_map > 0).long() for label_map in apart])
    weights = torch.stack([border_weight_map(label_map, w0=w0) for label_map in apart])
    batches = lambda picks: ((images[pick], (target[pick], weights[pick])) for pick in picks)  # noqa: E731
    start = time.process_time()
    net = train(seed, batches, 64, 150, lambda logits, truth: unet_loss(logits, *truth))
    cost = time.process_time() - start
    parts = [ndimage.label(label.numpy())[0] for label in predict(net, others)]
    truths = [sample["label_map"].numpy() for sample in others]
    return {
        "cells": sum(int(truth.max()) for truth in truths),
        "merged": sum(merged(part, truth) for part, truth in zip(parts, truths, strict=True)),
        "accuracy": float(np.mean([instance_accuracy(*pair) for pair in zip(parts, truths, strict=True)])),
        "cpu": cost,
    }


def test_merged_counts_cells_not_components() -> None:
    truth = np.array([[1, 1, 0, 2, 2, 0, 3, 3]])
    assert merged(np.array([[1, 1, 1, 1, 1, 0, 2, 2]]), truth) == 2
    assert merged(np.array([[1, 1, 0, 2, 2, 0, 3, 3]]), truth) == 0
    assert merged(np.array([[1, 1, 1, 1, 1, 1, 1, 1]]), truth) == 3
    assert merged(np.array([[0, 0, 0, 0, 1, 1, 1, 0]]), truth) == 0  # half a cell is no cell


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_weight_map_keeps_touching_cells_apart(seed: int, capsys: pytest.CaptureFixture) -> None:
    off, on = with_weight_map(seed, 0.0), with_weight_map(seed, 10.0)
    with capsys.disabled():
        print(
            f"\nU-Net, weight map, seed {seed}: of {off['cells']} cells merged {off['merged']} without, "
            f"{on['merged']} with; instance accuracy {off['accuracy']:.3f} without, {on['accuracy']:.3f} with; "
            f"{off['cpu']:.1f} and {on['cpu']:.1f} CPU-seconds"
        )
    assert on["merged"] < off["merged"]


# --- elastic deformation with ten images -------------------------------------------------------------------------


def with_changes(seed: int, change: Callable[[Sample], Sample]) -> tuple[float, float]:
    """IoU of the cells on 64 new images after training on ten, and the CPU-seconds of training."""
    few, others = (
        list(map(Cells(n, s, (64, 64)).__getitem__, range(n))) for n, s in ((10, 2 * seed), (64, 2 * seed + 1))
    )

    def batches(picks: Tensor) -> Iterator:
        for pick in picks:
            samples = [change(few[i]) for i in pick.tolist()]
            yield tuple(torch.stack([sample[key] for sample in samples]) for key in ("image", "semantic"))

    start = time.process_time()
    net = train(seed, batches, 10, 250, cross_entropy)
    cost = time.process_time() - start
    counts = ConfusionMatrix(2, ignore_index=None)
    counts.update(predict(net, others), torch.stack([sample["semantic"] for sample in others]))
    matrix = counts.compute().double()
    return float(matrix[1, 1] / (matrix.sum() - matrix[0, 0])), cost


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ten_images_bent_are_worth_more_than_ten_images(seed: int, capsys: pytest.CaptureFixture) -> None:
    changes = {
        "as they are": lambda sample: sample,
        "turned": Joint(RandomRot90()),
        "bent": Joint(ElasticDeformation(sigma=4)),
    }
    scores = {name: with_changes(seed, change) for name, change in changes.items()}
    with capsys.disabled():
        print(
            f"\nU-Net, ten images, seed {seed}: IoU "
            + ", ".join(f"{score:.3f} {name}" for name, (score, _) in scores.items())
            + f"; at most {max(cost for _, cost in scores.values()):.1f} CPU-seconds"
        )
    assert scores["bent"][0] > scores["as they are"][0]
