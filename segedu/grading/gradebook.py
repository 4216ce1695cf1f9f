"""The gradebook: a small SQLite file made anew from the records, for queries. It holds no truth of its own."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from segedu.grading.records import RecordStore

_TABLES = """
create table submissions (lab text, student text, status text, points real, max_points real, source text, tool text,
                          sandbox_level integer, seconds real, primary key (lab, student));
create table exercises (lab text, student text, exercise text, points real, max_points real, status text,
                        misconceptions text, primary key (lab, student, exercise));
create table notes (lab text, student text, exercise text, note text);
create view totals as select student, sum(points) as points, sum(max_points) as max_points
                      from submissions group by student;
"""


def write_gradebook(out: Path) -> Path:
    """Rebuild `gradebook.sqlite` from the records of all labs in an output folder.

    Args:
        out: the instructor's `--out`.

    Returns:
        The file.
    """
    path, part = out / "gradebook.sqlite", out / ".gradebook.sqlite.part"
    part.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(part)) as book:
        book.executescript(_TABLES)
        for folder in sorted(out.glob("*/records")):
            for record in RecordStore(out, folder.parent.name).everything():
                _insert(book, record)
        book.commit()
    os.replace(part, path)
    return path


def _insert(book: sqlite3.Connection, record: dict) -> None:
    who = (record["lab"], record["student"])
    sandbox = record["sandbox"] or {"level": None}
    rest = (record["source"], record["tool"], sandbox["level"], record["measured"]["seconds"])
    book.execute(
        "insert into submissions values (?,?,?,?,?,?,?,?,?)",
        (*who, record["status"], record["points"], record["max_points"], *rest),
    )
    book.executemany("insert into notes values (?,?,'',?)", [(*who, note) for note in record["notes"]])
    for exercise in record["exercises"]:
        named = "; ".join(wrong["name"] for wrong in exercise["named"])
        row = (exercise["name"], exercise["points"], exercise["max"], exercise["status"], named)
        book.execute("insert into exercises values (?,?,?,?,?,?,?)", (*who, *row))
        notes = [(*who, exercise["name"], note) for note in exercise["notes"]]
        book.executemany("insert into notes values (?,?,?,?)", notes)
