"""Write an exercise's cases for the sandbox, read the outcomes, and judge them here, outside the student's process.

The only secret is one seed per batch; each exercise derives its own seed from it. The student's process receives the
drawn cases and nothing else: no reference, no expected value, no seed and no score.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from segedu.grading.judging.disclosure import (
    error_name,
    is_builtin_exception,
    redact_error,
    redact_line,
    redact_refusal,
)
from segedu.teaching.checks import codec
from segedu.teaching.checks.exercise import Exercise
from segedu.teaching.checks.judge import Answers, DrawnCases, Verdict, draw, judge
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
_OUTCOME_TYPES = {"value": None, "raises": str, "refused": str, "arguments": list, "grads": list, "parameters": list}


@dataclass(frozen=True)
class ExerciseCases:
    """The drawn cases of one exercise for one batch.

    Attributes:
        exercise: from the lab's exercises.
        drawn: the cases, in order.
        files: the cases as files for the sandbox, by path below its work folder.
        answers: of the reference and the wrong answers; computed once per batch, not once per student.
    """

    exercise: Exercise
    drawn: DrawnCases
    files: dict[str, bytes]
    answers: Answers


def exercise_seed(seed: int, lab: str, name: str) -> int:
    """Derive an exercise's 63-bit seed from the batch's; the cases of one exercise reveal nothing about another's."""
    digest = hashlib.sha256(f"segedu {seed} {lab} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def make_exercise_cases(exercise: Exercise, lab: str, seed: int) -> ExerciseCases:
    """Draw the cases of an exercise from the batch's seed; they are the same for every student."""
    drawn = draw(exercise, exercise_seed(seed, lab, exercise.name))
    folder = f"job/{exercise.name}"
    job = {"probe": exercise.probe.__name__, "cases": len(drawn)}
    files = {f"{folder}/job.json": json.dumps(job).encode()}
    for i, (_, _, case) in enumerate(drawn):
        files |= {f"{folder}/in/{i}.{name}": data for name, data in codec.pack(case).items()}
    public_cases = [(group, i, {**case, **_public_name(case)}) for group, i, case in drawn]
    return ExerciseCases(exercise, public_cases, files, Answers(exercise, public_cases))


def _public_name(case: dict) -> dict[str, str]:
    """Keep the public part of a case's name: what follows a colon or a bracket is its drawn numbers."""
    name = re.split(r"[:(]", case.get("name", ""))[0].strip()
    return {"name": name} if name and not any(mark.isdigit() for mark in name) else {"name": ""}


def read_outcomes(
    exercise_cases: ExerciseCases, files: Mapping[str, bytes], out: str = "out"
) -> tuple[list[dict | None], list[str]]:
    """Read the outcome files of one exercise that the student's process left.

    Args:
        exercise_cases: the cases that were run.
        files: contents by path below the work folder; they are untrusted.
        out: the folder of the outcomes, below that of the exercise.

    Returns:
        One outcome per case, None if it is missing or malformed, and notes about malformed outcomes.
    """
    folder = f"job/{exercise_cases.exercise.name}/{out}"
    own_files = {path: data for path, data in files.items() if path.startswith(folder + "/")}
    size = sum(map(len, own_files.values()))
    if size > MAX_EXERCISE:
        note = f"its outcomes have {size >> 20} MB, at most {MAX_EXERCISE >> 20} MB are read"
        return [None] * len(exercise_cases.drawn), [note]
    outcomes: list[dict | None] = []
    unreadable: Counter[str] = Counter()
    for i, (_, _, case) in enumerate(exercise_cases.drawn):
        stem = f"{folder}/{i}"
        if f"{stem}.json" not in own_files:
            outcomes.append(None)
            continue
        try:
            recording = _validated(codec.unpack(_reader_of(own_files, stem)))
            outcomes.append(outcome_of(case, recording))
        except (codec.CodecError, BadRecording) as error:
            outcomes.append(None)
            unreadable[redact_error(error)] += 1
        except MemoryError:  # another submission may be the cause: this one is graded again alone
            raise
        except Exception as error:  # malformed bytes cost this outcome, never the record
            outcomes.append(None)
            unreadable[type(error).__name__] += 1
    return outcomes, [f"{count} of its outcomes could not be read: {reason}" for reason, count in unreadable.items()]


def _reader_of(files: Mapping[str, bytes], stem: str) -> Callable[[str], bytes | None]:
    """Read each file of an outcome once: `pack` refers to an array once, and every reference is an array of its own."""
    unread = {path: data for path, data in files.items() if path.startswith(f"{stem}.")}
    return lambda name: unread.pop(f"{stem}.{name}", None)


def _validated(outcome: Any) -> dict:
    """Keep the keys that a probe writes and check their types: the file need not come from a probe."""
    if not isinstance(outcome, dict):
        raise codec.CodecError("the outcome is not a dict")
    kept = {key: outcome[key] for key in _OUTCOME_TYPES if key in outcome}
    for key, expected_type in _OUTCOME_TYPES.items():
        if expected_type and key in kept and type(kept[key]) is not expected_type:
            raise codec.CodecError(f"the outcome's {key} is not of type {expected_type.__name__}")
    if "raises" in kept and not is_builtin_exception(kept["raises"]):
        kept["raises"] = "Exception"
    if "refused" in kept:
        kept["refused"] = redact_refusal(kept["refused"])
    return kept


def refusals(outcomes: list[dict | None]) -> list[str]:
    """Return up to three distinct descriptions of returned objects that no outcome can hold."""
    descriptions = (outcome["refused"] for outcome in outcomes if outcome and isinstance(outcome.get("refused"), str))
    return list(dict.fromkeys(descriptions))[:3]


def verdict_of(exercise_cases: ExerciseCases, outcomes: list[dict | None]) -> Verdict:
    """Judge one exercise from one outcome per case: points, groups and named misconceptions."""
    verdict = judge(exercise_cases.exercise, exercise_cases.drawn, outcomes, exercise_cases.answers)
    return verdict if verdict.named else replace(verdict, first_line=redact_line(verdict.first_line))
