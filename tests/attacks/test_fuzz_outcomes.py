"""What a hostile process may leave as its outcomes: mutated bytes are an error of the codec's or a valid value."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segedu.grading.judging.compare import make_exercise_cases, read_outcomes, verdict_of
from segedu.grading.sandbox.sandbox_files import SandboxFiles
from segedu.teaching.checks import codec
from segedu.teaching.checks.outcomes import MAX_DEPTH

sys.path.append(str(Path(__file__).resolve().parents[1] / "grading"))
import tiny

CASES = 4
DTYPES = (
    "<f8", ">f8", "<f4", "<f2", "<f16", "|b1", "<i8", ">i4", "<u8", "|u1", "|O", "<M8[s]", "<m8[D]", "<c16", "|V7", "|S5", "<U3",
    "|V1000000000", "<U500000000", "<f3", "", "|b0", "|V0", "<U0", "x" * 300,
)  # fmt: skip
DESCRIPTIONS = (
    "[('a', '<f8')]", "[('a', '|O')]", "('<f8', (2,))", "('<f8', [('a', '<f4')])", "[]", "None", "1", "[('a', [('b', '<f8')])]", "('|V8', {})",
    "('<f8', (9999999, 9999999))", "'<f8', ", "[('', '<f8'), ('', '<i4')]", "{'names': ['a'], 'formats': ['<f8']}", "(('a', '<f8'),)",
)  # fmt: skip
SHAPES = (
    "()", "(1,)", "(2,)", "(3, 2)", "(0,)", "(0, 5)", "(-1,)", "(1, -8)", "(True,)", "(2.0,)", "[2]", "2", "('2',)", "(1000000000,)",
    "(0, 1000000000, 1000000000, 1000000000)", f"({2**63},)", f"(0, {2**64})", f"({10**40}, 0)", "(1,) * 9", f"({'1, ' * 9})", f"({'1, ' * 40})",
    f"({'1, ' * 900})", "(65536, 65536, 65536, 65536)", "(0, 2147483647, 2147483647, 2147483647)", "None",
)  # fmt: skip
ORDERS = ("False", "True", "0", "None", "'x'")
BODIES = (b"", b"\0" * 8, b"\0" * 48, b"\x02" * 8, b"\xff" * 48, b"\x7f\xf8" * 24, b"\0" * 70_000)


def npy(rng: random.Random) -> bytes:
    """A header that may say anything, and bytes that may not fit it; one part is wrong at a time, more often than all."""
    wrong = rng.choice(
        ("", "descr", "order", "shape", "length", "version", "magic", "body", "parts", "descr order shape body")
    )
    code, shape = rng.choice(DTYPES[:10]), rng.choice(((), (1,), (2,), (3, 2), (0, 5), (2, 0, 3)))
    body = rng.randbytes(math.prod(shape) * np.dtype(code).itemsize)
    description = rng.choice((*map(repr, DTYPES), *DESCRIPTIONS)) if "descr" in wrong else repr(code)
    order = rng.choice(ORDERS if "order" in wrong else ORDERS[:2])
    shown = rng.choice(SHAPES) if "shape" in wrong else str(shape)
    parts = [f"'descr': {description}", f"'fortran_order': {order}", f"'shape': {shown}"]
    if wrong == "parts":
        parts = rng.choice((parts[1:], [*parts, "'x': 1"], ["'descr': " + "(" * 150 + ")" * 150], ["'a': " * 40]))
    header = ("{" + ", ".join(parts) + "}" + " " * rng.choice((0, 0, 0, 50, 5000))).encode() + b"\n"
    version = rng.choice((b"\x02\x00", b"\x03\x00", b"\x09\x09") if wrong == "version" else (b"\x01\x00",))
    length = rng.choice((0, 9, 65535)) if wrong == "length" else len(header)
    size = length.to_bytes(8, "little")[: 2 if version == b"\x01\x00" else 4]
    magic = rng.choice((b"PK\x03\x04", b"\x80\x04]", b"")) if wrong == "magic" else b"\x93NUMPY"
    if "body" in wrong or ("0" in shown and rng.random() < 0.5):
        body = rng.choice(BODIES)
    return magic + version + size + header + body


def small(rng: random.Random) -> dict:
    """An array that stands in the JSON; one part is wrong at a time, or none."""
    wrong = rng.choice(("", "", "dtype", "shape", "values", "parts"))
    name = rng.choice(
        ("<f8", "object", "str", 3, None, ["int8"], "x" * 99) if wrong == "dtype" else ("float64", "int8")
    )
    shape = rng.choice(
        ([-1], [True], [2**70], [2.0], "2", None, [1] * 9, [2**31], [0, 2**30, 2**30, 2**30], [[1]], {})
        if wrong == "shape"
        else ([], [1], [2], [2, 3], [0, 5])
    )
    count = math.prod(shape) if wrong != "shape" else rng.choice((0, 1, 2))
    value = rng.choice((2**70, -1000, "1", None, True, [1], {}, 0.5) if wrong == "values" else (1, 0, -1))
    body = [name, shape, [value] * count]
    if wrong == "parts":
        body = rng.choice((body[:2], [*body, 0], body[2], None, {}, "x", [name, shape, [1] * 17], [name, shape, 1]))
    return {rng.choice(("small array", "small tensor")): body}


def document(rng: random.Random, depth: int = 0) -> object:
    """A node: well formed, nearly so, or not at all."""
    leaf = (
        None,
        True,
        0,
        -1,
        1.5,
        math.nan,
        math.inf,
        2**63,
        -(2**63),
        2**70,
        10**30,
        "bare",
        [],
        {},
        {"str": "é\ud800\0"},
        {"str": 1},
    )
    index = rng.choice((0, 0, 1, 2, 9, -1, 255, 10**9, 1.0, True, "0", None, [0], 2**70))
    node = rng.choice(
        (
            *leaf,
            {"array": index},
            {"array": index},
            {"tensor": index},
            small(rng),
            small(rng),
            {"array": 0, "tensor": 0},
            {"fixture": "x", "with": {}},
        )
    )
    if depth > 4 or rng.random() < 0.4:
        return node
    tag = rng.choice(("list", "tuple", "dict", "dict", "dict", "set", "", "list\0"))
    count = rng.choice((0, 1, 2, 3, 3, 40) if depth < 2 else (0, 1, 2))
    if tag == "dict":
        keys = (
            "value",
            "raises",
            "refused",
            "arguments",
            "grads",
            "parameters",
            "",
            "value\0",
            "_message",
            "x" * 99,
        )
        return {"dict": {rng.choice(keys): document(rng, depth + 1) for _ in range(count)}}
    return {tag: [document(rng, depth + 1) for _ in range(count)]}


def text(rng: random.Random) -> bytes:
    """The JSON of an outcome, its bytes perhaps changed."""
    arguments = rng.choice(([], [0], [True], [document(rng)], [{"str": "x"}]))
    value = {"dict": {"value": document(rng), "arguments": {"list": arguments}}}
    data = json.dumps(value if rng.random() < 0.8 else document(rng)).encode()
    deep, many = rng.choice((30, 3000, 300_000)), rng.choice((30, 30_000))
    choice = rng.random()
    if choice < 0.2:
        place = rng.randrange(len(data))
        token = rng.choice(
            (b"NaN", b"1e999", b"9" * 5000, b"\xff", b"\0", b"[", b'"array":0,', b'"value":{"array":0},', b"}")
        )
        return data[:place] + token + data[place + rng.randrange(3) :]
    if choice < 0.3:
        return data[: rng.randrange(len(data))]
    if choice < 0.4:
        return rng.choice((
            b"", b"null", b"[" * deep, b'{"list":[' * deep, b'{"list":[' * deep + b"]}" * deep, b'{"dict":{"value":{"list":[' + b"0," * many + b"0]}}}",
            b'{"dict":{"value":{"list":[' + b'{"array":0},' * many + b"0]}}}", b"[" + b"[]," * many + b"0]", b" " * (codec.MAX_JSON + 1), data.decode().encode("utf-16"),
            b'{"dict":{"value":{"list":[' + b'{"list":[' * 15 + b"]}" * 15 + b"]}}}", b'{"str":"' + b"a" * 900_000 + b'"}',
        ))  # fmt: skip
    return data


def left_behind(seed: int) -> dict[str, bytes]:
    """Files of one exercise, as fetched from the sandbox."""
    rng, folder = random.Random(seed), "job/double/out"
    files = {}
    for case in range(CASES + 1):
        files[f"{folder}/{case}.json"] = text(rng)
        files |= {f"{folder}/{case}.{i}.npy": npy(rng) for i in range(rng.randrange(3))}
        if rng.random() < 0.1:
            files[f"{folder}/{rng.choice(('x', '0.json.json', '-1.json', '0..npy'))}"] = npy(rng)
    return files


def is_valid(value: object, depth: int = 0) -> bool:
    """Of the classes that outcomes may hold, and nothing else."""
    if isinstance(value, torch.Tensor):
        return type(value) is torch.Tensor
    if isinstance(value, np.ndarray):
        plain_kind = value.dtype.kind in "biuf" and value.dtype.fields is None and value.dtype.isnative
        clean = value.dtype != bool or bool((value.view(np.uint8) <= 1).all())
        return (
            type(value) is np.ndarray
            and plain_kind
            and clean
            and value.flags.c_contiguous
            and value.flags.owndata | (value.base is not None)
        )
    if isinstance(value, list | tuple):
        return depth <= MAX_DEPTH + 2 and all(is_valid(item, depth + 1) for item in value)
    if isinstance(value, dict):
        return all(type(key) is str and is_valid(item, depth + 1) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str)


@pytest.fixture(scope="module")
def exercise_cases(tmp_path_factory):
    with tiny.installed(tiny.make_course(tmp_path_factory.mktemp("course"))):
        from segedu.teaching.exercises import load

        yield make_exercise_cases(load(tiny.LAB).exercises[0], tiny.LAB, 5)


def read_all(exercise_cases, seed: int) -> list[str]:
    """Read one mutated folder in both ways, and ten arrays; returns what became of all."""
    files, rng = left_behind(seed), random.Random(seed)
    stems = [f"job/double/out/{case}" for case in range(CASES + 1)]
    became = [_read(partial(codec.read_npy, npy(rng))) for _ in range(10)]
    became += [_read(lambda stem=stem: codec.unpack(lambda name: files.get(f"{stem}.{name}"))) for stem in stems]
    measured = rng.choice(stems)
    size = sum(len(data) for path, data in files.items() if path.startswith(measured))
    tracemalloc.start()
    try:
        _read(lambda: codec.unpack(lambda name: files.get(f"{measured}.{name}")))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20 + 60 * size, (peak, size)  # an empty list of three bytes costs a hundred and more
    outcomes, notes = read_outcomes(exercise_cases, files)
    assert len(outcomes) == CASES and all(outcome is None or type(outcome) is dict for outcome in outcomes)
    assert all(note.startswith(tuple("123456789")) for note in notes)
    verdict_of(exercise_cases, outcomes)
    return became


def _read(read: Callable) -> str:
    """A valid value, or an error of the codec's; nothing else."""
    began = time.process_time()
    try:
        assert is_valid(read())
        return "read"
    except codec.CodecError:
        return "refused"
    finally:
        assert time.process_time() - began < 5


