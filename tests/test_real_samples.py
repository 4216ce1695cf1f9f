"""Real images of one size: what is cropped, mirrored, ignored and dropped, on miniature folders."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from segedu.datasets.real_folder import real_folder
from segedu.recipes import real_samples
from segedu.recipes.otsu_sizes import OtsuSizes
from segedu.weights import offline
from segedu.weights.pretrained import WeightsError


def write(folder, kind, name, image, target, splits):
    for part in ("images", kind, "splits"):
        (folder / part).mkdir(exist_ok=True)
    Image.fromarray(image).save(folder / "images" / f"{name}.png")
    Image.fromarray(target).save(folder / kind / f"{name}.png")
    for split in splits:
        with (folder / "splits" / f"{split}.txt").open("a") as file:
            file.write(f"{name}\n")


@pytest.fixture
def fetch(monkeypatch):
    """`segedu.datasets.fetch`, replaced by a function that each test chooses."""
    module = ModuleType("segedu.datasets.fetch")
    monkeypatch.setitem(sys.modules, "segedu.datasets.fetch", module)
    monkeypatch.setattr("segedu.datasets.fetch", module, raising=False)
    return module


def test_a_real_folder_is_first_looked_for_in_the_variable(tmp_path, monkeypatch, fetch):
    fetch.fetch = lambda name: tmp_path / "cache" / name
    (tmp_path / "bccd").mkdir()
    monkeypatch.setenv("SEGEDU_DATA", str(tmp_path))
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path / "empty"))
    assert real_folder("bccd") == tmp_path / "bccd"
    assert real_folder("pets") == tmp_path / "cache" / "pets"


@pytest.mark.parametrize("error", [OSError("no route to host"), RuntimeError("not the published file")])
def test_without_a_folder_the_lab_is_told_why(error, tmp_path, monkeypatch, fetch, capsys):
    def fail(name):
        raise error

    fetch.fetch = fail
    monkeypatch.delenv("SEGEDU_DATA", raising=False)
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path))
    assert real_folder("pets") is None
    out = capsys.readouterr().out
    assert out.startswith("The data set pets could not be downloaded, so this cell uses synthetic scenes instead.")
    assert str(error) in out


def test_pets_are_centre_squares_and_their_border_is_ignored(tmp_path):
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 200
    trimap = np.zeros((40, 80), np.uint8)
    trimap[:, 30:50], trimap[:, 50:52] = 1, 2
    write(tmp_path, "masks", "cat", image, trimap, ["train"])
    write(tmp_path, "masks", "dog", image, trimap, ["test"])
    (train,), (test,) = (real_samples.pets(tmp_path, held_out, 40, 9) for held_out in (False, True))
    assert train["image"].shape == (3, 40, 40) and bool((train["image"] > 0.75).all())
    assert train["semantic"][0].tolist() == [0] * 10 + [1] * 20 + [255] * 2 + [0] * 8
    assert torch.equal(train["semantic"], test["semantic"]) and test["semantic"].dtype == torch.int64
    assert real_samples.pets(tmp_path, False, 20, 9)[0]["semantic"].shape == (20, 20)


def test_nuclei_are_windows_with_several_nuclei(tmp_path):
    image = np.full((40, 105), 200, np.uint8)  # a bright background, which is inverted
    labels = np.zeros((40, 105), np.uint8)
    for number, left in enumerate((2, 10, 18, 40, 48, 70, 78, 86), 7):  # three, two and three in the windows
        image[4:10, left : left + 6], labels[4:10, left : left + 6] = 30, number
    write(tmp_path, "labels", "large", image, labels, ["train"])
    write(tmp_path, "labels", "small", image[:20, :20], labels[:20, :20], ["train"])
    write(tmp_path, "labels", "held", image, labels, ["val"])
    windows = real_samples.nuclei(tmp_path, False, (32, 32), 9)
    assert len(windows) == 2  # the second window has two nuclei, and the small image has no window
    for window in windows:
        assert window["image"].shape == (3, 32, 32) and window["label_map"].max() == 3
        assert torch.equal(window["semantic"] == 1, window["image"][0] > 0.5)
    assert len(real_samples.nuclei(tmp_path, False, (32, 32), 1)) == 1
    assert len(real_samples.nuclei(tmp_path, True, (40, 100), 9)) == 1  # val is held out where there is no test


@pytest.mark.parametrize("kind", ["masks", "labels"])
def test_pedestrians_are_squeezed_and_mirrored_with_their_masks(kind, tmp_path):
    numbers = np.zeros((40, 80), np.uint8)
    numbers[10:30, 20:40], numbers[5:35, 50:60] = 1, 2
    image = np.stack([4 * numbers] * 3, axis=-1)
    write(tmp_path, kind, "street", image, numbers, ["train"])
    write(tmp_path, kind, "other", image, numbers, ["test"])
    first, mirrored = real_samples.pedestrians(tmp_path, False, 20, 9)
    assert first["boxes"].tolist() == [[5.0, 5.0, 10.0, 15.0], [12.0, 2.0, 15.0, 17.0]]
    assert mirrored["boxes"][0].tolist() == [10.0, 5.0, 15.0, 15.0] and mirrored["labels"].tolist() == [1, 1]
    assert torch.equal(mirrored["masks"], first["masks"].flip(-1)) and first["masks"][0].sum() == 50
    assert torch.equal(mirrored["image"], first["image"].flip(-1))
    assert len(real_samples.pedestrians(tmp_path, True, 20, 9)) == 1


def test_blood_cells_are_cropped_scaled_and_mirrored_with_their_boxes(tmp_path):
    (tmp_path / "images").mkdir()
    image = np.full((24, 32, 3), 255, np.uint8)  # the centre square has the columns 4 to 28
    image[2:8, 6:12] = 0
    Image.fromarray(image).save(tmp_path / "images" / "a.png")
    boxes = {
        1: [6, 2, 6, 6],
        2: [0, 10, 6, 6],
        3: [26, 10, 4, 4],
    }  # the second is visible to a third, the third to half
    annotations = [{"image_id": 5, "category_id": k, "bbox": box} for k, box in boxes.items()]
    content = {"images": [{"id": 5, "file_name": "a.png"}], "annotations": annotations}
    for split in ("train", "test"):
        (tmp_path / f"boxes_{split}.json").write_text(json.dumps(content))
    samples = real_samples.blood_cells(tmp_path, False, 48, 9)
    assert len(samples) == 4 and len(real_samples.blood_cells(tmp_path, True, 48, 9)) == 1
    assert samples[0]["boxes"].tolist() == [[4.0, 4.0, 16.0, 16.0], [44.0, 20.0, 48.0, 28.0]]
    assert samples[0]["labels"].tolist() == [1, 3]
    for sample in samples:
        left, top, right, bottom = (int(x) for x in sample["boxes"][0])
        assert bool((sample["image"][:, top + 2 : bottom - 2, left + 2 : right - 2] < 0.1).all())


def test_hippocampi_have_the_axes_of_the_course(tmp_path):
    volume = np.zeros((3, 4, 5), np.uint8)  # to the right, to the front, to the head
    volume[2, 3, 4] = 255
    labels = (volume > 0).astype(np.uint8)
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", img_a=volume, lab_a=labels)
    (sample,) = real_samples.hippocampi(tmp_path, False, 9)
    assert sample["mr"].shape == (5, 4, 3) and sample["mr"][4, 0, 0] == 1  # the head is last; front and right are first
    assert torch.equal(sample["semantic"] == 1, sample["mr"] == 1) and sample["spacing"] == (1.0, 1.0, 1.0)


def test_volumes_are_padded_and_cropped_on_both_sides():
    volumes = [torch.ones(2, 5, 3), torch.ones(4, 3, 3)]
    stacked = real_samples.stack_volumes(volumes, (4, 3, 4))
    assert stacked.shape == (2, 4, 3, 4)
    assert stacked[0].sum(dim=(1, 2)).tolist() == [0, 9, 9, 0] and stacked[1].sum() == 36
    assert stacked[1, 0, 0].tolist() == [1, 1, 1, 0]


def test_a_component_gets_the_class_of_the_nearest_size():
    image = torch.zeros(3, 64, 64)
    image[:, 4:12, 4:12] = image[:, 30:54, 30:54] = 1
    train = [{"boxes": torch.tensor([[0.0, 0, 9, 9], [0, 0, 20, 20]]), "labels": torch.tensor([1, 2])}]
    (found,) = OtsuSizes(train, 4)(image[None])
    assert found["labels"].tolist() == [1, 2] and found["boxes"].shape == (2, 4)
    assert bool((found["scores"] > 0.3).all())


def test_without_its_file_a_network_starts_from_random_weights(monkeypatch, capsys):
    def fail(name, **options):
        raise WeightsError("offline")

    monkeypatch.setattr(offline, "load", fail)
    net = offline.load_or_random("resnet18", output_stride=8)
    assert net(torch.rand(1, 3, 32, 32))[4].shape == (1, 512, 4, 4)
    assert capsys.readouterr().out.startswith("The weights resnet18 could not be downloaded")
