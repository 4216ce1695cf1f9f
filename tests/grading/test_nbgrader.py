"""nbgrader there and back: its own commands grade our lab, and give honest work the points of `segedu grade`."""

from __future__ import annotations

import contextlib
import copy
import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segedu.cli import app
from segedu.grading.batch.batch import Job, grade_batch
from segedu.grading.batch.grader_threads import pool_of_threads
from segedu.grading.platforms import nbgrader as ours
from segedu.grading.sandbox.kernel_pool import probe_levels
from segedu.grading.submissions.submission import submission_time
from segedu.grading.submissions.times import parse_timestamp

COURSE = Path(__file__).resolve().parents[2]
LAB = "04_metrics"
EXAMPLES = COURSE / "tests" / "submissions" / LAB
# example -> what a student hands in; "stderr" is right and prints there, which nbgrader itself takes for a failure
FEW = {"perfect": "anna", "partial_two_wrong": "bert", "blank": "carl"}
ALL = {**FEW, "partial_half": "dora", "stderr": "emil", "wrong": "fred", "helpers": "gina"}
TIME = "2026-10-01 23:59:00.000000 UTC"
sandboxed = pytest.mark.skipif(
    not any(works and level >= 2 for level, works, _ in probe_levels()), reason="this machine offers no sandbox"
)


def nbgrader(folder: Path, *arguments: str) -> str:
    """One of its commands, which look for `alembic` beside the interpreter."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTEST_CURRENT_TEST", "SEGEDU_CHECK")}
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=folder, env=kept | {"PATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def read(path: Path) -> dict:
    book = json.loads(path.read_text())
    for cell in book["cells"]:
        cell["source"] = "".join(cell["source"])
    return book


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """A course folder with the lab released by nbgrader."""
    folder = tmp_path_factory.mktemp("nbgrader")
    ours.make_source(COURSE, LAB, folder)
    nbgrader(folder, "generate_assignment", LAB)
    return folder


def copied(cell: dict) -> dict:
    """A cell as Jupyter pastes it: with the metadata and another id."""
    return copy.deepcopy(cell) | {"id": f"copy-of-{cell['id']}"}


def hand_in(folder: Path, students: dict[str, str], figures: bool = False, copy_solutions: bool = False) -> None:
    """The released notebook with an example's answers in it, in `submitted/`; without figure cells, as many do."""
    for example, student in students.items():
        book, theirs = read(folder / "release" / LAB / f"{LAB}.ipynb"), read(EXAMPLES / f"{example}.ipynb")
        answers = {cell["id"]: cell["source"] for cell in theirs["cells"]}
        own = [cell for cell in theirs["cells"] if not cell["metadata"].get("segedu")]
        roles = ("setup", "solution", "check", "train", *(("show", "widget", "text") if figures else ()))
        kept = [cell for cell in book["cells"] if cell["metadata"]["segedu"]["role"] in roles]
        for cell in kept:
            if cell["metadata"]["segedu"]["role"] == "solution":
                cell["source"] = answers[cell["id"]]
        copies = [copied(cell) for cell in kept if copy_solutions and cell["metadata"]["segedu"]["role"] == "solution"]
        book["cells"] = [*kept[:2], *copies, *own, *kept[2:]]
        target = folder / "submitted" / student / LAB
        target.mkdir(parents=True)
        (target / f"{LAB}.ipynb").write_text(json.dumps(book))
        (target / "timestamp.txt").write_text(TIME)


def gradebook(folder: Path) -> dict[str, dict[str, float]]:
    """Student -> exercise -> points, of nbgrader's gradebook."""
    query = """select s.student_id, c.name, coalesce(g.manual_score, g.auto_score) from grade g
               join base_cell c on c.id = g.cell_id join submitted_notebook n on n.id = g.notebook_id
               join submitted_assignment s on s.id = n.assignment_id"""
    points: dict[str, dict[str, float]] = {}
    with contextlib.closing(sqlite3.connect(folder / "gradebook.db")) as book:
        for student, cell, score in book.execute(query):
            points.setdefault(student, {})[cell.removeprefix("check_")] = score
    return points


