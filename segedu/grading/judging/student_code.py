"""Read student code as text: which names does a cell define, is it still the stub, what does it mention?

Nothing here runs a line of it. Source that Python cannot parse is no error: the cell will say so when it runs.
"""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache

_PARSER = threading.Lock()
# a magic or a shell line, with the lines that a backslash at its end adds to it; and one whose result gets a name
_MAGIC = re.compile(r"^([ \t]*)(?:[%!?](?:.*\\\n)*.*|\S.*\?)[ \t]*$", re.MULTILINE)
_NAMED_MAGIC = re.compile(r"^([ \t]*[\w.,\[\] \t]+=[ \t]*)[%!](?:.*\\\n)*.*$", re.MULTILINE)
_NBVAL = re.compile(r"^([ \t]*)#[ \t]*(?:NBVAL_[A-Z_]+|PYTEST_VALIDATE_IGNORE_OUTPUT)[ \t]*$", re.MULTILINE)
_INSIDE = ("body", "orelse", "handlers", "finalbody", "cases")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
ASSIGNING = (ast.Assign, ast.AnnAssign, ast.AugAssign)
# words that no lab needs, and other libraries' answers; each earns a note for a person to look at, and costs nothing
_ODD = (
    "ast_transformers", "input_transformers", "showtraceback", "set_custom_exc", "shell_send", "execute_reply",
    "do_execute", "run_cell", "pre_run_cell", "gradebook", "segedu.grading", "segedu.teaching.checks", "get_referrers",
    "get_objects", "f_back", "_getframe", "ptrace", "/proc/", "ctypes", "setprofile", "settrace", "__import__",
    "torchvision.ops", "torchmetrics", "sklearn.metrics", "skimage.metrics", "monai", "segmentation_models",
)  # fmt: skip


def parse(source: str) -> ast.Module | None:
    """Parse a cell, magics and shell lines aside.

    Args:
        source: of the cell.

    Returns:
        The tree, or None where Python cannot read it.
    """
    return _parsed(source)[0]


def readable(source: str) -> str | None:
    """A cell as Python can read it, magics and shell lines replaced where that is needed.

    Args:
        source: of the cell.

    Returns:
        The text, or None where Python cannot read it.
    """
    return _parsed(source)[1]


_REPLACED = {"torch": "float, int, max, min, range and sum", "numpy": "abs, max, min, round and sum"}


@lru_cache(maxsize=1)  # several questions are asked of one cell in a row
def _parsed(source: str) -> tuple[ast.Module | None, str | None]:
    for text in (source, _without_magics(source)):
        try:
            return _tree(text), text
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None, None


def _without_magics(source: str) -> str:
    """The cell with `pass` in place of magics and shell lines, None in place of their results; line numbers stay."""
    text = _NAMED_MAGIC.sub(lambda found: f"{found[1]}None" + "\n" * found[0].count("\n"), source)
    return _MAGIC.sub(lambda found: f"{found[1]}pass" + "\n" * found[0].count("\n"), text)


def _tree(text: str) -> ast.Module:
    """Parse; CPython counts the depth of all threads' parsers in one place, and may then mistake one for broken.

    That is python/cpython#106905: a SystemError, "AST constructor recursion depth mismatch", for source that is sound.
    """
    for _ in range(5):
        with _PARSER:
            try:
                return ast.parse(text)
            except SystemError:
                continue
    raise ValueError("Python's parser failed again and again")


def binds(source: str, name: str) -> bool:
    """Does a cell give a top-level name a value other than a stub?

    Args:
        source: of the cell.
        name: for example `box_iou`.

    Returns:
        True for a definition, an assignment or an import of that name.
    """
    if not mentions(source, name):
        return False
    tree = parse(source)
    if tree is None:
        return re.search(rf"^(?:async\s+)?def\s+{re.escape(name)}\s*\(", source, re.MULTILINE) is not None
    return any(name in bound(node) and not is_stub(node) for node in statements(source))


def mentions(source: str, name: str) -> bool:
    """May a name stand in a cell? Python folds other letters, such as full-width ones, into plain ones.

    Args:
        source: of the cell.
        name: plain letters.

    Returns:
        False where it cannot, without parsing anything.
    """
    return name in source or not source.isascii()


def statements(source: str) -> Iterator[ast.stmt]:
    """The statements of a cell that its own scope runs: also those inside `if`, `try`, `with` and loops.

    Args:
        source: of the cell.

    Returns:
        Nodes, in order.
    """
    tree = parse(source)
    waiting = list(reversed(tree.body)) if tree else []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, DEFINITIONS):
            inner = [
                part for field in _INSIDE for part in getattr(node, field, None) or () if isinstance(part, ast.AST)
            ]
            waiting += reversed(inner)


