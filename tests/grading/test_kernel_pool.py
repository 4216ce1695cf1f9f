"""Kernels under nbval's items: how steps end, what is replayed, and that nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from segedu.grading.sandbox.kernel_pool import KernelPool, Limits, RunResult, Step, _cut
from segedu.grading.sandbox.restrictions import SandboxError
from segedu.grading.sandbox.staged_library import build_stage
from segedu.teaching.checks import codec

QUICK = Limits(cell_seconds=20, total_seconds=120, memory_bytes=300 << 20)


pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    stage = build_stage(["segedu.ops.boxes"], tmp_path_factory.mktemp("stage") / "stage")
    with KernelPool(stage) as pool:
        yield pool


def _helper(source: str, name: str = "helper", timeout: float = 20) -> Step:
    return Step("helper", name, textwrap.dedent(source), timeout)


def _statuses(result: RunResult) -> list[str]:
    return [step.status for step in result.steps]


def test_steps_share_a_kernel_and_their_ends_are_told(pool):
    result = pool.run([
        Step("setup", "setup", "import math\nx = 3"),
        _helper("print('x is', x)\nx + 1"),
        Step("solution", "f", "def f():\n    raise ValueError('no')\n"),
        Step("probe", "p", "f()"),
        _helper("import sys; print('on stderr', file=sys.stderr)"),
        _helper("import sys; sys.exit(0)"),
        _helper("1 +"),
        Step("canary", "c", "assert x == 4, 'nonce'"),
        _helper("print(x)"),
    ])  # fmt: skip
    assert _statuses(result) == ["ok", "ok", "ok", "error", "ok", "error", "error", "error", "ok"]
    assert result.steps[1].output == "x is 3\n4\n"
    assert (result.steps[3].ename, result.steps[3].evalue) == ("ValueError", "no")
    assert "raise ValueError('no')" in result.steps[3].traceback and "\x1b" not in result.steps[3].traceback
    assert [result.steps[number].ename for number in (5, 6, 7)] == ["SystemExit", "SyntaxError", "AssertionError"]
    assert result.steps[7].evalue == "nonce"
    assert result.restarts == 0 and result.cpu_seconds > 0 and result.max_rss > 1 << 20


def test_death_is_noticed_and_the_rest_goes_on(pool):
    result = pool.run([
        Step("setup", "setup", "import os, ctypes, signal\nruns = []"),
        _helper("runs.append('helper'); print(runs)"),
        Step("solution", "bad", "runs.append('bad'); os._exit(3)"),
        Step("solution", "good", "runs.append('good'); print(runs)"),
        Step("probe", "segfault", "ctypes.string_at(0)"),
        Step("probe", "kill", "os.kill(os.getpid(), signal.SIGKILL)"),
        Step("probe", "after", "print(runs)"),
    ])  # fmt: skip
    assert _statuses(result) == ["ok", "ok", "died", "ok", "died", "died", "ok"]
    assert [step.restarted for step in result.steps] == [False, False, False, True, False, True, True]
    assert result.steps[3].output == result.steps[6].output == "['helper', 'good']\n"
    assert "exit status 3" in result.steps[2].evalue and "signal" in result.steps[4].evalue
    assert result.restarts == 3  # and none was waited for to its time limit, as stock nbval does


def test_a_helper_that_kills_later_is_left_out(pool):
    """It ended well, and killed the kernel from a thread when the next step ran."""
    result = pool.run([
        _helper("import os, threading; threading.Timer(0.5, os._exit, [1]).start()"),
        _helper("import time; time.sleep(5)"),
        _helper("import time; time.sleep(1); print('here')"),
    ])  # fmt: skip
    assert _statuses(result)[:2] == ["ok", "died"]
    assert result.steps[2].status in ("ok", "died", "skipped")
    assert result.restarts <= 10


@pytest.mark.parametrize("source", [
    "while True: pass",
    "import signal\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
    "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
])  # fmt: skip
def test_endless_steps_are_ended(pool, source):
    limits = replace(QUICK, cell_seconds=600, total_seconds=600)
    result = pool.run([_helper(source, timeout=1.5), _helper("print('next')", timeout=60)], limits=limits)
    assert _statuses(result) == ["timeout", "ok"]
    assert result.steps[0].wall < 300  # the step's own limit, not the cell's


def _makes_up(source: str, name: str, only_after: str) -> Step:
    return Step("helper", name, source, 20, only_after)


def test_a_step_may_run_only_where_the_one_before_it_failed(pool):
    stops = "above = 1\nprint(missing)\n@(lambda f: f)\ndef below(): return above\nabove = [2]\nopen('no')\nimport os.path as p"
    rest = f"from segedu.teaching.checks.rest_of_cell import run_rest; run_rest({stops!r})"
    result = pool.run([
        _helper("1"), _makes_up("never = 1", "never", "error"), _makes_up("never = 1", "never", "loss"),
        _helper(stops, "stops"), _makes_up(rest, "rest", "error"), _makes_up("never = 1", "never", "loss"),
        _helper("import os; os._exit(1)", "dies"), _makes_up("never = 1", "never", "error"),
        _makes_up("os = 1; import os; os._exit(1)", "dies too", "loss"), _makes_up("saved = 3", "saves", "loss"),
        _helper("print(above, below(), p.sep, saved, 'never' in globals())"),
    ])  # fmt: skip
    assert [step.name for step in result.steps[1:-1]] == ["stops", "rest", "dies", "dies too", "saves"]
    assert _statuses(result) == ["ok", "error", "ok", "died", "died", "ok", "ok"]
    assert result.steps[-1].output == "[2] [2] / 3 False\n"


@pytest.mark.parametrize(
    ("line", "value"),
    [("missing", 2), ("import no_such_module", 2), ("open('no')", 2), ("%no_such_magic", 2), ("{}['a']", 2),
     ("assert False", 1), ("raise NotImplementedError", 1), ("raise SystemExit", 1), ("1 / 0", 1)],
)  # fmt: skip
def test_what_replaces_a_value_below_a_line_that_fails(pool, line, value):
    """An assert has failed in the student's kernel too, and what stands below it has not run there."""
    stops = f"{line}\nold = 2\nnew = 3\nnew += 1"
    rest = f"from segedu.teaching.checks.rest_of_cell import run_rest; run_rest({stops!r})"
    of_another_cell = rest.replace("old = 2", "old = 9")
    result = pool.run([
        _helper("old = 1"), _helper(stops), _makes_up(rest, "rest", "error"), _helper(of_another_cell),
        _helper("print(old, new)"),
    ])  # fmt: skip
    assert result.steps[-1].output == f"{value} 4\n"


