"""The recipes on MR volumes of the hippocampus: the reader, the random changes, the baseline, a step, the weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from segedu.datasets.hippocampus import CLASSES, SPLITS, Hippocampus
from segedu.recipes import hippocampus
from segedu.recipes.data import Sets
from segedu.recipes.hippocampus import PATCH, VOID, PositionPrior, normalize, random_patch
from segedu.recipes.recipe import load_recipe
from segedu.recipes.run import run_recipe
from segedu.recipes.task import SEMANTIC
from segedu.semantic.nnunet.plan import fingerprint, make_plan


def volume(seed: int, size: tuple[int, int, int] = (30, 44, 28)) -> tuple[np.ndarray, np.ndarray]:
    """A bright ellipsoid, class 1 in front and class 2 at the back; the axes are x, y, z as in the files."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    inside = (axes[0] / 0.5) ** 2 + (axes[1] / 0.8) ** 2 + ((axes[2] - 0.2) / 0.4) ** 2 < 1
    labels = np.where(inside, np.where(axes[1] > 0, 1, 2), 0).astype(np.uint8)
    noise = np.random.default_rng(seed).integers(0, 40, size)
    return (60 + 120 * inside + noise).astype(np.uint8), labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, split in enumerate(SPLITS):
        arrays = {}
        for i in range(3):
            image, labels = volume(10 * number + i, (30 + i, 44, 28))
            arrays |= {f"img_h{i}": image, f"lab_h{i}": labels}
        np.savez(tmp_path / f"{split}.npz", **arrays)
    return tmp_path


def test_volumes_become_upright_coronal_slices(folder: Path) -> None:
    data, (image, _) = Hippocampus(folder, "train"), volume(1, (31, 44, 28))
    assert len(data) == 3 and data.names == ["h0", "h1", "h2"] and CLASSES == ("background", "anterior", "posterior")
    sample = data[1]
    assert sample["image"].shape == (1, 44, 28, 31) and sample["image"].dtype == torch.float32
    assert sample["semantic"].shape == (44, 28, 31) and sample["semantic"].dtype == torch.int64
    # x = 3, y = 40, z = 5: row 22 of 28 from the top
    assert sample["image"][0, 40, 22, 3].item() == pytest.approx(image[3, 40, 5] / 255)
    assert sample["semantic"][30].eq(1).any() and not sample["semantic"][10].eq(1).any()  # y grows to the front
    top, bottom = sample["semantic"][:, :14].gt(0).sum(), sample["semantic"][:, 14:].gt(0).sum()
    assert top > bottom  # the ellipsoid lies above the middle


def test_a_broken_folder_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="split is 'all', expected one of train, val, test"):
        Hippocampus(folder, "all")
    (folder / "val.npz").unlink()
    with pytest.raises(FileNotFoundError, match="has no val.npz"):
        Hippocampus(folder, "val")
    image, labels = volume(0)
    for broken in ({"img_a": image}, {"img_a": image, "lab_a": labels[1:]}, {"img_a": image, "lab_a": labels + 1}):
        np.savez(folder / "val.npz", **broken)
        with pytest.raises(ValueError, match="img_a of uint8"):
            Hippocampus(folder, "val")[0]


def test_normalize_maps_the_mean_to_the_middle() -> None:
    torch.manual_seed(0)
    normalized = normalize(0.3 + 0.1 * torch.randn(1, 20, 20, 20))
    assert normalized.mean().item() == pytest.approx(0.5, abs=0.01)
    assert normalized.std().item() == pytest.approx(1 / 6, abs=0.01)
    assert 0 <= normalized.min() and normalized.max() <= 1
    assert torch.allclose(normalize(torch.full((1, 4, 4, 4), 0.7)), torch.tensor(0.5), atol=1e-3)


@pytest.mark.parametrize("size", [(50, 35, 36), (60, 46, 30)], ids=["smaller", "larger"])
def test_random_patches_keep_image_and_target_together(size: tuple[int, int, int]) -> None:
    target = torch.zeros(size, dtype=torch.int64)
    target[10:30, 8:24, 5:15], target[30:40, 8:24, 5:15] = 1, 2
    image, sides, sums = (0.1 + 0.4 * target)[None].float(), set(), set()
    for seed in range(6):
        torch.manual_seed(seed)
        patch, labels = random_patch(image, target)
        assert patch.shape == (1, *PATCH) and labels.shape == PATCH and 0 <= patch.min() and patch.max() <= 1
        means = [patch[0][labels == k].mean().item() for k in range(3)]
        assert means[0] < means[1] - 0.2 < means[2] - 0.4  # intensities follow the labels
        assert set(labels.unique().tolist()) <= {0, 1, 2, VOID}
        across = (labels == 1).nonzero()[:, 2].float().mean()
        known = (labels != VOID).nonzero()[:, 2].float().mean()
        sides.add(bool(across < known))
        sums.add(int((labels == 1).sum()))
    assert sides == {True, False} and len(sums) > 3  # mirrored and scaled


def test_the_position_prior_knows_positions_only(folder: Path) -> None:
    sets = hippocampus.hippocampus_sets(0, folder)
    prior = PositionPrior(sets.train.pairs, 3)
    image, target = sets.held_out["test"]["all"][0]
    prediction = SEMANTIC.predict(prior, image)
    assert prediction.shape == target.shape and (prediction == target).float().mean() > 0.97
    assert torch.equal(prediction, SEMANTIC.predict(prior, torch.zeros_like(image)))


@pytest.mark.parametrize("method", ["unet3d", "nnunet"])
def test_every_row_takes_a_step_and_is_measured(folder: Path, tmp_path: Path, method: str) -> None:
    recipe = load_recipe(method, "hippocampus")
    result = run_recipe(recipe, tmp_path / "run", folder=folder, steps=2, accelerator="cpu", progress=False)
    figures = result["rows"][method]["test"]["all"]
    assert {"foreground_dice", "dice_1", "dice_2"} <= set(figures) and list(result["rows"])[0] == PositionPrior.name
    assert result["rows"][PositionPrior.name]["test"]["all"]["foreground_dice"] > 0.8
    assert (tmp_path / "run" / "picture.png").is_file()


def test_the_fingerprint_is_that_of_the_volumes(shared_data: Path) -> None:
    """The network of the recipe is built without the data, so it holds what nnU-Net's rules need of them."""
    data = Hippocampus(shared_data / "hippocampus", "train")
    measured = fingerprint({**data[i], "spacing": (1.0, 1.0, 1.0)} for i in range(len(data)))
    plans = [make_plan(one, 3, base_width=16) for one in (measured, hippocampus.usual_fingerprint())]
    assert plans[0].topology == plans[1].topology and plans[0].patch_size == PATCH


def test_the_position_prior_reaches_the_published_baseline(shared_data: Path) -> None:
    """The folder's README: whole Dice 74.8 on test, by position in a grid of another size."""
    sets: Sets = hippocampus.hippocampus_sets(0, shared_data / "hippocampus")
    assert [len(sets.train)] + [len(groups["all"]) for groups in sets.held_out.values()] == [95, 20, 45]
    prior = PositionPrior(sets.train.pairs, 3)
    figures = SEMANTIC.measure(partial(SEMANTIC.predict, prior), sets, 3)["test"]["all"]
    assert figures["foreground_dice"] == pytest.approx(0.748, abs=0.01)
