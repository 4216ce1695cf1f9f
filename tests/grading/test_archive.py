"""Archives: notebooks come out of honest ones; hostile ones are refused by the name of the entry."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest

from segedu.grading.submissions.archive import MAX_ENTRIES, SubmissionError, notebooks_in


def make_zip(entries, links=()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries:
            file.writestr(name, data)
        for name in links:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            file.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def make_tar(entries, mode="w:gz", **special) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        if special:
            info = tarfile.TarInfo("odd.ipynb")
            for key, value in special.items():
                setattr(info, key, value)
            file.addfile(info)
    return buffer.getvalue()


ONE = [("a/lab.ipynb", b"{}"), ("data.csv", b"1")]


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz", "X.ZIP"])
def test_notebooks_come_out_of_honest_archives(name):
    modes = {"tar": "w", "gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}
    suffix = name.lower().rpartition(".")[2]
    data = make_zip(ONE) if suffix == "zip" else make_tar(ONE, modes[suffix])
    assert notebooks_in(name, data) == [("a/lab.ipynb", b"{}")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.zip", make_zip([("../evil.ipynb", b"{}")]), r"\.\./evil\.ipynb points outside"),
        ("x.zip", make_zip([("/etc/evil.ipynb", b"{}")]), "points outside"),
        ("x.zip", make_zip([("C:\\evil.ipynb", b"{}")]), "points outside"),
        ("x.zip", make_zip([("a\\..\\evil.ipynb", b"{}")]), "points outside"),
        ("x.zip", make_zip([], links=["link.ipynb"]), "link.ipynb is a link"),
        ("x.zip", make_zip([("bomb.ipynb", b"0" * (30 << 20))]), "bomb.ipynb is compressed more than 200 times"),
        ("x.zip", make_zip([("big.bin", b"0" * (33 << 20))]), "more than 32 MB"),
        ("x.zip", make_zip([(f"{i}", b"") for i in range(MAX_ENTRIES + 1)]), "2001 entries"),
        ("x.zip", make_zip([("a.txt", b"")]), "holds no notebook"),
        ("x.zip", make_zip([("inner.zip", make_zip(ONE))]), "holds no notebook"),
        ("x.zip", b"PK\x03\x04 no", "broken archive"),
        ("x.tar.gz", make_tar([("../evil.ipynb", b"{}")]), "points outside"),
        ("x.tar.gz", make_tar(ONE, type=tarfile.SYMTYPE, linkname="/etc/passwd"), "odd.ipynb is a link"),
        ("x.tar.gz", make_tar(ONE, type=tarfile.LNKTYPE, linkname="/etc/passwd"), "odd.ipynb is a link"),
        ("x.tar.gz", make_tar(ONE, type=tarfile.CHRTYPE), "neither a file nor a folder"),
        ("x.tar.gz", make_tar(ONE, type=tarfile.FIFOTYPE), "neither a file nor a folder"),
        ("x.tar.gz", make_tar([("bomb", b"0" * (65 << 20))]), "more than 64 MB"),
        ("x.tar.gz", b"\x1f\x8b no", "broken archive"),
        ("x.tar", b"", "broken archive|holds no notebook"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_hostile_archives_are_refused_by_name(name, data, message):
    with pytest.raises(SubmissionError, match=message):
        notebooks_in(name, data)


def test_a_table_of_contents_that_lies_about_sizes_is_not_believed():
    data = make_zip([("lab.ipynb", b"0" * (34 << 20))])
    true, lie = (34 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little")
    with pytest.raises(SubmissionError):
        notebooks_in("x.zip", data.replace(true, lie))
