"""From a folder of one's own images to masks on disk: train, predict, evaluate, and what can go wrong."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor
from typer.testing import CliRunner, Result

from segedu.cli import app
from segedu.metrics.confusion import confusion_matrix
from segedu.metrics.instance import match_instances
from segedu.metrics.semantic import mean_iou_from_confusion
from segedu.recipes.cell_instances import TARGETS
from segedu.recipes.evaluation import evaluate_run
from segedu.recipes.own_images import Preparation, own_sets, split_names
from segedu.recipes.own_recipe import MostFrequentClass, own_recipe
from segedu.recipes.photo_networks import NETWORKS
from segedu.recipes.prediction_files import images_in, write_predictions
from segedu.recipes.run import run_recipe
from segedu.recipes.starting_weights import Start
from segedu.recipes.trained_run import TrainedRun, load_run, predict_in_tiles
from segedu.training import load_checkpoint, save_checkpoint

SCRIPT = Path(__file__).resolve().parents[1] / "course" / "06-unet" / "train_in_100_lines.py"
SIZE = (44, 60)  # smaller than a window of 64 x 64


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def scene(seed: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Two bright discs on a dark noisy background, and their label map."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    label_map = np.zeros(size, np.uint16)
    for label, left in ((1, 0.25), (2, 0.75)):
        centre = size[0] * rng.uniform(0.35, 0.65), size[1] * left
        label_map[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 81] = label
    image = 40 + 150 * (label_map > 0)[..., None] + rng.integers(0, 30, (*size, 3))
    return image.astype(np.uint8), label_map


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a folder of ten images with "masks" of classes, 2 in a border and 255 in a corner, or with "labels"."""

    def make(kind: str, count: int = 10) -> Path:
        root = tmp_path / kind
        for i in range(count):
            image, label_map = scene(i)
            save(root / "images" / f"image_{i}.png", image)
            target = label_map
            if kind == "masks":
                target = (label_map > 0).astype(np.uint8)
                target[:, :3], target[:4, -4:] = 2, 255
            save(root / kind / f"image_{i}.png", target)
        return root

    return make


def command(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def trained(folder: Path, method: str, out: Path, steps: int = 2, **options: object) -> TrainedRun:
    recipe = own_recipe(method, folder, window=64, **options)
    run_recipe(recipe, out, folder=folder, steps=steps, accelerator="cpu", progress=False)
    return load_run(out)


# --- reading ------------------------------------------------------------------------------------------------------


def test_images_are_held_out_where_there_are_no_splits(folder: Callable) -> None:
    recipe = own_recipe("unet", folder("masks"), window=64)
    sets = recipe.sets(0, folder("masks"))
    assert len(sets.train) == 8 and len(sets.held_out["val"]["all"]) == 2
    image, target = sets.train[0]
    assert image.shape == (3, 64, 64) and target.shape == (64, 64)
    assert (target[SIZE[0] :] == 255).all() and recipe.classes == ("class 0", "class 1", "class 2")


def test_splits_decide_and_train_is_what_is_left(folder: Callable) -> None:
    from segedu.datasets.folder import SegmentationFolder

    root = folder("labels", 5)
    (root / "splits").mkdir()
    (root / "splits" / "test.txt").write_text("image_4\n")
    assert split_names(SegmentationFolder(root)) == {"train": [f"image_{i}" for i in range(4)], "test": ["image_4"]}
    (root / "splits" / "val.txt").write_text("image_0\nimage_1\n")
    (root / "splits" / "train.txt").write_text("image_2\n")
    assert list(split_names(SegmentationFolder(root))) == ["train", "val", "test"]
    (root / "splits" / "train_small.txt").write_text("image_2\n")  # a part of the training images, not to be tested on
    assert list(split_names(SegmentationFolder(root))) == ["train", "val", "test"]


def test_fewer_training_images_are_a_part_of_more(folder: Callable) -> None:
    root = folder("masks")
    three, five = (own_recipe("unet", root, train_images=n).sets(0, root) for n in (3, 5))
    assert len(three.train) == 3 and len(five.train) == 5 and own_recipe("unet", root, train_images=3).batch_size == 3
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(three.train.pairs, five.train.pairs, strict=False))
    assert len(three.held_out["val"]["all"]) == 2
    with pytest.raises(ValueError, match="train_images is 9, expected 1 to 8"):
        own_recipe("unet", root, train_images=9)


