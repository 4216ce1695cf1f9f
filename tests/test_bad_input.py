"""Bad and empty input to every public function of validation, ops, losses and metrics: what is raised, or what is defined.

The rows stand in `bad_input/`, one file a module. The last test holds that no public function is missing. Other
parts of the library keep tables of the same kind in their own tests.
"""

import importlib
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
FILES = sorted(path.stem for path in (HERE / "bad_input").glob("*_*.py"))
TABLE = [row for stem in FILES for row in importlib.import_module(f"bad_input.{stem}").ROWS]


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_row(row):
    if row.raises is None:
        np.testing.assert_array_equal(row.function(*row.arguments, **row.options), np.asarray(row.gives))
        return
    error, words = row.raises
    with pytest.raises((TypeError, ValueError)) as caught:
        row.function(*row.arguments, **row.options)
    first_line = str(caught.value).splitlines()[0]
    assert caught.type is error
    assert first_line.startswith(words) and "expected" in first_line


def test_no_public_function_is_missing():
    named = {getattr(row.function, "__self__", row.function) for row in TABLE}
    named |= {type(value) for value in named}
    for package in ("validation", "ops", "losses", "metrics"):
        for path in sorted((HERE.parent / "segedu" / package).glob("[!_]*.py")):
            module = importlib.import_module(f"segedu.{package}.{path.stem}")
            for name, value in vars(module).items():
                if callable(value) and getattr(value, "__module__", "") == module.__name__ and name[0] != "_":
                    assert value in named, f"{module.__name__}.{name} has no row"
