"""Drawn cases of a lab's exercises, by the names of the functions that they ask for."""

from __future__ import annotations

from typing import Any

from segedu.teaching.checks.exercise import Exercise
from segedu.teaching.checks.judge import draw
from segedu.teaching.exercises import load


def exercise_of(lab: str, name: str) -> Exercise:
    """One exercise of a lab, such as `15_universal`."""
    return next(exercise for exercise in load(lab).exercises if exercise.name == name)


def named_cases(lab: str, name: str, seeds: int = 4) -> list[tuple[str, list[Any]]]:
    """Name and arguments of each case, for the seeds 0, 1, ... one after the other."""
    exercise = exercise_of(lab, name)
    return [(case["name"], case["args"]) for seed in range(seeds) for _, _, case in draw(exercise, seed)]


def all_cases(lab: str, name: str, seeds: int = 4) -> list[list[Any]]:
    """The arguments only."""
    return [args for _, args in named_cases(lab, name, seeds)]
