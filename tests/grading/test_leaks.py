"""After many runs everything is as before: descriptors, threads, processes, mounts, groups, folders, memory."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import psutil
import pytest

from segedu.grading.sandbox import isolation_levels, kernel_pool
from segedu.grading.sandbox.kernel_pool import KernelPool, Step
from segedu.grading.sandbox.restrictions import LINUX
from segedu.grading.sandbox.staged_library import build_stage

pytestmark = [pytest.mark.skipif(not LINUX, reason="asks /proc"), pytest.mark.usefixtures("server")]
RUN = [
    Step("helper", "child", "import os, subprocess; subprocess.Popen(['sleep', '100']); print(1)"),
    Step("helper", "dies", "import os; os._exit(1)"),
    Step("probe", "write", "open('out', 'w').write('x' * 100_000)"),
]
MEGABYTES = {15: 12, 200: 20}  # what allocators keep for next time, and no more with more runs


@pytest.fixture(scope="module", params=[3, 2])
def pool(request, tmp_path_factory):
    stage = build_stage([], tmp_path_factory.mktemp("stage") / "stage")
    if not any(works for level, works, _ in isolation_levels.probe_levels() if level == request.param):
        pytest.skip(f"no level {request.param} here")
    with KernelPool(stage, request.param) as pool:
        yield pool


def _state(pool: KernelPool) -> dict:
    server = pool.server.process.pid
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "processes": [child.pid for child in psutil.Process().children()],
        "server descriptors": len(os.listdir(f"/proc/{server}/fd")),
        "server children": psutil.Process(server).children(recursive=True),
        "files": sorted(os.listdir(pool.folder)),
    }


def _memory(pool: KernelPool) -> list[int]:
    return [psutil.Process(pid).memory_info().rss >> 20 for pid in (os.getpid(), pool.server.process.pid)]


@pytest.mark.parametrize("runs", [15, pytest.param(200, marks=pytest.mark.prove)])
def test_nothing_is_left_behind(pool, runs, monkeypatch):
    allocated = []

    def noting(*arguments):
        allocated.append(isolation_levels.allocate_resources(*arguments))
        return allocated[-1]

    monkeypatch.setattr(kernel_pool, "allocate_resources", noting)
    for _ in range(4):
        pool.run(RUN, output_patterns=["out"])
    gc.collect()
    before, held = _state(pool), _memory(pool)
    assert before["server children"] == []
    for _ in range(runs):
        result = pool.run(RUN, {"in": b"y"}, ["out"])
        assert [step.status for step in result.steps] == ["ok", "died", "ok"] and len(result.files["out"]) == 100_000
    gc.collect()
    until = time.monotonic() + 60
    while _state(pool) != before and time.monotonic() < until:
        time.sleep(0.1)  # supervisors end a moment after their kernels
    assert _state(pool) == before
    assert len(allocated) == 2 * (runs + 4)
    left = [
        path
        for resources in allocated
        for path in (*resources.groups.folders, resources.scratch)
        if path and path.exists()
    ]
    assert not left
    assert len({resources.job["uid"] for resources in allocated if resources.job["uid"]}) in (0, len(allocated))
    grown = [now - then for now, then in zip(_memory(pool), held, strict=True)]
    assert max(grown) <= MEGABYTES[runs], grown
