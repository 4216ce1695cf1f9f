"""The instance recipes on photographs of pedestrians: the random changes, pasting, the baseline, a step."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segedu.datasets.penn_fudan import PennFudan
from segedu.ops.masks import boxes_from_masks
from segedu.recipes import pedestrians
from segedu.recipes.pedestrians import WINDOW, MeanBoxes, paste, random_window
from segedu.recipes.recipe import load_recipe
from segedu.recipes.run import run_recipe
from segedu.recipes.task import DETECTION


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of two sizes with two upright rectangles, the left one bright and the right one dark."""
    for part in ("images", "masks", "splits"):
        (tmp_path / part).mkdir()
    for number, split in enumerate(("train", "val", "test")):
        names = [f"FudanPed0000{number}{i}" for i in range(3)]
        for i, name in enumerate(names):
            labels = np.zeros((256, 300 + 20 * i), np.uint8)
            labels[60:220, 30 : 90 + i], labels[40:230, 180:250] = 1, 2
            pixels = np.array([128, 230, 20], np.uint8)[labels][..., None].repeat(3, axis=2)
            Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.jpg", quality=95)
            Image.fromarray(labels).save(tmp_path / "masks" / f"{name}.png")
        (tmp_path / "splits" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return tmp_path


def test_a_split_of_the_reduced_copy(folder: Path) -> None:
    data = PennFudan(folder, split="val")
    assert data.names == ["FudanPed000010", "FudanPed000011", "FudanPed000012"]
    assert data[0]["boxes"].tolist() == [[30, 60, 90, 220], [180, 40, 250, 230]]
    with pytest.raises(FileNotFoundError, match="has no splits/all.txt"):
        PennFudan(folder, split="all")
    with pytest.raises(FileNotFoundError, match="has no PNGImages"):
        PennFudan(folder)


def test_windows_keep_masks_on_their_pedestrians(folder: Path) -> None:
    sample, sides = PennFudan(folder, split="train")[0], set()
    for seed in range(8):
        torch.manual_seed(seed)
        image, masks = random_window(sample["image"], sample["masks"])
        assert image.shape == (3, WINDOW, WINDOW) and masks.shape[1:] == (WINDOW, WINDOW)
        for mask in masks:
            value = image.mean(dim=0)[mask].mean()
            assert value > 0.8 or value < 0.2
            sides.add((bool(value > 0.5), bool(mask.nonzero()[:, 1].float().mean() < WINDOW / 2)))
    assert {(True, True), (True, False)} <= sides  # mirrored


def test_a_pasted_pedestrian_covers_others() -> None:
    torch.manual_seed(0)
    image, masks = torch.zeros(3, 8, 12), torch.zeros(1, 8, 12, dtype=torch.bool)
    masks[0, 2:6, 0:12] = True
    mask = torch.zeros(8, 12, dtype=torch.bool)
    mask[1:7, 3:5] = True
    positions = set()
    for _ in range(20):
        pasted, both = paste(image, masks, torch.ones(3, 8, 12), mask)
        assert len(both) == 2 and torch.equal(pasted[0] == 1, both[1]) and int(both[1].sum()) == 12
        assert not (both[0] & both[1]).any() and int(both[0].sum()) == 40
        positions.add(int(both[1].nonzero()[0, 1]))
    assert min(positions) == 0 and max(positions) == 10  # anywhere, and never beyond the border
    _, only = paste(image, masks, torch.ones(3, 8, 12), torch.ones(8, 12, dtype=torch.bool))
    assert len(only) == 1  # a pedestrian that is covered completely is dropped


def test_samples_have_boxes_of_their_masks(folder: Path) -> None:
    torch.manual_seed(0)
    data = pedestrians.pedestrian_sets(0, folder).train
    counts = set()
    for i in range(12):
        image, objects = data[i % 3]
        assert 0 <= image.min() and image.max() <= 1
        assert torch.equal(objects["boxes"], boxes_from_masks(objects["masks"]))
        assert objects["labels"].eq(1).all()
        counts.add(len(objects["labels"]))
    assert max(counts) > 2  # the images have two, the others were pasted


def test_mean_boxes_know_positions_only(folder: Path) -> None:
    sets = pedestrians.pedestrian_sets(0, folder)
    baseline = MeanBoxes(sets.train.pairs, 2, number=4)
    image, target = sets.held_out["test"]["all"][0]
    found = DETECTION.predict(baseline, image)
    assert found["masks"].shape == (4, 256, 300) and found["scores"][0] == 1  # of every training image
    figures = DETECTION.measure(partial(DETECTION.predict, baseline), sets, 2)["test"]["all"]
    assert figures["box_ap50"] > 0.9
    again = DETECTION.predict(baseline, torch.zeros_like(image))
    assert torch.equal(found["boxes"], again["boxes"])


@pytest.mark.parametrize("method", ["faster_rcnn", "mask_rcnn", "yolact", "condinst"])
def test_every_row_takes_a_step_and_is_measured(folder: Path, tmp_path: Path, method: str) -> None:
    recipe = replace(load_recipe(method, "pennfudan"), batch_size=2)
    result = run_recipe(recipe, tmp_path / "run", folder=folder, steps=1, accelerator="cpu", progress=False)
    figures = result["rows"][method]["test"]["all"]
    assert 0 <= figures["box_ap50"] <= 1 and (figures["mask_ap50"] is None) == (method == "faster_rcnn")
