"""The original layout of the 2018 Data Science Bowl, on a folder made here."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segedu.datasets.dsb2018 import DataScienceBowl

from .test_shapes import assert_truth_agrees

SIZE = (9, 12)


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images a (RGBA), b (grey), c (RGB, no nucleus); the masks of a overlap, and one hides behind another."""
    rng, stage = np.random.default_rng(0), tmp_path / "stage1_train"
    for name, shape in (("a", (*SIZE, 4)), ("b", SIZE), ("c", (*SIZE, 3))):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        pixels[..., 3:] = 255 if len(shape) == 3 else pixels[..., 3:]  # opaque, as in the files of the challenge
        put(stage / name / "images" / f"{name}.png", pixels)
        (stage / name / "masks").mkdir()
    first, second, hidden = (np.zeros(SIZE, np.uint8) for _ in range(3))
    first[1:4, 1:5], second[3:6, 3:8], hidden[1, 1] = 255, 255, 255
    for name, mask in (("1", first), ("2", hidden), ("3", second)):
        put(stage / "a" / "masks" / f"{name}.png", mask)
    put(stage / "b" / "masks" / "7.png", np.stack([second] * 3 + [np.full(SIZE, 255, np.uint8)], -1))
    put(stage / "b" / "masks" / "8.png", np.zeros(SIZE, np.uint8))
    (stage / "a" / "masks" / "._1.png").write_bytes(b"what an archive of a Mac leaves")
    (stage / "notes.txt").write_text("no image")
    return tmp_path


def test_masks_become_a_label_map(folder: Path) -> None:
    data = DataScienceBowl(str(folder))
    assert data.names == ["a", "b", "c"] and len(data) == 3
    for sample in data:
        assert_truth_agrees(sample, 2)
    overlapping, coloured, empty = data
    expected = torch.zeros(SIZE, dtype=torch.int32)
    expected[3:6, 3:8] = 2
    expected[1:4, 1:5] = 1  # first by name
    assert torch.equal(overlapping["label_map"], expected)
    assert coloured["boxes"].tolist() == [[3, 3, 8, 6]]
    assert empty["masks"].shape == (0, *SIZE) and not empty["label_map"].any()


def test_an_alpha_channel_is_left_out_and_grey_repeated(folder: Path) -> None:
    data = DataScienceBowl(folder, transforms=lambda sample: sample["image"])
    pixels = np.array(Image.open(folder / "stage1_train" / "a" / "images" / "a.png"))
    assert torch.equal(data[0], torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1) / 255)
    assert (data[1] == data[1][:1]).all()
    with pytest.raises(IndexError, match="index is 3"):
        data[3]


def test_what_is_missing(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no stage1_test; expected stage1_train/<id>/images"):
        DataScienceBowl(folder, "stage1_test")
    shutil.rmtree(folder / "stage1_train" / "a" / "masks")
    with pytest.raises(FileNotFoundError, match="has no stage1_train/a/masks"):
        DataScienceBowl(folder)[0]
    (folder / "stage1_train" / "b" / "images" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match="b.png is missing"):
        DataScienceBowl(folder)[1]
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="whose empty holds no image"):
        DataScienceBowl(folder, "empty")


def test_what_would_be_left_out_without_a_word(folder: Path) -> None:
    stage = folder / "stage1_train"
    put(stage / "c" / "masks" / "1.tif", np.zeros(SIZE, np.uint8))
    with pytest.raises(ValueError, match=r"c/masks/1.tif is not a PNG file"):
        DataScienceBowl(folder)[2]
    put(stage / "a" / "images" / "a.png", np.zeros((*SIZE, 4), np.uint8))
    with pytest.raises(ValueError, match=r"a.png has transparent pixels \(smallest alpha 0\)"):
        DataScienceBowl(folder)[0]
    (stage / "b" / "images").rename(stage / "b" / "image")
    with pytest.raises(FileNotFoundError, match="has no stage1_train/b/images"):
        DataScienceBowl(folder)


def test_what_is_broken(folder: Path) -> None:
    image, mask = (folder / "stage1_train" / "a" / place for place in ("images/a.png", "masks/3.png"))
    put(mask, np.zeros((9, 11), np.uint8))
    with pytest.raises(ValueError, match=r"3.png has shape \(9, 11\), expected \(9, 12\) as its image"):
        DataScienceBowl(folder)[0]
    put(mask, np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8))
    mask.write_bytes(mask.read_bytes()[:60])
    with pytest.raises(ValueError, match="3.png is not a readable image"):
        DataScienceBowl(folder)[0]
    put(image, np.zeros(SIZE, np.uint16))
    with pytest.raises(ValueError, match="expected 8-bit"):
        DataScienceBowl(folder)[0]
    image.write_bytes(b"")
    with pytest.raises(ValueError, match="a.png is not a readable image"):
        DataScienceBowl(folder)[0]
