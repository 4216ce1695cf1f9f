"""Exports: what Canvas and Moodle get back is their own file but for the cells that are filled; no cell is a formula."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET

import pytest
from typer.testing import CliRunner

from segedu.cli import app
from segedu.grading.gradebook.bookkeeping import rebuild
from segedu.grading.gradebook.canvas import fill_canvas
from segedu.grading.gradebook.csv_cells import CsvLines
from segedu.grading.gradebook.moodle import fill_moodle
from segedu.grading.gradebook.policy import LabBook, read_instructor_files
from segedu.grading.gradebook.similarity import export_answers

ROSTER = """student,name,email,section,alias,canvas_id,moodle_id
anna,"Ångström, Anna",anna@uni.example,A,,77,4711
bert,Bert,bert@uni.example,B,,78,4712
zoe,Zoe,,B,,79,4713
"""
# quotes that need not be there, a comma in a name, an excused student, an empty line, both kinds of line ends
CANVAS = (
    "\ufeffStudent,ID,SIS User ID,SIS Login ID,Section,Lab 1 (11),Lab 0 (10),Final Score\r\n"
    ",,,,,,Manual Posting,\r\n"
    '"    Points Possible",,,,,10,10.0,(read only)\r\n'
    '"Ångström, Anna",77,,,"A and ""B""",=9,,55.5\r\n'
    "Bert, 78 ,,,B,9,EX,\n"
    "Zoe,79,,,B,9,7,\r\n"
    '"Mallory","1000",mallory,mallory@uni.example,,"9","1",\r\n'
    "Ghost,999,ghost,,,9,2,\r\n"
    "\r\n"
    '"Student, Test",80,,,B,,,'
)
MOODLE = (
    "Identifier,Full name,Email address,Status,Grade,Maximum Grade,Grade can be changed,"
    "Last modified (submission),Last modified (grade),Feedback comments\n"
    'Participant 4711,"Ångström, Anna",anna@uni.example,"Submitted for grading",,6.00,Yes,"Monday, 5 October 2026","-",\n'
    'Participant 4712,Bert,bert@uni.example,Submitted,"1.00",6.00,No,-,-,"kept,\nas it was"\n'
    'Participant 4713,Zoe,zoe@uni.example,"No submission",5.00,6.00,Yes,-,-,\n'
    'Participant 900,M,mallory@x.example,Submitted,"2.00",6.00,Yes,-,-,"mine stays"\n'
    "Participant 901,G,ghost@x.example,Submitted,,6.00,Yes,-,-,\n"
)


@pytest.fixture
def out(made, tmp_path):
    records = [made.record(points=(3, 2.5)), made.record("bert"), made.record("mallory", (1, 1))]
    manual = 'lab,student,exercise,points,comment\n00_tiny,anna,total,+0.25,"=well, done"\n'
    return made.write(tmp_path, *records, roster=ROSTER, manual=manual)


def book_of(out):
    return LabBook(read_instructor_files(out), "00_tiny")


def rows_of(path):
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))


def test_canvas_gets_its_own_file_back_but_for_our_cells(out, tmp_path):
    export = tmp_path / "export.csv"
    export.write_bytes(CANVAS.encode())
    filled = fill_canvas(export, [book_of(out)], out / "canvas-filled.csv")
    after = filled.path.read_bytes().decode()
    assert after == CANVAS.replace("=9,,55.5", "=9,5.75,55.5").replace('"9","1"', '"9","2"')
    assert filled.cells == 2 and filled.unknown == ["999"] and filled.missing == []
    assert filled.remarks == ["00_tiny has 6 points, its column in Canvas 10.0: points are not rescaled"]


def test_canvas_column_by_title_or_by_policy(out, made, tmp_path):
    export = tmp_path / "export.csv"

    def column(*titles, policy=""):
        made.write(out, policy=policy)
        export.write_text(
            f"Student,ID,SIS User ID,SIS Login ID,Section,{','.join(titles)}\nA,77,,,{',' * len(titles)}\n"
        )
        after = rows_of(fill_canvas(export, [book_of(out)], out / "c.csv").path)
        return dict(zip(after[0], after[1], strict=True))

    for title in ("Lab 0 (10)", "LAB 00: tiny (3)", "00_tiny", "lab-0", "Homework 00_tiny"):
        assert column("Lab 10 (1)", title, "Lab 1 (2)")[title] == "5.75", title
    assert column("Homework (7)", "X", policy='[labs.00_tiny]\ncanvas = "homework"\n')["Homework (7)"] == "5.75"
    with pytest.raises(ValueError, match="'Lab 0 a' and 'Lab 00 b' may be lab 00_tiny; name its column in policy.toml"):
        column("Lab 0 a", "Lab 00 b")
    with pytest.raises(ValueError, match=r"no column of 00_tiny; it has Lab 10 \(1\), X; expected `Lab 4 \(12345\)`"):
        column("Lab 10 (1)", "X")


