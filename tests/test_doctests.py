"""Every example in a docstring of segedu runs; losses, metrics and ops have one in every public function."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ("losses", "metrics", "ops")


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def modules_with_examples():
    paths = sorted((ROOT / "segedu").rglob("*.py"))
    return [name_of(p) for p in paths if re.search(r"^\s*>>> ", p.read_text(encoding="utf-8"), flags=re.M)]


def public_functions():
    """Functions and classes that a module of losses, metrics or ops defines, without an underscore."""
    for package in PUBLIC:
        for path in sorted((ROOT / "segedu" / package).glob("*.py")):
            module = importlib.import_module(name_of(path))
            for name, value in vars(module).items():
                if callable(value) and getattr(value, "__module__", "") == module.__name__ and name[0] != "_":
                    yield value


def result_of(module):
    """(failed, attempted), with the failures printed."""
    return doctest.testmod(module, verbose=False)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_run(name):
    result = result_of(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("function", list(public_functions()), ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_public_function_has_an_example_with_numbers(function):
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(function) or "")
    assert any(re.search(r"\d", example.source + example.want) for example in examples)


def test_all_modules_are_found():
    assert {"segedu.ops.boxes", "segedu.metrics.confusion", "segedu.losses.dice"} <= set(modules_with_examples())
    names = {function.__name__ for function in public_functions()}
    assert {"box_iou", "ConfusionMatrix", "dice_loss", "boundary_f1", "instance_accuracy"} <= names


def test_a_wrong_example_fails(tmp_path, monkeypatch, capsys):
    (tmp_path / "segedu_wrong_example.py").write_text('"""\n>>> 1 + 1\n3\n"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert result_of(importlib.import_module("segedu_wrong_example")).failed == 1
    assert "Expected" in capsys.readouterr().out
