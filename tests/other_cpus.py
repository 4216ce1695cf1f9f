"""Run the tests as other CPUs would: with fewer instructions, with one thread and with two, and beside busy processes.

PyTorch and oneDNN choose their kernels by the CPU they run on, and sums in another order end in other last digits. Two
environment variables make them choose the kernels of an older CPU, so one machine can imitate several. Each row of the
table is one run of the whole of `make test`, and the verdict of every check on every known answer (`segedu mutants`),
which has to be the same text in every row. The tests come in three parts with sources of their own, so that a change of
the grader does not ask for the tests of the methods again.

A row that has ended is kept in `_build/other-cpus` and not run again until the sources change. The whole takes hours.

    python tests/other_cpus.py                          all rows
    python tests/other_cpus.py older-1 load             some rows
    python tests/other_cpus.py load --part library      some rows, only the tests of the methods
    python tests/other_cpus.py --seeds          each test that trains a network, with five seeds
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proven import OTHER_CPU

from segedu.teaching.evidence.proofs import PROVING

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "_build" / "other-cpus"
INSTRUCTIONS = {
    "older": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "native": {},
}
ROWS = {f"{name}-{threads}": (name, threads) for name in INSTRUCTIONS for threads in (1, 2)} | {"load": ("native", 2)}
SEEDS = range(5)
FOLDERS = {  # of `tests`, by part
    "library": [
        "backbones", "bad_input", "datasets", "detection", "instance", "layers", "losses", "metrics", "ops", "panoptic",
        "promptable", "semantic", "unsupervised", "weights",
    ],
    "grading": ["attacks", "gradebook", "grading"],
}  # fmt: skip
FILES = {  # beside the folders: those that begin so
    "library": [
        "test_bad_input", "test_blood_cell", "test_cell_recipes", "test_contracts", "test_data_command", "test_export",
        "test_hippocampus", "test_own_", "test_panoptic", "test_pedestrian", "test_photo_", "test_predictions",
        "test_pretrained", "test_real_samples", "test_recipe", "test_run_identity", "test_several_devices",
        "test_shape_recipes", "test_small_instance", "test_training", "test_validation", "test_viz",
    ],
    "grading": [],
}  # fmt: skip
PARTS = ("library", "grading", "course")  # the last is whatever the others leave


def paths_of(part: str) -> list[str]:
    """The folders and test files of a part, for pytest."""
    tests = ROOT / "tests"
    if part != "course":
        files = [path for prefix in FILES[part] for path in sorted(tests.glob(f"{prefix}*.py"))]
        return [f"tests/{folder}" for folder in FOLDERS[part]] + [f"tests/{path.name}" for path in files]
    others = {path for other in FOLDERS for path in paths_of(other)}
    folders = {str(path.parent.relative_to(ROOT)) for path in tests.glob("*/test_*.py")}
    files = {f"tests/{path.name}" for path in tests.glob("test_*.py")}
    # folders of folders, such as tests/exercises/lab06_unet
    folders |= {str(path.parents[1].relative_to(ROOT)) for path in tests.glob("*/*/test_*.py")}
    return sorted((folders | files) - others)


def environment(instructions: str, threads: int) -> dict[str, str]:
    """The environment of a process that imitates a CPU."""
    # where a claim about a row is proven, the tests still skip what other claims stand for, as in `make test`, except
    # what a CPU may decide
    other = {*INSTRUCTIONS["older"], PROVING}
    kept = {key: value for key, value in os.environ.items() if key not in other}
    # a thread that waits sleeps: while it spins, the thread that it waits for may be without a core
    waiting = {"OMP_WAIT_POLICY": "passive"} if threads > 1 else {}
    return kept | INSTRUCTIONS[instructions] | waiting | {"OMP_NUM_THREADS": str(threads), OTHER_CPU: "1"}


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes beside this one that never sleep."""
    processes = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()


def _spin() -> None:
    while True:
        pass


def run_tests(row: str, name: str, arguments: list[str]) -> dict:
    """One run of the tests: what passed and which tests failed. The whole output is kept beside the table."""
    instructions, threads = ROWS[row]
    log = OUT / f"{name}.log"
    # two threads of one worker fill two cores; threads of two workers would mostly wait for each other
    workers = str(2 // threads)
    options = ["-q", "-n", workers, "-m", "not prove", "--durations=200", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    started = time.monotonic()
    with busy(2 if row == "load" else 0), log.open("w") as file:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(instructions, threads), stdout=file, stderr=subprocess.STDOUT
        )
    text = log.read_text()
    return {
        "status": done.returncode,
        "failed": sorted(set(re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.M))),
        "summary": re.findall(r"^=*\s*(\d+ (?:passed|failed).*?)\s*=*$", text, re.M)[-1:],
        "seconds": round(time.monotonic() - started),
    }


