"""Attacks on time, memory, processes, output and disk; each is bounded by itself, should the sandbox not hold it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tiny
from attack import EVERYWHERE, FULL_SANDBOX, RIGHT, Attack, beside_right


def with_cells(source: str, count: int = 11) -> Callable[[Path, str], Path]:
    """A right notebook with so many own cells of this source before its answers."""

    def make(folder: Path, name: str) -> Path:
        cells = tiny.answered(**RIGHT | {"double": f"# row: {name}\n{RIGHT['double']}"})
        cells[2:2] = [tiny.cell(f"mine-{i}", source) for i in range(count)]
        path = folder / f"{name}.ipynb"
        path.write_text(tiny.notebook(cells))
        return path

    return make


def costly(name: str, tries: str, right: str, total: str, **more) -> Attack:
    """An attack in the answer of `total`; the other two answers keep their points."""
    return beside_right(name, "limits", tries, right, answers={"total": total}, **more)


def before(name: str, tries: str, right: str, cell: str, **more) -> Attack:
    """An attack in a cell before right answers, which keep all their points."""
    return beside_right(name, "limits", tries, right, cell=cell, **more)


DEEP = """import os
os.chdir(os.environ["TMPDIR"])
for i in range({depth}):
    os.mkdir("d"); os.chdir("d")
open("leaf", "w").close()
os.chmod(".", 0o500)
"""

LIMITS = [
    before(
        "p25_deep_folders",
        "to end the grader, and each later one, by folders nested so deep that they are hard to remove",
        "removed",
        DEEP.format(depth=3000),
        levels=EVERYWHERE,
        twin=DEEP.format(depth=3),
    ),
    costly(
        "a06_sys_exit",
        "to leave by sys.exit(0)",
        "that exercise is 0, the next ones run",
        "import sys\ndef total(v):\n    sys.exit(0)",
        levels=EVERYWHERE,
        twin="import sys\ntry:\n    sys.exit(3)\nexcept SystemExit as end:\n    print(end.code)",
    ),
    before(
        "a06b_exit_cell",
        "to end the kernel by `exit()` in a cell",
        "the others run in a new kernel, without that cell",
        "exit()",
        levels=EVERYWHERE,
        own_loss=True,
        twin="if np.zeros(1).sum() > 1:\n    exit()",
    ),
    costly(
        "a07_os_exit",
        "to end the process in the check",
        "that exercise is 0, a new kernel runs the next",
        "import os\ndef total(v):\n    os._exit(0)",
        note="ended the kernel",
        levels=EVERYWHERE,
        twin="import os\npid = os.fork()\nif pid == 0:\n    os._exit(0)\nprint(os.waitpid(pid, 0)[1])",
    ),
    costly(
        "a14_flood",
        "to drown the grader in output",
        "cut, that exercise is 0",
        "def total(v):\n    for _ in range(60):\n        print('x' * 1_000_000)\n    return 0",
        note="printed too much|was stopped at the limit",
        levels=EVERYWHERE,
        twin="for i in range(2000):\n    print(i, 'x' * 100)",
    ),
    before(
        "a14b_flood_below_python",
        "to drown the grader through file descriptors and a child's output",
        "it goes to a file of the sandbox",
        "import os\nfor _ in range(100):\n    os.write(1, b'x' * 1_000_000)\n    os.write(2, b'y' * 1_000_000)",
        twin="import os\nos.write(1, b'a line of a library written in C')",
    ),
    before(
        "a15_memory",
        "to take three gigabytes at once and in pieces",
        "a memory error, noted as such",
        "pieces = []\nx = np.empty(3 << 30, dtype=np.uint8)\n",
        note="memory limit",
        twin="x = np.ones(150 << 17)\nprint(x.sum())\ndel x",
    ),
    before(
        "a15b_memory_of_children",
        "to take it in children, which each stay below the limit",
        "the control group ends them; the notebook goes on",
        """import os, time
children = []
for _ in range(9):
    pid = os.fork()
    if pid == 0:
        x = b"x" * (300 << 20)
        time.sleep(1.5)
        os._exit(0)
    children.append(pid)
for pid in children:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass""",
        levels=(3,),
        twin="import os\nfor _ in range(3):\n    if os.fork() == 0:\n        x = bytes(10 << 20)\n        os._exit(0)\n    os.wait()",
    ),
    before(
        "a16_forks",
        "to start more processes than there may be",
        "refused by the operating system; they end with the kernel",
        """import os, time
