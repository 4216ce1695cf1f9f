"""Cases out, outcomes in: the judge outside of the student's process, on files that may be anything."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from segedu.grading.judging import compare, examine
from segedu.teaching.checks import codec
from segedu.teaching.checks.probes import copy_value


@pytest.fixture
def cases_by_name(course, tiny):
    import segedu.teaching.exercises

    return {
        e.name: compare.make_exercise_cases(e, tiny.LAB, 5) for e in segedu.teaching.exercises.load(tiny.LAB).exercises
    }


def files_of(exercise_cases, outcomes):
    folder = f"job/{exercise_cases.exercise.name}/out"
    return {f"{folder}/{i}.{name}": data for i, o in enumerate(outcomes) for name, data in codec.pack(o).items()}


def right_files(exercise_cases):
    exercise = exercise_cases.exercise
    return files_of(
        exercise_cases, [exercise.probe(exercise.reference, copy_value(case)) for _, _, case in exercise_cases.drawn]
    )


def test_seeds_differ_by_batch_lab_and_exercise():
    seeds = {compare.exercise_seed(s, lab, name) for s in (1, 2) for lab in ("a", "b") for name in ("x", "y")}
    assert len(seeds) == 8 and all(0 <= seed < 2**63 for seed in seeds)


def test_the_sandbox_gets_cases_and_nothing_else(cases_by_name):
    exercise_cases = cases_by_name["double"]
    assert json.loads(exercise_cases.files["job/double/job.json"]) == {"probe": "call", "cases": 4}
    assert sorted(exercise_cases.files) == [
        "job/double/in/0.json",
        "job/double/in/1.json",
        "job/double/in/2.json",
        "job/double/in/3.json",
        "job/double/job.json",
    ]
    case = codec.unpack(lambda name: exercise_cases.files.get(f"job/double/in/0.{name}"))
    assert case == {"args": [exercise_cases.drawn[0][2]["args"][0]]}
    text = b"".join(exercise_cases.files.values()).decode(errors="replace")
    assert str(2 * case["args"][0]) not in text and "core" not in text


def test_right_outcomes_get_full_points(cases_by_name):
    for exercise_cases in cases_by_name.values():
        outcomes, notes = compare.read_outcomes(exercise_cases, right_files(exercise_cases))
        verdict = compare.verdict_of(exercise_cases, outcomes)
        assert (verdict.points, verdict.passed, notes) == (3, True, [])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("an empty mask", "an empty mask"),
        ("a legal size: size 388, depth 2", "a legal size"),
        ("5 boxes", "case 1 of core"),
        (None, "case 1 of core"),
    ],
)
def test_feedback_tells_the_kind_of_a_case_and_none_of_its_numbers(cases_by_name, tiny, name, told):
    exercise = cases_by_name["double"].exercise
    case = {"args": [3.0]} | ({"name": name} if name else {})
    exercise_cases = compare.make_exercise_cases(
        replace(exercise, cases=lambda rng: {"core": (3, [case])}), tiny.LAB, 5
    )
    verdict = compare.verdict_of(exercise_cases, [{"value": 7.0, "mutated": []}])
    assert verdict.first_line.startswith(f"On {told}: the result is 7")


def test_our_own_functions_answer_once_a_batch(cases_by_name, tiny):
    exercise, calls = cases_by_name["total"].exercise, []

    def call(function, case, real=exercise.probe):
        calls.append(function)
        return real(function, case)

    exercise_cases = compare.make_exercise_cases(replace(exercise, probe=call), tiny.LAB, 5)
    for _ in range(3):
        compare.verdict_of(exercise_cases, [{"value": 0.0, "mutated": []}] * 4)
    assert len(calls) == 4 * 2  # the reference and one wrong answer, on four cases


def test_an_array_is_read_once_per_outcome(cases_by_name):
    """Each reference to an array is decoded to an array of its own, so a few bytes could fill the grader's memory."""
    exercise_cases = cases_by_name["double"]
    files = right_files(exercise_cases)
    packed = codec.pack({"value": np.zeros(40), "arguments": [1.0]})
    twice = json.loads(packed["json"])
    twice["dict"]["value"] = {"list": [{"array": 0}, {"array": 0}]}
    files |= {"job/double/out/0.json": json.dumps(twice).encode(), "job/double/out/0.0.npy": packed["0.npy"]}
    outcomes, notes = compare.read_outcomes(exercise_cases, files)
    assert outcomes[0] is None and outcomes[1] is not None
    assert notes[0].startswith("1 of its outcomes could not be read: an array is missing")


