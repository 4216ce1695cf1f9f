"""Due times and what lateness costs: `policy.toml` in the output folder, beside `seed.json`; optional.

    timezone = "Europe/Zurich"   # of times without one; a time may have its own: 2026-10-05T23:59:00+02:00
    attempts = "best"            # or "last"; which of several attempts counts

    [late]                       # for every lab; [labs.04_metrics.late] for one
    grace_minutes = 10           # so late costs nothing
    steps = [{hours = 24, factor = 0.9}, {hours = 48, factor = 0.5}]   # up to and with 24 h late: x 0.9, ...
    after = 0                    # the factor from there on

    [extensions]                 # hours more, in every lab
    anna = 48

    [labs.04_metrics]
    due = "2026-10-05 23:59"
    canvas = "Lab 4 (12345)"     # its column there, where the title does not say `Lab 4` or `04_metrics`
    [labs.04_metrics.extensions] # hours more, or a due time of one's own; instead of the one above
    bert = "2026-10-09 23:59"

Hours count from the due time, the grace included; a border belongs to the cheaper side, so work that comes in at the
due time to the second is on time. The factor applies to what the autograder gave; points by hand come after it.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from segedu.grading.gradebook.atomic_files import points_text

ONE = Decimal(1)
ATTEMPTS = ("best", "last")
YEARS = range(1990, 2200)  # of a time of submission; others cannot be moved between zones, or are mistyped
_LATE_KEYS = {"grace_minutes", "steps", "after"}
_LAB_KEYS = {"due", "attempts", "late", "extensions", "canvas"}
_KEYS = {"timezone", "attempts", "late", "extensions", "labs"}


@dataclass(frozen=True)
class LatePolicy:
    """What lateness costs.

    Attributes:
        grace: so late costs nothing.
        steps: (up to and with so late, factor), rising.
        after: the factor beyond the last step.
    """

    grace: timedelta = timedelta(0)
    steps: tuple[tuple[timedelta, Decimal], ...] = ()
    after: Decimal = ONE

    def factor(self, late: timedelta) -> Decimal:
        """What autograded points are multiplied by.

        Args:
            late: time since the due time; negative for work that came before it.
        """
        if late <= max(self.grace, timedelta(0)):
            return ONE
        return next((factor for limit, factor in self.steps if late <= limit), self.after)


@dataclass(frozen=True)
class LabPolicy:
    """The rules of one lab.

    Attributes:
        due: aware, or None where the lab has no due time.
        late: what lateness costs.
        attempts: "best" or "last".
        extensions: name of a student as it was written -> hours more, or a due time.
        canvas: title of the lab's column in Canvas, or "".
        zone: for showing times.
    """

    due: datetime | None = None
    late: LatePolicy = LatePolicy()
    attempts: str = "best"
    extensions: dict[str, timedelta | datetime] = field(default_factory=dict)
    canvas: str = ""
    zone: Any = UTC

    def due_of(self, extension: timedelta | datetime | None) -> datetime | None:
        """When this is due for somebody with this extension, or without one."""
        if isinstance(extension, datetime):
            return extension
        return self.due + (extension or timedelta(0)) if self.due else None

    def shown(self, time: datetime) -> str:
        """A time as people of the course read it: `2026-10-05 23:59 CEST`."""
        return time.astimezone(self.zone).strftime("%Y-%m-%d %H:%M %Z")


@dataclass(frozen=True)
class Lateness:
    """How late an attempt was, and what that costs.

    Attributes:
        late: since the due time; negative before it; None where it is not known or nothing is due.
        factor: what autograded points are multiplied by.
        words: for people; "" where there is nothing to say.
    """

    late: timedelta | None
    factor: Decimal
    words: str

    @property
    def hours(self) -> Decimal | None:
        """Late by so many hours; 0 for work on time, None where it is not known."""
        if self.late is None:
            return None
        return Decimal(max(0, math.ceil(self.late.total_seconds()))) / 3600


def lateness(policy: LabPolicy, submitted: datetime | None, extension: timedelta | datetime | None) -> Lateness:
    """Judge one attempt.

    Args:
        policy: of the lab.
        submitted: aware, or None where nobody knows.
        extension: of the student, or None.

    Returns:
        What it costs, and why in words.
    """
    due = policy.due_of(extension)
    if due is None:
        return Lateness(None, ONE, "")
    if submitted is None:
        return Lateness(None, ONE, "no submission time is known: no late penalty")
    late = submitted.astimezone(UTC) - due.astimezone(UTC)  # in one zone, a change of the clocks would be lost
    more = f", extended to {policy.shown(due)}" if extension is not None else ""
    if late <= timedelta(0):
        return Lateness(late, ONE, f"on time{more}" if more else "")
    factor = policy.late.factor(late)
    words = f"{span(late)} late{more}: x {points_text(factor) if factor.as_tuple().exponent > -3 else f'{factor:f}'}"
    return Lateness(late, factor, f"{words}, within the grace" if late <= policy.late.grace else words)


def span(time: timedelta) -> str:
    """`40 min`, `26 h`, `24 h 1 min`: rounded up to a minute, so a border that was crossed shows."""
    minutes = math.ceil(time.total_seconds() / 60)
    hours, rest = divmod(minutes, 60)
    return " ".join([f"{hours} h"] * bool(hours) + [f"{rest} min"] * bool(rest or not hours))


class PolicyFile:
    """`policy.toml`, read and checked.

    Args:
        path: of the file; it need not exist.

    Raises:
        ValueError: names the file, the line, what was given and what is expected.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.text = path, ""
        self.given = path.is_file()
        content: dict[str, Any] = {}
        if self.given:
            try:
                self.text = path.read_text(encoding="utf-8-sig")
                content = tomllib.loads(self.text)
            except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ValueError(f"{path}: not TOML ({error}); expected a file such as {EXAMPLE!r}") from None
        self._only(content, _KEYS, "")
        self.zone = self._zone(content.get("timezone"))
        self.attempts = self._attempts(content.get("attempts", "best"))
        self.late = self._late(content.get("late", {}))
        self.extensions = self._extensions(content.get("extensions", {}))
        self.labs = {name: self._lab(name, table) for name, table in self._table(content, "labs").items()}

    def lab(self, name: str) -> LabPolicy:
        """The rules of one lab; those for every lab where it has none of its own."""
        plain = LabPolicy(None, self.late, self.attempts, dict(self.extensions), zone=self.zone or UTC)
        return self.labs.get(name, plain)

    def time(self, value: object, key: str) -> datetime:
        """A time with a zone, from TOML or from text.

        Args:
            value: a TOML date-time, or text such as `2026-10-05 23:59`.
            key: for messages.

        Raises:
            ValueError: if it is no time, or has no zone and `timezone` is not set, or does not exist there.
        """
        if isinstance(value, str):
            try:
                if ":" not in value:  # a day alone would be its first second, and people mean its last
                    raise ValueError
                value = datetime.fromisoformat(re.sub(r"\s*(?:UTC|GMT|Z)$", "+00:00", value.strip()))
            except ValueError:
                value = None
        if not isinstance(value, datetime):
            raise self.wrong(key, "that is no date with a time", "such as 2026-10-05 23:59")
        if value.year not in YEARS:
            raise self.wrong(key, f"the year is {value.year}", f"one from {YEARS[0]} to {YEARS[-1]}")
        if value.tzinfo:
            return value
        if self.zone is None:
            raise self.wrong(key, "the time has no zone", 'timezone = "Europe/Zurich" above, or +02:00 after the time')
        first, last = (value.replace(tzinfo=self.zone, fold=fold) for fold in (0, 1))
        if first.astimezone(UTC).astimezone(self.zone).replace(tzinfo=None) != value:
            raise self.wrong(key, f"{value} does not exist in {self.zone}: the clocks go forward", "another time")
        return max(first, last, key=lambda time: time.astimezone(UTC))  # an hour that comes twice: the later one

    def wrong(self, key: str, given: str, expected: str) -> ValueError:
        """The error of a wrong entry, with its line where the key is found."""
        last = key.rpartition(".")[2]
        lines = [n for n, line in enumerate(self.text.splitlines(), 1) if re.search(rf"\b{re.escape(last)}\b", line)]
        where = f", line {lines[0]}" if len(lines) == 1 else ""
        return ValueError(f"{self.path}{where}: {key}: {given}; expected {expected}")

    def _only(self, table: dict, known: set[str], where: str) -> None:
        for key in table:
            if key not in known:
                raise self.wrong(f"{where}{key}", "there is no such entry", f"one of {', '.join(sorted(known))}")

    def _table(self, table: dict, key: str) -> dict:
        value = table.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, f"it is {value!r}", f"a table: [{key}]")
        return value

    def _zone(self, name: object) -> ZoneInfo | None:
        if name is None:
            return None
        try:
            return ZoneInfo(str(name))
        except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
            expected = "a name such as Europe/Zurich or UTC (on Windows, `pip install tzdata` brings them)"
            raise self.wrong("timezone", f"{name!r} is not known here", expected) from None

    def _attempts(self, value: object, where: str = "") -> str:
        if value not in ATTEMPTS:
            raise self.wrong(f"{where}attempts", f"it is {value!r}", '"best" or "last"')
        return str(value)

    def _number(self, value: object, key: str, low: float, high: float, expected: str) -> Decimal:
        fine = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if not fine:
            raise self.wrong(key, f"it is {value!r}", expected)
        return Decimal(str(value))

    def _hours(self, value: object, key: str, low: float = 0) -> timedelta:
        return timedelta(hours=float(self._number(value, key, low, 1e5, f"a number of hours, from {low:g}")))

    def _late(self, table: object, where: str = "") -> LatePolicy:
        if not isinstance(table, dict):
            raise self.wrong(f"{where}late", f"it is {table!r}", "a table: [late]")
        where = f"{where}late."
        self._only(table, _LATE_KEYS, where)
        grace = self._number(table.get("grace_minutes", 0), f"{where}grace_minutes", 0, 1e6, "minutes, 0 or more")
        share = "a factor from 0 to 1"
        steps, rows = [], table.get("steps", [])
        for row in rows if isinstance(rows, list) else [None]:
            if not isinstance(row, dict) or set(row) != {"hours", "factor"}:
                raise self.wrong(f"{where}steps", f"one is {row!r}", "{hours = 24, factor = 0.9}")
            hours = self._hours(row["hours"], f"{where}steps.hours")
            if steps and hours <= steps[-1][0]:
                raise self.wrong(f"{where}steps", f"{row['hours']} hours after a step of as many", "rising hours")
            steps.append((hours, self._number(row["factor"], f"{where}steps.factor", 0, 1, share)))
        if table and "after" not in table and (steps or "grace_minutes" in table):
            raise self.wrong(f"{where}after", "it is missing", "the factor after the last step: after = 0")
        after = self._number(table.get("after", 1), f"{where}after", 0, 1, share)
        return LatePolicy(timedelta(minutes=float(grace)), tuple(steps), after)

    def _extensions(self, table: object, where: str = "") -> dict[str, timedelta | datetime]:
        if not isinstance(table, dict):
            raise self.wrong(f"{where}extensions", f"it is {table!r}", "a table: [extensions]")
        found: dict[str, timedelta | datetime] = {}
        for student, value in table.items():
            key = f"{where}extensions.{student}"
            if not where and not isinstance(value, int | float):
                raise self.wrong(key, f"it is {value!r}", "hours for every lab; a time stands below [labs.NAME]")
            found[student] = self._hours(value, key) if isinstance(value, int | float) else self.time(value, key)
        return found

    def _lab(self, name: str, table: object) -> LabPolicy:
        where = f"labs.{name}."
        if not re.fullmatch(r"\d\d_\w+", name) or not isinstance(table, dict):
            raise self.wrong(f"labs.{name}", "that is no table of a lab", "such as [labs.04_metrics]")
        self._only(table, _LAB_KEYS, where)
        due = self.time(table["due"], f"{where}due") if "due" in table else None
        late = self._late(table["late"], where) if "late" in table else self.late
        attempts = self._attempts(table.get("attempts", self.attempts), where)
        extensions = self.extensions | self._extensions(table.get("extensions", {}), where)
        canvas = str(table.get("canvas", "")).strip()
        return LabPolicy(due, late, attempts, extensions, canvas, self.zone or (due.tzinfo if due else UTC))


EXAMPLE = "[labs.04_metrics] due = 2026-10-05T23:59:00+02:00"
