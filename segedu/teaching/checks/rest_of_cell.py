"""Run what stands below a line that failed, in the same kernel.

A student's cell may stop in grading and not in the student's own kernel: it shows data of a cell that grading leaves
out, imports a library that is not installed here, or opens a file of the student's machine. Then the definitions below
that line are part of the answer all the same.
"""

from __future__ import annotations

import ast
import linecache
import sys
from typing import Any

# What a missing library, file, device, magic or value raises. After any other error the cell has probably stopped in
# the student's kernel too, so that what stands below replaces nothing that has a value.
_MISSING_HERE = (NameError, ImportError, OSError, AttributeError, LookupError, RuntimeError)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def run_rest(source: str) -> None:
    """Run the statements of a cell below the one at which it has just stopped, each of them by itself.

    Args:
        source: of the cell; nothing runs if the last error of the kernel is not of this cell.
    """
    from IPython import get_ipython

    shell = get_ipython()
    text = shell.transform_cell(source)
    frame = _frame_of(text, shell.user_ns)
    if frame is None:
        return
    kept = set() if _is_due_to_grading(sys.last_value) else set(shell.user_ns)
    for node in ast.parse(text).body:
        if first_line(node) > frame.tb_lineno and not kept & stored_names(node):
            _run(node, frame.tb_frame.f_code.co_filename, shell)


def _frame_of(text: str, namespace: dict[str, Any]) -> Any:
    """The part of the last traceback that belongs to a cell itself, or None."""
    frame = getattr(sys, "last_traceback", None)
    while frame is not None:
        lines = linecache.getlines(frame.tb_frame.f_code.co_filename)
        if frame.tb_frame.f_globals is namespace and "".join(lines).splitlines() == text.splitlines():
            return frame
        frame = frame.tb_next
    return None


def _is_due_to_grading(error: BaseException) -> bool:
    is_magic = type(error).__name__ == "UsageError"  # of IPython
    return is_magic or (isinstance(error, _MISSING_HERE) and not isinstance(error, NotImplementedError))


def _run(node: ast.stmt, file: str, shell: Any) -> None:
    try:
        exec(shell.compile(ast.Module([node], []), file, "exec"), shell.user_ns)
    except (Exception, SystemExit):  # this statement stops here; those below it have a chance of their own
        return


def first_line(node: ast.stmt) -> int:
    """The first line of a statement, its decorators included.

    Args:
        node: of the tree.

    Returns:
        Counted from 1.
    """
    return min([node.lineno, *(part.lineno for part in getattr(node, "decorator_list", ()))])


def stored_names(node: ast.stmt) -> set[str]:
    """The names that a statement may give a value; too many rather than too few.

    Args:
        node: of the tree.

    Returns:
        Names.

    >>> sorted(stored_names(ast.parse("import a.b as c, d.e").body[0]))
    ['c', 'd']
    """
    if isinstance(node, _DEFINITIONS):
        return {node.name}
    found = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    aliases = [part for part in ast.walk(node) if isinstance(part, ast.alias)]
    return found | {alias.asname or alias.name.partition(".")[0] for alias in aliases}
