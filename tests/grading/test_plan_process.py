"""Plans are made in a child process: code that is expensive to read costs its own submission and nobody else's."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from segedu.grading.judging import plan_process
from segedu.grading.judging.lab_source import read_lab
from segedu.grading.judging.missing_names import names_read
from segedu.grading.judging.plan_process import answers_of, plan_of
from segedu.grading.judging.rebuild import rebuild, solutions
from segedu.grading.submissions.archive import SubmissionError
from segedu.grading.submissions.notebook import parse_notebook


@pytest.fixture
def lab(course, tiny):
    return read_lab(course, tiny.LAB)


@pytest.fixture
def read(tiny):
    return lambda cells: parse_notebook(tiny.notebook(cells).encode())


@pytest.fixture
def short(monkeypatch):
    """The child's limit of processor time, lowered to one second for children that start now."""
    plan_process._close_idle()
    monkeypatch.setattr(
        plan_process,
        "_CODE",
        plan_process._CODE.replace("plan_process.main", "plan_process.CPU_SECONDS = 1; plan_process.main"),
    )
    monkeypatch.setattr(plan_process, "CPU_SECONDS", 1)
    yield
    plan_process._close_idle()


def pieces(count: int) -> str:
    """An f-string of so many pieces: the parser's time grows with their square."""
    return "x = 1\ny = f'" + "{x}" * count + "'"


def test_a_plan_from_the_child_is_the_plan_of_rebuild(lab, read, tiny):
    cells = read([*tiny.answered(**tiny.RIGHT), tiny.cell("mine", "y = '\ud800'\n%time\n!ls\nmonai = 'ä'")])
    hides = ["segedu.ops.boxes", "torchvision.ops.box_area"]
    ours, theirs = rebuild(lab, cells, hides, 3.0, lambda: "word"), plan_of(lab, cells, hides, 3.0)
    canaries = [step for step in theirs.steps if step.kind == "canary"]
    assert [step for step in ours.steps if step.kind != "canary"] == [s for s in theirs.steps if s.kind != "canary"]
    assert (ours.state, ours.notes) == (theirs.state, theirs.notes)
    assert ours.nonces.keys() == theirs.nonces.keys() and all(theirs.nonces[c.name] in c.source for c in canaries)
    assert theirs.notes["an exercise without notes"] == []
    assert answers_of(lab, cells) == solutions(lab, cells) == tiny.RIGHT


def test_one_child_reads_many_submissions(lab, read, tiny):
    plan_process._close_idle()
    plan_of(lab, read(tiny.lab_cells()))
    (child,) = [plan_process._idle.get()]
    plan_process._idle.put(child)
    plan_of(lab, read(tiny.answered(**tiny.RIGHT)))
    assert plan_process._idle.get() is child and plan_process._idle.empty()
    child.close()
    with pytest.raises((RuntimeError, ValueError)):
        child.send_request({})


def test_code_that_takes_too_long_is_a_problem_with_a_limit_and_a_place(short, lab, read, tiny):
    cells = read([*tiny.answered(**tiny.RIGHT), tiny.cell("mine", pieces(110_000))])
    began = time.process_time()
    expected = r"takes more than 1 s, the limit; its longest code cell, at position 13, has 330013 characters"
    with pytest.raises(SubmissionError, match=expected):
        plan_of(lab, cells)
    assert time.process_time() - began < 1  # this process has waited, not worked
    assert plan_of(lab, read(tiny.answered(**tiny.RIGHT))).state == dict.fromkeys(tiny.RIGHT, "answered")


def test_a_notebook_that_uses_up_the_memory_is_a_problem_of_its_own(monkeypatch, lab, read, tiny):
    plan_process._close_idle()
    small = plan_process._CODE.replace("plan_process.main", "plan_process.MEMORY = 64 << 20; plan_process.main")
    monkeypatch.setattr(plan_process, "_CODE", small)
    cells = read([*tiny.answered(**tiny.RIGHT), tiny.cell("mine", "x=1;" * 200_000)])
    try:
        plan = plan_of(lab, cells)
    except SubmissionError as error:
        assert "memory, the limit" in str(error)
    else:  # the parser itself refused that cell, which was then left unread
        assert plan.state == dict.fromkeys(tiny.RIGHT, "answered")
    plan_process._close_idle()


