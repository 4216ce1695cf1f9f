"""nbgrader: write a lab as the source of an assignment, and copy points of `segedu grade` into nbgrader's gradebook.

nbgrader runs checks inside the student's process, so four lines of code that silence errors forge full points. The
command `segedu grade COURSE/submitted` reads the same folder and judges outside of that process. With the source
written here, nbgrader's own grading draws new inputs and counts by groups too, so honest work gets the same points.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segedu.grading.judging.atomic_write import write_atomic
from segedu.grading.judging.records import RecordStore, batch_seed

CONFIG = '''"""Written by `segedu nbgrader`: how nbgrader handles the labs of segedu. Put settings of your own below."""

from segedu.grading.platforms.nbgrader_config import configure

c = get_config()
configure(c, __file__)
'''
# nbgrader gives full points to a check cell that neither raises an error nor ends in a number
FIRST_CELL = """# nbgrader sets this variable when it validates or grades: a check that fails must raise an error then
import os

if "NBGRADER_EXECUTION" in os.environ:
    os.environ |= {"SEGEDU_CHECK": "raise", "SEGEDU_WIDGETS": "static"}"""
HIDDEN = "### BEGIN HIDDEN TESTS\n{}\n### END HIDDEN TESTS"
# Environment variable with the lab's seed while nbgrader grades. A cell with the seed would appear in all feedback.
SEED = "SEGEDU_SEED"


def make_source(course: Path, lab: str, out: Path, seed: int | None = None) -> list[Path]:
    """Write a lab into an nbgrader course folder: `source/LAB/LAB.ipynb`, and `nbgrader_config.py` if it is missing.

    Args:
        course: the checkout of the course.
        lab: `04_metrics`.
        out: nbgrader's course folder, created if necessary.
        seed: seed of the hidden cases; None uses the seed stored in `out`, or draws one.

    Returns:
        The paths of both files.

    Raises:
        ValueError: if the course has no solved notebook of the lab, or the folder has another seed.
    """
    path = course / "solutions" / f"{lab}.ipynb"
    if not path.is_file():
        labs = ", ".join(sorted(other.stem for other in path.parent.glob("[0-9]*.ipynb"))) or "none"
        raise ValueError(f"lab is {lab!r}; solutions/ of {course} has {labs}; nbgrader's source holds the solutions")
    out.mkdir(parents=True, exist_ok=True)
    batch_seed(out, seed)
    book = source_notebook(json.loads(path.read_text()), lab)
    target, config = out / "source" / lab / f"{lab}.ipynb", out / "nbgrader_config.py"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, (json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode())
    if not config.exists():
        config.write_text(CONFIG)
    return [target, config]


def next_steps(lab: str, out: Path) -> str:
    """Lines for the terminal with the commands to run in the course folder."""
    config = out / "nbgrader_config.py"
    configured = "segedu.grading.platforms.nbgrader_config" in config.read_text(errors="replace")
    code = "from segedu.grading.platforms.nbgrader_config import configure\n  configure(c, __file__)"
    lines = [] if configured else [f"{config} existed and was not changed; it needs these lines:\n  {code}"]
    release = f"nbgrader generate_assignment {lab} --force"
    grade = f"segedu grade {out}/submitted --lab {lab}, or in that folder: nbgrader autograde {lab}"
    return "\n".join([*lines, f"Next, in {out}: {release}", f"Later: {grade}"])


def source_notebook(solved: dict, lab: str) -> dict:
    """Convert a solved lab to nbgrader's source: hidden tests in check cells, an additional first cell, no outputs."""
    book = copy.deepcopy(solved)
    book["metadata"].pop("widgets", None)
    book["metadata"]["segedu"] = {"lab": lab}
    for cell in book["cells"]:
        if cell["cell_type"] != "code":
            continue
        cell |= {"outputs": [], "execution_count": None}
        ours = cell["metadata"]["segedu"]
        if ours["role"] == "check":
            cell["source"] = _with_hidden_tests(cell["source"], lab, ours["name"].removeprefix("check_"))
            cell["metadata"]["nbgrader"].pop("checksum", None)  # nbgrader computes it
    code = next(i for i, cell in enumerate(book["cells"]) if cell["cell_type"] == "code")
    book["cells"].insert(code, _first_cell(lab))
    return book


