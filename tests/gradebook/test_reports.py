"""Reports of a run: what a student wrote is never markup, never a formula, and derived files change only with their bytes."""

from __future__ import annotations

import csv
import io
import os
import re
import sqlite3
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console
from typer.testing import CliRunner

from segedu.cli import app
from segedu.grading.batch import reports
from segedu.grading.batch.batch import Batch
from segedu.grading.gradebook import bookkeeping
from segedu.grading.gradebook.atomic_files import CsvRows, as_text, derived_text, points_text, write_derived
from segedu.grading.gradebook.policy import LabBook, read_instructor_files


@pytest.fixture
def batch(made):
    evil = made.record(
        "=evil",
        notes=[made.EVIL],
        exercises=[made.exercise(notes=[made.EVIL], first_line=made.EVIL, hint=made.EVIL), made.exercise("total")],
    )
    bad = made.record("broken", (0, 0), status="unreadable", problem=made.EVIL, sandbox=None)
    return Batch("00_tiny", [made.record(), bad, evil], graded=2, kept=1, ignored_files=["x.csv"], seconds=3.21)


@pytest.fixture
def out(batch, made, tmp_path):
    return made.write(tmp_path, *batch.records)


def rows_of(path):
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))))


def test_the_table_of_grades(batch, out):
    reports.write_reports(batch, out)
    rows = rows_of(out / "00_tiny" / "grades.csv")
    header = ["student", "status", "points", "max_points", "double", "total", "sandbox_level", "notes"]
    assert rows[0][:8] == header
    more = ["raw_points", "late_hours", "factor", "late", "manual_points", "final", "attempt", "attempts"]
    assert rows[0][8:] == [*more, "name", "email", "section", "flags"]
    anna = ["anna", "graded", "3", "6", "3", "0", "3", "", "3", "", "1", "", "0", "3", "1", "1", "", "", "", ""]
    assert rows[2] == anna
    assert rows[3][:2] == ["broken", "unreadable"] and rows[3][-1] == "unreadable"
    assert rows[1][0] == "'=evil" and len(rows) == 4


def test_junit_is_xml_whatever_the_notes_hold(batch, out):
    reports.write_reports(batch, out)
    root = ET.parse(out / "00_tiny" / "junit.xml").getroot()
    suites = root.findall("testsuite")
    assert [(s.get("name"), s.get("failures"), s.get("errors")) for s in suites] == [
        ("=evil", "2", "0"),
        ("anna", "1", "0"),
        ("broken", "0", "2"),
    ]
    assert suites[1][1].find("failure").get("message") == "0 of 3: You add 2."
    assert "<script>" in suites[0][0].find("failure").text


def test_reports_are_written_and_made_again_from_records(batch, out):
    written = reports.write_reports(batch, out)
    files = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".sqlite"]
    first = {path: (path.read_bytes(), path.stat().st_ino) for path in files}
    names = ("grades.csv", "exercises.csv", "canvas.csv", "moodle.csv", "junit.xml", "feedback", "index.html")
    assert {out / "00_tiny" / name for name in names} <= set(written)
    assert (out / "00_tiny" / "feedback" / "anna.html").is_file() and (out / "index.html") in written
    assert reports.write_reports(batch, out) == written
    assert {path: (path.read_bytes(), path.stat().st_ino) for path in first} == first  # not even touched
    assert not list(out.rglob("*.part"))


def test_the_gradebook_holds_what_counts_and_where_it_comes_from(batch, out, made):
    made.write(
        out,
        made.record("anna", submitted="2026-10-05T12:00:00+02:00"),
        made.record("anna", (3, 3), attempt=2, submitted="2026-10-05T23:59:00+02:00"),
        roster="student,name,alias\nanna,Anna,a.a\nzoe,Zoe,\n",
        manual="lab,student,exercise,points,comment\n00_tiny,anna,total,+1,good\n",
        policy="[late]\nafter = 0.5\n[labs.00_tiny]\ndue = 2026-10-05T12:00:00Z\n",
    )
    reports.write_reports(batch, out)
    book = sqlite3.connect(out / "gradebook.sqlite")

    def ask(query):
        return book.execute(query).fetchall()

    assert ask("select * from totals order by 1") == [
        ("=evil", 0.0, 6.0), ("anna", 4.0, 6.0), ("broken", 0.0, 6.0), ("zoe", 0.0, 6.0)]  # fmt: skip
    columns = "attempt, attempts, raw_points, late_hours, factor, late, manual_points, final_points, flags"
    assert ask(f"select {columns} from standings where student='anna'") == [
        (1, 2, 3.0, 0.0, 1.0, "", 1.0, 4.0, "manual change")]  # fmt: skip
    assert ask("select status, attempt, late_hours from standings where student='zoe'") == [
        ("nothing handed in", None, None)]  # fmt: skip
    assert ask("select exercise, points, comment from manual") == [("total", "+1", "good")]
    assert ask("select student, name, alias from roster order by 1") == [
        ("anna", "Anna", "a.a"), ("zoe", "Zoe", "")]  # fmt: skip
    assert ask("select attempt, points, submitted from submissions where student='anna' order by 1") == [
        (1, 3.0, "2026-10-05T12:00:00+02:00"), (2, 6.0, "2026-10-05T23:59:00+02:00")]  # fmt: skip
    assert ask("select misconceptions from exercises where student='anna' and points=0") == [("adds two",)]
    assert ask("select count(*) from notes") == [(2,)]
    assert rows_of(out / "totals.csv") == [
        ["student", "00_tiny", "points", "max_points"], ["'=evil", "0", "0", "6"], ["anna", "4", "4", "6"],
        ["broken", "0", "0", "6"], ["zoe", "0", "0", "6"]]  # fmt: skip


