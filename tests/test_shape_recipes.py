"""Recipes on shapes: turned objects keep their masks, COCO's precision by hand, the baseline, a run and its picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from segedu.datasets.shapes import Shapes
from segedu.ops.masks import boxes_from_masks
from segedu.recipes.data import Sets
from segedu.recipes.detectors import RECIPES, WithProposals, fit_svms, with_proposals
from segedu.recipes.run import run_recipe
from segedu.recipes.shapes import Examples, OtsuComponents, examples, stack
from segedu.recipes.task import DETECTION, measure_detections
from segedu.training import shuffled_loader
from segedu.unsupervised.selective_search import FAST, selective_search


def test_turned_objects_keep_their_masks_and_labels() -> None:
    pairs = examples(Shapes(1, seed=3, size=(48, 48)))
    image, objects = pairs[0]
    objects["proposals"] = objects["boxes"]
    means = torch.stack([image[:, mask].mean(dim=1) for mask in objects["masks"]])
    data, seen = Examples(pairs), set()
    torch.manual_seed(0)
    for _ in range(40):
        turned, found = data[0]
        assert torch.equal(found["boxes"], boxes_from_masks(found["masks"]))
        assert torch.equal(found["boxes"], found["proposals"])
        assert torch.equal(found["labels"], objects["labels"])
        torch.testing.assert_close(torch.stack([turned[:, mask].mean(dim=1) for mask in found["masks"]]), means)
        seen.add(turned.numpy().tobytes())
    assert len(seen) == 8
    assert torch.equal(objects["boxes"], examples(Shapes(1, seed=3, size=(48, 48)))[0][1]["boxes"])


def squares(*boxes: tuple[int, int, int, int]) -> dict[str, torch.Tensor]:
    masks = torch.zeros(len(boxes), 40, 40, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return {"boxes": torch.tensor(boxes).float(), "labels": torch.ones(len(boxes), dtype=torch.int64), "masks": masks}


def test_precision_by_hand() -> None:
    """One of two objects found, exactly: 51 of COCO's 101 points of recall. Boxes alone leave masks without a number."""
    truth = squares((2, 2, 12, 12), (20, 20, 34, 34))
    found = {key: value[:1] for key, value in truth.items()} | {"scores": torch.tensor([0.9])}
    sets = Sets(None, {"val": {"all": [(torch.zeros(3, 40, 40), truth)]}})
    table = measure_detections(lambda _: found, sets)["val"]["all"]
    assert table == pytest.approx(dict.fromkeys(("box_ap50", "box_ap", "mask_ap50", "mask_ap"), 51 / 101))
    del found["masks"]
    table = measure_detections(lambda _: found, sets)["val"]["all"]
    assert table["mask_ap50"] is table["mask_ap"] is None and table["box_ap50"] == pytest.approx(51 / 101)


def test_the_baseline_finds_what_stands_alone() -> None:
    truth = squares((4, 4, 16, 16), (22, 20, 36, 34))
    image = truth["masks"].any(dim=0).float().expand(3, -1, -1)
    baseline = OtsuComponents([(image, truth)], 2)
    (found,) = baseline(image[None])
    assert (found["boxes"] - truth["boxes"]).abs().max() <= 1  # the Gaussian makes them a little larger
    assert torch.equal(boxes_from_masks(found["masks"]), found["boxes"])
    assert found["labels"].tolist() == [1, 1] and bool((found["scores"] > 0.5).all())
    (nothing,) = baseline(torch.zeros(1, 3, 40, 40))
    assert {key: tuple(value.shape) for key, value in nothing.items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "scores": (0,),
        "masks": (0, 40, 40),
    }


def with_shifted_boxes(pairs: list) -> list:
    """As `with_proposals`, without the time that selective search takes."""
    return [(image, objects | {"proposals": objects["boxes"] + 2}) for image, objects in pairs]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.method)
def test_every_row_takes_a_step_and_gives_detections(recipe) -> None:
    assert recipe.task is DETECTION and recipe.baseline is OtsuComponents
    torch.manual_seed(0)
    model, data = recipe.build(), Examples(with_shifted_boxes(examples(Shapes(4, seed=1))))
    images, targets = next(iter(shuffled_loader(data, 2, collate_fn=recipe.collate)))
    losses = recipe.loss(model(images), targets)
    losses["loss"].backward()
    assert losses["loss"].isfinite() and any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    model.eval()
    with torch.no_grad():
        (found,) = recipe.postprocess(model(data[0][0][None]), (64, 64))
    assert {"boxes", "labels", "scores"} <= set(found) and bool((found["scores"][1:] <= found["scores"][:-1]).all())


def test_the_proposals_are_those_of_selective_search() -> None:
    for image, objects in with_proposals(examples(Shapes(2, seed=5))).pairs:
        assert torch.equal(objects["proposals"], selective_search(image, FAST))


def test_the_svms_of_rcnn_are_set_after_the_steps(tmp_path: Path) -> None:
    (row,) = (row for row in RECIPES if row.method == "rcnn")
    held = examples(Shapes(2, seed=2))
    sets = Sets(Examples(with_shifted_boxes(examples(Shapes(8, seed=1)))), {"val": {"all": held}})
    judged = []

    def finish(model: WithProposals, sets: Sets) -> None:
        before = {name: part.weight.clone() for name, part in model.model.named_children() if hasattr(part, "weight")}
        fit_svms(model, sets)
        judged.append({name for name, old in before.items() if not torch.equal(old, getattr(model.model, name).weight)})

    run_recipe(replace(row, sets=lambda *_: sets, finish=finish), tmp_path, steps=2, accelerator="cpu", progress=False)
    assert judged == [{"svm", "box"}]


def test_a_run_writes_figures_and_picture(tmp_path: Path) -> None:
    pairs = examples(Shapes(16, seed=1))
    sets = Sets(Examples(pairs), {"val": {"all": examples(Shapes(3, seed=2))}})
    (row,) = (row for row in RECIPES if row.method == "ssd")
    recipe = replace(row, sets=lambda seed, folder: sets, batch_size=4)
    run_recipe(recipe, tmp_path, steps=3, accelerator="cpu", progress=False)
    table = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert set(table) == {OtsuComponents.name, recipe.method}
    assert 0 <= table[recipe.method]["val"]["all"]["box_ap50"] <= 1
    assert Image.open(tmp_path / "picture.png").width > 300


def test_a_batch_is_a_stack_of_images_and_a_list_of_objects() -> None:
    images, targets = stack(examples(Shapes(2, seed=1)))
    assert images.shape == (2, 3, 64, 64) and [set(target) for target in targets] == [{"boxes", "labels", "masks"}] * 2