for _ in range(150):
    try:
        if os.fork() == 0:
            time.sleep(8)
            os._exit(0)
    except OSError as error:
        print(error)
        break
else:
    open("@BAIT@/all_forks_were_made", "w").write("150")
    raise RuntimeError("no limit")""",
        twin="import os\nfor _ in range(8):\n    if os.fork() == 0:\n        os._exit(0)\nfor _ in range(8):\n    os.wait()",
    ),
    costly(
        "a22_endless",
        "to run for ever",
        "stopped at the limit, that exercise is 0",
        "def total(v):\n    while True:\n        pass",
        note="was stopped at the limit",
        levels=EVERYWHERE,
        twin="import time\ntime.sleep(0.3)",
    ),
    costly(
        "a23_endless_deaf",
        "to run for ever and to ignore every signal that can be ignored",
        "killed at the limit",
        "import signal\nfor s in set(signal.valid_signals()) - {9, 19}:\n    try:\n"
        "        signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\n"
        "def total(v):\n    while True:\n        pass",
        note="was stopped at the limit",
        twin="import signal\nold = signal.signal(signal.SIGINT, signal.SIG_IGN)\nsignal.signal(signal.SIGINT, old)",
    ),
    costly(
        "n33_alarm",
        "to be killed by an alarm during the check",
        "that exercise is 0",
        "import signal, time\ndef total(v):\n    signal.setitimer(signal.ITIMER_REAL, 0.01)\n    time.sleep(2)\n    return 0",
        note="ended the kernel",
        levels=EVERYWHERE,
        twin="import signal\nsignal.signal(signal.SIGALRM, lambda *_: None)\nsignal.setitimer(signal.ITIMER_REAL, 0.05)",
    ),
    costly(
        "n33b_faulthandler",
        "to be ended by a watchdog of its own",
        "that exercise is 0",
        "import faulthandler, time\ndef total(v):\n    faulthandler.dump_traceback_later(0.05, exit=True)\n    time.sleep(2)",
        note="ended the kernel",
        levels=EVERYWHERE,
        twin="import faulthandler\nfaulthandler.dump_traceback_later(60)\nfaulthandler.cancel_dump_traceback_later()",
    ),
    costly(
        "n37_recursion",
        "to overrun the stack",
        "the kernel dies, that exercise is 0",
        "import sys\ndef total(v):\n    sys.setrecursionlimit(10**9)\n    class A:\n        def __repr__(self):\n"
        "            return repr(self)\n    return repr(A())",
        levels=EVERYWHERE,
        twin="def depth(n):\n    return 0 if n == 0 else 1 + depth(n - 1)\nprint(depth(800))",
    ),
    costly(
        "n38_null_pointer",
        "to crash the process",
        "the kernel dies, that exercise is 0",
        "import ctypes\ndef total(v):\n    ctypes.string_at(0)",
        note="ended the kernel",
        levels=EVERYWHERE,
        twin="import ctypes\nprint(ctypes.c_int(4).value, ctypes.sizeof(ctypes.c_double))",
    ),
    before(
        "n45_disk",
        "to fill the disk",
        "no space in the sandbox; the others keep their points",
        """made = 0
try:
    for i in range(4):
        with open(f"big{i}", "wb") as file:
            for _ in range(30):
                made += file.write(bytes(1 << 20))
except OSError as error:
    print(error, made)
import os
for i in range(4):
    if os.path.exists(f"big{i}"):
        os.remove(f"big{i}")""",
        twin="np.save('weights.npy', np.zeros(1 << 20))\nprint(np.load('weights.npy').shape)",
    ),
    before(
        "n45c_reserved_disk",
        "to reserve disk faster than the watch looks, without writing",
        "no space in the sandbox, or written so slowly that the watch sees it; the others keep their points",
        """import ctypes, os
made = 0
for i in range(8):  # 512 MiB where nothing holds it; the limit is 64 MiB
    file = os.open(f"reserved{i}", os.O_CREAT | os.O_RDWR)
    made += ctypes.CDLL(None).fallocate(file, 0, ctypes.c_long(0), ctypes.c_long(64 << 20)) == 0
    os.close(file)