def fuzzing(examples: int):
    quiet = list(HealthCheck)
    return settings(max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=quiet)


@fuzzing(150)
@given(seed=st.integers(0, 2**32 - 1))
def test_150_mutated_folders_of_outcomes(exercise_cases, seed):
    read_all(exercise_cases, seed)


@pytest.mark.prove
def test_2000_mutated_folders_of_outcomes(exercise_cases):
    became = [what for seed in range(2000) for what in read_all(exercise_cases, seed)]
    assert min(became.count("read"), became.count("refused")) > 2000
    print(f"\n2000 mutated folders: {became.count('read')} arrays and outcomes read, {became.count('refused')} refused")


# what is valid survives ---------------------------------------------------------------------------------------------
numbers = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(),
    st.text(st.characters()),
    st.just("\ud800"),
)
shapes = arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)
kinds = st.sampled_from(["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f8", ">i4"])
tables = kinds.flatmap(lambda kind: arrays.arrays(np.dtype(kind), shapes))
views = tables.map(lambda table: table.T)
values = st.recursive(
    st.one_of(numbers, tables, views),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(), inner, max_size=4),
    ),
    max_leaves=12,
)


def same(a: object, b: object) -> bool:
    """Exactly: class, dtype but for its byte order, shape, bits."""
    if isinstance(a, np.ndarray):
        alike = type(b) is np.ndarray and a.shape == b.shape and a.dtype.newbyteorder("=") == b.dtype
        return alike and np.ascontiguousarray(a.astype(b.dtype)).tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return a == b and math.copysign(1, a) == math.copysign(1, b) if type(a) is float and a == a else a == b or a != a