def test_the_limit_of_a_cell_bounds_the_step(pool):
    limits = Limits(cell_seconds=1)
    result = pool.run([_helper("import time; time.sleep(60)", timeout=60)], limits=limits)
    assert _statuses(result) == ["timeout"]


def test_the_limit_of_a_submission(pool):
    result = pool.run([_helper("while True: pass", timeout=60), _helper("1")], limits=Limits(total_seconds=3))
    assert _statuses(result) == ["timeout", "skipped"]
    assert "used up" in result.steps[1].evalue


def test_slow_cells_cost_no_exercise_anything(pool):
    """Each is ended at its limit, and together they would take more than there is."""
    slow = [_helper("import time; time.sleep(60)", f"cell {i}") for i in range(2, 9)]
    answers = [
        step
        for name in "abc"
        for step in (Step("solution", name, f"def {name}(): return k"), Step("probe", name, f"print({name}())"))
    ]
    result = pool.run([_helper("k = 7", "cell 1"), *slow, *answers], limits=Limits(cell_seconds=4, total_seconds=36))
    assert [step.status for step in result.steps[8:]] == ["ok"] * 6
    assert [step.output for step in result.steps[9::2]] == ["7\n"] * 3
    assert result.steps[1].status == "timeout" and not result.steps[1].hurried
    assert {step.status for step in result.steps[5:8]} <= {"timeout", "skipped"} and result.steps[5].hurried


