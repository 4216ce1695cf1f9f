"""Grade one submission: rebuild it, run it, read the outcomes, judge them, and return one record."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from segedu.grading.judging import compare
from segedu.grading.judging.compare import ExerciseCases
from segedu.grading.judging.decisive_sources import tool_version
from segedu.grading.judging.disclosure import error_name, helper_error_name
from segedu.grading.judging.lab_source import Lab
from segedu.grading.judging.plan_process import plan_of
from segedu.grading.judging.rebuild import Plan, out_folder, probe_name
from segedu.grading.judging.records import VERSION, clean, sources_of
from segedu.grading.sandbox.kernel_pool import Step, StepResult
from segedu.grading.submissions.archive import SubmissionError
from segedu.grading.submissions.submission import Submission
from segedu.teaching.checks.judge import Verdict

_STOP_NOTES = {
    "timeout": "was stopped at the limit of {seconds:g} s",
    "died": "ended the kernel",
    "flood": "printed too much and was stopped",
    "memory": "was stopped at the memory limit",
    "skipped": "was not run, the time for it was used up",
}
# advice on errors that honest code meets only in a sandbox
_OWN_MODULE_ADVICE = "Grading reads the notebook alone: paste the code of your own modules into a cell."
_SHARED_MEMORY_ADVICE = (
    "This sandbox has neither shared memory nor /tmp: run without multiprocessing, give a DataLoader num_workers=0, "
    "and write to the working directory or to tempfile.gettempdir()."
)
MAX_ATTEMPTS = 3
OUTCOME_PATTERNS = tuple(f"job/*/{out_folder(number)}/*" for number in range(1, MAX_ATTEMPTS + 1))
MAX_HELPER_NOTES = 5


@dataclass
class GradingSetup:
    """What is needed to grade submissions of one lab; shared by a whole batch.

    Attributes:
        lab: as the course publishes it.
        cases_by_name: exercise -> its cases.
        pool: has `run(steps, files_in, wanted, limits)`.
        limits: passed on to the pool.
        cell_seconds: limit of each cell.
        judge_lock: serialises judging, because the judge sets torch's thread count for the whole process.
        hides: modules that grading replaces by stubs, including those of exercises that are not graded now.
        forbidden: functions of other libraries that answers may not call.
    """

    lab: Lab
    cases_by_name: dict[str, ExerciseCases]
    pool: Any
    limits: Any
    cell_seconds: float = 30.0
    judge_lock: threading.Lock = field(default_factory=threading.Lock)
    hides: Sequence[str] = ()
    forbidden: Sequence[str] = ()

    @property
    def max_points(self) -> int:
        """Points of the whole lab."""
        return sum(exercise_cases.exercise.points for exercise_cases in self.cases_by_name.values())


def examine(submission: Submission, grading_setup: GradingSetup, key: str) -> dict:
    """Grade one submission and return its record; everything in it except `measured` is the same in every run."""
    record = _blank_record(submission, grading_setup, key)
    if submission.problem:
        return record | {"status": "unreadable", "problem": clean(submission.problem)}
    started = time.monotonic()
    try:
        plan = plan_of(
            grading_setup.lab,
            submission.cells,
            [*grading_setup.hides, *grading_setup.forbidden],
            grading_setup.cell_seconds,
        )
    except SubmissionError as error:
        return record | {"status": "unreadable", "problem": clean(error)}
    answered = [name for name in grading_setup.cases_by_name if plan.state.get(name) == "answered"]
    results: Sequence[StepResult] = ()
    files: dict[str, bytes] = {}
    steps = [step for step in plan.steps if _is_needed(step, grading_setup)]
    if answered:
        files_in = {path: data for name in answered for path, data in grading_setup.cases_by_name[name].files.items()}
        run = grading_setup.pool.run(steps, files_in, list(OUTCOME_PATTERNS), grading_setup.limits)
        results, files = run.steps, run.files
        record["sandbox"] = {"level": run.level, "reason": run.level_reason}
        record["measured"] |= {"cpu_seconds": run.cpu_seconds, "max_rss": run.max_rss}
        record["measured"]["cut_short"] = sum(step.cut_short for step in results)
    helper_notes, record["instructor_notes"] = _helper_notes(results, grading_setup)
    record["notes"] = [clean(text) for text in [*submission.notes, *plan.notes[""], *helper_notes]]
    record["notes"] += _hidden_error_notes(plan, results)
    record["notes"] += _sandbox_advice({step.ename for step in results if step.kind == "helper"}, record["sandbox"])
    record["exercises"] = [_exercise(name, plan, results, files, grading_setup) for name in grading_setup.cases_by_name]
    for exercise in record["exercises"]:
        exercise["notes"] += _sandbox_advice(set(exercise.pop("raised", ())), record["sandbox"])
    record["points"] = sum(exercise["points"] for exercise in record["exercises"])
    record["measured"]["seconds"] = round(time.monotonic() - started, 3)
    return record


def _is_needed(step: Step, grading_setup: GradingSetup) -> bool:
    """Whether a step is needed for the exercises that are graded now; these need not be all of the lab's."""
    return step.kind not in ("canary", "probe") or step.name.split()[0] in grading_setup.cases_by_name


