"""The exercises of the labs, each defined once: cases, reference, known wrong answers."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

# exercises that are here and proved before their lab is written
WITHOUT_NOTEBOOK: tuple[str, ...] = ()


def names() -> list[str]:
    """The labs that have exercises.

    Returns:
        Lab names such as `04_metrics`, sorted.
    """
    found = [m.name for m in pkgutil.iter_modules(__path__) if m.name.startswith("lab")]
    return sorted(name.removeprefix("lab") for name in found)


def with_notebook() -> list[str]:
    """The labs that a student can open: those whose notebook is there too.

    Returns:
        Lab names, sorted.
    """
    return [lab for lab in names() if lab not in WITHOUT_NOTEBOOK]


def load(lab: str) -> ModuleType:
    """Load the exercises of a lab by its name.

    Args:
        lab: `04_metrics`.

    Returns:
        The module, with `exercises`, `check` and `use`.

    Raises:
        ValueError: for a lab that does not exist, with those that do.
    """
    if lab not in names():
        raise ValueError(f"lab is {lab!r}, expected one of {', '.join(names())}")
    return importlib.import_module(f"segedu.teaching.exercises.lab{lab}")
