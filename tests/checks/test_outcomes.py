"""Which values count as equal."""

from __future__ import annotations

import numpy as np
import pytest

from segedu.teaching.checks.codec import pack, unpack
from segedu.teaching.checks.outcomes import plain, value_difference


@pytest.mark.parametrize("kind", [float, int, bool])
def test_an_empty_list_is_an_empty_array(kind):
    """A correct answer that uses lists can return an empty result only as []."""
    assert value_difference(np.zeros(0, kind), [], 1e-6) is None


@pytest.mark.parametrize("expected", [np.zeros((0, 4)), np.zeros(1), np.float64(0.0), None, ""])
def test_an_empty_list_is_nothing_else(expected):
    assert value_difference(expected, [], 1e-6) is not None


def test_a_long_double_is_a_float_in_the_check_and_in_grading():
    array = plain(np.arange(3, dtype=np.longdouble) / 3)
    assert array.dtype == np.float64 and np.array_equal(array, np.arange(3) / 3)
    assert type(plain(np.longdouble(1) / 3)) is float
    assert plain(np.float32([0.1])).dtype == np.float32
    files = pack([np.ones(2, np.longdouble), np.longdouble(2)])
    read = unpack(files.get)
    assert np.array_equal(read[0], [1.0, 1.0]) and read[1] == 2.0
