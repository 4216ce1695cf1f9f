"""Functions of other libraries that a lab asks students to write: hidden while grading, and while a check runs.

A lab names them in `FORBIDDEN` of its package, such as `torchvision.ops.box_iou`. In grading they are replaced before a
student's first cell runs, so every way to the name (an import, `getattr`, `sys.modules`, `__import__`) ends at a stub
that raises, and so does every other name of the same function, such as that in `torchvision.models.detection.fcos`.
A check in a student's notebook replaces them, and what the course's library hides, for as long as the student's
function runs, so that an answer that passes its check does not fail in grading.

This is a policy and not a wall. The other library's files stay readable, and a student may copy them out.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any


class NotHere(RuntimeError):
    """A function was called that the lab asks students to write."""


def stub(name: str) -> Callable:
    """A function that refuses to run.

    Args:
        name: dotted, for the message.

    Returns:
        The stub.
    """

    def missing(*_: Any, **__: Any) -> None:
        raise NotHere(f"{name} is not available in this lab, which asks you to write it yourself")

    missing.__name__ = missing.__qualname__ = name.rsplit(".", 1)[-1]
    return missing


def _owner(name: str) -> Any:
    """What a dotted name is an attribute of, if that is imported: a module, or an object of one."""
    path = name.rpartition(".")[0]
    if path in sys.modules:
        return sys.modules[path]
    above, _, inner = path.rpartition(".")  # such as torch.ops.torchvision
    return vars(sys.modules[above]).get(inner) if above in sys.modules else None


def _bindings(hidden: dict[int, str], *more: dict) -> list[tuple[dict, str, Any]]:
    """Every binding of the hidden objects: in all modules that are loaded, whatever name a module gives them.

    Args:
        hidden: identity -> dotted name.
        more: other dictionaries of names to search, such as a notebook's.

    Returns:
        (dictionary, key, the object).
    """
    owners = [_owner(name) for name in hidden.values()]  # of which torch.ops.torchvision is not in sys.modules
    spaces = [getattr(module, "__dict__", None) for module in [*sys.modules.values(), *owners]]
    found = []
    for space in {id(space): space for space in [*spaces, *more] if isinstance(space, dict)}.values():
        found += [(space, key, value) for key, value in list(space.items()) if id(value) in hidden]
    return found


def _operator_classes(names: Iterable[str]) -> list[tuple[type, str, str]]:
    """(class, attribute, dotted name) of operators of torch: a second namespace object makes each of them anew."""
    owners = [(name, _owner(name)) for name in names]
    return [
        (type(owner), name.rpartition(".")[2], name)
        for name, owner in owners
        if owner is not None and type(owner) is not types.ModuleType and type(owner).__module__ == "torch._ops"
    ]


def _replace(names: Sequence[str], *more: dict) -> list[tuple[Callable, Any, str]]:
    """Put stubs wherever hidden objects are bound.

    Args:
        names: dotted.
        more: as of `_bindings`.

    Returns:
        (stub, what it stands for, dotted name).
    """
    hidden = _objects(names)
    stubs = {key: stub(name) for key, name in hidden.items()}
    replaced = {}
    for space, key, value in _bindings(hidden, *more):
        space[key] = stubs[id(value)]
        replaced[id(value)] = (stubs[id(value)], value, hidden[id(value)])
    for kind, last, name in _operator_classes(names):
        setattr(kind, last, stub(name))
    return list(replaced.values())


def _put_back(names: Sequence[str], replaced: list[tuple[Callable, Any, str]], *more: dict) -> None:
    """Undo `_replace`, also in modules that were imported since and took a stub for the function."""
    values = {id(of): value for of, value, _ in replaced}
    for space, key, of in _bindings({id(of): name for of, _, name in replaced}, *more):
        space[key] = values[id(of)]
    for kind, last, _ in _operator_classes(names):
        if last in vars(kind):
            delattr(kind, last)


def hide(names: Iterable[str]) -> None:
    """Replace functions for as long as this process lives; those of modules that come later are replaced then.

    Args:
        names: dotted.
    """
    names = list(names)
    _replace(names)
    sys.meta_path.insert(0, _Later(names, []))


class _Later(importlib.abc.MetaPathFinder):
    """Hides functions of modules when they are imported."""

    def __init__(self, names: Sequence[str], replaced: list[tuple[Callable, Any, str]]) -> None:
        self.names, self.replaced, self.searching = names, replaced, set()

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """The spec that the other finders give, with a loader that hides the names after it has run."""
        names = [name for name in self.names if name.rpartition(".")[0] == fullname or _is_in(fullname, name)]
        if not names or fullname in self.searching:
            return None
        self.searching.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.searching.discard(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                self.replaced += _replace(names)

            spec.loader.exec_module = exec_module
        return spec


@contextlib.contextmanager
def without(names: Iterable[str], function: Callable) -> Iterator[None]:
    """Replace functions for as long as the block runs, also under the names by which a student's cells imported them.

    Args:
        names: dotted, of functions, or of modules of the course's library: all that those define.
        function: the student's; its notebook's names are looked through.

    Yields:
        Nothing.
    """
    notebook = getattr(function, "__globals__", {})
    if str(notebook.get("__name__", "")).partition(".")[0] == "segedu":  # one of ours, which the judge may run
        yield
        return
    names = list(names)
    replaced = _replace(names, notebook)
    later = _Later(names, replaced)
    sys.meta_path.insert(0, later)
    try:
        yield
    finally:
        sys.meta_path.remove(later)
        _put_back(names, replaced, notebook)


def _objects(names: Iterable[str]) -> dict[int, str]:
    """Identity -> dotted name of each function that is hidden and imported."""
    found: dict[int, str] = {}
    for name in names:
        value = getattr(_owner(name), name.rpartition(".")[2], None)
        if callable(value) and getattr(value, "__module__", None) != __name__:  # not a stub, which stays
            found[id(value)] = name
        for path, module in list(sys.modules.items()):
            for key, value in list(vars(module).items()) if _is_in(path, name) and module else ():
                if callable(value) and _is_in(getattr(value, "__module__", None), name) and not _is_error(value):
                    found[id(value)] = f"{path}.{key}"
    return found


def _is_in(path: str | None, name: str) -> bool:
    """Is a module, given by its dotted name, the one that is named or within it?"""
    return isinstance(path, str) and (path == name or path.startswith(name + "."))


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)
