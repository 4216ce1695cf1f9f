"""Outcomes: what a function did on a case, as plain values that can be compared, sent and stored.

An outcome is a flat dict. `value` is the result, `raises` the class of an exception, `mutated` the positions of
arguments that the function changed, `grads` the gradients that the case requires. Keys that begin with an underscore
are notes for a person (the message, the traceback) and are never compared. A probe records raw values;
`segedu.teaching.checks.recording` derives `mutated`, `n_params` and `depends` from them.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

MAX_DEPTH = 16
PLAIN = (type(None), bool, int, float, str)


class NotPlain(TypeError):
    """Raised for a value that is not plain, so that an outcome cannot hold it; the message names its class."""


@dataclass(frozen=True)
class Difference:
    """The first difference between two outcomes.

    Attributes:
        where: which value differs, as the student reads it, such as `the result[0]`.
        text: one sentence with the expected values, so it is shown for visible cases only.
        safe: the same sentence without any expected value.
        distance: largest absolute difference, infinity if structure or kind differ.
        path: where the two values that differ are in an outcome: its key, then indices of tuples and keys of dicts;
            empty if an exception or a missing value is the difference.
        index: of the first element that differs, if two arrays of one shape differ.
    """

    where: str
    text: str
    safe: str
    distance: float
    path: tuple = ()
    index: tuple[int, ...] | None = None

    def below(self, step: Any) -> Difference:
        """Return the same difference as part of a larger value, `step` being the part's index or key."""
        return replace(self, path=(step, *self.path))


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor, without importing torch."""
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")


def plain(value: Any, depth: int = 0) -> Any:
    """Reduce a value to None, bool, int, float, str, list, tuple, dict with str keys, or a numpy array.

    Tensors are detached and moved to the CPU; numpy scalars become Python numbers, and long doubles float64.

    Args:
        value: anything.
        depth: nesting depth of `value`, at most 16.

    Returns:
        A fresh plain value that shares no memory with the argument.

    Raises:
        NotPlain: for other classes, object arrays, and values nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise NotPlain(f"a value nested more than {MAX_DEPTH} levels deep")
    if type(value) is int and abs(value) >= 2**63:
        raise NotPlain("an int of more than 64 bits")
    if type(value) in PLAIN:
        return value
    if is_tensor(value):
        return _plain_tensor(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise NotPlain(f"an array of dtype {value.dtype}")
        is_long = value.dtype.kind == "f" and value.dtype.itemsize > 8  # a long double differs between machines
        return np.array(value, dtype=np.float64 if is_long else None, order="C", subok=False)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.longdouble):  # its `item` is a long double again
        return float(value)
    if isinstance(value, np.generic) and value.dtype.kind in "iuf":
        return value.item()
    if isinstance(value, list | tuple):
        items = [plain(item, depth + 1) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        if not all(type(key) is str for key in value):
            raise NotPlain("a dict whose keys are not all strings")
        return {key: plain(item, depth + 1) for key, item in value.items()}
    raise NotPlain(f"{_article(type(value).__name__)}")


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _plain_tensor(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach().cpu()
    if tensor.is_complex() or tensor.is_sparse or tensor.is_quantized:
        raise NotPlain(f"a tensor of dtype {tensor.dtype} and layout {tensor.layout}")
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return np.array(tensor.numpy(), order="C")


def array_like(value: Any) -> np.ndarray | None:
    """Convert numpy arrays, scalars (0-d) and rectangular lists of numbers to an array; None for anything else."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, bool | int | float):
        return np.asarray(value)
    if isinstance(value, list) and value:
        try:
            array = np.asarray(value)
        except ValueError:
            return None
        return array if array.dtype.kind in "biuf" else None
    return None


def _kind(array: np.ndarray) -> str:
    return {"b": "bool", "i": "int", "u": "int", "f": "float"}[array.dtype.kind]


def describe(value: Any) -> str:
    """Describe a plain value in one short phrase: the kind, the shape and, if it is small, the value.

    Returns:
        For example `a float array of shape (2, 3)` or `the int 7`.
    """
    if isinstance(value, np.ndarray):
        if value.ndim == 0:
            return (
                f"the {_kind(value)} {value.item():.6g}"
                if value.dtype.kind == "f"
                else f"the {_kind(value)} {value.item()}"
            )
        return f"{_article(_kind(value))} array of shape {value.shape}"
    if isinstance(value, bool | int | str):
        return f"the {type(value).__name__} {value!r}"[:80]
    if isinstance(value, numbers.Real):
        return f"the float {float(value):.6g}"
    if value is None:
        return "None"
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return _article(type(value).__name__)


def _differ(where: str, expected: Any, got: Any, what: str = "") -> Difference:
    safe = f"{where} is {describe(got)}{what}"
    return Difference(where, f"{where} is {describe(got)}, expected {describe(expected)}{what}", safe, np.inf)


def value_difference(expected: Any, got: Any, tolerance: float, where: str = "the result") -> Difference | None:
    """Compare two plain values.

    Structure, shape and kind (bool, int, float) must agree; numpy arrays, tensors and rectangular lists are equivalent,
    and so are a scalar and an array of shape (). Values are compared in float64, and NaN equals NaN.

    Args:
        expected: plain value of the reference.
        got: plain value of the student.
        tolerance: largest absolute difference, relative to 1 + |expected|.
        where: name of the value in the sentence.

    Returns:
        The first difference, or None.
    """
    left, right = array_like(expected), array_like(got)
    if isinstance(got, list) and not got and left is not None and left.shape == (0,):
        return None  # the elements of an empty list have no dtype that could differ
    if left is not None and right is not None:
        return _array_difference(left, right, tolerance, where)
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple):
        if len(expected) != len(got):
            return _differ(where, expected, got)
        parts = [(i, a, b) for i, (a, b) in enumerate(zip(expected, got, strict=True))]
    elif isinstance(expected, dict) and isinstance(got, dict):
        if set(expected) != set(got):
            keys = f": keys {sorted(got)}"[:200]
            return Difference(
                where,
                f"{where} has keys {sorted(got)}, expected {sorted(expected)}",
                f"{where} does not have the expected keys{keys}",
                np.inf,
            )
        parts = [(key, expected[key], got[key]) for key in expected]
    elif type(expected) is type(got) and expected == got:
        return None
    else:
        return _differ(where, expected, got)
    found = ((step, value_difference(a, b, tolerance, f"{where}[{step!r}]")) for step, a, b in parts)
    return next((difference.below(step) for step, difference in found if difference), None)


def _array_difference(expected: np.ndarray, got: np.ndarray, tolerance: float, where: str) -> Difference | None:
    if expected.shape != got.shape:
        if expected.ndim == got.ndim == 0:
            return _differ(where, expected, got)
        text = f"{where} has shape {got.shape}"
        return Difference(where, f"{text}, expected {expected.shape}", text, np.inf)
    if expected.size == 0:
        return None
    # returning 1 instead of 1.0 is not a mistake; every other kind must agree
    int_for_float = expected.ndim == 0 and (_kind(expected), _kind(got)) == ("float", "int")
    if _kind(expected) != _kind(got) and not int_for_float:
        text = f"{where} holds {_kind(got)} values"
        return Difference(where, f"{text}, expected {_kind(expected)} values", text, np.inf)
    gap, wrong = gaps(expected, got, tolerance)
    if not wrong.any():
        return None
    return _number_difference(expected, got, gap, wrong, where)


def gaps(expected: np.ndarray, got: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Compare two arrays of one shape and kind, value by value.

    Returns:
        The absolute differences, infinity where one is NaN and the other is not, and whether each is too large.
    """
    if _kind(expected) != "float":
        return np.abs(expected.astype(np.float64) - got.astype(np.float64)), expected != got
    a, b = expected.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        gap = np.where(np.isnan(gap), np.inf, gap)
        wrong = ~(gap <= tolerance * (1 + np.where(np.isfinite(a), np.abs(a), 0.0)))
    return gap, wrong


def _number_difference(
    expected: np.ndarray, got: np.ndarray, gap: np.ndarray, wrong: np.ndarray, where: str
) -> Difference:
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    location = f"{where}[{', '.join(map(str, index))}]" if index else where
    got_value, expected_value = got[index].item(), expected[index].item()
    form = ".6g" if isinstance(got_value, float) else ""
    count = f" ({int(wrong.sum())} of {wrong.size} values differ)" if wrong.size > 1 else ""
    text = f"{location} is {got_value:{form}}"
    return Difference(
        where,
        f"{text}, expected {expected_value:{form}}{count}",
        f"{text}, which is not right{count}",
        float(gap[wrong].max()),
        index=index,
    )


def first_difference(expected: dict, got: dict, tolerance: float) -> Difference | None:
    """Compare two outcomes without their notes; see `value_difference`.

    Returns:
        The first difference, or None.
    """
    if "raises" in got and "raises" not in expected:
        text = f"your function raises {got['raises']}: {got.get('_message', '')}".rstrip(": ")[:300]
        return Difference("exception", text, text, np.inf)
    if "raises" in expected and "raises" not in got:
        text = "your function returns a value, but it should refuse this input"
        return Difference("exception", f"{text} with {_article(expected['raises'])}", text, np.inf)
    if "raises" in expected and expected["raises"] != got["raises"]:
        text = f"your function raises {got['raises']}"
        safe = f"{text}, but it should raise another exception"
        return Difference("exception", f"{text}, expected {expected['raises']}", safe, np.inf)
    if "refused" in got:
        text = f"your function returns {got['refused']}, which cannot be compared"
        return Difference("the result", text, text, np.inf)
    return _key_difference(expected, got, tolerance)


KEY_NAMES = {
    "value": "the result",
    "grads": "the gradient",
    "mutated": "the list of changed arguments",
    "n_params": "the number of parameters",
    "depends": "the number of input values that the centre of the output depends on",
}


def _key_difference(expected: dict, got: dict, tolerance: float) -> Difference | None:
    if expected.get("mutated") != got.get("mutated") and got.get("mutated"):
        text = f"your function changed its argument number {got['mutated'][0] + 1}; copy it first"
        return Difference("arguments", text, text, np.inf)
    if expected.get("value") is not None and "value" in got and got["value"] is None:
        text = "your function returns None, so a `return` may be missing"
        return Difference("return", text, text, np.inf)
    keys = [key for key in expected if not key.startswith("_")]
    if missing := [key for key in keys if key not in got]:
        text = f"the outcome has no {missing[0]}"
        return Difference(missing[0], text, text, np.inf)
    checks = ((key, value_difference(expected[key], got[key], tolerance, KEY_NAMES.get(key, key))) for key in keys)
    return next((difference.below(key) for key, difference in checks if difference), None)


def same_outcome(case: dict, expected: dict, got: dict, tolerance: float) -> bool:
    """Whether two outcomes are equal within the tolerance: the default `accept` of an exercise, without the case."""
    return first_difference(expected, got, tolerance) is None