def _with_hidden_tests(source: str | list[str], lab: str, name: str) -> str:
    """Add hidden tests around a check cell; nbgrader takes the last value of the cell for its points."""
    begin = HIDDEN.format("import segedu.grading.platforms.nbgrader as _nbgrader\n\n_nbgrader.begin()")
    end = HIDDEN.format(f'_nbgrader.credit("{lab}", "{name}", {name})')
    return "\n".join([begin, "".join(source), end])


def _first_cell(lab: str) -> dict:
    metadata = {
        "deletable": False, "editable": False, "tags": ["setup", "nbval-ignore-output", "hide-input"],
        "segedu": {"name": "nbgrader", "role": "setup"},
        "nbgrader": {
            "schema_version": 3, "grade_id": "nbgrader", "cell_type": "code",
            "grade": False, "solution": False, "locked": True, "task": False,
        },
    }  # fmt: skip
    rest = {"metadata": metadata, "source": FIRST_CELL, "outputs": [], "execution_count": None}
    return {"cell_type": "code", "id": f"{lab.partition('_')[0]}-nbgrader", **rest}


_stderr: list[tuple[Any, int]] = []  # the kernel's stderr while a check cell runs


def begin() -> None:
    """Begin a check cell that nbgrader grades: `credit` decides its points, so a failed check raises no error.

    nbgrader takes any output on stderr for a failure, so until `credit` a function's warnings go to stdout.
    """
    os.environ["SEGEDU_CHECK"] = "print"
    if not _stderr:
        sys.stderr.flush()
        _stderr.append((sys.stderr, os.dup(2)))
        os.dup2(1, 2)
        sys.stderr = sys.stdout


def credit(lab: str, name: str, function: Callable) -> float:
    """End a check cell that nbgrader grades: return the points of a student's function, as `segedu grade` counts them.

    Raises:
        ValueError: if the seed is not in the environment; then nbgrader gives no points.
    """
    from segedu.grading.judging.compare import exercise_seed
    from segedu.teaching.checks.cell import hidden_names
    from segedu.teaching.checks.hidden import without
    from segedu.teaching.checks.judge import draw, judge, outcomes_of

    try:
        if SEED not in os.environ:
            raise ValueError(f"{SEED} is not set: nbgrader_config.py of the course must call configure(c, __file__)")
        module = importlib.import_module("segedu.teaching.exercises").load(lab)
        exercise = next(one for one in module.exercises if one.name == name)
        if (getattr(function, "__module__", None) or "").partition(".")[0] == "segedu":  # the check has printed why
            return 0.0
        drawn = draw(exercise, exercise_seed(int(os.environ[SEED]), lab, name))
        with without(hidden_names(module.exercises, getattr(module, "FORBIDDEN", ())), function) as called:
            outcomes = outcomes_of(exercise, called, drawn)
        return float(judge(exercise, drawn, outcomes).points)
    finally:
        os.environ["SEGEDU_CHECK"] = "raise"
        for stream, fd in _stderr:
            sys.stderr = stream
            os.dup2(fd, 2)
            os.close(fd)
        _stderr.clear()


@dataclass
class Exported:
    """Report on copying points into nbgrader's gradebook.

    Attributes:
        students: students whose points were copied.
        needs_review: those marked for manual grading, because of tampering or an unreadable file.
        failed: students without points because the grader failed.
    """

    students: list[str] = field(default_factory=list)
    needs_review: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def report(self) -> str:
        """Lines of text for the terminal."""
        lines = [f"The points of {len(self.students)} students are in nbgrader's gradebook."]
        if self.needs_review:
            lines.append(f"Marked there for manual grading, please review: {', '.join(self.needs_review)}.")
        if self.failed:
            lines.append(f"The grader failed on these submissions, grade them again: {', '.join(self.failed)}.")
        return "\n".join(lines)