@fuzzing(200)
@given(value=values)
def test_valid_values_survive_exactly(value):
    assert same(value, codec.unpack(codec.pack(value).get))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int64, torch.float32, torch.float64])
def test_tensors_survive_exactly(dtype):
    tensor = (torch.arange(24) % 2).reshape(2, 3, 4).to(dtype).transpose(0, 2)
    back = codec.unpack(codec.pack({"value": [tensor, tensor[:0]]}).get)["value"]
    assert all(b.dtype == dtype and torch.equal(a, b) for a, b in zip([tensor, tensor[:0]], back, strict=True))


# the files of a sandbox ---------------------------------------------------------------------------------------------
def test_only_plain_files_come_out_of_a_box(tmp_path):
    out = tmp_path / "work" / "job" / "double" / "out"
    out.mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (out / "0.json").write_bytes(b"{}")
    (out / "link.json").symlink_to(tmp_path / "secret")
    (out / "loop.json").symlink_to("loop.json")
    os.mkfifo(out / "pipe.json")
    (out / "folder.json").mkdir()
    os.truncate(os.open(out / "sparse.json", os.O_CREAT | os.O_WRONLY), 1 << 40)
    for name in (b"\xff\xfe.json", b"a\nb.json", b"*.json", b"[x].json", b"n" * 250 + b".json"):
        with open(os.fsencode(out) + b"/" + name, "wb") as file:
            file.write(name)
    (tmp_path / "work" / "job" / "away").symlink_to("/etc")
    files = SandboxFiles(os.open(tmp_path / "work", os.O_RDONLY | os.O_DIRECTORY))
    try:
        got = {}
        for path in files.find("job/*/out/*"):
            try:
                got[path.rpartition("/")[2]] = files.get(path)
            except OSError as error:
                assert error.errno in (errno.ELOOP, errno.EINVAL, errno.EFBIG, errno.EISDIR), path
        for path in ("../secret", "job/../../secret", "/etc/passwd", "", "job//out", "job/./double", "a\0b"):
            with pytest.raises((OSError, ValueError)):
                files.get(path)
    finally:
        files.close()
    assert len(got) == 6 and got["0.json"] == b"{}" and b"secret" not in got.values()
