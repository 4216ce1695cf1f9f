"""The training cells of lab 6 at CPU scale, and the code path of the pets on two images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segedu.teaching.authoring import notebooks as authoring
from segedu.teaching.exercises.lab06_unet import build_unet

COURSE = Path(__file__).parents[3]
CELLS = ("train_parts", "train", "train_table")


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_small_unet_reaches_its_target_and_the_skips_matter(seed, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    source = authoring.read_source(COURSE, "06_unet")
    cells = {cell.metadata["segedu"]["name"]: cell.source for cell in source.cells}
    names = {"torch": torch, "use": lambda function: build_unet.reference, "build_unet": None}
    try:
        for name in CELLS:
            exec(cells[name].replace("torch.manual_seed(0)", f"torch.manual_seed({seed})"), names)
    finally:
        torch.set_num_threads(threads)
    scores = names["scores"]
    with capsys.disabled():
        print(
            f"lab 6, seed {seed}: mean IoU {scores['with skips']:.3f} with skips, {scores['without skips']:.3f} without"
        )
    assert scores["with skips"] >= 0.80  # measured 0.885, 0.862, 0.874
    assert scores["with skips"] - scores["without skips"] >= 0.02  # measured 0.13, 0.04, 0.06


@pytest.fixture
def cells():
    source = authoring.read_source(COURSE, "06_unet")
    return {cell.metadata["segedu"]["name"]: cell.source for cell in source.cells}


@pytest.fixture
def names(monkeypatch):
    """What the cells find in the notebook, on one thread and without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {"torch": torch, "use": lambda function: build_unet.reference, "build_unet": None}
    torch.set_num_threads(threads)


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_prostate_is_found(seed, cells, names, capsys):
    names |= {"SCALE": "cpu", "device": "cpu"}
    exec(cells["train_parts"], names)
    imports = "\n".join(line for line in cells["train"].splitlines() if line.startswith("from segedu.training "))
    cell = cells["prostate"].replace("manual_seed(0)", f"manual_seed({seed})")
    exec(f"{imports}\n{cell}", names)
    with capsys.disabled():
        print(f"\nlab 6, prostate, seed {seed}: Dice {names['dice']:.3f}")
    assert names["dice"] >= 0.70


@pytest.fixture
def pets(tmp_path):
    """Two photographs in the layout of Oxford-IIIT Pet."""
    trimaps = tmp_path / "annotations" / "trimaps"
    trimaps.mkdir(parents=True)
    (tmp_path / "images").mkdir()
    trimap = np.full((50, 70), 2, np.uint8)
    trimap[10:40, 20:50] = 3
    trimap[12:38, 22:48] = 1
    for split in ("trainval", "test"):
        (tmp_path / "annotations" / f"{split}.txt").write_text("cat_1 1 1 1\ndog_1 2 2 1\n")
    for name in ("cat_1", "dog_1"):
        Image.new("RGB", (70, 50), (10, 200, 30)).save(tmp_path / "images" / f"{name}.jpg")
        Image.fromarray(trimap).save(trimaps / f"{name}.png")
    return tmp_path


def test_the_cell_for_pets_runs(pets, cells, names, capsys):
    cell = cells["pets"]
    for old, new in (("PETS = None", f"PETS = {str(pets)!r}"), ("PETS_STEPS = 4000", "PETS_STEPS = 20")):
        assert old in cell
        cell = cell.replace(old, new)
    cell = cell.replace("num_workers=2", "num_workers=0").replace("(192, 192)", "(32, 32)")
    names |= {"device": "cpu", "batch": 2, "base": 4, "depth": 2}
    imports = "\n".join(
        line for line in cells["train"].splitlines() if line.startswith("from segedu.") and "lab06" not in line
    )
    exec(cells["train_parts"], names)
    exec(f"{imports}\n{cell}", names)
    assert "mean IoU on the test photographs: 0." in capsys.readouterr().out


def test_without_pets_the_cell_does_nothing(cells, names, capsys):
    exec(cells["pets"], names)
    assert capsys.readouterr().out == ""
