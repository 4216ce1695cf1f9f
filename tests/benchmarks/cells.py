"""Bottom-up instance segmentation beside stardist's C++ and cellpose 3.1.1.3; each pair must first give the same results.

`run.py` times the pairs; `tests/instance/test_speed.py` has the limits. StarDist's network has no pair, because it is
written in Keras and no torch implementation has the same layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """Two functions without arguments that do the same work, and the upper limit of the ratio of their times."""

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object]
    bar: float


def crowd(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Candidates around many nuclei, the best first, as a network predicts them: distances float32, points int32."""
    rng = np.random.default_rng(4)
    nuclei = rng.uniform(0, 700, (500, 2))
    points = np.round(nuclei[rng.integers(0, 500, count)] + rng.normal(0, 2, (count, 2))).astype(np.int32)
    distances = rng.uniform(8, 12, (count, 1)) * np.exp(rng.normal(0, 0.08, (count, 32)))
    return distances.astype(np.float32), points


def random_cells(seed: int, size: int = 96, cells: int = 14, radius: tuple[float, float] = (4, 13)) -> np.ndarray:
    """Ellipses that touch and occlude each other: some are crescents, some are cropped by the border."""
    generator = np.random.default_rng(seed)
    label_map = np.zeros((size, size), np.int32)
    grid = np.mgrid[:size, :size]
    for number in range(1, cells + 1):
        y, x = grid - generator.uniform(0, size, 2)[:, None, None]
        (long, short), angle = generator.uniform(*radius, 2), generator.uniform(0, np.pi)
        along, across = np.cos(angle) * y + np.sin(angle) * x, np.cos(angle) * x - np.sin(angle) * y
        inside = (along / long) ** 2 + (across / short) ** 2 <= 1
        if (label_map[inside] > 0).mean() < 0.3:
            label_map[inside & (label_map == 0)] = number
    return label_map


def five_hundred_cells() -> Tensor:
    """A label map of 1024 x 1024 pixels, int32."""
    from segedu.instance.cellpose.flows import fill_holes_and_remove_small

    tiles = [random_cells(seed, 256, 90, (10, 20)) for seed in range(16)]
    tiles = [np.where(tile > 0, tile + 100 * n, 0) for n, tile in enumerate(tiles)]
    label_map = fill_holes_and_remove_small(torch.from_numpy(np.block([tiles[n : n + 4] for n in range(0, 16, 4)])), 15)
    label_map[label_map > 500] = 0
    assert label_map.shape == (1024, 1024) and label_map.max() == 500
    return label_map


def cpnet(widths: tuple[int, ...], **options: object) -> torch.nn.Module:
    """Cellpose's own network, with random running statistics."""
    from cellpose.resnet_torch import CPnet

    torch.manual_seed(3)
    network = CPnet([2, *widths], 3, 3, **options)
    generator = torch.Generator().manual_seed(3)
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return network


# --- pairs ------------------------------------------------------------------------------------------------------


def suppression() -> Pair:
    """Polygon NMS; StarDist's C++ rounds corners down to integers, so a few of its choices differ."""
    from stardist.nms import non_maximum_suppression_inds
    from threadpoolctl import threadpool_limits

    from segedu.ops.polygons import suppress_polygons

    threadpool_limits(1)  # the C++ has an OpenMP of its own, which torch's number of threads does not reach
    distances, points = crowd(20_000)
    given = torch.from_numpy(distances), torch.from_numpy(points)
    ours = lambda: suppress_polygons(*given, 0.4)  # noqa: E731
    peer = lambda: non_maximum_suppression_inds(distances, points, None, 0.4, verbose=0)  # noqa: E731
    assert (ours().numpy() == peer()).mean() > 0.99
    return Pair("suppress_polygons, 20,000 candidates / stardist's C++", ours, peer, 1.5)


def masks() -> Pair:
    """Label map from flows, with the flow-error filter."""
    from cellpose.dynamics import compute_masks

    from segedu.instance.cellpose.flows import diffusion_flow, masks_from_flows
    from segedu.metrics.instance import instance_accuracy

    label_map = five_hundred_cells()
    flows, inside = diffusion_flow(label_map), label_map > 0
    scaled, logits = 5 * flows.numpy(), torch.where(inside, 4.0, -4.0).numpy()
    ours = lambda: masks_from_flows(flows, inside)  # noqa: E731
    peer = lambda: compute_masks(scaled, logits, min_size=15, device=torch.device("cpu"))  # noqa: E731
    theirs = peer()
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    assert instance_accuracy(ours(), theirs.astype(np.int32)) > 0.99
    return Pair("masks_from_flows, 1024x1024, 500 cells / cellpose", ours, peer, 0.7)


def network() -> Pair:
    """Forward pass with the same weights."""
    from segedu.instance.cellpose.cellpose import official_cellpose

    theirs = cpnet((32, 64, 128, 256)).eval()
    ours = official_cellpose(torch.nn.Identity()).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    batch = torch.rand(1, 2, 224, 224, generator=torch.Generator().manual_seed(0))

    def forward(net: torch.nn.Module) -> object:
        with torch.inference_mode():
            return net(batch)

    away = (forward(ours)["logits"] - forward(theirs)[0][:, 2]).abs().max()
    assert away < 1e-4, away
    return Pair("Cellpose, 224x224 / CPnet", lambda: forward(ours), lambda: forward(theirs), 1.05)


PAIRS = [suppression, masks, network]


def pairs() -> Iterator[tuple[str, Callable, Callable]]:
    """Yield name, ours, peer, as in `run.py`; print the limit of each."""
    for make in PAIRS:
        pair = make()
        print(f"{pair.name}: at most {pair.bar}")
        yield pair.name, pair.ours, pair.peer
