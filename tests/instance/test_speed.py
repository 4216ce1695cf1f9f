"""The bars of `make bench` for instances from the bottom up: the pairs of tests/benchmarks/cells.py."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from benchmarks.cells import PAIRS, Pair

ROUNDS = 5


def cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


@pytest.mark.prove
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("make", PAIRS, ids=lambda make: make.__name__)
def test_ours_keeps_the_bar(make: Callable[[], Pair]) -> None:
    for module in ("stardist.nms", "cellpose.dynamics"):
        pytest.importorskip(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pair = make()  # both have run once: ours is compiled
        ratios = [cpu_seconds(pair.ours) / cpu_seconds(pair.peer) for _ in range(ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    assert statistics.median(ratios) <= pair.bar, ratios
