"""The small StarDist and the small Cellpose: by which script, on which scenes, and what they find on new ones."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pooch
import pytest
import torch
from torch import Tensor

from segedu.datasets.cells import CELLS_VERSION
from segedu.instance import stardist
from segedu.instance.cellpose import cellpose
from segedu.teaching.evidence.proofs import read_rows
from segedu.weights import WEIGHTS, load
from segedu.weights.own import cells_cellpose, cells_stardist
from segedu.weights.own.cells_stardist import STEPS, accuracy, train

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "cell_weights.py"
SCRIPTS = {"cells_stardist": cells_stardist, "cells_cellpose": cells_cellpose}
LOSS = {"cells_stardist": stardist.stardist_loss, "cells_cellpose": cellpose.cellpose_loss}
TARGETS: dict[str, Callable] = {
    "cells_stardist": stardist.stardist_targets,
    "cells_cellpose": cellpose.cellpose_targets,
}
CLAIM = "small weights of StarDist and Cellpose on new cells"
each = pytest.mark.parametrize("name", SCRIPTS)


def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cell_weights", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def discs(number: int) -> list[tuple[Tensor, Tensor]]:
    rows, columns = torch.meshgrid(torch.arange(72), torch.arange(72), indexing="ij")
    pairs = []
    for i in range(number):
        label_map = torch.zeros(72, 72, dtype=torch.int32)
        for label, (row, column) in enumerate(((18 + i, 20), (50, 30 + i), (24, 54 - i)), 1):
            label_map[(rows - row) ** 2 + (columns - column) ** 2 < 60] = label
        pairs.append(((0.2 + 0.6 * (label_map > 0)).expand(3, -1, -1).clone(), label_map))
    return pairs


@each
def test_the_log_is_of_these_scenes(name: str) -> None:
    """A new version of the scenes asks for new weights: python -m segedu.weights.own.cells_stardist, and _cellpose."""
    file = SCRIPTS[name].FILE
    log = json.loads(file.with_suffix(".json").read_text())
    assert (log["cells_version"], log["steps"]) == (CELLS_VERSION, STEPS)
    losses = log["losses_of_100_steps"]
    assert len(losses) == STEPS // 100 and losses[-1] < 0.8 * losses[0]
    assert pooch.file_hash(file) == WEIGHTS[name].sha256
    size = file.stat().st_size
    assert size == pytest.approx(WEIGHTS[name].mebibytes * 2**20, rel=0.02) and size < 2**20


@each
def test_the_number_in_the_log_is_that_of_the_file(name: str) -> None:
    log = json.loads(SCRIPTS[name].FILE.with_suffix(".json").read_text())
    assert accuracy(load(name), SCRIPTS[name].label_map_of) == log["instance_accuracy_on_new_scenes"] > 0.8


@each
def test_exposure_does_not_matter(name: str) -> None:
    image, model = discs(1)[0][0], load(name)
    same = [SCRIPTS[name].label_map_of(model, changed) for changed in (image, 0.5 * image, 0.25 + 0.5 * image)]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 40, 33))["logits"].isfinite().all()


@each
def test_the_script_trains_and_again_to_the_same_bytes(name: str) -> None:
    trained = []
    for _ in range(2):
        torch.manual_seed(0)
        model = getattr(SCRIPTS[name], name)()
        losses = train(model, LOSS[name], TARGETS[name], discs(8), steps=6, every=2)
        assert len(losses) == 3 and losses[-1] < losses[0]
        trained.append(model)
    assert not trained[0].training and trained[0].state_dict().keys() == load(name).state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(*(model.state_dict().values() for model in trained), strict=True))


def test_average_precision_by_hand() -> None:
    """Two of three objects are found, and of three detections the second is wrong: 1/3 * 1 + 1/3 * 2/3."""
    truth, found = torch.zeros(2, 9, 9, dtype=torch.int32)
    truth[:2, :2], truth[4:6, 4:6], truth[8, 8] = 1, 2, 3
    found[:2, :2], found[7, :3], found[4:6, 4:6] = 1, 2, 3
    area = benchmark().average_precision([found], [torch.tensor([0.9, 0.5, 0.4])], [truth])
    assert area == pytest.approx(1 / 3 + 2 / 9)


@pytest.mark.prove
def test_the_numbers_of_the_claim_are_those_of_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    """Every number of the measured claim, to the last digit printed."""
    benchmark().main()
    printed = capsys.readouterr().out
    rows = read_rows(Path(__file__).resolve().parents[2])
    if CLAIM not in rows:
        pytest.skip("make prove has not measured it yet")
    assert rows[CLAIM].figure in printed.replace("\n", " ")
