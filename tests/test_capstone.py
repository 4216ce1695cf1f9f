"""The capstone: what a report has to hold, near-duplicates across a split, hostile notebooks, and both notebooks."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from segedu import capstone
from segedu.capstone import MIME, Report, Row, fingerprint, from_json, leaks, problems, table, to_json
from segedu.capstone_template import build_capstone
from segedu.cli import app
from segedu.datasets.cells import draw_cells
from segedu.datasets.scenes import Scenes
from segedu.datasets.shapes import draw_shapes
from segedu.datasets.street import draw_street
from segedu.datasets.volume import draw_volume

ROOT = Path(__file__).resolve().parents[1]


def images(draw: Callable, count: int) -> list[np.ndarray]:
    scenes = Scenes(draw, count, seed=5)
    return [scenes[i]["image"].as_subclass(torch.Tensor).numpy() for i in range(count)]


# --- the split --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("draw", "count"), [(draw_cells, 24), (draw_street, 24), (draw_shapes, 40), (draw_volume, 12)])
def test_different_scenes_are_no_leak_and_copies_are(draw: Callable, count: int) -> None:
    pictures = images(draw, count)
    prints = [fingerprint(image) for image in pictures]
    assert leaks(prints[: count // 2], prints[count // 2 :]) == []
    rng = np.random.default_rng(0)
    noisy = pictures[2] * 0.8 + 0.05 + 0.03 * rng.standard_normal(pictures[2].shape)
    for copy in (pictures[2], pictures[2][..., ::-1], noisy):
        assert leaks(prints[: count // 2], [*prints[count // 2 :], fingerprint(copy)]) == [(2, count - count // 2)]


def test_turned_and_cut_copies_are_found() -> None:
    pictures = images(draw_cells, 10)
    prints = [fingerprint(image) for image in pictures]
    turned = [fingerprint(np.rot90(pictures[1], k, (1, 2))) for k in range(4)]
    cut = fingerprint(pictures[4][:, 1:-1, 2:])
    assert leaks(prints, [*turned, cut]) == [(1, 0), (1, 1), (1, 2), (1, 3), (4, 4)]


def test_odd_images_have_fingerprints() -> None:
    assert fingerprint(np.zeros((1, 1, 1))) == (0,) * 64 and fingerprint(np.ones((3, 5, 300))) == (0,) * 64
    assert len(fingerprint(torch.rand(1, 2, 7, 9))) == 216 and leaks([], [(0,) * 64]) == []
    assert fingerprint(np.arange(64.0).reshape(1, 8, 8)) == fingerprint(np.arange(64.0).reshape(1, 8, 8) * 3 + 5)
    for bad in (np.zeros((4, 4)), np.zeros((3, 0, 4)), np.full((1, 4, 4), np.nan)):
        with pytest.raises(ValueError, match="image has shape .* expected"):
            fingerprint(bad)


# --- reports ----------------------------------------------------------------------------------------------------


@lru_cache
def complete() -> Report:
    prints = [fingerprint(image) for image in images(draw_cells, 24)]
    rows = (Row("Otsu", None, (0.4, 0.2, 0.7)), Row("mine", 0, (0.9, 0.5, 0.8)), Row("mine", 1, (0.8, 0.5, 0.8)))
    scores = (*(i / 12 for i in range(11)), math.nan)
    worst = tuple((i, "two nuclei that touch became one") for i in range(10))
    return Report("cells", ("a", "b", "c"), rows, "Otsu", tuple(prints[:12]), tuple(prints[12:]), scores, worst)


def changed(**parts: object) -> Report:
    return dataclasses.replace(complete(), **parts)


def test_a_complete_report_lacks_nothing() -> None:
    assert problems(complete()) == []
    assert table(complete()) == [
        ["method", "seeds", "a", "b", "c"],
        ["Otsu", "-", "0.400", "0.200", "0.700"],
        ["mine", "2", "0.850 ± 0.071", "0.500 ± 0.000", "0.800 ± 0.000"],
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: {"data": "faces"}, "data is 'faces', expected one of cells, street, volume"),
        (lambda r: {"metrics": ("a", "a", "b")}, "2 metrics are reported, expected at least 3"),
        (lambda r: {"rows": (*r.rows, Row("mine", 2, (0.1,)))}, "'mine' has not one value for each of 3 metrics"),
        (lambda r: {"rows": (*r.rows, Row("mine", 2, (0.1, 0.1, math.nan)))}, "is NaN or infinite"),
        (lambda r: {"rows": r.rows[1:]}, "no row of the baseline 'Otsu'"),
        (lambda r: {"rows": r.rows[:1]}, "the baseline alone"),
        (lambda r: {"rows": r.rows[:2]}, "mine was trained with the seeds [0], expected at least 2"),
        (lambda r: {"rows": (*r.rows, r.rows[2])}, "mine has two rows of the same seed"),
        (lambda r: {"rows": (*r.rows[:2], dataclasses.replace(r.rows[1], seed=7))}, "is the seed used?"),
        (lambda r: {"test": ()}, "12 images to train on and 0 to test on"),
        (lambda r: {"test": ((1, 2),) * 12}, "fingerprints of different kinds"),
        (lambda r: {"train": (*r.train, r.test[3])}, "the first is test image 3, training image 12"),
        (lambda r: {"scores": r.scores[1:]}, "scores has 11 values, expected one for each of 12"),
        (lambda r: {"worst": r.worst[1:]}, "expected 10 different ones"),
        (lambda r: {"worst": (*r.worst[:9], (99, "five words are here now"))}, "expected 10 different ones"),
        (lambda r: {"worst": (*r.worst[:9], (10, "five words are here now"))}, "image 10 is not among the 10 worst"),
        (lambda r: {"worst": (*r.worst[:9], (11, "five words are here now"))}, "image 11 is not among the 10 worst"),
        (lambda r: {"worst": (*r.worst[:9], (9, "bad"))}, "of image 9 too little is said"),
    ],
)
def test_what_is_missing_is_said(change: Callable[[Report], dict], words: str) -> None:
    lacks = problems(changed(**change(complete())))
    assert any(words in why for why in lacks), lacks


def test_json_there_and_back() -> None:
    again = from_json(json.loads(json.dumps(to_json(complete()))))
    assert math.isnan(again.scores[-1]) and again.scores[:-1] == complete().scores[:-1]
    assert dataclasses.replace(again, scores=()) == changed(scores=())


@pytest.mark.parametrize(
    "change",
    [
        lambda p: [p],
        lambda p: {**p, "more": 1},
        lambda p: {**p, "rows": {}},
        lambda p: {**p, "rows": [{}]},
        lambda p: {**p, "rows": [{"method": "x", "seed": "0", "values": [1]}]},
        lambda p: {**p, "rows": [{"method": "x", "seed": True, "values": [1]}]},
        lambda p: {**p, "scores": [1, "2"]},
        lambda p: {**p, "train": [["a"]]},
        lambda p: {**p, "train": [[1e99]]},
        lambda p: {**p, "worst": [[0]]},
        lambda p: {**p, "worst": [[True, "x"]]},
        lambda p: {**p, "metrics": "abc"},
    ],
)
def test_forged_json_is_refused(change: Callable[[dict], object]) -> None:
    with pytest.raises(ValueError, match="report"):
        from_json(change(to_json(complete())))


# --- notebooks --------------------------------------------------------------------------------------------------


def notebook(tmp_path: Path, held: object) -> Path:
    output = nbformat.v4.new_output("display_data", {"text/plain": "table", MIME: held})
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[output])])
    path = tmp_path / "student.ipynb"
    path.write_text(json.dumps(book))
    return path


def test_reports_are_read_without_running_anything(tmp_path: Path) -> None:
    good = notebook(tmp_path, to_json(complete()))
    (tmp_path / "empty.ipynb").write_text("")
    (tmp_path / "hostile.ipynb").write_text(json.dumps({"nbformat": 4, "cells": [{"source": "", "outputs": [1, {}]}]}))
    assert problems(capstone.read(good)) == []
    seen = CliRunner().invoke(app, ["capstone", str(tmp_path)])
    assert seen.exit_code == 1 and "1 of 3 reports are complete" in " ".join(seen.output.split())
    assert "empty.ipynb is empty" in seen.output and "0.850 ± 0.071" in seen.output
    assert CliRunner().invoke(app, ["capstone", str(good)]).exit_code == 0
    assert "does not exist" in CliRunner().invoke(app, ["capstone", str(tmp_path / "no.ipynb")]).output


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    bad = changed(data="\x1b[2J[red]")
    seen = CliRunner().invoke(app, ["capstone", str(notebook(tmp_path, to_json(bad)))])
    assert "\x1b[2J" not in seen.output and "[red]" in seen.output


def test_the_template_is_derived_and_holds_no_answer() -> None:
    before = {path: path.read_bytes() for path in (ROOT / "labs/capstone.ipynb", ROOT / "solutions/capstone.ipynb")}
    build_capstone(ROOT, run=False)
    for path, content in before.items():
        assert path.read_bytes() == content
    blank = nbformat.read(ROOT / "labs/capstone.ipynb", 4)
    assert not any(cell.get("outputs") for cell in blank.cells) and "Cellpose" not in json.dumps(blank)
    assert sum("NotImplementedError" in cell.source for cell in blank.cells if cell.cell_type == "code") == 6


def test_the_filled_one_is_complete() -> None:
    report = capstone.read(ROOT / "solutions/capstone.ipynb")
    assert problems(report) == []
    (_, _, baseline, *_), (_, _, mine, *_) = table(report)[1:]
    assert float(mine.split()[0]) > float(baseline) + 0.3
