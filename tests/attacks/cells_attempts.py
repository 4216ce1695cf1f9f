"""Attacks on second attempts, and on what saves the definitions of cells that stop or are stopped in grading."""

from __future__ import annotations

from attack import EVERYWHERE, FULL, RIGHT, Attack, beside_right
from cells import DROP_ASSERTS

UNMADE = """import json, os, pathlib
work = pathlib.Path(os.environ["SEGEDU_WORK"])
for i in range(4):
    case = json.loads((work / "job" / "double" / "in" / f"{i}.json").read_text())["dict"]["args"]["list"][0]
    outcome = {"dict": {"value": 2 * case, "arguments": {"list": [case]}}}
    for folder in ("out2", "out3"):
        out = work / "job" / "double" / folder
        out.mkdir(exist_ok=True)
        (out / f"{i}.json").write_text(json.dumps(outcome))
"""
INSTEAD_OF_THE_REST = (
    DROP_ASSERTS
    + """
import segedu.teaching.checks.rest_of_cell as rest_of_cell


def run_rest(source):
    get_ipython().ast_transformers.append(NoAsserts())


get_ipython().ast_transformers.clear()
rest_of_cell.run_rest = run_rest
a_name_that_nobody_gives
"""
)
DEADLY = """import os


class Deadly:
    never = os._exit(1)


value = os._exit(1)
os._exit(1)
"""
FIRST_TRY = {"double": "def double(x):\n    return x"}
SECOND_TRY = RIGHT["double"] + "\n\n\ncheck(double)"
WITH_TWO = {"double": "def double(x):\n    return TWO * x"}

ATTEMPTS = [
    Attack(
        "p40_outcomes_of_an_attempt_never_made",
        "probe",
        "to leave right outcomes where those of a second attempt would be",
        "0: no cell checks the function again, so only the first attempt is read",
        UNMADE,
        levels=EVERYWHERE,
        twin_answers=FIRST_TRY,
        twin_last=SECOND_TRY,
    ),
    Attack(
        "p41_drops_asserts_before_its_second_attempt",
        "probe",
        "to change how cells run after the first attempt, whose answers are right",
        "0 for the answer that is checked again, because canaries stand around every attempt",
        answers=RIGHT,
        last=DROP_ASSERTS + "\ncheck(double)",
        points=FULL - 3.0,
        note="tampering",
        levels=EVERYWHERE,
        twin_last="import ast\nprint(ast.dump(ast.parse('1')))\ndouble = double(3)\nprint(double)",
    ),
    Attack(
        "p42_replaces_what_runs_below_a_failure",
        "probe",
        "to replace the code that runs the lines below one that fails",
        "0, and said to be tampering: it is the student's process, and canaries stand around the attempt",
        INSTEAD_OF_THE_REST,
        note="tampering",
        levels=EVERYWHERE,
        twin="print(a_name_of_a_figure)\nTWO = len([1, 1])",
        twin_answers=WITH_TWO,
    ),
    beside_right(
        "p43_kills_the_kernel_in_every_definition",
        "limits",
        "to end the kernel in a cell, and again in its definitions when these are saved",
        "full points for the answers, which are right",
        cell=DEADLY,
        note="ended the kernel",
        twin="import os\n\nTWO = 2\nos._exit(1)",
        twin_answers=WITH_TWO,
    ),
]
