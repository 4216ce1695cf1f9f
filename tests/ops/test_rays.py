"""Walks along rays against a loop, and what a step on a diagonal sees."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from segedu.ops.rays import ray_lengths


def walk(labels: np.ndarray, start: tuple[int, ...], way: np.ndarray) -> tuple[float, float]:
    """Steps until the label changes, and the distance to the pixel that the last step ended on."""
    steps = 0
    while True:
        steps += 1
        here = tuple(np.round(np.array(start) + steps * way).astype(int))
        if (
            min(here) < 0
            or any(i >= n for i, n in zip(here, labels.shape, strict=True))
            or labels[here] != labels[start]
        ):
            return steps, math.dist(here, start)


@pytest.mark.parametrize("shape", [(17, 23), (6, 9, 7)])
def test_lengths_equal_a_loop(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    labels = np.kron(rng.choice([0, 3, 70_000], [-(-n // 4) for n in shape]), np.ones([4] * len(shape), int))
    labels = labels[tuple(slice(n) for n in shape)]
    ways = rng.normal(size=(5, len(shape)))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    got = ray_lengths(torch.from_numpy(labels), torch.from_numpy(ways))
    center = ray_lengths(torch.from_numpy(labels), torch.from_numpy(ways), to_center=True)
    assert (got[:, labels == 0] == 0).all()
    for start in zip(*np.nonzero(labels), strict=True):
        for k, way in enumerate(ways):
            steps, distance = walk(labels, start, way)
            assert got[(k, *start)].item() == pytest.approx(steps, abs=1e-5)
            assert center[(k, *start)].item() == pytest.approx(distance, abs=1e-5)
    steps = (2, 3, 4)[: len(shape)]
    some = ray_lengths(torch.from_numpy(labels), torch.from_numpy(ways), steps)
    assert torch.equal(some, got[(slice(None), *(slice(None, None, step) for step in steps))])


def test_labels_that_touch_are_apart_and_numbers_do_not_matter() -> None:
    labels, right = torch.tensor([[4, 4, 9, 9, 9]]), torch.tensor([[0.0, 1.0]])
    assert ray_lengths(labels, right).flatten().tolist() == [2, 1, 3, 2, 1]
    assert torch.equal(ray_lengths(labels * 100_000, right), ray_lengths(labels.to(torch.uint8), right))
