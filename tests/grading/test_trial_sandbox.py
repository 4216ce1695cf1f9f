"""The trials of a cell: they see what is not held, and they leave the machine as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segedu.grading.sandbox import cgroups, isolation_levels, trial_sandbox, trials
from segedu.grading.sandbox.isolation_levels import IsolationLevel, Limits
from segedu.grading.sandbox.restrictions import LINUX

pytestmark = pytest.mark.skipif(not LINUX, reason="levels that claim something are Linux's")
ROOT = os.geteuid() == 0


def _works(level: int) -> IsolationLevel:
    try:
        return isolation_levels.best_level(level)
    except isolation_levels.SandboxError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("level", [2, 3])
def test_a_level_that_works_holds_what_it_claims(level):
    isolation = _works(level)
    found = trial_sandbox.attempt(isolation, Limits())
    assert set(found) == {"user", *trials.TRIALS} and trial_sandbox.violations(isolation, found) == ""
    assert all(held for name, (held, _) in found.items() if name in trial_sandbox.claims(isolation)), found


@pytest.mark.skipif(not ROOT, reason="only root can stay root in a namespace")
def test_a_namespace_that_keeps_root_is_no_level_three():
    _works(3)
    works, reason = isolation_levels._try(IsolationLevel(3, user_namespace=True, seccomp=True, reason="kept root"))
    assert not works and "a cell could act as the grader's user (0 outside of the sandbox" in reason


def test_a_level_without_its_filter_does_not_count_as_working():
    _works(2)
    works, reason = isolation_levels._try(IsolationLevel(2, seccomp=False, landlock=False, reason="nothing"))
    assert not works
    for part in ("reach sockets of the machine", "reach the grader's process", "change files of the machine"):
        assert part in reason


@pytest.mark.parametrize("level", [2, 3])
@pytest.mark.parametrize("groups", [True, False], ids=["groups", "watch"])
def test_what_can_be_used_up_is_bounded(level, groups, monkeypatch):
    isolation = _works(level)
    if not groups:
        monkeypatch.setattr(cgroups, "parents", lambda *_: [])
    names = [*trials.EXHAUSTION_TRIALS]
    if ROOT and not groups and not isolation.own_user:
        names.remove("forks")  # the watch ends them a moment late, and no limit of processes counts for root
    found = trial_sandbox.exhaust(isolation, tuple(names), Limits())
    assert set(found) == set(names) and all(held for held, _ in found.values()), found


HARMLESS = """
import os, socket
from segedu.grading.sandbox import isolation_levels, restrictions, trial_sandbox
if os.geteuid() == 0:
    restrictions.check_call(restrictions.libc().unshare(0x20000 | 0x4000000), "unshare")  # should a trial be harmful after all
look = lambda: [open("/proc/self/mountinfo").read(), socket.gethostname(), os.getcwd(), os.stat("/").st_ino,
                os.listdir("/proc/self/ns"), open("/proc/sys/kernel/core_pattern").read(), open("/etc/passwd").read(),
                len(open("/proc/sysvipc/shm").readlines())]
before = look()
found = trial_sandbox.attempt(isolation_levels.IsolationLevel(1, reason="limits"), isolation_levels.Limits())
assert look() == before
print(sorted(name for name, (held, _) in found.items() if not held))
"""


def test_trials_are_harmless_where_nothing_holds_them():
    done = subprocess.run([sys.executable, "-c", HARMLESS], capture_output=True, text=True, timeout=120,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "'answers'" in done.stdout and "'network'" in done.stdout and "'processes'" in done.stdout
    assert "'stores'" not in done.stdout or not isolation_levels.seccomp.available()
