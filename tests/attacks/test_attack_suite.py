"""The attacks: a few kinds at the best level in every run, all of them at all levels with `make prove`.

The referee is tested too: it must see points that were forged or lost, and harm that was done.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
import arena
import run
from attack import FULL, RIGHT, Attack
from catalogue import ATTACKS, NO_ROW
from cells import ATTACKS as CELLS
from host import TERMINALS, Referee

FEW = (
    "a02_drop_asserts", "a07_os_exit", "a09_write_scores", "o10_points_in_the_outcome",
    "o110_settings", "o111_shared_memory", "o15_long_texts_in_a_list", "o21_outcomes_written_early", "o36_writes_on_the_host",
    "o41_many_parts", "o50_hidden_module", "o63_case_in_a_helper", "m5_schema", "z2_link",
)  # fmt: skip


@pytest.fixture(scope="module")
def course():
    with arena.one_course() as folder:
        yield folder


@pytest.fixture(scope="module")
def possible_levels():
    found = arena.possible_levels()
    if not any(isolation.level >= 2 for isolation in found.values()):
        pytest.skip("this machine offers no sandbox")
    return found


def test_a_few_attacks_of_each_kind_at_the_best_level(course, possible_levels):
    few = [attack for attack in ATTACKS if attack.name in FEW]
    assert len(few) == len(FEW)
    rows = arena.Arena(course, next(iter(possible_levels.values())), few, cell_seconds=20).run()
    assert not [(row.attack, row.faults) for row in rows if row.faults]
    assert {row.attack for row in rows} > set(FEW)
    assert sum("-twin" in row.attack for row in rows) >= 10 and sum(row.boundary == "neighbour" for row in rows) == 5


def test_a_crowd_costs_its_neighbours_nothing(course, possible_levels):
    (crowd,) = (attack for attack in ATTACKS if attack.name == "o115_starves_neighbours")
    rows = arena.Arena(course, next(iter(possible_levels.values())), [crowd]).run(arena.CROWD_JOBS)
    assert not [(row.attack, row.faults) for row in rows if row.faults]
    assert sum(row.boundary == "neighbour" for row in rows) == 5


def test_the_referee_sees_terminals_and_segments():
    referee = Referee.__new__(Referee)
    referee.terminals, referee.segments = [0, TERMINALS + 5], set()
    assert any("terminals of the machine" in fault for fault in referee._of_the_machine())
    assert referee._of_the_machine() == []


def test_the_referee_sees_forged_and_lost_points_and_accused_twins(course, possible_levels):
    fakes = [
        Attack(
            "x1_right", "fake", "nothing", "0", answers=RIGHT, twin_answers={"total": "def total(v):\n    return 0"}
        ),
        Attack(
            "x2_noted",
            "fake",
            "nothing",
            "0",
            "x = 1",
            note="a note that nobody makes",
            twin=CELLS["a02_drop_asserts"][0],
        ),
    ]
    rows = arena.Arena(course, next(iter(possible_levels.values())), fakes).run()
    faults = {row.attack: " ".join(row.faults) for row in rows if row.faults}
    assert faults["x1_right"] == "FORGED 9 points" and faults["x1_right-twin"] == "LOST 3 points"
    assert faults["x2_noted"] == "no note says 'a note that nobody makes'"
    assert "LOST 9 points" in faults["x2_noted-twin"] and "accused of tampering" in faults["x2_noted-twin"]
    assert len(faults) == 4 and sum(row.forged for row in rows) == FULL


def test_the_referee_sees_harm_where_there_is_no_sandbox(course, possible_levels):
    cell = """import os, socket
open("@BAIT@/new", "w").close()
socket.create_connection(("127.0.0.1", int("@PORT@"))).close()
os.kill(int("@PID@"), 15)
import time
time.sleep(0.2)
raise type("@TOKEN@".replace("-", ""), (Exception,), {})"""
    fake = Attack("x3_harmful", "fake", "all of it", "harm", cell, levels=(1,))
    rows = arena.Arena(course, possible_levels["1"], [fake]).run()
    faults = next(row.faults for row in rows if row.attack == "x3_harmful")
    assert len(faults) == 3, faults
    for part in ("bait/new was changed", "socket ('127.0.0.1'", "a process of the host was killed"):
        assert any(part in fault for fault in faults)


def test_the_numbers_of_the_list_are_all_there():
    numbered = {attack.name.split("_")[0].rstrip("b").rstrip("c") for attack in ATTACKS} | set(NO_ROW)
    attacks = [f"a{n:02}" for n in (*range(1, 11), *range(11, 26))]
    list_of_more = (
        26,
        27,
        28,
        29,
        31,
        33,
        34,
        35,
        36,
        37,
        38,
        39,
        40,
        42,
        43,
        45,
        47,
        48,
        49,
        51,
        53,
        54,
        57,
        58,
        59,
        60,
        62,
        64,
        65,
    )
    wanted = {
        *attacks,
        *(f"m{n}" for n in range(1, 6)),
        "z1",
        "z2",
        "z3",
        "h01",
        "h02",
        *(f"n{n}" for n in list_of_more),
    }
    assert wanted <= numbered
    assert sum(attack.name.startswith("o") for attack in ATTACKS) >= 15
    assert all(attack.tries and attack.right for attack in ATTACKS)


@pytest.mark.prove
def test_every_attack_at_every_level():
    assert run.main([]) == 0
