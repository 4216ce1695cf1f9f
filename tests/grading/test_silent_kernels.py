"""Kernels that no longer speak as a kernel should: each costs its own submission a step, and the grader nothing."""

from __future__ import annotations

import textwrap

import psutil
import pytest

from segedu.grading.sandbox import nbval_items
from segedu.grading.sandbox.kernel_pool import KernelPool, Limits, RunResult, Step
from segedu.grading.sandbox.staged_library import build_stage

pytestmark = pytest.mark.usefixtures("server")

ENDS = {"ok", "error", "died", "flood", "timeout"}
LIMITS = Limits(cell_seconds=8, total_seconds=120)

# what is done to the kernel -> what becomes of the cell that does it; "" where it may end in several ways
SILENCED = {
    "says neither busy nor idle": ("kernel._publish_status = lambda *a, **k: None", "died"),
    "says neither busy nor idle, and talks on": (
        """
        kernel._publish_status = lambda *a, **k: None
        def talk():
            while True:
                session.send(kernel.iopub_socket, "stream", {"name": "stdout", "text": "x"}, parent=parent)
                time.sleep(0.05)
        threading.Thread(target=talk, daemon=True).start()
        """,
        "died",
    ),
    "sends nothing to the output channel": ("session.send = lambda *a, **k: None", ""),
    "closes its connections after this answer": (
        """
        publish = kernel._publish_status
        def close_afterwards(status, *rest, **more):
            publish(status, *rest, **more)
            if status == "idle":
                threading.Timer(0.01, os.closerange, [3, 1024]).start()
        kernel._publish_status = close_afterwards
        """,
        "",
    ),
    "closes its connections at once": ("os.closerange(3, 1024)", ""),
    "answers with wrong types": (
        """
        send = session.send
        def odd(stream, kind, content=None, *rest, **more):
            if kind == "execute_reply":
                session.send = send
                content = {"status": ["ok"], "ename": {"a": 1}, "evalue": [[]] * 5, "traceback": 5}
            return send(stream, kind, content, *rest, **more)
        session.send = odd
        """,
        "error",
    ),
    "shows errors of wrong types": (
        """
        for content in ({"ename": 5, "evalue": {}, "traceback": "text"}, {"traceback": [1, {}]}, {}, {"traceback": None}):
            session.send(kernel.iopub_socket, "error", content, parent=parent)
        """,
        "error",
    ),
    "shows results of wrong types": (
        """
        for content in ({}, {"data": 5}, {"data": {"text/plain": [{}]}}, {"metadata": 5}, {"data": {}, "metadata": {}}):
            for kind in ("display_data", "execute_result", "stream", "status", "execute_input", "clear_output"):
                session.send(kernel.iopub_socket, kind, content, parent=parent)
        """,
        "ok",
    ),
    "says idle before it is": (
        """
        for _ in range(3):
            session.send(kernel.iopub_socket, "status", {"execution_state": "idle"}, parent=parent)
        """,
        "ok",
    ),
}
BEGINNING = """
import os, threading, time
kernel = get_ipython().kernel
session, parent = kernel.session, kernel.get_parent("shell")
"""


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    stage = build_stage(["segedu.ops.boxes"], tmp_path_factory.mktemp("stage") / "stage")
    with KernelPool(stage) as pool:
        pool.run([Step("setup", "setup", "1")])  # what is opened once is open now
        yield pool


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(nbval_items, "IDLE_SECONDS", 2.0)


def run(pool: KernelPool, source: str) -> RunResult:
    steps = [
        Step("setup", "setup", "kept = 7"),
        Step("helper", "mine", BEGINNING + textwrap.dedent(source)),
        Step("solution", "f", "def f():\n    return kept"),
        Step("probe", "f", "print(f())"),
    ]
    return pool.run(steps, limits=LIMITS)


@pytest.mark.parametrize("name", SILENCED)
def test_the_steps_after_it_run(pool, name):
    source, status = SILENCED[name]
    before = psutil.Process().num_fds()
    result = run(pool, source)
    statuses = [step.status for step in result.steps]
    assert statuses[0] == "ok" and set(statuses) <= ENDS, result.steps
    if "afterwards" not in source:  # which harms a later step of the same submission
        assert statuses[2:] == ["ok", "ok"] and result.steps[3].output == "7\n", result.steps
        assert statuses[1] == status or not status
    assert psutil.Process().num_fds() <= before


def test_it_is_as_harmless_in_an_answer(pool):
    source = BEGINNING + "def f():\n    kernel._publish_status = lambda *a, **k: None\n    return 1"
    steps = [
        Step("solution", "f", source),
        Step("probe", "f", "print(f())"),
        Step("probe", "g", "print(f is not None)"),
    ]
    result = pool.run(steps, limits=LIMITS)
    assert [step.status for step in result.steps] == ["ok", "died", "ok"]
    assert "no longer reports" in result.steps[1].evalue


def test_stopping_twice_is_stopping_once(pool, monkeypatch):
    stopped = []
    stop = nbval_items.SegKernel.stop

    def twice(self):
        stop(self)
        stop(self)
        stopped.append(self)

    monkeypatch.setattr(nbval_items.SegKernel, "stop", twice)
    result = pool.run([Step("helper", "h", "import os; os._exit(1)"), Step("helper", "i", "print(1)")])
    assert [step.status for step in result.steps] == ["died", "ok"] and len(stopped) == 2
