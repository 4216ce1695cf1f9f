"""Whose work lies where: no name and no file of one student decides about another's identity or lateness."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from segedu.grading.batch.batch import Job, grade_batch
from segedu.grading.gradebook.roster import names_of_ids
from segedu.grading.submissions.find_submissions import find_entries
from segedu.grading.submissions.folder_layout import LAYOUTS, is_of, listed
from segedu.grading.submissions.submission import read_submission

TIME = "2026-10-01 23:59:00.000000 UTC\n"


@pytest.fixture
def inbox(tmp_path, tiny):
    """Writes right notebooks at these paths below an inbox."""
    book = tiny.notebook(tiny.answered(**tiny.RIGHT))

    def fill(*names: str):
        for name in names:
            path = tmp_path / "inbox" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(book)
        return tmp_path / "inbox"

    return fill


def ids(folder, **more) -> dict[str, str]:
    """Path below the folder -> id."""
    return {entry.path.relative_to(folder).as_posix(): entry.student for entry in find_entries(folder, **more)[0]}


def test_a_folder_named_submitted_does_not_replace_the_class(inbox):
    folder = inbox("anna.ipynb", "bert.ipynb", "submitted/anna.ipynb", "submitted/mallory.ipynb")
    with pytest.raises(ValueError) as error:
        find_entries(folder)
    for part in (
        "holds a folder `submitted`",
        "beside it anna.ipynb, bert.ipynb",
        "--layout nbgrader",
        "--layout students",
    ):
        assert part in str(error.value)
    assert set(ids(folder, layout="students")) == {"anna.ipynb", "bert.ipynb", "submitted"}
    assert set(ids(folder, layout="nbgrader")) == {"submitted/anna.ipynb", "submitted/mallory.ipynb"}


@pytest.mark.parametrize("other", ["anna.zip", "anna/x.ipynb", "essay.pdf"])
def test_whatever_lies_beside_it_has_two_readings(inbox, other):
    folder = inbox("submitted/mallory/00_tiny/x.ipynb", other)
    with pytest.raises(ValueError, match=f"beside it {other.partition('/')[0]}"):
        find_entries(folder)


def test_files_in_submitted_are_not_what_nbgrader_makes(inbox):
    folder = inbox("submitted/mallory.ipynb")
    with pytest.raises(ValueError, match=r"in that folder files: mallory.ipynb.*--layout"):
        find_entries(folder)
    assert ids(folder / "submitted") == {"mallory.ipynb": "mallory"}


def test_a_course_folder_of_nbgrader_is_recognised(inbox):
    folder = inbox("submitted/anna/00_tiny/x.ipynb", "source/00_tiny/x.ipynb", "release/00_tiny/x.ipynb")
    for name in ("gradebook.db", "nbgrader_config.py", "roster.csv"):
        (folder / name).write_text("")
    (folder / "graded").mkdir()
    for given in (folder, folder / "submitted"):
        (entry,) = find_entries(given, out=folder / "graded")[0]
        assert (entry.student, entry.layout) == ("anna", "nbgrader")
    with pytest.raises(ValueError, match="beside it graded"):
        find_entries(folder)


def test_a_link_named_submitted_is_not_followed(inbox, tmp_path):
    folder = inbox("anna.ipynb")
    os.symlink(tmp_path, folder / "submitted")
    assert ids(folder) == {"anna.ipynb": "anna", "submitted": "submitted"}
    assert "is a link" in read_submission(find_entries(folder)[0][1], "00_tiny", folder).problem


def test_a_layout_that_does_not_exist(inbox):
    with pytest.raises(ValueError, match=f"--layout is 'other', expected one of {', '.join(LAYOUTS)}"):
        find_entries(inbox("anna.ipynb"), layout="other")


def test_names_in_messages_can_be_printed():
    assert listed(["a\x1b[31m"] + ["b"] * 7) == "a?[31m, b, b, b, b and 3 more"


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("anna.ipynb", "ANNA.ipynb"), ("bert.ipynb", "=bert.ipynb"), ("anna.ipynb", " anna.zip"),
        ("dora.ipynb", "DORA/x.ipynb"), ("jos.ipynb", "jos\u200b.ipynb"),
    ],
)  # fmt: skip
def test_the_exact_name_keeps_the_id_and_both_are_told(inbox, true, false):
    folder = inbox(true, false)
    entries = {entry.path.name: entry for entry in find_entries(folder)[0]}
    mine, theirs = entries[true.partition("/")[0]], entries[false.partition("/")[0]]
    assert mine.student == true.partition(".")[0] != theirs.student
    assert f"claims the same id ({listed([theirs.path.name])}): this one keeps the id {mine.student}" in mine.clash
    assert f"claims the same id ({listed([mine.path.name])}): this one is graded as {theirs.student}" in theirs.clash
    for entry in (mine, theirs):
        submission = read_submission(entry, "00_tiny", folder)
        assert submission.clash and submission.notes[0] == entry.clash


def test_the_roster_says_which_name_is_exact(inbox, tmp_path):
    folder = inbox("Anna.ipynb", "anna.ipynb", "ANNA.ipynb", "bert.ipynb")
    (tmp_path / "roster.csv").write_text("student,alias\nx,Anna; other\nbert,\n")
    found = ids(folder, roster_names=lambda keys: names_of_ids(tmp_path / "roster.csv", keys))
    assert found["Anna.ipynb"] == "Anna" and len({name.casefold() for name in found.values()}) == 4
    assert names_of_ids(tmp_path / "roster.csv", ["anna", "bert"]) == {"Anna", "bert"}
    assert names_of_ids(tmp_path / "none.csv", ["anna"]) == set()


def test_nobody_takes_an_id_that_another_name_is(inbox):
    folder = inbox("anna.ipynb", "ANNA.ipynb")
    second = ids(folder)["ANNA.ipynb"]
    found = ids(inbox(f"{second}.ipynb"))
    assert found[f"{second}.ipynb"] == second and found["ANNA.ipynb"] != second


def test_a_time_of_the_student_s_own_is_not_believed(inbox):
    folder = inbox("mallory/00_tiny/x.ipynb", "anna/x.ipynb", "bert/x.ipynb")
    for place in ("mallory/00_tiny", "anna"):
        (folder / place / "timestamp.txt").write_text(TIME)
    (folder / "bert" / "timestamp.txt").write_text("my own notes")
    for layout in ("auto", "students"):
        found = {e.student: read_submission(e, "00_tiny", folder) for e in find_entries(folder, layout=layout)[0]}
        assert {one.submitted for one in found.values()} == {None}
        assert [len(found[name].notes) for name in ("anna", "bert", "mallory")] == [1, 0, 1]
        assert "timestamp.txt was ignored, because the student may have" in found["mallory"].notes[0]
    entries = {entry.student: entry for entry in find_entries(folder, layout="nbgrader")[0]}
    assert read_submission(entries["mallory"], "00_tiny", folder).submitted == "2026-10-01T23:59:00+00:00"
    assert read_submission(entries["anna"], "00_tiny", folder).submitted is None  # nbgrader has a folder for each lab


@pytest.mark.parametrize(
    ("platform", "names"),
    [
        ("moodle", ["Anna R_4711_assignsubmission_file_", "Bert_4712_assignsubmission_file_lab.ipynb"]),
        ("canvas", ["rossianna_4711_99_lab.ipynb", "beebert_LATE_4712_98_lab-1.ipynb"]),
    ],
)
def test_the_download_of_a_platform_is_recognised_where_nothing_else_lies_there(inbox, platform, names):
    assert all(is_of(platform, name) for name in names)
    folder = inbox(*(name if name.endswith(".ipynb") else f"{name}/x.ipynb" for name in names))
    assert {entry.layout for entry in find_entries(folder)[0]} == {platform}
    inbox("mallory.ipynb")
    assert {entry.layout for entry in find_entries(folder)[0]} == {"students"}
    by_name = {entry.student: entry.layout for entry in find_entries(folder, layout=platform)[0]}
    assert by_name.pop("mallory") == "students" and set(by_name.values()) == {platform}
    assert {entry.layout for entry in find_entries(folder, layout="students")[0]} == {"students"}


def test_one_name_alone_makes_no_download(inbox):
    assert find_entries(inbox("x_4711_assignsubmission_file.ipynb"))[0][0].layout == "students"


def test_a_record_says_how_it_was_read_and_is_made_anew_where_that_changes(
    inbox, tmp_path, course, tiny, open_grader_pool
):
    job = Job(inbox("anna.ipynb", "bert.ipynb"), tiny.LAB, tmp_path / "out", course, seed=5, layout="students")
    first = {record["student"]: record for record in grade_batch(job, open_grader_pool=open_grader_pool).records}
    assert (first["anna"]["layout"], first["anna"]["clash"], first["anna"]["notes"]) == ("students", False, [])
    inbox("ANNA.ipynb")
    batch = grade_batch(job, open_grader_pool=open_grader_pool)
    assert (batch.graded, batch.kept) == (2, 1)
    found = {record["student"]: record for record in batch.records}
    assert [len(found[name]["notes"]) for name in found] == [1 - (name == "bert") for name in found]
    assert {record["points"] for record in found.values()} == {9}
    assert grade_batch(job, open_grader_pool=open_grader_pool).kept == 3
    assert grade_batch(replace(job, layout="nbgrader"), open_grader_pool=open_grader_pool).graded == 3
