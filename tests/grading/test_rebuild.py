"""Rebuilding a submission: what runs, in which order, and what is said about it."""

from __future__ import annotations

import json

import pytest

from segedu.grading.judging.lab_source import read_lab
from segedu.grading.judging.rebuild import rebuild
from segedu.grading.submissions.notebook import parse_notebook


@pytest.fixture
def plan_of(course, tiny):
    lab = read_lab(course, tiny.LAB)

    def make(cells):
        return rebuild(
            lab, parse_notebook(tiny.notebook(cells).encode()), ["segedu.ops.boxes"], 7.0, iter("abcdefgh").__next__
        )

    return make


def outline(plan):
    return [f"{step.kind} {step.name}" for step in plan.steps]


def probe(name):
    return [f"canary {name} before", f"probe {name}", f"canary {name} after"]


def test_a_blank_lab_runs_nothing_but_imports(plan_of, tiny):
    plan = plan_of(tiny.lab_cells())
    assert outline(plan) == ["setup imports"]
    assert set(plan.state.values()) == {"blank"}
    assert not any(plan.notes.values())


def test_solutions_run_in_place_with_probes_between_canaries(plan_of, tiny):
    plan = plan_of(tiny.answered(double=tiny.RIGHT["double"], total=tiny.RIGHT["total"]))
    assert outline(plan) == ["setup imports", "solution double", *probe("double"), "solution total", *probe("total")]
    assert plan.state == {"double": "answered", "total": "answered", "box_area": "blank"}
    assert [step.timeout for step in plan.steps] == [7.0] * 9
    before = plan.steps[2]
    assert plan.nonces["double before"] == "a" and before.source.startswith('assert False, "a"')
    assert '"@WORK@/job/double"' in plan.steps[3].source


def test_imports_of_our_cells_survive_and_cannot_replace_an_answer(plan_of, course, tiny):
    cells = tiny.answered(**tiny.RIGHT)
    (imports,) = [step for step in plan_of(cells).steps if step.kind == "setup"]
    assert "import numpy as np" in imports.source and "import math" in imports.source
    namespace = {}
    exec(imports.source, namespace)
    assert namespace["np"].zeros(1).shape == (1,)


def test_the_first_duplicate_that_is_more_than_the_stub_counts(plan_of, tiny):
    cells = tiny.lab_cells()
    again = {**cells[2], "source": tiny.RIGHT["double"]}
    third = {**cells[2], "source": "def double(x): return 0"}
    plan = plan_of([*cells[:4], again, third, *cells[4:]])
    assert plan.notes["double"] == ["double appears 3 times, used the second, at position 5"]
    assert outline(plan) == ["setup imports", "solution double", *probe("double"), "helper cell 6", *probe("double 2")]
    assert plan.steps[1].source == tiny.RIGHT["double"] and plan.attempts == {"double": [5, 6]}
    assert 'user_ns, out="out2")' in plan.steps[-2].source and "out=" not in plan.steps[3].source


def test_a_retyped_cell_is_found_by_the_name_of_its_function(plan_of, tiny):
    cells = [cell for cell in tiny.lab_cells() if cell["id"] != "00-double"]
    cells.insert(1, tiny.cell("fresh-id", "k = 2\n\ndef double(x):\n    return k * x"))
    plan = plan_of(cells)
    assert plan.state["double"] == "answered"
    assert plan.notes["double"] == ["double was not in its own cell, used the one at position 2"]
    assert outline(plan) == ["setup imports", "helper cell 2", "helper rest of cell 2", *probe("double")]


def test_an_answer_below_its_untouched_stub_is_found_and_the_stub_does_not_run_over_it(plan_of, tiny):
    cells = tiny.lab_cells()
    cells.insert(1, tiny.cell("mine", tiny.RIGHT["double"]))
    plan = plan_of(cells)
    assert outline(plan) == ["setup imports", "helper cell 2", *probe("double")]


def test_a_solution_cell_without_its_function_is_said(plan_of, tiny):
    plan = plan_of(tiny.answered(double="def twice(x):\n    return 2 * x"))
    assert plan.notes["double"] == ["the cell of double, at position 3, does not define double"]
    assert outline(plan) == ["setup imports", "solution double", *probe("double")]


