"""Bilinear interpolation from the first corner, against a loop over pixels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.layers.resize import upsample_from_corner


def random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_loop(features: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    out = features.new_empty((*features.shape[:2], *size))
    last = [n - 1 for n in features.shape[-2:]]
    for y in range(size[0]):
        for x in range(size[1]):
            i, j = min(y / stride, last[0]), min(x / stride, last[1])
            top, left = int(i), int(j)
            below, right = min(top + 1, last[0]), min(left + 1, last[1])
            a, b = i - top, j - left
            upper = (1 - b) * features[..., top, left] + b * features[..., top, right]
            lower = (1 - b) * features[..., below, left] + b * features[..., below, right]
            out[..., y, x] = (1 - a) * upper + a * lower
    return out


@pytest.mark.parametrize(("stride", "size"), [(8, (17, 24)), (8, (16, 23)), (4, (5, 1)), (3, (1, 2)), (1, (4, 5))])
def test_against_a_loop(stride: int, size: tuple[int, int]) -> None:
    features = random(2, 3, *(-(-n // stride) for n in size))
    out = upsample_from_corner(features, stride, size)
    torch.testing.assert_close(out, by_loop(features, stride, size), rtol=0, atol=1e-12)
    torch.testing.assert_close(out[..., ::stride, ::stride], features, rtol=0, atol=1e-12)


def test_sizes_one_more_than_a_multiple_are_those_of_aligned_corners() -> None:
    features = random(1, 2, 4, 6)
    expected = F.interpolate(features, (25, 41), mode="bilinear", align_corners=True)
    torch.testing.assert_close(upsample_from_corner(features, 8, (25, 41)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("stride", "size"), [(0, (4, 6)), (8, (33, 41)), (8, (24, 41)), (9, (25, 41))])
def test_bad_input(stride: int, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"features has shape \(1, 2, 4, 6\), expected"):
        upsample_from_corner(random(1, 2, 4, 6), stride, size)
