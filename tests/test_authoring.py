"""One source, two notebooks: stubs, ids, metadata, and everything that must make the build fail."""

from __future__ import annotations

import json
import types
from pathlib import Path

import nbformat
import pytest

from segedu.teaching import exercises
from segedu.teaching.authoring import notebooks as authoring
from segedu.teaching.authoring.notebooks import AuthoringError, find_leaks, make_lab, read_source, strip_solution

PYPROJECT = '[project]\nname = "x"\n[project.urls]\nRepository = "https://github.com/someone/course"\n'
SOURCE = '''# %% [markdown] name="title"
# # A tiny lab

# %% name="setup" role="setup"

# %% name="double" role="solution"
def double(x):
    """Twice x."""
    ### BEGIN SOLUTION: return twice the number x
    the_secret_intermediate_value = 2 * x
    return the_secret_intermediate_value
    ### END SOLUTION

# %% name="check_double" role="check"
check(double)

# %% name="figure" role="show"
print(double)
'''


@pytest.fixture
def course(tmp_path, monkeypatch):
    (tmp_path / "solutions").mkdir()
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    tiny = types.SimpleNamespace(exercises=[types.SimpleNamespace(name="double", points=20)])
    monkeypatch.setattr(exercises, "load", lambda lab: tiny)
    return tmp_path


def read(course: Path, source: str = SOURCE):
    (course / "solutions" / "00_tiny.py").write_text(source)
    return read_source(course, "00_tiny")


def test_ids_roles_and_metadata(course):
    notebook = read(course)
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells] == ["00-title", "00-setup", "00-double", "00-check-double", "00-figure"]
    title, setup, solution, check, figure = notebook.cells
    assert "colab.research.google.com/github/someone/course/blob/main/labs/00_tiny.ipynb" in title.source
    assert '%pip install -q "segedu[train] @ git+https://github.com/someone/course"' in setup.source
    assert solution.metadata["nbgrader"]["solution"] and not solution.metadata["nbgrader"]["grade"]
    assert check.metadata["nbgrader"]["grade"] and check.metadata["nbgrader"]["points"] == 20
    assert check.metadata["editable"] is False and len(check.metadata["nbgrader"]["checksum"]) == 32
    assert all("nbval-ignore-output" in cell.metadata["tags"] for cell in notebook.cells if cell.cell_type == "code")
    assert "raises-exception" not in json.dumps(notebook)


def test_the_checksum_is_nbgraders(course):
    """md5 of source, type, flags, id and points, as nbgrader 0.9 computes it."""
    import hashlib

    check = read(course).cells[3]
    parts = ["check(double)", "code", "True", "False", "True", "check_double", "20.0"]
    assert check.metadata["nbgrader"]["checksum"] == hashlib.md5("".join(parts).encode()).hexdigest()


def test_the_lab_has_stubs_and_no_trace(course):
    lab = make_lab(read(course))
    nbformat.validate(lab)
    source = lab.cells[2].source
    assert source == (
        'def double(x):\n    """Twice x."""\n    raise NotImplementedError(\'return twice the number x\')'
    )
    assert "secret" not in json.dumps(lab)
    with pytest.raises(NotImplementedError, match="twice the number"):
        exec(source + "\ndouble(1)")


@pytest.mark.parametrize(
    "place",
    ["source", "output", "attachment", "metadata"],
)
def test_leaks_are_found_everywhere(course, place):
    lab = make_lab(read(course))
    line = "the_secret_intermediate_value = 2 * x"
    if place == "source":
        lab.cells[0].source += f"\nSee: `{line}`"
    elif place == "output":
        lab.cells[4].outputs = [nbformat.v4.new_output("stream", text=line)]
    elif place == "attachment":
        lab.cells[0].attachments = {"a.txt": {"text/plain": line}}
    else:
        lab.cells[4].metadata["note"] = line
    assert find_leaks(lab, [line]) == [line]


def test_a_leak_stops_the_build(course):
    with pytest.raises(AuthoringError, match="also occurs in the lab"):
        make_lab(read(course, SOURCE.replace("# # A tiny lab", "# the_secret_intermediate_value = 2 * x")))


@pytest.mark.parametrize(
    "source, message",
    [
        ("def f():\n    ### BEGIN SOLUTION: a\n    ### BEGIN SOLUTION: b\n    ### END SOLUTION", "inside a solution"),
        ("def f():\n    ### BEGIN SOLUTION: a\n    return 1", "END SOLUTION is missing"),
        ("def f():\n    return 1\n    ### END SOLUTION", "without a beginning"),
        ("def f():\n    return 1", "no ### BEGIN"),
        ("def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION", "does not say what to write"),
    ],
)
def test_broken_regions_are_refused(source, message):
    with pytest.raises(AuthoringError, match=message):
        strip_solution(source, "f")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('name="figure"', 'name="double"', "two cells are named double"),
        ('name="figure" role="show"', 'role="show"', "the cell needs name"),
        ('role="show"', 'role="picture"', "role is 'picture'"),
        ("check(double)", "check(double); print(1)", "must contain only check"),
        ('name="double" role="solution"', 'name="triple" role="solution"', "that it is named after"),
    ],
)
def test_broken_sources_are_refused(course, old, new, message):
    with pytest.raises(AuthoringError, match=message):
        read(course, SOURCE.replace(old, new))


def test_a_missing_exercise_is_named(course):
    source = SOURCE[: SOURCE.index('# %% name="double"')]
    with pytest.raises(AuthoringError, match="no solution cell for double"):
        read(course, source)


def test_writing_twice_changes_nothing(course):
    lab = make_lab(read(course))
    assert authoring.write(lab, course / "labs" / "00_tiny.ipynb")
    assert not authoring.write(lab, course / "labs" / "00_tiny.ipynb")
