"""Validate the form of a record, so that an edited, truncated or damaged file is rejected before it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

MAX_RECORD = 8 << 20  # bytes; the largest honest record has a quarter of a megabyte
MAX_POINTS = 10_000


def parse_record(data: bytes) -> dict:
    """Parse the bytes of a record file and check their form.

    Raises:
        ValueError: says what is wrong with the record.
    """
    try:
        record = json.loads(data.decode(), parse_constant=_reject_constant, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(record, dict):
        raise ValueError("it is not an object")
    _check(record)
    return record


def _reject_constant(word: str) -> None:
    raise ValueError(f"it holds {word}, which is not a number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("it holds one key twice")
    return result


def _check(record: dict) -> None:
    _require(record, "", "status", "student", is_valid=_is_text)
    _require(record, "", "version", is_valid=lambda value: type(value) is int)
    _require(record, "", "tool", "lab", "source", "problem", "key", is_valid=_is_text)
    _require(record, "", "points", "max_points", is_valid=_is_points)
    _require(record, "", "notes", is_valid=_is_texts)
    _require(record, "", "attempt", is_valid=lambda value: type(value) is int and value >= 1)
    _require(record, "", "submitted", is_valid=lambda value: value is None or _is_text(value))
    _require(record, "", "sandbox", is_valid=_is_sandbox)
    _require(
        record, "", "measured", is_valid=lambda value: isinstance(value, dict) and _is_number(value.get("seconds"))
    )
    if not _is_texts(record.get("instructor_notes", [])):
        raise ValueError("instructor_notes is not a list of texts")
    exercises = record.get("exercises")
    if not isinstance(exercises, list) or not all(isinstance(one, dict) for one in exercises):
        raise ValueError("exercises is not a list of objects")
    for exercise in exercises:
        _check_exercise(exercise)
    if len({exercise["name"] for exercise in exercises}) < len(exercises):
        raise ValueError("exercises holds one exercise twice")


def _check_exercise(exercise: dict) -> None:
    name = exercise.get("name")
    where = f" of {name[:40]}" if _is_text(name) else " of an exercise"
    _require(exercise, where, "name", "status", "first_line", "hint", is_valid=_is_text)
    _require(exercise, where, "points", "max", is_valid=_is_points)
    _require(exercise, where, "tampered", is_valid=lambda value: type(value) is bool)
    _require(exercise, where, "notes", is_valid=_is_texts)
    _require(exercise, where, "groups", is_valid=_are_groups)
    _require(exercise, where, "named", is_valid=_are_named)
    if exercise["points"] > exercise["max"]:
        raise ValueError(f"points{where} is {exercise['points']}, more than its max, {exercise['max']}")


def _require(part: dict, where: str, *keys: str, is_valid: Callable[[Any], bool]) -> None:
    for key in keys:
        if key not in part:
            raise ValueError(f"{key}{where} is missing")
        if not is_valid(part[key]):
            raise ValueError(f"{key}{where} is {repr(part[key])[:40]}, which is not a valid value")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_number(value: object) -> bool:
    return type(value) is int and abs(value) < 2**53 or type(value) is float and math.isfinite(value)


def _is_points(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= MAX_POINTS


def _is_sandbox(value: Any) -> bool:
    if value is None:
        return True
    is_level = isinstance(value, dict) and type(value.get("level")) is int and 0 <= value["level"] < 100
    return is_level and _is_text(value.get("reason"))


def _are_groups(value: Any) -> bool:
    groups = value.values() if isinstance(value, dict) else [None]
    return all(
        isinstance(one, dict) and _is_points(one.get("passed")) and _is_points(one.get("total")) for one in groups
    )


def _are_named(value: Any) -> bool:
    wrong = value if isinstance(value, list) else [None]
    return all(
        isinstance(one, dict) and all(_is_text(one.get(key)) for key in ("name", "message", "hint")) for one in wrong
    )
