"""One JSON record per submission, written atomically; everything else is derived from the records.

A record's key is a hash of everything that decides its points. A record with the current key is never computed again,
so a batch that was killed resumes where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from segedu.grading.judging.atomic_write import write_atomic
from segedu.grading.judging.decisive_sources import decisive_hashes
from segedu.grading.judging.lab_source import Lab
from segedu.grading.judging.record_form import MAX_RECORD, parse_record
from segedu.grading.submissions.find_submissions import record_name

VERSION = 1
LAB_NAME = r"\d\d_\w+"  # other folders of the output folder never hold records
FINAL = ("graded", "unreadable")  # any other status is a failure of the grader, and is tried again


def clean(text: object, length: int = 300) -> str:
    """Turn untrusted text into one line of at most `length` characters without control characters."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", str(text)[: 4 * length])
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:length]


def record_key(submission: str, sources: Mapping[str, str], seed: int, settings: str) -> str:
    """Compute the key of one submission's record, a hexadecimal SHA-256.

    Args:
        submission: digest of the notebook.
        sources: digests of everything that decides points, from `sources_of`.
        seed: of the batch.
        settings: limits and sandbox level, as text.
    """
    source_lines = [f"{name} {value}" for name, value in sorted(sources.items())]
    return hashlib.sha256("\n".join([submission, *source_lines, str(seed), settings]).encode()).hexdigest()


def sources_of(lab: Lab) -> dict[str, str]:
    """Return the hash of a lab's notebook (`lab`) together with those of `decisive_hashes`."""
    return {"lab": lab.digest, **decisive_hashes(lab.name)}


class RecordStore:
    """The records of one lab in one output folder, the instructor's `--out`."""

    def __init__(self, out: Path, lab: str) -> None:
        self.folder = out / lab / "records"
        self.folder.mkdir(parents=True, exist_ok=True)
        for partial in self.folder.glob(".*.part"):  # left by a run that was killed while writing
            partial.unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Path of a record: its name is `anna`, or `anna~2` for a second attempt."""
        return self.folder / f"{name}.json"

    def load(self, name: str) -> dict | None:
        """Load a record, even one with a failure of the grader; None if it is missing or damaged."""
        return self._read(name)[0]

    def damage(self, name: str) -> str:
        """Say what is wrong with a record, or return ""."""
        return self._read(name)[1]

    def _read(self, name: str) -> tuple[dict | None, str]:
        try:
            path = self.path(name)
            if path.stat().st_size > MAX_RECORD:
                return None, f"it has more than {MAX_RECORD} bytes"
            record = parse_record(path.read_bytes())
        except (OSError, ValueError) as error:
            return None, str(error)
        if record["version"] != VERSION:
            return None, f"its version is {record['version']}, expected {VERSION}"
        return record, ""

    def read(self, name: str, key: str | None = None) -> dict | None:
        """Load a finished record; None if it is missing, damaged, unfinished, or has another key than the given one."""
        record = self.load(name)
        return record if record and record["status"] in FINAL and key in (None, record.get("key")) else None

    def write(self, record: dict) -> None:
        """Write a record atomically."""
        text = json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True)
        name = record_name(record["student"], record.get("attempt", 1))
        write_atomic(self.path(name), text.encode(errors="replace"))

    def names(self) -> list[str]:
        """Names of all records, sorted by student and then by attempt."""

        def student_and_attempt(name: str) -> tuple[str, int]:
            student, _, attempt = name.partition("~")
            return student, int(attempt) if attempt.isdecimal() else 1

        names = (file.name.removesuffix(".json") for file in os.scandir(self.folder) if file.name.endswith(".json"))
        return sorted((name for name in names if not name.startswith(".")), key=student_and_attempt)

    def everything(self) -> Records:
        """All records of the folder, each loaded when it is accessed."""
        return Records(self, self.names())


class Records(Sequence):
    """Records by name, loaded from disk one at a time, so that a hundred thousand need no memory.

    Args:
        store: loads the records.
        names: in order; iteration skips names without a readable record.
    """

    def __init__(self, store: RecordStore, names: Sequence[str] = ()) -> None:
        self.store, self.names = store, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        record = self.store.load(self.names[index])
        if record is None:
            problem = f"the record {self.store.path(self.names[index])} is damaged"
            raise ValueError(f"{problem}; delete it and grade again ({self.store.damage(self.names[index])})")
        return record

    def __iter__(self) -> Iterator[dict]:
        records = (self.store.load(name) for name in self.names)
        return (record for record in records if record)


def batch_seed(out: Path, seed: int | None) -> int:
    """Return the secret seed of an output folder: the given one, or one that is drawn once and stored for resuming.

    Args:
        out: the instructor's `--out`; the seed file in it is readable by its owner only.
        seed: `--seed`, or None.

    Raises:
        ValueError: if the folder was graded with another seed, or its seed file is damaged.
    """
    path = out / "seed.json"
    if path.exists():
        try:
            stored = int(json.loads(path.read_text())["seed"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise ValueError(f"{path} is damaged; delete it and {out}'s records to grade again") from None
        if seed is not None and seed != stored:
            advice = "omit --seed to continue with that one, or give another --out"
            raise ValueError(f"--seed is {seed}, but {out} was graded with another seed; {advice}")
        return stored
    seed = secrets.randbits(63) if seed is None else seed
    write_atomic(path, json.dumps({"seed": seed}).encode(), mode=0o600)
    return seed


@contextlib.contextmanager
def output_folder_lock(out: Path) -> Iterator[None]:
    """Lock an output folder, because two simultaneous runs would grade twice; a killed run releases its lock.

    Raises:
        ValueError: if another run holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another run is grading into {out}; wait for it, or give another --out") from None
        yield
