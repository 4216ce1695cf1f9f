"""What counts: lateness to the second, attempts, points by hand, the roster; and errors that say where they are."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from segedu.grading.gradebook import late
from segedu.grading.gradebook.late import LabPolicy, LatePolicy, PolicyFile, lateness, span
from segedu.grading.gradebook.policy import LabBook, labs_of, read_instructor_files, student_results
from segedu.grading.gradebook.roster import submission_keys

DUE = datetime(2026, 10, 5, 21, 59, tzinfo=UTC)
STEPS = LatePolicy(
    timedelta(minutes=10),
    ((timedelta(hours=24), Decimal("0.9")), (timedelta(hours=48), Decimal("0.5"))),
    Decimal("0.1"),
)
POLICY = """
timezone = "Europe/Zurich"
[late]
grace_minutes = 10
steps = [{hours = 24, factor = 0.9}, {hours = 48, factor = 0.5}]
after = 0
[labs.00_tiny]
due = "2026-10-05 23:59"
"""
AT = "2026-10-05T23:59:00+02:00"


def only(out: Path, lab: str = "00_tiny"):
    (one,) = student_results(out, lab)
    return one


def of(out: Path) -> dict:
    return {student_result.student: student_result for student_result in student_results(out, "00_tiny")}


@pytest.mark.parametrize(
    ("after", "factor", "words"),
    [
        (timedelta(hours=-3), "1", ""),
        (timedelta(0), "1", ""),
        (timedelta(seconds=1), "1", "1 min late: x 1, within the grace period"),
        (timedelta(minutes=10), "1", "10 min late: x 1, within the grace period"),
        (timedelta(minutes=10, microseconds=1), "0.9", "11 min late: x 0.9"),
        (timedelta(hours=24), "0.9", "24 h late: x 0.9"),
        (timedelta(hours=24, seconds=1), "0.5", "24 h 1 min late: x 0.5"),
        (timedelta(hours=26), "0.5", "26 h late: x 0.5"),
        (timedelta(hours=48), "0.5", "48 h late: x 0.5"),
        (timedelta(hours=48, seconds=1), "0.1", "48 h 1 min late: x 0.1"),
        (timedelta(days=400), "0.1", "9600 h late: x 0.1"),
    ],
)
def test_every_border_of_the_late_policy(after, factor, words):
    judged = lateness(LabPolicy(DUE, STEPS), DUE + after, None)
    assert (judged.factor, judged.explanation, judged.late) == (Decimal(factor), words, after)


def test_without_a_due_time_or_a_submission_time_nothing_is_late():
    assert lateness(LabPolicy(None, STEPS), DUE, None).explanation == ""
    unknown = lateness(LabPolicy(DUE, STEPS), None, None)
    assert (unknown.factor, unknown.hours) == (1, None) and "no submission time is known" in unknown.explanation
    assert lateness(LabPolicy(DUE, LatePolicy()), DUE + timedelta(days=9), None).factor == 1
    assert lateness(LabPolicy(DUE, STEPS), DUE + timedelta(minutes=90), None).hours == Decimal("1.5")
    assert [span(timedelta(minutes=m)) for m in (0, 1, 60, 61)] == ["0 min", "1 min", "1 h", "1 h 1 min"]


def test_time_zones_and_the_change_of_clocks(tmp_path):
    path = tmp_path / "policy.toml"
    text = 'timezone = "Europe/Zurich"\n[labs.00_tiny]\ndue = {}\n'

    def due(value: str) -> datetime:
        path.write_text(text.format(value))
        return PolicyFile(path).lab("00_tiny").due

    same = ["2026-10-05 23:59:00", '"2026-10-05 23:59"', "2026-10-05T21:59:00Z", '"2026-10-05T17:59-04:00"']
    assert {due(value).astimezone(UTC) for value in same} == {DUE}
    assert due('"2026-12-05 23:59"').astimezone(UTC).hour == 22  # winter time
    assert due('"2026-10-25 02:30"').astimezone(UTC) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)  # comes twice
    with pytest.raises(ValueError, match="does not exist in Europe/Zurich"):
        due('"2026-03-29 02:30"')
    # clocks go back between the due time and the submission: 25 hours pass on a day of the calendar
    policy = LabPolicy(due('"2026-10-24 12:00"'), STEPS)
    noon = datetime(2026, 10, 25, 12, 0, tzinfo=policy.due.tzinfo)
    assert lateness(policy, noon, None).explanation == "25 h late: x 0.5"


def test_the_example_in_the_documentation_is_one(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(textwrap.dedent("\n".join(line for line in late.__doc__.splitlines() if line.startswith("    "))))
    lab = PolicyFile(path).lab("04_metrics")
    assert lab.due.isoformat() == "2026-10-05T23:59:00+02:00" and lab.canvas == "Lab 4 (12345)"
    assert lab.late.steps[1] == (timedelta(hours=48), Decimal("0.5")) and lab.late.after == 0
    assert lab.extensions["anna"] == timedelta(hours=48) and lab.extensions["bert"].day == 9


def test_a_late_submission_and_its_words(tmp_path, made):
    out = made.write(tmp_path, made.record(points=(3, 2), submitted="2026-10-07T01:59:00+02:00"), policy=POLICY)
    one = only(out)
    assert (one.autograded_points, one.factor, one.late_hours, one.final) == (5, Decimal("0.5"), 26, Decimal("2.50"))
    assert one.late_explanation == "26 h late: x 0.5" and one.flags == ["late"]
    assert [exercise.points for exercise in one.exercises] == [Decimal("1.5"), Decimal("1.0")]


def test_extensions_of_every_lab_and_of_one(tmp_path, made):
    records = [made.record(name, submitted="2026-10-07T01:59:00+02:00") for name in ("anna", "bert", "chris", "dora")]
    policy = POLICY.replace("[labs.00_tiny]", "[extensions]\nanna = 26\nbert = 1\n[labs.00_tiny]")
    policy += '[labs.00_tiny.extensions]\nbert = 2.5\nchris = "2026-10-07 12:00"\n'
    found = of(made.write(tmp_path, *records, policy=policy))
    assert {name: str(one.factor) for name, one in found.items()} == {
        "anna": "1", "bert": "0.9", "chris": "1", "dora": "0.5"}  # fmt: skip
    assert found["bert"].late_explanation == "23 h 30 min late, extended to 2026-10-06 02:29 CEST: x 0.9"
    assert found["chris"].late_explanation == "on time, extended to 2026-10-07 12:00 CEST"


def test_no_submission_time_no_penalty_but_a_note(tmp_path, made):
    out = made.write(tmp_path, made.record(), made.record("bert", submitted="soon"), policy=POLICY)
    for one in of(out).values():
        assert one.final == 3 and one.late_explanation == "no submission time is known: no late penalty"


@pytest.mark.parametrize(("how", "number", "final"), [("best", 1, "4.50"), ("last", 3, "3.00")])
def test_best_or_last_of_attempts(tmp_path, made, how, number, final):
    records = [
        made.record(points=(3, 2), submitted="2026-10-06T10:00:00+02:00"),  # 5 x 0.9
        made.record(points=(3, 3), attempt=2, submitted="2026-10-07T10:00:00+02:00"),  # 6 x 0.5
        made.record(points=(3, 3), attempt=3, submitted="2026-10-07T12:00:00+02:00"),
        made.record(points=(0, 0), attempt=4, status="unreadable", problem="not JSON"),
    ]
    one = only(made.write(tmp_path, *records, policy=f'attempts = "{how}"\n{POLICY}'))
    assert (one.chosen.number, one.final) == (number, Decimal(final))
    assert [attempt.number for attempt in one.attempts] == [1, 2, 3, 4]
    assert one.notes == (f"attempt 4 could not be graded; attempt {number} counts",)


def test_best_takes_the_earlier_of_equals_and_ten_comes_after_nine(tmp_path, made):
    records = [made.record(points=(3, 1), attempt=number) for number in range(1, 12)]
    out = made.write(tmp_path, *records)
    assert only(out).chosen.number == 1
    made.write(out, policy='[labs.00_tiny]\nattempts = "last"\n')
    assert only(out).chosen.number == 11


def test_points_by_hand_come_after_the_factor_and_go_with_their_row(tmp_path, made):
    when = "2026-10-07T01:59:00+02:00"
    out = made.write(tmp_path, made.record(points=(3, 2), submitted=when), policy=POLICY)
    header = "lab,student,exercise,points,comment\n"
    before = only(out).final
    cases = {
        "00_tiny,anna,total,3,all right": "4.50",  # 3 x 0.5 + 3
        "00_tiny,anna,total,+1,": "3.50",  # 5 x 0.5 + 1
        "00_tiny,anna,total,'+1,": "3.50",
        "00_tiny,anna,total,-0.25,": "2.25",
        "00_tiny,anna,total,3,\n00_tiny,anna,total,+1,\n00_tiny,anna,total,+0.5,": "6.00",
        "00_tiny,anna,,+2,bonus": "4.50",
        "00_tiny,anna,,6,oral exam": "6.00",
        "00_tiny,anna,,+9,bonus above the maximum": "11.50",
        "00_tiny,anna,,-9,never below nothing": "0.00",
        "00_tiny,ANNA,,,a comment alone": "2.50",
    }
    for rows, final in cases.items():
        one = only(made.write(out, manual=header + rows + "\n"))
        assert one.final == Decimal(final), rows
        assert one.autograded_points * one.factor + one.manual_points == one.final and "manual change" in one.flags
    made.write(out, manual=header)
    assert only(out).final == before and only(out).flags == ["late"]


def test_numbers_are_decimal_and_rounded_once(tmp_path, made):
    policy = POLICY.replace("0.9", "0.333")
    record = made.record(points=(0.1, 0.2), submitted="2026-10-06T10:00:00+02:00")
    one = only(made.write(tmp_path, record, policy=policy))
    assert one.autograded_points == Decimal("0.3") and one.exercises[0].points == Decimal("0.0333")
    assert one.final == Decimal("0.10")  # each rounded by itself would give 0.03 + 0.07
    exact = made.record(points=(0.5, 0), submitted="2026-10-06T10:00:00+02:00")
    assert only(made.write(tmp_path, exact, policy=POLICY.replace("0.9", "0.25"))).final == Decimal("0.13")


def test_submitted_csv_overrules_the_records(tmp_path, made):
    records = [made.record(submitted="2026-10-09T00:00:00+02:00"), made.record(attempt=2)]
    out = made.write(tmp_path, *records, policy=POLICY, submitted="student,attempt,submitted\nanna,,2026-10-05 23:59\n")
    first, second = only(out).attempts
    assert first.submitted.astimezone(UTC) == DUE and first.lateness.factor == 1 and second.submitted == first.submitted
    made.write(out, submitted=f"lab,student,attempt,submitted\n00_tiny,anna,2,{AT}\n00_tiny,zoe,1,{AT}\n")
    first, second = only(out).attempts
    assert first.lateness.factor == 0 and second.submitted.astimezone(UTC) == DUE
    assert "times of students who handed in nothing (line 3)" in " ".join(
        LabBook(read_instructor_files(out), "00_tiny").remarks
    )


ROSTER = """student,name,email,section,alias,canvas_id,moodle_id
anna,Anna Ångström,anna@uni.example,A,a.angstrom; annie,77,Participant 4711
bert,Bert,,B,,78,4712
chris,,,,,,
"""


def test_the_roster_finds_its_submissions_by_any_of_their_names(tmp_path, made):
    names = ["Annie", "bert", "Anna_A_4711_assignsubmission_file", "angstromanna_LATE_77_9001_lab", "mallory"]
    found = of(made.write(tmp_path, *(made.record(name) for name in names), roster=ROSTER))
    assert sorted(found) == ["anna", "bert", "chris", "mallory"]
    assert {one.record["student"] for one in found["anna"].attempts} == set(names) - {"bert", "mallory"}
    assert found["anna"].person.name == "Anna Ångström" and found["anna"].notes[0].startswith("handed in under 3 names")
    assert found["mallory"].not_on_roster and found["mallory"].flags == ["not on roster"]
    absent = found["chris"]
    assert (absent.status, absent.final, absent.max_points, absent.chosen) == ("nothing handed in", 0, 6, None)
    assert [exercise.status for exercise in absent.exercises] == ["nothing handed in"] * 2
    assert submission_keys("bert")[1:] == []


def test_a_number_in_a_name_counts_only_where_a_platform_wrote_it(tmp_path, made):
    """Otherwise a student hands in under somebody else's number."""
    names = {"anna": "students", "x_4711_assignsubmission_file": "students", "y_9_assignsubmission_file": "students"}
    names |= {"rossi_78_9_lab": "students", "Bert_4712_assignsubmission_file": "moodle"}
    out = made.write(tmp_path, *(made.record(name, layout=layout) for name, layout in names.items()), roster=ROSTER)
    found = of(out)
    assert [one.record["student"] for one in found["anna"].attempts] == ["anna"]
    assert [one.record["student"] for one in found["bert"].attempts] == ["Bert_4712_assignsubmission_file"]
    taken, harmless = found["x_4711_assignsubmission_file"], found["y_9_assignsubmission_file"]
    assert taken.flags == ["name clash", "not on roster"] and harmless.flags == ["not on roster"]
    assert "holds the number of anna, which counts only in" in taken.notes[0] and harmless.notes == ()
    assert found["anna"].flags == found["bert"].flags == ["name clash"]
    assert "the name of x_4711_assignsubmission_file holds this student's number" in found["anna"].notes[0]
    assert "the name of rossi_78_9_lab holds" in found["bert"].notes[0]


