"""The way of a submission into the grader, with mutated notebooks, archives and folders beside honest neighbours.

Mutated code is run in the sandbox or not at all: the pool of these tests runs steps only where each of the student's
is an honest answer.
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import importlib.util
import io
import json
import lzma
import os
import random
import resource
import sqlite3
import struct
import sys
import tarfile
import tempfile
import time
import tracemalloc
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from segedu.grading.batch.batch import Job, grade_batch
from segedu.grading.batch.grader_threads import pool_of_threads
from segedu.grading.batch.reports import write_reports
from segedu.grading.judging.lab_source import read_lab
from segedu.grading.judging.rebuild import MAX_NOTES, rebuild
from segedu.grading.sandbox.kernel_pool import RunResult, probe_levels
from segedu.grading.submissions.archive import SubmissionError, notebooks_in
from segedu.grading.submissions.find_submissions import find_entries, student_id
from segedu.grading.submissions.notebook import parse_notebook
from segedu.grading.submissions.submission import read_submission
from segedu.teaching.checks import codec

sys.path += [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "grading")]
import fuzz
import fuzz_folders
import tiny

AT_ONCE = 10  # mutated submissions in one batch
SECONDS = 4.0  # of CPU for one submission, at most, on average over a batch
HONEST = json.loads(tiny.notebook(tiny.answered(**tiny.RIGHT)))
OTHER = tiny.notebook([tiny.cell("04-box-iou", "def box_iou(a, b): pass")]).encode()
FOUND = {"graded": 0, "unreadable": 0}
LAYOUT: list[set[str]] = []  # names of the files and folders that each batch left

seeds = st.integers(0, 2**32 - 1)
notebooks = st.lists(st.tuples(st.sampled_from(fuzz.DOCUMENT + fuzz.BYTES), seeds), min_size=1, max_size=4)
handed_in = st.tuples(
    st.sampled_from(["notebook"] * 5 + ["archive"] * 4 + ["folder", "thing"]),
    st.one_of(st.just(b""), st.sampled_from(fuzz.FILE_NAMES)),
    notebooks,
    seeds,
)


def _pretence() -> type:
    path = Path(__file__).resolve().parents[1] / "grading" / "conftest.py"
    spec = importlib.util.spec_from_file_location("grading_conftest", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.InProcessPool


class HonestPool(_pretence()):
    """Runs what the honest neighbours hand in, and nothing else."""

    def run(self, steps, files_in, wanted, limits) -> RunResult:
        theirs = {step.source for step in steps if step.kind in ("helper", "solution")}
        if theirs <= set(tiny.RIGHT.values()):
            return super().run(steps, files_in, wanted, limits)
        return RunResult([], 3, self.isolation.reason)


@contextlib.contextmanager
def honest_pools(job, hides, count):
    yield [HonestPool()] * count


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    with tiny.installed(tiny.make_course(tmp_path_factory.mktemp("course"))) as folder:
        grade(folder, [])
        yield folder


def hand_in(folder: Path, one: tuple, number: int) -> None:
    """Write one mutated submission into the folder; what the file system refuses is not handed in."""
    kind, name, changes, seed = one
    rng, book = random.Random(seed), fuzz.mutated(HONEST, changes)
    name = os.fsdecode(name) or f"student{number}"
    with contextlib.suppress(OSError):
        if kind == "notebook":
            fuzz_folders.write_new(folder / f"{name}.ipynb", book)
        elif kind == "archive":
            suffix, data = fuzz.archive(book, OTHER, rng)
            fuzz_folders.write_new(folder / f"{name}{suffix}", data)
        elif kind == "thing":
            fuzz_folders.put_thing(folder / f"{name}.ipynb", book, OTHER, rng)
        else:
            fuzz_folders.fill_folder(folder / name, book, OTHER, rng)


def tree(folder: Path) -> dict[str, int]:
    """Every path below a folder, with the size of files."""
    found = {}
    for here, folders, names in os.walk(folder):
        for name in folders + names:
            path = os.path.join(here, name)
            found[path] = -1 if name in folders else os.lstat(path).st_size
    return found


def check_reports(batch, out: Path) -> None:
    """Each report can be read by what reads such files, and tells of every student."""
    students = [record["student"] for record in batch.records]
    lab = out / tiny.LAB
    rows = list(csv.DictReader(io.StringIO((lab / "grades.csv").read_text("utf-8-sig"))))
    shown = sorted(row["student"] for row in rows)
    assert [name.removeprefix("'") for name in shown] == sorted(students)
    suites = ElementTree.parse(lab / "junit.xml").getroot()
    assert sorted(suite.get("name") for suite in suites.iter("testsuite")) == sorted(students)
    assert sorted(path.stem for path in (lab / "feedback").glob("*.html")) == sorted(students)
    pages = "".join((lab / "feedback" / f"{student}.html").read_text() for student in students)
    assert "<script" not in pages and "\x1b" not in pages and "\u202e" not in pages
    with contextlib.closing(sqlite3.connect(out / "gradebook.sqlite")) as book:
        assert {name for (name,) in book.execute("select student from submissions")} == set(students)
    per_student = {f"{student}.{suffix}" for student in students for suffix in ("json", "html")}
    LAYOUT.append({path.name for path in out.rglob("*")} - per_student)
    assert LAYOUT[-1] == LAYOUT[0]  # that of the first, smallest batch


def grade(course: Path, ones: list[tuple], pools: Callable | None = honest_pools) -> None:
    """Grade the mutated ones beside two neighbours, and hold the batch against what must be."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        folder, out = Path(place, "subs"), Path(place, "out")
        folder.mkdir()
        for number, one in enumerate(ones):
            hand_in(folder, one, number)
        for name in ("AAA", "zzz"):
            fuzz_folders.write_new(folder / f"{name}.ipynb", json.dumps(HONEST).encode())
        before, began = tree(Path(place)), time.process_time()
        batch = grade_batch(
            Job(folder, tiny.LAB, out, course, seed=7, cell_seconds=5),
            open_grader_pool=partial(pool_of_threads, open_pools=pools),
        )
        write_reports(batch, out)
        assert time.process_time() - began < SECONDS * (len(ones) + 2)
        after = tree(Path(place))
        inside = f"{out}{os.sep}"
        assert {
            path: size for path, size in after.items() if path != str(out) and not path.startswith(inside)
        } == before
        entries, _ = find_entries(folder)
        records = {record["student"]: record for record in batch.records}
        assert sum(1 for _ in batch.records) == len(records) == len(entries)
        assert set(records) == {entry.name for entry in entries}
        for student, record in records.items():
            assert record["status"] in FOUND, (student, record.get("problem"), record.get("trace"))
            assert bool(record["problem"]) == (record["status"] == "unreadable")
            FOUND[record["status"]] += 1
        assert records["AAA"]["points"] == records["zzz"]["points"] == 9
        check_reports(batch, out)