def exported(folder: Path) -> dict[str, float]:
    nbgrader(folder, "export", "--to=grades.csv")
    rows = csv.DictReader((folder / "grades.csv").open())
    return {row["student_id"]: float(row["raw_score"]) for row in rows}


def graded_by_us(folder: Path, out: Path) -> dict[str, dict[str, float]]:
    batch = grade_batch(
        Job(folder / "submitted", LAB, out, COURSE, cell_seconds=15.0), open_grader_pool=pool_of_threads
    )
    return {r["student"]: {one["name"]: one["points"] for one in r["exercises"]} for r in batch.records}


def test_the_release_is_the_lab(released):
    """Cell for cell, but for the first, which makes checks raise; and nbgrader's checksums are those of the lab."""
    lab = read(COURSE / "labs" / f"{LAB}.ipynb")["cells"]
    book = (released / "release" / LAB / f"{LAB}.ipynb").read_text()
    release = read(released / "release" / LAB / f"{LAB}.ipynb")["cells"]
    assert [cell["id"] for cell in release] == [lab[0]["id"], "04-nbgrader", *(cell["id"] for cell in lab[1:])]
    theirs = {cell["id"]: cell for cell in release}
    for cell in lab:
        assert cell["source"] == theirs[cell["id"]]["source"]
        if cell["metadata"]["segedu"]["role"] == "check":
            assert cell["metadata"]["nbgrader"] == theirs[cell["id"]]["metadata"]["nbgrader"]
    assert "HIDDEN" not in book and "SOLUTION" not in book and "_nbgrader" not in book


@sandboxed
def test_nbgrader_gives_honest_work_the_points_that_we_give(released, tmp_path, server):
    """Right, half right and blank: handed in, autograded, exported; then the same folder graded by us.

    anna has copies of her solution cells, which end `nbgrader autograde` for the class where nothing is done about it.
    """
    folder = Path(shutil.copytree(released, tmp_path / "course"))
    few = dict(FEW)
    hand_in(folder, {"perfect": few.pop("perfect")}, copy_solutions=True)
    hand_in(folder, few)
    nbgrader(folder, "autograde", LAB)
    points = gradebook(folder)
    assert points == graded_by_us(folder, tmp_path / "out")
    totals = exported(folder)
    assert totals == {student: sum(points[student].values()) for student in points}
    assert totals["anna"] == 20 and 0 < totals["bert"] < 20 and totals["carl"] == 0
    seed = str(json.loads((folder / "seed.json").read_text())["seed"])
    assert not any(seed in path.read_text() for path in folder.rglob("*.ipynb")), "it would be in the feedback"
    carl = read(folder / "autograded" / "carl" / LAB / f"{LAB}.ipynb")["cells"]
    assert not any(cell.get("outputs") for cell in carl if cell["metadata"]["segedu"]["role"] == "train")


@sandboxed
@pytest.mark.prove
def test_all_kinds_of_honest_work_with_all_their_cells(released, tmp_path, server):
    """Wrong answers, warnings on stderr and helper cells too; figures and widgets run."""
    folder = Path(shutil.copytree(released, tmp_path / "course"))
    hand_in(folder, ALL, figures=True)
    nbgrader(folder, "autograde", LAB)
    points = gradebook(folder)
    assert points == graded_by_us(folder, tmp_path / "out")
    assert sum(points["emil"].values()) == sum(points["gina"].values()) == 20


