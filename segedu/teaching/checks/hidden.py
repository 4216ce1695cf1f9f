"""Functions of other libraries that a lab asks students to write: hidden while grading, and while a check runs.

A lab names them in `FORBIDDEN` of its package, such as `torchvision.ops.box_iou`. In grading they are replaced before a
student's first cell runs, so every way to the name (an import, `getattr`, `sys.modules`, `__import__`) ends at a stub
that raises. A check in a student's notebook replaces them, and what the course's library hides, for as long as the
student's function runs, so that an answer that passes its check does not fail in grading.

This is a policy and not a wall. The other library's files stay readable, and a student may copy them out.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import sys
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


def _loaded(name: str) -> Iterator[tuple[Any, str]]:
    """Where a dotted name is bound in what is imported: in its parent, and in the module that defines it."""
    path, _, last = name.rpartition(".")
    owner: Any = sys.modules.get(path)
    if owner is None:  # the parent may be an object of a module, such as torch.ops.torchvision
        above, _, inner = path.rpartition(".")
        owner = vars(sys.modules[above]).get(inner) if above in sys.modules else None
    if owner is None or not hasattr(owner, last):
        return
    yield owner, last
    home = sys.modules.get(getattr(getattr(owner, last), "__module__", None) or "")
    if home not in (None, owner) and getattr(home, last, None) is getattr(owner, last):
        yield home, last


def hide(names: Iterable[str]) -> None:
    """Replace functions for as long as this process lives; those of modules that come later are replaced then.

    Args:
        names: dotted.
    """
    names = list(names)
    for name in names:
        for owner, last in list(_loaded(name)):
            setattr(owner, last, stub(name))
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
    spaces = [notebook]
    spaces += [vars(module) for name, module in list(sys.modules.items()) if name.split(".")[0] == "segedu" and module]
    changed = [(space, key, value) for space in spaces for key, value in list(space.items()) if id(value) in hidden]
    bound = [(owner, last, getattr(owner, last)) for name in names for owner, last in list(_loaded(name))]
    stubs = {key: stub(name) for key, name in hidden.items()}
    try:
        for space, key, value in changed:
            space[key] = stubs[id(value)]
        for owner, last, value in bound:
            if id(value) in stubs:
                setattr(owner, last, stubs[id(value)])
        yield
    finally:
        for space, key, value in changed:
            space[key] = value
        for owner, last, value in bound:
            setattr(owner, last, value)


def _objects(names: Iterable[str]) -> dict[int, str]:
    """Identity -> dotted name of each function that is hidden and imported."""
    found: dict[int, str] = {}
    for name in names:
        found |= {id(getattr(owner, last)): name for owner, last in _loaded(name) if callable(getattr(owner, last))}
        module = sys.modules.get(name)
        for key, value in vars(module).items() if module else ():
            if callable(value) and getattr(value, "__module__", None) == name and not _is_error(value):
                found[id(value)] = f"{name}.{key}"
    return found


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)