def fuzzing(examples: int):
    """As many examples of a batch, the same ones at every run; a failure names the student, so none is made smaller."""
    phases, quiet = (Phase.explicit, Phase.generate), list(HealthCheck)
    return settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, phases=phases, suppress_health_check=quiet
    )  # fmt: skip


batches = st.lists(handed_in, min_size=AT_ONCE, max_size=AT_ONCE)


@fuzzing(15)
@given(ones=batches)
def test_150_mutated_submissions_have_a_record_each_and_their_neighbours_full_points(course, ones):
    grade(course, ones)


@pytest.mark.prove
def test_2000_mutated_submissions_have_a_record_each_and_their_neighbours_full_points(course):
    FOUND.update(graded=0, unreadable=0)
    tried = []

    @fuzzing(210)  # hypothesis may try fewer where it has seen them all
    @given(ones=batches)
    def many(ones):
        grade(course, ones)
        tried.append(len(ones))

    many()
    assert sum(tried) >= 2000
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"\n{sum(tried)} mutated submissions: with two honest ones per batch {FOUND['graded']} graded, "
        f"{FOUND['unreadable']} unreadable, {memory} MiB"
    )


@pytest.mark.skipif(not any(works and level >= 2 for level, works, _ in probe_levels()), reason="there is no sandbox")
@pytest.mark.prove
def test_30_mutated_notebooks_run_in_the_sandbox(course):
    rng = random.Random(30)
    changes = [[(rng.choice(fuzz.DOCUMENT), rng.getrandbits(32)) for _ in range(2)] for _ in range(30)]
    grade(course, [("notebook", b"", change, 0) for change in changes], pools=None)


