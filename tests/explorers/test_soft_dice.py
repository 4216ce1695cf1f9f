"""The explorer of region losses on a batch of two images against the library's losses and their derivatives."""

from __future__ import annotations

import pytest
import torch
from explorers.browser import assert_equal

from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.dice import dice_loss
from segedu.losses.region import iou_loss, tversky_loss

pytestmark = pytest.mark.browser
SIDE = 24


def batch(state: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the object (2, 24, 24) and classes (2, 24, 24)."""
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    squared = (y - SIDE / 2) ** 2 + (x - SIDE / 2) ** 2
    target = torch.stack([squared < state[name] ** 2 for name in ("radius_1", "radius_2")])
    p = torch.tensor([state["p_1"], state["p_2"]], dtype=torch.float64)[:, None, None]
    return torch.logit(torch.where(target, p, state["p_0"])), target.long()


def losses(logits: torch.Tensor, target: torch.Tensor, state: dict) -> list[torch.Tensor]:
    options = {"smooth": state["smooth"], "include_background": False}
    return [
        cross_entropy(logits, target),
        dice_loss(logits, target, **options),
        dice_loss(logits, target, per_image=False, **options),
        iou_loss(logits, target, **options),
        tversky_loss(logits, target, alpha=1 - state["beta"], beta=state["beta"], **options),
    ]


def expected(state: dict) -> dict:
    score, target = batch(state)
    score.requires_grad_()
    values = losses(torch.stack([torch.zeros_like(score), score], dim=1), target, state)
    derivatives = []
    for value in values:
        (gradient,) = torch.autograd.grad(value, score, retain_graph=True)
        groups = [gradient[i][target[i] == kind] for kind in (1, 0) for i in (0, 1)]
        derivatives.append([float(group[0]) if len(group) else None for group in groups])
    return {
        "losses": [value.item() for value in values],
        "objects": target.sum(dim=(1, 2)).tolist(),
        "derivatives": derivatives,
    }


def test_equals_python(explorers) -> None:
    states = explorers.states("soft_dice", 100)
    targets = [expected(state) for state in states]
    assert {0 in target["objects"] for target in targets} == {True, False}
    assert {state["smooth"] for state in states} == {0, 0.01, 1, 100}
    for state, target, result in zip(states, targets, explorers.compute("soft_dice", states), strict=True):
        for each, given in zip(target["derivatives"], result["derivatives"], strict=True):
            scale = max(abs(value) for value in each if value is not None) or 1  # derivatives are small numbers
            pairs = [(a / scale, b / scale) for a, b in zip(given, each, strict=True) if b is not None]
            assert_equal([a for a, _ in pairs], [b for _, b in pairs], f"{state}, derivatives")
        del target["derivatives"]
        assert_equal(result, target, f"{state}")
