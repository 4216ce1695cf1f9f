"""The stage is searched for answers: every function that a lab leaves to its students is tried on every exercise.

A student could do this at home, so whatever passes here is an answer that `hides` has forgotten.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from segedu.grading.sandbox.staged_library import build_stage
from segedu.teaching.checks import codec
from segedu.teaching.checks.judge import draw, judge
from segedu.teaching.exercises import load, names

SEED = 7
# functions that do what an exercise asks for and may be called: the lab is about something else, or asks to use them
ALLOWED: dict[tuple[str, str], str] = {}

SCAN = """
import contextlib, importlib, io, json, pkgutil, signal, sys, warnings
from pathlib import Path
root = Path(sys.argv[2])
sys.path[:] = [sys.argv[1], *[p for p in sys.path if not Path(p, "segedu").is_dir()]]
warnings.simplefilter("ignore")
import segedu
from segedu.teaching.checks import codec, remote
assert segedu.__file__.startswith(sys.argv[1])
found = {}
for module in pkgutil.walk_packages(segedu.__path__, "segedu.", onerror=lambda _: None):
    if any(part in module.name for part in ("exercises", "widgets", "not_here")):
        continue
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            there = importlib.import_module(module.name)
    except Exception:
        continue
    for name, thing in vars(there).items():
        if callable(thing) and getattr(thing, "__module__", "").startswith("segedu.") and thing.__module__ != "segedu.teaching.checks.probes":
            found.setdefault(id(thing), (f"{thing.__module__}.{name}", thing))


def stop(*_):
    raise TimeoutError


signal.signal(signal.SIGALRM, stop)
tried = {}
for exercise in sorted(path.name for path in (root / "job").iterdir()):
    folder = root / "job" / exercise
    job = json.loads((folder / "job.json").read_text())
    probe = remote.PROBES[job["probe"]]
    for number, (name, function) in enumerate(found.values()):
        outcomes = []
        for i in range(job["cases"]):
            signal.setitimer(signal.ITIMER_REAL, 5)
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    case = codec.unpack(remote.reader(folder / "in", str(i)), ours=True)
                    outcome = probe(function, case)
                files = codec.pack(outcome)
            except BaseException:
                break
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if "value" not in outcome:
                break
            (folder / "out").mkdir(exist_ok=True)
            remote.write_files(folder / "out", f"{number}-{i}", files)
            outcomes.append(i)
        if outcomes:
            tried.setdefault(exercise, {})[number] = name
(root / "tried.json").write_text(json.dumps({"functions": len(found), "tried": tried}))
"""


@pytest.mark.prove
@pytest.mark.parametrize("lab", names())
def test_nothing_in_the_stage_answers_an_exercise(lab, tmp_path):
    exercises = load(lab).exercises
    hides = list(dict.fromkeys(hidden for exercise in exercises for hidden in exercise.hides))
    stage = build_stage(hides, tmp_path / "stage")
    drawn = {}
    for exercise in exercises:
        drawn[exercise.name] = draw(exercise, SEED)
        folder = tmp_path / "job" / exercise.name
        (folder / "in").mkdir(parents=True)
        cases = [case for _, _, case in drawn[exercise.name]]
        (folder / "job.json").write_text(json.dumps({"probe": exercise.probe.__name__, "cases": len(cases)}))
        for i, case in enumerate(cases):
            for name, data in codec.pack(case).items():
                (folder / "in" / f"{i}.{name}").write_bytes(data)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(SCAN), str(stage), str(tmp_path)]
    subprocess.run(command, check=True, timeout=900, env=environment, cwd=tmp_path)
    result = json.loads((tmp_path / "tried.json").read_text())
    assert result["functions"] > 100
    leaks = []
    for exercise in exercises:
        for number, name in result["tried"].get(exercise.name, {}).items():
            verdict = judge(exercise, drawn[exercise.name], _outcomes(tmp_path, exercise.name, number, drawn))
            if verdict.points > exercise.points / 2 and (lab, name) not in ALLOWED:
                leaks.append(f"{name} gets {verdict.points:g} of {exercise.points} points of {exercise.name}")
    assert not leaks, "\n".join(leaks)


def _outcomes(root: Path, exercise: str, number: str, drawn: dict) -> list[dict | None]:
    folder = root / "job" / exercise / "out"

    def read(i: int) -> dict | None:
        def get(name: str) -> bytes | None:
            path = folder / f"{number}-{i}.{name}"
            return path.read_bytes() if path.is_file() else None

        try:
            return codec.unpack(get)
        except codec.CodecError:  # none was written, or it is larger than any answer
            return None

    return [read(i) for i in range(len(drawn[exercise]))]
