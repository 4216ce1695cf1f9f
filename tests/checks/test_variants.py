"""Wrong answers as one change of the reference."""

import doctest
import inspect

import pytest

from segedu.teaching.checks import variants
from segedu.teaching.checks.variants import Variants, case


def scale(values, factor=2):
    """The right answer of these tests."""
    return [value * factor for value in values]


RIGHT = Variants(scale)


def test_the_example_in_the_docstring():
    assert doctest.testmod(variants).failed == 0


@pytest.mark.parametrize("variant, expected", [
    (RIGHT.given(values=lambda a: a.values[:1]), [3]),
    (RIGHT.given(values=lambda a: [a.factor], factor=lambda a: len(a.values)), [6]),  # both see the old arguments
    (RIGHT.then(lambda out, a: out[::-1]), [6, 3]),
    (RIGHT.then(lambda out, a: (out, a.factor)), ([3, 6], 3)),
    (RIGHT.instead(lambda a: sum(a.values)), 3),
    (Variants(RIGHT.given(factor=lambda a: 10)).then(lambda out, a: out + [a.factor]), [10, 20, 3]),
])  # fmt: skip
def test_a_change_of_arguments_of_the_result_or_of_all(variant, expected):
    assert variant([1, 2], 3) == expected
    assert variant(values=[1, 2], factor=3) == expected


def test_defaults_are_there_and_the_signature_stays():
    assert RIGHT.then(lambda out, a: (out, a.factor))([1]) == ([2], 2)
    assert inspect.signature(RIGHT.instead(lambda a: 0)) == inspect.signature(scale)
    assert RIGHT.instead(lambda a: 0).__module__ == scale.__module__


def test_a_name_that_is_no_argument_is_refused_at_once():
    with pytest.raises(TypeError, match="scale has no argument 'sizes', expected one of values, factor"):
        RIGHT.given(sizes=lambda a: 1)


def test_wrong_arguments_raise_as_the_reference_does():
    with pytest.raises(TypeError, match="missing"):
        RIGHT.then(lambda out, a: out)()


def test_a_case_is_a_dict_that_a_probe_reads():
    assert case("one box", 1, [2]) == {"name": "one box", "args": [1, [2]]}
    assert case("a slope", 1.0, grad=[0]) == {"name": "a slope", "args": [1.0], "grad": [0]}
