"""The command `segedu check`: grade a student's saved notebook as the instructor will, before it is handed in.

The same grader runs, with inputs from a seed that everybody may know. So the points can differ from the final ones only
if an answer is right on these inputs and wrong on others.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import nbformat
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from segedu.grading.batch.batch import SAFE_LEVEL, Job, grade_batch
from segedu.grading.gradebook.page import printable
from segedu.grading.submissions.archive import SubmissionError
from segedu.grading.submissions.notebook import lab_number, parse_notebook
from segedu.teaching.authoring.notebooks import make_lab
from segedu.teaching.checks.cell import VISIBLE_SEED


def check_notebook(notebook: Path, course: Path, lab: str = "", console: Console | None = None) -> int:
    """Grade a saved notebook, and print the points and the first line of feedback of each exercise.

    Args:
        notebook: the saved notebook. It is only read.
        course: the checkout, with `solutions/` or an unchanged `labs/`.
        lab: name of the lab; by default, the ids of the notebook's cells decide.
        console: terminal for the output.

    Returns:
        The exit status: 0 if the notebook was graded, however many points it earned, and otherwise 1.

    Raises:
        ValueError: the file is not a notebook of one of the labs, or the course lacks the lab.
    """
    console = console or Console()
    check_file(notebook)
    lab = lab or lab_of(notebook, course)
    with tempfile.TemporaryDirectory(prefix="segedu-check-") as folder:
        work = Path(folder)
        for name in ("labs", "submissions"):
            (work / name).mkdir()
        nbformat.write(unsolved_lab(lab, course, notebook), work / "labs" / f"{lab}.ipynb")
        copied = work / "submissions" / "notebook.ipynb"
        shutil.copyfile(notebook, copied)
        job = Job(copied, lab, work / "graded", work, seed=VISIBLE_SEED, trust=True)  # it is the student's own notebook
        with console.status(f"Running {escape(notebook.name)} as the grader will"):
            batch = grade_batch(job)
        record = batch.records[0]
    if record["status"] != "graded":
        console.print(f"[red]{escape(notebook.name)} was not graded: {escape(printable(record['problem']))}.[/red]")
        return 1
    console.print(_table(record))
    for note in record["notes"]:
        console.print(f"Note: {escape(printable(note))}.", soft_wrap=True)
    if batch.sandbox is not None and batch.sandbox[0] < SAFE_LEVEL:
        console.print("This computer has no sandbox, so the notebook ran with your own rights.", soft_wrap=True)
    console.print("Your answers ran on inputs that are always the same. Grading draws new ones.", soft_wrap=True)
    return 0


def find_course(notebook: Path) -> Path:
    """The checkout in which a notebook or the working directory lies; the working directory if there is none."""
    here = Path.cwd()
    for folder in (here, *here.parents, *notebook.resolve().parents):
        if (folder / "solutions").is_dir() or (folder / "labs").is_dir():
            return folder
    return here


def check_file(notebook: Path) -> None:
    """Raise a ValueError if the file does not exist or does not end in .ipynb."""
    if not notebook.is_file() or notebook.suffix.lower() != ".ipynb":
        problem = "which is not a notebook" if notebook.exists() else "which does not exist"
        raise ValueError(f"NOTEBOOK is {notebook}, {problem}; give a saved notebook, such as labs/04_metrics.ipynb")


def lab_of(notebook: Path, course: Path) -> str:
    """The name of the lab to which a notebook belongs, by the ids of its cells.

    Raises:
        ValueError: the file is not a notebook, or belongs to no lab.
    """
    names = {name[:2]: name for name in _labs(course)}
    if not names:
        raise ValueError(f"{course} contains neither labs/ nor solutions/: give the checkout of the course by --course")
    try:
        number = lab_number(parse_notebook(notebook.read_bytes(), notebook.name))
    except SubmissionError as error:
        raise ValueError(str(error)) from None
    if number not in names:
        raise ValueError(
            f"{notebook.name} has no cells of a lab, so it is not known which one it is; give a notebook that was "
            "made from one in labs/, or --lab NAME"
        )
    return names[number]


def unsolved_lab(lab: str, course: Path, notebook: Path) -> nbformat.NotebookNode:
    """The lab as it was handed out. A student may work in `labs/` itself, so it is made from the solution again.

    Raises:
        ValueError: the course has no such lab, or only the student's notebook in its place.
    """
    solved, handed_out = (course / folder / f"{lab}.ipynb" for folder in ("solutions", "labs"))
    try:
        if solved.is_file():
            return make_lab(nbformat.read(solved, as_version=4))
        if handed_out.is_file() and not handed_out.samefile(notebook):
            return nbformat.read(handed_out, as_version=4)
    except (json.JSONDecodeError, nbformat.ValidationError) as error:
        raise ValueError(f"the notebook of lab {lab} in {course} cannot be read ({error}); fetch it again") from None
    if handed_out.is_file():
        raise ValueError(
            f"{course} has no {solved.relative_to(course)}, and {handed_out.relative_to(course)} is your own notebook; "
            "give a complete checkout with --course"
        )
    raise ValueError(f"lab is {lab!r}, which {course} does not have, expected one of {', '.join(_labs(course))}")


def _labs(course: Path) -> list[str]:
    """Names of the labs in a checkout."""
    paths = [path for folder in ("solutions", "labs") for path in (course / folder).glob("[0-9][0-9]_*.ipynb")]
    return sorted({path.stem for path in paths})


def _table(record: dict) -> Table:
    title = f"Lab {record['lab']}: {record['points']:g} of {record['max_points']} points"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    table.add_column("exercise", no_wrap=True)
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column("feedback")
    for exercise in record["exercises"]:
        whole = exercise["points"] == exercise["max"]
        lines = [] if whole else [exercise["first_line"]]
        lines += [f"Note: {note}." for note in exercise["notes"]]
        points = Text(f"{exercise['points']:g} of {exercise['max']}", style="green" if whole else "yellow")
        table.add_row(exercise["name"], points, printable("\n".join(lines)) if lines else "passed")
    return table