def run_mutants(row: str) -> dict:
    """The verdicts on all known answers: a digest of the table, and the table beside it."""
    instructions, threads = ROWS[row]
    started = time.monotonic()
    with busy(2 if row == "load" else 0):
        done = subprocess.run(
            [sys.executable, "-m", "segedu.cli", "mutants"],
            cwd=ROOT, env=environment(instructions, threads), capture_output=True, text=True,
        )  # fmt: skip
    (OUT / f"{row}-mutants.txt").write_text(done.stdout + done.stderr)
    digest = hashlib.sha256(done.stdout.encode()).hexdigest()[:12]
    return {"status": done.returncode, "digest": digest, "seconds": round(time.monotonic() - started)}


def run_seeds() -> bool:
    """The tests that are marked `learns`, with several seeds, on the oldest instructions and on this CPU's own."""
    good, runs, passed, failed = True, 0, 0, 0
    for instructions in ("older", "native"):
        for seed in SEEDS:
            path = OUT / f"seed-{seed}-{instructions}.json"
            result = json.loads(path.read_text()) if path.is_file() else {}
            if result.get("key") != sources():
                result = {"key": sources(), **run_learning(instructions, seed)}
                path.write_text(json.dumps(result, indent=1))
            print("\n".join([f"{instructions}, seed {seed}: {result['summary']}", *result["failed"]]), flush=True)
            good, runs, failed = good and result["status"] == 0, runs + 1, failed + len(result["failed"])
            passed += int((re.findall(r"(\d+) passed", result["summary"]) or ["0"])[0])
    print(f"{runs} runs of the tests that train: {passed} passed, {failed} failed")
    return good


def run_learning(instructions: str, seed: int) -> dict:
    """The tests that train, with one seed: what passed and which tests failed."""
    run = environment(instructions, 1) | {"SEGEDU_TEST_SEED": str(seed)}
    options = ["-q", "-n", "2", "-m", "learns and not prove", "--tb=line", "-p", "no:cacheprovider"]
    done = subprocess.run([sys.executable, "-m", "pytest", *options], cwd=ROOT, env=run, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or [done.stderr[-500:]]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"status": done.returncode, "summary": lines[-1].strip("= "), "failed": failed}


def sources() -> str:
    """A digest of what git tracks, so that a change of the sources runs everything again."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    digest = hashlib.sha256()
    for name in sorted(filter(None, listing.decode().split("\0"))):
        path = ROOT / name
        digest.update(name.encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()[:12]


def main() -> int:
    """Run the rows that have not ended yet and print the table; the exit status is 0 where all agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help=f"some of {', '.join(ROWS)}; all by default")
    parser.add_argument("--seeds", action="store_true", help="only the tests that train, with five seeds")
    parser.add_argument("--tests", nargs="*", default=[], help="paths for pytest; the whole suite by default")
    parser.add_argument("--part", choices=PARTS, help="one part of the suite; `course` with the verdicts")
    given = parser.parse_args()
    tests = paths_of(given.part) if given.part else given.tests
    if unknown := [row for row in given.rows if row not in ROWS]:
        parser.error(f"row {unknown[0]!r} is not known, expected some of {', '.join(ROWS)}")
    OUT.mkdir(parents=True, exist_ok=True)
    if given.seeds:
        return 0 if run_seeds() else 1
    digests, good = set(), True
    for row in given.rows or ROWS:
        name = f"{row}-{given.part}" if given.part else row
        path = OUT / f"{name}.json"
        key = {"sources": sources(), "tests": tests}
        result = json.loads(path.read_text()) if path.is_file() else {}
        if result.get("key") != key:
            result = {"key": key, "tests": run_tests(row, name, tests)}
            if given.part in (None, "course"):
                result["mutants"] = run_mutants(row)
            path.write_text(json.dumps(result, indent=1))
        verdicts = result.get("mutants", {"status": 0})
        said = f"; verdicts {verdicts['digest']}, {verdicts['seconds']} s" if "digest" in verdicts else ""
        print(f"{row:10} {' '.join(result['tests']['summary'])}{said}", flush=True)
        for test in result["tests"]["failed"]:
            print(f"{'':10} failed: {test}")
        good = good and result["tests"]["status"] == 0 and verdicts["status"] == 0
        digests |= {verdicts["digest"]} if "digest" in verdicts else set()
    if len(digests) > 1:
        print(f"the verdicts differ between rows; compare {OUT}/*-mutants.txt")
    return 0 if good and len(digests) <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
