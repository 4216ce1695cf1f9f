"""Find names that an answer uses but that no earlier executed cell defines, and the statements that define them.

The order of the cells need not be the order in which the student ran them: a function may use what only a later cell
defines, or one of the lab's cells that grading skips. The student's own check passed with these names defined, so
the defining statements are found and run first.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from segedu.grading.judging import cell_definitions, student_code

MAX_NAMES = 100
_PARSER_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Cell:
    """One cell of the notebook.

    Attributes:
        position: counted from 1.
        source: what the student's kernel may have run.
        executed: what grading runs: all of the source, a part of it, or nothing.
    """

    position: int
    source: str
    executed: str

    @cached_property
    def executed_names(self) -> set[str]:
        """The top-level names that the executed part binds."""
        return _bound_names(self.executed)

    @cached_property
    def kernel_names(self) -> set[str]:
        """The top-level names that the cell may have bound in the student's kernel."""
        return self.executed_names if self.executed == self.source else _bound_names(self.source)

    @cached_property
    def executed_cell(self) -> Cell:
        """The executed part as a cell of its own."""
        return self if self.executed == self.source else Cell(self.position, self.executed, self.executed)

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        """Map each name to the indices of the top-level statements that bind it or change its value."""
        statements: dict[str, list[int]] = {}
        for index, node in enumerate(self._nodes):
            for name in student_code.bound_names_within(node):
                statements.setdefault(name, []).append(index)
            for name in student_code.mutated_names(node) & statements.keys():
                statements[name].append(index)
        return statements

    @cached_property
    def _nodes(self) -> list[ast.stmt]:
        tree = student_code.parse(self.source)
        nodes = [node for node in (tree.body if tree else []) if not student_code.is_stub(node)]
        return [node for node in nodes if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")]

    def statements(self, name: str) -> str:
        """Return the top-level statements that bind a name or change its value."""
        try:
            return "\n".join(ast.unparse(self._nodes[index]) for index in self._by_name.get(name, ()))
        except (RecursionError, ValueError):
            return ""

    @cached_property
    def star_modules(self) -> list[str]:
        """The modules that the cell may have star-imported in the student's kernel."""
        return student_code.star_imports(self.source)

    def binds(self, name: str) -> bool:
        """Whether the executed part binds a name; most cells need not be parsed to find out."""
        return student_code.mentions(self.executed, name) and name in self.executed_names

    def binds_in_kernel(self, name: str) -> bool:
        """Whether the cell may have bound a name in the student's kernel."""
        return student_code.mentions(self.source, name) and name in self.kernel_names


def _bound_names(source: str) -> set[str]:
    return {
        name
        for node in student_code.statements(source)
        if not student_code.is_stub(node)
        for name in student_code.bound_names(node)
    }


def names_read(source: str) -> set[str]:
    """Return the global names that a piece of code reads, including inside its functions; none if it cannot be parsed.

    >>> sorted(names_read("def f(x): return clip(x, TOP)"))
    ['TOP', 'clip']
    """
    text = student_code.parseable_source(source)
    if text is None:
        return set()
    try:
        return set(_global_reads(symtable.symtable(text, "cell", "exec")))
    except _PARSER_ERRORS:
        return set()


def _global_reads(top: symtable.SymbolTable) -> Iterator[str]:
    stack = [top]
    while stack:
        table = stack.pop()
        is_module = table.get_type() == "module"
        # `table.get_symbols()` walks through all inner scopes for each symbol: quadratic time
        for name, flags in table._table.symbols.items():
            symbol = symtable.Symbol(name, flags)
            if symbol.is_referenced() and (is_module or symbol.is_global()):
                yield name
        stack += table.get_children()


class MissingNames:
    """The names that one answer needs and that no executed cell up to the answer binds.

    Args:
        cells: of the notebook, in order.
        available: names that the lab's own imports bind.
        position: of the answer.
    """

    def __init__(self, cells: Sequence[Cell], available: set[str], position: int) -> None:
        self.cells, self.position = cells, position
        # a star import above the answer may bind the name at run time, and must not be overridden
        self.has_star_import = any(cell.executed_cell.star_modules for cell in cells if cell.position <= position)
        self.available = available | set(dir(builtins))
        self.visited: set[str] = set()
        self.definitions: list[tuple[str, int]] = []  # (name, position of the cell that defines it)
        self.sources: list[str] = []
        answer = next(cell for cell in cells if cell.position == position)
        self._follow(answer.executed, answer.executed_names)

    def _follow(self, source: str, bound: set[str]) -> None:
        for name in sorted(names_read(source) - bound - self.available - self.visited):
            if name in self.visited or len(self.visited) >= MAX_NAMES:
                continue
            self.visited.add(name)
            earlier = [cell for cell in self.cells if cell.position <= self.position and cell.binds(name)]
            if earlier:
                self._follow(earlier[-1].executed_cell.statements(name), set())
                continue
            cells = [cell for cell in self.cells if cell.binds_in_kernel(name)]
            nearest = min(
                cells, key=lambda c: (c.position > self.position, abs(c.position - self.position)), default=None
            )
            if nearest:
                part = nearest.statements(name)
                self._follow(part, set())  # its own dependencies come first
                self.definitions.append((name, nearest.position))
                self.sources.append(
                    cell_definitions.if_undefined(name, part) if self.has_star_import and part else part
                )
            else:
                modules = [
                    module for cell in self.cells if cell.position > self.position for module in cell.star_modules
                ]
                self.sources += [f"from {module} import {name}" for module in dict.fromkeys(modules)]

    @property
    def source(self) -> str:
        """Code that defines the missing names, or ""; a statement that fails does not stop the others."""
        return cell_definitions.each_in_try(dict.fromkeys(part for part in self.sources if part))