def test_of_two_numbers_in_a_name_none_is_believed_and_all_are_told(tmp_path, made):
    name = "Bert_4711_assignsubmission_file_4712_assignsubmission_file"
    found = of(made.write(tmp_path, made.record("anna"), made.record(name, layout="moodle"), roster=ROSTER))
    assert [one.record["student"] for one in found["anna"].attempts] == ["anna"] and not found["bert"].attempts
    assert {word for one in ("anna", "bert", name) for word in found[one].flags if "clash" in word} == {"name clash"}
    assert "holds several numbers, one of them this student's" in found["anna"].notes[0]


def test_work_under_several_names_is_a_flag_but_not_two_parts_of_one_download(tmp_path, made):
    records = [
        made.record("anna"),
        made.record("annie"),
        made.record("Bert_4712_assignsubmission_file", layout="moodle"),
    ]
    records.append(made.record("Bert_4712_assignsubmission_onlinetext", layout="moodle"))
    found = of(made.write(tmp_path, *records, roster=ROSTER))
    assert found["anna"].flags == ["several names"] and found["bert"].flags == []


def test_an_attempt_without_a_time_has_the_latest_of_its_student(tmp_path, made):
    records = [made.record(attempt=2), made.record("bert", attempt=2), made.record("chris")]
    rows = f"student,attempt,submitted\nanna,,2026-10-20 12:00\nbert,1,{AT}\nbert,2,2026-10-20 12:00\n"
    out = made.write(tmp_path, *records, policy=POLICY, submitted=rows)
    found = of(out)
    assert (found["anna"].final, found["anna"].flags) == (0, ["time unknown", "late"])
    assert "the time of attempt 2 is not known" in found["anna"].notes[0]
    assert found["bert"].flags == ["late"] and found["chris"].flags == ["time unknown"]
    remarks = " ".join(LabBook(read_instructor_files(out), "00_tiny").remarks)
    assert "times of attempts that do not exist (line 2, 3)" in remarks


