"""Hostile or merely odd input that once cost a batch, a record or an honest student's points; no kernel is needed."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from jupyter_client.session import Session

from segedu.grading.batch import reports
from segedu.grading.batch.batch import Batch
from segedu.grading.gradebook.atomic_files import as_text
from segedu.grading.judging import compare, student_code
from segedu.grading.judging.compare import make_exercise_cases, read_outcomes, refusals, verdict_of
from segedu.grading.judging.lab_source import read_lab
from segedu.grading.judging.rebuild import rebuild
from segedu.grading.judging.records import RecordStore
from segedu.grading.sandbox.kernel_messages import read_message
from segedu.grading.submissions import submission
from segedu.grading.submissions.archive import SubmissionError
from segedu.grading.submissions.find_submissions import find_entries, student_id
from segedu.grading.submissions.notebook import MAX_CODE, parse_notebook
from segedu.grading.submissions.submission import read_submission
from segedu.teaching.checks import codec
from segedu.teaching.checks.probes import call_grad

sys.path.append(str(Path(__file__).resolve().parents[1] / "grading"))
import tiny


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    with tiny.installed(tiny.make_course(tmp_path_factory.mktemp("course"))) as folder:
        yield folder


@pytest.fixture
def exercise_cases(course):
    from segedu.teaching.exercises import load

    return make_exercise_cases(load(tiny.LAB).exercises[0], tiny.LAB, 5)


@pytest.fixture
def plan_of(course):
    lab = read_lab(course, tiny.LAB)
    return lambda cells: rebuild(lab, parse_notebook(tiny.notebook(cells).encode()))


def steps(plan):
    return [f"{step.kind} {step.name}" for step in plan.steps if step.kind != "canary"]


def test_a_megabyte_of_empty_lines_is_read_at_once():
    began = time.process_time()
    student_code.oddities("x = 1" + "\n" * 1_000_000 + "y", ())
    assert time.process_time() - began < 2


def test_a_notebook_of_nothing_but_code_is_refused():
    cells = [tiny.cell(f"c{i}", "x\n" * 200_000) for i in range(6)]
    with pytest.raises(SubmissionError, match=f"kB of code, at most {MAX_CODE >> 10} kB"):
        parse_notebook(tiny.notebook(cells).encode())


@pytest.mark.parametrize("shape", ["(0, 4611686018427387904, 4611686018427387904)", f"(0, {10**30})"])
def test_a_header_of_an_impossible_size_is_a_note(exercise_cases, shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with pytest.raises(codec.CodecError):
        codec.read_npy(data)
    document = json.dumps({"dict": {"value": {"array": 0}, "arguments": {"list": []}}}).encode()
    outcomes, notes = read_outcomes(exercise_cases, {"job/double/out/0.json": document, "job/double/out/0.0.npy": data})
    assert outcomes[0] is None and len(notes) == 1


def test_whatever_breaks_the_reader_costs_one_outcome(exercise_cases, monkeypatch):
    def broken(*_):
        raise OverflowError("new")

    monkeypatch.setattr(compare.codec, "unpack", broken)
    outcomes, notes = read_outcomes(exercise_cases, {"job/double/out/0.json": b"{}"})
    assert outcomes == [None] * 4 and notes == ["1 of its outcomes could not be read: OverflowError"]


def test_what_a_student_names_cannot_carry_a_hidden_input_or_a_formula(exercise_cases):
    secret = '; =HYPERLINK(1) <b> {"args": [1.2345678901234567]} ' + "9" * 60
    told = [{"refused": f"a {secret}"}, {"raises": secret}, {"raises": "ZeroDivisionError"}]
    files = {
        f"job/double/out/{i}.{name}": data
        for i, outcome in enumerate(told)
        for name, data in codec.pack(outcome).items()
    }
    outcomes, _ = read_outcomes(exercise_cases, files)
    assert outcomes[1:3] == [{"raises": "Exception"}, {"raises": "ZeroDivisionError"}]
    texts = [*refusals(outcomes), verdict_of(exercise_cases, outcomes).first_line]
    assert not any(mark in text for text in texts for mark in ("=", "<", "{", ";", "9" * 25))


@pytest.mark.parametrize("change", [{"content": b"[1]"}, {"parent_header": "x"}, {"header": {"msg_type": ["error"]}}])
def test_messages_of_the_wrong_form_are_no_messages(change):
    session = Session(key=b"secret")
    message = session.msg("error", {"ename": "ValueError"}, parent={"msg_id": "1"})
    frames = session.serialize(message)
    assert read_message(session, frames, "iopub")["content"]["ename"] == "ValueError"
    wrong = {key: {**message[key], **value} if key == "header" else value for key, value in change.items()}
    assert read_message(session, session.serialize(message | wrong), "iopub") is None


@pytest.mark.parametrize("name", ["中" * 78, "𠀀" * 60, "é" * 200])
def test_a_name_of_many_bytes_has_a_record(tmp_path, name):
    student = student_id(name)
    RecordStore(tmp_path, "00_tiny").write({"student": student})
    assert (tmp_path / "00_tiny" / "records" / f"{student}.json").is_file()


def test_nobody_can_take_the_id_that_a_namesake_would_get(tmp_path):
    for name in ("Anna", "anna"):
        (tmp_path / f"{name}.ipynb").touch()
    (second,) = {entry.student for entry in find_entries(tmp_path)[0]} - {"anna"}
    (tmp_path / f"{second.replace('A', 'a', 1)}.ipynb").touch()  # what the namesake's id would be in small letters
    students = [entry.student.casefold() for entry in find_entries(tmp_path)[0]]
    assert len(set(students)) == len(students) == 3


def test_a_formula_behind_a_semicolon_is_text_and_any_file_name_can_be_printed():
    assert as_text("none fits; a;=cmd().ipynb") == "none fits; a;'=cmd().ipynb"
    "\n".join(reports.summary(Batch("00_tiny", [], ignored_files=["\udcff\x1b[31m.txt"]))).encode()


def test_a_parser_that_breaks_in_a_new_way_is_one_students_problem(tmp_path, monkeypatch):
    (tmp_path / "anna.ipynb").write_text("{}")

    def broken(*_):
        raise OverflowError("new")

    monkeypatch.setattr(submission, "parse_notebook", broken)
    (entry,) = find_entries(tmp_path)[0]
    assert read_submission(entry, tiny.LAB, tmp_path).problem == "anna.ipynb cannot be read: OverflowError"


def test_a_split_cell_is_put_together(plan_of):
    cells = tiny.answered(total="def total(values):\n    return add(values)")
    place = next(i for i, cell in enumerate(cells) if cell["id"] == "00-total")
    cells.insert(place, {**cells[place], "source": "def add(values):\n    return float(np.sum(values))"})
    plan = plan_of(cells)
    assert steps(plan) == ["setup imports", f"helper cell {place + 1}", "solution total", "probe total"]
    assert plan.notes["total"] == [f"total appears twice, used the second, at position {place + 2}"]


def test_of_two_attempts_the_one_that_the_check_saw_counts(plan_of):
    cells = tiny.answered(double="def double(x):\n    return x")
    place = next(i for i, cell in enumerate(cells) if cell["id"] == "00-double")
    cells.insert(place + 1, {**cells[place], "id": "copy", "source": tiny.RIGHT["double"]})
    plan = plan_of(cells)
    assert steps(plan) == ["setup imports", "helper cell 3", "solution double", "probe double"]
    assert plan.steps[2].source == tiny.RIGHT["double"]


def test_an_answer_in_the_check_cell_is_an_answer(plan_of):
    cells = tiny.lab_cells()
    check = next(cell for cell in cells if cell["id"] == "00-check-double")
    check["source"] = f"{tiny.RIGHT['double']}\n{check['source']}"
    plan = plan_of(cells)
    assert plan.state["double"] == "answered"
    assert steps(plan) == ["setup imports", "helper cell 4", "probe double"]


@pytest.mark.parametrize("line", ["drive.mount('/content/drive')", "print(a_name_of_our_figures)", "%pip install x"])
def test_a_line_that_fails_here_does_not_take_the_definitions_below_it(plan_of, line):
    source = f"{line}\n\n{tiny.RIGHT['double']}"
    after_error, after_loss = plan_of(tiny.answered(double=source)).steps[2:4]
    assert (after_error.only_after, after_loss.only_after) == ("error", "loss")
    assert after_error.source.endswith(f"run_rest({source!r})")
    namespace: dict = {}
    exec(after_loss.source, namespace)
    assert namespace["double"](4) == 8


def test_gradients_switched_off_in_the_notebook_are_on_in_the_probe():
    import torch

    with torch.no_grad():
        outcome = call_grad(lambda x: x**2, {"args": [torch.tensor(3.0)], "grad": [0]})
    assert np.array_equal(outcome["grads"][0], 6.0)
