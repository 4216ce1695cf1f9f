"""The bars of `make bench` for detectors: the pairs of tests/benchmarks/detection.py."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from benchmarks.detection import NETWORKS, OPERATIONS, SIZE, boxes

ROUNDS = 5
MEAN_BAR = 1.03  # of the geometric mean


def cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


@pytest.mark.prove
def test_ours_keeps_the_bars() -> None:
    medians, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, make in NETWORKS.items():
            pair = make()  # shown to find the same, and warm
            medians[name] = statistics.median(cpu_seconds(pair.ours) / cpu_seconds(pair.peer) for _ in range(ROUNDS))
            assert medians[name] <= pair.bar, medians
    finally:
        torch.set_num_threads(threads)
    assert statistics.geometric_mean(medians.values()) <= MEAN_BAR, medians


@pytest.mark.parametrize("make", OPERATIONS, ids=range(len(OPERATIONS)))
def test_the_operations_of_the_pairs_give_the_same(make: Callable) -> None:
    make()  # refuses what differs


def test_boxes_of_the_pairs_lie_in_the_image() -> None:
    found = boxes(50)
    assert len(found) == 50 and bool((found[:, :2] < found[:, 2:]).all())
    assert found.min() >= 0 and bool((found.amax(0)[2:] <= torch.tensor([SIZE[1], SIZE[0]])).all())