def _blank_record(submission: Submission, grading_setup: GradingSetup, key: str) -> dict:
    ungraded = [_entry(exercise_cases, "not graded") for exercise_cases in grading_setup.cases_by_name.values()]
    return {
        "version": VERSION, "key": key, "tool": tool_version(grading_setup.lab.name),
        "lab": grading_setup.lab.name, "sources": sources_of(grading_setup.lab),
        "student": submission.student, "attempt": submission.attempt, "submitted": submission.submitted,
        "source": clean(submission.source), "digest": submission.digest,
        "layout": submission.layout, "clash": submission.clash,
        "status": "graded", "problem": "", "points": 0, "max_points": grading_setup.max_points, "exercises": ungraded,
        "notes": [clean(text) for text in submission.notes], "sandbox": None, "measured": {"seconds": 0.0},
    }  # fmt: skip


def _entry(exercise_cases: ExerciseCases, status: str, **more: Any) -> dict:
    empty = {"points": 0, "groups": {}, "named": [], "hedged": False, "first_line": "", "hint": "", "notes": []}
    return {
        "name": exercise_cases.exercise.name,
        "max": exercise_cases.exercise.points,
        "status": status,
        "tampered": False,
        **empty,
        **more,
    }


def _helper_notes(results: Sequence[StepResult], grading_setup: GradingSetup) -> tuple[list[str], list[str]]:
    """Tell the student how many of their own cells failed, and the instructor which ones and why.

    A student who makes cells fail chooses their positions and errors, which together could carry out a hidden input.
    """
    failed = [step for step in results if step.kind == "helper" and step.status != "ok"]
    if not failed:
        return [], []
    shown = failed[:MAX_HELPER_NOTES]
    details = [f"{_describe_cell(step.name)} {_ending(step, grading_setup)}" for step in shown]
    details += ["and more cells did not end well"] * (len(failed) > len(shown))
    if len(failed) == 1:
        return ["one cell of the notebook did not run to completion"], details
    count = str(len(failed)) if len(failed) <= MAX_HELPER_NOTES else f"more than {MAX_HELPER_NOTES}"
    return [f"{count} cells of the notebook did not run to completion"], details


def _describe_cell(name: str) -> str:
    """Describe the cell of a step: the cell of an exercise, or a student's own cell by its position."""
    what, _, cell = name.rpartition("of ")
    cell = cell.replace("cell ", "cell at position ") if " " in cell else f"cell of {cell}"
    return f"the {what}of the {cell}" if what else f"the {cell}"


def _ending(step: StepResult, grading_setup: GradingSetup) -> str:
    """Describe how a failed step ended; the error's message is shown to the instructor alone."""
    if step.status == "error":
        name = helper_error_name if step.kind == "helper" else error_name
        return f"stopped with {name(step.ename)}"
    if step.status == "timeout" and step.hurried:
        return "was stopped, the time for it was used up"
    return _STOP_NOTES.get(step.status, step.status).format(seconds=grading_setup.cell_seconds)


def _exercise(
    name: str, plan: Plan, results: Sequence[StepResult], files: dict[str, bytes], grading_setup: GradingSetup
) -> dict:
    exercise_cases = grading_setup.cases_by_name[name]
    state, notes = plan.state.get(name, "missing"), [clean(text) for text in plan.notes[name]]
    if state != "answered":
        line = f"{name} is not written yet." if state == "blank" else f"{name} is missing."
        return _entry(exercise_cases, state, first_line=line, notes=notes)
    steps = {(step.kind, step.name): step for step in results}
    positions = plan.attempts[name]
    attempts = [_attempt(exercise_cases, number, files, grading_setup) for number in range(1, len(positions) + 1)]
    number, (verdict, outcomes, extra) = max(enumerate(attempts, 1), key=lambda one: (one[1][0].points, -one[0]))
    if len(positions) > 1:
        notes.append(
            f"{name} was defined or checked again below its check; graded at positions "
            f"{', '.join(map(str, positions))}; position {positions[number - 1]} counts"
        )
    solution, probe = steps.get(("solution", name)), steps.get(("probe", probe_name(name, number)))
    if solution and solution.status != "ok":
        notes.append(f"the cell of {name} {_ending(solution, grading_setup)}")
    if probe and probe.status != "ok":
        notes.append(f"the check of {name} {_ending(probe, grading_setup)}")
    if probe and probe.not_repeated:
        notes.append(f"{name} was checked without cells that were too slow to run again after the kernel was lost")
    notes += extra
    tampering = _tampering_notes(name, plan, steps)
    entry = _entry(
        exercise_cases, _status(verdict, probe), points=verdict.points, groups=verdict.groups, notes=notes + tampering,
        named=[{"name": w.name, "message": w.message, "hint": w.hint} for w in verdict.named], hedged=verdict.hedged,
        first_line=clean(verdict.first_line, 600 if verdict.named else 300), hint=clean(verdict.hint, 600),
        tampered=bool(tampering), error=_error(solution, probe), raised=_raised(outcomes, solution, probe),
    )  # fmt: skip
    return entry | ({"points": 0, "status": "tampered"} if tampering else {})


