"""Reading student code as text."""

from __future__ import annotations

import ast

import pytest

from segedu.grading.judging import cell_definitions, student_code


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(x):\n    return x", True),
        ("%time\n!ls\ndef f(x):\n    return x", True),
        ("if colab:\n    %pip install x\ndef f(x):\n    return x", True),
        ("f = lambda x: x", True),
        ("f: int = 3", True),
        ("from a import g as f", True),
        ("import f", True),
        ("class f: ...", True),
        ("async def f(): return 1", True),
        ("def f(x):\n    '''Doc.'''\n    raise NotImplementedError('write it')", False),
        ("def f(x): pass", False),
        ("def f(x): ...", False),
        ("def g():\n    def f(): return 1", False),
        ("f(3)", False),
        ("def f(x:\n    return x", True),  # broken, yet meant
        ("x = 'def f('", False),
    ],
)
def test_which_cells_give_a_name_a_value(source, expected):
    assert student_code.binds(source, "f") is expected


@pytest.mark.parametrize(
    "source", ["-" * 100_000 + "1", "(" * 5_000, "a." * 50_000 + "b", "\0", "é\ud800", "if 1:\n" * 200]
)
def test_hostile_source_is_read_without_harm(source):
    assert student_code.parse(source) is None or isinstance(student_code.parse(source), ast.Module)
    assert student_code.binds(source, "f") is False
    assert cell_definitions.new_definitions(source, "x = 1") == cell_definitions.definitions(source) == []
    assert student_code.oddities(source, ["segedu.ops.boxes"]) == []
    assert student_code.imports_of(source) == []


def test_a_stub_with_imports_or_another_docstring_is_still_the_stub():
    assert student_code.is_only_stub("import math\n\n\ndef f(x):\n    '''Mine.'''\n    raise NotImplementedError")
    assert not student_code.is_only_stub("import math") and not student_code.is_only_stub(
        "def f(x):\n    return math.pi"
    )
    assert not student_code.is_only_stub("x = 1\ndef f(): ...") and not student_code.is_only_stub("def f(")


def test_markers_of_nbval_are_blanked_and_lines_stay():
    source = "# NBVAL_SKIP\nx = 1\n    #NBVAL_RAISES_EXCEPTION  \n# PYTEST_VALIDATE_IGNORE_OUTPUT\n# NBVAL_SKIP me not"
    assert student_code.strip_markers(source).splitlines() == ["#", "x = 1", "    #", "#", "# NBVAL_SKIP me not"]


def test_additions_to_a_cell_of_ours_are_its_definitions_only():
    ours = "import math\nSCALE = 'cpu'\nfor i in range(9):\n    print(i)"
    theirs = (
        "import math\nimport os\nSCALE = 'gpu'\nLIMIT = 3\ndata = train()\n@cached\ndef helper():\n    return LIMIT\n"
    )
    added = ["import os", "LIMIT = 3", "@cached\ndef helper():\n    return LIMIT"]
    assert cell_definitions.new_definitions(theirs, ours) == added
    assert cell_definitions.new_definitions(theirs, ours, all_statements=True) == [
        *added[:2],
        "data = train()",
        added[2],
    ]
    assert cell_definitions.new_definitions(ours, ours) == []


@pytest.mark.parametrize(
    "line", ["!pip install x \\\n    y", "out = !ls", "out = %env", "files, n = !ls \\\n  -l", "%cd .", "x?"]
)
def test_magics_are_left_out_and_line_numbers_stay(line):
    source = f"{line}\ntop: int = 3\ntop += 1\ntop %= 2"
    assert [part for part in cell_definitions.new_definitions(source, "") if "None" not in part][:2] == [
        "top: int = 3",
        "top += 1",
    ]
    assert student_code.parse(source).body[-1].lineno == source.count("\n") + 1


def test_definitions_of_a_cell_that_took_its_kernel_with_it():
    source = "import os\nA = 1\nB = slow()\nfor i in B:\n    print(i)\ndef f(): return A\ndef g(): ..."
    assert cell_definitions.definitions(source) == ["import os", "A = 1", "B = slow()", "def f():\n    return A"]
    assert cell_definitions.definitions(source, calls=False) == ["import os", "A = 1", "def f():\n    return A"]


def test_which_cells_check_a_function():
    assert student_code.calls_check("x = 1\nif x:\n    check(f)", "f")
    assert not any(
        student_code.calls_check(source, "f") for source in ("check(g)", "f(check)", "check()", "# check(f)", "(")
    )


def test_oddities_are_named():
    found = student_code.oddities(
        "from segedu.ops import boxes\n!pip install x\nip.showtraceback = 0", ["segedu.ops.boxes"]
    )
    assert found == [
        "imports segedu.ops.boxes, which this lab hides",
        "mentions showtraceback",
        "runs a shell command or a magic",
    ]
    assert student_code.oddities("import segedu.ops.boxes as b", ["segedu.ops.boxes"])
    assert student_code.oddities("from segedu.ops.boxes import box_iou", ["segedu.ops.boxes"])
    assert student_code.oddities("from segedu.viz import show\nx = 5 % 3", ["segedu.ops.boxes"]) == []


def test_a_parser_that_is_disturbed_by_another_thread_is_asked_again(monkeypatch):
    """python/cpython#106905 cost a student's record, until the next run."""
    real, calls = ast.parse, []

    def disturbed(text):
        calls.append(text)
        if len(calls) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=48, after=42)")
        return real(text)

    monkeypatch.setattr(student_code.ast, "parse", disturbed)
    assert student_code.binds("def disturbed_once():\n    return 1", "disturbed_once") and len(calls) == 3
    monkeypatch.setattr(student_code.ast, "parse", lambda text: (_ for _ in ()).throw(SystemError("always")))
    assert student_code.parse("always = disturbed") is None
