"""The definitions that an exercise's reference depends on, and copies of them with one definition changed."""

from __future__ import annotations
import __future__

import ast
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from segedu.teaching.checks.exercise import Exercise
from segedu.teaching.mutants.mutation import Mutant, ends_in_raise, mutants_of, replaced, sites

LIBRARY = "segedu."
# Not part of an answer: the checks, and code for exported programs and for boxes of extreme sizes. No exercise has such
# boxes; the tests of the library do.
EXCLUDED = ("segedu.teaching.checks", "segedu.validation", "segedu.ops.box_scale")
# Readers refuse bad input and convert the rest to one dtype. No exercise has the other kinds of array that they accept;
# the tests of the library do. They are mutated only if a case makes them raise.
READER = re.compile(
    r"_?(checked|check|as)_\w+|_?(integers|integer_array|floats|flags|full_precision|label_pair|mask_pair)"
)

Key = tuple[str, str]
FLAGS = __future__.annotations.compiler_flag  # which every module of ours uses


class Trace:
    """The lines of our code that run while the reference answers.

    Attributes:
        lines: `(file, line)` of all lines that ran.
        fired: `(file, line)` of all lines that raised.
    """

    def __init__(self) -> None:
        self.lines: set[tuple[str, int]] = set()
        self.fired: set[tuple[str, int]] = set()

    def __call__(self, frame: Any, event: str, arg: Any) -> Any:
        """Record one event; for `sys.settrace`."""
        file = frame.f_code.co_filename
        if not frame.f_globals.get("__name__", "").startswith(LIBRARY):
            return None
        if event == "exception":
            self.fired.add((file, frame.f_lineno))
        self.lines.add((file, frame.f_lineno))
        return self