def _attempt(
    exercise_cases: ExerciseCases, number: int, files: dict[str, bytes], grading_setup: GradingSetup
) -> tuple[Verdict, list[dict | None], list[str]]:
    """Read and judge what one probe of an exercise left: the verdict, the outcomes, and notes."""
    name = exercise_cases.exercise.name
    outcomes, outcome_notes = compare.read_outcomes(exercise_cases, files, out_folder(number))
    notes = [clean(text) for text in outcome_notes]
    notes += [f"{name} returned {clean(text, 100)}, which cannot be compared" for text in compare.refusals(outcomes)]
    verdict, verdict_notes = _verdict(exercise_cases, outcomes, grading_setup)
    return verdict, outcomes, notes + verdict_notes


def _verdict(
    exercise_cases: ExerciseCases, outcomes: list[dict | None], grading_setup: GradingSetup
) -> tuple[Verdict, list[str]]:
    """Judge the outcomes; they are untrusted, and whatever breaks the judge counts as no outcome for this exercise."""
    with grading_setup.judge_lock:
        try:
            return compare.verdict_of(exercise_cases, outcomes), []
        except MemoryError:  # another submission may be the cause: this one is graded again alone
            raise
        except Exception as error:
            note = f"what {exercise_cases.exercise.name} returned could not be compared ({type(error).__name__})"
            return compare.verdict_of(exercise_cases, [None] * len(outcomes)), [note]


def _status(verdict: Verdict, probe: StepResult | None) -> str:
    if verdict.passed:
        return "passed"
    if probe is not None and probe.status in _STOP_NOTES:
        return probe.status
    return "partly" if verdict.points else "wrong"


def _error(*steps: StepResult | None) -> str:
    """The first error message, for the instructor alone: a student could put a hidden input into it."""
    failed = [step for step in steps if step and step.status == "error"]
    return clean(f"{failed[0].ename}: {failed[0].evalue}") if failed else ""


def _raised(outcomes: list[dict | None], *steps: StepResult | None) -> list[str]:
    """The exception classes that an exercise's cells and its function raised."""
    return [outcome["raises"] for outcome in outcomes if outcome and "raises" in outcome] + [
        step.ename for step in steps if step
    ]


def _sandbox_advice(raised: set[str], sandbox: dict | None) -> list[str]:
    """Advice on errors that the sandbox itself may have caused."""
    notes = [_OWN_MODULE_ADVICE] * ("ModuleNotFoundError" in raised)
    return notes + [_SHARED_MEMORY_ADVICE] * ("PermissionError" in raised and (sandbox or {}).get("level") == 2)


def _tampering_notes(name: str, plan: Plan, steps: dict[tuple[str, str], StepResult]) -> list[str]:
    """Check that the canary cells failed with their own messages, so that cells still run as they are written."""
    names = [probe_name(name, number) for number in range(1, len(plan.attempts[name]) + 1)]
    for probe, when in product(names, ("before", "after")):
        step = steps.get(("canary", f"{probe} {when}"))
        if step is None or step.status in _STOP_NOTES:
            continue
        if (step.status, step.ename, step.evalue) != ("error", "AssertionError", plan.nonces[step.name]):
            return [f"tampering: a cell that must fail, {when} the check of {name}, did not; its points are 0"]
    return []


def _hidden_error_notes(plan: Plan, results: Sequence[StepResult]) -> list[str]:
    """Note that the notebook hides tracebacks, as an attack on other graders or by preference."""
    canaries = [step for step in results if step.kind == "canary" and step.status == "error"]
    hidden = any(plan.nonces[step.name] not in clean(step.traceback, 20_000) for step in canaries)
    return ["errors are not shown in this notebook: it changes how they are displayed"] * hidden
