"""What a capstone hands in, and how a saved notebook holds it: as JSON in the output of its last cell."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

MIME = "application/vnd.segedu.capstone+json"
# What is read of a report. All images are compared with each other, which takes seconds for so many.
_MOST = {"metrics": 50, "values": 50, "rows": 2_000, "worst": 1_000, "train": 10_000, "test": 2_000, "scores": 2_000}
_LONGEST = 2_000  # characters of a name or a sentence


@dataclass(frozen=True)
class Row:
    """One training of one method: its seed, None where nothing is drawn at random, and a value for each metric."""

    method: str
    seed: int | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """What a capstone hands in.

    Attributes:
        data: cells, street or volume.
        metrics: names of at least three; the first decides which images are worst: the higher, the better.
        rows: every training, and the plain baseline.
        baseline: the method of `rows` that learns nothing.
        train: fingerprints of all images that anything was fitted to or chosen on.
        test: fingerprints of the images that `rows` was measured on.
        scores: the first metric of each test image, of your best method; NaN where an image has nothing to find.
        worst: of the ten worst, (number of the test image, what went wrong).
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
    """A report as plain JSON; NaN becomes None, a fingerprint the text of its bytes.

    Args:
        report: any; numbers of NumPy and torch are numbers.

    Returns:
        What `from_json` reads.

    Raises:
        TypeError, ValueError: something in it is of another kind.
    """
    if not isinstance(report, Report):
        raise TypeError(f"report is {type(report).__name__}, expected capstone.Report")
    rows = [{"method": r.method, "seed": r.seed, "values": _finite(r.values, f"row {r.method!r}")} for r in report.rows]
    plain = {
        "data": report.data,
        "metrics": list(report.metrics),
        "rows": rows,
        "baseline": report.baseline,
        "train": [_packed(one, "train") for one in report.train],
        "test": [_packed(one, "test") for one in report.test],
        "scores": _finite(report.scores, "scores"),
        "worst": [list(pair) for pair in report.worst],
    }
    return json.loads(json.dumps(plain, default=_bare))


def _bare(number: Any) -> Any:
    if getattr(number, "ndim", None) == 0:  # a number of NumPy or torch
        return number.item()
    raise TypeError(f"the report holds {type(number).__name__}, expected numbers and text; see `Report`")


def _finite(values: Any, name: str) -> list[float | None]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise TypeError(f"{name} of the report is {type(values).__name__}, expected a number for each") from None
    return [number if math.isfinite(number) else None for number in numbers]


def _packed(one: Any, name: str) -> str:
    try:
        return bytes(value + 128 for value in one).hex()
    except (TypeError, ValueError):
        raise ValueError(f"{name} of the report holds something that is no fingerprint, see `fingerprint`") from None


def from_json(plain: object) -> Report:
    """Read a report that anybody may have written.

    Args:
        plain: parsed JSON.

    Returns:
        The report, every part of the right type.

    Raises:
        ValueError: says which part is not.
    """
    names = [field.name for field in fields(Report)]
    if not isinstance(plain, Mapping) or set(plain) != set(names):
        raise ValueError(f"the report is not one of `hand_in`, expected the keys {', '.join(names)}")
    rows = _list(plain["rows"], "rows")
    if any(not isinstance(row, dict) or set(row) != {"method", "seed", "values"} for row in rows):
        raise ValueError("a row of the report has not the keys method, seed and values")
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
    if len(value) > _LONGEST:
        raise ValueError(f"{name} of the report has {len(value)} characters, expected at most {_LONGEST}")
    return value


def _list(value: object, name: str) -> list:
    if not isinstance(value, list):
        raise ValueError(f"{name} of the report is {type(value).__name__}, expected a list")
    if len(value) > _MOST[name]:
        raise ValueError(
            f"{name} of the report holds {len(value)}, expected at most {_MOST[name]}: take fewer at random"
        )
    return value


def _seed(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError(f"seed of the report is {type(value).__name__}, expected int or None")


def _numbers(values: object, name: str) -> tuple[float, ...]:
    listed = _list(values, name)
    if any(isinstance(v, bool) or not isinstance(v, (int, float, type(None))) for v in listed):
        raise ValueError(f"{name} of the report holds something that is no number")
    try:
        return tuple(math.nan if value is None else float(value) for value in listed)
    except OverflowError:
        raise ValueError(f"{name} of the report holds a number that is too large") from None


def _prints(values: object, name: str) -> tuple[tuple[int, ...], ...]:
    return tuple(_unpacked(_text(one, name), name) for one in _list(values, name))


def _unpacked(text: str, name: str) -> tuple[int, ...]:
    try:
        return tuple(value - 128 for value in bytes.fromhex(text))
    except ValueError:
        raise ValueError(f"{name} of the report holds something that is no fingerprint, see `fingerprint`") from None


def _worst(pair: object) -> tuple[int, str]:
    index, why = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
    if type(index) is not int or not isinstance(why, str):
        raise ValueError("worst of the report is no list of pairs (number of the image, what went wrong)")
    return index, _text(why, "worst")
