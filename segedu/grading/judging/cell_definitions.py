"""Extract a cell's definitions as source that runs without the rest of the cell."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from textwrap import indent

from segedu.grading.judging import student_code
from segedu.grading.judging.student_code import ASSIGNING, DEFINITIONS

_BINDING = (ast.Import, ast.ImportFrom, *DEFINITIONS)


def new_definitions(source: str, original: str, all_statements: bool = False) -> list[str]:
    """Return the source of each import, function, class and constant that a student added to a cell of the lab.

    Args:
        source: the student's version of the cell.
        original: the lab's version of the cell.
        all_statements: return every added statement except magics and shell lines.
    """
    tree, original_tree = student_code.parse(source), student_code.parse(original)
    try:
        known = {ast.dump(node) for node in (original_tree.body if original_tree else [])}
        nodes = [node for node in (tree.body if tree else []) if _is_added(node) and ast.dump(node) not in known]
        return [ast.unparse(node) for node in nodes if all_statements or _defines(node)]
    except (RecursionError, ValueError):
        return []


def _is_added(node: ast.stmt) -> bool:
    """Whether a new statement counts; `SCALE`, bare constants, `__future__` imports and replaced magics do not."""
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    is_future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
    return not (is_text or is_future or isinstance(node, ast.Pass) or student_code.bound_names(node) == {"SCALE"})


def definitions(source: str, calls: bool = True) -> list[str]:
    """Return the source of each import, function, class and assignment of a cell that cannot run as a whole.

    Args:
        source: the cell.
        calls: include assignments that call something, which may take as long as the cell did.
    """
    tree = student_code.parse(source)
    nodes = [node for node in (tree.body if tree else []) if _is_added(node) and not student_code.is_stub(node)]
    try:
        return [
            ast.unparse(node)
            for node in nodes
            if isinstance(node, _BINDING) or (isinstance(node, ASSIGNING) and (calls or not _calls(node)))
        ]
    except (RecursionError, ValueError):
        return []


def _calls(node: ast.stmt) -> bool:
    return any(isinstance(part, ast.Call) for part in ast.walk(node))


def each_in_try(parts: Iterable[str]) -> str:
    """Join pieces of source so that a piece that raises an exception does not stop those after it."""
    return "\n".join(f"try:\n{indent(part, '    ')}\nexcept Exception:\n    pass" for part in parts)


def if_undefined(name: str, source: str) -> str:
    """Wrap source so that it runs only if the notebook has not defined `name` yet."""
    return f"try:\n    {name}\nexcept NameError:\n{indent(source, '    ')}"


def _defines(node: ast.stmt) -> bool:
    if isinstance(node, _BINDING):
        return True
    if not isinstance(node, ASSIGNING) or node.value is None:
        return False
    try:
        ast.literal_eval(node.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True
