"""The format of Oxford-IIIT Pet, on a tree of three images made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segedu.datasets.oxford_pet import CLASSES, SPECIES, OxfordPet
from segedu.datasets.transforms import Joint, RandomRot90

LINES = "Abyssinian_100 1 1 1\n# a comment, as in the authors' list\namerican_bulldog_7 2 2 1\n"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A cat with a border, and a dog of which nothing is sure."""
    (tmp_path / "images").mkdir()
    trimaps = tmp_path / "annotations" / "trimaps"
    trimaps.mkdir(parents=True)
    (tmp_path / "annotations" / "trainval.txt").write_text(LINES)
    cat = np.full((6, 8), 2, np.uint8)
    cat[1:5, 2:7] = 3
    cat[2:4, 3:6] = 1
    for name, trimap in (("Abyssinian_100", cat), ("american_bulldog_7", np.where(cat == 1, 3, cat))):
        Image.new("RGB", (8, 6), (10, 200, 30)).save(tmp_path / "images" / f"{name}.jpg")
        Image.fromarray(trimap).save(trimaps / f"{name}.png")
    return tmp_path


def test_trimap_breed_and_species(pets) -> None:
    data = OxfordPet(pets)
    assert len(data) == 2 and CLASSES == ("background", "pet") and data.breeds == ("Abyssinian", "american_bulldog")
    cat, dog = data[0], data[-1]
    assert cat["image"].shape == (3, 6, 8) and cat["image"].dtype == torch.float32
    assert (cat["semantic"] == 1).sum() == 6 and (cat["semantic"] == 255).sum() == 14 and cat["semantic"][0, 0] == 0
    assert cat["boxes"].tolist() == [[3, 2, 6, 4]] and cat["labels"].tolist() == [1]
    assert cat["breed"] == 0 and SPECIES[cat["species"]] == "cat"
    assert dog["breed"] == 1 and SPECIES[dog["species"]] == "dog"
    assert dog["masks"].shape == (0, 6, 8) and dog["semantic"].unique().tolist() == [0, 255]


def test_transforms_keep_the_border(pets) -> None:
    torch.manual_seed(1)
    turned = OxfordPet(pets, transforms=Joint(RandomRot90()))[0]
    assert (turned["semantic"] == 255).sum() == 14 and turned["masks"].sum() == 6


def test_what_is_missing_or_wrong(pets, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="has no annotations/test.txt; expected images/<name>.jpg"):
        OxfordPet(pets, "test")
    with pytest.raises(IndexError, match="index is 2, expected an index into 2"):
        OxfordPet(pets)[2]
    trimap = pets / "annotations" / "trimaps" / "Abyssinian_100.png"
    for values, message in (
        (np.zeros((6, 8), np.uint8), "has the value 0, expected 1"),
        (np.full((6, 8), 4, np.uint8), "has the value 4, expected 1"),
        (np.ones((5, 8), np.uint8), r"shape \(5, 8\) and dtype uint8, expected integers of shape \(6, 8\)"),
    ):
        Image.fromarray(values).save(trimap)
        with pytest.raises(ValueError, match=message):
            OxfordPet(pets)[0]
    trimap.unlink()
    with pytest.raises(FileNotFoundError, match="Abyssinian_100.png is missing"):
        OxfordPet(pets)[0]
    listing = pets / "annotations" / "trainval.txt"
    for line in ("Abyssinian_100", "Abyssinian_100 1 1 x", "Abyssinian_100 0 1 1", "Abyssinian_100 1 3 1"):
        listing.write_text(line + "\n")
        with pytest.raises(ValueError, match="expected 'name breed species number'"):
            OxfordPet(pets)
    listing.write_text("# nothing\n")
    with pytest.raises(ValueError, match="lists no images"):
        OxfordPet(pets)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Abyssinian_100 999999999 1 1", "expected 'name breed species number'"),  # names of a thousand million breeds
        ("Abyssinian_100 \u00b2 1 1".encode(), "expected 'name breed species number'"),
        (b"\xff\xfe\x00A", "is not a text file, expected lines such as"),
    ],
)
def test_damaged_lists(pets, content: bytes, message: str) -> None:
    (pets / "annotations" / "trainval.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        OxfordPet(pets)


def test_a_list_saved_by_an_editor_with_a_byte_order_mark(pets) -> None:
    (pets / "annotations" / "trainval.txt").write_bytes(b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode())
    assert OxfordPet(pets)[0]["breed"] == 0
