"""Attacks by what is handed in: notebooks that are none, archives, names; each made by code, in the folder given."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import tiny
from attack import FULL, RIGHT, Attack

BOUNDARY = "submission"


def good(name: str = "", **answers: str) -> list[dict]:
    """The cells of a right notebook."""
    cells = tiny.answered(**RIGHT | answers)
    return [*cells, tiny.cell("mine", f"# {name}")] if name else cells


def book(change: Callable[[dict], object]) -> Callable[[Path, str], Path]:
    """A right notebook after `change(document)`.

    Args:
        change: edits the notebook in place, or returns another text or bytes.

    Returns:
        Writes it below a folder.
    """

    def make(folder: Path, name: str) -> Path:
        document = json.loads(tiny.notebook(good(name)))
        result = change(document)
        path = folder / f"{name}.ipynb"
        data = result if isinstance(result, (str, bytes)) else json.dumps(document)
        path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
        return path

    return make


def blank(document: dict) -> list[dict]:
    """Put the lab's own stubs in place of the answers."""
    document["cells"][:] = tiny.lab_cells()
    return document["cells"]


def linked_file(folder: Path, name: str) -> Path:
    """A link to a file of the host in place of a notebook."""
    path = folder / f"{name}.ipynb"
    path.symlink_to("/etc/passwd")
    return path


def pipe_in_a_folder(folder: Path, name: str) -> Path:
    """A folder with the notebook, a pipe, a link out of it and a deep tree."""
    home = folder / name
    (home / "a/b/c/d/e/f/g").mkdir(parents=True)
    os.mkfifo(home / "pipe.ipynb")
    (home / "etc").symlink_to("/etc")
    (home / "a/b/c/d/e/f/g/deep.ipynb").write_text("{")
    return home


def folder_with_pickle(folder: Path, name: str) -> Path:
    """A right notebook beside weights that run code when they are loaded."""
    home = folder / name
    home.mkdir()
    (home / "lab.ipynb").write_text(tiny.notebook(good(name)))
    (home / "weights.pt").write_bytes(b"cos\nsystem\n(S'touch /tmp/segedu-attack-mark-pickle'\ntR.")
    return home


def named(name: str, text: Callable[[], str] = lambda: tiny.notebook(good())) -> Callable[[Path, str], Path]:
    """A right notebook of an odd file name."""

    def make(folder: Path, _: str) -> Path:
        path = folder / name
        path.write_text(text())
        return path

    return make


def source(cell_id: str, text: str, **more) -> Callable[[dict], None]:
    """Sets the source of a cell."""

    def change(document: dict) -> None:
        one = next(cell for cell in document["cells"] if cell["id"] == cell_id)
        one.update(source=text, **more)

    return change


def doubled(document: dict) -> None:
    """Every answer twice, with the same id, the copy worthless and behind the check."""
    copies = [
        {**cell, "source": "def double(x):\n    return 0"} for cell in document["cells"] if cell["id"] == "00-double"
    ]
    document["cells"] += copies


def edited(document: dict) -> None:
    """Points, roles, tags and checks rewritten; the answers are the stubs."""
    for cell in blank(document):
        cell["metadata"].update(
            nbgrader={"grade": True, "points": 100, "grade_id": cell["id"], "schema_version": 3, "solution": False},
            tags=["nbval-skip", "raises-exception", "otter_ignore"],
            otter={"tests": ["x"]},
            points=100,
        )
        cell["metadata"].setdefault("segedu", {})["points"] = 100
        if "check" in cell["id"]:
            cell["source"] = "print('passed')"
    document["metadata"] = {
        "otter": {"tests": {"double": "points = 100"}},
        "segedu": {"points": 100, "max_points": 100},
    }


def probing(document: dict) -> None:
    """Cells that say they are probes and canaries, and one that uses an id of ours."""
    blank(document)
    for role in ("probe", "canary", "setup", "check"):
        document["cells"].insert(1, tiny.cell(f"00-{role}", "points = 9", role=role, name=f"check_{role}"))
    document["cells"].append(
        tiny.cell("00-check-double", "def double(x):\n    return 0", role="check", name="check_double")
    )


