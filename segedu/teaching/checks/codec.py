"""Serialisation of the cases and outcomes of a check: JSON for the structure, `.npy` for the arrays, never pickle.

An array of at most 16 values stands in the JSON itself: a student may return nested lists of hundreds of tensors that
hold one value each, and such a result must not need hundreds of files.

A case holds the arguments of one call of a student's function, and an outcome is what that call did (see `outcomes`).
Outcomes are written by a process that runs the student's code, so `unpack` does not trust them. Before it builds a
value, it checks the number of bytes, the nesting depth, the number of values and arrays, and the header and the dtype
of every array.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from segedu.teaching.checks.fixtures import FIXTURES
from segedu.teaching.checks.outcomes import MAX_DEPTH, is_tensor, plain

MAX_BYTES = 16 * 2**20
MAX_JSON = 2**20
MAX_NODES = 20_000
MAX_ARRAYS = 256
SMALL = 16  # values; an array with more is a file
KINDS = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}
SMALL_DTYPES = {
    dtype.name: dtype for dtype in [np.dtype(f"{kind}{size}") for kind, sizes in KINDS.items() for size in sizes]
}


class CodecError(ValueError):
    """The bytes are not a value that `pack` could have written."""


def pack(value: Any) -> dict[str, bytes]:
    """Serialise a value to named byte strings.

    Args:
        value: plain (see `outcomes.plain`: None, numbers, strings, lists, tuples, dicts and arrays), with tensors and
            fixtures (the callables of `FIXTURES`) allowed inside.

    Returns:
        `{"json": ..., "0.npy": ..., "1.npy": ...}`: the structure with the small arrays, and each larger array or
        tensor in the order in which the structure refers to it.

    Raises:
        NotPlain: if the value contains an object of any other class.
    """
    arrays: list[bytes] = []
    document = _encode(value, arrays)
    files = {f"{i}.npy": data for i, data in enumerate(arrays)}
    return {"json": json.dumps(document, allow_nan=True).encode(), **files}


def _encode(value: Any, arrays: list[bytes]) -> Any:
    if type(value) in FIXTURES.values():
        return {"fixture": type(value).__name__, "with": value.parameters_}
    from_tensor = is_tensor(value)
    if isinstance(value, list | tuple):
        return {"list" if isinstance(value, list) else "tuple": [_encode(item, arrays) for item in value]}
    if isinstance(value, dict):
        if not all(type(key) is str for key in value):
            plain(value)
        return {"dict": {key: _encode(item, arrays) for key, item in value.items()}}
    value = plain(value)
    if isinstance(value, np.ndarray):
        if value.size <= SMALL:
            small = [value.dtype.name, list(value.shape), value.ravel().tolist()]
            return {"small tensor" if from_tensor else "small array": small}
        buffer = io.BytesIO()
        np.save(buffer, value, allow_pickle=False)
        arrays.append(buffer.getvalue())
        return {"tensor" if from_tensor else "array": len(arrays) - 1}
    return {"str": value} if isinstance(value, str) else value


def unpack(get: Callable[[str], bytes | None], max_bytes: int = MAX_BYTES, ours: bool = False) -> Any:
    """Deserialise what `pack` wrote, from bytes that a student's code may have forged.

    Args:
        get: function that maps a name such as "json" or "0.npy" to the bytes of that file, or to None if there is no
            such file. It must itself limit the number of bytes that it reads.
        max_bytes: limit for the total size of all arrays.
        ours: whether the grader packed the bytes itself. Only then may they contain fixtures, which are callables.

    Returns:
        The value, with NumPy arrays and PyTorch tensors. Reading never executes or unpickles any part of the input.

    Raises:
        CodecError: if the bytes are malformed or too large.
    """
    text = get("json")
    if text is None:
        raise CodecError("no outcome was written")
    if len(text) > MAX_JSON:
        raise CodecError(f"the outcome's JSON has {len(text)} bytes, at most {MAX_JSON} are read")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CodecError(f"the outcome is not JSON: {type(error).__name__}") from None
    reader = _Reader(get, max_bytes, ours)
    value = reader.read(document, 0)
    if reader.longest * reader.nodes > MAX_JSON:  # NumPy would pad every string of a list to the longest one
        raise CodecError("the outcome holds too many long texts")
    return value


class _Reader:
    """Decode a JSON document recursively, and count its values and bytes to enforce the limits."""

    def __init__(self, get: Callable[[str], bytes | None], max_bytes: int, ours: bool) -> None:
        self.get, self.bytes_left, self.ours = get, max_bytes, ours
        self.nodes = self.arrays = self.longest = 0

    def read(self, node: Any, depth: int) -> Any:
        self.nodes += 1
        if depth > MAX_DEPTH + 2 or self.nodes > MAX_NODES:
            raise CodecError("the outcome is nested too deep or has too many parts")
        if type(node) is int and abs(node) >= 2**63:
            raise CodecError("the outcome holds an int of more than 64 bits")
        if node is None or type(node) in (bool, int, float):
            return node
        if type(node) is not dict:
            raise CodecError(f"the outcome holds a bare {type(node).__name__}")
        if self.ours and set(node) == {"fixture", "with"}:
            return self._fixture(node)
        if len(node) != 1:
            raise CodecError("the outcome holds an unknown structure")
        (tag, body), *_ = node.items()
        return self._tagged(tag, body, depth)

    def _tagged(self, tag: str, body: Any, depth: int) -> Any:
        if tag == "str" and type(body) is str:
            self.longest = max(self.longest, len(body))
            return body
        if tag in ("list", "tuple") and type(body) is list:
            items = [self.read(item, depth + 1) for item in body]
            return items if tag == "list" else tuple(items)
        if tag == "dict" and type(body) is dict:
            return {key: self.read(item, depth + 1) for key, item in body.items()}
        if tag in ("array", "tensor") and type(body) is int and body >= 0:
            array = self._array(body)
            return array if tag == "array" else _tensor(array)
        if tag in ("small array", "small tensor") and type(body) is list and len(body) == 3:
            array = _small_array(*body)
            return array if tag == "small array" else _tensor(array)
        raise CodecError("the outcome holds an unknown tag")  # not quoted: it could carry hidden inputs

    def _fixture(self, node: dict) -> Any:
        return FIXTURES[node["fixture"]](**node["with"])

    def _array(self, number: int) -> np.ndarray:
        self.arrays += 1
        data = self.get(f"{number}.npy")
        if data is None or self.arrays > MAX_ARRAYS:
            raise CodecError(f"an array is missing, or there are more than {MAX_ARRAYS}")
        self.bytes_left -= len(data)
        if self.bytes_left < 0:
            raise CodecError("the arrays are larger than the limit")
        return read_npy(data)


def _small_array(name: Any, shape: Any, values: Any) -> np.ndarray:
    """Build an array of a few values from a JSON document that may be forged: name of the dtype, shape, values."""
    dtype = SMALL_DTYPES.get(name) if type(name) is str else None
    if dtype is None:
        raise CodecError("a small array has a dtype that is not accepted")
    if type(shape) is not list or len(shape) > 8 or any(type(n) is not int or not 0 <= n < 2**31 for n in shape):
        raise CodecError("an array has an impossible shape")
    if type(values) is not list or len(values) > SMALL or len(values) != math.prod(shape):
        raise CodecError("a small array declares another number of values than it holds")
    kinds = {"b": (bool,), "f": (int, float)}.get(dtype.kind, (int,))
    if any(type(value) not in kinds for value in values):
        raise CodecError("a small array holds values of another kind than its dtype")
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype=dtype).reshape(shape)
    except (OverflowError, ValueError):  # an int beyond the dtype; dimensions of an empty array whose product overflows
        raise CodecError("a small array holds a value that its dtype cannot hold") from None


def _tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array.copy())


def read_npy(data: bytes) -> np.ndarray:
    """Parse the bytes of a `.npy` file whose header may be forged.

    Returns:
        A new array in C order, of bools, signed or unsigned integers, or floats, in native byte order.

    Raises:
        CodecError: if the dtype is a different one, or if the size of the data differs from the size in the header.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = reader(stream, max_header_size=4096)
    except Exception as error:  # a forged header can raise exceptions of almost any class
        raise CodecError(f"not a .npy array: {type(error).__name__}") from None
    if dtype.kind not in KINDS or dtype.itemsize not in KINDS[dtype.kind] or dtype.hasobject or dtype.subdtype:
        kind = dtype.name[:20].partition("[")[0].rstrip("0123456789")  # digits could carry hidden inputs
        raise CodecError(f"an array of dtype {kind} is not accepted")
    if len(shape) > 8 or any(type(n) is not int or n < 0 for n in shape):
        raise CodecError("an array has an impossible shape")
    body = data[stream.tell() :]
    if max(shape, default=0) >= 2**31 or math.prod(shape) * dtype.itemsize != len(body):
        raise CodecError(f"an array's header declares another size than its file, which holds {len(body)} bytes")
    if dtype.kind == "b":  # a bool stored as another byte than 0 or 1 would equal neither True nor False
        body = (np.frombuffer(body, np.uint8) != 0).tobytes()
    try:
        array = np.frombuffer(body, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    except ValueError:  # an empty array can declare other dimensions whose product overflows
        raise CodecError("an array has an impossible shape") from None
    return np.ascontiguousarray(array.astype(dtype.newbyteorder("="))).reshape(shape)
