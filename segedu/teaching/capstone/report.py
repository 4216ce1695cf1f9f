"""The contents of a capstone report, and its JSON form in the output of the notebook's last cell."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

MIME = "application/vnd.segedu.capstone+json"
# Limits of a report. All images are compared with each other, which takes seconds for so many.
_MAX_ITEMS = {
    "metrics": 50,
    "values": 50,
    "rows": 2_000,
    "worst": 1_000,
    "train": 10_000,
    "test": 2_000,
    "scores": 2_000,
}
_MAX_LENGTH = 2_000  # characters of a name or a sentence


@dataclass(frozen=True)
class Row:
    """One training run of one method: its seed, None if nothing is random, and a value for each metric."""

    method: str
    seed: int | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """The contents of a capstone report.

    Attributes:
        data: cells, street or volume.
        metrics: at least three names; the first metric decides which images are worst, and larger is better.
        rows: every training run, and the plain baseline.
        baseline: the method of `rows` that is not trained.
        train: fingerprints of all images used for training or for selection.
        test: fingerprints of the images that `rows` was measured on.
        scores: the first metric of your best method on each test image; NaN if an image has nothing to find.
        worst: (index of the test image, what went wrong) for the ten worst images.
    """

    data: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    baseline: str
    train: tuple[tuple[int, ...], ...]
    test: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...]
    worst: tuple[tuple[int, str], ...]


def to_json(report: Report) -> dict[str, Any]:
    """Convert a report to plain JSON; NaN becomes None, and a fingerprint the hexadecimal text of its bytes.

    Raises:
        TypeError: if a part has the wrong type. Numbers of NumPy and torch are accepted.
        ValueError: if a fingerprint is malformed.
    """
    if not isinstance(report, Report):
        raise TypeError(f"report is {type(report).__name__}, expected capstone.Report")
    rows = [{"method": r.method, "seed": r.seed, "values": _finite(r.values, f"row {r.method!r}")} for r in report.rows]
    plain = {
        "data": report.data,
        "metrics": list(report.metrics),
        "rows": rows,
        "baseline": report.baseline,
        "train": [_print_to_hex(one, "train") for one in report.train],
        "test": [_print_to_hex(one, "test") for one in report.test],
        "scores": _finite(report.scores, "scores"),
        "worst": [list(pair) for pair in report.worst],
    }
    return json.loads(json.dumps(plain, default=_python_number))


def _python_number(number: Any) -> Any:
    if getattr(number, "ndim", None) == 0:  # of NumPy or torch
        return number.item()
    raise TypeError(f"the report holds {type(number).__name__}, expected numbers and text; see `Report`")


def _finite(values: Any, name: str) -> list[float | None]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise TypeError(f"{name} of the report is {type(values).__name__}, expected a number for each") from None
    return [number if math.isfinite(number) else None for number in numbers]


def _print_to_hex(one: Any, name: str) -> str:
    try:
        return bytes(value + 128 for value in one).hex()
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} of the report contains something that is not a fingerprint, see `fingerprint`"
        ) from None


def from_json(plain: object) -> Report:
    """Read a report from untrusted JSON.

    Returns:
        The report, every part with the right type.

    Raises:
        ValueError: says which part is malformed.
    """
    names = [field.name for field in fields(Report)]
    if not isinstance(plain, Mapping) or set(plain) != set(names):
        raise ValueError(f"the report does not come from `hand_in`, expected the keys {', '.join(names)}")
    rows = _list(plain["rows"], "rows")
    if any(not isinstance(row, dict) or set(row) != {"method", "seed", "values"} for row in rows):
        raise ValueError("a row of the report does not have the keys method, seed and values")
    return Report(
        data=_text(plain["data"], "data"),
        metrics=tuple(_text(name, "metrics") for name in _list(plain["metrics"], "metrics")),
        rows=tuple(
            Row(_text(row["method"], "method"), _seed(row["seed"]), _numbers(row["values"], "values")) for row in rows
        ),
        baseline=_text(plain["baseline"], "baseline"),
        train=_prints(plain["train"], "train"),
        test=_prints(plain["test"], "test"),
        scores=_numbers(plain["scores"], "scores"),
        worst=tuple(_worst(pair) for pair in _list(plain["worst"], "worst")),
    )


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} of the report is {type(value).__name__}, expected text")
    if len(value) > _MAX_LENGTH:
        raise ValueError(f"{name} of the report has {len(value)} characters, expected at most {_MAX_LENGTH}")
    return value


def _list(value: object, name: str) -> list:
    if not isinstance(value, list):
        raise ValueError(f"{name} of the report is {type(value).__name__}, expected a list")
    if len(value) > _MAX_ITEMS[name]:
        raise ValueError(
            f"{name} of the report has {len(value)} items, expected at most {_MAX_ITEMS[name]}: take a random subset"
        )
    return value


def _seed(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError(f"seed of the report is {type(value).__name__}, expected int or None")


def _numbers(values: object, name: str) -> tuple[float, ...]:
    listed = _list(values, name)
    if any(isinstance(v, bool) or not isinstance(v, (int, float, type(None))) for v in listed):
        raise ValueError(f"{name} of the report contains something that is not a number")
    try:
        return tuple(math.nan if value is None else float(value) for value in listed)
    except OverflowError:
        raise ValueError(f"{name} of the report contains a number that is too large") from None


def _prints(values: object, name: str) -> tuple[tuple[int, ...], ...]:
    return tuple(_print_from_hex(_text(one, name), name) for one in _list(values, name))


def _print_from_hex(text: str, name: str) -> tuple[int, ...]:
    try:
        return tuple(value - 128 for value in bytes.fromhex(text))
    except ValueError:
        raise ValueError(
            f"{name} of the report contains something that is not a fingerprint, see `fingerprint`"
        ) from None


def _worst(pair: object) -> tuple[int, str]:
    index, why = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
    if type(index) is not int or not isinstance(why, str):
        raise ValueError("worst of the report is not a list of pairs (index of the image, what went wrong)")
    return index, _text(why, "worst")
