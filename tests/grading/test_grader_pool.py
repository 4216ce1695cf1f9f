"""Who is handed over when: few at a time, and one whose worker was lost again, with no other at work."""

from __future__ import annotations

import json
import random
from concurrent.futures import FIRST_COMPLETED, Future
from types import SimpleNamespace

import pytest

from segedu.grading.batch import grader_pool as crew_module
from segedu.grading.batch.grader_pool import MAX_ALONE, MAX_TRIES, QUEUED_PER_GRADER, GraderPool, records_of

STEPS = 2000  # far more than any of these batches needs: a test must fail, not wait


class Workers:
    """Workers without threads: whenever the batch waits, one submission is done, or one takes others down with it.

    `deadly` says how often each of some submissions kills; `alone` that it takes no others down, as on a cluster.
    """

    def __init__(
        self,
        rng: random.Random,
        deadly: dict[str, int],
        alone: bool = False,
        count: int = 2,
        slow: frozenset = frozenset(),
    ) -> None:
        self.rng, self.deadly, self.alone, self.slow = rng, dict(deadly), alone, slow
        self.starved: set[str] = set()  # had somebody beside them since they were handed over
        self.running: dict[Future, str] = {}
        self.handed_over: list[tuple[str, frozenset[str]]] = []  # and what ran already
        self.read: list[str] = []
        self.most_in_memory = self.done = self.steps = 0
        self.grader_pool = GraderPool((3, "a pretence"), count, self.submit)

    def names(self, all_of_them: list[str]):
        """The batch's submissions, one at a time as they are read from the disk."""
        for name in all_of_them:
            self.read.append(name)
            self.most_in_memory = max(self.most_in_memory, len(self.read) - self.done)
            yield name

    def submit(self, name: str) -> Future:
        self.handed_over.append((name, frozenset(self.running.values())))
        self.running[future := Future()] = name
        self.starved.discard(name)
        if len(self.running) > 1:
            self.starved |= set(self.running.values())
        return future

    def wait(self, running, return_when):
        """In place of `concurrent.futures.wait`."""
        self.steps += 1
        assert self.steps < STEPS and set(running) == set(self.running) and return_when == FIRST_COMPLETED
        future = self.rng.choice(list(self.running))
        name = self.running[future]
        if self.deadly.get(name, 0) > 0:
            self.deadly[name] -= 1
            lost = [future] if self.alone else list(self.running)
            for one in lost:
                one.set_exception(RuntimeError(f"killed by {name}"))
        else:
            lost = [future]
            cut = len(self.slow & {name}) * (1 if name in self.starved else 0)
            record = {"student": name, "measured": {"cut_short": cut}}
            future.set_result(self.rng.choice([record, json.dumps(record).encode()]))
        for one in lost:
            del self.running[one]
        return SimpleNamespace(done=set(lost))


def grade(workers: Workers, names: list[str], monkeypatch, student_of=str) -> list[dict]:
    monkeypatch.setattr(crew_module, "wait", workers.wait)
    failed = lambda name, error: {"student": name, "why": str(error)}  # noqa: E731
    records = []
    for record in records_of(workers.grader_pool, workers.names(names), failed, student_of):
        workers.done += 1
        records.append(record)
    return records


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_those_that_kill_harm_no_other_and_are_tried_alone(alone, seed, monkeypatch):
    rng = random.Random(seed)
    names = [f"s{i}" for i in range(rng.randint(1, 25))]
    bombs = {name: rng.choice([1, 2, MAX_TRIES, 99]) for name in names if rng.random() < 0.3}
    workers = Workers(rng, bombs, alone, count=rng.randint(1, 4))
    records = grade(workers, names, monkeypatch)
    assert sorted(record["student"] for record in records) == sorted(names)
    assert (
        workers.most_in_memory <= QUEUED_PER_GRADER * workers.grader_pool.count
    )  # those to be tried again are among them
    failed = {record["student"]: record["why"] for record in records if "why" in record}
    # one that did no harm is never blamed: at its last tries it was alone, so what killed it was itself
    assert all(bombs.get(name, 0) >= MAX_TRIES - 1 and why == f"killed by {name}" for name, why in failed.items())
    assert {name for name, times in bombs.items() if times >= MAX_TRIES} <= set(failed)
    seen: set[str] = set()
    again = None
    for name, beside in workers.handed_over:
        assert not (name in seen and beside), f"{name} was tried again beside {sorted(beside)}"
        assert again not in beside, f"{name} was handed over beside {again}, which was being tried again"
        again = name if name in seen else None
        seen.add(name)
    tries = [name for name, _ in workers.handed_over]
    assert all(tries.count(name) == MAX_TRIES for name in failed) and max(map(tries.count, names)) <= MAX_TRIES


