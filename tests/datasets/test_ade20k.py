"""The format of ADE20K's scene parsing benchmark, on a tree made here."""

import numpy as np
import pytest
from PIL import Image

from segedu.datasets.ade20k import ADE20K


@pytest.fixture
def scenes(tmp_path):
    """One scene: other (0), wall (1) and a class of number 150."""
    for kind in ("images", "annotations"):
        (tmp_path / kind / "validation").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(tmp_path / "images" / "validation" / "ADE_val_00000001.jpg")
    stored = np.repeat(np.array([0, 1, 150], np.uint8), 8).reshape(4, 6)
    Image.fromarray(stored).save(tmp_path / "annotations" / "validation" / "ADE_val_00000001.png")
    head = "Idx\tRatio\tTrain\tVal\tStuff\tName\n"
    (tmp_path / "objectInfo150.txt").write_text(
        head + "1\t0.1576\t11664\t1172\t1\twall\n2\t0.1\t6\t6\t1\tbuilding, edifice\n"
    )
    return tmp_path


def test_other_is_void_and_classes_start_at_0(scenes):
    data = ADE20K(scenes, "validation")
    assert data[0]["semantic"].unique().tolist() == [0, 149, 255] and data.classes == ["wall", "building"]
    assert int((data[0]["semantic"] == 255).sum()) == 8
    (scenes / "objectInfo150.txt").unlink()
    assert ADE20K(scenes, "validation").classes == []


def test_what_is_missing_or_wrong(scenes):
    with pytest.raises(FileNotFoundError, match="has no images/training; expected ADEChallengeData2016"):
        ADE20K(scenes)
    (scenes / "images" / "training").mkdir()
    with pytest.raises(ValueError, match="has no images for 'training'"):
        ADE20K(scenes)
    path = scenes / "annotations" / "validation" / "ADE_val_00000001.png"
    Image.fromarray(np.full((4, 6), 151, np.uint8)).save(path)
    with pytest.raises(ValueError, match="has the class 151, expected 0 to 150"):
        ADE20K(scenes, "validation")[0]
    path.unlink()
    with pytest.raises(FileNotFoundError, match="is missing, expected an image"):
        ADE20K(scenes, "validation")[0]
