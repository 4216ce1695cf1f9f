"""Claims that take hours to measure: each is measured again if its sources have changed, and has one row of a table.

`tests/claims.toml` says what is claimed and which command measures it; `tests/proofs.csv` holds the measured figures
with a hash of the sources. Numbers on the site and in the README come from there.
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
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from segedu.teaching.authoring.address import without_address

IMPORTS_OF = "imports of "
PROVING = "SEGEDU_PROVING"  # set in the environment of a command that measures a claim


@dataclass(frozen=True)
class Claim:
    """A claim to be measured.

    Attributes:
        name: unique.
        command: of `segedu` or `python`, run in the checkout; `{data}` stands for the folder of real data.
        figure: a regular expression for the output; its groups are the figure.
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
    """The measured figure of a claim."""

    claim: str
    figure: str
    command: str
    seed: str
    seconds: str
    date: str
    sources: str


def data_folder(course: Path) -> Path:
    """The folder of real data, which need not exist: `$SEGEDU_DATA`, or `../shared/data` beside the checkout."""
    return Path(os.environ.get("SEGEDU_DATA") or course.parent / "shared" / "data")


def read_claims(course: Path) -> list[Claim]:
    """Read `tests/claims.toml` in order."""
    text = (course / "tests" / "claims.toml").read_text()
    return [Claim(**entry) for entry in tomllib.loads(text)["claim"]]


def read_rows(course: Path) -> dict[str, Row]:
    """Read `tests/proofs.csv`: claim -> row, empty if nothing has been measured yet."""
    path = course / "tests" / "proofs.csv"
    if not path.is_file():
        return {}
    return {row["claim"]: Row(**row) for row in csv.DictReader(io.StringIO(path.read_text()))}


def source_hash(course: Path, sources: Sequence[str]) -> str:
    """Hash the sources of a claim, as twelve hexadecimal digits.

    Raises:
        ValueError: if a source matches no file.
    """
    digest = hashlib.sha256()
    for pattern in sources:
        of_imports = pattern.startswith(IMPORTS_OF)
        files = sorted(p for p in course.glob(pattern.removeprefix(IMPORTS_OF)) if p.is_file() and not _is_copy(p))
        if not files:
            raise ValueError(f"source {pattern!r} of a claim matches no file in the checkout")
        for file in imported_files(course, files) if of_imports else files:
            digest.update(str(file.relative_to(course)).encode() + _meaning(file, file.stat().st_mtime_ns))
    return digest.hexdigest()[:12]


def _is_copy(path: Path) -> bool:
    """Whether JupyterLab made a file beside the one that it opened."""
    return ".ipynb_checkpoints" in path.parts


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
    """The content of a file. For Python only what runs: a measured figure may be written into a docstring.

    A solution's notebook names the digest of the sources that it was executed from. The digest is left out: a claim
    lists the sources that matter to it, and only these make it stale.
    """
    if file.suffix == ".ipynb":
        return re.sub(r'"source": "[0-9a-f]{16}"', "", without_address(file.read_text())).encode()
    if file.name == "pyproject.toml":
        return without_address(file.read_text()).encode()
    if file.suffix != ".py":
        return file.read_bytes()
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree).encode()


def stale(course: Path) -> list[str]:
    """Names of the claims without a row, or whose sources have changed since."""
    rows = read_rows(course)
    return [
        claim.name
        for claim in read_claims(course)
        if claim.name not in rows or rows[claim.name].sources != source_hash(course, claim.sources)
    ]


def prove(course: Path, names: Sequence[str] = ()) -> None:
    """Measure the named claims, by default all stale ones, and write each row at once: a kill loses at most one.

    Raises:
        ValueError: if a name is not a claim.
        SystemExit: with 1 if a command fails or prints no figure; the others run first.
    """
    claims = {claim.name: claim for claim in read_claims(course)}
    if unknown := [name for name in names if name not in claims]:
        similar = get_close_matches(unknown[0], claims, 3, 0.4) or list(claims)[:3]
        raise ValueError(
            f"claim {unknown[0]!r} is not in tests/claims.toml, expected one of its {len(claims)} names, such as "
            + ", ".join(map(repr, similar))
        )
    failures = []
    for name in names or stale(course):
        print(f"{name} ...", flush=True)
        row = _measure(course, claims[name])
        if row is None:
            failures.append(name)
        else:
            print(f"{name}: {row.figure} ({row.seconds} s)")
            # read claims and rows again: they may have changed during the measurement
            _write(course, {**read_rows(course), name: row}, [claim.name for claim in read_claims(course)])
    if failures:
        print("no figure for: " + ", ".join(failures))
        raise SystemExit(1)


def _measure(course: Path, claim: Claim) -> Row | None:
    program, *arguments = shlex.split(claim.command.replace("{data}", str(data_folder(course))))
    launcher = [sys.executable, "-m", "segedu.cli"] if program == "segedu" else [sys.executable]
    digest = source_hash(course, claim.sources)  # before the run, because sources may change during it
    start = time.monotonic()
    # one thread: waiting threads spin, which would count as CPU-seconds
    # the recipes on real data sets look for their folders in SEGEDU_DATA
    real_data = {"SEGEDU_DATA": str(data_folder(course))}
    environment = {**os.environ, **real_data, "OMP_NUM_THREADS": "1", PROVING: "1"}
    process = subprocess.run([*launcher, *arguments], cwd=course, env=environment, capture_output=True, text=True)
    match = re.search(claim.figure, process.stdout, re.M)
    if process.returncode or not match:
        print(process.stdout[-2000:] + process.stderr[-2000:])
        return None
    seconds, date = f"{time.monotonic() - start:.0f}", datetime.now(UTC).date().isoformat()
    return Row(claim.name, " ".join(match.groups()), claim.command, str(claim.seed), seconds, date, digest)


def _write(course: Path, rows: dict[str, Row], order: list[str]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(rows[name]) for name in order if name in rows)
    part = course / "tests" / ".proofs.csv.part"
    part.write_text(buffer.getvalue())
    os.replace(part, course / "tests" / "proofs.csv")
