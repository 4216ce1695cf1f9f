"""Cost and robustness of grading: `python tests/benchmarks/grading.py cost|nbgrader|kills|dask`.

Each prints one line of figures at its end, which `make prove` keeps.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import psutil
import typer

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "submissions"), str(ROOT / "tests" / "grading")]
app = typer.Typer(add_completion=False, help=__doc__)
GRADE = [sys.executable, "-c", "from segedu.cli import app; app()", "grade"]


def command(folder: Path, lab: str, out: Path, jobs: int, *more: str) -> list[str]:
    """`segedu grade` of this checkout, with a fixed seed."""
    options = ["--course", str(ROOT), "--jobs", str(jobs), "--seed", "11", "--cell-seconds", "6"]
    return [*GRADE, str(folder), "--lab", lab, "--out", str(out), *options, *more]


@contextlib.contextmanager
def cpu_group() -> Iterator[Path | None]:
    """A control group that counts the CPU time of all its processes, or None if none can be created."""
    for parent, file in ((Path("/sys/fs/cgroup/cpuacct"), "cpuacct.usage"), (Path("/sys/fs/cgroup"), "cpu.stat")):
        group = parent / f"segedu-cost-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / file).is_file():
                yield group / file
                return
        finally:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    group.rmdir()
                    break
                time.sleep(0.05)
    yield None


def cpu_seconds(file: Path) -> float:
    """CPU-seconds that a group has used."""
    text = file.read_text()
    if file.name == "cpuacct.usage":
        return int(text) / 1e9
    return int(dict(line.split() for line in text.splitlines())["usage_usec"]) / 1e6


def run(arguments: list[str], group: Path | None = None, peak: list[int] | None = None) -> float:
    """Run a command to its end; returns wall seconds. `peak` gets the largest resident size of the process itself, in bytes."""
    enter = (lambda: (group.parent / "cgroup.procs").write_text(str(os.getpid()))) if group else None
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=enter,
                               env=environment, text=True)  # fmt: skip
    if peak is not None:
        threading.Thread(target=_watch, args=(process.pid, peak), daemon=True).start()
    text = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}:\n{text[-3000:]}")
    return time.monotonic() - began


def _watch(pid: int, peak: list[int]) -> None:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        while True:
            peak.append(process.memory_info().rss)
            time.sleep(0.25)


def honest(folder: Path, count: int) -> Path:
    """Write so many correct notebooks of lab 4, no two equal."""
    from make import Maker

    text = Maker("04_metrics").all()["perfect.ipynb"]
    folder.mkdir()
    for number in range(count):
        (folder / f"s{number:03}.ipynb").write_text(text + " " * number)
    return folder


@app.command()
def cost(count: int = 100, jobs: int = 1) -> None:
    """CPU-seconds of a submission of lab 4, and the part of the student's own code."""
    with tempfile.TemporaryDirectory() as folder, cpu_group() as group:
        if group is None:
            raise SystemExit("no control group can be made here, and nothing else counts every process")
        subs = honest(Path(folder, "subs"), count)
        one = honest(Path(folder, "one"), 1)
        run(command(one, "04_metrics", Path(folder, "first"), 1), group)
        start = cpu_seconds(group)
        wall = run(command(subs, "04_metrics", Path(folder, "out"), jobs), group)
        whole = cpu_seconds(group) - start
        # what a batch costs once (the fork server, the reports) was paid by the batch of one, with one submission
        each = (whole - start) / (count - 1)
        own = statistics.median(own_seconds() for _ in range(5))
        print(f"{count} honest submissions of lab 4, {jobs} at a time, {wall:.0f} s: {each:.2f} CPU-seconds each,"
              f" {own:.3f} of them the student's own code, {each - own:.2f} beyond it; 100,000 submissions take"
              f" {each * 100_000 / 3600:.0f} CPU-hours")  # fmt: skip


def own_seconds() -> float:
    """CPU time of the correct answers alone on all cases."""
    from make import solution_cells

    from segedu.teaching import exercises
    from segedu.teaching.checks.judge import draw, outcomes_of

    module = exercises.load("04_metrics")
    drawn = {exercise.name: draw(exercise, 11) for exercise in module.exercises}
    namespace: dict = {"__name__": "__main__"}
    exec("import numpy as np\nimport torch\nfrom torch import Tensor", namespace)
    began = time.process_time()
    for name, source in solution_cells("04_metrics").items():
        exec(compile(source, name, "exec"), namespace)
    for exercise in module.exercises:
        outcomes_of(exercise, namespace[exercise.name], drawn[exercise.name])
    return time.process_time() - began


