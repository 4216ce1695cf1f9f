"""CamVid's formats, on a tree of two frames made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segedu.datasets.camvid import CLASSES, COLOURS, CamVid
from segedu.datasets.transforms import Joint, RandomRot90

NUMBERS = np.arange(12, dtype=np.uint8).reshape(3, 4)
EXPECTED = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 255]]


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Two frames with a pixel of each class and one of void: numbers as grey, and with a palette."""
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    for name, mode in (("0001TP_006690.png", "L"), ("0001TP_006720.png", "P")):
        Image.new("RGB", (4, 3), (10, 200, 30)).save(tmp_path / "train" / name)
        labels = Image.fromarray(NUMBERS, mode=mode)
        if mode == "P":
            labels.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
        labels.save(tmp_path / "trainannot" / name)
    return tmp_path


def colours(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def test_numbers_grey_or_by_palette(camvid) -> None:
    data = CamVid(camvid)
    assert len(data) == 2 and len(CLASSES) == 11 and CLASSES[3] == "road" and CLASSES[10] == "bicyclist"
    for index in (0, 1, -1):
        sample = data[index]
        assert sample["semantic"].tolist() == EXPECTED and sample["semantic"].dtype == torch.int64
        assert sample["image"].shape == (3, 3, 4) and sample["masks"].shape == (0, 3, 4)
        assert len(sample["segments_info"]) == 11 and sample["panoptic_seg"][2, 3] == 0


def test_colours_of_the_original(camvid) -> None:
    """The eleven by their colours; a lane marking, which nobody scores, is void."""
    pixels = np.array([*COLOURS.values(), (128, 0, 192)]).reshape(3, 4, 3)
    colours(camvid / "trainannot" / "0001TP_006690.png", pixels)
    assert CamVid(camvid)[0]["semantic"].tolist() == EXPECTED
    with_alpha = np.concatenate([pixels, np.full((3, 4, 1), 255)], axis=2)
    colours(camvid / "trainannot" / "0001TP_006690.png", with_alpha)
    assert CamVid(camvid)[0]["semantic"].tolist() == EXPECTED
    pixels[1, 1] = 128, 63, 128
    colours(camvid / "trainannot" / "0001TP_006690.png", pixels)
    with pytest.raises(ValueError, match=r"has the colour \(128, 63, 128\), expected those of CamVid"):
        CamVid(camvid)[0]


def test_transforms_move_image_and_truth(camvid) -> None:
    torch.manual_seed(1)
    turned = CamVid(camvid, transforms=Joint(RandomRot90()))[0]
    assert sorted(turned["semantic"].flatten().tolist()) == [*range(11), 255]


def test_what_is_missing_or_wrong(camvid, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="has no val; expected folders such as train"):
        CamVid(camvid, "val")
    (camvid / "val").mkdir()
    with pytest.raises(FileNotFoundError, match="has no valannot"):
        CamVid(camvid, "val")
    (camvid / "valannot").mkdir()
    with pytest.raises(ValueError, match="whose val has no PNG image"):
        CamVid(camvid, "val")
    with pytest.raises(IndexError, match="index is 2, expected an index into 2"):
        CamVid(camvid)[2]
    path = camvid / "trainannot" / "0001TP_006690.png"
    Image.fromarray(NUMBERS + 1).save(path)
    with pytest.raises(ValueError, match="has the class 12, expected 0 to 10, or 11 for void"):
        CamVid(camvid)[0]
    Image.fromarray(NUMBERS[:2]).save(path)
    with pytest.raises(ValueError, match=r"shape \(2, 4\) and dtype uint8, expected 8-bit classes or colours"):
        CamVid(camvid)[0]
    path.write_bytes(b"\x89PNG cut short")
    with pytest.raises(ValueError, match="is not a readable image"):
        CamVid(camvid)[0]
    path.unlink()
    with pytest.raises(FileNotFoundError, match="0001TP_006690.png is missing"):
        CamVid(camvid)[0]


def test_files_that_macos_leaves_are_no_images(camvid) -> None:
    (camvid / "train" / "._0001TP_006690.png").write_bytes(b"Mac OS X")
    assert CamVid(camvid).names == ["0001TP_006690.png", "0001TP_006720.png"]