def test_a_deleted_cell_and_one_that_is_no_code_any_more(plan_of, tiny):
    cells = [cell for cell in tiny.lab_cells() if cell["id"] != "00-double"]
    raw = next(cell for cell in cells if cell["id"] == "00-total")
    raw["cell_type"] = "raw"
    plan = plan_of(cells)
    assert plan.state["double"] == plan.state["total"] == "missing"
    assert plan.notes["double"] == ["the cell of double was deleted, and no other cell defines it"]
    assert plan.notes["total"] == ["the cell of total is no longer a code cell"]


def test_the_probe_stands_where_the_students_check_stood(plan_of, tiny):
    cells = tiny.answered(double="def double(x): return 0")
    place = next(i for i, cell in enumerate(cells) if cell["id"] == "00-check-double")
    cells.insert(place, tiny.cell("second-thought", tiny.RIGHT["double"]))
    assert outline(plan_of(cells)) == ["setup imports", "solution double", "helper cell 4", *probe("double")]
    without = [cell for cell in cells if cell["id"] != "00-check-double"]
    assert outline(plan_of(without))[2:] == [*probe("double"), "helper cell 4", *probe("double 2")]
    twice = [*cells, cells[place + 1]]
    assert outline(plan_of(twice)) == outline(plan_of(cells))


def test_our_cells_stay_out_even_as_copies_and_edited_ones_give_their_definitions(plan_of, tiny):
    cells = tiny.answered(double=tiny.RIGHT["double"])
    train = next(cell for cell in cells if cell["id"] == "00-train")
    copy = tiny.cell("copied", train["source"] + "\n\n")
    check = next(cell for cell in cells if cell["id"] == "00-check-double")
    check["source"] = "print('all right')"
    show = next(cell for cell in cells if cell["id"] == "00-show-double")
    show["source"] += "\ndef helper():\n    return 2\nhelper()"
    plan = plan_of([*cells, copy, tiny.cell("empty", "# nothing\n\n")])
    assert outline(plan) == ["setup imports", "solution double", *probe("double"), "helper cell 5"]
    assert plan.steps[-1].source == "try:\n    def helper():\n        return 2\nexcept Exception:\n    pass"
    assert plan.notes[""] == [
        "the cell check_double, at position 4, was changed; ours was used",
        "the cell show_double, at position 5, was changed; only the definitions added to it were run",
    ]


def test_ids_that_other_tools_keep_in_the_metadata(plan_of, tiny):
    cells = tiny.answered(double=tiny.RIGHT["double"])
    for cell in cells:
        cell["metadata"] = {"id": cell.pop("id"), "tags": ["raises-exception", "nbval-skip"]}
    assert outline(plan_of(cells)) == ["setup imports", "solution double", *probe("double")]


def test_an_id_that_is_not_ours_means_nothing(plan_of, tiny):
    cells = [
        *tiny.lab_cells(),
        tiny.cell("04-double", tiny.RIGHT["total"]),
        tiny.cell("x", "y = 1", role="check", name="nope"),
    ]
    plan = plan_of(cells)
    assert plan.state["double"] == "blank" and plan.state["total"] == "answered"
    assert "helper cell 13" in outline(plan)


def test_markers_and_odd_words(plan_of, tiny):
    cells = tiny.answered(box_area="# NBVAL_SKIP\nfrom segedu.ops.boxes import box_area")
    plan = plan_of(cells)
    (solution,) = [step for step in plan.steps if step.kind == "solution"]
    assert solution.source.startswith("#\n")
    assert plan.notes["box_area"] == ["the cell at position 9 imports segedu.ops.boxes, which this lab hides"]