def test_preparation_reduces_and_stretches() -> None:
    image = torch.linspace(0.2, 0.3, 40 * 80).view(1, 40, 80).expand(3, -1, -1)
    small = Preparation("masks", 40, 64)(image)
    assert small.shape == (3, 20, 40) and 0.19 < small.min() < small.max() < 0.31
    stretched = Preparation("labels", None, 64)(image)
    assert stretched.shape == (3, 40, 80) and stretched.min() == 0 and stretched.max() == 1
    assert Preparation("masks", 40, 64)(image[:, :1, :1]).shape == (3, 1, 1)  # one pixel
    assert Preparation("labels", None, 64)(torch.full((3, 4, 4), 0.5)).max() == 0  # a constant image


def test_an_ignored_class_is_void(folder: Callable) -> None:
    root = folder("masks")
    recipe = own_recipe("unet", root, window=64, ignored=2)
    assert recipe.classes == ("class 0", "class 1")
    _, target = recipe.sets(0, root).held_out["val"]["all"][0]
    assert set(target.unique().tolist()) == {0, 1, 255} and (target[:, :3] == 255).all()
    with pytest.raises(ValueError, match="ignored is 1, expected the number of the last"):
        own_recipe("unet", root, ignored=1)


def test_the_baseline_counts_no_void() -> None:
    pairs = [(torch.zeros(3, 2, 3), torch.tensor([[255, 255, 255], [2, 2, 0]]))]
    assert MostFrequentClass(pairs, 3)(torch.zeros(1, 3, 4, 5)).argmax(dim=1).eq(2).all()
    assert MostFrequentClass([(torch.zeros(3, 1, 1), torch.tensor([[255]]))], 3).most_frequent == 0


# --- train, predict, evaluate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", NETWORKS)
def test_every_semantic_network_trains_and_predicts(method: str, folder: Callable, tmp_path: Path) -> None:
    run = trained(folder("masks"), method, tmp_path / "run", steps=1)
    prediction = run.predict(torch.rand(3, 37, 51))
    assert prediction.shape == (37, 51) and prediction.dtype == torch.int64 and run.steps == 1


@pytest.mark.parametrize("method", TARGETS)
def test_every_instance_network_trains_and_predicts(method: str, folder: Callable, tmp_path: Path) -> None:
    run = trained(folder("labels"), method, tmp_path / "run", steps=1)
    prediction = run.predict(torch.rand(3, 37, 51))
    assert prediction.shape == (37, 51) and prediction.dtype == torch.int32


