"""The tiny course for the tests of the grader's upper half, and a pool that runs steps in this process."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest

from segedu.grading.batch.grader_threads import pool_of_threads
from segedu.grading.sandbox.kernel_pool import RunResult, StepResult
from segedu.grading.sandbox.provisioner import ForkServer


def _load(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"grading_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module that makes the tiny course and notebooks for it."""
    return _load("tiny")


@pytest.fixture(scope="module")
def course(tiny, tmp_path_factory) -> Iterator[Path]:
    """The tiny course's checkout, installed as long as the tests of one file run."""
    with tiny.installed(tiny.make_course(tmp_path_factory.mktemp("course"))) as folder:
        yield folder


class InProcessPool:
    """Runs steps here, without a kernel, for tests of everything around it; it counts its runs."""

    isolation = SimpleNamespace(level=3, reason="a pretence, in this process")

    def __init__(self) -> None:
        self.runs = 0

    def run(self, steps, files_in, wanted, limits) -> RunResult:
        """As `KernelPool.run`."""
        self.runs += 1
        with tempfile.TemporaryDirectory() as work:
            for path, data in files_in.items():
                Path(work, path).parent.mkdir(parents=True, exist_ok=True)
                Path(work, path).write_bytes(data)
            namespace: dict = {"__name__": "__main__", "print": lambda *_: None}
            results = [self._step(step, namespace, work) for step in steps if not step.only_after]
            files = {str(p.relative_to(work)): p.read_bytes() for w in wanted for p in Path(work).glob(w)}
        return RunResult(results, 3, self.isolation.reason, files=files)

    @staticmethod
    def _step(step, namespace: dict, work: str) -> StepResult:
        if step.name == "forbidden":  # it replaces functions of other libraries for as long as the process lives
            return StepResult(step.name, step.kind, "ok")
        source = step.source.replace("@WORK@", work).replace("get_ipython().user_ns", "globals()")
        try:
            exec(compile(source, step.name, "exec"), namespace)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            return StepResult(step.name, step.kind, "error", type(error).__name__, str(error), text)
        return StepResult(step.name, step.kind, "ok")


@pytest.fixture
def pool() -> InProcessPool:
    """A fresh pool of pretence."""
    return InProcessPool()


@pytest.fixture
def open_pools(pool):
    """What `threads` takes in place of the sandboxed pools."""

    @contextlib.contextmanager
    def opened(job, hides, count):
        yield [pool] * count

    return opened


@pytest.fixture
def open_grader_pool(open_pools):
    """What `grade_batch` takes to grade in this process, with that pool."""
    return functools.partial(pool_of_threads, open_pools=open_pools)


@pytest.fixture(scope="session")
def still_running():
    """A function that gives those of some processes that have not ended after a minute.

    A zombie has ended: where the first process of a container reaps no orphans, it stays.
    """

    def left(processes) -> list[psutil.Process]:
        _, alive = psutil.wait_procs(list(processes), timeout=0)
        until = time.monotonic() + 60
        while alive and time.monotonic() < until:
            _, alive = psutil.wait_procs([process for process in alive if not _ended(process)], timeout=0.2)
        return [process for process in alive if not _ended(process)]

    return left


def _ended(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="session")
def server():
    """One warm fork server for all real pools of a session; each start of one takes seconds."""
    server = ForkServer.share()
    yield server
    server.close()
