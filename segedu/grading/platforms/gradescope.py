"""Gradescope: build the zip file of an autograder, and grade a submission inside it.

Gradescope unpacks the zip into `/autograder/source` and runs `setup.sh` once. For each submission it runs
`run_autograder` as root in a container of its own, which grades `/autograder/submission` and writes
`/autograder/results/results.json`. Gradescope itself applies late penalties.
"""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segedu.grading.gradebook.feedback import NEW_INPUTS, STATUS_TEXT
from segedu.grading.judging.atomic_write import write_atomic
from segedu.grading.sandbox import clean_environment
from segedu.grading.submissions.times import parse_timestamp

SETTINGS = "settings.json"  # holds the seed
NEEDS = ("segedu.grading.platforms.gradescope", "segedu.training.loop")
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
GRADER_MEMORY = 1 << 30  # grader, fork server and an idle kernel, measured: 0.9 GiB
MAX_METADATA = 16 << 20  # it holds the results of all earlier submissions
NOT_GRADED = (
    "The autograder failed on this submission. This is not your fault: tell your instructor, "
    "who finds the reason in the autograder's output and can run it again."
)

RUN = """#!/usr/bin/env bash
# Written by `segedu gradescope`: grades submission/ and writes results/results.json, whatever happens.
root="$(cd "${AUTOGRADER:-$(dirname "${BASH_SOURCE[0]}")}" && pwd)"
mkdir -p "$root/results"
rm -f "$root/results/results.json"
cd /  # Python must not start in a folder that holds files of a submission
"${SEGEDU_PYTHON:-/opt/segedu/bin/python}" -I -m segedu.grading.platforms.gradescope "$root" 2>&1
if [ ! -s "$root/results/results.json" ]; then
    echo "The grader ended without results (out of memory?); choose a larger container in the autograder's settings."
    cat > "$root/results/results.json" <<'END'
@FALLBACK@
END
fi
"""

SETUP = """#!/usr/bin/env bash
# Written by `segedu gradescope`: installs the grader into /opt/segedu. If SEGEDU_PYTHON names a Python that has the
# grader already, nothing is installed.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
chmod 600 "$here/settings.json"
if [ -n "${SEGEDU_PYTHON:-}" ]; then
    "$SEGEDU_PYTHON" -I -c "import @IMPORTS@"
    exit 0
fi
fits='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'
find_python() {
    for python in python3.13 python3.12 python3.11 python3; do
        if "$python" -c "$fits" 2> /dev/null; then return 0; fi
    done
    return 1
}
if ! find_python; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    for version in 3.12 3.11; do
        if apt-get install -y "python$version" "python$version-venv"; then break; fi
    done
    find_python
fi
"$python" -m venv /opt/segedu
pip="/opt/segedu/bin/python -m pip"
$pip install --upgrade pip
# torch without CUDA has a tenth of the size; if this index does not answer, the next line installs the usual torch
$pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu || true
$pip install "$here/@WHEEL@[grading,train]"
/opt/segedu/bin/python -I -c "import @IMPORTS@"
/opt/segedu/bin/segedu grade --doctor || true
"""


@dataclass(frozen=True)
class Settings:
    """The settings in the zip, a file that only root can read; the help of `segedu gradescope` explains them.

    Gradescope's own limit on a submission is ten minutes by default.
    """

    lab: str
    seed: int
    trust: bool = False
    level: int | None = None
    cell_seconds: float = 30.0
    total_seconds: float = 300.0


def build_zip(course: Path, out: Path, settings: Settings, wheel: Path | None = None) -> list[str]:
    """Write the zip of an autograder, and return the names of the files in it.

    Args:
        course: the checkout of the course.
        out: the zip file. It holds the seed, so only its owner may read it.
        settings: the settings of the autograder.
        wheel: wheel of segedu; by default built from `course`.

    Raises:
        ValueError: if the lab or the wheel does not exist, or no wheel can be built.
    """
    from segedu.grading.judging.lab_source import read_lab

    read_lab(course, settings.lab)
    if out.suffix != ".zip":
        raise ValueError(f"--out is {out}, expected a name that ends in .zip")
    if wheel is not None and not (wheel.suffix == ".whl" and wheel.is_file()):
        raise ValueError(f"--wheel is {wheel}, expected a file that ends in .whl")
    with tempfile.TemporaryDirectory(prefix="segedu-wheel-") as folder:
        wheel = wheel or build_wheel(course, Path(folder))
        values = {"@WHEEL@": wheel.name, "@IMPORTS@": ", ".join(NEEDS), "@FALLBACK@": _json(not_graded({}, ""))}
        files = {
            "run_autograder": (_substituted(RUN, values), 0o755),
            "setup.sh": (_substituted(SETUP, values), 0o755),
            SETTINGS: (_json(vars(settings)).encode(), 0o600),
            f"labs/{settings.lab}.ipynb": ((course / "labs" / f"{settings.lab}.ipynb").read_bytes(), 0o644),
            wheel.name: (wheel.read_bytes(), 0o644),
        }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, _zipped(files), mode=0o600)
    return list(files)


