"""Analyse student code as text, without running it: what a cell defines, mentions, and whether it is still the stub.

Source that Python cannot parse is not an error here: the cell fails when it runs.
"""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache

_PARSER = threading.Lock()
# a magic or shell line with its backslash continuation lines; below, one whose result is assigned to a name
_MAGIC = re.compile(r"^([ \t]*)(?:[%!?](?:.*\\\n)*.*|\S.*\?)[ \t]*$", re.MULTILINE)
_NAMED_MAGIC = re.compile(r"^([ \t]*[\w.,\[\] \t]+=[ \t]*)[%!](?:.*\\\n)*.*$", re.MULTILINE)
_NBVAL = re.compile(r"^([ \t]*)#[ \t]*(?:NBVAL_[A-Z_]+|PYTEST_VALIDATE_IGNORE_OUTPUT)[ \t]*$", re.MULTILINE)
_BODY_FIELDS = ("body", "orelse", "handlers", "finalbody", "cases")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
ASSIGNING = (ast.Assign, ast.AnnAssign, ast.AugAssign)
# words that no lab needs, and libraries that contain answers; each adds a note for the instructor and costs no points
_SUSPICIOUS_WORDS = (
    "ast_transformers", "input_transformers", "showtraceback", "set_custom_exc", "shell_send", "execute_reply",
    "do_execute", "run_cell", "pre_run_cell", "gradebook", "segedu.grading", "segedu.teaching.checks", "get_referrers",
    "get_objects", "f_back", "_getframe", "ptrace", "/proc/", "ctypes", "setprofile", "settrace", "__import__",
    "torchvision.ops", "torchmetrics", "sklearn.metrics", "skimage.metrics", "monai", "segmentation_models",
)  # fmt: skip


def parse(source: str) -> ast.Module | None:
    """Parse a cell without its magics and shell lines; None if Python cannot parse it."""
    return _parsed(source)[0]


def parseable_source(source: str) -> str | None:
    """Return the cell's source, with magics and shell lines replaced if necessary; None if Python cannot parse it."""
    return _parsed(source)[1]


_SHADOWED_BUILTINS = {"torch": "float, int, max, min, range and sum", "numpy": "abs, max, min, round and sum"}


@lru_cache(maxsize=1)  # several functions analyse the same cell in a row
def _parsed(source: str) -> tuple[ast.Module | None, str | None]:
    for text in (source, _without_magics(source)):
        try:
            return _tree(text), text
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None, None


def _without_magics(source: str) -> str:
    """Replace magics and shell lines by `pass` and their results by None; line numbers stay the same."""
    text = _NAMED_MAGIC.sub(lambda match: f"{match[1]}None" + "\n" * match[0].count("\n"), source)
    return _MAGIC.sub(lambda match: f"{match[1]}pass" + "\n" * match[0].count("\n"), text)


def _tree(text: str) -> ast.Module:
    """Parse with retries: CPython counts the recursion depth of all threads' parsers together (python/cpython#106905).

    Valid source may therefore raise SystemError, "AST constructor recursion depth mismatch".
    """
    for _ in range(5):
        with _PARSER:
            try:
                return ast.parse(text)
            except SystemError:
                continue
    raise ValueError("Python's parser failed repeatedly")


def binds(source: str, name: str) -> bool:
    """Whether a cell defines, assigns or imports a top-level name; a stub does not count."""
    if not mentions(source, name):
        return False
    tree = parse(source)
    if tree is None:
        return re.search(rf"^(?:async\s+)?def\s+{re.escape(name)}\s*\(", source, re.MULTILINE) is not None
    return any(name in bound_names(node) and not is_stub(node) for node in statements(source))


def mentions(source: str, name: str) -> bool:
    """Whether a name may occur in a cell, without parsing it; a cheap pre-check.

    Python normalises other letters, such as full-width ones, to ASCII, so a non-ASCII cell may contain any name.
    """
    return name in source or not source.isascii()


def statements(source: str) -> Iterator[ast.stmt]:
    """Yield the statements of a cell's own scope in order, including those inside `if`, `try`, `with` and loops."""
    tree = parse(source)
    stack = list(reversed(tree.body)) if tree else []
    while stack:
        node = stack.pop()
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, DEFINITIONS):
            children = [
                child
                for field in _BODY_FIELDS
                for child in getattr(node, field, None) or ()
                if isinstance(child, ast.AST)
            ]
            stack += reversed(children)


def bound_names(node: ast.stmt) -> set[str]:
    """Return the names that a statement itself binds, without those in the body of an `if` or a loop."""
    if isinstance(node, DEFINITIONS):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    targets = [*getattr(node, "targets", ()), getattr(node, "target", None)]
    targets += [item.optional_vars for item in getattr(node, "items", ())]
    names = {target.id for target in targets if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)}
    for target in targets:
        if isinstance(target, ast.Tuple | ast.List | ast.Starred):
            parts = [part for part in ast.walk(target) if isinstance(part, ast.Name)]
            names |= {part.id for part in parts if isinstance(part.ctx, ast.Store)}
    return names


