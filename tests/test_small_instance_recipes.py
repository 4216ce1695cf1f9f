"""The recipes on bacteria, on noisy cells and with embeddings: one step of each, and label maps of any size."""

from __future__ import annotations

import pytest
import torch

from segedu.instance.denoiseg import three_classes
from segedu.recipes import bacteria, embeddings, noisy_cells
from segedu.recipes.baselines import OtsuWatershed
from segedu.recipes.run import predictor
from segedu.recipes.task import INSTANCES
from segedu.training import shuffled_loader


@pytest.mark.parametrize(
    "recipe",
    (*bacteria.RECIPES, *embeddings.RECIPES, *noisy_cells.RECIPES),
    ids=lambda recipe: f"{recipe.method} {recipe.data}",
)
def test_every_row_takes_a_step_and_gives_label_maps(recipe) -> None:
    assert recipe.task is INSTANCES and recipe.baseline is OtsuWatershed
    torch.manual_seed(0)
    model, sets = recipe.build(), recipe.sets(0, None, train=2, held_out=1)
    images, targets = next(iter(shuffled_loader(sets.train, 2, collate_fn=recipe.collate)))
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


def test_one_window_has_labels_and_the_same_number_per_step() -> None:
    """Each sample has the labelled window once; the recipe without denoising has no other windows."""
    recipes = {recipe.method: recipe for recipe in noisy_cells.RECIPES}
    assert len({(recipe.steps, recipe.batch_size) for recipe in recipes.values()}) == 1
    for method, windows in (("denoiseg", 8), ("denoiseg_alpha_0", 8), ("three_classes", 2)):
        recipe = recipes[method]
        sets = recipe.sets(0, None, train=3, held_out=1)
        image, label_map = (part[..., :64, :64] for part in sets.train.pairs[0])
        torch.manual_seed(0)
        changed, targets = next(iter(shuffled_loader(sets.train, recipe.batch_size, collate_fn=recipe.collate)))
        labelled = (targets["classes"] != 255).flatten(1)
        assert len(changed) == windows and labelled.any(dim=1).sum() == 2 == labelled.all(dim=1).sum()
        for number in labelled.all(dim=1).nonzero().flatten().tolist():
            turned = [(image.rot90(k, (1, 2)), label_map.rot90(k)) for k in range(4)]
            turned += [(one.flip(-1), other.flip(-1)) for one, other in turned]
            original, classes = targets["images"][number], targets["classes"][number]
            assert any(
                torch.equal(original, one) and torch.equal(classes, three_classes(other)) for one, other in turned
            )
        hidden = targets["blind"][:, None].expand_as(changed)
        assert targets["blind"].flatten(1).sum(dim=1).tolist() == [64] * windows
        assert torch.equal(changed[~hidden], targets["images"][~hidden])


def test_only_denoiseg_learns_from_the_blind_spots() -> None:
    for recipe in noisy_cells.RECIPES:
        torch.manual_seed(0)
        model, sets = recipe.build(), recipe.sets(0, None, train=2, held_out=1)
        images, targets = next(iter(shuffled_loader(sets.train, 2, collate_fn=recipe.collate)))
        denoising = recipe.loss(model(images), targets)["denoising"]
        assert (denoising > 0) == (recipe.method == "denoiseg")
