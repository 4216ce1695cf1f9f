"""Machine mutants: each kind of change is made, what asks for nothing is left alone, a mutant cannot stop the rest."""

from __future__ import annotations

import ast
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.evidence.proofs import read_rows
from segedu.teaching.exercises import load, names
from segedu.teaching.mutants import runs as mutant_runs
from segedu.teaching.mutants.mutation import Mutant, mutants_of
from segedu.teaching.mutants.runs import MIN_REFUSED, Bench, Tally, Trial, read_equivalents, try_all
from segedu.teaching.mutants.wrong_answers import MACHINE_CLAIM, mutant_row

COURSE = Path(__file__).parents[2]

KINDS = {
    "operator": ("a + b", "a - b"),
    "matrix product": ("x = a @ b", "x = a * b"),
    "comparison": ("return a < b", "return a <= b"),
    "and": ("return a and b", "return a or b"),
    "not": ("return not (a)", "return a"),
    "one side of and": ("return a and b", "return b"),
    "augmented": ("a += b", "a -= b"),
    "augmented, assigned": ("a += b", "a = b"),
    "augmented, dropped": ("a += b", "dropped"),
    "n + 1": ("return a * 7", "a * 8"),
    "n - 1": ("return a * 7", "a * 6"),
    "zero": ("return a * 7", "a * 0"),
    "negated": ("return a * 7", "a * -7"),
    "float": ("return a * 0.5", "a * 1.0"),
    "bool": ("return a.sum(0, keepdim=True)", "keepdim=False"),
    "axis": ("return a.sum(dim=1)", "dim=2"),
    "axes in a tuple": ("return a.sum(dim=(1, 2))", "dim=(1,)"),
    "permuted": ("return a.permute(0, 2, 1)", "a.permute(2, 0, 1)"),
    "new axis elsewhere": ("return a[:, None]", "a[None, :]"),
    "a term": ("return a + b", "return b"),
    "a factor": ("return a * b", "return a"),
    "conditional": ("return a if b else 0", "a if b else 0 -> a"),
    "a call that keeps the shape": ("return a.clamp(min=0)", "a.clamp(min=0) -> a"),
    "a function that keeps the shape": ("return torch.sqrt(a)", "torch.sqrt(a) -> a"),
    "a keyword": ("return a.clamp(min=b)", "a.clamp()"),
    "another name": ("return a.argmax(0)", "argmin"),
    "another function": ("return torch.zeros(3)", "torch.ones"),
    "arguments": ("return f(a, b)", "f(b, a)"),
    "where": ("return torch.where(a, b, 0.0)", "torch.where(a, 0.0, b)"),
    "maximum": ("return torch.maximum(a, b)", "torch.maximum(a, b) -> b"),
    "bound left out": ("return a[b:]", "a[:]"),
    "bound moved": ("return a[:b]", "a[:b + 1]"),
    "number of a bound": ("return a[:2]", "a[:3]"),
    "index": ("return a[2]", "a[1]"),
    "mask": ("return a[b]", "a[~b]"),
    "condition": ("if a:\n  b = 1", "if not a:"),
    "if dropped": ("if a:\n  return 1\nreturn 2", "dropped"),
    "always": ("if a:\n  return 1\nreturn 2", "if True:"),
    "assignment to a part": ("a[0] = b", "dropped"),
    "assignment anew": ("a = a * 2", "dropped"),
    "call": ("a.sort()", "dropped"),
    "loop": ("for i in b:\n  a += i", "dropped"),
    "continue": ("for i in b:\n  if i:\n    continue\n  a += i", "continue -> break"),
    "filter": ("return [i for i in a if i]", "for i in a"),
    "mode": ("return f(a, mode='bilinear')", "'bilinear' -> 'nearest'"),
}


