"""What a kernel cannot do, at every level that works here, each beside something honest that it can.

One run per level of isolation does everything; the tests read what its steps printed.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import textwrap
from pathlib import Path

import pytest

from segedu.grading.sandbox import isolation_levels
from segedu.grading.sandbox.isolation_levels import IsolationLevel, _probed, possible_levels
from segedu.grading.sandbox.kernel_pool import KernelPool, Limits, RunResult, Step, StepResult
from segedu.grading.sandbox.restrictions import _without_masked
from segedu.grading.sandbox.staged_library import build_stage

LIMITS = Limits(cell_seconds=30, total_seconds=120, disk_bytes=8 << 20, inodes=600, processes=40)

STEPS = {
    "host_network": """
        import socket
        for family, address in ((socket.AF_INET, ("127.0.0.1", PORT)), (socket.AF_INET, ("1.1.1.1", 53))):
            try:
                with socket.socket(family, socket.SOCK_STREAM) as s:
                    s.settimeout(3)
                    s.connect(address)
                print("connected", address)
            except OSError as error:
                print("refused", type(error).__name__)
    """,
    "host_abstract_socket": """
        import socket
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect("\\0segedu-test-PORT")
            print("connected")
        except OSError as error:
            print("refused")
    """,
    "own_sockets": """
        import socket
        a, b = socket.socketpair()
        a.send(b"honest"); print(b.recv(6).decode())
        a.close(); b.close()
    """,
    "own_loopback": """
        import socket
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0)); server.listen()
            with socket.create_connection(server.getsockname(), 3): print("connected")
    """,
    "checkout": """
        import importlib.util, os
        for path in ("CHECKOUT/segedu/ops/boxes.py", "CHECKOUT/segedu/teaching/exercises/__init__.py", "SECRET"):
            try:
                open(path).read(); print("read", path)
            except OSError as error:
                print("refused", type(error).__name__)
        try:
            spec = importlib.util.spec_from_file_location("boxes", "CHECKOUT/segedu/ops/boxes.py")
            spec.loader.exec_module(importlib.util.module_from_spec(spec)); print("imported")
        except (OSError, ImportError):
            print("refused")
        import segedu
        print(os.path.exists("CHECKOUT/segedu/__init__.py"), segedu.__file__)
    """,
    "hidden": """
        import inspect, segedu.ops.boxes as boxes, sys
        try:
            boxes.box_iou(None, None)
        except Exception as error:
            print(type(error).__name__, error)
        print("clamp" in open(boxes.__file__).read(), "box_iou" in dir(boxes))
        print([name for name in sys.modules if name.startswith("segedu.grading")])
        try:
            import segedu.teaching.exercises.lab04_metrics.box_iou
            print("imported")
        except ImportError:
            print("refused")
    """,
    "masked": """
        try:
            open("MASKED/markdown.py").read(); print("read")
        except OSError:
            print("refused")
        import nbformat; print("honest")
    """,
    "memory_scan": """
        import re
        hidden = re.compile(b"Gradients fl[o]w to both sets")  # a pattern that does not match itself
        control = "CONTROL_" + "PRESENT"
        found, seen = 0, 0
        with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb") as memory:
            for line in maps:
                low, high = (int(part, 16) for part in line.split()[0].split("-"))
                if " rw" not in line or high - low > 1 << 28: continue
                try:
                    memory.seek(low); data = memory.read(high - low)
                except (OSError, ValueError): continue
                found += len(hidden.findall(data))
                seen += data.count(control.encode())
        print(found, seen > 0)
    """,
    "rights": """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        print([libc.mount(b"none", b"/tmp", b"tmpfs", 0, None), libc.umount2(b"/stage", 2), libc.chroot(b"/"),
               libc.unshare(0x10000000), libc.ptrace(16, 1, 0, 0)])
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        print(status["CapEff"].strip(), status["Seccomp"].strip(), status["NoNewPrivs"].strip())
    """,
    "write_system": """
        import os, segedu, numpy
        for path in ("/etc/x", "/usr/x", numpy.__file__, segedu.__file__, "/x"):
            try:
                open(path, "a").close(); print("written", path)
            except OSError:
                print("refused")
    """,
    "write_own": """
        import os, pathlib, tempfile
        pathlib.Path("mine.txt").write_text("honest")
        with tempfile.TemporaryFile() as file: file.write(b"honest")
        print(pathlib.Path("mine.txt").read_text(), pathlib.Path.home().is_dir())
    """,
    "processes": """
        import os
        print(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()) if os.path.isdir("/proc") else [])
        try:
            os.kill(GRADER, 0); print("visible")
        except OSError:
            print("refused")
        try:
            print("read", len(open("/proc/GRADER/environ").read()))
        except OSError:
            print("refused")
    """,
    "environment": """
        import os
        print("SEGEDU_TEST_SECRET" in os.environ, os.environ["LANG"], os.environ["HOME"] == os.path.expanduser("~"))
    """,
    "forks": """
        import os, time
        made = []
        try:
            for _ in range(300):
                pid = os.fork()
                if pid == 0:
                    time.sleep(30); os._exit(0)
                made.append(pid)
            print("all")
        except OSError as error:
            print("stopped", len(made))
        for pid in made: os.kill(pid, 9); os.waitpid(pid, 0)
        import subprocess
        print(subprocess.run(["echo", "honest"], capture_output=True, text=True).stdout)
    """,
    "disk": """
        import os
        written = 0
        try:
            with open("big", "wb") as file:
                for _ in range(64): written += file.write(bytes(1 << 20)); file.flush()
            print("all")
        except OSError as error:
            print("stopped", written >> 20)
        os.remove("big")
        try:
            for number in range(2000): open(f"file{number}", "w").close()
            print("all")
            import time; time.sleep(HOLD)  # where only the watch counts them, it has to have looked
        except OSError as error:
            print("stopped", number)
        for other in range(number): os.remove(f"file{other}")
        with open("small", "wb") as file: print(file.write(bytes(1000)))
    """,
    "work": """
        import torch, matplotlib.pyplot as plt, numpy as np
        from torch.utils.data import DataLoader
        torch.set_num_threads(2)
        x = torch.randn(300, 300, requires_grad=True)
        (torch.nn.functional.conv2d(x[None, None], torch.randn(8, 1, 3, 3)) @ torch.randn(298, 4)).sum().backward()
        print(x.grad.shape, sum(len(batch) for batch in DataLoader(list(range(10)), 5, num_workers=WORKERS)))
        plt.plot([1, 2]); plt.show()
    """,
    "shell": """
        %matplotlib inline
        !echo honest
    """,
    "links": """
        import os
        os.makedirs("out"); os.mkfifo("out/fifo"); os.symlink("SECRET", "out/link"); os.symlink("/", "out/root")
        os.mkdir("out/folder")
        with open("out/honest", "w") as file: file.write("honest")
        with open("out/large", "wb") as file: file.truncate(6 << 20)
    """,
}


pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Path:
    return build_stage(["segedu.ops.boxes"], tmp_path_factory.mktemp("stage") / "stage")


def _known() -> list[IsolationLevel]:
    return [isolation for isolation in possible_levels() if isolation.level >= 2]


def _title(isolation: IsolationLevel) -> str:
    return f"level{isolation.level}" + ("-user-namespace" if isolation.user_namespace else "")


@pytest.fixture(scope="module", params=_known(), ids=_title)
def ran(request, stage, tmp_path_factory) -> RunResult:
    """One run of all steps at one level of isolation, with two listeners and a secret on the host."""
    works = {isolation: (ok, reason) for isolation, ok, reason in _probed()}
    if not works[request.param][0]:
        pytest.skip(works[request.param][1])
    folder = tmp_path_factory.mktemp("host")
    secret = folder / "secret.txt"
    secret.write_text("secret")
    secret.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        port = tcp.getsockname()[1]
        unix.bind(f"\0segedu-test-{port}")
        unix.listen()
        result = _run(request.param, stage, port, secret)
    result.isolation = request.param
    result.by_name = {step.name: step for step in result.steps}
    return result


def _run(isolation: IsolationLevel, stage: Path, port: int, secret: Path) -> RunResult:
    mistune = Path(importlib.util.find_spec("mistune").origin).resolve().parent  # plays an installed segedu
    values = {
        "MASKED": mistune,
        "PORT": port, "CHECKOUT": Path(__file__).resolve().parents[2], "SECRET": secret, "GRADER": os.getpid(),
        "MARK": "/dev/null", "WRITES": False, "HOLD": 0 if isolation.level >= 3 else 8, "WORKERS": 2 if isolation.level >= 3 else 0,
    }  # fmt: skip
    steps = []
    for name, source in STEPS.items():
        for word, value in values.items():
            source = source.replace(word, str(value))
        steps.append(Step("helper", name, textwrap.dedent(source)))
    with pytest.MonkeyPatch.context() as patch, KernelPool(stage, isolation) as pool:
        patch.setenv("SEGEDU_TEST_SECRET", "1")
        patch.setattr(isolation_levels, "masked", lambda: [str(values["MASKED"])])
        return pool.run(steps, {"control": b"CONTROL_PRESENT"}, ["out/*", "out/*/*", "out/root/etc/*"], LIMITS)


def _step(ran: RunResult, name: str) -> StepResult:
    step = ran.by_name[name]
    assert step.status == "ok", step
    return step


def test_the_record_says_what_held_it(ran):
    assert ran.level == ran.isolation.level
    assert ran.level_reason.startswith(ran.isolation.reason)
    restarts = 0 if ran.level >= 3 else 1  # there the step that fills the disk is ended by the watch
    assert ran.restarts == restarts, [step for step in ran.steps if step.restarted]


def test_no_network(ran):
    assert _step(ran, "host_network").output.split().count("refused") == 2
    assert _step(ran, "own_sockets").output == "honest\n"
    if ran.level >= 3:
        assert _step(ran, "own_loopback").output == "connected\n"
    if ran.level >= 3 or ran.isolation.landlock:
        assert _step(ran, "host_abstract_socket").output == "refused\n"


def test_nothing_of_the_checkout_can_be_read(ran):
    output = _step(ran, "checkout").output
    assert output.split().count("refused") == 4, output
    assert output.strip().endswith("/stage/segedu/__init__.py")
    if ran.level >= 3:
        assert "False " in output


def test_hidden_modules_are_stubs(ran):
    lines = _step(ran, "hidden").output.splitlines()
    sentence = "segedu.ops.boxes.box_iou is not available while grading: this lab asks you to write it yourself"
    assert lines == [f"NotAvailableError {sentence}", "False True", "[]", "refused"]


def test_an_installed_copy_is_out_of_sight(ran):
    assert _step(ran, "masked").output == "refused\nhonest\n"


def test_hidden_code_is_not_in_memory(ran):
    assert _step(ran, "memory_scan").output == "0 True\n"


def test_no_rights(ran):
    calls, status = _step(ran, "rights").output.splitlines()
    assert calls == "[-1, -1, -1, -1, -1]"
    assert status == "0000000000000000 2 1"


def test_only_its_own_folders_can_be_written(ran):
    assert _step(ran, "write_system").output.split() == ["refused"] * 5
    assert _step(ran, "write_own").output == "honest True\n"


def test_other_processes_are_out_of_reach(ran):
    pids, kill, environ = _step(ran, "processes").output.splitlines()
    assert environ == "refused"
    if ran.level >= 3:
        assert pids == "[1, 2]"
        assert kill == "refused"


def test_the_environment_is_its_own(ran):
    assert _step(ran, "environment").output == "False C.UTF-8 True\n"


def test_fork_bomb_is_bounded(ran):
    # from Python 3.12 on, a warning about threads and fork comes between
    stopped, honest = [
        line for line in _step(ran, "forks").output.split("\n") if line.startswith(("stopped", "honest"))
    ]
    if os.geteuid() == 0 and ran.level < 3 and not ran.isolation.own_user and "processes" not in ran.level_reason:
        pytest.skip("root without a control group: nothing bounds its processes")
    assert stopped.startswith("stopped") and int(stopped.split()[1]) <= 60
    assert honest == "honest"


def test_disk_and_files_are_bounded(ran):
    if ran.level < 3:
        step = ran.by_name["disk"]
        assert step.status == "died" and "more than" in step.evalue and "files" in step.evalue
        return
    lines = _step(ran, "disk").output.splitlines()
    assert lines[-1] == "1000"
    assert lines[0].startswith("stopped") and int(lines[0].split()[1]) <= 8
    if ran.level >= 3:
        assert lines[1].startswith("stopped") and int(lines[1].split()[1]) <= 600


def test_honest_work_goes_on(ran):
    assert _step(ran, "work").output.startswith("torch.Size([300, 300]) 10")


def test_shell_commands(ran):
    if ran.level < 3:
        pytest.skip("a shell command needs a terminal; below level 3 those of the machine are closed")
    assert _step(ran, "shell").output.strip() == "honest"


def test_only_plain_files_come_out(ran):
    assert _step(ran, "links").status == "ok"
    assert ran.files["out/honest"] == b"honest"
    assert set(ran.files) == {"out/honest", "out/large"}
    assert {"out/link", "out/fifo", "out/root", "out/folder"} <= set(ran.refused)


def test_level_one_says_that_it_is_weak_and_works(stage):
    with KernelPool(stage, 1) as pool:
        result = pool.run([Step("helper", "honest", "print(1 + 1)"), Step("helper", "die", "import os; os._exit(3)")])
    assert [step.status for step in result.steps] == ["ok", "died"]
    assert result.level == 1
    assert "can read and write your files" in result.level_reason


def test_an_installed_copy_is_left_out_below_level_three(tmp_path):
    for name in ("a/segedu/x.py", "a/numpy/y.py", "b/z.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("a")  # as lib64 in a virtual environment
    kept = _without_masked(str(tmp_path), [f"{tmp_path}/a/segedu"])
    assert sorted(kept) == [f"{tmp_path}/a/numpy", f"{tmp_path}/b"]
