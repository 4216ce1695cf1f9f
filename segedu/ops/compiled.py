"""Loops that numba compiles to machine code, which is cached for later runs, and the arrays that they process."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numba import njit
from torch import Tensor

Kernel = TypeVar("Kernel", bound=Callable)


def compiled(kernel: Kernel) -> Kernel:
    """Compile a function of numbers and arrays with numba, when it is first called.

    The machine code is cached next to the source file or in the user's cache folder. Where neither is writable, as in a
    sandbox, every process compiles again, which takes seconds.

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
    except RuntimeError:  # numba has no folder to write to
        return njit(kernel)


def float64_array(values: Tensor) -> np.ndarray:
    """Convert a tensor to a contiguous float64 array in CPU memory, for a compiled loop. The array has no gradient.

    Where dtype and memory layout already agree, the array shares the memory of the tensor.

    >>> float64_array(Tensor([1, 2]))
    array([1., 2.])
    """
    return np.ascontiguousarray(values.detach().double().numpy(force=True))  # numpy has no bfloat16