@app.command()
def kills(labs: Annotated[list[str] | None, typer.Argument()] = None, count: int = 250, times: int = 20) -> None:
    """Mixed submissions graded in one go, and killed at random moments: the same gradebook, byte for byte."""
    labs = labs or ["04_metrics", "06_unet"]
    from crowd import Crowd

    with tempfile.TemporaryDirectory() as folder:
        whole, broken, peak, seconds = Path(folder, "whole"), Path(folder, "broken"), [], 0.0
        for lab in labs:
            expected = Crowd(lab).write(Path(folder, lab), count)
            spent = run(command(expected.parent, lab, whole, 2, "--expect", str(expected)), peak=peak)
            print(f"{lab}: {count} as expected in {spent:.0f} s", flush=True)
            seconds += spent
        rng, graded = random.Random(5), []
        for lab in labs:
            for _ in range(times // len(labs)):
                graded.append(_kill(command(Path(folder, lab), lab, broken, 2), broken / lab, rng, count))
            run(command(Path(folder, lab), lab, broken, 2))
        same = [lab for lab in labs if _csv(broken / lab) == _csv(whole / lab)]
        if same != labs:
            raise SystemExit(f"the gradebooks of {set(labs) - set(same)} differ")
        print(f"records at each kill: {graded}")
        print(f"{len(labs)} labs, {count * len(labs)} submissions in {seconds:.0f} s, {len(graded)} kills:"
              f" {len(same)} gradebooks equal byte for byte; the parent had {max(peak) >> 20} MiB at most,"
              f" {peak[len(peak) // 4] >> 20} after a quarter of the time, {peak[-2] >> 20} at the end")  # fmt: skip


def _kill(arguments: list[str], folder: Path, rng: random.Random, count: int) -> int:
    """Start, wait for a random number of further records, send SIGKILL; returns the number of records."""
    records = folder / "records"
    there = len(list(records.glob("*.json"))) if records.is_dir() else 0
    until = min(count - 1, there + rng.randrange(1, max(2, count // 10)))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    while process.poll() is None and (not records.is_dir() or len(list(records.glob("*.json"))) < until):
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 0.7))
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(list(records.glob("*.json")))


def _csv(folder: Path) -> bytes:
    return (folder / "grades.csv").read_bytes()


@app.command()
def nbgrader(count: int = 12, rounds: int = 3) -> None:
    """Submissions per second beside `nbgrader autograde`, on the same correct notebooks of lab 4, alternating."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # nbgrader calls alembic by name
    nbgrader_command = shutil.which("nbgrader")
    with tempfile.TemporaryDirectory() as folder:
        course = Path(folder, "course")
        tool = [sys.executable, "-c", "from segedu.cli import app; app()"]
        run([*tool, "nbgrader", "04_metrics", "--course", str(ROOT), "--out", str(course)])
        os.chdir(course)
        run([nbgrader_command, "generate_assignment", "04_metrics"])
        subs = honest(Path(folder, "subs"), count)
        for path in subs.iterdir():
            place = course / "submitted" / path.stem / "04_metrics"
            place.mkdir(parents=True)
            shutil.copy(path, place / "04_metrics.ipynb")
        theirs, ours = [], []
        for number in range(rounds):
            shutil.rmtree(course / "autograded", ignore_errors=True)
            theirs.append(run([nbgrader_command, "autograde", "04_metrics", "--force"]) / count)
            ours.append(run(command(subs, "04_metrics", Path(folder, f"out{number}"), 2)) / count)
            print(f"nbgrader {theirs[-1]:.2f} s, segedu {ours[-1]:.2f} s a submission", flush=True)
        os.chdir(ROOT)
        ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
        print(f"{count} honest submissions of lab 4, {rounds} rounds: nbgrader {statistics.median(theirs):.2f} s each,"
              f" segedu {statistics.median(ours):.2f} s, {ratio:.1f} times the throughput")  # fmt: skip


@app.command()
def dask(count: int = 2000, kill_every: int = 100) -> None:
    """A small lab's submissions through Dask's LocalCluster, whose workers are killed at random."""
    with tempfile.TemporaryDirectory() as folder, cpu_group() as group:
        script = Path(folder, "dask_trial.py")  # Dask's workers import the main module: it must do nothing there
        lines = [f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})", "import grading"]
        script.write_text(
            "\n".join([*lines, f"if __name__ == '__main__':\n    grading.through_dask({count}, {kill_every})"])
        )
        enter = (lambda: (group.parent / "cgroup.procs").write_text(str(os.getpid()))) if group else None
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        code = subprocess.call([sys.executable, str(script)], env=environment, preexec_fn=enter)
        if group and not code:
            each = cpu_seconds(group) / count
            print(f"{each:.2f} CPU-seconds a submission, workers that were killed and started again included: 100,000"
                  f" such submissions take {each * 100_000 / 3600:.0f} CPU-hours")  # fmt: skip
        raise SystemExit(code)


def through_dask(count: int, kill_every: int) -> None:
    """The trial itself, in its own process."""
    import distributed
    import tiny

    from segedu.grading.batch.batch import Job, grade_batch

    class Tiny(distributed.WorkerPlugin):
        def __init__(self, course: str) -> None:
            self.course = course

        def setup(self, worker: distributed.Worker) -> None:
            sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "grading")]
            import tiny

            tiny.install(Path(self.course))

    rng, killed, seen = random.Random(3), [], []
    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": None, "silence_logs": 50}
    with (
        tempfile.TemporaryDirectory() as folder,
        distributed.LocalCluster(n_workers=2, **options) as local,
        distributed.Client(local, set_as_default=False) as client,
    ):
        course = tiny.make_course(Path(folder, "course"))
        tiny.install(course)
        client.register_plugin(Tiny(str(course)), name="tiny")
        expected = small_class(Path(folder, "subs"), count)
        marks: list[tuple[int, float, int]] = []

        def follow(done: int, total: int, student: str) -> None:
            seen.append(student)
            if done % kill_every == kill_every // 2:
                pids = [pid for pid in client.run(os.getpid, on_error="ignore").values() if pid not in killed]
                killed.append(rng.choice(pids))
                os.kill(killed[-1], signal.SIGKILL)
            if done % max(1, count // 8) == 0:
                marks.append((done, time.monotonic(), psutil.Process().memory_info().rss >> 20))
                print(f"{done} of {total}, {marks[-1][2]} MiB", flush=True)

        job = Job(Path(folder, "subs"), tiny.LAB, Path(folder, "out"), course, seed=4, dask=local.scheduler_address)
        batch = grade_batch(job, follow)
        got = {record["student"]: (record["status"], record["points"]) for record in batch.records}
    wrong = {name: (got.get(name), points) for name, points in expected.items() if got.get(name) != points}
    twice = len(seen[1:]) - len(set(seen[1:]))
    if wrong or twice or len(got) != count:
        raise SystemExit(
            f"{len(got)} of {count} records, {twice} doubled, {len(wrong)} wrong: {list(wrong.items())[:5]}"
        )
    (_, t0, rss0), (n1, t1, _), (n2, t2, rss2) = marks[0], marks[len(marks) // 2], marks[-1]
    first, second = (t1 - t0) / (n1 - marks[0][0]), (t2 - t1) / (n2 - n1)
    print(f"{count} submissions, {len(killed)} workers killed, none lost, none doubled; {first:.2f} s a submission in"
          f" the first half, {second:.2f} in the second; the parent had {rss0} MiB after an eighth,"
          f" {rss2} at the end;")  # fmt: skip


def small_class(folder: Path, count: int) -> dict[str, tuple[str, float]]:
    """Submissions of the tiny course and their expected points."""
    import tiny

    answers = {
        "right": (tiny.RIGHT, 9.0), "wrong": (tiny.RIGHT | {"double": "def double(x):\n    return x + 2"}, 6.0),
        "dies": (tiny.RIGHT | {"total": "import os\ndef total(v):\n    os._exit(0)"}, 6.0), "blank": ({}, 0.0),
    }  # fmt: skip
    rng, expected = random.Random(8), {}
    folder.mkdir()
    for number in range(count):
        kind = rng.choices((*answers, "broken"), (60, 25, 3, 10, 2))[0]
        chosen, points = answers.get(kind, ({}, 0.0))
        text = tiny.notebook(tiny.answered(**chosen)) if kind != "broken" else "{"
        (folder / f"s{number:05}.ipynb").write_text(text + " " * number)
        expected[f"s{number:05}"] = ("unreadable" if kind == "broken" else "graded", points)
    return expected


if __name__ == "__main__":
    app()
