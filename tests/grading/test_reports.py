"""Reports: what a student wrote is never markup, never a formula, and nothing hidden gets out."""

from __future__ import annotations

import csv
import io
import re
import sqlite3
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from segedu.grading import reports
from segedu.grading.batch import Batch
from segedu.grading.feedback import feedback_page
from segedu.grading.records import VERSION, RecordStore

EVIL = "<script>alert(1)</script>\x00\x0b&\"'"


def exercise(name="double", points=0, **more):
    wrong = {"name": "adds two", "message": "You add 2.", "hint": "Try 5."}
    basics = {"groups": {"core": {"passed": 1, "total": 3, "points": 0, "max": 3}}, "named": [wrong]}
    basics |= {
        "first_line": "You add 2.",
        "hint": "Try 5.",
        "notes": [],
        "tampered": False,
        "error": "ValueError: secret",
    }
    return {"name": name, "max": 3, "points": points, "status": "passed" if points == 3 else "wrong", **basics, **more}


def record(student="anna", **more):
    exercises = [exercise(points=3, first_line="", hint="", named=[]), exercise("total")]
    basics = {
        "version": VERSION,
        "key": "k",
        "tool": "t",
        "lab": "00_tiny",
        "status": "graded",
        "problem": "",
        "notes": [],
    }
    basics |= {"points": 3, "max_points": 6, "exercises": exercises, "source": "a.ipynb"}
    sandbox = {"level": 3, "reason": "namespaces"}
    return {"student": student, **basics, "sandbox": sandbox, "measured": {"seconds": 1.25}, **more}


@pytest.fixture
def batch():
    evil = record(
        "=evil",
        notes=[EVIL],
        exercises=[exercise(notes=[EVIL], first_line=EVIL, hint=EVIL), exercise("total")],
        points=0,
    )
    bad = record("broken", status="unreadable", problem=EVIL, points=0, sandbox=None)
    return Batch("00_tiny", [record(), bad, evil], graded=2, kept=1, left_out=["x.csv"], seconds=3.21)


def test_the_table_of_grades(batch):
    rows = list(csv.reader(io.StringIO(reports.grades_csv(batch.records))))
    header = ["student", "status", "points", "max_points", "double", "total", "sandbox_level", "notes"]
    assert rows[0] == header
    assert rows[1] == ["anna", "graded", "3", "6", "3", "0", "3", ""]
    assert rows[2][1] == "unreadable"
    assert rows[3][0] == "'=evil"
    assert reports.grades_csv([]).startswith("student,status")


def test_junit_is_xml_whatever_the_notes_hold(batch):
    root = ET.fromstring(reports.junit(batch))
    suites = root.findall("testsuite")
    assert [(s.get("name"), s.get("failures"), s.get("errors")) for s in suites] == [
        ("anna", "1", "0"),
        ("broken", "0", "2"),
        ("=evil", "2", "0"),
    ]
    assert suites[0][1].find("failure").get("message") == "0 of 3: You add 2."
    assert "<script>" in suites[2][0].find("failure").text


class Tags(HTMLParser):
    """Collects tags and attributes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_feedback_holds_no_markup_of_the_student_and_no_secret(batch):
    for one in batch.records:
        page = feedback_page(one)
        tags = Tags()
        tags.feed(page)
        names = {tag for tag, _ in tags.seen}
        assert names <= {
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "main",
            "h1",
            "h2",
            "p",
            "section",
            "ul",
            "li",
            "strong",
            "code",
        }
        assert not any(key.startswith("on") or key in ("src", "href") for _, attrs in tags.seen for key in attrs)
        assert "secret" not in page and "default-src 'none'" in page
        assert ("html", {"lang": "en"}) in tags.seen
    one = batch.records[0]
    one["exercises"][1]["hint"] = "Try 5. Look at `<up>`."
    page = feedback_page(one)
    assert "<code>&lt;up&gt;</code>" in page
    assert "3 of 6 points" in page and "You add 2." in page and "Hint: Try 5." in page and "core 1 of 3" in page


def test_reports_are_written_and_made_again_from_records(batch, tmp_path):
    store = RecordStore(tmp_path, "00_tiny")
    for one in batch.records:
        store.write(one)
    written = reports.write_reports(batch, tmp_path)
    first = {path: path.read_bytes() for path in written if path.is_file() and path.suffix != ".sqlite"}
    assert (tmp_path / "00_tiny" / "feedback" / "anna.html").is_file()
    assert reports.write_reports(batch, tmp_path) == written
    assert {path: path.read_bytes() for path in first} == first
    book = sqlite3.connect(tmp_path / "gradebook.sqlite")
    assert book.execute("select student, points, max_points from totals order by 1").fetchall() == [
        ("=evil", 0.0, 6.0),
        ("anna", 3.0, 6.0),
        ("broken", 0.0, 6.0),
    ]
    assert book.execute("select misconceptions from exercises where student='anna' and points=0").fetchall() == [
        ("adds two",)
    ]
    assert book.execute("select count(*) from notes").fetchone() == (2,)


def test_the_summary_says_time_level_and_what_needs_a_look(batch):
    text = "\n".join(reports.summary(batch))
    assert "2 graded now, 1 had their record already; 3.2 s for the batch." in text
    assert "Sandbox level 3: namespaces." in text and "x.csv" in text and "WARNING" not in text
    batch.records[0]["sandbox"]["level"] = 1
    batch.records[0]["exercises"][0]["tampered"] = True
    batch.records[1]["status"] = "failed"
    text = "\n".join(reports.summary(batch))
    assert "WARNING: below level 2" in text and "Tampering was seen in: anna." in text and "run again): broken" in text


def test_the_terminal_table_shows_names_as_text(batch):
    from rich.console import Console

    batch.records[0]["student"] = "[red]anna[/red]"
    console = Console(file=io.StringIO(), width=120)
    console.print(reports.table(batch))
    text = console.file.getvalue()
    assert "2 notes" in text and "bad file" in text
    assert "[red]anna[/red]" in text and re.search(r"3/6\s", text)
    console.print(reports.table(Batch("00_tiny")))


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
    ],
)
def test_differences_from_what_is_expected(row, difference):
    records = [record()] if row["student"] != "=evil" else [record("=evil", points=0, notes=[" "])]
    found = reports.expected_differences(Batch("00_tiny", records), [row])
    assert (difference in found) if difference else found == []