for i in range(8):
    os.remove(f"reserved{i}")
assert made > 1, "held"  # where it is not, the cell ends well, and the note is missing""",
        note="did not run to completion",
        twin="import os\nwith open('small', 'wb') as f:\n    os.posix_fallocate(f.fileno(), 0, 1 << 20)\nprint(os.path.getsize('small'))",
    ),
    before(
        "n45b_inodes",
        "to use up every inode of the sandbox",
        "bounded; removed with it",
        """import os
os.mkdir("many")
try:
    for i in range(21_000):
        os.close(os.open(f"many/{i}", os.O_CREAT))
except OSError as error:
    print(error)
import shutil
shutil.rmtree("many")""",
        twin="import os\nfor i in range(200):\n    open(f'{i}.txt', 'w').close()",
    ),
    before(
        "n47_fork_chain",
        "to outrun its end: each process forks the next and dies",
        "they end with the kernel",
        """import os, time
if os.fork() == 0:
    os.setsid()
    until = time.time() + 15
    while time.time() < until:
        try:
            if os.fork() > 0:
                os._exit(0)
        except OSError:
            time.sleep(0.001)
    os._exit(0)""",
        twin="import subprocess, sys\nprint(subprocess.run([sys.executable, '-S', '-c', 'print(1)']).returncode)",
        twin_levels=(3, 1),
    ),
    before(
        "o30_deep_folders",
        "to make folders so deep that they cannot be removed",
        "removed all the same",
        """import os
here = os.getcwd()
for _ in range(3_000):
    os.mkdir("d")
    os.chdir("d")
os.chdir(here)""",
        twin="import os\nos.makedirs('/'.join(['d'] * 30))",
    ),
    before(
        "o31_locked_folders",
        "to leave folders that nobody may enter",
        "removed all the same",
        "import os\nos.makedirs('locked/inner')\nopen('locked/inner/x', 'w').close()\nos.chmod('locked/inner', 0)\n"
        "os.chmod('locked', 0)",
        twin="import os\nos.mkdir('mine')\nos.chmod('mine', 0o700)",
    ),
    before(
        "o32_dies_at_each_start",
        "to let each new kernel die while the old cells are run again",
        "such a cell is left out; the answers are graded",
        "import os, threading\nthreading.Timer(0.1, os._exit, [1]).start()",
        own_loss=True,
        twin="import threading\nthreading.Timer(0.05, lambda: None).start()",
    ),
    before(
        "o33_stops_itself",
        "to stop its own process, so that nobody answers",
        "killed at the limit; the answers are graded",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        note="was stopped at the limit",
        twin="import os, signal\nos.kill(os.getpid(), 0)",
    ),
    before(
        "o34_hundreds_of_cells_that_fail",
        "to drown the reports in notes",
        "bounded notes; full points for the answers",
        "raise RuntimeError('one')",
        last="raise RuntimeError('two')",
        twin="try:\n    raise RuntimeError('one')\nexcept RuntimeError as error:\n    print(error)",
    ),
    before(
        "o35_busy_children",
        "to keep every core busy after the notebook has ended",
        "they end with the kernel",
        """import os, time
for _ in range(20):
    if os.fork() == 0:
        until = time.time() + 10
        while time.time() < until:
            pass
        os._exit(0)""",
        twin="import time\nuntil = time.time() + 0.2\nwhile time.time() < until:\n    pass",
    ),
    beside_right(
        "o143_eleven_slow_cells",
        "limits",
        "nothing, perhaps: eleven own cells that would take longer than the whole notebook may",
        "each is stopped; every exercise has a share of the time that no cell can take, so full points",
        make=with_cells("import time\ntime.sleep(60)"),
        note="was stopped at the limit",
        levels=EVERYWHERE,
        make_twin=with_cells("import time\ntime.sleep(0.01)"),
    ),
    costly(
        "o144_slow_in_every_step",
        "to use the time of the other exercises: a slow cell, a slow function, slow imports of it",
        "only its own share is used",
        "import time\ntime.sleep(4)\n\n\ndef total(v):\n    time.sleep(60)",
        note="was stopped at the limit",
        levels=EVERYWHERE,
        twin="import time\n\n\ndef slow(v):\n    time.sleep(0.01)\n    return v",
    ),
]
assert FULL_SANDBOX
