"""Export answers for plagiarism detectors: one folder per student, one file per exercise with the student's cell.

    JPlag   java -jar jplag.jar -l python3 -bc OUT/LAB/similarity/template OUT/LAB/similarity/students
    Dolos   dolos run -l python -f web OUT/LAB/similarity/students/*/box_iou.py
    MOSS    moss -l python -d -b OUT/LAB/similarity/template/box_iou.py OUT/LAB/similarity/students/*/*.py

`template` holds the stubs of the lab, which every answer contains. MOSS sends the files to another machine, together
with the names of the folders, which are the students' ids.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path

from segedu.grading.gradebook.atomic_files import write_derived
from segedu.grading.gradebook.roster import names_of_ids
from segedu.grading.judging import student_code
from segedu.grading.judging.lab_source import Lab, check_course, read_lab
from segedu.grading.judging.plan_process import answers_of
from segedu.grading.submissions.archive import SubmissionError
from segedu.grading.submissions.find_submissions import Entry, find_entries
from segedu.grading.submissions.submission import read_submission


def export_answers(out: Path, lab: str, submissions: Path, course: Path, layout: str = "auto") -> tuple[Path, int, int]:
    """Write the answers of each student's last attempt that holds one.

    Returns:
        The folder, the number of students with an answer, and the number of students without one.

    Raises:
        ValueError: if the course lies among the submissions.
    """
    check_course(course, submissions)
    lab_source, folder = read_lab(course, lab), out / lab / "similarity"
    for cell in lab_source.cells:
        if cell.role == "solution":
            _write(folder / "template" / f"{cell.name}.py", cell.source)
    entries, _ = find_entries(submissions, layout, out.resolve(), partial(names_of_ids, out / "roster.csv"))
    with_answer: set[str] = set()
    students = 0
    for student, answers in _answers(entries, lab_source, submissions):
        students += 1
        _write_student(folder / "students" / student, answers, lab_source)
        with_answer |= {student} if answers else set()
    _remove_others(folder / "students", with_answer, lab_source)
    return folder, len(with_answer), students - len(with_answer)


def _answers(entries: list[Entry], lab: Lab, root: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for student, attempts in groupby(entries, key=lambda entry: entry.student):
        answers: dict[str, str] = {}
        for entry in reversed(list(attempts)):
            with contextlib.suppress(SubmissionError):  # the code cannot be read within the limits
                answers = answers_of(lab, read_submission(entry, lab.name, root).cells)
            if answers:
                break
        yield student, answers


def _write(path: Path, source: str) -> None:
    write_derived(path, (student_code.strip_markers(source).rstrip() + "\n").encode(errors="replace"))


def _write_student(folder: Path, answers: dict[str, str], lab: Lab) -> None:
    for name in lab.exercises:
        if name in answers:
            _write(folder / f"{name}.py", answers[name])
        else:
            (folder / f"{name}.py").unlink(missing_ok=True)


def _remove_others(folder: Path, keep: set[str], lab: Lab) -> None:
    """Remove the folders of other students, unless they hold files that are not exported answers."""
    exported = {f"{name}.py" for name in lab.exercises}
    for old in folder.iterdir() if folder.is_dir() else ():
        if old.name not in keep and old.is_dir() and {path.name for path in old.iterdir()} <= exported:
            for path in old.iterdir():
                path.unlink()
            old.rmdir()
