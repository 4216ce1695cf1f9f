"""Attacks by code that is expensive to read, by cells that fail by the thousand, and by names that others have."""

from __future__ import annotations

import functools

import tiny
from attack import FULL, RIGHT
from files import attack, book, named, source

reading = functools.partial(attack, where="reading")


def with_cell(text: str):
    """A right notebook with one more cell before the answers."""
    return book(lambda document: document["cells"].insert(2, tiny.cell("mine", text)))


def many_failures(document: dict) -> None:
    """As many cells that fail as a notebook may have, each with a long name of its own."""
    letters = "abcdefghijklmnopqrstuvwxyz" * 2
    for i in range(1500):
        name = f"Odd{''.join(letters[i % 26 + k] for k in range(26))}"
        text = f"class {name}(Exception):\n    pass\n\n\nraise {name}({i})"
        document["cells"].append(tiny.cell(f"c{i}", text))


DEFINITIONS = "".join(f"def f{i}(x):\n    return g{i}(x)\n" for i in range(4_000))
READING = [
    reading(
        "o100_string_of_pieces",
        "to hold the reader by one f-string of 300,000 pieces, minutes of Python's own parser",
        "0, unreadable; nobody else waits",
        with_cell("x = 1\ny = f'" + "{x}" * 300_000 + "'"),
        0,
        "reading its code takes more than",
        with_cell("x = 1\ny = f'" + "{x}" * 500 + "'\nprint(y[:9])"),
    ),
    reading(
        "o101_thousands_of_functions",
        "to make the search for names take the square of the number of functions",
        "found in linear time",
        book(source("00-double", DEFINITIONS + RIGHT["double"])),
        FULL,
        make_twin=book(source("00-double", DEFINITIONS[:4000].rpartition("def ")[0] + RIGHT["double"])),
    ),
    reading(
        "o102_deep_and_long",
        "to break the reader by depth: chains, brackets, attributes, lambdas, decorators",
        "that cell fails; the others count",
        with_cell("x = 1\ny = " + "x+" * 9_000 + "x"),
        FULL,
        make_twin=with_cell("x = 1\ny = " + "x+" * 90 + "x"),
    ),
    reading(
        "o103_attributes",
        "the same by a chain of attributes and a tower of lambdas",
        "that cell fails; the others count",
        with_cell("a" + ".b" * 9_000 + "\nf = " + "lambda: " * 900 + "1"),
        FULL,
    ),
    reading(
        "o104_odd_characters",
        "the same by null bytes, half characters and a number of ten thousand digits",
        "that cell fails; the others count",
        with_cell("x = '\x00'\ny = '\ud800'\nz = " + "9" * 10_000),
        FULL,
    ),
    reading(
        "o105_dense_megabyte",
        "to make the reader need memory and time by a megabyte of statements",
        "graded, or unreadable with the limit",
        with_cell("x=1;" * 150_000),
        FULL,
    ),
    reading(
        "o106_failing_cells",
        "to drown notes and tables: 1,500 cells that fail, each with a name of forty letters",
        "a few notes, and no cell of a table beyond what spreadsheets read",
        book(many_failures),
        FULL,
        "and more cells did not end well",
    ),
    attack(
        "o110_id_after_cleaning",
        "to take a neighbour's id by a name that sorts first and is that id once it is cleaned",
        "the exact name keeps the id, both are told",
        named("=o20-neighbour.ipynb"),
        FULL,
        "claims the same id",
    ),
    attack(
        "o111_folder_of_a_neighbour",
        "to take a neighbour's id by a folder in capitals",
        "the exact name keeps the id, both are told",
        lambda folder, name: _folder(folder, "A15-NEIGHBOUR", name),
        FULL,
        "claims the same id",
        lambda folder, name: _folder(folder, "a15-neighbour-twin", name),
    ),
]


def _folder(folder, name: str, row: str):
    home = folder / name
    home.mkdir()
    (home / "lab.ipynb").write_text(tiny.notebook([*tiny.answered(**RIGHT), tiny.cell("mine", f"# {row}")]))
    return home