def bound(node: ast.stmt) -> set[str]:
    """The names that a statement itself gives a value.

    Args:
        node: of the tree; what lies inside an `if` or a loop is not looked at.

    Returns:
        Names.
    """
    if isinstance(node, DEFINITIONS):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    targets = [*getattr(node, "targets", ()), getattr(node, "target", None)]
    targets += [item.optional_vars for item in getattr(node, "items", ())]
    found = {target.id for target in targets if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)}
    for target in targets:
        if isinstance(target, ast.Tuple | ast.List | ast.Starred):
            parts = [part for part in ast.walk(target) if isinstance(part, ast.Name)]
            found |= {part.id for part in parts if isinstance(part.ctx, ast.Store)}
    return found


def changed(node: ast.stmt) -> set[str]:
    """The names whose value a statement changes in part, such as `table` in `table[0] = 1` and `table.top = 1`.

    Args:
        node: of the tree.

    Returns:
        Names.
    """
    if not isinstance(node, ASSIGNING):
        return set()
    found = set()
    for target in [*getattr(node, "targets", ()), getattr(node, "target", None)]:
        owner = target
        while isinstance(owner, ast.Subscript | ast.Attribute):
            owner = owner.value
        if owner is not target and isinstance(owner, ast.Name):
            found.add(owner.id)
    return found


def star_imports(source: str) -> list[str]:
    """The modules from which a cell imports all names.

    Args:
        source: of the cell.

    Returns:
        Names of modules, in order; relative imports are left out.

    >>> star_imports("from torch import *")
    ['torch']
    """
    if "*" not in source:
        return []
    nodes = [node for node in statements(source) if isinstance(node, ast.ImportFrom) and not node.level]
    return [node.module for node in nodes if node.module and any(alias.name == "*" for alias in node.names)]


def bound_within(node: ast.stmt) -> set[str]:
    """The names that a statement and those inside it give a value.

    Args:
        node: of the tree.

    Returns:
        Names.
    """
    if isinstance(node, DEFINITIONS):
        return {node.name}
    return {name for part in ast.walk(node) if isinstance(part, ast.stmt) for name in bound(part)}


def is_stub(node: ast.stmt) -> bool:
    """A function whose body is nothing but a docstring and `raise NotImplementedError`, `pass` or `...`."""
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
    """A cell of stubs and imports and nothing else, its docstrings edited perhaps."""
    tree = parse(source)
    nodes = [node for node in (tree.body if tree else []) if not isinstance(node, ast.Import | ast.ImportFrom)]
    return bool(nodes) and all(is_stub(node) for node in nodes)


def same_text(a: str, b: str) -> bool:
    """Equal but for spaces at line ends and blank lines around."""
    return plain_text(a) == plain_text(b)


def plain_text(source: str) -> str:
    """The text without spaces at line ends and blank lines around."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def is_empty(source: str) -> bool:
    """Nothing but comments and blank lines."""
    return all(not line.strip() or line.strip().startswith("#") for line in source.splitlines())


def strip_markers(source: str) -> str:
    """Blank the comments that steer nbval; line numbers stay."""
    return _NBVAL.sub(r"\1#", source)


def imports_of(source: str, without: Iterable[str] = ()) -> list[str]:
    """The top-level imports of a cell, one statement each.

    Args:
        source: of the cell.
        without: names that no import may bind.

    Returns:
        Source of the statements.
    """
    tree = parse(source)
    nodes = [node for node in (tree.body if tree else []) if isinstance(node, ast.Import | ast.ImportFrom)]
    return [ast.unparse(node) for node in nodes if not bound(node) & set(without)]


def checks(source: str, name: str) -> bool:
    """Does a cell call `check` with a function of that name?

    Args:
        source: of the cell.
        name: of the exercise.

    Returns:
        True for `check(box_iou)`.
    """
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
    """Words for a person to look at: hidden modules that are imported, shell lines, the grader's insides.

    Args:
        source: of a cell.
        hides: modules that the lab hides.

    Returns:
        Phrases such as "mentions showtraceback".
    """
    imported = _imported(source)
    found = [f"imports {name}, which this lab hides" for name in hides if name in imported]
    found += [f"mentions {word}" for word in _ODD if word in source]
    found += [
        f"imports everything from {module}, which replaces Python's own {_REPLACED[module]}"
        for module in star_imports(source)
        if module in _REPLACED
    ]
    if re.search(r"^[ \t]*!|^[ \t]*%%?(?:bash|sh|pip|conda|system|sx|load_ext)\b", source, re.MULTILINE):
        found.append("runs a shell command or a magic")
    return found


def _imported(source: str) -> set[str]:
    """Modules, and what is imported from them, by their full names."""
    tree = parse(source)
    found: set[str] = set()
    for node in ast.walk(tree) if tree else []:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found