def test_cells_that_are_too_slow_to_run_again_are_named(pool):
    steps = [
        _helper("import time; time.sleep(4); slow = 1", "cell 1"),
        _helper("quick = 2", "cell 2"),
        Step("solution", "a", "import os; os._exit(1)"),
        Step("probe", "a", "print(quick)"),
    ]
    result = pool.run(steps, limits=Limits(cell_seconds=10, total_seconds=12))
    assert _statuses(result) == ["ok", "ok", "died", "ok"]
    assert result.steps[3].output == "2\n" and result.steps[3].not_repeated == ("cell 1",)


@pytest.mark.parametrize("source", [
    "for _ in range(300): print('x' * 100_000)",
    "print('x' * 60_000_000)",
    "for number in range(10**8): print(number)",
    "from IPython.display import display, HTML\ndisplay(HTML('x' * 50_000_000))",
    "for _ in range(10**6): display(1)",
])  # fmt: skip
def test_floods_are_cut(pool, source):
    result = pool.run([_helper(source), _helper("print('next')")])
    assert _statuses(result) == ["flood", "ok"]
    assert len(result.steps[0].output) < 10_000


def test_output_below_the_limit_is_kept(pool):
    result = pool.run(
        [_helper("for _ in range(9): print('x' * 100_000)"), _helper("import os; os.system('yes | head -c 100000')")]
    )
    assert _statuses(result) == ["ok", "ok"]


def test_memory_is_bounded(pool):
    allocate = "import numpy as np\nx = np.ones({} << 17)\nprint('made')\ndel x"
    result = pool.run([
        _helper(allocate.format(100)), _helper(allocate.format(2000)),
        _helper("import torch; torch.ones(2000 << 18)"), _helper("x = bytearray(2 << 30)"), _helper("print('next')"),
    ], limits=QUICK)  # fmt: skip
    assert _statuses(result) == ["ok", "memory", "memory", "memory", "ok"]
    assert "memory limit" in result.steps[1].evalue or result.steps[1].ename == "MemoryError"


def test_memory_of_children_counts(pool):
    source = """
        import os, time
        for _ in range(12):
            if os.fork() == 0:
                x = b"x" * (100 << 20); time.sleep(2); os._exit(0)
        try:
            for _ in range(12): print(os.wait()[1])
        except ChildProcessError: pass
    """
    result = pool.run([_helper(source), _helper("print('next')")], limits=QUICK)
    if "memory" not in result.level_reason:
        pytest.skip("no control group for memory can be made here")
    assert result.steps[1].status == "ok"
    assert result.steps[0].status == "memory" or "9" in result.steps[0].output.split()


@pytest.mark.parametrize("attack", [
    "get_ipython().showtraceback = lambda *a, **k: None",
    "get_ipython()._showtraceback = lambda *a, **k: None",
])  # fmt: skip
def test_a_silenced_error_is_an_error(pool, attack):
    result = pool.run([_helper(attack), Step("probe", "p", "1 / 0"), Step("probe", "q", "1")])
    assert _statuses(result) == ["ok", "error", "ok"]
    assert result.steps[1].ename == "ZeroDivisionError"


def test_markers_in_a_students_source_mean_nothing(pool):
    result = pool.run([_helper("# NBVAL_SKIP\nprint('ran')"), _helper("# NBVAL_RAISES_EXCEPTION\n1 / 0")])
    assert _statuses(result) == ["ok", "error"]
    assert result.steps[0].output == "ran\n"


def test_forged_messages_do_not_reach_the_grader(pool):
    source = """
        kernel = get_ipython().kernel
        session, where = kernel.session, kernel.iopub_socket
        for content in ([], {"name": 3}, {"execution_state": "idle"}, "text", {"data": 5, "metadata": 1}):
            for kind in ("stream", "status", "display_data", "execute_result", "error", "nonsense"):
                session.send(where, kind, content=content, parent=kernel.get_parent())
        where.send_multipart([b"a", b"<IDS|MSG>", b"forged", b"{", b"{", b"{", b"{"])
        print("sent")
    """
    result = pool.run([_helper(source), _helper("print('next')")])
    assert result.steps[0].status in ("ok", "error")
    assert result.steps[1].status == "ok" and "next" in result.steps[1].output


