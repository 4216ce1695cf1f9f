"""The format of Cityscapes, on a tree made here."""

import numpy as np
import pytest
from PIL import Image

from segedu.datasets.cityscapes import CLASSES, LABEL_IDS, THINGS, Cityscapes


@pytest.fixture
def city(tmp_path):
    """Road, two cars, a group of people (class number alone), a caravan (not scored), the car's bonnet (ego vehicle)."""
    labels = np.full((12, 20), LABEL_IDS["road"], np.uint8)
    instances = labels.astype(np.uint16)
    regions = [
        ((2, 5, 1, 4), 26, 26000),
        ((2, 5, 6, 9), 26, 26001),
        ((6, 8, 0, 9), 24, 24),
        ((6, 8, 10, 14), 29, 29000),
    ]
    for (top, bottom, left, right), label, number in regions + [((10, 12, 0, 20), 1, 1)]:
        labels[top:bottom, left:right], instances[top:bottom, left:right] = label, number
    for kind in ("leftImg8bit", "gtFine"):
        (tmp_path / kind / "val" / "ulm").mkdir(parents=True)
    name = "ulm_000000_000019"
    Image.new("RGB", (20, 12), (90, 90, 90)).save(tmp_path / "leftImg8bit" / "val" / "ulm" / f"{name}_leftImg8bit.png")
    Image.fromarray(labels).save(tmp_path / "gtFine" / "val" / "ulm" / f"{name}_gtFine_labelIds.png")
    Image.fromarray(instances).save(tmp_path / "gtFine" / "val" / "ulm" / f"{name}_gtFine_instanceIds.png")
    return tmp_path


def test_training_numbers_and_instances(city):
    sample = Cityscapes(city, "val")[0]
    assert len(CLASSES) == 19 and [CLASSES[i] for i in THINGS][:3] == ["person", "rider", "car"]
    road, person, car = (CLASSES.index(name) for name in ("road", "person", "car"))
    assert (road, person, car) == (0, 11, 13)
    assert sample["semantic"].unique().tolist() == [road, person, car, 255]
    assert int((sample["semantic"] == 255).sum()) == 8 + 40  # caravan and bonnet are not scored
    assert sample["labels"].tolist() == [car, car]  # the group of people has no instances
    assert sample["boxes"].tolist() == [[1, 2, 4, 5], [6, 2, 9, 5]]


def test_what_is_missing(city):
    with pytest.raises(FileNotFoundError, match="has no leftImg8bit/train; expected"):
        Cityscapes(city)
    (city / "leftImg8bit" / "train").mkdir()
    with pytest.raises(ValueError, match="has no images for 'train'"):
        Cityscapes(city)
    (city / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine_instanceIds.png").unlink()
    with pytest.raises(FileNotFoundError, match="instanceIds.png is missing"):
        Cityscapes(city, "val")[0]


@pytest.mark.parametrize(
    ("kind", "number", "given"), [("labelIds", 77, 77), ("instanceIds", 77, 77), ("instanceIds", 60001, 60)]
)
def test_a_class_that_is_none_is_not_void_without_a_word(city, kind, number, given):
    path = city / "gtFine" / "val" / "ulm" / f"ulm_000000_000019_gtFine_{kind}.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0] = number
    Image.fromarray(pixels).save(path)
    with pytest.raises(ValueError, match=f"{kind}.png has the class {given}, expected 0 to 33"):
        Cityscapes(city, "val")[0]


def test_licence_plates_are_void(city):
    """Their number is -1, which a file of 8 bits holds as 255."""
    path = city / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine_labelIds.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(path)
    assert Cityscapes(city, "val")[0]["semantic"][0, 0] == 255