def test_half_characters_in_a_record_stop_nothing(made, tmp_path):
    path = made.write(tmp_path, made.record()) / "00_tiny" / "records" / "anna.json"
    path.write_text(path.read_text().replace('"You add 2."', '"half \\ud800"'))
    bookkeeping.rebuild(tmp_path)
    assert "<strong>half  </strong>" in (tmp_path / "00_tiny" / "feedback" / "anna.html").read_text()


def test_an_error_leaves_everything_as_it_was(batch, out, made):
    reports.write_reports(batch, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    made.write(out, manual="lab,student,exercise,points,comment\n00_tiny,nobody,,1,\n")
    before[out / "manual.csv"] = (out / "manual.csv").stat().st_mtime_ns
    with pytest.raises(ValueError, match="line 2: 'nobody'.*All records are kept: .* run `segedu gradebook"):
        reports.write_reports(batch, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_pages_of_students_who_are_gone_go_too(batch, out):
    reports.write_reports(batch, out)
    (out / "00_tiny" / "records" / "anna.json").unlink()
    reports.write_reports(batch, out)
    assert sorted(path.name for path in (out / "00_tiny" / "feedback").iterdir()) == ["=evil.html", "broken.html"]


def test_a_derived_file_is_touched_only_where_its_bytes_change(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.html"
    monkeypatch.setattr(os, "fsync", lambda fd: pytest.fail("a derived file needs no flush"))
    assert write_derived(path, b"one") and not write_derived(path, b"one") and write_derived(path, b"two")
    inode = path.stat().st_ino
    with derived_text(path) as file:
        file.write("two")
    assert path.stat().st_ino == inode
    with pytest.raises(RuntimeError), derived_text(path) as file:
        file.write("three")
        raise RuntimeError
    assert path.read_bytes() == b"two" and os.listdir(path.parent) == ["a.html"]


@pytest.mark.parametrize(
    "value",
    [
        "=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "  =1", "\uff1d1", "a; =1", "a;+1", "x;\n=1", 'a;"=1+1;', '"=1', 'a;""" =1;',
        'a;";"=1', "a\n=1", 'a\t"=1', "a;\uff1d1",
    ],
)  # fmt: skip
def test_no_cell_is_a_formula(value):
    text = as_text(value)
    assert not re.search(r"(^|;)\s*[=+@\-\uff1d]", text) and text.replace("'", "") == value
    file = io.StringIO()
    CsvRows(file, ["student", "notes"]).add(["anna", value])
    for comma in ",;\t":
        cells = [cell for row in csv.reader(file.getvalue().splitlines(), delimiter=comma) for cell in row]
        assert not [cell for cell in cells if cell.lstrip()[:1] in tuple("=+-@\uff1d")]
    assert as_text(-0.5) == "-0.5" and as_text("a-b") == "a-b"


def test_numbers_as_they_are_shown():
    assert [points_text(x) for x in (3.0, 2.5, 0.1 + 0.2, 1.005, -0.001, 1e-9, 100)] == [
        "3", "2.5", "0.3", "1.01", "0", "0", "100"]  # fmt: skip


def test_the_summary_says_time_level_and_what_needs_a_look(batch):
    text = "\n".join(reports.summary(batch))
    assert "2 graded now, 1 had a record already; 3.2 s for the batch." in text
    assert "Sandbox level 3: namespaces." in text and "x.csv" in text and "WARNING" not in text
    batch.records[0]["sandbox"]["level"] = 1
    batch.records[0]["exercises"][0]["tampered"] = True
    batch.records[1]["status"] = "failed"
    text = "\n".join(reports.summary(batch))
    assert (
        "WARNING: below level 2" in text
        and "Tampering was detected in: anna." in text
        and "(run it again): broken" in text
    )
    batch.records = [batch.records[0] | {"student": f"s{i}"} for i in range(30)]
    assert "s18, s19 and 10 more." in "\n".join(reports.summary(batch))


def shown(table):
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue()


def test_the_terminal_table_shows_names_as_text_and_fifty_rows_at_most(batch, made):
    batch.records[0]["student"] = "[red]anna[/red]"
    text = shown(reports.table(batch))
    assert "2 notes" in text and "bad file" in text
    assert "[red]anna[/red]" in text and re.search(r"3/6\s", text) and "more" not in text
    shown(reports.table(Batch("00_tiny", [])))
    many = Batch("00_tiny", [made.record(f"s{i:03d}") for i in range(500)])
    text = shown(reports.table(many))
    assert "500 submissions" in text and "s049" in text and "s050" not in text and "and 450 more: see" in text


def test_segedu_gradebook_from_the_outside(made, tmp_path):
    evil = "[red]=cmd()[/red]"
    records = [made.record(f"s{i:03d}", submitted="2026-10-06T10:00:00Z") for i in range(60)]
    out = made.write(
        tmp_path, *records, roster=f"student,name\ns000,{evil}\n",
        policy="[late]\nafter = 0.5\n[labs.00_tiny]\ndue = 2026-10-05T12:00:00Z\n",
    )  # fmt: skip

    def run(*words):
        result = CliRunner().invoke(app, ["gradebook", *map(str, words)], env={"COLUMNS": "160", "TERM": "dumb"})
        return result.exit_code, " ".join(result.output.split())

    code, text = run(out)
    assert code == 0 and "60 students" in text and "and 10 more: see" in text and "grades.csv" in text
    assert re.search(r"s000 1.5 3 22 h late: x 0.5 late ", text) and "not on roster" in text and "s055" not in text
    assert (out / "gradebook.sqlite").is_file() and not (out / "canvas-filled.csv").exists()
    assert run(out, "--lab", "09_no")[1].startswith("--lab is 09_no, which")
    code, text = run(tmp_path / "nowhere")
    assert code == 2 and "which has no records; give the --out of `segedu grade`" in text
    made.write(out, policy="[labs.00_tiny]\ndue = 2026-10-05T12:00:00\n")
    code, text = run(out)
    assert code == 2 and "the time has no zone" in text and "Traceback" not in text
    assert LabBook(read_instructor_files(made.write(out, policy="")), "00_tiny").remarks == [
        "policy.toml has no due time for 00_tiny: nothing is late"]  # fmt: skip


def test_one_lab_is_written_and_all_are_counted(made, tmp_path):
    out = made.write(tmp_path, made.record(), made.record(lab="01_more"))
    written = bookkeeping.rebuild(out, ["01_more"])
    assert (out / "01_more" / "grades.csv") in written and not (out / "00_tiny" / "grades.csv").exists()
    assert rows_of(out / "totals.csv")[1] == ["anna", "3", "3", "6", "12"]
    bookkeeping.rebuild(out)
    assert (out / "00_tiny" / "grades.csv").is_file()


@pytest.mark.parametrize(
    ("row", "difference"),
    [
        ({"student": "anna", "points": "3"}, None),
        ({"student": "anna", "points": "3", "total": "0", "status": "graded", "note": ""}, None),
        ({"student": "anna", "points": "3", "note": "none"}, None),
        ({"student": "=evil", "points": "0", "note": "none"}, "=evil: there must be no note; the notes are [' ']"),
        ({"student": "anna", "points": "4"}, "anna: points is 3, expected 4"),
        ({"student": "anna", "points": "3", "total": "1"}, "anna: total is 0, expected 1"),
        ({"student": "anna", "points": "3", "note": "tampering"}, "anna: no note says 'tampering'; the notes are []"),
        ({"student": "bert", "points": "3"}, "bert is expected, but has no record"),
        ({"student": "bert", "points": "3"}, "anna has a record, but is not expected"),
    ],
)
def test_differences_from_what_is_expected(made, row, difference):
    records = [made.record()] if row["student"] != "=evil" else [made.record("=evil", (0, 0), notes=[" "])]
    found = reports.expected_differences(Batch("00_tiny", records), [row])
    assert (difference in found) if difference else found == []