def test_plots_and_widgets_are_quiet(pool):
    result = pool.run([
        _helper("import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show(); print(plt.get_backend())"),
        _helper("import ipywidgets; ipywidgets.IntSlider()"),
    ])  # fmt: skip
    assert _statuses(result) == ["ok", "ok"]
    assert "inline" in result.steps[0].output


def test_two_kernels_are_not_alike(pool):
    source = (
        "import random, uuid, numpy, torch as t\nprint(random.random(), numpy.random.rand(), t.rand(1), uuid.uuid4())"
    )
    first, second = (pool.run([_helper(source)]).steps[0].output.split() for _ in range(2))
    assert not set(first) & set(second)


def test_files_go_in_and_come_out(pool):
    """Cases in, outcomes out, also from a kernel that died and after a change of folder."""
    files = {"job/f/job.json": b'{"cases": 2}', "job/f/in/0.json": b"[1]", "job/f/in/1.json": b"[2]"}
    source = """
        import json, os, pathlib
        root = pathlib.Path("@WORK@/job/f")
        (root / "out").mkdir()
        for number in range(json.loads((root / "job.json").read_text())["cases"]):
            (root / "out" / f"{number}.json").write_bytes((root / "in" / f"{number}.json").read_bytes())
            if DIES: os._exit(1)
    """
    for dies, expected in (
        (False, {"job/f/out/0.json": b"[1]", "job/f/out/1.json": b"[2]"}),
        (True, {"job/f/out/0.json": b"[1]"}),
    ):
        probe = Step("probe", "f", textwrap.dedent(source).replace("DIES", str(dies)))
        moved = _helper("import os; os.chdir('/')")
        after = Step("probe", "again", "print(open('@WORK@/job/f/in/1.json').read(), where == '@WORK@')")
        result = pool.run([Step("setup", "s", "where = '@WORK@'"), moved, probe, after], files, ["job/*/out/*"])
        assert result.files == expected
        assert result.steps[3].output == "[2] True\n"


def test_what_an_earlier_kernel_left_stays(pool):
    write = "import os; os.makedirs('out', exist_ok=True); open('out/a', 'w').write('{}')"
    result = pool.run([
        Step("probe", "a", write.format("first")), Step("probe", "b", "import os; os._exit(0)"),
        Step("probe", "c", write.format("second")),
    ], output_patterns=["out/*"])  # fmt: skip
    assert result.files == {"out/a": b"first"}


def test_run_probe_works_inside(pool):
    probe = "from segedu.teaching.checks.remote import run_probe\nrun_probe('double', '@WORK@/job/double', globals())"
    files = {"job/double/job.json": b'{"probe": "call", "cases": 1}'}
    files.update({f"job/double/in/0.{name}": data for name, data in codec.pack({"args": [21]}).items()})
    result = pool.run([
        Step("solution", "double", "def double(x):\n    return 2 * x"),
        Step("probe", "double", probe),
    ], files, ["job/*/out/*"])  # fmt: skip
    assert _statuses(result) == ["ok", "ok"], result.steps
    got = codec.unpack(lambda name: result.files.get(f"job/double/out/0.{name}"))
    assert got["value"] == 42


def test_the_cold_path_gives_the_same(pool):
    with KernelPool(pool.stage, cold=True) as cold:
        steps = [_helper("x = 1; print(x)"), _helper("import os; os._exit(4)"), _helper("print(x)")]
        result = cold.run(steps)
    assert _statuses(result) == ["ok", "died", "ok"]
    assert result.steps[2].output == "1\n"


def test_a_stage_that_is_not_there(tmp_path):
    with KernelPool(tmp_path / "nowhere") as pool, pytest.raises(SandboxError):
        pool.run([_helper("1")])


