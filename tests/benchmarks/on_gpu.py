"""The networks of `run.py` beside their peers on a GPU: `python tests/benchmarks/on_gpu.py`.

Both networks of a pair have the same weights and run alternately; a time ends when the GPU has finished. Semantic
networks get larger images than on a CPU, because a GPU is idle with small ones. The semantic networks are also timed in
training steps. A pair whose peer is not installed is left out, with the reason.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

sys.path.remove(str(Path(__file__).resolve().parent))  # files here have names of folders of tests
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import detection, models, queries

ROUNDS = 15
ENLARGED = 4  # times the sides of the images of semantic networks, 2 for volumes
NOT_BUILT = (ImportError, RuntimeError, AttributeError, AssertionError, pytest.skip.Exception)
Timed = tuple[str, Callable[[], Any], Callable[[], Any]]


def moved(thing: Any, device: torch.device) -> Any:
    """A function without arguments with the networks and tensors that it holds on a device, networks in place."""
    if isinstance(thing, nn.Module):
        return thing.to(device)
    if isinstance(thing, Tensor):
        return thing.to(device)
    if isinstance(thing, functools.partial):
        return functools.partial(moved(thing.func, device), *(moved(each, device) for each in thing.args))
    if isinstance(thing, tuple | list):
        return type(thing)(moved(each, device) for each in thing)
    if isinstance(thing, FunctionType):
        for cell in thing.__closure__ or ():
            cell.cell_contents = moved(cell.cell_contents, device)
    return thing


def semantic(device: torch.device) -> Iterator[Timed]:
    """Forward passes and training steps of the semantic networks and backbones."""
    for make in models.NETS:
        for pair in left_out_with_reason(make):
            factor = ENLARGED if len(pair.shape) == 4 else 2
            fixed = "timm" in pair.name  # its positions are those of 224 x 224 pixels
            shape = pair.shape[:2] + tuple(side if fixed else side * factor for side in pair.shape[2:])
            images = torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(device)
            ours, peer = (net.float().eval().to(device) for net in (pair.ours, pair.peer))
            runs = ours, lambda images, peer=peer, read=pair.read: read(peer(images))
            yield f"{pair.name}, forward", *(functools.partial(torch.no_grad()(run), images) for run in runs)
            ours.train(), peer.train()
            steps = []
            for model, run in zip((ours, peer), pair.levels or runs, strict=True):
                step = models.training_step(model, run, images)
                moved(step, device)
                steps.append(step)
            yield f"{pair.name}, training step", *steps


def left_out_with_reason(make: Callable[[], Iterator]) -> Iterator:
    """The pairs of a function, up to one that cannot be built."""
    try:
        yield from make()
    except NOT_BUILT as error:
        print(f"{make.__name__}: left out, {type(error).__name__}: {error}", flush=True)


def detectors(device: torch.device) -> Iterator[Timed]:
    """Detectors, from an image to boxes; query networks; SAM's encoder."""
    makers = [*detection.NETWORKS.values(), *queries.QUERY_NETS.values(), queries.sam_encoder]
    for make in makers:
        try:
            pair = make()
        except NOT_BUILT as error:
            print(f"{getattr(make, '__name__', make)}: left out, {type(error).__name__}: {error}", flush=True)
            continue
        yield pair.name, moved(pair.ours, device), moved(pair.peer, device)


def seconds(function: Callable, device: torch.device) -> float:
    """Mean time of a call, of enough calls to fill 50 ms; it ends when the device has finished."""
    finish = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    finish()
    start, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < 0.05:
        function()
        finish()
        calls += 1
    return spent / calls


def main() -> None:
    """Print ratios, each the median of 15 pairs in turn, with the lowest and the highest."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    print(f"on {torch.cuda.get_device_name(0) if device.type == 'cuda' else 'CPU'}, torch {torch.__version__}")
    for group in (semantic, detectors):
        medians = []
        for name, ours, peer in group(device):
            for function in (ours, peer, ours, peer):
                function()
            times = [
                (seconds(ours, device), seconds(peer, device))
                if turn % 2
                else (seconds(peer, device), seconds(ours, device))[::-1]
                for turn in range(ROUNDS)
            ]
            spread = [a / b for a, b in times]
            medians.append(statistics.median(spread))
            milliseconds = 1000 * statistics.median(a for a, _ in times)
            print(
                f"{name}: {medians[-1]:.2f} ({min(spread):.2f} to {max(spread):.2f}), {milliseconds:.1f} ms", flush=True
            )
        mean, highest = statistics.geometric_mean(medians), max(medians)
        print(f"{group.__name__}: geometric mean {mean:.3f}, highest {highest:.2f}", flush=True)


if __name__ == "__main__":
    main()