def build_wheel(course: Path, folder: Path) -> Path:
    """Build the wheel of segedu in `folder` with pip, from the `pyproject.toml` of a checkout."""
    if not (course / "pyproject.toml").is_file():
        raise ValueError(f"{course} has no pyproject.toml to build a wheel of segedu from; give one with --wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(course)]
    done = subprocess.run(pip, capture_output=True, text=True)
    built = sorted(folder.glob("segedu-*.whl"))
    if done.returncode or not built:
        last_line = (done.stderr.strip().splitlines() or ["no output"])[-1]
        advice = "build it elsewhere and pass it with --wheel"
        raise ValueError(f"pip could not build the wheel of segedu ({last_line}); {advice}")
    return built[0]


def seed_of(out: Path, seed: int | None) -> int:
    """The given seed, or that of the existing zip, or a new one. So a new version of a zip draws the same cases."""
    if seed is None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return int(json.loads(zipfile.ZipFile(out).read(SETTINGS))["seed"])
    return secrets.randbits(63) if seed is None else seed


def _substituted(template: str, values: dict[str, str]) -> bytes:
    for placeholder, value in values.items():
        template = template.replace(placeholder, value)
    return template.encode()


def _json(value: dict) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _zipped(files: dict[str, tuple[bytes, int]]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (data, mode) in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o100000 | mode) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return stream.getvalue()


def main(root: Path, open_pools: Callable[..., Any] | None = None) -> dict:
    """Grade `submission/`, write `results/results.json`, also after an error, and return its content.

    Args:
        root: the folder that Gradescope calls /autograder.
        open_pools: replaces `segedu.grading.batch.grader_threads.sandboxed_pools`.
    """
    started = time.monotonic()
    metadata = read_metadata(root)
    try:
        _restrict_access(root)
        settings = Settings(**json.loads((root / "source" / SETTINGS).read_text()))
        results = results_of(_grade(root, settings, open_pools), metadata)
    except BaseException:
        results = not_graded(metadata, traceback.format_exc())
    results["execution_time"] = round(time.monotonic() - started, 1)
    (root / "results").mkdir(exist_ok=True)
    write_atomic(root / "results" / "results.json", _json(results).encode(errors="replace"))
    for test in results["tests"]:
        if test["visibility"] == "hidden":
            print(test["output"])
    return results


def _restrict_access(root: Path) -> None:
    """Let only root read secrets: below level 3 a submission runs as another user, but sees the same files."""
    (root / "source").chmod(0o700)
    (root / "source" / SETTINGS).chmod(0o600)
    with contextlib.suppress(OSError):  # holds earlier results, including the hidden test
        (root / "submission_metadata.json").chmod(0o600)


def _grade(root: Path, settings: Settings, open_pools: Callable[..., Any] | None) -> dict:
    from segedu.grading.batch.grader_pool import Assignment
    from segedu.grading.batch.grader_threads import SubmissionGrader, make_grading_setup, sandboxed_pools
    from segedu.grading.judging.lab_source import read_lab
    from segedu.grading.submissions.find_submissions import Entry
    from segedu.grading.submissions.submission import collect

    limits = {"cell_seconds": settings.cell_seconds, "total_seconds": settings.total_seconds}
    lab = read_lab(root / "source", settings.lab)
    assignment = Assignment(lab, settings.seed, level=settings.level, trust=settings.trust, **limits)
    raw = collect(Entry("submission", root / "submission"), settings.lab, root)
    grading_setup = make_grading_setup(assignment)
    grading_setup.limits = replace(grading_setup.limits, memory_bytes=memory_left())
    with (open_pools or sandboxed_pools)(assignment, grading_setup.hides, 1) as pools:
        return SubmissionGrader(assignment, grading_setup, pools).grade(raw)


def memory_left(files: Sequence[Path] = MEMORY_LIMITS) -> int:
    """Bytes of memory that the grader leaves to a submission, at most 2 GiB.

    With this limit a large submission is stopped alone, before the container's limit ends the grader.

    Args:
        files: files that may hold the container's limit in bytes.
    """
    import psutil

    limits = [psutil.virtual_memory().total]
    for file in files:
        with contextlib.suppress(OSError, ValueError):  # the file says "max" if there is no limit
            limits.append(int(file.read_text()))
    return max(256 << 20, min(2 << 30, min(limits) - GRADER_MEMORY))


def read_metadata(root: Path) -> dict:
    """Gradescope's metadata of the submission; empty if there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        path = root / "submission_metadata.json"
        if path.stat().st_size <= MAX_METADATA and isinstance(metadata := json.loads(path.read_text()), dict):
            return metadata
    return {}


def results_of(record: dict, metadata: dict) -> dict:
    """Convert a record to Gradescope's `results.json`, with one hidden test that informs the instructor."""
    if record["status"] not in ("graded", "unreadable"):
        return not_graded(metadata, "\n".join([record["problem"], record.get("trace", "")]))
    problem = f"Nothing could be graded: {record['problem']}" if record["problem"] else ""
    tests = [_test(exercise, bool(problem)) for exercise in record["exercises"]]
    return {
        "score": record["points"],
        "output": "\n".join([problem or NEW_INPUTS, *record["notes"]]),
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": [*tests, _for_instructor(_details(record, metadata))],
        "extra_data": {"status": record["status"], "submitted": _submitted(metadata), "segedu": record["tool"]},
    }


def not_graded(metadata: dict, reason: str) -> dict:
    """`results.json` after a failure of the grader: score 0, and a hidden reason for the instructor."""
    return {
        "score": 0, "output": NOT_GRADED, "output_format": "text", "visibility": "visible",
        "stdout_visibility": "hidden", "tests": [_for_instructor([f"NOT GRADED.\n{reason}"])],
        "extra_data": {"status": "failed", "submitted": _submitted(metadata)},
    }  # fmt: skip


def _test(exercise: dict, unreadable: bool) -> dict:
    cases = [f"{name} {group['passed']} of {group['total']}" for name, group in exercise["groups"].items()]
    lines = ["; ".join([STATUS_TEXT.get(exercise["status"], exercise["status"]), *cases])]
    if exercise["first_line"] and exercise["status"] != "blank":
        lines.append(exercise["first_line"])
    if exercise["hint"]:
        lines.append(f"Hint: {exercise['hint']}")
    return {
        "name": exercise["name"],
        "score": 0 if unreadable else exercise["points"],
        "max_score": exercise["max"],
        "status": "passed" if exercise["points"] == exercise["max"] and not unreadable else "failed",
        "output": "\n".join([*lines, *exercise["notes"]]),
        "output_format": "text",
        "visibility": "visible",
    }


def _for_instructor(lines: list[str]) -> dict:
    """A test without points that Gradescope hides from students, without hiding their score."""
    test = {"name": "For the instructor", "score": 0, "max_score": 0, "status": "passed"}
    return test | {"output": "\n".join(lines), "output_format": "text", "visibility": "hidden"}


def _details(record: dict, metadata: dict) -> list[str]:
    from segedu.grading.batch.grader_pool import SAFE_LEVEL

    sandbox, measured = record["sandbox"], record["measured"]
    lines = ["No code had to run." if sandbox is None else f"Sandbox level {sandbox['level']}: {sandbox['reason']}."]
    if sandbox and sandbox["level"] < SAFE_LEVEL:
        lines.append("WARNING: below level 2 a hostile submission may read the seed and write its own results.")
    time = _submitted(metadata) or "at an unknown time"
    lines.append(f"Handed in {time}; Gradescope applies late penalties.")
    lines.append(f"{measured['seconds']:g} s; segedu {record['tool']}.")
    for exercise in record["exercises"]:
        if exercise["tampered"]:
            lines.append(f"TAMPERING was detected in {exercise['name']}.")
        if exercise.get("error"):  # the student's code chose this text
            lines.append(f"{exercise['name']} stopped with {exercise['error']}")
    return lines


def _submitted(metadata: dict) -> str | None:
    created = metadata.get("created_at")
    return parse_timestamp(created) if isinstance(created, str) else None


if __name__ == "__main__":
    autograder = Path(sys.argv[1]).resolve()
    with clean_environment.empty_folder() as folder:
        clean_environment.enter(folder)
        clean_environment.limit_memory(1)
        main(autograder)
