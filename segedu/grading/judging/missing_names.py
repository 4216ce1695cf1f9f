"""Cells in the order in which they stand need not be the order in which a student ran them.

A function may use what only a later cell defines, or a cell of ours that grading leaves out. In the student's kernel
that was there, and their check saw it pass. So the statements that define such names are found, and run first.
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
_FAILURES = (SyntaxError, ValueError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Cell:
    """One cell of the notebook.

    Attributes:
        position: as a person counts.
        source: what the student's kernel may have run.
        runs: what runs here; a part of the source, all of it, or nothing.
    """

    position: int
    source: str
    runs: str

    @cached_property
    def given(self) -> set[str]:
        """The top-level names that get a value here."""
        return _given(self.runs)

    @cached_property
    def known(self) -> set[str]:
        """The top-level names that have got a value in the student's kernel."""
        return self.given if self.runs == self.source else _given(self.source)

    @cached_property
    def running(self) -> Cell:
        """The part that runs here, as a cell of its own."""
        return self if self.runs == self.source else Cell(self.position, self.runs, self.runs)

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        """Name -> the top-level statements of the source that give it a value or change that value, by number."""
        found: dict[str, list[int]] = {}
        for number, node in enumerate(self._nodes):
            for name in student_code.bound_within(node):
                found.setdefault(name, []).append(number)
            for name in student_code.changed(node) & found.keys():
                found[name].append(number)
        return found

    @cached_property
    def _nodes(self) -> list[ast.stmt]:
        tree = student_code.parse(self.source)
        nodes = [node for node in (tree.body if tree else []) if not student_code.is_stub(node)]
        return [node for node in nodes if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")]

    def statements(self, name: str) -> str:
        """The top-level statements of the source that give a name its value."""
        try:
            return "\n".join(ast.unparse(self._nodes[number]) for number in self._by_name.get(name, ()))
        except (RecursionError, ValueError):
            return ""

    @cached_property
    def stars(self) -> list[str]:
        """The modules whose names the student's kernel may have got all at once, by `from module import *`."""
        return student_code.star_imports(self.source)

    def gives(self, name: str) -> bool:
        """Does the name get a value here? Most cells need not be parsed to tell."""
        return student_code.mentions(self.runs, name) and name in self.given

    def knows(self, name: str) -> bool:
        """Has the name got a value in the student's kernel?"""
        return student_code.mentions(self.source, name) and name in self.known


def _given(source: str) -> set[str]:
    return {
        name
        for node in student_code.statements(source)
        if not student_code.is_stub(node)
        for name in student_code.bound(node)
    }


def names_read(source: str) -> set[str]:
    """The global names that a piece of code reads, in its functions too.

    Args:
        source: of a cell.

    Returns:
        Names; none where Python cannot read it.

    >>> sorted(names_read("def f(x): return clip(x, TOP)"))
    ['TOP', 'clip']
    """
    text = student_code.readable(source)
    if text is None:
        return set()
    try:
        return set(_read(symtable.symtable(text, "cell", "exec")))
    except _FAILURES:
        return set()


def _read(top: symtable.SymbolTable) -> Iterator[str]:
    waiting = [top]
    while waiting:
        table = waiting.pop()
        outside = table.get_type() == "module"
        # not `table.get_symbols()`: for each symbol that walks through all inner scopes, the square of their number
        for name, flags in table._table.symbols.items():
            symbol = symtable.Symbol(name, flags)
            if symbol.is_referenced() and (outside or symbol.is_global()):
                yield name
        waiting += table.get_children()


class Missing:
    """What one answer needs and no cell up to it gives.

    Args:
        cells: of the notebook, in order.
        there: names that our own imports give.
        home: position of the answer.
    """

    def __init__(self, cells: Sequence[Cell], there: set[str], home: int) -> None:
        self.cells, self.home = cells, home
        # a star import above the answer may give the name at run time: then nothing may take its place
        self.starred = any(cell.running.stars for cell in cells if cell.position <= home)
        self.there = there | set(dir(builtins))
        self.seen: set[str] = set()
        self.found: list[tuple[str, int]] = []  # name, position of the cell that defines it
        self.sources: list[str] = []
        answer = next(cell for cell in cells if cell.position == home)
        self._follow(answer.runs, answer.given)

    def _follow(self, source: str, given: set[str]) -> None:
        for name in sorted(names_read(source) - given - self.there - self.seen):
            if name in self.seen or len(self.seen) >= MAX_NAMES:
                continue
            self.seen.add(name)
            before = [cell for cell in self.cells if cell.position <= self.home and cell.gives(name)]
            if before:
                self._follow(before[-1].running.statements(name), set())
                continue
            cells = [cell for cell in self.cells if cell.knows(name)]
            nearest = min(cells, key=lambda c: (c.position > self.home, abs(c.position - self.home)), default=None)
            if nearest:
                part = nearest.statements(name)
                self._follow(part, set())  # what it needs itself comes first
                self.found.append((name, nearest.position))
                self.sources.append(cell_definitions.unless_there(name, part) if self.starred and part else part)
            else:
                below = [module for cell in self.cells if cell.position > self.home for module in cell.stars]
                self.sources += [f"from {module} import {name}" for module in dict.fromkeys(below)]

    @property
    def source(self) -> str:
        """Code that defines what is missing, or ""; a statement that fails does not stop the others."""
        return cell_definitions.tried(dict.fromkeys(part for part in self.sources if part))
