"""Attacks on a class as a whole: what lies in the folder of submissions, and what each student is then said to have.

Each is a small folder of its own, graded, and then counted by the gradebook as an instructor would; its honest twin is
a folder that looks like it. What is compared is who has how many points in the end, and who is late.
"""

from __future__ import annotations

import csv
import tempfile
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tiny
from attack import FULL, RIGHT

from segedu.grading.batch.batch import Job, grade_batch
from segedu.grading.batch.grader_threads import pool_of_threads
from segedu.grading.batch.reports import write_reports
from segedu.grading.gradebook.policy import labs_of, student_results
from segedu.grading.judging.records import RecordStore
from segedu.grading.sandbox.isolation_levels import IsolationLevel
from segedu.grading.submissions.find_submissions import student_id

TIME = "2026-10-01 12:00:00.000000 UTC\n"
LATE = "[late]\nafter = 0.5\n[labs.00_tiny]\ndue = 2026-10-02T12:00:00Z\n"
GOOD, BLANK = tiny.notebook(tiny.answered(**RIGHT)), tiny.notebook(tiny.lab_cells())
ROSTER = "student,name,moodle_id,canvas_id\nanna,Anna,4711,77\nbert,Bert,4712,78\n"


@dataclass(frozen=True)
class Inbox:
    """A folder of submissions.

    Attributes:
        name: of the row.
        tries: what the attack is after.
        files: path below the folder -> text.
        own: the instructor's files beside the records.
        points: student -> final points in the gradebook; every student must be named.
        refused: a part of the message where the folder is refused instead.
        noted: students whose notes or flags must speak of the clash.
        layout: the option.
        damage: changes the records before the gradebook reads them.
        out: the instructor's output folder, relative to that of the submissions.
    """

    name: str
    tries: str
    files: Mapping[str, str]
    points: Mapping[str, float] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""
    noted: tuple[str, ...] = ()
    layout: str = "auto"
    damage: Callable[[RecordStore], None] = lambda store: None
    out: str = "../out"


def _spoil(store: RecordStore) -> None:
    path = store.path("bert")
    path.write_text(path.read_text().replace('"points": 3', '"points": NaN', 1))


def _nest(store: RecordStore) -> None:
    path = store.path("bert")
    path.write_text(path.read_text().replace('"notes": []', '"notes": ' + "[" * 50_000 + "]" * 50_000, 1))


