"""Cases out, outcomes in: the judge outside of the student's process, on files that may be anything."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from segedu.grading.judging import compare
from segedu.teaching.checks import codec
from segedu.teaching.checks.probes import copy_value


@pytest.fixture
def papers(course, tiny):
    import segedu.teaching.exercises

    return {e.name: compare.make_paper(e, tiny.LAB, 5) for e in segedu.teaching.exercises.load(tiny.LAB).exercises}


def files_of(paper, outcomes):
    folder = f"job/{paper.exercise.name}/out"
    return {f"{folder}/{i}.{name}": data for i, o in enumerate(outcomes) for name, data in codec.pack(o).items()}


def right_files(paper):
    exercise = paper.exercise
    return files_of(paper, [exercise.probe(exercise.reference, copy_value(case)) for _, _, case in paper.drawn])


def test_seeds_differ_by_batch_lab_and_exercise():
    seeds = {compare.exercise_seed(s, lab, name) for s in (1, 2) for lab in ("a", "b") for name in ("x", "y")}
    assert len(seeds) == 8 and all(0 <= seed < 2**63 for seed in seeds)


def test_the_sandbox_gets_cases_and_nothing_else(papers):
    paper = papers["double"]
    assert json.loads(paper.files["job/double/job.json"]) == {"probe": "call", "cases": 4}
    assert sorted(paper.files) == [
        "job/double/in/0.json",
        "job/double/in/1.json",
        "job/double/in/2.json",
        "job/double/in/3.json",
        "job/double/job.json",
    ]
    case = codec.unpack(lambda name: paper.files.get(f"job/double/in/0.{name}"))
    assert case == {"args": [paper.drawn[0][2]["args"][0]]}
    text = b"".join(paper.files.values()).decode(errors="replace")
    assert str(2 * case["args"][0]) not in text and "core" not in text


def test_right_outcomes_get_full_points(papers):
    for paper in papers.values():
        outcomes, notes = compare.read_outcomes(paper, right_files(paper))
        verdict = compare.verdict_of(paper, outcomes)
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
def test_feedback_tells_the_kind_of_a_case_and_none_of_its_numbers(papers, tiny, name, told):
    exercise = papers["double"].exercise
    case = {"args": [3.0]} | ({"name": name} if name else {})
    paper = compare.make_paper(replace(exercise, cases=lambda rng: {"core": (3, [case])}), tiny.LAB, 5)
    verdict = compare.verdict_of(paper, [{"value": 7.0, "mutated": []}])
    assert verdict.first_line.startswith(f"On {told}: the result is 7")


def test_our_own_functions_answer_once_a_batch(papers, tiny):
    exercise, calls = papers["total"].exercise, []

    def call(function, case, real=exercise.probe):
        calls.append(function)
        return real(function, case)

    paper = compare.make_paper(replace(exercise, probe=call), tiny.LAB, 5)
    for _ in range(3):
        compare.verdict_of(paper, [{"value": 0.0, "mutated": []}] * 4)
    assert len(calls) == 4 * 2  # the reference and one wrong answer, on four cases


def test_what_changed_is_decided_here(papers):
    paper = papers["total"]
    cases = [copy_value(case) for _, _, case in paper.drawn]
    right = [{"value": float(case["args"][0].sum()), "arguments": case["args"]} for case in cases]
    outcomes, _ = compare.read_outcomes(paper, files_of(paper, right))
    assert compare.verdict_of(paper, outcomes).points == 3 and outcomes[0]["mutated"] == []
    forged = [one | {"arguments": [one["arguments"][0] * 0], "mutated": []} for one in right]
    outcomes, notes = compare.read_outcomes(paper, files_of(paper, forged))
    verdict = compare.verdict_of(paper, outcomes)
    assert verdict.points == 0 and "changes its argument number 1" in verdict.first_line and notes == []


def test_a_case_without_an_outcome_costs_its_group_only(papers):
    paper = papers["double"]
    files = right_files(paper)
    del files["job/double/out/3.json"]
    outcomes, notes = compare.read_outcomes(paper, files)
    assert outcomes[3] is None and compare.verdict_of(paper, outcomes).points == 2 and notes == []


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
def test_hostile_outcomes_are_notes(papers, content, note):
    paper = papers["double"]
    files = right_files(paper) | {"job/double/out/0.json": content, "job/double/out/0.0.npy": b"\x93NUMPY garbage"}
    outcomes, notes = compare.read_outcomes(paper, files)
    assert outcomes[0] is None and len(notes) == 1 and note in notes[0]
    assert compare.verdict_of(paper, outcomes).points == 1


def test_a_pickle_is_never_loaded(papers, tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    np.save(tmp_path / "x.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    files = {
        "job/double/out/0.json": b'{"dict": {"value": {"array": 0}}}',
        "job/double/out/0.0.npy": (tmp_path / "x.npy").read_bytes(),
    }
    outcomes, notes = compare.read_outcomes(papers["double"], files)
    assert outcomes[0] is None and "dtype object" in notes[0] and not marker.exists()


def test_too_much_is_not_read(papers):
    files = {f"job/double/out/{i}.0.npy": bytes(16 << 20) for i in range(5)}
    outcomes, notes = compare.read_outcomes(papers["double"], files)
    assert outcomes == [None] * 4 and "80 MB, at most 64 MB" in notes[0]


@pytest.mark.parametrize(
    "outcome",
    [{}, {"value": {"a": [1]}, "arguments": [9]}, {"refused": "a Yes"}, {"grads": []}, {"raises": "Nope" * 99}],
)
def test_strange_outcomes_are_judged_not_crashed_on(papers, outcome):
    for paper in papers.values():
        outcomes, _ = compare.read_outcomes(paper, files_of(paper, [outcome] * 4))
        assert compare.verdict_of(paper, outcomes).points == 0
        assert compare.refusals(outcomes) == ["an object of another class"] * ("refused" in outcome)
    assert compare.refusals([outcome, None, outcome]) == (["a Yes"] if "refused" in outcome else [])