def test_no_memory_is_not_the_fault_of_who_is_judged(cases_by_name, monkeypatch):
    exercise_cases = cases_by_name["double"]
    files = right_files(exercise_cases)

    def full(*arguments, **more):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(codec, "unpack", full)
        with pytest.raises(MemoryError):
            compare.read_outcomes(exercise_cases, files)
    outcomes, _ = compare.read_outcomes(exercise_cases, files)
    monkeypatch.setattr(compare, "judge", full)
    with pytest.raises(MemoryError):
        examine._verdict(exercise_cases, outcomes, SimpleNamespace(judge_lock=nullcontext()))


def test_what_changed_is_decided_here(cases_by_name):
    exercise_cases = cases_by_name["total"]
    cases = [copy_value(case) for _, _, case in exercise_cases.drawn]
    right = [{"value": float(case["args"][0].sum()), "arguments": case["args"]} for case in cases]
    outcomes, _ = compare.read_outcomes(exercise_cases, files_of(exercise_cases, right))
    assert compare.verdict_of(exercise_cases, outcomes).points == 3 and outcomes[0]["mutated"] == []
    forged = [one | {"arguments": [one["arguments"][0] * 0], "mutated": []} for one in right]
    outcomes, notes = compare.read_outcomes(exercise_cases, files_of(exercise_cases, forged))
    verdict = compare.verdict_of(exercise_cases, outcomes)
    assert verdict.points == 0 and "changed its argument" in verdict.first_line and notes == []


def test_a_case_without_an_outcome_costs_its_group_only(cases_by_name):
    exercise_cases = cases_by_name["double"]
    files = right_files(exercise_cases)
    del files["job/double/out/3.json"]
    outcomes, notes = compare.read_outcomes(exercise_cases, files)
    assert outcomes[3] is None and compare.verdict_of(exercise_cases, outcomes).points == 2 and notes == []


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"not json", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"str": "x"}', "not a dict"),
        (b'{"dict": {"raises": {"list": []}}}', "raises is not of type str"),
        (b'{"dict": {"arguments": 3}}', "arguments is not of type list"),
        (b'{"dict": {"value": 6}}', "does not hold the arguments"),
        (b'{"dict": {"value": 6, "arguments": {"list": []}}}', "does not hold the arguments"),
        (b'{"dict": {"value": {"array": 7}}}', "missing"),
        (b'{"dict": {"value": {"array": 0}}}', "not a .npy"),
        (b'{"dict": {"value": {"fixture": "os.system", "with": {}}}}', "unknown structure"),
        (b'{"list": [' * 30 + b"1" + b"]}" * 30, "nested too deep"),
    ],
)
def test_hostile_outcomes_are_notes(cases_by_name, content, note):
    exercise_cases = cases_by_name["double"]
    files = right_files(exercise_cases) | {
        "job/double/out/0.json": content,
        "job/double/out/0.0.npy": b"\x93NUMPY garbage",
    }
    outcomes, notes = compare.read_outcomes(exercise_cases, files)
    assert outcomes[0] is None and len(notes) == 1 and note in notes[0]
    assert compare.verdict_of(exercise_cases, outcomes).points == 1


def test_a_pickle_is_never_loaded(cases_by_name, tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    np.save(tmp_path / "x.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    files = {
        "job/double/out/0.json": b'{"dict": {"value": {"array": 0}}}',
        "job/double/out/0.0.npy": (tmp_path / "x.npy").read_bytes(),
    }
    outcomes, notes = compare.read_outcomes(cases_by_name["double"], files)
    assert outcomes[0] is None and "dtype object" in notes[0] and not marker.exists()


def test_too_much_is_not_read(cases_by_name):
    files = {f"job/double/out/{i}.0.npy": bytes(16 << 20) for i in range(5)}
    outcomes, notes = compare.read_outcomes(cases_by_name["double"], files)
    assert outcomes == [None] * 4 and "80 MB, at most 64 MB" in notes[0]


@pytest.mark.parametrize(
    "outcome",
    [{}, {"value": {"a": [1]}, "arguments": [9]}, {"refused": "a Yes"}, {"grads": []}, {"raises": "Nope" * 99}],
)
def test_strange_outcomes_are_judged_not_crashed_on(cases_by_name, outcome):
    for exercise_cases in cases_by_name.values():
        outcomes, _ = compare.read_outcomes(exercise_cases, files_of(exercise_cases, [outcome] * 4))
        assert compare.verdict_of(exercise_cases, outcomes).points == 0
        assert compare.refusals(outcomes) == ["an object of another class"] * ("refused" in outcome)
    assert compare.refusals([outcome, None, outcome]) == (["a Yes"] if "refused" in outcome else [])
