"""Loops that numba turns into machine code, once for all runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

from numba import njit

Kernel = TypeVar("Kernel", bound=Callable)


def compiled(kernel: Kernel) -> Kernel:
    """Compile a function of numbers and arrays when it is first called.

    The machine code is kept beside the source or in the user's cache folder. Where neither can be written, as in a
    sandbox, every process compiles for itself, which takes seconds.

    Args:
        kernel: a function that numba understands.

    Returns:
        The function, compiled.

    Raises:
        TypeError: the kernel is no function.

    >>> @compiled
    ... def triangle(n):
    ...     total = 0
    ...     for i in range(n + 1):
    ...         total += i
    ...     return total
    >>> triangle(4)
    10
    """
    if not inspect.isfunction(kernel):
        raise TypeError(f"kernel has type {type(kernel).__name__}, expected a function")
    try:
        return njit(cache=True)(kernel)
    except RuntimeError:  # numba found no folder to write to
        return njit(kernel)