def test_a_child_that_needed_much_memory_makes_room(lab, read, tiny):
    plan_process._close_idle()
    plan_of(lab, read([*tiny.answered(**tiny.RIGHT), tiny.cell("mine", "x=1;" * 200_000)]))
    assert plan_process._idle.empty()


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", SubmissionError, "Python's own parser ended"),
        ("raise SystemExit(3)", RuntimeError, "ended with exit status 3"),
        ("import signal, os; os.kill(os.getpid(), signal.SIGKILL)", RuntimeError, "ended with exit status -9"),
        ("import time; time.sleep(60)", RuntimeError, "the machine is overloaded"),
    ],
)
def test_how_a_child_may_end(monkeypatch, lab, read, tiny, code, kind, words):
    plan_process._close_idle()
    monkeypatch.setattr(plan_process, "_CODE", code)
    monkeypatch.setattr(plan_process, "WALL_SECONDS", 3.0)
    with pytest.raises(kind, match=words):
        plan_of(lab, read(tiny.lab_cells()))


def test_a_fault_of_ours_is_not_the_student_s(monkeypatch, lab, read, tiny):
    plan_process._close_idle()
    broken = "plan_process.rebuild = lambda *_: 1 / 0; plan_process.main"
    monkeypatch.setattr(plan_process, "_CODE", plan_process._CODE.replace("plan_process.main", broken))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        plan_of(lab, read(tiny.lab_cells()))


def test_the_child_ends_with_the_grader_and_imports_nothing_heavy():
    root = str(Path(plan_process.__file__).resolve().parents[3])
    code = f"import sys; sys.path.insert(0, {root!r}); from segedu.grading.judging import plan_process; print(*sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pytest", "zmq", "nbformat", "jupyter_client"} & set(ran.stdout.split())
    child = plan_process._Child()
    child.process.stdin.close()
    assert child.process.wait(60) == 0
    child.process.stdout.close()


@pytest.mark.parametrize("source", ["-" * 60_000 + "1", "a" + ".b" * 20_000, "lambda: " * 9_000 + "1", "1+" * 30_000 + "1",
    "not " * 20_000 + "x", "(" * 200 + ")" * 200, "f(" * 150 + ")" * 150, "[*" * 99 + "x" + "]" * 99, "x = " + "9" * 5_000,
    "if 1:\n" + "".join(" " * i + "if 1:\n" for i in range(1, 99)) + " " * 99 + "x", "@a\n" * 20_000 + "def f(): pass",
    "f'{" * 200, "x = {" + "1:{" * 190 + "}" * 191, "\0", "\ud800", "y = " + "'a' " * 20_000, "x[" * 190 + "]" * 190,
    "a = " * 20_000 + "1", "try: pass\nexcept: pass\n" * 2_000, "async def f():\n  await " + "await " * 5_000 + "x"])  # fmt: skip
def test_deep_and_long_code_is_read_or_left_unread(lab, read, tiny, source):
    """Python may refuse such a cell; the answers beside it are found all the same."""
    plan = plan_of(lab, read([tiny.cell("first", source), *tiny.answered(**tiny.RIGHT), tiny.cell("mine", source)]))
    assert plan.state == dict.fromkeys(tiny.RIGHT, "answered")


def test_names_of_thousands_of_functions_are_read_in_linear_time():
    def cost(count: int) -> float:
        source = "".join(f"def f{i}(x):\n    return g{i}(x)\n" for i in range(count))
        began = time.process_time()
        assert len(names_read(source)) == count
        return time.process_time() - began

    assert min(cost(8_000) for _ in range(3)) < 12 * min(cost(2_000) for _ in range(3))  # four times as many
