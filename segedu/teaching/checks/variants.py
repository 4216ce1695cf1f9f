"""Wrong answers written as one change of the right one, and cases in one line each."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class Variants:
    """Makes wrong answers out of a reference, each by one change.

    Every method returns a function with the signature of the reference. The changes are functions of `a`, a namespace
    of the arguments by name: `a.boxes`, `a.stride`.

        >>> def area(width, height=1):
        ...     return width * height
        >>> right = Variants(area)
        >>> right.given(width=lambda a: 2 * a.width)(3, 4)  # the reference, given other arguments
        24
        >>> right.then(lambda out, a: out + a.height)(3, 4)  # another result, made from the reference's
        16
        >>> right.instead(lambda a: a.width + a.height)(3, 4)  # another computation
        7

    Args:
        reference: the right answer. To change twice, give it a variant: `Variants(right.given(...)).then(...)`.
    """

    def __init__(self, reference: Callable) -> None:
        self.reference = reference
        self.signature = inspect.signature(reference)

    def given(self, **changes: Callable[[SimpleNamespace], Any]) -> Callable:
        """The reference applied to changed arguments.

        Args:
            **changes: name of an argument -> function of all arguments that returns its new value.

        Returns:
            The wrong answer.

        Raises:
            TypeError: if the reference has no argument of such a name.
        """
        if unknown := sorted(set(changes) - set(self.signature.parameters)):
            names = ", ".join(self.signature.parameters)
            raise TypeError(f"{self.reference.__name__} has no argument {unknown[0]!r}, expected one of {names}")

        def changed(a: SimpleNamespace) -> Any:
            return self._call(vars(a) | {name: change(a) for name, change in changes.items()})

        return self.instead(changed)

    def then(self, change: Callable[[Any, SimpleNamespace], Any]) -> Callable:
        """A result made from the reference's.

        Args:
            change: `(result, arguments) -> result`.

        Returns:
            The wrong answer.
        """
        return self.instead(lambda a: change(self._call(vars(a)), a))

    def instead(self, compute: Callable[[SimpleNamespace], Any]) -> Callable:
        """Another computation from the same arguments.

        Args:
            compute: arguments -> result.

        Returns:
            The wrong answer.
        """

        @functools.wraps(self.reference)
        def wrong(*args: Any, **kwargs: Any) -> Any:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return compute(SimpleNamespace(**bound.arguments))

        return wrong

    def _call(self, arguments: dict[str, Any]) -> Any:
        return self.reference(**arguments)


def case(name: str, *args: Any, **more: Any) -> dict[str, Any]:
    """One case of an exercise.

    Args:
        name: what the case shows, as the student reads it.
        *args: positional arguments of the function.
        **more: what the probe reads beside them, such as `grad=[0]`.

    Returns:
        The case.
    """
    return {"name": name, "args": list(args), **more}
