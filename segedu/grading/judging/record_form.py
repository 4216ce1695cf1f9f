"""What a record must look like: a file that was edited, cut or damaged is found out before anything is made of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

MAX_RECORD = 8 << 20  # bytes; the largest honest one has a quarter of a megabyte
MAX_POINTS = 10_000


def parse_record(data: bytes) -> dict:
    """Read one record and check its form.

    Args:
        data: of the file.

    Returns:
        The record.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        record = json.loads(data.decode(), parse_constant=_refuse, object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(record, dict):
        raise ValueError("it is not an object")
    _check(record)
    return record


def _refuse(word: str) -> None:
    raise ValueError(f"it holds {word}, which is not a number")


def _each_once(pairs: list[tuple[str, Any]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it holds one key twice")
    return found


def _check(record: dict) -> None:
    _each(record, "", "status", "student", holds=_is_text)
    _each(record, "", "version", holds=lambda value: type(value) is int)
    _each(record, "", "tool", "lab", "source", "problem", "key", holds=_is_text)
    _each(record, "", "points", "max_points", holds=_is_points)
    _each(record, "", "notes", holds=_is_texts)
    _each(record, "", "attempt", holds=lambda value: type(value) is int and value >= 1)
    _each(record, "", "submitted", holds=lambda value: value is None or _is_text(value))
    _each(record, "", "sandbox", holds=_is_sandbox)
    _each(record, "", "measured", holds=lambda value: isinstance(value, dict) and _is_number(value.get("seconds")))
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
    _each(exercise, where, "name", "status", "first_line", "hint", holds=_is_text)
    _each(exercise, where, "points", "max", holds=_is_points)
    _each(exercise, where, "tampered", holds=lambda value: type(value) is bool)
    _each(exercise, where, "notes", holds=_is_texts)
    _each(exercise, where, "groups", holds=_are_groups)
    _each(exercise, where, "named", holds=_are_named)
    if exercise["points"] > exercise["max"]:
        raise ValueError(f"points{where} is {exercise['points']}, more than its max, {exercise['max']}")


def _each(part: dict, where: str, *keys: str, holds: Callable[[Any], bool]) -> None:
    for key in keys:
        if key not in part:
            raise ValueError(f"{key}{where} is missing")
        if not holds(part[key]):
            raise ValueError(f"{key}{where} is {repr(part[key])[:40]}, which it cannot be")


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
