"""Records that are made up, and the tiny course of the grader's tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parent


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gradebook_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def made() -> ModuleType:
    """The module that makes up records, for tests of what is derived from them."""
    return _load(HERE / "made.py")


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module that makes the tiny course and notebooks for it."""
    return _load(HERE.parent / "grading" / "tiny.py")


@pytest.fixture(scope="module")
def course(tiny, tmp_path_factory) -> Iterator[Path]:
    """The tiny course's checkout, installed as long as the tests of one file run."""
    with tiny.installed(tiny.make_course(tmp_path_factory.mktemp("course"))) as folder:
        yield folder
