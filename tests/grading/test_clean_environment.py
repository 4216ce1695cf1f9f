"""The grader is started where the submissions lie, and nothing there is imported or taken as a setting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segedu.grading.sandbox import clean_environment
from segedu.grading.sandbox.kernel_pool import probe_levels
from segedu.grading.sandbox.restrictions import LINUX

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE))

import bait  # noqa: E402

ROOT = HERE.parents[1]
SANDBOXED = any(works and level >= 2 for level, works, _ in probe_levels())
sandboxed = pytest.mark.skipif(not SANDBOXED, reason="this machine offers no sandbox")
linux = pytest.mark.skipif(not LINUX, reason="inotify and resource limits are Linux's")


@pytest.fixture
def inbox(tmp_path, tiny):
    """A folder of submissions, of a name that pytest takes for tests, with everything that a student could add."""
    folder = tmp_path / "test_monday"
    (folder / "anna").mkdir(parents=True)
    (folder / "anna" / "lab.ipynb").write_text(tiny.notebook(tiny.answered(**tiny.RIGHT)))
    bait.lay(folder, tmp_path / "marks")
    bait.lay(folder / "anna", tmp_path / "marks")
    return folder


def marks(inbox: Path) -> dict[str, list[int]]:
    """Name of a file that was imported -> the processes that did."""
    found: dict[str, list[int]] = {}
    for path in (inbox.parent / "marks").iterdir():
        pid, _, name = path.name.partition("-")
        found.setdefault(name, []).append(int(pid))
    return found


def points(out: Path) -> list[float]:
    return [json.loads(path.read_text())["points"] for path in sorted(out.glob("*/records/*.json"))]


def grade(course: Path, tiny, cwd: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-P", tiny.__file__, str(course), "grade", *arguments, "--lab", tiny.LAB]
    command += ["--course", str(course), "--seed", "3"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@linux
@sandboxed
@pytest.mark.parametrize("where", ["in it", "in its parent", "in a submission"])
def test_nothing_of_the_inbox_is_read(inbox, course, tiny, tmp_path, where):
    cwd, given = {"in it": (inbox, "."), "in its parent": (tmp_path, "test_monday"), "in a submission": (inbox / "anna", "..")}[where]  # fmt: skip
    with bait.watched(inbox) as opened:
        done = grade(course, tiny, cwd, given, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert marks(inbox) == {} and max(points(tmp_path / "out")) == 9
    # a stray file beside the submissions may be one itself, and is then read as one
    settings = {Path(name).name for name in bait.SETTINGS} - {path.name for path in inbox.iterdir() if path.suffix}
    assert len(settings) > 3 and settings.isdisjoint(opened), opened


@sandboxed
def test_python_m_in_the_inbox_imports_nothing_of_it(inbox, tmp_path):
    command = [
        sys.executable,
        "-m",
        "segedu.cli",
        "grade",
        "anna/lab.ipynb",
        "--lab",
        "04_metrics",
        "--course",
        str(ROOT),
    ]
    environment = os.environ | {"PYTHONPATH": ""}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], cwd=inbox, env=environment, capture_output=True, text=True
    )
    assert marks(inbox) == {} and len(points(tmp_path / "out")) == 1, done.stdout + done.stderr


# runs in the inbox with variables that point there: what the process itself imports from there is Python's own doing
STARTS = """
import sys
sys.path[:] = [entry for entry in sys.path if entry not in ("", {inbox!r})]
import os, subprocess
from segedu.grading.sandbox import clean_environment
with clean_environment.empty_folder() as folder:
    code = {code!r}
    done = subprocess.run(
        clean_environment.python(code), cwd=folder, env=clean_environment.environment(folder), capture_output=True, text=True
    )
print(done.stdout, done.stderr)
"""
PROBE = f"""
sys.path.insert(0, {str(ROOT)!r})
import os
from pathlib import Path
from segedu.grading.batch import grader_threads
from segedu.grading.sandbox import kernel_pool, nbval_items
import matplotlib, numba, coverage, IPython, scipy.ndimage
nbval_items.items([("a", "1")], Path("x.ipynb"))
coverage.process_startup()
from jupyter_client.kernelspec import KernelSpecManager
KernelSpecManager().find_kernel_specs()
import matplotlib.pyplot
print("dpi", matplotlib.rcParams["figure.dpi"], "jit", not numba.config.DISABLE_JIT)
print("home", os.path.expanduser("~") == os.getcwd(), "path", all(map(os.path.isabs, sys.path)))
"""


def test_a_process_of_the_grader_takes_nothing_from_where_it_was_started(inbox):
    code = STARTS.format(inbox=str(inbox), code=PROBE)
    # the starter itself is a Python program without these: Python imports what they name before any code of ours runs
    fatal = ("PYTHONPATH", "PYTHONUSERBASE", "HOME", "COVERAGE_PROCESS_START")
    environment = os.environ | {name: value for name, value in bait.POINTERS.items() if name not in fatal}
    set_now = f"import os; os.environ.update({ {name: bait.POINTERS[name] for name in fatal}!r})\n"
    command = [sys.executable, "-P", "-c", set_now + code]
    done = subprocess.run(command, cwd=inbox, env=environment, capture_output=True, text=True)
    lines = done.stdout.split("\n")
    assert "dpi 100.0 jit True" in lines and "home True path True" in lines, done.stdout + done.stderr
    assert marks(inbox) == {}


def test_modules_are_found_where_they_are_installed_also_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "installed_elsewhere.py").write_text("print('found')")
    (tmp_path / "more" / "json.py").write_text("raise ImportError('later entries must not hide earlier ones')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", ".", str(tmp_path), str(tmp_path / "more"), *sys.path])
    code = f"import json, installed_elsewhere; assert {str(tmp_path)!r} not in sys.path and sys.flags.isolated"
    done = subprocess.run(clean_environment.python(code), cwd="/", capture_output=True, text=True)
    assert done.stdout == "found\n", done.stderr


def test_settings_are_dropped_and_the_rest_is_kept(monkeypatch):
    for name, value in bait.POINTERS.items():
        monkeypatch.setenv(name, value)
    for name in ("PATH", "TMPDIR", "SEGEDU_DATA", "OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "kept")
    kept = clean_environment.environment("/empty", OMP_NUM_THREADS="1")
    assert set(kept) & set(bait.POINTERS) == {"HOME"} and kept["HOME"] == "/empty" and kept["OMP_NUM_THREADS"] == "1"
    assert kept["SEGEDU_DATA"] == kept["TMPDIR"] == kept["ATEN_CPU_CAPABILITY"] == "kept"


IN_PROCESS = """
import os, sys
os.chdir({inbox!r})
from segedu.grading.sandbox.kernel_pool import KernelPool, Step
from segedu.grading.sandbox.staged_library import build_stage
with KernelPool(build_stage([], {stage!r})) as pool:
    source = "import matplotlib, numba\\nprint(matplotlib.rcParams['figure.dpi'], numba.config.DISABLE_JIT)"
    print(pool.run([Step("helper", "h", source)]).steps[0].output)