def mutated_names(node: ast.stmt) -> set[str]:
    """Return the names whose value a statement changes in part, as in `table[0] = 1` and `table.top = 1`."""
    if not isinstance(node, ASSIGNING):
        return set()
    names = set()
    for target in [*getattr(node, "targets", ()), getattr(node, "target", None)]:
        owner = target
        while isinstance(owner, ast.Subscript | ast.Attribute):
            owner = owner.value
        if owner is not target and isinstance(owner, ast.Name):
            names.add(owner.id)
    return names


def star_imports(source: str) -> list[str]:
    """Return the modules from which a cell imports all names, in order, without relative imports.

    >>> star_imports("from torch import *")
    ['torch']
    """
    if "*" not in source:
        return []
    nodes = [node for node in statements(source) if isinstance(node, ast.ImportFrom) and not node.level]
    return [node.module for node in nodes if node.module and any(alias.name == "*" for alias in node.names)]


def bound_names_within(node: ast.stmt) -> set[str]:
    """Return the names that a statement and the statements inside it bind."""
    if isinstance(node, DEFINITIONS):
        return {node.name}
    return {name for part in ast.walk(node) if isinstance(part, ast.stmt) for name in bound_names(part)}


def is_stub(node: ast.stmt) -> bool:
    """Whether a function's body is only a docstring and `raise NotImplementedError`, `pass` or `...`."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    body = [part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
    return all(isinstance(part, ast.Pass) or _raises_not_implemented(part) for part in body)


def _raises_not_implemented(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Raise) or node.exc is None:
        return False
    error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    return isinstance(error, ast.Name) and error.id == "NotImplementedError"


def is_only_stub(source: str) -> bool:
    """Whether a cell contains only stubs and imports; their docstrings may have been edited."""
    tree = parse(source)
    nodes = [node for node in (tree.body if tree else []) if not isinstance(node, ast.Import | ast.ImportFrom)]
    return bool(nodes) and all(is_stub(node) for node in nodes)


def same_text(a: str, b: str) -> bool:
    """Whether two sources are equal up to trailing spaces and surrounding blank lines."""
    return plain_text(a) == plain_text(b)


def plain_text(source: str) -> str:
    """Remove trailing spaces and surrounding blank lines."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def is_empty(source: str) -> bool:
    """Whether a cell contains only comments and blank lines."""
    return all(not line.strip() or line.strip().startswith("#") for line in source.splitlines())


def strip_markers(source: str) -> str:
    """Blank the comments that control nbval; line numbers stay the same."""
    return _NBVAL.sub(r"\1#", source)


def imports_of(source: str, excluded_names: Iterable[str] = ()) -> list[str]:
    """Return the source of a cell's top-level imports, without those that bind an excluded name."""
    tree = parse(source)
    nodes = [node for node in (tree.body if tree else []) if isinstance(node, ast.Import | ast.ImportFrom)]
    return [ast.unparse(node) for node in nodes if not bound_names(node) & set(excluded_names)]


def calls_check(source: str, name: str) -> bool:
    """Whether a cell calls `check` with the function of this name, as in `check(box_iou)`."""
    if not (mentions(source, name) and mentions(source, "check")):
        return False
    tree = parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)] if tree else []
    return any(
        isinstance(call.func, ast.Name)
        and call.func.id == "check"
        and any(isinstance(part, ast.Name) and part.id == name for part in call.args[:1])
        for call in calls
    )


def oddities(source: str, hides: Iterable[str]) -> list[str]:
    """Return notes for the instructor on suspicious code: imports that the lab hides, shell lines, grader internals."""
    imported = _imported_names(source)
    phrases = [f"imports {name}, which this lab hides" for name in hides if name in imported]
    phrases += [f"mentions {word}" for word in _SUSPICIOUS_WORDS if word in source]
    phrases += [
        f"imports everything from {module}, which replaces Python's own {_SHADOWED_BUILTINS[module]}"
        for module in star_imports(source)
        if module in _SHADOWED_BUILTINS
    ]
    if re.search(r"^[ \t]*!|^[ \t]*%%?(?:bash|sh|pip|conda|system|sx|load_ext)\b", source, re.MULTILINE):
        phrases.append("runs a shell command or a magic")
    return phrases


def _imported_names(source: str) -> set[str]:
    """Return the full names of the imported modules and of what is imported from them."""
    tree = parse(source)
    names: set[str] = set()
    for node in ast.walk(tree) if tree else []:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names