def test_masks_on_disk_equal_what_evaluate_measures(folder: Callable, tmp_path: Path) -> None:
    root = folder("masks")
    run = trained(root, "unet", tmp_path / "run", steps=30, longest_side=48, ignored=2)
    assert write_predictions(run, images_in(root), tmp_path / "out", progress=False) == []
    matrix = torch.zeros(2, 2, dtype=torch.int64)
    for path in sorted((root / "masks").glob("*.png")):
        target = torch.from_numpy(np.array(Image.open(path))).long()
        written = torch.from_numpy(np.array(Image.open(tmp_path / "out" / "masks" / path.name))).long()
        matrix += confusion_matrix(written, target.where(target != 2, 255), 2, ignore_index=255)
    figures = evaluate_run(run, root, progress=False).figures
    assert figures["mean_iou"] == pytest.approx(float(mean_iou_from_confusion(matrix)), abs=1e-12)
    assert figures["mean_iou"] > 0.6  # the most frequent class alone has about 0.4
    with (tmp_path / "out" / "counts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20 and rows[1]["name"] == "class 1"
    assert int(rows[0]["pixels"]) + int(rows[1]["pixels"]) == SIZE[0] * SIZE[1]


def test_label_maps_on_disk_equal_what_evaluate_measures(folder: Callable, tmp_path: Path) -> None:
    root = folder("labels")
    run = trained(root, "signed_distance", tmp_path / "run", steps=40)
    write_predictions(run, images_in(root / "images"), tmp_path / "out", progress=False)
    accuracies, objects = [], 0
    for path in sorted((root / "labels").glob("*.png")):
        written = np.array(Image.open(tmp_path / "out" / "labels" / path.name))
        assert written.dtype == np.uint16
        counts = match_instances(written.astype(np.int32), np.array(Image.open(path)).astype(np.int32))
        accuracies.append(counts[0] / max(sum(counts), 1))
        objects += written.max()
    figures = evaluate_run(run, root, progress=False).figures
    assert figures["instance_accuracy"] == pytest.approx(np.mean(accuracies)) and objects > 0
    coco = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert len(coco["images"]) == 10 and len(coco["annotations"]) == objects
    first = coco["annotations"][0]
    assert coco_mask.decode(first["segmentation"]).sum() == first["area"]
    assert coco_mask.toBbox(first["segmentation"]).tolist() == first["bbox"]


def test_the_commands_work_together(folder: Callable, tmp_path: Path) -> None:
    root, out = folder("masks"), tmp_path / "run"
    words = ("train", "unet", "--data", root, "--steps", 2, "--window", 64, "--out", out, "--accelerator", "cpu")
    done = command(*words, "--validations", 0)  # the last weights, of step 2
    assert done.exit_code == 0, done.output
    assert "Validation:" not in done.output and not (out / "validation.csv").exists()
    assert "train 8, val 2. The folder has no splits" in done.output and "most frequent class" in done.output
    assert "target" not in done.output.partition("seed 0")[0].splitlines()[-1]
    done = command("predict", out, root / "images" / "image_3.png", "--out", tmp_path / "masks_of_3")
    assert done.exit_code == 0 and "1 image predicted by unet after 2 steps" in done.output
    assert {path.name for path in (tmp_path / "masks_of_3").iterdir()} == {
        "masks", "overlays", "annotations.json", "counts.csv"
    }  # fmt: skip
    done = command("evaluate", out, root)
    assert done.exit_code == 0 and "mean IoU: 0." in done.output and (out / "evaluation-all.png").is_file()


def test_a_run_of_a_synthetic_recipe_predicts(tmp_path: Path) -> None:
    done = command("train", "unet", "--data", "cells", "--steps", 2, "--out", tmp_path, "--accelerator", "cpu")
    assert done.exit_code == 0, done.output
    assert load_run(tmp_path).predict(torch.rand(3, 33, 47)).shape == (33, 47)


def test_the_script_of_the_page_learns_and_writes_masks(folder: Callable, tmp_path: Path) -> None:
    root = folder("masks")
    (tmp_path / "short.py").write_text(SCRIPT.read_text().replace("40, 10", "2, 10").replace("64 //", "16 //"))
    words = [sys.executable, tmp_path / "short.py", root, root / "images", tmp_path / "out"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scores = [float(score) for score in re.findall(r"validation mean IoU ([0-9.]+)", done.stdout)]
    assert len(scores) == 2 and max(scores) > 0.3
    with Image.open(tmp_path / "out" / "image_3.png") as mask:
        assert mask.size == SIZE[::-1] and np.array(mask).max() <= 2
    assert len(list((tmp_path / "out").iterdir())) == 10 and len(SCRIPT.read_text().splitlines()) < 120


def test_an_exported_network_has_the_same_logits(folder: Callable, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    run = trained(folder("masks"), "unet", tmp_path / "run")
    done = command("export", tmp_path / "run", "--out", tmp_path / "unet.onnx", "--height", 64, "--width", 96)
    assert done.exit_code == 0 and "shape (1, 3, 64, 96)" in done.output, done.output
    session = onnxruntime.InferenceSession(tmp_path / "unet.onnx", providers=["CPUExecutionProvider"])
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = run.model(images)
    (logits,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-4, rtol=1e-4)
    about = json.loads(session.get_modelmeta().custom_metadata_map["segedu"])
    assert about["classes"] == list(run.classes) and about["preparation"]["kind"] == "masks"
    refused = command("export", tmp_path / "run", "--out", tmp_path / "unet.pt")
    assert refused.exit_code != 0 and "expected a file that ends in .onnx" in " ".join(refused.output.split())


def test_16_bit_tiffs_train_and_keep_their_size(folder: Callable, tmp_path: Path) -> None:
    root = folder("labels")
    for path in sorted((root / "images").iterdir()):
        grey = np.array(Image.open(path))[..., 0].astype(np.uint16) * 9 + 1000
        Image.fromarray(grey).save(path.with_suffix(".tif"))
        path.unlink()
    run = trained(root, "signed_distance", tmp_path / "run", steps=1)
    image, _ = own_sets(0, root, preparation=run.preparation, change=None).train.pairs[0]
    assert image.min() == 0 and image.max() == 1 and len(image.unique()) > 50
    assert write_predictions(run, images_in(root), tmp_path / "out", progress=False) == []
    for path in (root / "images").iterdir():
        with Image.open(path) as source, Image.open(tmp_path / "out" / "labels" / f"{path.stem}.png") as written:
            assert source.mode == "I;16" and written.size == source.size == SIZE[::-1]


# --- fine-tuning --------------------------------------------------------------------------------------------------


def test_fine_tuning_copies_all_but_the_classes_and_freezes(folder: Callable, tmp_path: Path) -> None:
    root = folder("masks")
    before = trained(root, "unet", tmp_path / "first", ignored=2).model.state_dict()
    part = next(iter(dict(load_run(tmp_path / "first").model.named_children())))
    start = Start(str(tmp_path / "first"), (part,))
    recipe = own_recipe("unet", root, window=64)  # three classes
    run_recipe(recipe, tmp_path / "second", folder=root, steps=2, accelerator="cpu", progress=False, start=start)
    after = load_run(tmp_path / "second").model.state_dict()
    frozen = [name for name in before if name.startswith(f"{part}.") and name.endswith((".weight", ".bias"))]
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    about = load_checkpoint(tmp_path / "second" / "checkpoint.pt")["about"]["start"]
    assert 0 < about["copied"] < len(before) and about["frozen"] == list(start.frozen)


def test_starting_weights_that_do_not_fit_are_refused(folder: Callable, tmp_path: Path) -> None:
    model = own_recipe("unet", folder("masks"), window=64).build()
    with pytest.raises(ValueError, match="expected at least half: they are of another network"):
        Start("street_vgg").apply(model)
    with pytest.raises(ValueError, match="expected the folder of a run of segedu train or a name"):
        Start("nothing").apply(model)
    with pytest.raises(FileNotFoundError, match="has no checkpoint.pt"):
        Start(str(tmp_path)).apply(model)
    with pytest.raises(ValueError, match="expected one of its parts"):
        Start(frozen=("nose",)).apply(model)
    with pytest.raises(ValueError, match="which is the whole network"):
        Start(frozen=tuple(name for name, _ in model.named_children())).apply(model)


def test_other_starting_weights_are_another_run(folder: Callable, tmp_path: Path) -> None:
    root = folder("masks")
    trained(root, "unet", tmp_path / "first")
    trained(root, "unet", tmp_path / "second")
    recipe, start = own_recipe("unet", root, window=64), Start(str(tmp_path / "first"))
    with pytest.raises(ValueError, match="belongs to a run with"):
        run_recipe(recipe, tmp_path / "second", folder=root, steps=4, accelerator="cpu", progress=False, start=start)


# --- tiles --------------------------------------------------------------------------------------------------------


def test_tiles_keep_whole_objects_whole() -> None:
    from skimage.measure import label

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:150, :190]
    image = torch.zeros(1, 150, 190)
    for row, column in rng.uniform((0, 0), (150, 190), (60, 2)):
        image[0][torch.from_numpy((rows - row) ** 2 + (columns - column) ** 2 < 30)] = 1

    def predict(tile: Tensor) -> Tensor:
        return torch.from_numpy(label(tile[0].numpy() > 0.5, connectivity=1).astype(np.int32))

    whole, tiled = predict(image), predict_in_tiles(predict, image, tile=80, overlap=40)
    assert match_instances(tiled, whole, 0.999)[0] == whole.max() == tiled.max()


def test_an_object_larger_than_the_overlap_is_not_lost() -> None:
    image = torch.zeros(1, 20, 100)
    image[:, 5:10, 3:97] = 1
    tiled = predict_in_tiles(lambda tile: (tile[0] > 0.5).int(), image, tile=40, overlap=10)
    assert torch.equal(tiled > 0, image[0] > 0.5)


def test_large_photographs_are_predicted_in_tiles(
    folder: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(folder("masks"), "unet", tmp_path / "run", longest_side=0)
    image = torch.rand(3, 300, 420, generator=torch.Generator().manual_seed(0))
    whole = run.predict(image)
    monkeypatch.setattr("segedu.recipes.trained_run.TILE", 256)
    assert (run.predict(image) == whole)[96:-96, 96:-96].float().mean() > 0.99


# --- what can go wrong --------------------------------------------------------------------------------------------


def test_predictions_replace_nothing_unasked(folder: Callable, tmp_path: Path) -> None:
    root = folder("masks")
    trained(root, "unet", tmp_path / "run")
    out = tmp_path / "out"
    assert command("predict", tmp_path / "run", root, "--out", out).exit_code == 0
    again = command("predict", tmp_path / "run", root, "--out", out)
    assert (
        again.exit_code != 0 and "exists already, as 11 others do: give another --out, or --overwrite" in again.output
    )
    assert command("predict", tmp_path / "run", root, "--out", out, "--overwrite").exit_code == 0
    truth = (root / "masks" / "image_0.png").read_bytes()
    refused = command("predict", tmp_path / "run", root, "--out", root, "--overwrite")
    assert refused.exit_code != 0 and "are the ground truth of the images, expected another" in refused.output
    assert (root / "masks" / "image_0.png").read_bytes() == truth


def test_an_unreadable_image_does_not_stop_the_others(folder: Callable, tmp_path: Path) -> None:
    root = folder("labels")
    trained(root, "stardist", tmp_path / "run", steps=1)
    (root / "images" / "image_4.png").write_bytes(b"no image")
    done = command("predict", tmp_path / "run", root, "--out", tmp_path / "out")
    assert done.exit_code == 1 and "9 images predicted" in done.output
    assert "image_4.png is not a readable image" in done.output
    assert len(list((tmp_path / "out" / "labels").iterdir())) == 9


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("train", "stardist", "--data", "{masks}"),
            "which does not learn from a folder of masks, expected one of unet",
        ),
        (("train", "unet", "--data", "{tmp}/none"), "which does not exist, expected a folder with images and masks"),
        (("train", "unet", "--data", "{masks}", "--window", 50), "window is 50, expected a multiple of 32"),
        (("train", "unet", "--data", "{masks}", "--longest-side", 8), "longest_side is 8, expected at least 32"),
        (("train", "unet", "--data", "cells", "--window", 64), "are for a folder of your own, not for cells"),
        (("train", "unet", "--data", "{masks}", "--learning-rate", -1), "expected a number above 0"),
        (("predict", "{tmp}/none", "{masks}", "--out", "{tmp}/out"), "expected the folder of a run of segedu train"),
        (("evaluate", "{tmp}/none", "{masks}"), "expected the folder of a run of segedu train"),
    ],
)
def test_wrong_commands_get_a_sentence(
    words: tuple, sentence: str, folder: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"masks": folder("masks"), "tmp": tmp_path}
    done = command(*(str(word).format(**places) for word in words))
    assert done.exit_code != 0 and sentence in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "runs").exists() and not (tmp_path / "out").exists()


