"""Bytes of an outcome may be hostile: every forgery is a CodecError, nothing is run, nothing large is built."""

from __future__ import annotations

import io
import json
import pickle
import struct

import numpy as np
import pytest
import torch

from segedu.teaching.checks.codec import CodecError, pack, read_npy, unpack
from segedu.teaching.checks.outcomes import value_difference


def same(a, b):
    return value_difference(a, b, 0.0) is None


@pytest.mark.parametrize(
    "value",
    [None, True, 7, -1.5, "text", [1, [2.0, "x"]], (1, (2,)), {"a": [1], "b": {}}, np.arange(6).reshape(2, 3),
     np.zeros((0, 4), np.float32), np.array(3.5), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.ones((2, 2), bool)],
)  # fmt: skip
def test_round_trip(value):
    assert same(unpack(pack(value).get), value)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "uint64", "float16", "float32", "float64"])
def test_small_arrays_keep_dtype_shape_and_every_digit(dtype):
    values = np.array([[0, 1 / 3, 1e4], [7, 2.0**-14, 3]])
    array = np.array([[True, False]]) if dtype == "bool" else np.clip(values, None, 100).astype(dtype)
    back = unpack(pack([array, array.T]).get)
    assert all(x.dtype == array.dtype for x in back)
    assert np.array_equal(back[0], array) and np.array_equal(back[1], array.T)
    special = unpack(pack(np.array([np.nan, -np.inf, -0.0], np.float32)).get)
    assert np.isnan(special[0]) and special[1] == -np.inf and np.signbit(special[2])


def test_hundreds_of_tensors_without_an_axis_need_no_files():
    rows = [[torch.tensor(float(i * j)) for i in range(40)] for j in range(40)]
    files = pack(rows)
    assert set(files) == {"json"}
    assert unpack(files.get)[39][39] == 39 * 39


def test_tensors_come_back_as_tensors():
    back = unpack(pack([torch.arange(3), torch.ones(2, dtype=torch.float16)]).get)
    assert torch.equal(back[0], torch.arange(3)) and back[1].dtype == torch.float32


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY\x01\x00",
        pickle.dumps(1),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"\0" * 8),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", b"\0" * 8),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", b"\0" * 16),
        npy("{'descr': '<U4', 'fortran_order': False, 'shape': (1,)}", b"\0" * 16),
        npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}", b"\0" * 8),
        npy("{'descr': '<c16', 'fortran_order': False, 'shape': (1,)}", b"\0" * 16),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", b"\0" * 8),
        npy("__import__('os').abort()"),
        b"\x93NUMPY\x03\x00" + b"\xff" * 64,
    ],
)
def test_forged_arrays_are_refused(data):
    with pytest.raises(CodecError):
        read_npy(data)


def nested(depth: int) -> bytes:
    return b'{"list":[' * depth + b"]}" * depth


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"not json",
        b'"bare string"',
        b"[1, 2]",
        b'{"unknown": 1}',
        b'{"list": 3}',
        b'{"list": [], "tuple": []}',
        b'{"array": "0"}',
        b'{"array": true}',
        b'{"array": -1}',
        b'{"array": 0}',
        b'{"fixture": "os.system", "with": {}}',
        b'{"fixture": "ValidFilter", "with": {"margin": 1000000000}}',
        b'{"small array": 3}',
        b'{"small array": ["int64", [1]]}',
        b'{"small array": ["object", [1], [1]]}',
        b'{"small array": ["<U4", [1], ["a"]]}',
        b'{"small array": [["int64"], [1], [1]]}',
        b'{"small array": ["int64", [2], [1]]}',
        b'{"small array": ["int64", 1, [1]]}',
        b'{"small array": ["int64", [-1, -1], [1]]}',
        b'{"small array": ["int64", [true], [1]]}',
        b'{"small array": ["int64", [1, 1, 1, 1, 1, 1, 1, 1, 1], [1]]}',
        b'{"small array": ["int64", [0, 2147483647, 2147483647, 2147483647, 2147483647], []]}',
        b'{"small array": ["int64", [1], [1.5]]}',
        b'{"small array": ["int64", [1], [9223372036854775808]]}',
        b'{"small array": ["int64", [1], [true]]}',
        b'{"small array": ["bool", [1], [1]]}',
        b'{"small array": ["float64", [1], ["1"]]}',
        b'{"small array": ["float64", [1], [[1]]]}',
        b'{"small array": ["float64", [1], [1' + b"0" * 400 + b"]]}",
        b'{"small array": ["int8", [17], [' + b", ".join([b"1"] * 17) + b"]]}",
        b'{"small tensor": ["uint8", [1], [256]]}',
        b"9" * 30,
        b'{"list": [1e999999999999, ' + b"9" * 5000 + b"]}",
        nested(40),
        nested(100_000),
        json.dumps({"list": [1] * 30_000}).encode(),
        b" " * (2**20 + 1),
    ],
)
def test_forged_documents_are_refused(document):
    with pytest.raises(CodecError):
        unpack({"json": document}.get)


def test_sizes_are_bounded():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(1000))
    files = {"json": b'{"list": [{"array": 0}, {"array": 0}]}', "0.npy": buffer.getvalue()}
    assert len(unpack(files.get, max_bytes=20_000)) == 2
    with pytest.raises(CodecError, match="larger than the limit"):
        unpack(files.get, max_bytes=10_000)
    with pytest.raises(CodecError, match="no outcome"):
        unpack({}.get)
