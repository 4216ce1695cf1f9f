"""Due times and late penalties: the optional file `policy.toml` in the output folder, beside `seed.json`.

    timezone = "Europe/Zurich"   # of times without a zone; a time may have its own: 2026-10-05T23:59:00+02:00
    attempts = "best"            # which of several attempts counts: "best" or "last"

    [late]                       # late policy of all labs; [labs.04_metrics.late] is that of one lab
    grace_minutes = 10           # no penalty up to this lateness
    steps = [{hours = 24, factor = 0.9}, {hours = 48, factor = 0.5}]   # up to 24 h late: x 0.9; up to 48 h: x 0.5
    after = 0                    # factor of work that is later than the last step

    [extensions]                 # additional hours, in all labs
    anna = 48

    [labs.04_metrics]
    due = "2026-10-05 23:59"
    canvas = "Lab 4 (12345)"     # column in Canvas; needed if its title does not contain `Lab 4` or `04_metrics`
    [labs.04_metrics.extensions] # additional hours, or another due time; replaces the student's entry above
    bert = "2026-10-09 23:59"

Lateness is measured from the due time, also within the grace period. Work that is late by exactly the limit of a step
gets the factor of that step, and work handed in at exactly the due time is on time. The factor multiplies autograded
points; manual changes are not multiplied.
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
YEARS = range(1990, 2200)  # other years are mistyped, or cannot be converted between time zones
_LATE_KEYS = {"grace_minutes", "steps", "after"}
_LAB_KEYS = {"due", "attempts", "late", "extensions", "canvas"}
_KEYS = {"timezone", "attempts", "late", "extensions", "labs"}


@dataclass(frozen=True)
class LatePolicy:
    """The late penalties of a lab.

    Attributes:
        grace: largest lateness without a penalty.
        steps: pairs of the largest lateness and its factor, with rising lateness.
        after: factor beyond the last step.
    """

    grace: timedelta = timedelta(0)
    steps: tuple[tuple[timedelta, Decimal], ...] = ()
    after: Decimal = ONE

    def factor(self, late: timedelta) -> Decimal:
        """The factor for work handed in `late` after the due time; `late` may be negative."""
        if late <= max(self.grace, timedelta(0)):
            return ONE
        return next((factor for limit, factor in self.steps if late <= limit), self.after)


@dataclass(frozen=True)
class LabPolicy:
    """The rules of one lab.

    Attributes:
        due: with a time zone; None if the lab has no due time.
        late: the late penalties.
        attempts: "best" or "last".
        extensions: the name of a student, as in the file -> additional time, or another due time.
        canvas: title of the lab's column in Canvas, or "".
        zone: time zone in which times are displayed.
    """

    due: datetime | None = None
    late: LatePolicy = LatePolicy()
    attempts: str = "best"
    extensions: dict[str, timedelta | datetime] = field(default_factory=dict)
    canvas: str = ""
    zone: Any = UTC

    def due_of(self, extension: timedelta | datetime | None) -> datetime | None:
        """The due time of a student with this extension, or without one."""
        if isinstance(extension, datetime):
            return extension
        return self.due + (extension or timedelta(0)) if self.due else None

    def shown(self, time: datetime) -> str:
        """Format a time in the zone of the course: `2026-10-05 23:59 CEST`."""
        return time.astimezone(self.zone).strftime("%Y-%m-%d %H:%M %Z")


@dataclass(frozen=True)
class Lateness:
    """How late an attempt was, and its late factor.

    Attributes:
        late: time since the due time, negative before it; None without a due time or a known submission time.
        factor: multiplies autograded points.
        explanation: text for people; may be "".
    """

    late: timedelta | None
    factor: Decimal
    explanation: str

    @property
    def hours(self) -> Decimal | None:
        """Hours after the due time; 0 for work on time, None if `late` is None."""
        if self.late is None:
            return None
        return Decimal(max(0, math.ceil(self.late.total_seconds()))) / 3600


def lateness(policy: LabPolicy, submitted: datetime | None, extension: timedelta | datetime | None) -> Lateness:
    """Compute the lateness of an attempt. `submitted` has a time zone, or is None if the time is not known."""
    due = policy.due_of(extension)
    if due is None:
        return Lateness(None, ONE, "")
    if submitted is None:
        return Lateness(None, ONE, "no submission time is known: no late penalty")
    late = submitted.astimezone(UTC) - due.astimezone(UTC)  # a difference within one zone ignores clock changes
    extended = f", extended to {policy.shown(due)}" if extension is not None else ""
    if late <= timedelta(0):
        return Lateness(late, ONE, f"on time{extended}" if extended else "")
    factor = policy.late.factor(late)
    factor_text = points_text(factor) if factor.as_tuple().exponent > -3 else f"{factor:f}"
    explanation = f"{span(late)} late{extended}: x {factor_text}"
    in_grace = late <= policy.late.grace
    return Lateness(late, factor, f"{explanation}, within the grace period" if in_grace else explanation)


def span(time: timedelta) -> str:
    """Format a duration as `40 min`, `26 h` or `24 h 1 min`; rounding up to minutes shows that a limit was missed."""
    minutes = math.ceil(time.total_seconds() / 60)
    hours, rest = divmod(minutes, 60)
    return " ".join([f"{hours} h"] * bool(hours) + [f"{rest} min"] * bool(rest or not hours))


class PolicyFile:
    """The validated content of `policy.toml`; the file does not need to exist.

    Raises:
        ValueError: names the file, the line, the wrong entry and what is expected.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.text = path, ""
        self.exists = path.is_file()
        content: dict[str, Any] = {}
        if self.exists:
            try:
                self.text = path.read_text(encoding="utf-8-sig")
                content = tomllib.loads(self.text)
            except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ValueError(f"{path}: not TOML ({error}); expected a file such as {EXAMPLE!r}") from None
        self._check_keys(content, _KEYS, "")
        self.zone = self._zone(content.get("timezone"))
        self.attempts = self._attempts(content.get("attempts", "best"))
        self.late = self._late(content.get("late", {}))
        self.extensions = self._extensions(content.get("extensions", {}))
        self.labs = {name: self._lab(name, table) for name, table in self._table(content, "labs").items()}

    def lab(self, name: str) -> LabPolicy:
        """The rules of one lab; those of all labs if it has none of its own."""
        default = LabPolicy(None, self.late, self.attempts, dict(self.extensions), zone=self.zone or UTC)
        return self.labs.get(name, default)

    def time(self, value: object, key: str) -> datetime:
        """Convert a TOML date-time, or text such as `2026-10-05 23:59`, to a time with a zone.

        Raises:
            ValueError: if it is not a time, has no zone while `timezone` is not set, or does not exist in its zone;
                the message names `key`.
        """
        if isinstance(value, str):
            try:
                if ":" not in value:  # a date without a time would mean its first second, people mean its last
                    raise ValueError
                value = datetime.fromisoformat(re.sub(r"\s*(?:UTC|GMT|Z)$", "+00:00", value.strip()))
            except ValueError:
                value = None
        if not isinstance(value, datetime):
            raise self.entry_error(key, "it is not a date with a time", "such as 2026-10-05 23:59")
        if value.year not in YEARS:
            raise self.entry_error(key, f"the year is {value.year}", f"one from {YEARS[0]} to {YEARS[-1]}")
        if value.tzinfo:
            return value
        if self.zone is None:
            raise self.entry_error(
                key, "the time has no zone", 'timezone = "Europe/Zurich" above, or +02:00 after the time'
            )
        first, last = (value.replace(tzinfo=self.zone, fold=fold) for fold in (0, 1))
        if first.astimezone(UTC).astimezone(self.zone).replace(tzinfo=None) != value:
            raise self.entry_error(key, f"{value} does not exist in {self.zone}: the clocks go forward", "another time")
        return max(first, last, key=lambda time: time.astimezone(UTC))  # an hour that exists twice: the later one

    def entry_error(self, key: str, problem: str, expected: str) -> ValueError:
        """The error of a wrong entry, with its line number if only one line has the key."""
        last = key.rpartition(".")[2]
        lines = [n for n, line in enumerate(self.text.splitlines(), 1) if re.search(rf"\b{re.escape(last)}\b", line)]
        line = f", line {lines[0]}" if len(lines) == 1 else ""
        return ValueError(f"{self.path}{line}: {key}: {problem}; expected {expected}")

    def _check_keys(self, table: dict, known: set[str], prefix: str) -> None:
        for key in table:
            if key not in known:
                raise self.entry_error(f"{prefix}{key}", "there is no such entry", f"one of {', '.join(sorted(known))}")

    def _table(self, table: dict, key: str) -> dict:
        value = table.get(key, {})
        if not isinstance(value, dict):
            raise self.entry_error(key, f"it is {value!r}", f"a table: [{key}]")
        return value

    def _zone(self, name: object) -> ZoneInfo | None:
        if name is None:
            return None
        try:
            return ZoneInfo(str(name))
        except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
            expected = "a name such as Europe/Zurich or UTC (on Windows, `pip install tzdata` installs the names)"
            raise self.entry_error("timezone", f"{name!r} is not known here", expected) from None

    def _attempts(self, value: object, prefix: str = "") -> str:
        if value not in ATTEMPTS:
            raise self.entry_error(f"{prefix}attempts", f"it is {value!r}", '"best" or "last"')
        return str(value)

    def _number(self, value: object, key: str, low: float, high: float, expected: str) -> Decimal:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise self.entry_error(key, f"it is {value!r}", expected)
        return Decimal(str(value))

    def _hours(self, value: object, key: str, low: float = 0) -> timedelta:
        return timedelta(hours=float(self._number(value, key, low, 1e5, f"a number of hours, from {low:g}")))

    def _late(self, table: object, prefix: str = "") -> LatePolicy:
        if not isinstance(table, dict):
            raise self.entry_error(f"{prefix}late", f"it is {table!r}", "a table: [late]")
        prefix = f"{prefix}late."
        self._check_keys(table, _LATE_KEYS, prefix)
        grace = self._number(table.get("grace_minutes", 0), f"{prefix}grace_minutes", 0, 1e6, "minutes, 0 or more")
        factor_range = "a factor from 0 to 1"
        steps, rows = [], table.get("steps", [])
        for row in rows if isinstance(rows, list) else [None]:
            if not isinstance(row, dict) or set(row) != {"hours", "factor"}:
                raise self.entry_error(f"{prefix}steps", f"one is {row!r}", "{hours = 24, factor = 0.9}")
            hours = self._hours(row["hours"], f"{prefix}steps.hours")
            if steps and hours <= steps[-1][0]:
                problem = f"a step of {row['hours']} hours follows one of as many or more"
                raise self.entry_error(f"{prefix}steps", problem, "rising hours")
            steps.append((hours, self._number(row["factor"], f"{prefix}steps.factor", 0, 1, factor_range)))
        if table and "after" not in table and (steps or "grace_minutes" in table):
            raise self.entry_error(f"{prefix}after", "it is missing", "the factor after the last step: after = 0")
        after = self._number(table.get("after", 1), f"{prefix}after", 0, 1, factor_range)
        return LatePolicy(timedelta(minutes=float(grace)), tuple(steps), after)

    def _extensions(self, table: object, prefix: str = "") -> dict[str, timedelta | datetime]:
        if not isinstance(table, dict):
            raise self.entry_error(f"{prefix}extensions", f"it is {table!r}", "a table: [extensions]")
        extensions: dict[str, timedelta | datetime] = {}
        for student, value in table.items():
            key = f"{prefix}extensions.{student}"
            if not prefix and not isinstance(value, int | float):
                raise self.entry_error(
                    key, f"it is {value!r}", "hours for every lab; a due time belongs below [labs.NAME]"
                )
            extensions[student] = self._hours(value, key) if isinstance(value, int | float) else self.time(value, key)
        return extensions

    def _lab(self, name: str, table: object) -> LabPolicy:
        prefix = f"labs.{name}."
        if not re.fullmatch(r"\d\d_\w+", name) or not isinstance(table, dict):
            raise self.entry_error(f"labs.{name}", "it is not a table of a lab", "such as [labs.04_metrics]")
        self._check_keys(table, _LAB_KEYS, prefix)
        due = self.time(table["due"], f"{prefix}due") if "due" in table else None
        late = self._late(table["late"], prefix) if "late" in table else self.late
        attempts = self._attempts(table.get("attempts", self.attempts), prefix)
        extensions = self.extensions | self._extensions(table.get("extensions", {}), prefix)
        canvas = str(table.get("canvas", "")).strip()
        return LabPolicy(due, late, attempts, extensions, canvas, self.zone or (due.tzinfo if due else UTC))


EXAMPLE = "[labs.04_metrics] due = 2026-10-05T23:59:00+02:00"
