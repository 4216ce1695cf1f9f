"""VOC's format, on a tree of two images made here."""

import numpy as np
import pytest
import torch
from PIL import Image

from segedu.datasets.transforms import Joint, RandomRot90
from segedu.datasets.voc import CLASSES, VOCSegmentation


def palette_image(indexes, path):
    """VOC stores indexes into a palette of 256 colours."""
    image = Image.fromarray(indexes.astype(np.uint8), mode="P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    path.parent.mkdir(exist_ok=True)
    image.save(path)


@pytest.fixture
def voc(tmp_path):
    """Two cats (8), one of two pieces, with a void border; and an image of nothing."""
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000032\n2007_000039\n")
    classes, objects = np.zeros((10, 13)), np.zeros((10, 13))
    classes[1:4, 1:5] = classes[6:9, 8:12] = classes[6:8, 1:3] = 8
    objects[1:4, 1:5] = objects[6:8, 1:3] = 1
    objects[6:9, 8:12] = 2
    classes[4, 1:5] = objects[4, 1:5] = 255
    (tmp_path / "JPEGImages").mkdir()
    for name, on in (("2007_000032", 1), ("2007_000039", 0)):
        Image.new("RGB", (13, 10), (10, 200, 30)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        palette_image(classes * on, tmp_path / "SegmentationClass" / f"{name}.png")
        palette_image(objects * on, tmp_path / "SegmentationObject" / f"{name}.png")
    return tmp_path


def test_palette_void_and_instances(voc):
    data = VOCSegmentation(voc)
    assert len(data) == 2 and CLASSES[8] == "cat" and len(CLASSES) == 21
    sample = data[0]
    assert sample["image"].shape == (3, 10, 13) and 0 <= sample["image"].min() <= sample["image"].max() <= 1
    assert sample["semantic"].unique().tolist() == [0, 8, 255] and int((sample["semantic"] == 255).sum()) == 4
    assert sample["label_map"].unique().tolist() == [0, 1, 2] and sample["labels"].tolist() == [8, 8]
    assert sample["boxes"].tolist() == [[1, 1, 5, 8], [8, 6, 12, 9]]
    assert int(sample["masks"][0].sum()) == 12 + 4 and not sample["masks"][:, 4].any()
    assert data[-1]["masks"].shape == (0, 10, 13) and not data[1]["semantic"].any()


def test_transforms_keep_void(voc):
    torch.manual_seed(1)
    turned = VOCSegmentation(voc, transforms=Joint(RandomRot90()))[0]
    assert int((turned["semantic"] == 255).sum()) == 4


def test_what_is_missing_or_wrong(voc, tmp_path):
    with pytest.raises(FileNotFoundError, match="has no ImageSets/Segmentation/val.txt; expected VOCdevkit"):
        VOCSegmentation(voc, "val")
    with pytest.raises(FileNotFoundError, match="expected VOCdevkit"):
        VOCSegmentation(tmp_path / "nowhere")
    with pytest.raises(IndexError, match="index is 2, expected an index into 2"):
        VOCSegmentation(voc)[2]
    palette_image(np.full((10, 13), 77), voc / "SegmentationClass" / "2007_000039.png")
    with pytest.raises(ValueError, match="has the class 77, expected 0 to 20"):
        VOCSegmentation(voc)[1]
    palette_image(np.zeros((9, 13)), voc / "SegmentationClass" / "2007_000039.png")
    with pytest.raises(ValueError, match=r"shape \(9, 13\) and dtype uint8, expected integers of shape \(10, 13\)"):
        VOCSegmentation(voc)[1]
    (voc / "SegmentationClass" / "2007_000039.png").write_bytes(b"\x89PNG cut short")
    with pytest.raises(ValueError, match="is not a readable image"):
        VOCSegmentation(voc)[1]
    (voc / "JPEGImages" / "2007_000032.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"2007_000032.jpg is missing, expected an image"):
        VOCSegmentation(voc)[0]


def test_objects_of_no_class_and_an_empty_list_are_refused(voc):
    palette_image(np.zeros((10, 13)), voc / "SegmentationClass" / "2007_000032.png")
    with pytest.raises(ValueError, match="SegmentationObject/2007_000032.png has an object 1, which is background"):
        VOCSegmentation(voc)[0]
    palette_image(np.full((10, 13), 255), voc / "SegmentationClass" / "2007_000032.png")
    with pytest.raises(ValueError, match="has an object 1, which is void"):
        VOCSegmentation(voc)[0]
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text("\n")
    with pytest.raises(ValueError, match="train.txt lists no images"):
        VOCSegmentation(voc)
