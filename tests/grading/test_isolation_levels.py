"""Levels of isolation: tried once, best first, and what one kernel is given."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from segedu.grading.sandbox import isolation_levels
from segedu.grading.sandbox.isolation_levels import (
    IsolationLevel,
    Limits,
    allocate_resources,
    best_level,
    prefixes,
    probe_levels,
)
from segedu.grading.sandbox.restrictions import SandboxError


def test_levels_are_probed_in_order():
    levels = probe_levels()
    assert [level for level, _, _ in levels] == sorted((level for level, _, _ in levels), reverse=True)
    assert levels[-1][:2] == (1, True)
    assert best_level().level == max(level for level, works, _ in levels if works)


def test_a_level_that_is_not_there_is_refused():
    with pytest.raises(SandboxError, match="no sandbox of level 7"):
        best_level(7)


def test_a_rung_that_fails_is_passed_over_with_its_reason(monkeypatch):
    def tried():
        return [(IsolationLevel(3), False, "unshare: EPERM"), (IsolationLevel(2, reason="seccomp"), True, "seccomp")]

    monkeypatch.setattr(isolation_levels, "_probed", tried)
    assert best_level().level == 2
    with pytest.raises(SandboxError, match="level 3: unshare: EPERM"):
        best_level(3)


def test_each_kernel_gets_its_own_user_and_groups():
    allocated = [allocate_resources(IsolationLevel(3, own_user=True), Path("/nowhere"), Limits()) for _ in range(2)]
    try:
        users = {resources.job["uid"] for resources in allocated}
        groups = [folder for resources in allocated for folder in resources.groups.folders]
        assert len(users) == 2 and min(users) > 100_000
        assert len(set(groups)) == len(groups)
        assert not any(resources.out_of_memory() for resources in allocated)
    finally:
        for resources in allocated:
            resources.clear()
    assert not any(folder.exists() for folder in groups)


def test_below_level_three_the_scratch_folder_is_removed():
    resources = allocate_resources(IsolationLevel(1), Path("/nowhere"), Limits())
    assert sorted(path.name for path in resources.scratch.iterdir()) == ["home", "run", "tmp", "work"]
    resources.clear()
    assert not resources.scratch.exists()


def test_prefixes_do_not_overlap():
    found = prefixes()
    assert not [(a, b) for a in ("/usr", *found) for b in found if a != b and b.startswith(a + "/")]
    assert any(sys.prefix == folder or sys.prefix.startswith(folder + "/") for folder in ("/usr", *found))


def test_what_a_killed_grader_left_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(isolation_levels.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    monkeypatch.setattr(isolation_levels.cgroups, "parents", lambda *_: [(tmp_path / "groups", {}, {})])
    for name in (
        "temporary/segedu-run-old/work",
        "temporary/segedu-run-new",
        "temporary/other-old",
        "groups/segedu-old",
    ):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "groups" / "segedu-new").mkdir()
    (tmp_path / "temporary" / "segedu-pool-link").symlink_to(tmp_path / "temporary" / "other-old")
    for name in ("temporary/segedu-run-old", "temporary/other-old", "groups/segedu-old"):
        os.utime(tmp_path / name, (0, 0))
    isolation_levels.sweep()
    left = sorted(path.name for folder in ("temporary", "groups") for path in (tmp_path / folder).iterdir())
    assert left == ["other-old", "segedu-new", "segedu-pool-link", "segedu-run-new"]


def test_users_are_never_the_same_at_the_same_time():
    users = [isolation_levels.own_user() for _ in range(3000)]
    assert len(set(users)) == len(users)


def test_in_a_container_with_few_users_its_own_are_taken(tmp_path, monkeypatch):
    table = tmp_path / "uid_map"
    real = isolation_levels.Path
    monkeypatch.setattr(
        isolation_levels, "Path", lambda path: real(table if str(path) == "/proc/self/uid_map" else path)
    )
    table.write_text("         0     100000      65536\n")
    assert {61_000 < isolation_levels.own_user() < 65_530 for _ in range(5000)} == {True}
    table.write_text("         0          0 4294967295\n")
    assert isolation_levels.own_user() >= 0x7A000000


def test_what_no_group_holds_is_watched(monkeypatch):
    resources = allocate_resources(IsolationLevel(3), Path("/nowhere"), Limits())
    resources.clear()
    assert not {"memory", "processes"} & {*resources.job["watch"]} & resources.groups.limited
    monkeypatch.setattr(isolation_levels.cgroups, "parents", lambda *_: [])
    resources = allocate_resources(IsolationLevel(3), Path("/nowhere"), Limits())
    assert set(resources.job["watch"]) == {"memory", "processes", "sockets", "own_network", "busy"}
    resources = allocate_resources(IsolationLevel(1), Path("/nowhere"), Limits())
    folder = {"disk", "inodes", "folder", "terminals"}
    assert {"memory", "processes", "sockets", "busy", *folder} == set(resources.job["watch"])
    assert "a watch of disk and memory and processes" in isolation_levels.describe(IsolationLevel(1), resources)
    resources.clear()


def test_a_folder_that_was_closed_is_removed_too():
    resources = allocate_resources(IsolationLevel(1), Path("/nowhere"), Limits())
    (resources.scratch / "work" / "a" / "b").mkdir(parents=True)
    (resources.scratch / "work" / "a").chmod(0)
    resources.clear()
    assert not resources.scratch.exists()
