"""Names that an answer uses and no cell up to it defines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segedu.grading.judging.missing_names import MAX_NAMES, Cell, MissingNames, names_read


def missing(*sources: str, home: int = 1, runs: dict[int, str] | None = None) -> MissingNames:
    """Of cells counted from 1; `runs` holds those that are not run as they are."""
    cells = [Cell(i, source, (runs or {}).get(i, source)) for i, source in enumerate(sources, 1)]
    return MissingNames(cells, {"np"}, home)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(x):\n    y = x\n    return g(y, [z for z in TOP if (w := z)])", {"g", "TOP"}),
        ("@keep\ndef f(x: Kind = START): pass", {"keep", "Kind", "START"}),
        ("class A(Base):\n    top = 1\n    def f(self): return top", {"Base", "top"}),
        ("%%time\n!ls\nf(a.b)", {"f", "a"}),
        ("def f():\n    global g\n    g = 1", set()),
        ("def (", set()),
        ("return 1", set()),
        ("x = 1\ndel x\n\x00", set()),
    ],
)
def test_reads_global_names_alone(source, names):
    assert names_read(source) == names


def test_what_stands_before_is_not_run_again():
    assert missing("def clip(x): return np.abs(x)", "def f(x): return clip(x)", home=2).source == ""


def test_what_comes_later_is_found_with_all_that_it_needs():
    found = missing(
        "def f(x): return clip(x)", "LOW = low()\ndef clip(x): return max(x, LOW)\nprint(LOW)", "def low(): return -1"
    )
    assert found.definitions == [("low", 3), ("LOW", 2), ("clip", 2)]
    assert "print" not in found.source
    namespace: dict = {}
    exec(found.source, namespace)
    assert namespace["clip"](-5) == -1


def test_a_helper_before_may_need_what_comes_later():
    assert missing("def g(x): return TOP * x", "def f(x): return g(x)", "TOP = 2", home=2).definitions == [("TOP", 3)]


def test_a_part_of_a_cell_that_is_not_run_is_found_too():
    found = missing("table = make()\ndef make(): return {}", "def f(x): return table[x]", home=2, runs={1: ""})
    assert found.definitions == [("make", 1), ("table", 1)]


def test_a_statement_that_fails_does_not_take_the_others():
    source = missing("def f(x): return a + b", "a = 1 / 0", "b = 2").source
    namespace: dict = {"np": np}
    exec(source, namespace)
    assert namespace["b"] == 2 and "a" not in namespace


def test_a_future_import_is_no_definition():
    assert missing("def f(x): return annotations", "from __future__ import annotations").source == ""


def test_stubs_and_circles_end():
    assert missing("def f(x): return g(x)", "def g(x): raise NotImplementedError").source == ""
    assert (
        len(missing("def f(x): return g(x)", "def g(x): return h(x)", "def h(x): return g(x) + f(x)").definitions) == 2
    )
    chain = [f"def n{i}(): return n{i + 1}()" for i in range(3000)]
    assert len(missing("def f(x): return n0()", *chain).definitions) == MAX_NAMES
    assert missing(*chain, "def f(x): return n0()", home=3001).source == ""


def test_a_star_import_above_may_give_a_name_that_a_later_cell_gives_too():
    source = missing("from numpy import *", "def f(x): return clip(x, 0, 1)", "def clip(x): return None", home=2).source
    given: dict = {"clip": "numpy's"}
    exec(source, given)
    assert given["clip"] == "numpy's"
    exec(source, without := {})
    assert without["clip"](1) is None


def test_a_star_import_below_gives_what_nobody_else_does():
    found = missing("def f(x): return asarray(x) + nobody_has_this", "from numpy import *\nfrom torch import *")
    exec(found.source, given := {})
    assert (
        given["asarray"] in (np.asarray, torch.asarray) and "nobody_has_this" not in given and found.definitions == []
    )
    assert missing("def f(x): return asarray(x)", "asarray = 1", "from numpy import *").sources == ["asarray = 1"]
    assert missing("def f(x): return sum(x)", "from numpy import *").source == ""
