"""Checks of numbers, sizes and choices."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

AXES = {1: "(L,)", 2: "(H, W)", 3: "(D, H, W)"}


def check_integer(name: str, value: int, minimum: int = 1, maximum: int | None = None) -> int:
    """Check an integer, for example a number of classes.

    Returns:
        The value as an `int`. NumPy integers are accepted, bools and floats are not.

    >>> check_integer("stride", 0)
    Traceback (most recent call last):
    ValueError: stride is 0, expected an integer of at least 1
    """
    bounds = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is {value!r}, expected an integer {bounds}")
    if value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f"{name} is {value}, expected an integer {bounds}")
    return int(value)


def check_integers(minimum: int = 1, /, **values: int | Sequence[int]) -> None:
    """Check several integers, or sequences of integers, by the names of their arguments.

    >>> check_integers(depth=3, widths=[8, 16])
    >>> check_integers(0, padding=1, widths=[8, -1])
    Traceback (most recent call last):
    ValueError: widths[1] is -1, expected an integer of at least 0
    """
    for name, value in values.items():
        if isinstance(value, Sequence) and not isinstance(value, str):
            for i, entry in enumerate(value):
                check_integer(f"{name}[{i}]", entry, minimum)
        else:
            check_integer(name, value, minimum)


def check_number(
    name: str, value: float, minimum: float = 0.0, maximum: float = math.inf, exclusive: bool = False
) -> float:
    """Check a finite number, for example a weight or a threshold.

    Args:
        minimum: the smallest value allowed.
        maximum: the largest value allowed.
        exclusive: whether `minimum` itself is refused.

    Returns:
        The value as a `float`.

    >>> check_number("alpha", 1.5, maximum=1)
    Traceback (most recent call last):
    ValueError: alpha is 1.5, expected a number of at least 0 and at most 1
    """
    bounds = [] if minimum == -math.inf else [f"{'above' if exclusive else 'of at least'} {minimum:g}"]
    bounds += [] if maximum == math.inf else [f"{'' if bounds else 'of '}at most {maximum:g}"]
    expected = f"a {'finite number' if maximum == math.inf else 'number'} {' and '.join(bounds)}".rstrip()
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} is {value!r}, expected {expected}")
    above = minimum < value if exclusive else minimum <= value  # False for NaN
    if not above or not value <= maximum or math.isinf(value):
        raise ValueError(f"{name} is {value}, expected {expected}")
    return float(value)


def check_size(name: str, size: Sequence[int], minimum: int = 1, axes: int = 2) -> tuple[int, ...]:
    """Check the size of an image (H, W), or of a volume (D, H, W) with `axes=3`.

    Returns:
        The size as a tuple of ints.

    >>> check_size("size", [4, 6])
    (4, 6)
    >>> check_size("size", (4, 0))
    Traceback (most recent call last):
    ValueError: size is (4, 0), expected (H, W), integers of at least 1
    """
    expected = f"{AXES[axes]}, integers of at least {minimum}"
    if isinstance(size, str) or not isinstance(size, Sequence) or len(size) != axes:
        raise TypeError(f"{name} is {size!r}, expected {expected}")
    if not all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in size):
        raise TypeError(f"{name} is {size!r}, expected {expected}")
    if min(size) < minimum:
        raise ValueError(f"{name} is {tuple(size)}, expected {expected}")
    return tuple(int(side) for side in size)


def check_length(name: str, values: Sequence[Any], length: int, of: str = "") -> None:
    """Check how many entries a sequence has.

    Args:
        of: what has one entry each, for the message, for example "image".

    >>> check_length("sizes", [(4, 4)], 2, of="image")
    Traceback (most recent call last):
    ValueError: sizes has 1 entries, expected 2, one for each image
    """
    if len(values) != length:
        each = f", one for each {of}" if of else ""
        raise ValueError(f"{name} has {len(values)} entries, expected {length}{each}")


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Check that a value is one of a few.

    >>> check_choice("reduction", "total", ("mean", "sum"))
    Traceback (most recent call last):
    ValueError: reduction is 'total', expected 'mean' or 'sum'
    """
    if value not in choices:
        *others, last = map(repr, choices)
        expected = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{name} is {value!r}, expected {expected}")


def check_multiple(name: str, value: int, divisor: int, of: str = "") -> None:
    """Check a positive multiple of an integer.

    Args:
        of: the argument that the divisor comes from, for the message.

    >>> check_multiple("embed_dim", 8, 3, of="num_heads")
    Traceback (most recent call last):
    ValueError: embed_dim is 8, expected a positive multiple of num_heads, which is 3
    """
    if divisor < 1 or value < 1 or value % divisor:
        expected = f"{of}, which is {divisor}" if of else divisor
        raise ValueError(f"{name} is {value}, expected a positive multiple of {expected}")
