"""Archives are read in a child process: one that is expensive to read costs its own submission and nobody else's."""

from __future__ import annotations

import gzip
import io
import resource
import sys
import tarfile
import time
import zipfile

import pytest

from segedu.grading.submissions import archive_process
from segedu.grading.submissions.archive import MAX_HEADER, SubmissionError
from segedu.grading.submissions.archive_process import read_archive
from segedu.grading.submissions.find_submissions import Entry
from segedu.grading.submissions.submission import MAX_ARCHIVES, read_submission


def make_zip(*members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members:
            file.writestr(name, data)
    return buffer.getvalue()


def slow_tar(headers: int) -> bytes:
    """Each of its headers is searched in a time that grows with the square of its length."""
    info = tarfile.TarInfo("p")
    info.type, info.size = tarfile.XHDTYPE, MAX_HEADER
    one = info.tobuf(tarfile.USTAR_FORMAT) + b"1" * MAX_HEADER
    return gzip.compress(one * headers + tarfile.TarInfo("a.ipynb").tobuf() + bytes(1024))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_notebooks_come_back_as_they_are_from_every_packing(method):
    content = bytes(range(256)) * 999
    data = make_zip(("a/lab.ipynb", content), ("ünï.ipynb", b""), ("b.txt", b"x"), method=method)
    found, seconds = read_archive("x.zip", data)
    assert found == [("a/lab.ipynb", content), ("ünï.ipynb", b"")] and 0 <= seconds < 5


def test_names_that_no_encoding_has_come_back():
    info = tarfile.TarInfo("\udcff.ipynb")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as file:
        file.addfile(info)
    assert read_archive("x.tar", buffer.getvalue())[0] == [("\udcff.ipynb", b"")]


def test_an_entry_of_a_wrong_size_or_sum_is_broken():
    data = make_zip(("lab.ipynb", b"{}" * 1000), method=zipfile.ZIP_BZIP2)
    for true, lie in ((2000, 1000), (2000, 3000)):
        wrong = data.replace(true.to_bytes(4, "little"), lie.to_bytes(4, "little"))
        with pytest.raises(SubmissionError, match="broken archive"):
            read_archive("x.zip", wrong)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of processor time and memory")
def test_time_and_memory_are_those_of_the_child(monkeypatch):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, waited = time.process_time(), time.monotonic()
    with pytest.raises(SubmissionError, match="takes more than 10 s, the limit"):
        read_archive("x.tar.gz", slow_tar(60), 1)
    assert time.process_time() - began < 1 and time.monotonic() - waited < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10
    small = archive_process._CODE.replace(
        "archive_process.main", "archive_process.MEMORY = 64 << 20; archive_process.main"
    )
    monkeypatch.setattr(archive_process, "_CODE", small)
    with pytest.raises(SubmissionError, match="memory, the limit|ended with exit status"):
        read_archive(
            "x.zip", make_zip(("lab.ipynb", bytes(i % 251 for i in range(30 << 20))), method=zipfile.ZIP_STORED)
        )


def test_the_archives_of_one_submission_have_one_limit_together(tmp_path, monkeypatch):
    for number in range(3):
        (tmp_path / f"{number}.zip").write_bytes(make_zip((f"{number}.ipynb", b"{}")))
    asked = []

    def read(name, data, seconds):
        asked.append(seconds)
        return [(f"{name}.ipynb", b"{}")], 4.0

    monkeypatch.setattr("segedu.grading.submissions.submission.read_archive", read)
    read_submission(Entry("anna", tmp_path), "00_tiny", tmp_path.parent)
    assert asked == [10, 6, 2]
    monkeypatch.undo()
    with pytest.raises(SubmissionError, match="the limit"):
        read_archive("x.zip", make_zip(("a.ipynb", b"{}")), -1.0)


def test_a_folder_of_endless_archives_is_refused(tmp_path):
    for number in range(MAX_ARCHIVES + 1):
        (tmp_path / f"{number}.zip").write_bytes(make_zip((f"{number}.ipynb", b"{}")))
    problem = read_submission(Entry("anna", tmp_path), "00_tiny", tmp_path.parent).problem
    assert problem == "more than 20 archives were handed in; hand in the notebook alone"


def test_the_largest_honest_archive_is_within_the_limits():
    content = bytes(range(256)) * (1 << 16)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=0) as file:
        for name in ("a.ipynb", "b.ipynb", "c.ipynb"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    found, seconds = read_archive("x.tar.xz", buffer.getvalue())
    assert [len(data) for _, data in found] == [16 << 20] * 3 and seconds < archive_process.CPU_SECONDS / 2
