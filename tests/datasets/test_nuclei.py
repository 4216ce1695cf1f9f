"""The nuclei loader on a folder made here, and on the real one where it is present."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segedu.datasets.nuclei import Nuclei

from .test_shapes import assert_truth_agrees


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One grey and one colour image in train, and one without nuclei in val."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    lines = ["file,split,domain", "a,train,fluorescence", "b,train,histology", "c,val,fluorescence"]
    (tmp_path / "index.csv").write_text("\n".join(lines) + "\n")
    labels = np.zeros((9, 7), np.uint16)
    labels[1:3, 1:3], labels[5:, 4:] = 2, 300  # numbers with gaps
    for name, shape in (("a", (9, 7)), ("b", (9, 7, 3)), ("c", (9, 7))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(labels * (name != "c")).save(tmp_path / "labels" / f"{name}.png")
    return tmp_path


def test_grey_colour_and_empty(folder: Path) -> None:
    data = Nuclei(folder, split=None)
    assert len(data) == 3
    for sample in data:
        assert_truth_agrees(sample, 2)
    assert (data[0]["image"] == data[0]["image"][:1]).all()
    pixels = np.array(Image.open(folder / "images" / "b.png"))
    assert torch.equal(data[1]["image"], torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    assert data[0]["boxes"].tolist() == [[1, 1, 3, 3], [4, 5, 7, 9]]
    assert data[2]["masks"].shape == (0, 9, 7)


def test_split_domain_transforms(folder: Path) -> None:
    assert [len(Nuclei(folder, split)) for split in ("train", "val", None)] == [2, 1, 3]
    assert len(Nuclei(folder, "train", "histology")) == 1
    assert Nuclei(str(folder), transforms=len)[-1] == 6
    with pytest.raises(ValueError, match="split is 'test', expected one of"):
        Nuclei(folder, "test")
    with pytest.raises(ValueError, match="domain is 'moon', expected one of"):
        Nuclei(folder, domain="moon")
    with pytest.raises(IndexError, match="index is 2"):
        Nuclei(folder)[2]


def _no_index(folder: Path) -> None:
    (folder / "index.csv").unlink()


def _no_column(folder: Path) -> None:
    (folder / "index.csv").write_text("file,split\na,train\n")


def _strange_name(folder: Path) -> None:
    (folder / "index.csv").write_text("file,split,domain\n../a,train,fluorescence\n")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [(_no_index, FileNotFoundError, "no index.csv"), (_no_column, ValueError, "no column 'domain'"),
     (_strange_name, ValueError, "plain name")],
)  # fmt: skip
def test_bad_folder(folder: Path, damage, error: type, message: str) -> None:
    damage(folder)
    with pytest.raises(error, match=message):
        Nuclei(folder)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["a,train,fluorescence", "b,trian,histology"],
            "assigns b to the split 'trian', expected one of train, val, test",
        ),
        (["a,train,fluorescence", "b,,histology"], "assigns b to the split ''"),
        (["a,train,fluorescence", "b, val,histology"], "assigns b to the split ' val'"),
        (["a,train,fluorescence", "b"], "assigns b to the split None"),
        (["a,train,fluorescence", "b,val,"], "gives b no domain"),
        (["a,train,fluorescence", "a,val,fluorescence"], "names a twice"),
        ([], "lists no images"),
    ],
)
def test_an_image_that_the_index_would_lose(folder: Path, lines: list[str], message: str) -> None:
    """A split with a typo in its name was in no split, and nobody was told."""
    (folder / "index.csv").write_text("\n".join(["file,split,domain", *lines]) + "\n")
    with pytest.raises(ValueError, match=r"index\.csv .*" + message):
        Nuclei(folder)


def test_an_index_of_a_spreadsheet(folder: Path) -> None:
    """Excel begins a file with a byte order mark."""
    content = (folder / "index.csv").read_bytes()
    (folder / "index.csv").write_bytes(b"\xef\xbb\xbf" + content)
    assert len(Nuclei(folder, None)) == 3
    (folder / "index.csv").write_bytes(b"\xff\xfe" + content)
    with pytest.raises(ValueError, match=r"index\.csv is not a table"):
        Nuclei(folder)


@pytest.mark.parametrize("number", [1, 255, 65535])
def test_a_mask_of_all_nuclei_is_no_label_map(folder: Path, number: int) -> None:
    label = folder / "labels" / "a.png"
    pixels = np.zeros((9, 7), np.uint16 if number > 255 else np.uint8)
    pixels[1:3, 1:3] = number
    Image.fromarray(pixels).save(label)
    assert len(Nuclei(folder)[0]["labels"]) == 1  # one piece is one nucleus either way
    pixels[5:, 4:] = number
    Image.fromarray(pixels).save(label)
    with pytest.raises(ValueError, match=rf"labels/a\.png has only the values 0 and {number}, in 2 separate pieces"):
        Nuclei(folder)[0]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a folder with index.csv"):
        Nuclei(tmp_path / "nowhere")


def test_bad_files(folder: Path) -> None:
    label = folder / "labels" / "a.png"
    Image.fromarray(np.zeros((9, 8), np.uint16)).save(label)
    with pytest.raises(ValueError, match=r"shape \(9, 8\) and dtype uint16, expected integers of shape \(9, 7\)"):
        Nuclei(folder)[0]
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(label)
    with pytest.raises(ValueError, match="expected integers"):
        Nuclei(folder)[0]
    label.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="not a readable image"):
        Nuclei(folder)[0]
    label.unlink()
    with pytest.raises(FileNotFoundError, match="is missing, expected an image"):
        Nuclei(folder)[0]
    Image.fromarray(np.zeros((9, 7), np.uint16)).save(folder / "images" / "b.png")
    with pytest.raises(ValueError, match="expected 8-bit"):
        Nuclei(folder)[1]


def test_real_folder(shared_data: Path) -> None:
    root = shared_data / "nuclei"
    counts = {split: len(Nuclei(root, split)) for split in ("train", "val", "test")}
    assert counts == {"train": 354, "val": 57, "test": 119}
    assert len(Nuclei(root, None, "histology")) == 40
    for domain in ("fluorescence", "histology"):
        data = Nuclei(root, "val", domain)
        sample = data[0]
        assert_truth_agrees(sample, 2)
        assert len(sample["labels"]) == int(data.rows[0]["instances"])
