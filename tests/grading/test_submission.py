"""Finding and reading submissions: layouts, names, and everything that can be wrong with a file."""

from __future__ import annotations

import io
import json
import os
import zipfile

import pytest

from segedu.grading.submissions.find_submissions import Entry, find_entries, student_id
from segedu.grading.submissions.submission import fingerprint, read_submission


def read(path, lab="00_tiny"):
    return read_submission(Entry("anna", path), lab, path.parent)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("anna", "anna"),
        ("Anna Müller", "Anna_Müller"),
        ("=cmd|' /C calc'!A0", "cmd_C_calc_A0"),
        ("../../etc/passwd", "etc_passwd"),
        ("<script>", "script"),
        ("...", "unnamed"),
        ("a" * 300, "a" * 80),
        ("Ju\u0308rgen", "J\u00fcrgen"),
        ("\u0938\u0902\u091c\u092f", "\u0938\u0902\u091c\u092f"),
        ("\u0301anna\ufe0f", "anna"),
        ("a" * 90 + "_4711_assignsubmission_file_", "a" * 53 + "_4711_assignsubmission_file"),
        ("a" * 90 + "_LATE_77_4242_lab", "a" * 67 + "_LATE_77_4242"),
        (f"{'a' * 90}_1_assignsubmission_file b_2_assignsubmission_file",
         f"{'a' * 32}_1_assignsubmission_file_2_assignsubmission_file"),
    ],
)  # fmt: skip
def test_student_ids_are_safe_as_file_names_and_in_spreadsheets(name, expected):
    assert student_id(name) == student_id(expected) == expected


def test_files_archives_and_folders_are_students_and_the_instructors_own_files_are_not(tmp_path, tiny):
    book = tiny.notebook(tiny.lab_cells())
    (tmp_path / "anna.ipynb").write_text(book)
    (tmp_path / "ANNA.zip").write_bytes(b"")
    (tmp_path / "cem").mkdir()
    (tmp_path / "essay.pdf").write_bytes(b"%PDF")
    (tmp_path / "expected.csv").write_text("student,points\n")
    (tmp_path / ".hidden.ipynb").write_text(book)
    entries, left_out = find_entries(tmp_path)
    names = [entry.student for entry in entries]
    assert left_out == ["expected.csv"]
    assert len(names) == len({name.casefold() for name in names}) == 4
    assert {"cem", "essay.pdf"} <= set(names)


def test_layout_of_nbgrader(tmp_path, tiny):
    folder = tmp_path / "submitted" / "anna" / "00_tiny"
    folder.mkdir(parents=True)
    (folder / "00_tiny.ipynb").write_text(tiny.notebook(tiny.lab_cells()))
    (tmp_path / "submitted" / "anna" / "other.ipynb").write_text("{}")
    (entry,), _ = find_entries(tmp_path)
    submission = read_submission(entry, "00_tiny", tmp_path)
    assert (submission.student, submission.problem) == ("anna", "")
    assert submission.source == "submitted/anna/00_tiny/00_tiny.ipynb"


def test_a_folder_without_submissions_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="holds no notebook.*put one file or folder per student"):
        find_entries(tmp_path)
    with pytest.raises(ValueError, match="does not exist; give a folder"):
        find_entries(tmp_path / "nowhere")
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(ValueError, match="expected a folder, a notebook"):
        find_entries(tmp_path / "notes.docx")


def test_the_notebook_of_this_lab_is_found_among_several(tmp_path, tiny):
    folder = tmp_path / "anna"
    folder.mkdir()
    (folder / "final version.ipynb").write_text(tiny.notebook(tiny.lab_cells()))
    other = [{**cell, "id": cell["id"].replace("00-", "04-")} for cell in tiny.lab_cells()]
    (folder / "a.ipynb").write_text(tiny.notebook(other))
    submission = read(folder)
    assert submission.problem == ""
    assert submission.notes == ("2 notebooks were handed in; final version.ipynb was graded",)
    (folder / "copy.ipynb").write_text(tiny.notebook(tiny.lab_cells()))
    assert "2 notebooks are of lab 00_tiny: copy.ipynb, final version.ipynb; hand in one" in read(folder).problem


def test_a_notebook_of_another_lab_is_refused_by_name(tmp_path, tiny):
    other = [{**cell, "id": cell["id"].replace("00-", "04-")} for cell in tiny.lab_cells()]
    path = tmp_path / "anna.ipynb"
    path.write_text(tiny.notebook(other))
    assert read(path).problem == "anna.ipynb is a notebook of lab 04, expected lab 00 (00_tiny)"


