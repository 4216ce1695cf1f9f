"""Suggestions for a method without a recipe on the requested data: other recipes, weights, files, similar names."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from segedu.recipes.recipe import NAMES
from segedu.weights.catalogue import WEIGHTS


def suggestions(method: str) -> str:
    """Sentences about other recipes and weights of a method, ending in a space; "" if there are none."""
    if data := [data for name, data in NAMES if name == method]:
        return f"There is a recipe for {' and '.join(data)}: segedu train {method} --data {data[0]}. "
    ours = [n for n, w in WEIGHTS.items() if w.url == w.file_name and n.partition("_")[2] == method]
    official = [n for n, w in WEIGHTS.items() if w.builder.partition(":")[0].endswith(f".{method}") and n not in ours]
    text = ""
    if ours:
        text += f'The course has small weights of its own for it: segedu.weights.load("{ours[0]}"); '
        text += f"python -m segedu.weights.own.{ours[0]} trains them again. "
    if official:
        text += f"Official weights are in segedu.weights.load({' or '.join(repr(n) for n in official)}). "
    if not text and method.isidentifier() and (files := _files_of(method)):
        text = f"{files[0]} exists, but no recipe trains it. "
    if not text and (matches := get_close_matches(method, {name for name, _ in NAMES}, 1)):
        text = f"Did you mean {matches[0]}? "
    return text


def _files_of(method: str) -> list[str]:
    """Files of the library with a method's name, also inside a folder of the same name."""
    package = Path(__file__).parents[1]
    files = sorted([*package.glob(f"*/{method}.py"), *package.glob(f"*/{method}/{method}.py")])
    return [path.relative_to(package.parent).as_posix() for path in files]
