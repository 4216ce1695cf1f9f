"""Run the statements below a line that raised, in the same kernel.

A student's cell may stop in grading but not in the student's own kernel: it shows data of a cell that grading skips,
imports a library that is not installed here, or opens a file of the student's machine. The definitions below that line
are still part of the answer.
"""

from __future__ import annotations

import ast
import linecache
import sys
from typing import Any

# Errors of a missing library, file, device, magic or value. After any other error the cell has probably stopped in the
# student's kernel too, so the statements below must not replace names that have a value.
_MISSING_HERE = (NameError, ImportError, OSError, AttributeError, LookupError, RuntimeError)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def run_rest(source: str) -> None:
    """Run the statements of a cell after the one that has just raised, each by itself.

    Args:
        source: source code of the cell. Nothing runs if the kernel's last error was not raised by this cell.
    """
    from IPython import get_ipython

    shell = get_ipython()
    text = shell.transform_cell(source)
    frame = _frame_of(text, shell.user_ns)
    if frame is None:
        return
    protected = set() if _is_due_to_grading(sys.last_value) else set(shell.user_ns)
    for node in ast.parse(text).body:
        if first_line(node) > frame.tb_lineno and not protected & stored_names(node):
            _run(node, frame.tb_frame.f_code.co_filename, shell)


def _frame_of(text: str, namespace: dict[str, Any]) -> Any:
    """Return the frame of the last traceback that belongs to the cell itself, or None."""
    frame = getattr(sys, "last_traceback", None)
    while frame is not None:
        lines = linecache.getlines(frame.tb_frame.f_code.co_filename)
        if frame.tb_frame.f_globals is namespace and "".join(lines).splitlines() == text.splitlines():
            return frame
        frame = frame.tb_next
    return None


def _is_due_to_grading(error: BaseException) -> bool:
    is_magic = type(error).__name__ == "UsageError"  # IPython's class for errors of magic commands
    return is_magic or (isinstance(error, _MISSING_HERE) and not isinstance(error, NotImplementedError))


def _run(node: ast.stmt, file: str, shell: Any) -> None:
    try:
        exec(shell.compile(ast.Module([node], []), file, "exec"), shell.user_ns)
    except (Exception, SystemExit):  # the statements below it are still tried
        return


def first_line(node: ast.stmt) -> int:
    """Return the first line of a statement, counted from 1, including its decorators."""
    return min([node.lineno, *(part.lineno for part in getattr(node, "decorator_list", ()))])


def stored_names(node: ast.stmt) -> set[str]:
    """Return all names that a statement may assign, possibly with some that it does not assign.

    >>> sorted(stored_names(ast.parse("import a.b as c, d.e").body[0]))
    ['c', 'd']
    """
    if isinstance(node, _DEFINITIONS):
        return {node.name}
    assigned = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    aliases = [part for part in ast.walk(node) if isinstance(part, ast.alias)]
    return assigned | {alias.asname or alias.name.partition(".")[0] for alias in aliases}
