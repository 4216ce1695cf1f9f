"""Derive the outcome of a case from a probe's recording, in a process that the student's code cannot reach.

A recording comes from the student's process and holds raw values only: the result, the arguments after the call,
gradients, the shapes of parameters. This module compares them with the case as it was drawn: which arguments changed,
how many parameters the module has, how many values of an input the output depends on.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from segedu.teaching.checks.outcomes import NotPlain, plain, value_difference

MAX_SIDE = 2**31
MAX_AXES = 8


class BadRecording(ValueError):
    """Raised for a recording that no probe could have written; the message names the malformed part."""


def outcome_of(case: dict, recording: dict) -> dict:
    """Derive the outcome of a case from what its probe recorded, or from what the student's process forged.

    Returns:
        `value` and `mutated`, with `grads`, `n_params` and `depends` if they were recorded; `raises` or `refused` if
        there is no value. Notes (keys that begin with an underscore) stay.

    Raises:
        BadRecording: if a part is missing or malformed.
    """
    outcome = {key: part for key, part in recording.items() if key not in ("arguments", "parameters")}
    if "value" not in recording:
        return outcome
    before = case["inputs"] if "inputs" in case else case["args"]
    outcome["mutated"] = _changed(before, recording.get("arguments"))
    if "inputs" in case:
        outcome["n_params"] = sum(map(_count, _list(recording, "parameters")))
        outcome["depends"] = [_nonzero(gradient) for gradient in _list(recording, "grads")]
    elif "grad" in case:
        _list(recording, "grads")
    return outcome


def _list(recording: dict, key: str) -> list:
    if not isinstance(recording.get(key), list):
        raise BadRecording(f"the outcome's {key} is not a list")
    return recording[key]


def _changed(before: list, after: Any) -> list[int]:
    """Positions of arguments that differ from the case in any bit; a fixture cannot be changed."""
    if not isinstance(after, list) or len(after) != len(before):
        raise BadRecording("the outcome does not hold the arguments after the call")
    return [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if not _same(a, b)]


def _same(before: Any, after: Any) -> bool:
    try:
        expected = plain(before)
    except NotPlain:
        return True
    return value_difference(expected, after, 0.0) is None


def _count(shape: Any) -> int:
    is_shape = isinstance(shape, list) and len(shape) <= MAX_AXES
    if not is_shape or any(type(side) is not int or not 0 <= side < MAX_SIDE for side in shape):
        raise BadRecording("the outcome's parameters are not shapes")
    return math.prod(shape)


def _nonzero(gradient: Any) -> int:
    if gradient is None:
        return 0
    if not isinstance(gradient, np.ndarray):
        raise BadRecording("the outcome's grads are not arrays")
    return int(np.count_nonzero(gradient))