@pytest.mark.parametrize("bombs", [{}, {"s3": 1, "s8": 99}])
@pytest.mark.parametrize("seed", range(30))
def test_what_ran_out_of_time_beside_others_is_graded_again_alone(bombs, seed, monkeypatch):
    rng = random.Random(seed)
    names = [f"s{i}" for i in range(rng.randint(2, 25))]
    slow = frozenset(name for name in names if rng.random() < rng.choice([0.1, 0.9]))
    workers = Workers(rng, bombs, count=rng.randint(2, 4), slow=slow)
    records = grade(workers, names, monkeypatch)
    assert sorted(record["student"] for record in records) == sorted(names)
    assert workers.most_in_memory <= QUEUED_PER_GRADER * workers.grader_pool.count
    assert not [record for record in records if record.get("measured", {}).get("cut_short")]
    tries = [name for name, _ in workers.handed_over]
    if not bombs:
        assert all(tries.count(name) <= 1 + (name in slow) for name in names)
        assert all(not beside for place, (name, beside) in enumerate(workers.handed_over) if name in tries[:place])


def test_many_endless_attempts_of_one_student_are_graded_alone_twice_at_most(monkeypatch):
    attempts = [f"mallory~{number}" for number in range(1, 21)]
    workers = Workers(random.Random(0), {}, slow=frozenset([*attempts, "anna", "bert"]))
    names = [*attempts, "anna", "bert", "chris"]
    records = grade(workers, names, monkeypatch, lambda name: name.partition("~")[0])
    assert sorted(record["student"] for record in records) == sorted(names)
    again = [name for name, _ in workers.handed_over]
    twice = sorted(name.partition("~")[0] for name in set(again) if again.count(name) == 2)
    assert twice.count("mallory") == MAX_ALONE and len(again) == len(names) + len(twice)


def test_one_at_a_time_or_alone_nothing_is_graded_again(monkeypatch):
    for names, count in ((["s0", "s1", "s2"], 1), (["s0"], 4)):
        workers = Workers(random.Random(0), {}, count=count, slow=frozenset(names))
        grade(workers, names, monkeypatch)
        assert [name for name, _ in workers.handed_over] == names


def test_a_failure_of_the_grader_is_tried_again_alone():
    assert crew_module.disturbed({"status": "failed"}) and not crew_module.disturbed(
        {"status": "graded", "measured": {}}
    )


def test_suspects_come_before_anything_new(monkeypatch):
    first, rest = [f"s{i}" for i in range(QUEUED_PER_GRADER * 2)], [f"t{i}" for i in range(5)]
    workers = Workers(random.Random(0), dict.fromkeys(first, 99), count=2)
    records = grade(workers, first + rest, monkeypatch)
    assert sorted(record["student"] for record in records if "why" in record) == first
    tries = [name for name, _ in workers.handed_over]
    assert sorted(tries[: -len(rest)]) == sorted(first * MAX_TRIES) and tries[-len(rest) :] == rest


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_as_there_is_room_for_are_read_and_no_more(count, monkeypatch):
    workers = Workers(random.Random(count), {}, count=count)
    names = [f"s{i}" for i in range(20)]
    records = grade(workers, names, monkeypatch)
    assert workers.read == names and [name for name, _ in workers.handed_over] == names
    assert sorted(record["student"] for record in records) == sorted(names)
    assert workers.most_in_memory == QUEUED_PER_GRADER * count and workers.steps == len(names)
    beside = [len(others) for _, others in workers.handed_over[QUEUED_PER_GRADER * count :]]
    assert set(beside) == {QUEUED_PER_GRADER * count - 1}  # whenever one is done, the next follows


def test_nothing_to_do(monkeypatch):
    assert grade(Workers(random.Random(0), {}), [], monkeypatch) == []
