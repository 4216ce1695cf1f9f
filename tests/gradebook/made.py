"""Made-up records of a lab of two exercises, and an instructor's files beside them: all that is derived needs no more."""

from __future__ import annotations

from pathlib import Path

from segedu.grading.judging.records import VERSION, RecordStore

LAB = "00_tiny"
EVIL = "<script>alert(1)</script>\x00\x0b&\"'"


def exercise(name: str = "double", points: float = 0, **more) -> dict:
    """One exercise of a record: of 3 points, wrong and with a known misconception unless it has them all."""
    wrong = {"name": "adds two", "message": "You add 2.", "hint": "Try 5."}
    basics = {"groups": {"core": {"passed": 1, "total": 3, "points": 0, "max": 3}}, "named": [wrong]}
    basics |= {"first_line": "You add 2.", "hint": "Try 5.", "notes": [], "tampered": False}
    if points == 3:
        basics |= {"first_line": "", "hint": "", "named": []}
    status = "passed" if points == 3 else "partly" if points else "wrong"
    return {"name": name, "max": 3, "points": points, "status": status, **basics, "error": "ValueError: secret", **more}


def record(student: str = "anna", points: tuple[float, float] = (3, 0), attempt: int = 1, **more) -> dict:
    """One record, graded."""
    exercises = more.pop("exercises", [exercise("double", points[0]), exercise("total", points[1])])
    basics = {"version": VERSION, "key": "k", "tool": "t", "lab": LAB, "status": "graded", "problem": "", "notes": []}
    basics |= {"attempt": attempt, "submitted": None, "source": "a.ipynb", "max_points": 6}
    basics |= {"points": sum(one["points"] for one in exercises), "exercises": exercises}
    basics |= {"sandbox": {"level": 3, "reason": "namespaces"}, "measured": {"seconds": 1.25}}
    return {"student": student, **basics, **more}


def write(out: Path, *records: dict, **files: str) -> Path:
    """Write records, and an instructor's files: `roster="student\\nanna\\n"` is roster.csv, `policy=` policy.toml."""
    for one in records:
        RecordStore(out, one["lab"]).write(one)
    for name, text in files.items():
        (out / f"{name}{'.toml' if name == 'policy' else '.csv'}").write_text(text, encoding="utf-8")
    return out
