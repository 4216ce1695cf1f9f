"""Wrong answers written as one change of the reference, two such changes together, and cases in one line each."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary


@dataclass(frozen=True)
class Change:
    """How a variant differs from the function that it was made from.

    Attributes:
        base: the function that was changed.
        kind: "given", "then" or "instead", the method of `Variants`.
        arguments: the change of a "given", from all arguments to the changed ones.
        result: the change of a "then".
        compute: the computation of an "instead".
        parts: the parts of that computation that are changed.
    """

    base: Callable
    kind: str
    arguments: Callable[[SimpleNamespace], dict[str, Any]] | None = None
    result: Callable[[Any, SimpleNamespace], Any] | None = None
    compute: Callable | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)


_CHANGES: WeakKeyDictionary[Callable, Change] = WeakKeyDictionary()


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

        def arguments(a: SimpleNamespace) -> dict[str, Any]:
            return {name: change(a) for name, change in changes.items()}

        return self._made(
            lambda a: self._call(vars(a) | arguments(a)), Change(self.reference, "given", arguments=arguments)
        )

    def then(self, change: Callable[[Any, SimpleNamespace], Any]) -> Callable:
        """Change the reference's result by `(result, arguments) -> result`."""
        return self._made(lambda a: change(self._call(vars(a)), a), Change(self.reference, "then", result=change))

    def instead(self, compute: Callable[..., Any], **parts: Any) -> Callable:
        """Compute something else from the same arguments by `compute(arguments, **parts)`.

        Two wrong answers that change different parts of the same `compute` can be combined, see `both`.
        """
        change = Change(self.reference, "instead", compute=compute, parts=parts)
        return self._made(functools.partial(compute, **parts) if parts else compute, change)

    def _made(self, compute: Callable[[SimpleNamespace], Any], change: Change) -> Callable:
        @functools.wraps(self.reference)
        def wrong(*args: Any, **kwargs: Any) -> Any:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return compute(SimpleNamespace(**bound.arguments))

        _CHANGES[wrong] = change
        return wrong

    def _call(self, arguments: dict[str, Any]) -> Any:
        return self.reference(**arguments)


def both(first: Callable, second: Callable, reference: Callable) -> Callable | None:
    """Combine two wrong answers into the function of a student who makes both mistakes.

    The change of `second` is made around `first`: it changes the arguments that `first` gets, or its result.

        >>> def area(width, height=1):
        ...     return width * height
        >>> right = Variants(area)
        >>> doubled, negative = right.given(width=lambda a: 2 * a.width), right.then(lambda out, a: -out)
        >>> both(doubled, negative, area)(3, 4)
        -24

    Args:
        first: any wrong answer.
        second: another one.
        reference: the correct function.

    Returns:
        The combined function, or None if the two cannot be combined in this order: `second` has to be one change of the
        reference, of its arguments or of its result; or both change different parts of the same computation.
    """
    change = _CHANGES.get(second)
    if change is None or change.base is not reference:
        return None
    around = Variants(first)
    if change.kind == "given" and change.arguments is not None:
        arguments = change.arguments
        return around.instead(lambda a: first(**(vars(a) | arguments(a))))
    if change.kind == "then" and change.result is not None:
        return around.then(change.result)
    inner = _CHANGES.get(first)
    if inner is None or inner.compute is not change.compute or change.compute is None:
        return None
    if not inner.parts or not change.parts or set(inner.parts) & set(change.parts):
        return None
    return Variants(reference).instead(change.compute, **inner.parts, **change.parts)


def case(name: str, *args: Any, **more: Any) -> dict[str, Any]:
    """Make one case of an exercise.

    Args:
        name: what the case shows, as the student reads it.
        *args: positional arguments of the function.
        **more: further entries for the probe, such as `grad=[0]`.
    """
    return {"name": name, "args": list(args), **more}
