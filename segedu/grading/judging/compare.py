"""Cases go in, outcomes come out, and the judge compares them here, outside the student's process.

The secret is one seed a batch. Each exercise draws with a seed of its own, made from it. The student's process gets
the drawn cases and nothing else: no reference, no expected value, no seed, no score.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from segedu.grading.judging.disclosure import error_name, is_builtin_exception, reason, refused_words, told
from segedu.teaching.checks import codec
from segedu.teaching.checks.exercise import Exercise
from segedu.teaching.checks.judge import Answers, Drawn, Verdict, draw, judge
from segedu.teaching.checks.recording import BadRecording, outcome_of

__all__ = [
    "ExerciseCases",
    "error_name",
    "exercise_seed",
    "make_exercise_cases",
    "read_outcomes",
    "refusals",
    "verdict_of",
]
MAX_EXERCISE = 64 << 20
_KEYS = {"value": None, "raises": str, "refused": str, "arguments": list, "grads": list, "parameters": list}


@dataclass(frozen=True)
class ExerciseCases:
    """One exercise of one batch: its drawn cases, and the same as files for the sandbox.

    Attributes:
        exercise: from the lab's exercises.
        drawn: the cases, in order.
        files: path below the sandbox's work folder -> bytes.
        answers: of the reference and of the wrong answers; asked once a batch, not once a student.
    """

    exercise: Exercise
    drawn: Drawn
    files: dict[str, bytes]
    answers: Answers


def exercise_seed(seed: int, lab: str, name: str) -> int:
    """The seed of one exercise: knowing one exercise's cases tells nothing of another's.

    Args:
        seed: of the batch.
        lab: `04_metrics`.
        name: of the exercise.

    Returns:
        63 bits.
    """
    digest = hashlib.sha256(f"segedu {seed} {lab} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def make_exercise_cases(exercise: Exercise, lab: str, seed: int) -> ExerciseCases:
    """Draw the cases of an exercise for a batch.

    Args:
        exercise: from the lab's exercises.
        lab: `04_metrics`.
        seed: of the batch.

    Returns:
        The cases; the same for every student.
    """
    drawn = draw(exercise, exercise_seed(seed, lab, exercise.name))
    folder = f"job/{exercise.name}"
    job = {"probe": exercise.probe.__name__, "cases": len(drawn)}
    files = {f"{folder}/job.json": json.dumps(job).encode()}
    for i, (_, _, case) in enumerate(drawn):
        files |= {f"{folder}/in/{i}.{name}": data for name, data in codec.pack(case).items()}
    told = [(group, i, {**case, **_public_name(case)}) for group, i, case in drawn]
    return ExerciseCases(exercise, told, files, Answers(exercise, told))


def _public_name(case: dict) -> dict[str, str]:
    """The kind of a case may be told; what follows a colon or a bracket is its drawn numbers."""
    name = re.split(r"[:(]", case.get("name", ""))[0].strip()
    return {"name": name} if name and not any(mark.isdigit() for mark in name) else {"name": ""}


def read_outcomes(
    exercise_cases: ExerciseCases, files: Mapping[str, bytes], out: str = "out"
) -> tuple[list[dict | None], list[str]]:
    """Read what the student's process left for one exercise.

    Args:
        exercise_cases: the cases that were run.
        files: path below the work folder -> bytes; anything may be in them.
        out: the folder of the outcomes, below that of the exercise.

    Returns:
        One outcome a case, None where none came back or it is malformed; and notes on malformed ones.
    """
    folder = f"job/{exercise_cases.exercise.name}/{out}"
    mine = {path: data for path, data in files.items() if path.startswith(folder + "/")}
    size = sum(map(len, mine.values()))
    if size > MAX_EXERCISE:
        note = f"its outcomes have {size >> 20} MB, at most {MAX_EXERCISE >> 20} MB are read"
        return [None] * len(exercise_cases.drawn), [note]
    outcomes: list[dict | None] = []
    unread: Counter[str] = Counter()
    for i, (_, _, case) in enumerate(exercise_cases.drawn):
        stem = f"{folder}/{i}"
        if f"{stem}.json" not in mine:
            outcomes.append(None)
            continue
        try:
            recording = _tidy(codec.unpack(lambda name, stem=stem: mine.get(f"{stem}.{name}")))
            outcomes.append(outcome_of(case, recording))
        except (codec.CodecError, BadRecording) as error:
            outcomes.append(None)
            unread[reason(error)] += 1
        except Exception as error:  # whatever its bytes provoke costs this outcome, never the record
            outcomes.append(None)
            unread[type(error).__name__] += 1
    return outcomes, [f"{count} of its outcomes could not be read: {reason}" for reason, count in unread.items()]


def _tidy(outcome: Any) -> dict:
    """Keep what a probe writes; the file need not come from a probe."""
    if not isinstance(outcome, dict):
        raise codec.CodecError("the outcome is not a dict")
    kept = {key: outcome[key] for key in _KEYS if key in outcome}
    for key, kind in _KEYS.items():
        if kind and key in kept and type(kept[key]) is not kind:
            raise codec.CodecError(f"the outcome's {key} is not of type {kind.__name__}")
    if "raises" in kept and not is_builtin_exception(kept["raises"]):
        kept["raises"] = "Exception"
    if "refused" in kept:
        kept["refused"] = refused_words(kept["refused"])
    return kept


def refusals(outcomes: list[dict | None]) -> list[str]:
    """The classes of objects that a student's function returned and no outcome can hold.

    Args:
        outcomes: from `read_outcomes`.

    Returns:
        Their descriptions, each once.
    """
    found = (outcome["refused"] for outcome in outcomes if outcome and isinstance(outcome.get("refused"), str))
    return list(dict.fromkeys(found))[:3]


def verdict_of(exercise_cases: ExerciseCases, outcomes: list[dict | None]) -> Verdict:
    """Judge one exercise.

    Args:
        exercise_cases: the cases of the exercise.
        outcomes: one a case.

    Returns:
        Points, groups and the misconception by name.
    """
    verdict = judge(exercise_cases.exercise, exercise_cases.drawn, outcomes, exercise_cases.answers)
    return verdict if verdict.named else replace(verdict, first_line=told(verdict.first_line))
