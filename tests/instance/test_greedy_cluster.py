"""Spatial embeddings: Gaussians, and greedy clustering against a plain version and on ideal outputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from segedu.instance.spatial_embedding import gaussian, greedy_cluster, offset_targets, postprocess


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(seed: int, size: tuple[int, int] = (48, 56), count: int = 9) -> Tensor:
    """Ellipses that touch and cover each other, and objects of one pixel at two corners."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(size)
    labels = np.zeros(size, dtype=np.int32)
    for number in range(count):
        cy, cx, ry, rx = rng.uniform(0, size[0]), rng.uniform(0, size[1]), *rng.uniform(3, 9, 2)
        labels[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = 10 + 3 * number
    labels[0, 0], labels[-1, -1] = 1, 2
    return torch.from_numpy(labels)


def same_partition(a: Tensor, b: Tensor) -> bool:
    pairs = {(int(p), int(q)) for p, q in zip(a.flatten(), b.flatten(), strict=True)}
    one_to_one = len({p for p, _ in pairs}) == len({q for _, q in pairs}) == len(pairs)
    return one_to_one and torch.equal(a > 0, b > 0)


def test_gaussian_is_a_half_at_its_margin() -> None:
    margin = math.sqrt(2 * math.log(2))
    places = torch.tensor([[3.0 * margin, 0.0, 0.0, 3.0], [0.0, 5.0 * margin, 0.0, 5.0]], dtype=torch.float64)
    values = gaussian(places, torch.zeros(2).double(), torch.tensor([3.0, 5.0]).double())
    assert values.tolist() == pytest.approx([0.5, 0.5, 1.0, math.exp(-1)])
    round_one = gaussian(places, torch.zeros(2).double(), torch.tensor([3.0]).double())
    assert round_one[3].item() == pytest.approx(math.exp(-(9 + 25) / 18))


def ideal_outputs(label_map: Tensor, n_sigma: int) -> dict[str, Tensor]:
    sigma = torch.full((1, n_sigma, *label_map.shape), math.log(1e7) / 10)  # 0.27 pixels
    seed = torch.where(label_map > 0, 8.0, -8.0)[None, None]
    return {"offsets": offset_targets(label_map).atanh()[None], "sigma": sigma, "seed": seed}


@pytest.mark.parametrize("n_sigma", [1, 2])
def test_ideal_outputs_give_the_label_map_back(n_sigma: int) -> None:
    maps = [blobs(seed) for seed in range(4)] + [torch.zeros(48, 56, dtype=torch.int32)]
    outputs = [ideal_outputs(label_map, n_sigma) for label_map in maps]
    batch = {key: torch.cat([one[key] for one in outputs]) for key in outputs[0]}
    for got, expected in zip(postprocess(batch), maps, strict=True):
        assert got.dtype == torch.int32
        assert same_partition(got, expected)
        assert got.max() == len(expected.unique()) - 1


def cluster_by_loops(places, sigma, seed, seed_threshold, foreground_threshold, min_pixels, min_free_fraction):
    height, width = seed.shape
    pixels = [(y, x) for y in range(height) for x in range(width) if seed[y, x] > foreground_threshold]
    sigma = sigma.expand(2, height, width)
    labels, tried, count = np.zeros((height, width), int), set(), 0
    while True:
        left = [p for p in pixels if not labels[p] and p not in tried and seed[p] > seed_threshold]
        if not left:
            return labels
        best = max(left, key=lambda p: seed[p])
        index = (slice(None), *best)
        inside = [p for p in pixels if gaussian(places[(slice(None), *p)], places[index], sigma[index]) > 0.5]
        members = [p for p in inside if not labels[p]]
        if len(members) < min_pixels or len(members) < min_free_fraction * len(inside):
            tried.update(members)
        else:
            count += 1
            labels[tuple(np.array(members).T)] = count


@pytest.mark.parametrize("seed", range(6))
def test_greedy_cluster_is_its_description(seed: int) -> None:
    places, sigma = (torch.rand(2, 9, 11, generator=generator(seed + i), dtype=torch.float64) for i in range(2))
    sigma = 0.02 + 0.2 * sigma[: 1 + seed % 2]
    seeds = torch.rand(9, 11, generator=generator(seed + 2), dtype=torch.float64)
    options = {
        "seed_threshold": [0.3, 0.7][seed % 2],
        "foreground_threshold": 0.25,
        "min_pixels": [1, 4, 6][seed % 3],
        "min_free_fraction": [0.0, 0.6][seed // 3],
    }
    expected = cluster_by_loops(places, sigma, seeds, **options)
    got = greedy_cluster(places, sigma, seeds, **options)
    assert expected.max() > 2 and (expected == 0).sum() > 5
    assert got.tolist() == expected.tolist()


def line(xs: list[float], seeds: list[float], sigmas: float | list[float] = 1.0, **options: float) -> list[int]:
    places = torch.tensor([[[0.0] * len(xs)], [xs]])
    sigma = torch.as_tensor(sigmas).expand(1, 1, len(xs))
    return greedy_cluster(places, sigma, torch.tensor([seeds]), **options).flatten().tolist()


def test_clusters_start_from_the_best_seed_with_its_own_sigma() -> None:
    assert line([0, 1, 2], [0.8, 0.9, 0.7]) == [1, 1, 1]
    assert line([0, 1, 2], [0.9, 0.8, 0.7]) == [1, 1, 2]
    assert line([0, 1, 2], [0.9, 0.8, 0.7], [2.0, 1.0, 1.0]) == [1, 1, 1]
    assert line([0, 1, 2], [0.9, 0.8, 0.7], [0.5, 1.0, 1.0]) == [1, 2, 2]
    assert line([0, 1.17, 1.18, 9], [0.9, 0.6, 0.6, 0.4]) == [1, 1, 2, 0]  # 1.1774 sigma, and background


def test_pixels_are_used_once() -> None:
    # the second object would cover all of the first
    assert line([0, 0.5, 2, 3], [0.9, 0.8, 0.7, 0.6], [0.5, 0.5, 9.0, 9.0]) == [1, 1, 2, 2]
    # half of what it would cover is taken: with min_free_fraction it is no object
    assert line([0, 0.5, 2, 3], [0.9, 0.8, 0.7, 0.6], [0.5, 0.5, 9.0, 9.0], min_free_fraction=0.6) == [1, 1, 0, 0]
    assert line([0, 0.5, 2, 3], [0.9, 0.8, 0.7, 0.6], [0.5, 0.5, 9.0, 9.0], min_free_fraction=0.5) == [1, 1, 2, 2]


def test_thresholds_and_least_size() -> None:
    assert line([0, 0, 9, 9], [0.9, 0.6, 0.6, 0.6], seed_threshold=0.7) == [1, 1, 0, 0]
    assert line([0, 0, 9, 9], [0.9, 0.3, 0.6, 0.6], foreground_threshold=0.2) == [1, 1, 2, 2]
    # above, not at the thresholds
    assert line([0, 0, 9], [0.9, 0.5, 0.5]) == [1, 0, 0]
    assert line([0, 0, 9], [0.9, 0.5, 0.5], foreground_threshold=0.2) == [1, 1, 0]
    assert line([0, 5, 5, 5], [0.9, 0.6, 0.6, 0.6], min_pixels=2) == [0, 1, 1, 1]
    assert line([0, 5, 5, 5], [0.9, 0.6, 0.6, 0.6], min_pixels=3) == [0, 1, 1, 1]
    assert line([0, 5, 5, 5], [0.9, 0.6, 0.6, 0.6], min_pixels=4) == [0, 0, 0, 0]
    # what is turned down may still join another: the small Gaussian of the first has too few pixels
    assert line([0, 1, 1, 1], [0.9, 0.6, 0.6, 0.6], [0.1, 1.0, 1.0, 1.0], min_pixels=2) == [1, 1, 1, 1]


PLACES, SIGMA, SEED = torch.rand(2, 3, 4), torch.rand(2, 3, 4) + 0.1, torch.rand(3, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gaussian(SEED, torch.zeros(2), torch.ones(1)), ValueError, "have shapes"),
        (lambda: gaussian(PLACES, torch.zeros(2), torch.zeros(1)), ValueError, "sigma is"),
        (lambda: greedy_cluster(PLACES, SIGMA, SEED[None]), ValueError, "seed has shape"),
        (lambda: greedy_cluster(PLACES[:1], SIGMA, SEED), ValueError, "embeddings has shape"),
        (lambda: greedy_cluster(PLACES, SIGMA[..., :2], SEED), ValueError, "sigma has shape"),
        (lambda: greedy_cluster(PLACES, -SIGMA, SEED), ValueError, "sigma of 0"),
        (lambda: greedy_cluster(PLACES * float("nan"), SIGMA, SEED), ValueError, "NaN"),
        (lambda: greedy_cluster(PLACES, SIGMA, SEED.int()), TypeError, "seed has dtype torch.int32"),
        (lambda: greedy_cluster(PLACES, SIGMA, SEED, seed_threshold=1.5), ValueError, "seed_threshold is 1.5"),
        (lambda: greedy_cluster(PLACES, SIGMA, SEED, min_free_fraction=-1), ValueError, "min_free_fraction is -1"),
        (lambda: greedy_cluster(PLACES, SIGMA, SEED, min_pixels=0), ValueError, "min_pixels is 0"),
    ],
)
def test_bad_arguments(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