class Units:
    """The definitions in segedu that an exercise's reference depends on, reached by name.

    They are functions, classes and constants of `segedu`; code of torch, numpy or scipy is not mutated.

    Args:
        exercise: whose reference is mutated.
        trace: of the reference on the exercise's cases.

    Attributes:
        unused: defaults of helpers that no call relies on; they are not mutated.
    """

    def __init__(self, exercise: Exercise, trace: Trace) -> None:
        self.trace = trace
        self.trees: dict[Key, ast.stmt] = {}
        self._modules: dict[str, dict[str, ast.stmt]] = {}
        self.unused: set[ast.AST] = set()
        self.root = (exercise.reference.__module__, exercise.reference.__name__)
        self._reach(self.root)

    def _definitions(self, module: str) -> dict[str, ast.stmt]:
        if module not in self._modules:
            tree = ast.parse(Path(sys.modules[module].__file__).read_text())
            definitions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
            values = (n for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name))
            definitions |= {n.targets[0].id: n for n in values}
            self._modules[module] = definitions
        return self._modules[module]

    def _reach(self, key: Key) -> None:
        module, name = key
        if key in self.trees or not module.startswith(LIBRARY) or module.startswith(EXCLUDED):
            return
        tree = self._definitions(module).get(name)
        if tree is None:
            return
        self.trees[key] = tree
        namespace = vars(sys.modules[module])
        for _, node, _ in sites(tree, lambda node: self.skips(node, module)):
            value = None
            if isinstance(node, ast.Name) and node.id in namespace:
                value, name = namespace[node.id], node.id
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                holder = namespace.get(node.value.id)
                value, name = getattr(holder, node.attr, None) if isinstance(holder, ModuleType) else None, node.attr
            if value is None:
                continue
            home = getattr(value, "__module__", None) or module
            self._reach((home, getattr(value, "__name__", name)))
        self.trees[key] = self.trees.pop(key)  # after all that it needs, so that base classes run first

    def skips(self, node: ast.AST, module: str) -> bool:
        """Whether a node of a definition is not mutated: see the docstring of `segedu.teaching.mutants.mutation`.

        Returns:
            True for a statement that no case runs, for a guard that no case makes raise, for `x = reader(x)`, and
            for the `unused` defaults.
        """
        file = sys.modules[module].__file__
        if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            head = node.body[0].lineno - 1 if hasattr(node, "body") else node.end_lineno
            if not any((file, line) in self.trace.lines for line in range(node.lineno, max(node.lineno, head) + 1)):
                return node not in self.trees.values()  # a module's assignment ran when it was imported
        if node in self.unused:
            return True
        if ends_in_raise(node) or _reads(node) or self._only_checks(node, module):
            return not self._fires(node, file)
        return False

    def _only_checks(self, node: ast.AST, module: str) -> bool:
        """A call, as a statement, of a check, or of a function of ours that returns nothing and raises somewhere."""
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
            return False
        function = getattr(sys.modules[module], getattr(node.value.func, "id", ""), None)
        home = getattr(function, "__module__", "") or ""
        tree = self._definitions(home).get(function.__name__) if home.startswith(LIBRARY) else None
        if not isinstance(tree, ast.FunctionDef):
            return False
        nodes = list(ast.walk(tree))
        answers = any(isinstance(n, ast.Return) and n.value for n in nodes)
        raises = any(isinstance(n, ast.Raise) for n in nodes)
        return bool(READER.fullmatch(function.__name__)) or (raises and not answers)

    def _fires(self, node: ast.AST, file: str) -> bool:
        return any((file, line) in self.trace.fired for line in range(node.lineno, node.end_lineno + 1))

    def spoilt_defaults(self) -> dict[ast.AST, Mutant]:
        """For each default of a helper, a mutant without it, which survives if no call relies on the default.

        The reference's own defaults are not included: the exercise offers them to the student.
        """
        mutants = {}
        for key, tree in self.trees.items():
            for path, node, parents in sites(tree, lambda node, m=key[0]: self.skips(node, m)):
                if parents and isinstance(parents[-1], ast.arguments) and isinstance(node, ast.Constant):
                    if key != self.root:
                        name = f"{key[1]}: default {len(mutants)}"
                        mutants[node] = Mutant(name, key, replaced(tree, path, ast.Constant(...)), node.lineno)
        return mutants

    def mutants(self) -> list[Mutant]:
        """All mutants of all definitions except the readers; the reference's own first."""
        mutants = []
        for key, tree in reversed(self.trees.items()):
            module, name = key
            if READER.fullmatch(name) and not self._fires(tree, sys.modules[module].__file__):
                continue
            new = mutants_of(key, tree, lambda node, m=module: self.skips(node, m))
            # an exercise and the library's function that it calls may bear one name
            if key != self.root and sum(name == other for _, other in self.trees) > 1:
                new = [replace(mutant, name=f"{module.rpartition('.')[2]}.{mutant.name}") for mutant in new]
            mutants += new
        return mutants

    def build(self, mutant: Mutant | None) -> Callable:
        """Compile the definitions in copies of their modules' namespaces, one of them mutated; return the reference."""
        spaces = {module: dict(vars(sys.modules[module])) for module, _ in self.trees}
        for key, tree in self.trees.items():
            module, name = key
            original = spaces[module].get(name)
            _run(mutant.tree if mutant and mutant.unit == key else tree, spaces[module])
            if not isinstance(tree, ast.Assign):
                for space in spaces.values():
                    space.update({n: spaces[module][name] for n, value in space.items() if value is original})
        for space in spaces.values():
            for name, value in space.items():
                if isinstance(value, ModuleType) and value.__name__ in spaces:
                    space[name] = ModuleType(value.__name__)
                    space[name].__dict__.update(spaces[value.__name__])
        return spaces[self.root[0]][self.root[1]]


def _reads(node: ast.AST) -> bool:
    """Whether a statement is `x = reader(x, ...)`; any other target would be part of the answer."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
        return False
    arguments = {ast.unparse(a) for a in node.value.args}
    targets = [n.id for n in ast.walk(node.targets[0]) if isinstance(n, ast.Name)]
    return bool(READER.fullmatch(getattr(node.value.func, "id", ""))) and arguments.issuperset(targets)


def _run(tree: ast.stmt, namespace: dict) -> None:
    """Run a definition in a namespace, which then contains it."""
    code = compile(ast.Module([tree], []), "<mutant>", "exec", flags=FLAGS, dont_inherit=True)
    exec(code, namespace)