def export_grades(grades: Path, lab: str, out: Path) -> Exported:
    """Copy the points of each student's last attempt into nbgrader's `gradebook.db`, as if nbgrader had graded.

    Manual points that an instructor gave in nbgrader stay and count.

    Args:
        grades: the output folder of `segedu grade`.
        lab: `04_metrics`.
        out: nbgrader's course folder.

    Raises:
        ValueError: if nbgrader is not installed, `grades` has no records of the lab, or nbgrader does not know the lab.
    """
    if not (grades / lab / "records").is_dir():
        raise ValueError(f"--grades is {grades}, which has no records of {lab}; give the --out of `segedu grade`")
    done = Exported()
    with _gradebook(out, lab) as book:
        for record in _last_attempts(RecordStore(grades, lab)):
            student = _student(record)
            if record["status"] not in ("graded", "unreadable"):
                done.failed.append(student)
                continue
            done.students.append(student)
            if _export(book, record, student):
                done.needs_review.append(student)
    return done


@contextmanager
def _gradebook(out: Path, lab: str) -> Iterator[Any]:
    try:
        from nbgrader.api import Gradebook, MissingEntry
    except ImportError:
        raise ValueError("nbgrader is not installed here: pip install nbgrader") from None
    advice = f"run `nbgrader generate_assignment {lab}` in {out} first"
    if not (out / "gradebook.db").is_file():
        raise ValueError(f"{out} has no gradebook.db; {advice}")
    with warnings.catch_warnings(), Gradebook(f"sqlite:///{(out / 'gradebook.db').resolve()}", "") as book:
        warnings.simplefilter("ignore")  # SQLAlchemy warns about nbgrader's own code
        try:
            book.find_notebook(lab, lab)
        except MissingEntry:
            raise ValueError(f"the gradebook of {out} does not know {lab}; {advice}") from None
        yield book


def _last_attempts(store: RecordStore) -> Iterator[dict]:
    """The last record of each student, from records sorted by student and attempt."""
    last = None
    for record in store.everything():
        if last and last["student"] != record["student"]:
            yield last
        last = record
    if last:
        yield last


def _student(record: dict) -> str:
    """nbgrader's id of a student: the name of the folder, from which `student_id` derives the id in the record."""
    from segedu.grading.submissions.find_submissions import student_id

    name = Path(record["source"]).parts[0]
    return name if student_id(name) == record["student"] else record["student"]


def _export(book: Any, record: dict, student: str) -> bool:
    """Copy one record; returns whether it needs review."""
    lab, time = record["lab"], record.get("submitted")
    book.update_or_create_student(student)
    book.update_or_create_submission(lab, student, **({"timestamp": time} if time else {}))
    needs_review = record["status"] != "graded" or any(exercise["tampered"] for exercise in record["exercises"])
    for exercise in record["exercises"]:
        grade = book.find_grade(f"check_{exercise['name']}", lab, lab, student)
        if grade.cell.max_score != exercise["max"]:
            raise ValueError(
                f"{exercise['name']} is worth {grade.cell.max_score:g} in nbgrader's gradebook and {exercise['max']:g} "
                f"in the records; run `segedu nbgrader {lab}` and `nbgrader generate_assignment {lab} --force` again"
            )
        grade.auto_score = float(exercise["points"])
        grade.needs_manual_grade = needs_review or grade.manual_score is not None
        comment = book.find_comment(exercise["name"], lab, lab, student)
        lines = [exercise["first_line"], exercise["hint"], *exercise["notes"]]
        comment.auto_comment = "\n\n".join(line for line in [record["problem"], *lines] if line) or None
    book.db.commit()
    return needs_review
