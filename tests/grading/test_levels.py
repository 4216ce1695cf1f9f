"""Levels of isolation on other machines: an ordinary user, a container, a machine that offers next to nothing, a Mac."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from segedu.grading.sandbox import cgroups, process_watch, provisioner, sandbox_files
from segedu.grading.sandbox.isolation_levels import IsolationLevel
from segedu.grading.sandbox.kernel_pool import KernelPool, Limits, Step
from segedu.grading.sandbox.restrictions import LINUX
from segedu.grading.sandbox.staged_library import build_stage

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not LINUX, reason="pretends other machines on Linux")
ROOT = os.geteuid() == 0


def _elsewhere(*words: str) -> dict:
    command = [sys.executable, str(HERE / "elsewhere.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _judge(came: dict, level: int) -> dict[str, str]:
    """The honest step went well, and nothing got through; what the attacks said, by name."""
    assert came["level"] == level, came["levels"]
    (honest, output, why), (status, attacks, _) = came["steps"]
    assert (honest, output) == ("ok", "thread\nhonest 3.0\n"), why
    assert status == "ok"
    said = dict(line.split() for line in attacks.splitlines())
    if level >= 2:
        refused = {name for name, answer in said.items() if answer == "refused"}
        sysctls = {name for name in said if name.startswith("sysctl")}
        assert refused == {"signal", "limits", "secret", "socket", "letter", "truncate", *sysctls} and len(sysctls) == 4
        assert (came["mode"], came["secret"]) == (0o600, "secret")
    return said


def test_an_ordinary_user_has_level_three():
    came = _elsewhere("user")
    if not any(works for level, works, _ in came["levels"] if level == 3):
        pytest.skip(came["levels"][0][2])
    assert _judge(came, 3)["uid"] == "65534"
    assert came["uid"] != 0 and came["user_namespace"]


def test_an_ordinary_user_without_namespaces_has_level_two():
    came = _elsewhere("user", "container")
    if not any(works for level, works, _ in came["levels"] if level == 2):
        pytest.skip(came["levels"][0][2])
    assert _judge(came, 2)["uid"] == str(came["uid"]) != "0"
    assert "EPERM" in came["levels"][0][2]
    assert "a watch of disk and memory" in came["reason"]


@pytest.mark.skipif(not ROOT, reason="root in a container needs root")
def test_root_in_a_container_gives_each_submission_a_user_of_its_own():
    came = _elsewhere("container", "readable")
    assert int(_judge(came, 2)["uid"]) > 1 << 24 and came["own_user"] and came["uid"] == 0
    assert [works for level, works, _ in came["levels"] if level == 3] == [False, False]


@pytest.mark.skipif(not ROOT, reason="root without a capability needs root")
@pytest.mark.parametrize("words", [("no-admin",), ("no-admin", "no-groups", "no-landlock")], ids="-".join)
def test_root_without_its_capability_gives_each_submission_a_user_of_its_own(words):
    """The user namespace that it makes must not keep the kernel as root on the machine's settings."""
    came = _elsewhere(*words)
    if not any(works for level, works, _ in came["levels"] if level == 3):
        pytest.skip(came["levels"][1][2])
    said = _judge(came, 3)
    assert came["user_namespace"] and came["uid"] == 0
    assert int(said["uid"]) == int(said["outside"]) > 1 << 24


@pytest.mark.skipif(not ROOT, reason="root without a capability needs root")
def test_behind_a_masked_proc_the_level_falls_with_the_reason():
    came = _elsewhere("no-admin", "masked-proc")
    if not any(works for level, works, _ in came["levels"] if level == 2):
        pytest.skip(came["levels"][-1][2])
    _judge(came, 2)
    refusals = [reason for level, works, reason in came["levels"] if level == 3 and not works]
    assert "mount proc: EPERM" in refusals[1], came["levels"]


def test_without_landlock_an_ordinary_user_is_told_that_nothing_holds():
    came = _elsewhere("user", "container", "no-landlock", "no-groups")
    said = _judge(came, 1)
    assert said["secret"] == said["signal"] == "done"  # the warning is no figure of speech
    assert "a hostile submission can read and write your files" in came["reason"]
    assert "a watch of disk and memory and processes" in came["reason"]


ORPHAN = """
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execlp("sleep", "sleep", "98765.{number}")
        os._exit(0)
    os.wait()
    print("made")
"""


def _sleepers(number: int) -> list[psutil.Process]:
    wanted = ["sleep", f"98765.{number}"]
    return [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == wanted]


def _gone(number: int) -> bool:
    until = time.monotonic() + 60
    while _sleepers(number) and time.monotonic() < until:
        time.sleep(0.1)
    left = _sleepers(number)
    for process in left:
        process.kill()
    return not left


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Path:
    return build_stage([], tmp_path_factory.mktemp("stage") / "stage")


@pytest.mark.parametrize("level", [1, 2])
def test_orphans_end_with_the_run_below_level_three(level, stage, server, monkeypatch):
    """They have left their session and their parents; here no namespace ends them, and no control group either."""
    monkeypatch.setattr(cgroups, "parents", lambda *_: [])
    number = os.getpid() * 10 + level
    with KernelPool(stage, level) as pool:
        steps = [Step("helper", "a", textwrap.dedent(ORPHAN.format(number=number)))]
        steps.append(Step("helper", "b", "import time; time.sleep(0.5)"))
        assert pool.run(steps).steps[0].output.endswith("made\n")
        assert not _sleepers(number)  # at once: their folder has been removed


