"""The definitions that an exercise's reference rests on, and copies of them with one changed."""

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
# Not part of an answer: the check itself, and what serves exported programs and boxes of extreme sizes. No exercise
# hands in such boxes; the tests of the library do.
APART = ("segedu.teaching.checks", "segedu.validation", "segedu.ops.box_scale")
# Readers refuse bad input and hand the rest on in one dtype. No exercise hands in the other kinds of array that they
# take; the tests of the library do. They are mutated only where a case makes them raise.
READER = re.compile(
    r"_?(checked|check|as)_\w+|_?(integers|integer_array|floats|flags|full_precision|label_pair|mask_pair)"
)

Key = tuple[str, str]
FLAGS = __future__.annotations.compiler_flag  # as every module of ours has it


class Trace:
    """What runs of our code while the reference answers.

    Attributes:
        lines: `(file, line)` of all that ran.
        fired: `(file, line)` of all that raised.
    """

    def __init__(self) -> None:
        self.lines: set[tuple[str, int]] = set()
        self.fired: set[tuple[str, int]] = set()

    def __call__(self, frame: Any, event: str, arg: Any) -> Any:
        """For `sys.settrace`."""
        file = frame.f_code.co_filename
        if not frame.f_globals.get("__name__", "").startswith(LIBRARY):
            return None
        if event == "exception":
            self.fired.add((file, frame.f_lineno))
        self.lines.add((file, frame.f_lineno))
        return self


class Units:
    """The definitions of the library that an exercise's reference rests on, reached by name.

    Functions, classes and constants of `segedu` itself; what the reference takes from torch, numpy or scipy is
    not ours to change.

    Args:
        exercise: whose reference is mutated.
        trace: of the reference on the exercise's cases.

    Attributes:
        unused: defaults of helpers that no call relies on; they are left as they are.
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
            found = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
            values = (n for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name))
            found |= {n.targets[0].id: n for n in values}
            self._modules[module] = found
        return self._modules[module]

    def _reach(self, key: Key) -> None:
        module, name = key
        if key in self.trees or not module.startswith(LIBRARY) or module.startswith(APART):
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
        """Whether a node is left as it is: see the head of `segedu.teaching.mutants.mutation`.

        Args:
            node: of a definition.
            module: where it stands.

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
        """For each default of a helper, a mutant that has none there: it survives where no call relies on it.

        The reference's own defaults are left out: the exercise offers them to the student.
        """
        found = {}
        for key, tree in self.trees.items():
            for path, node, parents in sites(tree, lambda node, m=key[0]: self.skips(node, m)):
                if parents and isinstance(parents[-1], ast.arguments) and isinstance(node, ast.Constant):
                    if key != self.root:
                        name = f"{key[1]}: default {len(found)}"
                        found[node] = Mutant(name, key, replaced(tree, path, ast.Constant(...)), node.lineno)
        return found

    def mutants(self) -> list[Mutant]:
        """All mutants of all definitions but the readers; the reference's own first."""
        found = []
        for key, tree in reversed(self.trees.items()):
            module, name = key
            if READER.fullmatch(name) and not self._fires(tree, sys.modules[module].__file__):
                continue
            some = mutants_of(key, tree, lambda node, m=module: self.skips(node, m))
            # an exercise and the library's function that it calls may bear one name
            if key != self.root and sum(name == other for _, other in self.trees) > 1:
                some = [replace(mutant, name=f"{module.rpartition('.')[2]}.{mutant.name}") for mutant in some]
            found += some
        return found

    def build(self, mutant: Mutant | None) -> Callable:
        """Compile the definitions anew, one of them changed, in copies of their modules' namespaces.

        Args:
            mutant: which change; None for none.

        Returns:
            The reference as the mutant has it. The modules themselves are not touched.
        """
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
    """`x = reader(x, ...)`, whichever names; other names than its arguments would be answers of the function."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
        return False
    given = {ast.unparse(a) for a in node.value.args}
    targets = [n.id for n in ast.walk(node.targets[0]) if isinstance(n, ast.Name)]
    return bool(READER.fullmatch(getattr(node.value.func, "id", ""))) and given.issuperset(targets)


def _run(tree: ast.stmt, namespace: dict) -> None:
    """Run a definition in a namespace, which holds it then."""
    code = compile(ast.Module([tree], []), "<mutant>", "exec", flags=FLAGS, dont_inherit=True)
    exec(code, namespace)
