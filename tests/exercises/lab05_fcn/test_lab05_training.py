"""The training cells of lab 5: its three nets at CPU scale, and VOC's code path on two images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segedu.recipes.recipe import find_recipe
from segedu.teaching.authoring import notebooks as authoring
from segedu.teaching.exercises.lab05_fcn import bilinear_kernel, fcn8_fuse, joint_augment, pixel_ce

COURSE = Path(__file__).parents[3]
REFERENCES = {e.name: e.reference for e in (bilinear_kernel, fcn8_fuse, joint_augment, pixel_ce)}


@pytest.fixture
def cells():
    source = authoring.read_source(COURSE, "05_fcn")
    return {cell.metadata["segedu"]["name"]: cell.source for cell in source.cells}


@pytest.fixture
def names(monkeypatch):
    """What the cells find in the notebook, on one thread and without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {"torch": torch, "np": np, "use": lambda function: function, **REFERENCES}
    torch.set_num_threads(threads)


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_skip_is_worth_something(seed, cells, names, capsys):
    from segedu.teaching.widgets.fcn import upper_bound

    names["upper_bound"] = upper_bound
    for name in ("train_parts", "train", "train_table"):
        exec(cells[name].replace("manual_seed(0)", f"manual_seed({seed})"), names)
    found = {stride: score["mean_iou"] for stride, score in names["scores"].items()}
    with capsys.disabled():
        print(f"lab 5, seed {seed}: mean IoU {found[32]:.3f} FCN-32s, {found[16]:.3f} FCN-16s, {found[8]:.3f} FCN-8s")
    assert found[32] + 0.03 < found[8]


@pytest.fixture
def voc(tmp_path):
    """Two images in VOC's layout."""
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject"):
        (tmp_path / folder).mkdir()
    for split in ("train", "val"):
        (lists / f"{split}.txt").write_text("one\ntwo\n")
    classes = np.zeros((90, 70), np.uint8)
    classes[20:50, 10:40], classes[50, 10:40] = 8, 255
    for name in ("one", "two"):
        Image.new("RGB", (70, 90), (10, 200, 30)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        for folder in ("SegmentationClass", "SegmentationObject"):
            Image.fromarray(classes).save(tmp_path / folder / f"{name}.png")
    return tmp_path


def test_the_cell_for_voc_runs(voc, cells, names, capsys):
    cell = cells["voc"]
    for old, new in (("VOC = None", f"VOC = {str(voc)!r}"), ("VOC_STEPS = 5000", "VOC_STEPS = 2")):
        assert old in cell
        cell = cell.replace(old, new)
    assert "max(0, 256 -" in cell and "top + 256" in cell and "left + 256" in cell and "side - 255" in cell
    cell = cell.replace("num_workers=2", "num_workers=0").replace("256", "64").replace("side - 255", "side - 63")
    names |= {"device": "cpu", "batch": 2, "nets": {8: find_recipe("fcn8", "street")[0].build()}}
    exec(cells["train_parts"], names)
    exec(cell, names)
    assert "mean IoU on VOC 2012 val: 0." in capsys.readouterr().out


def test_without_voc_the_cell_does_nothing(cells, names, capsys):
    exec(cells["voc"], names)
    assert capsys.readouterr().out == ""