def test_a_lab_that_is_not_there_says_which_are(course, tmp_path):
    with pytest.raises(ValueError, match="lab is '99_none'.*expected one of 00_tiny"):
        read_lab(course, "99_none")
    with pytest.raises(ValueError, match="make labs"):
        read_lab(tmp_path, "00_tiny")
    (tmp_path / "labs").mkdir()
    cell = {"cell_type": "code", "id": "00-x", "metadata": {}, "source": ""}
    (tmp_path / "labs" / "00_x.ipynb").write_text(json.dumps({"cells": [cell]}))
    with pytest.raises(ValueError, match="cell 00-x has role None"):
        read_lab(tmp_path, "00_x")


def test_what_our_cells_import_is_there_again_below_a_star_import(plan_of, tiny):
    cells = tiny.answered(double=tiny.RIGHT["double"])
    cells.insert(2, tiny.cell("mine", "from numpy import *"))
    plan = plan_of(cells)
    assert [step.name for step in plan.steps if step.kind == "setup"] == [
        "imports", "imports of show_double", "imports of show_total", "imports of show_box_area",
    ]  # fmt: skip
    assert "replaces Python's own abs" in plan.notes[""][0]


WRONG = "def double(x):\n    return x"


@pytest.mark.parametrize(
    ("below", "places"),
    [
        ([tiny_double := "def double(x):\n    return 2 * x"], [4, 13]),
        ([tiny_double + "\ncheck(double)"], [4, 13]),
        ([tiny_double, "check(double)"], [4, 14]),
        (["FACTOR = 2", "check(double)"], [4, 14]),
        (["check(double)"], [4]),  # nothing has changed
        ([tiny_double, "check(double)", "y = double(3)", "double = 5"], [4, 14, 16]),
        (["double = double(3)", tiny_double, "check(double)"], [4, 15]),
        (["check(total)", "twice = double"], [4]),
    ],
)
def test_where_a_function_is_probed_again(plan_of, tiny, below, places):
    cells = tiny.answered(double=WRONG)
    plan = plan_of([*cells, *(tiny.cell(f"below-{i}", source) for i, source in enumerate(below))])
    assert plan.attempts == {"double": places}
    probes = [step.name for step in plan.steps if step.kind == "probe"]
    assert probes == ["double", "double 2", "double 3"][: len(places)]


def test_a_copy_of_a_solution_cell_runs_for_what_else_it_defines(plan_of, tiny):
    cells = tiny.answered(double="FACTOR = 2\n\n\ndef double(x):\n    return x")
    cells.insert(3, {**cells[2], "source": "def double(x):\n    return FACTOR * x"})
    plan = plan_of(cells)
    assert outline(plan) == [
        "setup imports",
        "helper cell 3",
        "helper rest of cell 3",
        "solution double",
        *probe("double"),
    ]


@pytest.mark.parametrize("blank", [True, False])
def test_an_answer_in_a_copy_of_another_exercises_cell_is_found(plan_of, tiny, blank):
    cells = tiny.answered(double=tiny.RIGHT["double"])
    place = next(i for i, cell in enumerate(cells) if cell["id"] == "00-total")
    cells.insert(place + 1, {**cells[2], "source": tiny.RIGHT["total"]})
    del cells[place : place + (not blank)]
    plan = plan_of(cells)
    assert plan.state["total"] == "answered" and outline(plan)[-4] == f"helper cell {place + 1 + blank}"
    assert outline(plan)[-3:] == probe("total")


def test_an_edited_setup_cell_runs_what_was_added_in_order_each_by_itself(plan_of, tiny):
    cells = tiny.answered(double=tiny.RIGHT["double"])
    cells[1]["source"] = "out = !ls\n" + cells[1]["source"] + "\nTABLE = dict()\nTABLE['a'] = fails\nTABLE['b'] = 2"
    plan = plan_of(cells)
    namespace: dict = {}
    exec(plan.steps[1].source, namespace)
    assert namespace["TABLE"] == {"b": 2}
    assert plan.notes[""] == ["the cell setup, at position 2, was changed; only what was added to it was run"]
    cells[1]["source"] = "import numpy as np"
    assert plan_of(cells).notes[""] == ["the cell setup, at position 2, was changed; ours was used"]
    cells[1]["source"] = "import numpy as"
    assert "Python cannot read it; ours was used" in plan_of(cells).notes[""][0]