# what this found, each as small as it can be -------------------------------------------------------------------------
def header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """One tar header; a size may be negative."""
    block = bytearray(512)
    block[: len(name)], block[156:157], block[257:265] = name, kind, b"ustar  \0"
    block[124:136] = size.to_bytes(12, "big", signed=True) if size < 0 else b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def bomb(kind: str) -> bytes:
    """A small archive that cost seconds a megabyte, or gigabytes of memory."""
    if kind == "a negative size leads back":  # 1 MB, read a thousand times
        body = b" " * (1 << 20)
        return (
            header(b"d", 0, b"5") + header(b"a.ipynb", len(body)) + body + header(b"b", -len(body) - 1024) + bytes(1024)
        )
    if kind == "a negative size in pax":
        stream, info = io.BytesIO(), tarfile.TarInfo("a.ipynb")
        info.pax_headers = {"size": "-1024"}
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as file:
            file.addfile(info)
        return stream.getvalue()
    if kind == "many pax records":
        records = b"".join(b"11 %05d=x\n" % i for i in range(20_000))
        return (
            header(b"p", len(records), b"x")
            + records
            + bytes(-len(records) % 512)
            + header(b"a.ipynb", 0)
            + bytes(1024)
        )
    if kind == "many lines in the contents of a zip":
        line = b"PK\x01\x02" + bytes(24) + b"\1\0" + bytes(16) + b"a"
        return line * 100_000 + b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 34_464, 34_464, len(line) * 100_000, 0, 0)
    if kind == "a long name in gzip":
        return b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * (8 << 20) + b"\0"
    pack = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}[kind.rpartition(" ")[2]]
    return pack(b"") * 50_000


@pytest.mark.parametrize(
    "kind",
    ["a negative size leads back", "a negative size in pax", "many pax records", "many lines in the contents of a zip",
     "a long name in gzip", "many streams of gzip", "many streams of bzip2", "many streams of xz"],
)  # fmt: skip
def test_small_archives_that_cost_much_are_refused_at_once(kind):
    data, began = bomb(kind), time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(SubmissionError, match="refused|broken"):
            notebooks_in("x.zip", data)
        assert tracemalloc.get_traced_memory()[1] < (8 << 20) + 4 * len(data)
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 1


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_packed_in_parts_is_read(pack):
    data = fuzz.make_tar([("a.ipynb", b"{}" * 5000)], random.Random(1))
    parts = b"".join(pack(data[i : i + 3000]) for i in range(0, len(data), 3000))
    assert notebooks_in("x.tgz", parts + b"\0" * 9) == [("a.ipynb", b"{}" * 5000)]


def test_the_files_of_a_folder_are_bounded_together(tmp_path):
    (tmp_path / "anna").mkdir()
    for i in range(3):
        fuzz_folders.write_new(tmp_path / "anna" / f"{i}.ipynb", b" ")
        os.truncate(tmp_path / "anna" / f"{i}.ipynb", 30 << 20)
    (entry,) = find_entries(tmp_path)[0]
    assert "at most" in read_submission(entry, tiny.LAB, tmp_path).problem


