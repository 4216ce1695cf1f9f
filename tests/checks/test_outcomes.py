"""What counts as the same value."""

from __future__ import annotations

import numpy as np
import pytest

from segedu.teaching.checks.outcomes import value_difference


@pytest.mark.parametrize("kind", [float, int, bool])
def test_an_empty_list_is_an_empty_array(kind):
    """A right answer in lists has no other way to say that there is nothing."""
    assert value_difference(np.zeros(0, kind), [], 1e-6) is None


@pytest.mark.parametrize("expected", [np.zeros((0, 4)), np.zeros(1), np.float64(0.0), None, ""])
def test_an_empty_list_is_nothing_else(expected):
    assert value_difference(expected, [], 1e-6) is not None
