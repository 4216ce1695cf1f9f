"""The explorer of Otsu's method against the library, on the same image."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from explorers.browser import assert_equal

from segedu.unsupervised.thresholding import between_class_variance, otsu_threshold

pytestmark = pytest.mark.browser
SIDE, LEVELS = 48, 64
DISCS = ((11, 12), (36, 10), (24, 26), (10, 38), (38, 37))


@cache
def noise() -> torch.Tensor:
    state, numbers = 1, []
    for _ in range(12 * SIDE * SIDE):
        state = (1109 * state + 12345) % 65536
        numbers.append(state / 65536)
    return torch.tensor(numbers, dtype=torch.float64).reshape(SIDE, SIDE, 12).sum(dim=2) - 6


def image_of(state: dict) -> torch.Tensor:
    """(48, 48) int64 grey levels."""
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for y, x in DISCS:
        inside |= (row - y) ** 2 + (column - x) ** 2 < state["radius"] ** 2
    level = 14 + inside * state["contrast"] + state["noise"] * noise() + state["light"] * column.double() / SIDE
    return (level + 0.5).floor().clamp(0, LEVELS - 1).long()


def expected(state: dict) -> dict:
    image = image_of(state)
    counts = torch.bincount(image.flatten(), minlength=LEVELS)
    between, values = between_class_variance(counts), image.double()
    above = image > state["threshold"]
    within = sum(
        float(above.eq(part).double().mean() * values[above == part].var(correction=0)) for part in above.unique()
    )
    return {
        "image": image.flatten().tolist(),
        "counts": counts.tolist(),
        "between": between.tolist(),
        "within": within,
        "variance": float(values.var(correction=0)),
        "otsu": int(between.argmax()),
        "bright": float(above.double().mean()),
    }


def test_equals_python(explorers) -> None:
    states = explorers.states("otsu", 70)
    targets = [expected(state) for state in states]
    assert {0 < target["bright"] < 1 for target in targets} == {True, False}, "no state with an empty class"
    for state, target, result in zip(states, targets, explorers.compute("otsu", states), strict=True):
        assert_equal(result, target, f"{state}")


def test_threshold_is_that_of_the_library(explorers) -> None:
    states = [state for state in explorers.states("otsu", 60, seed=1) if state["noise"] or state["light"]]
    assert len(states) >= 50
    for state, result in zip(states, explorers.compute("otsu", states), strict=True):
        image = image_of(state).double()
        low, bins = float(image.min()), int(image.max() - image.min()) + 1  # one grey level per bin
        centre = otsu_threshold(image, bins)
        assert low + int((centre - low) / ((bins - 1) / bins)) == result["otsu"], state


def test_noise_is_nearly_gaussian() -> None:
    assert abs(float(noise().mean())) < 0.05 and abs(float(noise().std()) - 1) < 0.05