def test_canvas_knows_students_by_login_too_and_semicolons(made, tmp_path):
    out = made.write(tmp_path, made.record("anna"), made.record("b.ert"))
    export = tmp_path / "export.csv"
    export.write_text("Student;ID;SIS User ID;SIS Login ID;Section;Lab 0\nA;1;Anna;x;;\nB;2;;b.ert;;\n")
    filled = fill_canvas(export, [book_of(out)], out / "c.csv")
    assert filled.path.read_text() == export.read_text().replace("x;;\n", "x;;3\n").replace("b.ert;;\n", "b.ert;;3\n")


def test_moodle_gets_its_own_file_back_but_for_our_cells(out, tmp_path):
    worksheet = tmp_path / "worksheet.csv"
    worksheet.write_bytes(MOODLE.encode())
    filled = fill_moodle(worksheet, book_of(out), out / "00_tiny" / "moodle-filled.csv")
    after = filled.path.read_bytes().decode()
    comment = '"5.5 of 6 from the autograder; manual change: total +0.25 =well, done. 5.75 points."'
    ours = {
        '"Submitted for grading",,6.00': '"Submitted for grading",5.75,6.00',
        '2026","-",\n': f'2026","-",{comment}\n',
    }
    expected = MOODLE
    for old, new in ours.items():
        assert expected.count(old) == 1
        expected = expected.replace(old, new)
    assert after == expected
    assert (
        filled.cells == 1 and filled.unknown == ["Participant 900", "Participant 901"] and filled.missing == ["mallory"]
    )
    assert filled.remarks == ["Moodle does not allow changes of the grade of bert"]


def test_moodle_finds_work_by_the_number_in_its_name_and_keeps_comments(made, tmp_path):
    out = made.write(tmp_path, made.record("M_M_900_assignsubmission_file"))
    worksheet = tmp_path / "worksheet.csv"
    worksheet.write_text(MOODLE)
    filled = fill_moodle(worksheet, book_of(out), out / "m.csv")
    assert filled.path.read_text() == MOODLE.replace('"2.00",6.00,Yes', '"3.00",6.00,Yes')
    assert filled.cells == 1 and filled.missing == []
    worksheet.write_text(MOODLE.replace("6.00", "100.00"))
    assert fill_moodle(worksheet, book_of(out), out / "m.csv").remarks == [
        "00_tiny has 6 points, in Moodle 100.00: points are not rescaled"
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "line 1: the columns are nothing; expected those of Canvas, among them Student, ID"),
        (b"Name,Points\n", "the columns are Name, Points"),
        (b"Student,ID,\xff\n", "byte 11 is not UTF-8"),
        (b'Student,ID,Lab 0\nA,1,x"y\n', "line 2: a quote stands inside a cell"),
        (b'Student,ID,Lab 0\nA,1,"x\n', "line 2: a quote stands inside a cell"),
    ],
)
def test_a_table_that_is_not_theirs(out, tmp_path, content, message):
    export = tmp_path / "export.csv"
    if content is not None:
        export.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        fill_canvas(export, [book_of(out)], out / "c.csv")
    assert str(export) in str(error.value) and not (out / "c.csv").exists()