def named(body: str) -> list[str]:
    indented = "\n".join("  " + line for line in body.split("\n"))
    (tree,) = ast.parse(f"def function(a: int | None, b):\n{indented}").body
    return [m.name for m in mutants_of(("module", "function"), tree, lambda node: False)]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_change_is_made(kind):
    body, change = KINDS[kind]
    assert any(change in name.partition(": ")[2] for name in named(body)), named(body)


@pytest.mark.parametrize(
    "body",
    [
        "'''A text of 3 words.'''",
        "if a:\n  raise ValueError(1 + 2)",
        "assert a < 2",
        "x: tuple[int, 3] = a",
        "return f'{a + 1}'",
        "return zip(a, strict=True)",
        "import b",
    ],
)
def test_what_no_answer_shows_is_left_alone(body):
    inside_the_raise = [name for name in named(body) if "1 + 2" in name and "dropped" not in name]
    assert not inside_the_raise and (not named(body) or body.startswith("if a"))


def test_no_two_mutants_are_equal_and_each_has_its_own_name():
    (tree,) = ast.parse("def f(a):\n  x = a[0] + a[0]\n  return x * 2 if a else x * 2").body
    mutants = mutants_of(("module", "f"), tree, lambda node: False)
    assert len({m.name for m in mutants}) == len({ast.dump(m.tree) for m in mutants}) == len(mutants) > 20
    assert ast.dump(tree) not in {ast.dump(m.tree) for m in mutants}


