"""The command `segedu gradebook`: compute all reports again, fill tables of Canvas and Moodle, print the points."""

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
from segedu.grading.gradebook.prompts import stored_prompts
from segedu.grading.judging.records import output_folder_lock

ROWS = 50
NAMES = 10


@dataclass(frozen=True)
class GradebookOptions:
    """The options of `segedu gradebook`; its help explains them."""

    out: Path
    lab: str = ""
    canvas: Path | None = None
    moodle: Path | None = None
    similarity: Path | None = None
    course: Path = Path(".")
    layout: str = "auto"


def gradebook(options: GradebookOptions, console: Console | None = None) -> int:
    """Compute all reports again without grading, print what was written, and return the exit status 0.

    Raises:
        ValueError: if the folder has no records, or a file of the instructor or of a platform is wrong.
    """
    console = console or Console()
    instructor_files = read_instructor_files(options.out)
    if not instructor_files.labs:
        raise ValueError(f"OUT is {options.out}, which has no records; give the --out of `segedu grade`")
    if options.lab and options.lab not in instructor_files.labs:
        labs = ", ".join(instructor_files.labs)
        raise ValueError(f"--lab is {options.lab}, which {options.out} has no records of; it has {labs}")
    # what grading stored comes first: the default course is the working directory, which may hold submissions
    stored = all(stored_prompts(options.out, lab).is_file() for lab in instructor_files.labs)
    with output_folder_lock(options.out):
        written = rebuild(options.out, [options.lab] if options.lab else [], None if stored else options.course)
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
    """Lines that list the written files; labs with the same file names share a line."""
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
    """Fill the tables and export the answers that the options name, and return the paths written."""
    out, labs, paths = options.out, instructor_files.labs, []
    if options.canvas:
        books = [LabBook(instructor_files, lab) for lab in ([options.lab] if options.lab else labs)]
        paths.append(_report(fill_canvas(options.canvas, books, out / "canvas-filled.csv"), console))
    if options.moodle:
        lab = _only_lab(options, labs, "--moodle")
        book = LabBook(instructor_files, lab)
        paths.append(_report(fill_moodle(options.moodle, book, out / lab / "moodle-filled.csv"), console))
    if options.similarity:
        from segedu.grading.gradebook.similarity import export_answers

        lab = _only_lab(options, labs, "--similarity")
        folder, with_answer, without = export_answers(out, lab, options.similarity, options.course, options.layout)
        console.print(f"Exported the answers of {with_answer} students for similarity tools; {without} have none.")
        paths.append(folder)
    return paths


def _only_lab(options: GradebookOptions, labs: list[str], option: str) -> str:
    if not options.lab and len(labs) > 1:
        raise ValueError(f"{option} works for one lab; give --lab, one of {', '.join(labs)}")
    return options.lab or labs[0]


def _report(filled: Filled, console: Console) -> Path:
    console.print(escape(f"{filled.path.name}: {filled.cells} cells filled."))
    unknown, missing = "In the table, but not in the gradebook", "In the gradebook, but not in the table"
    for label, names in ((unknown, filled.unknown), (missing, filled.missing)):
        if names:
            more = f" and {len(names) - NAMES} more" * (len(names) > NAMES)
            console.print(escape(f"{label}: {', '.join(names[:NAMES])}{more}."), soft_wrap=True)
    more = len(filled.remarks) - NAMES
    for remark in [*filled.remarks[:NAMES], *[f"{more} more of this kind"] * (more > 0)]:
        console.print(escape(f"{remark}."), soft_wrap=True)
    return filled.path


def table(book: LabBook, out: Path) -> Table:
    """A terminal table with the results of the first `ROWS` students of a lab."""
    title = f"{book.lab}: {len(book)} students"
    result = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False)
    result.add_column("student", overflow="ellipsis", no_wrap=True, min_width=12, max_width=24)
    result.add_column(f"of {points_text(book.max_points)}", justify="right", no_wrap=True)
    result.add_column("raw", justify="right", no_wrap=True)
    result.add_column("lateness", overflow="ellipsis", no_wrap=True, max_width=30)
    result.add_column("flags", overflow="ellipsis", no_wrap=True)
    for student_result in islice(book, ROWS):
        final = Text(points_text(student_result.final), style="bold")
        texts = (Text(student_result.late_explanation), Text(", ".join(student_result.flags)))
        result.add_row(Text(student_result.student), final, points_text(student_result.autograded_points), *texts)
    if len(book) > ROWS:
        page = out / book.lab / "index.html"
        result.caption, result.caption_justify = Text(f"and {len(book) - ROWS} more: see {page}"), "left"
    return result
