"""What recipes make of a folder of nuclei: images too small for a window, domains, and pixels of any kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segedu.recipes import data as recipe_data
from segedu.recipes.data import crop_flip_gamma, crop_mirror
from segedu.recipes.recipe import find_recipe, load_recipe

SETS = {"pixels": load_recipe("unet", "nuclei").sets, "objects": load_recipe("mask_rcnn", "nuclei").sets}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fluorescence everywhere, and phase contrast in val only."""
    rows = [("a", "train", "fluorescence"), ("b", "val", "fluorescence"), ("c", "val", "phase"), ("d", "test", "phase")]
    for place in ("images", "labels"):
        (tmp_path / place).mkdir()
    (tmp_path / "index.csv").write_text("\n".join(["file,split,domain", *(",".join(row) for row in rows)]) + "\n")
    labels = np.zeros((130, 140), np.uint16)
    labels[10:30, 10:30], labels[60:90, 60:90] = 1, 2
    for name, _, _ in rows:
        Image.fromarray((40 + 200 * (labels > 0)).astype(np.uint8)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(labels).save(tmp_path / "labels" / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize("make", SETS.values(), ids=SETS)
def test_no_image_is_left_out_for_its_domain(folder: Path, make) -> None:
    sets = make(0, folder)
    assert {split: {name: len(pairs) for name, pairs in group.items()} for split, group in sets.held_out.items()} == {
        "val": {"fluorescence": 1, "phase": 1},
        "test": {"phase": 1},
    }
    assert len(sets.train) == 1 and sets.train[0][0].shape == (3, 128, 128)


@pytest.mark.parametrize("make", SETS.values(), ids=SETS)
def test_an_image_smaller_than_the_window_is_named(folder: Path, make) -> None:
    for place in ("images", "labels"):
        path = folder / place / "a.png"
        Image.fromarray(np.array(Image.open(path))[:100]).save(path)
    with pytest.raises(ValueError, match="images/a has 100 x 140 pixels, expected at least 128 x 128"):
        make(0, folder)


@pytest.mark.parametrize("crop", [crop_flip_gamma, crop_mirror])
def test_a_window_larger_than_the_image(crop) -> None:
    with pytest.raises(ValueError, match="image has 60 x 200 pixels, expected at least"):
        crop(torch.rand(3, 60, 200), torch.zeros(60, 200, dtype=torch.int64))


def test_the_real_folder_has_its_two_domains(shared_data: Path) -> None:
    recipe, folder = find_recipe("unet", str(shared_data / "nuclei"))
    train, held_out = recipe_data.nuclei_images(folder)
    assert len(train) == 354 and recipe.data == "nuclei"
    assert {split: [(name, len(part)) for name, part in group.items()] for split, group in held_out} == {
        "val": [("fluorescence", 54), ("histology", 3)],
        "test": [("fluorescence", 108), ("histology", 11)],
    }
