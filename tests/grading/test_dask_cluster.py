"""Dask's workers grade as threads do; one that is killed loses nothing."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import distributed
import pytest

from segedu.grading.batch import dask_cluster
from segedu.grading.batch.batch import Job, grade_batch
from segedu.grading.batch.grader_threads import pool_of_threads
from segedu.grading.sandbox.kernel_pool import probe_levels

sandboxed = pytest.mark.skipif(
    not any(works and level >= 2 for level, works, _ in probe_levels()), reason="this machine offers no sandbox"
)
HERE = Path(__file__).resolve().parent


def prepare(course: str, inbox: str) -> None:
    """On each worker: the tiny course among the exercises, and a working directory that students write into."""
    import sys

    sys.path.insert(0, str(HERE))
    import tiny

    from segedu.grading.batch import grader_process

    os.chdir(inbox)
    tiny.install(Path(course))
    grader_process._CODE = tiny.other_side(Path(course))


@contextlib.contextmanager
def cluster_of(course: Path, count: int, inbox: Path):
    """A scheduler and workers on this machine, each with the tiny course, also those that come later."""

    class Tiny(distributed.WorkerPlugin):
        def setup(self, worker):
            prepare(str(course), str(inbox))

    options = {"processes": True, "dashboard_address": None, "silence_logs": 50, "local_directory": None}
    with (
        distributed.LocalCluster(n_workers=count, threads_per_worker=1, **options) as local,
        distributed.Client(local, set_as_default=False) as client,
    ):
        client.register_plugin(Tiny(), name="tiny")
        yield local.scheduler_address, client


@pytest.fixture
def job(course, tiny, tmp_path):
    folder = tmp_path / "subs"
    folder.mkdir()
    wrong = {"double": "def double(x):\n    return x + 2"}
    for i in range(12):
        cells = tiny.answered(**tiny.RIGHT | (wrong if i % 3 == 0 else {}))
        (folder / f"s{i:02}.ipynb").write_text(tiny.notebook(cells) + " " * i)
    (folder / "broken.ipynb").write_text("{")
    silent = tiny.cell("silent", "get_ipython().kernel._publish_status = lambda *a, **k: None")
    (folder / "silent.ipynb").write_text(tiny.notebook([*tiny.answered(**tiny.RIGHT), silent]))
    (folder / "test_one").mkdir()
    (folder / "test_one" / "lab.ipynb").write_text(tiny.notebook(tiny.answered(**tiny.RIGHT)))
    for path in (folder / "conftest.py", folder / "test_one" / "conftest.py"):
        path.write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()")
    return Job(folder, tiny.LAB, tmp_path / "out", course, seed=4)


def timeless(batch) -> list[dict]:
    return [{key: value for key, value in record.items() if key != "measured"} for record in batch.records]


@sandboxed
def test_workers_that_are_killed_lose_nothing(job, course, server, tmp_path, monkeypatch):
    graded, killed = [], []
    with cluster_of(course, 2, job.submissions) as (address, client):

        def follow(done, total, student):
            graded.append(student)
            if done in (3, 7):  # a worker in the middle of its work, not its nanny: a new one takes its place
                pids = [pid for pid in client.run(os.getpid).values() if pid not in killed]
                killed.append(random.Random(done).choice(pids))
                os.kill(killed[-1], signal.SIGKILL)

        batch = grade_batch(replace(job, dask=address), follow)
    assert len(killed) == 2 and batch.graded == 16
    assert sorted(graded[1:]) == sorted({record["student"] for record in batch.records}) and len(graded) == 17
    assert [record["problem"] for record in batch.records if record["status"] == "failed"] == []
    here = grade_batch(replace(job, out=tmp_path / "here"), open_grader_pool=pool_of_threads)
    assert timeless(batch) == timeless(here)
    assert {record["points"] for record in here.records} == {0, 6, 9}
    points = {record["student"]: record["points"] for record in batch.records}
    assert points["silent"] == points["test_one"] == 9 and not (tmp_path / "mark").exists()


def test_a_scheduler_that_is_not_there(job, monkeypatch):
    monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 1)
    with pytest.raises(ValueError, match=r"--dask is tcp://127.0.0.1:9, where no scheduler answers .*: dask scheduler"):
        grade_batch(replace(job, dask="tcp://127.0.0.1:9"))


def test_a_scheduler_without_workers_and_a_worker_with_another_segedu(job, course, monkeypatch):
    with cluster_of(course, 0, job.submissions) as (address, client):
        with pytest.raises(ValueError, match="a scheduler without workers; start some: dask worker"):
            grade_batch(replace(job, dask=address))
        client.cluster.scale(1)
        client.wait_for_workers(1, timeout=60)
        monkeypatch.setattr(dask_cluster, "tool_version", lambda _: "9.9+other")
        with pytest.raises(ValueError, match=r"has segedu .*, this machine has 9.9\+other; install the same on both"):
            grade_batch(replace(job, dask=address))
