"""Control groups: where they are made, what is written, and what happens where they cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segedu.grading.sandbox import cgroups


@pytest.fixture
def version_two(tmp_path, monkeypatch) -> Path:
    """A folder that looks like our own group of version 2, delegated to us."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    (tmp_path / "own").write_text("1:name=systemd:/other\n0::/user.slice/grade.scope\n")
    group = tmp_path / "user.slice" / "grade.scope"
    group.mkdir(parents=True)
    (group / "cgroup.controllers").write_text("memory pids")
    (group / "cgroup.subtree_control").write_text("")
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "own")
    cgroups._delegate.cache_clear()
    yield group
    cgroups._delegate.cache_clear()


def _as_the_kernel_does(monkeypatch, without=()):
    """A new group has its files at once."""
    names = ("cgroup.procs", "cgroup.kill", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max")
    made = Path.mkdir

    def mkdir(self, *arguments, **options):
        made(self, *arguments, **options)
        for name in names:
            if name not in without:
                (self / name).touch()

    monkeypatch.setattr(Path, "mkdir", mkdir)


def test_a_delegated_group_is_divided(version_two, monkeypatch):
    _as_the_kernel_does(monkeypatch, without=("memory.swap.max",))  # as without swap
    groups = cgroups.make(1000, 20)
    (folder,) = groups.folders
    assert groups.limited == {"memory", "processes"} and folder.parent == version_two
    assert (folder / "memory.max").read_text() == "1000" and (folder / "pids.max").read_text() == "20"
    assert (folder / "memory.oom.group").read_text() == "1"
    assert (version_two / "cgroup.subtree_control").read_text() == "+memory +pids"
    (leaf,) = version_two.glob("segedu-grader-*")  # a group that divides holds no processes
    assert (leaf / "cgroup.procs").read_text() == str(os.getpid())
    assert len({cgroups.make(1, 1).folders[0] for _ in range(3)}) == 3
    (version_two.parents[1] / "own").write_text(f"0::/user.slice/grade.scope/{leaf.name}\n")
    assert cgroups.make(1, 1).folders[0].parent == version_two  # not below the leaf


def test_the_processors_are_shared_out_where_they_are_delegated(version_two, monkeypatch):
    (version_two / "cgroup.controllers").write_text("cpu memory pids")
    (version_two / "cgroup.subtree_control").write_text("cpu memory pids")
    names = ("memory.max", "pids.max", "cpu.weight")
    made = Path.mkdir

    def mkdir(self, *arguments, **options):
        made(self, *arguments, **options)
        for name in names:
            (self / name).touch()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    groups = cgroups.make(1000, 20)
    assert groups.limited == {"memory", "processes", "processor"}
    assert (groups.folders[0] / "cpu.weight").read_text() == "100"


def test_a_group_with_others_in_it_is_left_alone(version_two):
    (version_two / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    assert cgroups.make(1000, 20) == cgroups.Groups()
    assert not list(version_two.glob("segedu-*")) and not (version_two / "cgroup.subtree_control").read_text()


def test_a_group_without_the_controllers_is_left_alone(version_two):
    (version_two / "cgroup.controllers").write_text("hugetlb")
    assert cgroups.make(1000, 20).folders == []


def test_a_bound_that_cannot_be_written_is_not_claimed(version_two, monkeypatch):
    _as_the_kernel_does(monkeypatch, without=("memory.max",))
    assert cgroups.make(1000, 20).limited == {"processes"}
    _as_the_kernel_does(monkeypatch, without=("memory.max", "pids.max"))


def test_a_kill_for_memory_is_seen(tmp_path):
    groups = cgroups.Groups([tmp_path])
    (tmp_path / "memory.events").write_text("oom 0\noom_kill 0\n")
    assert not groups.out_of_memory()
    (tmp_path / "memory.events").write_text("oom 1\noom_kill 1\n")
    assert groups.out_of_memory()


def test_without_any_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "missing")
    groups = cgroups.make(1000, 20)
    assert groups == cgroups.Groups()
    groups.clear()


def test_what_is_still_in_a_group_is_ended_with_it():
    groups = cgroups.make(1 << 30, 64)
    if "processes" not in groups.limited:
        pytest.skip("no control group for processes can be made here")
    code = "import os, sys, time; open(sys.argv[1] + '/cgroup.procs', 'w').write('0'); print(1, flush=True); time.sleep(99)"
    folder = next(folder for folder in groups.folders if (folder / "pids.max").exists())
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"1\n"
        groups.clear()
        assert process.wait(10) == -9
    assert not folder.exists()


def test_groups_of_killed_graders_are_swept():
    groups = cgroups.make(1 << 30, 64)
    try:
        cgroups.sweep(time.time() - 600)
        assert all(folder.exists() for folder in groups.folders)
        cgroups.sweep(time.time() + 600)
        assert not any(folder.exists() for folder in groups.folders)
    finally:
        groups.clear()