CLASS = {"anna.ipynb": GOOD, "bert.ipynb": GOOD}
SUBMITTED = CLASS | {"submitted/anna.ipynb": BLANK, "submitted/mallory.ipynb": GOOD}
COURSE = {
    "submitted/anna/00_tiny/x.ipynb": GOOD,
    "submitted/anna/00_tiny/timestamp.txt": TIME,
    "source/00_tiny/x.ipynb": BLANK,
}
MOODLE = {"Anna M_4711_assignsubmission_file_/x.ipynb": GOOD, "Bert_4712_assignsubmission_file_lab.ipynb": GOOD}
TAKEN = {"x_4711_assignsubmission_file.ipynb": BLANK, "rossi_78_9_lab.ipynb": BLANK}
ALL = {"anna": FULL, "bert": FULL}
EARLY, TOO_LATE = "2026-10-01T12:00:00Z", "2026-10-03T12:00:00Z"
TWO_NUMBERS = "Bert_4711_assignsubmission_file_4712_assignsubmission_file"
LONG_TWO_NUMBERS = f"Bert_4711_assignsubmission_file{' y' * 15}_4712_assignsubmission_file"
FORGED_OUTPUT = {
    "graded/seed.json": '{"seed": 7}',
    "graded/manual.csv": "lab,student,exercise,points,comment\n00_tiny,anna,,0,\n",
    "graded/00_tiny/records/eve.json": "{}",
}
INBOXES = [
    Inbox("p01_submitted", "to replace the class by a folder named submitted", SUBMITTED, refused="--layout students"),
    Inbox("p01_submitted_as_one", "the same, where each is one student's", SUBMITTED, ALL | {"submitted": 0},
          layout="students"),
    Inbox("p01_submitted-twin", "", COURSE, {"anna": FULL}, {"policy.toml": LATE}),
    Inbox("p02_capitals", "to take a student's id by capitals", CLASS | {"ANNA.ipynb": BLANK},
          ALL | {"ANNA-": 0}, {"roster.csv": ROSTER}, noted=("anna", "ANNA-")),
    Inbox("p02_capitals-twin", "", {"Anna.ipynb": GOOD, "bert.ipynb": GOOD}, ALL, {"roster.csv": ROSTER}),
    Inbox("p03_cleaned", "to take a student's id by a sign that is cleaned away", CLASS | {"=bert.ipynb": BLANK},
          ALL | {"bert-": 0}, {"roster.csv": ROSTER}, noted=("bert", "bert-")),
    Inbox("p04_number", "to hand in under somebody else's number of Moodle or Canvas", {"anna.ipynb": GOOD} | TAKEN,
          {"anna": FULL, "bert": 0, "x_4711_assignsubmission_file": 0, "rossi_78_9_lab": 0}, {"roster.csv": ROSTER},
          noted=("anna", "x_4711_assignsubmission_file", "rossi_78_9_lab")),
    Inbox("p04_number-twin", "", MOODLE, ALL, {"roster.csv": ROSTER}),
    Inbox("p05_time", "to be in time by a timestamp.txt of one's own",
          {"anna/00_tiny/x.ipynb": GOOD, "anna/00_tiny/timestamp.txt": TIME, "bert.ipynb": GOOD},
          {"anna": FULL / 2, "bert": FULL / 2},
          {"policy.toml": LATE, "submitted.csv": "student,attempt,submitted\nanna,1,2026-10-03T12:00:00Z\nbert,1,2026-10-03T12:00:00Z\n"}),
    Inbox("p05_time-twin", "", COURSE | {"submitted/bert/00_tiny/x.ipynb": GOOD}, ALL,
          {"policy.toml": LATE, "submitted.csv": "student,attempt,submitted\nbert,1,2026-10-01T12:00:00Z\n"}),
    Inbox("p06_not_a_number", "to end the gradebook by points that are NaN", CLASS, ALL | {"bert": 0}, damage=_spoil),
    Inbox("p06_deep_record", "to end the gradebook by deep JSON in a record", CLASS, ALL | {"bert": 0}, damage=_nest),
    Inbox("p06_record-twin", "", CLASS, ALL),
    Inbox("p07_own_records", "to bring points by hand, a seed and records in a folder of the output's name",
          CLASS | FORGED_OUTPUT, refused="could have handed in a folder of that name", out="graded"),
    Inbox("p07_own_records-twin", "", CLASS | FORGED_OUTPUT, ALL | {"graded": 0}, out="../graded"),
    Inbox("p08_own_lab", "to add a lab by a folder named records", CLASS | {"records/eve.json": "{}"},
          ALL | {"records": 0}, out=".."),
    Inbox("p08_own_lab-twin", "", CLASS, ALL, out=".."),
    Inbox("p09_other_attempt", "to be in time by an attempt that has no row in submitted.csv",
          {"anna.ipynb": GOOD, "bert/attempt-2.ipynb": GOOD}, {"anna": FULL / 2, "bert": FULL / 2},
          {"policy.toml": LATE, "submitted.csv": f"student,attempt,submitted\nanna,,{TOO_LATE}\nbert,,{TOO_LATE}\n"}),
    Inbox("p09_other_attempt-twin", "", {"anna.ipynb": GOOD, "bert/attempt-1.ipynb": GOOD, "bert/attempt-2.ipynb": GOOD},
          ALL, {"policy.toml": LATE, "submitted.csv": f"student,attempt,submitted\nbert,1,{EARLY}\nbert,2,{TOO_LATE}\n"}),
    Inbox("p10_full_name", "to replace a student's work by a full name that holds the student's number",
          {"Anna Rossi_4711_assignsubmission_file/x.ipynb": GOOD, f"{TWO_NUMBERS}/x.ipynb": BLANK},
          {"anna": FULL, "bert": 0, TWO_NUMBERS: 0}, {"roster.csv": ROSTER, "policy.toml": 'attempts = "last"'},
          noted=("anna", "bert"), layout="moodle"),
    Inbox("p10_long_full_name", "the same, with a name so long that only the false number is left of it",
          {"Anna Rossi_4711_assignsubmission_file/x.ipynb": GOOD, f"{LONG_TWO_NUMBERS}/x.ipynb": BLANK},
          {"anna": FULL, "bert": 0, student_id(LONG_TWO_NUMBERS): 0},
          {"roster.csv": ROSTER, "policy.toml": 'attempts = "last"'}, noted=("anna", "bert"), layout="moodle"),
    Inbox("p10_long_full_name-twin", "",
          {f"Anna {'Rossi ' * 14}_4711_assignsubmission_file/x.ipynb": GOOD, "Bert_4712_assignsubmission_file/x.ipynb": GOOD},
          ALL, {"roster.csv": ROSTER}),
    Inbox("p12_formula", "to put a formula into the table of grades by the name of a notebook",
          {"anna.ipynb": GOOD, 'bert/a;"=1+1;.ipynb': GOOD, "bert/other.ipynb": BLANK}, {"anna": FULL, "bert": 0}),
    Inbox("p12_formula-twin", "", {"anna.ipynb": GOOD, 'bert/lab; "final".ipynb': GOOD}, ALL),
    Inbox("p11_accents-twin", "", {unicodedata.normalize("NFD", "J\u00fcrgen M\u00fcller.ipynb"): GOOD},
          {"J\u00fcrgen M\u00fcller": FULL}, {"roster.csv": "student\nJ\u00fcrgen M\u00fcller\n"}),
]  # fmt: skip


