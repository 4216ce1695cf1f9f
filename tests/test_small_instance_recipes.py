"""The recipes on bacteria and with embeddings: one step of each, and label maps of any size."""

from __future__ import annotations

import pytest
import torch

from segedu.recipes import bacteria, embeddings
from segedu.recipes.baselines import OtsuWatershed
from segedu.recipes.run import predictor
from segedu.recipes.task import INSTANCES
from segedu.training import shuffled_loader


@pytest.mark.parametrize(
    "recipe", (*bacteria.RECIPES, *embeddings.RECIPES), ids=lambda recipe: f"{recipe.method} {recipe.data}"
)
def test_every_row_takes_a_step_and_gives_label_maps(recipe) -> None:
    assert recipe.task is INSTANCES and recipe.baseline is OtsuWatershed
    torch.manual_seed(0)
    model, sets = recipe.build(), recipe.sets(0, None, train=2, held_out=1)
    images, targets = next(iter(shuffled_loader(sets.train, 2)))
    losses = recipe.loss(model(images), targets)
    losses["loss"].backward()
    assert losses["loss"].isfinite() and any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    label_map = predictor(model, recipe)(sets.held_out["val"]["all"][0][0][:, :37, :45])
    assert label_map.shape == (37, 45) and label_map.dtype == torch.int32


def test_coordinates_follow_the_channels() -> None:
    images = torch.rand(2, 3, 5, 48)
    inputs = embeddings.WithCoordinates(torch.nn.Identity())(images)
    assert torch.equal(inputs[:, :3], images) and inputs.shape == (2, 5, 5, 48)
    assert inputs[1, 3, 4, 7] == 4 / 16 and inputs[0, 4, 2, 32] == 2