def test_one_image_is_not_enough(folder: Callable) -> None:
    root = folder("masks", 1)
    with pytest.raises(ValueError, match="has no image to train on, expected at least two images"):
        own_recipe("unet", root)


def test_images_without_a_mask_are_named(folder: Callable) -> None:
    root = folder("masks")
    (root / "masks" / "image_7.png").unlink()
    (root / "classes.txt").write_text("ground\nleaf\nborder\n")
    with pytest.raises(
        FileNotFoundError, match=r"image_7.png has no ground truth, expected .*; segedu inspect .*masks names every"
    ):
        own_sets(0, root, preparation=Preparation("masks", None, 64), change=None)


def test_masks_of_one_class_and_images_in_two_splits_are_refused(folder: Callable) -> None:
    root = folder("masks")
    (root / "splits").mkdir()
    (root / "splits" / "train.txt").write_text("image_0\nimage_1\nimage_2\n")
    (root / "splits" / "val.txt").write_text("image_2\nimage_3\n")
    with pytest.raises(ValueError, match="has image_2 and 0 other images both in train and in val"):
        own_recipe("unet", root)
    (root / "splits" / "val.txt").write_text("image_3\n")
    for value, which in ((1, "only class 1"), (255, "only ignored pixels")):
        for i in range(3):
            save(root / "masks" / f"image_{i}.png", np.full(SIZE, value, np.uint8))
        with pytest.raises(ValueError, match=f"has masks with {which} in its training images"):
            own_sets(0, root, preparation=Preparation("masks", None, 64), change=None)