def big_markdown(document: dict) -> None:
    """Twenty megabytes of prose."""
    document["cells"].insert(0, tiny.cell("prose", "word " * (4 << 20), "markdown"))


def failing_cells(document: dict) -> None:
    """Each makes a note."""
    name = "AnErrorWhoseNameIsAsLongAsItMayBe"
    cells = [tiny.cell(f"c{i}", f"class {name}(Exception):\n    pass\n\n\nraise {name}({i})") for i in range(450)]
    document["cells"] += cells


def many_cells(document: dict) -> None:
    """Two thousand code cells would be too many."""
    document["cells"] += [tiny.cell(f"c{i}", f"x{i} = {i}") for i in range(2100)]


SPEC = {
    "kernelspec": {
        "name": "evil",
        "argv": ["touch", "/tmp/segedu-attack-mark-kernel"],
        "language": "bash",
        "display_name": "x",
    }
}
ALIEN = dict(
    good_name="",
    text=json.dumps({"cells": [tiny.cell("04-box-iou", "x = 1")], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}),
)


def attack(
    name: str, tries: str, right: str, make, points: float = 0.0, note: str = "", make_twin=None, where: str = BOUNDARY
) -> Attack:
    """An attack by a file; no level matters but for those whose answers run."""
    return Attack(
        name, where, tries, right, points=points, note=note, make=make, make_twin=make_twin, twin_levels=(3, 2)
    )


