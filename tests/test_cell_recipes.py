"""Recipes of methods that find objects: targets computed after the crop, objects counted, a plain baseline beside."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from segedu.instance import signed_distance
from segedu.recipes.baselines import OtsuWatershed
from segedu.recipes.cell_instances import RECIPES, _without_rims
from segedu.recipes.cells import Objects, boxes_and_masks, cells_instance_sets
from segedu.recipes.data import Sets, flip
from segedu.recipes.microscopes import RECIPES as MICROSCOPES
from segedu.recipes.run import predictor, run_recipe
from segedu.recipes.run_table import higher_iou_scores, summary
from segedu.recipes.task import INSTANCES, measure_instances
from segedu.semantic.unet import UNet
from segedu.training import shuffled_loader

SMALL = next(recipe for recipe in RECIPES if (recipe.method, recipe.data) == ("signed_distance", "cells"))


ON_REAL_IMAGES = [recipe for recipe in MICROSCOPES if recipe.task is INSTANCES]


def blobs(*places: tuple[int, int], size: int = 40, radius: float = 5.5) -> tuple[Tensor, Tensor]:
    """Bright discs on a dark ground, numbered; in the image those that touch are one."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    label_map = torch.zeros(size, size, dtype=torch.int32)
    for number, (row, column) in enumerate(places, 1):
        label_map[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    return (label_map > 0).float().expand(3, -1, -1).contiguous(), label_map


@pytest.mark.parametrize("recipe", [*RECIPES, *ON_REAL_IMAGES], ids=lambda recipe: f"{recipe.method} {recipe.data}")
def test_every_row_takes_a_step_and_gives_label_maps(recipe) -> None:
    """The rows on real images too, here on synthetic cells."""
    assert recipe.task is INSTANCES and recipe.baseline is OtsuWatershed
    torch.manual_seed(0)
    targets_of = recipe.sets.keywords["dataset"].keywords["targets"]
    model, sets = recipe.build(), cells_instance_sets(targets_of)(0, None)
    images, targets = next(iter(shuffled_loader(sets.train, 2, collate_fn=recipe.collate)))
    losses = recipe.loss(model(images), targets)
    losses["loss"].backward()
    assert losses["loss"].isfinite() and any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    label_map = predictor(model, recipe)(sets.train[0][0][:, :37, :45])
    assert label_map.shape == (37, 45) and label_map.dtype == torch.int32


def test_boxes_and_masks_leave_slivers_out() -> None:
    _, label_map = blobs((10, 12), (28, 30))
    label_map[39, :3] = 3  # what the edge of a window cut off
    objects = boxes_and_masks(label_map)
    assert objects["labels"].tolist() == [1, 1] and objects["masks"].sum(dim=(1, 2)).min() > 50
    assert objects["boxes"].tolist() == [[7, 5, 18, 16], [25, 23, 36, 34]]
    assert {k: tuple(v.shape) for k, v in boxes_and_masks(torch.zeros(9, 9, dtype=torch.int32)).items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "masks": (0, 9, 9),
    }


def test_a_rim_of_a_second_mask_is_no_object() -> None:
    """Its middle hidden by a surer mask, a mask goes; one of which three quarters are in sight stays."""
    masks = torch.zeros(3, 12, 12, dtype=torch.bool)
    masks[0, 2:8, 2:8], masks[1, 1:8, 1:8], masks[2, 6:10, 6:10] = True, True, True
    label_map = _without_rims(masks, torch.tensor([0.9, 0.8, 0.7]))
    assert label_map.unique().tolist() == [0, 1, 2] and torch.equal(label_map == 1, masks[0])
    assert torch.equal(label_map == 2, masks[2] & ~masks[0])
    assert _without_rims(masks[:0], torch.zeros(0)).sum() == 0


def test_targets_are_made_of_what_the_change_left() -> None:
    image, label_map = blobs((10, 12), (28, 30))
    torch.manual_seed(0)
    data = Objects([(image, label_map)], flip, signed_distance.signed_distance_targets)
    seen = set()
    for _ in range(30):
        changed, targets = data[0]
        assert torch.equal(targets["distance"] > 0, changed[0] > 0.5)
        seen.add(changed[0].numpy().tobytes())
    assert len(seen) == 8  # rotations and mirrorings


def test_accuracies_by_hand() -> None:
    """Image 1: both discs found, one of them at IoU 0.74 only; image 2: of two one, as a third one is invented."""
    image, truth = blobs((10, 10), (28, 28))
    half = truth.clone()
    half[:8][half[:8] == 1] = 0
    iou = float((half == 1).sum() / (truth == 1).sum())
    assert 0.7 < iou < 0.8
    _, three = blobs((10, 10), (28, 10))
    preds = iter([half, three, half, three])
    sets = Sets(None, {"val": {"all": [(image, truth), (image, truth)], "none": []}})
    found = measure_instances(lambda _: next(preds), sets)["val"]
    assert found["all"] == {
        "instance_accuracy": pytest.approx((1 + 1 / 3) / 2),
        "instance_accuracy_0.6": pytest.approx((1 + 1 / 3) / 2),
        "instance_accuracy_0.7": pytest.approx((1 + 1 / 3) / 2),
        "instance_accuracy_0.8": pytest.approx((1 / 3 + 1 / 3) / 2),
        "instance_accuracy_0.9": pytest.approx((1 / 3 + 1 / 3) / 2),
        "pooled_accuracy": pytest.approx(3 / 5),
    }
    assert set(found["none"].values()) == {None}


def test_the_mean_counts_an_empty_image_that_stays_empty() -> None:
    image, truth = blobs()
    sets = Sets(None, {"val": {"all": [(image, truth)]}})
    assert measure_instances(lambda _: truth, sets)["val"]["all"]["instance_accuracy"] == 1
    assert measure_instances(lambda _: blobs((9, 9))[1], sets)["val"]["all"]["instance_accuracy"] == 0


def test_the_baseline_parts_discs_that_touch() -> None:
    image, truth = blobs((20, 9), (20, 25), radius=8.2)
    image[:, 20, 15:19] = 1  # a bridge
    found = OtsuWatershed(min_distance=6)(image[None])[0]
    assert len(found.unique()) == 3
    assert OtsuWatershed()(torch.zeros(2, 3, 8, 8))[1].max() == 0
    sets = Sets(None, {"val": {"all": [(image, truth)]}})
    assert (
        measure_instances(lambda image: OtsuWatershed(min_distance=6)(image[None])[0], sets)["val"]["all"][
            "instance_accuracy_0.8"
        ]
        == 1
    )


def test_a_run_counts_objects_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    train = Objects([blobs((10, 10), (28, 22))] * 4, flip, signed_distance.signed_distance_targets)
    sets = Sets(train, {"val": {"round": [blobs((12, 12))], "none": [blobs()]}})
    tiny = replace(
        SMALL,
        build=lambda: signed_distance.SignedDistance(UNet(3, 1, 8, depth=2, padding=1)),
        sets=lambda seed, folder: sets,
        steps=80,
        batch_size=2,
        learning_rate=0.01,
    )
    result = run_recipe(tiny, tmp_path, accelerator="cpu", progress=False)
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert list(result["rows"]) == [OtsuWatershed.name, "signed_distance"]
    assert result["rows"]["signed_distance"]["val"]["round"]["instance_accuracy"] == 1
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 300
    again = run_recipe(tiny, tmp_path, accelerator="cpu", progress=False)
    assert again["rows"] == result["rows"]
    header, lines = summary(result)
    assert header == ["method", "val", "val round", "val none"] and lines[1][0] == "signed_distance"
    line = higher_iou_scores(result)  # both find the only disc, and nothing in the empty image
    assert line.startswith(f"val at IoU 0.5, 0.6, 0.7, 0.8, 0.9: {OtsuWatershed.name} 1.000 ")
    assert re.search(
        r"; signed_distance 1\.000( [01]\.\d{3}){4}; pooled 1\.000 1\.000; round 1\.000 1\.000; none", line
    )
