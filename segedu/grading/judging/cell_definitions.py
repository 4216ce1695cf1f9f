"""What a cell defines, as statements that run without the rest of the cell, each of them by itself."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from textwrap import indent

from segedu.grading.judging import student_code
from segedu.grading.judging.student_code import ASSIGNING, DEFINITIONS

_BINDING = (ast.Import, ast.ImportFrom, *DEFINITIONS)


def new_definitions(source: str, ours: str, everything: bool = False) -> list[str]:
    """What a student added to a cell of ours: imports, functions, classes and constants.

    Args:
        source: the cell now.
        ours: the cell as the lab has it.
        everything: all statements that were added, but for magics and shell lines.

    Returns:
        Source of each addition, in order.
    """
    tree, old = student_code.parse(source), student_code.parse(ours)
    try:
        known = {ast.dump(node) for node in (old.body if old else [])}
        nodes = [node for node in (tree.body if tree else []) if _is_added(node) and ast.dump(node) not in known]
        return [ast.unparse(node) for node in nodes if everything or _defines(node)]
    except (RecursionError, ValueError):
        return []


def _is_added(node: ast.stmt) -> bool:
    """Neither the size of our training, nor a text, nor what stands where a magic stood."""
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    is_future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
    return not (is_text or is_future or isinstance(node, ast.Pass) or student_code.bound(node) == {"SCALE"})


def definitions(source: str, calls: bool = True) -> list[str]:
    """The imports, functions, classes and assignments of a cell: what other cells need of one that cannot run whole.

    Args:
        source: of the cell.
        calls: also assignments that call something, which may take as long as the cell did.

    Returns:
        Source of each, in order.
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


def tried(parts: Iterable[str]) -> str:
    """Statements one after the other; one that fails does not stop those below it.

    Args:
        parts: source of one or more statements each.

    Returns:
        Source.
    """
    return "\n".join(f"try:\n{indent(part, '    ')}\nexcept Exception:\n    pass" for part in parts)


def unless_there(name: str, source: str) -> str:
    """Statements that run only where a name has no value yet.

    Args:
        name: of the notebook.
        source: of the statements.

    Returns:
        Source.
    """
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
