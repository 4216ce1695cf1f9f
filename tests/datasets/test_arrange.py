"""Conversion of the original files of real data sets: values, sizes, splits, and that SegmentationFolder reads them."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from file_server import Server, file_server
from miniature_archives import AERIAL, MAKERS, blobs, file_of, photograph, publish, put_by_hand
from PIL import Image

from segedu.datasets import arrange_coco
from segedu.datasets.arrange_boxes import read_boxes
from segedu.datasets.arrange_classes import arrange_pets
from segedu.datasets.arrange_objects import nuclei_kind
from segedu.datasets.coco import CocoInstances
from segedu.datasets.fetch import downloads_folder, fetch
from segedu.datasets.folder import SegmentationFolder
from segedu.datasets.folder_writer import FolderWriter, reduce, size_of_short_side, stretch
from segedu.datasets.real_data import DATA_SETS
from segedu.datasets.real_images import RealImages
from segedu.recipes.own_images import split_names

NO_MASKS = ("bccd", "hippocampus")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Server]]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGEDU_DATA", raising=False)
    with file_server() as handler:
        monkeypatch.setattr(arrange_coco, "_SERVER", f"{handler.url}/val2017")
        for number in (9, 25):
            handler.files[f"/val2017/{number:012}.jpg"] = file_of(photograph(number, (30, 40)), ".jpg")
        yield handler


def fetched(server: type[Server], monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    publish(server, monkeypatch, name)
    if name == "aerial":
        put_by_hand(name, downloads_folder(name))
    return fetch(name, progress=False)


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def splits_of(folder: Path) -> dict[str, list[str]]:
    return {path.stem: path.read_text().split() for path in folder.glob("splits/*.txt")}


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in NO_MASKS])
def test_folder_is_read(name: str, server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetched(server, monkeypatch, name)
    images = SegmentationFolder(folder)
    data = DATA_SETS[name]
    assert len(images) == data.images and images.target_folder == data.target_folder
    assert images.classes == (data.classes or images.classes) and len(images.classes) >= 2
    for sample in (images[i] for i in range(len(images))):
        assert sample["image"].shape[1:] == sample["semantic"].shape and sample["semantic"].unique().numel() > 1
        if data.target_folder == "labels":
            assert sample["masks"].shape[0] == 3
    train, *others = split_names(images).items()  # raises if an image to train on is in another split
    assert train[0] == "train" and train[1] and all(len(names) for _, names in others)
    again = RealImages(name, "train")
    assert set(again.names) >= set(train[1]) and set(again[0]) == set(images[0])
    assert (folder / "README.txt").read_text().startswith(f"{name}: {data.about}")


def test_pets_values_and_splits(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetched(server, monkeypatch, "pets")
    mask = pixels(folder / "masks" / "Abyssinian_200.png")
    small = np.array(Image.fromarray(blobs(0)).resize((256, 192), Image.Resampling.NEAREST))
    # in the archive: background 2, pet 1, border 3
    assert np.array_equal(mask, np.array([0, 1, 2, 0], np.uint8)[small]) and set(np.unique(mask)) == {0, 1, 2}
    image = pixels(folder / "images" / "Abyssinian_200.jpg").astype(int)
    expected = np.array(Image.fromarray(photograph(0)).resize((256, 192), Image.Resampling.LANCZOS)).astype(int)
    assert image.shape == (192, 256, 3) and np.abs(image - expected).mean() < 3
    assert splits_of(folder) == {
        "train": ["Abyssinian_10", "Abyssinian_201"],  # the first is in the authors' test list, and in our training
        "val": ["Abyssinian_200", "Abyssinian_208"],
        "test": ["Birman_3"],
        "test_other_breeds": ["beagle_1", "beagle_2"],
    }


def test_unreadable_pets_are_left_out_if_they_are_few(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source / "images", source / "annotations" / "trimaps", target):
        folder.mkdir(parents=True)
    names = [f"Bengal_{i}" for i in range(120)]
    trimap = file_of(np.array([2, 1, 3, 2], np.uint8)[blobs(0, (30, 40))], ".png")
    image = file_of(photograph(0, (30, 40)), ".jpg")
    for name in names:
        (source / "images" / f"{name}.jpg").write_bytes(image)
        (source / "annotations" / "trimaps" / f"{name}.png").write_bytes(trimap)
    (source / "annotations" / "trainval.txt").write_text("".join(f"{name} 6 1 2\n" for name in names[:-1]))
    (source / "annotations" / "test.txt").write_text(f"{names[-1]} 6 1 2\n")
    (source / "images" / f"{names[7]}.jpg").write_bytes(b"GIF?")
    (sentence,) = arrange_pets(source, target, progress=False)
    assert "Bengal_7.jpg is not a readable image" in sentence and len(SegmentationFolder(target)) == 119
    (source / "images" / f"{names[8]}.jpg").write_bytes(b"GIF?")
    (tmp_path / "second").mkdir()
    with pytest.raises(ValueError, match="^2 of 120 images could not be read, such as: .*Bengal_7.jpg"):
        arrange_pets(source, tmp_path / "second", progress=False)


def test_camvid_values_and_splits(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetched(server, monkeypatch, "camvid")
    mask = pixels(folder / "masks" / "0016E5_00390.png")
    assert mask.shape == (240, 320) and set(np.unique(mask)) == {0, 3, 10, 11}
    assert (folder / "classes.txt").read_text().split()[11] == "void"
    splits = splits_of(folder)
    assert splits["train"] == ["0016E5_00390", "0016E5_07900"] and splits["train_strict"] == ["0016E5_00390"]
    assert splits["val_spaced"] == ["0016E5_07959", "0016E5_07989"] and len(splits["val"]) == 16
    assert splits["test"] == ["0016E5_00800", "Seq05VD_f00000"] and splits["test_new_sequence"] == ["Seq05VD_f00000"]


def test_aerial_colours(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetched(server, monkeypatch, "aerial")
    mask = pixels(folder / "masks" / "t1_01.png")
    colours = np.array([*AERIAL.values(), 255], np.uint8)[blobs(1, (644, 797), 5)]
    small = np.array(Image.fromarray(colours).resize((512, 414), Image.Resampling.NEAREST))
    assert np.array_equal(mask, small) and set(np.unique(mask)) == {0, 1, 2, 3, 4, 255}


def test_voc_files_are_copied(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetched(server, monkeypatch, "voc2012")
    with tarfile.open(fileobj=io.BytesIO(server.files["/VOCtrainval_11-May-2012.tar"])) as archive:
        original = archive.extractfile("VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg").read()
    assert (folder / "images" / "2007_000032.jpg").read_bytes() == original
    assert set(np.unique(pixels(folder / "masks" / "2007_000032.png"))) == {0, 3, 15, 255}
    assert len((folder / "classes.txt").read_text().split()) == 21


def test_coco_classes_and_licences(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetched(server, monkeypatch, "coco")
    mask = pixels(folder / "masks" / "000000000009.png")  # crowd in columns 0 to 11, person, toothbrush on it
    assert mask[5, 5] == 255 and mask[11, 25] == 1 and mask[14, 14] == 2 and mask[29, 39] == 0
    assert (folder / "classes.txt").read_text().splitlines() == ["background", "person", "toothbrush"]
    rows = list(csv.DictReader((folder / "licences.csv").open()))
    assert [(row["name"], row["licence"]) for row in rows] == [
        ("000000000009", "CC BY 2.0"), ("000000000025", "CC BY-SA 2.0")]  # fmt: skip
    kept = json.loads((folder / "instances.json").read_text())
    assert [image["file_name"] for image in kept["images"]] == ["000000000009.jpg", "000000000025.jpg"]
    sample = CocoInstances(folder / "images", folder / "instances.json")[0]
    assert sample["masks"].shape == (3, 30, 40) and sample["iscrowd"].tolist() == [False, False, True]


def test_nuclei_labels_sizes_and_kinds(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetched(server, monkeypatch, "nuclei_grouped")
    rows = {row["name"]: row for row in csv.DictReader((folder / "items.csv").open())}
    assert [row["kind"] for row in rows.values()] == ["fluo_256x256", "bright", "he"]
    assert next(iter(rows.values()))["split"] == "test" and rows["b" * 16]["kaggle_id"] == "b" * 64
    assert pixels(folder / "images" / f"{'b' * 16}.png").shape == (150, 400)  # halved
    assert pixels(folder / "images" / f"{'c' * 16}.jpg").shape == (256, 320, 3)
    assert np.array_equal(pixels(folder / "labels" / f"{'c' * 16}.png"), blobs(2, (256, 320)))
    assert nuclei_kind(np.zeros((360, 360), np.uint8)) == "fluo_360x360"
    assert nuclei_kind(np.zeros((100, 100), np.uint8)) == "fluo_other"


def test_bbbc039_labels(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetched(server, monkeypatch, "bbbc039")
    labels = pixels(folder / "labels" / "plate_training.png")  # nuclei 1 and 3 have the same colour, and are apart
    assert len(np.unique(labels)) == 4 and np.array_equal(labels > 0, blobs(0) > 0)
    image = pixels(folder / "images" / "plate_training.png")
    assert image.dtype == np.uint8 and image.min() == 0 and image.max() == 255


def test_phase_cells_and_people_keep_their_labels(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetched(server, monkeypatch, "phase_cells")
    small = np.array(Image.fromarray(blobs(46)).resize((200, 150), Image.Resampling.NEAREST))
    assert np.array_equal(pixels(folder / "labels" / "val_46.png"), small)
    assert splits_of(folder) == {"train": ["train_01"], "val": ["train_05"], "test": ["val_46"]}
    folder = fetched(server, monkeypatch, "pennfudan")
    small = np.array(Image.fromarray(blobs(0)).resize((341, 256), Image.Resampling.NEAREST))
    assert np.array_equal(pixels(folder / "labels" / "FudanPed00001.png"), small)


def test_bccd_boxes(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetched(server, monkeypatch, "bccd")
    content = json.loads((folder / "boxes_train.json").read_text())
    assert content["images"] == [{"id": 1, "file_name": "BloodImage_00001.jpg", "width": 320, "height": 240}]
    boxes = [(one["category_id"], one["bbox"]) for one in content["annotations"]]
    # half of (68, 315, 286, 480) and of (346, 361, 446, 454); the third box has no width
    assert boxes == [(2, [34.0, 157.5, 109.0, 82.5]), (1, [173.0, 180.5, 50.0, 46.5])]
    assert [one["name"] for one in content["categories"]] == ["RBC", "WBC", "Platelets"]
    assert splits_of(folder)["val"] == ["BloodImage_00000"]  # without the copy of a test image
    assert pixels(folder / "images" / "BloodImage_00007.jpg").shape == (240, 320, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not xml", "is not an annotation of PASCAL VOC"),
        ("<a><object><name>RBC</name></object></a>", "is not an annotation of PASCAL VOC"),
        ("<a><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object></a>",
         "has an object 'cat', expected one of RBC, WBC, Platelets"),
    ],
)  # fmt: skip
def test_bccd_wrong_annotation(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_boxes(tmp_path / "a.xml", (320, 240))


def test_hippocampus_axes_and_values(server: type[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = fetched(server, monkeypatch, "hippocampus")
    assert splits_of(folder) == {"train": ["h001"], "val": ["h014"], "test": ["h011"]}
    with tarfile.open(fileobj=io.BytesIO(server.files["/Task04_Hippocampus.tar"])) as archive:
        archive.extractall(tmp_path, filter="data")
    for split, name, flip in (("train", "001", False), ("test", "011", True)):
        arrays = np.load(folder / f"{split}.npz")
        image, labels = arrays[f"img_h{name}"], arrays[f"lab_h{name}"]
        stored = np.asarray(nibabel.load(tmp_path / f"Task04_Hippocampus/imagesTr/hippocampus_{name}.nii.gz").dataobj)
        stored = stored[::-1] if flip else stored  # x from left to right
        assert image.shape == (5, 6, 7) and image.dtype == labels.dtype == np.uint8
        assert np.array_equal(
            image, np.rint(np.clip(stored / np.percentile(stored, 99.9), 0, 1) * 255).astype(np.uint8)
        )
        assert labels[4 if flip else 0, 1, 2] == 1 and labels[0 if flip else 4, 1, 2] == 2


def test_archives_keep_only_what_is_needed(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    needed = {"voc2012": "2008_000001.jpg", "phase_cells": "phase.png", "camvid": "README.md"}
    for name, file in needed.items():
        content = next(iter(MAKERS[name]()[0].values()))
        opened = (
            zipfile.ZipFile(io.BytesIO(content)) if name != "voc2012" else tarfile.open(fileobj=io.BytesIO(content))
        )
        members = opened.namelist() if name != "voc2012" else opened.getnames()
        kept = [member for member in members if re.search(DATA_SETS[name].files[0].only, member)]
        assert kept and (name == "voc2012" or not any(member.endswith(file) for member in kept))


def test_writer_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="target_folder is 'mask', expected 'masks' or 'labels'"):
        FolderWriter(tmp_path, "mask", ("a",))
    writer = FolderWriter(tmp_path, "masks", ("a", "b"))
    with pytest.raises(ValueError, match=r"target of x has shape \(3, 4\), expected \(4, 4\) as its image"):
        writer.add("x", np.zeros((4, 4), np.uint8), np.zeros((3, 4)), ["train"])
    with pytest.raises(ValueError, match="^0 of 0 images could not be read$"):
        writer.close()


def test_sizes_and_values() -> None:
    assert size_of_short_side((300, 400), 192) == (192, 256) and size_of_short_side((100, 120), 192) == (100, 120)
    image, target = reduce(np.zeros((4, 6, 3), np.uint8), np.full((4, 6), 40000, np.uint16), (2, 3))
    assert image.shape == (2, 3, 3) and target.dtype == np.uint16 and (target == 40000).all()
    assert stretch(np.array([[5, 7], [9, 9]]), 0, 100).tolist() == [[0, 128], [255, 255]]
    assert (stretch(np.full((3, 3), 7)) == 0).all()


# --- the real folders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number", "values"),
    [
        ("pets", 402, {0, 1, 2}),
        ("camvid", 367, {*range(12)}),
        ("aerial", 36, {0, 1, 2, 3, 4, 255}),
        ("pennfudan", 114, {0, 1}),
        ("phase_cells", 33, {0, 1}),
        ("nuclei_grouped", None, {0, 1}),
    ],
)
def test_real_folders(name: str, number: int | None, values: set, shared_data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEGEDU_DATA", str(shared_data))
    images = RealImages(name, "train")
    assert len(images) == (number or len((shared_data / name / "splits" / "train.txt").read_text().split()))
    seen = set()
    for i in range(0, len(images), max(1, len(images) // 12)):
        sample = images[i]
        seen |= set(sample["semantic"].unique().tolist())
        assert sample["image"].shape[1:] == sample["semantic"].shape
        if images.target_folder == "labels":
            assert len(sample["masks"]) == len(sample["boxes"]) >= 1
    assert seen <= values and {0, 1} <= seen
    assert len(RealImages(name, "val")) > 0


def test_real_test_split_that_is_held_out(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGEDU_DATA", str(shared_data))
    with pytest.raises(ValueError, match="splits/test.txt lists no image of"):
        RealImages("camvid", "test")
    with pytest.raises(FileNotFoundError, match="which has no splits/other.txt"):
        RealImages("pets", "other")


def test_real_lists_are_ours(shared_data: Path) -> None:
    """The split lists of the catalogue are those of the excerpts, and their image names have the published SHA-256."""
    from hashlib import sha256

    from segedu.datasets.real_splits import listed_splits

    for name in ("pets", "pennfudan", "phase_cells", "nuclei_grouped", "hippocampus"):
        listed = listed_splits(name)
        for split in ("val", "test"):
            names = set((shared_data / name / "splits" / f"{split}.txt").read_text().split())
            ours = {image for image, one in listed.items() if one == split}
            assert names <= ours and (name == "pets" or names == ours), (name, split)
    for name in ("pennfudan", "phase_cells", "camvid", "bccd"):
        lists = [
            (shared_data / name / "splits" / f"{split}.txt").read_text().split() for split in ("train", "val", "test")
        ]
        names = sorted(sum(lists, []))
        assert sha256("\n".join(names).encode()).hexdigest() == DATA_SETS[name].names_sha256
        assert len(names) == DATA_SETS[name].images


def test_camvid_rules_give_the_lists_of_the_real_folder(shared_data: Path) -> None:
    from segedu.datasets.arrange_classes import _camvid_splits

    folder = shared_data / "camvid" / "splits"
    names = {split: (folder / f"{split}.txt").read_text().split() for split in ("train", "val", "test")}
    further = {"train_strict": [], "val_spaced": [], "test_new_sequence": []}
    for part, frames in names.items():
        for number, frame in enumerate(frames):
            for split in _camvid_splits(part, number, names):
                further[split].append(frame)
    for split, frames in further.items():
        assert frames == (folder / f"{split}.txt").read_text().split(), split


def test_bccd_boxes_of_the_real_folder(shared_data: Path) -> None:
    """The first box of the miniature archive is the first one of BloodImage_00001 in the original annotation."""
    content = json.loads((shared_data / "bccd" / "boxes_train.json").read_text())
    number = next(image["id"] for image in content["images"] if image["file_name"] == "BloodImage_00001.jpg")
    boxes = [(one["category_id"], one["bbox"]) for one in content["annotations"] if one["image_id"] == number]
    assert boxes[:2] == [(2, [34.0, 157.5, 109.0, 82.5]), (1, [173.0, 180.5, 50.0, 46.5])]


def test_nuclei_kinds_of_the_real_folder(shared_data: Path) -> None:
    from segedu.datasets.files import read_pixels

    rows = list(csv.DictReader((shared_data / "nuclei_grouped" / "items.csv").open()))
    rows = [row for row in rows if row["factor"] == "1"][::10] + [row for row in rows if row["kind"] == "bright"]
    for row in rows:
        kind = nuclei_kind(read_pixels(shared_data / "nuclei_grouped" / "images" / row["file"]))
        assert kind == row["kind"], row["name"]