@pytest.mark.parametrize(
    "text",
    ["a,b\n", "a,b", "a,\n", "a,", "\ufeffa,b\r\n\r\n1,\r\n", '"a\nb","c""d"\r1,2', "a;b;c\n1;2;\n", "a\tb\n\t\n"],
)
def test_rows_are_written_as_they_were_read(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    table = CsvLines(path, [], "a table")
    with table.written(tmp_path / "b.csv") as write:
        for cells, end in table.rows():
            write(cells, end)
    assert (tmp_path / "b.csv").read_bytes() == path.read_bytes()


def test_fresh_tables_for_canvas_and_moodle(out):
    rebuild(out)
    canvas = rows_of(out / "00_tiny" / "canvas.csv")
    assert canvas[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "00_tiny"]
    assert canvas[1] == ["    Points Possible", "", "", "", "", "6"]
    assert canvas[2] == ["Ångström, Anna", "77", "anna", "anna@uni.example", "A", "5.75"]
    assert canvas[4:] == [["mallory", "", "mallory", "mallory", "", "2"], ["Zoe", "79", "zoe", "zoe", "B", ""]]
    moodle = rows_of(out / "00_tiny" / "moodle.csv")
    assert moodle[1][:7] == ["Participant 4711", "Ångström, Anna", "anna@uni.example", "Submitted for grading", "5.75",
                             "6.00", "Yes"]  # fmt: skip
    assert moodle[4][3:5] == ["No submission", ""]
    # what is made here can be filled like a table of theirs
    filled = fill_canvas(out / "00_tiny" / "canvas.csv", [book_of(out)], out / "again.csv")
    assert filled.path.read_bytes() == (out / "00_tiny" / "canvas.csv").read_bytes() and filled.cells == 3


def test_one_row_an_exercise(out):
    rebuild(out)
    rows = rows_of(out / "00_tiny" / "exercises.csv")
    assert rows[:3] == [
        ["student", "lab", "exercise", "points", "max", "status", "misconceptions"],
        ["anna", "00_tiny", "double", "3", "3", "passed", ""],
        ["anna", "00_tiny", "total", "2.75", "3", "partly", "adds two"],
    ]
    assert len(rows) == 1 + 2 * 4 and rows[-1] == ["zoe", "00_tiny", "total", "0", "3", "nothing handed in", ""]


def test_hostile_names_are_text_in_every_table(made, tmp_path):
    evil = '=HYPERLINK("http://x")<script>'
    roster = f'student,name,email,section\nanna,"{evil.replace(chr(34), chr(34) * 2)}",@x,+1\n'
    manual = "lab,student,exercise,points,comment\n00_tiny,anna,total,+1,=cmd|'/c calc'!A0\n"
    out = made.write(tmp_path, made.record(), made.record("-2+3", notes=["=1;+2"]), roster=roster, manual=manual)
    rebuild(out)
    cells = 0
    for path in [*out.glob("00_tiny/*.csv"), out / "totals.csv"]:
        for cell in (cell for row in rows_of(path) for cell in row):
            cells += 1
            assert not re.match(r"[=@\t\r]|[+-](?![\d.]+$)", cell), (path.name, cell)
    assert cells > 100 and any(evil in cell for row in rows_of(out / "00_tiny" / "grades.csv") for cell in row)
    names = {suite.get("name") for suite in ET.parse(out / "00_tiny" / "junit.xml").getroot()}
    assert names == {"anna", "-2+3"}


@pytest.fixture
def submissions(tiny, tmp_path):
    folder = tmp_path / "subs"
    (folder / "bert").mkdir(parents=True)
    answers = {"double": "# NBVAL_SKIP\ndef double(x):\n    return x + 2", "total": "def total(v):\n    return sum(v)"}
    (folder / "anna.ipynb").write_text(tiny.notebook(tiny.answered(**answers)))
    moved = [one for one in tiny.answered(**answers) if one["id"] != "00-total"]
    moved.append(tiny.cell("new", "secret = 7\n\ndef total(v):\n    return 0"))
    (folder / "bert" / "attempt-1.ipynb").write_text(tiny.notebook(moved))
    (folder / "bert" / "attempt-2.ipynb").write_text("{")
    (folder / "chris.ipynb").write_text(tiny.notebook(tiny.lab_cells()))
    return folder


def test_answers_alone_for_similarity_tools(course, submissions, made, tmp_path):
    out = made.write(tmp_path, made.record())
    folder, some, none = export_answers(out, "00_tiny", submissions, course)
    files = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.py")}
    template = {f"template/{name}.py" for name in ("double", "total", "box_area")}
    students = {f"students/{name}.py" for name in ("anna/double", "anna/total", "bert/double", "bert/total")}
    assert set(files) == template | students and (some, none) == (2, 1)
    assert files["students/anna/double.py"] == "#\ndef double(x):\n    return x + 2\n"
    assert (
        files["students/bert/total.py"].endswith("return 0\n") and "NotImplementedError" in files["template/total.py"]
    )
    (folder / "students" / "chris").mkdir()
    (folder / "students" / "anna" / "result.csv").write_text("an instructor's")
    (submissions / "anna.ipynb").unlink()
    export_answers(out, "00_tiny", submissions, course)
    kept = sorted(path.relative_to(folder / "students").as_posix() for path in (folder / "students").rglob("*"))
    assert "anna/result.csv" in kept and "chris" not in kept and "bert/double.py" in kept


def test_the_command_fills_and_lays_out(course, submissions, out, tmp_path, made):
    (tmp_path / "canvas export.csv").write_bytes(CANVAS.encode())
    (tmp_path / "moodle.csv").write_text(MOODLE)

    def run(*words):
        result = CliRunner().invoke(app, ["gradebook", *map(str, words)], env={"COLUMNS": "160", "TERM": "dumb"})
        return result.exit_code, " ".join(result.output.split())

    options = ("--canvas", tmp_path / "canvas export.csv", "--moodle", tmp_path / "moodle.csv")
    code, text = run(out, *options, "--similarity", submissions, "--course", course)
    assert code == 0 and "canvas-filled.csv: 2 cells filled. In the table, but not in the gradebook: 999." in text
    assert "moodle-filled.csv: 1 cells filled." in text and "In the gradebook, but not in the table: mallory." in text
    assert "Exported the answers of 2 students for similarity tools; 1 have none." in text
    assert (out / "canvas-filled.csv").is_file() and (out / "00_tiny" / "moodle-filled.csv").is_file()
    made.write(out, made.record(lab="01_more"))
    code, text = run(out, "--moodle", tmp_path / "moodle.csv")
    assert code == 2 and "--moodle works for one lab; give --lab, one of 00_tiny, 01_more" in text
    code, text = run(out, "--canvas", tmp_path / "canvas export.csv")
    assert code == 0 and "canvas-filled.csv: 3 cells filled" in text  # Lab 1's column as well
