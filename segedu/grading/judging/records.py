"""Records: one JSON a submission, written whole or not at all. They are the truth; all else is derived from them.

A record's key is a hash of everything that decides its points. A record with the right key is never made again;
so a batch that was killed goes on where it stopped.
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
LAB_NAME = r"\d\d_\w+"  # other folders of the output folder hold no records, whatever lies in them
FINAL = ("graded", "unreadable")  # anything else was our failure and is tried again


def clean(text: object, length: int = 300) -> str:
    """Text that came from a student's process: one line, no control characters, cut.

    Args:
        text: anything.
        length: at most so many characters are kept.

    Returns:
        Plain text.
    """
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", str(text)[: 4 * length])
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:length]


def record_key(submission: str, sources: Mapping[str, str], seed: int, settings: str) -> str:
    """The key of one submission's record.

    Args:
        submission: digest of the notebook.
        sources: digests of all that decides points: `sources_of` of the lab.
        seed: of the batch.
        settings: limits and sandbox level, as text.

    Returns:
        SHA-256, hexadecimal.
    """
    decided = [f"{name} {value}" for name, value in sorted(sources.items())]
    return hashlib.sha256("\n".join([submission, *decided, str(seed), settings]).encode()).hexdigest()


def sources_of(lab: Lab) -> dict[str, str]:
    """What decides points in a lab: the hash of its notebook, and those of `decisive_hashes`.

    Args:
        lab: as the course has it.

    Returns:
        `lab`, `exercises`, `judge`, `sandbox` and `library`, each a hash.
    """
    return {"lab": lab.digest, **decisive_hashes(lab.name)}


class RecordStore:
    """The records of one lab in one output folder.

    Args:
        out: the instructor's `--out`.
        lab: `04_metrics`.
    """

    def __init__(self, out: Path, lab: str) -> None:
        self.folder = out / lab / "records"
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".*.part"):  # of a run that was killed while writing
            left.unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Where a record lies: `anna`, or `anna~2` of a second attempt."""
        return self.folder / f"{name}.json"

    def load(self, name: str) -> dict | None:
        """A record, also one of a failure of ours; None where there is none or it is damaged."""
        return self._read(name)[0]

    def damage(self, name: str) -> str:
        """What is wrong with a record, or "" where nothing is."""
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
        """A finished record.

        Args:
            name: of the record.
            key: if given, only a record with this key counts.

        Returns:
            The record, or None where there is none, it is damaged, or it is of something else.
        """
        record = self.load(name)
        return record if record and record["status"] in FINAL and key in (None, record.get("key")) else None

    def write(self, record: dict) -> None:
        """Write a record so that a reader finds the old one or the new one, whatever happens."""
        text = json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True)
        name = record_name(record["student"], record.get("attempt", 1))
        write_atomic(self.path(name), text.encode(errors="replace"))

    def names(self) -> list[str]:
        """Of all record files, a student's attempts beside each other and in order."""

        def place(name: str) -> tuple[str, int]:
            student, _, attempt = name.partition("~")
            return student, int(attempt) if attempt.isdecimal() else 1

        found = (file.name.removesuffix(".json") for file in os.scandir(self.folder) if file.name.endswith(".json"))
        return sorted((name for name in found if not name.startswith(".")), key=place)

    def everything(self) -> Records:
        """All records of the folder, each read when it is asked for."""
        return Records(self, self.names())


class Records(Sequence):
    """Records by name, read from the disk one at a time: a hundred thousand need no memory.

    Args:
        store: where they lie.
        names: in order; one without a readable record is passed over when they are iterated.
    """

    def __init__(self, store: RecordStore, names: Sequence[str] = ()) -> None:
        self.store, self.names = store, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        record = self.store.load(self.names[index])
        if record is None:
            what = f"the record {self.store.path(self.names[index])} is damaged"
            raise ValueError(f"{what}; delete it and grade again ({self.store.damage(self.names[index])})")
        return record

    def __iter__(self) -> Iterator[dict]:
        found = (self.store.load(name) for name in self.names)
        return (record for record in found if record)


def batch_seed(out: Path, seed: int | None) -> int:
    """The secret seed of an output folder: given, or drawn once and kept for resuming.

    Args:
        out: the instructor's `--out`; the seed lies there in a file that only its owner can read.
        seed: `--seed`, or None.

    Returns:
        The seed.

    Raises:
        ValueError: if the folder was graded with another seed, or its seed file is damaged.
    """
    path = out / "seed.json"
    if path.exists():
        try:
            kept = int(json.loads(path.read_text())["seed"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise ValueError(f"{path} is damaged; delete it and {out}'s records to grade anew") from None
        if seed is not None and seed != kept:
            advice = "leave --seed out to go on with that one, or give another --out"
            raise ValueError(f"--seed is {seed}, but {out} was graded with another seed; {advice}")
        return kept
    seed = secrets.randbits(63) if seed is None else seed
    write_atomic(path, json.dumps({"seed": seed}).encode(), mode=0o600)
    return seed


@contextlib.contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Hold the output folder: two runs at once would grade twice. A killed run lets go by itself.

    Args:
        out: the instructor's `--out`.

    Raises:
        ValueError: if another run holds it.
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