def test_links_pipes_and_unreadable_files_are_problems_not_errors(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("{}")
    link, pipe = tmp_path / "link.ipynb", tmp_path / "pipe.ipynb"
    link.symlink_to(secret)
    os.mkfifo(pipe)
    assert "is a link, which is not followed" in read(link).problem
    assert "not a plain file" in read(pipe).problem
    folder = tmp_path / "anna"
    folder.mkdir()
    (folder / "x.ipynb").symlink_to(secret)
    assert "holds no notebook" in read(folder).problem
    dangling = tmp_path / "gone.ipynb"
    dangling.symlink_to(tmp_path / "nowhere")
    assert read(dangling).problem and fingerprint(Entry("gone", dangling), "00_tiny")


def test_the_fingerprint_is_the_digest_and_follows_the_content(tmp_path, tiny):
    path = tmp_path / "anna.ipynb"
    path.write_text(tiny.notebook(tiny.lab_cells()))
    entry = Entry("anna", path)
    first = fingerprint(entry, "00_tiny")
    assert first == read(path).digest
    path.write_text(tiny.notebook(tiny.answered(double="def double(x): return 2 * x")))
    assert fingerprint(entry, "00_tiny") == read(path).digest != first


def test_a_notebook_inside_an_archive(tmp_path, tiny):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("__MACOSX/._lab.ipynb", b"\0")
        file.writestr("anna/.ipynb_checkpoints/lab.ipynb", "{}")
        file.writestr("anna/lab.ipynb", tiny.notebook(tiny.lab_cells()))
    path = tmp_path / "anna.zip"
    path.write_bytes(buffer.getvalue())
    submission = read(path)
    assert (submission.problem, submission.source) == ("", "anna.zip/anna/lab.ipynb")
    assert len(submission.cells) == len(tiny.lab_cells())
    json.dumps(submission.digest)


def test_a_folder_of_endless_attempts_has_its_last_twenty(tmp_path):
    for number in range(1, 61):
        (tmp_path / "subs" / "anna" / f"attempt-{number}").mkdir(parents=True)
    entries, _ = find_entries(tmp_path / "subs")
    assert [entry.attempt for entry in entries] == list(range(41, 61))


@pytest.mark.parametrize("target", ["a" * 300, "/proc/1/root/x", "loop", "."])
@pytest.mark.parametrize(
    "name", ["bert.ipynb", "submitted", "loop", "bert/attempt-1", "bert/00_tiny", "bert/timestamp.txt"]
)
def test_no_link_ends_the_batch_or_touches_another_student(tmp_path, tiny, name, target):
    (tmp_path / "anna.ipynb").write_text(tiny.notebook(tiny.lab_cells()))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(target)
    entries, _ = find_entries(tmp_path)
    read = {entry.student: read_submission(entry, "00_tiny", tmp_path) for entry in entries}
    assert len(read) == 2 and read.pop("anna").problem == ""
    (other,) = read.values()
    assert "is a link, which is not followed" in other.problem or "holds no notebook" in other.problem
    assert all(fingerprint(entry, "00_tiny") for entry in entries)


@pytest.mark.parametrize("name", ["bert", "submitted", "bert/00_tiny"])
def test_a_closed_folder_is_one_students_problem(tmp_path, tiny, name):
    (tmp_path / "anna.ipynb").write_text(tiny.notebook(tiny.lab_cells()))
    closed = tmp_path / name
    closed.mkdir(parents=True)
    closed.chmod(0)
    try:
        if os.access(closed, os.R_OK):
            pytest.skip("this user may read everything")
        if name == "submitted":
            with pytest.raises(ValueError, match="--layout students"):
                find_entries(tmp_path)
        entries, _ = find_entries(tmp_path, "students")
        read = [read_submission(entry, "00_tiny", tmp_path).problem for entry in entries]
    finally:
        closed.chmod(0o700)
    assert read[0] == "" and "cannot be read: Permission denied" in read[1]


def test_no_memory_is_not_the_fault_of_a_notebook(tmp_path, tiny, monkeypatch):
    """The grader's process is shared: whoever is read while another fills it must be read again, not be refused."""
    path = tmp_path / "anna.ipynb"
    path.write_text(tiny.notebook(tiny.answered(**tiny.RIGHT)))

    def full(*arguments, **more):
        raise MemoryError

    monkeypatch.setattr(json, "loads", full)
    with pytest.raises(MemoryError):
        read(path)
