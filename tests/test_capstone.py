"""The capstone: requirements of a report, near-duplicates across a split, hostile notebooks, and both notebooks."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import re
import subprocess
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from segedu.cli import app
from segedu.datasets.cells import draw_cells
from segedu.datasets.scenes import Scenes
from segedu.datasets.shapes import draw_shapes
from segedu.datasets.street import draw_street
from segedu.datasets.volume import draw_volume
from segedu.grading.capstone_reports import notebooks, read
from segedu.teaching.capstone import MIME, Report, Row, fingerprint, hand_in, leaks, problems, table, worst
from segedu.teaching.capstone.leakage import repeated
from segedu.teaching.capstone.report import from_json, to_json
from segedu.teaching.capstone.template import build_capstone

ROOT = Path(__file__).resolve().parents[1]


@lru_cache
def image(draw: Callable, number: int) -> np.ndarray:
    return Scenes(draw, 100, seed=5)[number]["image"].as_subclass(torch.Tensor).numpy()


def images(draw: Callable, count: int) -> list[np.ndarray]:
    return [image(draw, i) for i in range(count)]


# --- the split --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("draw", "count"), [(draw_cells, 24), (draw_street, 24), (draw_shapes, 40), (draw_volume, 12)])
def test_different_scenes_are_no_leak_and_copies_are(draw: Callable, count: int) -> None:
    pictures = images(draw, count)
    prints = [fingerprint(picture) for picture in pictures]
    assert leaks(prints[: count // 2], prints[count // 2 :]) == []
    rng = np.random.default_rng(0)
    noisy = pictures[2] * 0.8 + 0.05 + 0.03 * rng.standard_normal(pictures[2].shape)
    for copy in (pictures[2], pictures[2][..., ::-1], noisy):
        assert leaks(prints[: count // 2], [*prints[count // 2 :], fingerprint(copy)]) == [(2, count - count // 2)]


def saved_again(image: np.ndarray) -> np.ndarray:
    """The image (3, H, W) in [0, 1], through a JPEG of low quality."""
    file = io.BytesIO()
    Image.fromarray((image.clip(0, 1).transpose(1, 2, 0) * 255).astype(np.uint8)).save(file, "JPEG", quality=20)
    return np.asarray(Image.open(file)).transpose(2, 0, 1)  # uint8, as a student may read it


@pytest.mark.parametrize("draw", [draw_cells, draw_street])
def test_every_way_to_hide_a_copy_that_the_page_names(draw: Callable) -> None:
    pictures = images(draw, 10)
    prints, one = [fingerprint(picture) for picture in pictures], pictures[1]
    turned = [np.rot90(flip, k, (1, 2)) for flip in (one, one[..., ::-1]) for k in range(4)]
    other = [saved_again(one), one[:, ::2, ::2], (one * 1.2 + 0.1).clip(0, 1), one[::-1], one[:, 1:-1, 2:]]
    copies = [fingerprint(copy) for copy in (*turned, *other, one**2.2)]
    assert leaks(prints, copies) == [(1, i) for i in range(len(copies))]
    assert repeated([*prints, copies[3]]) == [(1, 10)] and repeated(prints) == []


def test_a_volume_is_found_from_head_to_foot_and_from_foot_to_head() -> None:
    volumes = images(draw_volume, 3)
    prints = [fingerprint(volume) for volume in volumes]
    copies = [fingerprint(volumes[2][:, ::-1]), fingerprint(np.rot90(volumes[0], 1, (2, 3)))]
    assert leaks(prints, copies) == [(2, 0), (0, 1)]


def test_where_all_images_are_one_it_is_found() -> None:
    one = fingerprint(image(draw_cells, 0))
    assert leaks([one] * 3, [one] * 2) == [(0, 0), (0, 1)] and repeated([one] * 3) == [(0, 1), (0, 2)]
    assert leaks([(0,) * 64], [(0,) * 64]) == [(0, 0)]


def test_thirty_thousand_images() -> None:
    rng = np.random.default_rng(0)
    train = rng.integers(-127, 128, (30_000, 64))
    test = rng.integers(-127, 128, (40, 64))
    test[7] = np.rot90(train[29_999].reshape(8, 8)).ravel()
    assert leaks(train, test) == [(29_999, 7)]


def test_fingerprints_of_two_kinds_are_no_riddle() -> None:
    for train, test in (([(0,) * 64], [(0,) * 216]), ([(0,) * 3], [(0,) * 3]), ([(0,) * 64, (0,)], [(0,) * 64])):
        with pytest.raises(ValueError, match="expected 64 for every image or 216 for every volume"):
            leaks(train, test)


def test_odd_images_have_fingerprints() -> None:
    assert fingerprint(np.zeros((1, 1, 1))) == (0,) * 64 and fingerprint(np.ones((3, 5, 300))) == (0,) * 64
    assert len(fingerprint(torch.rand(1, 2, 7, 9))) == 216 and leaks([], [(0,) * 64]) == []
    assert fingerprint(np.arange(64.0).reshape(1, 8, 8)) == fingerprint(np.arange(64.0).reshape(1, 8, 8) * 3 + 5)
    random = torch.rand(3, 8, 8, requires_grad=True)
    assert (
        fingerprint(random)
        == fingerprint(random.detach().numpy())
        == fingerprint(random.detach().double().numpy() * 1e308)
    )
    assert len(fingerprint(torch.ones(3, 9, 9, dtype=torch.bfloat16))) == 64
    for bad in (np.zeros((4, 4)), np.zeros((3, 0, 4)), np.full((1, 4, 4), np.nan)):
        with pytest.raises(ValueError, match="image has shape .* expected"):
            fingerprint(bad)
    with pytest.raises(ValueError, match=r"\(64, 32, 3\), channels last, expected \(C, H, W\)"):
        fingerprint(np.zeros((64, 32, 3)))
    for bad in ("image.png", {"image": 1}, [random.detach(), "a"]):
        with pytest.raises(TypeError, match="image is (str|dict|list), expected a tensor or an array"):
            fingerprint(bad)


# --- reports ----------------------------------------------------------------------------------------------------


@lru_cache
def complete() -> Report:
    prints = [fingerprint(picture) for picture in images(draw_cells, 24)]
    rows = (Row("Otsu", None, (0.4, 0.2, 0.7)), Row("mine", 0, (0.9, 0.5, 0.8)), Row("mine", 1, (0.8, 0.5, 0.8)))
    scores = (*(i / 12 for i in range(11)), math.nan)
    ten = tuple((i, f"{i + 2} nuclei that touch became one") for i in range(10))
    return Report("cells", ("a", "b", "c"), rows, "Otsu", tuple(prints[:12]), tuple(prints[12:]), scores, ten)


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
        (lambda r: {"metrics": ("a", "a", "b")}, "2 of 3 metrics have a distinct name, expected all"),
        (lambda r: {"metrics": ("a", " ", "b")}, "2 of 3 metrics have a distinct name, expected all"),
        (
            lambda r: {"metrics": ("mIoU", "b", "c"), "rows": (*r.rows[:2], Row("mine", 1, (2.0, 1, 1)))},
            "mIoU of 'mine'",
        ),
        (
            lambda r: {"metrics": ("a", "b", "Dice"), "rows": (*r.rows, Row("x", 1, (2, 1, 81.5)))},
            "is 81.500, expected 0 to 1",
        ),
        (lambda r: {"rows": (*r.rows, Row(" ", 0, (0.1, 0.1, 0.1)))}, "does not say which method"),
        (lambda r: {"rows": (r.rows[0], Row("mine", None, (0.9, 0.5, 0.8)))}, "none of your methods was trained"),
        (lambda r: {"rows": (*r.rows[:2], Row("mine", 1, r.rows[0].values))}, "mine has exactly the baseline's values"),
        (
            lambda r: {"rows": (*r.rows, Row("mine", 2, (0.1,)))},
            "'mine' does not have one value for each of the 3 metrics",
        ),
        (lambda r: {"rows": (*r.rows, Row("mine", 2, (0.1, 0.1, math.nan)))}, "is NaN or infinite"),
        (lambda r: {"rows": r.rows[1:]}, "no row of the baseline 'Otsu'"),
        (lambda r: {"rows": r.rows[:1]}, "only the baseline"),
        (lambda r: {"rows": r.rows[:2]}, "mine was trained with the seeds [0], expected at least 2"),
        (lambda r: {"rows": (*r.rows, r.rows[2])}, "mine has two rows with the same seed"),
        (lambda r: {"rows": (*r.rows[:2], dataclasses.replace(r.rows[1], seed=7))}, "is the seed used?"),
        (lambda r: {"rows": (*r.rows, dataclasses.replace(r.rows[1], seed=7))}, "is the seed used?"),
        (lambda r: {"test": ()}, "12 images to train on and 0 to test on"),
        (
            lambda r: {"test": r.test[:1]},
            "12 images to train on and 1 to test on, expected some to train on and at least 10",
        ),
        (lambda r: {"train": ()}, "0 images to train on"),
        (lambda r: {"test": ((1, 2),) * 12}, "expected 64 for every image or 216 for every volume"),
        (lambda r: {"train": ((0,) * 216,)}, "expected 64 for every image or 216 for every volume"),
        (
            lambda r: {"test": (*r.test[:11], r.test[4])},
            "1 of 12 test images repeat another, perhaps rotated or flipped: image 11 duplicates image 4",
        ),
        (lambda r: {"train": (*r.train, r.test[3])}, "the first is test image 3, training image 12"),
        (lambda r: {"scores": r.scores[1:]}, "scores has 11 values, expected one for each of the 12"),
        (lambda r: {"worst": r.worst[1:]}, "expected 10 different test images"),
        (lambda r: {"worst": (*r.worst[:9], (99, "five words are here now"))}, "expected 10 different test images"),
        (lambda r: {"worst": (*r.worst[:9], (10, "five words are here now"))}, "image 10 is not among the 10 worst"),
        (lambda r: {"worst": (*r.worst[:9], (11, "five words are here now"))}, "10 worst: it has no score"),
        (lambda r: {"worst": (*r.worst[:9], (9, "bad"))}, "the text on image 9 is too short"),
        (lambda r: {"worst": (*r.worst[:9], (9, "bad bad Bad bad bad bad"))}, "the text on image 9 is too short"),
        (
            lambda r: {"worst": tuple((i, "five words are here now") for i in range(10))},
            "all 10 worst images have the same text",
        ),
        (lambda r: {"scores": (math.nan,) * 12}, "scores are NaN for every test image"),
    ],
)
def test_what_is_missing_is_said(change: Callable[[Report], dict], words: str) -> None:
    lacks = problems(changed(**change(complete())))
    assert any(words in why for why in lacks), lacks


@pytest.mark.parametrize(
    "change",
    [
        lambda r: {"rows": (*r.rows, Row("no training", None, (0.5, 0.3, 0.7)))},
        lambda r: {"metrics": ("a", "distance in pixels", "c"), "rows": (*r.rows[:2], Row("mine", 1, (0.8, 7.5, 0.8)))},
        lambda r: {
            "scores": (0.5, 0.2, *[math.nan] * 10),
            "worst": ((0, "the dim one was lost"), (1, "it melted into its own")),
        },
    ],
)
def test_honest_reports_are_not_turned_down(change: Callable[[Report], dict]) -> None:
    assert problems(changed(**change(complete()))) == []


def test_worst_leaves_out_what_has_no_score() -> None:
    assert worst([math.nan, 0.5, math.nan, 0.1, 0.3], 2) == [3, 4] and worst([math.nan]) == [] == worst([])


def test_numbers_of_numpy_and_torch_are_numbers(capsys: pytest.CaptureFixture) -> None:
    rows = (complete().rows[0], Row("mine", np.int64(0), torch.tensor([0.9, 0.5, 0.8])), Row("mine", 1, np.ones(3)))
    ten = tuple((np.int64(i), why) for i, why in complete().worst)
    assert hand_in(changed(rows=rows, worst=ten, scores=torch.tensor(complete().scores))) == []
    assert "The report is complete" in capsys.readouterr().out


def test_a_mean_that_is_nan_is_shown_and_said(capsys: pytest.CaptureFixture) -> None:
    for bad in (math.nan, math.inf, 1.7e308):
        rows = (*complete().rows[:2], Row("mine", 1, (bad, 0.5, 0.8)))
        lacks, shown = hand_in(changed(rows=rows)), capsys.readouterr().out.partition(MIME)[0]
        assert "mine" in shown and len(shown) < 500
        assert bool(lacks) == (bad != 1.7e308)
    assert table(changed(rows=(*complete().rows, Row("mine", 2, (1.0,))))) == []


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (lambda: None, "report is NoneType, expected capstone.Report"),
        (lambda: changed(rows=(Row("mine", 1, 0.5),)), "row 'mine' of the report is float, expected a number for each"),
        (lambda: changed(rows=(Row("mine", "1", (0.5,) * 3),)), "seed of the report is str"),
        (lambda: changed(scores=None), "scores of the report is NoneType"),
        (lambda: changed(train=(torch.rand(3, 8, 8),)), "not a fingerprint"),
        (lambda: changed(train=([0.5] * 64,)), "not a fingerprint"),
        (lambda: changed(data=draw_cells), "the report holds function, expected numbers and text"),
        (lambda: changed(baseline=None), "baseline of the report is NoneType, expected text"),
        (lambda: changed(worst=((0, "a", "b"),)), "list of pairs"),
    ],
)
def test_a_report_of_wrong_parts_says_which(report: Callable[[], object], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        hand_in(report())


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
        lambda p: {**p, "train": ["xy"]},
        lambda p: {**p, "train": ["00" * 64] * 10_001},
        lambda p: {**p, "scores": [10**400]},
        lambda p: {**p, "rows": [{"method": str(i), "seed": 0, "values": []} for i in range(2001)]},
        lambda p: {**p, "metrics": ["m"] * 51},
        lambda p: {**p, "data": "x" * 2001},
        lambda p: {**p, "worst": [[0, "x" * 2001]]},
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
    assert problems(read(good)) == []
    seen = CliRunner().invoke(app, ["capstone", str(tmp_path)])
    assert seen.exit_code == 1 and "1 of 3 reports are complete" in " ".join(seen.output.split())
    assert "empty.ipynb is empty" in seen.output and "0.850 ± 0.071" in seen.output
    assert "Not complete: " in seen.output and seen.output.count("student.ipynb") == 1
    assert CliRunner().invoke(app, ["capstone", str(good)]).exit_code == 0
    assert "does not exist" in CliRunner().invoke(app, ["capstone", str(tmp_path / "no.ipynb")]).output


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    bad = changed(data="\x1b[2J[red]", baseline="x\n9 of 9 reports are complete.\u202e")
    seen = CliRunner().invoke(app, ["capstone", str(notebook(tmp_path, to_json(bad)))])
    assert "\x1b[2J" not in seen.output and "[red]" in seen.output and "\u202e" not in seen.output
    assert not any(line.startswith("9 of 9") for line in seen.output.splitlines())


def test_a_table_that_fits_no_screen_is_cut(tmp_path: Path) -> None:
    rows = tuple(Row(f"method {i}", 0, (0.5,) * 50) for i in range(2000))
    large = changed(rows=rows, metrics=tuple(f"metric {i}" for i in range(50)))
    seen = CliRunner().invoke(app, ["capstone", str(notebook(tmp_path, to_json(large)))]).output
    assert "and 1980 methods more" in seen and "and 44 metrics more" in seen and len(seen.splitlines()) < 100


def test_fifty_handed_in_some_of_them_no_notebooks(tmp_path: Path) -> None:
    good = notebook(tmp_path, to_json(complete()))
    text = good.read_text()
    for name in ("a b/with  spaces.ipynb", "c/line\nbreak.ipynb", "d/LARGE LETTERS.IPYNB", "e/copy.ipynb"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    (tmp_path / "e/copy.ipynb").write_text(text.replace("0.4, 0.2", "0.41, 0.2"))
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints/student-checkpoint.ipynb").write_text(text)
    for number in range(40):
        (tmp_path / f"broken {number}.ipynb").write_bytes([b"", b"{", b"[" * 100_000, b"\xff\xfe", b"[]"][number % 5])
    with (tmp_path / "large.ipynb").open("wb") as file:
        file.truncate(200 << 20)
    (tmp_path / "larger than a notebook.ipynb").write_text(text + " " * (33 << 20))
    (tmp_path / "link.ipynb").symlink_to(good)
    (tmp_path / "nowhere.ipynb").symlink_to("/nowhere")
    (tmp_path / "zipped.zip").write_bytes(b"PK")
    seen = CliRunner().invoke(app, ["capstone", str(tmp_path)])
    said = " ".join(seen.output.split())
    assert seen.exit_code == 1 and "5 of 49 reports are complete." in said
    assert "link.ipynb is a link, which is not followed" in said and "large.ipynb has 200 MB" in said
    assert "clear the pictures, not the last cell" in said and "zipped.zip" in said.partition("not read: ")[2]
    assert said.count("all values are equal to those of") == 3


def test_folders_nested_without_end_are_not_the_end_of_all(tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "capstone.ipynb").write_text("{}")
    deep = tmp_path / "mallory"
    deep.mkdir()
    before = Path.cwd()
    try:
        os.chdir(deep)
        for _ in range(1500):
            os.mkdir("a")
            os.chdir("a")
        os.chdir(before)
        books, others = notebooks([tmp_path])
        assert (books, others) == ([tmp_path / "anna" / "capstone.ipynb"], [])
    finally:
        os.chdir(before)
        subprocess.run(["rm", "-rf", str(deep)], check=True)  # pytest's own removal would recurse as deep


def test_a_report_that_breaks_the_reader_is_not_the_end_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = notebook(tmp_path, to_json(complete()))

    def broken(report: Report) -> list[str]:
        raise MemoryError

    monkeypatch.setattr("segedu.grading.capstone_reports.problems", broken)
    seen = CliRunner().invoke(app, ["capstone", str(good)])
    assert "student.ipynb cannot be read: MemoryError" in seen.output and "0 of 1" in seen.output


def test_the_page_says_how_to_get_the_data_and_what_the_rows_of_the_rubric_are_worth() -> None:
    page = (ROOT / "course/capstone.md").read_text()
    names: dict[str, object] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    assert {"label_map"} <= set(names["cells"][0]) and {"semantic", "panoptic_seg"} <= set(names["streets"][0])
    assert names["volumes"][0]["image"].ndim == 4 and "semantic" in names["volumes"][0]
    assert sum(map(int, re.findall(r"^\| \*\*[^|]*\((\d)\) \|", page, re.MULTILINE))) == 20


def test_the_template_is_derived_and_holds_no_answer() -> None:
    before = {path: path.read_bytes() for path in (ROOT / "labs/capstone.ipynb", ROOT / "solutions/capstone.ipynb")}
    build_capstone(ROOT, run=False)
    for path, content in before.items():
        assert path.read_bytes() == content
    blank = nbformat.read(ROOT / "labs/capstone.ipynb", 4)
    assert not any(cell.get("outputs") for cell in blank.cells) and "Cellpose" not in json.dumps(blank)
    assert sum("NotImplementedError" in cell.source for cell in blank.cells if cell.cell_type == "code") == 6


def test_the_filled_one_is_complete() -> None:
    report = read(ROOT / "solutions/capstone.ipynb")
    assert problems(report) == []
    (_, _, baseline, *_), (_, _, mine, *_) = table(report)[1:]
    assert float(mine.split()[0]) > float(baseline) + 0.3