def faults(inbox: Inbox, course: Path, isolation: IsolationLevel) -> list[str]:
    """Grade a folder, count its points, and say what is wrong.

    Args:
        inbox: of submissions.
        course: the tiny one.
        isolation: of the sandbox.

    Returns:
        Sentences; empty where the grader held.
    """
    with tempfile.TemporaryDirectory(prefix="segedu-inbox-") as place:
        Path(place).chmod(0o755)
        folder = Path(place, "inbox")
        folder.mkdir()
        out = (folder / inbox.out).resolve()
        out.mkdir(exist_ok=True)
        for root, files in ((folder, inbox.files), (out, inbox.own)):
            for name, text in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
        job = Job(folder, tiny.LAB, out, course, 1, 7, isolation.level, True, 6.0, 60.0, layout=inbox.layout)
        try:
            batch = grade_batch(job, open_grader_pool=partial(pool_of_threads))
        except ValueError as error:
            return [] if inbox.refused and inbox.refused in str(error) else [f"REFUSED: {error}"]
        if inbox.refused:
            return ["NOT REFUSED"]
        inbox.damage(RecordStore(out, tiny.LAB))
        return _counted(inbox, out, batch)


def _counted(inbox: Inbox, out: Path, batch) -> list[str]:
    write_reports(batch, out)
    found = {_plain(one.student, inbox): one for one in student_results(out, tiny.LAB)}
    points = {name: float(one.final) for name, one in found.items()}
    wrong = [
        f"{name} has {points.get(name)}, expected {want}"
        for name, want in inbox.points.items()
        if points.get(name) != want
    ]
    wrong += [f"there is a lab {lab}, which was never graded" for lab in labs_of(out) if lab != tiny.LAB]
    wrong += [f"{name} has {got}, but handed nothing in" for name, got in points.items() if name not in inbox.points]
    wrong += [
        f"no flag tells {name}" for name in inbox.noted if name in found and "name clash" not in found[name].flags
    ]
    wrong += [f"grades.csv has the formula {cell}" for cell in _formulas(out / tiny.LAB / "grades.csv")]
    page = (out / tiny.LAB / "index.html").read_text()
    return wrong + ["the page does not tell of the clash"] * (bool(inbox.noted) and "name clash" not in page)


def _formulas(table: Path) -> list[str]:
    """Cells that a spreadsheet would compute, whatever it takes for the mark between cells; a number is none."""
    lines = table.read_text(encoding="utf-8-sig").splitlines()
    cells = [cell for comma in ",;\t" for row in csv.reader(lines, delimiter=comma) for cell in row]
    return [cell for cell in cells if cell.lstrip()[:1] in tuple("=+@")]


def _plain(student: str, inbox: Inbox) -> str:
    """`ANNA-` of `ANNA-1a2b3c`: the six letters are a digest."""
    return student[:-6] if f"{student[:-6]}" in inbox.points and student[:-6].endswith("-") else student
