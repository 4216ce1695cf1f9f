"""Wrong answers written as one change of the reference, and cases in one line each."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class Variants:
    """Make wrong answers from a reference, each with one change.

    Every method returns a function with the signature of the reference. The changes are functions of `a`, a namespace
    of the arguments by name: `a.boxes`, `a.stride`.

        >>> def area(width, height=1):
        ...     return width * height
        >>> right = Variants(area)
        >>> right.given(width=lambda a: 2 * a.width)(3, 4)  # the reference, called with other arguments
        24
        >>> right.then(lambda out, a: out + a.height)(3, 4)  # a different result, computed from the reference's result
        16
        >>> right.instead(lambda a: a.width + a.height)(3, 4)  # a different computation
        7

    Args:
        reference: the correct function. To change it twice, pass a variant: `Variants(right.given(...)).then(...)`.
    """

    def __init__(self, reference: Callable) -> None:
        self.reference = reference
        self.signature = inspect.signature(reference)

    def given(self, **changes: Callable[[SimpleNamespace], Any]) -> Callable:
        """Apply the reference to changed arguments.

        Args:
            **changes: name of an argument -> function of all arguments that returns its new value.

        Raises:
            TypeError: if the reference has no argument with such a name.
        """
        if unknown := sorted(set(changes) - set(self.signature.parameters)):
            names = ", ".join(self.signature.parameters)
            raise TypeError(f"{self.reference.__name__} has no argument {unknown[0]!r}, expected one of {names}")

        def changed(a: SimpleNamespace) -> Any:
            return self._call(vars(a) | {name: change(a) for name, change in changes.items()})

        return self.instead(changed)

    def then(self, change: Callable[[Any, SimpleNamespace], Any]) -> Callable:
        """Change the reference's result by `(result, arguments) -> result`."""
        return self.instead(lambda a: change(self._call(vars(a)), a))

    def instead(self, compute: Callable[[SimpleNamespace], Any]) -> Callable:
        """Compute something else from the same arguments by `arguments -> result`."""

        @functools.wraps(self.reference)
        def wrong(*args: Any, **kwargs: Any) -> Any:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return compute(SimpleNamespace(**bound.arguments))

        return wrong

    def _call(self, arguments: dict[str, Any]) -> Any:
        return self.reference(**arguments)


def case(name: str, *args: Any, **more: Any) -> dict[str, Any]:
    """Make one case of an exercise.

    Args:
        name: what the case shows, as the student reads it.
        *args: positional arguments of the function.
        **more: further entries for the probe, such as `grad=[0]`.
    """
    return {"name": name, "args": list(args), **more}
