"""Records are written whole, known by what decides them, and never made twice."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest

from segedu.grading.judging import records
from segedu.grading.judging.records import RecordStore, batch_seed, output_folder_lock, record_key, write_atomic


def record(student="anna", status="graded", key="k"):
    basics = {
        "version": records.VERSION,
        "student": student,
        "status": status,
        "key": key,
        "points": 3,
        "max_points": 3,
    }
    basics |= {"tool": "t", "lab": "00_tiny", "source": "a.ipynb", "problem": "", "notes": [], "attempt": 1}
    return basics | {"submitted": None, "sandbox": None, "measured": {"seconds": 0.5}, "exercises": []}


def test_what_was_written_is_read(tmp_path):
    store = RecordStore(tmp_path, "00_tiny")
    store.write(record())
    assert store.read("anna", "k") == record() == store.read("anna")
    assert store.read("anna", "other") is None and store.read("bert") is None
    store.write(record("Ünï") | {"notes": ["\ud800"]})
    assert len(store.everything()) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 0}', "null", json.dumps(record(status="failed"))])
def test_damaged_and_failed_records_are_made_again(tmp_path, content):
    store = RecordStore(tmp_path, "00_tiny")
    store.path("anna").write_text(content)
    assert store.read("anna", "k") is None
    assert [one["status"] for one in store.everything()] == ["failed"] * ("failed" in content)


def test_what_a_killed_run_left_is_swept_and_never_read(tmp_path):
    store = RecordStore(tmp_path, "00_tiny")
    left = store.folder / ".anna.json.77.abcd.part"
    left.write_text(json.dumps(record()))
    assert list(store.everything()) == []
    RecordStore(tmp_path, "00_tiny")
    assert not left.exists()


def test_a_write_that_fails_leaves_the_old_record(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_attempts_stand_beside_each_other_and_are_read_one_by_one(tmp_path):
    store = RecordStore(tmp_path, "00_tiny")
    for student, attempt in (("anna0", 1), ("anna", 10), ("anna", 2), ("anna-b", 1), ("anna", 1)):
        store.write(record(student) | {"attempt": attempt})
    names = ["anna", "anna~2", "anna~10", "anna-b", "anna0"]
    everything = store.everything()
    assert everything.names == names and len(everything) == 5 and everything[2]["attempt"] == 10
    store.path("anna-b").unlink()  # while they are being read
    assert [one["student"] for one in everything] == ["anna", "anna", "anna", "anna0"]
    with pytest.raises(ValueError, match=r"anna-b.json is damaged; delete it and grade again"):
        everything[3]


def test_every_part_of_the_key_counts():
    parts, others = ("sub", {"lab": "a", "judge": "b"}, 1, "settings"), ("x", {"lab": "a", "judge": "c"}, 2, "x")
    keys = {record_key(*parts[:i], others[i], *parts[i + 1 :]) for i in range(4)} | {record_key(*parts)}
    assert len(keys) == 5


def test_the_seed_is_drawn_once_kept_and_private(tmp_path):
    seed = batch_seed(tmp_path, None)
    assert batch_seed(tmp_path, None) == batch_seed(tmp_path, seed) == seed
    assert stat.S_IMODE((tmp_path / "seed.json").stat().st_mode) == 0o600
    with pytest.raises(ValueError, match="graded with another seed; omit --seed"):
        batch_seed(tmp_path, seed + 1)
    (tmp_path / "seed.json").write_text("{}")
    with pytest.raises(ValueError, match="is damaged; delete it"):
        batch_seed(tmp_path, None)
    other = tmp_path / "other"
    other.mkdir()
    assert batch_seed(other, 7) == 7 and batch_seed(other, None) == 7


def test_two_runs_do_not_share_a_folder_and_a_dead_one_lets_go(tmp_path):
    code = "import sys, time; from pathlib import Path; from segedu.grading.judging.records import output_folder_lock\n"
    code += "with output_folder_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another run is grading into"), output_folder_lock(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    with output_folder_lock(tmp_path):
        pass