@pytest.mark.parametrize(("level", "cold"), [(1, False), (2, False), (1, True)])
def test_orphans_end_with_a_killed_grader_below_level_three(level, cold, stage):
    number = os.getpid() * 10 + 5 + level + cold
    source = f"""
        from segedu.grading.sandbox.kernel_pool import KernelPool, Step
        pool = KernelPool({str(stage)!r}, {level}, cold={cold})
        step = Step("helper", "h", {textwrap.dedent(ORPHAN.format(number=number))!r})
        pool.run([step, Step("helper", "w", "import time; time.sleep(100)", 100)])
    """
    grader = subprocess.Popen([sys.executable, "-c", textwrap.dedent(source)], cwd=HERE.parents[1])
    until = time.monotonic() + 90
    while not _sleepers(number) and time.monotonic() < until and grader.poll() is None:
        time.sleep(0.2)
    made = bool(_sleepers(number))
    grader.kill()
    grader.wait()
    assert _gone(number) and made


BEYOND = {
    "memory": """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                x = b"x" * (100 << 20); time.sleep(15); os._exit(0)
        time.sleep(15)
    """,
    "files": "import time\nfor i in range(700): open(f'file{i}', 'w').close()\ntime.sleep(10)",
    "bytes": "import time\nfor i in range(12): open(f'big{i}', 'wb').write(bytes(1 << 20))\ntime.sleep(10)",
    "deleted": """
        import os, time
        kept = []
        for i in range(12):
            kept.append(open("gone", "wb")); kept[-1].write(bytes(1 << 20)); kept[-1].flush(); os.remove("gone")
        time.sleep(10)
    """,
}  # fmt: skip
WITHIN = """
    import os, time
    for _ in range(2):
        if os.fork() == 0:
            x = b"x" * (60 << 20); time.sleep(1); os._exit(0)
    for i in range(5): open(f"file{i}", "wb").write(bytes(1 << 20))
    time.sleep(1.5); print("honest")
"""
TIGHT = Limits(cell_seconds=30, memory_bytes=200 << 20, disk_bytes=8 << 20, inodes=600)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_watch_ends_what_no_limit_of_a_process_sees(level, stage, server, monkeypatch):
    monkeypatch.setattr(cgroups, "parents", lambda *_: [])
    names = ["memory"] if level == 3 else ["memory", "files", "bytes", "deleted"]
    steps = [Step("probe", "within", textwrap.dedent(WITHIN))]
    steps += [Step("probe", name, textwrap.dedent(BEYOND[name])) for name in names]
    with KernelPool(stage, level) as pool:
        result = pool.run([*steps, Step("probe", "after", "print('next')")], limits=TIGHT)
    assert "a watch of" in result.level_reason
    by_name = {step.name: step for step in result.steps}
    assert by_name["within"].output.endswith("honest\n"), by_name["within"]
    assert by_name["after"].output == "next\n"
    assert by_name["memory"].status == "memory" and by_name["memory"].wall < 14, by_name["memory"]
    for name in names[1:]:
        said = "files" if name == "files" else "bytes of files"
        assert by_name[name].status == "died" and said in by_name[name].evalue, by_name[name]


def test_the_path_of_a_mac(stage, monkeypatch):
    """No /proc, no pidfd, no fork server, no subreaper: cold kernels, limits, psutil, the group and who was seen."""
    pretend = (
        "import os, select, signal; from segedu.grading.sandbox import restrictions; restrictions.LINUX = False; del os.pidfd_open, "
        "signal.pidfd_send_signal; del select.POLLRDHUP; from segedu.grading.sandbox import fork_server; fork_server."
    )
    monkeypatch.setattr(
        provisioner,
        "_CODE",
        provisioner._CODE.replace("from segedu.grading.sandbox import fork_server; fork_server.", pretend),
    )
    for module in (provisioner, process_watch):
        monkeypatch.setattr(module, "LINUX", False)
    monkeypatch.setattr("segedu.grading.sandbox.kernel_pool.LINUX", False)
    monkeypatch.setattr(sandbox_files.sys, "platform", "darwin")
    monkeypatch.setattr(cgroups, "parents", lambda *_: [])
    number = os.getpid() * 10 + 9
    memory = Step("helper", "memory", textwrap.dedent(BEYOND["memory"]).replace("range(8)", "range(14)"))
    orphan = Step("helper", "orphan", textwrap.dedent(ORPHAN.format(number=number)))
    with KernelPool(stage, IsolationLevel(1, reason="limits")) as pool:
        result = pool.run([
            Step("helper", "honest", "import torch; open('x', 'w').write('y'); print(int(torch.ones(2).sum()))"),
            Step("helper", "stuck", "while True: pass", 2), memory, orphan, Step("probe", "exit", "import os; os._exit(3)"),
            Step("helper", "next", "print('next')"),
        ], output_patterns=["x"], limits=Limits(cell_seconds=30, memory_bytes=200 << 20))  # fmt: skip
    statuses = [step.status for step in result.steps]
    assert statuses == ["ok", "timeout", "memory", "ok", "died", "ok"], result.steps
    assert result.files == {"x": b"y"} and "exit status 3" in result.steps[4].evalue
    assert _gone(number)
