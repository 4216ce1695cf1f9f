"""Otsu against scikit-image, against a search through all thresholds, and in closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from skimage import color, data
from skimage.filters import threshold_multiotsu, threshold_otsu
from torch import Tensor

from segedu.unsupervised import thresholding
from segedu.unsupervised.thresholding import between_class_variance, otsu_threshold, otsu_thresholds

PHOTOGRAPHS = ("camera", "coins", "moon", "page", "text", "coffee", "astronaut", "chelsea")


def photograph(name: str) -> Tensor:
    image = getattr(data, name)()
    return torch.from_numpy(color.rgb2gray(image) if image.ndim == 3 else image / 255)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_equal_to_scikit_image_on_photographs(name: str, dtype: torch.dtype) -> None:
    values = photograph(name).to(dtype)
    assert otsu_threshold(values) == threshold_otsu(values.numpy())


@pytest.mark.parametrize("bins", [2, 3, 17, 256, 1000])
def test_equal_to_scikit_image_on_draws(bins: int) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(7, 11, 3, generator=generator, dtype=torch.float64)
        values[:3] += 4
        assert otsu_threshold(values, bins) == threshold_otsu(values.numpy().reshape(-1), bins)


def test_parity_notices_a_bin_less_and_the_upper_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    values = photograph("coins")
    theirs = threshold_otsu(values.numpy())
    assert otsu_threshold(values, 255) != theirs
    histogram = thresholding._histogram
    half = float(values.max() - values.min()) / 512

    def edges(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        counts, centres = histogram(*arguments)
        return counts, centres + half

    monkeypatch.setattr(thresholding, "_histogram", edges)
    assert otsu_threshold(values) != theirs


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("name", PHOTOGRAPHS[:4])
def test_several_thresholds_equal_to_scikit_image(name: str, classes: int) -> None:
    values = photograph(name)
    ours, theirs = otsu_thresholds(values, classes), threshold_multiotsu(values.numpy(), classes)
    assert ours.tolist() == theirs.tolist()


def test_where_scikit_image_differs_ours_is_better() -> None:
    """It sums in float32: of two divisions whose variances differ by a millionth it takes the wrong one."""
    values = torch.from_numpy(data.astronaut().astype(np.float32) / 255).mean(dim=2)
    counts, centres = np.histogram(values.numpy(), 256)
    centres = (centres[:-1] + centres[1:]) / 2
    ours, theirs = otsu_thresholds(values, 4).numpy(), threshold_multiotsu(values.numpy(), 4)
    cuts = [tuple(np.searchsorted(centres, found).tolist()) for found in (ours, theirs)]
    assert cuts[0] != cuts[1] and within(counts.tolist(), cuts[0]) < within(counts.tolist(), cuts[1])


def within(counts: list[int], cuts: tuple[int, ...]) -> float:
    """Sum of squared distances to the class means; classes end at `cuts`, bins included."""
    values = np.repeat(np.arange(len(counts)), counts)
    parts = np.split(values, np.searchsorted(values, cuts, side="right"))
    return sum(float(((p - p.mean()) ** 2).sum()) for p in parts if len(p))


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_least_variance_within_of_all_divisions(classes: int) -> None:
    for seed in range(10):
        counts = np.random.default_rng(seed).integers(0, 9, 9)
        counts[[0, -1]] += 1  # so that bin i holds the value i
        values = torch.from_numpy(np.repeat(np.arange(9.0), counts))
        ours = otsu_thresholds(values, classes, bins=9)
        cuts = (ours * 9 / 8).floor().long()  # the bins are 8 / 9 wide
        best = min(within(counts.tolist(), c) for c in itertools.combinations(range(8), classes - 1))
        assert within(counts.tolist(), tuple(cuts.tolist())) == pytest.approx(best, abs=1e-9)


def test_a_class_of_one_pixel_and_the_dtype() -> None:
    """Four at 0, one at 7, three at 8: apart nothing varies within, so each pixel must count for exactly one."""
    values = torch.tensor([0.0, 0, 0, 0, 7, 8, 8, 8])
    thresholds = otsu_thresholds(values, 3, bins=9)  # bins 8 / 9 wide
    torch.testing.assert_close(thresholds, torch.tensor([0.5, 7.5], dtype=torch.float64) * 8 / 9, rtol=0, atol=1e-6)
    assert thresholds.dtype == torch.float64


def test_variance_between_is_total_less_within() -> None:
    counts = torch.tensor([3, 1, 0, 4, 1, 5])
    total = within(counts.tolist(), ())
    for cut, between in enumerate(between_class_variance(counts).tolist()):
        assert between * int(counts.sum()) == pytest.approx(total - within(counts.tolist(), (cut,)))


def test_variance_of_an_empty_class_is_0() -> None:
    assert between_class_variance(torch.tensor([0, 2, 0])).tolist() == [0.0, 0.0]


def test_first_of_equally_good_thresholds() -> None:
    # Two values: every threshold between is perfect. Three, evenly spread: after the first or after the second.
    assert otsu_threshold(torch.tensor([0.0, 1.0]), bins=8) == 1 / 16
    assert otsu_threshold(torch.tensor([0.0, 0.5, 1.0]), bins=3) == pytest.approx(1 / 6)
    for scale in (0.1, 0.3, 0.7):  # not exact in binary
        mirror = scale * torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0, 3.0], dtype=torch.float64)
        low = otsu_threshold(mirror, bins=256)
        assert scale <= low < 1.02 * scale  # after the second value: the middle
        ends = scale * torch.tensor([0.0] + 3 * [1.0, 2.0] + [3.0], dtype=torch.float64)
        assert otsu_threshold(ends, bins=4) < 2 * scale


def test_threshold_in_the_unit_of_the_values() -> None:
    values = photograph("coins")
    assert otsu_threshold(1024 * values - 512) == pytest.approx(1024 * otsu_threshold(values) - 512)
    assert otsu_threshold(values.T[None]) == otsu_threshold(values)


@pytest.mark.parametrize("values", [torch.tensor(0.3), torch.full((4, 5), 0.3), torch.tensor([[0.3]])])
def test_one_pixel_and_constant_image(values: Tensor) -> None:
    threshold = otsu_threshold(values)
    assert threshold == float(values.max()) == threshold_otsu(np.atleast_1d(values.numpy()))
    assert not (values > threshold).any()


def test_half_precision_counts_as_float32() -> None:
    values = photograph("coins").half()
    assert otsu_threshold(values) == otsu_threshold(values.float())


VALUES = torch.tensor([0.0, 0.5, 1.0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: otsu_threshold(VALUES.numpy()), TypeError, "values has type ndarray"),
        (lambda: otsu_threshold(VALUES.byte()), TypeError, "values has dtype torch.uint8"),
        (lambda: otsu_threshold(VALUES[:0]), ValueError, r"values has shape \(0,\)"),
        (lambda: otsu_threshold(VALUES * math.nan), ValueError, "expected finite"),
        (lambda: otsu_threshold(VALUES / 0), ValueError, "expected finite"),
        (lambda: otsu_threshold(VALUES, 1), ValueError, "bins is 1"),
        (lambda: otsu_threshold(VALUES, 2.5), TypeError, "bins is 2.5"),
        (lambda: otsu_thresholds(VALUES, 1), ValueError, "classes is 1"),
        (lambda: otsu_thresholds(VALUES, 4), ValueError, "classes is 4, expected at most 3"),
        (lambda: otsu_thresholds(VALUES[:1], 2), ValueError, "classes is 2"),
        (lambda: between_class_variance(VALUES), TypeError, "counts has dtype torch.float32"),
        (lambda: between_class_variance([1, 2]), TypeError, "counts has type list"),
        (lambda: between_class_variance(torch.tensor([[1, 2]])), ValueError, r"counts has shape \(1, 2\)"),
        (lambda: between_class_variance(torch.tensor([1, -2])), ValueError, "counts has a negative"),
        (lambda: between_class_variance(torch.tensor([0, 0])), ValueError, "or no positive value"),
    ],
)
def test_bad_input(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
