"""What `segedu grade --doctor` says, on this machine and on machines that are pretended."""

from __future__ import annotations

import io
import os
import platform

import pytest
from rich.console import Console
from typer.testing import CliRunner

from segedu.cli import app
from segedu.grading import doctor
from segedu.grading.sandbox import cgroups, isolation_levels, landlock, restrictions, seccomp, trial_sandbox, trials


@pytest.fixture
def said(monkeypatch):
    """Runs the doctor with these levels and outcomes (this machine's own where None); its exit status and words."""

    def run(levels=None, outcomes=None):
        if levels is not None:
            monkeypatch.setattr(isolation_levels, "probe_levels", lambda: levels)
            monkeypatch.setattr(doctor, "run_trials", lambda level: outcomes or {})
        console = Console(file=io.StringIO(), width=300)
        return doctor.doctor(console), console.file.getvalue()

    return run


def _row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


def test_this_machine(said):
    code, text = said()
    best = max(level for level, works, _ in isolation_levels.probe_levels() if works)
    assert code == (0 if best >= 2 else 1)
    assert f"uses level {best}" in text and platform.release() in text
    assert text.count("level 1:") == len(
        [isolation for isolation in isolation_levels.possible_levels() if isolation.level == 1]
    )
    if best >= 2:
        for name in doctor.TRIAL_LABELS:
            if name != "user" or best == 3:
                assert " prevented" in _row(text, f"  {doctor.TRIAL_LABELS[name]}"), name
    if restrictions.LINUX:
        names = (
            "container",
            "user namespaces",
            "CAP_SYS_ADMIN",
            "seccomp",
            "Landlock",
            "mount API",
            "pidfd",
            "control",
        )
        for name in (*names, "interpreter", "bubblewrap"):
            assert _row(text, name)
        assert ("yes" in _row(text, "Landlock")) == (landlock.abi() > 0)


def test_the_command(monkeypatch):
    monkeypatch.setattr(doctor, "run_trials", lambda level: {})
    monkeypatch.setattr(isolation_levels, "probe_levels", lambda: [(2, True, "seccomp"), (1, True, "limits")])
    assert CliRunner().invoke(app, ["grade", "--doctor"]).exit_code == 0
    monkeypatch.setattr(isolation_levels, "probe_levels", lambda: [(3, False, "no namespaces"), (1, True, "limits")])
    assert CliRunner().invoke(app, ["grade", "--doctor"]).exit_code == 1


def test_level_one_is_said_loudly(said):
    code, text = said([(3, False, "unshare: EPERM"), (1, True, "limits")])
    assert code == 1
    assert "level 3: does not  unshare: EPERM" in text
    assert "uses level 1. It requires --i-trust-these-submissions" in text
    assert "A HOSTILE SUBMISSION CAN READ AND CHANGE YOUR FILES" in text


def test_only_what_was_tried_is_said(said):
    outcomes = {"network": (True, "refused: ENOENT"), "settings": (False, "possible: /proc/sys/x")}
    code, text = said([(3, True, "namespaces"), (1, True, "limits")], outcomes)
    assert code == 0 and "HOSTILE" not in text
    assert _row(text, "  connecting to sockets").split()[-3:] == ["prevented", "refused:", "ENOENT"]
    assert "not prevented" in _row(text, "  writing settings") and "/proc/sys/x" in _row(text, "  writing settings")
    assert doctor.TRIAL_LABELS["answers"] not in text and doctor.TRIAL_LABELS["memory"] not in text


def test_each_trial_has_its_line():
    assert {*doctor.TRIAL_LABELS} == {"user", *trials.TRIALS, *trials.EXHAUSTION_TRIALS} >= {*trial_sandbox.CLAIMED}


def test_ubuntu_is_told_which_setting(monkeypatch):
    files = {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}
    monkeypatch.setattr(doctor, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(doctor, "_container", lambda: (False, ""))
    assert any("apparmor_restrict_unprivileged_userns=0" in line for line in doctor.advice(2))
    files["/proc/sys/kernel/apparmor_restrict_unprivileged_userns"] = "0"
    assert not any("apparmor" in line for line in doctor.advice(2))
    files["/proc/sys/user/max_user_namespaces"] = "0"
    assert any("max_user_namespaces" in line for line in doctor.advice(2))
    assert not any("max_user_namespaces" in line for line in doctor.advice(3))


def test_a_container_is_seen(monkeypatch):
    monkeypatch.setattr(doctor, "_status", lambda field: "0")
    monkeypatch.setattr(doctor.os.path, "exists", lambda path: False)
    monkeypatch.delenv("container", raising=False)
    assert doctor._container() == (False, "not detected")
    monkeypatch.setattr(doctor, "_status", lambda field: "2")
    assert doctor._container()[0]
    monkeypatch.setattr(doctor.os.path, "exists", lambda path: path == "/run/.containerenv")
    assert doctor._container() == (True, "/run/.containerenv, a filter of system calls on this process")
    assert any("--security-opt" in line for line in doctor.advice(2))


@pytest.mark.skipif(not restrictions.LINUX, reason="namespaces are Linux's")
def test_refused_namespaces_are_told_with_the_reason(monkeypatch):
    child = os.fork()
    if child == 0:
        restrictions._prctl(38, 1)
        seccomp.apply(network=True)
        works, why = doctor._user_namespaces()
        os._exit(0 if not works and "EPERM" in why else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_missing_control_groups_are_told(monkeypatch):
    monkeypatch.setattr(cgroups, "parents", lambda *_: [])
    works, why = doctor._groups()
    assert not works and "memory and processes and processor checked four times" in why
    assert any("systemd-run --user --scope -p Delegate=yes" in line for line in doctor.advice(2))


def test_a_mac_is_told_what_it_lacks(said, monkeypatch):
    for module in (restrictions, isolation_levels):
        monkeypatch.setattr(module, "LINUX", False)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert {isolation.level for isolation in isolation_levels.possible_levels()} == {1}
    code, text = said([(1, True, "limits")])
    assert code == 1 and "levels 2 and 3 need Linux" in text and "Darwin" in text
    assert "grade on Linux" in text