def test_a_folder_is_a_lab_only_by_its_name(tmp_path, made):
    out = made.write(tmp_path, made.record())
    (out / "inbox" / "records").mkdir(parents=True)
    assert labs_of(out) == ["00_tiny"]


def test_a_clash_of_names_is_a_flag_on_both(tmp_path, made):
    records = [made.record("anna", clash=True, notes=["claims the same id"]), made.record("ANNA-1a2b3c", clash=True)]
    found = of(made.write(tmp_path, *records, made.record("bert", clash=False), roster=ROSTER))
    assert found["anna"].flags == ["name clash"] and found["bert"].flags == []
    assert found["ANNA-1a2b3c"].flags == ["name clash", "not on roster"]


def test_long_ids_that_differ_at_their_ends_alone_are_two_students(tmp_path, made):
    long = "x" * 80
    manual = f"lab,student,exercise,points,comment\n00_tiny,{long}-a1b2c3,,+1,\n"
    found = of(made.write(tmp_path, made.record(long), made.record(f"{long}-a1b2c3"), manual=manual))
    assert {name: one.final for name, one in found.items()} == {long: 3, f"{long}-a1b2c3": 4}


def test_an_address_names_a_student_too(tmp_path, made):
    found = of(made.write(tmp_path, made.record("anna@uni.example"), roster=ROSTER))
    assert len(found["anna"].attempts) == 1 and not found["anna"].not_on_roster