def test_runs_of_other_tasks_and_other_classes_are_refused(folder: Callable, tmp_path: Path) -> None:
    root = folder("masks")
    run = trained(root, "unet", tmp_path / "run")
    with pytest.raises(ValueError, match="has labels, expected masks: the run predicts those"):
        evaluate_run(run, folder("labels"), progress=False)
    (root / "classes.txt").write_text("ground\nleaf\nborder\n")
    with pytest.raises(ValueError, match="has the classes ground, leaf, border, expected those of the run: class 0"):
        evaluate_run(run, root, progress=False)
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    for changes, sentence in (
        ({"method": "mask_rcnn", "data": "shapes"}, "expected one of semantic or instance segmentation"),
        ({"method": "nobody"}, "expected one of unet"),
        ({"data": "moon"}, "does not say what it was trained for"),
        ({"network": "0" * 16}, "this version of segedu builds differently"),
    ):
        save_checkpoint(tmp_path / "changed.pt", state | {"about": state["about"] | changes})
        with pytest.raises(ValueError, match=sentence):
            load_run(tmp_path / "changed.pt")


def test_two_images_of_the_same_name_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    save(tmp_path / "a.jpg", np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="have the same name, expected one file per image"):
        images_in(tmp_path)
    with pytest.raises(ValueError, match="contains no image"):
        images_in(tmp_path.joinpath("empty").mkdir() or tmp_path / "empty")
