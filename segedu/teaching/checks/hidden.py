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
from collections.abc import Callable, Iterable, Iterator
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
    by_id = {id(space): space for space in [*spaces, *more] if isinstance(space, dict)}
    pairs = [(space, key, value) for space in by_id.values() for key, value in list(space.items())]
    return [(space, key, value) for space, key, value in pairs if id(value) in hidden]


def _operator_classes(names: Iterable[str]) -> list[tuple[type, str, str]]:
    """(class, attribute, dotted name) of operators of torch: a second namespace object makes each of them anew."""
    owners = [(name, _owner(name)) for name in names]
    return [
        (type(owner), name.rpartition(".")[2], name)
        for name, owner in owners
        if owner is not None and type(owner) is not types.ModuleType and type(owner).__module__ == "torch._ops"
    ]


def hide(names: Iterable[str]) -> None:
    """Replace functions for as long as this process lives; those of modules that come later are replaced then.

    Args:
        names: dotted.
    """
    names = list(names)
    hidden = _objects(names)
    for space, key, value in _bindings(hidden):
        space[key] = stub(hidden[id(value)])
    for kind, last, name in _operator_classes(names):
        setattr(kind, last, stub(name))
    later = {name.rpartition(".")[0] for name in names} - set(sys.modules)
    if later:
        sys.meta_path.insert(0, _Later(later, names))


class _Later(importlib.abc.MetaPathFinder):
    """Hides functions of modules when they are imported."""

    def __init__(self, modules: set[str], names: list[str]) -> None:
        self.modules, self.names = modules, names

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """The spec that the other finders give, with a loader that hides the names after it has run."""
        if fullname not in self.modules:
            return None
        self.modules.discard(fullname)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run, names = spec.loader.exec_module, self.names

            def exec_module(module: Any) -> None:
                run(module)
                hide([name for name in names if name.rpartition(".")[0] == fullname])

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
    hidden = _objects(names)
    stubs = {key: stub(name) for key, name in hidden.items()}
    changed = _bindings(hidden, notebook)
    operators = [one for one in _operator_classes(names) if one[1] not in vars(one[0])]
    try:
        for space, key, value in changed:
            space[key] = stubs[id(value)]
        for kind, last, name in operators:
            setattr(kind, last, stub(name))
        yield
    finally:
        for space, key, value in changed:
            space[key] = value
        for kind, last, _ in operators:
            delattr(kind, last)


def _objects(names: Iterable[str]) -> dict[int, str]:
    """Identity -> dotted name of each function that is hidden and imported."""
    found: dict[int, str] = {}
    for name in names:
        value = getattr(_owner(name), name.rpartition(".")[2], None)
        if callable(value):
            found[id(value)] = name
        module = sys.modules.get(name)
        for key, value in vars(module).items() if module else ():
            if callable(value) and getattr(value, "__module__", None) == name and not _is_error(value):
                found[id(value)] = f"{name}.{key}"
    return found


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)
