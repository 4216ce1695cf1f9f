"""What `segedu gradebook` does: make everything derived anew, fill the platforms' tables, show the points."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from segedu.grading.gradebook.atomic_files import points_text
from segedu.grading.gradebook.bookkeeping import rebuild
from segedu.grading.gradebook.canvas import fill_canvas
from segedu.grading.gradebook.lms_tables import Filled
from segedu.grading.gradebook.moodle import fill_moodle
from segedu.grading.gradebook.policy import InstructorFiles, LabBook, read_instructor_files
from segedu.grading.judging.records import output_folder_lock

ROWS = 50
NAMES = 10


@dataclass(frozen=True)
class GradebookOptions:
    """What the instructor asked for.

    Attributes:
        out: the folder that `segedu grade` wrote to.
        lab: the only one whose files are made anew, or "" for all.
        canvas: Canvas's gradebook export to fill, or None.
        moodle: Moodle's grading worksheet to fill, or None.
        similarity: the submissions, to lay out answers for tools that look for copies, or None.
        course: the checkout with `labs/`.
        layout: of those submissions.
    """

    out: Path
    lab: str = ""
    canvas: Path | None = None
    moodle: Path | None = None
    similarity: Path | None = None
    course: Path = Path(".")
    layout: str = "auto"


def gradebook(options: GradebookOptions, console: Console | None = None) -> int:
    """Make everything derived anew, without grading, and say what was written.

    Args:
        options: the folder and what to do besides.
        console: of the terminal.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: if the folder has no records, or a file of the instructor's or of a platform is wrong.
    """
    console = console or Console()
    instructor_files = read_instructor_files(options.out)
    if not instructor_files.labs:
        raise ValueError(f"OUT is {options.out}, which has no records; give what `segedu grade` had as --out")
    if options.lab and options.lab not in instructor_files.labs:
        raise ValueError(
            f"--lab is {options.lab}, which {options.out} has no records of; it has {', '.join(instructor_files.labs)}"
        )
    with output_folder_lock(options.out):
        written = rebuild(options.out, [options.lab] if options.lab else [], options.course)
        filled = _fill(options, instructor_files, console)
    for lab in [options.lab] if options.lab else instructor_files.labs:
        book = LabBook(instructor_files, lab)
        console.print(table(book, options.out))
        for remark in book.remarks:
            console.print(escape(f"{remark}."), soft_wrap=True)
    for line in _written([*written, *filled], options.out):
        console.print(escape(line), soft_wrap=True)
    return 0


def _written(paths: list[Path], out: Path) -> list[str]:
    """What was written, a line for each set of names: many labs have the same."""
    folders: dict[Path, list[str]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path.name)
    sets: dict[str, list[str]] = {}
    for folder, names in folders.items():
        if folder != out:
            sets.setdefault(", ".join(names), []).append(folder.name)
    lines = [f"Written in {out}: {', '.join(folders.get(out, []))};"]
    return lines + [f"in {', '.join(labs)}: {names}." for names, labs in sets.items()]


def _fill(options: GradebookOptions, instructor_files: InstructorFiles, console: Console) -> list[Path]:
    """Fill what was given; names and points are in memory then, the records are not."""
    out, labs, paths = options.out, instructor_files.labs, []
    if options.canvas:
        books = [LabBook(instructor_files, lab) for lab in ([options.lab] if options.lab else labs)]
        paths.append(_say(fill_canvas(options.canvas, books, out / "canvas-filled.csv"), console))
    if options.moodle:
        lab = _only_lab(options, labs, "--moodle")
        book = LabBook(instructor_files, lab)
        paths.append(_say(fill_moodle(options.moodle, book, out / lab / "moodle-filled.csv"), console))
    if options.similarity:
        from segedu.grading.gradebook.similarity import export_answers

        lab = _only_lab(options, labs, "--similarity")
        folder, some, none = export_answers(out, lab, options.similarity, options.course, options.layout)
        console.print(f"Answers of {some} students for similarity tools; {none} have none.")
        paths.append(folder)
    return paths


def _only_lab(options: GradebookOptions, labs: list[str], option: str) -> str:
    if not options.lab and len(labs) > 1:
        raise ValueError(f"{option} is for one lab; give --lab, one of {', '.join(labs)}")
    return options.lab or labs[0]


def _say(filled: Filled, console: Console) -> Path:
    console.print(escape(f"{filled.path.name}: {filled.cells} cells filled."))
    for label, names in (("In the table, but nobody here", filled.unknown), ("Here, but not there", filled.left)):
        if names:
            more = f" and {len(names) - NAMES} more" * (len(names) > NAMES)
            console.print(escape(f"{label}: {', '.join(names[:NAMES])}{more}."), soft_wrap=True)
    more = len(filled.remarks) - NAMES
    for remark in [*filled.remarks[:NAMES], *[f"{more} more of this kind"] * (more > 0)]:
        console.print(escape(f"{remark}."), soft_wrap=True)
    return filled.path


def table(book: LabBook, out: Path) -> Table:
    """What counts in one lab, for the terminal; the first `ROWS` students of it.

    Args:
        book: of the lab.
        out: the folder, for saying where the rest is.

    Returns:
        A rich table.
    """
    title = f"{book.lab}: {len(book)} students"
    result = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False)
    result.add_column("student", overflow="ellipsis", no_wrap=True, min_width=12, max_width=24)
    result.add_column(f"of {points_text(book.max)}", justify="right", no_wrap=True)
    result.add_column("raw", justify="right", no_wrap=True)
    result.add_column("lateness", overflow="ellipsis", no_wrap=True, max_width=30)
    result.add_column("flags", overflow="ellipsis", no_wrap=True)
    for student_result in islice(book, ROWS):
        final = Text(points_text(student_result.final), style="bold")
        texts = (Text(student_result.words), Text(", ".join(student_result.flags)))
        result.add_row(Text(student_result.student), final, points_text(student_result.raw), *texts)
    if len(book) > ROWS:
        where = out / book.lab / "index.html"
        result.caption, result.caption_justify = Text(f"and {len(book) - ROWS} more: see {where}"), "left"
    return result
