"""Claims that take hours to measure: run where their sources have changed, one row of a table each.

`tests/claims.toml` says what is claimed and which command measures it, `tests/proofs.csv` holds what was
measured, with a hash of the sources. Numbers on the site and in the README come from there.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

IMPORTS_OF = "imports of "


@dataclass(frozen=True)
class Claim:
    """What is to be measured.

    Attributes:
        name: unique.
        command: of `segedu` or `python`, run in the checkout; `{data}` stands for the folder of real data.
        figure: a regular expression; its first group is the figure.
        sources: files and globs whose change makes the figure stale. "imports of GLOB" stands for every file of
            `segedu` that a matching file imports, directly or through others.
        seed: that the command uses.
    """

    name: str
    command: str
    figure: str
    sources: list[str]
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """What was measured."""

    claim: str
    figure: str
    command: str
    seed: str
    seconds: str
    date: str
    sources: str


def data_folder(course: Path) -> Path:
    """Where real data lies: `$SEGEDU_DATA`, or `../shared/data` beside the checkout.

    Args:
        course: the checkout.

    Returns:
        The folder; it need not exist.
    """
    return Path(os.environ.get("SEGEDU_DATA") or course.parent / "shared" / "data")


def read_claims(course: Path) -> list[Claim]:
    """Read `tests/claims.toml`.

    Args:
        course: the checkout.

    Returns:
        The claims in order.
    """
    text = (course / "tests" / "claims.toml").read_text()
    return [Claim(**entry) for entry in tomllib.loads(text)["claim"]]


def read_rows(course: Path) -> dict[str, Row]:
    """Read `tests/proofs.csv`.

    Args:
        course: the checkout.

    Returns:
        Claim -> row; empty where nothing has been measured yet.
    """
    path = course / "tests" / "proofs.csv"
    if not path.is_file():
        return {}
    return {row["claim"]: Row(**row) for row in csv.DictReader(io.StringIO(path.read_text()))}


def source_hash(course: Path, sources: Sequence[str]) -> str:
    """Hash the sources of a claim, as twelve hexadecimal digits.

    Raises:
        ValueError: for a source that matches no file.
    """
    digest = hashlib.sha256()
    for pattern in sources:
        of_imports = pattern.startswith(IMPORTS_OF)
        files = sorted(p for p in course.glob(pattern.removeprefix(IMPORTS_OF)) if p.is_file())
        if not files:
            raise ValueError(f"source {pattern!r} of a claim matches no file in the checkout")
        for file in imported_files(course, files) if of_imports else files:
            digest.update(str(file.relative_to(course)).encode() + _meaning(file, file.stat().st_mtime_ns))
    return digest.hexdigest()[:12]


def imported_files(course: Path, files: Sequence[Path]) -> list[Path]:
    """The files of `segedu` that some Python files import, directly or through others, sorted."""
    found: set[Path] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        for name in _imported_names(file, file.stat().st_mtime_ns):
            path = course.joinpath(*name.split("."))
            new = {each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()} - found
            found |= new
            waiting += new
    return sorted(found)


@cache
def _imported_names(file: Path, _changed: int) -> frozenset[str]:
    """Every dotted name below `segedu` that may be a module: of `from X import y` both X and X.y."""
    names = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(name for name in names if name.partition(".")[0] == "segedu")


@cache
def _meaning(file: Path, _changed: int) -> bytes:
    """The content of a file. For Python only what runs: a measured figure may be written into a docstring."""
    if file.suffix != ".py":
        return file.read_bytes()
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree).encode()


def stale(course: Path) -> list[str]:
    """Claims without a row, or whose sources have changed since.

    Args:
        course: the checkout.

    Returns:
        Their names.
    """
    rows = read_rows(course)
    return [
        claim.name
        for claim in read_claims(course)
        if claim.name not in rows or rows[claim.name].sources != source_hash(course, claim.sources)
    ]


def prove(course: Path, names: Sequence[str] = ()) -> None:
    """Measure what is stale, or what is named; write each row as soon as it is there, so that a kill loses one.

    Args:
        course: the checkout.
        names: of claims; all stale ones by default.

    Raises:
        ValueError: for a name that is not claimed.
        SystemExit: with 1 where a command fails or prints no figure; the others run first.
    """
    claims = {claim.name: claim for claim in read_claims(course)}
    if unknown := [name for name in names if name not in claims]:
        raise ValueError(f"claim {unknown[0]!r} is not in tests/claims.toml, expected one of {', '.join(claims)}")
    failures = []
    for name in names or stale(course):
        print(f"{name} ...", flush=True)
        row = _measure(course, claims[name])
        if row is None:
            failures.append(name)
        else:
            print(f"{name}: {row.figure} ({row.seconds} s)")
            # claims and rows anew: others may have come while this one was measured
            _write(course, {**read_rows(course), name: row}, [claim.name for claim in read_claims(course)])
    if failures:
        print("no figure for: " + ", ".join(failures))
        raise SystemExit(1)


def _measure(course: Path, claim: Claim) -> Row | None:
    program, *arguments = shlex.split(claim.command.replace("{data}", str(data_folder(course))))
    launcher = [sys.executable, "-m", "segedu.cli"] if program == "segedu" else [sys.executable]
    digest = source_hash(course, claim.sources)  # of what runs: sources may change meanwhile
    start = time.monotonic()
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # several spin while they wait, and CPU-seconds count that
    done = subprocess.run([*launcher, *arguments], cwd=course, env=one_thread, capture_output=True, text=True)
    found = re.search(claim.figure, done.stdout, re.M)
    if not found:
        print(done.stdout[-2000:] + done.stderr[-2000:])
        return None
    seconds, date = f"{time.monotonic() - start:.0f}", datetime.now(UTC).date().isoformat()
    return Row(claim.name, " ".join(found.groups()), claim.command, str(claim.seed), seconds, date, digest)


def _write(course: Path, rows: dict[str, Row], order: list[str]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(rows[name]) for name in order if name in rows)
    part = course / "tests" / ".proofs.csv.part"
    part.write_text(buffer.getvalue())
    os.replace(part, course / "tests" / "proofs.csv")