NOTEBOOKS = [
    attack(
        "m1_broken",
        "to end the batch by broken JSON",
        "0, unreadable",
        book(lambda d: '{"cells": ['),
        0,
        "not valid JSON",
        book(lambda d: json.dumps(d, indent=4, ensure_ascii=False)),
    ),
    attack(
        "m2_no_notebook",
        "to end it by JSON that is no notebook",
        "0, unreadable",
        book(lambda d: "[1, 2]"),
        0,
        "not a notebook",
        book(lambda d: "\ufeff" + json.dumps(d)),
    ),
    attack(
        "m3_unknown_kernel",
        "to let the notebook name what is started",
        "our kernel, always",
        book(lambda d: d["metadata"].update(SPEC)),
        FULL,
        make_twin=book(
            lambda d: d["metadata"].update(
                kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"}
            )
        ),
    ),
    attack(
        "m4_large",
        "to be slow by 20 MB of prose",
        "graded",
        book(big_markdown),
        FULL,
        make_twin=book(lambda d: d["cells"].insert(0, tiny.cell("prose", "word " * 9999, "markdown"))),
    ),
    attack(
        "m5_schema",
        "to end the batch by a version of nbgrader's metadata",
        "ignored",
        book(
            lambda d: (
                [c["metadata"].update(nbgrader={"schema_version": 99, "grade_id": 5}) for c in d["cells"]] and None
            )
        ),
        FULL,
    ),
    attack(
        "a11_doubled_ids",
        "to hand an answer in twice",
        "the one before the check counts, and a note",
        book(doubled),
        FULL,
        "appears twice",
        book(lambda d: d["cells"].append(tiny.cell("again", "print(1)"))),
    ),
    attack(
        "a12_no_checks",
        "to delete the checks",
        "ours are used",
        book(lambda d: d["cells"].__setitem__(slice(None), [c for c in d["cells"] if "check" not in c["id"]])),
        FULL,
    ),
    attack(
        "a13_edited", "to rewrite points, tags, roles and checks", "0: only our own source is believed", book(edited), 0
    ),
    attack(
        "n57_old_format",
        "to hand in notebook format 3, and cells of other kinds",
        "unreadable, with what to do",
        book(lambda d: d.update(nbformat=3, worksheets=[{"cells": d["cells"]}])),
        0,
        "notebook format 3",
        book(lambda d: d.update(nbformat_minor=4)),
    ),
    attack(
        "n57b_answer_as_text",
        "to turn an answer into a raw cell",
        "0 for that one, and a note",
        book(source("00-total", RIGHT["total"], cell_type="raw")),
        6.0,
        "no longer a code cell",
    ),
    attack(
        "n58_our_marks", "to use our ids, roles and names in cells of its own", "0: they mean nothing", book(probing), 0
    ),
    attack(
        "o70_source_of_surrogates",
        "to break the line to the kernel by text that is no UTF-8",
        "that cell fails; the others count",
        book(lambda d: json.dumps(d).replace("# o70_source_of_surrogates", "x = '\\ud800'")),
        FULL,
        make_twin=book(lambda d: json.dumps(d, ensure_ascii=False).replace("# o70", "# \u4e2d\U0001f600 o70")),
    ),
    attack(
        "o71_surrogate_answer",
        "the same in an answer",
        "0 for that one, the others count",
        book(source("00-total", "y = '\ud800'\n" + "def total(v):\n    return 0")),
        6.0,
    ),
    attack("o72_too_many_cells", "to make the plan long", "unreadable", book(many_cells), 0, "cells, at most"),
    attack(
        "o87_failing_cells",
        "to drown the CSV in notes: a spreadsheet cuts a cell of 32767 characters and moves the rest",
        "no cell is that long",
        book(failing_cells),
        FULL,
    ),
    attack(
        "o73_brackets",
        "to make the parser need all memory",
        "unreadable",
        book(lambda d: "[" * 3_000_000),
        0,
        "brackets",
    ),
    attack(
        "o74_odd_types",
        "to hand in cells, metadata and sources of other types",
        "unreadable or ignored",
        book(lambda d: d["cells"].extend([{"cell_type": 5, "metadata": [], "source": {"a": 1}}, 7, None])),
        0,
        "no text as its source|is not a cell",
    ),
    attack(
        "o75_long_numbers",
        "to hand in a number of 10^5 digits and deep JSON",
        "unreadable",
        book(lambda d: json.dumps(d)[:-1] + ', "x": ' + "9" * 100_000 + "}"),
        0,
        "not valid JSON",
    ),
    attack(
        "o76_dense_code",
        "to make the reading of the code slow for everybody",
        "bounded",
        book(
            lambda d: d["cells"].extend(tiny.cell(f"c{i}", "x=1;" * 120 + "y=[" + "1," * 60 + "]") for i in range(300))
        ),
        FULL,
    ),
    attack(
        "o77_nested_code",
        "to break the parser of the code by depth",
        "that cell fails; the others count",
        book(
            lambda d: d["cells"].insert(2, tiny.cell("deep", "x = " + "-" * 60_000 + "1\ny = " + "[" * 150 + "]" * 150))
        ),
        FULL,
    ),
    attack(
        "o78_other_lab",
        "to hand in another lab",
        "0, unreadable",
        book(lambda d: ALIEN["text"]),
        0,
        "is a notebook of lab 04",
    ),
    attack("o79_link", "to be graded on a file of the host", "not followed", linked_file, 0, "is a link"),
    attack(
        "o80_pipe",
        "to hang the grader on a pipe in a folder",
        "refused",
        pipe_in_a_folder,
        0,
        "not a plain file|holds no notebook",
    ),
    attack(
        "n62b_pickle_beside", "to have weights beside the notebook loaded", "never opened", folder_with_pickle, FULL
    ),
    attack(
        "o81_html_name",
        "to bring markup into the reports by the name of the file",
        "a plain id",
        named("<img src=x onerror=alert(1)>.ipynb"),
        FULL,
    ),
    attack("o82_formula_name", "to bring a formula into the CSV", "a plain id", named("=cmd|' !A0'.ipynb"), FULL),
    attack(
        "o83_unicode_name",
        "to confuse by directions, accents and width",
        "a plain id",
        named("\u202egnp.e\u0301\uff0ezz\u200b.ipynb"),
        FULL,
    ),
    attack(
        "o84_neighbours_name",
        "to take a neighbour's id by another case",
        "an id of its own",
        named("N40-NEIGHBOUR.ipynb"),
        FULL,
    ),
    attack(
        "o85_attempts_name",
        "to be taken for a neighbour's second attempt",
        "an id of its own",
        named("zz-neighbour~2.ipynb"),
        FULL,
    ),
    attack("o86_long_name", "to have a name that is too long for a file", "cut", named("\u4e2d" * 80 + ".ipynb"), FULL),
]
