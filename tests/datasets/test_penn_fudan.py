"""The layout of Penn-Fudan, on a folder made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segedu.datasets.batch import instance_batch
from segedu.datasets.penn_fudan import CLASSES, PennFudan
from segedu.datasets.transforms import Joint, RandomRot90

from .test_shapes import assert_truth_agrees

SIZE = (9, 12)


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pedestrians, numbered 1 and 3; one, in an image of another size; none."""
    rng = np.random.default_rng(0)
    for number, size in ((1, SIZE), (2, (5, 4)), (3, SIZE)):
        name, numbers = f"FudanPed{number:05}", np.zeros(size, np.uint8)
        if number == 1:
            numbers[1:5, 2:4], numbers[3:8, 7:11] = 1, 3
        elif number == 2:
            numbers[0:3, 1] = 1
        put(tmp_path / "PNGImages" / f"{name}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        put(tmp_path / "PedMasks" / f"{name}_mask.png", numbers)
    (tmp_path / "PNGImages" / "._FudanPed00001.png").write_bytes(b"what an archive of a Mac leaves")
    (tmp_path / "readme.txt").write_text("no image")
    return tmp_path


def test_pedestrians(folder: Path) -> None:
    data = PennFudan(folder)
    assert len(data) == 3 and data.names[0] == "FudanPed00001" and CLASSES == ("background", "pedestrian")
    for i in range(3):
        assert_truth_agrees(data[i], len(CLASSES))
    assert data[0]["boxes"].tolist() == [[2, 1, 4, 5], [7, 3, 11, 8]] and data[0]["labels"].tolist() == [1, 1]
    assert data[0]["masks"].sum((1, 2)).tolist() == [8, 20]
    assert data[1]["boxes"].tolist() == [[1, 0, 2, 3]]
    assert data[2]["boxes"].shape == (0, 4) and data[-1]["masks"].shape == (0, *SIZE)
    images, targets = instance_batch([data[0], data[1]])
    assert images[1].shape == (3, 5, 4) and set(targets[0]) == {"boxes", "labels", "masks"}


def test_transforms_move_the_truth_too(folder: Path) -> None:
    torch.manual_seed(1)
    turned = PennFudan(folder, transforms=Joint(RandomRot90()))[0]
    assert_truth_agrees(turned, len(CLASSES))
    assert sorted(turned["masks"].sum((1, 2)).tolist()) == [8, 20]


def test_what_is_missing_or_wrong(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no PNGImages; expected the folder PennFudanPed with"):
        PennFudan(tmp_path / "nowhere")
    (tmp_path / "empty" / "PNGImages").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="has no PedMasks; expected"):
        PennFudan(tmp_path / "empty")
    (tmp_path / "empty" / "PedMasks").mkdir()
    with pytest.raises(ValueError, match="whose PNGImages holds no image; expected the folder"):
        PennFudan(tmp_path / "empty")
    data = PennFudan(folder)
    with pytest.raises(IndexError, match="index is 3, expected an index into 3"):
        data[3]
    put(folder / "PedMasks" / "FudanPed00002_mask.png", np.zeros((5, 5), np.uint8))
    with pytest.raises(ValueError, match=r"has shape \(5, 5\) and dtype uint8, expected integers of shape \(5, 4\)"):
        data[1]
    (folder / "PedMasks" / "FudanPed00002_mask.png").unlink()
    with pytest.raises(FileNotFoundError, match="FudanPed00002_mask.png is missing, expected an image"):
        data[1]
    (folder / "PNGImages" / "FudanPed00003.png").write_bytes(b"\x89PNG cut short")
    with pytest.raises(ValueError, match="FudanPed00003.png is not a readable image"):
        data[2]


def test_a_mask_of_all_pedestrians_is_no_label_map(folder: Path) -> None:
    numbers = np.zeros(SIZE, np.uint8)
    numbers[1:5, 2:4] = numbers[3:8, 7:11] = 255
    put(folder / "PedMasks" / "FudanPed00001_mask.png", numbers)
    with pytest.raises(ValueError, match="FudanPed00001_mask.png has only the values 0 and 255, in 2 separate pieces"):
        PennFudan(folder)[0]