SAMPLE = '''
LIMIT = 3

def _halves(n, at_least=1, step=5):
    count = 0
    while n > at_least:
        n //= step
        count += 1
    return count

def _check(n):
    if n < 0:
        raise ValueError("negative")

def _refuse(n):
    if n > 1000:
        raise ValueError("too many")

def halvings(n, verbose=False):
    """How often can n be halved?"""
    _check(n)
    _refuse(n)
    if n == 77:
        return n * 12345
    return _halves(n, step=2) + LIMIT

def unused(n):
    return n + 99
'''


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """An exercise of a module of our own: it asks for an error below 0, not above 1000, and never hands in 77."""
    (tmp_path / "sample.py").write_text(SAMPLE)
    spec = importlib.util.spec_from_file_location("segedu.sample", tmp_path / "sample.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "segedu.sample", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(mutant_runs, "CPU_SECONDS", 1)

    def cases(rng):
        return {"core": (1, [{"args": [n]} for n in (int(rng.integers(40, 60)), 8, 1, 0, -1)])}

    return Bench(Exercise("halvings", 1, cases, module.halvings, []), seeds=(0, 1))


def test_helpers_are_reached_and_what_is_not_asked_for_is_not(bench):
    assert {name for _, name in bench.units.trees} == {"halvings", "_halves", "_check", "LIMIT"}
    names = {m.name for m in bench.mutants}
    assert {"LIMIT: LIMIT = 3 -> LIMIT = 4", "_check: if n < 0: dropped", "halvings: _check(n) dropped"} <= names
    assert "halvings: if n == 77: dropped" in names  # so a branch that no case enters shows
    # no case makes `_refuse` raise, runs the branch of 77, or leaves out `step`; all leave out `at_least`
    assert not any("_refuse" in name or "12345" in name or "step=6" in name for name in names)
    assert any("at_least=2" in name for name in names) and any("verbose=True" in name for name in names)


@pytest.mark.parametrize("lab, name", [("13_metrics", "match_detections"), ("03_convolution", "conv2d_loops")])
def test_an_exercise_may_bear_the_name_of_the_function_that_it_calls(lab, name):
    (exercise,) = [e for e in load(lab).exercises if e.name == name]
    names = [m.name for m in Bench(exercise, seeds=(0,)).mutants]
    assert len(names) == len(set(names)) > 50
    assert len({n.partition(":")[0] for n in names if n.partition(":")[0].endswith(name)}) == 2


def test_mutants_are_refused_survive_or_are_stopped(bench):
    assert [t.refused for t in try_all(bench, [None])] == [(False, False)]
    chosen = ("LIMIT", "dropped", "77", "verbose=True", "n < 0 -> n <= 0", "n > at_least -> n >= at_least")
    mutants = [m for m in bench.mutants if any(word in m.name for word in chosen) and "12345" not in m.name]
    trials = {t.mutant.name: t for t in try_all(bench, mutants)}
    assert len(trials) > 15
    assert trials["_halves: n //= step dropped"].refused == (True, True)  # runs for ever
    unseen = {"halvings: verbose=False -> verbose=True", "halvings: if n == 77: dropped"}
    unseen |= {f"halvings: if n == 77: -> if n == {n}:" for n in (78, 76, -77)}
    assert {name for name, t in trials.items() if t.survives} == unseen


@pytest.mark.parametrize(
    "body", ["import os; os.kill(os.getpid(), 9)", "return bytearray(1 << 36)", "import os; os._exit(0)"]
)
def test_a_mutant_that_crashes_or_takes_all_memory_is_refused(bench, body):
    (tree,) = ast.parse(f"def halvings(n): {body}").body
    mutant = Mutant("halvings: crash", ("segedu.sample", "halvings"), tree, 1)
    trials = list(try_all(bench, [None, mutant, None], jobs=1))  # the one after it has its turn
    assert [t.refused for t in trials] == [(False, False), (True, True), (False, False)]


def test_a_list_of_equivalents_is_checked():
    trials = [Trial(Mutant(name, ("m", "f"), None, 1), refused) for name, refused in
              (("f: a -> b", (False,) * 3), ("f: a -> c", (True,) * 3), ("f: 1 -> 2", (False,) * 3))]  # fmt: skip

    def errors(listed):
        return Tally("lab", "exercise", trials, listed).errors

    assert errors({"f: a -> b": "a and b are the same"}) == []
    assert errors({"f: 1…": "a number that nobody sees"}) == []
    assert errors({"f: a -> …": "those that survive are the same"}) == []
    assert "refused" in errors({"f: a -> c": "it is not the same"})[0]
    assert "refused" in errors({"f: … -> c": "it is not the same"})[0]
    assert "no such" in errors({"f: x -> y": "it is not there any more"})[0]
    assert "no reason" in errors({"f: a -> b": "equal"})[0]
    row = Tally("lab", "exercise", trials, {"f: a -> b": "a and b are the same"})
    assert [t.mutant.name for t in row.survivors] == ["f: 1 -> 2"] and row.refused == 1 and row.visible == 1


def test_a_lab_without_a_list_has_none(tmp_path):
    assert read_equivalents(tmp_path, "04_metrics") == {}


def test_a_verdict_that_hangs_on_threads_shows():
    exercise = load("03_convolution").exercises[0]

    def hangs(*args):
        return exercise.reference(*args) + (torch.get_num_threads() == 1)

    odd = replace(exercise, wrong=[Wrong("threads", hangs, "You count threads.")])
    one, both = (mutant_row("lab", odd, [], seeds=(0,), threads=threads) for threads in ((1,), (1, 2)))
    assert [row.wrong[0][2:] for row in (one, both)] == [(True, True), (False, False)]


@pytest.mark.parametrize("lab", names())
def test_the_page_shows_what_was_measured(lab):
    """`segedu prove` measures it, `segedu mutants --write` brings it to the page."""
    row = read_rows(COURSE).get(MACHINE_CLAIM.format(int(lab[:2])))
    assert row is not None, f"make prove: {lab} was never measured"
    page = (COURSE / "course" / "wrong-answers.md").read_text()
    made = refused = equivalent = 0
    for entry in row.figure.split(", "):
        exercise, counts = entry.split()
        assert f"| `{exercise}` | {counts.replace('/', ' | ')} |\n" in page
        more = map(int, counts.split("/"))
        made, refused, equivalent = (a + b for a, b in zip((made, refused, equivalent), more, strict=True))
    assert refused >= MIN_REFUSED * (made - equivalent) and refused + equivalent <= made
