"""Bilinear interpolation from the first corner, against a loop over pixels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.layers.resize import at_corners, upsample_from_corner, upsample_to


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


@pytest.mark.parametrize("align_corners", [False, True])
def test_to_the_size_of_images(align_corners: bool) -> None:
    """Rows and columns by hand: cell i lies at (i + 1/2) H / h - 1/2, or at i (H - 1) / (h - 1)."""
    features, images = random(2, 3, 3, 4), torch.zeros(1, 7, 11)
    out = upsample_to(features, images, align_corners)
    assert out.shape == (2, 3, 7, 11)
    for y, x in ((0, 0), (3, 5), (6, 10), (2, 7)):
        places = []
        for pixel, large, small in ((y, 7, 3), (x, 11, 4)):
            at = pixel * (small - 1) / (large - 1) if align_corners else (pixel + 0.5) * small / large - 0.5
            at = min(max(at, 0), small - 1)
            low = min(int(at), small - 2)
            places.append((low, at - low))
        (i, a), (j, b) = places
        upper = (1 - b) * features[..., i, j] + b * features[..., i, j + 1]
        lower = (1 - b) * features[..., i + 1, j] + b * features[..., i + 1, j + 1]
        torch.testing.assert_close(out[..., y, x], (1 - a) * upper + a * lower, rtol=0, atol=1e-12)


def test_every_so_many_places() -> None:
    features, target = random(2, 3, 2, 3), torch.arange(2 * 9 * 17).reshape(2, 9, 17)
    logits, coarse = at_corners(upsample_from_corner(features, 8, (9, 17)), target, 8)
    torch.testing.assert_close(logits, features, rtol=0, atol=1e-12)
    assert coarse[0].tolist() == [[0, 8, 16], [136, 144, 152]]
    for size in ((10, 17), (9, 16)):  # as many eighth rows and columns: only the sizes tell
        with pytest.raises(ValueError, match=r"target has shape .* as logits has"):
            at_corners(torch.zeros(2, 3, *size), target, 8)
    with pytest.raises(ValueError, match="stride is 0, expected"):
        at_corners(torch.zeros(2, 3, 9, 17), target, 0)


@pytest.mark.parametrize("shape", [(2, 4, 6), (1, 2, 0, 6)])
def test_features_of_another_shape(shape: tuple[int, ...]) -> None:
    for call in (lambda f: upsample_to(f, torch.zeros(8, 8)), lambda f: upsample_from_corner(f, 2, (8, 12))):
        with pytest.raises(ValueError, match="features has shape .* expected"):
            call(torch.zeros(shape))