@pytest.mark.prove
def test_validate_says_what_a_student_has_to_expect(released, tmp_path):
    folder = Path(shutil.copytree(released, tmp_path / "course"))
    hand_in(folder, FEW)
    name = f"{LAB}/{LAB}.ipynb"
    assert "Success" in nbgrader(folder / "submitted" / "anna", "validate", name)
    assert "VALIDATION FAILED ON 2 CELL(S)" in nbgrader(folder / "submitted" / "bert", "validate", name)
    assert "VALIDATION FAILED ON 6 CELL(S)" in nbgrader(folder / "submitted" / "carl", "validate", name)


@sandboxed
def test_our_points_go_into_nbgraders_gradebook(released, tmp_path, server, recwarn):
    """Graded by us, written into its gradebook, exported by it; a teacher's own points stay."""
    folder = Path(shutil.copytree(released, tmp_path / "course"))
    hand_in(folder, FEW)
    (folder / "submitted" / "Hans Meier" / LAB).mkdir(parents=True)
    (folder / "submitted" / "Hans Meier" / LAB / f"{LAB}.ipynb").write_text("{")
    expected = graded_by_us(folder, tmp_path / "out")
    anna = json.loads((tmp_path / "out" / LAB / "records" / "anna.json").read_text())
    assert anna["notes"] == [], "the cell that was added for nbgrader is no oddity"
    done = ours.export_grades(tmp_path / "out", LAB, folder)
    assert not [warning for warning in recwarn if "SAWarning" in warning.category.__name__]
    assert sorted(done.students) == ["Hans Meier", "anna", "bert", "carl"]
    assert done.needs_review == ["Hans Meier"] and done.failed == []
    expected["Hans Meier"] = expected.pop("Hans_Meier")
    assert gradebook(folder) == expected
    with contextlib.closing(sqlite3.connect(folder / "gradebook.db")) as book:
        book.execute("update grade set manual_score = 1 where auto_score = 0")
        times = dict(book.execute("select student_id, timestamp from submitted_assignment"))
        comments = [row[0] for row in book.execute("select auto_comment from comment") if row[0]]
        book.commit()
    assert times["anna"].startswith("2026-10-01 23:59:00") and times["Hans Meier"] is None
    assert any("is not valid JSON" in text for text in comments) and not any("Traceback" in text for text in comments)
    ours.export_grades(tmp_path / "out", LAB, folder)
    zeros = [name for name, points in expected["carl"].items() if points == 0]
    assert [gradebook(folder)["carl"][name] for name in zeros] == [1] * 6


def test_an_export_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="has no records of 04_metrics"):
        ours.export_grades(tmp_path, LAB, tmp_path)
    (tmp_path / "out" / LAB / "records").mkdir(parents=True)
    with pytest.raises(ValueError, match="run `nbgrader generate_assignment 04_metrics`"):
        ours.export_grades(tmp_path / "out", LAB, tmp_path)
    with pytest.raises(ValueError, match="99_none.*solutions/ of .* has 01_tasks"):
        ours.make_source(COURSE, "99_none", tmp_path)