def test_links_beside_submissions_are_records_and_no_end(course, tmp_path):
    folder = tmp_path / "subs"
    folder.mkdir()
    fuzz_folders.write_new(folder / "anna.ipynb", json.dumps(HONEST).encode())
    for name, target in (
        ("loop", "loop"),
        ("up", ".."),
        ("root", "/"),
        ("nowhere", "nothing"),
        ("ben.ipynb", "anna.ipynb"),
    ):
        (folder / name).symlink_to(target)
    records = list(
        grade_batch(
            Job(folder, tiny.LAB, tmp_path / "out", course),
            open_grader_pool=partial(pool_of_threads, open_pools=honest_pools),
        ).records
    )
    assert [record["student"] for record in records if "is a link" in record["problem"]] == [
        "ben",
        "loop",
        "nowhere",
        "root",
        "up",
    ]
    assert [record["points"] for record in records if record["student"] == "anna"] == [9]


@fuzzing(200)
@given(name=st.text(st.sampled_from("ab_.-@ ~=é中ßﬁİ\u0345\udcff/\n"), max_size=99))
def test_the_id_of_an_id_is_that_id(name):
    assert student_id(student_id(name)) == student_id(name)


def test_long_names_that_begin_alike_stay_apart_in_the_reports(course, tmp_path):
    folder = tmp_path / "subs"
    folder.mkdir()
    for name in ("中" * 70, "中" * 71, "中" * 72, "a" * 90, "a" * 91, "b____c", "b__c", "b_c"):
        fuzz_folders.write_new(folder / f"{name}.ipynb", json.dumps(HONEST).encode())
    batch = grade_batch(
        Job(folder, tiny.LAB, tmp_path / "out", course),
        open_grader_pool=partial(pool_of_threads, open_pools=honest_pools),
    )
    write_reports(batch, tmp_path / "out")
    assert all(student_id(record["student"]) == record["student"] for record in batch.records)
    check_reports(batch, tmp_path / "out")


def test_a_file_of_ones_own_named_timestamp_costs_nothing(tmp_path):
    (tmp_path / "anna").mkdir()
    fuzz_folders.write_new(tmp_path / "anna" / "00_tiny.ipynb", json.dumps(HONEST).encode())
    fuzz_folders.write_new(tmp_path / "anna" / "timestamp.txt", b"notes " * 1000)
    (entry,) = find_entries(tmp_path)[0]
    assert read_submission(entry, tiny.LAB, tmp_path).problem == ""


def test_a_notebook_of_odd_words_has_not_a_note_for_each(course):
    book = {**HONEST, "cells": [*HONEST["cells"]]}
    words = "ctypes settrace showtraceback f_back ptrace __import__ run_cell /proc/ get_objects monai"
    book["cells"] += [tiny.cell(f"m{i}", words) for i in range(1900)]
    began = time.process_time()
    plan = rebuild(read_lab(course, tiny.LAB), parse_notebook(json.dumps(book).encode()))
    assert len(plan.notes[""]) == MAX_NOTES and "not listed" in plan.notes[""][-1]
    assert time.process_time() - began < 5


def test_a_long_chain_of_helpers_ends(course):
    cells = [tiny.cell(f"m{i}", f"def n{i}(): return n{i + 1}()") for i in range(1900)]
    book = {**HONEST, "cells": [*cells, tiny.cell("00-double", "def double(x): return n0()")]}
    plan = rebuild(read_lab(course, tiny.LAB), parse_notebook(json.dumps(book).encode()))
    assert plan.state["double"] == "answered"


@pytest.mark.parametrize(
    "shape", ["(0, 1000000000, 1000000000, 1000000000)", "(0, 2147483647, 2147483647, 2147483647)"]
)
def test_an_empty_array_with_huge_sides_is_a_codec_error(shape):
    with pytest.raises(codec.CodecError, match="impossible shape"):
        codec.read_npy(npy_of("<f8", shape, b""))


def test_a_bool_is_true_or_false_whatever_its_byte():
    array = codec.read_npy(npy_of("|b1", "(3,)", b"\0\1\2"))
    assert array.tobytes() == b"\0\1\1"


def npy_of(dtype: str, shape: str, body: bytes) -> bytes:
    """A `.npy` file as its header says it."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body