"""


@linux
@sandboxed
def test_kernels_take_nothing_from_a_process_that_stays_in_the_inbox(inbox, tmp_path):
    """Somebody's own script may hold the pools; its working directory is its own affair."""
    code = IN_PROCESS.format(inbox=str(inbox), stage=str(tmp_path / "stage"))
    with bait.watched(inbox) as opened:
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["100.0", "0"], done.stdout + done.stderr
    assert marks(inbox) == {} and opened == set()


@linux
@sandboxed
def test_gradescope_takes_nothing_from_the_submission(tmp_path):
    from segedu.grading.platforms.gradescope import RUN, SETTINGS, Settings

    root, lab = tmp_path / "autograder", "04_metrics"
    (root / "source" / "labs").mkdir(parents=True)
    (root / "submission").mkdir()
    (root / "source" / SETTINGS).write_text(json.dumps(vars(Settings(lab, 5))))
    (root / "source" / "labs" / f"{lab}.ipynb").write_bytes((ROOT / "labs" / f"{lab}.ipynb").read_bytes())
    perfect = (ROOT / "tests" / "submissions" / lab / "perfect.ipynb").read_bytes()
    (root / "submission" / f"{lab}.ipynb").write_bytes(perfect)
    bait.lay(root / "submission", tmp_path / "marks")
    (root / "run_autograder").write_text(RUN.replace("@FALLBACK@", "{}"))
    environment = os.environ | bait.POINTERS | {"SEGEDU_PYTHON": sys.executable}
    with bait.watched(root / "submission") as opened:
        subprocess.run(
            ["bash", str(root / "run_autograder")], cwd=root / "submission", env=environment, timeout=300, check=True
        )
    results = json.loads((root / "results" / "results.json").read_text())
    assert results.get("score") == 20, results
    assert not list((tmp_path / "marks").iterdir()) and opened <= {f"{lab}.ipynb"}


HUNGRY = """
import conftest, contextlib
from segedu.grading.batch import grader_threads
from segedu.grading.sandbox import clean_environment
clean_environment.MEMORY, clean_environment.MEMORY_EACH = 1 << 28, 1 << 20

@contextlib.contextmanager
def pools(assignment, hides, count):
    yield [conftest.InProcessPool() for _ in range(count)]

grader_threads.sandboxed_pools = pools
examine = grader_threads.examine

def hungry(submission, grading_setup, key):
    if submission.student == "hungry":
        held = [bytes(1 << 20) for _ in range(1 << 14)]
    return examine(submission, grading_setup, key)

grader_threads.examine = hungry
"""


@linux
def test_one_that_uses_up_the_graders_memory_harms_no_other(course, tiny, tmp_path, monkeypatch):
    from segedu.grading.batch import grader_process
    from segedu.grading.batch.batch import Job, grade_batch

    folder = tmp_path / "subs"
    folder.mkdir()
    for name in ("a", "b", "c", "hungry", "x", "y"):
        (folder / f"{name}.ipynb").write_text(tiny.notebook(tiny.answered(**tiny.RIGHT)))
    monkeypatch.setattr(grader_process, "_CODE", tiny.other_side(course, HUNGRY))
    records = {r["student"]: r for r in grade_batch(Job(folder, tiny.LAB, tmp_path / "out", course, jobs=2)).records}
    assert {name for name, record in records.items() if record["status"] == "failed"} == {"hungry"}
    assert "MemoryError" in records.pop("hungry")["problem"]
    assert {record["points"] for record in records.values()} == {9}


@linux
def test_the_folder_of_graders_whose_parent_was_killed_is_removed(tmp_path):
    (tmp_path / "tmp").mkdir()
    code = f"""
import tempfile
from segedu.grading.batch import grader_process
tempfile.tempdir = {str(tmp_path / "tmp")!r}
grader_process._CODE = "print(0, flush=True)\\n" + grader_process._CODE
grader_process._Graders(None, 1)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"0\n" and len(os.listdir(tmp_path / "tmp")) == 1
    process.kill()
    process.communicate()
    until = time.monotonic() + 60
    while os.listdir(tmp_path / "tmp") and time.monotonic() < until:
        time.sleep(0.05)
    assert os.listdir(tmp_path / "tmp") == []