def test_an_unknown_kind_is_refused(pool):
    with pytest.raises(ValueError, match="steps holds the kind 'magic'"):
        pool.run([Step("magic", "m", "1")])


def test_long_text_is_cut():
    assert _cut("\x1b[31mred\x1b[0m") == "red"
    long = _cut("a" * 10_000 + "b" * 10_000)
    assert len(long) < 4_100 and long.startswith("a") and long.endswith("b")


def test_a_timeout_shows_where_it_was(pool):
    result = pool.run([_helper("def spin():\n    while True:\n        pass\nspin()", timeout=1)])
    assert _statuses(result) == ["timeout"]
    assert "spin()" in result.steps[0].traceback and "KeyboardInterrupt" in result.steps[0].traceback


def test_orphans_end_with_the_run(pool):
    """A process that leaves its session and its parent has gone on until then."""
    source = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True:
                    open("beat", "w").write(str(time.time()))
                    time.sleep(0.05)
            os._exit(0)
        time.sleep(0.5)
        first = open("beat").read(); time.sleep(0.5)
        print(first != open("beat").read())
    """
    # from Python 3.12 on, a warning about threads and fork comes first
    assert pool.run([_helper(source)]).steps[0].output.endswith("True\n")
    until = time.monotonic() + 60
    while _kernels(pool) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _kernels(pool)


def _kernels(pool: KernelPool) -> set[int]:
    """What runs below the fork server, and copies of it that lost their parent."""
    found = {child.pid for child in psutil.Process(pool.server.process.pid).children(recursive=True)}
    mine = pool.server.process.args[-1]
    for process in psutil.process_iter(["ppid", "cmdline"]):
        if process.info["ppid"] == 1 and mine in (process.info["cmdline"] or ()):
            found.add(process.pid)
    return found


def test_kernels_end_with_the_fork_server_and_it_is_started_again(pool):
    threading.Timer(1.5, pool.server.process.kill).start()
    result = pool.run([_helper("import time; time.sleep(15)"), _helper("print('next')")])
    assert _statuses(result) == ["died", "ok"]


def test_kernels_end_with_the_grader(pool, still_running):
    source = f"""
        from segedu.grading.sandbox.kernel_pool import KernelPool, Step
        pool = KernelPool({str(pool.stage)!r}, cold=True)
        pool.run([Step("helper", "h", "import time; time.sleep(100)", 100)])
    """
    grader = subprocess.Popen([sys.executable, "-c", textwrap.dedent(source)], cwd=Path(__file__).parents[2])
    until = time.monotonic() + 60
    family: set[psutil.Process] = set()
    while len(family) < 3 and time.monotonic() < until:  # supervisor, init, kernel
        family = set(psutil.Process(grader.pid).children(recursive=True))
        time.sleep(0.1)
    time.sleep(1)
    grader.kill()
    grader.wait()
    assert len(family) >= 3
    assert still_running(family) == []


def test_exit_in_a_cell_ends_nothing(pool):
    result = pool.run([_helper("kept = 7"), _helper("exit()"), _helper("quit"), _helper("assert kept == 7")])
    assert _statuses(result) == ["ok"] * 4 and result.restarts == 0


def test_all_kernels_together_leave_no_more_than_one_may(pool):
    """A notebook that dies again and again could fill the grader's memory with what each kernel leaves."""
    die = """
        import os, pathlib
        number = len(list(pathlib.Path(".").glob("*"))) + int.from_bytes(os.urandom(6), "big")
        folder = pathlib.Path(f"job/{number}/out")
        folder.mkdir(parents=True)
        (folder / "x").write_bytes(bytes(3 << 20))
        os._exit(0)
    """
    limits = Limits(cell_seconds=20, total_seconds=120, disk_bytes=8 << 20)
    result = pool.run([_helper(die, f"helper {i}") for i in range(4)], output_patterns=["job/*/out/*"], limits=limits)
    assert _statuses(result) == ["died"] * 4
    assert sum(map(len, result.files.values())) <= 8 << 20 and len(result.files) == 2 and len(result.refused) == 2