def test_a_students_tag_does_not_keep_a_check_from_running():
    """nbclient passes over a cell with the tag, and nbgrader gives a check without outputs full points."""
    import nbformat

    from segedu.grading.platforms.nbgrader_config import ChooseCells

    book = nbformat.read(COURSE / "labs" / f"{LAB}.ipynb", as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.metadata.tags.append("skip-execution")
            cell.metadata.segedu.role = "train" if cell.metadata.segedu.role == "check" else cell.metadata.segedu.role
    book, _ = ChooseCells().preprocess(book, {})
    left_out = [cell.id for cell in book.cells if "skip-execution" in cell.metadata.get("tags", [])]
    assert left_out == ["04-boxes-widget", "04-scale"]


def test_a_copied_or_damaged_cell_is_an_ordinary_one():
    from nbformat.v4 import new_code_cell, new_notebook

    from segedu.grading.platforms.nbgrader_config import DropInvalidMetadata

    good = {"schema_version": 3, "grade_id": "f", "grade": False, "solution": True, "locked": False, "task": False}
    bad = [{}, {"schema_version": 1, "grade_id": "f"}, {**good, "schema_version": "3"}, {**good, "grade_id": 5}, []]
    cells = [new_code_cell("1", metadata={"nbgrader": one}) for one in (good, *bad)] + [new_code_cell("2")]
    book, _ = DropInvalidMetadata().preprocess(new_notebook(cells=cells), {})
    assert [cell.metadata.get("nbgrader") for cell in book.cells] == [good] + [None] * 6


def test_a_kernel_gets_the_seed_of_its_lab_only(tmp_path, monkeypatch):
    from traitlets.config import Config

    from segedu.grading.platforms.nbgrader_config import SetLabSeed, configure

    monkeypatch.setenv("SEGEDU_SEED", "of another lab")
    config, seeds = Config(), []
    ours.batch_seed(tmp_path, 41)
    configure(config, str(tmp_path / "nbgrader_config.py"))
    assert "SEGEDU_SEED" not in os.environ
    for lab in (LAB, "07_losses", LAB):
        SetLabSeed(config=config).preprocess(None, {"nbgrader": {"assignment": lab}})
        seeds.append(int(os.environ["SEGEDU_SEED"]))
    assert seeds[0] == seeds[2] != seeds[1] and 41 not in seeds


def test_another_assignments_solutions_are_cleared_as_nbgrader_does():
    """Beside the stub of a lab, which says what to write."""
    from nbformat.v4 import new_code_cell, new_notebook

    from segedu.grading.platforms.nbgrader_config import Stubs

    metadata = {"nbgrader": {"solution": True, "grade": False, "grade_id": "f"}}
    sources = [f"def f():\n    ### BEGIN SOLUTION{what}\n    return 1\n    ### END SOLUTION" for what in ("", ": one")]
    book, _ = Stubs().preprocess(new_notebook(cells=[new_code_cell(s, metadata=metadata) for s in sources]), {})
    assert [cell.source for cell in book.cells] == [
        "def f():\n    # YOUR CODE HERE\n    raise NotImplementedError()",
        "def f():\n    raise NotImplementedError('one')",
    ]


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["nbgrader", LAB, "--course", str(COURSE), *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command(tmp_path):
    code, text = command("--out", tmp_path / "course")
    assert code == 0 and "Next, in" in text and (tmp_path / "course" / "source" / LAB / f"{LAB}.ipynb").is_file()
    code, text = command("--out", tmp_path / "course", "--grades", tmp_path)
    assert code == 2 and "give the --out of `segedu grade`" in text


def test_a_report_names_those_to_look_at():
    text = ours.Exported(["anna", "bert"], ["bert"], ["carl"]).report()
    assert (
        "points of 2 students" in text
        and "manual grading, please review: bert." in text
        and "grade them again: carl." in text
    )


def test_the_source_is_made_again_with_the_seed_it_had(tmp_path):
    source, config = ours.make_source(COURSE, LAB, tmp_path)
    text = source.read_text()
    config.write_text("c = get_config()\n")
    assert ours.make_source(COURSE, LAB, tmp_path) == [source, config]
    assert source.read_text() == text and config.read_text() == "c = get_config()\n"
    assert "it needs these lines" in ours.next_steps(LAB, tmp_path)
    config.write_text(ours.CONFIG)
    assert ours.next_steps(LAB, tmp_path).startswith(f"Next, in {tmp_path}: nbgrader generate_assignment {LAB}")
    with pytest.raises(ValueError, match="another seed"):
        ours.make_source(COURSE, LAB, tmp_path, seed=1)


def test_a_check_cell_counts_by_groups_and_keeps_warnings_off_stderr(capfd, monkeypatch):
    """What the hidden lines of a check cell do, here without a kernel."""
    from segedu.ops.boxes import box_iou as library
    from segedu.teaching.exercises.lab04_metrics import check
    from segedu.teaching.mutants.wrong_answers import load_alternatives

    right = load_alternatives(COURSE, LAB)["box_iou"][0]

    def box_iou(boxes1, boxes2):
        print("a warning", file=sys.stderr)
        os.write(2, b"a warning of C\n")
        return right(boxes1, boxes2)

    monkeypatch.setenv("SEGEDU_CHECK", "raise")
    monkeypatch.setenv("SEGEDU_SEED", "5")
    ours.begin()
    try:
        check(box_iou)
    finally:
        points = ours.credit(LAB, "box_iou", box_iou)
    written = capfd.readouterr()
    assert points == 4 and written.err == "" and "a warning of C" in written.out
    assert sys.stderr is not sys.stdout and os.environ["SEGEDU_CHECK"] == "raise"
    assert ours.credit(LAB, "box_iou", library) == 0.0, "the library's own is no answer"
    calls_it = lambda boxes1, boxes2: library(boxes1, boxes2)  # noqa: E731
    assert ours.credit(LAB, "box_iou", calls_it) == 0.0, "and calling it is none either"
    no_edge = lambda boxes1, boxes2: right(boxes1, boxes2) if len(boxes1) and len(boxes2) else None  # noqa: E731
    assert 0 < ours.credit(LAB, "box_iou", no_edge) < 4
    monkeypatch.delenv("SEGEDU_SEED")
    with pytest.raises(ValueError, match="must call configure"):
        ours.credit(LAB, "box_iou", box_iou)


TIMES = {
    "2026-10-01 16:59:00.123456 America/Los_Angeles": "2026-10-01T23:59:00.123456+00:00",
    "2026-12-01 16:59:00 America/Los_Angeles": "2026-12-02T00:59:00+00:00",
    "2026-10-01 16:59:00.000000 UTC\n": "2026-10-01T16:59:00+00:00",
    "2026-10-01 16:59:00.000000 CET": "2026-10-01T14:59:00+00:00",
    "2026-10-01 16:59:00": "2026-10-01T16:59:00+00:00",
    "2026-10-01T16:59:00+02:00": "2026-10-01T14:59:00+00:00",
    "2026-10-01": "2026-10-01T00:00:00+00:00",
}


@pytest.mark.parametrize("text", TIMES)
def test_a_time_is_read_as_nbgrader_reads_it(text, tmp_path):
    from nbgrader.utils import parse_utc

    (tmp_path / LAB).mkdir()
    (tmp_path / LAB / "timestamp.txt").write_text(text)
    assert submission_time(tmp_path, LAB) == TIMES[text] == parse_utc(text.strip()).isoformat() + "+00:00"


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-10-01 16:59:00.000000 +0530", "2026-10-01T11:29:00+00:00"),
        ("2026-10-01 16:59:00 -0730", "2026-10-02T00:29:00+00:00"),
    ],
)
def test_an_offset_is_hours_and_minutes(text, utc):
    """nbgrader 0.9 takes it for seconds."""
    assert parse_timestamp(text) == utc


@pytest.mark.parametrize("text", ["", "yesterday", "2026-10-01 16:59:00 Nowhere/Land", "1 2 ../../etc/passwd", "\0"])
def test_what_is_no_time_is_none(text, tmp_path):
    (tmp_path / LAB).mkdir()
    (tmp_path / LAB / "timestamp.txt").write_text(text)
    assert submission_time(tmp_path, LAB) is None


def test_a_time_behind_a_link_is_not_read(tmp_path):
    (tmp_path / "elsewhere").write_text("2026-10-01")
    (tmp_path / LAB).mkdir()
    (tmp_path / LAB / "timestamp.txt").symlink_to(tmp_path / "elsewhere")
    assert submission_time(tmp_path, LAB) is None
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "timestamp.txt").write_text("2026-10-01")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    assert submission_time(tmp_path, "linked") is None and submission_time(tmp_path, "real") is not None
    assert submission_time(tmp_path / "elsewhere", LAB) is None