def test_a_roster_with_semicolons_blank_rows_and_a_mark(tmp_path, made):
    out = made.write(tmp_path, made.record())
    (out / "roster.csv").write_bytes("\ufeffStudent;Name;;\r\nanna;Anna;;\r\n;;;\r\nbert;Bert;;\r\n".encode())
    assert {name: one.person.name for name, one in of(out).items()} == {"anna": "Anna", "bert": "Bert"}


def test_failed_and_damaged_records_are_seen(tmp_path, made):
    out = made.write(tmp_path, made.record(), made.record("bert", status="failed", problem="the grader failed"))
    (out / "00_tiny" / "records" / "chris~3.json").write_text("{")
    found = of(out)
    assert [found[name].flags for name in ("bert", "chris")] == [["failed"], ["failed"]]
    assert found["chris"].chosen.number == 3 and found["chris"].final == 0 and len(found["chris"].exercises) == 2


def test_a_copied_record_is_not_the_same_student_twice(tmp_path, made):
    out = made.write(tmp_path, made.record())
    records = out / "00_tiny" / "records"
    (records / "anna copy.json").write_bytes((records / "anna.json").read_bytes())
    assert sorted(of(out)) == ["anna", "anna copy"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("roster", "name\nAnna\n", r"roster.csv, line 1: the columns are name; expected each once, and among them student"),
        ("roster", "student,student\na,b\n", "line 1: the columns are student, student"),
        ("roster", "student\nanna\nAnna\n", r"line 3: 'anna' names 'Anna', and on line 2 another student"),
        ("roster", "student,alias\nanna,\nbert,anna\n", r"line 3: 'anna' names 'bert'"),
        ("roster", "student,canvas_id\nanna,7\nbert,7\n", "line 3: 'canvas_id:7'"),
        ("roster", 'student,name\nanna,"x\n', "not CSV"),
        ("roster", "student,name\nanna,x,y\n", "line 2: more than 2 cells"),
        ("roster", "student,name\n,Anna\n", "line 2: student is empty"),
        ("manual", "lab,student\n", "line 1: the columns are lab, student; expected each once, and among them lab, student"),
        ("manual", "lab,student,exercise,points,comment\n04_no,anna,,1,\n", "line 2: lab is '04_no'; expected .*00_tiny"),
        ("manual", "lab,student,exercise,points,comment\n00_tiny,zoe,,1,\n", "line 2: 'zoe' has no submission"),
        ("manual", "lab,student,exercise,points,comment\n00_tiny,anna,no,1,\n", "exercise is 'no'; expected one of double"),
        ("manual", "lab,student,exercise,points,comment\n00_tiny,anna,,many,\n", "points is 'many'; expected a number"),
        ("manual", "lab,student,exercise,points,comment\n00_tiny,anna,,1e3,\n", "points is '1e3'"),
        ("manual", "lab,student,exercise,points,comment\n00_tiny,anna,total,30,\n", "points is 30; expected at most 3; a bonus"),
        ("manual", "lab,student,exercise,points,comment\n00_tiny,anna,,,\n", "neither points nor a comment"),
        ("manual", "lab,student,exercise,points,comment\n00_tiny,,,1,\n", "student is empty"),
        (
            "manual",
            "lab,student,exercise,points,comment\n00_tiny,anna,total,1,\n00_tiny,anna,total,2,\n",
            "line 3: line 2 already replaces these points of anna",
        ),
        ("submitted", "student,attempt,submitted\nanna,0,2026-10-05 23:59Z\n", "attempt is '0'"),
        ("submitted", "student,attempt,submitted\nanna,1,noon\n", "line 2: submitted is 'noon': it is not a date"),
        ("submitted", "student,attempt,submitted\nanna,1,2026-10-05 23:59\n", "the time has no zone"),
        ("submitted", "student,attempt,submitted\nanna,1,\n", "student or submitted is empty"),
        ("submitted", f"student,attempt,submitted\nanna,1,{AT}\nanna,,{AT}\n", "attempt 1 of anna again, after line 2"),
        ("submitted", f"lab,student,attempt,submitted\n77_no,anna,1,{AT}\n", "lab is '77_no'"),
        ("policy", "[late", "not TOML"),
        ("policy", "atempts = 'best'", "line 1: atempts: there is no such entry; expected one of attempts"),
        ("policy", "attempts = 'worst'", "it is 'worst'; expected \"best\" or \"last\""),
        ("policy", "timezone = 'Mars/Olympus'", "'Mars/Olympus' is not known here; expected a name such as Europe"),
        ("policy", "late = 3", "expected a table"),
        ("policy", "labs = 3", "expected a table"),
        ("policy", "[late]\nsteps = [{hours = 24, factor = 0.9}]", "late.after: it is missing"),
        ("policy", "[late]\nafter = 0\nsteps = [{hours = 24}]", r"line 3: late.steps: one is \{'hours': 24\}"),
        ("policy", "[late]\nafter = 0\nsteps = 24", "late.steps: one is None"),
        ("policy", "[late]\nafter = 2", "late.after: it is 2; expected a factor from 0 to 1"),
        ("policy", "[late]\nafter = true", "late.after: it is True"),
        ("policy", "[late]\nafter = 0\ngrace_minutes = -1", "grace_minutes: it is -1"),
        (
            "policy",
            "[late]\nafter = 0\nsteps = [{hours = 48, factor = 1}, {hours = 24, factor = 0}]",
            "a step of 24 hours follows one of as many or more; expected rising hours",
        ),
        ("policy", "[labs.metrics]\ndue = 2026-10-05 23:59:00Z", "such as .labs.04_metrics."),
        ("policy", "[labs.00_tiny]\ndue = 2026-10-05 23:59:00", "labs.00_tiny.due: the time has no zone; expected timezone"),
        ("policy", "[labs.00_tiny]\ndue = 2026-10-05", "it is not a date with a time"),
        ("policy", "[labs.00_tiny]\ndue = '2026-10-05'", "it is not a date with a time"),
        ("policy", "[labs.00_tiny]\ndeu = 3", "labs.00_tiny.deu: there is no such entry"),
        ("policy", "extensions = 3", "expected a table"),
        ("policy", "[extensions]\nanna = '2026-10-05 23:59Z'", "expected hours for every lab"),
        ("policy", "[labs.00_tiny.extensions]\nanna = -2", "it is -2; expected a number of hours"),
    ],
)  # fmt: skip
def test_a_wrong_file_says_where_and_what(tmp_path, made, name, text, message):
    out = made.write(tmp_path, made.record(), **{name: text})
    with pytest.raises(ValueError, match=message) as error:
        list(student_results(out, "00_tiny"))
    assert str(out) in str(error.value)


