"""Detectors on folders of one's own boxes: train, predict, evaluate, and what can go wrong."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from typer.testing import CliRunner

from segedu.cli import app
from segedu.recipes.own_box_evaluation import evaluate_boxes
from segedu.recipes.own_box_files import box_rows, confident
from segedu.recipes.own_detectors import DETECTORS
from segedu.recipes.own_recipe import own_recipe
from segedu.recipes.prediction_files import images_in, write_predictions
from segedu.recipes.run import run_recipe
from segedu.recipes.trained_run import TrainedRun, load_run

SIZE = (48, 80)


def scene(seed: int) -> tuple[np.ndarray, list[tuple[int, list[int]]]]:
    """A dark image with a bright square (category 3) and a red bar (category 8), and their boxes x, y, w, h."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(10, 60, (*SIZE, 3), dtype=np.uint8)
    square = [int(rng.integers(2, 20)), int(rng.integers(2, 24)), 18, 18]
    bar = [int(rng.integers(44, 52)), int(rng.integers(2, 30)), 24, 12]
    for (x, y, w, h), channels in ((square, slice(0, 3)), (bar, slice(0, 1))):
        pixels[y : y + h, x : x + w, channels] += 150
    return pixels, [(3, square), (8, bar)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight images with boxes and masks in COCO's format, of which two are the split val."""
    folder = tmp_path / "own"
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(8):
        pixels, objects = scene(i)
        Image.fromarray(pixels).save(folder / "images" / f"photo_{i}.png")
        images.append({"id": 50 - i, "file_name": f"photo_{i}.png", "height": SIZE[0], "width": SIZE[1]})
        for category, (x, y, w, h) in objects:
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            entry = {"id": len(annotations) + 1, "image_id": 50 - i, "category_id": category, "bbox": [x, y, w, h]}
            annotations.append(entry | {"area": w * h, "iscrowd": 0, "segmentation": [outline]})
    categories = [{"id": 3, "name": "square"}, {"id": 8, "name": "bar"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    (folder / "splits").mkdir()
    (folder / "splits" / "val.txt").write_text("photo_6\nphoto_7\n")
    return folder


def trained(root: Path, method: str, out: Path, steps: int = 1, **options: Any) -> TrainedRun:
    recipe = own_recipe(method, root, window=64, batch_size=2, **options)
    run_recipe(recipe, out, folder=root, steps=steps, accelerator="cpu", progress=False)
    return load_run(out)


def command(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize("method", DETECTORS)
def test_every_detector_trains_and_predicts_at_the_size_of_the_image(method: str, root: Path, tmp_path: Path) -> None:
    run = trained(root, method, tmp_path / "run", augment="strong")
    assert run.classes == ("background", "square", "bar") and run.kind == "boxes"
    found = run.predict(torch.rand(3, 70, 90))
    assert found["boxes"].shape[1:] == (4,) and len(found["labels"]) == len(found["scores"]) == len(found["boxes"])
    assert ("masks" in found) == (method == "mask_rcnn")
    if method == "mask_rcnn":
        assert found["masks"].shape[1:] == (70, 90)


def as_coco(ground_truth: Path, predictions: Path, iou_type: str) -> list[float]:
    """AP and AP50 by pycocotools, of the whole and then of each category."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ground_truth))
        content = json.loads(predictions.read_text())
        ids = {image["file_name"]: image["id"] for image in truth.dataset["images"]}
        categories = {one["name"]: one["id"] for one in truth.dataset["categories"]}
        to_id = {image["id"]: ids[image["file_name"]] for image in content["images"]}
        to_category = {one["id"]: categories[one["name"]] for one in content["categories"]}
        results = [
            {
                key: value
                for key, value in one.items()
                if key in ("score", "bbox" if iou_type == "bbox" else "segmentation")
            }
            | {"image_id": to_id[one["image_id"]], "category_id": to_category[one["category_id"]]}
            for one in content["annotations"]
        ]
        evaluation = COCOeval(truth, truth.loadRes(results), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]  # (thresholds, recalls, categories, areas, detections)
    per_class = [precision[..., k, 0, 2].mean() for k in range(2)] + [precision[0, :, k, 0, 2].mean() for k in range(2)]
    return [*evaluation.stats[:2].tolist(), *per_class]


def test_a_trained_detector_finds_objects_and_its_files_have_the_figures_of_evaluate(
    root: Path, tmp_path: Path
) -> None:
    run = trained(root, "faster_rcnn", tmp_path / "run", steps=60, learning_rate=2e-3)
    assert write_predictions(run, images_in(root), tmp_path / "out", progress=False) == []
    figures = evaluate_boxes(run, root, progress=False).figures
    expected = as_coco(root / "instances.json", tmp_path / "out" / "annotations.json", "bbox")
    names = ("AP", "AP50", "AP square", "AP bar", "AP50 square", "AP50 bar")
    assert [figures[name] for name in names] == pytest.approx(expected, abs=1e-6)
    assert figures["AP50"] > 0.5
    with (tmp_path / "out" / "counts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16 and {row["name"] for row in rows} == {"square", "bar"}
    with Image.open(tmp_path / "out" / "overlays" / "photo_3.png") as overlay:
        assert overlay.size == SIZE[::-1]
        changed = np.abs(np.asarray(overlay).astype(int) - scene(3)[0].astype(int)).max(axis=2) > 40
    assert sum(int(row["objects"]) for row in rows) > 4 and 20 < changed.sum() < changed.size / 2
    assert not (tmp_path / "out" / "boxes").exists()


def test_masks_on_disk_have_the_figures_of_evaluate(root: Path, tmp_path: Path) -> None:
    run = trained(root, "mask_rcnn", tmp_path / "run", steps=25, learning_rate=2e-3)
    write_predictions(run, images_in(root), tmp_path / "out", progress=False)
    figures = evaluate_boxes(run, root, progress=False).figures
    expected = as_coco(root / "instances.json", tmp_path / "out" / "annotations.json", "segm")
    assert [figures["mask AP"], figures["mask AP50"]] == pytest.approx(expected[:2], abs=1e-6)
    assert figures["mask AP50"] > 0


def test_the_commands_work_together_on_boxes(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("train", "fcos", "--data", root, "--window", 64, "--batch-size", 2, "--accelerator", "cpu", "--out", out)
    status, text = command(*words, "--steps", 2, "--validations", 2)
    assert status == 0 and "train 6, val 2" in text and "Validation: 2 measurements on val" in text, text
    assert "Gaussian + Otsu + boxes" in text and "box AP50, as COCO" in text
    status, text = command("predict", out, root, "--out", tmp_path / "found")
    assert status == 0 and "8 images predicted by fcos" in text and "/overlays," in text and "/boxes" not in text
    status, text = command("evaluate", out, root, "--split", "val")
    assert status == 0 and "2 images of val: AP50:" in text and "AP50 square:" in text and "AP bar:" in text
    assert (out / "evaluation-val.png").is_file()


def test_counts_are_those_of_confident_detections() -> None:
    found = {"boxes": torch.tensor([[0.0, 0, 4, 5], [0, 0, 2, 2], [1, 1, 9, 9]]), "labels": torch.tensor([1, 1, 2])}
    found["scores"] = torch.tensor([0.9, 0.5, 0.1])
    rows = box_rows("a", found, ("background", "x", "y"))
    assert [(r["objects"], r["mean_score"], r["mean_area"]) for r in rows] == [(2, 0.7, 12.0), (0, "", "")]
    assert confident(found)["labels"].tolist() == [1, 1]


def test_what_does_not_fit_gets_a_sentence(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not learn from a folder of boxes, expected one of retinanet, fcos"):
        own_recipe("unet", root)
    with pytest.raises(ValueError, match="ignored is 2, expected a folder of masks"):
        own_recipe("fcos", root, ignored=2)
    with pytest.raises(ValueError, match="augment is 'heavy', expected one of none, light, strong"):
        own_recipe("fcos", root, augment="heavy")
    with pytest.raises(ValueError, match="train_images is 7, expected 1 to 6"):
        own_recipe("fcos", root, train_images=7)
    run = trained(root, "ssd", tmp_path / "run")
    before = (root / "instances.json").read_text()
    (root / "instances.json").rename(root / "annotations.json")
    with pytest.raises(ValueError, match=r"whose annotations.json are the ground truth"):
        write_predictions(run, images_in(root), root, overwrite=True, progress=False)
    assert (root / "annotations.json").read_text() == before
    (root / "annotations.json").write_text(before.replace('"bar"', '"pole"'))
    with pytest.raises(ValueError, match="has the class 'pole', expected the classes of the run: square, bar"):
        evaluate_boxes(run, root, progress=False)
    content = json.loads(before)
    content["annotations"][3].pop("segmentation")
    (root / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="learns masks, and .* has objects without a segmentation, expected one of"):
        own_recipe("mask_rcnn", root)
    content["annotations"][3]["category_id"] = 4
    (root / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match="has the category 4, expected one of 3, 8; 0 further problems: segedu inspect"
    ):
        own_recipe("fcos", root)
    content["annotations"] = []
    (root / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has no object in the images of the split train"):
        own_recipe("fcos", root).sets(0, root)


def test_a_detector_trains_on_real_annotations(shared_data: Path, tmp_path: Path) -> None:
    recipe = own_recipe("fcos", shared_data / "bccd", train_images=4, window=128, longest_side=160)
    sets = recipe.sets(0, shared_data / "bccd")
    assert len(sets.train) == 4 and {name: len(groups["all"]) for name, groups in sets.held_out.items()} == {
        "val": 86, "test": 72
    }  # fmt: skip
    images, targets = recipe.collate([sets.train[i] for i in range(4)])
    assert images.shape == (4, 3, 128, 128) and sum(len(target["boxes"]) for target in targets) > 10
    assert torch.isfinite(recipe.loss(recipe.build()(images), targets)["loss"])
