"""Hide functions of other libraries that students have to write themselves, in grading and while a check runs.

A lab lists them in `FORBIDDEN` of its package, such as `torchvision.ops.box_iou`. Grading replaces them before a
student's first cell runs, so every access to the name (an import, `getattr`, `sys.modules`, `__import__`) returns a
stub that raises an error, and so does every other name of the same function, such as the one in
`torchvision.models.detection.fcos`. A check in a student's notebook replaces them, and the hidden modules of segedu,
while the student's function runs, so that an answer that passes its check does not fail in grading.

This is a policy and not a security boundary. The other library's files stay readable, and a student may copy them.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any


class NotAvailableError(RuntimeError):
    """Raised when an answer calls a function that students have to write themselves in this lab."""


def stub(name: str) -> Callable:
    """Return a function that raises `NotAvailableError` with this dotted name."""

    def missing(*_: Any, **__: Any) -> None:
        raise NotAvailableError(f"{name} is not available in this lab, which asks you to write it yourself")

    missing.__name__ = missing.__qualname__ = name.rsplit(".", 1)[-1]
    return missing


def _owner(name: str) -> Any:
    """Return the module, or the object of a module, that holds a dotted name, or None if it is not imported."""
    path = name.rpartition(".")[0]
    if path in sys.modules:
        return sys.modules[path]
    above, _, inner = path.rpartition(".")  # such as torch.ops.torchvision
    return vars(sys.modules[above]).get(inner) if above in sys.modules else None


def _bindings(hidden: dict[int, str], *more: dict) -> list[tuple[dict, str, Any]]:
    """List every binding of the hidden objects in all loaded modules, whatever name a module gives them.

    Args:
        hidden: identity -> dotted name.
        more: other dictionaries of names to search, such as a notebook's.
    """
    owners = [_owner(name) for name in hidden.values()]  # torch.ops.torchvision is not in sys.modules
    spaces = [getattr(module, "__dict__", None) for module in [*sys.modules.values(), *owners]]
    bindings = []
    for space in {id(space): space for space in [*spaces, *more] if isinstance(space, dict)}.values():
        bindings += [(space, key, value) for key, value in list(space.items()) if id(value) in hidden]
    return bindings


def _operator_classes(names: Iterable[str]) -> list[tuple[type, str, str]]:
    """List (class, attribute, dotted name) of torch operators, which a second namespace object would create anew."""
    owners = [(name, _owner(name)) for name in names]
    return [
        (type(owner), name.rpartition(".")[2], name)
        for name, owner in owners
        if owner is not None and type(owner) is not types.ModuleType and type(owner).__module__ == "torch._ops"
    ]


def _replace(names: Sequence[str], *more: dict) -> list[tuple[Callable, Any, str]]:
    """Put stubs wherever hidden objects are bound.

    Returns:
        (stub, the object that it replaces, dotted name).
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
    """Undo `_replace`, also in modules that were imported since and bound a stub."""
    values = {id(replaced_stub): value for replaced_stub, value, _ in replaced}
    for space, key, replaced_stub in _bindings({id(replaced_stub): name for replaced_stub, _, name in replaced}, *more):
        space[key] = values[id(replaced_stub)]
    for kind, last, _ in _operator_classes(names):
        if last in vars(kind):
            delattr(kind, last)


def hide(names: Iterable[str]) -> None:
    """Replace functions, given by dotted names, until this process ends, also in modules that are imported later."""
    names = list(names)
    _replace(names)
    sys.meta_path.insert(0, _HideOnImport(names, []))


class _HideOnImport(importlib.abc.MetaPathFinder):
    """Import hook that hides functions of modules when they are imported."""

    def __init__(self, names: Sequence[str], replaced: list[tuple[Callable, Any, str]]) -> None:
        self.names, self.replaced, self.searching = names, replaced, set()

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Return the spec of the other finders, with a loader that hides the names after it has run."""
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
def without(names: Iterable[str], function: Callable) -> Iterator[Callable]:
    """Replace functions while the block runs, also under the names by which the student's cells imported them.

    Args:
        names: dotted names of functions, or of modules of segedu: everything that those define.
        function: the student's; the names of its notebook are searched too.

    Yields:
        The function to call: a stub if the student's function is itself a hidden one, as after
        `from torch.nn.functional import conv2d as conv2d_loops`, otherwise the student's.
    """
    notebook = getattr(function, "__globals__", {})
    if str(notebook.get("__name__", "")).partition(".")[0] == "segedu":  # our own functions, which the judge may run
        yield function
        return
    names = list(names)
    replaced = _replace(names, notebook)
    finder = _HideOnImport(names, replaced)
    sys.meta_path.insert(0, finder)
    try:
        yield next((replaced_stub for replaced_stub, value, _ in replaced if value is function), function)
    finally:
        sys.meta_path.remove(finder)
        _put_back(names, replaced, notebook)


def _objects(names: Iterable[str]) -> dict[int, str]:
    """Map identity -> dotted name of each hidden function that is imported."""
    objects: dict[int, str] = {}
    for name in names:
        value = getattr(_owner(name), name.rpartition(".")[2], None)
        if callable(value) and getattr(value, "__module__", None) != __name__:  # a stub stays
            objects[id(value)] = name
        for path, module in list(sys.modules.items()):
            for key, value in list(vars(module).items()) if _is_in(path, name) and module else ():
                if callable(value) and _is_in(getattr(value, "__module__", None), name) and not _is_error(value):
                    objects[id(value)] = f"{path}.{key}"
    return objects


def _is_in(path: str | None, name: str) -> bool:
    """Whether a module, given by its dotted name, is the named one or inside it."""
    return isinstance(path, str) and (path == name or path.startswith(name + "."))


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)