def test_files_of_several_labs(tmp_path, made):
    out = made.write(tmp_path, made.record(), made.record(lab="01_more"), roster="student\nanna\n")
    assert labs_of(out) == ["00_tiny", "01_more"]
    made.write(out, submitted=f"student,attempt,submitted\nanna,1,{AT}\n")
    with pytest.raises(ValueError, match="no column lab, and there are 2 labs; expected a column lab"):
        read_instructor_files(out)
    made.write(out, submitted=f"lab,student,attempt,submitted\n01_more,anna,1,{AT}\n")
    assert only(out).chosen.submitted is None and only(out, "01_more").chosen.submitted is not None
    with pytest.raises(
        ValueError, match="lab is '02_no', which .* has no records of; expected one of 00_tiny, 01_more"
    ):
        student_results(out, "02_no")
    with pytest.raises(ValueError, match="`segedu grade` ran with this --out"):
        student_results(tmp_path / "nowhere", "00_tiny")
    made.write(out, policy="[labs.00_tiny.extensions]\nzoe = 2\n")
    with pytest.raises(ValueError, match="line 2: extensions.zoe: 'zoe' is not on the roster"):
        student_results(out, "00_tiny")


def test_a_file_that_is_not_utf8_or_has_other_line_ends(tmp_path, made):
    out = made.write(tmp_path, made.record())
    (out / "roster.csv").write_bytes("student,name\nanna,Ångström\n".encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"roster.csv, line 1: byte \d+ is not UTF-8; expected the file saved as CSV UTF-8"
    ):
        student_results(out, "00_tiny")


def test_five_thousand_records_need_no_memory(tmp_path, made):
    folder = tmp_path / "00_tiny" / "records"
    folder.mkdir(parents=True)
    made.write(tmp_path, made.record(notes=["x" * 4000]))
    data = (folder / "anna.json").read_bytes()
    for number in range(5000):
        (folder / f"s{number}.json").write_bytes(data)
    size = len(data) * 5000
    code = f"""
    import tracemalloc
    from segedu.grading.gradebook.policy import student_results
    from pathlib import Path
    tracemalloc.start()
    print(sum(one.final == 3 for one in student_results(Path({str(tmp_path)!r}), "00_tiny")), tracemalloc.get_traced_memory()[1])
    """
    # in a process of its own: here other tests' threads and garbage count too
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    count, peak = map(int, done.stdout.split())
    assert count == 5001 and size > 25_000_000 and peak < 4_000_000, (count, size, peak)
