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
from segedu.grading.gradebook.policy import LabBook, Own, read_own
from segedu.grading.judging.records import only_one

ROWS = 50
NAMES = 10


@dataclass(frozen=True)
class Wanted:
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


def gradebook(wanted: Wanted, console: Console | None = None) -> int:
    """Make everything derived anew, without grading, and say what was written.

    Args:
        wanted: the folder and what to do besides.
        console: of the terminal.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: if the folder has no records, or a file of the instructor's or of a platform is wrong.
    """
    console = console or Console()
    own = read_own(wanted.out)
    if not own.labs:
        raise ValueError(f"OUT is {wanted.out}, which has no records; give what `segedu grade` had as --out")
    if wanted.lab and wanted.lab not in own.labs:
        raise ValueError(f"--lab is {wanted.lab}, which {wanted.out} has no records of; it has {', '.join(own.labs)}")
    with only_one(wanted.out):
        written = rebuild(wanted.out, [wanted.lab] if wanted.lab else [], wanted.course)
        filled = _fill(wanted, own, console)
    for lab in [wanted.lab] if wanted.lab else own.labs:
        book = LabBook(own, lab)
        console.print(table(book, wanted.out))
        for remark in book.remarks:
            console.print(escape(f"{remark}."), soft_wrap=True)
    for line in _written([*written, *filled], wanted.out):
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


def _fill(wanted: Wanted, own: Own, console: Console) -> list[Path]:
    """Fill what was given; names and points are in memory then, the records are not."""
    out, labs, paths = wanted.out, own.labs, []
    if wanted.canvas:
        books = [LabBook(own, lab) for lab in ([wanted.lab] if wanted.lab else labs)]
        paths.append(_say(fill_canvas(wanted.canvas, books, out / "canvas-filled.csv"), console))
    if wanted.moodle:
        lab = _only_lab(wanted, labs, "--moodle")
        book = LabBook(own, lab)
        paths.append(_say(fill_moodle(wanted.moodle, book, out / lab / "moodle-filled.csv"), console))
    if wanted.similarity:
        from segedu.grading.gradebook.similarity import export_answers

        lab = _only_lab(wanted, labs, "--similarity")
        folder, some, none = export_answers(out, lab, wanted.similarity, wanted.course, wanted.layout)
        console.print(f"Answers of {some} students for similarity tools; {none} have none.")
        paths.append(folder)
    return paths


def _only_lab(wanted: Wanted, labs: list[str], option: str) -> str:
    if not wanted.lab and len(labs) > 1:
        raise ValueError(f"{option} is for one lab; give --lab, one of {', '.join(labs)}")
    return wanted.lab or labs[0]


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
    for standing in islice(book, ROWS):
        final = Text(points_text(standing.final), style="bold")
        texts = (Text(standing.words), Text(", ".join(standing.flags)))
        result.add_row(Text(standing.student), final, points_text(standing.raw), *texts)
    if len(book) > ROWS:
        where = out / book.lab / "index.html"
        result.caption, result.caption_justify = Text(f"and {len(book) - ROWS} more: see {where}"), "left"
    return result
