"""A record that was edited, cut or damaged has a status that says so; nothing ends in a traceback."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

from segedu.cli import app
from segedu.grading.gradebook.policy import student_results
from segedu.grading.judging.record_form import MAX_RECORD, parse_record
from segedu.grading.judging.records import RecordStore

DEEP = "[" * 100_000 + "]" * 100_000


def run(out):
    result = CliRunner().invoke(app, ["gradebook", str(out)], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, " ".join(result.output.split())


def damaged(made, tmp_path, change):
    """Three records, of which `change(text)` has damaged bert's."""
    out = made.write(tmp_path, made.record("anna"), made.record("bert"), made.record("chris"))
    path = out / "00_tiny" / "records" / "bert.json"
    text = change(path.read_text())
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return out


def replaced(old: str, new: str):
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


def without(*path: str | int):
    def change(text: str) -> str:
        record = part = json.loads(text)
        for key in path[:-1]:
            part = part[key]
        del part[path[-1]]
        return json.dumps(record)

    return change


DAMAGES = {
    "points that are NaN": (replaced('"points": 3', '"points": NaN'), "holds NaN, which is not a number"),
    "points that are infinite": (replaced('"points": 3', '"points": Infinity'), "holds Infinity"),
    "points beyond floats": (replaced('"points": 3', '"points": 1e999'), "points of double is inf"),
    "points of many digits": (replaced('"points": 3', '"points": ' + "9" * 400), "points of double is 999"),
    "points of too many digits": (replaced('"points": 3', '"points": ' + "9" * 5000), "4300"),
    "negative points": (replaced('"points": 3', '"points": -3'), "points of double is -3"),
    "points that are true": (replaced('"points": 3', '"points": true'), "points of double is True"),
    "points that are text": (replaced('"points": 3', '"points": "3"'), "points of double is '3'"),
    "points above the maximum": (replaced('"points": 3', '"points": 4'), "more than its max, 3"),
    "deep JSON": (replaced('"points": 3', f'"points": {DEEP}'), "nested too deep"),
    "deep JSON in a note": (replaced('"notes": []', f'"notes": {DEEP}'), "nested too deep"),
    "a key twice": (replaced('"points": 3', '"points": 3, "points": 20'), "holds one key twice"),
    "an exercise twice": (replaced('"name": "total"', '"name": "double"'), "holds one exercise twice"),
    "a status that is a list": (replaced('"status": "graded"', '"status": []'), "status is []"),
    "notes that are text": (replaced('"notes": []', '"notes": "x"'), "notes of double is 'x'"),
    "groups of numbers": (replaced('"core": {', '"edge": 3, "core": {'), "groups of double"),
    "a misconception without a name": (replaced('"named": []', '"named": [{}]'), "named of double"),
    "a sandbox without a reason": (replaced('"reason": "namespaces"', '"x": 1'), "sandbox is"),
    "seconds that are none": (replaced('"seconds": 1.25', '"seconds": null'), "measured is"),
    "no exercises": (without("exercises"), "exercises is not a list"),
    "an exercise without points": (without("exercises", 0, "points"), "points of double is missing"),
    "no problem": (without("problem"), "problem is missing"),
    "no sandbox": (without("sandbox"), "sandbox is missing"),
    "a time that is a number": (replaced('"submitted": null', '"submitted": 5'), "submitted is 5"),
    "another version": (replaced('"version": 1', '"version": 7'), "its version is 7, expected 1"),
    "a list": (lambda text: "[1]", "it is not an object"),
    "nothing": (lambda text: "", "Expecting value"),
    "half of it": (lambda text: text[: len(text) // 2], "line"),
    "no UTF-8": (lambda text: b"\xff\xfe" + text.encode(), "utf-8"),
    "eight megabytes": (lambda text: " " * MAX_RECORD + text, "more than"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_record_is_a_status_of_one_student(made, tmp_path, name):
    change, why = DAMAGES[name]
    out = damaged(made, tmp_path, change)
    code, text = run(out)
    assert code == 0 and "3 students" in text and "failed" in text
    with (out / "00_tiny" / "grades.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert [rows[name]["points"] for name in ("anna", "bert", "chris")] == ["3", "0", "3"]
    assert rows["bert"]["status"] == "failed"
    assert "its record is damaged; grade it again (" in rows["bert"]["notes"] and why in rows["bert"]["notes"]
    assert why in RecordStore(out, "00_tiny").damage("bert") and RecordStore(out, "00_tiny").load("bert") is None


def test_an_honest_record_has_no_damage(made, tmp_path):
    record = made.record(
        "anna", (2.5, 0), submitted="2026-10-05T23:59:00+02:00", sandbox=None, trace="x", more={"a": [1]}
    )
    assert parse_record(json.dumps(record).encode()) == record
    out = made.write(tmp_path, record)
    assert RecordStore(out, "00_tiny").damage("anna") == "" and run(out)[0] == 0


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00", "x" * 99]
)
def test_a_time_that_no_calendar_has_is_not_known(made, tmp_path, time):
    policy = 'timezone = "Europe/Zurich"\n[late]\nafter = 0.5\n[labs.00_tiny]\ndue = 2026-10-05T12:00:00Z\n'
    out = made.write(tmp_path, made.record("anna", submitted=time), policy=policy)
    (one,) = student_results(out, "00_tiny")
    assert one.final == 3 and "no submission time is known" in one.late_explanation and run(out)[0] == 0


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"policy": f"x = {'[' * 5000}{']' * 5000}"}, "not TOML"),
        ({"policy": "[late]\nafter = nan\n"}, "after: it is nan"),
        ({"policy": "[labs.00_tiny]\ndue = 0001-01-01T00:00:00Z\n"}, "the year is 1; expected one from 1990"),
        ({"submitted": "student,attempt,submitted\nanna,1,9999-12-31T23:59:59-12:00\n"}, "the year is 9999"),
        ({"manual": "lab,student,exercise,points,comment\n00_tiny,anna,,nan,\n"}, "points is 'nan'"),
        ({"manual": "lab,student,exercise,points,comment\n00_tiny,anna,,1e9,\n"}, "points is '1e9'"),
        ({"manual": f"lab,student,exercise,points,comment\n00_tiny,anna,,1,{'x' * 200_000}\n"}, "not CSV"),
    ],
)
def test_a_wrong_file_of_the_instructor_is_named(made, tmp_path, files, words):
    code, text = run(made.write(tmp_path, made.record("anna"), **files))
    assert code == 2 and words in text and "Traceback" not in text


def test_what_is_asked_may_be_damaged_too(made, tmp_path):
    out = made.write(tmp_path, made.record("anna"))
    (out / "00_tiny" / "asked.json").write_text(DEEP)
    assert run(out)[0] == 0
